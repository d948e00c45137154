//! From the topics asked for, those found and what we did before to what has to be done. Pure.

use std::collections::BTreeMap;

use adapters::kafka::{
    admin::{Error, Source, TopicSpec, TopicState},
    layout::{CLEANUP_POLICY, MIN_INSYNC_REPLICAS},
};

use super::{Partitions, Provider, Wanted, WantedTopic, settings};
use crate::engine::{Adoption, Change, Item, Management, Notice, Reason, Record, TopicRecord};

/// What brokers answered, by topic.
pub type Found = BTreeMap<String, Result<Option<TopicState>, Error>>;

/// Settings of a topic to set (`Some`) and to take back (`None`).
pub type Alteration = Vec<(String, Option<String>)>;

/// What has to be done, and what is to be said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Topics to make.
    pub create: Vec<TopicSpec>,
    /// Topics that need more partitions: how many in all.
    pub grow: Vec<(String, u32)>,
    /// Topics with settings to change.
    pub alter: Vec<(String, Alteration)>,
    /// Each topic as it stands, in the order asked for.
    pub items: Vec<Item>,
    /// The same work, as people read it.
    pub changes: Vec<Change>,
    /// What people should know.
    pub notices: Vec<Notice>,
    /// What is to be known of our doings before any of it is done.
    pub record: Record,
}

impl Plan {
    /// Whether nothing has to be done.
    pub fn is_empty(&self) -> bool {
        self.create.is_empty() && self.grow.is_empty() && self.alter.is_empty()
    }

    /// The work on each topic, as a word that is the same for the same work.
    pub fn work(&self) -> BTreeMap<String, String> {
        let mut work: BTreeMap<String, String> = BTreeMap::new();
        let all = (self.create.iter().map(|topic| (&topic.name, format!("create {topic:?}"))))
            .chain(self.grow.iter().map(|(name, count)| (name, format!("grow to {count}"))))
            .chain(self.alter.iter().map(|(name, changes)| (name, format!("alter {changes:?}"))));
        for (name, step) in all {
            work.entry(name.clone()).or_default().push_str(&step);
        }
        work
    }
}

/// Whose a topic is that exists.
enum Standing {
    Ours,
    /// Ours by its name, but not the one we knew.
    Replaced,
    Foreign(String),
}

/// Makes the plan.
pub fn plan(wanted: &Wanted, found: &Found, record: &Record) -> Plan {
    let mut plan = Plan { record: record.clone(), ..Plan::default() };
    for topic in &wanted.topics {
        match found.get(&topic.name) {
            Some(Ok(Some(state))) => existing(&mut plan, wanted, topic, state),
            Some(Ok(None)) => absent(&mut plan, wanted, topic),
            Some(Err(error)) => {
                let (reason, message) = super::refusal(error);
                plan.items.push(item(topic, None, reason, message));
            }
            None => {
                let message = "the brokers said nothing about it".to_owned();
                plan.items.push(item(topic, None, Reason::KafkaUnreachable, message));
            }
        }
    }
    plan
}

fn absent(plan: &mut Plan, wanted: &Wanted, topic: &WantedTopic) {
    if wanted.management == Management::External {
        let message = format!(
            "it is not there; make it with {} partitions, or let the operator do it by management: Managed",
            topic.partitions.count()
        );
        return plan.items.push(item(topic, None, Reason::DriftDetected, message));
    }
    let spec = TopicSpec {
        name: topic.name.clone(),
        partitions: topic.partitions.count(),
        replication_factor: wanted.replicas(),
        configs: settings::wanted(wanted, topic),
    };
    let known = plan.record.topics.get(&topic.name).and_then(|known| known.id.clone());
    let why = match &known {
        Some(_) => "somebody deleted it; the store has all messages, records that were not consumed are published anew",
        None => "the cluster needs it",
    };
    if let Some(id) = known {
        let message = format!("{} (id {id}) was deleted by somebody else; it is made anew", topic.name);
        plan.notices.push(Notice { reason: "TopicVanished", object: object(topic), message, is_warning: true });
    }
    plan.changes.push(Change {
        object: object(topic),
        field: None,
        from: None,
        to: Some(format!("{} partitions", spec.partitions)),
        disruptive: false,
        why: why.to_owned(),
    });
    plan.record.topics.insert(topic.name.clone(), TopicRecord { id: None, configs: spec.configs.clone() });
    plan.create.push(spec);
    plan.items.push(item(topic, None, Reason::DriftDetected, "it is to be made".to_owned()));
}

