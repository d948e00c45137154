//! Plans of tables, and passes over a store that takes its time.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use adapters::dynamodb::{
    admin::{Billing, Error, IndexState, Status, Switch, TableState, Ttl},
    layout::{Index, Table},
};
use async_trait::async_trait;
use operator::{
    engine::{Act, Adoption, Convergence, Fence, Management, Reason, Report, TableRecord},
    tables::{
        Failure, Pass, Tables, Wanted, WantedTable,
        plan::{Plan, Step, TAG_CLUSTER, TAG_UID, plan, tags},
    },
};

use crate::{
    ledger::{Leads, Loses, Memory},
    tables::wanted,
};

fn asked() -> Wanted {
    Wanted { budget: Duration::from_secs(5), ..wanted("chat", "ns-chat-") }
}

fn table(wanted: &Wanted, table: Table) -> &WantedTable {
    wanted.tables.iter().find(|wanted| wanted.definition == table.definition()).expect("wanted")
}

fn index(index: &Index, billing: Billing, status: Status) -> IndexState {
    IndexState { keys: IndexState::keys_of(index), projection: Some(index.projection), status, billing }
}

/// A table as the store has it that was made as asked for.
fn as_asked(wanted: &Wanted, table: &WantedTable) -> TableState {
    let definition = &table.definition;
    let of = |found: &Index| (found.name.to_owned(), index(found, wanted.billing, Status::Active));
    TableState {
        arn: Some(format!("arn:{}", table.name)),
        status: Status::Active,
        keys: TableState::keys_of(definition),
        local_indexes: Vec::new(),
        indexes: definition.indexes.iter().map(of).collect(),
        billing: wanted.billing,
        deletion_protection: Switch::Off,
        ttl: definition.ttl.map_or(Ttl::Off, |attribute| Ttl::On(attribute.to_owned())),
        point_in_time_recovery: Some(Switch::Off),
        tags: Some(tags(&wanted.owner)),
    }
}

/// The plan for a table that differs from what is asked for as this changes it.
fn with(wanted: &Wanted, which: Table, change: impl FnOnce(&mut TableState)) -> Plan {
    let table = table(wanted, which);
    let mut state = as_asked(wanted, table);
    change(&mut state);
    plan(wanted, table, Some(&state), None)
}

#[test]
fn tables_as_asked_for_need_nothing() {
    let wanted = asked();
    for table in &wanted.tables {
        let plan = plan(&wanted, table, Some(&as_asked(&wanted, table)), None);
        assert_eq!((plan.item.reason, plan.steps.len(), plan.changes.len()), (Reason::TablesInSync, 0, 0), "{plan:?}");
    }
}

#[test]
fn what_is_left_open_is_left_alone() {
    let plan = with(&asked(), Table::Sessions, |state| {
        state.deletion_protection = Switch::On;
        state.point_in_time_recovery = Some(Switch::On);
        let other = Index { name: "theirs", ..Table::Users.definition().indexes[0] };
        state.indexes.insert("theirs".to_owned(), index(&other, Billing::OnDemand, Status::Active));
        state.tags.as_mut().expect("tags").insert("team".to_owned(), "chat".to_owned());
        state.ttl = Ttl::TurningOn("ttl".to_owned());
    });
    assert_eq!((plan.item.reason, plan.steps.len()), (Reason::TablesInSync, 0), "{plan:?}");
}

#[test]
fn nothing_is_in_sync_before_the_store_has_finished() {
    type Changed = fn(&mut TableState);
    let cases: [(Changed, Reason); 6] = [
        (|state| state.status = Status::Creating, Reason::TableCreating),
        (|state| state.status = Status::Updating, Reason::TableUpdating),
        (|state| state.status = Status::Deleting, Reason::TableUpdating),
        (|state| state.status = Status::Other("ARCHIVED".to_owned()), Reason::DriftDetected),
        (
            |state| state.indexes.values_mut().for_each(|index| index.status = Status::Creating),
            Reason::IndexBackfilling,
        ),
        (|state| state.ttl = Ttl::TurningOff, Reason::CoolingDown),
    ];
    for (change, reason) in cases {
        let plan = with(&asked(), Table::Sessions, change);
        assert_eq!((plan.item.reason, plan.steps.len()), (reason, 0), "{plan:?}");
        assert!(!plan.item.message.is_empty());
    }
}

