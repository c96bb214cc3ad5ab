//! Attention and RotaryEmbedding of ai.onnx, and ONNX Runtime's RotaryEmbedding (its attentions are in [`super::heads`]).
//!
//! <https://onnx.ai/onnx/operators/onnx__Attention.html>, <https://onnx.ai/onnx/operators/onnx__RotaryEmbedding.html>.
//!
//! Attention MAdds: `B · Hq · L · S · (d + dv)`, with S the past keys included and masked positions in full, though causal
//! kernels may do about half (`useful_madds` leaves out what causality alone masks). Other FLOPs per score: 1 for the scale, 3
//! for a softcap, 1 for an additive mask, 5 for the softmax; boolean, causal, window and padding masks select and are free.
//! RotaryEmbedding: 3 per rotated element.

use super::matmul::broadcast_offsets;
use super::softmax::softmax;
use super::spec::{Attr, NodeSpec};
use super::{Case, Charge, CostCx, Entry, EvalCx, Family, Infer, Inputs, Op, Role, input, opt, sample};
use crate::cost::{Work, product};
use crate::error::{Error, Result};
use crate::tensor::{DType, Dim, Fact, Num, Shape, Tensor, element_count};
use crate::with_num;

/// The family's table rows.
pub const ENTRIES: &[Entry] = &[
    Entry { domain: "", name: "Attention", parse: parse_attention, cases },
    Entry { domain: "", name: "RotaryEmbedding", parse: parse_rotary, cases },
    Entry { domain: "com.microsoft", name: "RotaryEmbedding", parse: parse_rotary, cases },
];

/// Scaled dot-product attention, or the rotation of its operands.
#[derive(Debug, Clone)]
pub enum Attention {
    /// `softmax(scale · Q Kᵀ + mask) V`.
    Product(Product),
    /// Rotary position embedding.
    Rotary(Rotary),
}

/// What the scores output of an attention shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scores {
    /// Scaled products.
    Products,
    /// After the softcap.
    Capped,
    /// With the mask.
    Masked,
    /// Probabilities.
    Probabilities,
}

/// Scaled dot-product attention.
#[derive(Debug, Clone)]
pub struct Product {
    /// Query heads, needed for rank-3 operands.
    pub q_heads: Option<usize>,
    /// Key and value heads.
    pub kv_heads: Option<usize>,
    /// A query sees no later keys.
    pub causal: bool,
    /// Factor of the scores; `1/√d` if not given.
    pub scale: Option<f32>,
    /// Bound of the scores: `cap · tanh(score / cap)`.
    pub softcap: Option<f32>,
    /// Keys a query sees before its own position.
    pub left_window: Option<usize>,
    /// Keys a query sees after its own position.
    pub right_window: Option<usize>,
    /// What the scores output shows.
    pub scores: Scores,
}

/// Rotary position embedding.
#[derive(Debug, Clone)]
pub struct Rotary {
    /// Pairs are neighbours, not halves apart.
    pub interleaved: bool,
    /// Rotated part of a head; all of it if not given.
    pub dim: Option<usize>,
    /// Heads of a rank-3 operand.
    pub heads: Option<usize>,
    /// Positions come before the caches (ONNX Runtime).
    pub positions_first: bool,
}

fn positive(node: &NodeSpec, name: &str) -> Result<Option<usize>> {
    Ok(node.opt_size(name)?.filter(|&n| n > 0))
}

