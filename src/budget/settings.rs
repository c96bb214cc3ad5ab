//! `[check]` and `[[budget]]` of `madd-prof.toml`.
//!
//! ```toml
//! [check]                          # optional: what holds for all budgets
//! level = "error"                  # off, warn or error
//! baseline = "madd-prof-baseline.json"
//!
//! [[budget]]
//! name = "classifier"
//! model = "models/*.onnx"          # a file, a pattern (* ? **) or a built-in network; from this file's folder
//! dims = { batch = 1 }             # optional, as --dim; shapes = { x = [1, 3, 224, 224] } as --input-shape; values as --value
//! params = "3.6M"                  # at most; or { max = "3.6M", min = 1, level = "warn" }
//! coverage = 100                   # at least this share of nodes and bytes has a known cost, in percent
//! layer.madds = "20M"              # every single layer
//! op.Conv.madds = "290M"           # all layers of an operator together
//! growth.madds = "2%"              # more than in the baseline: a share or an amount
//! formulas = ["madds(res=320) < 700e6"]
//! latency = { against = "main:models/a.onnx", growth = "5%" }    # or build = "path/to/other/madd-prof"
//! ```

use super::Level;
use super::amount::{Growth, amount};
use super::baseline;
use super::formula::Comparison;
use super::snapshot::{METRICS, Metric};
use crate::config::{Config, unknown};
use crate::error::{Error, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// What a limit is about.
#[derive(Debug, Clone, PartialEq)]
pub enum Scope {
    /// The whole model.
    Model,
    /// Every layer by itself.
    Layer,
    /// All layers of this operator together.
    Op(String),
}

/// What a latency is held against.
#[derive(Debug, Clone, PartialEq)]
pub enum Against {
    /// Another model: a file, a built-in network or `REVISION:PATH`.
    Model(String),
    /// Another build of this program, running the same model.
    Build(PathBuf),
}

/// A limit's test.
#[derive(Debug, Clone, PartialEq)]
pub enum Test {
    /// At most.
    Most(Scope, Metric, u64),
    /// At least.
    Least(Scope, Metric, u64),
    /// At least this share of nodes and of bytes has a known cost, in percent.
    Coverage(f64),
    /// No more than the baseline and this.
    Growth(Metric, Growth),
    /// A comparison of figures.
    Formula(Comparison),
    /// At most this factor of what the other takes, both timed in turns.
    Latency {
        /// The other.
        against: Against,
        /// The factor.
        most: f64,
        /// Threads; all cores if not given.
        threads: Option<usize>,
        /// Seconds for each of the two.
        seconds: f64,
    },
}

/// A limit.
#[derive(Debug, Clone, PartialEq)]
pub struct Limit {
    /// Key path in the file: `layer.madds`.
    pub rule: String,
    /// What must hold.
    pub test: Test,
    /// How much it matters.
    pub level: Level,
    /// Its line in the file, from 1.
    pub line: usize,
}

/// A named item: models and what they may cost.
#[derive(Debug, Clone, Default)]
pub struct Budget {
    /// Its name.
    pub name: String,
    /// A file, a pattern or a built-in network, as written.
    pub model: String,
    /// Sizes of free dims.
    pub dims: BTreeMap<String, usize>,
    /// Whole input shapes.
    pub shapes: BTreeMap<String, Vec<usize>>,
    /// Values of small inputs.
    pub values: BTreeMap<String, Vec<f64>>,
    /// Its limits.
    pub limits: Vec<Limit>,
}

/// All there is.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// The file.
    pub path: PathBuf,
    /// Its folder: what paths in it start from.
    pub folder: PathBuf,
    /// The baseline's file.
    pub baseline: PathBuf,
    /// The budgets.
    pub budgets: Vec<Budget>,
}

/// Seconds for each side of a latency limit.
const SECONDS: f64 = 2.0;

