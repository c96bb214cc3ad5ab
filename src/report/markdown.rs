//! Markdown: the same tables for pull requests and notes.

use super::columns::{COLUMNS, applies, total_row};
use super::model::{Layer, Report};
use super::{Look, people};
use crate::error::Result;

/// Text that keeps its meaning inside a table cell.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '|' | '\\' | '`' | '*' | '_' | '<' | '>' | '[' | ']' => out.extend(['\\', c]),
            '\n' | '\r' => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// GitHub takes at most 1 MiB for a job summary; comments take less and are cut by who posts them.
const MOST_BYTES: usize = 1 << 20;

/// Cuts what is longer than a job summary may be, between lines, and says where the rest is.
pub(super) fn within_limit(mut text: String, _look: &Look) -> String {
    const POINTER: &str =
        "\n…\n\nCut at 1 MiB: `--format csv` and `json` hold everything, `--top N` and `--depth N` make it shorter.\n";
    if text.len() <= MOST_BYTES {
        return text;
    }
    let most = MOST_BYTES - POINTER.len();
    let end = text.as_bytes()[..most].iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1);
    text.truncate(end);
    text.push_str(POINTER);
    text
}

pub(super) fn line(cells: impl Iterator<Item = String>) -> String {
    let mut out = String::from("|");
    for c in cells {
        out.push_str(&format!(" {c} |"));
    }
    out.push('\n');
    out
}

/// Writes the report.
pub fn render(report: &Report, look: &Look) -> Result<Vec<u8>> {
    let mut out = format!("## {}\n\n", escaped(&people::heading(report)));
    out.push_str("| | | |\n|:--|--:|:--|\n");
    for (name, value, remark) in people::totals(report) {
        out.push_str(&line([escaped(&name), value, escaped(&remark)].into_iter()));
    }
    for l in &report.lenses {
        let (name, rows) = people::rosetta(l);
        out.push_str(&format!("\n| as {} | nodes | |\n|--:|--:|:--|\n", escaped(&name)));
        for [amount, nodes, why] in rows {
            out.push_str(&line([escaped(&amount), nodes, escaped(&why)].into_iter()));
        }
        for note in &l.notes {
            out.push_str(&format!("\n{}\n", escaped(note)));
        }
    }
    if !report.latency.is_empty() {
        out.push_str("\n| path | latency |\n|:--|:--|\n");
        for (path, text) in people::latencies(report) {
            out.push_str(&line([path, escaped(&text)].into_iter()));
        }
    }
    if !report.findings.is_empty() {
        out.push('\n');
        for sentence in &report.findings {
            out.push_str(&format!("- {}\n", escaped(sentence)));
        }
    }
    if !report.layers.is_empty() {
        out.push('\n');
        let total = total_row(report);
        let columns: Vec<_> = COLUMNS.iter().filter(|c| c.title.is_some() && applies(c, report)).collect();
        out.push_str(&line(columns.iter().map(|c| c.title.unwrap_or_default().to_string())));
        let side = |key: &str| if matches!(key, "name" | "op" | "output_shape") { ":--" } else { "--:" };
        out.push_str(&line(columns.iter().map(|c| side(c.key).to_string())));
        let rows: Vec<&Layer> = report.layers.iter().chain(&report.overhead).chain([&total]).collect();
        for l in rows {
            out.push_str(&line(columns.iter().map(|c| {
                let cell = (c.get)(l, report);
                let text = escaped(&if c.key == "name" { people::display_name(l, true) } else { people::cell(&cell) });
                // Indentation would be lost in a table cell.
                let text = if l.nesting.is_some() && c.key == "name" { text.replace("  ", "&emsp;") } else { text };
                if c.key == "name" && l.repeat > 1 { format!("{text} ×{}", l.repeat) } else { text }
            })));
        }
        for remark in people::remarks(report) {
            out.push_str(&format!("\n{remark}\n"));
        }
    }
    Ok(within_limit(out, look).into_bytes())
}
