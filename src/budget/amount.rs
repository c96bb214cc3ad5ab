//! Exact amounts as people write them: `3.6M`, `14 MiB`, `2e9`, `2.5%`.

use crate::error::{Error, Result};

/// A decimal number, exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decimal {
    /// Digits without the point.
    pub num: i128,
    /// Power of ten it is divided by.
    pub den: i128,
}

impl Decimal {
    /// Reads digits with at most one point and an exponent.
    fn parse(text: &str) -> Option<Decimal> {
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((m, e)) => (m, e.parse::<u32>().ok().filter(|e| *e <= 24)?),
            None => (text, 0),
        };
        let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = format!("{whole}{part}");
        if digits.is_empty() || digits.len() > 18 || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let num = digits.parse::<i128>().ok()?.checked_mul(10i128.checked_pow(exponent)?)?;
        Some(Decimal { num, den: 10i128.pow(u32::try_from(part.len()).ok()?) })
    }
    /// As a floating-point number.
    pub fn value(self) -> f64 {
        self.num as f64 / self.den as f64
    }
}

const UNITS: &[(&str, i128)] = &[
    ("ki", 1 << 10),
    ("mi", 1 << 20),
    ("gi", 1 << 30),
    ("ti", 1 << 40),
    ("k", 1_000),
    ("m", 1_000_000),
    ("g", 1_000_000_000),
    ("t", 1_000_000_000_000),
];

/// A count or bytes: decimal or binary prefixes, an optional `B` at the end, `_` and spaces anywhere. A part of one is dropped, so that
/// `1.3MiB` is what fits into it.
///
/// # Errors
/// If it is no amount.
pub fn amount(text: &str) -> Result<u64> {
    let wrong = || {
        Error::input(format!("'{text}' is no amount"))
            .hint("for example 3_600_000, \"3.6M\", \"2e9\" or \"14MiB\" (k M G T are decimal, Ki Mi Gi Ti binary)")
    };
    let plain: String = text.chars().filter(|c| !matches!(c, '_' | ' ' | ',')).collect();
    let plain = plain.strip_suffix(['B', 'b']).unwrap_or(&plain).to_ascii_lowercase();
    let (digits, unit) =
        UNITS.iter().find_map(|(name, unit)| plain.strip_suffix(name).map(|rest| (rest, *unit))).unwrap_or((&plain, 1));
    let d = Decimal::parse(digits).ok_or_else(wrong)?;
    let n = d.num.checked_mul(unit).map(|n| n / d.den).ok_or_else(wrong)?;
    u64::try_from(n).map_err(|_| wrong())
}

/// How much something may grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Growth {
    /// By this share, in percent.
    Percent(Decimal),
    /// By this much.
    Amount(u64),
}

impl Growth {
    /// Reads `2.5%` or an amount.
    ///
    /// # Errors
    /// If it is neither.
    pub fn parse(text: &str) -> Result<Growth> {
        match text.trim().strip_suffix('%') {
            Some(share) => Decimal::parse(share.trim())
                .map(Growth::Percent)
                .ok_or_else(|| Error::input(format!("'{text}' is no share")).hint("for example \"2.5%\"")),
            None => amount(text).map(Growth::Amount),
        }
    }
    /// The most that is allowed from `base` on, rounded down.
    pub fn most(self, base: u64) -> u64 {
        let most = match self {
            Growth::Amount(n) => i128::from(base) + i128::from(n),
            // At most 2^64 · (10^42 + …) would not fit; shares of more than a million percent are taken as that.
            Growth::Percent(d) => {
                let share = d.num.min(1_000_000 * d.den);
                let whole = 100 * d.den;
                i128::from(base) + i128::from(base).saturating_mul(share) / whole
            }
        };
        u64::try_from(most).unwrap_or(u64::MAX)
    }
    /// In words.
    pub fn words(self) -> String {
        match self {
            Growth::Percent(d) => format!("{} %", d.value()),
            Growth::Amount(n) => crate::units::exact(n),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_exact() {
        for (text, want) in [
            ("3.6M", 3_600_000),
            ("3_600_000", 3_600_000),
            ("14 MiB", 14 << 20),
            ("1.3MiB", 1_363_148),
            ("2e9", 2_000_000_000),
            ("2.5e3", 2500),
            ("0", 0),
            ("300,774,272", 300_774_272),
            ("40MB", 40_000_000),
            ("1Ti", 1 << 40),
        ] {
            assert_eq!(amount(text).unwrap(), want, "{text}");
        }
        for text in ["", "-1", "many", "1.2.3", "1e99", "99999999999999999999", "M", "5%"] {
            assert!(amount(text).is_err(), "{text}");
        }
    }

    #[test]
    fn growth_is_exact_at_the_border() {
        let g = |t: &str, base| Growth::parse(t).unwrap().most(base);
        assert_eq!(g("2.5%", 1000), 1025);
        assert_eq!(g("2.5%", 999), 1023);
        assert_eq!(g("0", 7), 7);
        assert_eq!(g("0%", u64::MAX), u64::MAX);
        assert_eq!(g("1k", 7), 1007);
        assert_eq!(g("100%", 1 << 62), 1 << 63);
        assert!(Growth::parse("2.5 percent").is_err() && Growth::parse("%").is_err());
    }
}
