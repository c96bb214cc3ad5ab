//! AVX-512 lanes: 16 x f32 in 32 registers.

use super::{Isa, Simd, SimdOp};
use std::arch::x86_64::*;

/// Proof that this CPU has avx, avx2, fma, avx512f, avx512bw, avx512dq, avx512vl, and with `BYTES` avx512vnni too.
#[derive(Clone, Copy, Debug)]
pub struct Avx512<const BYTES: bool = false>(());

impl Avx512 {
    /// The token, where the CPU has the instructions.
    #[inline(always)]
    pub fn new() -> Option<Avx512> {
        let found = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("fma");
        found.then_some(Avx512(()))
    }

    /// The token with the instruction that multiplies bytes.
    #[inline(always)]
    pub fn with_bytes() -> Option<Avx512<true>> {
        let found = Avx512::new().is_some() && is_x86_feature_detected!("avx512vnni");
        found.then_some(Avx512(()))
    }
}

/// # Safety
/// The CPU has the features, which holding the token proves.
#[target_feature(enable = "avx,avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn run<O: SimdOp>(s: Avx512, op: O) -> O::Out {
    op.call(s)
}

/// # Safety
/// Likewise.
#[target_feature(enable = "avx,avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn run_bytes<O: SimdOp>(s: Avx512<true>, op: O) -> O::Out {
    op.call(s)
}

// SAFETY of every block below: the token `self` exists only where detection found the features, and the pointer
// forms pass on the promise of their own caller.
impl<const BYTES: bool> Simd for Avx512<BYTES> {
    const LANES: usize = 16;
    const MR: usize = 14;
    const MR_ONE: usize = 8;
    const SPELLED: usize = 8;
    const ISA: Isa = Isa::Avx512;
    type F = __m512;
    type I = __m512i;
    type M = __mmask16;

