//! Tokens: how they are made, and made again for a refresh that lost a race (D6.3).

use std::time::Duration;

use aws_lc_rs::{digest, hmac};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use domain::{
    Error, Ids, Millis,
    ids::{SessionId, UserId},
    session::{TokenHash, TokenPair},
};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use platform::tokens::{AUDIENCE, Claims, ISSUER};
use ulid::Ulid;

use crate::{caller::SCOPE, secrets::Secrets};

/// Makes tokens.
pub(super) struct Minter {
    key_id: String,
    key: EncodingKey,
    algorithm: Algorithm,
    refresh_key: hmac::Key,
    lifetime: Duration,
}

/// A refresh token as the client has it: 43 characters, base64url of 32 bytes.
pub(super) struct RefreshToken([u8; 32]);

impl RefreshToken {
    /// A first one.
    pub(super) fn draw(ids: &dyn Ids) -> Self {
        let mut bytes = [0; 32];
        ids.fill(&mut bytes);
        Self(bytes)
    }

    /// Reads the text form; `None` when it is not one.
    pub(super) fn read(text: &str) -> Option<Self> {
        URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok().map(Self)
    }

    /// The text form.
    pub(super) fn text(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }

    /// What is kept of it: SHA-256 of its text form.
    pub(super) fn hash(&self) -> TokenHash {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, self.text().as_bytes()).as_ref());
        TokenHash(hash)
    }
}

impl Minter {
    pub(super) fn new(secrets: &Secrets, lifetime: Duration) -> Self {
        Self {
            key_id: secrets.signing_key_id.clone(),
            key: secrets.signing_key.clone(),
            algorithm: secrets.signing_algorithm,
            refresh_key: hmac::Key::new(hmac::HMAC_SHA256, secrets.refresh_key.expose().as_bytes()),
            lifetime,
        }
    }

    /// How long an access token lives.
    pub(super) fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// The refresh token that follows the presented one: the same each time it is asked for.
    pub(super) fn next(&self, session: SessionId, generation: u64, presented: &RefreshToken) -> RefreshToken {
        let mut mac = hmac::Context::with_key(&self.refresh_key);
        mac.update(session.to_string().as_bytes());
        mac.update(&generation.to_be_bytes());
        mac.update(&presented.0);
        let mut bytes = [0; 32];
        bytes.copy_from_slice(mac.sign().as_ref());
        RefreshToken(bytes)
    }

    /// An access token with that id and time: the same each time it is asked for.
    pub(super) fn access(&self, user: UserId, session: SessionId, pair: &TokenPair) -> Result<String, Error> {
        self.sign(user, session, pair.access_id, pair.made_at)
    }

    fn sign(&self, user: UserId, session: SessionId, id: Ulid, at: Millis) -> Result<String, Error> {
        let claims = Claims {
            sub: user.to_string(),
            sid: session.to_string(),
            jti: id.to_string(),
            iss: ISSUER.to_owned(),
            aud: AUDIENCE.to_owned(),
            iat: at.seconds(),
            exp: (at + self.lifetime).seconds(),
            scope: SCOPE.to_owned(),
        };
        let header = Header { kid: Some(self.key_id.clone()), ..Header::new(self.algorithm) };
        jsonwebtoken::encode(&header, &claims, &self.key).map_err(Error::internal)
    }
}
