//! CSV (RFC 4180): one row per layer, overhead rows included, all columns always, exact numbers, no totals row (sums of columns are
//! the totals). For `bench`, which has no layers, one row per path.

use super::Look;
use super::columns::{COLUMNS, Cell};
use super::model::Report;
use crate::engine::Path;
use crate::error::{Error, Result};

/// Makes the bytes.
pub fn render(report: &Report, _look: &Look) -> Result<Vec<u8>> {
    let mut out = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
    let failed = |e: csv::Error| Error::run(format!("the report cannot be written as CSV: {e}"));
    if report.command == "bench" {
        let head = [
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
        ];
        out.write_record(head).map_err(failed)?;
        for l in &report.latency {
            let ms = |s: f64| (s * 1e3).to_string();
            let s = &l.stats;
            out.write_record([
                l.path.name().to_string(),
                s.runs.to_string(),
                ms(s.min),
                ms(s.median),
                ms(s.p90),
                ms(s.max),
                ms(s.mad),
                l.warmup_runs.to_string(),
                l.threads.to_string(),
                l.isa.clone(),
                l.prepare_s.map_or(String::new(), ms),
                report
                    .roofline
                    .as_ref()
                    .filter(|_| l.path == Path::Optimized)
                    .map_or(String::new(), |r| r.floor_ms.to_string()),
                report.peak_resident_bytes.map_or(String::new(), |n| n.to_string()),
            ])
            .map_err(failed)?;
        }
    } else {
        out.write_record(COLUMNS.iter().map(|c| c.key)).map_err(failed)?;
        for l in report.layers.iter().chain(&report.overhead) {
            out.write_record(COLUMNS.iter().map(|c| cell(&(c.get)(l, report)))).map_err(failed)?;
        }
    }
    out.into_inner().map_err(|e| Error::run(format!("the report cannot be written as CSV: {e}")))
}

/// A table of cells under a head.
pub(super) fn records(head: &[&str], rows: &[Vec<Cell>]) -> Result<Vec<u8>> {
    let mut out = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
    let failed = |e: csv::Error| Error::run(format!("the report cannot be written as CSV: {e}"));
    out.write_record(head).map_err(failed)?;
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
        Cell::Flag(b) => b.to_string(),
        Cell::FusedInto(_) | Cell::Between(_) | Cell::Unknown | Cell::Blank => String::new(),
    }
}

/// Text that a spreadsheet would take for a formula gets an apostrophe in front (OWASP, "CSV Injection").
fn guarded(text: &str) -> String {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']) { format!("'{text}") } else { text.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formulas_are_disarmed_and_numbers_are_exact() {
        assert_eq!(cell(&Cell::Name("=HYPERLINK(\"x\")".into())), "'=HYPERLINK(\"x\")");
        assert_eq!(cell(&Cell::Name("a=b".into())), "a=b");
        assert_eq!(cell(&Cell::Count(300_774_272)), "300774272");
        assert_eq!(cell(&Cell::Ms(0.1 + 0.2)), "0.30000000000000004");
        assert_eq!(cell(&Cell::Unknown), "");
    }
}
