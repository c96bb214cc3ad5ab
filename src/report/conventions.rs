//! The same model under the counting conventions people quote, each by name. A number without its convention is half a number.

use crate::analysis::{Analysis, Class, class_of};
use crate::error::{Error, Result};
use crate::ir::Graph;

/// A total under a named convention.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Convention {
    /// Name on the command line.
    pub name: &'static str,
    /// What is counted.
    pub words: &'static str,
    /// The total.
    pub value: u64,
}

struct Rule {
    name: &'static str,
    words: &'static str,
    of: fn(&Graph, &Analysis) -> u64,
}

/// Whether the node is a weighted layer with a bias: a convolution, transposed convolution or linear layer that adds one.
fn bias_elements(graph: &Graph, analysis: &Analysis) -> u64 {
    let mut sum = 0u64;
    for row in &analysis.rows {
        let node = graph.node(row.node);
        let bias = match node.op_type.as_str() {
            "Conv" | "ConvTranspose" | "Gemm" => node.inputs.get(2).copied().flatten().is_some(),
            _ => false,
        };
        if bias && !row.is_static && row.work().is_some() {
            sum = sum.saturating_add(row.output_shape.elements().unwrap_or(0) as u64);
        }
    }
    sum
}

fn weighted(graph: &Graph, analysis: &Analysis) -> u64 {
    let weighted = |c: Class| !matches!(c, Class::MatMul | Class::Attention | Class::Control | Class::Unknown);
    let rows = analysis.rows.iter().filter(|r| weighted(class_of(graph, graph.node(r.node))));
    rows.filter_map(|r| r.work()).map(|w| w.madds).fold(0, u64::saturating_add)
}

static RULES: &[Rule] = &[
    Rule {
        name: "madds",
        words: "multiply-adds (MACs) of convolutions, matrix products, attention and recurrent layers, padded windows in full",
        of: |_, a| a.totals.work.madds,
    },
    Rule {
        name: "flops",
        words: "2 x MAdds + every other floating-point operation (bias, activation, normalisation, pooling)",
        of: |_, a| a.totals.work.flops(),
    },
    Rule { name: "flops-core", words: "2 x MAdds and nothing else", of: |_, a| a.totals.work.madds.saturating_mul(2) },
    Rule {
        name: "madds-bias",
        words: "MAdds with each bias as one more, (k*k*Ci + 1)*Co*W*H, for convolutions and Gemm that have one",
        of: |g, a| a.totals.work.madds.saturating_add(bias_elements(g, a)),
    },
    Rule {
        name: "flops-bias",
        words: "twice madds-bias: 2*(k*k*Ci + 1)*Co*W*H",
        of: |g, a| a.totals.work.madds.saturating_add(bias_elements(g, a)).saturating_mul(2),
    },
    Rule {
        name: "madds-useful",
        words: "MAdds without those whose operand is padding",
        of: |_, a| a.totals.work.useful_madds,
    },
    Rule {
        name: "madds-weights",
        words: "MAdds of layers with weights only: products of two activations (attention) left out, as module-hook counters do",
        of: weighted,
    },
];

/// Names of all conventions.
pub fn names() -> Vec<&'static str> {
    RULES.iter().map(|r| r.name).collect()
}

/// The totals under the asked conventions (`all`, or names separated by commas).
///
/// # Errors
/// If a name is not a convention.
pub fn totals(asked: &str, graph: &Graph, analysis: &Analysis) -> Result<Vec<Convention>> {
    let make = |r: &Rule| Convention { name: r.name, words: r.words, value: (r.of)(graph, analysis) };
    if asked == "all" {
        return Ok(RULES.iter().map(make).collect());
    }
    asked
        .split(',')
        .map(|name| {
            RULES.iter().find(|r| r.name == name.trim()).map(make).ok_or_else(|| {
                Error::usage(format!("there is no convention '{name}'"))
                    .hint(format!("conventions: all, {}", names().join(", ")))
            })
        })
        .collect()
}
