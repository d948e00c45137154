//! A store with tables, for the suites of the ports on it.

use embedded::Store as Embedded;
use platform::{Process, Secret};

use crate::dynamodb::{Config, Store};

/// Starts a store in memory; it ends with the process.
pub(crate) async fn start() -> (Process, Store) {
    let process = Process::new();
    let embedded = Embedded::start(None, &process).await.expect("loopback");
    let config = Config {
        store_table_prefix: "test-".to_owned(),
        store_region: "us-east-1".to_owned(),
        store_endpoint: Some(embedded.endpoint),
        store_access_key: Some("test".to_owned()),
        store_secret_key: Some(Secret::new("test")),
    };
    let store = Store::new(&config).await;
    store.create_tables().await.expect("tables");
    (process, store)
}
