//! LSTM, GRU and RNN.
//!
//! <https://onnx.ai/onnx/operators/onnx__LSTM.html>, <https://onnx.ai/onnx/operators/onnx__GRU.html>,
//! <https://onnx.ai/onnx/operators/onnx__RNN.html>.
//!
//! MAdds per step, sequence and direction: `G·h·(x + h)` with G = 4 (LSTM), 3 (GRU), 1 (RNN) gates, input size `x`, hidden size
//! `h`. All `T` steps are computed and counted; with `sequence_lens` the steps beyond a sequence's end are masked, and
//! `useful_madds` leaves them out when the lengths are constant.
//!
//! Other FLOPs per hidden element and step: 1 per bias (its two vectors are added when the model loads), 2 per peephole, 2 per clipped value, the
//! activations (sigmoid 4, tanh 1, …), and the state update: LSTM 4 (`f·C + i·c`, `o·h(C)`), one more for `input_forget`;
//! GRU 5 (`(1 − z)·h + z·H`, `r·H`), and with `linear_before_reset` one more, and another for the second bias.

use super::matmul::accumulate;
use super::spec::{Attr, NodeSpec};
use super::{Case, Charge, CostCx, Entry, EvalCx, Family, Infer, Inputs, Op, Role, input, opt, sample};
use crate::cost::{Work, product};
use crate::error::{Error, Result};
use crate::tensor::{Dim, Fact, Num, Shape, Tensor, element_count};
use crate::with_num;

/// The family's table rows.
pub const ENTRIES: &[Entry] = &[
    Entry { domain: "", name: "LSTM", parse: Rnn::parse, cases },
    Entry { domain: "", name: "GRU", parse: Rnn::parse, cases },
    Entry { domain: "", name: "RNN", parse: Rnn::parse, cases },
];

/// Which recurrence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cell {
    /// Long short-term memory.
    Lstm {
        /// The forget gate is `1 − i`.
        input_forget: bool,
    },
    /// Gated recurrent unit.
    Gru {
        /// The reset gate is applied after the recurrent product.
        linear_before_reset: bool,
    },
    /// Elman network.
    Rnn,
}

/// An activation function of a gate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Activation {
    /// `max(x, 0)`.
    Relu,
    /// `tanh(x)`.
    Tanh,
    /// `1 / (1 + e^−x)`.
    Sigmoid,
    /// `alpha·x + beta`.
    Affine(f64, f64),
    /// `x` or, below zero, `alpha·x`.
    LeakyRelu(f64),
    /// `x` if above `alpha`, else 0.
    ThresholdedRelu(f64),
    /// `alpha·tanh(beta·x)`.
    ScaledTanh(f64, f64),
    /// `alpha·x + beta` within [0, 1].
    HardSigmoid(f64, f64),
    /// `x` or, below zero, `alpha·(e^x − 1)`.
    Elu(f64),
    /// `x / (1 + |x|)`.
    Softsign,
    /// `ln(1 + e^x)`.
    Softplus,
}

impl Activation {
    /// The function called `name`; takes its parameters from the lists in order, or the standard's defaults.
    fn new(
        name: &str,
        alphas: &mut impl Iterator<Item = f32>,
        betas: &mut impl Iterator<Item = f32>,
    ) -> Result<Activation> {
        let mut alpha = |default: f32| f64::from(alphas.next().unwrap_or(default));
        let mut beta = |default: f32| f64::from(betas.next().unwrap_or(default));
        use Activation::*;
        Ok(match name.to_ascii_lowercase().as_str() {
            "relu" => Relu,
            "tanh" => Tanh,
            "sigmoid" => Sigmoid,
            "affine" => Affine(alpha(1.0), beta(0.0)),
            "leakyrelu" => LeakyRelu(alpha(0.01)),
            "thresholdedrelu" => ThresholdedRelu(alpha(1.0)),
            "scaledtanh" => ScaledTanh(alpha(1.0), beta(1.0)),
            "hardsigmoid" => HardSigmoid(alpha(0.2), beta(0.5)),
            "elu" => Elu(alpha(1.0)),
            "softsign" => Softsign,
            "softplus" => Softplus,
            _ => {
                return Err(Error::input(format!("'{name}' is not an activation function")).at_attribute("activations"));
            }
        })
    }

