//! Winograd convolution F(2×2, 3×3) and F(4×4, 3×3): 2.25 or 4 times fewer multiplications for a 3×3 window at stride 1.
//!
//! Ladder: tile by tile → the products of one position of all tiles of a block are a matrix product over channels, which
//! [`crate::simd::panel`] runs (tiles are its pixels) → blocks of tile rows whose transformed maps stay in the second-level cache,
//! handed out to the threads → for maps of few tiles the three stages are each split instead: then every weight is read by one core.
//!
//! Error: tests hold F(2×2) to 2e-6 and F(4×4) to 1e-5, relative to results of magnitude 1 or more, absolute below. Transformed weights are 16/9 or 4 times the size, which is what speaks against it where there are few pixels for each.

use super::conv::shape as conv_shape;
use super::conv_blocked::ConvShape;
use super::epilogue::Act;
use super::kept::Source;
use super::shared::{Form as Packing, Packed, Share};
use super::sweep::{Blocks, Form, Pair, Sweep};
use super::task::{Accept, Entry, Kind, Layout, Prepared, Task, Verdict};
use crate::engine::pool::{Grid, Pool, Scratch};
use crate::error::{Error, Result};
use crate::simd::winograd::{self, MAX_POINTS, Rows, TOGETHER};
use crate::simd::{Isa, TileMut};
use crate::tensor::Pages;
use std::ops::Range;

pub(super) const F2: Entry =
    Entry { name: "conv-winograd-2", accepts: |t| accepts(t, 2), prepare: |t| prepare(t, 2), tolerance: 2e-5 };
pub(super) const F4: Entry =
    Entry { name: "conv-winograd-4", accepts: |t| accepts(t, 4), prepare: |t| prepare(t, 4), tolerance: 2e-5 };

/// Bytes of transformed source and products that one block of tiles may take.
const BLOCK_BYTES: usize = 640 << 10;
/// Multiply-adds in the time of one byte of weights from memory.
const MADDS_PER_BYTE: f64 = 3.5;
/// Multiply-adds in the time of one tile's transform on one side, per channel and position.
const MADDS_PER_POINT: f64 = 2.5;

/// Input channels below which the transforms take more than the products save.
const FEWEST: usize = 16;

/// Input channels whose filters are transformed before they are put in their places.
const RUN: usize = 16;

/// Estimated cost in multiply-adds of a well-filled register tile.
fn cost(s: &ConvShape, m: usize) -> f64 {
    let tiles = (s.n * s.oh().div_ceil(m) * s.ow().div_ceil(m)) as f64;
    let points = ((m + 2) * (m + 2)) as f64;
    let (ic, oc) = (s.ic as f64, s.oc as f64);
    // Few tiles fill the register tile badly.
    let products = points * ic * oc * (tiles + 4.0);
    products.max(points * ic * oc * 4.0 * MADDS_PER_BYTE) + tiles * points * (ic + oc) * MADDS_PER_POINT
}

/// The cost of a direct convolution in the same unit.
pub(super) fn direct_cost(s: &ConvShape) -> f64 {
    let weights = (s.oc * s.ic / s.g * s.kh * s.kw) as f64;
    (s.madds() as f64).max(weights * 4.0 * MADDS_PER_BYTE)
}

fn accepts(task: &Task, m: usize) -> Verdict {
    let Kind::Conv { geometry, residual, pre, .. } = task.kind else { return Err(String::new()) };
    if !task.winograd {
        return Err("switched off (--no-winograd)".into());
    }
    let s = conv_shape(geometry).ok_or("more than two spatial axes")?;
    if (s.kh, s.kw) != (3, 3) || [s.sh, s.sw, s.dh, s.dw] != [1; 4] {
        return Err("not 3×3 at stride 1".into());
    }
    if s.g != 1 || pre.is_some() {
        return Err("groups, or a map of the input".into());
    }
    if s.ic < FEWEST || s.oc < 2 * task.isa.lanes() {
        return Err("few channels".into());
    }
    let out: Vec<usize> = geometry.axes.iter().map(|a| a.o).collect();
    if out != [s.oh(), s.ow()] {
        return Err("an output size the window does not give (ceil mode)".into());
    }
    let srcs = if *residual { vec![Layout::Blocked; 2] } else { vec![Layout::Blocked] };
    Ok(Accept { srcs, dst: Layout::Blocked, cost: cost(&s, m) })
}

