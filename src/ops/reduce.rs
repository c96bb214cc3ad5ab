//! Reductions (ReduceSum, Mean, Max, Min, Prod, L1, L2, SumSquare, LogSum, LogSumExp), ArgMax, ArgMin, CumSum, CumProd.
//!
//! <https://onnx.ai/onnx/operators/onnx__ReduceSum.html> and its neighbours, <https://onnx.ai/onnx/operators/onnx__ArgMax.html>,
//! <https://onnx.ai/onnx/operators/onnx__CumSum.html>.
//!
//! Cost in other FLOPs, `i` input and `o` output elements: a sum counts one add per input element (it accumulates from zero).
//! Sum, Prod, CumSum, CumProd `i`; Mean `i + o`; Max, Min, ArgMax, ArgMin `i − o` comparisons; L1, SumSquare `2i`;
//! L2 `2i + o`; LogSum `i + o`; LogSumExp `4i + o` (maximum, subtract, exp, add; log, add). Integers are free.

use super::dims;
use super::elements::{Keys, from_ints, int_range, ints};
use super::spec::{Attr, NodeSpec};
use super::{Case, Charge, CostCx, Entry, EvalCx, Family, Infer, Inputs, Op, Role, input, opt, sample};
use crate::cost::Work;
use crate::error::{Error, Result};
use crate::tensor::{DType, Dim, Fact, Num, Shape, Tensor, element_count, is_num};
use crate::with_num;
use std::cmp::Ordering;

const fn entry(name: &'static str) -> Entry {
    Entry { domain: "", name, parse: Reduce::parse, cases }
}

/// The family's table rows.
pub const ENTRIES: &[Entry] = &[
    entry("ArgMax"),
    entry("ArgMin"),
    entry("CumProd"),
    entry("CumSum"),
    entry("ReduceL1"),
    entry("ReduceL2"),
    entry("ReduceLogSum"),
    entry("ReduceLogSumExp"),
    entry("ReduceMax"),
    entry("ReduceMean"),
    entry("ReduceMin"),
    entry("ReduceProd"),
    entry("ReduceSum"),
    entry("ReduceSumSquare"),
];

/// What a reduction computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the operators")]
pub enum How {
    Sum,
    Mean,
    Max,
    Min,
    Prod,
    L1,
    L2,
    SumSquare,
    LogSum,
    LogSumExp,
}

/// An operator that folds along axes.
#[derive(Debug, Clone)]
pub enum Reduce {
    /// A reduction over a set of axes.
    Axes {
        /// What it computes.
        how: How,
        /// Axes given as an attribute (before opset 13 for ReduceSum, 18 for the others).
        axes: Option<Vec<i64>>,
        /// Reduced axes stay as 1.
        keep: bool,
        /// No axes means none rather than all.
        noop_when_empty: bool,
    },
    /// Position of the largest or smallest element along an axis.
    Arg {
        /// Largest rather than smallest.
        largest: bool,
        /// Axis.
        axis: i64,
        /// The axis stays as 1.
        keep: bool,
        /// Of equal elements the last rather than the first.
        last: bool,
    },
    /// Running sum or product along the axis in input 1.
    Running {
        /// Product rather than sum.
        product: bool,
        /// Without the element itself.
        exclusive: bool,
        /// From the end.
        reverse: bool,
    },
}

impl Reduce {
    fn parse(node: &NodeSpec) -> Result<Op> {
        let how = match node.op_type.as_str() {
            name @ ("ArgMax" | "ArgMin") => {
                node.expect_inputs(1, 1)?;
                return Ok(Op::Reduce(Reduce::Arg {
                    largest: name == "ArgMax",
                    axis: node.int("axis", 0)?,
                    keep: node.flag("keepdims", true)?,
                    last: node.flag("select_last_index", false)?,
                }));
            }
            name @ ("CumSum" | "CumProd") => {
                node.expect_inputs(2, 2)?;
                return Ok(Op::Reduce(Reduce::Running {
                    product: name == "CumProd",
                    exclusive: node.flag("exclusive", false)?,
                    reverse: node.flag("reverse", false)?,
                }));
            }
            "ReduceSum" => How::Sum,
            "ReduceMean" => How::Mean,
            "ReduceMax" => How::Max,
            "ReduceMin" => How::Min,
            "ReduceProd" => How::Prod,
            "ReduceL1" => How::L1,
            "ReduceL2" => How::L2,
            "ReduceSumSquare" => How::SumSquare,
            "ReduceLogSum" => How::LogSum,
            "ReduceLogSumExp" => How::LogSumExp,
            other => return Err(Error::unsupported(format!("{other} is not a reduction"))),
        };
        node.expect_inputs(1, 2)?;
        Ok(Op::Reduce(Reduce::Axes {
            how,
            axes: node.opt_ints("axes")?,
            keep: node.flag("keepdims", true)?,
            noop_when_empty: node.flag("noop_with_empty_axes", false)?,
        }))
    }

