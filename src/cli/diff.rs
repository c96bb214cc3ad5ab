//! `diff`: what changed between two models, layer by layer. Each side is a model, a saved JSON report, or either at a git revision.

use super::args::DiffArgs;
use super::check::file_bytes;
use super::{CHECK_FAILED, FINE, load, note, output, revision};
use crate::analysis::analyze;
use crate::budget::diff::{Change, Kind, diff};
use crate::budget::snapshot::{METRICS, Row, Value};
use crate::budget::{Metric, Snapshot};
use crate::error::{Error, Result, printable};
use crate::files;
use crate::ir::Bindings;
use crate::report::Cell;
use crate::report::grid::{Grid, GridColumn};
use crate::units::{exact, ms, plural};
use std::path::Path;

/// Compares and reports.
///
/// # Errors
/// If a side is neither a model nor a report, or cannot be read or built.
pub fn run(args: &DiffArgs) -> Result<u8> {
    output::grid_format(&args.output)?;
    let bindings = args.binding.bindings()?;
    let base = side(&args.base, &bindings, args.quiet)?;
    let head = side(&args.head, &bindings, args.quiet)?;
    load::all_fit(&bindings, &[base.1, head.1])?;
    let (base, head) = (base.0, head.0);
    let changes = diff(&base, &head);
    let grid = grid(&base, &head, &changes, args);
    output::show_grid(&grid, &args.output)?;
    let differs = changes.iter().any(|c| c.kind != Kind::Same);
    Ok(if differs && args.exit_code { CHECK_FAILED } else { FINE })
}

/// Whether a file holds a report rather than a model.
fn is_report(path: &Path) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("json"))
}

/// One side, with those of the bindings that it has a dim or an input for.
fn side(text: &str, bindings: &Bindings, quiet: bool) -> Result<(Snapshot, Bindings)> {
    if let Some((rev, path)) = revision::split(text).filter(|(_, p)| is_report(Path::new(p))) {
        let home = files::Folder::new()?;
        let file = revision::take(rev, path, None, &home)?;
        return Ok((report(&file, text)?, Bindings::default()));
    }
    let path = Path::new(text);
    if is_report(path) {
        return Ok((report(path, text)?, Bindings::default()));
    }
    let opened = revision::open(text, None)?;
    let own = load::fitting(&opened.loaded, bindings);
    let model = load::build(&opened.loaded, &own)?;
    model.notes.iter().for_each(|n| note(quiet, &format!("{text}: {n}")));
    let bytes = file_bytes(&opened.loaded);
    Ok((Snapshot::of(&opened.loaded.name, &model, &analyze(&model.graph), bytes), own))
}

fn report(file: &Path, text: &str) -> Result<Snapshot> {
    let named = |e: Error| e.in_file(Path::new(text));
    let bytes = std::fs::read(file).map_err(|e| named(Error::input(format!("cannot be read: {e}"))))?;
    let content = String::from_utf8(bytes).map_err(|_| named(Error::input("is not text")))?;
    Snapshot::from_report(&content, text).map_err(named)
}

/// What rows are compared by, with titles and what gives way on narrow terminals.
const SHOWN: &[(Metric, &str, u8)] = &[
    (Metric::Params, "±Params", 0),
    (Metric::Madds, "±MAdds", 0),
    (Metric::Flops, "±FLOPs", 3),
    (Metric::Bytes, "±Bytes", 2),
];

fn delta(base: Option<u64>, head: Option<u64>) -> Cell {
    match (base, head) {
        (Some(a), Some(b)) => Cell::Delta(i64::try_from(i128::from(b) - i128::from(a)).unwrap_or(i64::MAX)),
        _ => Cell::Unknown,
    }
}

