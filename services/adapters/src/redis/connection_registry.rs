//! Which gateway holds each live connection, as records that lapse (routing-redis §2–4).
//!
//! A member of a set counts only while its `connection:{id}` is there; whoever meets one whose record
//! is gone takes it out. Every change is one script, so two devices that come and go at once can't lose
//! a live route. The scripts name keys that they find on the way, so Redis may not be a cluster (D8).

use std::time::Duration;

use async_trait::async_trait;
use domain::{
    Error, Millis,
    ids::{ConnectionId, UserId},
    ports::connection_registry::{ConnectionRegistry, Registered},
    route::{Connection, GatewayId},
};
use redis::{ErrorKind, FromRedisValue, Pipeline, RedisError, Script, ServerErrorKind};

use super::Cache;

/// Users or connections of one script call: longer calls would hold up everybody else.
const CHUNK: usize = 64;

/// Walks a user's connections: takes out those whose record is gone, and
/// returns the live ones as `{id, device, gateway, connected_at}`.
const LIVE: &str = r"
local function live(connections, prefix)
  local found, gone = {}, {}
  for _, id in ipairs(redis.call('SMEMBERS', connections)) do
    local record = redis.call('HMGET', prefix .. id, 'device_id', 'gateway_id', 'connected_at')
    if record[2] then
      found[#found + 1] = {id, record[1], record[2], record[3]}
    else
      gone[#gone + 1] = id
    end
  end
  for _, id in ipairs(gone) do redis.call('SREM', connections, id) end
  return found, #gone > 0
end
local function rebuild(gateways, found, ttl)
  redis.call('DEL', gateways)
  for _, connection in ipairs(found) do redis.call('SADD', gateways, connection[3]) end
  if #found > 0 then redis.call('PEXPIRE', gateways, ttl) end
end
";

/// KEYS: the record, the user's connections, the gateway's connections, the user's gateways.
const REGISTER: &str = r"
local prefix, id, user, device, gateway, since, now, ttl = unpack(ARGV)
redis.call('HSET', KEYS[1], 'user_id', user, 'device_id', device, 'gateway_id', gateway,
  'connected_at', since, 'last_heartbeat', now)
redis.call('SADD', KEYS[2], id)
redis.call('SADD', KEYS[3], id)
for i = 1, 3 do redis.call('PEXPIRE', KEYS[i], ttl) end
local found = live(KEYS[2], prefix)
rebuild(KEYS[4], found, tonumber(ttl))
local replaced = {}
for _, other in ipairs(found) do
  local older = tonumber(other[4]) < tonumber(since) or (tonumber(other[4]) == tonumber(since) and other[1] < id)
  if other[1] ~= id and other[2] == device and older then
    replaced[#replaced + 1] = other[1]
    replaced[#replaced + 1] = other[3]
  end
end
return {#found, replaced}
";

/// KEYS: as [`REGISTER`].
const DEREGISTER: &str = r"
local prefix, id = unpack(ARGV)
redis.call('DEL', KEYS[1])
redis.call('SREM', KEYS[2], id)
redis.call('SREM', KEYS[3], id)
local found = live(KEYS[2], prefix)
rebuild(KEYS[4], found, redis.call('PTTL', KEYS[2]))
return #found
";

/// KEYS: four for each connection, as [`REGISTER`]; ARGV: now, TTL, the ids. Returns the places of those missing.
const RENEW: &str = r"
local missing = {}
for i = 1, #ARGV - 2 do
  local at, id = (i - 1) * 4, ARGV[i + 2]
  if redis.call('EXISTS', KEYS[at + 1]) == 0 or redis.call('SISMEMBER', KEYS[at + 2], id) == 0 then
    missing[#missing + 1] = i - 1
  else
    redis.call('HSET', KEYS[at + 1], 'last_heartbeat', ARGV[1])
    for k = 1, 4 do redis.call('PEXPIRE', KEYS[at + k], ARGV[2]) end
  end
end
return missing
";

/// ARGV: what the names of records, of users' connections and of users' gateways begin with, then the users. Returns
/// the gateways, and for each user how many and which of them.
const GATEWAYS: &str = r"
local prefix, connections, gateways = ARGV[1], ARGV[2], ARGV[3]
local names, place, answer = {}, {}, {}
for i = 4, #ARGV do
  local gone, seen, count, at = false, {}, #answer + 1, #answer + 1
  for _, id in ipairs(redis.call('SMEMBERS', connections .. ARGV[i])) do
    local name = redis.call('HGET', prefix .. id, 'gateway_id')
    if not name then
      gone = true
    else
      if not place[name] then
        names[#names + 1] = name
        place[name] = #names
      end
      if not seen[name] then
        seen[name] = true
        at = at + 1
        answer[at] = place[name]
      end
    end
  end
  answer[count] = at - count
  if gone then
    local found = live(connections .. ARGV[i], prefix)
    rebuild(gateways .. ARGV[i], found, redis.call('PTTL', connections .. ARGV[i]))
  end
end
return {names, answer}
";

/// The registry of live connections.
#[derive(Clone)]
pub struct Registry {
    cache: Cache,
    register: Script,
    deregister: Script,
    renew: Script,
    gateways: Script,
}

impl Registry {
    /// The registry in that cache.
    pub fn new(cache: Cache) -> Self {
        let with_live = |body: &str| Script::new(&format!("{LIVE}{body}"));
        Self {
            cache,
            register: with_live(REGISTER),
            deregister: with_live(DEREGISTER),
            renew: Script::new(RENEW),
            gateways: with_live(GATEWAYS),
        }
    }

    fn keys(&self, connection: &Connection) -> [String; 4] {
        [
            self.cache.key(format_args!("connection:{}", connection.id)),
            self.cache.key(format_args!("user_connections:{}", connection.user)),
            self.cache.key(format_args!("gateway_connections:{}", connection.gateway)),
            self.cache.key(format_args!("user_servers:{}", connection.user)),
        ]
    }

    fn record_prefix(&self) -> String {
        self.cache.key(format_args!("connection:"))
    }

    /// Calls the script once for each chunk, all in one round trip; one more when Redis does not know the script.
    async fn call_all<T: FromRedisValue>(
        &self,
        script: &Script,
        chunks: &[(Vec<String>, Vec<String>)],
    ) -> Result<Vec<T>, Error> {
        let mut pipeline = Pipeline::with_capacity(chunks.len());
        for (keys, arguments) in chunks {
            pipeline.cmd("EVALSHA").arg(script.get_hash()).arg(keys.len()).arg(keys).arg(arguments);
        }
        let mut connection = self.cache.connection();
        match pipeline.query_async(&mut connection).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                script.load_async(&mut connection).await.map_err(away)?;
                pipeline.query_async(&mut connection).await.map_err(away)
            }
            other => other.map_err(away),
        }
    }
}

#[async_trait]
impl ConnectionRegistry for Registry {
    async fn register(&self, connection: &Connection, now: Millis, ttl: Duration) -> Result<Registered, Error> {
        let mut call = self.register.prepare_invoke();
        for key in self.keys(connection) {
            call.key(key);
        }
        call.arg(self.record_prefix())
            .arg(connection.id.to_string())
            .arg(connection.user.to_string())
            .arg(connection.device.to_string())
            .arg(connection.gateway.to_string())
            .arg(connection.connected_at.0)
            .arg(now.0)
            .arg(millis(ttl));
        let (live, flat): (u32, Vec<String>) = call.invoke_async(&mut self.cache.connection()).await.map_err(away)?;
        let replaced = flat.chunks_exact(2).map(|pair| Ok((pair[0].parse()?, pair[1].parse()?)));
        Ok(Registered { live, replaced: replaced.collect::<Result<_, Error>>().map_err(Error::internal)? })
    }

    async fn deregister(&self, connection: &Connection) -> Result<u32, Error> {
        let mut call = self.deregister.prepare_invoke();
        for key in self.keys(connection) {
            call.key(key);
        }
        call.arg(self.record_prefix()).arg(connection.id.to_string());
        call.invoke_async(&mut self.cache.connection()).await.map_err(away)
    }

    async fn renew(&self, connections: &[Connection], now: Millis, ttl: Duration) -> Result<Vec<ConnectionId>, Error> {
        if connections.is_empty() {
            return Ok(Vec::new());
        }
        let calls: Vec<_> = connections
            .chunks(CHUNK)
            .map(|chunk| {
                let keys = chunk.iter().flat_map(|connection| self.keys(connection)).collect();
                let mut arguments = vec![now.0.to_string(), millis(ttl).to_string()];
                arguments.extend(chunk.iter().map(|connection| connection.id.to_string()));
                (keys, arguments)
            })
            .collect();
        let missing: Vec<Vec<usize>> = self.call_all(&self.renew, &calls).await?;
        let ids = connections.chunks(CHUNK).zip(missing).flat_map(|(chunk, missing)| {
            missing.into_iter().filter_map(|at| chunk.get(at)).map(|connection| connection.id).collect::<Vec<_>>()
        });
        Ok(ids.collect())
    }

    async fn announce(&self, gateway: &GatewayId, ttl: Duration) -> Result<bool, Error> {
        let key = self.cache.key(format_args!("gateway:{gateway}"));
        let before: Option<String> = redis::cmd("SET")
            .arg(key)
            .arg(&*gateway.address)
            .arg("PX")
            .arg(millis(ttl))
            .arg("GET")
            .query_async(&mut self.cache.connection())
            .await
            .map_err(away)?;
        Ok(before.is_some())
    }

    async fn forget(&self, gateway: &GatewayId) -> Result<(), Error> {
        let key = self.cache.key(format_args!("gateway:{gateway}"));
        redis::cmd("DEL").arg(key).query_async(&mut self.cache.connection()).await.map_err(away)
    }

    async fn gateways(&self, users: &[UserId]) -> Result<Vec<Vec<GatewayId>>, Error> {
        if users.is_empty() {
            return Ok(Vec::new());
        }
        let of_users = ["user_connections:", "user_servers:"].map(|family| self.cache.key(format_args!("{family}")));
        let [connections, gateways] = of_users;
        let prefixes = [self.record_prefix(), connections, gateways];
        let calls: Vec<_> = users
            .chunks(CHUNK)
            .map(|chunk| (Vec::new(), prefixes.iter().cloned().chain(chunk.iter().map(UserId::to_string)).collect()))
            .collect();
        let answers: Vec<(Vec<String>, Vec<usize>)> = self.call_all(&self.gateways, &calls).await?;
        let mut all = Vec::with_capacity(users.len());
        for (names, places) in answers {
            let names: Vec<GatewayId> =
                names.iter().map(|id| id.parse()).collect::<Result<_, Error>>().map_err(Error::internal)?;
            let mut places = places.into_iter();
            while let Some(count) = places.next() {
                // Lua counts from one.
                let found = places.by_ref().take(count).filter_map(|place| names.get(place.wrapping_sub(1)));
                all.push(found.cloned().collect());
            }
        }
        if all.len() == users.len() { Ok(all) } else { Err(Error::internal("the registry left users out")) }
    }
}

fn away(error: RedisError) -> Error {
    Error::unavailable("the connection registry did not answer", error)
}

fn millis(ttl: Duration) -> u64 {
    u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1)
}
