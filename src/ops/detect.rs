//! Regions and boxes: NonMaxSuppression, RoiAlign, MaxRoiPool, DeformConv, Col2Im.
//!
//! <https://onnx.ai/onnx/operators/onnx__NonMaxSuppression.html>, <https://onnx.ai/onnx/operators/onnx__RoiAlign.html>,
//! <https://onnx.ai/onnx/operators/onnx__DeformConv.html>, <https://onnx.ai/onnx/operators/onnx__Col2Im.html>.
//!
//! NonMaxSuppression and MaxRoiPool do work that depends on the data: unknown before a run; NonMaxSuppression does 12 other FLOPs
//! per pair of boxes it compares. RoiAlign with a fixed `sampling_ratio` r costs
//! `8·r²` other FLOPs per output (mean: 2 per tap and a division, `8·r² + 1`; maximum: `8·r² − 1`); adaptive sampling is unknown.
//! DeformConv MAdds: the convolution's `N · Co · ΠO · ΠK · Ci/g`. Its `N · Ci · ΠO · ΠK` bilinear samples are 7 other FLOPs each, as
//! in GridSample (8 with a mask); weights of a sample's corners are 8 per position and offset group; a bias 1 per output. Col2Im: one addition per input element.

use super::elements::{from_ints, ints};
use super::spec::{Attr, NodeSpec};
use super::window::{Window, advance};
use super::{Case, Charge, CostCx, Entry, EvalCx, Family, Infer, Inputs, Op, Role, input, opt, sample};
use crate::cost::{Work, product};
use crate::error::{Error, Result};
use crate::tensor::{DType, Dim, Fact, Num, Shape, Tensor, element_count, is_num, tally_other};
use crate::with_num;

/// The family's table rows.
pub const ENTRIES: &[Entry] = &[
    Entry { domain: "", name: "NonMaxSuppression", parse: parse_suppression, cases },
    Entry { domain: "", name: "RoiAlign", parse: parse_align, cases },
    Entry { domain: "", name: "MaxRoiPool", parse: parse_roi_pool, cases },
    Entry { domain: "", name: "DeformConv", parse: parse_deform, cases },
    Entry { domain: "", name: "Col2Im", parse: parse_col2im, cases },
];

/// An operator on regions.
#[derive(Debug, Clone)]
pub enum Detect {
    /// NonMaxSuppression.
    Suppression {
        /// Boxes are centre and size, not two corners.
        centered: bool,
    },
    /// RoiAlign.
    Align {
        /// Output height and width.
        output: [usize; 2],
        /// Samples per bin and axis; 0 adapts to the region.
        ratio: usize,
        /// Scale of the regions.
        scale: f32,
        /// Coordinates are pixel centres (the default since opset 16).
        half_pixel: bool,
        /// The maximum of the samples, not their mean.
        maximum: bool,
    },
    /// MaxRoiPool.
    RoiPool {
        /// Output height and width.
        output: [usize; 2],
        /// Scale of the regions.
        scale: f32,
    },
    /// DeformConv.
    Deform {
        /// Kernel, strides, pads, dilations.
        window: Window,
        /// Groups of the convolution.
        group: usize,
        /// Groups of channels that share offsets.
        offset_group: usize,
    },
    /// Col2Im.
    Col2Im {
        /// Strides, pads, dilations.
        window: Window,
    },
}

fn positive(node: &NodeSpec, name: &str, default: usize) -> Result<usize> {
    let v = node.opt_size(name)?.unwrap_or(default);
    if v == 0 { Err(Error::input("must be positive").at_attribute(name)) } else { Ok(v) }
}

fn parse_suppression(node: &NodeSpec) -> Result<Op> {
    node.expect_inputs(2, 5)?;
    Ok(Op::Detect(Detect::Suppression { centered: node.flag("center_point_box", false)? }))
}

