//! Topics: described, made, grown, set, deleted; and each refusal by its name.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use adapters::kafka::admin::{
    Admin, Authentication, Connection, Error, Identity, Mode, Security, Source, Tls, TopicSpec, TopicState,
};
use platform::Secret;

use crate::ground;

const WITHIN: Duration = Duration::from_secs(20);

fn connection(brokers: &str) -> Connection {
    Connection { brokers: brokers.to_owned(), security: Security::default(), within: WITHIN }
}

fn admin() -> Admin {
    Admin::new(&connection(&ground::kafka().plain)).expect("an admin")
}

fn topic(name: &str, partitions: u32) -> TopicSpec {
    let configs = BTreeMap::from([("retention.ms".to_owned(), "604800000".to_owned())]);
    TopicSpec { name: name.to_owned(), partitions, replication_factor: Some(1), configs }
}

async fn make(admin: &Admin, topic: TopicSpec) {
    let name = topic.name.clone();
    let outcomes = admin.create(vec![topic], Mode::Do).await.expect("asked");
    assert_eq!(outcomes, BTreeMap::from([(name, Ok(()))]));
}

/// Brokers learn of changes a moment later.
async fn until(admin: &Admin, name: &str, wanted: impl Fn(&Option<TopicState>) -> bool) -> Option<TopicState> {
    let deadline = Instant::now() + WITHIN;
    loop {
        let mut described = admin.describe(&[name.to_owned()]).await.expect("described");
        let state = described.remove(name).expect("an answer").expect("no error");
        if wanted(&state) {
            return state;
        }
        assert!(Instant::now() < deadline, "{name} stays {state:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_is_made_described_grown_and_deleted() {
    let (admin, name) = (admin(), format!("{}.messages", ground::apart()));
    assert_eq!(until(&admin, &name, Option::is_none).await, None);
    make(&admin, topic(&name, 3)).await;
    let made = until(&admin, &name, Option::is_some).await.expect("there");
    assert_eq!((made.partitions, made.replication_factor), (3, 1));
    assert_eq!(made.id.as_ref().map(String::len), Some(22), "{:?}", made.id);
    let retention = &made.configs["retention.ms"];
    assert_eq!((retention.value.as_deref(), retention.source), (Some("604800000"), Source::Topic));
    assert_eq!(made.configs["cleanup.policy"].source, Source::Default);

    let again = admin.create(vec![topic(&name, 3)], Mode::Do).await.expect("asked");
    assert_eq!(again[&name], Err(Error::AlreadyExists));
    let grown = admin.grow(vec![(name.clone(), 5)], Mode::Do).await.expect("asked");
    assert_eq!(grown[&name], Ok(()));
    let grown = until(&admin, &name, |state| state.as_ref().is_some_and(|state| state.partitions == 5)).await;
    assert_eq!(grown.expect("there").id, made.id);
    let fewer = admin.grow(vec![(name.clone(), 4)], Mode::Do).await.expect("asked");
    assert!(matches!(fewer[&name], Err(Error::Refused { .. })), "{fewer:?}");

    let deleted = admin.delete(std::slice::from_ref(&name)).await.expect("asked");
    assert_eq!(deleted[&name], Ok(()));
    until(&admin, &name, Option::is_none).await;
    let gone = admin.delete(std::slice::from_ref(&name)).await.expect("asked");
    assert_eq!(gone[&name], Err(Error::NotFound));

    make(&admin, topic(&name, 3)).await;
    let another = until(&admin, &name, Option::is_some).await.expect("there");
    assert_ne!(another.id, made.id, "a topic made anew is another topic");
    drop(admin.delete(&[name]).await.expect("asked"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_setting_is_set_and_taken_back_and_others_stay() {
    let (admin, name) = (admin(), format!("{}.settings", ground::apart()));
    make(&admin, topic(&name, 1)).await;
    let set = |key: &str, value: Option<&str>| vec![(key.to_owned(), value.map(ToOwned::to_owned))];
    let throttle = "leader.replication.throttled.replicas";
    admin.alter(&name, set(throttle, Some("*")), Mode::Do).await.expect("set by another");
    admin.alter(&name, set("min.insync.replicas", Some("2")), Mode::ValidateOnly).await.expect("would be taken");
    admin.alter(&name, set("retention.ms", Some("1000")), Mode::Do).await.expect("set");
    let state = until(&admin, &name, |state| {
        state.as_ref().is_some_and(|state| state.configs["retention.ms"].value.as_deref() == Some("1000"))
    });
    let state = state.await.expect("there");
    assert_eq!(state.configs[throttle].value.as_deref(), Some("*"));
    assert_eq!(state.configs["min.insync.replicas"].value.as_deref(), Some("1"), "validation changes nothing");

    admin.alter(&name, set("retention.ms", None), Mode::Do).await.expect("taken back");
    let state = until(&admin, &name, |state| {
        state.as_ref().is_some_and(|state| state.configs["retention.ms"].source != Source::Topic)
    });
    assert_eq!(state.await.expect("there").configs[throttle].source, Source::Topic);

    let unknown = admin.alter(&name, set("retention.ms", Some("soon")), Mode::Do).await;
    assert!(matches!(unknown, Err(Error::Refused { .. })), "{unknown:?}");
    let nowhere = admin.alter("nowhere", set("retention.ms", Some("1000")), Mode::Do).await;
    assert_eq!(nowhere, Err(Error::NotFound));
    drop(admin.delete(&[name]).await.expect("asked"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_be_refused_is_said_without_making_anything() {
    let (admin, name) = (admin(), format!("{}.checked", ground::apart()));
    let would = admin.create(vec![topic(&name, 2)], Mode::ValidateOnly).await.expect("asked");
    assert_eq!(would[&name], Ok(()));
    let too_many = TopicSpec { replication_factor: Some(3), ..topic(&name, 2) };
    let refused = admin.create(vec![too_many], Mode::ValidateOnly).await.expect("asked");
    let Err(Error::Refused { why }) = &refused[&name] else { panic!("{refused:?}") };
    assert!(why.to_lowercase().contains("replica"), "{why}");
    assert_eq!(until(&admin, &name, Option::is_none).await, None);
    let default = TopicSpec { replication_factor: None, ..topic(&name, 2) };
    make(&admin, default).await;
    let made = until(&admin, &name, Option::is_some).await.expect("there");
    assert_eq!(made.replication_factor, 1, "the brokers' default");
    drop(admin.delete(&[name]).await.expect("asked"));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_topics_are_described_at_once() {
    let (admin, apart) = (admin(), ground::apart());
    let names: Vec<String> = (0..4).map(|number| format!("{apart}.many.{number}")).collect();
    for name in &names[..3] {
        make(&admin, topic(name, 2)).await;
    }
    for name in &names[..3] {
        until(&admin, name, Option::is_some).await;
    }
    let found = admin.describe(&names).await.expect("described");
    let there: Vec<bool> = names.iter().map(|name| found[name].as_ref().expect("no error").is_some()).collect();
    assert_eq!(there, [true, true, true, false]);
    drop(admin.delete(&names[..3]).await.expect("asked"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_taken_or_its_refusal_is_known_at_once() {
    let with = |password: &str| {
        let authentication = Authentication::Scram { user: "app".to_owned(), password: Secret::new(password) };
        let security = Security { authentication, tls: None };
        Admin::new(&Connection { security, ..connection(&ground::kafka().scram) }).expect("an admin")
    };
    let names = [format!("{}.absent", ground::apart())];
    let found = with("app-secret").describe(&names).await.expect("taken");
    assert_eq!(found[&names[0]], Ok(None));
    let begun = Instant::now();
    let refused = with("wrong").describe(&names).await;
    assert!(matches!(refused, Err(Error::AuthenticationFailed { .. })), "{refused:?}");
    assert!(begun.elapsed() < WITHIN / 2, "it took {:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_taken_and_without_one_or_without_trust_nothing_is() {
    let kafka = ground::kafka();
    let read = |file: &str| std::fs::read_to_string(kafka.certificates.join(file)).expect("a PEM file");
    let identity = Identity { certificate: read("client.crt"), key: Secret::new(read("client.key")) };
    let with = |authorities: Option<String>, identity: Option<Identity>| {
        let tls = Some(Tls { authorities, identity });
        let security = Security { authentication: Authentication::None, tls };
        Admin::new(&Connection { security, ..connection(&kafka.tls) }).expect("an admin")
    };
    let names = [format!("{}.absent", ground::apart())];
    let found = with(Some(read("ca.crt")), Some(identity.clone())).describe(&names).await.expect("taken");
    assert_eq!(found[&names[0]], Ok(None));
    let begun = Instant::now();
    let nobody = with(Some(read("ca.crt")), None).describe(&names).await;
    assert!(matches!(nobody, Err(Error::AuthenticationFailed { .. })), "{nobody:?}");
    let stranger = with(None, Some(identity)).describe(&names).await;
    assert!(matches!(stranger, Err(Error::AuthenticationFailed { .. })), "{stranger:?}");
    assert!(begun.elapsed() < WITHIN, "it took {:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_that_are_not_there_are_unreachable_in_time() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
    let brokers = free.local_addr().expect("an address").to_string();
    drop(free);
    let admin = Admin::new(&Connection { within: Duration::from_secs(1), ..connection(&brokers) }).expect("an admin");
    let begun = Instant::now();
    let answer = admin.describe(&["any".to_owned()]).await;
    assert!(matches!(answer, Err(Error::Unreachable { .. })), "{answer:?}");
    assert!(begun.elapsed() < Duration::from_secs(5), "it took {:?}", begun.elapsed());
}

#[tokio::test]
async fn a_connection_that_is_not_built_is_refused() {
    let security = Security { authentication: Authentication::AwsIam, tls: None };
    let refused = Admin::new(&Connection { security, ..connection("127.0.0.1:1") });
    assert!(matches!(refused.err(), Some(Error::Unsupported { .. })));
}
