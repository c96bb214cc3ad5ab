//! Scatter, ScatterElements, ScatterND, TensorScatter: the input with some elements replaced or combined.
//!
//! <https://onnx.ai/onnx/operators/onnx__Scatter.html>, <https://onnx.ai/onnx/operators/onnx__ScatterElements.html>,
//! <https://onnx.ai/onnx/operators/onnx__ScatterND.html>, <https://onnx.ai/onnx/operators/onnx__TensorScatter.html>.
//!
//! Cost: replacing is free; with a reduction (add, mul, max, min) one FLOP per update of floating-point data.

use super::dims;
use super::elements::{Elements, from_ints, ints};
use super::gather::{element_offsets, position, tuple_offsets};
use super::spec::{Attr, NodeSpec};
use super::{Case, Charge, CostCx, Entry, EvalCx, Family, Infer, Inputs, Op, Role, input, opt, sample};
use crate::cost::Work;
use crate::error::{Error, Result};
use crate::tensor::{Fact, Num, Tensor, is_num};
use crate::with_num;

/// The family's table rows.
pub const ENTRIES: &[Entry] = &[
    Entry { domain: "", name: "Scatter", parse: Scatter::elements, cases },
    Entry { domain: "", name: "ScatterElements", parse: Scatter::elements, cases },
    Entry { domain: "", name: "ScatterND", parse: Scatter::nd, cases },
    Entry { domain: "", name: "TensorScatter", parse: Scatter::cache, cases },
];

/// How an update meets what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reduction {
    /// Replaces it.
    None,
    /// Sum.
    Add,
    /// Product.
    Mul,
    /// Larger.
    Max,
    /// Smaller.
    Min,
}

/// Writes updates into a copy of input 0.
#[derive(Debug, Clone)]
pub enum Scatter {
    /// Single elements: the index replaces one coordinate.
    Elements {
        /// Axis of that coordinate.
        axis: i64,
        /// What to do with the element there.
        reduction: Reduction,
    },
    /// Slices addressed by tuples of leading coordinates.
    Nd(Reduction),
    /// A cache updated from a position per batch element.
    Cache {
        /// The sequence axis.
        axis: i64,
        /// Whether positions wrap around.
        circular: bool,
    },
}

fn reduction(node: &NodeSpec) -> Result<Reduction> {
    Ok(match node.str("reduction", "none")? {
        "none" => Reduction::None,
        "add" => Reduction::Add,
        "mul" => Reduction::Mul,
        "max" => Reduction::Max,
        "min" => Reduction::Min,
        other => return Err(Error::input(format!("'{other}' is not a reduction")).at_attribute("reduction")),
    })
}

impl Scatter {
    fn elements(node: &NodeSpec) -> Result<Op> {
        node.expect_inputs(3, 3)?;
        Ok(Op::Scatter(Scatter::Elements { axis: node.int("axis", 0)?, reduction: reduction(node)? }))
    }
    fn nd(node: &NodeSpec) -> Result<Op> {
        node.expect_inputs(3, 3)?;
        Ok(Op::Scatter(Scatter::Nd(reduction(node)?)))
    }
    fn cache(node: &NodeSpec) -> Result<Op> {
        node.expect_inputs(2, 3)?;
        let circular = match node.str("mode", "linear")? {
            "linear" => false,
            "circular" => true,
            other => return Err(Error::input(format!("'{other}' is neither linear nor circular")).at_attribute("mode")),
        };
        Ok(Op::Scatter(Scatter::Cache { axis: node.int("axis", -2)?, circular }))
    }
    fn reduction(&self) -> Reduction {
        match self {
            Scatter::Elements { reduction, .. } | Scatter::Nd(reduction) => *reduction,
            Scatter::Cache { .. } => Reduction::None,
        }
    }
    fn updates(&self) -> usize {
        if matches!(self, Scatter::Cache { .. }) { 1 } else { 2 }
    }
}

