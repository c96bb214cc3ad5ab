//! A tensor with its values: file-backed bytes, owned numbers, strings, or a sequence of tensors.
//!
//! Cloning is cheap (reference counts). File-backed payloads stay where the memory map put them, at any alignment, and
//! are only touched when somebody looks at the numbers.

use super::{DType, Fact, Shape};
use crate::error::{Error, Result};
use bytemuck::Pod;
use bytes::Bytes;
use std::borrow::Cow;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

#[cfg(target_endian = "big")]
compile_error!("tensor payloads are little-endian and used in place; big-endian machines are not supported");

/// Owned numbers of some plain type.
trait Store: Send + Sync {
    fn bytes(&self) -> &[u8];
    fn bytes_mut(&mut self) -> &mut [u8];
}

impl<T: Pod + Send + Sync> Store for Vec<T> {
    fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(self)
    }
    fn bytes_mut(&mut self) -> &mut [u8] {
        bytemuck::cast_slice_mut(self)
    }
}

#[derive(Clone)]
enum Data {
    /// Little-endian bytes in a mapped file, not necessarily aligned.
    File(Bytes),
    /// Numbers made by this process.
    Owned(Arc<dyn Store>),
    /// Numbers made when first looked at (the zoo's seeded weights, large values that follow from constants): counting never pays for
    /// them.
    Lazy(Arc<Lazy>),
    Strings(Arc<Vec<String>>),
    /// Elements of a sequence value.
    Sequence(Arc<Vec<Tensor>>),
    /// An empty optional.
    Absent,
}

/// What a payload is called where something made of it is kept between runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The file it comes from, in the state it is in.
    pub file: u64,
    /// Which of its bytes, and what was done to them.
    pub value: u128,
}

impl Identity {
    /// That of what is made of it by a change that `how` tells completely.
    pub fn changed(self, how: impl Hash) -> Identity {
        let half = |side: u8| {
            // Of fixed keys: the same in every run.
            let mut hasher = DefaultHasher::new();
            (side, self.value).hash(&mut hasher);
            how.hash(&mut hasher);
            u128::from(hasher.finish())
        };
        Identity { value: half(0) << 64 | half(1), ..self }
    }
}

struct Lazy {
    identity: Option<Identity>,
    made: OnceLock<Result<Tensor>>,
    /// Gone once it has been used, and what it held with it.
    make: Mutex<Option<Make>>,
}

type Make = Box<dyn FnOnce() -> Result<Tensor> + Send>;

impl Lazy {
    fn made(&self) -> Result<&Tensor> {
        let made = self.made.get_or_init(|| {
            let make = self.make.lock().unwrap_or_else(PoisonError::into_inner).take();
            make.map_or_else(|| Err(Error::run("values that could not be made")), |make| make())
        });
        made.as_ref().map_err(Clone::clone)
    }
}

/// A tensor (or, at run time, a sequence or an empty optional) with its values.
#[derive(Clone)]
pub struct Tensor {
    dtype: DType,
    dims: Vec<usize>,
    data: Data,
}

/// Rust types that hold one element of some ONNX type. `u8` also stands for booleans and packed types.
pub trait Element: Pod + Send + Sync + PartialOrd + fmt::Debug {
    /// The ONNX type made when a tensor is built from a vector of these.
    const DTYPE: DType;
}
macro_rules! elements {
    ($($t:ty => $d:ident),*) => { $(impl Element for $t { const DTYPE: DType = DType::$d; })* };
}
elements!(f32 => F32, f64 => F64, u8 => U8, i8 => I8, u16 => U16, i16 => I16, u32 => U32, i32 => I32, u64 => U64, i64 => I64,
          half::f16 => F16, half::bf16 => BF16);

/// Number of elements of a shape; an error when it does not fit the address space.
pub fn element_count(dims: &[usize]) -> Result<usize> {
    if dims.contains(&0) {
        return Ok(0);
    }
    dims.iter()
        .try_fold(1usize, |n, &d| n.checked_mul(d))
        .filter(|&n| n <= isize::MAX as usize / 16)
        .ok_or_else(|| Error::input(format!("a tensor of shape {} does not fit in memory", Shape::known(dims))))
}

