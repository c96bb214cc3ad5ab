//! The arguments: the program and its subcommands here, one file per group of them.

mod budget;
mod other;
mod reports;
mod shared;
mod values;
mod variants;

pub use budget::*;
pub use other::*;
pub use reports::*;
pub use shared::*;
pub use variants::*;

use clap::{CommandFactory, Parser, Subcommand};

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
        let mut texts =
            vec![include_str!("../../../README.md").to_string(), include_str!("../../../GUIDE.md").to_string()];
        texts.push(help.render_long_help().to_string());
        for c in help.get_subcommands_mut().filter(|c| !c.is_hide_set() && c.get_name() != "help") {
            let text = c.render_long_help().to_string();
            let examples = text.lines().skip_while(|l| *l != "Examples:").filter(|l| l.starts_with("  madd-prof "));
            assert!(examples.count() > 1, "{}: --help has no examples", c.get_name());
            texts.push(text);
        }
        let mut seen = 0;
        for line in texts.iter().flat_map(|t| t.lines()) {
            let line = line.strip_prefix("    ").or(line.strip_prefix("  ")).unwrap_or_default();
            if !line.trim_start_matches("$ ").starts_with("madd-prof ") {
                continue;
            }
            let words = words(line.split(" > ").next().unwrap_or(line));
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
        assert!(seen > 80, "only {seen} commands were found");
    }
}
