//! Makes direct chats, one a pair, and groups (chat-lifecycle §2-3, D4.6).

use std::{collections::HashSet, time::Duration};

use domain::{
    Error, ErrorKind, Millis,
    chat::{Chat, ChatName, ChatType},
    ids::{ChatId, UserId},
    membership::Role,
    ports::chats::{Cause, DirectChat},
};
use proto::messaging::v1 as wire;
use tonic::metadata::MetadataMap;

use super::{Parts, show};

const DAY: Duration = Duration::from_hours(24);

/// What a request to make a chat ends with.
pub(super) enum Made {
    /// A new chat.
    New(wire::Chat),
    /// The direct chat that the two had already.
    Before(wire::Chat),
}

impl Parts {
    pub(super) async fn create(&self, metadata: &MetadataMap, request: wire::CreateChatRequest) -> Result<Made, Error> {
        let caller = self.caller(metadata).await?;
        let others = others(&request.member_ids, caller)?;
        match wire::ChatType::try_from(request.r#type) {
            Ok(wire::ChatType::Direct) => {
                let [other] = others[..] else {
                    return Err(Error::field("member_ids", "INVALID", "a direct chat is with exactly one other"));
                };
                self.create_direct(caller, other, metadata).await
            }
            Ok(wire::ChatType::Group) => {
                let name = ChatName::new(request.name.as_deref().unwrap_or_default())?;
                let most = self.limits.group_members as usize - 1;
                if others.is_empty() || others.len() > most {
                    let text = format!("a group is made with 1 to {most} others");
                    return Err(Error::field("member_ids", "INVALID", text));
                }
                self.create_group(caller, &name, &others, metadata).await
            }
            Ok(wire::ChatType::Unspecified) | Err(_) => {
                Err(Error::field("type", "INVALID", "a chat is `direct` or `group`"))
            }
        }
    }

    async fn create_direct(&self, caller: UserId, other: UserId, metadata: &MetadataMap) -> Result<Made, Error> {
        self.all_exist(&[other]).await?;
        let cause = self.cause(caller, metadata);
        let answer = if let Some(chat) = self.list.direct(caller, other).await? {
            DirectChat::Existing(chat)
        } else {
            self.may_have_more(caller, ChatType::Direct, cause.at).await?;
            self.chats.create_direct(ChatId::new(self.ids.as_ref()), other, &cause).await?
        };
        match answer {
            DirectChat::Created(chat) => {
                self.wake.chat(chat.id);
                self.metrics.created(ChatType::Direct);
                Ok(Made::New(self.shown(&chat).await?))
            }
            DirectChat::Existing(chat) => {
                self.metrics.found();
                Ok(Made::Before(self.shown(&chat).await?))
            }
        }
    }

    async fn create_group(
        &self,
        caller: UserId,
        name: &ChatName,
        others: &[UserId],
        metadata: &MetadataMap,
    ) -> Result<Made, Error> {
        self.all_exist(others).await?;
        let cause: Cause = self.cause(caller, metadata);
        self.may_have_more(caller, ChatType::Group, cause.at).await?;
        let chat = self.chats.create_group(ChatId::new(self.ids.as_ref()), name, others, &cause).await?;
        // Should this process end here, the outbox's publisher of any process goes on.
        while !self.outbox.complete(chat.id).await? {}
        self.wake.chat(chat.id);
        self.metrics.created(ChatType::Group);
        Ok(Made::New(self.shown(&chat).await?))
    }

    async fn shown(&self, chat: &Chat) -> Result<wire::Chat, Error> {
        let members = self.directory.members(chat.id).await?;
        let users: Vec<UserId> = members.iter().map(|member| member.user).collect();
        Ok(show::chat(chat, members, &self.names(&users).await?))
    }

    async fn all_exist(&self, users: &[UserId]) -> Result<(), Error> {
        let names = self.names(users).await?;
        match users.iter().find(|user| !names.contains_key(user)) {
            None => Ok(()),
            Some(user) => Err(Error::new(ErrorKind::UserNotFound, "no such user").with_text("user_id", user)),
        }
    }

    /// Whether the user may have one chat more (D6.8).
    pub(super) async fn may_have_more(&self, user: UserId, kind: ChatType, now: Millis) -> Result<(), Error> {
        let refuse = |limit: u32, text| Err(Error::new(ErrorKind::Conflict, text).with_number("limit", limit.into()));
        let memberships = self.directory.chats_of(user).await?;
        if memberships.len() >= self.limits.chats_per_user as usize {
            return refuse(self.limits.chats_per_user, "the user has all the chats they may have");
        }
        // Only groups have an owner, and who made them joined when they were made.
        let is_recent = |joined: Millis| now.since(joined) < DAY;
        let made = memberships.iter().filter(|mine| mine.role == Role::Owner && is_recent(mine.joined_at)).count();
        if kind == ChatType::Group && made >= self.limits.groups_per_day as usize {
            return refuse(self.limits.groups_per_day, "the user has made all the groups they may make in a day");
        }
        Ok(())
    }
}

/// The ids of the others: valid, each once, without the caller.
fn others(ids: &[String], caller: UserId) -> Result<Vec<UserId>, Error> {
    let mut seen = HashSet::new();
    let mut others = Vec::with_capacity(ids.len());
    for id in ids {
        let user: UserId =
            id.parse().map_err(|_| Error::field("member_ids", "INVALID", "the members are given by user ids"))?;
        if user == caller {
            return Err(Error::field("member_ids", "INVALID", "the caller is a member anyway"));
        }
        if !seen.insert(user) {
            return Err(Error::field("member_ids", "INVALID", "a member is named once"));
        }
        others.push(user);
    }
    Ok(others)
}
