//! Pointwise convolutions at stride 1: the map is one row of pixels, read where it lies unless a map of the source comes first.

use super::cut::{Cut, MAPPED, SOURCE, Work};
use super::{Conv, PreMap, SRC_BYTES};
use crate::engine::pool::{Grid, Pool, Scratch};
use crate::kernels::epilogue::Act;
use crate::kernels::gemv::{After, MAX_M, panel_dots};
use crate::kernels::sweep::{Blocks, Form, cuts};
use crate::simd::{Simd, SimdOp, TileMut, dispatch};

/// Weights of one pixel from which on a task of their own pays.
const ONE_PIXEL_MADDS: usize = 16 << 10;

impl Conv {
    pub(super) fn pointwise(
        &self,
        pool: &Pool,
        src: &[f32],
        gate: Option<&[f32]>,
        residual: Option<&[f32]>,
        act: Act,
        dst: &mut [f32],
    ) {
        let (s, l) = (&self.shape, self.isa.lanes());
        let (px, icb, ocb) = (s.ih * s.iw, s.ic.div_ceil(l), s.oc.div_ceil(l));
        if px == 1 && s.n <= MAX_M && s.g == 1 && self.pre.is_none() && !self.packed.is_lent() {
            return self.one_pixel(pool, src, residual, act, dst);
        }
        let mr = self.isa.mr();
        let cut = icb.div_ceil(cuts(self.isa, icb, 1));
        // Of several cuts, each comes back to the destination: that wants room too.
        let room = if cut < icb { SRC_BYTES / 2 } else { SRC_BYTES };
        let fit = (room / (4 * cut * l)).max(4 * mr);
        let want = self.tasks_wanted(pool).div_ceil(s.n);
        // A mapped source is written too: whole, so that it is mapped once for all output blocks and none of these comes back.
        let near = SRC_BYTES / (4 * icb * l);
        let fit = if self.pre.is_some() { fit.min(near.max(4 * mr)) } else { fit };
        let least = px.div_ceil(fit).max(1);
        let threads = pool.threads();
        let work = || Work {
            images: s.n,
            pixels: px,
            pairs: ocb.div_ceil(2),
            depth: icb,
            tile: mr,
            least,
            most: want,
            threads,
            source: if self.pre.is_some() { MAPPED } else { SOURCE },
            near,
        };
        let Cut { pixels, pairs } = self.cut(threads, work);
        let grid = Grid { outer: s.n, a: ocb, b: px, len: l, a_tile: 2 * pairs, b_tile: pixels, len_tile: l };
        assert!(gate.is_none_or(|g| self.pre.is_some() && g.len() == s.n * icb * l), "{s:?}: gate");
        let ticket = pool.ticket();
        pool.for_tiles(dst, grid, |mut tile, id| {
            let from = tile.outer * icb * px + tile.b0;
            let Some(pre) = &self.pre else {
                return self.pointwise_tile((src, from * l, px * l), residual, act, &mut tile);
            };
            pool.scratch(id, |scratch| {
                let Scratch { a: copy, tag_a, .. } = scratch;
                let (len, out) = (tile.b_len() * l, (tile.a0, tile.a_len()));
                // What is mapped at a time stays in the second-level cache until all output blocks have used it.
                let part = if icb * len * 4 <= SRC_BYTES { icb } else { (SRC_BYTES / 2 / (4 * len)).clamp(1, icb) };
                let copy = Scratch::grow(copy, part * len);
                for first in (0..icb).step_by(part) {
                    let blocks = first..(first + part).min(icb);
                    let tag = (ticket, from);
                    if *tag_a != tag || part < icb {
                        *tag_a = (0, 0);
                        for (kb, to) in blocks.clone().zip(copy.chunks_exact_mut(len)) {
                            let gate = gate.map(|g| &g[(tile.outer * icb + kb) * l..][..l]);
                            self.map_block(pre, kb, &src[(from + kb * px) * l..][..len], gate, to);
                        }
                        *tag_a = tag;
                    }
                    let from = Blocks { src: copy, base: 0, stride: len, row_stride: 0 };
                    self.sweep(out, &[0], residual, act).run(from, blocks, Form::Pixels, &mut tile);
                }
            });
        });
    }