impl Settings {
    /// Reads what a configuration says of budgets.
    ///
    /// # Errors
    /// If there are none, or a key or value means nothing.
    pub fn of(config: &Config) -> Result<Settings> {
        let Some(path) = config.path.clone() else {
            return Err(Error::usage(format!("there is no {} here or in a folder above", crate::config::FILE)).hint(
                "`madd-prof init MODEL…` writes one from the models' present figures; --config FILE names another",
            ));
        };
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_path_buf();
        let mut level = Level::Error;
        let mut baseline = folder.join(baseline::FILE);
        for (key, value) in &config.check {
            match key.as_str() {
                "level" => level = level_of(value)?,
                "baseline" => baseline = folder.join(word(value, key)?),
                _ => return Err(unknown(key, &["level", "baseline"]).in_file(&path)),
            }
        }
        if config.budgets.is_empty() {
            return Err(Error::input("has no [[budget]]")
                .hint("`madd-prof init MODEL…` prints a start; see `madd-prof check --help`")
                .in_file(&path));
        }
        let mut budgets: Vec<Budget> = Vec::new();
        let mut all_lines = Lines::all(&config.text).into_iter();
        for (i, table) in config.budgets.iter().enumerate() {
            let lines = all_lines.next().unwrap_or_default();
            let name = table.get("name").and_then(Value::as_str).unwrap_or_default();
            let at = |e: Error| {
                let which = if name.is_empty() { format!("[[budget]] {}", i + 1) } else { format!("budget '{name}'") };
                let named = Error::input(format!("{which}: {}", e.message()));
                let named = e.hint_text().map_or(named.clone(), |h| named.hint(h));
                named.in_file(&path)
            };
            let b = budget(table, level, &lines).map_err(at)?;
            if budgets.iter().any(|o| o.name == b.name) {
                return Err(at(Error::input("there are two of this name")));
            }
            budgets.push(b);
        }
        Ok(Settings { path, folder, baseline, budgets })
    }
}

fn word<'a>(value: &'a Value, key: &str) -> Result<&'a str> {
    value.as_str().ok_or_else(|| Error::input(format!("{key} must be text in quotes")))
}

fn table<'a>(value: &'a Value, key: &str) -> Result<&'a Table> {
    value.as_table().ok_or_else(|| Error::input(format!("{key} must be a table: {key}.madds = \"20M\"")))
}

fn level_of(value: &Value) -> Result<Level> {
    match value.as_str() {
        Some("off") => Ok(Level::Off),
        Some("warn") => Ok(Level::Warn),
        Some("error") => Ok(Level::Error),
        _ => Err(Error::input("level must be \"off\", \"warn\" or \"error\"")),
    }
}

fn size(value: &Value, key: &str) -> Result<usize> {
    let n = value.as_integer().and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0);
    n.ok_or_else(|| Error::input(format!("{key} must be a whole number of at least 1")))
}

fn amount_of(value: &Value, key: &str) -> Result<u64> {
    let keyed = |e: Error| {
        let named = Error::input(format!("{key}: {}", e.message()));
        e.hint_text().map_or(named.clone(), |h| named.hint(h))
    };
    match value {
        Value::Integer(n) => u64::try_from(*n).map_err(|_| Error::input(format!("{key} must not be negative"))),
        Value::Float(v) if *v >= 0.0 && *v < 1.8e19 && v.fract() == 0.0 => Ok(*v as u64),
        Value::String(text) => amount(text).map_err(keyed),
        _ => Err(Error::input(format!("{key} must be an amount: 3_600_000 or \"3.6M\""))),
    }
}

fn share_of(value: &Value, key: &str) -> Result<f64> {
    let v = match value {
        Value::Integer(n) => Some(*n as f64),
        Value::Float(v) => Some(*v),
        Value::String(t) => t.trim_end_matches(['%', ' ']).parse().ok(),
        _ => None,
    };
    v.filter(|v| (0.0..=100.0).contains(v)).ok_or_else(|| Error::input(format!("{key} must be a percentage to 100")))
}

