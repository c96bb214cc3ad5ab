//! Cast, CastLike, BitCast, Identity: the same values, perhaps in another type.
//!
//! <https://onnx.ai/onnx/operators/onnx__Cast.html>, <https://onnx.ai/onnx/operators/onnx__CastLike.html>,
//! <https://onnx.ai/onnx/operators/onnx__BitCast.html>, <https://onnx.ai/onnx/operators/onnx__Identity.html>.
//!
//! Cost: nothing; a cast is data movement. Identity and BitCast are views.

use super::elements::{from_ints, ints};
use super::spec::{Attr, NodeSpec};
use super::{Access, Case, Charge, CostCx, Entry, EvalCx, Family, Infer, Inputs, Op, Role, input, sample};
use crate::error::{Error, Result};
use crate::tensor::{DType, Fact, Tensor};

/// The family's table rows.
pub const ENTRIES: &[Entry] = &[
    Entry { domain: "", name: "Cast", parse: Cast::cast, cases },
    Entry { domain: "", name: "CastLike", parse: Cast::cast_like, cases },
    Entry { domain: "", name: "BitCast", parse: Cast::bit_cast, cases },
    Entry { domain: "", name: "Identity", parse: Cast::identity, cases },
];

/// How a float is rounded to the exponent-only type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rounding {
    /// To the next power of two.
    Up,
    /// To the previous power of two.
    Down,
    /// To the nearest, ties to the even exponent code.
    Nearest,
}

/// An operator that passes its input on.
#[derive(Debug, Clone)]
pub enum Cast {
    /// Converts values; `to` is input 1's type if not given (CastLike).
    Cast {
        /// Target type.
        to: Option<DType>,
        /// Whether values too large for an 8-bit float become its largest value.
        saturate: bool,
        /// Rounding to `float8e8m0`.
        rounding: Rounding,
    },
    /// Reinterprets bits.
    Bits(DType),
    /// Identity.
    Identity,
}

impl Cast {
    fn conversion(node: &NodeSpec, to: Option<DType>) -> Result<Op> {
        let rounding = match node.str("round_mode", "up")? {
            "up" => Rounding::Up,
            "down" => Rounding::Down,
            "nearest" => Rounding::Nearest,
            other => return Err(Error::input(format!("'{other}' is not a rounding mode")).at_attribute("round_mode")),
        };
        Ok(Op::Cast(Cast::Cast { to, saturate: node.flag("saturate", true)?, rounding }))
    }
    fn to(node: &NodeSpec) -> Result<DType> {
        node.expect_inputs(1, 1)?;
        node.opt_dtype("to")?.ok_or_else(|| Error::input("is missing").at_attribute("to"))
    }
    fn cast(node: &NodeSpec) -> Result<Op> {
        Self::conversion(node, Some(Self::to(node)?))
    }
    fn cast_like(node: &NodeSpec) -> Result<Op> {
        node.expect_inputs(2, 2)?;
        Self::conversion(node, None)
    }
    fn bit_cast(node: &NodeSpec) -> Result<Op> {
        Ok(Op::Cast(Cast::Bits(Self::to(node)?)))
    }
    fn identity(node: &NodeSpec) -> Result<Op> {
        node.expect_inputs(1, 1)?;
        Ok(Op::Cast(Cast::Identity))
    }
}

impl Family for Cast {
    fn infer(&self, cx: &Infer) -> Result<Vec<Fact>> {
        let x = cx.fact(0)?;
        Ok(match self {
            Cast::Cast { to: Some(to), .. } => vec![x.with_dtype(*to)],
            Cast::Cast { to: None, .. } => vec![Fact { dtype: cx.fact(1)?.dtype, ..x.clone() }],
            Cast::Bits(to) => {
                if let Some(from) = x.dtype.filter(|d| d.bits() != to.bits() || d.bits() == 0) {
                    return Err(Error::input(format!("{from} and {to} differ in width")).at_attribute("to"));
                }
                vec![x.with_dtype(*to)]
            }
            Cast::Identity => vec![x.clone()],
        })
    }
    fn charge(&self, _cx: &CostCx) -> Charge {
        Charge::FREE
    }
    fn eval(&self, _cx: &EvalCx, inputs: &Inputs) -> Result<Vec<Tensor>> {
        let x = input(inputs, 0)?;
        match self {
            Cast::Cast { to, saturate, rounding } => {
                let to = to.map_or_else(|| input(inputs, 1).map(Tensor::dtype), Ok)?;
                Ok(vec![convert(x, to, *saturate, *rounding)?])
            }
            Cast::Bits(to) => {
                if to.bits() != x.dtype().bits() {
                    return Err(Error::input(format!("{} and {to} differ in width", x.dtype())).at_attribute("to"));
                }
                Ok(vec![Tensor::from_vec_as(*to, x.bytes()?.to_vec(), x.dims())?])
            }
            Cast::Identity => Ok(vec![x.clone()]),
        }
    }
    fn role(&self, i: usize) -> Role {
        if i == 0 { Role::Data } else { Role::Setting }
    }
    fn access(&self) -> Access {
        if matches!(self, Cast::Cast { .. }) { Access::Compulsory } else { Access::View }
    }
    fn handles_narrow(&self) -> bool {
        true
    }
}

