//! Softmax over contiguous rows, and over an axis with others inside.
//!
//! Ladder: three scalar passes → lanes with an own exponential, the maximum found first so that nothing overflows →
//! exponentials written and summed in one pass, scaled in a second on a row that is still cached → rows of a few vectors held in
//! registers from the load to the store, the rest of a row under a mask → rows dealt out. Over an inner axis the lanes are
//! neighbouring positions, four vectors of them at a time.

use crate::engine::pool::{Grid, Pool};
use crate::simd::{Isa, Simd, SimdOp, TileMut, dispatch, math};

/// Values one task handles, about.
const TASK: usize = 8 << 10;

/// `dst[rows][len] = softmax(scale · src + mask)`, or its logarithm.
#[derive(Clone, Copy, Debug)]
pub struct Softmax<'a> {
    /// Row length.
    pub len: usize,
    /// Factor before the exponential.
    pub scale: f32,
    /// Added to row `r` after scaling: row `r / mask_repeat` (modulo its rows) of `[mask rows][len]`.
    pub mask: Option<&'a [f32]>,
    /// Consecutive rows that share a mask row, at least 1.
    pub mask_repeat: usize,
    /// Give log(softmax).
    pub log: bool,
}

impl Softmax<'_> {
    /// Plain softmax over rows of `len`.
    pub fn new(len: usize) -> Softmax<'static> {
        Softmax { len, scale: 1.0, mask: None, mask_repeat: 1, log: false }
    }
}

/// Run over all rows. Panics on lengths that do not fit.
pub fn softmax(pool: &Pool, isa: Isa, what: Softmax<'_>, src: &[f32], dst: &mut [f32]) {
    let len = what.len;
    assert!(src.len() == dst.len() && (dst.is_empty() || len > 0 && dst.len().is_multiple_of(len)), "rows of {len}");
    assert!(what.mask.is_none_or(|m| !m.is_empty() && m.len().is_multiple_of(len)), "mask of rows of {len}");
    if dst.is_empty() {
        return;
    }
    let rows = (TASK / len).max(1);
    let whole = what.scale == 1.0 && what.mask.is_none() && !what.log;
    pool.for_chunks(dst, rows * len, |i, part, _| {
        let first = i * rows;
        let src = &src[first * len..][..part.len()];
        if whole && len <= SHORT * isa.lanes() {
            return dispatch(isa, Short { len, src, dst: part });
        }
        part.copy_from_slice(src);
        dispatch(isa, Rows { what, first, dst: part });
    });
}

/// `dst[outer][len][inner]` = softmax over `len`. Panics on lengths that do not fit.
pub fn softmax_over(pool: &Pool, isa: Isa, len: usize, inner: usize, src: &[f32], dst: &mut [f32]) {
    assert!(src.len() == dst.len(), "softmax over {len} x {inner}");
    if dst.is_empty() {
        return;
    }
    assert!(dst.len().is_multiple_of(len * inner), "softmax over {len} x {inner}");
    let outer = dst.len() / (len * inner);
    let len_tile = inner.min(4 * isa.lanes());
    let grid = Grid { outer, a: 1, b: len, len: inner, a_tile: 1, b_tile: len, len_tile };
    pool.for_tiles(dst, grid, |mut tile, _| {
        let src = &src[tile.origin..];
        dispatch(isa, Columns { inner, src, dst: &mut tile });
    });
}

/// Most vectors of a row that is held in registers.
const SHORT: usize = 8;
const INDEX: [f32; 16] = [0., 1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11., 12., 13., 14., 15.];

/// Rows of at most [`SHORT`] vectors.
struct Short<'a> {
    len: usize,
    src: &'a [f32],
    dst: &'a mut [f32],
}

impl SimdOp for Short<'_> {
    type Out = ();
    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let Short { len, src, dst } = self;
        match len.div_ceil(S::LANES) {
            1 => short::<S, 1>(s, len, src, dst),
            2 => short::<S, 2>(s, len, src, dst),
            3 => short::<S, 3>(s, len, src, dst),
            4 => short::<S, 4>(s, len, src, dst),
            5 => short::<S, 5>(s, len, src, dst),
            6 => short::<S, 6>(s, len, src, dst),
            7 => short::<S, 7>(s, len, src, dst),
            _ => short::<S, 8>(s, len, src, dst),
        }
    }
}

