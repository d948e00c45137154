//! What is there in the end: all of the store and all of the log, read by nobody's code but this.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Context as _;
use prost::Message as _;
use proto::{
    events::v1::{Envelope, envelope::Event},
    topics::Topic,
};
use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer as _},
};
use serde_json::{Value, json};

use crate::history::{
    line::{Kind, Line, What, digest},
    recorder::Recorder,
};

const WITHIN: Duration = Duration::from_secs(30);
/// A partition that ends is looked at so often.
const POLL: Duration = Duration::from_millis(100);

/// Heads by chat, as the store has them.
pub type Heads = BTreeMap<String, u64>;

/// Reads every message, client id and counter, and writes them down.
///
/// # Errors
/// When the store refuses, or has something that is none of these.
pub async fn scan(store: &str, prefix: &str, recorder: &Recorder) -> anyhow::Result<Heads> {
    let write = |what, line| recorder.write(Line { what, kind: Kind::Ok, ..line });
    for item in all_items(store, &format!("{prefix}messages")).await? {
        let line = Line {
            chat: Some(text(&item, "chat_id")?),
            sequence: Some(number(&item, "sequence")?),
            message_id: Some(text(&item, "message_id")?),
            user: Some(text(&item, "sender_id")?),
            client_id: Some(text(&item, "client_message_id")?),
            body: Some(digest(&text(&item, "content")?)),
            ..Line::default()
        };
        write(What::Row, line);
    }
    for item in all_items(store, &format!("{prefix}idempotency-keys")).await? {
        let key = text(&item, "client_message_id")?;
        let (user, client_id) = key.split_once('#').context("a key of another form")?;
        let line = Line {
            chat: Some(text(&item, "chat_id")?),
            sequence: Some(number(&item, "sequence")?),
            message_id: Some(text(&item, "message_id")?),
            user: Some(user.to_owned()),
            client_id: Some(client_id.to_owned()),
            ..Line::default()
        };
        write(What::Key, line);
    }
    let heads = heads(store, prefix).await?;
    for (chat, head) in &heads {
        write(What::Head, Line { chat: Some(chat.clone()), sequence: Some(*head), ..Line::default() });
    }
    write(What::Scanned, Line::default());
    Ok(heads)
}

/// The heads of all chats.
///
/// # Errors
/// When the store refuses.
pub async fn heads(store: &str, prefix: &str) -> anyhow::Result<Heads> {
    let items = all_items(store, &format!("{prefix}chat-counters")).await?;
    // Leases of ingest are in the same table, without a counter.
    let counters = items.iter().filter(|item| item.get("sequence_counter").is_some());
    counters.map(|item| Ok((text(item, "chat_id")?, number(item, "sequence_counter")?))).collect()
}

/// The members of a chat, and how many the chat says that it has.
///
/// # Errors
/// When the store refuses, or has no such chat.
pub async fn members(store: &str, prefix: &str, chat: &str) -> anyhow::Result<(Vec<String>, u64)> {
    let of_chat = |item: &&Value| item["chat_id"]["S"] == *chat;
    let memberships = all_items(store, &format!("{prefix}chat-memberships")).await?;
    let members = memberships.iter().filter(of_chat).map(|item| text(item, "user_id")).collect::<Result<_, _>>()?;
    let chats = all_items(store, &format!("{prefix}chats")).await?;
    let count = number(chats.iter().find(of_chat).context("no such chat")?, "member_count")?;
    Ok((members, count))
}

/// The item of a table with that key, in the store's own form, if there is one at this moment.
///
/// # Errors
/// When the store refuses.
pub async fn item(store: &str, table: &str, key: Value) -> anyhow::Result<Option<Value>> {
    let asked = json!({"TableName": table, "Key": key, "ConsistentRead": true});
    let item = ask(&http()?, store, "GetItem", &asked).await?["Item"].take();
    Ok(Some(item).filter(|item| !item.is_null()))
}

