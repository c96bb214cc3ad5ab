//! What is computed together: nodes of a graph become the work items of a plan.
//!
//! One walk in topological order. A node that anchors heavy work (convolution, matrix product, normalisation, elementwise) takes
//! what follows it as long as nobody else reads the value in between: a BatchNormalization or bias into the weights, an
//! activation, a residual sum. Activations that exporters write as several nodes (SiLU, GELU …) are recognised first. Every item
//! lists the nodes it covers; the covers partition the nodes that run per inference.

mod activations;
mod attention;
mod chains;
mod channels;
mod convolutions;
mod inputs;
mod norms;
mod pads;
mod products;
mod recurrent;
mod repeats;
mod rotary;
mod siblings;
mod views;

use repeats::Repeats;

use super::meaning as read;
use super::planner::fast_dims;
use crate::error::{Error, Result};
use crate::ir::interp::Statics;
use crate::ir::{Graph, Node, NodeId, Source, ValueId};
use crate::kernels::{Act, BinaryOp, Kind, WeightSet};
use crate::ops::Op;
use crate::ops::detect::Detect;
use crate::tensor::Tensor;
use std::collections::HashMap;
use std::sync::Arc;

/// How an item is executed.
#[derive(Debug, Clone)]
pub(super) enum Work {
    /// By a kernel of the table.
    Kernel(Box<Kind>),
    /// Not at all: the result is the operand under another shape.
    View,
    /// Not at all: nobody reads it.
    Unused,
    /// By the operator's reference kernel, and why.
    Fallback(Option<String>),
}

/// One step to be.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) work: Work,
    /// The nodes it does the work of, anchor first.
    pub(super) covers: Vec<NodeId>,
    /// Operands of the kernel (constants the kernel packs are not among them).
    pub(super) srcs: Vec<ValueId>,
    /// Results.
    pub(super) dsts: Vec<ValueId>,
}

/// An activation written as several nodes.
#[derive(Debug, Clone)]
struct Composite {
    act: Act,
    input: ValueId,
    output: ValueId,
    covers: Vec<NodeId>,
    /// Nobody but the covered nodes reads the input.
    sole: bool,
}

struct Walk<'g> {
    graph: &'g Graph,
    statics: &'g Statics,
    /// Dynamic readers of each value.
    readers: Vec<Vec<NodeId>>,
    is_output: Vec<bool>,
    covered: Vec<bool>,
    /// Composite activations by the value they start from.
    composites: HashMap<ValueId, Composite>,
    repeats: Repeats,
    /// Where weights may be packed already.
    set: Option<&'g Arc<WeightSet>>,
    /// Channels of a block.
    lanes: usize,
}

/// The work items of a graph, in execution order, for kernels of `lanes` lanes; `set` is where its weights may be packed already.
///
/// # Errors
/// If a constant cannot be read.
pub(super) fn items(graph: &Graph, statics: &Statics, lanes: usize, set: Option<&Arc<WeightSet>>) -> Result<Vec<Item>> {
    let n = graph.values().len();
    let mut readers = vec![Vec::new(); n];
    let repeats = repeats::find(graph);
    for (id, node) in graph.iter().filter(|(id, node)| !node.is_static && repeats.live[id.0 as usize]) {
        match repeats.same.get(&id) {
            Some(v) => readers[v.0 as usize].push(id),
            None => node.inputs.iter().flatten().for_each(|v| readers[v.0 as usize].push(id)),
        }
    }
    let mut is_output = vec![false; n];
    graph.outputs().iter().for_each(|v| is_output[v.0 as usize] = true);
    let mut w = Walk {
        graph,
        statics,
        readers,
        is_output,
        covered: vec![false; graph.nodes().len()],
        composites: HashMap::new(),
        repeats,
        set,
        lanes,
    };
    w.find_composites();
    let mut items = w.attentions();
    items.extend(w.dynamic_products());
    for (id, node) in graph.iter() {
        if node.is_static || w.covered[id.0 as usize] {
            continue;
        }
        let item = w.item(id, node)?;
        for c in &item.covers {
            w.covered[c.0 as usize] = true;
        }
        items.push(item);
    }
    let sole = |v: ValueId| w.readers[v.0 as usize].len() == 1 && !w.is_output[v.0 as usize];
    let items = channels::compose(graph, items, lanes, &sole);
    let items = pads::fuse(items, &sole);
    let items = rotary::fuse(graph, items, &sole);
    let items = inputs::fuse(graph, items, &sole);
    let mut items = chains::fuse(items, &sole);
    // A fused step runs where its last node stood: everything it reads is there by then.
    items.sort_by_key(|i: &Item| i.covers.iter().max().copied());
    let items = siblings::join(items);
    check_partition(graph, &items)?;
    Ok(items)
}

