//! What the program says about itself: `--version --verbose`, shell completions, the man page.

use super::args::{Cli, CompletionsArgs, ManArgs};
use super::{FINE, output};
use crate::error::{Error, Result};
use crate::measure::host;
use crate::ops::NEWEST_OPSET;
use crate::report::SCHEMA;
use crate::simd::Isa;
use clap::CommandFactory;
use std::ffi::OsString;
use std::io::Write;

/// Whether the arguments ask for the long version: `--version` or `-V` together with `--verbose`.
pub fn asks_for_long_version(arguments: &[OsString]) -> bool {
    let has = |names: &[&str]| arguments.iter().skip(1).any(|a| names.iter().any(|n| a == n));
    arguments.len() == 3 && has(&["--version", "-V"]) && has(&["--verbose"])
}

/// The long version: what a report of a defect needs.
pub fn long_version() -> String {
    let isas: Vec<&str> = Isa::available().iter().map(|i| i.name()).collect();
    let isa = Isa::detect().map_or_else(|e| e, |i| i.name().to_string());
    let host = host::Host::read();
    let lines = [
        ("version", env!("CARGO_PKG_VERSION").to_string()),
        ("build", if cfg!(debug_assertions) { "debug" } else { "release" }.to_string()),
        ("target", format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS)),
        ("cpu", host.cpu.unwrap_or_else(|| "unknown".into())),
        ("cores", host.cores.to_string()),
        ("isa", format!("{isa} (this machine has {})", isas.join(", "))),
        ("reports", SCHEMA.to_string()),
        ("opset", format!("up to {NEWEST_OPSET}")),
    ];
    let mut out = format!("madd-prof {}\n", env!("CARGO_PKG_VERSION"));
    for (name, value) in &lines[1..] {
        out.push_str(&format!("{name}: {value}\n"));
    }
    out
}

/// Prints a shell's completions.
///
/// # Errors
/// If stdout cannot be written.
pub fn completions(args: &CompletionsArgs) -> Result<u8> {
    let mut bytes = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "madd-prof", &mut bytes);
    output::print(&bytes)?;
    Ok(FINE)
}

/// Prints the man page, or writes one for the program and each command into a folder.
///
/// # Errors
/// If it cannot be written.
pub fn man(args: &ManArgs) -> Result<u8> {
    let failed = |e: std::io::Error| Error::run(format!("the man page cannot be written: {e}"));
    let mut command = Cli::command();
    command.build();
    let page = |command: clap::Command| -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        clap_mangen::Man::new(command).render(&mut bytes).map_err(failed)?;
        Ok(bytes)
    };
    let Some(folder) = &args.output else {
        output::print(&page(command)?)?;
        return Ok(FINE);
    };
    std::fs::create_dir_all(folder).map_err(|e| crate::files::cannot_write(folder, &e))?;
    let mut pages = vec![("madd-prof".to_string(), command.clone())];
    for sub in command.get_subcommands().filter(|c| !c.is_hide_set() && c.get_name() != "help") {
        let name = format!("madd-prof-{}", sub.get_name());
        pages.push((name, sub.clone()));
    }
    for (name, command) in pages {
        let mut file = crate::files::Output::create(&folder.join(format!("{name}.1")))?;
        file.write_all(&page(command)?).map_err(failed)?;
        file.commit()?;
    }
    Ok(FINE)
}
