//! Limits held against figures. Exact where figures are known; bounds decide where they can; what remains cannot be told.

use super::amount::Growth;
use super::blame::blame;
use super::formula::Sizes;
use super::settings::{Budget, Limit, Scope, Test};
use super::snapshot::{Metric, Row, Snapshot, Value};
use super::{Culprit, Finding, Level, Outcome};
use crate::error::Result;
use crate::units::{exact, plural};

/// A model under a budget.
pub struct Subject<'a> {
    /// The budget.
    pub budget: &'a Budget,
    /// File or built-in network, for people.
    pub model: String,
    /// Whether it is a file.
    pub is_file: bool,
    /// Its figures.
    pub now: &'a Snapshot,
    /// Its figures in the baseline.
    pub before: Option<&'a Snapshot>,
    /// Its figures at other sizes.
    pub at: &'a dyn Fn(&Sizes) -> Result<Snapshot>,
}

/// What is found of one side of a limit.
struct Found {
    outcome: Outcome,
    found: String,
    value: Option<f64>,
    bound: Option<f64>,
    limit: String,
    culprits: Vec<Culprit>,
    note: Option<String>,
}

/// Whether a figure is at most (or at least) a bound.
fn within(value: Value, bound: u64, most: bool) -> Outcome {
    let holds = |n: u64| if most { n <= bound } else { n >= bound };
    match value {
        Value::Known(n) if holds(n) => Outcome::Pass,
        Value::Known(_) => Outcome::Breach,
        Value::Within(s) if most && s.high.is_some_and(holds) => Outcome::Pass,
        Value::Within(s) if most && !holds(s.low) => Outcome::Breach,
        Value::Within(s) if !most && holds(s.low) => Outcome::Pass,
        Value::Within(s) if !most && s.high.is_some_and(|h| !holds(h)) => Outcome::Breach,
        _ => Outcome::CannotTell,
    }
}

/// A figure in words.
pub fn words(value: Value, metric: Metric) -> String {
    let unit = metric.unit();
    match value {
        Value::Known(n) => format!("{} {unit}", exact(n)),
        Value::Within(s) => match s.high {
            Some(high) => format!("between {} and {} {unit}", exact(s.low), exact(high)),
            None => format!("at least {} {unit}", exact(s.low)),
        },
        Value::Unknown(_) => format!("an unknown number of {unit}"),
    }
}

fn why_unknown(s: &Snapshot, value: Value) -> Option<String> {
    match value {
        Value::Known(_) => None,
        Value::Unknown(why) => Some(why.to_string()),
        Value::Within(_) => Some(match s.first_unknown.and_then(|i| s.rows.get(i)) {
            Some(r) => format!(
                "the cost of layer '{}' ({}) is unknown; a rule in madd-prof.toml or `count --executed` tells it",
                r.name, r.op
            ),
            None => "the cost of a layer is unknown".into(),
        }),
    }
}

/// The sum over rows of an operator.
fn of_op(s: &Snapshot, op: &str, metric: Metric) -> Value {
    let (mut sum, mut all) = (0u64, true);
    for r in s.rows.iter().filter(|r| r.op == op) {
        match r.get(metric) {
            Some(n) => sum = sum.saturating_add(n),
            None => all = false,
        }
    }
    if all { Value::Known(sum) } else { Value::Within(crate::cost::Span { low: sum, high: None }) }
}

/// Looks at every limit that needs no run.
///
/// # Errors
/// If a formula asks for sizes the model cannot take.
pub fn judge(s: &Subject) -> Result<Vec<Finding>> {
    let mut out = Vec::new();
    for limit in s.budget.limits.iter().filter(|l| l.level != Level::Off) {
        let Some(found) = look(s, limit)? else { continue };
        out.push(finding(s, limit, found));
    }
    Ok(out)
}

