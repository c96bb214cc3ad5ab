//! Convolution in the channel-blocked layout NCHWc: activations `[n][cb][h][w][c]`, `c` = lanes of the ISA.
//!
//! Ladder: direct loops → channel blocks as vectors, weights packed `[oc pair][icb][kh][kw][ci][2c]` → register tile
//! of pixels × two blocks ([`crate::simd::panel`]) → channel blocks cut so that the weights of a pass stay in the
//! first-level cache → bands of rows copied once per thread into a zero-padded, stride-split scratch, so that the
//! tile never meets an edge and neighbouring pixels are always `c` apart → dynamic tasks of bands × output blocks.
//!
//! Pointwise stride-1 convolutions skip the copy and treat the map as one row. Depthwise ones use
//! [`crate::simd::depthwise`]. Grouped ones read only the input blocks their outputs need; where a block
//! spans several groups the weights outside the diagonal are zero. The first layer may read a plain NCHW image.
//!
//! Channels are padded to whole blocks in the destination: padded weights and bias are zero, padded lanes of a
//! source are never read (dense) or never leave their lane (depthwise).

use super::epilogue::Act;
use crate::engine::pool::{Grid, Pool, Scratch};
use crate::simd::depthwise::{Depthwise, depthwise};
use crate::simd::panel::{Panel, PanelDst, PanelSrc, panel, panel_wei_len};
use crate::simd::{Isa, Simd, SimdOp, TileMut, dispatch};
use crate::tensor::Pages;

/// Shape of a 2-D convolution. Padding is given per side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvShape {
    /// Images.
    pub n: usize,
    /// Input channels, all groups.
    pub ic: usize,
    /// Input height.
    pub ih: usize,
    /// Input width.
    pub iw: usize,
    /// Output channels, all groups.
    pub oc: usize,
    /// Window height.
    pub kh: usize,
    /// Window width.
    pub kw: usize,
    /// Vertical stride.
    pub sh: usize,
    /// Horizontal stride.
    pub sw: usize,
    /// Padding above.
    pub ph: usize,
    /// Padding on the left.
    pub pw: usize,
    /// Padding below.
    pub ph_end: usize,
    /// Padding on the right.
    pub pw_end: usize,
    /// Vertical dilation.
    pub dh: usize,
    /// Horizontal dilation.
    pub dw: usize,
    /// Groups.
    pub g: usize,
}

impl ConvShape {
    /// A square window `k` at stride `s` with padding `p` on all sides, one group, one image.
    pub fn square(ic: usize, hw: usize, oc: usize, k: usize, s: usize, p: usize) -> ConvShape {
        let (n, dh, dw, g) = (1, 1, 1, 1);
        ConvShape {
            n,
            ic,
            ih: hw,
            iw: hw,
            oc,
            kh: k,
            kw: k,
            sh: s,
            sw: s,
            ph: p,
            pw: p,
            ph_end: p,
            pw_end: p,
            dh,
            dw,
            g,
        }
    }
    /// Output height.
    pub fn oh(&self) -> usize {
        out_len(self.ih + self.ph + self.ph_end, self.kh, self.sh, self.dh)
    }
    /// Output width.
    pub fn ow(&self) -> usize {
        out_len(self.iw + self.pw + self.pw_end, self.kw, self.sw, self.dw)
    }
    /// Multiply-adds, padded windows counted in full.
    pub fn madds(&self) -> usize {
        self.n * self.oc * self.oh() * self.ow() * self.kh * self.kw * (self.ic / self.g.max(1))
    }
    /// Values of the source in blocks of `c` channels.
    pub fn src_len(&self, c: usize) -> usize {
        self.n * self.ic.div_ceil(c) * c * self.ih * self.iw
    }
    /// Values of the destination in blocks of `c` channels.
    pub fn dst_len(&self, c: usize) -> usize {
        self.n * self.oc.div_ceil(c) * c * self.oh() * self.ow()
    }
    /// Each channel has its own window.
    pub fn is_depthwise(&self) -> bool {
        self.g == self.ic && self.g == self.oc
    }
    fn check(&self) {
        let s = self;
        for d in [s.n, s.ic, s.ih, s.iw, s.oc, s.kh, s.kw, s.sh, s.sw, s.dh, s.dw, s.g] {
            assert!(d > 0 && d < 1 << 31, "{s:?}: every extent must be positive");
        }
        assert!(s.ic.is_multiple_of(s.g) && s.oc.is_multiple_of(s.g), "{s:?}: groups must divide the channels");
        assert!((s.kh - 1) * s.dh < s.ih + s.ph + s.ph_end, "{s:?}: window larger than the padded map");
        assert!((s.kw - 1) * s.dw < s.iw + s.pw + s.pw_end, "{s:?}: window larger than the padded map");
    }
}

