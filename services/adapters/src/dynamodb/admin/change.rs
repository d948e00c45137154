//! Changes to tables, one thing a call.

use std::collections::BTreeMap;

use aws_sdk_dynamodb::{
    error::BuildError,
    operation::update_table::builders::UpdateTableFluentBuilder,
    types::{
        AttributeDefinition, BillingMode, CreateGlobalSecondaryIndexAction, DeleteGlobalSecondaryIndexAction,
        GlobalSecondaryIndex, GlobalSecondaryIndexUpdate, KeySchemaElement, KeyType, PointInTimeRecoverySpecification,
        Projection, ProjectionType, ProvisionedThroughput, ScalarAttributeType, Tag, TimeToLiveSpecification,
        UpdateGlobalSecondaryIndexAction,
    },
};

use super::{
    super::layout::{Index, IndexProjection, Key, KeyKind},
    Admin, Billing, Error, Switch, TableSpec,
};

impl From<BuildError> for Error {
    fn from(error: BuildError) -> Self {
        Self::Refused { why: error.to_string() }
    }
}

impl Admin {
    /// Begins to make a table. Repeating it answers [`Error::InUse`].
    ///
    /// # Errors
    /// When the store refuses or can't be asked.
    pub async fn create(&self, table: &TableSpec) -> Result<(), Error> {
        let definition = &table.definition;
        let index_keys = definition.indexes.iter().flat_map(|index| std::iter::once(index.partition).chain(index.sort));
        let keys = std::iter::once(definition.partition).chain(definition.sort).chain(index_keys);

        let mut request = self
            .client
            .create_table()
            .table_name(&table.name)
            .set_attribute_definitions(Some(attributes(keys)?))
            .set_key_schema(Some(key_schema(definition.partition, definition.sort)?))
            .billing_mode(mode(table.billing))
            .set_provisioned_throughput(capacity(table.billing)?);
        for index in definition.indexes {
            let index = GlobalSecondaryIndex::builder()
                .index_name(index.name)
                .set_key_schema(Some(key_schema(index.partition, index.sort)?))
                .projection(projection(index.projection))
                .set_provisioned_throughput(capacity(table.billing)?)
                .build()?;
            request = request.global_secondary_indexes(index);
        }
        if table.deletion_protection == Switch::On {
            request = request.deletion_protection_enabled(true);
        }
        if !table.tags.is_empty() {
            request = request.set_tags(Some(tags(&table.tags)?));
        }
        request.send().await?;
        Ok(())
    }

    /// Begins to make an index. Repeating it answers [`Error::InUse`] or [`Error::Refused`].
    ///
    /// # Errors
    /// When the store refuses or can't be asked.
    pub async fn create_index(&self, table: &str, index: &Index, billing: Billing) -> Result<(), Error> {
        let action = CreateGlobalSecondaryIndexAction::builder()
            .index_name(index.name)
            .set_key_schema(Some(key_schema(index.partition, index.sort)?))
            .projection(projection(index.projection))
            .set_provisioned_throughput(capacity(billing)?)
            .build()?;
        let keys = std::iter::once(index.partition).chain(index.sort);
        let update = GlobalSecondaryIndexUpdate::builder().create(action).build();
        let request = self.update(table).set_attribute_definitions(Some(attributes(keys)?));
        request.global_secondary_index_updates(update).send().await?;
        Ok(())
    }

    /// Begins to delete an index. Repeating it answers [`Error::NotFound`].
    ///
    /// # Errors
    /// When the store refuses or can't be asked.
    pub async fn delete_index(&self, table: &str, index: &str) -> Result<(), Error> {
        let action = DeleteGlobalSecondaryIndexAction::builder().index_name(index).build()?;
        let update = GlobalSecondaryIndexUpdate::builder().delete(action).build();
        self.update(table).global_secondary_index_updates(update).send().await?;
        Ok(())
    }

    /// Changes how a table and these indexes of it are paid. Repeating it may answer [`Error::Refused`].
    ///
    /// # Errors
    /// When the store refuses or can't be asked.
    pub async fn set_billing(&self, table: &str, billing: Billing, indexes: &[String]) -> Result<(), Error> {
        let mut request = self.update(table).billing_mode(mode(billing)).set_provisioned_throughput(capacity(billing)?);
        if let Some(capacity) = capacity(billing)? {
            for index in indexes {
                let action = UpdateGlobalSecondaryIndexAction::builder()
                    .index_name(index)
                    .provisioned_throughput(capacity.clone())
                    .build()?;
                let update = GlobalSecondaryIndexUpdate::builder().update(action).build();
                request = request.global_secondary_index_updates(update);
            }
        }
        request.send().await?;
        Ok(())
    }

