//! How times look in JSON: ISO 8601, UTC, exactly three decimals, `Z` (D2.3, D2.8).

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// 9999-12-31T23:59:59.999Z; later times are shown as this one.
const LAST: i64 = 253_402_300_799_999;

/// Shows UTC epoch milliseconds as ISO 8601, for example `2026-03-14T09:26:53.918Z`.
///
/// Times before 1970 and after 9999 are shown as the nearest time inside.
pub fn to_iso(millis: i64) -> String {
    let nanos = i128::from(millis.clamp(0, LAST)) * 1_000_000;
    let at = OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (date, clock) = (at.date(), at.time());
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
        date.year(),
        u8::from(date.month()),
        date.day(),
        clock.hour(),
        clock.minute(),
        clock.second(),
        clock.millisecond(),
    )
}

/// Reads any RFC 3339 time as UTC epoch milliseconds; `None` when it is not one.
pub fn from_iso(text: &str) -> Option<i64> {
    let at = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    i64::try_from(at.unix_timestamp_nanos().div_euclid(1_000_000)).ok()
}

/// For `#[serde(with = …)]` on fields that hold epoch milliseconds.
pub mod iso {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    /// Writes the ISO form.
    pub fn serialize<S: Serializer>(millis: &i64, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&super::to_iso(*millis))
    }

    /// Reads the ISO form.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<i64, D::Error> {
        let text = String::deserialize(from)?;
        super::from_iso(&text).ok_or_else(|| D::Error::custom("not an ISO 8601 time"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_exactly_three_decimals_and_come_back() {
        let cases = [
            (0, "1970-01-01T00:00:00.000Z"),
            (1_773_480_413_918, "2026-03-14T09:26:53.918Z"),
            (1_773_480_413_000, "2026-03-14T09:26:53.000Z"),
            (LAST, "9999-12-31T23:59:59.999Z"),
        ];
        for (millis, text) in cases {
            assert_eq!(to_iso(millis), text);
            assert_eq!(from_iso(text), Some(millis));
        }
        assert_eq!(to_iso(i64::MAX), "9999-12-31T23:59:59.999Z");
        assert_eq!(from_iso("yesterday"), None);
    }
}
