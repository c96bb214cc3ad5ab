//! Normalisations: Batch, Instance, Layer, Group, RMS, Lp, MeanVariance, local response, and ONNX Runtime's fused forms.
//!
//! <https://onnx.ai/onnx/operators/onnx__BatchNormalization.html>, <https://onnx.ai/onnx/operators/onnx__LayerNormalization.html>,
//! <https://onnx.ai/onnx/operators/onnx__GroupNormalization.html>, <https://onnx.ai/onnx/operators/onnx__LRN.html> and their kin.
//!
//! Other FLOPs. BatchNormalization: 2 per element (its four vectors become one factor and one offset per channel when the model
//! loads, free of charge); in training mode 6 per element and 2 per channel, and 6 more per channel where the new running statistics
//! are asked for. Mean and variance (Instance, Layer, Group, MeanVariance): 5 per element (sum, centre, square, sum, scale) and 5 per group, plus one per element each for scale and bias. RMS: 3 per element
//! and 4 per group, plus one for the scale. Lp: 3 per element, and a root per group for p = 2. LRN: `size + 4` per element. The
//! Skip forms add one per element for each thing they add first.

use super::dims::{axes as axes_of, axis as axis_of, strides};
use super::matmul::broadcast_offsets;
use super::spec::{Attr, NodeSpec};
use super::{Case, Charge, CostCx, Entry, EvalCx, Family, Infer, Inputs, Op, Role, input, opt, sample};
use crate::cost::{Work, product};
use crate::error::{Error, Result};
use crate::tensor::{DType, Fact, Num, Shape, Tensor, element_count};
use crate::with_num;

/// The family's table rows.
pub const ENTRIES: &[Entry] = &[
    Entry { domain: "", name: "BatchNormalization", parse: parse_batch, cases },
    Entry { domain: "", name: "InstanceNormalization", parse: parse_grouped, cases },
    Entry { domain: "", name: "GroupNormalization", parse: parse_grouped, cases },
    Entry { domain: "", name: "LayerNormalization", parse: parse_layer, cases },
    Entry { domain: "", name: "RMSNormalization", parse: parse_layer, cases },
    Entry { domain: "", name: "SimplifiedLayerNormalization", parse: parse_layer, cases },
    Entry { domain: "", name: "LpNormalization", parse: parse_lp, cases },
    Entry { domain: "", name: "MeanVarianceNormalization", parse: parse_mvn, cases },
    Entry { domain: "", name: "LRN", parse: parse_lrn, cases },
    Entry { domain: "com.microsoft", name: "SimplifiedLayerNormalization", parse: parse_layer, cases },
    Entry { domain: "com.microsoft", name: "LayerNormalization", parse: parse_layer, cases },
    Entry { domain: "com.microsoft", name: "SkipLayerNormalization", parse: parse_skip, cases },
    Entry { domain: "com.microsoft", name: "SkipSimplifiedLayerNormalization", parse: parse_skip, cases },
];

/// A normalisation.
#[derive(Debug, Clone)]
pub enum Norm {
    /// Over the batch, with running statistics (or the batch's own when training).
    Batch {
        /// Added to the variance.
        epsilon: f32,
        /// One statistic per channel, not per feature (the default; opset 7 and 8 allow both).
        spatial: bool,
        /// Statistics of the batch, with this weight of the running ones.
        training: Option<f32>,
    },
    /// Per sample and group of channels.
    Grouped {
        /// Added to the variance.
        epsilon: f32,
        /// Number of groups; `None` is one per channel (InstanceNormalization).
        groups: Option<usize>,
        /// Scale and bias have one element per group, not per channel (GroupNormalization before opset 21).
        per_group: bool,
    },
    /// Over the trailing axes from `axis`.
    Layer {
        /// First normalised axis.
        axis: i64,
        /// Added to the variance or mean square.
        epsilon: f32,
        /// Without subtracting the mean (RMSNormalization, SimplifiedLayerNormalization).
        rms: bool,
        /// Element type of the statistics outputs.
        stash: DType,
        /// What ONNX Runtime's Skip forms add before: inputs are `x, skip, scale, …`.
        skip: bool,
    },
    /// Division by the Lp norm along an axis.
    Lp {
        /// The axis.
        axis: i64,
        /// 1 or 2.
        p: i64,
    },
    /// Zero mean and unit variance over axes.
    MeanVariance {
        /// The axes.
        axes: Vec<i64>,
    },
    /// Division by a power of the squares of neighbouring channels.
    LocalResponse {
        /// Factor of the sum.
        alpha: f32,
        /// Exponent.
        beta: f32,
        /// Addend.
        bias: f32,
        /// Number of channels in the window.
        size: usize,
    },
}