fn parse_attention(node: &NodeSpec) -> Result<Op> {
    node.expect_inputs(3, 7)?;
    let window = |name: &str| -> Result<Option<usize>> {
        match node.int(name, -1)? {
            -1 => Ok(None),
            n => usize::try_from(n).map(Some).map_err(|_| Error::input("must be −1 or more").at_attribute(name)),
        }
    };
    let scores = match node.int("qk_matmul_output_mode", 0)? {
        0 => Scores::Products,
        1 => Scores::Capped,
        2 => Scores::Masked,
        3 => Scores::Probabilities,
        _ => return Err(Error::input("must be 0 to 3").at_attribute("qk_matmul_output_mode")),
    };
    Ok(Op::Attention(Attention::Product(Product {
        q_heads: positive(node, "q_num_heads")?,
        kv_heads: positive(node, "kv_num_heads")?,
        causal: node.flag("is_causal", false)?,
        scale: node.opt_float("scale")?,
        softcap: node.opt_float("softcap")?.filter(|&c| c > 0.0),
        left_window: window("left_window_size")?,
        right_window: window("right_window_size")?,
        scores,
    })))
}

fn parse_rotary(node: &NodeSpec) -> Result<Op> {
    let ours = node.domain != "com.microsoft";
    node.expect_inputs(if ours { 3 } else { 4 }, 4)?;
    if !ours && node.float("scale", 1.0)? != 1.0 {
        return Err(Error::unsupported("a scaled rotation is not implemented").at_attribute("scale"));
    }
    Ok(Op::Attention(Attention::Rotary(Rotary {
        interleaved: node.flag("interleaved", false)?,
        dim: positive(node, "rotary_embedding_dim")?,
        heads: positive(node, "num_heads")?,
        positions_first: !ours,
    })))
}

/// Sizes of an attention: batch, heads, queries, keys, head sizes.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    b: usize,
    hq: usize,
    hkv: usize,
    l: usize,
    /// New keys.
    new: usize,
    past: usize,
    d: usize,
    dv: usize,
}

impl Sizes {
    fn keys(&self) -> usize {
        self.past + self.new
    }
    fn scores(&self) -> Option<u64> {
        product([self.b, self.hq, self.l, self.past.checked_add(self.new)?])
    }
}

/// A rank-3 or rank-4 operand as (batch, heads, sequence, head size).
fn split(dims: &[Dim], heads: Option<usize>, name: &str) -> Result<[Dim; 4]> {
    match *dims {
        [b, s, hidden] => {
            let h = heads.ok_or_else(|| Error::input("is required with rank-3 operands").at_attribute(name))?;
            if hidden.is_some_and(|n| n % h != 0) {
                return Err(Error::input(format!("does not divide the hidden size {}", Shape::partial(vec![hidden])))
                    .at_attribute(name));
            }
            Ok([b, Some(h), s, hidden.map(|n| n / h)])
        }
        [b, h, s, d] => Ok([b, h, s, d]),
        _ => Err(Error::input(format!("an operand of rank {} where 3 or 4 is needed", dims.len()))),
    }
}

impl Product {
    /// Positions of mask, past key, past value and the number of real keys among the inputs.
    fn positions(&self) -> [usize; 4] {
        [3, 4, 5, 6]
    }

    fn sizes(&self, q: &[usize], k: &[usize], v: &[usize], past: Option<&[usize]>) -> Result<Sizes> {
        let part = |d: &[usize], heads, name: &str| -> Result<[usize; 4]> {
            let d: Vec<Dim> = d.iter().map(|&d| Some(d)).collect();
            Ok(split(&d, heads, name)?.map(|d| d.unwrap_or(0)))
        };
        let [b, hq, l, d] = part(q, self.q_heads, "q_num_heads")?;
        let [kb, hkv, new, kd] = part(k, self.kv_heads, "kv_num_heads")?;
        let [vb, vh, vs, dv] = part(v, self.kv_heads, "kv_num_heads")?;
        let past_len = match past {
            None => 0,
            Some(&[pb, ph, p, pd]) if (pb, ph, pd) == (b, hkv, d) => p,
            Some(other) => return Err(Error::input(format!("a past key of shape {}", Shape::known(other)))),
        };
        if (kb, vb, vh, vs) != (b, b, hkv, new) || kd != d || hkv == 0 || hq % hkv.max(1) != 0 {
            return Err(Error::input(format!(
                "Q {}, K {} and V {} do not fit together",
                Shape::known(q),
                Shape::known(k),
                Shape::known(v)
            )));
        }
        past_len.checked_add(new).ok_or_else(|| Error::input("too many keys"))?;
        Ok(Sizes { b, hq, hkv, l, new, past: past_len, d, dv })
    }

