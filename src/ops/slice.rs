//! Slice, Pad, CenterCropPad: a part of the input, or the input with a margin.
//!
//! <https://onnx.ai/onnx/operators/onnx__Slice.html>, <https://onnx.ai/onnx/operators/onnx__Pad.html>,
//! <https://onnx.ai/onnx/operators/onnx__CenterCropPad.html>.
//!
//! Cost: no arithmetic. Slice reads only what it writes.

use super::dims;
use super::elements::{AxisMap, axis_map, mapped_copy};
use super::spec::{Attr, NodeSpec};
use super::{Access, Case, Charge, CostCx, Entry, EvalCx, Family, Infer, Inputs, Op, Role, input, opt, sample};
use crate::error::{Error, Result};
use crate::tensor::{Dim, Fact, Shape, Tensor, element_count};

/// The family's table rows.
pub const ENTRIES: &[Entry] = &[
    Entry { domain: "", name: "Slice", parse: Slice::slice, cases },
    Entry { domain: "", name: "Pad", parse: Slice::pad, cases },
    Entry { domain: "", name: "CenterCropPad", parse: Slice::center, cases },
];

/// An operator that takes a window of its input, which may reach beyond it.
#[derive(Debug, Clone)]
pub enum Slice {
    /// Slice with everything in inputs (opset 10).
    Slice,
    /// Slice with attributes (before opset 10).
    Fixed {
        /// First positions.
        starts: Vec<i64>,
        /// Positions to stop before.
        ends: Vec<i64>,
        /// Axes; all from the first if not given.
        axes: Option<Vec<i64>>,
    },
    /// Pad.
    Pad {
        /// Where the margin's values come from.
        mode: PadMode,
        /// Pads as an attribute (before opset 11): begins then ends.
        pads: Option<Vec<i64>>,
        /// Fill value as an attribute (before opset 11).
        value: f32,
    },
    /// CenterCropPad; `None` means all axes.
    Center(Option<Vec<i64>>),
}

/// What a margin is filled with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PadMode {
    /// One value.
    Constant,
    /// The input mirrored at its first and last element.
    Reflect,
    /// The first or last element.
    Edge,
    /// The input repeated.
    Wrap,
}

/// One axis of a slice, clamped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// First position.
    pub start: usize,
    /// Step.
    pub step: i64,
    /// Number of positions.
    pub len: usize,
}

/// Clamps a slice of an axis of size `d`, as numpy does.
///
/// # Errors
/// If the step is 0.
pub fn cut(d: usize, start: i64, end: i64, step: i64) -> Result<Cut> {
    if step == 0 {
        return Err(Error::input("must not be 0").at_attribute("steps"));
    }
    let (d, s) = (d as i128, i128::from(step));
    let from_front = |v: i64| if v < 0 { i128::from(v) + d } else { v.into() };
    let (low, high) = if s > 0 { (0, d) } else { (-1, d - 1) };
    // The standard clamps the start to [0, d − 1] when stepping back, where numpy would give an empty slice.
    let start = from_front(start).clamp(low.max(0).min(high), high);
    let end = from_front(end).clamp(low, high);
    let span = if s > 0 { end - start } else { start - end };
    let len = if span <= 0 { 0 } else { (span - 1) / s.abs() + 1 };
    let len = if d == 0 { 0 } else { len };
    Ok(Cut { start: start.max(0) as usize, step, len: len as usize })
}

impl Slice {
    fn slice(node: &NodeSpec) -> Result<Op> {
        if node.inputs.len() > 1 {
            node.expect_inputs(3, 5)?;
            return Ok(Op::Slice(Slice::Slice));
        }
        node.expect_inputs(1, 1)?;
        let need = |name: &str| {
            node.opt_ints(name)?.ok_or_else(|| {
                Error::input("is missing").at_attribute(name).hint("from opset 10 on it is an input")
            })
        };
        Ok(Op::Slice(Slice::Fixed { starts: need("starts")?, ends: need("ends")?, axes: node.opt_ints("axes")? }))
    }
    fn pad(node: &NodeSpec) -> Result<Op> {
        node.expect_inputs(1, 4)?;
        let mode = match node.str("mode", "constant")? {
            "constant" => PadMode::Constant,
            "reflect" => PadMode::Reflect,
            "edge" => PadMode::Edge,
            "wrap" => PadMode::Wrap,
            other => return Err(Error::input(format!("'{other}' is not a padding mode")).at_attribute("mode")),
        };
        let pads = match node.opt_ints("pads")? {
            None => node.opt_ints("paddings")?,
            pads => pads,
        };
        if pads.is_none() && !node.has_input(1) {
            return Err(Error::input("is missing, as attribute and as input").at_attribute("pads"));
        }
        Ok(Op::Slice(Slice::Pad { mode, pads, value: node.float("value", 0.0)? }))
    }
    fn center(node: &NodeSpec) -> Result<Op> {
        node.expect_inputs(2, 2)?;
        Ok(Op::Slice(Slice::Center(node.opt_ints("axes")?)))
    }