    /// Other FLOPs per element.
    fn flops(self) -> u64 {
        use Activation::*;
        match self {
            Relu | Tanh | LeakyRelu(_) | ThresholdedRelu(_) | Elu(_) | Softplus => 1,
            Affine(..) => 2,
            ScaledTanh(..) | Softsign => 3,
            Sigmoid | HardSigmoid(..) => 4,
        }
    }

    fn apply<T: Num>(self, x: T) -> T {
        use Activation::*;
        let one = T::of(1.0);
        match self {
            Relu => x.max_nan(T::zero()),
            Tanh => x.tanh(),
            Sigmoid => one / (one + (-x).exp()),
            Affine(a, b) => x * T::of(a) + T::of(b),
            LeakyRelu(a) => x.apply2(T::of(a), |x, a| if x < 0.0 { a * x } else { x }),
            ThresholdedRelu(a) => x.apply2(T::of(a), |x, a| if x > a { x } else { 0.0 }),
            ScaledTanh(a, b) => (x * T::of(b)).tanh() * T::of(a),
            HardSigmoid(a, b) => (x * T::of(a) + T::of(b)).min_nan(one).max_nan(T::zero()),
            Elu(a) => x.apply2(T::of(a), |x, a| if x < 0.0 { a * x.exp_m1() } else { x }),
            Softsign => x / (one + x.apply(f64::abs)),
            Softplus => x.apply(|x| x.max(0.0) + (-x.abs()).exp().ln_1p()),
        }
    }
}

/// Which way the sequence is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From its beginning.
    Forward,
    /// From its end.
    Reverse,
    /// Both, independently.
    Bidirectional,
}

/// A recurrent layer.
#[derive(Debug, Clone)]
pub struct Rnn {
    /// The recurrence.
    pub cell: Cell,
    /// Which way.
    pub direction: Direction,
    /// Activations per direction: f, g, h.
    pub activations: Vec<Vec<Activation>>,
    /// Bound of what activations see.
    pub clip: Option<f32>,
    /// `hidden_size`, if given.
    pub hidden: Option<usize>,
    /// Batch comes before time.
    pub batch_first: bool,
}

/// Sizes of a recurrent layer.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    steps: usize,
    batch: usize,
    input: usize,
    hidden: usize,
}

impl Rnn {
    fn parse(node: &NodeSpec) -> Result<Op> {
        let (cell, most, defaults): (_, _, &[&str]) = match node.op_type.as_str() {
            "LSTM" => (Cell::Lstm { input_forget: node.flag("input_forget", false)? }, 8, &["Sigmoid", "Tanh", "Tanh"]),
            "GRU" => {
                (Cell::Gru { linear_before_reset: node.flag("linear_before_reset", false)? }, 6, &["Sigmoid", "Tanh"])
            }
            _ => (Cell::Rnn, 6, &["Tanh"]),
        };
        node.expect_inputs(3, most)?;
        let direction = match node.str("direction", "forward")? {
            "forward" => Direction::Forward,
            "reverse" => Direction::Reverse,
            "bidirectional" => Direction::Bidirectional,
            other => return Err(Error::input(format!("'{other}' is not a direction")).at_attribute("direction")),
        };
        let directions = if direction == Direction::Bidirectional { 2 } else { 1 };
        let names = node
            .opt_strs("activations")?
            .filter(|v| !v.is_empty())
            .unwrap_or_else(|| defaults.repeat(directions).into_iter().map(String::from).collect());
        // Older exporters name one direction's functions for both.
        let names =
            if names.len() == defaults.len() && directions == 2 { [&names[..], &names[..]].concat() } else { names };
        if names.len() != defaults.len() * directions {
            return Err(Error::input(format!(
                "has {} names where {} are needed",
                names.len(),
                defaults.len() * directions
            ))
            .at_attribute("activations"));
        }
        let mut alphas = node.opt_floats("activation_alpha")?.unwrap_or_default().into_iter();
        let mut betas = node.opt_floats("activation_beta")?.unwrap_or_default().into_iter();
        let all: Vec<Activation> =
            names.iter().map(|n| Activation::new(n, &mut alphas, &mut betas)).collect::<Result<_>>()?;
        Ok(Op::Rnn(Rnn {
            cell,
            direction,
            activations: all.chunks(defaults.len()).map(<[_]>::to_vec).collect(),
            clip: node.opt_float("clip")?.filter(|&c| c > 0.0),
            hidden: node.opt_size("hidden_size")?,
            batch_first: node.flag("layout", false)?,
        }))
    }