fn out_len(padded: usize, k: usize, stride: usize, dilation: usize) -> usize {
    (padded.saturating_sub((k - 1) * dilation + 1)) / stride + 1
}

/// Layout of the source tensor of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SrcLayout {
    /// `[n][ic][ih][iw]`: for first layers of few channels, one group.
    Plain,
    /// `[n][icb][ih][iw][c]`
    Blocked,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Pointwise,
    Direct,
    Plain,
    Depthwise,
}

/// Up to two output blocks that are computed together.
#[derive(Clone, Copy, Debug)]
struct Pair {
    block: usize,
    nb: usize,
    /// Input blocks read.
    icb: (usize, usize),
    /// Channels used of the last of them.
    c_last: usize,
    /// Where the weights start.
    wei: usize,
}

/// A convolution with its weights packed for one ISA.
#[derive(Clone, Debug)]
pub struct Conv {
    shape: ConvShape,
    isa: Isa,
    kind: Kind,
    wei: Pages,
    bias: Pages,
    pairs: Vec<Pair>,
    pre: Option<PreMap>,
}

/// What a pointwise convolution does to its source first: `act(x · scale + shift)`, padded to whole blocks.
#[derive(Clone, Debug)]
struct PreMap {
    affine: Option<(Pages, Pages)>,
    act: Act,
}

/// Bytes of the first-level cache that the weights of one pass may take.
const WEI_BYTES: usize = 20 << 10;
/// Bytes of source that one task keeps in its second-level cache.
const SRC_BYTES: usize = 192 << 10;
/// Multiply-adds below which a task is not split further.
const MIN_TASK_MADDS: usize = 200_000;
/// Tasks per thread to aim at.
const TASKS_PER_THREAD: usize = 8;

