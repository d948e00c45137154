//! The conditions of a cluster, and the closed list of reasons of each.

use std::fmt;

/// Makes an enum whose variants print as their names.
macro_rules! named {
    ($(#[$about:meta])* $name:ident { $($(#[$what:meta])* $variant:ident),+ $(,)? }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$what])* $variant),+ }

        impl $name {
            /// Every one.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The name as it stands in the status.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => stringify!($variant)),+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(self.as_str())
            }
        }
    };
}

named! {
    /// The conditions. `Reconciling`, `Stalled`, `Paused` and `DeletionBlocked` are good when false.
    ConditionType {
        /// Everything is as asked for, and every pod that should be ready is.
        Ready,
        /// Work is going on.
        Reconciling,
        /// Nothing goes on until somebody changes something.
        Stalled,
        /// The spec and what it refers to can be used.
        ConfigurationValid,
        /// The pods of gateway.
        GatewayReady,
        /// The pods of ingest.
        IngestReady,
        /// The pods of fanout.
        FanoutReady,
        /// The pods of chatmgmt.
        ChatMgmtReady,
        /// The topics.
        TopicsSynced,
        /// The tables.
        TablesSynced,
        /// Whether a plan is empty.
        UpToDate,
        /// Whether the operator leaves the cluster alone.
        Paused,
        /// Whether something keeps the object from being deleted.
        DeletionBlocked,
    }
}

named! {
    /// The reasons. Each belongs to the conditions that [`ConditionType::reasons`] says.
    Reason {
        AllComponentsReady, ComponentsNotReady, TopicsNotReady, TablesNotReady, Suspended, ReconciliationPaused, Initializing,
        ConfigurationNotValid, Deleting,
        DeploymentAvailable, RolloutInProgress, RolloutStuck, MinimumReplicasUnavailable, ImagePullFailed, Disabled,
        RolloutWaiting,
        TopicsInSync, KafkaUnreachable, AuthenticationFailed, AuthorizationFailed, PartitionDecreaseRefused,
        ReassignmentInProgress, ConfigRejected, ResourceConflict, DriftDetected,
        TablesInSync, TableCreating, TableUpdating, IndexBackfilling, CoolingDown, AccessDenied, Throttled, NotOwned,
        ImmutableFieldChanged, DynamoDbUnreachable,
        Valid, SecretNotFound, SecretKeyMissing, InvalidReference, UnsupportedVersion, InvalidSpec,
        PlanEmpty, PlanPending,
        NewGeneration, ProgressingRollout, WaitingForBackend, Retrying, Settled,
        NonConvergent, BackendRefused, OwnershipConflict, CrdOutdated, RetriesExhausted, NotStalled,
        PausedByAnnotation, PausedBySpec, NotPaused,
        BackendUnreachable, DeletionProtectionEnabled, RetainedResourcesPresent, NothingBlocks,
    }
}

impl ConditionType {
    /// The reasons of this condition; the first is the good one.
    pub fn reasons(self) -> &'static [Reason] {
        use Reason as R;
        match self {
            Self::Ready => &[
                R::AllComponentsReady,
                R::ComponentsNotReady,
                R::TopicsNotReady,
                R::TablesNotReady,
                R::Suspended,
                R::ReconciliationPaused,
                R::Initializing,
                R::ConfigurationNotValid,
                R::OwnershipConflict,
                R::Deleting,
            ],
            Self::GatewayReady | Self::IngestReady | Self::FanoutReady | Self::ChatMgmtReady => &[
                R::DeploymentAvailable,
                R::RolloutInProgress,
                R::RolloutWaiting,
                R::RolloutStuck,
                R::MinimumReplicasUnavailable,
                R::ImagePullFailed,
                R::Disabled,
            ],
            Self::TopicsSynced => &[
                R::TopicsInSync,
                R::KafkaUnreachable,
                R::AuthenticationFailed,
                R::AuthorizationFailed,
                R::PartitionDecreaseRefused,
                R::ReassignmentInProgress,
                R::ConfigRejected,
                R::ResourceConflict,
                R::DriftDetected,
                R::NonConvergent,
                R::Initializing,
            ],
            Self::TablesSynced => &[
                R::TablesInSync,
                R::TableCreating,
                R::TableUpdating,
                R::IndexBackfilling,
                R::CoolingDown,
                R::AccessDenied,
                R::AuthenticationFailed,
                R::Throttled,
                R::NotOwned,
                R::ImmutableFieldChanged,
                R::DriftDetected,
                R::DynamoDbUnreachable,
                R::ConfigRejected,
                R::NonConvergent,
                R::Initializing,
            ],
            Self::ConfigurationValid => &[
                R::Valid,
                R::InvalidSpec,
                R::SecretNotFound,
                R::SecretKeyMissing,
                R::InvalidReference,
                R::UnsupportedVersion,
            ],
            Self::UpToDate => &[R::PlanEmpty, R::PlanPending],
            Self::Reconciling => {
                &[R::Settled, R::NewGeneration, R::ProgressingRollout, R::WaitingForBackend, R::Retrying, R::Deleting]
            }
            Self::Stalled => &[
                R::NotStalled,
                R::InvalidSpec,
                R::NonConvergent,
                R::BackendRefused,
                R::OwnershipConflict,
                R::CrdOutdated,
                R::RetriesExhausted,
            ],
            Self::Paused => &[R::NotPaused, R::PausedByAnnotation, R::PausedBySpec],
            Self::DeletionBlocked => {
                &[R::NothingBlocks, R::BackendUnreachable, R::DeletionProtectionEnabled, R::RetainedResourcesPresent]
            }
        }
    }

    /// The status that says that all is well.
    pub fn good(self) -> &'static str {
        match self {
            Self::Reconciling | Self::Stalled | Self::Paused | Self::DeletionBlocked => "False",
            Self::Ready
            | Self::ConfigurationValid
            | Self::GatewayReady
            | Self::IngestReady
            | Self::FanoutReady
            | Self::ChatMgmtReady
            | Self::TopicsSynced
            | Self::TablesSynced
            | Self::UpToDate => "True",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_belongs_to_a_condition() {
        for reason in Reason::ALL {
            assert!(
                ConditionType::ALL.iter().any(|kind| kind.reasons().contains(reason)),
                "{reason} is of no condition"
            );
        }
    }

    #[test]
    fn every_condition_has_one_good_reason_of_its_own() {
        for kind in ConditionType::ALL {
            let good = kind.reasons()[0];
            assert_eq!(kind.reasons().iter().filter(|reason| **reason == good).count(), 1, "{kind}");
            assert!(matches!(kind.good(), "True" | "False"));
        }
    }
}
