//! Max and average pooling, blocked or plain.
//!
//! Ladder: window by window → blocked layout, a vector per pixel, row ranges clipped once per row and column ranges
//! once per pixel → planes dealt out to the threads. The global average has its own loop over the whole plane.
//! A plain tensor is the blocked one with a single lane and takes scalar loops over the same ranges.

use crate::engine::pool::{Grid, Pool};
use crate::simd::{Isa, Simd, SimdOp, dispatch};

/// What a window becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduce {
    /// The largest value; padding does not take part.
    Max,
    /// The mean over the values inside the map.
    Mean,
    /// The sum over the values inside the map divided by the window's part of the padded map.
    MeanPadded,
}

/// Shape of a 2-D pooling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolShape {
    /// Images.
    pub n: usize,
    /// Channels.
    pub ch: usize,
    /// Input height.
    pub ih: usize,
    /// Input width.
    pub iw: usize,
    /// Output height (the caller knows about ceil mode).
    pub oh: usize,
    /// Output width.
    pub ow: usize,
    /// Window height.
    pub kh: usize,
    /// Window width.
    pub kw: usize,
    /// Vertical stride.
    pub sh: usize,
    /// Horizontal stride.
    pub sw: usize,
    /// Padding above.
    pub ph: usize,
    /// Padding on the left.
    pub pw: usize,
    /// Padding below.
    pub ph_end: usize,
    /// Padding on the right.
    pub pw_end: usize,
    /// Vertical dilation.
    pub dh: usize,
    /// Horizontal dilation.
    pub dw: usize,
}

/// Taps inside the map: first input index, how many; and how many lie inside the padded map.
fn clip(o: usize, stride: usize, k: usize, d: usize, pad: usize, len: usize, pad_end: usize) -> (usize, usize, usize) {
    let at = |t: usize| (o * stride + t * d) as isize - pad as isize;
    let inside = |t: &usize| (0..len as isize).contains(&at(*t));
    let first = (0..k).find(inside).unwrap_or(0);
    let count = (first..k).take_while(inside).count();
    let padded = (0..k).take_while(|&t| at(t) < (len + pad_end) as isize).count();
    (at(first).max(0) as usize, count, padded)
}

/// `dst[n][cb][oh][ow][c]` from `src[n][cb][ih][iw][c]`.
pub fn pool_blocked(pool: &Pool, isa: Isa, s: &PoolShape, reduce: Reduce, src: &[f32], dst: &mut [f32]) {
    let (l, cb) = (isa.lanes(), s.ch.div_ceil(isa.lanes()));
    let plane = s.ih * s.iw * l;
    assert_eq!(src.len(), s.n * cb * plane, "{s:?}: source");
    let (rows, cols) = ranges(s);
    let grid =
        Grid { outer: s.n, a: cb, b: s.oh, len: s.ow * l, a_tile: 1, b_tile: task_rows(s, l), len_tile: s.ow * l };
    pool.for_tiles(dst, grid, |mut t, _| {
        let from = &src[(t.outer * cb + t.a0) * plane..][..plane];
        for b in 0..t.b_len() {
            let job = Line { s, reduce, src: from, row: rows[t.b0 + b], cols: &cols, dst: t.seg(0, b) };
            dispatch(isa, job);
        }
    });
}

/// `dst[n][ch][oh][ow]` from `src[n][ch][ih][iw]`.
pub fn pool_plain(pool: &Pool, s: &PoolShape, reduce: Reduce, src: &[f32], dst: &mut [f32]) {
    let plane = s.ih * s.iw;
    assert_eq!(src.len(), s.n * s.ch * plane, "{s:?}: source");
    let (rows, cols) = ranges(s);
    let grid = Grid { outer: s.n, a: s.ch, b: s.oh, len: s.ow, a_tile: 1, b_tile: task_rows(s, 1), len_tile: s.ow };
    pool.for_tiles(dst, grid, |mut t, _| {
        let from = &src[(t.outer * s.ch + t.a0) * plane..][..plane];
        for b in 0..t.b_len() {
            let (r0, nr, pr) = rows[t.b0 + b];
            for (y, &(c0, nc, pc)) in t.seg(0, b).iter_mut().zip(&cols) {
                let mut acc = if reduce == Reduce::Max { f32::NEG_INFINITY } else { 0.0 };
                for r in 0..nr {
                    let line = &from[(r0 + r * s.dh) * s.iw + c0..];
                    for &x in line.iter().step_by(s.dw).take(nc) {
                        acc = match reduce {
                            // The new value goes second: a NaN stays.
                            Reduce::Max if acc > x || acc.is_nan() => acc,
                            Reduce::Max => x,
                            _ => acc + x,
                        };
                    }
                }
                *y = acc * factor(reduce, nr * nc, pr * pc);
            }
        }
    });
}

type Clip = (usize, usize, usize);

