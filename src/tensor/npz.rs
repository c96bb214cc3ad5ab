//! NumPy archives (`.npz`): tensors by name, the inputs and outputs of `run`.
//!
//! An archive is a zip of `.npy` files, stored or deflated. Read: header versions 1 to 3, either byte order, C and Fortran order,
//! every type that NumPy and ONNX share (booleans, integers, floats from half to double, complex, text). Written: version 1 or 2,
//! little-endian, C order, stored, as `numpy.savez` does. Sizes in headers are believed only as far as data follows them.

use super::{DType, Tensor, element_count};
use crate::error::{Error, Result};
use crate::files::{Output, cannot_write};
use std::borrow::Cow;
use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, Write};
use std::path::Path;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// Headers are a line of text; a longer one is no header.
const LONGEST_HEADER_BYTES: usize = 1 << 16;

/// The tensors of an archive, in its order.
///
/// # Errors
/// If the file cannot be read, is no archive, or holds something that is no tensor.
pub fn read(path: &Path) -> Result<Vec<(String, Tensor)>> {
    let cannot = |e: io::Error| match e.kind() {
        io::ErrorKind::NotFound => Error::input("no such file"),
        _ => Error::input(format!("cannot be read: {e}")),
    };
    let open = || -> Result<File> {
        if std::fs::metadata(path).map_err(cannot)?.is_dir() {
            return Err(Error::input("is a directory").hint("name an .npz file"));
        }
        File::open(path).map_err(cannot)
    };
    open().and_then(|file| read_from(BufReader::new(file))).map_err(|e| e.in_file(path))
}

/// The tensors of an archive, from any source.
///
/// # Errors
/// As [`read`].
pub fn read_from(source: impl Read + Seek) -> Result<Vec<(String, Tensor)>> {
    let broken = |e: &dyn std::fmt::Display| {
        Error::input(format!("is not a readable .npz archive: {e}"))
            .hint("write it with numpy.savez(path, name=array, …)")
    };
    let mut archive = ZipArchive::new(source).map_err(|e| broken(&e))?;
    let mut out = Vec::new();
    for i in 0..archive.len() {
        let mut entry = archive.by_index(i).map_err(|e| broken(&e))?;
        if entry.is_dir() {
            continue;
        }
        let file = entry.name().map_err(|e| broken(&e))?.into_owned();
        let name = file.strip_suffix(".npy").unwrap_or(&file).to_string();
        let tensor = read_npy(&mut entry).map_err(|e| in_array(&e, &name))?;
        out.push((name, tensor));
    }
    Ok(out)
}

fn in_array(e: &Error, name: &str) -> Error {
    let named = Error::input(format!("array '{name}': {}", e.message()));
    match e.hint_text() {
        Some(hint) => named.hint(hint),
        None => named,
    }
}

/// Writes an archive, and says which tensors are of types that NumPy lacks and were widened to ones it has, losing nothing
/// (`bfloat16` and 8-bit floats become `float32`, 4-bit integers `int8`).
///
/// # Errors
/// If the file cannot be written, a name comes twice, or a value is a sequence or an empty optional.
pub fn write<'a>(path: &Path, tensors: impl IntoIterator<Item = (&'a str, &'a Tensor)>) -> Result<Vec<String>> {
    let mut out = Output::create(path)?;
    let notes = write_to(&mut out, tensors).map_err(|e| e.in_file(path))?;
    out.commit()?;
    Ok(notes)
}

fn write_to<'a>(out: &mut Output, tensors: impl IntoIterator<Item = (&'a str, &'a Tensor)>) -> Result<Vec<String>> {
    let target = out.target().to_path_buf();
    let failed = |e: zip::result::ZipError| match e {
        zip::result::ZipError::Io(e) => cannot_write(&target, &e),
        other => Error::input(format!("cannot be written: {other}")),
    };
    let mut archive = ZipWriter::new(out);
    let mut notes = Vec::new();
    let mut names = HashSet::new();
    for (name, tensor) in tensors {
        if !names.insert(name.to_string()) {
            return Err(Error::input(format!("two arrays are named '{name}'")));
        }
        let Npy { header, payload, note } = npy(name, tensor).map_err(|e| in_array(&e, name))?;
        notes.extend(note);
        let large = header.len() + payload.len() >= u32::MAX as usize;
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored).large_file(large);
        archive.start_file(format!("{name}.npy"), options).map_err(failed)?;
        archive.write_all(&header).and_then(|()| archive.write_all(&payload)).map_err(|e| cannot_write(&target, &e))?;
    }
    archive.finish().map_err(failed)?;
    Ok(notes)
}

