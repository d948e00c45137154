//! A store with tables, and chats in it.

use domain::{
    Clock as _, Millis,
    ids::{ChatId, ClientMessageId, MessageId, UserId},
    membership::Role,
    message::{Content, Sequence, StoredMessage},
    ports::message_log::Batch,
    publisher::{Incarnation, PublisherMark, Slot},
};
use platform::{Process, clock::SystemClock};

use super::{On, store};
use crate::dynamodb::{
    Store,
    attributes::{number, text},
    layout::Table,
    message_log::write_message,
};

/// A store with tables, which ends with the value.
pub(crate) struct World {
    pub(crate) store: Store,
    process: Process,
}

impl Drop for World {
    fn drop(&mut self) {
        self.process.stop_token().cancel();
    }
}

impl World {
    pub(crate) async fn start(on: On) -> Self {
        let (process, store) = store::start(on).await;
        Self { store, process }
    }

    /// A chat of these members, as chatmgmt makes it.
    pub(crate) async fn chat(&self, members: &[UserId]) -> ChatId {
        let chat = ChatId::new(self.process.ids().as_ref());
        let put = self.store.client.put_item().table_name(self.store.table(Table::ChatCounters));
        put.item("chat_id", text(chat))
            .item("sequence_counter", number(0))
            .item("created_at", number(1))
            .item("updated_at", number(1))
            .send()
            .await
            .expect("a counter");
        for (place, member) in members.iter().enumerate() {
            let role = if place == 0 { Role::Owner } else { Role::Member };
            self.member(chat, *member, role).await;
        }
        chat
    }

    pub(crate) async fn member(&self, chat: ChatId, user: UserId, role: Role) {
        let put = self.store.client.put_item().table_name(self.store.table(Table::ChatMemberships));
        put.item("chat_id", text(chat))
            .item("user_id", text(user))
            .item("role", text(role.as_str()))
            .item("joined_at", number(1_700_000_000_123_i64))
            .send()
            .await
            .expect("a membership");
    }

    /// Stores a message past the counter.
    pub(crate) async fn put(&self, message: &StoredMessage) {
        let put = self.store.client.put_item().table_name(self.store.table(Table::Messages));
        put.set_item(Some(write_message(message))).send().await.expect("a message");
    }

    pub(crate) fn user(&self) -> UserId {
        UserId::new(self.process.ids().as_ref())
    }

    pub(crate) fn message(&self, chat: ChatId, sender: UserId, sequence: u64) -> StoredMessage {
        let ids = self.process.ids();
        let client_id = uuid_of(ids.ulid().0);
        StoredMessage {
            id: MessageId::new(ids.as_ref()),
            chat,
            sequence: Sequence(sequence),
            sender,
            client_id,
            content: Content::new("", &format!("message {sequence} ☕")).expect("valid"),
            created_at: SystemClock.now(),
        }
    }

    pub(crate) fn batch(&self, messages: Vec<StoredMessage>) -> Batch {
        let ids = self.process.ids();
        let first = messages.first().expect("a message");
        let (chat, after) = (first.chat, Sequence(first.sequence.0 - 1));
        let publisher = PublisherMark::new(Incarnation::new(ids.as_ref()), Slot(7), chat);
        let token = ids.ulid().to_string();
        Batch { chat, token, after, messages, published_through: Sequence(0), publisher, at: Millis(2) }
    }
}

fn uuid_of(random: u128) -> ClientMessageId {
    let digits = format!("{random:032x}");
    let parts = [&digits[0..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..32]];
    parts.join("-").parse().expect("a UUID")
}
