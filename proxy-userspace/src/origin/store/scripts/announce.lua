-- ARGV: longest text, most names, name
local found, seen, whole = names(KEYS[1], ARGV[1], ARGV[2])
if whole and seen[ARGV[3]] then return 0 end
if not seen[ARGV[3]] then
  if #found >= tonumber(ARGV[2]) then return -1 end
  found[#found + 1] = ARGV[3]
end
store(KEYS[1], found)
return 1
