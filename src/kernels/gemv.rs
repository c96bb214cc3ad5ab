//! Matrix times few vectors (m ≤ 4): bound by reading the matrix once, so it is streamed: as it lies in memory, or in panels.
//!
//! Ladder: a dot product with one sum → with four, one row of an `[n][k]` matrix after another: a single stream (on Zen 4 four rows of
//! 5 KiB at once get half the bandwidth) → of long rows four at once, since the vector no longer stays in the first-level cache →
//! `[k][n]` matrices as 8 or 16 scaled rows added to a stretch of the result that stays in the first-level cache → stretches dealt out
//! to the threads → lines asked for 2 KiB ahead, into the second-level cache: from memory 5.2 MB take 0.25 instead of 0.41 ms (into
//! the first-level cache it gains nothing; lines that are in the third-level cache already take a tenth longer) → large `[k][n]` matrices
//! in panels, one stream with its sums in registers ([`gemv_panels`]): a token of a decoder of 4.1 GB takes 0.85 of the time.

use super::epilogue::Act;
use super::gemm::PackedB;
use crate::engine::pool::{Grid, Pool};
use crate::simd::{Isa, Simd, SimdOp, dispatch};

/// Most vectors (rows of `x`) this kernel takes; beyond, packing pays.
pub const MAX_M: usize = 4;

/// How the matrix lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// `[n][k]`: a row per output.
    NK,
    /// `[k][n]`: a row per input.
    KN,
}

/// What happens to a product of few rows besides the sum.
#[derive(Clone, Copy, Debug)]
pub struct After<'a> {
    /// Factor on the product.
    pub alpha: f32,
    /// One value per column, `[n]`.
    pub bias: Option<&'a [f32]>,
    /// Added tensor of the destination's shape.
    pub residual: Option<&'a [f32]>,
    /// Applied last.
    pub act: Act,
}

impl After<'_> {
    /// Whether it is for `m` rows of `n` columns.
    pub(super) fn fits(&self, m: usize, n: usize) -> bool {
        self.bias.is_none_or(|b| b.len() == n) && self.residual.is_none_or(|r| r.len() == m * n)
    }

    /// All of it on the values `y` of the product, which begin at `at` of the destination and at column `col` of a row.
    ///
    /// Panics when the bias or the residual ends before.
    pub(super) fn apply(&self, isa: Isa, at: usize, col: usize, y: &mut [f32]) {
        if self.alpha != 1.0 {
            y.iter_mut().for_each(|y| *y *= self.alpha);
        }
        let len = y.len();
        if let Some(b) = self.bias {
            y.iter_mut().zip(&b[col..][..len]).for_each(|(y, b)| *y += b);
        }
        if let Some(r) = self.residual {
            y.iter_mut().zip(&r[at..][..len]).for_each(|(y, r)| *y += r);
        }
        self.act.apply(isa, y);
    }
}

/// Most parts for each thread: the last to be done is waited for.
pub(super) const PARTS_PER_THREAD: usize = 32;

/// Columns of a part of a `[k][n]` matrix, at the least, as long as every thread has one.
const STRETCH: usize = 1024;

/// Bytes of a matrix that stay close while several vectors are multiplied with them.
const CLOSE: usize = 128 << 10;

/// `dst[m][n] = act(alpha · x[m][k] · W + bias[n] + residual)`; the matrix as bytes of f32, at any alignment: where the file has it.
///
/// Panics on lengths that do not fit or `m > MAX_M`.
#[allow(clippy::too_many_arguments)]
pub fn gemv(
    pool: &Pool,
    isa: Isa,
    (m, k, n): (usize, usize, usize),
    x: &[f32],
    wei: &[u8],
    order: Order,
    after: After<'_>,
    dst: &mut [f32],
) {
    assert!(m <= MAX_M && x.len() == m * k && wei.len() == 4 * k * n && dst.len() == m * n, "gemv {m}x{k}x{n}");
    assert!(after.fits(m, n), "gemv bias or residual");
    if dst.is_empty() {
        return;
    }
    // A part is worth handing out from 64 KiB of matrix on.
    let most = if pool.threads() == 1 { 1 } else { PARTS_PER_THREAD * pool.threads() };
    let mut parts = (k * n / (16 << 10)).clamp(1, most);
    if order == Order::KN {
        // Rows are read in stretches of a part: short ones end before the hardware looks ahead.
        let threads = pool.threads();
        parts = parts.min((n / STRETCH / threads * threads).max(threads));
    }
    if m > 1 {
        parts = parts.max(4 * k * n / CLOSE);
    }
    let step = n.div_ceil(parts).next_multiple_of(16).max(16);
    let grid = Grid { outer: 1, a: 1, b: m, len: n, a_tile: 1, b_tile: m, len_tile: step };
    pool.for_tiles(dst, grid, |mut tile, _| {
        let (n0, width) = (tile.c0, tile.seg_len());
        for i in 0..m {
            let (x, y) = (&x[i * k..][..k], tile.seg(0, i));
            y.fill(0.0);
            match order {
                Order::NK => dispatch(isa, Dots { x, wei: &wei[4 * n0 * k..][..4 * width * k], y }),
                Order::KN => dispatch(isa, Axpys { x, wei, n, n0, y }),
            }
            after.apply(isa, i * n + n0, n0, y);
        }
    });
}

