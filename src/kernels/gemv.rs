//! Matrix times few vectors (m ≤ 4): bound by reading the matrix once, so it is streamed as it lies in memory.
//!
//! Ladder: one dot product at a time → four rows of an `[n][k]` matrix at once, each value of the vector loaded once
//! for the four → `[k][n]` matrices as four scaled rows added to a stretch of the result that stays in the
//! first-level cache → stretches dealt out to the threads.

use super::epilogue::Act;
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
    assert!(after.bias.is_none_or(|b| b.len() == n), "gemv bias");
    assert!(after.residual.is_none_or(|r| r.len() == m * n), "gemv residual");
    if dst.is_empty() {
        return;
    }
    // A part is worth handing out from 64 KiB of matrix on.
    let most = if pool.threads() == 1 { 1 } else { 8 * pool.threads() };
    let mut parts = (k * n / (16 << 10)).clamp(1, most);
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
            if after.alpha != 1.0 {
                y.iter_mut().for_each(|y| *y *= after.alpha);
            }
            if let Some(b) = after.bias {
                y.iter_mut().zip(&b[n0..]).for_each(|(y, b)| *y += b);
            }
            if let Some(r) = after.residual {
                y.iter_mut().zip(&r[i * n + n0..]).for_each(|(y, r)| *y += r);
            }
            after.act.apply(isa, y);
        }
    });
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
        let (k, l) = (self.x.len(), S::LANES);
        if k == 0 {
            return;
        }
        let body = k / (2 * l) * 2 * l;
        let (xb, xt) = self.x.split_at(body);
        // Bytes of a pair of vectors.
        let pair = 8 * l;
        let mut rows = self.wei.chunks_exact(16 * k);
        let mut out = self.y.chunks_exact_mut(4);
        for (w, y) in (&mut rows).zip(&mut out) {
            let (w0, w) = w.split_at(4 * k);
            let (w1, w) = w.split_at(4 * k);
            let (w2, w3) = w.split_at(4 * k);
            let mut acc = [s.splat(0.0); 8];
            let four = (w0.chunks_exact(pair).zip(w1.chunks_exact(pair)))
                .zip(w2.chunks_exact(pair).zip(w3.chunks_exact(pair)));
            for (x, ((a, b), (c, d))) in xb.chunks_exact(2 * l).zip(four) {
                let (x0, x1) = (s.load(x), s.load(&x[l..]));
                for (j, w) in [a, b, c, d].into_iter().enumerate() {
                    // Some lines ahead in each row: four streams at once leave the hardware's own look-ahead short.
                    s.prefetch(w.as_ptr().wrapping_add(AHEAD).cast());
                    acc[2 * j] = s.fma(x0, s.load_bytes(w), acc[2 * j]);
                    acc[2 * j + 1] = s.fma(x1, s.load_bytes(&w[4 * l..]), acc[2 * j + 1]);
                }
            }
            for (j, w) in [w0, w1, w2, w3].into_iter().enumerate() {
                let tail: f32 = xt.iter().zip(floats(&w[4 * body..])).map(|(x, w)| x * w).sum();
                y[j] = s.reduce_add(s.add(acc[2 * j], acc[2 * j + 1])) + tail;
            }
        }
        for (w, y) in rows.remainder().chunks_exact(4 * k).zip(out.into_remainder()) {
            let mut acc = [s.splat(0.0); 2];
            for (x, w) in xb.chunks_exact(2 * l).zip(w.chunks_exact(pair)) {
                acc[0] = s.fma(s.load(x), s.load_bytes(w), acc[0]);
                acc[1] = s.fma(s.load(&x[l..]), s.load_bytes(&w[4 * l..]), acc[1]);
            }
            let tail: f32 = xt.iter().zip(floats(&w[4 * body..])).map(|(x, w)| x * w).sum();
            *y = s.reduce_add(s.add(acc[0], acc[1])) + tail;
        }
    }
}

/// Bytes a row is asked for in advance.
const AHEAD: usize = 512;

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
        let Axpys { x, wei, n, n0, y } = self;
        let l = S::LANES;
        // Stretches of the result that stay in the first-level cache.
        for (piece, y) in y.chunks_mut(2048).enumerate() {
            let at = n0 + piece * 2048;
            let here = y.len();
            let row = |r: usize| &wei[4 * (r * n + at)..][..4 * here];
            let mut fours = x.chunks_exact(4);
            let mut r = 0;
            for q in &mut fours {
                let v = [s.splat(q[0]), s.splat(q[1]), s.splat(q[2]), s.splat(q[3])];
                let w = [row(r), row(r + 1), row(r + 2), row(r + 3)];
                let [a, b, c, d] = w.map(|w| w.chunks_exact(4 * l));
                // The same stretch of the rows after these.
                let skip = 16 * n;
                for ((y, (a, b)), (c, d)) in y.chunks_exact_mut(l).zip(a.zip(b)).zip(c.zip(d)) {
                    let even = s.fma(v[0], s.load_bytes(a), s.load(y));
                    let odd = s.mul(v[1], s.load_bytes(b));
                    let (even, odd) = (s.fma(v[2], s.load_bytes(c), even), s.fma(v[3], s.load_bytes(d), odd));
                    for w in [a, b, c, d] {
                        s.prefetch(w.as_ptr().wrapping_add(skip).cast());
                    }
                    s.store(y, s.add(even, odd));
                }
                let body = y.len() / l * l;
                for i in body..y.len() {
                    let value =
                        |j: usize| f32::from_ne_bytes([w[j][4 * i], w[j][4 * i + 1], w[j][4 * i + 2], w[j][4 * i + 3]]);
                    y[i] += (0..4).map(|j| q[j] * value(j)).sum::<f32>();
                }
                r += 4;
            }
            for &q in fours.remainder() {
                y.iter_mut().zip(floats(&wei[4 * (r * n + at)..])).for_each(|(y, w)| *y += q * w);
                r += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::{close, guarded, isas, values};

    #[test]
    fn both_orders_all_tails() {
        for (k, n) in [(1, 1), (7, 3), (16, 8), (33, 35), (64, 17), (301, 130), (5, 2100), (0, 4)] {
            for m in [1, 2, 4] {
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
                    }
                }
            }
        }
    }
}
