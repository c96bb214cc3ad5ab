//! Max and average pooling, blocked or plain.
//!
//! Ladder: window by window → the window's rows first, a vector of columns at a time, into a padded row in the first-level cache, so that
//! its columns meet no edge → blocked layout, a vector per pixel; plain, a vector of neighbouring windows, of which stride 2 keeps every
//! other → planes dealt out to the threads. The global average has its own loop over the whole plane.

use crate::engine::pool::{Grid, Pool, Scratch};
use crate::simd::{Isa, Simd, SimdOp, TileMut, dispatch};

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

/// A pooling made ready: what is inside the map is known for every row and column of the result.
#[derive(Clone, Debug)]
pub struct Window {
    s: PoolShape,
    reduce: Reduce,
    isa: Isa,
    /// Values per pixel: the lanes, or 1 of a plain map.
    width: usize,
    /// First input row, rows inside the map.
    rows: Vec<(usize, usize)>,
    /// Factor of each output row, of each output column.
    factors: [Vec<f32>; 2],
    along: Along,
    /// Columns of a padded row.
    columns: usize,
}

/// How a padded row, reduced over the window's height, becomes an output row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Along {
    /// A vector per pixel.
    Blocked,
    /// Plain, stride 1: a vector of neighbouring results.
    Neighbours,
    /// Plain, stride 2: two vectors of neighbouring windows, of which every other is a result.
    EveryOther,
    /// Plain, one result.
    One,
    /// Plain, larger strides.
    Single,
}

impl Window {
    /// For blocked (NCHWc) or plain maps.
    pub fn new(isa: Isa, s: PoolShape, reduce: Reduce, blocked: bool) -> Window {
        let l = isa.lanes();
        let rows: Vec<Clip> = (0..s.oh).map(|o| clip(o, s.sh, s.kh, s.dh, s.ph, s.ih, s.ph_end)).collect();
        let cols: Vec<Clip> = (0..s.ow).map(|o| clip(o, s.sw, s.kw, s.dw, s.pw, s.iw, s.pw_end)).collect();
        let factor = |c: &Clip| match reduce {
            Reduce::Max => 1.0,
            Reduce::Mean => 1.0 / c.1 as f32,
            Reduce::MeanPadded => 1.0 / c.2 as f32,
        };
        let mut across: Vec<f32> = cols.iter().map(factor).collect();
        across.resize(s.ow.next_multiple_of(l), 1.0);
        let along = match () {
            _ if blocked => Along::Blocked,
            _ if s.ow == 1 && s.dw == 1 => Along::One,
            _ if s.sw == 1 => Along::Neighbours,
            _ if s.sw == 2 => Along::EveryOther,
            _ => Along::Single,
        };
        let positions = match along {
            Along::Neighbours => s.ow.next_multiple_of(l),
            Along::EveryOther => 2 * s.ow.next_multiple_of(l),
            _ => s.ow.saturating_sub(1) * s.sw + 1,
        };
        Window {
            s,
            reduce,
            isa,
            width: if blocked { l } else { 1 },
            factors: [rows.iter().map(factor).collect(), across],
            rows: rows.iter().map(|c| (c.0, c.1)).collect(),
            along,
            columns: positions + s.kw.saturating_sub(1) * s.dw,
        }
    }

    /// `dst[n][cb][oh][ow][c]` from `src[n][cb][ih][iw][c]`, or `dst[n][ch][oh][ow]` from `src[n][ch][ih][iw]`.
    pub fn run(&self, pool: &Pool, src: &[f32], dst: &mut [f32]) {
        let (s, w) = (&self.s, self.width);
        let planes = s.ch.div_ceil(w);
        let plane = s.ih * s.iw * w;
        assert_eq!(src.len(), s.n * planes * plane, "{s:?}: source");
        let len = s.ow * w;
        let grid = Grid { outer: s.n, a: planes, b: s.oh, len, a_tile: 1, b_tile: task_rows(s, w), len_tile: len };
        pool.for_tiles(dst, grid, |tile, id| {
            let src = &src[(tile.outer * planes + tile.a0) * plane..][..plane];
            pool.scratch(id, |scratch| {
                let line = Scratch::grow(&mut scratch.a, self.columns * w);
                dispatch(self.isa, Band { w: self, src, line, tile });
            });
        });
    }
}

type Clip = (usize, usize, usize);

/// Rows per task: about 64 Ki values read.
fn task_rows(s: &PoolShape, l: usize) -> usize {
    ((64 << 10) / (s.ow * l * s.kh * s.kw).max(1)).clamp(1, s.oh.max(1))
}

/// Output rows of one plane.
struct Band<'a, 't> {
    w: &'a Window,
    src: &'a [f32],
    line: &'a mut [f32],
    tile: TileMut<'t>,
}

impl SimdOp for Band<'_, '_> {
    type Out = ();
    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        if self.w.reduce == Reduce::Max { self.rows::<S, true>(s) } else { self.rows::<S, false>(s) }
    }
}

