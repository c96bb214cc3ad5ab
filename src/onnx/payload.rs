//! Tensor payloads: the many ways a `TensorProto` can carry its numbers, made into one [`Tensor`].
//!
//! `raw_data`, external data and packed floats are used where they lie in the mapped file; varints are decoded. Every dim,
//! length and offset is hostile until checked, and nothing is allocated for data that is not there.

use super::proto::{Lenient, SparseTensorProto, TensorProto, text};
use crate::error::{Error, Kind, Result};
use crate::tensor::{DType, Element, Shape, Tensor, element_count, map};
use bytes::Bytes;
use prost::encoding::varint::decode_varint;
use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

/// A sparse tensor is expanded up to this size.
const LARGEST_DENSIFIED_BYTES: usize = 1 << 28;

/// The files beside the model that hold its payloads: each is mapped once.
#[derive(Default)]
pub(super) struct External {
    /// Where locations start from.
    base: Option<PathBuf>,
    /// The folders (without links) that a resolved location must lie in.
    folders: Vec<PathBuf>,
    maps: RefCell<HashMap<String, Bytes>>,
}

impl External {
    /// External data beside the model `file`. When that is a link, the folder of the file it points to counts as the model's
    /// folder too: download caches keep a model and its data as links into one store.
    pub(super) fn beside(file: &Path) -> Self {
        let base = match file.parent() {
            Some(p) if !p.as_os_str().is_empty() => p,
            _ => Path::new("."),
        };
        let mut external = Self::within(base);
        if let Some(real) = file.canonicalize().ok().as_deref().and_then(Path::parent) {
            external.folders.push(real.to_path_buf());
        }
        external
    }
    /// External data in the folder `base`.
    pub(super) fn within(base: &Path) -> Self {
        External {
            base: Some(base.to_path_buf()),
            folders: base.canonicalize().into_iter().collect(),
            maps: RefCell::default(),
        }
    }

    /// The files used so far, by name, with their bytes.
    pub(super) fn files(&self) -> Vec<(String, u64)> {
        let mut files: Vec<_> = self.maps.borrow().iter().map(|(k, v)| (k.clone(), v.len() as u64)).collect();
        files.sort();
        files
    }

    fn open(&self, location: &str) -> Result<Bytes> {
        if let Some(found) = self.maps.borrow().get(location) {
            return Ok(found.clone());
        }
        let Some(base) = &self.base else {
            return Err(Error::input(format!(
                "its data is in the file '{location}', and a model in memory has no folder"
            ))
            .hint("read the model from its file"));
        };
        let inside = !location.is_empty()
            && !location.contains('\0')
            && Path::new(location).components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
        let outside = || {
            Error::input(format!("its data is said to be in '{location}', which is outside the model's folder"))
                .hint("only files beside the model are read; save it again with a plain file name as location")
        };
        if !inside {
            return Err(outside());
        }
        let path = base.join(location);
        let real = path.canonicalize().map_err(|e| {
            Error::input(format!("its data is in '{location}', which cannot be opened: {e}")).hint(format!(
                "put {} where the model is, under the name it was exported with",
                printable_name(location)
            ))
        })?;
        if !self.folders.iter().any(|f| real.starts_with(f)) {
            return Err(outside());
        }
        let bytes = map::map(&real)?;
        self.maps.borrow_mut().insert(location.to_string(), bytes.clone());
        Ok(bytes)
    }

    fn slice(&self, t: &TensorProto, need: usize) -> Result<Bytes> {
        let entry = |key: &[u8]| t.external_data.iter().find(|e| &e.key[..] == key).map(|e| text(&e.value));
        let number = |key: &str| -> Result<Option<usize>> {
            entry(key.as_bytes())
                .map(|v| {
                    v.trim().parse().map_err(|_| Error::input(format!("external data: '{v}' is not a valid {key}")))
                })
                .transpose()
        };
        let location = entry(b"location").ok_or_else(|| Error::input("external data without a location"))?;
        let offset = number("offset")?.unwrap_or(0);
        let length = number("length")?.unwrap_or(need);
        let file = self.open(&location)?;
        match offset.checked_add(length) {
            Some(end) if end <= file.len() => Ok(file.slice(offset..end)),
            _ => Err(Error::input(format!(
                "its {length} bytes at {offset} lie beyond the end of '{location}' ({} bytes)",
                file.len()
            ))
            .hint("the data file is cut off or belongs to another model; fetch it again")),
        }
    }
}

