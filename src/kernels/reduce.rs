//! Reductions of neighbouring axes: sums, means, norms, extremes.
//!
//! Axes that follow each other are one, so a tensor is `[outer][len][inner]` and `len` goes. Ladder: scalar fold → contiguous rows
//! (`inner` = 1) with four vectors in flight; else lanes along `inner`, eight vectors of neighbouring results at a time → sums cut in
//! blocks that are added up apart, so that the error of a long sum does not grow with its length: within 1e-6 of the sum of
//! magnitudes → rows and tiles dealt out to the threads.

use super::task::{Accept, Entry, Kind, Prepared, ReduceOp, Task, Verdict};
use crate::engine::pool::{Grid, Pool};
use crate::error::{Error, Result};
use crate::simd::{Isa, Simd, SimdOp, dispatch};

pub(super) const ENTRY: Entry = Entry { name: "reduce", accepts, prepare, tolerance: 1e-5 };

/// Values of a row that are added up before they join the rest.
const BLOCK: usize = 4 << 10;
/// Rows of a tile likewise.
const ROWS: usize = 128;
/// Source values one task handles, about.
const TASK: usize = 16 << 10;

struct Reduction {
    isa: Isa,
    op: ReduceOp,
    len: usize,
    inner: usize,
}

fn accepts(task: &Task) -> Verdict {
    match task.kind {
        Kind::Reduce { len: 0, .. } => Err("nothing to reduce".into()),
        Kind::Reduce { .. } => Ok(Accept::plain(task)),
        _ => Err(String::new()),
    }
}

fn prepare(task: &Task) -> Result<Box<dyn Prepared>> {
    let Kind::Reduce { op, len, inner } = *task.kind else { return Err(Error::run("not a reduction")) };
    Ok(Box::new(Reduction { isa: task.isa, op, len, inner }))
}

impl Prepared for Reduction {
    fn run(&self, pool: &Pool, srcs: &[&[f32]], dsts: &mut [&mut [f32]]) {
        reduce(pool, self.isa, self.op, self.len, self.inner, srcs[0], dsts[0]);
    }
}

/// `dst[outer][inner]` from `src[outer][len][inner]`. Panics on lengths that do not fit.
fn reduce(pool: &Pool, isa: Isa, op: ReduceOp, len: usize, inner: usize, src: &[f32], dst: &mut [f32]) {
    assert_eq!(src.len(), dst.len() * len, "reduction of {len} x {inner}");
    if dst.is_empty() {
        return;
    }
    if inner == 1 {
        let rows = (TASK / len).max(1);
        return pool.for_chunks(dst, rows, |c, part, _| {
            let src = &src[c * rows * len..][..part.len() * len];
            with_fold(isa, op, Rows { op, len, src, dst: part });
        });
    }
    let outer = dst.len() / inner;
    let len_tile = inner.min(8 * isa.lanes());
    let grid = Grid { outer, a: 1, b: 1, len: inner, a_tile: 1, b_tile: 1, len_tile };
    pool.for_tiles(dst, grid, |mut tile, _| {
        let from = tile.outer * len * inner + tile.c0;
        with_fold(isa, op, Columns { op, len, inner, src: &src[from..], dst: tile.seg(0, 0) });
    });
}

/// How values come together.
trait Fold: Copy {
    /// What no value gives.
    const NONE: f32;
    fn join<S: Simd>(self, s: S, a: S::F, x: S::F) -> S::F;
    fn join_one(self, a: f32, x: f32) -> f32;
    /// A value's part, from the value.
    #[inline(always)]
    fn part<S: Simd>(self, _: S, x: S::F) -> S::F {
        x
    }
    /// Parts of several values.
    #[inline(always)]
    fn lanes<S: Simd>(self, s: S, a: S::F) -> f32 {
        let mut each = [0.0; 16];
        s.store(&mut each, a);
        let mut all = each[0];
        for &x in &each[1..S::LANES] {
            all = self.join_one(all, x);
        }
        all
    }
}

macro_rules! sum {
    ($name:ident, |$s:ident, $x:ident| $part:expr) => {
        #[derive(Clone, Copy)]
        struct $name;
        impl Fold for $name {
            const NONE: f32 = 0.0;
            #[inline(always)]
            fn join<S: Simd>(self, s: S, a: S::F, x: S::F) -> S::F {
                s.add(a, x)
            }
            #[inline(always)]
            fn join_one(self, a: f32, x: f32) -> f32 {
                a + x
            }
            #[inline(always)]
            fn part<S: Simd>(self, $s: S, $x: S::F) -> S::F {
                $part
            }
            #[inline(always)]
            fn lanes<S: Simd>(self, s: S, a: S::F) -> f32 {
                s.reduce_add(a)
            }
        }
    };
}

sum!(Plain, |_s, x| x);
sum!(Magnitude, |s, x| s.abs(x));
sum!(Square, |s, x| s.mul(x, x));

