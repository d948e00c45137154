//! JSON to protobuf and back by descriptor: `snake_case`, 64-bit integers as numbers, times as ISO 8601 (D2.8).
//!
//! Never the canonical mapping of protobuf: see `show` and `read` for the rules.

use std::borrow::Cow;

use domain::{Error, ErrorKind, error::Detail};
use prost_reflect::{
    DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage as _, Value,
};
use serde::{Serialize, Serializer, ser::SerializeMap as _};
use serde_json::Value as Json;

/// The message that is shown as one ISO 8601 text.
const TIMESTAMP: &str = "messaging.v1.Timestamp";

/// Fields that only some operations have: left out when unset. Every other unset field is shown as null.
const LEFT_OUT: [(&str, &str); 4] = [
    ("messaging.v1.Chat", "current_sequence"),
    ("messaging.v1.Chat", "my_membership"),
    ("messaging.v1.HistoryItem", "client_message_id"),
    ("messaging.v1.MyMembership", "last_acked_sequence"),
];

/// A message as JSON, its fields in the order of the proto.
///
/// Unset optional scalars and messages are null, repeated fields always stand there, enums are lower-case
/// short names, and null when unspecified.
pub(super) struct Shown<'a>(pub(super) &'a DynamicMessage);

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let message = self.0;
        let descriptor = message.descriptor();
        if descriptor.full_name() == TIMESTAMP {
            return to.serialize_str(&proto::time::to_iso(millis(message)));
        }
        let mut map = to.serialize_map(None)?;
        for field in descriptor.fields() {
            let is_unset = field.supports_presence() && !message.has_field(&field);
            if !is_unset {
                map.serialize_entry(field.name(), &ShownField(&message.get_field(&field), &field.kind()))?;
            } else if !LEFT_OUT.contains(&(descriptor.full_name(), field.name())) {
                map.serialize_entry(field.name(), &())?;
            }
        }
        map.end()
    }
}

struct ShownField<'a>(&'a Value, &'a Kind);

impl Serialize for ShownField<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Bool(value) => to.serialize_bool(*value),
            Value::I32(value) => to.serialize_i32(*value),
            Value::I64(value) => to.serialize_i64(*value),
            Value::U32(value) => to.serialize_u32(*value),
            Value::U64(value) => to.serialize_u64(*value),
            Value::F32(value) => to.serialize_f32(*value),
            Value::F64(value) => to.serialize_f64(*value),
            Value::String(value) => to.serialize_str(value),
            Value::Message(value) => Shown(value).serialize(to),
            Value::List(values) => to.collect_seq(values.iter().map(|value| ShownField(value, self.1))),
            Value::EnumNumber(number) => match self.1.as_enum().and_then(|of| short_name(of, *number)) {
                Some(name) => to.serialize_str(&name),
                None => to.serialize_none(),
            },
            Value::Bytes(_) | Value::Map(_) => {
                Err(serde::ser::Error::custom("no response has bytes or maps: they have no agreed JSON form"))
            }
        }
    }
}

/// `CHAT_TYPE_DIRECT` as `direct`; `None` for the unspecified value and for numbers that nobody knows.
fn short_name(of: &EnumDescriptor, number: i32) -> Option<String> {
    let value = of.get_value(number).filter(|_| number != 0)?;
    Some(value.name().strip_prefix(&prefix(of)).unwrap_or(value.name()).to_ascii_lowercase())
}

/// What the names of an enum's values begin with, by its zero value.
fn prefix(of: &EnumDescriptor) -> String {
    of.default_value().name().trim_end_matches("UNSPECIFIED").to_owned()
}

fn millis(timestamp: &DynamicMessage) -> i64 {
    timestamp.get_field_by_name("millis").and_then(|millis| millis.as_i64()).unwrap_or(0)
}

/// Reads a JSON body into a message. Unknown members are ignored, null is the same as absent.
///
/// # Errors
/// `BadRequest` when the text is not one JSON object; `InvalidArgument` with each field of a wrong type.
pub(super) fn read_body(of: &MessageDescriptor, body: &[u8]) -> Result<DynamicMessage, Error> {
    let refuse = |message: &'static str| Error::new(ErrorKind::BadRequest, message);
    let json: Json = serde_json::from_slice(body).map_err(|cause| refuse("the body is not JSON").caused_by(cause))?;
    let Json::Object(_) = json else { return Err(refuse("the body is not a JSON object")) };
    let mut faults = Vec::new();
    let message = message(of, &json, "", &mut faults);
    finish(message, faults)
}

