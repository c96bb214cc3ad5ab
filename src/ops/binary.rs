//! Elementwise functions of several tensors under numpy broadcasting: arithmetic, logic, comparison, selection.
//!
//! <https://onnx.ai/onnx/operators/> (each operator's own page), <https://onnx.ai/onnx/repo-docs/Broadcasting.html>.
//!
//! Cost: one other FLOP per output element for Add, Sub, Mul, Div, Pow, Mod and ordered comparisons; k − 1 for Min, Max and Sum
//! of k inputs, k for Mean; 2 for PRelu (compare, multiply). Equal, Where, logic and everything on integers are free.

use super::cast::cast;
use super::dims::{broadcast, broadcast_dims, walk};
use super::elements::{Elements, Writer, from_ints, ints, reserved};
use super::spec::{Attr, NodeSpec};
use super::{Case, Charge, CostCx, Entry, EvalCx, Family, Infer, Inputs, Op, Role, input, sample};
use crate::cost::Work;
use crate::error::{Error, Result};
use crate::tensor::{DType, Fact, Num, Shape, Tensor, element_count, is_num};
use crate::with_num;

const fn entry(name: &'static str) -> Entry {
    Entry { domain: "", name, parse: Binary::parse, cases }
}

/// The family's table rows.
pub const ENTRIES: &[Entry] = &[
    entry("Add"),
    entry("And"),
    entry("BitShift"),
    entry("BitwiseAnd"),
    entry("BitwiseOr"),
    entry("BitwiseXor"),
    entry("Div"),
    entry("Equal"),
    entry("Greater"),
    entry("GreaterOrEqual"),
    entry("Less"),
    entry("LessOrEqual"),
    entry("Max"),
    entry("Mean"),
    entry("Min"),
    entry("Mod"),
    entry("Mul"),
    entry("Or"),
    entry("PRelu"),
    entry("Pow"),
    entry("Sub"),
    entry("Sum"),
    entry("Where"),
    entry("Xor"),
];

/// An elementwise function of two or more tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the operators")]
pub enum Binary {
    Add,
    And,
    BitShift {
        /// Towards the high bits.
        left: bool,
    },
    BitwiseAnd,
    BitwiseOr,
    BitwiseXor,
    Div,
    Equal,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
    Max,
    Mean,
    Min,
    Mod {
        /// With the sign of the dividend (C) rather than of the divisor (Python).
        fmod: bool,
    },
    Mul,
    Or,
    PRelu {
        /// A slope of one axis is per channel (before opset 7).
        by_channel: bool,
    },
    Pow,
    Sub,
    Sum,
    Where,
    Xor,
}

impl Binary {
    fn parse(node: &NodeSpec) -> Result<Op> {
        let op = match node.op_type.as_str() {
            "Add" => Binary::Add,
            "And" => Binary::And,
            "BitShift" => match node.str("direction", "")? {
                "LEFT" => Binary::BitShift { left: true },
                "RIGHT" => Binary::BitShift { left: false },
                _ => return Err(Error::input("must be LEFT or RIGHT").at_attribute("direction")),
            },
            "BitwiseAnd" => Binary::BitwiseAnd,
            "BitwiseOr" => Binary::BitwiseOr,
            "BitwiseXor" => Binary::BitwiseXor,
            "Div" => Binary::Div,
            "Equal" => Binary::Equal,
            "Greater" => Binary::Greater,
            "GreaterOrEqual" => Binary::GreaterOrEqual,
            "Less" => Binary::Less,
            "LessOrEqual" => Binary::LessOrEqual,
            "Max" => Binary::Max,
            "Mean" => Binary::Mean,
            "Min" => Binary::Min,
            "Mod" => Binary::Mod { fmod: node.flag("fmod", false)? },
            "Mul" => Binary::Mul,
            "Or" => Binary::Or,
            "PRelu" => Binary::PRelu { by_channel: (1..7).contains(&node.opset) },
            "Pow" => Binary::Pow,
            "Sub" => Binary::Sub,
            "Sum" => Binary::Sum,
            "Where" => Binary::Where,
            "Xor" => Binary::Xor,
            other => return Err(Error::unsupported(format!("{other} is not an elementwise function"))),
        };
        match op {
            _ if op.is_variadic() => node.expect_inputs(1, usize::MAX)?,
            Binary::Where => node.expect_inputs(3, 3)?,
            _ => node.expect_inputs(2, 2)?,
        }
        Ok(Op::Binary(op))
    }