impl Tensor {
    /// Numbers of type `T` with the given shape.
    ///
    /// # Errors
    /// If the number of values is not the product of the dims.
    pub fn from_vec<T: Element>(values: Vec<T>, dims: &[usize]) -> Result<Tensor> {
        Self::from_vec_as(T::DTYPE, values, dims)
    }

    /// Like [`Tensor::from_vec`], for an ONNX type of the same width as `T` (booleans and 8-bit floats in `u8`) or packed
    /// in `u8`.
    ///
    /// # Errors
    /// If the bytes are not exactly what the shape needs.
    pub fn from_vec_as<T: Element>(dtype: DType, values: Vec<T>, dims: &[usize]) -> Result<Tensor> {
        let need = dtype.bytes_of(element_count(dims)?);
        if need != Some(std::mem::size_of_val(&values[..])) {
            return Err(Error::run(format!(
                "{} values of {} bytes do not make a {dtype} tensor of shape {}",
                values.len(),
                std::mem::size_of::<T>(),
                Shape::known(dims)
            )));
        }
        Ok(Tensor { dtype, dims: dims.to_vec(), data: Data::Owned(Arc::new(values)) })
    }

    /// Booleans, one byte each.
    pub fn from_bools(values: impl IntoIterator<Item = bool>, dims: &[usize]) -> Result<Tensor> {
        Self::from_vec_as(DType::Bool, values.into_iter().map(u8::from).collect::<Vec<u8>>(), dims)
    }

    /// Strings.
    pub fn from_strings(values: Vec<String>, dims: &[usize]) -> Result<Tensor> {
        if values.len() != element_count(dims)? {
            return Err(Error::run("the number of strings is not the product of the dims"));
        }
        Ok(Tensor { dtype: DType::Str, dims: dims.to_vec(), data: Data::Strings(Arc::new(values)) })
    }

    /// A payload that stays in its file: little-endian, packed, exactly the shape's bytes.
    pub fn from_file_bytes(dtype: DType, payload: Bytes, dims: &[usize]) -> Result<Tensor> {
        let need = dtype
            .bytes_of(element_count(dims)?)
            .ok_or_else(|| Error::input(format!("a {dtype} payload cannot be raw bytes")))?;
        if payload.len() != need {
            return Err(Error::input(format!(
                "{} bytes of data where a {dtype} tensor of shape {} needs {need}",
                payload.len(),
                Shape::known(dims)
            )));
        }
        Ok(Tensor { dtype, dims: dims.to_vec(), data: Data::File(payload) })
    }

    /// A sequence of tensors (`dtype` of its elements).
    pub fn from_sequence(dtype: DType, elements: Vec<Tensor>) -> Tensor {
        Tensor { dtype, dims: vec![elements.len()], data: Data::Sequence(Arc::new(elements)) }
    }

    /// An empty optional.
    pub fn absent(dtype: DType) -> Tensor {
        Tensor { dtype, dims: vec![], data: Data::Absent }
    }

    /// Numbers that `make` produces when they are first looked at; it must give exactly the shape's element count (a shorter or
    /// longer result is cut or zero-filled, so that the shape always holds).
    ///
    /// # Errors
    /// If the shape does not fit in memory.
    pub fn lazy<T: Element + Default>(
        dims: &[usize],
        make: impl FnOnce() -> Vec<T> + Send + 'static,
    ) -> Result<Tensor> {
        Tensor::derived(dims, None, make)
    }

    /// As [`Tensor::lazy`], of values that can be told again.
    ///
    /// # Errors
    /// As there.
    pub fn derived<T: Element + Default>(
        dims: &[usize],
        identity: Option<Identity>,
        make: impl FnOnce() -> Vec<T> + Send + 'static,
    ) -> Result<Tensor> {
        let (n, shape) = (element_count(dims)?, dims.to_vec());
        Ok(Tensor::later(T::DTYPE, dims, identity, move || {
            let mut values = make();
            values.resize(n, T::default());
            Tensor::from_vec(values, &shape)
        }))
    }