    fn gates(&self) -> usize {
        match self.cell {
            Cell::Lstm { .. } => 4,
            Cell::Gru { .. } => 3,
            Cell::Rnn => 1,
        }
    }

    fn directions(&self) -> usize {
        self.activations.len()
    }

    fn sizes(&self, x: &[usize], w: &[usize], r: &[usize]) -> Result<Sizes> {
        let wrong = || {
            Error::input(format!(
                "input {}, W {} and R {} do not fit {} gate(s) in {} direction(s)",
                Shape::known(x),
                Shape::known(w),
                Shape::known(r),
                self.gates(),
                self.directions()
            ))
        };
        let (&[a, b, input], &[wd, wg, wx], &[rd, rg, hidden]) = (x, w, r) else { return Err(wrong()) };
        let (steps, batch) = if self.batch_first { (b, a) } else { (a, b) };
        let rows = hidden.checked_mul(self.gates());
        if wd != self.directions() || rd != wd || wx != input || Some(wg) != rows || Some(rg) != rows {
            return Err(wrong());
        }
        if self.hidden.is_some_and(|h| h != hidden) {
            return Err(Error::input(format!("contradicts R of shape {}", Shape::known(r))).at_attribute("hidden_size"));
        }
        Ok(Sizes { steps, batch, input, hidden })
    }

    /// Other FLOPs per hidden element and step of a direction.
    fn flops_per_element(&self, acts: &[Activation], bias: bool, peepholes: bool) -> u64 {
        let clip = if self.clip.is_some() { 2 } else { 0 };
        let bias = u64::from(bias);
        let act = |i: usize| acts.get(i).map_or(0, |a| a.flops());
        match self.cell {
            Cell::Rnn => bias + clip + act(0),
            Cell::Gru { linear_before_reset } => {
                let late = u64::from(linear_before_reset) * (1 + bias);
                3 * (bias + clip) + 2 * act(0) + act(1) + 5 + late
            }
            Cell::Lstm { input_forget } => {
                let (gates, coupled) = if input_forget { (2, 1) } else { (3, 0) };
                let peep = if peepholes { 2 } else { 0 };
                4 * bias + (gates + 1) * clip + gates * (peep + act(0)) + coupled + act(1) + 3 + act(2) + 1
            }
        }
    }

    /// Shapes of Y, Y_h (and Y_c) from known or unknown sizes.
    fn output_dims(&self, steps: Dim, batch: Dim, hidden: Dim) -> [Vec<Dim>; 2] {
        let d = Some(self.directions());
        if self.batch_first {
            [vec![batch, steps, d, hidden], vec![batch, d, hidden]]
        } else {
            [vec![steps, d, batch, hidden], vec![d, batch, hidden]]
        }
    }
}

impl Family for Rnn {
    fn infer(&self, cx: &Infer) -> Result<Vec<Fact>> {
        let (x, w, r) = (cx.fact(0)?, cx.fact(1)?, cx.fact(2)?);
        if let (Some(xd), Some(wd), Some(rd)) = (x.shape.concrete(), w.shape.concrete(), r.shape.concrete()) {
            self.sizes(&xd, &wd, &rd)?;
        }
        if x.shape.rank().is_some_and(|n| n != 3) {
            return Err(Error::input(format!("input {} where rank 3 is needed", x.shape)));
        }
        let (a, b) = (x.shape.dim(0), x.shape.dim(1));
        let (steps, batch) = if self.batch_first { (b, a) } else { (a, b) };
        let [y, last] = self.output_dims(steps, batch, self.hidden.or_else(|| r.shape.dim(2)));
        let (y, last) = (x.with_shape(Shape::partial(y)), x.with_shape(Shape::partial(last)));
        Ok([y, last.clone(), last].into_iter().take(cx.outputs).collect())
    }

    fn charge(&self, cx: &CostCx) -> Charge {
        Charge::of((|| {
            let s = self.sizes(&cx.dims(0)?, &cx.dims(1)?, &cx.dims(2)?).ok()?;
            let per_step = product([self.gates(), s.hidden, s.input.checked_add(s.hidden)?, self.directions()])?;
            let madds = per_step.checked_mul(product([s.steps, s.batch])?)?;
            let elements = product([s.steps, s.batch, s.hidden])?;
            let (bias, peepholes) = (cx.has(3), cx.has(7));
            let per = self.activations.iter().map(|acts| self.flops_per_element(acts, bias, peepholes)).sum::<u64>();
            let lengths = cx.inputs.get(4).copied().flatten().and_then(|l| l.value).and_then(|v| v.to_i64s().ok());
            let useful = match lengths {
                Some(l) => {
                    let real: u64 = l.iter().map(|&n| usize::try_from(n).unwrap_or(0).min(s.steps) as u64).sum();
                    per_step.checked_mul(real)?.min(madds)
                }
                None => madds,
            };
            Some(Work { madds, other_flops: elements.checked_mul(per)?, useful_madds: useful })
        })())
    }

