//! ultralytics-thop, the fork that lives: rules inherited along the class hierarchy, functional products seen.
//! <https://github.com/ultralytics/thop/blob/main/thop/profile.py>.

use super::calls::{Act, Call, Module, MultiHead, Norm, Pool, Spelling, Upsample, What, adaptive_windows};
use super::{Books, Subject, Tool};

pub const TOOL: Tool = Tool { name: "ultralytics-thop", version: "2.2.3", figure: "MACs", count };

fn count(s: &Subject, books: &mut Books) {
    if s.is_torch(books) {
        for call in &s.program.calls {
            one(call, books);
        }
    }
}

/// Softmax over `rows` rows of `n`.
fn softmax(rows: i128, n: i128) -> i128 {
    rows * (2 * n + (n - 1).max(0))
}

/// The rule of nn.MultiheadAttention.
fn multi_head(m: &MultiHead) -> i128 {
    let projections = m.embed * (2 * m.queries * m.embed + m.keys * 2 * m.embed);
    let products = 2 * m.queries * m.keys * m.embed;
    m.batch * (projections + products) + softmax(m.batch * m.heads * m.queries, m.keys)
}

fn one(call: &Call, books: &mut Books) {
    let mut instead = |theirs: i128, why: &'static str| books.add(why, call.nodes.len(), theirs - call.madds);
    match &call.what {
        What::Conv(_) if call.module == Module::Function => instead(0, "convolutions called as functions have no rule"),
        What::Addmm { .. } => instead(0, "addmm (transformers' Conv1D) has no rule"),
        What::Product { spelling: Spelling::Baddbmm | Spelling::Mm, .. } => instead(0, "mm and baddbmm have no rule"),
        What::MultiHead(m) => instead(multi_head(m), "softmax in nn.MultiheadAttention: 3 per element less 1 per row"),
        What::Recurrent(r) => instead(
            r.evaluations * r.directions * super::thop::cell(r),
            "recurrent layers: biases, sums and gate arithmetic counted per element",
        ),
        What::Norm { norm, affine, .. } if call.module != Module::Function => {
            let why = match norm {
                Norm::Batch(true) => "BatchNorm folded into convolutions at export: 4 per element",
                Norm::Batch(false) => "BatchNorm: 4 per element (2 without scale)",
                Norm::Rms if !call.in_nn() => return,
                _ => "LayerNorm, GroupNorm, InstanceNorm, RMSNorm: 4 per element (2 without scale)",
            };
            books.add(why, call.nodes.len(), if *affine { 4 } else { 2 } * call.read());
        }
        What::Act(Act::PRelu) if call.module != Module::Function => {
            books.add("PReLU: 1 per element", 1, call.read());
        }
        What::Softmax { row, log, .. } if call.in_nn() && *row > 0 => {
            let rows = call.read() / row;
            let extra = if *log { rows } else { 0 };
            books.add("nn.Softmax: 3 per element less 1 per row", 1, softmax(rows, *row) + extra);
        }
        What::Pool(Pool::Average(windows)) if call.in_nn() => {
            books.add("average pooling: 1 per element of its windows and per output", 1, windows + call.made());
        }
        What::Pool(Pool::AdaptiveAverage) if call.in_nn() => {
            let windows = adaptive_windows(&call.input, &call.output);
            books.add("average pooling: 1 per element of its windows and per output", 1, windows + call.made());
        }
        What::Upsample { mode, .. } if call.in_nn() => {
            let per = match (mode, call.input.len()) {
                (Upsample::Nearest, _) => 0,
                (Upsample::Linear, 3) => 5,
                (Upsample::Linear, 4) => 11,
                (Upsample::Linear, _) => 31,
                (Upsample::Cubic, _) => 259,
            };
            books.add("nn.Upsample: 11 (bilinear) or 259 (bicubic) per output element", 1, per * call.made());
        }
        _ => {}
    }
}
