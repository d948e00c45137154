//! What fanout routes here, and which connections get it.

use std::time::Duration;

use domain::ids::{ChatId, UserId};
use gateway::config::Limits;
use proto::{
    frames,
    messaging::v1::{
        ChatEvent, DeliveryFrame, Heartbeat, Message, client_frame::Payload as Ask, delivery_answer::Outcome,
        delivery_frame::Push, server_frame::Payload,
    },
};

use crate::world::{Client, World, chat, device, in_both, roomy, user};

fn message(chat: ChatId, sequence: u64, sender: UserId) -> Push {
    Push::Message(Message {
        message_id: format!("msg_{sequence}"),
        chat_id: chat.to_string(),
        sequence,
        sender_id: sender.to_string(),
        content: format!("m{sequence}"),
        content_type: "text/plain".into(),
        created_at: 7,
        client_message_id: Some("eaefc4d2-d3bf-4d01-abae-4b5b844a7034".into()),
    })
}

fn to(users: &[UserId], push: Push) -> DeliveryFrame {
    let user_ids = users.iter().map(ToString::to_string).collect();
    DeliveryFrame { frame_id: 1, user_ids, push: Some(push), ..DeliveryFrame::default() }
}

async fn next_message(client: &mut Client) -> Message {
    let frame = client.next().await;
    assert_eq!(frame.request_id, "", "pushes answer nothing");
    match frame.payload {
        Some(Payload::Message(message)) => message,
        other => panic!("not a message: {other:?}"),
    }
}

#[tokio::test]
async fn a_message_goes_to_every_connection_but_the_one_that_sent_it() {
    let world = World::new().await;
    let (sender, other, absent, chat) = (user(), user(), user(), chat());
    let mut origin = world.connect(sender).await;
    let mut sibling = world.connect(sender).await;
    let mut phone = world.connect_as(other, &device(), Some(frames::PROTOBUF)).await;
    let mut laptop = world.connect(other).await;
    let mut delivery = world.delivery().await;
    for sequence in 1..=2 {
        let mut frame = to(&[sender, other, absent], message(chat, sequence, sender));
        frame.origin_connection = if sequence == 1 { origin.id.clone() } else { String::new() };
        let answer = delivery.send(frame).await;
        assert_eq!((answer.frame_id, answer.outcome()), (1, Outcome::Delivered));
        assert_eq!((answer.unknown_user_ids, answer.full_user_ids), (vec![absent.to_string()], vec![]));
    }
    for client in [&mut phone, &mut laptop] {
        for sequence in 1..=2 {
            let message = next_message(client).await;
            assert_eq!((message.sequence, message.client_message_id), (sequence, None), "not their id to know");
        }
    }
    let own = next_message(&mut sibling).await;
    assert_eq!((own.sequence, own.client_message_id.is_some()), (1, true));
    assert_eq!(next_message(&mut origin).await.sequence, 2, "the first was its own");
}

#[tokio::test]
async fn what_is_not_above_what_was_pushed_is_dropped() {
    in_both(async |protocol| {
        let world = World::new().await.speaking(protocol);
        let (sender, reader, chat) = (user(), user(), chat());
        let mut client = world.connect(reader).await;
        let (mut new_owner, mut old_owner) = (world.delivery().await, world.delivery().await);
        for sequence in [1, 2, 5] {
            new_owner.send(to(&[reader], message(chat, sequence, sender))).await;
        }
        for sequence in [1, 2, 3, 5] {
            assert_eq!(
                old_owner.send(to(&[reader], message(chat, sequence, sender))).await.outcome(),
                Outcome::Delivered
            );
        }
        new_owner.send(to(&[reader], message(chat, 6, sender))).await;
        let mut got = Vec::new();
        for _ in 0..4 {
            got.push(next_message(&mut client).await.sequence);
        }
        assert_eq!(got, [1, 2, 5, 6]);
    })
    .await;
}

#[tokio::test]
async fn an_acknowledged_message_is_not_pushed_to_its_connection_again_and_hides_nothing() {
    in_both(async |protocol| {
        let world = World::new().await.speaking(protocol);
        let (me, other, chat) = (user(), user(), chat());
        let mut client = world.connect(me).await;
        let mut delivery = world.delivery().await;
        for number in 1..=3 {
            client.send(&number.to_string(), chat, "x").await;
            client.next().await;
        }
        // 1 and 2 are somebody else's as far as fanout tells, and 3 comes without its origin.
        for sequence in 1..=4 {
            let sender = if sequence == 3 { me } else { other };
            delivery.send(to(&[me], message(chat, sequence + 1, sender))).await;
        }
        assert_eq!(next_message(&mut client).await.sequence, 4, "2 and 3 are known from their acknowledgements");
        assert_eq!(next_message(&mut client).await.sequence, 5);
    })
    .await;
}

#[tokio::test]
async fn events_of_chats_reach_clients() {
    in_both(async |protocol| {
        let world = World::new().await.speaking(protocol);
        let (reader, chat) = (user(), chat());
        let mut client = world.connect(reader).await;
        let mut delivery = world.delivery().await;
        let event =
            ChatEvent { chat_id: chat.to_string(), user_ids: vec![reader.to_string()], by: "user_x".into(), at: 7 };
        for push in [
            Push::ChatCreated(event.clone()),
            Push::MemberAdded(event.clone()),
            Push::ChatUpdated(event.clone()),
            Push::MemberRemoved(event.clone()),
        ] {
            delivery.send(to(&[reader], push)).await;
        }
        let payloads = [client.next().await, client.next().await, client.next().await, client.next().await];
        let [created, added, updated, removed] = payloads.map(|frame| frame.payload.expect("a payload"));
        assert_eq!(created, Payload::ChatCreated(event.clone()));
        assert_eq!(added, Payload::MemberAdded(event.clone()));
        assert_eq!(updated, Payload::ChatUpdated(event.clone()));
        assert_eq!(removed, Payload::MemberRemoved(event));
    })
    .await;
}

