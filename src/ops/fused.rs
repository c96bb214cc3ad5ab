//! Operators that ONNX Runtime's optimizers fuse out of others, on real numbers; each is a [`super::recipe::Recipe`] of what it was made of.
//!
//! <https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md>: FusedConv, FusedGemm, FusedMatMulActivation,
//! GemmFastGelu, BiasAdd, BiasSplitGelu, BiasSoftmax, EmbedLayerNormalization, GroupNorm, SkipGroupNorm, the channels-last NhwcConv
//! and NhwcFusedConv, and what ai.onnx took over (ExpandDims, GatherND, GridSample, Pad, Range, Trilu,
//! Unique). Cost: the sum over the parts, so that a network costs the same fused or not.

pub use super::recipe::Recipe as Fused;
use super::recipe::Ref;
use super::spec::{Attr, NodeSpec};
use super::unary::{Elementary, Unary};
use super::{Case, Entry, Op, Role, sample};
use crate::error::{Error, Result};
use crate::tensor::Tensor;

const fn contrib(name: &'static str, parse: fn(&NodeSpec) -> Result<Op>) -> Entry {
    Entry { domain: "com.microsoft", name, parse, cases }
}

/// The family's table rows.
pub const ENTRIES: &[Entry] = &[
    contrib("ExpandDims", expand_dims),
    contrib("GatherND", same),
    contrib("GridSample", grid_sample),
    contrib("Pad", same),
    contrib("Range", range),
    contrib("Trilu", same),
    contrib("Unique", unique),
    contrib("BiasAdd", bias_add),
    contrib("BiasSoftmax", bias_softmax),
    contrib("BiasSplitGelu", bias_split_gelu),
    contrib("EmbedLayerNormalization", embed),
    contrib("FusedConv", conv),
    contrib("FusedGemm", gemm),
    contrib("FusedMatMulActivation", matmul),
    contrib("GemmFastGelu", gemm_fast_gelu),
    contrib("GroupNorm", group_norm),
    contrib("NhwcConv", conv),
    contrib("NhwcFusedConv", conv),
    contrib("SkipGroupNorm", group_norm),
];

/// Input `i` of the fused node, if it is given.
pub(super) fn given(node: &NodeSpec, i: usize) -> Option<Ref> {
    node.has_input(i).then_some(Ref::Input(i))
}

/// The attributes of a node called one of `names`.
pub(super) fn attributes<'a>(node: &'a NodeSpec, names: &[&str]) -> Vec<(&'a str, Attr)> {
    node.attrs.iter().filter(|(k, _)| names.contains(&k.as_str())).map(|(k, v)| (k.as_str(), v.clone())).collect()
}

pub(super) fn int(name: &'static str, v: i64) -> (&'static str, Attr) {
    (name, Attr::Int(v))
}

pub(super) const WINDOW: &[&str] = &["auto_pad", "dilations", "group", "kernel_shape", "pads", "strides"];

/// The activation a fused node names, with its parameters.
fn activation(name: &str, p: &[f32]) -> Result<Option<Op>> {
    let at = |i: usize, default: f32| p.get(i).copied().unwrap_or(default);
    Ok(Some(Op::Unary(match name {
        "" => return Ok(None),
        "Relu" => Unary::Relu,
        "Sigmoid" => Unary::Sigmoid,
        "Tanh" => Unary::Elementary(Elementary::Tanh),
        "LeakyRelu" => Unary::LeakyRelu(at(0, 0.01)),
        "Elu" => Unary::Elu(at(0, 1.0)),
        "HardSigmoid" => Unary::HardSigmoid { alpha: at(0, 0.2), beta: at(1, 0.5) },
        "HardSwish" => Unary::HardSwish,
        "Clip" => Unary::Clip { low: Some(at(0, f32::MIN)), high: Some(at(1, f32::MAX)) },
        "Softplus" => Unary::Softplus,
        "Softsign" => Unary::Softsign,
        "Gelu" => Unary::Gelu,
        "FastGelu" => Unary::GeluTanh,
        "QuickGelu" => Unary::Swish(at(0, 1.702)),
        other => {
            return Err(
                Error::unsupported(format!("a fused {other} is not an activation known here")).at_attribute("activation")
            );
        }
    })))
}

fn activated(r: &mut Fused, y: Ref, name: &str, p: &[f32]) -> Result<Ref> {
    Ok(match activation(name, p)? {
        Some(op) => r.op(op, vec![Some(y)], 1),
        None => y,
    })
}

