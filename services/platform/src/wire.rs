//! The only place where codes are chosen: each `ErrorKind` on gRPC, HTTP and WebSocket (D2.6).

use std::{borrow::Cow, collections::HashMap};

use domain::{Error, ErrorKind, error::Detail};
use http::StatusCode;
use serde_json::{Map, Value, json};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// `domain` of the `google.rpc.ErrorInfo` that our statuses carry.
const ERROR_DOMAIN: &str = "messaging.dev";

/// What one kind looks like on every wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Codes {
    /// gRPC status.
    pub grpc: Code,
    /// HTTP status.
    pub http: StatusCode,
    /// `error.code` of REST, and the reason in a gRPC status.
    pub rest: &'static str,
    /// `code` of a WebSocket `error` frame.
    pub frame: &'static str,
    /// WebSocket close code, should the connection end for it.
    pub close: u16,
}

/// The code of a failure as log lines and WebSocket frames have it.
pub fn code(error: &Error) -> &'static str {
    codes(error.kind()).frame
}

/// The codes of a kind.
pub fn codes(kind: ErrorKind) -> Codes {
    let row = |grpc, http, rest, frame, close| Codes { grpc, http, rest, frame, close };
    match kind {
        ErrorKind::BadRequest => {
            row(Code::InvalidArgument, StatusCode::BAD_REQUEST, "BAD_REQUEST", "INVALID_MESSAGE", 4000)
        }
        ErrorKind::InvalidArgument => {
            row(Code::InvalidArgument, StatusCode::BAD_REQUEST, "VALIDATION_ERROR", "INVALID_MESSAGE", 4000)
        }
        ErrorKind::InvalidOperation => {
            row(Code::FailedPrecondition, StatusCode::BAD_REQUEST, "INVALID_OPERATION", "FORBIDDEN", 4003)
        }
        ErrorKind::ChatFull => row(Code::FailedPrecondition, StatusCode::BAD_REQUEST, "CHAT_FULL", "FORBIDDEN", 4003),
        ErrorKind::MessageTooLarge => {
            row(Code::InvalidArgument, StatusCode::BAD_REQUEST, "MESSAGE_TOO_LARGE", "MESSAGE_TOO_LARGE", 4013)
        }
        ErrorKind::InvalidContentType => {
            row(Code::InvalidArgument, StatusCode::BAD_REQUEST, "INVALID_CONTENT_TYPE", "INVALID_CONTENT_TYPE", 4000)
        }
        ErrorKind::InvalidEncoding => {
            row(Code::InvalidArgument, StatusCode::BAD_REQUEST, "INVALID_ENCODING", "INVALID_ENCODING", 4000)
        }
        ErrorKind::InvalidContent => {
            row(Code::InvalidArgument, StatusCode::BAD_REQUEST, "INVALID_CONTENT", "INVALID_CONTENT", 4000)
        }
        ErrorKind::Unauthorized => {
            row(Code::Unauthenticated, StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "UNAUTHORIZED", 4001)
        }
        ErrorKind::InvalidOtp => {
            row(Code::Unauthenticated, StatusCode::UNAUTHORIZED, "INVALID_OTP", "UNAUTHORIZED", 4001)
        }
        ErrorKind::InvalidRefreshToken => {
            row(Code::Unauthenticated, StatusCode::UNAUTHORIZED, "INVALID_REFRESH_TOKEN", "UNAUTHORIZED", 4001)
        }
        ErrorKind::DeviceMismatch => {
            row(Code::Unauthenticated, StatusCode::UNAUTHORIZED, "DEVICE_MISMATCH", "UNAUTHORIZED", 4001)
        }
        ErrorKind::Forbidden => row(Code::PermissionDenied, StatusCode::FORBIDDEN, "FORBIDDEN", "FORBIDDEN", 4003),
        ErrorKind::NotAMember => {
            row(Code::PermissionDenied, StatusCode::FORBIDDEN, "NOT_A_MEMBER", "NOT_A_MEMBER", 4003)
        }
        ErrorKind::NotFound => row(Code::NotFound, StatusCode::NOT_FOUND, "NOT_FOUND", "NOT_FOUND", 4004),
        ErrorKind::UserNotFound => row(Code::NotFound, StatusCode::NOT_FOUND, "USER_NOT_FOUND", "NOT_FOUND", 4004),
        ErrorKind::Conflict => row(Code::Aborted, StatusCode::CONFLICT, "CONFLICT", "INVALID_MESSAGE", 4009),
        ErrorKind::AlreadyAMember => {
            row(Code::AlreadyExists, StatusCode::CONFLICT, "ALREADY_A_MEMBER", "INVALID_MESSAGE", 4009)
        }
        ErrorKind::IdempotencyKeyReused => {
            row(Code::AlreadyExists, StatusCode::CONFLICT, "IDEMPOTENCY_KEY_REUSED", "INVALID_MESSAGE", 4009)
        }
        ErrorKind::PayloadTooLarge => {
            row(Code::InvalidArgument, StatusCode::PAYLOAD_TOO_LARGE, "PAYLOAD_TOO_LARGE", "MESSAGE_TOO_LARGE", 1009)
        }
        ErrorKind::Unprocessable => row(
            Code::FailedPrecondition,
            StatusCode::UNPROCESSABLE_ENTITY,
            "UNPROCESSABLE_ENTITY",
            "INVALID_MESSAGE",
            4000,
        ),
        ErrorKind::InvalidSequence => {
            row(Code::OutOfRange, StatusCode::UNPROCESSABLE_ENTITY, "INVALID_SEQUENCE", "INVALID_MESSAGE", 4000)
        }
        ErrorKind::RateLimited => {
            row(Code::ResourceExhausted, StatusCode::TOO_MANY_REQUESTS, "RATE_LIMITED", "RATE_LIMITED", 4029)
        }
        ErrorKind::SlowConsumer => {
            row(Code::ResourceExhausted, StatusCode::TOO_MANY_REQUESTS, "SLOW_CONSUMER", "SLOW_CONSUMER", 1008)
        }
        ErrorKind::ServerBusy => {
            row(Code::ResourceExhausted, StatusCode::SERVICE_UNAVAILABLE, "SERVER_BUSY", "SERVER_BUSY", 1013)
        }
        ErrorKind::Unavailable => {
            row(Code::Unavailable, StatusCode::SERVICE_UNAVAILABLE, "SERVICE_UNAVAILABLE", "SERVICE_UNAVAILABLE", 1013)
        }
        ErrorKind::Internal => {
            row(Code::Internal, StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL_ERROR", "INTERNAL_ERROR", 1011)
        }
    }
}

/// The details of an error as the JSON object that REST and frames show; `None` when there are none.
pub fn details_json(error: &Error) -> Option<Map<String, Value>> {
    let mut object = Map::new();
    let mut fields = Vec::new();
    for detail in error.details() {
        match detail {
            Detail::Field(field, code, message) => {
                fields.push(json!({"field": field, "code": code, "message": message}));
            }
            Detail::RetryAfterSeconds(seconds) => {
                object.insert("retry_after_seconds".to_owned(), (*seconds).into());
            }
            Detail::Number(name, number) => {
                object.insert(name.clone().into_owned(), (*number).into());
            }
            Detail::Text(name, text) => {
                object.insert(name.clone().into_owned(), text.clone().into());
            }
        }
    }
    if !fields.is_empty() {
        object.insert("field_errors".to_owned(), fields.into());
    }
    if object.is_empty() { None } else { Some(object) }
}

/// An error as a gRPC status; the other side reads it with [`from_status`].
///
/// The source of the error stays behind: log it before.
pub fn to_status(error: &Error) -> Status {
    let codes = codes(error.kind());
    let mut metadata = HashMap::new();
    if let Some(details) = details_json(error) {
        metadata.insert("details".to_owned(), Value::Object(details).to_string());
    }
    let details = ErrorDetails::with_error_info(codes.rest, ERROR_DOMAIN, metadata);
    Status::with_error_details(codes.grpc, error.message(), details)
}

/// A gRPC status as an error. One that does not come from [`to_status`] is told by its code.
pub fn from_status(status: &Status) -> Error {
    let info = status.get_error_details().error_info().filter(|info| info.domain == ERROR_DOMAIN).cloned();
    let Some(info) = info else {
        return foreign(status);
    };
    let Some(kind) = ErrorKind::ALL.into_iter().find(|kind| codes(*kind).rest == info.reason) else {
        return foreign(status);
    };
    let error = Error::new(kind, status.message().to_owned());
    let details = info.metadata.get("details").and_then(|text| serde_json::from_str(text).ok());
    let Some(Value::Object(details)) = details else { return error };
    details.into_iter().fold(error, |error, (name, value)| match (name.as_str(), value) {
        ("field_errors", Value::Array(fields)) => fields.iter().fold(error, |error, field| {
            let text = |key: &str| Cow::Owned(field[key].as_str().unwrap_or_default().to_owned());
            error.with(Detail::Field(text("field"), text("code"), text("message")))
        }),
        ("retry_after_seconds", Value::Number(number)) => {
            let seconds = number.as_u64().and_then(|seconds| u32::try_from(seconds).ok());
            error.with(Detail::RetryAfterSeconds(seconds.unwrap_or(u32::MAX)))
        }
        (_, Value::Number(number)) => error.with(Detail::Number(name.into(), number.as_u64().unwrap_or_default())),
        (_, Value::String(text)) => error.with(Detail::Text(name.into(), text)),
        (_, Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_)) => error,
    })
}

