//! Loops that do nothing but load one thing: the arithmetic units, or the way from memory. What they reach is a ceiling.

use super::{Simd, SimdOp};
use std::hint::black_box;

/// Values per unrolled pass of the memory loops, a multiple of every vector: buffers should be multiples of it.
pub const STRIDE: usize = 128;

/// Multiply-adds on registers only, in `C` independent chains; gives the multiply-adds done.
///
/// How many chains fill the units differs: too few leave them waiting, too many spill. Try several and keep the best.
pub struct Fma<const C: usize> {
    /// Rounds over all chains.
    pub rounds: usize,
}

impl<const C: usize> SimdOp for Fma<C> {
    type Out = usize;
    #[inline(always)]
    fn call<S: Simd>(self, s: S) -> usize {
        // A fixed point of the map, so that values stay normal numbers however long it runs.
        let (a, b) = (s.splat(black_box(0.5)), s.splat(black_box(0.5)));
        let mut acc = [s.splat(black_box(1.0)); C];
        for _ in 0..self.rounds {
            for v in &mut acc {
                *v = s.fma(*v, a, b);
            }
        }
        let sum = acc.into_iter().fold(s.splat(0.0), |x, y| s.add(x, y));
        black_box(s.reduce_add(sum));
        self.rounds * C * S::LANES
    }
}

/// Reads all whole strides of a slice.
pub struct Read<'a>(pub &'a [f32]);

impl SimdOp for Read<'_> {
    type Out = f32;
    #[inline(always)]
    fn call<S: Simd>(self, s: S) -> f32 {
        const CHAINS: usize = 8;
        let mut acc = [s.splat(0.0); CHAINS];
        for part in self.0.chunks_exact(CHAINS * S::LANES) {
            for (i, v) in acc.iter_mut().enumerate() {
                // SAFETY: the part holds CHAINS whole vectors.
                *v = s.max(*v, unsafe { s.load_ptr(part.as_ptr().add(i * S::LANES)) });
            }
        }
        s.reduce_max(acc.into_iter().fold(s.splat(0.0), |x, y| s.max(x, y)))
    }
}

/// Copies all whole strides of one slice to another of the same length.
pub struct Copy<'a>(pub &'a [f32], pub &'a mut [f32]);

impl SimdOp for Copy<'_> {
    type Out = ();
    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        const AT_ONCE: usize = 4;
        let step = AT_ONCE * S::LANES;
        let len = self.0.len().min(self.1.len()) / step * step;
        let (from, to) = (self.0.as_ptr(), self.1.as_mut_ptr());
        // Plain indices: iterators over both slices leave calls in the loop where crates are compiled unit by unit.
        let mut at = 0;
        while at < len {
            let mut i = 0;
            while i < AT_ONCE {
                // SAFETY: whole vectors of both slices up to `len`.
                unsafe { s.store_ptr(to.add(at + i * S::LANES), s.load_ptr(from.add(at + i * S::LANES))) };
                i += 1;
            }
            at += step;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{Isa, dispatch};

    #[test]
    fn loops_do_what_they_count() {
        for isa in Isa::for_tests() {
            assert_eq!(dispatch(isa, Fma::<6> { rounds: 10 }), 60 * isa.lanes());
            let mut from = vec![1.0; 3 * STRIDE];
            from[3 * STRIDE - 1] = 7.0;
            assert_eq!(dispatch(isa, Read(&from)), 7.0, "{isa}");
            let mut to = vec![0.0; from.len()];
            dispatch(isa, Copy(&from, &mut to));
            assert_eq!(from, to, "{isa}");
            assert!(STRIDE.is_multiple_of(8 * isa.lanes()), "{isa}");
        }
    }
}
