-- ARGV: longest text, most names, names that go
local found = names(KEYS[1], ARGV[1], ARGV[2])
local gone, left = {}, {}
for at = 3, #ARGV do gone[ARGV[at]] = true end
for _, name in ipairs(found) do
  if not gone[name] then left[#left + 1] = name end
end
if #left == #found then return 0 end
store(KEYS[1], left)
return #found - #left
