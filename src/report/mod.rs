//! What is told: typed cells with units, made in one place, turned into bytes by formats that never compute.
//!
//! To add a format: write a file with `pub fn render(&Report, &Look) -> Result<Vec<u8>>` and add one line to [`FORMATS`].

mod benchmark;
pub mod candidates;
pub mod columns;
pub mod compose;
pub mod conventions;
mod csv;
mod findings;
mod github;
mod gitlab;
pub mod grid;
mod hierarchy;
mod html;
mod json;
mod junit;
pub mod live;
mod markdown;
pub mod model;
mod model_explorer;
pub mod modules;
mod parquet;
mod people;
pub mod roofline;
mod sarif;
mod table;
mod text;
mod trace;
pub mod verdict;
pub mod view;
mod xlsx;

pub use columns::{COLUMNS, Cell, Column};
pub use compose::{Source, compose};
pub use model::{Kind, Latency, Layer, Report, SCHEMA, Time};
pub use roofline::Roofline;
pub use view::{View, view};

use crate::error::{Error, Result};

/// How a report for people should look.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    /// Columns of the terminal.
    pub width: usize,
}

/// One row of the format table.
pub struct Format {
    /// Name on the command line.
    pub name: &'static str,
    /// Endings of file names that mean it.
    pub endings: &'static [&'static str],
    /// Whether it is for people: blocks that repeat are grouped, numbers are rounded.
    pub for_people: bool,
    /// Makes the bytes.
    pub render: fn(&Report, &Look) -> Result<Vec<u8>>,
}

/// The formats.
pub static FORMATS: &[Format] = &[
    Format { name: "table", endings: &["txt"], for_people: true, render: table::render },
    Format { name: "csv", endings: &["csv"], for_people: false, render: csv::render },
    Format { name: "json", endings: &["json"], for_people: false, render: json::render },
    Format { name: "html", endings: &["html", "htm"], for_people: false, render: html::render },
    Format { name: "markdown", endings: &["md", "markdown"], for_people: true, render: markdown::render },
    Format { name: "xlsx", endings: &["xlsx"], for_people: false, render: xlsx::render },
    Format { name: "parquet", endings: &["parquet"], for_people: false, render: parquet::render },
    Format { name: "trace", endings: &[], for_people: false, render: trace::render },
    Format {
        name: "github-action-benchmark",
        endings: &[],
        for_people: false,
        render: benchmark::github_action_benchmark,
    },
    Format { name: "bencher", endings: &[], for_people: false, render: benchmark::bencher },
    Format { name: "model-explorer", endings: &[], for_people: false, render: model_explorer::render },
];

/// Whether a format is no text.
pub fn is_binary(format: &str) -> bool {
    matches!(format, "xlsx" | "parquet")
}

/// The format of a name.
///
/// # Errors
/// If there is none.
pub fn format_named(name: &str) -> Result<&'static Format> {
    FORMATS.iter().find(|f| f.name == name).ok_or_else(|| {
        let names: Vec<&str> = FORMATS.iter().map(|f| f.name).collect();
        Error::usage(format!("there is no format '{name}'")).hint(format!("formats: {}", names.join(", ")))
    })
}

/// The format a file name's ending asks for.
pub fn format_of_ending(path: &std::path::Path) -> Option<&'static Format> {
    let ending = path.extension()?.to_str()?.to_ascii_lowercase();
    FORMATS.iter().find(|f| f.endings.contains(&ending.as_str()))
}

pub use table::yielding as simple_table;
pub use text::wrap as wrapped;
pub use verdict::{VERDICT_FORMATS, VerdictFormat, verdict_format};
