//! Ways to look at a report's rows: sorted, cut, summed by module, repeated blocks folded. Every view keeps the books balanced:
//! what is not shown is summed into a row that is.

use super::columns::{COLUMNS, Cell};
use super::model::{Kind, Layer, Report, Time};
use crate::engine::Path;
use crate::error::{Error, Result};

/// What to do with the rows.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// Sum rows whose module paths agree to this depth.
    pub depth: Option<usize>,
    /// Sort by this column, largest first.
    pub sort: Option<String>,
    /// Keep this many rows and sum the rest.
    pub top: Option<usize>,
    /// Fold blocks that repeat.
    pub group_blocks: bool,
    /// Leave out rows of nodes computed once per model.
    pub hide_static: bool,
    /// Put a row for each subgraph under its node, and unless static rows are hidden, the subgraph's own rows too.
    pub show_bodies: bool,
    /// Put a row for each module above its rows; with `depth`, only to that depth.
    pub modules: bool,
}

/// Names that `--sort` takes.
pub fn sort_keys() -> Vec<&'static str> {
    COLUMNS.iter().map(|c| c.key).filter(|k| *k != "kind").collect()
}

/// Applies a view to a report's layers.
///
/// # Errors
/// If the sort column does not exist.
pub fn view(mut report: Report, how: &View) -> Result<Report> {
    let mut rows = std::mem::take(&mut report.layers);
    if how.hide_static {
        // Weights are charged where they meet data, so static rows hold no cost; one that does stays visible.
        rows.retain(|l| l.kind != Kind::Static || l.params > 0 || l.statistics > 0);
    }
    if how.modules {
        rows = super::modules::nested(rows, how.depth, report.main);
    } else if let Some(depth) = how.depth {
        rows = by_depth(rows, depth.max(1), report.main);
    }
    // Folding looks at neighbours, so it only means something in execution order.
    if how.group_blocks && how.sort.is_none() && !how.modules {
        rows = fold_blocks(rows, report.main);
    }
    if let Some(key) = &how.sort {
        let alias = match key.as_str() {
            "time" | "ms" => match report.main {
                Some(Path::Reference) => "reference_ms",
                Some(Path::Runtime) => "runtime_ms",
                _ => "optimized_ms",
            },
            "shape" => "output_shape",
            key => key,
        };
        let column = COLUMNS.iter().find(|c| c.key == alias).ok_or_else(|| {
            Error::usage(format!("--sort: there is no column '{key}'"))
                .hint(format!("columns: {}", sort_keys().join(", ")))
        })?;
        let keys: Vec<Cell> = rows.iter().map(|l| (column.get)(l, &report)).collect();
        let mut order: Vec<usize> = (0..rows.len()).collect();
        order.sort_by(|&a, &b| compare(&keys[a], &keys[b]));
        let mut slots: Vec<Option<Layer>> = rows.into_iter().map(Some).collect();
        rows = order.into_iter().filter_map(|i| slots[i].take()).collect();
    }
    if let Some(top) = how.top
        && rows.len() > top
    {
        let rest = rows.split_off(top);
        let n = rest.len();
        let mut sum = merge(Kind::Rest, format!("[{n} more rows]"), &rest.iter().collect::<Vec<_>>(), report.main);
        sum.path = Vec::new();
        rows.push(sum);
    }
    if how.show_bodies {
        rows = with_bodies(rows, how.hide_static);
    }
    report.layers = rows;
    Ok(report)
}

/// Subgraphs as rows under their nodes. They are part of the node's numbers, not further ones.
fn with_bodies(rows: Vec<Layer>, short: bool) -> Vec<Layer> {
    let mut out = Vec::with_capacity(rows.len());
    for mut l in rows {
        let bodies = std::mem::take(&mut l.bodies);
        let name = l.name.clone();
        out.push(l);
        for body in bodies {
            let rounds = match (body.name, body.rounds.known(), body.rounds.high) {
                ("body", Some(n), _) => format!(" ({n} rounds)"),
                ("body", None, Some(n)) => format!(" (one round of at most {n})"),
                ("body", None, None) => " (one round of an unknown number)".to_string(),
                (_, Some(0), _) => " (not taken)".to_string(),
                (_, Some(1), _) => " (taken)".to_string(),
                (_, Some(n), _) => format!(" (taken {n} times)"),
                _ => String::new(),
            };
            // A known number of rounds is multiplied out, as in the node's own row; an unknown one cannot be.
            let times =
                if body.is_executed { 1 } else { body.rounds.known().filter(|_| body.name == "body").unwrap_or(1) };
            let mut row = Layer::empty(Kind::Body, &format!("{name} › {}{rounds}", body.name));
            row.nodes = body.layers.len();
            row.span = body.span.times(crate::cost::Span::exact(times));
            row.unknown_nodes = body.layers.iter().map(|l| l.unknown_nodes).sum();
            row.unknown_traffic = body.layers.iter().map(|l| l.unknown_traffic).sum();
            for l in &body.layers {
                row.work = row.work + l.work;
                row.traffic = row.traffic + l.traffic;
                row.params += l.params;
            }
            row.op = crate::units::plural(row.nodes, "node");
            out.push(row);
            if !short {
                let inner = with_bodies(body.layers, short).into_iter().map(|l| {
                    let name = format!("{name} › {} › {}", body.name, l.name);
                    Layer { kind: Kind::Body, name, path: Vec::new(), ..l }
                });
                out.extend(inner);
            }
        }
    }
    out
}

