//! The register tile of matrix products: rows of A as they lie in memory × one packed panel of B.
//!
//! `dst[m][n] = Σ_k a[m][k] · b[k][n]` for all rows of a tile and one or two vectors of columns. Each step of k loads the vectors
//! of the panel's row and spreads one value of each row, read through the row's own address: rows that are contiguous in k need
//! no packing. While it works, the lines of the panel that comes next are asked for, so that weights stream from memory
//! behind the arithmetic.
//!
//! Extents are checked once per call with checked arithmetic; only pointers are used inside.

use super::{Isa, Simd, SimdOp, TileMut, dispatch};

/// One pass of a block of rows over a panel.
#[derive(Clone, Copy, Debug)]
pub struct Strip<'a> {
    /// Left operand: row `i` starts at `i · row`.
    pub a: &'a [f32],
    /// Distance between rows.
    pub row: usize,
    /// Values of k summed in this pass, at least 1.
    pub k: usize,
    /// Packed columns `[k][nb · LANES]`.
    pub wei: &'a [f32],
    /// Vectors of columns, 1 or 2.
    pub nb: usize,
    /// Start value per column, `nb · LANES`; ignored when `accumulate`.
    pub bias: Option<&'a [f32]>,
    /// Start from what the destination holds (a later part of k).
    pub accumulate: bool,
    /// Added at the end; a tensor of the destination's shape.
    pub residual: Option<&'a [f32]>,
    /// Applied last; `(-inf, inf)` changes nothing.
    pub clamp: (f32, f32),
    /// What the next pass will read of the panels.
    pub next: &'a [f32],
}

#[derive(Clone, Copy)]
struct Raw {
    a: *const f32,
    row: usize,
    k: usize,
    wei: *const f32,
    bias: *const f32,
    dst: *mut f32,
    dst_row: usize,
    res: *const f32,
    accumulate: bool,
    /// The clamp changes something.
    clamps: bool,
    lo: f32,
    hi: f32,
    next: *const f32,
    /// Lines that each tile asks for.
    next_lines: usize,
}

/// Values per cache line.
const LINE: usize = 16;
/// Rows of the register tile beside `nb` vectors of columns.
const fn rows_beside<S: Simd>(nb: usize) -> usize {
    if nb == 1 { S::MR_ONE } else { S::MR }
}

/// Run one pass over columns `col..` of the tile's only plane, all its rows; columns past the segment's end are left out.
///
/// Panics when an extent does not fit its slice.
pub fn strip(isa: Isa, p: &Strip<'_>, col: usize, dst: &mut TileMut<'_>) {
    dispatch(isa, Run { p, col, dst });
}

struct Run<'a, 'b, 'd> {
    p: &'a Strip<'b>,
    col: usize,
    dst: &'a mut TileMut<'d>,
}

