//! `variants --budget`: what brings a model under a budget, the least change first. Candidates are counted exactly, then measured.

use super::args::{Paths, VariantsArgs};
use super::load::{self, Loaded};
use super::race::{Runner, race};
use super::variants::{conditions, make, seen};
use super::{FINE, note, output};
use crate::analysis::{Totals, analyze};
use crate::budget::Metric;
use crate::engine::Path as KernelPath;
use crate::error::{Error, Result};
use crate::ir::{self, Bindings, Model};
use crate::ops::spec::ModelSpec;
use crate::report::Cell;
use crate::report::candidates::{self, Candidate};
use crate::report::grid::GridColumn;
use crate::units::{exact, iec, ms, percent, plural};
use crate::variants::{Choice, Policy, VARIANTS};
use crate::zoo::{self, Allowed, Setting};
use std::collections::{BTreeMap, HashMap};

/// What is limited.
#[derive(Debug, Clone, Copy, PartialEq)]
enum What {
    Madds,
    Params,
    Bytes,
    Latency,
}

/// A limit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Budget {
    what: What,
    /// Count, bytes or milliseconds.
    most: f64,
}

impl Budget {
    /// At most so much of a metric that rewrites can change.
    pub fn most(metric: Metric, most: u64) -> Option<Budget> {
        let what = match metric {
            Metric::Madds => What::Madds,
            Metric::Params => What::Params,
            Metric::Bytes => What::Bytes,
            _ => return None,
        };
        Some(Budget { what, most: most as f64 })
    }
    fn parse(text: &str) -> Result<Budget> {
        let wrong = |why: &str| {
            Error::usage(format!("--budget {text}: {why}")).hint(
                "for example: madds=150M, params=2.5M, bytes=40M (decimal; Ki, Mi, Gi are binary), latency=5 (ms)",
            )
        };
        let (what, amount) = text.split_once('=').ok_or_else(|| wrong("is not of the form WHAT=N"))?;
        if amount.contains(['=', ',']) {
            return Err(wrong("takes one limit at a time"));
        }
        let what = match what.trim().to_ascii_lowercase().as_str() {
            "madds" | "macs" => What::Madds,
            "params" => What::Params,
            "bytes" => What::Bytes,
            "latency" => What::Latency,
            other => return Err(wrong(&format!("'{other}' is none of madds, params, bytes, latency"))),
        };
        let amount = amount.trim();
        let amount =
            if what == What::Latency { amount.trim_end_matches("ms").trim() } else { amount.trim_end_matches('B') };
        let units = [("ki", 1024.0), ("mi", 1048576.0), ("gi", 1073741824.0), ("k", 1e3), ("m", 1e6), ("g", 1e9)];
        let lower = amount.to_ascii_lowercase();
        let (digits, unit) = units
            .iter()
            .find_map(|(u, f)| lower.strip_suffix(u).map(|d| (d.trim(), *f)))
            .filter(|_| what != What::Latency)
            .unwrap_or((&lower, 1.0));
        let n = digits.parse::<f64>().ok().filter(|n| n.is_finite() && *n > 0.0);
        let most = n.ok_or_else(|| wrong("the amount is not a positive number"))? * unit;
        if most >= u64::MAX as f64 {
            return Err(wrong("no model comes near that amount"));
        }
        Ok(Budget { what, most })
    }

    /// A model's figure; `None` for latency, which only a run tells, and where it is not known.
    fn of(&self, t: &Totals) -> Option<f64> {
        match self.what {
            What::Madds => (t.unknown_nodes == 0).then_some(t.work.madds as f64),
            What::Params => Some(t.params as f64),
            What::Bytes => (t.unknown_traffic == 0).then(|| t.traffic.total() as f64),
            What::Latency => None,
        }
    }

    fn words(&self) -> String {
        match self.what {
            What::Madds => format!("at most {} MAdds", exact(self.most as u64)),
            What::Params => format!("at most {} params", exact(self.most as u64)),
            What::Bytes => format!("at most {} moved", iec(self.most as u64)),
            What::Latency => format!("at most {} ms", ms(self.most)),
        }
    }
}

/// A model that may do.
pub struct Proposal {
    /// Knobs or variants.
    pub name: String,
    model: Model,
    totals: Totals,
    /// Share of the original's weights that it does not have as they were.
    pub changed: f64,
}

/// Most candidates that are measured and shown.
const SHOWN: usize = 12;
/// Steps of widths and resolutions tried.
const WIDTH_STEP: f64 = 0.01;
const RESOLUTION_STEP: i64 = 32;
/// Widths and resolutions tried when only a run tells what they take.
const COARSE: &[f64] = &[0.85, 0.7, 0.5, 0.35];

