//! Settings of gateway; each is a flag and an environment variable.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use clap::{Args, Parser};
use domain::{
    Millis,
    limits::{self, CALL_MESSAGES},
};

/// Settings of the gateway process.
#[derive(Debug, Parser)]
#[command(name = "gateway", about = "Holds the WebSocket connections of clients")]
#[group(skip)]
pub struct Config {
    /// What every process has.
    #[command(flatten)]
    pub platform: platform::Config,

    /// Where clients connect
    #[arg(long, env = "LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,

    /// What this service has.
    #[command(flatten)]
    pub settings: Settings,
}

impl platform::Settings for Config {
    fn platform(&self) -> &platform::Config {
        &self.platform
    }
}

/// Settings of this service.
#[derive(Clone, Debug, Args)]
#[group(skip)]
pub struct Settings {
    /// Where the registry of connections and the revocations are.
    #[command(flatten)]
    pub redis: adapters::redis::Config,

    /// Folder with jwks.json and internal-token
    #[arg(long, env = "AUTH_DIR")]
    pub auth_dir: PathBuf,

    /// Where ingest is: `host:port`, comma-separated; names are asked again every few seconds
    #[arg(long, env = "INGEST", value_delimiter = ',', required = true)]
    pub ingest: Vec<String>,

    /// Where the delivery stream is served
    #[arg(long, env = "GRPC_LISTEN", default_value = "0.0.0.0:9090")]
    pub grpc_listen: SocketAddr,

    /// `host:port` under which fanout reaches --grpc-listen; without it --pod-ip with that port
    #[arg(long, env = "ADVERTISE")]
    pub advertise: Option<String>,

    /// This pod's address, from the downward API; needed when --grpc-listen is an address like 0.0.0.0
    #[arg(long, env = "POD_IP")]
    pub pod_ip: Option<IpAddr>,

    /// Proxies before this process that append to X-Forwarded-For; 0 means that the peer is the client
    #[arg(long, env = "TRUSTED_PROXY_HOPS", default_value_t = 0)]
    pub trusted_proxy_hops: usize,

    /// Queues, limits and timeouts.
    #[command(flatten)]
    pub limits: Limits,
}

impl Settings {
    /// The settings of a gateway in a process with others, on loopback, with the default limits.
    pub fn on_loopback(redis: adapters::redis::Config, auth_dir: PathBuf, ingest: Vec<String>) -> Self {
        let grpc_listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let (advertise, pod_ip, trusted_proxy_hops) = (None, None, 0);
        Self { redis, auth_dir, ingest, grpc_listen, advertise, pod_ip, trusted_proxy_hops, limits: Limits::default() }
    }
}

/// Queues, limits and timeouts of gateway.
#[derive(Clone, Debug, Args)]
#[group(skip)]
pub struct Limits {
    /// Connections this gateway takes
    #[arg(long, env = "CONNECTION_MAXIMUM", default_value_t = 100_000)]
    pub connection_maximum: usize,

    /// Concurrent connections of one user, on all gateways
    #[arg(long, env = "CONNECTION_PER_USER", default_value_t = 5)]
    pub connection_per_user: u32,

    /// Concurrent connections of one client address, on one gateway
    #[arg(long, env = "CONNECTION_PER_IP", default_value_t = 20)]
    pub connection_per_ip: usize,

    /// Attempts of one client address to connect within a minute, on one gateway
    #[arg(long, env = "CONNECTION_ATTEMPTS_PER_IP", default_value_t = 100)]
    pub connection_attempts_per_ip: usize,

    /// New connections of one user within --connection-new-within, on one gateway
    #[arg(long, env = "CONNECTION_NEW_PER_USER", default_value_t = 5)]
    pub connection_new_per_user: usize,

    /// See --connection-new-per-user
    #[arg(long, env = "CONNECTION_NEW_WITHIN", default_value = "10s", value_parser = humantime::parse_duration)]
    pub connection_new_within: Duration,

    /// How old a connection may get; up to a tenth less, by chance
    #[arg(long, env = "CONNECTION_AGE", default_value = "24h", value_parser = humantime::parse_duration)]
    pub connection_age: Duration,

    /// How long a connection lives that was opened with a browser's socket token
    #[arg(long, env = "CONNECTION_SOCKET_TOKEN_AGE", default_value = "60m", value_parser = humantime::parse_duration)]
    pub connection_socket_token_age: Duration,

    /// Origins of web pages that may connect besides this host's own, comma-separated
    #[arg(long, env = "CONNECTION_ORIGINS", value_delimiter = ',')]
    pub connection_origins: Vec<String>,

