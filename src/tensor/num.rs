//! The numbers reference kernels compute with.
//!
//! Reference kernels are generic over [`Num`]. With `f32`/`f64` they are the oracle of the fast kernels; with [`Tally`],
//! a number that counts what is done to it, they prove the cost rules: counted equals formula, exactly.
//!
//! What counts as what: [`Num::madd`] is one MAdd; every other arithmetic operation on floating-point data (`+ − × ÷`,
//! negation, `max`, `min`, `abs`, comparison by `gt`, and each elementary function) is one *other* FLOP. Moving, comparing with `==`
//! and integer arithmetic are free.

use super::{DType, Tensor};
use crate::error::Result;
use std::cell::Cell;
use std::fmt::Debug;
use std::ops::{Add, Div, Mul, Neg, Sub};

/// A floating-point number a reference kernel can compute with.
pub trait Num:
    Copy
    + Debug
    + PartialOrd
    + Send
    + Sync
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + 'static
{
    /// A constant; free of charge.
    fn of(v: f64) -> Self;
    /// The value, free of charge.
    fn get(self) -> f64;
    /// `self + a·b`: one MAdd.
    fn madd(self, a: Self, b: Self) -> Self;
    /// Applies an elementary function (exp, erf, sqrt, floor, …) of `f64`: one FLOP. `f32` rounds the result once.
    fn apply(self, f: fn(f64) -> f64) -> Self;
    /// Applies a binary elementary function (pow, fmod, atan2 …): one FLOP.
    fn apply2(self, other: Self, f: fn(f64, f64) -> f64) -> Self;
    /// Larger of two; NaN if either is NaN (as ONNX Max, Relu and MaxPool do). One FLOP.
    fn max_nan(self, other: Self) -> Self;
    /// Smaller of two; NaN if either is NaN. One FLOP.
    fn min_nan(self, other: Self) -> Self;
    /// `self > other`: one FLOP.
    fn gt(self, other: Self) -> bool;
    /// Reads a tensor of this type's dtype.
    fn load(t: &Tensor) -> Result<Vec<Self>>;
    /// Makes a tensor of this type's dtype.
    fn store(values: Vec<Self>, dims: &[usize]) -> Result<Tensor>;
    /// Zero.
    fn zero() -> Self {
        Self::of(0.0)
    }
    /// e^self: one FLOP.
    fn exp(self) -> Self {
        self.apply(f64::exp)
    }
    /// √self: one FLOP.
    fn sqrt(self) -> Self {
        self.apply(f64::sqrt)
    }
    /// tanh: one FLOP.
    fn tanh(self) -> Self {
        self.apply(f64::tanh)
    }
}

macro_rules! plain {
    ($t:ty) => {
        impl Num for $t {
            #[inline(always)]
            fn of(v: f64) -> Self {
                v as $t
            }
            #[inline(always)]
            fn get(self) -> f64 {
                self as f64
            }
            #[inline(always)]
            fn madd(self, a: Self, b: Self) -> Self {
                self + a * b
            }
            #[inline(always)]
            fn apply(self, f: fn(f64) -> f64) -> Self {
                f(self as f64) as $t
            }
            #[inline(always)]
            fn apply2(self, other: Self, f: fn(f64, f64) -> f64) -> Self {
                f(self as f64, other as f64) as $t
            }
            #[inline(always)]
            fn max_nan(self, other: Self) -> Self {
                if self.is_nan() || self > other { self } else { other }
            }
            #[inline(always)]
            fn min_nan(self, other: Self) -> Self {
                if self.is_nan() || self < other { self } else { other }
            }
            #[inline(always)]
            fn gt(self, other: Self) -> bool {
                self > other
            }
            fn load(t: &Tensor) -> Result<Vec<Self>> {
                Ok(t.view::<$t>()?.into_owned())
            }
            fn store(values: Vec<Self>, dims: &[usize]) -> Result<Tensor> {
                Tensor::from_vec(values, dims)
            }
        }
    };
}
plain!(f32);
plain!(f64);

/// What counting numbers saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tallied {
    /// Multiply-adds.
    pub madds: u64,
    /// Every other floating-point operation.
    pub other: u64,
}

thread_local! {
    static MADDS: Cell<u64> = const { Cell::new(0) };
    static OTHER: Cell<u64> = const { Cell::new(0) };
}

/// What this thread's counting numbers have seen since the thread began.
pub fn tally_now() -> Tallied {
    Tallied { madds: MADDS.get(), other: OTHER.get() }
}

/// Adds multiply-adds that an integer kernel has just looped over under [`Arith::Counting`].
pub fn tally_madds(n: u64) {
    MADDS.set(MADDS.get() + n);
}

/// Adds other floating-point operations that a kernel has just done on plain numbers.
pub fn tally_other(n: u64) {
    OTHER.set(OTHER.get() + n);
}

