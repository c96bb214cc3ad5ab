//! Reshape, Flatten, Squeeze, Unsqueeze: the same elements under another shape.
//!
//! <https://onnx.ai/onnx/operators/onnx__Reshape.html>, <https://onnx.ai/onnx/operators/onnx__Flatten.html>,
//! <https://onnx.ai/onnx/operators/onnx__Squeeze.html>, <https://onnx.ai/onnx/operators/onnx__Unsqueeze.html>.
//!
//! Cost: nothing; they are views.

use super::dims;
use super::spec::{Attr, NodeSpec};
use super::{Access, Case, Charge, CostCx, Entry, EvalCx, Family, Infer, Inputs, Op, Role, input, opt, sample};
use crate::error::{Error, Result};
use crate::tensor::{Dim, Fact, Shape, Tensor};

/// The family's table rows.
pub const ENTRIES: &[Entry] = &[
    Entry { domain: "", name: "Reshape", parse: Reshape::reshape, cases },
    Entry { domain: "", name: "Flatten", parse: Reshape::flatten, cases },
    Entry { domain: "", name: "Squeeze", parse: Reshape::squeeze, cases },
    Entry { domain: "", name: "Unsqueeze", parse: Reshape::unsqueeze, cases },
];

/// An operator that gives its input another shape.
#[derive(Debug, Clone)]
pub enum Reshape {
    /// Reshape: sizes in input 1; −1 is what remains, 0 copies the input's (unless `allow_zero`).
    Reshape {
        /// Whether 0 means zero.
        allow_zero: bool,
    },
    /// Flatten to a matrix around an axis.
    Flatten {
        /// First axis of the columns; negative from the end.
        axis: i64,
    },
    /// Squeeze.
    Squeeze {
        /// Axes given as an attribute (before opset 13).
        axes: Option<Vec<i64>>,
    },
    /// Unsqueeze.
    Unsqueeze {
        /// Axes given as an attribute (before opset 13).
        axes: Option<Vec<i64>>,
    },
}

impl Reshape {
    fn reshape(node: &NodeSpec) -> Result<Op> {
        node.expect_inputs(2, 2)?;
        Ok(Op::Reshape(Reshape::Reshape { allow_zero: node.flag("allowzero", false)? }))
    }
    fn flatten(node: &NodeSpec) -> Result<Op> {
        node.expect_inputs(1, 1)?;
        Ok(Op::Reshape(Reshape::Flatten { axis: node.int("axis", 1)? }))
    }
    fn squeeze(node: &NodeSpec) -> Result<Op> {
        node.expect_inputs(1, 2)?;
        Ok(Op::Reshape(Reshape::Squeeze { axes: node.opt_ints("axes")? }))
    }
    fn unsqueeze(node: &NodeSpec) -> Result<Op> {
        node.expect_inputs(1, 2)?;
        let axes = node.opt_ints("axes")?;
        if axes.is_none() && !node.has_input(1) {
            return Err(Error::input("is missing, as attribute and as input").at_attribute("axes"));
        }
        Ok(Op::Reshape(Reshape::Unsqueeze { axes }))
    }

