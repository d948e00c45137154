//! Plans of topics, and passes over brokers that misbehave.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use adapters::kafka::{
    admin::{ConfigValue, Error, Mode, Outcomes, Source, TopicSpec, TopicState},
    layout,
};
use async_trait::async_trait;
use operator::{
    engine::{Act, Adoption, Convergence, Fence, Management, Reason, Record, Report, TopicRecord},
    topics::{
        Brokers, Failure, Partitions, Pass, Provider, Wanted,
        plan::{Alteration, Found, Plan, plan},
    },
};

use crate::{
    ledger::{Leads, Loses, Memory},
    topics::wanted,
};

const PREFIX: &str = "ns.chat.";
const FIRST: &str = "ns.chat.messages.persisted";

/// A topic as brokers have it that was made as asked for.
fn as_asked(wanted: &Wanted, place: usize) -> TopicState {
    let topic = &wanted.topics[place];
    let set = layout::configs(topic.topic, topic.retention, wanted.replication_factor).into_iter();
    let set = set.map(|(key, value)| (key, ConfigValue { value: Some(value), source: Source::Topic }));
    TopicState {
        id: Some(format!("id-{place}")),
        partitions: topic.partitions.count(),
        replication_factor: wanted.replication_factor.unwrap_or(3),
        configs: set.collect(),
    }
}

fn all_as_asked(wanted: &Wanted) -> Found {
    let there = |place: usize| (wanted.topics[place].name.clone(), Ok(Some(as_asked(wanted, place))));
    (0..wanted.topics.len()).map(there).collect()
}

/// The plan when only the first topic differs from what is asked for, as this changes it.
fn with_first(wanted: &Wanted, record: &Record, change: impl FnOnce(&mut TopicState)) -> Plan {
    let mut found = all_as_asked(wanted);
    let mut state = as_asked(wanted, 0);
    change(&mut state);
    found.insert(FIRST.to_owned(), Ok(Some(state)));
    plan(wanted, &found, record)
}

fn asked() -> Wanted {
    Wanted { replication_factor: Some(3), budget: Duration::from_millis(300), ..wanted("chat", PREFIX) }
}

fn set(state: &mut TopicState, key: &str, value: &str, source: Source) {
    state.configs.insert(key.to_owned(), ConfigValue { value: Some(value.to_owned()), source });
}

fn known(id: &str, configs: &[(&str, &str)]) -> Record {
    let configs = configs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let topic = TopicRecord { id: Some(id.to_owned()), configs };
    Record { topics: BTreeMap::from([(FIRST.to_owned(), topic)]), ..Record::default() }
}

#[test]
fn topics_as_asked_for_need_nothing_and_their_ids_are_kept() {
    let wanted = asked();
    let plan = plan(&wanted, &all_as_asked(&wanted), &Record::default());
    assert!(plan.is_empty() && plan.changes.is_empty() && plan.notices.is_empty(), "{plan:?}");
    assert!(plan.items.iter().all(|item| item.reason == Reason::TopicsInSync));
    assert_eq!(plan.record.topics[FIRST].id.as_deref(), Some("id-0"));
    let again = operator::topics::plan::plan(&wanted, &all_as_asked(&wanted), &plan.record);
    assert_eq!(again.record, plan.record, "nothing more to write down");
}

#[test]
fn the_form_of_a_value_is_no_difference_and_neither_is_where_it_was_set() {
    let plan = with_first(&asked(), &Record::default(), |state| {
        set(state, layout::TIMESTAMP_TYPE, "createtime", Source::Topic);
        set(state, layout::COMPRESSION_TYPE, " PRODUCER", Source::Broker);
        set(state, layout::RETENTION_MILLIS, "0604800000", Source::Topic);
        set(state, layout::MIN_INSYNC_REPLICAS, "2", Source::Default);
        set(state, "segment.bytes", "1073741824", Source::Default);
        set(state, "follower.replication.throttled.replicas", "0:1,1:2", Source::Topic);
    });
    assert!(plan.is_empty(), "{plan:?}");
    assert!(!plan.record.topics[FIRST].configs.contains_key(layout::MIN_INSYNC_REPLICAS), "we did not set it");
}

