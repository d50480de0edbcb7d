-- A sorted set of members by the time they expire. ARGV: member, life
local time = now()
local swept = redis.pcall('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', time))
if type(swept) == 'table' then
  if not string.find(swept.err, 'WRONGTYPE', 1, true) then error(swept.err) end
  redis.call('DEL', KEYS[1])
end
return redis.call('ZADD', KEYS[1], string.format('%.0f', time + tonumber(ARGV[2])), ARGV[1])