/// Reads fields that stand as text in a query or a path. Unknown names are ignored.
///
/// # Errors
/// `InvalidArgument` with each field of a wrong type.
pub(super) fn read_texts<'a>(
    mut message: DynamicMessage,
    texts: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<DynamicMessage, Error> {
    let mut faults = Vec::new();
    for (name, text) in texts {
        let Some(field) = message.descriptor().get_field_by_name(name) else { continue };
        let is_text = matches!(field.kind(), Kind::String | Kind::Enum(_) | Kind::Message(_));
        let parsed = if is_text { None } else { serde_json::from_str(text).ok() };
        let json = parsed.unwrap_or_else(|| Json::from(text));
        let Some(value) = scalar(&field.kind(), &json, name, &mut faults) else { continue };
        if field.is_list() {
            if let Some(values) = message.get_field_mut(&field).as_list_mut() {
                values.push(value);
            }
        } else {
            message.set_field(&field, value);
        }
    }
    finish(message, faults)
}

fn finish(message: DynamicMessage, faults: Vec<Detail>) -> Result<DynamicMessage, Error> {
    if faults.is_empty() {
        return Ok(message);
    }
    let error = Error::new(ErrorKind::InvalidArgument, "fields have the wrong type");
    Err(faults.into_iter().fold(error, Error::with))
}

fn message(of: &MessageDescriptor, json: &Json, path: &str, faults: &mut Vec<Detail>) -> DynamicMessage {
    let mut message = DynamicMessage::new(of.clone());
    for field in of.fields() {
        let json = &json[field.name()];
        if json.is_null() {
            continue;
        }
        let path = if path.is_empty() { field.name().to_owned() } else { format!("{path}.{}", field.name()) };
        if let Some(value) = value(&field, json, &path, faults) {
            message.set_field(&field, value);
        }
    }
    message
}

fn value(field: &FieldDescriptor, json: &Json, path: &str, faults: &mut Vec<Detail>) -> Option<Value> {
    if !field.is_list() {
        return scalar(&field.kind(), json, path, faults);
    }
    let Json::Array(items) = json else {
        faults.push(fault(path, "INVALID_TYPE", "must be an array"));
        return None;
    };
    let mut values = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        values.extend(scalar(&field.kind(), item, &format!("{path}[{index}]"), faults));
    }
    Some(Value::List(values))
}

fn scalar(kind: &Kind, json: &Json, path: &str, faults: &mut Vec<Detail>) -> Option<Value> {
    let (value, wanted) = match kind {
        Kind::String => (json.as_str().map(|text| Value::String(text.to_owned())), "must be a text"),
        Kind::Bool => (json.as_bool().map(Value::Bool), "must be true or false"),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => {
            (json.as_i64().and_then(|n| i32::try_from(n).ok()).map(Value::I32), "must be an integer")
        }
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => (json.as_i64().map(Value::I64), "must be an integer"),
        Kind::Uint32 | Kind::Fixed32 => {
            (json.as_u64().and_then(|n| u32::try_from(n).ok()).map(Value::U32), "must be an integer from 0")
        }
        Kind::Uint64 | Kind::Fixed64 => (json.as_u64().map(Value::U64), "must be an integer from 0"),
        Kind::Float | Kind::Double | Kind::Bytes => (None, "has no JSON form"),
        Kind::Enum(of) => (json.as_str().and_then(|name| number(of, name)).map(Value::EnumNumber), "is not known"),
        Kind::Message(of) if of.full_name() == TIMESTAMP => {
            let at = json.as_str().and_then(proto::time::from_iso).map(|millis| {
                let mut timestamp = DynamicMessage::new(of.clone());
                timestamp.set_field_by_name("millis", Value::I64(millis));
                Value::Message(timestamp)
            });
            (at, "must be a time such as 2026-03-14T09:26:53.918Z")
        }
        Kind::Message(of) => {
            let nested = json.is_object().then(|| Value::Message(message(of, json, path, faults)));
            (nested, "must be an object")
        }
    };
    if value.is_none() {
        let code = if matches!(kind, Kind::Enum(_)) && json.is_string() { "INVALID" } else { "INVALID_TYPE" };
        faults.push(fault(path, code, wanted));
    }
    value
}

/// `direct` as `CHAT_TYPE_DIRECT`; the unspecified value can't be named.
fn number(of: &EnumDescriptor, name: &str) -> Option<i32> {
    if name.bytes().any(|b| b.is_ascii_uppercase()) {
        return None;
    }
    let value = of.get_value_by_name(&format!("{}{}", prefix(of), name.to_ascii_uppercase()))?;
    Some(value.number()).filter(|number| *number != 0)
}

