//! MoE and QMoE of ONNX Runtime: every token goes through its `k` best of many small networks.
//!
//! <https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md>. MAdds: `tokens · k · (fc1 + fc2 + fc3)`, what is
//! computed, not what is stored. Other FLOPs: the router's softmax, 5 per expert (per chosen one where weights are normalised);
//! per chosen expert a bias is 1 per output, the activation its own, a gate 1, SwiGLU 8 (11 with a limit), and 2 per output for
//! the weighted sum. QMoE's weights are dequantised once, free of charge; Params count them, not the bytes they are packed in.

use super::matmul::product_of;
use super::softmax::softmax;
use super::spec::{Attr, NodeSpec};
use super::unary::Unary;
use super::{Case, Charge, CostCx, Entry, EvalCx, Family, Infer, Input, Inputs, Op, Opaque, Role, input, opt, sample};
use crate::cost::{Work, product};
use crate::error::{Error, Result};
use crate::tensor::{DType, Fact, Num, Tensor};
use crate::with_num;

/// The family's table rows.
pub const ENTRIES: &[Entry] = &[
    Entry { domain: "com.microsoft", name: "MoE", parse: Moe::parse, cases },
    Entry { domain: "com.microsoft", name: "QMoE", parse: Moe::parse, cases },
];

/// A mixture of experts.
#[derive(Debug, Clone)]
pub struct Moe {
    /// Experts per token.
    pub k: usize,
    /// The chosen experts' weights sum to 1.
    pub normalize: bool,
    /// The activation.
    pub act: Act,
    /// Bits per weight where they are packed into bytes.
    pub bits: Option<usize>,
}

/// What lies between the layers of an expert.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Act {
    /// Nothing.
    Identity,
    /// A function of one value; a third layer, if there is one, is multiplied by it.
    Plain(Unary),
    /// `g · sigmoid(alpha · g) · (l + beta)`.
    SwiGlu {
        /// alpha
        alpha: f32,
        /// beta
        beta: f32,
        /// Bound of g and l.
        limit: Option<f32>,
        /// How g and l lie in the first layer's outputs: apart (third layer), in turn, one half each.
        fusion: Fusion,
    },
}

/// Where the two halves of a gated activation come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fusion {
    /// The first and the third layer.
    Apart,
    /// Even and odd outputs of the first.
    InTurn,
    /// The halves of the first.
    Halves,
}

/// Where the layers' inputs are: (weights, scales, zero points, bias) of three layers.
const PLAIN: [[usize; 4]; 3] = [[2, NONE, NONE, 3], [4, NONE, NONE, 5], [6, NONE, NONE, 7]];
const PACKED: [[usize; 4]; 3] = [[2, 3, 11, 4], [5, 6, 12, 7], [8, 9, 13, 10]];
const NONE: usize = usize::MAX;