macro_rules! fold {
    ($name:ident, $none:expr, |$s:ident, $a:ident, $x:ident| $join:expr, $one:expr) => {
        #[derive(Clone, Copy)]
        struct $name;
        impl Fold for $name {
            const NONE: f32 = $none;
            #[inline(always)]
            fn join<S: Simd>(self, $s: S, $a: S::F, $x: S::F) -> S::F {
                $join
            }
            #[inline(always)]
            fn join_one(self, a: f32, x: f32) -> f32 {
                $one(a, x)
            }
        }
    };
}

// A NaN that has come stays: `max` and `min` alone give their second operand.
fold!(Largest, f32::NEG_INFINITY, |s, a, x| s.select(s.eq(a, a), s.max(a, x), a), crate::tensor::Num::max_nan);
fold!(Smallest, f32::INFINITY, |s, a, x| s.select(s.eq(a, a), s.min(a, x), a), crate::tensor::Num::min_nan);
fold!(Product, 1.0, |s, a, x| s.mul(a, x), std::ops::Mul::mul);

/// Work that a fold is handed to.
trait Folding {
    type Op<F: Fold>: SimdOp<Out = ()>;
    fn with<F: Fold>(self, fold: F) -> Self::Op<F>;
}

fn with_fold<W: Folding>(isa: Isa, op: ReduceOp, work: W) {
    match op {
        ReduceOp::Sum | ReduceOp::Mean | ReduceOp::LogSum => dispatch(isa, work.with(Plain)),
        ReduceOp::L1 => dispatch(isa, work.with(Magnitude)),
        ReduceOp::SumSquare | ReduceOp::L2 => dispatch(isa, work.with(Square)),
        ReduceOp::Max => dispatch(isa, work.with(Largest)),
        ReduceOp::Min => dispatch(isa, work.with(Smallest)),
        ReduceOp::Prod => dispatch(isa, work.with(Product)),
    }
}

/// What becomes of a finished fold over `len` values.
#[inline(always)]
fn finish(op: ReduceOp, len: usize, x: f32) -> f32 {
    match op {
        ReduceOp::Mean => x / len as f32,
        ReduceOp::L2 => x.sqrt(),
        ReduceOp::LogSum => x.ln(),
        _ => x,
    }
}

struct Rows<'a> {
    op: ReduceOp,
    len: usize,
    src: &'a [f32],
    dst: &'a mut [f32],
}

struct Columns<'a> {
    op: ReduceOp,
    len: usize,
    inner: usize,
    /// From the first column on.
    src: &'a [f32],
    dst: &'a mut [f32],
}

struct With<W, F>(W, F);

impl<'a> Folding for Rows<'a> {
    type Op<F: Fold> = With<Rows<'a>, F>;
    fn with<F: Fold>(self, fold: F) -> With<Rows<'a>, F> {
        With(self, fold)
    }
}

impl<'a> Folding for Columns<'a> {
    type Op<F: Fold> = With<Columns<'a>, F>;
    fn with<F: Fold>(self, fold: F) -> With<Columns<'a>, F> {
        With(self, fold)
    }
}

impl<F: Fold> SimdOp for With<Rows<'_>, F> {
    type Out = ();
    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let With(Rows { op, len, src, dst }, f) = self;
        for (y, x) in dst.iter_mut().zip(src.chunks_exact(len)) {
            let mut all = F::NONE;
            for x in x.chunks(BLOCK) {
                all = f.join_one(all, block(s, f, x));
            }
            *y = finish(op, len, all);
        }
    }
}

/// A fold of all of `x`, four vectors in flight.
#[inline(always)]
fn block<S: Simd, F: Fold>(s: S, f: F, x: &[f32]) -> f32 {
    let l = S::LANES;
    let none = s.splat(F::NONE);
    let mut acc = [none; 4];
    let mut fours = x.chunks_exact(4 * l);
    for v in &mut fours {
        for (j, a) in acc.iter_mut().enumerate() {
            *a = f.join(s, *a, f.part(s, s.load(&v[j * l..])));
        }
    }
    let mut ones = fours.remainder().chunks_exact(l);
    for v in &mut ones {
        acc[0] = f.join(s, acc[0], f.part(s, s.load(v)));
    }
    let rest = ones.remainder();
    if !rest.is_empty() {
        const INDEX: [f32; 16] = [0., 1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11., 12., 13., 14., 15.];
        let inside = s.lt(s.load(&INDEX), s.splat(rest.len() as f32));
        acc[1] = f.join(s, acc[1], s.select(inside, f.part(s, s.load_tail(rest)), none));
    }
    f.lanes(s, f.join(s, f.join(s, acc[0], acc[1]), f.join(s, acc[2], acc[3])))
}

impl<F: Fold> SimdOp for With<Columns<'_>, F> {
    type Out = ();
    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let With(mut w, f) = self;
        let (l, width) = (S::LANES, w.dst.len());
        if width == 8 * l {
            columns::<S, F, 8>(s, f, &mut w, 0, width);
        } else {
            let mut at = 0;
            while width - at >= 2 * l {
                columns::<S, F, 2>(s, f, &mut w, at, 2 * l);
                at += 2 * l;
            }
            while at < width {
                columns::<S, F, 1>(s, f, &mut w, at, l.min(width - at));
                at += l;
            }
        }
        let (op, len) = (w.op, w.len);
        for y in w.dst {
            *y = finish(op, len, *y);
        }
    }
}