    fn infer(&self, cx: &Infer) -> Result<Vec<Fact>> {
        let q = cx.fact(0)?;
        let (k, v) = (cx.fact(1)?, cx.fact(2)?);
        let [_, past_key, _, _] = self.positions();
        let past = cx.opt(past_key).map(|p| p.fact);
        if let (Some(qd), Some(kd), Some(vd)) = (q.shape.concrete(), k.shape.concrete(), v.shape.concrete()) {
            let past = past.map(|p| p.shape.concrete());
            if past.as_ref().is_none_or(Option::is_some) {
                self.sizes(&qd, &kd, &vd, past.flatten().as_deref())?;
            }
        }
        let unknown = || {
            vec![
                q.with_shape(Shape::UNKNOWN),
                k.with_shape(Shape::of_rank(4)),
                v.with_shape(Shape::of_rank(4)),
                q.with_shape(Shape::of_rank(4)),
            ]
        };
        let (Some(qd), Some(kd), Some(vd)) = (q.shape.dims(), k.shape.dims(), v.shape.dims()) else {
            return Ok(unknown().into_iter().take(cx.outputs.max(1)).collect());
        };
        let [b, hq, l, _] = split(qd, self.q_heads, "q_num_heads")?;
        let [_, hkv, new, d] = split(kd, self.kv_heads, "kv_num_heads")?;
        let [_, _, _, dv] = split(vd, self.kv_heads, "kv_num_heads")?;
        let keys = match past {
            None => new,
            Some(p) => p.shape.dim(2).zip(new).and_then(|(p, n)| p.checked_add(n)),
        };
        let y =
            if qd.len() == 3 { vec![b, l, hq.zip(dv).and_then(|(h, d)| h.checked_mul(d))] } else { vec![b, hq, l, dv] };
        let shaped = |f: &Fact, dims: Vec<Dim>| f.with_shape(Shape::partial(dims));
        let all = [
            shaped(q, y),
            shaped(k, vec![b, hkv, keys, d]),
            shaped(v, vec![b, hkv, keys, dv]),
            shaped(q, vec![b, hq, l, keys]),
        ];
        Ok(all.into_iter().take(cx.outputs.max(1)).collect())
    }

    fn charge(&self, cx: &CostCx) -> Option<Work> {
        let [mask, past_key, _, real] = self.positions();
        let past = if cx.has(past_key) { Some(cx.dims(past_key)?) } else { None };
        let s = self.sizes(&cx.dims(0)?, &cx.dims(1)?, &cx.dims(2)?, past.as_deref()).ok()?;
        let scores = s.scores()?;
        let per_score = (s.d as u64).checked_add(s.dv as u64)?;
        let additive = cx.has(mask) && cx.dtype(mask)? != DType::Bool;
        let other = 1 + if self.softcap.is_some() { 3 } else { 0 } + u64::from(additive) + 5;
        let other = scores.checked_mul(other)?;
        let madds = scores.checked_mul(per_score)?;
        let useful = if self.causal && !cx.has(real) {
            let (l, past, keys) = (s.l as u64, s.past as u64, s.keys() as u64);
            // Query i sees min(i + 1 + past, keys): a ramp, then a plateau.
            let ramp = keys.saturating_sub(past).min(l);
            let seen = ramp.checked_mul(past)?.checked_add(ramp.checked_mul(ramp.checked_add(1)?)? / 2)?;
            let seen = seen.checked_add((l - ramp).checked_mul(keys)?)?;
            seen.checked_mul(product([s.b, s.hq])?)?.checked_mul(per_score)?
        } else {
            madds
        };
        Some(Work { madds, other_flops: other, useful_madds: useful })
    }

