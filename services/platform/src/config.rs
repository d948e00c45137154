//! Settings that every process has.

use std::{net::SocketAddr, time::Duration};

use clap::{Args, Parser, ValueEnum};

/// A binary's settings: a clap struct that also holds the platform's.
pub trait Settings: Parser {
    /// The platform's part.
    fn platform(&self) -> &Config;
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Settings that every process has; each is a flag and an environment variable.
#[derive(Clone, Debug, Args)]
// A binary's own `Config` would have the same group.
#[group(skip)]
pub struct Config {
    /// What is logged: a level, or levels by module (`info,ingest=debug`)
    #[arg(long, env = "LOG", default_value = "info")]
    pub log: String,

    /// How log lines look
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,

    /// Name of the installation, which log lines and traces have with them
    #[arg(long, env = "ENVIRONMENT")]
    pub environment: Option<String>,

    /// Where traces go, by OTLP over gRPC, as `http://collector:4317`; without it they are not kept
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT")]
    pub otlp_endpoint: Option<String>,

    /// Traces a minute that begin here and are kept; of more, an equal part of each minute, and never under one in a hundred
    #[arg(long, env = "TRACES_PER_MINUTE", default_value_t = 100)]
    pub traces_per_minute: u32,

    /// Where /livez, /readyz, /healthz and /metrics are served
    #[arg(long, env = "ADMIN_LISTEN", default_value = "0.0.0.0:9100")]
    pub admin_listen: SocketAddr,

    /// How long a stopping process goes on serving after it says that it is not ready (SIGTERM only)
    #[arg(long, env = "DRAIN_DELAY", default_value = "3s", value_parser = humantime::parse_duration)]
    pub drain_delay: Duration,

    /// How long a stopping process may take to finish what it has begun
    #[arg(long, env = "STOP_TIMEOUT", default_value = "20s", value_parser = humantime::parse_duration)]
    pub stop_timeout: Duration,
}
