//! A store with tables, for the suites of the ports on it.

use embedded::Store as Embedded;
use platform::{Process, Secret};

use super::{On, ground};
use crate::dynamodb::{Config, Store};

/// Starts a store that ends with the process, or takes the one that is there for all.
pub(crate) async fn start(on: On) -> (Process, Store) {
    let process = Process::new();
    let endpoint = match on {
        On::Embedded => Embedded::start(None, &process).await.expect("loopback").endpoint,
        On::Real => ground::dynamodb().to_owned(),
    };
    let config = Config {
        store_table_prefix: format!("{}-", ground::apart()),
        store_region: "us-east-1".to_owned(),
        store_endpoint: Some(endpoint),
        store_access_key: Some("test".to_owned()),
        store_secret_key: Some(Secret::new("test")),
    };
    let store = Store::new(&config).await;
    store.create_tables().await.expect("tables");
    (process, store)
}
