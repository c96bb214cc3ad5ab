//! Attention as ONNX Runtime fuses it: Attention, MultiHeadAttention, DecoderMaskedMultiHeadAttention, GroupQueryAttention.
//!
//! <https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md>. Attention is a [`Recipe`] of the projection it
//! holds (MatMul, Add) and what follows it.
//!
//! MAdds: `B · Hq · L · S · (d + dv)`, S the past keys included and masked positions in full, as for ai.onnx Attention, so that a
//! network costs the same fused or not; `useful_madds` leaves out what causality alone masks. Other FLOPs per score: 1 for the
//! scale, 3 for a softcap, 1 for an attention bias, 5 for the softmax (a sink is one more score per row); masks select and are
//! free. A bias is 1 per element it is added to; rotation 3 per rotated element of Q and K.
//!
//! Masked keys get `mask_filter_value` added, not −∞, as in ONNX Runtime; causality and windows close a key altogether.

use super::fused::given;
use super::recipe::Recipe;
use super::spec::{Attr, NodeSpec};
use super::{Case, Charge, CostCx, Entry, EvalCx, Family, Infer, Inputs, Op, Opaque, Role, input, sample};
use crate::cost::{Work, product};
use crate::error::{Error, Result};
use crate::tensor::{Fact, Shape, Tensor};
use crate::with_num;

mod run;

const fn contrib(name: &'static str, parse: fn(&NodeSpec) -> Result<Op>) -> Entry {
    Entry { domain: "com.microsoft", name, parse, cases }
}

/// The family's table rows.
pub const ENTRIES: &[Entry] = &[
    contrib("Attention", parse_attention),
    contrib("DecoderMaskedMultiHeadAttention", parse_decoder),
    contrib("GroupQueryAttention", parse_grouped),
    contrib("MultiHeadAttention", parse_multi_head),
];

/// How an operator is given its operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One tensor `[b, l, q + k + v]`; then mask, past (both in one), attention bias.
    Projected {
        /// Widths of Q, K and V, if they are not equal.
        widths: Option<[usize; 3]>,
    },
    /// MultiHeadAttention: query, key, value (apart or packed), bias, mask, attention bias, past key, past value.
    Separate,
    /// GroupQueryAttention: query, key, value (apart or packed), past key, past value, lengths − 1, longest length, cosines, sines,
    /// positions, attention bias, sink.
    Grouped {
        /// Q and K are rotated.
        rotary: bool,
        /// Pairs are neighbours, not halves apart.
        interleaved: bool,
    },
}

/// Attention over heads.
#[derive(Debug, Clone)]
pub struct Heads {
    /// Where the operands are.
    pub form: Form,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// A query sees no later keys.
    pub causal: bool,
    /// Factor of the scores; `1/√d` if not given.
    pub scale: Option<f32>,
    /// What masked scores get added.
    pub filter: f32,
    /// Bound of the scores: `cap · tanh(score / cap)`.
    pub softcap: Option<f32>,
    /// How many keys up to its own a query sees.
    pub window: Option<usize>,
    /// One more score per row, 0 or a head's own, takes part in the softmax and is dropped.
    pub sink: bool,
}

/// Kept by name, the cost unknown.
fn opaque(node: &NodeSpec) -> Op {
    Op::Opaque(Opaque::of(node))
}

fn heads(node: &NodeSpec, name: &str) -> Result<usize> {
    // The bound keeps products with sizes of tensors within a word.
    let n = node.opt_size(name)?.filter(|&n| n > 0 && n < 1 << 20);
    n.ok_or_else(|| Error::input("must be positive, and no absurd number").at_attribute(name))
}

impl Heads {
    fn parse(node: &NodeSpec, form: Form) -> Result<Heads> {
        let n = heads(node, "num_heads")?;
        Ok(Heads {
            form,
            heads: n,
            kv_heads: n,
            causal: node.flag("unidirectional", false)?,
            scale: node.opt_float("scale")?.filter(|&s| s != 0.0),
            filter: node.float("mask_filter_value", -10_000.0)?,
            softcap: None,
            window: None,
            sink: false,
        })
    }

