//! `variants --per-layer`: every shape of layer that a block rewrites in a model, timed by itself against the original.

use super::args::VariantsArgs;
use super::load::{self, Want};
use super::progress::Progress;
use super::race::{self, Runner, timed};
use super::{FINE, output};
use crate::engine::Path;
use crate::error::{Error, Result, printable};
use crate::ir::{self, Bindings};
use crate::machine::Ceilings;
use crate::measure::{Stats, paired};
use crate::report::Cell;
use crate::report::grid::{Grid, GridColumn};
use crate::units::{plural, rate};
use crate::variants::layer::LayerSpec;
use crate::variants::{Change, Choice, Make, Policy, Rewritten, apply};
use std::sync::Arc;

/// A shape of layer and what came of it.
struct Shape {
    layer: LayerSpec,
    times: usize,
    madds: (u64, u64),
    seconds: (f64, f64),
    ratio: crate::measure::Ratio,
    roof: Option<(f64, f64, String)>,
}

/// Times and reports.
///
/// # Errors
/// If not exactly one block was asked for, or a layer cannot be run.
pub fn run(args: &VariantsArgs, name: &str, sets: &[Vec<Choice>], made: &[(String, Rewritten)]) -> Result<u8> {
    let ([set], [(title, rewritten)]) = (sets, made) else {
        return Err(Error::usage("--per-layer looks at one variant").hint("give --apply once"));
    };
    let [choice] = &set[..] else {
        return Err(Error::usage("--per-layer looks at one variant by itself").hint("give --apply with one name"));
    };
    if !matches!(choice.entry.make, Make::Block(_)) {
        return Err(Error::usage(format!("{} rewrites models as a whole, not layer by layer", choice.entry.name))
            .hint("`madd-prof variants --list` says which are blocks"));
    }
    let mut shapes: Vec<(&Change, usize)> = Vec::new();
    for change in &rewritten.steps[0].changes {
        match shapes.iter_mut().find(|(c, _)| c.what == change.what) {
            Some((_, n)) => *n += 1,
            None => shapes.push((change, 1)),
        }
    }
    let progress = Progress::new("layer by layer", args.quiet);
    let mut rows = Vec::new();
    for (i, (change, times)) in shapes.iter().enumerate() {
        progress.tell(i as f64 / shapes.len() as f64);
        rows.push(shape(change, *times, choice, args)?);
    }
    drop(progress);
    output::show_grid(&grid(name, title, &rows, args), &args.output)?;
    Ok(FINE)
}

fn shape(change: &Change, times: usize, choice: &Choice, args: &VariantsArgs) -> Result<Shape> {
    let layer = LayerSpec::parse(&change.what)?;
    let spec = layer.model()?;
    let policy = Policy { force: true, ..Policy::default() };
    let r = apply(&spec, &Bindings::default(), std::slice::from_ref(choice), &policy)?;
    let runners = [Runner::new("original", ir::build(&spec, &Bindings::default())?), Runner::new("variant", r.model)];
    let ceilings = load::ceilings(Want::Any, args.quiet);
    let (mut sessions, mut roofs) = (Vec::new(), Vec::new());
    for runner in &runners {
        let graph = Arc::new(runner.model.graph.clone());
        let session = load::session(&graph, Path::Optimized, &args.measure.engine, args.quiet)?;
        let c = ceilings.as_ref().and_then(|(m, _)| Ceilings::of(m, session.isa(), session.threads()));
        roofs.extend(race::predicted(runner, &session, c.as_ref()));
        sessions.push((session, load::made_up_inputs(&runner.model)?));
    }
    let samples = timed(&mut sessions, args.measure.seconds, &mut |_| {})?;
    let median = |i: usize| Stats::of(&samples[i].seconds).map_or(0.0, |s| s.median);
    let madds = runners.each_ref().map(|r| r.analysis.totals.work.madds);
    Ok(Shape {
        layer,
        times,
        madds: (madds[0], madds[1]),
        seconds: (median(0), median(1)),
        ratio: paired(&samples[1], &samples[0]).ok_or_else(|| Error::run("nothing was measured"))?,
        roof: match &roofs[..] {
            [a, b] => Some((a.ms, b.ms, b.bound.name())),
            _ => None,
        },
    })
}

