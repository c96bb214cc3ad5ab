//! The register tile all dense products share: pixels (or rows) × two vectors of outputs.
//!
//! `dst[px][o] = Σ_k src[px][k] · wei[k][o]`, where `k` walks blocks of channels and, for convolutions, the taps of
//! the window as plain offsets into the source. A pointwise convolution has one tap, a matrix product is a
//! pointwise convolution over rows, a k×k convolution has k·k taps: all run through [`panel`].
//!
//! Ladder: scalar loops → one vector of outputs → `MR` × 2 vectors held in registers, one broadcast feeding two
//! FMAs (AVX2 6×2 of 16 registers, AVX-512 14×2 of 32) → pixels split evenly so that no tile is nearly empty.
//!
//! Extents are checked once per call with checked arithmetic; only pointers are used inside.

use super::{Isa, Simd, SimdOp, TileMut, dispatch};

/// Where the products of a panel come from.
#[derive(Clone, Copy, Debug)]
pub struct PanelSrc<'a> {
    /// Source values.
    pub src: &'a [f32],
    /// Index of pixel 0 of row 0 at tap offset 0, channel block 0.
    pub base: usize,
    /// Distance between rows of pixels ([`PanelDst::Planes`] only).
    pub row_stride: usize,
    /// Distance between channel blocks.
    pub kb_stride: usize,
    /// Channel blocks to sum over.
    pub kb: usize,
    /// Channels used of the last block, `1..=LANES` (the others are not even read).
    pub c_last: usize,
    /// Offsets of the window's taps; `[0]` for products without a window.
    pub taps: &'a [usize],
    /// `false`: pixels are `LANES` apart and hold one block of channels. `true`: pixels are 1 apart, each tap is
    /// one value (`kb` and `c_last` are 1).
    pub plain: bool,
}

/// How a tile's segments are used by a panel of `nb` vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PanelDst {
    /// Segment `(a, b)` = the `LANES` values of block `a`, pixel `b`. The panel writes blocks `block..block + nb`.
    Pixels {
        /// First block, within the tile.
        block: usize,
    },
    /// Segment `(a, b)` = output row `b` of block `a`, `LANES` per pixel. The panel writes `block..block + nb`.
    Planes {
        /// First block, within the tile.
        block: usize,
    },
    /// Segment `(0, b)` = row `b` of a matrix. The panel writes columns `col..`, cut at the segment's end.
    Columns {
        /// First column, within the tile.
        col: usize,
    },
}

/// One pass over a panel of weights.
#[derive(Clone, Copy, Debug)]
pub struct Panel<'a> {
    /// Source of the products.
    pub from: PanelSrc<'a>,
    /// Packed weights `[kb][tap][c][nb * LANES]`; the last block has `c_last` channels.
    pub wei: &'a [f32],
    /// Vectors of outputs, 1 or 2.
    pub nb: usize,
    /// Start value per output, `nb * LANES`; ignored when `accumulate`.
    pub bias: Option<&'a [f32]>,
    /// Start from what the destination holds (a later block of channels).
    pub accumulate: bool,
    /// Added at the end; a tensor of the destination's shape.
    pub residual: Option<&'a [f32]>,
    /// Applied last; `(-inf, inf)` changes nothing.
    pub clamp: (f32, f32),
    /// What the next pass will read of the weights: asked for while this one works.
    pub next: &'a [f32],
}

/// Values per cache line.
const LINE: usize = 16;
/// Blocks of channels × taps from which on a tile asks for what comes next as it goes.
const LONG: usize = 12;
/// Pixels per tile of a plain source, largest first.
const PLAIN_SHAPES: [usize; 5] = [14, 6, 4, 2, 1];

#[derive(Clone, Copy)]
struct Raw {
    wei: *const f32,
    bias: *const f32,
    taps: *const usize,
    n_taps: usize,
    kb: usize,
    kb_stride: usize,
    c_last: usize,
    dst_px: usize,
    dst_blk: usize,
    accumulate: bool,
    lo: f32,
    hi: f32,
    next: *const f32,
    next_lines: usize,
}

/// Values of packed weights a pass needs.
pub fn panel_wei_len(isa: Isa, nb: usize, kb: usize, c_last: usize, taps: usize) -> usize {
    if kb == 0 { 0 } else { ((kb - 1) * isa.lanes() + c_last) * taps * nb * isa.lanes() }
}

/// Run one pass: `dst = clamp(start + Σ src · wei + residual)` over every pixel of the tile.
///
/// Panics when an extent does not fit its slice.
pub fn panel(isa: Isa, p: &Panel<'_>, to: PanelDst, dst: &mut TileMut<'_>) {
    dispatch(isa, Run { p, to, dst });
}

struct Run<'a, 'b, 'd> {
    p: &'a Panel<'b>,
    to: PanelDst,
    dst: &'a mut TileMut<'d>,
}