/// The permutation from channels last to channels second, or back.
pub(super) fn channels(rank: usize, to_second: bool) -> Attr {
    let n = rank as i64;
    Attr::Ints(if to_second {
        [0, n - 1].into_iter().chain(1..n - 1).collect()
    } else {
        std::iter::once(0).chain(2..n).chain([1]).collect()
    })
}

/// The rank of a windowed node's data: what its kernel says, else a picture's.
pub(super) fn rank(node: &NodeSpec) -> Result<usize> {
    Ok(node.opt_sizes("kernel_shape")?.map_or(4, |k| k.len() + 2))
}

/// Operators that ai.onnx took over unchanged.
fn same(node: &NodeSpec) -> Result<Op> {
    let operands: Vec<Option<Ref>> = (0..node.inputs.len()).map(|i| given(node, i)).collect();
    let attrs: Vec<(&str, Attr)> = node.attrs.iter().map(|(k, v)| (k.as_str(), v.clone())).collect();
    let mut r = Fused::new();
    let y = r.node(&node.op_type, &attrs, &operands)?;
    Ok(Op::Fused(r.give(vec![y])))
}

/// Values in the order of their first appearance, where each element's is, and how often each appears.
fn unique(node: &NodeSpec) -> Result<Op> {
    node.expect_inputs(1, 1)?;
    let mut r = Fused::new();
    let y = r.node_of("", "Unique", &[int("sorted", 0)], &[given(node, 0)], 4)?;
    let (places, counts) = (Fused::also(&y, 2), Fused::also(&y, 3));
    Ok(Op::Fused(r.give(vec![y, places, counts])))
}

/// A step of 1, unless it is given.
fn range(node: &NodeSpec) -> Result<Op> {
    node.expect_inputs(2, 3)?;
    if node.has_input(2) {
        return same(node);
    }
    let mut r = Fused::new();
    let one = Ref::Constant(sample::ints(&[1]).reshaped(&[])?);
    let step = r.node("CastLike", &[], &[Some(one), given(node, 0)])?;
    let y = r.node("Range", &[], &[given(node, 0), given(node, 1), Some(step)])?;
    Ok(Op::Fused(r.give(vec![y])))
}

fn expand_dims(node: &NodeSpec) -> Result<Op> {
    node.expect_inputs(2, 2)?;
    let mut r = Fused::new();
    let axes = r.node("Cast", &[int("to", 7)], &[given(node, 1)])?;
    let axes = r.node("Reshape", &[], &[Some(axes), Some(Ref::Constant(sample::ints(&[1])))])?;
    let y = r.node("Unsqueeze", &[], &[given(node, 0), Some(axes)])?;
    Ok(Op::Fused(r.give(vec![y]).with_role(1, Role::Setting)))
}

/// The modes have other names there.
fn grid_sample(node: &NodeSpec) -> Result<Op> {
    node.expect_inputs(2, 2)?;
    let mode = match node.str("mode", "bilinear")? {
        "bilinear" => "linear",
        "bicubic" => "cubic",
        other => other,
    };
    let mut attrs = attributes(node, &["align_corners", "padding_mode"]);
    attrs.push(("mode", Attr::Str(mode.into())));
    let mut r = Fused::new();
    let y = r.node("GridSample", &attrs, &[given(node, 0), given(node, 1)])?;
    Ok(Op::Fused(r.give(vec![y])))
}

/// `activation(Conv(x, w, b) + z)`, channels second or last.
fn conv(node: &NodeSpec) -> Result<Op> {
    node.expect_inputs(2, if node.op_type == "NhwcConv" { 3 } else { 4 })?;
    let last = node.op_type.starts_with("Nhwc");
    let mut r = Fused::new();
    let mut x = Ref::Input(0);
    if last {
        x = r.node("Transpose", &[("perm", channels(rank(node)?, true))], &[Some(x)])?;
    }
    let mut y = r.node("Conv", &attributes(node, WINDOW), &[Some(x), given(node, 1), given(node, 2)])?;
    if last {
        y = r.node("Transpose", &[("perm", channels(rank(node)?, false))], &[Some(y)])?;
    }
    if let Some(z) = given(node, 3) {
        y = r.node("Add", &[], &[Some(y), Some(z)])?;
    }
    let y = activated(&mut r, y, node.str("activation", "")?, &node.opt_floats("activation_params")?.unwrap_or_default())?;
    Ok(Op::Fused(r.give(vec![y])))
}

/// Parameters of an activation given as one attribute each.
fn parameters(node: &NodeSpec) -> Result<Vec<f32>> {
    let first = node.opt_float("activation_alpha")?.or(node.opt_float("leaky_relu_alpha")?);
    Ok(first.into_iter().chain(node.opt_float("activation_beta")?).collect())
}

