//! The Secret of keys: which one signs, and whether the processes could use what stands there.

use base64::{Engine as _, engine::general_purpose};
use crds::{conditions::Reason, messaging_cluster};
use serde_json::Value;

use super::{
    Auth,
    faults::Faults,
    secrets::{self, Found},
};

/// The keys. `None` only with a fault.
pub(super) fn auth(faults: &mut Faults, found: &Found<'_>, spec: &messaging_cluster::Auth) -> Option<Auth> {
    let (secret, data) = found.data(secrets::AUTH)?;
    let mut ids = data.0.keys().filter_map(|key| key.strip_suffix(".pem")).filter(|id| !id.is_empty());
    let Some(signing_key) = spec.signing_key.as_deref().or_else(|| ids.next_back()) else {
        let message =
            format_args!("the Secret {secret} has no <key id>.pem: it needs the private key that signs tokens");
        faults.add(Reason::SecretKeyMissing, secrets::AUTH, message);
        return None;
    };
    if let Some(text) = found.text(faults, secrets::AUTH, &format!("{signing_key}.pem"))
        && !text.contains("-----BEGIN PRIVATE KEY-----")
    {
        let message = format_args!("{signing_key}.pem in the Secret {secret} is no private key in PKCS#8 (PEM)");
        faults.reference(secrets::AUTH, message);
    }
    if let Some(text) = found.text(faults, secrets::AUTH, "jwks.json") {
        let keys = serde_json::from_str::<Value>(&text).unwrap_or_default();
        let is_known = |keys: &Vec<Value>| keys.iter().any(|key| key["kid"] == signing_key);
        if !keys["keys"].as_array().is_some_and(is_known) {
            let message = format_args!(
                "jwks.json in the Secret {secret} is no set of keys with kid {signing_key}: nobody could check what {signing_key}.pem signs"
            );
            faults.reference(secrets::AUTH, message);
        }
    }
    if let Some(text) = found.text(faults, secrets::AUTH, "otp-key")
        && general_purpose::STANDARD.decode(text.trim()).ok().is_none_or(|key| key.len() != 32)
    {
        faults.reference(secrets::AUTH, format_args!("otp-key in the Secret {secret} is not base64 of 32 bytes"));
    }
    if let Some(text) = found.text(faults, secrets::AUTH, "internal-token")
        && !text.trim().bytes().all(|byte| byte.is_ascii_graphic())
    {
        faults
            .reference(secrets::AUTH, format_args!("internal-token in the Secret {secret} must be one word of ASCII"));
    }
    let sms = spec.sms.as_ref().map(|sms| sms.provider).unwrap_or_default();
    Some(Auth { secret: secret.to_owned(), signing_key: signing_key.to_owned(), sms })
}
