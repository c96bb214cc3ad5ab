//! DFT, STFT, HannWindow, HammingWindow, BlackmanWindow, MelWeightMatrix.
//!
//! <https://onnx.ai/onnx/operators/onnx__DFT.html>, <https://onnx.ai/onnx/operators/onnx__STFT.html>,
//! <https://onnx.ai/onnx/operators/onnx__HannWindow.html>, <https://onnx.ai/onnx/operators/onnx__MelWeightMatrix.html>.
//!
//! Cost of a transform of length n: that of the mixed-radix fast Fourier transform (Cooley and Tukey 1965), `4·n·Σ(p − 1)` MAdds over
//! the prime factors p of n: four per complex multiply-add. A length of 2ᵏ thus costs 4·n·k, a prime one the direct 4·n·(n − 1). Real
//! signals are transformed as complex ones, and one-sided results are cut from whole ones. Other FLOPs: an inverse transform scales each
//! real or imaginary part it gives by 1/n (one-sided, also negates the bins it mirrors); STFT multiplies each real or imaginary part by the
//! window, if there is one. Windows and mel weights are tables made from settings: free.

use super::cast::cast;
use super::dims::{axis, strides};
use super::spec::{Attr, NodeSpec};
use super::{Case, Charge, CostCx, Entry, EvalCx, Family, Infer, Inputs, Op, Role, input, opt, sample};
use crate::cost::{Work, product};
use crate::error::{Error, Result};
use crate::tensor::{DType, Dim, Fact, Num, Shape, Tensor, element_count};
use crate::with_num;
use std::f64::consts::{PI, TAU};

const fn entry(name: &'static str) -> Entry {
    Entry { domain: "", name, parse: Signal::parse, cases }
}

/// The family's table rows.
pub const ENTRIES: &[Entry] = &[
    entry("BlackmanWindow"),
    entry("DFT"),
    entry("HammingWindow"),
    entry("HannWindow"),
    entry("MelWeightMatrix"),
    entry("STFT"),
];

/// An operator on signals.
#[derive(Debug, Clone)]
pub enum Signal {
    /// Fourier transform along an axis.
    Dft {
        /// From spectrum to signal.
        inverse: bool,
        /// Only the bins up to the middle of the spectrum of a real signal.
        onesided: bool,
        /// The axis attribute of opset 17; later opsets have an input.
        axis: Option<i64>,
    },
    /// Fourier transforms of windowed frames.
    Stft {
        /// Only the bins up to the middle.
        onesided: bool,
    },
    /// A table of a window function.
    Window {
        /// Which one.
        shape: Window,
        /// For frames that repeat: the table of one more point, without its last.
        periodic: bool,
        /// Element type.
        dtype: DType,
    },
    /// Triangular filters on the mel scale.
    Mel(DType),
}

/// A window function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "named after their authors")]
pub enum Window {
    Blackman,
    Hamming,
    Hann,
}

impl Window {
    /// Its value at an angle from 0 to 2π.
    fn at(self, angle: f64) -> f64 {
        match self {
            Window::Blackman => 0.42 - 0.5 * angle.cos() + 0.08 * (2.0 * angle).cos(),
            Window::Hamming => 25.0 / 46.0 - 21.0 / 46.0 * angle.cos(),
            Window::Hann => (angle / 2.0).sin().powi(2),
        }
    }
}

impl Signal {
    fn parse(node: &NodeSpec) -> Result<Op> {
        let dtype = || -> Result<DType> { Ok(node.opt_dtype("output_datatype")?.unwrap_or(DType::F32)) };
        let window = |shape| -> Result<Signal> {
            node.expect_inputs(1, 1)?;
            Ok(Signal::Window { shape, periodic: node.flag("periodic", true)?, dtype: dtype()? })
        };
        Ok(Op::Signal(match node.op_type.as_str() {
            "BlackmanWindow" => window(Window::Blackman)?,
            "HammingWindow" => window(Window::Hamming)?,
            "HannWindow" => window(Window::Hann)?,
            "MelWeightMatrix" => {
                node.expect_inputs(5, 5)?;
                Signal::Mel(dtype()?)
            }
            "STFT" => {
                node.expect_inputs(2, 4)?;
                Signal::Stft { onesided: node.flag("onesided", true)? }
            }
            "DFT" => {
                let old = (1..20).contains(&node.opset);
                node.expect_inputs(1, if old { 2 } else { 3 })?;
                Signal::Dft {
                    inverse: node.flag("inverse", false)?,
                    onesided: node.flag("onesided", false)?,
                    axis: if old { Some(node.int("axis", 1)?) } else { None },
                }
            }
            other => return Err(Error::unsupported(format!("{other} is not an operator on signals"))),
        }))
    }
}