    /// A tensor of numbers that `make` gives when they are first looked at; who looks gets its error, or one if it gives another type or
    /// shape.
    pub fn later(
        dtype: DType,
        dims: &[usize],
        identity: Option<Identity>,
        make: impl FnOnce() -> Result<Tensor> + Send + 'static,
    ) -> Tensor {
        let shape = dims.to_vec();
        let make: Make = Box::new(move || {
            let made = make()?;
            if (made.dtype, &made.dims) == (dtype, &shape) {
                return Ok(made);
            }
            let (made, want) = (made.fact(), Shape::known(&shape));
            Err(Error::run(format!("{made} was made where {dtype} {want} was announced")))
        });
        let lazy = Lazy { identity, made: OnceLock::new(), make: Mutex::new(Some(make)) };
        Tensor { dtype, dims: dims.to_vec(), data: Data::Lazy(Arc::new(lazy)) }
    }

    /// An `f32` tensor as one of 16-bit floats, rounded when first looked at; anything else unchanged.
    pub fn narrowed_lazily(&self, dtype: DType) -> Tensor {
        if self.dtype != DType::F32 || !matches!(dtype, DType::F16 | DType::BF16) {
            return self.clone();
        }
        let source = self.clone();
        Tensor::later(dtype, &self.dims, None, move || source.narrowed(dtype, false))
    }

    /// The values for writing, when they are owned `f32` and no clone of the tensor is left.
    pub fn sole_floats(&mut self) -> Option<&mut [f32]> {
        match &mut self.data {
            Data::Owned(store) if self.dtype == DType::F32 => {
                bytemuck::try_cast_slice_mut(Arc::get_mut(store)?.bytes_mut()).ok()
            }
            _ => None,
        }
    }

    /// A rank-0 tensor.
    pub fn scalar<T: Element>(value: T) -> Tensor {
        Tensor { dtype: T::DTYPE, dims: vec![], data: Data::Owned(Arc::new(vec![value])) }
    }