    /// The attention that follows a projection.
    pub(super) fn projected(node: &NodeSpec) -> Result<Heads> {
        let widths = match node.opt_sizes("qkv_hidden_sizes")? {
            None => None,
            Some(w) => Some(
                <[usize; 3]>::try_from(w)
                    .map_err(|_| Error::input("must have three values").at_attribute("qkv_hidden_sizes"))?,
            ),
        };
        Heads::parse(node, Form::Projected { widths })
    }
}

fn parse_attention(node: &NodeSpec) -> Result<Op> {
    node.expect_inputs(2, 7)?;
    if node.flag("do_rotary", false)? || node.flag("past_present_share_buffer", false)? || node.has_input(6) {
        return Ok(opaque(node));
    }
    let mut r = Recipe::new();
    let mut x = r.node("MatMul", &[], &[given(node, 0), given(node, 1)])?;
    if let Some(bias) = given(node, 2) {
        x = r.node("Add", &[], &[Some(x), Some(bias)])?;
    }
    let operands = vec![Some(x), given(node, 3), given(node, 4), given(node, 5)];
    let y = r.op(Op::Heads(Heads::projected(node)?), operands, node.outputs.len());
    let present = Recipe::also(&y, 1);
    Ok(Op::Fused(r.give(vec![y, present]).with_role(1, Role::Weight).with_role(2, Role::Weight)))
}

fn parse_multi_head(node: &NodeSpec) -> Result<Op> {
    if !node.has_input(0) || node.inputs.len() > 10 {
        node.expect_inputs(1, 10)?;
    }
    if (8..node.inputs.len()).any(|i| node.has_input(i)) || node.outputs.len() > 3 {
        return Ok(opaque(node)); // shared buffers, beams
    }
    Ok(Op::Heads(Heads::parse(node, Form::Separate)?))
}

/// The same with its operands in other places.
fn parse_decoder(node: &NodeSpec) -> Result<Op> {
    node.expect_inputs(1, 11)?;
    if (7..10).any(|i| node.has_input(i)) || node.outputs.len() > 3 || node.flag("past_present_share_buffer", false)? {
        return Ok(opaque(node));
    }
    let mut r = Recipe::new();
    let operands = [0, 1, 2, 10, 3, 4, 5, 6].map(|i| given(node, i)).to_vec();
    let y = r.op(Op::Heads(Heads::parse(node, Form::Separate)?), operands, node.outputs.len());
    let results = (0..3).map(|i| Recipe::also(&y, i)).collect();
    Ok(Op::Fused(r.give(results)))
}

fn parse_grouped(node: &NodeSpec) -> Result<Op> {
    for i in [0, 5, 6] {
        if !node.has_input(i) {
            return Err(Error::input(format!("input {i} is missing")));
        }
    }
    let quantized = ["k_quant_type", "v_quant_type"].iter().any(|n| node.str(n, "NONE").is_ok_and(|t| t != "NONE"));
    let extra = node.int("qk_output", 0)? != 0 || (12..node.inputs.len()).any(|i| node.has_input(i));
    if quantized || extra || node.outputs.len() > 3 {
        return Ok(opaque(node));
    }
    let form = Form::Grouped { rotary: node.flag("do_rotary", false)?, interleaved: node.flag("rotary_interleaved", false)? };
    let base = Heads::parse(node, form)?;
    let window = usize::try_from(node.int("local_window_size", -1)?).ok();
    let kv_heads = heads(node, "kv_num_heads")?;
    if !base.heads.is_multiple_of(kv_heads) {
        return Err(Error::input("must divide num_heads").at_attribute("kv_num_heads"));
    }
    let softcap = node.opt_float("softcap")?.filter(|&c| c > 0.0);
    let sink = node.flag("smooth_softmax", false)? || node.has_input(11);
    Ok(Op::Heads(Heads { kv_heads, causal: true, softcap, window, sink, ..base }))
}

