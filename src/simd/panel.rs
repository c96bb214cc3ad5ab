//! The register tile all dense products share: pixels (or rows) × two vectors of outputs.
//!
//! `dst[px][o] = Σ_k src[px][k] · wei[k][o]`, where `k` walks blocks of channels and, for convolutions, the taps of
//! the window as plain offsets into the source. A pointwise convolution has one tap, a matrix product is a
//! pointwise convolution over rows, a k×k convolution has k·k taps: all run through [`panel`].
//!
//! Ladder: scalar loops → one vector of outputs → `MR` × 2 vectors held in registers, one broadcast feeding two
//! FMAs (AVX2 6×2 of 16 registers, AVX-512 14×2 of 32) → pixels split evenly so that no tile is nearly empty → weights that are a
//! difference made by the first tile, for the others ([`panel_of_difference`]).
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
    /// How pixels lie.
    pub form: PanelForm,
}

/// How the pixels of a source lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PanelForm {
    /// `LANES` apart, each the values of one block of channels.
    Blocks,
    /// 1 apart: each tap is one value (`kb` and `c_last` are 1).
    Plain,
    /// Tile after tile of [`tiles_of`], each `[kb][pixel of the tile][LANES]`, to be read from end to end. One row, one tap,
    /// `kb_stride` is that of a tile of all pixels.
    Tiles,
}

