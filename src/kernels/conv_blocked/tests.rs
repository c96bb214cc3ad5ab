//! Tests of the blocked convolution against direct loops, for every ISA and shapes around the register tile.

use super::*;
use crate::kernels::testing::{blocked, close, guarded, in_file, isas, plain, values};

/// `[n][oc][oh][ow]` by seven loops.
fn naive(s: &ConvShape, src: &[f32], wei: &[f32], bias: &[f32]) -> Vec<f32> {
    let (oh, ow, icg, ocg) = (s.oh(), s.ow(), s.ic / s.g, s.oc / s.g);
    let mut out = Vec::with_capacity(s.n * s.oc * oh * ow);
    for n in 0..s.n {
        for o in 0..s.oc {
            for y in 0..oh {
                for x in 0..ow {
                    let mut sum = bias[o];
                    for i in 0..icg {
                        let plane = &src[(n * s.ic + o / ocg * icg + i) * s.ih * s.iw..];
                        for kh in 0..s.kh {
                            for kw in 0..s.kw {
                                let h = (y * s.sh + kh * s.dh) as isize - s.ph as isize;
                                let w = (x * s.sw + kw * s.dw) as isize - s.pw as isize;
                                if h >= 0 && h < s.ih as isize && w >= 0 && w < s.iw as isize {
                                    sum += plane[h as usize * s.iw + w as usize]
                                        * wei[((o * icg + i) * s.kh + kh) * s.kw + kw];
                                }
                            }
                        }
                    }
                    out.push(sum);
                }
            }
        }
    }
    out
}

fn check(shape: ConvShape, layout: SrcLayout, act: Act, with_residual: bool) {
    let s = &shape;
    let (hw, out) = (s.ih * s.iw, s.oh() * s.ow());
    let src = values(s.n * s.ic * hw, 1);
    let scale = 1.0 / ((s.ic / s.g * s.kh * s.kw) as f32).sqrt();
    let wei: Vec<f32> = values(s.oc * s.ic / s.g * s.kh * s.kw, 2).iter().map(|w| w * scale).collect();
    let bias = values(s.oc, 3);
    let residual = values(s.n * s.oc * out, 4);
    let mut want = naive(s, &src, &wei, &bias);
    if with_residual {
        want.iter_mut().zip(&residual).for_each(|(w, r)| *w += r);
    }
    act.apply(Isa::Portable, &mut want);
    for isa in isas() {
        let l = isa.lanes();
        let conv = Conv::new(isa, shape, layout, &in_file(&wei), Some(&bias));
        let from = match layout {
            SrcLayout::Plain => src.clone(),
            // Depthwise reads all lanes (each stays its own), dense kernels must not read the padded ones at all.
            SrcLayout::Blocked => blocked(&src, s.n, s.ic, hw, l, if s.is_separate() { 0.0 } else { f32::NAN }),
        };
        let add = blocked(&residual, s.n, s.oc, out, l, 0.0);
        for threads in [1, 3] {
            let pool = Pool::new(threads);
            let got = guarded(s.dst_len(l), |dst| conv.run(&pool, &from, with_residual.then_some(&add), act, dst));
            let what = format!("{isa} {threads} threads {} {layout:?} {act:?} {shape:?}", conv.algorithm());
            assert!(got.iter().all(|v| v.is_finite()), "{what}: padded lanes must be finite");
            close(&plain(&got, s.n, s.oc, out, l), &want, 2e-5, &what);
        }
    }
}

fn blocked_case(shape: ConvShape) {
    check(shape, SrcLayout::Blocked, Act::Relu, false);
}

#[test]
fn pointwise_around_the_tile() {
    for hw in [1, 2, 3, 4, 5, 7, 9] {
        blocked_case(ConvShape::square(16, hw, 32, 1, 1, 0));
    }
    for (ic, oc) in [(1, 1), (3, 5), (8, 8), (24, 40), (17, 33), (96, 24), (600, 16)] {
        blocked_case(ConvShape::square(ic, 5, oc, 1, 1, 0));
    }
    blocked_case(ConvShape { n: 3, ..ConvShape::square(20, 6, 20, 1, 1, 0) });
    // One pixel of each image, with odd channels, and many of them.
    for (n, ic, oc) in [(1, 33, 70), (2, 20, 17), (3, 7, 100), (4, 300, 500), (5, 20, 40)] {
        blocked_case(ConvShape { n, ..ConvShape::square(ic, 1, oc, 1, 1, 0) });
    }
    blocked_case(ConvShape { sh: 2, sw: 2, ..ConvShape::square(20, 9, 20, 1, 1, 0) });
    blocked_case(ConvShape { sh: 1, sw: 3, ..ConvShape::square(20, 9, 20, 1, 1, 0) });
    blocked_case(ConvShape { sh: 3, sw: 1, ..ConvShape::square(20, 9, 20, 1, 1, 0) });
    blocked_case(ConvShape { ph: 1, pw_end: 2, ..ConvShape::square(8, 4, 8, 1, 1, 0) });
    blocked_case(ConvShape::square(64, 28, 64, 1, 1, 0));
}

