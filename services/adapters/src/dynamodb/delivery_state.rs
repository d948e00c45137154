//! Delivery watermarks, which only rise.

use async_trait::async_trait;
use aws_sdk_dynamodb::{operation::update_item::UpdateItemError, types::ReturnValuesOnConditionCheckFailure};
use domain::{
    Error, Millis,
    ids::{ChatId, UserId},
    message::Sequence,
    ports::{DeliveryState as Port, delivery_state::Watermark},
};

use super::{
    Store,
    attributes::{failed, number, read_number, text},
    layout::Table,
};

/// Watermarks in the store's table.
#[derive(Clone, Debug)]
pub struct DeliveryState {
    store: Store,
}

impl DeliveryState {
    /// On this table.
    pub fn new(store: Store) -> Self {
        Self { store }
    }
}

#[async_trait]
impl Port for DeliveryState {
    async fn advance(
        &self,
        user: UserId,
        chat: ChatId,
        mark: Watermark,
        to: Sequence,
        at: Millis,
    ) -> Result<Sequence, Error> {
        let attribute = match mark {
            Watermark::Acked => "last_acked_sequence",
            Watermark::Read => "last_read_sequence",
        };
        let sent = self
            .store
            .client
            .update_item()
            .table_name(self.store.table(Table::DeliveryState))
            .key("user_id", text(user))
            .key("chat_id", text(chat))
            .condition_expression("attribute_not_exists(#mark) OR #mark < :to")
            .update_expression("SET #mark = :to, updated_at = :at")
            .expression_attribute_names("#mark", attribute)
            .expression_attribute_values(":to", number(to))
            .expression_attribute_values(":at", number(at))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .send()
            .await;
        match sent {
            Ok(_) => Ok(to),
            Err(error) => match error.as_service_error() {
                Some(UpdateItemError::ConditionalCheckFailedException(higher)) => {
                    let item = higher.item().ok_or_else(|| Error::internal("the store did not say what it holds"))?;
                    read_number(item, attribute).map(Sequence)
                }
                _ => Err(failed(error)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract;

    async fn it_keeps_the_contract(on: contract::On) {
        let world = contract::World::start(on).await;
        contract::delivery_state::run(&world, &DeliveryState::new(world.store.clone())).await;
    }

    on_all_systems! {
        it_keeps_the_contract,
    }
}
