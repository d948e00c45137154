//! What the fuzz targets have found, and what they began with, replayed (`fuzz/`).

mod properties;

use std::{fs, path::Path};

/// Runs every file of a corpus; how many there were.
fn replay(target: &str, property: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let mut count = 0;
    for entry in fs::read_dir(&folder).expect("a corpus") {
        let file = entry.expect("an entry").path();
        // The test that fails names the file that it failed on.
        eprintln!("{}", file.display());
        property(&fs::read(file).expect("readable"));
        count += 1;
    }
    assert!(count > 0, "the corpus of {target} is empty");
}

#[test]
fn frames_of_clients_hold_what_they_promise() {
    replay("client_json", properties::client_json);
    replay("client_protobuf", properties::client_protobuf);
}

#[test]
fn frames_of_servers_hold_what_they_promise() {
    replay("server_json", properties::server_json);
    replay("server_protobuf", properties::server_protobuf);
}
