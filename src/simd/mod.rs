//! Vector lanes: one trait, four instruction sets, chosen at run time.
//!
//! A token type (`Portable`, `Avx2`, `Avx512`, `Neon`) implements [`Simd`]; it can only be obtained where the
//! CPU has the instructions, so holding one is the proof that its methods may run. Code is written once,
//! generic over the token, as a [`SimdOp`]; [`dispatch`] runs it on the wanted instruction set inside a function
//! compiled with the right target features. This is one of the few rooms where `unsafe` may be written.

use std::fmt;

#[cfg(target_arch = "x86_64")]
pub mod avx2;
#[cfg(target_arch = "x86_64")]
pub mod avx512;
pub mod codes;
pub mod denormals;
pub mod depthwise;
pub mod digits;
pub mod math;
#[cfg(target_arch = "aarch64")]
pub mod neon;
pub mod panel;
pub mod portable;
pub mod probe;
pub mod strip;
pub mod tile;
pub mod turn;
pub mod winograd;

pub use tile::TileMut;

/// An instruction set the kernels are compiled for, in rising order of preference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// Plain Rust over arrays of 8 lanes: always there.
    Portable,
    /// Plain Rust over arrays of 16 lanes with the AVX-512 tile shapes, so that tests reach that blocking anywhere.
    #[cfg(any(test, debug_assertions))]
    Wide,
    /// aarch64 Advanced SIMD, registers used in pairs as 8 lanes.
    Neon,
    /// AVX2 + FMA, 8 lanes.
    Avx2,
    /// AVX-512 F/BW/DQ/VL, 16 lanes.
    Avx512,
}

impl Isa {
    /// Environment variable that caps [`Isa::detect`].
    pub const ENV: &'static str = "MADD_PROF_ISA";

    /// The best instruction set of this CPU.
    pub fn best() -> Isa {
        *Isa::available().last().unwrap_or(&Isa::Portable)
    }

    /// The best instruction set not above the cap in `MADD_PROF_ISA`; `Err` explains an invalid value.
    pub fn detect() -> Result<Isa, String> {
        match std::env::var_os(Isa::ENV) {
            None => Ok(Isa::best()),
            Some(v) => Isa::capped(&v.to_string_lossy()),
        }
    }

    /// The best available instruction set not above the one named by `cap` (empty: no cap).
    pub fn capped(cap: &str) -> Result<Isa, String> {
        let cap = match cap.trim().to_ascii_lowercase().as_str() {
            "" => return Ok(Isa::best()),
            "portable" => Isa::Portable,
            "neon" => Isa::Neon,
            "avx2" => Isa::Avx2,
            "avx512" => Isa::Avx512,
            other => {
                return Err(format!("{}={other}: expected portable, neon, avx2 or avx512", Isa::ENV));
            }
        };
        Ok(Isa::available().into_iter().rfind(|&isa| isa <= cap).unwrap_or(Isa::Portable))
    }

    /// Every instruction set this CPU can run, in rising order; the portable one is always first.
    pub fn available() -> Vec<Isa> {
        #[allow(unused_mut)]
        let mut found = vec![Isa::Portable];
        #[cfg(target_arch = "aarch64")]
        found.push(Isa::Neon);
        #[cfg(target_arch = "x86_64")]
        {
            if avx2::Avx2::new().is_some() {
                found.push(Isa::Avx2);
            }
            if avx512::Avx512::new().is_some() {
                found.push(Isa::Avx512);
            }
        }
        found
    }

    /// What kernel tests walk: [`Isa::available`] and the 16-lane portable variant.
    pub fn for_tests() -> Vec<Isa> {
        #[allow(unused_mut)]
        let mut all = Isa::available();
        #[cfg(any(test, debug_assertions))]
        all.push(Isa::Wide);
        all
    }

    /// f32 lanes of a vector, which is also `c` of the NCHWc layout.
    pub fn lanes(self) -> usize {
        match self {
            Isa::Portable | Isa::Neon | Isa::Avx2 => 8,
            #[cfg(any(test, debug_assertions))]
            Isa::Wide => 16,
            Isa::Avx512 => 16,
        }
    }

