//! The store is restored to an earlier moment: what came after is lost, and no place is given out twice (D3.9).

use std::{collections::BTreeMap, fs::DirEntry, path::Path, process::Output, time::Duration};

use anyhow::Context as _;
use serde_json::json;
use tests::{
    client::{Kept, Options},
    world::{World, binary, service::Service},
};

const WITHIN: Duration = Duration::from_secs(30);
/// By how many places a counter is raised.
const RAISED_BY: u64 = 1 << 20;

/// The store's files, which no process has.
fn store_files(folder: &Path) -> anyhow::Result<Vec<DirEntry>> {
    let all = std::fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    Ok(all.into_iter().filter(|file| file.file_name().to_string_lossy().starts_with("store.sqlite")).collect())
}

/// Puts the store as it is in one folder into the place of that in the other.
fn put_store(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to)?;
    for old in store_files(to)? {
        std::fs::remove_file(old.path())?;
    }
    for file in store_files(from)? {
        std::fs::copy(file.path(), to.join(file.file_name()))?;
    }
    Ok(())
}

fn texts(view: &[Kept]) -> Vec<(u64, &str)> {
    view.iter().map(|kept| (kept.sequence, kept.content.as_str())).collect()
}

/// What who operates the platform does between the restore and the first service.
async fn after_restore(world: &World, store: &str, name: &str) -> anyhow::Result<Output> {
    let mut command = tokio::process::Command::new(binary("ingest")?);
    command.args(["after-restore", "--restore", name, "--store-table-prefix", "local-messaging-"]);
    command.args(["--store-access-key", "local", "--store-secret-key", "local"]);
    command.arg("--store-endpoint").arg(format!("http://{store}")).current_dir(world.folder());
    Ok(command.output().await?)
}

#[tokio::test]
async fn what_is_said_after_a_restore_has_places_of_its_own() -> anyhow::Result<()> {
    let mut world = World::start().await?;
    let (ana, ben) = (world.client("+12025550100").await?, world.client("+12025550101").await?);
    let chat = ana.rest().direct(ben.user_id()).await?.chat_id;
    let silent = ana.rest().group("Silent", &[ben.user_id()]).await?.chat_id;
    for text in ["one", "two"] {
        ana.send(&chat, text).await?;
        ben.send(&silent, text).await?;
    }
    ben.wait_for(&chat, 2, WITHIN).await?;
    ana.wait_for(&silent, 2, WITHIN).await?;

    let backup = world.folder().join("backup");
    assert!(world.stop().await?, "it ended well");
    put_store(&world.data(), &backup)?;
    world.restart().await?;
    for text in ["three", "four", "five"] {
        assert!(ben.send(&chat, text).await?.sequence > 2);
    }
    ana.wait_for(&chat, 5, WITHIN).await?;

    assert!(world.stop().await?, "it ended well");
    put_store(&backup, &world.data())?;
    let variables = [("DATA", world.data().display().to_string()), ("LOG_FORMAT", "json".to_owned())];
    let variables: BTreeMap<String, String> = variables.map(|(name, value)| (name.to_owned(), value)).into();
    let mut systems = Service::start("systems", "systems", world.folder(), &variables)?;
    systems.ready().await?;
    let store = systems.address("the embedded store").await?;
    let first = after_restore(&world, &store, "monday").await?;
    let said = String::from_utf8_lossy(&first.stdout);
    assert_eq!(said, "2 counters raised by 1048576; 0 had been before\n", "{}", String::from_utf8_lossy(&first.stderr));
    let again = after_restore(&world, &store, "monday").await?;
    assert_eq!(String::from_utf8_lossy(&again.stdout), "0 counters raised by 1048576; 2 had been before\n");
    systems.terminate().await?;
    systems.ended().await?;

    // Those who were there come back by themselves. Each still has what the store has lost, and gets what is new.
    world.restart().await?;
    let sent = ana.send(&chat, "after").await?;
    assert_eq!(sent.sequence, 2 + RAISED_BY + 1);
    let new = (sent.sequence, "after");
    for person in [&ana, &ben] {
        let view = person.wait_for(&chat, 6, WITHIN).await?;
        assert_eq!(texts(&view), [(1, "one"), (2, "two"), (3, "three"), (4, "four"), (5, "five"), new]);
    }
    ben.send(&chat, "and so on").await?;
    ana.wait_for(&chat, 7, WITHIN).await?;

    // A new device, and the history, have what is there.
    let laptop = world.client_with("+12025550101", Options::quick(world.server())).await?;
    laptop.open(&chat).await?;
    laptop.open(&silent).await?;
    let next = (sent.sequence + 1, "and so on");
    let view = laptop.wait_for(&chat, 4, WITHIN).await?;
    assert_eq!(texts(&view), [(1, "one"), (2, "two"), new, next]);
    assert_eq!(texts(&laptop.wait_for(&silent, 2, WITHIN).await?), [(1, "one"), (2, "two")]);
    let history = laptop.rest().history(&chat).await?;
    let places: Vec<u64> = history.iter().map(|item| item.sequence).collect();
    assert_eq!(places, [1, 2, sent.sequence, sent.sequence + 1]);
    // A chat in which nobody has spoken since is listed as it was.
    for person in [&ana, &laptop] {
        let listed = person.rest().chats().await?;
        let listed = listed.iter().find(|listed| listed.chat_id == silent).context("it is not listed")?;
        assert_eq!(listed.last_message.as_ref().map(|last| &last["sequence"]), Some(&json!(2)));
        assert!(listed.pending_ack_count <= 2, "{listed:?}");
    }
    let sent = laptop.send(&silent, "three again").await?;
    assert_eq!(sent.sequence, 2 + RAISED_BY + 1);
    let view = ana.wait_for(&silent, 3, WITHIN).await?;
    assert_eq!(texts(&view), [(1, "one"), (2, "two"), (sent.sequence, "three again")]);

    let log = std::fs::read_to_string(world.log_path())?;
    let alarm = log.lines().find(|line| line.contains("SEV-1"));
    assert_eq!(alarm, None, "a gap is no hole");
    Ok(())
}