    /// Whether it takes any number of inputs.
    pub fn is_variadic(self) -> bool {
        matches!(self, Binary::Max | Binary::Min | Binary::Sum | Binary::Mean)
    }

    /// Whether the result is boolean: logic and comparisons.
    pub fn gives_bool(self) -> bool {
        use Binary::*;
        matches!(self, And | Or | Xor | Equal | Greater | GreaterOrEqual | Less | LessOrEqual)
    }

    /// FLOPs per output element of floating-point data, given the number of inputs.
    pub fn flops(self, inputs: usize) -> u64 {
        use Binary::*;
        match self {
            Add | Sub | Mul | Div | Pow | Mod { .. } | Greater | GreaterOrEqual | Less | LessOrEqual => 1,
            Max | Min | Sum => (inputs as u64).saturating_sub(1),
            Mean => inputs as u64,
            PRelu { .. } => 2,
            And | Or | Xor | Equal | Where | BitShift { .. } | BitwiseAnd | BitwiseOr | BitwiseXor => 0,
        }
    }

    /// The arithmetic on floats that two inputs (or each further input of a variadic operator) undergo.
    fn floats<T: Num>(self) -> Option<fn(T, T) -> T> {
        Some(match self {
            Binary::Add | Binary::Sum | Binary::Mean => |a, b| a + b,
            Binary::Sub => |a, b| a - b,
            Binary::Mul => |a, b| a * b,
            Binary::Div => |a, b| a / b,
            Binary::Pow => |a, b| a.apply2(b, f64::powf),
            Binary::Mod { fmod: true } => |a, b| a.apply2(b, |a, b| a % b),
            Binary::Mod { fmod: false } => |a, b| {
                a.apply2(b, |a, b| {
                    let r = a % b;
                    if r != 0.0 && (r < 0.0) != (b < 0.0) { r + b } else { r }
                })
            },
            Binary::Max => T::max_nan,
            Binary::Min => T::min_nan,
            Binary::PRelu { .. } => |a, b| {
                let scaled = a * b;
                if T::zero().gt(a) { scaled } else { a }
            },
            _ => return None,
        })
    }

    fn compare_floats<T: Num>(self) -> Option<fn(T, T) -> bool> {
        Some(match self {
            Binary::Equal => |a, b| a == b,
            Binary::Greater => |a, b| a.gt(b),
            Binary::Less => |a, b| b.gt(a),
            Binary::GreaterOrEqual => |a, b| a.gt(b) || a == b,
            Binary::LessOrEqual => |a, b| b.gt(a) || a == b,
            _ => return None,
        })
    }

    /// The function on integers and booleans. Division by zero was refused before; results wrap when stored.
    fn integers(self) -> Option<fn(i128, i128) -> i128> {
        Some(match self {
            Binary::Add | Binary::Sum | Binary::Mean => i128::wrapping_add,
            Binary::Sub => i128::wrapping_sub,
            Binary::Mul => i128::wrapping_mul,
            Binary::Div => |a, b| a.checked_div(b).unwrap_or(0),
            Binary::Mod { fmod: true } => |a, b| a.checked_rem(b).unwrap_or(0),
            Binary::Mod { fmod: false } => |a, b| {
                let r = a.checked_rem(b).unwrap_or(0);
                if r != 0 && (r < 0) != (b < 0) { r + b } else { r }
            },
            Binary::Pow => power,
            Binary::Max => i128::max,
            Binary::Min => i128::min,
            Binary::PRelu { .. } => |a, b| if a < 0 { a.wrapping_mul(b) } else { a },
            Binary::And | Binary::BitwiseAnd => |a, b| a & b,
            Binary::Or | Binary::BitwiseOr => |a, b| a | b,
            Binary::Xor | Binary::BitwiseXor => |a, b| a ^ b,
            Binary::BitShift { left: true } => |a, b| if (0..64).contains(&b) { a << b } else { 0 },
            // Shifted out entirely, the sign remains.
            Binary::BitShift { left: false } => |a, b| a >> if (0..64).contains(&b) { b } else { 127 },
            Binary::Equal => |a, b| i128::from(a == b),
            Binary::Greater => |a, b| i128::from(a > b),
            Binary::GreaterOrEqual => |a, b| i128::from(a >= b),
            Binary::Less => |a, b| i128::from(a < b),
            Binary::LessOrEqual => |a, b| i128::from(a <= b),
            Binary::Where => return None,
        })
    }
}

