//! The twelve builds that are broken on purpose, and the property by which the checker must reject each.

use std::{path::Path, time::Duration};

use tokio::time::sleep;

use super::{
    row::{Row, crash::fanout_dies},
    run::{Evidence, On, Outcome, Scene, run_with},
};
use crate::{
    client::Client,
    faults::load::phone,
    history::{
        checker::Property,
        line::{Kind, Line, What, digest},
    },
};

/// A build that is broken in one way; its name is what `BROKEN` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// A delivery in 40 is dropped.
    DropDelivery,
    /// A delivery in 40 is made twice.
    DoubleDelivery,
    /// A delivery in 20 comes after those that follow it.
    SwapDeliveries,
    /// The sender is answered before the store has the message.
    AckFirst,
    /// The offset is committed before the records are delivered.
    CommitFirst,
    /// After a restart the last place of a chat is given again.
    ReuseSequence,
    /// A client's id is forgotten after a second.
    ShortMemory,
    /// Who was removed still gets what is said.
    DeliverToRemoved,
    /// A sync begins one place too far.
    ResumeOffByOne,
    /// A sync says that its first page is the last.
    LostLastPage,
    /// An old refresh token still gives new ones.
    DoubleRefresh,
    /// Who has moved to another gateway is looked for at the old one.
    StaleRoute,
}

impl Mutant {
    /// All twelve.
    pub const ALL: [Self; 12] = [
        Self::DropDelivery,
        Self::DoubleDelivery,
        Self::SwapDeliveries,
        Self::AckFirst,
        Self::CommitFirst,
        Self::ReuseSequence,
        Self::ShortMemory,
        Self::DeliverToRemoved,
        Self::ResumeOffByOne,
        Self::LostLastPage,
        Self::DoubleRefresh,
        Self::StaleRoute,
    ];

    /// As the services know it.
    pub fn name(self) -> &'static str {
        match self {
            Self::DropDelivery => "drop_delivery",
            Self::DoubleDelivery => "double_delivery",
            Self::SwapDeliveries => "swap_deliveries",
            Self::AckFirst => "ack_first",
            Self::CommitFirst => "commit_first",
            Self::ReuseSequence => "reuse_sequence",
            Self::ShortMemory => "short_memory",
            Self::DeliverToRemoved => "deliver_to_removed",
            Self::ResumeOffByOne => "resume_off_by_one",
            Self::LostLastPage => "lost_last_page",
            Self::DoubleRefresh => "double_refresh",
            Self::StaleRoute => "stale_route",
        }
    }

    /// Which property it breaks.
    pub fn breaks(self) -> Property {
        match self {
            Self::AckFirst => Property::P1,
            Self::DoubleDelivery | Self::ReuseSequence => Property::P3,
            Self::SwapDeliveries => Property::P4,
            Self::DropDelivery | Self::CommitFirst | Self::StaleRoute => Property::P5,
            Self::ResumeOffByOne | Self::LostLastPage => Property::P6,
            Self::ShortMemory | Self::DoubleRefresh => Property::P7,
            Self::DeliverToRemoved => Property::P8,
        }
    }

    /// What it is put through; whole builds live through the same.
    pub fn row(self) -> Row {
        Row::Broken(self)
    }

    /// What is done while it runs: what a whole system lives through without harm.
    pub(super) async fn inject(self, scene: &mut Scene) -> anyhow::Result<Evidence> {
        match self {
            Self::DropDelivery
            | Self::DoubleDelivery
            | Self::SwapDeliveries
            | Self::ResumeOffByOne
            | Self::LostLastPage => {
                sleep(Duration::from_secs(5)).await;
                Ok(vec![("seconds of talk", 5)])
            }
            // Old messages are sent again at the end of each run, more than a second after they were stored.
            Self::ShortMemory => {
                sleep(Duration::from_secs(3)).await;
                Ok(vec![("seconds of talk", 3)])
            }
            Self::AckFirst | Self::ReuseSequence => kill_ingests(scene).await,
            Self::CommitFirst => fanout_dies(scene).await,
            Self::StaleRoute => move_everybody(scene).await,
            Self::DeliverToRemoved => remove_somebody(scene).await,
            Self::DoubleRefresh => refresh_twice(scene).await,
        }
    }
}

/// Runs a broken build. What the checker says is in the outcome.
///
/// # Errors
/// When the run itself fails.
pub async fn run(mutant: Mutant, seed: u64, into: &Path) -> anyhow::Result<Outcome> {
    run_with(mutant.row(), On::Real, seed, into, Some(mutant.name())).await
}

async fn kill_ingests(scene: &mut Scene) -> anyhow::Result<Evidence> {
    let mut kills = 0;
    for _ in 0..2 {
        for number in 0..scene.rig.ingests.len() {
            scene.begins("kill an ingest");
            scene.rig.ingests[number].kill().await?;
            scene.rig.repair().await?;
            scene.ends("kill an ingest");
            kills += 1;
            sleep(Duration::from_millis(1500)).await;
        }
    }
    Ok(vec![("ingests killed", kills)])
}

/// The clients of the first gateway lose their connections and come back at the second.
async fn move_everybody(scene: &mut Scene) -> anyhow::Result<Evidence> {
    scene.rig.redirect(0, 1).await?;
    let mut moved = 0;
    for client in &scene.people.clients {
        let before = client.wire().connections();
        client.drop_connection().await?;
        client.came_back(before, Duration::from_secs(20)).await?;
        moved += 1;
    }
    sleep(Duration::from_secs(3)).await;
    Ok(vec![("clients that moved", moved)])
}

/// The last member of the last chat is taken out of it, and its own device is not told by it but by the server.
async fn remove_somebody(scene: &mut Scene) -> anyhow::Result<Evidence> {
    let (chat, members) = scene.people.chats[3].clone();
    let person = *members.last().unwrap_or(&0);
    let owner = &scene.people.clients[members[0]];
    let user = scene.people.clients[person].user_id();
    let path = format!("chats/{chat}/members/{user}");
    let answer = owner.rest().call(reqwest::Method::DELETE, &path)?.send().await?;
    anyhow::ensure!(answer.status().is_success(), "not removed: {}", answer.status());
    scene.people.member(&scene.recorder, &chat, person, What::RemoveMember);
    sleep(Duration::from_secs(9)).await;
    Ok(vec![("members removed", 1)])
}

/// A device refreshes, and then shows its first token again, as who has stolen it would.
async fn refresh_twice(scene: &mut Scene) -> anyhow::Result<Evidence> {
    let name = "refresher/1";
    let client: Client = scene.rig.client(0, &phone(2), 1, name, &scene.recorder).await?;
    let shown = client.rest().tokens()?;
    for _ in 0..2 {
        client.rest().use_tokens(shown.clone());
        let line = Line {
            what: What::Refresh,
            session: name.to_owned(),
            client_id: Some(digest(&shown.refresh_token)),
            ..Line::default()
        };
        scene.recorder.write(Line { kind: Kind::Invoke, ..line.clone() });
        match client.rest().refresh().await {
            Ok(given) => {
                scene.recorder.write(Line { kind: Kind::Ok, message_id: Some(digest(&given.refresh_token)), ..line });
            }
            Err(error) => {
                scene.recorder.write(Line { kind: Kind::Fail, error: Some(error.to_string()), ..line });
            }
        }
    }
    client.stop().await;
    Ok(vec![("refreshes", 2)])
}