    fn eval(&self, cx: &EvalCx, inputs: &Inputs) -> Result<Vec<Tensor>> {
        self.compute(cx, inputs, false)
    }

    fn role(&self, i: usize) -> Role {
        match i {
            0 | 5 | 6 => Role::Data,
            4 => Role::Setting,
            _ => Role::Weight,
        }
    }
}

impl Rnn {
    /// [`Family::eval`] with the data quantised to `uint8` before every product with the weights.
    ///
    /// # Errors
    /// If the inputs contradict the operator.
    pub fn eval_quantized(&self, cx: &EvalCx, inputs: &Inputs) -> Result<Vec<Tensor>> {
        self.compute(cx, inputs, true)
    }

    fn compute(&self, cx: &EvalCx, inputs: &Inputs, quantized: bool) -> Result<Vec<Tensor>> {
        let (x, w, r) = (input(inputs, 0)?, input(inputs, 1)?, input(inputs, 2)?);
        let s = self.sizes(x.dims(), w.dims(), r.dims())?;
        let lengths = match opt(inputs, 4) {
            None => vec![s.steps; s.batch],
            Some(l) => l.to_i64s()?.into_iter().map(|n| usize::try_from(n).unwrap_or(0).min(s.steps)).collect(),
        };
        if lengths.len() != s.batch {
            return Err(Error::run(format!("sequence_lens has {} elements for a batch of {}", lengths.len(), s.batch)));
        }
        with_num!(cx.arith, x.dtype(), T => self.run::<T>(cx, inputs, s, &lengths, quantized))
    }
}

/// `x` rounded to the 256 levels between its least and greatest value (zero among them); free of charge.
fn quantize<T: Num>(x: &mut [T]) {
    let (low, high) = x.iter().fold((0f32, 0f32), |(l, h), v| (l.min(v.get() as f32), h.max(v.get() as f32)));
    let scale = (high - low) / 255.0;
    if scale == 0.0 || !scale.is_finite() {
        return;
    }
    let zero = (-low / scale).round_ties_even();
    for v in x {
        let level = ((v.get() as f32 / scale).round_ties_even() + zero).clamp(0.0, 255.0);
        *v = T::of(f64::from(level - zero) * f64::from(scale));
    }
}

/// What one direction computes with.
struct Weights<'a, T> {
    acts: &'a [Activation],
    /// `[x, G·h]`.
    w: Vec<T>,
    /// `[h, G·h]`; for GRU the first two gates.
    r: Vec<T>,
    /// GRU's candidate gate, `[h, h]`.
    r_candidate: Vec<T>,
    /// Both biases added, `[G·h]`; GRU's recurrent candidate bias apart when it is added before the reset.
    bias: Option<Vec<T>>,
    late_bias: Option<Vec<T>>,
    peepholes: Option<&'a [T]>,
}

