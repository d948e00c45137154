//! What every connection registry promises (routing-redis §11).

use std::{sync::Arc, time::Duration};

use domain::{
    Ids as _, Millis,
    ids::{ConnectionId, DeviceId, UserId},
    ports::ConnectionRegistry,
    route::{Connection, GatewayId},
};
use platform::clock::SystemIds;
use tokio::time::{Instant, sleep};

use crate::redis::{Cache, Config, connection_registry::Registry};

const LONG: Duration = Duration::from_mins(1);
const SHORT: Duration = Duration::from_millis(300);

struct Fixture {
    registry: Registry,
    cache: Cache,
    _server: embedded::Cache,
}

async fn fixture() -> Fixture {
    let server = embedded::Cache::start().await.expect("a cache");
    let config = Config::new(server.url.clone(), "ns.one.");
    let cache = Cache::new(&config).expect("connected");
    Fixture { registry: Registry::new(cache.clone()), cache, _server: server }
}

impl Fixture {
    async fn command<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let mut command = redis::cmd(words[0]);
        for word in &words[1..] {
            command.arg(*word);
        }
        command.query_async(&mut self.cache.connection()).await.expect("an answer")
    }

    /// Remaining life of the four keys of a connection, in milliseconds; -2 for one that is not there.
    async fn lives(&self, connection: &Connection) -> [i64; 4] {
        let Connection { id, user, gateway, .. } = connection;
        [
            self.command(&["PTTL", &format!("ns.one.connection:{id}")]).await,
            self.command(&["PTTL", &format!("ns.one.user_connections:{user}")]).await,
            self.command(&["PTTL", &format!("ns.one.gateway_connections:{gateway}")]).await,
            self.command(&["PTTL", &format!("ns.one.user_servers:{user}")]).await,
        ]
    }

    async fn of(&self, user: UserId) -> Vec<GatewayId> {
        let mut found = self.registry.gateways(&[user]).await.expect("an answer").remove(0);
        found.sort();
        found
    }

    async fn until_offline(&self, user: UserId) {
        let deadline = Instant::now() + Duration::from_secs(5);
        while !self.of(user).await.is_empty() {
            assert!(Instant::now() < deadline, "still online");
            sleep(Duration::from_millis(10)).await;
        }
    }

    async fn until_gateways(&self, user: UserId, expected: &[GatewayId]) {
        let deadline = Instant::now() + Duration::from_secs(5);
        while self.of(user).await != expected {
            assert!(Instant::now() < deadline, "still {:?}", self.of(user).await);
            sleep(Duration::from_millis(10)).await;
        }
    }
}

fn gateway(name: &str) -> GatewayId {
    GatewayId { address: format!("{name}:9090").into(), epoch: "e1".into() }
}

fn device(number: u128) -> DeviceId {
    DeviceId(uuid::Uuid::from_u128(number))
}

fn user() -> UserId {
    UserId(SystemIds.ulid())
}

fn connection(user: UserId, number: u128, on: &str, since: i64) -> Connection {
    let id = ConnectionId(SystemIds.ulid());
    Connection { id, user, device: device(number), gateway: gateway(on), connected_at: Millis(since) }
}

#[tokio::test]
async fn a_registration_writes_every_family_with_the_ttl() {
    let fixture = fixture().await;
    let one = connection(user(), 1, "a", 1);
    let registered = fixture.registry.register(&one, Millis(1), LONG).await.expect("registered");
    assert_eq!((registered.live, registered.replaced), (1, vec![]));
    for life in fixture.lives(&one).await {
        assert!((50_000..=60_000).contains(&life), "{life}");
    }
    let again = fixture.registry.register(&one, Millis(2), LONG).await.expect("registered");
    assert_eq!((again.live, again.replaced), (1, vec![]), "repeating it changes nothing");
    assert_eq!(fixture.of(one.user).await, [gateway("a")]);
    let keys: Vec<String> = fixture.command(&["KEYS", "*"]).await;
    assert!(keys.iter().all(|key| key.starts_with("ns.one.")), "{keys:?}");
}