fn parse_batch(node: &NodeSpec) -> Result<Op> {
    node.expect_inputs(5, 5)?;
    let momentum = node.float("momentum", 0.9)?;
    let training = node.opset >= 14 && node.flag("training_mode", false)?;
    let spatial = node.opset >= 9 || node.flag("spatial", true)?;
    let epsilon = node.float("epsilon", 1e-5)?;
    Ok(Op::Norm(Norm::Batch { epsilon, spatial, training: training.then_some(momentum) }))
}

fn parse_grouped(node: &NodeSpec) -> Result<Op> {
    node.expect_inputs(3, 3)?;
    let groups = match node.op_type.as_str() {
        "InstanceNormalization" => None,
        _ => Some(
            node.opt_size("num_groups")?
                .filter(|&g| g > 0)
                .ok_or_else(|| Error::input("must be positive").at_attribute("num_groups"))?,
        ),
    };
    let per_group = groups.is_some() && node.opset < 21;
    Ok(Op::Norm(Norm::Grouped { epsilon: node.float("epsilon", 1e-5)?, groups, per_group }))
}

fn parse_layer(node: &NodeSpec) -> Result<Op> {
    let rms = node.op_type != "LayerNormalization";
    node.expect_inputs(2, if rms { 2 } else { 3 })?;
    Ok(Op::Norm(Norm::Layer {
        axis: node.int("axis", -1)?,
        epsilon: node.float("epsilon", 1e-5)?,
        rms,
        stash: node.opt_dtype("stash_type")?.unwrap_or(DType::F32),
        skip: false,
    }))
}

fn parse_skip(node: &NodeSpec) -> Result<Op> {
    let rms = node.op_type != "SkipLayerNormalization";
    node.expect_inputs(3, if rms { 4 } else { 5 })?;
    let epsilon = node.float("epsilon", if rms { 1e-5 } else { 1e-12 })?;
    Ok(Op::Norm(Norm::Layer { axis: -1, epsilon, rms, stash: DType::F32, skip: true }))
}

fn parse_lp(node: &NodeSpec) -> Result<Op> {
    node.expect_inputs(1, 1)?;
    let p = node.int("p", 2)?;
    if p != 1 && p != 2 {
        return Err(Error::input("must be 1 or 2").at_attribute("p"));
    }
    Ok(Op::Norm(Norm::Lp { axis: node.int("axis", -1)?, p }))
}

fn parse_mvn(node: &NodeSpec) -> Result<Op> {
    node.expect_inputs(1, 1)?;
    Ok(Op::Norm(Norm::MeanVariance { axes: node.opt_ints("axes")?.unwrap_or_else(|| vec![0, 2, 3]) }))
}

fn parse_lrn(node: &NodeSpec) -> Result<Op> {
    node.expect_inputs(1, 1)?;
    let size = node.opt_size("size")?.filter(|&s| s > 0);
    Ok(Op::Norm(Norm::LocalResponse {
        alpha: node.float("alpha", 1e-4)?,
        beta: node.float("beta", 0.75)?,
        bias: node.float("bias", 1.0)?,
        size: size.ok_or_else(|| Error::input("must be positive").at_attribute("size"))?,
    }))
}