fn budget(t: &Table, level: Level, lines: &Lines) -> Result<Budget> {
    let mut b = Budget::default();
    let level = t.get("level").map_or(Ok(level), level_of)?;
    for (key, value) in t {
        match key.as_str() {
            "name" => b.name = word(value, key)?.to_string(),
            "model" => b.model = word(value, key)?.to_string(),
            "level" => {}
            "dims" => {
                for (name, n) in table(value, key)? {
                    b.dims.insert(name.clone(), size(n, name)?);
                }
            }
            "shapes" => {
                for (name, dims) in table(value, key)? {
                    let dims =
                        dims.as_array().ok_or_else(|| Error::input("shapes must be lists: x = [1, 3, 224, 224]"))?;
                    b.shapes.insert(name.clone(), dims.iter().map(|n| size(n, name)).collect::<Result<_>>()?);
                }
            }
            "values" => {
                for (name, v) in table(value, key)? {
                    let list = v.as_array().cloned().unwrap_or_else(|| vec![v.clone()]);
                    let number = |v: &Value| match v {
                        Value::Integer(n) => Some(*n as f64),
                        Value::Float(v) => Some(*v),
                        Value::Boolean(v) => Some(f64::from(u8::from(*v))),
                        _ => None,
                    };
                    let list: Option<Vec<f64>> = list.iter().map(number).collect();
                    let wrong = || Error::input(format!("values.{name} must be a number or a list of numbers"));
                    b.values.insert(name.clone(), list.ok_or_else(wrong)?);
                }
            }
            "coverage" => {
                let (value, level) = leveled(value, level, "min")?;
                let test = Test::Coverage(share_of(value, key)?);
                b.limits.push(Limit { rule: key.clone(), test, level, line: lines.of(&[key]) });
            }
            "layer" => {
                for (metric, value) in table(value, key)? {
                    bounds(&mut b.limits, &format!("layer.{metric}"), Scope::Layer, metric, value, level, lines)?;
                }
            }
            "op" => {
                for (op, metrics) in table(value, key)? {
                    for (metric, value) in table(metrics, &format!("op.{op}"))? {
                        let rule = format!("op.{op}.{metric}");
                        bounds(&mut b.limits, &rule, Scope::Op(op.clone()), metric, value, level, lines)?;
                    }
                }
            }
            "growth" => {
                for (name, value) in table(value, key)? {
                    let metric = metric(name, false)?;
                    let (value, level) = leveled(value, level, "max")?;
                    let growth = match value {
                        Value::String(text) => Growth::parse(text)?,
                        value => Growth::Amount(amount_of(value, name)?),
                    };
                    let rule = format!("growth.{name}");
                    let line = lines.of(&["growth", name]);
                    b.limits.push(Limit { rule, test: Test::Growth(metric, growth), level, line });
                }
            }
            "formulas" => {
                let wrong = || Error::input("formulas must be a list of texts: [\"madds(seq=4096) < 2e12\"]");
                for f in value.as_array().ok_or_else(wrong)? {
                    let (f, level) = leveled(f, level, "if")?;
                    let text = f.as_str().ok_or_else(wrong)?;
                    let test = Test::Formula(Comparison::parse(text)?);
                    b.limits.push(Limit { rule: "formula".into(), test, level, line: lines.holding(text) });
                }
            }
            "latency" => b.limits.push(latency(table(value, key)?, level, lines.of(&[key]))?),
            key if Metric::named(key).is_some() => {
                bounds(&mut b.limits, key, Scope::Model, key, value, level, lines)?;
            }
            _ => {
                let mut known: Vec<&str> = vec!["name", "model", "level", "dims", "shapes", "values"];
                known.extend(METRICS.iter().map(|m| m.1));
                known.extend(["coverage", "layer", "op", "growth", "formulas", "latency"]);
                return Err(unknown(key, &known));
            }
        }
    }
    if b.name.is_empty() || b.model.is_empty() {
        return Err(Error::input(format!("needs a {}", if b.name.is_empty() { "name" } else { "model" })));
    }
    // In the file's order, whatever order the table has.
    b.limits.sort_by_key(|l| l.line);
    Ok(b)
}

fn metric(name: &str, per_row: bool) -> Result<Metric> {
    let known: Vec<&str> = METRICS.iter().filter(|m| !per_row || m.0.is_per_row()).map(|m| m.1).collect();
    Metric::named(name).filter(|m| !per_row || m.is_per_row()).ok_or_else(|| unknown(name, &known))
}

/// The value of a key, bare or in a table with a level of its own.
fn leveled<'a>(value: &'a Value, level: Level, key: &str) -> Result<(&'a Value, Level)> {
    let Some(t) = value.as_table() else { return Ok((value, level)) };
    if let Some(other) = t.keys().find(|k| *k != key && *k != "level") {
        return Err(unknown(other, &[key, "level"]));
    }
    let level = t.get("level").map_or(Ok(level), level_of)?;
    Ok((t.get(key).ok_or_else(|| Error::input(format!("a limit in braces needs '{key}'")))?, level))
}

