//! Tables from the outside: what is there, and changes to them. For the operator and for stores in tests.

mod change;
mod error;

use std::{collections::BTreeMap, time::Duration};

use aws_sdk_dynamodb::{
    Client,
    config::{AppName, BehaviorVersion, Credentials, Region, retry::RetryConfig, timeout::TimeoutConfig},
    types::{
        self as sdk, AttributeDefinition, KeySchemaElement, KeyType, PointInTimeRecoveryStatus, ProjectionType,
        ScalarAttributeType, TableDescription, TimeToLiveStatus,
    },
};
use platform::Secret;

pub use error::Error;

use super::layout::{Definition, Index, IndexProjection, KeyKind};

/// How to reach a store as one who may change tables.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Region of the tables.
    pub region: String,
    /// Another endpoint than the region's own.
    pub endpoint: Option<String>,
    /// Access key and secret key; without them the machine's own credentials are used.
    pub credentials: Option<(String, Secret)>,
    /// How long each call may take.
    pub within: Duration,
}

/// How reads and writes are paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Billing {
    /// By use.
    OnDemand,
    /// By capacity set aside, in units, for the table and for each index.
    Provisioned {
        /// Read capacity units.
        read: i64,
        /// Write capacity units.
        write: i64,
    },
}

/// Whether something is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    /// It is.
    On,
    /// It is not.
    Off,
}

/// A table that is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableSpec {
    /// Full name.
    pub name: String,
    /// Keys and indexes.
    pub definition: Definition,
    /// How it is paid.
    pub billing: Billing,
    /// Whether the store refuses to delete it.
    pub deletion_protection: Switch,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
}

/// A table as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableState {
    /// Its name in AWS.
    pub arn: Option<String>,
    /// What it does at the moment.
    pub status: Status,
    /// Partition key, then the sort key where there is one.
    pub keys: Vec<Attribute>,
    /// Names of indexes within partitions.
    pub local_indexes: Vec<String>,
    /// Indexes over all partitions, by name.
    pub indexes: BTreeMap<String, IndexState>,
    /// How it is paid.
    pub billing: Billing,
    /// Whether the store refuses to delete it.
    pub deletion_protection: Switch,
    /// Whether old items go by themselves.
    pub ttl: Ttl,
    /// Whether it can be restored to any second; `None` where the store can't.
    pub point_in_time_recovery: Option<Switch>,
    /// Its tags; `None` where the store has none.
    pub tags: Option<BTreeMap<String, String>>,
}

/// An index as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexState {
    /// Partition key, then the sort key where there is one.
    pub keys: Vec<Attribute>,
    /// What it carries; `None` is a choice of attributes, which no index of ours is.
    pub projection: Option<IndexProjection>,
    /// What it does at the moment.
    pub status: Status,
    /// How it is paid.
    pub billing: Billing,
}

/// A key attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    /// Its name.
    pub name: String,
    /// Its type; `None` is bytes, which no key of ours is.
    pub kind: Option<KeyKind>,
}

/// What a table or an index does at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// It is being made.
    Creating,
    /// It is being changed.
    Updating,
    /// It serves.
    Active,
    /// It is being deleted.
    Deleting,
    /// Something else, in the store's word: it does not serve.
    Other(String),
}

/// Whether items go by themselves, and by which attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ttl {
    /// They stay.
    Off,
    /// They go after the time in this attribute.
    On(String),
    /// Soon they will, after the time in this attribute.
    TurningOn(String),
    /// Soon they stay.
    TurningOff,
}

/// One who may change tables.
#[derive(Clone, Debug)]
pub struct Admin {
    client: Client,
}

