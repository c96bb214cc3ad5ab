//! Operators on quantised tensors: ConvInteger, MatMulInteger, QLinearConv, QLinearMatMul, and ONNX Runtime's QLinearAdd,
//! QLinearMul, QLinearSigmoid, QLinearLeakyRelu, QLinearGlobalAveragePool, QLinearConcat.
//!
//! <https://onnx.ai/onnx/operators/onnx__QLinearConv.html>, <https://onnx.ai/onnx/operators/onnx__QLinearMatMul.html>,
//! <https://onnx.ai/onnx/operators/onnx__ConvInteger.html>, <https://onnx.ai/onnx/operators/onnx__MatMulInteger.html>,
//! <https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md>.
//!
//! MAdds: those of the operator on real numbers, padding in full. Other FLOPs: 2 per element to quantise (multiply by the combined
//! scale or divide, round), 1 per element to dequantise, one per output for a bias, plus the function's own; so QLinearAdd and
//! QLinearMul 5, QLinearSigmoid 7, QLinearLeakyRelu 5, QLinearConcat 3 per element, QLinearGlobalAveragePool `i + 4o`. Combined
//! scales are settings, and free.

use super::conv::Conv;
use super::dims::{self, walk};
use super::elements::{from_ints, ints, reserved};
use super::matmul::MatMul;
use super::quant::quantized;
use super::spec::{Attr, NodeSpec};
use super::window::Window;
use super::{Case, Charge, CostCx, Entry, EvalCx, Family, Infer, Input, Inputs, Op, Role, input, opt, sample};
use crate::cost::Work;
use crate::error::{Error, Result};
use crate::tensor::{Arith, DType, Fact, Num, Shape, Tensor, element_count};
use crate::with_num;

const fn contrib(name: &'static str) -> Entry {
    Entry { domain: "com.microsoft", name, parse: QLinear::parse, cases }
}

/// The family's table rows.
pub const ENTRIES: &[Entry] = &[
    Entry { domain: "", name: "ConvInteger", parse: QLinear::parse, cases },
    Entry { domain: "", name: "MatMulInteger", parse: QLinear::parse, cases },
    Entry { domain: "", name: "QLinearConv", parse: QLinear::parse, cases },
    Entry { domain: "", name: "QLinearMatMul", parse: QLinear::parse, cases },
    contrib("QLinearAdd"),
    contrib("QLinearConcat"),
    contrib("QLinearGlobalAveragePool"),
    contrib("QLinearLeakyRelu"),
    contrib("QLinearMul"),
    contrib("QLinearSigmoid"),
];

/// An operator on quantised tensors.
#[derive(Debug, Clone)]
pub enum QLinear {
    /// A convolution to `int32`, or requantised.
    Conv {
        /// The convolution of real numbers.
        conv: Conv,
        /// Whether scales are given and the result is quantised again.
        requantize: bool,
    },
    /// A matrix product to `int32`, or requantised.
    MatMul {
        /// Whether scales are given and the result is quantised again.
        requantize: bool,
    },
    /// Sum or product of two tensors.
    Pair {
        /// Product rather than sum.
        product: bool,
    },
    /// 1/(1 + e⁻ˣ).
    Sigmoid,
    /// x where positive, αx elsewhere.
    LeakyRelu(f32),
    /// Mean over the spatial axes.
    GlobalAveragePool {
        /// Channels are the last axis rather than the second.
        channels_last: bool,
    },
    /// Concat of (tensor, scale, zero point) triples.
    Concat(i64),
}

const PRODUCT: MatMul = MatMul::Broadcast { trans_a: false, trans_b: false, alpha: 1.0 };

