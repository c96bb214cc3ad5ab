//! Arguments of what holds models to something: budgets, and what they were.

use super::shared::{BindingArgs, OutputArgs};
use super::values::verdict_parser;
use clap::Args;
use std::path::PathBuf;

/// What `check --help` adds.
pub const CHECK_HELP: &str = "\
Examples:
  madd-prof init model.onnx resnet18      begin: a commented madd-prof.toml with the present figures
  madd-prof check                         all budgets of madd-prof.toml, here or in a folder above
  madd-prof check classifier --why        one budget; the layers responsible, and what would fit
  madd-prof check --update-baseline       the present figures become what growth is held against
  madd-prof check --format github --also junit=b.xml --also sarif=b.sarif

In madd-prof.toml:
  [[budget]]
  name = \"classifier\"
  model = \"models/*.onnx\"           # a file, a pattern or a built-in network
  dims = { batch = 1 }
  params = \"3.6M\"                   # at most; or { max = .., min = .., level = \"warn\" }
  layer.madds = \"20M\"               # every single layer; op.Conv.madds: an operator's layers together
  growth.madds = \"2%\"               # more than in the baseline
  formulas = [\"madds(seq=4096) < 2e12\"]
  latency = { against = \"main:models/a.onnx\", growth = \"5%\" }

Limits: params, madds, flops, other_flops, bytes, weight_bytes, read_bytes, write_bytes, peak_activation_bytes, param_bytes,
file_bytes, nodes, coverage (percent, at least). Latency is never an absolute time: both models (or with `build`, both builds of
this program) run in turns, each also against itself, and what the noise of this machine hides cannot be told.

Exit codes: 0 all within (or only warnings), 1 a breach, 3 a limit that cannot be told, 2 usage or input error.";

/// `check`.
#[derive(Debug, Args)]
#[command(after_help = CHECK_HELP)]
pub struct CheckArgs {
    /// Names of the budgets to check (default: all)
    #[arg(value_name = "BUDGET")]
    pub names: Vec<String>,
    /// Settings with the budgets (default: madd-prof.toml here or in a folder above)
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The baseline that growth is held against (default: as in the settings, madd-prof-baseline.json beside them)
    #[arg(long, value_name = "FILE")]
    pub baseline: Option<PathBuf>,
    /// Write the present figures as the baseline instead of checking
    #[arg(long, conflicts_with_all = ["why", "format", "output", "also"])]
    pub update_baseline: bool,
    /// Say by how much and through which layers a limit is broken, and the smallest change that would fit
    #[arg(long)]
    pub why: bool,
    /// Leave out limits on latency
    #[arg(long)]
    pub no_latency: bool,
    /// Format of the result
    #[arg(long, value_name = "FORMAT", value_parser = verdict_parser())]
    pub format: Option<String>,
    /// Write to this file instead of stdout; its ending chooses the format unless --format does
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Write the result in another format too: --also junit=budgets.xml --also sarif=budgets.sarif
    #[arg(long, value_name = "FORMAT=FILE")]
    pub also: Vec<String>,
    /// Leave out notes and progress
    #[arg(long, short)]
    pub quiet: bool,
}

/// What `init --help` adds.
pub const INIT_HELP: &str = "\
Examples:
  madd-prof init model.onnx                    writes madd-prof.toml
  madd-prof init model.onnx --dim batch=1 --output -
  madd-prof init resnet18 mobilenet_v2";

/// `init`.
#[derive(Debug, Args)]
#[command(after_help = INIT_HELP)]
pub struct InitArgs {
    /// .onnx files and built-in networks
    #[arg(value_name = "MODEL", required = true)]
    pub models: Vec<String>,
    #[command(flatten)]
    pub binding: BindingArgs,
    /// The file to write, or - for stdout (default: madd-prof.toml)
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Write it even if it is there
    #[arg(long)]
    pub force: bool,
    /// Leave out notes
    #[arg(long, short)]
    pub quiet: bool,
}

/// What `diff --help` adds.
pub const DIFF_HELP: &str = "\
Examples:
  madd-prof diff old.onnx new.onnx
  madd-prof diff main:model.onnx model.onnx                  as it is on a branch, and as it is now
  madd-prof diff base.json model.onnx                        a report of `count --format json` from before
  madd-prof diff resnet18 resnet18@width=0.5 --format markdown

Layers are matched by name where names mean something (not Conv_12), then by structure. REVISION:PATH is from the current folder.";

/// `diff`.
#[derive(Debug, Args)]
#[command(after_help = DIFF_HELP)]
pub struct DiffArgs {
    /// What was: a model, a saved JSON report, or REVISION:PATH of either
    #[arg(value_name = "BASE")]
    pub base: String,
    /// What is
    #[arg(value_name = "HEAD")]
    pub head: String,
    #[command(flatten)]
    pub binding: BindingArgs,
    /// Show layers that are the same too
    #[arg(long)]
    pub all: bool,
    /// Exit code 1 if a layer differs
    #[arg(long)]
    pub exit_code: bool,
    /// Leave out notes
    #[arg(long, short)]
    pub quiet: bool,
    #[command(flatten)]
    pub output: OutputArgs,
}
