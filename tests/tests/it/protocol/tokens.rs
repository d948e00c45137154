//! Access tokens as the platform signs them, by the key in its own folder: for what no login gives.

use std::fs;

use anyhow::Context as _;
use aws_lc_rs::signature::Ed25519KeyPair;
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use serde_json::{Value, json};

use super::place::Place;

/// What a token says, whether it holds or not.
pub(crate) fn claims(token: &str) -> anyhow::Result<Value> {
    let claims = token.split('.').nth(1).context("not a token")?;
    Ok(serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims)?)?)
}

/// When a token was issued, in seconds since 1970.
pub(crate) fn issued_at(token: &str) -> anyhow::Result<i64> {
    claims(token)?["iat"].as_i64().context("no time of issue")
}

/// The key of a platform.
pub(crate) struct Signer {
    key_id: String,
    pair: Ed25519KeyPair,
}

impl Signer {
    /// Reads the key of that platform.
    pub(crate) fn of(place: &Place) -> anyhow::Result<Self> {
        let folder = place.keys();
        let mut files = fs::read_dir(folder)?.filter_map(|entry| Some(entry.ok()?.path()));
        let file = files.find(|file| file.extension().is_some_and(|ending| ending == "pem")).context("no key")?;
        let pem = fs::read_to_string(&file)?;
        let base64: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
        let pair = Ed25519KeyPair::from_pkcs8(&STANDARD.decode(base64)?)?;
        let key_id = file.file_stem().and_then(|stem| stem.to_str()).context("a key without a name")?.to_owned();
        Ok(Self { key_id, pair })
    }

    /// The claims of a token, changed, and signed anew.
    pub(crate) fn changed(&self, token: &str, change: impl FnOnce(&mut Value)) -> anyhow::Result<String> {
        let mut claims = claims(token)?;
        change(&mut claims);
        let header = json!({"alg": "EdDSA", "typ": "JWT", "kid": self.key_id});
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(&claims));
        let signature = URL_SAFE_NO_PAD.encode(self.pair.sign(signed.as_bytes()));
        Ok(format!("{signed}.{signature}"))
    }
}