/// Searches, measures and reports.
///
/// # Errors
/// If the budget is malformed, or the model cannot be read or run.
pub fn run(args: &VariantsArgs, loaded: &Loaded, bindings: &Bindings, text: &str) -> Result<u8> {
    let budget = Budget::parse(text)?;
    if budget.what == What::Latency && args.no_run {
        return Err(Error::usage("--budget latency needs a run").hint("leave out --no-run"));
    }
    let original = load::build(loaded, bindings)?;
    let before = analyze(&original.graph).totals;
    let mut found = Vec::new();
    if loaded.path.is_none() {
        found.extend(by_knobs(loaded, &budget)?);
    }
    found.extend(by_rewrites(loaded, bindings, &budget, &[], args.quiet)?);
    found.sort_by(|a, b| {
        let size = |o: &Proposal| budget.of(&o.totals).unwrap_or(0.0);
        a.changed.total_cmp(&b.changed).then(size(b).total_cmp(&size(a)))
    });
    if budget.what != What::Latency {
        found.truncate(SHOWN);
    }
    let mut runners = vec![Runner::new("original", original)];
    let mut changes = vec![0.0];
    for o in found {
        runners.push(Runner::new(&o.name, o.model));
        changes.push(o.changed);
    }
    let mut warnings = Vec::new();
    if !args.no_run {
        warnings = conditions(args);
        race(&mut runners, &args.measure, Paths::Optimized, args.quiet)?;
    }
    warnings.iter().for_each(|w| note(args.quiet, w));
    let mut rows: Vec<(Candidate, f64)> = runners.into_iter().map(|r| r.candidate).zip(changes).collect();
    if budget.what == What::Latency {
        let fits = |c: &Candidate| c.timing(KernelPath::Optimized).is_some_and(|t| t.stats.median * 1e3 <= budget.most);
        let mut first = true;
        rows.retain(|(c, _)| std::mem::take(&mut first) || fits(c));
        rows.truncate(SHOWN + 1);
    }
    let meets_already = match budget.of(&before) {
        Some(v) => v <= budget.most,
        None => rows[0].0.timing(KernelPath::Optimized).is_some_and(|t| t.stats.median * 1e3 <= budget.most),
    };
    let list: Vec<Candidate> = rows.iter().map(|r| r.0.clone()).collect();
    let heading = format!("{} · {}", crate::error::printable(&loaded.name), budget.words());
    let mut grid = candidates::grid("variants", heading, &list, false);
    grid.columns.insert(1, GridColumn::new("weights_changed", "%changed"));
    for (row, (_, changed)) in grid.rows.iter_mut().zip(&rows) {
        row.insert(1, Cell::Share(*changed));
    }
    if meets_already {
        grid.notes.push("The original meets this budget as it is.".into());
    }
    if list.len() == 1 {
        grid.notes.push("No single rewrite, width or resolution of the table meets this budget.".into());
    } else {
        grid.notes.push(format!(
            "{} shown, those that keep most of the original's weights first (%changed: the others, {} for a smaller input).",
            plural(list.len() - 1, "candidate"),
            percent(0.0)
        ));
    }
    grid.extra.push(("warnings".into(), warnings.into()));
    output::show_grid(&grid, &args.output)?;
    Ok(FINE)
}

/// Share of the original's stored numbers that a rewrite does not have under the same name and shape.
fn changed(before: &ModelSpec, after: &ModelSpec) -> f64 {
    let kept: HashMap<&str, &[usize]> = after.graph.initializers.iter().map(|(n, t)| (n.as_str(), t.dims())).collect();
    let (mut all, mut gone) = (0usize, 0usize);
    for (name, t) in &before.graph.initializers {
        all += t.len();
        if kept.get(name.as_str()) != Some(&t.dims()) {
            gone += t.len();
        }
    }
    if all == 0 { 0.0 } else { gone as f64 / all as f64 }
}