    /// The axes to fold, for a value of the given rank; `given` is input 1.
    fn axes(&self, rank: usize, given: Option<&[i64]>) -> Result<Vec<usize>> {
        match self {
            Reduce::Axes { axes, noop_when_empty, .. } => match axes.as_deref().or(given) {
                Some([]) | None if *noop_when_empty => Ok(Vec::new()),
                Some([]) | None => Ok((0..rank).collect()),
                Some(list) => dims::axes(list, rank),
            },
            Reduce::Arg { axis, .. } => Ok(vec![dims::axis(*axis, rank)?]),
            Reduce::Running { .. } => Ok(Vec::new()),
        }
    }

    fn output(&self, x: &[Dim], axes: &[usize]) -> Vec<Dim> {
        let keep = match self {
            Reduce::Axes { keep, .. } | Reduce::Arg { keep, .. } => *keep,
            Reduce::Running { .. } => true,
        };
        let folded = |a: &usize| axes.contains(a);
        (0..x.len()).filter(|a| keep || !folded(a)).map(|a| if folded(&a) { Some(1) } else { x[a] }).collect()
    }
}

impl How {
    /// FLOPs for `i` input and `o` output elements.
    fn flops(self, i: u64, o: u64) -> Option<u64> {
        let per_input = |n: u64| i.checked_mul(n);
        match self {
            How::Sum | How::Prod => Some(i),
            How::Mean | How::LogSum => i.checked_add(o),
            How::Max | How::Min => Some(i.saturating_sub(o)),
            How::L1 | How::SumSquare => per_input(2),
            How::L2 => per_input(2)?.checked_add(o),
            // An empty group has no maximum to compare for: its log and add remain.
            How::LogSumExp if i == 0 => o.checked_mul(2),
            How::LogSumExp => per_input(4)?.checked_add(o),
        }
    }

    fn floats<T: Num>(self, group: &mut dyn Iterator<Item = T>) -> T {
        let sum = |group: &mut dyn Iterator<Item = T>| group.fold(T::zero(), |a, v| a + v);
        match self {
            How::Sum => sum(group),
            How::Mean => {
                let mut n = 0u64;
                let s = group.fold(T::zero(), |a, v| {
                    n += 1;
                    a + v
                });
                s / T::of(n as f64)
            }
            How::Max => group.reduce(T::max_nan).unwrap_or(T::of(f64::NEG_INFINITY)),
            How::Min => group.reduce(T::min_nan).unwrap_or(T::of(f64::INFINITY)),
            How::Prod => group.fold(T::of(1.0), |a, v| a * v),
            How::L1 => group.fold(T::zero(), |a, v| a + v.apply(f64::abs)),
            How::SumSquare => group.fold(T::zero(), |a, v| a + v * v),
            How::L2 => group.fold(T::zero(), |a, v| a + v * v).sqrt(),
            How::LogSum => sum(group).apply(f64::ln),
            How::LogSumExp => {
                let all: Vec<T> = group.collect();
                let top = all.iter().copied().reduce(T::max_nan).unwrap_or(T::zero());
                // An infinite maximum cannot be subtracted.
                let top = if top.get().is_infinite() { T::zero() } else { top };
                all.iter().fold(T::zero(), |a, &v| a + (v - top).exp()).apply(f64::ln) + top
            }
        }
    }

