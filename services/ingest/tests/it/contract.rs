//! What ingest promises to those behind the log and before it, on embedded and on real systems. Ids of the pyramid's
//! contracts are in the names.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use adapters::dynamodb::{self, message_history::MessageHistory};
use domain::{
    ErrorKind,
    ids::ChatId,
    message::Sequence,
    ports::{MessageHistory as _, event_source::Record},
};
use futures_util::future::join_all;
use ingest::Limits;
use platform::{Secret, grpc::InternalToken};
use prost::Message as _;
use proto::{
    events::v1::{Envelope, MessagePersisted, envelope::Event},
    messaging::v1::{HeadsRequest, SyncMessagesRequest},
    topics::{header, partition_for},
};

use crate::{
    on::On,
    systems::{PARTITIONS, Systems},
    world::eventually,
};

fn persisted(record: &Record) -> MessagePersisted {
    let envelope = Envelope::decode(record.value.as_slice()).expect("an envelope");
    let Some(Event::MessagePersisted(event)) = envelope.event else { unreachable!("another event") };
    event
}

/// CT-IK-01, `event_follows_commit`: whoever reads an event can read its row.
async fn ct_ik_01_an_event_is_on_the_log_only_when_its_row_can_be_read(on: On) {
    const MESSAGES: usize = 60;
    let systems = Systems::start(on).await;
    let ingest = systems.service(systems.settings()).await;
    let (alice, bob) = (systems.user(), systems.user());
    let chat = systems.chat(alice, bob).await;
    let history = MessageHistory::new(dynamodb::Store::new(&systems.store).await);
    let sending = async {
        let sends = (0..MESSAGES).map(|place| {
            let sender = if place % 2 == 0 { alice } else { bob };
            ingest.persist(systems.send(chat, sender, &format!("message {place}")))
        });
        join_all(sends).await.into_iter().map(|answer| answer.expect("stored")).collect::<Vec<_>>()
    };
    let mut left = MESSAGES;
    let reading = systems.records_until(async |record| {
        let event = persisted(record);
        let row = history.after(chat, Sequence(event.sequence - 1), 1).await.expect("read").messages.remove(0);
        assert_eq!((row.id.to_string(), row.sequence.0), (event.message_id, event.sequence));
        assert_eq!((row.sender.to_string(), row.content.as_str()), (event.sender_id, event.content.as_str()));
        assert_eq!((row.client_id.to_string(), row.created_at.0), (event.client_message_id, event.created_at));
        left -= 1;
        left == 0
    });
    let (acknowledged, events) = tokio::join!(sending, reading);
    let acknowledged: HashMap<_, _> = acknowledged.into_iter().map(|ack| (ack.message_id, ack.sequence)).collect();
    let events: HashMap<_, _> = events.iter().map(persisted).map(|event| (event.message_id, event.sequence)).collect();
    assert_eq!(acknowledged, events);
    systems.stop([ingest]).await;
}

