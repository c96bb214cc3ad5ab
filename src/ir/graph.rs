//! What a model is: typed nodes in topological order, values with facts. Immutable once built.

use crate::cost::{Span, Work, WorkSpan};
use crate::error::{Error, Result};
use crate::ops::cast::Cast;
use crate::ops::{Body, Charge, CostCx, EvalCx, Input, Op};
use crate::tensor::{Fact, Tensor};
use std::any::Any;

/// Index of a value in its graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(pub u32);

/// Index of a node in its graph, in topological order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u32);

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Graph input number.
    Input(usize),
    /// A node's output number.
    Node(NodeId, usize),
    /// A constant of the file: an initializer or a Constant node.
    Constant,
    /// A value of the enclosing graph (in subgraphs), by capture number.
    Capture(usize),
}

/// A value: what flows between nodes.
#[derive(Debug, Clone)]
pub struct Value {
    /// Its name in the file, unique within the graph.
    pub name: String,
    /// Dtype and shape.
    pub fact: Fact,
    /// Who makes it.
    pub source: Source,
    /// The value itself, for constants and for small results folded at build time.
    pub constant: Option<Tensor>,
    /// Whether it depends on constants only, so that it is computed once per model and not per inference.
    pub is_static: bool,
}

/// A node: one operator applied to values.
#[derive(Debug, Clone)]
pub struct Node {
    /// Name, unique within the graph (a suffix is added where a file repeats or omits it).
    pub name: String,
    /// Operator as written in the file.
    pub op_type: String,
    /// Operator domain; `""` is `ai.onnx`.
    pub domain: String,
    /// The typed operator.
    pub op: Op,
    /// Inputs; the last `captured` of them are outer values its subgraphs use.
    pub inputs: Vec<Option<ValueId>>,
    /// How many trailing inputs are captures.
    pub captured: usize,
    /// Outputs; `None` where the file omits one.
    pub outputs: Vec<Option<ValueId>>,
    /// Exporter metadata.
    pub metadata: Vec<(String, String)>,
    /// Whether it depends on constants only: computed once per model, charged nothing per inference.
    pub is_static: bool,
}

/// A graph. Built by [`super::build`] and nowhere else.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    /// Name.
    pub name: String,
    pub(super) nodes: Vec<Node>,
    pub(super) values: Vec<Value>,
    pub(super) inputs: Vec<ValueId>,
    pub(super) outputs: Vec<ValueId>,
    pub(super) captures: Vec<ValueId>,
}

