//! Elementary functions over lanes. Errors are measured in the tests against f64 and stated with each function.
//!
//! NaN in gives NaN out everywhere; infinities give the limit. The polynomials are minimax fits on the reduced
//! range; the portable path has no fused multiply-add and may be one ULP worse.

use super::Simd;

/// Polynomial by Horner's rule, highest coefficient first.
#[inline(always)]
fn horner<S: Simd, const N: usize>(s: S, x: S::F, c: [f32; N]) -> S::F {
    let mut r = s.splat(c[0]);
    for k in c.into_iter().skip(1) {
        r = s.fma(r, x, s.splat(k));
    }
    r
}

/// `2^n` for integral `n` in −126..=127.
#[inline(always)]
fn pow2<S: Simd>(s: S, n: S::I) -> S::F {
    s.bits_to_float(s.shl_int::<23>(s.add_int(n, s.splat_int(127))))
}

/// e^x, within 2 ULP; 0 and infinity beyond the range, denormal results rounded right.
#[inline(always)]
pub fn exp<S: Simd>(s: S, x: S::F) -> S::F {
    // Outside these the result is 0 or inf anyway; a NaN is the second operand and comes through.
    let x = s.min(s.splat(89.0), s.max(s.splat(-104.5), x));
    let n = s.round(s.mul(x, s.splat(std::f32::consts::LOG2_E)));
    let r = s.fma(n, s.splat(-0.693_145_75), x);
    let r = s.fma(n, s.splat(-1.428_606_8e-6), r);
    let p = horner(s, r, [1.378_059_4e-3, 8.373_124_5e-3, 4.166_953_6e-2, 1.666_647_2e-1, 4.999_998_5e-1, 1.0, 1.0]);
    // Two factors, so that neither leaves the range of normal numbers.
    let n = s.to_int(n);
    let half = s.shr_int::<1>(n);
    s.mul(s.mul(p, pow2(s, half)), pow2(s, s.sub_int(n, half)))
}

/// e^x for x ≤ 0 down to −87 (smaller x gives about 1e-38), within 2 ULP; the fast form softmax needs.
#[inline(always)]
pub fn exp_neg<S: Simd>(s: S, x: S::F) -> S::F {
    let x = s.max(s.splat(-87.0), x);
    let n = s.round(s.mul(x, s.splat(std::f32::consts::LOG2_E)));
    let r = s.fma(n, s.splat(-0.693_145_75), x);
    let r = s.fma(n, s.splat(-1.428_606_8e-6), r);
    let p = horner(s, r, [1.378_059_4e-3, 8.373_124_5e-3, 4.166_953_6e-2, 1.666_647_2e-1, 4.999_998_5e-1, 1.0, 1.0]);
    s.mul(p, pow2(s, s.to_int(n)))
}

/// e^x for x ≤ 0, within 2 ULP down to −87; 0 below, where results would be denormal. NaN stays. What the weights of a softmax need.
#[inline(always)]
pub fn exp_weight<S: Simd>(s: S, x: S::F) -> S::F {
    let e = exp_neg(s, x);
    s.select(s.lt(x, s.splat(-87.0)), s.splat(0.0), e)
}

/// Natural logarithm, within 3 ULP for normal numbers; NaN below 0, −inf at 0. Denormals count as they are.
#[inline(always)]
pub fn log<S: Simd>(s: S, x: S::F) -> S::F {
    let tiny = s.lt(x, s.splat(f32::MIN_POSITIVE));
    let a = s.select(tiny, s.mul(x, s.splat(8_388_608.0)), x);
    let bias = s.select(tiny, s.splat(-23.0), s.splat(0.0));
    let mask = s.splat_int(0xff80_0000_u32 as i32);
    let e = s.and_int(s.sub_int(s.to_bits(a), s.splat_int(0x3f2a_aaab)), mask);
    let m = s.bits_to_float(s.sub_int(s.to_bits(a), e));
    let i = s.fma(s.to_float(e), s.splat(1.192_092_9e-7), bias);
    let f = s.sub(m, s.splat(1.0));
    let f2 = s.mul(f, f);
    let p = horner(
        s,
        f,
        [
            -0.130_310_06,
            0.140_869_14,
            -0.121_483_8,
            0.139_814_69,
            -0.166_846_13,
            0.200_120_34,
            -0.249_996_2,
            0.333_333_1,
        ],
    );
    let p = s.fma(p, f, s.splat(-0.5));
    let r = s.fma(p, f2, f);
    let r = s.fma(i, s.splat(std::f32::consts::LN_2), r);
    // inf and NaN give x + x, zero −inf, negative NaN.
    let r = s.select(s.lt(x, s.splat(f32::INFINITY)), r, s.add(x, x));
    let r = s.select(s.lt(x, s.splat(0.0)), s.splat(f32::NAN), r);
    s.select(s.eq(x, s.splat(0.0)), s.splat(f32::NEG_INFINITY), r)
}