    /// Whether query `i` may see key `j` as far as causality and windows go; `offset` is the query block's position.
    fn sees(&self, i: usize, j: usize, offset: i64) -> bool {
        let distance = i as i64 + offset - j as i64;
        (!self.causal || distance >= 0)
            && self.left_window.is_none_or(|w| distance <= w as i64)
            && self.right_window.is_none_or(|w| -distance <= w as i64)
    }

    fn run<T: Num>(&self, cx: &EvalCx, inputs: &Inputs) -> Result<Vec<Tensor>> {
        let (q, k, v) = (input(inputs, 0)?, input(inputs, 1)?, input(inputs, 2)?);
        let [mask_at, past_key, past_value, real] = self.positions();
        let past = opt(inputs, past_key);
        let s = self.sizes(q.dims(), k.dims(), v.dims(), past.map(Tensor::dims))?;
        let keys = s.keys();
        element_count(&[s.b, s.hq, s.l])?;
        element_count(&[s.b, s.hq, s.l, keys])?;
        element_count(&[s.b, s.hq, s.l, s.dv])?;
        let load = |t: &Tensor, heads: usize, len: usize, d: usize| -> Result<Vec<T>> {
            let x = T::load(t)?;
            Ok(if t.rank() == 3 { swap_middle(&x, s.b, len, heads, d) } else { x })
        };
        let q_all = load(q, s.hq, s.l, s.d)?;
        let k_new = load(k, s.hkv, s.new, s.d)?;
        let v_new = load(v, s.hkv, s.new, s.dv)?;
        let k_all = appended(past, k_new, s.b * s.hkv, s.past, s.new, s.d)?;
        let v_all = appended(opt(inputs, past_value), v_new, s.b * s.hkv, s.past, s.new, s.dv)?;
        // The mask, broadcast to [b, hq, l, its last size]; keys beyond that are masked.
        let mask = opt(inputs, mask_at);
        let mask_keys = mask.map_or(keys, |m| m.dims().last().copied().unwrap_or(1));
        let to = [s.b, s.hq, s.l, mask_keys];
        let mask_at = match mask {
            None => None,
            Some(m) => {
                let fits = m.rank() <= 4
                    && mask_keys <= keys.max(1)
                    && m.dims().iter().rev().zip(to.iter().rev()).all(|(m, t)| m == t || *m == 1);
                if !fits {
                    return Err(Error::run(format!("a mask of shape {}", Shape::known(m.dims()))));
                }
                Some(broadcast_offsets(m.dims(), &to))
            }
        };
        let allowed = mask.filter(|m| m.dtype() == DType::Bool).map(Tensor::to_i64s).transpose()?;
        let added = mask.filter(|m| m.dtype() != DType::Bool).map(T::load).transpose()?;
        let real = opt(inputs, real).map(Tensor::to_i64s).transpose()?;
        if real.as_ref().is_some_and(|r| r.len() != s.b) {
            return Err(Error::run("nonpad_kv_seqlen needs one element per batch element"));
        }
        let scale = T::of(self.scale.map_or(1.0 / (s.d as f64).sqrt(), f64::from));
        let lowest = T::of(f64::NEG_INFINITY);
        let mut y = vec![T::zero(); s.b * s.hq * s.l * s.dv];
        let mut shown = Vec::new();
        let mut row = vec![T::zero(); keys];
        for block in 0..s.b * s.hq * s.l {
            let (i, h, b) = (block % s.l, block / s.l % s.hq, block / s.l / s.hq);
            let kv = b * s.hkv + h / (s.hq / s.hkv);
            let query = &q_all[block * s.d..][..s.d];
            for (j, score) in row.iter_mut().enumerate() {
                let key = &k_all[(kv * keys + j) * s.d..][..s.d];
                let product = query.iter().zip(key).fold(T::zero(), |sum, (&q, &k)| sum.madd(q, k));
                *score = product * scale;
            }
            if cx.outputs > 3 && self.scores == Scores::Products {
                shown.extend_from_slice(&row);
            }
            if let Some(cap) = self.softcap {
                let cap = T::of(cap.into());
                row.iter_mut().for_each(|v| *v = (*v / cap).tanh() * cap);
            }
            if cx.outputs > 3 && self.scores == Scores::Capped {
                shown.extend_from_slice(&row);
            }
            let length = real.as_ref().map(|r| r[b]);
            let offset = length.map_or(s.past as i64, |n| n - s.l as i64);
            let mut any = false;
            for (j, score) in row.iter_mut().enumerate() {
                let at = mask_at.as_ref().filter(|_| j < mask_keys).map(|m| m[block * mask_keys + j]);
                let mut open = self.sees(i, j, offset) && length.is_none_or(|n| (j as i64) < n);
                open &= mask.is_none() || at.is_some();
                if let (Some(allowed), Some(at)) = (&allowed, at) {
                    open &= allowed[at] != 0;
                }
                if let Some(added) = &added {
                    let bias = at.map_or(lowest, |at| added[at]);
                    open &= bias != lowest;
                    *score = *score + bias;
                }
                if !open {
                    *score = lowest;
                }
                any |= open;
            }
            if cx.outputs > 3 && self.scores == Scores::Masked {
                shown.extend_from_slice(&row);
            }
            softmax(&mut row);
            if !any {
                row.fill(T::zero()); // a query that sees nothing gives zeros, not NaN
            }
            if cx.outputs > 3 && self.scores == Scores::Probabilities {
                shown.extend_from_slice(&row);
            }
            let out = &mut y[block * s.dv..][..s.dv];
            for (j, &p) in row.iter().enumerate() {
                let value = &v_all[(kv * keys + j) * s.dv..][..s.dv];
                for (o, &v) in out.iter_mut().zip(value) {
                    *o = o.madd(p, v);
                }
            }
        }
        let mut out = vec![if q.rank() == 3 {
            T::store(swap_middle(&y, s.b, s.hq, s.l, s.dv), &[s.b, s.l, s.hq * s.dv])?
        } else {
            T::store(y, &[s.b, s.hq, s.l, s.dv])?
        }];
        if cx.outputs > 1 {
            out.push(T::store(k_all, &[s.b, s.hkv, keys, s.d])?);
        }
        if cx.outputs > 2 {
            out.push(T::store(v_all, &[s.b, s.hkv, keys, s.dv])?);
        }
        if cx.outputs > 3 {
            out.push(T::store(shown, &[s.b, s.hq, s.l, keys])?);
        }
        Ok(out)
    }
}