impl Moe {
    fn parse(node: &NodeSpec) -> Result<Op> {
        let packed = node.op_type == "QMoE";
        let whole = ["fc1", "fc2", "fc3"].iter().all(|l| !node.attrs.contains_key(&format!("{l}_expert_weight_bits")));
        let plain = !packed || (node.str("quant_type", "int")? == "int" && whole);
        let most = if packed { 14 } else { 8 };
        if node.flag("use_sparse_mixer", false)? || !plain || (most..node.inputs.len()).any(|i| node.has_input(i)) {
            return Ok(Op::Opaque(Opaque::of(node)));
        }
        for i in if packed { vec![0, 1, 2, 3, 5, 6] } else { vec![0, 1, 2, 4] } {
            if !node.has_input(i) {
                return Err(Error::input(format!("input {i} is missing")));
            }
        }
        let act = match node.str("activation_type", "relu")?.to_ascii_lowercase().as_str() {
            "identity" => Act::Identity,
            "relu" => Act::Plain(Unary::Relu),
            "gelu" => Act::Plain(Unary::GeluTanh),
            "silu" => Act::Plain(Unary::Swish(1.0)),
            "swiglu" => Act::SwiGlu {
                alpha: node.float("activation_alpha", 1.0)?,
                beta: node.float("activation_beta", 0.0)?,
                limit: node.opt_float("swiglu_limit")?.filter(|&l| l > 0.0),
                fusion: match node.int("swiglu_fusion", 0)? {
                    0 => Fusion::Apart,
                    1 => Fusion::InTurn,
                    _ => Fusion::Halves,
                },
            },
            other => return Err(Error::unsupported(format!("the activation '{other}'")).at_attribute("activation_type")),
        };
        let bits = match (packed, node.int("expert_weight_bits", 4)?) {
            (false, _) => None,
            (true, b @ (2 | 4 | 8)) => Some(b as usize),
            (true, b) => return Err(Error::unsupported(format!("{b} bits per weight")).at_attribute("expert_weight_bits")),
        };
        Ok(Op::Moe(Moe {
            k: node.opt_size("k")?.unwrap_or(1),
            // ONNX Runtime's kernel for packed weights always normalises.
            normalize: packed || node.flag("normalize_routing_weights", false)?,
            act,
            bits,
        }))
    }

