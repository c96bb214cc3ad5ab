//! Recurrent layers (LSTM, GRU, plain) with their usual activations.
//!
//! Ladder: every step by itself → the part of the gates that the input makes, for all steps as one packed product → the part that
//! the state makes read where the file has its weights (few rows) or packed (many), small enough to stay in a cache over the
//! steps → gates in lanes, one sweep per step.

use super::epilogue::Act;
use super::gemm::{Bias, Finish, GemmShape, Mat, PackedB, Rhs, gemm};
use super::gemv::{After, MAX_M, Order, gemv};
use super::kept::Source;
use super::task::{Accept, Entry, Kind, Prepared, Recurrent, Task, Verdict};
use crate::engine::pool::Pool;
use crate::error::{Error, Result};
use crate::simd::{Isa, Simd, SimdOp, dispatch, math};
use crate::tensor::Tensor;
use std::sync::{Mutex, PoisonError};

pub(super) const ENTRY: Entry = Entry { name: "recurrent", accepts, prepare, tolerance: 2e-5 };

/// The recurrence of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gates {
    /// Gates i, o, f, c.
    Lstm,
    /// Gates z, r, h.
    Gru {
        /// The reset gate is applied after the product with the state.
        late: bool,
    },
    /// One gate.
    Plain,
}

impl Gates {
    /// How many there are.
    pub fn count(self) -> usize {
        match self {
            Gates::Lstm => 4,
            Gates::Gru { .. } => 3,
            Gates::Plain => 1,
        }
    }
}

fn accepts(task: &Task) -> Verdict {
    match task.kind {
        Kind::Recurrent(_) => Ok(Accept::plain(task)),
        _ => Err(String::new()),
    }
}

/// Weights of one direction.
struct Direction {
    reverse: bool,
    /// Input to gates.
    input: PackedB,
    /// State to gates; [`Step::R`] holds the bytes for few rows.
    state: Option<PackedB>,
    /// Added to the products of the inputs: `[gates · hidden]`.
    bias: Vec<f32>,
    /// Added to the state's product of the last gate, where that is kept apart (late GRU).
    late: Vec<f32>,
}

struct Step {
    isa: Isa,
    task: Recurrent,
    directions: Vec<Direction>,
    /// The state's weights, all directions.
    r: Tensor,
    held: Mutex<Held>,
}

/// Memory between runs.
#[derive(Default)]
struct Held {
    gates: Vec<f32>,
    state: Vec<f32>,
    cell: Vec<f32>,
    part: Vec<f32>,
}

fn prepare(task: &Task) -> Result<Box<dyn Prepared>> {
    let Kind::Recurrent(t) = task.kind else { return Err(Error::run("not a recurrent layer")) };
    let (isa, g, h, i) = (task.isa, t.gates.count(), t.hidden, t.input);
    let all = t.reverse.len();
    let (w, r) = (t.w.bytes()?, t.r.bytes()?);
    if w.len() != 4 * all * g * h * i || r.len() != 4 * all * g * h * h {
        return Err(Error::run("weights of another size"));
    }
    let mut directions = Vec::with_capacity(all);
    for (d, &reverse) in t.reverse.iter().enumerate() {
        let own = |bytes: &'_ [u8], len: usize| 4 * d * len..4 * (d + 1) * len.min(bytes.len());
        let (wd, rd) = (&w[own(w, g * h * i)], &r[own(r, g * h * h)]);
        let few = t.batch <= MAX_M;
        let mut bias = vec![0.0; g * h];
        let mut late = vec![0.0; h];
        if let Some(b) = &t.bias {
            let b = b.get(2 * d * g * h..2 * (d + 1) * g * h).ok_or_else(|| Error::run("bias of another size"))?;
            bias.iter_mut().zip(&b[..g * h]).for_each(|(x, b)| *x += b);
            for (i, &b) in b[g * h..].iter().enumerate() {
                match t.gates {
                    Gates::Gru { late: true } if i >= 2 * h => late[i - 2 * h] = b,
                    _ => bias[i] += b,
                }
            }
        }
        directions.push(Direction {
            reverse,
            input: PackedB::of_source(isa, i, g * h, true, Source::part(wd, task.kept())),
            state: (!few).then(|| PackedB::of_source(isa, h, g * h, true, Source::part(rd, task.kept()))),
            bias,
            late,
        });
    }
    let held = Mutex::new(Held {
        gates: vec![0.0; t.steps * t.batch * g * h],
        state: vec![0.0; t.batch * h],
        cell: vec![0.0; t.batch * h],
        part: vec![0.0; t.batch * g * h],
    });
    let kept = Recurrent { w: Tensor::from_vec(Vec::<f32>::new(), &[0])?, ..t.clone() };
    Ok(Box::new(Step { isa, r: t.r.clone(), task: kept, directions, held }))
}

impl Step {
    /// `to = h · Rᵀ + add`
    fn of_state(&self, pool: &Pool, d: usize, h: &[f32], add: Option<&[f32]>, to: &mut [f32]) {
        let t = &self.task;
        let (g, n) = (t.gates.count() * t.hidden, t.hidden);
        match &self.directions[d].state {
            Some(packed) => {
                let shape = GemmShape { batch: 1, m: t.batch, k: n, n: g };
                let fin = Finish { residual: add, ..Finish::default() };
                gemm(pool, self.isa, shape, Mat::rows(h, t.batch, n), Rhs::Packed(packed), fin, to);
            }
            None => {
                let bytes = self.r.bytes().unwrap_or_default();
                let after = After { alpha: 1.0, bias: None, residual: add, act: Act::None };
                let own = &bytes[4 * d * g * n..4 * (d + 1) * g * n];
                gemv(pool, self.isa, (t.batch, n, g), h, own, Order::NK, after, to);
            }
        }
    }
}