/// Integer power, wrapping; a negative exponent gives 0 unless the base is ±1.
fn power(base: i128, exponent: i128) -> i128 {
    if exponent < 0 {
        return match base {
            1 => 1,
            -1 if exponent % 2 == 0 => 1,
            -1 => -1,
            _ => 0,
        };
    }
    let (mut result, mut base, mut left) = (1i128, base, exponent);
    while left > 0 {
        if left & 1 == 1 {
            result = result.wrapping_mul(base);
        }
        base = base.wrapping_mul(base);
        left >>= 1;
    }
    result
}

/// `f` of each pair of broadcast elements.
fn zip<A: Copy, R>(out: &[usize], a: (&[A], &[usize]), b: (&[A], &[usize]), f: impl Fn(A, A) -> R) -> Result<Vec<R>> {
    let mut y = reserved(element_count(out)?)?;
    walk(out, [a.1, b.1], |[i, j]| y.push(f(a.0[i], b.0[j])));
    Ok(y)
}

/// The dims of a slope per channel of data of a rank.
fn per_channel<D: Copy>(slope: &[D], rank: usize, one: D) -> Vec<D> {
    let mut dims = slope.to_vec();
    if slope.len() == 1 && rank > 2 {
        dims.resize(rank - 1, one);
    }
    dims
}

/// The shape all inputs broadcast to.
fn output(inputs: &[&Tensor]) -> Result<Vec<usize>> {
    let dims = broadcast_dims(&inputs.iter().map(|t| t.dims()).collect::<Vec<_>>())?;
    element_count(&dims)?;
    Ok(dims)
}

