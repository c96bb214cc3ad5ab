//! Softmax, LogSoftmax and Hardmax.
//!
//! <https://onnx.ai/onnx/operators/onnx__Softmax.html>, <https://onnx.ai/onnx/operators/onnx__LogSoftmax.html>,
//! <https://onnx.ai/onnx/operators/onnx__Hardmax.html>.
//!
//! Other FLOPs per element: Softmax 5 (maximum, subtract, exp, add, divide); LogSoftmax 5 (the last one a subtraction) and one
//! logarithm per row; Hardmax 1 comparison. Before opset 13 a row is everything from `axis` on (default 1); since then it is
//! one axis (default −1).

use super::dims::axis;
use super::spec::{Attr, NodeSpec};
use super::{Case, Charge, CostCx, Entry, EvalCx, Family, Infer, Inputs, Op, input, sample};
use crate::cost::{Work, product};
use crate::error::Result;
use crate::tensor::{Fact, Num, Tensor, element_count};
use crate::with_num;

/// The family's table rows.
pub const ENTRIES: &[Entry] = &[
    Entry { domain: "", name: "Softmax", parse: Softmax::parse, cases },
    Entry { domain: "", name: "LogSoftmax", parse: Softmax::parse, cases },
    Entry { domain: "", name: "Hardmax", parse: Softmax::parse, cases },
];

/// Which of the three.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `exp(x) / Σ exp`.
    Soft,
    /// Its logarithm.
    Log,
    /// 1 at the first maximum, 0 elsewhere.
    Hard,
}

/// A normalising exponential along rows.
#[derive(Debug, Clone)]
pub struct Softmax {
    /// Which of the three.
    pub kind: Kind,
    /// The axis of a row, or the first of its axes.
    pub axis: i64,
    /// A row is everything from `axis` on (before opset 13).
    pub coerced: bool,
}

impl Softmax {
    fn parse(node: &NodeSpec) -> Result<Op> {
        node.expect_inputs(1, 1)?;
        let kind = match node.op_type.as_str() {
            "Softmax" => Kind::Soft,
            "LogSoftmax" => Kind::Log,
            _ => Kind::Hard,
        };
        let coerced = node.opset < 13;
        Ok(Op::Softmax(Softmax { kind, axis: node.int("axis", if coerced { 1 } else { -1 })?, coerced }))
    }

    /// Sizes (outer, row, inner) for input dims.
    ///
    /// # Errors
    /// If the axis is out of range.
    pub fn sizes(&self, x: &[usize]) -> Result<(usize, usize, usize)> {
        // A coerced axis may point past the last one (rows of one element).
        if self.coerced && self.axis == x.len() as i64 {
            return Ok((element_count(x)?, 1, 1));
        }
        if x.is_empty() && matches!(self.axis, -1 | 0) {
            return Ok((1, 1, 1));
        }
        let a = axis(self.axis, x.len())?;
        let outer = element_count(&x[..a])?;
        Ok(if self.coerced { (outer, element_count(&x[a..])?, 1) } else { (outer, x[a], element_count(&x[a + 1..])?) })
    }
}

impl Family for Softmax {
    fn infer(&self, cx: &Infer) -> Result<Vec<Fact>> {
        let x = cx.fact(0)?;
        if let Some(rank) = x.shape.rank() {
            self.sizes(&vec![1; rank])?;
        }
        Ok(vec![x.clone()])
    }

    fn charge(&self, cx: &CostCx) -> Charge {
        Charge::of((|| {
            let (outer, row, inner) = self.sizes(&cx.dims(0)?).ok()?;
            let (rows, elements) = (product([outer, inner])?, product([outer, row, inner])?);
            if elements == 0 {
                return Some(Work::NONE);
            }
            Some(Work::other(match self.kind {
                Kind::Soft => elements.checked_mul(5)?,
                Kind::Log => elements.checked_mul(5)?.checked_add(rows)?,
                Kind::Hard => elements,
            }))
        })())
    }

    fn eval(&self, cx: &EvalCx, inputs: &Inputs) -> Result<Vec<Tensor>> {
        let x = input(inputs, 0)?;
        if x.is_empty() {
            return Ok(vec![x.clone()]);
        }
        let (outer, row, inner) = self.sizes(x.dims())?;
        with_num!(cx.arith, x.dtype(), T => {
            let mut y = T::load(x)?;
            let mut buffer = Vec::with_capacity(row);
            for at in (0..outer).flat_map(|o| (0..inner).map(move |i| o * row * inner + i)) {
                buffer.clear();
                buffer.extend((0..row).map(|r| y[at + r * inner]));
                self.row(&mut buffer);
                for (r, &v) in buffer.iter().enumerate() {
                    y[at + r * inner] = v;
                }
            }
            Ok(vec![T::store(y, x.dims())?])
        })
    }
}

impl Softmax {
    fn row<T: Num>(&self, x: &mut [T]) {
        match self.kind {
            Kind::Soft => softmax(x),
            Kind::Log => log_softmax(x),
            Kind::Hard => {
                let (mut best, mut at) = (T::of(f64::NEG_INFINITY), 0);
                for (i, &v) in x.iter().enumerate() {
                    if v.gt(best) {
                        (best, at) = (v, i);
                    }
                }
                for (i, v) in x.iter_mut().enumerate() {
                    *v = T::of(f64::from(u8::from(i == at)));
                }
            }
        }
    }
}

fn maximum<T: Num>(x: &[T]) -> T {
    x.iter().fold(T::of(f64::NEG_INFINITY), |m, &v| m.max_nan(v))
}

/// Softmax of a row in place: 5 FLOPs per element.
pub fn softmax<T: Num>(x: &mut [T]) {
    let max = maximum(x);
    let mut sum = T::zero();
    for v in x.iter_mut() {
        *v = (*v - max).exp();
        sum = sum + *v;
    }
    x.iter_mut().for_each(|v| *v = *v / sum);
}

/// Logarithm of the softmax of a row in place: 5 FLOPs per element and one more.
pub fn log_softmax<T: Num>(x: &mut [T]) {
    let max = maximum(x);
    let mut sum = T::zero();
    for v in x.iter_mut() {
        *v = *v - max;
        sum = sum + v.exp();
    }
    let log = sum.apply(f64::ln);
    x.iter_mut().for_each(|v| *v = *v - log);
}

fn cases() -> Vec<Case> {
    let f = sample::floats;
    let along = |a: i64| [("axis", Attr::Int(a))];
    let mut all = Vec::new();
    for name in ["Softmax", "LogSoftmax", "Hardmax"] {
        all.extend([
            Case::new(name, &[], vec![f(&[2, 3, 5], 1)]),
            Case::new(name, &along(1), vec![f(&[2, 3, 4, 5], 2)]),
            Case::new(name, &along(-3), vec![f(&[2, 3, 5], 3)]),
            Case::new(name, &[], vec![f(&[2, 3, 4], 4)]).opset(11),
            Case::new(name, &along(2), vec![f(&[2, 3, 4, 2], 5)]).opset(7),
            Case::new(name, &[], vec![f(&[3, 0], 6)]),
            Case::new(name, &[], vec![f(&[], 7)]),
        ]);
    }
    all
}
