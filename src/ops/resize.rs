//! Resize and Upsample.
//!
//! <https://onnx.ai/onnx/operators/onnx__Resize.html>, <https://onnx.ai/onnx/operators/onnx__Upsample.html>.
//!
//! Interpolation is separable: one pass per axis that changes, in ascending order. Each element a pass makes costs `2·taps − 1`
//! other FLOPs; taps are 2 (linear), 4 (cubic), or with antialiasing as many as the shrunk kernel covers. Coordinates and
//! weights depend on sizes alone and are free, as are nearest neighbours and integer data.

use super::dims::axes as axes_of;
use super::elements::{from_ints, int_range, mapped_copy};
use super::spec::{Attr, NodeSpec};
use super::{Case, Charge, CostCx, Entry, EvalCx, Family, Infer, Inputs, Op, Role, input, opt, sample};
use crate::cost::{Work, product};
use crate::error::{Error, Result};
use crate::tensor::{DType, Dim, Fact, Num, Shape, Tensor, element_count, is_num};
use crate::with_num;

/// The family's table rows.
pub const ENTRIES: &[Entry] = &[
    Entry { domain: "", name: "Resize", parse: Resize::parse, cases },
    Entry { domain: "", name: "Upsample", parse: Resize::parse, cases },
];

/// How an output element is made of its neighbours.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Mode {
    /// One of them.
    Nearest(Rounding),
    /// N-linear.
    Linear,
    /// N-cubic with coefficient `a`.
    Cubic(f64),
}

/// Which neighbour is the nearest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rounding {
    /// Half rounds down.
    PreferFloor,
    /// Half rounds up.
    PreferCeil,
    /// Down.
    Floor,
    /// Up.
    Ceil,
    /// Down when growing, up when shrinking: opset 10.
    Simple,
}

/// How output positions map to input positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transform {
    /// Pixel centres.
    HalfPixel,
    /// Pixel centres around the centre of the map.
    HalfPixelSymmetric,
    /// Pixel centres, 0 for an output of one element.
    PytorchHalfPixel,
    /// The corners map to the corners.
    AlignCorners,
    /// `x / scale`.
    Asymmetric,
    /// Pixel centres without the half on the input side (opset 11).
    TfHalfPixelForNn,
    /// Into a region of interest; outside the input gives a fixed value.
    TfCropAndResize,
}

/// What `sizes` mean to the aspect ratio.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// They are the output sizes.
    Stretch,
    /// The largest output of the same aspect ratio within them.
    NotLarger,
    /// The smallest output of the same aspect ratio around them.
    NotSmaller,
}

/// A resampling of any axes.
#[derive(Debug, Clone)]
pub struct Resize {
    /// Interpolation.
    pub mode: Mode,
    /// Coordinates.
    pub transform: Transform,
    /// Aspect ratio policy.
    pub policy: Policy,
    /// Low-pass filtered when shrinking.
    pub antialias: bool,
    /// Neighbours outside the input weigh nothing.
    pub exclude_outside: bool,
    /// Value outside the region that [`Transform::TfCropAndResize`] can read.
    pub extrapolation: f32,
    /// Axes that roi, scales and sizes speak of; all of them if not given.
    pub axes: Option<Vec<i64>>,
    /// Scales as an attribute (Upsample before opset 9).
    pub scales: Option<Vec<f32>>,
    /// Position of the scales among the inputs (1 or 2); roi and sizes are given only with 2.
    pub scales_at: usize,
}

/// One axis of a resampling.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AxisPlan {
    /// Input size.
    pub input: usize,
    /// Output size.
    pub output: usize,
    /// Output over input size, as given.
    pub scale: f64,
    /// Region of interest, in relative coordinates.
    pub roi: (f64, f64),
}

/// For every output position of an axis, the input positions and weights that make it.
pub type AxisTaps = Vec<Vec<(usize, f32)>>;

/// Output size, scale and region of an axis, as far as they are known.
type Draft = (Dim, Option<f64>, (f64, f64));

/// What decides the output sizes, as far as it is known.
#[derive(Debug, Default)]
struct Wanted {
    scales: Option<Vec<f32>>,
    sizes: Option<Vec<i64>>,
    roi: Option<Vec<f64>>,
}

