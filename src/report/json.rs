//! JSON: the machine-readable contract (`schema`: `madd-prof/1`). Counts are integers, unknown is `null`.

use super::Look;
use super::columns::{COLUMNS, Cell};
use super::model::{Latency, Layer, Port, Report, SCHEMA};
use super::roofline::Roofline;
use crate::cost::Span;
use crate::error::{Error, Result};
use crate::lens::Lens;
use crate::machine::cache::machine_json;
use crate::tensor::Shape;
use serde_json::{Map, Value, json};

/// Makes the document.
pub fn render(report: &Report, _look: &Look) -> Result<Vec<u8>> {
    let text = bytes(&document(report))?;
    // A line break followed by a key cannot occur inside a string, so this is the first level's own.
    let mark = b"\n  \"layers\": []";
    let Some(at) = text.windows(mark.len()).position(|w| w == mark) else { return Ok(text) };
    let (before, after) = (at + mark.len() - 2, at + mark.len());
    let mut out = Vec::with_capacity(text.len() + 1024 * report.layers.len());
    out.extend_from_slice(&text[..before]);
    write_layers(&mut out, &report.layers, report, 1)?;
    out.extend_from_slice(&text[after..]);
    Ok(out)
}

/// Writes rows straight into the text: of a model of thousands of nodes they are nearly all there is.
fn write_layers(out: &mut Vec<u8>, layers: &[Layer], report: &Report, depth: usize) -> Result<()> {
    let failed = |e: serde_json::Error| Error::run(format!("the report cannot be written as JSON: {e}"));
    let line = |out: &mut Vec<u8>, depth: usize| {
        out.push(b'\n');
        out.resize(out.len() + 2 * depth, b' ');
    };
    out.push(b'[');
    for (i, l) in layers.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        line(out, depth + 1);
        out.push(b'{');
        for (k, column) in COLUMNS.iter().enumerate() {
            if k > 0 {
                out.push(b',');
            }
            line(out, depth + 2);
            out.push(b'"');
            out.extend_from_slice(column.key.as_bytes());
            out.extend_from_slice(b"\": ");
            match (column.get)(l, report) {
                // Shapes stand on one line each: they are read as a whole.
                Cell::Shape(s) => serde_json::to_writer(&mut *out, &shape(&s)).map_err(failed)?,
                Cell::Text(s) | Cell::Name(s) => serde_json::to_writer(&mut *out, &s).map_err(failed)?,
                Cell::Count(n) | Cell::AtLeast(n) | Cell::Bytes(n) | Cell::AtLeastBytes(n) => {
                    serde_json::to_writer(&mut *out, &n).map_err(failed)?;
                }
                other => serde_json::to_writer(&mut *out, &cell(&other)).map_err(failed)?,
            }
        }
        if !l.bodies.is_empty() {
            out.push(b',');
            line(out, depth + 2);
            out.extend_from_slice(b"\"bodies\": ");
            serde_json::to_writer(&mut *out, &bodies(l, report)).map_err(failed)?;
        }
        line(out, depth + 1);
        out.push(b'}');
    }
    if !layers.is_empty() {
        line(out, depth);
    }
    out.push(b']');
    Ok(())
}

/// A document as bytes, indented, with a final line end.
pub(super) fn bytes(document: &Value) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(document)
        .map_err(|e| Error::run(format!("the report cannot be written as JSON: {e}")))?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// A number without a fraction as an integer.
pub(super) fn whole(v: f64) -> Value {
    if v.fract() == 0.0 && (0.0..1.8e19).contains(&v) { json!(v as u64) } else { json!(v) }
}

fn shape(s: &Shape) -> Value {
    s.dims().map_or(Value::Null, |d| json!(d))
}

/// A count that may be known in part: `{"low", "high"}`, `high` null where nothing bounds it.
fn span(s: Span) -> Value {
    json!({ "low": s.low, "high": s.high })
}

pub(super) fn cell(c: &Cell) -> Value {
    match c {
        Cell::Text(s) | Cell::Name(s) => json!(s),
        Cell::Shape(s) => shape(s),
        Cell::Count(n) | Cell::AtLeast(n) | Cell::Bytes(n) | Cell::AtLeastBytes(n) => json!(n),
        Cell::Ms(v) | Cell::Giga(v) | Cell::Ratio(v) | Cell::Share(v) | Cell::Efficiency(v) => json!(v),
        Cell::Delta(n) => json!(n),
        Cell::Flag(b) => json!(b),
        Cell::FusedInto(_) | Cell::Between(_) | Cell::Unknown | Cell::Blank => Value::Null,
    }
}

