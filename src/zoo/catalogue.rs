//! The definitions under `zoo/`, embedded in the binary and read once: families, their models, knobs, rows and figures.
//!
//! To add an architecture: write `zoo/NAME.json` (its rows name blocks from [`super::blocks`]) and add one line to [`FILES`].

use crate::error::{Error, Result};
use serde_json::{Map, Value as Json};
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// The embedded definition files: one line per family.
const FILES: &[(&str, &str)] = &[
    ("alexnet", include_str!("../../zoo/alexnet.json")),
    ("bert", include_str!("../../zoo/bert.json")),
    ("condconv", include_str!("../../zoo/condconv.json")),
    ("convnext", include_str!("../../zoo/convnext.json")),
    ("deform_resnet", include_str!("../../zoo/deform_resnet.json")),
    ("densenet", include_str!("../../zoo/densenet.json")),
    ("efficientnet", include_str!("../../zoo/efficientnet.json")),
    ("efficientnet_v2", include_str!("../../zoo/efficientnet_v2.json")),
    ("ghostnet", include_str!("../../zoo/ghostnet.json")),
    ("ghostnet_v2", include_str!("../../zoo/ghostnet_v2.json")),
    ("googlenet", include_str!("../../zoo/googlenet.json")),
    ("gpt", include_str!("../../zoo/gpt.json")),
    ("inception", include_str!("../../zoo/inception.json")),
    ("llama", include_str!("../../zoo/llama.json")),
    ("mnasnet", include_str!("../../zoo/mnasnet.json")),
    ("mobilenet_v1", include_str!("../../zoo/mobilenet_v1.json")),
    ("mobilenet_v2", include_str!("../../zoo/mobilenet_v2.json")),
    ("mobilenet_v3", include_str!("../../zoo/mobilenet_v3.json")),
    ("mobilenet_v4", include_str!("../../zoo/mobilenet_v4.json")),
    ("odconv", include_str!("../../zoo/odconv.json")),
    ("regnet", include_str!("../../zoo/regnet.json")),
    ("resnet", include_str!("../../zoo/resnet.json")),
    ("shufflenet_v1", include_str!("../../zoo/shufflenet_v1.json")),
    ("shufflenet_v2", include_str!("../../zoo/shufflenet_v2.json")),
    ("slimmable", include_str!("../../zoo/slimmable.json")),
    ("squeezenet", include_str!("../../zoo/squeezenet.json")),
    ("swin", include_str!("../../zoo/swin.json")),
    ("vgg", include_str!("../../zoo/vgg.json")),
    ("vit", include_str!("../../zoo/vit.json")),
];

/// Something a user may set after `@`.
#[derive(Debug, Clone, PartialEq)]
pub struct Knob {
    /// Name.
    pub name: String,
    /// Value when not set.
    pub default: Setting,
    /// What may be set.
    pub allowed: Allowed,
    /// What it does.
    pub about: String,
}

/// A knob's value.
#[derive(Debug, Clone, PartialEq)]
pub enum Setting {
    /// A whole number.
    Int(i64),
    /// A multiplier.
    Float(f64),
    /// One of several words.
    Word(String),
}

/// The values a knob takes.
#[derive(Debug, Clone, PartialEq)]
pub enum Allowed {
    /// Whole numbers from..=to.
    Ints(i64, i64),
    /// Numbers from..=to.
    Floats(f64, f64),
    /// One of these.
    Words(Vec<String>),
}

impl std::fmt::Display for Setting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Setting::Int(v) => write!(f, "{v}"),
            Setting::Float(v) => write!(f, "{v}"),
            Setting::Word(v) => f.write_str(v),
        }
    }
}

impl std::fmt::Display for Allowed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Allowed::Ints(a, b) => write!(f, "a whole number from {a} to {b}"),
            Allowed::Floats(a, b) => write!(f, "a number from {a} to {b}"),
            Allowed::Words(words) => write!(f, "one of {}", words.join(", ")),
        }
    }
}

