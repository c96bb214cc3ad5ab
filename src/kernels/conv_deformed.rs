//! Deformable convolution: samples of the map are laid out in rows, one per output pixel, and multiplied by the weights.
//!
//! Ladder: loops over channels per tap → the four pixels around a tap found once for all channels of its offset group → channel blocks as
//! vectors, so that a sample is four rows of lanes times four numbers → `[pixels][taps · channels] · [taps · channels][oc]` by
//! [`super::gemm`], pixels in portions whose samples stay in the cache → rows of results put into blocks.

use super::epilogue::Act;
use super::gemm::{Bias, Finish, GemmShape, Mat, PackedB, Rhs, gemm};
use super::task::{Accept, Entry, Kind, Layout, Prepared, Task, Verdict};
use crate::engine::pool::Pool;
use crate::error::{Error, Result};
use crate::ops::detect::Deform;
use crate::simd::Isa;
use std::sync::{Mutex, PoisonError};

pub(super) const ENTRY: Entry = Entry { name: "conv-deformed", accepts, prepare, tolerance: 1e-5 };

/// Samples laid out at a time.
const PORTION: usize = 1 << 17;
/// Pixels whose samples one task makes.
const TASK: usize = 8;

struct Ready {
    isa: Isa,
    d: Deform,
    /// Per group `[taps][channels in whole blocks][oc/g]`.
    weights: Vec<PackedB>,
    bias: Option<Vec<f32>>,
    act: Act,
    mask: bool,
    /// Samples, and products of one group.
    space: Mutex<(Vec<f32>, Vec<f32>)>,
}

fn accepts(task: &Task) -> Verdict {
    let Kind::ConvDeformed { geometry: d, mask, .. } = task.kind else { return Err(String::new()) };
    if !d.in_blocks(task.isa.lanes()) {
        return Err("groups that are no whole blocks of channels".into());
    }
    let mut srcs = vec![Layout::Blocked, Layout::Plain];
    srcs.extend(mask.then_some(Layout::Plain));
    Ok(Accept::of(srcs, Layout::Blocked))
}

fn prepare(task: &Task) -> Result<Box<dyn Prepared>> {
    let Kind::ConvDeformed { geometry: d, weights, bias, act, mask } = task.kind else {
        return Err(Error::run("not a deformable convolution"));
    };
    let (taps, icg, ocg) = (d.k[0] * d.k[1], d.ic / d.g, d.oc / d.g);
    let rows = icg.next_multiple_of(task.isa.lanes());
    let values = weights.view::<f32>()?;
    let weights = values.chunks_exact((ocg * icg * taps).max(1)).map(|group| {
        let mut turned = vec![0.0; taps * rows * ocg];
        for (o, filter) in group.chunks_exact(icg * taps).enumerate() {
            for (c, window) in filter.chunks_exact(taps).enumerate() {
                window.iter().enumerate().for_each(|(t, w)| turned[(t * rows + c) * ocg + o] = *w);
            }
        }
        PackedB::new(task.isa, taps * rows, ocg, Mat::rows(&turned, taps * rows, ocg))
    });
    Ok(Box::new(Ready {
        isa: task.isa,
        d: *d,
        weights: weights.collect(),
        bias: bias.clone(),
        act: *act,
        mask: *mask,
        space: Mutex::default(),
    }))
}