fn prepare(task: &Task, m: usize) -> Result<Box<dyn Prepared>> {
    let Kind::Conv { geometry, weights, bias, act, share, .. } = task.kind else {
        return Err(Error::run("not a convolution"));
    };
    let shape = conv_shape(geometry).ok_or_else(|| Error::run("more than two spatial axes"))?;
    let weights = Source::of(weights, task.kept())?;
    let conv = Winograd::sharing(task.isa, shape, m, weights, bias.as_deref(), share.as_ref());
    Ok(Box::new(Ready { conv, act: *act }))
}

struct Ready {
    conv: Winograd,
    act: Act,
}

impl Prepared for Ready {
    fn run(&self, pool: &Pool, srcs: &[&[f32]], dsts: &mut [&mut [f32]]) {
        self.conv.run(pool, srcs[0], srcs.get(1).copied(), self.act, dsts[0]);
    }
    fn packed_bytes(&self) -> usize {
        self.conv.packed_bytes()
    }
}

/// A 3×3 convolution at stride 1 with its weights transformed and packed for one ISA.
#[derive(Clone, Debug)]
pub struct Winograd {
    shape: ConvShape,
    isa: Isa,
    m: usize,
    /// `[position][output pair][ic][2 blocks of lanes]`; the last pair may be one block.
    packed: Packed,
    bias: Pages,
    /// Output pairs of one position.
    pairs: Vec<Pair>,
}

impl Winograd {
    /// Transforms `wei` (`[oc][ic][3][3]`) for output tiles of `m`×`m`, m = 2 or 4; `bias` is `[oc]`.
    ///
    /// Panics if the lengths do not match the shape, or the window is another.
    pub fn new(isa: Isa, shape: ConvShape, m: usize, wei: &[[u8; 4]], bias: Option<&[f32]>) -> Winograd {
        Winograd::sharing(isa, shape, m, wei.into(), bias, None)
    }

    /// As [`Winograd::new`], with weights that a wider one has transformed where there is one.
    pub fn sharing(
        isa: Isa,
        shape: ConvShape,
        m: usize,
        wei: Source<'_>,
        bias: Option<&[f32]>,
        share: Option<&Share>,
    ) -> Winograd {
        let ConvShape { ic, oc, kh, kw, g, sh, sw, dh, dw, .. } = shape;
        assert!(m == 2 || m == 4);
        assert_eq!([kh, kw, g, sh, sw, dh, dw], [3, 3, 1, 1, 1, 1, 1], "{shape:?}: not for Winograd");
        assert_eq!(wei.count(), oc * ic * 9, "{shape:?}: weights");
        assert!(bias.is_none_or(|b| b.len() == oc), "{shape:?}: bias");
        let l = isa.lanes();
        let ocb = oc.div_ceil(l);
        let mut padded = Pages::part(ocb.next_multiple_of(2) * l);
        if let Some(b) = bias {
            padded[..oc].copy_from_slice(b);
        }
        let (icb, c_last) = ((0, ic.div_ceil(l)), (ic - 1) % l + 1);
        let pair = |block: usize| {
            let nb = (ocb - block).min(2);
            Pair { block, nb, icb, c_last, wei: block * l * ic, own: false }
        };
        let mut pairs: Vec<Pair> = (0..ocb).step_by(2).map(pair).collect();
        let form = Packing { isa, winograd: m, taps: 1 };
        let packed = match share.and_then(|s| s.lead(form)) {
            Some(lead) => {
                lead.place(&mut pairs, |p| p.nb * l * ic);
                // Only the last can be its own.
                let own = pairs.last().filter(|p| p.own).map_or(ocb, |p| p.block);
                Packed::lent(lead, transform(isa, &shape, m, wei.values(), own..ocb), &pairs, l)
            }
            None => {
                let len = (m + 2) * (m + 2) * ocb * l * ic;
                let packed = wei.packed((form, ic, oc), len, |wei| transform(isa, &shape, m, wei, 0..ocb));
                Packed::whole(packed, &pairs, share.map(|s| (s, form)))
            }
        };
        Winograd { shape, isa, m, packed, bias: padded, pairs }
    }

