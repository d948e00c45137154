//! Logging in at Kafka as the role that AWS gave to this process: a signed request for `kafka-cluster:Connect`,
//! good for 15 minutes, is the token that the brokers check.

use std::{error::Error, sync::Arc, time::Duration};

use anyhow::Context as _;
use aws_lc_rs::{digest, hmac};
use aws_sdk_dynamodb::config::{
    BehaviorVersion, Credentials, ProvideCredentials as _, Region, SharedCredentialsProvider,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use domain::{Clock, Millis};
use rdkafka::client::OAuthToken;
use tokio::{runtime::Handle, sync::OnceCell};

/// How long a token is good.
const LIFETIME: Duration = Duration::from_mins(15);
/// How long the credentials may take.
const WITHIN: Duration = Duration::from_secs(10);
/// What brokers call the service in signatures.
const SERVICE: &str = "kafka-cluster";

/// Makes tokens for the brokers of a region. It is asked on the library's threads, which wait.
pub struct Tokens {
    region: String,
    clock: Arc<dyn Clock>,
    runtime: Handle,
    credentials: OnceCell<SharedCredentialsProvider>,
}

impl Tokens {
    /// For the brokers of that region; to be called on a runtime, which must outlive it.
    pub fn new(region: impl Into<String>, clock: Arc<dyn Clock>) -> Self {
        Self { region: region.into(), clock, runtime: Handle::current(), credentials: OnceCell::new() }
    }

    /// A token by the credentials of this moment.
    ///
    /// # Errors
    /// When AWS gives no credentials in time.
    pub fn make(&self) -> Result<OAuthToken, Box<dyn Error>> {
        let credentials = self.runtime.block_on(async { tokio::time::timeout(WITHIN, self.find()).await });
        let credentials = credentials.context("AWS gave no credentials in time")??;
        Ok(token(&self.region, &credentials, self.clock.now()))
    }

    async fn find(&self) -> anyhow::Result<Credentials> {
        let load = || async {
            let region = Region::new(self.region.clone());
            let config = aws_config::defaults(BehaviorVersion::latest()).region(region).load().await;
            config.credentials_provider().context("there is no way to credentials of AWS")
        };
        let provider = self.credentials.get_or_try_init(load).await?;
        provider.provide_credentials().await.context("AWS gave no credentials")
    }
}

/// A token for a client that may need one.
///
/// # Errors
/// When it needs none, or none can be had; the latter is logged, for the library only tries again.
pub(super) fn make(tokens: Option<&Tokens>) -> Result<OAuthToken, Box<dyn Error>> {
    let tokens = tokens.ok_or("this client logs in otherwise")?;
    tokens
        .make()
        .inspect_err(|error| tracing::warn!(event = "log.no_token", error.message = %error, "no token for the log"))
}

/// The region in a broker's name, for example of `b-1.kafka.eu-west-1.amazonaws.com:9098`.
pub fn region_of(brokers: &str) -> Option<&str> {
    brokers.split(',').find_map(|broker| {
        let (before, _) = broker.split_once(".amazonaws.com")?;
        before.rsplit('.').next()
    })
}

/// The token: a request with its signature in the query, in base64.
fn token(region: &str, credentials: &Credentials, now: Millis) -> OAuthToken {
    // `2026-03-14T09:26:53.918Z` is `20260314T092653Z` here.
    let time: String = proto::time::to_iso(now.0).chars().filter(char::is_ascii_alphanumeric).collect();
    let (date, time) = (&time[..8], format!("{}Z", &time[..15]));
    let host = format!("kafka.{region}.amazonaws.com");
    let scope = format!("{date}/{region}/{SERVICE}/aws4_request");
    let mut query = format!(
        "Action=kafka-cluster%3AConnect&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={}&X-Amz-Date={time}\
         &X-Amz-Expires={}",
        escaped(&format!("{}/{scope}", credentials.access_key_id())),
        LIFETIME.as_secs(),
    );
    // The names are in the order of the alphabet, as the signature wants them.
    if let Some(session) = credentials.session_token() {
        query.push_str("&X-Amz-Security-Token=");
        query.push_str(&escaped(session));
    }
    query.push_str("&X-Amz-SignedHeaders=host");
    let nothing = hex(digest::digest(&digest::SHA256, b"").as_ref());
    let request = format!("GET\n/\n{query}\nhost:{host}\n\nhost\n{nothing}");
    let request = hex(digest::digest(&digest::SHA256, request.as_bytes()).as_ref());
    let to_sign = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{request}");
    let first = format!("AWS4{}", credentials.secret_access_key()).into_bytes();
    let key = [date, region, SERVICE, "aws4_request"].iter().fold(first, |key, part| mac(&key, part));
    let signature = hex(&mac(&key, &to_sign));
    let url = format!("https://{host}/?{query}&X-Amz-Signature={signature}&User-Agent=messaging");
    OAuthToken {
        token: URL_SAFE_NO_PAD.encode(url),
        principal_name: credentials.access_key_id().to_owned(),
        lifetime_ms: (now + LIFETIME).0,
    }
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|byte| digits(*byte)).collect()
}