#[test]
fn direct_windows() {
    for hw in [3, 5, 6, 7, 13, 15, 29] {
        blocked_case(ConvShape::square(16, hw, 16, 3, 1, 1));
    }
    for (ic, oc) in [(1, 1), (5, 3), (8, 24), (24, 40), (17, 33), (70, 16)] {
        blocked_case(ConvShape::square(ic, 6, oc, 3, 1, 1));
    }
    for (k, s, p) in [(3, 2, 1), (3, 2, 0), (3, 1, 0), (5, 1, 2), (5, 2, 2), (7, 2, 3), (2, 2, 0), (3, 3, 1), (4, 3, 2)]
    {
        blocked_case(ConvShape::square(12, 14, 20, k, s, p));
    }
    blocked_case(ConvShape { dh: 2, dw: 2, ..ConvShape::square(12, 14, 20, 3, 1, 2) });
    blocked_case(ConvShape { dh: 3, dw: 2, ..ConvShape::square(12, 14, 20, 3, 2, 2) });
    blocked_case(ConvShape { ph_end: 2, pw_end: 3, ih: 9, ..ConvShape::square(12, 14, 20, 3, 2, 0) });
    blocked_case(ConvShape { kh: 1, ph: 0, ph_end: 0, ..ConvShape::square(12, 9, 20, 7, 1, 3) });
    blocked_case(ConvShape { kw: 1, pw: 0, pw_end: 0, ..ConvShape::square(12, 9, 20, 7, 1, 3) });
    blocked_case(ConvShape { n: 2, ..ConvShape::square(12, 9, 20, 3, 1, 1) });
    blocked_case(ConvShape::square(40, 20, 36, 3, 1, 1));
    // So many channels that they are copied in parts.
    blocked_case(ConvShape::square(500, 14, 24, 3, 2, 1));
    check(ConvShape::square(500, 14, 20, 3, 2, 1), SrcLayout::Blocked, Act::HardSwish, true);
    // Padding wider than the map.
    blocked_case(ConvShape::square(8, 2, 8, 5, 1, 4));
    blocked_case(ConvShape::square(8, 2, 8, 3, 2, 3));
}

#[test]
fn groups() {
    for (ic, oc, g) in
        [(32, 32, 2), (32, 64, 4), (24, 48, 3), (32, 32, 8), (12, 24, 12), (40, 20, 5), (10, 6, 2), (96, 96, 2)]
    {
        blocked_case(ConvShape { g, ..ConvShape::square(ic, 6, oc, 3, 1, 1) });
        blocked_case(ConvShape { g, ..ConvShape::square(ic, 6, oc, 1, 1, 0) });
    }
}

#[test]
fn plain_source() {
    for (ic, hw, oc, k, s, p) in
        [(3, 15, 16, 3, 2, 1), (3, 20, 24, 7, 2, 3), (1, 9, 8, 5, 1, 2), (4, 8, 33, 4, 4, 0), (3, 9, 5, 3, 1, 0)]
    {
        check(ConvShape::square(ic, hw, oc, k, s, p), SrcLayout::Plain, Act::Relu, false);
    }
    check(ConvShape { n: 2, ..ConvShape::square(3, 15, 16, 3, 2, 1) }, SrcLayout::Plain, Act::HardSwish, true);
    check(ConvShape { dw: 2, ..ConvShape::square(2, 15, 16, 3, 1, 1) }, SrcLayout::Plain, Act::None, false);
    check(ConvShape { ph: 0, pw: 0, ..ConvShape::square(3, 16, 16, 3, 2, 1) }, SrcLayout::Plain, Act::None, false);
    check(ConvShape { ph: 2, pw_end: 0, ..ConvShape::square(3, 16, 16, 3, 1, 1) }, SrcLayout::Plain, Act::None, false);
}