    fn layers(&self) -> &'static [[usize; 4]; 3] {
        if self.bits.is_some() { &PACKED } else { &PLAIN }
    }

    fn sizes(&self, dims: &dyn Fn(usize) -> Option<Vec<usize>>) -> Result<Sizes> {
        let wrong = |what: &str| Error::input(format!("{what} do not fit a mixture of experts"));
        let (x, r) = (dims(0).ok_or_else(|| wrong("tokens"))?, dims(1).ok_or_else(|| wrong("router outputs"))?);
        let hidden = *x.last().ok_or_else(|| wrong("tokens"))?;
        let tokens: usize = x[..x.len() - 1].iter().product();
        let experts = match r[..] {
            [t, e] if t == tokens => e,
            _ => return Err(wrong("router outputs")),
        };
        let per = self.bits.map_or(1, |b| 8 / b);
        // [experts, rows, columns] of a layer, unpacked.
        let layer = |i: usize| -> Result<Option<(usize, usize)>> {
            match dims(self.layers()[i][0]).as_deref() {
                None => Ok(None),
                Some(&[e, rows, columns]) if e == experts => {
                    Ok(Some((rows, columns.checked_mul(per).ok_or_else(|| wrong("weights"))?)))
                }
                Some(_) => Err(wrong("weights")),
            }
        };
        let (Some((rows, first)), Some((out, inner))) = (layer(0)?, layer(1)?) else { return Err(wrong("weights")) };
        let third = layer(2)?;
        let halved = matches!(self.act, Act::SwiGlu { fusion: Fusion::InTurn | Fusion::Halves, .. });
        let needs_third = matches!(self.act, Act::SwiGlu { fusion: Fusion::Apart, .. });
        let fits = first == hidden
            && out == hidden
            && Some(rows) == inner.checked_mul(if halved { 2 } else { 1 })
            && third.is_none_or(|t| t == (inner, hidden) && !halved)
            && (third.is_some() || !needs_third)
            && (1..=experts).contains(&self.k);
        if !fits {
            return Err(wrong("weights"));
        }
        Ok(Sizes { tokens, experts, hidden, rows, inner, gated: third.is_some() })
    }

    /// A layer's weights as real numbers `[experts, rows, columns]`.
    fn weights<T: Num>(&self, inputs: &Inputs, layer: usize, (rows, columns): (usize, usize)) -> Result<Vec<T>> {
        let [w, scales, zeros, _] = self.layers()[layer];
        let data = input(inputs, w)?;
        let Some(bits) = self.bits else { return T::load(data) };
        let (bytes, scale) = (data.bytes()?, input(inputs, scales)?);
        let (factors, total) = (scale.to_f64s()?, data.dims()[0] * rows);
        let blocks = factors.len().checked_div(total).filter(|b| b * total == factors.len() && *b > 0);
        let unfit = || Error::run("scales or zero points do not fit the experts");
        let blocks = blocks.filter(|b| columns.is_multiple_of(*b)).ok_or_else(unfit)?;
        let (block, per) = (columns / blocks, 8 / bits);
        let code = |bytes: &[u8], i: usize| f64::from(u16::from(bytes[i / per]) >> (i % per * bits) & ((1 << bits) - 1));
        // Zero points are packed along the scales' last axis.
        let run = if scale.rank() == 2 { rows } else { blocks };
        let zero = match opt(inputs, zeros) {
            Some(z) if z.bytes()?.len() * run == total * blocks * run.div_ceil(per) => Some(z.bytes()?),
            Some(_) => return Err(unfit()),
            None => None,
        };
        let middle = f64::from(1u32 << (bits - 1));
        if bytes.len() * per < total * columns {
            return Err(unfit());
        }
        Ok((0..total * columns)
            .map(|i| {
                let (row, b) = (i / columns, i % columns / block);
                let at = row * blocks + b;
                let zero = zero.map_or(middle, |z| code(&z[at / run * run.div_ceil(per)..], at % run));
                T::of((code(bytes, i) - zero) * factors[at])
            })
            .collect())
    }

    fn run<T: Num>(&self, inputs: &Inputs) -> Result<Vec<Tensor>> {
        let s = self.sizes(&|i| opt(inputs, i).map(|t| t.dims().to_vec()))?;
        let (x, router) = (input(inputs, 0)?, T::load(input(inputs, 1)?)?);
        let tokens = T::load(x)?;
        let first = self.weights::<T>(inputs, 0, (s.rows, s.hidden))?;
        let second = self.weights::<T>(inputs, 1, (s.hidden, s.inner))?;
        let third = if s.gated { Some(self.weights::<T>(inputs, 2, (s.inner, s.hidden))?) } else { None };
        let bias = |layer: usize, rows: usize| -> Result<Option<Vec<T>>> {
            let Some(t) = opt(inputs, self.layers()[layer][3]) else { return Ok(None) };
            let b = T::load(t)?;
            if b.len() == s.experts * rows { Ok(Some(b)) } else { Err(Error::run("a bias does not fit the experts")) }
        };
        let biases = [bias(0, s.rows)?, bias(1, s.hidden)?, bias(2, s.inner)?];
        let layer = |w: &[T], layer: usize, e: usize, rows: usize, columns: usize, x: &[T]| {
            let mut y = product_of(rows, 1, columns, &w[e * rows * columns..][..rows * columns], x);
            if let Some(b) = &biases[layer] {
                y.iter_mut().zip(&b[e * rows..]).for_each(|(y, &b)| *y = *y + b);
            }
            y
        };
        let mut out = vec![T::zero(); tokens.len()];
        for t in 0..s.tokens {
            let token = &tokens[t * s.hidden..][..s.hidden];
            let scores = &router[t * s.experts..][..s.experts];
            let mut order: Vec<usize> = (0..s.experts).collect();
            order.sort_by(|&a, &b| scores[b].get().total_cmp(&scores[a].get()));
            let chosen = &order[..self.k];
            let weights: Vec<T> = if self.normalize {
                let mut w: Vec<T> = chosen.iter().map(|&e| scores[e]).collect();
                softmax(&mut w);
                w
            } else {
                let mut all = scores.to_vec();
                softmax(&mut all);
                chosen.iter().map(|&e| all[e]).collect()
            };
            for (&e, &weight) in chosen.iter().zip(&weights) {
                let h = layer(&first, 0, e, s.rows, s.hidden, token);
                let gate = third.as_ref().map(|w| layer(w, 2, e, s.inner, s.hidden, token));
                let y = layer(&second, 1, e, s.hidden, s.inner, &self.activated(h, gate));
                let sum = &mut out[t * s.hidden..][..s.hidden];
                sum.iter_mut().zip(y).for_each(|(o, y)| *o = *o + weight * y);
            }
        }
        Ok(vec![T::store(out, x.dims())?])
    }

    fn activated<T: Num>(&self, h: Vec<T>, gate: Option<Vec<T>>) -> Vec<T> {
        let gated = |h: Vec<T>, gate: Option<Vec<T>>| match gate {
            Some(g) => h.into_iter().zip(g).map(|(h, g)| h * g).collect(),
            None => h,
        };
        match self.act {
            Act::Identity => gated(h, gate),
            Act::Plain(f) => gated(f.floats(h), gate),
            Act::SwiGlu { alpha, beta, limit, fusion } => {
                let n = h.len() / 2;
                let pairs: Vec<(T, T)> = match (fusion, gate) {
                    (Fusion::InTurn, _) => (0..n).map(|i| (h[2 * i], h[2 * i + 1])).collect(),
                    (Fusion::Halves, _) => (0..n).map(|i| (h[i], h[n + i])).collect(),
                    (Fusion::Apart, gate) => h.into_iter().zip(gate.unwrap_or_default()).collect(),
                };
                let one = |(g, l): (T, T)| {
                    let (g, l) = match limit {
                        Some(c) => (g.min_nan(T::of(c.into())), l.min_nan(T::of(c.into())).max_nan(T::of((-c).into()))),
                        None => (g, l),
                    };
                    g * super::unary::sigmoid(T::of(alpha.into()) * g) * (l + T::of(beta.into()))
                };
                pairs.into_iter().map(one).collect()
            }
        }
    }
}