impl QLinear {
    fn parse(node: &NodeSpec) -> Result<Op> {
        let conv = |requantize| -> Result<QLinear> {
            let group = node.int("group", 1)?;
            let group = usize::try_from(group).ok().filter(|&g| g > 0);
            let group = group.ok_or_else(|| Error::input("must be positive").at_attribute("group"))?;
            Ok(QLinear::Conv { conv: Conv { window: Window::parse(node)?, group }, requantize })
        };
        let (min, max, op) = match node.op_type.as_str() {
            "ConvInteger" => (2, 4, conv(false)?),
            "QLinearConv" => (8, 9, conv(true)?),
            "MatMulInteger" => (2, 4, QLinear::MatMul { requantize: false }),
            "QLinearMatMul" => (8, 8, QLinear::MatMul { requantize: true }),
            "QLinearAdd" => (7, 8, QLinear::Pair { product: false }),
            "QLinearMul" => (7, 8, QLinear::Pair { product: true }),
            "QLinearSigmoid" => (4, 5, QLinear::Sigmoid),
            "QLinearLeakyRelu" => (4, 5, QLinear::LeakyRelu(node.float("alpha", 0.01)?)),
            "QLinearGlobalAveragePool" => {
                (5, 5, QLinear::GlobalAveragePool { channels_last: node.flag("channels_last", false)? })
            }
            "QLinearConcat" => (5, usize::MAX, QLinear::Concat(node.int("axis", 0)?)),
            other => return Err(Error::unsupported(format!("{other} is not a quantised operator"))),
        };
        // Zero points among the first inputs may be omitted in the contributed operators.
        if node.inputs.len() < min || node.inputs.len() > max || !node.has_input(0) {
            return node.expect_inputs(min, max).and(Err(Error::input("inputs are missing")));
        }
        Ok(Op::QLinear(op))
    }

    /// Positions of (x, x scale, x zero point), (w …) and (y scale, y zero point) among the inputs.
    fn places(&self) -> Places {
        match self {
            QLinear::Conv { requantize: true, .. } | QLinear::MatMul { requantize: true } | QLinear::Pair { .. } => {
                Places { x: [0, 1, 2], w: Some([3, 4, 5]), y: [6, 7] }
            }
            QLinear::Conv { .. } | QLinear::MatMul { .. } => Places { x: [0, NONE, 2], w: Some([1, NONE, 3]), y: [NONE; 2] },
            QLinear::Sigmoid | QLinear::LeakyRelu(_) | QLinear::GlobalAveragePool { .. } => {
                Places { x: [0, 1, 2], w: None, y: [3, 4] }
            }
            QLinear::Concat(_) => Places { x: [2, 3, 4], w: None, y: [0, 1] },
        }
    }

    fn shape(&self, x: &Fact, w: Option<&Fact>, cx: &Infer) -> Result<Shape> {
        let pair = |family: &dyn Family| -> Result<Shape> {
            let w = w.ok_or_else(|| Error::input("input 1 is missing"))?;
            let see = |fact| Some(Input { fact, value: None });
            let made = family.infer(&Infer { inputs: &[see(x), see(w)], outputs: 1 })?;
            Ok(made.into_iter().next().map_or(Shape::UNKNOWN, |f| f.shape))
        };
        match self {
            QLinear::Conv { conv, .. } => pair(conv),
            QLinear::MatMul { .. } => pair(&PRODUCT),
            QLinear::Pair { .. } => {
                dims::broadcast(&[&x.shape, &w.map_or(Shape::UNKNOWN, |w| w.shape.clone())])
            }
            QLinear::Sigmoid | QLinear::LeakyRelu(_) => Ok(x.shape.clone()),
            QLinear::GlobalAveragePool { channels_last } => {
                let Some(d) = x.shape.dims() else { return Ok(Shape::UNKNOWN) };
                Ok(Shape::partial(pooled(d, *channels_last, Some(1))?))
            }
            QLinear::Concat(axis) => {
                let parts: Vec<Option<Input>> = (2..cx.inputs.len()).step_by(3).map(|i| cx.opt(i)).collect();
                let concat = super::concat::Concat::Concat { axis: *axis };
                let made = concat.infer(&Infer { inputs: &parts, outputs: 1 })?;
                Ok(made.into_iter().next().map_or(Shape::UNKNOWN, |f| f.shape))
            }
        }
    }
}

const NONE: usize = usize::MAX;

/// Where the operands are; `NONE` for those an operator does not have.
struct Places {
    x: [usize; 3],
    w: Option<[usize; 3]>,
    y: [usize; 2],
}

fn pooled<D: Copy>(x: &[D], channels_last: bool, one: D) -> Result<Vec<D>> {
    if x.len() < 3 {
        return Err(Error::input(format!("global pooling of rank {}", x.len())));
    }
    let c = if channels_last { x.len() - 1 } else { 1 };
    Ok(x.iter().enumerate().map(|(a, &d)| if a == 0 || a == c { d } else { one }).collect())
}

