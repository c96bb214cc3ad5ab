//! Constant, ConstantOfShape, EyeLike, Range, OneHot, Shape, Size: tensors made from settings and shapes.
//!
//! <https://onnx.ai/onnx/operators/onnx__Constant.html>, <https://onnx.ai/onnx/operators/onnx__ConstantOfShape.html>,
//! <https://onnx.ai/onnx/operators/onnx__EyeLike.html>, <https://onnx.ai/onnx/operators/onnx__Range.html>,
//! <https://onnx.ai/onnx/operators/onnx__OneHot.html>, <https://onnx.ai/onnx/operators/onnx__Shape.html>,
//! <https://onnx.ai/onnx/operators/onnx__Size.html>.
//!
//! Cost: nothing; making constants is data movement, Range's additions included.

use super::cast::cast;
use super::dims;
use super::elements::{Elements, Writer, ints};
use super::spec::{Attr, NodeSpec};
use super::{Access, Case, Charge, CostCx, Entry, EvalCx, Family, Infer, Input, Inputs, Op, Role, input, opt, sample};
use crate::error::{Error, Result};
use crate::tensor::{Container, DType, Fact, Shape, Tensor, element_count};

/// The family's table rows.
pub const ENTRIES: &[Entry] = &[
    Entry { domain: "", name: "Constant", parse: Constant::constant, cases },
    Entry { domain: "", name: "ConstantOfShape", parse: Constant::of_shape, cases },
    Entry { domain: "", name: "EyeLike", parse: Constant::eye_like, cases },
    Entry { domain: "", name: "Range", parse: Constant::range, cases },
    Entry { domain: "", name: "OneHot", parse: Constant::one_hot, cases },
    Entry { domain: "", name: "Shape", parse: Constant::shape, cases },
    Entry { domain: "", name: "Size", parse: Constant::size, cases },
];

/// A tensor that does not depend on floating-point data.
#[derive(Debug, Clone)]
pub enum Constant {
    /// The value itself.
    Constant(Tensor),
    /// One element, repeated over the shape in input 0.
    OfShape(Tensor),
    /// Ones on a diagonal of a matrix of input 0's shape.
    EyeLike {
        /// Element type; input 0's if not given.
        dtype: Option<DType>,
        /// Which diagonal.
        k: i64,
    },
    /// start, start + delta … below (above) limit.
    Range,
    /// Indices as one-hot vectors along a new axis.
    OneHot {
        /// The new axis, of the output's rank.
        axis: i64,
    },
    /// Dims `start..end` of input 0.
    Shape {
        /// First dim, negative from the end.
        start: i64,
        /// Dim to stop before.
        end: Option<i64>,
    },
    /// Number of elements of input 0.
    Size,
}

impl Constant {
    fn constant(node: &NodeSpec) -> Result<Op> {
        node.expect_inputs(0, 0)?;
        let mut forms = node.attrs.iter().filter(|(k, _)| k.starts_with("value") || *k == "sparse_value");
        let (Some((name, value)), None) = (forms.next(), forms.next()) else {
            return Err(Error::input("must be given in exactly one form").at_attribute("value"));
        };
        let wrong = || Error::input("is of the wrong kind").at_attribute(name);
        let value = match (name.as_str(), value) {
            ("value", Attr::Tensor(t)) => t.clone(),
            ("value_int", Attr::Int(v)) => Tensor::scalar(*v),
            ("value_ints", Attr::Ints(v)) => Tensor::from_vec(v.clone(), &[v.len()])?,
            ("value_float", Attr::Float(v)) => Tensor::scalar(*v),
            ("value_floats", Attr::Floats(v)) => Tensor::from_vec(v.clone(), &[v.len()])?,
            ("value_string", Attr::Str(v)) => Tensor::from_strings(vec![v.clone()], &[])?,
            ("value_strings", Attr::Strs(v)) => Tensor::from_strings(v.clone(), &[v.len()])?,
            // An empty list has no kind of its own in a file.
            ("value_ints", Attr::Floats(v)) if v.is_empty() => Tensor::from_vec::<i64>(vec![], &[0])?,
            ("value_floats", Attr::Ints(v)) if v.is_empty() => Tensor::from_vec::<f32>(vec![], &[0])?,
            ("sparse_value", Attr::Tensor(t)) => t.clone(),
            ("sparse_value", _) => return Err(Error::unsupported("a sparse constant").at_attribute("sparse_value")),
            _ => return Err(wrong()),
        };
        Ok(Op::Constant(Constant::Constant(value)))
    }
    fn of_shape(node: &NodeSpec) -> Result<Op> {
        node.expect_inputs(1, 1)?;
        let value = node.opt_tensor("value")?.unwrap_or(Tensor::scalar(0f32));
        if value.len() != 1 {
            return Err(Error::input(format!("must be one element, not {}", value.fact())).at_attribute("value"));
        }
        Ok(Op::Constant(Constant::OfShape(value)))
    }
    fn eye_like(node: &NodeSpec) -> Result<Op> {
        node.expect_inputs(1, 1)?;
        Ok(Op::Constant(Constant::EyeLike { dtype: node.opt_dtype("dtype")?, k: node.int("k", 0)? }))
    }
    fn range(node: &NodeSpec) -> Result<Op> {
        node.expect_inputs(3, 3)?;
        Ok(Op::Constant(Constant::Range))
    }
    fn one_hot(node: &NodeSpec) -> Result<Op> {
        node.expect_inputs(3, 3)?;
        Ok(Op::Constant(Constant::OneHot { axis: node.int("axis", -1)? }))
    }
    fn shape(node: &NodeSpec) -> Result<Op> {
        node.expect_inputs(1, 1)?;
        Ok(Op::Constant(Constant::Shape { start: node.int("start", 0)?, end: node.opt_int("end")? }))
    }
    fn size(node: &NodeSpec) -> Result<Op> {
        node.expect_inputs(1, 1)?;
        Ok(Op::Constant(Constant::Size))
    }
}

