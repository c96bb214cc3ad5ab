//! Transformers: ViT, BERT, GPT-2 and Llama from the same attention.
//!
//! Matrix products of sequences are MatMul with the weight as `[in, out]` and a separate Add, as exporters write them.

use super::super::net::{Act, Conv, Net, Value};
use super::super::row::Row;
use super::super::seed::Fill;
use crate::error::{Error, Result};
use crate::ops::spec::Attr;
use crate::tensor::{DType, Tensor};

/// A fully connected layer over the last dim.
pub fn dense(net: &mut Net, x: &Value, path: &str, out: usize, bias: bool) -> Result<Value> {
    let features = x.features();
    let weight = net.weight(&format!("{path}.weight"), &[features, out], Fill::scaled(1.0, features))?;
    let mut dims = x.dims.clone();
    if let Some(last) = dims.last_mut() {
        *last = out;
    }
    let y = net.node(path, "MatMul", &[&x.name, &weight], &[], &dims);
    if !bias {
        return Ok(y);
    }
    let bias = net.weight(&format!("{path}.bias"), &[out], Fill::Within(0.02))?;
    Ok(net.node(path, "Add", &[&bias, &y.name], &[], &dims))
}

/// Layer normalisation over the last dim.
pub fn layer_norm(net: &mut Net, x: &Value, path: &str, epsilon: f32) -> Result<Value> {
    let features = [x.features()];
    let scale = net.weight(&format!("{path}.weight"), &features, Fill::Around(1.0, 0.1))?;
    let shift = net.weight(&format!("{path}.bias"), &features, Fill::Within(0.1))?;
    let attrs = [("axis", Attr::Int(-1)), ("epsilon", Attr::Float(epsilon))];
    Ok(net.node(path, "LayerNormalization", &[&x.name, &scale, &shift], &attrs, &x.dims))
}

/// Root-mean-square normalisation over the last dim, spelt out.
fn rms_norm(net: &mut Net, x: &Value, path: &str, epsilon: f32) -> Result<Value> {
    let mut mean_dims = x.dims.clone();
    if let Some(last) = mean_dims.last_mut() {
        *last = 1;
    }
    let (two, epsilon, axes) = (net.scalar(2.0)?, net.scalar(epsilon)?, net.ints(&[-1])?);
    let weight = net.weight(&format!("{path}.weight"), &[x.features()], Fill::Around(1.0, 0.1))?;
    let y = net.node(path, "Pow", &[&x.name, &two], &[], &x.dims);
    let y = net.node(path, "ReduceMean", &[&y.name, &axes], &[("keepdims", Attr::Int(1))], &mean_dims);
    let y = net.node(path, "Add", &[&y.name, &epsilon], &[], &mean_dims);
    let y = net.node(path, "Sqrt", &[&y.name], &[], &mean_dims);
    let y = net.node(path, "Reciprocal", &[&y.name], &[], &mean_dims);
    let y = net.mul(x, &y, path);
    Ok(net.node(path, "Mul", &[&weight, &y.name], &[], &x.dims))
}

/// Rows of a learned table.
fn embedding(net: &mut Net, ids: &str, ids_dims: &[usize], path: &str, table: [usize; 2]) -> Result<Value> {
    let weight = net.weight(&format!("{path}.weight"), &table, Fill::Within(0.1))?;
    let dims: Vec<usize> = ids_dims.iter().copied().chain([table[1]]).collect();
    Ok(net.node(path, "Gather", &[&weight, ids], &[("axis", Attr::Int(0))], &dims))
}

/// The integers `from..from + n` with the given shape.
fn positions(net: &mut Net, name: &str, from: usize, dims: &[usize]) -> Result<String> {
    let n: usize = dims.iter().product();
    net.constant(name, || Tensor::from_vec((from..from + n).map(|v| v as i64).collect(), dims))
}

/// Sizes of an attention: heads of queries and of keys, and the width of one.
#[derive(Debug, Clone, Copy)]
struct Heads {
    queries: usize,
    keys: usize,
    width: usize,
}

impl Heads {
    fn of(row: &Row) -> Result<Heads> {
        let (hidden, queries) = (row.size("hidden")?, row.size("heads")?.max(1));
        Ok(Heads { queries, keys: row.size_or("kv_heads", queries)?.max(1), width: hidden / queries })
    }

    /// `[N, S, heads * width]` to `[N, heads, S, width]`.
    fn apart(self, net: &mut Net, x: &Value, heads: usize, path: &str) -> Result<Value> {
        let y = net.reshape(x, &[x.dims[0], x.dims[1], heads, self.width], path)?;
        Ok(net.transpose(&y, &[0, 2, 1, 3], path))
    }
}

