//! The depthwise register tile: a run of output pixels of one channel block, taps held in registers.
//!
//! Ladder: per-pixel sums → 7 pixels at once, so that the common map widths (7, 14, 28, 56, 112) split evenly and
//! each input vector is loaded once per row and used for all its taps → a tile for each usual overhang of the window over an
//! edge, so that columns are checked one by one only for unusual paddings. The last tile of a row overlaps the one before.

use super::{Isa, Simd, SimdOp, TileMut, dispatch};

/// Pixels per tile.
const PX: usize = 7;

/// One depthwise pass over rows of one channel block.
#[derive(Clone, Copy, Debug)]
pub struct Depthwise<'a> {
    /// One plane `[ih][iw][LANES]`.
    pub src: &'a [f32],
    /// Height, width of the plane.
    pub ih: usize,
    /// Width of the plane.
    pub iw: usize,
    /// Window height and width.
    pub k: (usize, usize),
    /// Vertical and horizontal stride.
    pub stride: (usize, usize),
    /// Padding above and on the left.
    pub pad: (usize, usize),
    /// Vertical and horizontal dilation.
    pub dilation: (usize, usize),
    /// `[kh][kw][LANES]`
    pub wei: &'a [f32],
    /// `[LANES]`
    pub bias: &'a [f32],
    /// Added before the clamp; a tensor of the destination's shape.
    pub residual: Option<&'a [f32]>,
    /// Applied last.
    pub clamp: (f32, f32),
}

/// Write plane `a` of `dst` (its segments are whole output rows, the first being output row `dst.b0`).
///
/// Panics when an extent does not fit its slice.
pub fn depthwise(isa: Isa, d: &Depthwise<'_>, a: usize, dst: &mut TileMut<'_>) {
    let l = isa.lanes();
    let plane = d.ih.checked_mul(d.iw).and_then(|n| n.checked_mul(l)).expect("plane size overflows");
    assert!(d.src.len() >= plane, "depthwise reads outside its source");
    let taps = d.k.0.checked_mul(d.k.1).and_then(|n| n.checked_mul(l)).expect("window size overflows");
    assert!(d.wei.len() >= taps && d.bias.len() >= l, "depthwise reads outside its weights");
    assert!(dst.seg_len().is_multiple_of(l) && a < dst.a_len(), "depthwise outside its tile");
    assert!(d.stride.0 > 0 && d.stride.1 > 0 && d.dilation.0 > 0 && d.dilation.1 > 0);
    for n in [d.ih, d.iw, d.k.0 * d.dilation.0, d.k.1 * d.dilation.1, dst.b0 + dst.b_len(), dst.seg_len()] {
        assert!(n < 1 << 31, "depthwise extent too large");
    }
    assert!(d.stride.0 < 1 << 16 && d.stride.1 < 1 << 16 && d.pad.0 < 1 << 31 && d.pad.1 < 1 << 31);
    if let Some(r) = d.residual {
        let end = dst.origin + (dst.a_len() - 1) * dst.stride_a() + dst.b_len() * dst.stride_b();
        assert!(end <= r.len(), "residual smaller than the destination");
    }
    if dst.b_len() == 0 || dst.seg_len() == 0 {
        return;
    }
    let wide = dst.seg_len() / l >= 4 && d.dilation.1 == 1;
    macro_rules! run {
        ($k:literal, $s:literal) => {
            dispatch(isa, Plane::<$k, $s> { d, a, dst })
        };
    }
    match (d.k.1, d.stride.1) {
        (3, 1) if wide => run!(3, 1),
        (3, 2) if wide => run!(3, 2),
        (5, 1) if wide => run!(5, 1),
        (5, 2) if wide => run!(5, 2),
        (7, 1) if wide => run!(7, 1),
        (7, 2) if wide => run!(7, 2),
        _ => run!(0, 0),
    }
}

/// `K`, `SW`: window width and stride known at compile time, or 0 for any.
struct Plane<'a, 'b, 'd, const K: usize, const SW: usize> {
    d: &'a Depthwise<'b>,
    a: usize,
    dst: &'a mut TileMut<'d>,
}

/// One output row: what its tiles share.
struct Row {
    /// Input row of window row 0; may be above the plane.
    ih0: isize,
    /// Window rows inside the plane.
    kh: std::ops::Range<usize>,
    dst: *mut f32,
    res: *const f32,
}

