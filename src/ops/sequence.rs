//! Sequences and optionals: SequenceConstruct, SequenceEmpty, SequenceAt, SequenceInsert, SequenceErase, SequenceLength,
//! SplitToSequence, ConcatFromSequence, Optional, OptionalGetElement, OptionalHasElement.
//!
//! <https://onnx.ai/onnx/operators/onnx__SequenceConstruct.html> and its neighbours,
//! <https://onnx.ai/onnx/operators/onnx__Optional.html>.
//!
//! Cost: no arithmetic. An optional that holds a value is that value.

use super::concat::{concat, split};
use super::dims::{self, either_fact};
use super::spec::{Attr, NodeSpec};
use super::{Access, Case, Charge, CostCx, Entry, EvalCx, Family, Infer, Inputs, Op, Role, input, opt, sample};
use crate::error::{Error, Result};
use crate::tensor::{Container, DType, Fact, Shape, Tensor};

const fn entry(name: &'static str) -> Entry {
    Entry { domain: "", name, parse: Sequence::parse, cases }
}

/// The family's table rows.
pub const ENTRIES: &[Entry] = &[
    entry("ConcatFromSequence"),
    entry("Optional"),
    entry("OptionalGetElement"),
    entry("OptionalHasElement"),
    entry("SequenceAt"),
    entry("SequenceConstruct"),
    entry("SequenceEmpty"),
    entry("SequenceErase"),
    entry("SequenceInsert"),
    entry("SequenceLength"),
    entry("SplitToSequence"),
];

/// An operator on sequences or optionals of tensors.
#[derive(Debug, Clone)]
pub enum Sequence {
    /// A sequence of the inputs.
    Construct,
    /// An empty sequence of a type.
    Empty(DType),
    /// The tensor at a position.
    At,
    /// A tensor put before a position (at the end if not given).
    Insert,
    /// The tensor at a position (the last if not given) taken out.
    Erase,
    /// Number of tensors.
    Length,
    /// Parts of a tensor: of given sizes, of one size, or single slices.
    Split {
        /// Axis.
        axis: i64,
        /// Single slices keep the axis.
        keep: bool,
    },
    /// All tensors joined along an axis.
    Concat {
        /// Axis.
        axis: i64,
        /// Along a new axis.
        new_axis: bool,
    },
    /// An optional holding the input, or nothing.
    Optional,
    /// What an optional holds.
    Get,
    /// Whether it holds something.
    Has,
}

impl Sequence {
    fn parse(node: &NodeSpec) -> Result<Op> {
        let (min, max, op) = match node.op_type.as_str() {
            "SequenceConstruct" => (1, usize::MAX, Sequence::Construct),
            "SequenceEmpty" => (0, 0, Sequence::Empty(node.opt_dtype("dtype")?.unwrap_or(DType::F32))),
            "SequenceAt" => (2, 2, Sequence::At),
            "SequenceInsert" => (2, 3, Sequence::Insert),
            "SequenceErase" => (1, 2, Sequence::Erase),
            "SequenceLength" => (1, 1, Sequence::Length),
            "SplitToSequence" => {
                (1, 2, Sequence::Split { axis: node.int("axis", 0)?, keep: node.flag("keepdims", true)? })
            }
            "ConcatFromSequence" => {
                let axis = node.opt_int("axis")?.ok_or_else(|| Error::input("is missing").at_attribute("axis"))?;
                (1, 1, Sequence::Concat { axis, new_axis: node.flag("new_axis", false)? })
            }
            "Optional" => (0, 1, Sequence::Optional),
            "OptionalGetElement" => (1, 1, Sequence::Get),
            "OptionalHasElement" => (0, 1, Sequence::Has),
            other => return Err(Error::unsupported(format!("{other} is not a sequence operator"))),
        };
        node.expect_inputs(min, max)?;
        Ok(Op::Sequence(op))
    }
}

fn sequence(fact: Fact) -> Fact {
    Fact { container: Container::Sequence, ..fact }
}

/// A position in a sequence of `n` (up to and with `n` itself where something is put).
fn position(at: Option<&Tensor>, n: usize, default: usize, end: usize) -> Result<usize> {
    let Some(t) = at else {
        return if default < end { Ok(default) } else { Err(Error::run("the sequence is empty")) };
    };
    let i = t.to_i64s()?.first().copied().ok_or_else(|| Error::input("an empty position"))?;
    let from_front = if i < 0 { i.checked_add_unsigned(n as u64) } else { Some(i) };
    from_front
        .and_then(|i| usize::try_from(i).ok())
        .filter(|&i| i < end)
        .ok_or_else(|| Error::run(format!("position {i} in a sequence of {n}")))
}

