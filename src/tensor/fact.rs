//! What is known of a value before it exists: element type and shape.

use super::DType;
use std::fmt;

/// One dimension: its size, or `None` when only a run can tell (a count of detections, say). Never guessed.
pub type Dim = Option<usize>;

/// A shape: `None` when not even the rank is known.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Shape(Option<Vec<Dim>>);

impl Shape {
    /// A shape whose rank is not known.
    pub const UNKNOWN: Shape = Shape(None);
    /// A fully known shape.
    pub fn known(dims: &[usize]) -> Self {
        Shape(Some(dims.iter().map(|&d| Some(d)).collect()))
    }
    /// A shape of known rank with possibly unknown dims.
    pub fn partial(dims: Vec<Dim>) -> Self {
        Shape(Some(dims))
    }
    /// `rank` unknown dims.
    pub fn of_rank(rank: usize) -> Self {
        Shape(Some(vec![None; rank]))
    }
    /// The dims, if the rank is known.
    pub fn dims(&self) -> Option<&[Dim]> {
        self.0.as_deref()
    }
    /// The rank, if known.
    pub fn rank(&self) -> Option<usize> {
        self.0.as_ref().map(Vec::len)
    }
    /// All sizes, if every one is known.
    pub fn concrete(&self) -> Option<Vec<usize>> {
        self.0.as_ref()?.iter().copied().collect()
    }
    /// Dim `i`; `None` when unknown or out of range.
    pub fn dim(&self, i: usize) -> Dim {
        self.0.as_ref()?.get(i).copied().flatten()
    }
    /// Number of elements, if known and representable.
    pub fn elements(&self) -> Option<usize> {
        let dims = self.0.as_ref()?;
        if dims.contains(&Some(0)) {
            return Some(0);
        }
        dims.iter().try_fold(1usize, |n, d| n.checked_mul((*d)?))
    }
}

impl From<&[usize]> for Shape {
    fn from(dims: &[usize]) -> Self {
        Shape::known(dims)
    }
}

impl From<Vec<usize>> for Shape {
    fn from(dims: Vec<usize>) -> Self {
        Shape::known(&dims)
    }
}

impl fmt::Display for Shape {
    /// `1x3x224x224`, `?` for an unknown dim, `scalar` for rank 0, `?` alone for unknown rank.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            None => f.write_str("?"),
            Some(dims) if dims.is_empty() => f.write_str("scalar"),
            Some(dims) => {
                for (i, d) in dims.iter().enumerate() {
                    if i > 0 {
                        f.write_str("x")?;
                    }
                    match d {
                        Some(n) => write!(f, "{n}")?,
                        None => f.write_str("?")?,
                    }
                }
                Ok(())
            }
        }
    }
}

/// Whether a value is a tensor or one of ONNX's containers of tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Container {
    /// A plain tensor.
    #[default]
    Tensor,
    /// A sequence of tensors; the fact's dtype and shape describe an element.
    Sequence,
    /// An optional tensor (or sequence); the fact describes its content.
    Optional,
}

/// What is known of a value: element type, shape, container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    /// Element type; `None` when an unknown operator made the value.
    pub dtype: Option<DType>,
    /// Shape.
    pub shape: Shape,
    /// Tensor, sequence or optional.
    pub container: Container,
}

impl Fact {
    /// A tensor fact.
    pub fn new(dtype: DType, shape: impl Into<Shape>) -> Self {
        Fact { dtype: Some(dtype), shape: shape.into(), container: Container::Tensor }
    }
    /// A fully known tensor fact.
    pub fn of(dtype: DType, dims: &[usize]) -> Self {
        Self::new(dtype, Shape::known(dims))
    }
    /// Nothing is known.
    pub fn unknown() -> Self {
        Fact { dtype: None, shape: Shape::UNKNOWN, container: Container::Tensor }
    }
    /// The same dtype with another shape.
    pub fn with_shape(&self, shape: impl Into<Shape>) -> Self {
        Fact { dtype: self.dtype, shape: shape.into(), container: self.container }
    }
    /// The same shape with another dtype.
    pub fn with_dtype(&self, dtype: DType) -> Self {
        Fact { dtype: Some(dtype), shape: self.shape.clone(), container: self.container }
    }
    /// Number of elements, if known.
    pub fn elements(&self) -> Option<usize> {
        self.shape.elements()
    }
    /// Size in bytes at the dtype's width, if known.
    pub fn bytes(&self) -> Option<u64> {
        if self.container != Container::Tensor {
            return None;
        }
        self.dtype?.bytes_of(self.elements()?).map(|b| b as u64)
    }
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.dtype {
            Some(d) => write!(f, "{d} {}", self.shape),
            None => write!(f, "? {}", self.shape),
        }
    }
}
