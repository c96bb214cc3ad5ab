//! LinearAttention, CausalConvWithState, SwiGLU: what recurrent language models are built of.
//!
//! <https://onnx.ai/onnx/operators/onnx__LinearAttention.html>, <https://onnx.ai/onnx/operators/onnx__CausalConvWithState.html>,
//! <https://onnx.ai/onnx/operators/onnx__SwiGLU.html>.
//!
//! LinearAttention MAdds, token by token: `B·T·d·dv` per key head for writing the state and as much per query head for reading it; the
//! delta rules read it once more per key head. (Kernels that work on chunks of tokens may do more.) Other FLOPs: a gate 1 per decay value
//! (exp) and 1 per element of the state, a delta rule 2 per value, the scale 1 per output element.
//! CausalConvWithState MAdds: `B·C·L·k`, the padding before the first position in full; other FLOPs: 1 per output element for a bias, 5
//! for the activation. SwiGLU: 6 per element, 7 with an α.

use super::cast::cast;
use super::spec::{Attr, NodeSpec};
use super::unary::sigmoid;
use super::{Case, Charge, CostCx, Entry, EvalCx, Family, Infer, Inputs, Op, Role, input, opt, sample};
use crate::cost::{Work, product};
use crate::error::{Error, Result};
use crate::tensor::{DType, Fact, Num, Shape, Tensor, element_count};
use crate::with_num;

/// The family's table rows.
pub const ENTRIES: &[Entry] = &[
    Entry { domain: "", name: "CausalConvWithState", parse: LinearAttention::conv, cases },
    Entry { domain: "", name: "LinearAttention", parse: LinearAttention::attention, cases },
    Entry { domain: "", name: "SwiGLU", parse: LinearAttention::swiglu, cases },
];

/// An operator of recurrent language models.
#[derive(Debug, Clone)]
pub enum LinearAttention {
    /// Attention whose keys and values are summed up in a state.
    Attention(Recurrence),
    /// A depthwise convolution over the past.
    Conv {
        /// SiLU at the end.
        silu: bool,
    },
    /// `a · sigmoid(α·a) · b`.
    SwiGlu {
        /// Factor in the sigmoid.
        alpha: f32,
    },
}

/// How the state of a linear attention changes.
#[derive(Debug, Clone)]
pub struct Recurrence {
    /// Query heads.
    pub q_heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// The state decays.
    pub gated: bool,
    /// What a key already retrieves is subtracted from its value.
    pub delta: bool,
    /// Factor of the output; `1/√d` if not given.
    pub scale: Option<f32>,
}

/// Sizes of a linear attention.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    batch: usize,
    tokens: usize,
    d: usize,
    dv: usize,
}

impl LinearAttention {
    fn attention(node: &NodeSpec) -> Result<Op> {
        node.expect_inputs(3, 6)?;
        let heads = |name: &str| -> Result<usize> {
            let n = node.opt_size(name)?.filter(|&n| n > 0);
            n.ok_or_else(|| Error::input("must be given and positive").at_attribute(name))
        };
        let (q_heads, kv_heads) = (heads("q_num_heads")?, heads("kv_num_heads")?);
        if q_heads % kv_heads != 0 {
            return Err(Error::input(format!("is no multiple of {kv_heads}")).at_attribute("q_num_heads"));
        }
        let (gated, delta) = match node.str("update_rule", "gated_delta")? {
            "linear" => (false, false),
            "gated" => (true, false),
            "delta" => (false, true),
            "gated_delta" => (true, true),
            other => return Err(Error::input(format!("'{other}' is not a rule")).at_attribute("update_rule")),
        };
        for (i, needed, name) in [(4, gated, "decay"), (5, delta, "update rate")] {
            if node.has_input(i) != needed {
                let say = if needed { "is missing" } else { "has no place in this rule" };
                return Err(Error::input(format!("the {name} {say}")).at_attribute("update_rule"));
            }
        }
        let scale = node.opt_float("scale")?.filter(|&s| s != 0.0);
        Ok(Op::LinearAttention(LinearAttention::Attention(Recurrence { q_heads, kv_heads, gated, delta, scale })))
    }
    fn conv(node: &NodeSpec) -> Result<Op> {
        node.expect_inputs(2, 4)?;
        let silu = match node.str("activation", "none")? {
            "none" => false,
            "silu" | "swish" => true,
            other => return Err(Error::input(format!("'{other}' is not an activation")).at_attribute("activation")),
        };
        Ok(Op::LinearAttention(LinearAttention::Conv { silu }))
    }
    fn swiglu(node: &NodeSpec) -> Result<Op> {
        node.expect_inputs(2, 2)?;
        Ok(Op::LinearAttention(LinearAttention::SwiGlu { alpha: node.float("alpha", 1.0)? }))
    }
}