#[test]
fn depthwise_windows() {
    let dw = |c: usize, hw, k, s, p| ConvShape { g: c, ..ConvShape::square(c, hw, c, k, s, p) };
    for hw in [3, 4, 5, 6, 7, 8, 13, 14, 15, 20] {
        blocked_case(dw(16, hw, 3, 1, 1));
        blocked_case(dw(16, hw, 3, 2, 1));
        blocked_case(dw(16, hw, 5, 1, 2));
        blocked_case(dw(16, hw, 5, 2, 2));
        blocked_case(dw(16, hw, 7, 1, 3));
        blocked_case(dw(16, hw, 7, 2, 3));
    }
    blocked_case(dw(20, 9, 3, 1, 1));
    blocked_case(dw(7, 9, 3, 1, 0));
    blocked_case(dw(33, 16, 7, 2, 3));
    blocked_case(dw(8, 16, 4, 3, 1));
    blocked_case(dw(8, 1, 3, 1, 1));
    blocked_case(ConvShape { n: 2, ..dw(20, 9, 3, 1, 1) });
    blocked_case(ConvShape { dh: 2, dw: 3, ..dw(20, 16, 3, 1, 2) });
    blocked_case(ConvShape { ph: 0, pw: 0, ..dw(20, 16, 3, 2, 1) });
    blocked_case(ConvShape { ph_end: 0, pw_end: 0, ..dw(20, 16, 3, 1, 1) });
    blocked_case(ConvShape { ph: 1, pw: 0, pw_end: 3, ..dw(20, 15, 5, 2, 2) });
    blocked_case(ConvShape { kh: 1, ph: 0, ph_end: 0, ..dw(20, 9, 5, 1, 2) });
    blocked_case(dw(8, 3, 5, 1, 4));
}

#[test]
fn depth_multipliers() {
    let dw = |c: usize, each: usize, hw, k, s, p| ConvShape { g: c, ..ConvShape::square(c, hw, c * each, k, s, p) };
    for each in [2, 3, 4, 5] {
        blocked_case(dw(16, each, 9, 3, 1, 1));
        blocked_case(dw(20, each, 14, 7, 2, 3));
        blocked_case(dw(7, each, 30, 5, 2, 2));
        check(ConvShape { n: 2, ..dw(40, each, 9, 3, 2, 0) }, SrcLayout::Blocked, Act::Silu, true);
    }
    blocked_case(dw(3, 40, 5, 1, 1, 0));
    // Rows of some tasks lie in the padding alone.
    blocked_case(ConvShape { ph_end: 250, ..dw(16, 2, 20, 3, 1, 1) });
    check(ConvShape { ph: 250, ..dw(16, 2, 20, 3, 1, 1) }, SrcLayout::Blocked, Act::Silu, false);
}

#[test]
fn activations_and_residuals() {
    let acts = [
        Act::None,
        Act::Clip { lo: 0.0, hi: 0.6 },
        Act::LeakyRelu(0.1),
        Act::HardSwish,
        Act::HardSigmoid { alpha: 0.2, beta: 0.5 },
        Act::Sigmoid,
        Act::Silu,
        Act::Gelu,
        Act::Tanh,
    ];
    for act in acts {
        for residual in [false, true] {
            check(ConvShape::square(80, 5, 20, 1, 1, 0), SrcLayout::Blocked, act, residual);
            check(ConvShape::square(20, 9, 20, 3, 1, 1), SrcLayout::Blocked, act, residual);
            check(ConvShape { g: 20, ..ConvShape::square(20, 9, 20, 3, 1, 1) }, SrcLayout::Blocked, act, residual);
        }
    }
}

#[test]
fn a_nan_in_the_map_stays_a_nan() {
    for isa in isas() {
        let shape = ConvShape::square(4, 3, 4, 1, 1, 0);
        let conv = Conv::new(isa, shape, SrcLayout::Blocked, &in_file(&[1.0; 16]), None);
        let mut src = blocked(&[1.0; 36], 1, 4, 9, isa.lanes(), 0.0);
        src[0] = f32::NAN;
        let got = guarded(shape.dst_len(isa.lanes()), |d| conv.run(&Pool::new(1), &src, None, Act::Relu, d));
        let got = plain(&got, 1, 4, 9, isa.lanes());
        assert!(got[0].is_nan() && got[1] == 4.0);
    }
}
