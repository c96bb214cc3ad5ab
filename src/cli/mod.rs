//! The command line: arguments, one file per subcommand, progress, and the only room that prints.
//!
//! Results go to stdout (or `--output`), everything else to stderr. Exit codes: 0 fine, 1 a check failed, 2 usage or input error, 3 `check` cannot
//! tell.

mod about;
mod args;
mod bench;
mod break_even;
mod budget;
mod check;
mod colour;
mod compare;
mod conformance;
mod count;
mod diff;
mod formulas;
mod init;
mod kernels;
mod knobs;
mod load;
mod machine;
mod output;
mod per_layer;
mod profile;
mod progress;
mod race;
mod race_ab;
mod revision;
mod run;
mod switches;
mod variants;
mod why;
mod zoo;

use crate::error::Result;
use crate::measure::interrupt;
use args::{Cli, Command};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, FromArgMatches};
use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

/// Everything is fine.
const FINE: u8 = 0;
/// A check the user asked for failed: a budget, a proof.
const CHECK_FAILED: u8 = 1;
/// The request or its input was wrong, or could not be carried out.
const FAILED: u8 = 2;

/// Stopped from outside, as shells count it: 128 and the number of the signal.
const INTERRUPTED: u8 = 130;

/// Stack for the thread that works: models nest subgraphs, and reference kernels recurse into them.
const STACK_BYTES: usize = 64 << 20;

/// Runs the program on the process's arguments.
pub fn main() -> ExitCode {
    std::panic::set_hook(Box::new(|info| {
        let at = info.location().map(|l| format!(" at {}:{}", l.file(), l.line())).unwrap_or_default();
        let what = info
            .payload()
            .downcast_ref::<&str>()
            .map(ToString::to_string)
            .or_else(|| info.payload().downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "panic".into());
        output::complain(&format!(
            "error: this is a bug in madd-prof {}{at}: {what}\n  hint: please report it with the model or command that shows it",
            env!("CARGO_PKG_VERSION")
        ));
    }));
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if about::asks_for_long_version(&arguments) {
        return ExitCode::from(finish(output::print(about::long_version().as_bytes()).map(|()| FINE)));
    }
    let first = arguments.get(1).and_then(|a| a.to_str()).map(str::to_string);
    let cli = match parse(with_default_command(arguments)) {
        Ok(cli) => cli,
        Err(e) => {
            let code = explain(nearer(e, first.as_deref()));
            if let Some((word, command)) = first.as_deref().and_then(nearest_command) {
                output::complain(&format!("  hint: there is no command '{word}'; did you mean '{command}'?"));
            }
            return ExitCode::from(code);
        }
    };
    // Without a handler the system ends the process, which leaves a temporary file at worst.
    let _ = ctrlc::set_handler(interrupted);
    let worker = std::thread::Builder::new().name("madd-prof".into()).stack_size(STACK_BYTES);
    let code = match worker.spawn(move || dispatch(cli)) {
        // A panic has already been reported by the hook.
        Ok(handle) => handle.join().unwrap_or(FAILED),
        Err(e) => {
            output::complain(&format!("error: no thread can be started: {e}"));
            FAILED
        }
    };
    ExitCode::from(code)
}

/// What Ctrl-C does: measuring comes to an early end and tells what it has, everything else ends at once and leaves nothing half written.
fn interrupted() {
    if interrupt::ask() {
        note(false, "stopping after this run; what was measured so far follows (Ctrl-C again: stop at once)");
    } else {
        crate::files::abandon();
        std::process::exit(i32::from(INTERRUPTED));
    }
}

/// Parses, with help and messages in colour where that is wanted.
fn parse(arguments: Vec<OsString>) -> std::result::Result<Cli, clap::Error> {
    let choice = |wanted| if wanted { clap::ColorChoice::Always } else { clap::ColorChoice::Never };
    let colour = choice(colour::on_stdout() && colour::on_stderr());
    let matches = Cli::command().color(colour).try_get_matches_from(arguments)?;
    Cli::from_arg_matches(&matches)
}

