//! P7 and P10: the same request has the same answer, and processes give back what they used.

use std::collections::HashMap;

use super::{Property, Report, index::Index};

/// Open files that a process may have more at the end than at the beginning: pools fill.
const FILES: u64 = 64;
/// Kilobytes that it may have more.
const MEMORY: u64 = 128 * 1024;

/// P7: all answers to one client id are equal, and so are all tokens that were given for one.
pub(super) fn the_same_answer(index: &Index<'_>, report: &mut Report) {
    for send in &index.sends {
        let Some((first, sequence, id)) = index.ack(send) else { continue };
        for again in send.oks.iter().skip(1) {
            let line = &index.lines[*again];
            if line.sequence != Some(sequence) || line.message_id.as_deref() != Some(id) {
                let says = format!("{} was answered {id} and {:?}", send.client_id, line.message_id);
                report.found(Property::P7, says, &[first, *again]);
            }
        }
    }
    let mut given: HashMap<&str, (&str, usize)> = HashMap::new();
    for number in &index.refreshes {
        let line = &index.lines[*number];
        let (Some(shown), Some(new)) = (line.client_id.as_deref(), line.message_id.as_deref()) else { continue };
        let (before, at) = *given.entry(shown).or_insert((new, *number));
        if before != new {
            report.found(Property::P7, format!("token {shown} was changed into two others"), &[at, *number]);
        }
    }
}

/// P10: open files and memory of each process are at the end what they were at the beginning, or a little more.
pub(super) fn processes_give_back(index: &Index<'_>, report: &mut Report) {
    for (service, numbers) in &index.resources {
        let (Some(first), Some(last)) = (numbers.first(), numbers.last()) else { continue };
        let (before, after) = (&index.lines[*first], &index.lines[*last]);
        for (what, before, after, more) in
            [("open files", before.files, after.files, FILES), ("kilobytes", before.memory, after.memory, MEMORY)]
        {
            if let (Some(before), Some(after)) = (before, after)
                && after > before + more
            {
                let says = format!("{service} had {before} {what} and has {after}");
                report.found(Property::P10, says, &[*first, *last]);
            }
        }
    }
}