/// `width` columns from `at` on: `N` vectors, or one that may have fewer.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // all vectors alike
fn columns<S: Simd, F: Fold, const N: usize>(s: S, f: F, w: &mut Columns<'_>, at: usize, width: usize) {
    let l = S::LANES;
    let whole = width == N * l;
    let mut all = [s.splat(F::NONE); N];
    let mut first = 0;
    while first < w.len {
        let end = (first + ROWS).min(w.len);
        let mut acc = [s.splat(F::NONE); N];
        for r in first..end {
            let x = &w.src[r * w.inner + at..][..width];
            for j in 0..N {
                let v = if whole { s.load(&x[j * l..]) } else { s.load_tail(x) };
                acc[j] = f.join(s, acc[j], f.part(s, v));
            }
        }
        for j in 0..N {
            all[j] = f.join(s, all[j], acc[j]);
        }
        first = end;
    }
    let y = &mut w.dst[at..at + width];
    for j in 0..N {
        if whole { s.store(&mut y[j * l..], all[j]) } else { s.store_tail(y, all[j]) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::{close, guarded, isas, values};

    const ALL: [ReduceOp; 9] = [
        ReduceOp::Sum,
        ReduceOp::Mean,
        ReduceOp::Max,
        ReduceOp::Min,
        ReduceOp::Prod,
        ReduceOp::L1,
        ReduceOp::L2,
        ReduceOp::SumSquare,
        ReduceOp::LogSum,
    ];

    fn book(op: ReduceOp, x: &[f64]) -> f64 {
        match op {
            ReduceOp::Sum => x.iter().sum(),
            ReduceOp::Mean => x.iter().sum::<f64>() / x.len() as f64,
            ReduceOp::Max => x.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            ReduceOp::Min => x.iter().copied().fold(f64::INFINITY, f64::min),
            ReduceOp::Prod => x.iter().product(),
            ReduceOp::L1 => x.iter().map(|v| v.abs()).sum(),
            ReduceOp::L2 => x.iter().map(|v| v * v).sum::<f64>().sqrt(),
            ReduceOp::SumSquare => x.iter().map(|v| v * v).sum(),
            ReduceOp::LogSum => x.iter().sum::<f64>().ln(),
        }
    }

    #[test]
    fn every_operation_over_every_kind_of_axis() {
        let shapes = [(1, 1, 1), (3, 7, 1), (5, 64, 1), (2, 131, 1), (1, 9000, 1), (40, 49, 1), (2, 5, 3)];
        let more = [(3, 50, 8), (1, 300, 20), (2, 33, 64), (1, 7, 131), (1, 3, 200), (2, 1, 9)];
        for (outer, len, inner) in shapes.into_iter().chain(more) {
            for op in ALL {
                // Near one, so that products stay in range and sums have a logarithm.
                let src: Vec<f32> = values(outer * len * inner, 3).iter().map(|x| 1.0 + 0.1 * x).collect();
                let want: Vec<f32> = (0..outer * inner)
                    .map(|i| {
                        let at = i / inner * len * inner + i % inner;
                        book(op, &(0..len).map(|r| src[at + r * inner] as f64).collect::<Vec<_>>()) as f32
                    })
                    .collect();
                for isa in isas() {
                    let pool = Pool::new(2);
                    let got = guarded(want.len(), |d| reduce(&pool, isa, op, len, inner, &src, d));
                    let tolerance = if op == ReduceOp::Prod { 2e-7 * len.max(50) as f32 } else { 1e-6 };
                    close(&got, &want, tolerance, &format!("{isa} {op:?} {outer}x{len}x{inner}"));
                }
            }
        }
    }

    #[test]
    fn negative_values() {
        let src = [-3.0, -1.0, -2.0, -4.0, 0.5, 2.0];
        for isa in isas() {
            for (op, want) in [(ReduceOp::Max, [-1.0, 2.0]), (ReduceOp::Min, [-3.0, -4.0]), (ReduceOp::L1, [6.0, 6.5])]
            {
                close(&guarded(2, |d| reduce(&Pool::new(1), isa, op, 3, 1, &src, d)), &want, 0.0, &format!("{op:?}"));
            }
        }
    }

    #[test]
    fn a_nan_stays() {
        for isa in isas() {
            for (len, inner) in [(20, 1), (70, 1), (6, 10), (3, 64)] {
                for at in [0, len / 2, len - 1] {
                    let mut src = vec![0.5; 2 * len * inner];
                    src[at * inner] = f32::NAN;
                    for op in ALL {
                        let got = guarded(2 * inner, |d| reduce(&Pool::new(1), isa, op, len, inner, &src, d));
                        assert!(got.iter().enumerate().all(|(i, x)| x.is_nan() == (i == 0)), "{isa} {op:?} {len} {at}");
                    }
                }
            }
        }
    }
}
