//! Dot products of a vector with columns of four- or eight-bit codes, widened in registers as they are streamed.
//!
//! Ladder: a code at a time → a vector of bytes widened to `i32` and `f32`, two accumulators → a block's scale once, on its sum → zeros
//! apart, on the sums of the vector's blocks, so that the inner loop knows of none.

use super::{Isa, Simd, SimdOp, dispatch};

/// Columns of codes and what they are multiplied with.
#[derive(Debug)]
pub struct Codes<'a> {
    /// Bits of a code, 4 (unsigned, two in a byte) or 8.
    pub bits: usize,
    /// Eight-bit codes are signed.
    pub signed: bool,
    /// Bytes from the first column on.
    pub bytes: &'a [u8],
    /// Bytes from column to column.
    pub column: usize,
    /// Codes of a block, a multiple of `2 · LANES`.
    pub block: usize,
    /// The vector, whole blocks; for four bits each `2 · LANES` values hold the even ones, then the odd ones.
    pub x: &'a [f32],
    /// Sum of each block of the vector.
    pub sums: &'a [f32],
    /// Scales `[column][block]` from the first column on.
    pub scales: &'a [f32],
    /// Zeros as the scales.
    pub zeros: Zeros<'a>,
}

/// The code that stands for zero.
#[derive(Clone, Copy, Debug)]
pub enum Zeros<'a> {
    /// The same everywhere.
    All(f32),
    /// One per scale.
    Each(&'a [f32]),
}

/// `y[c] = Σ scale · (codes − zero) · x` for column after column. Panics when an extent does not fit its slice.
pub fn dots(isa: Isa, codes: &Codes<'_>, y: &mut [f32]) {
    dispatch(isa, Run { codes, y });
}

struct Run<'a, 'b> {
    codes: &'a Codes<'b>,
    y: &'a mut [f32],
}

impl SimdOp for Run<'_, '_> {
    type Out = ();
    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let Run { codes: w, y } = self;
        let blocks = w.sums.len();
        assert!(
            matches!(w.bits, 4 | 8) && w.block > 0 && w.block.is_multiple_of(2 * S::LANES),
            "blocks of {}",
            w.block
        );
        let values = blocks.checked_mul(w.block).expect("codes overflow");
        let bytes = values / 8 * w.bits;
        let Some(last) = y.len().checked_sub(1) else { return };
        let end = last.checked_mul(w.column).and_then(|at| at.checked_add(bytes));
        assert!(end.is_some_and(|end| end <= w.bytes.len()), "codes outside their bytes");
        let scales = y.len().checked_mul(blocks).expect("codes overflow");
        assert!(w.x.len() >= values && w.scales.len() >= scales, "codes outside their vector or scales");
        if let Zeros::Each(zeros) = w.zeros {
            assert!(zeros.len() >= scales, "codes outside their zeros");
        }
        for (c, y) in y.iter_mut().enumerate() {
            let scales = &w.scales[c * blocks..][..blocks];
            // SAFETY: column `c` has `bytes` bytes, the vector `values` values, as checked above.
            let sum = unsafe {
                let from = w.bytes.as_ptr().add(c * w.column);
                match (w.bits, w.signed) {
                    (4, _) => any_block::<S, 4, false>(s, from, w.x.as_ptr(), w.block, scales),
                    (_, true) => any_block::<S, 8, true>(s, from, w.x.as_ptr(), w.block, scales),
                    _ => any_block::<S, 8, false>(s, from, w.x.as_ptr(), w.block, scales),
                }
            };
            let shift = match w.zeros {
                Zeros::All(0.0) => 0.0,
                Zeros::All(zero) => zero * products(s, scales, w.sums, None),
                Zeros::Each(zeros) => products(s, scales, w.sums, Some(&zeros[c * blocks..][..blocks])),
            };
            *y = sum - shift;
        }
    }
}