    /// Rows (pixels) of the register tile beside two vectors of columns.
    pub fn mr(self) -> usize {
        match self {
            Isa::Portable => portable::PORTABLE_MR,
            Isa::Neon | Isa::Avx2 => 6,
            #[cfg(any(test, debug_assertions))]
            Isa::Wide => 14,
            Isa::Avx512 => 14,
        }
    }

    /// Columns of the register tile: two vectors.
    pub fn nr(self) -> usize {
        2 * self.lanes()
    }

    /// Lower-case name, as accepted by `MADD_PROF_ISA`.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Portable => "portable",
            #[cfg(any(test, debug_assertions))]
            Isa::Wide => "wide",
            Isa::Neon => "neon",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Work written once for every instruction set. Mark `call` `#[inline(always)]` so that it is compiled with the
/// features of the token it receives.
pub trait SimdOp {
    /// What the work returns.
    type Out;
    /// Do the work with the lanes of `s`.
    fn call<S: Simd>(self, s: S) -> Self::Out;
}

/// Run `op` with the lanes of `isa`, or of the portable path where this CPU lacks it.
#[inline]
pub fn dispatch<O: SimdOp>(isa: Isa, op: O) -> O::Out {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => {
            if let Some(s) = avx2::Avx2::new() {
                return s.vectorize(op);
            }
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => {
            if let Some(s) = avx512::Avx512::new() {
                return s.vectorize(op);
            }
        }
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => return neon::Neon::new().vectorize(op),
        #[cfg(any(test, debug_assertions))]
        Isa::Wide => return portable::Portable::<16>.vectorize(op),
        _ => {}
    }
    // A wider instruction set that this CPU lacks: the block width is part of data layouts, so it must be kept.
    assert!(isa.lanes() == 8, "{isa} is not available on this CPU");
    portable::Portable::<8>.vectorize(op)
}

/// Whether `isa` on this CPU multiplies bytes and adds four products to an `i32` in one instruction: [`Simd::dot_bytes`] is worth its
/// while then.
pub fn multiplies_bytes(isa: Isa) -> bool {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => avx512::Avx512::with_bytes().is_some(),
        _ => false,
    }
}

/// [`dispatch`] for work that multiplies bytes, with the instruction for it where there is one.
#[inline]
pub fn dispatch_bytes<O: SimdOp>(isa: Isa, op: O) -> O::Out {
    #[cfg(target_arch = "x86_64")]
    if isa == Isa::Avx512
        && let Some(s) = avx512::Avx512::with_bytes()
    {
        return s.vectorize(op);
    }
    dispatch(isa, op)
}