    /// When this version of the protocol is no longer served, as `YYYY-MM-DD`: clients are told beforehand
    #[arg(long, env = "PROTOCOL_SUNSET", value_parser = sunset)]
    pub protocol_sunset: Option<Sunset>,

    /// How long before --protocol-sunset clients are told
    #[arg(long, env = "PROTOCOL_NOTICE", default_value = "30d", value_parser = humantime::parse_duration)]
    pub protocol_notice: Duration,

    /// How often clients send a heartbeat; the registry forgets a connection after two of these
    #[arg(long, env = "HEARTBEAT_INTERVAL", default_value = "30s", value_parser = humantime::parse_duration)]
    pub heartbeat_interval: Duration,

    /// How often this gateway says in the registry that it lives
    #[arg(long, env = "REGISTRY_ANNOUNCE", default_value = "5s", value_parser = humantime::parse_duration)]
    pub registry_announce: Duration,

    /// How often the public keys are looked at again
    #[arg(long, env = "AUTH_RELOAD", default_value = "5s", value_parser = humantime::parse_duration)]
    pub auth_reload: Duration,

    /// How often an open connection's session is looked up among the revoked
    #[arg(long, env = "REVOCATION_CHECK", default_value = "60s", value_parser = humantime::parse_duration)]
    pub revocation_check: Duration,

    /// How long a connection stays open while nobody can say whether it was revoked
    #[arg(long, env = "REVOCATION_GRACE", default_value = "5m", value_parser = humantime::parse_duration)]
    pub revocation_grace: Duration,

    /// Bytes of a frame from a client
    #[arg(long, env = "FRAME_BYTES", default_value_t = limits::FRAME_BYTES)]
    pub frame_bytes: usize,

    /// Invalid frames within --frame-invalid-within that end a connection
    #[arg(long, env = "FRAME_INVALID", default_value_t = 10)]
    pub frame_invalid: usize,

    /// See --frame-invalid
    #[arg(long, env = "FRAME_INVALID_WITHIN", default_value = "60s", value_parser = humantime::parse_duration)]
    pub frame_invalid_within: Duration,

    /// Refusals (rate limited, or busy) within a minute that end a connection
    #[arg(long, env = "FRAME_REFUSED", default_value_t = 300)]
    pub frame_refused: usize,

    /// Messages a second of one connection, and of one user to one chat on one gateway
    #[arg(long, env = "SEND_RATE", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub send_rate: u32,

    /// Messages of one connection, and of one user to one chat on one gateway, at once
    #[arg(long, env = "SEND_BURST", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub send_burst: u32,

    /// Messages of one connection to one chat that go to ingest in one call, when they have waited for the one before them
    #[arg(long, env = "SENDS_TOGETHER", default_value_t = 16, value_parser = together)]
    pub sends_together: usize,

    /// How long messages wait for the rest of a burst, when several of their connection and chat were just answered; 0s is off
    #[arg(long, env = "SENDS_GATHER", default_value = "3ms", value_parser = humantime::parse_duration)]
    pub sends_gather: Duration,

    /// Messages a second of one user to all chats on one gateway; never less than --send-rate, and twice as many at once
    #[arg(long, env = "SEND_PER_USER", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
    pub send_per_user: u32,

    /// Messages an hour of one user to all chats on one gateway
    #[arg(long, env = "SEND_PER_HOUR", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub send_per_hour: u32,

    /// Sync requests a second of one connection; requests for heads likewise
    #[arg(long, env = "SYNC_RATE", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub sync_rate: u32,

    /// Sync requests of one connection at once; requests for heads likewise
    #[arg(long, env = "SYNC_BURST", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub sync_burst: u32,

    /// Requests of one connection that wait or run
    #[arg(long, env = "INBOUND_REQUESTS", default_value_t = 100)]
    pub inbound_requests: usize,

    /// Pushes that wait for one connection
    #[arg(long, env = "OUTBOUND_MESSAGES", default_value_t = 1000)]
    pub outbound_messages: usize,

    /// Bytes of pushes that wait for one connection
    #[arg(long, env = "OUTBOUND_BYTES", default_value_t = 1024 * 1024)]
    pub outbound_bytes: usize,

    /// Answers and notices that wait for one connection
    #[arg(long, env = "OUTBOUND_RESERVED", default_value_t = 256)]
    pub outbound_reserved: usize,

    /// How long a client that was warned has to catch up
    #[arg(long, env = "OUTBOUND_GRACE", default_value = "5s", value_parser = humantime::parse_duration)]
    pub outbound_grace: Duration,

