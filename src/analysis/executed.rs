//! What a run really did: branches taken, rounds of loops, sizes that only the data tells.
//!
//! The model runs once on its reference kernels; each node's cost rule is then asked with the sizes that were there. Rows whose
//! cost was known before keep it, so executing never changes a certain number.

use super::{Analysis, BodyCost, Row, body_traffic, moved};
use crate::cost::{Span, Traffic, Work, WorkSpan};
use crate::error::Result;
use crate::ir::{Graph, Node, NodeId, ValueId, interp};
use crate::ops::{Body, Charge, CostCx, EvalCx, Input, Inputs, Observer};
use crate::tensor::{Arith, DType, Fact, Shape, Tensor, tallied};
use std::cell::RefCell;
use std::collections::HashMap;
use std::ptr;

/// What one node did, over all its runs.
#[derive(Debug, Clone)]
struct Seen {
    runs: u64,
    work: Option<Work>,
    traffic: Option<Traffic>,
    by_type: Vec<(DType, u64)>,
    /// Of the first output, while it is the same in every run.
    shape: Shape,
}

/// A record of a run, by graph and node.
#[derive(Debug, Default)]
pub struct Ledger {
    seen: RefCell<HashMap<(usize, usize), Seen>>,
}

/// A graph's identity: subgraphs are shared, never copied, between the analysis and a run.
fn key(graph: &Graph) -> usize {
    ptr::from_ref(graph).addr()
}

impl Observer for Ledger {
    fn ran(&self, graph: &dyn Body, node: usize, inputs: &Inputs, outputs: &[Tensor]) {
        let Some(graph) = graph.as_any().downcast_ref::<Graph>() else { return };
        let at = graph.node(NodeId(node as u32));
        let ins: Vec<Option<Fact>> = inputs.iter().map(|t| t.map(Tensor::fact)).collect();
        let outs: Vec<Fact> = outputs.iter().map(Tensor::fact).collect();
        let rule: Vec<Option<Input>> =
            ins.iter().zip(inputs).map(|(f, t)| f.as_ref().map(|fact| Input { fact, value: *t })).collect();
        let out_refs: Vec<Option<&Fact>> = (0..at.outputs.len()).map(|i| outs.get(i)).collect();
        let is_control = !at.op.family().bodies().is_empty();
        // What a subgraph did is recorded node by node.
        let work = match at.op.family().charge(&CostCx { inputs: &rule, outputs: &out_refs }) {
            _ if is_control => Some(Work::NONE),
            Charge::Known(work) => Some(work),
            // No rule tells it even now (how many boxes overlap): counted by executing with numbers that count.
            _ => counted(at, inputs),
        };
        let bytes = |f: Option<&Fact>| f.and_then(Fact::bytes);
        let elements = outs.first().and_then(Fact::elements);
        let mut by_type = Vec::new();
        let traffic = moved(graph, at, &|i| bytes(ins[i].as_ref()), &|i| bytes(outs.get(i)), elements, &mut by_type);
        let shape = outs.first().map_or(Shape::UNKNOWN, |f| f.shape.clone());
        let mut seen = self.seen.borrow_mut();
        let entry = seen.entry((key(graph), node)).or_insert(Seen {
            runs: 0,
            work: Some(Work::NONE),
            traffic: Some(Traffic::default()),
            by_type: Vec::new(),
            shape: shape.clone(),
        });
        for (dtype, bytes) in by_type {
            match entry.by_type.iter_mut().find(|(d, _)| *d == dtype) {
                Some((_, sum)) => *sum = sum.saturating_add(bytes),
                None => entry.by_type.push((dtype, bytes)),
            }
        }
        entry.runs += 1;
        entry.work = entry.work.zip(work).map(|(a, b)| a + b);
        entry.traffic = entry.traffic.zip(traffic).map(|(a, b)| a + b);
        if entry.shape != shape {
            entry.shape = Shape::UNKNOWN;
        }
    }
}

