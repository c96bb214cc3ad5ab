//! Tests of the lanes: every operation of every available instruction set against scalar code.

use super::*;

struct Ops;

impl SimdOp for Ops {
    type Out = ();
    fn call<S: Simd>(self, s: S) {
        let l = S::LANES;
        assert_eq!(l, S::ISA.lanes());
        assert_eq!(S::MR, S::ISA.mr());
        let special = [0.0, -0.0, 1.5, -2.5, 3.5, -0.3, 1e-40, f32::INFINITY, f32::NEG_INFINITY, 7.0, 8.4e6, -4.5e15];
        let xs: Vec<f32> = (0..l).map(|i| special[i % special.len()]).collect();
        let ys: Vec<f32> = (0..l).map(|i| special[(i * 5 + 2) % special.len()] * 0.5 + 1.0).collect();
        let zs: Vec<f32> = (0..l).map(|i| i as f32 - 3.0).collect();
        let (x, y, z) = (s.load(&xs), s.load(&ys), s.load(&zs));
        let get = |v: S::F| {
            let mut out = vec![f32::NAN; l];
            s.store(&mut out, v);
            out
        };
        let same = |name: &str, got: S::F, want: &dyn Fn(usize) -> f32| {
            for (i, g) in get(got).into_iter().enumerate() {
                let w = want(i);
                assert!(g.to_bits() == w.to_bits() || g.is_nan() && w.is_nan(), "{} {name}[{i}]: {g} {w}", S::ISA);
            }
        };
        same("add", s.add(x, y), &|i| xs[i] + ys[i]);
        same("sub", s.sub(x, y), &|i| xs[i] - ys[i]);
        same("mul", s.mul(x, y), &|i| xs[i] * ys[i]);
        same("div", s.div(x, y), &|i| xs[i] / ys[i]);
        same("min", s.min(x, y), &|i| {
            if xs[i] < ys[i] { xs[i] } else { ys[i] }
        });
        same("max", s.max(x, y), &|i| {
            if xs[i] > ys[i] { xs[i] } else { ys[i] }
        });
        same("abs", s.abs(x), &|i| xs[i].abs());
        same("neg", s.neg(x), &|i| -0.0 - xs[i]);
        same("sqrt", s.sqrt(s.abs(x)), &|i| xs[i].abs().sqrt());
        same("round", s.round(x), &|i| xs[i].round_ties_even());
        same("floor", s.floor(x), &|i| {
            if xs[i] == 0.0 { xs[i] } else { xs[i].floor() }
        });
        same("copysign", s.copysign(y, x), &|i| ys[i].copysign(xs[i]));
        same("lt", s.select(s.lt(x, z), y, z), &|i| {
            if xs[i] < zs[i] { ys[i] } else { zs[i] }
        });
        same("le", s.select(s.le(x, z), y, z), &|i| {
            if xs[i] <= zs[i] { ys[i] } else { zs[i] }
        });
        same("eq", s.select(s.eq(x, x), y, z), &|i| ys[i].min(f32::INFINITY));
        same("nan eq", s.select(s.eq(s.splat(f32::NAN), x), y, z), &|i| zs[i]);
        same("nan max", s.max(z, s.splat(f32::NAN)), &|_| f32::NAN);
        same("nan min", s.min(z, s.splat(f32::NAN)), &|_| f32::NAN);
        same("splat", s.splat(4.25), &|_| 4.25);
        same("fma", s.fma(z, z, z), &|i| zs[i] * zs[i] + zs[i]);
        // Bytes of all values, the extreme ones together too.
        let words = |seed: u32| -> Vec<i32> {
            (0..l as u32)
                .map(|i| {
                    if i < 2 {
                        [-1, i32::MIN][(i ^ seed) as usize & 1]
                    } else {
                        ((i + 7) * seed).wrapping_mul(2_654_435_761) as i32
                    }
                })
                .collect()
        };
        for seeds in [(0, 1), (1, 0), (0, 0), (1, 1), (3, 5), (11, 4)] {
            let (codes, digits) = (words(seeds.0), words(seeds.1));
            let want = |i: usize| {
                let (c, d) = (codes[i].to_le_bytes(), digits[i].to_le_bytes());
                100 - (0..4).map(|j| i32::from(c[j]) * i32::from(d[j] as i8)).sum::<i32>()
            };
            let got = s.dot_bytes(s.splat_int(0), s.load_int(&codes), s.load_int(&digits));
            same("dot_bytes", s.to_float(s.sub_int(s.splat_int(100), got)), &|i| want(i) as f32);
        }
        let int = s.to_int(z);
        same("int", s.to_float(s.add_int(int, s.splat_int(5))), &|i| zs[i] + 5.0);
        same("sub int", s.to_float(s.sub_int(int, s.splat_int(5))), &|i| zs[i] - 5.0);
        same("shl", s.to_float(s.shl_int::<3>(int)), &|i| zs[i] * 8.0);
        same("shr", s.to_float(s.shr_int::<1>(int)), &|i| (zs[i] / 2.0).floor());
        same("and", s.to_float(s.and_int(int, s.splat_int(6))), &|i| (zs[i] as i32 & 6) as f32);
        same("bits", s.bits_to_float(s.to_bits(x)), &|i| xs[i]);
        assert_eq!(s.reduce_add(z), zs.iter().sum::<f32>());
        assert_eq!(s.reduce_max(z), l as f32 - 4.0);
        for n in 0..=l {
            same("load_tail", s.load_tail(&zs[..n]), &|i| {
                if i < n { zs[i] } else { 0.0 }
            });
            let mut out = vec![99.0; l + 1];
            s.store_tail(&mut out[..n], z);
            assert_eq!(out[..n], zs[..n]);
            assert!(out[n..].iter().all(|&v| v == 99.0));
        }
        s.prefetch(zs.as_ptr());
    }
}

