//! The caller's chats, and one of them in full.

use std::{cmp::Reverse, collections::HashMap};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use domain::{
    Error, ErrorKind, Millis,
    ids::{ChatId, UserId},
    membership::Membership,
    ports::chat_list::ListedChat,
};
use proto::messaging::v1 as wire;
use serde::{Deserialize, Serialize};
use tonic::metadata::MetadataMap;

use super::{Names, Parts, chat_id, show};

/// Chats of a page: default and maximum.
const PAGE: (u32, u32) = (20, 100);
/// Of the cursor's form.
const VERSION: u8 = 1;

/// A chat's place in the list: it stands above those with a lower one.
type Place = (Millis, ChatId);

/// Where the next page begins.
#[derive(Debug, Serialize, Deserialize)]
struct Cursor {
    v: u8,
    /// The place of the last chat shown, below which the next begins.
    pk: i64,
    sk: String,
    /// The highest place that was shown or passed. What rose above it since comes at the end, once.
    top: (i64, String),
}

impl Parts {
    pub(super) async fn list_chats(
        &self,
        metadata: &MetadataMap,
        request: &wire::ListChatsRequest,
    ) -> Result<wire::ListChatsResponse, Error> {
        let caller = self.caller(metadata).await?;
        let limit = page_limit(request.limit, PAGE)?;
        let from = request.cursor.as_deref().filter(|cursor| !cursor.is_empty()).map(decode).transpose()?;

        let memberships = self.directory.chats_of(caller).await?;
        let ids: Vec<ChatId> = memberships.iter().map(|mine| mine.chat).collect();
        let mine: HashMap<ChatId, Membership> = memberships.into_iter().map(|mine| (mine.chat, mine)).collect();
        let chats = self.list.chats(caller, &ids).await?;
        let (page, next) = page(chats, from, limit as usize);

        let others: Vec<UserId> = page.iter().filter_map(|listed| listed.other).collect();
        let names = if others.is_empty() { Names::new() } else { self.names(&others).await? };
        let data = page.iter().filter_map(|listed| Some(summary(listed, mine.get(&listed.chat.id)?, &names)));
        Ok(wire::ListChatsResponse {
            data: data.collect(),
            pagination: Some(wire::Pagination {
                has_more: next.is_some(),
                next_cursor: next.map(|(last, top)| encode(last, top)),
                prev_cursor: None,
            }),
        })
    }

    pub(super) async fn get_chat(
        &self,
        metadata: &MetadataMap,
        request: &wire::GetChatRequest,
    ) -> Result<wire::Chat, Error> {
        let caller = self.caller(metadata).await?;
        let id = chat_id(&request.chat_id)?;
        let mine = self.member(id, caller).await?;
        let unknown = || Error::new(ErrorKind::NotAMember, "not a member of the chat");
        let listed = self.list.chat(caller, id).await?.ok_or_else(unknown)?;
        let members = self.directory.members(id).await?;
        let users: Vec<UserId> = members.iter().map(|member| member.user).collect();
        let acked = listed.acked.unwrap_or_default().0;
        Ok(wire::Chat {
            current_sequence: Some(listed.head.0),
            my_membership: Some(show::my_membership(&mine, Some(acked))),
            ..show::chat(&listed.chat, members, &self.names(&users).await?)
        })
    }
}

/// A page's size.
pub(crate) fn page_limit(asked: Option<u32>, (default, most): (u32, u32)) -> Result<u32, Error> {
    let limit = asked.unwrap_or(default);
    if (1..=most).contains(&limit) {
        Ok(limit)
    } else {
        Err(Error::field("limit", "INVALID", format!("a page has 1 to {most} items")))
    }
}

fn place(listed: &ListedChat) -> Place {
    (listed.updated_at(), listed.chat.id)
}

/// The chats of one page, newest first, and where the next begins: the last place shown, and the top.
///
/// A chat that rises while somebody turns the pages would be missed: what is above the first page's top
/// by then follows after the oldest, lowest first.
fn page(
    mut chats: Vec<ListedChat>,
    from: Option<(Place, Place)>,
    limit: usize,
) -> (Vec<ListedChat>, Option<(Place, Place)>) {
    chats.sort_by_key(|listed| Reverse(place(listed)));
    let Some((last, mut top)) = from else {
        let top = chats.first().map(place);
        let has_more = chats.len() > limit;
        chats.truncate(limit);
        let next = chats.last().map(place).zip(top).filter(|_| has_more);
        return (chats, next);
    };
    let mut rising: Vec<ListedChat> = Vec::new();
    let mut below: Vec<ListedChat> = Vec::new();
    for listed in chats {
        match place(&listed) {
            at if at < last => below.push(listed),
            at if at > top => rising.push(listed),
            _ => {}
        }
    }
    rising.reverse();
    let has_more = below.len() + rising.len() > limit;
    below.truncate(limit);
    let last = below.last().map_or(last, place);
    let room = limit - below.len();
    rising.truncate(room);
    top = rising.last().map_or(top, place);
    below.append(&mut rising);
    let next = has_more.then_some((last, top));
    (below, next)
}

