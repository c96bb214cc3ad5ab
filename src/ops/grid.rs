//! GridSample and AffineGrid.
//!
//! <https://onnx.ai/onnx/operators/onnx__GridSample.html>, <https://onnx.ai/onnx/operators/onnx__AffineGrid.html>.
//!
//! GridSample: `2·taps − 1` other FLOPs per output element, taps being 2 (linear) or 4 (cubic) per spatial axis; coordinates and
//! weights are addressing and free, and so is the nearest neighbour. AffineGrid MAdds: `N · ΠS · d · (d + 1)`.

use super::matmul::from_ints;
use super::spec::{Attr, NodeSpec};
use super::window::advance;
use super::{Case, Charge, CostCx, Entry, EvalCx, Family, Infer, Inputs, Op, Role, input, sample};
use crate::cost::Work;
use crate::error::{Error, Result};
use crate::tensor::{DType, Dim, Fact, Num, Shape, Tensor, element_count, is_num};
use crate::with_num;

/// The family's table rows.
pub const ENTRIES: &[Entry] = &[
    Entry { domain: "", name: "GridSample", parse: parse_sample, cases },
    Entry { domain: "", name: "AffineGrid", parse: parse_affine, cases },
];

/// Interpolation between pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The nearest pixel, half to even.
    Nearest,
    /// N-linear.
    Linear,
    /// N-cubic.
    Cubic,
}

/// What lies outside the map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Padding {
    /// Zeros.
    Zeros,
    /// The nearest border pixel.
    Border,
    /// The map, mirrored.
    Reflection,
}

/// Sampling at given positions, and the positions of an affine transform.
#[derive(Debug, Clone)]
pub enum Grid {
    /// GridSample.
    Sample {
        /// Interpolation.
        mode: Mode,
        /// What lies outside.
        padding: Padding,
        /// −1 and 1 are the centres of the corner pixels, not their outer edges.
        align_corners: bool,
    },
    /// AffineGrid.
    Affine {
        /// As above.
        align_corners: bool,
    },
}

fn parse_sample(node: &NodeSpec) -> Result<Op> {
    node.expect_inputs(2, 2)?;
    let wrong = |name: &str, v: &str| Error::input(format!("'{v}' is not known")).at_attribute(name);
    let mode = match node.str("mode", "linear")? {
        "nearest" => Mode::Nearest,
        "linear" | "bilinear" => Mode::Linear,
        "cubic" | "bicubic" => Mode::Cubic,
        other => return Err(wrong("mode", other)),
    };
    let padding = match node.str("padding_mode", "zeros")? {
        "zeros" => Padding::Zeros,
        "border" => Padding::Border,
        "reflection" => Padding::Reflection,
        other => return Err(wrong("padding_mode", other)),
    };
    Ok(Op::Grid(Grid::Sample { mode, padding, align_corners: node.flag("align_corners", false)? }))
}

fn parse_affine(node: &NodeSpec) -> Result<Op> {
    node.expect_inputs(2, 2)?;
    Ok(Op::Grid(Grid::Affine { align_corners: node.flag("align_corners", false)? }))
}

/// Output dims `[n, c, grid's spatial…]` of GridSample.
fn sample_dims(x: &[Dim], grid: &[Dim]) -> Result<Vec<Dim>> {
    let spatial = x.len().saturating_sub(2);
    let told = grid.last().copied().flatten();
    let batches = x.first().copied().flatten().zip(grid.first().copied().flatten());
    if x.len() < 3
        || grid.len() != x.len()
        || told.is_some_and(|d| d != spatial)
        || batches.is_some_and(|(a, b)| a != b)
    {
        return Err(Error::input(format!(
            "a grid of shape {} does not fit data of shape {}",
            Shape::partial(grid.to_vec()),
            Shape::partial(x.to_vec())
        )));
    }
    Ok([x[0].or(grid[0]), x[1]].into_iter().chain(grid[1..=spatial].iter().copied()).collect())
}

/// Output dims `[n, spatial…, d]` of AffineGrid.
fn affine_dims(theta: &[usize], size: &[i64]) -> Result<Vec<usize>> {
    let sizes: Option<Vec<usize>> = size.iter().map(|&d| usize::try_from(d).ok()).collect();
    let (Some(sizes), &[n, rows, cols]) = (sizes, theta) else {
        return Err(Error::input(format!("a transform of shape {}", Shape::known(theta))));
    };
    let d = size.len().saturating_sub(2);
    if !(2..=3).contains(&d) || rows != d || cols != d + 1 || sizes[0] != n {
        return Err(Error::input(format!(
            "a transform of shape {} for size {}",
            Shape::known(theta),
            Shape::known(&sizes)
        )));
    }
    Ok(std::iter::once(n).chain(sizes[2..].iter().copied()).chain([d]).collect())
}