fn misfit(what: &str, dims: &[usize]) -> Error {
    Error::input(format!("{what} of shape {} does not fit the other inputs", Shape::known(dims)))
}

impl Recurrence {
    fn sizes(&self, q: &[usize], k: &[usize], v: &[usize]) -> Result<Sizes> {
        let (&[batch, tokens, q_width], &[kb, kt, k_width], &[vb, vt, v_width]) = (q, k, v) else {
            return Err(Error::input("query, key and value must be [batch, tokens, heads · size]"));
        };
        let d = q_width / self.q_heads;
        if q_width % self.q_heads != 0 || (kb, kt) != (batch, tokens) || Some(k_width) != self.kv_heads.checked_mul(d) {
            return Err(misfit("a key", k));
        }
        if (vb, vt) != (batch, tokens) || v_width % self.kv_heads != 0 {
            return Err(misfit("a value", v));
        }
        Ok(Sizes { batch, tokens, d, dv: v_width / self.kv_heads })
    }

    fn infer(&self, cx: &Infer) -> Result<Vec<Fact>> {
        let (q, v) = (cx.fact(0)?, cx.fact(2)?);
        if let (Some(q), Some(k), Some(v)) = (q.shape.concrete(), cx.shape(1)?.concrete(), v.shape.concrete()) {
            self.sizes(&q, &k, &v)?;
        }
        let (heads, dv) = (self.kv_heads, v.shape.dim(2).map(|n| n / self.kv_heads));
        let d = q.shape.dim(2).map(|n| n / self.q_heads);
        let y = vec![q.shape.dim(0), q.shape.dim(1), dv.and_then(|n| n.checked_mul(self.q_heads))];
        let state = Shape::partial(vec![q.shape.dim(0), Some(heads), d, dv]);
        let dtype = cx.opt(3).map_or(q.dtype, |s| s.fact.dtype);
        Ok(vec![q.with_shape(Shape::partial(y)), Fact { dtype, shape: state, container: q.container }])
    }

    fn charge(&self, cx: &CostCx) -> Option<Work> {
        let s = self.sizes(&cx.dims(0)?, &cx.dims(1)?, &cx.dims(2)?).ok()?;
        let (tokens, state) = (product([s.batch, s.tokens])?, product([s.d, s.dv])?);
        let (hq, hkv) = (self.q_heads as u64, self.kv_heads as u64);
        let passes = hq.checked_add(hkv.checked_mul(1 + u64::from(self.delta))?)?;
        let mut other = hq.checked_mul(s.dv as u64)?;
        if self.gated {
            let gates = *cx.dims(4)?.last()? as u64;
            other = other.checked_add(gates)?.checked_add(hkv.checked_mul(state)?)?;
        }
        if self.delta {
            other = other.checked_add(hkv.checked_mul(2)?.checked_mul(s.dv as u64)?)?;
        }
        let madds = tokens.checked_mul(state)?.checked_mul(passes)?;
        Some(Work::madds(madds).and_other(tokens.checked_mul(other)?))
    }

