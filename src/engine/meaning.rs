//! What an operator's node means to the kernels: typed operators read as activations, elementwise operations, products and moves.

use crate::ir::{Graph, Node, ValueId};
use crate::kernels::{Act, BinaryOp, Kind, MatMul, PoolWindow, ReduceOp};
use crate::ops::binary::Binary;
use crate::ops::concat::Concat;
use crate::ops::expand::Expand;
use crate::ops::gather::{Gather, position};
use crate::ops::norm::Norm;
use crate::ops::recipe::{Recipe, Ref};
use crate::ops::reduce::{How, Reduce};
use crate::ops::slice::{PadMode, Slice, cut};
use crate::ops::transpose::Transpose;
use crate::ops::unary::{Elementary, Unary};
use crate::ops::{Op, dims, matmul, pool, softmax};
use crate::tensor::{DType, Tensor};

/// Looks up the value of a static operand.
pub(super) type Lookup<'l, 'a> = &'l dyn Fn(ValueId) -> Option<&'a Tensor>;

/// The value of a one-element float constant.
pub(super) fn scalar(t: &Tensor) -> Option<f32> {
    (t.len() == 1 && t.dtype() == DType::F32).then(|| t.view::<f32>().ok().map(|v| v[0])).flatten()
}

fn operand(node: &Node, i: usize) -> Option<ValueId> {
    node.inputs.get(i).copied().flatten()
}

/// Whether a node makes one value only.
fn single(node: &Node) -> bool {
    node.outputs.iter().flatten().count() == 1
}

/// The activation a one-input node computes, if kernels know it.
pub(super) fn unary<'a>(node: &Node, value: Lookup<'_, 'a>) -> Option<Act> {
    let Op::Unary(op) = &node.op else { return None };
    Some(match op {
        Unary::Clip { low, high } => {
            let bound = |attribute: Option<f32>, i: usize, open: f32| match operand(node, i) {
                None => Some(attribute.unwrap_or(open)),
                Some(v) => scalar(value(v)?),
            };
            Act::Clip { lo: bound(*low, 1, f32::NEG_INFINITY)?, hi: bound(*high, 2, f32::INFINITY)? }
        }
        _ if node.inputs.len() == 1 => return act(op),
        _ => return None,
    })
}

/// The activation of a function of one value.
fn act(op: &Unary) -> Option<Act> {
    Some(match op {
        Unary::Elementary(e) => match e {
            Elementary::Abs => Act::Abs,
            Elementary::Erf => Act::Erf,
            Elementary::Exp => Act::Exp,
            Elementary::Log => Act::Log,
            Elementary::Sqrt => Act::Sqrt,
            Elementary::Tanh => Act::Tanh,
            Elementary::Floor => Act::Floor,
            Elementary::Round => Act::Round,
            _ => return None,
        },
        Unary::Neg => Act::Neg,
        Unary::Reciprocal => Act::Reciprocal,
        Unary::Relu => Act::Relu,
        Unary::LeakyRelu(a) => Act::LeakyRelu(*a),
        Unary::Elu(a) => Act::Elu(*a),
        Unary::HardSigmoid { alpha, beta } => Act::HardSigmoid { alpha: *alpha, beta: *beta },
        Unary::HardSwish => Act::HardSwish,
        Unary::Sigmoid => Act::Sigmoid,
        Unary::Swish(1.0) => Act::Silu,
        Unary::Softplus => Act::Softplus,
        Unary::Mish => Act::Mish,
        Unary::Gelu => Act::Gelu,
        Unary::GeluTanh => Act::GeluTanh,
        Unary::Clip { low, high } => {
            Act::Clip { lo: low.unwrap_or(f32::NEG_INFINITY), hi: high.unwrap_or(f32::INFINITY) }
        }
        _ => return None,
    })
}

/// A fused node that is one product, then perhaps a sum, then perhaps an activation.
pub(super) struct FusedProduct<'n> {
    /// The convolution or Gemm; its operands are the node's first inputs.
    pub(super) product: &'n Op,
    /// The input that is added.
    pub(super) residual: Option<usize>,
    pub(super) act: Act,
}

