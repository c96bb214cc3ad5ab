//! Which layers a figure comes from: those that were added or grew since the baseline, or the largest where there is none.

use super::Culprit;
use super::diff::{Kind, diff};
use super::snapshot::{Metric, Row, Snapshot};

/// Most layers named.
const MOST: usize = 5;

/// What stands for a metric in rows, where rows do not have it themselves.
fn proxy(metric: Metric) -> Metric {
    match metric {
        Metric::ParamBytes | Metric::FileBytes => Metric::Params,
        m => m,
    }
}

/// The layers most responsible for a total, among those `within` lets pass.
pub fn blame(now: &Snapshot, before: Option<&Snapshot>, metric: Metric, within: &dyn Fn(&Row) -> bool) -> Vec<Culprit> {
    let culprit = |r: &Row, amount: u64, how| Culprit { layer: r.name.clone(), op: r.op.clone(), amount, how };
    let metric = proxy(metric);
    if metric == Metric::PeakActivationBytes {
        // The peak is at one place; what it holds there is the whole.
        let amount = now.get(metric).known().unwrap_or(0);
        return now.peak_row.and_then(|i| now.rows.get(i)).map(|r| culprit(r, amount, "largest")).into_iter().collect();
    }
    let mut found: Vec<Culprit> = Vec::new();
    if let Some(before) = before {
        for c in diff(before, now) {
            let Some(row) = c.head.and_then(|j| now.rows.get(j)).filter(|r| within(r)) else { continue };
            let was = c.base.and_then(|i| before.rows.get(i)).and_then(|r| r.get(metric)).unwrap_or(0);
            let grown = row.get(metric).unwrap_or(0).saturating_sub(was);
            if grown > 0 {
                found.push(culprit(row, grown, if c.kind == Kind::Added { "added" } else { "grown" }));
            }
        }
    }
    if found.is_empty() {
        let rows = now.rows.iter().filter(|r| within(r));
        found = rows.filter_map(|r| r.get(metric).filter(|n| *n > 0).map(|n| culprit(r, n, "largest"))).collect();
    }
    found.sort_by_key(|c| std::cmp::Reverse(c.amount));
    found.truncate(MOST);
    found
}
