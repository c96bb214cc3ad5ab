//! Element-wise work that is not fused into a product: activations and binary operations, threaded.
//!
//! Ladder: scalar → lanes → stretches of the result dealt out to the threads, activation applied to a stretch while
//! it is cached. Broadcast operands are rows of one value, of the row's length, or of one block of channels.

use super::epilogue::Act;
use crate::engine::pool::Pool;
use crate::simd::{Isa, Simd, SimdOp, dispatch};
use smallvec::SmallVec;

/// Values one task handles.
const TASK: usize = 16 << 10;

/// Run `$body` with `$op` known at compile time, so that the choice is outside the loop.
macro_rules! per_op {
    ($op:expr, |$o:ident| $body:expr) => {
        match $op {
            Binary::Add => {
                let $o = Binary::Add;
                $body
            }
            Binary::Mul => {
                let $o = Binary::Mul;
                $body
            }
            $o => $body,
        }
    };
}

/// A binary operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binary {
    /// a + b
    Add,
    /// a − b
    Sub,
    /// b − a
    RevSub,
    /// a · b
    Mul,
    /// a / b
    Div,
    /// b / a
    RevDiv,
    /// Larger, NaN if either is
    Max,
    /// Smaller, NaN if either is
    Min,
}

/// How the second operand is spread over the first, which is seen as `[outer][row]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// Same shape.
    Same,
    /// One value for all.
    Scalar,
    /// `[row]`, the same for every outer index: bias per column.
    Row {
        /// Row length.
        row: usize,
    },
    /// `[outer]`, one value per row: a plain NCHW channel over its `h·w`.
    Outer {
        /// Row length.
        row: usize,
    },
    /// `[outer][c]`, one block of lanes per row of `row` values: a blocked channel over its `h·w`.
    Block {
        /// Row length, a multiple of the lanes.
        row: usize,
    },
}

/// `dst = act(x)`, same length.
pub fn unary(pool: &Pool, isa: Isa, act: Act, src: &[f32], dst: &mut [f32]) {
    assert_eq!(src.len(), dst.len(), "unary source");
    pool.for_chunks(dst, TASK, |i, part, _| act.map(isa, &src[i * TASK..][..part.len()], part));
}

/// `dst = act(a ∘ b)`, `dst` as long as `a`.
///
/// Panics on lengths that do not fit the spread.
#[allow(clippy::too_many_arguments)]
pub fn binary(pool: &Pool, isa: Isa, op: Binary, spread: Spread, act: Act, a: &[f32], b: &[f32], dst: &mut [f32]) {
    assert_eq!(a.len(), dst.len(), "binary source");
    if dst.is_empty() {
        return;
    }
    let l = isa.lanes();
    let (row, need) = match spread {
        Spread::Same => (1, a.len()),
        Spread::Scalar => (1, 1),
        Spread::Row { row } => (row, row),
        Spread::Outer { row } => (row, a.len() / row.max(1)),
        Spread::Block { row } => (row, a.len() / row.max(1) * l),
    };
    assert!(row > 0 && a.len().is_multiple_of(row) && b.len() == need, "{spread:?}: {} and {}", a.len(), b.len());
    assert!(!matches!(spread, Spread::Block { .. }) || row.is_multiple_of(l), "{spread:?}");
    // Tasks of whole rows, except where rows do not matter.
    let task = if row >= TASK { row } else { TASK / row * row };
    pool.for_chunks(dst, task, |i, part, _| {
        let at = i * task;
        part.copy_from_slice(&a[at..][..part.len()]);
        match spread {
            Spread::Same => dispatch(isa, Zip { op, b: &b[at..][..part.len()], x: part }),
            Spread::Scalar => dispatch(isa, One { op, b: b[0], x: part }),
            Spread::Row { row } => part.chunks_exact_mut(row).for_each(|x| dispatch(isa, Zip { op, b, x })),
            Spread::Outer { row } => {
                let b = &b[at / row..];
                part.chunks_exact_mut(row).zip(b).for_each(|(x, &b)| dispatch(isa, One { op, b, x }));
            }
            Spread::Block { row } => {
                let b = b[at / row * l..].chunks_exact(l);
                part.chunks_exact_mut(row).zip(b).for_each(|(x, b)| dispatch(isa, Cycle { op, b, x }));
            }
        }
        act.apply(isa, part);
    });
}

/// Result axes of a broadcast: length and the strides of both operands along it, 0 where one is spread.
pub type Axes = [(usize, [usize; 2])];

