//! ptflops: `get_model_complexity_info(model, …)`, with two back ends.
//! <https://github.com/sovrasov/flops-counter.pytorch/blob/master/ptflops/pytorch_ops.py>,
//! <https://github.com/sovrasov/flops-counter.pytorch/blob/master/ptflops/aten_ops.py>.
//!
//! The default hooks modules by their exact class *and* patches functions: a module that calls a patched function counts twice. What the
//! hooks find is divided by the first dim of the first input, what the patches find is not. The `@` operator, F.linear and fused attention
//! are not patched.

use super::calls::{Act, Call, Conv, Module, MultiHead, Norm, Pool, Recurrent, Spelling, What};
use super::{Books, Subject, Tool, volume};

pub const TOOL: Tool = Tool { name: "ptflops", version: "0.7.5", figure: "MACs", count };
pub const ATEN: Tool = Tool { name: "ptflops-aten", version: "0.7.5", figure: "MACs", count: count_aten };

fn count(s: &Subject, books: &mut Books) {
    if !s.is_torch(books) {
        return;
    }
    s.classes(books);
    s.lost_bias(books);
    let mut hooks = 0;
    for call in &s.program.calls {
        hooks += one(s, call, books);
    }
    let batch = s.program.batch.max(1) as i128;
    if batch > 1 {
        // The sum is a float that is made an integer at the end.
        let functions = books.figure(s.analysis.totals.work.madds) - hooks;
        let figure = (functions * batch + hooks).div_euclid(batch);
        books.add(
            "modules are divided by the first dim of the input, functions are not",
            1,
            figure - functions - hooks,
        );
    }
}

fn bias(call: &Call, c: &Conv) -> i128 {
    if c.bias { call.made() } else { 0 }
}

/// Per evaluation and direction: products, biases, gate arithmetic.
fn cell(r: &Recurrent) -> i128 {
    let (g, h) = (r.gates * r.hidden, r.hidden);
    let gates = match r.gates {
        4 => 10 * h,
        3 => 7 * h,
        _ => h,
    };
    g * r.input + g * h + gates + if r.bias { 2 * g } else { 0 }
}

/// The hook of nn.MultiheadAttention: projections and products, and besides them scaling, softmax and biases.
fn multi_head(m: &MultiHead) -> i128 {
    let (q, k, e) = (m.queries, m.keys, m.embed);
    let bias = if m.bias { (q + 2 * k) * e } else { 0 };
    let heads = m.heads.max(1);
    m.batch * (q * e + q * e * e + 2 * k * e * e + bias + heads * (2 * q * k * (e / heads) + q * k) + q * e * (e + 1))
}

/// Writes the lines of a call and returns what hooks (rather than patches) counted for it.
fn one(s: &Subject, call: &Call, books: &mut Books) -> i128 {
    let n = call.nodes.len();
    let function = !call.in_nn();
    if call.in_timm_attention {
        return timm(call, books);
    }
    let mut instead = |theirs: i128, why: &'static str| books.add(why, n, theirs - call.madds);
    match &call.what {
        What::Conv(_) if function => {
            instead(0, "convolutions of other classes than nn.Conv have no hook");
            0
        }
        What::Conv(c) => {
            books.add("bias of convolutions: 1 per output element", n, bias(call, c));
            call.madds + bias(call, c)
        }
        What::Linear { .. } if !call.is_nn("Linear") => {
            instead(0, "F.linear is not patched");
            0
        }
        What::Linear { bias, .. } => {
            let bias = if *bias { call.made() } else { 0 };
            books.add("bias of linear layers: 1 per output element", n, bias);
            call.madds + bias
        }
        What::MultiHead(m) => {
            let theirs = multi_head(m);
            instead(theirs, "nn.MultiheadAttention: scaling, softmax and biases beside its products");
            if !m.fused || s.gradients {
                // The hook and the patches both see it.
                for c in &m.inner {
                    let mut again = Books::default();
                    let products = one(s, c, &mut again);
                    let patched = again.figure(0) + c.madds - products;
                    books.add("functions inside nn.MultiheadAttention, counted once more", c.nodes.len(), patched);
                }
            }
            theirs
        }
        What::Recurrent(r) => {
            let theirs = r.evaluations * r.directions * cell(r);
            instead(theirs, "recurrent layers: biases and gate arithmetic counted per element");
            theirs
        }
        What::Norm { norm, affine, .. } if !function && *norm != Norm::Rms => {
            let (per, why) = match norm {
                Norm::Batch(true) => (2, "BatchNorm folded into convolutions at export: 2 per element"),
                Norm::Layer => (1, "LayerNorm: 1 per element"),
                _ if *affine => (2, "BatchNorm, GroupNorm, InstanceNorm: 2 per element"),
                _ => (1, "normalisation without scale: 1 per element"),
            };
            books.add(why, n, per * call.read());
            per * call.read()
        }
        _ => functions(call, books),
    }
}