/// CT-IK-02, `first_occurrence_in_order`: a chat's events lie in its partition, in the order of their sequences.
async fn ct_ik_02_events_of_a_chat_lie_in_its_partition_in_the_order_of_sequences(on: On) {
    const CHATS: usize = 12;
    const EACH: usize = 10;
    let systems = Systems::start(on).await;
    let ingest = systems.service(systems.settings()).await;
    let (alice, bob) = (systems.user(), systems.user());
    let mut chats = Vec::new();
    for _ in 0..CHATS {
        chats.push(systems.chat(alice, systems.user()).await);
    }
    let sends = (0..CHATS * EACH).map(|place| ingest.persist(systems.send(chats[place % CHATS], alice, "x")));
    for answer in join_all(sends).await {
        answer.expect("stored");
    }
    let refused = ingest.persist(systems.send(chats[0], bob, "x")).await.expect_err("not a member");
    assert_eq!(platform::wire::from_status(&refused).kind(), ErrorKind::NotAMember);

    let records = systems.records(CHATS * EACH).await;
    let mut by_chat: BTreeMap<String, Vec<(i64, u64)>> = BTreeMap::new();
    for record in &records {
        let event = persisted(record);
        assert_eq!(record.key, event.chat_id.as_bytes());
        let partition = partition_for(&event.chat_id, PARTITIONS);
        assert_eq!(u32::try_from(record.partition.number), Ok(partition), "{}", event.chat_id);
        let names = [header::EVENT_TYPE, header::EVENT_VERSION].map(|name| record.header(name));
        assert_eq!(names, [Some("MessagePersisted"), Some("1")]);
        by_chat.entry(event.chat_id).or_default().push((record.offset, event.sequence));
    }
    assert_eq!(by_chat.len(), CHATS);
    for (chat, mut events) in by_chat {
        events.sort_unstable();
        let sequences: Vec<u64> = events.into_iter().map(|(_, sequence)| sequence).collect();
        assert_eq!(sequences, (1..=EACH as u64).collect::<Vec<_>>(), "{chat}");
    }
    systems.stop([ingest]).await;
}

