//! Maps files into memory as shared bytes, and recognises what is not ONNX.
//!
//! A mapped file is read by the system page by page when somebody looks at it: a model's weights cost nothing until used.

use crate::error::{Error, Result};
use crate::tensor::{Identity, Tensor};
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

/// What a file is, when its first bytes show that it is not an ONNX model: (what it is, what to do).
pub fn not_onnx(bytes: &[u8]) -> Option<(&'static str, &'static str)> {
    const EXPORT: &str = "export it with torch.onnx.export(model, inputs, \"model.onnx\")";
    let starts = |magic: &[u8]| bytes.starts_with(magic);
    let at4 = |magic: &[u8]| bytes.get(4..8) == Some(magic);
    let head = &bytes[..bytes.len().min(4096)];
    let contains = |needle: &[u8]| head.windows(needle.len()).any(|w| w == needle);
    if starts(b"version https://git-lfs") {
        return Some(("a Git LFS pointer, not the model itself", "run `git lfs pull` to fetch the file it points to"));
    }
    if starts(b"PK\x03\x04") || starts(b"PK\x05\x06") {
        if contains(b"data.pkl") {
            return Some(("a PyTorch checkpoint (zip)", EXPORT));
        }
        if contains(b".npy") {
            return Some(("a NumPy .npz archive", "name the .onnx model; .npz files are inputs and outputs of `run`"));
        }
        return Some(("a zip archive", "unpack it and name the .onnx file inside"));
    }
    if starts(b"\x1f\x8b") {
        return Some(("a gzip archive", "unpack it first: gunzip, or tar -xzf"));
    }
    if starts(b"\x28\xb5\x2f\xfd") || starts(b"\xfd7zXZ\0") || starts(b"BZh") || starts(b"7z\xbc\xaf\x27\x1c") {
        return Some(("a compressed archive", "unpack it first"));
    }
    if at4(b"TFL3") {
        return Some((
            "a TensorFlow Lite model",
            "convert it: python -m tf2onnx.convert --tflite model.tflite --output model.onnx",
        ));
    }
    if at4(b"ORTM") {
        return Some(("an ONNX Runtime .ort model", "use the .onnx model it was made from"));
    }
    if starts(b"\x89HDF\r\n\x1a\n") {
        return Some((
            "an HDF5 file (Keras)",
            "convert it: python -m tf2onnx.convert --keras model.h5 --output model.onnx",
        ));
    }
    if starts(b"GGUF") {
        return Some(("a GGUF model", "export the original model to ONNX"));
    }
    if starts(b"\x93NUMPY") {
        return Some(("a NumPy array", "name the .onnx model"));
    }
    if bytes.len() > 10 && bytes[8] == b'{' && bytes[9] == b'"' && bytes[5..8] == [0, 0, 0] {
        return Some(("a safetensors file: weights without a graph", EXPORT));
    }
    if bytes.len() > 2 && bytes[0] == 0x80 && (2..=5).contains(&bytes[1]) {
        return Some(("a Python pickle (PyTorch checkpoint?)", EXPORT));
    }
    let trimmed = head.trim_ascii_start();
    let lower = trimmed.get(..trimmed.len().min(64))?.to_ascii_lowercase();
    if lower.starts_with(b"<!doctype") || lower.starts_with(b"<html") || lower.starts_with(b"<head") {
        return Some((
            "an HTML page, perhaps the page around a download",
            "download the file itself (the \"raw\" link)",
        ));
    }
    if lower.starts_with(b"<?xml") || lower.starts_with(b"<net") {
        return Some(("an XML file (OpenVINO?)", "use the .onnx model it was made from"));
    }
    if lower.starts_with(b"{") || lower.starts_with(b"[") {
        return Some(("JSON text", "models are read in the binary form: onnx.save(model, \"model.onnx\")"));
    }
    let printable = |b: &u8| matches!(b, b'\t' | b'\n' | b'\r' | 0x20..=0x7e | 0x80..);
    if head.len() >= 8 && head.iter().all(printable) && std::str::from_utf8(&head[..head.len().min(512) & !3]).is_ok() {
        return Some(("text", "models are read in the binary form: onnx.save(model, \"model.onnx\")"));
    }
    None
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

    #[test]
    fn other_formats_are_recognised_by_their_first_bytes() {
        let cases: &[(&[u8], &str)] = &[
            (b"PK\x03\x04....archive/data.pkl", "PyTorch"),
            (b"PK\x03\x04....", "zip"),
            (b"\x1f\x8b\x08", "gzip"),
            (b"version https://git-lfs.github.com/spec/v1\n", "LFS"),
            (b"\x1c\0\0\0TFL3", "TensorFlow Lite"),
            (b"\x1c\0\0\0ORTM", ".ort"),
            (b"\x10\0\0\0\0\0\0\0{\"a\":1}", "safetensors"),
            (b"\x80\x02}q\0", "pickle"),
            (b"\n <!DOCTYPE html>", "HTML"),
            (b"{\"a\": 1}", "JSON"),
            (b"hello world, here is text", "text"),
        ];
        for (bytes, what) in cases {
            let found = not_onnx(bytes).map(|f| f.0);
            assert!(found.is_some_and(|f| f.contains(what)), "{what}: {found:?}");
        }
        assert_eq!(not_onnx(b"\x08\x08\x12\x07pytorch\x1a\x05"), None);
        assert_eq!(not_onnx(b""), None);
    }
}
