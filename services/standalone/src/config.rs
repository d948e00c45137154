//! Settings of standalone; each is a flag and an environment variable.

use std::{net::SocketAddr, path::PathBuf};

use clap::Parser;

/// Settings of the one process.
#[derive(Debug, Parser)]
#[command(
    name = "standalone",
    about = "The whole messaging platform in one process, over embedded backing systems",
    // Nobody probes this process; a second one must be able to start beside it.
    mut_arg("admin_listen", |flag| flag.default_value("127.0.0.1:0")),
    // The embedded store warns of every refused condition, which is how the services ask.
    mut_arg("log", |flag| flag.default_value("info,dynoxide=error"))
)]
pub(crate) struct Config {
    /// What every process has.
    #[command(flatten)]
    pub(crate) platform: platform::Config,

    /// Folder that keeps everything; made when it is not there
    #[arg(long, env = "DATA", default_value = "data")]
    pub(crate) data: PathBuf,

    /// Where clients connect: REST and WebSocket
    #[arg(long, env = "LISTEN", default_value = "127.0.0.1:8080")]
    pub(crate) listen: SocketAddr,

    /// Kafka brokers to use instead of the embedded log; their topics must exist
    #[arg(long, env = "LOG_BROKERS")]
    pub(crate) log_brokers: Option<String>,

    /// File to which each call that reaches the embedded store is appended as a JSON line
    #[arg(long, env = "STORE_CALLS")]
    pub(crate) store_calls: Option<PathBuf>,

    /// Queues, limits and timeouts of gateway.
    #[command(flatten, next_help_heading = "Limits of gateway")]
    pub(crate) gateway: gateway::config::Limits,

    /// Lifetimes, limits and timeouts of chatmgmt.
    #[command(flatten, next_help_heading = "Limits of chatmgmt")]
    pub(crate) chatmgmt: chatmgmt::config::Limits,
}

impl platform::Settings for Config {
    fn platform(&self) -> &platform::Config {
        &self.platform
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn flags_of_the_services_do_not_collide() {
        Config::command().debug_assert();
    }

    #[test]
    fn it_starts_without_any_setting() {
        let config = Config::try_parse_from(["standalone"]).expect("defaults");
        assert_eq!(config.listen.port(), 8080);
        assert_eq!(config.platform.admin_listen.port(), 0);
    }
}