fn bounds(
    into: &mut Vec<Limit>,
    rule: &str,
    scope: Scope,
    name: &str,
    value: &Value,
    level: Level,
    lines: &Lines,
) -> Result<()> {
    let metric = metric(name, scope != Scope::Model)?;
    let line = lines.of(&rule.split('.').collect::<Vec<_>>());
    let mut add = |test, level| into.push(Limit { rule: rule.to_string(), test, level, line });
    let Some(t) = value.as_table() else {
        add(Test::Most(scope, metric, amount_of(value, rule)?), level);
        return Ok(());
    };
    let level = t.get("level").map_or(Ok(level), level_of)?;
    let mut any = false;
    for (key, value) in t {
        match key.as_str() {
            "max" => add(Test::Most(scope.clone(), metric, amount_of(value, rule)?), level),
            "min" => add(Test::Least(scope.clone(), metric, amount_of(value, rule)?), level),
            "level" => continue,
            _ => return Err(unknown(key, &["max", "min", "level"])),
        }
        any = true;
    }
    if any { Ok(()) } else { Err(Error::input(format!("{rule}: a limit in braces needs 'max' or 'min'"))) }
}

fn latency(t: &Table, level: Level, line: usize) -> Result<Limit> {
    let mut against = None;
    let (mut most, mut threads, mut seconds) = (None, None, SECONDS);
    let mut level = level;
    for (key, value) in t {
        match key.as_str() {
            "against" => against = Some(Against::Model(word(value, key)?.to_string())),
            "build" => against = Some(Against::Build(word(value, key)?.into())),
            "growth" => {
                let text = word(value, key)?;
                let Growth::Percent(d) = Growth::parse(text)? else {
                    return Err(Error::input("latency.growth must be a share, \"5%\": no runner keeps absolute times"));
                };
                most = Some(1.0 + d.value() / 100.0);
            }
            "threads" => threads = Some(size(value, key)?),
            "seconds" => {
                let s = value.as_float().or(value.as_integer().map(|n| n as f64)).filter(|s| *s > 0.0 && *s < 3600.0);
                seconds = s.ok_or_else(|| Error::input("latency.seconds must be a number above 0"))?;
            }
            "level" => level = level_of(value)?,
            _ => return Err(unknown(key, &["against", "build", "growth", "threads", "seconds", "level"])),
        }
    }
    let needs = || {
        Error::input("latency needs 'against' (a model) or 'build' (another madd-prof), and 'growth'")
            .hint("latency = { against = \"main:model.onnx\", growth = \"5%\" }")
    };
    let both = t.contains_key("against") && t.contains_key("build");
    let (Some(against), Some(most), false) = (against, most, both) else { return Err(needs()) };
    Ok(Limit { rule: "latency".into(), test: Test::Latency { against, most, threads, seconds }, level, line })
}

/// Where keys stand in the file.
#[derive(Default)]
struct Lines<'a> {
    /// The lines of one budget, numbered from 1.
    own: Vec<(usize, &'a str)>,
}

