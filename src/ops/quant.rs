//! QuantizeLinear, DequantizeLinear, DynamicQuantizeLinear.
//!
//! <https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html>, <https://onnx.ai/onnx/operators/onnx__DequantizeLinear.html>,
//! <https://onnx.ai/onnx/operators/onnx__DynamicQuantizeLinear.html>; the `com.microsoft` forms mean the same.
//!
//! Cost in other FLOPs per element: quantise 2 to integers (divide, round), 1 to narrow floats (divide); dequantise 1 (multiply).
//! DynamicQuantizeLinear `4n + 5` (maximum, minimum, divide, round per element; scale and zero point once). Zero points are
//! integers and free.

use super::cast::cast;
use super::dims;
use super::elements::{from_ints, int_range, ints};
use super::spec::{Attr, NodeSpec};
use super::{Case, Charge, CostCx, Entry, EvalCx, Family, Infer, Inputs, Op, Role, input, opt, sample};
use crate::cost::Work;
use crate::error::{Error, Result};
use crate::tensor::{DType, Fact, Num, Shape, Tensor};
use crate::with_num;

/// The family's table rows.
pub const ENTRIES: &[Entry] = &[
    Entry { domain: "", name: "QuantizeLinear", parse: Quant::quantize, cases },
    Entry { domain: "", name: "DequantizeLinear", parse: Quant::dequantize, cases },
    Entry { domain: "", name: "DynamicQuantizeLinear", parse: Quant::dynamic, cases },
    Entry { domain: "com.microsoft", name: "QuantizeLinear", parse: Quant::quantize, cases },
    Entry { domain: "com.microsoft", name: "DequantizeLinear", parse: Quant::dequantize, cases },
];

/// A change between real numbers and quantised ones.
#[derive(Debug, Clone)]
pub enum Quant {
    /// `saturate(round(x / scale) + zero point)`.
    Quantize {
        /// How scales lie.
        layout: Layout,
        /// Output type when no zero point tells it.
        to: Option<DType>,
        /// Whether values too large for an 8-bit float become its largest value.
        saturate: bool,
    },
    /// `(x − zero point) · scale`.
    Dequantize {
        /// How scales lie.
        layout: Layout,
        /// Output type; the scale's if not given.
        to: Option<DType>,
    },
    /// Quantises to `uint8` with a scale and zero point taken from the data.
    Dynamic,
}

/// How scales and zero points are spread over a tensor, as written.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    /// Axis of per-axis and blocked scales.
    pub axis: i64,
    /// Elements of that axis per scale; 0 when not blocked.
    pub block: usize,
}

/// A layout for concrete dims: which scale an element uses.
#[derive(Debug, Clone, Copy)]
enum Spread {
    Whole,
    Axis { d: usize, inner: usize },
    Block { d: usize, inner: usize, block: usize, blocks: usize },
}

impl Layout {
    fn parse(node: &NodeSpec) -> Result<Layout> {
        Ok(Layout { axis: node.int("axis", 1)?, block: node.opt_size("block_size")?.unwrap_or(0) })
    }

    fn spread(&self, x: &[usize], scale: &Tensor) -> Result<Spread> {
        let s = scale.dims();
        let unfit = || Error::input(format!("scales {} do not fit a tensor {}", scale.fact(), Shape::known(x)));
        if scale.len() == 1 && self.block == 0 {
            return Ok(Spread::Whole);
        }
        let a = dims::axis(self.axis, x.len())?;
        let (d, inner) = (x[a], x[a + 1..].iter().product());
        if self.block == 0 {
            return if s.len() == 1 && s[0] == d { Ok(Spread::Axis { d, inner }) } else { Err(unfit()) };
        }
        let fits = s.len() == x.len()
            && (0..x.len()).all(|i| s[i] == if i == a { d.div_ceil(self.block) } else { x[i] });
        if fits { Ok(Spread::Block { d, inner, block: self.block, blocks: s[a] }) } else { Err(unfit()) }
    }
}

impl Spread {
    fn at(self, i: usize) -> usize {
        match self {
            Spread::Whole => 0,
            Spread::Axis { d, inner } => i / inner % d,
            Spread::Block { d, inner, block, blocks } => {
                (i / (inner * d) * blocks + i / inner % d / block) * inner + i % inner
            }
        }
    }
}

