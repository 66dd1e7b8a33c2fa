-- All that is done to purses in Redis, one operation per call, by Redis' own clock.
--
-- KEYS: 1 the name of this data set, 2 the mark that an operation was done, then two for each purse: its counts and its leases.
-- ARGV: 1 the operation, 2 its id, 3 the lease time (reserve) or the name of the data set (settle), 4 when a reservation is
--       too late, then eight for each purse: kind of window, cap, reserved amount, used amount, four numbers of the window.
--
-- Counts are a hash: r reserved, s sum of what was used, n the newest bucket or the start of the window, e the end of the
-- window, c the last bucket that was charged, k what was told again after a loss, and the buckets by number. Leases are a
-- sorted set by expiry; an expired one stays for a day with a negative score, so that a late settlement is known from one
-- that comes twice.

local DAY = 86400000
local operation, id = ARGV[1], ARGV[2]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local purses = (#KEYS - 2) / 2

local function text(number)
  return string.format('%.0f', number)
end

-- A purse that nobody asks for goes when nothing in it can count any more; a lease is never longer than a day.
local function keep(p)
  local span = 0
  if p.kind == 's' then span = p.w1 * (p.w2 + 1) elseif p.kind == 'f' then span = math.max(p.e - now, 0) + p.w4 - p.w3 end
  redis.call('PEXPIRE', p.counts, text(span + 3 * DAY))
  redis.call('PEXPIRE', p.leases, text(span + 3 * DAY))
end

-- A sliding window moves on: buckets that have left it go; those ahead of a clock that went back come to the present.
local function roll_sliding(p)
  local present = math.floor(now / p.w1)
  if p.n == present then return end
  if p.n then
    local fields, sum, moved, charged = redis.call('HGETALL', p.counts), 0, 0, nil
    for f = 1, #fields, 2 do
      local bucket, amount = tonumber(fields[f]), tonumber(fields[f + 1])
      if bucket then
        if bucket > present then
          moved = moved + amount
          redis.call('HDEL', p.counts, fields[f])
        elseif bucket < present - p.w2 then
          redis.call('HDEL', p.counts, fields[f])
        else
          sum = sum + amount
          if not charged or bucket > charged then charged = bucket end
        end
      end
    end
    if moved ~= 0 then
      redis.call('HINCRBY', p.counts, text(present), text(moved))
      charged = present
    end
    p.s, p.c = sum + moved, charged or 0
  end
  p.n = present
  redis.call('HSET', p.counts, 'n', text(p.n), 's', text(p.s), 'c', text(p.c))
  keep(p)
end

-- A fixed window gives way to a later one. See `Fixed::roll` for what happens when the clock goes back.
local function roll_fixed(p)
  local from, to
  if now < p.w2 then from, to = p.w1, p.w2 elseif now < p.w3 then from, to = p.w2, p.w3 else from, to = p.w3, p.w4 end
  if p.n and p.n <= now and now < p.e then return end
  if p.n and from < p.e then
    if now >= p.n - (p.e - p.n) then return end
  else
    p.s = 0
  end
  p.n, p.e = from, to
  redis.call('HSET', p.counts, 'n', text(from), 'e', text(to), 's', text(p.s))
  keep(p)
end

-- Gives back what is reserved by leases whose time is over.
local function reclaim(p)
  local over = redis.call('ZRANGEBYSCORE', p.leases, '(0', text(now), 'LIMIT', 0, 1000)
  if #over == 0 then return end
  for _, member in ipairs(over) do
    p.r = p.r - tonumber(string.match(member, ':(%d+)$'))
    redis.call('ZADD', p.leases, text(-now), member)
  end
  redis.call('HSET', p.counts, 'r', text(p.r))
  redis.call('ZREMRANGEBYSCORE', p.leases, text(DAY - now), '(0')
end

local opened = {}

-- Two claims on one purse see each other.
local function open(i)
  local counts, a = KEYS[1 + 2 * i], 8 * i - 4
  local p = opened[counts]
  if not p then
    p = { counts = counts, leases = KEYS[2 + 2 * i], kind = ARGV[a + 1], asked = 0 }
    for w = 1, 4 do p['w' .. w] = tonumber(ARGV[a + 4 + w]) end
    local got = redis.call('HMGET', counts, 'r', 's', 'n', 'e', 'c')
    p.r, p.s, p.n, p.e, p.c = tonumber(got[1]) or 0, tonumber(got[2]) or 0, tonumber(got[3]), tonumber(got[4]) or 0, tonumber(got[5]) or 0
    if p.kind == 's' then roll_sliding(p) elseif p.kind == 'f' then roll_fixed(p) end
    reclaim(p)
    opened[counts] = p
  end
  return p, tonumber(ARGV[a + 2]), tonumber(ARGV[a + 3]), tonumber(ARGV[a + 4])
end

local function charge(p, amount)
  if amount == 0 or p.kind == 'n' then return end
  p.s = p.s + amount
  redis.call('HSET', p.counts, 's', text(p.s))
  if p.kind == 's' then
    p.c = p.n
    redis.call('HINCRBY', p.counts, text(p.n), text(amount))
    redis.call('HSET', p.counts, 'c', text(p.c))
  end
end

local function resets_at(p)
  if p.kind == 'f' then return p.e end
  if p.kind == 's' and p.c > 0 then return (p.c + p.w2 + 1) * p.w1 end
  return 0
end

-- Calendar windows come from the gateway; where its clock is far from ours it is told the time and asks again.
local function known_window()
  for i = 1, purses do
    local a = 8 * i - 4
    if ARGV[a + 1] == 'f' and (now < tonumber(ARGV[a + 5]) or now >= tonumber(ARGV[a + 8])) then return false end
  end
  return true
end

-- The data set has a name, so that it is noticed when Redis has lost it and with it all leases.
local function data_set()
  local name = redis.call('GET', KEYS[1])
  if not name then
    name = id
    redis.call('SET', KEYS[1], name)
  end
  return name
end

local function standings()
  local reply = { 'counted', text(now), data_set() }
  for i = 1, purses do
    local p = open(i)
    table.insert(reply, text(p.s))
    table.insert(reply, text(p.r))
    table.insert(reply, text(resets_at(p)))
  end
  return reply
end

local function reserve()
  local refused = { 'denied', text(now), data_set() }
  for i = 1, purses do
    local p, cap, amount = open(i)
    if p.s + p.r + p.asked + amount > cap then
      table.insert(refused, { text(i - 1), text(p.s), text(p.r + p.asked), text(p.e), p.kind == 's' and redis.call('HGETALL', p.counts) or {} })
    end
    p.asked = p.asked + amount
  end
  if #refused > 3 then return refused end
  local lease_time = tonumber(ARGV[3])
  for i = 1, purses do
    local p, _, amount = open(i)
    p.r = p.r + amount
    redis.call('HSET', p.counts, 'r', text(p.r))
    redis.call('ZADD', p.leases, text(now + lease_time), id .. '.' .. i .. ':' .. text(amount))
    keep(p)
  end
  return standings()
end

-- Once only: by the lease where it is known, by a mark where Redis has lost its data since.
local function settle()
  local known = ARGV[3] == '' or redis.call('GET', KEYS[1]) == ARGV[3]
  local first = known or redis.call('SET', KEYS[2], 1, 'NX', 'PX', 7 * DAY)
  for i = 1, purses do
    local p, _, amount, used = open(i)
    local member = id .. '.' .. i .. ':' .. text(amount)
    local expires = known and redis.call('ZSCORE', p.leases, member)
    if expires then
      redis.call('ZREM', p.leases, member)
      if tonumber(expires) > 0 then
        p.r = p.r - amount
        redis.call('HSET', p.counts, 'r', text(p.r))
      end
    end
    if expires or (first and not known) then
      charge(p, used)
      keep(p)
    end
  end
  return standings()
end

-- Amounts that were used without a lease, or taken off by a top-up.
local function add()
  if redis.call('SET', KEYS[2], 1, 'NX', 'PX', 7 * DAY) then
    for i = 1, purses do
      local p, _, _, used = open(i)
      charge(p, used)
      keep(p)
    end
  end
  return standings()
end

-- What replicas knew to be used before all was lost. Each tells what it knew, in part of the same: the most counts.
local function recall()
  for i = 1, purses do
    local p, _, _, used = open(i)
    local told = tonumber(redis.call('HGET', p.counts, 'k')) or 0
    if used > told then
      charge(p, used - told)
      redis.call('HSET', p.counts, 'k', text(used))
      keep(p)
    end
  end
  return standings()
end

local function reset()
  for i = 1, purses do
    local p = open(i)
    for _, field in ipairs(redis.call('HKEYS', p.counts)) do
      if tonumber(field) then redis.call('HDEL', p.counts, field) end
    end
    redis.call('HSET', p.counts, 's', '0', 'c', '0')
    p.s, p.c = 0, 0
  end
  return standings()
end

if not known_window() then return { 'clock', text(now) } end
if operation == 'reserve' then
  if now > tonumber(ARGV[4]) then return { 'clock', text(now) } end
  return reserve()
end
if operation == 'settle' then return settle() end
if operation == 'add' then return add() end
if operation == 'recall' then return recall() end
if operation == 'reset' then return reset() end
return standings()