impl Wanted {
    fn of(this: &Resize, value: impl Fn(usize) -> Option<Tensor>) -> Result<Wanted> {
        let floats = |t: Tensor| t.to_f64s();
        let given = |i: usize| value(i).filter(|t| !t.is_empty());
        if this.scales.is_some() {
            return Ok(Wanted { scales: this.scales.clone(), ..Wanted::default() });
        }
        let scales = given(this.scales_at).map(floats).transpose()?;
        let scales = scales.map(|v| v.into_iter().map(|s| s as f32).collect());
        if this.scales_at == 1 {
            return Ok(Wanted { scales, ..Wanted::default() });
        }
        Ok(Wanted { scales, sizes: given(3).map(|t| t.to_i64s()).transpose()?, roi: given(1).map(floats).transpose()? })
    }
}

impl Resize {
    fn parse(node: &NodeSpec) -> Result<Op> {
        let upsample = node.op_type == "Upsample";
        let old = upsample || node.opset < 11;
        let by_attribute = upsample && node.opset < 9;
        match (by_attribute, old) {
            (true, _) => node.expect_inputs(1, 1)?,
            (_, true) => node.expect_inputs(2, 2)?,
            _ => node.expect_inputs(1, 4)?,
        }
        let unknown = |name: &str, v: &str| Error::input(format!("'{v}' is not known")).at_attribute(name);
        let rounding = match node.str("nearest_mode", "round_prefer_floor")? {
            _ if upsample => Rounding::Floor,
            _ if old => Rounding::Simple,
            "round_prefer_floor" => Rounding::PreferFloor,
            "round_prefer_ceil" => Rounding::PreferCeil,
            "floor" => Rounding::Floor,
            "ceil" => Rounding::Ceil,
            other => return Err(unknown("nearest_mode", other)),
        };
        let mode = match node.str("mode", "nearest")? {
            "nearest" => Mode::Nearest(rounding),
            "linear" | "bilinear" => Mode::Linear,
            "cubic" if !old => Mode::Cubic(node.float("cubic_coeff_a", -0.75)?.into()),
            other => return Err(unknown("mode", other)),
        };
        use Transform::*;
        let transform = match node.str("coordinate_transformation_mode", "half_pixel")? {
            _ if old => Asymmetric,
            "half_pixel" => HalfPixel,
            "half_pixel_symmetric" => HalfPixelSymmetric,
            "pytorch_half_pixel" => PytorchHalfPixel,
            "align_corners" => AlignCorners,
            "asymmetric" => Asymmetric,
            "tf_half_pixel_for_nn" => TfHalfPixelForNn,
            "tf_crop_and_resize" => TfCropAndResize,
            other => return Err(unknown("coordinate_transformation_mode", other)),
        };
        let policy = match node.str("keep_aspect_ratio_policy", "stretch")? {
            "stretch" => Policy::Stretch,
            "not_larger" => Policy::NotLarger,
            "not_smaller" => Policy::NotSmaller,
            other => return Err(unknown("keep_aspect_ratio_policy", other)),
        };
        let antialias = node.flag("antialias", false)?;
        if antialias && matches!(mode, Mode::Nearest(_)) {
            return Err(Error::input("goes with linear and cubic interpolation only").at_attribute("antialias"));
        }
        let scales = if by_attribute {
            let scales = node.opt_floats("scales")?;
            Some(scales.ok_or_else(|| Error::input("is required").at_attribute("scales"))?)
        } else {
            None
        };
        Ok(Op::Resize(Resize {
            mode,
            transform,
            policy,
            antialias,
            exclude_outside: node.flag("exclude_outside", false)?,
            extrapolation: node.float("extrapolation_value", 0.0)?,
            axes: node.opt_ints("axes")?,
            scales,
            scales_at: if old { 1 } else { 2 },
        }))
    }

    fn axes(&self, rank: usize) -> Result<Vec<usize>> {
        match &self.axes {
            None => Ok((0..rank).collect()),
            Some(v) => axes_of(v, rank),
        }
    }

