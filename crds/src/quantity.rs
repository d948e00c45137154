//! A quantity of a resource, written as a number or as text, as Kubernetes writes it.

use std::{borrow::Cow, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A quantity: `2`, `"250m"`, `"1Gi"`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Quantity {
    /// A whole number.
    Number(i64),
    /// A number with an optional suffix.
    Text(String),
}

impl Quantity {
    /// The quantity in thousandths of its unit (cores, bytes).
    ///
    /// # Errors
    /// `None` when the text is no quantity, or beyond what 128 bits hold.
    pub fn thousandths(&self) -> Option<i128> {
        let text = self.to_string();
        let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
        let factor: i128 = match &text[digits.len()..] {
            "m" => 1,
            "" => 1_000,
            "k" => 1_000_000,
            "M" => 1_000_000_000,
            "G" => 1_000_000_000_000,
            "T" => 1_000_000_000_000_000,
            "Ki" => 1_000 << 10,
            "Mi" => 1_000 << 20,
            "Gi" => 1_000 << 30,
            "Ti" => 1_000 << 40,
            _ => return None,
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let places = u32::try_from(fraction.len()).ok()?;
        let number: i128 = format!("{whole}{fraction}").parse().ok()?;
        let scale = 10_i128.checked_pow(places)?;
        Some(number.checked_mul(factor)? / scale)
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(formatter, "{number}"),
            Self::Text(text) => formatter.write_str(text),
        }
    }
}

impl JsonSchema for Quantity {
    fn schema_name() -> Cow<'static, str> {
        "Quantity".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "minimum": 0,
            "maxLength": 20,
            "pattern": r"^[0-9]+(\.[0-9]{1,3})?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_compare_across_their_spellings() {
        let cases = [
            (Quantity::Number(2), 2_000),
            (Quantity::Text("250m".into()), 250),
            (Quantity::Text("0.5".into()), 500),
            (Quantity::Text("64Mi".into()), 64 * 1024 * 1024 * 1000),
            (Quantity::Text("1.5Gi".into()), 3 * 512 * 1024 * 1024 * 1000),
            (Quantity::Text("1G".into()), 1_000_000_000_000),
        ];
        for (quantity, expected) in cases {
            assert_eq!(quantity.thousandths(), Some(expected), "{quantity}");
        }
        assert_eq!(Quantity::Text("many".into()).thousandths(), None);
        assert_eq!(Quantity::Text("1Xi".into()).thousandths(), None);
    }
}