#[test]
fn a_setting_is_ours_to_set_ours_to_take_back_or_not_ours() {
    let record = known("id-0", &[("max.message.bytes", "1000"), ("segment.ms", "5"), ("flush.ms", "7")]);
    let plan = with_first(&asked(), &record, |state| {
        set(state, layout::RETENTION_MILLIS, "1", Source::Topic);
        set(state, "max.message.bytes", "1000", Source::Topic);
        set(state, "segment.ms", "6", Source::Topic);
        set(state, "flush.ms", "7", Source::Default);
        set(state, "segment.jitter.ms", "3", Source::Topic);
    });
    let (_, changes) = &plan.alter[0];
    let expected: Alteration = vec![
        (layout::RETENTION_MILLIS.to_owned(), Some("604800000".to_owned())),
        ("max.message.bytes".to_owned(), None),
    ];
    assert_eq!(changes, &expected, "another value is another's, a default is nobody's");
    let kept = &plan.record.topics[FIRST].configs;
    assert!(kept.contains_key("max.message.bytes"), "until it is known to be taken back");
    assert!(!kept.contains_key("segment.ms") && !kept.contains_key("flush.ms"));
    assert!(kept.contains_key(layout::RETENTION_MILLIS), "written down before it is set");
}

#[test]
fn partitions_are_grown_and_never_taken_away() {
    let wanted = asked();
    let grow = with_first(&wanted, &Record::default(), |state| state.partitions = 1);
    assert_eq!(grow.grow, [(FIRST.to_owned(), 2)]);
    assert!(grow.changes[0].disruptive && grow.changes[0].field.as_deref() == Some("partitions"));
    let fall = with_first(&wanted, &Record::default(), |state| state.partitions = 5);
    assert!(fall.is_empty());
    assert_eq!(fall.items[0].reason, Reason::PartitionDecreaseRefused);
    assert_eq!(fall.items[0].partitions, Some(5));
}

#[test]
fn too_few_copies_are_said_where_we_cannot_add_any_and_set_where_we_can() {
    let mut wanted = asked();
    let fewer = |state: &mut TopicState| state.replication_factor = 1;
    let kafka = with_first(&wanted, &Record::default(), fewer);
    assert_eq!((kafka.is_empty(), kafka.items[0].reason), (true, Reason::DriftDetected));
    wanted.provider = Provider::MskServerless;
    let serverless = with_first(&wanted, &Record::default(), fewer);
    assert_eq!(serverless.items[0].reason, Reason::TopicsInSync, "its copies are not ours to choose");
    assert!(serverless.is_empty());
    wanted.provider = Provider::Redpanda;
    let redpanda = with_first(&wanted, &Record::default(), |state| {
        state.replication_factor = 1;
        set(state, "replication.factor", "1", Source::Topic);
    });
    assert_eq!(redpanda.alter[0].1, [("replication.factor".to_owned(), Some("3".to_owned()))]);
}

#[test]
fn a_provider_is_asked_only_for_what_it_takes() {
    let mut wanted = asked();
    let absent: Found = wanted.topics.iter().map(|topic| (topic.name.clone(), Ok(None))).collect();
    let configs = |wanted: &Wanted| {
        let spec = plan(wanted, &absent, &Record::default()).create.remove(0);
        (spec.replication_factor, spec.configs.contains_key(layout::MIN_INSYNC_REPLICAS))
    };
    assert_eq!(configs(&wanted), (Some(3), true));
    wanted.provider = Provider::MskServerless;
    assert_eq!(configs(&wanted), (None, false));
    wanted.provider = Provider::Redpanda;
    assert_eq!(configs(&wanted), (Some(3), false));
    wanted.provider = Provider::Kafka;
    wanted.replication_factor = None;
    assert_eq!(configs(&wanted), (None, false), "brokers that choose the copies choose how many must be written");
}