/// What a reader of version 1 knew of an event, as it was first published.
mod version_1 {
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Envelope {
        #[prost(string, tag = "1")]
        pub(super) event_id: String,
        #[prost(string, tag = "2")]
        pub(super) event_type: String,
        #[prost(uint32, tag = "3")]
        pub(super) event_version: u32,
        #[prost(int64, tag = "4")]
        pub(super) event_time: i64,
        #[prost(string, tag = "5")]
        pub(super) partition_key: String,
        #[prost(message, optional, tag = "10")]
        pub(super) message_persisted: Option<MessagePersisted>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct MessagePersisted {
        #[prost(string, tag = "1")]
        pub(super) message_id: String,
        #[prost(string, tag = "2")]
        pub(super) chat_id: String,
        #[prost(uint64, tag = "3")]
        pub(super) sequence: u64,
        #[prost(string, tag = "4")]
        pub(super) sender_id: String,
        #[prost(string, tag = "5")]
        pub(super) content: String,
        #[prost(string, tag = "6")]
        pub(super) content_type: String,
        #[prost(string, tag = "7")]
        pub(super) client_message_id: String,
        #[prost(int64, tag = "8")]
        pub(super) created_at: i64,
    }
}

/// CT-IK-03, `schema_compatibility`: old readers read new events, and new readers old ones.
async fn ct_ik_03_an_event_is_read_by_the_schema_of_version_1_and_by_todays(on: On) {
    let systems = Systems::start(on).await;
    let ingest = systems.service(systems.settings()).await;
    let alice = systems.user();
    let chat = systems.chat(alice, systems.user()).await;
    let send = systems.send(chat, alice, "hello ☕");
    let stored = ingest.persist(send.clone()).await.expect("stored");
    let record = systems.records(1).await.remove(0);

    let old = version_1::Envelope::decode(record.value.as_slice()).expect("an envelope");
    assert!(old.event_id.starts_with("evt_") && old.event_time > 0, "{old:?}");
    let named = (old.event_type.as_str(), old.event_version, old.partition_key.as_str());
    assert_eq!(named, ("MessagePersisted", 1, send.chat_id.as_str()));
    let message = version_1::MessagePersisted {
        message_id: stored.message_id,
        chat_id: send.chat_id,
        sequence: stored.sequence,
        sender_id: send.sender_id,
        content: send.content,
        content_type: "text/plain".to_owned(),
        client_message_id: send.client_message_id,
        created_at: stored.created_at,
    };
    assert_eq!(old.message_persisted.as_ref(), Some(&message));

    let today = Envelope::decode(old.encode_to_vec().as_slice()).expect("what an old writer wrote");
    let Some(Event::MessagePersisted(event)) = today.event else { unreachable!("another event") };
    assert_eq!((event.sequence, event.content), (message.sequence, message.content));
    systems.stop([ingest]).await;
}

/// `sequence_gapless`, `commit_order_is_sequence_order`: two writers on one chat, and every fifth send goes to both.
async fn sequence_gapless_and_commit_order_is_sequence_order_with_two_writers_on_a_chat(on: On) {
    const MESSAGES: usize = 100;
    let systems = Systems::start(on).await;
    let services = [systems.service(systems.settings()).await, systems.service(systems.settings()).await];
    let (alice, bob) = (systems.user(), systems.user());
    let chat = systems.chat(alice, bob).await;
    let both = (0..MESSAGES).map(|place| {
        let send = systems.send(chat, if place % 3 == 0 { bob } else { alice }, &place.to_string());
        let (one, other) = (&services[place % 2], &services[(place + 1) % 2]);
        async move {
            let again =
                async { if place % 5 == 0 { Some(other.persist(send.clone()).await.expect("stored")) } else { None } };
            let (first, again) = tokio::join!(one.persist(send.clone()), again);
            let first = first.expect("stored");
            if let Some(again) = again {
                assert_eq!((&again.message_id, again.sequence), (&first.message_id, first.sequence));
                assert_ne!(again.is_duplicate, first.is_duplicate, "one of them stored it");
            }
            first
        }
    });
    let acknowledged = join_all(both).await;
    let last = acknowledged.iter().map(|answer| answer.sequence).max();
    // What is acknowledged is below what comes after it.
    let after = services[0].persist(systems.send(chat, alice, "after")).await.expect("stored");
    assert_eq!(Some(after.sequence - 1), last);

    let history = MessageHistory::new(dynamodb::Store::new(&systems.store).await);
    let stored = history.after(chat, Sequence(0), 500).await.expect("read").messages;
    let sequences: Vec<u64> = stored.iter().map(|message| message.sequence.0).collect();
    assert_eq!(sequences, (1..=MESSAGES as u64 + 1).collect::<Vec<_>>());
    let places: HashMap<_, _> = stored.iter().map(|message| (message.id.to_string(), message.sequence.0)).collect();
    assert!(acknowledged.iter().all(|answer| places[&answer.message_id] == answer.sequence));
    assert_eq!(stored.iter().map(|message| message.client_id).collect::<HashSet<_>>().len(), MESSAGES + 1);

    // Two writers may write an event twice; the first of each comes in order.
    let (mut seen, mut first_occurrences) = (HashSet::new(), Vec::new());
    systems
        .records_until(async |record| {
            let sequence = persisted(record).sequence;
            if seen.insert(sequence) {
                first_occurrences.push(sequence);
            }
            seen.len() == MESSAGES + 1
        })
        .await;
    assert!(first_occurrences.is_sorted(), "{first_occurrences:?}");
    systems.stop(services).await;
}

/// `one_store_round_trip`: one call for a message to a chat whose head is known, two for the first.
async fn one_store_round_trip_for_a_message(on: On) {
    let systems = Systems::start(on).await;
    let ingest = systems.service(quiet(&systems)).await;
    let alice = systems.user();
    let chat = systems.chat(alice, systems.user()).await;
    let calls = |transactions: usize| {
        let mut calls = BTreeMap::from([("GetItem".to_owned(), 1), ("TransactWriteItems".to_owned(), transactions)]);
        calls.retain(|_, count| *count > 0);
        calls
    };
    for sent in 1..=10 {
        let answer = ingest.persist(systems.send(chat, alice, "x")).await.expect("stored");
        assert_eq!(answer.sequence, sent);
    }
    assert_eq!(systems.calls().await, calls(10), "the first reads the head");
    let repeated = systems.send(chat, alice, "again");
    for is_duplicate in [false, true] {
        assert_eq!(ingest.persist(repeated.clone()).await.expect("stored").is_duplicate, is_duplicate);
    }
    assert_eq!(systems.calls().await, calls(12), "the reasons tell what was stored");
    systems.stop([ingest]).await;
}

/// A reconnect that missed nothing reads the store once for each 50 chats.
async fn a_reconnect_that_missed_nothing_costs_one_store_call_for_50_chats(on: On) {
    const CHATS: usize = 120;
    let systems = Systems::start(on).await;
    let ingest = systems.service(quiet(&systems)).await;
    let alice = systems.user();
    let mut chats: Vec<ChatId> = Vec::new();
    for _ in 0..CHATS {
        chats.push(systems.chat(alice, systems.user()).await);
    }
    let behind = chats[7];
    let stored = ingest.persist(systems.send(behind, alice, "x")).await.expect("stored");
    let before = systems.calls().await;
    let mut heads = Vec::new();
    for some in chats.chunks(domain::limits::HEADS_CHATS) {
        let chat_ids = some.iter().map(ToString::to_string).collect();
        let request = HeadsRequest { user_id: alice.to_string(), chat_ids };
        heads.extend(ingest.client().heads(request).await.expect("heads").into_inner().chats);
    }
    assert_eq!(heads.len(), CHATS);
    let mut after = before.clone();
    after.insert("BatchGetItem".to_owned(), CHATS.div_ceil(50));
    assert_eq!(systems.calls().await, after);

    // Only a chat that is behind costs more: its membership and its page.
    let ahead: Vec<_> = heads.iter().filter(|head| head.current_sequence > 0).collect();
    assert_eq!((ahead.len(), ahead[0].current_sequence), (1, stored.sequence));
    let (chat_id, user_id) = (behind.to_string(), alice.to_string());
    let request = SyncMessagesRequest { chat_id, user_id, after_sequence: 0, limit: 100 };
    let page = ingest.client().sync_messages(request).await.expect("a page").into_inner();
    assert_eq!((page.messages.len(), page.has_more), (1, false));
    *after.get_mut("BatchGetItem").expect("counted") += 1;
    after.insert("Query".to_owned(), 1);
    assert_eq!(systems.calls().await, after);
    systems.stop([ingest]).await;
}

/// An ingest that does not look for others' leases, which would be counted too.
fn quiet(systems: &Systems) -> ingest::Settings {
    let limits = Limits { takeover_interval: Duration::from_hours(1), ..Limits::default() };
    ingest::Settings { limits, ..systems.settings() }
}

async fn it_answers_callers_that_show_the_token(on: On) {
    let systems = Systems::start(on).await;
    let process = platform::Process::new();
    let running = ingest::wire_up::start(systems.settings(), &process).await.expect("started");
    eventually("it is ready", || process.not_ready().is_empty()).await;
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", running.grpc)).expect("a URL");
    let channel = endpoint.connect().await.expect("connected");
    let request = systems.send(ChatId::new(&*systems.process.ids()), systems.user(), "hello");
    for (token, expected) in [("s3cret", ErrorKind::NotAMember), ("wrong", ErrorKind::Unauthorized)] {
        let token = InternalToken::new(&Secret::new(token)).expect("a token");
        let mut client =
            proto::messaging::v1::ingest_client::IngestClient::with_interceptor(channel.clone(), token.attach());
        let status = client.persist_message(request.clone()).await.expect_err("refused");
        assert_eq!(platform::wire::from_status(&status).kind(), expected);
    }
    drop(channel);
    process.shut_down().await;
    systems.stop([]).await;
}

on_all_systems! {
    ct_ik_01_an_event_is_on_the_log_only_when_its_row_can_be_read,
    ct_ik_02_events_of_a_chat_lie_in_its_partition_in_the_order_of_sequences,
    ct_ik_03_an_event_is_read_by_the_schema_of_version_1_and_by_todays,
    sequence_gapless_and_commit_order_is_sequence_order_with_two_writers_on_a_chat,
    one_store_round_trip_for_a_message,
    a_reconnect_that_missed_nothing_costs_one_store_call_for_50_chats,
    it_answers_callers_that_show_the_token,
}
