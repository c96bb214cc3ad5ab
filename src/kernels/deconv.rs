//! Transposed convolution: one matrix product gives every input pixel's share of every tap, then the shares are summed where they fall.
//!
//! Ladder: loops over taps → `[oc·taps][pixels] = Wᵀ[oc·taps][ic] · x[ic][pixels]` by [`super::gemm`], in groups of output channels
//! whose products stay in the cache → rows of shares added to rows of the result, one thread per channel.

use super::epilogue::Act;
use super::gemm::{Finish, GemmShape, Mat, Rhs, gemm};
use super::task::{Accept, Entry, Kind, Prepared, Task, Verdict};
use crate::engine::pool::Pool;
use crate::error::{Error, Result};
use crate::ops::conv_transpose::{Axis, Geometry};
use crate::simd::Isa;
use std::sync::{Mutex, PoisonError};

pub(super) const ENTRY: Entry = Entry { name: "conv-transpose", accepts, prepare, tolerance: 1e-5 };

/// Values of products made before they are summed.
const CHUNK: usize = 1 << 18;

struct Deconv {
    isa: Isa,
    geometry: Geometry,
    /// Rows and columns; one-dimensional maps have a single row.
    axes: [Axis; 2],
    /// `[g][oc/g · taps][ic/g]`
    weights: Vec<f32>,
    bias: Option<Vec<f32>>,
    act: Act,
    products: Mutex<Vec<f32>>,
}

fn axes(g: &Geometry) -> Option<[Axis; 2]> {
    match g.axes.as_slice() {
        [x] => Some([Axis { k: 1, s: 1, d: 1, begin: 0, i: 1, o: 1 }, *x]),
        [y, x] => Some([*y, *x]),
        _ => None,
    }
}

fn accepts(task: &Task) -> Verdict {
    let Kind::ConvTranspose { geometry, .. } = task.kind else { return Err(String::new()) };
    axes(geometry).ok_or("more than two spatial axes")?;
    Ok(Accept::plain(task))
}

fn prepare(task: &Task) -> Result<Box<dyn Prepared>> {
    let Kind::ConvTranspose { geometry: g, weights, bias, act } = task.kind else {
        return Err(Error::run("not a transposed convolution"));
    };
    let axes = axes(g).ok_or_else(|| Error::run("more than two spatial axes"))?;
    let w = weights.view::<f32>()?;
    let (icg, columns) = (g.ic / g.g, g.oc / g.g * axes[0].k * axes[1].k);
    let mut turned = Vec::with_capacity(w.len());
    for group in w.chunks_exact((icg * columns).max(1)) {
        for c in 0..columns {
            turned.extend(group[c..].iter().step_by(columns));
        }
    }
    Ok(Box::new(Deconv {
        isa: task.isa,
        geometry: g.clone(),
        axes,
        weights: turned,
        bias: bias.clone(),
        act: *act,
        products: Mutex::default(),
    }))
}

/// Input positions `first..last` along an axis whose tap `k` falls inside the result.
fn reach(a: &Axis, k: usize) -> std::ops::Range<usize> {
    let inside = |i: &usize| a.position(*i, k).is_some();
    let first = (0..a.i).find(inside).unwrap_or(a.i);
    first..(first..a.i).take_while(inside).last().map_or(first, |l| l + 1)
}

impl Deconv {
    /// Adds the shares `[tap][pixel]` of one output channel to its plane.
    fn sum(&self, shares: &[f32], plane: &mut [f32]) {
        let [y, x] = &self.axes;
        let taps = (0..y.k).flat_map(|ky| (0..x.k).map(move |kx| (ky, kx)));
        for ((ky, kx), share) in taps.zip(shares.chunks_exact(y.i * x.i)) {
            let columns = reach(x, kx);
            let Some(left) = x.position(columns.start, kx) else { continue };
            for iy in reach(y, ky) {
                let Some(oy) = y.position(iy, ky) else { continue };
                let from = &share[iy * x.i..][columns.clone()];
                let to = &mut plane[oy * x.o + left..];
                if x.s == 1 {
                    to.iter_mut().zip(from).for_each(|(d, s)| *d += s);
                } else {
                    to.iter_mut().step_by(x.s).zip(from).for_each(|(d, s)| *d += s);
                }
            }
        }
    }
}

impl Prepared for Deconv {
    fn run(&self, pool: &Pool, srcs: &[&[f32]], dsts: &mut [&mut [f32]]) {
        let (g, [y, x]) = (&self.geometry, &self.axes);
        let (icg, ocg, taps) = (g.ic / g.g, g.oc / g.g, y.k * x.k);
        let (pixels, plane) = (y.i * x.i, y.o * x.o);
        let per_channel = taps * pixels;
        let together = (CHUNK / per_channel.max(1)).clamp(1, ocg);
        let mut products = self.products.lock().unwrap_or_else(PoisonError::into_inner);
        products.resize(together * per_channel, 0.0);
        for n in 0..g.n {
            for group in 0..g.g {
                let source = &srcs[0][(n * g.ic + group * icg) * pixels..][..icg * pixels];
                for first in (0..ocg).step_by(together) {
                    let count = together.min(ocg - first);
                    let a = &self.weights[(group * ocg + first) * taps * icg..][..count * taps * icg];
                    let shape = GemmShape { batch: 1, m: count * taps, k: icg, n: pixels };
                    let shares = &mut products[..count * per_channel];
                    let rhs = Rhs::Mat(Mat::rows(source, icg, pixels));
                    gemm(pool, self.isa, shape, Mat::rows(a, count * taps, icg), rhs, Finish::default(), shares);
                    let shares = &*shares;
                    let channel = group * ocg + first;
                    let to = &mut dsts[0][(n * g.oc + channel) * plane..][..count * plane];
                    pool.for_chunks(to, plane, |i, to, _| {
                        to.fill(self.bias.as_ref().map_or(0.0, |b| b[channel + i]));
                        self.sum(&shares[i * per_channel..][..per_channel], to);
                        self.act.apply(self.isa, to);
                    });
                }
            }
        }
    }
    fn packed_bytes(&self) -> usize {
        4 * self.weights.len()
    }
}