/// The dims under which a scale or zero point broadcasts over a tensor whose axis it belongs to has `after` axes behind it.
fn along(t: &Tensor, after: usize) -> Vec<usize> {
    match t.dims() {
        _ if t.len() == 1 => Vec::new(),
        &[n] => std::iter::once(n).chain(std::iter::repeat_n(1, after)).collect(),
        d => d.to_vec(),
    }
}

/// Checks that values of dims `d` broadcast over `to` without growing it.
fn fits(d: &[usize], to: &[usize]) -> Result<()> {
    match dims::broadcast_dims(&[d, to]) {
        Ok(all) if all == to => Ok(()),
        _ => Err(Error::input(format!("{} does not broadcast to {}", Shape::known(d), Shape::known(to)))),
    }
}

/// `x − zero point`, exactly.
fn centered(x: &Tensor, zero: Option<&Tensor>, after: usize) -> Result<Vec<f64>> {
    let values = ints(x)?;
    let Some(zero) = zero else { return Ok(values.into_iter().map(|v| v as f64).collect()) };
    let (zeros, d) = (ints(zero)?, along(zero, after));
    fits(&d, x.dims())?;
    let mut out = Vec::with_capacity(values.len());
    walk(x.dims(), [x.dims(), &d], |[i, z]| out.push((values[i] - zeros[z]) as f64));
    Ok(out)
}

/// Exact integers in the type that products are computed in: `f64`, or `f32` when counting (only the count matters then).
fn wide(cx: &EvalCx, values: Vec<f64>, dims: &[usize]) -> Result<Tensor> {
    match cx.arith {
        Arith::Native => Tensor::from_vec(values, dims),
        Arith::Counting => Tensor::from_vec(values.into_iter().map(|v| v as f32).collect(), dims),
    }
}

fn scalar(t: &Tensor) -> Result<f64> {
    match t.to_f64s()?[..] {
        [v] => Ok(v),
        _ => Err(Error::input(format!("a scale must be one element, not {}", t.fact()))),
    }
}

fn zero(t: Option<&Tensor>) -> Result<i128> {
    match t {
        None => Ok(0),
        Some(t) => ints(t)?.first().copied().ok_or_else(|| Error::input("an empty zero point")),
    }
}

/// Adds each element of `x` (of dims `from`) to the element of `sums` it broadcasts from.
fn add_into<T: Num>(sums: &mut [T], x: &[T], from: &[usize], to: &[usize]) {
    walk(from, [from, to], |[i, o]| sums[o] = sums[o] + x[i]);
}

/// A tensor of real numbers from a quantised one with a single scale: one FLOP per element.
fn real<T: Num>(x: &Tensor, scale: &Tensor, at: Option<&Tensor>) -> Result<Vec<T>> {
    let (s, z) = (T::of(scalar(scale)?), zero(at)?);
    Ok(ints(x)?.into_iter().map(|v| T::of((v - z) as f64) * s).collect())
}

