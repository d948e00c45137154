//! Internal RPCs: who may call them (D6.6), and for how long the caller waits.

use std::time::Duration;

use aws_lc_rs::constant_time;
use tonic::{
    Request, Status,
    metadata::{MetadataMap, MetadataValue},
    service::Interceptor,
};

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

/// How long the caller waits from now on (`grpc-timeout`); `None` when it does not say.
pub fn time_left(metadata: &MetadataMap) -> Option<Duration> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    // At most 8 digits, so that no product overflows.
    let number: u64 = (number.len() <= 8).then(|| number.parse().ok())??;
    match unit {
        "H" => Some(Duration::from_secs(number * 3600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_read_as_it_was_set() {
        assert_eq!(time_left(&MetadataMap::new()), None);
        for millis in [1, 250, 4_999, 5_000, 3_600_000] {
            let mut request = Request::new(());
            request.set_timeout(Duration::from_millis(millis));
            assert_eq!(time_left(request.metadata()), Some(Duration::from_millis(millis)));
        }
        for nonsense in ["", "5", "S", "-5S", "123456789S", "5x"] {
            let mut metadata = MetadataMap::new();
            metadata.insert("grpc-timeout", nonsense.parse().expect("a value"));
            assert_eq!(time_left(&metadata), None, "{nonsense:?}");
        }
    }

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
