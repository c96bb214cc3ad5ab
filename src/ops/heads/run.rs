//! The reference kernel of attention over heads.

use super::super::attention::{appended, swap_middle};
use super::super::matmul::broadcast_offsets;
use super::super::softmax::softmax;
use super::super::spec::NodeSpec;
use super::super::{EvalCx, Inputs, NEWEST_OPSET, Op, input, opt};
use super::{Form, Heads, Sizes};
use crate::error::{Error, Result};
use crate::tensor::{Num, Shape, Tensor, element_count};

impl Heads {
    /// Q, K and V as `[b, heads, sequence, head size]`, biases added.
    fn operands<T: Num>(&self, inputs: &Inputs, s: &Sizes) -> Result<[Vec<T>; 3]> {
        let q = input(inputs, 0)?;
        let bias = opt(inputs, self.places().bias).map(T::load).transpose()?;
        let (h, g) = (self.heads, self.kv_heads);
        let sizes = [(h, s.l, s.d), (g, s.new, s.d), (g, s.new, s.dv)];
        let offsets = [0, h * s.d, h * s.d + g * s.d];
        if bias.as_ref().is_some_and(|b| b.len() != h * s.d + g * (s.d + s.dv)) {
            return Err(Error::run("the bias does not fit the hidden sizes"));
        }
        // Rows of `[b, sequence, heads · size]` with what is added to each, to `[b, heads, sequence, size]`.
        let finish = |which: usize, mut x: Vec<T>| {
            let (h, n, d) = sizes[which];
            if let Some(b) = &bias
                && h * d > 0
            {
                let b = &b[offsets[which]..][..h * d];
                x.chunks_exact_mut(h * d).for_each(|row| row.iter_mut().zip(b).for_each(|(v, &b)| *v = *v + b));
            }
            swap_middle(&x, s.b, n, h, d)
        };
        // Columns `from..from + n` of each row of `width`.
        let columns = |x: &[T], width: usize, from: usize, n: usize| -> Vec<T> {
            x.chunks_exact(width.max(1)).flat_map(|row| row[from..from + n].iter().copied()).collect()
        };
        let separate = !matches!(self.form, Form::Projected { .. });
        let (k, v) = (opt(inputs, 1).filter(|_| separate), opt(inputs, 2).filter(|_| separate));
        Ok(match (k, v) {
            (Some(k), Some(v)) if k.rank() == 4 => [finish(0, T::load(q)?), T::load(k)?, T::load(v)?],
            (Some(k), Some(v)) => [finish(0, T::load(q)?), finish(1, T::load(k)?), finish(2, T::load(v)?)],
            (Some(k), None) => {
                // [b, s, heads, 2, size]
                let kv = T::load(k)?;
                let part = |i: usize| columns(&kv, 2 * s.d, i * s.d, s.d);
                [finish(0, T::load(q)?), finish(1, part(0)), finish(2, part(1))]
            }
            _ if q.rank() == 5 => {
                let all = T::load(q)?;
                let part = |i: usize| columns(&all, 3 * s.d, i * s.d, s.d);
                [finish(0, part(0)), finish(1, part(1)), finish(2, part(2))]
            }
            _ => {
                let all = T::load(q)?;
                let n = q.dims().last().copied().unwrap_or(0);
                let [wq, wk, wv] = self.widths(n)?;
                [finish(0, columns(&all, n, 0, wq)), finish(1, columns(&all, n, wq, wk)), finish(2, columns(&all, n, wq + wk, wv))]
            }
        })
    }

    /// What is added to score (batch, query, key) by the mask, free of charge.
    fn mask(&self, t: Option<&Tensor>, s: &Sizes) -> Result<Option<Vec<f64>>> {
        let Some(t) = t else { return Ok(None) };
        let m = t.to_i64s()?;
        let (b, l, keys) = (s.b, s.l, s.keys);
        let mut added = vec![0.0; element_count(&[b, l, keys])?];
        let filter = f64::from(self.filter);
        let end = |v: i64| usize::try_from(v).unwrap_or(0).min(keys);
        let unfit = || Error::run(format!("a mask of shape {}", Shape::known(t.dims())));
        for (at, added) in added.iter_mut().enumerate() {
            let (j, i, n) = (at % keys, at / keys % l, at / keys / l);
            let open = match *t.dims() {
                [size] if size == b => j < end(m[n]),
                [size] if size == 2 * b => j < end(m[n]) && j >= end(m[b + n]),
                [size] if size == 3 * b + 2 => j < end(m[n]),
                [mb, mk] if (mb, mk) == (b, keys) => m[n * keys + j] > 0,
                [mb, ml, mk] if (mb, ml, mk) == (b, l, keys) => m[(n * l + i) * keys + j] > 0,
                [mb, 1, side, other] if mb == b && side == other && side >= keys => {
                    m[(n * side + s.past + i) * side + j] > 0
                }
                _ => return Err(unfit()),
            };
            if !open {
                *added = filter;
            }
        }
        Ok(Some(added))
    }