/// Scaled dot-product attention of `[N, heads, S, width]` queries over `[N, kv heads, T, width]` keys and values, given back as
/// `[N, S, heads * width]`. `mask` names a boolean `[S, T]` of what may be seen.
fn attend(net: &mut Net, [q, k, v]: [&Value; 3], heads: Heads, mask: Option<&str>, path: &str) -> Result<Value> {
    let &[n, _, s, width] = &q.dims[..] else { return Err(Error::input(format!("{path}: queries are not 4-D"))) };
    let (mut k, mut v) = (k.clone(), v.clone());
    if heads.keys != heads.queries {
        k = repeat(net, &k, heads, path)?;
        v = repeat(net, &v, heads, path)?;
    }
    let t = k.dims[2];
    let k = net.transpose(&k, &[0, 1, 3, 2], path);
    let scores = [n, heads.queries, s, t];
    let root = net.scalar((width as f32).sqrt())?;
    let y = net.node(path, "MatMul", &[&q.name, &k.name], &[], &scores);
    let mut y = net.node(path, "Div", &[&y.name, &root], &[], &scores);
    if let Some(mask) = mask {
        let never = net.constant("lowest", || Ok(Tensor::scalar(f32::MIN)))?;
        y = net.node(path, "Where", &[mask, &y.name, &never], &[], &scores);
    }
    let y = net.node(path, "Softmax", &[&y.name], &[("axis", Attr::Int(-1))], &scores);
    let y = net.node(path, "MatMul", &[&y.name, &v.name], &[], &[n, heads.queries, s, width]);
    let y = net.transpose(&y, &[0, 2, 1, 3], path);
    net.reshape(&y, &[n, s, heads.queries * width], path)
}

/// Keys or values shared by several queries, written out for each.
fn repeat(net: &mut Net, x: &Value, heads: Heads, path: &str) -> Result<Value> {
    let &[n, keys, t, width] = &x.dims[..] else { return Err(Error::input(format!("{path}: keys are not 4-D"))) };
    let each = heads.queries / heads.keys;
    if each * heads.keys != heads.queries {
        return Err(Error::input(format!("{path}: {} heads do not share {} keys", heads.queries, heads.keys)));
    }
    let axis = net.ints(&[2])?;
    let shape = net.ints(&[n, keys, each, t, width].map(|d| d as i64))?;
    let y = net.node(path, "Unsqueeze", &[&x.name, &axis], &[], &[n, keys, 1, t, width]);
    let y = net.node(path, "Expand", &[&y.name, &shape], &[], &[n, keys, each, t, width]);
    net.reshape(&y, &[n, heads.queries, t, width], path)
}

/// What decoding sees: `past` earlier positions from a cache (`past_key_values.*`, given on as `present.*`), and of the `seq` new
/// ones only those before each.
#[derive(Debug, Clone, Copy)]
struct Causal {
    past: usize,
    seq: usize,
}

impl Causal {
    fn of(row: &Row, x: &Value) -> Result<Causal> {
        let causal = Causal { past: row.size_or("past", 0)?, seq: x.dims.get(1).copied().unwrap_or(1) };
        let longest = row.size("positions")?;
        if causal.past + causal.seq > longest {
            return Err(Error::usage(format!(
                "seq {} and past {} exceed the {longest} positions of this model",
                causal.seq, causal.past
            )));
        }
        Ok(causal)
    }

    /// The boolean `[S, T]` of what may be seen; a single position sees everything.
    fn mask(self, net: &mut Net) -> Result<Option<String>> {
        if self.seq == 1 {
            return Ok(None);
        }
        let total = self.past + self.seq;
        // Made once, by the first layer; later layers find it under its name.
        let seen = positions(net, "mask.keys", 0, &[1, total])?;
        let from = positions(net, "mask.queries", self.past, &[self.seq, 1])?;
        Ok(Some(net.once("mask", "LessOrEqual", &[&seen, &from], &[self.seq, total]).name))
    }

    /// Keys or values with the cached ones before them.
    fn extend(self, net: &mut Net, new: &Value, layer: usize, what: &str, path: &str) -> Result<Value> {
        if self.past == 0 {
            return Ok(new.clone());
        }
        let &[n, heads, _, width] = &new.dims[..] else { return Err(Error::input(format!("{path}: not 4-D"))) };
        let cached = net.input(&format!("past_key_values.{layer}.{what}"), DType::F32, &[n, heads, self.past, width]);
        let all = net.concat(&[&cached, new], 2, path)?;
        Ok(net.output(&all, &format!("present.{layer}.{what}")))
    }
}