impl Quant {
    fn quantize(node: &NodeSpec) -> Result<Op> {
        node.expect_inputs(2, 3)?;
        let to = node.opt_int("output_dtype")?.filter(|&d| d != 0);
        let to = if to.is_some() { node.opt_dtype("output_dtype")? } else { None };
        Ok(Op::Quant(Quant::Quantize { layout: Layout::parse(node)?, to, saturate: node.flag("saturate", true)? }))
    }
    fn dequantize(node: &NodeSpec) -> Result<Op> {
        node.expect_inputs(2, 3)?;
        let to = node.opt_int("output_dtype")?.filter(|&d| d != 0);
        let to = if to.is_some() { node.opt_dtype("output_dtype")? } else { None };
        Ok(Op::Quant(Quant::Dequantize { layout: Layout::parse(node)?, to }))
    }
    fn dynamic(node: &NodeSpec) -> Result<Op> {
        node.expect_inputs(1, 1)?;
        Ok(Op::Quant(Quant::Dynamic))
    }
}

/// A quantised integer: rounded to nearest even, shifted, saturated.
pub(super) fn quantized<T: Num>(v: T, zero: i128, dtype: DType) -> i128 {
    let (min, max) = int_range(dtype).unwrap_or((0, 0));
    (v.apply(f64::round_ties_even).get() as i128).saturating_add(zero).clamp(min, max)
}

/// Values of any numeric type as exact numbers to compute with.
pub(super) fn numbers(t: &Tensor) -> Result<Vec<f64>> {
    t.to_f64s()
}

impl Family for Quant {
    fn infer(&self, cx: &Infer) -> Result<Vec<Fact>> {
        let x = cx.fact(0)?;
        Ok(match self {
            Quant::Quantize { to, .. } => {
                let dtype = match cx.opt(2) {
                    Some(zero) => zero.fact.dtype,
                    None => Some(to.unwrap_or(DType::U8)),
                };
                vec![Fact { dtype, ..x.clone() }]
            }
            Quant::Dequantize { to, .. } => vec![Fact { dtype: to.or(cx.fact(1)?.dtype), ..x.clone() }],
            Quant::Dynamic => {
                vec![x.with_dtype(DType::U8), Fact::of(DType::F32, &[]), Fact::of(DType::U8, &[])]
            }
        })
    }
    fn charge(&self, cx: &CostCx) -> Charge {
        Charge::of((|| {
            let n = cx.elements(0)?;
            let flops = match self {
                Quant::Quantize { .. } => {
                    let to = cx.outputs.first().copied().flatten()?.dtype?;
                    n.checked_mul(if to.is_float() { 1 } else { 2 })?
                }
                Quant::Dequantize { .. } => n,
                Quant::Dynamic => n.checked_mul(4)?.checked_add(5)?,
            };
            Some(Work::other(flops))
        })())
    }
    fn eval(&self, cx: &EvalCx, inputs: &Inputs) -> Result<Vec<Tensor>> {
        let x = input(inputs, 0)?;
        with_num!(cx.arith, DType::F32, T => {
            match self {
                Quant::Quantize { layout, to, saturate } => {
                    let (scale, zero) = (input(inputs, 1)?, opt(inputs, 2));
                    let to = zero.map(Tensor::dtype).or(*to).unwrap_or(DType::U8);
                    let spread = layout.spread(x.dims(), scale)?;
                    let scales = numbers(scale)?;
                    let values = numbers(x)?;
                    let scaled = values.iter().enumerate().map(|(i, &v)| T::of(v) / T::of(scales[spread.at(i)]));
                    if to.is_float() {
                        let y = scaled.map(|v| v.get() as f32).collect();
                        return Ok(vec![cast(&Tensor::from_vec(y, x.dims())?, to, *saturate)?]);
                    }
                    let zeros = zero_points(zero, scales.len())?;
                    let y: Vec<i128> =
                        scaled.enumerate().map(|(i, v)| quantized(v, zeros[spread.at(i)], to)).collect();
                    Ok(vec![from_ints(to, &y, x.dims())?])
                }
                Quant::Dequantize { layout, to } => {
                    let scale = input(inputs, 1)?;
                    let spread = layout.spread(x.dims(), scale)?;
                    let scales = numbers(scale)?;
                    // Zero points of narrow floats are zero by the standard.
                    let zeros = match opt(inputs, 2) {
                        Some(z) if z.dtype().is_float() => vec![0; scales.len()],
                        z => zero_points(z, scales.len())?,
                    };
                    let one = |(i, v): (usize, f64)| {
                        let at = spread.at(i);
                        (T::of(v - zeros[at] as f64) * T::of(scales[at])).get() as f32
                    };
                    let y: Vec<f32> = numbers(x)?.into_iter().enumerate().map(one).collect();
                    Ok(vec![cast(&Tensor::from_vec(y, x.dims())?, to.unwrap_or(scale.dtype()), true)?])
                }
                Quant::Dynamic => {
                    let v = T::load(x)?;
                    let top = v.iter().fold(T::zero(), |a, &v| a.max_nan(v));
                    let bottom = v.iter().fold(T::zero(), |a, &v| a.min_nan(v));
                    let scale = (top - bottom) / T::of(255.0);
                    // All zeros: any scale will do.
                    let scale = if scale == T::zero() { T::of(1.0) } else { scale };
                    let zero = quantized(T::zero() - bottom / scale, 0, DType::U8);
                    let y: Vec<i128> = v.iter().map(|&v| quantized(v / scale, zero, DType::U8)).collect();
                    Ok(vec![
                        from_ints(DType::U8, &y, x.dims())?,
                        T::store(vec![scale], &[])?,
                        from_ints(DType::U8, &[zero], &[])?,
                    ])
                }
            }
        })
    }
    fn role(&self, i: usize) -> Role {
        match (self, i) {
            (Quant::Dequantize { .. }, 0) => Role::Weight,
            (_, 0) => Role::Data,
            _ => Role::Setting,
        }
    }
    fn handles_narrow(&self) -> bool {
        true
    }
}

