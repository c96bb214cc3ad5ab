//! Compress, NonZero, Unique, TopK: elements chosen by their values.
//!
//! <https://onnx.ai/onnx/operators/onnx__Compress.html>, <https://onnx.ai/onnx/operators/onnx__NonZero.html>,
//! <https://onnx.ai/onnx/operators/onnx__Unique.html>, <https://onnx.ai/onnx/operators/onnx__TopK.html>.
//!
//! Cost: no arithmetic. How often a sort compares depends on the data, so comparisons are not counted.

use super::dims;
use super::elements::{AxisMap, Elements, Keys, Writer, mapped_copy, whole_maps};
use super::spec::{Attr, NodeSpec};
use super::{Case, Charge, CostCx, Entry, EvalCx, Family, Infer, Inputs, Op, Role, input, sample};
use crate::error::{Error, Result};
use crate::tensor::{DType, Fact, Shape, Tensor};
use std::cmp::Ordering;

/// The family's table rows.
pub const ENTRIES: &[Entry] = &[
    Entry { domain: "", name: "Compress", parse: Select::compress, cases },
    Entry { domain: "", name: "NonZero", parse: Select::non_zero, cases },
    Entry { domain: "", name: "Unique", parse: Select::unique, cases },
    Entry { domain: "", name: "TopK", parse: Select::top_k, cases },
];

/// An operator whose choice (and mostly output size) depends on values.
#[derive(Debug, Clone)]
pub enum Select {
    /// Slices (or elements, without an axis) whose condition in input 1 is true.
    Compress(Option<i64>),
    /// Coordinates of nonzero elements, `[rank, n]`.
    NonZero,
    /// Distinct elements (or slices along an axis) with first positions, inverse and counts.
    Unique {
        /// Axis of slices; elements of the flattened input if not given.
        axis: Option<i64>,
        /// Ascending rather than in order of first appearance.
        sorted: bool,
    },
    /// The k largest or smallest elements along an axis, best first; equal ones by position.
    TopK {
        /// Axis.
        axis: i64,
        /// k as an attribute (before opset 10).
        k: Option<usize>,
        /// Largest rather than smallest.
        largest: bool,
    },
}

impl Select {
    fn compress(node: &NodeSpec) -> Result<Op> {
        node.expect_inputs(2, 2)?;
        Ok(Op::Select(Select::Compress(node.opt_int("axis")?)))
    }
    fn non_zero(node: &NodeSpec) -> Result<Op> {
        node.expect_inputs(1, 1)?;
        Ok(Op::Select(Select::NonZero))
    }
    fn unique(node: &NodeSpec) -> Result<Op> {
        node.expect_inputs(1, 1)?;
        Ok(Op::Select(Select::Unique { axis: node.opt_int("axis")?, sorted: node.flag("sorted", true)? }))
    }
    fn top_k(node: &NodeSpec) -> Result<Op> {
        node.expect_inputs(1, 2)?;
        let k = node.opt_size("k")?;
        if k.is_none() && !node.has_input(1) {
            return Err(Error::input("is missing, as attribute and as input").at_attribute("k"));
        }
        Ok(Op::Select(Select::TopK { axis: node.int("axis", -1)?, k, largest: node.flag("largest", true)? }))
    }
}

fn wanted(k: Option<usize>, given: Option<i64>, dim: Option<usize>) -> Result<usize> {
    let k = match (k, given) {
        (Some(k), _) => Some(k),
        (None, given) => usize::try_from(given.unwrap_or(-1)).ok(),
    };
    k.filter(|&k| dim.is_none_or(|d| k <= d))
        .ok_or_else(|| Error::input(format!("k must lie between 0 and the axis' {}", Shape::partial(vec![dim]))))
}

