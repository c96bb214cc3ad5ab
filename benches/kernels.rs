//! Single kernels on typical layers: GMAC/s and percent of the FMA peak, at 1 and 2 threads.
//!
//! `cargo bench --bench kernels [-- WORD…]` runs the layers whose name contains one of the words. Layers and the peak
//! probe take turns, so that a slow spell of the machine hits all of them; minimum and median are printed.
//! `MADD_PROF_ISA` caps the instruction set, `ROUNDS` sets the number of rounds (default 15).

use madd_prof::engine::pool::Pool;
use madd_prof::kernels::conv_blocked::{Conv, ConvShape, SrcLayout};
use madd_prof::kernels::epilogue::Act;
use madd_prof::kernels::gemm::{Bias, Finish, GemmShape, Mat, PackedB, Rhs, gemm};
use madd_prof::kernels::gemv::{After, Order, gemv};
use madd_prof::kernels::strassen::{self, Lay};
use madd_prof::simd::{Isa, Simd, SimdOp, dispatch};
use std::hint::black_box;
use std::time::Instant;

/// FMAs on registers only; gives the multiply-adds done.
struct Peak(usize);

impl SimdOp for Peak {
    type Out = usize;
    #[inline(always)]
    fn call<S: Simd>(self, s: S) -> usize {
        let (a, b) = (s.splat(black_box(0.999)), s.splat(black_box(0.001)));
        let mut acc = [s.splat(1.0); 12];
        for _ in 0..self.0 {
            for v in &mut acc {
                *v = s.fma(*v, a, b);
            }
        }
        let sum = acc.into_iter().fold(s.splat(0.0), |x, y| s.add(x, y));
        black_box(s.reduce_add(sum));
        self.0 * 12 * S::LANES
    }
}

struct Case {
    name: String,
    madds: usize,
    run: Box<dyn FnMut(&Pool)>,
    times: Vec<f64>,
}

fn values(len: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 2_654_435_761) % 1000) as f32 / 1000.0 - 0.5).collect()
}

fn conv(isa: Isa, name: &str, shape: ConvShape, layout: SrcLayout) -> Case {
    let wei = values(shape.oc * shape.ic / shape.g * shape.kh * shape.kw);
    let wei: Vec<[u8; 4]> = wei.iter().map(|w| w.to_ne_bytes()).collect();
    let conv = Conv::new(isa, shape, layout, &wei, Some(&values(shape.oc)));
    let len = if layout == SrcLayout::Plain { shape.ic * shape.ih * shape.iw } else { shape.src_len(isa.lanes()) };
    let (src, mut dst) = (values(len), vec![0.0; shape.dst_len(isa.lanes())]);
    let run = Box::new(move |pool: &Pool| conv.run(pool, black_box(&src), None, Act::Relu, &mut dst));
    Case { name: name.into(), madds: shape.madds(), run, times: Vec::new() }
}

fn product(isa: Isa, name: &str, shape: GemmShape, packed: bool, transposed: bool) -> Case {
    let GemmShape { batch, m, k, n } = shape;
    let (a, b, bias) = (values(batch * m * k), values(batch * k * n), values(n));
    let mut dst = vec![0.0; batch * m * n];
    let held = packed.then(|| PackedB::new(isa, k, n, Mat::rows(&b, k, n)));
    let run = Box::new(move |pool: &Pool| {
        let rhs = match &held {
            Some(p) => Rhs::Packed(p),
            None if transposed => Rhs::Mat(Mat::transposed(&b, k, n)),
            None => Rhs::Mat(Mat::rows(&b, k, n)),
        };
        let fin = Finish { bias: Bias::Col(&bias), ..Finish::default() };
        gemm(pool, isa, shape, Mat::rows(black_box(&a), m, k), rhs, fin, &mut dst);
    });
    Case { name: name.into(), madds: batch * m * k * n, run, times: Vec::new() }
}

fn halves(isa: Isa, name: &str, [m, k, n]: [usize; 3], lay: Lay) -> Case {
    let (a, bias, mut dst) = (values(m * k), values(n), vec![0.0; m * n]);
    let wei: Vec<[u8; 4]> = values(k * n).iter().map(|w| w.to_ne_bytes()).collect();
    let held = PackedB::of_source(isa, k, n, lay == Lay::Blocks, (&wei[..]).into());
    let run = Box::new(move |pool: &Pool| {
        let fin = strassen::Finish { bias: Some(&bias), residual: None, act: Act::None };
        strassen::strassen(pool, lay, (1, m), black_box(&a), &held, fin, &mut dst);
    });
    Case { name: name.into(), madds: m * k * n, run, times: Vec::new() }
}

fn vector(isa: Isa, name: &str, k: usize, n: usize, order: Order) -> Case {
    let (x, mut dst) = (values(k), vec![0.0; n]);
    let w: Vec<u8> = values(k * n).iter().flat_map(|v| v.to_ne_bytes()).collect();
    let after = After { alpha: 1.0, bias: None, residual: None, act: Act::None };
    let run = Box::new(move |pool: &Pool| gemv(pool, isa, (1, k, n), &x, black_box(&w), order, after, &mut dst));
    Case { name: name.into(), madds: k * n, run, times: Vec::new() }
}

