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
    UnknownType {
        /// As in [`Unread::Malformed`], for the log.
        request_id: Option<String>,
        /// What the frame calls it.
        name: String,
    },
    /// Not a frame. `request_id` is there whenever it could be read and an answer may carry it: never of an `ack`,
    /// which is one-way.
    Malformed {
        /// Of the request, if it had a readable one.
        request_id: Option<String>,
        /// The field that is wrong, if it is one of ours.
        field: Option<String>,
        /// What is wrong, in words for the client's developer.
        reason: String,
    },
    /// A text in it is not UTF-8. JSON never says this: a text frame that is not UTF-8 ends its connection before.
    NotUtf8 {
        /// As in [`Unread::Malformed`].
        request_id: Option<String>,
        /// As in [`Unread::Malformed`].
        field: Option<String>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messaging::v1::{
        Ack, ChatEvent, ChatHead, ClientFrame, ConnectionClosing, ConnectionEstablished, ErrorDetails, ErrorFrame,
        Heartbeat, HeartbeatAck, Message, SendMessage, SendMessageAck, ServerFrame, SyncHeadsResponse, SyncItem,
        SyncResponse, TraceContext, client_frame::Payload as Request, server_frame::Payload as Push,
    };

    const CHAT: &str = "chat_01KKNTQ2BCF5KZNWJ47TAN9ZT2";
    const AT: i64 = 1_773_480_421_309;

    /// Frames with a request id, and the JSON that was agreed.
    fn look_as_agreed_and_come_back(cases: &[(&str, Push, &str)]) {
        for (request_id, payload, golden) in cases {
            let payload = Some(payload.clone());
            let frame = ServerFrame { request_id: (*request_id).into(), timestamp: AT, payload };
            assert_eq!(server_to_json(&frame), *golden);
            assert_eq!(server_from_json(golden).as_ref(), Ok(&frame));
            assert_eq!(server_from_protobuf(&server_to_protobuf(&frame)), Ok(frame));
        }
    }

    #[test]
    fn the_first_and_the_last_frame_look_as_agreed() {
        let established = Push::ConnectionEstablished(ConnectionEstablished {
            connection_id: "conn_01KKNTQ30SSS6YS3C4DWA7N360".into(),
            user_id: "user_01KKNTQ22TV37E3S3E28JT97KB".into(),
            device_id: "e77ffe48-d0a6-4c17-9556-585ea997f351".into(),
            server_time: AT,
            heartbeat_interval_ms: 30_000,
            protocol_version: 1,
        });
        let closing = Push::ConnectionClosing(ConnectionClosing {
            reason: "server_shutdown".into(),
            message: "this gateway is being replaced".into(),
            reconnect_delay_ms: 5000,
            reconnect_allowed: true,
        });
        look_as_agreed_and_come_back(&[
            (
                "",
                established,
                r#"{"type":"connection_established","timestamp":"2026-03-14T09:27:01.309Z","payload":{"connection_id":"conn_01KKNTQ30SSS6YS3C4DWA7N360","user_id":"user_01KKNTQ22TV37E3S3E28JT97KB","device_id":"e77ffe48-d0a6-4c17-9556-585ea997f351","server_time":"2026-03-14T09:27:01.309Z","heartbeat_interval_ms":30000,"protocol_version":1}}"#,
            ),
            (
                "",
                closing,
                r#"{"type":"connection_closing","timestamp":"2026-03-14T09:27:01.309Z","payload":{"reason":"server_shutdown","message":"this gateway is being replaced","reconnect_delay_ms":5000,"reconnect_allowed":true}}"#,
            ),
        ]);
    }

    #[test]
    fn messages_and_pages_look_as_agreed() {
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
        look_as_agreed_and_come_back(&[
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
        ]);
    }

    #[test]
    fn answers_look_as_agreed() {
        let beat = Push::HeartbeatAck(HeartbeatAck {
            server_time: AT,
            resync: true,
            heads: vec![ChatHead { chat_id: CHAT.into(), current_sequence: 7 }],
        });
        let ack = Push::SendMessageAck(SendMessageAck {
            client_message_id: "eaefc4d2-d3bf-4d01-abae-4b5b844a7034".into(),
            message_id: "msg_01KKNTQ2KYP1XPA7Z3DJ8FSSZ5".into(),
            chat_id: CHAT.into(),
            sequence: 218,
            created_at: AT,
        });
        let heads = Push::SyncHeadsResponse(SyncHeadsResponse {
            chats: vec![ChatHead { chat_id: CHAT.into(), current_sequence: 7 }],
            not_member: vec!["chat_01KKNTQ2FN4MNPZX45HY43KWJR".into()],
        });
        look_as_agreed_and_come_back(&[
            (
                "r1",
                ack,
                r#"{"type":"send_message_ack","request_id":"r1","timestamp":"2026-03-14T09:27:01.309Z","payload":{"client_message_id":"eaefc4d2-d3bf-4d01-abae-4b5b844a7034","message_id":"msg_01KKNTQ2KYP1XPA7Z3DJ8FSSZ5","chat_id":"chat_01KKNTQ2BCF5KZNWJ47TAN9ZT2","sequence":218,"created_at":"2026-03-14T09:27:01.309Z"}}"#,
            ),
            (
                "r1",
                heads,
                r#"{"type":"sync_heads_response","request_id":"r1","timestamp":"2026-03-14T09:27:01.309Z","payload":{"chats":[{"chat_id":"chat_01KKNTQ2BCF5KZNWJ47TAN9ZT2","current_sequence":7}],"not_member":["chat_01KKNTQ2FN4MNPZX45HY43KWJR"]}}"#,
            ),
            (
                "hb-001",
                beat,
                r#"{"type":"heartbeat_ack","request_id":"hb-001","timestamp":"2026-03-14T09:27:01.309Z","payload":{"server_time":"2026-03-14T09:27:01.309Z","resync":true,"heads":[{"chat_id":"chat_01KKNTQ2BCF5KZNWJ47TAN9ZT2","current_sequence":7}]}}"#,
            ),
        ]);
    }

    #[test]
    fn errors_look_as_agreed() {
        let too_large = ErrorDetails { field: Some("content".into()), limit: Some(4096), ..ErrorDetails::default() };
        let limited =
            ErrorDetails { chat_id: Some(CHAT.into()), retry_after_seconds: Some(5), ..ErrorDetails::default() };
        let slow = ErrorDetails {
            buffer_size: Some(951),
            buffer_limit: Some(1000),
            grace_period_seconds: Some(5),
            ..ErrorDetails::default()
        };
        let sunset = ErrorDetails { sunset: Some("2027-01-31T00:00:00.000Z".into()), ..ErrorDetails::default() };
        let error = |code: &str, details| Push::Error(ErrorFrame { code: code.into(), message: "m".into(), details });
        look_as_agreed_and_come_back(&[
            (
                "r1",
                error("NOT_A_MEMBER", None),
                r#"{"type":"error","request_id":"r1","timestamp":"2026-03-14T09:27:01.309Z","payload":{"code":"NOT_A_MEMBER","message":"m"}}"#,
            ),
            (
                "r1",
                error("MESSAGE_TOO_LARGE", Some(too_large)),
                r#"{"type":"error","request_id":"r1","timestamp":"2026-03-14T09:27:01.309Z","payload":{"code":"MESSAGE_TOO_LARGE","message":"m","details":{"field":"content","limit":4096}}}"#,
            ),
            (
                "r1",
                error("RATE_LIMITED", Some(limited)),
                r#"{"type":"error","request_id":"r1","timestamp":"2026-03-14T09:27:01.309Z","payload":{"code":"RATE_LIMITED","message":"m","details":{"chat_id":"chat_01KKNTQ2BCF5KZNWJ47TAN9ZT2","retry_after_seconds":5}}}"#,
            ),
            (
                "",
                error("SLOW_CONSUMER", Some(slow)),
                r#"{"type":"error","timestamp":"2026-03-14T09:27:01.309Z","payload":{"code":"SLOW_CONSUMER","message":"m","details":{"buffer_size":951,"buffer_limit":1000,"grace_period_seconds":5}}}"#,
            ),
            (
                "",
                error("VERSION_DEPRECATED", Some(sunset)),
                r#"{"type":"error","timestamp":"2026-03-14T09:27:01.309Z","payload":{"code":"VERSION_DEPRECATED","message":"m","details":{"sunset":"2027-01-31T00:00:00.000Z"}}}"#,
            ),
        ]);
    }

    #[test]
    fn events_of_chats_look_as_agreed() {
        let event = ChatEvent {
            chat_id: CHAT.into(),
            user_ids: vec!["user_01KKNTQ22TV37E3S3E28JT97KB".into()],
            by: "user_01KKNTQ1YHM9S346Q3D25VT4F5".into(),
            at: AT,
        };
        look_as_agreed_and_come_back(&[
            (
                "",
                Push::ChatCreated(event.clone()),
                r#"{"type":"chat_created","timestamp":"2026-03-14T09:27:01.309Z","payload":{"chat_id":"chat_01KKNTQ2BCF5KZNWJ47TAN9ZT2","user_ids":["user_01KKNTQ22TV37E3S3E28JT97KB"],"by":"user_01KKNTQ1YHM9S346Q3D25VT4F5","at":"2026-03-14T09:27:01.309Z"}}"#,
            ),
            (
                "",
                Push::MemberRemoved(event),
                r#"{"type":"member_removed","timestamp":"2026-03-14T09:27:01.309Z","payload":{"chat_id":"chat_01KKNTQ2BCF5KZNWJ47TAN9ZT2","user_ids":["user_01KKNTQ22TV37E3S3E28JT97KB"],"by":"user_01KKNTQ1YHM9S346Q3D25VT4F5","at":"2026-03-14T09:27:01.309Z"}}"#,
            ),
        ]);
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
        let frame =
            ClientFrame { request_id: "r".into(), trace_context: None, payload: Some(Request::SendMessage(send)) };
        assert_eq!(client_to_json(&frame), golden);
        assert_eq!(client_from_json(golden), Ok(frame.clone()));
        assert_eq!(client_from_protobuf(&client_to_protobuf(&frame)), Ok(frame));
        for nothing in ["null", "7", "[]", r#"{"trace_id":7}"#] {
            let more = format!(r#"{{"type":"heartbeat","trace_context":{nothing},"payload":{{"new":1}}}}"#);
            assert_eq!(client_from_json(&more).expect(&more).trace_context, None);
        }
    }

    #[test]
    fn a_clients_trace_is_told_in_both_encodings() {
        let golden =
            r#"{"type":"heartbeat","request_id":"r","trace_context":{"trace_id":"t","span_id":"s"},"payload":{}}"#;
        let frame = ClientFrame {
            request_id: "r".into(),
            trace_context: Some(TraceContext { trace_id: "t".into(), span_id: "s".into() }),
            payload: Some(Request::Heartbeat(Heartbeat::default())),
        };
        assert_eq!(client_to_json(&frame), golden);
        assert_eq!(client_from_json(golden), Ok(frame.clone()));
        assert_eq!(client_from_protobuf(&client_to_protobuf(&frame)), Ok(frame));
        let half = r#"{"type":"heartbeat","trace_context":{"trace_id":"t","more":1},"payload":{}}"#;
        let half = client_from_json(half).expect("a frame").trace_context.expect("a context");
        assert_eq!((half.trace_id.as_str(), half.span_id.as_str()), ("t", ""));
    }

    #[test]
    fn unreadable_client_frames_say_why() {
        let malformed = |text: &str| match client_from_json(text) {
            Err(Unread::Malformed { request_id, reason, .. }) => (request_id, reason),
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
        let wave = |request_id| Err(Unread::UnknownType { request_id, name: "wave".into() });
        assert_eq!(client_from_json(r#"{"type":"wave","payload":{}}"#), wave(None));
        assert_eq!(client_from_json(r#"{"type":"wave","request_id":"a"}"#), wave(Some("a".into())));
        for list in [r#"["heartbeat",null,null,{}]"#, r#"{"type":"heartbeat","payload":[[]]}"#] {
            assert!(malformed(list).1.contains("object"), "{list}");
        }
    }

    #[test]
    fn what_is_left_out_is_empty() {
        let send = |payload: &str| {
            client_from_json(&format!(r#"{{"type":"send_message","request_id":"r","payload":{payload}}}"#))
        };
        let empty = SendMessage { chat_id: "c".into(), ..SendMessage::default() };
        let frame =
            ClientFrame { request_id: "r".into(), trace_context: None, payload: Some(Request::SendMessage(empty)) };
        assert_eq!(send(r#"{"chat_id":"c"}"#), Ok(frame.clone()));
        assert_eq!(send(r#"{"chat_id":"c","client_message_id":"","content":""}"#), Ok(frame.clone()));
        assert_eq!(client_from_protobuf(&client_to_protobuf(&frame)), Ok(frame));
        for payload in ["{}", r#"{"chats":[]}"#] {
            assert!(client_from_json(&format!(r#"{{"type":"sync_heads","payload":{payload}}}"#)).is_ok());
        }
    }

    #[test]
    fn unreadable_frames_name_the_field() {
        let field = |unread| match unread {
            Err(Unread::Malformed { field, .. } | Unread::NotUtf8 { field, .. }) => field,
            other => panic!("{other:?}"),
        };
        let long = format!(r#"{{"type":"heartbeat","payload":{{"{}":{}"#, "x".repeat(60_000), "[".repeat(1000));
        for (text, expected) in [
            ("{", None),
            ("[]", None),
            (&*long, None),
            ("{}", Some("type")),
            (r#"{"type":7,"payload":{}}"#, Some("type")),
            (r#"{"type":"ack","type":"ack","payload":{}}"#, Some("type")),
            (r#"{"type":"ack","request_id":7,"payload":{}}"#, Some("request_id")),
            (r#"{"type":"ack"}"#, Some("payload")),
            (r#"{"type":"ack","payload":{"chat_id":"c"}}"#, Some("last_acked_sequence")),
            (r#"{"type":"ack","payload":{"chat_id":"c","last_acked_sequence":-1}}"#, Some("last_acked_sequence")),
            (r#"{"type":"ack","payload":{"chat_id":"c","chat_id":"c"}}"#, Some("chat_id")),
            (r#"{"type":"sync_heads","payload":{"chats":[{"chat_id":[]}]}}"#, Some("chat_id")),
            (r#"{"type":"sync_heads","payload":{"chats":7}}"#, Some("chats")),
        ] {
            assert_eq!(field(client_from_json(text)).as_deref(), expected, "{}", &text[..text.len().min(80)]);
        }
        for (bytes, expected) in [
            (&b""[..], Some("payload")),
            (b"\x0a\x01r\x52\x04\x1a\x02\xff\xfe", Some("content")),
            (b"\x0a\x01r\x5a\x02\x12\x00", Some("last_acked_sequence")),
            (b"\x0a\x02\xff\xfe", Some("request_id")),
            (b"\xff\xff\xff\xff\xff\xff\xff", None),
        ] {
            assert_eq!(field(client_from_protobuf(bytes)).as_deref(), expected, "{bytes:?}");
        }
    }

    #[test]
    fn unreadable_protobuf_frames_say_the_same() {
        let frame = |payload| ClientFrame { request_id: "r".into(), trace_context: None, payload: Some(payload) };
        let send = frame(Request::SendMessage(SendMessage { content: "hijk".into(), ..SendMessage::default() }));
        let ack = Ack { chat_id: "hijk".into(), ..Ack::default() };
        let spoil = |frame: &ClientFrame, by: &[u8; 4]| {
            let mut bytes = client_to_protobuf(frame);
            let at = bytes.windows(4).position(|part| part == b"hijk").expect("the text");
            bytes[at..at + 4].copy_from_slice(by);
            client_from_protobuf(&bytes)
        };
        let not_utf8 = [0xff, 0xfe, b'a', b'b'];
        let refused = |request_id, field: &str| Err(Unread::NotUtf8 { request_id, field: Some(field.into()) });
        assert_eq!(spoil(&send, &not_utf8), refused(Some("r".into()), "content"));
        assert_eq!(spoil(&frame(Request::Ack(ack)), &not_utf8), refused(None, "chat_id"), "one-way");

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
        let unknown = client_from_protobuf(b"\x0a\x01r\x9a\x06\x00");
        assert!(matches!(unknown, Err(Unread::UnknownType { request_id: Some(id), .. }) if id == "r"));
        let deep = [0x7b].repeat(1000);
        assert_eq!(malformed(&deep), None, "groups within groups");
    }
}