impl Graph {
    /// All nodes, in topological order.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }
    /// Nodes with their ids.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        self.nodes.iter().enumerate().map(|(i, n)| (NodeId(i as u32), n))
    }
    /// All values.
    pub fn values(&self) -> &[Value] {
        &self.values
    }
    /// A node.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize]
    }
    /// A value.
    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id.0 as usize]
    }
    /// Inputs that a caller must provide (constants listed as inputs are not among them).
    pub fn inputs(&self) -> &[ValueId] {
        &self.inputs
    }
    /// Outputs.
    pub fn outputs(&self) -> &[ValueId] {
        &self.outputs
    }
    /// Values standing for captured outer values (subgraphs only).
    pub fn captures(&self) -> &[ValueId] {
        &self.captures
    }
    /// The inputs of a node as shape and cost rules see them.
    pub fn rule_inputs(&self, node: &Node) -> Vec<Option<Input<'_>>> {
        node.inputs
            .iter()
            .map(|id| {
                id.map(|id| {
                    let v = self.value(id);
                    Input { fact: &v.fact, value: v.constant.as_ref() }
                })
            })
            .collect()
    }
    /// The cost rule's answer for a node: nothing for what is computed once per model.
    pub fn charge(&self, node: &Node) -> Charge {
        if node.is_static {
            return Charge::FREE;
        }
        let inputs = self.rule_inputs(node);
        let outputs: Vec<Option<&Fact>> = node.outputs.iter().map(|id| id.map(|id| &self.value(id).fact)).collect();
        node.op.family().charge(&CostCx { inputs: &inputs, outputs: &outputs })
    }
    /// What can be said of a node's arithmetic when its rule cannot tell it all.
    ///
    /// Operators that only move, select, compare or combine elements have no multiply-adds, whatever the sizes. For an operator
    /// without a rule the bound is one multiply-add per output element and input element: each result touches each operand
    /// element at most once, which holds of every contraction (convolution, matrix product, attention).
    pub fn span(&self, node: &Node) -> WorkSpan {
        self.span_of(node, self.charge(node))
    }
    /// As [`Graph::span`], where the rule's answer is at hand.
    pub fn span_of(&self, node: &Node, charge: Charge) -> WorkSpan {
        let mut span = charge.span();
        if charge != Charge::Unknown {
            return span;
        }
        if !node.op.multiplies() {
            span.madds = Span::ZERO;
        }
        if matches!(node.op, Op::Opaque(_)) {
            let elements = |v: &ValueId| self.value(*v).fact.elements().map(|n| n as u64);
            let sum = |ids: &[Option<ValueId>]| {
                ids.iter().flatten().map(elements).try_fold(0u64, |sum, n| sum.checked_add(n?))
            };
            let most = sum(&node.outputs).zip(sum(&node.inputs)).and_then(|(o, i)| o.checked_mul(i));
            span = WorkSpan { madds: Span { low: 0, high: most }, other_flops: Span { low: 0, high: most } };
        }
        span
    }
    /// For each value, the last node that reads it; `None` for values nobody reads. Graph outputs are read by "the end",
    /// which is not a node: check [`Graph::outputs`] too.
    pub fn last_readers(&self) -> Vec<Option<NodeId>> {
        let mut last = vec![None; self.values.len()];
        for (id, node) in self.iter() {
            for v in node.inputs.iter().flatten() {
                last[v.0 as usize] = Some(id);
            }
        }
        last
    }
    /// For each value, how many node inputs read it.
    pub fn reader_counts(&self) -> Vec<usize> {
        let mut n = vec![0; self.values.len()];
        for v in self.nodes.iter().flat_map(|node| node.inputs.iter().flatten()) {
            n[v.0 as usize] += 1;
        }
        n
    }
}

/// Subgraphs nest as deep as a file says; evaluation refuses beyond this.
const DEEPEST: usize = 64;

impl Body for Graph {
    fn formals(&self) -> usize {
        self.inputs.len()
    }
    fn captures(&self) -> usize {
        self.captures.len()
    }
    fn output_facts(&self) -> Vec<Fact> {
        self.outputs.iter().map(|&id| self.value(id).fact.clone()).collect()
    }
    fn charge(&self) -> Charge {
        let mut total = Some(Work::NONE);
        let mut span = WorkSpan::NONE;
        for node in &self.nodes {
            let charge = Graph::charge(self, node);
            total = total.zip(charge.known()).map(|(a, b)| a + b);
            span = span + self.span_of(node, charge);
        }
        total.map_or(Charge::Between(span), Charge::Known)
    }
    fn eval(&self, cx: &EvalCx, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        if cx.depth >= DEEPEST {
            return Err(Error::run(format!("subgraphs nested deeper than {DEEPEST}")));
        }
        if inputs.len() != self.inputs.len() + self.captures.len() {
            return Err(Error::run(format!(
                "the subgraph '{}' takes {} inputs and got {}",
                self.name,
                self.inputs.len() + self.captures.len(),
                inputs.len()
            )));
        }
        let inner = EvalCx { depth: cx.depth + 1, ..*cx };
        let ids = self.inputs.iter().chain(&self.captures).copied();
        super::interp::run(self, &inner, ids.zip(inputs.iter().cloned()), None, &mut |_, _| {})
    }
    fn constant_output(&self, i: usize) -> Option<Tensor> {
        self.value(*self.outputs.get(i)?).constant.clone()
    }
    fn passes_input(&self, i: usize) -> Option<usize> {
        let mut value = *self.outputs.get(i)?;
        loop {
            match self.value(value).source {
                Source::Input(k) => return Some(k),
                Source::Node(id, 0) if matches!(self.node(id).op, Op::Cast(Cast::Identity)) => {
                    value = self.node(id).inputs.first().copied().flatten()?;
                }
                _ => return None,
            }
        }
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
