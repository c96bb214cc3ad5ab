//! `init`: a commented `madd-prof.toml` with the present figures of models as their budgets.

use super::args::InitArgs;
use super::check::file_bytes;
use super::{FINE, load, note, output};
use crate::analysis::analyze;
use crate::budget::{Metric, Snapshot};
use crate::config;
use crate::error::{Error, Result};
use crate::ir::Model;
use crate::units::exact;
use std::path::{Path, PathBuf};

/// Counts and writes.
///
/// # Errors
/// If the file is there already, or a model cannot be read or counted.
pub fn run(args: &InitArgs) -> Result<u8> {
    let target = args.output.clone().unwrap_or_else(|| PathBuf::from(config::FILE));
    let to_stdout = target == Path::new("-");
    if !to_stdout && target.exists() && !args.force {
        return Err(Error::usage("is there already")
            .in_file(&target)
            .hint("--force writes it anew, `--output -` prints to compare"));
    }
    let folder = target.parent().filter(|p| !p.as_os_str().is_empty() && !to_stdout).unwrap_or(Path::new("."));
    // A file that is written anew may be broken as it is.
    let without = args.force && args.binding.config.is_none();
    let bindings = if without { args.binding.bindings_without_config()? } else { args.binding.bindings()? };
    let mut text = String::from(HEAD);
    let mut names: Vec<String> = Vec::new();
    for model in &args.models {
        let loaded = load::load(model)?;
        let built = load::build(&loaded, &bindings)?;
        let snapshot = Snapshot::of(&loaded.name, &built, &analyze(&built.graph), file_bytes(&loaded));
        let stem = loaded.name.clone();
        let mut name = stem.clone();
        for n in 2.. {
            if !names.contains(&name) {
                break;
            }
            name = format!("{stem}-{n}");
        }
        let path = match &loaded.path {
            Some(path) => from(folder, Path::new(path)),
            None => model.clone(),
        };
        text.push_str(&block(&name, &path, &snapshot, &built));
        names.push(name);
        built.notes.iter().for_each(|n| note(args.quiet, n));
    }
    if to_stdout {
        output::print(text.as_bytes())?;
    } else {
        output::save(&target, text.as_bytes())?;
        note(
            args.quiet,
            &format!(
                "{} written; `madd-prof check` holds it against the models, `madd-prof check --update-baseline` begins a baseline",
                target.display()
            ),
        );
    }
    Ok(FINE)
}

const HEAD: &str = "\
# Budgets of models: `madd-prof check` holds them, `madd-prof check --why` explains. Paths are from this file's folder.
# Amounts: 3_600_000, \"3.6M\", \"14MiB\". A limit may be a table: { max = \"3.6M\", level = \"warn\" }.

[check]
level = \"error\"                               # off, warn or error; also in a budget, and in a limit
baseline = \"madd-prof-baseline.json\"          # written by `madd-prof check --update-baseline`, meant to be committed
";

/// A path as seen from a folder: as it is, unless the folder is a beginning of it.
fn from(folder: &Path, path: &Path) -> String {
    let whole = |p: &Path| p.canonicalize().unwrap_or_else(|_| p.to_path_buf());
    let (f, p) = (whole(folder), whole(path));
    let text =
        p.strip_prefix(&f).map_or_else(|_| p.to_string_lossy().into_owned(), |r| r.to_string_lossy().into_owned());
    text.replace('\\', "/")
}

/// Text in quotes as TOML takes it.
fn quoted(text: &str) -> String {
    let escaped: String = text
        .chars()
        .map(|c| match c {
            '"' | '\\' => format!("\\{c}"),
            c if c.is_control() => format!("\\u{:04X}", c as u32),
            c => c.to_string(),
        })
        .collect();
    format!("\"{escaped}\"")
}

fn block(name: &str, path: &str, s: &Snapshot, model: &Model) -> String {
    let mut out = format!("\n[[budget]]\nname = {}\nmodel = {}\n", quoted(name), quoted(path));
    if !model.bound.is_empty() {
        let dims: Vec<String> = model.bound.iter().map(|(k, n)| format!("{} = {n}", quoted(k))).collect();
        out.push_str(&format!("dims = {{ {} }}\n", dims.join(", ")));
    }
    let number = |n: u64| exact(n).replace(',', "_");
    let mut line = |key: &str, value: String, comment: &str| {
        out.push_str(&format!("{:<46} # {comment}\n", format!("{key} = {value}")));
    };
    let figures = [
        (Metric::Params, "", "learned elements"),
        (Metric::Madds, "", "multiply-adds of one inference"),
        (Metric::PeakActivationBytes, "", "most activations alive at once"),
        (Metric::FileBytes, "", "the file, and the files with its data"),
        (Metric::Flops, "# ", "2 x MAdds + all other floating-point operations"),
        (Metric::Bytes, "# ", "each operand read once, each result written once"),
    ];
    for (metric, off, words) in figures {
        if let Some(n) = s.get(metric).known() {
            line(&format!("{off}{}", metric.key()), number(n), words);
        }
    }
    let coverage = s.coverage.1.map_or(s.coverage.0, |b| b.min(s.coverage.0)) * 100.0;
    line("coverage", ((coverage * 100.0).floor() / 100.0).to_string(), "percent of nodes and bytes with a known cost");
    let largest = s.rows.iter().filter_map(|r| r.madds.map(|n| (n, r))).max_by_key(|r| r.0);
    if let Some((n, row)) = largest {
        line("layer.madds", number(n), &format!("the largest layer: {}", crate::error::printable(&row.name)));
        let sum: u64 = s.rows.iter().filter(|r| r.op == row.op).filter_map(|r| r.madds).sum();
        line(&format!("# op.{}.madds", key(&row.op)), number(sum), "all layers of an operator together");
    }
    line("# growth.madds", "\"2%\"".into(), "against the baseline; or an amount");
    if let Some((dim, n)) = model.bound.iter().next() {
        let madds = s.get(Metric::Madds).known().unwrap_or(0).saturating_mul(2);
        let text = format!("[\"madds({dim}={}) <= {}\"]", 2 * n, number(madds));
        line("# formulas", text, "figures at other sizes");
    }
    line("# latency", "{ against = \"main:…\", growth = \"5%\" }".into(), "timed in turns; a model or REVISION:PATH");
    out
}

/// A key of a table, in quotes where it needs them.
fn key(text: &str) -> String {
    let bare = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if bare { text.to_string() } else { quoted(text) }
}
