//! `MembershipCache` on Redis: a set of members and a generation for each chat.

use std::time::Duration;

use async_trait::async_trait;
use domain::{
    Error,
    ids::{ChatId, UserId},
    ports::membership_cache::{Cached, Fill, Generation, MembershipCache},
};
use redis::{RedisError, Script};

use super::Cache;

const AWAY: &str = "the membership cache is away";

/// Replaces the set, in one step, if the generation is still the one that was read.
const FILL: &str = r"
if (redis.call('GET', KEYS[2]) or '0') ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
for first = 3, #ARGV, 1000 do
  redis.call('SADD', KEYS[1], unpack(ARGV, first, math.min(first + 999, #ARGV)))
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1";

/// Members of chats in Redis.
pub struct RedisMembershipCache {
    cache: Cache,
    fill: Script,
}

impl RedisMembershipCache {
    /// On that cache.
    pub fn new(cache: Cache) -> Self {
        Self { cache, fill: Script::new(FILL) }
    }

    fn members_key(&self, chat: ChatId) -> String {
        self.cache.key(format_args!("chat_members:{chat}"))
    }

    fn generation_key(&self, chat: ChatId) -> String {
        self.cache.key(format_args!("chat_generation:{chat}"))
    }
}

fn away(error: RedisError) -> Error {
    Error::unavailable(AWAY, error)
}

fn whole_millis(ttl: Duration) -> u64 {
    u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1)
}

#[async_trait]
impl MembershipCache for RedisMembershipCache {
    async fn members(&self, chats: &[ChatId]) -> Result<Vec<Cached>, Error> {
        if chats.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipeline = redis::pipe();
        for chat in chats {
            // The generation first: an invalidation between the two makes a fill stale, never the other way round.
            pipeline.get(self.generation_key(*chat)).smembers(self.members_key(*chat));
        }
        let found: Vec<redis::Value> = pipeline.query_async(&mut self.cache.connection()).await.map_err(away)?;
        let (pairs, _) = found.as_chunks::<2>();
        pairs.iter().map(cached).collect()
    }

    async fn fill(
        &self,
        chat: ChatId,
        generation: Generation,
        members: &[UserId],
        ttl: Duration,
    ) -> Result<Fill, Error> {
        if members.is_empty() {
            return Ok(Fill::Taken);
        }
        let mut call = self.fill.prepare_invoke();
        call.key(self.members_key(chat)).key(self.generation_key(chat)).arg(generation.0).arg(whole_millis(ttl));
        for member in members {
            call.arg(member.to_string());
        }
        let taken: bool = call.invoke_async(&mut self.cache.connection()).await.map_err(away)?;
        Ok(if taken { Fill::Taken } else { Fill::Stale })
    }

    async fn invalidate(&self, chats: &[ChatId], ttl: Duration) -> Result<(), Error> {
        if chats.is_empty() {
            return Ok(());
        }
        let mut pipeline = redis::pipe();
        pipeline.atomic();
        for chat in chats {
            let generation = self.generation_key(*chat);
            pipeline.incr(&generation, 1).ignore();
            // As long as a set or a fill can be around that knows an older one.
            pipeline.cmd("PEXPIRE").arg(&generation).arg(whole_millis(ttl.saturating_mul(2))).ignore();
            pipeline.del(self.members_key(*chat)).ignore();
        }
        pipeline.exec_async(&mut self.cache.connection()).await.map_err(away)
    }
}

fn cached([generation, members]: &[redis::Value; 2]) -> Result<Cached, Error> {
    let members: Vec<String> = redis::from_redis_value_ref(members).map_err(Error::internal)?;
    if members.is_empty() {
        let generation: Option<u64> = redis::from_redis_value_ref(generation).map_err(Error::internal)?;
        return Ok(Cached::Nothing(Generation(generation.unwrap_or(0))));
    }
    Ok(Cached::Members(members.iter().map(|member| member.parse()).collect::<Result<_, Error>>()?))
}
