-- The server key that a stream's key holds, if it is one.
local function held(key, prefix)
  local value = redis.pcall('GETRANGE', key, 0, #prefix + 1024)
  if type(value) == 'table' then
    if string.find(value.err, 'WRONGTYPE', 1, true) then return nil end
    error(value.err)
  end
  if #value <= #prefix or #value > #prefix + 1024 then return nil end
  if string.sub(value, 1, #prefix) ~= prefix or string.find(value, '%c') then return nil end
  return value
end
-- The Go proxy's picks have no expiry: it would not refresh one.
local function extend(key, ttl)
  if redis.call('PTTL', key) >= 0 then redis.call('PEXPIRE', key, ttl) end
end