impl Family for Binary {
    fn infer(&self, cx: &Infer) -> Result<Vec<Fact>> {
        let facts: Vec<&Fact> = (0..cx.inputs.len()).map(|i| cx.fact(i)).collect::<Result<_>>()?;
        let typed = if *self == Binary::Where { &facts[1..] } else { &facts[..] };
        let dtype = typed.iter().find_map(|f| f.dtype);
        if *self != Binary::Pow
            && let Some(other) = typed.iter().filter_map(|f| f.dtype).find(|d| Some(*d) != dtype)
        {
            let first = dtype.map(DType::name).unwrap_or_default();
            return Err(Error::input(format!("inputs of types {first} and {other}")));
        }
        let mut shapes: Vec<Shape> = facts.iter().map(|f| f.shape.clone()).collect();
        if let (Binary::PRelu { by_channel: true }, Some(rank)) = (self, shapes[0].rank()) {
            shapes[1] = shapes[1].dims().map_or(Shape::UNKNOWN, |d| Shape::partial(per_channel(d, rank, Some(1))));
        }
        let shape = broadcast(&shapes.iter().collect::<Vec<_>>())?;
        // The slope of PRelu broadcasts to the data, never the other way.
        let slope = matches!(self, Binary::PRelu { .. });
        let shape = if slope && shapes[0] != Shape::UNKNOWN { shapes[0].clone() } else { shape };
        let dtype = match self {
            _ if self.gives_bool() => Some(DType::Bool),
            Binary::Pow => facts[0].dtype,
            _ => dtype,
        };
        Ok(vec![Fact { dtype, shape, container: facts[0].container }])
    }
    fn charge(&self, cx: &CostCx) -> Charge {
        let flops = self.flops(cx.inputs.len());
        match cx.dtype(0) {
            _ if flops == 0 => Charge::FREE,
            Some(d) if d.is_float() => Charge::of(cx.out_elements(0).and_then(|n| n.checked_mul(flops)).map(Work::other)),
            Some(_) => Charge::FREE,
            None => Charge::Unknown,
        }
    }
    fn eval(&self, cx: &EvalCx, inputs: &Inputs) -> Result<Vec<Tensor>> {
        let mut all: Vec<&Tensor> = (0..inputs.len()).map(|i| input(inputs, i)).collect::<Result<_>>()?;
        let slopes;
        if let (Binary::PRelu { by_channel: true }, &[x, slope]) = (self, &all[..]) {
            slopes = slope.reshaped(&per_channel(slope.dims(), x.rank(), 1))?;
            all[1] = &slopes;
        }
        let out = output(&all)?;
        let x = all[0];
        if matches!(self, Binary::PRelu { .. }) && out != x.dims() {
            return Err(Error::input(format!("a slope {} does not broadcast to {}", all[1].fact(), x.fact())));
        }
        if *self == Binary::Where {
            return Ok(vec![choose(&all, &out)?]);
        }
        if x.dtype() == DType::Str {
            let (a, b) = (x.strings()?, input(inputs, 1)?.strings()?);
            let mut y = reserved(element_count(&out)?)?;
            walk(&out, [x.dims(), all[1].dims()], |[i, j]| y.push(a[i] == b[j]));
            return match self {
                Binary::Equal => Ok(vec![Tensor::from_bools(y, &out)?]),
                _ => Err(Error::input("is not defined for strings")),
            };
        }
        if matches!(self, Binary::Div | Binary::Mod { .. }) && x.dtype().is_int() && all[1].to_i64s()?.contains(&0) {
            return Err(Error::run("integer division by zero"));
        }
        // Pow alone takes an exponent of another type.
        let mixed;
        let all = if *self == Binary::Pow && all[1].dtype() != x.dtype() {
            if !x.dtype().is_float() && all[1].dtype().is_float() {
                let (a, b) = (x.to_f64s()?, all[1].to_f64s()?);
                let y = zip(&out, (&a, x.dims()), (&b, all[1].dims()), f64::powf)?;
                return Ok(vec![cast(&Tensor::from_vec(y, &out)?, x.dtype(), true)?]);
            }
            mixed = if x.dtype().is_float() { cast(all[1], x.dtype(), true)? } else { cast(all[1], DType::I64, true)? };
            vec![x, &mixed]
        } else {
            if let Some(other) = all.iter().find(|t| t.dtype() != x.dtype()) {
                return Err(Error::input(format!("inputs of types {} and {}", x.dtype(), other.dtype())));
            }
            all
        };
        if !is_num(x.dtype()) {
            let f = self.integers().ok_or_else(|| Error::input(format!("is not defined for {}", x.dtype())))?;
            let mut y = ints(x)?;
            let mut dims = x.dims();
            for t in &all[1..] {
                y = zip(&out, (&y, dims), (&ints(t)?, t.dims()), f)?;
                dims = &out;
            }
            if *self == Binary::Mean {
                y.iter_mut().for_each(|v| *v /= all.len() as i128);
            }
            let dtype = if self.gives_bool() { DType::Bool } else { x.dtype() };
            return Ok(vec![from_ints(dtype, &y, &out)?]);
        }
        with_num!(cx.arith, x.dtype(), T => {
            let mut y = T::load(x)?;
            let mut dims = x.dims();
            if let Some(f) = self.compare_floats::<T>() {
                let t = input(&[all.get(1).copied()], 0)?;
                let y = zip(&out, (&y, dims), (&T::load(t)?, t.dims()), f)?;
                return Ok(vec![Tensor::from_bools(y, &out)?]);
            }
            let f = self.floats::<T>().ok_or_else(|| Error::input(format!("is not defined for {}", x.dtype())))?;
            for t in &all[1..] {
                y = zip(&out, (&y, dims), (&T::load(t)?, t.dims()), f)?;
                dims = &out;
            }
            if *self == Binary::Mean {
                let n = T::of(all.len() as f64);
                y = y.into_iter().map(|v| v / n).collect();
            }
            Ok(vec![T::store(y, &out)?])
        })
    }
    fn role(&self, i: usize) -> Role {
        if matches!(self, Binary::PRelu { .. }) && i == 1 { Role::Weight } else { Role::Data }
    }
    fn handles_narrow(&self) -> bool {
        *self == Binary::Where
    }
}

/// Where: of each pair of broadcast elements the first if the condition holds.
fn choose(all: &[&Tensor], out: &[usize]) -> Result<Tensor> {
    let &[c, a, b] = all else { return Err(Error::input("takes three inputs")) };
    if a.dtype() != b.dtype() {
        return Err(Error::input(format!("inputs of types {} and {}", a.dtype(), b.dtype())));
    }
    let condition = c.view::<u8>()?;
    let (x, y) = (Elements::of(a)?, Elements::of(b)?);
    let mut w = Writer::new(a.dtype(), out)?;
    walk(out, [c.dims(), a.dims(), b.dims()], |[k, i, j]| {
        if condition[k] != 0 { w.run(&x, i, 1) } else { w.run(&y, j, 1) }
    });
    w.finish()
}