impl Ready {
    /// The samples of an output pixel, `[group][tap][channels in whole blocks]`, out of an image in blocks.
    fn sample(&self, image: &[f32], offsets: &[f32], mask: Option<&[f32]>, at: usize, row: &mut [f32]) {
        let (d, l) = (&self.d, self.isa.lanes());
        let (taps, outs, pixels) = (d.k[0] * d.k[1], d.o[0] * d.o[1], d.i[0] * d.i[1]);
        let blocks = d.ic.div_ceil(l);
        let (per_group, per_offset) = (blocks / d.g, blocks / d.offset_groups);
        for og in 0..d.offset_groups {
            for t in 0..taps {
                let channel = og * taps + t;
                let moved = [0, 1].map(|a| f64::from(offsets[(channel * 2 + a) * outs + at]));
                let corners = d.corners::<f32>([at / d.o[1], at % d.o[1]], [t / d.k[1], t % d.k[1]], moved);
                let factor = mask.map_or(1.0, |m| m[channel * outs + at]);
                // Outside the map is zero, unless there is no telling where: then nothing can be told of the sample.
                let start = corners.iter().filter(|c| c.0.is_none()).map(|c| 0.0 * c.1).sum::<f32>();
                for b in og * per_offset..(og + 1) * per_offset {
                    let plane = &image[b * pixels * l..][..pixels * l];
                    let to = &mut row[((b / per_group * taps + t) * per_group + b % per_group) * l..][..l];
                    to.fill(start);
                    for (p, w) in corners {
                        if let Some(p) = p {
                            to.iter_mut().zip(&plane[p * l..][..l]).for_each(|(d, x)| *d += w * x);
                        }
                    }
                    if mask.is_some() {
                        to.iter_mut().for_each(|d| *d *= factor);
                    }
                }
            }
        }
    }
}

impl Prepared for Ready {
    fn run(&self, pool: &Pool, srcs: &[&[f32]], dsts: &mut [&mut [f32]]) {
        let (d, l) = (&self.d, self.isa.lanes());
        let (taps, outs) = (d.k[0] * d.k[1], d.o[0] * d.o[1]);
        let (ocg, k) = (d.oc / d.g, taps * d.ic.div_ceil(l) / d.g * l);
        let row = k * d.g;
        let portion = (PORTION / row).next_multiple_of(TASK).clamp(TASK, outs.next_multiple_of(TASK)).min(outs);
        let mut space = self.space.lock().unwrap_or_else(PoisonError::into_inner);
        let (samples, products) = &mut *space;
        samples.resize(portion * row, 0.0);
        products.resize(portion * ocg, 0.0);
        for n in 0..d.n {
            let of = |all: usize| srcs[all].len() / d.n;
            let image = &srcs[0][n * of(0)..][..of(0)];
            let offsets = &srcs[1][n * of(1)..][..of(1)];
            let mask = self.mask.then(|| &srcs[2][n * of(2)..][..of(2)]);
            let per_image = dsts[0].len() / d.n;
            let dst = &mut dsts[0][n * per_image..][..per_image];
            for first in (0..outs).step_by(portion) {
                let here = portion.min(outs - first);
                let samples = &mut samples[..here * row];
                pool.for_chunks(samples, TASK * row, |i, rows, _| {
                    for (p, to) in rows.chunks_exact_mut(row).enumerate() {
                        self.sample(image, offsets, mask, first + i * TASK + p, to);
                    }
                });
                for (g, weights) in self.weights.iter().enumerate() {
                    let bias = self.bias.as_ref().map_or(Bias::None, |b| Bias::Col(&b[g * ocg..][..ocg]));
                    let fin = Finish { bias, act: self.act, ..Finish::default() };
                    let a = Mat { data: &samples[g * k..], batch: 0, row, col: 1 };
                    let shape = GemmShape { batch: 1, m: here, k, n: ocg };
                    let products = &mut products[..here * ocg];
                    gemm(pool, self.isa, shape, a, Rhs::Packed(weights), fin, products);
                    let (products, block) = (&*products, g * ocg / l);
                    let blocks = &mut dst[block * outs * l..][..ocg.div_ceil(l) * outs * l];
                    pool.for_chunks(blocks, outs * l, |b, plane, _| {
                        let width = l.min(ocg - b * l);
                        let rows = products.chunks_exact(ocg).zip(plane[first * l..].chunks_exact_mut(l));
                        for (from, to) in rows {
                            to[..width].copy_from_slice(&from[b * l..][..width]);
                            to[width..].fill(0.0);
                        }
                    });
                }
            }
        }
    }
    fn packed_bytes(&self) -> usize {
        self.weights.iter().map(PackedB::packed_bytes).sum()
    }
}