/// Elements and groups that mean and variance are taken over.
struct Groups {
    count: usize,
    size: usize,
}

impl Norm {
    /// Positions of scale and bias among the inputs.
    fn affine(&self) -> (Option<usize>, Option<usize>) {
        match self {
            Norm::Batch { .. } | Norm::Grouped { .. } => (Some(1), Some(2)),
            Norm::Layer { skip: false, .. } => (Some(1), Some(2)),
            Norm::Layer { rms: false, .. } => (Some(2), Some(3)),
            Norm::Layer { .. } => (Some(2), None),
            _ => (None, None),
        }
    }

    /// What is added before, besides input 0.
    fn addends(&self) -> &'static [usize] {
        match self {
            Norm::Layer { skip: true, rms: false, .. } => &[1, 4],
            Norm::Layer { skip: true, rms: true, .. } => &[1, 3],
            _ => &[],
        }
    }

    /// Statistics groups for input dims.
    fn groups(&self, x: &[usize]) -> Result<Groups> {
        let all = element_count;
        match self {
            Norm::Grouped { groups, .. } => {
                let (&[n, c], spatial) = x.split_first_chunk::<2>().ok_or_else(|| too_flat(x.len()))?;
                let g = groups.unwrap_or(c);
                if g == 0 || c % g != 0 {
                    if c == 0 {
                        return Ok(Groups { count: 0, size: 0 });
                    }
                    return Err(
                        Error::input(format!("{c} channels do not divide into {g} groups")).at_attribute("num_groups")
                    );
                }
                Ok(Groups { count: all(&[n, g])?, size: all(&[c / g, all(spatial)?])? })
            }
            Norm::Layer { axis, .. } => {
                let a = axis_of(*axis, x.len())?;
                Ok(Groups { count: all(&x[..a])?, size: all(&x[a..])? })
            }
            Norm::Lp { axis, .. } => {
                let a = axis_of(*axis, x.len())?;
                Ok(Groups { count: all(&[all(&x[..a])?, all(&x[a + 1..])?])?, size: x[a] })
            }
            Norm::MeanVariance { axes } => {
                let mut over = vec![false; x.len()];
                axes_of(axes, x.len())?.into_iter().for_each(|a| over[a] = true);
                let part =
                    |want: bool| all(&x.iter().zip(&over).filter(|o| *o.1 == want).map(|o| *o.0).collect::<Vec<_>>());
                Ok(Groups { count: part(false)?, size: part(true)? })
            }
            Norm::Batch { .. } | Norm::LocalResponse { .. } => Ok(Groups { count: 0, size: 0 }),
        }
    }
}

fn too_flat(rank: usize) -> Error {
    Error::input(format!("needs [n, c, …], not rank {rank}"))
}

impl Family for Norm {
    fn infer(&self, cx: &Infer) -> Result<Vec<Fact>> {
        let x = cx.fact(0)?;
        if let Some(dims) = x.shape.concrete() {
            self.groups(&dims)?;
        }
        let mut facts = vec![x.clone()];
        match self {
            Norm::Batch { .. } => {
                let c = cx.fact(3)?;
                facts.extend((1..cx.outputs).map(|_| c.clone()));
            }
            Norm::Layer { axis, stash, skip, .. } => {
                let statistics = match x.shape.dims() {
                    None => Shape::UNKNOWN,
                    Some(d) => {
                        let a = axis_of(*axis, d.len())?;
                        Shape::partial(d.iter().enumerate().map(|(i, &d)| if i < a { d } else { Some(1) }).collect())
                    }
                };
                let statistics = Fact::new(*stash, statistics);
                facts.extend((1..cx.outputs.min(3)).map(|_| statistics.clone()));
                if *skip && cx.outputs > 3 {
                    facts.push(x.clone());
                }
            }
            _ => {}
        }
        Ok(facts)
    }