impl Allowed {
    /// The setting a user wrote, if it is allowed.
    pub fn parse(&self, text: &str) -> Option<Setting> {
        match self {
            Allowed::Ints(a, b) => text.parse().ok().filter(|v| (a..=b).contains(&v)).map(Setting::Int),
            Allowed::Floats(a, b) => text.parse().ok().filter(|v| (a..=b).contains(&v)).map(Setting::Float),
            Allowed::Words(words) => {
                let number = |t: &str| t.parse::<f64>().ok();
                let same =
                    |w: &&String| w.eq_ignore_ascii_case(text) || (number(w).is_some() && number(w) == number(text));
                words.iter().find(same).cloned().map(Setting::Word)
            }
        }
    }
}

/// A figure somebody published for a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Published {
    /// Zoo name with knobs it is about.
    pub at: String,
    /// Parameters in millions, as printed.
    pub params_m: Option<f64>,
    /// Multiply-adds in millions, as printed (whatever the source calls them).
    pub madds_m: Option<f64>,
    /// ImageNet top-1 accuracy in percent.
    pub top1_pct: Option<f64>,
    /// Where it was printed.
    pub source: String,
    /// How the source counts, or where it errs, if that differs from ours.
    pub note: Option<String>,
}

/// Integers known for a model from independent counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exact {
    /// Zoo name with knobs.
    pub at: String,
    /// Trainable parameters.
    pub params: u64,
    /// Multiply-adds of one inference.
    pub madds: u64,
    /// Of these, in depthwise convolutions.
    pub dw_madds: u64,
    /// BatchNorm running means and variances.
    pub bn_statistics: u64,
}

/// One model of a family.
#[derive(Debug, Clone)]
pub struct Model {
    /// Zoo name.
    pub name: String,
    /// What it is.
    pub about: String,
    /// Further names it answers to (case, `-`, `_` and `.` never matter).
    pub aliases: Vec<String>,
    /// Knobs with this model's defaults.
    pub knobs: Vec<Knob>,
    /// Values its rows refer to as `$name`.
    pub set: Map<String, Json>,
    /// Its rows.
    pub rows: Vec<Map<String, Json>>,
}

/// An architecture family: one file.
#[derive(Debug, Clone)]
pub struct Family {
    /// Name for people.
    pub title: String,
    /// What marks it.
    pub about: String,
    /// The paper or definition it follows.
    pub source: String,
    /// Channel counts scaled by `width` are rounded to multiples of this.
    pub round: usize,
    /// What the network eats.
    pub input: String,
    /// What its result is called.
    pub output: String,
    /// Row fields that hold unless a row says otherwise.
    pub defaults: Map<String, Json>,
    /// Its models.
    pub models: Vec<Model>,
    /// Published figures.
    pub published: Vec<Published>,
    /// Exact integers.
    pub exact: Vec<Exact>,
}

/// All families, or the first thing wrong with a definition.
pub fn families() -> Result<&'static [Family]> {
    static ALL: LazyLock<Result<Vec<Family>>> =
        LazyLock::new(|| FILES.iter().map(|(name, text)| family(text).map_err(|e| in_file(name, &e))).collect());
    match &*ALL {
        Ok(all) => Ok(all),
        Err(e) => Err(e.clone()),
    }
}

fn in_file(name: &str, e: &Error) -> Error {
    Error::input(format!("zoo/{name}.json: {}", e.message()))
}

fn missing(what: &str) -> Error {
    Error::input(format!("'{what}' is missing or of the wrong kind"))
}

fn object<'a>(v: &'a Json, what: &str) -> Result<&'a Map<String, Json>> {
    v.as_object().ok_or_else(|| missing(what))
}

fn text(v: &Map<String, Json>, key: &str) -> Result<String> {
    v.get(key).and_then(Json::as_str).map(Into::into).ok_or_else(|| missing(key))
}

fn list<'a>(v: &'a Map<String, Json>, key: &str) -> Result<&'a [Json]> {
    match v.get(key) {
        None => Ok(&[]),
        Some(Json::Array(a)) => Ok(a),
        Some(_) => Err(missing(key)),
    }
}

