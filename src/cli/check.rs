//! `check`: budgets of `madd-prof.toml` held against models. Models are counted side by side, and no weight is read.

use super::args::CheckArgs;
use super::load::{self, Loaded};
use super::{CHECK_FAILED, FINE, note, output, race_ab, why};
use crate::analysis::analyze;
use crate::budget::baseline::{self, Baseline};
use crate::budget::formula::Sizes;
use crate::budget::judge::{Subject, judge};
use crate::budget::settings::{Budget, Scope, Settings, Test};
use crate::budget::{Level, Outcome, Snapshot, Verdict};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::ir::{self, Bindings};
use crate::ops;
use crate::ops::custom::Rules;
use crate::ops::spec::{DimSpec, ModelSpec};
use crate::report::{Look, VERDICT_FORMATS, VerdictFormat, verdict_format};
use crate::units::plural;
use crate::zoo;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Whether a limit holds is not known.
const CANNOT_TELL: u8 = 3;

/// A model that a budget names.
#[derive(Debug, Clone)]
pub struct Item {
    /// Which budget.
    pub budget: usize,
    /// As in the file, or what its pattern found: from the configuration's folder.
    pub text: String,
    /// What [`load::load`] opens.
    pub open: String,
    /// Whether it is a file.
    pub is_file: bool,
}

/// A model, loaded and counted.
pub struct Counted {
    /// What was opened.
    pub loaded: Loaded,
    /// With which bindings.
    pub bindings: Bindings,
    /// Its figures.
    pub snapshot: Snapshot,
    /// What its dims are bound to.
    pub bound: BTreeMap<String, usize>,
}

/// Checks, or writes the baseline.
///
/// # Errors
/// If the configuration, a model or the baseline cannot be read, or a result cannot be written.
pub fn run(args: &CheckArgs) -> Result<u8> {
    let (main, others) = formats(args)?;
    let here = std::env::current_dir().unwrap_or_default();
    let config = Config::find(args.config.as_deref(), &here)?;
    let mut settings = Settings::of(&config)?;
    if let Some(file) = &args.baseline {
        settings.baseline.clone_from(file);
    }
    let items = items(&settings, &args.names)?;
    let rules = Arc::new(config.rules);
    let counted = count_all(&settings, &items, &rules)?;
    known_operators(&settings, &items, &counted, &rules)?;
    let mut known = Baseline::read(&settings.baseline)?;
    if args.update_baseline {
        return update(args, &settings, &items, &counted, known);
    }
    for (key, s) in &mut known.models {
        s.name.clone_from(key);
    }
    let shown = |p: &Path| p.strip_prefix(&here).unwrap_or(p).to_string_lossy().into_owned();
    let top = here.ancestors().find(|d| d.join(".git").exists()).unwrap_or(&here).to_path_buf();
    let config = shown(&settings.path);
    let mut verdict = Verdict { config, here: here.clone(), top, models: items.len(), ..Verdict::default() };
    for (item, c) in items.iter().zip(&counted) {
        let budget = &settings.budgets[item.budget];
        let at = |sizes: &Sizes| at(c, sizes);
        let subject = Subject {
            budget,
            model: if item.is_file { shown(Path::new(&item.open)) } else { item.text.clone() },
            is_file: item.is_file,
            now: &c.snapshot,
            before: known.models.get(&baseline::key(&budget.name, &item.text)),
            at: &at,
        };
        let mut findings = judge(&subject)?;
        for limit in budget.limits.iter().filter(|l| l.level != Level::Off) {
            if let Test::Latency { .. } = limit.test
                && !args.no_latency
            {
                findings.push(race_ab::look(&subject, limit, c, &settings.folder, args.quiet)?);
            }
        }
        if args.why {
            for f in findings.iter_mut().filter(|f| f.outcome == Outcome::Breach) {
                f.notes.extend(why::explain(f, &subject, c, args.quiet)?);
            }
        }
        verdict.findings.extend(findings);
    }
    let look = Look { width: super::width() };
    for (format, path) in others {
        output::save(&path, &(format.render)(&verdict, &look)?)?;
    }
    let bytes = (main.render)(&verdict, &look)?;
    match &args.output {
        Some(path) if path != Path::new("-") => output::save(path, &bytes)?,
        _ if main.name == "table" && super::colour::on_stdout() => {
            output::print(super::colour::verdict(&String::from_utf8_lossy(&bytes)).as_bytes())?;
        }
        _ => output::print(&bytes)?,
    }
    // The process ends here: taking thousands of nodes apart first would be a tenth of its time.
    std::mem::forget((counted, known));
    Ok(match verdict.outcome() {
        Outcome::Pass => FINE,
        Outcome::Breach => CHECK_FAILED,
        Outcome::CannotTell => CANNOT_TELL,
    })
}