/// Sizes of a mixture of experts.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    tokens: usize,
    experts: usize,
    hidden: usize,
    /// Outputs of the first layer.
    rows: usize,
    /// Inputs of the second.
    inner: usize,
    gated: bool,
}

impl Family for Moe {
    fn infer(&self, cx: &Infer) -> Result<Vec<Fact>> {
        let all = (0..cx.inputs.len()).all(|i| cx.opt(i).is_none_or(|x| x.fact.shape.concrete().is_some()));
        if all {
            self.sizes(&|i| cx.opt(i)?.fact.shape.concrete())?;
        }
        Ok(vec![cx.fact(0)?.clone()])
    }

    fn charge(&self, cx: &CostCx) -> Charge {
        Charge::of((|| {
            let s = self.sizes(&|i| cx.dims(i)).ok()?;
            let third = if s.gated { product([s.inner, s.hidden])? } else { 0 };
            let one = product([s.rows, s.hidden])?.checked_add(product([s.inner, s.hidden])?)?.checked_add(third)?;
            let runs = product([s.tokens, self.k])?;
            let given = |layer: usize, rows: usize| if cx.has(self.layers()[layer][3]) { rows as u64 } else { 0 };
            let biases = given(0, s.rows) + given(1, s.hidden) + if s.gated { given(2, s.inner) } else { 0 };
            let act = match self.act {
                Act::Identity => u64::from(s.gated),
                Act::Plain(f) => f.flops() + u64::from(s.gated),
                Act::SwiGlu { limit, .. } => if limit.is_some() { 11 } else { 8 },
            };
            let per_run = biases
                .checked_add((s.inner as u64).checked_mul(act)?)?
                .checked_add((s.hidden as u64).checked_mul(2)?)?;
            let routed = product([s.tokens, if self.normalize { self.k } else { s.experts }, 5])?;
            let other = runs.checked_mul(per_run)?.checked_add(routed)?;
            Some(Work::madds(runs.checked_mul(one)?).and_other(other))
        })())
    }

    fn eval(&self, cx: &EvalCx, inputs: &Inputs) -> Result<Vec<Tensor>> {
        with_num!(cx.arith, input(inputs, 0)?.dtype(), T => self.run::<T>(inputs))
    }