/// Rows of `N` vectors, the last of which may have fewer values.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // all vectors alike
fn short<S: Simd, const N: usize>(s: S, len: usize, src: &[f32], dst: &mut [f32]) {
    let l = S::LANES;
    let full = (N - 1) * l;
    let rest = len - full;
    let inside = s.lt(s.load(&INDEX), s.splat(rest as f32));
    let (low, zero) = (s.splat(f32::NEG_INFINITY), s.splat(0.0));
    for (y, x) in dst.chunks_exact_mut(len).zip(src.chunks_exact(len)) {
        let (x, x_rest) = x.split_at(full);
        let (y, y_rest) = y.split_at_mut(full);
        let mut v = [zero; N];
        for j in 0..N - 1 {
            v[j] = s.load(&x[j * l..]);
        }
        v[N - 1] = s.select(inside, s.load_tail(x_rest), low);
        let mut top = v[N - 1];
        for j in 0..N - 1 {
            top = s.max(top, v[j]);
        }
        let base = s.splat(s.reduce_max(top));
        let mut sum = zero;
        for x in &mut v {
            *x = math::exp_weight(s, s.sub(*x, base));
        }
        // A row that is −inf throughout has NaN in the lanes beyond its end too.
        v[N - 1] = s.select(inside, v[N - 1], zero);
        for x in &v {
            sum = s.add(sum, *x);
        }
        let k = s.splat(1.0 / s.reduce_add(sum));
        for j in 0..N - 1 {
            s.store(&mut y[j * l..], s.mul(v[j], k));
        }
        s.store_tail(y_rest, s.mul(v[N - 1], k));
    }
}

/// Softmax down the columns of a tile.
struct Columns<'a, 'd> {
    inner: usize,
    /// From the tile's first value on.
    src: &'a [f32],
    dst: &'a mut TileMut<'d>,
}

impl SimdOp for Columns<'_, '_> {
    type Out = ();
    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let Columns { inner, src, dst } = self;
        let (l, width) = (S::LANES, dst.seg_len());
        if width == 4 * l {
            return columns::<S, 4>(s, inner, 0, 4 * l, src, dst);
        }
        for at in (0..width).step_by(l) {
            columns::<S, 1>(s, inner, at, l.min(width - at), src, dst);
        }
    }
}

/// `width` columns from `at` on: `N` vectors, or one that may have fewer.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // all vectors alike
fn columns<S: Simd, const N: usize>(s: S, inner: usize, at: usize, width: usize, src: &[f32], dst: &mut TileMut<'_>) {
    let l = S::LANES;
    let len = dst.b_len();
    let whole = width == N * l;
    let mut max = [s.splat(f32::NEG_INFINITY); N];
    let mut sum = [s.splat(0.0); N];
    for r in 0..len {
        let x = &src[r * inner + at..][..width];
        for j in 0..N {
            let v = if whole { s.load(&x[j * l..]) } else { s.load_tail(x) };
            // A NaN is lost here if a number follows; its own exponential brings it back into the sum.
            max[j] = s.max(max[j], v);
        }
    }
    for r in 0..len {
        let x = &src[r * inner + at..][..width];
        let y = &mut dst.seg(0, r)[at..at + width];
        for j in 0..N {
            let v = if whole { s.load(&x[j * l..]) } else { s.load_tail(x) };
            let e = math::exp_weight(s, s.sub(v, max[j]));
            sum[j] = s.add(sum[j], e);
            if whole { s.store(&mut y[j * l..], e) } else { s.store_tail(y, e) }
        }
    }
    for k in &mut sum {
        *k = s.div(s.splat(1.0), *k);
    }
    for r in 0..len {
        let y = &mut dst.seg(0, r)[at..at + width];
        for j in 0..N {
            let v = if whole { s.load(&y[j * l..]) } else { s.load_tail(y) };
            let v = s.mul(v, sum[j]);
            if whole { s.store(&mut y[j * l..], v) } else { s.store_tail(y, v) }
        }
    }
}

struct Rows<'a> {
    what: Softmax<'a>,
    first: usize,
    dst: &'a mut [f32],
}