/// The format of the main output, and the other files asked for.
fn formats(args: &CheckArgs) -> Result<(&'static VerdictFormat, Vec<(&'static VerdictFormat, PathBuf)>)> {
    let main = match (&args.format, &args.output) {
        (Some(name), _) => verdict_format(name)?,
        (None, Some(path)) if path.extension().is_some() => {
            let ending = path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
            VERDICT_FORMATS.iter().find(|f| f.endings.contains(&ending.as_str())).ok_or_else(|| {
                Error::usage(format!("--output {}: this ending means no format", path.display()))
                    .hint("say which with --format")
            })?
        }
        _ => verdict_format("table")?,
    };
    let mut others = Vec::new();
    for also in &args.also {
        let (name, path) = also.split_once('=').filter(|(n, p)| !n.is_empty() && !p.is_empty()).ok_or_else(|| {
            Error::usage(format!("--also {also}: is not of the form FORMAT=FILE"))
                .hint("for example --also junit=budgets.xml --also sarif=budgets.sarif")
        })?;
        others.push((verdict_format(name)?, PathBuf::from(path)));
    }
    Ok((main, others))
}

/// All models of the budgets asked for.
fn items(settings: &Settings, names: &[String]) -> Result<Vec<Item>> {
    for name in names {
        if !settings.budgets.iter().any(|b| b.name == *name) {
            let known: Vec<&str> = settings.budgets.iter().map(|b| b.name.as_str()).collect();
            return Err(
                Error::usage(format!("there is no budget '{name}'")).hint(format!("budgets: {}", known.join(", ")))
            );
        }
    }
    let mut out = Vec::new();
    for (i, b) in settings.budgets.iter().enumerate() {
        if names.is_empty() || names.contains(&b.name) {
            out.extend(models_of(i, b, settings)?);
        }
    }
    Ok(out)
}

fn models_of(i: usize, b: &Budget, settings: &Settings) -> Result<Vec<Item>> {
    let file = settings.folder.join(&b.model);
    if !b.model.contains(['*', '?']) {
        let is_file = file.exists() || !zoo::knows(&b.model);
        let open = if is_file { file.to_string_lossy().into_owned() } else { b.model.clone() };
        return Ok(vec![Item { budget: i, text: b.model.clone(), open, is_file }]);
    }
    let mut found = Vec::new();
    let parts: Vec<&str> = b.model.split('/').filter(|p| !p.is_empty() && *p != ".").collect();
    let root = if b.model.starts_with('/') { PathBuf::from("/") } else { settings.folder.clone() };
    walk(&root, &parts, String::new(), &mut found, 0);
    found.sort();
    found.dedup();
    if found.is_empty() {
        // A budget that holds because nothing is looked at would be worse than none.
        return Err(Error::input(format!("budget '{}': no file fits '{}'", b.name, b.model)).in_file(&settings.path));
    }
    let item =
        |text: String| Item { budget: i, open: root.join(&text).to_string_lossy().into_owned(), text, is_file: true };
    Ok(found.into_iter().map(item).collect())
}

/// Folders nest at most this deep below a `**`.
const DEEPEST: usize = 16;

fn walk(folder: &Path, parts: &[&str], at: String, found: &mut Vec<String>, depth: usize) {
    let Some((part, rest)) = parts.split_first() else { return };
    // No folder lists the one above it.
    if *part == ".." {
        let text = if at.is_empty() { "..".to_string() } else { format!("{at}/..") };
        return walk(&folder.join(".."), rest, text, found, depth);
    }
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    if *part == "**" {
        walk(folder, rest, at.clone(), found, depth);
    }
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = entry.path();
        let text = if at.is_empty() { name.clone() } else { format!("{at}/{name}") };
        if *part == "**" {
            if path.is_dir() && depth < DEEPEST && !name.starts_with('.') {
                walk(&path, parts, text, found, depth + 1);
            }
        } else if fits(part.as_bytes(), name.as_bytes()) {
            match rest.is_empty() {
                true if path.is_file() => found.push(text),
                false if path.is_dir() => walk(&path, rest, text, found, depth),
                _ => {}
            }
        }
    }
}