#[test]
fn every_difference_is_said_and_those_that_can_be_mended_now_are_steps_in_order() {
    let mut wanted = asked();
    wanted.point_in_time_recovery = Some(Switch::On);
    wanted.deletion_protection = Some(Switch::On);
    let all_wrong = |state: &mut TableState| {
        state.tags.as_mut().expect("tags").insert(TAG_UID.to_owned(), "earlier".to_owned());
        state.billing = Billing::Provisioned { read: 1, write: 1 };
        state.indexes.clear();
        state.ttl = Ttl::Off;
    };
    let plan = with(&wanted, Table::Sessions, all_wrong);
    let fields: Vec<_> = plan.changes.iter().filter_map(|change| change.field.as_deref()).collect();
    let expected =
        ["tags", "pointInTimeRecovery", "deletionProtection", "billing", "indexes.user_sessions-index", "ttl"];
    assert_eq!(fields, expected);
    assert_eq!(plan.steps.len(), 6);
    assert!(matches!(plan.steps[0], Step::Tag(..)), "whose it is comes first: {:?}", plan.steps);
    let busy = with(&wanted, Table::Sessions, |state| {
        all_wrong(state);
        state.status = Status::Updating;
    });
    assert!(busy.steps.iter().all(|step| !step.is_exclusive()), "{:?}", busy.steps);
    assert_eq!((busy.steps.len(), busy.changes.len()), (2, 6));
}

#[test]
fn a_changed_mode_of_billing_carries_every_index_and_changed_units_only_those_that_differ() {
    let mut wanted = asked();
    let provisioned = Billing::Provisioned { read: 5, write: 5 };
    wanted.billing = provisioned;
    let all = with(&wanted, Table::Users, |state| {
        state.billing = Billing::OnDemand;
        state.indexes.values_mut().for_each(|index| index.billing = Billing::OnDemand);
    });
    assert_eq!(all.steps, [Step::Bill(provisioned, vec!["phone_number-index".to_owned()])]);
    let only_table = with(&wanted, Table::Users, |state| state.billing = Billing::Provisioned { read: 1, write: 1 });
    assert_eq!(only_table.steps, [Step::Bill(provisioned, Vec::new())]);
}

#[test]
fn a_wrong_ttl_is_turned_off_before_the_right_one_is_turned_on_and_none_where_items_stay() {
    let other = |state: &mut TableState| state.ttl = Ttl::On("created_at".to_owned());
    let off = Step::Ttl("created_at".to_owned(), Switch::Off);
    assert_eq!(with(&asked(), Table::Sessions, other).steps, std::slice::from_ref(&off));
    assert_eq!(with(&asked(), Table::Messages, other).steps, [off]);
    let on = with(&asked(), Table::Sessions, |state| state.ttl = Ttl::Off);
    assert_eq!(on.steps, [Step::Ttl("ttl".to_owned(), Switch::On)]);
}

#[test]
fn keys_and_indexes_that_cannot_be_changed_are_said_and_left_alone() {
    let keys = with(&asked(), Table::Messages, |state| state.keys.truncate(1));
    let index = with(&asked(), Table::Users, |state| {
        state.indexes.values_mut().for_each(|index| index.projection = None);
    });
    for plan in [keys, index] {
        assert_eq!((plan.item.reason, plan.steps.len()), (Reason::ImmutableFieldChanged, 0), "{plan:?}");
    }
}

