//! The portable lanes: arrays that the compiler vectorises for the baseline target.

use super::{Isa, Simd, SimdOp};

/// Rows of the portable register tile: what fits 16 baseline registers of 4 lanes.
pub const PORTABLE_MR: usize = 2;

/// `L` lanes in an array; no CPU feature is needed. 8 lanes are the portable path, 16 exist for tests.
#[derive(Clone, Copy, Debug)]
pub struct Portable<const L: usize>;

/// One value per lane. `std::array::from_fn` is not inlined where crates are compiled unit by unit, and a call per lane costs the
/// portable path most of its speed.
#[inline(always)]
fn lanes<T: Copy + Default, const L: usize>(f: impl Fn(usize) -> T) -> [T; L] {
    // Tiles of 16 lanes, which only tests run, would take minutes to compile as 448 values each.
    if L == 16 { called(f) } else { spelled(f) }
}

#[inline(never)]
fn called<T: Copy + Default, const L: usize>(f: impl Fn(usize) -> T) -> [T; L] {
    spelled(f)
}

#[inline(always)]
fn spelled<T: Copy + Default, const L: usize>(f: impl Fn(usize) -> T) -> [T; L] {
    let mut out = [T::default(); L];
    let mut i = 0;
    while i < L {
        out[i] = f(i);
        i += 1;
    }
    out
}

impl<const L: usize> Portable<L> {
    #[inline(always)]
    fn map(self, a: [f32; L], f: impl Fn(f32) -> f32) -> [f32; L] {
        lanes(|i| f(a[i]))
    }
    #[inline(always)]
    fn zip(self, a: [f32; L], b: [f32; L], f: impl Fn(f32, f32) -> f32) -> [f32; L] {
        lanes(|i| f(a[i], b[i]))
    }
    #[inline(always)]
    fn zip_int(self, a: [i32; L], b: [i32; L], f: impl Fn(i32, i32) -> i32) -> [i32; L] {
        lanes(|i| f(a[i], b[i]))
    }
}

impl<const L: usize> Simd for Portable<L> {
    const LANES: usize = L;
    const MR: usize = if L == 16 { 14 } else { PORTABLE_MR };
    const MR_ONE: usize = if L == 16 { 8 } else { 4 };
    const SPELLED: usize = if L == 16 { 1 } else { 4 };
    #[cfg(any(test, debug_assertions))]
    const ISA: Isa = if L == 16 { Isa::Wide } else { Isa::Portable };
    #[cfg(not(any(test, debug_assertions)))]
    const ISA: Isa = Isa::Portable;
    type F = [f32; L];
    type I = [i32; L];
    type M = [bool; L];