    /// The input holding a list of axes, if this form has one.
    fn axes_input(&self) -> Option<usize> {
        match self {
            Slice::Slice | Slice::Pad { .. } => Some(3),
            _ => None,
        }
    }
}

/// What each axis takes: its cut or margin, resolved from settings; `None` for an axis that stays whole.
#[derive(Debug, Clone, Copy)]
enum Plan {
    Cut { start: i64, end: i64, step: i64 },
    Margin { begin: i64, end: i64 },
    Center(usize),
}

fn size(d: Dim, plan: Plan) -> Result<Dim> {
    Ok(match plan {
        Plan::Center(to) => Some(to),
        Plan::Cut { start, end, step } => match d {
            Some(d) => Some(cut(d, start, end, step)?.len),
            None => None,
        },
        Plan::Margin { begin, end } => match d {
            Some(d) => {
                let n = d as i128 + i128::from(begin) + i128::from(end);
                let n = usize::try_from(n);
                Some(n.map_err(|_| Error::input(format!("pads {begin} and {end} of an axis of {d}")).at_attribute("pads"))?)
            }
            None => None,
        },
    })
}

impl Slice {
    /// Plans per axis of an input of `rank`. `list(i)` is the value of input `i`.
    fn plans(&self, rank: usize, list: &dyn Fn(usize) -> Option<Vec<i64>>) -> Result<Vec<Option<Plan>>> {
        let named = |given: Option<Vec<i64>>, n: usize| -> Result<Vec<usize>> {
            let axes = given.unwrap_or_else(|| (0..n as i64).collect());
            if axes.len() != n {
                return Err(Error::input(format!("names {} axes for {n} values", axes.len())).at_attribute("axes"));
            }
            dims::axes(&axes, rank)
        };
        let mut plans = vec![None; rank];
        match self {
            Slice::Slice | Slice::Fixed { .. } => {
                let (starts, ends, axes, steps) = match self {
                    Slice::Fixed { starts, ends, axes } => (starts.clone(), ends.clone(), axes.clone(), None),
                    _ => (list(1).unwrap_or_default(), list(2).unwrap_or_default(), list(3), list(4)),
                };
                let steps = steps.unwrap_or_else(|| vec![1; starts.len()]);
                if ends.len() != starts.len() || steps.len() != starts.len() {
                    let n = (starts.len(), ends.len(), steps.len());
                    return Err(Error::input(format!("{} starts, {} ends and {} steps", n.0, n.1, n.2)));
                }
                for (i, a) in named(axes, starts.len())?.into_iter().enumerate() {
                    plans[a] = Some(Plan::Cut { start: starts[i], end: ends[i], step: steps[i] });
                }
            }
            Slice::Pad { pads, .. } => {
                let pads = pads.clone().or_else(|| list(1)).unwrap_or_default();
                let n = pads.len() / 2;
                let axes = list(3);
                if pads.len() % 2 != 0 || (axes.is_none() && n != rank) {
                    return Err(Error::input(format!("has {} values for rank {rank}", pads.len())).at_attribute("pads"));
                }
                for (i, a) in named(axes, n)?.into_iter().enumerate() {
                    plans[a] = Some(Plan::Margin { begin: pads[i], end: pads[n + i] });
                }
            }
            Slice::Center(axes) => {
                let sizes = list(1).unwrap_or_default();
                let axes = axes.clone().or_else(|| Some((0..rank as i64).collect()));
                for (i, a) in named(axes, sizes.len())?.into_iter().enumerate() {
                    let to = usize::try_from(sizes[i]);
                    plans[a] = Some(Plan::Center(to.map_err(|_| Error::input(format!("{} is not a size", sizes[i])))?));
                }
            }
        }
        Ok(plans)
    }
}