    /// One pixel of a few images: the weights are read once, as a single stream.
    fn one_pixel(&self, pool: &Pool, src: &[f32], residual: Option<&[f32]>, act: Act, dst: &mut [f32]) {
        let (s, l) = (&self.shape, self.isa.lanes());
        let (row, len) = (s.ic.next_multiple_of(l), s.oc.next_multiple_of(l));
        let most = if pool.threads() == 1 { 1 } else { 4 * pool.threads() };
        let parts = (s.ic * s.oc / ONE_PIXEL_MADDS).clamp(1, most);
        let len_tile = len.div_ceil(parts).next_multiple_of(2 * l);
        let grid = Grid { outer: 1, a: 1, b: s.n, len, a_tile: 1, b_tile: s.n, len_tile };
        let after = After { alpha: 1.0, bias: Some(&self.bias[..len]), residual, act };
        let wei = self.packed.wei();
        pool.for_tiles(dst, grid, |mut tile, _| {
            let (c0, width) = (tile.c0, tile.seg_len());
            for p in self.pairs.iter().filter(|p| (c0..c0 + width).contains(&(p.block * l))) {
                let (col, here) = (p.block * l - c0, p.nb * l);
                let y = panel_dots(self.isa, (src, row, s.n), s.ic, &wei[p.wei..][..s.ic * here]);
                for (i, y) in y[..s.n].iter().enumerate() {
                    tile.seg(0, i)[col..][..here].copy_from_slice(&y[..here]);
                }
            }
            for i in 0..s.n {
                after.apply(self.isa, i * len + c0, c0, tile.seg(0, i));
            }
        });
    }

    /// The map of the source on block `kb`.
    fn map_block(&self, pre: &PreMap, kb: usize, from: &[f32], gate: Option<&[f32]>, to: &mut [f32]) {
        let l = self.isa.lanes();
        let (clamp, after) = pre.act.split();
        let affine = pre.affine.as_ref().map(|(a, b)| (&a[kb * l..][..l], &b[kb * l..][..l]));
        dispatch(self.isa, MapBlock { from, affine, gate, clamp, to });
        if let Some(act) = after {
            act.apply(self.isa, to);
        }
    }

    /// Products of the pixels of one tile; the source is given with where its first pixel is and how far apart blocks are.
    pub(in crate::kernels) fn pointwise_tile(
        &self,
        (src, base, stride): (&[f32], usize, usize),
        residual: Option<&[f32]>,
        act: Act,
        tile: &mut TileMut<'_>,
    ) {
        let blocks = 0..self.shape.ic.div_ceil(self.isa.lanes());
        let sweep = self.sweep((tile.a0, tile.a_len()), &[0], residual, act);
        sweep.run(Blocks { src, base, stride, row_stride: 0 }, blocks, Form::Pixels, tile);
    }

    /// The source of image `n` from pixel `px` on, as [`Conv::pointwise_tile`] takes it.
    pub(in crate::kernels) fn blocks_from<'s>(&self, src: &'s [f32], n: usize, px: usize) -> (&'s [f32], usize, usize) {
        let (s, l) = (&self.shape, self.isa.lanes());
        let plane = s.ih * s.iw * l;
        (src, n * s.ic.div_ceil(l) * plane + px * l, plane)
    }
}

/// One block of channels mapped: `clamp(x · scale + shift)` or `clamp(x · gate)`.
struct MapBlock<'a> {
    from: &'a [f32],
    affine: Option<(&'a [f32], &'a [f32])>,
    gate: Option<&'a [f32]>,
    clamp: (f32, f32),
    to: &'a mut [f32],
}

impl SimdOp for MapBlock<'_> {
    type Out = ();
    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let MapBlock { from, affine, gate, clamp, to } = self;
        let (mut scale, mut shift) = (s.splat(1.0), s.splat(0.0));
        if let Some((a, b)) = affine {
            (scale, shift) = (s.load(a), s.load(b));
        }
        if let Some(g) = gate {
            let g = s.load(g);
            (scale, shift) = (s.mul(scale, g), s.mul(shift, g));
        }
        let (lo, hi) = (s.splat(clamp.0), s.splat(clamp.1));
        for (y, x) in to.chunks_exact_mut(S::LANES).zip(from.chunks_exact(S::LANES)) {
            let v = s.fma(s.load(x), scale, shift);
            s.store(y, s.min(hi, s.max(lo, v)));
        }
    }
}
