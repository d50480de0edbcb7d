-- ARGV: most members, longest member. It writes nothing, so that replicas and a full Redis answer too.
local after = string.format('(%.0f', now())
local members = redis.call('ZRANGEBYSCORE', KEYS[1], after, '+inf', 'LIMIT', 0, ARGV[1])
local fit = {}
for _, member in ipairs(members) do
  if #member <= tonumber(ARGV[2]) then fit[#fit + 1] = member end
end
return fit