fn map(d: usize, plan: Option<Plan>, mode: PadMode) -> Result<AxisMap> {
    let window = |begin: i128, n: usize| -> Result<AxisMap> {
        let last = d as i128 - 1;
        if d == 0 && mode != PadMode::Constant && n > 0 {
            return Err(Error::input("an empty axis has nothing to repeat").at_attribute("mode"));
        }
        let at = |o: usize| {
            let i = o as i128 - begin;
            let i = match mode {
                PadMode::Constant => i,
                PadMode::Edge => i.clamp(0, last),
                PadMode::Wrap => i.rem_euclid(last + 1),
                PadMode::Reflect if last == 0 => 0,
                PadMode::Reflect => {
                    let i = i.rem_euclid(2 * last);
                    i.min(2 * last - i)
                }
            };
            usize::try_from(i).ok().filter(|&i| i < d)
        };
        axis_map(n, at)
    };
    match plan {
        None => axis_map(d, Some),
        Some(Plan::Cut { start, end, step }) => {
            let c = cut(d, start, end, step)?;
            axis_map(c.len, |i| usize::try_from(c.start as i128 + i as i128 * i128::from(c.step)).ok())
        }
        Some(p @ Plan::Margin { begin, .. }) => window(begin.into(), size(Some(d), p)?.unwrap_or(0)),
        // Cropping starts at ⌊(d − to)/2⌋; padding begins with ⌊(to − d)/2⌋.
        Some(Plan::Center(to)) if to < d => window(-(((d - to) / 2) as i128), to),
        Some(Plan::Center(to)) => window(((to - d) / 2) as i128, to),
    }
}

impl Family for Slice {
    fn infer(&self, cx: &Infer) -> Result<Vec<Fact>> {
        let x = cx.fact(0)?;
        let Some(d) = x.shape.dims() else { return Ok(vec![x.with_shape(Shape::UNKNOWN)]) };
        let lists: Vec<Option<Vec<i64>>> = (0..5)
            .map(|i| if i == 0 || (i == 2 && matches!(self, Slice::Pad { .. })) { Ok(None) } else { cx.ints(i) })
            .collect::<Result<_>>()?;
        let all_known = (1..5).all(|i| (i == 2 && matches!(self, Slice::Pad { .. })) || cx.opt(i).is_none() || lists[i].is_some());
        let out = if all_known {
            let plans = self.plans(d.len(), &|i| lists[i].clone())?;
            d.iter().zip(plans).map(|(&d, p)| p.map_or(Ok(d), |p| size(d, p))).collect::<Result<Vec<_>>>()?
        } else {
            // Axes that are certainly not touched keep their size.
            let count = cx.opt(1).and_then(|x| x.fact.shape.elements());
            let touched = match (self, self.axes_input().and_then(|i| cx.opt(i).map(|_| &lists[i]))) {
                (Slice::Center(Some(axes)), _) => dims::axes(axes, d.len())?,
                (_, Some(Some(axes))) => dims::axes(axes, d.len())?,
                (Slice::Slice, None) => (0..count.unwrap_or(d.len()).min(d.len())).collect(),
                _ => (0..d.len()).collect(),
            };
            d.iter().enumerate().map(|(a, &d)| if touched.contains(&a) { None } else { d }).collect()
        };
        Ok(vec![x.with_shape(Shape::partial(out))])
    }
    fn charge(&self, _cx: &CostCx) -> Charge {
        Charge::FREE
    }
    fn eval(&self, _cx: &EvalCx, inputs: &Inputs) -> Result<Vec<Tensor>> {
        let x = input(inputs, 0)?;
        let mut lists = vec![None; 5];
        for (i, list) in lists.iter_mut().enumerate().skip(1) {
            if !(i == 2 && matches!(self, Slice::Pad { .. })) {
                *list = opt(inputs, i).map(Tensor::to_i64s).transpose()?;
            }
        }
        let plans = self.plans(x.rank(), &|i| lists[i].clone())?;
        let (mode, fill) = match self {
            Slice::Pad { mode, value, pads } => (*mode, fill(x, pads.is_some().then_some(*value), opt(inputs, 2))?),
            _ => (PadMode::Constant, Tensor::zeros(x.dtype(), &[])?),
        };
        // Sizes first: maps are only made for an output that fits in memory.
        let out: Vec<usize> = x
            .dims()
            .iter()
            .zip(&plans)
            .map(|(&d, p)| Ok(p.map_or(Ok(Some(d)), |p| size(Some(d), p))?.unwrap_or(0)))
            .collect::<Result<_>>()?;
        if element_count(&out)? == 0 {
            return Ok(vec![Tensor::zeros(x.dtype(), &out)?]);
        }
        let maps = x.dims().iter().zip(plans).map(|(&d, p)| map(d, p, mode)).collect::<Result<Vec<_>>>()?;
        Ok(vec![mapped_copy(x, &maps, &fill)?])
    }
    fn role(&self, i: usize) -> Role {
        if i == 0 { Role::Data } else { Role::Setting }
    }
    fn access(&self) -> Access {
        match self {
            Slice::Slice | Slice::Fixed { .. } => Access::Selected,
            _ => Access::Compulsory,
        }
    }
    fn handles_narrow(&self) -> bool {
        true
    }
}

