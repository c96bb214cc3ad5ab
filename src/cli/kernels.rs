//! `kernels`: which kernel each step got, how it computes, why others declined; and with a short timing run, how near each comes to
//! what is attainable and what share of the whole gap it holds.

use super::args::KernelsArgs;
use super::load::{self, Want};
use super::{FINE, note, output, progress::Progress};
use crate::analysis::{self, Demands};
use crate::engine::{Path, Session, Step};
use crate::error::{Result, printable};
use crate::machine::{Bound, Ceilings, Roof};
use crate::measure::profile::{Prepared, Profile, profile};
use crate::measure::{Policy, WallClock};
use crate::report::Cell;
use crate::report::grid::{Grid, GridColumn};
use crate::units::{ms, percent, plural, rate};
use std::sync::Arc;

/// Plans the optimized path, times its steps unless told not to, and shows them.
///
/// # Errors
/// If the model cannot be read, built, planned or run.
pub fn run(args: &KernelsArgs) -> Result<u8> {
    output::grid_format(&args.output)?;
    let quiet = args.model.quiet;
    let (loaded, model) = load::model(&args.model)?;
    for text in &model.notes {
        note(quiet, text);
    }
    let analysis = analysis::analyze(&model.graph);
    load::check_memory(&analysis, 1)?;
    let graph = Arc::new(model.graph.clone());
    let ceilings = load::ceilings(if args.no_run { Want::Kept } else { Want::Any }, quiet);
    let session = load::session(&graph, Path::Optimized, &args.engine, quiet)?;
    let ceilings = ceilings.and_then(|(m, _)| Ceilings::of(&m, session.isa(), session.threads()));
    let demands = Demands::new(&graph, &analysis);
    let rows: Vec<Row> = session.steps().iter().map(|s| Row::new(s, &graph, &demands, ceilings.as_ref())).collect();
    let (threads, isa) = (session.threads(), session.isa());
    let inputs = if args.no_run { None } else { made_up(&model, quiet) };
    let measured = inputs.map(|inputs| measure(session, args, inputs)).transpose()?;
    let grid = grid(
        &loaded.name,
        &rows,
        measured.as_ref(),
        &format!("{}, {isa} kernels", plural(threads, "thread")),
        ceilings.as_ref(),
    );
    output::show_grid(&grid, &args.output)?;
    Ok(FINE)
}

/// Inputs to time with; a plan can be shown without.
fn made_up(model: &crate::ir::Model, quiet: bool) -> Option<Vec<crate::tensor::Tensor>> {
    let inputs = load::made_up_inputs(model);
    if let Err(e) = &inputs {
        note(quiet, &format!("steps are not timed: {e}"));
    }
    inputs.ok()
}

fn measure(mut session: Session, args: &KernelsArgs, inputs: Vec<crate::tensor::Tensor>) -> Result<Profile> {
    // Weights that are mapped may wait for the disk.
    session.run(&inputs)?;
    let progress = Progress::new("measuring", args.model.quiet);
    let mut subject = Prepared { session, path: Path::Optimized, inputs };
    let policy = Policy { limit_s: args.seconds, ..Policy::default() };
    let measured = profile(&WallClock::start(), &policy, &mut subject, &mut |share| progress.tell(share));
    load::keep_weights(args.model.quiet);
    measured
}

/// A step and what is known of it before it runs.
struct Row {
    step: Step,
    ops: String,
    madds: Option<u64>,
    best: &'static str,
    roof: Option<Roof>,
}

impl Row {
    fn new(step: &Step, graph: &crate::ir::Graph, demands: &Demands, ceilings: Option<&Ceilings>) -> Row {
        let ops: Vec<&str> = step.covers.iter().map(|&id| graph.node(id).op_type.as_str()).collect();
        let demand = if step.covers.is_empty() { None } else { demands.of(&step.covers) };
        Row {
            step: step.clone(),
            ops: ops.join(" + "),
            madds: demand.map(|d| d.madds),
            best: demand.map_or("", |d| if d.madds > 0 { d.algorithm } else { "" }),
            roof: demand.zip(ceilings).map(|(d, c)| c.roof(&d, demands.resident_bytes())),
        }
    }
    /// Least time in seconds: moves between layouts need not be, so theirs is nothing. `None` where the cost is not known.
    fn attainable_s(&self) -> Option<f64> {
        if self.step.covers.is_empty() { Some(0.0) } else { self.roof.map(|r| r.attainable_s) }
    }
    /// Time above what is attainable.
    fn gap_s(&self, seconds: f64) -> Option<f64> {
        Some((seconds - self.attainable_s()?).max(0.0))
    }
}