fn printable_name(location: &str) -> String {
    location.chars().filter(|c| !c.is_control()).take(200).collect()
}

/// Names the tensor in an error.
pub(super) fn in_tensor(e: &Error, name: &Bytes) -> Error {
    let message =
        if name.is_empty() { e.message().to_string() } else { format!("tensor '{}': {}", text(name), e.message()) };
    let named = match e.kind() {
        Kind::Unsupported => Error::unsupported(message),
        _ => Error::input(message),
    };
    match e.hint_text() {
        Some(hint) => named.hint(hint),
        None => named,
    }
}

fn sizes(dims: &[i64]) -> Result<Vec<usize>> {
    dims.iter().map(|&d| usize::try_from(d).map_err(|_| Error::input(format!("has the negative dim {d}")))).collect()
}

/// One payload; several chunks are the exception.
fn join(mut chunks: Vec<Bytes>) -> Bytes {
    match chunks.len() {
        0 | 1 => chunks.pop().unwrap_or_default(),
        _ => chunks.concat().into(),
    }
}

/// Varints as numbers: exactly `n` of them.
fn varints<T>(chunks: &[Bytes], n: usize, as_t: impl Fn(u64) -> T) -> Result<Vec<T>> {
    // A varint has at least one byte, so what is allocated is bounded by what is in the file.
    let mut out = Vec::with_capacity(n.min(chunks.iter().map(Bytes::len).sum()));
    for chunk in chunks {
        let mut rest = &chunk[..];
        while !rest.is_empty() {
            if out.len() == n {
                return Err(Error::input(format!("has more than the {n} values its shape needs")));
            }
            out.push(as_t(decode_varint(&mut rest).map_err(|_| Error::input("has a malformed number"))?));
        }
    }
    if out.len() != n {
        return Err(Error::input(format!("has {} values where its shape needs {n}", out.len())));
    }
    Ok(out)
}

fn from_ints<T: Element>(dtype: DType, chunks: &[Bytes], dims: &[usize], as_t: impl Fn(u64) -> T) -> Result<Tensor> {
    // For types packed below a byte, an entry holds a byte, not an element.
    let entries = if dtype.bits() < 8 { dtype.bytes_of(element_count(dims)?) } else { Some(element_count(dims)?) };
    Tensor::from_vec_as(dtype, varints(chunks, entries.unwrap_or(0), as_t)?, dims)
}

/// The tensor of a `TensorProto`.
pub(super) fn tensor(proto: Lenient, external: &External) -> Result<Tensor> {
    let name = proto.0.name.clone();
    dense(proto.0, external).map_err(|e| in_tensor(&e, &name))
}

