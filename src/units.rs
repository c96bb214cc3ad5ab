//! Numbers for people: SI prefixes for counts, IEC prefixes for bytes, digits that mean something. Machines get exact values.

/// A count with an SI prefix and four significant digits: `300.8 M`; exact below 10 000.
pub fn si(n: u64) -> String {
    if n < 10_000 { n.to_string() } else { prefixed(n as f64, 1000.0, &["", " k", " M", " G", " T", " P", " E"]) }
}

/// Bytes with an IEC prefix: `13.4 MiB`.
pub fn iec(n: u64) -> String {
    if n < 1024 {
        return format!("{n} B");
    }
    prefixed(n as f64, 1024.0, &[" B", " KiB", " MiB", " GiB", " TiB", " PiB", " EiB"])
}

fn prefixed(mut v: f64, step: f64, prefixes: &[&str]) -> String {
    let mut i = 0;
    // 999.95 would print as 1000.0.
    while v >= step - step / 20_000.0 && i + 1 < prefixes.len() {
        v /= step;
        i += 1;
    }
    format!("{}{}", digits(v), prefixes[i])
}

/// A non-negative number with four significant digits at most one decimal more than useful: `1234`, `123.4`, `12.34`, `1.234`.
fn digits(v: f64) -> String {
    match v {
        v if v >= 999.95 => format!("{v:.0}"),
        v if v >= 99.995 => format!("{v:.1}"),
        v if v >= 9.9995 => format!("{v:.2}"),
        v => format!("{v:.3}"),
    }
}

/// Milliseconds with a fixed number of decimals that suits the size: `812`, `12.3`, `1.234`, `0.012`.
pub fn ms(v: f64) -> String {
    match v.abs() {
        a if a >= 999.5 => format!("{v:.0}"),
        a if a >= 99.95 => format!("{v:.1}"),
        a if a >= 9.995 => format!("{v:.2}"),
        _ => format!("{v:.3}"),
    }
}

/// A ratio or rate with two or three significant digits: `0.0047`, `0.12`, `8.25`, `33.1`, `812`.
pub fn rate(v: f64) -> String {
    match v.abs() {
        a if a > 0.0 && a < 0.000_095 => format!("{v:.0e}"),
        a if a > 0.0 && a < 0.0095 => format!("{v:.4}"),
        a if a > 0.0 && a < 0.095 => format!("{v:.3}"),
        a if a >= 99.95 => format!("{v:.0}"),
        a if a >= 9.995 => format!("{v:.1}"),
        _ => format!("{v:.2}"),
    }
}

/// A share in percent: `7.3 %`.
pub fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// An exact count with thousands separated by commas: `300,774,272`.
pub fn exact(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// `1 node`, `2 nodes`.
pub fn plural(n: usize, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well_at_every_size() {
        assert_eq!(si(9_999), "9999");
        assert_eq!(si(300_774_272), "300.8 M");
        assert_eq!(si(999_999_999), "1.000 G");
        assert_eq!(si(u64::MAX), "18.45 E");
        assert_eq!(iec(1023), "1023 B");
        assert_eq!(iec(14_019_488), "13.37 MiB");
        assert_eq!(iec(1 << 30), "1.000 GiB");
        assert_eq!(exact(0), "0");
        assert_eq!(exact(999), "999");
        assert_eq!(exact(300_774_272), "300,774,272");
        assert_eq!((ms(0.0123).as_str(), ms(12.345).as_str(), ms(1234.5).as_str()), ("0.012", "12.35", "1234"));
        assert_eq!((rate(0.0047).as_str(), rate(0.0), rate(8.254)), ("0.0047", "0.00".into(), "8.25".into()));
        assert_eq!(percent(0.0731), "7.3 %");
    }
}