#[test]
fn whose_a_topic_is_decides_by_id_name_and_permission() {
    let mut wanted = asked();
    let replaced = with_first(&wanted, &known("id-other", &[("flush.ms", "1")]), |_| {});
    assert_eq!(replaced.notices[0].reason, "TopicReplaced");
    assert_eq!(replaced.record.topics[FIRST].id.as_deref(), Some("id-0"));

    wanted = Wanted { replication_factor: Some(3), ..super::topics::wanted("chat", "shared.") };
    let name = wanted.topics[0].name.clone();
    let found = all_as_asked(&wanted);
    let foreign = plan(&wanted, &found, &Record::default());
    assert_eq!(foreign.items[0].reason, Reason::ResourceConflict);
    assert!(foreign.is_empty() && foreign.record.topics.is_empty());
    let mine = TopicRecord { id: Some("id-0".to_owned()), ..TopicRecord::default() };
    let record = |topic| Record { topics: BTreeMap::from([(name.clone(), topic)]), ..Record::default() };
    assert_eq!(plan(&wanted, &found, &record(mine)).items[0].reason, Reason::TopicsInSync);
    let pending = plan(&wanted, &found, &record(TopicRecord::default()));
    assert_eq!(pending.items[0].reason, Reason::TopicsInSync, "a crash between making it and seeing its id");
    let other = TopicRecord { id: Some("id-9".to_owned()), ..TopicRecord::default() };
    assert_eq!(plan(&wanted, &found, &record(other)).items[0].reason, Reason::ResourceConflict);
    wanted.adoption = Adoption::Unowned;
    let taken = plan(&wanted, &found, &Record::default());
    assert_eq!(taken.items[0].reason, Reason::TopicsInSync);
}

#[test]
fn an_external_topic_has_to_be_there_and_to_keep_what_is_written() {
    let mut wanted = asked();
    wanted.management = Management::External;
    let differs =
        with_first(&wanted, &Record::default(), |state| set(state, layout::RETENTION_MILLIS, "5", Source::Topic));
    assert_eq!((differs.items[0].reason, differs.changes.len()), (Reason::TopicsInSync, 1));
    let compacts =
        with_first(&wanted, &Record::default(), |state| set(state, layout::CLEANUP_POLICY, "compact", Source::Topic));
    assert_eq!(compacts.items[0].reason, Reason::DriftDetected);
    let unwritable = with_first(&wanted, &Record::default(), |state| state.replication_factor = 1);
    assert_eq!(unwritable.items[0].reason, Reason::DriftDetected);
    let few = with_first(&wanted, &Record::default(), |state| state.partitions = 1);
    assert_eq!(few.items[0].reason, Reason::DriftDetected);
    for plan in [differs, compacts, unwritable, few] {
        assert!(plan.is_empty() && plan.record.topics.is_empty(), "{plan:?}");
    }
}

#[test]
fn what_brokers_say_about_one_topic_is_its_reason() {
    let wanted = asked();
    let denied = || Error::AuthorizationFailed { why: "no".to_owned() };
    let cases = [
        (denied(), Reason::AuthorizationFailed),
        (Error::ReassignmentInProgress, Reason::ReassignmentInProgress),
        (Error::Failed { why: String::new() }, Reason::KafkaUnreachable),
    ];
    for (error, reason) in cases {
        let mut found = all_as_asked(&wanted);
        found.insert(FIRST.to_owned(), Err(error));
        let plan = plan(&wanted, &found, &Record::default());
        assert_eq!(plan.items[0].reason, reason);
        assert!(plan.items[1..].iter().all(|item| item.reason == Reason::TopicsInSync), "the others are well");
    }
}

/// Brokers in memory: they show values in lower case and settings that nobody asked for.
#[derive(Default)]
struct Fake {
    topics: Mutex<BTreeMap<String, TopicState>>,
    writes: AtomicU32,
    made: AtomicU32,
    /// They say yes to changes of settings and change nothing.
    is_deaf: bool,
}

#[async_trait]
impl Brokers for Fake {
    async fn describe(&self, names: &[String]) -> Result<Found, Error> {
        let topics = self.topics.lock().expect("not poisoned");
        Ok(names.iter().map(|name| (name.clone(), Ok(topics.get(name).cloned()))).collect())
    }