/// Numbers largest first, names in alphabetical order, what has no value last.
fn compare(a: &Cell, b: &Cell) -> std::cmp::Ordering {
    fn number(c: &Cell) -> Option<f64> {
        match c {
            Cell::Count(n) | Cell::AtLeast(n) | Cell::Bytes(n) | Cell::AtLeastBytes(n) => Some(*n as f64),
            Cell::Between(s) => Some(s.high.unwrap_or(s.low) as f64),
            Cell::Ms(v) | Cell::Giga(v) | Cell::Ratio(v) | Cell::Share(v) | Cell::Efficiency(v) => Some(*v),
            Cell::Delta(n) => Some(*n as f64),
            Cell::Flag(b) => Some(f64::from(u8::from(*b))),
            Cell::Shape(s) => s.elements().map(|n| n as f64),
            _ => None,
        }
    }
    match (a, b) {
        (Cell::Text(a) | Cell::Name(a), Cell::Text(b) | Cell::Name(b)) => a.cmp(b),
        _ => number(b).unwrap_or(f64::NEG_INFINITY).total_cmp(&number(a).unwrap_or(f64::NEG_INFINITY)),
    }
}

fn add_time(a: &mut Time, b: &Time) {
    match (&*a, b) {
        (Time::Ms(x), Time::Ms(y)) => *a = Time::Ms(x + y),
        (_, Time::Ms(y)) => *a = Time::Ms(*y),
        (Time::None, Time::FusedInto(into)) => *a = Time::FusedInto(into.clone()),
        _ => {}
    }
}

/// Sums rows into one.
pub(super) fn merge(kind: Kind, name: String, rows: &[&Layer], main: Option<Path>) -> Layer {
    let mut sum = Layer::empty(kind, &name);
    let add = |a: Option<f64>, b: Option<f64>| a.zip(b).map(|(a, b)| a + b).or(a).or(b);
    for l in rows {
        sum.params += l.params;
        sum.shared_params += l.shared_params;
        sum.statistics += l.statistics;
        sum.work = sum.work + l.work;
        sum.span = sum.span + l.span;
        sum.is_executed |= l.is_executed;
        sum.activation_madds = sum.activation_madds.saturating_add(l.activation_madds);
        sum.traffic = sum.traffic + l.traffic;
        sum.nodes += l.nodes;
        sum.unknown_nodes += l.unknown_nodes;
        sum.unknown_traffic += l.unknown_traffic;
        sum.madds_share = add(sum.madds_share, l.madds_share);
        sum.time_share = add(sum.time_share, l.time_share);
        sum.live_bytes = sum.live_bytes.max(l.live_bytes);
        add_time(&mut sum.reference, &l.reference);
        add_time(&mut sum.optimized, &l.optimized);
        add_time(&mut sum.runtime, &l.runtime);
    }
    if let [first, others @ ..] = rows {
        let same = |f: &dyn Fn(&Layer) -> String| others.iter().all(|l| f(l) == f(first));
        if same(&|l| l.op.clone()) {
            sum.op.clone_from(&first.op);
            sum.class = first.class.filter(|_| same(&|l| format!("{:?}", l.class)));
        } else {
            sum.op = crate::units::plural(sum.nodes, "node");
        }
        // A module's output is its last row's.
        sum.output_shape = rows.last().and_then(|l| l.output_shape.clone());
        sum.output_dtype = rows.last().and_then(|l| l.output_dtype);
        if same(&|l| format!("{:?}", l.operands)) {
            sum.operands.clone_from(&first.operands);
        }
        if same(&|l| format!("{:?}", l.kernel)) {
            sum.kernel.clone_from(&first.kernel);
        }
    }
    // One step of unknown cost makes the sum unknown.
    let timed = || rows.iter().copied().filter(|l| l.optimized.ms().is_some());
    if timed().next().is_some() {
        sum.attainable_ms = timed().map(|l| l.attainable_ms).sum();
        sum.bound = sum.attainable_ms.and_then(|_| super::roofline::main_bound(timed()));
    }
    sum.madds_per_s = sum
        .main_ms(main)
        .filter(|ms| *ms > 0.0 && sum.work.madds > 0 && sum.unknown_nodes == 0)
        .map(|ms| sum.work.madds as f64 / ms * 1e3);
    sum
}

/// One row per distinct module path of at most `depth` parts, in order of first appearance.
fn by_depth(rows: Vec<Layer>, depth: usize, main: Option<Path>) -> Vec<Layer> {
    let mut groups: Vec<(Vec<String>, Vec<Layer>)> = Vec::new();
    let mut at = std::collections::HashMap::new();
    for l in rows {
        let key: Vec<String> = l.path.iter().take(depth).cloned().collect();
        let i = *at.entry(key.clone()).or_insert_with(|| {
            groups.push((key, Vec::new()));
            groups.len() - 1
        });
        groups[i].1.push(l);
    }
    groups
        .into_iter()
        .map(|(key, mut rows)| {
            if rows.len() == 1 {
                return rows.remove(0);
            }
            let name = if key.is_empty() { "(unnamed)".to_string() } else { key.join(".") };
            Layer { path: key, ..merge(Kind::Group, name, &rows.iter().collect::<Vec<_>>(), main) }
        })
        .collect()
}