fn gemm(node: &NodeSpec) -> Result<Op> {
    node.expect_inputs(2, 3)?;
    let mut r = Fused::new();
    let attrs = attributes(node, &["alpha", "beta", "transA", "transB"]);
    let y = r.node("Gemm", &attrs, &[0, 1, 2].map(|i| given(node, i)))?;
    let y = activated(&mut r, y, node.str("activation", "")?, &parameters(node)?)?;
    Ok(Op::Fused(r.give(vec![y])))
}

fn matmul(node: &NodeSpec) -> Result<Op> {
    node.expect_inputs(2, 2)?;
    let mut r = Fused::new();
    let attrs = attributes(node, &["alpha", "transA", "transB", "transBatchA", "transBatchB"]);
    let y = r.node_of("com.microsoft", "FusedMatMul", &attrs, &[given(node, 0), given(node, 1)], 1)?;
    let y = activated(&mut r, y, node.str("activation", "")?, &parameters(node)?)?;
    Ok(Op::Fused(r.give(vec![y])))
}

fn gemm_fast_gelu(node: &NodeSpec) -> Result<Op> {
    node.expect_inputs(2, 3)?;
    let mut r = Fused::new();
    let y = r.node("MatMul", &[], &[given(node, 0), given(node, 1)])?;
    let y = r.node_of("com.microsoft", "FastGelu", &[], &[Some(y), given(node, 2)], 1)?;
    Ok(Op::Fused(r.give(vec![y])))
}

fn bias_add(node: &NodeSpec) -> Result<Op> {
    node.expect_inputs(3, 3)?;
    let mut r = Fused::new();
    let y = r.node("Add", &[], &[given(node, 0), given(node, 1)])?;
    let y = r.node("Add", &[], &[Some(y), given(node, 2)])?;
    Ok(Op::Fused(r.give(vec![y]).with_role(1, Role::Weight)))
}

/// `a · Gelu(b)` of the halves of `x + bias`.
fn bias_split_gelu(node: &NodeSpec) -> Result<Op> {
    node.expect_inputs(2, 2)?;
    let mut r = Fused::new();
    let y = r.node("Add", &[], &[given(node, 0), given(node, 1)])?;
    let a = r.node_of("", "Split", &[int("axis", -1), int("num_outputs", 2)], &[Some(y)], 2)?;
    let gate = r.node("Gelu", &[], &[Some(Fused::also(&a, 1))])?;
    let y = r.node("Mul", &[], &[Some(a), Some(gate)])?;
    Ok(Op::Fused(r.give(vec![y]).with_role(1, Role::Weight)))
}

/// Softmax over the axes from `axis` on, taken as one.
fn bias_softmax(node: &NodeSpec) -> Result<Op> {
    node.expect_inputs(2, 2)?;
    if node.int("axis", 1)? != -1 {
        // Which axes the bias spreads over depends on both ranks there; exports use the last axis.
        let hint = "only the last axis is implemented";
        let inner = node.flag("is_inner_broadcast", false)?;
        if inner {
            return Err(Error::unsupported("an inner broadcast of the bias").at_attribute("is_inner_broadcast").hint(hint));
        }
    }
    let mut r = Fused::new();
    let y = r.node("Add", &[], &[given(node, 0), given(node, 1)])?;
    // Of opset 11: over all axes from this one on, as one.
    let y = r.versioned(("", "Softmax", 11), &[int("axis", node.int("axis", 1)?)], &[Some(y)], 1)?;
    Ok(Op::Fused(r.give(vec![y])))
}

/// Sum of word, position and segment embeddings, normalised; and how many tokens of the mask are set.
fn embed(node: &NodeSpec) -> Result<Op> {
    if node.inputs.len() < 7 || [0, 2, 3, 5, 6].iter().any(|&i| !node.has_input(i)) {
        return Err(Error::input("token ids, two tables, scale and shift must be given"));
    }
    let (scale, shift) = (given(node, 5), given(node, 6));
    Ok(Op::Fused(embedded(node, Fused::new(), &|_, _, rows| Ok(rows), scale, shift)?))
}

