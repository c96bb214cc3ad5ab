//! Limits as formulas: `madds(seq=4096) < 2e12`, `2*madds(res=192) <= 3*madds(res=160) + 1_000_000`. Exact, as [`crate::formula`].

use super::snapshot::{METRICS, Metric};
use crate::error::{Error, Result};
use crate::formula::Formula;
use std::collections::BTreeMap;

/// Sizes at which a metric is asked for: dims of the model, or knobs of a built-in network.
pub type Sizes = BTreeMap<String, usize>;

/// A comparison of two formulas over a model's figures.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// As written.
    pub text: String,
    sides: [Formula; 2],
    relation: &'static str,
    asked: Vec<(String, Metric, Sizes)>,
}

const RELATIONS: &[&str] = &["<=", ">=", "==", "<", ">"];

impl Comparison {
    /// Reads a comparison.
    ///
    /// # Errors
    /// If it is none, or names what is no metric.
    pub fn parse(text: &str) -> Result<Comparison> {
        let wrong = |why: String| {
            Error::input(format!("formula '{text}': {why}"))
                .hint("for example \"madds(seq=4096) < 2e12\"; numbers are whole, so compare 2*a with 3*b, not 1.5*b")
        };
        let mut asked = Vec::new();
        let plain = calls_named(text, &mut asked).map_err(&wrong)?;
        let (at, relation) = RELATIONS
            .iter()
            .filter_map(|r| plain.find(r).map(|at| (at, *r)))
            .min_by_key(|(at, r)| (*at, std::cmp::Reverse(r.len())))
            .ok_or_else(|| wrong("compares nothing: it needs one of < <= > >= ==".into()))?;
        let side = |t: &str| Formula::parse(t).map_err(|e| wrong(e.message().to_string()));
        let sides = [side(&plain[..at])?, side(&plain[at + relation.len()..])?];
        for name in sides.iter().flat_map(Formula::names) {
            if asked.iter().any(|a| a.0 == name) {
                continue;
            }
            let Some(metric) = Metric::named(name) else {
                let known: Vec<&str> = METRICS.iter().map(|m| m.1).collect();
                return Err(wrong(format!("'{name}' is none of {}", known.join(", "))));
            };
            asked.push((name.to_string(), metric, Sizes::new()));
        }
        Ok(Comparison { text: text.trim().to_string(), sides, relation, asked })
    }

    /// All sizes it asks at.
    pub fn sizes(&self) -> impl Iterator<Item = &Sizes> {
        self.asked.iter().map(|a| &a.2)
    }

    /// The figure it is about: the first it names.
    pub fn metric(&self) -> Option<Metric> {
        self.asked.first().map(|a| a.1)
    }

    /// The same at another size, wherever it asks for one of that name.
    #[must_use]
    pub fn with(&self, name: &str, n: usize) -> Comparison {
        let mut other = self.clone();
        for (_, _, sizes) in &mut other.asked {
            sizes.entry(name.to_string()).and_modify(|size| *size = n);
        }
        other
    }

    /// Whether it holds with its sides' values; `None` where a figure is not known.
    ///
    /// # Errors
    /// If a figure cannot be counted, or a division does not come out even.
    pub fn holds(&self, of: &dyn Fn(Metric, &Sizes) -> Result<Option<u64>>) -> Result<Option<(bool, [i128; 2])>> {
        let mut values = BTreeMap::new();
        for (name, metric, sizes) in &self.asked {
            values.insert(name.as_str(), of(*metric, sizes)?.map(i128::from));
        }
        let lookup = |name: &str| values.get(name).copied().flatten();
        let (Some(a), Some(b)) = (self.sides[0].value(&lookup)?, self.sides[1].value(&lookup)?) else {
            return Ok(None);
        };
        let holds = match self.relation {
            "<=" => a <= b,
            ">=" => a >= b,
            "<" => a < b,
            ">" => a > b,
            _ => a == b,
        };
        Ok(Some((holds, [a, b])))
    }
}

/// Puts a name in the place of every `metric(dim=n, …)`.
fn calls_named(text: &str, asked: &mut Vec<(String, Metric, Sizes)>) -> std::result::Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(open) = rest.find('(') {
        let before = rest[..open].trim_end();
        let start = before.rfind(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).map_or(0, |i| i + 1);
        let Some(metric) = Metric::named(&before[start..]) else {
            out.push_str(&rest[..=open]);
            rest = &rest[open + 1..];
            continue;
        };
        let close = rest[open..].find(')').ok_or("a bracket is not closed")? + open;
        let mut sizes = Sizes::new();
        for part in rest[open + 1..close].split(',').filter(|p| !p.trim().is_empty()) {
            let (name, n) =
                part.split_once('=').ok_or_else(|| format!("'{}' is not of the form dim=N", part.trim()))?;
            let n = n.trim().replace('_', "").parse::<usize>().ok().filter(|n| *n > 0);
            let n = n.ok_or_else(|| format!("'{}' needs a size of at least 1", part.trim()))?;
            sizes.insert(name.trim().to_string(), n);
        }
        let name = format!("figure_{}", asked.len());
        out.push_str(&before[..start]);
        out.push_str(&name);
        asked.push((name, metric, sizes));
        rest = &rest[close + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_at_sizes_are_compared_exactly() {
        let of = |m: Metric, s: &Sizes| -> Result<Option<u64>> {
            let seq = s.get("seq").copied().unwrap_or(10) as u64;
            Ok(match m {
                Metric::Madds => Some(seq * seq),
                Metric::Params => Some(7),
                _ => None,
            })
        };
        let holds = |t: &str| Comparison::parse(t).unwrap().holds(&of).unwrap().map(|h| h.0);
        assert_eq!(holds("madds(seq=4096) < 2e7"), Some(true));
        assert_eq!(holds("madds( seq = 4_096 ) < 16777216"), Some(false));
        assert_eq!(holds("madds(seq=4096) <= 16777216"), Some(true));
        assert_eq!(holds("2 * madds(seq=20) >= 8 * madds"), Some(true));
        assert_eq!(holds("max(params, 3) == 7"), Some(true));
        assert_eq!(holds("madds(seq=4096) < 1.6777217e7"), Some(true));
        assert_eq!(holds("madds(seq=4096) < 1.6777216e7"), Some(false));
        assert_eq!(holds("bytes > 3"), None);
        let smaller = Comparison::parse("madds(seq=4096) < 2.5e7 - params").unwrap();
        assert_eq!(smaller.metric(), Some(Metric::Madds));
        assert_eq!(smaller.with("seq", 5000).holds(&of).unwrap().unwrap().1[0], 25_000_000);
        assert_eq!(smaller.with("batch", 5000), smaller);
        for text in [
            "madds",
            "madds(seq) < 3",
            "madds(seq=0) < 3",
            "speed < 3",
            "madds(seq=1 < 3",
            "madds < 1.5",
            "madds < 1.2345e3",
            "",
        ] {
            assert!(Comparison::parse(text).is_err(), "{text}");
        }
    }
}
