//! From a table asked for and the table found to what can be done about it now. Pure.

use std::collections::BTreeMap;

use adapters::dynamodb::{
    admin::{Attribute, Billing, IndexState, Status, Switch, TableSpec, TableState, Ttl},
    layout::{Index, KeyKind},
};

use super::{Wanted, WantedTable};
use crate::engine::{Adoption, Change, Item, Management, Owner, Reason, TableRecord};

/// The owner's name, as a tag.
pub const TAG_CLUSTER: &str = "messaging:cluster";
/// The owner's namespace, as a tag.
pub const TAG_NAMESPACE: &str = "messaging:namespace";
/// The uid of the owner's present life, as a tag.
pub const TAG_UID: &str = "messaging:cluster-uid";
/// Who changes the table, as a tag.
pub const TAG_MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// One change of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make it.
    Create(Box<TableSpec>),
    /// Set these tags on the table of this name in AWS.
    Tag(String, BTreeMap<String, String>),
    /// Change whether the store refuses to delete it.
    Protect(Switch),
    /// Change how it and these indexes of it are paid.
    Bill(Billing, Vec<String>),
    /// Make an index, paid as its table is.
    Index(Index, Billing),
    /// Change whether items go after the time in this attribute.
    Ttl(String, Switch),
    /// Change whether it can be restored to any second.
    Recovery(Switch),
}

impl Step {
    /// Whether the store takes no other change until this one is done.
    pub fn is_exclusive(&self) -> bool {
        match self {
            Self::Tag(..) | Self::Recovery(_) => false,
            Self::Create(_) | Self::Protect(_) | Self::Bill(..) | Self::Index(..) | Self::Ttl(..) => true,
        }
    }
}

/// What has to be done to a table, and what is to be said of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What can be done now, in order; of those that need the table at rest only the first that is taken.
    pub steps: Vec<Step>,
    /// All that differs, as people read it.
    pub changes: Vec<Change>,
    /// The table as it stands.
    pub item: Item,
}

/// Whose a table is that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Ours.
    Ours,
    /// Nobody's, and we may have it.
    Free,
    /// Somebody else's, or nobody's that we may not have; with what to do about it.
    Foreign(String),
}

/// The tags of a table of this owner.
pub fn tags(owner: &Owner) -> BTreeMap<String, String> {
    let tags = [
        (TAG_CLUSTER, owner.name.as_str()),
        (TAG_NAMESPACE, &owner.namespace),
        (TAG_UID, &owner.uid),
        (TAG_MANAGED_BY, "messaging-operator"),
    ];
    tags.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

/// Whose a table is: by its tags; where the store has none, by our own record of it, or by its name.
pub fn standing(wanted: &Wanted, name: &str, state: &TableState, known: Option<&TableRecord>) -> Standing {
    let owner = &wanted.owner;
    let marked = match &state.tags {
        Some(tags) => tags.get(TAG_NAMESPACE).zip(tags.get(TAG_CLUSTER)),
        None if known.is_some() || name.starts_with(&format!("{}-{}-", owner.namespace, owner.name)) => {
            return Standing::Ours;
        }
        None => None,
    };
    match marked {
        Some((namespace, name)) if *namespace == owner.namespace && *name == owner.name => Standing::Ours,
        Some((namespace, name)) => Standing::Foreign(format!(
            "it belongs to the MessagingCluster {namespace}/{name}; choose another tables.prefix, or change its tags by hand"
        )),
        None if wanted.adoption == Adoption::Unowned => Standing::Free,
        None => Standing::Foreign(
            "it exists and carries no mark of this cluster; set tables.adoptionPolicy: Unowned to take it over, or \
             another tables.prefix"
                .to_owned(),
        ),
    }
}

/// Makes the plan for one table. `known` says that the table is ours, where the store has no tags.
pub fn plan(wanted: &Wanted, table: &WantedTable, found: Option<&TableState>, known: Option<&TableRecord>) -> Plan {
    let Some(state) = found else { return absent(wanted, table) };
    let mut draft = Draft { wanted, table, state, steps: Vec::new(), changes: Vec::new() };
    if state.status == Status::Deleting {
        return draft.finish(Reason::TableUpdating, "it is being deleted".to_owned());
    }
    if state.status == Status::Creating {
        return draft.finish(Reason::TableCreating, "it is being made".to_owned());
    }
    // The store takes a moment to show the tags of a table that was just made.
    let is_just_made = known.is_some()
        && state
            .tags
            .as_ref()
            .is_some_and(|tags| [TAG_NAMESPACE, TAG_CLUSTER].iter().all(|tag| !tags.contains_key(*tag)));
    if wanted.management == Management::Managed
        && !is_just_made
        && let Standing::Foreign(message) = standing(wanted, &table.name, state, known)
    {
        return draft.finish(Reason::NotOwned, message);
    }
    if let Some(message) = draft.immutable() {
        return draft.finish(Reason::ImmutableFieldChanged, message);
    }
    draft.differences();
    let (reason, message) = draft.verdict();
    if wanted.management == Management::External {
        draft.steps.clear();
    }
    draft.finish(reason, message)
}

fn absent(wanted: &Wanted, table: &WantedTable) -> Plan {
    let item = |message: &str| Item {
        name: table.name.clone(),
        id: None,
        partitions: None,
        status: None,
        reason: Reason::DriftDetected,
        message: message.to_owned(),
    };
    if wanted.management == Management::External {
        let message = "it is not there; make it, or let the operator do it by management: Managed";
        return Plan { steps: Vec::new(), changes: Vec::new(), item: item(message) };
    }
    let spec = TableSpec {
        name: table.name.clone(),
        definition: table.definition,
        billing: wanted.billing,
        deletion_protection: wanted.deletion_protection.unwrap_or(Switch::Off),
        tags: tags(&wanted.owner),
    };
    let change = Change {
        object: format!("table/{}", table.name),
        field: None,
        from: None,
        to: Some("a new table".to_owned()),
        disruptive: false,
        why: "the cluster needs it".to_owned(),
    };
    Plan { steps: vec![Step::Create(Box::new(spec))], changes: vec![change], item: item("it is to be made") }
}

/// A plan in the making.
struct Draft<'a> {
    wanted: &'a Wanted,
    table: &'a WantedTable,
    state: &'a TableState,
    steps: Vec<Step>,
    changes: Vec<Change>,
}