    /// Bytes of a sync page
    #[arg(long, env = "OUTBOUND_PAGE_BYTES", default_value_t = limits::SYNC_PAGE_BYTES)]
    pub outbound_page_bytes: usize,

    /// Chats of one connection whose highest pushed sequence is remembered
    #[arg(long, env = "FENCE_CHATS", default_value_t = 256)]
    pub fence_chats: usize,

    /// How long ingest may take for one request
    #[arg(long, env = "INGEST_TIMEOUT", default_value = "5s", value_parser = humantime::parse_duration)]
    pub ingest_timeout: Duration,

    /// How often the names in --ingest are asked again
    #[arg(long, env = "INGEST_RESOLVE", default_value = "5s", value_parser = humantime::parse_duration)]
    pub ingest_resolve: Duration,

    /// Failures of one ingest within --breaker-within after which others are asked instead; one that can't be reached
    /// has failed enough
    #[arg(long, env = "BREAKER_FAILURES", default_value_t = 5)]
    pub breaker_failures: usize,

    /// See --breaker-failures
    #[arg(long, env = "BREAKER_WITHIN", default_value = "30s", value_parser = humantime::parse_duration)]
    pub breaker_within: Duration,

    /// How long a failing ingest is not asked at first; while all of them fail, each is asked again after this
    #[arg(long, env = "BREAKER_FIRST", default_value = "1s", value_parser = humantime::parse_duration)]
    pub breaker_first: Duration,

    /// The longest time for which a failing ingest is not asked; it doubles up to this as long as it fails
    #[arg(long, env = "BREAKER_OPEN", default_value = "30s", value_parser = humantime::parse_duration)]
    pub breaker_open: Duration,

    /// How long a stopping gateway waits for the answers to what it took
    #[arg(long, env = "STOP_ANSWERS", default_value = "5s", value_parser = humantime::parse_duration)]
    pub stop_answers: Duration,

    /// How long a client has to read its last frames and to answer the close
    #[arg(long, env = "STOP_CLOSE", default_value = "2s", value_parser = humantime::parse_duration)]
    pub stop_close: Duration,

    /// Clients of a stopping gateway are told to come back after a random part of this
    #[arg(long, env = "STOP_RECONNECT_WITHIN", default_value = "5s", value_parser = humantime::parse_duration)]
    pub stop_reconnect_within: Duration,
}

/// When a version of the protocol ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sunset(pub Millis);

fn sunset(text: &str) -> Result<Sunset, String> {
    let at = proto::time::from_iso(&format!("{text}T00:00:00Z"));
    at.map(|at| Sunset(Millis(at))).ok_or_else(|| "it is not a date such as 2027-01-31".to_owned())
}

impl Default for Limits {
    /// The defaults of the flags.
    fn default() -> Self {
        #[derive(Parser)]
        struct Alone {
            #[command(flatten)]
            limits: Limits,
        }
        #[expect(clippy::expect_used, reason = "a test holds that every flag has a valid default")]
        Alone::try_parse_from(["gateway"]).expect("every flag has a valid default").limits
    }
}

/// What ingest takes in one call.
fn together(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count @ 1..=CALL_MESSAGES) => Ok(count),
        _ => Err(format!("1 to {CALL_MESSAGES} messages go together")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_those_of_the_specification() {
        let limits = Limits::default();
        assert_eq!((limits.outbound_messages, limits.outbound_bytes), (1000, 1_048_576));
        assert_eq!((limits.send_rate, limits.send_burst, limits.inbound_requests), (10, 20, 100));
        assert_eq!((limits.frame_bytes, limits.frame_invalid), (65_536, 10));
        assert_eq!(limits.heartbeat_interval, Duration::from_secs(30));
    }

    #[test]
    fn what_has_no_default_is_asked_for() {
        let parse = |flags: &[&str]| Config::try_parse_from([&["gateway"], flags].concat());
        let all = ["--redis-url", "redis://r", "--auth-dir", "/auth", "--ingest", "a:9090,b:9090"];
        assert_eq!(parse(&all).expect("complete").settings.ingest, ["a:9090", "b:9090"]);
        for missing in [0, 2, 4] {
            let mut some = all.to_vec();
            some.drain(missing..missing + 2);
            assert!(parse(&some).is_err(), "{some:?}");
        }
        assert!(parse(&[&all[..], &["--send-rate", "0"]].concat()).is_err());
        let sunset = |text| parse(&[&all[..], &["--protocol-sunset", text]].concat());
        let at = sunset("1970-01-02").expect("a date").settings.limits.protocol_sunset;
        assert_eq!(at, Some(Sunset(Millis(86_400_000))));
        assert!(sunset("tomorrow").is_err());
    }
}
