//! Elementwise functions of one tensor: activations, elementary functions, rounding, tests.
//!
//! <https://onnx.ai/onnx/operators/> (each operator's own page); `com.microsoft` Gelu, FastGelu, QuickGelu, BiasGelu:
//! <https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md>.
//!
//! Cost: other FLOPs per element, as many as the formula in [`Unary::flops`] has operations; an elementary function (exp, erf,
//! sqrt …) is one. Relu 1, Clip 1 per bound (ReLU6: 2), Sigmoid 4, Swish 5, HardSigmoid 4, HardSwish 5, Gelu 5 (tanh form 8).
//! IsNaN, IsInf, Not, BitwiseNot and everything on integers are free.

use super::elements::{from_ints, int_range, ints};
use super::spec::{Attr, NodeSpec};
use super::{Case, Charge, CostCx, Entry, EvalCx, Family, Infer, Inputs, Op, Role, input, opt, sample};
use crate::cost::Work;
use crate::error::{Error, Result};
use crate::tensor::{DType, Fact, Num, Tensor, is_num};
use crate::with_num;

const fn entry(name: &'static str) -> Entry {
    Entry { domain: "", name, parse: Unary::parse, cases }
}
const fn contrib(name: &'static str) -> Entry {
    Entry { domain: "com.microsoft", name, parse: Unary::parse, cases }
}

/// The family's table rows.
pub const ENTRIES: &[Entry] = &[
    entry("Abs"),
    entry("Acos"),
    entry("Acosh"),
    entry("Asin"),
    entry("Asinh"),
    entry("Atan"),
    entry("Atanh"),
    entry("BitwiseNot"),
    entry("Ceil"),
    entry("Celu"),
    entry("Clip"),
    entry("Cos"),
    entry("Cosh"),
    entry("Elu"),
    entry("Erf"),
    entry("Exp"),
    entry("Floor"),
    entry("Gelu"),
    entry("HardSigmoid"),
    entry("HardSwish"),
    entry("IsInf"),
    entry("IsNaN"),
    entry("LeakyRelu"),
    entry("Log"),
    entry("Mish"),
    entry("Neg"),
    entry("Not"),
    entry("Reciprocal"),
    entry("Relu"),
    entry("Round"),
    entry("Selu"),
    entry("Shrink"),
    entry("Sigmoid"),
    entry("Sign"),
    entry("Sin"),
    entry("Sinh"),
    entry("Softplus"),
    entry("Softsign"),
    entry("Sqrt"),
    entry("Swish"),
    entry("Tan"),
    entry("Tanh"),
    entry("ThresholdedRelu"),
    contrib("BiasGelu"),
    contrib("FastGelu"),
    contrib("Gelu"),
    contrib("QuickGelu"),
];

/// A function applied to each element.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Unary {
    /// One elementary function.
    Elementary(Elementary),
    /// −x.
    Neg,
    /// 1/x.
    Reciprocal,
    /// max(x, 0).
    Relu,
    /// x where positive, αx elsewhere.
    LeakyRelu(f32),
    /// x where positive, α(eˣ − 1) elsewhere.
    Elu(f32),
    /// γx where positive, γ(αeˣ − α) elsewhere.
    Selu {
        /// α
        alpha: f32,
        /// γ
        gamma: f32,
    },
    /// max(0, x) + min(0, α(e^(x/α) − 1)).
    Celu(f32),
    /// x where above α, 0 elsewhere.
    ThresholdedRelu(f32),
    /// max(0, min(1, αx + β)).
    HardSigmoid {
        /// α
        alpha: f32,
        /// β
        beta: f32,
    },
    /// x · max(0, min(1, x/6 + 1/2)).
    HardSwish,
    /// 1/(1 + e⁻ˣ).
    Sigmoid,
    /// x · sigmoid(αx); also QuickGelu.
    Swish(f32),
    /// ln(1 + eˣ), computed as max(x, 0) + ln(1 + e^−|x|).
    Softplus,
    /// x/(1 + |x|).
    Softsign,
    /// x · tanh(softplus(x)).
    Mish,
    /// x/2 · (1 + erf(x/√2)); a bias may be added first.
    Gelu,
    /// The tanh approximation of Gelu; a bias may be added first.
    GeluTanh,
    /// min(max(x, low), high) with bounds from attributes (before opset 11) or inputs 1 and 2.
    Clip {
        /// Lower bound as an attribute.
        low: Option<f32>,
        /// Upper bound as an attribute.
        high: Option<f32>,
    },
    /// x + bias below −λ, x − bias above λ, 0 between.
    Shrink {
        /// Bias.
        bias: f32,
        /// λ
        lambda: f32,
    },
    /// Logical not.
    Not,
    /// Bitwise not.
    BitwiseNot,
    /// Whether it is not a number.
    IsNan,
    /// Whether it is infinite.
    IsInf {
        /// +∞ counts.
        positive: bool,
        /// −∞ counts.
        negative: bool,
    },
}