impl Family for Select {
    fn infer(&self, cx: &Infer) -> Result<Vec<Fact>> {
        let x = cx.fact(0)?;
        let d = x.shape.dims();
        Ok(match self {
            Select::Compress(axis) => {
                let chosen = cx.ints(1)?.map(|c| c.iter().filter(|&&c| c != 0).count());
                let shape = match (axis, d) {
                    (None, _) => Shape::partial(vec![chosen]),
                    (Some(_), None) => Shape::UNKNOWN,
                    (Some(axis), Some(d)) => {
                        let mut d = d.to_vec();
                        let at = dims::axis(*axis, d.len())?;
                        d[at] = chosen;
                        Shape::partial(d)
                    }
                };
                vec![x.with_shape(shape)]
            }
            Select::NonZero => vec![Fact::new(DType::I64, Shape::partial(vec![d.map(<[_]>::len), None]))],
            Select::Unique { axis, .. } => {
                let shape = match (axis, d) {
                    (None, _) => Shape::of_rank(1),
                    (Some(_), None) => Shape::UNKNOWN,
                    (Some(axis), Some(d)) => {
                        let mut d = d.to_vec();
                        let at = dims::axis(*axis, d.len())?;
                        d[at] = None;
                        Shape::partial(d)
                    }
                };
                let one = || Fact::new(DType::I64, Shape::of_rank(1));
                let inverse = match (axis, d) {
                    (None, _) => x.shape.elements(),
                    (Some(axis), Some(d)) => d[dims::axis(*axis, d.len())?],
                    (Some(_), None) => None,
                };
                vec![x.with_shape(shape), one(), Fact::new(DType::I64, Shape::partial(vec![inverse])), one()]
            }
            Select::TopK { axis, k, .. } => {
                let given = cx.ints(1)?.and_then(|v| v.first().copied());
                let shape = match d {
                    None => Shape::UNKNOWN,
                    Some(d) => {
                        let mut d = d.to_vec();
                        let at = dims::axis(*axis, d.len())?;
                        d[at] = if k.is_some() || given.is_some() { Some(wanted(*k, given, d[at])?) } else { None };
                        Shape::partial(d)
                    }
                };
                vec![x.with_shape(shape.clone()), Fact::new(DType::I64, shape)]
            }
        })
    }
    fn charge(&self, _cx: &CostCx) -> Charge {
        Charge::FREE
    }
    fn eval(&self, _cx: &EvalCx, inputs: &Inputs) -> Result<Vec<Tensor>> {
        let x = input(inputs, 0)?;
        match self {
            Select::Compress(axis) => {
                let condition = input(inputs, 1)?.to_i64s()?;
                let x = if axis.is_none() { x.reshaped(&[x.len()])? } else { x.clone() };
                let at = axis.map_or(Ok(0), |a| dims::axis(a, x.rank()))?;
                if condition.len() > x.dims()[at] {
                    let (n, d) = (condition.len(), x.dims()[at]);
                    return Err(Error::run(format!("{n} conditions for an axis of {d}")));
                }
                Ok(vec![pick(&x, at, (0..condition.len()).filter(|&i| condition[i] != 0))?])
            }
            Select::NonZero => {
                let at = non_zero(x)?;
                let (n, steps) = (at.len(), dims::strides(x.dims()));
                let rows = steps.iter().zip(x.dims());
                let values = rows.flat_map(|(&s, &d)| at.iter().map(move |&i| (i / s % d) as i64)).collect();
                Ok(vec![Tensor::from_vec::<i64>(values, &[x.rank(), n])?])
            }
            Select::Unique { axis, sorted } => unique(x, *axis, *sorted),
            Select::TopK { axis, k, largest } => {
                let given = inputs.get(1).copied().flatten().map(Tensor::to_i64s).transpose()?;
                let at = dims::axis(*axis, x.rank())?;
                let k = wanted(*k, given.and_then(|v| v.first().copied()), Some(x.dims()[at]))?;
                top_k(x, at, k, *largest)
            }
        }
    }
    fn role(&self, i: usize) -> Role {
        if i == 0 { Role::Data } else { Role::Setting }
    }
    fn handles_narrow(&self) -> bool {
        true
    }
}

/// The slices of `x` at the given positions of an axis.
fn pick(x: &Tensor, axis: usize, positions: impl Iterator<Item = usize>) -> Result<Tensor> {
    let positions: AxisMap = positions.map(Some).collect();
    let mut dims = x.dims().to_vec();
    dims[axis] = positions.len();
    if dims.contains(&0) {
        return Tensor::zeros(x.dtype(), &dims);
    }
    let mut maps = whole_maps(x.dims())?;
    maps[axis] = positions;
    mapped_copy(x, &maps, &Tensor::zeros(x.dtype(), &[])?)
}

/// Offsets of the elements that are not zero (not empty strings).
fn non_zero(x: &Tensor) -> Result<Vec<usize>> {
    if matches!(x.dtype(), DType::C64 | DType::C128) {
        // Of both parts, signs aside, any bit.
        let part = x.dtype().bits() / 16;
        let any = |part: &[u8]| part.iter().enumerate().any(|(i, b)| b & if i + 1 == part.len() { 0x7f } else { 0xff } != 0);
        let numbers = x.bytes()?.chunks_exact(2 * part);
        return Ok(numbers.enumerate().filter(|(_, n)| n.chunks_exact(part).any(any)).map(|(i, _)| i).collect());
    }
    Ok(match Keys::of(x)? {
        Keys::Floats(v) => (0..v.len()).filter(|&i| v[i] != 0.0).collect(),
        Keys::Ints(v) => (0..v.len()).filter(|&i| v[i] != 0).collect(),
        Keys::Strings(v) => (0..v.len()).filter(|&i| !v[i].is_empty()).collect(),
    })
}

