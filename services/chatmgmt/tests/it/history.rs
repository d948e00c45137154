//! The history of a chat, page by page.

use adapters::dynamodb::layout::Table;
use chatmgmt::config::Limits;
use domain::ErrorKind;

use proto::messaging::v1::{HistoryItem, ListMessagesRequest, RemoveMemberRequest};

use crate::{
    chats::{create, group, kind},
    store,
    world::World,
};