impl Family for Grid {
    fn infer(&self, cx: &Infer) -> Result<Vec<Fact>> {
        let x = cx.fact(0)?;
        Ok(vec![x.with_shape(match self {
            Grid::Sample { .. } => match (x.shape.dims(), cx.shape(1)?.dims()) {
                (Some(x), Some(grid)) => Shape::partial(sample_dims(x, grid)?),
                _ => Shape::UNKNOWN,
            },
            Grid::Affine { .. } => match (x.shape.concrete(), cx.ints(1)?) {
                (Some(theta), Some(size)) => affine_dims(&theta, &size)?.into(),
                _ => match cx.shape(1)?.dim(0) {
                    Some(rank @ 4..=5) => {
                        let mut dims = vec![None; rank];
                        (dims[0], dims[rank - 1]) = (x.shape.dim(0), Some(rank - 2));
                        Shape::partial(dims)
                    }
                    _ => Shape::UNKNOWN,
                },
            },
        })])
    }

    fn charge(&self, cx: &CostCx) -> Charge {
        Charge::of((|| {
            let out = cx.out_elements(0)?;
            match self {
                Grid::Affine { .. } => {
                    let d = *cx.out_dims(0)?.last()? as u64;
                    Some(Work::madds(out.checked_mul(d + 1)?))
                }
                Grid::Sample { mode: Mode::Nearest, .. } => Some(Work::NONE),
                Grid::Sample { .. } if !cx.dtype(0)?.is_float() => Some(Work::NONE),
                Grid::Sample { mode, .. } => {
                    let per_axis: u64 = if *mode == Mode::Linear { 2 } else { 4 };
                    let taps = per_axis.checked_pow(cx.dims(0)?.len().checked_sub(2)? as u32)?;
                    Some(Work::other(out.checked_mul(taps.checked_mul(2)? - 1)?))
                }
            }
        })())
    }

    fn eval(&self, cx: &EvalCx, inputs: &Inputs) -> Result<Vec<Tensor>> {
        let x = input(inputs, 0)?;
        match self {
            Grid::Affine { align_corners } => {
                let dims = affine_dims(x.dims(), &input(inputs, 1)?.to_i64s()?)?;
                element_count(&dims)?;
                with_num!(cx.arith, x.dtype(), T => Ok(vec![T::store(affine(&T::load(x)?, &dims, *align_corners), &dims)?]))
            }
            Grid::Sample { mode, padding, align_corners } => {
                let grid = input(inputs, 1)?;
                let known = |t: &Tensor| t.dims().iter().map(|&d| Some(d)).collect::<Vec<Dim>>();
                let dims: Vec<usize> = sample_dims(&known(x), &known(grid))?.into_iter().flatten().collect();
                if element_count(&dims)? == 0 {
                    return Ok(vec![Tensor::zeros(x.dtype(), &dims)?]);
                }
                let s =
                    Sampler { mode: *mode, padding: *padding, align_corners: *align_corners, x: x.dims(), out: &dims };
                let at = grid.to_f64s()?;
                if !is_num(x.dtype()) {
                    let x_ints = x.to_i64s()?;
                    let zero = 0i64;
                    if *mode != Mode::Nearest {
                        let y = s.run(&at, &x.to_f64s()?, 0.0)?;
                        return Ok(vec![from_ints(
                            x.dtype(),
                            &y.iter().map(|v| v.trunc() as i64).collect::<Vec<_>>(),
                            &dims,
                        )?]);
                    }
                    return Ok(vec![from_ints(x.dtype(), &s.pick(&at, &x_ints, zero), &dims)?]);
                }
                with_num!(cx.arith, x.dtype(), T => {
                    let (data, zero) = (T::load(x)?, T::zero());
                    let y = if *mode == Mode::Nearest { s.pick(&at, &data, zero) } else { s.run(&at, &data, zero)? };
                    Ok(vec![T::store(y, &dims)?])
                })
            }
        }
    }

    fn role(&self, i: usize) -> Role {
        match self {
            Grid::Affine { .. } if i == 1 => Role::Setting,
            _ => Role::Data,
        }
    }
}

