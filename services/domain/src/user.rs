//! A person: phone number and display name.

use std::fmt;

use crate::{Error, Millis, ids::UserId, limits};

/// A phone number in E.164: `+`, then 7 to 15 digits, the first not 0.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Phone(String);

impl Phone {
    /// Checks a number.
    ///
    /// # Errors
    /// `InvalidArgument` on the field `phone_number`.
    pub fn new(text: &str) -> Result<Self, Error> {
        let digits = text.strip_prefix('+').unwrap_or("");
        let is_e164 =
            (7..=15).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
        if is_e164 {
            Ok(Self(text.to_owned()))
        } else {
            Err(Error::field("phone_number", "INVALID", "a phone number has the form +12025550100 (E.164)"))
        }
    }

    /// The number, as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The last four digits: all that a log may show.
    pub fn last4(&self) -> &str {
        &self.0[self.0.len() - 4..]
    }
}

impl fmt::Debug for Phone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Phone(…{})", self.last4())
    }
}

/// SHA-256 of a phone number in E.164: what stands for a number wherever it is not the number itself.
///
/// The text form is 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PhoneHash(pub [u8; 32]);

impl fmt::Display for PhoneHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PhoneHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PhoneHash({self})")
    }
}

/// A registered person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Its id.
    pub id: UserId,
    /// The verified phone number.
    pub phone: Phone,
    /// What others see; none until it is set.
    pub display_name: Option<DisplayName>,
    /// When the phone was first verified.
    pub created_at: Millis,
    /// When the profile last changed.
    pub updated_at: Millis,
}

/// What others see of a person: 1 to 64 characters, no outer blanks, no control characters.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DisplayName(String);

impl DisplayName {
    /// Checks a name.
    ///
    /// # Errors
    /// `InvalidArgument` on the field `display_name`.
    pub fn new(text: &str) -> Result<Self, Error> {
        let refuse = |code, message: &'static str| Err(Error::field("display_name", code, message));
        if text.is_empty() {
            return refuse("REQUIRED", "a display name has 1 to 64 characters");
        }
        if text.chars().count() > limits::DISPLAY_NAME_CHARS {
            return refuse("TOO_LONG", "a display name has 1 to 64 characters");
        }
        if text.trim() != text || text.chars().any(char::is_control) {
            return refuse("INVALID", "a display name has no outer blanks and no control characters");
        }
        Ok(Self(text.to_owned()))
    }

    /// A name that was checked when it was stored.
    pub fn from_store(text: String) -> Self {
        Self(text)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phones_are_e164() {
        for good in ["+12025550100", "+34600111222", "+1234567"] {
            assert!(Phone::new(good).is_ok(), "{good}");
        }
        for bad in
            ["", "+", "12025550100", "+02025550100", "+1202555010a", "+1234567890123456", "+123456", "+1 202 555"]
        {
            assert!(Phone::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_phone_in_a_log_shows_four_digits() {
        assert_eq!(format!("{:?}", Phone::new("+12025550100").expect("valid")), "Phone(…0100)");
    }
}