    #[inline(always)]
    fn vectorize<O: SimdOp>(self, op: O) -> O::Out {
        // SAFETY: the token proves the features.
        unsafe { if BYTES { run_bytes(Avx512(()), op) } else { run(Avx512(()), op) } }
    }
    #[inline(always)]
    unsafe fn load_ptr(self, p: *const f32) -> __m512 {
        // SAFETY: the caller vouches for the memory, the token for the instructions.
        unsafe { _mm512_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn store_ptr(self, p: *mut f32, v: __m512) {
        // SAFETY: the caller vouches for the memory, the token for the instructions.
        unsafe { _mm512_storeu_ps(p, v) }
    }
    #[inline(always)]
    fn prefetch(self, p: *const f32) {
        // SAFETY: the token proves the features.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }
    #[inline(always)]
    fn prefetch_far(self, p: *const f32) {
        // SAFETY: the token proves the features.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(p.cast()) }
    }
    #[inline(always)]
    fn load_u8(self, x: &[u8]) -> __m512i {
        assert!(x.len() >= 16);
        // SAFETY: sixteen bytes are there; the token proves the features.
        unsafe { _mm512_cvtepu8_epi32(_mm_loadu_si128(x.as_ptr().cast())) }
    }
    #[inline(always)]
    fn load_i8(self, x: &[u8]) -> __m512i {
        assert!(x.len() >= 16);
        // SAFETY: sixteen bytes are there; the token proves the features.
        unsafe { _mm512_cvtepi8_epi32(_mm_loadu_si128(x.as_ptr().cast())) }
    }
    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        // SAFETY: the token proves the features.
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the token proves the features.
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the token proves the features.
        unsafe { _mm512_sub_ps(a, b) }
    }
    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the token proves the features.
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the token proves the features.
        unsafe { _mm512_div_ps(a, b) }
    }
    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the token proves the features.
        unsafe { _mm512_min_ps(a, b) }
    }
    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the token proves the features.
        unsafe { _mm512_max_ps(a, b) }
    }
    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: the token proves the features.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    fn scale(self, p: __m512, n: __m512) -> __m512 {
        // SAFETY: the token proves the features.
        unsafe { _mm512_scalef_ps(p, n) }
    }
    #[inline(always)]
    fn sqrt(self, a: __m512) -> __m512 {
        // SAFETY: the token proves the features.
        unsafe { _mm512_sqrt_ps(a) }
    }
    #[inline(always)]
    fn to_int(self, a: __m512) -> __m512i {
        // SAFETY: the token proves the features.
        unsafe { _mm512_cvttps_epi32(a) }
    }
    #[inline(always)]
    fn to_float(self, a: __m512i) -> __m512 {
        // SAFETY: the token proves the features.
        unsafe { _mm512_cvtepi32_ps(a) }
    }
    #[inline(always)]
    fn to_bits(self, a: __m512) -> __m512i {
        // SAFETY: the token proves the features.
        unsafe { _mm512_castps_si512(a) }
    }
    #[inline(always)]
    fn bits_to_float(self, a: __m512i) -> __m512 {
        // SAFETY: the token proves the features.
        unsafe { _mm512_castsi512_ps(a) }
    }
    #[inline(always)]
    fn splat_int(self, x: i32) -> __m512i {
        // SAFETY: the token proves the features.
        unsafe { _mm512_set1_epi32(x) }
    }
    #[inline(always)]
    fn load_int(self, x: &[i32]) -> __m512i {
        assert!(x.len() >= 16);
        // SAFETY: the slice has at least 16 elements; the token proves the features.
        unsafe { _mm512_loadu_si512(x.as_ptr().cast()) }
    }
    #[inline(always)]
    fn permute(self, a: __m512, index: __m512i) -> __m512 {
        // SAFETY: the token proves the features.
        unsafe { _mm512_permutexvar_ps(index, a) }
    }
    #[inline(always)]
    fn add_int(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: the token proves the features.
        unsafe { _mm512_add_epi32(a, b) }
    }
    #[inline(always)]
    fn sub_int(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: the token proves the features.
        unsafe { _mm512_sub_epi32(a, b) }
    }
    #[inline(always)]
    fn and_int(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: the token proves the features.
        unsafe { _mm512_and_si512(a, b) }
    }
    #[inline(always)]
    fn shl_int<const N: i32>(self, a: __m512i) -> __m512i {
        // SAFETY: the token proves the features.
        unsafe {
            // The count is below 32 at every use, so the variable shift means the same.
            _mm512_sllv_epi32(a, _mm512_set1_epi32(N))
        }
    }
    #[inline(always)]
    fn shr_int<const N: i32>(self, a: __m512i) -> __m512i {
        // SAFETY: the token proves the features.
        unsafe { _mm512_srav_epi32(a, _mm512_set1_epi32(N)) }
    }
    #[inline(always)]
    fn dot_bytes(self, sum: __m512i, codes: __m512i, digits: __m512i) -> __m512i {
        if BYTES {
            // SAFETY: the token proves the features.
            return unsafe { _mm512_dpbusd_epi32(sum, codes, digits) };
        }
        super::dot_byte_by_byte(self, sum, codes, digits)
    }
    #[inline(always)]
    unsafe fn load_n_ptr(self, p: *const f32, n: usize) -> __m512 {
        // SAFETY: the caller vouches for the memory, the token for the instructions.
        unsafe {
            let m = (0xffff_u32 >> (16 - n.min(16))) as __mmask16;
            _mm512_maskz_loadu_ps(m, p)
        }
    }
    #[inline(always)]
    unsafe fn store_n_ptr(self, p: *mut f32, v: __m512, n: usize) {
        // SAFETY: the caller vouches for the memory, the token for the instructions.
        unsafe {
            let m = (0xffff_u32 >> (16 - n.min(16))) as __mmask16;
            _mm512_mask_storeu_ps(p, m, v)
        }
    }
    #[inline(always)]
    fn abs(self, a: __m512) -> __m512 {
        // SAFETY: the token proves the features.
        unsafe { _mm512_abs_ps(a) }
    }
    #[inline(always)]
    fn copysign(self, a: __m512, sign: __m512) -> __m512 {
        // SAFETY: the token proves the features.
        unsafe {
            let m = _mm512_set1_ps(-0.0);
            _mm512_or_ps(_mm512_andnot_ps(m, a), _mm512_and_ps(m, sign))
        }
    }
    #[inline(always)]
    fn round(self, a: __m512) -> __m512 {
        // SAFETY: the token proves the features.
        unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT }>(a) }
    }
    #[inline(always)]
    fn floor(self, a: __m512) -> __m512 {
        // SAFETY: the token proves the features.
        unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEG_INF }>(a) }
    }
    #[inline(always)]
    fn lt(self, a: __m512, b: __m512) -> __mmask16 {
        // SAFETY: the token proves the features.
        unsafe { _mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b) }
    }
    #[inline(always)]
    fn le(self, a: __m512, b: __m512) -> __mmask16 {
        // SAFETY: the token proves the features.
        unsafe { _mm512_cmp_ps_mask::<_CMP_LE_OQ>(a, b) }
    }
    #[inline(always)]
    fn eq(self, a: __m512, b: __m512) -> __mmask16 {
        // SAFETY: the token proves the features.
        unsafe { _mm512_cmp_ps_mask::<_CMP_EQ_OQ>(a, b) }
    }
    #[inline(always)]
    fn select(self, m: __mmask16, a: __m512, b: __m512) -> __m512 {
        // SAFETY: the token proves the features.
        unsafe { _mm512_mask_blend_ps(m, b, a) }
    }
    #[inline(always)]
    fn reduce_add(self, a: __m512) -> f32 {
        // SAFETY: the token proves the features.
        unsafe { _mm512_reduce_add_ps(a) }
    }
    #[inline(always)]
    fn reduce_max(self, a: __m512) -> f32 {
        // SAFETY: the token proves the features.
        unsafe { _mm512_reduce_max_ps(a) }
    }
}