/// Whether a name fits a pattern of `*` and `?`.
fn fits(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(c) if *c == b'?' || *c == name[n] => (p, n) = (p + 1, n + 1),
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    (p, n) = (at + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

/// Counts all models, on all cores: all are read, then those with most nodes are counted first, so that no core is left alone with
/// a large one in the end.
fn count_all(settings: &Settings, items: &[Item], rules: &Arc<Rules>) -> Result<Vec<Counted>> {
    let next = AtomicUsize::new(0);
    let opened: Mutex<Vec<(usize, Loaded, Bindings)>> = Mutex::default();
    let waiting = || opened.lock().unwrap_or_else(PoisonError::into_inner);
    let largest = || {
        let mut waiting = waiting();
        let at = (0..waiting.len()).max_by_key(|&k| waiting[k].1.spec.graph.nodes.len())?;
        Some(waiting.swap_remove(at))
    };
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(items.len()).max(1);
    let work = || {
        take_heap();
        let mut done = Vec::new();
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            if let Some(item) = items.get(i) {
                match open(&settings.budgets[item.budget], item, rules) {
                    Ok((loaded, bindings)) => waiting().push((i, loaded, bindings)),
                    Err(e) => done.push((i, Err(e))),
                }
            } else if let Some((i, loaded, bindings)) = largest() {
                done.push((i, counted(loaded, bindings)));
            } else {
                return done;
            }
        }
    };
    let mut done = std::thread::scope(|scope| -> Result<Vec<(usize, Result<Counted>)>> {
        // Models may nest subgraphs: their threads get the stack of the main one.
        let worker = || std::thread::Builder::new().stack_size(super::STACK_BYTES);
        let threads = (0..workers).map(|_| worker().spawn_scoped(scope, work)).collect::<std::io::Result<Vec<_>>>();
        let threads = threads.map_err(|e| Error::run(format!("no thread can be started: {e}")))?;
        let mut all = Vec::new();
        for t in threads {
            all.extend(t.join().map_err(|_| Error::run("counting stopped"))?);
        }
        Ok(all)
    })?;
    done.sort_by_key(|d| d.0);
    done.into_iter()
        .map(|(i, c)| {
            let name = &settings.budgets[items[i].budget].name;
            c.map_err(|e| {
                let named = Error::input(format!("budget '{name}': {}", e.to_string().lines().next().unwrap_or("")));
                e.hint_text().map_or(named.clone(), |h| named.hint(h))
            })
        })
        .collect()
}

/// Heap that a counting thread takes from the system at once.
const HEAP_BYTES: usize = 16 << 20;

/// Makes the heap of this thread large before it is used, by asking for memory and giving it back.
///
/// glibc lets the heap of every thread but the first grow by one page at a time, each with a call to the system that also stops the
/// page faults of the other threads: with twenty large models that is a fifth of all the time. The first request, a mapping of its
/// own, teaches it to serve the second from the heap and to keep what is given back. No page is touched, so what is not used later
/// costs nothing; allocators that do otherwise do not mind.
fn take_heap() {
    for _ in 0..2 {
        drop(std::hint::black_box(Vec::<u8>::with_capacity(HEAP_BYTES)));
    }
}

/// Reads the model of a budget.
fn open(b: &Budget, item: &Item, rules: &Arc<Rules>) -> Result<(Loaded, Bindings)> {
    let loaded = load::load(&item.open)?;
    for dim in b.dims.keys() {
        known_dim(&loaded.spec, dim)?;
    }
    let bindings =
        Bindings { dims: b.dims.clone(), shapes: b.shapes.clone(), values: b.values.clone(), rules: Arc::clone(rules) };
    Ok((loaded, bindings))
}

/// Builds and counts what was loaded.
///
/// # Errors
/// If it cannot be built.
pub fn counted(loaded: Loaded, bindings: Bindings) -> Result<Counted> {
    let model = load::build(&loaded, &bindings)?;
    let snapshot = Snapshot::of(&loaded.name, &model, &analyze(&model.graph), file_bytes(&loaded));
    Ok(Counted { loaded, bindings, snapshot, bound: model.bound })
}

/// Bytes of a model's file and of the files with its data.
pub fn file_bytes(loaded: &Loaded) -> Option<u64> {
    let own = std::fs::metadata(loaded.path.as_ref()?).ok()?.len();
    Some(loaded.spec.data_files.iter().fold(own, |sum, f| sum.saturating_add(f.1)))
}

/// Named dims of the inputs.
fn free_dims(spec: &ModelSpec) -> Vec<&str> {
    let dims = spec.graph.inputs.iter().flat_map(|v| v.shape.iter().flatten());
    let mut names: Vec<&str> =
        dims.filter_map(|d| if let DimSpec::Named(n) = d { Some(n.as_str()) } else { None }).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Refuses limits on an operator that no model has and nobody knows: they would hold whatever the models cost.
fn known_operators(settings: &Settings, items: &[Item], counted: &[Counted], rules: &Rules) -> Result<()> {
    for (i, b) in settings.budgets.iter().enumerate() {
        let rows =
            || items.iter().zip(counted).filter(move |(item, _)| item.budget == i).flat_map(|(_, c)| &c.snapshot.rows);
        for limit in &b.limits {
            let (Test::Most(Scope::Op(op), ..) | Test::Least(Scope::Op(op), ..)) = &limit.test else { continue };
            let (domain, name) = op.rsplit_once('.').unwrap_or(("", op));
            let known = ops::lookup(domain, name).is_some()
                || rules.0.contains_key(&(domain.to_string(), name.to_string()))
                || rows().any(|r| r.op == *op);
            if !known && rows().next().is_some() {
                let all: BTreeSet<&str> = rows().map(|r| r.op.as_str()).collect();
                let all: Vec<&str> = all.into_iter().collect();
                let what = format!("budget '{}': {}: there is no operator '{op}', here or in ONNX", b.name, limit.rule);
                return Err(Error::input(what)
                    .in_file(&settings.path)
                    .hint(format!("operators here: {}", all.join(", "))));
            }
        }
    }
    Ok(())
}

fn known_dim(spec: &ModelSpec, dim: &str) -> Result<()> {
    let free = free_dims(spec);
    if free.contains(&dim) {
        return Ok(());
    }
    let hint = if free.is_empty() { "it has none".to_string() } else { format!("its free dims: {}", free.join(", ")) };
    Err(Error::input(format!("the model has no free dim '{dim}'")).hint(hint))
}

/// A model's figures at other sizes: of free dims, or of a built-in network's knobs.
///
/// # Errors
/// If it has no such dim or knob, or cannot take the size.
pub fn at(c: &Counted, sizes: &Sizes) -> Result<Snapshot> {
    let mut bindings = c.bindings.clone();
    let free = free_dims(&c.loaded.spec);
    let mut knobs = Vec::new();
    for (name, &n) in sizes {
        if free.contains(&name.as_str()) {
            bindings.dims.insert(name.clone(), n);
        } else if c.loaded.path.is_none() {
            knobs.push((name.as_str(), n.to_string()));
        } else {
            known_dim(&c.loaded.spec, name)?;
        }
    }
    if knobs.is_empty() {
        let model = load::build(&c.loaded, &bindings)?;
        return Ok(Snapshot::of(&c.loaded.name, &model, &analyze(&model.graph), file_bytes(&c.loaded)));
    }
    with_knobs(c, &bindings, &knobs)
}

/// A built-in network's figures with other knobs.
///
/// # Errors
/// If it has no such knob, or cannot take the value.
pub fn with_knobs(c: &Counted, bindings: &Bindings, knobs: &[(&str, String)]) -> Result<Snapshot> {
    let (base, own) = c.loaded.name.split_once('@').unwrap_or((&c.loaded.name, ""));
    let kept = own.split(',').filter(|k| !knobs.iter().any(|(n, _)| k.split('=').next() == Some(n)));
    let all: Vec<String> = kept
        .filter(|k| !k.is_empty())
        .map(str::to_string)
        .chain(knobs.iter().map(|(n, v)| format!("{n}={v}")))
        .collect();
    let model = ir::build(&zoo::build(&format!("{base}@{}", all.join(",")))?, bindings)?;
    Ok(Snapshot::of(&c.loaded.name, &model, &analyze(&model.graph), None))
}

fn update(
    args: &CheckArgs,
    settings: &Settings,
    items: &[Item],
    counted: &[Counted],
    mut known: Baseline,
) -> Result<u8> {
    // What no budget names any more goes; what was not asked for this time stays.
    let (mut changed, mut new) = (0, 0);
    let mut kept: BTreeMap<String, Snapshot> = BTreeMap::new();
    if !args.names.is_empty() {
        kept.append(&mut known.models);
    }
    for (item, c) in items.iter().zip(counted) {
        let key = baseline::key(&settings.budgets[item.budget].name, &item.text);
        let before = known.models.get(&key).or_else(|| kept.get(&key));
        let one = |s: &Snapshot| Baseline { models: [(key.clone(), s.clone())].into() }.text();
        match before {
            None => new += 1,
            Some(b) if one(b) != one(&c.snapshot) => changed += 1,
            Some(_) => {}
        }
        kept.insert(key, c.snapshot.clone());
    }
    output::save(&settings.baseline, Baseline { models: kept }.text().as_bytes())?;
    note(
        args.quiet,
        &format!("{}: {}, {new} new, {changed} changed", settings.baseline.display(), plural(items.len(), "model")),
    );
    Ok(FINE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_as_in_a_shell() {
        for (pattern, name, want) in [
            ("*.onnx", "a.onnx", true),
            ("*.onnx", "a.onnx.data", false),
            ("a*b*c", "aXXbYYc", true),
            ("a*b*c", "aXXbYY", false),
            ("?.onnx", "a.onnx", true),
            ("?.onnx", ".onnx", false),
            ("*", "", true),
            ("", "a", false),
        ] {
            assert_eq!(fits(pattern.as_bytes(), name.as_bytes()), want, "{pattern} {name}");
        }
    }
}
