//! thop (pytorch-OpCounter): `profile(model, inputs)`, forward hooks chosen by a module's exact class.
//! <https://github.com/Lyken17/pytorch-OpCounter/blob/master/thop/profile.py>. What is no module, or a module of another class, counts
//! nothing.

use super::calls::{Call, Module, Norm, Pool, Recurrent, Upsample, What};
use super::{Books, Subject, Tool, volume};

pub const TOOL: Tool = Tool { name: "thop", version: "0.1.1.post2209072238", figure: "MACs", count };

/// Per evaluation and direction: products, sums, biases and gate arithmetic.
pub fn cell(r: &Recurrent) -> i128 {
    let bias = if r.bias { 2 * r.hidden } else { 0 };
    let gate = (r.input + r.hidden) * r.hidden + r.hidden + bias;
    let rest = if r.gates == 1 { 0 } else { 4 * r.hidden };
    r.gates * gate + rest
}

fn count(s: &Subject, books: &mut Books) {
    if s.is_torch(books) {
        s.classes(books);
        for call in &s.program.calls {
            one(call, books);
        }
    }
}

fn one(call: &Call, books: &mut Books) {
    let mut instead = |theirs: i128, why: &'static str| books.add(why, call.nodes.len(), theirs - call.madds);
    let class = match &call.module {
        Module::Nn(class) => class.as_str(),
        _ => "",
    };
    match &call.what {
        What::Conv(_) if class.is_empty() => instead(0, "convolutions of other classes than nn.Conv have no rule"),
        What::Conv(c) if c.transposed => {
            let channels = c.ci / c.groups.max(1);
            instead(
                call.made() * channels * volume(&c.kernel),
                "transposed convolution counted by output volume instead of input",
            );
        }
        What::Linear { .. } if class != "Linear" => {
            instead(0, "products called as functions (F.linear) or by other classes than nn.Linear have no rule");
        }
        What::Addmm { .. } => instead(0, "addmm (transformers' Conv1D) has no rule"),
        What::Product { .. } => instead(0, "matmul, bmm and einsum are no modules: not seen"),
        What::Attention => instead(0, "scaled_dot_product_attention is no module: not seen"),
        What::MultiHead(_) => instead(0, "nn.MultiheadAttention has no rule"),
        What::Recurrent(r) => instead(
            r.evaluations * r.directions * cell(r),
            "recurrent layers: biases, sums and gate arithmetic counted per element",
        ),
        What::Norm { norm, affine, .. } => {
            let per = if *affine { 4 } else { 2 };
            let why = match norm {
                Norm::Batch(true) if call.in_nn() => "BatchNorm folded into convolutions at export: 4 per element",
                Norm::Batch(false) if call.is_nn("BatchNorm") || call.is_nn("SyncBatchNorm") => {
                    if *affine {
                        "BatchNorm: 4 per element"
                    } else {
                        "BatchNorm without scale: 2 per element"
                    }
                }
                Norm::Layer | Norm::Instance if call.is_nn("LayerNorm") || call.is_nn("InstanceNorm") => {
                    if *affine {
                        "LayerNorm, InstanceNorm: 4 per element"
                    } else {
                        "LayerNorm, InstanceNorm without scale: 2 per element"
                    }
                }
                _ => return,
            };
            books.add(why, call.nodes.len(), per * call.read());
        }
        What::Act(super::calls::Act::PRelu) if class == "PReLU" => books.add("PReLU: 1 per element", 1, call.read()),
        What::Softmax { row, log: false, .. } if class == "Softmax" && *row > 0 => {
            books.add("nn.Softmax: 3 per element less 1 per row", 1, call.read() / row * (3 * row - 1));
        }
        What::Pool(Pool::Average(_)) if call.is_nn("AvgPool") => {
            books.add("average pooling: 1 per output element", 1, call.made());
        }
        What::Pool(Pool::AdaptiveAverage) if call.is_nn("AdaptiveAvgPool") => {
            let spatial = |dims: &[usize]| volume(dims.get(2..).unwrap_or(&[]));
            let window = call.made() * spatial(&call.input) / spatial(&call.output).max(1);
            books.add("adaptive average pooling: 1 per input and per output element", 1, window + call.made());
        }
        What::Upsample { mode, .. } if call.module != Module::Function => {
            let spatial = call.input.len().saturating_sub(2);
            let per = match mode {
                Upsample::Nearest => 1,
                Upsample::Linear if spatial == 1 => 5,
                Upsample::Linear if spatial == 2 => 11,
                Upsample::Cubic => 259,
                Upsample::Linear => return,
            };
            books.add(
                "nn.Upsample: 1 (nearest), 11 (bilinear) or 259 (bicubic) per output element",
                1,
                per * call.made(),
            );
        }
        _ => {}
    }
}