/// e^−x of several vectors; infinity where the result leaves the range, about 1e-38 from x = 86 on.
///
/// One vector is a chain of steps that wait for each other, longer than a core looks ahead: several take turns step by step.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // all steps alike
fn exp_minus<S: Simd, const N: usize>(s: S, x: [S::F; N]) -> [S::F; N] {
    // The polynomial of `exp` in −r.
    const C: [f32; 7] = [1.378_059_4e-3, -8.373_124_5e-3, 4.166_953_6e-2, -1.666_647_2e-1, 4.999_998_5e-1, -1.0, 1.0];
    let (mut t, mut n, mut p) = (x, x, [s.splat(C[0]); N]);
    for i in 0..N {
        t[i] = s.min(s.splat(86.0), s.max(s.splat(-89.0), t[i]));
    }
    for i in 0..N {
        n[i] = s.round(s.mul(t[i], s.splat(-std::f32::consts::LOG2_E)));
    }
    for i in 0..N {
        t[i] = s.fma(n[i], s.splat(0.693_145_75), t[i]);
    }
    for i in 0..N {
        t[i] = s.fma(n[i], s.splat(1.428_606_8e-6), t[i]);
    }
    for c in 1..C.len() {
        for i in 0..N {
            p[i] = s.fma(p[i], t[i], s.splat(C[c]));
        }
    }
    for i in 0..N {
        p[i] = s.scale(p[i], n[i]);
    }
    p
}

/// 1 / (1 + e^−x) of several vectors, within 4 ULP where the result is a normal number.
#[inline(always)]
pub fn sigmoids<S: Simd, const N: usize>(s: S, x: [S::F; N]) -> [S::F; N] {
    let mut y = exp_minus(s, x);
    for y in y.iter_mut() {
        *y = s.div(s.splat(1.0), s.add(s.splat(1.0), *y));
    }
    y
}

/// One vector of [`sigmoids`].
#[inline(always)]
pub fn sigmoid<S: Simd>(s: S, x: S::F) -> S::F {
    sigmoids(s, [x])[0]
}

/// x · sigmoid(x) of several vectors, within 5 ULP; the limit 0 at −inf is NaN (0 · inf), as the formula gives.
#[inline(always)]
pub fn silus<S: Simd, const N: usize>(s: S, x: [S::F; N]) -> [S::F; N] {
    let mut y = exp_minus(s, x);
    for i in 0..N {
        y[i] = s.div(x[i], s.add(s.splat(1.0), y[i]));
    }
    y
}

/// Hyperbolic tangent, within 3 ULP.
#[inline(always)]
pub fn tanh<S: Simd>(s: S, x: S::F) -> S::F {
    let t = s.abs(x);
    let one = s.splat(1.0);
    let e = exp(s, s.add(t, t));
    let far = s.copysign(s.sub(one, s.div(s.splat(2.0), s.add(e, one))), x);
    let x2 = s.mul(x, x);
    let p = horner(s, x2, [-6.198_697_7e-3, 2.102_053_4e-2, -5.384_051_4e-2, 1.333_248e-1, -3.333_331_3e-1]);
    let near = s.fma(s.mul(p, x2), x, x);
    s.select(s.lt(t, s.splat(0.55)), near, far)
}

/// Error function, within 3 ULP.
#[inline(always)]
pub fn erf<S: Simd>(s: S, x: S::F) -> S::F {
    let t = s.abs(x);
    let x2 = s.mul(x, x);
    let a = s.fma(s.splat(-1.728_534_7e-5), t, s.splat(3.831_974_7e-4));
    let b = s.fma(s.splat(-3.883_964_4e-3), t, s.splat(2.425_462_2e-2));
    let r = s.fma(a, x2, b);
    let r = horner_from(s, r, t, [-1.067_778_8e-1, -6.348_468_7e-1, -1.287_175_1e-1]);
    let r = s.fma(r, t, s.neg(t));
    let far = s.copysign(s.sub(s.splat(1.0), exp(s, r)), x);
    let p = horner(
        s,
        x2,
        [-5.967_617e-4, 4.991_194_2e-3, -2.676_813_5e-2, 1.128_199_25e-1, -3.761_253_6e-1, 1.283_791_7e-1],
    );
    let near = s.fma(p, x, x);
    // From 4 on the polynomial is out of its range, and the function is 1.
    let far = s.select(s.lt(s.splat(4.0), t), s.copysign(s.splat(1.0), x), far);
    s.select(s.le(t, s.splat(0.927_734_4)), near, far)
}