impl<'a> Lines<'a> {
    /// The lines of every budget of a file.
    fn all(text: &'a str) -> Vec<Lines<'a>> {
        let mut all: Vec<Lines> = Vec::new();
        let mut inside = false;
        for (i, line) in text.lines().map(str::trim).enumerate() {
            if line.starts_with('[') {
                if line.replace(' ', "").starts_with("[[budget]]") {
                    all.push(Lines::default());
                    inside = true;
                } else if !line.starts_with("[budget.") {
                    inside = false;
                }
            }
            if let Some(lines) = all.last_mut().filter(|_| inside) {
                lines.own.push((i + 1, line));
            }
        }
        all
    }
    fn first(&self) -> usize {
        self.own.first().map_or(1, |l| l.0)
    }
    /// The line of a key path: written whole, under a table's heading, or inside a table on one line.
    fn of(&self, path: &[&str]) -> usize {
        let mut heading: Vec<String> = Vec::new();
        let mut best = (0, self.first());
        for &(i, line) in &self.own {
            if let Some(h) = line.strip_prefix("[budget.") {
                heading = keys(h.trim_end_matches(']'));
                continue;
            }
            let Some((key, value)) = line.split_once('=').filter(|_| !line.starts_with('#')) else { continue };
            let full: Vec<String> = heading.iter().cloned().chain(keys(key)).collect();
            let common = full.iter().zip(path).take_while(|(a, b)| a == *b).count();
            let rest_named = path[common..].iter().all(|p| value.contains(p));
            if common == full.len() && rest_named && common > best.0 {
                best = (common, i);
            }
        }
        best.1
    }
    /// The first line that holds a text.
    fn holding(&self, text: &str) -> usize {
        self.own.iter().find(|(_, l)| l.contains(text)).map_or_else(|| self.of(&["formulas"]), |l| l.0)
    }
}

fn keys(text: &str) -> Vec<String> {
    text.split('.').map(|k| k.trim().trim_matches(['"', '\'']).to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Settings> {
        let mut config = Config::parse(text)?;
        config.path = Some("dir/madd-prof.toml".into());
        Settings::of(&config)
    }

    #[test]
    fn limits_are_read_with_their_lines_and_levels() {
        let text = r#"
[check]
level = "warn"
baseline = "base.json"

[[budget]]
name = "a"
model = "m/*.onnx"
dims = { batch = 1 }
params = "3.6M"
madds = { max = "310M", level = "error" }
op.Conv.madds = 7
layer = { madds = "20M" }
formulas = [
  "madds(res=320) < 700e6",
]
growth.madds = "2%"

[budget.op.Gemm]
params = 5

[[budget]]
name = "b"
model = "resnet18"
params = 5
coverage = 99.5
latency = { against = "resnet34", growth = "5%", threads = 1 }
"#;
        let s = read(text).unwrap();
        assert_eq!((s.folder.as_path(), s.baseline.as_path()), (Path::new("dir"), Path::new("dir/base.json")));
        let told = |b: &Budget| -> Vec<(String, usize, Level)> {
            b.limits.iter().map(|l| (l.rule.clone(), l.line, l.level)).collect()
        };
        let w = Level::Warn;
        let want = [
            ("params", 10, w),
            ("madds", 11, Level::Error),
            ("op.Conv.madds", 12, w),
            ("layer.madds", 13, w),
            ("formula", 15, w),
            ("growth.madds", 17, w),
            ("op.Gemm.params", 20, w),
        ];
        assert_eq!(told(&s.budgets[0]), want.map(|(r, n, l)| (r.to_string(), n, l)));
        let want = [("params", 25, w), ("coverage", 26, w), ("latency", 27, w)];
        assert_eq!(told(&s.budgets[1]), want.map(|(r, n, l)| (r.to_string(), n, l)));
        let Test::Latency { most, threads, .. } = &s.budgets[1].limits[2].test else { panic!() };
        assert_eq!((*most, *threads), (1.05, Some(1)));
    }

    #[test]
    fn mistakes_are_named_with_their_budget() {
        let budget = |line: &str| format!("[[budget]]\nname = \"a\"\nmodel = \"m\"\n{line}\n");
        for (text, says) in [
            (String::new(), "has no [[budget]]"),
            ("[check]\nspeed = 1".into(), "no setting 'speed'"),
            ("budget = 3".into(), "list of tables"),
            ("[[budget]]\nname = \"a\"".into(), "needs a model"),
            ("[[budget]]\nmodel = \"a\"".into(), "needs a name"),
            (budget("speed = 3"), "budget 'a': there is no setting 'speed'"),
            (budget("madds = \"many\""), "madds: 'many' is no amount"),
            (budget("madds = -3"), "negative"),
            (budget("madds = { level = \"warn\" }"), "'max' or 'min'"),
            (budget("level = \"loud\""), "\"off\", \"warn\" or \"error\""),
            (budget("layer.file_bytes = 3"), "no setting 'file_bytes'"),
            (budget("latency = { growth = \"5%\" }"), "needs 'against'"),
            (budget("latency = { against = \"x\", growth = 5 }"), "text in quotes"),
            (budget("latency = { against = \"x\", growth = \"5\" }"), "must be a share"),
            (budget("formulas = [\"madds\"]"), "compares nothing"),
            (budget("coverage = 120"), "percentage"),
            (format!("{0}{0}", budget("")), "two of this name"),
        ] {
            let e = read(&text).unwrap_err().to_string();
            assert!(e.contains(says), "{text}: {e}");
        }
    }
}
