//! HTML: one file that needs nothing else, no network, light and dark. The page's parts are in `html/`; here they are put together
//! with the report's cells. Charts are Apache ECharts (Apache License 2.0), built by `fixtures/html` and embedded as it is.

use super::columns::{COLUMNS, Cell, applies, total_row};
use super::grid::Grid;
use super::model::{Layer, Report};
use super::modules::{self, Line};
use super::{Look, json, people};
use crate::error::{Error, Result};
use serde_json::{Value, json};

const PAGE: &str = include_str!("html/page.html");
const STYLE: &str = include_str!("html/style.css");
const CHARTS: &str = include_str!("html/echarts.min.js");
const SCRIPT: &[&str] = &[
    include_str!("html/base.js"),
    include_str!("html/table.js"),
    include_str!("html/charts.js"),
    include_str!("html/compare.js"),
    include_str!("html/page.js"),
];

/// Makes the page of a report.
pub fn render(report: &Report, _look: &Look) -> Result<Vec<u8>> {
    let columns: Vec<_> = COLUMNS.iter().filter(|c| applies(c, report)).collect();
    let cells = |l: &Layer| -> Vec<Value> { columns.iter().map(|c| cell(&(c.get)(l, report))).collect() };
    let units: Vec<Value> = columns
        .iter()
        .map(|c| {
            let unit = report.layers.iter().chain(&report.overhead).find_map(|l| unit(&(c.get)(l, report)));
            json!({ "key": c.key, "title": c.title.unwrap_or(c.key), "shown": c.title.is_some(), "unit": unit.unwrap_or("text") })
        })
        .collect();
    let line = |line: Line| match line {
        Line::Row { at, level, said } => {
            let l = Layer { nesting: Some((0, said)), bodies: Vec::new(), ..report.layers[at].clone() };
            json!([level, at, people::display_name(&l, true)])
        }
        Line::Module(sum) => {
            let (level, said) = sum.nesting.unwrap_or_default();
            let name = people::display_name(&Layer { nesting: Some((0, said)), ..(*sum).clone() }, true);
            json!([level, -1, name, cells(&sum)])
        }
    };
    let steps = report.steps.iter().map(|s| {
        json!([
            s.label,
            s.kernel,
            s.covers,
            s.ms,
            s.class.map(|c| c.words()),
            s.madds,
            s.flops,
            s.bytes,
            s.live_bytes,
            s.bound.map(|b| b.name()),
            s.attainable_ms
        ])
    });
    let data = json!({
        "kind": "report",
        "heading": people::heading(report),
        "report": json::document(report),
        "columns": units,
        "rows": report.layers.iter().map(cells).collect::<Vec<_>>(),
        "labels": report.layers.iter().map(|l| people::display_name(l, true)).collect::<Vec<_>>(),
        "paths": report.layers.iter().map(|l| l.path.join("/")).collect::<Vec<_>>(),
        "overhead": report.overhead.iter().map(cells).collect::<Vec<_>>(),
        "total": cells(&total_row(report)),
        "tree": modules::tree(&report.layers, report.main).into_iter().map(line).collect::<Vec<_>>(),
        "classes": report.classes.iter().map(|c| json!([c.class.name(), c.class.words()])).collect::<Vec<_>>(),
        "steps": steps.collect::<Vec<_>>(),
        "main": report.main.map(|p| p.name()),
        "facts": people::totals(report),
        "latencies": people::latencies(report),
    });
    page(&people::heading(report), &data)
}

