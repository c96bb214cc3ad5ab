//! Operators that ONNX Runtime fuses out of others on quantised data; each is a [`Recipe`](super::recipe::Recipe) of its parts.
//!
//! <https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md>: QGemm, QAttention, DynamicQuantizeMatMul,
//! MatMulIntegerToFloat, QEmbedLayerNormalization, QLinearSoftmax, QLinearAveragePool, QLinearReduceMean, QLinearWhere, QLinearConv
//! (channels last too), NhwcMaxPool. Cost: the sum over the parts: the MAdds of the operator on real numbers, 1 per element to
//! dequantise or to scale a product, 2 to quantise.

use super::fused::{WINDOW, attributes, channels, embedded, given, int, rank};
use super::heads::Heads;
pub use super::recipe::Recipe as FusedQuant;
use super::recipe::Ref;
use super::spec::{Attr, NodeSpec};
use super::{Case, Entry, Op, Role, sample};
use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};

const fn contrib(name: &'static str, parse: fn(&NodeSpec) -> Result<Op>) -> Entry {
    Entry { domain: "com.microsoft", name, parse, cases }
}

/// The family's table rows.
pub const ENTRIES: &[Entry] = &[
    contrib("DynamicQuantizeMatMul", dynamic_matmul),
    contrib("MatMulIntegerToFloat", integer_to_float),
    contrib("NhwcMaxPool", max_pool),
    contrib("QAttention", attention),
    contrib("QEmbedLayerNormalization", embed),
    contrib("QGemm", gemm),
    contrib("QLinearAveragePool", average_pool),
    contrib("QLinearConv", conv),
    contrib("QLinearReduceMean", reduce_mean),
    contrib("QLinearSoftmax", softmax),
    contrib("QLinearWhere", select),
];

type R = FusedQuant;

/// Checks the number of inputs; some of the first may be left out.
fn expect(node: &NodeSpec, max: usize, needed: &[usize]) -> Result<()> {
    match needed.iter().find(|&&i| !node.has_input(i)) {
        Some(i) => Err(Error::input(format!("input {i} is missing"))),
        None if node.inputs.len() > max => Err(Error::input(format!("has {} inputs, more than {max}", node.inputs.len()))),
        None => Ok(()),
    }
}

/// `(a − zero) · (b − zero) · scales + bias`, operands and parameters as [a, b, a scale, b scale, a zero, b zero].
fn scaled_product(r: &mut R, of: [Option<Ref>; 6], bias: Option<Ref>) -> Result<Ref> {
    let [a, b, a_scale, b_scale, a_zero, b_zero] = of;
    let y = r.node("MatMulInteger", &[], &[a, b, a_zero, b_zero])?;
    let y = r.node("Cast", &[int("to", 1)], &[Some(y)])?;
    let scale = r.node("Mul", &[], &[a_scale, b_scale])?;
    let y = r.node("Mul", &[], &[Some(y), Some(scale)])?;
    match bias {
        Some(_) => r.node("Add", &[], &[Some(y), bias]),
        None => Ok(y),
    }
}

fn integer_to_float(node: &NodeSpec) -> Result<Op> {
    expect(node, 7, &[0, 1, 2, 3])?;
    let mut r = R::new();
    let y = scaled_product(&mut r, [0, 1, 2, 3, 4, 5].map(|i| given(node, i)), given(node, 6))?;
    Ok(Op::FusedQuant(settings(r.give(vec![y]), &[2, 3, 4, 5]).with_role(6, Role::Weight)))
}

fn settings(mut r: R, which: &[usize]) -> R {
    for &i in which {
        r = r.with_role(i, Role::Setting);
    }
    r
}

fn dynamic_matmul(node: &NodeSpec) -> Result<Op> {
    expect(node, 5, &[0, 1, 2])?;
    let mut r = R::new();
    let a = r.node_of("", "DynamicQuantizeLinear", &[], &[given(node, 0)], 3)?;
    let (scale, zero) = (R::also(&a, 1), R::also(&a, 2));
    let of = [Some(a), given(node, 1), Some(scale), given(node, 2), Some(zero), given(node, 3)];
    let y = scaled_product(&mut r, of, given(node, 4))?;
    Ok(Op::FusedQuant(settings(r.give(vec![y]), &[2, 3]).with_role(4, Role::Weight)))
}