impl Family for Scatter {
    fn infer(&self, cx: &Infer) -> Result<Vec<Fact>> {
        let x = cx.fact(0)?;
        if let (Scatter::Elements { axis, .. } | Scatter::Cache { axis, .. }, Some(rank)) = (self, x.shape.rank()) {
            dims::axis(*axis, rank)?;
        }
        Ok(vec![x.clone()])
    }
    fn charge(&self, cx: &CostCx) -> Charge {
        if self.reduction() == Reduction::None {
            return Charge::FREE;
        }
        match cx.dtype(0) {
            Some(d) if d.is_float() => Charge::of(cx.elements(self.updates()).map(Work::other)),
            Some(_) => Charge::FREE,
            None => Charge::Unknown,
        }
    }
    fn eval(&self, cx: &EvalCx, inputs: &Inputs) -> Result<Vec<Tensor>> {
        let x = input(inputs, 0)?;
        let updates = input(inputs, self.updates())?;
        // (elements per update, the number of each addressed slice, in the order of the updates)
        let (block, starts) = match self {
            Scatter::Elements { axis, .. } => {
                let at = input(inputs, 1)?;
                let a = dims::axis(*axis, x.rank())?;
                if at.rank() != x.rank() || at.dims() != updates.dims() {
                    return Err(Error::input(format!("data {}, indices {}, updates {}", x.fact(), at.fact(), updates.fact())));
                }
                (1, element_offsets(x.dims(), a, at.dims(), &at.to_i64s()?).collect::<Result<Vec<_>>>()?)
            }
            Scatter::Nd(_) => {
                let at = input(inputs, 1)?;
                let (block, starts) = tuple_offsets(x.dims(), at.dims(), &at.to_i64s()?, 0)?;
                if starts.len().checked_mul(block) != Some(updates.len()) {
                    let want = starts.len().saturating_mul(block);
                    return Err(Error::input(format!("{} updates where the indices address {want} elements", updates.len())));
                }
                (block, starts)
            }
            Scatter::Cache { axis, circular } => cache_offsets(x, updates, opt(inputs, 2), *axis, *circular)?,
        };
        let updated = match self.reduction() {
            Reduction::None => {
                let (mut y, new) = (Elements::of(x)?, Elements::of(updates)?);
                for (i, &s) in starts.iter().enumerate() {
                    y.set(s * block, &new, i * block, block)?;
                }
                return Ok(vec![y.into_tensor(x.dims())?]);
            }
            other => other,
        };
        if x.dtype() != updates.dtype() {
            return Err(Error::input(format!("{} updates of {} data", updates.dtype(), x.dtype())));
        }
        let offsets = starts.iter().flat_map(|s| s * block..(s + 1) * block);
        if is_num(x.dtype()) {
            return with_num!(cx.arith, x.dtype(), T => {
                let (mut y, new) = (T::load(x)?, T::load(updates)?);
                for (at, &u) in offsets.zip(&new) {
                    y[at] = match updated {
                        Reduction::Add => y[at] + u,
                        Reduction::Mul => y[at] * u,
                        Reduction::Max => y[at].max_nan(u),
                        Reduction::Min => y[at].min_nan(u),
                        Reduction::None => u,
                    };
                }
                Ok(vec![T::store(y, x.dims())?])
            });
        }
        let (mut y, new) = (ints(x)?, ints(updates)?);
        for (at, &u) in offsets.zip(&new) {
            y[at] = match updated {
                Reduction::Add => y[at].wrapping_add(u),
                Reduction::Mul => y[at].wrapping_mul(u),
                Reduction::Max => y[at].max(u),
                Reduction::Min => y[at].min(u),
                Reduction::None => u,
            };
        }
        Ok(vec![from_ints(x.dtype(), &y, x.dims())?])
    }
    fn role(&self, i: usize) -> Role {
        if i == 0 || i == self.updates() { Role::Data } else { Role::Setting }
    }
    fn handles_narrow(&self) -> bool {
        self.reduction() == Reduction::None
    }
}