impl Rnn {
    fn run<T: Num>(
        &self,
        cx: &EvalCx,
        inputs: &Inputs,
        s: Sizes,
        lengths: &[usize],
        quantized: bool,
    ) -> Result<Vec<Tensor>> {
        let (g, d, h) = (self.gates(), self.directions(), s.hidden);
        let load = |i: usize, n: usize| -> Result<Option<Vec<T>>> {
            let Some(t) = opt(inputs, i) else { return Ok(None) };
            if t.len() != n {
                return Err(Error::run(format!("input {i} has {} elements where {n} are needed", t.len())));
            }
            T::load(t).map(Some)
        };
        let mut x = T::load(input(inputs, 0)?)?;
        if quantized {
            // Rows beyond the longest sequence take no part.
            let longest = lengths.iter().max().copied().unwrap_or(0);
            let rows = if self.batch_first { x.len() } else { longest * s.batch * s.input };
            quantize(&mut x[..rows]);
        }
        let (w, r) = (T::load(input(inputs, 1)?)?, T::load(input(inputs, 2)?)?);
        let b = load(3, d * 2 * g * h)?;
        let (h0, c0) = (load(5, d * s.batch * h)?, load(6, d * s.batch * h)?);
        let p = if matches!(self.cell, Cell::Lstm { .. }) { load(7, d * 3 * h)? } else { None };
        element_count(&[s.steps, d, s.batch, g * h])?;
        let mut y = vec![T::zero(); s.steps * d * s.batch * h];
        let mut last = vec![vec![T::zero(); d * s.batch * h]; 2];
        for dir in 0..d {
            let (w, r) = (&w[dir * g * h * s.input..][..g * h * s.input], &r[dir * g * h * h..][..g * h * h]);
            let is_gru = matches!(self.cell, Cell::Gru { .. });
            let late = matches!(self.cell, Cell::Gru { linear_before_reset: true });
            let split = if is_gru { 2 * h * h } else { r.len() };
            let b = b.as_ref().map(|b| &b[dir * 2 * g * h..][..2 * g * h]);
            // Folded when the model loads: free of charge.
            let bias = b.map(|b| {
                let both = |i: usize| T::of(b[i].get() + b[g * h + i].get());
                (0..g * h).map(|i| if late && i >= 2 * h { b[i] } else { both(i) }).collect()
            });
            let weights = Weights {
                acts: &self.activations[dir],
                w: columns(w, g * h, s.input),
                r: columns(&r[..split], split / h.max(1), h),
                r_candidate: columns(&r[split..], if is_gru { h } else { 0 }, h),
                bias,
                late_bias: b.filter(|_| late).map(|b| b[5 * h..].to_vec()),
                peepholes: p.as_ref().map(|p| &p[dir * 3 * h..][..3 * h]),
            };
            // States are [batch, h] while running; outside they may come batch first.
            let at = |n: usize| (if self.batch_first { n * d + dir } else { dir * s.batch + n }) * h;
            let start = |v: &Option<Vec<T>>| -> Vec<T> {
                match v {
                    None => vec![T::zero(); s.batch * h],
                    Some(v) => (0..s.batch).flat_map(|n| v[at(n)..][..h].iter().copied()).collect(),
                }
            };
            let (mut hidden, mut cell) = (start(&h0), start(&c0));
            let backwards = self.direction == Direction::Reverse || dir == 1;
            let mut rows = Vec::with_capacity(s.batch * s.input);
            for step in 0..s.steps {
                // The position of each sequence; steps beyond its end are computed all the same, and dropped.
                let time = |n: usize| if backwards && step < lengths[n] { lengths[n] - 1 - step } else { step };
                rows.clear();
                for n in 0..s.batch {
                    let row = if self.batch_first { n * s.steps + time(n) } else { time(n) * s.batch + n };
                    rows.extend_from_slice(&x[row * s.input..][..s.input]);
                }
                let rounded = quantized.then(|| {
                    let mut h = hidden.clone();
                    quantize(&mut h);
                    h
                });
                let seen = rounded.as_deref().unwrap_or(&hidden);
                let (next, next_cell) = self.step(&weights, s, &rows, seen, &cell);
                for n in (0..s.batch).filter(|&n| step < lengths[n]) {
                    let row = n * h..(n + 1) * h;
                    hidden[row.clone()].copy_from_slice(&next[row.clone()]);
                    cell[row.clone()].copy_from_slice(&next_cell[row.clone()]);
                    let t = time(n);
                    let place =
                        if self.batch_first { (n * s.steps + t) * d + dir } else { (t * d + dir) * s.batch + n };
                    y[place * h..][..h].copy_from_slice(&next[row]);
                }
            }
            for (last, state) in last.iter_mut().zip([&hidden, &cell]) {
                // A sequence of no steps leaves zeros, not its initial state, as in ONNX Runtime.
                for n in (0..s.batch).filter(|&n| lengths[n] > 0) {
                    last[at(n)..][..h].copy_from_slice(&state[n * h..][..h]);
                }
            }
        }
        let [y_dims, last_dims] = self.output_dims(Some(s.steps), Some(s.batch), Some(h));
        let known = |d: Vec<Dim>| d.into_iter().flatten().collect::<Vec<usize>>();
        let (y_dims, last_dims) = (known(y_dims), known(last_dims));
        let mut out = vec![T::store(y, &y_dims)?];
        for state in last.into_iter().take(cx.outputs.saturating_sub(1)) {
            out.push(T::store(state, &last_dims)?);
        }
        Ok(out)
    }

