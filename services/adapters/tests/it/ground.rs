//! The real systems of a test process: each is started once, by the scripts of tests/ground, and ends with the process.
#![allow(dead_code, reason = "each test binary takes what it needs")]

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

/// Kafka's listeners.
pub(crate) struct Kafka {
    /// Without authentication.
    pub(crate) plain: String,
    /// With SCRAM-SHA-512, user `app`, password `app-secret`.
    pub(crate) scram: String,
    /// With TLS, which asks for a certificate.
    pub(crate) tls: String,
    /// `ca.crt`, `client.crt` and `client.key`, as PEM.
    pub(crate) certificates: PathBuf,
}

/// One node of Apache Kafka.
pub(crate) fn kafka() -> &'static Kafka {
    static KAFKA: OnceLock<Kafka> = OnceLock::new();
    KAFKA.get_or_init(|| {
        let state = std::env::temp_dir().join(format!("ground-of-{}", apart()));
        let lines = up("kafka.sh", &["up", "1", "--scram", "--tls"], Some(&state));
        let [tls, scram, plain] = [0, 1, 2].map(|line| lines.get(line).expect("three listeners").clone());
        Kafka { plain, scram, tls, certificates: state.join("kafka/tls") }
    })
}

/// DynamoDB Local, as an URL.
pub(crate) fn dynamodb() -> &'static str {
    static DYNAMODB: OnceLock<String> = OnceLock::new();
    DYNAMODB.get_or_init(|| {
        let lines = up("dynamodb-local.sh", &["up", "memory"], None);
        format!("http://{}", lines.last().expect("an address"))
    })
}

/// A word that nothing else on these systems has in its name.
pub(crate) fn apart() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("t{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

fn up(script: &str, words: &[&str], state: Option<&Path>) -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .map(|folder| folder.join("tests/ground"))
        .find(|folder| folder.join(script).exists())
        .expect("tests/ground");
    let mut command = Command::new(folder.join(script));
    command.args(words).env("GROUND_OWNER", std::process::id().to_string()).env_remove("GROUND_STATE");
    if let Some(state) = state {
        command.env("GROUND_STATE", state);
    }
    let started = command.output().expect("bash");
    assert!(started.status.success(), "{script} failed:\n{}", String::from_utf8_lossy(&started.stderr));
    String::from_utf8_lossy(&started.stdout).lines().map(ToOwned::to_owned).collect()
}