/// Sizes of an attention.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    b: usize,
    l: usize,
    /// New keys.
    new: usize,
    past: usize,
    /// All keys of the present outputs.
    keys: usize,
    d: usize,
    dv: usize,
}

/// Where the inputs other than Q, K and V are; `NONE` for what a form does not have.
struct Places {
    bias: usize,
    mask: usize,
    past: [usize; 2],
    added: usize,
}

const NONE: usize = usize::MAX;

impl Heads {
    fn places(&self) -> Places {
        match self.form {
            Form::Projected { .. } => Places { bias: NONE, mask: 1, past: [2, 2], added: 3 },
            Form::Separate => Places { bias: 3, mask: 4, past: [6, 7], added: 5 },
            Form::Grouped { .. } => Places { bias: NONE, mask: NONE, past: [3, 4], added: 10 },
        }
    }

    /// Widths of Q, K and V in a packed row of `n`.
    fn widths(&self, n: usize) -> Result<[usize; 3]> {
        let split = match self.form {
            Form::Projected { widths: Some(w) } => w,
            Form::Projected { widths: None } | Form::Separate => [n / 3; 3],
            Form::Grouped { .. } => {
                let d = n / self.heads.saturating_add(self.kv_heads.saturating_mul(2)).max(1);
                [self.heads * d, self.kv_heads * d, self.kv_heads * d]
            }
        };
        let total = split.iter().try_fold(0usize, |a, &w| a.checked_add(w));
        if total != Some(n) {
            return Err(Error::input(format!("{n} values do not divide into Q, K and V of {} heads", self.heads)));
        }
        Ok(split)
    }

    /// Sizes for the inputs' dims and, if it is known, the longest sequence of a GroupQueryAttention.
    fn sizes(&self, dims: &dyn Fn(usize) -> Option<Vec<usize>>, longest: Option<usize>) -> Result<Sizes> {
        let q = dims(0).ok_or_else(|| Error::input("input 0 is missing"))?;
        let wrong = || {
            let all: Vec<String> = (0..3).filter_map(dims).map(|d| Shape::known(&d).to_string()).collect();
            Error::input(format!("operands {} do not fit {} and {} heads", all.join(", "), self.heads, self.kv_heads))
        };
        let per = |width: usize, heads: usize| if width.is_multiple_of(heads) { Ok(width / heads) } else { Err(wrong()) };
        let separate = !matches!(self.form, Form::Projected { .. });
        let (k, v) = (dims(1).filter(|_| separate), dims(2).filter(|_| separate));
        let (b, l, d, new, dv, kd) = match (q.as_slice(), k.as_deref(), v.as_deref()) {
            (&[b, l, n], None, None) => {
                let [wq, wk, wv] = self.widths(n)?;
                (b, l, per(wq, self.heads)?, l, per(wv, self.kv_heads)?, per(wk, self.kv_heads)?)
            }
            (&[b, l, h, 3, d], None, None) if h == self.heads => (b, l, d, l, d, d),
            (&[b, l, n], Some(&[kb, s, h, 2, kd]), None) if kb == b && h == self.heads => {
                (b, l, per(n, self.heads)?, s, kd, kd)
            }
            (&[b, l, n], Some(&[kb, s, wk]), Some(&[vb, vs, wv])) if (kb, vb, vs) == (b, b, s) => {
                (b, l, per(n, self.heads)?, s, per(wv, self.kv_heads)?, per(wk, self.kv_heads)?)
            }
            (&[b, l, n], Some(&[kb, kh, s, kd]), Some(&[vb, vh, vs, dv]))
                if (kb, vb, vs, kh, vh) == (b, b, s, self.kv_heads, self.kv_heads) =>
            {
                (b, l, per(n, self.heads)?, s, dv, kd)
            }
            _ => return Err(wrong()),
        };
        if kd != d {
            return Err(wrong());
        }
        let past = match (self.form, dims(self.places().past[0])) {
            (_, None) => 0,
            (Form::Projected { .. }, Some(p)) => match p[..] {
                [2, pb, ph, n, pd] if (pb, ph, pd) == (b, self.heads, d) => n,
                _ => return Err(Error::input(format!("a past of shape {}", Shape::known(&p)))),
            },
            (_, Some(p)) => match p[..] {
                [pb, ph, n, pd] if (pb, ph, pd) == (b, self.kv_heads, d) => n,
                _ => return Err(Error::input(format!("a past key of shape {}", Shape::known(&p)))),
            },
        };
        let all = past.checked_add(new).ok_or_else(|| Error::input("too many keys"))?;
        // A past may be a buffer with room for more.
        let keys = if matches!(self.form, Form::Grouped { .. }) { longest.map_or(all, |n| n.max(past)) } else { all };
        Ok(Sizes { b, l, new, past, keys, d, dv })
    }

