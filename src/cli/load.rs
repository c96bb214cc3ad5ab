//! From what the user typed to a model: a file, or a name of the zoo.

use super::args::{EngineArgs, MeasureArgs, ModelArgs};
use super::{note, progress::Progress};
use crate::engine::tune::Tuning;
use crate::engine::{Kept, Options, Pack, Path as KernelPath, Session, WeightSet};
use crate::error::{Error, Result};
use crate::ir::{self, Bindings, Graph, Model, interp};
use crate::machine::{self, Identity, Machine, affinity, cache};
use crate::measure::host;
use crate::ops::spec::{DimSpec, ModelSpec, ValueSpec};
use crate::simd::Isa;
use crate::tensor::Tensor;
use crate::{onnx, zoo};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

/// A model as it was asked for.
pub struct Loaded {
    /// File stem or zoo name.
    pub name: String,
    /// The file, unless it came from the zoo.
    pub path: Option<String>,
    /// What it says.
    pub spec: ModelSpec,
}

/// Reads a file or builds a zoo network.
///
/// # Errors
/// If there is neither a file nor a network of that name, or it cannot be read.
pub fn load(model: &str) -> Result<Loaded> {
    let path = Path::new(model);
    if path.exists() {
        let spec = onnx::read(path)?;
        let name = path.file_stem().map_or_else(|| model.to_string(), |s| s.to_string_lossy().into_owned());
        return Ok(Loaded { name, path: Some(model.to_string()), spec });
    }
    let looks_like_file = model.contains(['/', '\\']) || path.extension().is_some_and(|e| e == "onnx");
    if looks_like_file || model.is_empty() {
        return Err(Error::input("no such file")
            .in_file(path)
            .hint("`madd-prof zoo list` lists the built-in networks"));
    }
    if !zoo::knows(model) {
        let hint = match zoo::build(model) {
            Err(e) => e.hint_text().map(str::to_string),
            Ok(_) => None,
        };
        let hint = hint.unwrap_or_else(|| "`madd-prof zoo list` lists the built-in networks".into());
        return Err(Error::usage(format!("'{model}' is neither a file nor a built-in network")).hint(hint));
    }
    Ok(Loaded { name: model.to_string(), path: None, spec: zoo::build(model)? })
}

/// Reads and builds with the bindings of the command line.
///
/// # Errors
/// As [`load`], or if a dim is unbound or a node contradicts its operator.
pub fn model(args: &ModelArgs) -> Result<(Loaded, Model)> {
    let bindings = args.binding.bindings()?;
    let loaded = load(&args.model)?;
    let model = build(&loaded, &bindings)?;
    Ok((loaded, model))
}

/// As [`model`], with arrays from a file: free dims are bound to their shapes.
///
/// # Errors
/// As [`model`], or if the file cannot be read.
pub fn model_and_inputs(
    args: &ModelArgs,
    file: Option<&Path>,
) -> Result<(Loaded, Model, Option<Vec<(String, Tensor)>>)> {
    let given = file.map(crate::tensor::npz::read).transpose()?;
    let mut bindings = args.binding.bindings()?;
    let loaded = load(&args.model)?;
    if let Some(given) = &given {
        bindings_of(&loaded.spec, given, &mut bindings);
    }
    let model = build(&loaded, &bindings)?;
    Ok((loaded, model, given))
}

/// Builds what was loaded.
///
/// # Errors
/// If a dim is unbound or a node contradicts its operator.
pub fn build(loaded: &Loaded, bindings: &Bindings) -> Result<Model> {
    let in_file = |e: Error| match &loaded.path {
        Some(path) => e.in_file(Path::new(path)),
        None => e,
    };
    ir::build(&loaded.spec, bindings).map_err(in_file)
}

/// Of bindings that are meant for several models, those that this one has a dim or an input for.
pub fn fitting(loaded: &Loaded, bindings: &Bindings) -> Bindings {
    let mut own = bindings.clone();
    let has = |name: &String| loaded.spec.graph.inputs.iter().any(|v| v.name == *name);
    let dims = dims(loaded);
    own.dims.retain(|name, _| dims.contains(name));
    own.shapes.retain(|name, _| has(name));
    own.values.retain(|name, _| has(name));
    own
}

/// The first name bound for several models that none of them has, as an error.
///
/// # Errors
/// If there is one.
pub fn all_fit(bindings: &Bindings, models: &[Bindings]) -> Result<()> {
    let nobody = |flag: &str, name: &str, what: &str| {
        Err(Error::usage(format!("{flag} {name}: none of the models has such {what}")))
    };
    if let Some(name) = bindings.dims.keys().find(|n| !models.iter().any(|m| m.dims.contains_key(*n))) {
        return nobody("--dim", name, "a free dim");
    }
    if let Some(name) = bindings.shapes.keys().find(|n| !models.iter().any(|m| m.shapes.contains_key(*n))) {
        return nobody("--input-shape", name, "an input");
    }
    if let Some(name) = bindings.values.keys().find(|n| !models.iter().any(|m| m.values.contains_key(*n))) {
        return nobody("--value", name, "an input");
    }
    Ok(())
}

