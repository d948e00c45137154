//! Clients of the API server: one that repeats what the server was too busy for, one for the lease that does not, and what
//! both are seen to do.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use anyhow::Context as _;
use http::{Request, Response};
use kube::{Client, Config, client::ClientBuilder};
use tower::{Layer, Service};

use crate::metrics::Metrics;

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(5);
/// How long the lease's client waits for a byte.
const LEASE_READ: Duration = Duration::from_secs(3);

/// The clients of one process.
#[derive(Clone)]
pub struct Clients {
    /// For everything but the lease.
    pub objects: Client,
    /// For the lease: it never retries and never waits long.
    pub lease: Client,
}

impl Clients {
    /// Connects as the environment says: a pod's own account, or a kubeconfig.
    ///
    /// # Errors
    /// When neither is there.
    pub async fn connect(metrics: &Arc<Metrics>) -> anyhow::Result<Self> {
        let config =
            Config::infer().await.context("neither a pod's account nor a kubeconfig says where the API server is")?;
        Self::new(config, metrics)
    }

    /// Connects as a configuration says.
    ///
    /// # Errors
    /// When its certificates can't be used.
    pub fn new(mut config: Config, metrics: &Arc<Metrics>) -> anyhow::Result<Self> {
        config.connect_timeout = Some(CONNECT);
        let mut careful = config.clone();
        careful.default_retry = false;
        careful.read_timeout = Some(LEASE_READ);
        let seen = Seen { metrics: metrics.clone() };
        let build = |config: Config| anyhow::Ok(ClientBuilder::try_from(config)?.with_layer(&seen).build());
        Ok(Self { objects: build(config)?, lease: build(careful)? })
    }
}

/// Counts requests by method and code.
#[derive(Clone)]
struct Seen {
    metrics: Arc<Metrics>,
}

impl<S> Layer<S> for Seen {
    type Service = Watched<S>;

    fn layer(&self, inner: S) -> Watched<S> {
        Watched { inner, metrics: self.metrics.clone() }
    }
}

/// A client whose requests are counted.
#[derive(Clone)]
struct Watched<S> {
    inner: S,
    metrics: Arc<Metrics>,
}

impl<S, B, R> Service<Request<B>> for Watched<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
    S::Error: 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let method = request.method().clone();
        let watched = request.uri().query().is_some_and(|query| query.contains("watch=true"));
        let path = request.uri().path().to_owned();
        let metrics = self.metrics.clone();
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await;
            match &answer {
                Ok(response) => {
                    metrics.request(&method, response.status().as_u16());
                    if watched && response.status().is_success() {
                        metrics.watch_began(&path);
                    }
                }
                Err(_) => metrics.request(&method, 0),
            }
            answer
        })
    }
}