fn cases() -> Vec<Case> {
    let f = sample::floats;
    let bools = |v: &[bool]| Tensor::from_bools(v.iter().copied(), &[v.len()]).unwrap_or_else(|_| sample::ints(&[]));
    let u = |v: &[u8]| Tensor::from_vec(v.to_vec(), &[v.len()]).unwrap_or_else(|_| sample::ints(&[]));
    let i = sample::ints;
    let mut all = Vec::new();
    use Binary::*;
    for op in [
        "Add", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Mean", "Min", "Mul", "Pow", "Sub",
        "Sum",
    ] {
        all.push(Case::new(op, &[], vec![f(&[2, 3, 4], 1), f(&[3, 1], 2)]));
        all.push(Case::new(op, &[], vec![f(&[4], 1), f(&[3, 4], 2)]));
        all.push(Case::new(op, &[], vec![f(&[], 1), f(&[0, 2], 2)]));
        all.push(Case::new(op, &[], vec![i(&[7, -7, i64::MIN, 3]), i(&[if op == "Div" { 5 } else { 0 }, 2, -1, -2])]));
        let half = |seed| f(&[2, 3], seed).narrowed(DType::F16, true);
        if let (Ok(a), Ok(b)) = (half(1), half(2)) {
            all.push(Case::new(op, &[], vec![a, b]));
        }
    }
    for op in [Max, Min, Sum, Mean] {
        let name = format!("{op:?}");
        all.push(Case::new(&name, &[], vec![f(&[2, 1], 1), f(&[3], 2), f(&[2, 3], 3)]));
        all.push(Case::new(&name, &[], vec![f(&[2, 1], 1)]));
    }
    for op in ["And", "Or", "Xor"] {
        all.push(Case::new(op, &[], vec![bools(&[true, false, true]), bools(&[false])]));
    }
    for op in ["BitwiseAnd", "BitwiseOr", "BitwiseXor"] {
        all.push(Case::new(op, &[], vec![i(&[5, -1]), i(&[3, 6])]));
    }
    let shift = |d: &str| [("direction", Attr::Str(d.into()))];
    let text = |v: &[&str]| Tensor::from_strings(v.iter().map(ToString::to_string).collect(), &[v.len()]).into_iter();
    all.extend([
        Case::new("BitShift", &shift("LEFT"), vec![u(&[1, 200, 3]), u(&[1, 1, 100])]),
        Case::new("BitShift", &shift("RIGHT"), vec![u(&[1, 200, 3]), u(&[1])]),
        Case::new("Mod", &[], vec![i(&[-7, 7, 5]), i(&[3, -3, 4])]),
        Case::new("Mod", &[("fmod", Attr::Int(1))], vec![f(&[2, 3], 1), f(&[3], 2)]),
        Case::new("PRelu", &[], vec![f(&[2, 3, 4], 1), f(&[3, 1], 2)]),
        Case::new("PRelu", &[], vec![i(&[-2, 2]), i(&[3])]),
        Case::new("PRelu", &[], vec![f(&[2, 3, 4], 1), f(&[3], 2)]).opset(6),
        Case::new("Pow", &[], vec![f(&[2, 3], 1), i(&[2, 3, 0])]),
        Case::new("Pow", &[], vec![i(&[2, 3, -1]), f(&[3], 1)]),
        Case::new("Where", &[], vec![bools(&[true, false, true]), f(&[2, 1], 1), f(&[], 2)]),
    ]);
    all.extend(text(&["a", "b"]).zip(text(&["a"])).map(|(a, b)| Case::new("Equal", &[], vec![a, b])));
    all.extend(
        text(&["a", "b"]).zip(text(&["c"])).map(|(a, b)| Case::new("Where", &[], vec![bools(&[false, true]), a, b])),
    );
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_wrap_and_divide_without_panic() {
        let run = |op: Binary, a: &[i64], b: &[i64]| {
            let (a, b) = (sample::ints(a), sample::ints(b));
            op.eval(&EvalCx::default(), &[Some(&a), Some(&b)]).unwrap()[0].to_i64s().unwrap()
        };
        assert_eq!(run(Binary::Div, &[7, -7, i64::MIN], &[2, 2, -1]), [3, -3, i64::MIN]);
        assert_eq!(run(Binary::Mod { fmod: false }, &[-7, 7], &[3, -3]), [2, -2]);
        let (one, zero) = (sample::ints(&[1]), sample::ints(&[0]));
        assert!(Binary::Div.eval(&EvalCx::default(), &[Some(&one), Some(&zero)]).is_err());
        assert_eq!(run(Binary::Add, &[i64::MAX], &[1]), [i64::MIN]);
        assert_eq!(run(Binary::Pow, &[3, 2, -1, 5], &[4, 63, -3, -1]), [81, i64::MIN, -1, 0]);
    }
}
