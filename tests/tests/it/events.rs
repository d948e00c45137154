//! What the services log: every line from `INFO` on names its event, and `docs/LOGS.md` names all of them.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// The calls whose lines are written in production.
const CALLS: [&str; 3] = ["tracing::info!(", "tracing::warn!(", "tracing::error!("];
const EVENT: &str = "event = \"";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let all = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    all.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] })
        .filter(|path| path.extension().is_some_and(|ending| ending == "rs"))
        .collect()
}

/// Every file of the services without its tests.
fn files() -> Vec<(PathBuf, String)> {
    let services = fs::read_dir(root().join("services")).expect("a folder");
    let folders = services.map(|entry| entry.expect("an entry").path().join("src")).filter(|folder| folder.is_dir());
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("text");
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned();
        (path, code)
    };
    folders.flat_map(|folder| sources(&folder)).map(read).collect()
}

/// What stands between the parentheses of a call, which are not counted in its texts.
fn arguments(code: &str) -> &str {
    let (mut depth, mut is_text, mut is_escaped) = (1, false, false);
    for (at, character) in code.char_indices() {
        match character {
            _ if is_escaped => is_escaped = false,
            '\\' if is_text => is_escaped = true,
            '"' => is_text = !is_text,
            '(' if !is_text => depth += 1,
            ')' if !is_text => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return &code[..at];
        }
    }
    code
}

#[test]
fn every_line_names_its_event() {
    let mut faults = Vec::new();
    let mut count = 0;
    for (path, code) in files() {
        for call in CALLS {
            for (at, _) in code.match_indices(call) {
                count += 1;
                let arguments = arguments(&code[at + call.len()..]);
                if !arguments.contains(EVENT) {
                    let line = code[..at].lines().count() + 1;
                    faults.push(format!("{}:{line}: {}", path.display(), arguments.trim()));
                }
            }
        }
    }
    assert!(count > 50, "only {count} calls were found");
    assert!(faults.is_empty(), "without an event:\n{}", faults.join("\n"));
}

#[test]
fn every_event_is_published() {
    let page = fs::read_to_string(root().join("docs/LOGS.md")).expect("docs/LOGS.md");
    let table = page.split("## Events").nth(1).expect("a chapter");
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `")?.split(" |").next());
    let published: BTreeSet<&str> = rows.flat_map(|row| row.split(", ")).map(|name| name.trim_matches('`')).collect();
    let files = files();
    let literal = |code: &str| -> Vec<String> {
        let after = code.match_indices(EVENT).map(|(at, _)| &code[at + EVENT.len()..]);
        after.filter_map(|rest| rest.split('"').next()).map(str::to_owned).collect()
    };
    let written: BTreeSet<String> = files.iter().flat_map(|(_, code)| literal(code)).collect();
    let unknown: Vec<&String> = written.iter().filter(|event| !published.contains(event.as_str())).collect();
    let gone: Vec<&&str> = published
        .iter()
        .filter(|event| !files.iter().any(|(_, code)| code.contains(&format!("\"{event}\""))))
        .collect();
    assert!(unknown.is_empty() && gone.is_empty(), "docs/LOGS.md lacks {unknown:?}, and names {gone:?}");
}
