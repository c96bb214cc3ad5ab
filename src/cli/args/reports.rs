//! Arguments of what counts and measures one model.

use super::shared::{EngineArgs, MeasureArgs, ModelArgs, OnePath, OutputArgs, Runtime, ViewArgs};
use super::values::{parse_seconds, parse_sweep};
use clap::Args;
use std::path::PathBuf;

/// What `profile --help` adds.
const PROFILE_HELP: &str = "\
Examples:
  madd-prof mobilenet_v2                       counts, both kernel paths, and why they differ
  madd-prof model.onnx --output report.html    charts and a table in one file
  madd-prof model.onnx --threads 1 --seconds 10 --format trace --output trace.json
  madd-prof model.onnx --depth 2 --path optimized";

/// `profile`.
#[derive(Debug, Args)]
#[command(after_help = PROFILE_HELP)]
pub struct ProfileArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub measure: MeasureArgs,
    #[command(flatten)]
    pub view: ViewArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// What `count --help` adds.
const COUNT_HELP: &str = "\
Examples:
  madd-prof count model.onnx --depth 2 --sort madds --top 10
  madd-prof count model.onnx --modules --depth 3          modules above their rows, with their sums
  madd-prof count model.onnx --format csv --output layers.csv
  madd-prof count model.onnx --output layers.xlsx         a workbook that recomputes
  madd-prof count model.onnx --verify                     prove every count by executing with numbers that count
  madd-prof count model.onnx --convention all --as fvcore,thop
  madd-prof count model.onnx --import-profile ort_profile.json
  madd-prof count bert.onnx --symbolic batch,seq
  madd-prof count bert.onnx --dim batch=1 --sweep seq=64..512:x2";

/// `count`.
#[derive(Debug, Args)]
#[command(after_help = COUNT_HELP)]
pub struct CountArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub view: ViewArgs,
    /// Execute the model once with numbers that count what is done to them and compare every layer (exit code 1 if one differs)
    #[arg(long)]
    pub verify: bool,
    /// Run the model once on its reference kernels and count what only a run tells: branches taken, rounds of loops,
    /// sizes that depend on the data
    #[arg(long)]
    pub executed: bool,
    /// Also count learned elements without copies: tensors equal to another, or to another transposed (tied weights); reads
    /// the weights
    #[arg(long)]
    pub distinct: bool,
    /// Print Params and MAdds as exact polynomials in these free dims: --symbolic batch,seq
    #[arg(long, value_name = "DIMS", value_delimiter = ',', conflicts_with_all = ["executed", "verify", "sweep"])]
    pub symbolic: Vec<String>,
    /// Count at several sizes of one free dim: --sweep seq=128..4096:x2 (or :+64, or seq=1,8,64)
    #[arg(long, value_name = "NAME=SIZES", value_parser = parse_sweep, conflicts_with_all = ["executed", "verify"])]
    pub sweep: Option<(String, Vec<usize>)>,
    /// Inputs for --executed and --verify: an .npz archive with an array per graph input (made up if not given)
    #[arg(long, short, value_name = "X.npz")]
    pub input: Option<PathBuf>,
    /// Also print the figure other counters give, and the whole difference line by line: all, or a list of fvcore, thop,
    /// ultralytics-thop, ptflops, ptflops-aten, torchinfo, torchprofile, calflops, torch, onnx-tool, tract, paper
    #[arg(long = "as", value_name = "NAMES")]
    pub lens: Option<String>,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// What `bench --help` adds.
const BENCH_HELP: &str = "\
Examples:
  madd-prof bench resnet50 --threads 2 --format json
  madd-prof bench model.onnx --path optimized --seconds 10 --pin
  madd-prof bench model.onnx --format github-action-benchmark --output bench.json";

/// `bench`.
#[derive(Debug, Args)]
#[command(after_help = BENCH_HELP)]
pub struct BenchArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub measure: MeasureArgs,
    /// Also run another runtime in turns with our paths: ONNX Runtime, from its shared library (needs a build with --features ort)
    #[arg(long, value_enum)]
    pub runtime: Option<Runtime>,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// What `run --help` adds.
const RUN_HELP: &str = "\
Examples:
  madd-prof run model.onnx --input x.npz --output y.npz
  madd-prof run model.onnx --input x.npz --output y.npz --path reference";

/// `run`.
#[derive(Debug, Args)]
#[command(after_help = RUN_HELP)]
pub struct RunArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    /// Inputs: an .npz archive with an array per graph input, under the input's name. Free dims are bound to its shapes
    #[arg(long, short, value_name = "X.npz")]
    pub input: Option<PathBuf>,
    /// Outputs: an .npz archive with an array per graph output
    #[arg(long, short, value_name = "Y.npz")]
    pub output: PathBuf,
    /// Kernel path
    #[arg(long, value_enum, default_value = "optimized")]
    pub path: OnePath,
    #[command(flatten)]
    pub engine: EngineArgs,
}

/// What `kernels --help` adds.
const KERNELS_HELP: &str = "\
Examples:
  madd-prof kernels mobilenet_v2
  madd-prof kernels model.onnx --no-run --format csv      what would run, and why the others would not";

/// `kernels`.
#[derive(Debug, Args)]
#[command(after_help = KERNELS_HELP)]
pub struct KernelsArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub engine: EngineArgs,
    /// Only plan: nothing is run or timed
    #[arg(long)]
    pub no_run: bool,
    /// Time limit of the timing run in seconds; at least one run is made, and three after a first that fits the limit
    #[arg(long, value_name = "S", value_parser = parse_seconds, default_value = "0.5")]
    pub seconds: f64,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// What `machine --help` adds.
const MACHINE_HELP: &str = "\
Examples:
  madd-prof machine
  madd-prof machine --probe --format json";

/// `machine`.
#[derive(Debug, Args)]
#[command(after_help = MACHINE_HELP)]
pub struct MachineArgs {
    /// Probe anew, also if there are ceilings from before
    #[arg(long)]
    pub probe: bool,
    /// Leave out notes and progress
    #[arg(long, short)]
    pub quiet: bool,
    #[command(flatten)]
    pub output: OutputArgs,
}