fn dense(t: TensorProto, external: &External) -> Result<Tensor> {
    use DType::*;
    let dims = sizes(&t.dims)?;
    let code = t.data_type.unwrap_or(0);
    let dtype = DType::from_onnx(code).ok_or_else(|| match code {
        0 => Error::input("has no element type"),
        _ => Error::unsupported(format!("has element type code {code}, which this version does not know")),
    })?;
    let n = element_count(&dims)?;
    if t.segment.is_some() {
        return Err(Error::unsupported("is stored in segments"));
    }
    if t.data_location == Some(1) {
        let need = dtype.bytes_of(n).ok_or_else(|| Error::input(format!("{dtype} data cannot be external")))?;
        return Tensor::from_file_bytes(dtype, external.slice(&t, need)?, &dims);
    }
    let typed = [&t.float_data, &t.int32_data, &t.int64_data, &t.uint64_data, &t.double_data, &t.string_data];
    if let Some(raw) = t.raw_data
        && (!raw.is_empty() || typed.iter().all(|d| d.is_empty()))
    {
        return Tensor::from_file_bytes(dtype, raw, &dims);
    }
    let i = &t.int32_data;
    match dtype {
        F32 | C64 => Tensor::from_file_bytes(dtype, join(t.float_data), &dims),
        F64 | C128 => Tensor::from_file_bytes(dtype, join(t.double_data), &dims),
        I32 => from_ints(dtype, i, &dims, |v| v as i32),
        I16 => from_ints(dtype, i, &dims, |v| v as i16),
        I8 => from_ints(dtype, i, &dims, |v| v as i8),
        U16 | F16 | BF16 => from_ints(dtype, i, &dims, |v| v as u16),
        U8 | U4 | I4 | U2 | I2 | F8E4M3FN | F8E4M3FNUZ | F8E5M2 | F8E5M2FNUZ | F8E8M0 | F4E2M1 => {
            from_ints(dtype, i, &dims, |v| v as u8)
        }
        Bool => from_ints(dtype, i, &dims, |v| u8::from(v != 0)),
        I64 => from_ints(dtype, &t.int64_data, &dims, |v| v as i64),
        U64 => from_ints(dtype, &t.uint64_data, &dims, |v| v),
        U32 => from_ints(dtype, &t.uint64_data, &dims, |v| v as u32),
        Str if t.string_data.len() != n => {
            Err(Error::input(format!("has {} strings where its shape needs {n}", t.string_data.len())))
        }
        Str => Tensor::from_strings(t.string_data.iter().map(text).collect(), &dims),
    }
}

/// A sparse tensor, expanded; with the name it goes by.
pub(super) fn sparse(s: SparseTensorProto, external: &External) -> Result<(String, Tensor)> {
    let values = s.values.ok_or_else(|| Error::input("a sparse tensor without values"))?;
    let name = values.0.name.clone();
    let dense = densify(values, s.indices, &s.dims, external).map_err(|e| in_tensor(&e, &name))?;
    Ok((text(&name), dense))
}

