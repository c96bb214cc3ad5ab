//! `check --why`: the layers responsible, and the smallest change that would fit.

use super::budget::{Budget as Target, by_rewrites};
use super::check::{self, Counted};
use crate::budget::formula::{Comparison, Sizes};
use crate::budget::judge::{Subject, judge};
use crate::budget::settings::Test;
use crate::budget::{Budget, Finding, Limit, Metric, Outcome, Snapshot};
use crate::error::Result;
use crate::units::{exact, percent};
use crate::zoo::{self, Allowed, Setting};
use std::collections::BTreeSet;

/// Steps of widths, in hundredths.
const WIDTHS: std::ops::RangeInclusive<usize> = 5..=99;
/// Steps of resolutions.
const RES_STEP: usize = 32;

/// Sentences about a breach: by how much, which layers, what would fit.
///
/// # Errors
/// If a candidate cannot be counted for a reason other than its size.
pub fn explain(f: &Finding, s: &Subject, c: &Counted, quiet: bool) -> Result<Vec<String>> {
    let mut out = Vec::new();
    if let (Some(value), Some(bound)) = (f.value, f.bound)
        && value > bound
        && f.rule != "formula"
        && f.rule != "latency"
    {
        let share = if bound > 0.0 { format!(" ({} too much)", percent(value / bound - 1.0)) } else { String::new() };
        let over = exact((value - bound) as u64);
        out.push(format!("it is {over} over{share}"));
        let grown: Vec<_> = f.culprits.iter().filter(|c| c.how != "largest").collect();
        if let Some(first) = grown.first().filter(|_| !f.rule.starts_with("layer.")) {
            if first.amount as f64 >= value - bound {
                let without = if first.how == "added" { "without" } else { "with what it was before," };
                out.push(format!("{without} layer '{}' it fits", first.layer));
            } else {
                let mut sum = 0.0;
                let names: Vec<&str> = grown
                    .iter()
                    .take_while(|c| {
                        let needed = sum < value - bound;
                        sum += c.amount as f64;
                        needed
                    })
                    .map(|c| c.layer.as_str())
                    .collect();
                if sum >= value - bound {
                    out.push(format!("without what was added or grew in {} it fits", names.join(", ")));
                }
            }
        }
    }
    let Some(limit) = s.budget.limits.iter().find(|l| l.line == f.line && l.rule == f.rule && is_of(l, f)) else {
        return Ok(out);
    };
    match &limit.test {
        Test::Latency { .. } | Test::Coverage(_) => return Ok(out),
        // Nothing smaller makes more of it.
        Test::Least(..) => {
            if let (Some(value), Some(bound)) = (f.value, f.bound) {
                let share = percent(1.0 - value / bound.max(1.0));
                out.push(format!("it is {} short ({share} too little)", exact((bound - value) as u64)));
            }
            return Ok(out);
        }
        // At sizes of its own: at which would it hold?
        Test::Formula(c) if c.sizes().any(|s| !s.is_empty()) => {
            out.extend(by_asked(c, s));
            return Ok(out);
        }
        _ => {}
    }
    let fits = |now: &Snapshot| holds(s, limit, now);
    out.extend(by_sizes(c, &fits));
    out.extend(by_knobs(c, &fits));
    if let Some(target) = target(limit) {
        out.extend(by_change(c, target, quiet));
    }
    Ok(out)
}

/// Whether a finding is of this limit, among those of one line.
fn is_of(limit: &Limit, f: &Finding) -> bool {
    match &limit.test {
        Test::Formula(c) => c.text == f.limit,
        Test::Least(..) => f.limit.starts_with("at least"),
        Test::Most(..) => f.limit.starts_with("at most"),
        _ => true,
    }
}

/// The largest smaller size at which a formula that asks at sizes holds.
fn by_asked(c: &Comparison, s: &Subject) -> Vec<String> {
    let names: BTreeSet<&String> = c.sizes().flat_map(Sizes::keys).collect();
    let mut out = Vec::new();
    for name in names {
        let asked: BTreeSet<usize> = c.sizes().filter_map(|sizes| sizes.get(name).copied()).collect();
        let (Some(&now), 1) = (asked.first(), asked.len()) else { continue };
        let figure = |metric: Metric, sizes: &Sizes| {
            Ok(if sizes.is_empty() { s.now.get(metric).known() } else { (s.at)(sizes)?.get(metric).known() })
        };
        let holds = |n: usize| c.with(name, n).holds(&figure).is_ok_and(|h| h.is_some_and(|h| h.0));
        let step = if name == "res" { RES_STEP } else { 1 };
        let all: Vec<usize> = (1..now).filter(|n| (now - n).is_multiple_of(step)).collect();
        if let Some(n) = largest(&all, &holds) {
            out.push(format!("at {name}={n} (not {now}) it holds"));
        }
    }
    out
}

