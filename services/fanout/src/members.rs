//! The members of chats: from the shared cache, else from the store (D5.7).

use std::{collections::HashMap, sync::Arc, time::Duration};

use domain::{
    Error, ErrorKind,
    ids::{ChatId, UserId},
    ports::{
        MembershipCache, MembershipDirectory,
        membership_cache::{Cached, Fill, Generation},
    },
};
use futures_util::{StreamExt as _, stream};
use platform::wire;

use crate::{config::Limits, metrics::Metrics};

/// Looks up the members of chats.
pub struct Members {
    cache: Arc<dyn MembershipCache>,
    directory: Arc<dyn MembershipDirectory>,
    ttl: Duration,
    timeout: Duration,
    look_ups: usize,
    metrics: Metrics,
}

/// The members of each chat, or why they are not known.
pub type ByChat = HashMap<ChatId, Result<Vec<UserId>, ErrorKind>>;

impl Members {
    /// Over that cache and that directory.
    pub fn new(
        cache: Arc<dyn MembershipCache>,
        directory: Arc<dyn MembershipDirectory>,
        limits: &Limits,
        metrics: Metrics,
    ) -> Self {
        let (ttl, timeout, look_ups) = (limits.membership_ttl, limits.look_up_timeout, limits.look_ups as usize);
        Self { cache, directory, ttl, timeout, look_ups, metrics }
    }

    /// Forgets the members of these chats, everywhere.
    ///
    /// # Errors
    /// When the cache is away.
    pub async fn forget(&self, chats: &[ChatId]) -> Result<(), Error> {
        if chats.is_empty() {
            return Ok(());
        }
        self.in_time(self.cache.invalidate(chats, self.ttl)).await
    }

    /// The members of these chats. One round trip to the cache, then one to the store a chat that it does not know.
    ///
    /// # Errors
    /// When the cache is away; a chat that the store does not tell has its own error.
    pub async fn of(&self, chats: &[ChatId]) -> Result<ByChat, Error> {
        let cached = self.in_time(self.cache.members(chats)).await?;
        let mut all = ByChat::with_capacity(chats.len());
        let mut missing = Vec::new();
        for (chat, cached) in chats.iter().zip(cached) {
            match cached {
                Cached::Members(members) => {
                    self.metrics.member_hits.inc();
                    all.insert(*chat, Ok(members));
                }
                Cached::Nothing(generation) => missing.push((*chat, generation)),
            }
        }
        let mut asked = stream::iter(missing)
            .map(|(chat, generation)| async move { (chat, self.ask(chat, generation).await) })
            .buffer_unordered(self.look_ups);
        while let Some((chat, members)) = asked.next().await {
            let members = members.map_err(|error| {
                tracing::warn!(
                    event = "members.unknown",
                    chat.id = %chat,
                    error.code = wire::code(&error),
                    error.message = %error,
                    "the members of {chat} are not known"
                );
                error.kind()
            });
            all.insert(chat, members);
        }
        Ok(all)
    }

    async fn ask(&self, chat: ChatId, generation: Generation) -> Result<Vec<UserId>, Error> {
        self.metrics.member_misses.inc();
        let members = self.in_time(self.directory.members(chat)).await?;
        let members: Vec<UserId> = members.into_iter().map(|membership| membership.user).collect();
        match self.in_time(self.cache.fill(chat, generation, &members, self.ttl)).await {
            Ok(Fill::Taken) => {}
            Ok(Fill::Stale) => tracing::debug!(chat.id = %chat, "the members of {chat} changed while they were read"),
            Err(error) => tracing::debug!(chat.id = %chat, "the members of {chat} were not remembered: {error}"),
        }
        Ok(members)
    }

    async fn in_time<T>(&self, call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        match tokio::time::timeout(self.timeout, call).await {
            Ok(answer) => answer,
            Err(late) => Err(Error::unavailable("the members of a chat are not known in time", late)),
        }
    }
}
