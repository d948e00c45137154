//! The four services as separate processes over Kafka, DynamoDB Local and Redis, as pods run them.

use std::{fmt::Write as _, sync::atomic::Ordering, time::Duration};

use anyhow::Context as _;
use tests::{
    client::Client,
    history::{Acknowledged, Violations, check_history, check_order, check_view},
    world::{
        cluster::{Cluster, Order, Plan},
        ground::{Ground, OwnGround, SecureRedis, System},
        service::Service,
    },
};
use tokio::time::{Instant, sleep};

const WITHIN: Duration = Duration::from_mins(1);

/// Two people on different gateways, and their chat.
async fn two(cluster: &Cluster) -> anyhow::Result<(Client, Client, String)> {
    let (ana, ben) = (cluster.client(0, "+12025550100").await?, cluster.client(1, "+12025550101").await?);
    let chat = ana.rest().direct(ben.user_id()).await?.chat_id;
    Ok((ana, ben, chat))
}

/// Both send, and both see both; how many messages that took.
async fn talk(ana: &Client, ben: &Client, chat: &str) -> anyhow::Result<usize> {
    ana.send(chat, "from Ana").await?;
    ben.wait_for(chat, 1, WITHIN).await?;
    ben.send(chat, "from Ben").await?;
    for person in [ana, ben] {
        let view = person.wait_for(chat, 2, WITHIN).await?;
        assert_eq!(view.iter().map(|kept| kept.content.as_str()).collect::<Vec<_>>(), ["from Ana", "from Ben"]);
    }
    // A message that was there when its reader first asked for the chat came with the answer. Nobody asks again, so
    // what is said now comes by push, from one gateway to the other.
    let begun = Instant::now();
    let mut said = 2;
    while pushed(ana) == 0 || pushed(ben) == 0 {
        anyhow::ensure!(begun.elapsed() < WITHIN, "nothing is pushed");
        for person in [ana, ben] {
            person.send(chat, &format!("more from {}", person.user_id())).await?;
        }
        said += 2;
        for person in [ana, ben] {
            person.wait_for(chat, said, WITHIN).await?;
        }
    }
    Ok(said)
}

fn pushed(person: &Client) -> u64 {
    person.wire().pushes.load(Ordering::Relaxed)
}

#[tokio::test]
async fn two_people_on_different_gateways_exchange_messages() -> anyhow::Result<()> {
    let mut cluster = Cluster::start(&Plan::new("pair", Ground::shared().await?)).await?;
    let (ana, ben, chat) = two(&cluster).await?;
    talk(&ana, &ben, &chat).await?;
    for page in ["/livez", "/healthz"] {
        for service in cluster.services() {
            assert_eq!(service.page(page).await?.0, 200, "{} {page}", service.name());
        }
    }
    ana.stop().await;
    ben.stop().await;
    // Each ends well when it is asked to, whatever the others do.
    for service in cluster.services() {
        service.terminate().await?;
    }
    for service in cluster.services() {
        let (code, log) = service.ended().await?;
        assert_eq!(code, Some(0), "{}:\n{log}", service.name());
    }
    Ok(())
}

