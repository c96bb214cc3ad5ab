//! The order in which a tile of pixels meets packed weights: passes of channel blocks × pairs of output blocks.
//!
//! Ladder: pair by pair over all channels → channels cut so that the weights of a pass stay in the first-level cache → the cut
//! outermost, so that all pairs use one cut of the source while it is near and every weight is read once per tile → the weights
//! of the pass that follows are asked for meanwhile.

use super::epilogue::{Act, Scaled};
use crate::simd::panel::{Panel, PanelDst, PanelForm, PanelSrc, panel};
use crate::simd::{Isa, TileMut};
use std::ops::Range;

/// Bytes of the first-level cache that the weights of one pass may take.
const WEI_BYTES: usize = 20 << 10;

/// Up to two output blocks that are computed together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pair {
    /// First output block.
    pub block: usize,
    /// Output blocks, 1 or 2.
    pub nb: usize,
    /// Source blocks read.
    pub icb: (usize, usize),
    /// Channels used of the last of them.
    pub c_last: usize,
    /// Where the weights `[icb][tap][c][nb · lanes]` start.
    pub wei: usize,
    /// Of weights that are shared: whether they are not, and lie with the kernel's own.
    pub own: bool,
}

/// Where the pixels of a tile go, as [`PanelDst`] has it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Form {
    /// Blocks of pixels.
    Pixels,
    /// Blocks of rows.
    Planes,
}

/// Source blocks of a tile, of which the first is the first the call names.
#[derive(Clone, Copy, Debug)]
pub(super) struct Blocks<'a> {
    /// Values.
    pub src: &'a [f32],
    /// Where the first pixel of the first block is.
    pub base: usize,
    /// Distance between blocks.
    pub stride: usize,
    /// Distance between rows ([`Form::Planes`]).
    pub row_stride: usize,
}

/// Products of a tile with pairs of output blocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sweep<'a> {
    pub isa: Isa,
    /// Pairs inside the tile.
    pub pairs: &'a [Pair],
    /// Packed weights of all pairs.
    pub wei: &'a [f32],
    /// But for those that are the kernel's own.
    pub own: &'a [f32],
    /// Multiplied with the products before anything is added, by block; nothing where there are none.
    pub factors: Option<&'a [f32]>,
    /// Start values of all output blocks, by block.
    pub bias: Option<&'a [f32]>,
    /// Offsets of the window's taps.
    pub taps: &'a [usize],
    /// A plain source: one block, each tap one value.
    pub plain: bool,
    /// Added at the end; a tensor of the destination's shape.
    pub residual: Option<&'a [f32]>,
    /// Applied last.
    pub act: Act,
}

/// Even cuts of `blocks` source blocks whose weights for one pair stay in the first-level cache.
pub(super) fn cuts(isa: Isa, blocks: usize, taps: usize) -> usize {
    let per_block = taps * isa.lanes() * 2 * isa.lanes() * 4;
    (blocks * per_block).div_ceil(WEI_BYTES).min(blocks).max(1)
}

impl Sweep<'_> {
    /// Adds what source blocks `blocks` give: a pair starts from its bias at its first block and ends with the activation at its last.
    ///
    /// Blocks handed over in parts come in rising order.
    pub fn run(&self, from: Blocks<'_>, blocks: Range<usize>, to: Form, tile: &mut TileMut<'_>) {
        for pairs in self.pairs.chunk_by(|a, b| a.icb == b.icb) {
            let (first, end) = pairs[0].icb;
            let reads = first.max(blocks.start)..end.min(blocks.end);
            if reads.is_empty() {
                continue;
            }
            let cuts = if self.plain { 1 } else { cuts(self.isa, reads.len(), self.taps.len()) };
            let mut kb = reads.start;
            for cut in 0..cuts {
                let here = reads.len() / cuts + usize::from(cut < reads.len() % cuts);
                let base = from.base + (kb - blocks.start) * from.stride;
                for (i, p) in pairs.iter().enumerate() {
                    let next = match pairs.get(i + 1) {
                        Some(p) => self.weights(p, kb, here),
                        None if kb + here < reads.end => self.weights(&pairs[0], kb + here, here),
                        // What lies behind is what the next tile or position starts with.
                        None => self.weights(p, kb + here, here),
                    };
                    self.pass(p, Blocks { base, ..from }, kb..kb + here, to, next, tile);
                }
                kb += here;
            }
        }
    }

    /// Weights of `n` blocks of a pair from block `kb` on, as far as there are any.
    fn weights(&self, p: &Pair, kb: usize, n: usize) -> &[f32] {
        let l = self.isa.lanes();
        let per_block = self.taps.len() * l * p.nb * l;
        let all = if p.own { self.own } else { self.wei };
        let start = (p.wei + (kb - p.icb.0) * per_block).min(all.len());
        &all[start..(start + n * per_block).min(all.len())]
    }

    fn pass(&self, p: &Pair, from: Blocks<'_>, kb: Range<usize>, to: Form, next: &[f32], tile: &mut TileMut<'_>) {
        let l = self.isa.lanes();
        let (clamp, after) = self.act.split();
        let last = kb.end == p.icb.1;
        let block = p.block - tile.a0;
        // With factors, what is added comes after them.
        let adds = self.factors.is_none();
        let bias = self.bias.map(|b| &b[p.block * l..][..p.nb * l]);
        let job = Panel {
            from: PanelSrc {
                src: from.src,
                base: from.base,
                row_stride: from.row_stride,
                kb_stride: from.stride,
                kb: kb.len(),
                c_last: if last { p.c_last } else { l },
                taps: self.taps,
                form: if self.plain { PanelForm::Plain } else { PanelForm::Blocks },
            },
            wei: self.weights(p, kb.start, kb.len()),
            next,
            nb: p.nb,
            bias: bias.filter(|_| adds),
            accumulate: kb.start > p.icb.0,
            residual: self.residual.filter(|_| last && adds),
            clamp: if last && adds { clamp } else { (f32::NEG_INFINITY, f32::INFINITY) },
        };
        let to = match to {
            Form::Pixels => PanelDst::Pixels { block },
            Form::Planes => PanelDst::Planes { block },
        };
        panel(self.isa, &job, to, tile);
        if let Some(factors) = self.factors.filter(|_| last) {
            for b in 0..p.nb {
                let shift = bias.map(|s| &s[b * l..][..l]);
                let scaled =
                    Scaled { factors: &factors[(p.block + b) * l..][..l], shift, residual: self.residual, clamp };
                scaled.apply(self.isa, tile, block + b);
            }
        }
        if let Some(act) = after.filter(|_| last) {
            act.apply_tile(self.isa, tile, block..block + p.nb);
        }
    }
}
