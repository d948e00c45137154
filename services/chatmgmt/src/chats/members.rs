//! Who joins and leaves a group (chat-lifecycle §4).

use domain::{
    Error, ErrorKind,
    chat::ChatType,
    event::ChangeKind,
    ids::{ChatId, UserId},
    membership::{Membership, Role},
};
use platform::failpoint;
use proto::messaging::v1 as wire;
use tonic::metadata::MetadataMap;

use super::{Parts, chat_id, show};

impl Parts {
    pub(super) async fn add_member(
        &self,
        metadata: &MetadataMap,
        request: &wire::AddMemberRequest,
    ) -> Result<wire::AddedMember, Error> {
        let caller = self.caller(metadata).await?;
        let chat = chat_id(&request.chat_id)?;
        let mine = self.member_of_group(chat, caller).await?;
        let role = match wire::MemberRole::try_from(request.role) {
            Ok(wire::MemberRole::Unspecified | wire::MemberRole::Member) => Role::Member,
            Ok(wire::MemberRole::Admin) => Role::Admin,
            Ok(wire::MemberRole::Owner) | Err(_) => {
                return Err(Error::field("role", "INVALID", "somebody is added as `member` or `admin`"));
            }
        };
        if !mine.role.may_add(role) {
            return Err(forbidden());
        }
        let user: UserId =
            request.user_id.parse().map_err(|_| Error::field("user_id", "INVALID", "not the id of a user"))?;
        let names = self.names(&[user]).await?;
        if !names.contains_key(&user) {
            return Err(Error::new(ErrorKind::UserNotFound, "no such user"));
        }
        let cause = self.cause(caller, metadata);
        if self.directory.membership(chat, user).await?.is_none() {
            self.may_have_more(user, ChatType::Direct, cause.at).await?;
        }
        failpoint::reached("membership.before");
        let joined = self.chats.add_member(chat, user, role, self.limits.group_members, &cause).await?;
        failpoint::reached("membership.after");
        self.wake.chat(chat);
        self.metrics.changed(ChangeKind::Added);
        Ok(wire::AddedMember {
            chat_id: chat.to_string(),
            user_id: user.to_string(),
            role: show::role(joined.role),
            display_name: show::name(&names, user),
            joined_at: Some(show::time(joined.joined_at)),
            added_by: caller.to_string(),
        })
    }

    pub(super) async fn remove_member(
        &self,
        metadata: &MetadataMap,
        request: &wire::RemoveMemberRequest,
    ) -> Result<(), Error> {
        let caller = self.caller(metadata).await?;
        let chat = chat_id(&request.chat_id)?;
        let mine = self.member_of_group(chat, caller).await?;
        let absent = || Error::new(ErrorKind::NotFound, "not a member of the chat");
        if request.user_id == caller.to_string() {
            return Err(Error::new(ErrorKind::InvalidOperation, "one leaves a group, and does not remove oneself"));
        }
        if !mine.role.may_remove(Role::Member) {
            return Err(forbidden());
        }
        let user: UserId = request.user_id.parse().map_err(|_| absent())?;
        let theirs = self.directory.membership(chat, user).await?.ok_or_else(absent)?;
        if theirs.role == Role::Owner {
            return Err(Error::new(ErrorKind::InvalidOperation, "the owner can't be removed"));
        }
        if !mine.role.may_remove(theirs.role) {
            return Err(forbidden());
        }
        self.take_out(&theirs, caller, metadata).await
    }

    pub(super) async fn leave(&self, metadata: &MetadataMap, request: &wire::LeaveChatRequest) -> Result<(), Error> {
        let caller = self.caller(metadata).await?;
        let mine = self.member_of_group(chat_id(&request.chat_id)?, caller).await?;
        if mine.role == Role::Owner {
            return Err(Error::new(ErrorKind::InvalidOperation, "the owner can't leave the group"));
        }
        match self.take_out(&mine, caller, metadata).await {
            // Somebody removed them in the meantime.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Err(Error::new(ErrorKind::NotAMember, "not a member of the chat"))
            }
            other => other,
        }
    }

    async fn take_out(&self, member: &Membership, by: UserId, metadata: &MetadataMap) -> Result<(), Error> {
        failpoint::reached("membership.before");
        self.chats.remove_member(member, &self.cause(by, metadata)).await?;
        failpoint::reached("membership.after");
        self.wake.chat(member.chat);
        self.metrics.changed(ChangeKind::Removed);
        Ok(())
    }

    /// The caller's place in a group; a direct chat's members are fixed, whoever asks.
    async fn member_of_group(&self, chat: ChatId, caller: UserId) -> Result<Membership, Error> {
        let mine = self.member(chat, caller).await?;
        match self.chats.chat(chat).await?.map(|chat| chat.kind) {
            Some(ChatType::Group) => Ok(mine),
            Some(ChatType::Direct) | None => {
                Err(Error::new(ErrorKind::InvalidOperation, "the members of a direct chat are fixed"))
            }
        }
    }
}

fn forbidden() -> Error {
    Error::new(ErrorKind::Forbidden, "this takes another role in the chat")
}