fn finding(s: &Subject, limit: &Limit, f: Found) -> Finding {
    Finding {
        budget: s.budget.name.clone(),
        model: s.model.clone(),
        is_file: s.is_file,
        rule: limit.rule.clone(),
        limit: f.limit,
        found: f.found,
        value: f.value,
        bound: f.bound,
        outcome: f.outcome,
        level: limit.level,
        culprits: if f.outcome == Outcome::Breach { f.culprits } else { Vec::new() },
        notes: f.note.filter(|_| f.outcome == Outcome::CannotTell).into_iter().collect(),
        line: limit.line,
    }
}

fn look(s: &Subject, limit: &Limit) -> Result<Option<Found>> {
    let number = |v: Value| v.known().map(|n| n as f64);
    Ok(Some(match &limit.test {
        Test::Most(Scope::Layer, metric, most) => layers(s, *metric, *most, true),
        Test::Least(Scope::Layer, metric, least) => layers(s, *metric, *least, false),
        Test::Most(scope, metric, bound) | Test::Least(scope, metric, bound) => {
            let is_most = matches!(limit.test, Test::Most(..));
            let value = match scope {
                Scope::Op(op) => of_op(s.now, op, *metric),
                _ => s.now.get(*metric),
            };
            let passes = |r: &Row| !matches!(scope, Scope::Op(op) if r.op != *op);
            Found {
                outcome: within(value, *bound, is_most),
                found: words(value, *metric),
                value: number(value),
                bound: Some(*bound as f64),
                limit: format!("{} {} {}", if is_most { "at most" } else { "at least" }, exact(*bound), metric.unit()),
                // What is too little has no layer to blame.
                culprits: if is_most { blame(s.now, s.before, *metric, &passes) } else { Vec::new() },
                note: why_unknown(s.now, value),
            }
        }
        Test::Coverage(least) => {
            let (nodes, bytes) = s.now.coverage;
            let share = bytes.map_or(nodes, |b| b.min(nodes)) * 100.0;
            let culprit = s.now.first_unknown.and_then(|i| s.now.rows.get(i));
            let culprit =
                culprit.map(|r| Culprit { layer: r.name.clone(), op: r.op.clone(), amount: 1, how: "largest" });
            Found {
                outcome: if share >= *least { Outcome::Pass } else { Outcome::Breach },
                found: format!("{share:.2} % of nodes or bytes with a known cost"),
                value: Some(share),
                bound: Some(*least),
                limit: format!("at least {least} %"),
                culprits: culprit.into_iter().collect(),
                note: None,
            }
        }
        Test::Growth(metric, growth) => grown(s, *metric, *growth),
        Test::Formula(c) => {
            let figure = |metric: Metric, sizes: &Sizes| -> Result<Option<u64>> {
                if sizes.is_empty() {
                    return Ok(s.now.get(metric).known());
                }
                Ok((s.at)(sizes)?.get(metric).known())
            };
            let held = c.holds(&figure)?;
            let all = |_: &Row| true;
            Found {
                outcome: match held {
                    Some((true, _)) => Outcome::Pass,
                    Some((false, _)) => Outcome::Breach,
                    None => Outcome::CannotTell,
                },
                found: held.map_or("unknown".into(), |(_, [a, b])| format!("{} against {}", grouped(a), grouped(b))),
                value: held.map(|h| h.1[0] as f64),
                bound: held.map(|h| h.1[1] as f64),
                limit: c.text.clone(),
                culprits: blame(s.now, s.before, c.metric().unwrap_or(Metric::Madds), &all),
                note: Some("a figure in it is unknown".into()),
            }
        }
        Test::Latency { .. } => return Ok(None),
    }))
}

fn grouped(n: i128) -> String {
    u64::try_from(n).map_or_else(|_| n.to_string(), exact)
}