/// What becomes one `.npy` file.
struct Npy<'a> {
    header: Vec<u8>,
    payload: Cow<'a, [u8]>,
    /// Set when the type was widened.
    note: Option<String>,
}

fn npy<'a>(name: &str, t: &'a Tensor) -> Result<Npy<'a>> {
    use DType::*;
    if t.sequence().is_ok() || t.is_absent() {
        return Err(Error::unsupported("is a sequence or an empty optional, which NumPy has no arrays for"));
    }
    let widened;
    let (code, payload) = match t.dtype() {
        Str => {
            let strings = t.strings()?;
            let longest = strings.iter().map(|s| s.chars().count()).max().unwrap_or(0).max(1);
            let mut bytes = Vec::with_capacity(longest * 4 * strings.len());
            for s in strings {
                let mut left = longest;
                for c in s.chars() {
                    bytes.extend_from_slice(&u32::from(c).to_le_bytes());
                    left -= 1;
                }
                bytes.resize(bytes.len() + left * 4, 0);
            }
            (format!("<U{longest}"), bytes.into())
        }
        U4 | I4 | U2 | I2 => {
            let unsigned = matches!(t.dtype(), U4 | U2);
            // Four bits fit in eight, signed or not.
            let values: Vec<u8> = t.to_i64s()?.iter().map(|&v| v as u8).collect();
            ((if unsigned { "|u1" } else { "|i1" }).to_string(), values.into())
        }
        d => match descr(d) {
            Some(code) => (code.to_string(), Cow::Borrowed(t.bytes()?)),
            None => {
                widened = t.widened()?;
                ("<f4".to_string(), widened.bytes()?.to_vec().into())
            }
        },
    };
    let written_as = dtype_of(&code).map_or(t.dtype(), |k| match k {
        Kind::Number(d) => d,
        Kind::Utf32(_) | Kind::Ascii(_) => Str,
    });
    let note = (written_as != t.dtype())
        .then(|| format!("'{name}' is {} and was written as {written_as}: NumPy has no such type", t.dtype()));
    let mut shape = String::new();
    for d in t.dims() {
        shape.push_str(&format!("{d},"));
    }
    let text = format!("{{'descr': '{code}', 'fortran_order': False, 'shape': ({shape}), }}");
    Ok(Npy { header: header(&text), payload, note })
}

/// Magic, version, length and the text, padded so that the payload begins on a multiple of 64.
fn header(text: &str) -> Vec<u8> {
    let wide = text.len() + 1 + 64 > usize::from(u16::MAX);
    let fixed = if wide { 12 } else { 10 };
    let total = (fixed + text.len() + 1).next_multiple_of(64);
    let mut out = MAGIC.to_vec();
    let length = total - fixed;
    if wide {
        out.extend_from_slice(&[2, 0]);
        out.extend_from_slice(&(length as u32).to_le_bytes());
    } else {
        out.extend_from_slice(&[1, 0]);
        out.extend_from_slice(&(length as u16).to_le_bytes());
    }
    out.extend_from_slice(text.as_bytes());
    out.resize(total - 1, b' ');
    out.push(b'\n');
    out
}

/// NumPy's code for a type it has.
fn descr(d: DType) -> Option<&'static str> {
    use DType::*;
    Some(match d {
        F32 => "<f4",
        F64 => "<f8",
        F16 => "<f2",
        U8 => "|u1",
        I8 => "|i1",
        U16 => "<u2",
        I16 => "<i2",
        U32 => "<u4",
        I32 => "<i4",
        U64 => "<u8",
        I64 => "<i8",
        Bool => "|b1",
        C64 => "<c8",
        C128 => "<c16",
        _ => return None,
    })
}

/// What an array's elements are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Number(DType),
    /// Text of that many code points, padded with zeros.
    Utf32(usize),
    /// Text of that many bytes, padded with zeros.
    Ascii(usize),
}

fn dtype_of(code: &str) -> Option<Kind> {
    let kind = code.trim_start_matches(['<', '>', '|', '=']);
    if kind == "?" {
        return Some(Kind::Number(DType::Bool));
    }
    if let Some(n) = kind.strip_prefix('U') {
        return n.parse().ok().map(Kind::Utf32);
    }
    if let Some(n) = kind.strip_prefix('S').or_else(|| kind.strip_prefix('a')) {
        return n.parse().ok().map(Kind::Ascii);
    }
    DType::ALL.iter().find(|&&d| descr(d).is_some_and(|c| &c[1..] == kind)).map(|&d| Kind::Number(d))
}