    fn integers(self, group: &mut dyn Iterator<Item = i128>, dtype: DType) -> i128 {
        let (min, max) = int_range(dtype).unwrap_or((0, 1));
        match self {
            How::Sum => group.fold(0, i128::wrapping_add),
            How::Mean => {
                let all: Vec<i128> = group.collect();
                all.iter().copied().fold(0, i128::wrapping_add).checked_div(all.len() as i128).unwrap_or(0)
            }
            How::Max => group.max().unwrap_or(min),
            How::Min => group.min().unwrap_or(max),
            How::Prod => group.fold(1, i128::wrapping_mul),
            How::L1 => group.fold(0, |a, v| a.wrapping_add(v.abs())),
            How::SumSquare => group.fold(0, |a, v| a.wrapping_add(v.wrapping_mul(v))),
            How::L2 | How::LogSum | How::LogSumExp => self.floats(&mut group.map(|v| v as f64)) as i128,
        }
    }
}

impl Family for Reduce {
    fn infer(&self, cx: &Infer) -> Result<Vec<Fact>> {
        let x = cx.fact(0)?;
        let y = if matches!(self, Reduce::Arg { .. }) { x.with_dtype(DType::I64) } else { x.clone() };
        if let Reduce::Running { .. } = self {
            return Ok(vec![y]);
        }
        let Some(d) = x.shape.dims() else {
            let all = matches!(self, Reduce::Axes { axes: None, keep: false, noop_when_empty: false, .. });
            let shape = if all && cx.opt(1).is_none() { Shape::known(&[]) } else { Shape::UNKNOWN };
            return Ok(vec![y.with_shape(shape)]);
        };
        let shape = match (cx.opt(1), cx.ints(1)?, self) {
            (Some(_), None, Reduce::Axes { keep: true, .. }) => Shape::of_rank(d.len()),
            (Some(list), None, Reduce::Axes { keep: false, .. }) => match list.fact.elements() {
                Some(n) if n > 0 && n <= d.len() => Shape::of_rank(d.len() - n),
                _ => Shape::UNKNOWN,
            },
            (_, given, _) => Shape::partial(self.output(d, &self.axes(d.len(), given.as_deref())?)),
        };
        Ok(vec![y.with_shape(shape)])
    }
    fn charge(&self, cx: &CostCx) -> Charge {
        match cx.dtype(0) {
            Some(d) if d.is_float() => {}
            Some(_) => return Charge::FREE,
            None => return Charge::Unknown,
        }
        Charge::of((|| {
            let (i, o) = (cx.elements(0)?, cx.out_elements(0)?);
            let n = match self {
                Reduce::Axes { how, axes, noop_when_empty, .. } => {
                    let given = cx.inputs.get(1).copied().flatten();
                    let none = match (axes, given) {
                        (Some(axes), _) => axes.is_empty(),
                        (None, Some(given)) => given.fact.elements()? == 0,
                        (None, None) => true,
                    };
                    if none && *noop_when_empty && how.is_identity_alone() { 0 } else { how.flops(i, o)? }
                }
                Reduce::Arg { .. } => i.saturating_sub(o),
                Reduce::Running { .. } => i,
            };
            Some(Work::other(n))
        })())
    }
    fn eval(&self, cx: &EvalCx, inputs: &Inputs) -> Result<Vec<Tensor>> {
        let x = input(inputs, 0)?;
        let given = opt(inputs, 1).map(Tensor::to_i64s).transpose()?;
        if let Reduce::Running { product, exclusive, reverse } = self {
            let axis = given.and_then(|v| v.first().copied()).ok_or_else(|| Error::input("the axis is missing"))?;
            let axis = dims::axis(axis, x.rank())?;
            return running(cx, x, axis, *product, *exclusive, *reverse);
        }
        let axes = self.axes(x.rank(), given.as_deref())?;
        let known: Vec<Dim> = x.dims().iter().map(|&d| Some(d)).collect();
        let out = Shape::partial(self.output(&known, &axes)).concrete().unwrap_or_default();
        let groups = Groups::of(x.dims(), &axes)?;
        match self {
            Reduce::Axes { how, noop_when_empty, .. } => {
                if axes.is_empty() && *noop_when_empty && how.is_identity_alone() {
                    return Ok(vec![x.clone()]);
                }
                if is_num(x.dtype()) {
                    return with_num!(cx.arith, x.dtype(), T => {
                        let v = T::load(x)?;
                        let y = groups.starts.iter().map(|s| how.floats(&mut groups.inner.iter().map(|i| v[s + i])));
                        Ok(vec![T::store(y.collect(), &out)?])
                    });
                }
                let v = ints(x)?;
                let fold = |s: &usize| how.integers(&mut groups.inner.iter().map(|i| v[s + i]), x.dtype());
                let y: Vec<i128> = groups.starts.iter().map(fold).collect();
                Ok(vec![from_ints(x.dtype(), &y, &out)?])
            }
            Reduce::Arg { largest, last, .. } => {
                if groups.inner.is_empty() && !groups.starts.is_empty() {
                    return Err(Error::run("no elements to choose from"));
                }
                let y: Vec<i64> = if is_num(x.dtype()) {
                    with_num!(cx.arith, x.dtype(), T => {
                        let v = T::load(x)?;
                        Ok(groups.positions(|i, best| {
                            let better = if *largest { v[i].gt(v[best]) } else { v[best].gt(v[i]) };
                            better || (*last && v[i] == v[best])
                        }))
                    })?
                } else {
                    let keys = Keys::of(x)?;
                    groups.positions(|i, best| match keys.cmp(i, best) {
                        Ordering::Equal => *last,
                        Ordering::Greater => *largest,
                        Ordering::Less => !*largest,
                    })
                };
                Ok(vec![Tensor::from_vec(y, &out)?])
            }
            Reduce::Running { .. } => Err(Error::run("not a reduction")),
        }
    }
    fn role(&self, i: usize) -> Role {
        if i == 0 { Role::Data } else { Role::Setting }
    }
}