    /// Zeros (false, empty strings).
    pub fn zeros(dtype: DType, dims: &[usize]) -> Result<Tensor> {
        let n = element_count(dims)?;
        if dtype == DType::Str {
            return Self::from_strings(vec![String::new(); n], dims);
        }
        let bytes = dtype.bytes_of(n).ok_or_else(|| Error::run("a tensor too large for memory"))?;
        // Allocated as 64-bit words so that every element type can be viewed in place.
        let words = Words { words: vec![0u64; bytes.div_ceil(8)], bytes };
        Ok(Tensor { dtype, dims: dims.to_vec(), data: Data::Owned(Arc::new(words)) })
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }
    /// Dims.
    pub fn dims(&self) -> &[usize] {
        &self.dims
    }
    /// Rank.
    pub fn rank(&self) -> usize {
        self.dims.len()
    }
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.dims.iter().product()
    }
    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Dtype and shape.
    pub fn fact(&self) -> Fact {
        let mut fact = Fact::of(self.dtype, &self.dims);
        match &self.data {
            Data::Sequence(v) => {
                fact.container = super::Container::Sequence;
                fact.shape = v.first().map_or(Shape::UNKNOWN, |t| Shape::known(t.dims()));
            }
            Data::Absent => fact.container = super::Container::Optional,
            _ => {}
        }
        fact
    }
    /// Whether the payload lies in a mapped file.
    pub fn is_file_backed(&self) -> bool {
        matches!(self.data, Data::File(_))
    }

    /// Whether the values are yet to be made, when somebody looks at them: the zoo's seeded weights.
    pub fn is_lazy(&self) -> bool {
        matches!(&self.data, Data::Lazy(lazy) if lazy.made.get().is_none())
    }

    /// Whether its values are made when first looked at, made or not: they lie nowhere before, and where others lay perhaps.
    pub fn is_derived(&self) -> bool {
        matches!(&self.data, Data::Lazy(_))
    }

    /// What was said of values made when first looked at.
    pub fn identity(&self) -> Option<Identity> {
        match &self.data {
            Data::Lazy(lazy) => lazy.identity,
            _ => None,
        }
    }

    /// The payload's bytes.
    ///
    /// # Errors
    /// For strings and sequences, which have none.
    pub fn bytes(&self) -> Result<&[u8]> {
        match &self.data {
            Data::File(b) => Ok(b),
            Data::Owned(s) => Ok(s.bytes()),
            Data::Lazy(l) => l.made()?.bytes(),
            Data::Strings(_) => Err(Error::run("a string tensor where numbers are needed")),
            Data::Sequence(_) => Err(Error::run("a sequence where a tensor is needed")),
            Data::Absent => Err(Error::run("an empty optional where a tensor is needed")),
        }
    }

    /// The values as `T`: borrowed where the payload is aligned, copied where a file placed it oddly.
    ///
    /// # Errors
    /// If the element type is not `T` (booleans, 8-bit floats and packed types are viewed as `u8`).
    pub fn view<T: Element>(&self) -> Result<Cow<'_, [T]>> {
        let fits = self.dtype == T::DTYPE
            || (T::DTYPE == DType::U8 && self.dtype.bits() <= 8 && self.dtype.bits() > 0 && self.dtype != DType::I8);
        if !fits {
            return Err(Error::run(format!("a {} tensor where {} is needed", self.dtype, T::DTYPE)));
        }
        let bytes = self.bytes()?;
        Ok(match bytemuck::try_cast_slice(bytes) {
            Ok(values) => Cow::Borrowed(values),
            Err(_) => Cow::Owned(bytemuck::pod_collect_to_vec(bytes)),
        })
    }

    /// The values of a float32 tensor where they lie, at any alignment (`f32::from_ne_bytes` of each): for what reads them once.
    ///
    /// # Errors
    /// If the element type is another.
    pub fn f32_bytes(&self) -> Result<&[[u8; 4]]> {
        if self.dtype != DType::F32 {
            return Err(Error::run(format!("a {} tensor where float32 is needed", self.dtype)));
        }
        Ok(self.bytes()?.as_chunks().0)
    }

    /// The strings of a string tensor.
    pub fn strings(&self) -> Result<&[String]> {
        match &self.data {
            Data::Strings(s) => Ok(s),
            _ => Err(Error::run(format!("a {} tensor where strings are needed", self.dtype))),
        }
    }

    /// The elements of a sequence value.
    pub fn sequence(&self) -> Result<&[Tensor]> {
        match &self.data {
            Data::Sequence(s) => Ok(s),
            _ => Err(Error::run("a tensor where a sequence is needed")),
        }
    }

    /// Whether this is an empty optional.
    pub fn is_absent(&self) -> bool {
        matches!(self.data, Data::Absent)
    }

    /// The same payload under another shape of equal element count.
    pub fn reshaped(&self, dims: &[usize]) -> Result<Tensor> {
        if element_count(dims)? != self.len() {
            return Err(Error::run(format!(
                "a tensor of shape {} has {} elements and cannot take shape {}",
                Shape::known(&self.dims),
                self.len(),
                Shape::known(dims)
            )));
        }
        Ok(Tensor { dims: dims.to_vec(), ..self.clone() })
    }

    /// Integers of any integer (or boolean) type as `i64`; unpacks 2- and 4-bit types.
    pub fn to_i64s(&self) -> Result<Vec<i64>> {
        use DType::*;
        Ok(match self.dtype {
            I64 => self.view::<i64>()?.into_owned(),
            I32 => self.view::<i32>()?.iter().map(|&v| v.into()).collect(),
            I16 => self.view::<i16>()?.iter().map(|&v| v.into()).collect(),
            I8 => self.view::<i8>()?.iter().map(|&v| v.into()).collect(),
            U8 | Bool => self.view::<u8>()?.iter().map(|&v| v.into()).collect(),
            U16 => self.view::<u16>()?.iter().map(|&v| v.into()).collect(),
            U32 => self.view::<u32>()?.iter().map(|&v| v.into()).collect(),
            U64 => self.view::<u64>()?.iter().map(|&v| v as i64).collect(),
            U4 | I4 | U2 | I2 => {
                let bits = self.dtype.bits();
                let (per, mask) = (8 / bits, (1u8 << bits) - 1);
                let signed = matches!(self.dtype, I4 | I2);
                let bytes = self.bytes()?;
                (0..self.len())
                    .map(|i| {
                        let v = (bytes[i / per] >> (i % per * bits)) & mask;
                        let sign = i64::from(signed && v >> (bits - 1) == 1);
                        i64::from(v) - (sign << bits)
                    })
                    .collect()
            }
            other => return Err(Error::run(format!("a {other} tensor where integers are needed"))),
        })
    }

    /// Floats of any width, or integers, as `f64` (exact for everything but 64-bit integers beyond 2^53).
    pub fn to_f64s(&self) -> Result<Vec<f64>> {
        Ok(match self.dtype {
            DType::F64 => self.view::<f64>()?.into_owned(),
            DType::F32 => self.view::<f32>()?.iter().map(|&v| v.into()).collect(),
            d if d.is_narrow_float() => self.widened()?.view::<f32>()?.iter().map(|&v| v.into()).collect(),
            DType::U64 => self.view::<u64>()?.iter().map(|&v| v as f64).collect(),
            _ => self.to_i64s()?.into_iter().map(|v| v as f64).collect(),
        })
    }

    /// A narrow float tensor as `f32`; anything else unchanged.
    pub fn widened(&self) -> Result<Tensor> {
        if !self.dtype.is_narrow_float() {
            return Ok(self.clone());
        }
        Tensor::from_vec(super::narrow::to_f32s(self.dtype, self.bytes()?, self.len()), &self.dims)
    }

    /// An `f32` tensor rounded (to nearest even) to a narrower float type; `saturate` as in ONNX Cast for 8-bit floats.
    pub fn narrowed(&self, dtype: DType, saturate: bool) -> Result<Tensor> {
        if !dtype.is_narrow_float() {
            return Ok(self.clone());
        }
        let bytes = super::narrow::from_f32s(dtype, &self.view::<f32>()?, saturate);
        // Two-byte types are stored as such so that views stay in place.
        match dtype {
            DType::F16 | DType::BF16 => {
                Tensor::from_vec_as(dtype, bytemuck::pod_collect_to_vec::<u8, u16>(&bytes), &self.dims)
            }
            _ => Tensor::from_vec_as(dtype, bytes, &self.dims),
        }
    }
}

