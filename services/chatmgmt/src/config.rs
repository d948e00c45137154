//! Settings of chatmgmt; each is a flag and an environment variable.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, ValueEnum};
use domain::limits;

/// Settings of the chatmgmt process.
#[derive(Debug, Parser)]
#[command(name = "chatmgmt", about = "Login, users, chats and history")]
#[group(skip)]
pub struct Config {
    /// What every process has.
    #[command(flatten)]
    pub platform: platform::Config,

    /// Where REST is served
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
    /// Where the tables are.
    #[command(flatten)]
    pub store: adapters::dynamodb::Config,

    /// Where rate limits and revocations are.
    #[command(flatten)]
    pub redis: adapters::redis::Config,

    /// Where changes of chats are told.
    #[command(flatten)]
    pub log: adapters::kafka::Config,

    /// Folder with jwks.json, <kid>.pem, otp-pepper, otp-key, refresh-key and internal-token
    #[arg(long, env = "AUTH_DIR")]
    pub auth_dir: PathBuf,

    /// Key id that signs access tokens; without it the last <kid>.pem by name
    #[arg(long, env = "AUTH_SIGNING_KEY")]
    pub auth_signing_key: Option<String>,

    /// Where gRPC is served
    #[arg(long, env = "GRPC_LISTEN", default_value = "0.0.0.0:9090")]
    pub grpc_listen: SocketAddr,

    /// How one-time codes reach a phone
    #[arg(long, env = "SMS_PROVIDER", value_enum, default_value_t = SmsProvider::Log)]
    pub sms_provider: SmsProvider,

    /// Proxies before this process that append to X-Forwarded-For; 0 means that the peer is the client
    #[arg(long, env = "TRUSTED_PROXY_HOPS", default_value_t = 0)]
    pub trusted_proxy_hops: usize,

    /// Lifetimes, limits and timeouts.
    #[command(flatten)]
    pub limits: Limits,
}

impl Settings {
    /// The settings of a chatmgmt in a process with others, on loopback, with the default limits.
    pub fn on_loopback(
        store: adapters::dynamodb::Config,
        redis: adapters::redis::Config,
        log: adapters::kafka::Config,
        auth_dir: PathBuf,
    ) -> Self {
        Self {
            store,
            redis,
            log,
            auth_dir,
            auth_signing_key: None,
            grpc_listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            sms_provider: SmsProvider::Log,
            trusted_proxy_hops: 0,
            limits: Limits::default(),
        }
    }
}

/// How one-time codes reach a phone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SmsProvider {
    /// As a line in this process's log: for development.
    Log,
}

/// Lifetimes, limits and timeouts of chatmgmt.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
#[group(skip)]
pub struct Limits {
    /// How long one REST call may take
    #[arg(long, env = "REQUEST_TIMEOUT", default_value = "10s", value_parser = humantime::parse_duration)]
    pub request_timeout: Duration,

    /// Codes requested for one phone within --otp-within
    #[arg(long, env = "OTP_PER_PHONE", default_value_t = 3)]
    pub otp_per_phone: u32,

    /// Codes requested from one client address within --otp-within
    #[arg(long, env = "OTP_PER_IP", default_value_t = 10)]
    pub otp_per_ip: u32,

    /// The window of --otp-per-phone and --otp-per-ip
    #[arg(long, env = "OTP_WITHIN", default_value = "15m", value_parser = humantime::parse_duration)]
    pub otp_within: Duration,

    /// How long a code is good
    #[arg(long, env = "OTP_VALIDITY", default_value = "5m", value_parser = humantime::parse_duration)]
    pub otp_validity: Duration,

    /// How often one code may be tried
    #[arg(long, env = "OTP_ATTEMPTS", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub otp_attempts: u32,

    /// Codes tried for one phone within --verify-within
    #[arg(long, env = "VERIFY_PER_PHONE", default_value_t = 5)]
    pub verify_per_phone: u32,

    /// The window of --verify-per-phone
    #[arg(long, env = "VERIFY_WITHIN", default_value = "5m", value_parser = humantime::parse_duration)]
    pub verify_within: Duration,

    /// How long a phone can't log in after its code was tried too often
    #[arg(long, env = "OTP_LOCKOUT", default_value = "15m", value_parser = humantime::parse_duration)]
    pub otp_lockout: Duration,