async fn all_items(store: &str, table: &str) -> anyhow::Result<Vec<Value>> {
    let http = http()?;
    let (mut items, mut after) = (Vec::new(), Value::Null);
    loop {
        let mut asked = json!({"TableName": table, "ConsistentRead": true});
        if !after.is_null() {
            asked["ExclusiveStartKey"] = after;
        }
        let mut page = ask(&http, store, "Scan", &asked).await?;
        if let Value::Array(found) = page["Items"].take() {
            items.extend(found);
        }
        after = page["LastEvaluatedKey"].take();
        if after.is_null() {
            return Ok(items);
        }
    }
}

fn http() -> anyhow::Result<reqwest::Client> {
    Ok(reqwest::Client::builder().timeout(WITHIN).build()?)
}

async fn ask(http: &reqwest::Client, store: &str, operation: &str, asked: &Value) -> anyhow::Result<Value> {
    // A local store looks at the form of a signature, not at the signature.
    let signature = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/dynamodb/aws4_request, \
                     SignedHeaders=host, Signature=0";
    let request = http
        .post(format!("http://{store}/"))
        .header("authorization", signature)
        .header("x-amz-date", "20260101T000000Z")
        .header("x-amz-target", format!("DynamoDB_20120810.{operation}"))
        .header("content-type", "application/x-amz-json-1.0")
        .body(asked.to_string());
    let answer = request.send().await.context("the store is not reached")?;
    let status = answer.status();
    let found: Value = serde_json::from_slice(&answer.bytes().await?)?;
    anyhow::ensure!(status.is_success(), "the store refuses {operation} of {}: {found}", asked["TableName"]);
    Ok(found)
}

fn text(item: &Value, name: &str) -> anyhow::Result<String> {
    Ok(item[name]["S"].as_str().with_context(|| format!("no text {name} in {item}"))?.to_owned())
}

fn number(item: &Value, name: &str) -> anyhow::Result<u64> {
    item[name]["N"].as_str().and_then(|text| text.parse().ok()).with_context(|| format!("no number {name} in {item}"))
}

/// The log of one cluster, for a consumer of its own.
#[derive(Clone, Debug)]
pub struct Log {
    /// Bootstrap servers.
    pub brokers: String,
    /// What topics and groups begin with.
    pub prefix: String,
}

impl Log {
    fn topic(&self) -> String {
        self.full_name(Topic::MessagesPersisted)
    }

    fn full_name(&self, topic: Topic) -> String {
        format!("{}{}", self.prefix, topic.name())
    }