    /// Output shape, given the input's and the values of input 1 (`None`: not given); the input's dims may be unknown.
    fn shape(&self, x: &[Dim], given: Option<&[i64]>) -> Result<Shape> {
        match self {
            Reshape::Reshape { allow_zero } => reshaped(x, given.unwrap_or_default(), *allow_zero),
            Reshape::Flatten { axis } => {
                let at = if *axis == x.len() as i64 { x.len() } else { dims::axis(*axis, x.len())? };
                Ok(Shape::partial(vec![dims::product(&x[..at]), dims::product(&x[at..])]))
            }
            Reshape::Squeeze { axes } => match axes.as_deref().or(given) {
                Some(axes) => {
                    let drop = dims::axes(axes, x.len())?;
                    if let Some(&a) = drop.iter().find(|&&a| x[a].is_some_and(|d| d != 1)) {
                        return Err(Error::input(format!(
                            "names axis {a} of {}, which is not 1",
                            Shape::partial(x.to_vec())
                        ))
                        .at_attribute("axes"));
                    }
                    let left = x.iter().enumerate().filter(|(a, _)| !drop.contains(a));
                    Ok(Shape::partial(left.map(|(_, d)| *d).collect()))
                }
                None if x.contains(&None) => Ok(Shape::UNKNOWN),
                None => Ok(Shape::partial(x.iter().copied().filter(|d| *d != Some(1)).collect())),
            },
            Reshape::Unsqueeze { axes } => {
                let axes = axes.as_deref().or(given).unwrap_or_default();
                let added = dims::axes(axes, x.len() + axes.len())?;
                let mut left = x.iter().copied();
                let all = (0..x.len() + axes.len())
                    .map(|a| if added.contains(&a) { Some(1) } else { left.next().flatten() });
                Ok(Shape::partial(all.collect()))
            }
        }
    }
}

/// The rule of Reshape. Input dims that a 0 copies cancel out, so −1 can often be told though a dim is unknown.
fn reshaped(x: &[Dim], sizes: &[i64], allow_zero: bool) -> Result<Shape> {
    let bad = |why: String| {
        let list: Vec<String> = sizes.iter().map(ToString::to_string).collect();
        Error::input(format!("{} cannot take shape [{}]: {why}", Shape::partial(x.to_vec()), list.join(", ")))
    };
    let mut out: Vec<Dim> = Vec::with_capacity(sizes.len());
    let (mut rest, mut copied) = (None, vec![false; x.len()]);
    for (i, &s) in sizes.iter().enumerate() {
        out.push(match s {
            -1 if rest.is_some() => return Err(bad("-1 may appear once".into())),
            -1 => {
                rest = Some(i);
                None
            }
            0 if !allow_zero => {
                *copied.get_mut(i).ok_or_else(|| bad(format!("0 copies dim {i}, which is not there")))? = true;
                x[i]
            }
            s => Some(usize::try_from(s).map_err(|_| bad(format!("{s} is not a size")))?),
        });
    }
    if allow_zero && rest.is_some() && sizes.contains(&0) {
        return Err(bad("0 and -1 leave the size open when allowzero is set".into()));
    }
    // What must match once the copied dims are taken off both sides (a copied zero must stay: it decides emptiness).
    let keep = |i: usize| !copied.get(i).copied().unwrap_or(false) || x[i] == Some(0);
    let have: Vec<Dim> = x.iter().enumerate().filter(|(i, _)| keep(*i)).map(|(_, d)| *d).collect();
    let want: Vec<Dim> =
        out.iter().enumerate().filter(|(i, _)| Some(*i) != rest && keep(*i)).map(|(_, d)| *d).collect();
    if let (Some(have), Some(want)) = (dims::product(&have), dims::product(&want)) {
        match rest {
            Some(i) if want > 0 && have % want == 0 => out[i] = Some(have / want),
            Some(i) if want == 0 && have == 0 => out[i] = Some(0),
            None if have == want => {}
            _ => {
                return Err(bad("the element counts differ".into())
                    .hint("a Reshape with fixed sizes often means the model was exported for another input shape or batch"));
            }
        }
    }
    Ok(Shape::partial(out))
}