#[inline(always)]
fn horner_from<S: Simd, const N: usize>(s: S, mut r: S::F, x: S::F, c: [f32; N]) -> S::F {
    for k in c {
        r = s.fma(r, x, s.splat(k));
    }
    r
}

/// x·Φ(x) of several vectors, Φ by erf(x/√2) = x·P(x²)/Q(x²): absolute error below 3e-7·max(1, |x|).
#[inline(always)]
pub fn gelus<S: Simd, const N: usize>(s: S, x: [S::F; N]) -> [S::F; N] {
    // Minimax in absolute error up to 3.92·√2, where erf is 1 but for 3e-8.
    const END: f32 = 5.543_717;
    const P: [f32; 6] = [4.496_158_5e-8, 1.270_497_3e-5, 3.419_194_3e-4, 9.379_883e-3, 6.815_278_5e-2, 7.978_844e-1];
    const Q: [f32; 6] = [1.189_707_9e-6, 7.425_797e-5, 1.896_549_1e-3, 2.877_127_2e-2, 2.520_826_8e-1, 1.0];
    let (mut t, mut x2, mut p, mut q) = (x, x, [s.splat(P[0]); N], [s.splat(Q[0]); N]);
    for i in 0..N {
        t[i] = s.min(s.splat(END), s.max(s.splat(-END), t[i]));
        x2[i] = s.mul(t[i], t[i]);
    }
    for c in 1..P.len() {
        for i in 0..N {
            p[i] = s.fma(p[i], x2[i], s.splat(P[c]));
            q[i] = s.fma(q[i], x2[i], s.splat(Q[c]));
        }
    }
    for i in 0..N {
        let half = s.mul(x[i], s.splat(0.5));
        // Exactly 1 outside, so that nothing is left of what Φ makes 0.
        let inside = s.eq(t[i], x[i]);
        let erf = s.select(inside, s.div(s.mul(t[i], p[i]), q[i]), s.mul(t[i], s.splat(1.0 / END)));
        p[i] = s.fma(half, erf, half);
    }
    p
}

/// One vector of [`gelus`].
#[inline(always)]
pub fn gelu<S: Simd>(s: S, x: S::F) -> S::F {
    gelus(s, [x])[0]
}

/// The tanh approximation of GELU of several vectors, x·(1 + tanh u)/2 = x·sigmoid(2u): absolute error against its own
/// definition below 4e-7·max(1, |x|).
#[inline(always)]
pub fn gelus_tanh<S: Simd, const N: usize>(s: S, x: [S::F; N]) -> [S::F; N] {
    let mut u = x;
    for i in 0..N {
        let x2 = s.mul(x[i], x[i]);
        u[i] = s.mul(s.fma(x2, s.splat(2.0 * 0.797_884_6 * 0.044_715), s.splat(2.0 * 0.797_884_6)), x[i]);
    }
    let mut y = exp_minus(s, u);
    for i in 0..N {
        y[i] = s.div(x[i], s.add(s.splat(1.0), y[i]));
    }
    y
}

/// One vector of [`gelus_tanh`].
#[inline(always)]
pub fn gelu_tanh<S: Simd>(s: S, x: S::F) -> S::F {
    gelus_tanh(s, [x])[0]
}

/// One vector of [`silus`].
#[inline(always)]
pub fn silu<S: Simd>(s: S, x: S::F) -> S::F {
    silus(s, [x])[0]
}

/// clamp(alpha·x + beta, 0, 1)
#[inline(always)]
pub fn hard_sigmoid<S: Simd>(s: S, x: S::F, alpha: f32, beta: f32) -> S::F {
    let y = s.fma(x, s.splat(alpha), s.splat(beta));
    s.min(s.splat(1.0), s.max(s.splat(0.0), y))
}

/// x · clamp(x/6 + 1/2, 0, 1)
#[inline(always)]
pub fn hard_swish<S: Simd>(s: S, x: S::F) -> S::F {
    s.mul(x, hard_sigmoid(s, x, 1.0 / 6.0, 0.5))
}

/// log(1 + e^x), absolute error below 3e-7·max(1, x).
#[inline(always)]
pub fn softplus<S: Simd>(s: S, x: S::F) -> S::F {
    // max(x, 0) + log(1 + e^-|x|); the plain logarithm loses only what is far below 1.
    let e = exp(s, s.neg(s.abs(x)));
    let one = s.splat(1.0);
    let u = s.add(one, e);
    // First-order correction of the rounding in 1 + e.
    let c = s.div(s.sub(e, s.sub(u, one)), u);
    s.add(s.max(s.splat(0.0), x), s.add(log(s, u), c))
}
