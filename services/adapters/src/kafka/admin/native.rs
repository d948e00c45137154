//! The library's admin calls: its safe wrapper has neither topic ids nor changes of single settings, and drops
//! the broker's words about a refusal.
#![expect(
    unsafe_code,
    reason = "calls of the C library: every pointer given to it outlives the call, every pointer taken from an answer \
              is read before the answer is destroyed"
)]

use std::{
    ffi::{CStr, CString, c_char, c_int},
    ptr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, bindings as c,
    client::{Client, DefaultClientContext},
    types::{RDKafkaAdminOp, RDKafkaConfigSource, RDKafkaErrorCode, RDKafkaResourceType, RDKafkaType},
};

use super::{Mode, TopicSpec};
use crate::kafka::iam::Tokens;

/// How old a token gets; it is good for 15 minutes.
const RENEW: Duration = Duration::from_mins(10);

/// What the library or a broker answered instead of a result.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) code: RDKafkaErrorCode,
    pub(super) why: String,
}

/// What became of each thing of a request, by topic.
pub(super) type Answers<T> = Vec<(String, Result<T, Failure>)>;

/// A topic as brokers describe it.
pub(super) struct TopicShape {
    pub(super) id: Option<(i64, i64)>,
    /// Replicas of each partition.
    pub(super) replicas: Vec<usize>,
}

/// A setting of a topic: name, value, where it comes from, whether it is secret.
pub(super) struct Setting {
    pub(super) name: String,
    pub(super) value: Option<String>,
    pub(super) source: RDKafkaConfigSource,
    pub(super) is_sensitive: bool,
}

/// A client that speaks to brokers about topics; each call blocks.
pub(super) struct Native {
    client: Client<DefaultClientContext>,
    tokens: Option<Tokens>,
    /// When the token in use is replaced.
    renew_at: Mutex<Option<Instant>>,
}

impl Native {
    pub(super) fn new(config: &ClientConfig, tokens: Option<Tokens>) -> Result<Self, String> {
        let native = config.create_native_config().map_err(|error| error.to_string())?;
        // SAFETY: the settings live until `Client::new` takes them.
        unsafe { c::rd_kafka_conf_set_events(native.ptr(), c::RD_KAFKA_EVENT_ERROR | c::RD_KAFKA_EVENT_LOG) };
        let client = Client::new(config, native, RDKafkaType::RD_KAFKA_PRODUCER, DefaultClientContext);
        let client = client.map_err(|error| error.to_string())?;
        Ok(Self { client, tokens, renew_at: Mutex::new(None) })
    }

    /// Sees that the library holds a token that is good for a while, where it needs one.
    fn log_in(&self) -> Result<(), Failure> {
        let Some(tokens) = &self.tokens else { return Ok(()) };
        let mut renew_at = self.renew_at.lock().unwrap_or_else(PoisonError::into_inner);
        if renew_at.is_some_and(|at| Instant::now() < at) {
            return Ok(());
        }
        let refused = |why: String| Failure { code: RDKafkaErrorCode::Authentication, why };
        let token = tokens.make().map_err(|error| refused(error.to_string()))?;
        let (value, principal) = (c_text(&token.token)?, c_text(&token.principal_name)?);
        let mut words: [c_char; 256] = [0; 256];
        // SAFETY: all texts outlive the call, which copies them; `words` is as long as it says.
        let code = unsafe {
            c::rd_kafka_oauthbearer_set_token(
                self.client.native_ptr(),
                value.as_ptr(),
                token.lifetime_ms,
                principal.as_ptr(),
                ptr::null_mut(),
                0,
                words.as_mut_ptr(),
                words.len(),
            )
        };
        // SAFETY: the library ended its words with a zero byte.
        outcome(code, unsafe { text(words.as_ptr()) })?;
        *renew_at = Some(Instant::now() + RENEW);
        Ok(())
    }