fn map(v: &Map<String, Json>, key: &str) -> Result<Map<String, Json>> {
    match v.get(key) {
        None => Ok(Map::new()),
        Some(m) => object(m, key).cloned(),
    }
}

fn family(json: &str) -> Result<Family> {
    let root: Json = serde_json::from_str(json).map_err(|e| Error::input(e.to_string()))?;
    let root = object(&root, "the definition")?;
    let knobs = map(root, "knobs")?.iter().map(|(name, k)| knob(name, k)).collect::<Result<Vec<Knob>>>()?;
    let rows = rows(root)?;
    let mut models: Vec<Model> = Vec::new();
    for (name, m) in &map(root, "models")? {
        models.push(model(name, object(m, name)?, &knobs, rows.as_deref(), &models)?);
    }
    let titled = |key: &str| text(root, key);
    Ok(Family {
        title: titled("title")?,
        about: titled("about")?,
        source: titled("source")?,
        round: root.get("round").and_then(Json::as_u64).unwrap_or(8) as usize,
        input: titled("input").unwrap_or_else(|_| "image".into()),
        output: titled("output").unwrap_or_else(|_| "logits".into()),
        defaults: map(root, "defaults")?,
        models,
        published: list(root, "published")?.iter().map(published).collect::<Result<_>>()?,
        exact: list(root, "exact")?.iter().map(exact).collect::<Result<_>>()?,
    })
}

fn rows(v: &Map<String, Json>) -> Result<Option<Vec<Map<String, Json>>>> {
    if !v.contains_key("rows") {
        return Ok(None);
    }
    list(v, "rows")?.iter().map(|r| object(r, "a row").cloned()).collect::<Result<_>>().map(Some)
}

/// A model may be `like` an earlier one and then only says what differs.
fn model(
    name: &str,
    m: &Map<String, Json>,
    knobs: &[Knob],
    family_rows: Option<&[Map<String, Json>]>,
    earlier: &[Model],
) -> Result<Model> {
    let base = match m.get("like").and_then(Json::as_str) {
        Some(like) => Some(earlier.iter().find(|e| e.name == like).ok_or_else(|| missing(like))?),
        None => None,
    };
    let mut knobs = base.map_or_else(|| knobs.to_vec(), |b| b.knobs.clone());
    for (name, own) in &map(m, "own_knobs")? {
        knobs.insert(0, knob(name, own)?);
    }
    let without = list(m, "without")?;
    knobs.retain(|k| !without.iter().any(|w| w.as_str() == Some(&k.name)));
    for (knob, value) in &map(m, "knobs")? {
        let known = knobs.iter_mut().find(|k| k.name == *knob).ok_or_else(|| missing(knob))?;
        let written = value.as_str().map_or_else(|| value.to_string(), Into::into);
        known.default = known.allowed.parse(&written).ok_or_else(|| missing(knob))?;
    }
    let mut set = base.map(|b| b.set.clone()).unwrap_or_default();
    set.extend(map(m, "set")?);
    let own_rows = rows(m)?.or_else(|| base.map(|b| b.rows.clone())).or_else(|| family_rows.map(<[_]>::to_vec));
    Ok(Model {
        name: name.into(),
        about: text(m, "about")?,
        aliases: list(m, "aliases")?.iter().filter_map(Json::as_str).map(Into::into).collect(),
        knobs,
        set,
        rows: own_rows.ok_or_else(|| missing("rows"))?,
    })
}

/// A knob's type is that of its default: `1.0` a multiplier, `224` a whole number, `"v1"` a word.
fn knob(name: &str, k: &Json) -> Result<Knob> {
    let k = object(k, name)?;
    let bound = |key: &str| k.get(key).ok_or_else(|| missing(key));
    let (default, allowed) = match bound("default")? {
        Json::String(word) => {
            let words = list(k, "choices")?.iter().filter_map(Json::as_str).map(Into::into).collect();
            (Setting::Word(word.clone()), Allowed::Words(words))
        }
        number => match number.as_i64() {
            Some(v) => {
                let whole = |key: &str| bound(key)?.as_i64().ok_or_else(|| missing(key));
                (Setting::Int(v), Allowed::Ints(whole("min")?, whole("max")?))
            }
            None => {
                let float = |key: &str| bound(key)?.as_f64().ok_or_else(|| missing(key));
                (Setting::Float(float("default")?), Allowed::Floats(float("min")?, float("max")?))
            }
        },
    };
    Ok(Knob { name: name.into(), default, allowed, about: text(k, "about")? })
}