    fn charge(&self, cx: &CostCx) -> Charge {
        Charge::of((|| {
            let dims = cx.dims(0)?;
            let n = product(dims.iter().copied())?;
            let g = self.groups(&dims).ok()?;
            if n == 0 {
                return Some(Work::NONE);
            }
            let per = |per_element: u64, per_group: u64| {
                n.checked_mul(per_element)?.checked_add((g.count as u64).checked_mul(per_group)?)
            };
            let (scale, bias) = self.affine();
            let given = |i: Option<usize>| u64::from(i.is_some_and(|i| cx.has(i)));
            let affine = given(scale) + given(bias);
            Some(Work::other(match self {
                Norm::Batch { training: None, .. } => n.checked_mul(2)?,
                Norm::Batch { .. } => {
                    let per_channel = if cx.outputs.len() > 1 { 8 } else { 2 };
                    n.checked_mul(6)?.checked_add(cx.elements(1)?.checked_mul(per_channel)?)?
                }
                Norm::Grouped { .. } => per(5 + affine, 5)?,
                Norm::Layer { rms, .. } => {
                    let added = self.addends().iter().filter(|&&i| cx.has(i)).count() as u64;
                    if *rms { per(3 + affine + added, 4)? } else { per(5 + affine + added, 5)? }
                }
                Norm::Lp { p, .. } => per(3, u64::from(*p == 2))?,
                Norm::MeanVariance { .. } => per(5, 5)?,
                Norm::LocalResponse { size, .. } => n.checked_mul((*size as u64).checked_add(4)?)?,
            }))
        })())
    }

    fn eval(&self, cx: &EvalCx, inputs: &Inputs) -> Result<Vec<Tensor>> {
        let x = input(inputs, 0)?;
        with_num!(cx.arith, x.dtype(), T => self.run::<T>(cx, inputs, x))
    }

    fn role(&self, i: usize) -> Role {
        match self {
            Norm::Batch { .. } if i >= 3 => Role::Statistic,
            Norm::Layer { skip: true, .. } if i == 1 => Role::Data,
            _ if i == 0 => Role::Data,
            _ => Role::Weight,
        }
    }
}