    /// Scale, region and output size per axis; what depends on an unknown input size is unknown.
    fn plan(&self, x: &[Dim], wanted: &Wanted) -> Result<Vec<Draft>> {
        let axes = self.axes(x.len())?;
        let count = |name: &str, have: usize, need: usize| {
            if have == need {
                Ok(())
            } else {
                Err(Error::input(format!("{name} has {have} values where {need} are needed")))
            }
        };
        let mut plan: Vec<_> = x.iter().map(|&d| (d, Some(1.0), (0.0, 1.0))).collect();
        if let Some(roi) = wanted.roi.as_ref().filter(|_| self.transform == Transform::TfCropAndResize) {
            count("roi", roi.len(), 2 * axes.len())?;
            for (i, &a) in axes.iter().enumerate() {
                plan[a].2 = (roi[i], roi[i + axes.len()]);
            }
        }
        let too_large = |v: f64| Error::input(format!("an output size of {v} is out of range"));
        let size = |v: f64| if (0.0..9e15).contains(&v) { Ok(v as usize) } else { Err(too_large(v)) };
        match (&wanted.scales, &wanted.sizes) {
            (None, Some(sizes)) => {
                count("sizes", sizes.len(), axes.len())?;
                let ratio = |a: usize, s: i64| x[a].filter(|&i| i > 0).map(|i| s as f64 / i as f64);
                let mut common = None;
                if self.policy != Policy::Stretch {
                    let all: Option<Vec<f64>> = axes.iter().zip(sizes).map(|(&a, &s)| ratio(a, s)).collect();
                    let pick = if self.policy == Policy::NotLarger { f64::min } else { f64::max };
                    common = Some(all.and_then(|v| v.into_iter().reduce(pick)));
                }
                for (&a, &s) in axes.iter().zip(sizes) {
                    let own = size(s as f64)?;
                    (plan[a].0, plan[a].1) = match common {
                        None => (Some(own), ratio(a, s)),
                        Some(None) => (None, None),
                        Some(Some(scale)) => {
                            (x[a].map(|i| size((scale * i as f64 + 0.5).floor())).transpose()?, Some(scale))
                        }
                    };
                }
            }
            (Some(scales), _) => {
                count("scales", scales.len(), axes.len())?;
                for (&a, &s) in axes.iter().zip(scales) {
                    if !(s > 0.0 && s.is_finite()) {
                        return Err(Error::input(format!("a scale of {s}")));
                    }
                    // In single precision, as the standard's shape inference does.
                    let crop = (plan[a].2.1 - plan[a].2.0) as f32;
                    let out = |i: usize| size((i as f32 * crop * s).floor().into());
                    plan[a].0 = x[a].map(out).transpose()?;
                    plan[a].1 = Some(s.into());
                }
            }
            (None, None) => axes.iter().for_each(|&a| (plan[a].0, plan[a].1) = (None, None)),
        }
        Ok(plan)
    }

    /// The plan for concrete sizes; `None` where it depends on values that are not known.
    fn concrete(&self, x: &[usize], wanted: &Wanted) -> Result<Option<Vec<AxisPlan>>> {
        let dims: Vec<Dim> = x.iter().map(|&d| Some(d)).collect();
        let plan = self.plan(&dims, wanted)?;
        let mut out = Vec::with_capacity(plan.len());
        for (&input, (output, scale, roi)) in x.iter().zip(plan) {
            let Some(output) = output else { return Ok(None) };
            let scale = if input == 0 { 1.0 } else { scale.unwrap_or(1.0) };
            if input == 0 && output > 0 {
                return Err(Error::input("an empty axis cannot grow"));
            }
            out.push(AxisPlan { input, output, scale, roi });
        }
        Ok(Some(out))
    }

    /// Whether the axis is copied as it is.
    fn is_identity(&self, p: &AxisPlan) -> bool {
        p.input == p.output
            && (p.scale - 1.0).abs() < 1e-9
            && (self.transform != Transform::TfCropAndResize || p.roi == (0.0, 1.0))
    }

