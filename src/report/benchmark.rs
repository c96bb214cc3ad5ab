//! Figures for trackers of benchmarks: github-action-benchmark (`customSmallerIsBetter`) and Bencher (Bencher Metric Format).

use super::model::Report;
use super::{Look, json};
use crate::error::Result;
use serde_json::{Map, Value, json};

/// Counts that are known: key, unit, value.
fn counts(report: &Report) -> Vec<(&'static str, &'static str, u64)> {
    let t = &report.totals;
    let mut out = vec![("params", "params", t.params)];
    if t.unknown_nodes == 0 {
        out.push(("madds", "MAdds", t.work.madds));
        out.push(("flops", "FLOPs", t.work.flops()));
    }
    if t.unknown_traffic == 0 {
        out.push(("bytes", "bytes", t.traffic.total()));
    }
    out.extend(t.peak_activation_bytes.map(|n| ("peak_activation_bytes", "bytes", n)));
    out
}

/// A list of named values, smaller is better.
pub fn github_action_benchmark(report: &Report, _look: &Look) -> Result<Vec<u8>> {
    let model = &report.model.name;
    let mut list: Vec<Value> = counts(report)
        .into_iter()
        .map(|(key, unit, n)| json!({ "name": format!("{model} {key}"), "unit": unit, "value": n }))
        .collect();
    for l in &report.latency {
        let s = &l.stats;
        list.push(json!({
            "name": format!("{model} {} latency", l.path.name()),
            "unit": "ms",
            "value": s.median * 1e3,
            "range": format!("± {}", s.mad * 1e3),
            "extra": format!("median of {} runs, {} threads, {}", s.runs, l.threads, l.isa),
        }));
    }
    json::bytes(&list.into())
}

/// Measures by benchmark; latency in nanoseconds, as Bencher's own measure of that name is.
pub fn bencher(report: &Report, _look: &Look) -> Result<Vec<u8>> {
    let model = &report.model.name;
    let mut out = Map::new();
    let mut measures: Map<String, Value> =
        counts(report).into_iter().map(|(key, _, n)| (key.replace('_', "-"), json!({ "value": n }))).collect();
    for l in &report.latency {
        let s = &l.stats;
        let ns = |v: f64| v * 1e9;
        let (low, high) = s.median_ci.unwrap_or((s.min, s.max));
        let latency = json!({ "value": ns(s.median), "lower_value": ns(low), "upper_value": ns(high) });
        if Some(l.path) == report.main {
            measures.insert("latency".into(), latency);
        } else {
            out.insert(format!("{model} ({})", l.path.name()), json!({ "latency": latency }));
        }
    }
    out.insert(model.clone(), measures.into());
    json::bytes(&out.into())
}