/// Reads a recipe as a [`FusedProduct`].
pub(super) fn fused_product(recipe: &Recipe) -> Option<FusedProduct<'_>> {
    let mut steps = recipe.steps().enumerate();
    let (_, (product, operands)) = steps.next()?;
    let in_place = |(i, o): (usize, &Option<Ref>)| match o {
        None => true,
        Some(Ref::Input(k)) => *k == i,
        Some(_) => false,
    };
    if !matches!(product, Op::Conv(_) | Op::MatMul(_)) || !operands.iter().enumerate().all(in_place) {
        return None;
    }
    let mut found = FusedProduct { product, residual: None, act: Act::None };
    for (i, (op, operands)) in steps {
        let before = |o: &Option<Ref>| matches!(o, Some(Ref::Made(s, 0)) if s + 1 == i);
        match (op, operands) {
            (Op::Binary(Binary::Add), [a, Some(Ref::Input(z))]) if before(a) && found.residual.is_none() => {
                (found.act == Act::None).then_some(())?;
                found.residual = Some(*z);
            }
            (Op::Unary(u), [a]) if before(a) && found.act == Act::None => found.act = act(u)?,
            _ => return None,
        }
    }
    Some(found)
}

/// The elementwise operation of a node with exactly two operands.
pub(super) fn binary(node: &Node) -> Option<BinaryOp> {
    let Op::Binary(op) = &node.op else { return None };
    if node.inputs.len() != 2 || node.inputs.iter().any(Option::is_none) {
        return None;
    }
    Some(match op {
        Binary::Add | Binary::Sum => BinaryOp::Add,
        Binary::Sub => BinaryOp::Sub,
        Binary::Mul => BinaryOp::Mul,
        Binary::Div => BinaryOp::Div,
        Binary::Max => BinaryOp::Max,
        Binary::Min => BinaryOp::Min,
        Binary::Pow => BinaryOp::Pow,
        _ => return None,
    })
}

/// The ε of an inference BatchNormalization over the second axis.
pub(super) fn batch_norm_epsilon(node: &Node) -> Option<f32> {
    match &node.op {
        Op::Norm(Norm::Batch { epsilon, spatial: true, training: None }) if single(node) => Some(*epsilon),
        _ => None,
    }
}

/// A matrix product of operands with these dims (both at least matrices).
pub(super) fn matmul(op: &Op, a: &[usize], b: &[usize]) -> Option<MatMul> {
    let op = match op {
        Op::MatMul(op) => op,
        Op::Einsum(e) => {
            let p = e.product(a, b)?;
            return Some(MatMul {
                batch_a: p.batch.clone(),
                batch_b: p.batch.clone(),
                batch: p.batch,
                m: p.m,
                n: p.n,
                k: p.k,
                trans_a: p.trans_a,
                trans_b: p.trans_b,
                alpha: 1.0,
                b: None,
                bias: None,
                act: Act::None,
                residual: false,
            });
        }
        _ => return None,
    };
    let (trans_a, trans_b, alpha) = match *op {
        matmul::MatMul::Broadcast { trans_a, trans_b, alpha } => (trans_a, trans_b, alpha),
        matmul::MatMul::Gemm { trans_a, trans_b, alpha, .. } => (trans_a, trans_b, alpha),
    };
    if a.len() < 2 || b.len() < 2 {
        return None;
    }
    let (rows, cols) = (|d: &[usize]| d[d.len() - 2], |d: &[usize]| d[d.len() - 1]);
    let (m, k) = if trans_a { (cols(a), rows(a)) } else { (rows(a), cols(a)) };
    let n = if trans_b { rows(b) } else { cols(b) };
    let (lead_a, lead_b) = (&a[..a.len() - 2], &b[..b.len() - 2]);
    let batch = dims::broadcast_dims(&[lead_a, lead_b]).ok()?;
    let widen = |d: &[usize]| [vec![1; batch.len() - d.len()], d.to_vec()].concat();
    Some(MatMul {
        batch_a: widen(lead_a),
        batch_b: widen(lead_b),
        batch,
        m,
        n,
        k,
        trans_a,
        trans_b,
        alpha,
        b: None,
        bias: None,
        act: Act::None,
        residual: false,
    })
}

