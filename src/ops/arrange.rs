//! Trilu and ReverseSequence.
//!
//! <https://onnx.ai/onnx/operators/onnx__Trilu.html>, <https://onnx.ai/onnx/operators/onnx__ReverseSequence.html>.
//!
//! Cost: no arithmetic; every byte moves.

use super::elements::{Elements, Writer};
use super::spec::{Attr, NodeSpec};
use super::{Case, Charge, CostCx, Entry, EvalCx, Family, Infer, Inputs, Op, Role, input, opt, sample};
use crate::error::{Error, Result};
use crate::tensor::{Fact, Tensor};

/// The family's table rows.
pub const ENTRIES: &[Entry] = &[
    Entry { domain: "", name: "Trilu", parse: Arrange::trilu, cases },
    Entry { domain: "", name: "ReverseSequence", parse: Arrange::reverse, cases },
];

/// An operator that rearranges its input in place.
#[derive(Debug, Clone)]
pub enum Arrange {
    /// Keeps a triangle of the last two axes, zero elsewhere; input 1 is the diagonal.
    Trilu {
        /// The upper triangle rather than the lower one.
        upper: bool,
    },
    /// Reverses a prefix of the time axis, of its own length for each batch element.
    ReverseSequence {
        /// Whether time is axis 0 and batch axis 1, rather than the other way round.
        time_first: bool,
    },
}

impl Arrange {
    fn trilu(node: &NodeSpec) -> Result<Op> {
        node.expect_inputs(1, 2)?;
        Ok(Op::Arrange(Arrange::Trilu { upper: node.flag("upper", true)? }))
    }
    fn reverse(node: &NodeSpec) -> Result<Op> {
        node.expect_inputs(2, 2)?;
        let time_first = match (node.int("time_axis", 0)?, node.int("batch_axis", 1)?) {
            (0, 1) => true,
            (1, 0) => false,
            _ => return Err(Error::input("time_axis and batch_axis must be 0 and 1 or 1 and 0").at_attribute("time_axis")),
        };
        Ok(Op::Arrange(Arrange::ReverseSequence { time_first }))
    }
}

impl Family for Arrange {
    fn infer(&self, cx: &Infer) -> Result<Vec<Fact>> {
        let x = cx.fact(0)?;
        if x.shape.rank().is_some_and(|r| r < 2) {
            return Err(Error::input(format!("needs at least two axes, not {}", x.shape)));
        }
        Ok(vec![x.clone()])
    }
    fn charge(&self, _cx: &CostCx) -> Charge {
        Charge::FREE
    }
    fn eval(&self, _cx: &EvalCx, inputs: &Inputs) -> Result<Vec<Tensor>> {
        let x = input(inputs, 0)?;
        let d = x.dims();
        if d.len() < 2 {
            return Err(Error::input(format!("needs at least two axes, not {}", x.fact())));
        }
        if x.is_empty() {
            return Ok(vec![x.clone()]);
        }
        let cells = Elements::of(x)?;
        let mut y = Writer::new(x.dtype(), d)?;
        match self {
            Arrange::Trilu { upper } => {
                let k = match opt(inputs, 1) {
                    Some(k) => k.to_i64s()?.first().copied().unwrap_or(0),
                    None => 0,
                };
                let zero = Tensor::zeros(x.dtype(), &[])?;
                let zero = Elements::of(&zero)?;
                let (rows, cols) = (d[d.len() - 2], d[d.len() - 1]);
                for row in 0..x.len() / cols {
                    // First column right of the kept or zeroed left part.
                    let diagonal = (row % rows) as i128 + i128::from(k) + i128::from(!upper);
                    let left = diagonal.clamp(0, cols as i128) as usize;
                    let at = row * cols;
                    if *upper {
                        y.fill(&zero, left);
                        y.run(&cells, at + left, cols - left);
                    } else {
                        y.run(&cells, at, left);
                        y.fill(&zero, cols - left);
                    }
                }
            }
            Arrange::ReverseSequence { time_first } => {
                let lens = input(inputs, 1)?.to_i64s()?;
                let (times, batch) = if *time_first { (d[0], d[1]) } else { (d[1], d[0]) };
                if lens.len() != batch {
                    return Err(Error::input(format!("{} sequence lengths for a batch of {batch}", lens.len())));
                }
                let block: usize = d[2..].iter().product();
                for i in 0..d[0] {
                    for j in 0..d[1] {
                        let (t, b) = if *time_first { (i, j) } else { (j, i) };
                        let len = usize::try_from(lens[b]).ok().filter(|&n| n <= times).ok_or_else(|| {
                            Error::run(format!("sequence length {} on a time axis of {times}", lens[b]))
                        })?;
                        let from = if t < len { len - 1 - t } else { t };
                        let at = if *time_first { from * batch + b } else { b * times + from };
                        y.run(&cells, at * block, block);
                    }
                }
            }
        }
        Ok(vec![y.finish()?])
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
    let k = |v: i64| Tensor::scalar(v);
    let lower = [("upper", Attr::Int(0))];
    let batch_first = [("time_axis", Attr::Int(1)), ("batch_axis", Attr::Int(0))];
    vec![
        Case::new("Trilu", &[], vec![f(&[2, 3, 4], 1)]),
        Case::new("Trilu", &lower, vec![f(&[4, 3], 1), k(-1)]),
        Case::new("Trilu", &lower, vec![f(&[4, 3], 1), k(i64::MAX)]),
        Case::new("Trilu", &[], vec![f(&[3, 0], 1), k(1)]),
        Case::new("ReverseSequence", &[], vec![f(&[4, 3, 2], 1), i(&[4, 0, 2])]),
        Case::new("ReverseSequence", &batch_first, vec![f(&[2, 4], 1), i(&[1, 3])]),
    ]
}
