//! The arguments.

use crate::config::Config;
use crate::engine;
use crate::error::{Error, Result};
use crate::ir::Bindings;
use crate::report::{FORMATS, VERDICT_FORMATS};
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// What a neural network costs on paper and on silicon, and why the two differ.
///
/// Counts Params, MAdds, FLOPs and bytes of an ONNX model exactly, runs it through a readable reference path and an optimized
/// kernel path, and reports measured latency against the counts, layer by layer.
#[derive(Debug, Parser)]
#[command(name = "madd-prof", version, arg_required_else_help = true, after_help = AFTER, after_long_help = AFTER_LONG)]
#[command(override_usage = "madd-prof MODEL [OPTIONS]\n       madd-prof COMMAND …", subcommand_required = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const AFTER: &str = "MODEL is an .onnx file or a built-in network (`madd-prof zoo list`), with its knobs: mobilenet_v2@width=0.5,res=192.
`madd-prof MODEL` is short for `madd-prof profile MODEL`; `--help` says more than `-h`.";

const AFTER_LONG: &str = "\
MODEL is an .onnx file or a built-in network (`madd-prof zoo list`), with its knobs: mobilenet_v2@width=0.5,res=192.
`madd-prof MODEL` is short for `madd-prof profile MODEL`.

Examples:
  madd-prof mobilenet_v2                          the whole report: counts, both kernel paths, why they differ
  madd-prof count bert.onnx --dim batch=1 --dim seq=128
  madd-prof count model.onnx --format csv --output layers.csv
  madd-prof count model.onnx --depth 2 --sort madds --top 10
  madd-prof count model.onnx --verify             prove every count by executing with numbers that count
  madd-prof bench resnet50 --threads 2 --format json
  madd-prof run model.onnx --input x.npz --output y.npz --path reference
  madd-prof kernels mobilenet_v2                  which kernel each step got, why others declined, how near it comes to attainable
  madd-prof bench resnet50 --autotune --pin       time kernels against each other per shape, keep the choices; threads stay on cores
  madd-prof variants --layer \"conv 3x3 64->128 @56x56\"   depthwise, ghost, grouped, low rank …: on paper and in time
  madd-prof variants resnet50 --apply separable --emit light.onnx
  madd-prof compare resnet18 mobilenet_v2 ghostnet
  madd-prof init model.onnx; madd-prof check      budgets in madd-prof.toml, held in CI: exit code 0, 1 breach, 3 cannot tell
  madd-prof diff main:model.onnx model.onnx       what changed, layer by layer
  madd-prof machine                               what this machine allows: arithmetic, bandwidth per cache level, fork-join

Numbers:
  An MAdd (MAC) is one multiply and its add. FLOPs = 2 x MAdds + all other floating-point operations. `--convention all`
  prints the other ways people count. Unknown costs are shown as unknown, never counted as zero; --strict refuses them.

Environment:
  MADD_PROF_ISA    caps the instruction set of the optimized path: portable, neon, avx2 or avx512
  MADD_PROF_CACHE  folder for probed ceilings and tuned choices (default: madd-prof in XDG_CACHE_HOME or ~/.cache; empty: keep none)
  COLUMNS          width of tables (default: the terminal's, 120 in a pipe)
  NO_COLOR         no colours; also CLICOLOR=0 and TERM=dumb. FORCE_COLOR=1 or CLICOLOR_FORCE=1: colours also in a pipe
  `madd-prof knobs` lists all settings with their values and where those come from.

Ctrl-C while measuring ends after the current run and reports what was measured so far; a second one ends at once.

Exit codes: 0 fine, 1 a check failed (check, count --verify, --min-coverage), 2 usage or input error, 3 check cannot tell,
130 interrupted.";

/// Subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Count a model, run it on both kernel paths, and report time against the counts (the default)
    Profile(ProfileArgs),
    /// Count Params, MAdds, FLOPs and bytes per layer; nothing is executed
    Count(CountArgs),
    /// Measure end-to-end latency only, both paths interleaved
    Bench(BenchArgs),
    /// Run a model once on given inputs (.npz in, .npz out)
    Run(RunArgs),
    /// Show which kernel each step of the optimized path got, why others declined, and how near it comes to what is attainable
    Kernels(KernelsArgs),
    /// Show what this machine allows: arithmetic, bandwidth per cache level, fork-join; probed once and kept
    Machine(MachineArgs),
    /// Make other architectures of a model or of one convolution, count and time them side by side, and say where each pays
    Variants(VariantsArgs),
    /// Models side by side, timed interleaved: how Params, MAdds, bytes and the roofline rank them, and how time does
    Compare(CompareArgs),
    /// Hold models against their budgets in madd-prof.toml: exit code 0 within, 1 breach, 3 cannot tell
    Check(CheckArgs),
    /// Write a commented madd-prof.toml with the present figures of models as their budgets
    Init(InitArgs),
    /// What changed between two models, layer by layer: files, saved JSON reports, git revisions (main:model.onnx)
    Diff(DiffArgs),
    /// Built-in networks: list them, show one, export one as .onnx
    Zoo(ZooArgs),
    /// List every environment variable and key of madd-prof.toml with its value and where that comes from
    Knobs(KnobsArgs),
    /// Print a shell's completions: bash, elvish, fish, powershell or zsh
    Completions(CompletionsArgs),
    /// Print the man page, or write one per command into a folder
    Man(ManArgs),
    /// Run a folder of cases on both paths (for the project's own conformance test)
    #[command(hide = true)]
    Conformance(ConformanceArgs),
}