impl Family for QLinear {
    fn infer(&self, cx: &Infer) -> Result<Vec<Fact>> {
        let p = self.places();
        let x = cx.fact(p.x[0])?;
        let w = p.w.and_then(|w| cx.opt(w[0])).map(|w| w.fact);
        let dtype = match self {
            QLinear::Conv { requantize: false, .. } | QLinear::MatMul { requantize: false } => Some(DType::I32),
            _ => cx.opt(p.y[1]).map_or(x.dtype, |y| y.fact.dtype),
        };
        Ok(vec![Fact { dtype, shape: self.shape(x, w, cx)?, container: x.container }])
    }
    fn charge(&self, cx: &CostCx) -> Charge {
        let p = self.places();
        Charge::of((|| {
            let o = cx.out_elements(0)?;
            let requantized = |requantize: bool| if requantize { 2 } else { 0 };
            match self {
                QLinear::Conv { conv, requantize } => {
                    let g = conv.geometry(&cx.dims(p.x[0])?, &cx.dims(p.w?[0])?).ok()?;
                    let per_output = requantized(*requantize) + u64::from(*requantize && cx.has(8));
                    Some(g.work()?.and_other(o.checked_mul(per_output)?))
                }
                QLinear::MatMul { requantize } => {
                    let at = |i: usize| cx.inputs.get(i).copied().flatten();
                    let pair = CostCx { inputs: &[at(p.x[0]), at(p.w?[0])], outputs: cx.outputs };
                    Some(PRODUCT.charge(&pair).known()?.and_other(o.checked_mul(requantized(*requantize))?))
                }
                // Each operand is dequantised at its own size, before broadcasting.
                QLinear::Pair { .. } => {
                    Some(Work::other(cx.elements(0)?.checked_add(cx.elements(3)?)?.checked_add(o.checked_mul(3)?)?))
                }
                QLinear::Sigmoid => Some(Work::other(o.checked_mul(7)?)),
                QLinear::LeakyRelu(_) => Some(Work::other(o.checked_mul(5)?)),
                QLinear::GlobalAveragePool { .. } => Some(Work::other(cx.elements(0)?.checked_add(o.checked_mul(4)?)?)),
                QLinear::Concat(_) => Some(Work::other(o.checked_mul(3)?)),
            }
        })())
    }
    fn eval(&self, cx: &EvalCx, inputs: &Inputs) -> Result<Vec<Tensor>> {
        let p = self.places();
        let x = input(inputs, p.x[0])?;
        let to = opt(inputs, p.y[1]).map_or(x.dtype(), Tensor::dtype);
        match self {
            QLinear::Conv { requantize, .. } | QLinear::MatMul { requantize } => {
                let product = self.product(cx, inputs, &p)?;
                if !requantize {
                    let y: Vec<i128> = numbers(&product)?.into_iter().map(|v| v as i128).collect();
                    return Ok(vec![from_ints(DType::I32, &y, product.dims())?]);
                }
                let (after_x, after_w) = self.behind(product.rank());
                requantized(cx, inputs, &p, &product, after_x, after_w)
            }
            _ => with_num!(cx.arith, DType::F32, T => {
                let (y, dims): (Vec<T>, Vec<usize>) = match self {
                    QLinear::Concat(axis) => {
                        let mut parts = Vec::new();
                        for i in (2..inputs.len()).step_by(3) {
                            let part = input(inputs, i)?;
                            let values = real::<T>(part, input(inputs, i + 1)?, opt(inputs, i + 2))?;
                            parts.push(T::store(values, part.dims())?);
                        }
                        let axis = dims::axis(*axis, x.rank())?;
                        let all = super::concat::concat(&parts.iter().collect::<Vec<_>>(), axis)?;
                        (T::load(&all)?, all.dims().to_vec())
                    }
                    QLinear::GlobalAveragePool { channels_last } => {
                        let z = zero(opt(inputs, 2))?;
                        let centered: Vec<T> = ints(x)?.into_iter().map(|v| T::of((v - z) as f64)).collect();
                        let out = pooled(x.dims(), *channels_last, 1)?;
                        let mut sums = vec![T::zero(); out.iter().product()];
                        add_into(&mut sums, &centered, x.dims(), &out);
                        let n = x.len().checked_div(sums.len()).unwrap_or(0);
                        let (n, s) = (T::of(n as f64), T::of(scalar(input(inputs, 1)?)?));
                        (sums.into_iter().map(|v| v / n * s).collect(), out)
                    }
                    QLinear::Pair { product } => {
                        let w = input(inputs, 3)?;
                        let a = real::<T>(x, input(inputs, 1)?, opt(inputs, 2))?;
                        let b = real::<T>(w, input(inputs, 4)?, opt(inputs, 5))?;
                        let out = dims::broadcast_dims(&[x.dims(), w.dims()])?;
                        let mut y = reserved(element_count(&out)?)?;
                        walk(&out, [x.dims(), w.dims()], |[i, j]| y.push(if *product { a[i] * b[j] } else { a[i] + b[j] }));
                        (y, out)
                    }
                    _ => {
                        let values = real::<T>(x, input(inputs, 1)?, opt(inputs, 2))?;
                        let f = match self {
                            QLinear::LeakyRelu(alpha) => super::unary::Unary::LeakyRelu(*alpha),
                            _ => super::unary::Unary::Sigmoid,
                        };
                        (f.floats(values), x.dims().to_vec())
                    }
                };
                let (s, z) = (T::of(scalar(input(inputs, p.y[0])?)?), zero(opt(inputs, p.y[1]))?);
                let y: Vec<i128> = y.into_iter().map(|v| quantized(v / s, z, to)).collect();
                Ok(vec![from_ints(to, &y, &dims)?])
            }),
        }
    }
    fn role(&self, i: usize) -> Role {
        match self {
            QLinear::Concat(_) if i % 3 == 2 => Role::Data,
            QLinear::Concat(_) => Role::Setting,
            QLinear::Conv { requantize: true, .. } if i == 8 => Role::Weight,
            _ => {
                let p = self.places();
                match (p.w, self) {
                    _ if i == p.x[0] => Role::Data,
                    (Some(w), QLinear::Pair { .. }) if i == w[0] => Role::Data,
                    (Some(w), _) if i == w[0] => Role::Weight,
                    _ => Role::Setting,
                }
            }
        }
    }
    fn handles_narrow(&self) -> bool {
        true
    }
}