/// Pixels of each of the tiles that `px` pixels are dealt out to, none of more than `most`: those with one more come first.
pub fn tiles_of(px: usize, most: usize) -> impl Iterator<Item = usize> {
    let tiles = px.div_ceil(most);
    (0..tiles).map(move |t| px / tiles + usize::from(t < px % tiles))
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
/// Pixels per tile of a plain source, largest first.
const PLAIN_SHAPES: [usize; 6] = [14, 7, 6, 4, 2, 1];

#[derive(Clone, Copy)]
struct Raw {
    wei: *const f32,
    bias: *const f32,
    taps: *const usize,
    n_taps: usize,
    kb: usize,
    c_last: usize,
    /// `LANES`, not known to the compiler.
    lanes: usize,
    dst_px: usize,
    dst_blk: usize,
    accumulate: bool,
    /// Pixels of the destination lie pages apart: no prefetcher of the hardware finds them.
    far: bool,
    /// The clamp changes something at its lower end.
    floors: bool,
    /// The clamp changes something at its upper end.
    caps: bool,
    lo: f32,
    hi: f32,
    next: *const f32,
    /// Lines of the next weights that each block and tap asks for; of a short tile, those that it asks for at once.
    ask: usize,
    /// Values of the next weights from a tile's share to the following one's.
    next_tile: usize,
    /// Taken from the weights ([`MAKE`] only).
    less: *const f32,
    /// Where the difference goes ([`MAKE`] only).
    made: *mut f32,
}

/// Values of packed weights a pass needs.
pub fn panel_wei_len(isa: Isa, nb: usize, kb: usize, c_last: usize, taps: usize) -> usize {
    if kb == 0 { 0 } else { ((kb - 1) * isa.lanes() + c_last) * taps * nb * isa.lanes() }
}

/// Run one pass: `dst = clamp(start + Σ src · wei + residual)` over every pixel of the tile.
///
/// Panics when an extent does not fit its slice.
pub fn panel(isa: Isa, p: &Panel<'_>, to: PanelDst, dst: &mut TileMut<'_>) {
    dispatch(isa, Run { p, making: None, to, dst });
}

/// [`panel`] with `p.wei − less` for its weights. The difference is left in `made`, which must be as long: the first tile makes it
/// as it goes, where that hides behind the arithmetic, and the others read it.
///
/// Panics as [`panel`] does, or when the source is not [`PanelForm::Tiles`] of whole vectors, with two vectors of outputs.
pub fn panel_of_difference(
    isa: Isa,
    p: &Panel<'_>,
    less: &[f32],
    made: &mut [f32],
    to: PanelDst,
    dst: &mut TileMut<'_>,
) {
    dispatch(isa, Run { p, making: Some((less, made)), to, dst });
}

struct Run<'a, 'b, 'd> {
    p: &'a Panel<'b>,
    making: Option<(&'a [f32], &'a mut [f32])>,
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
        let Run { p, making, to, dst } = self;
        let l = S::LANES;
        let PanelSrc { src, base, row_stride, kb_stride, kb, c_last, taps, form } = p.from;
        let (plain, packed) = (form == PanelForm::Plain, form == PanelForm::Tiles);
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
        assert!(!packed || (rows == 1 && !plain && taps == [0]), "packed pixels have one row and one tap");
        assert!(!packed || kb_stride == px * l, "packed pixels lie block beside block");
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
        let most = if p.nb == 1 && !packed { S::MR_ONE } else { S::MR };
        let tiles = px.div_ceil(most);
        // Lines of the next weights for each tile to ask for.
        let lines = (p.next.len() / LINE).div_ceil(tiles * rows);
        let steps = kb * taps.len();
        let mut raw = Raw {
            wei: p.wei.as_ptr(),
            bias: p.bias.map_or(zeros.as_ptr(), <[f32]>::as_ptr),
            taps: taps.as_ptr(),
            n_taps: taps.len(),
            kb,
            c_last,
            lanes: std::hint::black_box(l),
            dst_px: px_stride,
            dst_blk,
            accumulate: p.accumulate,
            far: matches!(to, PanelDst::Columns { .. }),
            floors: p.clamp.0 != f32::NEG_INFINITY,
            caps: p.clamp.1 != f32::INFINITY,
            lo: p.clamp.0,
            hi: p.clamp.1,
            next: p.next.as_ptr(),
            ask: if plain { lines } else { lines.div_ceil(steps) },
            next_tile: lines * LINE,
            less: std::ptr::null(),
            made: std::ptr::null_mut(),
        };
        if let Some((less, made)) = making {
            assert!(packed && p.nb == 2 && c_last == l, "a difference of weights for other than whole packed tiles");
            assert!(less.len() >= wei_len && made.len() >= wei_len, "a difference shorter than its panel");
            (raw.less, raw.made) = (less.as_ptr(), made.as_mut_ptr());
        }
        // Columns of the last vector(s) that exist, when the segment ends inside the panel.
        let cut = match to {
            PanelDst::Columns { col } if col + p.nb * l > seg => Some(seg - col),
            _ => None,
        };
        assert!(cut.is_none() || raw.made.is_null(), "a difference of weights for columns that do not exist");
        let form = match (plain, taps.len()) {
            (true, _) => PLAIN,
            (false, 1) => ONE,
            _ => MANY,
        };
        for row in 0..rows {
            let mut at = 0;
            while at < px {
                // Tiles of the same size that follow each other.
                let (n, count) = if plain {
                    // Few shapes: the plain form is for first layers alone.
                    let n = PLAIN_SHAPES.into_iter().find(|&n| n <= most.min(px - at)).unwrap_or(1);
                    (n, (px - at) / n)
                } else {
                    let (n, larger) = (px / tiles, px % tiles);
                    let up_to = larger * (n + 1);
                    if at < up_to { (n + 1, (up_to - at) / (n + 1)) } else { (n, (px - at) / n) }
                };
                let making = at == 0 && !raw.made.is_null();
                let (form, count) = if making { (MAKE, 1) } else { (form, count) };
                // SAFETY: `row < rows`, `at + n · count <= px`: inside what was checked above for the source, and inside
                // the tile's own segments for the destination and the residual (null only when absent).
                unsafe {
                    let from = src.as_ptr().add(base + row * row_stride + at * src_px * if packed { kb } else { 1 });
                    let (src_tile, kb_stride) = if packed { (n * kb * l, n * l) } else { (n * src_px, kb_stride) };
                    let shift = offset + row * sb * usize::from(rows > 1) + at * px_stride;
                    let into = dst.as_mut_ptr().add(shift);
                    let add = if res.is_null() { res } else { res.add(shift) };
                    match cut {
                        None => tile_any(
                            s,
                            p.nb,
                            form,
                            n,
                            &raw,
                            Ends { src: from, dst: into, res: add, count, src_tile, kb_stride },
                        ),
                        Some(width) => tile_cut(
                            s,
                            p.nb,
                            form,
                            n,
                            &raw,
                            Ends { src: from, dst: into, res: add, count, src_tile, kb_stride },
                            width,
                        ),
                    }
                }
                raw.next = raw.next.wrapping_add(count * raw.next_tile);
                at += n * count;
                if making {
                    raw.wei = raw.made;
                }
            }
        }
    }
}