/// Runs `f` and reports what [`Tally`] numbers did on this thread meanwhile.
pub fn tallied<R>(f: impl FnOnce() -> R) -> (R, Tallied) {
    let before = (MADDS.get(), OTHER.get());
    let result = f();
    (result, Tallied { madds: MADDS.get() - before.0, other: OTHER.get() - before.1 })
}

/// A number that counts the arithmetic done to it (per thread, read with [`tallied`]).
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Tallying<F>(F);

/// An `f32` that counts.
pub type Tally = Tallying<f32>;

#[inline(always)]
fn one_other() {
    OTHER.set(OTHER.get() + 1);
}

macro_rules! tally_op {
    ($trait:ident, $f:ident, $op:tt) => {
        impl<F: Num> $trait for Tallying<F> {
            type Output = Self;
            #[inline(always)]
            fn $f(self, o: Self) -> Self {
                one_other();
                Tallying(self.0 $op o.0)
            }
        }
    };
}
tally_op!(Add, add, +);
tally_op!(Sub, sub, -);
tally_op!(Mul, mul, *);
tally_op!(Div, div, /);

impl<F: Num> Neg for Tallying<F> {
    type Output = Self;
    #[inline(always)]
    fn neg(self) -> Self {
        one_other();
        Tallying(-self.0)
    }
}

/// Comparing with `<` or `==` is free: [`Num::gt`] is for where a comparison is arithmetic.
impl<F: Num> Num for Tallying<F> {
    #[inline(always)]
    fn of(v: f64) -> Self {
        Tallying(F::of(v))
    }
    #[inline(always)]
    fn get(self) -> f64 {
        self.0.get()
    }
    #[inline(always)]
    fn madd(self, a: Self, b: Self) -> Self {
        MADDS.set(MADDS.get() + 1);
        Tallying(self.0.madd(a.0, b.0))
    }
    #[inline(always)]
    fn apply(self, f: fn(f64) -> f64) -> Self {
        one_other();
        Tallying(self.0.apply(f))
    }
    #[inline(always)]
    fn apply2(self, other: Self, f: fn(f64, f64) -> f64) -> Self {
        one_other();
        Tallying(self.0.apply2(other.0, f))
    }
    #[inline(always)]
    fn max_nan(self, other: Self) -> Self {
        one_other();
        Tallying(self.0.max_nan(other.0))
    }
    #[inline(always)]
    fn min_nan(self, other: Self) -> Self {
        one_other();
        Tallying(self.0.min_nan(other.0))
    }
    #[inline(always)]
    fn gt(self, other: Self) -> bool {
        one_other();
        self.0.gt(other.0)
    }
    fn load(t: &Tensor) -> Result<Vec<Self>> {
        Ok(F::load(t)?.into_iter().map(Tallying).collect())
    }
    fn store(values: Vec<Self>, dims: &[usize]) -> Result<Tensor> {
        F::store(values.into_iter().map(|v| v.0).collect(), dims)
    }
}

/// Which number type reference kernels compute float data with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Arith {
    /// The data's own type.
    #[default]
    Native,
    /// [`Tallying`] numbers in place of `f32` and `f64`.
    Counting,
}

/// Runs `$body` with `$T` bound to the number type for float data of `$dtype` under `$arith`; the value of the whole is a
/// `Result`. (Narrow floats never get here: the evaluator widens them to `f32` first.)
#[macro_export]
macro_rules! with_num {
    ($arith:expr, $dtype:expr, $T:ident => $body:expr) => {{
        use $crate::tensor::{Arith, DType};
        match ($arith, $dtype) {
            (Arith::Counting, DType::F32) => {
                type $T = $crate::tensor::Tally;
                $body
            }
            (Arith::Counting, DType::F64) => {
                type $T = $crate::tensor::num::Tallying<f64>;
                $body
            }
            (_, DType::F32) => {
                type $T = f32;
                $body
            }
            (_, DType::F64) => {
                type $T = f64;
                $body
            }
            (_, other) => Err($crate::error::Error::run(format!("a {other} tensor where floating point is needed"))),
        }
    }};
}

/// Whether reference kernels of `dtype` data go through [`Num`].
pub fn is_num(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::F64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_counts_madds_apart_from_everything_else() {
        let ((), seen) = tallied(|| {
            let (a, b) = (Tally::of(2.0), Tally::of(3.0));
            let c = Tally::zero().madd(a, b); // 1 MAdd
            let d = (c + a).exp().max_nan(b); // 3 others
            assert!(d.gt(a)); // 1 other
            assert!(d != a); // free
        });
        assert_eq!(seen, Tallied { madds: 1, other: 4 });
    }

    #[test]
    fn nan_wins_in_max_and_min() {
        assert!(f32::NAN.max_nan(1.0).is_nan() && 1f32.max_nan(f32::NAN).is_nan());
        assert!(f64::NAN.min_nan(1.0).is_nan() && 1f64.min_nan(f64::NAN).is_nan());
    }
}