    /// Neighbours that make an element along the axis.
    fn taps(&self, p: &AxisPlan) -> usize {
        let scale = if self.antialias { p.scale.min(1.0) } else { 1.0 };
        match self.mode {
            Mode::Nearest(_) => 1,
            Mode::Linear => (2.0 - 2.0 * ((-1.0 / scale).floor() + 1.0)) as usize,
            Mode::Cubic(_) => (2.0 - 2.0 * ((-2.0 / scale).floor() + 1.0)) as usize,
        }
    }

    /// Where output position `y` lies in the input; `None` outside the region that can be read.
    fn source(&self, p: &AxisPlan, y: usize) -> Option<f64> {
        let (y, last) = (y as f64, p.input as f64 - 1.0);
        let length = p.scale * p.input as f64;
        let half_pixel = (y + 0.5) / p.scale - 0.5;
        Some(match self.transform {
            Transform::HalfPixel => half_pixel,
            Transform::HalfPixelSymmetric => {
                let adjustment = p.output as f64 / length;
                p.input as f64 / 2.0 * (1.0 - adjustment) + half_pixel
            }
            Transform::PytorchHalfPixel => {
                if p.output > 1 {
                    half_pixel
                } else {
                    0.0
                }
            }
            Transform::AlignCorners => {
                if length == 1.0 {
                    0.0
                } else {
                    y * last / (length - 1.0)
                }
            }
            Transform::Asymmetric => y / p.scale,
            Transform::TfHalfPixelForNn => (y + 0.5) / p.scale,
            Transform::TfCropAndResize => {
                let (start, end) = p.roi;
                let at = if length == 1.0 {
                    (end - start) * last / 2.0 + start * last
                } else {
                    y * (end - start) * last / (length - 1.0) + start * last
                };
                return (at >= 0.0 && at <= last).then_some(at);
            }
        })
    }

    /// The input position each output position copies.
    fn nearest(&self, p: &AxisPlan, rounding: Rounding) -> Vec<Option<usize>> {
        let pick = |x: f64| match rounding {
            Rounding::PreferFloor => (x - 0.5).ceil(),
            Rounding::PreferCeil => (x + 0.5).floor(),
            Rounding::Floor => x.floor(),
            Rounding::Ceil => x.ceil(),
            Rounding::Simple => {
                if p.scale < 1.0 {
                    x.ceil()
                } else {
                    x.floor()
                }
            }
        };
        // A hair's breadth of rounding in `y / scale` must decide neither between pixels nor at their halves.
        let half = |x: f64| (2.0 * x).round() / 2.0;
        let exact = |x: f64| if (x - half(x)).abs() < 1e-6 { half(x) } else { x };
        let place = |x: f64| pick(exact(x)).clamp(0.0, p.input.saturating_sub(1) as f64) as usize;
        (0..p.output).map(|y| self.source(p, y).map(place)).collect()
    }

    /// Neighbours and weights of output position `y`, and whether it lies outside what can be read.
    fn neighbours(&self, p: &AxisPlan, y: usize, taps: usize) -> (Vec<(usize, f64)>, bool) {
        let source = self.source(p, y);
        let x = source.unwrap_or(0.0);
        let whole = x == x.floor();
        // The neighbour on the left is preferred: a whole position is the right one's, with weight 1.
        let ratio = if whole { 1.0 } else { x - x.floor() };
        let first = x.floor() as i64 - taps as i64 / 2 + i64::from(!whole);
        let scale = if self.antialias { p.scale.min(1.0) } else { 1.0 };
        let weight = |t: usize| {
            let distance = ((t as f64 - (taps / 2 - 1) as f64 - ratio) * scale).abs();
            match self.mode {
                Mode::Cubic(a) => {
                    let d = distance;
                    if d <= 1.0 {
                        ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0
                    } else if d < 2.0 {
                        ((a * d - 5.0 * a) * d + 8.0 * a) * d - 4.0 * a
                    } else {
                        0.0
                    }
                }
                _ => (1.0 - distance).max(0.0),
            }
        };
        let inside = |t: usize| (0..p.input as i64).contains(&(first + t as i64));
        let mut weights: Vec<f64> =
            (0..taps).map(|t| if self.exclude_outside && !inside(t) { 0.0 } else { weight(t) }).collect();
        if self.exclude_outside || self.antialias {
            let sum: f64 = weights.iter().sum();
            if sum != 0.0 {
                weights.iter_mut().for_each(|w| *w /= sum);
            }
        }
        let places = (0..taps).map(|t| (first + t as i64).clamp(0, p.input as i64 - 1).max(0) as usize);
        (places.zip(weights).collect(), source.is_none())
    }