fn grid(base: &Snapshot, head: &Snapshot, changes: &[Change], args: &DiffArgs) -> Grid {
    let mut grid = Grid {
        name: "layers",
        heading: format!("{} → {}", printable(&args.base), printable(&args.head)),
        heading_key: "title",
        columns: vec![
            GridColumn::new("change", "Change"),
            GridColumn::new("name", "Layer"),
            GridColumn::new("op", "Op").yields(1),
            GridColumn::new("shape", "Output").yields(4),
        ],
        ..Grid::default()
    };
    for (metric, title, yields) in SHOWN {
        grid.columns.push(GridColumn::new(&format!("{}_delta", metric.key()), title).yields(*yields));
    }
    let timed = base.ms.is_some() && head.ms.is_some();
    if timed {
        grid.columns.push(GridColumn::new("ms_delta", "±ms"));
    }
    for key in ["base_name", "base_shape"] {
        grid.columns.push(GridColumn::machine(key));
    }
    for (metric, ..) in SHOWN {
        grid.columns.push(GridColumn::machine(&format!("base_{}", metric.key())));
        grid.columns.push(GridColumn::machine(&format!("head_{}", metric.key())));
    }
    for (metric, key, unit) in METRICS {
        let (a, b) = (base.get(*metric), head.get(*metric));
        let differs = a != b;
        let main = matches!(metric, Metric::Params | Metric::Madds | Metric::Flops | Metric::Bytes | Metric::Nodes);
        let known = |v: Value| v.known().map_or(serde_json::Value::Null, Into::into);
        grid.extra.push((format!("base_{key}"), known(a)));
        grid.extra.push((format!("head_{key}"), known(b)));
        let both_unknown = matches!((a, b), (Value::Unknown(_), _) | (_, Value::Unknown(_)));
        if (differs || main) && !both_unknown {
            grid.summary.push((unit.to_string(), told(a, b)));
        }
    }
    if let (Some(a), Some(b)) = (base.ms, head.ms) {
        grid.summary.push(("ms (measured apart)".into(), format!("{} → {}", ms(a), ms(b))));
    }
    let count = |kind: Kind| changes.iter().filter(|c| c.kind == kind).count();
    grid.summary.push((
        "layers".into(),
        format!(
            "{} added, {} removed, {} changed, {} the same",
            count(Kind::Added),
            count(Kind::Removed),
            count(Kind::Changed),
            count(Kind::Same)
        ),
    ));
    for c in changes.iter().filter(|c| c.kind != Kind::Same || args.all) {
        grid.rows.push(cells(base, head, c, timed));
    }
    let renamed = changes.iter().filter(|c| match (c.base, c.head) {
        (Some(i), Some(j)) => base.rows[i].name != head.rows[j].name,
        _ => false,
    });
    match renamed.count() {
        0 => {}
        n => grid.notes.push(format!(
            "{} matched by structure under another name; `base_name` in CSV and JSON.",
            plural(n, "layer")
        )),
    }
    if grid.rows.is_empty() {
        grid.notes.push("No layer differs.".into());
    }
    grid
}

fn told(a: Value, b: Value) -> String {
    let word = |v: Value| match v {
        Value::Known(n) => exact(n),
        Value::Within(s) => format!("≥ {}", exact(s.low)),
        Value::Unknown(_) => "unknown".into(),
    };
    let change = match (a.known(), b.known()) {
        (Some(x), Some(y)) if x == y => return exact(x),
        (Some(x), Some(y)) => {
            let sign = if y > x { "+" } else { "-" };
            let share = if x > 0 { format!(", {:+.2} %", (y as f64 / x as f64 - 1.0) * 100.0) } else { String::new() };
            format!(" ({sign}{}{share})", exact(x.abs_diff(y)))
        }
        _ => String::new(),
    };
    format!("{} → {}{change}", word(a), word(b))
}

fn cells(base: &Snapshot, head: &Snapshot, c: &Change, timed: bool) -> Vec<Cell> {
    let b = c.base.and_then(|i| base.rows.get(i));
    let h = c.head.and_then(|j| head.rows.get(j));
    let shown = h.or(b);
    let word = |f: &dyn Fn(&Row) -> &str, r: Option<&Row>| r.map_or(Cell::Blank, |r| Cell::Name(f(r).to_string()));
    // A row that is not there costs nothing; one whose cost is unknown has no delta.
    let figure = |r: Option<&Row>, m: Metric| r.map_or(Some(0), |r| r.get(m));
    let shape = match (b, h) {
        (Some(b), Some(h)) if b.shape != h.shape => Cell::Text(format!("{} → {}", b.shape, h.shape)),
        _ => word(&|r| &r.shape, shown),
    };
    let mut out = vec![Cell::Text(c.kind.name().into()), word(&|r| &r.name, shown), word(&|r| &r.op, shown), shape];
    out.extend(SHOWN.iter().map(|(m, ..)| delta(figure(b, *m), figure(h, *m))));
    if timed {
        let time = |r: Option<&Row>| r.and_then(|r| r.ms).unwrap_or(0.0);
        out.push(Cell::Ms(time(h) - time(b)));
    }
    out.push(word(&|r| &r.name, b));
    out.push(word(&|r| &r.shape, b));
    for (m, ..) in SHOWN {
        for r in [b, h] {
            out.push(r.map_or(Cell::Blank, |r| r.get(*m).map_or(Cell::Unknown, Cell::Count)));
        }
    }
    out
}