    pub(super) fn describe_topics(&self, names: &[CString], within: Duration) -> Result<Answers<TopicShape>, Failure> {
        let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
        // SAFETY: `names` outlives the collection, which copies them.
        let topics = unsafe { c::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len()) };
        let answer =
            self.call(RDKafkaAdminOp::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS, Mode::Do, within, |options, queue| unsafe {
                c::rd_kafka_DescribeTopics(self.client.native_ptr(), topics, options, queue);
            });
        unsafe { c::rd_kafka_TopicCollection_destroy(topics) };
        let answer = answer?;
        let mut count = 0;
        let items = unsafe {
            let result = c::rd_kafka_event_DescribeTopics_result(answer.0);
            slice(c::rd_kafka_DescribeTopics_result_topics(result, &raw mut count), count)
        };
        let read = |item: &*const c::rd_kafka_TopicDescription_t| unsafe {
            let name = text(c::rd_kafka_TopicDescription_name(*item)).unwrap_or_default();
            let error = c::rd_kafka_TopicDescription_error(*item);
            let code = c::rd_kafka_error_code(error);
            let result = outcome(code, text(c::rd_kafka_error_string(error)));
            (name, result.map(|()| shape(*item)))
        };
        Ok(items.iter().map(read).collect())
    }

    pub(super) fn describe_configs(
        &self,
        names: &[CString],
        within: Duration,
    ) -> Result<Answers<Vec<Setting>>, Failure> {
        let mut resources = self.resources(names);
        let op = RDKafkaAdminOp::RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS;
        let answer = self.call(op, Mode::Do, within, |options, queue| unsafe {
            let (items, count) = resources.parts();
            c::rd_kafka_DescribeConfigs(self.client.native_ptr(), items, count, options, queue);
        })?;
        let mut count = 0;
        let items = unsafe {
            let result = c::rd_kafka_event_DescribeConfigs_result(answer.0);
            slice(c::rd_kafka_DescribeConfigs_result_resources(result, &raw mut count), count)
        };
        Ok(items.iter().map(|item| unsafe { resource(*item, settings) }).collect())
    }

    pub(super) fn create_topics(
        &self,
        topics: &[TopicSpec],
        mode: Mode,
        within: Duration,
    ) -> Result<Answers<()>, Failure> {
        let mut news = Owned::new(c::rd_kafka_NewTopic_destroy);
        for topic in topics {
            let partitions = c_int::try_from(topic.partitions).unwrap_or(c_int::MAX);
            let replicas = topic.replication_factor.map_or(-1, c_int::from);
            let name = c_text(&topic.name)?;
            let mut words = Words::new();
            // SAFETY: the library copies the name; `words` has the length it is told.
            let new = unsafe {
                c::rd_kafka_NewTopic_new(name.as_ptr(), partitions, replicas, words.as_mut_ptr(), words.len())
            };
            news.take(new, &words)?;
            for (key, value) in &topic.configs {
                let (key, value) = (c_text(key)?, c_text(value)?);
                let code = unsafe { c::rd_kafka_NewTopic_set_config(new, key.as_ptr(), value.as_ptr()) };
                outcome(code, None)?;
            }
        }
        let op = RDKafkaAdminOp::RD_KAFKA_ADMIN_OP_CREATETOPICS;
        let answer = self.call(op, mode, within, |options, queue| unsafe {
            let (items, count) = news.parts();
            c::rd_kafka_CreateTopics(self.client.native_ptr(), items, count, options, queue);
        })?;
        let mut count = 0;
        Ok(topic_results(unsafe {
            let result = c::rd_kafka_event_CreateTopics_result(answer.0);
            slice(c::rd_kafka_CreateTopics_result_topics(result, &raw mut count), count)
        }))
    }

    pub(super) fn create_partitions(
        &self,
        topics: &[(String, u32)],
        mode: Mode,
        within: Duration,
    ) -> Result<Answers<()>, Failure> {
        let mut news = Owned::new(c::rd_kafka_NewPartitions_destroy);
        for (name, partitions) in topics {
            let count = usize::try_from(*partitions).unwrap_or(usize::MAX);
            let name = c_text(name)?;
            let mut words = Words::new();
            let new = unsafe { c::rd_kafka_NewPartitions_new(name.as_ptr(), count, words.as_mut_ptr(), words.len()) };
            news.take(new, &words)?;
        }
        let op = RDKafkaAdminOp::RD_KAFKA_ADMIN_OP_CREATEPARTITIONS;
        let answer = self.call(op, mode, within, |options, queue| unsafe {
            let (items, count) = news.parts();
            c::rd_kafka_CreatePartitions(self.client.native_ptr(), items, count, options, queue);
        })?;
        let mut count = 0;
        Ok(topic_results(unsafe {
            let result = c::rd_kafka_event_CreatePartitions_result(answer.0);
            slice(c::rd_kafka_CreatePartitions_result_topics(result, &raw mut count), count)
        }))
    }

    /// Sets (`Some`) and takes back (`None`) single settings; all others stay as they are.
    pub(super) fn alter_configs(
        &self,
        name: &str,
        changes: &[(String, Option<String>)],
        mode: Mode,
        within: Duration,
    ) -> Result<Answers<()>, Failure> {
        let mut resources = self.resources(&[c_text(name)?]);
        let (items, _) = resources.parts();
        for (key, value) in changes {
            let key = c_text(key)?;
            let value = value.as_deref().map(c_text).transpose()?;
            let (operation, value) = match &value {
                Some(value) => (c::rd_kafka_AlterConfigOpType_t::RD_KAFKA_ALTER_CONFIG_OP_TYPE_SET, value.as_ptr()),
                None => (c::rd_kafka_AlterConfigOpType_t::RD_KAFKA_ALTER_CONFIG_OP_TYPE_DELETE, ptr::null()),
            };
            // SAFETY: `resources` holds one resource; the library copies the texts; the error is destroyed once read.
            unsafe {
                let error = c::rd_kafka_ConfigResource_add_incremental_config(*items, key.as_ptr(), operation, value);
                if !error.is_null() {
                    let refused = outcome(c::rd_kafka_error_code(error), text(c::rd_kafka_error_string(error)));
                    c::rd_kafka_error_destroy(error);
                    refused?;
                }
            }
        }
        let op = RDKafkaAdminOp::RD_KAFKA_ADMIN_OP_INCREMENTALALTERCONFIGS;
        let answer = self.call(op, mode, within, |options, queue| unsafe {
            let (items, count) = resources.parts();
            c::rd_kafka_IncrementalAlterConfigs(self.client.native_ptr(), items, count, options, queue);
        })?;
        let mut count = 0;
        let items = unsafe {
            let result = c::rd_kafka_event_IncrementalAlterConfigs_result(answer.0);
            slice(c::rd_kafka_IncrementalAlterConfigs_result_resources(result, &raw mut count), count)
        };
        Ok(items.iter().map(|item| unsafe { resource(*item, |_| ()) }).collect())
    }

    pub(super) fn delete_topics(&self, names: &[CString], within: Duration) -> Result<Answers<()>, Failure> {
        let mut gone = Owned::new(c::rd_kafka_DeleteTopic_destroy);
        for name in names {
            gone.items.push(unsafe { c::rd_kafka_DeleteTopic_new(name.as_ptr()) });
        }
        let op = RDKafkaAdminOp::RD_KAFKA_ADMIN_OP_DELETETOPICS;
        let answer = self.call(op, Mode::Do, within, |options, queue| unsafe {
            let (items, count) = gone.parts();
            c::rd_kafka_DeleteTopics(self.client.native_ptr(), items, count, options, queue);
        })?;
        let mut count = 0;
        Ok(topic_results(unsafe {
            let result = c::rd_kafka_event_DeleteTopics_result(answer.0);
            slice(c::rd_kafka_DeleteTopics_result_topics(result, &raw mut count), count)
        }))
    }

    #[expect(clippy::unused_self, reason = "resources belong to calls of a client")]
    fn resources(&self, names: &[CString]) -> Owned<c::rd_kafka_ConfigResource_t> {
        let mut resources = Owned::new(c::rd_kafka_ConfigResource_destroy);
        for name in names {
            let kind = RDKafkaResourceType::RD_KAFKA_RESOURCE_TOPIC;
            resources.items.push(unsafe { c::rd_kafka_ConfigResource_new(kind, name.as_ptr()) });
        }
        resources
    }

    /// Sends a request and waits for its answer, or for the news that these credentials are no good.
    fn call(
        &self,
        op: RDKafkaAdminOp,
        mode: Mode,
        within: Duration,
        send: impl FnOnce(*const c::rd_kafka_AdminOptions_t, *mut c::rd_kafka_queue_t),
    ) -> Result<Answer, Failure> {
        self.log_in()?;
        let client = self.client.native_ptr();
        let queue = Queue::of(client);
        let options = Options::new(client, op, mode, within)?;
        send(options.0, queue.own);
        // The library keeps to the request's own time; the rest is for its answer to arrive.
        let deadline = Instant::now() + within + Duration::from_millis(500);
        let mut last_word = String::new();
        loop {
            let Some(event) = queue.poll(deadline.saturating_duration_since(Instant::now())) else {
                return Err(Failure { code: RDKafkaErrorCode::OperationTimedOut, why: last_word });
            };
            // SAFETY: the event is there until `event` is dropped.
            let (kind, code) = unsafe { (c::rd_kafka_event_type(event.0), c::rd_kafka_event_error(event.0)) };
            let words = unsafe { text(c::rd_kafka_event_error_string(event.0)) };
            let code = RDKafkaErrorCode::from(code);
            match kind {
                c::RD_KAFKA_EVENT_LOG | c::RD_KAFKA_EVENT_NONE => {}
                c::RD_KAFKA_EVENT_ERROR => {
                    let words = words.unwrap_or_default();
                    // A broker that wants another certificate says so only after the handshake, as an alert.
                    let is_alert = words.contains("SSL routines") && words.contains("alert");
                    if is_alert || matches!(code, RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SSL) {
                        let code = if is_alert { RDKafkaErrorCode::SSL } else { code };
                        return Err(Failure { code, why: words });
                    }
                    // That all are down says less than why one is.
                    if code != RDKafkaErrorCode::AllBrokersDown || last_word.is_empty() {
                        last_word = words;
                    }
                }
                _ if code == RDKafkaErrorCode::NoError => return Ok(event),
                _ => {
                    let words = words.unwrap_or_default();
                    let why = if last_word.is_empty() { words } else { format!("{words}: {last_word}") };
                    return Err(Failure { code, why });
                }
            }
        }
    }
}

