//! PyTorch's trace (`torch.profiler`, `export_chrome_trace`): operators as nested events, times in microseconds. The outermost
//! operators are the rows; where the trace holds several equal runs they are told apart by their repetition.

use super::{File, Import, Row, dims, number, text};
use crate::error::{Error, Result};
use crate::measure::stats::median;
use serde_json::Value;

pub(super) fn read(file: &File) -> Option<Result<Import>> {
    let events = file.json.as_ref()?.get("traceEvents")?.as_array()?;
    Some(import(events))
}

fn import(events: &[Value]) -> Result<Import> {
    let op = |e: &&Value| matches!(e["cat"].as_str(), Some("cpu_op" | "Operator")) && e["ph"] == "X";
    let span = |e: &Value| Some((e["tid"].to_string(), e["ts"].as_f64()?, number(&e["dur"])?));
    let mut spans: Vec<(String, f64, f64, &Value)> =
        events.iter().filter(op).filter_map(|e| span(e).map(|(t, s, d)| (t, s, d, e))).collect();
    if spans.is_empty() {
        return Err(Error::input("holds no operators").hint("profile with activities=[ProfilerActivity.CPU]"));
    }
    spans.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)).then(b.2.total_cmp(&a.2)));
    // The thread with most time is the one that calls the model.
    let mut outer: Vec<(&str, f64, f64, &Value)> = Vec::new();
    let mut end = (String::new(), f64::NEG_INFINITY);
    for (thread, start, dur, e) in &spans {
        if *thread != end.0 || *start >= end.1 {
            outer.push((thread, *start, *dur, e));
            end = (thread.clone(), start + dur);
        }
    }
    let busy = |t: &str| outer.iter().filter(|o| o.0 == t).map(|o| o.2).sum::<f64>();
    let threads: std::collections::BTreeSet<&str> = outer.iter().map(|o| o.0).collect();
    let main = threads.into_iter().max_by(|a, b| busy(a).total_cmp(&busy(b))).unwrap_or_default().to_string();
    outer.retain(|o| o.0 == main);
    let shapes =
        |e: &Value| e["args"].get("Input Dims").or_else(|| e["args"].get("Input dims")).cloned().unwrap_or_default();
    let keys: Vec<String> = outer.iter().map(|o| format!("{} {}", text(&o.3["name"]), shapes(o.3))).collect();
    let period = period(&keys);
    let runs = keys.len() / period;
    let rows = (0..period).map(|i| {
        let times: Vec<f64> = (0..runs).map(|k| outer[k * period + i].2 / 1e6).collect();
        let e = outer[i].3;
        let inputs = shapes(e).as_array().into_iter().flatten().filter_map(dims).filter(|d| !d.is_empty()).collect();
        let name = text(&e["name"]);
        Row {
            op: name.trim_start_matches("aten::").to_string(),
            name,
            seconds: median(&times),
            inputs,
            ..Row::default()
        }
    });
    let wall = |k: usize| {
        let (first, last) = (&outer[k * period], &outer[(k + 1) * period - 1]);
        (last.1 + last.2 - first.1) / 1e6
    };
    let walls_s = (0..runs).map(wall).collect();
    Ok(Import { runtime: "PyTorch", runs, rows: rows.collect(), walls_s, ..Import::default() })
}

/// The shortest beginning that the whole repeats, a whole number of times.
fn period(keys: &[String]) -> usize {
    let n = keys.len();
    // Longest proper border of every beginning.
    let mut border = vec![0; n];
    for i in 1..n {
        let mut k = border[i - 1];
        while k > 0 && keys[i] != keys[k] {
            k = border[k - 1];
        }
        border[i] = k + usize::from(keys[i] == keys[k]);
    }
    let p = n - border.last().copied().unwrap_or(0);
    if p > 0 && n.is_multiple_of(p) { p } else { n.max(1) }
}