    /// For every axis and every output position along it, the input positions and weights that make it; `None` for an axis that is
    /// copied. Nothing at all when sizes are not known or positions lie outside what can be read.
    pub fn axis_taps(&self, x: &[usize], value: impl Fn(usize) -> Option<Tensor>) -> Option<Vec<Option<AxisTaps>>> {
        let plan = self.concrete(x, &Wanted::of(self, value).ok()?).ok()??;
        let axis = |p: &AxisPlan| -> Option<Option<AxisTaps>> {
            if self.is_identity(p) {
                return Some(None);
            }
            if let Mode::Nearest(rounding) = self.mode {
                let places = self.nearest(p, rounding).into_iter();
                return places.map(|at| Some(vec![(at?, 1.0)])).collect::<Option<AxisTaps>>().map(Some);
            }
            let taps = self.taps(p);
            if taps > 64 {
                return None;
            }
            let position = |y: usize| match self.neighbours(p, y, taps) {
                (_, true) => None,
                (all, false) => Some(all.into_iter().filter(|t| t.1 != 0.0).map(|(at, w)| (at, w as f32)).collect()),
            };
            (0..p.output).map(position).collect::<Option<AxisTaps>>().map(Some)
        };
        plan.iter().map(axis).collect()
    }

    /// All passes over `[…]` data; gives the values of the output.
    fn interpolate<T: Num>(&self, mut data: Vec<T>, plan: &[AxisPlan]) -> Result<Vec<T>> {
        for (a, p) in plan.iter().enumerate().filter(|(_, p)| !self.is_identity(p)) {
            let outer: usize = plan[..a].iter().map(|p| p.output).product();
            let inner: usize = plan[a + 1..].iter().map(|p| p.input).product();
            element_count(&[outer, p.output, inner])?;
            let taps = self.taps(p);
            if taps > 1 << 24 {
                return Err(Error::unsupported(format!("antialiasing at a scale of {}", p.scale)));
            }
            let rows: Vec<_> = (0..p.output).map(|y| self.neighbours(p, y, taps)).collect();
            let mut next = Vec::with_capacity(outer * p.output * inner);
            if inner > 0 {
                for block in data.chunks_exact((p.input * inner).max(1)) {
                    for (neighbours, outside) in &rows {
                        let from = next.len();
                        for (t, &(place, weight)) in neighbours.iter().enumerate() {
                            let (row, weight) = (&block[place * inner..][..inner], T::of(weight));
                            if t == 0 {
                                next.extend(row.iter().map(|&v| v * weight));
                            } else {
                                for (sum, &v) in next[from..].iter_mut().zip(row) {
                                    *sum = *sum + v * weight;
                                }
                            }
                        }
                        if *outside {
                            next[from..].fill(T::of(self.extrapolation.into()));
                        }
                    }
                }
            }
            data = next;
        }
        Ok(data)
    }
}

impl Family for Resize {
    fn infer(&self, cx: &Infer) -> Result<Vec<Fact>> {
        let x = cx.fact(0)?;
        let Some(dims) = x.shape.dims() else { return Ok(vec![x.clone()]) };
        let wanted = Wanted::of(self, |i| cx.opt(i).and_then(|i| i.value).cloned())?;
        let crops = self.transform == Transform::TfCropAndResize && wanted.sizes.is_none() && wanted.roi.is_none();
        let plan = self.plan(dims, &wanted)?;
        let axes = self.axes(dims.len())?;
        let out = plan.iter().enumerate().map(|(a, p)| if crops && axes.contains(&a) { None } else { p.0 }).collect();
        Ok(vec![x.with_shape(Shape::partial(out))])
    }

