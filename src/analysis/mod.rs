//! What a model should cost: one row per node, totals that are the sums of the rows, coverage always present.

mod class;
mod liveness;
mod params;
mod verify;

pub use class::{Class, class_of};
pub use liveness::peak_activation_bytes;
pub use params::{Excluded, ParamCount, Why, learned};
pub use verify::{Mismatch, Verified, verify};

use crate::cost::{Traffic, Work};
use crate::ir::{Graph, NodeId};
use crate::ops::{Access, Charge};
use crate::tensor::{DType, Shape};

/// One node's cost on paper.
#[derive(Debug, Clone)]
pub struct Row {
    /// The node.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Its operator, with the domain where that is not `ai.onnx` (`com.microsoft.FusedConv`).
    pub op: String,
    /// Shape of its first output.
    pub output_shape: Shape,
    /// Element type of its first output.
    pub output_dtype: Option<DType>,
    /// Learned elements first used here (a tensor used again elsewhere is charged once).
    pub params: u64,
    /// Learned elements this node uses that an earlier row was charged for.
    pub shared_params: u64,
    /// Running statistics (BatchNormalization) first used here.
    pub statistics: u64,
    /// Arithmetic, or unknown.
    pub charge: Charge,
    /// Compulsory traffic; `None` when a size is unknown.
    pub traffic: Option<Traffic>,
    /// Computed once per model, charged nothing per inference.
    pub is_static: bool,
}

impl Row {
    /// The arithmetic, if known.
    pub fn work(&self) -> Option<Work> {
        match self.charge {
            Charge::Known(w) => Some(w),
            Charge::Unknown => None,
        }
    }
    /// FLOPs per byte of compulsory traffic; `None` when unknown or nothing moves.
    pub fn intensity(&self) -> Option<f64> {
        let bytes = self.traffic?.total();
        (bytes > 0).then(|| self.work().map(|w| w.flops() as f64 / bytes as f64)).flatten()
    }
}

/// Sums over rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Learned elements, each tensor once.
    pub params: u64,
    /// Bytes those take in the file.
    pub param_bytes: u64,
    /// BatchNormalization running statistics.
    pub statistics: u64,
    /// Arithmetic of the rows whose cost is known.
    pub work: Work,
    /// Traffic of the rows whose traffic is known.
    pub traffic: Traffic,
    /// Rows.
    pub nodes: usize,
    /// Rows whose arithmetic is unknown.
    pub unknown_nodes: usize,
    /// Rows whose traffic is unknown.
    pub unknown_traffic: usize,
    /// Largest sum of live activations over the execution order; `None` when a size is unknown.
    pub peak_activation_bytes: Option<u64>,
}

/// A model's cost on paper.
#[derive(Debug, Clone)]
pub struct Analysis {
    /// One row per node, in execution order.
    pub rows: Vec<Row>,
    /// Sums of the rows.
    pub totals: Totals,
    /// What was taken for learned and what was not.
    pub params: ParamCount,
}

/// Counts a graph. Nothing is executed and no weight is read.
pub fn analyze(graph: &Graph) -> Analysis {
    let params = learned(graph);
    let mut rows = Vec::with_capacity(graph.nodes().len());
    for (id, node) in graph.iter() {
        let first = node.outputs.iter().flatten().next().map(|v| &graph.value(*v).fact);
        let domain = if node.domain.is_empty() || node.domain == "ai.onnx" { "" } else { &node.domain };
        let (new, shared, statistics) = params.of(id);
        rows.push(Row {
            node: id,
            name: node.name.clone(),
            op: if domain.is_empty() { node.op_type.clone() } else { format!("{domain}.{}", node.op_type) },
            output_shape: first.map_or(Shape::UNKNOWN, |f| f.shape.clone()),
            output_dtype: first.and_then(|f| f.dtype),
            params: new,
            shared_params: shared,
            statistics,
            charge: graph.charge(node),
            traffic: traffic(graph, id),
            is_static: node.is_static,
        });
    }
    let mut totals = Totals {
        nodes: rows.len(),
        params: params.total,
        param_bytes: params.bytes,
        statistics: params.statistics,
        peak_activation_bytes: peak_activation_bytes(graph),
        ..Totals::default()
    };
    for row in &rows {
        match row.charge {
            Charge::Known(work) => totals.work = totals.work + work,
            Charge::Unknown => totals.unknown_nodes += 1,
        }
        match row.traffic {
            Some(t) => totals.traffic = totals.traffic + t,
            None => totals.unknown_traffic += 1,
        }
    }
    Analysis { rows, totals, params }
}

/// Compulsory traffic of a node: each operand read once, each result written once.
fn traffic(graph: &Graph, id: NodeId) -> Option<Traffic> {
    let node = graph.node(id);
    let access = node.op.family().access();
    if node.is_static || access == Access::View {
        return Some(Traffic::default());
    }
    let mut t = Traffic::default();
    let mut seen = Vec::with_capacity(node.inputs.len());
    for v in node.outputs.iter().flatten() {
        t.write_bytes = t.write_bytes.checked_add(graph.value(*v).fact.bytes()?)?;
    }
    for (i, v) in node.inputs.iter().enumerate() {
        let Some(v) = *v else { continue };
        if seen.contains(&v) {
            continue; // x·x reads x once
        }
        seen.push(v);
        let value = graph.value(v);
        let bytes = match access {
            Access::Selected if i == 0 => {
                let out = node.outputs.first().copied().flatten()?;
                value.fact.dtype?.bytes_of(graph.value(out).fact.elements()?)? as u64
            }
            _ => value.fact.bytes()?,
        };
        let column = if value.is_static { &mut t.weight_bytes } else { &mut t.read_bytes };
        *column = column.checked_add(bytes)?;
    }
    Some(t)
}
