//! Normalisation over the last axis: LayerNorm and RMSNorm.
//!
//! Ladder: scalar passes → lanes with four sums in flight → mean first and then the variance of what is left over, both
//! on a row in the first-level cache (one pass over memory, no cancellation) → rows dealt out to the threads.

use crate::engine::pool::Pool;
use crate::simd::{Isa, Simd, SimdOp, dispatch};

/// Values one task handles, about.
const TASK: usize = 16 << 10;

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

/// `dst[rows][len] = normalise(src + add) · gamma + beta`.
///
/// `gamma` and `beta` have `len` values. Panics on lengths that do not fit.
#[allow(clippy::too_many_arguments)]
pub fn normalize(
    pool: &Pool,
    isa: Isa,
    norm: Norm,
    len: usize,
    src: &[f32],
    add: Option<&[f32]>,
    gamma: Option<&[f32]>,
    beta: Option<&[f32]>,
    dst: &mut [f32],
) {
    assert!(src.len() == dst.len() && (len > 0 || dst.is_empty()), "normalisation of rows of {len}");
    assert!(dst.is_empty() || dst.len().is_multiple_of(len), "normalisation of rows of {len}");
    assert!(add.is_none_or(|a| a.len() == src.len()), "added tensor");
    for (p, name) in [(gamma, "gamma"), (beta, "beta")] {
        assert!(p.is_none_or(|p| p.len() == len), "{name}");
    }
    if len == 0 {
        return;
    }
    let rows = (TASK / len).max(1);
    pool.for_chunks(dst, rows * len, |i, part, _| {
        let at = i * rows * len;
        part.copy_from_slice(&src[at..][..part.len()]);
        let add = add.map(|a| &a[at..][..part.len()]);
        dispatch(isa, Rows { norm, len, add, gamma, beta, dst: part });
    });
}

struct Rows<'a> {
    norm: Norm,
    len: usize,
    add: Option<&'a [f32]>,
    gamma: Option<&'a [f32]>,
    beta: Option<&'a [f32]>,
    dst: &'a mut [f32],
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
    let rest: f32 = ones.remainder().iter().map(|&x| tail(x)).sum();
    s.reduce_add(s.add(s.add(acc[0], acc[1]), s.add(acc[2], acc[3]))) + rest
}

impl SimdOp for Rows<'_> {
    type Out = ();
    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let Rows { norm, len, add, gamma, beta, dst } = self;
        let l = S::LANES;
        let n = len as f32;
        for (r, row) in dst.chunks_exact_mut(len).enumerate() {
            if let Some(a) = add {
                row.iter_mut().zip(&a[r * len..]).for_each(|(x, a)| *x += a);
            }
            let (mean, scale) = match norm {
                Norm::Layer { eps } => {
                    let mean = fold(s, row, |a, x| s.add(a, x), |x| x) / n;
                    let m = s.splat(mean);
                    let square = |a, x| {
                        let d = s.sub(x, m);
                        s.fma(d, d, a)
                    };
                    let var = fold(s, row, square, |x| (x - mean) * (x - mean)) / n;
                    (mean, 1.0 / (var + eps).sqrt())
                }
                Norm::Rms { eps } => {
                    let square = fold(s, row, |a, x| s.fma(x, x, a), |x| x * x) / n;
                    (0.0, 1.0 / (square + eps).sqrt())
                }
            };
            let (m, k) = (s.splat(mean), s.splat(scale));
            let mut at = 0;
            for v in row.chunks_mut(l) {
                let width = v.len();
                let part = |p: Option<&[f32]>, or: f32| p.map_or(s.splat(or), |p| s.load_tail(&p[at..at + width]));
                let x = s.mul(s.sub(s.load_tail(v), m), k);
                let y = match (gamma, beta) {
                    (None, None) => x,
                    _ => s.fma(x, part(gamma, 1.0), part(beta, 0.0)),
                };
                s.store_tail(v, y);
                at += width;
            }
        }
    }
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

    #[test]
    fn rows_of_any_length() {
        for (rows, len) in [(1, 1), (3, 7), (5, 64), (2, 131), (40, 768)] {
            let src: Vec<f32> = values(rows * len, 1).iter().map(|x| 3.0 * x + 20.0).collect();
            let add = values(rows * len, 2);
            let (gamma, beta) = (values(len, 3), values(len, 4));
            for norm in [Norm::Layer { eps: 1e-5 }, Norm::Rms { eps: 1e-6 }] {
                for extra in [false, true] {
                    let mut want = Vec::new();
                    for r in 0..rows {
                        let row: Vec<f64> = (0..len)
                            .map(|i| src[r * len + i] as f64 + if extra { add[r * len + i] as f64 } else { 0.0 })
                            .collect();
                        let (mean, eps) = match norm {
                            Norm::Layer { eps } => (row.iter().sum::<f64>() / len as f64, eps),
                            Norm::Rms { eps } => (0.0, eps),
                        };
                        let var = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / len as f64;
                        for (i, x) in row.iter().enumerate() {
                            let y = (x - mean) / (var + eps as f64).sqrt();
                            want.push(if extra { y * gamma[i] as f64 + beta[i] as f64 } else { y } as f32);
                        }
                    }
                    for isa in isas() {
                        let pool = Pool::new(2);
                        let got = guarded(src.len(), |d| {
                            let add = extra.then_some(&add[..]);
                            let (g, b) = (extra.then_some(&gamma[..]), extra.then_some(&beta[..]));
                            normalize(&pool, isa, norm, len, &src, add, g, b, d);
                        });
                        close(&got, &want, 3e-5, &format!("{isa} {norm:?} {rows}x{len}"));
                    }
                }
            }
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