    /// The keys a query meets: those of a buffer's unused room are never looked at.
    fn met(&self, s: &Sizes, longest: Option<usize>) -> usize {
        longest.map_or(s.keys, |n| n.min(s.keys))
    }

    /// The longest sequence, when a GroupQueryAttention is told it by a constant.
    fn longest(&self, i: Option<&Tensor>) -> Option<usize> {
        if !matches!(self.form, Form::Grouped { .. }) {
            return None;
        }
        usize::try_from(*i?.to_i64s().ok()?.first()?).ok()
    }

    fn charge(&self, cx: &CostCx) -> Option<Work> {
        let at = |i: usize| cx.inputs.get(i).copied().flatten();
        let places = self.places();
        for i in [0, 1, 2, places.past[0]] {
            if let Some(x) = at(i) {
                x.fact.shape.concrete()?;
            }
        }
        let grouped = matches!(self.form, Form::Grouped { .. });
        let longest = self.longest(at(6).and_then(|x| x.value));
        if grouped && longest.is_none() {
            return None;
        }
        let s = self.sizes(&|i| at(i)?.fact.shape.concrete(), longest).ok()?;
        let keys = self.met(&s, longest);
        let rows = product([s.b, self.heads, s.l])?;
        let scores = rows.checked_mul(keys as u64)?;
        let per_score = (s.d as u64).checked_add(s.dv as u64)?;
        let mut other = 1 + if self.softcap.is_some() { 3 } else { 0 } + u64::from(cx.has(places.added)) + 5;
        other = scores.checked_mul(other)?;
        if self.sink {
            other = other.checked_add(rows.checked_mul(5)?)?;
        }
        if cx.has(places.bias) {
            let apart = at(1).is_some_and(|k| k.fact.shape.rank() == Some(4));
            for i in 0..if apart { 1 } else { 3 } {
                other = other.checked_add(if cx.has(i) { cx.elements(i)? } else { 0 })?;
            }
        }
        if let Form::Grouped { rotary: true, .. } = self.form {
            let rotated = cx.dims(7)?.get(1)?.checked_mul(2)?.min(s.d);
            let vectors = product([s.b, s.l, self.heads])?.checked_add(product([s.b, s.l, self.kv_heads])?)?;
            other = other.checked_add(vectors.checked_mul(rotated as u64)?.checked_mul(3)?)?;
        }
        let madds = scores.checked_mul(per_score)?;
        let useful = if self.causal {
            let (l, keys) = (s.l as u64, keys as u64);
            // Query i sees min(i + 1 + past, keys): a ramp, then a plateau.
            let past = if grouped { keys.saturating_sub(l) } else { s.past as u64 };
            let ramp = keys.saturating_sub(past).min(l);
            let seen = ramp.checked_mul(past)?.checked_add(ramp.checked_mul(ramp.checked_add(1)?)? / 2)?;
            let seen = seen.checked_add((l - ramp).checked_mul(keys)?)?;
            seen.checked_mul(product([s.b, self.heads])?)?.checked_mul(per_score)?
        } else {
            madds
        };
        Some(Work { madds, other_flops: other, useful_madds: useful })
    }
}