impl SimdOp for Run<'_, '_, '_> {
    type Out = ();

    // Not inlined: only the tiles need the vector features, and they ask for them themselves.
    #[inline(never)]
    fn call<S: Simd>(self, s: S) {
        let Run { p, col, dst } = self;
        let l = S::LANES;
        assert!(p.nb == 1 || p.nb == 2, "strip of {} vectors", p.nb);
        assert!(dst.a_len() == 1 && col < dst.seg_len() && p.k >= 1, "strip outside its tile");
        let rows = dst.b_len();
        if rows == 0 {
            return;
        }
        let far = (rows - 1).checked_mul(p.row).and_then(|x| x.checked_add(p.k - 1));
        assert!(far.is_some_and(|i| i < p.a.len()), "strip reads outside its rows");
        let wei = p.k.checked_mul(p.nb * l);
        assert!(wei.is_some_and(|n| n <= p.wei.len()), "strip reads outside its panel");
        assert!(p.bias.is_none_or(|b| b.len() >= p.nb * l), "bias shorter than its strip");
        let (dst_row, seg) = (dst.stride_b(), dst.seg_len());
        let res = match p.residual {
            None => std::ptr::null(),
            Some(r) => {
                let end = (rows - 1).checked_mul(dst_row).and_then(|x| x.checked_add(dst.origin + seg));
                assert!(end.is_some_and(|e| e <= r.len()), "residual smaller than the destination");
                r[dst.origin + col..].as_ptr()
            }
        };
        let zeros = [0.0f32; 32];
        let width = (seg - col).min(p.nb * l);
        let most = rows_beside::<S>(p.nb);
        let tiles = rows.div_ceil(most);
        let mut raw = Raw {
            a: p.a.as_ptr(),
            row: p.row,
            k: p.k,
            wei: p.wei.as_ptr(),
            bias: p.bias.map_or(zeros.as_ptr(), <[f32]>::as_ptr),
            dst: dst.as_mut_ptr().wrapping_add(col),
            dst_row,
            res,
            accumulate: p.accumulate,
            clamps: p.clamp != (f32::NEG_INFINITY, f32::INFINITY),
            lo: p.clamp.0,
            hi: p.clamp.1,
            next: p.next.as_ptr(),
            // The last tiles may ask for lines behind the end: nothing is read.
            next_lines: (p.next.len() / LINE).div_ceil(tiles),
        };
        // Rows are dealt out evenly, so that no tile is nearly empty: first those with one more.
        let (n, larger) = (rows / tiles, rows % tiles);
        for (n, count) in [(n + 1, larger), (n, tiles - larger)] {
            if count == 0 {
                continue;
            }
            // SAFETY: rows `at..at + n · count` with `k` values, `k` panel rows and `width` columns at the destination (and the
            // residual) were checked above.
            unsafe {
                if width == p.nb * l {
                    tile_any(s, p.nb, n, count, &raw);
                } else {
                    tile_cut(s, p.nb, n, count, &raw, width);
                }
            }
            // May point past the last row after the last tile, where it is not read.
            raw.a = raw.a.wrapping_add(n * count * p.row);
            raw.dst = raw.dst.wrapping_add(n * count * dst_row);
            if !res.is_null() {
                raw.res = raw.res.wrapping_add(n * count * dst_row);
            }
            raw.next = raw.next.wrapping_add(count * raw.next_lines * LINE);
        }
    }
}

/// Tiles whose last columns do not exist: run on a copy, keep `width` columns.
///
/// # Safety
/// As [`tiles`], with `width` columns at the destination and the residual.
unsafe fn tile_cut<S: Simd>(s: S, nb: usize, n: usize, count: usize, raw: &Raw, width: usize) {
    const MAX: usize = 14 * 32;
    let nr = nb * S::LANES;
    let (mut out, mut add) = ([0.0f32; MAX], [0.0f32; MAX]);
    for t in 0..count {
        // SAFETY: n <= 14 rows of nr <= 32 values fit the copies; `width < nr` columns exist at dst and res.
        unsafe {
            let shift = t * n * raw.dst_row;
            let dst = raw.dst.add(shift);
            for i in 0..n {
                if raw.accumulate {
                    std::ptr::copy_nonoverlapping(dst.add(i * raw.dst_row), out.as_mut_ptr().add(i * nr), width);
                }
                if !raw.res.is_null() {
                    let from = raw.res.add(shift + i * raw.dst_row);
                    std::ptr::copy_nonoverlapping(from, add.as_mut_ptr().add(i * nr), width);
                }
            }
            let res = if raw.res.is_null() { raw.res } else { add.as_ptr() };
            let a = raw.a.add(t * n * raw.row);
            tile_any(s, nb, n, 1, &Raw { a, dst: out.as_mut_ptr(), dst_row: nr, res, ..*raw });
            for i in 0..n {
                std::ptr::copy_nonoverlapping(out.as_ptr().add(i * nr), dst.add(i * raw.dst_row), width);
            }
        }
    }
}

/// Pick the compiled tile of `n` rows.
///
/// # Safety
/// As [`tiles`].
#[inline(always)]
unsafe fn tile_any<S: Simd>(s: S, nb: usize, n: usize, count: usize, raw: &Raw) {
    macro_rules! by_rows {
        ($nb:literal: $($n:literal)*) => {
            match n {
                $($n => if const { $n <= rows_beside::<S>($nb) } { s.vectorize(Tiles::<$n, $nb>(raw, count)) },)*
                _ => unreachable!("tile of {n} rows"),
            }
        };
    }
    match nb {
        1 => by_rows!(1: 1 2 3 4 5 6 7 8),
        _ => by_rows!(2: 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
    }
}

struct Tiles<'a, const R: usize, const NB: usize>(&'a Raw, usize);

impl<const R: usize, const NB: usize> SimdOp for Tiles<'_, R, NB> {
    type Out = ();
    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        // SAFETY: built only by `tile_any`, whose caller vouches for the pointers.
        unsafe { tiles::<S, R, NB>(s, self.0, self.1) }
    }
}

