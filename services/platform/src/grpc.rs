//! Internal RPCs: who may call them (D6.6).

use aws_lc_rs::constant_time;
use tonic::{Request, Status, metadata::MetadataValue, service::Interceptor};

use crate::secret::Secret;

/// The metadata key under which the token travels.
const KEY: &str = "x-internal-token";

/// The token that services show each other; without it anyone in the network could name any sender.
#[derive(Clone, Debug)]
pub struct InternalToken(Secret);

impl InternalToken {
    /// Wraps the token.
    ///
    /// # Errors
    /// When it is empty or has characters that a header can't carry.
    pub fn new(token: &Secret) -> anyhow::Result<Self> {
        let trimmed = token.expose().trim();
        anyhow::ensure!(!trimmed.is_empty(), "the internal token is empty");
        anyhow::ensure!(
            MetadataValue::try_from(trimmed).is_ok(),
            "the internal token has characters that a header can't carry"
        );
        Ok(Self(Secret::new(trimmed)))
    }

    /// For clients: shows the token with each call.
    pub fn attach(&self) -> impl Interceptor + Clone + Send + Sync + 'static {
        let value = MetadataValue::try_from(self.0.expose()).ok();
        move |mut request: Request<()>| {
            if let Some(value) = value.clone() {
                request.metadata_mut().insert(KEY, value);
            }
            Ok(request)
        }
    }

    /// For servers: refuses calls without it.
    pub fn require(&self) -> impl Interceptor + Clone + Send + Sync + 'static {
        let expected = self.0.clone();
        move |request: Request<()>| {
            let shown = request.metadata().get(KEY).map_or(&[][..], |value| value.as_encoded_bytes());
            match constant_time::verify_slices_are_equal(shown, expected.expose().as_bytes()) {
                Ok(()) => Ok(request),
                Err(_) => Err(Status::unauthenticated("internal token missing or wrong")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_token_passes() {
        let token = InternalToken::new(&Secret::new("s3cret\n")).expect("valid");
        let other = InternalToken::new(&Secret::new("other")).expect("valid");
        let shown = |by: &InternalToken| by.attach().call(Request::new(())).expect("attached");
        assert!(token.require().call(shown(&token)).is_ok());
        assert!(token.require().call(shown(&other)).is_err());
        assert!(token.require().call(Request::new(())).is_err());
        assert!(InternalToken::new(&Secret::new(" \n")).is_err());
    }
}