    /// The shape.
    pub fn shape(&self) -> &ConvShape {
        &self.shape
    }
    /// Bytes of transformed weights and bias, without what a wider one holds.
    pub fn packed_bytes(&self) -> usize {
        self.packed.bytes() + 4 * self.bias.len()
    }

    fn points(&self) -> usize {
        (self.m + 2) * (self.m + 2)
    }

    /// `dst = act(conv(src) + bias + residual)`, all blocked; `residual` has the destination's shape. Panics on wrong lengths.
    pub fn run(&self, pool: &Pool, src: &[f32], residual: Option<&[f32]>, act: Act, dst: &mut [f32]) {
        let (s, l, m) = (&self.shape, self.isa.lanes(), self.m);
        assert_eq!(src.len(), s.src_len(l), "{s:?}: source");
        assert_eq!(dst.len(), s.dst_len(l), "{s:?}: destination");
        assert!(residual.is_none_or(|r| r.len() == dst.len()), "{s:?}: residual");
        let (oh, ow) = (s.oh(), s.ow());
        let (icb, ocb) = (s.ic.div_ceil(l), s.oc.div_ceil(l));
        let (tile_rows, tile_cols) = (oh.div_ceil(m), ow.div_ceil(m));
        let row_bytes = tile_cols * self.points() * (icb + ocb) * l * 4;
        // Blocks of rows that fit the cache, of equal size.
        let blocks = tile_rows.div_ceil((BLOCK_BYTES / row_bytes).max(1));
        let weight_bytes = self.points() * ocb * l * s.ic * 4;
        let few = tile_rows * tile_cols <= 64 || weight_bytes > row_bytes * tile_rows;
        if few && s.n * tile_rows * tile_cols <= 256 {
            for n in 0..s.n {
                self.in_stages(pool, n, src, residual, act, dst);
            }
            return;
        }
        let blocks = if pool.threads() > 1 { blocks.max((4 * pool.threads()).div_ceil(s.n)) } else { blocks };
        let rows_per_block = tile_rows.div_ceil(blocks).max(1);
        let grid =
            Grid { outer: s.n, a: ocb, b: oh, len: ow * l, a_tile: ocb, b_tile: rows_per_block * m, len_tile: ow * l };
        let (clamp, after) = act.split();
        pool.for_even_tiles(dst, grid, m, |mut tile, id| {
            pool.scratch(id, |scratch| {
                let Scratch { a: maps, b: products, tag_a, tag_b } = scratch;
                (*tag_a, *tag_b) = ((0, 0), (0, 0));
                let tile_row = tile.b0 / m;
                let here = tile.b_len().div_ceil(m);
                let (rows, out_rows) = self.rows(tile_row, here);
                let (tiles, slots) = (here * tile_cols, slots(here * tile_cols, l));
                let maps = Scratch::grow(maps, self.points() * icb * slots * l);
                let products = Scratch::grow(products, self.points() * ocb * slots * l);
                for b in 0..icb {
                    let plane = self.plane(src, tile.outer, b);
                    let mut all = TileMut::new(maps, self.points(), icb, slots * l);
                    let mut to = all.row(b);
                    winograd::input(self.isa, &rows, plane, &mut to);
                }
                for p in 0..self.points() {
                    let mut to = TileMut::new(&mut products[p * ocb * slots * l..][..ocb * slots * l], ocb, slots, l);
                    to.shorten(tiles);
                    self.multiply(p, &maps[p * icb * slots * l..], slots, 0, &mut to);
                }
                for b in 0..ocb {
                    let fin = winograd::Finish { bias: &self.bias[b * l..][..l], residual, clamp };
                    let from = &products[b * slots * l..];
                    winograd::output(self.isa, &out_rows, from, ocb * slots * l, &fin, b, &mut tile);
                }
                if let Some(act) = after {
                    act.apply_tile(self.isa, &mut tile, 0..ocb);
                }
            });
        });
    }