    fn clipped<T: Num>(&self, x: T) -> T {
        match self.clip {
            Some(c) => x.min_nan(T::of(c.into())).max_nan(T::of(-f64::from(c))),
            None => x,
        }
    }

    /// One step of a batch: the next hidden and cell states.
    fn step<T: Num>(&self, p: &Weights<T>, s: Sizes, x: &[T], hidden: &[T], cell: &[T]) -> (Vec<T>, Vec<T>) {
        let (h, gh) = (s.hidden, self.gates() * s.hidden);
        let mut gates = vec![T::zero(); s.batch * gh];
        accumulate((s.batch, gh, s.input), x, &p.w, &mut gates);
        let mut next = vec![T::zero(); s.batch * h];
        let mut next_cell = vec![T::zero(); s.batch * h];
        let biased = |v: T, i: usize| p.bias.as_ref().map_or(v, |b| v + b[i]);
        let f = |v: T| p.acts[0].apply(self.clipped(v));
        match self.cell {
            Cell::Rnn => {
                accumulate((s.batch, h, h), hidden, &p.r, &mut gates);
                for (i, v) in next.iter_mut().enumerate() {
                    *v = f(biased(gates[i], i % h));
                }
            }
            Cell::Lstm { input_forget } => {
                accumulate((s.batch, gh, h), hidden, &p.r, &mut gates);
                let g = |v: T| p.acts[1].apply(self.clipped(v));
                // Only gates are clipped, not the cell state, as ONNX Runtime does.
                let out = |v: T| p.acts[2].apply(v);
                for n in 0..s.batch {
                    for j in 0..h {
                        // Gates in the order i, o, f, c; peepholes i, o, f.
                        let gate = |q: usize| biased(gates[n * gh + q * h + j], q * h + j);
                        let peep = |v: T, q: usize, c: T| p.peepholes.map_or(v, |p| v + p[q * h + j] * c);
                        let before = cell[n * h + j];
                        let (i, o, forget, c) = (gate(0), gate(1), gate(2), gate(3));
                        let i = f(peep(i, 0, before));
                        let forget = if input_forget { T::of(1.0) - i } else { f(peep(forget, 2, before)) };
                        let now = forget * before + i * g(c);
                        let o = f(peep(o, 1, now));
                        next_cell[n * h + j] = now;
                        next[n * h + j] = o * out(now);
                    }
                }
            }
            Cell::Gru { linear_before_reset } => {
                let mut recurrent = vec![T::zero(); s.batch * 2 * h];
                accumulate((s.batch, 2 * h, h), hidden, &p.r, &mut recurrent);
                let g = |v: T| p.acts[1].apply(self.clipped(v));
                // z and r replace the recurrent products.
                for n in 0..s.batch {
                    for j in 0..2 * h {
                        // The sum of the two products continues one accumulation: no FLOP of its own.
                        let sum = T::of(gates[n * gh + j].get() + recurrent[n * 2 * h + j].get());
                        recurrent[n * 2 * h + j] = f(biased(sum, j));
                    }
                }
                let (z, r) =
                    (|n: usize, j: usize| recurrent[n * 2 * h + j], |n: usize, j: usize| recurrent[n * 2 * h + h + j]);
                let mut candidate = vec![T::zero(); s.batch * h];
                if linear_before_reset {
                    accumulate((s.batch, h, h), hidden, &p.r_candidate, &mut candidate);
                    for (i, v) in candidate.iter_mut().enumerate() {
                        let (n, j) = (i / h, i % h);
                        let late = p.late_bias.as_ref().map_or(*v, |b| *v + b[j]);
                        *v = gates[n * gh + 2 * h + j] + r(n, j) * late;
                    }
                } else {
                    let reset: Vec<T> = hidden.iter().enumerate().map(|(i, &v)| r(i / h, i % h) * v).collect();
                    for (i, v) in candidate.iter_mut().enumerate() {
                        *v = gates[i / h * gh + 2 * h + i % h];
                    }
                    accumulate((s.batch, h, h), &reset, &p.r_candidate, &mut candidate);
                }
                for (i, v) in next.iter_mut().enumerate() {
                    let (n, j) = (i / h, i % h);
                    let new = g(biased(candidate[i], 2 * h + j));
                    *v = (T::of(1.0) - z(n, j)) * new + z(n, j) * hidden[i];
                }
            }
        }
        (next, next_cell)
    }
}

