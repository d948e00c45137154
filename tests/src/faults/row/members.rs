//! Row 7: who is in a chat is changed by a chatmgmt that dies meanwhile; the change is made or not, never half.

use anyhow::Context as _;
use reqwest::Method;
use serde_json::json;

use crate::{
    client::Client,
    faults::{
        random::Random,
        rig::Extra,
        run::{Evidence, Scene},
        truth,
    },
};

/// Changes after which chatmgmt must have died.
const CHANGES: u32 = 20;

/// It dies before or after one of its first changes is stored.
pub(super) fn points(random: &mut Random) -> Extra {
    let point = *random.one_of(&["membership.before", "membership.after"]);
    let count = random.below(4);
    vec![("chatmgmt", "FAILPOINTS", format!("{point}={count}*off->return(abort)"))]
}

pub(super) async fn changes_torn(scene: &mut Scene) -> anyhow::Result<Evidence> {
    let [ana, ben, cem] = [0, 1, 2].map(|person| scene.people.clients[person].clone());
    let chat = ana.rest().group("Torn", &[ben.user_id()]).await?.chat_id;
    scene.begins("chatmgmt dies");
    let (mut changes, mut torn) = (0, 0);
    while torn == 0 {
        anyhow::ensure!(changes < CHANGES, "chatmgmt did not die");
        // Not answered is not known: the next look decides.
        let done = if changes % 2 == 0 { add(&ana, &chat, &cem).await } else { remove(&ana, &chat, &cem).await };
        changes += 1;
        if done.is_err() && !scene.rig.chatmgmt.is_running()? {
            torn += 1;
        }
    }
    scene.rig.repair().await?;
    scene.ends("chatmgmt dies");
    agree(scene, &chat, &cem).await?;
    // The same change again is made, or was.
    for wanted in [true, false] {
        let answer = if wanted { add(&ana, &chat, &cem).await } else { remove(&ana, &chat, &cem).await };
        let status = answer.context("no answer")?;
        anyhow::ensure!(status < 500, "the change is refused with {status}");
        anyhow::ensure!(agree(scene, &chat, &cem).await? == wanted, "the change was not made");
    }
    Ok(vec![("changes that were torn", torn)])
}

async fn add(owner: &Client, chat: &str, other: &Client) -> anyhow::Result<u16> {
    let body = json!({"user_id": other.user_id()});
    let answer = owner.rest().call(Method::POST, &format!("chats/{chat}/members"))?.json(&body).send().await?;
    Ok(answer.status().as_u16())
}

async fn remove(owner: &Client, chat: &str, other: &Client) -> anyhow::Result<u16> {
    let path = format!("chats/{chat}/members/{}", other.user_id());
    Ok(owner.rest().call(Method::DELETE, &path)?.send().await?.status().as_u16())
}

/// Whether the other is in the chat: all that the store has about it must agree.
async fn agree(scene: &Scene, chat: &str, other: &Client) -> anyhow::Result<bool> {
    let (members, count) = truth::members(&scene.rig.store, &scene.rig.tables, chat).await?;
    anyhow::ensure!(members.len() as u64 == count, "{count} members are counted, {members:?} are there");
    let is_in = members.iter().any(|member| member == other.user_id());
    let lists = other.rest().chats().await?.iter().any(|summary| summary.chat_id == chat);
    anyhow::ensure!(is_in == lists, "a member: {is_in}, and the chat is listed: {lists}");
    Ok(is_in)
}
