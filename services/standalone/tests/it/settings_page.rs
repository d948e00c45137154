//! `docs/SETTINGS.md` says what the services' command lines say. `SETTINGS_PAGE=write` writes its tables anew.

use std::{any::TypeId, collections::BTreeMap, fmt::Write as _, net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Arg, Command, CommandFactory as _};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/SETTINGS.md");
const END: &str = "<!-- end -->";

/// The tables of the page, each by the beginnings of its variables' names or by the service that alone has them.
const TABLES: [(&str, &[&str]); 5] = [
    (
        "process",
        &[
            "LOG=",
            "LOG_FORMAT=",
            "ENVIRONMENT=",
            "ADMIN_LISTEN=",
            "DRAIN_DELAY=",
            "STOP_TIMEOUT=",
            "OTEL_",
            "TRACES_PER_MINUTE=",
        ],
    ),
    (
        "addresses and auth",
        &["LISTEN=", "GRPC_LISTEN=", "ADVERTISE=", "POD_IP=", "INGEST=", "INTERNAL_TOKEN_FILE=", "AUTH_"],
    ),
    ("store", &["AWS_REGION=", "STORE_"]),
    ("log", &["LOG_"]),
    ("cache", &["REDIS_"]),
];

/// One setting, and the services that have it.
struct Setting {
    row: String,
    services: Vec<&'static str>,
}

fn commands() -> [(&'static str, Command); 4] {
    [
        ("gateway", gateway::config::Config::command()),
        ("ingest", ingest::Config::command()),
        ("fanout", fanout::config::Config::command()),
        ("chatmgmt", chatmgmt::Config::command()),
    ]
}

/// What a value looks like, by the type that reads it.
fn kind(arg: &Arg) -> &'static str {
    let read_as = arg.get_value_parser().type_id();
    let is = |id: TypeId| read_as == id;
    if is(TypeId::of::<Duration>()) {
        "duration"
    } else if is(TypeId::of::<PathBuf>()) {
        "path"
    } else if is(TypeId::of::<SocketAddr>()) {
        "ip:port"
    } else if is(TypeId::of::<u32>()) || is(TypeId::of::<usize>()) {
        "number"
    } else if is(TypeId::of::<platform::Secret>()) {
        "text, secret"
    } else if arg.get_possible_values().is_empty() {
        "text"
    } else {
        "choice"
    }
}

/// Name, default, kind and meaning, as cells of a table. `None`: no setting but one of clap's own flags.
fn row(arg: &Arg) -> Option<(String, String)> {
    let variable = arg.get_env()?.to_str().expect("a name").to_owned();
    let default =
        arg.get_default_values().iter().map(|value| value.to_str().expect("text")).collect::<Vec<_>>().join(",");
    let default = match (default.as_str(), arg.is_required_set()) {
        ("", true) => "**required**".to_owned(),
        ("", false) => "–".to_owned(),
        (default, _) => format!("`{default}`"),
    };
    let mut meaning = arg.get_help().map(ToString::to_string).unwrap_or_default().replace('|', "\\|");
    let choices: Vec<String> =
        arg.get_possible_values().iter().map(|value| format!("`{}`", value.get_name())).collect();
    if !choices.is_empty() {
        write!(meaning, ": {}", choices.join(", ")).expect("a text takes all");
    }
    let row = format!("| `{variable}` | {default} | {} | {meaning} |", kind(arg));
    Some((variable, row))
}

/// Every setting by its variable. One that two services have must mean the same in both, or it is a row for each.
fn settings() -> BTreeMap<(String, String), Setting> {
    let mut all: BTreeMap<(String, String), Setting> = BTreeMap::new();
    for (service, command) in commands() {
        for arg in command.get_arguments() {
            let Some((variable, row)) = row(arg) else { continue };
            let setting = all
                .entry((variable, row.clone()))
                .or_insert_with(|| Setting { row: row.clone(), services: Vec::new() });
            setting.services.push(service);
        }
    }
    all
}

/// The table a setting stands in.
fn table(variable: &str, setting: &Setting) -> String {
    let named = format!("{variable}=");
    let exact = TABLES.iter().find(|(_, names)| names.contains(&named.as_str()));
    // `STORE_CALLS` and its like belong to one service: they are about its pace, not about where the store is.
    let of_one =
        setting.services.len() == 1 && !["AUTH_", "LOG_", "REDIS_"].iter().any(|start| variable.starts_with(start));
    let by_start = || TABLES.iter().find(|(_, names)| names.iter().any(|name| variable.starts_with(name)));
    match exact {
        Some((table, _)) => (*table).to_owned(),
        None if of_one => setting.services[0].to_owned(),
        None => by_start().map_or_else(|| setting.services.join(" and "), |(table, _)| (*table).to_owned()),
    }
}

/// Every table as it should stand on the page.
fn tables() -> BTreeMap<String, String> {
    let mut tables: BTreeMap<String, String> = BTreeMap::new();
    for ((variable, _), setting) in settings() {
        let text = tables.entry(table(&variable, &setting)).or_insert_with(|| {
            "| variable | default | kind | meaning | services |\n|---|---|---|---|---|\n".to_owned()
        });
        let services = if setting.services.len() == 4 { "all".to_owned() } else { setting.services.join(", ") };
        writeln!(text, "{} {services} |", setting.row).expect("a text takes all");
    }
    tables
}

/// The page with these tables in the places that are marked for them.
fn filled(page: &str, mut tables: BTreeMap<String, String>) -> String {
    let mut filled = String::new();
    let mut rest = page;
    while let Some(place) = rest.find("<!-- table: ") {
        let after = &rest[place..];
        let name = after.strip_prefix("<!-- table: ").and_then(|text| text.split_once(" -->")).expect("a whole mark").0;
        let mark = format!("<!-- table: {name} -->\n");
        let end = after.find(END).expect("an end mark");
        let table = tables.remove(name).expect(name);
        filled.push_str(&rest[..place]);
        filled.push_str(&mark);
        filled.push_str(&table);
        rest = &after[end..];
    }
    assert!(tables.is_empty(), "the page has no place for {:?}", tables.keys());
    filled + rest
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test has no settings but this one")]
fn the_settings_page_says_what_the_command_lines_say() {
    let page = std::fs::read_to_string(PAGE).expect("the page");
    let expected = filled(&page, tables());
    if std::env::var("SETTINGS_PAGE").as_deref() == Ok("write") {
        std::fs::write(PAGE, &expected).expect("written");
        return;
    }
    let differs = expected.lines().zip(page.lines()).find(|(expected, found)| expected != found);
    let advice = "write it anew: SETTINGS_PAGE=write cargo test -p standalone --test it";
    assert!(expected == page, "docs/SETTINGS.md is behind the services: {differs:?}; {advice}");
}

#[test]
fn every_setting_has_a_variable_and_a_meaning() {
    for (service, command) in commands() {
        for arg in command.get_arguments().filter(|arg| !["help", "version"].contains(&arg.get_id().as_str())) {
            assert!(arg.get_env().is_some(), "{service}: {} has no variable", arg.get_id());
            assert!(arg.get_help().is_some(), "{service}: {} has no meaning", arg.get_id());
            let variable = arg.get_id().as_str().to_uppercase();
            let shown = arg.get_env().expect("checked").to_str().expect("a name");
            let differs = [
                ("STORE_REGION", "AWS_REGION"),
                ("DRAIN", "INGEST_DRAIN"),
                ("OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"),
            ];
            assert!(shown == variable || differs.contains(&(&variable, shown)), "{service}: {variable} is {shown}");
        }
    }
}
