//! Models as `REVISION:PATH` of a git repository: taken out of it into a temporary folder, data files included. The git program does it,
//! so filters (large files kept elsewhere) work as in a checkout.

use super::load::{self, Loaded};
use crate::error::{Error, Result};
use crate::{files, onnx};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A model, and the folder that is its home as long as it is used.
pub struct Opened {
    /// The model.
    pub loaded: Loaded,
    /// A model from git has its data mapped from here.
    pub _home: Option<files::Folder>,
}

/// Splits `main:models/a.onnx`. What exists as a file is a file, whatever its name; a single letter before the colon is a drive.
pub fn split(text: &str) -> Option<(&str, &str)> {
    let (revision, path) = text.split_once(':')?;
    let fine =
        revision.len() > 1 && !path.is_empty() && !path.starts_with('\\') && !revision.contains(['/', '\\', '=']);
    let branch = revision.len() > 1 && !path.is_empty() && revision.contains('/') && !Path::new(revision).exists();
    ((fine || branch) && !Path::new(text).exists()).then_some((revision, path))
}

/// Opens a file (from `folder`, if given), a built-in network, or a file of a git revision.
///
/// # Errors
/// If there is none, or git cannot give it.
pub fn open(text: &str, folder: Option<&Path>) -> Result<Opened> {
    let there = folder.map_or_else(|| PathBuf::from(text), |f| f.join(text));
    if there.exists() {
        return Ok(Opened { loaded: load::load(&there.to_string_lossy())?, _home: None });
    }
    let Some((revision, path)) = split(text) else {
        return Ok(Opened { loaded: load::load(text)?, _home: None });
    };
    let home = files::Folder::new()?;
    let file = take(revision, path, folder, &home)?;
    for location in onnx::data_locations(&file)? {
        let plain = Path::new(&location).components().all(|c| matches!(c, std::path::Component::Normal(_)));
        if plain {
            let beside = Path::new(path).parent().unwrap_or(Path::new("")).join(&location);
            take_to(revision, &beside.to_string_lossy(), folder, &home.path().join(&location))?;
        }
    }
    let mut loaded = load::load(&file.to_string_lossy()).map_err(|e| renamed(&e, text))?;
    loaded.name = text.to_string();
    Ok(Opened { loaded, _home: Some(home) })
}

/// An error about a temporary file, told with the name the user knows.
fn renamed(e: &Error, text: &str) -> Error {
    let named = Error::input(e.message().to_string()).in_file(Path::new(text));
    e.hint_text().map_or(named.clone(), |h| named.hint(h))
}

/// Takes a file out of git.
///
/// # Errors
/// If there is no git, no repository, no such revision or no such path in it.
pub fn take(revision: &str, path: &str, from: Option<&Path>, home: &files::Folder) -> Result<PathBuf> {
    let name = Path::new(path).file_name().map_or_else(|| "model.onnx".into(), |n| n.to_os_string());
    let file = home.path().join(name);
    take_to(revision, path, from, &file)?;
    Ok(file)
}

fn take_to(revision: &str, path: &str, from: Option<&Path>, to: &Path) -> Result<()> {
    let named = format!("{revision}:{path}");
    if revision.starts_with('-') {
        return Err(Error::usage(format!("'{named}': a revision does not begin with '-'")));
    }
    let mut command = Command::new("git");
    if let Some(folder) = from {
        command.current_dir(folder);
    }
    // Paths are from where one stands, unless the revision's root is meant (`main:/a.onnx`).
    let object = match path.strip_prefix('/') {
        Some(rest) => format!("{revision}:{rest}"),
        None => format!("{revision}:./{path}"),
    };
    let out = command.args(["cat-file", "--filters", &object]).output().map_err(|e| {
        let why = if e.kind() == std::io::ErrorKind::NotFound { "git is not installed".into() } else { e.to_string() };
        Error::input(format!("cannot be taken out of git: {why}"))
            .in_file(Path::new(&named))
            .hint("install git, or give a file: `git show REVISION:PATH > base.onnx`")
    })?;
    if !out.status.success() {
        let said = String::from_utf8_lossy(&out.stderr);
        let said = said.lines().next().unwrap_or("it failed").trim_start_matches("fatal: ").to_string();
        return Err(Error::input(format!("git does not have it: {said}"))
            .in_file(Path::new(&named))
            .hint("REVISION:PATH with a path from here (`git log -- PATH` lists revisions); fetch the branch in a shallow clone"));
    }
    if out.stdout.starts_with(b"version https://git-lfs") {
        return Err(Error::input("git has only a pointer to it: its content is kept in Git LFS")
            .in_file(Path::new(&named))
            .hint("install git-lfs and run `git lfs fetch`"));
    }
    let mut file = files::Output::create(to)?;
    file.write_all(&out.stdout).map_err(|e| files::cannot_write(to, &e))?;
    file.commit()
}

#[cfg(test)]
mod tests {
    #[test]
    fn revisions_are_told_from_files_and_drives() {
        assert_eq!(super::split("main:a/b.onnx"), Some(("main", "a/b.onnx")));
        assert_eq!(super::split("HEAD~2:a.onnx"), Some(("HEAD~2", "a.onnx")));
        assert_eq!(super::split("origin/main:a.onnx"), Some(("origin/main", "a.onnx")));
        assert_eq!(super::split("C:\\a.onnx"), None);
        assert_eq!(super::split("C:a.onnx"), None);
        assert_eq!(super::split("a.onnx"), None);
    }
}