/// The larger, NaN if either is; or the sum.
#[inline(always)]
fn join<S: Simd, const MAX: bool>(s: S, acc: S::F, x: S::F) -> S::F {
    if MAX {
        // The second operand comes back with NaN: keep a NaN that is already there.
        s.select(s.eq(acc, acc), s.max(acc, x), acc)
    } else {
        s.add(acc, x)
    }
}

#[inline(always)]
fn join_one<const MAX: bool>(acc: f32, x: f32) -> f32 {
    match MAX {
        true if acc > x || acc.is_nan() => acc,
        true => x,
        false => acc + x,
    }
}

impl Band<'_, '_> {
    #[inline(always)]
    fn rows<S: Simd, const MAX: bool>(self, s: S) {
        let Band { w: window, src, line, mut tile } = self;
        let (shape, w) = (&window.s, window.width);
        let row = shape.iw * w;
        // What of an input row lies in the padded one; the rest of that stays as it is filled here.
        let left = (shape.pw * w).min(line.len());
        let inside = row.min(line.len() - left);
        line.fill(if MAX { f32::NEG_INFINITY } else { 0.0 });
        for b in 0..tile.b_len() {
            let (first, n) = window.rows[tile.b0 + b];
            let factor = window.factors[0][tile.b0 + b];
            let from = |r: usize| &src[(first + r * shape.dh) * row..][..inside];
            let out = tile.seg(0, b);
            if n == 1 && left == 0 && inside == line.len() {
                window.across::<S, MAX>(s, from(0), factor, out);
            } else {
                down::<S, MAX>(s, n, from, &mut line[left..left + inside]);
                window.across::<S, MAX>(s, line, factor, out);
            }
        }
    }
}

/// `n` rows to one.
#[inline(always)]
fn down<'r, S: Simd, const MAX: bool>(s: S, n: usize, row: impl Fn(usize) -> &'r [f32], out: &mut [f32]) {
    let (l, len) = (S::LANES, out.len());
    match n {
        0 => return out.fill(if MAX { f32::NEG_INFINITY } else { 0.0 }),
        1 => return out.copy_from_slice(row(0)),
        _ => {}
    }
    let (x, y) = (&row(0)[..len], &row(1)[..len]);
    let start = if n == 2 {
        let mut at = 0;
        while at + l <= len {
            let v = join::<S, MAX>(s, s.load(&x[at..]), s.load(&y[at..]));
            s.store(&mut out[at..], v);
            at += l;
        }
        let v = join::<S, MAX>(s, s.load_tail(&x[at..]), s.load_tail(&y[at..]));
        s.store_tail(&mut out[at..], v);
        2
    } else {
        let z = &row(2)[..len];
        let mut at = 0;
        while at + l <= len {
            let v = join::<S, MAX>(s, s.load(&x[at..]), s.load(&y[at..]));
            s.store(&mut out[at..], join::<S, MAX>(s, v, s.load(&z[at..])));
            at += l;
        }
        let v = join::<S, MAX>(s, s.load_tail(&x[at..]), s.load_tail(&y[at..]));
        s.store_tail(&mut out[at..], join::<S, MAX>(s, v, s.load_tail(&z[at..])));
        3
    };
    for r in start..n {
        let x = &row(r)[..len];
        let mut at = 0;
        while at + l <= len {
            let v = join::<S, MAX>(s, s.load(&out[at..]), s.load(&x[at..]));
            s.store(&mut out[at..], v);
            at += l;
        }
        let v = join::<S, MAX>(s, s.load_tail(&out[at..]), s.load_tail(&x[at..]));
        s.store_tail(&mut out[at..], v);
    }
}

/// The window that begins at `at`, of columns `step` apart. (A closure would not take the vector features along.)
#[inline(always)]
fn columns<S: Simd, const MAX: bool>(s: S, line: &[f32], at: usize, (kw, step): (usize, usize)) -> S::F {
    let mut acc = s.load(&line[at..]);
    for t in 1..kw {
        acc = join::<S, MAX>(s, acc, s.load(&line[at + t * step..]));
    }
    acc
}

impl Window {
    /// A padded row, reduced over the window's height, to an output row.
    #[inline(always)]
    fn across<S: Simd, const MAX: bool>(&self, s: S, line: &[f32], factor: f32, out: &mut [f32]) {
        match self.s.kw {
            2 => self.taps::<S, MAX, 2>(s, line, factor, out),
            3 => self.taps::<S, MAX, 3>(s, line, factor, out),
            _ => self.taps::<S, MAX, 0>(s, line, factor, out),
        }
    }

