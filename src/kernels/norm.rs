//! Normalisation of contiguous rows: LayerNorm, RMSNorm, and per channel or group of channels.
//!
//! Ladder: scalar passes → lanes with four sums in flight → mean first and then the variance of what is left over, both on a block in
//! the first-level cache, blocks of a long row put together after Chan (one pass over memory, no cancellation) → whole vectors without
//! masks, the rest of a row once → four short rows at a time → rows dealt out to the threads, a few long rows cut in parts.

use crate::engine::pool::Pool;
use crate::simd::{Isa, Simd, SimdOp, dispatch};

/// Values one task handles, about.
const TASK: usize = 16 << 10;
/// Values whose mean and variance are found together: 16 KiB, half a first-level cache.
const BLOCK: usize = 4 << 10;
/// Rows whose moments are found together.
const TOGETHER: usize = 4;
/// Parts of a row that is shared by the threads, at most.
const PARTS: usize = 256;

/// Which normalisation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Norm {
    /// (x − mean) / √(variance + eps)
    Layer {
        /// Added to the variance.
        eps: f32,
    },
    /// x / √(mean square + eps)
    Rms {
        /// Added to the mean square.
        eps: f32,
    },
}

/// `dst[rows][len] = normalise(src) · factor + offset`.
#[derive(Clone, Copy, Debug)]
pub struct Normalize<'a> {
    /// Which.
    pub norm: Norm,
    /// Row length.
    pub len: usize,
    /// Consecutive values with the same factor and offset, a divisor of `len`.
    pub plane: usize,
    /// Factors and offsets, as many of each: those of one row (`len / plane`), or of several rows that take turns.
    pub affine: Option<(&'a [f32], &'a [f32])>,
}

impl<'a> Normalize<'a> {
    /// Factors and offsets of row `r`.
    #[inline(always)]
    fn affine_of(&self, r: usize) -> Option<(&'a [f32], &'a [f32])> {
        let (gamma, beta) = self.affine?;
        let own = self.len / self.plane;
        let at = r * own % gamma.len();
        Some((&gamma[at..at + own], &beta[at..at + own]))
    }
}

/// Run over all rows. Panics on lengths that do not fit.
pub fn normalize(pool: &Pool, isa: Isa, what: Normalize<'_>, src: &[f32], dst: &mut [f32]) {
    let Normalize { len, plane, affine, .. } = what;
    assert!(src.len() == dst.len(), "normalisation of rows of {len}");
    if dst.is_empty() {
        return;
    }
    assert!(len > 0 && dst.len().is_multiple_of(len), "normalisation of rows of {len}");
    assert!(plane > 0 && len.is_multiple_of(plane), "planes of {plane} in rows of {len}");
    let fits = |(g, b): (&[f32], &[f32])| !g.is_empty() && g.len().is_multiple_of(len / plane) && b.len() == g.len();
    assert!(affine.is_none_or(fits), "factors and offsets of rows of {len}");
    if len > BLOCK && dst.len() / len < pool.threads() {
        for (r, row) in dst.chunks_exact_mut(len).enumerate() {
            let x = &src[r * len..][..len];
            let part = len.div_ceil(PARTS).max(BLOCK);
            let mut found = [Moments::default(); PARTS];
            let found = &mut found[..len.div_ceil(part)];
            pool.for_chunks(found, 1, |i, m, _| {
                m[0] = dispatch(isa, Find { norm: what.norm, x: &x[i * part..len.min((i + 1) * part)] });
            });
            let all = found.iter().fold(Moments::default(), |a, b| a.with(*b));
            let (affine, map) = (what.affine_of(r), all.map(what.norm));
            pool.for_chunks(row, part, |i, y, _| {
                let from = i * part;
                let x = &x[from..from + y.len()];
                dispatch(isa, Finish { map, plane, from, affine, x, y });
            });
        }
        return;
    }
    let rows = (TASK / len).max(1);
    pool.for_chunks(dst, rows * len, |i, part, _| {
        let first = i * rows;
        dispatch(isa, Rows { what, first, src: &src[first * len..][..part.len()], dst: part });
    });
}