fn bodies(l: &Layer, report: &Report) -> Value {
    let body = |b: &super::model::BodyRows| {
        json!({
            "name": b.name,
            "rounds": span(b.rounds),
            "rows_are": if b.is_executed { "sums of a run" } else { "one round" },
            "madds": span(b.span.madds),
            "other_flops": span(b.span.other_flops),
            "layers": b.layers.iter().map(|l| layer(l, report)).collect::<Vec<_>>(),
        })
    };
    l.bodies.iter().map(body).collect()
}

fn layer(l: &Layer, report: &Report) -> Value {
    let mut map = Map::new();
    for column in COLUMNS {
        map.insert(column.key.to_string(), cell(&(column.get)(l, report)));
    }
    if !l.bodies.is_empty() {
        map.insert("bodies".into(), bodies(l, report));
    }
    Value::Object(map)
}

fn port(p: &Port) -> Value {
    json!({ "name": p.name, "dtype": p.fact.dtype.map(|d| d.name()), "shape": shape(&p.fact.shape) })
}

fn latency(l: &Latency) -> Value {
    let ms = |s: f64| json!(s * 1e3);
    let s = &l.stats;
    json!({
        "min_ms": ms(s.min),
        "median_ms": ms(s.median),
        "p90_ms": ms(s.p90),
        "max_ms": ms(s.max),
        "mad_ms": ms(s.mad),
        "median_ci95_ms": s.median_ci.map(|(a, b)| json!([a * 1e3, b * 1e3])),
        "runs": s.runs,
        "outliers": s.outliers,
        "warmup_runs": l.warmup_runs,
        "stopped_by": l.stop,
        "threads": l.threads,
        "isa": l.isa,
        "arena_bytes": l.arena_bytes,
        "prepare_ms": l.prepare_s.map(ms),
        "first_ms": l.first_s.map(ms),
        "kept_bytes": l.kept_bytes,
        "timed_per_step": l.per_step,
        "samples_ms": l.samples.iter().map(|v| v * 1e3).collect::<Vec<f64>>(),
    })
}

fn roofline(r: &Roofline) -> Value {
    json!({
        "threads": r.ceilings.threads,
        "isa": r.ceilings.isa,
        "peak_madds_per_s": r.ceilings.peak_madds_per_s,
        "overhead_ms": r.ceilings.overhead_s * 1e3,
        "memory": r.ceilings.shelves.iter().map(|s| json!({
            "level": s.level.name(),
            "bytes": (s.bytes < u64::MAX).then_some(s.bytes),
            "read_bytes_per_s": s.read_bytes_per_s,
            "copy_bytes_per_s": s.copy_bytes_per_s,
            "ridge_flops_per_byte": r.ceilings.ridge(s),
        })).collect::<Vec<_>>(),
        "weights_in": r.weights_in.name(),
        "floor_ms": r.floor_ms,
        "attainable_ms": r.attainable_ms,
        "measured_ms": r.measured_ms,
        "measured_over_floor": r.measured_over_floor(),
        "steps": r.steps,
        "unknown_steps": r.unknown_steps,
        "probe_age_s": r.probe_age_s,
        "by_bound": r.by_bound.iter().map(|b| json!({
            "bound": b.bound.name(), "steps": b.steps, "attainable_ms": b.attainable_ms, "measured_ms": b.ms,
        })).collect::<Vec<_>>(),
    })
}

fn lens(l: &Lens) -> Value {
    json!({
        "tool": l.tool,
        "version": l.version,
        "figure_name": l.figure_name,
        "figure": l.figure,
        "ours_madds": l.ours_madds,
        "lines": l.lines.iter()
            .map(|line| json!({ "why": line.why, "nodes": line.nodes, "amount": line.amount })).collect::<Vec<_>>(),
        "notes": l.notes,
    })
}