fn cache_offsets(
    x: &Tensor,
    new: &Tensor,
    at: Option<&Tensor>,
    axis: i64,
    circular: bool,
) -> Result<(usize, Vec<usize>)> {
    let a = dims::axis(axis, x.rank())?;
    if a == 0 {
        return Err(Error::input("must not be the batch axis").at_attribute("axis"));
    }
    let (d, n) = (x.dims(), new.dims());
    if d.len() != n.len() || (0..d.len()).any(|i| i != a && d[i] != n[i]) {
        return Err(Error::input(format!("a cache {} and an update {}", x.fact(), new.fact())));
    }
    let first = match at {
        Some(t) if t.len() == d[0] => t.to_i64s()?,
        Some(t) => return Err(Error::input(format!("{} write positions for a batch of {}", t.len(), d[0]))),
        None => vec![0; d[0]],
    };
    let block: usize = d[a + 1..].iter().product();
    let middle: usize = d[1..a].iter().product();
    let mut starts = Vec::with_capacity(d[0] * middle * n[a]);
    for (b, &first) in first.iter().enumerate() {
        for m in 0..middle {
            for s in 0..n[a] {
                let p = i128::from(first) + s as i128;
                let p = if circular && d[a] > 0 { p.rem_euclid(d[a] as i128) } else { p };
                let p = i64::try_from(p).ok().filter(|&p| p >= 0).unwrap_or(i64::MAX);
                starts.push((b * middle + m) * d[a] + position(p, d[a])?);
            }
        }
    }
    Ok((block, starts))
}

fn cases() -> Vec<Case> {
    let (f, i) = (sample::floats, sample::ints);
    let shaped = |v: &[i64], dims: &[usize]| Tensor::from_vec(v.to_vec(), dims).unwrap_or_else(|_| i(v));
    let how = |r: &str| ("reduction", Attr::Str(r.into()));
    let mut all = vec![
        Case::new("Scatter", &[], vec![f(&[3, 3], 1), shaped(&[1, 0, 2], &[1, 3]), f(&[1, 3], 2)]).opset(9),
        Case::new("ScatterElements", &[("axis", Attr::Int(-1))], vec![f(&[2, 3], 1), shaped(&[1, -1], &[2, 1]), f(&[2, 1], 2)]),
        Case::new("ScatterElements", &[how("add")], vec![i(&[1, 2, 3]), i(&[0, 0]), i(&[5, 6])]),
        Case::new("ScatterND", &[], vec![f(&[4, 3], 1), shaped(&[0, 2], &[2, 1]), f(&[2, 3], 2)]),
        Case::new("TensorScatter", &[], vec![f(&[2, 1, 4, 3], 1), f(&[2, 1, 2, 3], 2), i(&[1, 2])]),
        Case::with_optional(
            "TensorScatter",
            &[("mode", Attr::Str("circular".into())), ("axis", Attr::Int(1))],
            vec![Some(f(&[2, 4, 3], 1)), Some(f(&[2, 2, 3], 2)), Some(i(&[3, 7]))],
            1,
        ),
    ];
    for r in ["add", "mul", "max", "min"] {
        let inputs = vec![f(&[4, 3], 1), shaped(&[0, 2, 2, 1], &[2, 2]), f(&[2], 2)];
        all.push(Case::new("ScatterND", &[how(r)], inputs));
        let inputs = vec![f(&[4, 3], 1), shaped(&[0, 2, 0, 1, 1, 1], &[2, 3]), f(&[2, 3], 2)];
        all.push(Case::new("ScatterElements", &[how(r)], inputs));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_outside_the_data_is_an_error_of_the_run() {
        let op = Scatter::Nd(Reduction::None);
        let (x, at, new) = (sample::floats(&[2], 1), Tensor::from_vec(vec![2i64], &[1, 1]).unwrap(), sample::floats(&[1], 2));
        let e = op.eval(&EvalCx::default(), &[Some(&x), Some(&at), Some(&new)]).unwrap_err();
        assert_eq!(e.kind(), crate::error::Kind::Run);
    }
}
