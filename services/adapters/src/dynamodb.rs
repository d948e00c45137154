//! The store: settings, client, and a port a file.

pub mod admin;
pub(crate) mod attributes;
pub mod chat_list;
pub mod chats;
pub mod delivery_state;
pub mod heads;
pub mod incarnations;
pub mod layout;
pub mod membership_directory;
pub mod message_history;
pub mod message_log;
pub mod otp_requests;
pub mod outbox;
pub mod restore;
pub mod sessions;
mod transact;
pub mod users;

use aws_sdk_dynamodb::{
    Client,
    config::{AppName, BehaviorVersion, Credentials, Region, retry::RetryConfig, timeout::TimeoutConfig},
    error::{ProvideErrorMetadata, SdkError},
};
use clap::Args;
use platform::{Process, Secret, dependency};
use std::time::Duration;

/// Where the tables are.
#[derive(Clone, Debug, Args)]
#[group(skip)]
pub struct Config {
    /// What every table's name begins with, usually `<namespace>-<cluster>-`
    #[arg(long, env = "STORE_TABLE_PREFIX")]
    pub store_table_prefix: String,

    /// Region of the tables
    #[arg(long, env = "AWS_REGION", default_value = "us-east-1")]
    pub store_region: String,

    /// Another endpoint than the region's, for a local store
    #[arg(long, env = "STORE_ENDPOINT")]
    pub store_endpoint: Option<String>,

    /// Access key; without it the machine's own credentials are used (web identity on EKS)
    #[arg(long, env = "STORE_ACCESS_KEY", requires = "store_secret_key")]
    pub store_access_key: Option<String>,

    /// Secret key to the access key
    #[arg(long, env = "STORE_SECRET_KEY", requires = "store_access_key", hide_env_values = true)]
    pub store_secret_key: Option<Secret>,
}

/// The store of one cluster.
#[derive(Clone, Debug)]
pub struct Store {
    /// The client. It never retries by itself: whether a repetition is safe is the caller's to know.
    pub client: Client,
    prefix: String,
}

impl Store {
    /// Makes a client; nothing is connected yet.
    pub async fn new(config: &Config) -> Self {
        Self::for_service(config, "messaging").await
    }

    /// The same for a service, which the store is told with each call.
    pub async fn for_service(config: &Config, service: &'static str) -> Self {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(Duration::from_secs(1))
            .operation_attempt_timeout(Duration::from_secs(2))
            .build();
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .region(Region::new(config.store_region.clone()))
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts);
        if let Ok(name) = AppName::new(service) {
            loader = loader.app_name(name);
        }
        if let Some(endpoint) = &config.store_endpoint {
            loader = loader.endpoint_url(endpoint);
        }
        if let (Some(key), Some(secret)) = (&config.store_access_key, &config.store_secret_key) {
            loader = loader.credentials_provider(Credentials::new(key, secret.expose(), None, None, "settings"));
        }
        Self { client: Client::new(&loader.load().await), prefix: config.store_table_prefix.clone() }
    }

    /// The process is ready only while this table can be read.
    pub fn needed_by(&self, process: &Process, table: layout::Table) {
        let store = self.clone();
        dependency::watch(process, "store", move || {
            let keys = table.definition();
            let mut look = store.client.get_item().table_name(store.table(table));
            for layout::Key(name, kind) in std::iter::once(keys.partition).chain(keys.sort) {
                look = look.key(
                    name,
                    match kind {
                        layout::KeyKind::Text => attributes::text("is-it-there"),
                        layout::KeyKind::Number => attributes::number(0),
                    },
                );
            }
            let name = store.table(table);
            async move {
                match look.send().await {
                    Ok(_) => Ok(()),
                    Err(error) => Err(anyhow::anyhow!("{name}: {}", why(&error))),
                }
            }
        });
    }

    /// A table's full name.
    pub fn table(&self, table: layout::Table) -> String {
        format!("{}{}", self.prefix, table.name())
    }
}

/// What went wrong, in the store's own words or in those of the deepest cause.
fn why<E: ProvideErrorMetadata + std::error::Error + 'static>(error: &SdkError<E>) -> String {
    if let Some(refusal) = error.as_service_error() {
        let (code, message) = (refusal.code().unwrap_or("refused"), refusal.message().unwrap_or_default());
        return format!("{code} {message}").trim_end().to_owned();
    }
    let mut deepest: &dyn std::error::Error = error;
    while let Some(cause) = deepest.source() {
        deepest = cause;
    }
    deepest.to_string()
}
