//! Joins adapters to ports, and starts chatmgmt inside a process.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use adapters::{
    dynamodb::{self, layout::Table},
    kafka, redis,
    sms::LogSms,
};
use axum::Router;
use domain::ports::EventPublisher;
use platform::{Process, Secret, grpc::InternalToken, tokens::Verifier};
use proto::messaging::v1::{auth_server::AuthServer, chats_server::ChatsServer, users_server::UsersServer};
use tonic::service::{InterceptorLayer, Routes};

use crate::{
    auth::{self, Auth, Deliveries},
    caller::Callers,
    chats,
    config::{Limits, Settings, SmsProvider},
    metrics::Metrics,
    outbox,
    rate_limits::RateLimits,
    rest,
    secrets::Secrets,
    users::Users,
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
/// When a secret is missing, a setting is wrong, or an address is in use. Systems that are away are waited for.
pub async fn start(settings: Settings, process: &Process) -> anyhow::Result<Running> {
    let ready = process.gate("chatmgmt");
    let secrets = Secrets::read(&settings.auth_dir, settings.auth_signing_key.as_deref())?;
    let verifier = Arc::new(Verifier::from_jwks_file(&secrets.public_keys)?);
    follow_public_keys(verifier.clone(), process);
    let store = dynamodb::Store::for_service(&settings.store, "chatmgmt").await;
    let cache = redis::Cache::new(&settings.redis)?;
    store.needed_by(process, Table::Users);
    cache.needed_by(process);
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
    let counters = Arc::new(redis::auth_limits::AuthLimits::new(cache.clone()));
    let rate_limits = RateLimits::new(counters.clone(), metrics.clone());
    let users = Arc::new(dynamodb::users::Users::new(store.clone()));
    let sms = match settings.sms_provider {
        SmsProvider::Log => Arc::new(LogSms),
    };
    let needs = auth::Needs {
        callers: callers.clone(),
        otp_requests: Arc::new(dynamodb::otp_requests::OtpRequests::new(store.clone())),
        users: users.clone(),
        sessions: Arc::new(dynamodb::sessions::Sessions::new(store.clone(), process.ids())),
        revocations,
        bars: counters,
        rate_limits: rate_limits.clone(),
        deliveries: Deliveries::new(sms, &settings.limits, process, metrics.clone()),
        metrics: metrics.clone(),
        clock: process.clock(),
        ids: process.ids(),
    };
    let auth = Auth::new(needs, secrets, settings.limits.clone())?;
    let log = kafka::publisher::Publisher::new(&settings.log, process)?;
    let chats = chats(&settings.limits, store, log, callers.clone(), users.clone(), process);
    let users = Users::new(callers, users, rate_limits, settings.limits.clone(), process.clock());
    Ok(Routes::new(AuthServer::new(auth)).add_service(UsersServer::new(users)).add_service(chats))
}

/// Chats and history, and the publisher of what happens to them.
pub fn chats(
    limits: &Limits,
    store: &dynamodb::Store,
    log: Arc<dyn EventPublisher>,
    callers: Callers,
    users: Arc<dyn domain::ports::Users>,
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
                tracing::warn!(
                    event = "auth.keys_unreadable",
                    error.message = %format_args!("{error:#}"),
                    "public keys could not be read again, the old ones stay"
                );
            }
        }
        Ok(())
    });
}