/// `dst = act(a ∘ b)` for operands that are spread in any way over the axes of `dst`, outermost first; along the innermost either
/// operand's stride is 0 or 1.
///
/// Panics on axes that do not fit `dst`.
#[allow(clippy::too_many_arguments)]
pub fn broadcast(pool: &Pool, isa: Isa, op: Binary, axes: &Axes, act: Act, a: &[f32], b: &[f32], dst: &mut [f32]) {
    let Some((&(row, last), outer)) = axes.split_last() else { panic!("a broadcast without axes") };
    assert!(axes.iter().map(|a| a.0).product::<usize>() == dst.len() && last.iter().all(|&s| s <= 1), "{axes:?}");
    if dst.is_empty() {
        return;
    }
    let rows = (TASK / row).max(1);
    pool.for_chunks(dst, rows * row, |i, part, _| {
        dispatch(isa, Spreading { op, outer, row, last, first: i * rows, a, b, x: part });
        act.apply(isa, part);
    });
}

struct Spreading<'a> {
    op: Binary,
    outer: &'a Axes,
    row: usize,
    last: [usize; 2],
    first: usize,
    a: &'a [f32],
    b: &'a [f32],
    x: &'a mut [f32],
}

impl SimdOp for Spreading<'_> {
    type Out = ();
    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let Spreading { op, outer, row, last, first, a, b, x } = self;
        let mut index: SmallVec<[usize; 8]> = SmallVec::from_elem(0, outer.len());
        let (mut rest, mut at) = (first, [0, 0]);
        for (i, (len, by)) in index.iter_mut().zip(outer).rev() {
            *i = rest % len;
            rest /= len;
            at = [at[0] + *i * by[0], at[1] + *i * by[1]];
        }
        per_op!(op, |op| {
            for x in x.chunks_exact_mut(row) {
                let (mut a, mut b) = (&a[at[0]..], &b[at[1]..]);
                let (va, vb) = (s.splat(a[0]), s.splat(b[0]));
                for x in x.chunks_mut(S::LANES) {
                    let n = x.len();
                    if n == S::LANES {
                        let l = if last[0] == 1 { s.load(a) } else { va };
                        let r = if last[1] == 1 { s.load(b) } else { vb };
                        s.store(x, apply(s, op, l, r));
                    } else {
                        let l = if last[0] == 1 { s.load_tail(&a[..n]) } else { va };
                        let r = if last[1] == 1 { s.load_tail(&b[..n]) } else { vb };
                        s.store_tail(x, apply(s, op, l, r));
                    }
                    (a, b) = (&a[n * last[0]..], &b[n * last[1]..]);
                }
                for (i, (len, by)) in index.iter_mut().zip(outer).rev() {
                    *i += 1;
                    at = [at[0] + by[0], at[1] + by[1]];
                    if *i < *len {
                        break;
                    }
                    at = [at[0] - *i * by[0], at[1] - *i * by[1]];
                    *i = 0;
                }
            }
        });
    }
}

#[inline(always)]
fn apply<S: Simd>(s: S, op: Binary, a: S::F, b: S::F) -> S::F {
    match op {
        Binary::Add => s.add(a, b),
        Binary::Sub => s.sub(a, b),
        Binary::RevSub => s.sub(b, a),
        Binary::Mul => s.mul(a, b),
        Binary::Div => s.div(a, b),
        Binary::RevDiv => s.div(b, a),
        // The second operand comes back with NaN; a NaN first operand is put back.
        Binary::Max => s.select(s.eq(a, a), s.max(a, b), a),
        Binary::Min => s.select(s.eq(a, a), s.min(a, b), a),
    }
}

struct Zip<'a> {
    op: Binary,
    b: &'a [f32],
    x: &'a mut [f32],
}

impl SimdOp for Zip<'_> {
    type Out = ();
    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let Zip { op, b, x } = self;
        per_op!(op, |op| {
            let (mut xs, mut bs) = (x.chunks_exact_mut(S::LANES), b.chunks_exact(S::LANES));
            for (x, b) in (&mut xs).zip(&mut bs) {
                let y = apply(s, op, s.load(x), s.load(b));
                s.store(x, y);
            }
            let (x, b) = (xs.into_remainder(), bs.remainder());
            let y = apply(s, op, s.load_tail(x), s.load_tail(b));
            s.store_tail(x, y);
        });
    }
}

struct One<'a> {
    op: Binary,
    b: f32,
    x: &'a mut [f32],
}

impl SimdOp for One<'_> {
    type Out = ();
    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let One { op, b, x } = self;
        let b = s.splat(b);
        per_op!(op, |op| {
            for x in x.chunks_mut(S::LANES) {
                if x.len() == S::LANES {
                    let y = apply(s, op, s.load(x), b);
                    s.store(x, y);
                } else {
                    let y = apply(s, op, s.load_tail(x), b);
                    s.store_tail(x, y);
                }
            }
        });
    }
}