impl Family for Sequence {
    fn infer(&self, cx: &Infer) -> Result<Vec<Fact>> {
        let element = |f: &Fact| Fact { container: Container::Tensor, ..f.clone() };
        Ok(vec![match self {
            Sequence::Construct => {
                let mut all = (0..cx.inputs.len()).map(|i| cx.fact(i).cloned());
                let first = all.next().ok_or_else(|| Error::input("a sequence of nothing"))??;
                sequence(all.try_fold(first, |a, b| Ok::<_, Error>(either_fact(&a, &b?)))?)
            }
            Sequence::Empty(dtype) => sequence(Fact::new(*dtype, Shape::UNKNOWN)),
            Sequence::At => element(cx.fact(0)?),
            // What is known of an empty sequence is only its type.
            Sequence::Insert => {
                let (s, x) = (cx.fact(0)?, cx.fact(1)?);
                let joined = either_fact(&element(s), x);
                sequence(Fact { dtype: joined.dtype.or(s.dtype).or(x.dtype), ..joined })
            }
            Sequence::Erase => cx.fact(0)?.clone(),
            Sequence::Length => Fact::of(DType::I64, &[]),
            Sequence::Split { axis, keep } => {
                let x = cx.fact(0)?;
                let shape = match x.shape.dims() {
                    None => Shape::UNKNOWN,
                    Some(d) => {
                        let at = dims::axis(*axis, d.len())?;
                        let mut d = d.to_vec();
                        match (cx.opt(1), keep) {
                            (None, false) => drop(d.remove(at)),
                            (None, true) => d[at] = Some(1),
                            _ => d[at] = None,
                        }
                        Shape::partial(d)
                    }
                };
                sequence(x.with_shape(shape))
            }
            Sequence::Concat { axis, new_axis } => {
                let x = element(cx.fact(0)?);
                let shape = match x.shape.dims() {
                    None => Shape::UNKNOWN,
                    Some(d) => {
                        let at = dims::axis(*axis, d.len() + usize::from(*new_axis))?;
                        let mut d = d.to_vec();
                        if *new_axis { d.insert(at, None) } else { d[at] = None }
                        Shape::partial(d)
                    }
                };
                x.with_shape(shape)
            }
            Sequence::Optional => match cx.opt(0) {
                Some(x) => x.fact.clone(),
                None => Fact { container: Container::Optional, ..Fact::unknown() },
            },
            Sequence::Get => {
                let x = cx.fact(0)?;
                if x.container == Container::Optional { element(x) } else { x.clone() }
            }
            Sequence::Has => Fact::of(DType::Bool, &[]),
        }])
    }
    fn charge(&self, _cx: &CostCx) -> Charge {
        Charge::FREE
    }
    fn eval(&self, _cx: &EvalCx, inputs: &Inputs) -> Result<Vec<Tensor>> {
        Ok(vec![match self {
            Sequence::Construct => {
                let all: Vec<Tensor> = (0..inputs.len()).map(|i| input(inputs, i).cloned()).collect::<Result<_>>()?;
                if let Some(other) = all.iter().find(|t| t.dtype() != all[0].dtype()) {
                    return Err(Error::input(format!("a sequence of {} and {}", all[0].dtype(), other.dtype())));
                }
                Tensor::from_sequence(all[0].dtype(), all)
            }
            Sequence::Empty(dtype) => Tensor::from_sequence(*dtype, Vec::new()),
            Sequence::At => {
                let all = input(inputs, 0)?.sequence()?;
                all[position(Some(input(inputs, 1)?), all.len(), 0, all.len())?].clone()
            }
            Sequence::Insert => {
                let (s, x) = (input(inputs, 0)?, input(inputs, 1)?);
                if s.dtype() != x.dtype() {
                    return Err(Error::input(format!("a {} tensor in a sequence of {}", x.dtype(), s.dtype())));
                }
                let mut all = s.sequence()?.to_vec();
                let n = all.len();
                all.insert(position(opt(inputs, 2), n, n, n + 1)?, x.clone());
                Tensor::from_sequence(x.dtype(), all)
            }
            Sequence::Erase => {
                let s = input(inputs, 0)?;
                let mut all = s.sequence()?.to_vec();
                let n = all.len();
                all.remove(position(opt(inputs, 1), n, n.wrapping_sub(1), n)?);
                Tensor::from_sequence(s.dtype(), all)
            }
            Sequence::Length => Tensor::scalar(input(inputs, 0)?.sequence()?.len() as i64),
            Sequence::Split { axis, keep } => {
                let x = input(inputs, 0)?;
                let at = dims::axis(*axis, x.rank())?;
                let sizes = sizes(opt(inputs, 1), x.dims()[at])?;
                let mut parts = split(x, at, &sizes)?;
                if opt(inputs, 1).is_none() && !keep {
                    let mut dims = x.dims().to_vec();
                    dims.remove(at);
                    parts = parts.iter().map(|t| t.reshaped(&dims)).collect::<Result<_>>()?;
                }
                Tensor::from_sequence(x.dtype(), parts)
            }
            Sequence::Concat { axis, new_axis } => {
                let all = input(inputs, 0)?.sequence()?;
                let first = all.first().ok_or_else(|| Error::run("the sequence is empty"))?;
                let at = dims::axis(*axis, first.rank() + usize::from(*new_axis))?;
                if !new_axis {
                    return Ok(vec![concat(&all.iter().collect::<Vec<_>>(), at)?]);
                }
                let raised = |t: &Tensor| {
                    let mut dims = t.dims().to_vec();
                    dims.insert(at.min(dims.len()), 1);
                    t.reshaped(&dims)
                };
                let all: Vec<Tensor> = all.iter().map(raised).collect::<Result<_>>()?;
                concat(&all.iter().collect::<Vec<_>>(), at)?
            }
            Sequence::Optional => match opt(inputs, 0) {
                Some(x) => x.clone(),
                None => Tensor::absent(DType::F32),
            },
            Sequence::Get => {
                let x = input(inputs, 0)?;
                if x.is_absent() {
                    return Err(Error::run("the optional is empty"));
                }
                x.clone()
            }
            Sequence::Has => Tensor::from_bools([opt(inputs, 0).is_some_and(|x| !x.is_absent())], &[])?,
        }])
    }
    fn role(&self, i: usize) -> Role {
        match self {
            Sequence::Construct | Sequence::Optional => Role::Data,
            Sequence::Insert if i < 2 => Role::Data,
            _ if i == 0 => Role::Data,
            _ => Role::Setting,
        }
    }
    fn access(&self) -> Access {
        match self {
            Sequence::Concat { .. } | Sequence::Split { .. } => Access::Compulsory,
            _ => Access::View,
        }
    }
    fn handles_narrow(&self) -> bool {
        true
    }
}