fn gemm(node: &NodeSpec) -> Result<Op> {
    expect(node, 9, &[0, 1, 2, 3, 4, 5])?;
    let mut r = R::new();
    let perm = [("perm", Attr::Ints(vec![1, 0]))];
    let operand = |r: &mut R, i: usize, flag: &str| -> Result<Option<Ref>> {
        let x = given(node, i);
        if node.flag(flag, false)? { r.node("Transpose", &perm, &[x]).map(Some) } else { Ok(x) }
    };
    let (a, b) = (operand(&mut r, 0, "transA")?, operand(&mut r, 3, "transB")?);
    let mut y = r.node("MatMulInteger", &[], &[a, b, given(node, 2), given(node, 5)])?;
    if let Some(c) = given(node, 6) {
        y = r.node("Add", &[], &[Some(y), Some(c)])?;
    }
    y = r.node("Cast", &[int("to", 1)], &[Some(y)])?;
    let scale = r.node("Mul", &[], &[given(node, 1), given(node, 4)])?;
    y = r.node("Mul", &[], &[Some(y), Some(scale)])?;
    let alpha = node.float("alpha", 1.0)?;
    if alpha != 1.0 {
        y = r.node("Mul", &[], &[Some(y), Some(Ref::Constant(Tensor::scalar(alpha)))])?;
    }
    if node.has_input(7) {
        y = r.node("QuantizeLinear", &[], &[Some(y), given(node, 7), given(node, 8)])?;
    }
    let r = settings(r.give(vec![y]), &[1, 2, 4, 5, 7, 8]);
    Ok(Op::FusedQuant(r.with_role(0, Role::Data).with_role(3, Role::Weight).with_role(6, Role::Weight)))
}

fn attention(node: &NodeSpec) -> Result<Op> {
    expect(node, 9, &[0, 1, 2, 3, 4])?;
    for name in ["do_rotary", "past_present_share_buffer"] {
        if node.flag(name, false)? {
            return Err(Error::unsupported("is not implemented").at_attribute(name));
        }
    }
    let mut r = R::new();
    let x = scaled_product(&mut r, [0, 1, 3, 4, 6, 7].map(|i| given(node, i)), given(node, 2))?;
    let y = r.op(Op::Heads(Heads::projected(node)?), vec![Some(x), given(node, 5), given(node, 8)], node.outputs.len());
    let present = R::also(&y, 1);
    let r = settings(r.give(vec![y, present]), &[3, 4, 5, 6, 7]);
    Ok(Op::FusedQuant(r.with_role(1, Role::Weight).with_role(2, Role::Weight)))
}

fn embed(node: &NodeSpec) -> Result<Op> {
    expect(node, 18, &[0, 2, 3, 5, 6, 8, 9, 11, 12, 13, 14, 16, 17])?;
    let mut r = R::new();
    let dequantized = |r: &mut R, which: usize, x: Ref| {
        // The segment's parameters lie between the others', if there is a segment.
        let (scale, zero) = ([0, 0, 8, 9, 10, 11, 12][which], [0, 0, 13, 14, 15, 16, 17][which]);
        r.node("DequantizeLinear", &[], &[Some(x), given(node, scale), given(node, zero)])
    };
    let (scale, shift) = (dequantized(&mut r, 5, Ref::Input(5))?, dequantized(&mut r, 6, Ref::Input(6))?);
    let mut r = embedded(node, r, &dequantized, Some(scale), Some(shift))?;
    r = settings(r, &[8, 9, 10, 11, 12, 13, 14, 15, 16, 17]);
    Ok(Op::FusedQuant(r))
}

/// An operator on one quantised tensor: x, its scale and zero point, those of the result.
fn between(node: &NodeSpec, f: impl FnOnce(&mut R, Ref) -> Result<Ref>) -> Result<Op> {
    expect(node, 5, &[0, 1, 3])?;
    let mut r = R::new();
    let x = r.node("DequantizeLinear", &[], &[0, 1, 2].map(|i| given(node, i)))?;
    let y = f(&mut r, x)?;
    let y = r.node("QuantizeLinear", &[], &[Some(y), given(node, 3), given(node, 4)])?;
    Ok(Op::FusedQuant(settings(r.give(vec![y]), &[1, 2, 3, 4]).with_role(0, Role::Data)))
}

fn softmax(node: &NodeSpec) -> Result<Op> {
    let (axis, opset) = (node.int("axis", -1)?, node.int("opset", 13)?);
    between(node, |r, x| r.versioned(("", "Softmax", opset), &[int("axis", axis)], &[Some(x)], 1))
}

fn average_pool(node: &NodeSpec) -> Result<Op> {
    let attrs = attributes(node, &["auto_pad", "ceil_mode", "count_include_pad", "kernel_shape", "pads", "strides"]);
    between(node, |r, x| windowed(r, node, x, node.flag("channels_last", false)?, |r, x| r.node("AveragePool", &attrs, &[Some(x)])))
}