/// The names of a model's free dims.
pub fn dims(loaded: &Loaded) -> Vec<String> {
    let dims = loaded.spec.graph.inputs.iter().flat_map(|v| v.shape.iter().flatten());
    dims.filter_map(|d| if let DimSpec::Named(n) = d { Some(n.clone()) } else { None }).collect()
}

/// The bindings that given arrays imply: shapes of inputs whose declaration leaves a dim free.
pub fn bindings_of(spec: &ModelSpec, given: &[(String, Tensor)], bindings: &mut Bindings) {
    for (name, tensor) in given {
        let declared = spec.graph.inputs.iter().find(|v| v.name == *name);
        if declared.is_some_and(is_free) && !bindings.shapes.contains_key(name) {
            bindings.shapes.insert(name.clone(), tensor.dims().to_vec());
        }
    }
}

fn is_free(v: &ValueSpec) -> bool {
    v.container == crate::tensor::Container::Tensor
        && v.shape.as_ref().is_none_or(|s| s.iter().any(|d| !matches!(d, DimSpec::Size(_))))
}

/// How sessions are prepared without anything that is kept between runs.
///
/// # Errors
/// If `MADD_PROF_ISA` names no instruction set.
pub fn plain_options(path: KernelPath, threads: usize) -> Result<Options> {
    Ok(Options { isa: Isa::detect().map_err(Error::usage)?, ..Options::new(path, threads) })
}

/// How sessions are prepared.
///
/// # Errors
/// If `MADD_PROF_ISA` names no instruction set.
pub fn options(path: KernelPath, args: &EngineArgs, quiet: bool) -> Result<Options> {
    let threads = args.threads.unwrap_or_else(host::cores);
    let mut options = plain_options(path, threads)?;
    if path == KernelPath::Reference {
        return Ok(options);
    }
    options.winograd = !args.no_winograd;
    options.strassen = !args.no_strassen;
    if args.pin {
        options.cores = affinity::cores_for(threads);
        if options.cores.is_empty() {
            note(quiet, "--pin: this system does not let threads be kept on cores");
        }
    }
    options.kept = kept().cloned();
    let known = cache::folder().map(|f| cache::read_choices(&f, &Identity::here())).unwrap_or_default();
    if args.autotune || !known.is_empty() {
        options.tuning = Some(Arc::new(Tuning::new(known, args.autotune)));
    }
    Ok(options)
}

/// Where packed weights of models are kept between runs; `None` if they are not.
pub fn kept() -> Option<&'static Arc<Kept>> {
    static KEPT: OnceLock<Option<Arc<Kept>>> = OnceLock::new();
    let open = || {
        let (folder, limit) = (cache::folder()?, cache::most_weight_bytes());
        // What is mapped stays in memory only where there is room for it: read from the disk again it would be slower than packing.
        let most = host::available_memory_bytes().map_or(u64::MAX, |free| free / 4);
        Kept::new(&folder.join("weights"), limit, most).filter(|_| limit > 0).map(Arc::new)
    };
    KEPT.get_or_init(open).as_ref()
}

/// Keeps what sessions that are still open have packed. To be called when nothing is measured any more.
pub fn keep_weights(quiet: bool) {
    if let Some(Err(e)) = kept().map(|k| k.write()) {
        note(quiet, &format!("packed weights are not kept: {e}"));
    }
}

/// A session that is ready for good, with what tuning found kept for later ones.
///
/// # Errors
/// If `MADD_PROF_ISA` names no instruction set, or preparation fails.
pub fn session(graph: &Arc<Graph>, path: KernelPath, args: &EngineArgs, quiet: bool) -> Result<Session> {
    session_sharing(graph, path, args, None, quiet)
}

/// As [`session`], with packed weights shared with the other sessions of a set.
///
/// # Errors
/// As there.
pub fn session_sharing(
    graph: &Arc<Graph>,
    path: KernelPath,
    args: &EngineArgs,
    weights: Option<Arc<WeightSet>>,
    quiet: bool,
) -> Result<Session> {
    let options = Options { weights, pack: Pack::AtOnce, ..options(path, args, quiet)? };
    session_of(graph, &options, quiet)
}

fn session_of(graph: &Arc<Graph>, options: &Options, quiet: bool) -> Result<Session> {
    let session = Session::new(graph, options)?;
    keep(options, quiet);
    Ok(session)
}

/// A session about to be measured, and what was seen of its beginnings.
pub struct Started {
    /// The session. Its next run is like all later ones.
    pub session: Session,
    /// From opening the file to the session, seconds.
    pub prepare_s: f64,
    /// From opening the file to the result of the first run, seconds.
    pub first_s: Option<f64>,
    /// Bytes of packed weights that an earlier run had kept for it; `None` where none are kept.
    pub kept_bytes: Option<u64>,
}

