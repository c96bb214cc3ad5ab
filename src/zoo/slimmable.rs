//! Slimmable networks: one set of weights, of which every width uses the leading channels, and normalisations of each width.
//!
//! A slimmable model (`s_…`) has fixed switches with a BatchNormalization each; a universally slimmable one (`us_…`) runs at any width,
//! shares scale and shift, and has statistics for each width. Built at a width, a model holds what that width uses: the
//! same numbers, by the same names, as the widest holds. A normalisation whose channels no width changes is shared by all.

use super::net::Net;
use super::seed::{self, Fill};
use super::{Choice, Setting};
use crate::error::Result;
use crate::tensor::Tensor;
use serde_json::Value as Json;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

/// Tensors of one network by name.
type Tensors = HashMap<String, Tensor>;

/// The weights of the network asked for last, so that its widths share them: what they are read off is made once.
static SHARED: Mutex<Option<(String, Arc<Mutex<Tensors>>)>> = Mutex::new(None);

fn shared(network: String) -> Arc<Mutex<Tensors>> {
    let mut last = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    match &*last {
        Some((name, tensors)) if *name == network => tensors.clone(),
        _ => last.insert((network, Arc::default())).1.clone(),
    }
}

/// The width in force: what it takes of the widest network, and where its normalisations are.
#[derive(Debug)]
pub struct Switch {
    /// Sizes of the widest network's learned tensors.
    pub full: HashMap<String, Vec<usize>>,
    /// Normalisations whose channels no width changes.
    fixed: HashSet<String>,
    /// What this width is called in names.
    label: String,
    /// Whether each width has scales and shifts of its own.
    own: bool,
    whole: Arc<Mutex<Tensors>>,
}

impl Switch {
    /// The paths of a normalisation's scale and shift, and of its statistics.
    pub fn norm(&self, path: &str) -> (String, String) {
        if self.fixed.contains(path) {
            return (path.to_string(), path.to_string());
        }
        let mine = format!("{path}.bn.{}", self.label);
        (if self.own { mine.clone() } else { path.to_string() }, mine)
    }

    /// A learned tensor at this width: the leading part of the widest network's, or this width's own.
    ///
    /// # Errors
    /// If it is no part of the widest network's.
    pub fn tensor(&self, name: &str, dims: &[usize], fill: Fill) -> Result<Tensor> {
        let Some(full) = self.full.get(name) else { return seed::tensor(name, dims, fill) };
        let mut whole = self.whole.lock().unwrap_or_else(PoisonError::into_inner);
        let tensor = match whole.get(name) {
            Some(made) => made.clone(),
            None => {
                let made = seed::tensor(name, full, fill)?;
                whole.insert(name.to_string(), made.clone());
                made
            }
        };
        seed::leading(&tensor, dims)
    }
}

/// What all switches of a slimmable network hold together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whole {
    /// Names of the switches, narrowest first.
    pub switches: Vec<String>,
    /// Learned elements.
    pub params: u64,
    /// BatchNormalization statistics.
    pub statistics: u64,
}

/// Its switches' widths, narrowest first; of a universally slimmable network those it is usually shown at.
fn widths(choice: &Choice) -> Option<Vec<f64>> {
    let list = choice.model.set.get("switches")?.as_array()?;
    Some(list.iter().filter_map(Json::as_f64).collect())
}

/// Sizes of learned tensors without switches, at a width.
fn sizes(choice: &Choice, width: f64) -> Result<HashMap<String, Vec<usize>>> {
    let (net, _) = choice.assemble_at(width, Net::default())?;
    Ok(net.stored().map(|(name, dims)| (name.to_string(), dims.to_vec())).collect())
}

/// The switch a choice of knobs means; `None` for networks that are not slimmable.
pub fn switch(choice: &Choice) -> Result<Option<Switch>> {
    let Some(widths) = widths(choice) else { return Ok(None) };
    let [Some(&narrowest), Some(&widest)] = [widths.first(), widths.last()] else { return Ok(None) };
    let (full, least) = (sizes(choice, widest)?, sizes(choice, narrowest)?);
    let statistics = ".running_var";
    let fixed = full.iter().filter_map(|(name, dims)| {
        let path = name.strip_suffix(statistics)?;
        (least.get(name) == Some(dims)).then(|| path.to_string())
    });
    let fixed = fixed.collect();
    let own = choice.model.set.get("norms").and_then(Json::as_str) == Some("own");
    let width = choice.float("width");
    let label = match widths.iter().position(|w| *w == width) {
        Some(i) if own => i.to_string(),
        _ => width.to_string().replace('.', "_"),
    };
    let network = names(choice)?.pop().unwrap_or_default();
    Ok(Some(Switch { full, fixed, label, own, whole: shared(network) }))
}

/// The same network at each of its switches.
pub fn all(choice: &Choice) -> Vec<Choice> {
    let knob = choice.model.knobs.iter().position(|k| k.name == "width");
    let (Some(knob), Some(widths)) = (knob, widths(choice)) else { return Vec::new() };
    let at = |width: &f64| {
        let mut one = choice.clone();
        for (knob, setting) in one.model.knobs.iter().zip(&mut one.settings).filter(|(k, _)| k.name == "switch") {
            setting.clone_from(&knob.default);
        }
        one.settings[knob] = match one.settings[knob] {
            Setting::Word(_) => Setting::Word(width.to_string()),
            _ => Setting::Float(*width),
        };
        one
    };
    widths.iter().map(at).collect()
}

/// Names of the switches; empty for networks that are not slimmable.
pub fn names(choice: &Choice) -> Result<Vec<String>> {
    Ok(all(choice).iter().map(Choice::name).collect())
}

/// What the switches hold together; `None` for networks that are not slimmable.
pub fn whole(choice: &Choice) -> Result<Option<Whole>> {
    let switches = all(choice);
    if switches.is_empty() {
        return Ok(None);
    }
    let mut elements: BTreeMap<String, u64> = BTreeMap::new();
    for one in &switches {
        let (net, _) = one.assemble()?;
        for (name, t) in &net.finish("").graph.initializers {
            if t.dtype() == crate::tensor::DType::F32 && t.rank() > 0 {
                let most = elements.entry(name.clone()).or_default();
                *most = (*most).max(t.len() as u64);
            }
        }
    }
    let is_statistic = |name: &str| name.ends_with(".running_mean") || name.ends_with(".running_var");
    let sum = |want: bool| elements.iter().filter(|(n, _)| is_statistic(n) == want).map(|(_, e)| e).sum();
    Ok(Some(Whole { switches: names(choice)?, params: sum(false), statistics: sum(true) }))
}