struct Words {
    words: Vec<u64>,
    bytes: usize,
}

impl Store for Words {
    fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.words)[..self.bytes]
    }
    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.words)[..self.bytes]
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor({} {})", self.dtype, Shape::known(&self.dims))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_looks_at_a_value_that_cannot_be_made_is_told() {
        let fails = Tensor::later(DType::F32, &[2], None, || Err(Error::run("no such values")));
        assert!(fails.is_lazy() && fails.clone().view::<f32>().unwrap_err().to_string().contains("no such values"));
        assert!(fails.bytes().is_err() && !fails.is_lazy(), "asked once");
        let other = |made: Tensor| Tensor::later(DType::F32, &[2], None, || Ok(made));
        assert!(other(Tensor::from_vec(vec![1f32; 3], &[3]).unwrap()).bytes().is_err());
        assert!(other(Tensor::from_vec(vec![1i32; 2], &[2]).unwrap()).bytes().is_err());
        assert_eq!(*other(Tensor::from_vec(vec![1f32, 2.], &[2]).unwrap()).view::<f32>().unwrap(), [1., 2.]);
    }

    #[test]
    fn misaligned_file_payloads_are_copied_and_aligned_ones_borrowed() {
        let mut raw = vec![0u8; 1];
        raw.extend_from_slice(&1.5f32.to_le_bytes());
        raw.extend_from_slice(&(-2f32).to_le_bytes());
        let bytes = Bytes::from(raw).slice(1..);
        let t = Tensor::from_file_bytes(DType::F32, bytes, &[2]).unwrap();
        assert_eq!(&*t.view::<f32>().unwrap(), &[1.5, -2.0]);
        let owned = Tensor::from_vec(vec![1f32, 2.], &[2]).unwrap();
        assert!(matches!(owned.view::<f32>().unwrap(), Cow::Borrowed(_)));
    }

    #[test]
    fn packed_integers_unpack_low_nibble_first_with_sign() {
        let t = Tensor::from_vec_as(DType::I4, vec![0x9fu8, 0x07], &[3]).unwrap();
        assert_eq!(t.to_i64s().unwrap(), [-1, -7, 7]);
        let t = Tensor::from_vec_as(DType::U2, vec![0b11_10_01_00u8], &[4]).unwrap();
        assert_eq!(t.to_i64s().unwrap(), [0, 1, 2, 3]);
    }

    #[test]
    fn sizes_that_do_not_fit_are_errors() {
        assert!(element_count(&[usize::MAX, 2]).is_err());
        assert_eq!(element_count(&[usize::MAX, 0]).unwrap(), 0);
        assert!(Tensor::from_vec(vec![0f32; 3], &[2]).is_err());
        assert!(Tensor::zeros(DType::F32, &[2]).unwrap().reshaped(&[3]).is_err());
    }
}