/// `base + (n-1)·stride` terms summed, or a panic on overflow.
fn last_index(base: usize, terms: &[(usize, usize)]) -> usize {
    terms.iter().fold(base, |at, &(n, stride)| {
        let step = (n - 1).checked_mul(stride).expect("panel extent overflows");
        at.checked_add(step).expect("panel extent overflows")
    })
}

impl SimdOp for Run<'_, '_, '_> {
    type Out = ();

    // Not inlined: only the tiles need the vector features, and they ask for them themselves.
    #[inline(never)]
    fn call<S: Simd>(self, s: S) {
        let Run { p, to, dst } = self;
        let l = S::LANES;
        let PanelSrc { src, base, row_stride, kb_stride, kb, c_last, taps, plain } = p.from;
        assert!(p.nb == 1 || p.nb == 2, "panel of {} vectors", p.nb);
        let (rows, px, px_stride) = match to {
            PanelDst::Pixels { block } => {
                assert!(dst.seg_len() == l && block + p.nb <= dst.a_len(), "panel outside its tile");
                (1, dst.b_len(), dst.stride_b())
            }
            PanelDst::Planes { block } => {
                assert!(dst.seg_len().is_multiple_of(l) && block + p.nb <= dst.a_len(), "panel outside its tile");
                let (rows, px) = (dst.b_len(), dst.seg_len() / l);
                // Rows that follow each other on both sides are one row: fewer tiles that are not full.
                let follow = row_stride == px * if plain { 1 } else { l } && dst.is_contiguous();
                if follow { (1, rows * px, l) } else { (rows, px, l) }
            }
            PanelDst::Columns { col } => {
                assert!(dst.a_len() == 1 && col < dst.seg_len(), "panel outside its tile");
                (1, dst.b_len(), dst.stride_b())
            }
        };
        if rows == 0 || px == 0 {
            return;
        }
        // Everything read below is inside its slice.
        assert!(kb >= 1 && (1..=l).contains(&c_last) && !taps.is_empty());
        assert!(!plain || (kb == 1 && c_last == 1), "plain sources have one channel per tap");
        let src_px = if plain { 1 } else { l };
        let far_tap = taps.iter().copied().max().unwrap_or(0);
        let mut far = last_index(base, &[(rows, row_stride), (px, src_px)]);
        far = far.checked_add(far_tap).expect("panel extent overflows");
        // The furthest value is in the last block, or in the one before when that is read in full.
        let in_last = last_index(far, &[(kb, kb_stride)]).checked_add(c_last - 1);
        assert!(in_last.is_some_and(|i| i < src.len()), "panel reads outside its source");
        if kb > 1 {
            let in_full = last_index(far, &[(kb - 1, kb_stride)]).checked_add(l - 1);
            assert!(in_full.is_some_and(|i| i < src.len()), "panel reads outside its source");
        }
        let wei_len = last_index(c_last, &[(kb, l)])
            .checked_mul(taps.len())
            .and_then(|n| n.checked_mul(p.nb * l))
            .expect("panel extent overflows");
        assert!(p.wei.len() >= wei_len, "panel reads outside its weights");
        assert!(p.bias.is_none_or(|b| b.len() >= p.nb * l), "bias shorter than its panel");
        let zeros = [0.0f32; 64];
        let (dst_blk, offset) = match to {
            PanelDst::Pixels { block } | PanelDst::Planes { block } => (dst.stride_a(), block * dst.stride_a()),
            PanelDst::Columns { col } => (l, col),
        };
        let (sa, sb, seg) = (dst.stride_a(), dst.stride_b(), dst.seg_len());
        let res = match p.residual {
            None => std::ptr::null(),
            Some(r) => {
                let end = last_index(dst.origin, &[(dst.a_len(), sa), (dst.b_len(), sb)]).checked_add(seg);
                assert!(end.is_some_and(|e| e <= r.len()), "residual smaller than the destination");
                r[dst.origin..].as_ptr()
            }
        };
        let mut raw = Raw {
            wei: p.wei.as_ptr(),
            bias: p.bias.map_or(zeros.as_ptr(), <[f32]>::as_ptr),
            taps: taps.as_ptr(),
            n_taps: taps.len(),
            kb,
            kb_stride,
            c_last,
            dst_px: px_stride,
            dst_blk,
            accumulate: p.accumulate,
            lo: p.clamp.0,
            hi: p.clamp.1,
            next: p.next.as_ptr(),
            next_lines: 0,
        };
        // Columns of the last vector(s) that exist, when the segment ends inside the panel.
        let cut = match to {
            PanelDst::Columns { col } if col + p.nb * l > seg => Some(seg - col),
            _ => None,
        };
        let most = if p.nb == 1 { S::MR_ONE } else { S::MR };
        let tiles = px.div_ceil(most);
        // Lines of the next weights for each tile to ask for.
        let lines = (p.next.len() / LINE).div_ceil(tiles * rows);
        let mut asked = 0;
        for row in 0..rows {
            let mut at = 0;
            let mut t = 0;
            while at < px {
                let n = if plain {
                    // Few shapes: the plain form is for first layers alone.
                    PLAIN_SHAPES.into_iter().find(|&n| n <= most.min(px - at)).unwrap_or(1)
                } else {
                    px / tiles + usize::from(t < px % tiles)
                };
                t += 1;
                raw.next_lines = lines.min(p.next.len() / LINE - asked);
                raw.next = p.next[asked * LINE..].as_ptr();
                asked += raw.next_lines;
                // SAFETY: `row < rows`, `at + n <= px`: inside what was checked above for the source, and inside
                // the tile's own segments for the destination and the residual (null only when absent).
                unsafe {
                    let from = src.as_ptr().add(base + row * row_stride + at * src_px);
                    let shift = offset + row * sb * usize::from(rows > 1) + at * px_stride;
                    let into = dst.as_mut_ptr().add(shift);
                    let add = if res.is_null() { res } else { res.add(shift) };
                    match cut {
                        None => tile_any(s, p.nb, plain, n, &raw, from, into, add),
                        Some(width) => tile_cut(s, p.nb, plain, n, &raw, from, into, add, width),
                    }
                }
                at += n;
            }
        }
    }
}

