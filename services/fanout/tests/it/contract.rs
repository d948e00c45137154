//! What fanout promises to those who wait for pushes, on embedded and on real systems. Ids of the pyramid's contracts are
//! in the names.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use adapters::dynamodb::{self, message_log::MessageLog};
use domain::{
    Millis,
    ids::{ChatId, UserId},
    message::{Sequence, StoredMessage},
    ports::{
        MessageLog as _,
        message_log::{Batch, Commit},
    },
    publisher::{Incarnation, PublisherMark, Slot},
};
use platform::Process;
use prost::Message as _;
use proto::{
    events::v1::{DeadLetter, Envelope, MessagePersisted, envelope::Event},
    messaging::v1::{DeliveryFrame, delivery_frame::Push},
    topics::{Topic, header},
};

use crate::{
    gateway::Gateway,
    on::On,
    systems::Systems,
    world::{envelope, eventually, sequences, stored},
};

/// A chat of Anna, who is at a gateway, and Ben, who is away.
struct Pair {
    systems: Systems,
    gateway: Gateway,
    ben: UserId,
    chat: ChatId,
}

impl Pair {
    async fn start(on: On) -> Self {
        let systems = Systems::start(on).await;
        let gateway = systems.gateway().await;
        let (anna, ben) = (systems.user(), systems.user());
        let chat = systems.chat(anna, ben).await;
        systems.connect(anna, &gateway).await;
        Self { systems, gateway, ben, chat }
    }
}

fn event(chat: ChatId, sender: UserId, sequence: u64) -> Envelope {
    let message = MessagePersisted {
        message_id: format!("msg_{sequence}"),
        chat_id: chat.to_string(),
        sequence,
        sender_id: sender.to_string(),
        content: format!("text {sequence} ☕"),
        content_type: "text/plain".to_owned(),
        client_message_id: "eaefc4d2-d3bf-4d01-abae-4b5b844a7034".to_owned(),
        created_at: 1_773_480_421_309,
    };
    envelope(Topic::MessagesPersisted, sequence, Event::MessagePersisted(message))
}

fn pushed(frame: &DeliveryFrame) -> &proto::messaging::v1::Message {
    match &frame.push {
        Some(Push::Message(message)) => message,
        other => unreachable!("not a message: {other:?}"),
    }
}

fn users(frame: &DeliveryFrame) -> HashSet<String> {
    frame.user_ids.iter().cloned().collect()
}

fn ids<const N: usize>(users: [UserId; N]) -> HashSet<String> {
    users.iter().map(ToString::to_string).collect()
}

fn count(process: &Process, line: &str) -> u64 {
    let text = process.metrics_text();
    let value = text.lines().find_map(|found| found.strip_prefix(line)?.trim().parse().ok());
    value.unwrap_or(0)
}

/// CT-KF-01, `multi_device_delivery`: one frame to each gateway that holds a device of a member.
async fn ct_kf_01_a_message_goes_to_every_device_of_every_member_with_one_frame_a_gateway(on: On) {
    let systems = Systems::start(on).await;
    let (one, other) = (systems.gateway().await, systems.gateway().await);
    let (anna, ben) = (systems.user(), systems.user());
    let chat = systems.chat(anna, ben).await;
    for gateway in [&one, &one, &other] {
        systems.connect(anna, gateway).await;
    }
    let origin = systems.connect(ben, &other).await;
    let fanout = systems.fanout().await;
    let headers = vec![(header::ORIGIN_CONNECTION, origin.to_string())];
    systems.publish(chat, event(chat, ben, 1).encode_to_vec(), headers).await;
    eventually("both have it", || [&one, &other].iter().all(|gateway| !gateway.frames().is_empty())).await;
    let (at_one, at_other) = (one.frames(), other.frames());
    assert_eq!((at_one.len(), at_other.len()), (1, 1), "however many devices are there");
    assert_eq!((users(&at_one[0]), users(&at_other[0])), (ids([anna]), ids([anna, ben])));
    assert_eq!(at_other[0].origin_connection, origin.to_string(), "which the gateway leaves out");
    systems.stop([fanout]).await;
}

