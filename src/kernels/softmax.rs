//! Softmax over the last axis.
//!
//! Ladder: three scalar passes → lanes with an own exponential, the maximum found first so that nothing overflows →
//! exponentials written and summed in one pass, scaled in a second on a row that is still cached → rows dealt out.

use crate::engine::pool::Pool;
use crate::simd::{Isa, Simd, SimdOp, dispatch, math};

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
    pool.for_chunks(dst, rows * len, |i, part, _| {
        let first = i * rows;
        part.copy_from_slice(&src[first * len..][..part.len()]);
        dispatch(isa, Rows { what, first, dst: part });
    });
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
            let mut top = s.splat(f32::NEG_INFINITY);
            let mut it = row.chunks_exact(l);
            for v in &mut it {
                top = s.max(top, s.load(v));
            }
            let max = it.remainder().iter().fold(s.reduce_max(top), |m, &x| if x > m { x } else { m });
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
            let mut acc = s.splat(0.0);
            let mut it = row.chunks_exact_mut(l);
            for v in &mut it {
                let e = math::exp(s, s.sub(s.load(v), base));
                s.store(v, e);
                acc = s.add(acc, e);
            }
            let rest = it.into_remainder();
            let mut sum = s.reduce_add(acc);
            if !rest.is_empty() {
                let e = math::exp(s, s.sub(s.load_tail(rest), base));
                s.store_tail(rest, e);
                sum += rest.iter().sum::<f32>();
            }
            let k = s.splat(1.0 / sum);
            for v in row.chunks_mut(l) {
                let y = s.mul(s.load_tail(v), k);
                s.store_tail(v, y);
            }
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
    fn nan_spreads_over_its_row() {
        for isa in isas() {
            let mut src = vec![0.5; 40];
            src[3] = f32::NAN;
            let got = guarded(40, |d| softmax(&Pool::new(1), isa, Softmax::new(20), &src, d));
            assert!(got[..20].iter().all(|x| x.is_nan()) && got[20..].iter().all(|x| (x - 0.05).abs() < 1e-6));
        }
    }
}