/// Opens a session, `loading_s` after work on its file began.
///
/// The optimized path is run once or twice: its first run packs weights, the second packs them for good, and those that are mapped, an earlier
/// run's or the model's own, may wait for the disk. None of that says what the network takes. The reference path is too slow to be run for
/// nothing.
///
/// # Errors
/// As [`session`], and if a run fails.
pub fn start(
    graph: &Arc<Graph>,
    path: KernelPath,
    args: &EngineArgs,
    inputs: &[Tensor],
    loading_s: f64,
    quiet: bool,
) -> Result<Started> {
    let kept = kept().filter(|_| path == KernelPath::Optimized);
    let before = kept.map(|k| k.taken_bytes());
    let begun = Instant::now();
    let so_far = || loading_s + begun.elapsed().as_secs_f64();
    let mut session = session_of(graph, &options(path, args, quiet)?, quiet)?;
    let prepare_s = so_far();
    let kept_bytes = kept.zip(before).map(|(k, before)| k.taken_bytes() - before);
    let mut first_s = None;
    if path == KernelPath::Optimized {
        session.run(inputs)?;
        first_s = Some(so_far());
        if !session.settled() {
            session.run(inputs)?;
        }
    }
    Ok(Started { session, prepare_s, first_s, kept_bytes })
}

/// Keeps what tuning found.
pub fn keep(options: &Options, quiet: bool) {
    let found = options.tuning.as_ref().map(|t| t.found()).unwrap_or_default();
    if found.is_empty() {
        return;
    }
    if let Some(folder) = cache::folder()
        && let Err(e) = cache::write_choices(&folder, &Identity::here(), &found)
    {
        note(quiet, &format!("what --autotune found is not kept: {e}"));
    }
}

/// Which ceilings will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// Those that are kept, or none.
    Kept,
    /// Those that are kept, or new ones.
    Any,
    /// New ones.
    New,
}

/// This machine's ceilings and their age in seconds. New ones are kept where that is possible.
pub fn ceilings(want: Want, quiet: bool) -> Option<(Machine, u64)> {
    let (identity, folder, now) = (Identity::here(), cache::folder(), machine::now_unix_s());
    if want != Want::New
        && let Some(kept) = folder.as_deref().and_then(|f| cache::read_machine(f, &identity, now))
    {
        let age = now.saturating_sub(kept.probed_unix_s);
        return Some((kept, age));
    }
    if want == Want::Kept {
        return None;
    }
    let progress = Progress::new("probing this machine", quiet);
    let probed = machine::probe::probe(&|share| progress.tell(share));
    drop(progress);
    if probed.steadiness < machine::STEADY {
        note(quiet, "the probe met a busy machine: ceilings may be low (`madd-prof machine --probe` probes anew)");
    }
    if let Some(folder) = &folder
        && let Err(e) = cache::write_machine(folder, &probed)
    {
        note(quiet, &format!("the ceilings of this machine are not kept: {e}"));
    }
    Some((probed, 0))
}

/// Refuses to execute what plainly cannot fit, before the system does it less kindly.
///
/// # Errors
/// If activations and weights need more memory than there is.
pub fn check_memory(analysis: &crate::analysis::Analysis, paths: usize) -> Result<()> {
    let Some(free) = host::available_memory_bytes() else { return Ok(()) };
    let peak = analysis.totals.peak_activation_bytes.unwrap_or(0);
    let need = peak.saturating_mul(paths.max(1) as u64).saturating_add(analysis.totals.param_bytes);
    if need <= free {
        return Ok(());
    }
    Err(Error::unsupported(format!(
        "running this needs about {} and {} are free",
        crate::units::iec(need),
        crate::units::iec(free)
    ))
    .hint("bind smaller dims with --dim or --input-shape; `madd-prof count` needs no such memory"))
}

/// Inputs made up for measuring.
///
/// # Errors
/// If an input's shape is not known.
pub fn made_up_inputs(model: &Model) -> Result<Vec<Tensor>> {
    let graph = &model.graph;
    graph.inputs().iter().enumerate().map(|(i, &v)| interp::made_up_input(graph.value(v), i as u64 + 1)).collect()
}

/// Warnings about the measuring itself: an unoptimised build, a busy machine, more threads than cores.
pub fn conditions(measure: &MeasureArgs) -> Vec<String> {
    conditions_of(measure.engine.threads)
}

/// As [`conditions`], for a number of threads asked for.
pub fn conditions_of(threads: Option<usize>) -> Vec<String> {
    let mut out = Vec::new();
    if cfg!(debug_assertions) {
        out.push("this is a debug build: times mean nothing; build with --release".to_string());
    }
    let cores = host::cores();
    if let Some(threads) = threads.filter(|&t| t > cores) {
        out.push(format!("{threads} threads on {}: they take turns", crate::units::plural(cores, "core")));
    }
    if let Some(load) = host::load().filter(|&l| l > cores as f64 * 0.5) {
        out.push(format!(
            "the machine is busy (load {load:.1} on {}): times are upper bounds",
            crate::units::plural(cores, "core")
        ));
    }
    out
}
