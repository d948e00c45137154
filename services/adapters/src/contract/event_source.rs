//! Contract of `EventSource`: order, commits that a next owner resumes at, partitions handed over whole.

use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};

use domain::{
    ErrorKind, Millis,
    ports::{
        dead_letters::{DeadLetter, DeadLetters as _},
        event_publisher::EventPublisher as _,
        event_source::{EventSource, Occurrence, Partition, Record},
    },
};
use platform::Process;
use prost::Message as _;
use proto::{events::v1, topics::Topic};

use super::{
    On,
    event_publisher::{embedded, record, start},
};
use crate::kafka::{
    Config,
    dead_letters::KafkaDeadLetters,
    publisher::Publisher,
    source::{Settings, Source},
};

const WITHIN: Duration = Duration::from_secs(30);

async fn in_time<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(WITHIN, what).await.expect("in time")
}

fn join(config: &Config, topic: Topic, process: &Process) -> Arc<Source> {
    let settings = Settings {
        log_fetch_wait: Duration::from_millis(5),
        log_session_timeout: Duration::from_secs(6),
        ..Settings::default()
    };
    Source::new(config, &settings, &[topic], "fanout-workers", process).expect("a source")
}

async fn publish(publisher: &Publisher, records: impl IntoIterator<Item = (&str, u32)>) {
    let mut taken = Vec::new();
    for (chat, number) in records {
        taken.push(publisher.publish(record(chat, number.to_string())).expect("taken"));
    }
    for confirmation in taken {
        in_time(confirmation).await.expect("confirmed");
    }
}

async fn assigned(source: &Source) -> Vec<Partition> {
    match in_time(source.next()).await.expect("an occurrence") {
        Occurrence::Assigned(partitions) => partitions,
        other @ (Occurrence::Records(_) | Occurrence::Revoked(_)) => panic!("not an assignment: {other:?}"),
    }
}

async fn records(source: &Source, count: usize) -> Vec<Record> {
    let mut all = Vec::new();
    while all.len() < count {
        match in_time(source.next()).await.expect("an occurrence") {
            Occurrence::Records(records) => all.extend(records),
            other @ (Occurrence::Assigned(_) | Occurrence::Revoked(_)) => panic!("no records: {other:?}"),
        }
    }
    all
}

fn numbers(records: &[Record]) -> Vec<u32> {
    records.iter().map(|record| std::str::from_utf8(&record.value).expect("text").parse().expect("a number")).collect()
}

fn partition(number: i32) -> Partition {
    Partition { topic: Topic::MessagesPersisted.name(), number }
}

async fn records_come_whole_and_in_order_and_a_next_member_begins_at_the_committed_offset(on: On) {
    let (_log, config) = start(on, &[(Topic::MessagesPersisted, 1)]).await;
    let process = Process::new();
    let publisher = Publisher::new(&config, &process).expect("a publisher");
    publish(&publisher, (0..20).map(|number| ("chat_a", number))).await;

    let first = join(&config, Topic::MessagesPersisted, &process);
    assert_eq!(assigned(&first).await, [partition(0)]);
    let found = records(&first, 20).await;
    assert_eq!(numbers(&found), (0..20).collect::<Vec<_>>());
    assert_eq!((found[3].offset, found[3].key.as_slice()), (3, "chat_a".as_bytes()));
    assert_eq!(found[3].header("event-type"), Some("MessagePersisted"));
    assert!(found[3].timestamp > Millis(0));
    in_time(first.commit(&[(partition(0), 7)])).await.expect("committed");
    in_time(first.leave()).await;
    assert!(first.next().await.is_err());

    let second = join(&config, Topic::MessagesPersisted, &process);
    assert_eq!(assigned(&second).await, [partition(0)]);
    assert_eq!(numbers(&records(&second, 13).await), (7..20).collect::<Vec<_>>());
    in_time(process.shut_down()).await;
}

