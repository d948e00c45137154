//! Events as records of the log (events-kafka §4-5).

use domain::{
    Millis,
    chat::Chat,
    event::{ChangeKind, Event, Happening, MembershipChange},
    ids::UserId,
    membership::Role,
    ports::Publication,
};
use prost::Message as _;
use proto::{
    events::v1::{self as wire, envelope},
    topics::{Topic, header},
};

/// Version of every event type so far.
const VERSION: u32 = 1;

/// Whether a membership came with its chat.
#[derive(Clone, Copy)]
enum Moment {
    Creation,
    Later,
}

/// The records that tell of an event: the first, and those that may follow when it is confirmed.
/// Repeating them gives the same ids.
pub(super) fn records(event: &Event, producer: &str) -> (Publication, Vec<Publication>) {
    match &event.what {
        Happening::ChatCreated { chat, members } => {
            let created = wire::ChatCreated {
                chat_id: chat.id.to_string(),
                chat_type: chat.kind.as_str().to_owned(),
                name: chat.name.as_ref().map(|name| name.as_str().to_owned()),
                status: "active".to_owned(),
                created_by: chat.created_by.to_string(),
                member_count: chat.member_count,
                initial_members: members.iter().map(UserId::to_string).collect(),
                created_at: chat.created_at.0,
            };
            let first = record(event, 0, chat.created_at, envelope::Event::ChatCreated(created), producer);
            // The two of a direct chat are all told by its creation.
            let joined = if chat.name.is_some() { members.as_slice() } else { &[] };
            let rest = (1..).zip(joined).map(|(n, &user)| {
                let change = membership_changed(event, &joined_at_creation(chat, user), Moment::Creation);
                record(event, n, chat.created_at, change, producer)
            });
            (first, rest.collect())
        }
        Happening::MembershipChanged(change) => {
            let changed = membership_changed(event, change, Moment::Later);
            (record(event, 0, change.at, changed, producer), Vec::new())
        }
        Happening::ChatUpdated { name, by, at } => {
            let updated = wire::ChatUpdated {
                chat_id: event.chat.to_string(),
                name: name.as_ref().map(|name| name.as_str().to_owned()),
                updated_by: by.to_string(),
                updated_at: at.0,
            };
            (record(event, 0, *at, envelope::Event::ChatUpdated(updated), producer), Vec::new())
        }
    }
}

fn joined_at_creation(chat: &Chat, user: UserId) -> MembershipChange {
    MembershipChange {
        user,
        kind: ChangeKind::Added,
        role: if user == chat.created_by { Role::Owner } else { Role::Member },
        by: chat.created_by,
        at: chat.created_at,
        member_count_after: chat.member_count,
    }
}

fn membership_changed(event: &Event, change: &MembershipChange, moment: Moment) -> envelope::Event {
    envelope::Event::MembershipChanged(wire::MembershipChanged {
        chat_id: event.chat.to_string(),
        user_id: change.user.to_string(),
        change_type: change.kind.as_str().to_owned(),
        role: change.role.as_str().to_owned(),
        changed_by: change.by.to_string(),
        changed_at: change.at.0,
        member_count_after: change.member_count_after,
        at_creation: matches!(moment, Moment::Creation),
    })
}

fn record(event: &Event, n: u32, at: Millis, what: envelope::Event, producer: &str) -> Publication {
    let (topic, kind) = match &what {
        envelope::Event::ChatCreated(_) => (Topic::ChatsCreated, "ChatCreated"),
        envelope::Event::ChatUpdated(_) => (Topic::ChatsCreated, "ChatUpdated"),
        envelope::Event::MembershipChanged(_) => (Topic::MembershipsChanged, "MembershipChanged"),
        envelope::Event::MessagePersisted(_) => (Topic::MessagesPersisted, "MessagePersisted"),
    };
    let traceparent = event.traceparent.as_deref();
    let envelope = wire::Envelope {
        event_id: event.record_id(n).to_string(),
        event_type: kind.to_owned(),
        event_version: VERSION,
        event_time: at.0,
        partition_key: event.chat.to_string(),
        producer_id: producer.to_owned(),
        trace_id: traceparent.and_then(|trace| trace.split('-').nth(1)).unwrap_or_default().to_owned(),
        event: Some(what),
    };
    let mut headers = vec![(header::EVENT_TYPE, kind.to_owned()), (header::EVENT_VERSION, VERSION.to_string())];
    headers.extend(traceparent.map(|trace| (header::TRACEPARENT, trace.to_owned())));
    Publication { topic: topic.name(), key: event.chat.to_string(), value: envelope.encode_to_vec(), headers }
}