#[test]
fn whose_a_table_is_decides_by_tags_record_name_and_permission() {
    let mut wanted = Wanted { ..wanted("chat", "shared-") };
    let chats = |wanted: &Wanted, known: Option<&TableRecord>, tags: Option<BTreeMap<String, String>>| {
        let table = table(wanted, Table::Chats);
        let state = TableState { tags, ..as_asked(wanted, table) };
        plan(wanted, table, Some(&state), known).item.reason
    };
    let mine = tags(&wanted.owner);
    let mut theirs = mine.clone();
    theirs.insert(TAG_CLUSTER.to_owned(), "other".to_owned());
    assert_eq!(chats(&wanted, None, Some(mine)), Reason::TablesInSync);
    assert_eq!(chats(&wanted, Some(&TableRecord::default()), Some(theirs.clone())), Reason::NotOwned, "tags win");
    assert_eq!(chats(&wanted, None, Some(BTreeMap::new())), Reason::NotOwned);
    let known = TableRecord::default();
    assert_eq!(chats(&wanted, Some(&known), Some(BTreeMap::new())), Reason::DriftDetected, "its tags do not show yet");
    assert_eq!(chats(&wanted, None, None), Reason::NotOwned);
    assert_eq!(chats(&wanted, Some(&TableRecord::default()), None), Reason::TablesInSync);
    assert_eq!(chats(&asked(), None, None), Reason::TablesInSync, "by its name, where there are no tags");
    wanted.adoption = Adoption::Unowned;
    assert_eq!(chats(&wanted, None, Some(BTreeMap::new())), Reason::DriftDetected, "it gets its tags");
    assert_eq!(chats(&wanted, None, Some(theirs)), Reason::NotOwned, "never what is somebody's");
    wanted.management = Management::External;
    assert_eq!(chats(&wanted, None, Some(BTreeMap::new())), Reason::TablesInSync, "External needs no tags");
}

/// A store in memory that takes its time, and one change of a table at a time.
#[derive(Default)]
struct Fake {
    tables: Mutex<BTreeMap<String, (TableState, u32)>>,
    writes: AtomicU32,
    made: AtomicU32,
    overlapping: AtomicU32,
    /// It says yes to changes of billing and changes nothing.
    is_deaf: bool,
}

impl Fake {
    fn holding(states: Vec<(String, TableState)>) -> Self {
        let tables = states.into_iter().map(|(name, state)| (name, (state, 0))).collect();
        Self { tables: Mutex::new(tables), ..Self::default() }
    }

    fn states(&self) -> BTreeMap<String, TableState> {
        let tables = self.tables.lock().expect("not poisoned");
        tables.iter().map(|(name, (state, _))| (name.clone(), state.clone())).collect()
    }
}

#[async_trait]
impl Tables for Fake {
    async fn describe(&self, name: &str) -> Result<Option<TableState>, Error> {
        let mut tables = self.tables.lock().expect("not poisoned");
        let Some((state, looks)) = tables.get_mut(name) else { return Ok(None) };
        *looks = looks.saturating_sub(1);
        if *looks == 0 {
            state.status = Status::Active;
            state.indexes.values_mut().for_each(|index| index.status = Status::Active);
        }
        Ok(Some(state.clone()))
    }