    /// One image, each of the three stages split over the threads.
    fn in_stages(&self, pool: &Pool, n: usize, src: &[f32], residual: Option<&[f32]>, act: Act, dst: &mut [f32]) {
        let (s, l, m) = (&self.shape, self.isa.lanes(), self.m);
        let (oh, ow, icb, ocb) = (s.oh(), s.ow(), s.ic.div_ceil(l), s.oc.div_ceil(l));
        let (tile_rows, tile_cols) = (oh.div_ceil(m), ow.div_ceil(m));
        let (points, (rows, out_rows)) = (self.points(), self.rows(0, tile_rows));
        let (tiles, slots) = (tile_rows * tile_cols, slots(tile_rows * tile_cols, l));
        let len = slots * l;
        let share = |all: usize| if pool.threads() == 1 { all } else { all.div_ceil(4 * pool.threads()) };
        let (clamp, after) = act.split();
        pool.scratch(0, |scratch| {
            let Scratch { a: maps, b: products, tag_a, tag_b } = scratch;
            (*tag_a, *tag_b) = ((0, 0), (0, 0));
            let maps = Scratch::grow(maps, points * icb * len);
            let products = Scratch::grow(products, points * ocb * len);
            let grid = Grid { outer: 1, a: points, b: icb, len, a_tile: points, b_tile: share(icb), len_tile: len };
            pool.for_tiles(maps, grid, |mut tile, _| {
                for b in 0..tile.b_len() {
                    let plane = self.plane(src, n, tile.b0 + b);
                    let mut to = tile.row(b);
                    winograd::input(self.isa, &rows, plane, &mut to);
                }
            });
            let maps = &*maps;
            // Pairs of output blocks stay together.
            let a_tile = if pool.threads() == 1 { ocb } else { ocb.div_ceil(2).next_multiple_of(2) };
            let grid = Grid { outer: points, a: ocb, b: slots, len: l, a_tile, b_tile: slots, len_tile: l };
            pool.for_tiles(products, grid, |mut tile, _| {
                let (p, pair) = (tile.outer, tile.a0 / 2);
                tile.shorten(tiles);
                self.multiply(p, &maps[p * icb * len..], slots, pair, &mut tile);
            });
            let products = &*products;
            let image = ocb * oh * ow * l;
            let grid = Grid { outer: 1, a: ocb, b: oh, len: ow * l, a_tile: share(ocb), b_tile: oh, len_tile: ow * l };
            let residual = residual.map(|r| &r[n * image..][..image]);
            pool.for_tiles(&mut dst[n * image..][..image], grid, |mut tile, _| {
                for a in 0..tile.a_len() {
                    let b = tile.a0 + a;
                    let fin = winograd::Finish { bias: &self.bias[b * l..][..l], residual, clamp };
                    winograd::output(self.isa, &out_rows, &products[b * len..], ocb * len, &fin, a, &mut tile);
                    if let Some(act) = after {
                        act.apply_tile(self.isa, &mut tile, a..a + 1);
                    }
                }
            });
        });
    }