/// `[a, b, c, d]` with the middle axes swapped.
pub(super) fn swap_middle<T: Copy>(x: &[T], a: usize, b: usize, c: usize, d: usize) -> Vec<T> {
    let mut out = Vec::with_capacity(x.len());
    for n in 0..a {
        for j in 0..c {
            for i in 0..b {
                out.extend_from_slice(&x[((n * b + i) * c + j) * d..][..d]);
            }
        }
    }
    out
}

/// Past rows, then new rows, of each of `blocks` blocks.
pub(super) fn appended<T: Num>(
    past: Option<&Tensor>,
    new: Vec<T>,
    blocks: usize,
    before: usize,
    n: usize,
    d: usize,
) -> Result<Vec<T>> {
    let Some(past) = past else {
        return if before == 0 { Ok(new) } else { Err(Error::run("a past key without a past value")) };
    };
    let past = T::load(past)?;
    if past.len() != blocks * before * d {
        return Err(Error::run("past keys and values do not fit"));
    }
    let mut out = Vec::with_capacity(past.len() + new.len());
    for i in 0..blocks {
        out.extend_from_slice(&past[i * before * d..][..before * d]);
        out.extend_from_slice(&new[i * n * d..][..n * d]);
    }
    Ok(out)
}

impl Rotary {
    /// (heads, head size, rotated size) for operand dims.
    fn sizes(&self, x: &[usize], cache: &[usize]) -> Result<(usize, usize, usize)> {
        let (heads, d) = match *x {
            [_, h, _, d] => (h, d),
            [_, _, hidden] => {
                // ONNX Runtime infers the heads from the caches when it is not told.
                let guess = cache.last().filter(|_| self.positions_first).map(|c| hidden / (2 * c).max(1));
                let h = self.heads.or(guess).filter(|&h| h > 0 && hidden % h == 0);
                let h = h.ok_or_else(|| Error::input("must divide the hidden size").at_attribute("num_heads"))?;
                (h, hidden / h)
            }
            _ => return Err(Error::input(format!("an operand of rank {} where 3 or 4 is needed", x.len()))),
        };
        let rotated = self.dim.unwrap_or(d);
        if rotated > d || !rotated.is_multiple_of(2) {
            return Err(Error::input(format!("{rotated} is not an even part of the head size {d}"))
                .at_attribute("rotary_embedding_dim"));
        }
        Ok((heads, d, rotated))
    }

