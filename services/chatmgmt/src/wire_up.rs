//! Joins adapters to ports, and starts chatmgmt inside a process.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use adapters::{dynamodb, kafka, redis};
use axum::Router;
use domain::ports::{EventPublisher, Users};
use platform::{Process, Secret, grpc::InternalToken, tokens::Verifier};
use proto::messaging::v1::chats_server::ChatsServer;
use tonic::service::{InterceptorLayer, Routes};

use crate::{
    caller::Callers,
    chats,
    config::{Limits, Settings},
    metrics::Metrics,
    outbox, rest,
    secrets::Secrets,
};

/// How often the public keys are looked at for a change.
const KEYS_EVERY: Duration = Duration::from_secs(5);

/// A chatmgmt that runs in a process.
pub struct Running {
    /// REST; whoever starts the process serves it.
    pub http: Router,
    /// Where gRPC is served.
    pub grpc: SocketAddr,
}

/// Connects, starts gRPC, and says that it is ready.
///
/// # Errors
/// When a secret or the cache is missing, or an address is in use.
pub async fn start(settings: Settings, process: &Process) -> anyhow::Result<Running> {
    let ready = process.gate("chatmgmt");
    let secrets = Secrets::read(&settings.auth_dir, settings.auth_signing_key.as_deref())?;
    let verifier = Arc::new(Verifier::from_jwks_file(&secrets.public_keys)?);
    follow_public_keys(verifier.clone(), process);
    let store = dynamodb::Store::new(&settings.store).await;
    let cache = redis::Cache::connect(&settings.redis).await?;
    let metrics = process.metrics(Metrics::register);

    let services = services(&settings, &store, &cache, &secrets, verifier, &metrics, process)?;

    let (listener, grpc) = process.bind("--grpc-listen", settings.grpc_listen).await?;
    process.serve_grpc("grpc", listener, only_internal(services.clone(), &secrets.internal_token)?);
    let http = rest::router(services, options(&settings), process, metrics)?;
    ready.open();
    Ok(Running { http, grpc })
}

/// The gRPC services, which REST calls in-process: a line each.
fn services(
    settings: &Settings,
    store: &dynamodb::Store,
    cache: &redis::Cache,
    secrets: &Secrets,
    verifier: Arc<Verifier>,
    metrics: &Metrics,
    process: &Process,
) -> anyhow::Result<Routes> {
    let revocations = Arc::new(redis::revocations::Revocations::new(cache.clone()));
    let callers = Callers::new(verifier, revocations.clone(), process.clock());
    let _ = (settings, store, secrets, metrics, callers);
    Ok(Routes::default())
}

/// Chats and history, and the publisher of what happens to them.
pub fn chats(
    limits: &Limits,
    store: &dynamodb::Store,
    log: Arc<dyn EventPublisher>,
    callers: Callers,
    users: Arc<dyn Users>,
    process: &Process,
) -> ChatsServer<chats::Service> {
    let outbox = Arc::new(dynamodb::outbox::Outbox::new(store.clone(), process.ids()));
    let published = process.metrics(outbox::Metrics::register);
    ChatsServer::new(chats::Service::new(chats::Parts {
        callers,
        chats: Arc::new(dynamodb::chats::Chats::new(store.clone(), process.ids())),
        list: Arc::new(dynamodb::chat_list::ChatList::new(store.clone(), process.ids())),
        directory: Arc::new(dynamodb::membership_directory::MembershipDirectory::new(store.clone())),
        history: Arc::new(dynamodb::message_history::MessageHistory::new(store.clone())),
        users,
        wake: outbox::start(outbox.clone(), log, limits, published, process),
        outbox,
        clock: process.clock(),
        ids: process.ids(),
        limits: limits.clone(),
        metrics: process.metrics(chats::Metrics::register),
    }))
}

fn only_internal(services: Routes, token: &Secret) -> anyhow::Result<Routes> {
    let token = InternalToken::new(token)?;
    Ok(Routes::from(services.into_axum_router().layer(InterceptorLayer::new(token.require()))))
}

fn options(settings: &Settings) -> rest::Options {
    rest::Options {
        trusted_proxy_hops: settings.trusted_proxy_hops,
        request_timeout: settings.limits.request_timeout,
        max_chats_per_user: settings.limits.chats_per_user,
        max_chat_members: settings.limits.group_members,
    }
}

fn follow_public_keys(verifier: Arc<Verifier>, process: &Process) {
    let stop = process.stop_token();
    process.spawn("public keys", async move {
        while stop.run_until_cancelled(tokio::time::sleep(KEYS_EVERY)).await.is_some() {
            if let Err(error) = verifier.reload() {
                tracing::warn!("public keys could not be read again, the old ones stay: {error:#}");
            }
        }
        Ok(())
    });
}