/// [`column`] for the usual sizes of blocks, in which the inner loop disappears.
///
/// # Safety
/// As [`column`].
#[inline(always)]
unsafe fn any_block<S: Simd, const BITS: usize, const SIGNED: bool>(
    s: S,
    codes: *const u8,
    x: *const f32,
    block: usize,
    scales: &[f32],
) -> f32 {
    // SAFETY: as the caller vouches.
    unsafe {
        match block / (2 * S::LANES) {
            1 => column::<S, BITS, SIGNED, 1>(s, codes, x, 1, scales),
            2 => column::<S, BITS, SIGNED, 2>(s, codes, x, 2, scales),
            4 => column::<S, BITS, SIGNED, 4>(s, codes, x, 4, scales),
            steps => column::<S, BITS, SIGNED, 0>(s, codes, x, steps, scales),
        }
    }
}

/// Bytes ahead of the codes in use that are asked for.
const AHEAD: usize = 1024;

/// `Σ scale · Σ codes · x` over one column, in `steps` of two vectors per block (`STEPS` of them unless that is 0).
///
/// # Safety
/// `scales.len()` blocks of codes are readable from `codes`, of values from `x`.
#[inline(always)]
unsafe fn column<S: Simd, const BITS: usize, const SIGNED: bool, const STEPS: usize>(
    s: S,
    mut codes: *const u8,
    mut x: *const f32,
    steps: usize,
    scales: &[f32],
) -> f32 {
    let l = S::LANES;
    let steps = if STEPS > 0 { STEPS } else { steps };
    let low = s.splat_int(15);
    let mut total = s.splat(0.0);
    for &scale in scales {
        let (mut even, mut odd) = (s.splat(0.0), s.splat(0.0));
        s.prefetch(codes.wrapping_add(AHEAD).cast());
        // SAFETY: block by block over what the caller vouches for.
        unsafe {
            if BITS == 4 {
                for _ in 0..steps {
                    let v = s.load_u8(std::slice::from_raw_parts(codes, l));
                    even = s.fma(s.to_float(s.and_int(v, low)), s.load_ptr(x), even);
                    odd = s.fma(s.to_float(s.shr_int::<4>(v)), s.load_ptr(x.add(l)), odd);
                    (codes, x) = (codes.add(l), x.add(2 * l));
                }
            } else {
                for _ in 0..steps {
                    even = s.fma(wide::<S, SIGNED>(s, codes), s.load_ptr(x), even);
                    odd = s.fma(wide::<S, SIGNED>(s, codes.add(l)), s.load_ptr(x.add(l)), odd);
                    (codes, x) = (codes.add(2 * l), x.add(2 * l));
                }
            }
        }
        total = s.fma(s.add(even, odd), s.splat(scale), total);
    }
    s.reduce_add(total)
}

/// A vector of bytes as `f32`.
///
/// # Safety
/// `LANES` bytes are readable at `p`.
#[inline(always)]
unsafe fn wide<S: Simd, const SIGNED: bool>(s: S, p: *const u8) -> S::F {
    // SAFETY: as the caller vouches.
    let bytes = unsafe { std::slice::from_raw_parts(p, S::LANES) };
    s.to_float(if SIGNED { s.load_i8(bytes) } else { s.load_u8(bytes) })
}

/// `Σ a · b (· c)`.
#[inline(always)]
fn products<S: Simd>(s: S, a: &[f32], b: &[f32], c: Option<&[f32]>) -> f32 {
    let l = S::LANES;
    let whole = a.len() / l * l;
    let mut sum = s.splat(0.0);
    for i in (0..whole).step_by(l) {
        let mut v = s.load(&a[i..]);
        if let Some(c) = c {
            v = s.mul(v, s.load(&c[i..]));
        }
        sum = s.fma(v, s.load(&b[i..]), sum);
    }
    let rest: f32 = (whole..a.len()).map(|i| a[i] * b[i] * c.map_or(1.0, |c| c[i])).sum();
    s.reduce_add(sum) + rest
}
