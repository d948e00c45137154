//! Rows 29, 30, 38, 50 and 51: clients that vanish, read nothing, come back all at once, or are too many.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::{
    net::TcpSocket,
    time::{Instant, sleep, timeout},
};
use tokio_tungstenite::{
    client_async,
    tungstenite::{Message, client::IntoClientRequest as _},
};

use crate::faults::{
    load::phone,
    proxy::{Proxy, Toxics},
    repeat::Visitor,
    run::{Evidence, Scene},
};

/// Sessions that come back at once.
const HERD: usize = 40;
const BACK_WITHIN: Duration = Duration::from_secs(30);
/// Who has the slow device.
const SLOW: usize = 1;
/// The slow client's window, in bytes; and how long it may take until it is warned and closed.
const WINDOW: u32 = 4096;
const CLOSED_WITHIN: Duration = Duration::from_mins(2);

/// Row 38: many sessions on one gateway, which is killed.
pub(super) async fn herd(scene: &mut Scene) -> anyhow::Result<Evidence> {
    let mut herd = Vec::new();
    for number in 0..HERD {
        // Each a person of their own: one has five devices at most.
        let name = format!("herd-{number}/1");
        herd.push(Arc::new(scene.rig.client(0, &phone(1000 + number), 1, &name, &scene.recorder).await?));
    }
    let before: Vec<u64> = herd.iter().map(|client| client.wire().connections()).collect();
    scene.begins("kill the herd's gateway");
    scene.rig.gateways[0].kill().await?;
    scene.rig.redirect(0, 1).await?;
    let killed = Instant::now();
    let mut back = 0;
    for (client, before) in herd.iter().zip(before) {
        client.came_back(before, BACK_WITHIN.saturating_sub(killed.elapsed())).await?;
        back += 1;
    }
    let took = killed.elapsed();
    scene.rig.repair().await?;
    scene.ends("kill the herd's gateway");
    sleep(Duration::from_secs(1)).await;
    for client in herd.into_iter().filter_map(Arc::into_inner) {
        client.stop().await;
    }
    let took = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    Ok(vec![("sessions that came back", back), ("milliseconds until all were back", took)])
}

/// Row 29: a gateway's clients vanish without a word; it ends them after two heartbeats, and they come back elsewhere.
pub(super) async fn half_open(scene: &mut Scene) -> anyhow::Result<Evidence> {
    let before = sockets(scene).await?;
    let address = scene.rig.gateways[0].address("--listen").await?;
    let edge = Proxy::start(&address, scene.random.next()).await?;
    // A device that connects through an edge of its own, and is gone behind it.
    let name = "vanished/1".to_owned();
    let client = scene.rig.client(0, &phone(1), 1, &name, &scene.recorder).await?;
    let visitor = Visitor::of(&client)?;
    client.stop().await;
    let socket = visitor.connect(&format!("http://{}", edge.address())).await?;
    scene.begins("half open");
    edge.set(Toxics::black_hole());
    let there = sockets(scene).await?;
    let begun = Instant::now();
    // Two heartbeats of 2 s, and the gateway's last words.
    while sockets(scene).await? >= there {
        anyhow::ensure!(begun.elapsed() < Duration::from_secs(20), "the gateway keeps a client that is gone");
        sleep(Duration::from_millis(200)).await;
    }
    edge.heal();
    scene.ends("half open");
    drop(socket);
    Ok(vec![("connections that the gateway gave up", u64::from(before <= there)), ("pieces held", edge.counted().held)])
}

/// Connections of the first gateway, as it counts them.
async fn sockets(scene: &Scene) -> anyhow::Result<u64> {
    let (_, page) = scene.rig.gateways[0].page("/metrics").await?;
    let line = page.lines().find(|line| line.starts_with("gateway_connections_active "));
    let line = line.with_context(|| format!("no count of connections in\n{page}"))?;
    line.rsplit(' ').next().and_then(|number| number.parse().ok()).context("no number")
}