    pub(super) fn run<T: Num>(&self, cx: &EvalCx, inputs: &Inputs) -> Result<Vec<Tensor>> {
        let longest = self.longest(opt(inputs, 6));
        let s = self.sizes(&|i| opt(inputs, i).map(|t| t.dims().to_vec()), longest)?;
        let (h, g) = (self.heads, self.kv_heads);
        let met = self.met(&s, longest);
        for n in [[s.b, h, s.l, met], [s.b, h, s.l, s.dv], [s.b, g, s.keys, s.d.max(s.dv)]] {
            element_count(&n)?;
        }
        let [mut q, mut k_new, v_new] = self.operands::<T>(inputs, &s)?;
        let places = self.places();
        // Where the new keys of each sequence go, and how many it has then.
        let lengths: Vec<usize> = match (self.form, opt(inputs, 5)) {
            (Form::Grouped { .. }, Some(t)) => {
                let v = t.to_i64s()?;
                if v.len() != s.b || v.iter().any(|&v| v < 0 || v as usize >= s.keys.max(1)) {
                    return Err(Error::run("seqlens_k does not fit the batch and the keys"));
                }
                v.into_iter().map(|v| v as usize + 1).collect()
            }
            _ => vec![s.past + s.new; s.b],
        };
        let prompt = matches!(self.form, Form::Grouped { .. }) && longest.is_none_or(|n| n == s.l);
        let before = |n: usize| if prompt { 0 } else { lengths[n].saturating_sub(s.new) };
        if let Form::Grouped { rotary: true, interleaved } = self.form {
            let positions = opt(inputs, 9).map(Tensor::to_i64s).transpose()?;
            let at = |n: usize, t: usize| match &positions {
                Some(p) => p.get(n * s.l + t).map_or(usize::MAX, |&p| usize::try_from(p).unwrap_or(usize::MAX)),
                None => before(n) + t,
            };
            let (cos, sin) = (input(inputs, 7)?, input(inputs, 8)?);
            rotate(&mut q, (s.b, h, s.l, s.d), cos, sin, interleaved, &at)?;
            rotate(&mut k_new, (s.b, g, s.l, s.d), cos, sin, interleaved, &at)?;
        }
        let (k, v) = match self.form {
            Form::Projected { .. } => {
                let past = opt(inputs, places.past[0]).map(halves).transpose()?;
                let (pk, pv) = past.as_ref().map_or((None, None), |(k, v)| (Some(k), Some(v)));
                (appended(pk, k_new, s.b * g, s.past, s.new, s.d)?, appended(pv, v_new, s.b * g, s.past, s.new, s.dv)?)
            }
            Form::Separate => {
                let [pk, pv] = places.past.map(|i| opt(inputs, i));
                (appended(pk, k_new, s.b * g, s.past, s.new, s.d)?, appended(pv, v_new, s.b * g, s.past, s.new, s.dv)?)
            }
            Form::Grouped { .. } => {
                let [pk, pv] = places.past.map(|i| opt(inputs, i));
                let put = |past: Option<&Tensor>, new: &[T], d: usize| -> Result<Vec<T>> {
                    let mut all = vec![T::zero(); s.b * g * s.keys * d];
                    let past = past.map(T::load).transpose()?;
                    for block in 0..s.b * g {
                        let (from, n) = (before(block / g), s.past);
                        let all = &mut all[block * s.keys * d..][..s.keys * d];
                        if let Some(p) = &past {
                            let kept = from.min(n); // what lies behind is unused room
                            all[..kept * d].copy_from_slice(&p[block * n * d..][..kept * d]);
                        }
                        let fit = s.new.min(s.keys.saturating_sub(from));
                        all[from * d..][..fit * d].copy_from_slice(&new[block * s.new * d..][..fit * d]);
                    }
                    Ok(all)
                };
                (put(pk, &k_new, s.d)?, put(pv, &v_new, s.dv)?)
            }
        };
        let mask = self.mask(opt(inputs, places.mask), &s)?;
        let added = opt(inputs, places.added).map(|t| -> Result<_> {
            let to = [s.b, h, s.l, met];
            let fits = t.rank() == 4 && t.dims().iter().zip(&to).all(|(t, d)| t == d || *t == 1);
            if !fits {
                return Err(Error::run(format!("an attention bias of shape {}", Shape::known(t.dims()))));
            }
            Ok((T::load(t)?, broadcast_offsets(t.dims(), &to)))
        });
        let added = added.transpose()?;
        let sinks = opt(inputs, 11).filter(|_| self.sink).map(T::load).transpose()?;
        let scale = T::of(self.scale.map_or(1.0 / (s.d as f64).sqrt(), f64::from));
        let lowest = T::of(f64::NEG_INFINITY);
        let mut y = vec![T::zero(); s.b * h * s.l * s.dv];
        let mut row = vec![T::zero(); met + usize::from(self.sink)];
        for block in 0..s.b * h * s.l {
            let (i, head, n) = (block % s.l, block / s.l % h, block / s.l / h);
            let kv = n * g + head / (h / g);
            let query = &q[block * s.d..][..s.d];
            let own = if matches!(self.form, Form::Grouped { .. }) { before(n) + i } else { s.past + i };
            for (j, score) in row[..met].iter_mut().enumerate() {
                let key = &k[(kv * s.keys + j) * s.d..][..s.d];
                *score = query.iter().zip(key).fold(T::zero(), |sum, (&q, &k)| sum.madd(q, k)) * scale;
                if let Some(cap) = self.softcap {
                    let cap = T::of(cap.into());
                    *score = (*score / cap).tanh() * cap;
                }
                if let Some((values, at)) = &added {
                    *score = *score + values[at[block * met + j]];
                }
                if let Some(mask) = &mask {
                    *score = T::of(score.get() + mask[(n * s.l + i) * s.keys + j]);
                }
                let near = j <= own && j < lengths[n] && self.window.is_none_or(|w| own < j + w);
                let open = !self.causal || near;
                if !open {
                    *score = lowest;
                }
            }
            if self.sink {
                row[met] = sinks.as_ref().and_then(|s| s.get(head).copied()).unwrap_or_else(T::zero);
            }
            let any = row[..met].iter().any(|v| *v != lowest);
            softmax(&mut row);
            if !any {
                row.fill(T::zero()); // a query that sees nothing gives zeros, not NaN
            }
            let out = &mut y[block * s.dv..][..s.dv];
            for (j, &p) in row[..met].iter().enumerate() {
                let value = &v[(kv * s.keys + j) * s.dv..][..s.dv];
                for (o, &v) in out.iter_mut().zip(value) {
                    *o = o.madd(p, v);
                }
            }
        }
        let mut out = vec![T::store(swap_middle(&y, s.b, h, s.l, s.dv), &[s.b, s.l, h * s.dv])?];
        match self.form {
            Form::Projected { .. } if cx.outputs > 1 => {
                out.push(T::store([k, v].concat(), &[2, s.b, g, s.keys, s.d])?);
            }
            _ if cx.outputs > 1 => {
                out.push(T::store(k, &[s.b, g, s.keys, s.d])?);
                out.push(T::store(v, &[s.b, g, s.keys, s.dv])?);
            }
            _ => {}
        }
        Ok(out)
    }
}

