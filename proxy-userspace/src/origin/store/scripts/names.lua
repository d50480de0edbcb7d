-- The Go proxy's list of server keys, a JSON array; what is not one counts as empty.
local function names(key, longest, most)
  local text = redis.pcall('GETRANGE', key, 0, longest)
  if type(text) == 'table' then
    if not string.find(text.err, 'WRONGTYPE', 1, true) then error(text.err) end
    text = ''
  end
  local found, seen = {}, {}
  if #text > tonumber(longest) then return found, seen, false end
  local read, list = pcall(cjson.decode, text)
  if not read or type(list) ~= 'table' then return found, seen, false end
  local items = 0
  for _ in pairs(list) do items = items + 1 end
  for _, name in ipairs(list) do
    if type(name) == 'string' and not seen[name] and #found < tonumber(most) then
      seen[name] = true
      found[#found + 1] = name
    end
  end
  return found, seen, items == #found
end
-- cjson writes an empty array as an object and escapes slashes; Go does neither.
local function store(key, found)
  local text = '[]'
  if #found > 0 then text = string.gsub(cjson.encode(found), '\\/', '/') end
  redis.call('SET', key, text)
end