/// The rest of [`embed`]; `real` makes numbers of the rows looked up in table 2, 3 or 4.
pub(super) fn embedded(
    node: &NodeSpec,
    mut r: Fused,
    real: &dyn Fn(&mut Fused, usize, Ref) -> Result<Ref>,
    scale: Option<Ref>,
    shift: Option<Ref>,
) -> Result<Fused> {
    let words = r.node("Gather", &[], &[given(node, 2), given(node, 0)])?;
    let words = real(&mut r, 2, words)?;
    let places = match given(node, 8).filter(|_| node.op_type == "EmbedLayerNormalization") {
        Some(ids) => r.node("Gather", &[], &[given(node, 3), Some(ids)])?,
        None => {
            // Positions 0, 1, 2 …: the table's first rows.
            let n = r.node("Shape", &[int("start", 1)], &[given(node, 0)])?;
            let zero = || Some(Ref::Constant(sample::ints(&[0])));
            r.node("Slice", &[], &[given(node, 3), zero(), Some(n), zero()])?
        }
    };
    let places = real(&mut r, 3, places)?;
    let mut sum = r.node("Add", &[], &[Some(words), Some(places)])?;
    if let (Some(table), Some(ids)) = (given(node, 4), given(node, 1)) {
        let segments = r.node("Gather", &[], &[Some(table), Some(ids)])?;
        let segments = real(&mut r, 4, segments)?;
        sum = r.node("Add", &[], &[Some(sum), Some(segments)])?;
    }
    let epsilon = ("epsilon", Attr::Float(node.float("epsilon", 1e-12)?));
    let y = r.node("LayerNormalization", &[epsilon], &[Some(sum.clone()), scale, shift])?;
    let count = match given(node, 7) {
        Some(mask) => {
            let axes = Ref::Constant(sample::ints(&[1]));
            r.node("ReduceSum", &[int("keepdims", 0)], &[Some(mask), Some(axes)])?
        }
        None => {
            let n = r.node("Shape", &[int("end", 1)], &[given(node, 0)])?;
            let zero = Attr::Tensor(Tensor::from_vec(vec![0i32], &[1])?);
            r.node("ConstantOfShape", &[("value", zero)], &[Some(n)])?
        }
    };
    let mut r = r.give(vec![y, count, sum]);
    for i in 2..7 {
        r = r.with_role(i, Role::Weight);
    }
    Ok(r)
}

/// GroupNorm over NHWC (or NCHW) data, SiLU after it; the Skip form adds first.
fn group_norm(node: &NodeSpec) -> Result<Op> {
    let skip = node.op_type == "SkipGroupNorm";
    node.expect_inputs(if skip { 4 } else { 3 }, if skip { 5 } else { 3 })?;
    let last = node.flag("channels_last", true)?;
    let mut r = Fused::new();
    let mut x = Ref::Input(0);
    if skip {
        for i in [3, 4] {
            if let Some(t) = given(node, i) {
                x = r.node("Add", &[], &[Some(x), Some(t)])?;
            }
        }
    }
    let sum = x.clone();
    if last {
        x = r.node("Transpose", &[("perm", channels(4, true))], &[Some(x)])?;
    }
    let attrs = [
        int("num_groups", node.int("groups", 0)?),
        ("epsilon", Attr::Float(node.float("epsilon", 1e-5)?)),
    ];
    let mut y = r.node("GroupNormalization", &attrs, &[Some(x), given(node, 1), given(node, 2)])?;
    if last {
        y = r.node("Transpose", &[("perm", channels(4, false))], &[Some(y)])?;
    }
    if node.flag("activation", false)? {
        y = r.op(Op::Unary(Unary::Swish(1.0)), vec![Some(y)], 1);
    }
    Ok(Op::Fused(r.give(vec![y, sum]).with_role(4, Role::Weight)))
}

