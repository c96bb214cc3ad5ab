//! torch's own `FlopCounterMode`: a formula per dispatched operator, two FLOPs per multiply-add, products only.
//! <https://github.com/pytorch/pytorch/blob/main/torch/utils/flop_counter.py>. Run on a CPU in evaluation mode.

use super::calls::{Call, What};
use super::{Books, Subject, Tool};

pub const TOOL: Tool = Tool { name: "torch", version: "2.15.0", figure: "FLOPs", count };

fn count(s: &Subject, books: &mut Books) {
    if !s.is_torch(books) {
        return;
    }
    for call in &s.program.calls {
        one(s, call, books);
    }
    let seen = books.figure(s.analysis.totals.work.madds);
    let nodes = s.program.calls.iter().filter(|c| c.madds > 0).map(|c| c.nodes.len()).sum();
    books.add("a multiply-add is two FLOPs", nodes, seen);
}

fn one(s: &Subject, call: &Call, books: &mut Books) {
    let mut instead = |theirs: i128, why: &'static str| books.add(why, call.nodes.len(), theirs - call.madds);
    if call.in_fused_layer && !s.gradients {
        return instead(0, "nn.TransformerEncoderLayer runs as one kernel in evaluation, which has no formula");
    }
    match &call.what {
        What::MultiHead(m) if m.fused && !s.gradients => {
            instead(0, "nn.MultiheadAttention runs as one kernel in evaluation, which has no formula");
        }
        What::Recurrent(r) if r.gates == 4 => {
            instead(0, "LSTM runs as one oneDNN kernel on a CPU, which has no formula")
        }
        _ => {}
    }
}
