//! What the operator makes of the examples, as files that a reader can read. `make golden` writes them anew.

use std::{collections::BTreeSet, fmt::Write as _, fs};

use k8s_openapi::api::{
    apps::v1::Deployment,
    autoscaling::v2::HorizontalPodAutoscaler,
    core::v1::{ConfigMap, Service, ServiceAccount},
    networking::v1::{Ingress, NetworkPolicy},
    policy::v1::PodDisruptionBudget,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::specs::{self, EXAMPLES};

/// Names the test's variable: with `write` the files are written instead of compared.
const GOLDEN: &str = "GOLDEN";

#[test]
fn examples_make_the_objects_that_stand_in_golden() {
    #[expect(clippy::disallowed_methods, reason = "`make golden` asks for it")]
    let is_writing = std::env::var(GOLDEN).is_ok_and(|asked| asked == "write");
    let mut faults = String::new();
    for name in EXAMPLES {
        let cluster = specs::valid(&specs::example(name));
        let mut text = format!("# What the operator makes of specs/{name}.yaml. Made by `make golden`; do not edit.\n");
        for object in specs::objects(&cluster) {
            write!(text, "---\n{}", serde_saphyr::to_string(&object).unwrap()).unwrap();
        }
        let path = specs::folder().join(format!("golden/{name}.yaml"));
        if is_writing {
            fs::write(&path, text).unwrap();
            continue;
        }
        let golden = fs::read_to_string(&path).unwrap_or_default();
        if let Some((place, (is, was))) =
            text.lines().zip(golden.lines().chain(std::iter::repeat(""))).enumerate().find(|(_, (is, was))| is != was)
        {
            writeln!(faults, "{name}.yaml, line {}: golden has {was:?}, now made is {is:?}", place + 1).unwrap();
        } else if text.len() != golden.len() {
            writeln!(faults, "{name}.yaml: golden has more than is made now").unwrap();
        }
    }
    assert!(faults.is_empty(), "{faults}if that is wanted: make golden");
}

#[test]
fn every_object_says_the_same_in_the_types_of_the_api() {
    for value in EXAMPLES.map(specs::example).iter().chain(&[specs::every_field()]) {
        for object in specs::objects(&specs::valid(value)) {
            let typed = match object["kind"].as_str().unwrap_or_default() {
                "Deployment" => typed::<Deployment>(&object),
                "Service" => typed::<Service>(&object),
                "ServiceAccount" => typed::<ServiceAccount>(&object),
                "ConfigMap" => typed::<ConfigMap>(&object),
                "NetworkPolicy" => typed::<NetworkPolicy>(&object),
                "PodDisruptionBudget" => typed::<PodDisruptionBudget>(&object),
                "HorizontalPodAutoscaler" => typed::<HorizontalPodAutoscaler>(&object),
                "Ingress" => typed::<Ingress>(&object),
                "HTTPRoute" | "ServiceMonitor" => object.clone(),
                other => panic!("{other} is not among the kinds that the operator makes"),
            };
            assert_eq!(typed, object, "a field is unknown to the API, or of another type");
        }
    }
}

/// The object after a journey through its type, which drops what it doesn't know.
fn typed<T: DeserializeOwned + Serialize>(object: &Value) -> Value {
    let typed: T = serde_json::from_value(object.clone()).unwrap_or_else(|error| panic!("{error}: {object}"));
    serde_json::to_value(typed).unwrap()
}

#[test]
fn no_two_objects_have_one_name() {
    for value in EXAMPLES.map(specs::example) {
        let objects = specs::objects(&specs::valid(&value));
        let names: BTreeSet<String> =
            objects.iter().map(|object| format!("{}/{}", object["kind"], object["metadata"]["name"])).collect();
        assert_eq!(names.len(), objects.len());
    }
}