impl How {
    /// Whether the reduction of one element is that element.
    fn is_identity_alone(self) -> bool {
        matches!(self, How::Sum | How::Mean | How::Max | How::Min | How::Prod)
    }
}

/// The groups of elements that are folded together: element `inner[j]` of the group that begins at `starts[i]`.
struct Groups {
    starts: Vec<usize>,
    inner: Vec<usize>,
}

impl Groups {
    fn of(x: &[usize], axes: &[usize]) -> Result<Groups> {
        let own = dims::strides(x);
        let offsets = |folded: bool| -> Result<Vec<usize>> {
            let picked: Vec<usize> = (0..x.len()).filter(|a| axes.contains(a) == folded).collect();
            let n = element_count(&picked.iter().map(|&a| x[a]).collect::<Vec<_>>())?;
            let mut out = Vec::new();
            out.try_reserve_exact(n).map_err(|_| Error::run(format!("no memory for {n} elements")))?;
            if n == 0 {
                return Ok(out);
            }
            out.push(0);
            for &a in &picked {
                // Every offset so far, with each position of this axis.
                out = out.iter().flat_map(|o| (0..x[a]).map(move |i| (o, i))).map(|(o, i)| o + i * own[a]).collect();
            }
            Ok(out)
        };
        Ok(Groups { starts: offsets(false)?, inner: offsets(true)? })
    }

    /// For each group the position of its best element; `better` gets offsets.
    fn positions(&self, better: impl Fn(usize, usize) -> bool) -> Vec<i64> {
        let best = |s: &usize| {
            let mut best = 0;
            for p in 1..self.inner.len() {
                if better(s + self.inner[p], s + self.inner[best]) {
                    best = p;
                }
            }
            best as i64
        };
        self.starts.iter().map(best).collect()
    }
}