impl Family for Heads {
    fn infer(&self, cx: &Infer) -> Result<Vec<Fact>> {
        let q = cx.fact(0)?;
        let known = [0, 1, 2, self.places().past[0]]
            .into_iter()
            .all(|i| cx.opt(i).is_none_or(|x| x.fact.shape.concrete().is_some()));
        let longest = self.longest(cx.opt(6).and_then(|x| x.value));
        let rank = if matches!(self.form, Form::Projected { .. }) { 5 } else { 4 };
        let mut out = if known {
            let s = self.sizes(&|i| cx.opt(i)?.fact.shape.concrete(), longest)?;
            // Without the longest length, a past may or may not have room for what is new.
            let told = !matches!(self.form, Form::Grouped { .. }) || longest.is_some() || s.past == 0;
            let keys = told.then_some(s.keys);
            let width = self.heads.checked_mul(s.dv);
            let y = q.with_shape(Shape::partial(vec![Some(s.b), Some(s.l), width]));
            let present = |d: usize| vec![Some(s.b), Some(self.kv_heads), keys, Some(d)];
            let both = [vec![Some(2)], present(s.d)].concat();
            if rank == 5 {
                vec![y, q.with_shape(Shape::partial(both))]
            } else {
                vec![y, q.with_shape(Shape::partial(present(s.d))), q.with_shape(Shape::partial(present(s.dv)))]
            }
        } else {
            let present = || q.with_shape(Shape::of_rank(rank));
            vec![q.with_shape(Shape::of_rank(3)), present(), present()]
        };
        out.truncate(cx.outputs.max(1));
        Ok(out)
    }

    fn charge(&self, cx: &CostCx) -> Charge {
        Charge::of(self.charge(cx))
    }

    fn eval(&self, cx: &EvalCx, inputs: &Inputs) -> Result<Vec<Tensor>> {
        with_num!(cx.arith, input(inputs, 0)?.dtype(), T => self.run::<T>(cx, inputs))
    }

    fn role(&self, i: usize) -> Role {
        let p = self.places();
        match self.form {
            _ if i == p.bias => Role::Weight,
            _ if i == p.mask => Role::Setting,
            Form::Grouped { .. } if i == 11 => Role::Weight,
            Form::Grouped { .. } if (5..10).contains(&i) => Role::Setting,
            _ => Role::Data,
        }
    }
}