/// The dims that a Shape with `start` and `end` gives, of a value of the given rank.
fn window(rank: usize, start: i64, end: Option<i64>) -> std::ops::Range<usize> {
    let clamp = |v: i64| {
        let v = if v < 0 { v.saturating_add_unsigned(rank as u64) } else { v };
        usize::try_from(v).unwrap_or(0).min(rank)
    };
    let (start, end) = (clamp(start), end.map_or(rank, clamp));
    start..end.max(start)
}

fn sizes(list: &[i64]) -> Result<Vec<usize>> {
    list.iter().map(|&v| usize::try_from(v).map_err(|_| Error::input(format!("{v} is not a size")))).collect()
}

fn scalar<T: Copy>(values: &[T], what: &str) -> Result<T> {
    match values {
        [v] => Ok(*v),
        _ => Err(Error::input(format!("{what} must be one element, not {}", values.len()))),
    }
}

/// Number of elements of a Range.
fn steps(start: &Tensor, limit: &Tensor, delta: &Tensor) -> Result<usize> {
    let zero = || Error::input("a range with step 0");
    let n = if start.dtype().is_float() {
        let v = [start, limit, delta].map(Tensor::to_f64s).into_iter().collect::<Result<Vec<_>>>()?;
        let (s, l, d) = (scalar(&v[0], "start")?, scalar(&v[1], "limit")?, scalar(&v[2], "delta")?);
        if d == 0.0 {
            return Err(zero());
        }
        let n = ((l - s) / d).ceil().max(0.0);
        if !n.is_finite() || n > (isize::MAX / 16) as f64 {
            return Err(Error::run("a range without end"));
        }
        n as i128
    } else {
        let v = [start, limit, delta].map(ints).into_iter().collect::<Result<Vec<_>>>()?;
        let (s, l, d) = (scalar(&v[0], "start")?, scalar(&v[1], "limit")?, scalar(&v[2], "delta")?);
        match d {
            0 => return Err(zero()),
            d if d > 0 => (l - s + d - 1).max(0) / d,
            d => (s - l - d - 1).max(0) / -d,
        }
    };
    usize::try_from(n).map_err(|_| Error::run("a range too long for memory"))
}

