//! Chats and their members: who may make, see and change them (chat-lifecycle).

mod create;
mod list;
mod members;
mod metrics;
mod show;

use std::{collections::HashMap, sync::Arc};

use domain::{
    Clock, Error, ErrorKind, Ids,
    ids::{ChatId, EventId, UserId},
    membership::Membership,
    ports::{ChatList, Chats, MembershipDirectory, MessageHistory, Outbox, Users, chats::Cause},
    user::DisplayName,
};
use http::StatusCode;
use proto::messaging::v1 as wire;
use tonic::{Request, Response, Status, metadata::MetadataMap};

pub(crate) use list::page_limit;
pub use metrics::Metrics;
pub(crate) use show::{name, time};

use crate::{
    caller::{self, Callers, IDEMPOTENT_REPLAY, answer, refuse},
    config::Limits,
    history,
    outbox::Wake,
};

/// People of one batch read.
const USERS_AT_ONCE: usize = 1000;

/// What the service needs from the outside.
#[derive(Clone)]
pub struct Parts {
    /// Tells who calls.
    pub callers: Callers,
    /// Chats and their changes.
    pub chats: Arc<dyn Chats>,
    /// Heads and watermarks.
    pub list: Arc<dyn ChatList>,
    /// Who is in a chat.
    pub directory: Arc<dyn MembershipDirectory>,
    /// Stored messages.
    pub history: Arc<dyn MessageHistory>,
    /// People and their names.
    pub users: Arc<dyn Users>,
    /// Where groups are finished.
    pub outbox: Arc<dyn Outbox>,
    /// Wakes the outbox's publisher.
    pub wake: Wake,
    /// Now.
    pub clock: Arc<dyn Clock>,
    /// New ids.
    pub ids: Arc<dyn Ids>,
    /// Sizes and counts.
    pub limits: Limits,
    /// What is counted.
    pub metrics: Metrics,
}

/// The RPCs of `messaging.v1.Chats`.
pub struct Service(Parts);

impl Service {
    /// The service on these parts.
    pub fn new(parts: Parts) -> Self {
        Self(parts)
    }
}

/// Display names of people who exist; some have none.
pub(crate) type Names = HashMap<UserId, Option<DisplayName>>;

impl Parts {
    async fn caller(&self, metadata: &MetadataMap) -> Result<UserId, Error> {
        Ok(self.callers.authenticate(metadata).await?.user)
    }

    /// By whom and when something changes, with the id of the event that will tell of it.
    fn cause(&self, by: UserId, metadata: &MetadataMap) -> Cause {
        Cause {
            by,
            at: self.clock.now(),
            event: EventId::new(self.ids.as_ref()),
            traceparent: caller::text(metadata, proto::topics::header::TRACEPARENT).map(str::to_owned),
        }
    }

    /// The caller's place in the chat, by a strong read. Unknown chats answer the same (D2.9).
    pub(crate) async fn member(&self, chat: ChatId, user: UserId) -> Result<Membership, Error> {
        let found = self.directory.membership(chat, user).await?;
        found.ok_or_else(|| Error::new(ErrorKind::NotAMember, "not a member of the chat"))
    }

    /// The display names of these people; who is not in the answer does not exist.
    pub(crate) async fn names(&self, users: &[UserId]) -> Result<Names, Error> {
        let mut names = Names::with_capacity(users.len());
        for users in users.chunks(USERS_AT_ONCE) {
            names.extend(self.users.users(users).await?.into_iter().map(|user| (user.id, user.display_name)));
        }
        Ok(names)
    }
}

/// A chat's id of a request. What is no id is no chat one is in.
pub(crate) fn chat_id(text: &str) -> Result<ChatId, Error> {
    text.parse().map_err(|_| Error::new(ErrorKind::NotAMember, "not a member of the chat"))
}

#[tonic::async_trait]
impl wire::chats_server::Chats for Service {
    async fn create_chat(&self, request: Request<wire::CreateChatRequest>) -> Result<Response<wire::Chat>, Status> {
        let (metadata, _, request) = request.into_parts();
        match self.0.create(&metadata, request).await.map_err(|error| refuse("CreateChat", &error))? {
            create::Made::New(chat) => Ok(answer(chat, StatusCode::CREATED)),
            create::Made::Before(chat) => {
                let mut response = Response::new(chat);
                response.metadata_mut().insert(IDEMPOTENT_REPLAY, tonic::metadata::MetadataValue::from_static("true"));
                Ok(response)
            }
        }
    }

    async fn list_chats(
        &self,
        request: Request<wire::ListChatsRequest>,
    ) -> Result<Response<wire::ListChatsResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let page = self.0.list_chats(&metadata, &request).await;
        page.map(Response::new).map_err(|error| refuse("ListChats", &error))
    }

    async fn get_chat(&self, request: Request<wire::GetChatRequest>) -> Result<Response<wire::Chat>, Status> {
        let (metadata, _, request) = request.into_parts();
        let chat = self.0.get_chat(&metadata, &request).await;
        chat.map(Response::new).map_err(|error| refuse("GetChat", &error))
    }

    async fn add_member(
        &self,
        request: Request<wire::AddMemberRequest>,
    ) -> Result<Response<wire::AddedMember>, Status> {
        let (metadata, _, request) = request.into_parts();
        let added = self.0.add_member(&metadata, &request).await.map_err(|error| refuse("AddMember", &error))?;
        Ok(answer(added, StatusCode::CREATED))
    }

    async fn remove_member(
        &self,
        request: Request<wire::RemoveMemberRequest>,
    ) -> Result<Response<wire::RemoveMemberResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        self.0.remove_member(&metadata, &request).await.map_err(|error| refuse("RemoveMember", &error))?;
        Ok(answer(wire::RemoveMemberResponse {}, StatusCode::NO_CONTENT))
    }

    async fn leave_chat(
        &self,
        request: Request<wire::LeaveChatRequest>,
    ) -> Result<Response<wire::LeaveChatResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        self.0.leave(&metadata, &request).await.map_err(|error| refuse("LeaveChat", &error))?;
        Ok(answer(wire::LeaveChatResponse {}, StatusCode::NO_CONTENT))
    }

    async fn list_messages(
        &self,
        request: Request<wire::ListMessagesRequest>,
    ) -> Result<Response<wire::ListMessagesResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let page = match self.0.caller(&metadata).await {
            Ok(caller) => history::list(&self.0, caller, &request).await,
            Err(error) => Err(error),
        };
        page.map(Response::new).map_err(|error| refuse("ListMessages", &error))
    }
}