    fn charge(&self, cx: &CostCx) -> Charge {
        if matches!(self.mode, Mode::Nearest(_)) || cx.dtype(0).is_some_and(|d| !d.is_float()) {
            return Charge::Known(Work::NONE);
        }
        Charge::of((|| {
            let (x, y) = (cx.dims(0)?, cx.out_dims(0)?);
            if y.contains(&0) {
                return Some(Work::NONE);
            }
            let value = |i: usize| cx.inputs.get(i).copied().flatten().and_then(|x| x.value).cloned();
            let mut wanted = Wanted::of(self, value).ok()?;
            let scales_given = self.scales.is_some() || cx.elements(self.scales_at).is_some_and(|n| n > 0);
            if wanted.sizes.is_none() && !scales_given && self.policy == Policy::Stretch {
                // Sizes that only a run computes are nevertheless the output's.
                let axes = self.axes(x.len()).ok()?;
                wanted.sizes = Some(axes.iter().map(|&a| y[a] as i64).collect());
            }
            if self.transform == Transform::TfCropAndResize && wanted.roi.is_none() && cx.has(1) {
                return None;
            }
            let plan = self.concrete(&x, &wanted).ok()??;
            let mut total = 0u64;
            for (a, p) in plan.iter().enumerate().filter(|(_, p)| !self.is_identity(p)) {
                let made = plan[..=a].iter().map(|p| p.output).chain(plan[a + 1..].iter().map(|p| p.input));
                let per = (self.taps(p) as u64).checked_mul(2)?.checked_sub(1)?;
                total = total.checked_add(product(made)?.checked_mul(per)?)?;
            }
            Some(Work::other(total))
        })())
    }

    fn eval(&self, cx: &EvalCx, inputs: &Inputs) -> Result<Vec<Tensor>> {
        let x = input(inputs, 0)?;
        let wanted = Wanted::of(self, |i| opt(inputs, i).cloned())?;
        if self.transform == Transform::TfCropAndResize && wanted.roi.is_none() {
            return Err(Error::run("tf_crop_and_resize needs a region of interest"));
        }
        let plan = self.concrete(x.dims(), &wanted)?;
        let plan = plan.ok_or_else(|| Error::run("neither scales nor sizes are given"))?;
        let dims: Vec<usize> = plan.iter().map(|p| p.output).collect();
        if element_count(&dims)? == 0 {
            return Ok(vec![Tensor::zeros(x.dtype(), &dims)?]);
        }
        if let Mode::Nearest(rounding) = self.mode {
            let copy = |p: &AxisPlan| (0..p.output).map(Some).collect();
            let maps: Vec<_> =
                plan.iter().map(|p| if self.is_identity(p) { copy(p) } else { self.nearest(p, rounding) }).collect();
            let fill = match x.dtype() {
                DType::F32 => Tensor::scalar(self.extrapolation),
                DType::F64 => Tensor::scalar(f64::from(self.extrapolation)),
                DType::Str => Tensor::from_strings(vec![String::new()], &[])?,
                d => from_ints(d, &[self.extrapolation as i128], &[])?,
            };
            return Ok(vec![mapped_copy(x, &maps, &fill)?]);
        }
        if !is_num(x.dtype()) {
            let y = self.interpolate(x.to_f64s()?, &plan)?;
            let (low, high) = int_range(x.dtype()).ok_or_else(|| Error::run("numbers are needed"))?;
            let y: Vec<i128> = y.into_iter().map(|v| (v.round_ties_even() as i128).clamp(low, high)).collect();
            return Ok(vec![from_ints(x.dtype(), &y, &dims)?]);
        }
        with_num!(cx.arith, x.dtype(), T => Ok(vec![T::store(self.interpolate(T::load(x)?, &plan)?, &dims)?]))
    }

    fn role(&self, i: usize) -> Role {
        if i == 0 { Role::Data } else { Role::Setting }
    }
}