    /// Changes whether the store refuses to delete a table. Repeating it is safe.
    ///
    /// # Errors
    /// When the store refuses or can't be asked.
    pub async fn set_deletion_protection(&self, table: &str, to: Switch) -> Result<(), Error> {
        self.update(table).deletion_protection_enabled(to == Switch::On).send().await?;
        Ok(())
    }

    /// Changes whether items go by themselves after the time in an attribute. A second change within an hour
    /// answers [`Error::CoolingDown`].
    ///
    /// # Errors
    /// When the store refuses or can't be asked.
    pub async fn set_ttl(&self, table: &str, attribute: &str, to: Switch) -> Result<(), Error> {
        let ttl = TimeToLiveSpecification::builder().attribute_name(attribute).enabled(to == Switch::On).build()?;
        let request = self.client.update_time_to_live().table_name(table).time_to_live_specification(ttl);
        match request.send().await.map_err(Error::from) {
            Ok(_) => Ok(()),
            Err(Error::Refused { why }) if why.contains("already") => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Changes whether a table can be restored to any second. Repeating it is safe.
    ///
    /// # Errors
    /// When the store refuses or can't be asked; [`Error::Unsupported`] where it has no such thing.
    pub async fn set_point_in_time_recovery(&self, table: &str, to: Switch) -> Result<(), Error> {
        let recovery =
            PointInTimeRecoverySpecification::builder().point_in_time_recovery_enabled(to == Switch::On).build()?;
        let request = self.client.update_continuous_backups().table_name(table);
        request.point_in_time_recovery_specification(recovery).send().await?;
        Ok(())
    }

    /// Sets tags of a table; others stay. Repeating it is safe.
    ///
    /// # Errors
    /// When the store refuses or can't be asked.
    pub async fn set_tags(&self, arn: &str, changed: &BTreeMap<String, String>) -> Result<(), Error> {
        self.client.tag_resource().resource_arn(arn).set_tags(Some(tags(changed)?)).send().await?;
        Ok(())
    }

    /// Begins to delete a table with all that is in it. Repeating it answers [`Error::InUse`], then [`Error::NotFound`].
    ///
    /// # Errors
    /// When the store refuses or can't be asked.
    pub async fn delete(&self, table: &str) -> Result<(), Error> {
        self.client.delete_table().table_name(table).send().await?;
        Ok(())
    }

    fn update(&self, table: &str) -> UpdateTableFluentBuilder {
        self.client.update_table().table_name(table)
    }
}

fn mode(billing: Billing) -> BillingMode {
    match billing {
        Billing::OnDemand => BillingMode::PayPerRequest,
        Billing::Provisioned { .. } => BillingMode::Provisioned,
    }
}

fn capacity(billing: Billing) -> Result<Option<ProvisionedThroughput>, BuildError> {
    match billing {
        Billing::OnDemand => Ok(None),
        Billing::Provisioned { read, write } => {
            let units = ProvisionedThroughput::builder().read_capacity_units(read).write_capacity_units(write);
            units.build().map(Some)
        }
    }
}

fn projection(carried: IndexProjection) -> Projection {
    let kind = match carried {
        IndexProjection::All => ProjectionType::All,
        IndexProjection::KeysOnly => ProjectionType::KeysOnly,
    };
    Projection::builder().projection_type(kind).build()
}

/// Each attribute once: the store refuses any that no key uses, and any twice.
fn attributes(keys: impl Iterator<Item = Key>) -> Result<Vec<AttributeDefinition>, BuildError> {
    let kinds: BTreeMap<&str, KeyKind> = keys.map(|key| (key.0, key.1)).collect();
    let build = |(name, kind): (&str, KeyKind)| {
        let kind = match kind {
            KeyKind::Text => ScalarAttributeType::S,
            KeyKind::Number => ScalarAttributeType::N,
        };
        AttributeDefinition::builder().attribute_name(name).attribute_type(kind).build()
    };
    kinds.into_iter().map(build).collect()
}

fn key_schema(partition: Key, sort: Option<Key>) -> Result<Vec<KeySchemaElement>, BuildError> {
    let element = |key: Key, kind| KeySchemaElement::builder().attribute_name(key.0).key_type(kind).build();
    let mut schema = vec![element(partition, KeyType::Hash)?];
    if let Some(sort) = sort {
        schema.push(element(sort, KeyType::Range)?);
    }
    Ok(schema)
}

fn tags(tags: &BTreeMap<String, String>) -> Result<Vec<Tag>, BuildError> {
    tags.iter().map(|(key, value)| Tag::builder().key(key).value(value).build()).collect()
}