#[tokio::test]
async fn a_heartbeat_renews_every_family_and_names_what_is_missing() {
    let fixture = fixture().await;
    let user = user();
    let (kept, lost) = (connection(user, 1, "a", 1), connection(user, 2, "a", 2));
    fixture.registry.register(&kept, Millis(1), Duration::from_secs(5)).await.expect("registered");
    let missing = fixture.registry.renew(&[lost.clone(), kept.clone()], Millis(3), LONG).await.expect("renewed");
    assert_eq!(missing, [lost.id]);
    for life in fixture.lives(&kept).await {
        assert!(life > 50_000, "{life}");
    }
    assert_eq!(fixture.lives(&lost).await[0], -2, "a missing record is not half written");
    assert_eq!(fixture.registry.renew(&[], Millis(3), LONG).await.expect("renewed"), []);
    let many: Vec<_> = (0..300).map(|number| connection(user, number, "a", 3)).collect();
    let missing = fixture.registry.renew(&many, Millis(3), LONG).await.expect("renewed");
    assert_eq!(missing, many.iter().map(|one| one.id).collect::<Vec<_>>(), "in any number");
}

#[tokio::test]
async fn a_crashed_gateway_is_forgotten_after_the_ttl() {
    let fixture = fixture().await;
    let one = connection(user(), 1, "a", 1);
    fixture.registry.register(&one, Millis(1), SHORT).await.expect("registered");
    assert_eq!(fixture.of(one.user).await, [gateway("a")]);
    fixture.until_offline(one.user).await;
    assert_eq!(fixture.lives(&one).await, [-2; 4]);
}

#[tokio::test]
async fn another_device_survives_a_dead_gateway_and_the_dead_one_is_pruned_on_read() {
    let fixture = fixture().await;
    let user = user();
    let (dead, alive) = (connection(user, 1, "a", 1), connection(user, 2, "b", 2));
    fixture.registry.register(&dead, Millis(1), SHORT).await.expect("registered");
    let registered = fixture.registry.register(&alive, Millis(2), LONG).await.expect("registered");
    assert_eq!(registered.live, 2);
    assert_eq!(fixture.of(user).await, [gateway("a"), gateway("b")]);
    fixture.until_gateways(user, &[gateway("b")]).await;
    let members: Vec<String> = fixture.command(&["SMEMBERS", &format!("ns.one.user_connections:{user}")]).await;
    assert_eq!(members, [alive.id.to_string()]);
    let servers: Vec<String> = fixture.command(&["SMEMBERS", &format!("ns.one.user_servers:{user}")]).await;
    assert_eq!(servers, [gateway("b").to_string()]);
    for life in fixture.lives(&alive).await {
        assert!(life > 50_000, "pruning keeps the TTL: {life}");
    }
}

#[tokio::test]
async fn only_older_connections_of_the_same_device_are_replaced() {
    let fixture = fixture().await;
    let user = user();
    let (first, other) = (connection(user, 1, "a", 1), connection(user, 2, "a", 2));
    let second = connection(user, 1, "b", 3);
    for one in [&first, &other] {
        fixture.registry.register(one, Millis(2), LONG).await.expect("registered");
    }
    let registered = fixture.registry.register(&second, Millis(3), LONG).await.expect("registered");
    assert_eq!((registered.live, registered.replaced), (3, vec![(first.id, gateway("a"))]));
    let again = fixture.registry.register(&first, Millis(4), LONG).await.expect("registered");
    assert_eq!(again.replaced, [], "an old connection that registers again replaces nothing newer");
}

#[tokio::test]
async fn deregistering_keeps_a_gateway_that_still_holds_another_device() {
    let fixture = fixture().await;
    let user = user();
    let (leaving, staying) = (connection(user, 1, "a", 1), connection(user, 2, "a", 2));
    for one in [&leaving, &staying] {
        fixture.registry.register(one, Millis(2), LONG).await.expect("registered");
    }
    assert_eq!(fixture.registry.deregister(&leaving).await.expect("deregistered"), 1);
    assert_eq!(fixture.of(user).await, [gateway("a")]);
    assert_eq!(fixture.registry.deregister(&leaving).await.expect("deregistered"), 1, "repeating it is harmless");
    for life in fixture.lives(&staying).await {
        assert!(life > 50_000, "{life}");
    }
    assert_eq!(fixture.registry.deregister(&staying).await.expect("deregistered"), 0);
    assert_eq!(fixture.lives(&staying).await, [-2; 4], "nothing is left");
}

#[tokio::test]
async fn devices_that_come_and_go_at_once_never_hide_a_live_gateway() {
    let fixture = Arc::new(fixture().await);
    let user = user();
    for round in 0..20 {
        let (leaving, coming) = (connection(user, 1, "a", round), connection(user, 2, "a", round));
        fixture.registry.register(&leaving, Millis(1), LONG).await.expect("registered");
        let (left, came) =
            tokio::join!(fixture.registry.deregister(&leaving), fixture.registry.register(&coming, Millis(1), LONG));
        left.expect("deregistered");
        came.expect("registered");
        let servers: Vec<String> = fixture.command(&["SMEMBERS", &format!("ns.one.user_servers:{user}")]).await;
        assert_eq!(servers, [gateway("a").to_string()]);
        fixture.registry.deregister(&coming).await.expect("deregistered");
    }
}

