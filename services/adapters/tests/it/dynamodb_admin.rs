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

async fn until(admin: &Admin, name: &str, wanted: impl Fn(&Option<TableState>) -> bool) -> Option<TableState> {
    let deadline = Instant::now() + WITHIN;
    loop {
        let state = admin.describe(name).await.expect("described");
        if wanted(&state) {
            return state;
        }
        assert!(Instant::now() < deadline, "{name} stays {state:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn made(admin: &Admin, spec: &TableSpec) -> TableState {
    admin.create(spec).await.expect("taken");
    let state = until(admin, &spec.name, |state| state.as_ref().is_some_and(|state| state.status == Status::Active));
    state.await.expect("there")
}

#[tokio::test]
async fn every_table_is_made_as_it_is_defined() {
    let admin = admin().await;
    for table in Table::ALL {
        let spec = spec(table);
        assert_eq!(admin.describe(&spec.name).await, Ok(None));
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
        let again = admin.create(&spec).await;
        assert!(matches!(again, Err(Error::InUse { .. })), "{again:?}");
        admin.delete(&spec.name).await.expect("deleted");
        until(&admin, &spec.name, Option::is_none).await;
        assert_eq!(admin.delete(&spec.name).await, Err(Error::NotFound));
    }
}

#[tokio::test]
async fn one_thing_of_a_table_is_changed_at_a_time() {
    let admin = admin().await;
    let spec = spec(Table::ChatCounters);
    let name = spec.name.as_str();
    made(&admin, &spec).await;

    admin.set_ttl(name, "ttl", Switch::On).await.expect("on");
    let on = |state: &Option<TableState>| matches!(state.as_ref().map(|state| &state.ttl), Some(Ttl::On(by) | Ttl::TurningOn(by)) if by == "ttl");
    until(&admin, name, on).await;

    let provisioned = Billing::Provisioned { read: 5, write: 6 };
    admin.set_billing(name, provisioned, &[PUBLISHER_INDEX.to_owned()]).await.expect("changed");
    let paid = |state: &Option<TableState>| {
        state.as_ref().is_some_and(|state| {
            state.billing == provisioned && state.indexes.values().all(|index| index.billing == provisioned)
        })
    };
    until(&admin, name, paid).await;

    admin.delete_index(name, PUBLISHER_INDEX).await.expect("begun");
    until(&admin, name, |state| state.as_ref().is_some_and(|state| state.indexes.is_empty())).await;
    let index = &Table::ChatCounters.definition().indexes[0];
    admin.create_index(name, index, provisioned).await.expect("begun");
    let there = |state: &Option<TableState>| {
        state.as_ref().is_some_and(|state| state.indexes.get(index.name).is_some_and(|i| i.status == Status::Active))
    };
    until(&admin, name, there).await;
    admin.delete(name).await.expect("deleted");
}

#[tokio::test]
async fn a_protected_table_is_not_deleted() {
    let admin = admin().await;
    let spec = TableSpec { deletion_protection: Switch::On, ..spec(Table::Chats) };
    let state = made(&admin, &spec).await;
    assert_eq!(state.deletion_protection, Switch::On);
    let refused = admin.delete(&spec.name).await;
    assert!(matches!(refused, Err(Error::Refused { .. })), "{refused:?}");
    admin.set_deletion_protection(&spec.name, Switch::Off).await.expect("changed");
    until(&admin, &spec.name, |state| state.as_ref().is_some_and(|s| s.deletion_protection == Switch::Off)).await;
    admin.delete(&spec.name).await.expect("deleted");
}

#[tokio::test]
async fn what_this_store_has_not_is_said_plainly() {
    let admin = admin().await;
    let spec = spec(Table::Chats);
    let state = made(&admin, &spec).await;
    let set = admin.set_point_in_time_recovery(&spec.name, Switch::On).await;
    assert_eq!((state.point_in_time_recovery, state.tags), (None, None));
    assert!(matches!(set, Err(Error::Unsupported { .. })), "{set:?}");
    let tagged = admin.set_tags(&state.arn.expect("an ARN"), &spec.tags).await;
    assert!(matches!(tagged, Err(Error::Unsupported { .. })), "{tagged:?}");
    admin.delete(&spec.name).await.expect("deleted");
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