/// The fill value of a Pad, in the input's type.
fn fill(x: &Tensor, attribute: Option<f32>, given: Option<&Tensor>) -> Result<Tensor> {
    match (given, attribute) {
        (Some(v), _) if v.len() == 1 => v.reshaped(&[]),
        (Some(v), _) => Err(Error::input(format!("the fill value must be one element, not {}", v.fact()))),
        (None, Some(v)) if v != 0.0 => super::cast::cast(&Tensor::scalar(v), x.dtype(), true),
        _ => Tensor::zeros(x.dtype(), &[]),
    }
}

fn cases() -> Vec<Case> {
    let (f, i) = (sample::floats, sample::ints);
    let ints = |v: &[i64]| Attr::Ints(v.to_vec());
    let mode = |m: &str| ("mode", Attr::Str(m.into()));
    let some = |v: Vec<Tensor>| v.into_iter().map(Some).collect::<Vec<_>>();
    let small = Tensor::from_vec(vec![1i32, 0], &[2]).map(Some).unwrap_or_default();
    let mut sparse = some(vec![f(&[4, 5, 6], 1), i(&[-1, 1]), i(&[i64::MIN, 4])]);
    sparse.extend([Some(i(&[2, -3])), Some(i(&[-2, 2]))]);
    vec![
        Case::new("Slice", &[], vec![f(&[4, 5, 6], 1), i(&[1, -3]), i(&[i64::MAX, -1])]),
        Case::with_optional("Slice", &[], sparse, 1),
        Case::with_optional("Slice", &[], vec![Some(f(&[4], 1)), Some(i(&[3])), Some(i(&[1])), None, Some(i(&[1]))], 1),
        Case::new("Slice", &[("starts", ints(&[0, 1])), ("ends", ints(&[1, 100])), ("axes", ints(&[0, 2]))], vec![f(&[2, 3, 4], 1)])
            .opset(9),
        Case::new("Pad", &[], vec![f(&[2, 3], 1), i(&[0, 1, 2, 0]), f(&[], 7)]),
        Case::new("Pad", &[mode("reflect")], vec![f(&[3, 4], 1), i(&[2, 0, 1, 3])]),
        Case::new("Pad", &[mode("edge")], vec![f(&[2, 3], 1), i(&[1, -1, 0, 5])]),
        Case::new("Pad", &[mode("wrap")], vec![f(&[2, 3], 1), i(&[1, 4, 0, 7])]),
        Case::with_optional("Pad", &[], vec![Some(f(&[2, 3], 1)), Some(i(&[1, 1])), None, Some(i(&[-1]))], 1),
        Case::new("Pad", &[("pads", ints(&[0, 1, 0, 1])), ("value", Attr::Float(2.0))], vec![f(&[2, 3], 1)]).opset(10),
        Case::new("Pad", &[], vec![f(&[], 1), i(&[])]),
        Case::new("CenterCropPad", &[], vec![f(&[5, 4], 1), i(&[2, 7])]),
        Case::with_optional("CenterCropPad", &[("axes", ints(&[-1, 0]))], vec![Some(f(&[5, 4], 1)), small], 1),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_clamp_like_numpy() {
        let c = |d, s, e, st| {
            let c = cut(d, s, e, st).unwrap();
            (c.start, c.len)
        };
        assert_eq!(c(5, 0, i64::MAX, 1), (0, 5));
        assert_eq!(c(5, -1, i64::MIN, -1), (4, 5));
        assert_eq!(c(5, -100, 3, 2), (0, 2));
        assert_eq!(c(5, i64::MAX, 0, -2), (4, 2));
        assert_eq!(c(5, -100, i64::MIN, -1), (0, 1));
        assert_eq!(c(0, 0, i64::MAX, -1).1, 0);
        assert_eq!(c(5, 3, 1, 1).1, 0);
        assert!(cut(5, 0, 1, 0).is_err());
        assert_eq!(cut(5, 4, i64::MIN, i64::MIN).unwrap().len, 1);
    }
}