fn cases() -> Vec<Case> {
    let f = sample::floats;
    let ints = |v: &[i64]| Attr::Ints(v.to_vec());
    let word = |s: &str| ("activation", Attr::Str(s.into()));
    let ms = |name: &str, attrs: &[(&str, Attr)], inputs: Vec<Option<Tensor>>, outputs: usize| {
        Case::with_optional(name, attrs, inputs, outputs).domain("com.microsoft").opset(1)
    };
    let some = |v: Vec<Tensor>| v.into_iter().map(Some).collect::<Vec<_>>();
    let pads = ("pads", ints(&[1, 1, 1, 1]));
    let xw = || some(vec![f(&[1, 2, 4, 5], 1), f(&[4, 2, 3, 3], 2)]);
    let with = |mut v: Vec<Option<Tensor>>, more: Vec<Option<Tensor>>| {
        v.extend(more);
        v
    };
    let z = || Some(f(&[1, 4, 4, 5], 4));
    let nhwc = || some(vec![f(&[1, 4, 5, 2], 1), f(&[4, 2, 3, 3], 2), f(&[4], 3)]);
    let ids = |v: &[i64]| {
        let t = Tensor::from_vec(v.iter().map(|&v| v as i32).collect(), &[2, 3]);
        t.unwrap_or_else(|_| sample::ints(v))
    };
    let tables = || {
        vec![Some(ids(&[0, 1, 2, 3, 1, 0])), Some(ids(&[0, 0, 1, 0, 1, 1])), Some(f(&[5, 4], 1)), Some(f(&[6, 4], 2)), Some(f(&[2, 4], 3)), Some(f(&[4], 4)), Some(f(&[4], 5))]
    };
    let mut no_segments = tables();
    (no_segments[1], no_segments[4]) = (None, None);
    let gemm = || some(vec![f(&[3, 4], 1), f(&[4, 5], 2), f(&[5], 3)]);
    let groups = |last: i64, act: i64| [("groups", Attr::Int(2)), ("channels_last", Attr::Int(last)), ("activation", Attr::Int(act))];
    let axis = |v: i32| Tensor::scalar(v);
    let (picture, c) = (|| f(&[1, 3, 2, 4], 1), || f(&[4], 2));
    vec![
        ms("FusedConv", &[pads.clone(), word("Relu")], xw(), 1),
        ms("FusedConv", &[pads.clone(), word("HardSigmoid"), ("activation_params", Attr::Floats(vec![0.3, 0.4]))], with(xw(), vec![Some(f(&[4], 3)), z()]), 1),
        ms("FusedConv", std::slice::from_ref(&pads), with(xw(), vec![None, z()]), 1),
        ms("NhwcConv", std::slice::from_ref(&pads), nhwc(), 1),
        ms("NhwcFusedConv", &[pads, word("Clip"), ("activation_params", Attr::Floats(vec![0.0, 0.5]))], with(nhwc(), vec![Some(f(&[1, 4, 5, 4], 4))]), 1),
        ms("FusedGemm", &[word("LeakyRelu"), ("activation_alpha", Attr::Float(0.2)), ("alpha", Attr::Float(0.5))], gemm(), 1),
        ms("FusedGemm", &[word("Tanh")], gemm()[..2].to_vec(), 1),
        ms("FusedMatMulActivation", &[word("Sigmoid"), ("transA", Attr::Int(1))], some(vec![f(&[4, 3], 1), f(&[2, 4, 5], 2)]), 1),
        ms("GemmFastGelu", &[], gemm(), 1),
        ms("BiasAdd", &[], some(vec![f(&[2, 3, 4], 1), f(&[4], 2), f(&[2, 3, 4], 3)]), 1),
        ms("BiasSplitGelu", &[], some(vec![f(&[2, 3, 4], 1), f(&[4], 2)]), 1),
        ms("BiasSoftmax", &[("axis", Attr::Int(2)), ("is_inner_broadcast", Attr::Int(0))], some(vec![f(&[2, 3, 4], 1), f(&[3, 4], 2)]), 1),
        ms("EmbedLayerNormalization", &[], with(tables(), vec![Some(ids(&[1, 1, 0, 1, 0, 0]))]), 3),
        ms("EmbedLayerNormalization", &[], no_segments, 2),
        ms("EmbedLayerNormalization", &[], with(tables(), vec![None, Some(ids(&[3, 2, 1, 0, 1, 2]))]), 1),
        ms("GroupNorm", &groups(1, 1), vec![Some(picture()), Some(c()), Some(c())], 1),
        ms("GroupNorm", &groups(0, 0), vec![Some(f(&[1, 4, 2, 3], 1)), Some(c()), Some(c())], 1),
        ms("ExpandDims", &[], vec![Some(f(&[2, 3], 1)), Some(axis(1))], 1),
        ms("GatherND", &[], vec![Some(f(&[2, 3], 1)), sample::ints(&[1, 2, 0, 0]).reshaped(&[2, 2]).ok()], 1),
        ms("GridSample", &[], some(vec![f(&[1, 2, 4, 5], 1), f(&[1, 3, 3, 2], 2)]), 1),
        ms("Pad", &[], vec![Some(f(&[2, 3], 1)), Some(sample::ints(&[0, 1, 2, 0])), Some(f(&[], 3))], 1),
        ms("Range", &[], vec![sample::ints(&[2]).reshaped(&[]).ok(), sample::ints(&[7]).reshaped(&[]).ok()], 1),
        ms("Range", &[], [1, 9, 3].map(|v| sample::ints(&[v]).reshaped(&[]).ok()).to_vec(), 1),
        ms("Trilu", &[], some(vec![f(&[2, 3, 4], 1)]), 1),
        ms("Unique", &[], vec![Tensor::from_vec(vec![2f32, 1.0, 1.0, 3.0, 2.0], &[5]).ok()], 3),
        ms("SkipGroupNorm", &groups(1, 0), vec![Some(picture()), Some(c()), Some(c()), Some(picture()), Some(c())], 2),
    ]
}