/// Elementary functions: one FLOP each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the functions")]
pub enum Elementary {
    Abs,
    Acos,
    Acosh,
    Asin,
    Asinh,
    Atan,
    Atanh,
    Ceil,
    Cos,
    Cosh,
    Erf,
    Exp,
    Floor,
    Log,
    Round,
    Sign,
    Sin,
    Sinh,
    Sqrt,
    Tan,
    Tanh,
}

impl Elementary {
    /// The function.
    pub fn function(self) -> fn(f64) -> f64 {
        match self {
            Elementary::Abs => f64::abs,
            Elementary::Acos => f64::acos,
            Elementary::Acosh => f64::acosh,
            Elementary::Asin => f64::asin,
            Elementary::Asinh => f64::asinh,
            Elementary::Atan => f64::atan,
            Elementary::Atanh => f64::atanh,
            Elementary::Ceil => f64::ceil,
            Elementary::Cos => f64::cos,
            Elementary::Cosh => f64::cosh,
            Elementary::Erf => libm::erf,
            Elementary::Exp => f64::exp,
            Elementary::Floor => f64::floor,
            Elementary::Log => f64::ln,
            Elementary::Round => f64::round_ties_even,
            // Zero (of either sign) and NaN are their own sign.
            Elementary::Sign => |v| if v > 0.0 { 1.0 } else if v < 0.0 { -1.0 } else { v },
            Elementary::Sin => f64::sin,
            Elementary::Sinh => f64::sinh,
            Elementary::Sqrt => f64::sqrt,
            Elementary::Tan => f64::tan,
            Elementary::Tanh => f64::tanh,
        }
    }
}

