//! RandomNormal(Like), RandomUniform(Like), Bernoulli, Multinomial.
//!
//! <https://onnx.ai/onnx/operators/onnx__RandomNormal.html>, <https://onnx.ai/onnx/operators/onnx__RandomUniform.html>,
//! <https://onnx.ai/onnx/operators/onnx__Bernoulli.html>, <https://onnx.ai/onnx/operators/onnx__Multinomial.html>.
//!
//! Cost: nothing; drawing numbers is not arithmetic on the model's data. Without a seed attribute the seed is 0, so that runs
//! repeat; no two programs draw the same numbers.

use super::cast::cast;
use super::spec::{Attr, NodeSpec};
use super::{Case, Charge, CostCx, Entry, EvalCx, Family, Infer, Inputs, Op, input, sample};
use crate::error::{Error, Result};
use crate::tensor::{DType, Fact, Shape, Tensor, element_count};

/// The family's table rows.
pub const ENTRIES: &[Entry] = &[
    Entry { domain: "", name: "RandomNormal", parse: Random::normal, cases },
    Entry { domain: "", name: "RandomNormalLike", parse: Random::normal, cases },
    Entry { domain: "", name: "RandomUniform", parse: Random::uniform, cases },
    Entry { domain: "", name: "RandomUniformLike", parse: Random::uniform, cases },
    Entry { domain: "", name: "Bernoulli", parse: Random::bernoulli, cases },
    Entry { domain: "", name: "Multinomial", parse: Random::multinomial, cases },
];

/// Seeded random numbers.
#[derive(Debug, Clone)]
pub struct Random {
    /// What they are drawn from.
    pub draw: Draw,
    /// Element type; the input's if not given.
    pub dtype: Option<DType>,
    /// Output dims; the input's if not given.
    pub dims: Option<Vec<usize>>,
    /// Seed.
    pub seed: u64,
}

/// A distribution.
#[derive(Debug, Clone, Copy)]
pub enum Draw {
    /// Gaussian.
    Normal {
        /// Mean.
        mean: f32,
        /// Standard deviation.
        scale: f32,
    },
    /// Even in `[low, high)`.
    Uniform {
        /// Lower end.
        low: f32,
        /// Upper end.
        high: f32,
    },
    /// 1 with the probability in the input.
    Bernoulli,
    /// Class indices from unnormalised log-probabilities `[batch, classes]`.
    Multinomial {
        /// Draws per row.
        samples: usize,
    },
}

impl Random {
    fn make(node: &NodeSpec, draw: Draw, default: Option<DType>) -> Result<Op> {
        let from_shape = matches!(node.op_type.as_str(), "RandomNormal" | "RandomUniform");
        let dims = if from_shape {
            node.expect_inputs(0, 0)?;
            let dims = node.opt_sizes("shape")?;
            Some(dims.ok_or_else(|| Error::input("is missing").at_attribute("shape"))?)
        } else {
            node.expect_inputs(1, 1)?;
            None
        };
        let seed = u64::from(node.float("seed", 0.0)?.to_bits());
        Ok(Op::Random(Random { draw, dtype: node.opt_dtype("dtype")?.or(default), dims, seed }))
    }
    fn normal(node: &NodeSpec) -> Result<Op> {
        let draw = Draw::Normal { mean: node.float("mean", 0.0)?, scale: node.float("scale", 1.0)? };
        Self::make(node, draw, (node.op_type == "RandomNormal").then_some(DType::F32))
    }
    fn uniform(node: &NodeSpec) -> Result<Op> {
        let draw = Draw::Uniform { low: node.float("low", 0.0)?, high: node.float("high", 1.0)? };
        Self::make(node, draw, (node.op_type == "RandomUniform").then_some(DType::F32))
    }
    fn bernoulli(node: &NodeSpec) -> Result<Op> {
        Self::make(node, Draw::Bernoulli, None)
    }
    fn multinomial(node: &NodeSpec) -> Result<Op> {
        let samples = node.opt_size("sample_size")?.unwrap_or(1);
        Self::make(node, Draw::Multinomial { samples }, Some(DType::I32))
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Stream(u64);

impl Stream {
    /// Even in `[0, 1)`.
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
    /// Standard normal (Box and Muller).
    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.next()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.next()).cos()
    }
}

/// The Mersenne Twister MT19937 (Matsumoto and Nishimura 1998), seeded with one number: what ONNX's own cases draw with.
#[derive(Debug)]
pub struct Twister {
    state: [u32; 624],
    next: usize,
}