fn parse_align(node: &NodeSpec) -> Result<Op> {
    node.expect_inputs(3, 3)?;
    let name = "coordinate_transformation_mode";
    let half_pixel = match node.str(name, "half_pixel")? {
        _ if node.opset < 16 => false,
        "half_pixel" => true,
        "output_half_pixel" => false,
        other => return Err(Error::input(format!("'{other}' is not known")).at_attribute(name)),
    };
    let maximum = match node.str("mode", "avg")? {
        "avg" => false,
        "max" => true,
        other => return Err(Error::input(format!("'{other}' is not known")).at_attribute("mode")),
    };
    Ok(Op::Detect(Detect::Align {
        output: [positive(node, "output_height", 1)?, positive(node, "output_width", 1)?],
        ratio: node.opt_size("sampling_ratio")?.unwrap_or(0),
        scale: node.float("spatial_scale", 1.0)?,
        half_pixel,
        maximum,
    }))
}

fn parse_roi_pool(node: &NodeSpec) -> Result<Op> {
    node.expect_inputs(2, 2)?;
    let shape = node.opt_sizes("pooled_shape")?.unwrap_or_default();
    let output: [usize; 2] =
        shape.try_into().map_err(|_| Error::input("needs two sizes").at_attribute("pooled_shape"))?;
    if output.contains(&0) {
        return Err(Error::input("must be positive").at_attribute("pooled_shape"));
    }
    Ok(Op::Detect(Detect::RoiPool { output, scale: node.float("spatial_scale", 1.0)? }))
}

fn parse_deform(node: &NodeSpec) -> Result<Op> {
    node.expect_inputs(3, 5)?;
    Ok(Op::Detect(Detect::Deform {
        window: Window::parse(node)?,
        group: positive(node, "group", 1)?,
        offset_group: positive(node, "offset_group", 1)?,
    }))
}

fn parse_col2im(node: &NodeSpec) -> Result<Op> {
    node.expect_inputs(3, 3)?;
    Ok(Op::Detect(Detect::Col2Im { window: Window::parse(node)? }))
}

/// A deformable convolution's sizes.
#[derive(Debug, Clone, Copy)]
pub struct Deform {
    /// Batch.
    pub n: usize,
    /// Input channels.
    pub ic: usize,
    /// Output channels.
    pub oc: usize,
    /// Groups.
    pub g: usize,
    /// Groups of input channels with offsets of their own.
    pub offset_groups: usize,
    /// Input height and width.
    pub i: [usize; 2],
    /// Kernel height and width.
    pub k: [usize; 2],
    /// Output height and width.
    pub o: [usize; 2],
    /// Where windows lie before they are deformed.
    pub axes: [super::window::Axis; 2],
}

impl Deform {
    /// Of an operator on operands of these dims.
    ///
    /// # Errors
    /// If they do not fit.
    pub fn of(op: &Detect, x: &[usize], w: &[usize], offset: Option<&[usize]>) -> Result<Deform> {
        let Detect::Deform { window, group, offset_group } = op else {
            return Err(Error::input("not a deformable convolution"));
        };
        let (&[n, ic, ih, iw], &[oc, wc, kh, kw]) = (x, w) else {
            return Err(Error::unsupported(format!(
                "deformable convolution of {} with {}",
                Shape::known(x),
                Shape::known(w)
            ))
            .hint("two spatial axes are supported"));
        };
        if wc.checked_mul(*group) != Some(ic) || oc % group != 0 || ic % offset_group != 0 {
            return Err(Error::input(format!(
                "input {} and weights {} do not fit with {group} group(s) and {offset_group} offset group(s)",
                Shape::known(x),
                Shape::known(w)
            )));
        }
        if window.kernel.as_ref().is_some_and(|k| k[..] != [kh, kw]) || kh == 0 || kw == 0 {
            return Err(
                Error::input(format!("contradicts weights of shape {}", Shape::known(w))).at_attribute("kernel_shape")
            );
        }
        let axes = window.resolve(&[ih, iw], &[kh, kw])?;
        let o = [axes[0].o, axes[1].o];
        let channels = product([2, *offset_group, kh, kw]);
        if let Some(d) = offset
            && (d.len() != 4 || d[0] != n || Some(d[1] as u64) != channels || d[2..] != o)
        {
            return Err(Error::input(format!(
                "offsets of shape {} for an output of {}x{}",
                Shape::known(d),
                o[0],
                o[1]
            )));
        }
        let [i, k] = [[ih, iw], [kh, kw]];
        let axes = [axes[0], axes[1]];
        Ok(Deform { n, ic, oc, g: *group, offset_groups: *offset_group, i, k, o, axes })
    }