/// Two dense layers with an activation between.
fn perceptron(net: &mut Net, x: &Value, [up, down]: [&str; 2], inner: usize, act: Act) -> Result<Value> {
    let width = x.features();
    let y = dense(net, x, up, inner, true)?;
    let y = net.act(&y, up, act)?;
    dense(net, &y, down, width, true)
}

// --- ViT -------------------------------------------------------------------------------------------------------------

/// Patches by convolution, a class token in front, learned positions.
pub fn vit_embeddings(net: &mut Net, row: &Row, x: &Value) -> Result<Value> {
    let (patch, hidden) = (row.size("patch")?, row.size("hidden")?);
    let y = net.conv(x, "conv_proj", hidden, Conv::of(patch).stride(patch).pad(0).bias(true).linear())?;
    let (n, patches) = (y.dims[0], y.dims[2] * y.dims[3]);
    let y = net.reshape(&y, &[n, hidden, patches], "conv_proj")?;
    let y = net.transpose(&y, &[0, 2, 1], "conv_proj");
    let token = net.weight("class_token", &[1, 1, hidden], Fill::Within(0.5))?;
    let shape = net.ints(&[n as i64, 1, 1])?;
    let token = net.node("class_token", "Expand", &[&token, &shape], &[], &[n, 1, hidden]);
    let y = net.concat(&[&token, &y], 1, "encoder")?;
    let table = net.weight("encoder.pos_embedding", &[1, patches + 1, hidden], Fill::Within(0.1))?;
    Ok(net.node("encoder", "Add", &[&y.name, &table], &[], &y.dims))
}

/// A pre-norm encoder layer with one projection for queries, keys and values.
pub fn vit_layer(net: &mut Net, row: &Row, x: &Value) -> Result<Value> {
    let (heads, hidden, at) = (Heads::of(row)?, x.features(), |part: &str| row.at(part));
    let y = layer_norm(net, x, &at("ln_1"), 1e-6)?;
    let path = at("self_attention");
    let y = dense(net, &y, &format!("{path}.in_proj"), 3 * hidden, true)?;
    let parts = net.split(&y, &[hidden; 3], 2, &path)?;
    let [q, k, v] = [0, 1, 2].map(|i| heads.apart(net, &parts[i], heads.queries, &path));
    let y = attend(net, [&q?, &k?, &v?], heads, None, &path)?;
    let y = dense(net, &y, &format!("{path}.out_proj"), hidden, true)?;
    let x = net.add(&y, x, &row.path)?;
    let y = layer_norm(net, &x, &at("ln_2"), 1e-6)?;
    let y = perceptron(net, &y, [&at("mlp.0"), &at("mlp.3")], row.size("inner")?, Act::Gelu)?;
    net.add(&x, &y, &row.path)
}

/// Normalisation, the first token, fully connected.
pub fn vit_head(net: &mut Net, row: &Row, x: &Value) -> Result<Value> {
    let y = layer_norm(net, x, "encoder.ln", 1e-6)?;
    let y = token(net, &y, "encoder")?;
    net.linear(&y, &row.path, row.size("classes")?)
}

/// The first token of a sequence.
fn token(net: &mut Net, x: &Value, path: &str) -> Result<Value> {
    let first = net.constant("first", || Ok(Tensor::scalar(0i64)))?;
    Ok(net.node(path, "Gather", &[&x.name, &first], &[("axis", Attr::Int(1))], &[x.dims[0], x.features()]))
}

// --- BERT ------------------------------------------------------------------------------------------------------------

/// Words, positions and segments, summed and normalised.
pub fn bert_embeddings(net: &mut Net, row: &Row, x: &Value) -> Result<Value> {
    let (hidden, at) = (row.size("hidden")?, |part: &str| row.at(part));
    let seq = x.dims.get(1).copied().unwrap_or(1);
    let types = net.input("token_type_ids", DType::I64, &x.dims);
    let words = embedding(net, &x.name, &x.dims, &at("word_embeddings"), [row.size("vocabulary")?, hidden])?;
    let kinds = embedding(net, &types.name, &x.dims, &at("token_type_embeddings"), [2, hidden])?;
    let y = net.add(&words, &kinds, &row.path)?;
    let ids = positions(net, &at("position_ids"), 0, &[1, seq])?;
    let table = [row.size("positions")?, hidden];
    let places = embedding(net, &ids, &[1, seq], &at("position_embeddings"), table)?;
    let y = net.node(&row.path, "Add", &[&y.name, &places.name], &[], &y.dims);
    layer_norm(net, &y, &at("LayerNorm"), 1e-12)
}