/// Names of the subcommands, aliases included.
pub fn command_names() -> Vec<&'static str> {
    // Known statically: building clap's whole command tree for this would cost more than counting a model.
    let names = vec![
        "profile",
        "count",
        "bench",
        "run",
        "kernels",
        "machine",
        "variants",
        "compare",
        "check",
        "init",
        "diff",
        "zoo",
        "knobs",
        "completions",
        "man",
        "conformance",
    ];
    debug_assert!(Cli::command().get_subcommands().all(|c| names.contains(&c.get_name())));
    names
}

/// The model and what its free dims are.
#[derive(Debug, Args)]
pub struct ModelArgs {
    /// An .onnx file, or a built-in network with its knobs (mobilenet_v2@width=0.5,res=192)
    #[arg(value_name = "MODEL")]
    pub model: String,
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
    /// Leave out notes and progress
    #[arg(long, short)]
    pub quiet: bool,
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
    /// TensorRT's trtexec profile, TFLite's op-profile CSV or PyTorch's trace of this model
    #[arg(long, value_name = "FILE")]
    pub import_profile: Option<PathBuf>,
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
}

/// How measurements are made.
#[derive(Debug, Args)]
pub struct MeasureArgs {
    #[command(flatten)]
    pub engine: EngineArgs,
    /// Kernel paths to measure
    #[arg(long, value_enum, default_value = "both")]
    pub path: Paths,
    /// Time limit per path in seconds; at least one run is made
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

/// `profile`.
#[derive(Debug, Args)]
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

/// `count`.
#[derive(Debug, Args)]
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

/// `bench`.
#[derive(Debug, Args)]
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

/// `run`.
#[derive(Debug, Args)]
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

/// `kernels`.
#[derive(Debug, Args)]
pub struct KernelsArgs {
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub engine: EngineArgs,
    /// Only plan: nothing is run or timed
    #[arg(long)]
    pub no_run: bool,
    /// Time limit of the timing run in seconds; at least one run is made
    #[arg(long, value_name = "S", value_parser = parse_seconds, default_value = "0.5")]
    pub seconds: f64,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `machine`.
#[derive(Debug, Args)]
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
    /// Bind a free dim of the model: --dim batch=1 --dim seq=128
    #[arg(long = "dim", value_name = "NAME=N", value_parser = parse_dim)]
    pub dims: Vec<(String, usize)>,
    /// Set the whole shape of an input: --input-shape images=1x3x224x224
    #[arg(long = "input-shape", value_name = "NAME=SHAPE", value_parser = parse_shape)]
    pub shapes: Vec<(String, Vec<usize>)>,
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

/// Which shapes and values a model's inputs have, where more than one model may be meant.
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
}

impl BindingArgs {
    /// The bindings given, with the cost rules of the configuration.
    ///
    /// # Errors
    /// If a name is bound twice to different sizes, or the configuration cannot be read.
    pub fn bindings(&self) -> Result<Bindings> {
        let here = std::env::current_dir().unwrap_or_default();
        let rules = Arc::new(Config::find(None, &here)?.rules);
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
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `zoo`.
#[derive(Debug, Args)]
pub struct ZooArgs {
    #[command(subcommand)]
    pub command: ZooCommand,
}

/// Subcommands of `zoo`.
#[derive(Debug, Subcommand)]
pub enum ZooCommand {
    /// All built-in networks with their exact counts
    List {
        /// Only names that contain this
        filter: Option<String>,
    },
    /// One network: stages, knobs, published figures beside exact counts
    Show {
        /// Name with knobs: mobilenet_v2@width=0.5
        name: String,
    },
    /// Write a network as an ONNX file
    Export {
        /// Name with knobs: mobilenet_v2@width=0.5
        name: String,
        /// The file to write
        #[arg(long, short, value_name = "FILE")]
        output: PathBuf,
    },
}

/// `knobs`.
#[derive(Debug, Args)]
pub struct KnobsArgs {
    /// Settings to read (default: madd-prof.toml here or in a folder above)
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    pub shell: clap_complete::Shell,
}

/// `man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// A folder that gets madd-prof.1 and a page for each command
    #[arg(long, short, value_name = "FOLDER")]
    pub output: Option<PathBuf>,
}

/// `conformance`.
#[derive(Debug, Args)]
pub struct ConformanceArgs {
    /// A folder of folders, each with model.onnx and inputs.npz; reference.npz and optimized.npz are written beside them
    pub folder: PathBuf,
    /// Threads of the optimized path
    #[arg(long, short = 'j', default_value = "2", value_parser = parse_positive)]
    pub threads: usize,
}

impl ModelArgs {
    /// The bindings given.
    ///
    /// # Errors
    /// If a name is bound twice to different sizes.
    pub fn bindings(&self) -> Result<Bindings> {
        let here = std::env::current_dir().unwrap_or_default();
        let rules = Config::find(self.config.as_deref(), &here)?.rules;
        let mut bindings = Bindings { rules: Arc::new(rules), ..Bindings::default() };
        for (name, size) in &self.dims {
            if bindings.dims.insert(name.clone(), *size).is_some_and(|other| other != *size) {
                return Err(Error::usage(format!("--dim binds '{name}' to two sizes")));
            }
        }
        for (name, shape) in &self.shapes {
            if bindings.shapes.insert(name.clone(), shape.clone()).is_some_and(|other| other != *shape) {
                return Err(Error::usage(format!("--input-shape gives '{name}' two shapes")));
            }
        }
        for (name, value) in &self.values {
            if bindings.values.insert(name.clone(), value.clone()).is_some_and(|other| other != *value) {
                return Err(Error::usage(format!("--value gives '{name}' two values")));
            }
        }
        Ok(bindings)
    }
}

fn verdict_parser() -> clap::builder::PossibleValuesParser {
    VERDICT_FORMATS.iter().map(|f| f.name).collect::<Vec<_>>().into()
}

fn format_parser() -> clap::builder::PossibleValuesParser {
    FORMATS.iter().map(|f| f.name).collect::<Vec<_>>().into()
}

fn parse_positive(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(n) if n > 0 => Ok(n),
        _ => Err("must be a whole number of at least 1".into()),
    }
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(s) if s.is_finite() && s >= 0.0 => Ok(s),
        _ => Err("must be a number of seconds, 0 or more".into()),
    }
}