impl Norm {
    fn run<T: Num>(&self, cx: &EvalCx, inputs: &Inputs, x: &Tensor) -> Result<Vec<Tensor>> {
        let dims = x.dims();
        let mut v = T::load(x)?;
        if v.is_empty() && cx.outputs < 2 {
            return Ok(vec![T::store(v, dims)?]);
        }
        match self {
            Norm::Batch { epsilon, spatial, training } => {
                let mut vectors = Vec::with_capacity(4);
                // What training only updates need not even be made where nobody asks for the result.
                let read = if training.is_some() && cx.outputs < 2 { 3 } else { 5 };
                for i in 1..read {
                    vectors.push(T::load(input(inputs, i)?)?);
                }
                batch(&mut v, dims, &vectors, *epsilon, *spatial, *training).and_then(|running| {
                    let statistics = input(inputs, 3)?.dims();
                    let mut out = vec![T::store(v, dims)?];
                    let running = running.unwrap_or_else(|| vectors.split_off(2));
                    for i in 1..cx.outputs {
                        // Opset 7 to 13 name saved statistics too; they equal the running ones at inference.
                        out.push(T::store(running[(i - 1) % 2].clone(), statistics)?);
                    }
                    Ok(out)
                })
            }
            Norm::Grouped { epsilon, groups, per_group } => {
                let g = self.groups(dims)?;
                let per = if *per_group { groups.unwrap_or(1) } else { dims[1] };
                let (scale, bias) = (T::load(input(inputs, 1)?)?, T::load(input(inputs, 2)?)?);
                if scale.len() != per || bias.len() != per {
                    return Err(Error::run(format!("scale and bias need {per} elements each")));
                }
                if v.is_empty() {
                    return Ok(vec![T::store(v, dims)?]);
                }
                let run = v.len() / (dims[0] * per);
                for row in v.chunks_exact_mut(g.size) {
                    standardize(row, *epsilon);
                }
                for (i, part) in v.chunks_exact_mut(run).enumerate() {
                    let (s, b) = (scale[i % per], bias[i % per]);
                    part.iter_mut().for_each(|v| *v = *v * s + b);
                }
                Ok(vec![T::store(v, dims)?])
            }
            Norm::Layer { epsilon, rms, stash, skip, axis } => {
                let g = self.groups(dims)?;
                for &i in self.addends() {
                    if let Some(t) = opt(inputs, i) {
                        let (t, at) = (T::load(t)?, offsets(t, dims)?);
                        v.iter_mut().zip(at).for_each(|(v, at)| *v = *v + t[at]);
                    }
                }
                let sum = (*skip && cx.outputs > 3).then(|| v.clone());
                let mut statistics = [Vec::with_capacity(g.count), Vec::with_capacity(g.count)];
                for row in v.chunks_exact_mut(g.size.max(1)) {
                    let (mean, inverse) =
                        if *rms { (0.0, by_root_mean_square(row, *epsilon)) } else { standardize(row, *epsilon) };
                    statistics[0].push(mean);
                    statistics[1].push(inverse);
                }
                let (scale, bias) = self.affine();
                if let Some(t) = scale.and_then(|i| opt(inputs, i)) {
                    let (t, at) = (T::load(t)?, offsets(t, dims)?);
                    v.iter_mut().zip(at).for_each(|(v, at)| *v = *v * t[at]);
                }
                if let Some(t) = bias.and_then(|i| opt(inputs, i)) {
                    let (t, at) = (T::load(t)?, offsets(t, dims)?);
                    v.iter_mut().zip(at).for_each(|(v, at)| *v = *v + t[at]);
                }
                let mut out = vec![T::store(v, dims)?];
                let a = axis_of(*axis, dims.len())?;
                let kept: Vec<usize> = dims.iter().enumerate().map(|(i, &d)| if i < a { d } else { 1 }).collect();
                if *rms && !*skip {
                    statistics.swap(0, 1); // their second output is the inverse
                }
                for s in statistics.into_iter().take(cx.outputs.saturating_sub(1)) {
                    let mut s = s;
                    s.resize(kept.iter().product(), f64::NAN);
                    out.push(match stash {
                        DType::F64 => Tensor::from_vec(s, &kept)?,
                        d => Tensor::from_vec(s.into_iter().map(|v| v as f32).collect::<Vec<_>>(), &kept)?
                            .narrowed(*d, true)?,
                    });
                }
                if let Some(sum) = sum {
                    out.push(T::store(sum, dims)?);
                }
                Ok(out)
            }
            Norm::Lp { axis, p } => {
                let a = axis_of(*axis, dims.len())?;
                let steps = strides(dims);
                for at in starts(dims, &[a]) {
                    let places = (0..dims[a]).map(|i| at + i * steps[a]);
                    let mut norm = T::zero();
                    for i in places.clone() {
                        norm = norm + if *p == 1 { v[i].apply(f64::abs) } else { v[i] * v[i] };
                    }
                    let norm = if *p == 1 { norm } else { norm.sqrt() };
                    for i in places {
                        let ratio = v[i] / norm;
                        v[i] = if norm == T::zero() { T::zero() } else { ratio };
                    }
                }
                Ok(vec![T::store(v, dims)?])
            }
            Norm::MeanVariance { axes } => {
                let axes = axes_of(axes, dims.len())?;
                let kept: Vec<usize> = (0..dims.len()).filter(|a| !axes.contains(a)).collect();
                let members = starts(dims, &kept);
                let mut row = Vec::with_capacity(members.len());
                for at in starts(dims, &axes) {
                    row.clear();
                    row.extend(members.iter().map(|m| v[at + m]));
                    let deviation = |variance: T| variance.sqrt() + T::of(1e-9);
                    centred(&mut row, deviation);
                    members.iter().zip(&row).for_each(|(m, &r)| v[at + m] = r);
                }
                Ok(vec![T::store(v, dims)?])
            }
            Norm::LocalResponse { alpha, beta, bias, size } => {
                let (&[n, c], spatial) = dims.split_first_chunk::<2>().ok_or_else(|| too_flat(dims.len()))?;
                let plane: usize = spatial.iter().product();
                let squares: Vec<T> = v.iter().map(|&v| v * v).collect();
                let before = (size - 1) / 2;
                let factor = T::of(f64::from(*alpha) / *size as f64);
                for (i, v) in v.iter_mut().enumerate() {
                    let (sample, channel, p) = (i / (c * plane), i / plane % c, i % plane);
                    debug_assert!(sample < n);
                    let at = |w: usize| {
                        let k = (channel + w).checked_sub(before).filter(|&k| k < c)?;
                        Some(squares[(sample * c + k) * plane + p])
                    };
                    let mut sum = at(0).unwrap_or_else(T::zero);
                    for w in 1..*size {
                        sum = sum + at(w).unwrap_or_else(T::zero);
                    }
                    let divisor = sum * factor + T::of(f64::from(*bias));
                    *v = *v / divisor.apply2(T::of(f64::from(*beta)), f64::powf);
                }
                Ok(vec![T::store(v, dims)?])
            }
        }
    }
}