fn ranges(s: &PoolShape) -> (Vec<Clip>, Vec<Clip>) {
    (
        (0..s.oh).map(|o| clip(o, s.sh, s.kh, s.dh, s.ph, s.ih, s.ph_end)).collect(),
        (0..s.ow).map(|o| clip(o, s.sw, s.kw, s.dw, s.pw, s.iw, s.pw_end)).collect(),
    )
}

/// Rows per task: about 64 Ki values read.
fn task_rows(s: &PoolShape, l: usize) -> usize {
    ((64 << 10) / (s.ow * l * s.kh * s.kw).max(1)).clamp(1, s.oh.max(1))
}

fn factor(reduce: Reduce, inside: usize, padded: usize) -> f32 {
    match reduce {
        Reduce::Max => 1.0,
        Reduce::Mean => 1.0 / inside as f32,
        Reduce::MeanPadded => 1.0 / padded as f32,
    }
}

struct Line<'a> {
    s: &'a PoolShape,
    reduce: Reduce,
    src: &'a [f32],
    row: Clip,
    cols: &'a [Clip],
    dst: &'a mut [f32],
}

impl SimdOp for Line<'_> {
    type Out = ();
    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let Line { s: shape, reduce, src, row: (r0, nr, pr), cols, dst } = self;
        let l = S::LANES;
        for (y, &(c0, nc, pc)) in dst.chunks_exact_mut(l).zip(cols) {
            let max = reduce == Reduce::Max;
            let mut acc = s.splat(if max { f32::NEG_INFINITY } else { 0.0 });
            for r in 0..nr {
                let line = &src[((r0 + r * shape.dh) * shape.iw + c0) * l..];
                for x in line.chunks(l * shape.dw).take(nc) {
                    let x = s.load(x);
                    acc = if max {
                        // The second operand comes back with NaN: keep a NaN that is already there.
                        s.select(s.eq(acc, acc), s.max(acc, x), acc)
                    } else {
                        s.add(acc, x)
                    };
                }
            }
            s.store(y, s.mul(acc, s.splat(factor(reduce, nr * nc, pr * pc))));
        }
    }
}

/// Mean of every plane: `dst[n][cb][c]` from `src[n][cb][hw][c]`.
pub fn global_mean_blocked(pool: &Pool, isa: Isa, (n, ch, hw): (usize, usize, usize), src: &[f32], dst: &mut [f32]) {
    let (l, cb) = (isa.lanes(), ch.div_ceil(isa.lanes()));
    assert_eq!(src.len(), n * cb * hw * l, "global mean source");
    let planes = ((16 << 10) / (hw * l).max(1)).max(1);
    pool.for_chunks(dst, planes * l, |i, part, _| {
        let src = &src[i * planes * hw * l..][..part.len() * hw];
        dispatch(isa, Mean { src, hw, dst: part });
    });
}

struct Mean<'a> {
    src: &'a [f32],
    hw: usize,
    dst: &'a mut [f32],
}

impl SimdOp for Mean<'_> {
    type Out = ();
    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let l = S::LANES;
        let scale = s.splat(1.0 / self.hw as f32);
        for (y, plane) in self.dst.chunks_exact_mut(l).zip(self.src.chunks_exact(self.hw * l)) {
            let mut acc = [s.splat(0.0); 4];
            let mut fours = plane.chunks_exact(4 * l);
            for x in &mut fours {
                for (j, a) in acc.iter_mut().enumerate() {
                    *a = s.add(*a, s.load(&x[j * l..]));
                }
            }
            for x in fours.remainder().chunks_exact(l) {
                acc[0] = s.add(acc[0], s.load(x));
            }
            let sum = s.add(s.add(acc[0], acc[1]), s.add(acc[2], acc[3]));
            s.store(y, s.mul(sum, scale));
        }
    }
}

