//! Concat and Split.
//!
//! <https://onnx.ai/onnx/operators/onnx__Concat.html>, <https://onnx.ai/onnx/operators/onnx__Split.html>.
//!
//! Cost: no arithmetic; every byte moves.

use super::dims;
use super::elements::{Elements, Writer};
use super::spec::{Attr, NodeSpec};
use super::{Case, Charge, CostCx, Entry, EvalCx, Family, Infer, Inputs, Op, Role, input, opt, sample};
use crate::error::{Error, Result};
use crate::tensor::{Dim, Fact, Shape, Tensor};

/// The family's table rows.
pub const ENTRIES: &[Entry] = &[
    Entry { domain: "", name: "Concat", parse: Concat::concat, cases },
    Entry { domain: "", name: "Split", parse: Concat::split, cases },
];

/// Joining along an axis, or its opposite.
#[derive(Debug, Clone)]
pub enum Concat {
    /// Concat.
    Concat {
        /// Axis, negative from the end.
        axis: i64,
    },
    /// Split.
    Split {
        /// Axis, negative from the end.
        axis: i64,
        /// Sizes given as an attribute (before opset 13).
        sizes: Option<Vec<i64>>,
        /// Number of parts: `num_outputs`, or the number of outputs the node names.
        parts: usize,
        /// Whether parts may be unequal without sizes (opset 18: the last one is smaller).
        uneven: bool,
    },
}

impl Concat {
    fn concat(node: &NodeSpec) -> Result<Op> {
        node.expect_inputs(1, usize::MAX)?;
        let axis = node.opt_int("axis")?.ok_or_else(|| Error::input("is missing").at_attribute("axis"))?;
        Ok(Op::Concat(Concat::Concat { axis }))
    }
    fn split(node: &NodeSpec) -> Result<Op> {
        node.expect_inputs(1, 2)?;
        let parts = node.opt_size("num_outputs")?.unwrap_or(node.outputs.len());
        if parts == 0 || parts < node.outputs.len() || parts > 1 << 20 {
            return Err(Error::input(format!("{parts} parts for {} outputs", node.outputs.len()))
                .at_attribute("num_outputs"));
        }
        Ok(Op::Concat(Concat::Split {
            axis: node.int("axis", 0)?,
            sizes: node.opt_ints("split")?,
            parts,
            uneven: node.opset >= 18 || node.opset == 0,
        }))
    }

    /// Sizes of a Split's parts; unknown when the axis is and no sizes are given.
    fn sizes(&self, dim: Dim, given: Option<&[i64]>) -> Result<Vec<Dim>> {
        let Concat::Split { sizes, parts, uneven, .. } = self else { return Ok(vec![dim]) };
        if let Some(sizes) = sizes.as_deref().or(given) {
            let sizes: Vec<usize> = sizes
                .iter()
                .map(|&s| usize::try_from(s).map_err(|_| Error::input(format!("{s} is not a size")).at_attribute("split")))
                .collect::<Result<_>>()?;
            let sum = sizes.iter().try_fold(0usize, |n, &s| n.checked_add(s));
            if dim.is_some_and(|d| sum != Some(d)) || sizes.len() != *parts {
                return Err(Error::input(format!(
                    "sizes {} do not divide {} into {parts} parts",
                    Shape::known(&sizes),
                    Shape::partial(vec![dim])
                ))
                .at_attribute("split"));
            }
            return Ok(sizes.into_iter().map(Some).collect());
        }
        let Some(d) = dim else { return Ok(vec![None; *parts]) };
        if !uneven && d % parts != 0 {
            return Err(Error::input(format!("{d} does not divide into {parts} equal parts")).at_attribute("split"));
        }
        let each = d.div_ceil(*parts);
        Ok((0..*parts).map(|i| Some(d.saturating_sub(i * each).min(each))).collect())
    }
}

