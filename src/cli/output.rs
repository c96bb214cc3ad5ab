//! Where results go: stdout, or a file that appears only when it is whole.

use super::args::{OutputArgs, ViewArgs};
use crate::error::{Error, Result};
use crate::files;
use crate::report::grid::Grid;
use crate::report::{self, Format, Look, Report, View};
use std::io::{ErrorKind, IsTerminal, Write};
use std::path::Path;

/// Says something on stderr; if even that fails there is nobody to tell.
pub fn complain(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", super::colour::marked(text));
}

/// Writes results to stdout. A reader that went away is fine.
///
/// # Errors
/// If stdout cannot be written to for another reason (a full disk).
pub fn print(bytes: &[u8]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(Error::run(format!("stdout cannot be written: {e}"))),
        _ => Ok(()),
    }
}

/// Writes a rendered report to stdout, tables in colour where that is wanted.
fn print_as(format: &Format, bytes: &[u8]) -> Result<()> {
    if format.name != "table" || !super::colour::on_stdout() {
        return print(bytes);
    }
    print(super::colour::table(&String::from_utf8_lossy(bytes)).as_bytes())
}

/// The format asked for: by name, by the file's ending, or the table.
///
/// # Errors
/// If the file's ending means no format, or the format is no text and would go to a terminal.
pub fn format(args: &OutputArgs) -> Result<&'static Format> {
    let format = named_format(args)?;
    refuse_terminal(format.name, args)?;
    Ok(format)
}

/// As [`format`], for tables that are not about layers: refuses formats that have no form for them before any work is done.
///
/// # Errors
/// As [`format`], or if the format only knows layers.
pub fn grid_format(args: &OutputArgs) -> Result<&'static Format> {
    let format = format(args)?;
    report::grid::takes(format.name)?;
    Ok(format)
}

fn named_format(args: &OutputArgs) -> Result<&'static Format> {
    if let Some(name) = &args.format {
        return report::format_named(name);
    }
    match &args.output {
        Some(path) if path.extension().is_some() => report::format_of_ending(path).ok_or_else(|| {
            let endings: Vec<String> =
                report::FORMATS.iter().flat_map(|f| f.endings).map(|e| format!(".{e}")).collect();
            Error::usage(format!("--output {}: this ending means no format", path.display()))
                .hint(format!("endings: {}; or say which with --format", endings.join(", ")))
        }),
        _ => report::format_named("table"),
    }
}

/// Shows a report the way it was asked for.
///
/// # Errors
/// If the view or the format is wrong, or the result cannot be written.
pub fn show(report: Report, view: Option<&ViewArgs>, args: &OutputArgs) -> Result<()> {
    let format = format(args)?;
    let how = View {
        depth: view.and_then(|v| v.depth),
        sort: view.and_then(|v| v.sort.clone()),
        top: view.and_then(|v| v.top),
        group_blocks: format.for_people && view.is_some_and(|v| !v.all),
        hide_static: format.for_people && view.is_some_and(|v| !v.all),
        modules: view.is_some_and(|v| v.modules),
        show_bodies: format.for_people && view.is_some_and(|v| v.depth.is_none()),
    };
    let report = report::view(report, &how)?;
    let bytes = (format.render)(&report, &Look { width: super::width() })?;
    match &args.output {
        Some(path) if path != Path::new("-") => save(path, &bytes),
        _ => print_as(format, &bytes),
    }
}

/// Shows a table that is not about layers.
///
/// # Errors
/// If the format has no form for it, or the result cannot be written.
pub fn show_grid(grid: &Grid, args: &OutputArgs) -> Result<()> {
    let format = format(args)?;
    let bytes = report::grid::render(grid, format.name, &Look { width: super::width() })?;
    match &args.output {
        Some(path) if path != Path::new("-") => save(path, &bytes),
        _ => print_as(format, &bytes),
    }
}

/// Keeps what is no text off terminals.
fn refuse_terminal(format: &str, args: &OutputArgs) -> Result<()> {
    let to_stdout = args.output.as_deref().is_none_or(|p| p == Path::new("-"));
    if report::is_binary(format) && to_stdout && std::io::stdout().is_terminal() {
        return Err(Error::usage(format!("--format {format} is no text for a terminal"))
            .hint(format!("write it to a file: --output layers.{format}")));
    }
    Ok(())
}

/// Writes a whole file or none.
///
/// # Errors
/// If it cannot be written.
pub fn save(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = files::Output::create(path)?;
    file.write_all(bytes).map_err(|e| files::cannot_write(path, &e))?;
    file.commit()
}