/// One `.npy` file.
///
/// # Errors
/// If it is not one, its type is not one of ours, or it ends early.
pub fn read_npy(source: &mut impl Read) -> Result<Tensor> {
    let ends = |e: io::Error| match e.kind() {
        io::ErrorKind::UnexpectedEof => Error::input("ends in the middle of its header"),
        _ => Error::input(format!("cannot be read: {e}")),
    };
    let mut start = [0u8; 8];
    source.read_exact(&mut start).map_err(ends)?;
    if &start[..6] != MAGIC {
        return Err(Error::input("is not a .npy array"));
    }
    let length = match start[6] {
        1 => {
            let mut n = [0u8; 2];
            source.read_exact(&mut n).map_err(ends)?;
            usize::from(u16::from_le_bytes(n))
        }
        2 | 3 => {
            let mut n = [0u8; 4];
            source.read_exact(&mut n).map_err(ends)?;
            u32::from_le_bytes(n) as usize
        }
        version => return Err(Error::unsupported(format!("is of .npy version {version}"))),
    };
    if length > LONGEST_HEADER_BYTES {
        return Err(Error::input(format!("has a header of {length} bytes")));
    }
    let mut text = vec![0u8; length];
    source.read_exact(&mut text).map_err(ends)?;
    let text = String::from_utf8_lossy(&text);
    let Header { descr, fortran, dims } = parse(&text)?;
    let kind = dtype_of(&descr).ok_or_else(|| {
        let e = Error::unsupported(format!("has the NumPy type '{descr}'"));
        match descr.trim_start_matches(['<', '>', '|']).chars().next() {
            Some('O') => e.hint("arrays of Python objects are not read; give the array a numeric dtype"),
            Some('V') => e.hint("NumPy has no bfloat16 or 8-bit floats; save them with .astype(numpy.float32)"),
            _ => e.hint("use a bool, integer, float, complex or text dtype"),
        }
    })?;
    let n = element_count(&dims)?;
    let width = match kind {
        Kind::Number(d) => d.bits() / 8,
        Kind::Utf32(chars) => chars.saturating_mul(4),
        Kind::Ascii(bytes) => bytes,
    };
    let need = n
        .checked_mul(width)
        .filter(|&b| b < isize::MAX as usize)
        .ok_or_else(|| Error::input("has a shape that does not fit in memory"))?;
    // Grows with what arrives, so a header that lies allocates nothing.
    let mut bytes = Vec::new();
    let got =
        source.take(need as u64).read_to_end(&mut bytes).map_err(|e| Error::input(format!("cannot be read: {e}")))?;
    if got != need {
        return Err(Error::input(format!("has {got} bytes of data where its shape needs {need}")));
    }
    if descr.starts_with('>') {
        let part = match kind {
            Kind::Number(DType::C64 | DType::C128) => width / 2,
            Kind::Utf32(_) => 4,
            _ => width,
        };
        if part > 1 {
            bytes.chunks_exact_mut(part).for_each(<[u8]>::reverse);
        }
    }
    if fortran && dims.len() > 1 && width > 0 {
        bytes = c_order(&bytes, &dims, width);
    }
    match kind {
        Kind::Number(dtype) => Tensor::from_file_bytes(dtype, bytes.into(), &dims),
        // Zero-width text has no bytes to count elements by, and allocating for a claimed count would be unbounded.
        Kind::Utf32(0) | Kind::Ascii(0) if n > 1 << 20 => Err(Error::unsupported("is a large array of empty text")),
        Kind::Utf32(0) | Kind::Ascii(0) => Tensor::from_strings(vec![String::new(); n], &dims),
        Kind::Utf32(_) => {
            let text = |cell: &[u8]| {
                let codes = cell.chunks_exact(4).map(|c| u32::from_le_bytes([c[0], c[1], c[2], c[3]]));
                let text: String = codes.map(|c| char::from_u32(c).unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
                text.trim_end_matches('\0').to_string()
            };
            Tensor::from_strings(bytes.chunks_exact(width).map(text).collect(), &dims)
        }
        Kind::Ascii(_) => {
            let text = |cell: &[u8]| String::from_utf8_lossy(cell).trim_end_matches('\0').to_string();
            Tensor::from_strings(bytes.chunks_exact(width).map(text).collect(), &dims)
        }
    }
}

/// Column-major elements in row-major order.
fn c_order(bytes: &[u8], dims: &[usize], width: usize) -> Vec<u8> {
    let mut strides = Vec::with_capacity(dims.len());
    let mut stride = 1;
    for &d in dims {
        strides.push(stride);
        stride *= d;
    }
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = vec![0usize; dims.len()];
    let mut from = 0;
    for _ in 0..bytes.len() / width {
        out.extend_from_slice(&bytes[from * width..][..width]);
        for axis in (0..dims.len()).rev() {
            at[axis] += 1;
            from += strides[axis];
            if at[axis] < dims[axis] {
                break;
            }
            from -= strides[axis] * dims[axis];
            at[axis] = 0;
        }
    }
    out
}

struct Header {
    descr: String,
    fortran: bool,
    dims: Vec<usize>,
}

/// Parses the Python dictionary of a header: three known keys in any order.
fn parse(text: &str) -> Result<Header> {
    let bad = || Error::input("has a malformed header");
    let (mut descr, mut fortran, mut dims) = (None, None, None);
    let mut rest = text.trim().strip_prefix('{').and_then(|t| t.strip_suffix('}')).ok_or_else(bad)?.trim();
    while !rest.is_empty() {
        let (key, after) = quoted(rest).ok_or_else(bad)?;
        let after = after.trim_start().strip_prefix(':').ok_or_else(bad)?.trim_start();
        rest = match key {
            "descr" => match quoted(after) {
                Some((value, after)) => {
                    descr = Some(value.to_string());
                    after
                }
                None => {
                    return Err(Error::unsupported("has named fields").hint("save each field as an array of its own"));
                }
            },
            "fortran_order" => {
                let (value, after) = match after.strip_prefix("True") {
                    Some(after) => (true, after),
                    None => (false, after.strip_prefix("False").ok_or_else(bad)?),
                };
                fortran = Some(value);
                after
            }
            "shape" => {
                let (inside, after) = after.strip_prefix('(').and_then(|t| t.split_once(')')).ok_or_else(bad)?;
                let mut sizes = Vec::new();
                for part in inside.split(',').map(str::trim).filter(|p| !p.is_empty()) {
                    // Python 2 wrote long integers as `3L`.
                    sizes.push(part.trim_end_matches('L').parse::<usize>().map_err(|_| bad())?);
                }
                if sizes.len() > 64 {
                    return Err(Error::unsupported("has more than 64 dims"));
                }
                dims = Some(sizes);
                after
            }
            _ => return Err(bad()),
        };
        rest = rest.trim_start();
        rest = match rest.strip_prefix(',') {
            Some(more) => more.trim_start(),
            None if rest.is_empty() => rest,
            None => return Err(bad()),
        };
    }
    match (descr, fortran, dims) {
        (Some(descr), Some(fortran), Some(dims)) => Ok(Header { descr, fortran, dims }),
        _ => Err(bad()),
    }
}

/// A quoted text at the start, and what follows it.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    text[1..].split_once(quote)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    fn pattern(d: DType, dims: &[usize]) -> Tensor {
        let n = d.bytes_of(element_count(dims).unwrap()).unwrap();
        let bytes: Vec<u8> =
            (0..n).map(|i| if d == DType::Bool { i as u8 & 1 } else { (i as u8).wrapping_mul(29) }).collect();
        Tensor::from_file_bytes(d, bytes.into(), dims).unwrap()
    }

    #[test]
    fn every_shared_type_survives_and_others_are_widened_with_a_note() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.npz");
        let tensors: Vec<(String, Tensor)> = DType::ALL
            .iter()
            .filter(|&&d| d != DType::Str)
            .map(|&d| (format!("x/{d}.1"), pattern(d, &[2, 3])))
            .chain([
                (
                    "text".to_string(),
                    Tensor::from_strings(vec!["a".into(), "déjà".into(), String::new()], &[3]).unwrap(),
                ),
                ("empty".to_string(), pattern(DType::F32, &[0, 4])),
                ("scalar".to_string(), Tensor::scalar(7i64)),
            ])
            .collect();
        let notes = write(&path, tensors.iter().map(|(n, t)| (n.as_str(), t))).unwrap();
        let back = read(&path).unwrap();
        assert_eq!(back.len(), tensors.len());
        let mut widened = 0;
        for ((name, t), (back_name, b)) in tensors.iter().zip(&back) {
            assert_eq!((name, t.dims()), (back_name, b.dims()));
            if t.dtype() == DType::Str {
                assert_eq!(t.strings().unwrap(), b.strings().unwrap());
            } else if b.dtype() == t.dtype() {
                assert_eq!(t.bytes().unwrap(), b.bytes().unwrap(), "{name}");
            } else {
                widened += 1;
                assert!(notes.iter().any(|n| n.contains(name.as_str())));
                let same = |(x, y): (&f64, &f64)| x == y || (x.is_nan() && y.is_nan());
                assert!(t.to_f64s().unwrap().iter().zip(&b.to_f64s().unwrap()).all(same), "{name}");
            }
        }
        assert_eq!((widened, notes.len()), (11, 11));
        let twice = [("a", &tensors[0].1), ("a", &tensors[1].1)];
        assert!(write(&path, twice).is_err());
        assert!(write(&path, [("s", &Tensor::from_sequence(DType::F32, vec![]))]).is_err());
        assert_eq!(read(&path).unwrap().len(), tensors.len(), "a failed write leaves the old file");
    }

    fn npy_file(text: &str, payload: &[u8]) -> Vec<u8> {
        [header(text), payload.to_vec()].concat()
    }

    #[test]
    fn orders_and_versions() {
        let read = |bytes: &[u8]| read_npy(&mut Cursor::new(bytes));
        let f = npy_file(
            "{'descr': '<i2', 'fortran_order': True, 'shape': (2, 3), }",
            bytemuck::cast_slice(&[1i16, 4, 2, 5, 3, 6]),
        );
        assert_eq!(read(&f).unwrap().to_i64s().unwrap(), [1, 2, 3, 4, 5, 6]);
        let big = npy_file(
            "{\"shape\": (2,), \"descr\": \">i4\", 'fortran_order': False}",
            &[0, 0, 1, 0, 0xff, 0xff, 0xff, 0xff],
        );
        assert_eq!(read(&big).unwrap().to_i64s().unwrap(), [256, -1]);
        let mut v2 = MAGIC.to_vec();
        let text = b"{'descr': '|S3', 'fortran_order': False, 'shape': (2,)}\n";
        v2.extend_from_slice(&[2, 0]);
        v2.extend_from_slice(&(text.len() as u32).to_le_bytes());
        v2.extend_from_slice(text);
        v2.extend_from_slice(b"abcd\0\0");
        assert_eq!(read(&v2).unwrap().strings().unwrap(), ["abc", "d"]);
    }

    #[test]
    fn hostile_headers_are_errors() {
        let read = |bytes: &[u8]| read_npy(&mut Cursor::new(bytes)).unwrap_err().to_string();
        let of = |descr: &str, shape: &str| {
            npy_file(&format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape})}}"), &[0; 16])
        };
        assert!(read(&of("<f4", "9999999999,")).contains("16 bytes"));
        assert!(read(&of("<f4", "9999999999,9999999999")).contains("memory"));
        assert!(read(&of("<f4", "-1,")).contains("malformed"));
        assert!(read(&of("|O", "1,")).contains("Python objects"));
        assert!(read(&of("<V2", "1,")).contains("bfloat16"));
        assert!(read(&of("<U0", "99999999999,")).contains("empty text"));
        assert!(read(&of("<U99999999999999999999", "1,")).contains("NumPy type"));
        assert!(read(&of("<U4611686018427387904", "1,")).contains("memory"));
        assert!(read(b"PK").contains("header"));
        assert!(read(b"\x93NUMPY\x02\0\xff\xff\xff\xff").contains("header of"));
        let named = npy_file("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}", &[0; 4]);
        assert!(read(&named).contains("named fields"));
        assert!(read_from(Cursor::new(b"not a zip")).unwrap_err().to_string().contains("npz"));
    }

    #[test]
    fn damaged_archives_never_panic() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.npz");
        let t = pattern(DType::F32, &[3]);
        write(&path, [("a", &t), ("b", &t)]).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            let _ = read_from(Cursor::new(&whole[..cut]));
        }
        let mut seed = 1u64;
        for _ in 0..20_000 {
            let mut bytes = whole.clone();
            for _ in 0..3 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let at = (seed >> 33) as usize % bytes.len();
                bytes[at] = (seed >> 20) as u8;
            }
            let _ = read_from(Cursor::new(&bytes));
        }
    }
}
