//! The topics of a cluster on Apache Kafka.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use adapters::kafka::{
    admin::{Admin, Connection, Mode, Security, Source, TopicSpec, TopicState},
    layout,
};
use operator::{
    engine::{Act, Adoption, Convergence, Deletion, Gone, Management, Owner, Reason, Report},
    topics::{Partitions, Pass, Provider, Wanted},
};

use crate::{
    ground,
    ledger::{Leads, Memory},
};

const WITHIN: Duration = Duration::from_secs(20);

pub(crate) fn owner(name: &str) -> Owner {
    Owner { namespace: "ns".to_owned(), name: name.to_owned(), uid: format!("uid-of-{name}") }
}

/// What a cluster of this name asks for, as by default but with few partitions.
pub(crate) fn wanted(name: &str, prefix: &str) -> Wanted {
    let mut topics = Wanted::all_topics(prefix);
    for topic in &mut topics {
        topic.partitions = Partitions::Exactly(2);
    }
    Wanted {
        owner: owner(name),
        provider: Provider::Kafka,
        management: Management::Managed,
        deletion: Deletion::Delete,
        adoption: Adoption::Never,
        replication_factor: None,
        topics,
        budget: WITHIN,
    }
}

struct World {
    admin: Admin,
    ledger: Memory,
    convergence: Convergence,
    name: String,
}

impl World {
    fn start() -> Self {
        let brokers = ground::kafka().plain.clone();
        let connection = Connection { brokers, security: Security::default(), within: WITHIN };
        let admin = Admin::new(&connection).expect("an admin");
        Self { admin, ledger: Memory::default(), convergence: Convergence::default(), name: ground::apart() }
    }

    /// The prefix that a cluster has by default.
    fn prefix(&self) -> String {
        format!("ns.{}.", self.name)
    }

    async fn run(&mut self, wanted: &Wanted, act: Act) -> Report {
        let pass =
            Pass { brokers: &self.admin, ledger: &self.ledger, fence: &Leads, convergence: &mut self.convergence };
        pass.run(wanted, act).await.expect("a report")
    }

    async fn delete(&mut self, wanted: &Wanted) -> Gone {
        let pass =
            Pass { brokers: &self.admin, ledger: &self.ledger, fence: &Leads, convergence: &mut self.convergence };
        pass.delete(wanted).await.expect("an answer")
    }

    async fn state(&self, name: &str) -> Option<TopicState> {
        self.admin.describe(&[name.to_owned()]).await.expect("described").remove(name)?.expect("no error")
    }

