//! Arguments of what sets models side by side.

use super::shared::{BindingArgs, OutputArgs, RaceArgs};
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// What `variants --help` adds.
const VARIANTS_HELP: &str = "\
Examples:
  madd-prof variants --list                                  what there is, with its knobs
  madd-prof variants --layer \"conv 3x3 64->128 @56x56\"      every variant of one convolution
  madd-prof variants --layer \"conv 5x5 16->32 @28x28 s2\" --apply stacked-3x3 --apply asymmetric
  madd-prof variants resnet50                                every variant of a model, each by itself
  madd-prof variants model.onnx --apply separable,se         both together, one after the other
  madd-prof variants model.onnx --apply low-rank@share=0.4 --emit light.onnx
  madd-prof variants resnet50 --apply separable --per-layer  which of its layers it pays for, and from which size on
  madd-prof variants mobilenet_v2 --budget madds=150M        what meets a budget, the least change first

A layer is: conv KxK IN->OUT @HxW (the size of its input map), then what differs from the usual: s2 (stride), d2 (dilation), g4
(groups), p0 (padding; else what keeps the size at stride 1), n8 (batch), bias. `dw 3x3 64 @56x56` and `pw 64->128 @56x56` are short forms.

xMAdds and xtime are ratios to the original; xtime is the median of paired ratios over interleaved rounds of the optimized path,
with its 95 % confidence interval. Break-even: all variants of a layer are timed again at other numbers of channels (or resolutions), those of a model that multiply less
than it at other resolutions (or widths). A slimmable network (s_mobilenet_v1) shows its switches instead, and what switching costs.";

/// `variants`.
#[derive(Debug, Args)]
#[command(after_help = VARIANTS_HELP)]
pub struct VariantsArgs {
    /// An .onnx file, or a built-in network with its knobs (mobilenet_v2@width=0.5,res=192)
    #[arg(value_name = "MODEL", required_unless_present_any = ["layer", "list"], conflicts_with_all = ["layer", "list"])]
    pub model: Option<String>,
    /// One convolution instead of a model: "conv 3x3 64->128 @56x56"
    #[arg(long, value_name = "SPEC", conflicts_with = "list")]
    pub layer: Option<String>,
    /// List the variants with their knobs
    #[arg(long)]
    pub list: bool,
    /// Variants to apply together, in order; knobs follow with @: ghost@ratio=4. Repeat it for several rows (default: each by itself)
    #[arg(long, value_name = "NAMES")]
    pub apply: Vec<String>,
    /// Write the rewritten model to this file; needs exactly one --apply
    #[arg(long, value_name = "FILE.onnx", conflicts_with = "budget")]
    pub emit: Option<PathBuf>,
    /// Look for the least change that meets a budget: madds=150M, params=2M, bytes=40M or latency=5 (ms)
    #[arg(long, value_name = "WHAT=N", conflicts_with_all = ["layer", "apply"])]
    pub budget: Option<String>,
    /// Time the rewritten layers of a model one by one, each against the original, instead of the whole; needs one --apply of a block
    #[arg(long, requires = "apply", conflicts_with_all = ["layer", "budget", "no_run"])]
    pub per_layer: bool,
    /// Only count: nothing is timed
    #[arg(long)]
    pub no_run: bool,
    /// What to vary for the break-even (default: channels of a layer; resolution of a model, or its width where that is fixed)
    #[arg(long, value_enum)]
    pub break_even: Option<BreakEven>,
    #[command(flatten)]
    pub binding: BindingArgs,
    #[command(flatten)]
    pub measure: RaceArgs,
    /// Leave out notes and progress
    #[arg(long, short)]
    pub quiet: bool,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// What is varied for a break-even.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BreakEven {
    /// Channels in and out, by the same factors
    Channels,
    /// Height and width of the map or image
    Resolution,
    /// Nothing
    Off,
}

/// What `compare --help` adds.
const COMPARE_HELP: &str = "\
Examples:
  madd-prof compare resnet18 mobilenet_v2 ghostnet           three networks
  madd-prof compare a.onnx b.onnx --threads 1 --seconds 5
  madd-prof compare zoo                                      every built-in image network that fits in memory
  madd-prof compare mobilenet --format csv -o points.csv     all built-in networks whose name begins so, ready to plot

Ratios are to the first model. Rank correlations say how well Params, MAdds, bytes and the roofline's time order the models as their
latency does (1: the same order, 0: none). Top-1 is what the authors published; no model of the Pareto set is beaten in both.";

/// `compare`.
#[derive(Debug, Args)]
#[command(after_help = COMPARE_HELP)]
pub struct CompareArgs {
    /// Files, built-in networks with their knobs, beginnings of such names, or `zoo` for all built-in image networks
    #[arg(value_name = "MODEL", required = true)]
    pub models: Vec<String>,
    #[command(flatten)]
    pub binding: BindingArgs,
    #[command(flatten)]
    pub measure: RaceArgs,
    /// Only count: nothing is timed
    #[arg(long)]
    pub no_run: bool,
    /// Leave out notes and progress
    #[arg(long, short)]
    pub quiet: bool,
    #[command(flatten)]
    pub output: OutputArgs,
}