/// `dst[m][n] = act(alpha · x[m][k] · W + bias[n] + residual)`; the matrix packed in panels: a single stream, and all sums in registers.
///
/// Panics on lengths that do not fit or `m > MAX_M`.
pub fn gemv_panels(pool: &Pool, m: usize, x: &[f32], wei: &PackedB, after: After<'_>, dst: &mut [f32]) {
    let (isa, k, n) = (wei.isa(), wei.k(), wei.n());
    assert!((1..=MAX_M).contains(&m) && x.len() == m * k && dst.len() == m * n, "gemv {m}x{k}x{n}");
    assert!(after.fits(m, n), "gemv bias or residual");
    if dst.is_empty() {
        return;
    }
    let nr = isa.nr();
    let most = if pool.threads() == 1 { 1 } else { PARTS_PER_THREAD * pool.threads() };
    let parts = (k * n / (16 << 10)).clamp(1, most);
    let len_tile = n.div_ceil(parts).next_multiple_of(nr);
    let grid = Grid { outer: 1, a: 1, b: m, len: n, a_tile: 1, b_tile: m, len_tile };
    pool.for_tiles(dst, grid, |mut tile, _| {
        let (n0, width) = (tile.c0, tile.seg_len());
        for col in (0..width).step_by(nr) {
            let y = panel_dots(isa, (x, k, m), k, wei.part((n0 + col) / nr, 0..k));
            let here = nr.min(width - col);
            for (i, y) in y[..m].iter().enumerate() {
                tile.seg(0, i)[col..][..here].copy_from_slice(&y[..here]);
            }
        }
        for i in 0..m {
            after.apply(isa, i * n + n0, n0, tile.seg(0, i));
        }
    });
}

/// Most columns of a panel.
const NR: usize = 32;

/// `m` rows, `row` values apart, times a panel `[k][vectors of columns]`: their sums, row by row.
///
/// Panics on extents that do not fit, or `m > MAX_M`.
pub(super) fn panel_dots(isa: Isa, (x, row, m): (&[f32], usize, usize), k: usize, panel: &[f32]) -> [[f32; NR]; MAX_M] {
    let mut y = [[0.0; NR]; MAX_M];
    if k > 0 {
        let rows = std::array::from_fn(|i| if i < m { &x[i * row..][..k] } else { &x[..k] });
        dispatch(isa, Panels { rows, m, panel, y: &mut y });
    }
    y
}

/// `y[i] = Σ rows[i][r] · panel[r]` for the first `m`, at least one value of k.
struct Panels<'a> {
    rows: [&'a [f32]; MAX_M],
    m: usize,
    panel: &'a [f32],
    y: &'a mut [[f32; NR]; MAX_M],
}

impl SimdOp for Panels<'_> {
    type Out = ();
    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let wide = self.panel.len() / self.rows[0].len() > S::LANES;
        // Sums side by side, so that none waits for the one before.
        match (self.m, wide) {
            (1, true) => self.rows::<S, 1, 4, 2>(s),
            (1, false) => self.rows::<S, 1, 4, 1>(s),
            (2, true) => self.rows::<S, 2, 2, 2>(s),
            (2, false) => self.rows::<S, 2, 4, 1>(s),
            (3, true) => self.rows::<S, 3, 1, 2>(s),
            (3, false) => self.rows::<S, 3, 2, 1>(s),
            (_, true) => self.rows::<S, 4, 1, 2>(s),
            (_, false) => self.rows::<S, 4, 2, 1>(s),
        }
    }
}

