//! fvcore: `FlopCountAnalysis(model, inputs).total()`, a jit trace with a handler per aten operator.
//! <https://github.com/facebookresearch/fvcore/blob/main/fvcore/nn/jit_handles.py>. Its "flop" is a multiply-add. What has no
//! handler counts nothing: fused attention, attention modules in evaluation, recurrent layers.

use super::calls::{Call, Module, Norm, Pool, Spelling, Upsample, What};
use super::{Books, Subject, Tool, volume};

pub const TOOL: Tool = Tool { name: "fvcore", version: "0.1.5", figure: "flops", count };

fn count(s: &Subject, books: &mut Books) {
    if s.is_torch(books) {
        for call in &s.program.calls {
            one(s, call, books);
        }
    }
}

fn one(s: &Subject, call: &Call, books: &mut Books) {
    let mut instead = |theirs: i128, why: &'static str| books.add(why, call.nodes.len(), theirs - call.madds);
    match &call.what {
        What::Product { spelling: Spelling::Baddbmm, .. } => instead(0, "baddbmm has no handler"),
        What::Product { spelling: Spelling::Einsum, .. } => {
            instead(super::four_digits(2 * call.madds) / 2, "einsum: what numpy.einsum_path prints, to four digits");
        }
        What::Product { lhs, rhs, .. } => {
            let n = rhs.last().map_or(1, |&d| d as i128);
            instead(volume(lhs) * n, "matmul counts the batch of its first operand only");
        }
        What::Attention => instead(0, "scaled_dot_product_attention has no handler"),
        What::MultiHead(m) if m.fused && !s.gradients => {
            instead(0, "nn.MultiheadAttention runs as one kernel in evaluation, which has no handler");
        }
        What::MultiHead(m) => m.inner.iter().for_each(|c| one(s, c, books)),
        What::Recurrent(_) => instead(0, "recurrent layers have no handler"),
        What::Norm { norm, affine, .. } => {
            let (per, why) = match (norm, affine) {
                (Norm::Batch(false), true) => (2, "BatchNorm: 2 per element"),
                (Norm::Batch(false), false) => (1, "BatchNorm without scale: 1 per element"),
                (Norm::Batch(true), _) => (2, "BatchNorm folded into convolutions at export: 2 per element"),
                (Norm::Rms, _) => return,
                (_, true) => (5, "LayerNorm, GroupNorm, InstanceNorm: 5 per element"),
                (_, false) => (4, "LayerNorm, GroupNorm, InstanceNorm without scale: 4 per element"),
            };
            books.add(why, call.nodes.len(), per * call.read());
        }
        What::Pool(Pool::AdaptiveAverage)
            if call.input.len() == 4 && call.module != Module::Nn("AdaptiveAvgPool1d".into()) =>
        {
            books.add("adaptive average pooling: 1 per input element", 1, call.read());
        }
        What::Upsample { mode: Upsample::Nearest, .. } if call.input.len() == 4 => {
            books.add("nearest interpolation: 1 per output element", 1, call.made());
        }
        What::Upsample { mode: Upsample::Linear, .. } if call.input.len() == 4 => {
            books.add("bilinear interpolation: 4 per output element", 1, 4 * call.made());
        }
        What::GridSample(_) => books.add("grid_sample: 4 per output element", 1, 4 * call.made()),
        _ => {}
    }
}
