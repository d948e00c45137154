//! A client's own trace goes on; what is none begins a new one.

use clap::Parser as _;
use futures_util::SinkExt as _;
use proto::{
    frames,
    messaging::v1::{ClientFrame, TraceContext},
};
use tokio_tungstenite::tungstenite::Message;

use crate::world::{Client, World, chat, in_both, said, user};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e47";
const SPAN: &str = "00f067aa0ba902b7";

/// Makes traces in this process.
#[derive(clap::Parser)]
struct Traced {
    #[command(flatten)]
    platform: platform::Config,
}

/// Sends a message for each of the contexts, all in one piece, and waits for the answers.
async fn send(client: &mut Client, chat: domain::ids::ChatId, contexts: &[Option<TraceContext>]) {
    for context in contexts {
        let request_id = "r".to_owned();
        let frame = ClientFrame { request_id, trace_context: context.clone(), payload: Some(said(chat, "hi")) };
        let message = if client.is_binary {
            Message::Binary(frames::client_to_protobuf(&frame).into())
        } else {
            Message::Text(frames::client_to_json(&frame).into())
        };
        client.socket.feed(message).await.expect("sent");
    }
    client.socket.flush().await.expect("sent");
    for _ in contexts {
        client.next().await;
    }
}

#[tokio::test]
async fn a_clients_trace_goes_on_and_what_is_none_begins_one() {
    let platform = Traced::parse_from(["gateway", "--log", "off"]).platform;
    let _traces = platform::telemetry::start("gateway", &platform).expect("started");
    in_both(async |protocol| {
        let world = World::new().await.speaking(protocol);
        let (mut client, chat) = (world.connect(user()).await, chat());
        let context = |trace_id: &str, span_id: &str| {
            Some(TraceContext { trace_id: trace_id.to_owned(), span_id: span_id.to_owned() })
        };
        let theirs = |place: u32| format!("{TRACE}{place:02}");
        // One by one, then several in one call.
        send(&mut client, chat, &[context(&theirs(0), SPAN)]).await;
        let ignored = [None, context("t", SPAN), context(&theirs(9), ""), context(&theirs(9).to_uppercase(), SPAN)];
        send(&mut client, chat, &[&ignored[..], &[context(&theirs(1), SPAN), context(&theirs(2), SPAN)]].concat())
            .await;
        let stored = world.ingest.stored.lock().expect("whole")[&chat].clone();
        let told: Vec<String> = stored.iter().filter_map(|send| platform::trace::trace_id(&send.traceparent)).collect();
        assert_eq!((stored.len(), told.len()), (7, 7), "each message has a trace: {told:?}");
        assert_eq!((&told[0], &told[5], &told[6]), (&theirs(0), &theirs(1), &theirs(2)));
        let new: std::collections::BTreeSet<&String> = told[1..5].iter().filter(|id| **id != theirs(9)).collect();
        assert_eq!(new.len(), 4, "a new one each: {told:?}");
        assert!(stored.iter().all(|send| !send.traceparent.contains(SPAN)), "the parent is gateway's span");
    })
    .await;
}