fn existing(plan: &mut Plan, wanted: &Wanted, topic: &WantedTopic, state: &TopicState) {
    if wanted.management == Management::External {
        return external(plan, wanted, topic, state);
    }
    match standing(wanted, topic, state, plan.record.topics.get(&topic.name)) {
        Standing::Foreign(message) => {
            return plan.items.push(item(topic, Some(state), Reason::ResourceConflict, message));
        }
        Standing::Replaced => {
            let known = plan.record.topics.remove(&topic.name).and_then(|known| known.id).unwrap_or_default();
            let message = format!(
                "{} was deleted and made anew by somebody else: its id was {known} and is {}",
                topic.name,
                state.id.as_deref().unwrap_or("unknown")
            );
            plan.notices.push(Notice { reason: "TopicReplaced", object: object(topic), message, is_warning: true });
        }
        Standing::Ours => {}
    }

    let known = plan.record.topics.get(&topic.name).cloned();
    let settings = settings::compare(&settings::wanted(wanted, topic), state, known.as_ref());
    let after = TopicRecord { id: state.id.clone().or(known.and_then(|known| known.id)), configs: settings.record };
    plan.record.topics.insert(topic.name.clone(), after);

    for (key, to) in &settings.changes {
        plan.changes.push(Change {
            object: object(topic),
            field: Some(key.clone()),
            from: state.configs.get(key).and_then(|config| config.value.clone()),
            to: to.clone(),
            disruptive: false,
            why: match to {
                Some(_) => "it is not as asked for".to_owned(),
                None => "it was set by us and is not asked for any more".to_owned(),
            },
        });
    }
    let grow_to = (topic.partitions.count() > state.partitions).then(|| topic.partitions.count());
    if let Some(count) = grow_to {
        plan.changes.push(Change {
            object: object(topic),
            field: Some("partitions".to_owned()),
            from: Some(state.partitions.to_string()),
            to: Some(count.to_string()),
            disruptive: true,
            why: "chats move to other partitions and partitions can't be taken away again; a chat's order over the \
                  move is kept by its sequence numbers alone"
                .to_owned(),
        });
        plan.grow.push((topic.name.clone(), count));
    }
    let is_altered = !settings.changes.is_empty();
    if is_altered {
        plan.alter.push((topic.name.clone(), settings.changes));
    }

    let (reason, message) = match problem(wanted, topic, state) {
        Some(problem) => problem,
        None if is_altered || grow_to.is_some() => (Reason::DriftDetected, "it is being corrected".to_owned()),
        None => (Reason::TopicsInSync, String::new()),
    };
    plan.items.push(item(topic, Some(state), reason, message));
}

/// What is wrong and stays wrong whatever we do.
fn problem(wanted: &Wanted, topic: &WantedTopic, state: &TopicState) -> Option<(Reason, String)> {
    if let Partitions::Exactly(asked) = topic.partitions
        && asked < state.partitions
    {
        let message = format!(
            "it has {} partitions and {asked} are asked for, which can't be: ask for {}",
            state.partitions, state.partitions
        );
        return Some((Reason::PartitionDecreaseRefused, message));
    }
    // Redpanda has its copies as a setting, which is among those compared.
    if let Some(asked) = wanted.replicas()
        && wanted.provider != Provider::Redpanda
        && state.replication_factor < asked
    {
        let message = format!(
            "it has {} copies of a partition and {asked} are asked for; move its partitions (kafka-reassign-partitions), \
             or ask for {}",
            state.replication_factor, state.replication_factor
        );
        return Some((Reason::DriftDetected, message));
    }
    None
}

