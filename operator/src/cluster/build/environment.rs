//! What a process is told: variables, and Secrets as files. One place for all four services (docs/SETTINGS.md).

use std::{collections::BTreeMap, time::Duration};

use crds::messaging_cluster::{LogLevel, SmsProvider};

use super::object::Of;
use crate::cluster::validate::{KafkaLogin, Service, Tls, times};

/// Where the folders of Secrets are.
const FOLDER: &str = "/etc/messaging";

/// How long a stopping pod serves on, until every proxy knows that it is gone.
pub(super) const DRAIN_DELAY: Duration = Duration::from_secs(3);

/// The port of HTTP for clients.
pub(super) const HTTP: i32 = 8080;
/// The port of gRPC between services.
pub(super) const GRPC: i32 = 9090;
/// The port of probes and metrics.
pub(super) const ADMIN: i32 = 9100;

/// Files that the process follows by itself: a change restarts nothing.
const FOLLOWED: [&str; 1] = ["jwks.json"];

/// A folder of files that come from Secrets.
#[derive(Debug)]
pub(super) struct Folder {
    /// Its name under [`FOLDER`], and that of the volume.
    pub(super) name: &'static str,
    /// Its files.
    pub(super) files: Vec<File>,
}

/// One file of a Secret.
#[derive(Debug)]
pub(super) struct File {
    pub(super) secret: String,
    pub(super) key: String,
    pub(super) path: String,
}

impl Folder {
    /// Where it is mounted.
    pub(super) fn mount_path(&self) -> String {
        format!("{FOLDER}/{}", self.name)
    }

    fn file(&mut self, secret: &str, key: &str, path: &str) -> String {
        self.files.push(File { secret: secret.to_owned(), key: key.to_owned(), path: path.to_owned() });
        format!("{}/{path}", self.mount_path())
    }
}

impl File {
    /// Whether a change of it needs a new process.
    pub(super) fn is_read_once(&self) -> bool {
        !FOLLOWED.contains(&self.key.as_str())
    }
}

/// A variable whose value stands in a Secret, because no process reads it from a file.
#[derive(Debug)]
pub(super) struct SecretVariable {
    pub(super) name: &'static str,
    pub(super) secret: String,
    pub(super) key: &'static str,
}

/// All that one process is told.
#[derive(Debug, Default)]
pub(super) struct Environment {
    /// Variables without secrets.
    pub(super) variables: BTreeMap<&'static str, String>,
    /// Variables with secrets.
    pub(super) secret_variables: Vec<SecretVariable>,
    /// Folders with Secrets.
    pub(super) folders: Vec<Folder>,
}

/// What the processes of a service are told.
pub(super) fn of(of: Of<'_>) -> Environment {
    let mut environment = Environment { variables: of.component.settings.clone(), ..Environment::default() };
    process(&mut environment, of);
    auth(&mut environment, of);
    if of.service.uses_log() {
        log(&mut environment, of);
    }
    if of.service.uses_store() {
        store(&mut environment, of);
    }
    if of.service.uses_cache() {
        cache(&mut environment, of);
    }
    environment
}

impl Environment {
    fn set(&mut self, variable: &'static str, value: impl Into<String>) {
        self.variables.insert(variable, value.into());
    }

    fn push(&mut self, folder: Folder) {
        if !folder.files.is_empty() {
            self.folders.push(folder);
        }
    }
}

fn process(environment: &mut Environment, of: Of<'_>) {
    let level = match of.cluster.log_level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    };
    environment.set("LOG", level);
    environment.set("LOG_FORMAT", "json");
    // Several clusters may write to one place.
    environment.set("ENVIRONMENT", format!("{}.{}", of.cluster.namespace, of.cluster.name));
    if let Some(otlp) = &of.cluster.otlp {
        environment.set("OTEL_EXPORTER_OTLP_ENDPOINT", &otlp.endpoint);
        if let Some(kept) = otlp.traces_per_minute {
            environment.set("TRACES_PER_MINUTE", kept.to_string());
        }
    }
    environment.set("ADMIN_LISTEN", format!("0.0.0.0:{ADMIN}"));
    // The pod's grace period is made of these two.
    environment.set("DRAIN_DELAY", times::write(DRAIN_DELAY));
    environment.set("STOP_TIMEOUT", times::write(of.component.drain));
    if of.service.serves_clients() {
        environment.set("LISTEN", format!("0.0.0.0:{HTTP}"));
    }
    if of.service != Service::Fanout {
        environment.set("GRPC_LISTEN", format!("0.0.0.0:{GRPC}"));
    }
    if of.service == Service::Gateway {
        let (cluster, namespace, domain) = (&of.cluster.name, &of.cluster.namespace, &of.cluster.dns_domain);
        environment.set("INGEST", format!("{cluster}-ingest-headless.{namespace}.svc.{domain}:{GRPC}"));
    }
}