#[tokio::test]
async fn services_start_before_what_they_need_and_wait_for_it() -> anyhow::Result<()> {
    let plan = Plan::new("outward", Ground::shared().await?);
    let cluster = Cluster::start_in(&plan, Order::Outward).await?;
    let (ana, ben, chat) = two(&cluster).await?;
    talk(&ana, &ben, &chat).await?;
    Ok(())
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_or_doubled_when_an_ingest_is_killed() -> anyhow::Result<()> {
    let mut cluster = Cluster::start(&Plan::new("kill", Ground::shared().await?)).await?;
    let (ana, ben, chat) = two(&cluster).await?;
    let mut answers = Vec::new();
    for number in 0..300 {
        for (who, person) in [("ana", &ana), ("ben", &ben)] {
            let content = format!("0/{who}/{number}");
            answers.push((content.clone(), person.begin_send(&chat, &content).await?));
        }
        match number {
            // One of the two has the chat: both are killed in turn.
            80 => cluster.ingests[0].kill().await?,
            120 => cluster.ingests[0].start_again()?,
            160 => {
                cluster.ingests[0].ready().await?;
                cluster.ingests[1].kill().await?;
            }
            200 => cluster.ingests[1].start_again()?,
            _ => sleep(Duration::from_millis(5)).await,
        }
    }
    let attempted: Vec<String> = answers.iter().map(|(content, _)| content.clone()).collect();
    let mut acknowledged = Vec::new();
    for (content, answer) in answers {
        let sent = tokio::time::timeout(WITHIN, answer).await.context("no answer in time")???;
        acknowledged.push(Acknowledged { chat: chat.clone(), content, sent });
    }
    let history = ana.rest().history(&chat).await?;
    assert_eq!(history.len(), attempted.len());
    assert_eq!(check_history(&history, &acknowledged, &attempted), Violations::new());
    let sender = |ack: &Acknowledged| ack.content.split('/').nth(1).unwrap_or_default().to_owned();
    assert_eq!(check_order(&acknowledged, sender), Violations::new());
    for person in [&ana, &ben] {
        let view = person.wait_for(&chat, history.len(), WITHIN).await?;
        assert_eq!(check_view(&view, &history), Violations::new());
    }
    Ok(())
}

#[tokio::test]
async fn a_gateway_that_is_asked_to_stop_hands_its_clients_over() -> anyhow::Result<()> {
    let mut cluster = Cluster::start(&Plan::new("drain", Ground::shared().await?)).await?;
    let (ana, ben, chat) = two(&cluster).await?;
    let mut answers = Vec::new();
    for number in 0..60 {
        answers.push(ana.begin_send(&chat, &format!("{number}")).await?);
        if number == 20 {
            cluster.gateways[0].terminate().await?;
            let (code, log) = cluster.gateways[0].ended().await?;
            assert_eq!(code, Some(0), "{log}");
            cluster.gateways[0].start_again()?;
            cluster.gateways[0].ready().await?;
            cluster.reopen(0).await?;
        }
    }
    for answer in answers {
        tokio::time::timeout(WITHIN, answer).await.context("no answer in time")???;
    }
    let view = ben.wait_for(&chat, 60, WITHIN).await?;
    assert_eq!(check_view(&view, &ana.rest().history(&chat).await?), Violations::new());
    Ok(())
}

#[tokio::test]
async fn kafka_with_scram_takes_the_services_and_nobody_without_a_password() -> anyhow::Result<()> {
    let ground = Ground::shared().await?;
    let secured = ground.secured.as_ref().context("a real Kafka")?;
    let secrets = tempfile::tempdir()?;
    let file = |name: &str, text: &str| -> anyhow::Result<String> {
        let file = secrets.path().join(name);
        std::fs::write(&file, text)?;
        Ok(file.display().to_string())
    };
    let plan = Plan::new("scram", ground)
        .with("LOG_BROKERS", &secured.scram)
        .with("LOG_AUTH", "scram-sha-512")
        .with("LOG_USER_FILE", file("user", "app")?)
        .with("LOG_PASSWORD_FILE", file("password", "app-secret\n")?);
    let mut cluster = Cluster::start(&plan).await?;
    let (ana, ben, chat) = two(&cluster).await?;
    talk(&ana, &ben, &chat).await?;

    // With another password there is no place in the group, and the process says so without ending.
    let wrong = file("wrong", "not it")?;
    cluster.fanout.kill().await?;
    cluster.fanout.set("LOG_PASSWORD_FILE", wrong);
    cluster.fanout.start_again()?;
    cluster.fanout.unready_with("log").await?;
    Ok(())
}

#[tokio::test]
async fn kafka_with_mutual_tls_takes_the_services_and_nobody_without_a_certificate() -> anyhow::Result<()> {
    let ground = Ground::shared().await?;
    let secured = ground.secured.as_ref().context("a real Kafka")?;
    let file = |name: &str| secured.certificates.join(name).display().to_string();
    let plan = Plan::new("mtls", ground)
        .with("LOG_BROKERS", &secured.tls)
        .with("LOG_TLS", "on")
        .with("LOG_TLS_CA_FILE", file("ca.crt"))
        .with("LOG_AUTH", "mtls")
        .with("LOG_TLS_CERTIFICATE_FILE", file("client.crt"))
        .with("LOG_TLS_KEY_FILE", file("client.key"));
    let mut cluster = Cluster::start(&plan).await?;
    let (ana, ben, chat) = two(&cluster).await?;
    talk(&ana, &ben, &chat).await?;

    // Without a certificate there is no place in the group, and the process waits.
    cluster.fanout.kill().await?;
    cluster.fanout.set("LOG_AUTH", "none");
    cluster.fanout.start_again()?;
    cluster.fanout.unready_with("log").await?;
    Ok(())
}

#[tokio::test]
async fn redis_with_tls_and_a_password_takes_the_services_and_a_changed_password_heals() -> anyhow::Result<()> {
    let ground = Ground::shared().await?;
    let redis = SecureRedis::start().await?;
    let secrets = tempfile::tempdir()?;
    let (user, password) = (secrets.path().join("user"), secrets.path().join("password"));
    std::fs::write(&user, "app\n")?;
    std::fs::write(&password, "not it")?;
    let shown = |path: &std::path::Path| path.display().to_string();
    let plan = Plan::new("tls", ground)
        .with("REDIS_URL", format!("rediss://{}", redis.address))
        .with("REDIS_TLS_CA_FILE", shown(&redis.authority))
        .with("REDIS_USER_FILE", shown(&user))
        .with("REDIS_PASSWORD_FILE", shown(&password));
    // The password comes right while the services wait for it.
    let correct = async {
        sleep(Duration::from_secs(2)).await;
        std::fs::write(&password, "app-secret")?;
        anyhow::Ok(())
    };
    let (cluster, corrected) = tokio::join!(Cluster::start(&plan), correct);
    corrected?;
    let cluster = cluster?;
    let (ana, ben, chat) = two(&cluster).await?;
    talk(&ana, &ben, &chat).await?;
    Ok(())
}

#[tokio::test]
async fn each_system_may_go_away_and_come_back() -> anyhow::Result<()> {
    let own = OwnGround::start().await?;
    let mut cluster = Cluster::start(&Plan::new("away", &own.ground)).await?;
    let (ana, ben, chat) = two(&cluster).await?;
    let said = talk(&ana, &ben, &chat).await?;

    // The cache: nobody new is let in, what is said is stored, and is shown once it is back.
    own.kill(System::Redis).await?;
    for service in [&cluster.gateways[0], &cluster.gateways[1], &cluster.fanout, &cluster.chatmgmt] {
        let why = service.unready_with("cache (").await?;
        assert_eq!(service.page("/livez").await?.0, 200, "{} waits: {why}", service.name());
    }
    ana.send(&chat, "without the cache").await?;
    own.start_again(System::Redis).await?;
    ben.wait_for(&chat, said + 1, WITHIN).await?;

    // The log: what is said is stored, and is shown once it is back.
    own.kill(System::Kafka).await?;
    ana.send(&chat, "without the log").await?;
    own.start_again(System::Kafka).await?;
    ben.wait_for(&chat, said + 2, WITHIN).await?;

    // The store: what is said has no answer until it is back.
    own.kill(System::DynamoDb).await?;
    cluster.chatmgmt.unready_with("store (").await?;
    for ingest in &cluster.ingests {
        ingest.unready_with("ingest lease (").await?;
    }
    let answer = ana.begin_send(&chat, "without the store").await?;
    own.start_again(System::DynamoDb).await?;
    tokio::time::timeout(WITHIN, answer).await.context("no answer in time")???;
    let view = ben.wait_for(&chat, said + 3, WITHIN).await?;
    assert_eq!(check_view(&view, &ana.rest().history(&chat).await?), Violations::new());
    // No process was replaced meanwhile, and all are content.
    for service in cluster.services() {
        service.ready().await?;
    }
    Ok(())
}

#[tokio::test]
async fn what_is_missing_or_wrong_ends_a_service_with_its_name() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let token = folder.path().join("internal-token");
    std::fs::write(&token, "between the services")?;
    let nowhere = || "127.0.0.1:9".to_owned();
    let ground = Ground { kafka: nowhere(), secured: None, has_topics: false, store: nowhere(), redis: nowhere() };
    let plan = Plan::new("wrong", &ground).with("INTERNAL_TOKEN_FILE", token.display().to_string());
    let cases = [
        ("LOG_AUTH", "scram-sha-512", "--log-user-file"),
        ("LOG_AUTH", "aws-iam", "--log-auth can't be used"),
        ("LOG_TLS_CA_FILE", "/nonexistent", "--log-tls is off"),
        ("INTERNAL_TOKEN_FILE", "/nonexistent", "/nonexistent"),
        ("STOP_TIMEOUT", "soon", "--stop-timeout"),
        ("GRPC_LISTEN", "192.0.2.1:0", "--grpc-listen"),
    ];
    for (variable, value, named) in cases {
        let wrong = plan.clone().with(variable, value);
        let mut service = Service::start("ingest", "ingest", folder.path(), wrong.variables())?;
        let (code, log) = service.ended().await?;
        assert!(code.is_some_and(|code| code != 0) && log.contains(named), "{variable}={value}: {code:?}\n{log}");
        assert!(!log.contains("panicked"), "{log}");
    }
    // With nothing behind it, it waits and says for what.
    let mut service = Service::start("ingest", "ingest", folder.path(), plan.variables())?;
    service.unready_with("ingest lease (").await?;
    assert_eq!(service.page("/livez").await?.0, 200);
    service.terminate().await?;
    let (code, log) = service.ended().await?;
    assert_eq!(code, Some(0), "{log}");
    Ok(())
}

/// For whoever reads the output; machines differ, so nothing is asserted but that each gets ready.
#[tokio::test]
async fn each_service_gets_ready_and_says_what_it_costs() -> anyhow::Result<()> {
    let mut cluster = Cluster::start(&Plan::new("cost", Ground::shared().await?)).await?;
    let mut line = String::new();
    for number in 0..cluster.services().len() {
        let service = cluster.services().swap_remove(number);
        service.terminate().await?;
        service.ended().await?;
        service.start_again()?;
        let (took, memory) = (service.ready().await?, service.memory_kilobytes());
        write!(line, "{} ready {took:?} after its start, {memory} KB; ", service.name())?;
    }
    println!("{line}");
    Ok(())
}
