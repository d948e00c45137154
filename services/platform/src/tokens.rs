//! Access tokens: how they are checked (auth-security §4, D6.1).

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use domain::{
    Error, ErrorKind, Millis,
    ids::{SessionId, UserId},
};
use jsonwebtoken::{
    Algorithm, DecodingKey, Validation, decode, decode_header,
    jwk::{AlgorithmParameters, JwkSet},
};
use serde::{Deserialize, Serialize};

/// `iss` of every access token.
pub const ISSUER: &str = "messaging-platform";
/// `aud` of every access token.
pub const AUDIENCE: &str = "messaging-api";
/// How far the clocks of two machines may be apart.
const LEEWAY: Duration = Duration::from_secs(5);

/// The claims as they stand in the token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// User id.
    pub sub: String,
    /// Session id.
    pub sid: String,
    /// Token id, a bare ULID.
    pub jti: String,
    /// [`ISSUER`].
    pub iss: String,
    /// [`AUDIENCE`].
    pub aud: String,
    /// Issued at, epoch seconds.
    pub iat: i64,
    /// Expires at, epoch seconds.
    pub exp: i64,
    /// `messaging`, or `socket` for a browser's short token.
    pub scope: String,
}

/// Who holds a token that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The person.
    pub user: UserId,
    /// The login.
    pub session: SessionId,
    /// The token's id, for revocation.
    pub token_id: String,
    /// What it is good for.
    pub scope: String,
    /// Until when.
    pub expires_at: Millis,
}

/// Whether an expired token passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// It does not.
    Checked,
    /// It does: for a refresh, where all else is checked.
    Waived,
}

/// Checks tokens by the public keys of a JWKS file, which is read again when it changes.
#[derive(Debug)]
pub struct Verifier {
    file: PathBuf,
    keys: RwLock<Keys>,
}

#[derive(Debug)]
struct Keys {
    modified: Option<SystemTime>,
    by_id: HashMap<String, (Algorithm, DecodingKey)>,
}

impl Verifier {
    /// Reads the keys.
    ///
    /// # Errors
    /// When the file can't be read, or has no usable key.
    pub fn from_jwks_file(file: &Path) -> anyhow::Result<Self> {
        let keys = read(file)?;
        Ok(Self { file: file.to_owned(), keys: RwLock::new(keys) })
    }

    /// Reads the keys again if the file has changed; to be called every few seconds.
    ///
    /// # Errors
    /// As [`Verifier::from_jwks_file`]; the old keys stay in use then.
    pub fn reload(&self) -> anyhow::Result<()> {
        let modified = std::fs::metadata(&self.file).and_then(|file| file.modified()).ok();
        if modified.is_some() && modified == self.keys.read().unwrap_or_else(PoisonError::into_inner).modified {
            return Ok(());
        }
        let keys = read(&self.file)?;
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
        Ok(())
    }

    /// Checks signature, issuer, audience and times. Revocation is another question.
    ///
    /// # Errors
    /// `Unauthorized`, one generic text for all causes.
    pub fn verify(&self, token: &str, now: Millis, expiry: Expiry) -> Result<Holder, Error> {
        let refuse = |reason: &'static str| {
            Error::new(ErrorKind::Unauthorized, "the access token is missing or does not hold")
                .with_text("reason", reason)
        };
        let key_id = decode_header(token).ok().and_then(|header| header.kid).ok_or_else(|| refuse("invalid_token"))?;
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        // The algorithm is the key's, whatever the token says of itself.
        let (algorithm, key) = keys.by_id.get(&key_id).ok_or_else(|| refuse("invalid_token"))?;
        let mut validation = Validation::new(*algorithm);
        validation.set_issuer(&[ISSUER]);
        validation.set_audience(&[AUDIENCE]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.validate_exp = false; // by our own clock, below
        let claims = decode::<Claims>(token, key, &validation).map_err(|_| refuse("invalid_token"))?.claims;
        if claims.iat > (now + LEEWAY).seconds() {
            return Err(refuse("invalid_token"));
        }
        if expiry == Expiry::Checked && claims.exp <= now.seconds() {
            return Err(refuse("token_expired"));
        }
        Ok(Holder {
            user: claims.sub.parse().map_err(|_| refuse("invalid_token"))?,
            session: claims.sid.parse().map_err(|_| refuse("invalid_token"))?,
            token_id: claims.jti,
            scope: claims.scope,
            expires_at: Millis(claims.exp.saturating_mul(1000)),
        })
    }
}

fn read(file: &Path) -> anyhow::Result<Keys> {
    let modified = std::fs::metadata(file).and_then(|file| file.modified()).ok();
    let text = std::fs::read(file).with_context(|| format!("failed to read the public keys in {}", file.display()))?;
    let set: JwkSet = serde_json::from_slice(&text).with_context(|| format!("{} is not a JWKS", file.display()))?;
    let mut by_id = HashMap::new();
    for key in &set.keys {
        #[expect(clippy::wildcard_enum_match_arm, reason = "the enum grows; what is not listed is not accepted")]
        let algorithm = match &key.algorithm {
            AlgorithmParameters::RSA(_) => Algorithm::RS256,
            AlgorithmParameters::OctetKeyPair(_) => Algorithm::EdDSA,
            _ => continue,
        };
        let Some(id) = key.common.key_id.clone() else { continue };
        let decoding = DecodingKey::from_jwk(key).with_context(|| format!("key {id} in {}", file.display()))?;
        by_id.insert(id, (algorithm, decoding));
    }
    anyhow::ensure!(!by_id.is_empty(), "{} has no RSA or Ed25519 key with a kid", file.display());
    Ok(Keys { modified, by_id })
}