/// The lanes of one instruction set. Values of implementing types exist only where the CPU has the instructions.
///
/// `min`, `max` follow the x86 rule: the second operand is returned if either is NaN or both are zeros.
pub trait Simd: Copy + Send + Sync + 'static {
    /// f32 lanes of `F`, i32 lanes of `I`.
    const LANES: usize;
    /// Rows of the register tile beside two vectors of columns.
    const MR: usize;
    /// Rows of the register tile beside one vector of columns; at most 8, which hide the latency of a multiply-add.
    const MR_ONE: usize;
    /// Steps of a sum written one after another in the register tile, 1, 4 or 8: a divisor of `LANES`.
    const SPELLED: usize;
    /// The instruction set.
    const ISA: Isa;
    /// Vector of f32.
    type F: Copy;
    /// Vector of i32.
    type I: Copy;
    /// One truth value per lane.
    type M: Copy;

    /// Run `op` in a function compiled with this instruction set's features.
    fn vectorize<O: SimdOp>(self, op: O) -> O::Out;

    /// Load `LANES` values.
    ///
    /// # Safety
    /// `p` is valid for reading `LANES` f32, any alignment.
    unsafe fn load_ptr(self, p: *const f32) -> Self::F;
    /// Store `LANES` values.
    ///
    /// # Safety
    /// `p` is valid for writing `LANES` f32, any alignment.
    unsafe fn store_ptr(self, p: *mut f32, v: Self::F);
    /// Load the first `n <= LANES` values, zeros in the rest.
    ///
    /// # Safety
    /// `p` is valid for reading `n` f32.
    unsafe fn load_n_ptr(self, p: *const f32, n: usize) -> Self::F;
    /// Store the first `n <= LANES` values.
    ///
    /// # Safety
    /// `p` is valid for writing `n` f32.
    unsafe fn store_n_ptr(self, p: *mut f32, v: Self::F, n: usize);
    /// Hint that the line at `p` is needed soon; never faults.
    fn prefetch(self, p: *const f32);
    /// Hint that the line at `p` is needed later: into the second-level cache where there is such a hint; never faults.
    #[inline(always)]
    fn prefetch_far(self, p: *const f32) {
        self.prefetch(p);
    }

    /// Load from the first `LANES` elements of `x`; panics when there are fewer.
    #[inline(always)]
    fn load(self, x: &[f32]) -> Self::F {
        assert!(x.len() >= Self::LANES);
        // SAFETY: the slice has at least LANES elements.
        unsafe { self.load_ptr(x.as_ptr()) }
    }
    /// Load `LANES` values from the first bytes of `x`, in this machine's byte order and at any alignment; panics when there are fewer.
    #[inline(always)]
    fn load_bytes(self, x: &[u8]) -> Self::F {
        assert!(x.len() >= 4 * Self::LANES);
        // SAFETY: the slice has the bytes of LANES values; loads need no alignment.
        unsafe { self.load_ptr(x.as_ptr().cast()) }
    }
    /// The first `LANES` bytes of `x`, each widened without sign; panics when there are fewer.
    fn load_u8(self, x: &[u8]) -> Self::I;
    /// The first `LANES` bytes of `x`, each widened with its sign; panics when there are fewer.
    #[inline(always)]
    fn load_i8(self, x: &[u8]) -> Self::I {
        self.shr_int::<24>(self.shl_int::<24>(self.load_u8(x)))
    }
    /// Store to the first `LANES` elements of `x`; panics when there are fewer.
    #[inline(always)]
    fn store(self, x: &mut [f32], v: Self::F) {
        assert!(x.len() >= Self::LANES);
        // SAFETY: the slice has at least LANES elements.
        unsafe { self.store_ptr(x.as_mut_ptr(), v) }
    }
    /// Load all of `x`, at most `LANES` elements, zeros in the missing lanes.
    #[inline(always)]
    fn load_tail(self, x: &[f32]) -> Self::F {
        assert!(x.len() <= Self::LANES);
        // SAFETY: exactly the slice's elements are read.
        unsafe { self.load_n_ptr(x.as_ptr(), x.len()) }
    }
    /// Store the first `x.len() <= LANES` lanes.
    #[inline(always)]
    fn store_tail(self, x: &mut [f32], v: Self::F) {
        assert!(x.len() <= Self::LANES);
        // SAFETY: exactly the slice's elements are written.
        unsafe { self.store_n_ptr(x.as_mut_ptr(), v, x.len()) }
    }

    /// All lanes `x`.
    fn splat(self, x: f32) -> Self::F;
    /// `a + b`
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a - b`
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a * b`
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a / b`
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a * b + c` (one rounding, except on the portable path)
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// Smaller; `b` if either is NaN.
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    /// Larger; `b` if either is NaN.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    /// Square root.
    fn sqrt(self, a: Self::F) -> Self::F;
    /// `|a|`
    fn abs(self, a: Self::F) -> Self::F;
    /// `-a`
    #[inline(always)]
    fn neg(self, a: Self::F) -> Self::F {
        self.sub(self.splat(-0.0), a)
    }
    /// Magnitude of `a`, sign of `sign`.
    fn copysign(self, a: Self::F, sign: Self::F) -> Self::F;
    /// Nearest integer, ties to even.
    fn round(self, a: Self::F) -> Self::F;
    /// Largest integer not above.
    fn floor(self, a: Self::F) -> Self::F;
    /// `a < b`, false with NaN
    fn lt(self, a: Self::F, b: Self::F) -> Self::M;
    /// `a <= b`, false with NaN
    fn le(self, a: Self::F, b: Self::F) -> Self::M;
    /// `a == b`, false with NaN
    fn eq(self, a: Self::F, b: Self::F) -> Self::M;
    /// Lane of `a` where the mask is true, of `b` elsewhere.
    fn select(self, m: Self::M, a: Self::F, b: Self::F) -> Self::F;
    /// Sum of the lanes (pairwise).
    fn reduce_add(self, a: Self::F) -> f32;
    /// Largest lane; unspecified with NaN.
    fn reduce_max(self, a: Self::F) -> f32;

    /// Integer of an already integral value inside the i32 range.
    fn to_int(self, a: Self::F) -> Self::I;
    /// Exact for |a| below 2^24.
    fn to_float(self, a: Self::I) -> Self::F;
    /// The bits of `a`.
    fn to_bits(self, a: Self::F) -> Self::I;
    /// The f32 with the bits of `a`.
    fn bits_to_float(self, a: Self::I) -> Self::F;
    /// All lanes `x`.
    fn splat_int(self, x: i32) -> Self::I;
    /// The first `LANES` values of `x`; panics when there are fewer.
    fn load_int(self, x: &[i32]) -> Self::I;
    /// Lane `index[i]` of `a` in every lane `i`; indices are taken modulo `LANES`.
    fn permute(self, a: Self::F, index: Self::I) -> Self::F;
    /// `p · 2^n` for integral `n` in −125..=128 and |p| in 0.5..2: infinite where the result leaves the range.
    #[inline(always)]
    fn scale(self, p: Self::F, n: Self::F) -> Self::F {
        // 2p · 2^(n−1): the exponent 128 does not exist.
        let power = self.bits_to_float(self.shl_int::<23>(self.add_int(self.to_int(n), self.splat_int(126))));
        self.mul(self.add(p, p), power)
    }
    /// Wrapping `a + b`
    fn add_int(self, a: Self::I, b: Self::I) -> Self::I;
    /// Wrapping `a - b`
    fn sub_int(self, a: Self::I, b: Self::I) -> Self::I;
    /// `a & b`
    fn and_int(self, a: Self::I, b: Self::I) -> Self::I;
    /// `a << N`
    fn shl_int<const N: i32>(self, a: Self::I) -> Self::I;
    /// Arithmetic `a >> N`
    fn shr_int<const N: i32>(self, a: Self::I) -> Self::I;
    /// In each lane `sum + Σ codes[i] · digits[i]` over four bytes, those of `codes` without sign, those of `digits` with theirs; wrapping.
    #[inline(always)]
    fn dot_bytes(self, sum: Self::I, codes: Self::I, digits: Self::I) -> Self::I {
        dot_byte_by_byte(self, sum, codes, digits)
    }
}

/// [`Simd::dot_bytes`] by what every instruction set has. The sums of four products are integers below 2^24: exact.
#[inline(always)]
fn dot_byte_by_byte<S: Simd>(s: S, sum: S::I, codes: S::I, digits: S::I) -> S::I {
    let low = s.splat_int(255);
    let code = |v| s.to_float(s.and_int(v, low));
    // Spelled out: shifts are by constants.
    let mut four = s.mul(code(s.shr_int::<24>(codes)), s.to_float(s.shr_int::<24>(digits)));
    let digit = s.to_float(s.shr_int::<24>(s.shl_int::<8>(digits)));
    four = s.fma(code(s.shr_int::<16>(codes)), digit, four);
    let digit = s.to_float(s.shr_int::<24>(s.shl_int::<16>(digits)));
    four = s.fma(code(s.shr_int::<8>(codes)), digit, four);
    let digit = s.to_float(s.shr_int::<24>(s.shl_int::<24>(digits)));
    s.add_int(sum, s.to_int(s.fma(code(codes), digit, four)))
}

#[cfg(test)]
mod tests;
