//! Expand and Tile: repeating the input along axes.
//!
//! <https://onnx.ai/onnx/operators/onnx__Expand.html>, <https://onnx.ai/onnx/operators/onnx__Tile.html>.
//!
//! Cost: no arithmetic; the input is read once, the output written once.

use super::dims;
use super::elements::{axis_map, mapped_copy, strided_copy};
use super::spec::NodeSpec;
use super::{Case, Charge, CostCx, Entry, EvalCx, Family, Infer, Inputs, Op, Role, input, sample};
use crate::error::{Error, Result};
use crate::tensor::{Fact, Shape, Tensor, element_count};

/// The family's table rows.
pub const ENTRIES: &[Entry] = &[
    Entry { domain: "", name: "Expand", parse: Expand::expand, cases },
    Entry { domain: "", name: "Tile", parse: Expand::tile, cases },
];

/// Repeats a tensor.
#[derive(Debug, Clone)]
pub enum Expand {
    /// Broadcasts to a shape.
    Expand,
    /// Repeats each axis a number of times.
    Tile,
}

fn sizes(list: &[i64]) -> Result<Vec<usize>> {
    list.iter().map(|&v| usize::try_from(v).map_err(|_| Error::input(format!("{v} is not a size")))).collect()
}

impl Expand {
    fn expand(node: &NodeSpec) -> Result<Op> {
        node.expect_inputs(2, 2)?;
        Ok(Op::Expand(Expand::Expand))
    }
    fn tile(node: &NodeSpec) -> Result<Op> {
        node.expect_inputs(2, 2)?;
        Ok(Op::Expand(Expand::Tile))
    }
    fn output(&self, x: &Shape, given: &[i64]) -> Result<Shape> {
        let list = sizes(given)?;
        match self {
            Expand::Expand => dims::broadcast(&[x, &Shape::known(&list)]),
            Expand::Tile => {
                let Some(d) = x.dims() else { return Ok(Shape::of_rank(list.len())) };
                if d.len() != list.len() {
                    return Err(Error::input(format!("{} repeats for an input of rank {}", list.len(), d.len())));
                }
                Ok(Shape::partial(d.iter().zip(&list).map(|(d, &r)| dims::product(&[*d, Some(r)])).collect()))
            }
        }
    }
}

impl Family for Expand {
    fn infer(&self, cx: &Infer) -> Result<Vec<Fact>> {
        let x = cx.fact(0)?;
        let shape = match (cx.ints(1)?, self) {
            (Some(list), _) => self.output(&x.shape, &list)?,
            (None, Expand::Tile) => {
                x.shape.rank().or_else(|| cx.fact(1).ok()?.elements()).map_or(Shape::UNKNOWN, Shape::of_rank)
            }
            (None, Expand::Expand) => match (x.shape.dims(), cx.fact(1)?.elements()) {
                // A dim of the input that is known and not 1 can only stay (the other side is 1 or the same).
                (Some(d), Some(n)) => {
                    let mut out = vec![None; n.saturating_sub(d.len())];
                    out.extend(d.iter().map(|d| d.filter(|&d| d != 1)));
                    Shape::partial(out)
                }
                _ => Shape::UNKNOWN,
            },
        };
        Ok(vec![x.with_shape(shape)])
    }
    fn charge(&self, _cx: &CostCx) -> Charge {
        Charge::FREE
    }
    fn eval(&self, _cx: &EvalCx, inputs: &Inputs) -> Result<Vec<Tensor>> {
        let x = input(inputs, 0)?;
        let list = input(inputs, 1)?.to_i64s()?;
        let out = self.output(&Shape::known(x.dims()), &list)?.concrete();
        let out = out.ok_or_else(|| Error::run("the output shape overflows"))?;
        if element_count(&out)? == 0 {
            return Ok(vec![Tensor::zeros(x.dtype(), &out)?]);
        }
        match self {
            Expand::Expand => {
                let own = dims::strides(x.dims());
                let lead = out.len() - x.rank();
                let step = |a: usize| match a.checked_sub(lead) {
                    Some(i) if x.dims()[i] != 1 => own[i],
                    _ => 0,
                };
                let steps: Vec<usize> = (0..out.len()).map(step).collect();
                Ok(vec![strided_copy(x, &out, &steps)?])
            }
            Expand::Tile => {
                let maps = x.dims().iter().zip(&out).map(|(&d, &n)| axis_map(n, |i| Some(i % d))).collect::<Result<Vec<_>>>()?;
                Ok(vec![mapped_copy(x, &maps, &Tensor::zeros(x.dtype(), &[])?)?])
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

fn cases() -> Vec<Case> {
    let (f, i) = (sample::floats, sample::ints);
    vec![
        Case::new("Expand", &[], vec![f(&[3, 1], 1), i(&[2, 1, 4])]),
        Case::new("Expand", &[], vec![f(&[3, 2], 1), i(&[1])]),
        Case::new("Expand", &[], vec![f(&[], 1), i(&[2, 0])]),
        Case::new("Tile", &[], vec![f(&[2, 3], 1), i(&[2, 3])]),
        Case::new("Tile", &[], vec![f(&[2, 1, 3], 1), i(&[1, 4, 1])]),
        Case::new("Tile", &[], vec![f(&[2, 3], 1), i(&[0, 3])]),
    ]
}