/// CT-KF-02: what is pushed is what the event says.
async fn ct_kf_02_a_push_has_every_field_of_the_event(on: On) {
    let Pair { systems, gateway, ben, chat } = Pair::start(on).await;
    let fanout = systems.fanout().await;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned();
    let envelope = event(chat, ben, 7);
    systems.publish(chat, envelope.encode_to_vec(), vec![(header::TRACEPARENT, trace.clone())]).await;
    eventually("it came", || !gateway.frames().is_empty()).await;
    let frame = gateway.frames().remove(0);
    let Some(Event::MessagePersisted(event)) = envelope.event else { unreachable!("made above") };
    let push = pushed(&frame).clone();
    let found = MessagePersisted {
        message_id: push.message_id,
        chat_id: push.chat_id,
        sequence: push.sequence,
        sender_id: push.sender_id,
        content: push.content,
        content_type: push.content_type,
        client_message_id: push.client_message_id.expect("for the sender's own connections"),
        created_at: push.created_at,
    };
    assert_eq!(found, event);
    assert_eq!((frame.traceparent, frame.gateway_id), (trace, gateway.id.to_string()));
    systems.stop([fanout]).await;
}

/// CT-KF-03, `offset_commit_independent_of_delivery`: nobody is online, and the offset moves.
async fn ct_kf_03_what_nobody_is_online_for_is_attempted_and_committed(on: On) {
    let systems = Systems::start(on).await;
    let chat = systems.chat(systems.user(), systems.user()).await;
    let fanout = systems.fanout().await;
    for sequence in 1..=3 {
        systems.publish(chat, event(chat, systems.user(), sequence).encode_to_vec(), Vec::new()).await;
    }
    eventually("attempted", || count(&fanout, "fanout_events_processed_total{status=\"PassedOn\"}") == 3).await;
    fanout.shut_down().await;
    // The next of the group begins behind them.
    systems.publish(chat, event(chat, systems.user(), 4).encode_to_vec(), Vec::new()).await;
    let next = systems.records(Topic::MessagesPersisted, fanout::wire_up::GROUP, 1).await.remove(0);
    let Some(Event::MessagePersisted(event)) = Envelope::decode(&*next.value).expect("an envelope").event else {
        unreachable!("another event")
    };
    assert_eq!((event.sequence, next.offset), (4, 3));
    systems.stop([]).await;
}

/// CT-KF-DLQ, `poison_pill_isolation`, `poison_pill_bounded`: what nobody can read is kept apart, and the rest goes on.
async fn ct_kf_dlq_what_nobody_can_read_becomes_a_dead_letter_and_the_partition_goes_on(on: On) {
    let Pair { systems, gateway, ben, chat } = Pair::start(on).await;
    let fanout = systems.fanout().await;
    systems.publish(chat, event(chat, ben, 1).encode_to_vec(), Vec::new()).await;
    let poison = b"\xff not an envelope".to_vec();
    systems.publish(chat, poison.clone(), vec![(header::EVENT_TYPE, "MessagePersisted".to_owned())]).await;
    let unknown = Envelope { event: None, ..event(chat, ben, 2) };
    systems.publish(chat, unknown.encode_to_vec(), Vec::new()).await;
    systems.publish(chat, event(chat, ben, 2).encode_to_vec(), Vec::new()).await;
    eventually("both good ones came", || sequences(&gateway) == [1, 2]).await;

    let kept = systems.records(Topic::DeadLetters, "reader", 2).await;
    let letters: Vec<DeadLetter> =
        kept.iter().map(|record| DeadLetter::decode(&*record.value).expect("a dead letter")).collect();
    assert_eq!((letters[0].value.as_ref(), letters[0].key.as_ref()), (&*poison, chat.to_string().as_bytes()));
    assert_eq!(&*letters[0].headers[header::EVENT_TYPE], b"MessagePersisted");
    for (letter, offset) in letters.iter().zip([1, 2]) {
        assert_eq!(letter.original_topic, Topic::MessagesPersisted.name());
        assert_eq!((letter.original_offset, letter.processing_attempts), (offset, 1));
        assert!(!letter.failure_reason.is_empty() && letter.consumer_group.ends_with(fanout::wire_up::GROUP));
    }
    systems.stop([fanout]).await;
}