fn densify(values: Lenient, indices: Option<Lenient>, dims: &[i64], external: &External) -> Result<Tensor> {
    let dims = sizes(dims)?;
    let n = element_count(&dims)?;
    let values = dense(values.0, external)?;
    let dtype = values.dtype();
    let width = match dtype.bits() {
        bits if bits >= 8 => bits / 8,
        _ => return Err(Error::unsupported(format!("is sparse and of type {dtype}"))),
    };
    let indices = indices.map(|i| dense(i.0, external)).transpose()?;
    let indices = match &indices {
        Some(i) if i.dtype() == DType::I64 => i,
        None if values.is_empty() => &Tensor::from_vec(Vec::<i64>::new(), &[0])?,
        _ => return Err(Error::input("is sparse and has no 64-bit indices")),
    };
    let bytes = dtype.bytes_of(n).filter(|&b| b <= LARGEST_DENSIFIED_BYTES).ok_or_else(|| {
        Error::unsupported(format!("is sparse and too large to expand (shape {})", Shape::known(&dims)))
    })?;
    let rank = match *indices.dims() {
        [count] if count == values.len() => None,
        [count, rank] if count == values.len() && rank == dims.len() => Some(rank),
        _ => return Err(Error::input("is sparse, and its indices do not match its values and dims")),
    };
    let indices = indices.to_i64s()?;
    let mut out = vec![0u8; bytes];
    for (k, value) in values.bytes()?.chunks_exact(width).enumerate() {
        let at = match rank {
            None => indices.get(k).and_then(|&i| usize::try_from(i).ok()),
            Some(rank) => indices[k * rank..][..rank].iter().zip(&dims).try_fold(0usize, |at, (&i, &d)| {
                usize::try_from(i).ok().filter(|&i| i < d).and_then(|i| at.checked_mul(d)?.checked_add(i))
            }),
        };
        let at = at.filter(|&at| at < n).ok_or_else(|| Error::input("is sparse, and an index is out of range"))?;
        out[at * width..][..width].copy_from_slice(value);
    }
    Tensor::from_file_bytes(dtype, out.into(), &dims)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::proto::StringStringEntryProto;

    fn read(t: TensorProto) -> Result<Tensor> {
        tensor(Lenient(t), &External::default())
    }

    fn packed(values: &[i64]) -> Vec<Bytes> {
        let mut wire = Vec::new();
        for &v in values {
            prost::encoding::encode_varint(v as u64, &mut wire);
        }
        vec![wire.into()]
    }

    #[test]
    fn every_type_reads_alike_from_raw_and_typed_fields() {
        use DType::*;
        for &d in DType::ALL {
            if d == Str {
                continue;
            }
            // Four elements; a byte pattern that is a valid value of every type.
            let raw: Vec<u8> = (0..d.bytes_of(4).unwrap())
                .map(|i| if d == Bool { i as u8 & 1 } else { (i as u8).wrapping_mul(37) })
                .collect();
            let base = TensorProto { dims: vec![2, 2], data_type: Some(d.to_onnx()), ..Default::default() };
            let from_raw = read(TensorProto { raw_data: Some(raw.clone().into()), ..base.clone() }).unwrap();
            let mut typed = base;
            let words = |w: usize| {
                raw.chunks(w).map(|c| c.iter().rev().fold(0i64, |v, &b| v << 8 | i64::from(b))).collect::<Vec<_>>()
            };
            match d {
                F32 | C64 => typed.float_data = vec![raw.clone().into()],
                F64 | C128 => typed.double_data = vec![raw[..8].to_vec().into(), raw[8..].to_vec().into()],
                I64 => typed.int64_data = packed(&words(8)),
                U64 => typed.uint64_data = packed(&words(8)),
                U32 => typed.uint64_data = packed(&words(4)),
                I32 => typed.int32_data = packed(&words(4).iter().map(|&v| (v as i32).into()).collect::<Vec<_>>()),
                I16 => typed.int32_data = packed(&words(2).iter().map(|&v| (v as i16).into()).collect::<Vec<_>>()),
                I8 => typed.int32_data = packed(&words(1).iter().map(|&v| (v as i8).into()).collect::<Vec<_>>()),
                _ => typed.int32_data = packed(&words((d.bits() / 8).max(1))),
            }
            let from_typed = read(typed).unwrap();
            assert_eq!(from_raw.bytes().unwrap(), from_typed.bytes().unwrap(), "{d}");
            assert_eq!(from_raw.fact(), from_typed.fact());
            assert!(from_raw.is_file_backed());
        }
        let strings = TensorProto {
            dims: vec![2],
            data_type: Some(8),
            string_data: vec![Bytes::from_static(b"a"), Bytes::from_static(b"\xff")],
            ..Default::default()
        };
        assert_eq!(read(strings).unwrap().strings().unwrap(), ["a", "\u{fffd}"]);
    }

    #[test]
    fn dims_and_lengths_that_lie_are_errors() {
        let base = TensorProto { name: Bytes::from_static(b"w"), data_type: Some(1), ..Default::default() };
        let fails = |t: TensorProto, what: &str| {
            let e = read(t).unwrap_err().to_string();
            assert!(e.contains("'w'") && e.contains(what), "{e}");
        };
        fails(TensorProto { dims: vec![-1], ..base.clone() }, "negative");
        fails(TensorProto { dims: vec![i64::MAX, i64::MAX], ..base.clone() }, "memory");
        fails(TensorProto { dims: vec![1 << 40], ..base.clone() }, "0 bytes");
        fails(TensorProto { dims: vec![1 << 40], data_type: Some(7), ..base.clone() }, "0 values");
        fails(
            TensorProto { dims: vec![1], data_type: Some(7), int64_data: packed(&[1, 2]), ..base.clone() },
            "more than",
        );
        fails(TensorProto { data_type: Some(99), ..base.clone() }, "code 99");
        fails(TensorProto { data_type: None, ..base.clone() }, "no element type");
        fails(TensorProto { data_type: Some(8), raw_data: Some(Bytes::new()), ..base.clone() }, "raw bytes");
    }

    #[test]
    fn external_data_is_mapped_once_and_never_outside_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("model");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("w.data"), [1f32, 2., 3.].map(f32::to_le_bytes).concat()).unwrap();
        std::fs::write(dir.path().join("secret"), [0u8; 64]).unwrap();
        let external = External::within(&folder);
        let read = |location: &str, offset: &str, length: Option<&str>| {
            let pair = |k: &'static str, v: &str| StringStringEntryProto { key: k.into(), value: v.to_string().into() };
            let mut external_data = vec![pair("location", location), pair("offset", offset)];
            external_data.extend(length.map(|l| pair("length", l)));
            let name = Bytes::from_static(b"w");
            let t = TensorProto {
                dims: vec![2],
                data_type: Some(1),
                data_location: Some(1),
                name,
                external_data,
                ..Default::default()
            };
            tensor(Lenient(t), &external)
        };
        assert_eq!(read("w.data", "4", Some("8")).unwrap().to_f64s().unwrap(), [2., 3.]);
        assert_eq!(read("./w.data", "0", None).unwrap().to_f64s().unwrap(), [1., 2.]);
        let fails = |e: Result<Tensor>, what: &str| {
            let e = e.unwrap_err().to_string();
            assert!(e.contains("'w'") && e.contains(what), "{e}");
        };
        fails(read("w.data", "8", Some("8")), "beyond the end");
        fails(read("w.data", "18446744073709551615", Some("8")), "beyond the end");
        fails(read("w.data", "-4", Some("8")), "not a valid offset");
        fails(read("w.data", "0", Some("4")), "4 bytes of data");
        fails(read("other.data", "0", None), "other.data");
        fails(read("../secret", "0", None), "outside");
        fails(read("/etc/passwd", "0", None), "outside");
        fails(read("", "0", None), "outside");
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(dir.path().join("secret"), folder.join("link")).unwrap();
            fails(read("link", "0", None), "outside");
            // A model that is itself a link may use what lies beside its target.
            let model = folder.join("m.onnx");
            std::fs::write(dir.path().join("blob"), b"x").unwrap();
            std::os::unix::fs::symlink(dir.path().join("blob"), &model).unwrap();
            assert!(External::beside(&model).open("link").is_ok());
        }
    }

    #[test]
    fn sparse_tensors_are_expanded() {
        let values = TensorProto {
            name: Bytes::from_static(b"s"),
            dims: vec![2],
            data_type: Some(1),
            raw_data: Some([5f32, 7.].map(f32::to_le_bytes).concat().into()),
            ..Default::default()
        };
        let make = |dims: Vec<i64>, indices: &[i64], index_dims: Vec<i64>| {
            let indices =
                TensorProto { dims: index_dims, data_type: Some(7), int64_data: packed(indices), ..Default::default() };
            let s = SparseTensorProto { values: Some(Lenient(values.clone())), indices: Some(Lenient(indices)), dims };
            sparse(s, &External::default())
        };
        let (name, t) = make(vec![2, 2], &[1, 2], vec![2]).unwrap();
        assert_eq!((name.as_str(), t.to_f64s().unwrap()), ("s", vec![0., 5., 7., 0.]));
        let (_, t) = make(vec![2, 2], &[0, 0, 1, 1], vec![2, 2]).unwrap();
        assert_eq!(t.to_f64s().unwrap(), [5., 0., 0., 7.]);
        assert!(make(vec![2, 2], &[1, 4], vec![2]).is_err());
        assert!(make(vec![2, 2], &[0, 2, 1, 1], vec![2, 2]).is_err());
        assert!(make(vec![2, 2], &[0, -1, 1, 1], vec![2, 2]).is_err());
        assert!(make(vec![1 << 20, 1 << 20], &[1, 2], vec![2]).is_err());
    }
}