fn parse_dim(text: &str) -> Result<(String, usize), String> {
    let (name, size) = text.rsplit_once('=').ok_or("must be NAME=N, for example batch=1")?;
    match size.trim().parse::<usize>() {
        Ok(n) if n > 0 && !name.is_empty() => Ok((name.to_string(), n)),
        _ => Err("must be NAME=N with N a whole number of at least 1, for example batch=1".into()),
    }
}

/// Most sizes of a sweep.
const MOST_SIZES: usize = 1000;

fn parse_sweep(text: &str) -> Result<(String, Vec<usize>), String> {
    let wrong = "must be NAME=FROM..TO:xFACTOR, NAME=FROM..TO:+STEP or NAME=A,B,C";
    let (name, sizes) = text.split_once('=').filter(|(n, _)| !n.is_empty()).ok_or(wrong)?;
    let number = |t: &str| t.trim().parse::<usize>().ok().filter(|&n| n > 0).ok_or(wrong);
    let Some((from, rest)) = sizes.split_once("..") else {
        let list: Vec<usize> = sizes.split(',').map(number).collect::<Result<_, _>>()?;
        return Ok((name.to_string(), list));
    };
    let (to, step) = rest.split_once(':').unwrap_or((rest, "x2"));
    let (from, to) = (number(from)?, number(to)?);
    let next: Box<dyn Fn(usize) -> Option<usize>> = if let Some(factor) = step.strip_prefix('x') {
        let factor = number(factor)?;
        if factor < 2 {
            return Err("the factor must be at least 2".into());
        }
        Box::new(move |n| n.checked_mul(factor))
    } else {
        let step = number(step.trim_start_matches('+'))?;
        Box::new(move |n| n.checked_add(step))
    };
    let mut list = Vec::new();
    let mut at = Some(from);
    while let Some(n) = at.filter(|&n| n <= to) {
        list.push(n);
        if list.len() > MOST_SIZES {
            return Err(format!("makes more than {MOST_SIZES} sizes"));
        }
        at = next(n);
    }
    if list.is_empty() { Err("holds no size: FROM is larger than TO".into()) } else { Ok((name.to_string(), list)) }
}