/// Zero points, one per scale; zeros if not given.
fn zero_points(t: Option<&Tensor>, n: usize) -> Result<Vec<i128>> {
    match t {
        None => Ok(vec![0; n]),
        Some(t) if t.len() == n => ints(t),
        Some(t) => Err(Error::input(format!("{} zero points for {n} scales", t.len()))),
    }
}

fn cases() -> Vec<Case> {
    let f = sample::floats;
    let s = |v: &[f32], dims: &[usize]| Tensor::from_vec(v.to_vec(), dims).unwrap_or_else(|_| f(dims, 1));
    let z = |d: DType, v: &[i128], dims: &[usize]| from_ints(d, v, dims).unwrap_or_else(|_| f(dims, 1));
    let int = |name: &'static str, v: i64| (name, Attr::Int(v));
    let zeros = |d: DType| Tensor::zeros(d, &[]).unwrap_or_else(|_| f(&[], 1));
    let half = |d: &[usize]| f(d, 3).narrowed(DType::F16, true).unwrap_or_else(|_| f(d, 3));
    let u8s = z(DType::U8, &[0, 1, 128, 254, 255, 7], &[2, 3]);
    let mut all = vec![
        Case::new("QuantizeLinear", &[], vec![f(&[2, 3], 1), s(&[0.01], &[]), z(DType::U8, &[128], &[])]),
        Case::new("QuantizeLinear", &[], vec![f(&[2, 3], 1), s(&[0.01], &[])]),
        Case::new("QuantizeLinear", &[int("axis", -1)], vec![f(&[2, 3], 1), s(&[0.1, 0.2, 0.3], &[3]), z(DType::I8, &[0; 3], &[3])]),
        Case::new("QuantizeLinear", &[int("block_size", 2)], vec![f(&[2, 3], 1), s(&[0.1; 4], &[2, 2]), z(DType::I4, &[0; 4], &[2, 2])]),
        Case::new("QuantizeLinear", &[int("output_dtype", 5)], vec![f(&[2, 0], 1), s(&[0.1], &[])]),
        Case::new("QuantizeLinear", &[], vec![half(&[2, 3]), half(&[]), z(DType::U16, &[9], &[])]),
        Case::new("QuantizeLinear", &[], vec![f(&[2, 3], 1), s(&[0.5], &[]), zeros(DType::F8E4M3FN)]),
        Case::new("DequantizeLinear", &[], vec![u8s.clone(), s(&[0.01], &[]), z(DType::U8, &[128], &[])]),
        Case::new("DequantizeLinear", &[int("axis", 0)], vec![u8s.clone(), half(&[2])]),
        Case::new("DequantizeLinear", &[int("block_size", 2), int("axis", 1)], vec![u8s.clone(), s(&[0.1; 4], &[2, 2])]),
        Case::new("DequantizeLinear", &[], vec![sample_i32(&[5, -5]), s(&[0.1], &[])]),
        Case::with_optional("DynamicQuantizeLinear", &[], vec![Some(f(&[2, 3], 1))], 3),
        Case::with_optional("DynamicQuantizeLinear", &[], vec![Some(f(&[0], 1))], 3),
        Case::new("QuantizeLinear", &[], vec![f(&[2, 3], 1), s(&[0.01], &[])]).domain("com.microsoft"),
        Case::new("DequantizeLinear", &[], vec![u8s, s(&[0.01], &[])]).domain("com.microsoft"),
    ];
    if let Ok(t) = f(&[2, 3], 1).narrowed(DType::F8E5M2, true) {
        all.push(Case::new("DequantizeLinear", &[], vec![t, s(&[0.5], &[]), zeros(DType::F8E5M2)]));
    }
    all
}

fn sample_i32(v: &[i128]) -> Tensor {
    from_ints(DType::I32, v, &[v.len()]).unwrap_or_else(|_| sample::ints(&[]))
}