/// Offsets of a parameter's element for each element of the data.
fn offsets(t: &Tensor, dims: &[usize]) -> Result<Vec<usize>> {
    let lead = dims.len().checked_sub(t.rank());
    let fits = lead.is_some_and(|lead| t.dims().iter().zip(&dims[lead..]).all(|(&t, &d)| t == d || t == 1));
    if !fits {
        return Err(Error::run(format!(
            "a parameter of shape {} does not broadcast to {}",
            Shape::known(t.dims()),
            Shape::known(dims)
        )));
    }
    Ok(broadcast_offsets(t.dims(), dims))
}

/// Offsets of the elements at which every axis of `over` is 0, in row-major order.
fn starts(dims: &[usize], over: &[usize]) -> Vec<usize> {
    if dims.contains(&0) {
        return Vec::new();
    }
    let mut at = vec![0];
    for (a, step) in strides(dims).into_iter().enumerate() {
        if !over.contains(&a) {
            at = at.iter().flat_map(|&o| (0..dims[a]).map(move |i| o + i * step)).collect();
        }
    }
    at
}

/// `(x − mean) / deviation(variance)` in place: 5 FLOPs per element and, if `deviation` takes 2, 5 per row.
fn centred<T: Num>(row: &mut [T], deviation: impl Fn(T) -> T) -> (f64, f64) {
    let n = T::of(row.len() as f64);
    let mean = row.iter().fold(T::zero(), |sum, &v| sum + v) / n;
    let mut squares = T::zero();
    for v in row.iter_mut() {
        *v = *v - mean;
        squares = squares + *v * *v;
    }
    let inverse = T::of(1.0) / deviation(squares / n);
    row.iter_mut().for_each(|v| *v = *v * inverse);
    (mean.get(), inverse.get())
}

/// Zero mean and unit variance in place; gives the mean and the inverse deviation.
fn standardize<T: Num>(row: &mut [T], epsilon: f32) -> (f64, f64) {
    centred(row, |variance| (variance + T::of(epsilon.into())).sqrt())
}

/// `x / √(mean square + ε)` in place: 3 FLOPs per element and 4 per row; gives the inverse.
fn by_root_mean_square<T: Num>(row: &mut [T], epsilon: f32) -> f64 {
    let squares = row.iter().fold(T::zero(), |sum, &v| sum + v * v);
    let inverse = T::of(1.0) / (squares / T::of(row.len() as f64) + T::of(epsilon.into())).sqrt();
    row.iter_mut().for_each(|v| *v = *v * inverse);
    inverse.get()
}