impl Family for Constant {
    fn infer(&self, cx: &Infer) -> Result<Vec<Fact>> {
        Ok(vec![match self {
            Constant::Constant(t) => t.fact(),
            Constant::OfShape(value) => {
                let shape = match cx.ints(0)? {
                    Some(list) => Shape::known(&sizes(&list)?),
                    None => cx.fact(0)?.elements().map_or(Shape::UNKNOWN, Shape::of_rank),
                };
                Fact::new(value.dtype(), shape)
            }
            Constant::EyeLike { dtype, .. } => {
                let x = cx.fact(0)?;
                if x.shape.rank().is_some_and(|r| r != 2) {
                    return Err(Error::input(format!("needs a matrix, not {}", x.shape)));
                }
                dtype.map_or_else(|| x.clone(), |d| x.with_dtype(d))
            }
            Constant::Range => {
                let value = |i: usize| cx.opt(i).and_then(|x| x.value);
                let n = match (value(0), value(1), value(2)) {
                    (Some(s), Some(l), Some(d)) => Some(steps(s, l, d)?),
                    _ => None,
                };
                cx.fact(0)?.with_shape(Shape::partial(vec![n]))
            }
            Constant::OneHot { axis } => {
                let depth = match cx.opt(1).and_then(|x| x.value) {
                    Some(d) => Some(depth(d)?),
                    None => None,
                };
                let shape = match cx.shape(0)?.dims() {
                    Some(d) => {
                        let mut out = d.to_vec();
                        out.insert(dims::axis(*axis, d.len() + 1)?, depth);
                        Shape::partial(out)
                    }
                    None => Shape::UNKNOWN,
                };
                cx.fact(2)?.with_shape(shape)
            }
            Constant::Shape { start, end } => {
                let n = cx.shape(0)?.rank().map(|r| window(r, *start, *end).len());
                Fact::new(DType::I64, Shape::partial(vec![n]))
            }
            Constant::Size => Fact::of(DType::I64, &[]),
        }])
    }
    fn charge(&self, _cx: &CostCx) -> Charge {
        Charge::FREE
    }
    fn eval(&self, _cx: &EvalCx, inputs: &Inputs) -> Result<Vec<Tensor>> {
        Ok(vec![match self {
            Constant::Constant(t) => t.clone(),
            Constant::OfShape(value) => {
                let dims = sizes(&input(inputs, 0)?.to_i64s()?)?;
                let mut y = Writer::new(value.dtype(), &dims)?;
                y.fill(&Elements::of(value)?, element_count(&dims)?);
                y.finish()?
            }
            Constant::EyeLike { dtype, k } => {
                let x = input(inputs, 0)?;
                let &[rows, cols] = x.dims() else {
                    return Err(Error::input(format!("needs a matrix, not {}", x.fact())));
                };
                let mut one = vec![0u8; element_count(x.dims())?];
                for r in 0..rows {
                    let c = r as i128 + i128::from(*k);
                    if let Some(c) = usize::try_from(c).ok().filter(|&c| c < cols) {
                        one[r * cols + c] = 1;
                    }
                }
                cast(&Tensor::from_vec(one, x.dims())?, dtype.unwrap_or(x.dtype()), true)?
            }
            Constant::Range => range(input(inputs, 0)?, input(inputs, 1)?, input(inputs, 2)?)?,
            Constant::OneHot { axis } => {
                let (at, values) = (input(inputs, 0)?, input(inputs, 2)?);
                one_hot(at, depth(input(inputs, 1)?)?, values, dims::axis(*axis, at.rank() + 1)?)?
            }
            Constant::Shape { start, end } => {
                let d = input(inputs, 0)?.dims();
                let part: Vec<i64> = d[window(d.len(), *start, *end)].iter().map(|&d| d as i64).collect();
                let n = part.len();
                Tensor::from_vec(part, &[n])?
            }
            Constant::Size => Tensor::scalar(opt(inputs, 0).map_or(0, Tensor::len) as i64),
        }])
    }
    fn role(&self, _i: usize) -> Role {
        Role::Setting
    }
    fn access(&self) -> Access {
        // What describes a shape does not read the data.
        match self {
            Constant::Shape { .. } | Constant::Size | Constant::Constant(_) => Access::View,
            _ => Access::Compulsory,
        }
    }
    fn handles_narrow(&self) -> bool {
        true
    }
    fn constant(&self) -> Option<&Tensor> {
        match self {
            Constant::Constant(t) => Some(t),
            _ => None,
        }
    }
    /// Shape needs only the dims in its range.
    fn fold(&self, inputs: &[Option<Input>]) -> Option<Tensor> {
        let (Constant::Shape { .. } | Constant::Size) = self else { return None };
        let fact = (*inputs.first()?)?.fact;
        if fact.container != Container::Tensor {
            return None;
        }
        match self {
            Constant::Shape { start, end } => {
                let dims = fact.shape.dims()?;
                let part = &dims[window(dims.len(), *start, *end)];
                let part: Vec<i64> = part.iter().map(|d| d.map(|d| d as i64)).collect::<Option<_>>()?;
                let n = part.len();
                Tensor::from_vec(part, &[n]).ok()
            }
            _ => Some(Tensor::scalar(fact.shape.elements()? as i64)),
        }
    }
}

fn depth(t: &Tensor) -> Result<usize> {
    let v = scalar(&t.to_f64s()?, "depth")?;
    if v >= 0.0 && v <= u32::MAX.into() { Ok(v as usize) } else { Err(Error::input(format!("a depth of {v}"))) }
}

fn range(start: &Tensor, limit: &Tensor, delta: &Tensor) -> Result<Tensor> {
    let n = steps(start, limit, delta)?;
    let mut values = Vec::new();
    let too_long = |_| Error::run(format!("no memory for a range of {n} elements"));
    if start.dtype().is_float() {
        let (s, d) = (scalar(&start.to_f64s()?, "start")?, scalar(&delta.to_f64s()?, "delta")?);
        values.try_reserve_exact(n).map_err(too_long)?;
        values.extend((0..n).map(|i| s + i as f64 * d));
        return cast(&Tensor::from_vec(values, &[n])?, start.dtype(), true);
    }
    let (s, d) = (scalar(&ints(start)?, "start")?, scalar(&ints(delta)?, "delta")?);
    let mut values = Vec::new();
    values.try_reserve_exact(n).map_err(too_long)?;
    values.extend((0..n).map(|i| s.wrapping_add(d.wrapping_mul(i as i128))));
    super::elements::from_ints(start.dtype(), &values, &[n])
}