/// `theta · (x, y, …, 1)` at every position.
fn affine<T: Num>(theta: &[T], dims: &[usize], align_corners: bool) -> Vec<T> {
    let d = dims.len() - 2;
    let spatial = &dims[1..=d];
    let mut y = Vec::with_capacity(dims.iter().product());
    if dims.contains(&0) {
        return y;
    }
    let base = |i: usize, n: usize| match (align_corners, n) {
        (true, 1) => 0.0,
        (true, _) => 2.0 * i as f64 / (n - 1) as f64 - 1.0,
        (false, _) => (2 * i + 1) as f64 / n as f64 - 1.0,
    };
    for theta in theta.chunks_exact(d * (d + 1)) {
        let mut index = vec![0; d];
        loop {
            for row in theta.chunks_exact(d + 1) {
                // Coordinates run in the reverse order of the axes: x is the last one.
                let sum = row[..d].iter().enumerate().fold(T::zero(), |sum, (k, &t)| {
                    let a = d - 1 - k;
                    sum.madd(t, T::of(base(index[a], spatial[a])))
                });
                y.push(sum.madd(row[d], T::of(1.0)));
            }
            if !advance(&mut index, spatial) {
                break;
            }
        }
    }
    y
}

struct Sampler<'a> {
    mode: Mode,
    padding: Padding,
    align_corners: bool,
    x: &'a [usize],
    out: &'a [usize],
}

impl Sampler<'_> {
    /// Where a normalised coordinate lies in an axis of `n` pixels, before any padding; in single precision, as runtimes do.
    fn position(&self, v: f64, n: usize) -> f64 {
        let (v, n) = (v as f32, n as f32);
        f64::from(if self.align_corners { (v + 1.0) / 2.0 * (n - 1.0) } else { ((v + 1.0) * n - 1.0) / 2.0 })
    }

    fn bounds(&self, n: usize) -> (f64, f64) {
        if self.align_corners { (0.0, n as f64 - 1.0) } else { (-0.5, n as f64 - 0.5) }
    }

    /// A coordinate brought inside the bounds.
    fn padded(&self, x: f64, n: usize) -> f64 {
        let (low, high) = self.bounds(n);
        if x >= low && x <= high {
            return x;
        }
        match self.padding {
            Padding::Zeros => x,
            Padding::Border => x.clamp(0.0, n as f64 - 1.0),
            Padding::Reflection => reflect(x, low, high),
        }
    }

    /// The pixel at a whole position, `None` where zeros are.
    fn pixel(&self, i: f64, n: usize) -> Option<usize> {
        let last = n as f64 - 1.0;
        let i = match self.padding {
            Padding::Zeros => Some(i).filter(|&i| i >= 0.0 && i <= last)?,
            Padding::Border => i.clamp(0.0, last),
            Padding::Reflection => {
                let (low, high) = self.bounds(n);
                reflect(i, low, high).trunc().clamp(0.0, last)
            }
        };
        if i.is_nan() { None } else { Some(i as usize) }
    }

    /// The nearest pixels.
    fn pick<E: Copy>(&self, grid: &[f64], x: &[E], zero: E) -> Vec<E> {
        self.each(
            grid,
            x,
            |at, dims| {
                let place = at.iter().zip(dims).try_fold(0, |p, (&v, &n)| {
                    let rounded = self.padded(self.position(v, n).round_ties_even(), n);
                    Some(p * n + self.pixel(rounded.trunc(), n)?)
                });
                vec![(place, 1.0)]
            },
            |plane, taps| taps[0].0.map_or(zero, |p| plane[p]),
        )
    }

    /// Interpolated pixels.
    fn run<T: Num>(&self, grid: &[f64], x: &[T], zero: T) -> Result<Vec<T>> {
        let per_axis: usize = if self.mode == Mode::Linear { 2 } else { 4 };
        let spatial = self.x.len() - 2;
        if per_axis.checked_pow(spatial as u32).is_none_or(|n| n > 1 << 20) {
            return Err(Error::unsupported(format!("sampling over {spatial} axes")));
        }
        let taps = |at: &[f64], dims: &[usize]| {
            let mut taps = vec![(Some(0), 1.0)];
            for (&v, &n) in at.iter().zip(dims) {
                // Cubic neighbours are padded one by one, as in PyTorch and ONNX Runtime.
                let x = self.position(v, n);
                let x = if self.mode == Mode::Linear { self.padded(x, n) } else { x };
                let (first, t) = (x.floor(), x - x.floor());
                let weights =
                    if self.mode == Mode::Linear { vec![(first, 1.0 - t), (first + 1.0, t)] } else { cubic(first, t) };
                taps = taps
                    .iter()
                    .flat_map(|&(place, w): &(Option<usize>, f64)| {
                        weights.iter().map(move |&(i, v)| (place.and_then(|p| Some(p * n + self.pixel(i, n)?)), w * v))
                    })
                    .collect();
            }
            taps
        };
        Ok(self.each(grid, x, taps, |plane, taps| {
            let mut products = taps.iter().map(|&(p, w)| p.map_or(zero, |p| plane[p]) * T::of(w));
            let first = products.next().unwrap_or(zero);
            products.fold(first, |sum, v| sum + v)
        }))
    }

    /// Walks the output: the taps of each position serve all channels.
    fn each<E: Copy>(
        &self,
        grid: &[f64],
        x: &[E],
        taps: impl Fn(&[f64], &[usize]) -> Vec<(Option<usize>, f64)>,
        value: impl Fn(&[E], &[(Option<usize>, f64)]) -> E,
    ) -> Vec<E> {
        let (n, c, dims) = (self.x[0], self.x[1], &self.x[2..]);
        let (plane, outs): (usize, usize) = (dims.iter().product(), self.out[2..].iter().product());
        let d = dims.len();
        let mut y = Vec::with_capacity(n * c * outs);
        for b in 0..n {
            let all: Vec<_> = (0..if c == 0 { 0 } else { outs })
                .map(|o| {
                    // Coordinates run in the reverse order of the axes.
                    let at: Vec<f64> = grid[(b * outs + o) * d..][..d].iter().rev().copied().collect();
                    taps(&at, dims)
                })
                .collect();
            for k in 0..c {
                let data = &x[(b * c + k) * plane..][..plane];
                y.extend(all.iter().map(|t| value(data, t)));
            }
        }
        y
    }
}