fn cases() -> Vec<Case> {
    let f = sample::floats;
    let int = Attr::Int;
    let i32s = |v: &[i32], dims: &[usize]| Tensor::from_vec(v.to_vec(), dims).ok();
    let case = |name: &str, attrs: &[(&str, Attr)], inputs: Vec<Option<Tensor>>, outputs| {
        Case::with_optional(name, attrs, inputs, outputs).domain("com.microsoft").opset(1)
    };
    let with = |mut v: Vec<Option<Tensor>>, more: Vec<Option<Tensor>>| {
        v.extend(more);
        v
    };
    let two = ("num_heads", int(2));
    let causal = &[("unidirectional", int(1))][..];
    let x = || vec![Some(f(&[2, 3, 4], 1)), Some(f(&[4, 24], 2)), Some(f(&[24], 3))];
    let attention = |attrs: &[(&str, Attr)], inputs, outputs| {
        case("Attention", &[std::slice::from_ref(&two), attrs].concat(), inputs, outputs)
    };
    let mha = |attrs: &[(&str, Attr)], inputs, outputs| {
        case("MultiHeadAttention", &[std::slice::from_ref(&two), attrs].concat(), inputs, outputs)
    };
    let qkv = || vec![Some(f(&[2, 3, 8], 1)), Some(f(&[2, 5, 8], 2)), Some(f(&[2, 5, 6], 3))];
    let gqa = |attrs: &[(&str, Attr)], inputs, outputs| {
        let heads = [("num_heads", int(4)), ("kv_num_heads", int(2))];
        case("GroupQueryAttention", &[&heads[..], attrs].concat(), inputs, outputs)
    };
    let new = || vec![Some(f(&[2, 3, 16], 1)), Some(f(&[2, 3, 8], 2)), Some(f(&[2, 3, 8], 3))];
    let past = |n: usize| vec![Some(f(&[2, 2, n, 4], 4)), Some(f(&[2, 2, n, 4], 5))];
    let lengths = |v: &[i32], longest: i32| vec![i32s(v, &[v.len()]), i32s(&[longest], &[1])];
    let caches = || vec![Some(f(&[9, 2], 6)), Some(f(&[9, 2], 7))];
    let widths = [("qkv_hidden_sizes", Attr::Ints(vec![8, 8, 4]))];
    vec![
        attention(&[], x()[..2].to_vec(), 1),
        attention(causal, with(x(), vec![i32s(&[2, 3], &[2])]), 1),
        attention(&[], with(x(), vec![i32s(&[2, 3, 0, 1], &[4])]), 1),
        attention(&[], with(x(), vec![i32s(&[1, 1, 0, 1, 0, 1], &[2, 3]), None, Some(f(&[1, 2, 3, 3], 5))]), 1),
        attention(causal, with(x(), vec![i32s(&[1; 30], &[2, 3, 5]), Some(f(&[2, 2, 2, 2, 4], 5))]), 2),
        attention(&[], with(x(), vec![i32s(&[1; 32], &[2, 1, 4, 4])]), 2),
        attention(&widths, vec![Some(f(&[2, 3, 4], 1)), Some(f(&[4, 20], 2)), Some(f(&[20], 3))], 1),
        mha(&[], qkv(), 1),
        mha(causal, with(qkv(), vec![Some(f(&[22], 4)), None, Some(f(&[1, 2, 3, 5], 5))]), 3),
        mha(&[], with(qkv(), vec![None, None, None, Some(f(&[2, 2, 2, 4], 6)), Some(f(&[2, 2, 2, 3], 7))]), 3),
        mha(&[], with(qkv(), vec![None, i32s(&[1, 1, 0, 1, 0, 1, 1, 1, 1, 0], &[2, 5])]), 1),
        mha(&[], vec![Some(f(&[2, 3, 2, 3, 4], 1)), None, None, Some(f(&[24], 4))], 1),
        mha(&[("scale", Attr::Float(0.5))], vec![Some(f(&[2, 3, 8], 1)), Some(f(&[2, 5, 2, 2, 4], 2))], 1),
        mha(&[], vec![Some(f(&[2, 3, 8], 1)), Some(f(&[2, 2, 5, 4], 2)), Some(f(&[2, 2, 5, 4], 3)), Some(f(&[24], 4))], 1),
        case(
            "DecoderMaskedMultiHeadAttention",
            std::slice::from_ref(&two),
            vec![Some(f(&[2, 1, 8], 1)), Some(f(&[2, 1, 8], 2)), Some(f(&[2, 1, 8], 3)), None, None, Some(f(&[2, 2, 2, 4], 6)), Some(f(&[2, 2, 2, 4], 7))],
            3,
        ),
        gqa(&[], with(new(), with(vec![None, None], lengths(&[2, 1], 3))), 3),
        gqa(&[], with(new(), with(past(4), lengths(&[6, 6], 7))), 3),
        gqa(&[("local_window_size", int(2)), ("softcap", Attr::Float(2.0))], with(new(), with(past(9), lengths(&[6, 5], 7))), 3),
        gqa(
            &[("do_rotary", int(1))],
            with(vec![Some(f(&[2, 3, 32], 1)), None, None], with(past(4), with(lengths(&[6, 6], 7), caches()))),
            3,
        ),
        gqa(
            &[("do_rotary", int(1)), ("rotary_interleaved", int(1)), ("smooth_softmax", int(1))],
            with(new(), with(vec![None, None], with(lengths(&[2, 2], 3), caches()))),
            1,
        ),
    ]
}
