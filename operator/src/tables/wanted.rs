//! The tables of a cluster, as they are asked for.

use std::time::Duration;

use adapters::dynamodb::{
    admin::{Billing, Switch},
    layout::{Definition, Table},
};

use crate::engine::{Adoption, Deletion, Management, Owner};

/// A table that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedTable {
    /// Its whole name.
    pub name: String,
    /// Its keys and indexes.
    pub definition: Definition,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// For whom.
    pub owner: Owner,
    /// Who makes the tables.
    pub management: Management,
    /// What becomes of them.
    pub deletion: Deletion,
    /// Which may be taken over.
    pub adoption: Adoption,
    /// How they are paid.
    pub billing: Billing,
    /// Whether they can be restored to any second; `None` leaves it as it is.
    pub point_in_time_recovery: Option<Switch>,
    /// Whether the store refuses to delete them; `None` leaves it as it is.
    pub deletion_protection: Option<Switch>,
    /// The tables.
    pub tables: Vec<WantedTable>,
    /// How long a pass may go on.
    pub budget: Duration,
}

impl Wanted {
    /// Every table of a cluster.
    pub fn all_tables(prefix: &str) -> Vec<WantedTable> {
        let wanted =
            |table: Table| WantedTable { name: format!("{prefix}{}", table.name()), definition: table.definition() };
        Table::ALL.map(wanted).into()
    }
}
