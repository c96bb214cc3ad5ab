//! Gather, GatherElements, GatherND: elements picked by index.
//!
//! <https://onnx.ai/onnx/operators/onnx__Gather.html>, <https://onnx.ai/onnx/operators/onnx__GatherElements.html>,
//! <https://onnx.ai/onnx/operators/onnx__GatherND.html>.
//!
//! Cost: no arithmetic; of the data only as much is read as is written.

use super::dims;
use super::elements::{Elements, Writer, mapped_copy, whole_maps};
use super::spec::{Attr, NodeSpec};
use super::{Access, Case, Charge, CostCx, Entry, EvalCx, Family, Infer, Inputs, Op, Role, input, sample};
use crate::error::{Error, Result};
use crate::tensor::{Dim, Fact, Shape, Tensor, element_count};

/// The family's table rows.
pub const ENTRIES: &[Entry] = &[
    Entry { domain: "", name: "Gather", parse: Gather::gather, cases },
    Entry { domain: "", name: "GatherElements", parse: Gather::elements, cases },
    Entry { domain: "", name: "GatherND", parse: Gather::nd, cases },
];

/// Picks elements of input 0 by the indices in input 1.
#[derive(Debug, Clone)]
pub enum Gather {
    /// Whole slices along one axis (embedding look-up).
    Axis(i64),
    /// Single elements: the index replaces one coordinate.
    Elements(i64),
    /// Slices addressed by tuples of leading coordinates.
    Nd {
        /// Leading axes shared by data and indices.
        batch_dims: usize,
    },
}

/// An index into an axis of size `dim`; negative from the end.
///
/// # Errors
/// If it is out of range: only the data can tell, so it is a failure of the run.
pub fn position(index: i64, dim: usize) -> Result<usize> {
    let from_front = if index < 0 { index.checked_add_unsigned(dim as u64) } else { Some(index) };
    from_front
        .and_then(|i| usize::try_from(i).ok())
        .filter(|&i| i < dim)
        .ok_or_else(|| Error::run(format!("index {index} is out of range for an axis of {dim}")))
}

impl Gather {
    fn gather(node: &NodeSpec) -> Result<Op> {
        node.expect_inputs(2, 2)?;
        Ok(Op::Gather(Gather::Axis(node.int("axis", 0)?)))
    }
    fn elements(node: &NodeSpec) -> Result<Op> {
        node.expect_inputs(2, 2)?;
        Ok(Op::Gather(Gather::Elements(node.int("axis", 0)?)))
    }
    fn nd(node: &NodeSpec) -> Result<Op> {
        node.expect_inputs(2, 2)?;
        Ok(Op::Gather(Gather::Nd { batch_dims: node.opt_size("batch_dims")?.unwrap_or(0) }))
    }

    fn output(&self, x: &[Dim], i: &[Dim]) -> Result<Shape> {
        match self {
            Gather::Axis(axis) => {
                let a = dims::axis(*axis, x.len())?;
                Ok(Shape::partial(x[..a].iter().chain(i).chain(&x[a + 1..]).copied().collect()))
            }
            Gather::Elements(axis) => {
                dims::axis(*axis, x.len())?;
                if x.len() != i.len() {
                    return Err(Error::input(format!("data of rank {} and indices of rank {}", x.len(), i.len())));
                }
                Ok(Shape::partial(i.to_vec()))
            }
            Gather::Nd { batch_dims: b } => {
                let Some((&tuple, outer)) = i.split_last() else {
                    return Err(Error::input("indices must have at least one axis"));
                };
                if *b > outer.len() || *b > x.len() {
                    return Err(Error::input("exceeds the rank of data or indices").at_attribute("batch_dims"));
                }
                for (x, i) in x.iter().zip(i).take(*b) {
                    dims::unify(*x, *i)?;
                }
                let Some(n) = tuple else { return Ok(Shape::UNKNOWN) };
                let rest = b.checked_add(n).and_then(|at| x.get(at..)).ok_or_else(|| {
                    Error::input(format!("indices of {n} coordinates into data of rank {}", x.len()))
                })?;
                Ok(Shape::partial(outer.iter().chain(rest).copied().collect()))
            }
        }
    }
}

