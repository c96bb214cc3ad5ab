//! GitLab code quality (a subset of Code Climate's format): what does not hold, at the configuration's lines.

use super::{Look, json};
use crate::budget::{Level, Outcome, Verdict};
use crate::error::Result;
use serde_json::{Value, json};

/// FNV-1a: the same for the same finding in every build.
fn fingerprint(text: &str) -> String {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    format!("{hash:016x}")
}

/// Makes the bytes.
pub fn render(v: &Verdict, _look: &Look) -> Result<Vec<u8>> {
    let one = |f: &crate::budget::Finding| {
        let severity = match (f.outcome, f.level) {
            (Outcome::Breach, Level::Error) => "critical",
            (_, Level::Error) => "major",
            _ => "minor",
        };
        json!({
            "description": f.sentence(),
            "check_name": format!("madd-prof {}", f.rule),
            "fingerprint": fingerprint(&format!("{}|{}|{}|{}", f.budget, f.model, f.rule, f.limit)),
            "severity": severity,
            "location": { "path": v.from_top(&v.config), "lines": { "begin": f.line } },
        })
    };
    let list: Vec<Value> = v.findings.iter().filter(|f| f.outcome != Outcome::Pass).map(one).collect();
    json::bytes(&list.into())
}