impl SimdOp for Rows<'_> {
    type Out = ();
    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let Rows { what, first, dst } = self;
        let (len, l) = (what.len, S::LANES);
        for (r, row) in dst.chunks_exact_mut(len).enumerate() {
            if what.scale != 1.0 {
                row.iter_mut().for_each(|x| *x *= what.scale);
            }
            if let Some(mask) = what.mask {
                let at = (first + r) / what.mask_repeat.max(1) % (mask.len() / len);
                row.iter_mut().zip(&mask[at * len..]).for_each(|(x, m)| *x += m);
            }
            let mut top = [s.splat(f32::NEG_INFINITY); 4];
            let mut fours = row.chunks_exact(4 * l);
            for v in &mut fours {
                for (j, t) in top.iter_mut().enumerate() {
                    *t = s.max(*t, s.load(&v[j * l..]));
                }
            }
            let mut ones = fours.remainder().chunks_exact(l);
            for v in &mut ones {
                top[0] = s.max(top[0], s.load(v));
            }
            let mut max = s.reduce_max(s.max(s.max(top[0], top[1]), s.max(top[2], top[3])));
            for &x in ones.remainder() {
                max = if x > max { x } else { max };
            }
            // All −inf: every difference would be NaN; 0 gives the NaN of 0/0 only at the end, as the formula does.
            let base = s.splat(max);
            if what.log {
                let mut sum = 0.0f32;
                for v in row.chunks(l) {
                    let e = math::exp(s, s.sub(s.load_tail(v), base));
                    sum += if v.len() == l { s.reduce_add(e) } else { tail_sum(s, e, v.len()) };
                }
                let shift = s.splat(max + sum.ln());
                for v in row.chunks_mut(l) {
                    let y = s.sub(s.load_tail(v), shift);
                    s.store_tail(v, y);
                }
                continue;
            }
            let mut acc = [s.splat(0.0); 2];
            let (whole, rest) = row.split_at_mut(len / l * l);
            let mut twos = whole.chunks_exact_mut(2 * l);
            for v in &mut twos {
                let e =
                    [math::exp_weight(s, s.sub(s.load(v), base)), math::exp_weight(s, s.sub(s.load(&v[l..]), base))];
                s.store(v, e[0]);
                s.store(&mut v[l..], e[1]);
                acc = [s.add(acc[0], e[0]), s.add(acc[1], e[1])];
            }
            let one = twos.into_remainder();
            if !one.is_empty() {
                let e = math::exp_weight(s, s.sub(s.load(one), base));
                s.store(one, e);
                acc[0] = s.add(acc[0], e);
            }
            let inside = s.lt(s.load(&INDEX), s.splat(rest.len() as f32));
            let last = s.select(inside, math::exp_weight(s, s.sub(s.load_tail(rest), base)), s.splat(0.0));
            let k = s.splat(1.0 / s.reduce_add(s.add(s.add(acc[0], last), acc[1])));
            for v in whole.chunks_exact_mut(l) {
                let y = s.mul(s.load(v), k);
                s.store(v, y);
            }
            s.store_tail(rest, s.mul(last, k));
        }
    }
}