    fn role(&self, i: usize) -> Role {
        let layers = self.layers();
        match i {
            0 | 1 => Role::Data,
            _ if layers.iter().any(|l| i == l[0] || i == l[3]) => Role::Weight,
            _ => Role::Setting,
        }
    }

    fn elements_of(&self, i: usize, inputs: &[Option<Input>]) -> Option<u64> {
        let bits = self.bits.filter(|_| self.layers().iter().any(|l| l[0] == i))?;
        let held = inputs.get(i).copied().flatten()?.fact;
        (held.dtype == Some(DType::U8)).then(|| (held.elements()? as u64).checked_mul(8 / bits as u64))?
    }
}

fn cases() -> Vec<Case> {
    let f = |dims: &[usize], seed| Some(sample::floats(dims, seed));
    let ms = |name: &str, attrs: &[(&str, Attr)], inputs: Vec<Option<Tensor>>| {
        Case::with_optional(name, attrs, inputs, 1).domain("com.microsoft").opset(1)
    };
    let act = |s: &str| ("activation_type", Attr::Str(s.into()));
    let int = |name: &'static str, v: i64| (name, Attr::Int(v));
    let num = |name: &'static str, v: f32| (name, Attr::Float(v));
    // Five tokens of 4, three experts of 6.
    let with = |rows: usize, more: Vec<Option<Tensor>>| {
        let mut v = vec![f(&[5, 4], 1), f(&[5, 3], 2), f(&[3, rows, 4], 3), f(&[3, rows], 4), f(&[3, 4, 6], 5), f(&[3, 4], 6)];
        v.extend(more);
        v
    };
    let third = || vec![f(&[3, 6, 4], 7), f(&[3, 6], 8)];
    let glu = |fusion| [act("swiglu"), int("k", 2), int("swiglu_fusion", fusion), num("activation_alpha", 1.7), num("swiglu_limit", 0.5)];
    let bytes = |dims: &[usize], seed| Some(super::fused_quant::quantized_sample(DType::U8, dims, seed));
    let packed = |blocks: &[usize]| {
        let scales = |rows: usize, seed| f(&[&[3, rows], blocks].concat(), seed);
        vec![f(&[5, 8], 1), f(&[5, 3], 2), bytes(&[3, 6, 4], 3), scales(6, 4), None, bytes(&[3, 8, 3], 5), scales(8, 6), f(&[3, 8], 7)]
    };
    // Zero points after the third layer's places: packed along the rows, or along the blocks.
    let zeros = |mut v: Vec<Option<Tensor>>, first: &[usize], second: &[usize]| {
        v.resize(11, None);
        v.extend([bytes(first, 9), bytes(second, 10)]);
        v
    };
    vec![
        ms("QMoE", &[], zeros(packed(&[]), &[3, 3], &[3, 4])),
        ms("QMoE", &[], zeros(packed(&[2]), &[3, 6, 1], &[3, 8, 1])),
        ms("MoE", &[int("k", 2)], with(6, vec![])),
        ms("MoE", &[act("gelu"), int("normalize_routing_weights", 1), int("k", 2)], with(6, third())),
        ms("MoE", &[act("identity")], vec![f(&[1, 5, 4], 1), f(&[5, 3], 2), f(&[3, 6, 4], 3), None, f(&[3, 4, 6], 5)]),
        ms("MoE", &glu(1), with(12, vec![])),
        ms("MoE", &glu(2), with(12, vec![])),
        ms("MoE", &[act("swiglu"), int("k", 1)], with(6, third())),
        ms("QMoE", &[act("silu"), int("k", 2), int("expert_weight_bits", 4)], packed(&[])),
        ms("QMoE", &[act("relu"), int("k", 1), int("expert_weight_bits", 4)], packed(&[2])),
    ]
}