impl Twister {
    /// The generator of a seed.
    pub fn new(seed: u32) -> Twister {
        let mut state = [seed; 624];
        for i in 1..624 {
            let before = state[i - 1];
            state[i] = (before ^ before >> 30).wrapping_mul(1_812_433_253).wrapping_add(i as u32);
        }
        Twister { state, next: 624 }
    }
    fn word(&mut self) -> u32 {
        if self.next == 624 {
            for i in 0..624 {
                let y = self.state[i] & 0x8000_0000 | self.state[(i + 1) % 624] & 0x7fff_ffff;
                let odd = if y & 1 == 1 { 0x9908_b0df } else { 0 };
                self.state[i] = self.state[(i + 397) % 624] ^ y >> 1 ^ odd;
            }
            self.next = 0;
        }
        let mut y = self.state[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= y << 7 & 0x9d2c_5680;
        y ^= y << 15 & 0xefc6_0000;
        y ^ y >> 18
    }
    /// Even in `[0, 1)`, 53 bits.
    pub fn even(&mut self) -> f64 {
        let (high, low) = (self.word() >> 5, self.word() >> 6);
        (f64::from(high) * 67_108_864.0 + f64::from(low)) / 9_007_199_254_740_992.0
    }
}

impl Family for Random {
    fn infer(&self, cx: &Infer) -> Result<Vec<Fact>> {
        if let Some(dims) = &self.dims {
            return Ok(vec![Fact { dtype: self.dtype, ..Fact::of(DType::F32, dims) }]);
        }
        let x = cx.fact(0)?;
        let mut y = Fact { dtype: self.dtype.or(x.dtype), ..x.clone() };
        if let Draw::Multinomial { samples } = self.draw {
            y.shape = Shape::partial(vec![x.shape.dim(0), Some(samples)]);
        }
        Ok(vec![y])
    }
    fn charge(&self, _cx: &CostCx) -> Charge {
        Charge::FREE
    }
    fn eval(&self, _cx: &EvalCx, inputs: &Inputs) -> Result<Vec<Tensor>> {
        let mut stream = Stream(self.seed);
        let x = if self.dims.is_some() { None } else { Some(input(inputs, 0)?) };
        let dtype = self.dtype.or(x.map(Tensor::dtype)).unwrap_or(DType::F32);
        let mut dims = self.dims.clone().or(x.map(|x| x.dims().to_vec())).unwrap_or_default();
        let mut values: Vec<f64> = Vec::new();
        let mut reserve = |n: usize| values.try_reserve_exact(n).map_err(|_| Error::run("no memory for the numbers"));
        match self.draw {
            Draw::Normal { mean, scale } => {
                let n = element_count(&dims)?;
                reserve(n)?;
                values.extend((0..n).map(|_| f64::from(mean) + f64::from(scale) * stream.normal()));
            }
            Draw::Uniform { low, high } => {
                let n = element_count(&dims)?;
                reserve(n)?;
                values.extend((0..n).map(|_| f64::from(low) + f64::from(high - low) * stream.next()));
            }
            Draw::Bernoulli => {
                let p = input(inputs, 0)?.to_f64s()?;
                values.extend(p.into_iter().map(|p| f64::from(u8::from(stream.next() < p))));
            }
            Draw::Multinomial { samples } => {
                let &[batch, classes] = &dims[..] else {
                    return Err(Error::input("needs log-probabilities [batch, classes]"));
                };
                let logs = input(inputs, 0)?.to_f64s()?;
                reserve(element_count(&[batch, samples])?)?;
                if classes == 0 && batch > 0 && samples > 0 {
                    return Err(Error::run("no classes to draw from"));
                }
                for row in logs.chunks(classes.max(1)) {
                    let top = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    let weights: Vec<f64> = row.iter().map(|l| (l - top).exp()).collect();
                    let sum: f64 = weights.iter().sum();
                    for _ in 0..samples {
                        let mut left = stream.next() * sum;
                        let class = weights.iter().position(|w| {
                            left -= w;
                            left < 0.0
                        });
                        values.push(class.unwrap_or(classes - 1) as f64);
                    }
                }
                dims = vec![batch, samples];
            }
        }
        Ok(vec![cast(&Tensor::from_vec(values, &dims)?, dtype, true)?])
    }
    fn handles_narrow(&self) -> bool {
        true
    }
    fn is_random(&self) -> bool {
        true
    }
}

fn cases() -> Vec<Case> {
    let f = sample::floats;
    let shape = ("shape", Attr::Ints(vec![2, 3]));
    let dtype = |d: DType| ("dtype", Attr::Int(d.to_onnx().into()));
    vec![
        Case::new("RandomNormal", &[shape.clone(), ("seed", Attr::Float(2.0))], vec![]),
        Case::new("RandomNormalLike", &[dtype(DType::F16)], vec![f(&[2, 3], 1)]),
        Case::new("RandomUniform", &[shape, dtype(DType::F64)], vec![]),
        Case::new("RandomUniformLike", &[], vec![f(&[0, 3], 1)]),
        Case::new("Bernoulli", &[dtype(DType::Bool)], vec![f(&[2, 3], 1)]),
        Case::new("Multinomial", &[("sample_size", Attr::Int(5))], vec![f(&[2, 3], 1)]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_twister_draws_the_published_numbers() {
        let mut t = Twister::new(5489);
        assert_eq!(t.word(), 3_499_211_612);
        let last = (1..10_000).map(|_| t.word()).last();
        assert_eq!(last, Some(4_123_659_995));
        assert!((Twister::new(0).even() - 0.548_813_503_927_324_8).abs() < 1e-15);
    }

    #[test]
    fn numbers_have_the_moments_asked_for() {
        let mut s = Stream(1);
        let v: Vec<f64> = (0..20_000).map(|_| s.normal()).collect();
        let mean = v.iter().sum::<f64>() / v.len() as f64;
        let variance = v.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / v.len() as f64;
        assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.05, "{mean} {variance}");
    }
}