    fn run<T: Num>(&self, inputs: &Inputs) -> Result<Vec<Tensor>> {
        let (qt, kt, vt) = (input(inputs, 0)?, input(inputs, 1)?, input(inputs, 2)?);
        let s = self.sizes(qt.dims(), kt.dims(), vt.dims())?;
        let Sizes { batch, tokens, d, dv } = s;
        let (hq, hkv) = (self.q_heads, self.kv_heads);
        let state_dims = [batch, hkv, d, dv];
        let mut state = match opt(inputs, 3) {
            Some(past) if past.dims() == state_dims => T::load(&cast(past, qt.dtype(), true)?)?,
            Some(past) => return Err(misfit("a state", past.dims())),
            None => vec![T::zero(); element_count(&state_dims)?],
        };
        let (q, k, v) = (T::load(qt)?, T::load(kt)?, T::load(vt)?);
        let per_token = |i: usize, what: &str, widths: &[usize]| -> Result<(Vec<T>, usize)> {
            let t = input(inputs, i)?;
            match t.dims() {
                &[b, n, width] if (b, n) == (batch, tokens) && widths.contains(&width) => Ok((T::load(t)?, width)),
                other => Err(misfit(what, other)),
            }
        };
        let gates = if self.gated { Some(per_token(4, "a decay", &[hkv, hkv * d])?) } else { None };
        let rates = if self.delta { Some(per_token(5, "an update rate", &[hkv, 1])?) } else { None };
        let y_dims = [batch, tokens, hq * dv];
        let mut y = vec![T::zero(); element_count(&y_dims)?];
        let scale = T::of(self.scale.map_or_else(|| 1.0 / (d as f64).sqrt(), f64::from));
        for at in (0..batch).flat_map(|b| (0..tokens).map(move |t| b * tokens + t)) {
            let b = at / tokens;
            // One factor per key head, or one per row of its state.
            let factors: Option<Vec<T>> =
                gates.as_ref().map(|(g, width)| g[at * width..][..*width].iter().map(|g| g.exp()).collect());
            for h in 0..hkv {
                let s = &mut state[(b * hkv + h) * d * dv..][..d * dv];
                let (k, v) = (&k[(at * hkv + h) * d..][..d], &v[(at * hkv + h) * dv..][..dv]);
                if let Some(f) = &factors {
                    s.iter_mut().enumerate().for_each(|(e, s)| *s = *s * f[if f.len() == hkv { h } else { h * d + e / dv }]);
                }
                let mut written = v.to_vec();
                if let Some((rates, width)) = &rates {
                    let rate = rates[at * width + if *width == 1 { 0 } else { h }];
                    for (m, w) in written.iter_mut().enumerate() {
                        let held = (0..d).fold(T::zero(), |sum, e| sum.madd(s[e * dv + m], k[e]));
                        *w = rate * (*w - held);
                    }
                }
                for (e, s) in s.iter_mut().enumerate() {
                    *s = s.madd(k[e / dv], written[e % dv]);
                }
            }
            for h in 0..hq {
                let s = &state[(b * hkv + h / (hq / hkv)) * d * dv..][..d * dv];
                let q = &q[(at * hq + h) * d..][..d];
                for m in 0..dv {
                    let sum = (0..d).fold(T::zero(), |sum, e| sum.madd(q[e], s[e * dv + m]));
                    y[(at * hq + h) * dv + m] = sum * scale;
                }
            }
        }
        let kept = opt(inputs, 3).map_or(qt.dtype(), Tensor::dtype);
        Ok(vec![T::store(y, &y_dims)?, cast(&T::store(state, &state_dims)?, kept, true)?])
    }
}

/// Batch, channels, length and kernel size of a causal convolution.
fn conv_sizes(x: &[usize], w: &[usize]) -> Result<[usize; 4]> {
    match (x, w) {
        (&[b, c, l], &[wc, 1, k]) if wc == c && k > 0 => Ok([b, c, l, k]),
        _ => Err(misfit("a kernel", w)),
    }
}