/// Every node that runs per inference must be covered exactly once: the books of time and counts balance only then.
fn check_partition(graph: &Graph, items: &[Item]) -> Result<()> {
    let mut times = vec![0usize; graph.nodes().len()];
    items.iter().flat_map(|i| &i.covers).for_each(|c| times[c.0 as usize] += 1);
    for (id, node) in graph.iter() {
        if times[id.0 as usize] != usize::from(!node.is_static) {
            return Err(Error::run(format!(
                "the plan covers this node {} times (a defect of madd-prof)",
                times[id.0 as usize]
            ))
            .at_node(&node.name, &node.op_type)
            .hint("please report it; --path reference runs the model meanwhile"));
        }
    }
    Ok(())
}

impl Walk<'_> {
    fn value(&self, v: ValueId) -> Option<&Tensor> {
        self.statics.get(&v).or(self.graph.value(v).constant.as_ref())
    }
    fn is_static(&self, v: ValueId) -> bool {
        self.graph.value(v).is_static
    }
    /// A constant of one element.
    fn scalar(&self, v: ValueId) -> Option<f32> {
        read::scalar(self.value(v)?)
    }
    fn floats(&self, v: ValueId) -> Option<Vec<f32>> {
        Some(self.value(v)?.view::<f32>().ok()?.into_owned())
    }
    fn dims(&self, v: ValueId) -> Option<Vec<usize>> {
        fast_dims(self.graph, v)
    }
    /// The only node that reads a value, if nobody else (and no graph output) does and no earlier item has taken it.
    fn sole_reader(&self, v: ValueId) -> Option<NodeId> {
        match self.readers[v.0 as usize].as_slice() {
            // A node that only shows a value again does nothing to it.
            [one] if self.repeats.same.contains_key(one) => None,
            [one] if !self.is_output[v.0 as usize] && !self.covered[one.0 as usize] => Some(*one),
            _ => None,
        }
    }
    fn output(&self, id: NodeId) -> Option<ValueId> {
        self.graph.node(id).outputs.first().copied().flatten()
    }
    /// The node that makes a value, if it runs per inference and is no repetition.
    fn producer(&self, v: ValueId) -> Option<(NodeId, &Node)> {
        match self.graph.value(v).source {
            Source::Node(id, 0) if !self.graph.node(id).is_static && !self.repeats.same.contains_key(&id) => {
                Some((id, self.graph.node(id)))
            }
            _ => None,
        }
    }
    /// The operand of a two-input node that is not `v`.
    fn other(&self, node: &Node, v: ValueId) -> Option<ValueId> {
        match node.inputs.as_slice() {
            [Some(a), Some(b)] if *a == v => Some(*b),
            [Some(a), Some(b)] if *b == v => Some(*a),
            _ => None,
        }
    }

    fn item(&self, id: NodeId, node: &Node) -> Result<Item> {
        let fallback = |why: Option<String>| Item {
            work: Work::Fallback(why),
            covers: vec![id],
            srcs: Vec::new(),
            dsts: Vec::new(),
        };
        if !self.repeats.live[id.0 as usize] {
            return Ok(Item { work: Work::Unused, covers: vec![id], srcs: Vec::new(), dsts: Vec::new() });
        }
        let Some(out) = self.output(id) else { return Ok(fallback(None)) };
        if let Some(&first) = self.repeats.same.get(&id) {
            return Ok(Item { work: Work::View, covers: vec![id], srcs: vec![first], dsts: vec![out] });
        }
        if let Some(item) = self.shuffle(id, node).or_else(|| self.tokens(id, node)) {
            return Ok(item);
        }
        if let Some(from) = self.stays(id) {
            return Ok(Item { work: Work::View, covers: vec![id], srcs: vec![from], dsts: vec![out] });
        }
        if self.dims(out).is_none() {
            return Ok(fallback(Some("not f32, empty, or of unknown shape".into())));
        }
        // A composite activation that could not be fused into what makes its input starts here.
        if let Some(c) = node.inputs.iter().flatten().find_map(|v| self.composites.get(v))
            && c.covers.contains(&id)
            && c.covers.iter().all(|n| !self.covered[n.0 as usize])
        {
            let kind = Kind::Unary(vec![c.act]);
            return Ok(self.finish(kind, c.covers.clone(), vec![c.input], c.output));
        }
        let norm = self.rms_norm(id, node).or_else(|| self.layer_norm(id, node));
        if let Some(item) = norm.or_else(|| self.group_norm(id, node, out)) {
            return Ok(item);
        }
        match self.kernel(id, node, out) {
            Some(item) => Ok(item),
            None => Ok(fallback(None)),
        }
    }

    fn finish(&self, kind: Kind, covers: Vec<NodeId>, srcs: Vec<ValueId>, out: ValueId) -> Item {
        Item { work: Work::Kernel(Box::new(kind)), covers, srcs, dsts: vec![out] }
    }

    /// The kernel kind of a node, with everything that can be fused into it.
    fn kernel(&self, id: NodeId, node: &Node, out: ValueId) -> Option<Item> {
        // Every operand must be f32 with a known shape; constants that describe (shapes, axes) are read by `meaning`.
        match &node.op {
            Op::Conv(conv) => self.conv(id, node, conv, out),
            Op::ConvTranspose(conv) => self.conv_transpose(id, node, conv, out),
            Op::Detect(op @ Detect::Deform { .. }) => self.conv_deformed(id, node, op, out),
            Op::MatMul(_) => self.matmul(id, node, &node.op, out, Act::None),
            Op::Einsum(_) if node.inputs.len() == 2 => self.matmul(id, node, &node.op, out, Act::None),
            Op::NBits(_) => self.nbits(id, node, out),
            Op::Rnn(rnn) => self.recurrent(id, node, rnn),
            Op::Fused(recipe) => self.fused(id, node, &read::fused_product(recipe)?, out),
            _ => {
                let x = node.inputs.first().copied().flatten()?;
                if let Some(op) = read::binary(node) {
                    return self.binary(id, node, op, out);
                }
                if node.op_type == "BatchNormalization" {
                    let map = self.batch_norm(node)?;
                    self.dims(x)?;
                    return Some(self.channel_affine(id, x, map, out));
                }
                if let Some(act) = read::unary(node, &|v| self.value(v)) {
                    self.dims(x)?;
                    return Some(self.finish(Kind::Unary(vec![act]), vec![id], vec![x], out));
                }
                let shaped = read::shaped(self.graph, node, &|v| self.value(v))?;
                let srcs: Vec<ValueId> = shaped.operands;
                if srcs.iter().any(|v| self.dims(*v).is_none())
                    || shaped.results.iter().any(|v| self.dims(*v).is_none())
                {
                    return None;
                }
                Some(Item { work: Work::Kernel(Box::new(shaped.kind)), covers: vec![id], srcs, dsts: shaped.results })
            }
        }
    }

    /// The activation that follows a value, the value after it, and the nodes that make it.
    fn activation(&self, v: ValueId) -> (Act, ValueId, Vec<NodeId>) {
        let free = |c: &&Composite| c.sole && c.covers.iter().all(|n| !self.covered[n.0 as usize]);
        if let Some(c) = self.composites.get(&v).filter(free) {
            return (c.act, c.output, c.covers.clone());
        }
        if let Some(next) = self.sole_reader(v) {
            let node = self.graph.node(next);
            if let (Some(act), Some(out)) = (read::unary(node, &|v| self.value(v)), self.output(next))
                && self.dims(out).is_some()
            {
                return (act, out, vec![next]);
            }
        }
        (Act::None, v, Vec::new())
    }

    /// A sum with a value of the same shape that follows `v`: the other operand, the sum, the node.
    fn residual(&self, v: ValueId, after: NodeId) -> Option<(ValueId, ValueId, NodeId)> {
        let next = self.sole_reader(v)?;
        let node = self.graph.node(next);
        if read::binary(node)? != BinaryOp::Add {
            return None;
        }
        let other = self.other(node, v)?;
        let out = self.output(next)?;
        let same = self.dims(other)? == self.dims(out)? && self.dims(v)? == self.dims(out)?;
        let _ = after;
        (other != v && same && !self.is_static(other)).then_some((other, out, next))
    }

    fn binary(&self, id: NodeId, node: &Node, op: BinaryOp, out: ValueId) -> Option<Item> {
        let (a, b) = (node.inputs[0]?, node.inputs[1]?);
        self.dims(a)?;
        self.dims(b)?;
        if a == b && op == BinaryOp::Mul {
            return Some(self.finish(Kind::Unary(vec![Act::Square]), vec![id], vec![a], out));
        }
        if op == BinaryOp::Pow {
            let act = match self.scalar(b)? {
                2.0 => Act::Square,
                0.5 => Act::Sqrt,
                1.0 => Act::None,
                -1.0 => Act::Reciprocal,
                _ => return None,
            };
            return (self.dims(a) == self.dims(out))
                .then(|| self.finish(Kind::Unary(vec![act]), vec![id], vec![a], out));
        }
        // A constant per channel: what follows of the kind joins it.
        for (x, c) in [(a, b), (b, a)] {
            let dims = self.dims(x).filter(|d| d.len() >= 3 && self.dims(out).as_ref() == Some(d));
            if let Some(d) = dims.filter(|_| self.is_static(c) && !self.is_static(x) && self.scalar(c).is_none())
                && let Some(v) = self.channel_vector(c, d[1], d.len())
                && let Some(map) = match op {
                    BinaryOp::Mul => Some((v, vec![0.0; d[1]])),
                    BinaryOp::Add => Some((vec![1.0; d[1]], v)),
                    _ => None,
                }
            {
                return Some(self.channel_affine(id, x, map, out));
            }
        }
        let (act, out, more) = self.activation(out);
        let covers = std::iter::once(id).chain(more).collect();
        Some(self.finish(Kind::Binary(op, act), covers, vec![a, b], out))
    }

    /// `x · scale + shift` per channel with the scales and shifts that follow it, then an activation.
    fn channel_affine(&self, id: NodeId, x: ValueId, map: (Vec<f32>, Vec<f32>), out: ValueId) -> Item {
        let ((mut scale, mut shift), mut out, mut covers) = (map, out, vec![id]);
        while let Some(next) = self.sole_reader(out) {
            let Some((by, plus)) = self.channel_map(next, out, scale.len()) else { break };
            let Some(after) = self.output(next).filter(|v| self.dims(*v) == self.dims(out)) else { break };
            for (i, (s, t)) in scale.iter_mut().zip(&mut shift).enumerate() {
                (*s, *t) = (*s * by[i], *t * by[i] + plus[i]);
            }
            covers.push(next);
            out = after;
        }
        let (act, out, more) = self.activation(out);
        covers.extend(more);
        self.finish(Kind::ChannelAffine { scale, shift, act }, covers, vec![x], out)
    }

    /// Factor and summand per channel of a node that does no more to `x`.
    fn channel_map(&self, id: NodeId, x: ValueId, channels: usize) -> Option<(Vec<f32>, Vec<f32>)> {
        let node = self.graph.node(id);
        let map = if node.op_type == "BatchNormalization" && node.inputs[0] == Some(x) {
            self.batch_norm(node)?
        } else {
            let op = read::binary(node)?;
            let c = self.other(node, x).filter(|c| self.is_static(*c))?;
            let v = self.channel_vector(c, channels, self.dims(x)?.len())?;
            match op {
                BinaryOp::Mul => (v, vec![0.0; channels]),
                BinaryOp::Add => (vec![1.0; channels], v),
                _ => return None,
            }
        };
        (map.0.len() == channels && map.1.len() == channels).then_some(map)
    }
}