/// `madd-prof MODEL…` means `madd-prof profile MODEL…`.
fn with_default_command(mut arguments: Vec<OsString>) -> Vec<OsString> {
    const GENERAL: &[&str] = &["help", "-h", "--help", "-V", "--version"];
    let first = arguments.get(1).map(|a| a.to_string_lossy().into_owned());
    if let Some(first) = first
        && !GENERAL.contains(&first.as_str())
        && !args::command_names().contains(&first.as_str())
    {
        arguments.insert(1, "profile".into());
    }
    arguments
}

/// The command that a word which is none, nor a file or network, may have been meant for.
fn nearest_command(word: &str) -> Option<(String, &'static str)> {
    let names = args::command_names();
    if names.contains(&word) || word.starts_with('-') || std::path::Path::new(word).exists() || crate::zoo::knows(word)
    {
        return None;
    }
    let letters = |w: &str| {
        let mut letters: Vec<char> = w.chars().collect();
        letters.sort_unstable();
        letters
    };
    // A few letters too many, too few or in another order: most begin right.
    let near = |name: &&&str| {
        letters(name) == letters(word) || (word.len() > 2 && (name.starts_with(word) || word.starts_with(**name)))
    };
    names.iter().find(near).map(|name| (crate::error::printable(word), *name))
}

/// A misspelt option's error with the option it is nearest to: letters that changed places count as one slip (`--tpo`), which clap does not
/// see.
fn nearer(mut e: clap::Error, command: Option<&str>) -> clap::Error {
    let given = match e.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(given)) if e.kind() == ErrorKind::UnknownArgument => given.clone(),
        _ => return e,
    };
    let word = given.trim_start_matches('-').split('=').next().unwrap_or_default();
    let cli = Cli::command();
    let command = command.and_then(|c| cli.find_subcommand(c)).or_else(|| cli.find_subcommand("profile"));
    let options = command.into_iter().flat_map(clap::Command::get_arguments).filter_map(clap::Arg::get_long);
    let nearest = options.map(|o| (strsim::osa_distance(word, o), o)).min();
    if let Some((1, option)) = nearest {
        e.insert(ContextKind::SuggestedArg, ContextValue::String(format!("--{option}")));
    }
    e
}

/// Prints what clap has to say and gives the exit code.
fn explain(e: clap::Error) -> u8 {
    let code = match e.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => FINE,
        _ => FAILED,
    };
    match e.print() {
        // A closed pipe is no reason to complain.
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => FAILED,
        _ => code,
    }
}

fn dispatch(cli: Cli) -> u8 {
    let result = match cli.command {
        Command::Profile(a) => profile::run(&a),
        Command::Count(a) => count::run(&a),
        Command::Bench(a) => bench::run(&a),
        Command::Run(a) => run::run(&a),
        Command::Kernels(a) => kernels::run(&a),
        Command::Machine(a) => machine::run(&a),
        Command::Variants(a) => variants::run(&a),
        Command::Compare(a) => compare::run(&a),
        Command::Check(a) => check::run(&a),
        Command::Init(a) => init::run(&a),
        Command::Diff(a) => diff::run(&a),
        Command::Zoo(a) => zoo::run(&a),
        Command::Knobs(a) => knobs::run(&a),
        Command::Completions(a) => about::completions(&a),
        Command::Man(a) => about::man(&a),
        Command::Conformance(a) => conformance::run(&a),
    };
    finish(result)
}

fn finish(result: Result<u8>) -> u8 {
    match result {
        Ok(FINE) if interrupt::asked() => INTERRUPTED,
        Ok(code) => code,
        Err(e) => {
            output::complain(&format!("error: {e}"));
            FAILED
        }
    }
}

/// Columns of the terminal: `COLUMNS`, the terminal itself, or 120 in a pipe.
fn width() -> usize {
    let set = std::env::var("COLUMNS").ok().and_then(|v| v.trim().parse::<usize>().ok()).filter(|&n| n >= 20);
    let terminal = || std::io::stdout().is_terminal().then(terminal_size::terminal_size).flatten();
    set.or_else(|| terminal().map(|(w, _)| usize::from(w.0))).unwrap_or(120).min(1000)
}

/// Writes notes to stderr, unless told to be quiet.
fn note(quiet: bool, text: &str) {
    if !quiet {
        let _ = writeln!(std::io::stderr().lock(), "{}", colour::marked(&format!("note: {text}")));
    }
}