/// The first number of a scalar input.
fn whole(t: &Tensor) -> Result<i64> {
    t.to_i64s()?.first().copied().ok_or_else(|| Error::input("an empty tensor where a number is needed"))
}

fn length(n: i64, what: &str) -> Result<usize> {
    usize::try_from(n).ok().filter(|&n| n > 0).ok_or_else(|| Error::input(format!("{n} is not a {what}")))
}

/// `n·Σ(p − 1)` over the prime factors p of n.
fn multiply_adds(n: usize) -> Option<u64> {
    let (mut left, mut sum) = (n, 0);
    while left > 1 {
        let p = smallest_factor(left);
        sum += p - 1;
        left /= p;
    }
    product([n, sum])
}

fn smallest_factor(n: usize) -> usize {
    (2..).take_while(|p| p * p <= n).find(|p| n.is_multiple_of(*p)).unwrap_or(n)
}

/// A complex number.
type Complex<T> = (T, T);

/// The powers of the n-th root of unity that a transform multiplies by.
fn roots<T: Num>(n: usize, inverse: bool) -> Vec<Complex<T>> {
    let turn = if inverse { TAU } else { -TAU };
    (0..n).map(|k| turn * k as f64 / n as f64).map(|a| (T::of(a.cos()), T::of(a.sin()))).collect()
}

/// The transform of `n` values of `x` from `at`, `step` apart: those of every p-th value put together, p the smallest factor of n.
fn transform<T: Num>(x: &[Complex<T>], at: usize, step: usize, n: usize, roots: &[Complex<T>]) -> Vec<Complex<T>> {
    if n <= 1 {
        return x[at..at + n].to_vec();
    }
    let p = smallest_factor(n);
    let m = n / p;
    let parts: Vec<Vec<Complex<T>>> = (0..p).map(|r| transform(x, at + r * step, step * p, m, roots)).collect();
    let minus = |v: T| T::of(-v.get());
    (0..n)
        .map(|k| {
            let (mut re, mut im) = parts[0][k % m];
            for (r, part) in parts.iter().enumerate().skip(1) {
                let ((a, b), (c, s)) = (part[k % m], roots[r * k % n * step]);
                re = re.madd(a, c).madd(b, minus(s));
                im = im.madd(a, s).madd(b, c);
            }
            (re, im)
        })
        .collect()
}

/// Where a DFT works: lengths of the axis before, in between and after, and its position.
struct Plan {
    axis: usize,
    /// Transform length.
    n: usize,
    /// Output length of the axis.
    bins: usize,
    /// Output parts: 1 for a real result.
    parts: usize,
}

/// Length, output bins and output parts of a DFT whose axis has `dim` values.
fn plan(inverse: bool, onesided: bool, dim: Dim, given: Option<usize>) -> (Dim, Dim, usize) {
    let back = inverse && onesided;
    let n = given.or(if back { dim.map(|d| 2 * d.saturating_sub(1)) } else { dim });
    let bins = if onesided && !inverse { n.map(|n| n / 2 + 1) } else { n };
    (n, bins, if back { 1 } else { 2 })
}

/// The DFT axis of a tensor of a rank; its last axis holds the parts.
fn signal_axis(at: i64, rank: usize) -> Result<usize> {
    let a = axis(at, rank)?;
    if a + 1 == rank {
        return Err(Error::input("is the axis of real and imaginary parts").at_attribute("axis"));
    }
    Ok(a)
}