#[tokio::test]
async fn users_are_answered_in_order_and_offline_ones_with_nothing() {
    let fixture = fixture().await;
    let users: Vec<_> = (0..200).map(|_| user()).collect();
    for user in users.iter().step_by(2) {
        fixture.registry.register(&connection(*user, 1, "a", 1), Millis(1), LONG).await.expect("registered");
    }
    fixture.registry.register(&connection(users[0], 2, "a", 2), Millis(1), LONG).await.expect("registered");
    fixture.registry.register(&connection(users[0], 3, "b", 2), Millis(1), LONG).await.expect("registered");
    let mut found = fixture.registry.gateways(&users).await.expect("an answer");
    found[0].sort();
    assert_eq!(found[0], [gateway("a"), gateway("b")], "each gateway once");
    for (at, gateways) in found.iter().enumerate().skip(1) {
        assert_eq!(gateways.len(), (at + 1) % 2, "{at}");
    }
    assert!(fixture.registry.gateways(&[]).await.expect("an answer").is_empty());
}

#[tokio::test]
async fn a_wiped_cache_is_noticed_and_filled_again() {
    let fixture = fixture().await;
    let one = connection(user(), 1, "a", 1);
    let known = || async { fixture.registry.announce(&one.gateway, LONG).await.expect("announced") };
    assert!(!known().await, "new");
    assert!(known().await);
    fixture.registry.register(&one, Millis(1), LONG).await.expect("registered");
    let _: String = fixture.command(&["FLUSHALL"]).await;
    // Without its scripts, too.
    let _: String = fixture.command(&["SCRIPT", "FLUSH"]).await;
    assert!(fixture.of(one.user).await.is_empty());
    assert!(!known().await, "it forgot");
    assert_eq!(fixture.registry.renew(std::slice::from_ref(&one), Millis(2), LONG).await.expect("asked"), [one.id]);
    assert_eq!(fixture.registry.register(&one, Millis(2), LONG).await.expect("registered").live, 1);
    assert_eq!(fixture.of(one.user).await, [gateway("a")]);
}

#[tokio::test]
async fn a_forgotten_gateway_is_told_and_keeps_its_connections() {
    let fixture = fixture().await;
    let one = connection(user(), 1, "a", 1);
    fixture.registry.announce(&one.gateway, LONG).await.expect("announced");
    fixture.registry.register(&one, Millis(1), LONG).await.expect("registered");
    for _ in 0..2 {
        fixture.registry.forget(&one.gateway).await.expect("forgotten");
    }
    assert_eq!(fixture.of(one.user).await, [gateway("a")], "routes stay");
    assert!(!fixture.registry.announce(&one.gateway, LONG).await.expect("announced"));
    assert!(fixture.registry.announce(&one.gateway, LONG).await.expect("announced"));
}

#[tokio::test]
async fn a_gateway_that_stops_announcing_itself_lapses() {
    let fixture = fixture().await;
    assert!(!fixture.registry.announce(&gateway("a"), SHORT).await.expect("announced"));
    let deadline = Instant::now() + Duration::from_secs(5);
    let key = format!("ns.one.gateway:{}", gateway("a"));
    while fixture.command::<i64>(&["EXISTS", &key]).await == 1 {
        assert!(Instant::now() < deadline, "still there");
        sleep(Duration::from_millis(10)).await;
    }
    assert!(!fixture.registry.announce(&gateway("a"), SHORT).await.expect("announced"));
}

#[tokio::test]
async fn a_registry_that_is_away_is_an_error_and_never_offline() {
    let fixture = fixture().await;
    let Fixture { registry, cache, _server: server } = fixture;
    drop(server);
    let deadline = Instant::now() + Duration::from_secs(10);
    // The server dies a moment after its guard.
    loop {
        match registry.gateways(&[user()]).await {
            Err(error) => break assert_eq!(error.kind(), domain::ErrorKind::Unavailable),
            Ok(_) => assert!(Instant::now() < deadline, "still answers"),
        }
        sleep(Duration::from_millis(10)).await;
    }
    drop(cache);
}