/// Somebody else's topic that we use: it has to be there and to keep what is written.
fn external(plan: &mut Plan, wanted: &Wanted, topic: &WantedTopic, state: &TopicState) {
    let compared = settings::compare(&settings::wanted(wanted, topic), state, None);
    for (key, to) in compared.changes {
        plan.changes.push(Change {
            object: object(topic),
            from: state.configs.get(&key).and_then(|config| config.value.clone()),
            field: Some(key),
            to,
            disruptive: false,
            why: "for whoever manages it: it differs from what is asked for".to_owned(),
        });
    }
    let policy = state.configs.get(CLEANUP_POLICY).and_then(|config| config.value.as_deref());
    let (reason, message) = if policy.is_some_and(|policy| policy.contains("compact")) {
        let message = "its cleanup.policy compacts, which loses all but the last message of each chat: make it delete";
        (Reason::DriftDetected, message.to_owned())
    } else if let Some(copies) = unwritable(state) {
        (Reason::DriftDetected, copies)
    } else if state.partitions < topic.partitions.count() && matches!(topic.partitions, Partitions::Exactly(_)) {
        let message = format!("it has {} partitions, asked for are {}", state.partitions, topic.partitions.count());
        (Reason::DriftDetected, message)
    } else {
        (Reason::TopicsInSync, String::new())
    };
    plan.items.push(item(topic, Some(state), reason, message));
}

/// Whether more copies must have a record than there are.
fn unwritable(state: &TopicState) -> Option<String> {
    let needed: u16 = state.configs.get(MIN_INSYNC_REPLICAS)?.value.as_deref()?.parse().ok()?;
    (needed > state.replication_factor).then(|| {
        format!(
            "nothing can be written to it: {needed} copies must have a record and there are {}",
            state.replication_factor
        )
    })
}

fn standing(wanted: &Wanted, topic: &WantedTopic, state: &TopicState, known: Option<&TopicRecord>) -> Standing {
    let is_known = match known {
        Some(TopicRecord { id: Some(known), .. }) => state.id.as_ref().is_none_or(|id| id == known),
        Some(TopicRecord { id: None, .. }) => true,
        None => false,
    };
    if is_known {
        return Standing::Ours;
    }
    // No other cluster's topics begin so: a namespace has no dots.
    let is_named = topic.name.starts_with(&format!("{}.{}.", wanted.owner.namespace, wanted.owner.name));
    if is_named || wanted.adoption == Adoption::Unowned {
        return if known.is_some() { Standing::Replaced } else { Standing::Ours };
    }
    Standing::Foreign(match known {
        Some(_) => "somebody deleted it and made another of that name; set topics.adoptionPolicy: Unowned to use it".to_owned(),
        None => "it exists and was not made by this cluster; set topics.adoptionPolicy: Unowned to take it over, or another \
                 topics.prefix"
            .to_owned(),
    })
}

pub(super) fn object(topic: &WantedTopic) -> String {
    format!("topic/{}", topic.name)
}

fn item(topic: &WantedTopic, state: Option<&TopicState>, reason: Reason, message: String) -> Item {
    Item {
        name: topic.name.clone(),
        id: state.and_then(|state| state.id.clone()),
        partitions: state.map(|state| state.partitions),
        status: None,
        reason,
        message,
    }
}

/// Where a value that is in force was set.
pub(super) fn is_of_topic(source: Source) -> bool {
    source == Source::Topic
}

/// Whether a topic is ours and the one that we made; otherwise why it is left alone.
///
/// # Errors
/// With the reason for people.
pub(super) fn may_be_deleted(
    wanted: &Wanted,
    name: &str,
    state: &TopicState,
    known: Option<&TopicRecord>,
) -> Result<(), String> {
    match known {
        Some(TopicRecord { id: Some(known), .. }) if state.id.as_ref().is_some_and(|id| id != known) => {
            Err(format!("{name} is not the topic that was made for this cluster; delete it by hand if nobody needs it"))
        }
        Some(_) => Ok(()),
        None if name.starts_with(&format!("{}.{}.", wanted.owner.namespace, wanted.owner.name)) => Ok(()),
        None => Err(format!("{name} was not made for this cluster")),
    }
}