/// The hook of timm's Attention stands for the module and all it contains: products, scaling and softmax, but no projections. Functions
/// it calls count besides.
fn timm(call: &Call, books: &mut Books) -> i128 {
    let n = call.nodes.len();
    let why = "timm's Attention: its hook hides the projections inside and counts products, scaling and softmax";
    let &[batch, heads, tokens, width] = call.output.as_slice() else {
        books.add(why, n, -call.madds);
        return 0;
    };
    let (b, h, t, w) = (batch as i128, heads as i128, tokens as i128, width as i128);
    let hook = b * (t * w * h + h * (2 * t * t * w + t * t));
    match &call.what {
        What::Attention => {
            books.add(why, n, hook - call.madds);
            hook
        }
        // Attention spelt out: of its two products the one that makes the result stands for the hook.
        What::Product { spelling, lhs, .. } => {
            let patched = if matches!(spelling, Spelling::At | Spelling::Einsum) { 0 } else { call.madds };
            let result = lhs.last() == Some(&tokens);
            let hook = if result { hook } else { 0 };
            books.add(why, n, hook + patched - call.madds);
            hook
        }
        What::Softmax { patched: true, .. } => functions(call, books),
        _ => {
            books.add(why, n, -call.madds);
            0
        }
    }
}

/// Activations, pools, softmax, interpolation and products of activations.
fn functions(call: &Call, books: &mut Books) -> i128 {
    let mut instead = |theirs: i128, why: &'static str| books.add(why, call.nodes.len(), theirs - call.madds);
    let nn = call.in_nn();
    match &call.what {
        What::Product { spelling: Spelling::At | Spelling::Einsum, .. } => {
            instead(0, "the @ operator and einsum are not patched")
        }
        What::Product { lhs, rhs, .. } => {
            let n = rhs.last().map_or(1, |&d| d as i128);
            instead(volume(lhs) * n, "matmul counts the batch of its first operand only");
        }
        What::Attention => instead(0, "scaled_dot_product_attention is not patched"),
        What::Mul { patched: true } | What::Add => {
            books.add("torch.mul, torch.add: 1 per output element", 1, call.made());
        }
        What::Addmm { n, .. } => books.add("addmm: its bias vector once", 1, *n),
        What::Act(_) if call.kept_function => {}
        What::Act(act) => {
            let hooked =
                nn && matches!(act, Act::Relu | Act::Relu6 | Act::PRelu | Act::Elu | Act::LeakyRelu | Act::Gelu);
            // nn.ReLU6 calls F.hardtanh, which is not patched.
            let relu6 = *act == Act::Relu6 && call.module == Module::Function;
            let patched = relu6 || matches!(act, Act::Relu | Act::PRelu | Act::Elu | Act::Gelu | Act::Silu);
            let why = match (hooked, patched) {
                (true, true) => "activation modules that call a patched function (ReLU, GELU …): 2 per element",
                (true, false) => "activation modules (ReLU6, LeakyReLU): 1 per element",
                (false, true) => "activation functions (SiLU, F.relu …): 1 per element",
                (false, false) => return 0,
            };
            books.add(why, 1, (i128::from(hooked) + i128::from(patched)) * call.read());
            return if hooked { call.read() } else { 0 };
        }
        What::Softmax { log: false, patched: true, .. } => books.add("softmax: 1 per element", 1, call.read()),
        What::Pool(Pool::Mean) => {}
        What::Pool(_) => {
            let why =
                if nn { "pooling modules: 2 per input element" } else { "pooling functions: 1 per input element" };
            books.add(why, 1, (1 + i128::from(nn)) * call.read());
            return if nn { call.read() } else { 0 };
        }
        What::Upsample { .. } => {
            let sample = if nn { call.made() / call.rows().max(1) } else { 0 };
            books.add("interpolation: 1 per output element (2 as a module)", 1, call.made() + sample);
            return sample;
        }
        _ => {}
    }
    0
}

fn count_aten(s: &Subject, books: &mut Books) {
    if s.is_torch(books) {
        s.lost_bias(books);
        for call in &s.program.calls {
            aten(s, call, books);
        }
    }
}

fn aten(s: &Subject, call: &Call, books: &mut Books) {
    let n = call.nodes.len();
    let mut instead = |theirs: i128, why: &'static str| books.add(why, n, theirs - call.madds);
    if call.in_fused_layer && !s.gradients {
        return instead(0, "nn.TransformerEncoderLayer runs as one kernel in evaluation, which is not counted");
    }
    match &call.what {
        What::Conv(c) => books.add("bias of convolutions: 1 per output element", n, bias(call, c)),
        What::Linear { bias: true, contiguous, .. } if *contiguous || call.input.len() == 2 => {
            books.add("bias of linear layers: 1 per output element", n, call.made());
        }
        What::Addmm { .. } => {
            books.add("bias of linear layers: 1 per output element", n, call.made());
        }
        What::Product { spelling: Spelling::Baddbmm, .. } => instead(0, "baddbmm is not counted"),
        What::Attention => instead(0, "scaled_dot_product_attention runs as one kernel, which is not counted"),
        What::MultiHead(m) if m.fused && !s.gradients => {
            instead(0, "nn.MultiheadAttention runs as one kernel in evaluation, which is not counted");
        }
        What::MultiHead(m) => m.inner.iter().for_each(|c| aten(s, c, books)),
        What::Recurrent(r) if r.gates == 4 => {
            instead(0, "LSTM runs as one oneDNN kernel on a CPU, which is not counted")
        }
        What::Recurrent(r) if r.bias => {
            let vectors = if r.contiguous { 2 } else { 1 };
            let amount = r.evaluations * r.directions * vectors * r.gates * r.hidden;
            books.add("bias of recurrent layers: 1 per gate and step", n, amount);
        }
        _ => {}
    }
}