fn fault(path: &str, code: &'static str, message: &'static str) -> Detail {
    Detail::Field(Cow::Owned(path.to_owned()), code.into(), message.into())
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use prost_reflect::DescriptorPool;
    use proto::messaging::v1 as pb;
    use serde_json::json;

    use super::*;

    fn descriptor(name: &str) -> MessageDescriptor {
        let pool = DescriptorPool::decode(proto::DESCRIPTORS).expect("descriptors");
        pool.get_message_by_name(&format!("messaging.v1.{name}")).expect(name)
    }

    fn shown(name: &str, message: &impl prost::Message) -> Json {
        let bytes = message.encode_to_vec();
        let dynamic = DynamicMessage::decode(descriptor(name), bytes.as_slice()).expect("decodable");
        serde_json::to_value(Shown(&dynamic)).expect("shown")
    }

    #[test]
    fn unset_fields_are_null_or_left_out_and_enums_are_short() {
        let at = Some(pb::Timestamp { millis: 1_772_694_000_000 });
        let chat = pb::Chat {
            chat_id: "chat_x".to_owned(),
            r#type: pb::ChatType::Direct.into(),
            created_by: "user_a".to_owned(),
            created_at: at,
            updated_at: at,
            members: vec![pb::Member { user_id: "user_a".to_owned(), ..pb::Member::default() }],
            member_count: 2,
            ..pb::Chat::default()
        };
        let golden = json!({
            "chat_id": "chat_x", "type": "direct", "name": null, "created_by": "user_a",
            "created_at": "2026-03-05T07:00:00.000Z", "updated_at": "2026-03-05T07:00:00.000Z",
            "members": [{"user_id": "user_a", "role": null, "display_name": null, "joined_at": null}],
            "member_count": 2,
        });
        assert_eq!(shown("Chat", &chat), golden);
        let text = {
            let bytes = chat.encode_to_vec();
            let dynamic = DynamicMessage::decode(descriptor("Chat"), bytes.as_slice()).expect("decodable");
            serde_json::to_string(&Shown(&dynamic)).expect("shown")
        };
        assert!(text.starts_with(r#"{"chat_id":"chat_x","type":"direct","name":null"#), "{text}");
    }

    #[test]
    fn zeros_and_large_numbers_are_numbers() {
        let chat = pb::Chat { current_sequence: Some(9_007_199_254_740_991), ..pb::Chat::default() };
        assert_eq!(shown("Chat", &chat)["current_sequence"], json!(9_007_199_254_740_991_u64));
        let empty = pb::Chat { current_sequence: Some(0), ..pb::Chat::default() };
        assert_eq!(shown("Chat", &empty)["current_sequence"], json!(0));
        assert_eq!(shown("Chat", &empty)["members"], json!([]));
    }

    #[test]
    fn a_body_becomes_a_message_and_unknown_members_are_ignored() {
        let body = br#"{"type":"group","name":"Sunday hike","member_ids":["user_b"],"extra":[1]}"#;
        let read = read_body(&descriptor("CreateChatRequest"), body).expect("valid");
        let read: pb::CreateChatRequest = read.transcode_to().expect("same message");
        assert_eq!(read.r#type(), pb::ChatType::Group);
        assert_eq!(read.name.as_deref(), Some("Sunday hike"));
        assert_eq!(read.member_ids, ["user_b"]);
    }

    #[test]
    fn wrong_types_are_named_by_field() {
        let body = br#"{"type":"GROUP","name":7,"member_ids":["user_b",3]}"#;
        let error = read_body(&descriptor("CreateChatRequest"), body).expect_err("wrong");
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        let fields = platform::wire::details_json(&error).expect("details")["field_errors"].clone();
        let names: Vec<_> =
            fields.as_array().expect("array").iter().map(|f| (f["field"].clone(), f["code"].clone())).collect();
        let golden = [("type", "INVALID"), ("name", "INVALID_TYPE"), ("member_ids[1]", "INVALID_TYPE")];
        assert_eq!(names, golden.map(|(field, code)| (json!(field), json!(code))));
    }

    #[test]
    fn what_is_not_a_json_object_is_a_bad_request() {
        for body in [&b"{"[..], b"[]", b"7", b"{} {}", b"\xff"] {
            let error = read_body(&descriptor("CreateChatRequest"), body).expect_err("not an object");
            assert_eq!(error.kind(), ErrorKind::BadRequest, "{body:?}");
        }
    }

    #[test]
    fn texts_of_a_query_become_fields_of_their_type() {
        let empty = || DynamicMessage::new(descriptor("ListMessagesRequest"));
        let texts = [("chat_id", "12"), ("limit", "20"), ("before_sequence", "9007199254740991"), ("other", "x")];
        let read: pb::ListMessagesRequest =
            read_texts(empty(), texts).expect("valid").transcode_to().expect("same message");
        assert_eq!(
            (read.chat_id.as_str(), read.limit, read.before_sequence),
            ("12", Some(20), Some(9_007_199_254_740_991))
        );
        for bad in ["-1", "x", "1.5", "4294967296", ""] {
            let error = read_texts(empty(), [("limit", bad)]).expect_err("wrong");
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{bad}");
        }
    }
}
