//! aarch64 Advanced SIMD lanes: pairs of 4 x f32 in 32 registers.

use super::{Isa, Simd, SimdOp};
use std::arch::aarch64::*;

/// Proof that this CPU has neon.
#[derive(Clone, Copy, Debug)]
pub struct Neon(());

impl Neon {
    /// The token: Advanced SIMD is part of the aarch64 baseline.
    #[inline(always)]
    pub fn new() -> Neon {
        Neon(())
    }
}

/// # Safety
/// The CPU has the features, which holding the token proves.
#[target_feature(enable = "neon")]
unsafe fn run<O: SimdOp>(s: Neon, op: O) -> O::Out {
    op.call(s)
}

// SAFETY of every block below: the token `self` exists only where detection found the features, and the pointer
// forms pass on the promise of their own caller.
impl Simd for Neon {
    const LANES: usize = 8;
    const MR: usize = 6;
    const MR_ONE: usize = 8;
    const SPELLED: usize = 4;
    const ISA: Isa = Isa::Neon;
    type F = [float32x4_t; 2];
    type I = [int32x4_t; 2];
    type M = [uint32x4_t; 2];

    #[inline(always)]
    fn vectorize<O: SimdOp>(self, op: O) -> O::Out {
        // SAFETY: the token proves the features.
        unsafe { run(self, op) }
    }
    #[inline(always)]
    unsafe fn load_ptr(self, p: *const f32) -> Self::F {
        // SAFETY: the caller vouches for the memory, the token for the instructions.
        unsafe { [vld1q_f32(p), vld1q_f32(p.add(4))] }
    }
    #[inline(always)]
    unsafe fn store_ptr(self, p: *mut f32, v: Self::F) {
        // SAFETY: the caller vouches for the memory, the token for the instructions.
        unsafe {
            vst1q_f32(p, v[0]);
            vst1q_f32(p.add(4), v[1])
        }
    }
    #[inline(always)]
    unsafe fn load_n_ptr(self, p: *const f32, n: usize) -> Self::F {
        // SAFETY: the caller vouches for the memory, the token for the instructions.
        unsafe {
            let mut t = [0.0f32; 8];
            std::ptr::copy_nonoverlapping(p, t.as_mut_ptr(), n.min(8));
            self.load_ptr(t.as_ptr())
        }
    }
    #[inline(always)]
    unsafe fn store_n_ptr(self, p: *mut f32, v: Self::F, n: usize) {
        // SAFETY: the caller vouches for the memory, the token for the instructions.
        unsafe {
            let mut t = [0.0f32; 8];
            self.store_ptr(t.as_mut_ptr(), v);
            std::ptr::copy_nonoverlapping(t.as_ptr(), p, n.min(8))
        }
    }
    #[inline(always)]
    fn prefetch(self, p: *const f32) {
        // SAFETY: the token proves the features.
        unsafe { std::arch::asm!("prfm pldl1keep, [{0}]", in(reg) p, options(nostack, preserves_flags, readonly)) }
    }
    #[inline(always)]
    fn load_u8(self, x: &[u8]) -> Self::I {
        assert!(x.len() >= 8);
        // SAFETY: eight bytes are there; the token proves the features.
        unsafe {
            let wide = vmovl_u8(vld1_u8(x.as_ptr()));
            [
                vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(wide))),
                vreinterpretq_s32_u32(vmovl_u16(vget_high_u16(wide))),
            ]
        }
    }
    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        // SAFETY: the token proves the features.
        unsafe {
            let v = vdupq_n_f32(x);
            [v, v]
        }
    }
    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: the token proves the features.
        unsafe { [vaddq_f32(a[0], b[0]), vaddq_f32(a[1], b[1])] }
    }
    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: the token proves the features.
        unsafe { [vsubq_f32(a[0], b[0]), vsubq_f32(a[1], b[1])] }
    }
    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: the token proves the features.
        unsafe { [vmulq_f32(a[0], b[0]), vmulq_f32(a[1], b[1])] }
    }
    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: the token proves the features.
        unsafe { [vdivq_f32(a[0], b[0]), vdivq_f32(a[1], b[1])] }
    }
    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        // SAFETY: the token proves the features.
        unsafe { [vfmaq_f32(c[0], a[0], b[0]), vfmaq_f32(c[1], a[1], b[1])] }
    }
    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        self.select(self.lt(a, b), a, b)
    }
    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        self.select(self.lt(b, a), a, b)
    }
    #[inline(always)]
    fn sqrt(self, a: Self::F) -> Self::F {
        // SAFETY: the token proves the features.
        unsafe { [vsqrtq_f32(a[0]), vsqrtq_f32(a[1])] }
    }
    #[inline(always)]
    fn abs(self, a: Self::F) -> Self::F {
        // SAFETY: the token proves the features.
        unsafe { [vabsq_f32(a[0]), vabsq_f32(a[1])] }
    }
    #[inline(always)]
    fn round(self, a: Self::F) -> Self::F {
        // SAFETY: the token proves the features.
        unsafe { [vrndnq_f32(a[0]), vrndnq_f32(a[1])] }
    }
    #[inline(always)]
    fn floor(self, a: Self::F) -> Self::F {
        // SAFETY: the token proves the features.
        unsafe { [vrndmq_f32(a[0]), vrndmq_f32(a[1])] }
    }
    #[inline(always)]
    fn copysign(self, a: Self::F, sign: Self::F) -> Self::F {
        // SAFETY: the token proves the features.
        unsafe {
            let m = vdupq_n_u32(0x8000_0000);
            [vbslq_f32(m, sign[0], a[0]), vbslq_f32(m, sign[1], a[1])]
        }
    }
    #[inline(always)]
    fn lt(self, a: Self::F, b: Self::F) -> Self::M {
        // SAFETY: the token proves the features.
        unsafe { [vcltq_f32(a[0], b[0]), vcltq_f32(a[1], b[1])] }
    }
    #[inline(always)]
    fn le(self, a: Self::F, b: Self::F) -> Self::M {
        // SAFETY: the token proves the features.
        unsafe { [vcleq_f32(a[0], b[0]), vcleq_f32(a[1], b[1])] }
    }
    #[inline(always)]
    fn eq(self, a: Self::F, b: Self::F) -> Self::M {
        // SAFETY: the token proves the features.
        unsafe { [vceqq_f32(a[0], b[0]), vceqq_f32(a[1], b[1])] }
    }
    #[inline(always)]
    fn select(self, m: Self::M, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: the token proves the features.
        unsafe { [vbslq_f32(m[0], a[0], b[0]), vbslq_f32(m[1], a[1], b[1])] }
    }
    #[inline(always)]
    fn reduce_add(self, a: Self::F) -> f32 {
        // SAFETY: the token proves the features.
        unsafe { vaddvq_f32(vaddq_f32(a[0], a[1])) }
    }
    #[inline(always)]
    fn reduce_max(self, a: Self::F) -> f32 {
        // SAFETY: the token proves the features.
        unsafe { vmaxvq_f32(vmaxq_f32(a[0], a[1])) }
    }
    #[inline(always)]
    fn to_int(self, a: Self::F) -> Self::I {
        // SAFETY: the token proves the features.
        unsafe { [vcvtq_s32_f32(a[0]), vcvtq_s32_f32(a[1])] }
    }
    #[inline(always)]
    fn to_float(self, a: Self::I) -> Self::F {
        // SAFETY: the token proves the features.
        unsafe { [vcvtq_f32_s32(a[0]), vcvtq_f32_s32(a[1])] }
    }
    #[inline(always)]
    fn to_bits(self, a: Self::F) -> Self::I {
        // SAFETY: the token proves the features.
        unsafe { [vreinterpretq_s32_f32(a[0]), vreinterpretq_s32_f32(a[1])] }
    }
    #[inline(always)]
    fn bits_to_float(self, a: Self::I) -> Self::F {
        // SAFETY: the token proves the features.
        unsafe { [vreinterpretq_f32_s32(a[0]), vreinterpretq_f32_s32(a[1])] }
    }
    #[inline(always)]
    fn splat_int(self, x: i32) -> Self::I {
        // SAFETY: the token proves the features.
        unsafe {
            let v = vdupq_n_s32(x);
            [v, v]
        }
    }
    #[inline(always)]
    fn load_int(self, x: &[i32]) -> Self::I {
        assert!(x.len() >= 8);
        // SAFETY: the slice has at least 8 elements; the token proves the features.
        unsafe { [vld1q_s32(x.as_ptr()), vld1q_s32(x.as_ptr().add(4))] }
    }
    #[inline(always)]
    fn permute(self, a: Self::F, index: Self::I) -> Self::F {
        let (mut values, mut at) = ([0.0f32; 8], [0i32; 8]);
        // SAFETY: both arrays have 8 elements; the token proves the features.
        unsafe {
            for i in 0..2 {
                vst1q_f32(values.as_mut_ptr().add(4 * i), a[i]);
                vst1q_s32(at.as_mut_ptr().add(4 * i), index[i]);
            }
        }
        self.load(&at.map(|i| values[i as usize % 8]))
    }
    #[inline(always)]
    fn add_int(self, a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: the token proves the features.
        unsafe { [vaddq_s32(a[0], b[0]), vaddq_s32(a[1], b[1])] }
    }
    #[inline(always)]
    fn sub_int(self, a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: the token proves the features.
        unsafe { [vsubq_s32(a[0], b[0]), vsubq_s32(a[1], b[1])] }
    }
    #[inline(always)]
    fn and_int(self, a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: the token proves the features.
        unsafe { [vandq_s32(a[0], b[0]), vandq_s32(a[1], b[1])] }
    }
    #[inline(always)]
    fn shl_int<const N: i32>(self, a: Self::I) -> Self::I {
        // SAFETY: the token proves the features.
        unsafe {
            let n = vdupq_n_s32(N);
            [vshlq_s32(a[0], n), vshlq_s32(a[1], n)]
        }
    }
    #[inline(always)]
    fn shr_int<const N: i32>(self, a: Self::I) -> Self::I {
        // SAFETY: the token proves the features.
        unsafe {
            let n = vdupq_n_s32(-N);
            [vshlq_s32(a[0], n), vshlq_s32(a[1], n)]
        }
    }
}