    /// Whether no block of so many channels belongs to two groups.
    pub fn in_blocks(&self, lanes: usize) -> bool {
        let whole = |channels: usize, groups: usize| groups == 1 || (channels / groups).is_multiple_of(lanes);
        whole(self.ic, self.g) && whole(self.oc, self.g) && whole(self.ic, self.offset_groups)
    }

    /// Where a tap falls: the pixels around `place + tap + offset`, `None` outside the map, with bilinear weights.
    pub(crate) fn corners<T: Num>(
        &self,
        place: [usize; 2],
        tap: [usize; 2],
        offset: [f64; 2],
    ) -> [(Option<usize>, T); 4] {
        let coordinate = |a: usize| {
            let axis = &self.axes[a];
            (place[a] * axis.s + tap[a] * axis.d) as f64 - axis.begin as f64 + offset[a]
        };
        corner_weights(coordinate(0), coordinate(1), self.i)
    }
}

impl Family for Detect {
    fn infer(&self, cx: &Infer) -> Result<Vec<Fact>> {
        let x = cx.fact(0)?;
        Ok(vec![match self {
            Detect::Suppression { .. } => Fact::new(DType::I64, Shape::partial(vec![None, Some(3)])),
            Detect::Align { output: [h, w], .. } | Detect::RoiPool { output: [h, w], .. } => {
                if x.shape.rank().is_some_and(|r| r != 4) {
                    return Err(Error::input(format!("input {} where rank 4 is needed", x.shape)));
                }
                let rois = cx.shape(1)?.dim(0);
                x.with_shape(Shape::partial(vec![rois, x.shape.dim(1), Some(*h), Some(*w)]))
            }
            Detect::Deform { window, .. } => {
                let (w, offset) = (cx.shape(1)?, cx.shape(2)?);
                match (x.shape.concrete(), w.concrete()) {
                    (Some(xd), Some(wd)) => {
                        let d = Deform::of(self, &xd, &wd, offset.concrete().as_deref())?;
                        x.with_shape(vec![d.n, d.oc, d.o[0], d.o[1]])
                    }
                    _ => {
                        let spatial = match (x.shape.dims(), w.dims()) {
                            (Some(xd), Some(wd)) if xd.len() == 4 && wd.len() == 4 => {
                                let kernel: Option<Vec<usize>> = wd[2..].iter().copied().collect();
                                match kernel.filter(|k| !k.contains(&0)) {
                                    Some(k) => window.output_dims(&xd[2..], &k)?,
                                    None => vec![None; 2],
                                }
                            }
                            _ => vec![None; 2],
                        };
                        let lead = [x.shape.dim(0), w.dim(0)];
                        x.with_shape(Shape::partial(lead.into_iter().chain(spatial).collect()))
                    }
                }
            }
            Detect::Col2Im { .. } => {
                let taps = cx.ints(2)?.map(|b| b.iter().product::<i64>()).and_then(|n| usize::try_from(n).ok());
                let channels = x.shape.dim(1).zip(taps).and_then(|(c, t)| c.checked_div(t));
                let spatial: Vec<Dim> = match cx.ints(1)? {
                    Some(v) => v.into_iter().map(|d| usize::try_from(d).ok()).collect(),
                    None => match cx.shape(1)?.dim(0) {
                        Some(n @ 0..=16) => vec![None; n],
                        _ => return Ok(vec![x.with_shape(Shape::UNKNOWN)]),
                    },
                };
                x.with_shape(Shape::partial([x.shape.dim(0), channels].into_iter().chain(spatial).collect()))
            }
        }])
    }