struct Cycle<'a> {
    op: Binary,
    b: &'a [f32],
    x: &'a mut [f32],
}

impl SimdOp for Cycle<'_> {
    type Out = ();
    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let Cycle { op, b, x } = self;
        let b = s.load(b);
        per_op!(op, |op| {
            for x in x.chunks_exact_mut(S::LANES) {
                let y = apply(s, op, s.load(x), b);
                s.store(x, y);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::{close, guarded, isas, values};

    #[test]
    fn every_spread_and_operation() {
        let ops = [
            Binary::Add,
            Binary::Sub,
            Binary::RevSub,
            Binary::Mul,
            Binary::Div,
            Binary::RevDiv,
            Binary::Max,
            Binary::Min,
        ];
        for isa in isas() {
            let l = isa.lanes();
            let pool = Pool::new(3);
            for (outer, row) in [(1, l), (3, 5 * l), (7, 49 * l), (2, 17_000 / l * l)] {
                let a = values(outer * row, 1);
                for op in ops {
                    for spread in [
                        Spread::Same,
                        Spread::Scalar,
                        Spread::Row { row },
                        Spread::Outer { row },
                        Spread::Block { row },
                        Spread::Row { row: row / l },
                    ] {
                        let (len, at): (usize, Box<dyn Fn(usize) -> usize>) = match spread {
                            Spread::Same => (a.len(), Box::new(|i| i)),
                            Spread::Scalar => (1, Box::new(|_| 0)),
                            Spread::Row { row } => (row, Box::new(move |i| i % row)),
                            Spread::Outer { row } => (outer, Box::new(move |i| i / row)),
                            Spread::Block { row } => (outer * l, Box::new(move |i| i / row * l + i % l)),
                        };
                        let b: Vec<f32> = values(len, 2).iter().map(|x| x + 2.0).collect();
                        let f = |x: f32, y: f32| match op {
                            Binary::Add => x + y,
                            Binary::Sub => x - y,
                            Binary::RevSub => y - x,
                            Binary::Mul => x * y,
                            Binary::Div => x / y,
                            Binary::RevDiv => y / x,
                            Binary::Max => x.max(y),
                            Binary::Min => x.min(y),
                        };
                        let want: Vec<f32> = a.iter().enumerate().map(|(i, &x)| f(x, b[at(i)]).max(0.0)).collect();
                        let got = guarded(a.len(), |d| binary(&pool, isa, op, spread, Act::Relu, &a, &b, d));
                        close(&got, &want, 1e-6, &format!("{isa} {op:?} {spread:?}"));
                    }
                }
            }
            // Spread over outer, middle and inner axes, either operand, short and long rows.
            for (n, h, w) in [(3, 5, 7), (2, 9, 40), (1, 3, 1)] {
                let axes = [(n, [h * w, 0]), (h, [w, 1]), (w, [1, 0])];
                let (a, b) = (values(n * h * w, 4), values(h, 5));
                let want: Vec<f32> = (0..a.len()).map(|i| (a[i] - b[i / w % h]).max(0.0)).collect();
                let got = guarded(a.len(), |d| broadcast(&pool, isa, Binary::Sub, &axes, Act::Relu, &a, &b, d));
                close(&got, &want, 1e-6, &format!("{isa} broadcast {n} {h} {w}"));
                let axes = [(n, [0, w]), (h, [w, 0]), (w, [1, 1])];
                let (a, b) = (values(h * w, 6), values(n * w, 7));
                let want: Vec<f32> = (0..n * h * w).map(|i| a[i % (h * w)] * b[i / (h * w) * w + i % w]).collect();
                let got = guarded(want.len(), |d| broadcast(&pool, isa, Binary::Mul, &axes, Act::None, &a, &b, d));
                close(&got, &want, 1e-6, &format!("{isa} broadcast both {n} {h} {w}"));
            }
            let x = values(40_001, 3);
            let got = guarded(x.len(), |d| unary(&pool, isa, Act::Abs, &x, d));
            assert!(got.iter().zip(&x).all(|(g, x)| *g == x.abs()));
            for nan_first in [false, true] {
                let (a, b) = if nan_first { ([f32::NAN; 3], [1.0; 3]) } else { ([1.0; 3], [f32::NAN; 3]) };
                let got = guarded(3, |d| binary(&pool, isa, Binary::Max, Spread::Same, Act::None, &a, &b, d));
                assert!(got.iter().all(|x| x.is_nan()));
            }
        }
    }
}