/// A status of the transport itself: nobody answered, or not in our words.
fn foreign(status: &Status) -> Error {
    let kind = match status.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown | Code::Aborted => {
            ErrorKind::Unavailable
        }
        Code::ResourceExhausted => ErrorKind::ServerBusy,
        Code::Unauthenticated => ErrorKind::Unauthorized,
        Code::PermissionDenied => ErrorKind::Forbidden,
        Code::NotFound => ErrorKind::NotFound,
        Code::InvalidArgument => ErrorKind::InvalidArgument,
        Code::Ok
        | Code::AlreadyExists
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Internal
        | Code::DataLoss => ErrorKind::Internal,
    };
    let message = if kind == ErrorKind::Internal { "internal error" } else { "the service did not answer" };
    Error::new(kind, message).caused_by(status.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_agreed_codes() {
        use ErrorKind as K;
        let agreed = [
            (K::BadRequest, 3, 400, "BAD_REQUEST", "INVALID_MESSAGE", 4000, false),
            (K::InvalidArgument, 3, 400, "VALIDATION_ERROR", "INVALID_MESSAGE", 4000, false),
            (K::InvalidOperation, 9, 400, "INVALID_OPERATION", "FORBIDDEN", 4003, false),
            (K::ChatFull, 9, 400, "CHAT_FULL", "FORBIDDEN", 4003, false),
            (K::MessageTooLarge, 3, 400, "MESSAGE_TOO_LARGE", "MESSAGE_TOO_LARGE", 4013, false),
            (K::InvalidContentType, 3, 400, "INVALID_CONTENT_TYPE", "INVALID_CONTENT_TYPE", 4000, false),
            (K::InvalidEncoding, 3, 400, "INVALID_ENCODING", "INVALID_ENCODING", 4000, false),
            (K::InvalidContent, 3, 400, "INVALID_CONTENT", "INVALID_CONTENT", 4000, false),
            (K::Unauthorized, 16, 401, "UNAUTHORIZED", "UNAUTHORIZED", 4001, false),
            (K::InvalidOtp, 16, 401, "INVALID_OTP", "UNAUTHORIZED", 4001, false),
            (K::InvalidRefreshToken, 16, 401, "INVALID_REFRESH_TOKEN", "UNAUTHORIZED", 4001, false),
            (K::DeviceMismatch, 16, 401, "DEVICE_MISMATCH", "UNAUTHORIZED", 4001, false),
            (K::Forbidden, 7, 403, "FORBIDDEN", "FORBIDDEN", 4003, false),
            (K::NotAMember, 7, 403, "NOT_A_MEMBER", "NOT_A_MEMBER", 4003, false),
            (K::NotFound, 5, 404, "NOT_FOUND", "NOT_FOUND", 4004, false),
            (K::UserNotFound, 5, 404, "USER_NOT_FOUND", "NOT_FOUND", 4004, false),
            (K::Conflict, 10, 409, "CONFLICT", "INVALID_MESSAGE", 4009, false),
            (K::AlreadyAMember, 6, 409, "ALREADY_A_MEMBER", "INVALID_MESSAGE", 4009, false),
            (K::IdempotencyKeyReused, 6, 409, "IDEMPOTENCY_KEY_REUSED", "INVALID_MESSAGE", 4009, false),
            (K::PayloadTooLarge, 3, 413, "PAYLOAD_TOO_LARGE", "MESSAGE_TOO_LARGE", 1009, false),
            (K::Unprocessable, 9, 422, "UNPROCESSABLE_ENTITY", "INVALID_MESSAGE", 4000, false),
            (K::InvalidSequence, 11, 422, "INVALID_SEQUENCE", "INVALID_MESSAGE", 4000, false),
            (K::RateLimited, 8, 429, "RATE_LIMITED", "RATE_LIMITED", 4029, true),
            (K::SlowConsumer, 8, 429, "SLOW_CONSUMER", "SLOW_CONSUMER", 1008, false),
            (K::ServerBusy, 8, 503, "SERVER_BUSY", "SERVER_BUSY", 1013, true),
            (K::Unavailable, 14, 503, "SERVICE_UNAVAILABLE", "SERVICE_UNAVAILABLE", 1013, true),
            (K::Internal, 13, 500, "INTERNAL_ERROR", "INTERNAL_ERROR", 1011, false),
        ];
        assert_eq!(agreed.map(|row| row.0), K::ALL, "a kind has no row");
        for (kind, grpc, http, rest, frame, close, retry) in agreed {
            let c = codes(kind);
            let found = (c.grpc as i32, c.http.as_u16(), c.rest, c.frame, c.close, kind.is_retryable());
            assert_eq!(found, (grpc, http, rest, frame, close, retry), "{kind:?}");
        }
    }

    #[test]
    fn errors_cross_grpc_with_kind_message_and_details() {
        let error = Error::field("name", "REQUIRED", "a group needs a name")
            .with(Detail::RetryAfterSeconds(5))
            .with_number("limit", 60)
            .with_text("chat_id", "chat_x")
            .caused_by("secret cause");
        let status = to_status(&error);
        let back = from_status(&status);
        assert!(!format!("{status:?}").contains("secret"));
        assert_eq!(back.kind(), ErrorKind::InvalidArgument);
        assert_eq!(back.message(), "a group needs a name");
        assert_eq!(details_json(&back), details_json(&error));
        for kind in ErrorKind::ALL {
            assert_eq!(from_status(&to_status(&Error::new(kind, "x"))).kind(), kind);
        }
        assert_eq!(from_status(&Status::unavailable("no route")).kind(), ErrorKind::Unavailable);
    }
}