#[test]
fn operations() {
    for isa in Isa::for_tests() {
        dispatch(isa, Ops);
    }
}

#[test]
fn caps() {
    assert_eq!(Isa::capped("portable"), Ok(Isa::Portable));
    assert_eq!(Isa::capped(""), Ok(Isa::best()));
    assert!(Isa::capped("avx2").unwrap() <= Isa::Avx2);
    assert!(Isa::capped(" AVX512 ").unwrap() <= Isa::Avx512);
    let err = Isa::capped("sse9").unwrap_err();
    assert!(err.contains("MADD_PROF_ISA") && err.contains("avx2"), "{err}");
    assert_eq!(Isa::available()[0], Isa::Portable);
    assert!(Isa::available().is_sorted());
    assert_eq!(format!("{:>9}|", Isa::Portable), " portable|");
}

fn erf64(x: f64) -> f64 {
    // Series below 3, complement's continued fraction above: far better than f32 needs.
    if x.abs() < 3.0 {
        let (mut term, mut sum) = (x, x);
        for n in 1..200 {
            term *= -x * x / n as f64;
            sum += term / (2 * n + 1) as f64;
        }
        sum * std::f64::consts::FRAC_2_SQRT_PI
    } else {
        let t = x.abs();
        let f = (1..60).rev().fold(0.0, |f, n| n as f64 / 2.0 / (t + f));
        (1.0 - (-t * t).exp() / (t + f) / std::f64::consts::PI.sqrt()).copysign(x)
    }
}

type Lanes<'a> = &'a dyn Fn(&mut [f32]);

struct Eval<'a, 'b> {
    which: usize,
    x: &'a mut &'b mut [f32],
}

impl SimdOp for Eval<'_, '_> {
    type Out = ();
    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        for v in self.x.chunks_exact_mut(S::LANES) {
            let x = s.load(v);
            let y = match self.which {
                0 => math::exp(s, x),
                1 => math::exp_neg(s, x),
                2 => math::log(s, x),
                3 => math::sigmoid(s, x),
                4 => math::tanh(s, x),
                5 => math::erf(s, x),
                6 => math::gelu(s, x),
                7 => math::gelu_tanh(s, x),
                8 => math::silu(s, x),
                9 => math::softplus(s, x),
                _ => math::hard_swish(s, x),
            };
            s.store(v, y);
        }
    }
}

/// Largest error over `lo..hi`, in ULP of the true result and relative to max(1, |x|).
fn worst(isa: Isa, which: usize, lo: f64, hi: f64, truth: impl Fn(f64) -> f64) -> (f64, f64) {
    let n = 1 << 15;
    let xs: Vec<f32> = (0..n).map(|i| (lo + (hi - lo) * (i as f64 / (n - 1) as f64)) as f32).collect();
    let mut ys = xs.clone();
    let eval: Lanes<'_> = &|y| dispatch(isa, Eval { which, x: &mut &mut *y });
    eval(&mut ys);
    let (mut ulp, mut abs) = (0.0f64, 0.0f64);
    for (&x, &y) in xs.iter().zip(&ys) {
        let t = truth(x as f64);
        let err = (y as f64 - t).abs();
        let unit = {
            let t = (t.abs() as f32).max(f32::from_bits(1));
            (f32::from_bits(t.to_bits() + 1) - t) as f64
        };
        ulp = ulp.max(err / unit);
        abs = abs.max(err / (x as f64).abs().max(1.0));
    }
    (ulp, abs)
}