/// `f` on channels-second data.
fn windowed(r: &mut R, node: &NodeSpec, x: Ref, last: bool, f: impl FnOnce(&mut R, Ref) -> Result<Ref>) -> Result<Ref> {
    if !last {
        return f(r, x);
    }
    let rank = rank(node)?;
    let x = r.node("Transpose", &[("perm", channels(rank, true))], &[Some(x)])?;
    let y = f(r, x)?;
    r.node("Transpose", &[("perm", channels(rank, false))], &[Some(y)])
}

fn reduce_mean(node: &NodeSpec) -> Result<Op> {
    let axes = Tensor::from_vec(node.opt_ints("axes")?.unwrap_or_default(), &[node.opt_ints("axes")?.map_or(0, |a| a.len())])?;
    let attrs = attributes(node, &["keepdims"]);
    between(node, |r, x| r.node("ReduceMean", &attrs, &[Some(x), Some(Ref::Constant(axes))]))
}

fn select(node: &NodeSpec) -> Result<Op> {
    expect(node, 9, &[0, 1, 2, 3, 4, 5, 6, 7, 8])?;
    let mut r = R::new();
    let x = r.node("DequantizeLinear", &[], &[1, 2, 3].map(|i| given(node, i)))?;
    let y = r.node("DequantizeLinear", &[], &[4, 5, 6].map(|i| given(node, i)))?;
    let z = r.node("Where", &[], &[given(node, 0), Some(x), Some(y)])?;
    let z = r.node("QuantizeLinear", &[], &[Some(z), given(node, 7), given(node, 8)])?;
    Ok(Op::FusedQuant(settings(r.give(vec![z]), &[1, 2, 3, 4, 5, 6, 7, 8])))
}

fn conv(node: &NodeSpec) -> Result<Op> {
    expect(node, 9, &[0, 1, 2, 3, 4, 5, 6, 7])?;
    let mut r = R::new();
    let y = windowed(&mut r, node, Ref::Input(0), node.flag("channels_last", false)?, |r, x| {
        let mut operands: Vec<Option<Ref>> = (0..9).map(|i| given(node, i)).collect();
        operands[0] = Some(x);
        r.node("QLinearConv", &attributes(node, WINDOW), &operands)
    })?;
    Ok(Op::FusedQuant(r.give(vec![y])))
}

fn max_pool(node: &NodeSpec) -> Result<Op> {
    node.expect_inputs(1, 1)?;
    let mut r = R::new();
    let attrs = attributes(node, &["auto_pad", "ceil_mode", "dilations", "kernel_shape", "pads", "strides"]);
    let y = windowed(&mut r, node, Ref::Input(0), true, |r, x| r.node("MaxPool", &attrs, &[Some(x)]))?;
    Ok(Op::FusedQuant(r.give(vec![y])))
}

/// Quantised numbers for cases of other families too.
pub(super) fn quantized_sample(dtype: DType, dims: &[usize], seed: u64) -> Tensor {
    let shift = if dtype == DType::U8 { 128 } else { 0 };
    let values = sample::floats(dims, seed).to_f64s().unwrap_or_default();
    let values: Vec<i128> = values.into_iter().map(|v| (v * 120.0) as i128 + shift).collect();
    super::elements::from_ints(dtype, &values, dims).unwrap_or_else(|_| sample::ints(&[]))
}

