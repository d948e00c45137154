//! Client frames as JSON and as protobuf of the same message (D2.1, D2.2, D2.8).
//!
//! JSON never follows the canonical proto mapping: numbers stay numbers, names stay `snake_case`,
//! times are ISO 8601. The golden samples in the tests decide.

mod json;
mod protobuf;

pub use json::{client_from_json, client_to_json, server_from_json, server_to_json};
pub use protobuf::{client_from_protobuf, client_to_protobuf, server_from_protobuf, server_to_protobuf};

/// Subprotocol of the JSON encoding, which is also meant when none is offered.
pub const JSON: &str = "messaging.v1.json";
/// Subprotocol of the protobuf encoding.
pub const PROTOBUF: &str = "messaging.v1.proto";
/// The version in the path, and in `connection_established`.
pub const PROTOCOL_VERSION: u32 = 1;

/// Why a frame was not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unread {
    /// A type this version does not know: log it, answer nothing (websocket-protocol §12).
    UnknownType(String),
    /// Not a frame. `request_id` is there whenever it could be read and an answer may carry it: never of an `ack`,
    /// which is one-way.
    Malformed {
        /// Of the request, if it had a readable one.
        request_id: Option<String>,
        /// What is wrong, in words for the client's developer.
        reason: String,
    },
    /// A text in it is not UTF-8. JSON never says this: a text frame that is not UTF-8 ends its connection before.
    NotUtf8 {
        /// As in [`Unread::Malformed`].
        request_id: Option<String>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messaging::v1::{
        Ack, ChatHead, ClientFrame, HeartbeatAck, Message, SendMessage, ServerFrame, SyncItem, SyncResponse,
        client_frame::Payload as Request, server_frame::Payload as Push,
    };

    const CHAT: &str = "chat_01KKNTQ2BCF5KZNWJ47TAN9ZT2";
    const AT: i64 = 1_773_480_421_309;

    #[test]
    fn server_frames_look_as_agreed_and_come_back() {
        let push = Push::Message(Message {
            message_id: "msg_01KKNTQ2KYP1XPA7Z3DJ8FSSZ5".into(),
            chat_id: CHAT.into(),
            sequence: 218,
            sender_id: "user_01KKNTQ22TV37E3S3E28JT97KB".into(),
            content: "Meet at the north gate ☕".into(),
            content_type: "text/plain".into(),
            created_at: AT,
            client_message_id: None,
        });
        let page = Push::SyncResponse(SyncResponse {
            chat_id: CHAT.into(),
            messages: vec![SyncItem { sequence: 9_007_199_254_740_991, created_at: AT, ..SyncItem::default() }],
            has_more: true,
            next_sequence: Some(218),
        });
        let beat = Push::HeartbeatAck(HeartbeatAck {
            server_time: AT,
            resync: true,
            heads: vec![ChatHead { chat_id: CHAT.into(), current_sequence: 7 }],
        });
        let cases = [
            (
                "",
                push,
                r#"{"type":"message","timestamp":"2026-03-14T09:27:01.309Z","payload":{"message_id":"msg_01KKNTQ2KYP1XPA7Z3DJ8FSSZ5","chat_id":"chat_01KKNTQ2BCF5KZNWJ47TAN9ZT2","sequence":218,"sender_id":"user_01KKNTQ22TV37E3S3E28JT97KB","content":"Meet at the north gate ☕","content_type":"text/plain","created_at":"2026-03-14T09:27:01.309Z"}}"#,
            ),
            (
                "r1",
                page,
                r#"{"type":"sync_response","request_id":"r1","timestamp":"2026-03-14T09:27:01.309Z","payload":{"chat_id":"chat_01KKNTQ2BCF5KZNWJ47TAN9ZT2","messages":[{"message_id":"","sequence":9007199254740991,"sender_id":"","content":"","content_type":"","created_at":"2026-03-14T09:27:01.309Z"}],"has_more":true,"next_sequence":218}}"#,
            ),
            (
                "hb-001",
                beat,
                r#"{"type":"heartbeat_ack","request_id":"hb-001","timestamp":"2026-03-14T09:27:01.309Z","payload":{"server_time":"2026-03-14T09:27:01.309Z","resync":true,"heads":[{"chat_id":"chat_01KKNTQ2BCF5KZNWJ47TAN9ZT2","current_sequence":7}]}}"#,
            ),
        ];
        for (request_id, payload, golden) in cases {
            let frame = ServerFrame { request_id: request_id.into(), timestamp: AT, payload: Some(payload) };
            assert_eq!(server_to_json(&frame), golden);
            assert_eq!(server_from_json(golden), Ok(frame.clone()));
            assert_eq!(server_from_protobuf(&server_to_protobuf(&frame)), Ok(frame));
        }
    }

    #[test]
    fn client_frames_are_read_with_unknown_members_and_without_optional_ones() {
        let golden = r#"{"type":"send_message","request_id":"r","payload":{"client_message_id":"eaefc4d2-d3bf-4d01-abae-4b5b844a7034","chat_id":"c","content":"hi"}}"#;
        let send = SendMessage {
            client_message_id: "eaefc4d2-d3bf-4d01-abae-4b5b844a7034".into(),
            chat_id: "c".into(),
            content: "hi".into(),
            content_type: String::new(),
        };
        let frame = ClientFrame { request_id: "r".into(), payload: Some(Request::SendMessage(send)) };
        assert_eq!(client_to_json(&frame), golden);
        assert_eq!(client_from_json(golden), Ok(frame.clone()));
        assert_eq!(client_from_protobuf(&client_to_protobuf(&frame)), Ok(frame));
        let more = r#"{"type":"heartbeat","trace_context":{"trace_id":"t"},"payload":{"new":1}}"#;
        assert!(client_from_json(more).is_ok());
    }

    #[test]
    fn unreadable_client_frames_say_why() {
        let malformed = |text: &str| match client_from_json(text) {
            Err(Unread::Malformed { request_id, reason }) => (request_id, reason),
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(malformed("{").0, None);
        assert!(malformed(r#"{"payload":{}}"#).1.contains("type"));
        assert!(malformed(r#"{"type":7,"payload":{}}"#).1.contains("string"));
        let missing = malformed(r#"{"type":"sync_request","request_id":"a","payload":{"chat_id":"c"}}"#);
        assert_eq!(missing.0.as_deref(), Some("a"));
        let ack = malformed(r#"{"type":"ack","request_id":"a","payload":{"chat_id":"c"}}"#);
        assert_eq!(ack.0, None, "nothing answers an ack");
        assert!(missing.1.contains("last_acked_sequence"), "{}", missing.1);
        assert!(malformed(r#"{"type":"ack","payload":{"chat_id":"c","last_acked_sequence":-1}}"#).1.contains("-1"));
        assert!(malformed(r#"{"type":"heartbeat","type":"ack","payload":{}}"#).1.contains("duplicate"));
        assert!(malformed(r#"{"type":"heartbeat"}"#).1.contains("payload"));
        assert_eq!(client_from_json(r#"{"type":"wave","payload":{}}"#), Err(Unread::UnknownType("wave".into())));
        for list in [r#"["heartbeat",null,null,{}]"#, r#"{"type":"heartbeat","payload":[[]]}"#] {
            assert!(malformed(list).1.contains("object"), "{list}");
        }
    }

    #[test]
    fn unreadable_protobuf_frames_say_the_same() {
        let frame = |payload| ClientFrame { request_id: "r".into(), payload: Some(payload) };
        let send = frame(Request::SendMessage(SendMessage { content: "hijk".into(), ..SendMessage::default() }));
        let ack = Ack { chat_id: "hijk".into(), ..Ack::default() };
        let spoil = |frame: &ClientFrame, by: &[u8; 4]| {
            let mut bytes = client_to_protobuf(frame);
            let at = bytes.windows(4).position(|part| part == b"hijk").expect("the text");
            bytes[at..at + 4].copy_from_slice(by);
            client_from_protobuf(&bytes)
        };
        let not_utf8 = [0xff, 0xfe, b'a', b'b'];
        assert_eq!(spoil(&send, &not_utf8), Err(Unread::NotUtf8 { request_id: Some("r".into()) }));
        assert_eq!(spoil(&frame(Request::Ack(ack)), &not_utf8), Err(Unread::NotUtf8 { request_id: None }), "one-way");

        let malformed = |bytes: &[u8]| match client_from_protobuf(bytes) {
            Err(Unread::Malformed { request_id, .. }) => request_id,
            other => panic!("{bytes:?}: {other:?}"),
        };
        assert_eq!(malformed(b""), None, "no payload is no type");
        assert_eq!(malformed(b"\x0a\x01r"), Some("r".into()));
        assert_eq!(malformed(b"\x0a\x01r\x52\x02\x0a\x05"), Some("r".into()), "a text that ends too early");
        assert_eq!(malformed(b"\x0a\x05r"), None);
        assert_eq!(malformed(&[0xff; 12]), None);
        // Field 99, as a later version may have it.
        assert!(matches!(client_from_protobuf(b"\x0a\x01r\x9a\x06\x00"), Err(Unread::UnknownType(_))));
        let deep = [0x7b].repeat(1000);
        assert_eq!(malformed(&deep), None, "groups within groups");
    }
}