async fn what_is_not_committed_is_known_after_a_while(on: On) {
    let (_log, config) = start(on, &[(Topic::MessagesPersisted, 1)]).await;
    let process = Process::new();
    let publisher = Publisher::new(&config, &process).expect("a publisher");
    publish(&publisher, (0..20).map(|number| ("chat_a", number))).await;
    let source = join(&config, Topic::MessagesPersisted, &process);
    assigned(&source).await;
    records(&source, 20).await;
    let behind = async |count| {
        while source.lag() != [(partition(0), count)] {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    in_time(behind(20)).await;
    in_time(source.commit(&[(partition(0), 7)])).await.expect("committed");
    in_time(behind(13)).await;
    assert!(publisher.is_connected());
    in_time(process.shut_down()).await;
}

async fn a_paused_partition_is_still_and_comes_back_without_a_loss(on: On) {
    let (_log, config) = start(on, &[(Topic::MessagesPersisted, 1)]).await;
    let process = Process::new();
    let publisher = Publisher::new(&config, &process).expect("a publisher");
    let source = join(&config, Topic::MessagesPersisted, &process);
    assigned(&source).await;
    publish(&publisher, [("chat_a", 0)]).await;
    assert_eq!(numbers(&records(&source, 1).await), [0]);
    source.pause(&[partition(0)]).await.expect("paused");
    publish(&publisher, (1..4).map(|number| ("chat_a", number))).await;
    assert!(tokio::time::timeout(Duration::from_millis(300), source.next()).await.is_err(), "it is paused");
    source.resume(&[partition(0)]).await.expect("resumed");
    assert_eq!(numbers(&records(&source, 3).await), [1, 2, 3]);
    in_time(process.shut_down()).await;
}

async fn a_pause_ends_when_the_partition_goes(on: On) {
    let (_log, config) = start(on, &[(Topic::MessagesPersisted, 2)]).await;
    let process = Process::new();
    let publisher = Publisher::new(&config, &process).expect("a publisher");
    let first = join(&config, Topic::MessagesPersisted, &process);
    let both = assigned(&first).await;
    assert_eq!(both.len(), 2);
    first.pause(&both).await.expect("paused");
    // Another member comes, has one of them, and leaves again.
    let second = join(&config, Topic::MessagesPersisted, &process);
    let visit = process.spawn_child(async move {
        while assigned(&second).await.is_empty() {}
        in_time(second.leave()).await;
    });
    let mut seen = Pauses { held: both.clone(), paused: both.clone(), changes: Vec::new(), records: Vec::new() };
    while seen.paused == both || seen.held.len() < both.len() {
        seen.take(in_time(first.next()).await.expect("an occurrence"));
    }
    in_time(visit).await.expect("it has left");
    let chats: Vec<String> = (0..16).map(|number| format!("chat_{number}")).collect();
    publish(&publisher, chats.iter().map(|chat| (chat.as_str(), 1))).await;
    let comes = |chat: &&String| {
        let number = i32::try_from(proto::topics::partition_for(chat, 2)).expect("a small number");
        !seen.paused.contains(&partition(number))
    };
    let expected = chats.iter().filter(comes).count();
    assert!((1..16).contains(&expected), "one is paused, one is not: {:?}", seen.changes);
    while seen.records.len() < expected {
        seen.take(in_time(first.next()).await.expect("an occurrence"));
    }
    // Time for what must not come.
    while let Ok(more) = tokio::time::timeout(Duration::from_millis(300), first.next()).await {
        seen.take(more.expect("an occurrence"));
    }
    assert_eq!(seen.records.len(), expected, "the other is still paused: {:?}", seen.changes);
    in_time(process.shut_down()).await;
}

/// What a member holds, and what of it is paused still.
struct Pauses {
    held: Vec<Partition>,
    paused: Vec<Partition>,
    changes: Vec<Occurrence>,
    records: Vec<Record>,
}

impl Pauses {
    fn take(&mut self, occurrence: Occurrence) {
        match occurrence {
            Occurrence::Records(records) => {
                let paused = records.iter().find(|record| self.paused.contains(&record.partition));
                assert!(paused.is_none(), "it is paused: {paused:?}, after {:?}", self.changes);
                self.records.extend(records);
                return;
            }
            Occurrence::Revoked(ref gone) => {
                self.held.retain(|partition| !gone.contains(partition));
                self.paused.retain(|partition| !gone.contains(partition));
            }
            Occurrence::Assigned(ref more) => self.held.extend(more),
        }
        self.changes.push(occurrence);
    }
}

async fn a_second_member_takes_partitions_over_at_what_was_committed_when_they_were_revoked(on: On) {
    let (_log, config) = start(on, &[(Topic::MessagesPersisted, 4)]).await;
    let process = Process::new();
    let publisher = Publisher::new(&config, &process).expect("a publisher");
    let chats: Vec<String> = (0..16).map(|number| format!("chat_{number}")).collect();
    publish(&publisher, chats.iter().map(|chat| (chat.as_str(), 1))).await;
    let first = join(&config, Topic::MessagesPersisted, &process);
    let mut mine = assigned(&first).await;
    assert_eq!(mine.len(), 4);
    let mut next = BTreeMap::new();
    for record in records(&first, 16).await {
        next.insert(record.partition, record.offset + 1);
    }

    let second = join(&config, Topic::MessagesPersisted, &process);
    let handed_over = process.spawn_child(async move {
        let mut refused = Vec::new();
        loop {
            match in_time(first.next()).await.expect("an occurrence") {
                Occurrence::Revoked(gone) => {
                    // Nobody else owns them before this is done and `next` is called again.
                    let finished: Vec<_> = gone.iter().filter_map(|p| Some((*p, *next.get(p)?))).collect();
                    match in_time(first.commit(&finished)).await {
                        Ok(()) => {}
                        // The next handover had begun already: what was not taken is read again.
                        Err(error) if error.kind() == ErrorKind::Unavailable => refused.extend(gone.iter().copied()),
                        Err(error) => panic!("not committed: {error:?}"),
                    }
                    mine.retain(|partition| !gone.contains(partition));
                    if mine.len() == 2 {
                        break (first, mine, gone, refused);
                    }
                }
                Occurrence::Assigned(more) => mine.extend(more),
                Occurrence::Records(records) => panic!("more records: {records:?}"),
            }
        }
    });
    let mut theirs = Vec::new();
    let (first, mine, gone, refused) = in_time(handed_over).await.expect("handed over");
    let still = process.spawn_child(async move {
        // The second round of the handover assigns nothing more.
        while matches!(first.next().await, Ok(Occurrence::Assigned(none)) if none.is_empty()) {}
        first
    });
    while theirs.len() < 2 {
        theirs.extend(assigned(&second).await);
    }
    theirs.sort();
    assert_eq!(theirs, gone);
    assert!(theirs.iter().all(|partition| !mine.contains(partition)));
    publish(&publisher, chats.iter().map(|chat| (chat.as_str(), 2))).await;
    let on = |partitions: &[Partition]| {
        let of = |chat: &&String| {
            let number = proto::topics::partition_for(chat, 4);
            partitions.iter().any(|partition| u32::try_from(partition.number) == Ok(number))
        };
        chats.iter().filter(of).count()
    };
    let (again, all) = (on(&refused), on(&theirs));
    let found = numbers(&records(&second, again + all).await);
    let first_round = found.iter().filter(|number| **number == 1).count();
    assert_eq!((first_round, found.len()), (again, again + all), "what was committed is not read again: {found:?}");
    let _first = in_time(still).await.expect("the records of the other half");
    in_time(process.shut_down()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_absent_broker_is_waited_for() {
    let (log, config) = embedded(&[(Topic::MessagesPersisted, 1)]);
    let process = Process::new();
    let publisher = Publisher::new(&config, &process).expect("a publisher");
    let source = join(&config, Topic::MessagesPersisted, &process);
    assigned(&source).await;
    publish(&publisher, [("chat_a", 0)]).await;
    assert_eq!(numbers(&records(&source, 1).await), [0]);
    log.take_down().expect("down");
    let cut_off = async {
        while publisher.is_connected() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    in_time(cut_off).await;
    let late = publisher.publish(record("chat_a", "1")).expect("taken");
    assert!(tokio::time::timeout(Duration::from_millis(300), source.next()).await.is_err());
    log.bring_up().expect("up");
    in_time(late).await.expect("confirmed");
    assert_eq!(numbers(&records(&source, 1).await), [1]);
    in_time(source.commit(&[(partition(0), 2)])).await.expect("committed");
    in_time(process.shut_down()).await;
}

async fn a_dead_letter_holds_the_record_as_it_came(on: On) {
    let (_log, config) = start(on, &[(Topic::DeadLetters, 1)]).await;
    let process = Process::new();
    let publisher = Publisher::new(&config, &process).expect("a publisher");
    let letters = KafkaDeadLetters::new(publisher, "fanout-workers", "fanout-1", WITHIN);
    let poison = Record {
        partition: partition(23),
        offset: 90_417,
        timestamp: Millis(5),
        key: vec![0xff, 1],
        value: b"garbage".to_vec(),
        headers: vec![("event-type".to_owned(), b"MessagePersisted".to_vec())],
    };
    let letter = DeadLetter { record: poison, reason: "not an envelope".to_owned(), failed_at: Millis(6), attempts: 1 };
    in_time(letters.keep(letter)).await.expect("kept");
    let source = join(&config, Topic::DeadLetters, &process);
    assigned(&source).await;
    let found = records(&source, 1).await.remove(0);
    let letter = v1::DeadLetter::decode(found.value.as_slice()).expect("a dead letter");
    assert_eq!((letter.original_topic.as_str(), letter.original_partition), ("messages.persisted", 23));
    assert_eq!((letter.original_offset, letter.processing_attempts), (90_417, 1));
    assert_eq!((&letter.key[..], &letter.value[..]), (&[0xff, 1][..], &b"garbage"[..]));
    assert_eq!(&letter.headers["event-type"][..], b"MessagePersisted");
    assert_eq!((letter.consumer_group.as_str(), letter.consumer_id.as_str()), ("fanout-workers", "fanout-1"));
    in_time(process.shut_down()).await;
}

on_all_systems! {
    records_come_whole_and_in_order_and_a_next_member_begins_at_the_committed_offset,
    what_is_not_committed_is_known_after_a_while,
    a_paused_partition_is_still_and_comes_back_without_a_loss,
    a_pause_ends_when_the_partition_goes,
    a_second_member_takes_partitions_over_at_what_was_committed_when_they_were_revoked,
    a_dead_letter_holds_the_record_as_it_came,
}