/// Row 30: a device that does not read, while large messages come: it is closed, and nobody else notices.
pub(super) async fn slow_client(scene: &mut Scene) -> anyhow::Result<Evidence> {
    let client = scene.rig.client(0, &phone(SLOW), 1, "slow/1", &scene.recorder).await?;
    let visitor = Visitor::of(&client)?;
    client.stop().await;
    let address: std::net::SocketAddr = scene.rig.gateways[0].address("--listen").await?.parse()?;
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(WINDOW)?;
    let stream = socket.connect(address).await?;
    let mut request = format!("ws://{address}/v1/ws").into_client_request()?;
    for (name, value) in visitor.headers() {
        request.headers_mut().insert(name, value.parse()?);
    }
    let (mut slow, _) = client_async(request, stream).await?;
    scene.begins("slow client");
    let memory = scene.rig.gateways[0].memory_kilobytes();
    let hot = scene.people.chats.iter().filter(|(_, members)| members.contains(&SLOW));
    let hot = hot.flat_map(|(chat, members)| members.iter().map(move |member| (chat, *member)));
    let talkers: Vec<(&String, usize)> = hot.filter(|(_, member)| *member != SLOW).collect();
    // More than its queue and the buffers between take; in JSON each of these is two bytes.
    let text = "\"".repeat(4000);
    let mut answers = Vec::new();
    let begun = Instant::now();
    let metrics = loop {
        for number in 0..5 {
            for (chat, member) in &talkers {
                let text = format!("{number} {:?} {text}", begun.elapsed());
                answers.push(scene.people.clients[*member].begin_send(chat, &text).await?);
            }
        }
        // It is there, it only does not read.
        slow.send(Message::text(r#"{"type":"heartbeat","payload":{}}"#)).await?;
        for answer in answers.drain(..) {
            drop(answer.await); // what became of it is in the history
        }
        let (_, page) = scene.rig.gateways[0].page("/metrics").await?;
        if page.lines().any(|line| line.contains("SlowConsumer") && !line.ends_with(" 0")) {
            break page;
        }
        anyhow::ensure!(begun.elapsed() < CLOSED_WITHIN, "the slow client was not closed:\n{page}");
    };
    drop(metrics);
    let grown = scene.rig.gateways[0].memory_kilobytes().saturating_sub(memory);
    anyhow::ensure!(grown < 64 * 1024, "the gateway grew by {grown} KB for one slow client");
    // What was said last reaches it only if there was room: then it is the documented code.
    let mut code = None;
    while let Ok(Some(Ok(message))) = timeout(Duration::from_secs(10), slow.next()).await {
        match message {
            Message::Close(frame) => {
                code = frame.map(|frame| u16::from(frame.code));
                break;
            }
            Message::Text(_) | Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
        }
    }
    drop(slow.close(None).await);
    scene.ends("slow client");
    anyhow::ensure!(code.is_none_or(|code| code == 1008), "it was closed with {code:?}");
    Ok(vec![("slow clients closed", 1)])
}

/// Files that a gateway may open, and connections that want more.
const FILES: u32 = 128;
const INTRUDERS: usize = 200;

/// Row 50: a gateway has no descriptor left for a while; who is connected stays, and it takes new ones afterwards.
pub(super) async fn no_descriptors(scene: &mut Scene) -> anyhow::Result<Evidence> {
    let gateway = &mut scene.rig.gateways[0];
    gateway.terminate().await?;
    gateway.ended().await?;
    gateway.limit_files(Some(FILES));
    gateway.start_again()?;
    gateway.ready().await?;
    scene.rig.repair().await?;
    sleep(Duration::from_secs(2)).await;
    let gateway = &scene.rig.gateways[0];
    let (pid, address) = (gateway.pid().context("not running")?, gateway.address("--listen").await?);
    scene.begins("no descriptors");
    let mut intruders = Vec::new();
    for _ in 0..INTRUDERS {
        intruders.push(tokio::net::TcpStream::connect(&address).await?);
    }
    let (begun, mut most) = (Instant::now(), 0);
    while begun.elapsed() < Duration::from_secs(4) {
        most = most.max(std::fs::read_dir(format!("/proc/{pid}/fd"))?.count());
        sleep(Duration::from_millis(50)).await;
    }
    drop(intruders);
    scene.rig.gateways[0].ready().await?;
    scene.ends("no descriptors");
    anyhow::ensure!(scene.rig.gateways[0].pid() == Some(pid), "the gateway was replaced");
    let name = "newcomer/1";
    scene.rig.client(0, &phone(2), 1, name, &scene.recorder).await?.stop().await;
    // The next of its processes may open what it wants.
    scene.rig.gateways[0].limit_files(None);
    let is_full = most + 2 >= FILES as usize;
    Ok(vec![("gateways without a descriptor", u64::from(is_full)), ("connections too many", INTRUDERS as u64)])
}

/// Row 51: everybody sends as fast as they can for a while, then as before.
pub(super) async fn overload(scene: &mut Scene) -> anyhow::Result<Evidence> {
    let (chats, clients) = (&scene.people.chats, &scene.people.clients);
    let mut answers = Vec::new();
    scene.begins("overload");
    for number in 0..FLOOD {
        for (person, client) in clients.iter().enumerate() {
            for (chat, _) in chats.iter().filter(|(_, members)| members.contains(&person)) {
                answers.push(client.begin_send(chat, &format!("flood {person} {number} {chat}")).await?);
            }
        }
    }
    let begun = Instant::now();
    let count = answers.len() as u64;
    for answer in answers {
        timeout(Duration::from_mins(2), answer).await.context("no answer in time")???;
    }
    let a_second = count * 1000 / u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
    scene.ends("overload");
    Ok(vec![("messages at once", count), ("messages a second under load", a_second)])
}

/// Messages of each person to each of their chats, all at once.
const FLOOD: usize = 150;