impl Conv {
    /// Pack `wei` (`[oc][ic/g][kh][kw]`) and `bias` (`[oc]`) for `isa`.
    ///
    /// Panics if the lengths do not match the shape, or for a plain source with groups.
    pub fn new(isa: Isa, shape: ConvShape, layout: SrcLayout, wei: &[f32], bias: Option<&[f32]>) -> Conv {
        shape.check();
        let ConvShape { ic, oc, kh, kw, g, .. } = shape;
        let (l, taps, icg, ocg) = (isa.lanes(), kh * kw, ic / g, oc / g);
        assert_eq!(wei.len(), oc * icg * taps, "{shape:?}: weights");
        assert!(bias.is_none_or(|b| b.len() == oc), "{shape:?}: bias");
        let unpadded = shape.ph + shape.pw + shape.ph_end + shape.pw_end == 0;
        let kind = match layout {
            SrcLayout::Plain => {
                assert_eq!(g, 1, "{shape:?}: a plain source has one group");
                Kind::Plain
            }
            SrcLayout::Blocked if shape.is_depthwise() => Kind::Depthwise,
            SrcLayout::Blocked if taps == 1 && shape.sh * shape.sw == 1 && unpadded => Kind::Pointwise,
            SrcLayout::Blocked => Kind::Direct,
        };
        let ocb = oc.div_ceil(l);
        let mut padded = Pages::zeros(ocb.next_multiple_of(2) * l);
        if let Some(b) = bias {
            padded[..oc].copy_from_slice(b);
        }
        if kind == Kind::Depthwise {
            let mut packed = Pages::zeros(ocb * taps * l);
            for c in 0..oc {
                for t in 0..taps {
                    packed[((c / l) * taps + t) * l + c % l] = wei[c * taps + t];
                }
            }
            return Conv { shape, isa, kind, wei: packed, bias: padded, pairs: Vec::new(), pre: None };
        }
        // Input blocks that outputs block..block + nb need, and the channels used of the last one.
        let reach = |block: usize, nb: usize| {
            let (first, last) = (block * l / ocg, (((block + nb) * l).min(oc) - 1) / ocg);
            let (c0, c1) = (first * icg, (last + 1) * icg);
            (c0 / l, c1.div_ceil(l), (c1 - 1) % l + 1)
        };
        let mut pairs = Vec::new();
        let (mut block, mut len) = (0, 0);
        while block < ocb {
            let mut nb = (ocb - block).min(2);
            // Pairs start at even blocks, so that tasks of whole pairs are easy to cut. Two blocks with different
            // inputs share nothing: keep them apart.
            if nb == 2 && g > 1 && (block % 2 == 1 || reach(block, 1).0 != reach(block + 1, 1).0) {
                nb = 1;
            }
            let (lo, hi, c_last) = reach(block, nb);
            let (icb, c_last) = if kind == Kind::Plain { ((0, 1), 1) } else { ((lo, hi), c_last) };
            pairs.push(Pair { block, nb, icb, c_last, wei: len });
            len += match kind {
                Kind::Plain => panel_wei_len(isa, nb, 1, 1, taps * ic),
                _ => panel_wei_len(isa, nb, hi - lo, c_last, taps),
            };
            block += nb;
        }
        let mut packed = Pages::zeros(len);
        for p in &pairs {
            let nr = p.nb * l;
            let width = nr.min(oc - p.block * l);
            let to = packed[p.wei..].chunks_exact_mut(nr);
            if g == 1 {
                // Row by row of the packed panel: where each value lies within the weights of an output channel.
                let rows = &wei[p.block * l * icg * taps..][..width * icg * taps];
                let gather = |k: usize, row: &mut [f32]| {
                    row.iter_mut().zip(rows[k..].iter().step_by(icg * taps)).for_each(|(d, w)| *d = *w);
                };
                if kind == Kind::Plain {
                    to.take(icg * taps).enumerate().for_each(|(k, row)| gather(k, row));
                    continue;
                }
                let mut to = to;
                for kb in 0..p.icb.1 {
                    let here = if kb + 1 == p.icb.1 { p.c_last } else { l };
                    for t in 0..taps {
                        for (c, row) in (&mut to).take(here).enumerate() {
                            gather((kb * l + c) * taps + t, row);
                        }
                    }
                }
                continue;
            }
            for o in 0..width {
                let channel = p.block * l + o;
                let row = &wei[channel * icg * taps..][..icg * taps];
                let first = channel / ocg * icg;
                for (i, w) in row.chunks_exact(taps).enumerate() {
                    let c = first + i;
                    let kb = c / l - p.icb.0;
                    // [icb][tap][ci], the last block being shorter
                    let here = if c / l + 1 == p.icb.1 { p.c_last } else { l };
                    for (t, &w) in w.iter().enumerate() {
                        packed[p.wei + (kb * taps * l + t * here + c % l) * nr + o] = w;
                    }
                }
            }
        }
        Conv { shape, isa, kind, wei: packed, bias: padded, pairs, pre: None }
    }

    /// With a map of the source on the way in: `act(x · scale[c] + shift[c])`. Panics unless the convolution is pointwise.
    pub fn with_pre(mut self, affine: Option<(&[f32], &[f32])>, act: Act) -> Conv {
        assert_eq!(self.kind, Kind::Pointwise, "{:?}: a map of the source of a window", self.shape);
        let ic = self.shape.ic;
        let padded = |v: &[f32]| {
            let mut out = Pages::zeros(ic.next_multiple_of(self.isa.lanes()));
            out[..ic].copy_from_slice(v);
            out
        };
        self.pre = Some(PreMap { affine: affine.map(|(a, b)| (padded(a), padded(b))), act });
        self
    }

