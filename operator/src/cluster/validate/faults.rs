//! What is wrong with a spec, collected in the order in which it is found.

use std::fmt::Display;

use crds::conditions::Reason;

use super::{Fault, Invalid};

/// The faults found so far.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<Fault>);

impl Faults {
    /// Something in the spec itself.
    pub(super) fn spec(&mut self, path: impl Display, message: impl Display) {
        self.add(Reason::InvalidSpec, path, message);
    }

    /// Something that the spec refers to.
    pub(super) fn reference(&mut self, path: impl Display, message: impl Display) {
        self.add(Reason::InvalidReference, path, message);
    }

    /// Something with a reason of its own.
    pub(super) fn add(&mut self, reason: Reason, path: impl Display, message: impl Display) {
        self.0.push(Fault { reason, path: path.to_string(), message: message.to_string() });
    }

    /// What was made, when nothing was wrong.
    pub(super) fn or_else_invalid<T>(self, made: Option<T>) -> Result<T, Invalid> {
        match made {
            Some(made) if self.0.is_empty() => Ok(made),
            _ => Err(Invalid { faults: self.0 }),
        }
    }
}
