//! torchprofile: `profile_macs(model, args)`, a jit trace with a handler per aten operator.
//! <https://github.com/zhijian-liu/torchprofile/blob/master/torchprofile/handlers.py>.

use super::calls::{Act, Call, Norm, Pool, Spelling, Upsample, What};
use super::{Books, Subject, Tool, volume};

pub const TOOL: Tool = Tool { name: "torchprofile", version: "0.1.0", figure: "MACs", count };

fn count(s: &Subject, books: &mut Books) {
    if s.is_torch(books) {
        for call in &s.program.calls {
            one(s, call, books);
        }
    }
}

fn one(s: &Subject, call: &Call, books: &mut Books) {
    let mut instead = |theirs: i128, why: &'static str| books.add(why, call.nodes.len(), theirs - call.madds);
    if call.in_fused_layer && !s.gradients {
        return instead(0, "nn.TransformerEncoderLayer runs as one kernel in evaluation, which has no handler");
    }
    match &call.what {
        What::Conv(c) if c.transposed => {
            // The weight is [ci, co/g, …]; which of its first two sizes counts depends on whether the output has ci channels.
            let channels = if c.co == c.ci { c.co / c.groups.max(1) } else { c.ci };
            let theirs = call.made() * channels * volume(&c.kernel);
            instead(theirs, "transposed convolution counted by output volume (and by the wrong channels when grouped)");
        }
        What::Product { spelling: Spelling::Mm, .. } => instead(0, "mm has no handler"),
        What::MultiHead(m) if m.fused && !s.gradients => {
            instead(0, "nn.MultiheadAttention runs as one kernel in evaluation, which has no handler");
        }
        What::MultiHead(m) => m.inner.iter().for_each(|c| one(s, c, books)),
        What::Recurrent(r) if r.gates != 4 => instead(0, "GRU and RNN have no handler"),
        What::Norm { norm, affine: true, .. } => {
            let why = match norm {
                Norm::Batch(true) => "BatchNorm folded into convolutions at export: 1 per element",
                Norm::Batch(false) => "BatchNorm: 1 per element",
                Norm::Rms => return,
                _ => "LayerNorm, GroupNorm, InstanceNorm: 1 per element",
            };
            books.add(why, call.nodes.len(), call.read());
        }
        What::Pool(Pool::Average(_) | Pool::AdaptiveAverage | Pool::Mean) => {
            books.add("average pooling and mean: 1 per output element", 1, call.made());
        }
        What::Act(Act::LeakyRelu) => books.add("LeakyReLU: 1 per element", 1, call.made()),
        What::Upsample { mode: Upsample::Linear, .. } if call.input.len() == 4 => {
            books.add("bilinear interpolation: 4 per output element", 1, 4 * call.made());
        }
        What::Mul { .. } => books.add("elementwise products (mul): 1 per output element", 1, call.made()),
        What::GridSample(per) => {
            books.add("grid_sample: 4 (bilinear) or 16 (bicubic) per output element", 1, per * call.made())
        }
        _ => {}
    }
}