    /// `N` columns of the window, or as many as there are.
    #[inline(always)]
    fn taps<S: Simd, const MAX: bool, const N: usize>(&self, s: S, line: &[f32], factor: f32, out: &mut [f32]) {
        let l = S::LANES;
        let (kw, factors) = (if N == 0 { self.s.kw } else { N }, &self.factors[1]);
        match self.along {
            Along::Blocked => {
                let (stride, step) = (self.s.sw * l, self.s.dw * l);
                for ((o, y), f) in out.chunks_exact_mut(l).enumerate().zip(factors) {
                    let v = columns::<S, MAX>(s, line, o * stride, (kw, step));
                    s.store(y, if MAX { v } else { s.mul(v, s.splat(f * factor)) });
                }
            }
            Along::Neighbours | Along::EveryOther => {
                let every_other = self.along == Along::EveryOther;
                let mut order = [0i32; 16];
                let mut low = [0.0f32; 16];
                for i in 0..l {
                    (order[i], low[i]) = ((2 * i % l) as i32, if 2 * i < l { 1.0 } else { 0.0 });
                }
                let (order, low) = (s.load_int(&order), s.lt(s.splat(0.0), s.load(&low)));
                for ((v, y), f) in out.chunks_mut(l).enumerate().zip(factors.chunks_exact(l)) {
                    let mut x = if every_other {
                        let x = columns::<S, MAX>(s, line, 2 * v * l, (kw, self.s.dw));
                        let z = columns::<S, MAX>(s, line, (2 * v + 1) * l, (kw, self.s.dw));
                        s.select(low, s.permute(x, order), s.permute(z, order))
                    } else {
                        columns::<S, MAX>(s, line, v * l, (kw, self.s.dw))
                    };
                    if !MAX {
                        x = s.mul(x, s.mul(s.load(f), s.splat(factor)));
                    }
                    if y.len() == l {
                        s.store(y, x);
                    } else {
                        s.store_tail(y, x);
                    }
                }
            }
            Along::One => {
                let start = if MAX { f32::NEG_INFINITY } else { 0.0 };
                let mut acc = s.splat(start);
                let mut vectors = line[..kw].chunks_exact(l);
                for x in &mut vectors {
                    acc = join::<S, MAX>(s, acc, s.load(x));
                }
                let mut lanes = [start; 16];
                s.store(&mut lanes, acc);
                let rest = lanes[..l].iter().chain(vectors.remainder());
                let all = rest.fold(start, |acc, &x| join_one::<MAX>(acc, x));
                out[0] = all * factors[0] * factor;
            }
            Along::Single => {
                for ((o, y), f) in out.iter_mut().enumerate().zip(factors) {
                    let mut acc = line[o * self.s.sw];
                    for t in 1..kw {
                        acc = join_one::<MAX>(acc, line[o * self.s.sw + t * self.s.dw]);
                    }
                    *y = acc * f * factor;
                }
            }
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
            PoolShape { oh: 4, ow: 5, kh: 2, kw: 2, ..base },
            PoolShape { oh: 9, ow: 1, kh: 1, kw: 11, sh: 1, ..base },
            PoolShape { oh: 3, ow: 4, sh: 3, sw: 3, ph: 1, pw: 1, ph_end: 1, pw_end: 1, ..base },
            PoolShape { ch: 3, ih: 2, iw: 67, oh: 2, ow: 67, sh: 1, sw: 1, ph: 1, pw: 1, ph_end: 1, pw_end: 1, ..base },
            PoolShape { ch: 3, ih: 12, iw: 67, oh: 5, ow: 33, kh: 4, kw: 5, pw: 1, pw_end: 1, ..base },
            PoolShape {
                ch: 3,
                ih: 12,
                iw: 40,
                oh: 12,
                ow: 40,
                kh: 5,
                kw: 5,
                sh: 1,
                sw: 1,
                ph: 2,
                pw: 2,
                ph_end: 2,
                pw_end: 2,
                ..base
            },
        ];
        for s in shapes {
            let src = values(s.n * s.ch * s.ih * s.iw, 5);
            for reduce in [Reduce::Max, Reduce::Mean, Reduce::MeanPadded] {
                let want = naive(&s, reduce, &src);
                for threads in [1, 3] {
                    let pool = Pool::new(threads);
                    for isa in isas() {
                        let got = guarded(want.len(), |d| Window::new(isa, s, reduce, false).run(&pool, &src, d));
                        close(&got, &want, 1e-6, &format!("{isa} plain {reduce:?} {s:?}"));
                        let l = isa.lanes();
                        let from = blocked(&src, s.n, s.ch, s.ih * s.iw, l, 0.0);
                        let len = s.n * s.ch.div_ceil(l) * l * s.oh * s.ow;
                        let got = guarded(len, |d| Window::new(isa, s, reduce, true).run(&pool, &from, d));
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
            for isa in isas() {
                assert!(guarded(1, |d| Window::new(isa, s, Reduce::Max, false).run(&pool, &src, d))[0].is_nan());
                let from = blocked(&src, 1, 1, 3, isa.lanes(), 0.0);
                assert!(
                    guarded(isa.lanes(), |d| Window::new(isa, s, Reduce::Max, true).run(&pool, &from, d))[0].is_nan()
                );
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