    async fn until(&self, name: &str, what: impl Fn(&Option<TopicState>) -> bool) {
        let deadline = Instant::now() + WITHIN;
        loop {
            let state = self.state(name).await;
            if what(&state) {
                return;
            }
            assert!(Instant::now() < deadline, "{name} stays {state:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn make_by_hand(&self, name: &str) {
        let spec =
            TopicSpec { name: name.to_owned(), partitions: 2, replication_factor: None, configs: BTreeMap::new() };
        let made = self.admin.create(vec![spec], Mode::Do).await.expect("asked");
        assert!(made.values().all(Result::is_ok), "{made:?}");
        self.until(name, Option::is_some).await;
    }

    async fn delete_by_hand(&self, name: &str) {
        let gone = self.admin.delete(&[name.to_owned()]).await.expect("asked");
        assert!(gone.values().all(Result::is_ok), "{gone:?}");
        self.until(name, Option::is_none).await;
    }

    async fn set_by_hand(&self, name: &str, key: &str, value: &str) {
        let change = vec![(key.to_owned(), Some(value.to_owned()))];
        self.admin.alter(name, change, Mode::Do).await.expect("set");
        let is_set = |state: &Option<TopicState>| {
            state.as_ref().is_some_and(|state| state.configs[key].value.as_deref() == Some(value))
        };
        self.until(name, is_set).await;
    }
}

fn reasons(report: &Report) -> Vec<Reason> {
    report.items.iter().map(|item| item.reason).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_made_once_and_then_there_is_nothing_to_do() {
    let mut world = World::start();
    let mut wanted = wanted(&world.name, &world.prefix());
    wanted.topics = Wanted::all_topics(&world.prefix());
    let planned = world.run(&wanted, Act::Plan).await;
    assert_eq!((planned.changes.len(), planned.writes, world.ledger.stores()), (4, 0, 0));

    let begun = Instant::now();
    let made = world.run(&wanted, Act::Apply).await;
    let took = begun.elapsed();
    assert_eq!(made.reason, Reason::TopicsInSync, "{made:?}");
    assert_eq!((made.synced(), made.writes, made.changes.len()), (4, 1, 4));
    let partitions: Vec<_> = made.items.iter().filter_map(|item| item.partitions).collect();
    assert_eq!(partitions, [64, 16, 16, 8]);
    assert!(made.items.iter().all(|item| item.id.is_some()));

    let stores = world.ledger.stores();
    let begun = Instant::now();
    let steady = world.run(&wanted, Act::Apply).await;
    eprintln!(
        "4 topics, 104 partitions made in {took:?} by {} requests; in sync {:?}, {} requests",
        made.reads + made.writes,
        begun.elapsed(),
        steady.reads
    );
    assert_eq!((steady.writes, steady.reads, world.ledger.stores()), (0, 2, stores));
    assert_eq!((steady.reason, steady.changes.len(), steady.notices.len()), (Reason::TopicsInSync, 0, 0));
    assert!(steady.next >= Duration::from_mins(1));
    assert!(matches!(world.delete(&wanted).await, Gone::Done(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn our_settings_are_set_those_no_longer_ours_taken_back_and_others_left_alone() {
    let mut world = World::start();
    let mut wanted = wanted(&world.name, &world.prefix());
    wanted.replication_factor = Some(1);
    let report = world.run(&wanted, Act::Apply).await;
    assert_eq!(report.reason, Reason::TopicsInSync, "{report:?}");
    let name = wanted.topics[0].name.clone();
    let throttle = "leader.replication.throttled.replicas";
    world.set_by_hand(&name, throttle, "*").await;
    world.set_by_hand(&name, "cleanup.policy", "compact").await;

    wanted.topics[0].retention = Duration::from_hours(1);
    wanted.replication_factor = None;
    let report = world.run(&wanted, Act::Apply).await;
    assert_eq!(report.reason, Reason::TopicsInSync, "{report:?}");
    let fields: Vec<_> = report.changes.iter().filter(|change| change.object.ends_with(&name)).collect();
    let fields: Vec<_> = fields.iter().filter_map(|change| change.field.as_deref()).collect();
    assert_eq!(fields, [layout::CLEANUP_POLICY, layout::RETENTION_MILLIS, layout::MIN_INSYNC_REPLICAS]);
    let configs = world.state(&name).await.expect("there").configs;
    assert_eq!(configs[layout::CLEANUP_POLICY].value.as_deref(), Some("delete"));
    assert_eq!(configs[layout::RETENTION_MILLIS].value.as_deref(), Some("3600000"));
    assert_ne!(configs[layout::MIN_INSYNC_REPLICAS].source, Source::Topic, "we set it once and want it no more");
    assert_eq!(configs[throttle].value.as_deref(), Some("*"), "somebody else's");
    assert!(matches!(world.delete(&wanted).await, Gone::Done(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_grow_and_never_fall() {
    let mut world = World::start();
    let mut wanted = wanted(&world.name, &world.prefix());
    world.run(&wanted, Act::Apply).await;
    wanted.topics[0].partitions = Partitions::Exactly(6);
    let grown = world.run(&wanted, Act::Apply).await;
    assert_eq!((grown.reason, grown.items[0].partitions), (Reason::TopicsInSync, Some(6)), "{grown:?}");
    assert_eq!(grown.changes.iter().filter(|change| change.disruptive).count(), 1);

    wanted.topics[0].partitions = Partitions::Exactly(3);
    let refused = world.run(&wanted, Act::Apply).await;
    assert_eq!((refused.reason, refused.writes), (Reason::PartitionDecreaseRefused, 0));
    assert!(refused.message.contains("ask for 6"), "{}", refused.message);
    assert_eq!(refused.synced(), 3, "the others are as asked for");
    wanted.topics[0].partitions = Partitions::AtLeast(3);
    assert_eq!(world.run(&wanted, Act::Apply).await.reason, Reason::TopicsInSync);
    assert!(matches!(world.delete(&wanted).await, Gone::Done(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_somebody_deleted_or_made_anew_is_noticed() {
    let mut world = World::start();
    let wanted = wanted(&world.name, &world.prefix());
    let first = world.run(&wanted, Act::Apply).await;
    let name = wanted.topics[0].name.clone();
    world.delete_by_hand(&name).await;
    let again = world.run(&wanted, Act::Apply).await;
    assert_eq!(again.reason, Reason::TopicsInSync, "{again:?}");
    assert_eq!(again.notices.iter().map(|notice| notice.reason).collect::<Vec<_>>(), ["TopicVanished"]);
    assert_ne!(again.items[0].id, first.items[0].id);

    world.delete_by_hand(&name).await;
    world.make_by_hand(&name).await;
    let replaced = world.run(&wanted, Act::Apply).await;
    assert_eq!(replaced.notices.iter().map(|notice| notice.reason).collect::<Vec<_>>(), ["TopicReplaced"]);
    assert_eq!(replaced.reason, Reason::TopicsInSync, "{replaced:?}");
    let steady = world.run(&wanted, Act::Apply).await;
    assert_eq!((steady.notices.len(), steady.writes), (0, 0), "it is said once");
    assert!(matches!(world.delete(&wanted).await, Gone::Done(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_of_others_is_taken_only_by_permission_and_never_deleted_unasked() {
    let mut world = World::start();
    let mut wanted = wanted(&world.name, &format!("{}-shared.", world.name));
    wanted.deletion = Deletion::Retain;
    let name = wanted.topics[0].name.clone();
    world.make_by_hand(&name).await;
    let refused = world.run(&wanted, Act::Apply).await;
    assert_eq!(refused.reason, Reason::ResourceConflict, "{refused:?}");
    assert!(refused.message.contains("adoptionPolicy"), "{}", refused.message);
    assert_eq!(refused.synced(), 3);
    let configs = world.state(&name).await.expect("there").configs;
    assert_ne!(configs[layout::RETENTION_BYTES].source, Source::Topic, "it was not touched");

    wanted.deletion = Deletion::Delete;
    let Gone::Done(notices) = world.delete(&wanted).await else { panic!("not done") };
    assert_eq!(notices.len(), 1, "{notices:?}");
    for topic in &wanted.topics[1..] {
        world.until(&topic.name, Option::is_none).await;
    }
    assert!(world.state(&name).await.is_some(), "somebody else's");

    wanted.adoption = Adoption::Unowned;
    let taken = world.run(&wanted, Act::Apply).await;
    assert_eq!(taken.reason, Reason::TopicsInSync, "{taken:?}");
    assert!(matches!(world.delete(&wanted).await, Gone::Done(_)));
    world.until(&name, Option::is_none).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_was_made_anew_finds_the_topics_it_retained() {
    let mut world = World::start();
    let mut wanted = wanted(&world.name, &world.prefix());
    wanted.deletion = Deletion::Retain;
    let first = world.run(&wanted, Act::Apply).await;
    assert!(matches!(world.delete(&wanted).await, Gone::Done(_)));
    // Not even the ledger is left.
    world.ledger = Memory::default();
    wanted.owner.uid = "another".to_owned();
    let second = world.run(&wanted, Act::Apply).await;
    assert_eq!((second.reason, second.writes), (Reason::TopicsInSync, 0), "{second:?}");
    let ids = |report: &Report| report.items.iter().map(|item| item.id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&first), ids(&second));
    wanted.deletion = Deletion::Delete;
    assert!(matches!(world.delete(&wanted).await, Gone::Done(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_says_what_brokers_would_refuse_and_the_refusal_is_a_reason() {
    let mut world = World::start();
    let mut wanted = wanted(&world.name, &world.prefix());
    wanted.replication_factor = Some(3);
    let planned = world.run(&wanted, Act::Plan).await;
    assert_eq!((planned.reason, planned.writes), (Reason::ConfigRejected, 0), "{planned:?}");
    let refused = world.run(&wanted, Act::Apply).await;
    assert_eq!(reasons(&refused), [Reason::ConfigRejected; 4], "{refused:?}");
    assert!(world.state(&wanted.topics[0].name).await.is_none());
    wanted.replication_factor = Some(1);
    let healed = world.run(&wanted, Act::Apply).await;
    assert_eq!(healed.reason, Reason::TopicsInSync, "{healed:?}");
    assert!(matches!(world.delete(&wanted).await, Gone::Done(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn external_topics_are_looked_at_and_nothing_more() {
    let mut world = World::start();
    let mut wanted = wanted(&world.name, &world.prefix());
    wanted.management = Management::External;
    let absent = world.run(&wanted, Act::Apply).await;
    assert_eq!((reasons(&absent), absent.writes), (vec![Reason::DriftDetected; 4], 0));
    for topic in &wanted.topics {
        world.make_by_hand(&topic.name).await;
    }
    let there = world.run(&wanted, Act::Apply).await;
    assert_eq!((there.reason, there.writes, world.ledger.stores()), (Reason::TopicsInSync, 0, 0), "{there:?}");
    assert!(!there.changes.is_empty(), "what differs is said");
    assert!(matches!(world.delete(&wanted).await, Gone::Done(_)));
    for topic in &wanted.topics {
        world.delete_by_hand(&topic.name).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn absent_brokers_are_a_reason_for_each_topic_and_block_a_deletion() {
    let mut world = World::start();
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
    let brokers = free.local_addr().expect("an address").to_string();
    drop(free);
    let connection = Connection { brokers, security: Security::default(), within: Duration::from_secs(1) };
    world.admin = Admin::new(&connection).expect("an admin");
    let wanted = wanted(&world.name, &world.prefix());
    let report = world.run(&wanted, Act::Apply).await;
    assert_eq!(reasons(&report), [Reason::KafkaUnreachable; 4], "{report:?}");
    assert!(matches!(world.delete(&wanted).await, Gone::Blocked(Reason::KafkaUnreachable, _)));
}