/// A post-norm encoder layer.
pub fn bert_layer(net: &mut Net, row: &Row, x: &Value) -> Result<Value> {
    let (heads, hidden, at) = (Heads::of(row)?, x.features(), |part: &str| row.at(part));
    let path = at("attention.self");
    let [q, k, v] = ["query", "key", "value"].map(|part| {
        let y = dense(net, x, &format!("{path}.{part}"), hidden, true)?;
        heads.apart(net, &y, heads.queries, &path)
    });
    let y = attend(net, [&q?, &k?, &v?], heads, None, &path)?;
    let y = dense(net, &y, &at("attention.output.dense"), hidden, true)?;
    let y = net.add(&y, x, &at("attention.output"))?;
    let x = layer_norm(net, &y, &at("attention.output.LayerNorm"), 1e-12)?;
    let paths = [&*at("intermediate.dense"), &*at("output.dense")];
    let y = perceptron(net, &x, paths, row.size("inner")?, Act::Gelu)?;
    let y = net.add(&y, &x, &at("output"))?;
    layer_norm(net, &y, &at("output.LayerNorm"), 1e-12)
}

/// The first token through a dense layer and tanh; the sequence itself is an output too.
pub fn bert_pooler(net: &mut Net, row: &Row, x: &Value) -> Result<Value> {
    let x = net.output(x, "last_hidden_state");
    let y = token(net, &x, &row.path)?;
    let y = net.linear(&y, &row.at("dense"), x.features())?;
    net.act(&y, &row.at("activation"), Act::Tanh)
}

// --- GPT-2 -----------------------------------------------------------------------------------------------------------

/// Words and positions, summed.
pub fn gpt_embeddings(net: &mut Net, row: &Row, x: &Value) -> Result<Value> {
    let (hidden, causal) = (row.size("hidden")?, Causal::of(row, x)?);
    let words = embedding(net, &x.name, &x.dims, &row.at("wte"), [row.size("vocabulary")?, hidden])?;
    let ids = positions(net, &row.at("position_ids"), causal.past, &[1, causal.seq])?;
    let places = embedding(net, &ids, &[1, causal.seq], &row.at("wpe"), [row.size("positions")?, hidden])?;
    Ok(net.node(&row.path, "Add", &[&words.name, &places.name], &[], &words.dims))
}

/// A pre-norm decoder layer with one projection for queries, keys and values.
pub fn gpt_layer(net: &mut Net, row: &Row, x: &Value) -> Result<Value> {
    let (heads, hidden, causal, at) = (Heads::of(row)?, x.features(), Causal::of(row, x)?, |part: &str| row.at(part));
    let path = at("attn");
    let y = layer_norm(net, x, &at("ln_1"), 1e-5)?;
    let y = dense(net, &y, &format!("{path}.c_attn"), 3 * hidden, true)?;
    let parts = net.split(&y, &[hidden; 3], 2, &path)?;
    let [q, k, v] = [0, 1, 2].map(|i| heads.apart(net, &parts[i], heads.queries, &path));
    let k = causal.extend(net, &k?, row.index, "key", &path)?;
    let v = causal.extend(net, &v?, row.index, "value", &path)?;
    let mask = causal.mask(net)?;
    let y = attend(net, [&q?, &k, &v], heads, mask.as_deref(), &path)?;
    let y = dense(net, &y, &format!("{path}.c_proj"), hidden, true)?;
    let x = net.add(&y, x, &row.path)?;
    let y = layer_norm(net, &x, &at("ln_2"), 1e-5)?;
    let y = perceptron(net, &y, [&at("mlp.c_fc"), &at("mlp.c_proj")], row.size("inner")?, Act::GeluTanh)?;
    net.add(&x, &y, &row.path)
}

/// Normalisation and the logits, by the embedding table itself.
pub fn gpt_head(net: &mut Net, row: &Row, x: &Value) -> Result<Value> {
    let y = layer_norm(net, x, "transformer.ln_f", 1e-5)?;
    let (vocabulary, hidden, dims) = (row.size("vocabulary")?, y.features(), y.dims.clone());
    let table = net.weight("transformer.wte.weight", &[vocabulary, hidden], Fill::Within(0.1))?;
    let rows = dims[0] * dims[1];
    let shape = net.ints(&[-1, hidden as i64])?;
    let y = net.node(&row.path, "Reshape", &[&y.name, &shape], &[], &[rows, hidden]);
    let y = net.node(&row.path, "Gemm", &[&y.name, &table], &[("transB", Attr::Int(1))], &[rows, vocabulary]);
    let shape = net.ints(&[-1, dims[1] as i64, vocabulary as i64])?;
    Ok(net.node(&row.path, "Reshape", &[&y.name, &shape], &[], &[dims[0], dims[1], vocabulary]))
}

