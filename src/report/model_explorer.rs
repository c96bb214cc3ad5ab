//! Node data for Model Explorer: a value per node under the name of its first output, with colours from low to high. Times of the main
//! path where they were measured, MAdds otherwise.

use super::model::{Kind, Report, Time};
use super::{Look, json};
use crate::engine::Path;
use crate::error::Result;
use serde_json::{Map, Value, json};

/// Makes the bytes.
pub fn render(report: &Report, _look: &Look) -> Result<Vec<u8>> {
    let timed = report.latency.iter().any(|l| l.per_step);
    let mut results = Map::new();
    for l in report.layers.iter().filter(|l| l.kind == Kind::Layer) {
        let time = if report.main == Some(Path::Reference) { &l.reference } else { &l.optimized };
        let value: Option<Value> = match (timed, time) {
            (true, Time::Ms(ms)) => Some(json!(ms)),
            // Its time stands at the node it is fused into.
            (true, Time::FusedInto(_)) => Some(json!(0)),
            (true, Time::None) => None,
            (false, _) => (l.unknown_nodes == 0).then(|| json!(l.work.madds)),
        };
        if let (Some(name), Some(value)) = (&l.output_name, value) {
            results.insert(name.clone(), json!({ "value": value }));
        }
    }
    json::bytes(&json!({
        "results": results,
        "gradient": [
            { "stop": 0, "bgColor": "#ffffff", "textColor": "#000000" },
            { "stop": 0.5, "bgColor": "#ffd27f", "textColor": "#000000" },
            { "stop": 1, "bgColor": "#d73027", "textColor": "#ffffff" },
        ],
    }))
}
