//! The tables of a cluster on DynamoDB Local, and on a store with tags.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use adapters::dynamodb::{
    admin::{Admin, Billing, Connection, Error, Status, Switch, TableSpec, Ttl},
    layout::Table,
};
use operator::{
    engine::{Act, Adoption, Convergence, Deletion, Gone, Management, Reason, Report},
    tables::{
        Pass, Wanted,
        plan::{TAG_CLUSTER, TAG_UID, tags},
    },
};
use platform::{Process, Secret};
use tokio::sync::{Mutex, MutexGuard};

use crate::{
    ground,
    ledger::{Leads, Memory},
    topics::owner,
};

const WITHIN: Duration = Duration::from_secs(20);

/// What a cluster of this name asks for, as by default.
pub(crate) fn wanted(name: &str, prefix: &str) -> Wanted {
    Wanted {
        owner: owner(name),
        management: Management::Managed,
        deletion: Deletion::Delete,
        adoption: Adoption::Never,
        billing: Billing::OnDemand,
        point_in_time_recovery: None,
        deletion_protection: None,
        tables: Wanted::all_tables(prefix),
        budget: WITHIN,
    }
}

/// DynamoDB Local loses its way when indexes are made while other tables are changed: one test of it at a time.
static ALONE: Mutex<()> = Mutex::const_new(());

struct World {
    _alone: MutexGuard<'static, ()>,
    admin: Admin,
    ledger: Memory,
    convergence: Convergence,
    name: String,
}

impl World {
    async fn at(endpoint: &str) -> Self {
        let connection = Connection {
            region: "eu-west-1".to_owned(),
            endpoint: Some(endpoint.to_owned()),
            credentials: Some(("test".to_owned(), Secret::new("test"))),
            within: Duration::from_secs(10),
        };
        let (ledger, convergence) = (Memory::default(), Convergence::default());
        let admin = Admin::new(&connection).await;
        Self { _alone: ALONE.lock().await, admin, ledger, convergence, name: ground::apart() }
    }

    /// On DynamoDB Local, which has neither tags nor backups.
    async fn start() -> Self {
        Self::at(ground::dynamodb()).await
    }

    fn prefix(&self) -> String {
        format!("ns-{}-", self.name)
    }