    async fn create(&self, specs: Vec<TopicSpec>, mode: Mode) -> Result<Outcomes, Error> {
        let mut topics = self.topics.lock().expect("not poisoned");
        let mut outcomes = Outcomes::new();
        for spec in specs {
            if topics.contains_key(&spec.name) {
                outcomes.insert(spec.name, Err(Error::AlreadyExists));
                continue;
            }
            outcomes.insert(spec.name.clone(), Ok(()));
            if mode == Mode::ValidateOnly {
                continue;
            }
            self.writes.fetch_add(1, Ordering::Relaxed);
            let mut state = TopicState {
                id: Some(format!("made-{}", self.made.fetch_add(1, Ordering::Relaxed))),
                partitions: spec.partitions,
                replication_factor: spec.replication_factor.unwrap_or(3),
                configs: BTreeMap::new(),
            };
            set(&mut state, "segment.bytes", "1073741824", Source::Default);
            for (key, value) in spec.configs {
                set(&mut state, &key, &value.to_lowercase(), Source::Topic);
            }
            topics.insert(spec.name, state);
        }
        Ok(outcomes)
    }

    async fn grow(&self, grown: Vec<(String, u32)>, _: Mode) -> Result<Outcomes, Error> {
        let mut topics = self.topics.lock().expect("not poisoned");
        let mut outcomes = Outcomes::new();
        for (name, partitions) in grown {
            self.writes.fetch_add(1, Ordering::Relaxed);
            topics.get_mut(&name).expect("there").partitions = partitions;
            outcomes.insert(name, Ok(()));
        }
        Ok(outcomes)
    }

    async fn alter(&self, topic: &str, changes: Alteration, mode: Mode) -> Result<(), Error> {
        if mode == Mode::ValidateOnly {
            return Ok(());
        }
        self.writes.fetch_add(1, Ordering::Relaxed);
        if self.is_deaf {
            return Ok(());
        }
        let mut topics = self.topics.lock().expect("not poisoned");
        let state = topics.get_mut(topic).ok_or(Error::NotFound)?;
        for (key, value) in changes {
            match value {
                Some(value) => set(state, &key, &value.to_lowercase(), Source::Topic),
                None => drop(state.configs.remove(&key)),
            }
        }
        Ok(())
    }

    async fn delete(&self, names: &[String]) -> Result<Outcomes, Error> {
        let mut topics = self.topics.lock().expect("not poisoned");
        Ok(names.iter().map(|name| (name.clone(), topics.remove(name).map(|_| ()).ok_or(Error::NotFound))).collect())
    }
}

async fn pass(
    fake: &Fake,
    ledger: &Memory,
    fence: &dyn Fence,
    convergence: &mut Convergence,
    wanted: &Wanted,
) -> Result<Report, Failure> {
    Pass { brokers: fake, ledger, fence, convergence }.run(wanted, Act::Apply).await
}

/// A cluster whose first topic has to be made, whose second has to grow and whose third has to be set.
fn fake_with_work(wanted: &Wanted) -> Fake {
    let fake = Fake::default();
    let mut topics = BTreeMap::new();
    for place in 1..4 {
        topics.insert(wanted.topics[place].name.clone(), as_asked(wanted, place));
    }
    topics.get_mut(&wanted.topics[1].name).expect("there").partitions = 1;
    set(topics.get_mut(&wanted.topics[2].name).expect("there"), layout::RETENTION_MILLIS, "1", Source::Topic);
    *fake.topics.lock().expect("not poisoned") = topics;
    fake
}