    fn charge(&self, cx: &CostCx) -> Charge {
        Charge::of((|| match self {
            Detect::Suppression { .. } | Detect::RoiPool { .. } | Detect::Align { ratio: 0, .. } => None,
            Detect::Align { ratio, maximum, .. } => {
                let taps = product([8, *ratio, *ratio])?;
                let per = if *maximum { taps - 1 } else { taps.checked_add(1)? };
                Some(Work::other(cx.out_elements(0)?.checked_mul(per)?))
            }
            Detect::Deform { group, offset_group, .. } => {
                let d = Deform::of(self, &cx.dims(0)?, &cx.dims(1)?, None).ok()?;
                if cx.out_elements(0)? == 0 {
                    return Some(Work::NONE);
                }
                let positions = product([d.n, d.k[0], d.k[1], d.o[0], d.o[1]])?;
                let main = positions.checked_mul(product([d.oc, d.ic / group])?)?;
                let per_sample = if cx.has(4) { 8 } else { 7 };
                let samples = positions.checked_mul(product([d.ic, per_sample])?)?;
                let bias = if cx.has(3) { product([d.n, d.oc, d.o[0], d.o[1]])? } else { 0 };
                let weights = positions.checked_mul(product([8, *offset_group])?)?;
                Some(Work::madds(main).and_other(samples.checked_add(weights)?.checked_add(bias)?))
            }
            Detect::Col2Im { .. } => {
                Some(if cx.dtype(0)?.is_float() { Work::other(cx.elements(0)?) } else { Work::NONE })
            }
        })())
    }

    fn eval(&self, cx: &EvalCx, inputs: &Inputs) -> Result<Vec<Tensor>> {
        let x = input(inputs, 0)?;
        match self {
            Detect::Suppression { centered } => suppress(inputs, *centered),
            Detect::Align { .. } => with_num!(cx.arith, x.dtype(), T => self.align::<T>(inputs)),
            Detect::RoiPool { output, scale } => {
                with_num!(cx.arith, x.dtype(), T => roi_pool::<T>(inputs, *output, *scale))
            }
            Detect::Deform { .. } => with_num!(cx.arith, x.dtype(), T => self.deform::<T>(inputs)),
            Detect::Col2Im { window } if is_num(x.dtype()) => with_num!(cx.arith, x.dtype(), T => {
                let (y, dims) = col2im(window, inputs, &T::load(x)?, T::zero(), |a, b| a + b)?;
                Ok(vec![T::store(y, &dims)?])
            }),
            Detect::Col2Im { window } => {
                let (y, dims) = col2im(window, inputs, &ints(x)?, 0, i128::wrapping_add)?;
                Ok(vec![from_ints(x.dtype(), &y, &dims)?])
            }
        }
    }

    fn role(&self, i: usize) -> Role {
        match self {
            Detect::Suppression { .. } if i >= 2 => Role::Setting,
            Detect::Deform { .. } if i == 1 || i == 3 => Role::Weight,
            Detect::Align { .. } if i == 2 => Role::Setting,
            Detect::Col2Im { .. } if i >= 1 => Role::Setting,
            _ => Role::Data,
        }
    }
}

/// A box as (low, high) on both axes.
fn corners(b: &[f64], centered: bool) -> [(f64, f64); 2] {
    let side = |a: f64, b: f64| if a <= b { (a, b) } else { (b, a) };
    if centered {
        [(b[0] - b[2] / 2.0, b[0] + b[2] / 2.0), (b[1] - b[3] / 2.0, b[1] + b[3] / 2.0)]
    } else {
        [side(b[1], b[3]), side(b[0], b[2])]
    }
}

fn overlap(a: &[f64], b: &[f64], centered: bool) -> f64 {
    // Three areas of two differences and a product each, a sum, a difference, a division.
    tally_other(12);
    let (a, b) = (corners(a, centered), corners(b, centered));
    let area = |c: &[(f64, f64); 2]| (c[0].1 - c[0].0) * (c[1].1 - c[1].0);
    let both = [0, 1].map(|i| (a[i].0.max(b[i].0), a[i].1.min(b[i].1)));
    if both.iter().any(|s| s.1 <= s.0) || area(&a) <= 0.0 || area(&b) <= 0.0 {
        return 0.0;
    }
    area(&both) / (area(&a) + area(&b) - area(&both))
}