/// What a change does to those who use the table.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Effect {
    Harmless,
    Disruptive,
}

impl Draft<'_> {
    /// What can't be changed and is not as it has to be.
    fn immutable(&self) -> Option<String> {
        let keys = TableState::keys_of(&self.table.definition);
        if self.state.keys != keys {
            return Some(format!(
                "its keys are {} and have to be {}, which can't be changed; choose another tables.prefix, or delete it \
                 by hand",
                show(&self.state.keys),
                show(&keys)
            ));
        }
        self.table.definition.indexes.iter().find_map(|index| {
            let (found, keys) = (self.state.indexes.get(index.name)?, IndexState::keys_of(index));
            (found.keys != keys || found.projection != Some(index.projection)).then(|| {
                format!(
                    "its index {} has to have the keys {} and to carry {:?}, which can't be changed; delete the index \
                     by hand, and it is made anew",
                    index.name,
                    show(&keys),
                    index.projection
                )
            })
        })
    }

    /// All that differs, in the order in which it is corrected.
    fn differences(&mut self) {
        self.ownership();
        self.recovery();
        self.protection();
        self.billing();
        self.indexes();
        self.ttl();
    }

    fn ownership(&mut self) {
        // Whose it is, is no matter of External management; and some stores have no tags.
        let (Some(found), Management::Managed) = (&self.state.tags, self.wanted.management) else { return };
        let missing: BTreeMap<String, String> =
            tags(&self.wanted.owner).into_iter().filter(|(key, value)| found.get(key) != Some(value)).collect();
        let Some(arn) = self.state.arn.clone().filter(|_| !missing.is_empty()) else { return };
        let from: Vec<&str> = missing.keys().filter_map(|key| found.get(key)).map(String::as_str).collect();
        let to: Vec<&str> = missing.values().map(String::as_str).collect();
        let why = match found.get(TAG_UID) {
            Some(_) => "the cluster was made anew and has found its data",
            None => "it is taken over",
        };
        self.differs("tags", (!from.is_empty()).then(|| from.join(", ")), to.join(", "), why, Effect::Harmless);
        self.next(Step::Tag(arn, missing));
    }

    fn recovery(&mut self) {
        if let (Some(asked), Some(found)) = (self.wanted.point_in_time_recovery, self.state.point_in_time_recovery)
            && asked != found
        {
            let effect = if asked == Switch::Off { Effect::Disruptive } else { Effect::Harmless };
            self.differs("pointInTimeRecovery", Some(on(found)), on(asked), "it is not as asked for", effect);
            self.next(Step::Recovery(asked));
        }
    }

    fn protection(&mut self) {
        let found = self.state.deletion_protection;
        if let Some(asked) = self.wanted.deletion_protection
            && asked != found
        {
            let why = "it is not as asked for";
            self.differs("deletionProtection", Some(on(found)), on(asked), why, Effect::Harmless);
            self.next(Step::Protect(asked));
        }
    }

    fn billing(&mut self) {
        let (found, asked) = (self.state.billing, self.wanted.billing);
        let differing = |(name, index): (&String, &IndexState)| (index.billing != asked).then(|| name.clone());
        let others: Vec<String> = self.state.indexes.iter().filter_map(differing).collect();
        if found == asked && others.is_empty() {
            return;
        }
        let from = if found == asked { format!("another for {}", others.join(", ")) } else { paid(found) };
        self.differs("billing", Some(from), paid(asked), "it is not as asked for", Effect::Harmless);
        // A change of the mode needs every index's capacity; a change of capacities takes only what differs.
        let is_same_mode = matches!((found, asked), (Billing::Provisioned { .. }, Billing::Provisioned { .. }));
        let indexes = if is_same_mode { others } else { self.state.indexes.keys().cloned().collect() };
        self.next(Step::Bill(asked, indexes));
    }

    fn indexes(&mut self) {
        for index in self.table.definition.indexes {
            if !self.state.indexes.contains_key(index.name) {
                let field = format!("indexes.{}", index.name);
                let keys = show(&IndexState::keys_of(index));
                self.differs(&field, None, keys, "the services read by it", Effect::Harmless);
                self.next(Step::Index(*index, self.state.billing));
            }
        }
    }

    fn ttl(&mut self) {
        let asked = self.table.definition.ttl;
        let (from, step) = match (asked, &self.state.ttl) {
            (None, Ttl::Off | Ttl::TurningOff) => return,
            // The store takes up to an hour to say `On`; until then there is nothing left to do.
            (Some(asked), Ttl::On(found) | Ttl::TurningOn(found)) if asked == found => return,
            (_, Ttl::On(found)) => (format!("by {found}"), Some(Step::Ttl(found.clone(), Switch::Off))),
            (_, Ttl::TurningOn(found)) => (format!("by {found}"), None),
            (Some(asked), Ttl::Off) => ("off".to_owned(), Some(Step::Ttl(asked.to_owned(), Switch::On))),
            (Some(_), Ttl::TurningOff) => ("turning off".to_owned(), None),
        };
        let to = asked.map_or("off".to_owned(), |asked| format!("by {asked}"));
        let why = match asked {
            Some(_) => "old items are to go by themselves",
            None => "items would go that are to stay",
        };
        self.differs("ttl", Some(from), to, why, Effect::Harmless);
        if let Some(step) = step {
            self.next(step);
        }
    }

    /// What the differences come to.
    fn verdict(&self) -> (Reason, String) {
        let state = self.state;
        if let Some((name, index)) = state.indexes.iter().find(|(_, index)| index.status != Status::Active) {
            let is_new = index.status == Status::Creating;
            let reason = if is_new { Reason::IndexBackfilling } else { Reason::TableUpdating };
            return (reason, format!("its index {name} is {}", index.status.as_str()));
        }
        match &state.status {
            Status::Active => {}
            Status::Other(word) => {
                return (Reason::DriftDetected, format!("it is {word} and serves nobody; see to it in AWS"));
            }
            status @ (Status::Creating | Status::Updating | Status::Deleting) => {
                return (Reason::TableUpdating, format!("it is {}", status.as_str()));
            }
        }
        if self.changes.is_empty() {
            let is_missed =
                self.wanted.point_in_time_recovery == Some(Switch::On) && state.point_in_time_recovery.is_none();
            let message = if is_missed { "this store has no point-in-time recovery" } else { "" };
            (Reason::TablesInSync, message.to_owned())
        } else if self.wanted.management == Management::External {
            self.external()
        } else if self.steps.is_empty() {
            (Reason::CoolingDown, "its TTL is being changed, which takes up to an hour".to_owned())
        } else {
            (Reason::DriftDetected, "it is being corrected".to_owned())
        }
    }

    /// Of somebody else's table only that matters by which the services live.
    fn external(&self) -> (Reason, String) {
        let vital = |field: &&str| *field == "ttl" || field.starts_with("indexes.");
        let vital: Vec<&str> = self.changes.iter().filter_map(|change| change.field.as_deref()).filter(vital).collect();
        if vital.is_empty() {
            return (Reason::TablesInSync, String::new());
        }
        (Reason::DriftDetected, format!("whoever manages it has to see to its {}", vital.join(", ")))
    }

    fn differs(&mut self, field: &str, from: Option<String>, to: String, why: &str, effect: Effect) {
        self.changes.push(Change {
            object: format!("table/{}", self.table.name),
            field: Some(field.to_owned()),
            from,
            to: Some(to),
            disruptive: effect == Effect::Disruptive,
            why: why.to_owned(),
        });
    }

    fn next(&mut self, step: Step) {
        let is_at_rest = self.state.status == Status::Active
            && self.state.indexes.values().all(|index| index.status == Status::Active);
        if is_at_rest || !step.is_exclusive() {
            self.steps.push(step);
        }
    }

    fn finish(self, reason: Reason, message: String) -> Plan {
        let item = Item {
            name: self.table.name.clone(),
            id: self.state.arn.clone(),
            partitions: None,
            status: Some(self.state.status.as_str().to_owned()),
            reason,
            message,
        };
        Plan { steps: self.steps, changes: self.changes, item }
    }
}

fn on(switch: Switch) -> String {
    match switch {
        Switch::On => "on".to_owned(),
        Switch::Off => "off".to_owned(),
    }
}

fn paid(billing: Billing) -> String {
    match billing {
        Billing::OnDemand => "OnDemand".to_owned(),
        Billing::Provisioned { read, write } => format!("Provisioned, {read} read and {write} write units"),
    }
}

fn show(keys: &[Attribute]) -> String {
    let one = |key: &Attribute| {
        let kind = match key.kind {
            Some(KeyKind::Text) => "text",
            Some(KeyKind::Number) => "number",
            None => "bytes",
        };
        format!("{} ({kind})", key.name)
    };
    keys.iter().map(one).collect::<Vec<_>>().join(", ")
}