fn dft<T: Num>(x: &Tensor, inverse: bool, onesided: bool, plan: &Plan) -> Result<Tensor> {
    let parts = parts_of(x.dims())?;
    let Plan { axis: a, n, bins, parts: made } = *plan;
    let (dim, step) = (x.dims()[a], strides(x.dims())[a]);
    let mut dims = x.dims().to_vec();
    (dims[a], dims[x.rank() - 1]) = (bins, made);
    let values = T::load(x)?;
    let mut y = vec![T::zero(); element_count(&dims)?];
    let inner = step / parts;
    let roots = roots::<T>(n, inverse);
    let scale = T::of(1.0 / n as f64);
    let outer = values.len() / (dim * step).max(1);
    for (o, i) in (0..outer).flat_map(|o| (0..inner).map(move |i| (o, i))) {
        let at = |k: usize| {
            let from = (o * dim + k) * step + i * parts;
            (values[from], if parts == 2 { values[from + 1] } else { T::zero() })
        };
        let given = if inverse && onesided { dim.min(n / 2 + 1) } else { dim.min(n) };
        let mut signal: Vec<Complex<T>> = (0..given).map(at).collect();
        signal.resize(n, (T::zero(), T::zero()));
        if inverse && onesided {
            for k in n / 2 + 1..n {
                let (re, im) = signal[n - k];
                signal[k] = (re, -im);
            }
        }
        let spectrum = transform(&signal, 0, 1, n, &roots);
        for (k, &(re, im)) in spectrum.iter().take(bins).enumerate() {
            let to = ((o * bins + k) * inner + i) * made;
            for (part, &v) in [re, im][..made].iter().enumerate() {
                y[to + part] = if inverse { v * scale } else { v };
            }
        }
    }
    T::store(y, &dims)
}

/// Number of parts (1 or 2) of a signal's last axis.
fn parts_of(dims: &[usize]) -> Result<usize> {
    match dims {
        [_, .., parts @ (1 | 2)] => Ok(*parts),
        _ => Err(Error::input(format!("a signal of shape {} has no axis of 1 or 2 parts", Shape::known(dims)))),
    }
}

/// Frame length of an STFT, as far as it is known.
fn frame_length(signal: Dim, window: Option<&Shape>, given: Option<Option<i64>>) -> Result<Dim> {
    let window = match window {
        Some(w) if w.rank().is_some_and(|r| r != 1) => return Err(Error::input("a window of more than one axis")),
        Some(w) => Some(w.dim(0)),
        None => None,
    };
    match (given, window) {
        (Some(Some(n)), w) => {
            let n = length(n, "frame length")?;
            if w.flatten().is_some_and(|w| w != n) {
                return Err(Error::input(format!("the window is not as long as a frame ({n})")));
            }
            Ok(Some(n))
        }
        (Some(None), w) => Ok(w.flatten()),
        (None, Some(w)) => Ok(w),
        (None, None) => Ok(signal),
    }
}

fn frames(signal: usize, frame: usize, step: usize) -> Result<usize> {
    let last = signal.checked_sub(frame);
    last.map(|l| l / step + 1).ok_or_else(|| Error::input(format!("a frame of {frame} in a signal of {signal}")))
}

fn stft<T: Num>(inputs: &Inputs, onesided: bool) -> Result<Tensor> {
    let x = input(inputs, 0)?;
    let (parts, &[batch, len, _]) = (parts_of(x.dims())?, x.dims()) else {
        return Err(Error::input("a signal must be [batch, length, parts]"));
    };
    let step = length(whole(input(inputs, 1)?)?, "frame step")?;
    let window = opt(inputs, 2);
    let shape = window.map(|w| Shape::known(w.dims()));
    let given = opt(inputs, 3).map(whole).transpose()?;
    let n = frame_length(Some(len), shape.as_ref(), given.map(Some))?.filter(|&n| n > 0);
    let n = n.ok_or_else(|| Error::input("frames of length 0"))?;
    if onesided && parts == 2 {
        return Err(Error::input("a complex signal has no one-sided spectrum").at_attribute("onesided"));
    }
    let window = window.map(T::load).transpose()?;
    let (count, bins) = (frames(len, n, step)?, if onesided { n / 2 + 1 } else { n });
    let (values, roots) = (T::load(x)?, roots::<T>(n, false));
    let dims = [batch, count, bins, 2];
    let mut y = super::elements::reserved(element_count(&dims)?)?;
    for (b, f) in (0..batch).flat_map(|b| (0..count).map(move |f| (b, f))) {
        let part = |k: usize, part: usize| {
            let v = values[(b * len + f * step + k) * parts + part];
            window.as_ref().map_or(v, |w| v * w[k])
        };
        let frame: Vec<Complex<T>> =
            (0..n).map(|k| (part(k, 0), if parts == 2 { part(k, 1) } else { T::zero() })).collect();
        y.extend(transform(&frame, 0, 1, n, &roots).into_iter().take(bins).flat_map(|(re, im)| [re, im]));
    }
    T::store(y, &dims)
}