/// Mean of every plane: `dst[n·ch]` from `src[n·ch][hw]`.
pub fn global_mean_plain(pool: &Pool, isa: Isa, hw: usize, src: &[f32], dst: &mut [f32]) {
    assert_eq!(src.len(), dst.len() * hw, "global mean source");
    let planes = ((16 << 10) / hw.max(1)).max(1);
    pool.for_chunks(dst, planes, |i, part, _| {
        for (y, plane) in part.iter_mut().zip(src[i * planes * hw..].chunks_exact(hw.max(1))) {
            *y = super::norm::sum(isa, plane) / hw as f32;
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::{blocked, close, guarded, isas, plain, values};

    fn naive(s: &PoolShape, reduce: Reduce, src: &[f32]) -> Vec<f32> {
        let mut out = Vec::new();
        for p in 0..s.n * s.ch {
            for y in 0..s.oh {
                for x in 0..s.ow {
                    let (mut max, mut sum, mut inside, mut padded) = (f32::NEG_INFINITY, 0.0, 0, 0);
                    for i in 0..s.kh {
                        for j in 0..s.kw {
                            let h = (y * s.sh + i * s.dh) as isize - s.ph as isize;
                            let w = (x * s.sw + j * s.dw) as isize - s.pw as isize;
                            padded += usize::from(h < (s.ih + s.ph_end) as isize && w < (s.iw + s.pw_end) as isize);
                            if h >= 0 && w >= 0 && h < s.ih as isize && w < s.iw as isize {
                                let v = src[(p * s.ih + h as usize) * s.iw + w as usize];
                                max = max.max(v);
                                sum += v;
                                inside += 1;
                            }
                        }
                    }
                    out.push(match reduce {
                        Reduce::Max => max,
                        Reduce::Mean => sum / inside as f32,
                        Reduce::MeanPadded => sum / padded as f32,
                    });
                }
            }
        }
        out
    }

    #[test]
    fn windows() {
        let base = PoolShape {
            n: 2,
            ch: 19,
            ih: 9,
            iw: 11,
            oh: 4,
            ow: 5,
            kh: 3,
            kw: 3,
            sh: 2,
            sw: 2,
            ph: 0,
            pw: 0,
            ph_end: 0,
            pw_end: 0,
            dh: 1,
            dw: 1,
        };
        let shapes = [
            base,
            PoolShape { oh: 5, ow: 6, ph: 1, pw: 1, ph_end: 1, pw_end: 1, ..base },
            PoolShape { oh: 5, ow: 6, ph_end: 1, pw_end: 1, ..base },
            PoolShape { oh: 9, ow: 11, sh: 1, sw: 1, ph: 1, pw: 1, ph_end: 1, pw_end: 1, ..base },
            PoolShape { oh: 5, ow: 7, sh: 1, sw: 1, dh: 2, dw: 2, ..base },
            PoolShape { oh: 1, ow: 1, kh: 9, kw: 11, ..base },
        ];
        for s in shapes {
            let src = values(s.n * s.ch * s.ih * s.iw, 5);
            for reduce in [Reduce::Max, Reduce::Mean, Reduce::MeanPadded] {
                let want = naive(&s, reduce, &src);
                for threads in [1, 3] {
                    let pool = Pool::new(threads);
                    let got = guarded(want.len(), |d| pool_plain(&pool, &s, reduce, &src, d));
                    close(&got, &want, 1e-6, &format!("plain {reduce:?} {s:?}"));
                    for isa in isas() {
                        let l = isa.lanes();
                        let from = blocked(&src, s.n, s.ch, s.ih * s.iw, l, 0.0);
                        let len = s.n * s.ch.div_ceil(l) * l * s.oh * s.ow;
                        let got = guarded(len, |d| pool_blocked(&pool, isa, &s, reduce, &from, d));
                        assert!(got.iter().all(|v| v.is_finite()));
                        let got = plain(&got, s.n, s.ch, s.oh * s.ow, l);
                        close(&got, &want, 1e-6, &format!("{isa} {reduce:?} {s:?}"));
                    }
                }
            }
        }
    }

    #[test]
    fn max_keeps_nan() {
        let s = PoolShape {
            n: 1,
            ch: 1,
            ih: 1,
            iw: 3,
            oh: 1,
            ow: 1,
            kh: 1,
            kw: 3,
            sh: 1,
            sw: 1,
            ph: 0,
            pw: 0,
            ph_end: 0,
            pw_end: 0,
            dh: 1,
            dw: 1,
        };
        let pool = Pool::new(1);
        for at in 0..3 {
            let mut src = [1.0, 2.0, 3.0];
            src[at] = f32::NAN;
            assert!(guarded(1, |d| pool_plain(&pool, &s, Reduce::Max, &src, d))[0].is_nan());
            for isa in isas() {
                let from = blocked(&src, 1, 1, 3, isa.lanes(), 0.0);
                assert!(guarded(isa.lanes(), |d| pool_blocked(&pool, isa, &s, Reduce::Max, &from, d))[0].is_nan());
            }
        }
    }

    #[test]
    fn global_means() {
        for (n, ch, hw) in [(1, 1, 1), (2, 20, 49), (1, 64, 7), (1, 17, 1000)] {
            let src = values(n * ch * hw, 6);
            let want: Vec<f32> = src.chunks_exact(hw).map(|p| p.iter().sum::<f32>() / hw as f32).collect();
            let pool = Pool::new(2);
            for isa in isas() {
                let l = isa.lanes();
                let got = guarded(n * ch, |d| global_mean_plain(&pool, isa, hw, &src, d));
                close(&got, &want, 1e-5, "plain");
                let from = blocked(&src, n, ch, hw, l, 0.0);
                let got = guarded(n * ch.div_ceil(l) * l, |d| global_mean_blocked(&pool, isa, (n, ch, hw), &from, d));
                close(&plain(&got, n, ch, 1, l), &want, 1e-5, "blocked");
            }
        }
    }
}
