//! Convolutions with a window, or a stride: bands of source rows copied once into a zero-padded, stride-split scratch.

use super::{Conv, ConvShape, Kind, SRC_BYTES};
use crate::engine::pool::{Grid, Pool, Scratch};
use crate::kernels::epilogue::Act;
use crate::kernels::sweep::{Blocks, Form};
use std::ops::Range;

/// Pixels of a band below which it is not cut further.
const MIN_PIXELS: usize = 64;

impl Conv {
    pub(super) fn direct(&self, pool: &Pool, src: &[f32], residual: Option<&[f32]>, act: Act, dst: &mut [f32]) {
        let (s, l) = (&self.shape, self.isa.lanes());
        let (oh, ow, ocb) = (s.oh(), s.ow(), s.oc.div_ceil(l));
        let plain = self.kind == Kind::Plain;
        let band = Band::new(s, if plain { (s.ic, 1) } else { (s.ic.div_ceil(l), l) });
        // Rows per task: the copied band stays in the second-level cache, with enough tasks for the threads. Bands of few pixels
        // would read all weights for little; there the channels of a band are copied part by part.
        let want = self.tasks_wanted(pool).div_ceil(s.n);
        let mut b_tile = oh;
        while b_tile > 1 && band.len(b_tile) * 4 > SRC_BYTES && (plain || b_tile / 2 * ow >= MIN_PIXELS) {
            b_tile = b_tile.div_ceil(2);
        }
        let mut a_parts = want.div_ceil(oh.div_ceil(b_tile)).min(ocb.div_ceil(2));
        if plain {
            // The copy is small and the weights smaller: split rows alone.
            b_tile = b_tile.min(oh.div_ceil(want)).max(1);
            a_parts = 1;
        }
        let b_tile = oh.div_ceil(oh.div_ceil(b_tile));
        let fit = (SRC_BYTES / (4 * band.plane_len(b_tile))).clamp(1, band.planes);
        let part = if plain || !band.copied || s.g > 1 {
            band.planes
        } else {
            band.planes.div_ceil(band.planes.div_ceil(fit))
        };
        if part < band.planes {
            // Every task copies for itself: one for each thread if that comes out even.
            let (pairs, threads) = (ocb.div_ceil(2), pool.threads());
            a_parts = a_parts.min(if pairs.is_multiple_of(threads) { threads } else { 2 * threads });
        }
        let a_tile = ocb.div_ceil(a_parts).next_multiple_of(2);
        let grid = Grid { outer: s.n, a: ocb, b: oh, len: ow * l, a_tile, b_tile, len_tile: ow * l };
        let ticket = pool.ticket();
        let taps = band.taps(s, if plain { s.ic } else { 1 }, b_tile);
        pool.for_tiles(dst, grid, |mut tile, id| {
            let sweep = self.sweep((tile.a0, tile.a_len()), &taps, residual, act);
            let all = if plain { 1 } else { band.planes };
            if !band.copied {
                let line = s.iw * band.unit;
                let base = (tile.outer * band.planes * s.ih + tile.b0 * s.sh) * line;
                let from = Blocks { src, base, stride: s.ih * line, row_stride: s.sh * line };
                return sweep.run(from, 0..all, Form::Planes, &mut tile);
            }
            pool.scratch(id, |scratch| {
                let Scratch { a: copy, tag_a, .. } = scratch;
                let rows = b_tile.min(oh - tile.b0);
                let tag = (ticket, tile.outer * oh + tile.b0);
                let plane = band.plane_len(b_tile);
                let copy = Scratch::grow(copy, part * plane);
                for first in (0..band.planes).step_by(part) {
                    let planes = first..(first + part).min(band.planes);
                    if *tag_a != tag || part < band.planes {
                        *tag_a = (0, 0);
                        band.fill(s, src, tile.outer, planes.clone(), (tile.b0, rows), b_tile, copy);
                        *tag_a = tag;
                    }
                    let from = Blocks { src: copy, base: 0, stride: plane, row_stride: band.row_step() };
                    sweep.run(from, if plain { 0..1 } else { planes }, Form::Planes, &mut tile);
                }
            });
        });
    }
}

/// Values 0, 2, 4 and so on.
fn every_other(from: &[f32], to: &mut [f32]) {
    let (pairs, rest) = from.as_chunks::<2>();
    for (d, x) in to.iter_mut().zip(pairs) {
        *d = x[0];
    }
    if let (Some(d), Some(x)) = (to.get_mut(pairs.len()), rest.first()) {
        *d = *x;
    }
}

/// Every `step`-th pixel of `U` values, whose number the compiler knows: a call for each would take as long as the products of some taps.
fn spread<const U: usize>(from: &[f32], step: usize, to: &mut [f32]) {
    for (d, x) in to.as_chunks_mut::<U>().0.iter_mut().zip(from.chunks(U * step)) {
        if let Some(x) = x.first_chunk::<U>() {
            *d = *x;
        }
    }
}