fn cases() -> Vec<Case> {
    let f = |v: f32| Some(Tensor::scalar(v));
    let floats = |dims: &[usize], seed| Some(sample::floats(dims, seed));
    let (u8s, i8s) = (|d: &[usize], s| Some(quantized_sample(DType::U8, d, s)), |d: &[usize], s| Some(quantized_sample(DType::I8, d, s)));
    let byte = |v: u8| Tensor::from_vec_as(DType::U8, vec![v], &[]).ok();
    let signed = |v: i128, dims: &[usize]| super::elements::from_ints(DType::I8, &vec![v; dims.iter().product()], dims).ok();
    let i32s = |v: &[i32], dims: &[usize]| Tensor::from_vec(v.to_vec(), dims).ok();
    let scales = |n: usize| Tensor::from_vec(vec![0.02f32; n], &[n]).ok();
    let ms = |name: &str, attrs: &[(&str, Attr)], inputs: Vec<Option<Tensor>>, outputs: usize| {
        Case::with_optional(name, attrs, inputs, outputs).domain("com.microsoft").opset(1)
    };
    let ints = |v: &[i64]| Attr::Ints(v.to_vec());
    let kernel = [("kernel_shape", ints(&[2, 2])), ("strides", ints(&[2, 1])), ("pads", ints(&[0, 1, 0, 0]))];
    let last = ("channels_last", Attr::Int(1));
    let one = |dims: &[usize]| vec![u8s(dims, 1), f(0.02), byte(120), f(0.05), byte(3)];
    let conv = |dims: &[usize]| vec![u8s(dims, 1), f(0.02), byte(128), i8s(&[4, 2, 3, 3], 2), scales(4), signed(0, &[4]), f(0.1), byte(100), i32s(&[5, -5, 100, 0], &[4])];
    let two = ("num_heads", Attr::Int(2));
    let projected = || vec![u8s(&[2, 3, 4], 1), i8s(&[4, 24], 2), floats(&[24], 3), f(0.02), f(0.01)];
    let with = |mut v: Vec<Option<Tensor>>, more: Vec<Option<Tensor>>| {
        v.extend(more);
        v
    };
    let ids = || i32s(&[0, 1, 2, 3, 1, 0], &[2, 3]);
    let table = |n: usize, s| u8s(&[n, 4], s);
    let mut embed = vec![ids(), i32s(&[0, 1, 0, 1, 1, 0], &[2, 3]), table(5, 1), table(6, 2), table(2, 3), u8s(&[4], 4), u8s(&[4], 5), i32s(&[1, 1, 0, 1, 0, 0], &[2, 3])];
    embed.extend((0..5).map(|i| f(0.01 + i as f32 * 0.01)));
    embed.extend((0..5).map(|_| byte(128)));
    vec![
        ms("DynamicQuantizeMatMul", &[], vec![floats(&[2, 3, 4], 1), i8s(&[4, 5], 2), scales(5), signed(1, &[5]), floats(&[5], 3)], 1),
        ms("DynamicQuantizeMatMul", &[], vec![floats(&[3, 4], 1), u8s(&[4, 5], 2), f(0.02)], 1),
        ms("MatMulIntegerToFloat", &[], vec![u8s(&[2, 3, 4], 1), i8s(&[4, 5], 2), f(0.02), scales(5), byte(128), signed(0, &[5]), floats(&[5], 3)], 1),
        ms("MatMulIntegerToFloat", &[], vec![u8s(&[3, 4], 1), i8s(&[4, 5], 2), f(0.02), f(0.01)], 1),
        ms("NhwcMaxPool", &kernel, vec![u8s(&[1, 4, 5, 3], 1)], 1),
        ms("QAttention", std::slice::from_ref(&two), with(projected(), vec![i32s(&[3, 2], &[2]), byte(120), signed(1, &[])]), 1),
        ms("QAttention", &[two, ("unidirectional", Attr::Int(1))], with(projected(), vec![None, None, None, floats(&[2, 2, 2, 2, 4], 5)]), 2),
        ms("QEmbedLayerNormalization", &[], embed, 2),
        ms("QGemm", &[("transB", Attr::Int(1))], vec![u8s(&[2, 3], 1), f(0.02), byte(128), i8s(&[4, 3], 2), scales(4), signed(0, &[4]), i32s(&[1, 2, 3, 4], &[4]), f(0.1), byte(128)], 1),
        ms("QGemm", &[("transA", Attr::Int(1)), ("alpha", Attr::Float(0.5))], vec![u8s(&[3, 2], 1), f(0.02), byte(128), i8s(&[3, 4], 2), f(0.01), signed(0, &[])], 1),
        ms("QLinearAveragePool", &kernel, one(&[1, 3, 4, 5]), 1),
        ms("QLinearAveragePool", &[&kernel[..], std::slice::from_ref(&last)].concat(), one(&[1, 4, 5, 3]), 1),
        ms("QLinearConv", &[("pads", ints(&[1; 4])), last], conv(&[1, 4, 5, 2]), 1),
        ms("QLinearConv", &[], conv(&[1, 2, 4, 5])[..8].to_vec(), 1),
        ms("QLinearReduceMean", &[("axes", ints(&[2, 3])), ("keepdims", Attr::Int(1))], one(&[2, 3, 4, 5]), 1),
        ms("QLinearSoftmax", &[("opset", Attr::Int(13)), ("axis", Attr::Int(1))], one(&[2, 3, 4]), 1),
        ms("QLinearSoftmax", &[("opset", Attr::Int(12)), ("axis", Attr::Int(1))], one(&[2, 3, 4]), 1),
        ms(
            "QLinearWhere",
            &[],
            vec![Tensor::from_bools([true, false, true], &[3]).ok(), u8s(&[2, 3], 1), f(0.02), byte(120), u8s(&[2, 1], 2), f(0.03), byte(100), f(0.04), byte(110)],
            1,
        ),
    ]
}