fn numbers(t: &Tensor) -> Result<Vec<f64>> {
    t.to_f64s()
}

impl QLinear {
    /// Axes of the output behind the one that per-row scales of x, and per-channel scales of w, belong to.
    fn behind(&self, rank: usize) -> (usize, usize) {
        match self {
            QLinear::Conv { .. } => (0, rank.saturating_sub(2)),
            _ => (1, 0),
        }
    }

    /// The product of the centred operands, `int32` bias included.
    fn product(&self, cx: &EvalCx, inputs: &Inputs, p: &Places) -> Result<Tensor> {
        let [wi, _, wz] = p.w.ok_or_else(|| Error::input("input 1 is missing"))?;
        let (x, w) = (input(inputs, p.x[0])?, input(inputs, wi)?);
        let (after_x, after_w) = match self {
            QLinear::Conv { .. } => (0, w.rank().saturating_sub(1)),
            _ => (1, 0),
        };
        let a = wide(cx, centered(x, opt(inputs, p.x[2]), after_x)?, x.dims())?;
        let b = wide(cx, centered(w, opt(inputs, wz), after_w)?, w.dims())?;
        let bias = match (self, opt(inputs, 8)) {
            (QLinear::Conv { requantize: true, .. }, Some(t)) => Some(wide(cx, t.to_f64s()?, t.dims())?),
            _ => None,
        };
        let operands = [Some(&a), Some(&b), bias.as_ref()];
        let made = match self {
            QLinear::Conv { conv, .. } => conv.eval(cx, &operands[..if bias.is_some() { 3 } else { 2 }])?,
            _ => PRODUCT.eval(cx, &operands[..2])?,
        };
        made.into_iter().next().ok_or_else(|| Error::run("no product"))
    }
}

fn requantized(
    cx: &EvalCx,
    inputs: &Inputs,
    p: &Places,
    product: &Tensor,
    after_x: usize,
    after_w: usize,
) -> Result<Vec<Tensor>> {
    let w_scale = input(inputs, p.w.map_or(NONE, |w| w[1]))?;
    let (x_scale, y_scale) = (input(inputs, p.x[1])?, input(inputs, p.y[0])?);
    let y_zero = input(inputs, p.y[1])?;
    let out = product.dims();
    let all = [(x_scale, after_x), (w_scale, after_w), (y_scale, after_x), (y_zero, after_x)].map(|(t, n)| along(t, n));
    for d in &all {
        fits(d, out)?;
    }
    let (xs, ws, ys) = (x_scale.to_f64s()?, w_scale.to_f64s()?, y_scale.to_f64s()?);
    let zeros = ints(y_zero)?;
    let mut scales = Vec::with_capacity(product.len());
    walk(out, [&all[0], &all[1], &all[2], &all[3]], |[i, j, k, z]| scales.push((xs[i] * ws[j] / ys[k], zeros[z])));
    with_num!(cx.arith, product.dtype(), T => {
        let to = y_zero.dtype();
        let y: Vec<i128> = T::load(product)?
            .into_iter()
            .zip(&scales)
            .map(|(v, &(s, z))| quantized(v * T::of(s), z, to))
            .collect();
        Ok(vec![from_ints(to, &y, out)?])
    })
}

