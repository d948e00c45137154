//! One-time codes: how they are drawn, proved and kept for a repetition (auth-security §3). The code itself is never stored.

use std::{net::IpAddr, sync::Arc};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    constant_time, digest, hmac,
};
use domain::{
    Error, Ids, Millis,
    session::OtpRequest,
    user::{Phone, PhoneHash},
};

use crate::secrets::Secrets;

/// How many codes there are: six digits.
const CODES: u32 = 1_000_000;
/// The highest multiple of [`CODES`] in 32 bits; numbers from here on would favour low codes.
const FAIR: u32 = u32::MAX - u32::MAX % CODES;

/// Draws, proves and encrypts codes.
pub(super) struct Codes {
    pepper: hmac::Key,
    cipher: LessSafeKey,
    ids: Arc<dyn Ids>,
}

impl Codes {
    pub(super) fn new(secrets: &Secrets, ids: Arc<dyn Ids>) -> anyhow::Result<Self> {
        let cipher =
            UnboundKey::new(&AES_256_GCM, &secrets.otp_key).map_err(|_| anyhow::anyhow!("otp-key is unusable"))?;
        let pepper = hmac::Key::new(hmac::HMAC_SHA256, secrets.otp_pepper.expose().as_bytes());
        Ok(Self { pepper, cipher: LessSafeKey::new(cipher), ids })
    }

    /// Six digits, each code as likely as any other.
    pub(super) fn draw(&self) -> String {
        loop {
            let mut random = [0; 4];
            self.ids.fill(&mut random);
            let number = u32::from_le_bytes(random);
            if number < FAIR {
                return format!("{:06}", number % CODES);
            }
        }
    }

    /// A request for that code.
    pub(super) fn request(
        &self,
        code: &str,
        phone: PhoneHash,
        at: Millis,
        expires_at: Millis,
    ) -> Result<OtpRequest, Error> {
        let mac = self.mac(code, phone, expires_at);
        let ciphertext = self.encrypt(code, phone, expires_at)?;
        Ok(OtpRequest { phone, mac, ciphertext, created_at: at, expires_at })
    }

    /// Whether the code is that of the request. Without a request it compares all the same, so that nobody
    /// learns from the time it takes whether there was one.
    pub(super) fn is_right(&self, code: &str, phone: PhoneHash, request: Option<&OtpRequest>) -> bool {
        let expires_at = request.map_or(Millis(0), |request| request.expires_at);
        let candidate = self.mac(code, phone, expires_at);
        let stored = request.map_or([0; 32], |request| request.mac);
        constant_time::verify_slices_are_equal(&candidate, &stored).is_ok() && request.is_some()
    }

    /// The code of a request that is still good; `None` when it can't be decrypted.
    pub(super) fn decrypt(&self, request: &OtpRequest) -> Option<String> {
        let (nonce, sealed) = request.ciphertext.split_at_checked(NONCE_LEN)?;
        let mut buffer = sealed.to_vec();
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let context = Aad::from(context(request.phone, request.expires_at));
        let plain = self.cipher.open_in_place(nonce, context, &mut buffer).ok()?;
        String::from_utf8(plain.to_vec()).ok()
    }

    /// What stands for a client's address in a counter's name. All of an IPv6 subscriber's addresses are one.
    pub(super) fn address_hash(&self, ip: IpAddr) -> [u8; 16] {
        let mut mac = hmac::Context::with_key(&self.pepper);
        mac.update(b"ip");
        match ip.to_canonical() {
            IpAddr::V4(ip) => mac.update(&ip.octets()),
            IpAddr::V6(ip) => mac.update(&ip.octets()[..8]),
        }
        let mut hash = [0; 16];
        hash.copy_from_slice(&mac.sign().as_ref()[..16]);
        hash
    }

    fn mac(&self, code: &str, phone: PhoneHash, expires_at: Millis) -> [u8; 32] {
        let mut mac = hmac::Context::with_key(&self.pepper);
        mac.update(code.as_bytes());
        mac.update(context(phone, expires_at).as_bytes());
        let mut bytes = [0; 32];
        bytes.copy_from_slice(mac.sign().as_ref());
        bytes
    }

    fn encrypt(&self, code: &str, phone: PhoneHash, expires_at: Millis) -> Result<Vec<u8>, Error> {
        let mut nonce = [0; NONCE_LEN];
        self.ids.fill(&mut nonce);
        let mut buffer = code.as_bytes().to_vec();
        let context = Aad::from(context(phone, expires_at));
        let sealed = self.cipher.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), context, &mut buffer);
        sealed.map_err(|_| Error::internal("a code could not be encrypted"))?;
        Ok([&nonce[..], &buffer].concat())
    }
}

/// Binds a MAC or a ciphertext to its row: the hash as text, then the time in decimal milliseconds.
fn context(phone: PhoneHash, expires_at: Millis) -> String {
    format!("{phone}{expires_at}")
}

/// What stands for a phone number.
pub(crate) fn phone_hash(phone: &Phone) -> PhoneHash {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, phone.as_str().as_bytes()).as_ref());
    PhoneHash(hash)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use aws_lc_rs::aead;
    use platform::clock::SystemIds;
    use ulid::Ulid;

    use super::*;

    /// Randomness from a list of numbers.
    struct Listed(Mutex<Vec<u32>>);

    impl Ids for Listed {
        fn ulid(&self) -> Ulid {
            SystemIds.ulid()
        }

        fn fill(&self, bytes: &mut [u8]) {
            let number = self.0.lock().expect("unlocked").pop().expect("enough numbers");
            bytes.copy_from_slice(&number.to_le_bytes()[..bytes.len()]);
        }
    }

    fn codes(ids: Arc<dyn Ids>) -> Codes {
        let cipher = UnboundKey::new(&aead::AES_256_GCM, &[7; 32]).expect("a key");
        Codes { pepper: hmac::Key::new(hmac::HMAC_SHA256, b"pepper"), cipher: LessSafeKey::new(cipher), ids }
    }

    #[test]
    fn codes_have_six_digits_and_unfair_numbers_are_drawn_again() {
        let drawn = codes(Arc::new(Listed(Mutex::new(vec![42, FAIR, u32::MAX]))));
        assert_eq!(drawn.draw(), "000042");
        assert_eq!(FAIR % CODES, 0);
    }

    #[test]
    fn a_request_proves_its_code_and_gives_it_back_only_in_its_own_row() {
        let codes = codes(Arc::new(SystemIds));
        let phone = phone_hash(&Phone::new("+12025550100").expect("valid"));
        let request = codes.request("048213", phone, Millis(1), Millis(2)).expect("made");
        assert!(codes.is_right("048213", phone, Some(&request)));
        assert!(!codes.is_right("048214", phone, Some(&request)));
        assert!(!codes.is_right("048213", phone, None));
        assert_eq!(codes.decrypt(&request).as_deref(), Some("048213"));
        let moved = OtpRequest { expires_at: Millis(3), ..request };
        assert!(!codes.is_right("048213", phone, Some(&moved)));
        assert_eq!(codes.decrypt(&moved), None);
    }

    #[test]
    fn a_phone_is_hashed_by_sha_256() {
        let phone = Phone::new("+12025550100").expect("valid");
        let golden = "56bcf01f15ebc008e3e50bad3555d6cfafa76c6472eb64c8d4b24f06f3c995d8";
        assert_eq!(phone_hash(&phone).to_string(), golden);
    }
}