/// A coordinate mirrored at the bounds until it lies between them.
fn reflect(x: f64, low: f64, high: f64) -> f64 {
    let range = high - low;
    if !x.is_finite() || range <= 0.0 {
        return low.max(0.0);
    }
    let (beyond, near, far, sign) = if x < low {
        (low - x, low, high, 1.0)
    } else if x > high {
        (x - high, high, low, -1.0)
    } else {
        return x;
    };
    let times = (beyond / range).trunc();
    let rest = beyond - times * range;
    if times % 2.0 == 0.0 { near + sign * rest } else { far - sign * rest }
}

/// Cubic convolution (Keys 1981, a = −0.75) over four neighbours.
fn cubic(first: f64, t: f64) -> Vec<(f64, f64)> {
    let a = -0.75;
    let near = |d: f64| ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0;
    let far = |d: f64| ((a * d - 5.0 * a) * d + 8.0 * a) * d - 4.0 * a;
    vec![(first - 1.0, far(t + 1.0)), (first, near(t)), (first + 1.0, near(1.0 - t)), (first + 2.0, far(2.0 - t))]
}

fn cases() -> Vec<Case> {
    let f = sample::floats;
    let name = |k: &'static str, v: &str| (k, Attr::Str(v.into()));
    let wide = |dims: &[usize]| {
        let v = f(dims, 9).to_f64s().expect("sample floats are floats");
        Tensor::from_vec(v.into_iter().map(|v| v as f32 * 1.6).collect::<Vec<_>>(), dims).expect("same length")
    };
    let two = |attrs: &[(&str, Attr)]| Case::new("GridSample", attrs, vec![f(&[2, 3, 4, 5], 1), wide(&[2, 3, 2, 2])]);
    let align = ("align_corners", Attr::Int(1));
    let ints = Tensor::from_vec_as(DType::I32, (0..12i32).collect::<Vec<_>>(), &[1, 1, 3, 4]).expect("12 values");
    vec![
        two(&[]),
        two(&[name("mode", "bilinear"), name("padding_mode", "border")]).opset(16),
        two(&[name("mode", "cubic"), name("padding_mode", "reflection"), align.clone()]),
        two(&[name("mode", "nearest"), name("padding_mode", "reflection")]),
        Case::new("GridSample", &[], vec![f(&[1, 2, 3, 4, 3], 1), wide(&[1, 2, 2, 3, 3])]),
        Case::new("GridSample", &[name("mode", "nearest")], vec![ints, wide(&[1, 2, 2, 2])]),
        Case::new("AffineGrid", &[], vec![f(&[2, 2, 3], 1), sample::ints(&[2, 5, 3, 4])]),
        Case::new("AffineGrid", &[align], vec![f(&[1, 3, 4], 1), sample::ints(&[1, 2, 3, 1, 2])]),
    ]
}