impl Panels<'_> {
    /// `M` rows, `U` values of k at a time, `NB` vectors of columns.
    #[inline(always)]
    fn rows<S: Simd, const M: usize, const U: usize, const NB: usize>(self, s: S) {
        let Panels { rows, panel, y, .. } = self;
        let (k, l) = (rows[0].len(), S::LANES);
        let x: [&[f32]; M] = std::array::from_fn(|i| rows[i]);
        let mut acc = [[[s.splat(0.0); NB]; U]; M];
        let body = k / U * U;
        for (w, at) in panel.chunks_exact(U * NB * l).zip((0..body).step_by(U)) {
            for line in (0..4 * U * NB * l).step_by(LINE) {
                s.prefetch_far(w.as_ptr().cast::<u8>().wrapping_add(AHEAD + line).cast());
            }
            for u in 0..U {
                for (x, acc) in x.iter().zip(&mut acc) {
                    let x = s.splat(x[at + u]);
                    for (j, a) in acc[u].iter_mut().enumerate() {
                        *a = s.fma(x, s.load(&w[(u * NB + j) * l..]), *a);
                    }
                }
            }
        }
        for (w, at) in panel[body * NB * l..].chunks_exact(NB * l).zip(body..k) {
            for (x, acc) in x.iter().zip(&mut acc) {
                let x = s.splat(x[at]);
                for (j, a) in acc[0].iter_mut().enumerate() {
                    *a = s.fma(x, s.load(&w[j * l..]), *a);
                }
            }
        }
        for (y, acc) in y.iter_mut().zip(acc) {
            for j in 0..NB {
                let mut sum = acc[0][j];
                for a in &acc[1..] {
                    sum = s.add(sum, a[j]);
                }
                s.store(&mut y[j * l..], sum);
            }
        }
    }
}

/// The values of some bytes, one by one.
fn floats(bytes: &[u8]) -> impl Iterator<Item = f32> {
    bytes.as_chunks::<4>().0.iter().map(|b| f32::from_ne_bytes(*b))
}

/// `y[i] = x · wei[i]`
struct Dots<'a> {
    x: &'a [f32],
    wei: &'a [u8],
    y: &'a mut [f32],
}

impl SimdOp for Dots<'_> {
    type Out = ();
    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        match self.x.len() {
            0 => {}
            1..=SHORT => self.rows::<S, 1, 4>(s),
            _ => self.rows::<S, 4, 2>(s),
        }
    }
}

/// Bytes of a cache line.
const LINE: usize = 64;
/// Values of a result that stay in the first-level cache.
const NEAR: usize = 6144;
/// Bytes of a row that are asked for in advance, into the second-level cache: the loads of the vector and of the row together are more
/// than a processor has under way, and so are the lines that it looks ahead by itself.
const AHEAD: usize = 2048;

/// Values of a vector that stays in the first-level cache beside a row: such rows are read one after another.
const SHORT: usize = 3072;

impl Dots<'_> {
    /// `R` rows at a time, `A` sums for each.
    #[inline(always)]
    fn rows<S: Simd, const R: usize, const A: usize>(self, s: S) {
        let Dots { x, wei, y } = self;
        let (k, l) = (x.len(), S::LANES);
        let (body, rest) = x.split_at(k / (A * l) * A * l);
        let (ones, tail) = rest.split_at(rest.len() / l * l);
        let mut rows = wei.chunks_exact(4 * R * k);
        let mut out = y.chunks_exact_mut(R);
        for (w, y) in (&mut rows).zip(&mut out) {
            let w: [&[u8]; R] = std::array::from_fn(|j| &w[4 * j * k..][..4 * k]);
            let mut acc = [[s.splat(0.0); A]; R];
            for (i, x) in body.chunks_exact(A * l).enumerate() {
                for (w, acc) in w.iter().zip(&mut acc) {
                    let w = &w[4 * i * A * l..][..4 * A * l];
                    for line in (0..w.len()).step_by(LINE) {
                        s.prefetch_far(w.as_ptr().wrapping_add(AHEAD + line).cast());
                    }
                    for (j, a) in acc.iter_mut().enumerate() {
                        *a = s.fma(s.load(&x[j * l..]), s.load_bytes(&w[4 * j * l..]), *a);
                    }
                }
            }
            for ((y, w), mut acc) in y.iter_mut().zip(w).zip(acc) {
                let (w, last) = w[4 * body.len()..].split_at(4 * ones.len());
                for (x, w) in ones.chunks_exact(l).zip(w.chunks_exact(4 * l)) {
                    acc[0] = s.fma(s.load(x), s.load_bytes(w), acc[0]);
                }
                *y = total(s, acc) + dot(tail, last);
            }
        }
        for (w, y) in rows.remainder().chunks_exact(4 * k).zip(out.into_remainder()) {
            Dots { x, wei: w, y: std::slice::from_mut(y) }.rows::<S, 1, A>(s);
        }
    }
}