impl Family for Gather {
    fn infer(&self, cx: &Infer) -> Result<Vec<Fact>> {
        let (x, i) = (cx.fact(0)?, cx.fact(1)?);
        let shape = match (x.shape.dims(), i.shape.dims()) {
            (Some(x), Some(i)) => self.output(x, i)?,
            (None, Some(i)) if matches!(self, Gather::Elements(_)) => Shape::partial(i.to_vec()),
            _ => Shape::UNKNOWN,
        };
        Ok(vec![x.with_shape(shape)])
    }
    fn charge(&self, _cx: &CostCx) -> Charge {
        Charge::FREE
    }
    fn eval(&self, _cx: &EvalCx, inputs: &Inputs) -> Result<Vec<Tensor>> {
        let (x, at) = (input(inputs, 0)?, input(inputs, 1)?);
        let known = |t: &Tensor| t.dims().iter().map(|&d| Some(d)).collect::<Vec<Dim>>();
        let out = self.output(&known(x), &known(at))?.concrete();
        let out = out.ok_or_else(|| Error::run("the output shape overflows"))?;
        let indices = at.to_i64s()?;
        if element_count(&out)? == 0 {
            return Ok(vec![Tensor::zeros(x.dtype(), &out)?]);
        }
        match self {
            Gather::Axis(axis) => {
                let a = dims::axis(*axis, x.rank())?;
                let mut maps = whole_maps(x.dims())?;
                maps[a] = indices.iter().map(|&i| position(i, x.dims()[a]).map(Some)).collect::<Result<_>>()?;
                mapped_copy(x, &maps, &Tensor::zeros(x.dtype(), &[])?)?.reshaped(&out).map(|t| vec![t])
            }
            Gather::Elements(axis) => {
                let a = dims::axis(*axis, x.rank())?;
                let cells = Elements::of(x)?;
                let mut y = Writer::new(x.dtype(), &out)?;
                for from in element_offsets(x.dims(), a, &out, &indices) {
                    y.run(&cells, from?, 1);
                }
                Ok(vec![y.finish()?])
            }
            Gather::Nd { batch_dims } => {
                let (block, starts) = tuple_offsets(x.dims(), at.dims(), &indices, *batch_dims)?;
                let cells = Elements::of(x)?;
                let mut y = Writer::new(x.dtype(), &out)?;
                for from in starts {
                    y.run(&cells, from * block, block);
                }
                Ok(vec![y.finish()?])
            }
        }
    }
    fn role(&self, i: usize) -> Role {
        if i == 0 { Role::Weight } else { Role::Setting }
    }
    fn access(&self) -> Access {
        Access::Selected
    }
    fn handles_narrow(&self) -> bool {
        true
    }
}

/// For each index (in row-major order of `index_dims`) the offset in data of dims `x` when it replaces coordinate `axis`.
pub(super) fn element_offsets<'a>(
    x: &'a [usize],
    axis: usize,
    index_dims: &'a [usize],
    indices: &'a [i64],
) -> impl Iterator<Item = Result<usize>> + 'a {
    let steps = dims::strides(x);
    let mut coordinate = vec![0; index_dims.len()];
    indices.iter().map(move |&i| {
        let mut offset = position(i, x[axis])? * steps[axis];
        for (a, &c) in coordinate.iter().enumerate() {
            if a != axis {
                if c >= x[a] {
                    return Err(Error::run(format!(
                        "indices of shape {} reach beyond data of shape {}",
                        Shape::known(index_dims),
                        Shape::known(x)
                    )));
                }
                offset += c * steps[a];
            }
        }
        super::window::advance(&mut coordinate, index_dims);
        Ok(offset)
    })
}

/// For GatherND and ScatterND: elements per addressed slice, and for each tuple of coordinates the number of that slice.
pub(super) fn tuple_offsets(
    x: &[usize],
    index_dims: &[usize],
    indices: &[i64],
    batch_dims: usize,
) -> Result<(usize, Vec<usize>)> {
    let Some((&n, outer)) = index_dims.split_last() else {
        return Err(Error::input("indices must have at least one axis"));
    };
    let inner = batch_dims.checked_add(n).and_then(|at| x.get(at..));
    let inner = inner.ok_or_else(|| Error::input(format!("indices of {n} coordinates into data of rank {}", x.len())))?;
    let block = inner.iter().product();
    let addressed = &x[batch_dims..batch_dims + n];
    let per_batch: usize = addressed.iter().product();
    let tuples: usize = outer.iter().product();
    let batches: usize = x[..batch_dims].iter().product();
    let tuples_per_batch = tuples.checked_div(batches).unwrap_or(0);
    let starts = (0..tuples).map(|t| {
        let tuple = &indices[t * n..(t + 1) * n];
        let slice = tuple.iter().zip(addressed).try_fold(0, |at, (&i, &d)| Ok(at * d + position(i, d)?))?;
        Ok(t.checked_div(tuples_per_batch).unwrap_or(0) * per_batch + slice)
    });
    Ok((block, starts.collect::<Result<_>>()?))
}

fn cases() -> Vec<Case> {
    let (f, i) = (sample::floats, sample::ints);
    let shaped = |v: &[i64], dims: &[usize]| Tensor::from_vec(v.to_vec(), dims).unwrap_or_else(|_| i(v));
    let axis = |a: i64| [("axis", Attr::Int(a))];
    let words = Tensor::from_strings(["a", "b", "c"].map(String::from).to_vec(), &[3]);
    let mut all = vec![
        Case::new("Gather", &[], vec![f(&[5, 3], 1), shaped(&[4, -1, 0, 2], &[2, 2])]),
        Case::new("Gather", &axis(-1), vec![f(&[2, 3, 4], 1), shaped(&[1], &[])]),
        Case::new("Gather", &axis(1), vec![f(&[2, 3, 4], 1), i(&[])]),
        Case::new("GatherElements", &axis(1), vec![f(&[2, 3], 1), shaped(&[0, -1, 2, 2], &[2, 2])]),
        Case::new("GatherElements", &[], vec![f(&[3, 2], 1), shaped(&[2, 0], &[1, 2])]),
        Case::new("GatherND", &[], vec![f(&[2, 3, 4], 1), shaped(&[0, 2, 1, -1], &[2, 2])]),
        Case::new("GatherND", &[("batch_dims", Attr::Int(1))], vec![f(&[2, 3, 4], 1), shaped(&[2, 0], &[2, 1])]),
        Case::new("GatherND", &[], vec![f(&[2, 2], 1), shaped(&[0, 1], &[2])]),
    ];
    all.extend(words.into_iter().map(|w| Case::new("Gather", &[], vec![w, i(&[2, 2])])));
    all
}
