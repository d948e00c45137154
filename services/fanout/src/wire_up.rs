//! Joins fanout to the log, the cache and the store.

use std::{sync::Arc, time::Duration};

use adapters::{
    dynamodb::{self, layout::Table},
    kafka, redis,
};
use anyhow::Context as _;
use domain::ports::{
    ConnectionRegistry, DeadLetters, EventSource, MembershipCache, MembershipDirectory, MessageHistory,
};
use platform::{Process, Secret, grpc::InternalToken};
use proto::topics::Topic;

use crate::{
    config::{Limits, Settings},
    consume::Consume,
    gateways::Gateways,
    members::Members,
    metrics::Metrics,
    route::Route,
};

/// The consumer group of all fanout processes, without the cluster's prefix.
pub const GROUP: &str = "fanout-workers";

/// How long the log may take to confirm a dead letter.
const DEAD_LETTER_WITHIN: Duration = Duration::from_secs(5);

/// A service that runs. It answers nobody, so it has no address.
#[derive(Clone, Copy, Debug)]
pub struct Running;

/// What fanout needs from the outside.
pub struct Ports {
    /// Where the events come from.
    pub source: Arc<dyn EventSource>,
    /// Where those go that nobody can read.
    pub dead_letters: Arc<dyn DeadLetters>,
    /// Who is in a chat, remembered.
    pub cache: Arc<dyn MembershipCache>,
    /// Who is in a chat, from the store.
    pub directory: Arc<dyn MembershipDirectory>,
    /// Stored messages.
    pub history: Arc<dyn MessageHistory>,
    /// Where users are connected.
    pub registry: Arc<dyn ConnectionRegistry>,
}

/// Starts the service on the systems that the settings name.
///
/// # Errors
/// When the token can't be read, or a setting is wrong. Systems that are away are waited for.
pub async fn start(settings: Settings, process: &Process) -> anyhow::Result<Running> {
    let file = &settings.internal_token_file;
    let token = tokio::fs::read_to_string(file).await.with_context(|| format!("failed to read {}", file.display()))?;
    let token = InternalToken::new(&Secret::new(token))?;
    let store = dynamodb::Store::for_service(&settings.store, "fanout").await;
    let cache = redis::Cache::new(&settings.redis)?;
    cache.needed_by(process);
    store.needed_by(process, Table::ChatMemberships);
    let publisher = kafka::publisher::Publisher::new(&settings.log, process)?;
    let consumer = format!("fanout-{}", process.ids().ulid());
    let topics = [Topic::MessagesPersisted, Topic::MembershipsChanged, Topic::ChatsCreated];
    let ports = Ports {
        source: kafka::source::Source::new(&settings.log, &settings.source, &topics, GROUP, process)?,
        dead_letters: Arc::new(kafka::dead_letters::KafkaDeadLetters::new(
            publisher,
            GROUP,
            consumer,
            DEAD_LETTER_WITHIN,
        )),
        cache: Arc::new(redis::membership_cache::RedisMembershipCache::new(cache.clone())),
        directory: Arc::new(dynamodb::membership_directory::MembershipDirectory::new(store.clone())),
        history: Arc::new(dynamodb::message_history::MessageHistory::new(store)),
        registry: Arc::new(redis::connection_registry::Registry::new(cache)),
    };
    Ok(join(ports, token, &settings.limits, process))
}

/// Joins the parts to the ports and starts them. The process is ready when it is a member of the group.
pub fn join(ports: Ports, token: InternalToken, limits: &Limits, process: &Process) -> Running {
    let metrics = process.metrics(Metrics::register);
    let route = Arc::new(Route {
        members: Members::new(ports.cache, ports.directory, limits, metrics.clone()),
        gateways: Gateways::new(process, token, limits, ports.registry.clone()),
        registry: ports.registry,
        history: ports.history,
        limits: limits.clone(),
        metrics,
        clock: process.clock(),
    });
    let consume = Consume::new(ports.source, route, ports.dead_letters, limits, process);
    let is_member = process.gate("log");
    is_member.close_for("not a member of its consumer group yet");
    process.spawn("consume", consume.run(is_member));
    Running
}
