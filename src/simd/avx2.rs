//! AVX2 + FMA lanes: 8 x f32 in 16 registers.

use super::{Isa, Simd, SimdOp};
use std::arch::x86_64::*;

/// Proof that this CPU has avx, avx2, fma.
#[derive(Clone, Copy, Debug)]
pub struct Avx2(());

impl Avx2 {
    /// The token, where the CPU has the instructions.
    #[inline(always)]
    pub fn new() -> Option<Avx2> {
        let found = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        found.then_some(Avx2(()))
    }
}

/// # Safety
/// The CPU has the features, which holding the token proves.
#[target_feature(enable = "avx,avx2,fma")]
unsafe fn run<O: SimdOp>(s: Avx2, op: O) -> O::Out {
    op.call(s)
}

// SAFETY of every block below: the token `self` exists only where detection found the features, and the pointer
// forms pass on the promise of their own caller.
impl Simd for Avx2 {
    const LANES: usize = 8;
    const MR: usize = 6;
    const MR_ONE: usize = 8;
    const SPELLED: usize = 8;
    const ISA: Isa = Isa::Avx2;
    type F = __m256;
    type I = __m256i;
    type M = __m256;

    #[inline(always)]
    fn vectorize<O: SimdOp>(self, op: O) -> O::Out {
        // SAFETY: the token proves the features.
        unsafe { run(self, op) }
    }
    #[inline(always)]
    unsafe fn load_ptr(self, p: *const f32) -> __m256 {
        // SAFETY: the caller vouches for the memory, the token for the instructions.
        unsafe { _mm256_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn store_ptr(self, p: *mut f32, v: __m256) {
        // SAFETY: the caller vouches for the memory, the token for the instructions.
        unsafe { _mm256_storeu_ps(p, v) }
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
    fn load_u8(self, x: &[u8]) -> __m256i {
        assert!(x.len() >= 8);
        // SAFETY: eight bytes are there; the token proves the features.
        unsafe { _mm256_cvtepu8_epi32(_mm_loadl_epi64(x.as_ptr().cast())) }
    }
    #[inline(always)]
    fn load_i8(self, x: &[u8]) -> __m256i {
        assert!(x.len() >= 8);
        // SAFETY: eight bytes are there; the token proves the features.
        unsafe { _mm256_cvtepi8_epi32(_mm_loadl_epi64(x.as_ptr().cast())) }
    }
    #[inline(always)]
    fn splat(self, x: f32) -> __m256 {
        // SAFETY: the token proves the features.
        unsafe { _mm256_set1_ps(x) }
    }
    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the token proves the features.
        unsafe { _mm256_add_ps(a, b) }
    }
    #[inline(always)]
    fn sub(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the token proves the features.
        unsafe { _mm256_sub_ps(a, b) }
    }
    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the token proves the features.
        unsafe { _mm256_mul_ps(a, b) }
    }
    #[inline(always)]
    fn div(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the token proves the features.
        unsafe { _mm256_div_ps(a, b) }
    }
    #[inline(always)]
    fn min(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the token proves the features.
        unsafe { _mm256_min_ps(a, b) }
    }
    #[inline(always)]
    fn max(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the token proves the features.
        unsafe { _mm256_max_ps(a, b) }
    }
    #[inline(always)]
    fn fma(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        // SAFETY: the token proves the features.
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    fn sqrt(self, a: __m256) -> __m256 {
        // SAFETY: the token proves the features.
        unsafe { _mm256_sqrt_ps(a) }
    }
    #[inline(always)]
    fn to_int(self, a: __m256) -> __m256i {
        // SAFETY: the token proves the features.
        unsafe { _mm256_cvttps_epi32(a) }
    }
    #[inline(always)]
    fn to_float(self, a: __m256i) -> __m256 {
        // SAFETY: the token proves the features.
        unsafe { _mm256_cvtepi32_ps(a) }
    }
    #[inline(always)]
    fn to_bits(self, a: __m256) -> __m256i {
        // SAFETY: the token proves the features.
        unsafe { _mm256_castps_si256(a) }
    }
    #[inline(always)]
    fn bits_to_float(self, a: __m256i) -> __m256 {
        // SAFETY: the token proves the features.
        unsafe { _mm256_castsi256_ps(a) }
    }
    #[inline(always)]
    fn splat_int(self, x: i32) -> __m256i {
        // SAFETY: the token proves the features.
        unsafe { _mm256_set1_epi32(x) }
    }
    #[inline(always)]
    fn load_int(self, x: &[i32]) -> __m256i {
        assert!(x.len() >= 8);
        // SAFETY: the slice has at least 8 elements; the token proves the features.
        unsafe { _mm256_loadu_si256(x.as_ptr().cast()) }
    }
    #[inline(always)]
    fn permute(self, a: __m256, index: __m256i) -> __m256 {
        // SAFETY: the token proves the features.
        unsafe { _mm256_permutevar8x32_ps(a, index) }
    }
    #[inline(always)]
    fn add_int(self, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: the token proves the features.
        unsafe { _mm256_add_epi32(a, b) }
    }
    #[inline(always)]
    fn sub_int(self, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: the token proves the features.
        unsafe { _mm256_sub_epi32(a, b) }
    }
    #[inline(always)]
    fn and_int(self, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: the token proves the features.
        unsafe { _mm256_and_si256(a, b) }
    }
    #[inline(always)]
    fn shl_int<const N: i32>(self, a: __m256i) -> __m256i {
        // SAFETY: the token proves the features.
        unsafe { _mm256_slli_epi32::<N>(a) }
    }
    #[inline(always)]
    fn shr_int<const N: i32>(self, a: __m256i) -> __m256i {
        // SAFETY: the token proves the features.
        unsafe { _mm256_srai_epi32::<N>(a) }
    }
    #[inline(always)]
    unsafe fn load_n_ptr(self, p: *const f32, n: usize) -> __m256 {
        // SAFETY: the caller vouches for the memory, the token for the instructions.
        unsafe {
            let lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
            let m = _mm256_cmpgt_epi32(_mm256_set1_epi32(n as i32), lane);
            _mm256_maskload_ps(p, m)
        }
    }
    #[inline(always)]
    unsafe fn store_n_ptr(self, p: *mut f32, v: __m256, n: usize) {
        // In pieces: a masked store costs some dozens of steps on many cores.
        // SAFETY: the caller vouches for the memory, the token for the instructions.
        unsafe {
            if n >= 8 {
                return _mm256_storeu_ps(p, v);
            }
            let mut at = 0;
            let mut half = _mm256_castps256_ps128(v);
            if n & 4 != 0 {
                _mm_storeu_ps(p, half);
                half = _mm256_extractf128_ps::<1>(v);
                at = 4;
            }
            if n & 2 != 0 {
                _mm_storel_pd(p.add(at).cast(), _mm_castps_pd(half));
                half = _mm_movehl_ps(half, half);
                at += 2;
            }
            if n & 1 != 0 {
                _mm_store_ss(p.add(at), half);
            }
        }
    }
    #[inline(always)]
    fn abs(self, a: __m256) -> __m256 {
        // SAFETY: the token proves the features.
        unsafe { _mm256_andnot_ps(_mm256_set1_ps(-0.0), a) }
    }
    #[inline(always)]
    fn copysign(self, a: __m256, sign: __m256) -> __m256 {
        // SAFETY: the token proves the features.
        unsafe {
            let m = _mm256_set1_ps(-0.0);
            _mm256_or_ps(_mm256_andnot_ps(m, a), _mm256_and_ps(m, sign))
        }
    }
    #[inline(always)]
    fn round(self, a: __m256) -> __m256 {
        // SAFETY: the token proves the features.
        unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
    }
    #[inline(always)]
    fn floor(self, a: __m256) -> __m256 {
        // SAFETY: the token proves the features.
        unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC }>(a) }
    }
    #[inline(always)]
    fn lt(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the token proves the features.
        unsafe { _mm256_cmp_ps::<_CMP_LT_OQ>(a, b) }
    }
    #[inline(always)]
    fn le(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the token proves the features.
        unsafe { _mm256_cmp_ps::<_CMP_LE_OQ>(a, b) }
    }
    #[inline(always)]
    fn eq(self, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the token proves the features.
        unsafe { _mm256_cmp_ps::<_CMP_EQ_OQ>(a, b) }
    }
    #[inline(always)]
    fn select(self, m: __m256, a: __m256, b: __m256) -> __m256 {
        // SAFETY: the token proves the features.
        unsafe { _mm256_blendv_ps(b, a, m) }
    }
    #[inline(always)]
    fn reduce_add(self, a: __m256) -> f32 {
        // SAFETY: the token proves the features.
        unsafe {
            let h = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let h = _mm_add_ps(h, _mm_movehl_ps(h, h));
            _mm_cvtss_f32(_mm_add_ss(h, _mm_shuffle_ps::<1>(h, h)))
        }
    }
    #[inline(always)]
    fn reduce_max(self, a: __m256) -> f32 {
        // SAFETY: the token proves the features.
        unsafe {
            let h = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let h = _mm_max_ps(h, _mm_movehl_ps(h, h));
            _mm_cvtss_f32(_mm_max_ss(h, _mm_shuffle_ps::<1>(h, h)))
        }
    }
}
