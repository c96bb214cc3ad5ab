//! Arguments that several commands share: model and bindings, view, output, engine, measuring.

use super::values::{format_parser, parse_dim, parse_percent, parse_positive, parse_seconds, parse_shape, parse_value};
use crate::config::Config;
use crate::engine;
use crate::error::{Error, Result};
use crate::ir::Bindings;
use clap::{Args, ValueEnum};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// The model and what its free dims are.
#[derive(Debug, Args)]
pub struct ModelArgs {
    /// An .onnx file, or a built-in network with its knobs (mobilenet_v2@width=0.5,res=192)
    #[arg(value_name = "MODEL")]
    pub model: String,
    #[command(flatten)]
    pub binding: BindingArgs,
    /// Leave out notes and progress
    #[arg(long, short)]
    pub quiet: bool,
}

/// Which shapes and values the inputs of models have, and what operators of their own cost.
#[derive(Debug, Args)]
pub struct BindingArgs {
    /// Bind a free dim of the model: --dim batch=1 --dim seq=128
    #[arg(long = "dim", value_name = "NAME=N", value_parser = parse_dim)]
    pub dims: Vec<(String, usize)>,
    /// Set the whole shape of an input: --input-shape images=1x3x224x224
    #[arg(long = "input-shape", value_name = "NAME=SHAPE", value_parser = parse_shape)]
    pub shapes: Vec<(String, Vec<usize>)>,
    /// Fix the value of a small input, so that shapes and branches that depend on it are known: --value sr=16000
    #[arg(long = "value", value_name = "NAME=V", value_parser = parse_value)]
    pub values: Vec<(String, Vec<f64>)>,
    /// Settings, such as cost rules for own operators (default: madd-prof.toml here or in a folder above)
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

impl BindingArgs {
    /// The bindings given, with the cost rules of the configuration.
    ///
    /// # Errors
    /// If a name is bound twice to different sizes, or the configuration cannot be read.
    pub fn bindings(&self) -> Result<Bindings> {
        let here = std::env::current_dir().unwrap_or_default();
        let rules = Arc::new(Config::find(self.config.as_deref(), &here)?.rules);
        Ok(Bindings { rules, ..self.bindings_without_config()? })
    }
    /// The bindings given.
    ///
    /// # Errors
    /// If a name is bound twice to different sizes.
    pub fn bindings_without_config(&self) -> Result<Bindings> {
        let mut bindings = Bindings::default();
        bind(&mut bindings.dims, &self.dims, "--dim")?;
        bind(&mut bindings.shapes, &self.shapes, "--input-shape")?;
        bind(&mut bindings.values, &self.values, "--value")?;
        Ok(bindings)
    }
}

/// Binds names, each to one thing.
fn bind<T: Clone + PartialEq>(into: &mut BTreeMap<String, T>, given: &[(String, T)], flag: &str) -> Result<()> {
    for (name, what) in given {
        if into.insert(name.clone(), what.clone()).is_some_and(|other| other != *what) {
            return Err(Error::usage(format!("{flag} gives '{name}' twice, differently")));
        }
    }
    Ok(())
}

/// How the report is written.
#[derive(Debug, Args)]
pub struct OutputArgs {
    /// Format of the report
    #[arg(long, value_name = "FORMAT", value_parser = format_parser())]
    pub format: Option<String>,
    /// Write to this file instead of stdout; its ending chooses the format unless --format does
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// What the layer table shows.
#[derive(Debug, Args)]
pub struct ViewArgs {
    /// Sort rows by a column, largest first: madds, params, bytes, intensity, time, optimized_ms …
    #[arg(long, value_name = "COLUMN")]
    pub sort: Option<String>,
    /// Show this many rows and sum the rest in one
    #[arg(long, value_name = "N", value_parser = parse_positive)]
    pub top: Option<usize>,
    /// Sum rows by module path to this depth (names split at '/' and '.')
    #[arg(long, value_name = "N", value_parser = parse_positive)]
    pub depth: Option<usize>,
    /// Show each module above its rows, with its sums; with --depth, modules to that depth only
    #[arg(long, conflicts_with_all = ["sort", "top"])]
    pub modules: bool,
    /// Show repeated blocks one by one instead of folding them (×N)
    #[arg(long)]
    pub all: bool,
    /// Also print totals under other conventions: all, or a list of madds, flops, flops-core, madds-bias, flops-bias,
    /// madds-useful, madds-weights
    #[arg(long, value_name = "NAMES")]
    pub convention: Option<String>,
    /// Join what another runtime measured with the counts: ONNX Runtime's profiling JSON, OpenVINO's benchmark_app report,
    /// TensorRT's trtexec profile (with a second file: its layer information), TFLite's op profile (CSV or print) or PyTorch's trace of
    /// this model
    #[arg(long, value_name = "FILE")]
    pub import_profile: Vec<PathBuf>,
    /// Fail (exit code 2) if the cost of any node is unknown
    #[arg(long)]
    pub strict: bool,
    /// Fail (exit code 1) unless at least this share of nodes, and of bytes and time where known, has a known cost
    #[arg(long, value_name = "PERCENT", value_parser = parse_percent)]
    pub min_coverage: Option<f64>,
}

/// How the optimized path runs.
#[derive(Debug, Args)]
pub struct EngineArgs {
    /// Threads of the optimized path (default: all cores)
    #[arg(long, short = 'j', value_name = "N", value_parser = parse_positive)]
    pub threads: Option<usize>,
    /// Keep every thread on a core of its own (Linux)
    #[arg(long)]
    pub pin: bool,
    /// Where several kernels fit a step, time them on its shapes and take the fastest; kept for later runs on this machine
    #[arg(long)]
    pub autotune: bool,
    /// Do without Winograd convolutions (fewer multiplications, errors up to 1e-5 relative to the largest result)
    #[arg(long)]
    pub no_winograd: bool,
    /// Do without Strassen's algorithm in matrix products (an eighth fewer multiplications, errors up to 1e-5 relative to the largest result)
    #[arg(long)]
    pub no_strassen: bool,
}

/// How measurements are made.
#[derive(Debug, Args)]
pub struct MeasureArgs {
    #[command(flatten)]
    pub engine: EngineArgs,
    /// Kernel paths to measure
    #[arg(long, value_enum, default_value = "both")]
    pub path: Paths,
    /// Time limit per path in seconds; at least one run is made, and three after a first that fits the limit
    #[arg(long, value_name = "S", value_parser = parse_seconds, default_value = "2")]
    pub seconds: f64,
}

/// Kernel paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Paths {
    /// Readable loops, nothing fused
    Reference,
    /// Vector kernels, fused
    Optimized,
    /// One and the other
    Both,
}

impl Paths {
    /// The paths meant, reference first.
    pub fn list(self) -> Vec<engine::Path> {
        match self {
            Paths::Reference => vec![engine::Path::Reference],
            Paths::Optimized => vec![engine::Path::Optimized],
            Paths::Both => vec![engine::Path::Reference, engine::Path::Optimized],
        }
    }
}

/// Other runtimes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Runtime {
    /// ONNX Runtime on its CPU provider
    Ort,
}

/// A single kernel path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OnePath {
    /// Readable loops, nothing fused
    Reference,
    /// Vector kernels, fused
    Optimized,
}

impl OnePath {
    /// The path meant.
    pub fn path(self) -> engine::Path {
        match self {
            OnePath::Reference => engine::Path::Reference,
            OnePath::Optimized => engine::Path::Optimized,
        }
    }
}

/// How candidates are timed against each other.
#[derive(Debug, Args)]
pub struct RaceArgs {
    #[command(flatten)]
    pub engine: EngineArgs,
    /// Kernel paths to measure (default: both for a layer, optimized for models, whose reference path takes seconds)
    #[arg(long, value_enum)]
    pub path: Option<Paths>,
    /// Time limit per candidate and path in seconds; at least one run is made
    #[arg(long, value_name = "S", value_parser = parse_seconds, default_value = "0.5")]
    pub seconds: f64,
}
