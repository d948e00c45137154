//! `docs/PROTOCOL.md` tells clients of every code and every end, and of no other.

use std::collections::BTreeSet;

use domain::ErrorKind;
use gateway::{closing::Reason, handshake::DEPRECATED};
use proto::messaging::v1::server_frame::Payload;

/// The rows of the table below that heading, as their cells.
fn table(heading: &str) -> Vec<Vec<String>> {
    let page = include_str!("../../../../docs/PROTOCOL.md");
    let section = page.split("\n## ").find(|section| section.starts_with(heading)).expect("a section");
    let rows = section.lines().filter(|line| line.starts_with('|')).skip(2);
    let cells = |row: &str| row.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', "")).collect();
    rows.map(cells).collect()
}

#[test]
fn every_error_code_is_published() {
    let published: BTreeSet<String> = table("Error codes").into_iter().map(|row| row[0].clone()).collect();
    let sent = ErrorKind::ALL.map(|kind| platform::wire::codes(kind).frame.to_owned());
    let sent: BTreeSet<String> = sent.into_iter().chain([DEPRECATED.to_owned()]).collect();
    assert_eq!(published, sent);
}

#[test]
fn every_end_is_published_with_its_code() {
    let published: BTreeSet<_> =
        table("Ends").into_iter().map(|row| (row[0].clone(), row[1].clone(), !row[3].starts_with("no"))).collect();
    // Nobody is told who has gone.
    let ends = Reason::ALL.into_iter().filter(|reason| *reason != Reason::Gone);
    let ends: BTreeSet<_> = ends
        .map(|reason| match reason.frame(std::time::Duration::ZERO) {
            Payload::ConnectionClosing(frame) => (frame.reason, reason.code().to_string(), frame.reconnect_allowed),
            other => panic!("not a goodbye: {other:?}"),
        })
        .collect();
    assert_eq!(published, ends);
}