    /// Tile rows as the source sees them, and as the result does.
    fn rows(&self, tile_row: usize, tile_rows: usize) -> (Rows, Rows) {
        let s = &self.shape;
        let tile_cols = s.ow().div_ceil(self.m);
        let from = Rows { m: self.m, tile_row, tile_rows, tile_cols, h: s.ih, w: s.iw, pad: (s.ph, s.pw) };
        (from, Rows { h: s.oh(), w: s.ow(), pad: (0, 0), ..from })
    }

    fn plane<'a>(&self, src: &'a [f32], n: usize, block: usize) -> &'a [f32] {
        let (s, l) = (&self.shape, self.isa.lanes());
        let len = s.ih * s.iw * l;
        &src[(n * s.ic.div_ceil(l) + block) * len..][..len]
    }

    /// The products of position `p` from output pair `pair` on: `to` is `[blocks][tiles][lanes]`, `slots` vectors apart.
    fn multiply(&self, p: usize, maps: &[f32], slots: usize, pair: usize, to: &mut TileMut<'_>) {
        let l = self.isa.lanes();
        let (wei, own) = (self.packed.wei(), self.packed.own());
        let sweep = Sweep {
            isa: self.isa,
            pairs: &self.pairs[pair..pair + to.a_len().div_ceil(2)],
            // To the end, so that the first weights of the next position are asked for too.
            wei: &wei[p * (wei.len() / self.points())..],
            own: &own[p * (own.len() / self.points())..],
            factors: self.packed.factors(),
            bias: None,
            taps: &[0],
            plain: false,
            residual: None,
            act: Act::None,
        };
        let from = Blocks { src: maps, base: 0, stride: slots * l, row_stride: 0 };
        sweep.run(from, 0..self.shape.ic.div_ceil(l), Form::Pixels, to);
    }
}

/// The transformed weights of some output blocks, from an even one on: `[position][output pair][ic][blocks of lanes]`.
fn transform(isa: Isa, s: &ConvShape, m: usize, wei: &[[u8; 4]], blocks: Range<usize>) -> Pages {
    let (ic, oc, l, points) = (s.ic, s.oc, isa.lanes(), (m + 2) * (m + 2));
    let per_point = blocks.len() * l * ic;
    let mut packed = Pages::part(points * per_point);
    let mut taps = [[0.0f32; TOGETHER]; 9];
    let mut transformed = [[0.0f32; TOGETHER]; MAX_POINTS];
    // What some inputs give, by position: written out in runs, not to 36 places a multiple of a page apart in turn.
    let mut some = vec![0.0f32; points * RUN * 2 * l];
    for block in blocks.clone().step_by(2) {
        let (start, room) = (block * l, (blocks.end - block).min(2) * l);
        for i0 in (0..ic).step_by(RUN) {
            let run = RUN.min(ic - i0);
            for inner in (0..room).step_by(TOGETHER) {
                // Filters beyond the last channel are zero; there may be no room for them.
                let first = start + inner;
                let (count, stored) = (oc.saturating_sub(first).min(TOGETHER), (room - inner).min(TOGETHER));
                for i in 0..run {
                    for (t, tap) in taps.iter_mut().enumerate() {
                        tap[count..].fill(0.0);
                        if count > 0 {
                            let of_channel = wei[(first * ic + i0 + i) * 9 + t..].iter().step_by(ic * 9);
                            tap[..count].iter_mut().zip(of_channel).for_each(|(d, w)| *d = f32::from_ne_bytes(*w));
                        }
                    }
                    winograd::filters(isa, m, &taps, &mut transformed);
                    for (p, u) in transformed[..points].iter().enumerate() {
                        some[(p * RUN + i) * room + inner..][..stored].copy_from_slice(&u[..stored]);
                    }
                }
            }
            for p in 0..points {
                let to = &mut packed[p * per_point + (start - blocks.start * l) * ic + i0 * room..][..run * room];
                to.copy_from_slice(&some[p * RUN * room..][..run * room]);
            }
        }
    }
    packed
}

