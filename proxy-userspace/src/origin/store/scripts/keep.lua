-- ARGV: server prefix, life, origin
local value = held(KEYS[1], ARGV[1])
if not value then
  redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[2])
  return ARGV[3]
end
if value == ARGV[3] then extend(KEYS[1], ARGV[2]) end
return value