/// `count` tiles of `R` rows × `NB` vectors in registers, one below another.
///
/// # Safety
/// `count · R` rows of `k` values are readable from `a`, `k` rows of the panel from `wei`; as many rows of `NB` vectors are
/// writable at `dst` and readable at `res` unless that is null.
#[inline(always)]
unsafe fn tiles<S: Simd, const R: usize, const NB: usize>(s: S, raw: &Raw, count: usize) {
    // SAFETY: every pointer below stays inside what the caller vouches for; prefetches never fault.
    unsafe {
        let l = S::LANES;
        // A copy: what is behind the reference would be read anew after every store.
        let raw = *raw;
        let Raw { mut a, mut dst, mut res, mut next, .. } = raw;
        for _ in 0..count {
            for _ in 0..raw.next_lines {
                s.prefetch_far(next);
                next = next.wrapping_add(LINE);
            }
            let mut acc = [[s.splat(0.0); NB]; R];
            let mut at = dst.cast_const();
            for _ in 0..R {
                // Rows of a matrix lie pages apart: no prefetcher of the hardware finds them.
                s.prefetch(at);
                s.prefetch(at.wrapping_add(NB * l - 1));
                at = at.wrapping_add(raw.dst_row);
            }
            if !raw.accumulate {
                for j in 0..NB {
                    let b = s.load_ptr(raw.bias.add(j * l));
                    for row in acc.iter_mut() {
                        row[j] = b;
                    }
                }
            }
            let mut rows = [a; R];
            for p in rows.iter_mut() {
                // Opaque: an address register per row; derived from each other they would cost instructions in the loop.
                *p = std::hint::black_box(a);
                // May point past the last row after the last tile, where it is not read.
                a = a.wrapping_add(raw.row);
            }
            let mut wei = raw.wei;
            let mut k = 0;
            // Spelled out: a loop around it would keep the accumulators in memory.
            macro_rules! steps {
                ($($i:literal)*) => {{ $(step::<S, R, NB>(s, &mut acc, &rows, k + $i, wei.add($i * NB * l));)* }};
            }
            while k + S::SPELLED <= raw.k {
                match S::SPELLED {
                    8 => steps!(0 1 2 3 4 5 6 7),
                    4 => steps!(0 1 2 3),
                    _ => steps!(0),
                }
                wei = wei.add(S::SPELLED * NB * l);
                k += S::SPELLED;
            }
            while k < raw.k {
                steps!(0);
                wei = wei.add(NB * l);
                k += 1;
            }
            if raw.accumulate {
                // Last, when it has arrived.
                let mut at = dst.cast_const();
                for row in acc.iter_mut() {
                    for (j, a) in row.iter_mut().enumerate() {
                        *a = s.add(*a, s.load_ptr(at.wrapping_add(j * l)));
                    }
                    at = at.wrapping_add(raw.dst_row);
                }
            }
            if !res.is_null() {
                for row in acc.iter_mut() {
                    for (j, a) in row.iter_mut().enumerate() {
                        *a = s.add(*a, s.load_ptr(res.wrapping_add(j * l)));
                    }
                    res = res.wrapping_add(raw.dst_row);
                }
            }
            if raw.clamps {
                let (lo, hi) = (s.splat(raw.lo), s.splat(raw.hi));
                for row in acc.iter_mut() {
                    for a in row.iter_mut() {
                        // A NaN passes both: the second operand is the one returned.
                        *a = s.min(hi, s.max(lo, *a));
                    }
                }
            }
            for row in acc {
                for (j, v) in row.into_iter().enumerate() {
                    s.store_ptr(dst.wrapping_add(j * l), v);
                }
                dst = dst.wrapping_add(raw.dst_row);
            }
        }
    }
}

/// One value of `k`: `acc[i] += rows[i][k] · wei`.
///
/// # Safety
/// Value `k` of every row and `NB` vectors at `wei` are readable.
#[inline(always)]
unsafe fn step<S: Simd, const R: usize, const NB: usize>(
    s: S,
    acc: &mut [[S::F; NB]; R],
    rows: &[*const f32; R],
    k: usize,
    wei: *const f32,
) {
    // SAFETY: as vouched for by the caller.
    unsafe {
        let mut w = [s.splat(0.0); NB];
        for (j, w) in w.iter_mut().enumerate() {
            *w = s.load_ptr(wei.add(j * S::LANES));
        }
        for i in 0..R {
            let x = s.splat(*rows[i].add(k));
            for j in 0..NB {
                acc[i][j] = s.fma(x, w[j], acc[i][j]);
            }
        }
    }
}