impl Unary {
    fn parse(node: &NodeSpec) -> Result<Op> {
        let max_inputs = match node.op_type.as_str() {
            "Clip" => 3,
            "FastGelu" | "BiasGelu" => 2,
            _ => 1,
        };
        node.expect_inputs(if node.op_type == "BiasGelu" { 2 } else { 1 }, max_inputs)?;
        let alpha = |default: f32| node.float("alpha", default);
        use Elementary as E;
        let one = Unary::Elementary;
        Ok(Op::Unary(match node.op_type.as_str() {
            "Abs" => one(E::Abs),
            "Acos" => one(E::Acos),
            "Acosh" => one(E::Acosh),
            "Asin" => one(E::Asin),
            "Asinh" => one(E::Asinh),
            "Atan" => one(E::Atan),
            "Atanh" => one(E::Atanh),
            "Ceil" => one(E::Ceil),
            "Cos" => one(E::Cos),
            "Cosh" => one(E::Cosh),
            "Erf" => one(E::Erf),
            "Exp" => one(E::Exp),
            "Floor" => one(E::Floor),
            "Log" => one(E::Log),
            "Round" => one(E::Round),
            "Sign" => one(E::Sign),
            "Sin" => one(E::Sin),
            "Sinh" => one(E::Sinh),
            "Sqrt" => one(E::Sqrt),
            "Tan" => one(E::Tan),
            "Tanh" => one(E::Tanh),
            "Neg" => Unary::Neg,
            "Reciprocal" => Unary::Reciprocal,
            "Relu" => Unary::Relu,
            "LeakyRelu" => Unary::LeakyRelu(alpha(0.01)?),
            "Elu" => Unary::Elu(alpha(1.0)?),
            "Selu" => Unary::Selu { alpha: alpha(1.673_263_2)?, gamma: node.float("gamma", 1.050_701)? },
            "Celu" => Unary::Celu(alpha(1.0)?),
            "ThresholdedRelu" => Unary::ThresholdedRelu(alpha(1.0)?),
            "HardSigmoid" => Unary::HardSigmoid { alpha: alpha(0.2)?, beta: node.float("beta", 0.5)? },
            "HardSwish" => Unary::HardSwish,
            "Sigmoid" => Unary::Sigmoid,
            "Swish" => Unary::Swish(alpha(1.0)?),
            "QuickGelu" => Unary::Swish(alpha(1.702)?),
            "Softplus" => Unary::Softplus,
            "Softsign" => Unary::Softsign,
            "Mish" => Unary::Mish,
            "FastGelu" => Unary::GeluTanh,
            "BiasGelu" => Unary::Gelu,
            "Gelu" => match node.str("approximate", "none")? {
                "none" => Unary::Gelu,
                "tanh" => Unary::GeluTanh,
                other => {
                    return Err(Error::input(format!("'{other}' is neither none nor tanh")).at_attribute("approximate"));
                }
            },
            "Clip" => Unary::Clip { low: node.opt_float("min")?, high: node.opt_float("max")? },
            "Shrink" => Unary::Shrink { bias: node.float("bias", 0.0)?, lambda: node.float("lambd", 0.5)? },
            "Not" => Unary::Not,
            "BitwiseNot" => Unary::BitwiseNot,
            "IsNaN" => Unary::IsNan,
            "IsInf" => Unary::IsInf {
                positive: node.flag("detect_positive", true)?,
                negative: node.flag("detect_negative", true)?,
            },
            other => return Err(Error::unsupported(format!("{other} is not an elementwise function"))),
        }))
    }

    /// FLOPs per element of floating-point data, without bounds and biases that are given as inputs.
    pub fn flops(&self) -> u64 {
        match self {
            Unary::Elementary(_) | Unary::Neg | Unary::Reciprocal | Unary::Relu | Unary::ThresholdedRelu(_) => 1,
            Unary::LeakyRelu(_) => 2,
            Unary::Softsign => 3,
            Unary::Elu(_) | Unary::HardSigmoid { .. } | Unary::Sigmoid | Unary::Shrink { .. } => 4,
            Unary::Selu { .. } | Unary::HardSwish | Unary::Softplus | Unary::Gelu => 5,
            Unary::Swish(alpha) => 5 + u64::from(*alpha != 1.0),
            Unary::Celu(_) | Unary::Mish => 7,
            Unary::GeluTanh => 8,
            Unary::Clip { low, high } => u64::from(low.is_some()) + u64::from(high.is_some()),
            Unary::Not | Unary::BitwiseNot | Unary::IsNan | Unary::IsInf { .. } => 0,
        }
    }

    fn is_test(&self) -> bool {
        matches!(self, Unary::Not | Unary::IsNan | Unary::IsInf { .. })
    }

