//! The variables that the operator sets are those that the processes read (docs/SETTINGS.md, which a test of theirs holds).

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use operator::cluster::validate::Service;
use serde_json::Value;

use crate::specs;

/// What a service reads, and what of it has no default.
#[derive(Default)]
struct Read {
    known: BTreeSet<String>,
    required: BTreeSet<String>,
}

fn page() -> BTreeMap<&'static str, Read> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/SETTINGS.md");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut services: BTreeMap<&'static str, Read> = BTreeMap::new();
    let tables = text.split("<!-- table: ").skip(1).filter_map(|rest| rest.split("<!-- end -->").next());
    for row in tables.flat_map(str::lines).filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [variable, default, .., of] = cells[..] else { panic!("a row of other cells: {row}") };
        let variable = variable.trim_matches('`').to_owned();
        for service in Service::ALL.map(Service::name) {
            if of.trim_end_matches('|').trim() == "all"
                || of.split(',').any(|one| one.trim().trim_end_matches('|').trim() == service)
            {
                let read = services.entry(service).or_default();
                read.known.insert(variable.clone());
                if default == "**required**" {
                    read.required.insert(variable.clone());
                }
            }
        }
    }
    services
}

/// The variables of a service's container.
fn set(objects: &[Value], cluster: &str, service: &str) -> BTreeSet<String> {
    let name = format!("{cluster}-{service}");
    let settings = specs::find(objects, "ConfigMap", &name).unwrap()["data"].as_object().unwrap();
    let deployment = specs::find(objects, "Deployment", &name).unwrap();
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    let named = container["env"].as_array().into_iter().flatten().map(|variable| variable["name"].as_str().unwrap());
    settings.keys().map(String::as_str).chain(named).map(str::to_owned).collect()
}

#[test]
fn every_variable_is_read_and_every_required_one_is_set() {
    let page = page();
    assert_eq!(page.len(), 4);
    for value in specs::EXAMPLES.map(specs::example).into_iter().chain([specs::every_field()]) {
        let objects = specs::objects(&specs::valid(&value));
        let cluster = value["metadata"]["name"].as_str().unwrap();
        for service in Service::ALL.map(Service::name) {
            let (set, read) = (set(&objects, cluster, service), &page[service]);
            assert!(read.known.len() > 20, "{service} reads more than that");
            assert!(!read.required.is_empty(), "{service} needs something");
            let unknown: Vec<_> = set.difference(&read.known).collect();
            assert!(unknown.is_empty(), "{service} does not read {unknown:?}");
            let missing: Vec<_> = read.required.difference(&set).collect();
            assert!(missing.is_empty(), "{service} can't start without {missing:?}");
        }
    }
}

#[test]
fn every_file_that_a_variable_names_is_mounted() {
    for value in specs::EXAMPLES.map(specs::example).into_iter().chain([specs::every_field()]) {
        let objects = specs::objects(&specs::valid(&value));
        for deployment in objects.iter().filter(|object| object["kind"] == "Deployment") {
            let pod = &deployment["spec"]["template"]["spec"];
            let mut files = BTreeSet::new();
            for volume in pod["volumes"].as_array().unwrap() {
                for source in volume["projected"]["sources"].as_array().unwrap() {
                    for item in source["secret"]["items"].as_array().unwrap() {
                        let path = format!(
                            "/etc/messaging/{}/{}",
                            volume["name"].as_str().unwrap(),
                            item["path"].as_str().unwrap()
                        );
                        assert!(files.insert(path.clone()), "{path} is there twice");
                    }
                }
            }
            let name = deployment["metadata"]["name"].as_str().unwrap();
            let settings = specs::find(&objects, "ConfigMap", name).unwrap()["data"].as_object().unwrap().clone();
            for (variable, path) in settings.iter().filter(|(variable, _)| variable.ends_with("_FILE")) {
                assert!(files.contains(path.as_str().unwrap()), "{name}: {variable}={path} is not mounted");
            }
        }
    }
}
