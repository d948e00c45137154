//! The auth folder: keys that sign tokens, and the secrets around one-time codes and refreshes (D6.6).

use std::{
    fs,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::{Engine as _, engine::general_purpose};
use domain::{Clock, Ids};
use jsonwebtoken::{Algorithm, EncodingKey};
use platform::Secret;
use serde_json::{Value, json};

/// The public keys.
const PUBLIC_KEYS: &str = "jwks.json";
/// The key of the MAC under which codes are stored.
const OTP_PEPPER: &str = "otp-pepper";
/// The key under which codes are encrypted for a repetition: base64 of 32 bytes.
const OTP_KEY: &str = "otp-key";
/// The key that makes the next refresh token.
const REFRESH_KEY: &str = "refresh-key";
/// What services show each other.
const INTERNAL_TOKEN: &str = "internal-token";

/// All that the auth folder holds.
pub struct Secrets {
    /// Where the public keys are; the file is followed.
    pub public_keys: PathBuf,
    /// The id of the key that signs.
    pub signing_key_id: String,
    /// The key that signs.
    pub signing_key: EncodingKey,
    /// How it signs: by its own type.
    pub signing_algorithm: Algorithm,
    /// The key of the MAC under which codes are stored.
    pub otp_pepper: Secret,
    /// The AES-256 key under which codes are encrypted.
    pub otp_key: [u8; 32],
    /// The key that makes the next refresh token.
    pub refresh_key: Secret,
    /// What services show each other.
    pub internal_token: Secret,
}

impl Secrets {
    /// Reads a folder. `signing_key` is the id of the key that signs, the last `<kid>.pem` by name without one.
    ///
    /// # Errors
    /// With the name of the file that is missing or wrong.
    pub fn read(folder: &Path, signing_key: Option<&str>) -> anyhow::Result<Self> {
        let public_keys = folder.join(PUBLIC_KEYS);
        anyhow::ensure!(public_keys.is_file(), "{} is missing", public_keys.display());
        let signing_key_id = match signing_key {
            Some(id) => id.to_owned(),
            None => last_key(folder)?,
        };
        let pem = text(folder, &format!("{signing_key_id}.pem"))?;
        let (signing_algorithm, signing_key) = read_signing_key(pem.expose().as_bytes())
            .with_context(|| format!("{signing_key_id}.pem is neither an Ed25519 nor an RSA key in PKCS#8"))?;
        anyhow::ensure!(
            has_key(&public_keys, &signing_key_id)?,
            "{} has no public key for {signing_key_id}.pem",
            public_keys.display()
        );
        let otp_key = general_purpose::STANDARD
            .decode(text(folder, OTP_KEY)?.expose())
            .ok()
            .and_then(|key| <[u8; 32]>::try_from(key).ok())
            .with_context(|| format!("{} is not base64 of 32 bytes", folder.join(OTP_KEY).display()))?;
        Ok(Self {
            public_keys,
            signing_key_id,
            signing_key,
            signing_algorithm,
            otp_pepper: text(folder, OTP_PEPPER)?,
            otp_key,
            refresh_key: text(folder, REFRESH_KEY)?,
            internal_token: text(folder, INTERNAL_TOKEN)?,
        })
    }
}

fn text(folder: &Path, name: &str) -> anyhow::Result<Secret> {
    let file = folder.join(name);
    let text = fs::read_to_string(&file).with_context(|| format!("failed to read {}", file.display()))?;
    anyhow::ensure!(!text.trim().is_empty(), "{} is empty", file.display());
    Ok(Secret::new(text.trim()))
}

/// Whether validators can know what that key signs.
fn has_key(public_keys: &Path, id: &str) -> anyhow::Result<bool> {
    let failed = || format!("failed to read {}", public_keys.display());
    let set: Value = serde_json::from_slice(&fs::read(public_keys).with_context(failed)?).with_context(failed)?;
    Ok(set["keys"].as_array().is_some_and(|keys| keys.iter().any(|key| key["kid"] == id)))
}

fn last_key(folder: &Path) -> anyhow::Result<String> {
    let mut last = None;
    for entry in fs::read_dir(folder).with_context(|| format!("failed to read {}", folder.display()))? {
        let name = entry.with_context(|| format!("failed to read {}", folder.display()))?.file_name();
        let id = name.to_str().and_then(|name| name.strip_suffix(".pem")).filter(|id| !id.starts_with('.'));
        last = last.max(id.map(str::to_owned));
    }
    last.with_context(|| format!("{} has no <kid>.pem to sign with", folder.display()))
}

fn read_signing_key(pem: &[u8]) -> anyhow::Result<(Algorithm, EncodingKey)> {
    if let Ok(key) = EncodingKey::from_ed_pem(pem) {
        return Ok((Algorithm::EdDSA, key));
    }
    Ok((Algorithm::RS256, EncodingKey::from_rsa_pem(pem)?))
}

/// Makes a whole new folder with a fresh Ed25519 key; readable by the owner only, and there at once or not at all.
///
/// # Errors
/// When there is such a folder with something in it, or it can't be written.
pub fn create(folder: &Path, ids: &dyn Ids, clock: &dyn Clock) -> anyhow::Result<()> {
    let failed = || format!("failed to make the auth folder {}", folder.display());
    let name = folder.file_name().and_then(|name| name.to_str()).with_context(failed)?;
    let fresh = folder.with_file_name(format!(".{name}.{}", ids.ulid()));
    fs::create_dir_all(&fresh).with_context(failed)?;
    let written = fill(&fresh, ids, clock).and_then(|()| fs::rename(&fresh, folder).with_context(failed));
    if written.is_err() {
        // What is left is of no use to anyone.
        drop(fs::remove_dir_all(&fresh));
    }
    written
}

fn fill(folder: &Path, ids: &dyn Ids, clock: &dyn Clock) -> anyhow::Result<()> {
    let random = || {
        let mut bytes = [0; 32];
        ids.fill(&mut bytes);
        bytes
    };
    let pair = Ed25519KeyPair::from_seed_unchecked(&random()).context("failed to make a key")?;
    let private = pair.to_pkcs8v1().context("failed to encode a key")?;
    let base64 = general_purpose::STANDARD.encode(private.as_ref());
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{base64}\n-----END PRIVATE KEY-----\n");
    // Later keys sort after earlier ones.
    let key_id = format!("{}-{}", clock.now().seconds(), ids.ulid());
    let public = general_purpose::URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
    let keys = json!({"keys": [
        {"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": key_id, "x": public},
    ]});
    let opaque = || general_purpose::URL_SAFE_NO_PAD.encode(random());
    write(folder, &format!("{key_id}.pem"), &pem)?;
    write(folder, PUBLIC_KEYS, &keys.to_string())?;
    write(folder, OTP_PEPPER, &opaque())?;
    write(folder, OTP_KEY, &general_purpose::STANDARD.encode(random()))?;
    write(folder, REFRESH_KEY, &opaque())?;
    write(folder, INTERNAL_TOKEN, &opaque())
}

fn write(folder: &Path, name: &str, text: &str) -> anyhow::Result<()> {
    let file = folder.join(name);
    let mut options = fs::OpenOptions::new();
    let written = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&file)
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
    written.with_context(|| format!("failed to write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use aws_lc_rs::{
        encoding::{AsDer as _, Pkcs8V1Der},
        rsa,
    };
    use platform::{
        clock::{SystemClock, SystemIds},
        tokens::{Claims, Expiry, Verifier},
    };

    use super::*;

    fn scratch() -> PathBuf {
        std::env::temp_dir().join(format!("chatmgmt-secrets-{}", SystemIds.ulid()))
    }

    #[test]
    fn a_fresh_folder_can_be_read_by_its_owner_only() {
        let folder = scratch();
        create(&folder, &SystemIds, &SystemClock).expect("made");
        let secrets = Secrets::read(&folder, None).expect("readable");
        assert_eq!(secrets.signing_algorithm, Algorithm::EdDSA);
        for entry in fs::read_dir(&folder).expect("a folder") {
            let mode = entry.expect("an entry").metadata().expect("metadata").permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        assert!(create(&folder, &SystemIds, &SystemClock).is_err(), "an existing folder is not replaced");
        Secrets::read(&folder, None).expect("still readable");
        fs::remove_dir_all(&folder).expect("removed");
    }

    #[test]
    fn during_a_rotation_the_last_key_signs_by_its_own_type_and_both_are_known() {
        let folder = scratch();
        create(&folder, &SystemIds, &SystemClock).expect("made");
        let old = Secrets::read(&folder, None).expect("readable");

        let pair = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).expect("a key");
        let der: Pkcs8V1Der<'_> = pair.as_der().expect("encoded");
        let base64 = general_purpose::STANDARD.encode(der.as_ref());
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{base64}\n-----END PRIVATE KEY-----\n");
        write(&folder, "zz.pem", &pem).expect("written");
        let error = Secrets::read(&folder, None).err().expect("nobody could check its tokens");
        assert!(format!("{error:#}").contains("zz.pem"), "{error:#}");

        let mut keys: Value = serde_json::from_slice(&fs::read(folder.join(PUBLIC_KEYS)).expect("read")).expect("JSON");
        let number = |bytes: &[u8]| general_purpose::URL_SAFE_NO_PAD.encode(bytes);
        let public = pair.public_key();
        keys["keys"].as_array_mut().expect("keys").push(json!({
            "kty": "RSA", "kid": "zz",
            "n": number(public.modulus().big_endian_without_leading_zero()),
            "e": number(public.exponent().big_endian_without_leading_zero()),
        }));
        fs::write(folder.join(PUBLIC_KEYS), keys.to_string()).expect("written");
        let new = Secrets::read(&folder, None).expect("readable");
        assert_eq!((new.signing_key_id.as_str(), new.signing_algorithm), ("zz", Algorithm::RS256));
        let pinned = Secrets::read(&folder, Some(&old.signing_key_id)).expect("readable");
        assert_eq!(pinned.signing_algorithm, Algorithm::EdDSA);

        let verifier = Verifier::from_jwks_file(&new.public_keys).expect("keys");
        let now = SystemClock.now();
        for secrets in [&old, &new] {
            let claims = Claims {
                sub: "user_01KJM9S346Q3D25VT4F5V37E3S".to_owned(),
                sid: "sess_01KJCD1GDJFMGT83PXT891WB09".to_owned(),
                jti: "01KJCD1GDJFMGT83PXT891WB09".to_owned(),
                iss: platform::tokens::ISSUER.to_owned(),
                aud: platform::tokens::AUDIENCE.to_owned(),
                iat: now.seconds(),
                exp: now.seconds() + 60,
                scope: "messaging".to_owned(),
            };
            let mut header = jsonwebtoken::Header::new(secrets.signing_algorithm);
            header.kid = Some(secrets.signing_key_id.clone());
            let token = jsonwebtoken::encode(&header, &claims, &secrets.signing_key).expect("signed");
            verifier.verify(&token, now, Expiry::Checked).expect("it holds");
        }
        fs::remove_dir_all(&folder).expect("removed");
    }

    #[test]
    fn a_missing_file_is_named() {
        let folder = scratch();
        create(&folder, &SystemIds, &SystemClock).expect("made");
        for name in [PUBLIC_KEYS, OTP_PEPPER, OTP_KEY, REFRESH_KEY, INTERNAL_TOKEN] {
            let kept = folder.join("kept");
            fs::rename(folder.join(name), &kept).expect("moved away");
            let error = Secrets::read(&folder, None).err().expect("missing");
            assert!(format!("{error:#}").contains(name), "{error:#}");
            fs::rename(&kept, folder.join(name)).expect("moved back");
        }
        let error = Secrets::read(&folder, Some("other")).err().expect("missing");
        assert!(format!("{error:#}").contains("other.pem"), "{error:#}");
        fs::remove_dir_all(&folder).expect("removed");
    }
}
