//! Why a store did not do something to a table.

use aws_sdk_dynamodb::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};

/// Why a store did not do something to a table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It does not answer.
    #[error("DynamoDB did not answer: {why}")]
    Unreachable {
        /// What the client knows.
        why: String,
    },
    /// The credentials are not taken, or there are none.
    #[error("DynamoDB does not take these credentials: {why}")]
    AuthenticationFailed {
        /// The store's words.
        why: String,
    },
    /// The credentials are good, but not for this.
    #[error("DynamoDB does not allow it: {why}")]
    AccessDenied {
        /// The store's words.
        why: String,
    },
    /// Too many calls; later.
    #[error("DynamoDB asks for fewer calls: {why}")]
    Throttled {
        /// The store's words.
        why: String,
    },
    /// Too much is under way in this account, or it has too many tables; later.
    #[error("a limit of DynamoDB is reached: {why}")]
    LimitExceeded {
        /// The store's words.
        why: String,
    },
    /// The table is being changed; later.
    #[error("the table is in use: {why}")]
    InUse {
        /// The store's words.
        why: String,
    },
    /// This can be changed again only after a while.
    #[error("the table's TTL was changed less than an hour ago: {why}")]
    CoolingDown {
        /// The store's words.
        why: String,
    },
    /// There is no such table.
    #[error("there is no such table")]
    NotFound,
    /// The store never will, as it stands.
    #[error("DynamoDB refused: {why}")]
    Refused {
        /// The store's words.
        why: String,
    },
    /// This store has no such thing.
    #[error("this store can't: {why}")]
    Unsupported {
        /// The store's words.
        why: String,
    },
    /// Anything else; worth another try.
    #[error("DynamoDB failed: {why}")]
    Failed {
        /// The store's words.
        why: String,
    },
}

impl Error {
    /// Takes it that a store which can't be asked about something has nothing of it.
    pub(super) fn or_unsupported<T>(self) -> Result<Option<T>, Self> {
        if matches!(self, Self::Unsupported { .. }) { Ok(None) } else { Err(self) }
    }

    fn of_service(code: &str, why: String) -> Self {
        match code {
            "AccessDeniedException" => Self::AccessDenied { why },
            "ExpiredTokenException"
            | "IncompleteSignatureException"
            | "InvalidClientTokenId"
            | "InvalidSignatureException"
            | "MissingAuthenticationTokenException"
            | "UnrecognizedClientException" => Self::AuthenticationFailed { why },
            "ThrottlingException" | "RequestLimitExceeded" | "ProvisionedThroughputExceededException" => {
                Self::Throttled { why }
            }
            "LimitExceededException" => Self::LimitExceeded { why },
            // Backups of a table that was just made can't be turned on yet.
            "ResourceInUseException" | "ContinuousBackupsUnavailableException" => Self::InUse { why },
            "ResourceNotFoundException" | "TableNotFoundException" => Self::NotFound,
            "UnknownOperationException" => Self::Unsupported { why },
            "ValidationException" if why.contains("Time to live has been modified multiple times") => {
                Self::CoolingDown { why }
            }
            "ValidationException" if why.contains("not supported") => Self::Unsupported { why },
            "ValidationException" => Self::Refused { why },
            "ServiceUnavailable" | "ServiceUnavailableException" => Self::Unreachable { why },
            _ => Self::Failed { why: format!("{code}: {why}") },
        }
    }
}

impl<E> From<SdkError<E>> for Error
where
    E: std::error::Error + ProvideErrorMetadata + 'static,
{
    fn from(error: SdkError<E>) -> Self {
        if let SdkError::ServiceError(service) = &error {
            let code = service.err().code().unwrap_or_default().to_owned();
            let why = service.err().message().unwrap_or_default().to_owned();
            return Self::of_service(&code, why);
        }
        let why = DisplayErrorContext(&error).to_string();
        let lower = why.to_lowercase();
        let is_identity = lower.contains("credential") || lower.contains("identity");
        let is_construction = matches!(error, SdkError::ConstructionFailure(_));
        let why = short(&why);
        if is_identity && (is_construction || matches!(error, SdkError::DispatchFailure(_))) {
            Self::AuthenticationFailed { why }
        } else if is_construction {
            Self::Refused { why }
        } else {
            Self::Unreachable { why }
        }
    }
}

/// The words for people; after them the client prints its own state.
fn short(why: &str) -> String {
    why.split(" (").next().unwrap_or(why).chars().take(400).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_the_store_have_their_meaning() {
        let of = |code: &str, why: &str| Error::of_service(code, why.to_owned());
        let again = "Time to live has been modified multiple times within a fixed interval";
        assert!(matches!(of("ValidationException", again), Error::CoolingDown { .. }));
        assert!(matches!(
            of("ValidationException", "One or more parameter values were invalid"),
            Error::Refused { .. }
        ));
        assert!(matches!(of("UnknownOperationException", ""), Error::Unsupported { .. }));
        assert!(matches!(of("LimitExceededException", "500 simultaneous"), Error::LimitExceeded { .. }));
        assert!(matches!(of("ResourceInUseException", ""), Error::InUse { .. }));
        assert!(matches!(of("AccessDeniedException", ""), Error::AccessDenied { .. }));
        assert!(matches!(of("UnrecognizedClientException", ""), Error::AuthenticationFailed { .. }));
        assert!(matches!(of("ResourceNotFoundException", ""), Error::NotFound));
        assert!(matches!(of("InternalServerError", ""), Error::Failed { .. }));
    }
}
