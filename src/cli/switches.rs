//! `variants` of a slimmable network: its switches side by side, on one set of weights that is made once.
//!
//! Every switch is a plan of its own on the packed weights of the widest ([`crate::kernels::shared`]): preparing it packs only what differs,
//! and going back to it packs nothing. What remains of a switch is what the caches have forgotten.

use super::args::{Paths, VariantsArgs};
use super::load::{self, Loaded};
use super::race::{self, Runner, race};
use super::{FINE, note, output};
use crate::error::{Error, Result, printable};
use crate::ir::Bindings;
use crate::report::candidates::{self, Candidate};
use crate::units::{exact, iec, ms};
use crate::zoo;

/// What the columns of preparing and switching mean.
pub const NOTE: &str = "Convolutions are packed for the widest switch and read in part by the others, whose normalisations follow the products: Prep ms is planning a \
     switch and packing what differs (depthwise windows, blocks cut in half), Packed what it adds to memory. Going over to a prepared switch packs nothing: Switch ms \
     is how much longer its first run after another switch takes than the next, for what the caches forgot.";

/// Whether a model is a slimmable network of the zoo.
pub fn knows(loaded: &Loaded) -> bool {
    loaded.path.is_none() && zoo::switches(&loaded.name).is_ok_and(|s| !s.is_empty())
}

/// The set of weights a slimmable network of the zoo takes its own from.
pub fn weights(loaded: &Loaded) -> Option<String> {
    if !knows(loaded) {
        return None;
    }
    zoo::switches(&loaded.name).ok()?.pop()
}

/// Counts, times and reports all switches, the widest first; and the width asked for, where it is none of them.
///
/// # Errors
/// If something cannot be built or run.
pub fn run(args: &VariantsArgs, loaded: &Loaded, bindings: &Bindings) -> Result<u8> {
    if args.emit.is_some() {
        return Err(
            Error::usage("--emit writes a rewritten model").hint("`madd-prof zoo export` writes a width of this one")
        );
    }
    let definition = zoo::show(&loaded.name)?;
    let mut names = zoo::switches(&loaded.name)?;
    names.reverse();
    if !names.contains(&definition.name) {
        names.push(definition.name.clone());
    }
    let mut runners = Vec::new();
    for name in &names {
        let mut runner = Runner::new(name, load::build(&load::load(name)?, bindings)?);
        runner.weights = weights(loaded);
        runners.push(runner);
    }
    let mut warnings = Vec::new();
    if !args.no_run {
        warnings.extend(race::conditions(&args.measure));
        runners.iter().try_for_each(|r| load::check_memory(&r.analysis, 2))?;
        race(&mut runners, &args.measure, Paths::Optimized, args.quiet)?;
    }
    warnings.iter().for_each(|w| note(args.quiet, w));
    let list: Vec<Candidate> = runners.into_iter().map(|r| r.candidate).collect();
    let mut grid = candidates::grid("variants", printable(&loaded.name), &list, false);
    if !args.no_run {
        grid.summary.push(("Timed".into(), race::how(&args.measure)));
    }
    grid.notes.extend(candidates::surprises(&list));
    if let Some(whole) = &zoo::whole(&loaded.name)? {
        grid.notes.push(format!(
            "One set of weights: {} learned elements and {} BatchNormalization statistics serve all {} switches.",
            exact(whole.params),
            exact(whole.statistics),
            whole.switches.len()
        ));
        let json =
            serde_json::json!({"params": whole.params, "bn_statistics": whole.statistics, "switches": whole.switches});
        grid.extra.push(("whole".into(), json));
    }
    if list.iter().any(|c| c.switch.is_some()) {
        grid.notes.push(NOTE.into());
    }
    grid.extra.push(("warnings".into(), warnings.into()));
    output::show_grid(&grid, &args.output)?;
    Ok(FINE)
}

/// What a narrower model that shares its weights costs beside its runs.
pub fn told(c: &Candidate) -> Option<String> {
    let switch = c.switch?;
    Some(format!(
        "{}: its weights are the leading part of the original's, and where channels allow it runs on the original's packed ones: it is prepared \
         in {} ms and adds {} of its own; after that a switch to it packs nothing and makes its first run {} ms longer.",
        c.name,
        ms(c.prepare_ms?),
        iec(c.packed_bytes?),
        ms(switch.ms.max(0.0))
    ))
}
