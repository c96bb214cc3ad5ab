//! JUnit XML of `check`: a suite per budget and model, a test case per limit. A breach is a failure, what cannot be told an error; what
//! only warns is skipped with its message.

use super::Look;
use crate::budget::{Finding, Level, Outcome, Verdict};
use crate::error::Result;

/// Text inside XML: markup escaped, control characters that XML 1.0 cannot hold replaced.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            '\n' => out.push_str("&#10;"),
            '\t' => out.push_str("&#9;"),
            c if c.is_control() || matches!(c, '\u{FFFE}' | '\u{FFFF}') => out.push('\u{FFFD}'),
            c => out.push(c),
        }
    }
    out
}

/// Suite, then its cases.
fn suites(v: &Verdict) -> Vec<(String, Vec<&Finding>)> {
    let mut out: Vec<(String, Vec<&Finding>)> = Vec::new();
    for f in &v.findings {
        let name = if f.budget == f.model { f.budget.clone() } else { format!("{} ({})", f.budget, f.model) };
        match out.iter_mut().find(|s| s.0 == name) {
            Some(s) => s.1.push(f),
            None => out.push((name, vec![f])),
        }
    }
    out
}

fn counts(all: &[&Finding]) -> String {
    let of = |o: Outcome, l: Level| all.iter().filter(|f| f.outcome == o && f.level == l).count();
    let skipped = of(Outcome::Breach, Level::Warn) + of(Outcome::CannotTell, Level::Warn);
    format!(
        "tests=\"{}\" failures=\"{}\" errors=\"{}\" skipped=\"{skipped}\"",
        all.len(),
        of(Outcome::Breach, Level::Error),
        of(Outcome::CannotTell, Level::Error)
    )
}

/// Makes the bytes.
pub fn render(v: &Verdict, _look: &Look) -> Result<Vec<u8>> {
    let all: Vec<&Finding> = v.findings.iter().collect();
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    out.push_str(&format!("<testsuites name=\"madd-prof\" {} time=\"0\">\n", counts(&all)));
    for (name, cases) in suites(v) {
        out.push_str(&format!("  <testsuite name=\"{}\" {} time=\"0\">\n", escaped(&name), counts(&cases)));
        for f in cases {
            let file = escaped(&v.from_top(&v.config));
            let head = format!(
                "    <testcase name=\"{}\" classname=\"{}\" file=\"{file}\" line=\"{}\" time=\"0\"",
                escaped(&format!("{}: {}", f.rule, f.limit)),
                escaped(&name),
                f.line
            );
            out.push_str(&head);
            if f.outcome == Outcome::Pass {
                out.push_str("/>\n");
                continue;
            }
            let kind = match (f.outcome, f.level) {
                (_, Level::Warn | Level::Off) => "skipped",
                (Outcome::Breach, _) => "failure",
                _ => "error",
            };
            let message = escaped(&f.sentence());
            let mut body = Vec::new();
            for c in &f.culprits {
                body.push(format!("layer {} ({}): {} {}", c.layer, c.op, c.how, c.amount));
            }
            body.extend(f.notes.iter().cloned());
            let of_type = if kind == "skipped" { String::new() } else { format!(" type=\"{}\"", escaped(&f.rule)) };
            out.push_str(&format!(
                ">\n      <{kind} message=\"{message}\"{of_type}>{}</{kind}>\n    </testcase>\n",
                escaped(&body.join("\n"))
            ));
        }
        out.push_str("  </testsuite>\n");
    }
    out.push_str("</testsuites>\n");
    Ok(out.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn nothing_breaks_out_of_xml() {
        assert_eq!(escaped("a<b>&\"'\u{1b}\n"), "a&lt;b&gt;&amp;&quot;&apos;\u{FFFD}&#10;");
    }
}
