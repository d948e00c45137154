//! What would change: the same pipeline with dry runs in place of writes.

use crds::{
    MessagingCluster,
    status::{Plan, PlannedChange},
};
use futures_util::{FutureExt as _, StreamExt as _, stream};
use kube::core::DynamicObject;
use serde_json::Value;

use crate::{
    backends::Reports,
    cluster::{
        Context, Done, Error, apply,
        build::{Objects, TEMPLATE_HASH, VERSION_LABEL},
        fetch::{Fetched, Key},
        validate::Cluster,
    },
    engine::Act,
};

/// Changes that the status has room for.
const SHOWN: usize = 100;
/// Longest value in a change.
const VALUE: usize = 256;
/// Dry runs at a time.
const AT_A_TIME: usize = 8;

/// Finds out what would change, for the status, and changes nothing.
///
/// # Errors
/// When the API server does not answer.
pub async fn plan(
    cluster: &MessagingCluster,
    wanted: &Cluster,
    objects: &Objects,
    fetched: &Fetched,
    context: &Context,
) -> Result<Done, Error> {
    let (changes, reports) = changes(cluster, wanted, objects, fetched, context).await?;
    let plan = Plan { summary: summary(&changes), changes: changes.into_iter().take(SHOWN).collect() };
    let applied = apply::observe(&wanted.name, &fetched.live);
    Ok(Done { applied, reports, plan: Some(plan), ..Done::default() })
}

/// Every change that would be made, by object and field, and what the engines saw on the way.
///
/// # Errors
/// When the API server does not answer.
pub async fn changes(
    cluster: &MessagingCluster,
    wanted: &Cluster,
    objects: &Objects,
    fetched: &Fetched,
    context: &Context,
) -> Result<(Vec<PlannedChange>, Reports), Error> {
    let owner = &cluster.metadata;
    let runs: Vec<_> = objects
        .iter()
        .filter_map(|object| Some((Key::of(object)?, object)))
        .map(|(key, object)| {
            async move {
                let answer = apply::dry_run(owner, &key, object, context).await;
                (key, answer)
            }
            .boxed()
        })
        .collect();
    let dry: Vec<(Key, kube::Result<DynamicObject>)> = stream::iter(runs).buffered(AT_A_TIME).collect().await;
    let mut changes = Vec::new();
    for (key, answer) in dry {
        match (answer, fetched.live.get(&key)) {
            (Ok(_), None) => changes.push(whole(&key, None, "created")),
            (Ok(after), Some(before)) => compare(&key, before, &after, &mut changes),
            (Err(kube::Error::Api(status)), _) => {
                changes.push(whole(&key, None, &format!("refused: {}", status.message)));
            }
            (Err(error), _) => return Err(error.into()),
        }
    }
    let kept = objects.keys();
    for (key, object) in fetched.live.iter() {
        let is_ours = object.metadata.owner_references.iter().flatten().any(|one| Some(&one.uid) == owner.uid.as_ref());
        if is_ours && !kept.contains(key) {
            changes.push(whole(key, Some("present"), "deleted"));
        }
    }
    let reports = context.backends.sync(wanted, Act::Plan).await;
    for change in [&reports.topics, &reports.tables].into_iter().flatten().flat_map(|report| &report.changes) {
        changes.push(PlannedChange {
            object: change.object.clone(),
            field: change.field.clone(),
            from: change.from.clone(),
            to: change.to.clone(),
            disruptive: change.disruptive,
            why: Some(change.why.clone()),
        });
    }
    changes.sort_by(|one, other| (&one.object, &one.field).cmp(&(&other.object, &other.field)));
    Ok((changes, reports))
}

/// The changes, counted.
pub fn summary(changes: &[PlannedChange]) -> String {
    let is = |word: &str| {
        changes.iter().filter(|change| change.field.is_none() && change.to.as_deref() == Some(word)).count()
    };
    let (added, deleted) = (is("created"), is("deleted"));
    format!("{} to change, {added} to add, {deleted} to delete", changes.len() - added - deleted)
}

fn whole(key: &Key, from: Option<&str>, to: &str) -> PlannedChange {
    PlannedChange {
        object: key.to_string(),
        from: from.map(str::to_owned),
        to: Some(to.chars().take(VALUE).collect()),
        disruptive: to == "deleted",
        ..PlannedChange::default()
    }
}

/// The fields in which two lives of an object differ; not those that the API server keeps by itself, nor the notes that
/// follow from other fields: the label of the version is on every object and follows the image.
fn compare(key: &Key, before: &DynamicObject, after: &DynamicObject, changes: &mut Vec<PlannedChange>) {
    let strip = |object: &DynamicObject| {
        let mut value = serde_json::to_value(object).unwrap_or_default();
        if let Some(object) = value.as_object_mut() {
            object.remove("status");
        }
        for metadata in ["/metadata", "/spec/template/metadata"] {
            for (map, note) in [("labels", VERSION_LABEL), ("annotations", TEMPLATE_HASH)] {
                let map = value.pointer_mut(&format!("{metadata}/{map}")).and_then(Value::as_object_mut);
                map.and_then(|map| map.remove(note));
            }
        }
        if let Some(metadata) = value["metadata"].as_object_mut() {
            for field in ["managedFields", "resourceVersion", "generation", "uid", "creationTimestamp"] {
                metadata.remove(field);
            }
        }
        value
    };
    differ("", &strip(before), &strip(after), &mut |path, from, to| {
        changes.push(PlannedChange {
            object: key.to_string(),
            field: Some(path.trim_start_matches('.').to_owned()),
            from: from.map(short),
            to: to.map(short),
            disruptive: path.starts_with(".spec.template."),
            why: None,
        });
    });
}

fn short(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    text.chars().take(VALUE).collect()
}

fn differ(path: &str, from: &Value, to: &Value, tell: &mut impl FnMut(&str, Option<&Value>, Option<&Value>)) {
    match (from, to) {
        (Value::Object(from), Value::Object(to)) => {
            for (name, old) in from {
                match to.get(name) {
                    Some(new) => differ(&format!("{path}.{name}"), old, new, tell),
                    None => tell(&format!("{path}.{name}"), Some(old), None),
                }
            }
            for (name, new) in to.iter().filter(|(name, _)| !from.contains_key(*name)) {
                tell(&format!("{path}.{name}"), None, Some(new));
            }
        }
        (Value::Array(from), Value::Array(to)) if from.len() == to.len() => {
            for (place, (old, new)) in from.iter().zip(to).enumerate() {
                differ(&format!("{path}[{place}]"), old, new, tell);
            }
        }
        (from, to) if from == to => {}
        (from, to) => tell(path, Some(from), Some(to)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_difference_is_told_with_its_path() {
        let mut told = Vec::new();
        let from = json!({ "spec": { "replicas": 2, "list": [{ "a": 1 }], "gone": true } });
        let to = json!({ "spec": { "replicas": 3, "list": [{ "a": 2 }], "new": "x" } });
        differ("", &from, &to, &mut |path, from, to| told.push((path.to_owned(), from.map(short), to.map(short))));
        let some = |text: &str| Some(text.to_owned());
        told.sort();
        assert_eq!(
            told,
            [
                (".spec.gone".to_owned(), some("true"), None),
                (".spec.list[0].a".to_owned(), some("1"), some("2")),
                (".spec.new".to_owned(), None, some("x")),
                (".spec.replicas".to_owned(), some("2"), some("3")),
            ]
        );
    }
}
