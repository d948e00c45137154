//! The rules of the tree (docs/STYLE.md), executed: a rule that only prose holds will drift.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

/// Each crate, and the crates of the workspace that it may use.
const MAY_USE: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("proto", &[]),
    ("platform", &["domain"]),
    ("crds", &[]),
    ("operator", &["adapters", "crds", "domain", "platform", "proto"]),
    ("adapters", &["domain", "platform", "proto"]),
    ("gateway", &["adapters", "domain", "platform", "proto"]),
    ("ingest", &["adapters", "domain", "platform", "proto"]),
    ("fanout", &["adapters", "domain", "platform", "proto"]),
    ("chatmgmt", &["adapters", "domain", "platform", "proto"]),
    ("embedded", &["domain", "platform"]),
    ("standalone", &["adapters", "chatmgmt", "embedded", "fanout", "gateway", "ingest", "platform", "proto"]),
    ("tests", &["proto"]),
];

/// Clients of backing systems, and who may name them.
const BACKING: &[&str] = &["aws-config", "aws-sdk-dynamodb", "dynoxide-rs", "rdkafka", "redis"];
const MAY_NAME_BACKING: &[&str] = &["adapters", "embedded", "tests"];

/// The files of a service that may say `adapters::`.
const WIRING: &[&str] = &["main.rs", "config.rs", "wire_up.rs"];

/// Words that say nothing of what a file holds.
const EMPTY_NAMES: &[&str] = &["utils", "util", "helpers", "common", "types", "models", "misc", "mod"];

/// The path of a message: the hop's file, and the file that its header names as the next.
const HOPS: &[(&str, &str)] = &[
    ("services/gateway/src/receive.rs", "ingest/src/persist.rs"),
    ("services/ingest/src/persist.rs", "ingest/src/publish.rs"),
    ("services/ingest/src/publish.rs", "fanout/src/consume.rs"),
    ("services/fanout/src/consume.rs", "fanout/src/route.rs"),
    ("services/fanout/src/route.rs", "gateway/src/deliver.rs"),
    ("services/gateway/src/deliver.rs", ""),
];

/// Lines of a file without its tests; architecture.md asks for 400 and this is where patience ends.
const LONGEST: usize = 600;

#[test]
fn dependencies_point_inward() {
    let crates = workspace();
    let names: BTreeSet<&str> = crates.iter().map(|member| member.name.as_str()).collect();
    let listed: BTreeSet<&str> = MAY_USE.iter().map(|row| row.0).collect();
    assert_eq!(names, listed, "MAY_USE lists every crate");

    let mut faults = Vec::new();
    for member in &crates {
        let allowed = MAY_USE.iter().find(|row| row.0 == member.name).map_or(&[][..], |row| row.1);
        for dependency in member.dependencies.iter().map(String::as_str) {
            if names.contains(dependency) && !allowed.contains(&dependency) {
                faults.push(format!("{} must not use {dependency}", member.name));
            }
            if BACKING.contains(&dependency) && !MAY_NAME_BACKING.contains(&member.name.as_str()) {
                faults.push(format!("{} must reach {dependency} through a port", member.name));
            }
        }
    }
    assert_no(&faults);
}

#[test]
fn only_the_wiring_of_a_service_names_adapters() {
    let services = ["gateway", "ingest", "fanout", "chatmgmt"];
    let mut faults = Vec::new();
    for member in workspace().iter().filter(|member| services.contains(&member.name.as_str())) {
        for file in rust_files(&member.root.join("src")) {
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if !WIRING.contains(&name.as_str()) && read(&file).contains("adapters::") {
                faults.push(format!("{}: takes a port, not an adapter", file.display()));
            }
        }
    }
    assert_no(&faults);
}

#[test]
fn every_file_says_what_it_is_for_and_is_compiled() {
    let mut faults = Vec::new();
    for file in workspace().iter().flat_map(|member| rust_files(&member.root.join("src"))) {
        let text = read(&file);
        if !text.starts_with("//!") {
            faults.push(format!("{}: the first line says what it is for", file.display()));
        }
        if EMPTY_NAMES.contains(&stem(&file).as_str()) {
            faults.push(format!("{}: the name says nothing of its content", file.display()));
        }
        if !is_root(&file) && !parents(&file).any(|parent| declares(&read(&parent), &stem(&file))) {
            faults.push(format!("{}: no parent declares it", file.display()));
        }
        let lines = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default().lines().count();
        if lines > LONGEST {
            faults.push(format!("{}: {lines} lines are more than one noun or verb", file.display()));
        }
    }
    assert_no(&faults);
}

#[test]
fn a_main_is_a_wiring_diagram() {
    let mut faults = Vec::new();
    for file in workspace().iter().map(|member| member.root.join("src/main.rs")).filter(|file| file.exists()) {
        let lines = read(&file).lines().count();
        if lines > 40 {
            faults.push(format!("{}: {lines} lines", file.display()));
        }
    }
    assert_no(&faults);
}

#[test]
fn the_path_of_a_message_can_be_followed_from_file_to_file() {
    let mut faults = Vec::new();
    for (place, (file, next)) in HOPS.iter().enumerate() {
        let text = read(&root().join(file));
        let first = format!("//! Hop {} of 6:", place + 1);
        if !text.starts_with(&first) {
            faults.push(format!("{file}: begins with `{first}`"));
        }
        let last = text.lines().take_while(|line| line.starts_with("//!")).last().unwrap_or_default();
        if !last.contains(next) {
            faults.push(format!("{file}: its header ends by naming {next}"));
        }
    }
    assert_no(&faults);
}

