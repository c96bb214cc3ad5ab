//! What is computed together: nodes of a graph become the work items of a plan.
//!
//! One walk in topological order. A node that anchors heavy work (convolution, matrix product, normalisation, elementwise) takes
//! what follows it as long as nobody else reads the value in between: a BatchNormalization or bias into the weights, an
//! activation, a residual sum. Activations that exporters write as several nodes (SiLU, GELU …) are recognised first. Every item
//! lists the nodes it covers; the covers partition the nodes that run per inference.

use super::meaning as read;
use super::plan::{fast_dims, is_view};
use crate::error::{Error, Result};
use crate::ir::interp::Statics;
use crate::ir::{Graph, Node, NodeId, Source, ValueId};
use crate::kernels::{Act, BinaryOp, Kind};
use crate::ops::Op;
use crate::ops::matmul::MatMul;
use crate::ops::nbits::NBits;
use crate::tensor::Tensor;
use std::collections::HashMap;

/// How an item is executed.
#[derive(Debug, Clone)]
pub(super) enum Work {
    /// By a kernel of the table.
    Kernel(Box<Kind>),
    /// Not at all: the result is the operand under another shape.
    View,
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
}

/// The work items of a graph, in execution order.
///
/// # Errors
/// If a constant cannot be read.
pub(super) fn items(graph: &Graph, statics: &Statics) -> Result<Vec<Item>> {
    let n = graph.values().len();
    let mut readers = vec![Vec::new(); n];
    for (id, node) in graph.iter().filter(|(_, node)| !node.is_static) {
        for v in node.inputs.iter().flatten() {
            readers[v.0 as usize].push(id);
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
    };
    w.find_composites();
    let mut items = Vec::new();
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
    // A fused step runs where its last node stood: everything it reads is there by then.
    items.sort_by_key(|i: &Item| i.covers.iter().max().copied());
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
            [one] if !self.is_output[v.0 as usize] && !self.covered[one.0 as usize] => Some(*one),
            _ => None,
        }
    }
    fn output(&self, id: NodeId) -> Option<ValueId> {
        self.graph.node(id).outputs.first().copied().flatten()
    }
    /// The node that makes a value, if it runs per inference.
    fn producer(&self, v: ValueId) -> Option<(NodeId, &Node)> {
        match self.graph.value(v).source {
            Source::Node(id, 0) if !self.graph.node(id).is_static => Some((id, self.graph.node(id))),
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

    // ------------------------------------------------------------------------------------------------------- composites

    fn find_composites(&mut self) {
        let mut found = Vec::new();
        for (id, node) in self.graph.iter() {
            if node.is_static {
                continue;
            }
            if let Some(c) =
                self.self_gated(id, node).or_else(|| self.erf_gelu(id, node)).or_else(|| self.tanh_gelu(id, node))
            {
                found.push(c);
            }
        }
        for c in found {
            self.composites.entry(c.input).or_insert(c);
        }
    }

    /// Checks that inner values of a pattern are read by covered nodes only, and completes it.
    fn composite(&self, act: Act, input: ValueId, output: ValueId, mut covers: Vec<NodeId>) -> Option<Composite> {
        covers.sort();
        covers.dedup();
        self.dims(input)?;
        for &id in &covers {
            let out = self.output(id)?;
            let inside = |v: ValueId| {
                !self.is_output[v.0 as usize] && self.readers[v.0 as usize].iter().all(|r| covers.contains(r))
            };
            if out != output && !inside(out) {
                return None;
            }
        }
        let sole =
            !self.is_output[input.0 as usize] && self.readers[input.0 as usize].iter().all(|r| covers.contains(r));
        Some(Composite { act, input, output, covers, sole })
    }

    /// `x · sigmoid(x)` and `x · hardsigmoid(x)`.
    fn self_gated(&self, id: NodeId, node: &Node) -> Option<Composite> {
        if read::binary(node)? != BinaryOp::Mul {
            return None;
        }
        let (a, b) = (node.inputs[0]?, node.inputs[1]?);
        for (x, gate) in [(a, b), (b, a)] {
            let Some((gate_id, gate_node)) = self.producer(gate) else { continue };
            if gate_node.inputs.first().copied().flatten() != Some(x) {
                continue;
            }
            let act = match read::unary(gate_node, &|v| self.value(v)) {
                Some(Act::Sigmoid) => Act::Silu,
                Some(Act::HardSigmoid { alpha, beta }) if (alpha - 1.0 / 6.0).abs() < 1e-6 && beta == 0.5 => {
                    Act::HardSwish
                }
                _ => continue,
            };
            return self.composite(act, x, self.output(id)?, vec![gate_id, id]);
        }
        None
    }

    /// `x/√2 → Erf → +1`, times `x` and `1/2` in any order (torch's exported GELU).
    fn erf_gelu(&self, erf: NodeId, node: &Node) -> Option<Composite> {
        if read::unary(node, &|v| self.value(v))? != Act::Erf {
            return None;
        }
        let near = |a: f32, b: f32| (a - b).abs() < 1e-4;
        let (scale_id, scale_node) = self.producer(node.inputs[0]?)?;
        let a = scale_node.inputs.first().copied().flatten()?;
        let b = scale_node.inputs.get(1).copied().flatten()?;
        let x = match read::binary(scale_node)? {
            BinaryOp::Div if self.scalar(b).is_some_and(|s| near(s, std::f32::consts::SQRT_2)) => a,
            BinaryOp::Mul if self.scalar(b).is_some_and(|s| near(s, std::f32::consts::FRAC_1_SQRT_2)) => a,
            BinaryOp::Mul if self.scalar(a).is_some_and(|s| near(s, std::f32::consts::FRAC_1_SQRT_2)) => b,
            _ => return None,
        };
        let add = self.sole_reader(self.output(erf)?)?;
        let add_node = self.graph.node(add);
        let one = self.other(add_node, self.output(erf)?)?;
        if read::binary(add_node)? != BinaryOp::Add || self.scalar(one)? != 1.0 {
            return None;
        }
        self.times_half(x, self.output(add)?, vec![scale_id, erf, add])
            .and_then(|(out, covers)| self.composite(Act::Gelu, x, out, covers))
    }

    /// `t · x · 1/2` in any association, from `t`.
    fn times_half(&self, x: ValueId, t: ValueId, mut covers: Vec<NodeId>) -> Option<(ValueId, Vec<NodeId>)> {
        let mul = self.sole_reader(t)?;
        let node = self.graph.node(mul);
        if read::binary(node)? != BinaryOp::Mul {
            return None;
        }
        let partner = self.other(node, t)?;
        covers.push(mul);
        let half = |v: ValueId| self.scalar(v) == Some(0.5);
        if half(partner) {
            // (t · ½) · x
            let last = self.sole_reader(self.output(mul)?)?;
            let node = self.graph.node(last);
            if read::binary(node)? != BinaryOp::Mul || self.other(node, self.output(mul)?)? != x {
                return None;
            }
            covers.push(last);
            return Some((self.output(last)?, covers));
        }
        if partner == x {
            // (t · x) · ½
            let last = self.sole_reader(self.output(mul)?)?;
            let node = self.graph.node(last);
            if read::binary(node)? != BinaryOp::Mul || !half(self.other(node, self.output(mul)?)?) {
                return None;
            }
            covers.push(last);
            return Some((self.output(last)?, covers));
        }
        // t · (x · ½)
        let (id, node) = self.producer(partner)?;
        if read::binary(node)? == BinaryOp::Mul && half(self.other(node, x)?) {
            covers.push(id);
            return Some((self.output(mul)?, covers));
        }
        None
    }

    /// `½·x·(1 + tanh(√(2/π)·(x + 0.044715·x³)))` (GPT-2's GELU).
    fn tanh_gelu(&self, tanh: NodeId, node: &Node) -> Option<Composite> {
        if read::unary(node, &|v| self.value(v))? != Act::Tanh {
            return None;
        }
        let near = |a: f32, b: f32| (a - b).abs() < 1e-4;
        let scaled = |v: ValueId, s: f32| -> Option<(NodeId, ValueId)> {
            let (id, node) = self.producer(v)?;
            if read::binary(node)? != BinaryOp::Mul {
                return None;
            }
            let (a, b) = (node.inputs[0]?, node.inputs[1]?);
            if self.scalar(b).is_some_and(|x| near(x, s)) {
                Some((id, a))
            } else if self.scalar(a).is_some_and(|x| near(x, s)) {
                Some((id, b))
            } else {
                None
            }
        };
        let (outer, sum) = scaled(node.inputs[0]?, 0.797_884_6)?;
        let (add, add_node) = self.producer(sum)?;
        if read::binary(add_node)? != BinaryOp::Add {
            return None;
        }
        let (p, q) = (add_node.inputs[0]?, add_node.inputs[1]?);
        for (x, cubic) in [(p, q), (q, p)] {
            let Some((inner, cube)) = scaled(cubic, 0.044_715) else { continue };
            let mut covers = vec![tanh, outer, add, inner];
            let (cube_id, cube_node) = self.producer(cube)?;
            covers.push(cube_id);
            match read::binary(cube_node)? {
                BinaryOp::Pow if cube_node.inputs[0] == Some(x) && self.scalar(cube_node.inputs[1]?) == Some(3.0) => {}
                BinaryOp::Mul => {
                    // x·(x·x) in either order
                    let square = self.other(cube_node, x)?;
                    let (square_id, square_node) = self.producer(square)?;
                    if read::binary(square_node)? != BinaryOp::Mul || square_node.inputs != [Some(x), Some(x)] {
                        return None;
                    }
                    covers.push(square_id);
                }
                _ => return None,
            }
            let plus = self.sole_reader(self.output(tanh)?)?;
            let plus_node = self.graph.node(plus);
            let one = self.other(plus_node, self.output(tanh)?)?;
            if read::binary(plus_node)? != BinaryOp::Add || self.scalar(one)? != 1.0 {
                return None;
            }
            covers.push(plus);
            let (out, covers) = self.times_half(x, self.output(plus)?, covers)?;
            return self.composite(Act::GeluTanh, x, out, covers);
        }
        None
    }

    // ------------------------------------------------------------------------------------------------------------ items

    fn item(&self, id: NodeId, node: &Node) -> Result<Item> {
        let fallback = |why: Option<String>| Item {
            work: Work::Fallback(why),
            covers: vec![id],
            srcs: Vec::new(),
            dsts: Vec::new(),
        };
        let Some(out) = self.output(id) else { return Ok(fallback(None)) };
        if is_view(self.graph, id)
            && self.graph.value(out).fact.shape.concrete().is_some()
            && let Some(from) = node.inputs.first().copied().flatten().filter(|v| !self.is_static(*v))
        {
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
        if let Some(item) = self.rms_norm(id, node) {
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
            Op::MatMul(_) => self.matmul(id, node, &node.op, out, Act::None),
            Op::NBits(_) => self.nbits(id, node, out),
            Op::Fused(recipe) => self.fused(id, node, &read::fused_product(recipe)?, out),
            _ => {
                let x = node.inputs.first().copied().flatten()?;
                if let Some(op) = read::binary(node) {
                    return self.binary(id, node, op, out);
                }
                if node.op_type == "BatchNormalization" {
                    let (scale, shift) = self.batch_norm(node)?;
                    self.dims(x)?;
                    let (act, out, more) = self.activation(out);
                    let covers = std::iter::once(id).chain(more).collect();
                    return Some(self.finish(Kind::ChannelAffine { scale, shift, act }, covers, vec![x], out));
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

    fn batch_norm(&self, node: &Node) -> Option<(Vec<f32>, Vec<f32>)> {
        let epsilon = read::batch_norm_epsilon(node)?;
        let get = |i: usize| self.floats(node.inputs.get(i).copied().flatten()?);
        let (gamma, beta, mean, var) = (get(1)?, get(2)?, get(3)?, get(4)?);
        let scale: Vec<f32> = gamma.iter().zip(&var).map(|(g, v)| g / (v + epsilon).sqrt()).collect();
        let shift = beta.iter().zip(&mean).zip(&scale).map(|((b, m), s)| b - m * s).collect();
        Some((scale, shift))
    }

    fn conv(&self, id: NodeId, node: &Node, conv: &crate::ops::conv::Conv, out: ValueId) -> Option<Item> {
        let (x, w) = (node.inputs[0]?, node.inputs[1]?);
        let (xd, wd) = (self.dims(x)?, self.dims(w)?);
        if !self.is_static(w) {
            return None;
        }
        let geometry = conv.geometry(&xd, &wd).ok().filter(|g| g.axes.len() <= 2)?;
        let mut weights = self.value(w)?.clone();
        let mut bias = match node.inputs.get(2).copied().flatten() {
            Some(b) => Some(self.floats(b)?),
            None => None,
        };
        let (mut covers, mut out) = (vec![id], out);
        // Per-channel scale and offset go into weights and bias.
        while let Some(next) = self.sole_reader(out) {
            let follower = self.graph.node(next);
            let (scale, shift) = if follower.op_type == "BatchNormalization" && follower.inputs[0] == Some(out) {
                match self.batch_norm(follower) {
                    Some((s, t)) => (Some(s), t),
                    None => break,
                }
            } else if let Some(op @ (BinaryOp::Add | BinaryOp::Mul)) = read::binary(follower) {
                let Some(c) = self.other(follower, out).filter(|c| self.is_static(*c)) else { break };
                let Some(v) = self.channel_vector(c, geometry.oc, xd.len()) else { break };
                if op == BinaryOp::Add { (None, v) } else { (Some(v), vec![0.0; geometry.oc]) }
            } else {
                break;
            };
            let Some(after) = self.output(next).filter(|v| self.dims(*v).is_some()) else { break };
            if scale.as_ref().is_some_and(|s| s.len() != geometry.oc) || shift.len() != geometry.oc {
                break;
            }
            let mut b = bias.take().unwrap_or_else(|| vec![0.0; geometry.oc]);
            if let Some(s) = scale {
                let per = weights.len() / geometry.oc.max(1);
                let mut values = weights.view::<f32>().ok()?.into_owned();
                values.chunks_mut(per.max(1)).zip(&s).for_each(|(row, s)| row.iter_mut().for_each(|w| *w *= s));
                weights = Tensor::from_vec(values, &wd).ok()?;
                b.iter_mut().zip(&s).for_each(|(b, s)| *b *= s);
            }
            b.iter_mut().zip(&shift).for_each(|(b, t)| *b += t);
            bias = Some(b);
            covers.push(next);
            out = after;
        }
        let mut srcs = vec![x];
        let residual = self.residual(out, id);
        if let Some((other, after, next)) = residual {
            srcs.push(other);
            covers.push(next);
            out = after;
        }
        let (act, out, more) = self.activation(out);
        covers.extend(more);
        let kind = Kind::Conv { geometry, weights, bias, act, residual: residual.is_some() };
        Some(self.finish(kind, covers, srcs, out))
    }

    /// A constant that is one number per channel of an activation of `rank` dims (channels second), or one for all.
    fn channel_vector(&self, v: ValueId, channels: usize, rank: usize) -> Option<Vec<f32>> {
        let t = self.value(v)?;
        let values = t.view::<f32>().ok()?;
        if values.len() == 1 {
            return (t.rank() <= rank).then(|| vec![values[0]; channels]);
        }
        // Right-aligned: [c,1,1] or [1,c,1,1] for rank 4.
        let dims = t.dims();
        let at = dims.len().checked_sub(rank - 1)?;
        let fits = dims.len() <= rank && dims.iter().enumerate().all(|(i, &d)| d == if i == at { channels } else { 1 });
        (fits && values.len() == channels).then(|| values.to_vec())
    }

    /// A convolution or Gemm that the file itself fused with what follows.
    fn fused(&self, id: NodeId, node: &Node, f: &read::FusedProduct, out: ValueId) -> Option<Item> {
        let conv = match f.product {
            Op::Conv(conv) => conv,
            _ if f.residual.is_some() => return None,
            product => return self.matmul(id, node, product, out, f.act),
        };
        let (x, w) = (node.inputs[0]?, node.inputs[1]?);
        let geometry = conv.geometry(&self.dims(x)?, &self.dims(w)?).ok().filter(|g| g.axes.len() <= 2)?;
        let weights = self.value(w).filter(|_| self.is_static(w))?.clone();
        let bias = match node.inputs.get(2).copied().flatten() {
            Some(b) => Some(self.floats(b)?),
            None => None,
        };
        let mut srcs = vec![x];
        if let Some(z) = f.residual {
            let z = node.inputs.get(z).copied().flatten().filter(|z| !self.is_static(*z))?;
            (self.dims(z)? == self.dims(out)?).then_some(())?;
            srcs.push(z);
        }
        let (mut covers, mut act, mut end) = (vec![id], f.act, out);
        if act == Act::None {
            let (follows, after, more) = self.activation(out);
            covers.extend(more);
            (act, end) = (follows, after);
        }
        let kind = Kind::Conv { geometry, weights, bias, act, residual: f.residual.is_some() };
        Some(self.finish(kind, covers, srcs, end))
    }

    /// A product with packed weights: they are unpacked once, here.
    fn nbits(&self, id: NodeId, node: &Node, out: ValueId) -> Option<Item> {
        let Op::NBits(op @ NBits::Product { n, k, transposed, .. }) = &node.op else { return None };
        let a = node.inputs[0].filter(|a| !self.is_static(*a))?;
        let (ad, _) = (self.dims(a)?, self.dims(out)?);
        let mut packed = Vec::with_capacity(node.inputs.len());
        for (i, v) in node.inputs.iter().enumerate() {
            packed.push(match v {
                Some(v) if i > 0 => Some(self.value(*v)?),
                _ => None,
            });
        }
        let weights = Tensor::from_vec(op.weights(&packed).ok()?, &[*n, *k]).ok()?;
        let product = Op::MatMul(MatMul::Broadcast { trans_a: false, trans_b: *transposed, alpha: 1.0 });
        let mut task = read::matmul(&product, &ad, &[*n, *k])?;
        task.b = Some(weights);
        if let Some(bias) = node.inputs.get(5).copied().flatten() {
            task.bias = Some(self.row_vector(bias, task.n)?);
        }
        self.product(id, task, vec![a], out, Act::None)
    }

    fn matmul(&self, id: NodeId, node: &Node, op: &Op, out: ValueId, act: Act) -> Option<Item> {
        let (a, b) = (node.inputs[0]?, node.inputs[1]?);
        let (ad, bd) = (self.dims(a)?, self.dims(b)?);
        if self.is_static(a) {
            return None;
        }
        let mut task = read::matmul(op, &ad, &bd)?;
        let mut srcs = vec![a];
        if self.is_static(b) && task.batch_b.iter().all(|&d| d == 1) {
            task.b = Some(self.value(b)?.clone());
        } else {
            srcs.push(b);
        }
        if let Some((c, beta)) = read::gemm_bias(node, op) {
            let v = self.row_vector(c, task.n)?;
            task.bias = Some(v.into_iter().map(|x| x * beta).collect());
        }
        self.product(id, task, srcs, out, act)
    }

    /// A product with what follows it; nothing does if it has an activation already.
    fn product(
        &self,
        id: NodeId,
        mut task: crate::kernels::MatMul,
        mut srcs: Vec<ValueId>,
        out: ValueId,
        act: Act,
    ) -> Option<Item> {
        let (mut covers, mut out, od) = (vec![id], out, self.dims(out)?);
        if act != Act::None {
            task.act = act;
            return Some(self.finish(Kind::MatMul(task), covers, srcs, out));
        }
        // Row-vector bias, then a scalar factor when nothing was added yet.
        while let Some(next) = self.sole_reader(out) {
            let follower = self.graph.node(next);
            let Some(op) = read::binary(follower) else { break };
            let Some(c) = self.other(follower, out).filter(|c| self.is_static(*c)) else { break };
            let Some(after) = self.output(next).filter(|v| self.dims(*v) == Some(od.clone())) else { break };
            match op {
                BinaryOp::Add if task.bias.is_none() => {
                    let Some(v) = self.row_vector(c, task.n) else { break };
                    task.bias = Some(v);
                }
                BinaryOp::Mul if task.bias.is_none() && self.scalar(c).is_some() => task.alpha *= self.scalar(c)?,
                BinaryOp::Div
                    if task.bias.is_none()
                        && follower.inputs[0] == Some(out)
                        && self.scalar(c).is_some_and(|s| s != 0.0) =>
                {
                    task.alpha /= self.scalar(c)?;
                }
                _ => break,
            }
            covers.push(next);
            out = after;
        }
        if let Some((other, after, next)) = self.residual(out, id) {
            srcs.push(other);
            covers.push(next);
            out = after;
            task.residual = true;
        }
        let (act, out, more) = self.activation(out);
        covers.extend(more);
        task.act = act;
        Some(self.finish(Kind::MatMul(task), covers, srcs, out))
    }

    /// A constant that is one number per column (`[n]`, `[1, n]` …), or one for all.
    fn row_vector(&self, v: ValueId, n: usize) -> Option<Vec<f32>> {
        let t = self.value(v)?;
        let values = t.view::<f32>().ok()?;
        if values.len() == 1 {
            return Some(vec![values[0]; n]);
        }
        (values.len() == n && t.dims().last() == Some(&n)).then(|| values.to_vec())
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
        let (act, out, more) = self.activation(out);
        let covers = std::iter::once(id).chain(more).collect();
        Some(self.finish(Kind::Binary(op, act), covers, vec![a, b], out))
    }

    /// `x · rsqrt(mean(x²) + ε) · weight` as exporters write it: Pow/Mul, ReduceMean, Add, Sqrt, Reciprocal/Div, Mul, Mul.
    fn rms_norm(&self, id: NodeId, node: &Node) -> Option<Item> {
        let x = node.inputs.first().copied().flatten()?;
        let square = match read::binary(node)? {
            BinaryOp::Pow if self.scalar(node.inputs[1]?) == Some(2.0) => true,
            BinaryOp::Mul => node.inputs[1] == Some(x),
            _ => false,
        };
        let dims = self.dims(x)?;
        let inner = *dims.last()?;
        if !square {
            return None;
        }
        let mut covers = vec![id];
        let mut step = |v: ValueId| -> Option<(NodeId, &Node, ValueId)> {
            let next = self.sole_reader(v)?;
            covers.push(next);
            Some((next, self.graph.node(next), self.output(next)?))
        };
        let (mean_id, mean, v) = step(self.output(id)?)?;
        if !read::is_mean_of_last(self.graph, mean, &|v| self.value(v)) {
            return None;
        }
        let _ = mean_id;
        let mean_value = v;
        let (_, add, v) = step(v)?;
        let epsilon = self.scalar(self.other(add, mean_value)?)?;
        if read::binary(add)? != BinaryOp::Add {
            return None;
        }
        let (_, sqrt, v) = step(v)?;
        if read::unary(sqrt, &|v| self.value(v))? != Act::Sqrt {
            return None;
        }
        let root = v;
        let (_, recip, mut v) = step(v)?;
        let reciprocal = read::unary(recip, &|v| self.value(v)) == Some(Act::Reciprocal)
            || (read::binary(recip) == Some(BinaryOp::Div)
                && recip.inputs[1] == Some(root)
                && recip.inputs[0].and_then(|c| self.scalar(c)) == Some(1.0));
        if reciprocal {
            let r = v;
            let (_, mul, after) = step(r)?;
            if read::binary(mul)? != BinaryOp::Mul || self.other(mul, r)? != x {
                return None;
            }
            v = after;
        } else if !(read::binary(recip) == Some(BinaryOp::Div)
            && recip.inputs[0] == Some(x)
            && recip.inputs[1] == Some(root))
        {
            return None;
        }
        let mut scale = None;
        if let Some(next) = self.sole_reader(v) {
            let mul = self.graph.node(next);
            if read::binary(mul) == Some(BinaryOp::Mul)
                && let Some(w) =
                    self.other(mul, v).filter(|w| self.is_static(*w)).and_then(|w| self.row_vector(w, inner))
            {
                scale = Some(w);
                v = self.output(next)?;
                covers.push(next);
            }
        }
        (self.dims(v)? == dims).then_some(())?;
        let kind = Kind::Norm { inner, epsilon, rms: true, scale, shift: None };
        Some(self.finish(kind, covers, vec![x], v))
    }
}