/// A tile whose last columns do not exist: run on a copy, keep `width` columns.
///
/// # Safety
/// As [`tile`], with `width` columns at `dst` and `res`.
#[allow(clippy::too_many_arguments)]
unsafe fn tile_cut<S: Simd>(
    s: S,
    nb: usize,
    plain: bool,
    n: usize,
    raw: &Raw,
    src: *const f32,
    dst: *mut f32,
    res: *const f32,
    width: usize,
) {
    const MAX: usize = 14 * 32;
    let nr = nb * S::LANES;
    let (mut out, mut add) = ([0.0f32; MAX], [0.0f32; MAX]);
    // SAFETY: n <= 14 rows of nr <= 32 values fit the copies; `width < nr` columns exist at dst and res.
    unsafe {
        for i in 0..n {
            if raw.accumulate {
                std::ptr::copy_nonoverlapping(dst.add(i * raw.dst_px), out.as_mut_ptr().add(i * nr), width);
            }
            if !res.is_null() {
                std::ptr::copy_nonoverlapping(res.add(i * raw.dst_px), add.as_mut_ptr().add(i * nr), width);
            }
        }
        let local = Raw { dst_px: nr, dst_blk: S::LANES, ..*raw };
        let add = if res.is_null() { res } else { add.as_ptr() };
        tile_any(s, nb, plain, n, &local, src, out.as_mut_ptr(), add);
        for i in 0..n {
            std::ptr::copy_nonoverlapping(out.as_ptr().add(i * nr), dst.add(i * raw.dst_px), width);
        }
    }
}

/// Pick the compiled tile of `n` pixels.
///
/// # Safety
/// As [`tile`].
#[allow(clippy::too_many_arguments)]
#[inline(always)]
unsafe fn tile_any<S: Simd>(
    s: S,
    nb: usize,
    plain: bool,
    n: usize,
    raw: &Raw,
    src: *const f32,
    dst: *mut f32,
    res: *const f32,
) {
    macro_rules! by_px {
        ($nb:literal, $plain:literal: $($n:literal)*) => {
            match n {
                $($n => if const { $n <= if $nb == 1 { S::MR_ONE } else { S::MR } } {
                    s.vectorize(Tile::<$n, $nb, $plain> { raw, src, dst, res })
                },)*
                _ => unreachable!("tile of {n} pixels"),
            }
        };
    }
    match (nb, plain) {
        (1, false) => by_px!(1, false: 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
        (2, false) => by_px!(2, false: 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
        (1, true) => by_px!(1, true: 1 2 4 6 14),
        _ => by_px!(2, true: 1 2 4 6 14),
    }
}

struct Tile<'a, const PX: usize, const NB: usize, const PLAIN: bool> {
    raw: &'a Raw,
    src: *const f32,
    dst: *mut f32,
    res: *const f32,
}

impl<const PX: usize, const NB: usize, const PLAIN: bool> SimdOp for Tile<'_, PX, NB, PLAIN> {
    type Out = ();
    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        // SAFETY: built only by `tile_any`, whose caller vouches for the pointers.
        unsafe { tile::<S, PX, NB, PLAIN>(s, self.raw, self.src, self.dst, self.res) }
    }
}

