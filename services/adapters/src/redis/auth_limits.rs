//! Counters in fixed windows, each changed by one script, and bars that lapse (auth-security §8).

use std::{sync::LazyLock, time::Duration};

use async_trait::async_trait;
use domain::{
    Error,
    ports::{
        self,
        auth_limits::{Count, Counter},
    },
    user::PhoneHash,
};
use redis::{AsyncCommands as _, Script};

use super::Cache;

/// One more, and the window begins with the first.
static COUNT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local used = redis.call('INCR', KEYS[1])
         if used == 1 then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
         return {used, redis.call('PTTL', KEYS[1])}",
    )
});

/// Limits in Redis.
#[derive(Clone)]
pub struct AuthLimits {
    cache: Cache,
}

impl AuthLimits {
    /// On that cache.
    pub fn new(cache: Cache) -> Self {
        Self { cache }
    }

    fn key(&self, counter: Counter) -> String {
        match counter {
            Counter::OtpOfPhone(phone) => self.cache.key(format_args!("otp_req:phone:{phone}")),
            Counter::OtpOfAddress(hash) => {
                self.cache.key(format_args!("otp_req:ip:{:032x}", u128::from_be_bytes(hash)))
            }
            Counter::VerifyOfPhone(phone) => self.cache.key(format_args!("otp_verify:phone:{phone}")),
            Counter::RefreshOfUser(user) => self.cache.key(format_args!("auth_refresh:user:{user}")),
            Counter::LookupOfUserMinute(user) => self.cache.key(format_args!("lookup:minute:user:{user}")),
            Counter::LookupOfUserHour(user) => self.cache.key(format_args!("lookup:hour:user:{user}")),
        }
    }

    fn bar(&self, phone: PhoneHash) -> String {
        self.cache.key(format_args!("otp_lockout:phone:{phone}"))
    }
}

fn away(cause: redis::RedisError) -> Error {
    Error::unavailable("limits can't be checked now", cause)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)
}

fn left(pttl: i64) -> Duration {
    Duration::from_millis(u64::try_from(pttl).unwrap_or(0))
}

#[async_trait]
impl ports::AuthLimits for AuthLimits {
    async fn count(&self, counter: Counter, window: Duration) -> Result<Count, Error> {
        let mut connection = self.cache.connection();
        let mut call = COUNT.prepare_invoke();
        call.key(self.key(counter)).arg(millis(window));
        let (used, pttl): (u32, i64) = call.invoke_async(&mut connection).await.map_err(away)?;
        Ok(Count { used, resets_in: left(pttl) })
    }

    async fn forget(&self, counter: Counter) -> Result<(), Error> {
        self.cache.connection().del(self.key(counter)).await.map_err(away)
    }

    async fn lock_out(&self, phone: PhoneHash, time: Duration) -> Result<(), Error> {
        self.cache.connection().pset_ex(self.bar(phone), "1", millis(time)).await.map_err(away)
    }

    async fn locked_out(&self, phone: PhoneHash) -> Result<Option<Duration>, Error> {
        let pttl: i64 = self.cache.connection().pttl(self.bar(phone)).await.map_err(away)?;
        // Negative: there is no such key.
        Ok((pttl > 0).then(|| left(pttl)))
    }
}