fn layers(s: &Subject, metric: Metric, bound: u64, is_most: bool) -> Found {
    let rows = s.now.rows.iter().filter(|r| is_most || r.get(metric).is_none_or(|n| n > 0));
    let known: Vec<(&Row, u64)> = rows.clone().filter_map(|r| Some((r, r.get(metric)?))).collect();
    let unknown = rows.filter(|r| r.get(metric).is_none()).count();
    let worst = if is_most { known.iter().max_by_key(|r| r.1) } else { known.iter().min_by_key(|r| r.1) };
    let holds = |n: u64| if is_most { n <= bound } else { n >= bound };
    let mut over: Vec<&(&Row, u64)> = known.iter().filter(|r| !holds(r.1)).collect();
    over.sort_by_key(|r| if is_most { u64::MAX - r.1 } else { r.1 });
    let new = s.before.map(|b| blame(s.now, Some(b), metric, &|_| true)).unwrap_or_default();
    // A layer that is new or grew comes before one that always was too large.
    let how = |name: &str| new.iter().find(|c| c.layer == name).map_or("largest", |c| c.how);
    let mut culprits: Vec<Culprit> = over
        .iter()
        .map(|(r, n)| Culprit { layer: r.name.clone(), op: r.op.clone(), amount: *n, how: how(&r.name) })
        .collect();
    culprits.sort_by_key(|c| c.how == "largest");
    culprits.truncate(5);
    Found {
        outcome: match (over.is_empty(), unknown) {
            (false, _) => Outcome::Breach,
            (true, 0) => Outcome::Pass,
            _ => Outcome::CannotTell,
        },
        found: match worst {
            Some((r, n)) => {
                let more = if over.len() > 1 { format!(" and {} more", over.len() - 1) } else { String::new() };
                format!("{} {} in layer '{}'{more}", exact(*n), metric.unit(), r.name)
            }
            None => "no layer".into(),
        },
        value: worst.map(|w| w.1 as f64),
        bound: Some(bound as f64),
        limit: format!(
            "{} {} {} in a layer",
            if is_most { "at most" } else { "at least" },
            exact(bound),
            metric.unit()
        ),
        culprits,
        note: Some(format!("the cost of {} is unknown", plural(unknown, "layer"))),
    }
}

fn grown(s: &Subject, metric: Metric, growth: Growth) -> Found {
    let now = s.now.get(metric);
    let base = s.before.and_then(|b| b.get(metric).known());
    let Some(base) = base else {
        return Found {
            outcome: Outcome::CannotTell,
            found: words(now, metric),
            value: now.known().map(|n| n as f64),
            bound: None,
            limit: format!("at most {} more than the baseline", growth.words()),
            culprits: Vec::new(),
            note: Some("the baseline has no such figure; `madd-prof check --update-baseline` writes it".into()),
        };
    };
    let most = growth.most(base);
    let change = now.known().map_or(String::new(), |n| {
        let sign = if n >= base { "+" } else { "-" };
        format!(" ({sign}{} since the baseline)", exact(n.abs_diff(base)))
    });
    Found {
        outcome: within(now, most, true),
        found: format!("{}{change}", words(now, metric)),
        value: now.known().map(|n| n as f64),
        bound: Some(most as f64),
        limit: format!("at most {} more than {} {}", growth.words(), exact(base), metric.unit()),
        culprits: blame(s.now, s.before, metric, &|_| true),
        note: why_unknown(s.now, now),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost::Span;

    #[test]
    fn bounds_decide_where_they_can_and_nothing_else_does() {
        let s = |low, high| Value::Within(Span { low, high });
        for (value, most, want) in [
            (Value::Known(5), true, Outcome::Pass),
            (Value::Known(6), true, Outcome::Breach),
            (Value::Known(5), false, Outcome::Pass),
            (Value::Known(4), false, Outcome::Breach),
            (s(1, Some(5)), true, Outcome::Pass),
            (s(6, None), true, Outcome::Breach),
            (s(1, None), true, Outcome::CannotTell),
            (s(1, Some(9)), true, Outcome::CannotTell),
            (s(5, None), false, Outcome::Pass),
            (s(1, Some(4)), false, Outcome::Breach),
            (s(1, None), false, Outcome::CannotTell),
            (Value::Unknown("x"), true, Outcome::CannotTell),
        ] {
            assert_eq!(within(value, 5, most), want, "{value:?} {most}");
        }
    }
}