fn parse_value(text: &str) -> Result<(String, Vec<f64>), String> {
    let wrong = "must be NAME=V with a number, true or false, or numbers separated by commas";
    let (name, list) = text.rsplit_once('=').filter(|(name, _)| !name.is_empty()).ok_or(wrong)?;
    let number = |t: &str| match t.trim() {
        "true" => Some(1.0),
        "false" => Some(0.0),
        t => t.parse::<f64>().ok(),
    };
    let values: Option<Vec<f64>> = list.trim().trim_matches(['[', ']']).split(',').map(number).collect();
    Ok((name.to_string(), values.ok_or(wrong)?))
}

fn parse_percent(text: &str) -> Result<f64, String> {
    match text.trim_end_matches(['%', ' ']).parse::<f64>() {
        Ok(p) if (0.0..=100.0).contains(&p) => Ok(p),
        _ => Err("must be a percentage from 0 to 100".into()),
    }
}

fn parse_shape(text: &str) -> Result<(String, Vec<usize>), String> {
    let wrong = "must be NAME=SHAPE with sizes of at least 1, for example images=1x3x224x224";
    // Names may hold colons (`x:0`), so `=` decides where there is one; otherwise the spellings of other tools are understood.
    let (name, shape) = text.rsplit_once('=').or_else(|| text.rsplit_once(':')).ok_or(wrong)?;
    let shape = shape.trim().trim_start_matches('[').trim_end_matches(']');
    if name.is_empty() {
        return Err(wrong.into());
    }
    if shape.is_empty() || shape == "scalar" {
        return Ok((name.to_string(), Vec::new()));
    }
    let sizes: Option<Vec<usize>> =
        shape.split(['x', ',', 'X']).map(|n| n.trim().parse().ok().filter(|&n: &usize| n > 0)).collect();
    Ok((name.to_string(), sizes.ok_or(wrong)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clap_accepts_the_definition() {
        Cli::command().debug_assert();
        assert_eq!(command_names().len(), Cli::command().get_subcommands().count());
    }

    /// The words of a command as a shell sees them; what follows two spaces is said about it.
    fn words(line: &str) -> Vec<String> {
        let line = line.trim().strip_prefix("$ ").unwrap_or(line.trim());
        let (mut out, mut word, mut quoted) = (Vec::new(), String::new(), false);
        for (i, c) in line.char_indices() {
            match c {
                '"' => quoted = !quoted,
                ' ' if !quoted && line[i..].starts_with("  ") => break,
                ' ' if !quoted => out.push(std::mem::take(&mut word)),
                c => word.push(c),
            }
        }
        out.push(word);
        out.retain(|w| !w.is_empty());
        out
    }

    #[test]
    fn every_documented_command_parses() {
        let mut help = Cli::command();
        let mut texts = vec![include_str!("../../README.md").to_string(), include_str!("../../GUIDE.md").to_string()];
        texts.push(help.render_long_help().to_string());
        texts.extend(help.get_subcommands_mut().map(|c| c.render_long_help().to_string()));
        let mut seen = 0;
        for line in texts.iter().flat_map(|t| t.lines()) {
            let line = line.strip_prefix("    ").or(line.strip_prefix("  ")).unwrap_or_default();
            if !line.trim_start_matches("$ ").starts_with("madd-prof ") {
                continue;
            }
            let words = words(line);
            // Synopses, not commands.
            if words.iter().any(|w| w.contains(['[', '|', '…', '<']) || w == "MODEL" || w == "COMMAND") {
                continue;
            }
            let given = super::super::with_default_command(words.iter().map(Into::into).collect());
            if let Err(e) = Cli::command().try_get_matches_from(given) {
                assert!(!e.use_stderr(), "{line}: {e}");
            }
            seen += 1;
        }
        assert!(seen > 40, "only {seen} commands were found");
    }

    #[test]
    fn shapes_of_other_tools_are_understood() {
        let want = Ok(("x".to_string(), vec![1, 3, 8, 8]));
        for text in ["x=1x3x8x8", "x:1x3x8x8", "x:[1,3,8,8]", "x=1,3,8,8"] {
            assert_eq!(parse_shape(text), want, "{text}");
        }
        assert_eq!(parse_shape("x:0=2x4"), Ok(("x:0".to_string(), vec![2, 4])));
        for text in ["x", "=1x2", "x=0x3", "x=1xa", "x=-1x3"] {
            assert!(parse_shape(text).is_err(), "{text}");
        }
        assert_eq!(parse_dim("batch=4"), Ok(("batch".to_string(), 4)));
        assert!(parse_dim("batch=0").is_err() && parse_dim("batch").is_err() && parse_dim("=3").is_err());
    }
}