/// The source rows a band of output rows needs, copied with zeros where the window hangs over the edge.
///
/// Layout `[plane][row][phase][column][unit]`: columns of the padded map are dealt out to `sw` phases, so that the
/// pixels a tap reads for neighbouring outputs are always neighbours.
struct Band {
    planes: usize,
    /// Values per pixel: the lanes, or 1 for a plain source.
    unit: usize,
    copied: bool,
    /// Phases that some tap uses, and columns of each.
    phases: usize,
    cols: usize,
    /// Rows per output row, or 1 when the window is one row high and the others are left out.
    step: usize,
    reach: usize,
}

impl Band {
    fn new(s: &ConvShape, (planes, unit): (usize, usize)) -> Band {
        let copied = s.ph + s.pw + s.ph_end + s.pw_end > 0 || s.sw > 1;
        let wide = (s.kw - 1) * s.dw;
        let phases = (0..s.kw).map(|kw| kw * s.dw % s.sw).max().unwrap_or(0) + 1;
        let step = if s.kh == 1 { 1 } else { s.sh };
        Band { planes, unit, copied, phases, cols: s.ow() + wide / s.sw, step, reach: (s.kh - 1) * s.dh + 1 }
    }
    fn rows(&self, out_rows: usize) -> usize {
        (out_rows - 1) * self.step + self.reach
    }
    fn row_len(&self) -> usize {
        self.phases * self.cols * self.unit
    }
    fn row_step(&self) -> usize {
        self.step * self.row_len()
    }
    fn plane_len(&self, out_rows: usize) -> usize {
        self.rows(out_rows) * self.row_len()
    }
    fn len(&self, out_rows: usize) -> usize {
        if self.copied { self.planes * self.plane_len(out_rows) } else { 0 }
    }
    /// Offsets of the taps, for each of `channels` planes of a plain source.
    fn taps(&self, s: &ConvShape, channels: usize, out_rows: usize) -> Vec<usize> {
        let mut taps = Vec::with_capacity(channels * s.kh * s.kw);
        let plane = if self.copied { self.plane_len(out_rows) } else { s.ih * s.iw * self.unit };
        for c in 0..channels {
            for kh in 0..s.kh {
                for kw in 0..s.kw {
                    let at = kw * s.dw;
                    taps.push(if self.copied {
                        let col = at % s.sw * self.cols + at / s.sw;
                        c * plane + kh * s.dh * self.row_len() + col * self.unit
                    } else {
                        c * plane + (kh * s.dh * s.iw + at) * self.unit
                    });
                }
            }
        }
        taps
    }
    /// Copy what output rows `oh0..oh0 + rows` of image `n` need of `planes`; room is for `planned` rows.
    #[allow(clippy::too_many_arguments)]
    fn fill(
        &self,
        s: &ConvShape,
        src: &[f32],
        n: usize,
        planes: Range<usize>,
        (oh0, rows): (usize, usize),
        planned: usize,
        to: &mut [f32],
    ) {
        let (unit, line) = (self.unit, s.iw * self.unit);
        for (plane, to) in planes.zip(to.chunks_exact_mut(self.plane_len(planned))) {
            let from = &src[(n * self.planes + plane) * s.ih * line..][..s.ih * line];
            let to = &mut to[..self.plane_len(rows)];
            for (r, to) in to.chunks_exact_mut(self.row_len()).enumerate() {
                let r = if self.step == s.sh { r } else { r * s.sh };
                let Some(ih) = (oh0 * s.sh + r).checked_sub(s.ph).filter(|&ih| ih < s.ih) else {
                    to.fill(0.0);
                    continue;
                };
                let from = &from[ih * line..][..line];
                for (phase, to) in to.chunks_exact_mut(self.cols * unit).enumerate() {
                    // Padded column of index j is j·sw + phase; the map's are pw..pw + iw.
                    let first = s.pw.saturating_sub(phase).div_ceil(s.sw).min(self.cols);
                    let end = (s.pw + s.iw).saturating_sub(phase).div_ceil(s.sw).clamp(first, self.cols);
                    to[..first * unit].fill(0.0);
                    to[end * unit..].fill(0.0);
                    let to = &mut to[first * unit..end * unit];
                    if to.is_empty() {
                        continue;
                    }
                    let at = (first * s.sw + phase - s.pw) * unit;
                    let from = &from[at..];
                    match (s.sw, unit) {
                        (1, _) => to.copy_from_slice(&from[..to.len()]),
                        (2, 1) => every_other(from, to),
                        (sw, 1) => to.iter_mut().zip(from.iter().step_by(sw)).for_each(|(d, s)| *d = *s),
                        (sw, 8) => spread::<8>(from, sw, to),
                        (sw, 16) => spread::<16>(from, sw, to),
                        (sw, unit) => {
                            for (d, x) in to.chunks_exact_mut(unit).zip(from.chunks(unit * sw)) {
                                d.copy_from_slice(&x[..unit]);
                            }
                        }
                    }
                }
            }
        }
    }
}
