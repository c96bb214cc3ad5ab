//! Transpose, DepthToSpace, SpaceToDepth: the same elements in another order.
//!
//! <https://onnx.ai/onnx/operators/onnx__Transpose.html>, <https://onnx.ai/onnx/operators/onnx__DepthToSpace.html>,
//! <https://onnx.ai/onnx/operators/onnx__SpaceToDepth.html>.
//!
//! Cost: no arithmetic; every byte moves.

use super::dims;
use super::elements::strided_copy;
use super::spec::{Attr, NodeSpec};
use super::{Case, Charge, CostCx, Entry, EvalCx, Family, Infer, Inputs, Op, input, sample};
use crate::error::{Error, Result};
use crate::tensor::{DType, Dim, Fact, Shape, Tensor};

/// The family's table rows.
pub const ENTRIES: &[Entry] = &[
    Entry { domain: "", name: "Transpose", parse: Transpose::transpose, cases },
    Entry { domain: "", name: "DepthToSpace", parse: Transpose::depth_to_space, cases },
    Entry { domain: "", name: "SpaceToDepth", parse: Transpose::space_to_depth, cases },
];

/// An operator that permutes axes, possibly after splitting them.
#[derive(Debug, Clone)]
pub enum Transpose {
    /// Transpose; `None` reverses the axes.
    Axes(Option<Vec<usize>>),
    /// The first axis goes to the last place but one (FusedMatMul's batch transposition).
    FirstInward,
    /// `[n, c, h, w]` to `[n, c/b², h·b, w·b]`.
    DepthToSpace {
        /// Block size b.
        block: usize,
        /// Whether a block's elements lie in neighbouring channels (CRD) instead of whole channel groups (DCR).
        column_row_depth: bool,
    },
    /// `[n, c, h, w]` to `[n, c·b², h/b, w/b]`.
    SpaceToDepth {
        /// Block size b.
        block: usize,
        /// Whether a block's elements go to neighbouring channels (CRD) instead of whole channel groups (DCR).
        column_row_depth: bool,
    },
}

fn block(node: &NodeSpec) -> Result<usize> {
    node.expect_inputs(1, 1)?;
    let b = node.opt_size("blocksize")?.filter(|&b| b > 0 && b < 1 << 16);
    b.ok_or_else(|| Error::input("must be a positive size").at_attribute("blocksize"))
}

fn column_row_depth(node: &NodeSpec) -> Result<bool> {
    match node.str("mode", "DCR")? {
        "DCR" => Ok(false),
        "CRD" => Ok(true),
        other => Err(Error::input(format!("'{other}' is neither DCR nor CRD")).at_attribute("mode")),
    }
}

impl Transpose {
    fn transpose(node: &NodeSpec) -> Result<Op> {
        node.expect_inputs(1, 1)?;
        let perm = match node.opt_ints("perm")? {
            None => None,
            Some(perm) => Some(dims::axes(&perm, perm.len()).map_err(|e| e.at_attribute("perm"))?),
        };
        Ok(Op::Transpose(Transpose::Axes(perm)))
    }
    fn depth_to_space(node: &NodeSpec) -> Result<Op> {
        Ok(Op::Transpose(Transpose::DepthToSpace { block: block(node)?, column_row_depth: column_row_depth(node)? }))
    }
    fn space_to_depth(node: &NodeSpec) -> Result<Op> {
        Ok(Op::Transpose(Transpose::SpaceToDepth { block: block(node)?, column_row_depth: column_row_depth(node)? }))
    }

    /// Axis order for an input of the given rank.
    ///
    /// # Errors
    /// If `perm` is for another rank.
    pub fn order(perm: &Option<Vec<usize>>, rank: usize) -> Result<Vec<usize>> {
        match perm {
            None => Ok((0..rank).rev().collect()),
            Some(p) if p.len() == rank => Ok(p.clone()),
            Some(p) => Err(Error::input(format!("orders {} axes of an input of rank {rank}", p.len()))
                .at_attribute("perm")),
        }
    }

    fn output(&self, x: &[Dim]) -> Result<Vec<Dim>> {
        let four = || -> Result<[Dim; 4]> {
            x.try_into().map_err(|_| Error::input(format!("needs [n, c, h, w], not rank {}", x.len())))
        };
        let times = |d: Dim, b: usize| d.and_then(|d| d.checked_mul(b));
        let over = |d: Dim, b: usize, what: &str| match d {
            Some(d) if !d.is_multiple_of(b) => Err(Error::input(format!("does not divide {what} {d}")).at_attribute("blocksize")),
            d => Ok(d.map(|d| d / b)),
        };
        match self {
            Transpose::Axes(perm) => Ok(Self::order(perm, x.len())?.into_iter().map(|a| x[a]).collect()),
            Transpose::FirstInward => Ok(first_inward(x.len()).into_iter().map(|a| x[a]).collect()),
            Transpose::DepthToSpace { block: b, .. } => {
                let [n, c, h, w] = four()?;
                Ok(vec![n, over(c, b * b, "the channels")?, times(h, *b), times(w, *b)])
            }
            Transpose::SpaceToDepth { block: b, .. } => {
                let [n, c, h, w] = four()?;
                Ok(vec![n, times(c, b * b), over(h, *b, "the height")?, over(w, *b, "the width")?])
            }
        }
    }
}

