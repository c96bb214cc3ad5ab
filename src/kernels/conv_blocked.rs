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
//! source are never read (dense) or never leave their lane (depthwise). With a depth multiplier the channels that a block of outputs reads are
//! spread over its lanes first.

use super::epilogue::Act;
use super::kept::Source;
use super::shared::{Form, Packed, Share};
use super::sweep::{Pair, Sweep};
use super::winograd::direct_cost;
use crate::engine::pool::Pool;
use crate::simd::Isa;
use crate::simd::panel::panel_wei_len;
use crate::tensor::Pages;
use cut::Cut;
use std::sync::OnceLock;

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
    /// Each output channel reads one input channel: depthwise, or with several results of each (a depth multiplier).
    pub fn is_separate(&self) -> bool {
        self.g == self.ic && self.oc.is_multiple_of(self.ic)
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Pointwise,
    Direct,
    Plain,
    Depthwise,
}

/// A convolution with its weights packed for one ISA.
#[derive(Clone, Debug)]
pub struct Conv {
    shape: ConvShape,
    isa: Isa,
    kind: Kind,
    packed: Packed,
    bias: Pages,
    pairs: Vec<Pair>,
    pre: Option<PreMap>,
    /// How it was cut first, and for how many threads.
    cut: OnceLock<(usize, Cut)>,
}

/// What a pointwise convolution does to its source first: `act(x · scale + shift)`, padded to whole blocks.
#[derive(Clone, Debug)]
struct PreMap {
    affine: Option<(Pages, Pages)>,
    act: Act,
}

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
    pub fn new(isa: Isa, shape: ConvShape, layout: SrcLayout, wei: &[[u8; 4]], bias: Option<&[f32]>) -> Conv {
        Conv::sharing(isa, shape, layout, wei.into(), bias, None)
    }

    /// As [`Conv::new`], with weights that a wider one has packed, where there is one.
    pub fn sharing(
        isa: Isa,
        shape: ConvShape,
        layout: SrcLayout,
        wei: Source<'_>,
        bias: Option<&[f32]>,
        share: Option<&Share>,
    ) -> Conv {
        shape.check();
        let ConvShape { ic, oc, kh, kw, g, .. } = shape;
        let (l, taps, icg, ocg) = (isa.lanes(), kh * kw, ic / g, oc / g);
        assert_eq!(wei.count(), oc * icg * taps, "{shape:?}: weights");
        assert!(bias.is_none_or(|b| b.len() == oc), "{shape:?}: bias");
        let unpadded = shape.ph + shape.pw + shape.ph_end + shape.pw_end == 0;
        let kind = match layout {
            SrcLayout::Plain => {
                assert_eq!(g, 1, "{shape:?}: a plain source has one group");
                Kind::Plain
            }
            SrcLayout::Blocked if shape.is_separate() => Kind::Depthwise,
            SrcLayout::Blocked if taps == 1 && shape.sh * shape.sw == 1 && unpadded => Kind::Pointwise,
            SrcLayout::Blocked => Kind::Direct,
        };
        let ocb = oc.div_ceil(l);
        let mut padded = Pages::part(ocb.next_multiple_of(2) * l);
        if let Some(b) = bias {
            padded[..oc].copy_from_slice(b);
        }
        let read = |w: [u8; 4], _| f32::from_ne_bytes(w);
        if kind == Kind::Depthwise {
            let len = ocb * taps * l;
            let packed = wei.packed(("windows", l, taps, oc), len, |wei| {
                let mut packed = Pages::part(len);
                pack_windows(taps, l, wei, read, &mut packed);
                packed
            });
            let packed = Packed::whole(packed, &[], None);
            return Conv { shape, isa, kind, packed, bias: padded, pairs: Vec::new(), pre: None, cut: OnceLock::new() };
        }
        // Input blocks that outputs block..block + nb need, and the channels used of the last one.
        let reach = |block: usize, nb: usize| {
            let (first, last) = (block * l / ocg, (((block + nb) * l).min(oc) - 1) / ocg);
            let (c0, c1) = (first * icg, (last + 1) * icg);
            (c0 / l, c1.div_ceil(l), (c1 - 1) % l + 1)
        };
        let panel_len = |p: &Pair| match kind {
            Kind::Plain => panel_wei_len(isa, p.nb, 1, 1, taps * ic),
            _ => panel_wei_len(isa, p.nb, p.icb.1 - p.icb.0, p.c_last, taps),
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
            let pair = Pair { block, nb, icb, c_last, wei: len, own: false };
            len += panel_len(&pair);
            pairs.push(pair);
            block += nb;
        }
        // A plain source's panels are all there is of few channels, and groups differ in how blocks meet.
        let share = share.filter(|_| kind != Kind::Plain && g == 1);
        let form = Form { isa, winograd: 0, taps };
        let pack = |pairs: &[Pair], len: usize, wei: &[[u8; 4]]| {
            let mut packed = Pages::part(len);
            pack(&shape, kind, l, wei, read, pairs, &mut packed);
            packed
        };
        let packed = match share.and_then(|s| s.lead(form)) {
            Some(lead) => {
                let len = lead.place(&mut pairs, panel_len);
                let own: Vec<Pair> = pairs.iter().copied().filter(|p| p.own).collect();
                Packed::lent(lead, pack(&own, len, wei.values()), &pairs, l)
            }
            None => {
                let packed = wei.packed(("panels", isa, kind, [ic, oc, kh, kw, g]), len, |wei| pack(&pairs, len, wei));
                Packed::whole(packed, &pairs, share.map(|s| (s, form)))
            }
        };
        Conv { shape, isa, kind, packed, bias: padded, pairs, pre: None, cut: OnceLock::new() }
    }

    /// With a map of the source on the way in: `act(x · scale[c] + shift[c])`. Panics unless the convolution is pointwise.
    pub fn with_pre(mut self, affine: Option<(&[f32], &[f32])>, act: Act) -> Conv {
        assert_eq!(self.kind, Kind::Pointwise, "{:?}: a map of the source of a window", self.shape);
        let ic = self.shape.ic;
        let padded = |v: &[f32]| {
            let mut out = Pages::part(ic.next_multiple_of(self.isa.lanes()));
            out[..ic].copy_from_slice(v);
            out
        };
        self.pre = Some(PreMap { affine: affine.map(|(a, b)| (padded(a), padded(b))), act });
        self
    }

    /// Puts other weights, times a factor per output channel, in the place of those it was made with. Panics if others share them.
    pub fn repack(&mut self, pool: &Pool, wei: &[f32], scale: Option<&[f32]>) {
        let (s, kind, l) = (self.shape, self.kind, self.isa.lanes());
        assert_eq!(wei.len(), s.oc * (s.ic / s.g) * s.kh * s.kw, "{s:?}: weights");
        assert!(scale.is_none_or(|f| f.len() == s.oc), "{s:?}: factors");
        let read = |w: f32, channel: usize| scale.map_or(w, |f| w * f[channel]);
        let Some(packed) = self.packed.wei_mut() else { panic!("{s:?}: weights that others share") };
        if kind == Kind::Depthwise {
            return pack_windows(s.kh * s.kw, l, wei, read, packed);
        }
        // Pairs of one group lie one after the other and are of one length, but for the last.
        let apart = self.pairs.get(1).map_or(packed.len(), |p| p.wei);
        if s.g > 1 || apart == 0 {
            return pack(&s, kind, l, wei, read, &self.pairs, packed);
        }
        pool.for_chunks(packed, apart, |i, to, _| {
            let Some(pair) = self.pairs.get(i) else { return };
            pack(&s, kind, l, wei, read, &[Pair { wei: 0, ..*pair }], to);
        });
    }

    /// The shape.
    pub fn shape(&self) -> &ConvShape {
        &self.shape
    }
    /// The instruction set; its lanes are the block of the source and destination layouts.
    pub fn isa(&self) -> Isa {
        self.isa
    }
    /// Bytes of packed weights and bias, without what a wider one holds.
    pub fn packed_bytes(&self) -> usize {
        self.packed.bytes() + 4 * self.bias.len()
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
        // Of few pixels, such as those of squeeze-excite, reading the weights is the work.
        (direct_cost(&self.shape) as usize / MIN_TASK_MADDS).clamp(1, most)
    }

    /// How it is cut for a number of threads.
    fn cut(&self, threads: usize, work: impl Fn() -> cut::Work) -> Cut {
        match self.cut.get_or_init(|| (threads, work().cut())) {
            (known, cut) if *known == threads => *cut,
            _ => work().cut(),
        }
    }

    /// The pairs of output blocks `first..first + len` (which starts at an even block), to be met by a source.
    fn sweep<'s>(
        &'s self,
        (first, len): (usize, usize),
        taps: &'s [usize],
        residual: Option<&'s [f32]>,
        act: Act,
    ) -> Sweep<'s> {
        let from = self.pairs.partition_point(|p| p.block < first);
        let n = self.pairs[from..].iter().take_while(|p| p.block + p.nb <= first + len).count();
        Sweep {
            isa: self.isa,
            pairs: &self.pairs[from..from + n],
            wei: self.packed.wei(),
            own: self.packed.own(),
            factors: self.packed.factors(),
            bias: Some(&self.bias),
            taps,
            plain: self.kind == Kind::Plain,
            residual,
            act,
        }
    }
}