/// The lanes of some sums added up.
#[inline(always)]
fn total<S: Simd, const A: usize>(s: S, acc: [S::F; A]) -> f32 {
    s.reduce_add(acc.into_iter().fold(s.splat(0.0), |sum, a| s.add(sum, a)))
}

/// `x · wei`, value by value.
#[inline(always)]
fn dot(x: &[f32], wei: &[u8]) -> f32 {
    x.iter().zip(floats(wei)).map(|(x, w)| x * w).sum()
}

/// `y += Σ x[r] · wei[r][n0..]`
struct Axpys<'a> {
    x: &'a [f32],
    wei: &'a [u8],
    n: usize,
    n0: usize,
    y: &'a mut [f32],
}

impl SimdOp for Axpys<'_> {
    type Out = ();
    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        // As many rows at a time as there are registers for their factors: each stretch of the result is loaded and stored once for them.
        if S::LANES > 8 { self.rows::<S, 16>(s) } else { self.rows::<S, 8>(s) }
    }
}

impl Axpys<'_> {
    #[inline(always)]
    fn rows<S: Simd, const R: usize>(self, s: S) {
        let Axpys { x, wei, n, n0, y } = self;
        let l = S::LANES;
        for (piece, y) in y.chunks_mut(NEAR).enumerate() {
            let at = n0 + piece * NEAR;
            let here = y.len();
            let body = here / l * l;
            let row = |r: usize| &wei[4 * (r * n + at)..][..4 * here];
            let (groups, rest) = x.as_chunks::<R>();
            for (g, q) in groups.iter().enumerate() {
                let v = q.map(|q| s.splat(q));
                let w: [&[u8]; R] = std::array::from_fn(|j| row(g * R + j));
                for i in (0..body).step_by(l) {
                    let y = &mut y[i..][..l];
                    let (mut even, mut odd) = (s.load(y), s.splat(0.0));
                    if l == 16 || i % 16 == 0 {
                        for w in &w {
                            s.prefetch_far(w[4 * i..].as_ptr().wrapping_add(AHEAD).cast());
                        }
                    }
                    for j in (0..R).step_by(2) {
                        even = s.fma(v[j], s.load_bytes(&w[j][4 * i..]), even);
                        odd = s.fma(v[j + 1], s.load_bytes(&w[j + 1][4 * i..]), odd);
                    }
                    s.store(y, s.add(even, odd));
                }
                for (q, w) in q.iter().zip(w) {
                    y[body..].iter_mut().zip(floats(&w[4 * body..])).for_each(|(y, w)| *y += q * w);
                }
            }
            for (r, &q) in (groups.len() * R..).zip(rest) {
                y.iter_mut().zip(floats(row(r))).for_each(|(y, w)| *y += q * w);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::gemm::Mat;
    use crate::kernels::testing::{close, guarded, isas, values};

    #[test]
    fn both_orders_all_tails() {
        for (k, n) in [(1, 1), (7, 3), (16, 8), (33, 35), (64, 17), (301, 130), (5, 2100), (0, 4)] {
            for m in 1..=MAX_M {
                let (x, w, b) = (values(m * k, 1), values(k * n, 2), values(n, 3));
                let wt: Vec<f32> = (0..n * k).map(|i| w[(i % k) * n + i / k]).collect();
                let (res, alpha) = (values(m * n, 4), 0.5);
                let mut want = Vec::new();
                for i in 0..m {
                    for j in 0..n {
                        let sum: f64 = (0..k).map(|r| x[i * k + r] as f64 * w[r * n + j] as f64).sum();
                        want.push((alpha * sum as f32 + b[j] + res[i * n + j]).max(0.0));
                    }
                }
                let after = After { alpha, bias: Some(&b), residual: Some(&res), act: Act::Relu };
                for isa in isas() {
                    for threads in [1, 3] {
                        let pool = Pool::new(threads);
                        for (order, w) in [(Order::KN, &w), (Order::NK, &wt)] {
                            // At an odd address, as a file may have it.
                            let bytes: Vec<u8> =
                                std::iter::once(0).chain(w.iter().flat_map(|v| v.to_ne_bytes())).collect();
                            let got = guarded(m * n, |d| {
                                gemv(&pool, isa, (m, k, n), &x, &bytes[1..], order, after, d);
                            });
                            close(&got, &want, 1e-4, &format!("{isa} {m}x{k}x{n} {order:?}"));
                        }
                        let panels = PackedB::new(isa, k, n, Mat::rows(&w, k, n));
                        let got = guarded(m * n, |d| gemv_panels(&pool, m, &x, &panels, after, d));
                        close(&got, &want, 1e-4, &format!("{isa} {m}x{k}x{n} panels"));
                    }
                }
            }
        }
    }
}
