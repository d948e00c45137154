//! Whose a topic's setting is: ours to set, ours to take back, or somebody else's to keep. Pure.

use std::collections::BTreeMap;

use adapters::kafka::{
    admin::TopicState,
    layout::{self, MIN_INSYNC_REPLICAS},
};

use super::{
    Provider, Wanted, WantedTopic,
    plan::{Alteration, is_of_topic},
};
use crate::engine::TopicRecord;

/// Redpanda's copies of each partition.
const REPLICATION_FACTOR: &str = "replication.factor";

/// What comparing the settings came to.
pub(super) struct Compared {
    pub(super) changes: Alteration,
    /// What is to be known of our doings before the changes are made.
    pub(super) record: BTreeMap<String, String>,
}

/// The settings that a topic should have, of those that its brokers let one set.
pub(super) fn wanted(wanted: &Wanted, topic: &WantedTopic) -> BTreeMap<String, String> {
    let replicas = wanted.replicas();
    let mut configs = layout::configs(topic.topic, topic.retention, replicas);
    match wanted.provider {
        Provider::Kafka | Provider::Msk => {}
        Provider::MskServerless => drop(configs.remove(MIN_INSYNC_REPLICAS)),
        Provider::Redpanda => {
            configs.remove(MIN_INSYNC_REPLICAS);
            if let Some(replicas) = replicas {
                configs.insert(REPLICATION_FACTOR.to_owned(), replicas.to_string());
            }
        }
    }
    configs
}

/// Compares settings by meaning.
///
/// One that is in force with the value asked for is left alone wherever it was set. One that we set before and is not
/// asked for is taken back, unless it has another value by now: then somebody else wants it. All others are not ours.
pub(super) fn compare(wanted: &BTreeMap<String, String>, state: &TopicState, known: Option<&TopicRecord>) -> Compared {
    let mut compared = Compared { changes: Vec::new(), record: BTreeMap::new() };
    for (key, value) in wanted {
        let found = state.configs.get(key);
        let is_same =
            found.and_then(|found| found.value.as_deref()).is_some_and(|found| canonical(found) == canonical(value));
        let is_set = found.is_some_and(|found| is_of_topic(found.source));
        if !is_same {
            compared.changes.push((key.clone(), Some(value.clone())));
        }
        // Without a record of the topic, what was set on it as we set it was set by us.
        if !is_same || (is_set && known.is_none_or(|known| known.configs.contains_key(key))) {
            compared.record.insert(key.clone(), value.clone());
        }
    }
    for (key, value) in known.iter().flat_map(|known| &known.configs) {
        if wanted.contains_key(key) {
            continue;
        }
        let is_ours = state.configs.get(key).is_some_and(|found| {
            is_of_topic(found.source)
                && found.value.as_deref().is_some_and(|found| canonical(found) == canonical(value))
        });
        if is_ours {
            compared.changes.push((key.clone(), None));
            compared.record.insert(key.clone(), value.clone());
        }
    }
    compared
}

/// The same text for the same meaning: brokers may answer numbers, lists and names in a form of their own.
fn canonical(value: &str) -> String {
    let value = value.trim();
    if let Ok(number) = value.parse::<i128>() {
        return number.to_string();
    }
    let mut parts: Vec<String> = value.split(',').map(|part| part.trim().to_lowercase()).collect();
    parts.sort();
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_one_value_are_one_value() {
        assert_eq!(canonical(" 0604800000"), canonical("604800000"));
        assert_eq!(canonical("CreateTime"), canonical("createtime"));
        assert_eq!(canonical("compact, delete"), canonical("delete,compact"));
        assert_ne!(canonical("delete"), canonical("compact"));
        assert_ne!(canonical("-1"), canonical("1"));
    }
}