    fn consumer(&self, group: &str) -> anyhow::Result<BaseConsumer> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers).set("group.id", group).set("enable.auto.commit", "false");
        Ok(config.set("fetch.wait.max.ms", "50").create()?)
    }

    /// Where each partition ends.
    fn ends(consumer: &BaseConsumer, topic: &str) -> anyhow::Result<BTreeMap<i32, i64>> {
        let known = consumer.fetch_metadata(Some(topic), WITHIN)?;
        let partitions = known.topics().first().context("the topic is not there")?.partitions();
        partitions
            .iter()
            .map(|partition| {
                let (_, end) = consumer.fetch_watermarks(topic, partition.id(), WITHIN)?;
                Ok((partition.id(), end))
            })
            .collect()
    }

    /// Reads every record from the first, and writes it down. Takes a thread for a while.
    ///
    /// # Errors
    /// When the log refuses, has a record that nobody can read, or does not end in time.
    pub fn dump(&self, recorder: &Recorder) -> anyhow::Result<u64> {
        let consumer = self.consumer("independent")?;
        let mut open = Self::ends(&consumer, &self.topic())?;
        open.retain(|_, end| *end > 0);
        let mut all = TopicPartitionList::new();
        for partition in open.keys() {
            all.add_partition_offset(&self.topic(), *partition, Offset::Beginning)?;
        }
        consumer.assign(&all)?;
        let begun = std::time::Instant::now();
        let mut count = 0;
        while !open.is_empty() {
            anyhow::ensure!(begun.elapsed() < WITHIN, "not all of the log was read: {open:?}");
            let Some(record) = consumer.poll(POLL) else { continue };
            let record = record?;
            let envelope = Envelope::decode(record.payload().context("a record without a value")?)?;
            let Some(Event::MessagePersisted(message)) = envelope.event else { anyhow::bail!("another event") };
            recorder.write(Line {
                what: What::Log,
                kind: Kind::Ok,
                partition: Some(record.partition()),
                offset: Some(record.offset()),
                chat: Some(message.chat_id),
                sequence: Some(message.sequence),
                message_id: Some(message.message_id),
                user: Some(message.sender_id),
                client_id: Some(message.client_message_id),
                body: Some(digest(&message.content)),
                ..Line::default()
            });
            count += 1;
            if open.get(&record.partition()).is_some_and(|end| record.offset() + 1 >= *end) {
                open.remove(&record.partition());
            }
        }
        recorder.write(Line { what: What::Dumped, kind: Kind::Ok, ..Line::default() });
        Ok(count)
    }

    /// Sets the group, which must be without members, back to the first record. Returns how many will come again.
    ///
    /// # Errors
    /// When the log refuses.
    pub fn go_back(&self) -> anyhow::Result<u64> {
        let consumer = self.consumer(&format!("{}fanout-workers", self.prefix))?;
        let mut first = TopicPartitionList::new();
        let mut asked = TopicPartitionList::new();
        for partition in Self::ends(&consumer, &self.topic())?.keys() {
            first.add_partition_offset(&self.topic(), *partition, Offset::Offset(0))?;
            asked.add_partition(&self.topic(), *partition);
        }
        let committed = consumer.committed_offsets(asked, WITHIN)?;
        consumer.commit(&first, CommitMode::Sync)?;
        let offsets = committed.elements().into_iter().filter_map(|element| element.offset().to_raw());
        Ok(offsets.filter_map(|offset| u64::try_from(offset).ok()).sum())
    }

    /// How many records of all its topics the group has not committed yet; writes down where it stands in that of
    /// messages. Takes a thread for a while.
    ///
    /// # Errors
    /// When the log refuses.
    pub fn lag(&self, recorder: &Recorder) -> anyhow::Result<i64> {
        let mut lag = 0;
        for topic in [Topic::MessagesPersisted, Topic::MembershipsChanged, Topic::ChatsCreated] {
            for (partition, (offset, end)) in self.standing(topic)? {
                lag += end - offset;
                if topic == Topic::MessagesPersisted {
                    recorder.write(Line {
                        what: What::Committed,
                        kind: Kind::Ok,
                        partition: Some(partition),
                        offset: Some(offset),
                        ..Line::default()
                    });
                }
            }
        }
        Ok(lag)
    }

    /// How many records of a topic the group has not committed yet. Takes a thread for a while.
    ///
    /// # Errors
    /// When the log refuses.
    pub fn lag_of(&self, topic: Topic) -> anyhow::Result<i64> {
        Ok(self.standing(topic)?.values().map(|(offset, end)| end - offset).sum())
    }

    /// What the group has committed, and where the partition ends.
    fn standing(&self, topic: Topic) -> anyhow::Result<BTreeMap<i32, (i64, i64)>> {
        let consumer = self.consumer(&format!("{}fanout-workers", self.prefix))?;
        let name = self.full_name(topic);
        let ends = Self::ends(&consumer, &name)?;
        let mut asked = TopicPartitionList::new();
        for partition in ends.keys() {
            asked.add_partition(&name, *partition);
        }
        let committed = consumer.committed_offsets(asked, WITHIN)?;
        let offset = |offset| if let Offset::Offset(offset) = offset { offset } else { 0 };
        let stands = |(partition, end)| {
            let committed = committed.find_partition(&name, partition).map_or(0, |element| offset(element.offset()));
            (partition, (committed, end))
        };
        Ok(ends.into_iter().map(stands).collect())
    }
}