/// Sum of the first `n` lanes.
#[inline(always)]
fn tail_sum<S: Simd>(s: S, v: S::F, n: usize) -> f32 {
    let mut out = [0.0f32; 16];
    s.store(&mut out, v);
    out[..n].iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::{close, guarded, isas, values};

    #[test]
    fn rows_masks_and_logs() {
        for (rows, len) in [(1, 1), (3, 5), (4, 8), (7, 33), (30, 1000)] {
            let src: Vec<f32> = values(rows * len, 1).iter().map(|x| 30.0 * x).collect();
            let mut mask = values(2 * len, 2);
            mask[0] = f32::NEG_INFINITY;
            for (scale, with_mask, log) in [(1.0, false, false), (0.3, len > 1, false), (1.0, false, true)] {
                let mut want = Vec::new();
                for r in 0..rows {
                    let m = &mask[r / 3 % 2 * len..];
                    let x: Vec<f64> = (0..len)
                        .map(|i| src[r * len + i] as f64 * scale as f64 + if with_mask { m[i] as f64 } else { 0.0 })
                        .collect();
                    let top = x.iter().fold(f64::NEG_INFINITY, |a, &b| a.max(b));
                    let sum: f64 = x.iter().map(|v| (v - top).exp()).sum();
                    want.extend(x.iter().map(|v| if log { v - top - sum.ln() } else { (v - top).exp() / sum } as f32));
                }
                for isa in isas() {
                    let pool = Pool::new(2);
                    let what = Softmax { len, scale, mask: with_mask.then_some(&mask[..]), mask_repeat: 3, log };
                    let got = guarded(src.len(), |d| softmax(&pool, isa, what, &src, d));
                    close(&got, &want, 1e-5, &format!("{isa} {rows}x{len} {scale} {log}"));
                }
            }
        }
    }

    #[test]
    fn short_rows() {
        // Every number of vectors and of values left over, on 8 and 16 lanes; exponents beyond what f32 holds.
        for len in (1..=40).chain([48, 49, 55, 64, 65, 100, 127, 128, 129]) {
            let rows = 3;
            let mut src: Vec<f32> = values(rows * len, 5).iter().map(|x| 100.0 * x).collect();
            src[0] = f32::NEG_INFINITY;
            for isa in isas() {
                let got = guarded(src.len(), |d| softmax(&Pool::new(1), isa, Softmax::new(len), &src, d));
                close(&got, &over(&src, len, 1), 1e-5, &format!("{isa} rows of {len}"));
            }
        }
    }

    #[test]
    fn other_axes() {
        for (outer, len, inner) in
            [(1, 1, 1), (3, 50, 8), (2, 33, 20), (1, 7, 64), (2, 5, 131), (3, 4, 5), (1, 90, 200)]
        {
            let src: Vec<f32> = values(outer * len * inner, 7).iter().map(|x| 30.0 * x).collect();
            for isa in isas() {
                let got = guarded(src.len(), |d| softmax_over(&Pool::new(2), isa, len, inner, &src, d));
                close(&got, &over(&src, len, inner), 1e-5, &format!("{isa} {outer}x{len}x{inner}"));
            }
        }
    }

    fn over(src: &[f32], len: usize, inner: usize) -> Vec<f32> {
        let mut want = vec![0.0; src.len()];
        for at in (0..src.len()).filter(|i| (i / inner).is_multiple_of(len)) {
            let x: Vec<f64> = (0..len).map(|r| src[at + r * inner] as f64).collect();
            let top = x.iter().fold(f64::NEG_INFINITY, |a, &b| a.max(b));
            let sum: f64 = x.iter().map(|v| (v - top).exp()).sum();
            (0..len).for_each(|r| want[at + r * inner] = ((x[r] - top).exp() / sum) as f32);
        }
        want
    }

    #[test]
    fn rows_without_a_number() {
        for isa in isas() {
            for len in [5, 20, 300] {
                let mut src = vec![0.5; 2 * len];
                src[..len].fill(f32::NEG_INFINITY);
                let got = guarded(2 * len, |d| softmax(&Pool::new(1), isa, Softmax::new(len), &src, d));
                let other = guarded(2 * len, |d| softmax_over(&Pool::new(1), isa, len, 1, &src, d));
                for got in [got, other] {
                    assert!(got[..len].iter().all(|x| x.is_nan()), "{isa} {len}");
                    assert!(got[len..].iter().all(|x| (x * len as f32 - 1.0).abs() < 1e-5), "{isa} {len}");
                }
            }
        }
    }

    #[test]
    fn nan_spreads_over_its_axis() {
        for isa in isas() {
            let mut src = vec![0.5; 40];
            src[3] = f32::NAN;
            let got = guarded(40, |d| softmax_over(&Pool::new(1), isa, 4, 10, &src, d));
            assert!(got.iter().enumerate().all(|(i, x)| x.is_nan() == (i % 10 == 3)));
        }
    }

    #[test]
    fn nan_spreads_over_its_row() {
        for isa in isas() {
            let mut src = vec![0.5; 40];
            src[3] = f32::NAN;
            let got = guarded(40, |d| softmax(&Pool::new(1), isa, Softmax::new(20), &src, d));
            assert!(got[..20].iter().all(|x| x.is_nan()) && got[20..].iter().all(|x| (x - 0.05).abs() < 1e-6));
        }
    }
}