/// The boxes that survive, best first per batch and class.
fn suppress(inputs: &Inputs, centered: bool) -> Result<Vec<Tensor>> {
    let (boxes, scores) = (input(inputs, 0)?, input(inputs, 1)?);
    let (&[n, count, 4], &[sn, classes, sc]) = (boxes.dims(), scores.dims()) else {
        return Err(Error::run(format!(
            "boxes {} and scores {}",
            Shape::known(boxes.dims()),
            Shape::known(scores.dims())
        )));
    };
    if (sn, sc) != (n, count) {
        return Err(Error::run("boxes and scores differ in number"));
    }
    let first = |i: usize| -> Result<Option<f64>> {
        opt(inputs, i).map(Tensor::to_f64s).transpose().map(|v| v.and_then(|v| v.first().copied()))
    };
    let most = first(2)?.map_or(0, |v| v.max(0.0) as usize);
    let (limit, least) = (first(3)?.unwrap_or(0.0), first(4)?);
    let (boxes, scores) = (boxes.to_f64s()?, scores.to_f64s()?);
    let mut chosen: Vec<i64> = Vec::new();
    for b in 0..n {
        for c in 0..classes {
            let scores = &scores[(b * classes + c) * count..][..count];
            let of = |i: usize| &boxes[(b * count + i) * 4..][..4];
            let mut order: Vec<usize> = (0..count).filter(|&i| least.is_none_or(|t| scores[i] > t)).collect();
            order.sort_by(|&i, &j| scores[j].total_cmp(&scores[i]));
            let mut kept: Vec<usize> = Vec::new();
            for i in order {
                if kept.len() >= most {
                    break;
                }
                if kept.iter().all(|&k| overlap(of(i), of(k), centered) <= limit) {
                    kept.push(i);
                    chosen.extend([b as i64, c as i64, i as i64]);
                }
            }
        }
    }
    let rows = chosen.len() / 3;
    Ok(vec![Tensor::from_vec(chosen, &[rows, 3])?])
}

/// The four pixels around a position with their weights; weights are zero beyond the map.
fn bilinear(y: f64, x: f64, h: usize, w: usize) -> [(usize, f64); 4] {
    if h == 0 || w == 0 || y < -1.0 || y > h as f64 || x < -1.0 || x > w as f64 || y.is_nan() || x.is_nan() {
        return [(0, 0.0); 4];
    }
    let side = |v: f64, n: usize| {
        let v = v.max(0.0);
        let low = v as usize;
        if low + 1 >= n { (n - 1, n - 1, 0.0) } else { (low, low + 1, v - low as f64) }
    };
    let ((y0, y1, ly), (x0, x1, lx)) = (side(y, h), side(x, w));
    let (hy, hx) = (1.0 - ly, 1.0 - lx);
    [(y0 * w + x0, hy * hx), (y0 * w + x1, hy * lx), (y1 * w + x0, ly * hx), (y1 * w + x1, ly * lx)]
}

impl Detect {
    fn align<T: Num>(&self, inputs: &Inputs) -> Result<Vec<Tensor>> {
        let Detect::Align { output: [oh, ow], ratio, scale, half_pixel, maximum } = *self else {
            return Err(Error::run("not RoiAlign"));
        };
        let (x, rois, batch) = (input(inputs, 0)?, input(inputs, 1)?, input(inputs, 2)?.to_i64s()?);
        let (&[n, c, h, w], &[count, 4]) = (x.dims(), rois.dims()) else {
            return Err(Error::run(format!(
                "data {} and regions {}",
                Shape::known(x.dims()),
                Shape::known(rois.dims())
            )));
        };
        if batch.len() != count {
            return Err(Error::run("each region needs a batch index"));
        }
        if element_count(&[count, c, oh, ow])? == 0 {
            return Ok(vec![Tensor::zeros(x.dtype(), &[count, c, oh, ow])?]);
        }
        let (data, rois) = (T::load(x)?, rois.to_f64s()?);
        let mut y = Vec::with_capacity(count * c * oh * ow);
        for (roi, &b) in rois.chunks_exact(4).zip(&batch) {
            let b = usize::try_from(b).ok().filter(|&b| b < n);
            let b = b.ok_or_else(|| Error::run("a batch index out of range"))?;
            let offset = if half_pixel { 0.5 } else { 0.0 };
            let at = |i: usize| roi[i] * f64::from(scale) - offset;
            let (x0, y0) = (at(0), at(1));
            let size = |v: f64| if half_pixel { v } else { v.max(1.0) };
            let (bin_w, bin_h) = (size(at(2) - x0) / ow as f64, size(at(3) - y0) / oh as f64);
            let samples = |bin: f64| if ratio > 0 { ratio } else { bin.ceil().max(0.0) as usize };
            let (sh, sw) = (samples(bin_h), samples(bin_w));
            element_count(&[oh, ow, sh, sw])?;
            // Samples of every bin serve all channels.
            let mut taps = Vec::new();
            for p in 0..oh * ow {
                for s in 0..sh * sw {
                    let yy = y0 + ((p / ow) as f64 + ((s / sw) as f64 + 0.5) / sh as f64) * bin_h;
                    let xx = x0 + ((p % ow) as f64 + ((s % sw) as f64 + 0.5) / sw as f64) * bin_w;
                    taps.push(bilinear(yy, xx, h, w));
                }
            }
            for k in 0..c {
                let plane = &data[(b * c + k) * h * w..][..h * w];
                for p in 0..oh * ow {
                    let bin = &taps[p * sh * sw..][..sh * sw];
                    let mut values =
                        bin.iter().flatten().map(|&(i, wt)| plane.get(i).copied().unwrap_or_else(T::zero) * T::of(wt));
                    y.push(if maximum {
                        let first = values.next().unwrap_or_else(T::zero);
                        values.fold(first, T::max_nan)
                    } else {
                        values.fold(T::zero(), |sum, v| sum + v) / T::of((sh * sw).max(1) as f64)
                    });
                }
            }
        }
        Ok(vec![T::store(y, &[count, c, oh, ow])?])
    }