    fn pass(&mut self) -> Pass<'_> {
        Pass { tables: &self.admin, ledger: &self.ledger, fence: &Leads, convergence: &mut self.convergence }
    }

    async fn run(&mut self, wanted: &Wanted, act: Act) -> Report {
        Box::pin(self.pass().run(wanted, act)).await.expect("a report")
    }

    /// The first pass that says this, with the changes of all before it. DynamoDB Local fails now and then when several tables are changed at once.
    async fn until(&mut self, wanted: &Wanted, reason: Reason) -> Report {
        let deadline = Instant::now() + WITHIN;
        let mut changes = Vec::new();
        loop {
            let mut report = self.run(wanted, Act::Apply).await;
            changes.append(&mut report.changes);
            if report.reason == reason {
                return Report { changes, ..report };
            }
            assert!(Instant::now() < deadline, "{report:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn delete(&mut self, wanted: &Wanted) -> Gone {
        Box::pin(self.pass().delete(wanted)).await.expect("an answer")
    }

    async fn make_by_hand(&self, name: &str, table: Table) {
        let spec = TableSpec {
            name: name.to_owned(),
            definition: table.definition(),
            billing: Billing::OnDemand,
            deletion_protection: Switch::Off,
            tags: BTreeMap::new(),
        };
        self.admin.create(&spec).await.expect("made");
        let deadline = Instant::now() + WITHIN;
        while self.admin.status(name).await.expect("asked") != Some(Status::Active) {
            assert!(Instant::now() < deadline, "{name} is not active");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn place(wanted: &Wanted, table: Table) -> usize {
    wanted.tables.iter().position(|wanted| wanted.definition == table.definition()).expect("wanted")
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_are_made_once_and_then_there_is_nothing_to_do() {
    let mut world = World::start().await;
    let wanted = wanted(&world.name, &world.prefix());
    let planned = world.run(&wanted, Act::Plan).await;
    assert_eq!((planned.changes.len(), planned.writes, world.ledger.stores()), (13, 0, 0));
    assert_eq!(planned.reason, Reason::DriftDetected);

    let begun = Instant::now();
    let made = world.run(&wanted, Act::Apply).await;
    let took = begun.elapsed();
    assert_eq!((made.reason, made.synced(), made.changes.len()), (Reason::TablesInSync, 13, 13), "{made:?}");
    assert!(made.items.iter().all(|item| item.id.is_some() && item.status.as_deref() == Some("ACTIVE")));
    for table in &wanted.tables {
        let state = world.admin.describe(&table.name).await.expect("described").expect("there");
        let ttl = table.definition.ttl.map_or(Ttl::Off, |attribute| Ttl::On(attribute.to_owned()));
        assert_eq!(state.ttl, ttl, "{}", table.name);
    }

    let stores = world.ledger.stores();
    let begun = Instant::now();
    let steady = world.run(&wanted, Act::Apply).await;
    let (all, idle) = (made.reads + made.writes, steady.reads);
    eprintln!("13 tables made in {took:?} by {all} requests; in sync {:?}, {idle} requests", begun.elapsed());
    assert_eq!((steady.writes, steady.reads, world.ledger.stores()), (0, 52, stores));
    assert_eq!((steady.reason, steady.changes.len(), steady.notices.len()), (Reason::TablesInSync, 0, 0));
    assert!(matches!(world.delete(&wanted).await, Gone::Done(_)));
    for table in &wanted.tables {
        assert_eq!(world.admin.status(&table.name).await, Ok(None));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_changed_is_corrected() {
    let mut world = World::start().await;
    let mut wanted = wanted(&world.name, &world.prefix());
    wanted.deletion_protection = Some(Switch::Off);
    world.until(&wanted, Reason::TablesInSync).await;
    let sessions = wanted.tables[place(&wanted, Table::Sessions)].name.clone();
    let messages = wanted.tables[place(&wanted, Table::Messages)].name.clone();
    let deadline = Instant::now() + WITHIN;
    while let Err(error) = world.admin.delete_index(&sessions, "user_sessions-index").await {
        assert!(matches!(error, Error::Failed { .. }) && Instant::now() < deadline, "{error}");
    }
    world.admin.set_deletion_protection(&sessions, Switch::On).await.expect("set");
    world.admin.set_ttl(&messages, "sequence", Switch::On).await.expect("set");
    let users = wanted.tables[place(&wanted, Table::Users)].name.clone();
    world.admin.delete(&users).await.expect("deleted");

    let corrected = world.until(&wanted, Reason::TablesInSync).await;
    let fields: Vec<_> = corrected.changes.iter().map(|change| change.field.as_deref().unwrap_or("whole")).collect();
    for field in ["deletionProtection", "indexes.user_sessions-index", "ttl", "whole"] {
        assert!(fields.contains(&field), "{fields:?}");
    }
    let state = world.admin.describe(&sessions).await.expect("described").expect("there");
    assert_eq!((state.indexes.len(), state.deletion_protection), (1, Switch::Off));
    let state = world.admin.describe(&messages).await.expect("described").expect("there");
    assert_eq!(state.ttl, Ttl::Off, "messages stay");
    assert!(matches!(world.delete(&wanted).await, Gone::Done(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn billing_is_changed_for_a_table_and_its_indexes() {
    let mut world = World::start().await;
    let mut wanted = wanted(&world.name, &world.prefix());
    world.until(&wanted, Reason::TablesInSync).await;
    for billing in
        [Billing::Provisioned { read: 5, write: 6 }, Billing::Provisioned { read: 7, write: 6 }, Billing::OnDemand]
    {
        wanted.billing = billing;
        let changed = world.run(&wanted, Act::Apply).await;
        assert_eq!(changed.changes.len(), 13, "{changed:?}");
        world.until(&wanted, Reason::TablesInSync).await;
        let name = &wanted.tables[place(&wanted, Table::Users)].name;
        let state = world.admin.describe(name).await.expect("described").expect("there");
        assert!(state.billing == billing && state.indexes.values().all(|index| index.billing == billing), "{state:?}");
    }
    assert!(matches!(world.delete(&wanted).await, Gone::Done(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_are_not_ours_are_said_and_left_alone() {
    let mut world = World::start().await;
    let mut wanted = wanted(&world.name, &world.prefix());
    let name = wanted.tables[place(&wanted, Table::Users)].name.clone();
    world.make_by_hand(&name, Table::Messages).await;
    let report = world.run(&wanted, Act::Apply).await;
    assert_eq!((report.reason, report.synced()), (Reason::ImmutableFieldChanged, 12), "{report:?}");
    assert!(report.message.contains("chat_id (text), sequence (number)"), "{}", report.message);
    let steady = world.run(&wanted, Act::Apply).await;
    assert_eq!(steady.writes, 0);
    wanted.deletion = Deletion::Delete;
    assert!(matches!(world.delete(&wanted).await, Gone::Done(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_others_is_taken_only_by_permission_and_never_deleted_unasked() {
    let mut world = World::start().await;
    let mut wanted = wanted(&world.name, &format!("{}-shared-", world.name));
    let name = wanted.tables[place(&wanted, Table::Chats)].name.clone();
    world.make_by_hand(&name, Table::Chats).await;
    let refused = world.run(&wanted, Act::Apply).await;
    assert_eq!((refused.reason, refused.synced()), (Reason::NotOwned, 12), "{refused:?}");
    assert!(refused.message.contains("adoptionPolicy"), "{}", refused.message);
    let again = world.run(&wanted, Act::Apply).await;
    assert_eq!((again.synced(), again.writes), (12, 0), "what it made is its own, without tags");
    wanted.adoption = Adoption::Unowned;
    assert_eq!(world.run(&wanted, Act::Apply).await.reason, Reason::TablesInSync);
    let Gone::Done(notices) = world.delete(&wanted).await else { panic!("not done") };
    assert_eq!(notices.len(), 1, "{notices:?}");
    assert_eq!(world.admin.status(&name).await, Ok(Some(Status::Active)), "somebody else's");
    world.admin.delete(&name).await.expect("deleted");
}

#[tokio::test(flavor = "multi_thread")]
async fn protected_tables_and_retained_tables_are_not_deleted() {
    let mut world = World::start().await;
    let mut wanted = wanted(&world.name, &world.prefix());
    wanted.deletion_protection = Some(Switch::On);
    assert_eq!(world.run(&wanted, Act::Apply).await.reason, Reason::TablesInSync);
    let Gone::Protected(message) = world.delete(&wanted).await else { panic!("not protected") };
    assert!(message.contains("deletionProtection: false"), "{message}");
    wanted.deletion = Deletion::Retain;
    assert!(matches!(world.delete(&wanted).await, Gone::Done(_)));
    assert_eq!(world.admin.status(&wanted.tables[0].name).await, Ok(Some(Status::Active)));

    wanted.deletion_protection = Some(Switch::Off);
    assert_eq!(world.run(&wanted, Act::Apply).await.reason, Reason::TablesInSync);
    wanted.deletion = Deletion::Delete;
    assert!(matches!(world.delete(&wanted).await, Gone::Done(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_store_cannot_do_is_said_and_holds_nobody_up() {
    let mut world = World::start().await;
    let mut wanted = wanted(&world.name, &world.prefix());
    wanted.point_in_time_recovery = Some(Switch::On);
    let report = world.run(&wanted, Act::Apply).await;
    assert_eq!(report.reason, Reason::TablesInSync, "{report:?}");
    assert!(report.items[0].message.contains("no point-in-time recovery"), "{report:?}");
    assert!(matches!(world.delete(&wanted).await, Gone::Done(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn external_tables_are_looked_at_and_nothing_more() {
    let mut world = World::start().await;
    let mut wanted = wanted(&world.name, &world.prefix());
    wanted.management = Management::External;
    let absent = world.run(&wanted, Act::Apply).await;
    assert_eq!((absent.reason, absent.writes, world.ledger.stores()), (Reason::DriftDetected, 0, 0));
    for table in Table::ALL {
        world.make_by_hand(&format!("{}{}", world.prefix(), table.name()), table).await;
    }
    let there = world.run(&wanted, Act::Apply).await;
    let without_ttl = Table::ALL.iter().filter(|table| table.definition().ttl.is_some()).count();
    assert_eq!((there.synced(), there.writes), (13 - without_ttl, 0), "{there:?}");
    assert!(there.message.contains("ttl"), "{}", there.message);
    assert!(matches!(world.delete(&wanted).await, Gone::Done(_)));
    assert_eq!(world.admin.status(&wanted.tables[0].name).await, Ok(Some(Status::Active)));
    wanted.management = Management::Managed;
    assert!(matches!(world.delete(&wanted).await, Gone::Done(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_say_whose_a_table_is_and_a_cluster_made_anew_finds_its_own() {
    let process = Process::new();
    let store = embedded::Store::start(None, &process).await.expect("a store");
    let mut world = World::at(&store.endpoint).await;
    let mut mine = wanted("chat", "tagged-");
    mine.deletion = Deletion::Retain;
    assert_eq!(world.run(&mine, Act::Apply).await.reason, Reason::TablesInSync);
    let name = mine.tables[0].name.clone();
    let state = world.admin.describe(&name).await.expect("described").expect("there");
    assert_eq!(state.tags, Some(tags(&mine.owner)));

    // Another cluster with the same prefix gets nothing, whatever it is allowed to take over.
    let theirs = Wanted { owner: owner("other"), adoption: Adoption::Unowned, ..mine.clone() };
    world.ledger = Memory::default();
    let refused = world.run(&theirs, Act::Apply).await;
    assert_eq!((refused.reason, refused.synced(), refused.writes), (Reason::NotOwned, 0, 0), "{refused:?}");
    assert!(refused.message.contains("ns/chat"), "{}", refused.message);
    let Gone::Done(left) = world.delete(&Wanted { deletion: Deletion::Delete, ..theirs }).await else {
        panic!("not done")
    };
    assert_eq!(left.len(), 13);

    // The same cluster in another life: its ledger and its uid are gone.
    mine.owner.uid = "another".to_owned();
    let found = world.run(&mine, Act::Apply).await;
    assert_eq!((found.reason, found.writes), (Reason::TablesInSync, 13), "{found:?}");
    let tags = world.admin.describe(&name).await.expect("described").expect("there").tags.expect("tags");
    assert_eq!((tags[TAG_CLUSTER].as_str(), tags[TAG_UID].as_str()), ("chat", "another"));
    assert_eq!(world.run(&mine, Act::Apply).await.writes, 0);
    mine.deletion = Deletion::Delete;
    assert!(matches!(world.delete(&mine).await, Gone::Done(_)));
    assert_eq!(world.admin.status(&name).await, Ok(None));
    process.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absent_store_is_a_reason_for_each_table_and_blocks_a_deletion() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
    let endpoint = format!("http://{}", free.local_addr().expect("an address"));
    drop(free);
    let mut world = World::at(&endpoint).await;
    let wanted = wanted(&world.name, &world.prefix());
    let report = world.run(&wanted, Act::Apply).await;
    assert_eq!((report.reason, report.synced(), report.writes), (Reason::DynamoDbUnreachable, 0, 0), "{report:?}");
    assert!(matches!(world.delete(&wanted).await, Gone::Blocked(Reason::DynamoDbUnreachable, _)));
}
