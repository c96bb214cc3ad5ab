//! Built-in architectures: definitions under `zoo/` turned into the same graphs an ONNX file would give.
//!
//! A name carries its knobs: `mobilenet_v2@width=0.5,res=192,classes=10,batch=1`. Weights are seeded by name and made only when
//! a run looks at them, so counting a model of any size costs nothing.

mod blocks;
mod catalogue;
mod net;
mod row;
pub mod seed;
mod slimmable;
mod together;

pub use catalogue::{Allowed, Exact, Knob, Published, Setting};
pub use net::OPSET;
pub use slimmable::Whole;

use crate::error::{Error, Result};
use crate::ops::spec::ModelSpec;
use crate::tensor::DType;
use catalogue::{Family, Model};
use net::{Net, Value};
use row::{Row, Width, resolve};
use serde_json::{Map, Value as Json};

/// One line of `zoo list`.
#[derive(Debug, Clone)]
pub struct Info {
    /// Name to build it by.
    pub name: &'static str,
    /// Its family.
    pub family: &'static str,
    /// What it is.
    pub about: &'static str,
    /// Names of its knobs.
    pub knobs: Vec<&'static str>,
}

/// What is known of one model, knobs applied.
#[derive(Debug, Clone)]
pub struct Definition {
    /// Its zoo name with every knob that differs from its default.
    pub name: String,
    /// Its family.
    pub family: &'static str,
    /// What it is.
    pub about: &'static str,
    /// What marks the family.
    pub family_about: &'static str,
    /// The paper or definition followed.
    pub source: &'static str,
    /// Its knobs, each with the value in force.
    pub knobs: Vec<(Knob, Setting)>,
    /// Its stages, input to output.
    pub stages: Vec<Stage>,
    /// Figures others published for models of this name.
    pub published: Vec<Published>,
    /// Exact integers for models of this name.
    pub exact: Vec<Exact>,
}

/// One row of a definition: a block, how often it is repeated, and what comes out.
#[derive(Debug, Clone, PartialEq)]
pub struct Stage {
    /// Block type.
    pub block: String,
    /// Module path of its first instance.
    pub path: String,
    /// How often it is repeated.
    pub repeat: usize,
    /// Its settings, as the definition writes them, references resolved.
    pub settings: Vec<(String, String)>,
    /// Sizes of its output.
    pub output: Vec<usize>,
}

/// All built-in models, family by family.
///
/// # Errors
/// If an embedded definition is malformed.
pub fn list() -> Result<Vec<Info>> {
    let line = |family: &'static Family, model: &'static Model| Info {
        name: &model.name,
        family: &family.title,
        about: &model.about,
        knobs: model.knobs.iter().map(|k| k.name.as_str()).collect(),
    };
    Ok(catalogue::families()?.iter().flat_map(|f| f.models.iter().map(move |m| line(f, m))).collect())
}

/// Whether a name (knobs may follow) belongs to the zoo.
pub fn knows(name: &str) -> bool {
    catalogue::find(name.split('@').next().unwrap_or(name)).is_ok()
}

/// The model a name stands for, as a graph.
///
/// # Errors
/// If the name or a knob is unknown, or a value is not allowed or too small for the network.
pub fn build(name: &str) -> Result<ModelSpec> {
    let choice = Choice::parse(name)?;
    if choice.is_together() {
        return together::build(&slimmable::all(&choice), &choice.name());
    }
    Ok(choice.assemble()?.0.finish(&choice.name()))
}

/// What is known of the model a name stands for.
///
/// # Errors
/// As [`build`].
pub fn show(name: &str) -> Result<Definition> {
    let choice = Choice::parse(name)?;
    let (_, stages) = choice.assemble()?;
    let Choice { family, model, settings } = &choice;
    let mine = |at: &str| at.split('@').next() == Some(&model.name);
    Ok(Definition {
        name: choice.name(),
        family: &family.title,
        about: &model.about,
        family_about: &family.about,
        source: &family.source,
        knobs: model.knobs.iter().cloned().zip(settings.iter().cloned()).collect(),
        stages,
        published: family.published.iter().filter(|p| mine(&p.at)).cloned().collect(),
        exact: family.exact.iter().filter(|e| mine(&e.at)).cloned().collect(),
    })
}

/// The switches of a slimmable network, each by its name; empty for other networks.
///
/// # Errors
/// As [`build`].
pub fn switches(name: &str) -> Result<Vec<String>> {
    slimmable::names(&Choice::parse(name)?)
}

/// What the switches of a slimmable network hold together; `None` for other networks.
///
/// # Errors
/// As [`build`].
pub fn whole(name: &str) -> Result<Option<Whole>> {
    slimmable::whole(&Choice::parse(name)?)
}

/// A model with its knobs set.
#[derive(Clone)]
struct Choice {
    family: &'static Family,
    model: &'static Model,
    /// One per knob, in order.
    settings: Vec<Setting>,
}