fn encode((at, chat): Place, (top_at, top): Place) -> String {
    let cursor = Cursor { v: VERSION, pk: at.0, sk: chat.to_string(), top: (top_at.0, top.to_string()) };
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(&cursor).unwrap_or_default())
}

fn decode(cursor: &str) -> Result<(Place, Place), Error> {
    let refuse = || Error::field("cursor", "INVALID", "not a cursor of this list");
    let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| refuse())?;
    let cursor: Cursor = serde_json::from_slice(&bytes).map_err(|_| refuse())?;
    if cursor.v != VERSION {
        return Err(refuse());
    }
    let chat = |id: &str| id.parse::<ChatId>().map_err(|_| refuse());
    Ok(((Millis(cursor.pk), chat(&cursor.sk)?), (Millis(cursor.top.0), chat(&cursor.top.1)?)))
}

fn summary(listed: &ListedChat, mine: &Membership, names: &Names) -> wire::ChatSummary {
    let chat = &listed.chat;
    wire::ChatSummary {
        chat_id: chat.id.to_string(),
        r#type: show::kind(chat.kind),
        name: chat.name.as_ref().map(|name| name.as_str().to_owned()),
        created_at: Some(show::time(chat.created_at)),
        updated_at: Some(show::time(listed.updated_at())),
        member_count: chat.member_count,
        other_member: listed
            .other
            .map(|other| wire::OtherMember { user_id: other.to_string(), display_name: show::name(names, other) }),
        my_membership: Some(show::my_membership(mine, None)),
        last_message: listed.last.as_ref().map(|last| wire::LastMessage {
            message_id: last.id.to_string(),
            sequence: listed.head.0,
            sender_id: last.sender.to_string(),
            content_preview: last.preview.clone(),
            created_at: Some(show::time(last.created_at)),
        }),
        pending_ack_count: listed.pending_ack_count(),
        current_sequence: listed.head.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{chat::Chat, chat::ChatType, message::Sequence};
    use platform::clock::SystemIds;

    fn listed(updated: i64) -> ListedChat {
        let chat = Chat {
            id: ChatId::new(&SystemIds),
            kind: ChatType::Group,
            name: None,
            created_by: UserId::new(&SystemIds),
            created_at: Millis(0),
            updated_at: Millis(updated),
            member_count: 1,
        };
        ListedChat { chat, other: None, head: Sequence(0), last: None, acked: None }
    }

    #[test]
    fn every_chat_is_on_some_page_though_chats_rise_meanwhile() {
        let mut chats: Vec<ListedChat> = (0..10).map(|at| listed(at / 2)).collect();
        let mut seen = Vec::new();
        let mut from = None;
        for turn in 0..20 {
            let (shown, next) = page(chats.clone(), from, 3);
            seen.extend(shown.iter().map(|listed| listed.chat.id));
            // The oldest chat rises above all before it was shown.
            if turn == 0 {
                let oldest = chats.iter_mut().min_by_key(|listed| place(listed)).expect("a chat");
                oldest.chat.updated_at = Millis(100);
            }
            let Some(next) = next else { break };
            from = Some(decode(&encode(next.0, next.1)).expect("a cursor"));
        }
        assert_eq!(seen.len(), 10, "each once: {seen:?}");
        assert!(chats.iter().all(|listed| seen.contains(&listed.chat.id)));
    }

    #[test]
    fn pages_have_bounds_and_foreign_cursors_are_refused() {
        assert_eq!(page_limit(None, PAGE).expect("the default"), 20);
        assert!(page_limit(Some(0), PAGE).is_err());
        assert!(page_limit(Some(101), PAGE).is_err());
        for cursor in ["", "x", "e30", "eyJ2IjoxLCJzZXEiOjF9"] {
            assert!(decode(cursor).is_err(), "{cursor}");
        }
    }
}
