//! What a model should cost: one row per node, totals that are the sums of the rows, coverage always present.

mod class;
mod demand;
mod distinct;
mod executed;
mod liveness;
mod operands;
mod params;
pub mod symbolic;
mod verify;

pub use class::{Class, class_of};
pub use demand::{Demand, Demands};
pub use distinct::{Copied, Distinct, distinct};
pub use executed::{Ledger, execute};
pub use liveness::{live_bytes, peak_activation, peak_activation_bytes};
pub use operands::{Operands, operands_of};
pub use params::{Excluded, ParamCount, Why, learned};
pub use verify::{Mismatch, Verified, verify};

use crate::cost::{Span, Traffic, Work, WorkSpan};
use crate::ir::{Graph, Node, NodeId};
use crate::ops::{Access, Charge, CostCx};
use crate::tensor::{DType, Fact, Shape};
use std::collections::BTreeMap;

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
    /// Arithmetic, as far as the rule tells.
    pub charge: Charge,
    /// What is known of it where the rule does not tell all: bounds from the shapes.
    pub span: WorkSpan,
    /// Compulsory traffic; `None` when a size is unknown.
    pub traffic: Option<Traffic>,
    /// Computed once per model, charged nothing per inference.
    pub is_static: bool,
    /// Bytes moved by element type, in pieces; of nodes without subgraphs.
    pub bytes_by_type: Vec<(DType, u64)>,
    /// What its multiply-adds multiply; `None` for operators without any, and for control flow.
    pub operands: Option<Operands>,
    /// Of its multiply-adds, those between two activations: attention scores and their application.
    pub activation_madds: u64,
    /// Whether the arithmetic was found by running the model, not by its rule alone.
    pub is_executed: bool,
    /// The subgraphs it runs, with their own rows.
    pub bodies: Vec<BodyCost>,
}

/// A subgraph of a control-flow node.
#[derive(Debug, Clone)]
pub struct BodyCost {
    /// `then`, `else` or `body`.
    pub name: &'static str,
    /// How often it runs per inference.
    pub rounds: Span,
    /// Its rows: for one round, or over all rounds once it was executed.
    pub rows: Vec<Row>,
    /// Sum over its rows.
    pub span: WorkSpan,
    /// Whether the rows are those of a run.
    pub is_executed: bool,
}

impl BodyCost {
    /// How often its rows count per inference: once where they are sums of a run; `None` where only a run tells.
    pub fn times(&self) -> Option<u64> {
        if self.is_executed { Some(1) } else { self.rounds.known() }
    }
}

impl Row {
    /// The arithmetic, if known.
    pub fn work(&self) -> Option<Work> {
        self.charge.known()
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
    /// What is known of the arithmetic of all rows together.
    pub span: WorkSpan,
    /// Traffic of the rows whose traffic is known.
    pub traffic: Traffic,
    /// Rows.
    pub nodes: usize,
    /// Rows whose arithmetic is unknown.
    pub unknown_nodes: usize,
    /// Rows whose traffic is unknown.
    pub unknown_traffic: usize,
    /// Of the known multiply-adds, those between two activations.
    pub activation_madds: u64,
    /// How much of the model the totals cover.
    pub coverage: Coverage,
    /// Largest sum of live activations over the execution order; `None` when a size is unknown.
    pub peak_activation_bytes: Option<u64>,
}

/// How much of what runs per inference has a known cost. Nodes computed once per model are not among it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Coverage {
    /// Nodes that run per inference.
    pub nodes: usize,
    /// Of these, with known arithmetic.
    pub known_nodes: usize,
    /// Of the known ones, by running the model.
    pub executed_nodes: usize,
    /// Bytes moved by nodes whose traffic is known.
    pub bytes: u64,
    /// Of these, by nodes with known arithmetic.
    pub known_bytes: u64,
    /// Whether `bytes` is all there is; else the share of bytes is not known.
    pub all_bytes_known: bool,
}

