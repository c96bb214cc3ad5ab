//! Matrix times few vectors (m ≤ 4): bound by reading the matrix once, so it is streamed as it lies in memory.
//!
//! Ladder: one dot product at a time → four rows of an `[n][k]` matrix at once, each value of the vector loaded once
//! for the four → `[k][n]` matrices as four scaled rows added to a stretch of the result that stays in the
//! first-level cache → stretches dealt out to the threads.

use super::epilogue::Act;
use crate::engine::pool::Pool;
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

/// `dst[m][n] = act(x[m][k] · W + bias[n])`.
///
/// Panics on lengths that do not fit or `m > MAX_M`.
#[allow(clippy::too_many_arguments)]
pub fn gemv(
    pool: &Pool,
    isa: Isa,
    (m, k, n): (usize, usize, usize),
    x: &[f32],
    wei: &[f32],
    order: Order,
    bias: Option<&[f32]>,
    act: Act,
    dst: &mut [f32],
) {
    assert!(m <= MAX_M && x.len() == m * k && wei.len() == k * n && dst.len() == m * n, "gemv {m}x{k}x{n}");
    assert!(bias.is_none_or(|b| b.len() == n), "gemv bias");
    // A part is worth handing out from 64 KiB of matrix on.
    let most = if pool.threads() == 1 { 1 } else { 8 * pool.threads() };
    let parts = (k * n / (16 << 10)).clamp(1, most);
    let step = n.div_ceil(parts).next_multiple_of(16).max(16);
    for (i, dst) in dst.chunks_exact_mut(n.max(1)).enumerate() {
        let x = &x[i * k..][..k];
        pool.for_chunks(dst, step, |part, y, _| {
            let n0 = part * step;
            match bias {
                Some(b) => y.copy_from_slice(&b[n0..][..y.len()]),
                None => y.fill(0.0),
            }
            match order {
                Order::NK => dispatch(isa, Dots { x, wei: &wei[n0 * k..][..y.len() * k], y }),
                Order::KN => dispatch(isa, Axpys { x, wei, n, n0, y }),
            }
            act.apply(isa, y);
        });
    }
}

/// `y[i] += x · wei[i]`
struct Dots<'a> {
    x: &'a [f32],
    wei: &'a [f32],
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
        let mut rows = self.wei.chunks_exact(4 * k);
        let mut out = self.y.chunks_exact_mut(4);
        for (w, y) in (&mut rows).zip(&mut out) {
            let (w0, w) = w.split_at(k);
            let (w1, w) = w.split_at(k);
            let (w2, w3) = w.split_at(k);
            let mut acc = [s.splat(0.0); 8];
            let four = (w0.chunks_exact(2 * l).zip(w1.chunks_exact(2 * l)))
                .zip(w2.chunks_exact(2 * l).zip(w3.chunks_exact(2 * l)));
            for (x, ((a, b), (c, d))) in xb.chunks_exact(2 * l).zip(four) {
                let (x0, x1) = (s.load(x), s.load(&x[l..]));
                for (j, w) in [a, b, c, d].into_iter().enumerate() {
                    acc[2 * j] = s.fma(x0, s.load(w), acc[2 * j]);
                    acc[2 * j + 1] = s.fma(x1, s.load(&w[l..]), acc[2 * j + 1]);
                }
            }
            for (j, w) in [w0, w1, w2, w3].into_iter().enumerate() {
                let tail: f32 = xt.iter().zip(&w[body..]).map(|(x, w)| x * w).sum();
                y[j] += s.reduce_add(s.add(acc[2 * j], acc[2 * j + 1])) + tail;
            }
        }
        for (w, y) in rows.remainder().chunks_exact(k).zip(out.into_remainder()) {
            let mut acc = [s.splat(0.0); 2];
            for (x, w) in xb.chunks_exact(2 * l).zip(w.chunks_exact(2 * l)) {
                acc[0] = s.fma(s.load(x), s.load(w), acc[0]);
                acc[1] = s.fma(s.load(&x[l..]), s.load(&w[l..]), acc[1]);
            }
            let tail: f32 = xt.iter().zip(&w[body..]).map(|(x, w)| x * w).sum();
            *y += s.reduce_add(s.add(acc[0], acc[1])) + tail;
        }
    }
}

/// `y += Σ x[r] · wei[r][n0..]`
struct Axpys<'a> {
    x: &'a [f32],
    wei: &'a [f32],
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
            let row = |r: usize| &wei[r * n + at..][..here];
            let mut fours = x.chunks_exact(4);
            let mut r = 0;
            for q in &mut fours {
                let v = [s.splat(q[0]), s.splat(q[1]), s.splat(q[2]), s.splat(q[3])];
                let w = [row(r), row(r + 1), row(r + 2), row(r + 3)];
                let [a, b, c, d] = w.map(|w| w.chunks_exact(l));
                for ((y, (a, b)), (c, d)) in y.chunks_exact_mut(l).zip(a.zip(b)).zip(c.zip(d)) {
                    let even = s.fma(v[0], s.load(a), s.load(y));
                    let odd = s.mul(v[1], s.load(b));
                    let (even, odd) = (s.fma(v[2], s.load(c), even), s.fma(v[3], s.load(d), odd));
                    s.store(y, s.add(even, odd));
                }
                let body = y.len() / l * l;
                for i in body..y.len() {
                    y[i] += (0..4).map(|j| q[j] * w[j][i]).sum::<f32>();
                }
                r += 4;
            }
            for &q in fours.remainder() {
                y.iter_mut().zip(&wei[r * n + at..]).for_each(|(y, w)| *y += q * w);
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
            for m in 1..=2 {
                let (x, w, b) = (values(m * k, 1), values(k * n, 2), values(n, 3));
                let wt: Vec<f32> = (0..n * k).map(|i| w[(i % k) * n + i / k]).collect();
                let mut want = Vec::new();
                for i in 0..m {
                    for j in 0..n {
                        let sum: f64 = (0..k).map(|r| x[i * k + r] as f64 * w[r * n + j] as f64).sum();
                        want.push((sum as f32 + b[j]).max(0.0));
                    }
                }
                for isa in isas() {
                    for threads in [1, 3] {
                        let pool = Pool::new(threads);
                        for (order, w) in [(Order::KN, &w), (Order::NK, &wt)] {
                            let got = guarded(m * n, |d| {
                                gemv(&pool, isa, (m, k, n), &x, w, order, Some(&b), Act::Relu, d);
                            });
                            close(&got, &want, 1e-4, &format!("{isa} {m}x{k}x{n} {order:?}"));
                        }
                    }
                }
            }
        }
    }
}
