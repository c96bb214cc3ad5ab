//! `knobs`: every environment variable and every key of `madd-prof.toml` with its value and where that comes from.

use super::args::KnobsArgs;
use super::{FINE, colour, output};
use crate::config::{self, Config};
use crate::error::Result;
use crate::machine::cache;
use crate::report::Cell;
use crate::report::grid::{Grid, GridColumn};
use crate::simd::Isa;

/// A variable and what it does.
struct Variable {
    name: &'static str,
    what: &'static str,
    /// What holds where it is not set.
    otherwise: fn() -> String,
}

fn folder() -> String {
    cache::folder().map_or_else(|| "nothing is kept".into(), |f| f.display().to_string())
}

fn yes(b: bool) -> String {
    if b { "colours" } else { "no colours" }.into()
}

/// Every variable the program reads.
static VARIABLES: &[Variable] = &[
    Variable {
        name: Isa::ENV,
        what: "caps the instruction set of the optimized path: portable, neon, avx2, avx512",
        otherwise: || Isa::best().name().into(),
    },
    Variable {
        name: cache::ENV,
        what: "folder for probed ceilings, tuned choices and packed weights; empty: keep none",
        otherwise: folder,
    },
    Variable {
        name: cache::KEEP,
        what: "GiB of packed weights kept there, the longest unused go first; 0: none",
        otherwise: || cache::KEEP_GIB.to_string(),
    },
    Variable {
        name: "XDG_CACHE_HOME",
        what: "where that folder is, unless it is named",
        otherwise: || "~/.cache".into(),
    },
    Variable { name: "HOME", what: "where ~ is", otherwise: || "nothing is kept".into() },
    Variable {
        name: crate::measure::onnxruntime::ENV,
        what: "ONNX Runtime's shared library, for bench --runtime ort",
        otherwise: || "where the system looks".into(),
    },
    Variable { name: "COLUMNS", what: "width of tables", otherwise: || super::width().to_string() },
    Variable { name: "NO_COLOR", what: "no colours, whatever it says", otherwise: || yes(colour::on_stdout()) },
    Variable { name: "CLICOLOR", what: "0: no colours", otherwise: || yes(colour::on_stdout()) },
    Variable { name: "FORCE_COLOR", what: "colours also in a pipe; 0: none", otherwise: || yes(colour::on_stdout()) },
    Variable { name: "CLICOLOR_FORCE", what: "the same", otherwise: || yes(colour::on_stdout()) },
    Variable { name: "TERM", what: "dumb: no colours", otherwise: || yes(colour::on_stdout()) },
];

/// Names of the variables, for a test that looks for them in the sources.
#[cfg(test)]
pub fn variables() -> Vec<&'static str> {
    VARIABLES.iter().map(|v| v.name).collect()
}

/// Lists.
///
/// # Errors
/// If the configuration cannot be read or the result cannot be written.
pub fn run(args: &KnobsArgs) -> Result<u8> {
    output::format(&args.output)?;
    let here = std::env::current_dir().unwrap_or_default();
    let config = Config::find(args.config.as_deref(), &here)?;
    let mut rows = Vec::new();
    for v in VARIABLES {
        let (value, origin) = match std::env::var_os(v.name) {
            Some(value) => (value.to_string_lossy().into_owned(), "environment"),
            None => ((v.otherwise)(), "default"),
        };
        rows.push(row(v.name, &value, origin, v.what));
    }
    let file = config.path.as_ref().map(|p| p.display().to_string());
    for (key, what) in config::KEYS {
        let set = config.set.iter().filter(|(k, _)| k == key || k.starts_with(&format!("{key}.")));
        let mut any = false;
        for (k, value) in set {
            any = true;
            rows.push(row(k, value, file.as_deref().unwrap_or_default(), what));
        }
        if !any {
            rows.push(row(key, "", "default", what));
        }
    }
    let grid = Grid {
        name: "knobs",
        heading: format!(
            "Settings, and where each comes from · {}",
            file.unwrap_or_else(|| format!("no {} here or above", config::FILE))
        ),
        heading_key: "title",
        columns: vec![
            GridColumn::new("name", "Setting"),
            GridColumn::new("value", "Value"),
            GridColumn::new("origin", "From").yields_last(1),
            GridColumn::new("meaning", "What it does").yields_last(2),
        ],
        rows,
        notes: vec!["Options of the command line beat the environment, which beats the file.".into()],
        ..Grid::default()
    };
    output::show_grid(&grid, &args.output)?;
    Ok(FINE)
}

fn row(name: &str, value: &str, origin: &str, what: &str) -> Vec<Cell> {
    [name, value, origin, what].map(|s| Cell::Text(s.to_string())).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variable_of_the_sources_is_listed() {
        let mut todo = vec![std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
        let mut found = std::collections::BTreeSet::new();
        while let Some(dir) = todo.pop() {
            for entry in std::fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    todo.push(path);
                } else if path.extension().is_some_and(|e| e == "rs") {
                    let text = std::fs::read_to_string(&path).unwrap();
                    for (at, _) in text.match_indices("MADD_PROF_") {
                        let name = text[at..].chars().take_while(|c| c.is_ascii_uppercase() || *c == '_');
                        found.insert(name.collect::<String>());
                    }
                }
            }
        }
        found.remove("MADD_PROF_");
        let listed = variables();
        for name in found {
            assert!(listed.contains(&name.as_str()), "{name} is not listed");
        }
    }
}