/// `PX` pixels × `NB` vectors in registers.
///
/// # Safety
/// All pixels, blocks, taps and weights that `raw` describes are readable from `src`; `PX × NB` vectors are
/// writable from `dst` at its strides and readable from `res` unless that is null.
#[inline(always)]
unsafe fn tile<S: Simd, const PX: usize, const NB: usize, const PLAIN: bool>(
    s: S,
    raw: &Raw,
    src: *const f32,
    dst: *mut f32,
    res: *const f32,
) {
    // SAFETY: every pointer below stays inside what the caller vouches for.
    unsafe {
        let l = S::LANES;
        // The next weights are asked for bit by bit: a burst would fill the queue of outstanding misses and stall the source's.
        let (mut next, mut per_tap) = (raw.next, 0);
        let long = !PLAIN && raw.kb * raw.n_taps > LONG;
        if long {
            per_tap = raw.next_lines.div_ceil(raw.kb * raw.n_taps);
        } else {
            for i in 0..raw.next_lines {
                s.prefetch_far(next.wrapping_add(i * LINE));
            }
        }
        let mut acc = [[s.splat(0.0); NB]; PX];
        if raw.accumulate {
            for (i, row) in acc.iter_mut().enumerate() {
                for (j, a) in row.iter_mut().enumerate() {
                    *a = s.load_ptr(dst.add(i * raw.dst_px + j * raw.dst_blk));
                }
            }
        } else {
            for j in 0..NB {
                let b = s.load_ptr(raw.bias.add(j * l));
                for row in acc.iter_mut() {
                    row[j] = b;
                }
            }
        }
        let mut wei = raw.wei;
        if PLAIN {
            for t in 0..raw.n_taps {
                step::<S, PX, NB>(s, &mut acc, src.add(*raw.taps.add(t)), 1, wei);
                wei = wei.add(NB * l);
            }
        } else {
            let mut block = src;
            for kb in 0..raw.kb {
                let cn = if kb + 1 == raw.kb { raw.c_last } else { l };
                if long {
                    // Blocks lie a map apart: no prefetcher of the hardware follows from one to the next.
                    let ahead = block.wrapping_add(raw.kb_stride);
                    for i in 0..(PX * l).div_ceil(LINE) {
                        s.prefetch(ahead.wrapping_add(i * LINE));
                    }
                }
                for t in 0..raw.n_taps {
                    for i in 0..per_tap {
                        s.prefetch_far(next.wrapping_add(i * LINE));
                    }
                    next = next.wrapping_add(per_tap * LINE);
                    let at = block.add(*raw.taps.add(t));
                    let mut c = 0;
                    // Spelled out: whole blocks are the rule.
                    while c + 4 <= cn {
                        step::<S, PX, NB>(s, &mut acc, at.add(c), l, wei);
                        step::<S, PX, NB>(s, &mut acc, at.add(c + 1), l, wei.add(NB * l));
                        step::<S, PX, NB>(s, &mut acc, at.add(c + 2), l, wei.add(2 * NB * l));
                        step::<S, PX, NB>(s, &mut acc, at.add(c + 3), l, wei.add(3 * NB * l));
                        wei = wei.add(4 * NB * l);
                        c += 4;
                    }
                    while c < cn {
                        step::<S, PX, NB>(s, &mut acc, at.add(c), l, wei);
                        wei = wei.add(NB * l);
                        c += 1;
                    }
                }
                block = block.wrapping_add(raw.kb_stride);
            }
        }
        let (lo, hi) = (s.splat(raw.lo), s.splat(raw.hi));
        for (i, row) in acc.into_iter().enumerate() {
            for (j, mut v) in row.into_iter().enumerate() {
                let at = i * raw.dst_px + j * raw.dst_blk;
                if !res.is_null() {
                    v = s.add(v, s.load_ptr(res.add(at)));
                }
                // A NaN passes both: the second operand is the one returned.
                s.store_ptr(dst.add(at), s.min(hi, s.max(lo, v)));
            }
        }
    }
}

/// One value of `k`: `acc[px] += src[px] · wei`.
///
/// # Safety
/// `PX` values `stride` apart are readable from `src`, `NB` vectors from `wei`.
#[inline(always)]
unsafe fn step<S: Simd, const PX: usize, const NB: usize>(
    s: S,
    acc: &mut [[S::F; NB]; PX],
    src: *const f32,
    stride: usize,
    wei: *const f32,
) {
    // SAFETY: as vouched for by the caller.
    unsafe {
        let mut w = [s.splat(0.0); NB];
        for (j, w) in w.iter_mut().enumerate() {
            *w = s.load_ptr(wei.add(j * S::LANES));
        }
        for (i, row) in acc.iter_mut().enumerate() {
            let x = s.splat(*src.add(i * stride));
            for (a, w) in row.iter_mut().zip(w) {
                *a = s.fma(x, w, *a);
            }
        }
    }
}