/// Number, mean and sum of squared distances from the mean (of squares, for a root mean square) of some values.
#[derive(Clone, Copy, Debug, Default)]
struct Moments {
    n: f64,
    mean: f64,
    square: f64,
}

impl Moments {
    /// Of both sets of values.
    #[inline(always)]
    fn with(self, other: Moments) -> Moments {
        let n = self.n + other.n;
        if self.n == 0.0 {
            return other;
        }
        let (d, share) = (other.mean - self.mean, other.n / n);
        Moments { n, mean: self.mean + d * share, square: self.square + other.square + d * d * self.n * share }
    }

    /// What is subtracted from a value, and what the rest is multiplied with.
    #[inline(always)]
    fn map(self, norm: Norm) -> (f32, f32) {
        let (Norm::Layer { eps } | Norm::Rms { eps }) = norm;
        (self.mean as f32, 1.0 / ((self.square / self.n) as f32 + eps).sqrt())
    }
}

struct Rows<'a> {
    what: Normalize<'a>,
    first: usize,
    src: &'a [f32],
    dst: &'a mut [f32],
}

impl SimdOp for Rows<'_> {
    type Out = ();
    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let Rows { what, first, src, dst } = self;
        let Normalize { norm, len, plane, .. } = what;
        let mut r = first;
        let (mut dst, mut src) = (dst, src);
        // Short rows: what has to wait for a sum of lanes, a division or a root of one row goes on with the next.
        while len <= BLOCK && dst.len() >= TOGETHER * len {
            let maps = maps::<S>(s, norm, std::array::from_fn(|j| &src[j * len..][..len]));
            let (here, rest) = dst.split_at_mut(TOGETHER * len);
            for (y, (x, map)) in here.chunks_exact_mut(len).zip(src.chunks_exact(len).zip(maps)) {
                Finish { map, plane, from: 0, affine: what.affine_of(r), x, y }.call(s);
                r += 1;
            }
            (dst, src) = (rest, &src[TOGETHER * len..]);
        }
        for (y, x) in dst.chunks_exact_mut(len).zip(src.chunks_exact(len)) {
            let map = Find { norm, x }.call(s).map(norm);
            Finish { map, plane, from: 0, affine: what.affine_of(r), x, y }.call(s);
            r += 1;
        }
    }
}

/// The maps ([`Moments::map`]) of rows of one length, at most [`BLOCK`].
#[inline(always)]
fn maps<S: Simd>(s: S, norm: Norm, rows: [&[f32]; TOGETHER]) -> [(f32, f32); TOGETHER] {
    let (l, len) = (S::LANES, rows[0].len());
    let (whole, n) = (len / l * l, len as f32);
    let (Norm::Layer { eps } | Norm::Rms { eps }) = norm;
    let (mut mean, mut square) = ([0.0f32; TOGETHER], [0.0f32; TOGETHER]);
    if matches!(norm, Norm::Layer { .. }) {
        let mut acc = [s.splat(0.0); TOGETHER];
        for i in (0..whole).step_by(l) {
            for (a, x) in acc.iter_mut().zip(rows) {
                *a = s.add(*a, s.load(&x[i..]));
            }
        }
        for ((m, a), x) in mean.iter_mut().zip(acc).zip(rows) {
            *m = (s.reduce_add(a) + x[whole..].iter().sum::<f32>()) / n;
        }
    }
    let mut acc = [s.splat(0.0); TOGETHER];
    for i in (0..whole).step_by(l) {
        for ((a, x), m) in acc.iter_mut().zip(rows).zip(mean) {
            let d = s.sub(s.load(&x[i..]), s.splat(m));
            *a = s.fma(d, d, *a);
        }
    }
    for (((q, a), x), m) in square.iter_mut().zip(acc).zip(rows).zip(mean) {
        let mut rest = 0.0;
        for x in &x[whole..] {
            rest += (x - m) * (x - m);
        }
        *q = s.reduce_add(a) + rest;
    }
    std::array::from_fn(|j| (mean[j], 1.0 / (square[j] / n + eps).sqrt()))
}

/// The moments of values.
struct Find<'a> {
    norm: Norm,
    x: &'a [f32],
}