fn cases() -> Vec<Case> {
    let f = |v: f32| Tensor::scalar(v);
    let q = |d: DType, dims: &[usize], seed: u64| {
        let values: Vec<i128> = sample::floats(dims, seed)
            .to_f64s()
            .unwrap_or_default()
            .into_iter()
            .map(|v| (v * 120.0) as i128 + if d == DType::U8 { 128 } else { 0 })
            .collect();
        from_ints(d, &values, dims).unwrap_or_else(|_| sample::ints(&[]))
    };
    let (u8s, i8s) = (|d: &[usize], s| q(DType::U8, d, s), |d: &[usize], s| q(DType::I8, d, s));
    let z = || from_ints(DType::U8, &[128], &[]).unwrap_or_else(|_| sample::ints(&[]));
    let scales = |n: usize| Tensor::from_vec(vec![0.02f32; n], &[n]).unwrap_or_else(|_| sample::ints(&[]));
    let zeros = |n: usize| from_ints(DType::I8, &vec![0; n], &[n]).unwrap_or_else(|_| sample::ints(&[]));
    let bias = from_ints(DType::I32, &[100, -100, 7, 0], &[4]).unwrap_or_else(|_| sample::ints(&[]));
    let pads = [("pads", Attr::Ints(vec![1; 4]))];
    let conv = || vec![u8s(&[1, 2, 4, 5], 1), f(0.02), z(), i8s(&[4, 2, 3, 3], 2), scales(4), zeros(4), f(0.1), z()];
    let mut with_bias = conv();
    with_bias.push(bias);
    let product = |a: &[usize], b: &[usize]| {
        vec![u8s(a, 1), f(0.02), z(), i8s(b, 2), f(0.01), from_ints(DType::I8, &[3], &[]).unwrap_or_else(|_| z()), f(0.1), z()]
    };
    let mut per_column = product(&[2, 3], &[3, 4]);
    (per_column[4], per_column[5]) = (scales(4), zeros(4));
    let ms = |name: &str, attrs: &[(&str, Attr)], inputs: Vec<Tensor>| {
        Case::new(name, attrs, inputs).domain("com.microsoft").opset(1)
    };
    let pair = |a: &[usize], b: &[usize]| vec![u8s(a, 1), f(0.02), z(), u8s(b, 2), f(0.03), z(), f(0.05), z()];
    let single = |dims: &[usize]| vec![u8s(dims, 1), f(0.02), z(), f(0.05), z()];
    vec![
        Case::new("ConvInteger", &pads, vec![u8s(&[1, 2, 4, 5], 1), u8s(&[3, 2, 3, 3], 2), z()]),
        Case::new("ConvInteger", &[], vec![u8s(&[1, 2, 4, 5], 1), u8s(&[3, 2, 3, 3], 2), z(), z()]),
        Case::new("QLinearConv", &pads, conv()),
        Case::new("QLinearConv", &[("strides", Attr::Ints(vec![2, 2]))], with_bias),
        Case::new("MatMulInteger", &[], vec![u8s(&[2, 3], 1), i8s(&[3, 4], 2)]),
        Case::new("MatMulInteger", &[], vec![u8s(&[5, 2, 3], 1), i8s(&[3, 4], 2), z(), zeros(4)]),
        Case::new("QLinearMatMul", &[], product(&[2, 3], &[3, 4])),
        Case::new("QLinearMatMul", &[], product(&[5, 2, 3], &[5, 3, 4])),
        Case::new("QLinearMatMul", &[], per_column),
        ms("QLinearAdd", &[], pair(&[2, 3], &[3])),
        ms("QLinearMul", &[], pair(&[2, 3], &[2, 1])),
        ms("QLinearSigmoid", &[], single(&[2, 3])),
        ms("QLinearLeakyRelu", &[("alpha", Attr::Float(0.1))], single(&[2, 3])),
        ms("QLinearGlobalAveragePool", &[], single(&[2, 3, 4, 4])),
        ms("QLinearGlobalAveragePool", &[("channels_last", Attr::Int(1))], single(&[2, 4, 4, 3])),
        ms(
            "QLinearConcat",
            &[("axis", Attr::Int(1))],
            vec![f(0.05), z(), u8s(&[2, 3], 1), f(0.02), z(), u8s(&[2, 1], 2), f(0.04), z()],
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dims_of_unknown_inputs_stay_unknown() {
        let fact = Fact::new(DType::U8, Shape::partial(vec![None, Some(3)]));
        let seen = Some(Input { fact: &fact, value: None });
        let y = QLinear::Sigmoid.infer(&Infer { inputs: &[seen, None, None, None, None], outputs: 1 }).unwrap();
        assert_eq!(y[0], fact);
    }
}