/// Triangular filters `[dft_length/2 + 1, bins]`.
fn mel_weights(inputs: &Inputs) -> Result<Tensor> {
    let int = |i: usize, what: &str| length(whole(input(inputs, i)?)?, what);
    let hertz = |i: usize| -> Result<f64> {
        input(inputs, i)?.to_f64s()?.first().copied().ok_or_else(|| Error::input("an empty frequency"))
    };
    let (mels, n, rate) = (int(0, "number of mel bins")?, int(1, "DFT length")?, int(2, "sample rate")?);
    let (low, high) = (hertz(3)?, hertz(4)?);
    let dims = [n / 2 + 1, mels];
    let mut y = super::elements::reserved(element_count(&dims)?)?;
    y.resize(element_count(&dims)?, 0.0);
    let mel = |f: f64| 2595.0 * (f / 700.0).ln_1p() / std::f64::consts::LN_10;
    let step = (mel(high) - mel(low)) / (mels + 2) as f64;
    let bin = |i: usize| -> Result<usize> {
        let f = 700.0 * ((i as f64 * step + mel(low)) / 2595.0 * std::f64::consts::LN_10).exp_m1();
        let b = ((n + 1) as f64 * f / rate as f64).floor();
        let fits = b >= 0.0 && b < dims[0] as f64;
        if fits { Ok(b as usize) } else { Err(Error::input(format!("{f} Hz is not in the spectrum of a signal of {rate} Hz"))) }
    };
    for i in 0..mels {
        let (left, center, right) = (bin(i)?, bin(i + 1)?, bin(i + 2)?);
        if left == center {
            y[center * mels + i] = 1.0;
        }
        for j in left..=center {
            if left < center {
                y[j * mels + i] = (j - left) as f64 / (center - left) as f64;
            }
        }
        for j in center..right {
            y[j * mels + i] = (right - j) as f64 / (right - center) as f64;
        }
    }
    Tensor::from_vec(y, &dims)
}

