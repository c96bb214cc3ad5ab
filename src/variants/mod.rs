//! Other architectures of a model: blocks that take the place of a dense convolution, and rewrites of whole graphs.
//!
//! To add a variant: write a file with its `ENTRY` (or entries) and add one line to [`VARIANTS`]. A variant works on the model as
//! written ([`ModelSpec`]) with the facts of the built graph beside it, keeps the model's inputs and outputs, and gives a model as
//! written, so that the result is built, counted, run and saved like any other. Nothing here counts: what a variant costs is what
//! the operators' own rules say of the result.
//!
//! A block has what its paper has between its convolutions that costs nothing to store (a ReLU), but no BatchNormalization: that
//! would fold into the convolutions before anything is measured. The original bias stays at the end of the block. New weights
//! are seeded by name and scaled so that the block amplifies as much as the convolution it replaces; rewrites that keep what the
//! model learned (low rank, 2:4, widths, number formats) say so.

mod asymmetric;
mod bottleneck;
mod channels;
mod deformable;
mod dense_growth;
mod draft;
mod edit;
mod eigen;
mod ghost;
mod grouped;
mod half;
pub mod layer;
mod low_rank;
mod opset;
mod quantized;
mod separable;
mod site;
mod slimmable;
mod sparse;
mod squeeze_excite;
mod stacked;

pub use draft::{Change, Draft, Left};
pub use edit::Editor;
pub use quantized::{Range, Ranges, watched};
pub use site::Site;

use crate::error::{Error, Result};
use crate::ir::{Bindings, Model};
use crate::ops::spec::ModelSpec;
use std::collections::BTreeMap;

/// The variants. **One line per entry.**
pub static VARIANTS: &[&Entry] = &[
    &separable::ENTRY,
    &ghost::ENTRY,
    &dense_growth::ENTRY,
    &dense_growth::BOTTLENECK,
    &grouped::ENTRY,
    &bottleneck::ENTRY,
    &stacked::ENTRY,
    &asymmetric::ENTRY,
    &low_rank::ENTRY,
    &squeeze_excite::ENTRY,
    &squeeze_excite::OFF,
    &deformable::ENTRY,
    &deformable::MODULATED,
    &slimmable::ENTRY,
    &sparse::ENTRY,
    &quantized::ENTRY,
    &half::FP16,
    &half::BF16,
];

/// One row of the table.
pub struct Entry {
    /// Name on the command line.
    pub name: &'static str,
    /// What it does, in a few words.
    pub about: &'static str,
    /// Its settings.
    pub knobs: &'static [Knob],
    /// How it is made.
    pub make: Make,
}

/// A setting of a variant.
pub struct Knob {
    /// Name.
    pub name: &'static str,
    /// Value where none is given.
    pub default: f64,
    /// Smallest and largest value.
    pub range: (f64, f64),
    /// Whether only whole numbers make sense.
    pub whole: bool,
    /// What it does.
    pub about: &'static str,
}

/// How a variant is made.
pub enum Make {
    /// Takes the place of dense convolutions, one by one.
    Block(Block),
    /// Rewrites the model as a whole.
    Model(fn(&mut Draft, &Choice) -> Result<()>),
}

/// A block in the place of a dense convolution.
pub struct Block {
    /// Whether it can, and whether it makes sense.
    pub fits: fn(&Site, &Choice) -> Fit,
    /// Writes it.
    pub build: fn(&mut Editor, &Site, &Choice) -> Result<()>,
    /// Whether it is meant to add multiply-adds; otherwise it is only used where it saves some.
    pub adds: bool,
    /// The operator set version its operators need.
    pub opset: i64,
}

/// Why a layer is left alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// It cannot be done.
    Illegal(String),
    /// It could, but nobody would.
    Unwise(String),
}

impl Reason {
    /// The reason in words.
    pub fn words(&self) -> &str {
        match self {
            Reason::Illegal(why) | Reason::Unwise(why) => why,
        }
    }
}

/// Whether a block fits a layer.
pub type Fit = std::result::Result<(), Reason>;

/// It cannot be done.
pub(crate) fn illegal<T>(why: impl Into<String>) -> std::result::Result<T, Reason> {
    Err(Reason::Illegal(why.into()))
}

/// It makes no sense.
pub(crate) fn unwise<T>(why: impl Into<String>) -> std::result::Result<T, Reason> {
    Err(Reason::Unwise(why.into()))
}

/// A variant with its settings.
#[derive(Clone)]
pub struct Choice {
    /// The variant.
    pub entry: &'static Entry,
    knobs: BTreeMap<&'static str, f64>,
}

impl std::fmt::Debug for Choice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name())
    }
}

impl Choice {
    /// A variant with its default settings.
    pub fn of(entry: &'static Entry) -> Choice {
        Choice { entry, knobs: entry.knobs.iter().map(|k| (k.name, k.default)).collect() }
    }