    /// The shape.
    pub fn shape(&self) -> &ConvShape {
        &self.shape
    }
    /// The instruction set; its lanes are the block of the source and destination layouts.
    pub fn isa(&self) -> Isa {
        self.isa
    }
    /// Bytes of packed weights and bias.
    pub fn packed_bytes(&self) -> usize {
        4 * (self.wei.len() + self.bias.len())
    }
    /// Name of the algorithm chosen.
    pub fn algorithm(&self) -> &'static str {
        match self.kind {
            Kind::Pointwise => "pointwise",
            Kind::Direct => "direct",
            Kind::Plain => "direct-plain",
            Kind::Depthwise => "depthwise",
        }
    }

    /// `dst = act(conv(src) + bias + residual)`, all blocked (`src` plain for [`SrcLayout::Plain`]).
    ///
    /// `residual` has the destination's shape and layout. Panics on wrong lengths.
    pub fn run(&self, pool: &Pool, src: &[f32], residual: Option<&[f32]>, act: Act, dst: &mut [f32]) {
        self.run_gated(pool, src, None, residual, act, dst);
    }

    /// As [`Conv::run`], with the source multiplied by a blocked `gate` `[n, ic, 1, 1]` first (after [`Conv::with_pre`]).
    pub fn run_gated(
        &self,
        pool: &Pool,
        src: &[f32],
        gate: Option<&[f32]>,
        residual: Option<&[f32]>,
        act: Act,
        dst: &mut [f32],
    ) {
        let (s, l) = (&self.shape, self.isa.lanes());
        let want = if self.kind == Kind::Plain { s.n * s.ic * s.ih * s.iw } else { s.src_len(l) };
        assert_eq!(src.len(), want, "{s:?}: source");
        assert_eq!(dst.len(), s.dst_len(l), "{s:?}: destination");
        assert!(residual.is_none_or(|r| r.len() == dst.len()), "{s:?}: residual");
        match self.kind {
            Kind::Pointwise => self.pointwise(pool, src, gate, residual, act, dst),
            Kind::Depthwise => self.depthwise(pool, src, residual, act, dst),
            Kind::Direct | Kind::Plain => self.direct(pool, src, residual, act, dst),
        }
    }

    fn tasks_wanted(&self, pool: &Pool) -> usize {
        let most = if pool.threads() == 1 { 1 } else { TASKS_PER_THREAD * pool.threads() };
        (self.shape.madds() / MIN_TASK_MADDS).clamp(1, most)
    }

    /// The weights after the ones in use, if any.
    fn next(&self, from: usize, len: usize) -> &[f32] {
        &self.wei[from.min(self.wei.len())..(from + len).min(self.wei.len())]
    }

    /// All products of one pair of output blocks, then the activation that is not a clamp.
    fn products(
        &self,
        p: &Pair,
        from: PanelSrc<'_>,
        residual: Option<&[f32]>,
        act: Act,
        to: impl Fn(usize) -> PanelDst,
        tile: &mut TileMut<'_>,
    ) {
        let l = self.isa.lanes();
        let (clamp, after) = act.split();
        let n_kb = if self.kind == Kind::Plain { 1 } else { p.icb.1 - p.icb.0 };
        let per_block = from.taps.len() * l * p.nb * l;
        // Even passes whose weights stay in the first-level cache.
        let passes = if self.kind == Kind::Plain { 1 } else { (n_kb * per_block * 4).div_ceil(WEI_BYTES).min(n_kb) };
        let block = p.block - tile.a0;
        let mut kb = 0;
        for pass in 0..passes {
            let here = n_kb / passes + usize::from(pass < n_kb % passes);
            let last = kb + here == n_kb;
            let src = PanelSrc {
                base: from.base + kb * from.kb_stride,
                kb: here,
                c_last: if self.kind == Kind::Plain {
                    1
                } else if last {
                    p.c_last
                } else {
                    l
                },
                ..from
            };
            let job = Panel {
                from: src,
                wei: &self.wei[p.wei + kb * per_block..],
                next: self.next(p.wei + (kb + here) * per_block, here * per_block),
                nb: p.nb,
                bias: Some(&self.bias[p.block * l..][..p.nb * l]),
                accumulate: kb > 0,
                residual: residual.filter(|_| last),
                clamp: if last { clamp } else { (f32::NEG_INFINITY, f32::INFINITY) },
            };
            panel(self.isa, &job, to(block), tile);
            kb += here;
        }
        if let Some(act) = after {
            act.apply_tile(self.isa, tile, block..block + p.nb);
        }
    }

    fn pointwise(
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
        let mr = self.isa.mr();
        let fit = (SRC_BYTES / (4 * icb * l)).max(4 * mr);
        let mut b_parts = px.div_ceil(fit);
        let want = self.tasks_wanted(pool).div_ceil(s.n);
        // More tasks from pixels while each keeps several tiles, then from output blocks.
        b_parts = b_parts.max(want.min(px / (8 * mr))).max(1);
        let b_tile = px.div_ceil(b_parts).next_multiple_of(mr).min(px);
        let a_parts = want.div_ceil(px.div_ceil(b_tile)).min(ocb.div_ceil(2));
        let a_tile = ocb.div_ceil(a_parts).next_multiple_of(2);
        let grid = Grid { outer: s.n, a: ocb, b: px, len: l, a_tile, b_tile, len_tile: l };
        assert!(gate.is_none_or(|g| self.pre.is_some() && g.len() == s.n * icb * l), "{s:?}: gate");
        let ticket = pool.ticket();
        pool.for_tiles(dst, grid, |mut tile, id| {
            let Some(pre) = &self.pre else {
                let at = (tile.outer * icb * px + tile.b0) * l;
                return self.pointwise_tile((src, at, px * l), residual, act, &mut tile);
            };
            pool.scratch(id, |scratch| {
                let Scratch { a: copy, tag_a, .. } = scratch;
                let len = tile.b_len() * l;
                let copy = Scratch::grow(copy, icb * len);
                let tag = (ticket, tile.outer * px + tile.b0);
                if *tag_a != tag {
                    *tag_a = (0, 0);
                    for (kb, to) in copy.chunks_exact_mut(len).enumerate() {
                        let from = &src[((tile.outer * icb + kb) * px + tile.b0) * l..][..len];
                        let at = kb * l;
                        let (clamp, after) = pre.act.split();
                        let affine = pre.affine.as_ref().map(|(a, b)| (&a[at..at + l], &b[at..at + l]));
                        let gate = gate.map(|g| &g[tile.outer * icb * l + at..][..l]);
                        dispatch(self.isa, MapBlock { from, affine, gate, clamp, to });
                        if let Some(act) = after {
                            act.apply(self.isa, to);
                        }
                    }
                    *tag_a = tag;
                }
                self.pointwise_tile((copy, 0, len), residual, act, &mut tile);
            });
        });
    }

    /// Products of the pixels of one tile; the source is given with where its first pixel is and how far apart blocks are.
    pub(super) fn pointwise_tile(
        &self,
        (src, base, kb_stride): (&[f32], usize, usize),
        residual: Option<&[f32]>,
        act: Act,
        tile: &mut TileMut<'_>,
    ) {
        for p in self.pairs_in(tile.a0, tile.a_len()) {
            let from = PanelSrc {
                src,
                base: base + p.icb.0 * kb_stride,
                row_stride: 0,
                kb_stride,
                kb: 0,
                c_last: self.isa.lanes(),
                taps: &[0],
                plain: false,
            };
            self.products(p, from, residual, act, |block| PanelDst::Pixels { block }, tile);
        }
    }

    /// The source of image `n` from pixel `px` on, as [`Conv::pointwise_tile`] takes it.
    pub(super) fn blocks_from<'s>(&self, src: &'s [f32], n: usize, px: usize) -> (&'s [f32], usize, usize) {
        let (s, l) = (&self.shape, self.isa.lanes());
        let plane = s.ih * s.iw * l;
        (src, n * s.ic.div_ceil(l) * plane + px * l, plane)
    }

    /// Weights and bias of one channel block of a depthwise convolution.
    pub(super) fn depthwise_weights(&self, block: usize) -> (&[f32], &[f32]) {
        let (l, taps) = (self.isa.lanes(), self.shape.kh * self.shape.kw);
        (&self.wei[block * taps * l..][..taps * l], &self.bias[block * l..][..l])
    }

    /// Pairs inside output blocks `first..first + len`, which start at an even block.
    fn pairs_in(&self, first: usize, len: usize) -> impl Iterator<Item = &Pair> {
        let from = self.pairs.partition_point(|p| p.block < first);
        self.pairs[from..].iter().take_while(move |p| p.block + p.nb <= first + len)
    }

    fn depthwise(&self, pool: &Pool, src: &[f32], residual: Option<&[f32]>, act: Act, dst: &mut [f32]) {
        let (s, l) = (&self.shape, self.isa.lanes());
        let (oh, ow, cb, taps) = (s.oh(), s.ow(), s.oc.div_ceil(l), s.kh * s.kw);
        let (clamp, after) = act.split();
        let want = (s.n * cb * oh * ow * taps * l / (MIN_TASK_MADDS / 4)).clamp(1, TASKS_PER_THREAD * pool.threads());
        let want = want.div_ceil(s.n);
        let a_parts = want.min(cb);
        let b_parts =
            if after.is_some() { want.div_ceil(a_parts).max(oh * ow * l / 8192) } else { want.div_ceil(a_parts) };
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
                    wei: &self.wei[block * taps * l..][..taps * l],
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

    fn direct(&self, pool: &Pool, src: &[f32], residual: Option<&[f32]>, act: Act, dst: &mut [f32]) {
        let (s, l) = (&self.shape, self.isa.lanes());
        let (oh, ow, ocb) = (s.oh(), s.ow(), s.oc.div_ceil(l));
        let plain = self.kind == Kind::Plain;
        let band = Band::new(s, if plain { (s.ic, 1) } else { (s.ic.div_ceil(l), l) });
        // Rows per task: the copied band stays in the second-level cache, with enough tasks for the threads.
        let want = self.tasks_wanted(pool).div_ceil(s.n);
        let mut b_tile = oh;
        while b_tile > 1 && band.len(b_tile) * 4 > SRC_BYTES {
            b_tile = b_tile.div_ceil(2);
        }
        let mut a_parts = want.div_ceil(oh.div_ceil(b_tile)).min(ocb.div_ceil(2));
        if plain {
            // The copy is small and the weights smaller: split rows alone.
            b_tile = b_tile.min(oh.div_ceil(want)).max(1);
            a_parts = 1;
        }
        let b_tile = oh.div_ceil(oh.div_ceil(b_tile));
        let a_tile = ocb.div_ceil(a_parts).next_multiple_of(2);
        let grid = Grid { outer: s.n, a: ocb, b: oh, len: ow * l, a_tile, b_tile, len_tile: ow * l };
        let ticket = pool.ticket();
        let taps = band.taps(s, if plain { s.ic } else { 1 }, b_tile);
        pool.for_tiles(dst, grid, |mut tile, id| {
            pool.scratch(id, |scratch| {
                let Scratch { a: copy, tag_a, .. } = scratch;
                let rows = b_tile.min(oh - tile.b0);
                let tag = (ticket, tile.outer * oh + tile.b0);
                let (from, base, plane, row) = if band.copied {
                    let len = band.len(b_tile);
                    let copy = Scratch::grow(copy, len);
                    if *tag_a != tag {
                        *tag_a = (0, 0);
                        band.fill(s, src, tile.outer, tile.b0, rows, b_tile, copy);
                        *tag_a = tag;
                    }
                    (&*copy, 0, band.plane_len(b_tile), band.row_step())
                } else {
                    let line = s.iw * band.unit;
                    (src, (tile.outer * band.planes * s.ih + tile.b0 * s.sh) * line, s.ih * line, s.sh * line)
                };
                for p in self.pairs_in(tile.a0, tile.a_len()) {
                    let from = PanelSrc {
                        src: from,
                        base: base + p.icb.0 * plane,
                        row_stride: row,
                        kb_stride: plane,
                        kb: 0,
                        c_last: l,
                        taps: &taps,
                        plain,
                    };
                    self.products(p, from, residual, act, |block| PanelDst::Planes { block }, &mut tile);
                }
            });
        });
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
    /// Copy what output rows `oh0..oh0 + rows` of image `n` need.
    #[allow(clippy::too_many_arguments)]
    fn fill(&self, s: &ConvShape, src: &[f32], n: usize, oh0: usize, rows: usize, planned: usize, to: &mut [f32]) {
        let (unit, line) = (self.unit, s.iw * self.unit);
        for plane in 0..self.planes {
            let from = &src[(n * self.planes + plane) * s.ih * line..][..s.ih * line];
            let to = &mut to[plane * self.plane_len(planned)..][..self.plane_len(rows)];
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
                    if s.sw == 1 {
                        to.copy_from_slice(&from[at..][..to.len()]);
                    } else if unit == 1 {
                        to.iter_mut().zip(from[at..].iter().step_by(s.sw)).for_each(|(d, s)| *d = *s);
                    } else {
                        for (d, x) in to.chunks_exact_mut(unit).zip(from[at..].chunks(unit * s.sw)) {
                            d.copy_from_slice(&x[..unit]);
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
