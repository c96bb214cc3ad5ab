//! `madd-prof.toml`: what a project tells the program once. Found in the working directory or one above it.
//!
//! ```toml
//! [ops."my.domain::FooConv"]
//! madds = "n*oc*oh*ow*ic*kh*kw"
//! other_flops = "n*oc*oh*ow"          # optional
//! inputs = ["n ic ih iw", "oc _ kh kw"]  # optional: names of sizes, see [`crate::ops::custom`]
//! outputs = ["n oc oh ow"]              # optional
//! shapes = ["n oc ih iw"]               # optional: output sizes, where the file does not declare them
//! ```
//!
//! What models may cost (`[check]`, `[[budget]]`) is kept as it is written; [`crate::budget`] reads it where it is asked for.

use crate::error::{Error, Result};
use crate::formula::Formula;
use crate::ops::custom::{Rule, Rules};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use toml::{Table, Value};

/// Name of the file.
pub const FILE: &str = "madd-prof.toml";

/// What the file says.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// Where it was read from.
    pub path: Option<PathBuf>,
    /// Cost rules for operators this build does not know.
    pub rules: Rules,
    /// `[check]`: what holds for all budgets.
    pub check: Table,
    /// `[[budget]]`: what models may cost.
    pub budgets: Vec<Table>,
    /// The file's text, to find lines in.
    pub text: String,
    /// Every key that is set, with its value as it stands in the file.
    pub set: Vec<(String, String)>,
}

/// Every key the file can hold, and what it does.
pub const KEYS: &[(&str, &str)] = &[
    ("ops", "cost rules for operators of your own: [ops.\"domain::Name\"] madds, other_flops, inputs, outputs, shapes"),
    ("check", "what holds for all budgets of `check`"),
    ("budget", "what models may cost: [[budget]] with a model and its limits"),
];

impl Config {
    /// Reads the given file, or the first found in `from` and the folders above; an empty one if there is none.
    ///
    /// # Errors
    /// If the file cannot be read or says something it cannot say.
    pub fn find(given: Option<&Path>, from: &Path) -> Result<Config> {
        let found = || from.ancestors().map(|d| d.join(FILE)).find(|p| p.is_file());
        let Some(path) = given.map(Path::to_path_buf).or_else(found) else { return Ok(Config::default()) };
        let text =
            std::fs::read_to_string(&path).map_err(|e| Error::input(format!("cannot be read: {e}")).in_file(&path))?;
        let mut config = Config::parse(&text).map_err(|e| e.in_file(&path))?;
        config.path = Some(path);
        Ok(config)
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    /// If it is no TOML or holds keys or values that mean nothing.
    pub fn parse(text: &str) -> Result<Config> {
        let table: Table = text
            .parse()
            .map_err(|e: toml::de::Error| Error::input(format!("{}{}", place(text, e.span()), e.message())))?;
        let mut config = Config::default();
        for (key, value) in &table {
            match key.as_str() {
                "ops" => {
                    for (name, rule) in table_of(value, "ops")? {
                        let at = |e: Error| Error::input(format!("[ops.\"{name}\"]: {e}"));
                        let (domain, op) = name.rsplit_once("::").unwrap_or(("", name));
                        if op.is_empty() {
                            return Err(at(Error::input("names no operator")).hint("write [ops.\"my.domain::MyOp\"]"));
                        }
                        for (k, v) in table_of(rule, name)? {
                            config.set.push((format!("ops.\"{name}\".{k}"), shown(v)));
                        }
                        let rule = rule_of(table_of(rule, name)?).map_err(at)?;
                        let domain = if domain == "ai.onnx" { "" } else { domain };
                        config.rules.0.insert((domain.to_string(), op.to_string()), Arc::new(rule));
                    }
                }
                "check" => {
                    config.check = table_of(value, "check")?.clone();
                    config.set.extend(config.check.iter().map(|(k, v)| (format!("check.{k}"), shown(v))));
                }
                "budget" => {
                    let wrong = || Error::input("'budget' must be a list of tables").hint("write [[budget]]");
                    for b in value.as_array().ok_or_else(wrong)? {
                        let b = b.as_table().ok_or_else(wrong)?;
                        config.set.extend(
                            b.iter().map(|(k, v)| (format!("budget.{}.{k}", config.budgets.len() + 1), shown(v))),
                        );
                        config.budgets.push(b.clone());
                    }
                }
                _ => return Err(unknown(key, &["ops", "check", "budget"])),
            }
        }
        config.text = text.to_string();
        Ok(config)
    }
}

/// Where in a text something begins, for the beginning of a message.
fn place(text: &str, span: Option<std::ops::Range<usize>>) -> String {
    let Some(before) = span.and_then(|s| text.get(..s.start.min(text.len()))) else { return String::new() };
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("line {line}, column {column}: ")
}

pub(crate) fn unknown(key: &str, known: &[&str]) -> Error {
    Error::input(format!("there is no setting '{key}'")).hint(format!("settings here: {}", known.join(", ")))
}

/// A value as it stands in the file, near enough.
fn shown(value: &Value) -> String {
    match value {
        Value::String(s) => format!("{s:?}"),
        Value::Integer(n) => n.to_string(),
        Value::Float(n) => n.to_string(),
        Value::Boolean(b) => b.to_string(),
        Value::Array(list) => format!("[{}]", list.iter().map(shown).collect::<Vec<_>>().join(", ")),
        _ => "{…}".to_string(),
    }
}

pub(crate) fn table_of<'a>(value: &'a Value, name: &str) -> Result<&'a Table> {
    value.as_table().ok_or_else(|| Error::input(format!("'{name}' must be a table")))
}