    fn deform<T: Num>(&self, inputs: &Inputs) -> Result<Vec<Tensor>> {
        let Detect::Deform { group, offset_group, .. } = self else { return Err(Error::run("not DeformConv")) };
        let (x, w, offset) = (input(inputs, 0)?, input(inputs, 1)?, input(inputs, 2)?);
        let d = Deform::of(self, x.dims(), w.dims(), Some(offset.dims()))?;
        if element_count(&[d.n, d.oc, d.o[0], d.o[1]])? == 0 {
            return Ok(vec![Tensor::zeros(x.dtype(), &[d.n, d.oc, d.o[0], d.o[1]])?]);
        }
        let (taps, outs) = (d.k[0] * d.k[1], d.o[0] * d.o[1]);
        let (data, wei, offset) = (T::load(x)?, T::load(w)?, offset.to_f64s()?);
        let bias = opt(inputs, 3).map(T::load).transpose()?;
        let mask = opt(inputs, 4).map(T::load).transpose()?;
        if bias.as_ref().is_some_and(|b| b.len() != d.oc) || mask.as_ref().is_some_and(|m| m.len() * 2 != offset.len())
        {
            return Err(Error::run("the bias or the mask does not fit"));
        }
        let (icg, ocg, per_offset) = (d.ic / group, d.oc / group, d.ic / offset_group);
        let mut y = vec![T::zero(); d.n * d.oc * outs];
        let mut columns = vec![T::zero(); d.ic * taps];
        for (n, at) in (0..d.n).flat_map(|n| (0..outs).map(move |at| (n, at))) {
            let place = [at / d.o[1], at % d.o[1]];
            for og in 0..*offset_group {
                for t in 0..taps {
                    let tap = [t / d.k[1], t % d.k[1]];
                    let channel = (n * offset_group + og) * taps + t;
                    let moved = [0, 1].map(|a| offset[(channel * 2 + a) * outs + at]);
                    let corners = d.corners::<T>(place, tap, moved);
                    let factor = mask.as_ref().map(|m| m[channel * outs + at]);
                    for c in og * per_offset..(og + 1) * per_offset {
                        let plane = &data[(n * d.ic + c) * d.i[0] * d.i[1]..][..d.i[0] * d.i[1]];
                        let terms = corners.map(|(p, w)| p.map_or(T::zero(), |p| plane[p]) * w);
                        let sample = terms[0] + terms[1] + terms[2] + terms[3];
                        columns[c * taps + t] = factor.map_or(sample, |f| sample * f);
                    }
                }
            }
            for o in 0..d.oc {
                let first = o / ocg * icg;
                let column = &columns[first * taps..][..icg * taps];
                let row = &wei[o * icg * taps..][..icg * taps];
                let sum = column.iter().zip(row).fold(T::zero(), |sum, (&x, &w)| sum.madd(x, w));
                y[(n * d.oc + o) * outs + at] = bias.as_ref().map_or(sum, |b| sum + b[o]);
            }
        }
        Ok(vec![T::store(y, &[d.n, d.oc, d.o[0], d.o[1]])?])
    }
}