impl SimdOp for Find<'_> {
    type Out = Moments;
    #[inline(always)]
    fn call<S: Simd>(self, s: S) -> Moments {
        let mut all = Moments::default();
        for x in self.x.chunks(BLOCK) {
            let n = x.len() as f32;
            let here = match self.norm {
                Norm::Layer { .. } => {
                    let mean = fold(s, x, |a, x| s.add(a, x), |x| x) / n;
                    let m = s.splat(mean);
                    let square = |a, x| {
                        let d = s.sub(x, m);
                        s.fma(d, d, a)
                    };
                    let square = fold(s, x, square, |x| (x - mean) * (x - mean));
                    Moments { n: n as f64, mean: mean as f64, square: square as f64 }
                }
                Norm::Rms { .. } => {
                    let square = fold(s, x, |a, x| s.fma(x, x, a), |x| x * x);
                    Moments { n: n as f64, mean: 0.0, square: square as f64 }
                }
            };
            all = all.with(here);
        }
        all
    }
}

/// The map of a row, or of a part of it, once its moments are known.
struct Finish<'a> {
    /// Of [`Moments::map`].
    map: (f32, f32),
    plane: usize,
    /// Where in the row `x` begins.
    from: usize,
    affine: Option<(&'a [f32], &'a [f32])>,
    x: &'a [f32],
    y: &'a mut [f32],
}

impl SimdOp for Finish<'_> {
    type Out = ();
    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let Finish { map: (mean, scale), plane, from, affine, x, y } = self;
        let l = S::LANES;
        let (m, k) = (s.splat(mean), s.splat(scale));
        let Some((gamma, beta)) = affine else {
            return shift_scale(s, x, y, m, k, s.splat(0.0));
        };
        if plane > 1 {
            let mut at = 0;
            while at < y.len() {
                let c = (from + at) / plane;
                let end = ((c + 1) * plane - from).min(y.len());
                let k = s.splat(scale * gamma[c]);
                shift_scale(s, &x[at..end], &mut y[at..end], m, k, s.splat(beta[c]));
                at = end;
            }
            return;
        }
        let (gamma, beta) = (&gamma[from..from + y.len()], &beta[from..from + y.len()]);
        let one = |x, g, b| s.fma(s.mul(s.sub(x, m), k), g, b);
        let whole = y.len() / l * l;
        let (y, y_rest) = y.split_at_mut(whole);
        let vectors = x.chunks_exact(l).zip(gamma.chunks_exact(l).zip(beta.chunks_exact(l)));
        for (y, (x, (g, b))) in y.chunks_exact_mut(l).zip(vectors) {
            s.store(y, one(s.load(x), s.load(g), s.load(b)));
        }
        if !y_rest.is_empty() {
            let tail = |v: &[f32]| s.load_tail(&v[whole..]);
            s.store_tail(y_rest, one(tail(x), tail(gamma), tail(beta)));
        }
    }
}

/// `y = (x − m) · k + b`
#[inline(always)]
fn shift_scale<S: Simd>(s: S, x: &[f32], y: &mut [f32], m: S::F, k: S::F, b: S::F) {
    let l = S::LANES;
    let whole = y.len() / l * l;
    let (y, y_rest) = y.split_at_mut(whole);
    for (y, x) in y.chunks_exact_mut(l).zip(x.chunks_exact(l)) {
        s.store(y, s.fma(s.sub(s.load(x), m), k, b));
    }
    if !y_rest.is_empty() {
        s.store_tail(y_rest, s.fma(s.sub(s.load_tail(&x[whole..]), m), k, b));
    }
}

/// Sum of `f` over the values, four vectors in flight.
#[inline(always)]
fn fold<S: Simd>(s: S, x: &[f32], f: impl Fn(S::F, S::F) -> S::F, tail: impl Fn(f32) -> f32) -> f32 {
    let l = S::LANES;
    let mut acc = [s.splat(0.0); 4];
    let mut fours = x.chunks_exact(4 * l);
    for v in &mut fours {
        for (j, a) in acc.iter_mut().enumerate() {
            *a = f(*a, s.load(&v[j * l..]));
        }
    }
    let mut ones = fours.remainder().chunks_exact(l);
    for v in &mut ones {
        acc[0] = f(acc[0], s.load(v));
    }
    let mut rest = 0.0;
    for &x in ones.remainder() {
        rest += tail(x);
    }
    s.reduce_add(s.add(s.add(acc[0], acc[1]), s.add(acc[2], acc[3]))) + rest
}