/// Converts to another element type by the rules of ONNX Cast: floats to integers truncate (what does not fit 32 bits saturates,
/// narrower integers then wrap), integers wrap, nonzero is true, strings are parsed and printed.
///
/// # Errors
/// If a string is not a number, or one of the types is complex.
pub fn cast(t: &Tensor, to: DType, saturate: bool) -> Result<Tensor> {
    convert(t, to, saturate, Rounding::Up)
}

fn convert(t: &Tensor, to: DType, saturate: bool, rounding: Rounding) -> Result<Tensor> {
    let from = t.dtype();
    let complex = |d| matches!(d, DType::C64 | DType::C128);
    if complex(from) || complex(to) {
        return Err(Error::unsupported(format!("a cast from {from} to {to}")));
    }
    match (from, to) {
        _ if from == to => Ok(t.clone()),
        (DType::Str, _) => {
            if to.is_float() {
                let parse = |s: &String| s.trim().parse::<f64>().map_err(|_| not_a_number(s, to));
                let values: Vec<f64> = t.strings()?.iter().map(parse).collect::<Result<_>>()?;
                return from_floats(to, &values, t.dims(), saturate, rounding);
            }
            let parse = |s: &String| {
                let text = s.trim();
                text.parse::<i128>()
                    .or_else(|_| text.parse::<f64>().map(|v| truncated(v, to)))
                    .map_err(|_| not_a_number(s, to))
            };
            from_ints(to, &t.strings()?.iter().map(parse).collect::<Result<Vec<_>>>()?, t.dims())
        }
        (_, DType::Str) => Tensor::from_strings(texts(t)?, t.dims()),
        (_, DType::F32) if from.is_narrow_float() => t.widened(),
        (DType::F32, _) if to.is_narrow_float() && to != DType::F8E8M0 => t.narrowed(to, saturate),
        _ if from.is_float() && to.is_float() => from_floats(to, &t.to_f64s()?, t.dims(), saturate, rounding),
        _ if from.is_float() => {
            let values: Vec<i128> = t.to_f64s()?.into_iter().map(|v| truncated(v, to)).collect();
            from_ints(to, &values, t.dims())
        }
        (_, DType::F32) => Tensor::from_vec(ints(t)?.into_iter().map(|v| v as f32).collect(), t.dims()),
        _ if to.is_float() => {
            let values: Vec<f64> = ints(t)?.into_iter().map(|v| v as f64).collect();
            from_floats(to, &values, t.dims(), saturate, rounding)
        }
        _ => from_ints(to, &ints(t)?, t.dims()),
    }
}

fn not_a_number(s: &str, to: DType) -> Error {
    let shown: String = s.chars().take(40).collect();
    Error::run(format!("the string '{shown}' is not a {to}"))
}

fn truncated(v: f64, to: DType) -> i128 {
    match to {
        DType::Bool => i128::from(v != 0.0),
        DType::I64 => (v as i64).into(),
        DType::U64 if v < 0.0 => (v as i64).into(),
        DType::U64 => (v as u64).into(),
        DType::U32 if v < 0.0 => (v as i64).into(),
        DType::U32 => (v as u32).into(),
        _ => (v as i32).into(),
    }
}

fn texts(t: &Tensor) -> Result<Vec<String>> {
    fn special(v: f64, plain: String) -> String {
        match v {
            _ if v.is_nan() => "NaN".into(),
            _ if v == f64::INFINITY => "INF".into(),
            _ if v == f64::NEG_INFINITY => "-INF".into(),
            _ => plain,
        }
    }
    Ok(match t.dtype() {
        DType::F64 => t.to_f64s()?.into_iter().map(|v| special(v, format!("{v:?}"))).collect(),
        d if d.is_float() => {
            t.to_f64s()?.into_iter().map(|v| special(v, format!("{:?}", v as f32))).collect()
        }
        DType::Bool => ints(t)?.into_iter().map(|v| if v != 0 { "True".into() } else { "False".into() }).collect(),
        _ => ints(t)?.into_iter().map(|v| v.to_string()).collect(),
    })
}

