//! A stored message as a record of `messages.persisted`.

use domain::{Ids, Millis, ids::EventId, message, ports::Publication};
use platform::trace::trace_id;
use prost::Message as _;
use proto::{
    events::v1::{Envelope, MessagePersisted, envelope::Event},
    topics::{Topic, header},
};

use super::Outgoing;

const EVENT_TYPE: &str = "MessagePersisted";
const EVENT_VERSION: u32 = 1;

/// Encodes the message as it is stored; `producer` names this process.
pub(super) fn encode(
    outgoing: &Outgoing,
    traceparent: Option<String>,
    producer: &str,
    now: Millis,
    ids: &dyn Ids,
) -> Publication {
    let message = &outgoing.message;
    let chat = message.chat.to_string();
    let envelope = Envelope {
        event_id: EventId::new(ids).to_string(),
        event_type: EVENT_TYPE.to_owned(),
        event_version: EVENT_VERSION,
        event_time: now.0,
        partition_key: chat.clone(),
        producer_id: producer.to_owned(),
        trace_id: traceparent.as_deref().and_then(trace_id).unwrap_or_default(),
        event: Some(Event::MessagePersisted(MessagePersisted {
            message_id: message.id.to_string(),
            chat_id: chat.clone(),
            sequence: message.sequence.0,
            sender_id: message.sender.to_string(),
            content: message.content.as_str().to_owned(),
            content_type: message::TEXT.to_owned(),
            client_message_id: message.client_id.to_string(),
            created_at: message.created_at.0,
        })),
    };
    let mut headers =
        vec![(header::EVENT_TYPE, EVENT_TYPE.to_owned()), (header::EVENT_VERSION, EVENT_VERSION.to_string())];
    headers.extend(traceparent.map(|context| (header::TRACEPARENT, context)));
    headers.extend(outgoing.origin.map(|origin| (header::ORIGIN_CONNECTION, origin.to_string())));
    Publication { topic: Topic::MessagesPersisted.name(), key: chat, value: envelope.encode_to_vec(), headers }
}