/// A hole of the log that the store has too: fanout waits for it as long as readers do, and goes on.
async fn a_hole_that_the_store_has_too_is_passed_over(on: On) {
    let Pair { systems, gateway, ben, chat } = Pair::start(on).await;
    let log = MessageLog::new(dynamodb::Store::new(&systems.store).await);
    let message = StoredMessage { chat, sender: ben, sequence: Sequence(5), ..stored(5) };
    let publisher = PublisherMark::new(Incarnation::new(&*systems.process.ids()), Slot(1), chat);
    let batch = Batch {
        chat,
        token: systems.process.ids().ulid().to_string(),
        after: Sequence(0),
        messages: vec![message],
        published_through: Sequence(0),
        publisher,
        at: Millis(1),
    };
    assert!(matches!(log.commit(&batch).await, Commit::Committed));
    let fanout = systems.fanout().await;
    for sequence in [1, 5, 6] {
        systems.publish(chat, event(chat, ben, sequence).encode_to_vec(), Vec::new()).await;
    }
    eventually("what is there came", || sequences(&gateway) == [1, 5, 6]).await;
    assert_eq!(count(&fanout, "fanout_holes_total{status=\"PassedOver\"}"), 1);
    systems.stop([fanout]).await;
}

/// `commit_after_process`, per-chat order: partitions change hands while messages come, and none is lost or turned round.
async fn partitions_change_hands_under_load_without_a_loss_and_in_order(on: On) {
    const CHATS: usize = 8;
    const EACH: u64 = 60;
    let systems = Systems::start(on).await;
    let gateway = systems.gateway().await;
    let (anna, ben) = (systems.user(), systems.user());
    let mut chats = Vec::new();
    for _ in 0..CHATS {
        chats.push(systems.chat(anna, systems.user()).await);
    }
    systems.connect(anna, &gateway).await;
    let first = systems.fanout().await;
    let load = async {
        for sequence in 1..=EACH {
            for chat in &chats {
                systems.publish(*chat, event(*chat, ben, sequence).encode_to_vec(), Vec::new()).await;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let changes = async {
        let second = systems.fanout().await;
        eventually("both have some", || {
            let partitions = |process: &Process| count(process, "fanout_partitions");
            partitions(&first) > 0 && partitions(&second) > 0
        })
        .await;
        first.shut_down().await;
        second
    };
    let ((), second) = tokio::join!(load, changes);
    let came = |gateway: &Gateway| {
        let mut by_chat: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        // A frame without a push only names users to whom one is owed.
        for frame in gateway.frames().into_iter().filter(|frame| frame.push.is_some()) {
            let message = pushed(&frame);
            let of_chat = by_chat.entry(message.chat_id.clone()).or_default();
            // A gateway drops what is not above what it pushed.
            if of_chat.last().is_none_or(|last| *last < message.sequence) {
                of_chat.push(message.sequence);
            }
        }
        by_chat
    };
    let expected: Vec<u64> = (1..=EACH).collect();
    eventually("all of it came in order", || {
        let came = came(&gateway);
        came.len() == CHATS && came.values().all(|sequences| *sequences == expected)
    })
    .await;
    systems.stop([second]).await;
}

on_all_systems! {
    ct_kf_01_a_message_goes_to_every_device_of_every_member_with_one_frame_a_gateway,
    ct_kf_02_a_push_has_every_field_of_the_event,
    ct_kf_03_what_nobody_is_online_for_is_attempted_and_committed,
    ct_kf_dlq_what_nobody_can_read_becomes_a_dead_letter_and_the_partition_goes_on,
    a_hole_that_the_store_has_too_is_passed_over,
    partitions_change_hands_under_load_without_a_loss_and_in_order,
}