/// Batch normalisation in place of `v` with `[scale, bias, mean, variance]`; gives the new running statistics when training. Without mean and
/// variance, which training allows, there are none.
fn batch<T: Num>(
    v: &mut [T],
    dims: &[usize],
    vectors: &[Vec<T>],
    epsilon: f32,
    spatial: bool,
    training: Option<f32>,
) -> Result<Option<Vec<Vec<T>>>> {
    // A rank-1 input is one channel per batch element's only feature (opset 14 allows it).
    let (n, features) = match dims {
        [] => return Err(too_flat(0)),
        [n] => (*n, 1),
        [n, rest @ ..] => (*n, rest.iter().product()),
    };
    let channels = if spatial { dims.get(1).copied().unwrap_or(1) } else { features };
    if vectors.iter().any(|p| p.len() != channels) {
        return Err(Error::run(format!("scale, bias, mean and variance need {channels} elements each")));
    }
    if v.is_empty() {
        return Ok(None);
    }
    let plane = features / channels;
    let [scale, bias, given @ ..] = vectors else {
        return Err(Error::run("batch normalisation takes a scale and a bias"));
    };
    let apply = |v: &mut [T], mean: &[T], variance: &[T]| {
        for (i, part) in v.chunks_exact_mut(plane).enumerate() {
            let c = i % channels;
            let factor = scale[c].get() / (variance[c].get() + f64::from(epsilon)).sqrt();
            let (factor, offset) = (T::of(factor), T::of(bias[c].get() - mean[c].get() * factor));
            part.iter_mut().for_each(|v| *v = *v * factor + offset);
        }
    };
    let Some(momentum) = training else {
        let [mean, variance] = given else {
            return Err(Error::run("batch normalisation takes a mean and a variance"));
        };
        apply(v, mean, variance);
        return Ok(None);
    };
    let count = T::of((n * plane) as f64);
    let (keep, learn) = (T::of(momentum.into()), T::of(1.0 - f64::from(momentum)));
    let (mut now, mut running) = (vec![Vec::new(); 2], vec![Vec::new(); 2]);
    for c in 0..channels {
        let places = || (0..n).flat_map(move |s| (0..plane).map(move |p| (s * channels + c) * plane + p));
        let m = places().fold(T::zero(), |sum, i| sum + v[i]) / count;
        let squares = places().fold(T::zero(), |sum, i| {
            let d = v[i] - m;
            sum + d * d
        });
        let s = squares / count;
        now[0].push(m);
        now[1].push(s);
        if let [mean, variance] = given {
            running[0].push(mean[c] * keep + m * learn);
            running[1].push(variance[c] * keep + s * learn);
        }
    }
    apply(v, &now[0], &now[1]);
    Ok(Some(running).filter(|_| !given.is_empty()))
}

