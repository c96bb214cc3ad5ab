//! What `check` found, for people: text, Markdown, and the same findings as CSV and JSON. What machines obey has a file each.

use super::columns::Cell;
use super::grid::{self, Grid, GridColumn};
use super::{Look, SCHEMA, json, markdown, text};
use crate::budget::{Finding, Level, Outcome, Verdict};
use crate::error::{Error, Result, printable};
use crate::units::{exact, plural};
use serde_json::json;

/// One row of the format table.
pub struct VerdictFormat {
    /// Name on the command line.
    pub name: &'static str,
    /// Endings of file names that mean it.
    pub endings: &'static [&'static str],
    /// Makes the bytes.
    pub render: fn(&Verdict, &Look) -> Result<Vec<u8>>,
}

/// The formats of `check`.
pub static VERDICT_FORMATS: &[VerdictFormat] = &[
    VerdictFormat { name: "table", endings: &["txt"], render: table },
    VerdictFormat { name: "markdown", endings: &["md", "markdown"], render: as_markdown },
    VerdictFormat { name: "json", endings: &["json"], render: as_json },
    VerdictFormat { name: "csv", endings: &["csv"], render: as_csv },
    VerdictFormat { name: "junit", endings: &["xml"], render: super::junit::render },
    VerdictFormat { name: "sarif", endings: &["sarif"], render: super::sarif::render },
    VerdictFormat { name: "github", endings: &[], render: super::github::render },
    VerdictFormat { name: "gitlab", endings: &[], render: super::gitlab::render },
];

/// The format of a name.
///
/// # Errors
/// If there is none.
pub fn verdict_format(name: &str) -> Result<&'static VerdictFormat> {
    VERDICT_FORMATS.iter().find(|f| f.name == name).ok_or_else(|| {
        let names: Vec<&str> = VERDICT_FORMATS.iter().map(|f| f.name).collect();
        Error::usage(format!("check has no format '{name}'")).hint(format!("formats: {}", names.join(", ")))
    })
}

/// One line about the whole.
pub fn summary(v: &Verdict) -> String {
    let count = |o: Outcome, level: Level| v.of(o).filter(|f| f.level == level).count();
    let mut parts = Vec::new();
    let breaches = count(Outcome::Breach, Level::Error);
    parts.push(if breaches == 1 { "1 breach".to_string() } else { format!("{breaches} breaches") });
    match count(Outcome::Breach, Level::Warn) {
        0 => {}
        n => parts.push(plural(n, "warning")),
    }
    match v.of(Outcome::CannotTell).count() {
        0 => {}
        n => parts.push(format!("{n} cannot be told")),
    }
    parts.push(format!("{} within", v.of(Outcome::Pass).count()));
    format!("{} on {}: {}", plural(v.findings.len(), "limit"), plural(v.models, "model"), parts.join(", "))
}

/// Breaches first, then what cannot be told, then the rest; each in the file's order.
fn ordered(v: &Verdict) -> Vec<&Finding> {
    let rank = |f: &Finding| match (f.outcome, f.level) {
        (Outcome::Breach, Level::Error) => 0,
        (Outcome::Breach, _) => 1,
        (Outcome::CannotTell, _) => 2,
        _ => 3,
    };
    let mut all: Vec<&Finding> = v.findings.iter().collect();
    all.sort_by_key(|f| rank(f));
    all
}

/// The word for a finding: a breach that only warns is no breach.
fn word(f: &Finding) -> &'static str {
    match (f.outcome, f.level) {
        (Outcome::Breach, Level::Warn) => "warning",
        _ => f.outcome.words(),
    }
}

fn culprits(f: &Finding) -> Vec<String> {
    let one = |c: &crate::budget::Culprit| {
        let sign = if c.how == "largest" { "" } else { "+" };
        let how = if c.how == "largest" { "" } else { c.how };
        let text = format!("{} ({}) {how} {sign}{}", printable(&c.layer), printable(&c.op), exact(c.amount));
        text.replace(")  ", ") ")
    };
    f.culprits.iter().map(one).collect()
}

fn table(v: &Verdict, look: &Look) -> Result<Vec<u8>> {
    let width = look.width.max(40);
    let mut out = text::wrap(&format!("{} · {}", printable(&v.config), summary(v)), "", "  ", width);
    out.push('\n');
    for f in ordered(v) {
        let subject = if f.budget == f.model { String::new() } else { format!(" ({})", printable(&f.model)) };
        let head = format!("{:<12}", word(f));
        if f.outcome == Outcome::Pass {
            let line = format!("{}{subject}: {} is {}, {}", printable(&f.budget), f.rule, printable(&f.found), f.limit);
            out.push_str(&text::wrap(&line, &head, &" ".repeat(14), width));
            continue;
        }
        let line = format!("{}{subject}: {} ({} line {})", printable(&f.budget), f.rule, printable(&v.config), f.line);
        out.push_str(&text::wrap(&line, &head, &" ".repeat(14), width));
        let mut say = |label: &str, words: &str| {
            out.push_str(&text::wrap(words, &format!("{:12}{label:<9}", ""), &" ".repeat(23), width));
        };
        say("found", &printable(&f.found));
        say("allowed", &f.limit);
        for c in culprits(f) {
            say("layer", &c);
        }
        for n in &f.notes {
            say("note", &printable(n));
        }
    }
    Ok(out.into_bytes())
}

