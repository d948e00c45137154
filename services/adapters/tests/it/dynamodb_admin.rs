//! Tables: described, made, changed one thing at a time, deleted; and each refusal by its name.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use adapters::dynamodb::{
    admin::{Admin, Billing, Connection, Error, IndexState, Status, Switch, TableSpec, TableState, Ttl},
    layout::{PUBLISHER_INDEX, Table},
};
use platform::{Process, Secret};

use crate::ground;

const WITHIN: Duration = Duration::from_secs(20);

fn connection(endpoint: &str) -> Connection {
    Connection {
        region: "eu-west-1".to_owned(),
        endpoint: Some(endpoint.to_owned()),
        credentials: Some(("test".to_owned(), Secret::new("test"))),
        within: Duration::from_secs(10),
    }
}

async fn admin() -> Admin {
    Admin::new(&connection(ground::dynamodb())).await
}

fn spec(table: Table) -> TableSpec {
    TableSpec {
        name: format!("{}-{}", ground::apart(), table.name()),
        definition: table.definition(),
        billing: Billing::OnDemand,
        deletion_protection: Switch::Off,
        tags: BTreeMap::from([("messaging:cluster".to_owned(), "chat".to_owned())]),
    }
}

/// Makes a change and waits until it is to be seen. As the operator does, it tries again after [`Error::Failed`]:
/// this store answers so now and then while tables of other tests change.
async fn changed(
    admin: &Admin,
    name: &str,
    change: impl AsyncFn() -> Result<(), Error>,
    wanted: impl Fn(&Option<TableState>) -> bool,
) -> Option<TableState> {
    let deadline = Instant::now() + WITHIN;
    let mut has_begun = false;
    loop {
        let state = admin.describe(name).await;
        assert!(matches!(state, Ok(_) | Err(Error::Failed { .. })), "{name} is not described: {state:?}");
        if let Ok(state) = &state {
            if wanted(state) {
                return state.clone();
            }
            if !has_begun {
                let begun = change().await;
                has_begun = begun.is_ok();
                let may_be = matches!(begun, Ok(()) | Err(Error::Failed { .. } | Error::InUse { .. }));
                assert!(may_be, "{name} is not changed: {begun:?}");
            }
        }
        assert!(Instant::now() < deadline, "{name} stays {state:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What a call answers that is tried again after [`Error::Failed`].
async fn tried<T>(call: impl AsyncFn() -> Result<T, Error>) -> Result<T, Error> {
    let deadline = Instant::now() + WITHIN;
    loop {
        match call().await {
            Err(Error::Failed { .. }) if Instant::now() < deadline => {}
            answer => return answer,
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn made(admin: &Admin, spec: &TableSpec) -> TableState {
    let is_active = |state: &Option<TableState>| state.as_ref().is_some_and(|state| state.status == Status::Active);
    changed(admin, &spec.name, async || admin.create(spec).await, is_active).await.expect("there")
}

async fn deleted(admin: &Admin, name: &str) {
    changed(admin, name, async || admin.delete(name).await, Option::is_none).await;
}

#[tokio::test]
async fn every_table_is_made_as_it_is_defined() {
    let admin = admin().await;
    for table in Table::ALL {
        let spec = spec(table);
        assert_eq!(tried(async || admin.describe(&spec.name).await).await, Ok(None));
        let state = made(&admin, &spec).await;
        assert_eq!(state.keys, TableState::keys_of(&spec.definition), "{table:?}");
        assert_eq!(state.billing, Billing::OnDemand);
        assert!(state.arn.is_some_and(|arn| arn.ends_with(&spec.name)));
        assert_eq!(state.indexes.len(), spec.definition.indexes.len());
        for index in spec.definition.indexes {
            let found = &state.indexes[index.name];
            assert_eq!(found.keys, IndexState::keys_of(index), "{table:?}");
            assert_eq!((found.projection, found.billing), (Some(index.projection), Billing::OnDemand));
        }
        assert_eq!(state.tags, None, "this store has no tags");
        let again = tried(async || admin.create(&spec).await).await;
        assert!(matches!(again, Err(Error::InUse { .. })), "{again:?}");
        deleted(&admin, &spec.name).await;
        assert_eq!(tried(async || admin.delete(&spec.name).await).await, Err(Error::NotFound));
    }
}

#[tokio::test]
async fn one_thing_of_a_table_is_changed_at_a_time() {
    let admin = admin().await;
    let spec = spec(Table::ChatCounters);
    let name = spec.name.as_str();
    made(&admin, &spec).await;

    let on = |state: &Option<TableState>| matches!(state.as_ref().map(|state| &state.ttl), Some(Ttl::On(by) | Ttl::TurningOn(by)) if by == "ttl");
    changed(&admin, name, async || admin.set_ttl(name, "ttl", Switch::On).await, on).await;

    let provisioned = Billing::Provisioned { read: 5, write: 6 };
    let indexes = [PUBLISHER_INDEX.to_owned()];
    let paid = |state: &Option<TableState>| {
        state.as_ref().is_some_and(|state| {
            state.billing == provisioned && state.indexes.values().all(|index| index.billing == provisioned)
        })
    };
    changed(&admin, name, async || admin.set_billing(name, provisioned, &indexes).await, paid).await;

    let gone = |state: &Option<TableState>| state.as_ref().is_some_and(|state| state.indexes.is_empty());
    changed(&admin, name, async || admin.delete_index(name, PUBLISHER_INDEX).await, gone).await;
    let index = &Table::ChatCounters.definition().indexes[0];
    let there = |state: &Option<TableState>| {
        state.as_ref().is_some_and(|state| state.indexes.get(index.name).is_some_and(|i| i.status == Status::Active))
    };
    changed(&admin, name, async || admin.create_index(name, index, provisioned).await, there).await;
    deleted(&admin, name).await;
}

#[tokio::test]
async fn a_protected_table_is_not_deleted() {
    let admin = admin().await;
    let spec = TableSpec { deletion_protection: Switch::On, ..spec(Table::Chats) };
    let state = made(&admin, &spec).await;
    assert_eq!(state.deletion_protection, Switch::On);
    let name = spec.name.as_str();
    let refused = tried(async || admin.delete(name).await).await;
    assert!(matches!(refused, Err(Error::Refused { .. })), "{refused:?}");
    let off = |state: &Option<TableState>| state.as_ref().is_some_and(|s| s.deletion_protection == Switch::Off);
    changed(&admin, name, async || admin.set_deletion_protection(name, Switch::Off).await, off).await;
    deleted(&admin, name).await;
}

#[tokio::test]
async fn what_this_store_has_not_is_said_plainly() {
    let admin = admin().await;
    let spec = spec(Table::Chats);
    let state = made(&admin, &spec).await;
    let set = tried(async || admin.set_point_in_time_recovery(&spec.name, Switch::On).await).await;
    assert_eq!((state.point_in_time_recovery, state.tags), (None, None));
    assert!(matches!(set, Err(Error::Unsupported { .. })), "{set:?}");
    let arn = state.arn.expect("an ARN");
    let tagged = tried(async || admin.set_tags(&arn, &spec.tags).await).await;
    assert!(matches!(tagged, Err(Error::Unsupported { .. })), "{tagged:?}");
    deleted(&admin, &spec.name).await;
}

#[tokio::test]
async fn a_table_keeps_its_tags_where_the_store_has_them() {
    let process = Process::new();
    let store = embedded::Store::start(None, &process).await.expect("a store");
    let admin = Admin::new(&connection(&store.endpoint)).await;
    let spec = spec(Table::Chats);
    let state = made(&admin, &spec).await;
    assert_eq!(state.tags, Some(spec.tags.clone()));
    let more = BTreeMap::from([("owner".to_owned(), "us".to_owned())]);
    admin.set_tags(&state.arn.expect("an ARN"), &more).await.expect("tagged");
    let tags = admin.describe(&spec.name).await.expect("described").expect("there").tags.expect("tags");
    assert_eq!(tags.keys().collect::<Vec<_>>(), ["messaging:cluster", "owner"], "others stay");
    process.shut_down().await;
}

#[tokio::test]
async fn a_store_that_is_not_there_is_unreachable_in_time() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
    let endpoint = format!("http://{}", free.local_addr().expect("an address"));
    drop(free);
    let admin = Admin::new(&Connection { within: Duration::from_secs(1), ..connection(&endpoint) }).await;
    let begun = Instant::now();
    let answer = admin.describe("any-table").await;
    assert!(matches!(answer, Err(Error::Unreachable { .. })), "{answer:?}");
    assert!(begun.elapsed() < Duration::from_secs(5), "it took {:?}", begun.elapsed());
}
