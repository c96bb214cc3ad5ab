//! GitHub annotations: workflow commands at the configuration's lines. GitHub shows 10 errors and 10 warnings of a step; what is more
//! is told in the last one.

use super::Look;
use crate::budget::{Finding, Level, Outcome, Verdict};
use crate::error::Result;

/// Annotations of one kind that GitHub shows for a step.
pub const MOST: usize = 10;

fn message(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn property(text: &str) -> String {
    message(text).replace(':', "%3A").replace(',', "%2C")
}

fn commands(out: &mut String, kind: &str, config: &str, list: &[&Finding]) {
    let shown = if list.len() > MOST { MOST - 1 } else { list.len() };
    for f in &list[..shown] {
        let title = property(&format!("{}: {}", f.budget, f.rule));
        out.push_str(&format!(
            "::{kind} file={},line={},title={title}::{}\n",
            property(config),
            f.line,
            message(&f.sentence())
        ));
    }
    if list.len() > shown {
        let text = format!("{} more; the job summary lists all", list.len() - shown);
        out.push_str(&format!("::{kind} title=madd-prof::{text}\n"));
    }
}

/// Makes the bytes.
pub fn render(v: &Verdict, _look: &Look) -> Result<Vec<u8>> {
    // What cannot be told fails a step as a breach does, where its level is error.
    let of = |level: Level| -> Vec<&Finding> {
        let mut list: Vec<&Finding> =
            v.findings.iter().filter(|f| f.outcome != Outcome::Pass && f.level == level).collect();
        list.sort_by_key(|f| f.outcome != Outcome::Breach);
        list
    };
    let (mut out, config) = (String::new(), v.from_top(&v.config));
    commands(&mut out, "error", &config, &of(Level::Error));
    commands(&mut out, "warning", &config, &of(Level::Warn));
    Ok(out.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_stay_on_their_line_and_within_the_limits() {
        assert_eq!(message("50 %\nx"), "50 %25%0Ax");
        assert_eq!(property("a:b,c"), "a%3Ab%2Cc");
        let f = Finding {
            budget: "b".into(),
            model: "m".into(),
            is_file: false,
            rule: "madds".into(),
            limit: "l".into(),
            found: "f\n::error::injected".into(),
            value: None,
            bound: None,
            outcome: Outcome::Breach,
            level: Level::Error,
            culprits: vec![],
            notes: vec![],
            line: 3,
        };
        let warn = Finding { level: Level::Warn, ..f.clone() };
        let mut findings = vec![f; 25];
        findings.extend(vec![warn; 10]);
        let v = Verdict { config: "c".into(), findings, models: 1, ..Verdict::default() };
        let text = String::from_utf8(render(&v, &Look { width: 80 }).unwrap()).unwrap();
        let count = |k: &str| text.lines().filter(|l| l.starts_with(k)).count();
        assert_eq!((count("::error"), count("::warning"), text.lines().count()), (10, 10, 20));
        assert!(text.contains("16 more; the job summary lists all"));
    }
}