/// Sum of `x`, in lanes.
pub fn sum(isa: Isa, x: &[f32]) -> f32 {
    dispatch(isa, Sum(x))
}

struct Sum<'a>(&'a [f32]);

impl SimdOp for Sum<'_> {
    type Out = f32;
    #[inline(always)]
    fn call<S: Simd>(self, s: S) -> f32 {
        fold(s, self.0, |a, x| s.add(a, x), |x| x)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::{close, guarded, isas, values};

    /// Rows that are groups of channels: `groups` rows take turns with their factors.
    fn check(rows: usize, len: usize, plane: usize, groups: usize, threads: usize) {
        let src: Vec<f32> = values(rows * len, 1).iter().map(|x| 3.0 * x + 20.0).collect();
        let own = len / plane;
        let (gamma, beta) = (values(groups * own, 3), values(groups * own, 4));
        for norm in [Norm::Layer { eps: 1e-5 }, Norm::Rms { eps: 1e-6 }] {
            for affine in [false, true] {
                let mut want = Vec::new();
                for r in 0..rows {
                    let row: Vec<f64> = src[r * len..][..len].iter().map(|&x| x as f64).collect();
                    let (mean, eps) = match norm {
                        Norm::Layer { eps } => (row.iter().sum::<f64>() / len as f64, eps),
                        Norm::Rms { eps } => (0.0, eps),
                    };
                    let var = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / len as f64;
                    for (i, x) in row.iter().enumerate() {
                        let y = (x - mean) / (var + eps as f64).sqrt();
                        let c = r % groups * own + i / plane;
                        want.push(if affine { y * gamma[c] as f64 + beta[c] as f64 } else { y } as f32);
                    }
                }
                for isa in isas() {
                    let pool = Pool::new(threads);
                    let affine = affine.then_some((&gamma[..], &beta[..]));
                    let what = Normalize { norm, len, plane, affine };
                    let got = guarded(src.len(), |d| normalize(&pool, isa, what, &src, d));
                    close(&got, &want, 3e-5, &format!("{isa} {norm:?} {rows}x{len} in {plane}, {groups} groups"));
                }
            }
        }
    }

    #[test]
    fn rows_of_any_length() {
        for (rows, len) in [(1, 1), (3, 7), (5, 64), (9, 37), (2, 131), (40, 768)] {
            check(rows, len, 1, 1, 2);
        }
    }

    #[test]
    fn channels_and_groups() {
        for (rows, len, plane, groups) in [(6, 49, 49, 3), (4, 3 * 10, 10, 2), (4, 6, 2, 1), (6, 5, 1, 3)] {
            check(rows, len, plane, groups, 2);
        }
    }

    #[test]
    fn long_rows_are_cut() {
        // Fewer rows than threads, as many, and planes that end inside a part.
        check(1, 3 * 5000, 5000, 1, 2);
        check(1, BLOCK + 1, 1, 1, 3);
        check(2, 2 * 4099, 4099, 2, 2);
        check(2, 9001, 1, 1, 3);
    }

    #[test]
    fn the_spread_of_large_values_is_kept() {
        // Halves next to 10000: sums of squares in f32 would lose them.
        let src: Vec<f32> = (0..BLOCK * 2).map(|i| 10_000.0 + (i % 2) as f32 * 0.5).collect();
        for isa in isas() {
            let what = Normalize { norm: Norm::Layer { eps: 0.0 }, len: src.len(), plane: 1, affine: None };
            let got = guarded(src.len(), |d| normalize(&Pool::new(1), isa, what, &src, d));
            assert!(got.iter().enumerate().all(|(i, y)| (y.abs() - 1.0).abs() < 0.02 && (*y > 0.0) == (i % 2 == 1)));
        }
    }

    #[test]
    fn sums() {
        for isa in isas() {
            for len in [0, 1, 9, 100] {
                let x: Vec<f32> = (0..len).map(|i| i as f32).collect();
                assert_eq!(sum(isa, &x), x.iter().sum::<f32>());
            }
        }
    }
}