fn as_markdown(v: &Verdict, look: &Look) -> Result<Vec<u8>> {
    let escaped = markdown::escaped;
    let mut out = format!("## madd-prof: {}\n\n", escaped(&summary(v)));
    let head = |out: &mut String| {
        out.push_str("| | Budget | Limit | Found | Allowed | Layer |\n|:--|:--|:--|:--|:--|:--|\n");
    };
    let row = |f: &Finding| {
        let subject = if f.budget == f.model { f.budget.clone() } else { format!("{} ({})", f.budget, f.model) };
        let layers = culprits(f).iter().take(3).map(|c| escaped(c)).collect::<Vec<_>>().join("<br>");
        let word = if word(f) == "BREACH" { "**BREACH**".to_string() } else { word(f).to_string() };
        let cells = [word, escaped(&subject), format!("`{}`", f.rule), escaped(&f.found), escaped(&f.limit), layers];
        markdown::line(cells.into_iter())
    };
    let (bad, good): (Vec<&Finding>, Vec<&Finding>) = ordered(v).into_iter().partition(|f| f.outcome != Outcome::Pass);
    if !bad.is_empty() {
        head(&mut out);
        bad.iter().for_each(|f| out.push_str(&row(f)));
        out.push('\n');
        for f in bad.iter().filter(|f| !f.notes.is_empty()) {
            for note in &f.notes {
                out.push_str(&format!("- {} `{}`: {}\n", escaped(&f.budget), f.rule, escaped(note)));
            }
        }
    }
    if !good.is_empty() {
        out.push_str(&format!("\n<details><summary>{} within</summary>\n\n", plural(good.len(), "limit")));
        head(&mut out);
        good.iter().for_each(|f| out.push_str(&row(f)));
        out.push_str("\n</details>\n");
    }
    Ok(markdown::within_limit(out, look).into_bytes())
}

fn as_json(v: &Verdict, _look: &Look) -> Result<Vec<u8>> {
    let finding = |f: &Finding| {
        json!({
            "budget": f.budget,
            "model": f.model,
            "rule": f.rule,
            "outcome": f.outcome.name(),
            "level": f.level.name(),
            "value": f.value.map(json::whole),
            "bound": f.bound.map(json::whole),
            "found": f.found,
            "limit": f.limit,
            "layers": f.culprits.iter().map(|c| json!({
                "name": c.layer, "op": c.op, "amount": c.amount, "how": c.how,
            })).collect::<Vec<_>>(),
            "notes": f.notes,
            "line": f.line,
        })
    };
    json::bytes(&json!({
        "schema": SCHEMA,
        "tool": { "name": "madd-prof", "version": env!("CARGO_PKG_VERSION"), "command": "check" },
        "config": v.config,
        "outcome": v.outcome().name(),
        "models": v.models,
        "findings": v.findings.iter().map(finding).collect::<Vec<_>>(),
    }))
}

fn as_csv(v: &Verdict, look: &Look) -> Result<Vec<u8>> {
    let keys =
        ["outcome", "level", "budget", "model", "rule", "value", "bound", "found", "limit", "layer", "op", "line"];
    let text = |s: &str| Cell::Text(s.to_string());
    let number = |v: Option<f64>| v.map_or(Cell::Blank, Cell::Ratio);
    let row = |f: &Finding| {
        let c = f.culprits.first();
        vec![
            text(f.outcome.name()),
            text(f.level.name()),
            text(&f.budget),
            text(&f.model),
            text(&f.rule),
            number(f.value),
            number(f.bound),
            text(&f.found),
            text(&f.limit),
            c.map_or(Cell::Blank, |c| Cell::Name(c.layer.clone())),
            c.map_or(Cell::Blank, |c| Cell::Name(c.op.clone())),
            Cell::Count(f.line as u64),
        ]
    };
    let grid = Grid {
        name: "findings",
        columns: keys.iter().map(|k| GridColumn::new(k, k)).collect(),
        rows: v.findings.iter().map(row).collect(),
        ..Grid::default()
    };
    grid::render(&grid, "csv", look)
}