/// What an operator does to numbers that count; `None` where it cannot run on them.
fn counted(node: &Node, inputs: &Inputs) -> Option<Work> {
    let cx = EvalCx { arith: Arith::Counting, outputs: node.outputs.len(), ..EvalCx::default() };
    let (made, tally) = tallied(|| node.op.eval(&cx, inputs));
    made.ok().map(|_| Work::madds(tally.madds).and_other(tally.other))
}

/// Runs a graph once on its reference kernels and records what every node did. `watch` is called after each node of the top graph.
///
/// # Errors
/// If a kernel fails.
pub fn execute(
    graph: &Graph,
    inputs: impl Iterator<Item = (ValueId, Tensor)>,
    watch: &mut dyn FnMut(NodeId),
) -> Result<Ledger> {
    let statics = interp::statics(graph)?;
    let ledger = Ledger::default();
    let cx = EvalCx { observer: Some(&ledger), ..EvalCx::default() };
    interp::run(graph, &cx, inputs, Some(&statics), &mut |id, _| watch(id))?;
    Ok(ledger)
}

impl Analysis {
    /// Fills what only a run tells into the rows whose cost is not known.
    pub fn settle(&mut self, graph: &Graph, ledger: &Ledger) {
        settle(&mut self.rows, graph, ledger, false);
        self.total(self.totals.peak_activation_bytes);
    }
}

/// Settles rows of a graph; with `all`, every row takes what the run did (in subgraphs, which may run more than once).
fn settle(rows: &mut [Row], graph: &Graph, ledger: &Ledger, all: bool) {
    for row in rows {
        let node = graph.node(row.node);
        if row.is_static || (!all && row.work().is_some() && row.traffic.is_some()) {
            continue;
        }
        let seen = ledger.seen.borrow().get(&(key(graph), row.node.0 as usize)).cloned();
        if row.bodies.is_empty() {
            let was_known = row.work().is_some() && !all;
            let (work, traffic) = match &seen {
                Some(s) => (s.work, s.traffic),
                None => (Some(Work::NONE), Some(Traffic::default())),
            };
            if let Some(work) = work.filter(|_| !was_known) {
                row.charge = Charge::Known(work);
                row.span = WorkSpan::exact(work);
                row.is_executed = true;
            }
            row.traffic = traffic.or(row.traffic);
            row.bytes_by_type = seen.as_ref().map(|s| s.by_type.clone()).unwrap_or_default();
        } else {
            for (body, cost) in node.op.family().bodies().iter().zip(&mut row.bodies) {
                if let Some(inner) = body.as_any().downcast_ref::<Graph>() {
                    settle_body(cost, inner, ledger);
                }
            }
            let span = row.bodies.iter().map(|b| b.span).fold(WorkSpan::NONE, |a, b| a + b);
            let work = row.bodies.iter().flat_map(|b| &b.rows).map(Row::work).sum::<Option<Work>>();
            if row.work().is_none() || all {
                row.charge = work.map_or(Charge::Between(span), Charge::Known);
                row.span = span;
                row.is_executed = work.is_some();
            }
            row.traffic = body_traffic(&row.bodies);
        }
        row.activation_madds = super::activation_madds(graph, node, row);
        if let Some(s) = seen.filter(|s| row.output_shape.concrete().is_none() && s.shape.concrete().is_some()) {
            row.output_shape = s.shape;
        }
    }
}

fn settle_body(cost: &mut BodyCost, inner: &Graph, ledger: &Ledger) {
    settle(&mut cost.rows, inner, ledger, true);
    let key = key(inner);
    let seen = ledger.seen.borrow();
    let runs = seen.iter().filter(|((graph, _), _)| *graph == key).map(|(_, s)| s.runs).max();
    // A subgraph of static nodes alone leaves no trace and costs nothing.
    if let Some(runs) = runs.or((!cost.rows.iter().all(|r| r.is_static)).then_some(0)) {
        cost.rounds = Span::exact(runs);
    }
    cost.span = cost.rows.iter().map(|r| r.span).fold(WorkSpan::NONE, |a, b| a + b);
    cost.is_executed = true;
}
