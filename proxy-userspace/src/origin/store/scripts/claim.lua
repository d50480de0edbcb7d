-- ARGV: server prefix, life, candidate, stale, channel, notice
local value = held(KEYS[1], ARGV[1])
if value and value ~= ARGV[4] then
  extend(KEYS[1], ARGV[2])
  return value
end
redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[2])
redis.call('PUBLISH', ARGV[5], ARGV[6])
return ARGV[3]