fn cases() -> Vec<Case> {
    let f = sample::floats;
    let name = |k: &'static str, v: &str| (k, Attr::Str(v.into()));
    let floats = |v: &[f32]| Tensor::from_vec(v.to_vec(), &[v.len()]).expect("one dim, its length");
    let x = || f(&[2, 3, 4, 5], 1);
    let scaled = |attrs: &[(&str, Attr)], s: &[f32]| {
        Case::with_optional("Resize", attrs, vec![Some(x()), None, Some(floats(s))], 1)
    };
    let sized = |attrs: &[(&str, Attr)], s: &[i64]| {
        Case::with_optional("Resize", attrs, vec![Some(x()), None, None, Some(sample::ints(s))], 1)
    };
    let linear = || name("mode", "linear");
    let cubic = || name("mode", "cubic");
    let yes = || Attr::Int(1);
    let how = |v: &str| name("coordinate_transformation_mode", v);
    let axes = ("axes", Attr::Ints(vec![3, 2]));
    let bytes = Tensor::from_vec((0..12u8).map(|v| v * 20).collect::<Vec<_>>(), &[3, 4]).expect("12 values");
    let roi = floats(&[0.0, 0.0, 0.2, 0.4, 1.0, 1.0, 0.9, 1.2]);
    vec![
        scaled(&[], &[1.0, 1.0, 2.0, 3.0]),
        scaled(&[name("nearest_mode", "ceil"), how("asymmetric")], &[1.0, 1.0, 0.6, 1.7]),
        scaled(&[linear()], &[1.0, 1.0, 2.0, 2.0]).opset(13),
        scaled(&[linear(), how("align_corners")], &[1.0, 1.0, 0.8, 2.0]),
        scaled(&[linear(), how("pytorch_half_pixel")], &[1.0, 1.0, 0.3, 1.0]).opset(11),
        scaled(&[cubic()], &[1.0, 1.0, 0.8, 2.5]),
        scaled(&[cubic(), ("exclude_outside", yes()), ("cubic_coeff_a", Attr::Float(-0.5))], &[1.0, 1.0, 2.0, 0.6]),
        scaled(&[linear(), how("half_pixel_symmetric")], &[1.0, 1.0, 1.7, 2.3]),
        scaled(&[linear(), ("antialias", yes())], &[1.0, 1.0, 0.4, 0.6]),
        scaled(&[cubic(), ("antialias", yes())], &[1.0, 1.0, 0.4, 1.6]),
        sized(&[linear()], &[2, 3, 9, 3]),
        sized(&[linear(), how("tf_half_pixel_for_nn")], &[2, 2, 4, 3]).opset(11),
        sized(&[linear(), axes.clone(), name("keep_aspect_ratio_policy", "not_larger")], &[8, 5]),
        sized(&[axes, name("keep_aspect_ratio_policy", "not_smaller")], &[8, 5]).opset(18),
        Case::with_optional(
            "Resize",
            &[linear(), how("tf_crop_and_resize"), ("extrapolation_value", Attr::Float(9.0))],
            vec![Some(x()), Some(roi.clone()), None, Some(sample::ints(&[2, 3, 3, 3]))],
            1,
        ),
        Case::with_optional(
            "Resize",
            &[how("tf_crop_and_resize")],
            vec![Some(x()), Some(roi), Some(floats(&[1.0, 1.0, 1.0, 2.0]))],
            1,
        ),
        Case::new("Resize", &[], vec![x(), floats(&[1.0, 1.0, 2.0, 0.6])]).opset(10),
        Case::new("Resize", &[linear()], vec![x(), floats(&[1.0, 1.0, 2.0, 2.0])]).opset(10),
        Case::with_optional("Resize", &[linear()], vec![Some(bytes), None, Some(floats(&[1.5, 2.0]))], 1),
        Case::new("Upsample", &[("scales", Attr::Floats(vec![1.0, 1.0, 2.0, 3.0]))], vec![x()]).opset(7),
        Case::with_optional(
            "Resize",
            &[linear()],
            vec![Some(f(&[0, 3, 4], 1)), None, Some(floats(&[1.0, 1.0, 2.0]))],
            1,
        ),
        Case::new("Upsample", &[linear()], vec![x(), floats(&[1.0, 1.0, 2.0, 2.0])]).opset(9),
    ]
}