    fn caches(&self) -> [usize; 3] {
        if self.positions_first { [2, 3, 1] } else { [1, 2, 3] }
    }

    fn run<T: Num>(&self, inputs: &Inputs) -> Result<Vec<Tensor>> {
        let x = input(inputs, 0)?;
        let [cos_at, sin_at, positions_at] = self.caches();
        let (cos, sin) = (input(inputs, cos_at)?, input(inputs, sin_at)?);
        let (heads, d, rotated) = self.sizes(x.dims(), cos.dims())?;
        let (b, l) = (x.dims()[0], if x.rank() == 4 { x.dims()[2] } else { x.dims()[1] });
        let half = rotated / 2;
        let (cos, sin) = (T::load(cos)?, T::load(sin)?);
        let positions = opt(inputs, positions_at).map(Tensor::to_i64s).transpose()?;
        let mut y = T::load(x)?;
        for at in 0..b * l * heads {
            let (n, t) = if x.rank() == 4 { (at / l / heads, at % l) } else { (at / heads / l, at / heads % l) };
            let row = match &positions {
                None => n * l + t,
                // One offset for all, or one position per token.
                Some(p) if p.len() == 1 && b * l != 1 => usize::try_from(p[0]).unwrap_or(usize::MAX).saturating_add(t),
                Some(p) => p.get(n * l + t).and_then(|&p| usize::try_from(p).ok()).unwrap_or(usize::MAX),
            };
            let end = row.checked_add(1).and_then(|r| r.checked_mul(half));
            if end.is_none_or(|e| e > cos.len() || e > sin.len()) {
                return Err(Error::run("a position outside the caches"));
            }
            let head = &mut y[at * d..][..d];
            for i in 0..half {
                let (first, second) = if self.interleaved { (2 * i, 2 * i + 1) } else { (i, half + i) };
                let (c, s) = (cos[row * half + i], sin[row * half + i]);
                let (u, v) = (head[first], head[second]);
                head[first] = c * u - s * v;
                head[second] = s * u + c * v;
            }
        }
        Ok(vec![T::store(y, x.dims())?])
    }
}

impl Family for Attention {
    fn infer(&self, cx: &Infer) -> Result<Vec<Fact>> {
        match self {
            Attention::Product(p) => p.infer(cx),
            Attention::Rotary(_) => Ok(vec![cx.fact(0)?.clone()]),
        }
    }

    fn charge(&self, cx: &CostCx) -> Charge {
        Charge::of(match self {
            Attention::Product(p) => p.charge(cx),
            Attention::Rotary(r) => (|| {
                let x = cx.dims(0)?;
                let (_, d, rotated) = r.sizes(&x, &cx.dims(r.caches()[0])?).ok()?;
                let elements = product(x)?;
                if elements == 0 {
                    return Some(Work::NONE);
                }
                Some(Work::other((elements / d as u64).checked_mul(rotated as u64)?.checked_mul(3)?))
            })(),
        })
    }