fn formula(value: &Value, key: &str) -> Result<Formula> {
    match value {
        Value::String(text) => Formula::parse(text).map_err(|e| Error::input(format!("{key}: {e}"))),
        Value::Integer(n) => Formula::parse(&n.to_string()),
        _ => Err(Error::input(format!("{key} must be a formula in quotes"))),
    }
}

/// A list of strings, each split at spaces.
fn lists(value: &Value, key: &str) -> Result<Vec<Vec<String>>> {
    let wrong = || Error::input(format!("{key} must be a list of strings, one per tensor: [\"n ic ih iw\"]"));
    let list = value.as_array().ok_or_else(wrong)?;
    list.iter().map(|v| Ok(v.as_str().ok_or_else(wrong)?.split_whitespace().map(str::to_string).collect())).collect()
}

fn rule_of(table: &Table) -> Result<Rule> {
    let mut rule = Rule::default();
    for (key, value) in table {
        match key.as_str() {
            "madds" => rule.madds = Some(formula(value, key)?),
            "other_flops" => rule.other_flops = Some(formula(value, key)?),
            "inputs" => rule.inputs = lists(value, key)?,
            "outputs" => rule.outputs = lists(value, key)?,
            "shapes" => {
                let shapes = lists(value, key)?;
                let parse = |dims: Vec<String>| dims.iter().map(|d| Formula::parse(d)).collect::<Result<Vec<_>>>();
                rule.shapes = shapes.into_iter().map(parse).collect::<Result<_>>()?;
            }
            _ => return Err(unknown(key, &["madds", "other_flops", "inputs", "outputs", "shapes"])),
        }
    }
    if rule.madds.is_none() && rule.other_flops.is_none() {
        return Err(Error::input("a rule needs madds or other_flops"));
    }
    Ok(rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_and_mistakes_are_named() {
        let text =
            "[ops.\"my.domain::Foo\"]\nmadds = \"n*oc\"\nshapes = [\"n oc ih-kh+1 iw\"]\n[ops.Bar]\nother_flops = 7\n";
        let config = Config::parse(text).unwrap();
        assert_eq!(config.rules.get("my.domain", "Foo").unwrap().shapes[0].len(), 4);
        assert!(config.rules.get("ai.onnx", "Bar").is_some() && config.rules.get("my.domain", "Bar").is_none());
        for (text, says) in [
            ("[opps]", "no setting 'opps'"),
            ("[ops.\"a::B\"]\nmadd = \"1\"", "no setting 'madd'"),
            ("[ops.\"a::B\"]\nmadds = \"1 +\"", "ends where"),
            ("[ops.\"a::B\"]\ninputs = [\"n\"]", "needs madds"),
            ("[ops.\"a::B\"]\nmadds = \"1\"\ninputs = \"n\"", "list of strings"),
            ("ops = 3", "must be a table"),
            ("[ops", "line 1, column 5: unclosed table"),
        ] {
            let e = Config::parse(text).unwrap_err().to_string();
            assert!(e.contains(says), "{text}: {e}");
        }
    }
}