fn grid(name: &str, variant: &str, rows: &[Shape], args: &VariantsArgs) -> Grid {
    let with_roof = rows.iter().any(|r| r.roof.is_some());
    let shown = |key: &str, title: &str| {
        if with_roof { GridColumn::new(key, title) } else { GridColumn::machine(key) }
    };
    let columns = vec![
        GridColumn::new("layer", "Layer"),
        GridColumn::new("times", "Times").yields(3),
        GridColumn::new("madds", "MAdds"),
        GridColumn::new("variant_madds", "after").yields(4),
        GridColumn::new("madds_ratio", "xMAdds"),
        shown("predicted_ratio", "xroof").yields(5),
        GridColumn::machine("predicted_ms"),
        GridColumn::machine("variant_predicted_ms"),
        GridColumn::new("optimized_ms", "Opt ms"),
        GridColumn::new("variant_optimized_ms", "after").yields(2),
        GridColumn::new("time_ratio", "xtime"),
        GridColumn::machine("time_ratio_low"),
        GridColumn::machine("time_ratio_high"),
        GridColumn::new("interval", "95 %").yields(1),
        GridColumn::new("gmadds_per_s", "GMAdd/s").yields(6),
        GridColumn::new("variant_gmadds_per_s", "after").yields(7),
        shown("bound", "Bound").yields(8),
    ];
    let row = |r: &Shape| {
        let interval = r.ratio.interval;
        let pace = |madds: u64, s: f64| if s > 0.0 { Cell::Giga(madds as f64 / s / 1e9) } else { Cell::Blank };
        let roof = |f: &dyn Fn(&(f64, f64, String)) -> Cell| r.roof.as_ref().map_or(Cell::Blank, f);
        vec![
            Cell::Text(r.layer.to_string()),
            Cell::Count(r.times as u64),
            Cell::Count(r.madds.0),
            Cell::Count(r.madds.1),
            Cell::Ratio(r.madds.1 as f64 / r.madds.0.max(1) as f64),
            roof(&|p| Cell::Ratio(p.1 / p.0)),
            roof(&|p| Cell::Ms(p.0)),
            roof(&|p| Cell::Ms(p.1)),
            Cell::Ms(r.seconds.0 * 1e3),
            Cell::Ms(r.seconds.1 * 1e3),
            Cell::Ratio(r.ratio.median),
            interval.map_or(Cell::Blank, |i| Cell::Ratio(i.0)),
            interval.map_or(Cell::Blank, |i| Cell::Ratio(i.1)),
            interval.map_or(Cell::Blank, |(l, h)| Cell::Text(format!("{}..{}", rate(l), rate(h)))),
            pace(r.madds.0, r.seconds.0),
            pace(r.madds.1, r.seconds.1),
            roof(&|p| Cell::Text(p.2.clone())),
        ]
    };
    let mut grid = Grid {
        name: "layers",
        heading: format!("{} as {variant}, layer by layer · {}", printable(name), race::how(&args.measure)),
        columns,
        rows: rows.iter().map(row).collect(),
        ..Grid::default()
    };
    let paying: Vec<&Shape> = rows.iter().filter(|r| r.ratio.is_below_one()).collect();
    let losing: Vec<&Shape> = rows.iter().filter(|r| r.ratio.is_above_one()).collect();
    let words = |list: &[&Shape]| {
        let channels = |f: fn(usize, usize) -> usize| list.iter().map(|r| r.layer.ic).reduce(f).unwrap_or(0);
        let map = |f: fn(usize, usize) -> usize| list.iter().map(|r| r.layer.size[0]).reduce(f).unwrap_or(0);
        format!(
            "{} ({} to {} input channels, maps of {} to {})",
            plural(list.len(), "shape"),
            channels(usize::min),
            channels(usize::max),
            map(usize::min),
            map(usize::max)
        )
    };
    if !paying.is_empty() {
        grid.notes.push(format!("Faster beyond doubt on {}.", words(&paying)));
    }
    if !losing.is_empty() {
        grid.notes.push(format!("Slower beyond doubt on {}.", words(&losing)));
    }
    let unsure = rows.len() - paying.len() - losing.len();
    if unsure > 0 {
        grid.notes.push(format!("No difference that is certain on {}.", plural(unsure, "shape")));
    }
    grid
}