fn cases() -> Vec<Case> {
    let f = sample::floats;
    let positive = |n: &[usize]| {
        let t = f(n, 99).to_f64s().expect("sample floats are floats");
        Tensor::from_vec(t.into_iter().map(|v| v.abs() as f32 + 0.1).collect::<Vec<_>>(), n).expect("same length")
    };
    let (int, ints) = (Attr::Int, |v: &[i64]| Attr::Ints(v.to_vec()));
    let batch = |x: &[usize], c: &[usize]| vec![f(x, 1), f(c, 2), f(c, 3), f(c, 4), positive(c)];
    let some = |v: Vec<Tensor>| v.into_iter().map(Some).collect::<Vec<_>>();
    let ms = "com.microsoft";
    vec![
        Case::new("BatchNormalization", &[], batch(&[2, 3, 4, 5], &[3])),
        Case::new("BatchNormalization", &[("epsilon", Attr::Float(0.01))], batch(&[4, 3], &[3])).opset(9),
        Case::new("BatchNormalization", &[("spatial", int(0))], batch(&[2, 3, 2], &[3, 2])).opset(7),
        Case::with_optional("BatchNormalization", &[("training_mode", int(1))], some(batch(&[2, 3, 5], &[3])), 3),
        Case::new("BatchNormalization", &[("training_mode", int(1))], batch(&[2, 3, 5], &[3])),
        Case::with_optional("BatchNormalization", &[], some(batch(&[2, 3, 5], &[3])), 5).opset(8),
        Case::new("InstanceNormalization", &[], vec![f(&[2, 3, 4, 5], 1), f(&[3], 2), f(&[3], 3)]),
        Case::new("GroupNormalization", &[("num_groups", int(2))], vec![f(&[2, 4, 3], 1), f(&[4], 2), f(&[4], 3)]),
        Case::new("GroupNormalization", &[("num_groups", int(2))], vec![f(&[2, 4, 3], 1), f(&[2], 2), f(&[2], 3)])
            .opset(18),
        Case::new("LayerNormalization", &[], vec![f(&[2, 3, 5], 1), f(&[5], 2), f(&[5], 3)]),
        Case::with_optional("LayerNormalization", &[("axis", int(1))], some(vec![f(&[2, 3, 5], 1), f(&[3, 5], 2)]), 3),
        Case::new("LayerNormalization", &[("axis", int(-2))], vec![f(&[2, 3, 5], 1), f(&[5], 2), f(&[1, 3, 1], 3)]),
        Case::new("LayerNormalization", &[], vec![f(&[2, 5], 1), f(&[5], 2)]).domain(ms),
        Case::new("RMSNormalization", &[], vec![f(&[2, 3, 5], 1), f(&[5], 2)]),
        Case::new("LayerNormalization", &[], vec![f(&[0, 3, 5], 1), f(&[5], 2)]),
        Case::new("InstanceNormalization", &[], vec![f(&[0, 3, 5], 1), f(&[3], 2), f(&[3], 3)]),
        Case::new("RMSNormalization", &[("axis", int(0))], vec![f(&[2, 3], 1), f(&[2, 3], 2)]),
        Case::with_optional("SimplifiedLayerNormalization", &[], some(vec![f(&[2, 3, 5], 1), f(&[5], 2)]), 2),
        Case::new("SimplifiedLayerNormalization", &[], vec![f(&[2, 3, 5], 1), f(&[5], 2)]).domain(ms),
        Case::new("LpNormalization", &[], vec![f(&[2, 3, 5], 1)]),
        Case::new("LpNormalization", &[("p", int(1)), ("axis", int(1))], vec![f(&[2, 3, 5], 1)]),
        Case::new("MeanVarianceNormalization", &[], vec![f(&[2, 3, 4, 5], 1)]),
        Case::new("MeanVarianceNormalization", &[("axes", ints(&[1, -1]))], vec![f(&[2, 3, 5], 1)]).opset(9),
        Case::new("LRN", &[("size", int(3))], vec![f(&[2, 5, 3, 2], 1)]),
        Case::new(
            "LRN",
            &[("size", int(4)), ("alpha", Attr::Float(0.5)), ("bias", Attr::Float(2.0))],
            vec![f(&[1, 3, 2, 2], 1)],
        ),
        Case::with_optional(
            "SkipLayerNormalization",
            &[],
            some(vec![f(&[2, 3, 5], 1), f(&[2, 3, 5], 2), f(&[5], 3), f(&[5], 4), f(&[5], 5)]),
            4,
        )
        .domain(ms),
        Case::new("SkipLayerNormalization", &[], vec![f(&[2, 3, 5], 1), f(&[3, 5], 2), f(&[5], 3)]).domain(ms),
        Case::new(
            "SkipSimplifiedLayerNormalization",
            &[],
            vec![f(&[2, 3, 5], 1), f(&[2, 3, 5], 2), f(&[5], 3), f(&[5], 4)],
        )
        .domain(ms),
    ]
}
