-- One hash that several processes read and change. Who changes it has to know it as it stands.
--
-- KEYS: 1 the hash. ARGV: 1 the operation, 2 the version that is known; to put: 3 the version from now on, 4 how many fields
-- are set, then the name and the value of each, then the names of those that go.
-- The version is a field of the hash whose name nothing else has.

local VERSION = ':version'
local version = redis.call('HGET', KEYS[1], VERSION) or ''
if ARGV[1] == 'read' then
  if version == ARGV[2] then return { 'same' } end
  return { 'all', version, redis.call('HGETALL', KEYS[1]) }
end
if version ~= ARGV[2] then return { 'behind' } end
local set = tonumber(ARGV[4])
for i = 5, 3 + 2 * set, 2 do
  redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
end
for i = 5 + 2 * set, #ARGV do
  redis.call('HDEL', KEYS[1], ARGV[i])
end
redis.call('HSET', KEYS[1], VERSION, ARGV[3])
return { 'done' }
