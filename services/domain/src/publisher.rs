//! Who is to publish what a chat has stored: incarnations of ingest, their leases, and the mark on each chat (D4.3).

use std::{fmt, str::FromStr, time::Duration};

use ulid::Ulid;

use crate::{Error, Ids, Millis, ids::ChatId};

/// One span of an ingest process during which it may store messages; a process that lost its lease begins another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub Ulid);

impl Incarnation {
    /// A new one.
    pub fn new(ids: &dyn Ids) -> Self {
        Self(ids.ulid())
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Incarnation {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Ulid::from_string(text).map(Self).map_err(|cause| Error::internal(format!("not an incarnation: {cause}")))
    }
}

/// A span of time of equal length for all, counted from 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u64);

impl Slot {
    /// How long a slot lasts.
    pub const LENGTH: Duration = Duration::from_mins(5);

    /// The slot of a moment.
    pub fn of(time: Millis) -> Self {
        let length = i64::try_from(Self::LENGTH.as_millis()).unwrap_or(i64::MAX);
        Self(u64::try_from(time.0.div_euclid(length)).unwrap_or(0))
    }

    /// Its first moment.
    pub fn begin(self) -> Millis {
        let length = i64::try_from(Self::LENGTH.as_millis()).unwrap_or(i64::MAX);
        Millis(i64::try_from(self.0).unwrap_or(i64::MAX).saturating_mul(length))
    }
}

/// The mark on a chat: who stored its last message, and when, roughly. The key of an index.
///
/// The text form is `<incarnation>/<slot>/<bucket>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublisherMark {
    /// Who.
    pub incarnation: Incarnation,
    /// When.
    pub slot: Slot,
    /// Spreads the chats of one slot over the index.
    pub bucket: u8,
}

impl PublisherMark {
    /// Buckets of a slot.
    pub const BUCKETS: u8 = 16;

    /// The mark of a chat.
    pub fn new(incarnation: Incarnation, slot: Slot, chat: ChatId) -> Self {
        // The low bits of a ULID are random, so they spread as a hash does.
        let bucket = chat.0.0.to_le_bytes()[0] % Self::BUCKETS;
        Self { incarnation, slot, bucket }
    }

    /// Every mark of a slot.
    pub fn all(incarnation: Incarnation, slot: Slot) -> impl Iterator<Item = Self> {
        (0..Self::BUCKETS).map(move |bucket| Self { incarnation, slot, bucket })
    }
}

impl fmt::Display for PublisherMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.incarnation, self.slot.0, self.bucket)
    }
}

impl FromStr for PublisherMark {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let refuse = || Error::internal("not a publisher's mark");
        let mut parts = text.split('/');
        let (Some(incarnation), Some(slot), Some(bucket), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(refuse());
        };
        Ok(Self {
            incarnation: incarnation.parse()?,
            slot: Slot(slot.parse().map_err(|_| refuse())?),
            bucket: bucket.parse().map_err(|_| refuse())?,
        })
    }
}

/// The lease of an incarnation: while it is renewed, nobody else publishes what the incarnation stored.
///
/// Whoever has seen it unchanged for its whole length, by a clock of their own that never steps, may claim it. The times
/// in it are its writer's, and say nothing on another machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Whose.
    pub incarnation: Incarnation,
    /// When it ends by its owner's clock, unless it is renewed.
    pub expires_at: Millis,
    /// Chats marked in earlier slots are wholly published.
    pub oldest_slot: Slot,
    /// Who has taken it over, and until when.
    pub claim: Option<Claim>,
}

/// Somebody publishes what another incarnation left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Who.
    pub by: Incarnation,
    /// Until when by their clock, unless it is renewed.
    pub until: Millis,
}

impl Claim {
    /// The claim of an incarnation that ends on its own lease: anybody may have it at once.
    pub fn given_back(by: Incarnation) -> Self {
        Self { by, until: Millis(0) }
    }
}

impl Lease {
    /// Whether its owner has ended and waits for nobody.
    pub fn is_given_back(&self) -> bool {
        self.claim.is_some_and(|claim| claim == Claim::given_back(claim.by))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_written_and_read_back() {
        let chat: ChatId = "chat_01KKNTQ2BCF5KZNWJ47TAN9ZT2".parse().expect("valid");
        let mark = PublisherMark::new(Incarnation(Ulid(7)), Slot::of(Millis(900_001)), chat);
        assert_eq!(mark.to_string(), "00000000000000000000000007/3/2");
        assert_eq!(mark.to_string().parse::<PublisherMark>().expect("valid"), mark);
        assert!(PublisherMark::all(mark.incarnation, mark.slot).any(|other| other == mark));
        for bad in ["", "x/3/2", "00000000000000000000000007/3", "00000000000000000000000007/3/2/1"] {
            assert!(bad.parse::<PublisherMark>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_lease_is_given_back_by_a_claim_that_has_no_time() {
        let lease =
            |claim| Lease { incarnation: Incarnation(Ulid(1)), expires_at: Millis(10), oldest_slot: Slot(0), claim };
        assert!(!lease(None).is_given_back());
        assert!(!lease(Some(Claim { by: Incarnation(Ulid(2)), until: Millis(20) })).is_given_back());
        assert!(lease(Some(Claim::given_back(Incarnation(Ulid(1))))).is_given_back());
    }
}