/// The pixels around a position, `None` outside the map, with weights: 8 FLOPs.
fn corner_weights<T: Num>(y: f64, x: f64, size: [usize; 2]) -> [(Option<usize>, T); 4] {
    let (y0, x0) = (y.floor(), x.floor());
    let (ly, lx) = (T::of(y) - T::of(y0), T::of(x) - T::of(x0));
    let (hy, hx) = (T::of(1.0) - ly, T::of(1.0) - lx);
    let pixel = |y: f64, x: f64| {
        let inside = |v: f64, n: usize| v >= 0.0 && v < n as f64;
        (inside(y, size[0]) && inside(x, size[1])).then(|| y as usize * size[1] + x as usize)
    };
    [
        (pixel(y0, x0), hy * hx),
        (pixel(y0, x0 + 1.0), hy * lx),
        (pixel(y0 + 1.0, x0), ly * hx),
        (pixel(y0 + 1.0, x0 + 1.0), ly * lx),
    ]
}

/// The maximum of each bin of each region, as Fast R-CNN defines bins.
fn roi_pool<T: Num>(inputs: &Inputs, [oh, ow]: [usize; 2], scale: f32) -> Result<Vec<Tensor>> {
    let (x, rois) = (input(inputs, 0)?, input(inputs, 1)?);
    let (&[n, c, h, w], &[count, 5]) = (x.dims(), rois.dims()) else {
        return Err(Error::run(format!("data {} and regions {}", Shape::known(x.dims()), Shape::known(rois.dims()))));
    };
    element_count(&[count, c, oh, ow])?;
    let (data, rois) = (T::load(x)?, rois.to_f64s()?);
    let mut y = Vec::with_capacity(count * c * oh * ow);
    for roi in rois.chunks_exact(5) {
        let b = roi[0] as usize;
        if roi[0] < 0.0 || b >= n {
            return Err(Error::run("a batch index out of range"));
        }
        let at = |i: usize| (roi[i] * f64::from(scale)).round();
        let bin = |low: f64, high: f64, bins: usize, p: usize, limit: usize| {
            let size = (high - low + 1.0).max(1.0) / bins as f64;
            let clip = |v: f64| (v + low).clamp(0.0, limit as f64) as usize;
            clip((p as f64 * size).floor())..clip(((p + 1) as f64 * size).ceil())
        };
        for k in 0..c {
            let plane = &data[(b * c + k) * h * w..][..h * w];
            for p in 0..oh * ow {
                let rows = bin(at(2), at(4), oh, p / ow, h);
                let columns = bin(at(1), at(3), ow, p % ow, w);
                let mut values = rows.flat_map(|r| columns.clone().map(move |c| plane[r * w + c]));
                let first = values.next();
                y.push(first.map_or_else(T::zero, |first| values.fold(first, T::max_nan)));
            }
        }
    }
    Ok(vec![T::store(y, &[count, c, oh, ow])?])
}

/// Columns `[n, c·ΠK, blocks]` added back into images.
fn col2im<V: Copy>(
    window: &Window,
    inputs: &Inputs,
    data: &[V],
    zero: V,
    add: impl Fn(V, V) -> V,
) -> Result<(Vec<V>, Vec<usize>)> {
    let sizes = |i: usize| -> Result<Vec<usize>> {
        let v = input(inputs, i)?.to_i64s()?;
        v.into_iter().map(|d| usize::try_from(d).map_err(|_| Error::run(format!("{d} is not a size")))).collect()
    };
    let (x, image, block) = (input(inputs, 0)?, sizes(1)?, sizes(2)?);
    let taps = element_count(&block)?;
    let &[n, channels, blocks] = x.dims() else {
        return Err(Error::run(format!("columns of shape {}", Shape::known(x.dims()))));
    };
    if taps == 0 || channels % taps != 0 {
        return Err(Error::run(format!("{channels} rows do not divide into blocks of {taps}")));
    }
    let axes = window.resolve(&image, &block)?;
    let outs: Vec<usize> = axes.iter().map(|a| a.o).collect();
    if element_count(&outs)? != blocks {
        return Err(Error::run(format!("{blocks} columns where {} are needed", Shape::known(&outs))));
    }
    let c = channels / taps;
    let dims: Vec<usize> = [n, c].into_iter().chain(image.iter().copied()).collect();
    let (plane, total) = (element_count(&image)?, element_count(&dims)?);
    let mut y = vec![zero; total];
    let mut k = vec![0; block.len()];
    for t in 0..taps {
        let mut o = vec![0; outs.len()];
        for at in 0..blocks {
            let place =
                axes.iter().enumerate().try_fold(0, |p, (a, axis)| Some(p * axis.i + axis.position(o[a], k[a])?));
            for m in 0..n * c {
                let v = data[(m * taps + t) * blocks + at];
                match place {
                    Some(p) => y[m * plane + p] = add(y[m * plane + p], v),
                    None => {
                        add(zero, v); // falls into the padding, counted like any other
                    }
                }
            }
            advance(&mut o, &outs);
        }
        advance(&mut k, &block);
    }
    Ok((y, dims))
}

