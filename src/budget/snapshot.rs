//! A model's figures at one moment: totals by metric and rows. Made from an analysis, or read from a saved report.

use crate::analysis::{Analysis, peak_activation};
use crate::cost::Span;
use crate::error::{Error, Result};
use crate::ir::Model;
use serde_json::Value as Json;
use std::collections::BTreeMap;

/// What can be limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Metric {
    /// Learned elements.
    Params,
    /// Multiply-adds.
    Madds,
    /// `2·madds + other_flops`.
    Flops,
    /// Floating-point operations that are no multiply-adds.
    OtherFlops,
    /// Compulsory traffic.
    Bytes,
    /// Of it, weights.
    WeightBytes,
    /// Of it, activations read.
    ReadBytes,
    /// Of it, activations written.
    WriteBytes,
    /// Most bytes of activations alive at once.
    PeakActivationBytes,
    /// Bytes of learned elements as stored.
    ParamBytes,
    /// Bytes of the file and of the files with its data.
    FileBytes,
    /// Nodes.
    Nodes,
}

/// Every metric with its key and its unit in words.
pub const METRICS: &[(Metric, &str, &str)] = &[
    (Metric::Params, "params", "params"),
    (Metric::Madds, "madds", "MAdds"),
    (Metric::Flops, "flops", "FLOPs"),
    (Metric::OtherFlops, "other_flops", "other FLOPs"),
    (Metric::Bytes, "bytes", "bytes moved"),
    (Metric::WeightBytes, "weight_bytes", "bytes of weights moved"),
    (Metric::ReadBytes, "read_bytes", "bytes read"),
    (Metric::WriteBytes, "write_bytes", "bytes written"),
    (Metric::PeakActivationBytes, "peak_activation_bytes", "bytes of activations"),
    (Metric::ParamBytes, "param_bytes", "bytes of params"),
    (Metric::FileBytes, "file_bytes", "bytes of file"),
    (Metric::Nodes, "nodes", "nodes"),
];

impl Metric {
    /// By its key.
    pub fn named(key: &str) -> Option<Metric> {
        METRICS.iter().find(|m| m.1 == key).map(|m| m.0)
    }
    fn entry(self) -> (&'static str, &'static str) {
        METRICS.iter().find(|m| m.0 == self).map_or(("", ""), |m| (m.1, m.2))
    }
    /// Key in files and reports.
    pub fn key(self) -> &'static str {
        self.entry().0
    }
    /// Unit in words.
    pub fn unit(self) -> &'static str {
        self.entry().1
    }
    /// Whether rows have it.
    pub fn is_per_row(self) -> bool {
        matches!(
            self,
            Metric::Params
                | Metric::Madds
                | Metric::Flops
                | Metric::OtherFlops
                | Metric::Bytes
                | Metric::WeightBytes
                | Metric::ReadBytes
                | Metric::WriteBytes
                | Metric::Nodes
        )
    }
}

/// What is known of a figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    /// It.
    Known(u64),
    /// Bounds.
    Within(Span),
    /// Nothing, for this reason.
    Unknown(&'static str),
}

impl Value {
    fn of(span: Span) -> Value {
        span.known().map_or(Value::Within(span), Value::Known)
    }
    fn known_or(n: Option<u64>, why: &'static str) -> Value {
        n.map_or(Value::Unknown(why), Value::Known)
    }
    /// It, where known.
    pub fn known(self) -> Option<u64> {
        if let Value::Known(n) = self { Some(n) } else { None }
    }
}

/// A row.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Name in the file.
    pub name: String,
    /// Operator.
    pub op: String,
    /// Shape of the first output as text.
    pub shape: String,
    /// Learned elements.
    pub params: u64,
    /// Multiply-adds, if known.
    pub madds: Option<u64>,
    /// Other floating-point operations, if known.
    pub other_flops: Option<u64>,
    /// Weights, activations read, results written in bytes, if known.
    pub traffic: Option<[u64; 3]>,
    /// Time on the main path, if measured.
    pub ms: Option<f64>,
}

impl Row {
    /// A figure; `None` where unknown or where rows have none.
    pub fn get(&self, metric: Metric) -> Option<u64> {
        match metric {
            Metric::Params => Some(self.params),
            Metric::Madds => self.madds,
            Metric::OtherFlops => self.other_flops,
            Metric::Flops => self.madds?.checked_mul(2)?.checked_add(self.other_flops?),
            Metric::Bytes => self.traffic.map(|t| t.iter().fold(0, |a: u64, b| a.saturating_add(*b))),
            Metric::WeightBytes => self.traffic.map(|t| t[0]),
            Metric::ReadBytes => self.traffic.map(|t| t[1]),
            Metric::WriteBytes => self.traffic.map(|t| t[2]),
            Metric::Nodes => Some(1),
            Metric::PeakActivationBytes | Metric::ParamBytes | Metric::FileBytes => None,
        }
    }
}

/// A model's figures.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Name for people.
    pub name: String,
    /// Totals.
    pub values: BTreeMap<Metric, Value>,
    /// Shares of nodes and of bytes with a known cost, 0 to 1.
    pub coverage: (f64, Option<f64>),
    /// Rows that run per inference, and static ones that hold params, in execution order.
    pub rows: Vec<Row>,
    /// The row at which most activations are alive.
    pub peak_row: Option<usize>,
    /// The first row of unknown cost.
    pub first_unknown: Option<usize>,
    /// Median latency of the main path in milliseconds, if measured.
    pub ms: Option<f64>,
}