impl<const K: usize, const SW: usize> SimdOp for Plane<'_, '_, '_, K, SW> {
    type Out = ();
    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let Plane { d, a, dst } = self;
        let ow = dst.seg_len() / S::LANES;
        let (ih, dh) = (d.ih as isize, d.dilation.0 as isize);
        for b in 0..dst.b_len() {
            let ih0 = ((dst.b0 + b) * d.stride.0) as isize - d.pad.0 as isize;
            // Rounded up; a division would cost as much as some taps.
            let rows = |n: isize| if dh == 1 { n } else { (n + dh - 1) / dh };
            let first = if ih0 < 0 { rows(-ih0) } else { 0 };
            let end = if ih0 >= ih { 0 } else { rows(ih - ih0) };
            let kh = (first as usize).min(d.k.0)..(end as usize).min(d.k.0);
            let shift = a * dst.stride_a() + b * dst.stride_b();
            let res = d.residual.map_or(std::ptr::null(), |r| r[dst.origin + shift..].as_ptr());
            let row = Row { ih0, kh, dst: dst.seg(a, b).as_mut_ptr(), res };
            if K == 0 {
                let mut at = 0;
                while at < ow {
                    let n = (ow - at).min(4);
                    // SAFETY: `at + n <= ow` pixels exist in the row; reads are checked column by column.
                    unsafe { any_tile(s, d, &row, at, n) };
                    at += n;
                }
                continue;
            }
            let mut at = 0;
            while at < ow {
                // SAFETY: `at + PX <= ow` (or 4) pixels exist in the row; `edges` names the columns that do not.
                unsafe {
                    if ow >= PX {
                        let at_here = at.min(ow - PX);
                        let col = (at_here * SW) as isize - d.pad.1 as isize;
                        let end = col + ((PX - 1) * SW + K) as isize;
                        edges::<S, K, SW>(s, d, &row, at_here, (-col).max(0), (end - d.iw as isize).max(0));
                        at += PX;
                    } else {
                        tile::<S, 4, K, SW, ANY, ANY>(s, d, &row, at.min(ow - 4));
                        at += 4;
                    }
                }
            }
        }
    }
}

/// Columns that are checked one by one.
const ANY: usize = usize::MAX;

/// The portable lanes do without: what a check costs is little beside them, and unrolled they take minutes to compile.
const fn compiled_for_edges<S: Simd>() -> bool {
    matches!(S::ISA, Isa::Avx2 | Isa::Avx512 | Isa::Neon)
}

/// The tile compiled for `left` and `right` columns of the windows that are outside the map.
///
/// # Safety
/// As [`tile`], for these columns.
#[inline(always)]
unsafe fn edges<S: Simd, const K: usize, const SW: usize>(
    s: S,
    d: &Depthwise<'_>,
    row: &Row,
    at: usize,
    left: isize,
    right: isize,
) {
    macro_rules! by_edge {
        ($(($left:literal, $right:literal) if $k:expr),*) => {
            // SAFETY: as vouched for by the caller.
            unsafe {
                match (left, right) {
                    (0, 0) => tile::<S, PX, K, SW, 0, 0>(s, d, row, at),
                    $(($left, $right) if const { $k && compiled_for_edges::<S>() } => tile::<S, PX, K, SW, $left, $right>(s, d, row, at),)*
                    _ => tile::<S, PX, K, SW, ANY, ANY>(s, d, row, at),
                }
            }
        };
    }
    // What padding to the same size leaves at the two ends of a row, and both at once where a row is one tile.
    by_edge!(
        (1, 0) if K == 3 || (K == 5 && SW == 2),
        (0, 1) if K == 3 || (K == 5 && SW == 2),
        (1, 1) if K == 3,
        (2, 0) if K == 5,
        (0, 2) if K == 5,
        (2, 2) if K == 5,
        (2, 1) if K == 5 && SW == 2,
        (1, 2) if K == 5 && SW == 2,
        (3, 0) if K == 7,
        (0, 3) if K == 7,
        (3, 3) if K == 7
    )
}

/// Add the residual, clamp, store.
///
/// # Safety
/// Pixel `px` exists in the row.
#[inline(always)]
unsafe fn finish<S: Simd>(s: S, d: &Depthwise<'_>, row: &Row, px: usize, mut v: S::F) {
    // SAFETY: as vouched for by the caller; the residual is null or as large as the destination.
    unsafe {
        if !row.res.is_null() {
            v = s.add(v, s.load_ptr(row.res.add(px * S::LANES)));
        }
        let v = s.min(s.splat(d.clamp.1), s.max(s.splat(d.clamp.0), v));
        s.store_ptr(row.dst.add(px * S::LANES), v);
    }
}