fn cases() -> Vec<Case> {
    let f = sample::floats;
    let int = Attr::Int;
    let ints = |v: &[i64]| Attr::Ints(v.to_vec());
    let floats = |v: &[f32], dims: &[usize]| Tensor::from_vec(v.to_vec(), dims).expect("as many as the dims say");
    let bytes = Tensor::from_vec((0..50u8).collect(), &[1, 10, 5]).expect("as many as the dims say");
    let boxes = || floats(&[0., 0., 1., 1., 0., 0.1, 1., 1.1, 0., 10., 1., 11.], &[1, 3, 4]);
    let scores = || floats(&[0.9, 0.75, 0.6, 0.2, 0.5, 0.95], &[1, 2, 3]);
    let rois = || floats(&[0., 0., 4., 3., 1., 1., 5., 9.], &[2, 4]);
    let deform = |attrs: &[(&str, Attr)], dims: &[&[usize]]| {
        Case::with_optional(
            "DeformConv",
            attrs,
            dims.iter().enumerate().map(|(i, d)| (!d.is_empty()).then(|| f(d, i as u64))).collect(),
            1,
        )
    };
    let align = |attrs: &[(&str, Attr)]| {
        Case::new(
            "RoiAlign",
            &[&[("output_height", int(2)), ("output_width", int(3))], attrs].concat(),
            vec![f(&[2, 3, 6, 7], 1), rois(), sample::ints(&[1, 0])],
        )
    };
    let ratio = ("sampling_ratio", int(2));
    vec![
        Case::new(
            "NonMaxSuppression",
            &[],
            vec![boxes(), scores(), sample::ints(&[2]), floats(&[0.5], &[1]), floats(&[0.1], &[1])],
        ),
        Case::new("NonMaxSuppression", &[("center_point_box", int(1))], vec![boxes(), scores()]).opset(10),
        align(&[("sampling_ratio", int(3))]),
        align(&[ratio, ("mode", Attr::Str("max".into())), ("spatial_scale", Attr::Float(0.5))]).opset(10),
        align(&[]),
        Case::new(
            "MaxRoiPool",
            &[("pooled_shape", ints(&[2, 2]))],
            vec![f(&[2, 3, 6, 7], 1), floats(&[1., 0., 0., 4., 3., 0., 1., 1., 5., 5.], &[2, 5])],
        ),
        deform(&[("pads", ints(&[1; 4]))], &[&[2, 4, 5, 4], &[3, 4, 3, 3], &[2, 18, 5, 4], &[3], &[2, 9, 5, 4]]),
        deform(
            &[("group", int(2)), ("offset_group", int(2)), ("strides", ints(&[2, 1]))],
            &[&[1, 4, 5, 5], &[6, 2, 2, 2], &[1, 16, 2, 4]],
        )
        .opset(19),
        Case::new("Col2Im", &[], vec![f(&[1, 10, 5], 1), sample::ints(&[5, 5]), sample::ints(&[1, 5])]),
        Case::new("Col2Im", &[], vec![bytes, sample::ints(&[5, 5]), sample::ints(&[1, 5])]),
        Case::new(
            "Col2Im",
            &[("pads", ints(&[0, 1, 0, 1])), ("strides", ints(&[2, 1])), ("dilations", ints(&[1, 2]))],
            vec![f(&[2, 12, 8], 1), sample::ints(&[4, 4]), sample::ints(&[2, 2])],
        ),
    ]
}