/// An answer, or another event; destroyed with the value.
struct Answer(*mut c::rd_kafka_event_t);

impl Drop for Answer {
    fn drop(&mut self) {
        unsafe { c::rd_kafka_event_destroy(self.0) };
    }
}

/// The queue of one call, into which the client's errors run as long as the call lasts.
struct Queue {
    main: *mut c::rd_kafka_queue_t,
    own: *mut c::rd_kafka_queue_t,
}

impl Queue {
    fn of(client: *mut c::rd_kafka_t) -> Self {
        // SAFETY: the client outlives each call.
        let queue = unsafe { Self { main: c::rd_kafka_queue_get_main(client), own: c::rd_kafka_queue_new(client) } };
        // Errors of the time between two calls say nothing about this one.
        while Self::next(queue.main, 0).is_some() {}
        unsafe { c::rd_kafka_queue_forward(queue.main, queue.own) };
        queue
    }

    fn poll(&self, within: Duration) -> Option<Answer> {
        Self::next(self.own, c_int::try_from(within.as_millis()).unwrap_or(c_int::MAX))
    }

    fn next(queue: *mut c::rd_kafka_queue_t, millis: c_int) -> Option<Answer> {
        let event = unsafe { c::rd_kafka_queue_poll(queue, millis) };
        (!event.is_null()).then_some(Answer(event))
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        unsafe {
            c::rd_kafka_queue_forward(self.main, ptr::null_mut());
            c::rd_kafka_queue_destroy(self.own);
            c::rd_kafka_queue_destroy(self.main);
        }
    }
}