    async fn carry_out(&self, name: &str, step: &Step) -> Result<(), Error> {
        let mut tables = self.tables.lock().expect("not poisoned");
        self.writes.fetch_add(1, Ordering::Relaxed);
        if let Step::Create(spec) = step {
            self.made.fetch_add(1, Ordering::Relaxed);
            let wanted = Wanted { billing: spec.billing, ..asked() };
            let table = WantedTable { name: name.to_owned(), definition: spec.definition };
            let mut state = as_asked(&wanted, &table);
            (state.status, state.ttl, state.tags) = (Status::Creating, Ttl::Off, Some(spec.tags.clone()));
            tables.insert(name.to_owned(), (state, 3));
            return Ok(());
        }
        let (state, looks) = tables.get_mut(name).ok_or(Error::NotFound)?;
        if step.is_exclusive() && state.status != Status::Active {
            self.overlapping.fetch_add(1, Ordering::Relaxed);
            return Err(Error::InUse { why: String::new() });
        }
        match step {
            Step::Create(_) => {}
            Step::Tag(_, tags) => state.tags.get_or_insert_default().extend(tags.clone()),
            Step::Protect(to) => state.deletion_protection = *to,
            Step::Recovery(to) => state.point_in_time_recovery = Some(*to),
            Step::Bill(..) if self.is_deaf => {}
            Step::Bill(billing, indexes) => {
                (state.billing, state.status, *looks) = (*billing, Status::Updating, 2);
                let carried = state.indexes.iter_mut().filter(|(name, _)| indexes.contains(name));
                carried.for_each(|(_, index)| index.billing = *billing);
            }
            Step::Index(new, billing) => {
                state.indexes.insert(new.name.to_owned(), index(new, *billing, Status::Creating));
                (state.status, *looks) = (Status::Updating, 2);
            }
            Step::Ttl(_, Switch::Off) => state.ttl = Ttl::TurningOff,
            Step::Ttl(..) if state.ttl != Ttl::Off => return Err(Error::CoolingDown { why: String::new() }),
            Step::Ttl(attribute, Switch::On) => state.ttl = Ttl::TurningOn(attribute.clone()),
        }
        Ok(())
    }

    async fn delete(&self, name: &str) -> Result<(), Error> {
        self.tables.lock().expect("not poisoned").remove(name).map(|_| ()).ok_or(Error::NotFound)
    }
}

async fn pass(
    fake: &Fake,
    ledger: &Memory,
    fence: &dyn Fence,
    convergence: &mut Convergence,
    wanted: &Wanted,
) -> Result<Report, Failure> {
    Box::pin(Pass { tables: fake, ledger, fence, convergence }.run(wanted, Act::Apply)).await
}

/// A cluster of which two tables have to be made and a third needs everything there is.
fn with_work() -> (Wanted, Fake) {
    let mut wanted = asked();
    wanted.deletion_protection = Some(Switch::On);
    wanted.point_in_time_recovery = Some(Switch::On);
    wanted.tables.retain(|wanted| {
        [Table::Users, Table::Sessions, Table::Messages].iter().any(|table| wanted.definition == table.definition())
    });
    let sessions = table(&wanted, Table::Sessions).clone();
    let mut state = as_asked(&wanted, &sessions);
    state.billing = Billing::Provisioned { read: 1, write: 1 };
    state.indexes.clear();
    state.ttl = Ttl::Off;
    state.tags.as_mut().expect("tags").insert(TAG_UID.to_owned(), "earlier".to_owned());
    (wanted, Fake::holding(vec![(sessions.name, state)]))
}

#[tokio::test(start_paused = true)]
async fn a_pass_that_stops_before_any_of_its_changes_is_taken_up_by_the_next() {
    let (wanted, whole) = with_work();
    let ledger = Memory::default();
    let report = pass(&whole, &ledger, &Leads, &mut Convergence::default(), &wanted).await.expect("a report");
    assert_eq!((report.reason, report.synced()), (Reason::TablesInSync, 3), "{report:?}");
    assert_eq!(whole.overlapping.load(Ordering::Relaxed), 0, "one change of a table at a time");
    let (end, all) = (whole.states(), whole.writes.load(Ordering::Relaxed));
    for stop_after in 0..=all + 1 {
        let (wanted, fake) = with_work();
        let (ledger, mut convergence) = (Memory::default(), Convergence::default());
        let stopped = pass(&fake, &ledger, &Loses::after(stop_after), &mut convergence, &wanted).await;
        if let Err(failure) = &stopped {
            assert!(matches!(failure, Failure::NotLeader(_)), "{failure}");
            assert!(fake.writes.load(Ordering::Relaxed) <= stop_after, "a change without asking the fence");
        }
        let report = pass(&fake, &ledger, &Leads, &mut convergence, &wanted).await.expect("a report");
        assert_eq!(report.reason, Reason::TablesInSync, "stopped after {stop_after}: {report:?}");
        assert_eq!(fake.made.load(Ordering::Relaxed), 2, "nothing is made twice");
        assert_eq!(fake.states(), end, "stopped after {stop_after}");
        assert_eq!(fake.overlapping.load(Ordering::Relaxed), 0);
        let steady = pass(&fake, &ledger, &Leads, &mut convergence, &wanted).await.expect("a report");
        assert_eq!((steady.writes, steady.reason), (0, Reason::TablesInSync), "it stays as it is");
    }
}