/// A product without a window that reads one tap of blocks, one with a window, one of a plain source, one of the first kind that makes its
/// weights.
const ONE: u8 = 0;
const MANY: u8 = 1;
const PLAIN: u8 = 2;
const MAKE: u8 = 3;

/// Where tiles that follow each other start.
#[derive(Clone, Copy)]
struct Ends {
    src: *const f32,
    dst: *mut f32,
    res: *const f32,
    /// Tiles.
    count: usize,
    /// Distance between tiles of the source.
    src_tile: usize,
    /// Distance between channel blocks of the source.
    kb_stride: usize,
}

/// Tiles whose last columns do not exist: run on a copy, keep `width` columns.
///
/// # Safety
/// As [`tiles`], with `width` columns at `dst` and `res`.
unsafe fn tile_cut<S: Simd>(s: S, nb: usize, form: u8, n: usize, raw: &Raw, ends: Ends, width: usize) {
    const MAX: usize = 14 * 32;
    let nr = nb * S::LANES;
    let (mut out, mut add) = ([0.0f32; MAX], [0.0f32; MAX]);
    for t in 0..ends.count {
        // SAFETY: n <= 14 rows of nr <= 32 values fit the copies; `width < nr` columns exist at dst and res.
        unsafe {
            let shift = t * n * raw.dst_px;
            let dst = ends.dst.add(shift);
            let mut res = ends.res;
            for i in 0..n {
                if raw.accumulate {
                    std::ptr::copy_nonoverlapping(dst.add(i * raw.dst_px), out.as_mut_ptr().add(i * nr), width);
                }
                if !ends.res.is_null() {
                    let from = ends.res.add(shift + i * raw.dst_px);
                    std::ptr::copy_nonoverlapping(from, add.as_mut_ptr().add(i * nr), width);
                    res = add.as_ptr();
                }
            }
            let local = Raw { dst_px: nr, dst_blk: S::LANES, ..*raw };
            let one = Ends { src: ends.src.add(t * ends.src_tile), dst: out.as_mut_ptr(), res, count: 1, ..ends };
            tile_any(s, nb, form, n, &local, one);
            for i in 0..n {
                std::ptr::copy_nonoverlapping(out.as_ptr().add(i * nr), dst.add(i * raw.dst_px), width);
            }
        }
    }
}