fn causal_conv<T: Num>(inputs: &Inputs, silu: bool) -> Result<Vec<Tensor>> {
    let (xt, wt) = (input(inputs, 0)?, input(inputs, 1)?);
    let [b, c, l, k] = conv_sizes(xt.dims(), wt.dims())?;
    let (bias, past) = (opt(inputs, 2), opt(inputs, 3));
    if let Some(t) = bias.filter(|t| t.dims() != [c]) {
        return Err(misfit("a bias", t.dims()));
    }
    if let Some(t) = past.filter(|t| t.dims() != [b, c, k - 1]) {
        return Err(misfit("a state", t.dims()));
    }
    let (x, w) = (T::load(xt)?, T::load(wt)?);
    let (bias, past) = (bias.map(T::load).transpose()?, past.map(T::load).transpose()?);
    let mut y = super::elements::reserved(x.len())?;
    let mut kept = super::elements::reserved(element_count(&[b, c, k - 1])?)?;
    for row in 0..b * c {
        let mut line = match &past {
            Some(p) => p[row * (k - 1)..][..k - 1].to_vec(),
            None => vec![T::zero(); k - 1],
        };
        line.extend_from_slice(&x[row * l..][..l]);
        let w = &w[row % c * k..][..k];
        for at in 0..l {
            let mut v = line[at..at + k].iter().zip(w).fold(T::zero(), |sum, (&x, &w)| sum.madd(x, w));
            if let Some(bias) = &bias {
                v = v + bias[row % c];
            }
            y.push(if silu { v * sigmoid(v) } else { v });
        }
        kept.extend_from_slice(&line[l..]);
    }
    Ok(vec![T::store(y, xt.dims())?, T::store(kept, &[b, c, k - 1])?])
}

impl Family for LinearAttention {
    fn infer(&self, cx: &Infer) -> Result<Vec<Fact>> {
        let x = cx.fact(0)?;
        match self {
            LinearAttention::Attention(op) => op.infer(cx),
            LinearAttention::Conv { .. } => {
                let w = cx.shape(1)?;
                if let (Some(x), Some(w)) = (x.shape.concrete(), w.concrete()) {
                    conv_sizes(&x, &w)?;
                }
                let kept = w.dim(2).and_then(|k| k.checked_sub(1));
                let state = vec![x.shape.dim(0), x.shape.dim(1).or(w.dim(0)), kept];
                Ok(vec![x.clone(), x.with_shape(Shape::partial(state))])
            }
            LinearAttention::SwiGlu { .. } => {
                let b = cx.fact(1)?;
                let (left, right) = (x.shape.concrete(), b.shape.concrete());
                if left.is_some() && right.is_some() && left != right {
                    return Err(Error::input(format!("a gate {} for a value {}", x.shape, b.shape)));
                }
                Ok(vec![if left.is_some() { x.clone() } else { b.clone() }])
            }
        }
    }
    fn charge(&self, cx: &CostCx) -> Charge {
        Charge::of(match self {
            LinearAttention::Attention(op) => op.charge(cx),
            LinearAttention::Conv { silu } => (|| {
                let [b, c, l, k] = conv_sizes(&cx.dims(0)?, &cx.dims(1)?).ok()?;
                let (madds, y) = (product([b, c, l, k])?, product([b, c, l])?);
                let per = u64::from(cx.has(2)) + if *silu { 5 } else { 0 };
                let mut work = Work::madds(madds).and_other(y.checked_mul(per)?);
                if !cx.has(3) {
                    let taps: u64 = (0..k.min(l)).map(|before| (l - before) as u64).sum();
                    work.useful_madds = product([b, c])?.checked_mul(taps)?;
                }
                Some(work)
            })(),
            LinearAttention::SwiGlu { alpha } => {
                let per = 6 + u64::from(*alpha != 1.0);
                cx.out_elements(0).and_then(|n| n.checked_mul(per)).map(Work::other)
            }
        })
    }
    fn eval(&self, cx: &EvalCx, inputs: &Inputs) -> Result<Vec<Tensor>> {
        let x = input(inputs, 0)?;
        with_num!(cx.arith, x.dtype(), T => match self {
            LinearAttention::Attention(op) => op.run::<T>(inputs),
            LinearAttention::Conv { silu } => causal_conv::<T>(inputs, *silu),
            LinearAttention::SwiGlu { alpha } => {
                let b = input(inputs, 1)?;
                if b.dims() != x.dims() {
                    return Err(misfit("a value", b.dims()));
                }
                let mut y = T::load(x)?;
                for (a, b) in y.iter_mut().zip(T::load(b)?) {
                    let inside = if *alpha == 1.0 { *a } else { *a * T::of(f64::from(*alpha)) };
                    *a = *a * sigmoid(inside) * b;
                }
                Ok(vec![T::store(y, x.dims())?])
            }
        })
    }
    fn role(&self, i: usize) -> Role {
        match self {
            LinearAttention::Conv { .. } if i == 1 || i == 2 => Role::Weight,
            _ => Role::Data,
        }
    }
}

