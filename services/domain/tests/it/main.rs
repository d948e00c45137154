//! What the fuzz target has found, and what it began with, replayed (`fuzz/`).

mod properties;

use std::{fs, path::Path};

#[test]
fn texts_hold_what_they_promise() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/content");
    let mut count = 0;
    for entry in fs::read_dir(&folder).expect("a corpus") {
        let file = entry.expect("an entry").path();
        // The test that fails names the file that it failed on.
        eprintln!("{}", file.display());
        properties::content(&fs::read(file).expect("readable"));
        count += 1;
    }
    assert!(count > 0, "the corpus is empty");
}