/// Packs a window per channel, in blocks of channels; `read` tells the value of a weight of an output channel.
fn pack_windows<T: Copy>(taps: usize, l: usize, wei: &[T], read: impl Fn(T, usize) -> f32, packed: &mut [f32]) {
    for (c, window) in wei.chunks_exact(taps).enumerate() {
        for (t, &w) in window.iter().enumerate() {
            packed[((c / l) * taps + t) * l + c % l] = read(w, c);
        }
    }
}

/// Packs the weights of pairs of output blocks to where each has its place; `read` tells the value of a weight of an output channel.
fn pack<T: Copy>(
    s: &ConvShape,
    kind: Kind,
    l: usize,
    wei: &[T],
    read: impl Fn(T, usize) -> f32,
    pairs: &[Pair],
    packed: &mut [f32],
) {
    let (oc, taps, icg, ocg) = (s.oc, s.kh * s.kw, s.ic / s.g, s.oc / s.g);
    for p in pairs {
        let nr = p.nb * l;
        let width = nr.min(oc - p.block * l);
        let to = packed[p.wei..].chunks_exact_mut(nr);
        if s.g == 1 {
            // Row by row of the packed panel: where each value lies within the weights of an output channel.
            let rows = &wei[p.block * l * icg * taps..][..width * icg * taps];
            let gather = |k: usize, row: &mut [f32]| {
                let values = rows[k..].iter().step_by(icg * taps).zip(p.block * l..);
                row.iter_mut().zip(values).for_each(|(d, (w, channel))| *d = read(*w, channel));
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
                    packed[p.wei + (kb * taps * l + t * here + c % l) * nr + o] = read(w, channel);
                }
            }
        }
    }
}

mod cut;
mod depthwise;
mod direct;
mod pointwise;

#[cfg(test)]
mod tests;