    fn eval(&self, cx: &EvalCx, inputs: &Inputs) -> Result<Vec<Tensor>> {
        with_num!(cx.arith, input(inputs, 0)?.dtype(), T => match self {
            Attention::Product(p) => p.run::<T>(cx, inputs),
            Attention::Rotary(r) => r.run::<T>(inputs),
        })
    }

    fn role(&self, i: usize) -> Role {
        match self {
            Attention::Product(p) if i == p.positions()[0] || i == p.positions()[3] => Role::Setting,
            Attention::Rotary(_) if i > 0 => Role::Setting,
            _ => Role::Data,
        }
    }
}

fn cases() -> Vec<Case> {
    let f = sample::floats;
    let int = Attr::Int;
    let bools = |dims: &[usize]| {
        let n: usize = dims.iter().product();
        Tensor::from_bools((0..n).map(|i| i % 3 != 0), dims).expect("as many as the dims say")
    };
    let case = |attrs: &[(&str, Attr)], inputs: Vec<Option<Tensor>>, outputs| {
        Case::with_optional("Attention", attrs, inputs, outputs)
    };
    let four = || vec![Some(f(&[2, 4, 3, 5], 1)), Some(f(&[2, 2, 6, 5], 2)), Some(f(&[2, 2, 6, 7], 3))];
    let three = || vec![Some(f(&[2, 3, 20], 1)), Some(f(&[2, 6, 10], 2)), Some(f(&[2, 6, 14], 3))];
    let with = |mut v: Vec<Option<Tensor>>, more: Vec<Option<Tensor>>| {
        v.extend(more);
        v
    };
    let heads = [("q_num_heads", int(4)), ("kv_num_heads", int(2))];
    let past = || vec![Some(f(&[2, 2, 4, 5], 4)), Some(f(&[2, 2, 4, 7], 5))];
    let mode = |m: i64| ("qk_matmul_output_mode", int(m));
    let (causal, cap) = (("is_causal", int(1)), ("softcap", Attr::Float(2.0)));
    let rotate = |attrs: &[(&str, Attr)], inputs: Vec<Tensor>| Case::new("RotaryEmbedding", attrs, inputs);
    let positions = || sample::ints(&[0, 2, 1, 4, 3, 0]).reshaped(&[2, 3]).expect("six values");
    vec![
        case(&[], four(), 1),
        case(&heads, three(), 1),
        case(&[causal.clone(), cap.clone(), mode(1)], four(), 4),
        case(
            &[&heads[..], &[causal.clone(), mode(2)]].concat(),
            with(with(three(), vec![Some(f(&[3, 10], 6))]), past()),
            4,
        ),
        case(&[mode(3), ("scale", Attr::Float(0.7))], with(four(), vec![Some(bools(&[2, 1, 3, 6]))]), 4),
        case(
            &[causal.clone(), ("left_window_size", int(1))],
            with(four(), vec![None, None, None, Some(sample::ints(&[6, 2]))]),
            1,
        ),
        case(&[cap], with(four(), vec![Some(f(&[1, 4, 3, 4], 6))]), 1).opset(24),
        case(&[], vec![Some(f(&[0, 4, 3, 5], 1)), Some(f(&[0, 2, 6, 5], 2)), Some(f(&[0, 2, 6, 7], 3))], 1),
        rotate(&[], vec![f(&[2, 4, 3, 6], 1), f(&[5, 3], 2), f(&[5, 3], 3), positions()]),
        rotate(
            &[("num_heads", int(2)), ("interleaved", int(1))],
            vec![f(&[2, 3, 12], 1), f(&[2, 3, 3], 2), f(&[2, 3, 3], 3)],
        ),
        rotate(&[("rotary_embedding_dim", int(4))], vec![f(&[2, 4, 3, 6], 1), f(&[2, 3, 2], 2), f(&[2, 3, 2], 3)]),
        rotate(&[], vec![f(&[2, 3, 12], 1), sample::ints(&[1]), f(&[5, 3], 2), f(&[5, 3], 3)]).domain("com.microsoft"),
    ]
}