impl Coverage {
    /// Share of nodes, 0 to 1; 1 for a model without nodes.
    pub fn node_share(&self) -> f64 {
        if self.nodes == 0 { 1.0 } else { self.known_nodes as f64 / self.nodes as f64 }
    }
    /// Share of bytes, 0 to 1; `None` where some traffic is unknown.
    pub fn byte_share(&self) -> Option<f64> {
        match (self.all_bytes_known, self.bytes) {
            (false, _) => None,
            (true, 0) => Some(1.0),
            (true, bytes) => Some(self.known_bytes as f64 / bytes as f64),
        }
    }
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
    let rows = rows(graph, &params);
    let mut analysis = Analysis { rows, totals: Totals::default(), params };
    analysis.total(peak_activation_bytes(graph));
    analysis
}

impl Analysis {
    /// Sums the rows.
    fn total(&mut self, peak_activation_bytes: Option<u64>) {
        let mut totals = Totals {
            nodes: self.rows.len(),
            params: self.params.total,
            param_bytes: self.params.bytes,
            statistics: self.params.statistics,
            peak_activation_bytes,
            span: WorkSpan::NONE,
            ..Totals::default()
        };
        let coverage = &mut totals.coverage;
        coverage.all_bytes_known = true;
        for row in &self.rows {
            totals.span = totals.span + row.span;
            totals.activation_madds = totals.activation_madds.saturating_add(row.activation_madds);
            match row.work() {
                Some(work) => totals.work = totals.work + work,
                None => totals.unknown_nodes += 1,
            }
            match row.traffic {
                Some(t) => totals.traffic = totals.traffic + t,
                None => totals.unknown_traffic += 1,
            }
            if row.is_static {
                continue;
            }
            coverage.nodes += 1;
            coverage.known_nodes += usize::from(row.work().is_some());
            coverage.executed_nodes += usize::from(row.is_executed);
            coverage.all_bytes_known &= row.traffic.is_some();
            let bytes = row.traffic.map_or(0, |t| t.total());
            coverage.bytes = coverage.bytes.saturating_add(bytes);
            if row.work().is_some() {
                coverage.known_bytes = coverage.known_bytes.saturating_add(bytes);
            }
        }
        self.totals = totals;
    }
}

impl Analysis {
    /// Bytes moved by element type, the largest first; subgraphs included.
    pub fn bytes_by_type(&self) -> Vec<(DType, u64)> {
        fn add(rows: &[Row], n: u64, sums: &mut BTreeMap<DType, u64>) {
            for row in rows.iter().filter(|r| r.traffic.is_some()) {
                for body in &row.bodies {
                    add(&body.rows, n.saturating_mul(body.times().unwrap_or(0)), sums);
                }
                for (dtype, bytes) in &row.bytes_by_type {
                    let sum = sums.entry(*dtype).or_default();
                    *sum = sum.saturating_add(bytes.saturating_mul(n));
                }
            }
        }
        let mut sums = BTreeMap::new();
        add(&self.rows, 1, &mut sums);
        let mut sums: Vec<(DType, u64)> = sums.into_iter().filter(|(_, n)| *n > 0).collect();
        sums.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
        sums
    }
    /// Multiply-adds by the element types they multiply, the largest first; subgraphs included.
    pub fn madds_by_type(&self) -> Vec<(Operands, u64)> {
        fn add(rows: &[Row], n: u64, sums: &mut BTreeMap<Operands, u64>) {
            for row in rows {
                for body in &row.bodies {
                    add(&body.rows, n.saturating_mul(body.times().unwrap_or(0)), sums);
                }
                if let (Some(operands), Some(work)) = (row.operands, row.work()) {
                    let sum = sums.entry(Operands { weighted: false, ..operands }).or_default();
                    *sum = sum.saturating_add(work.madds.saturating_mul(n));
                }
            }
        }
        let mut sums = BTreeMap::new();
        add(&self.rows, 1, &mut sums);
        let mut sums: Vec<(Operands, u64)> = sums.into_iter().filter(|(_, n)| *n > 0).collect();
        sums.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
        sums
    }
}