#[tokio::test(start_paused = true)]
async fn a_pass_that_stops_before_any_of_its_changes_is_taken_up_by_the_next() {
    let wanted = asked();
    let (whole, ledger) = (fake_with_work(&wanted), Memory::default());
    pass(&whole, &ledger, &Leads, &mut Convergence::default(), &wanted).await.expect("a report");
    let (end, end_record) = (whole.topics.into_inner().expect("not poisoned"), ledger.record());
    for stop_after in 0..8 {
        let (fake, ledger) = (fake_with_work(&wanted), Memory::default());
        let mut convergence = Convergence::default();
        let fence = Loses::after(stop_after);
        let stopped = pass(&fake, &ledger, &fence, &mut convergence, &wanted).await;
        if let Err(failure) = &stopped {
            assert!(matches!(failure, Failure::NotLeader(_)), "{failure}");
            assert!(fake.writes.load(Ordering::Relaxed) <= stop_after, "a change without asking the fence");
        }
        let report = pass(&fake, &ledger, &Leads, &mut Convergence::default(), &wanted).await.expect("a report");
        assert_eq!(report.reason, Reason::TopicsInSync, "stopped after {stop_after}: {report:?}");
        assert_eq!(fake.made.load(Ordering::Relaxed), 1, "nothing is made twice");
        assert_eq!(*fake.topics.lock().expect("not poisoned"), end, "stopped after {stop_after}");
        assert_eq!(ledger.record(), end_record, "stopped after {stop_after}");
        let (writes, stores) = (fake.writes.load(Ordering::Relaxed), ledger.stores());
        pass(&fake, &ledger, &Leads, &mut convergence, &wanted).await.expect("a report");
        assert_eq!((fake.writes.load(Ordering::Relaxed), ledger.stores()), (writes, stores), "it stays as it is");
    }
}

#[tokio::test(start_paused = true)]
async fn what_comes_to_nothing_three_times_is_given_up_until_something_else_is_asked_for() {
    let wanted = asked();
    let fake = Fake { is_deaf: true, ..fake_with_work(&wanted) };
    let (ledger, mut convergence) = (Memory::default(), Convergence::default());
    for _ in 0..3 {
        let report = pass(&fake, &ledger, &Leads, &mut convergence, &wanted).await.expect("a report");
        assert_eq!(report.reason, Reason::DriftDetected, "{report:?}");
    }
    let writes = fake.writes.load(Ordering::Relaxed);
    let given_up = pass(&fake, &ledger, &Leads, &mut convergence, &wanted).await.expect("a report");
    assert_eq!((given_up.reason, given_up.synced()), (Reason::NonConvergent, 3), "{given_up:?}");
    assert_eq!(fake.writes.load(Ordering::Relaxed), writes, "it is not tried again");
    let mut other = wanted.clone();
    other.topics[2].retention = Duration::from_mins(1);
    let tried = pass(&fake, &ledger, &Leads, &mut convergence, &other).await.expect("a report");
    assert!(tried.writes > 0, "another change is worth a try");
}

#[tokio::test(start_paused = true)]
async fn without_time_nothing_is_begun_and_the_next_pass_comes_soon() {
    let wanted = Wanted { budget: Duration::ZERO, ..asked() };
    let (fake, ledger) = (fake_with_work(&wanted), Memory::default());
    let mut convergence = Convergence::default();
    for _ in 0..5 {
        let report = pass(&fake, &ledger, &Leads, &mut convergence, &wanted).await.expect("a report");
        assert_eq!((report.reason, fake.writes.load(Ordering::Relaxed)), (Reason::DriftDetected, 0));
        assert!(report.next < Duration::from_secs(10));
    }
    assert_eq!(convergence, Convergence::default(), "what was not tried was not tried in vain");
}

#[tokio::test(start_paused = true)]
async fn a_default_of_partitions_is_no_limit() {
    let mut wanted = asked();
    wanted.topics[1].partitions = Partitions::AtLeast(1);
    let (fake, ledger) = (Fake::default(), Memory::default());
    let mut convergence = Convergence::default();
    pass(&fake, &ledger, &Leads, &mut convergence, &wanted).await.expect("a report");
    fake.topics.lock().expect("not poisoned").get_mut(&wanted.topics[1].name).expect("there").partitions = 9;
    let report = pass(&fake, &ledger, &Leads, &mut convergence, &wanted).await.expect("a report");
    assert_eq!((report.reason, report.items[1].partitions), (Reason::TopicsInSync, Some(9)));
}