/// Whether a node multiplies two matrices or batches of them, each with its rows and columns as the last two axes.
pub(super) fn is_product(graph: &Graph, node: &Node) -> bool {
    match &node.op {
        Op::MatMul(_) => true,
        Op::Einsum(e) => {
            let dims = |i: usize| graph.value(operand(node, i)?).fact.shape.concrete();
            let both = dims(0).zip(dims(1));
            node.inputs.len() == 2 && both.and_then(|(a, b)| e.product(&a, &b)).is_some_and(|p| p.single)
        }
        _ => false,
    }
}

/// The bias operand of a Gemm and its factor.
pub(super) fn gemm_bias(node: &Node, op: &Op) -> Option<(ValueId, f32)> {
    match op {
        Op::MatMul(matmul::MatMul::Gemm { beta, .. }) => operand(node, 2).map(|c| (c, *beta)),
        _ => None,
    }
}

/// Whether a node takes the mean of its operand over the last axis.
pub(super) fn is_mean_of_last<'a>(graph: &Graph, node: &Node, value: Lookup<'_, 'a>) -> bool {
    let rank = operand(node, 0).and_then(|x| graph.value(x).fact.shape.rank());
    rank.is_some_and(|r| r > 0 && reduction(graph, node, value) == Some((vec![r - 1], ReduceOp::Mean)))
}

/// The axes (sorted) of a reduction, and what it does.
fn reduction<'a>(graph: &Graph, node: &Node, value: Lookup<'_, 'a>) -> Option<(Vec<usize>, ReduceOp)> {
    let Op::Reduce(Reduce::Axes { how, axes, noop_when_empty, .. }) = &node.op else { return None };
    let op = match how {
        How::Sum => ReduceOp::Sum,
        How::Mean => ReduceOp::Mean,
        How::Max => ReduceOp::Max,
        How::Min => ReduceOp::Min,
        How::Prod => ReduceOp::Prod,
        How::L1 => ReduceOp::L1,
        How::L2 => ReduceOp::L2,
        How::SumSquare => ReduceOp::SumSquare,
        How::LogSum => ReduceOp::LogSum,
        How::LogSumExp => return None,
    };
    let rank = graph.value(operand(node, 0)?).fact.shape.rank()?;
    let given = match (axes, operand(node, 1)) {
        (Some(a), _) => a.clone(),
        (None, Some(v)) => value(v)?.to_i64s().ok()?,
        (None, None) => Vec::new(),
    };
    if given.is_empty() {
        return (!noop_when_empty).then(|| ((0..rank).collect(), op));
    }
    let mut axes = dims::axes(&given, rank).ok()?;
    axes.sort_unstable();
    Some((axes, op))
}

/// A step that needs no fusion: its kind, operands and results.
pub(super) struct Shaped {
    pub(super) kind: Kind,
    pub(super) operands: Vec<ValueId>,
    pub(super) results: Vec<ValueId>,
}

