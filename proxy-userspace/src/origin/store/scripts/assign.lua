-- ARGV: server prefix, life, origin, channel, notice
if held(KEYS[1], ARGV[1]) == ARGV[3] then
  extend(KEYS[1], ARGV[2])
  return 0
end
redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[2])
redis.call('PUBLISH', ARGV[4], ARGV[5])
return 1