/// Options of one call.
struct Options(*mut c::rd_kafka_AdminOptions_t);

impl Options {
    fn new(client: *mut c::rd_kafka_t, op: RDKafkaAdminOp, mode: Mode, within: Duration) -> Result<Self, Failure> {
        let millis = c_int::try_from(within.as_millis()).unwrap_or(c_int::MAX);
        let options = Self(unsafe { c::rd_kafka_AdminOptions_new(client, op) });
        let mut words = Words::new();
        let code =
            unsafe { c::rd_kafka_AdminOptions_set_request_timeout(options.0, millis, words.as_mut_ptr(), words.len()) };
        outcome(code, words.read())?;
        if mode == Mode::ValidateOnly {
            let code =
                unsafe { c::rd_kafka_AdminOptions_set_validate_only(options.0, 1, words.as_mut_ptr(), words.len()) };
            outcome(code, words.read())?;
        }
        Ok(options)
    }
}

impl Drop for Options {
    fn drop(&mut self) {
        unsafe { c::rd_kafka_AdminOptions_destroy(self.0) };
    }
}

/// Things made by the library that go into a request; destroyed with the value.
struct Owned<T> {
    items: Vec<*mut T>,
    destroy: unsafe extern "C" fn(*mut T),
}

impl<T> Owned<T> {
    fn new(destroy: unsafe extern "C" fn(*mut T)) -> Self {
        Self { items: Vec::new(), destroy }
    }

    fn take(&mut self, item: *mut T, words: &Words) -> Result<(), Failure> {
        if item.is_null() {
            return Err(Failure { code: RDKafkaErrorCode::InvalidArgument, why: words.read().unwrap_or_default() });
        }
        self.items.push(item);
        Ok(())
    }