impl Family for Concat {
    fn infer(&self, cx: &Infer) -> Result<Vec<Fact>> {
        match self {
            Concat::Concat { axis } => {
                let facts: Vec<&Fact> = (0..cx.inputs.len()).map(|i| cx.fact(i)).collect::<Result<_>>()?;
                let first = facts.iter().find(|f| f.dtype.is_some()).unwrap_or(&facts[0]);
                let Some(rank) = facts.iter().find_map(|f| f.shape.rank()) else {
                    return Ok(vec![first.with_shape(Shape::UNKNOWN)]);
                };
                let at = dims::axis(*axis, rank)?;
                let mut out = vec![None; rank];
                let mut sum = Some(0usize);
                for f in &facts {
                    let Some(d) = f.shape.dims() else {
                        sum = None;
                        continue;
                    };
                    if d.len() != rank {
                        return Err(Error::input(format!("inputs of rank {rank} and {}", d.len())));
                    }
                    sum = match (sum, d[at]) {
                        (Some(n), Some(d)) => n.checked_add(d),
                        _ => None,
                    };
                    for a in (0..rank).filter(|&a| a != at) {
                        out[a] = dims::unify(out[a], d[a])?;
                    }
                }
                out[at] = sum;
                Ok(vec![first.with_shape(Shape::partial(out))])
            }
            Concat::Split { axis, parts, .. } => {
                let x = cx.fact(0)?;
                let Some(d) = x.shape.dims() else { return Ok(vec![x.with_shape(Shape::UNKNOWN); *parts]) };
                let at = dims::axis(*axis, d.len())?;
                let sizes = match (cx.opt(1), cx.ints(1)?) {
                    (Some(_), None) => vec![None; *parts],
                    (_, given) => self.sizes(d[at], given.as_deref())?,
                };
                let part = |size: Dim| {
                    let mut d = d.to_vec();
                    d[at] = size;
                    x.with_shape(Shape::partial(d))
                };
                Ok(sizes.into_iter().map(part).collect())
            }
        }
    }
    fn charge(&self, _cx: &CostCx) -> Charge {
        Charge::FREE
    }
    fn eval(&self, _cx: &EvalCx, inputs: &Inputs) -> Result<Vec<Tensor>> {
        let x = input(inputs, 0)?;
        match self {
            Concat::Concat { axis } => {
                let all: Vec<&Tensor> = (0..inputs.len()).map(|i| input(inputs, i)).collect::<Result<_>>()?;
                Ok(vec![concat(&all, dims::axis(*axis, x.rank())?)?])
            }
            Concat::Split { axis, .. } => {
                let at = dims::axis(*axis, x.rank())?;
                let given = opt(inputs, 1).map(Tensor::to_i64s).transpose()?;
                let sizes = self.sizes(Some(x.dims()[at]), given.as_deref())?;
                split(x, at, &sizes.into_iter().flatten().collect::<Vec<_>>())
            }
        }
    }
    fn role(&self, i: usize) -> Role {
        if matches!(self, Concat::Split { .. }) && i == 1 { Role::Setting } else { Role::Data }
    }
    fn handles_narrow(&self) -> bool {
        true
    }
}

/// Joins tensors along an axis.
///
/// # Errors
/// If types, ranks or the other dims differ.
pub fn concat(all: &[&Tensor], axis: usize) -> Result<Tensor> {
    let first = all.first().ok_or_else(|| Error::input("nothing to join"))?;
    let mut dims = first.dims().to_vec();
    let size = |t: &Tensor| t.dims().get(axis).copied().unwrap_or(0);
    for t in &all[1..] {
        let fits = t.rank() == dims.len()
            && t.dtype() == first.dtype()
            && (0..dims.len()).all(|a| a == axis || t.dims()[a] == dims[a]);
        if !fits {
            return Err(Error::input(format!("{} and {} do not join along axis {axis}", first.fact(), t.fact())));
        }
        dims[axis] = dims[axis].checked_add(size(t)).ok_or_else(|| Error::run("the output shape overflows"))?;
    }
    let mut out = Writer::new(first.dtype(), &dims)?;
    let outer: usize = dims[..axis].iter().product();
    let inner: usize = dims[axis + 1..].iter().product();
    let cells: Vec<Elements> = all.iter().map(|t| Elements::of(t)).collect::<Result<_>>()?;
    if inner > 0 {
        for o in 0..outer {
            for (t, c) in all.iter().zip(&cells) {
                out.run(c, o * size(t) * inner, size(t) * inner);
            }
        }
    }
    out.finish()
}

/// Cuts a tensor into parts of the given sizes along an axis; the sizes must sum to the axis.
///
/// # Errors
/// If they do not, or memory runs out.
pub fn split(x: &Tensor, axis: usize, sizes: &[usize]) -> Result<Vec<Tensor>> {
    let dim = x.dims()[axis];
    if sizes.iter().try_fold(0usize, |n, &s| n.checked_add(s)) != Some(dim) {
        return Err(Error::run(format!("parts {} of an axis of {dim}", Shape::known(sizes))));
    }
    let cells = Elements::of(x)?;
    let outer: usize = x.dims()[..axis].iter().product();
    let inner: usize = x.dims()[axis + 1..].iter().product();
    let mut from = 0;
    sizes
        .iter()
        .map(|&size| {
            let mut dims = x.dims().to_vec();
            dims[axis] = size;
            let mut out = Writer::new(x.dtype(), &dims)?;
            if inner > 0 {
                for o in 0..outer {
                    out.run(&cells, (o * dim + from) * inner, size * inner);
                }
            }
            from += size;
            out.finish()
        })
        .collect()
}

fn cases() -> Vec<Case> {
    let (f, i) = (sample::floats, sample::ints);
    let axis = |a: i64| ("axis", Attr::Int(a));
    vec![
        Case::new("Concat", &[axis(1)], vec![f(&[2, 3, 4], 1), f(&[2, 1, 4], 2), f(&[2, 0, 4], 3)]),
        Case::new("Concat", &[axis(-1)], vec![f(&[2, 3], 1), f(&[2, 1], 2)]),
        Case::new("Concat", &[axis(0)], vec![i(&[1, 2]), i(&[]), i(&[3])]),
        Case::with_optional("Split", &[axis(1)], vec![Some(f(&[2, 7], 1)), Some(i(&[3, 0, 4]))], 3),
        Case::with_optional("Split", &[axis(-1), ("num_outputs", Attr::Int(3))], vec![Some(f(&[2, 7], 1))], 3),
        Case::with_optional("Split", &[], vec![Some(f(&[4, 2], 1))], 2).opset(13),
        Case::with_optional("Split", &[("split", Attr::Ints(vec![1, 3]))], vec![Some(f(&[4, 2], 1))], 2).opset(11),
    ]
}
