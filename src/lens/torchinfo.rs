//! torchinfo: `summary(model, input_data=…).total_mult_adds`, from the parameters of leaf modules.
//! <https://github.com/TylerYep/torchinfo/blob/main/torchinfo/layer_info.py> (`calculate_macs`): a parameter of a class named …Conv… counts
//! once per output position, of a recurrent layer once per step, any other once per sample. Calls that are no modules count nothing.

use super::calls::{Call, Module, Norm, What};
use super::{Books, Subject, Tool, volume};

pub const TOOL: Tool = Tool { name: "torchinfo", version: "1.8.0", figure: "Total mult-adds", count };

fn count(s: &Subject, books: &mut Books) {
    if s.is_torch(books) {
        s.lost_bias(books);
        for call in &s.program.calls {
            one(s, call, books);
        }
    }
}

/// Times a parameter counts in a module of this class.
fn times(call: &Call) -> (i128, bool) {
    let (Module::Nn(class) | Module::Custom(class)) = &call.module else { return (0, false) };
    let conv = class.contains("Conv");
    let positions = call.rows() * volume(call.output.get(2..).unwrap_or(&[]));
    (if conv { positions } else { call.rows() }, conv)
}

fn one(s: &Subject, call: &Call, books: &mut Books) {
    let n = call.nodes.len();
    let function = call.module == Module::Function;
    let (mut times, by_position) = times(call);
    if let What::Addmm { n, .. } = call.what {
        // Conv1D works on rows, but its result is [batch, tokens, width].
        times = s.program.batch as i128 * if by_position { n } else { 1 };
    }
    let mut instead = |theirs: i128, why: &'static str| books.add(why, n, theirs - call.madds);
    match &call.what {
        What::Conv(_) if function => instead(0, "calls that are no modules are not seen"),
        What::Conv(c) => {
            let why = if c.transposed {
                "transposed convolution counted by output volume instead of input"
            } else {
                "convolution counted by output positions"
            };
            instead(c.weight() * times, why);
            if c.bias {
                books.add("bias of convolutions: 1 per output element", n, c.co * times);
            }
        }
        What::Linear { .. } | What::Addmm { .. } if function => {
            instead(0, "products called as functions (F.linear, matmul, attention) are not seen");
        }
        What::Linear { k, n: out, .. } | What::Addmm { k, n: out } => {
            let why = if by_position {
                "a class named Conv that is none (transformers' Conv1D): weights times the width of the output"
            } else {
                "linear layers on sequences counted once per sample, not once per position"
            };
            instead(k * out * times, why);
            if !matches!(call.what, What::Linear { bias: false, .. }) {
                books.add("bias of linear layers: once per sample", n, out * times);
            }
        }
        What::Product { .. } | What::Attention => {
            instead(0, "products called as functions (F.linear, matmul, attention) are not seen");
        }
        What::MultiHead(_) => instead(0, "nn.MultiheadAttention is no leaf and calls its leaf as a function: not seen"),
        What::Recurrent(r) => {
            let bias = if r.bias { 2 * r.gates * r.hidden } else { 0 };
            books.add("bias of recurrent layers: once per step", n, r.evaluations * r.directions * bias);
        }
        // timm's BatchNormAct2d has modules inside: no leaf.
        What::Norm { .. } if call.module == Module::Custom("BatchNormAct2d".into()) => {}
        What::Norm { norm, params, .. } if !function => {
            let why = match norm {
                Norm::Batch(true) => "BatchNorm folded into convolutions at export: its parameters once per sample",
                _ => "normalisation: its parameters once per sample",
            };
            books.add(why, n, params * times);
        }
        What::Parameters(elements) if !function => {
            books.add("parameters of other leaf modules: once per sample", n, elements * times);
        }
        What::Embedding(table) if !function => {
            books.add("embedding: the whole table once per sample", n, table * times);
        }
        _ => {}
    }
}