fn unique(x: &Tensor, axis: Option<i64>, sorted: bool) -> Result<Vec<Tensor>> {
    let flat = if axis.is_none() { x.reshaped(&[x.len()])? } else { x.clone() };
    let at = axis.map_or(Ok(0), |a| dims::axis(a, flat.rank()))?;
    let d = flat.dims();
    let (n, inner) = (d[at], d[at + 1..].iter().product::<usize>());
    let outer: usize = d[..at].iter().product();
    let keys = Keys::of(&flat)?;
    let order = |i: usize, j: usize| {
        let pairs = (0..outer).flat_map(|o| (0..inner).map(move |k| o * n * inner + k));
        pairs.map(|p| keys.cmp(p + i * inner, p + j * inner)).find(|o| o.is_ne()).unwrap_or(Ordering::Equal)
    };
    let mut by_value: Vec<usize> = (0..n).collect();
    by_value.sort_by(|&i, &j| order(i, j).then(i.cmp(&j)));
    // Groups of equal slices, ascending: (first position, members).
    let mut groups: Vec<(usize, Vec<usize>)> = Vec::new();
    for i in by_value {
        match groups.last_mut() {
            Some((first, members)) if order(*first, i).is_eq() => members.push(i),
            _ => groups.push((i, vec![i])),
        }
    }
    if !sorted {
        groups.sort_by_key(|g| g.0);
    }
    let mut inverse = vec![0i64; n];
    for (g, (_, members)) in groups.iter().enumerate() {
        for &m in members {
            inverse[m] = g as i64;
        }
    }
    let m = groups.len();
    Ok(vec![
        pick(&flat, at, groups.iter().map(|g| g.0))?,
        Tensor::from_vec::<i64>(groups.iter().map(|g| g.0 as i64).collect(), &[m])?,
        Tensor::from_vec(inverse, &[n])?,
        Tensor::from_vec::<i64>(groups.iter().map(|g| g.1.len() as i64).collect(), &[m])?,
    ])
}

fn top_k(x: &Tensor, axis: usize, k: usize, largest: bool) -> Result<Vec<Tensor>> {
    let mut dims = x.dims().to_vec();
    let n = std::mem::replace(&mut dims[axis], k);
    let inner: usize = dims[axis + 1..].iter().product();
    let outer: usize = dims[..axis].iter().product();
    let keys = Keys::of(x)?;
    let cells = Elements::of(x)?;
    let total = crate::tensor::element_count(&dims)?;
    let mut indices = vec![0i64; total];
    if total > 0 {
        let mut order: Vec<usize> = Vec::with_capacity(n);
        for o in 0..outer {
            for i in 0..inner {
                let at = |p: usize| (o * n + p) * inner + i;
                order.clear();
                order.extend(0..n);
                let best = |&a: &usize, &b: &usize| {
                    let c = keys.cmp(at(a), at(b));
                    (if largest { c.reverse() } else { c }).then(a.cmp(&b))
                };
                if k < n {
                    order.select_nth_unstable_by(k - 1, best);
                }
                order[..k].sort_unstable_by(best);
                for (r, &p) in order[..k].iter().enumerate() {
                    indices[(o * k + r) * inner + i] = p as i64;
                }
            }
        }
    }
    let mut values = Writer::new(x.dtype(), &dims)?;
    for (j, &p) in indices.iter().enumerate() {
        let (o, i) = (j / (k * inner), j % inner);
        values.run(&cells, (o * n + p as usize) * inner + i, 1);
    }
    Ok(vec![values.finish()?, Tensor::from_vec(indices, &dims)?])
}

fn cases() -> Vec<Case> {
    let (f, i) = (sample::floats, sample::ints);
    let bools = |v: &[bool]| Tensor::from_bools(v.iter().copied(), &[v.len()]).unwrap_or_else(|_| i(&[]));
    let axis = |a: i64| ("axis", Attr::Int(a));
    let some = |v: Vec<Tensor>| v.into_iter().map(Some).collect::<Vec<_>>();
    let matrix = Tensor::from_vec(vec![1i32, 0, 0, 1, 0, 0, 2, 3, 4], &[3, 3]);
    let words = Tensor::from_strings(["b", "a", "b"].map(String::from).to_vec(), &[3]);
    let mut all = vec![
        Case::new("Compress", &[axis(1)], vec![f(&[2, 3], 1), bools(&[false, true])]),
        Case::new("Compress", &[], vec![f(&[2, 3], 1), bools(&[true, false, true, true])]),
        Case::new("Compress", &[axis(0)], vec![f(&[2, 3], 1), bools(&[])]),
        Case::new("NonZero", &[], vec![i(&[0, 3, 0, -1])]),
        Case::new("NonZero", &[], vec![f(&[2, 3], 1)]),
        Case::new("NonZero", &[], vec![f(&[], 1)]),
        Case::with_optional("Unique", &[], some(vec![f(&[2, 3], 1)]), 4),
        Case::with_optional("Unique", &[("sorted", Attr::Int(0))], some(vec![i(&[2, 1, 1, 3, 2])]), 4),
        Case::with_optional("TopK", &[], some(vec![f(&[3, 4], 1), i(&[2])]), 2),
        Case::with_optional("TopK", &[axis(0), ("largest", Attr::Int(0))], some(vec![f(&[3, 4, 2], 1), i(&[3])]), 2),
        Case::with_optional("TopK", &[axis(1)], some(vec![f(&[2, 0], 1), i(&[0])]), 2),
        Case::with_optional("TopK", &[("k", Attr::Int(1))], some(vec![f(&[3, 4], 1)]), 2).opset(7),
    ];
    for t in [matrix, words].into_iter().flatten() {
        all.push(Case::with_optional("Unique", &[axis(0)], some(vec![t]), 4));
    }
    all
}