/// One row per node.
fn rows(graph: &Graph, params: &ParamCount) -> Vec<Row> {
    let mut rows = Vec::with_capacity(graph.nodes().len());
    for (id, node) in graph.iter() {
        let first = node.outputs.iter().flatten().next().map(|v| &graph.value(*v).fact);
        let domain = if node.domain.is_empty() || node.domain == "ai.onnx" { "" } else { &node.domain };
        let (new, shared, statistics) = params.of(id);
        let bodies = body_costs(graph, node);
        let mut bytes_by_type = Vec::new();
        let traffic = match &bodies[..] {
            [] => traffic(graph, node, &mut bytes_by_type),
            _ if node.is_static => Some(Traffic::default()),
            bodies => body_traffic(bodies),
        };
        let charge = graph.charge(node);
        rows.push(Row {
            node: id,
            name: node.name.clone(),
            op: if domain.is_empty() { node.op_type.clone() } else { format!("{domain}.{}", node.op_type) },
            output_shape: first.map_or(Shape::UNKNOWN, |f| f.shape.clone()),
            output_dtype: first.and_then(|f| f.dtype),
            params: new,
            shared_params: shared,
            statistics,
            charge,
            span: graph.span_of(node, charge),
            traffic,
            is_static: node.is_static,
            is_executed: false,
            bytes_by_type,
            operands: operands_of(graph, node),
            activation_madds: 0,
            bodies,
        });
        if let Some(row) = rows.last_mut() {
            row.activation_madds = activation_madds(graph, node, row);
        }
    }
    rows
}

/// Multiply-adds of a row between two activations.
fn activation_madds(graph: &Graph, node: &Node, row: &Row) -> u64 {
    let Some(madds) = row.work().map(|w| w.madds) else { return 0 };
    if !row.bodies.is_empty() {
        let inner = |b: &BodyCost| -> u64 {
            let n = b.times().unwrap_or(0);
            b.rows.iter().map(|r| r.activation_madds).fold(0, u64::saturating_add).saturating_mul(n)
        };
        return row.bodies.iter().map(inner).fold(0, u64::saturating_add).min(madds);
    }
    match row.operands {
        None => 0,
        Some(_) if class_of(graph, node) == Class::Attention => {
            // The packed form projects its input by a weight first: one multiply-add per row of the input and weight element.
            let elements = |i: usize| -> Option<u64> {
                let value = graph.value(node.inputs.get(i).copied().flatten()?);
                Some(value.fact.elements()? as u64)
            };
            let width = || -> Option<u64> {
                let fact = &graph.value(node.inputs.first().copied().flatten()?).fact;
                fact.shape.dims()?.last().copied().flatten().map(|n| n.max(1) as u64)
            };
            let projects =
                matches!(node.op_type.as_str(), "Attention" | "QAttention") && node.domain == "com.microsoft";
            let projected = || Some((elements(0)? / width()?).saturating_mul(elements(1)?));
            if projects { madds.saturating_sub(projected().unwrap_or(0)) } else { madds }
        }
        Some(operands) => {
            if operands.weighted {
                0
            } else {
                madds
            }
        }
    }
}

/// The subgraphs of a node with their rows.
fn body_costs(graph: &Graph, node: &Node) -> Vec<BodyCost> {
    let bodies = node.op.family().bodies();
    if bodies.is_empty() {
        return Vec::new();
    }
    let inputs = graph.rule_inputs(node);
    let outputs: Vec<Option<&Fact>> = node.outputs.iter().map(|id| id.map(|id| &graph.value(id).fact)).collect();
    let rounds = node.op.family().rounds(&CostCx { inputs: &inputs, outputs: &outputs });
    bodies
        .iter()
        .zip(rounds)
        .filter_map(|(body, (name, rounds))| {
            let inner = body.as_any().downcast_ref::<Graph>()?;
            let rows = rows(inner, &learned(inner));
            let span = rows.iter().map(|r| r.span).fold(WorkSpan::NONE, |a, b| a + b);
            Some(BodyCost { name, rounds, rows, span, is_executed: false })
        })
        .collect()
}