fn running(cx: &EvalCx, x: &Tensor, axis: usize, product: bool, exclusive: bool, reverse: bool) -> Result<Vec<Tensor>> {
    let groups = Groups::of(x.dims(), &[axis])?;
    let mut order = groups.inner.clone();
    if reverse {
        order.reverse();
    }
    if is_num(x.dtype()) {
        return with_num!(cx.arith, x.dtype(), T => {
            let v = T::load(x)?;
            let mut y = v.clone();
            for s in &groups.starts {
                let mut acc = T::of(if product { 1.0 } else { 0.0 });
                for i in &order {
                    let next = if product { acc * v[s + i] } else { acc + v[s + i] };
                    y[s + i] = if exclusive { acc } else { next };
                    acc = next;
                }
            }
            Ok(vec![T::store(y, x.dims())?])
        });
    }
    let v = ints(x)?;
    let mut y = v.clone();
    for s in &groups.starts {
        let mut acc = i128::from(product);
        for i in &order {
            let next = if product { acc.wrapping_mul(v[s + i]) } else { acc.wrapping_add(v[s + i]) };
            y[s + i] = if exclusive { acc } else { next };
            acc = next;
        }
    }
    Ok(vec![from_ints(x.dtype(), &y, x.dims())?])
}

fn cases() -> Vec<Case> {
    let (f, i) = (sample::floats, sample::ints);
    let axes = |v: &[i64]| ("axes", Attr::Ints(v.to_vec()));
    let int = |name: &'static str, v: i64| (name, Attr::Int(v));
    let positive = |d: &[usize]| Unsigned.of(&f(d, 4));
    let mut all = Vec::new();
    for e in ENTRIES.iter().filter(|e| e.name.starts_with("Reduce")) {
        let name = e.name;
        all.push(Case::new(name, &[], vec![positive(&[2, 3, 4])]));
        all.push(Case::new(name, &[int("keepdims", 0)], vec![positive(&[2, 3, 4]), i(&[-1, 0])]));
        all.push(Case::new(name, &[int("noop_with_empty_axes", 1)], vec![positive(&[2, 3]), i(&[])]));
        all.push(Case::new(name, &[int("noop_with_empty_axes", 1)], vec![positive(&[2, 3])]));
        all.push(Case::new(name, &[axes(&[1]), int("keepdims", 0)], vec![positive(&[2, 3, 4])]).opset(11));
        all.push(Case::new(name, &[], vec![f(&[2, 0, 4], 1), i(&[1])]));
        all.push(Case::new(name, &[], vec![f(&[0, 3], 1), i(&[1])]));
        all.push(Case::new(name, &[], vec![positive(&[])]));
        all.push(Case::new(name, &[], vec![i(&[3, 4, 5])]));
    }
    for name in ["ArgMax", "ArgMin"] {
        all.push(Case::new(name, &[], vec![f(&[4, 3], 1)]));
        all.push(Case::new(name, &[int("axis", -1), int("keepdims", 0)], vec![f(&[4, 3, 2], 1)]));
        all.push(Case::new(name, &[int("select_last_index", 1)], vec![i(&[3, 3, 1, 1])]));
        all.push(Case::new(name, &[], vec![f(&[4, 0], 1)]));
    }
    for name in ["CumSum", "CumProd"] {
        all.push(Case::new(name, &[], vec![f(&[2, 3, 4], 1), Tensor::scalar(1i32)]));
        all.push(Case::new(name, &[int("exclusive", 1), int("reverse", 1)], vec![f(&[2, 3], 1), Tensor::scalar(-1i64)]));
        all.push(Case::new(name, &[int("reverse", 1)], vec![i(&[1, 2, 3]), Tensor::scalar(0i64)]));
        all.push(Case::new(name, &[], vec![f(&[0, 3], 1), Tensor::scalar(0i64)]));
    }
    all
}

/// Makes sample values positive, so that logarithms of sums exist.
struct Unsigned;

impl Unsigned {
    fn of(self, t: &Tensor) -> Tensor {
        let values = t.to_f64s().unwrap_or_default().into_iter().map(|v| v.abs() as f32 + 0.1).collect();
        Tensor::from_vec(values, t.dims()).unwrap_or_else(|_| t.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_sum_of_large_exponents_does_not_overflow() {
        let y = How::LogSumExp.floats(&mut [1000f32, 1000.0].into_iter());
        assert!((y - (1000.0 + std::f32::consts::LN_2)).abs() < 1e-3, "{y}");
        assert_eq!(How::LogSumExp.floats(&mut [f32::NEG_INFINITY].into_iter()), f32::NEG_INFINITY);
    }
}