impl Family for Signal {
    fn infer(&self, cx: &Infer) -> Result<Vec<Fact>> {
        let number = |i: usize| -> Result<Option<i64>> { Ok(cx.ints(i)?.and_then(|v| v.first().copied())) };
        Ok(vec![match self {
            Signal::Dft { inverse, onesided, axis } => {
                let x = cx.fact(0)?;
                let Some(d) = x.shape.dims() else { return Ok(vec![x.clone()]) };
                let at = match (axis, cx.opt(2)) {
                    (Some(a), _) => Some(*a),
                    (None, None) => Some(-2),
                    (None, Some(_)) => number(2)?,
                };
                let given = number(1)?.map(|n| length(n, "DFT length")).transpose()?;
                let Some(at) = at else { return Ok(vec![x.with_shape(Shape::of_rank(d.len()))]) };
                let at = signal_axis(at, d.len())?;
                let dim = if cx.opt(1).is_some() && given.is_none() { None } else { d[at] };
                let (_, bins, parts) = plan(*inverse, *onesided, dim, given);
                let mut dims = d.to_vec();
                (dims[at], dims[d.len() - 1]) = (bins, Some(parts));
                x.with_shape(Shape::partial(dims))
            }
            Signal::Stft { onesided } => {
                let x = cx.fact(0)?;
                let given = if cx.opt(3).is_some() { Some(number(3)?) } else { None };
                let n = frame_length(x.shape.dim(1), cx.opt(2).map(|w| &w.fact.shape), given)?;
                let step = number(1)?.map(|s| length(s, "frame step")).transpose()?;
                let count = match (x.shape.dim(1), n, step) {
                    (Some(len), Some(n), Some(step)) => Some(frames(len, n, step)?),
                    _ => None,
                };
                let bins = if *onesided { n.map(|n| n / 2 + 1) } else { n };
                x.with_shape(Shape::partial(vec![x.shape.dim(0), count, bins, Some(2)]))
            }
            Signal::Window { dtype, .. } => {
                let n = number(0)?.map(|n| usize::try_from(n).map_err(|_| Error::input(format!("{n} is not a size"))));
                Fact::new(*dtype, Shape::partial(vec![n.transpose()?]))
            }
            Signal::Mel(dtype) => {
                let mels = number(0)?.map(|n| length(n, "number of mel bins")).transpose()?;
                let n = number(1)?.map(|n| length(n, "DFT length")).transpose()?;
                Fact::new(*dtype, Shape::partial(vec![n.map(|n| n / 2 + 1), mels]))
            }
        }])
    }
    fn charge(&self, cx: &CostCx) -> Charge {
        let number = |i: usize| cx.inputs.get(i).copied().flatten()?.value?.to_i64s().ok()?.first().copied();
        Charge::of(match self {
            Signal::Window { .. } | Signal::Mel(_) => Some(Work::NONE),
            Signal::Dft { inverse, onesided, axis } => (|| {
                let (x, y) = (cx.dims(0)?, cx.out_dims(0)?);
                let at = match axis {
                    Some(a) => *a,
                    None if cx.has(2) => number(2)?,
                    None => -2,
                };
                let at = signal_axis(at, x.len()).ok()?;
                let given = if cx.has(1) { Some(usize::try_from(number(1)?).ok()?) } else { None };
                let n = plan(*inverse, *onesided, Some(x[at]), given).0?;
                let rest = x[..x.len() - 1].iter().enumerate().filter(|(a, _)| *a != at).map(|(_, d)| *d);
                let signals = product(rest)?;
                let work = Work::madds(signals.checked_mul(multiply_adds(n)?)?.checked_mul(4)?);
                let scaled = if *inverse { product(y.iter().copied())? } else { 0 };
                let mirrored = if *inverse && *onesided { signals.checked_mul((n - (n / 2 + 1).min(n)) as u64)? } else { 0 };
                Some(work.and_other(scaled.checked_add(mirrored)?))
            })(),
            Signal::Stft { onesided } => (|| {
                let (x, y) = (cx.dims(0)?, cx.out_dims(0)?);
                let window = cx.dims(2);
                let n = match (&window, cx.has(3)) {
                    (Some(w), _) => *w.first()?,
                    (None, true) if !onesided => *y.get(2)?,
                    (None, true) => usize::try_from(number(3)?).ok()?,
                    (None, false) => *x.get(1)?,
                };
                let count = product([*y.first()?, *y.get(1)?])?;
                let windowed = if cx.has(2) { count.checked_mul(product([n, *x.last()?])?)? } else { 0 };
                let madds = count.checked_mul(multiply_adds(n)?)?.checked_mul(4)?;
                Some(Work::madds(madds).and_other(windowed))
            })(),
        })
    }
    fn eval(&self, cx: &EvalCx, inputs: &Inputs) -> Result<Vec<Tensor>> {
        Ok(vec![match self {
            Signal::Dft { inverse, onesided, axis } => {
                let x = input(inputs, 0)?;
                let at = match (axis, opt(inputs, 2)) {
                    (Some(a), _) => *a,
                    (None, Some(t)) => whole(t)?,
                    (None, None) => -2,
                };
                let at = signal_axis(at, x.rank())?;
                let given = opt(inputs, 1).map(whole).transpose()?.map(|n| length(n, "DFT length")).transpose()?;
                let (Some(n), Some(bins), parts) = plan(*inverse, *onesided, Some(x.dims()[at]), given) else {
                    return Err(Error::input("the length of the transform is not known"));
                };
                if n == 0 {
                    return Err(Error::input("a transform of length 0"));
                }
                let plan = Plan { axis: at, n, bins, parts };
                with_num!(cx.arith, x.dtype(), T => dft::<T>(x, *inverse, *onesided, &plan))?
            }
            Signal::Stft { onesided } => {
                with_num!(cx.arith, input(inputs, 0)?.dtype(), T => stft::<T>(inputs, *onesided))?
            }
            Signal::Window { shape, periodic, dtype } => {
                let n = whole(input(inputs, 0)?)?;
                let n = usize::try_from(n).map_err(|_| Error::input(format!("{n} is not a size")))?;
                element_count(&[n])?;
                let span = if *periodic { n } else { n.saturating_sub(1) };
                let at = |k: usize| if span == 0 { PI } else { TAU * k as f64 / span as f64 };
                let mut table = super::elements::reserved(n)?;
                table.extend((0..n).map(|k| shape.at(at(k))));
                cast(&Tensor::from_vec(table, &[n])?, *dtype, true)?
            }
            Signal::Mel(dtype) => cast(&mel_weights(inputs)?, *dtype, true)?,
        }])
    }
    fn role(&self, i: usize) -> Role {
        match self {
            Signal::Dft { .. } | Signal::Stft { .. } if i == 0 => Role::Data,
            _ => Role::Setting,
        }
    }
}

