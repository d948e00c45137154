//! Start order never matters: every service starts while nothing that it needs can be reached, and waits for it.

use std::time::Duration;

use tests::{
    faults::proxy::{Proxy, Toxics},
    world::{
        cluster::{Cluster, Plan},
        ground::{
            Ground,
            System::{self, DynamoDb, Kafka, Redis},
        },
        service::Service,
    },
};
use tokio::time::{Instant, sleep};

const WITHIN: Duration = Duration::from_mins(1);
const LOOK_EVERY: Duration = Duration::from_millis(50);
const ANA: &str = "+12025550100";
const BEN: &str = "+12025550101";

/// What a service says on its readiness page while one of these is away, which no other reason makes it say.
const WAITS: [(&str, System, &str); 7] = [
    ("gateway", Redis, "cache ("),
    ("ingest", DynamoDb, "ingest lease ("),
    ("fanout", Redis, "cache ("),
    ("fanout", DynamoDb, "store ("),
    ("fanout", Kafka, "log ("),
    ("chatmgmt", Redis, "cache ("),
    ("chatmgmt", DynamoDb, "store ("),
];

/// A proxy before each system.
struct Ways {
    redis: Proxy,
    kafka: Proxy,
    dynamodb: Proxy,
}

impl Ways {
    async fn start(ground: &Ground) -> anyhow::Result<Self> {
        Ok(Self {
            redis: Proxy::start(&ground.redis, 1).await?,
            kafka: Proxy::before_kafka(&ground.kafka, 2).await?,
            dynamodb: Proxy::start(&ground.store, 3).await?,
        })
    }

    fn to(&self, system: System) -> &Proxy {
        match system {
            Redis => &self.redis,
            Kafka => &self.kafka,
            DynamoDb => &self.dynamodb,
        }
    }

    fn close(&self) {
        for system in [Redis, Kafka, DynamoDb] {
            self.to(system).set(Toxics { refuses: true, ..Toxics::default() });
            self.to(system).reset();
        }
    }
}

/// Every service that needs one of these systems says so, and lives.
async fn wait_for_each_of(cluster: &mut Cluster, away: &[System]) -> anyhow::Result<()> {
    for service in cluster.services() {
        let own = |name: &str| service.name().starts_with(name);
        for (_, _, word) in WAITS.iter().filter(|(name, system, _)| own(name) && away.contains(system)) {
            service.unready_with(word).await?;
        }
        assert_eq!(service.page("/livez").await?.0, 200, "{} lives without {away:?}", service.name());
        assert!(service.is_running()?, "{} ended without {away:?}:\n{}", service.name(), service.log());
    }
    Ok(())
}

/// A system that is there again is no reason any more.
async fn nobody_waits_for(cluster: &mut Cluster, back: System) -> anyhow::Result<()> {
    for service in cluster.services() {
        let words = WAITS.iter().filter(|(name, system, _)| service.name().starts_with(name) && *system == back);
        for (_, _, word) in words {
            no_longer_said(service, word).await?;
        }
    }
    Ok(())
}

async fn no_longer_said(service: &Service, word: &str) -> anyhow::Result<()> {
    let deadline = Instant::now() + WITHIN;
    loop {
        let (_, text) = service.page("/readyz").await?;
        if !text.contains(word) {
            return Ok(());
        }
        anyhow::ensure!(Instant::now() < deadline, "{} still says {text}\n{}", service.name(), service.log());
        sleep(LOOK_EVERY).await;
    }
}

/// Two people on different gateways, the first of whom sends and the other answers.
async fn talk(cluster: &Cluster) -> anyhow::Result<()> {
    let (ana, ben) = (cluster.client(0, ANA).await?, cluster.client(1, BEN).await?);
    let chat = ana.rest().direct(ben.user_id()).await?.chat_id;
    let one = ana.send(&chat, "from Ana").await?.sequence;
    ben.wait_for(&chat, usize::try_from(one)?, WITHIN).await?;
    let other = ben.send(&chat, "from Ben").await?.sequence;
    assert_eq!(other, one + 1);
    let view = ana.wait_for(&chat, usize::try_from(other)?, WITHIN).await?;
    assert_eq!(view.last().map(|kept| kept.content.as_str()), Some("from Ben"));
    Ok(())
}

#[tokio::test]
async fn services_that_start_while_nothing_can_be_reached_become_ready_in_whatever_order_it_comes() -> anyhow::Result<()>
{
    let ground = Ground::shared().await?;
    let ways = Ways::start(ground).await?;
    let plan = Plan::new("starts", ground)
        .with("REDIS_URL", format!("redis://{}", ways.redis.address()))
        .with("LOG_BROKERS", ways.kafka.address())
        .with("STORE_ENDPOINT", format!("http://{}", ways.dynamodb.address()));
    // This makes tables and topics; who starts before there are any is tried in `processes`.
    let mut cluster = Cluster::start(&plan).await?;
    for order in [[Redis, Kafka, DynamoDb], [DynamoDb, Kafka, Redis], [Kafka, DynamoDb, Redis]] {
        for service in cluster.services() {
            service.terminate().await?;
            let (code, log) = service.ended().await?;
            assert_eq!(code, Some(0), "{}:\n{log}", service.name());
        }
        ways.close();
        let before = order.map(|system| ways.to(system).counted().refused);
        for service in cluster.services() {
            service.start_again()?;
        }
        let started: Vec<Option<u32>> = cluster.services().iter().map(|service| service.pid()).collect();
        wait_for_each_of(&mut cluster, &order).await?;
        for (number, system) in order.into_iter().enumerate() {
            assert!(ways.to(system).counted().refused > before[number], "nobody tried to reach {system:?}");
            ways.to(system).heal();
            nobody_waits_for(&mut cluster, system).await?;
            wait_for_each_of(&mut cluster, &order[number + 1..]).await?;
        }
        let begun = Instant::now();
        for service in cluster.services() {
            service.ready().await?;
        }
        println!("{order:?}: ready {:?} after the last came", begun.elapsed());
        let ran: Vec<Option<u32>> = cluster.services().iter().map(|service| service.pid()).collect();
        assert_eq!(ran, started, "nothing was started again");
        for gateway in 0..2 {
            cluster.reopen(gateway).await?;
        }
        talk(&cluster).await?;
    }
    Ok(())
}