#[test]
fn documents_name_what_is_there() {
    let mut faults = Vec::new();
    for page in ["README.md", "docs/ARCHITECTURE.md", "docs/STYLE.md"] {
        let text = read(&root().join(page));
        for named in text.split('`').skip(1).step_by(2).filter(|word| is_path(word)) {
            let folder = root().join(page).parent().map(Path::to_owned).unwrap_or_default();
            let places = [root().join(named), root().join("services").join(named), folder.join(named)];
            if !places.iter().any(|place| place.exists()) {
                faults.push(format!("{page} names {named}, which is not there"));
            }
        }
        for link in text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next()) {
            let folder = root().join(page).parent().map(Path::to_owned).unwrap_or_default();
            if !link.is_empty() && !link.contains("://") && !folder.join(link).exists() {
                faults.push(format!("{page} links to {link}, which is not there"));
            }
        }
    }
    for (number, file) in adrs() {
        if !read(&file).starts_with(&format!("# {number}")) {
            faults.push(format!("{}: begins with its number", file.display()));
        }
    }
    assert_no(&faults);
}

#[test]
fn tests_never_ignore_and_never_allow_without_a_reason() {
    let mut faults = Vec::new();
    let forbidden = [concat!("#[", "ignore"), concat!("#[", "allow("), concat!("#![", "allow(")];
    for member in workspace() {
        for file in ["src", "tests"].iter().flat_map(|folder| rust_files(&member.root.join(folder))) {
            let text = read(&file);
            for word in forbidden {
                // The attribute ends with the first line that closes it.
                let attributes = text.match_indices(word).filter_map(|(start, _)| text[start..].split(")]\n").next());
                for attribute in attributes.filter(|attribute| !attribute.contains("reason = ")) {
                    faults.push(format!("{}: {}", file.display(), attribute.lines().next().unwrap_or_default()));
                }
            }
        }
    }
    assert_no(&faults);
}

#[test]
fn every_duplicate_dependency_has_a_reason() {
    let lock = read(&root().join("Cargo.lock"));
    let names: Vec<&str> = lock.lines().filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"')).collect();
    let versions: Vec<&str> =
        lock.lines().filter_map(|line| line.strip_prefix("version = \"")?.strip_suffix('"')).collect();
    let deny = read(&root().join("deny.toml"));
    let mut faults = Vec::new();
    let mut newest = "";
    // The lock lists versions of one name one after the other, the oldest first: all but the newest need a reason.
    for (name, version) in names.iter().zip(&versions).rev() {
        if *name == newest {
            let listed = deny.lines().find(|line| line.contains(&format!("\"{name}@{version}\"")));
            if !listed.is_some_and(|line| line.contains("reason = ")) {
                faults.push(format!(
                    "{name}@{version} is a second version: give the reason in deny.toml, or be rid of it"
                ));
            }
        }
        newest = name;
    }
    assert_no(&faults);
}

fn assert_no(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

/// A word in backticks that is meant as a path of the tree.
fn is_path(word: &str) -> bool {
    let has_ending = [".rs", ".md", ".proto", ".toml", ".sh"].iter().any(|ending| word.ends_with(ending));
    let is_folder = word.ends_with('/');
    let is_plain = word.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
    is_plain && word.contains('/') && (has_ending || is_folder) && !word.starts_with('/')
}

/// `mod name;` on a line of its own, public or not.
fn declares(parent: &str, name: &str) -> bool {
    parent.lines().any(|line| {
        let line = line.trim();
        let line = line.strip_prefix("pub(crate) ").or_else(|| line.strip_prefix("pub ")).unwrap_or(line);
        line == format!("mod {name};")
    })
}

/// The files that may declare `file`: `a.rs` for `a/b.rs`, or the crate's root for `src/b.rs`.
fn parents(file: &Path) -> impl Iterator<Item = PathBuf> {
    let folder = file.parent().map(Path::to_owned).unwrap_or_default();
    [folder.with_extension("rs"), folder.join("lib.rs"), folder.join("main.rs")]
        .into_iter()
        .filter(|file| file.exists())
}

fn is_root(file: &Path) -> bool {
    matches!(stem(file).as_str(), "lib" | "main") || file.parent().is_some_and(|folder| folder.ends_with("bin"))
}

fn stem(file: &Path) -> String {
    file.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).expect("a readable text file")
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_owned).unwrap_or_default()
}

fn adrs() -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir(root().join("docs/adr")).into_iter().flatten();
    let files = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    files.filter_map(|file| Some((stem(&file).split('-').next()?.to_owned(), file))).collect()
}

struct Member {
    name: String,
    root: PathBuf,
    dependencies: Vec<String>,
}

fn workspace() -> Vec<Member> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version=1", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let packages = metadata["packages"].as_array().cloned().unwrap_or_default();
    packages
        .iter()
        .map(|package| Member {
            name: text(&package["name"]),
            root: Path::new(&text(&package["manifest_path"])).parent().map(Path::to_owned).unwrap_or_default(),
            // What tests alone need may point anywhere.
            dependencies: package["dependencies"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(|dependency| dependency["kind"].is_null())
                .map(|dependency| text(&dependency["name"]))
                .collect(),
        })
        .collect()
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(|entry| entry.ok().map(|entry| entry.path()));
    entries
        .flat_map(|path| {
            if path.is_dir() {
                rust_files(&path)
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                vec![path]
            } else {
                Vec::new()
            }
        })
        .collect()
}
