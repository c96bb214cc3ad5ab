//! Writing outputs: into a temporary file beside the target, renamed over it at the end. A reader never sees half a file, and a
//! failure leaves what was there.

use crate::error::{Error, Result};
use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use tempfile::NamedTempFile;

/// A file being written; it takes its place at [`Output::commit`], and vanishes when dropped before.
#[derive(Debug)]
pub struct Output {
    file: BufWriter<NamedTempFile>,
    _unfinished: Unfinished,
    target: PathBuf,
    /// The target is a pipe or device: it is written to, never replaced.
    special: bool,
}

/// A temporary folder that goes with this value.
#[derive(Debug)]
pub struct Folder(tempfile::TempDir);

impl Folder {
    /// Makes one.
    ///
    /// # Errors
    /// If the system's folder for such things cannot be written to.
    pub fn new() -> Result<Folder> {
        let made = tempfile::Builder::new().prefix("madd-prof-").tempdir();
        made.map(Folder).map_err(|e| cannot_write(&std::env::temp_dir(), &e))
    }
    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

/// Temporary files of outputs that are being written.
static UNFINISHED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Keeps a temporary file in the list while it is one.
#[derive(Debug)]
struct Unfinished(PathBuf);

impl Unfinished {
    fn new(path: &Path) -> Unfinished {
        UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner).push(path.to_path_buf());
        Unfinished(path.to_path_buf())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner).retain(|p| *p != self.0);
    }
}

/// Removes what is half written. For a process that is about to end without unwinding.
pub fn abandon() {
    for path in UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
        let _ = std::fs::remove_file(path);
    }
}

/// The error for a file that cannot be written.
pub fn cannot_write(path: &Path, e: &io::Error) -> Error {
    // Where the temporary file would have been says nothing to whoever asked for this one.
    let text = e.to_string();
    let why = text.split(" at path ").next().unwrap_or(&text);
    let error = Error::input(format!("cannot be written: {why}")).in_file(path);
    match e.kind() {
        io::ErrorKind::NotFound => error.hint("its folder does not exist"),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            error.hint("choose a folder you may write to")
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => error.hint("free some space and try again"),
        _ => error,
    }
}

impl Output {
    /// Begins a file that will be at `path`.
    ///
    /// # Errors
    /// If `path` is a directory, or its folder is missing or may not be written to.
    pub fn create(path: &Path) -> Result<Output> {
        let there = std::fs::metadata(path).ok();
        if there.as_ref().is_some_and(std::fs::Metadata::is_dir) {
            return Err(Error::input("cannot be written: is a directory").in_file(path).hint("add a file name"));
        }
        let special = there.as_ref().is_some_and(|m| !m.is_file());
        // Through a link, the file it points to is replaced, not the link.
        let target =
            if special { path.to_path_buf() } else { path.canonicalize().unwrap_or_else(|_| path.to_path_buf()) };
        let folder = match target.parent() {
            _ if special => std::env::temp_dir(),
            Some(p) if !p.as_os_str().is_empty() => p.to_path_buf(),
            _ => PathBuf::from("."),
        };
        let mut builder = tempfile::Builder::new();
        builder.prefix(".madd-prof-").suffix(".tmp");
        // As for any new file, the umask decides; temporary files are private by default. An old file's mode is kept.
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = there.filter(|_| !special).map_or(0o666, |m| m.permissions().mode() & 0o777);
            builder.permissions(std::fs::Permissions::from_mode(mode));
        }
        let temp = builder.tempfile_in(folder).map_err(|e| cannot_write(path, &e))?;
        let _unfinished = Unfinished::new(temp.path());
        Ok(Output { file: BufWriter::with_capacity(1 << 16, temp), _unfinished, target, special })
    }

    /// Puts the finished file in its place.
    ///
    /// # Errors
    /// If the last bytes cannot be written or the file cannot be renamed.
    pub fn commit(self) -> Result<()> {
        let Output { file, target, special, _unfinished } = self;
        let finish = || -> io::Result<()> {
            let mut temp = file.into_inner().map_err(io::IntoInnerError::into_error)?;
            if special {
                temp.rewind()?;
                let mut to = File::options().write(true).open(&target)?;
                io::copy(temp.as_file_mut(), &mut to)?;
            } else {
                temp.persist(&target).map_err(|e| e.error)?;
            }
            Ok(())
        };
        finish().map_err(|e| cannot_write(&target, &e))
    }

    /// Where the file will be.
    pub fn target(&self) -> &Path {
        &self.target
    }
}

impl Write for Output {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.file.write(buf)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Seek for Output {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        std::fs::write(&path, "old").unwrap();
        let mut out = Output::create(&path).unwrap();
        out.write_all(b"new").unwrap();
        drop(out);
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        let mut out = Output::create(&path).unwrap();
        out.write_all(b"new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        out.commit().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file stays");
        assert!(Output::create(dir.path()).unwrap_err().to_string().contains("directory"));
        let e = Output::create(&dir.path().join("no/where")).unwrap_err().to_string();
        assert!(e.contains("folder does not exist"), "{e}");
    }

    #[cfg(unix)]
    #[test]
    fn links_and_devices_stay_what_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        std::fs::write(&real, "old").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let mut out = Output::create(&link).unwrap();
        out.write_all(b"new").unwrap();
        out.commit().unwrap();
        assert!(link.symlink_metadata().unwrap().is_symlink());
        assert_eq!(std::fs::read(&real).unwrap(), b"new");
        let mut out = Output::create(Path::new("/dev/null")).unwrap();
        out.write_all(b"new").unwrap();
        out.commit().unwrap();
        assert!(!std::fs::metadata("/dev/null").unwrap().is_file());
    }
}
