//! The wiring of gateway, for its own process and for one that holds all services.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use anyhow::Context as _;
use axum::Router;
use domain::{
    ports::{ConnectionRegistry, Revocations},
    route::GatewayId,
};
use platform::{Process, Secret, grpc::InternalToken, tokens::Verifier};
use proto::messaging::v1::{connections_server::ConnectionsServer, delivery_server::DeliveryServer};

use crate::{
    Gateway,
    addresses::Addresses,
    config::Settings,
    connections::{self, Connections},
    deliver::Deliver,
    handshake,
    ingest::Ingest,
    limits::{Buckets, Rate, Tallies, Windows},
    metrics::Metrics,
    replace::Replace,
};

/// The systems behind gateway.
pub struct Ports {
    /// Where fanout looks connections up.
    pub registry: Arc<dyn ConnectionRegistry>,
    /// Tokens and sessions that no longer count.
    pub revocations: Arc<dyn Revocations>,
}

/// A gateway that runs.
pub struct Running {
    /// The WebSocket endpoint, to be served to clients.
    pub http: Router,
    /// Where the delivery stream is served.
    pub grpc: SocketAddr,
    /// What runs.
    pub gateway: Arc<Gateway>,
}

/// Connects to the cache and starts a gateway on it.
///
/// # Errors
/// When a setting is wrong, a file is missing or the port is in use. A cache that is away is waited for.
pub async fn start(settings: Settings, process: &Process) -> anyhow::Result<Running> {
    let cache = adapters::redis::Cache::new(&settings.redis)?;
    cache.needed_by(process);
    let ports = Ports {
        registry: Arc::new(adapters::redis::connection_registry::Registry::new(cache.clone())),
        revocations: Arc::new(adapters::redis::revocations::Revocations::new(cache)),
    };
    start_on(ports, settings, process).await
}

/// Starts a gateway on these systems.
///
/// # Errors
/// When a setting is wrong, a file is missing or the port is in use.
pub async fn start_on(ports: Ports, settings: Settings, process: &Process) -> anyhow::Result<Running> {
    let verifier = Arc::new(Verifier::from_jwks_file(&settings.auth_dir.join("jwks.json"))?);
    let token = internal_token(&settings.auth_dir)?;
    let (listener, grpc) = process.bind("--grpc-listen", settings.grpc_listen).await?;
    let ids = process.ids();
    let id = GatewayId { address: advertised(&settings, grpc)?.into(), epoch: ids.ulid().to_string().into() };
    let limits = Arc::new(settings.limits);
    let metrics = process.metrics(Metrics::register);
    metrics.connections_limit.set(i64::try_from(limits.connection_maximum).unwrap_or(i64::MAX));
    let per_user = limits.send_per_user.max(limits.send_rate);
    let ingest = Arc::new(Ingest::new(settings.ingest, &token, &limits, &metrics.breakers_open)?);
    let gateway = Arc::new(Gateway {
        id,
        registry: ports.registry,
        revocations: ports.revocations,
        verifier: verifier.clone(),
        ingest: ingest.clone(),
        connections: Connections::default(),
        addresses: Addresses::new(&limits),
        trusted_proxy_hops: settings.trusted_proxy_hops,
        token: token.clone(),
        sends: Buckets::new(Rate::new(limits.send_rate, limits.send_burst), "too many messages to this chat"),
        senders: Buckets::new(Rate::new(per_user, per_user.saturating_mul(2)), "too many messages of this user"),
        hourly: Tallies::new(
            limits.send_per_hour,
            Duration::from_hours(1),
            "too many messages of this user in an hour",
        ),
        newcomers: Windows::new(
            limits.connection_new_per_user,
            limits.connection_new_within,
            "too many new connections",
        ),
        metrics,
        clock: process.clock(),
        ids,
        process: process.clone(),
        limits,
    });
    process.spawn("gateway reloads keys", reload(verifier, gateway.limits.auth_reload, process.clone()));
    process.spawn("gateway finds ingest", ingest.follow(process.clone(), process.gate("ingest")));
    process.spawn("gateway announces itself", connections::announce(gateway.clone()));
    let delivery = DeliveryServer::with_interceptor(Deliver::new(gateway.clone()), token.require());
    let replace = ConnectionsServer::with_interceptor(Replace(gateway.clone()), token.require());
    let services = tonic::service::Routes::new(delivery).add_service(replace);
    process.serve_grpc("gateway delivery", listener, services);
    tracing::info!(event = "gateway.announced", gateway.id = %gateway.id, "gateway {} takes deliveries", gateway.id);
    Ok(Running { http: handshake::router(gateway.clone()), grpc, gateway })
}

fn internal_token(folder: &Path) -> anyhow::Result<InternalToken> {
    let file = folder.join("internal-token");
    let text = std::fs::read_to_string(&file).with_context(|| format!("failed to read {}", file.display()))?;
    InternalToken::new(&Secret::new(text))
}

fn advertised(settings: &Settings, bound: SocketAddr) -> anyhow::Result<String> {
    if let Some(address) = &settings.advertise {
        return Ok(address.clone());
    }
    if let Some(ip) = settings.pod_ip {
        return Ok(SocketAddr::new(ip, bound.port()).to_string());
    }
    anyhow::ensure!(
        !bound.ip().is_unspecified(),
        "--pod-ip and --advertise are missing: nobody can reach this gateway at --grpc-listen {bound}"
    );
    Ok(bound.to_string())
}

async fn reload(verifier: Arc<Verifier>, every: Duration, process: Process) -> anyhow::Result<()> {
    let stop = process.stop_token();
    let mut ticks = tokio::time::interval(every);
    let mut was_broken = false;
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            _ = ticks.tick() => {}
        }
        match verifier.reload() {
            Ok(()) => was_broken = false,
            Err(error) if !was_broken => {
                was_broken = true;
                tracing::error!(
                    event = "auth.keys_unreadable",
                    error.message = %format_args!("{error:#}"),
                    "the public keys in use stay, for the new ones can't be read"
                );
            }
            Err(_) => {}
        }
    }
}