fn one_hot(at: &Tensor, depth: usize, values: &Tensor, axis: usize) -> Result<Tensor> {
    if values.len() != 2 {
        return Err(Error::input(format!("values must be [off, on], not {}", values.fact())));
    }
    let mut out = at.dims().to_vec();
    out.insert(axis, depth);
    let inner: usize = at.dims()[axis..].iter().product();
    let indices = at.to_f64s()?;
    let cells = Elements::of(values)?;
    let mut y = Writer::new(values.dtype(), &out)?;
    for outer in indices.chunks(inner.max(1)) {
        for d in 0..depth {
            for &v in outer {
                // Beyond [−depth, depth − 1] nothing is on.
                let on = v == d as f64 || v + depth as f64 == d as f64;
                y.run(&cells, usize::from(on), 1);
            }
        }
    }
    y.finish()
}

fn cases() -> Vec<Case> {
    let (f, i) = (sample::floats, sample::ints);
    let three = |a: f32, b: f32, c: f32| [a, b, c].map(Tensor::scalar).to_vec();
    let whole = |a: i64, b: i64, c: i64| [a, b, c].map(Tensor::scalar).to_vec();
    let packed = Tensor::from_vec_as(DType::I4, vec![7u8], &[1]).unwrap_or_else(|_| i(&[7]));
    vec![
        Case::new("Constant", &[("value", Attr::Tensor(f(&[2, 3], 1)))], vec![]),
        Case::new("Constant", &[("value_int", Attr::Int(3))], vec![]),
        Case::new("Constant", &[("value_ints", Attr::Ints(vec![3, 4]))], vec![]),
        Case::new("Constant", &[("value_float", Attr::Float(3.0))], vec![]),
        Case::new("Constant", &[("value_floats", Attr::Floats(vec![]))], vec![]),
        Case::new("Constant", &[("value_string", Attr::Str("a".into()))], vec![]),
        Case::new("Constant", &[("value_strings", Attr::Strs(vec!["a".into()]))], vec![]),
        Case::new("ConstantOfShape", &[], vec![i(&[2, 3])]),
        Case::new("ConstantOfShape", &[("value", Attr::Tensor(i(&[7])))], vec![i(&[])]),
        Case::new("ConstantOfShape", &[("value", Attr::Tensor(packed))], vec![i(&[3, 1])]),
        Case::new("EyeLike", &[("k", Attr::Int(-1))], vec![f(&[3, 2], 1)]),
        Case::new("EyeLike", &[("dtype", Attr::Int(7))], vec![f(&[2, 3], 1)]),
        Case::new("Range", &[], three(1.0, 2.0, 0.3)),
        Case::new("Range", &[], whole(10, -3, -4)),
        Case::new("Range", &[], whole(10, 20, -4)),
        Case::new("OneHot", &[], vec![i(&[0, -1, 7]), Tensor::scalar(3i64), f(&[2], 1)]),
        Case::new("OneHot", &[("axis", Attr::Int(1))], vec![f(&[2, 3], 1), Tensor::scalar(4f32), i(&[0, 1])]),
        Case::new("Shape", &[], vec![f(&[2, 3, 4], 1)]),
        Case::new("Shape", &[("start", Attr::Int(-2)), ("end", Attr::Int(100))], vec![f(&[2, 3, 4], 1)]),
        Case::new("Shape", &[("start", Attr::Int(2)), ("end", Attr::Int(1))], vec![f(&[], 1)]),
        Case::new("Size", &[], vec![f(&[2, 0, 4], 1)]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_is_known_when_the_dims_in_its_range_are() {
        let fact = Fact::new(DType::F32, Shape::partial(vec![None, Some(3), Some(4)]));
        let seen = [Some(Input { fact: &fact, value: None })];
        let fold = |start, end| Constant::Shape { start, end }.fold(&seen);
        assert_eq!(fold(-2, None).unwrap().to_i64s().unwrap(), [3, 4]);
        assert!(fold(0, None).is_none());
        assert!(Constant::Size.fold(&seen).is_none());
    }

    #[test]
    fn ranges_that_never_end_are_errors() {
        let s = |v: f32| Tensor::scalar(v);
        assert!(range(&s(0.0), &s(1.0), &s(0.0)).is_err());
        assert!(range(&s(0.0), &s(f32::INFINITY), &s(1.0)).is_err());
        assert!(range(&Tensor::scalar(0i64), &Tensor::scalar(i64::MAX), &Tensor::scalar(1i64)).is_err());
    }
}