// --- Llama -----------------------------------------------------------------------------------------------------------

/// Words.
pub fn llama_embeddings(net: &mut Net, row: &Row, x: &Value) -> Result<Value> {
    Causal::of(row, x)?;
    embedding(net, &x.name, &x.dims, &row.path, [row.size("vocabulary")?, row.size("hidden")?])
}

/// The cosines and sines of the rotary positions, computed in the graph from positions and frequencies, once for all layers.
fn rotary(net: &mut Net, row: &Row, causal: Causal, width: usize) -> Result<[Value; 2]> {
    let (base, half, seq) = (row.number("rope_base")?, width / 2, causal.seq);
    let path = "model.rotary_emb";
    let ids = positions(net, "model.rotary_emb.position_ids", causal.past, &[seq, 1])?;
    let frequencies = net.constant("model.rotary_emb.inv_freq", || {
        let values = (0..half).map(|i| base.powf(-(i as f64) / half as f64) as f32).collect();
        Tensor::from_vec(values, &[1, half])
    })?;
    let places = net.once_with(path, "Cast", &[&ids], &[("to", Attr::Int(1))], &[seq, 1]);
    let angles = net.once(path, "Mul", &[&places.name, &frequencies], &[seq, half]);
    let both = net.once_with(path, "Concat", &[&angles.name, &angles.name], &[("axis", Attr::Int(1))], &[seq, width]);
    let cos = net.once(path, "Cos", &[&both.name], &[seq, width]);
    let sin = net.once(path, "Sin", &[&both.name], &[seq, width]);
    Ok([cos, sin])
}

/// Queries or keys turned by their positions.
fn turn(net: &mut Net, x: &Value, [cos, sin]: &[Value; 2], path: &str) -> Result<Value> {
    let width = x.features();
    let (low, high) = (net.slice(x, 0, width / 2, 3, path)?, net.slice(x, width / 2, width, 3, path)?);
    let high = net.node(path, "Neg", &[&high.name], &[], &high.dims);
    let turned = net.concat(&[&high, &low], 3, path)?;
    let (a, b) = (net.mul(x, cos, path), net.mul(&turned, sin, path));
    net.add(&a, &b, path)
}

/// A pre-norm decoder layer: rotary attention with shared keys, gated perceptron, no biases.
pub fn llama_layer(net: &mut Net, row: &Row, x: &Value) -> Result<Value> {
    let (heads, hidden, causal, at) = (Heads::of(row)?, x.features(), Causal::of(row, x)?, |part: &str| row.at(part));
    let angles = rotary(net, row, causal, heads.width)?;
    let path = at("self_attn");
    let y = rms_norm(net, x, &at("input_layernorm"), 1e-5)?;
    let [q, k, v] = [("q_proj", heads.queries), ("k_proj", heads.keys), ("v_proj", heads.keys)].map(|(part, n)| {
        let y = dense(net, &y, &format!("{path}.{part}"), n * heads.width, false)?;
        heads.apart(net, &y, n, &path)
    });
    let q = turn(net, &q?, &angles, &path)?;
    let k = turn(net, &k?, &angles, &path)?;
    let k = causal.extend(net, &k, row.index, "key", &path)?;
    let v = causal.extend(net, &v?, row.index, "value", &path)?;
    let mask = causal.mask(net)?;
    let y = attend(net, [&q, &k, &v], heads, mask.as_deref(), &path)?;
    let y = dense(net, &y, &format!("{path}.o_proj"), hidden, false)?;
    let x = net.add(x, &y, &row.path)?;
    let y = rms_norm(net, &x, &at("post_attention_layernorm"), 1e-5)?;
    let inner = row.size("inner")?;
    let gate = dense(net, &y, &at("mlp.gate_proj"), inner, false)?;
    let gate = net.act(&gate, &at("mlp.act_fn"), Act::Silu)?;
    let up = dense(net, &y, &at("mlp.up_proj"), inner, false)?;
    let y = net.mul(&gate, &up, &at("mlp"));
    let y = dense(net, &y, &at("mlp.down_proj"), hidden, false)?;
    net.add(&x, &y, &row.path)
}

/// Normalisation and the logits.
pub fn llama_head(net: &mut Net, row: &Row, x: &Value) -> Result<Value> {
    let y = rms_norm(net, x, "model.norm", 1e-5)?;
    dense(net, &y, &row.path, row.size("vocabulary")?, false)
}