#[tokio::test]
async fn frames_for_another_run_of_this_gateway_are_not_taken() {
    in_both(async |protocol| {
        let world = World::new().await.speaking(protocol);
        let reader = user();
        let mut client = world.connect(reader).await;
        let mut delivery = world.delivery().await;
        let gateway_id = format!("{}#another", world.running.grpc);
        let answer = delivery.send(DeliveryFrame { gateway_id, ..to(&[reader], message(chat(), 1, reader)) }).await;
        assert_eq!(answer.outcome(), Outcome::Unknown);
        client.ask("b", Ask::Heartbeat(Heartbeat::default())).await;
        assert!(matches!(client.next().await.payload, Some(Payload::HeartbeatAck(_))), "nothing was pushed");
    })
    .await;
}

#[tokio::test]
async fn users_who_are_owed_a_frame_are_told_to_sync() {
    in_both(async |protocol| {
        let world = World::new().await.speaking(protocol);
        let (owed, other) = (user(), user());
        let mut client = world.connect(owed).await;
        let _other = world.connect(other).await;
        let mut delivery = world.delivery().await;
        let frame = to(&[other], message(chat(), 1, other));
        let by_name = DeliveryFrame { owed_user_ids: vec![owed.to_string()], ..frame.clone() };
        let everybody = DeliveryFrame { is_everybody_owed: true, ..frame.clone() };
        for (frame, resync) in [(frame, false), (by_name, true), (everybody, true)] {
            delivery.send(frame).await;
            client.ask("b", Ask::Heartbeat(Heartbeat::default())).await;
            let Some(Payload::HeartbeatAck(ack)) = client.next().await.payload else { panic!("no heartbeat_ack") };
            assert_eq!(ack.resync, resync);
        }
    })
    .await;
}

#[tokio::test]
async fn a_stranger_has_no_delivery_stream() {
    let world = World::new().await;
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", world.running.grpc)).expect("valid");
    let channel = channel.connect().await.expect("reached");
    let mut client = proto::messaging::v1::delivery_client::DeliveryClient::new(channel);
    let status = client.deliver(tokio_stream::empty()).await.expect_err("refused");
    assert_eq!(status.code(), tonic::Code::Unauthenticated);
}

/// Pushes that the kernel's buffers can't hold, to a client that does not read.
async fn flood(world: &World, reader: UserId) -> Outcome {
    let mut delivery = world.delivery().await;
    let chat = chat();
    let mut last = Outcome::Delivered;
    for sequence in 1..=20_000 {
        let Push::Message(mut push) = message(chat, sequence, reader) else { unreachable!() };
        push.content = "x".repeat(4096);
        last = delivery.send(to(&[reader], Push::Message(push))).await.outcome();
        if last == Outcome::Full {
            break;
        }
    }
    last
}

#[tokio::test]
async fn a_client_that_does_not_read_is_closed_and_nobody_waits_for_it() {
    in_both(async |protocol| {
        let world = World::with(Limits { stop_close: crate::world::PATIENCE, ..roomy() }).await.speaking(protocol);
        let reader = user();
        let mut client = world.connect(reader).await;
        assert_eq!(flood(&world, reader).await, Outcome::Full);
        assert_eq!(client.closing().await, ("slow_consumer".to_owned(), 1008));
        assert!(world.process.metrics_text().contains("gateway_pushes_total{status=\"Full\"} 1"));
    })
    .await;
}

#[tokio::test]
async fn a_slow_client_is_warned_and_closed_after_the_grace_period() {
    in_both(async |protocol| {
        let limits = Limits {
            outbound_messages: 100_000,
            outbound_grace: Duration::from_millis(50),
            stop_close: crate::world::PATIENCE,
            ..roomy()
        };
        let world = World::with(limits).await.speaking(protocol);
        let reader = user();
        let mut client = world.connect(reader).await;
        let mut delivery = world.delivery().await;
        let chat = chat();
        let link = world.running.gateway.connections.of(reader).remove(0);
        for sequence in 1..=20_000 {
            let Push::Message(mut push) = message(chat, sequence, reader) else { unreachable!() };
            push.content = "x".repeat(4096);
            let answer = delivery.send(to(&[reader], Push::Message(push))).await;
            assert_eq!(answer.outcome(), Outcome::Delivered, "warned before it is full");
            if link.line.outbound.warned_at().is_some() {
                break;
            }
        }
        crate::world::eventually("closed", || link.closing().is_some()).await;
        let mut warned = None;
        let code = loop {
            match client.next_or_close().await {
                Ok(frame) => match frame.payload {
                    Some(Payload::Error(error)) => warned = Some(error),
                    Some(Payload::ConnectionClosing(closing)) => assert_eq!(closing.reason, "slow_consumer"),
                    _ => {}
                },
                Err(code) => break code,
            }
        };
        assert_eq!(code, 1008);
        let warned = warned.expect("a warning came first");
        let details = warned.details.expect("details");
        assert_eq!(warned.code, "SLOW_CONSUMER");
        assert!(details.buffer_size > Some(0) && details.buffer_limit > details.buffer_size, "{details:?}");
    })
    .await;
}