fn escaped(text: &str) -> String {
    text.bytes().fold(String::new(), |mut escaped, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push('%');
            escaped.extend(digits(byte).map(|digit| digit.to_ascii_uppercase()));
        }
        escaped
    })
}

fn digits(byte: u8) -> [char; 2] {
    [byte >> 4, byte & 15].map(|digit| char::from_digit(digit.into(), 16).unwrap_or('0'))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// 2026-11-21 12:00:00 UTC.
    const NOON: Millis = Millis(1_795_262_400_000);

    fn parts(url: &str) -> (String, BTreeSet<String>) {
        let (address, query) = url.split_once('?').expect("a query");
        let parts = query.split('&').filter(|part| !part.starts_with("User-Agent=")).map(str::to_owned);
        (address.to_owned(), parts.collect())
    }

    fn made(session: Option<&str>) -> (OAuthToken, String) {
        let secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
        let credentials = Credentials::new("AKIDEXAMPLE", secret, session.map(str::to_owned), None, "test");
        let token = token("eu-west-1", &credentials, NOON);
        let url = String::from_utf8(URL_SAFE_NO_PAD.decode(&token.token).expect("base64")).expect("text");
        (token, url)
    }

    #[test]
    fn a_token_is_the_one_that_the_signer_of_aws_makes() {
        // Both were made by aws-msk-iam-sasl-signer-python 1.0.2, with these credentials at this time.
        let start = "https://kafka.eu-west-1.amazonaws.com/?Action=kafka-cluster%3AConnect\
                     &X-Amz-Algorithm=AWS4-HMAC-SHA256\
                     &X-Amz-Credential=AKIDEXAMPLE%2F20261121%2Feu-west-1%2Fkafka-cluster%2Faws4_request\
                     &X-Amz-Date=20261121T120000Z&X-Amz-Expires=900&X-Amz-SignedHeaders=host";
        let cases = [
            (None, "&X-Amz-Signature=7abae885f793e8066ac521552b8f8af889039c68c85b4271db0ec70c3c72c35f"),
            (
                Some("session/token+with=signs"),
                "&X-Amz-Security-Token=session%2Ftoken%2Bwith%3Dsigns\
                 &X-Amz-Signature=e055e1bd31bccb1d5671d8504a80a431071724d2726702ac5d6ee14319f2eea3",
            ),
        ];
        for (session, end) in cases {
            let (token, url) = made(session);
            assert_eq!(parts(&url), parts(&format!("{start}{end}")));
            assert_eq!(token.lifetime_ms, 1_795_263_300_000);
        }
    }

    #[test]
    fn the_region_stands_in_the_brokers_names() {
        let serverless = "boot-abc.c1.kafka-serverless.eu-west-1.amazonaws.com:9098";
        assert_eq!(region_of(serverless), Some("eu-west-1"));
        assert_eq!(region_of("b-1.x.c2.kafka.us-east-2.amazonaws.com:9098,b-2.y:9098"), Some("us-east-2"));
        assert_eq!(region_of("kafka.backends:9092"), None);
    }
}
