//! SARIF 2.1.0 of `check`: a result per limit that does not hold (or cannot be told), at its line of the configuration, with the layer as
//! logical location.

use super::{Look, json};
use crate::budget::{Finding, Level, Outcome, Verdict};
use crate::error::Result;
use serde_json::{Value, json};

/// The schema that validates it.
const SCHEMA: &str = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";

/// A path as a relative reference; a whole one as what it is.
fn uri(path: &str) -> String {
    let path = path.replace('\\', "/");
    let mut out = String::from(if path.starts_with('/') { "file://" } else { "" });
    for b in path.bytes() {
        match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' | b'~' => out.push(b as char),
            b => out.push_str(&format!("%{b:02X}")),
        }
    }
    out
}

/// Rules are named by what is limited, whatever the operator or budget.
fn rule(f: &Finding) -> &str {
    if f.rule.starts_with("op.") { "op" } else { &f.rule }
}

fn result(v: &Verdict, f: &Finding, rules: &[&str]) -> Value {
    let mut location = json!({
        "physicalLocation": {
            "artifactLocation": { "uri": uri(&v.from_top(&v.config)) },
            "region": { "startLine": f.line.max(1) },
        },
    });
    if let Some(c) = f.culprits.first() {
        location["logicalLocations"] =
            json!([{ "name": c.layer, "fullyQualifiedName": format!("{}/{}", f.model, c.layer), "kind": "element" }]);
    }
    let mut result = json!({
        "ruleId": rule(f),
        "ruleIndex": rules.iter().position(|r| *r == rule(f)).unwrap_or(0),
        "message": { "text": f.sentence() },
        "locations": [location],
        "partialFingerprints": { "madd-prof/v1": format!("{}|{}|{}|{}", f.budget, f.model, f.rule, f.limit) },
        "properties": {
            "budget": f.budget,
            "model": f.model,
            "value": f.value,
            "bound": f.bound,
            "layers": f.culprits.iter().map(|c| json!({
                "name": c.layer, "op": c.op, "amount": c.amount, "how": c.how,
            })).collect::<Vec<_>>(),
            "notes": f.notes,
        },
    });
    // A result that is no failure has no level (SARIF 3.27.9, 3.27.10).
    match f.outcome {
        Outcome::CannotTell => {
            result["kind"] = "open".into();
            result["level"] = "none".into();
        }
        _ => result["level"] = if f.level == Level::Error { "error" } else { "warning" }.into(),
    }
    if f.is_file {
        result["relatedLocations"] = json!([{
            "message": { "text": "the model" },
            "physicalLocation": { "artifactLocation": { "uri": uri(&v.from_top(&f.model)) } },
        }]);
    }
    result
}

/// Makes the bytes.
pub fn render(v: &Verdict, _look: &Look) -> Result<Vec<u8>> {
    let told: Vec<&Finding> = v.findings.iter().filter(|f| f.outcome != Outcome::Pass).collect();
    let mut rules: Vec<&str> = told.iter().map(|f| rule(f)).collect();
    rules.sort_unstable();
    rules.dedup();
    let results: Vec<Value> = told.iter().map(|f| result(v, f, &rules)).collect();
    let described = |id: &&str| {
        let what = match *id {
            "formula" => "A formula over a model's figures does not hold.".to_string(),
            "latency" => "A model is slower than its baseline allows.".to_string(),
            "coverage" => "Too few layers have a known cost.".to_string(),
            "op" => "All layers of an operator together cost more than their budget.".to_string(),
            id => format!("{id} is beyond its budget."),
        };
        json!({ "id": id, "name": id, "shortDescription": { "text": what } })
    };
    json::bytes(&json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "madd-prof",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": rules.iter().map(described).collect::<Vec<_>>(),
            } },
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    }))
}

#[cfg(test)]
mod tests {
    #[test]
    fn paths_are_references() {
        assert_eq!(super::uri("a b\\c#é.toml"), "a%20b/c%23%C3%A9.toml");
        assert_eq!(super::uri("/a/b c.onnx"), "file:///a/b%20c.onnx");
    }
}