impl Choice {
    fn parse(text: &str) -> Result<Choice> {
        let (name, knobs) = text.split_once('@').unwrap_or((text, ""));
        let (family, model) = catalogue::find(name)?;
        let mut settings: Vec<Setting> = model.knobs.iter().map(|k| k.default.clone()).collect();
        let mut given = vec![false; settings.len()];
        for part in knobs.split([',', '@']).map(str::trim).filter(|p| !p.is_empty()) {
            let known = || model.knobs.iter().map(|k| k.name.as_str()).collect::<Vec<_>>().join(", ");
            let (key, value) = part.split_once('=').ok_or_else(|| {
                Error::usage(format!("'{part}' in '{text}' is not of the form knob=value")).hint(format!(
                    "knobs of {}: {}",
                    model.name,
                    known()
                ))
            })?;
            let (key, value) = (key.trim(), value.trim());
            let i = model.knobs.iter().position(|k| k.name.eq_ignore_ascii_case(key)).ok_or_else(|| {
                Error::usage(format!("{} has no knob '{key}'", model.name)).hint(format!("its knobs: {}", known()))
            })?;
            let allowed = &model.knobs[i].allowed;
            settings[i] = allowed.parse(value).ok_or_else(|| {
                Error::usage(format!("'{value}' is not a value of knob '{key}' of {}", model.name))
                    .hint(format!("{key} is {allowed}"))
            })?;
            if std::mem::replace(&mut given[i], true) {
                return Err(Error::usage(format!("knob '{key}' is set twice in '{text}'")));
            }
        }
        Ok(Choice { family, model, settings })
    }

    /// The shortest name that means this choice.
    fn name(&self) -> String {
        let set: Vec<String> = self
            .model
            .knobs
            .iter()
            .zip(&self.settings)
            .filter(|(k, s)| k.default != **s)
            .map(|(k, s)| format!("{}={s}", k.name))
            .collect();
        if set.is_empty() { self.model.name.clone() } else { format!("{}@{}", self.model.name, set.join(",")) }
    }

    fn setting(&self, knob: &str) -> Option<&Setting> {
        self.model.knobs.iter().position(|k| k.name == knob).map(|i| &self.settings[i])
    }

    /// Whether all switches of a slimmable network are asked for in one model.
    fn is_together(&self) -> bool {
        matches!(self.setting("switch"), Some(Setting::Word(w)) if w == "all")
    }

    fn size(&self, knob: &str, default: usize) -> usize {
        match self.setting(knob) {
            Some(Setting::Int(v)) => usize::try_from(*v).unwrap_or(default),
            _ => default,
        }
    }

    fn float(&self, knob: &str) -> f64 {
        match self.setting(knob) {
            Some(Setting::Float(v)) => *v,
            Some(Setting::Word(word)) => word.parse().unwrap_or(1.0),
            _ => 1.0,
        }
    }

    /// What rows may refer to: the model's own values, and the knobs.
    fn vars(&self) -> Map<String, Json> {
        let mut vars = self.model.set.clone();
        for (knob, setting) in self.model.knobs.iter().zip(&self.settings) {
            let value = match setting {
                Setting::Int(v) => (*v).into(),
                Setting::Float(v) => (*v).into(),
                Setting::Word(v) => v.as_str().into(),
            };
            vars.insert(knob.name.clone(), value);
        }
        vars
    }

    fn assemble(&self) -> Result<(Net, Vec<Stage>)> {
        let net = Net::at(slimmable::switch(self)?);
        self.assemble_at(self.float("width"), net)
    }

    /// At a width of its own, into a net.
    fn assemble_at(&self, width: f64, mut net: Net) -> Result<(Net, Vec<Stage>)> {
        let vars = self.vars();
        let round = vars.get("round").and_then(Json::as_u64).map_or(self.family.round, |r| r as usize);
        let width = Width { by: width, round };
        let batch = self.size("batch", 1);
        let mut x = match self.family.input.as_str() {
            "tokens" => net.input("input_ids", DType::I64, &[batch, self.size("seq", 1)]),
            _ => {
                let res = self.size("res", 224);
                net.input("input", DType::F32, &[batch, 3, res, res])
            }
        };
        let mut stages = Vec::new();
        for fields in &self.model.rows {
            if let Some(stage) = self.row(&mut net, &mut x, fields, &vars, width)? {
                stages.push(stage);
            }
        }
        net.output(&x, self.family.output.as_str());
        Ok((net, stages))
    }

    /// Appends a row, all its repetitions; `None` if its condition does not hold.
    fn row(
        &self,
        net: &mut Net,
        x: &mut Value,
        fields: &Map<String, Json>,
        vars: &Map<String, Json>,
        width: Width,
    ) -> Result<Option<Stage>> {
        let mut row = Row { fields, defaults: &self.family.defaults, vars, width, path: String::new(), index: 0 };
        if !row.flag_or("if", true)? {
            return Ok(None);
        }
        let name = row.opt_text("name")?.unwrap_or("").to_string();
        let block_name = row.text_or("block", "")?.to_string();
        let block = blocks::find(&block_name)?;
        let repeat = match row.opt_size("n")? {
            None => 1,
            // Rows that can repeat grow with the network's depth.
            Some(n) => (n as f64 * self.float("depth")).ceil() as usize,
        };
        let mut first = None;
        for index in 0..repeat {
            let path = name.replace("{n}", &index.to_string()).replace("{n1}", &(index + 1).to_string());
            row.path = if path.contains("{i}") { net.numbered(&path) } else { path };
            row.index = index;
            first.get_or_insert_with(|| row.path.clone());
            *x = block(net, &row, x)?;
        }
        let shown = |(k, v): (&String, &Json)| {
            let value = resolve(v, vars)?;
            Some((k.clone(), value.as_str().map_or_else(|| value.to_string(), Into::into)))
        };
        let settings = fields
            .iter()
            .filter(|(k, _)| !matches!(k.as_str(), "block" | "name" | "n" | "if"))
            .filter_map(shown)
            .collect();
        let path = first.unwrap_or_default();
        Ok(Some(Stage { block: block_name, path, repeat, settings, output: x.dims.clone() }))
    }
}