#[test]
fn function_errors() {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let gelu = |x: f64| 0.5 * x * (1.0 + erf64(x / 2f64.sqrt()));
    let gelu_t = |x: f64| 0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)).tanh());
    for isa in Isa::for_tests() {
        let ulp = |which, lo, hi, most: f64, truth: &dyn Fn(f64) -> f64| {
            let (got, _) = worst(isa, which, lo, hi, truth);
            assert!(got <= most, "{isa} function {which} over {lo}..{hi}: {got} ULP");
        };
        let abs = |which, lo, hi, most: f64, truth: &dyn Fn(f64) -> f64| {
            let (_, got) = worst(isa, which, lo, hi, truth);
            assert!(got <= most, "{isa} function {which} over {lo}..{hi}: {got} absolute");
        };
        ulp(0, -87.3, 88.7, 2.0, &f64::exp);
        ulp(0, -110.0, -87.3, 2.0, &f64::exp);
        ulp(0, -1e-3, 1e-3, 2.0, &f64::exp);
        ulp(1, -87.0, 0.0, 2.0, &f64::exp);
        ulp(2, 1e-38, 1e-30, 2.0, &f64::ln);
        ulp(2, 0.01, 0.5, 2.0, &f64::ln);
        ulp(2, 0.5, 2.0, 3.0, &f64::ln);
        ulp(2, 2.0, 1e30, 2.0, &f64::ln);
        ulp(2, 1e-45, 1e-38, 2.0, &f64::ln);
        ulp(3, -80.0, 30.0, 4.0, &sigmoid);
        ulp(4, -10.0, 10.0, 3.0, &f64::tanh);
        ulp(4, -0.6, 0.6, 3.0, &f64::tanh);
        ulp(4, -1e-4, 1e-4, 1.0, &f64::tanh);
        ulp(5, -1.0, 1.0, 3.0, &erf64);
        ulp(5, -6.0, 6.0, 3.0, &erf64);
        abs(6, -10.0, 10.0, 3e-7, &gelu);
        abs(7, -10.0, 10.0, 4e-7, &gelu_t);
        ulp(8, -80.0, 80.0, 5.0, &|x| x * sigmoid(x));
        abs(9, -100.0, 100.0, 3e-7, &|x| {
            if x > 40.0 { x } else { x.exp().ln_1p() }
        });
        abs(10, -5.0, 5.0, 3e-7, &|x| x * (x / 6.0 + 0.5).clamp(0.0, 1.0));
    }
}

#[test]
fn function_limits() {
    let inf = f32::INFINITY;
    for isa in Isa::for_tests() {
        let at = |which: usize, x: f32| {
            let mut v = [x; 16];
            dispatch(isa, Eval { which, x: &mut &mut v[..] });
            assert!(v.iter().all(|y| y.to_bits() == v[0].to_bits() || y.is_nan()));
            v[0]
        };
        for which in 0..=10 {
            assert!(at(which, f32::NAN).is_nan(), "{isa} function {which} of NaN");
        }
        assert_eq!((at(0, inf), at(0, -inf), at(0, 0.0), at(0, 1000.0)), (inf, 0.0, 1.0, inf));
        assert!(at(1, -1e9) < 1e-37);
        assert_eq!((at(2, inf), at(2, 0.0), at(2, 1.0)), (inf, -inf, 0.0));
        assert!(at(2, -1.0).is_nan());
        assert_eq!((at(3, inf), at(3, -inf), at(3, 0.0)), (1.0, 0.0, 0.5));
        assert_eq!((at(4, inf), at(4, -inf), at(4, 0.0), at(4, 1e-40)), (1.0, -1.0, 0.0, 1e-40));
        assert_eq!((at(5, inf), at(5, -inf), at(5, 0.0), at(5, 50.0)), (1.0, -1.0, 0.0, 1.0));
        assert_eq!((at(6, 100.0), at(7, 100.0), at(8, 200.0), at(9, 200.0)), (100.0, 100.0, 200.0, 200.0));
        assert_eq!((at(6, -100.0), at(7, -100.0), at(8, -1000.0), at(9, -200.0)), (0.0, 0.0, 0.0, 0.0));
    }
}