/// Whether a limit holds for other figures of the same model.
fn holds(s: &Subject, limit: &Limit, now: &Snapshot) -> bool {
    let budget = Budget { limits: vec![limit.clone()], ..s.budget.clone() };
    let subject = Subject {
        budget: &budget,
        model: s.model.clone(),
        is_file: s.is_file,
        now,
        before: s.before,
        at: &|_| Ok(now.clone()),
    };
    judge(&subject).is_ok_and(|list| list.iter().all(|f| f.outcome == Outcome::Pass))
}

/// The largest of `sizes` (rising) that does, found by halving.
fn largest(sizes: &[usize], does: &dyn Fn(usize) -> bool) -> Option<usize> {
    let (mut low, mut high) = (0, sizes.len());
    while low < high {
        let mid = (low + high) / 2;
        if does(sizes[mid]) { low = mid + 1 } else { high = mid }
    }
    low.checked_sub(1).map(|i| sizes[i])
}

/// Smaller free dims.
fn by_sizes(c: &Counted, fits: &dyn Fn(&Snapshot) -> bool) -> Vec<String> {
    let mut out = Vec::new();
    for (dim, &now) in c.bound.iter().filter(|(_, n)| **n > 1) {
        let with = |n: usize| check::at(c, &Sizes::from([(dim.clone(), n)])).is_ok_and(|s| fits(&s));
        let all: Vec<usize> = (1..now).collect();
        if let Some(n) = largest(&all, &with) {
            out.push(format!("with {dim}={n} (now {now}) it fits"));
        }
    }
    out
}

/// Narrower built-in networks, and smaller inputs of them.
fn by_knobs(c: &Counted, fits: &dyn Fn(&Snapshot) -> bool) -> Vec<String> {
    let mut out = Vec::new();
    let Some(shown) = c.loaded.path.is_none().then(|| zoo::show(&c.loaded.name).ok()).flatten() else { return out };
    for (knob, now) in &shown.knobs {
        let with = |value: String| check::with_knobs(c, &c.bindings, &[(&knob.name, value)]).is_ok_and(|s| fits(&s));
        match (knob.name.as_str(), &knob.allowed, now) {
            ("res", Allowed::Ints(low, _), Setting::Int(now)) => {
                let now = usize::try_from(*now).unwrap_or(0);
                let low = usize::try_from(*low).unwrap_or(1).max(RES_STEP);
                let all: Vec<usize> = (low..now).filter(|r| (now - r).is_multiple_of(RES_STEP)).collect();
                if let Some(r) = largest(&all, &|r| with(r.to_string())) {
                    out.push(format!("with res={r} (now {now}) it fits"));
                }
            }
            ("width", Allowed::Floats(low, _), Setting::Float(now)) => {
                let all: Vec<usize> =
                    WIDTHS.filter(|w| *w as f64 / 100.0 >= *low && (*w as f64) < now * 100.0 - 0.5).collect();
                let text = |w: usize| (w as f64 / 100.0).to_string();
                if let Some(w) = largest(&all, &|w| with(text(w))) {
                    out.push(format!("with width={} (now {now}) it fits", text(w)));
                }
            }
            _ => {}
        }
    }
    out
}

/// What a rewrite would have to meet, where rewrites are about that.
fn target(limit: &Limit) -> Option<Target> {
    let Test::Most(crate::budget::settings::Scope::Model, metric, most) = limit.test else { return None };
    Target::most(metric, most).filter(|_| matches!(metric, Metric::Madds | Metric::Params | Metric::Bytes))
}

/// The rewrite that changes least.
fn by_change(c: &Counted, target: Target, quiet: bool) -> Vec<String> {
    // What cannot be rewritten is no reason to fail: the finding stands without the advice.
    let Ok(mut found) = by_rewrites(&c.loaded, &c.bindings, &target, &["int8", "low-rank"], quiet) else {
        return Vec::new();
    };
    found.sort_by(|a, b| a.changed.total_cmp(&b.changed));
    let one = found.first();
    let say = |p: &super::budget::Proposal| {
        format!("rewritten by `variants --apply {}` it fits ({} of the weights change)", p.name, percent(p.changed))
    };
    one.map(say).into_iter().collect()
}