/// Pick the compiled tile of `n` pixels.
///
/// # Safety
/// As [`tiles`].
#[inline(always)]
unsafe fn tile_any<S: Simd>(s: S, nb: usize, form: u8, n: usize, raw: &Raw, ends: Ends) {
    macro_rules! by_px {
        ($nb:literal, $form:expr => $($n:literal)*) => {
            match n {
                $($n => if const { $n <= S::MR || ($nb == 1 && $n <= S::MR_ONE) } {
                    s.vectorize(Tiles::<$n, $nb, { $form }> { raw, ends })
                },)*
                _ => unreachable!("tile of {n} pixels"),
            }
        };
    }
    match (nb, form) {
        // Rows that are laid out are laid out for two vectors.
        (1, ONE) => by_px!(1, ONE => 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
        (1, MANY) => by_px!(1, MANY => 1 2 3 4 5 6 7 8),
        (1, _) => by_px!(1, PLAIN => 1 2 4 6 7),
        (_, ONE) => by_px!(2, ONE => 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
        (_, MANY) => by_px!(2, MANY => 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
        (_, MAKE) => by_px!(2, MAKE => 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
        _ => by_px!(2, PLAIN => 1 2 4 6 7 14),
    }
}

struct Tiles<'a, const PX: usize, const NB: usize, const FORM: u8> {
    raw: &'a Raw,
    ends: Ends,
}

impl<const PX: usize, const NB: usize, const FORM: u8> SimdOp for Tiles<'_, PX, NB, FORM> {
    type Out = ();
    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        // SAFETY: built only by `tile_any`, whose caller vouches for the pointers.
        unsafe { tiles::<S, PX, NB, FORM>(s, self.raw, self.ends) }
    }
}

/// Tiles of `PX` pixels × `NB` vectors in registers, one after another.
///
/// What a neighbour on the same core takes is instructions per cycle, not arithmetic: the loops below hold little besides the
/// loads and the FMAs.
///
/// # Safety
/// All pixels, blocks, taps and weights that `raw` describes are readable from the source; of every tile `PX × NB` vectors are
/// writable at the destination's strides and readable at the residual's unless that is null. For [`MAKE`] as many values as there are
/// weights are readable at `less` and writable at `made`, which nothing else overlaps.
#[inline(always)]
unsafe fn tiles<S: Simd, const PX: usize, const NB: usize, const FORM: u8>(s: S, raw: &Raw, ends: Ends) {
    // SAFETY: every pointer below stays inside what the caller vouches for; prefetches never fault.
    unsafe {
        let l = S::LANES;
        let Ends { mut src, mut dst, mut res, count, src_tile, kb_stride } = ends;
        // A copy: what is behind the reference would be read anew after every store.
        let raw = *raw;
        let mut share = raw.next;
        for _ in 0..count {
            let mut acc = [[s.splat(0.0); NB]; PX];
            if raw.far {
                let mut at = dst.cast_const();
                for _ in 0..PX {
                    s.prefetch(at);
                    s.prefetch(at.wrapping_add(NB * l - 1));
                    at = at.wrapping_add(raw.dst_px);
                }
            }
            if !raw.accumulate {
                for j in 0..NB {
                    let b = s.load_ptr(raw.bias.add(j * l));
                    for row in acc.iter_mut() {
                        row[j] = b;
                    }
                }
            }
            let mut wei = raw.wei;
            let mut next = share;
            share = share.wrapping_add(raw.next_tile);
            if FORM == PLAIN {
                for i in 0..raw.ask {
                    s.prefetch_far(next.wrapping_add(i * LINE));
                }
                let mut t = 0;
                // Windows are three, seven (of three channels) or another multiple of three wide as a rule.
                while t + 3 <= raw.n_taps {
                    let taps = raw.taps.add(t);
                    step::<S, PX, NB>(s, &mut acc, src.add(*taps), 1, wei);
                    step::<S, PX, NB>(s, &mut acc, src.add(*taps.add(1)), 1, wei.add(NB * l));
                    step::<S, PX, NB>(s, &mut acc, src.add(*taps.add(2)), 1, wei.add(2 * NB * l));
                    wei = wei.add(3 * NB * l);
                    t += 3;
                }
                while t < raw.n_taps {
                    step::<S, PX, NB>(s, &mut acc, src.add(*raw.taps.add(t)), 1, wei);
                    wei = wei.add(NB * l);
                    t += 1;
                }
            } else {
                let mut block = if FORM != MANY { src.add(*raw.taps) } else { src };
                let (mut less, mut made) = (raw.less, raw.made);
                let full = raw.kb - usize::from(raw.c_last < l);
                for _ in 0..full {
                    // Blocks lie a map apart: no prefetcher of the hardware follows from one to the next.
                    let ahead = block.wrapping_add(kb_stride);
                    for i in 0..(PX * l).div_ceil(LINE) {
                        s.prefetch(ahead.wrapping_add(i * LINE));
                    }
                    for t in 0..if FORM != MANY { 1 } else { raw.n_taps } {
                        // The next weights are asked for bit by bit: a burst would fill the queue of outstanding misses.
                        s.prefetch_far(next);
                        for i in 1..raw.ask {
                            s.prefetch_far(next.wrapping_add(i * LINE));
                        }
                        next = next.wrapping_add(raw.ask * LINE);
                        let at = if FORM != MANY { block } else { block.add(*raw.taps.add(t)) };
                        if FORM == MAKE {
                            channels_of_difference::<S, PX, NB>(s, &mut acc, at, wei, less, made, raw.lanes);
                            (less, made) = (less.add(l * NB * l), made.add(l * NB * l));
                        } else {
                            channels::<S, PX, NB>(s, &mut acc, at, wei, raw.lanes);
                        }
                        wei = wei.add(l * NB * l);
                    }
                    block = ahead;
                }
                if FORM != MAKE && raw.c_last < l {
                    for t in 0..if FORM != MANY { 1 } else { raw.n_taps } {
                        let at = if FORM != MANY { block } else { block.add(*raw.taps.add(t)) };
                        for c in 0..raw.c_last {
                            step::<S, PX, NB>(s, &mut acc, at.add(c), l, wei);
                            wei = wei.add(NB * l);
                        }
                    }
                }
            }
            if raw.accumulate {
                // Last, when it has arrived.
                let mut at = dst.cast_const();
                for row in acc.iter_mut() {
                    for (j, a) in row.iter_mut().enumerate() {
                        *a = s.add(*a, s.load_ptr(at.wrapping_add(j * raw.dst_blk)));
                    }
                    at = at.wrapping_add(raw.dst_px);
                }
            }
            if !res.is_null() {
                for row in acc.iter_mut() {
                    for (j, a) in row.iter_mut().enumerate() {
                        *a = s.add(*a, s.load_ptr(res.wrapping_add(j * raw.dst_blk)));
                    }
                    res = res.wrapping_add(raw.dst_px);
                }
            }
            // A NaN passes both: the second operand is the one returned.
            if raw.floors {
                let lo = s.splat(raw.lo);
                for row in acc.iter_mut() {
                    for a in row.iter_mut() {
                        *a = s.max(lo, *a);
                    }
                }
            }
            if raw.caps {
                let hi = s.splat(raw.hi);
                for row in acc.iter_mut() {
                    for a in row.iter_mut() {
                        *a = s.min(hi, *a);
                    }
                }
            }
            for row in acc {
                for (j, v) in row.into_iter().enumerate() {
                    s.store_ptr(dst.wrapping_add(j * raw.dst_blk), v);
                }
                dst = dst.wrapping_add(raw.dst_px);
            }
            // May point past the end after the last tile, where nothing is read or written.
            src = src.wrapping_add(src_tile);
        }
    }
}

/// A whole block of channels: `acc[px] += Σ_c src[px][c] · wei[c]`.
///
/// # Safety
/// `PX` blocks are readable from `src`, `LANES · NB` vectors from `wei`; `lanes` is `LANES`.
#[inline(always)]
unsafe fn channels<S: Simd, const PX: usize, const NB: usize>(
    s: S,
    acc: &mut [[S::F; NB]; PX],
    src: *const f32,
    wei: *const f32,
    lanes: usize,
) {
    let l = S::LANES;
    // SAFETY: as vouched for by the caller.
    unsafe {
        // Spelled out: a loop's counter and branches would be a tenth of the instructions.
        macro_rules! steps {
            ($from:expr => $($c:literal)*) => {{
                $(step::<S, PX, NB>(s, acc, src.add($from + $c), l, wei.add(($from + $c) * NB * l));)*
            }};
        }
        // Where several turns are left, their number is not known when compiled: unrolled they would take minutes of it.
        let turns = if S::SPELLED == l { l } else { lanes };
        let mut c = 0;
        while c < turns {
            match S::SPELLED {
                8 => steps!(c => 0 1 2 3 4 5 6 7),
                4 => steps!(c => 0 1 2 3),
                _ => steps!(c => 0),
            }
            c += S::SPELLED;
        }
    }
}

/// [`channels`] with the weights `wei − less`, which are left in `made`.
///
/// # Safety
/// As [`channels`]; as many vectors are readable from `less` and writable at `made`.
#[inline(always)]
unsafe fn channels_of_difference<S: Simd, const PX: usize, const NB: usize>(
    s: S,
    acc: &mut [[S::F; NB]; PX],
    src: *const f32,
    wei: *const f32,
    less: *const f32,
    made: *mut f32,
    lanes: usize,
) {
    // SAFETY: as vouched for by the caller.
    unsafe {
        for c in 0..lanes {
            let row = c * NB * S::LANES;
            for at in (row..).step_by(S::LANES).take(NB) {
                s.store_ptr(made.add(at), s.sub(s.load_ptr(wei.add(at)), s.load_ptr(less.add(at))));
            }
            step::<S, PX, NB>(s, acc, src.add(c), S::LANES, made.add(row));
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