fn published(v: &Json) -> Result<Published> {
    let v = object(v, "published")?;
    let number = |key: &str| v.get(key).and_then(Json::as_f64);
    Ok(Published {
        at: text(v, "at")?,
        params_m: number("params_m"),
        madds_m: number("madds_m"),
        top1_pct: number("top1_pct"),
        source: text(v, "source")?,
        note: text(v, "note").ok(),
    })
}

fn exact(v: &Json) -> Result<Exact> {
    let v = object(v, "exact")?;
    let whole = |key: &str| v.get(key).and_then(Json::as_u64).ok_or_else(|| missing(key));
    Ok(Exact {
        at: text(v, "at")?,
        params: whole("params")?,
        madds: whole("madds")?,
        dw_madds: whole("dw_madds")?,
        bn_statistics: whole("bn_statistics")?,
    })
}

/// A name as it is compared: lower case, letters and digits only.
pub fn plain(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

/// The family and model a name (without knobs) stands for.
///
/// # Errors
/// If there is none; the hint lists the closest names.
pub fn find(name: &str) -> Result<(&'static Family, &'static Model)> {
    let wanted = plain(name);
    let all = families()?;
    let names = |m: &Model| -> Vec<String> { m.aliases.iter().chain([&m.name]).map(|n| plain(n)).collect() };
    for family in all {
        if let Some(model) = family.models.iter().find(|m| names(m).contains(&wanted)) {
            return Ok((family, model));
        }
    }
    let mut close: BTreeMap<(usize, &str), ()> = BTreeMap::new();
    for model in all.iter().flat_map(|f| &f.models) {
        let distance = names(model)
            .iter()
            .map(|n| {
                let part = wanted.len() >= 3 && (n.contains(&wanted) || wanted.contains(n.as_str()));
                if part { 1 } else { edits(n, &wanted) }
            })
            .min();
        if let Some(d) = distance.filter(|&d| d <= 2.max(wanted.len() / 3)) {
            close.insert((d, &model.name), ());
        }
    }
    let close: Vec<&str> = close.keys().take(4).map(|(_, n)| *n).collect();
    let hint = match close.is_empty() {
        true => "`madd-prof zoo list` shows all built-in architectures".to_string(),
        false => format!("did you mean {}? `madd-prof zoo list` shows all built-in architectures", close.join(", ")),
    };
    Err(Error::usage(format!("the zoo has no model named '{name}'")).hint(hint))
}

/// Levenshtein distance.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, &cb) in b.iter().enumerate() {
            let change = corner + usize::from(ca != cb);
            corner = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(corner + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn every_definition_reads_and_no_two_models_answer_to_one_name() {
        let mut owners: HashMap<String, &str> = HashMap::new();
        for model in families().unwrap().iter().flat_map(|f| &f.models) {
            for name in model.aliases.iter().chain([&model.name]) {
                assert_eq!(*owners.entry(plain(name)).or_insert(&model.name), model.name, "{name}");
            }
        }
    }

    #[test]
    fn spelling_does_not_matter_and_misspellings_get_hints() {
        for name in ["mobilenetv2", "mobilenet-v2", "MobileNetV2", "mobilenet_v2"] {
            assert_eq!(find(name).unwrap().1.name, "mobilenet_v2");
        }
        let e = find("mobilnet_v2").unwrap_err();
        assert!(e.hint_text().unwrap().contains("mobilenet_v2"), "{e}");
        let e = find("nonsense").unwrap_err();
        assert!(e.hint_text().unwrap().contains("zoo list"), "{e}");
        assert_eq!(edits("kitten", "sitting"), 3);
    }
}