    /// The function on floating-point data (bounds and biases of inputs aside).
    pub fn floats<T: Num>(&self, x: Vec<T>) -> Vec<T> {
        fn map<T>(x: Vec<T>, f: impl Fn(T) -> T) -> Vec<T> {
            x.into_iter().map(f).collect()
        }
        let (zero, one) = (T::zero(), T::of(1.0));
        let c = |v: f32| T::of(v.into());
        match *self {
            Unary::Elementary(e) => {
                let f = e.function();
                map(x, |v| v.apply(f))
            }
            Unary::Neg => map(x, |v| -v),
            Unary::Reciprocal => map(x, |v| one / v),
            Unary::Relu => map(x, |v| v.max_nan(zero)),
            Unary::LeakyRelu(alpha) => map(x, |v| {
                let scaled = v * c(alpha);
                if zero.gt(v) { scaled } else { v }
            }),
            Unary::Elu(alpha) => map(x, |v| {
                let below = c(alpha) * (v.exp() - one);
                if zero.gt(v) { below } else { v }
            }),
            Unary::Selu { alpha, gamma } => map(x, |v| {
                let below = c(alpha) * v.exp() - c(alpha);
                c(gamma) * if zero.gt(v) { below } else { v }
            }),
            Unary::Celu(alpha) => {
                map(x, |v| zero.max_nan(v) + zero.min_nan(c(alpha) * ((v / c(alpha)).exp() - one)))
            }
            Unary::ThresholdedRelu(alpha) => map(x, |v| if v.gt(c(alpha)) { v } else { zero }),
            Unary::HardSigmoid { alpha, beta } => {
                map(x, |v| (v * c(alpha) + c(beta)).min_nan(one).max_nan(zero))
            }
            Unary::HardSwish => {
                map(x, |v| v * (v * T::of(1.0 / 6.0) + T::of(0.5)).min_nan(one).max_nan(zero))
            }
            Unary::Sigmoid => map(x, sigmoid),
            Unary::Swish(alpha) => {
                map(x, |v| v * sigmoid(if alpha == 1.0 { v } else { v * c(alpha) }))
            }
            Unary::Softplus => map(x, softplus),
            Unary::Softsign => map(x, |v| v / (one + v.apply(f64::abs))),
            Unary::Mish => map(x, |v| v * softplus(v).tanh()),
            Unary::Gelu => map(x, gelu),
            Unary::GeluTanh => map(x, gelu_tanh),
            Unary::Clip { low, high } => map(x, |v| {
                let v = low.map_or(v, |low| v.max_nan(c(low)));
                high.map_or(v, |high| v.min_nan(c(high)))
            }),
            Unary::Shrink { bias, lambda } => map(x, |v| {
                let (up, down) = (v + c(bias), v - c(bias));
                match (c(-lambda).gt(v), v.gt(c(lambda))) {
                    (true, _) => up,
                    (_, true) => down,
                    _ => zero,
                }
            }),
            Unary::Not | Unary::BitwiseNot | Unary::IsNan | Unary::IsInf { .. } => x,
        }
    }

    /// The function on integers, where the standard has one; results wrap.
    fn integers(&self, x: Vec<i128>, dtype: DType) -> Result<Vec<i128>> {
        let f: Box<dyn Fn(i128) -> i128> = match *self {
            Unary::Elementary(Elementary::Abs) => Box::new(i128::abs),
            Unary::Elementary(Elementary::Sign) => Box::new(i128::signum),
            // Already whole.
            Unary::Elementary(Elementary::Ceil | Elementary::Floor | Elementary::Round) => Box::new(|v| v),
            Unary::Neg => Box::new(|v| -v),
            Unary::Relu => Box::new(|v| v.max(0)),
            Unary::BitwiseNot => Box::new(|v| !v),
            Unary::Shrink { bias, lambda } => Box::new(move |v| {
                let f = v as f64;
                let bias = f64::from(bias);
                (if f < -f64::from(lambda) {
                    f + bias
                } else if f > lambda.into() {
                    f - bias
                } else {
                    0.0
                }) as i128
            }),
            Unary::Clip { low, high } => {
                let (min, max) = int_range(dtype).unwrap_or((i128::MIN, i128::MAX));
                let low = low.map_or(min, |v| v as i128);
                let high = high.map_or(max, |v| v as i128);
                Box::new(move |v| v.max(low).min(high))
            }
            _ => return Err(Error::input(format!("is not defined for {dtype}"))),
        };
        Ok(x.into_iter().map(f).collect())
    }
}

fn add_bias<T: Num>(row: &mut [T], bias: &[T]) {
    for (v, &b) in row.iter_mut().zip(bias) {
        *v = *v + b;
    }
}

/// 1/(1 + e⁻ˣ): 4 FLOPs.
pub fn sigmoid<T: Num>(v: T) -> T {
    T::of(1.0) / (T::of(1.0) + (-v).exp())
}

