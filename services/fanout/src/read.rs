//! Reads a record of the log: an event to pass on, or the reason why nobody can.

use domain::{
    ids::{ChatId, UserId},
    message::Sequence,
    ports::event_source::Record,
};
use platform::trace;
use prost::Message as _;
use proto::{
    events::v1::{Envelope, MembershipChanged, MessagePersisted, envelope},
    messaging::v1::{ChatEvent, Message, delivery_frame::Push},
    topics::header,
};
use tracing::{Span, field};

/// An event to pass on.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) id: String,
    pub(crate) chat: ChatId,
    pub(crate) origin: String,
    /// The hop; it ends when nothing is left to do for the event.
    pub(crate) span: Span,
    /// What the record said, for the next hop where this process makes no traces.
    pub(crate) traceparent: Option<String>,
    pub(crate) kind: Kind,
}

impl Event {
    /// What the next hop is told, of which this span is the parent.
    pub(crate) fn told(&self, span: &Span) -> Option<String> {
        trace::carry(span).or_else(|| self.traceparent.clone())
    }
}

/// What an event asks for.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    /// A message, at its place in the chat.
    Message(Sequence, Message),
    /// The members changed: whoever was removed still gets the push, if there is one.
    Members { removed: Option<UserId>, push: Option<Push> },
    /// The chat's description changed.
    Description(Push),
}

/// Reads a record.
///
/// # Errors
/// Why nobody can read it, without content.
pub(crate) fn read(record: &Record) -> Result<Event, String> {
    let envelope = Envelope::decode(record.value.as_slice()).map_err(|error| format!("not an envelope: {error}"))?;
    let event = envelope.event.ok_or("an unknown event type")?;
    if envelope.event_version != 1 {
        let (topic, version) = (record.partition.topic, envelope.event_version);
        tracing::warn!(
            event = "record.version_unknown",
            topic,
            version,
            "an event of version {version} on {topic} is read as version 1"
        );
    }
    let (chat_id, kind) = match event {
        envelope::Event::MessagePersisted(message) => (message.chat_id.clone(), message_kind(message)?),
        envelope::Event::MembershipChanged(change) => (change.chat_id.clone(), members_kind(change)?),
        envelope::Event::ChatCreated(created) => {
            let push = Push::ChatCreated(ChatEvent {
                chat_id: created.chat_id.clone(),
                user_ids: created.initial_members,
                by: created.created_by,
                at: created.created_at,
            });
            (created.chat_id, Kind::Members { removed: None, push: Some(push) })
        }
        envelope::Event::ChatUpdated(updated) => {
            let push = Push::ChatUpdated(ChatEvent {
                chat_id: updated.chat_id.clone(),
                user_ids: Vec::new(),
                by: updated.updated_by,
                at: updated.updated_at,
            });
            (updated.chat_id, Kind::Description(push))
        }
    };
    let chat = chat_id.parse().map_err(|_| "chat_id is not a chat id")?;
    if record.key != chat_id.as_bytes() {
        return Err("the key is not the chat id".to_owned());
    }
    let span = tracing::info_span!(
        parent: None,
        "fanout.consume",
        trace_id = field::Empty,
        messaging.destination.name = record.partition.topic,
        messaging.destination.partition.id = %record.partition.number,
        messaging.kafka.offset = record.offset,
        chat.id = %chat,
    );
    let traceparent = record.header(header::TRACEPARENT).map(str::to_owned);
    let span = trace::follow(span, traceparent.as_deref());
    let origin = record.header(header::ORIGIN_CONNECTION).unwrap_or_default().to_owned();
    Ok(Event { id: envelope.event_id, chat, origin, span, traceparent, kind })
}

fn message_kind(message: MessagePersisted) -> Result<Kind, String> {
    if message.sequence == 0 || message.sequence > domain::limits::MAX_SEQUENCE {
        return Err("sequence is out of range".to_owned());
    }
    message.sender_id.parse::<UserId>().map_err(|_| "sender_id is not a user id")?;
    let push = Message {
        message_id: message.message_id,
        chat_id: message.chat_id,
        sequence: message.sequence,
        sender_id: message.sender_id,
        content: message.content,
        content_type: message.content_type,
        created_at: message.created_at,
        client_message_id: Some(message.client_message_id),
    };
    Ok(Kind::Message(Sequence(push.sequence), push))
}

fn members_kind(change: MembershipChanged) -> Result<Kind, String> {
    let user: UserId = change.user_id.parse().map_err(|_| "user_id is not a user id")?;
    let event = ChatEvent {
        chat_id: change.chat_id,
        user_ids: vec![change.user_id],
        by: change.changed_by,
        at: change.changed_at,
    };
    let (removed, push) = match change.change_type.as_str() {
        "added" => (None, Some(Push::MemberAdded(event))),
        "removed" => (Some(user), Some(Push::MemberRemoved(event))),
        "role_changed" => (None, None),
        _ => return Err("an unknown change_type".to_owned()),
    };
    Ok(Kind::Members { removed, push: push.filter(|_| !change.at_creation) })
}
