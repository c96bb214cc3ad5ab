//! CSV (RFC 4180): one row per layer, overhead rows included, all columns always, exact numbers, no totals row (sums of columns are
//! the totals). For `bench`, which has no layers, one row per path.

use super::Look;
use super::columns::{COLUMNS, Cell};
use super::model::Report;
use crate::engine::Path;
use crate::error::{Error, Result};

/// Makes the bytes.
pub fn render(report: &Report, _look: &Look) -> Result<Vec<u8>> {
    let (keys, rows) = cells_of(report);
    records(&keys, &rows)
}

/// Keys and cells of a report: a row per layer, or for `bench`, which has none, a row per path.
pub(super) fn cells_of(report: &Report) -> (Vec<&'static str>, Vec<Vec<Cell>>) {
    if report.command != "bench" {
        let all = report.layers.iter().chain(&report.overhead);
        let rows = all.map(|l| COLUMNS.iter().map(|c| (c.get)(l, report)).collect());
        return (COLUMNS.iter().map(|c| c.key).collect(), rows.collect());
    }
    let keys = vec![
        "path",
        "runs",
        "min_ms",
        "median_ms",
        "p90_ms",
        "max_ms",
        "mad_ms",
        "warmup_runs",
        "threads",
        "isa",
        "prepare_ms",
        "floor_ms",
        "peak_resident_bytes",
        "first_ms",
    ];
    let row = |l: &super::model::Latency| {
        let ms = |s: f64| Cell::Ms(s * 1e3);
        let s = &l.stats;
        let floor = report.roofline.as_ref().filter(|_| l.path == Path::Optimized);
        vec![
            Cell::Text(l.path.name().to_string()),
            Cell::Count(s.runs as u64),
            ms(s.min),
            ms(s.median),
            ms(s.p90),
            ms(s.max),
            ms(s.mad),
            Cell::Count(l.warmup_runs as u64),
            Cell::Count(l.threads as u64),
            Cell::Text(l.isa.clone()),
            l.prepare_s.map_or(Cell::Blank, ms),
            floor.map_or(Cell::Blank, |r| Cell::Ms(r.floor_ms)),
            report.peak_resident_bytes.map_or(Cell::Blank, Cell::Bytes),
            l.first_s.map_or(Cell::Blank, ms),
        ]
    };
    (keys, report.latency.iter().map(row).collect())
}

/// A table of cells under a head.
pub(super) fn records(head: &[&str], rows: &[Vec<Cell>]) -> Result<Vec<u8>> {
    let mut out = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
    let failed = |e: csv::Error| Error::run(format!("the report cannot be written as CSV: {e}"));
    // A head may hold the name of a dim, which is a file's word as any.
    out.write_record(head.iter().map(|k| guarded(k))).map_err(failed)?;
    for row in rows {
        out.write_record(row.iter().map(cell)).map_err(failed)?;
    }
    out.into_inner().map_err(|e| Error::run(format!("the report cannot be written as CSV: {e}")))
}

fn cell(c: &Cell) -> String {
    match c {
        Cell::Text(s) | Cell::Name(s) => guarded(s),
        Cell::Shape(s) => s.to_string(),
        Cell::Count(n) | Cell::AtLeast(n) | Cell::Bytes(n) | Cell::AtLeastBytes(n) => n.to_string(),
        Cell::Ms(v) | Cell::Giga(v) | Cell::Ratio(v) | Cell::Share(v) | Cell::Efficiency(v) => v.to_string(),
        Cell::Delta(n) => n.to_string(),
        Cell::Flag(b) => b.to_string(),
        Cell::FusedInto(_) | Cell::Between(_) | Cell::Unknown | Cell::Blank => String::new(),
    }
}

/// Text that a spreadsheet would take for a formula gets an apostrophe in front (OWASP, "CSV Injection"), also where the sign is
/// full-width or behind blanks. Control characters, which readers stumble over, become U+FFFD.
fn guarded(text: &str) -> String {
    let risky = |c: char| matches!(c, '=' | '+' | '-' | '@' | '＝' | '＋' | '－' | '＠' | '|' | '%');
    let first = text.trim_start().chars().next();
    let armed = first.is_some_and(risky) || text.starts_with(['\t', '\r', '\n']);
    let clean: String =
        text.chars().map(|c| if c.is_control() && !matches!(c, '\n' | '\r' | '\t') { '\u{FFFD}' } else { c }).collect();
    if armed { format!("'{clean}") } else { clean }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formulas_are_disarmed_and_numbers_are_exact() {
        assert_eq!(cell(&Cell::Name("=HYPERLINK(\"x\")".into())), "'=HYPERLINK(\"x\")");
        for text in ["@SUM(1)", " =1+1", "＝1", "\t=1", "-1", "\n=1"] {
            assert!(cell(&Cell::Name(text.into())).starts_with('\''), "{text}");
        }
        assert_eq!(cell(&Cell::Name("a=b".into())), "a=b");
        assert_eq!(cell(&Cell::Name("a\u{0}\u{1b}b".into())), "a\u{FFFD}\u{FFFD}b");
        assert_eq!(cell(&Cell::Delta(-5)), "-5");
        let head = records(&["=dim"], &[vec![Cell::Name("a,\"b\"\nc".into())]]).unwrap();
        assert_eq!(String::from_utf8(head).unwrap(), "'=dim\r\n\"a,\"\"b\"\"\nc\"\r\n");
        assert_eq!(cell(&Cell::Count(300_774_272)), "300774272");
        assert_eq!(cell(&Cell::Ms(0.1 + 0.2)), "0.30000000000000004");
        assert_eq!(cell(&Cell::Unknown), "");
    }
}