/// A row-major `[rows, cols]` matrix transposed.
fn columns<T: Copy>(x: &[T], rows: usize, cols: usize) -> Vec<T> {
    (0..cols).flat_map(|c| (0..rows).map(move |r| x[r * cols + c])).collect()
}

fn cases() -> Vec<Case> {
    let f = sample::floats;
    let hidden = |h: i64| ("hidden_size", Attr::Int(h));
    let to = |d: &str| ("direction", Attr::Str(d.into()));
    let strs = |v: &[&str]| Attr::Strs(v.iter().map(ToString::to_string).collect());
    let lens =
        |v: &[i64]| super::matmul::from_ints(crate::tensor::DType::I32, v, &[v.len()]).expect("as many as there are");
    // x, W, R of `g` gates for 4 steps, batch 3, input 2, hidden 5.
    let base =
        |g: usize, d: usize| vec![Some(f(&[4, 3, 2], 1)), Some(f(&[d, g * 5, 2], 2)), Some(f(&[d, g * 5, 5], 3))];
    let with = |g: usize, d: usize, more: Vec<Option<Tensor>>| base(g, d).into_iter().chain(more).collect::<Vec<_>>();
    let case = |op: &str, attrs: &[(&str, Attr)], inputs, outputs| Case::with_optional(op, attrs, inputs, outputs);
    let mut all = Vec::new();
    for (op, g) in [("LSTM", 4), ("GRU", 3), ("RNN", 1)] {
        let outputs = if g == 4 { 3 } else { 2 };
        let bias = |d: usize| Some(f(&[d, 2 * g * 5], 4));
        let batch_first = vec![
            Some(f(&[3, 4, 2], 1)),
            base(g, 2)[1].clone(),
            base(g, 2)[2].clone(),
            bias(2),
            None,
            Some(f(&[3, 2, 5], 5)),
        ];
        all.extend([
            case(op, &[hidden(5)], base(g, 1), 1),
            case(
                op,
                &[hidden(5), to("reverse")],
                with(g, 1, vec![bias(1), Some(lens(&[4, 1, 2])), Some(f(&[1, 3, 5], 5))]),
                outputs,
            ),
            case(op, &[hidden(5), to("bidirectional")], with(g, 2, vec![bias(2), Some(lens(&[0, 4, 3]))]), outputs),
            case(op, &[hidden(5), to("bidirectional"), ("layout", Attr::Int(1))], batch_first, outputs),
            case(op, &[hidden(5), ("clip", Attr::Float(0.5))], with(g, 1, vec![bias(1)]), outputs).opset(7),
        ]);
    }
    let peep = with(4, 1, vec![Some(f(&[1, 40], 4)), None, None, Some(f(&[1, 3, 5], 6)), Some(f(&[1, 15], 7))]);
    let coupled = ("input_forget", Attr::Int(1));
    let linear = ("linear_before_reset", Attr::Int(1));
    let odd = ("activations", strs(&["HardSigmoid", "ScaledTanh", "Softsign"]));
    all.extend([
        case("LSTM", &[hidden(5)], peep.clone(), 3),
        case("LSTM", &[], vec![Some(f(&[4, 0, 2], 1)), Some(f(&[1, 20, 2], 2)), Some(f(&[1, 20, 5], 3))], 3),
        case("LSTM", &[hidden(5), coupled, ("clip", Attr::Float(0.3))], peep.clone(), 3),
        case("LSTM", &[hidden(5), odd, ("activation_alpha", Attr::Floats(vec![0.3, 1.5]))], peep, 3),
        case("GRU", &[hidden(5), linear.clone()], with(3, 1, vec![Some(f(&[1, 30], 4))]), 2),
        case("GRU", &[hidden(5), linear], base(3, 1), 2),
        case("GRU", &[("activations", strs(&["Relu", "Softplus"]))], base(3, 1), 2),
        case(
            "RNN",
            &[
                ("activations", strs(&["Affine"])),
                ("activation_alpha", Attr::Floats(vec![0.5])),
                ("activation_beta", Attr::Floats(vec![0.1])),
            ],
            base(1, 1),
            2,
        ),
        case("RNN", &[("activations", strs(&["LeakyRelu", "Elu"])), to("bidirectional")], base(1, 2), 2),
        case("RNN", &[("activations", strs(&["ThresholdedRelu"]))], base(1, 1), 2),
    ]);
    all
}