/// Sizes of the parts that SplitToSequence makes.
fn sizes(given: Option<&Tensor>, dim: usize) -> Result<Vec<usize>> {
    let Some(t) = given else { return Ok(vec![1; dim]) };
    let bad = |v: i64| Error::input(format!("{v} is not a size")).at_attribute("split");
    let list = t.to_i64s()?;
    let list = list.into_iter().map(|v| usize::try_from(v).map_err(|_| bad(v))).collect::<Result<Vec<_>>>()?;
    match list[..] {
        [size] if t.rank() == 0 => {
            if size == 0 {
                return Err(bad(0));
            }
            Ok((0..dim.div_ceil(size)).map(|i| size.min(dim - i * size)).collect())
        }
        _ => Ok(list),
    }
}

fn cases() -> Vec<Case> {
    let (f, i) = (sample::floats, sample::ints);
    let three = || Tensor::from_sequence(DType::F32, vec![f(&[2, 3], 1), f(&[2, 3], 2), f(&[2, 1], 3)]);
    let same = || Tensor::from_sequence(DType::F32, vec![f(&[2, 3], 1), f(&[2, 3], 2)]);
    let at = |v: i64| Tensor::scalar(v);
    let axis = |a: i64| ("axis", Attr::Int(a));
    vec![
        Case::new("SequenceConstruct", &[], vec![f(&[2, 3], 1), f(&[2, 1], 2)]),
        Case::new("SequenceEmpty", &[("dtype", Attr::Int(7))], vec![]),
        Case::new("SequenceAt", &[], vec![same(), at(-1)]),
        Case::new("SequenceInsert", &[], vec![same(), f(&[2, 3], 3), at(0)]),
        Case::new("SequenceInsert", &[], vec![same(), f(&[2, 3], 3)]),
        Case::new("SequenceErase", &[], vec![same()]),
        Case::new("SequenceErase", &[], vec![same(), at(0)]),
        Case::new("SequenceLength", &[], vec![three()]),
        Case::new("SplitToSequence", &[], vec![f(&[4, 3], 1)]),
        Case::new("SplitToSequence", &[axis(1), ("keepdims", Attr::Int(0))], vec![f(&[4, 3], 1)]),
        Case::new("SplitToSequence", &[], vec![f(&[4, 3], 1), i(&[1, 3])]),
        Case::new("SplitToSequence", &[axis(-1)], vec![f(&[4, 3], 1), at(2)]),
        Case::new("ConcatFromSequence", &[axis(1)], vec![same()]),
        Case::new("ConcatFromSequence", &[axis(-1), ("new_axis", Attr::Int(1))], vec![same()]),
        Case::new("Optional", &[], vec![f(&[2], 1)]),
        Case::new("Optional", &[], vec![same()]),
        Case::new("OptionalGetElement", &[], vec![f(&[2], 1)]),
        Case::new("OptionalHasElement", &[], vec![f(&[2], 1)]),
        Case::new("OptionalHasElement", &[], Tensor::from_bools([false; 4], &[4]).into_iter().collect()),
        Case::new("OptionalHasElement", &[], vec![Tensor::absent(DType::F32)]),
        Case::with_optional("OptionalHasElement", &[], vec![None], 1),
    ]
}