impl Admin {
    /// Makes a client; nothing is connected yet.
    pub async fn new(connection: &Connection) -> Self {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(connection.within.min(Duration::from_secs(3)))
            .operation_timeout(connection.within)
            .build();
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .region(Region::new(connection.region.clone()))
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts);
        if let Ok(name) = AppName::new("messaging-operator") {
            loader = loader.app_name(name);
        }
        if let Some(endpoint) = &connection.endpoint {
            loader = loader.endpoint_url(endpoint);
        }
        if let Some((key, secret)) = &connection.credentials {
            loader = loader.credentials_provider(Credentials::new(key, secret.expose(), None, None, "settings"));
        }
        Self::of(Client::new(&loader.load().await))
    }

    /// Makes changes by a client that is there already.
    pub(crate) fn of(client: Client) -> Self {
        Self { client }
    }

    /// What is known about a table; `None` when it is not there.
    ///
    /// Costs four calls: the table, its TTL, its backups, its tags; of a table that is being made or deleted
    /// only the first. Repeating it is safe.
    ///
    /// # Errors
    /// When the store can't be asked.
    pub async fn describe(&self, name: &str) -> Result<Option<TableState>, Error> {
        let described = match self.client.describe_table().table_name(name).send().await.map_err(Error::from) {
            Ok(described) => described,
            Err(Error::NotFound) => return Ok(None),
            Err(error) => return Err(error),
        };
        let Some(table) = described.table else { return Ok(None) };
        let mut state = read(&table);
        if matches!(state.status, Status::Creating | Status::Deleting) {
            return Ok(Some(state));
        }
        let arn = state.arn.clone();
        let gathered = tokio::try_join!(
            Box::pin(self.ttl(name)),
            Box::pin(self.point_in_time_recovery(name)),
            Box::pin(self.tags(arn.as_deref())),
        );
        match gathered {
            Ok((ttl, recovery, tags)) => {
                (state.ttl, state.point_in_time_recovery, state.tags) = (ttl, recovery, tags);
                Ok(Some(state))
            }
            // It went between the calls.
            Err(Error::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What a table does at the moment; `None` when it is not there. One call; repeating it is safe.
    ///
    /// # Errors
    /// When the store can't be asked.
    pub async fn status(&self, name: &str) -> Result<Option<Status>, Error> {
        match self.client.describe_table().table_name(name).send().await.map_err(Error::from) {
            Ok(described) => Ok(described.table.map(|table| read(&table).status)),
            Err(Error::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn ttl(&self, name: &str) -> Result<Ttl, Error> {
        let described = self.client.describe_time_to_live().table_name(name).send().await?;
        let Some(ttl) = described.time_to_live_description else { return Ok(Ttl::Off) };
        let attribute = ttl.attribute_name.unwrap_or_default();
        Ok(match ttl.time_to_live_status {
            Some(TimeToLiveStatus::Enabled) => Ttl::On(attribute),
            Some(TimeToLiveStatus::Enabling) => Ttl::TurningOn(attribute),
            Some(TimeToLiveStatus::Disabling) => Ttl::TurningOff,
            _ => Ttl::Off,
        })
    }

    async fn point_in_time_recovery(&self, name: &str) -> Result<Option<Switch>, Error> {
        let described = match self.client.describe_continuous_backups().table_name(name).send().await {
            Ok(described) => described,
            Err(error) => return Error::from(error).or_unsupported(),
        };
        let status = described
            .continuous_backups_description
            .and_then(|backups| backups.point_in_time_recovery_description)
            .and_then(|recovery| recovery.point_in_time_recovery_status);
        let is_on = status == Some(PointInTimeRecoveryStatus::Enabled);
        Ok(Some(if is_on { Switch::On } else { Switch::Off }))
    }

    async fn tags(&self, arn: Option<&str>) -> Result<Option<BTreeMap<String, String>>, Error> {
        let Some(arn) = arn else { return Ok(None) };
        let mut tags = BTreeMap::new();
        let mut next = None;
        loop {
            let page = match self.client.list_tags_of_resource().resource_arn(arn).set_next_token(next).send().await {
                Ok(page) => page,
                Err(error) => return Error::from(error).or_unsupported(),
            };
            tags.extend(page.tags.unwrap_or_default().into_iter().map(|tag| (tag.key, tag.value)));
            next = page.next_token;
            if next.is_none() {
                return Ok(Some(tags));
            }
        }
    }
}

impl TableState {
    /// The keys of a definition, in the form in which a state has them.
    pub fn keys_of(definition: &Definition) -> Vec<Attribute> {
        std::iter::once(definition.partition).chain(definition.sort).map(Attribute::of).collect()
    }
}

impl IndexState {
    /// The keys of an index's definition, in the form in which a state has them.
    pub fn keys_of(index: &Index) -> Vec<Attribute> {
        std::iter::once(index.partition).chain(index.sort).map(Attribute::of).collect()
    }
}

impl Attribute {
    fn of(key: super::layout::Key) -> Self {
        Self { name: key.0.to_owned(), kind: Some(key.1) }
    }
}

fn read(table: &TableDescription) -> TableState {
    let attributes = table.attribute_definitions();
    let is_on_demand = table.billing_mode_summary().and_then(|billing| billing.billing_mode())
        == Some(&sdk::BillingMode::PayPerRequest);
    let paid = |capacity: Option<&sdk::ProvisionedThroughputDescription>| {
        let (read, write) = capacity.map_or((0, 0), |units| {
            (units.read_capacity_units().unwrap_or_default(), units.write_capacity_units().unwrap_or_default())
        });
        // Stores without the summary show by-use tables as ones with no capacity.
        if is_on_demand || (read, write) == (0, 0) { Billing::OnDemand } else { Billing::Provisioned { read, write } }
    };
    let index = |index: &sdk::GlobalSecondaryIndexDescription| {
        let state = IndexState {
            keys: keys(index.key_schema(), attributes),
            projection: match index.projection().and_then(|projection| projection.projection_type()) {
                Some(ProjectionType::All) => Some(IndexProjection::All),
                Some(ProjectionType::KeysOnly) => Some(IndexProjection::KeysOnly),
                _ => None,
            },
            status: status(index.index_status().map_or("ACTIVE", |status| status.as_str())),
            billing: paid(index.provisioned_throughput()),
        };
        (index.index_name().unwrap_or_default().to_owned(), state)
    };
    let is_protected = table.deletion_protection_enabled().unwrap_or_default();
    TableState {
        arn: table.table_arn().map(ToOwned::to_owned),
        status: status(table.table_status().map_or("", |status| status.as_str())),
        keys: keys(table.key_schema(), attributes),
        local_indexes: table
            .local_secondary_indexes()
            .iter()
            .map(|index| index.index_name().unwrap_or_default().to_owned())
            .collect(),
        indexes: table.global_secondary_indexes().iter().map(index).collect(),
        billing: paid(table.provisioned_throughput()),
        deletion_protection: if is_protected { Switch::On } else { Switch::Off },
        ttl: Ttl::Off,
        point_in_time_recovery: None,
        tags: None,
    }
}

fn status(word: &str) -> Status {
    match word {
        "CREATING" => Status::Creating,
        "UPDATING" => Status::Updating,
        "ACTIVE" => Status::Active,
        "DELETING" => Status::Deleting,
        other => Status::Other(other.to_owned()),
    }
}

impl Status {
    /// The store's word.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Creating => "CREATING",
            Self::Updating => "UPDATING",
            Self::Active => "ACTIVE",
            Self::Deleting => "DELETING",
            Self::Other(word) => word,
        }
    }
}

/// The partition key, then the sort key, whatever the order of the answer.
fn keys(schema: &[KeySchemaElement], attributes: &[AttributeDefinition]) -> Vec<Attribute> {
    let of = |wanted: &KeyType| {
        schema.iter().find(|element| element.key_type() == wanted).map(|element| {
            let name = element.attribute_name();
            let kind = attributes.iter().find(|attribute| attribute.attribute_name() == name);
            let kind = match kind.map(AttributeDefinition::attribute_type) {
                Some(ScalarAttributeType::S) => Some(KeyKind::Text),
                Some(ScalarAttributeType::N) => Some(KeyKind::Number),
                _ => None,
            };
            Attribute { name: name.to_owned(), kind }
        })
    };
    of(&KeyType::Hash).into_iter().chain(of(&KeyType::Range)).collect()
}
