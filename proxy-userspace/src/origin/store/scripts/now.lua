-- The clock of Redis in milliseconds: the members of a fleet need no common one.
local function now()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end
