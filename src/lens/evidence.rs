//! Where a node came from, as far as the file tells: exporter metadata where there is some, else the scope in the node's name.
//!
//! * torch's newer exporter writes the class of every enclosing module, the aten operator and the source line into each node's
//!   `metadata_props` (`pkg.torch.onnx.class_hierarchy`, `name_scopes`, `stack_trace`).
//! * The TorchScript exporter names nodes after the module path (`/layer1/layer1.0/relu/Relu`), and renames constants that it computed
//!   (`onnx::Conv_538`, only a number before 1.13), while parameters keep theirs (`fc.bias`): a convolution whose *bias* is renamed had a
//!   BatchNorm folded into it.
//! * Other folds leave names too: `weight_bias` where onnxscript's rewriter made a bias, `ConvBnFusion` from ONNX Runtime.

use crate::ir::{Graph, Node, Source, ValueId};

/// What is known of a node's origin.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// The module path, dotted: `layer1.0.relu`. Empty at the top; `None` where names say nothing.
    pub path: Option<String>,
    /// Classes of the enclosing modules, outermost first.
    pub classes: Vec<String>,
    /// The aten operator, without prefix and overload.
    pub aten: Option<String>,
    /// One call has one of these: nodes that share it belong together.
    pub call: Option<String>,
    /// The innermost source line.
    pub line: Option<String>,
}

/// The origin of a node.
pub fn origin(node: &Node) -> Origin {
    let get = |key: &str| node.metadata.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str());
    let scopes = get("pkg.torch.onnx.name_scopes").map(quoted).unwrap_or_default();
    let mut classes = get("pkg.torch.onnx.class_hierarchy").map(quoted).unwrap_or_default();
    if let (Some((_, modules)), Some(aten)) = (scopes.split_last(), classes.pop()) {
        let aten = aten.strip_prefix("aten.").map(|a| a.split('.').next().unwrap_or(a).to_string());
        return Origin {
            path: Some(modules.last().cloned().unwrap_or_default()),
            classes,
            aten,
            call: Some(scopes.join("/")),
            line: get("pkg.torch.onnx.stack_trace").and_then(|t| t.lines().last()).map(|l| l.trim().to_string()),
        };
    }
    let (scope, named) = match node.name.rsplit_once('/') {
        Some((scope, _)) => (scope, true),
        None => ("", false),
    };
    Origin { path: named.then(|| dotted(scope)), ..Origin::default() }
}

/// `/features/features.0/conv` as `features.0.conv`: a component that repeats its parent adds only what is new.
fn dotted(scope: &str) -> String {
    let mut path = String::new();
    let mut parent = "";
    for part in scope.split('/').filter(|p| !p.is_empty()) {
        let own = part.strip_prefix(parent).and_then(|rest| rest.strip_prefix('.')).unwrap_or(part);
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(own);
        parent = part;
    }
    path
}

/// The quoted strings of a list as Python writes it.
fn quoted(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find(['\'', '"']) {
        let quote = &rest[start..=start];
        let Some(len) = rest[start + 1..].find(quote) else { break };
        out.push(rest[start + 1..start + 1 + len].to_string());
        rest = &rest[start + len + 2..];
    }
    out
}

/// A name the TorchScript exporter gives to constants it computed: `onnx::Conv_538`, or a bare number.
pub fn is_made_up(name: &str) -> bool {
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    digits(name) || name.strip_prefix("onnx::").and_then(|r| r.rsplit_once('_')).is_some_and(|(_, n)| digits(n))
}

/// How a convolution got its bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bias {
    /// It has none.
    None,
    /// Its own.
    Own,
    /// Folding a BatchNorm made it; `true` where the convolution had a bias before.
    Folded(bool),
}

/// The bias of a convolution or linear layer, given what made the node.
pub fn bias(graph: &Graph, node: &Node, origin: &Origin) -> Bias {
    let Some(bias) = node.inputs.get(2).copied().flatten() else { return Bias::None };
    let name = graph.value(bias).name.as_str();
    let by_batch_norm = origin.aten.as_deref().is_some_and(|a| a.contains("batch_norm"));
    let rewritten = name.ends_with("weight_bias") || name.contains("_ConvBnFusion_") || name.contains("_bn_");
    if by_batch_norm || rewritten {
        return Bias::Folded(!rewritten);
    }
    let constant = graph.value(bias).source == Source::Constant;
    if constant && is_made_up(name) { Bias::Folded(false) } else { Bias::Own }
}

/// Whether convolutions had a bias beside the BatchNorm that was folded into them, as far as the TorchScript exporter's numbers tell.
///
/// It numbers all values of its graph in one go (inputs, parameters, then the results of nodes), folds, and goes on numbering for what
/// folding makes. The first number it made up therefore says how many parameters there were: as many as can be accounted for, or as many
/// more as convolutions were folded. Anything else (nodes dropped on the way) leaves it open.
pub fn folded_had_bias(graph: &Graph, folded: usize) -> Option<bool> {
    let mut first: Option<usize> = None;
    let (mut kept, mut renamed, mut constants) = (0, 0, 0);
    for v in graph.values().iter().filter(|v| v.source == Source::Constant) {
        if v.name.starts_with('/') {
            constants += 1;
        } else if let Some(number) =
            v.name.strip_prefix("onnx::").and_then(|r| r.rsplit_once('_')).and_then(|(_, n)| n.parse().ok())
        {
            renamed += 1;
            first = Some(first.map_or(number, |f| f.min(number)));
        } else {
            kept += 1;
        }
    }
    // A folded convolution had a weight and the five tensors of a BatchNorm; a BatchNorm that stayed has lost its counter.
    let norms = graph.nodes().iter().filter(|n| n.op_type == "BatchNormalization").count();
    let parameters = kept + renamed - 2 * folded + 6 * folded + norms;
    let values = graph.inputs().len() + parameters + graph.nodes().len() + constants + folded;
    // One number goes to the output, one is skipped.
    match first?.checked_sub(values + 1) {
        Some(0) => Some(false),
        Some(more) if more == folded => Some(true),
        _ => None,
    }
}

/// Whether a value is a parameter as the file stores it, under a name of its own.
pub fn is_parameter(graph: &Graph, value: ValueId) -> bool {
    let v = graph.value(value);
    v.source == Source::Constant && v.name.contains('.') && !v.name.starts_with('/') && !is_made_up(&v.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_lists_are_read_as_exporters_write_them() {
        assert_eq!(dotted("/features/features.0/features.0.1"), "features.0.1");
        assert_eq!(dotted("/layer1/layer1.0/conv1"), "layer1.0.conv1");
        assert_eq!(dotted("features.1/conv.0"), "features.1.conv.0");
        assert_eq!(quoted("['', 'a', 'a.<locals>.B']"), ["", "a", "a.<locals>.B"]);
        assert!(
            is_made_up("onnx::Conv_538") && is_made_up("538") && !is_made_up("conv1.bias") && !is_made_up("onnx::x")
        );
    }
}