fn from_floats(to: DType, values: &[f64], dims: &[usize], saturate: bool, rounding: Rounding) -> Result<Tensor> {
    match to {
        DType::F64 => Tensor::from_vec(values.to_vec(), dims),
        DType::F32 => Tensor::from_vec(values.iter().map(|&v| v as f32).collect(), dims),
        DType::F16 => Tensor::from_vec(values.iter().map(|&v| half::f16::from_f64(v)).collect(), dims),
        DType::BF16 => Tensor::from_vec(values.iter().map(|&v| half::bf16::from_f64(v)).collect(), dims),
        DType::F8E8M0 => {
            let codes = values.iter().map(|&v| power_of_two(v as f32, saturate, rounding)).collect::<Vec<u8>>();
            Tensor::from_vec_as(to, codes, dims)
        }
        _ => Tensor::from_vec(values.iter().map(|&v| v as f32).collect(), dims)?.narrowed(to, saturate),
    }
}

/// The exponent-only code of a float: its own exponent bits, rounded by what its fraction says.
fn power_of_two(v: f32, saturate: bool, rounding: Rounding) -> u8 {
    let bits = v.to_bits();
    let exponent = (bits >> 23 & 0xff) as u8;
    let fraction = bits & 0x7f_ffff;
    if exponent == 0xff {
        return 0xff;
    }
    let up = match rounding {
        Rounding::Up => fraction != 0,
        Rounding::Down => false,
        Rounding::Nearest => fraction > 0x40_0000 || (fraction == 0x40_0000 && exponent > 0),
    };
    if up && !(saturate && exponent == 0xfe) { exponent + 1 } else { exponent }
}

fn cases() -> Vec<Case> {
    let f = sample::floats;
    let to = |d: DType| ("to", Attr::Int(d.to_onnx().into()));
    let mut all = Vec::new();
    for &d in DType::ALL.iter().filter(|d| !matches!(d, DType::C64 | DType::C128)) {
        all.push(Case::new("Cast", &[to(d)], vec![f(&[3, 3], 1)]));
        if let Ok(t) = cast(&f(&[3, 3], 2), d, true) {
            all.push(Case::new("Cast", &[to(DType::F32)], vec![t.clone()]));
            all.push(Case::new("Cast", &[to(DType::Str)], vec![t.clone()]));
            all.push(Case::new("CastLike", &[], vec![sample::ints(&[1, 0, -300]), t.clone()]));
            all.push(Case::new("Identity", &[], vec![t]));
        }
    }
    all.extend([
        Case::new("Cast", &[to(DType::F8E5M2), ("saturate", Attr::Int(0))], vec![f(&[], 1)]),
        Case::new("BitCast", &[to(DType::I32)], vec![f(&[2, 3], 1)]),
        Case::new("Identity", &[], vec![f(&[0, 3], 1)]),
    ]);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to_i64s(v: &[f32], d: DType) -> Vec<i64> {
        cast(&Tensor::from_vec(v.to_vec(), &[v.len()]).unwrap(), d, true).unwrap().to_i64s().unwrap()
    }

    #[test]
    fn floats_truncate_and_then_wrap() {
        assert_eq!(to_i64s(&[1.9, -1.9, 300.0, f32::NAN], DType::U8), [1, 255, 44, 0]);
        assert_eq!(to_i64s(&[0.0, -0.0, 0.1, f32::NAN], DType::Bool), [0, 0, 1, 1]);
        assert_eq!(to_i64s(&[1e30, -1e30], DType::I32), [i64::from(i32::MAX), i64::from(i32::MIN)]);
    }

    #[test]
    fn strings_are_parsed_and_printed() {
        let s: Vec<String> = ["1.5", "-INF", "1e3", " 7 "].map(String::from).to_vec();
        let t = Tensor::from_strings(s, &[4]).unwrap();
        let f = cast(&t, DType::F32, true).unwrap();
        assert_eq!(f.to_f64s().unwrap(), [1.5, f64::NEG_INFINITY, 1000.0, 7.0]);
        assert_eq!(cast(&f, DType::Str, true).unwrap().strings().unwrap(), ["1.5", "-INF", "1000.0", "7.0"]);
        let bad = Tensor::from_strings(vec!["x".into()], &[1]).unwrap();
        assert!(cast(&bad, DType::I8, true).is_err());
    }

    #[test]
    fn exponents_round_as_asked() {
        assert_eq!(power_of_two(1.5, true, Rounding::Up), 128);
        assert_eq!(power_of_two(1.5, true, Rounding::Down), 127);
        assert_eq!(power_of_two(1.4, true, Rounding::Nearest), 127);
        assert_eq!(power_of_two(f32::MAX, true, Rounding::Up), 254);
    }
}
