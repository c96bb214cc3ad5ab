//! calflops: `calculate_flops(model, args)` gives FLOPs and MACs; torch.nn.functional and a few tensor functions are patched.
//! <https://github.com/MrYxJ/calculate-flops.pytorch/blob/main/calflops/pytorch_ops.py>. The `@` operator, bmm, fused attention and
//! einsum (in MACs) are not patched; recurrent layers have FLOPs but no MACs.

use super::calls::{Act, Call, Conv, Norm, Pool, Recurrent, Spelling, What};
use super::{Books, Subject, Tool, volume};

pub const MACS: Tool = Tool { name: "calflops", version: "0.3.2", figure: "MACs", count: macs };
pub const FLOPS: Tool = Tool { name: "calflops", version: "0.3.2", figure: "FLOPs", count: flops };

fn macs(s: &Subject, books: &mut Books) {
    if s.is_torch(books) {
        for call in &s.program.calls {
            products(s, call, books);
        }
    }
}

fn flops(s: &Subject, books: &mut Books) {
    if !s.is_torch(books) {
        return;
    }
    for call in &s.program.calls {
        products(s, call, books);
    }
    let seen = books.figure(s.analysis.totals.work.madds);
    let nodes = s.program.calls.iter().filter(|c| c.madds > 0).map(|c| c.nodes.len()).sum();
    books.add("a multiply-add is two FLOPs", nodes, seen);
    s.lost_bias(books);
    for call in &s.program.calls {
        others(s, call, books);
    }
}

/// Multiply-adds of a transposed convolution by calflops' formula: divided by the groups once too often.
fn transposed(call: &Call, c: &Conv) -> i128 {
    let groups = c.groups.max(1);
    let positions = call.input.first().map_or(1, |&n| n as i128) * volume(call.input.get(2..).unwrap_or(&[]));
    volume(&c.kernel) * c.ci * (c.co / groups / groups) * positions
}

fn products(s: &Subject, call: &Call, books: &mut Books) {
    let mut instead = |theirs: i128, why: &'static str| books.add(why, call.nodes.len(), theirs - call.madds);
    match &call.what {
        What::Conv(c) if c.transposed => {
            instead(transposed(call, c), "transposed convolution divided by its groups once too often");
        }
        What::Product { spelling: Spelling::Matmul | Spelling::Baddbmm, lhs, rhs } => {
            let n = rhs.last().map_or(1, |&d| d as i128);
            instead(volume(lhs) * n, "matmul counts the batch of its first operand only");
        }
        What::Product { spelling, .. } => instead(
            0,
            match spelling {
                Spelling::At => "products written with @ are not patched",
                Spelling::Einsum => "einsum has no MACs",
                _ => "mm and bmm are not patched",
            },
        ),
        What::Attention => instead(0, "scaled_dot_product_attention is not patched"),
        What::MultiHead(m) if m.fused && !s.gradients => {
            instead(0, "nn.MultiheadAttention runs as one kernel in evaluation");
        }
        What::MultiHead(m) => m.inner.iter().for_each(|c| products(s, c, books)),
        What::Recurrent(_) => instead(0, "recurrent layers have no MACs"),
        _ => {}
    }
}

/// A recurrent layer's own FLOPs.
fn recurrent(r: &Recurrent) -> i128 {
    let (g, h) = (r.gates * r.hidden, r.hidden);
    let gates = match r.gates {
        4 => 10 * h,
        3 => 7 * h,
        _ => h,
    };
    let bias = if r.bias { 2 * g } else { 0 };
    r.evaluations * r.directions * (2 * g * r.input - g + 2 * g * h - g + gates + bias)
}

/// The output size calflops computes for a transposed convolution, by the rule of plain ones.
fn odd_positions(call: &Call, c: &Conv) -> i128 {
    let axes = call.input.get(2..).unwrap_or(&[]).iter().enumerate();
    let size = |(i, &x): (usize, &usize)| {
        let at = |v: &[usize], d: usize| v.get(i).copied().unwrap_or(d) as i128;
        (x as i128 + 2 * at(&c.pads, 0) - (at(&c.dilations, 1) * (at(&c.kernel, 1) - 1) + 1))
            .div_euclid(at(&c.strides, 1).max(1))
            + 1
    };
    axes.map(size).product()
}

fn others(s: &Subject, call: &Call, books: &mut Books) {
    let n = call.nodes.len();
    match &call.what {
        What::Conv(c) if c.bias && c.transposed => {
            let batch = call.input.first().map_or(1, |&n| n as i128);
            let amount = c.co / c.groups.max(1) * batch * odd_positions(call, c);
            books.add("bias of transposed convolutions, by an output size that is not theirs", n, amount);
        }
        What::Conv(c) if c.bias => books.add("bias of convolutions: 1 per output element", n, call.made()),
        What::Addmm { n: out, .. } => books.add("addmm: its bias vector once", n, *out),
        What::Product { spelling: Spelling::Einsum, .. } => {
            books.add("einsum has FLOPs though no MACs", n, super::four_digits(2 * call.madds));
        }
        What::MultiHead(m) if !m.fused || s.gradients => m.inner.iter().for_each(|c| others(s, c, books)),
        What::Recurrent(r) => books.add("recurrent layers have FLOPs though no MACs", n, recurrent(r)),
        What::Norm { norm, affine, .. } => {
            let (per, why) = match (norm, affine) {
                (Norm::Batch(true), _) => (2, "BatchNorm folded into convolutions at export: 2 per element"),
                (Norm::Batch(false), true) => (2, "BatchNorm: 2 per element"),
                (Norm::Batch(false), false) => (1, "BatchNorm without scale: 1 per element"),
                (Norm::Rms, _) => return,
                (_, true) => (5, "LayerNorm, GroupNorm, InstanceNorm: 5 per element"),
                (_, false) => (4, "LayerNorm, GroupNorm, InstanceNorm without scale: 4 per element"),
            };
            books.add(why, n, per * call.read());
        }
        What::Act(_) if call.kept_function => {}
        What::Act(Act::Relu | Act::PRelu | Act::Elu | Act::LeakyRelu | Act::Silu | Act::Gelu) => {
            books.add("ReLU, LeakyReLU, PReLU, ELU, SiLU, GELU: 1 per element", 1, call.read())
        }
        What::Softmax { log: false, patched: true, .. } => books.add("softmax: 1 per element", 1, call.read()),
        What::Pool(Pool::Mean) => {}
        What::Pool(_) => books.add("pooling: 1 per input element", 1, call.read()),
        What::Upsample { by_size: true, .. } => {
            let positions = volume(call.output.get(2..).unwrap_or(&[]));
            books.add("interpolation to a size: 1 per output position, whatever the channels", 1, positions);
        }
        What::Upsample { .. } => books.add("interpolation by a factor: 1 per input element", 1, call.read()),
        What::Mul { patched: true } | What::Add => {
            books.add("torch.mul, torch.add: 1 per output element", 1, call.made());
        }
        _ => {}
    }
}