    fn parts(&mut self) -> (*mut *mut T, usize) {
        (self.items.as_mut_ptr(), self.items.len())
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        for item in &self.items {
            unsafe { (self.destroy)(*item) };
        }
    }
}

/// Room for the library's words about a mistake.
struct Words([c_char; 512]);

impl Words {
    fn new() -> Self {
        Self([0; 512])
    }

    fn as_mut_ptr(&mut self) -> *mut c_char {
        self.0.as_mut_ptr()
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn read(&self) -> Option<String> {
        // SAFETY: the last byte is never written, hence the text ends.
        unsafe { text(self.0.as_ptr()) }
    }
}

fn c_text(text: &str) -> Result<CString, Failure> {
    let invalid = |_| Failure { code: RDKafkaErrorCode::InvalidArgument, why: format!("a zero byte in {text:?}") };
    CString::new(text).map_err(invalid)
}

fn outcome(code: c::rd_kafka_resp_err_t, words: Option<String>) -> Result<(), Failure> {
    let code = RDKafkaErrorCode::from(code);
    if code == RDKafkaErrorCode::NoError {
        return Ok(());
    }
    Err(Failure { code, why: words.unwrap_or_else(|| code.to_string()) })
}

/// SAFETY: `text` is null or a text that ends.
unsafe fn text(text: *const c_char) -> Option<String> {
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
}

/// SAFETY: `items` is null or has `count` items, which live as long as the answer they are part of.
unsafe fn slice<'a, T>(items: *mut *const T, count: usize) -> &'a [*const T] {
    if items.is_null() { &[] } else { unsafe { std::slice::from_raw_parts(items, count) } }
}

fn topic_results(items: &[*const c::rd_kafka_topic_result_t]) -> Answers<()> {
    let read = |item: &*const c::rd_kafka_topic_result_t| unsafe {
        let name = text(c::rd_kafka_topic_result_name(*item)).unwrap_or_default();
        (name, outcome(c::rd_kafka_topic_result_error(*item), text(c::rd_kafka_topic_result_error_string(*item))))
    };
    items.iter().map(read).collect()
}

/// SAFETY: `item` is part of an answer that is still there.
unsafe fn resource<T>(
    item: *const c::rd_kafka_ConfigResource_t,
    read: impl FnOnce(*const c::rd_kafka_ConfigResource_t) -> T,
) -> (String, Result<T, Failure>) {
    unsafe {
        let name = text(c::rd_kafka_ConfigResource_name(item)).unwrap_or_default();
        let result =
            outcome(c::rd_kafka_ConfigResource_error(item), text(c::rd_kafka_ConfigResource_error_string(item)));
        (name, result.map(|()| read(item)))
    }
}

fn settings(item: *const c::rd_kafka_ConfigResource_t) -> Vec<Setting> {
    let mut count = 0;
    let entries = unsafe { slice(c::rd_kafka_ConfigResource_configs(item, &raw mut count), count) };
    let read = |entry: &*const c::rd_kafka_ConfigEntry_t| unsafe {
        Setting {
            name: text(c::rd_kafka_ConfigEntry_name(*entry)).unwrap_or_default(),
            value: text(c::rd_kafka_ConfigEntry_value(*entry)),
            source: c::rd_kafka_ConfigEntry_source(*entry),
            is_sensitive: c::rd_kafka_ConfigEntry_is_sensitive(*entry) != 0,
        }
    };
    entries.iter().map(read).collect()
}

/// SAFETY: `item` is part of an answer that is still there.
unsafe fn shape(item: *const c::rd_kafka_TopicDescription_t) -> TopicShape {
    unsafe {
        let id = c::rd_kafka_TopicDescription_topic_id(item);
        let id = (!id.is_null())
            .then(|| (c::rd_kafka_Uuid_most_significant_bits(id), c::rd_kafka_Uuid_least_significant_bits(id)));
        let mut count = 0;
        let partitions = slice(c::rd_kafka_TopicDescription_partitions(item, &raw mut count), count);
        let replicas = |partition: &*const c::rd_kafka_TopicPartitionInfo_t| {
            let mut count = 0;
            c::rd_kafka_TopicPartitionInfo_replicas(*partition, &raw mut count);
            count
        };
        // Brokers without topic ids answer with zeros.
        TopicShape { id: id.filter(|id| *id != (0, 0)), replicas: partitions.iter().map(replicas).collect() }
    }
}