/// What the bodies of a node move: known where each one's rounds and sizes are.
fn body_traffic(bodies: &[BodyCost]) -> Option<Traffic> {
    let mut sum = Traffic::default();
    for body in bodies {
        // What is never taken moves nothing, whatever its sizes.
        if body.rounds == Span::ZERO {
            continue;
        }
        let n = body.times()?;
        for row in &body.rows {
            let t = row.traffic?;
            sum = sum
                + Traffic {
                    weight_bytes: t.weight_bytes.checked_mul(n)?,
                    read_bytes: t.read_bytes.checked_mul(n)?,
                    write_bytes: t.write_bytes.checked_mul(n)?,
                };
        }
    }
    Some(sum)
}

/// Compulsory traffic of a node: each operand read once, each result written once.
fn traffic(graph: &Graph, node: &Node, by_type: &mut Vec<(DType, u64)>) -> Option<Traffic> {
    let bytes = |v: &Option<crate::ir::ValueId>| v.and_then(|v| graph.value(v).fact.bytes());
    let elements = node.outputs.first().copied().flatten().and_then(|v| graph.value(v).fact.elements());
    moved(graph, node, &|i| bytes(&node.inputs[i]), &|i| bytes(&node.outputs[i]), elements, by_type)
}

/// Compulsory traffic of a node whose operands have given sizes in bytes, and whose first output has `elements`.
fn moved(
    graph: &Graph,
    node: &Node,
    input: &dyn Fn(usize) -> Option<u64>,
    output: &dyn Fn(usize) -> Option<u64>,
    elements: Option<usize>,
    by_type: &mut Vec<(DType, u64)>,
) -> Option<Traffic> {
    let access = node.op.family().access();
    if node.is_static || access == Access::View {
        return Some(Traffic::default());
    }
    let held = node.op.family().held();
    let weight_bytes = held.learned.checked_add(held.statistics)?.checked_mul(held.width)?;
    let mut t = Traffic { weight_bytes, ..Traffic::default() };
    let mut seen = Vec::with_capacity(node.inputs.len());
    for i in (0..node.outputs.len()).filter(|&i| node.outputs[i].is_some()) {
        let bytes = output(i)?;
        t.write_bytes = t.write_bytes.checked_add(bytes)?;
        if let Some(dtype) = node.outputs[i].and_then(|v| graph.value(v).fact.dtype) {
            by_type.push((dtype, bytes));
        }
    }
    for (i, v) in node.inputs.iter().enumerate() {
        let Some(v) = *v else { continue };
        if seen.contains(&v) {
            continue; // x·x reads x once
        }
        seen.push(v);
        let value = graph.value(v);
        let bytes = match access {
            Access::Selected if i == 0 => value.fact.dtype?.bytes_of(elements?)? as u64,
            // A weight is moved as it is stored: dequantising it is part of the product, or done once.
            _ if value.is_static => match operands::stored_type(graph, v).zip(value.fact.elements()) {
                Some((stored, n)) if value.fact.dtype != Some(stored) => stored.bytes_of(n)? as u64,
                _ => input(i)?,
            },
            _ => input(i)?,
        };
        if let Some(dtype) = if value.is_static { operands::stored_type(graph, v) } else { value.fact.dtype } {
            by_type.push((dtype, bytes));
        }
        let column = if value.is_static { &mut t.weight_bytes } else { &mut t.read_bytes };
        *column = column.checked_add(bytes)?;
    }
    Some(t)
}