fn cases() -> Vec<Case> {
    let f = sample::floats;
    let n = |v: i64| Tensor::scalar(v);
    let flag = |name: &'static str| (name, Attr::Int(1));
    let dft = |attrs: &[(&str, Attr)], x: &[usize], length: Option<i64>, axis: Option<i64>| {
        Case::with_optional("DFT", attrs, vec![Some(f(x, 1)), length.map(n), axis.map(n)], 1)
    };
    let stft = |attrs: &[(&str, Attr)], x: &[usize], step: i64, window: Option<usize>, length: Option<i64>| {
        let window = window.map(|w| f(&[w], 2));
        Case::with_optional("STFT", attrs, vec![Some(f(x, 1)), Some(n(step)), window, length.map(n)], 1)
    };
    let both = [flag("inverse"), flag("onesided")];
    let mut all = vec![
        dft(&[], &[2, 8, 1], None, None),
        dft(&[], &[2, 12, 3, 2], None, Some(1)),
        dft(&[flag("onesided")], &[1, 15, 1], None, None),
        dft(&[flag("inverse")], &[2, 7, 2], None, Some(-2)),
        dft(&both, &[2, 5, 2], None, None),
        dft(&both, &[2, 5, 2], Some(9), None),
        dft(&[], &[2, 6, 2], Some(10), Some(1)),
        dft(&[], &[6, 3, 1], Some(4), Some(0)),
        Case::new("DFT", &[("axis", Attr::Int(2))], vec![f(&[1, 3, 10, 1], 1)]).opset(17),
        Case::new("DFT", &[flag("onesided")], vec![f(&[1, 10, 3, 1], 1), n(6)]).opset(19),
        stft(&[], &[2, 32, 1], 4, Some(8), None),
        stft(&[], &[1, 20, 1], 3, None, Some(6)),
        stft(&[("onesided", Attr::Int(0))], &[1, 20, 2], 5, Some(10), Some(10)),
        stft(&[], &[1, 9, 1], 1, None, None),
    ];
    for name in ["HannWindow", "HammingWindow", "BlackmanWindow"] {
        all.push(Case::new(name, &[], vec![n(10)]));
        all.push(Case::new(name, &[("periodic", Attr::Int(0)), ("output_datatype", Attr::Int(10))], vec![n(7)]));
        all.push(Case::new(name, &[("periodic", Attr::Int(0))], vec![n(1)]));
    }
    let hertz = |v: f32| Tensor::scalar(v);
    all.push(Case::new("MelWeightMatrix", &[], vec![n(8), n(16), n(8192), hertz(0.0), hertz(4096.0)]));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fast_transform_equals_the_definition() {
        for n in [1, 2, 3, 8, 12, 13, 30] {
            let x: Vec<Complex<f64>> = (0..n).map(|i| ((i as f64 * 1.7).sin(), (i as f64).cos())).collect();
            let fast = transform(&x, 0, 1, n, &roots(n, false));
            for (k, got) in fast.iter().enumerate() {
                let (mut re, mut im) = (0.0, 0.0);
                for (i, (a, b)) in x.iter().enumerate() {
                    let (s, c) = (-TAU * (i * k) as f64 / n as f64).sin_cos();
                    re += a * c - b * s;
                    im += a * s + b * c;
                }
                assert!((got.0 - re).abs() < 1e-10 && (got.1 - im).abs() < 1e-10, "{n} {k}");
            }
        }
        assert_eq!(multiply_adds(1024), Some(1024 * 10));
        assert_eq!(multiply_adds(13), Some(13 * 12));
    }
}