impl Prepared for Step {
    fn run(&self, pool: &Pool, srcs: &[&[f32]], dsts: &mut [&mut [f32]]) {
        let t = &self.task;
        let (g, h, batch) = (t.gates.count(), t.hidden, t.batch);
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let Held { gates, state, cell, part } = &mut *held;
        for (d, direction) in self.directions.iter().enumerate() {
            let shape = GemmShape { batch: 1, m: t.steps * batch, k: t.input, n: g * h };
            let fin = Finish { bias: Bias::Col(&direction.bias), ..Finish::default() };
            let x = Mat::rows(srcs[0], t.steps * batch, t.input);
            gemm(pool, self.isa, shape, x, Rhs::Packed(&direction.input), fin, gates);
            let initial = |which: Option<usize>, to: &mut [f32]| match which {
                Some(i) => to.copy_from_slice(&srcs[i][d * batch * h..][..batch * h]),
                None => to.fill(0.0),
            };
            initial(t.first_state, state);
            initial(t.first_cell, cell);
            for step in 0..t.steps {
                let at = if direction.reverse { t.steps - 1 - step } else { step };
                let own = &gates[at * batch * g * h..][..batch * g * h];
                match t.gates {
                    Gates::Lstm | Gates::Plain => self.of_state(pool, d, state, Some(own), part),
                    Gates::Gru { .. } => self.of_state(pool, d, state, None, part),
                }
                if t.gates == (Gates::Gru { late: false }) {
                    // The reset state has its own product: gates z and r first, then all three with r · h, of which the last is used.
                    let mut reset = vec![0.0; batch * h];
                    for b in 0..batch {
                        for i in 0..h {
                            let r = own[b * g * h + h + i] + part[b * g * h + h + i];
                            reset[b * h + i] = state[b * h + i] / (1.0 + (-r).exp());
                        }
                    }
                    let mut again = vec![0.0; batch * g * h];
                    self.of_state(pool, d, &reset, None, &mut again);
                    for b in 0..batch {
                        part[b * g * h + 2 * h..][..h].copy_from_slice(&again[b * g * h + 2 * h..][..h]);
                    }
                }
                for b in 0..batch {
                    let (part, own) = (&part[b * g * h..][..g * h], &own[b * g * h..][..g * h]);
                    let (state, cell) = (&mut state[b * h..][..h], &mut cell[b * h..][..h]);
                    dispatch(self.isa, Turn { gates: t.gates, part, own, late: &direction.late, state, cell });
                }
                if let Some(y) = t.results[0] {
                    let to = (at * self.directions.len() + d) * batch * h;
                    dsts[y][to..to + batch * h].copy_from_slice(state);
                }
            }
            for (which, from) in [(t.results[1], &*state), (t.results[2], &*cell)] {
                if let Some(y) = which {
                    dsts[y][d * batch * h..][..batch * h].copy_from_slice(from);
                }
            }
        }
    }
    fn packed_bytes(&self) -> usize {
        let of = |d: &Direction| d.input.packed_bytes() + d.state.as_ref().map_or(0, PackedB::packed_bytes);
        self.directions.iter().map(of).sum()
    }
}

/// One step of one sample: gates to state.
struct Turn<'a> {
    gates: Gates,
    /// Products of the state (and of the input, but for GRU).
    part: &'a [f32],
    /// Products of the input.
    own: &'a [f32],
    late: &'a [f32],
    state: &'a mut [f32],
    cell: &'a mut [f32],
}

impl SimdOp for Turn<'_> {
    type Out = ();
    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let Turn { gates, part, own, late, state, cell } = self;
        let h = state.len();
        for at in (0..h).step_by(S::LANES) {
            let width = (h - at).min(S::LANES);
            let gate = |i: usize| s.load_tail(&part[i * h + at..][..width]);
            let mine = |i: usize| s.load_tail(&own[i * h + at..][..width]);
            let now = s.load_tail(&state[at..at + width]);
            let next = match gates {
                Gates::Plain => math::tanh(s, gate(0)),
                Gates::Lstm => {
                    let (i, o) = (math::sigmoid(s, gate(0)), math::sigmoid(s, gate(1)));
                    let (f, c) = (math::sigmoid(s, gate(2)), math::tanh(s, gate(3)));
                    let c = s.fma(f, s.load_tail(&cell[at..at + width]), s.mul(i, c));
                    s.store_tail(&mut cell[at..at + width], c);
                    s.mul(o, math::tanh(s, c))
                }
                Gates::Gru { late: is_late } => {
                    let z = math::sigmoid(s, s.add(gate(0), mine(0)));
                    let r = math::sigmoid(s, s.add(gate(1), mine(1)));
                    let from_state =
                        if is_late { s.mul(r, s.add(gate(2), s.load_tail(&late[at..at + width]))) } else { gate(2) };
                    let n = math::tanh(s, s.add(from_state, mine(2)));
                    // (1 − z)·n + z·h
                    s.fma(z, s.sub(now, n), n)
                }
            };
            s.store_tail(&mut state[at..at + width], next);
        }
    }
}
