//! Depthwise convolutions: channel blocks are independent, [`crate::simd::depthwise`] runs one.

use super::{Conv, MIN_TASK_MADDS, TASKS_PER_THREAD};
use crate::engine::pool::{Grid, Pool};
use crate::kernels::epilogue::Act;
use crate::simd::depthwise::{Depthwise, depthwise};

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
        pool.for_tiles(dst, grid, |mut tile, _| {
            for a in 0..tile.a_len() {
                let block = tile.a0 + a;
                let job = Depthwise {
                    src: &src[(tile.outer * cb + block) * s.ih * s.iw * l..][..s.ih * s.iw * l],
                    ih: s.ih,
                    iw: s.iw,
                    k: (s.kh, s.kw),
                    stride: (s.sh, s.sw),
                    pad: (s.ph, s.pw),
                    dilation: (s.dh, s.dw),
                    wei: &self.packed.wei()[block * taps * l..][..taps * l],
                    bias: &self.bias[block * l..][..l],
                    residual,
                    clamp,
                };
                depthwise(self.isa, &job, a, &mut tile);
                if let Some(act) = after {
                    act.apply_tile(self.isa, &mut tile, a..a + 1);
                }
            }
        });
    }
}