/// Widths and resolutions of a built-in network.
fn by_knobs(loaded: &Loaded, budget: &Budget) -> Result<Vec<Proposal>> {
    let shown = zoo::show(&loaded.name)?;
    let base = shown.name.split('@').next().unwrap_or(&shown.name).to_string();
    let settings: BTreeMap<String, Setting> = shown.knobs.iter().map(|(k, v)| (k.name.clone(), v.clone())).collect();
    let allowed =
        |name: &str| shown.knobs.iter().find(|(k, _)| k.name == name).map(|(k, v)| (k.allowed.clone(), v.clone()));
    let named = |changes: &[(&str, String)]| {
        let mut all: BTreeMap<&str, String> = settings.iter().map(|(k, v)| (k.as_str(), v.to_string())).collect();
        all.extend(changes.iter().cloned());
        format!("{base}@{}", all.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(","))
    };
    let make = |changes: &[(&str, String)]| -> Result<Proposal> {
        let spec = zoo::build(&named(changes))?;
        let name = changes.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(" ");
        let model = ir::build(&spec, &Bindings::default())?;
        let totals = analyze(&model.graph).totals;
        Ok(Proposal { name, model, totals, changed: changed(&loaded.spec, &spec) })
    };
    let fits = |o: &Proposal| budget.of(&o.totals).is_some_and(|v| v <= budget.most);
    let resolutions: Vec<i64> = match allowed("res") {
        Some((Allowed::Ints(low, _), Setting::Int(now))) => {
            let steps = (1..).map(|i| now - i * RESOLUTION_STEP).take_while(|r| *r >= low.max(32));
            steps.collect()
        }
        _ => Vec::new(),
    };
    let widths: Vec<f64> = match allowed("width") {
        Some((Allowed::Floats(low, _), Setting::Float(now))) => {
            let count = ((now - low.max(0.05)) / WIDTH_STEP).floor().max(0.0) as usize;
            (1..=count).map(|i| ((now - i as f64 * WIDTH_STEP) * 100.0).round() / 100.0).collect()
        }
        _ => Vec::new(),
    };
    let mut out = Vec::new();
    if budget.what == What::Latency {
        for f in COARSE {
            let near = resolutions.iter().find(|r| (**r as f64) <= f * resolutions[0] as f64 + 32.0);
            out.extend(near.map(|r| make(&[("res", r.to_string())])).transpose().ok().flatten());
            let near = widths.iter().find(|w| **w <= f * (widths[0] + WIDTH_STEP));
            out.extend(near.map(|w| make(&[("width", w.to_string())])).transpose().ok().flatten());
        }
        out.dedup_by(|a, b| a.name == b.name);
        return Ok(out);
    }
    // The largest resolution that does; then, at every resolution above it, the largest width.
    let at_res = |r: Option<i64>| r.map(|r| ("res", r.to_string()));
    let mut tried = vec![None];
    for &r in &resolutions {
        let Ok(o) = make(&[("res", r.to_string())]) else { break };
        if fits(&o) {
            out.push(o);
            break;
        }
        tried.push(Some(r));
    }
    for r in tried {
        let with = |w: f64| {
            let changes: Vec<(&str, String)> = at_res(r).into_iter().chain([("width", w.to_string())]).collect();
            make(&changes)
        };
        // Costs fall with the width, in steps: the first that fits is found by halving, then walked back to.
        let (mut low, mut high) = (0, widths.len());
        while low < high {
            let mid = (low + high) / 2;
            if with(widths[mid]).is_ok_and(|o| fits(&o)) { high = mid } else { low = mid + 1 }
        }
        if let Some(o) = widths.get(low).and_then(|w| with(*w).ok()).filter(fits) {
            out.push(o);
        }
    }
    Ok(out)
}

/// Rewrites of any model, and the widest cut of its channels.
///
/// # Errors
/// If the model cannot be rewritten or run to see its ranges.
pub fn by_rewrites(
    loaded: &Loaded,
    bindings: &Bindings,
    budget: &Budget,
    without: &[&str],
    quiet: bool,
) -> Result<Vec<Proposal>> {
    let mut sets: Vec<Vec<Choice>> = VARIANTS
        .iter()
        .filter(|e| e.name != "slim" && !without.contains(&e.name))
        .map(|&e| vec![Choice::of(e)])
        .collect();
    let slim = VARIANTS.iter().find(|e| e.name == "slim");
    let ranges = seen(&loaded.spec, bindings, &sets, quiet)?;
    let policy = Policy { force: false, ranges };
    let fits = |t: &Totals| budget.what == What::Latency || budget.of(t).is_some_and(|v| v <= budget.most);
    if let Some(slim) = slim {
        let at = |w: usize| vec![Choice::of(slim).with("width", w as f64 / 100.0)];
        if budget.what == What::Latency {
            sets.extend(COARSE.iter().map(|w| at((w * 100.0) as usize)));
        } else {
            // The widest that fits; 5 is the narrowest there is.
            let (mut narrow, mut wide) = (4, 100);
            while wide - narrow > 1 {
                let mid = (narrow + wide) / 2;
                let made = make(&loaded.spec, bindings, &[at(mid)], &policy)?;
                if fits(&analyze(&made[0].1.model.graph).totals) { narrow = mid } else { wide = mid }
            }
            if narrow >= 5 {
                sets.push(at(narrow));
            }
        }
    }
    let mut out = Vec::new();
    for (name, r) in make(&loaded.spec, bindings, &sets, &policy)? {
        let totals = analyze(&r.model.graph).totals;
        if r.steps.iter().any(|s| s.changes.is_empty()) || !fits(&totals) {
            continue;
        }
        let changed = changed(&loaded.spec, &r.spec);
        out.push(Proposal { name, model: r.model, totals, changed });
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_are_read_with_their_units() {
        let read = |t: &str| Budget::parse(t).map(|b| (b.what, b.most));
        assert_eq!(read("madds=150M").unwrap(), (What::Madds, 150e6));
        assert_eq!(read("params=2.5m").unwrap(), (What::Params, 2.5e6));
        assert_eq!(read("bytes=2MiB").unwrap(), (What::Bytes, 2097152.0));
        assert_eq!(read("bytes=40MB").unwrap(), (What::Bytes, 40e6));
        assert_eq!(read("latency=5ms").unwrap(), (What::Latency, 5.0));
        assert_eq!(read("MACs=1G").unwrap(), (What::Madds, 1e9));
        for (text, part) in [
            ("madds", "WHAT=N"),
            ("speed=3", "none of madds"),
            ("madds=-3", "positive"),
            ("madds=many", "positive"),
            ("latency=5M", "positive"),
        ] {
            let e = Budget::parse(text).unwrap_err();
            assert!(e.to_string().contains(part) && e.hint_text().is_some(), "{text}: {e}");
        }
    }
}
