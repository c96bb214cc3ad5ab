//! Depthwise convolutions: channel blocks are independent, [`crate::simd::depthwise`] runs one.

use super::{Conv, MIN_TASK_MADDS, TASKS_PER_THREAD};
use crate::engine::pool::{Grid, Pool, Scratch};
use crate::kernels::epilogue::Act;
use crate::simd::depthwise::{Depthwise, depthwise};
use crate::simd::{Simd, SimdOp, TileMut, dispatch};
use std::ops::Range;

/// Rows of a task, where rows are cut before channels.
const MIN_ROWS: usize = 3;

impl Conv {
    /// Weights and bias of one channel block of a depthwise convolution.
    pub(in crate::kernels) fn depthwise_weights(&self, block: usize) -> (&[f32], &[f32]) {
        let (l, taps) = (self.isa.lanes(), self.shape.kh * self.shape.kw);
        (&self.packed.wei()[block * taps * l..][..taps * l], &self.bias[block * l..][..l])
    }

    pub(super) fn depthwise(&self, pool: &Pool, src: &[f32], residual: Option<&[f32]>, act: Act, dst: &mut [f32]) {
        let (s, l) = (&self.shape, self.isa.lanes());
        let (oh, ow, cb, taps) = (s.oh(), s.ow(), s.oc.div_ceil(l), s.kh * s.kw);
        let (clamp, after) = act.split();
        let want = (s.n * cb * oh * ow * taps * l / (MIN_TASK_MADDS / 4)).clamp(1, TASKS_PER_THREAD * pool.threads());
        let want = want.div_ceil(s.n);
        // With several threads, rows before channels where pointwise convolutions cut pixels: those before and after have the other
        // half of the channels of the same rows, and a line from another core costs more than the rows beyond the edge.
        let (mut a_parts, mut b_parts) = (want.min(cb), want.div_ceil(want.min(cb)));
        if pool.threads() > 1 && oh * ow >= 16 * self.isa.mr() {
            b_parts = pool.threads().min(oh / MIN_ROWS).max(1);
            a_parts = want.div_ceil(b_parts).min(cb);
        }
        if after.is_some() {
            b_parts = b_parts.max(oh * ow * l / 8192);
        }
        let b_tile = oh.div_ceil(b_parts.clamp(1, oh));
        let grid =
            Grid { outer: s.n, a: cb, b: oh, len: ow * l, a_tile: cb.div_ceil(a_parts), b_tile, len_tile: ow * l };
        let (each, icb, plane) = (s.oc / s.ic, s.ic.div_ceil(l), s.ih * s.iw * l);
        // Rows of the source that a tile reads.
        let rows = |tile: &TileMut<'_>| {
            let (first, last) = (tile.b0 * s.sh, (tile.b0 + tile.b_len()) * s.sh + (s.kh - 1) * s.dh);
            // None where the window lies in the padding alone.
            first.saturating_sub(s.ph).min(s.ih)..last.saturating_sub(s.ph).min(s.ih)
        };
        pool.for_tiles(dst, grid, |mut tile, id| {
            for a in 0..tile.a_len() {
                let block = tile.a0 + a;
                if each > 1 {
                    let planes = &src[tile.outer * icb * plane..][..icb * plane];
                    let (line, rows, oc) = (s.iw * l, rows(&tile), s.oc);
                    pool.scratch(id, |scratch| {
                        scratch.tag_a = (0, 0);
                        let to = Scratch::grow(&mut scratch.a, plane);
                        dispatch(self.isa, Spread { planes, plane, line, rows, each, block, oc, to });
                        self.block(to, block, a, residual, clamp, after, &mut tile);
                    });
                    continue;
                }
                let from = &src[(tile.outer * cb + block) * plane..][..plane];
                self.block(from, block, a, residual, clamp, after, &mut tile);
            }
        });
    }

    /// One block of channels, out of a plane of the source, into plane `a` of a tile.
    #[allow(clippy::too_many_arguments)]
    fn block(
        &self,
        src: &[f32],
        block: usize,
        a: usize,
        residual: Option<&[f32]>,
        clamp: (f32, f32),
        after: Option<Act>,
        tile: &mut TileMut<'_>,
    ) {
        let s = &self.shape;
        let (wei, bias) = self.depthwise_weights(block);
        let job = Depthwise {
            src,
            ih: s.ih,
            iw: s.iw,
            k: (s.kh, s.kw),
            stride: (s.sh, s.sw),
            pad: (s.ph, s.pw),
            dilation: (s.dh, s.dw),
            wei,
            bias,
            residual,
            clamp,
        };
        depthwise(self.isa, &job, a, tile);
        if let Some(act) = after {
            act.apply_tile(self.isa, tile, a..a + 1);
        }
    }
}

/// The channels that a block of outputs reads where each input channel makes several: each in the lanes that need it.
struct Spread<'a, 'b> {
    /// `[icb][ih][iw][lanes]`
    planes: &'a [f32],
    plane: usize,
    line: usize,
    rows: Range<usize>,
    /// Outputs of an input channel.
    each: usize,
    /// Block of outputs.
    block: usize,
    oc: usize,
    /// One plane, of which the rows are written.
    to: &'b mut [f32],
}

impl SimdOp for Spread<'_, '_> {
    type Out = ();
    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let Spread { planes, plane, line, rows, each, block, oc, to } = self;
        let l = S::LANES;
        let channel = |lane: usize| (block * l + lane).min(oc - 1) / each;
        let first = channel(0) / l;
        // A block of outputs reads one block of the source, or the end of one and the start of the next.
        let (mut lanes, mut other) = ([0i32; 16], [0.0f32; 16]);
        for lane in 0..l {
            lanes[lane] = (channel(lane) % l) as i32;
            other[lane] = (channel(lane) / l - first) as f32;
        }
        let (lanes, other) = (s.load_int(&lanes), s.lt(s.splat(0.0), s.load(&other)));
        let part = rows.start * line..rows.end * line;
        let from = &planes[first * plane..][part.clone()];
        let next = &planes[channel(l - 1) / l * plane..][part.clone()];
        let vectors = from.chunks_exact(l).zip(next.chunks_exact(l));
        for ((a, b), to) in vectors.zip(to[part].chunks_exact_mut(l)) {
            s.store(to, s.select(other, s.permute(s.load(b), lanes), s.permute(s.load(a), lanes)));
        }
    }
}