/// Makes the page of a table that is not about layers: several models side by side, and others.
///
/// # Errors
/// If it cannot be written as JSON.
pub(super) fn render_grid(grid: &Grid) -> Result<Vec<u8>> {
    let columns: Vec<Value> = (0..grid.columns.len())
        .map(|i| {
            let (c, unit) = (&grid.columns[i], grid.rows.iter().find_map(|r| unit(&r[i])));
            let title = c.title.as_deref().unwrap_or(&c.key);
            json!({ "key": c.key, "title": title, "shown": c.title.is_some(), "unit": unit.unwrap_or("text") })
        })
        .collect();
    let data = json!({
        "kind": "grid",
        "name": grid.name,
        "heading": grid.heading,
        "summary": grid.summary,
        "columns": columns,
        "rows": grid.rows.iter().map(|r| r.iter().map(cell).collect()).collect::<Vec<Vec<Value>>>(),
        "notes": grid.notes,
        "extra": grid.extra.iter().cloned().collect::<serde_json::Map<_, _>>(),
        "version": env!("CARGO_PKG_VERSION"),
    });
    page(&grid.heading, &data)
}

fn page(title: &str, data: &Value) -> Result<Vec<u8>> {
    let data = serde_json::to_string(data)
        .map_err(|e| Error::run(format!("the report cannot be written as HTML: {e}")))?
        // Nothing in a name may end the element it stands in.
        .replace('<', "\\u003c");
    let script = SCRIPT.concat();
    let parts = [
        ("title", escaped(title)),
        ("style", STYLE.into()),
        ("charts", CHARTS.into()),
        ("data", data),
        ("script", script),
    ];
    let mut out = String::with_capacity(PAGE.len() + parts.iter().map(|p| p.1.len()).sum::<usize>());
    let mut rest = PAGE;
    while let Some((before, after)) = rest.split_once("{{") {
        let Some((name, after)) = after.split_once("}}") else { break };
        out.push_str(before);
        out.push_str(parts.iter().find(|p| p.0 == name).map_or("", |p| &p.1));
        rest = after;
    }
    out.push_str(rest);
    Ok(out.into_bytes())
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// What a cell is measured in, for the page to format and to align.
fn unit(c: &Cell) -> Option<&'static str> {
    Some(match c {
        Cell::Text(_) => "text",
        Cell::Name(_) => "name",
        Cell::Shape(_) => "shape",
        Cell::Count(_) | Cell::AtLeast(_) | Cell::Between(_) => "count",
        Cell::Delta(_) => "delta",
        Cell::Bytes(_) | Cell::AtLeastBytes(_) => "bytes",
        Cell::Ms(_) => "ms",
        Cell::Giga(_) | Cell::Ratio(_) => "ratio",
        Cell::Share(_) => "share",
        Cell::Efficiency(_) => "efficiency",
        Cell::Flag(_) => "flag",
        Cell::FusedInto(_) | Cell::Unknown | Cell::Blank => return None,
    })
}

/// A cell's value; what is not a plain value says why: `{"least": n}`, `{"into": name}`, `{"unknown": true}`.
fn cell(c: &Cell) -> Value {
    match c {
        Cell::Shape(s) => json!(s.to_string()),
        Cell::AtLeast(n) | Cell::AtLeastBytes(n) => json!({ "least": n }),
        Cell::Between(s) if s.low > 0 => json!({ "least": s.low }),
        Cell::FusedInto(name) => json!({ "into": name }),
        Cell::Unknown | Cell::Between(_) => json!({ "unknown": true }),
        other => json::cell(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_can_leave_its_place_in_the_page() {
        let grid = Grid { heading: "</script><b>{{data}}".into(), ..Grid::default() };
        let text = String::from_utf8(render_grid(&grid).unwrap()).unwrap();
        let own = PAGE.matches("</script").count();
        assert_eq!(text.matches("</script").count(), own);
        assert!(text.contains("<title>&lt;/script&gt;&lt;b&gt;{{data}}</title>") && text.contains(r"\u003c/script>"));
        assert!(!CHARTS.contains("</script") && SCRIPT.iter().all(|s| !s.contains("</script") && s.is_ascii()));
    }

    #[test]
    fn the_page_names_nothing_outside_itself() {
        for part in [PAGE, STYLE].iter().chain(SCRIPT) {
            for outside in ["http:", "src=\"", "@import", "url(", "fetch(", "XMLHttpRequest"] {
                assert!(!part.contains(outside), "{outside}");
            }
        }
    }
}