/// Room for `tiles` vectors, such that the positions of a tile do not all fall on the same lines of a cache.
fn slots(tiles: usize, l: usize) -> usize {
    let lines = (tiles * l).div_ceil(16);
    (lines | 1) * 16 / l
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::{blocked, close, guarded, in_file, isas, plain, values};

    fn naive(s: &ConvShape, x: &[f32], w: &[f32], b: &[f32]) -> Vec<f32> {
        let (oh, ow) = (s.oh(), s.ow());
        let mut out = Vec::with_capacity(s.n * s.oc * oh * ow);
        for n in 0..s.n {
            for (o, bias) in b.iter().enumerate() {
                for y in 0..oh * ow {
                    let mut sum = f64::from(*bias);
                    for i in 0..s.ic {
                        for t in 0..9 {
                            let at = ((y / ow + t / 3).wrapping_sub(s.ph), (y % ow + t % 3).wrapping_sub(s.pw));
                            if at.0 < s.ih && at.1 < s.iw {
                                let v = x[((n * s.ic + i) * s.ih + at.0) * s.iw + at.1];
                                sum += f64::from(v) * f64::from(w[(o * s.ic + i) * 9 + t]);
                            }
                        }
                    }
                    out.push(sum as f32);
                }
            }
        }
        out
    }

    #[test]
    fn tiles_of_both_sizes_on_maps_of_every_size() {
        // Padding above, on the left, below, on the right.
        for (ic, oc, ih, iw, [ph, pw, ph_end, pw_end], n) in [
            (16, 16, 4, 4, [1; 4], 1),
            (16, 40, 7, 5, [1; 4], 2),
            (19, 33, 13, 14, [1; 4], 1),
            (32, 24, 9, 30, [0; 4], 1),
            (64, 48, 28, 28, [1; 4], 1),
            (24, 16, 70, 33, [1; 4], 1),
            (16, 16, 3, 3, [0; 4], 3),
            (16, 16, 13, 14, [0, 0, 1, 1], 2),
            (24, 16, 70, 31, [0, 2, 1, 0], 1),
            (16, 24, 6, 5, [5, 0, 0, 7], 1),
        ] {
            let s = ConvShape { iw, n, ph, pw, ph_end, pw_end, ..ConvShape::square(ic, ih, oc, 3, 1, 0) };
            let scale = 1.0 / (9.0 * ic as f32).sqrt();
            let x = values(n * ic * ih * iw, 1);
            let w: Vec<f32> = values(oc * ic * 9, 2).iter().map(|v| v * scale).collect();
            let (b, r) = (values(oc, 3), values(n * oc * s.oh() * s.ow(), 4));
            let sums = naive(&s, &x, &w, &b);
            for isa in isas() {
                let l = isa.lanes();
                let src = blocked(&x, n, ic, ih * iw, l, f32::NAN);
                let res = blocked(&r, n, oc, s.oh() * s.ow(), l, 0.0);
                for (m, threads, residual, act) in [
                    (2, 1, false, Act::None),
                    (2, 3, true, Act::Relu),
                    (4, 1, true, Act::HardSwish),
                    (4, 2, false, Act::Relu),
                ] {
                    let mut want: Vec<f32> =
                        if residual { sums.iter().zip(&r).map(|(a, b)| a + b).collect() } else { sums.clone() };
                    act.apply(Isa::Portable, &mut want);
                    let conv = Winograd::new(isa, s, m, &in_file(&w), Some(&b));
                    let pool = Pool::new(threads);
                    let got = guarded(s.dst_len(l), |d| conv.run(&pool, &src, residual.then_some(&res[..]), act, d));
                    let got = plain(&got, n, oc, s.oh() * s.ow(), l);
                    let tolerance = if m == 2 { 2e-6 } else { 1e-5 };
                    close(&got, &want, tolerance, &format!("{isa} F({m}) {threads} {s:?} {residual} {act:?}"));
                }
            }
        }
    }
}