/// Longest block, in rows, whose repetition is looked for.
const LONGEST_BLOCK: usize = 64;

/// Whether two rows are the same work at different places.
fn same_work(a: &Layer, b: &Layer) -> bool {
    let fused = |t: &Time| matches!(t, Time::FusedInto(_));
    (a.kind, &a.op, a.class, &a.output_shape, a.output_dtype)
        == (b.kind, &b.op, b.class, &b.output_shape, b.output_dtype)
        && (a.params, a.shared_params, a.statistics, a.work, a.traffic)
            == (b.params, b.shared_params, b.statistics, b.work, b.traffic)
        && (a.span, &a.operands, a.bodies.len(), b.bodies.len()) == (b.span, &b.operands, 0, 0)
        && (a.unknown_nodes, a.unknown_traffic, &a.kernel) == (b.unknown_nodes, b.unknown_traffic, &b.kernel)
        && [&a.reference, &a.optimized, &a.runtime].map(fused) == [&b.reference, &b.optimized, &b.runtime].map(fused)
}

/// Folds runs of equal blocks: each row of the block is shown once, summed over the repetitions.
fn fold_blocks(rows: Vec<Layer>, main: Option<Path>) -> Vec<Layer> {
    let mut out = Vec::with_capacity(rows.len());
    let mut i = 0;
    while i < rows.len() {
        // The period that saves most rows; the shortest of equals.
        let mut best = (1, 1);
        for period in 1..=LONGEST_BLOCK.min((rows.len() - i) / 2) {
            let mut times = 1;
            while i + (times + 1) * period <= rows.len()
                && (0..period).all(|k| same_work(&rows[i + k], &rows[i + times * period + k]))
            {
                times += 1;
            }
            if (times - 1) * period > (best.1 - 1) * best.0 {
                best = (period, times);
            }
        }
        let (period, times) = best;
        if times == 1 {
            out.push(rows[i].clone());
            i += 1;
            continue;
        }
        for k in 0..period {
            let copies: Vec<&Layer> = (0..times).map(|t| &rows[i + t * period + k]).collect();
            let mut sum = merge(copies[0].kind, copies[0].name.clone(), &copies, main);
            sum.repeat = times;
            sum.path.clone_from(&copies[0].path);
            // A step's rate is over all it covers; equal blocks keep it up to the mean of their times.
            let rates: Vec<f64> = copies.iter().filter_map(|l| l.madds_per_s).collect();
            let slowness: f64 = rates.iter().map(|r| 1.0 / r).sum();
            sum.madds_per_s = (slowness > 0.0).then(|| rates.len() as f64 / slowness);
            out.push(sum);
        }
        i += period * times;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, op: &str, params: u64, ms: f64) -> Layer {
        Layer {
            op: op.into(),
            params,
            nodes: 1,
            reference: Time::Ms(ms),
            path: name.split('.').map(str::to_string).collect(),
            ..Layer::empty(Kind::Layer, name)
        }
    }

    fn names(rows: &[Layer]) -> Vec<String> {
        rows.iter().map(|l| format!("{}x{}", l.name, l.repeat)).collect()
    }

    #[test]
    fn repeated_blocks_are_summed_and_single_rows_left_alone() {
        let rows = vec![
            row("stem", "Conv", 1, 1.0),
            row("a.conv", "Conv", 9, 2.0),
            row("a.relu", "Relu", 0, 1.0),
            row("b.conv", "Conv", 9, 4.0),
            row("b.relu", "Relu", 0, 1.0),
            row("c.conv", "Conv", 9, 6.0),
            row("c.relu", "Relu", 0, 1.0),
            row("head", "Gemm", 5, 1.0),
        ];
        let total: f64 = rows.iter().filter_map(|l| l.reference.ms()).sum();
        let folded = fold_blocks(rows, Some(Path::Reference));
        assert_eq!(names(&folded), ["stemx1", "a.convx3", "a.relux3", "headx1"]);
        assert_eq!((folded[1].params, folded[1].reference.ms()), (27, Some(12.0)));
        assert_eq!(folded.iter().filter_map(|l| l.reference.ms()).sum::<f64>(), total);
    }

    #[test]
    fn depth_groups_by_path_and_keeps_the_sums() {
        let rows = vec![row("f.0.conv", "Conv", 2, 1.0), row("f.1.conv", "Conv", 3, 1.0), row("head", "Gemm", 4, 1.0)];
        let grouped = by_depth(rows, 1, None);
        assert_eq!(names(&grouped), ["fx1", "headx1"]);
        assert_eq!((grouped[0].params, grouped[0].nodes, grouped[0].op.as_str()), (5, 2, "Conv"));
    }
}
