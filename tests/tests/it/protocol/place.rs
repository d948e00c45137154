//! Where a rule is tried: on the embedded platform, and on separate processes over real systems.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering},
};

use tests::{
    client::Client,
    faults::proxy::{Proxy, Toxics},
    world::{
        World,
        cluster::{Cluster, Plan},
        ground::Ground,
        service::Service,
    },
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// Makes two tests of each rule, a function over a [`Place`]: `embedded::…` and `on_real_systems::…`. What follows
/// `with` are flags that the platform gets.
macro_rules! rules {
    ($($rule:ident $(with $($flags:expr),+)?;)*) => {
        mod embedded {
            use super::Place;
            $(#[tokio::test]
            async fn $rule() -> anyhow::Result<()> {
                super::$rule(Place::embedded(&[$($(&$flags[..]),+)?]).await?).await
            })*
        }

        mod on_real_systems {
            use super::Place;
            $(#[tokio::test]
            async fn $rule() -> anyhow::Result<()> {
                super::$rule(Place::real(stringify!($rule), &[$($(&$flags[..]),+)?]).await?).await
            })*
        }
    };
}
pub(crate) use rules;

/// A platform of one test. On real systems it has two gateways, which take connections in turn.
pub(crate) struct Place {
    on: On,
    turns: AtomicUsize,
}

enum On {
    Embedded(Box<World>),
    Real(Box<Real>),
}

struct Real {
    cluster: Cluster,
    /// Between the services and Redis, which others use too.
    cache: Proxy,
    redis: String,
    prefix: String,
}

impl Place {
    pub(crate) async fn embedded(flags: &[&[&str]]) -> anyhow::Result<Self> {
        let on = On::Embedded(Box::new(World::start_with(&flags.concat()).await?));
        Ok(Self { on, turns: AtomicUsize::new(0) })
    }

    pub(crate) async fn real(name: &str, flags: &[&[&str]]) -> anyhow::Result<Self> {
        let ground = Ground::shared().await?;
        let cache = Proxy::start(&ground.redis, 1).await?;
        let mut plan = Plan::new(name, ground).with("REDIS_URL", format!("redis://{}", cache.address()));
        for (flag, value) in flags.concat().iter().filter_map(|flag| flag.trim_start_matches('-').split_once('=')) {
            plan = plan.with(&flag.replace('-', "_").to_uppercase(), value);
        }
        let prefix = plan.variables()["REDIS_PREFIX"].clone();
        let cluster = Cluster::start(&plan).await?;
        let on = On::Real(Box::new(Real { cluster, cache, redis: ground.redis.clone(), prefix }));
        Ok(Self { on, turns: AtomicUsize::new(0) })
    }

    /// The gateway that the next connection goes to.
    pub(crate) fn turn(&self) -> usize {
        self.turns.fetch_add(1, Ordering::Relaxed) % 2
    }

    /// Logs in on a new device, and waits until the connection is ready.
    pub(crate) async fn client(&self, phone: &str) -> anyhow::Result<Client> {
        match &self.on {
            On::Embedded(world) => world.client(phone).await,
            On::Real(real) => real.cluster.client(self.turn(), phone).await,
        }
    }

    /// Where the next connection goes, as a client sees it.
    pub(crate) fn server(&self) -> &str {
        match &self.on {
            On::Embedded(world) => world.server(),
            On::Real(real) => real.cluster.server(self.turn()),
        }
    }

    /// Where a gateway itself listens: what is not read there waits nowhere else.
    pub(crate) async fn gateway(&self, number: usize) -> anyhow::Result<SocketAddr> {
        Ok(match &self.on {
            On::Embedded(world) => world.address("public")?.trim_start_matches("http://").parse()?,
            On::Real(real) => real.cluster.gateways[number].address("--listen").await?.parse()?,
        })
    }

    /// What all processes have said.
    pub(crate) fn log(&self) -> anyhow::Result<String> {
        Ok(match &self.on {
            On::Embedded(world) => std::fs::read_to_string(world.log_path())?,
            On::Real(real) => {
                let Cluster { gateways, ingests, fanout, chatmgmt, .. } = &real.cluster;
                gateways.iter().chain(ingests).chain([fanout, chatmgmt]).map(Service::log).collect()
            }
        })
    }

    /// The folder with the keys that sign.
    pub(crate) fn keys(&self) -> PathBuf {
        match &self.on {
            On::Embedded(world) => world.data().join("auth"),
            On::Real(real) => real.cluster.folder().join("auth"),
        }
    }

    /// Writes something into Redis, under a key of this platform.
    pub(crate) async fn remember(&self, key: &str) -> anyhow::Result<()> {
        let prefix = match &self.on {
            On::Embedded(_) => "local.messaging.",
            On::Real(real) => &real.prefix,
        };
        redis(&self.redis()?, &format!("SET {prefix}{key} 1 EX 3600")).await
    }

    /// Takes Redis away until the value is dropped. The embedded one, which answers nobody, comes back by itself.
    pub(crate) async fn without_redis(&self) -> anyhow::Result<Away<'_>> {
        match &self.on {
            On::Embedded(_) => {
                redis(&self.redis()?, "CLIENT PAUSE 6000 ALL").await?;
                Ok(Away(None))
            }
            On::Real(real) => {
                real.cache.set(Toxics { refuses: true, ..Toxics::default() });
                real.cache.reset();
                Ok(Away(Some(&real.cache)))
            }
        }
    }

    fn redis(&self) -> anyhow::Result<String> {
        Ok(match &self.on {
            On::Embedded(world) => {
                let url = world.address("redis_url")?;
                url.trim_start_matches("redis://").trim_end_matches('/').to_owned()
            }
            On::Real(real) => real.redis.clone(),
        })
    }
}

/// Redis is away as long as this lives.
pub(crate) struct Away<'a>(Option<&'a Proxy>);

impl Drop for Away<'_> {
    fn drop(&mut self) {
        if let Some(proxy) = self.0 {
            proxy.heal();
        }
    }
}

/// Has Redis do something, and waits until it has said so.
async fn redis(address: &str, command: &str) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(format!("{command}\r\n").as_bytes()).await?;
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).await?;
    anyhow::ensure!(&answer == b"+OK\r\n", "{command}: {}", String::from_utf8_lossy(&answer));
    Ok(())
}