impl Snapshot {
    /// What an analysis says; `file_bytes` where there is a file.
    pub fn of(name: &str, model: &Model, a: &Analysis, file_bytes: Option<u64>) -> Snapshot {
        let t = &a.totals;
        let moved = |n: u64| match t.unknown_traffic {
            0 => Value::Known(n),
            _ => Value::Within(Span { low: n, high: None }),
        };
        let mut values = BTreeMap::new();
        values.insert(Metric::Params, Value::Known(t.params));
        values.insert(Metric::Madds, Value::of(t.span.madds));
        values.insert(Metric::Flops, Value::of(t.span.flops()));
        values.insert(Metric::OtherFlops, Value::of(t.span.other_flops));
        values.insert(Metric::Bytes, moved(t.traffic.total()));
        values.insert(Metric::WeightBytes, moved(t.traffic.weight_bytes));
        values.insert(Metric::ReadBytes, moved(t.traffic.read_bytes));
        values.insert(Metric::WriteBytes, moved(t.traffic.write_bytes));
        let peak = Value::known_or(t.peak_activation_bytes, "a size depends on the data");
        values.insert(Metric::PeakActivationBytes, peak);
        values.insert(Metric::ParamBytes, Value::Known(t.param_bytes));
        values.insert(Metric::FileBytes, Value::known_or(file_bytes, "a built-in network has no file"));
        values.insert(Metric::Nodes, Value::Known(t.nodes as u64));
        let peak_node = peak_activation(&model.graph).and_then(|p| p.1);
        let mut s = Snapshot {
            name: name.to_string(),
            values,
            coverage: (t.coverage.node_share(), t.coverage.byte_share()),
            ..Snapshot::default()
        };
        for r in &a.rows {
            if r.is_static && r.params == 0 {
                continue;
            }
            if peak_node == Some(r.node.0 as usize) {
                s.peak_row = Some(s.rows.len());
            }
            let work = r.work();
            if work.is_none() {
                s.first_unknown.get_or_insert(s.rows.len());
            }
            s.rows.push(Row {
                name: r.name.clone(),
                op: r.op.clone(),
                shape: r.output_shape.to_string(),
                params: r.params,
                madds: r.span.madds.known(),
                other_flops: work.map(|w| w.other_flops),
                traffic: r.traffic.map(|t| [t.weight_bytes, t.read_bytes, t.write_bytes]),
                ms: None,
            });
        }
        s
    }

    /// A total.
    pub fn get(&self, metric: Metric) -> Value {
        self.values.get(&metric).copied().unwrap_or(Value::Unknown("it is not recorded"))
    }

    /// What a saved JSON report says (`madd-prof count|profile --format json`).
    ///
    /// # Errors
    /// If the text is no such report.
    pub fn from_report(text: &str, name: &str) -> Result<Snapshot> {
        let doc: Json = serde_json::from_str(text).map_err(|e| Error::input(format!("is no JSON: {e}")))?;
        let schema = doc["schema"].as_str().unwrap_or_default();
        let wrong = |what: &str| {
            Error::input(format!("is no report of a model: {what}"))
                .hint("make one with `madd-prof count MODEL --format json -o base.json`")
        };
        if !schema.starts_with("madd-prof/") {
            return Err(wrong("it has no \"schema\": \"madd-prof/1\""));
        }
        let layers = doc["layers"].as_array().ok_or_else(|| wrong("it has no layers"))?;
        let totals = doc["totals"].as_object().ok_or_else(|| wrong("it has no totals"))?;
        let total = |key: &str| totals.get(key).and_then(Json::as_u64);
        let unknown = total("unknown_nodes").unwrap_or(0) > 0;
        let mut values = BTreeMap::new();
        for (metric, key, _) in METRICS {
            let n = match metric {
                Metric::Bytes => {
                    let parts = ["weight_bytes", "read_bytes", "write_bytes"];
                    parts.iter().try_fold(0u64, |sum, k| sum.checked_add(total(k)?))
                }
                _ => total(key),
            };
            let Some(n) = n else { continue };
            let bounded = unknown && matches!(metric, Metric::Madds | Metric::Flops | Metric::OtherFlops);
            values.insert(*metric, if bounded { Value::Within(Span { low: n, high: None }) } else { Value::Known(n) });
        }
        let latency = &doc["latency"];
        let path = ["optimized", "reference"].into_iter().find(|p| latency[p]["median_ms"].is_number());
        let row = |l: &Json| -> Option<Row> {
            let word = |key: &str| l[key].as_str().unwrap_or_default().to_string();
            let number = |key: &str| l[key].as_u64();
            let dims = l["output_shape"].as_array().map(|dims| {
                let dim = |d: &Json| d.as_u64().map_or_else(|| d.as_str().unwrap_or("?").into(), |n| n.to_string());
                dims.iter().map(dim).collect::<Vec<String>>().join("x")
            });
            let is_static = l["static"].as_bool() == Some(true);
            let params = number("params").unwrap_or(0);
            let bytes = || Some([number("weight_bytes")?, number("read_bytes")?, number("write_bytes")?]);
            (!is_static || params > 0).then(|| Row {
                name: word("name"),
                op: word("op"),
                shape: dims.unwrap_or_default(),
                params,
                madds: number("madds"),
                other_flops: number("other_flops"),
                traffic: bytes(),
                ms: path.and_then(|p| l[format!("{p}_ms")].as_f64()),
            })
        };
        let c = &doc["totals"]["coverage"];
        let rows: Vec<Row> = layers.iter().filter_map(row).collect();
        Ok(Snapshot {
            name: doc["model"]["name"].as_str().unwrap_or(name).to_string(),
            values,
            coverage: (c["node_share"].as_f64().unwrap_or(1.0), c["byte_share"].as_f64()),
            peak_row: None,
            first_unknown: rows.iter().position(|r| r.madds.is_none() || r.other_flops.is_none()),
            rows,
            ms: path.and_then(|p| latency[p]["median_ms"].as_f64()),
        })
    }
}
