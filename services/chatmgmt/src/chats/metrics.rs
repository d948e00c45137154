//! What changes of chats are counted as.

use domain::{chat::ChatType, event::ChangeKind};
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

/// A kind of chat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(super) enum Kind {
    /// Between two.
    Direct,
    /// With an owner.
    Group,
}

/// The label of chats that were made.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Created {
    /// Their kind.
    pub(super) chat_type: Kind,
}

/// Which way a membership changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(super) enum Change {
    /// Somebody came.
    Added,
    /// Somebody went.
    Removed,
    /// Somebody has another role.
    RoleChanged,
}

/// The label of changed memberships.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Changed {
    /// Which way.
    pub(super) change_type: Change,
}

/// What changes of chats are counted as.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    created: Family<Created, Counter>,
    found: Counter,
    changed: Family<Changed, Counter>,
}

impl Metrics {
    /// Registers them.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let chatmgmt = registry.sub_registry_with_prefix("chatmgmt");
        chatmgmt.register("chat_created", "Chats that were made", metrics.created.clone());
        chatmgmt.register("direct_chat_found", "Direct chats that were there already", metrics.found.clone());
        chatmgmt.register("membership_mutation", "Changed memberships", metrics.changed.clone());
        metrics
    }

    pub(super) fn created(&self, kind: ChatType) {
        let chat_type = match kind {
            ChatType::Direct => Kind::Direct,
            ChatType::Group => Kind::Group,
        };
        self.created.get_or_create(&Created { chat_type }).inc();
    }

    pub(super) fn found(&self) {
        self.found.inc();
    }

    pub(super) fn changed(&self, kind: ChangeKind) {
        let change_type = match kind {
            ChangeKind::Added => Change::Added,
            ChangeKind::Removed => Change::Removed,
            ChangeKind::RoleChanged => Change::RoleChanged,
        };
        self.changed.get_or_create(&Changed { change_type }).inc();
    }
}