/// ln(1 + eˣ) without overflow: 5 FLOPs.
pub fn softplus<T: Num>(v: T) -> T {
    v.max_nan(T::zero()) + v.apply(|v| -v.abs()).exp().apply(f64::ln_1p)
}

/// x/2 · (1 + erf(x/√2)): 5 FLOPs.
pub fn gelu<T: Num>(v: T) -> T {
    let erf = (v * T::of(std::f64::consts::FRAC_1_SQRT_2)).apply(libm::erf);
    v * T::of(0.5) * (T::of(1.0) + erf)
}

/// x/2 · (1 + tanh(x·(√(2/π) + 0.044715·√(2/π)·x²))): 8 FLOPs.
pub fn gelu_tanh<T: Num>(v: T) -> T {
    let c = (2.0 / std::f64::consts::PI).sqrt();
    let inner = v * (T::of(c) + T::of(0.044715 * c) * (v * v));
    v * T::of(0.5) * (T::of(1.0) + inner.tanh())
}

impl Family for Unary {
    fn infer(&self, cx: &Infer) -> Result<Vec<Fact>> {
        let x = cx.fact(0)?;
        Ok(vec![if self.is_test() { x.with_dtype(DType::Bool) } else { x.clone() }])
    }
    fn charge(&self, cx: &CostCx) -> Charge {
        let Some(dtype) = cx.dtype(0) else { return Charge::Unknown };
        if !dtype.is_float() {
            return Charge::FREE;
        }
        let given = u64::from(cx.has(1)) + u64::from(cx.has(2));
        Charge::of((|| Some(Work::other(cx.elements(0)?.checked_mul(self.flops() + given)?)))())
    }
    fn eval(&self, cx: &EvalCx, inputs: &Inputs) -> Result<Vec<Tensor>> {
        let x = input(inputs, 0)?;
        match self {
            Unary::Not => {
                return Ok(vec![Tensor::from_bools(x.view::<u8>()?.iter().map(|&v| v == 0), x.dims())?]);
            }
            Unary::IsNan => {
                return Ok(vec![Tensor::from_bools(x.to_f64s()?.into_iter().map(f64::is_nan), x.dims())?]);
            }
            Unary::IsInf { positive, negative } => {
                let test = |v: f64| (v == f64::INFINITY && *positive) || (v == f64::NEG_INFINITY && *negative);
                return Ok(vec![Tensor::from_bools(x.to_f64s()?.into_iter().map(test), x.dims())?]);
            }
            _ => {}
        }
        if !is_num(x.dtype()) {
            let mut y = self.integers(ints(x)?, x.dtype())?;
            for (i, bound) in [(1, i128::max as fn(i128, i128) -> i128), (2, i128::min)] {
                if let Some(t) = opt(inputs, i) {
                    let b = *ints(t)?.first().ok_or_else(|| Error::input("an empty bound"))?;
                    y.iter_mut().for_each(|v| *v = bound(*v, b));
                }
            }
            return Ok(vec![from_ints(x.dtype(), &y, x.dims())?]);
        }
        with_num!(cx.arith, x.dtype(), T => {
            let mut values = T::load(x)?;
            if let Unary::Clip { .. } = self {
                for (i, bound) in [(1, T::max_nan as fn(T, T) -> T), (2, T::min_nan)] {
                    if let Some(t) = opt(inputs, i) {
                        let b = *T::load(t)?.first().ok_or_else(|| Error::input("an empty bound"))?;
                        values.iter_mut().for_each(|v| *v = bound(*v, b));
                    }
                }
            } else if let Some(bias) = opt(inputs, 1) {
                let bias = T::load(bias)?;
                if bias.is_empty() || x.dims().last() != Some(&bias.len()) {
                    return Err(Error::input(format!("a bias of {} elements on {}", bias.len(), x.fact())));
                }
                for row in values.chunks_mut(bias.len()) {
                    add_bias(row, &bias);
                }
            }
            Ok(vec![T::store(self.floats(values), x.dims())?])
        })
    }
    fn role(&self, i: usize) -> Role {
        match (i, self) {
            (0, _) => Role::Data,
            (_, Unary::Clip { .. }) => Role::Setting,
            _ => Role::Weight,
        }
    }
}