/// Whether input column `i` of a tile's `columns`, the first being `col` of a row of `width`, is in the map.
#[inline(always)]
fn exists<const LEFT: usize, const RIGHT: usize>(i: usize, columns: usize, col: isize, width: isize) -> bool {
    if LEFT == ANY {
        let here = col + i as isize;
        here >= 0 && here < width
    } else {
        i >= LEFT && i + RIGHT < columns
    }
}

/// `N` pixels from `at`, window `K` wide at stride `SW`.
///
/// # Safety
/// `at + N` pixels exist in the row. All input columns of the windows exist but the first `LEFT` and the last `RIGHT`; with
/// [`ANY`] each is checked.
#[inline(always)]
unsafe fn tile<S: Simd, const N: usize, const K: usize, const SW: usize, const LEFT: usize, const RIGHT: usize>(
    s: S,
    d: &Depthwise<'_>,
    row: &Row,
    at: usize,
) {
    // SAFETY: input rows are inside the plane by `row.kh`, columns by the caller's word or by the check; weights have
    // kh·K vectors; the pixels of the row and of the residual, null or as large as the destination, exist.
    unsafe {
        let l = S::LANES;
        let columns = (N - 1) * SW + K;
        let col = (at * SW) as isize - d.pad.1 as isize;
        let width = d.iw as isize;
        let mut acc = [s.load_ptr(d.bias.as_ptr()); N];
        let line = (row.ih0 + (row.kh.start * d.dilation.0) as isize) * d.iw as isize + col;
        let mut from = d.src.as_ptr().wrapping_offset(line * l as isize);
        let mut wei = d.wei.as_ptr().add(row.kh.start * K * l);
        let next_row = d.dilation.0 * d.iw * l;
        for _ in row.kh.clone() {
            let mut w = [s.splat(0.0); K];
            for (j, w) in w.iter_mut().enumerate() {
                *w = s.load_ptr(wei.add(j * l));
            }
            if SW == 1 {
                // Input by input: each is loaded once and used for all the outputs it reaches.
                for i in 0..columns {
                    if !exists::<LEFT, RIGHT>(i, columns, col, width) {
                        continue;
                    }
                    let x = s.load_ptr(from.wrapping_add(i * l));
                    for j in 0..K {
                        if i >= j && i - j < N {
                            acc[i - j] = s.fma(x, w[j], acc[i - j]);
                        }
                    }
                }
            } else {
                // Few outputs share an input: tap by tap, with the load as an operand.
                for (j, &w) in w.iter().enumerate() {
                    for (p, a) in acc.iter_mut().enumerate() {
                        if exists::<LEFT, RIGHT>(p * SW + j, columns, col, width) {
                            *a = s.fma(s.load_ptr(from.wrapping_add((p * SW + j) * l)), w, *a);
                        }
                    }
                }
            }
            from = from.wrapping_add(next_row);
            wei = wei.wrapping_add(K * l);
        }
        if !row.res.is_null() {
            let res = row.res.add(at * l);
            for (i, a) in acc.iter_mut().enumerate() {
                *a = s.add(*a, s.load_ptr(res.add(i * l)));
            }
        }
        let (lo, hi) = (s.splat(d.clamp.0), s.splat(d.clamp.1));
        let dst = row.dst.add(at * l);
        for (i, v) in acc.into_iter().enumerate() {
            s.store_ptr(dst.add(i * l), s.min(hi, s.max(lo, v)));
        }
    }
}

/// `n <= 4` pixels from `at`, any window.
///
/// # Safety
/// `at + n` pixels exist in the row.
#[inline(always)]
unsafe fn any_tile<S: Simd>(s: S, d: &Depthwise<'_>, row: &Row, at: usize, n: usize) {
    // SAFETY: input rows are inside the plane by `row.kh`, columns by the check; weights have kh·kw vectors.
    unsafe {
        let l = S::LANES;
        let mut acc = [s.load_ptr(d.bias.as_ptr()); 4];
        for kh in row.kh.clone() {
            let line = (row.ih0 + (kh * d.dilation.0) as isize) as usize;
            let src = d.src.as_ptr().add(line * d.iw * l);
            for kw in 0..d.k.1 {
                let w = s.load_ptr(d.wei.as_ptr().add((kh * d.k.1 + kw) * l));
                for (i, a) in acc.iter_mut().enumerate() {
                    let here = ((at + i) * d.stride.1 + kw * d.dilation.1) as isize - d.pad.1 as isize;
                    if i < n && here >= 0 && here < d.iw as isize {
                        *a = s.fma(s.load_ptr(src.add(here as usize * l)), w, *a);
                    }
                }
            }
        }
        for (i, v) in acc.into_iter().enumerate().take(n) {
            finish(s, d, row, at + i, v);
        }
    }
}
