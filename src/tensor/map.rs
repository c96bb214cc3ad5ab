//! Maps files into memory as shared bytes.
//!
//! A mapped file is read by the system page by page when somebody looks at it: a model's weights cost nothing until used.

use super::{Identity, Tensor};
use crate::error::{Error, Result};
use bytes::Bytes;
use memmap2::Mmap;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime};

/// A mapped file as bytes; slices keep the map alive.
///
/// # Errors
/// If the file is missing, may not be read, is a directory or another thing without content, or is empty.
pub fn map(path: &Path) -> Result<Bytes> {
    map_file(path).map_err(|e| e.in_file(path))
}

fn map_file(path: &Path) -> Result<Bytes> {
    let cannot = |e: &std::io::Error| match e.kind() {
        ErrorKind::NotFound => Error::input("no such file")
            .hint("check the path; names without an ending are looked up in the built-in architectures"),
        ErrorKind::PermissionDenied => Error::input("no permission to read this file").hint("check its owner and mode"),
        _ => Error::input(format!("cannot be opened: {e}")),
    };
    // Asked before opening: opening a pipe would wait for its writer.
    let meta = std::fs::metadata(path).map_err(|e| cannot(&e))?;
    if meta.is_dir() {
        return Err(Error::input("is a directory").hint("name the .onnx file inside it"));
    }
    if !meta.is_file() {
        return Err(Error::input("is not a regular file")
            .hint("pipes and devices cannot be mapped; save the model to a file first"));
    }
    let file = File::open(path).map_err(|e| cannot(&e))?;
    if file.metadata().map_err(|e| cannot(&e))?.len() == 0 {
        return Err(Error::input("is empty").hint("the download or export did not finish"));
    }
    // SAFETY: the map is private and read-only. Its bytes stay what they are as long as no other process writes to or truncates
    // the file while it is mapped; that is outside this process's control for every program that maps files, and is the
    // documented condition of using this one (a truncation ends it with SIGBUS, it cannot make it write anywhere).
    let map = unsafe { Mmap::map(&file) }.map_err(|e| Error::input(format!("cannot be mapped: {e}")))?;
    let map = Arc::new(map);
    let mut maps = MAPS.lock().unwrap_or_else(PoisonError::into_inner);
    maps.retain(|m| m.map.strong_count() > 0);
    maps.push(Mapped { map: Arc::downgrade(&map), file: state(path, &meta), path: path.to_path_buf() });
    Ok(Bytes::from_owner(Owner(map)))
}

/// What is mapped at present.
static MAPS: Mutex<Vec<Mapped>> = Mutex::new(Vec::new());

struct Mapped {
    map: Weak<Mmap>,
    /// [`state`] when it was mapped.
    file: Option<u64>,
    path: PathBuf,
}

/// A file in the state it is in: another where it was replaced or written to since. `None` where that cannot be told: it was written just
/// now, and might be again without its time changing.
fn state(path: &Path, meta: &std::fs::Metadata) -> Option<u64> {
    const SETTLED: Duration = Duration::from_secs(2);
    let modified = meta.modified().ok()?;
    SystemTime::now().duration_since(modified).ok().filter(|age| *age > SETTLED)?;
    let mut hasher = DefaultHasher::new();
    (path.canonicalize().ok()?, meta.len(), modified).hash(&mut hasher);
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        (meta.dev(), meta.ino(), meta.ctime(), meta.ctime_nsec()).hash(&mut hasher);
    }
    Some(hasher.finish())
}

/// What values of a file are called, for keeping what is made of them; `None` for others, and for files written just now.
pub fn identity(tensor: &Tensor) -> Option<Identity> {
    tensor.identity().or_else(|| tensor.is_file_backed().then(|| of_bytes(tensor.bytes().ok()?)).flatten())
}

/// The same for bytes of a mapped file.
pub fn of_bytes(bytes: &[u8]) -> Option<Identity> {
    let maps = MAPS.lock().unwrap_or_else(PoisonError::into_inner);
    let start = bytes.as_ptr().addr();
    maps.iter().find_map(|m| {
        let map = m.map.upgrade()?;
        let at = start.checked_sub(map.as_ptr().addr()).filter(|at| at + bytes.len() <= map.len())?;
        Some(Identity { file: m.file?, value: 0 }.changed((at, bytes.len())))
    })
}

/// The path of a mapped file, by the name it has in identities.
pub fn path_of(file: u64) -> Option<PathBuf> {
    let maps = MAPS.lock().unwrap_or_else(PoisonError::into_inner);
    maps.iter().find(|m| m.file == Some(file)).and_then(|m| m.path.canonicalize().ok())
}

struct Owner(Arc<Mmap>);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Says that bytes are not needed soon. Whole pages of a mapped file among them leave this process's memory; they come back
/// from the file when somebody looks again. Other bytes are left alone.
pub fn release(bytes: &[u8]) {
    #[cfg(unix)]
    {
        const PAGE: usize = 4096;
        let maps = MAPS.lock().unwrap_or_else(PoisonError::into_inner);
        let (start, end) = (bytes.as_ptr() as usize, bytes.as_ptr() as usize + bytes.len());
        for map in maps.iter().filter_map(|m| m.map.upgrade()) {
            let base = map.as_ptr() as usize;
            if start < base || end > base + map.len() {
                continue;
            }
            let (from, to) = ((start - base).next_multiple_of(PAGE), (end - base) / PAGE * PAGE);
            if from < to {
                // SAFETY: the map is of a file, read-only and never written through: dropped pages are read from the file again.
                let _ = unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, from, to - from) };
            }
        }
    }
    #[cfg(not(unix))]
    let _ = bytes;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_that_are_no_files_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let message = |p: &Path| map(p).unwrap_err().to_string();
        assert!(message(dir.path()).contains("is a directory"));
        assert!(message(&dir.path().join("no.onnx")).contains("no such file"));
        let empty = dir.path().join("empty.onnx");
        std::fs::write(&empty, b"").unwrap();
        assert!(message(&empty).contains("is empty"));
        #[cfg(unix)]
        assert!(message(Path::new("/dev/null")).contains("not a regular file"));
        std::fs::write(&empty, b"12").unwrap();
        assert_eq!(&map(&empty).unwrap()[..], b"12");
    }
}
