//! Starts the backing systems, then the services over them, in the order in which they need each other.

use std::{path::Path, sync::Arc};

use anyhow::Context as _;
use embedded::{Cache, DataFolder, Log, Store};
use platform::{Process, Secret};
use proto::topics::Topic;

use crate::{addresses::Addresses, config::Config};

/// What tables, topics and keys of this process begin with.
const NAMESPACE: &str = "local";
const CLUSTER: &str = "messaging";

/// What has to live as long as the services.
pub(crate) struct Systems {
    _folder: DataFolder,
    _cache: Cache,
    _log: Option<Log>,
}

/// Starts everything; what is returned is dropped when the services have ended.
pub(crate) async fn all(config: Config, process: Process) -> anyhow::Result<Systems> {
    let folder = DataFolder::lock(&config.data)?;
    let (listener, public) = process.bind("--listen", config.listen).await?;
    let auth_dir = folder.path().join("auth");
    if !auth_dir.exists() {
        chatmgmt::secrets::create(&auth_dir, &*process.ids(), &*process.clock())?;
    }

    let topics = format!("{NAMESPACE}.{CLUSTER}.");
    let store = start_store(&config, folder.path(), &process).await?;
    let cache = Cache::start().await?;
    let log = start_log(&config, &topics)?;
    let brokers = match (&log, &config.log_brokers) {
        (Some(log), _) => log.brokers.clone(),
        (None, brokers) => brokers.clone().unwrap_or_default(),
    };

    let store_config = store_config(&store.endpoint);
    let log_config = adapters::kafka::Config::new(&brokers, &topics);
    let redis_config = adapters::redis::Config::new(&cache.url, &topics);
    adapters::dynamodb::Store::new(&store_config).await.create_tables().await?;

    let ingest = ingest::config::Settings::on_loopback(
        store_config.clone(),
        log_config.clone(),
        auth_dir.join("internal-token"),
    );
    let ingest = ingest::wire_up::start(ingest, &process).await.context("ingest")?;

    let mut gateway =
        gateway::config::Settings::on_loopback(redis_config.clone(), auth_dir.clone(), vec![ingest.grpc.to_string()]);
    gateway.limits = config.gateway.clone();
    let gateway = gateway::wire_up::start(gateway, &process).await.context("gateway")?;

    let fanout = fanout::config::Settings::on_loopback(
        store_config.clone(),
        log_config.clone(),
        redis_config.clone(),
        auth_dir.clone(),
    );
    fanout::wire_up::start(fanout, &process).await.context("fanout")?;

    let mut chatmgmt = chatmgmt::config::Settings::on_loopback(store_config, redis_config, log_config, auth_dir);
    chatmgmt.limits = config.chatmgmt.clone();
    let chatmgmt = chatmgmt::wire_up::start(chatmgmt, &process).await.context("chatmgmt")?;

    process.serve_http("public", listener, gateway.http.merge(chatmgmt.http));
    let addresses = Addresses { public, store: store.endpoint, log: brokers, cache: cache.url.clone() };
    announce_when_ready(&process, addresses, folder.path());
    Ok(Systems { _folder: folder, _cache: cache, _log: log })
}

async fn start_store(config: &Config, folder: &Path, process: &Process) -> anyhow::Result<Store> {
    let store = Store::start(Some(folder), process).await?;
    match &config.store_calls {
        Some(file) => store.recorded_to(file, process).await,
        None => Ok(store),
    }
}

fn start_log(config: &Config, prefix: &str) -> anyhow::Result<Option<Log>> {
    if config.log_brokers.is_some() {
        return Ok(None);
    }
    // One process consumes them all: a few partitions show what many do, and cost less.
    let topics = Topic::ALL.map(|topic| (format!("{prefix}{}", topic.name()), topic.default_partitions().min(8)));
    Ok(Some(Log::start(&topics)?))
}

fn store_config(endpoint: &str) -> adapters::dynamodb::Config {
    adapters::dynamodb::Config {
        store_table_prefix: format!("{NAMESPACE}-{CLUSTER}-"),
        store_region: "us-east-1".to_owned(),
        store_endpoint: Some(endpoint.to_owned()),
        store_access_key: Some("embedded".to_owned()),
        store_secret_key: Some(Secret::new("embedded")),
    }
}

/// Announces once every gate of the services is open.
fn announce_when_ready(process: &Process, addresses: Addresses, folder: &Path) {
    let (waiting, folder) = (process.clone(), Arc::from(folder));
    process.spawn("announce", async move {
        let folder: Arc<Path> = folder;
        tokio::select! {
            () = waiting.ready() => {}
            () = waiting.stopping() => return Ok(()),
        }
        addresses.write(&folder)?;
        addresses.announce()
    });
}
