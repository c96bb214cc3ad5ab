//! Transposed convolution: one matrix product gives every input pixel's share of every tap, then the shares are summed where they fall.
//!
//! Ladder: loops over taps → `[oc·taps][pixels] = Wᵀ[oc·taps][ic] · x[ic][pixels]` by [`super::gemm`], in groups of output channels
//! whose products stay in the cache → rows of shares added to rows of the result, one thread per channel.
//!
//! Windows that touch and do not overlap (kernel = stride) have nothing to sum: in the layout NCHWc the results of a row of the window, for a
//! block of channels, are a matrix `[input column][kx · lanes]` that lies in the result as it is, and the register tile writes it there.

use super::epilogue::Act;
use super::gemm::{Finish, GemmShape, Mat, Rhs, gemm};
use super::task::{Accept, Entry, Kind, Layout, Prepared, Task, Verdict};
use crate::engine::pool::{Grid, Pool};
use crate::error::{Error, Result};
use crate::ops::conv_transpose::{Axis, Geometry};
use crate::simd::panel::{Panel, PanelDst, PanelForm, PanelSrc, panel};
use crate::simd::{Isa, TileMut};
use crate::tensor::Pages;
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
    if touches(geometry, task.isa) {
        return Ok(Accept::of(vec![Layout::Blocked], Layout::Blocked));
    }
    Ok(Accept::plain(task))
}

/// Whether windows neither overlap nor leave gaps or are cropped, and blocks of channels are not mostly padding.
fn touches(g: &Geometry, isa: Isa) -> bool {
    let fits = |a: &Axis| a.k == a.s && (a.d == 1 || a.k == 1) && a.begin == 0 && a.o == a.i * a.k && a.o > 0;
    g.g == 1 && g.axes.len() == 2 && g.axes.iter().all(fits) && g.ic > 0 && 2 * g.oc >= isa.lanes()
}