    /// Text messages being sent at once; above it codes are not sent
    #[arg(long, env = "SMS_IN_FLIGHT", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    pub sms_in_flight: u32,

    /// How long sending one text message may take
    #[arg(long, env = "SMS_TIMEOUT", default_value = "10s", value_parser = humantime::parse_duration)]
    pub sms_timeout: Duration,

    /// Lifetime of an access token
    #[arg(long, env = "ACCESS_TOKEN_LIFETIME", default_value = "60m", value_parser = humantime::parse_duration)]
    pub access_token_lifetime: Duration,

    /// Lifetime of a session
    #[arg(long, env = "SESSION_LIFETIME", default_value = "30d", value_parser = humantime::parse_duration)]
    pub session_lifetime: Duration,

    /// Sessions of one user; a further login ends the oldest
    #[arg(long, env = "SESSIONS_PER_USER", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=50))]
    pub sessions_per_user: u32,

    /// Refreshes of one user a minute
    #[arg(long, env = "REFRESH_PER_MINUTE", default_value_t = 30)]
    pub refresh_per_minute: u32,

    /// How long an identical refresh gets the same tokens again
    #[arg(long, env = "REFRESH_GRACE", default_value = "10s", value_parser = humantime::parse_duration)]
    pub refresh_grace: Duration,

    /// Phone lookups of one user a minute
    #[arg(long, env = "LOOKUP_PER_MINUTE", default_value_t = 10)]
    pub lookup_per_minute: u32,

    /// Phone lookups of one user an hour
    #[arg(long, env = "LOOKUP_PER_HOUR", default_value_t = 100)]
    pub lookup_per_hour: u32,

    /// Members of a group, the owner included
    #[arg(long, env = "GROUP_MEMBERS", default_value_t = limits::GROUP_MEMBERS, value_parser = clap::value_parser!(u32).range(2..=1000))]
    pub group_members: u32,

    /// Chats of one user
    #[arg(long, env = "CHATS_PER_USER", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..))]
    pub chats_per_user: u32,

    /// Groups that one user may make in 24 hours
    #[arg(long, env = "GROUPS_PER_DAY", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub groups_per_day: u32,

    /// How long a process that died keeps others from publishing a shard of the outbox
    #[arg(long, env = "OUTBOX_LEASE", default_value = "6s", value_parser = humantime::parse_duration)]
    pub outbox_lease: Duration,

    /// How often a shard of the outbox is looked at for what other processes left behind
    #[arg(long, env = "OUTBOX_POLL", default_value = "1s", value_parser = humantime::parse_duration)]
    pub outbox_poll: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request_timeout: Duration::from_secs(10),
            otp_per_phone: 3,
            otp_per_ip: 10,
            otp_within: Duration::from_mins(15),
            otp_validity: Duration::from_mins(5),
            otp_attempts: 5,
            verify_per_phone: 5,
            verify_within: Duration::from_mins(5),
            otp_lockout: Duration::from_mins(15),
            sms_in_flight: 64,
            sms_timeout: Duration::from_secs(10),
            access_token_lifetime: Duration::from_hours(1),
            session_lifetime: Duration::from_hours(30 * 24),
            sessions_per_user: 5,
            refresh_per_minute: 30,
            refresh_grace: Duration::from_secs(10),
            lookup_per_minute: 10,
            lookup_per_hour: 100,
            group_members: limits::GROUP_MEMBERS,
            chats_per_user: 500,
            groups_per_day: 20,
            outbox_lease: Duration::from_secs(6),
            outbox_poll: Duration::from_secs(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_and_code_have_the_same_defaults() {
        let required = [
            "--store-table-prefix",
            "t-",
            "--redis-url",
            "redis://x",
            "--log-brokers",
            "l",
            "--log-prefix",
            "p.",
            "--auth-dir",
            "a",
        ];
        let config = Config::try_parse_from(["chatmgmt"].iter().chain(&required)).expect("valid");
        assert_eq!(config.settings.limits, Limits::default());
    }

    #[test]
    fn a_missing_setting_is_named() {
        let error = Config::try_parse_from(["chatmgmt"]).expect_err("settings are missing").to_string();
        assert!(error.contains("--auth-dir"), "{error}");
    }
}