pub(super) fn document(report: &Report) -> Value {
    let m = &report.model;
    let t = &report.totals;
    let opset = m.opsets.iter().find(|(d, _)| d.is_empty() || d == "ai.onnx").map(|(_, v)| v);
    let domain = |d: &str| if d.is_empty() { "ai.onnx".to_string() } else { d.to_string() };
    let opsets: Map<String, Value> = m.opsets.iter().map(|(d, v)| (domain(d), json!(v))).collect();
    let by_path: Map<String, Value> = report.latency.iter().map(|l| (l.path.name().to_string(), latency(l))).collect();
    let mut doc = json!({
        "schema": SCHEMA,
        "tool": { "name": "madd-prof", "version": env!("CARGO_PKG_VERSION"), "command": report.command },
        "model": {
            "name": m.name,
            "path": m.path,
            "opset": opset,
            "opsets": opsets,
            "producer": { "name": m.producer.0, "version": m.producer.1 },
            "dims": m.bound,
            "inputs": m.inputs.iter().map(port).collect::<Vec<_>>(),
            "outputs": m.outputs.iter().map(port).collect::<Vec<_>>(),
        },
        "totals": {
            "params": t.params,
            "madds": t.work.madds,
            "other_flops": t.work.other_flops,
            "flops": t.work.flops(),
            "weight_bytes": t.traffic.weight_bytes,
            "read_bytes": t.traffic.read_bytes,
            "write_bytes": t.traffic.write_bytes,
            "peak_activation_bytes": t.peak_activation_bytes,
            "nodes": t.nodes,
            "unknown_nodes": t.unknown_nodes,
            "useful_madds": t.work.useful_madds,
            "param_bytes": t.param_bytes,
            "statistics": t.statistics,
            "static_nodes": report.static_nodes,
            "unknown_traffic_nodes": t.unknown_traffic,
            "params_with_statistics": t.params.saturating_add(t.statistics),
            "params_distinct": report.distinct.as_ref().map(|d| d.params),
            "param_copies": report.distinct.as_ref().map(|d| d.copies.iter().map(|c| json!({
                "name": c.name, "of": c.of, "elements": c.elements, "transposed": c.is_transposed,
            })).collect::<Vec<_>>()),
            "madds_range": span(t.span.madds),
            "other_flops_range": span(t.span.other_flops),
            "activation_madds": t.activation_madds,
            "weight_madds": t.work.madds - t.activation_madds.min(t.work.madds),
            "madds_by_type": report.madds_by_type.iter().map(|(k, n)| (k.clone(), json!(n))).collect::<Map<_, _>>(),
            "bytes_by_type": report.bytes_by_type.iter().map(|(k, n)| (k.clone(), json!(n))).collect::<Map<_, _>>(),
            "coverage": {
                "nodes": t.coverage.nodes,
                "known_nodes": t.coverage.known_nodes,
                "executed_nodes": t.coverage.executed_nodes,
                "node_share": t.coverage.node_share(),
                "bytes": t.coverage.bytes,
                "known_bytes": t.coverage.known_bytes,
                "byte_share": t.coverage.byte_share(),
                "time_share": report.time_coverage,
            },
        },
        "layers": [],
        "overhead": report.overhead.iter().map(|l| layer(l, report)).collect::<Vec<_>>(),
        "classes": report.classes.iter().map(|c| json!({
            "class": c.class.name(),
            "nodes": c.nodes,
            "fused_nodes": c.fused,
            "madds": c.work.madds,
            "flops": c.work.flops(),
            "bytes": c.traffic.total(),
            "madds_share": c.madds_share,
            "ms": c.ms,
            "time_share": c.time_share,
        })).collect::<Vec<_>>(),
        "latency": by_path,
        "speedup": report.speedup,
        "roofline": report.roofline.as_ref().map(roofline),
        "imported": report.imported.as_ref().map(|i| json!({
            "runtime": i.runtime,
            "runs": i.runs,
            "measured_ms": i.measured_ms,
            "mapped_ms": i.mapped_ms,
            "rows": i.rows.iter().map(|r| json!({
                "name": r.name, "op": r.op, "kernel": r.kernel, "ms": r.ms, "nodes": r.nodes, "by": r.by.name(),
            })).collect::<Vec<_>>(),
        })),
        "process": { "peak_resident_bytes": report.peak_resident_bytes },
        "conventions": report.conventions.iter()
            .map(|c| (c.name.to_string(), json!({ "value": c.value, "meaning": c.words }))).collect::<Map<_, _>>(),
        "as": report.lenses.iter().map(lens).collect::<Vec<_>>(),
        "not_learned": report.not_learned.iter()
            .map(|(why, n)| json!({ "why": why, "elements": n })).collect::<Vec<_>>(),
        "findings": report.findings,
    });
    let ceilings = report.machine.as_ref().map(machine_json);
    let machine = report.host.as_ref().map_or(
        Value::Null,
        |h| json!({ "cpu": h.cpu, "cores": h.cores, "platform": h.platform, "ceilings": ceilings }),
    );
    if let Value::Object(map) = &mut doc {
        map.insert("machine".into(), machine);
        map.insert("warnings".into(), json!(report.warnings));
    }
    doc
}