    /// The same with another setting.
    #[must_use]
    pub fn with(mut self, knob: &'static str, value: f64) -> Choice {
        self.knobs.insert(knob, value);
        self
    }

    /// Reads `ghost` or `ghost@ratio=4@kernel=5`.
    ///
    /// # Errors
    /// If there is no such variant or knob, or a value is out of its range.
    pub fn parse(text: &str) -> Result<Choice> {
        let mut parts = text.split('@').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let plain = |n: &str| n.to_ascii_lowercase().replace('_', "-");
        let entry = VARIANTS.iter().find(|e| e.name == plain(name)).ok_or_else(|| {
            let names: Vec<&str> = VARIANTS.iter().map(|e| e.name).collect();
            Error::usage(format!("there is no variant '{name}'")).hint(format!("variants: {}", names.join(", ")))
        })?;
        let mut choice = Choice::of(entry);
        for part in parts {
            let known = || match entry.knobs {
                [] => format!("{} has no knobs", entry.name),
                knobs => {
                    let list: Vec<&str> = knobs.iter().map(|k| k.name).collect();
                    format!("knobs of {}: {}", entry.name, list.join(", "))
                }
            };
            let (key, value) = part.split_once('=').ok_or_else(|| {
                Error::usage(format!("'{part}' in '{text}' is not of the form knob=value")).hint(known())
            })?;
            let knob = entry
                .knobs
                .iter()
                .find(|k| k.name == key.trim())
                .ok_or_else(|| Error::usage(format!("{} has no knob '{key}'", entry.name)).hint(known()))?;
            let number = value.trim().parse::<f64>().ok();
            let number =
                number.filter(|v| (knob.range.0..=knob.range.1).contains(v) && (!knob.whole || v.fract() == 0.0));
            let number = number.ok_or_else(|| {
                let kind = if knob.whole { "a whole number" } else { "a number" };
                Error::usage(format!("'{value}' is not a value of knob '{key}' of {}", entry.name))
                    .hint(format!("{key} is {kind} from {} to {}: {}", knob.range.0, knob.range.1, knob.about))
            })?;
            choice.knobs.insert(knob.name, number);
        }
        Ok(choice)
    }

    /// A setting.
    pub fn float(&self, knob: &str) -> f64 {
        self.knobs.get(knob).copied().unwrap_or_default()
    }

    /// A setting that is a whole number.
    pub fn size(&self, knob: &str) -> usize {
        self.float(knob) as usize
    }

    /// The shortest text that means this choice.
    pub fn name(&self) -> String {
        let set = self.entry.knobs.iter().filter(|k| self.knobs.get(k.name) != Some(&k.default));
        set.fold(self.entry.name.to_string(), |name, k| format!("{name}@{}={}", k.name, self.float(k.name)))
    }

    /// Whether it needs to know what values activations take.
    pub fn needs_ranges(&self) -> bool {
        std::ptr::eq(self.entry, &quantized::ENTRY)
    }
}

/// How far a rewrite may go.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// Also where it makes no sense, as long as it can be done: a single layer that was asked for.
    pub force: bool,
    /// What values activations take, for those that must know.
    pub ranges: Ranges,
}

/// A variant of a model.
#[derive(Debug, Clone)]
pub struct Rewritten {
    /// As written.
    pub spec: ModelSpec,
    /// As built.
    pub model: Model,
    /// What was done, and what was left alone, in order.
    pub steps: Vec<Step>,
}

/// What one variant did.
#[derive(Debug, Clone)]
pub struct Step {
    /// The variant.
    pub variant: String,
    /// Layers rewritten.
    pub changes: Vec<Change>,
    /// Layers left alone.
    pub left: Vec<Left>,
}

/// Applies variants to a model, one after the other.
///
/// # Errors
/// If the model cannot be built, or a variant cannot be applied to it at all (the message says why).
pub fn apply(spec: &ModelSpec, bindings: &Bindings, choices: &[Choice], policy: &Policy) -> Result<Rewritten> {
    let mut draft = Draft::new(spec.clone(), bindings.clone(), policy.clone())?;
    let mut steps = Vec::new();
    for choice in choices {
        draft.begin();
        match &choice.entry.make {
            Make::Block(block) => draft.replace_all(block, choice)?,
            Make::Model(rewrite) => rewrite(&mut draft, choice)?,
        }
        draft.settle()?;
        let (changes, left) = draft.end();
        steps.push(Step { variant: choice.name(), changes, left });
    }
    let (mut spec, model) = draft.finish();
    let done: Vec<String> = choices.iter().map(Choice::name).collect();
    spec.metadata.retain(|(k, _)| k != "madd-prof.variants");
    spec.metadata.push(("madd-prof.variants".into(), done.join(",")));
    Ok(Rewritten { spec, model, steps })
}