    #[inline(always)]
    fn vectorize<O: SimdOp>(self, op: O) -> O::Out {
        op.call(self)
    }
    #[inline(always)]
    unsafe fn load_ptr(self, p: *const f32) -> [f32; L] {
        // SAFETY: the caller vouches for L readable f32, at any alignment.
        unsafe { p.cast::<[f32; L]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store_ptr(self, p: *mut f32, v: [f32; L]) {
        // SAFETY: the caller vouches for L writable f32.
        unsafe { p.cast::<[f32; L]>().write(v) }
    }
    #[inline(always)]
    unsafe fn load_n_ptr(self, p: *const f32, n: usize) -> [f32; L] {
        // SAFETY: only indices below n, vouched for by the caller, are read.
        lanes(|i| if i < n { unsafe { p.add(i).read() } } else { 0.0 })
    }
    #[inline(always)]
    unsafe fn store_n_ptr(self, p: *mut f32, v: [f32; L], n: usize) {
        for (i, x) in v.into_iter().enumerate().take(n) {
            // SAFETY: only indices below n, vouched for by the caller, are written.
            unsafe { p.add(i).write(x) }
        }
    }
    #[inline(always)]
    fn prefetch(self, _p: *const f32) {}
    #[inline(always)]
    fn load_u8(self, x: &[u8]) -> [i32; L] {
        assert!(x.len() >= L);
        std::array::from_fn(|i| i32::from(x[i]))
    }
    #[inline(always)]
    fn splat(self, x: f32) -> [f32; L] {
        [x; L]
    }
    #[inline(always)]
    fn add(self, a: [f32; L], b: [f32; L]) -> [f32; L] {
        self.zip(a, b, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, a: [f32; L], b: [f32; L]) -> [f32; L] {
        self.zip(a, b, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, a: [f32; L], b: [f32; L]) -> [f32; L] {
        self.zip(a, b, |a, b| a * b)
    }
    #[inline(always)]
    fn div(self, a: [f32; L], b: [f32; L]) -> [f32; L] {
        self.zip(a, b, |a, b| a / b)
    }
    #[inline(always)]
    fn fma(self, a: [f32; L], b: [f32; L], c: [f32; L]) -> [f32; L] {
        lanes(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    fn min(self, a: [f32; L], b: [f32; L]) -> [f32; L] {
        self.zip(a, b, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    fn max(self, a: [f32; L], b: [f32; L]) -> [f32; L] {
        self.zip(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn sqrt(self, a: [f32; L]) -> [f32; L] {
        self.map(a, f32::sqrt)
    }
    #[inline(always)]
    fn abs(self, a: [f32; L]) -> [f32; L] {
        self.map(a, f32::abs)
    }
    #[inline(always)]
    fn copysign(self, a: [f32; L], sign: [f32; L]) -> [f32; L] {
        self.zip(a, sign, f32::copysign)
    }
    #[inline(always)]
    fn round(self, a: [f32; L]) -> [f32; L] {
        // Adding and taking away 2^23 rounds to even in the baseline instruction set, without a call per lane.
        self.map(a, |x| {
            let magic = 8_388_608.0f32;
            let r = ((x.abs() + magic) - magic).copysign(x);
            if x.abs() < magic { r } else { x }
        })
    }
    #[inline(always)]
    fn floor(self, a: [f32; L]) -> [f32; L] {
        let r = self.round(a);
        self.zip(a, r, |x, r| if r > x { r - 1.0 } else { r })
    }
    #[inline(always)]
    fn lt(self, a: [f32; L], b: [f32; L]) -> [bool; L] {
        lanes(|i| a[i] < b[i])
    }
    #[inline(always)]
    fn le(self, a: [f32; L], b: [f32; L]) -> [bool; L] {
        lanes(|i| a[i] <= b[i])
    }
    #[inline(always)]
    fn eq(self, a: [f32; L], b: [f32; L]) -> [bool; L] {
        lanes(|i| a[i] == b[i])
    }
    #[inline(always)]
    fn select(self, m: [bool; L], a: [f32; L], b: [f32; L]) -> [f32; L] {
        lanes(|i| if m[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn reduce_add(self, mut a: [f32; L]) -> f32 {
        let mut n = L;
        while n > 1 {
            n /= 2;
            for i in 0..n {
                a[i] += a[i + n];
            }
        }
        a[0]
    }
    #[inline(always)]
    fn reduce_max(self, a: [f32; L]) -> f32 {
        a.into_iter().fold(f32::NEG_INFINITY, |m, x| if x > m { x } else { m })
    }
    #[inline(always)]
    fn to_int(self, a: [f32; L]) -> [i32; L] {
        lanes(|i| a[i] as i32)
    }
    #[inline(always)]
    fn to_float(self, a: [i32; L]) -> [f32; L] {
        lanes(|i| a[i] as f32)
    }
    #[inline(always)]
    fn to_bits(self, a: [f32; L]) -> [i32; L] {
        lanes(|i| a[i].to_bits() as i32)
    }
    #[inline(always)]
    fn bits_to_float(self, a: [i32; L]) -> [f32; L] {
        lanes(|i| f32::from_bits(a[i] as u32))
    }
    #[inline(always)]
    fn splat_int(self, x: i32) -> [i32; L] {
        [x; L]
    }
    #[inline(always)]
    fn load_int(self, x: &[i32]) -> [i32; L] {
        lanes(|i| x[i])
    }
    #[inline(always)]
    fn permute(self, a: [f32; L], index: [i32; L]) -> [f32; L] {
        lanes(|i| a[index[i] as usize % L])
    }
    #[inline(always)]
    fn add_int(self, a: [i32; L], b: [i32; L]) -> [i32; L] {
        self.zip_int(a, b, i32::wrapping_add)
    }
    #[inline(always)]
    fn sub_int(self, a: [i32; L], b: [i32; L]) -> [i32; L] {
        self.zip_int(a, b, i32::wrapping_sub)
    }
    #[inline(always)]
    fn and_int(self, a: [i32; L], b: [i32; L]) -> [i32; L] {
        self.zip_int(a, b, |a, b| a & b)
    }
    #[inline(always)]
    fn shl_int<const N: i32>(self, a: [i32; L]) -> [i32; L] {
        lanes(|i| a[i] << N)
    }
    #[inline(always)]
    fn shr_int<const N: i32>(self, a: [i32; L]) -> [i32; L] {
        lanes(|i| a[i] >> N)
    }
}