fn prepare(task: &Task) -> Result<Box<dyn Prepared>> {
    let Kind::ConvTranspose { geometry: g, weights, bias, act } = task.kind else {
        return Err(Error::run("not a transposed convolution"));
    };
    let axes = axes(g).ok_or_else(|| Error::run("more than two spatial axes"))?;
    let w = weights.view::<f32>()?;
    if touches(g, task.isa) {
        return Ok(Box::new(Touching::new(task.isa, g.clone(), axes, &w, bias.as_deref(), *act)));
    }
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

/// Input channels of a pass: its weights stay in the first-level cache.
const PASS: usize = 256;
/// Values of input rows that a task keeps in the second-level cache.
const BAND: usize = 48 << 10;

/// Windows that touch, blocked.
struct Touching {
    isa: Isa,
    geometry: Geometry,
    axes: [Axis; 2],
    /// `[oc block][ky][two kx][ic][kx · lanes]`, the last two with a single kx if their number is odd.
    weights: Pages,
    /// `[oc block][lanes twice]`
    bias: Vec<f32>,
    act: Act,
}

impl Touching {
    fn new(isa: Isa, g: Geometry, axes: [Axis; 2], w: &[f32], bias: Option<&[f32]>, act: Act) -> Touching {
        let l = isa.lanes();
        let (blocks, [kh, kw]) = (g.oc.div_ceil(l), [axes[0].k, axes[1].k]);
        let mut weights = Pages::part(blocks * l * kh * kw * g.ic);
        let mut padded = vec![0.0; blocks * 2 * l];
        for oc in 0..g.oc {
            let (block, lane) = (oc / l, oc % l);
            for half in 0..2 {
                padded[(2 * block + half) * l + lane] = bias.map_or(0.0, |b| b[oc]);
            }
            for (ky, kx) in (0..kh).flat_map(|ky| (0..kw).map(move |kx| (ky, kx))) {
                let wide = (kw - kx / 2 * 2).min(2);
                let first = ((block * kh + ky) * kw + kx / 2 * 2) * g.ic * l + kx % 2 * l + lane;
                for ic in 0..g.ic {
                    weights[first + ic * wide * l] = w[((ic * g.oc + oc) * kh + ky) * kw + kx];
                }
            }
        }
        Touching { isa, geometry: g, axes, weights, bias: padded, act }
    }
}

impl Prepared for Touching {
    fn run(&self, pool: &Pool, srcs: &[&[f32]], dsts: &mut [&mut [f32]]) {
        let (g, [y, x], l) = (&self.geometry, &self.axes, self.isa.lanes());
        let (blocks, taken) = (g.oc.div_ceil(l), g.ic.div_ceil(l));
        let (pixels, row) = (y.i * x.i, x.o * l);
        let b_tile = (BAND / (x.i * taken * l)).max(2);
        let len = y.k * row;
        let grid = Grid { outer: g.n, a: blocks, b: y.i, len, a_tile: 1, b_tile, len_tile: len };
        let (clamp, after) = self.act.split();
        pool.for_tiles(dsts[0], grid, |mut tile, _| {
            let src = &srcs[0][tile.outer * taken * pixels * l..][..taken * pixels * l];
            let (block, first) = (tile.a0, tile.b0);
            let taps = (0..y.k).flat_map(|ky| (0..x.k).step_by(2).map(move |kx| (ky, kx)));
            for (ky, kx) in taps {
                let nb = (x.k - kx).min(2);
                let weights = &self.weights[((block * y.k + ky) * x.k + kx) * g.ic * l..][..g.ic * nb * l];
                for c in (0..g.ic).step_by(PASS) {
                    let here = PASS.min(g.ic - c);
                    let last = c + here == g.ic;
                    let kb = here.div_ceil(l);
                    for b in 0..tile.b_len() {
                        let from = PanelSrc {
                            src,
                            base: (c / l * pixels + (first + b) * x.i) * l,
                            row_stride: 0,
                            kb_stride: pixels * l,
                            kb,
                            c_last: here - (kb - 1) * l,
                            taps: &[0],
                            form: PanelForm::Blocks,
                        };
                        let job = Panel {
                            from,
                            wei: &weights[c * nb * l..][..here * nb * l],
                            nb,
                            bias: Some(&self.bias[block * 2 * l..][..nb * l]),
                            accumulate: c > 0,
                            residual: None,
                            clamp: if last { clamp } else { (f32::NEG_INFINITY, f32::INFINITY) },
                            next: &[],
                        };
                        let out = &mut tile.seg(0, b)[ky * row..][..row];
                        let mut out = TileMut::new(out, 1, x.i, x.k * l);
                        panel(self.isa, &job, PanelDst::Columns { col: kx * l }, &mut out);
                    }
                }
            }
            if let Some(act) = after {
                act.apply_tile(self.isa, &mut tile, 0..1);
            }
        });
    }
    fn detail(&self) -> String {
        format!("{}x{} windows side by side, {}x{}", self.axes[0].k, self.axes[1].k, self.isa.mr(), self.isa.nr())
    }
    fn packed_bytes(&self) -> usize {
        4 * (self.weights.len() + self.bias.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::{blocked, close, guarded, isas, plain, values};

    #[test]
    fn windows_side_by_side() {
        let acts = [Act::None, Act::Relu, Act::Gelu];
        for (i, (n, ic, oc, [kh, kw], [h, w])) in [
            (1, 16, 8, [2, 2], [5, 7]),
            (2, 11, 21, [2, 2], [3, 40]),
            (1, 300, 9, [3, 3], [4, 5]),
            (1, 17, 8, [1, 4], [6, 3]),
            (1, 600, 16, [2, 1], [2, 2]),
        ]
        .into_iter()
        .enumerate()
        {
            let axis = |k: usize, i: usize| Axis { k, s: k, d: 1, begin: 0, i, o: i * k };
            let axes = [axis(kh, h), axis(kw, w)];
            let g = Geometry { n, ic, oc, g: 1, axes: axes.to_vec() };
            let scale = 1.0 / (ic as f32).sqrt();
            let weights: Vec<f32> = values(ic * oc * kh * kw, 1).iter().map(|v| v * scale).collect();
            let (src, bias, act) = (values(n * ic * h * w, 2), values(oc, 3), acts[i % 3]);
            let (oh, ow) = (h * kh, w * kw);
            let mut want = vec![0.0f32; n * oc * oh * ow];
            for (at, to) in want.iter_mut().enumerate() {
                let (x, y, o, image) = (at % ow, at / ow % oh, at / (ow * oh) % oc, at / (ow * oh * oc));
                let products = (0..ic).map(|c| {
                    let from = src[((image * ic + c) * h + y / kh) * w + x / kw];
                    from * weights[((c * oc + o) * kh + y % kh) * kw + x % kw]
                });
                *to = bias[o] + products.sum::<f32>();
            }
            act.apply(Isa::Portable, &mut want);
            for isa in isas() {
                let l = isa.lanes();
                assert!(touches(&g, isa));
                let ready = Touching::new(isa, g.clone(), axes, &weights, Some(&bias), act);
                let from = blocked(&src, n, ic, h * w, l, f32::NAN);
                for threads in [1, 3] {
                    let pool = Pool::new(threads);
                    let len = n * oc.div_ceil(l) * l * oh * ow;
                    let got = guarded(len, |d| ready.run(&pool, &[&from], &mut [d]));
                    close(&plain(&got, n, oc, oh * ow, l), &want, 2e-5, &format!("{isa} {ic}->{oc} {kh}x{kw}"));
                }
            }
        }
    }
}
