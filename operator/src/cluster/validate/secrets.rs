//! The Secrets that a spec refers to: which, with which keys, and what stands in them.

use std::collections::BTreeMap;

use crds::{
    MessagingClusterSpec,
    backends::{KafkaAuthenticationMethod, SecretReference},
    conditions::Reason,
};

use super::{SecretData, SecretUse, faults::Faults};

/// Keys of the Secret of `spec.auth` besides the key that signs.
pub(super) const AUTH_KEYS: [&str; 5] = ["internal-token", "jwks.json", "otp-key", "otp-pepper", "refresh-key"];

/// Where the Secret of `spec.auth` is named.
pub(super) const AUTH: &str = "spec.auth.secretRef.name";
/// Where Kafka's authorities are named.
pub(super) const KAFKA_CA: &str = "spec.kafka.tls.caSecretRef.name";
/// Where the login at Kafka is named.
pub(super) const KAFKA_LOGIN: &str = "spec.kafka.authentication.secretRef.name";
/// Where the key to `DynamoDB` is named.
pub(super) const DYNAMODB: &str = "spec.dynamodb.credentialsSecretRef.name";
/// Where the authorities of Redis are named.
pub(super) const REDIS_CA: &str = "spec.redis.tls.caSecretRef.name";
/// Where the login at Redis is named.
pub(super) const REDIS_LOGIN: &str = "spec.redis.authentication.secretRef.name";

/// The uses of Secrets in the order of the spec.
///
/// Those for pulling images and for the TLS of an Ingress are not among them: the operator reads neither, and the
/// latter may be made only after the Ingress is there.
pub(super) fn uses(spec: &MessagingClusterSpec) -> Vec<SecretUse> {
    let mut uses = Vec::new();
    let mut add = |reference: Option<&SecretReference>, path: &str, keys: &[&str]| {
        if let Some(reference) = reference {
            let required_keys = keys.iter().map(ToString::to_string).collect();
            uses.push(SecretUse { name: reference.name.clone(), path: path.to_owned(), required_keys });
        }
    };
    let kafka = &spec.kafka;
    add(kafka.tls.as_ref().and_then(|tls| tls.ca_secret_ref.as_ref()), KAFKA_CA, &["ca.crt"]);
    if let Some(login) = &kafka.authentication {
        let keys: &[&str] = match login.method {
            KafkaAuthenticationMethod::Scram => &["password", "username"],
            KafkaAuthenticationMethod::Mtls => &["tls.crt", "tls.key"],
            KafkaAuthenticationMethod::None | KafkaAuthenticationMethod::AwsIam => &[],
        };
        add(login.secret_ref.as_ref().filter(|_| !keys.is_empty()), KAFKA_LOGIN, keys);
    }
    add(spec.dynamodb.credentials_secret_ref.as_ref(), DYNAMODB, &["access-key-id", "secret-access-key"]);
    add(spec.redis.tls.as_ref().and_then(|tls| tls.ca_secret_ref.as_ref()), REDIS_CA, &["ca.crt"]);
    add(spec.redis.authentication.as_ref().map(|login| &login.secret_ref), REDIS_LOGIN, &["password"]);
    let signing = spec.auth.signing_key.iter().map(|id| format!("{id}.pem")).collect::<Vec<_>>();
    let keys: Vec<&str> = AUTH_KEYS.into_iter().chain(signing.iter().map(String::as_str)).collect();
    add(Some(&spec.auth.secret_ref), AUTH, &keys);
    uses
}

/// The Secrets that were found, and what is wrong with them.
pub(super) struct Found<'a> {
    uses: Vec<SecretUse>,
    secrets: &'a BTreeMap<String, Option<SecretData>>,
}

impl<'a> Found<'a> {
    /// Looks at each Secret that a spec refers to: it must be there, with all its keys.
    pub(super) fn look(
        faults: &mut Faults,
        spec: &MessagingClusterSpec,
        secrets: &'a BTreeMap<String, Option<SecretData>>,
    ) -> Self {
        let found = Self { uses: uses(spec), secrets };
        for one in &found.uses {
            let (name, keys) = (&one.name, one.required_keys.join(", "));
            let Some(data) = found.secret(name) else {
                let message = format_args!("there is no Secret {name}: create it with the keys {keys}");
                faults.add(Reason::SecretNotFound, &one.path, message);
                continue;
            };
            for key in &one.required_keys {
                if data.0.get(key).is_none_or(|value| value.trim_ascii().is_empty()) {
                    let message = format_args!("the Secret {name} has nothing under {key}: it needs the keys {keys}");
                    faults.add(Reason::SecretKeyMissing, &one.path, message);
                }
            }
        }
        found
    }

    /// The whole Secret that a field names.
    pub(super) fn data(&self, path: &str) -> Option<(&str, &'a SecretData)> {
        let one = self.uses.iter().find(|one| one.path == path)?;
        Some((&one.name, self.secret(&one.name)?))
    }

    /// The text under a key of the Secret that a field names, without one line break at its end; a fault when it is no text.
    pub(super) fn text(&self, faults: &mut Faults, path: &str, key: &str) -> Option<String> {
        let (name, data) = self.data(path)?;
        let bytes = data.0.get(key).filter(|value| !value.trim_ascii().is_empty())?;
        let Ok(text) = std::str::from_utf8(bytes) else {
            faults.reference(path, format_args!("what the Secret {name} has under {key} is no text in UTF-8"));
            return None;
        };
        let text = text.strip_suffix('\n').unwrap_or(text);
        Some(text.strip_suffix('\r').unwrap_or(text).to_owned())
    }

    /// The same of a word that stands in a header or a variable: printable ASCII without any space.
    pub(super) fn word(&self, faults: &mut Faults, path: &str, key: &str) -> Option<String> {
        let (name, data) = self.data(path)?;
        let bytes = data.0.get(key).filter(|value| !value.trim_ascii().is_empty())?;
        let word = std::str::from_utf8(bytes).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_graphic()));
        if word.is_none() {
            let message = format_args!(
                "what the Secret {name} has under {key} has spaces, line breaks or other signs: it must be one word of ASCII"
            );
            faults.reference(path, message);
        }
        word.map(str::to_owned)
    }

    /// Every Secret that is in use and there.
    pub(super) fn all(&self) -> BTreeMap<String, SecretData> {
        let there = |one: &SecretUse| Some((one.name.clone(), self.secret(&one.name)?.clone()));
        self.uses.iter().filter_map(there).collect()
    }

    fn secret(&self, name: &str) -> Option<&'a SecretData> {
        self.secrets.get(name)?.as_ref()
    }
}