fn cases() -> Vec<Case> {
    let f = sample::floats;
    let mut all = Vec::new();
    for e in ENTRIES.iter().filter(|e| e.domain.is_empty()) {
        let x = match e.name {
            "Not" => Tensor::from_bools([true, false, true], &[3]),
            "BitwiseNot" => Ok(sample::ints(&[0, -1, 7])),
            _ => Ok(f(&[2, 3, 5], 1)),
        };
        all.extend(x.into_iter().map(|x| Case::new(e.name, &[], vec![x])));
        let x = if matches!(e.name, "Not" | "BitwiseNot") { continue } else { f(&[], 3) };
        all.push(Case::new(e.name, &[], vec![x]));
        all.extend(f(&[0, 2], 1).narrowed(DType::BF16, true).into_iter().map(|x| Case::new(e.name, &[], vec![x])));
    }
    let num = |name: &'static str, v: f32| (name, Attr::Float(v));
    let bound = |v: f32| Some(Tensor::scalar(v));
    let ms = |name: &str, inputs: Vec<Tensor>| Case::new(name, &[], inputs).domain("com.microsoft").opset(1);
    all.extend([
        Case::new("LeakyRelu", &[num("alpha", 0.3)], vec![f(&[7], 1)]),
        Case::new("HardSigmoid", &[num("alpha", 0.5), num("beta", 0.1)], vec![f(&[7], 1)]),
        Case::new("Celu", &[num("alpha", 2.0)], vec![f(&[7], 1)]),
        Case::new("Swish", &[num("alpha", 1.5)], vec![f(&[7], 1)]),
        Case::new("Shrink", &[num("bias", 0.1), num("lambd", 0.2)], vec![f(&[7], 1)]),
        Case::new("Gelu", &[("approximate", Attr::Str("tanh".into()))], vec![f(&[7], 1)]),
        Case::new("IsInf", &[("detect_negative", Attr::Int(0))], vec![f(&[7], 1)]),
        Case::new("Clip", &[num("min", 0.0), num("max", 6.0)], vec![f(&[7], 1)]).opset(6),
        Case::with_optional("Clip", &[], vec![Some(f(&[7], 1)), bound(-0.5), bound(0.5)], 1),
        Case::with_optional("Clip", &[], vec![Some(f(&[7], 1)), None, bound(0.5)], 1),
        Case::with_optional("Clip", &[], vec![Some(sample::ints(&[-5, 5])), Some(Tensor::scalar(0i64)), None], 1),
        Case::new("Abs", &[], vec![sample::ints(&[i64::MIN, 3])]),
        Case::new("Neg", &[], vec![sample::ints(&[i64::MIN, 3])]),
        Case::new("Sign", &[], vec![sample::ints(&[-3, 0, 3])]),
        Case::new("Relu", &[], vec![sample::ints(&[-3, 0, 3])]),
        Case::new("Shrink", &[num("lambd", 1.5)], vec![sample::ints(&[-3, 0, 3])]),
        ms("Gelu", vec![f(&[2, 3], 1)]),
        ms("QuickGelu", vec![f(&[2, 3], 1)]),
        ms("FastGelu", vec![f(&[2, 3], 1)]),
        ms("FastGelu", vec![f(&[2, 3], 1), f(&[3], 2)]),
        ms("BiasGelu", vec![f(&[2, 3], 1), f(&[3], 2)]),
    ]);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn activations_at_their_edges() {
        let y = Unary::Softplus.floats(vec![1000f32, -1000.0, 0.0]);
        assert_eq!(y, [1000.0, 0.0, std::f32::consts::LN_2]);
        assert!(Unary::Relu.floats(vec![f32::NAN])[0].is_nan());
        assert_eq!(Unary::Gelu.floats(vec![0.0f32, -40.0]), [0.0, 0.0]);
        assert_eq!(Unary::Elementary(Elementary::Round).floats(vec![0.5f32, 1.5, -2.5]), [0.0, 2.0, -2.0]);
    }
}