fn cases(isa: Isa) -> Vec<Case> {
    let mut all = Vec::new();
    for (hw, c) in [(112, 32), (56, 64), (56, 128), (28, 128), (28, 256), (14, 256), (14, 512), (7, 512), (7, 960)] {
        let shape = ConvShape::square(c, hw, c, 1, 1, 0);
        all.push(conv(isa, &format!("c1_{hw}_{c}"), shape, SrcLayout::Blocked));
    }
    all.push(conv(isa, "c1_56_24_144", ConvShape::square(24, 56, 144, 1, 1, 0), SrcLayout::Blocked));
    all.push(conv(isa, "c1_56_144_24", ConvShape::square(144, 56, 24, 1, 1, 0), SrcLayout::Blocked));
    all.push(conv(isa, "c1s2_56_256_512", ConvShape::square(256, 56, 512, 1, 2, 0), SrcLayout::Blocked));
    all.push(conv(isa, "c1_1_960_240", ConvShape::square(960, 1, 240, 1, 1, 0), SrcLayout::Blocked));
    for (hw, c) in [(56, 64), (28, 128), (14, 256), (7, 512)] {
        all.push(conv(isa, &format!("c3_{hw}_{c}"), ConvShape::square(c, hw, c, 3, 1, 1), SrcLayout::Blocked));
    }
    all.push(conv(isa, "c3s2_56_128", ConvShape::square(128, 56, 128, 3, 2, 1), SrcLayout::Blocked));
    all.push(conv(isa, "first3_224_32", ConvShape::square(3, 224, 32, 3, 2, 1), SrcLayout::Plain));
    all.push(conv(isa, "first7_224_64", ConvShape::square(3, 224, 64, 7, 2, 3), SrcLayout::Plain));
    for (k, s, hw, c) in [
        (3, 1, 112, 32),
        (3, 1, 56, 144),
        (3, 2, 56, 144),
        (3, 1, 28, 192),
        (3, 2, 28, 192),
        (3, 2, 14, 576),
        (3, 1, 14, 384),
        (3, 1, 14, 576),
        (3, 1, 7, 960),
        (5, 1, 28, 240),
        (5, 1, 14, 480),
        (5, 1, 7, 960),
        (5, 2, 14, 672),
        (7, 1, 14, 384),
    ] {
        let shape = ConvShape { g: c, ..ConvShape::square(c, hw, c, k, s, k / 2) };
        all.push(conv(isa, &format!("dw{k}s{s}_{hw}_{c}"), shape, SrcLayout::Blocked));
    }
    let grouped = ConvShape { g: 32, ..ConvShape::square(128, 56, 128, 3, 1, 1) };
    all.push(conv(isa, "g32_56_128", grouped, SrcLayout::Blocked));
    for (m, k, n) in [(128, 768, 768), (128, 768, 3072), (128, 3072, 768), (197, 768, 768)] {
        let shape = GemmShape { batch: 1, m, k, n };
        all.push(product(isa, &format!("gemm_{m}_{k}_{n}"), shape, true, false));
        all.push(halves(isa, &format!("strassen_{m}_{k}_{n}"), [m, k, n], Lay::Rows));
    }
    all.push(halves(isa, "strassen_c1_14_256", [196, 256, 256], Lay::Blocks));
    all.push(halves(isa, "strassen_c1_14_512", [196, 512, 512], Lay::Blocks));
    all.push(product(isa, "attention_qk", GemmShape { batch: 12, m: 128, k: 64, n: 128 }, false, true));
    all.push(product(isa, "attention_pv", GemmShape { batch: 12, m: 128, k: 128, n: 64 }, false, false));
    all.push(product(isa, "square_512", GemmShape { batch: 1, m: 512, k: 512, n: 512 }, false, false));
    all.push(vector(isa, "gemv_nk_2048_1000", 2048, 1000, Order::NK));
    all.push(vector(isa, "gemv_kn_2048_1000", 2048, 1000, Order::KN));
    all.push(vector(isa, "gemv_nk_4096_4096", 4096, 4096, Order::NK));
    all
}

fn main() {
    let isa = Isa::detect().unwrap_or_else(|e| panic!("{e}"));
    let words: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let rounds = std::env::var("ROUNDS").ok().and_then(|r| r.parse().ok()).unwrap_or(15);
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get()).min(2);
    println!("isa {isa}");
    let mut best_peak = 0.0f64;
    for threads in 1..=threads {
        let pool = Pool::new(threads);
        let _active = pool.activate();
        let mut all = cases(isa);
        all.retain(|c| words.is_empty() || words.iter().any(|w| c.name.contains(w.as_str())));
        for round in 0..rounds {
            let start = Instant::now();
            let madds = dispatch(isa, Peak(200_000));
            best_peak = best_peak.max(madds as f64 / start.elapsed().as_secs_f64());
            for case in &mut all {
                if round == 0 {
                    (case.run)(&pool);
                }
                // At least 200 us per sample, so that the clock and one fork do not count.
                let mut reps = 1;
                loop {
                    let start = Instant::now();
                    for _ in 0..reps {
                        (case.run)(&pool);
                    }
                    let t = start.elapsed().as_secs_f64();
                    if t > 200e-6 {
                        case.times.push(t / reps as f64);
                        break;
                    }
                    reps *= 2;
                }
            }
        }
        let peak = best_peak * threads as f64;
        println!("threads {threads}  peak {:.1} GMAC/s", peak / 1e9);
        for case in &mut all {
            case.times.sort_by(f64::total_cmp);
            let (min, median) = (case.times[0], case.times[case.times.len() / 2]);
            println!(
                "{:20} {:9.2} us {:9.2} us {:7.1} GMAC/s {:5.1} % of peak, median {:5.1} %",
                case.name,
                min * 1e6,
                median * 1e6,
                case.madds as f64 / min / 1e9,
                100.0 * case.madds as f64 / min / peak,
                100.0 * case.madds as f64 / median / peak
            );
        }
    }
}