/// Past keys and past values of a tensor that holds both.
fn halves(t: &Tensor) -> Result<(Tensor, Tensor)> {
    let ids = |i: i64| Tensor::from_vec(vec![i], &[]);
    let cx = EvalCx { outputs: 1, ..EvalCx::default() };
    let take = |i: i64| -> Result<Tensor> {
        let gather = NodeSpec {
            op_type: "Gather".into(),
            inputs: vec!["x".into(), "i".into()],
            outputs: vec!["y".into()],
            opset: NEWEST_OPSET,
            ..NodeSpec::default()
        };
        let made = Op::parse(&gather)?.eval(&cx, &[Some(t), Some(&ids(i)?)])?;
        made.into_iter().next().ok_or_else(|| Error::run("no past"))
    };
    Ok((take(0)?, take(1)?))
}

/// Rotates the vectors of `[b, heads, sequence, d]` by the angles of their positions.
fn rotate<T: Num>(
    x: &mut [T],
    (b, h, l, d): (usize, usize, usize, usize),
    cos: &Tensor,
    sin: &Tensor,
    interleaved: bool,
    at: &dyn Fn(usize, usize) -> usize,
) -> Result<()> {
    let half = cos.dims().last().copied().unwrap_or(0);
    let (cos, sin) = (T::load(cos)?, T::load(sin)?);
    if 2 * half > d || sin.len() != cos.len() {
        return Err(Error::run("the caches do not fit the head size"));
    }
    for block in 0..b * h * l {
        let row = at(block / l / h, block % l);
        let end = row.checked_add(1).and_then(|r| r.checked_mul(half));
        if end.is_none_or(|e| e > cos.len()) {
            return Err(Error::run("a position outside the caches"));
        }
        let v = &mut x[block * d..][..d];
        for i in 0..half {
            let (first, second) = if interleaved { (2 * i, 2 * i + 1) } else { (i, half + i) };
            let (c, s) = (cos[row * half + i], sin[row * half + i]);
            let (u, w) = (v[first], v[second]);
            v[first] = c * u - s * w;
            v[second] = s * u + c * w;
        }
    }
    Ok(())
}