fn cases() -> Vec<Case> {
    let f = |dims: &[usize], seed: u64| Some(sample::floats(dims, seed));
    let half = |dims: &[usize], seed: u64| sample::floats(dims, seed).narrowed(DType::F16, true).ok();
    let heads = |hq: i64, hkv: i64, rule: &str| {
        [("q_num_heads", Attr::Int(hq)), ("kv_num_heads", Attr::Int(hkv)), ("update_rule", Attr::Str(rule.into()))]
    };
    // Two batch entries, three tokens, keys of 4, values of 5.
    let (b, t, d, dv) = (2, 3, 4, 5);
    let attention = |hq: usize, hkv: usize, rule: &str, past: bool, gates: usize, rates: usize| {
        let given = |there: bool, dims: &[usize], seed| if there { f(dims, seed) } else { None };
        let mut inputs = vec![f(&[b, t, hq * d], 1), f(&[b, t, hkv * d], 2), f(&[b, t, hkv * dv], 3)];
        inputs.push(given(past, &[b, hkv, d, dv], 4));
        inputs.push(given(gates > 0, &[b, t, gates], 5));
        inputs.push(given(rates > 0, &[b, t, rates], 6));
        Case::with_optional("LinearAttention", &heads(hq as i64, hkv as i64, rule), inputs, 2)
    };
    let conv = |activation: &str, l: usize, k: usize, bias: bool, past: bool| {
        let mut inputs = vec![f(&[2, 3, l], 1), f(&[3, 1, k], 2)];
        inputs.push(if bias { f(&[3], 3) } else { None });
        inputs.push(if past { f(&[2, 3, k - 1], 4) } else { None });
        Case::with_optional("CausalConvWithState", &[("activation", Attr::Str(activation.into()))], inputs, 2)
    };
    let mut mixed = attention(2, 2, "linear", true, 0, 0);
    for (i, dims) in [(0, [b, t, 2 * d]), (1, [b, t, 2 * d]), (2, [b, t, 2 * dv])] {
        mixed.inputs[i] = half(&dims, i as u64);
    }
    vec![
        attention(2, 2, "linear", false, 0, 0),
        attention(4, 2, "gated", true, 2, 0),
        attention(2, 2, "gated", false, 8, 0),
        attention(2, 1, "delta", false, 0, 1),
        attention(4, 2, "gated_delta", true, 2, 2),
        mixed,
        conv("none", 6, 4, false, false),
        conv("silu", 6, 3, true, true),
        conv("swish", 2, 4, true, false),
        conv("none", 3, 1, false, false),
        Case::with_optional("SwiGLU", &[], vec![f(&[2, 3], 1), f(&[2, 3], 2)], 1),
        Case::with_optional("SwiGLU", &[("alpha", Attr::Float(1.7))], vec![half(&[2, 3], 1), half(&[2, 3], 2)], 1),
    ]
}
