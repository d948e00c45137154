//! What a client does about each documented error code (websocket-protocol §6, EH-01).

use std::time::Duration;

use proto::messaging::v1::ErrorFrame;

/// What follows from an error that answers a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The same again, with the same `client_message_id`, after this long or the usual backoff.
    Again(Option<Duration>),
    /// The same again, but not for ever.
    AgainAFewTimes,
    /// New tokens, a new connection, then the same again.
    Refresh,
    /// A new connection and a sync.
    Reconnect,
    /// Never again; nothing was stored.
    Refused,
    /// Never again; and the chat is gone for this user.
    ChatGone,
}

/// What follows from this error. An unknown code counts as final (§12).
pub(super) fn verdict(error: &ErrorFrame) -> Verdict {
    let wait = error.details.as_ref().and_then(|details| details.retry_after_seconds);
    let wait = wait.map(|seconds| Duration::from_secs(seconds.into()));
    match error.code.as_str() {
        "RATE_LIMITED" | "SERVER_BUSY" | "SERVICE_UNAVAILABLE" => Verdict::Again(wait),
        "INTERNAL_ERROR" => Verdict::AgainAFewTimes,
        "UNAUTHORIZED" => Verdict::Refresh,
        "SLOW_CONSUMER" => Verdict::Reconnect,
        "NOT_A_MEMBER" | "NOT_FOUND" => Verdict::ChatGone,
        // INVALID_MESSAGE, FORBIDDEN, MESSAGE_TOO_LARGE, INVALID_CONTENT_TYPE, INVALID_ENCODING, INVALID_CONTENT.
        _ => Verdict::Refused,
    }
}

#[cfg(test)]
mod tests {
    use proto::messaging::v1::ErrorDetails;

    use super::*;

    #[test]
    fn every_documented_code_has_its_reaction() {
        let five = Some(Duration::from_secs(5));
        let cases = [
            ("INVALID_MESSAGE", Verdict::Refused),
            ("UNAUTHORIZED", Verdict::Refresh),
            ("FORBIDDEN", Verdict::Refused),
            ("NOT_A_MEMBER", Verdict::ChatGone),
            ("NOT_FOUND", Verdict::ChatGone),
            ("MESSAGE_TOO_LARGE", Verdict::Refused),
            ("INVALID_CONTENT_TYPE", Verdict::Refused),
            ("RATE_LIMITED", Verdict::Again(five)),
            ("SLOW_CONSUMER", Verdict::Reconnect),
            ("SERVER_BUSY", Verdict::Again(five)),
            ("INTERNAL_ERROR", Verdict::AgainAFewTimes),
            ("SERVICE_UNAVAILABLE", Verdict::Again(five)),
            ("INVALID_ENCODING", Verdict::Refused),
            ("INVALID_CONTENT", Verdict::Refused),
            ("A_CODE_OF_NEXT_YEAR", Verdict::Refused),
        ];
        for (code, expected) in cases {
            let details = Some(ErrorDetails { retry_after_seconds: Some(5), ..ErrorDetails::default() });
            let error = ErrorFrame { code: code.into(), message: String::new(), details };
            assert_eq!(verdict(&error), expected, "{code}");
        }
    }
}
