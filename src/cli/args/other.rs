//! Arguments of the zoo and of what the program says about itself.

use super::shared::OutputArgs;
use super::values::parse_positive;
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// What `zoo --help` adds.
const ZOO_HELP: &str = "\
Examples:
  madd-prof zoo list mobilenet                 those whose name or family contains it
  madd-prof zoo list --format csv --output zoo.csv
  madd-prof zoo show mobilenet_v2@width=0.5    stages, knobs, published figures beside exact counts
  madd-prof zoo export resnet18@res=160 --output resnet18.onnx";

/// `zoo`.
#[derive(Debug, Args)]
#[command(after_help = ZOO_HELP)]
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
        #[command(flatten)]
        output: OutputArgs,
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

/// What `knobs --help` adds.
const KNOBS_HELP: &str = "\
Examples:
  madd-prof knobs
  madd-prof knobs --format json";

/// `knobs`.
#[derive(Debug, Args)]
#[command(after_help = KNOBS_HELP)]
pub struct KnobsArgs {
    /// Settings to read (default: madd-prof.toml here or in a folder above)
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// What `completions --help` adds.
const COMPLETIONS_HELP: &str = "\
Examples:
  madd-prof completions bash > madd-prof.bash
  madd-prof completions zsh > _madd-prof";

/// `completions`.
#[derive(Debug, Args)]
#[command(after_help = COMPLETIONS_HELP)]
pub struct CompletionsArgs {
    /// The shell
    pub shell: clap_complete::Shell,
}

/// What `man --help` adds.
const MAN_HELP: &str = "\
Examples:
  madd-prof man > madd-prof.1
  madd-prof man --output man1                  a page for each command too";

/// `man`.
#[derive(Debug, Args)]
#[command(after_help = MAN_HELP)]
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