fn grid(name: &str, rows: &[Row], measured: Option<&Profile>, how: &str, ceilings: Option<&Ceilings>) -> Grid {
    let seconds = |i: usize| measured.map(|p| p.steps[i].seconds);
    let gaps: Vec<Option<f64>> = rows.iter().enumerate().map(|(i, r)| r.gap_s(seconds(i)?)).collect();
    // What lies between steps belongs to the gap too.
    let between = measured.map_or(0.0, |p| p.other_s);
    let gap: f64 = gaps.iter().flatten().sum::<f64>() + between;
    let with_roof = ceilings.is_some();
    let shown = |is: bool, key: &str, title: &str| {
        if is { GridColumn::new(key, title) } else { GridColumn::machine(key) }
    };
    let timed = measured.is_some();
    let columns = vec![
        GridColumn::new("index", "#").yields_last(4),
        GridColumn::new("step", "Step"),
        GridColumn::machine("ops"),
        GridColumn::new("kernel", "Kernel"),
        shown(rows.iter().any(|r| !r.step.detail.is_empty()), "detail", "Detail").yields_last(6),
        shown(timed, "ms", "ms"),
        GridColumn::machine("madds"),
        shown(timed, "gmadds_per_s", "GMAdd/s").yields_last(3),
        GridColumn::machine("best_algorithm"),
        shown(with_roof, "bound", "Bound").yields_last(5),
        shown(with_roof && !timed, "attainable_ms", "Roof ms").yields_last(1),
        shown(with_roof && timed, "efficiency", "%roof"),
        shown(with_roof && timed, "gap_share", "%gap").yields_last(2),
        GridColumn::new("declined", "Declined").yields_last(7),
    ];
    let mut cells = Vec::new();
    for (i, r) in rows.iter().enumerate() {
        let opt = |v: Option<f64>, make: fn(f64) -> Cell| v.map_or(Cell::Blank, make);
        let s = seconds(i);
        let pace = s.zip(r.madds).filter(|(s, n)| *s > 0.0 && *n > 0).map(|(s, n)| n as f64 / s / 1e9);
        let efficiency =
            s.zip(r.roof).filter(|(s, r)| *s > 0.0 && r.bound != Bound::Overhead).map(|(s, r)| r.attainable_s / s);
        let share = gaps[i].filter(|_| gap > 0.0 && with_roof).map(|g| g / gap);
        cells.push(vec![
            Cell::Count(i as u64 + 1),
            Cell::Name(r.step.label.clone()),
            Cell::Name(r.ops.clone()),
            Cell::Text(r.step.kernel.clone()),
            Cell::Text(r.step.detail.clone()),
            opt(s.map(|s| s * 1e3), Cell::Ms),
            r.madds.map_or(Cell::Blank, Cell::Count),
            opt(pace, Cell::Giga),
            Cell::Text(r.best.to_string()),
            r.roof.map_or(Cell::Blank, |r| Cell::Text(r.bound.name())),
            opt(r.roof.map(|r| r.attainable_s * 1e3), Cell::Ms),
            opt(efficiency, Cell::Efficiency),
            opt(share, Cell::Share),
            Cell::Text(r.step.declined.join("; ")),
        ]);
    }
    let covered: usize = rows.iter().map(|r| r.step.covers.len()).sum();
    let mut grid = Grid {
        name: "steps",
        heading: format!("{} · {} steps for {} · {how}", printable(name), rows.len(), plural(covered, "node")),
        columns,
        rows: cells,
        ..Grid::default()
    };
    let attainable: f64 = rows.iter().filter_map(Row::attainable_s).sum();
    if let Some(p) = measured {
        let mut text = format!("{} ms (median of {})", ms(p.total_s() * 1e3), plural(p.stats.runs, "run"));
        if with_roof {
            text.push_str(&format!("; attainable {} ms, the gap is {} ms", ms(attainable * 1e3), ms(gap * 1e3)));
            if gap > 0.0 && between / gap >= 0.01 {
                text.push_str(&format!(", {} of it between steps", percent(between / gap)));
            }
        }
        grid.summary.push(("Measured".to_string(), text));
        grid.extra.push(("measured_ms".to_string(), (p.total_s() * 1e3).into()));
        grid.extra.push(("between_steps_ms".to_string(), (between * 1e3).into()));
    }
    if with_roof {
        grid.extra.push(("attainable_ms".to_string(), (attainable * 1e3).into()));
        grid.notes.push("%roof: attainable / measured time, ! above the ceiling. %gap: share of all time above what is attainable; moves between layouts are all gap.".to_string());
    } else if !timed {
        grid.notes.push("Ceilings are not known yet: `madd-prof machine` probes them.".to_string());
    }
    if with_roof && timed && gap > 0.0 {
        grid.notes.extend(largest(rows, &gaps, gap));
    }
    grid
}

/// The kernels that hold most of the gap.
fn largest(rows: &[Row], gaps: &[Option<f64>], gap: f64) -> Option<String> {
    let mut by_kernel: std::collections::BTreeMap<&str, (f64, usize)> = Default::default();
    for (r, g) in rows.iter().zip(gaps) {
        let sum = by_kernel.entry(&r.step.kernel).or_default();
        *sum = (sum.0 + g.unwrap_or(0.0), sum.1 + 1);
    }
    let mut list: Vec<_> = by_kernel.into_iter().filter(|(_, (g, _))| *g >= 0.05 * gap).collect();
    list.sort_by(|a, b| b.1.0.total_cmp(&a.1.0));
    let words: Vec<String> =
        list.iter().map(|(k, (g, n))| format!("{k} {} in {}", percent(g / gap), plural(*n, "step"))).collect();
    (!words.is_empty()).then(|| format!("The gap by kernel: {}; {} ms in all.", words.join(", "), rate(gap * 1e3)))
}
