//! Trace events as chrome://tracing and Perfetto read them: the steps of the median run of each path, one after the other.

use super::model::{Layer, Report};
use super::{Look, json};
use crate::engine::Path;
use crate::error::{Error, Result};
use serde_json::{Value, json};

/// Makes the bytes.
pub fn render(report: &Report, _look: &Look) -> Result<Vec<u8>> {
    if !report.latency.iter().any(|l| l.per_step) {
        return Err(Error::usage("a trace needs times per layer, and none were measured")
            .hint("`madd-prof profile MODEL --format trace -o model.trace.json`"));
    }
    let mut events = vec![meta("process_name", 0, &report.model.name)];
    for (thread, path) in [Path::Optimized, Path::Reference].into_iter().enumerate() {
        if !report.latency.iter().any(|l| l.path == path && l.per_step) {
            continue;
        }
        let id = thread as u64 + 1;
        events.push(meta("thread_name", id, &format!("{} path", path.name())));
        let mut at_us = 0.0;
        for l in report.layers.iter().chain(&report.overhead) {
            let Some(ms) = l.main_ms(Some(path)) else { continue };
            events.push(event(l, id, at_us, ms * 1e3, path));
            at_us += ms * 1e3;
        }
    }
    json::bytes(&json!({
        "traceEvents": events,
        "displayTimeUnit": "ms",
        "otherData": { "tool": "madd-prof", "version": env!("CARGO_PKG_VERSION"), "model": report.model.name },
    }))
}

fn meta(name: &str, thread: u64, value: &str) -> Value {
    json!({ "name": name, "ph": "M", "pid": 1, "tid": thread, "args": { "name": value } })
}

fn event(l: &Layer, thread: u64, ts_us: f64, dur_us: f64, path: Path) -> Value {
    let optimized = path == Path::Optimized;
    json!({
        "name": l.name,
        "cat": if l.op.is_empty() { l.kind.name() } else { l.op.as_str() },
        "ph": "X",
        "ts": ts_us,
        "dur": dur_us,
        "pid": 1,
        "tid": thread,
        "args": {
            "op": l.op,
            "output_shape": l.output_shape.as_ref().map(ToString::to_string),
            "params": l.params,
            "madds": (l.unknown_nodes == 0).then_some(l.work.madds),
            "flops": (l.unknown_nodes == 0).then(|| l.work.flops()),
            "bytes": (l.unknown_traffic == 0).then(|| l.traffic.total()),
            "kernel": l.kernel.as_ref().filter(|_| optimized),
            "attainable_ms": l.attainable_ms.filter(|_| optimized),
            "bound": l.bound.filter(|_| optimized).map(|b| b.name()),
        },
    })
}