fn first_inward(rank: usize) -> Vec<usize> {
    match rank {
        0 | 1 => (0..rank).collect(),
        _ => (1..rank - 1).chain([0, rank - 1]).collect(),
    }
}

impl Family for Transpose {
    fn infer(&self, cx: &Infer) -> Result<Vec<Fact>> {
        let x = cx.fact(0)?;
        let shape = match (x.shape.dims(), self) {
            (Some(d), _) => Shape::partial(self.output(d)?),
            (None, Transpose::Axes(perm)) => perm.as_ref().map_or(Shape::UNKNOWN, |p| Shape::of_rank(p.len())),
            (None, Transpose::FirstInward) => Shape::UNKNOWN,
            (None, _) => Shape::of_rank(4),
        };
        Ok(vec![x.with_shape(shape)])
    }
    fn charge(&self, _cx: &CostCx) -> Charge {
        Charge::FREE
    }
    fn eval(&self, _cx: &EvalCx, inputs: &Inputs) -> Result<Vec<Tensor>> {
        let x = input(inputs, 0)?;
        let known: Vec<Dim> = x.dims().iter().map(|&d| Some(d)).collect();
        let out = Shape::partial(self.output(&known)?).concrete();
        let out = out.ok_or_else(|| Error::run("the output shape overflows"))?;
        // The input seen with its axes split, and the order in which those are written.
        let (split, order) = match self {
            Transpose::Axes(perm) => (x.dims().to_vec(), Self::order(perm, x.rank())?),
            Transpose::FirstInward => (x.dims().to_vec(), first_inward(x.rank())),
            Transpose::DepthToSpace { block: b, column_row_depth } => {
                let [n, c, h, w] = [x.dims()[0], out[1], x.dims()[2], x.dims()[3]];
                if *column_row_depth {
                    (vec![n, c, *b, *b, h, w], vec![0, 1, 4, 2, 5, 3])
                } else {
                    (vec![n, *b, *b, c, h, w], vec![0, 3, 4, 1, 5, 2])
                }
            }
            Transpose::SpaceToDepth { block: b, column_row_depth } => {
                let order = if *column_row_depth { vec![0, 1, 3, 5, 2, 4] } else { vec![0, 3, 5, 1, 2, 4] };
                (vec![out[0], x.dims()[1], out[2], *b, out[3], *b], order)
            }
        };
        let steps = dims::strides(&split);
        let moved: Vec<usize> = order.iter().map(|&a| split[a]).collect();
        let steps: Vec<usize> = order.iter().map(|&a| steps[a]).collect();
        Ok(vec![strided_copy(x, &moved, &steps)?.reshaped(&out)?])
    }
    fn handles_narrow(&self) -> bool {
        true
    }
}

fn cases() -> Vec<Case> {
    let f = sample::floats;
    let perm = |v: &[i64]| [("perm", Attr::Ints(v.to_vec()))];
    let strings = Tensor::from_strings((0..6).map(|i| i.to_string()).collect(), &[2, 3]);
    let packed = Tensor::from_vec_as(DType::U4, vec![0x21u8, 0x43, 0x65], &[2, 3]);
    let mut all = vec![
        Case::new("Transpose", &[], vec![f(&[2, 3, 4], 1)]),
        Case::new("Transpose", &perm(&[0, 2, 3, 1]), vec![f(&[2, 3, 4, 5], 1)]),
        Case::new("Transpose", &perm(&[]), vec![f(&[], 1)]),
        Case::new("Transpose", &perm(&[1, 0]), vec![f(&[0, 3], 1)]),
        Case::new("DepthToSpace", &[("blocksize", Attr::Int(2))], vec![f(&[1, 8, 2, 3], 1)]),
        Case::new(
            "DepthToSpace",
            &[("blocksize", Attr::Int(2)), ("mode", Attr::Str("CRD".into()))],
            vec![f(&[2, 4, 2, 3], 1)],
        ),
        Case::new("SpaceToDepth", &[("blocksize", Attr::Int(2))], vec![f(&[2, 3, 4, 6], 1)]),
    ];
    all.extend([strings, packed].into_iter().flatten().map(|t| Case::new("Transpose", &[], vec![t])));
    all
}