fn auth(environment: &mut Environment, of: Of<'_>) {
    let auth = &of.cluster.auth;
    let mut folder = Folder { name: "auth", files: Vec::new() };
    let token = folder.file(&auth.secret, "internal-token", "internal-token");
    if of.service.serves_clients() {
        folder.file(&auth.secret, "jwks.json", "jwks.json");
        environment.set("AUTH_DIR", folder.mount_path());
    } else {
        environment.set("INTERNAL_TOKEN_FILE", token);
    }
    if of.service == Service::ChatMgmt {
        let key = format!("{}.pem", auth.signing_key);
        for key in [&key, "otp-key", "otp-pepper", "refresh-key"] {
            folder.file(&auth.secret, key, key);
        }
        environment.set("AUTH_SIGNING_KEY", auth.signing_key.clone());
        let provider = match auth.sms {
            SmsProvider::Log => "log",
        };
        environment.set("SMS_PROVIDER", provider);
    }
    environment.push(folder);
}

fn log(environment: &mut Environment, of: Of<'_>) {
    let kafka = of.cluster.kafka();
    environment.set("LOG_BROKERS", kafka.brokers.join(","));
    environment.set("LOG_PREFIX", kafka.topics.prefix.clone());
    let mut folder = Folder { name: "kafka", files: Vec::new() };
    if let Some(tls) = &kafka.tls {
        environment.set("LOG_TLS", "on");
        authorities(environment, &mut folder, tls, "LOG_TLS_CA_FILE");
    }
    match &kafka.login {
        KafkaLogin::None => {}
        KafkaLogin::AwsIam => environment.set("LOG_AUTH", "aws-iam"),
        KafkaLogin::Scram { secret, .. } => {
            environment.set("LOG_AUTH", "scram-sha-512");
            environment.set("LOG_USER_FILE", folder.file(secret, "username", "user"));
            environment.set("LOG_PASSWORD_FILE", folder.file(secret, "password", "password"));
        }
        KafkaLogin::Mtls { secret, .. } => {
            environment.set("LOG_AUTH", "mtls");
            environment.set("LOG_TLS_CERTIFICATE_FILE", folder.file(secret, "tls.crt", "tls.crt"));
            environment.set("LOG_TLS_KEY_FILE", folder.file(secret, "tls.key", "tls.key"));
        }
    }
    environment.push(folder);
}

fn store(environment: &mut Environment, of: Of<'_>) {
    let store = of.cluster.dynamodb();
    environment.set("AWS_REGION", store.region.clone());
    environment.set("STORE_TABLE_PREFIX", store.tables.prefix.clone());
    if let Some(endpoint) = &store.endpoint {
        environment.set("STORE_ENDPOINT", endpoint.clone());
    }
    if let Some(credentials) = &store.credentials {
        for (name, key) in [("STORE_ACCESS_KEY", "access-key-id"), ("STORE_SECRET_KEY", "secret-access-key")] {
            environment.secret_variables.push(SecretVariable { name, secret: credentials.secret.clone(), key });
        }
    }
}

fn cache(environment: &mut Environment, of: Of<'_>) {
    let redis = &of.cluster.redis;
    let scheme = if redis.tls.is_some() { "rediss" } else { "redis" };
    environment.set("REDIS_URL", format!("{scheme}://{}", redis.endpoint));
    environment.set("REDIS_PREFIX", redis.prefix.clone());
    let mut folder = Folder { name: "redis", files: Vec::new() };
    if let Some(tls) = &redis.tls {
        authorities(environment, &mut folder, tls, "REDIS_TLS_CA_FILE");
    }
    if let Some(login) = &redis.login {
        if login.user.is_some() {
            environment.set("REDIS_USER_FILE", folder.file(&login.secret, "username", "user"));
        }
        environment.set("REDIS_PASSWORD_FILE", folder.file(&login.secret, "password", "password"));
    }
    environment.push(folder);
}

fn authorities(environment: &mut Environment, folder: &mut Folder, tls: &Tls, variable: &'static str) {
    if let Some(authorities) = &tls.authorities {
        let file = folder.file(&authorities.secret, "ca.crt", "ca.crt");
        environment.set(variable, file);
    }
}