/// Pooling, softmax, normalisation and moves of data.
pub(super) fn shaped<'a>(graph: &Graph, node: &Node, value: Lookup<'_, 'a>) -> Option<Shaped> {
    let x = operand(node, 0)?;
    let dims_of = |v: ValueId| graph.value(v).fact.shape.concrete();
    let xd = dims_of(x)?;
    let one =
        |kind: Kind| Some(Shaped { kind, operands: vec![x], results: vec![node.outputs.first().copied().flatten()?] });
    let ints = |i: usize| operand(node, i).and_then(value).and_then(|t| t.to_i64s().ok());
    match &node.op {
        Op::Pool(p) => {
            if node.outputs.get(1).copied().flatten().is_some() {
                return None;
            }
            match (&p.kind, &p.window) {
                (pool::Kind::Average { .. }, None) => one(Kind::GlobalPool { average: true }),
                (pool::Kind::Max { .. }, None) => one(Kind::GlobalPool { average: false }),
                (kind @ (pool::Kind::Average { .. } | pool::Kind::Max { .. }), Some(_)) if xd.len() == 4 => {
                    let axes: [_; 2] = p.axes(&xd).ok()?.try_into().ok()?;
                    let include_pad = matches!(kind, pool::Kind::Average { include_pad: true });
                    let average = matches!(kind, pool::Kind::Average { .. });
                    one(Kind::Pool(PoolWindow { axes, average, include_pad }))
                }
                _ => None,
            }
        }
        Op::Softmax(s) if s.kind == softmax::Kind::Soft => {
            let (_, len, inner) = s.sizes(&xd).ok()?;
            one(if inner == 1 && xd.last() == Some(&len) { Kind::Softmax } else { Kind::SoftmaxOver { len, inner } })
        }
        Op::Transpose(Transpose::Axes(perm)) => one(Kind::Transpose(Transpose::order(perm, xd.len()).ok()?)),
        Op::Concat(Concat::Concat { axis }) => {
            let operands = node.inputs.iter().copied().collect::<Option<Vec<_>>>()?;
            let axis = dims::axis(*axis, xd.len()).ok()?;
            Some(Shaped { kind: Kind::Concat(axis), operands, results: vec![node.outputs.first().copied().flatten()?] })
        }
        Op::Concat(Concat::Split { axis, .. }) => {
            let axis = dims::axis(*axis, xd.len()).ok()?;
            let results = node.outputs.iter().copied().collect::<Option<Vec<_>>>()?;
            let mut parts = Vec::new();
            let mut at = 0;
            for &r in &results {
                let len = *dims_of(r)?.get(axis)?;
                parts.push((at, len));
                at += len;
            }
            Some(Shaped { kind: Kind::Split { axis, parts }, operands: vec![x], results })
        }
        Op::Slice(s @ (Slice::Slice | Slice::Fixed { .. })) => {
            let (starts, ends, axes, steps) = match s {
                Slice::Fixed { starts, ends, axes } => (starts.clone(), ends.clone(), axes.clone(), None),
                _ => {
                    // An axis or step input that is given but not known is not "not given".
                    if (3..5).any(|i| operand(node, i).is_some() && ints(i).is_none()) {
                        return None;
                    }
                    (ints(1)?, ints(2)?, ints(3), ints(4))
                }
            };
            let axes = axes.unwrap_or_else(|| (0..starts.len() as i64).collect());
            let mut cuts = vec![(0usize, 1isize); xd.len()];
            for (i, a) in dims::axes(&axes, xd.len()).ok()?.into_iter().enumerate() {
                let step = steps.as_ref().map_or(Some(1), |s| s.get(i).copied())?;
                let c = cut(xd[a], *starts.get(i)?, *ends.get(i)?, step).ok()?;
                cuts[a] = (c.start, isize::try_from(c.step).ok()?);
            }
            one(Kind::Slice(cuts))
        }
        Op::Slice(Slice::Pad { mode: PadMode::Constant, pads, value: fill }) => {
            let given = match pads {
                Some(p) => p.clone(),
                None => ints(1)?,
            };
            let fill = match operand(node, 2) {
                Some(v) => scalar(value(v)?)?,
                None => *fill,
            };
            let n = given.len() / 2;
            let axes = match operand(node, 3) {
                Some(_) => dims::axes(&ints(3)?, xd.len()).ok()?,
                None => (0..n).collect(),
            };
            let mut pads = vec![(0usize, 0usize); xd.len()];
            for (i, a) in axes.into_iter().enumerate() {
                // Negative pads crop; the reference kernel does that.
                pads[a] = (usize::try_from(*given.get(i)?).ok()?, usize::try_from(*given.get(n + i)?).ok()?);
            }
            one(Kind::Pad { pads, value: fill })
        }
        // Neighbours along the axis, in their order: a part of the tensor.
        Op::Gather(Gather::Axis(axis)) => {
            let axis = dims::axis(*axis, xd.len()).ok()?;
            let at = ints(1)?.into_iter().map(|i| position(i, xd[axis]).ok()).collect::<Option<Vec<_>>>()?;
            let first = *at.first()?;
            at.iter().enumerate().all(|(i, &p)| p == first + i).then_some(())?;
            // Channels that lose their axis have no place in the blocked layout.
            let rank = dims_of(node.outputs.first().copied().flatten()?)?.len();
            (axis != 1 || xd.len() != 4 || rank == 4).then_some(())?;
            one(Kind::Split { axis, parts: vec![(first, at.len())] })
        }
        Op::Expand(Expand::Expand) => one(Kind::Expand),
        Op::Resize(r) if xd.len() == 4 => {
            // Settings that are given must be known.
            if (1..node.inputs.len()).any(|i| operand(node, i).is_some_and(|v| value(v).is_none())) {
                return None;
            }
            let taps = r.axis_taps(&xd, |i| operand(node, i).and_then(value).cloned())?;
            let [None, None, rows, cols] = <[_; 4]>::try_from(taps).ok()? else { return None };
            let copied = |n: usize| (0..n).map(|i| vec![(i, 1.0)]).collect();
            one(Kind::Resize {
                rows: rows.unwrap_or_else(|| copied(xd[2])),
                cols: cols.unwrap_or_else(|| copied(xd[3])),
            })
        }
        Op::Norm(Norm::Layer { axis, epsilon, rms, skip: false, .. }) => {
            if node.outputs.iter().skip(1).any(Option::is_some) {
                return None;
            }
            let axis = dims::axis(*axis, xd.len()).ok()?;
            let inner: usize = xd[axis..].iter().product();
            let vector = |i: usize| match operand(node, i) {
                None => Some(None),
                Some(v) => value(v)?.view::<f32>().ok().filter(|t| t.len() == inner).map(|t| Some(t.into_owned())),
            };
            one(Kind::Norm { inner, plane: 1, epsilon: *epsilon, rms: *rms, scale: vector(1)?, shift: vector(2)? })
        }
        Op::Norm(Norm::Grouped { epsilon, groups, per_group }) if xd.len() >= 2 => {
            let plane: usize = xd[2..].iter().product();
            let channels = groups.map_or(Some(1), |g| xd[1].is_multiple_of(g).then(|| xd[1] / g))?;
            let vector = |i: usize| {
                let t = value(operand(node, i)?)?.view::<f32>().ok()?.into_owned();
                let each = if *per_group { channels } else { 1 };
                let all: Vec<f32> = t.iter().flat_map(|v| std::iter::repeat_n(*v, each)).collect();
                (all.len() == xd[1] && plane > 0).then_some(all)
            };
            let (scale, shift) = (Some(vector(1)?), Some(vector(2)?));
            one(Kind::Norm { inner: channels * plane, plane, epsilon: *epsilon, rms: false, scale, shift })
        }
        Op::Reduce(_) if xd.len() == 4 && reduction(graph, node, value) == Some((vec![2, 3], ReduceOp::Mean)) => {
            one(Kind::GlobalPool { average: true })
        }
        _ => {
            let (mut axes, op) = reduction(graph, node, value)?;
            // Axes of one value may be reduced or not.
            axes.retain(|&a| xd[a] != 1);
            let (first, end) = (axes.first().copied().unwrap_or(0), axes.last().map_or(0, |a| a + 1));
            let gap = (first..end).any(|a| xd[a] != 1 && !axes.contains(&a));
            let (len, inner) = (xd[first..end].iter().product(), xd[end..].iter().product());
            (!gap).then(|| one(Kind::Reduce { op, len, inner })).flatten()
        }
    }
}
