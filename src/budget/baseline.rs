//! Baselines: one small JSON file to commit, with every budget's totals and rows, one line each.

use super::snapshot::{METRICS, Metric, Row, Snapshot, Value};
use crate::error::{Error, Result};
use serde_json::{Map, Value as Json, json};
use std::collections::BTreeMap;
use std::path::Path;

/// Name and version of the file's contract.
pub const SCHEMA: &str = "madd-prof-baseline/1";
/// Its usual name.
pub const FILE: &str = "madd-prof-baseline.json";

/// Snapshots by budget and model.
#[derive(Debug, Clone, Default)]
pub struct Baseline {
    /// Entries by key; see [`key`].
    pub models: BTreeMap<String, Snapshot>,
}

/// The key of a model under a budget.
pub fn key(budget: &str, model: &str) -> String {
    format!("{budget}: {model}")
}

impl Baseline {
    /// Reads a file; an empty baseline if there is none.
    ///
    /// # Errors
    /// If it cannot be read or is no baseline.
    pub fn read(path: &Path) -> Result<Baseline> {
        match std::fs::read_to_string(path) {
            Ok(text) => Baseline::parse(&text).map_err(|e| e.in_file(path)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Baseline::default()),
            Err(e) => Err(Error::input(format!("cannot be read: {e}")).in_file(path)),
        }
    }

    fn parse(text: &str) -> Result<Baseline> {
        let wrong = |why: &str| {
            Error::input(format!("is no baseline: {why}")).hint("`madd-prof check --update-baseline` writes a new one")
        };
        let doc: Json = serde_json::from_str(text).map_err(|e| wrong(&e.to_string()))?;
        if doc["schema"] != SCHEMA {
            return Err(wrong(&format!("its schema is not \"{SCHEMA}\"")));
        }
        let models = doc["models"].as_object().ok_or_else(|| wrong("it has no models"))?;
        let mut out = Baseline::default();
        for (name, m) in models {
            let totals = m["totals"].as_object().ok_or_else(|| wrong("a model has no totals"))?;
            let values = METRICS.iter().filter_map(|(metric, key, _)| {
                totals.get(*key).and_then(Json::as_u64).map(|n| (*metric, Value::Known(n)))
            });
            let row = |r: &Json| -> Option<Row> {
                let traffic = || Some([r[6].as_u64()?, r[7].as_u64()?, r[8].as_u64()?]);
                Some(Row {
                    name: r[0].as_str()?.into(),
                    op: r[1].as_str()?.into(),
                    shape: r[2].as_str()?.into(),
                    params: r[3].as_u64()?,
                    madds: r[4].as_u64(),
                    other_flops: r[5].as_u64(),
                    traffic: traffic(),
                    ms: None,
                })
            };
            let layers = m["layers"].as_array().ok_or_else(|| wrong("a model has no layers"))?;
            let rows: Option<Vec<Row>> = layers.iter().map(row).collect();
            let rows = rows.ok_or_else(|| wrong("a layer is not of the form [name, op, shape, params, …]"))?;
            let s = Snapshot { name: name.clone(), values: values.collect(), rows, ..Snapshot::default() };
            out.models.insert(name.clone(), s);
        }
        Ok(out)
    }

    /// The file's text: a line per layer, so that a change reads well where it is reviewed.
    pub fn text(&self) -> String {
        let quoted = |s: &str| Json::from(s).to_string();
        let mut out = format!("{{\n  \"schema\": {},\n  \"models\": {{", quoted(SCHEMA));
        for (i, (name, s)) in self.models.iter().enumerate() {
            let totals: Map<String, Json> = METRICS
                .iter()
                .filter_map(|(m, key, _)| s.get(*m).known().map(|n| (key.to_string(), n.into())))
                .collect();
            out.push_str(if i == 0 { "\n" } else { ",\n" });
            out.push_str(&format!(
                "    {}: {{\n      \"totals\": {},\n      \"layers\": [",
                quoted(name),
                Json::Object(totals)
            ));
            for (k, r) in s.rows.iter().enumerate() {
                let t = r.traffic.map_or([Json::Null, Json::Null, Json::Null], |t| t.map(Json::from));
                let [weights, read, written] = t;
                let line = json!([r.name, r.op, r.shape, r.params, r.madds, r.other_flops, weights, read, written]);
                out.push_str(if k == 0 { "\n" } else { ",\n" });
                out.push_str(&format!("        {line}"));
            }
            out.push_str("\n      ]\n    }");
        }
        out.push_str("\n  }\n}\n");
        out
    }

    /// A metric's figure of an entry.
    pub fn get(&self, key: &str, metric: Metric) -> Option<u64> {
        self.models.get(key)?.get(metric).known()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let row = Row {
            name: "a\"b\nc".into(),
            op: "Conv".into(),
            shape: "1x2".into(),
            params: u64::MAX,
            madds: None,
            other_flops: Some(3),
            traffic: None,
            ms: None,
        };
        // A row that costs nothing was there too: left out it would be taken for a new one.
        let free = Row {
            name: "d".into(),
            op: "Flatten".into(),
            params: 0,
            madds: Some(0),
            other_flops: Some(0),
            ..row.clone()
        };
        let mut s = Snapshot { rows: vec![row.clone(), free.clone()], ..Snapshot::default() };
        s.values.insert(Metric::Madds, Value::Known(1 << 60));
        let b = Baseline { models: [("x: y".to_string(), s)].into() };
        let again = Baseline::parse(&b.text()).unwrap();
        assert_eq!(again.models["x: y"].rows, [row, free]);
        assert_eq!(again.get("x: y", Metric::Madds), Some(1 << 60));
        assert_eq!(again.get("x: y", Metric::Params), None);
        assert_eq!(Baseline::parse(&Baseline::default().text()).unwrap().models.len(), 0);
        for text in ["", "{}", "[]", "{\"schema\":\"madd-prof-baseline/1\"}"] {
            assert!(Baseline::parse(text).is_err(), "{text}");
        }
        let text = "{\"schema\":\"madd-prof-baseline/1\",\"models\":{\"m\":{\"totals\":{},\"layers\":[[1]]}}}";
        assert!(Baseline::parse(text).unwrap_err().to_string().contains("[name, op"));
    }
}