impl Family for Reshape {
    fn infer(&self, cx: &Infer) -> Result<Vec<Fact>> {
        let x = cx.fact(0)?;
        let by_input = cx.opt(1).is_some();
        let given = cx.ints(1)?;
        let unknown = by_input && given.is_none();
        let count = cx.opt(1).and_then(|s| s.fact.shape.elements());
        let shape = match (x.shape.dims(), self) {
            (_, Reshape::Reshape { .. }) if unknown => count.map_or(Shape::UNKNOWN, Shape::of_rank),
            (None, Reshape::Reshape { allow_zero }) => {
                let sizes = given.unwrap_or_default();
                let known = |&s: &i64| usize::try_from(s).ok().filter(|&s| s > 0 || *allow_zero);
                Shape::partial(sizes.iter().map(known).collect())
            }
            (None, Reshape::Flatten { .. }) => Shape::of_rank(2),
            (None, _) => Shape::UNKNOWN,
            (Some(d), Reshape::Squeeze { axes: None }) if unknown => {
                count.and_then(|n| d.len().checked_sub(n)).map_or(Shape::UNKNOWN, Shape::of_rank)
            }
            (Some(d), Reshape::Unsqueeze { axes: None }) if unknown => {
                count.map_or(Shape::UNKNOWN, |n| Shape::of_rank(d.len() + n))
            }
            (Some(d), _) => self.shape(d, given.as_deref())?,
        };
        Ok(vec![x.with_shape(shape)])
    }
    fn charge(&self, _cx: &CostCx) -> Charge {
        Charge::FREE
    }
    fn eval(&self, _cx: &EvalCx, inputs: &Inputs) -> Result<Vec<Tensor>> {
        let x = input(inputs, 0)?;
        let given = opt(inputs, 1).map(Tensor::to_i64s).transpose()?;
        let known: Vec<Dim> = x.dims().iter().map(|&d| Some(d)).collect();
        let shape = self.shape(&known, given.as_deref())?;
        let dims = shape.concrete().ok_or_else(|| Error::run("the output shape overflows"))?;
        Ok(vec![x.reshaped(&dims)?])
    }
    fn role(&self, i: usize) -> Role {
        if i == 0 { Role::Data } else { Role::Setting }
    }
    fn access(&self) -> Access {
        Access::View
    }
    fn handles_narrow(&self) -> bool {
        true
    }
}

fn cases() -> Vec<Case> {
    let (f, i) = (sample::floats, sample::ints);
    let attr = |v: &[i64]| Attr::Ints(v.to_vec());
    let half = |d: &[usize]| f(d, 9).narrowed(crate::tensor::DType::F16, true).unwrap_or_else(|_| f(d, 9));
    vec![
        Case::new("Reshape", &[], vec![f(&[2, 3, 4], 1), i(&[0, -1])]),
        Case::new("Reshape", &[], vec![half(&[2, 3, 4]), i(&[4, 1, 6])]),
        Case::new("Reshape", &[("allowzero", Attr::Int(1))], vec![f(&[0, 3], 1), i(&[3, 0])]),
        Case::new("Reshape", &[], vec![f(&[0, 3], 1), i(&[0, -1])]),
        Case::new("Reshape", &[], vec![f(&[1], 1), i(&[])]),
        Case::new("Flatten", &[], vec![f(&[2, 3, 4], 1)]),
        Case::new("Flatten", &[("axis", Attr::Int(-1))], vec![f(&[2, 3, 4], 1)]),
        Case::new("Flatten", &[("axis", Attr::Int(0))], vec![f(&[], 1)]),
        Case::new("Squeeze", &[], vec![f(&[1, 3, 1], 1)]),
        Case::new("Squeeze", &[], vec![f(&[1, 3, 1], 1), i(&[-1])]),
        Case::new("Squeeze", &[("axes", attr(&[0]))], vec![f(&[1, 3, 1], 1)]).opset(11),
        Case::new("Unsqueeze", &[], vec![f(&[3], 1), i(&[-1, 0])]),
        Case::new("Unsqueeze", &[("axes", attr(&[0, 1]))], vec![f(&[], 1)]).opset(11),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minus_one_can_be_told_when_the_unknown_dim_is_copied() {
        let x = [None, Some(512), Some(7), Some(7)];
        let d = reshaped(&x, &[0, -1], false).unwrap();
        assert_eq!(d, Shape::partial(vec![None, Some(25088)]));
        assert_eq!(reshaped(&x, &[-1, 512], false).unwrap(), Shape::partial(vec![None, Some(512)]));
        assert!(reshaped(&[Some(3)], &[2], false).is_err());
        assert!(reshaped(&[Some(3)], &[-1, -1], false).is_err());
    }
}