#[tokio::test(start_paused = true)]
async fn a_ttl_that_was_just_changed_waits_and_holds_nothing_else_up() {
    let mut wanted = asked();
    wanted.tables.retain(|wanted| wanted.definition == Table::Sessions.definition());
    wanted.deletion_protection = Some(Switch::On);
    let mut state = as_asked(&wanted, &wanted.tables[0]);
    state.ttl = Ttl::On("created_at".to_owned());
    let fake = Fake::holding(vec![(wanted.tables[0].name.clone(), state)]);
    let (ledger, mut convergence) = (Memory::default(), Convergence::default());
    let report = pass(&fake, &ledger, &Leads, &mut convergence, &wanted).await.expect("a report");
    assert_eq!(report.reason, Reason::CoolingDown, "{report:?}");
    assert!(report.next >= Duration::from_mins(5), "there is no hurry");
    let state = fake.states().remove(&wanted.tables[0].name).expect("there");
    assert_eq!((state.ttl, state.deletion_protection), (Ttl::TurningOff, Switch::On));
    fake.tables.lock().expect("not poisoned").get_mut(&wanted.tables[0].name).expect("there").0.ttl = Ttl::Off;
    let report = pass(&fake, &ledger, &Leads, &mut convergence, &wanted).await.expect("a report");
    assert_eq!(report.reason, Reason::TablesInSync, "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn what_comes_to_nothing_three_times_is_given_up_until_something_else_is_asked_for() {
    let mut wanted = asked();
    wanted.tables.truncate(2);
    let states = wanted.tables.iter().map(|table| (table.name.clone(), as_asked(&wanted, table))).collect();
    let fake = Fake { is_deaf: true, ..Fake::holding(states) };
    fake.tables.lock().expect("not poisoned").get_mut(&wanted.tables[0].name).expect("there").0.billing =
        Billing::Provisioned { read: 1, write: 1 };
    let (ledger, mut convergence) = (Memory::default(), Convergence::default());
    for _ in 0..3 {
        let report = pass(&fake, &ledger, &Leads, &mut convergence, &wanted).await.expect("a report");
        assert_eq!(report.reason, Reason::DriftDetected, "{report:?}");
        assert!(report.writes <= 2, "it does not go round and round: {}", report.writes);
    }
    let given_up = pass(&fake, &ledger, &Leads, &mut convergence, &wanted).await.expect("a report");
    assert_eq!((given_up.reason, given_up.writes, given_up.synced()), (Reason::NonConvergent, 0, 1), "{given_up:?}");
    let still = pass(&fake, &ledger, &Leads, &mut convergence, &wanted).await.expect("a report");
    assert_eq!((still.reason, still.writes), (Reason::NonConvergent, 0));
    wanted.billing = Billing::Provisioned { read: 9, write: 9 };
    let tried = pass(&fake, &ledger, &Leads, &mut convergence, &wanted).await.expect("a report");
    assert!(tried.writes > 0, "another change is worth a try");
}

#[tokio::test(start_paused = true)]
async fn without_time_nothing_is_begun_and_the_next_pass_comes_soon() {
    let (wanted, fake) = with_work();
    let wanted = Wanted { budget: Duration::ZERO, ..wanted };
    let (ledger, mut convergence) = (Memory::default(), Convergence::default());
    let report = pass(&fake, &ledger, &Leads, &mut convergence, &wanted).await.expect("a report");
    assert_eq!((report.reason, report.writes), (Reason::DriftDetected, 0));
    assert!(report.next < Duration::from_secs(10));
}
