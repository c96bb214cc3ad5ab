//! Module paths from names: exporters write where a node came from into its name or its metadata.

use crate::ir::Node;

/// The module path of a node, outermost first, the node's own last part at the end.
pub fn path(node: &Node) -> Vec<String> {
    let scopes = node.metadata.iter().find(|(k, _)| k == "pkg.torch.onnx.name_scopes").map(|(_, v)| quoted(v));
    if let Some(scopes) = scopes.filter(|s| !s.is_empty()) {
        return split(scopes.iter().map(String::as_str));
    }
    split(node.name.split('/'))
}

/// Splits components at dots; a component that repeats its parents (`features/features.0`) loses the repetition.
fn split<'a>(components: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    let mut parent = "";
    for part in components.filter(|p| !p.is_empty()) {
        let own = part.strip_prefix(parent).and_then(|rest| rest.strip_prefix('.')).unwrap_or(part);
        out.extend(own.split('.').filter(|p| !p.is_empty()).map(str::to_string));
        parent = part;
    }
    out
}

/// The quoted strings of a list written as Python writes it: `['', 'features', 'features.0', 'conv2d']`.
fn quoted(text: &str) -> Vec<String> {
    text.split('\'').skip(1).step_by(2).filter(|s| !s.is_empty()).map(str::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_exporters_and_plain_dots_give_the_same_path() {
        let want = ["features", "0", "1", "Conv"];
        assert_eq!(split("/features/features.0/features.0.1/Conv".split('/')), want);
        assert_eq!(split("features.0.1.Conv".split('/')), want);
        let scopes = quoted("['', 'features', 'features.0', 'features.0.1', 'Conv']");
        assert_eq!(split(scopes.iter().map(String::as_str)), want);
        assert!(split("".split('/')).is_empty());
    }
}
