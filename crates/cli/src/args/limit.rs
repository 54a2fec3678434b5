//! How much memory a restoration may take.

use indicatif::HumanBytes;
use std::fmt;
use std::str::FromStr;

/// A limit of `--memory`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// What is free.
    Auto,
    /// So many bytes for the whole process.
    Bytes(u64),
}

/// Names of units, and their bytes.
const UNITS: [(&str, f64); 7] = [
    ("kb", 1e3),
    ("mb", 1e6),
    ("gb", 1e9),
    ("tb", 1e12),
    ("kib", 1024.0),
    ("mib", 1_048_576.0),
    ("gib", 1_073_741_824.0),
];

impl FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        let lower = text.to_ascii_lowercase();
        let end = lower.find(|letter: char| letter.is_ascii_alphabetic()).unwrap_or(lower.len());
        let (number, unit) = lower.split_at(end);
        let unit = UNITS.iter().find(|(name, _)| *name == unit);
        match (number.trim().parse::<f64>(), unit) {
            (Ok(number), Some((_, bytes))) if number > 0.0 && number.is_finite() => {
                Ok(Self::Bytes((number * bytes) as u64))
            }
            _ => Err("it must be auto, or a size such as 6GB, 6GiB or 800MB".into()),
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Bytes(bytes) => HumanBytes(*bytes).fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_their_units() {
        for (text, bytes) in [
            ("6GB", 6_000_000_000),
            ("1.5 GiB", 1_610_612_736),
            ("800mb", 800_000_000),
            ("64KiB", 65_536),
            (".5GB", 500_000_000),
        ] {
            assert_eq!(text.parse(), Ok(Limit::Bytes(bytes)), "{text}");
        }
        assert_eq!("auto".parse(), Ok(Limit::Auto));
        for text in ["6", "GB", "-1GB", "0GB", "6 potatoes", "", "infGB", "nanGB", "6G"] {
            let told = text.parse::<Limit>().unwrap_err();
            assert!(told.contains("6GB"), "{text}: {told}");
        }
    }
}
