//! Moving elements of any type byte-exactly, and integers of any width as one type.
//!
//! Operators that only move data work on cells of 1, 2, 4, 8 or 16 bytes (or strings) instead of once per element type; packed
//! 4- and 2-bit types are unpacked to a byte per element, moved and packed again.

use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor, element_count};
use std::borrow::Cow;
use std::cmp::Ordering;

/// The elements of a tensor, whatever their type.
#[derive(Debug, Clone)]
pub struct Elements<'a> {
    dtype: DType,
    /// Bytes per cell; 0 for strings.
    width: usize,
    bytes: Cow<'a, [u8]>,
    strings: Cow<'a, [String]>,
}

impl<'a> Elements<'a> {
    /// The elements of a tensor.
    ///
    /// # Errors
    /// If it is a sequence or an empty optional.
    pub fn of(t: &'a Tensor) -> Result<Elements<'a>> {
        let dtype = t.dtype();
        let mut it =
            Elements { dtype, width: dtype.bits().div_ceil(8), bytes: Cow::default(), strings: Cow::default() };
        match dtype.bits() {
            0 => it.strings = Cow::Borrowed(t.strings()?),
            bits @ 1..8 => {
                let (per, mask, packed) = (8 / bits, (1u8 << bits) - 1, t.bytes()?);
                it.bytes = Cow::Owned((0..t.len()).map(|i| packed[i / per] >> (i % per * bits) & mask).collect());
            }
            _ => it.bytes = Cow::Borrowed(t.bytes()?),
        }
        Ok(it)
    }
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.bytes.len().checked_div(self.width).unwrap_or(self.strings.len())
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Whether element `i` is the same, bit by bit, as element `j` of `other` (of the same type).
    pub fn same(&self, i: usize, other: &Elements, j: usize) -> bool {
        let w = self.width;
        if w == 0 {
            self.strings[i] == other.strings[j]
        } else {
            self.bytes[i * w..(i + 1) * w] == other.bytes[j * w..(j + 1) * w]
        }
    }
    /// Overwrites `n` elements from `at` with those of `from` (of the same type) from `start`.
    ///
    /// # Errors
    /// If the types differ.
    pub fn set(&mut self, at: usize, from: &Elements, start: usize, n: usize) -> Result<()> {
        if self.dtype != from.dtype {
            return Err(Error::input(format!("{} elements cannot be put among {}", from.dtype, self.dtype)));
        }
        let w = self.width;
        if w == 0 {
            self.strings.to_mut()[at..at + n].clone_from_slice(&from.strings[start..start + n]);
        } else {
            self.bytes.to_mut()[at * w..(at + n) * w].copy_from_slice(&from.bytes[start * w..(start + n) * w]);
        }
        Ok(())
    }
    /// A tensor of these elements.
    ///
    /// # Errors
    /// If their number is not the product of the dims.
    pub fn into_tensor(self, dims: &[usize]) -> Result<Tensor> {
        finish(self.dtype, self.bytes.into_owned(), self.strings.into_owned(), dims)
    }
}

fn finish(dtype: DType, bytes: Vec<u8>, strings: Vec<String>, dims: &[usize]) -> Result<Tensor> {
    match dtype.bits() {
        0 => Tensor::from_strings(strings, dims),
        bits @ 1..8 => {
            if bytes.len() != element_count(dims)? {
                return Err(Error::run("the number of elements is not the product of the dims"));
            }
            Tensor::from_vec_as(dtype, pack(&bytes, bits)?, dims)
        }
        _ => Tensor::from_vec_as(dtype, bytes, dims),
    }
}

fn pack(codes: &[u8], bits: usize) -> Result<Vec<u8>> {
    let (per, mask) = (8 / bits, (1u8 << bits) - 1);
    let mut packed = reserved(codes.len().div_ceil(per))?;
    packed.extend(
        codes.chunks(per).map(|c| c.iter().enumerate().fold(0, |byte, (i, v)| byte | (v & mask) << (i * bits))),
    );
    Ok(packed)
}

/// Collects elements in row-major order into a new tensor.
#[derive(Debug)]
pub struct Writer {
    dtype: DType,
    width: usize,
    bytes: Vec<u8>,
    strings: Vec<String>,
    dims: Vec<usize>,
}

impl Writer {
    /// A writer of a tensor of the given type and shape.
    ///
    /// # Errors
    /// If it does not fit in memory.
    pub fn new(dtype: DType, dims: &[usize]) -> Result<Writer> {
        let n = element_count(dims)?;
        let too_large = |_| Error::run(format!("no memory for a tensor of {n} elements"));
        let (mut bytes, mut strings) = (Vec::new(), Vec::new());
        let width = dtype.bits().div_ceil(8);
        if width == 0 {
            strings.try_reserve_exact(n).map_err(too_large)?;
        } else {
            bytes.try_reserve_exact(n.saturating_mul(width)).map_err(too_large)?;
        }
        Ok(Writer { dtype, width, bytes, strings, dims: dims.to_vec() })
    }
    /// Appends `n` consecutive elements of `src` from `from`.
    pub fn run(&mut self, src: &Elements, from: usize, n: usize) {
        let w = self.width;
        if w == 0 {
            self.strings.extend_from_slice(&src.strings[from..from + n]);
        } else {
            self.bytes.extend_from_slice(&src.bytes[from * w..(from + n) * w]);
        }
    }
    /// Appends `n` elements of `src`, every `step`-th from `from`.
    pub fn strided(&mut self, src: &Elements, from: usize, step: isize, n: usize) {
        match self.width {
            _ if step == 1 => self.run(src, from, n),
            1 => strided::<1>(&mut self.bytes, &src.bytes, from, step, n),
            2 => strided::<2>(&mut self.bytes, &src.bytes, from, step, n),
            4 => strided::<4>(&mut self.bytes, &src.bytes, from, step, n),
            8 => strided::<8>(&mut self.bytes, &src.bytes, from, step, n),
            _ => {
                let mut at = from;
                for _ in 0..n {
                    self.run(src, at, 1);
                    at = at.wrapping_add_signed(step);
                }
            }
        }
    }
    /// Appends the first element of `value` `n` times.
    pub fn fill(&mut self, value: &Elements, n: usize) {
        self.strided(value, 0, 0, n);
    }
    /// The tensor.
    ///
    /// # Errors
    /// If the number of elements appended is not what the shape needs.
    pub fn finish(self) -> Result<Tensor> {
        finish(self.dtype, self.bytes, self.strings, &self.dims)
    }
}

fn strided<const W: usize>(dst: &mut Vec<u8>, src: &[u8], from: usize, step: isize, n: usize) {
    let old = dst.len();
    dst.resize(old + n * W, 0);
    let cells = src.as_chunks::<W>().0;
    let mut at = from;
    for d in dst[old..].as_chunks_mut::<W>().0 {
        *d = cells[at];
        at = at.wrapping_add_signed(step);
    }
}

/// The tensor of shape `dims` whose element at index `i` is element `base + Σ i·step` of `src`.
///
/// # Errors
/// If it does not fit in memory.
pub fn strided_copy(src: &Tensor, dims: &[usize], steps: &[usize]) -> Result<Tensor> {
    let mut out = Writer::new(src.dtype(), dims)?;
    if dims.contains(&0) {
        return out.finish();
    }
    let cells = Elements::of(src)?;
    let mut axes: Vec<(usize, usize)> = Vec::with_capacity(dims.len());
    for (&n, &step) in dims.iter().zip(steps).filter(|d| *d.0 != 1) {
        match axes.last_mut() {
            Some(outer) if outer.1 == step * n => *outer = (outer.0 * n, step),
            _ => axes.push((n, step)),
        }
    }
    let (inner, step) = axes.pop().unwrap_or((1, 1));
    let mut index = vec![0; axes.len()];
    let mut base = 0;
    loop {
        out.strided(&cells, base, step as isize, inner);
        let mut a = axes.len();
        loop {
            if a == 0 {
                return out.finish();
            }
            a -= 1;
            index[a] += 1;
            base += axes[a].1;
            if index[a] < axes[a].0 {
                break;
            }
            base -= axes[a].0 * axes[a].1;
            index[a] = 0;
        }
    }
}

/// Where one axis of an output reads: for each output position an input position, or `None` for the fill value.
pub type AxisMap = Vec<Option<usize>>;

/// The map of an axis of `n` output positions.
///
/// # Errors
/// If it does not fit in memory.
pub fn axis_map(n: usize, read: impl FnMut(usize) -> Option<usize>) -> Result<AxisMap> {
    let mut map = reserved(n)?;
    map.extend((0..n).map(read));
    Ok(map)
}

/// The maps that copy every axis whole.
///
/// # Errors
/// If they do not fit in memory.
pub fn whole_maps(dims: &[usize]) -> Result<Vec<AxisMap>> {
    dims.iter().map(|&d| axis_map(d, Some)).collect()
}

/// An empty vector with room for `n` values.
///
/// # Errors
/// If they do not fit in memory.
pub fn reserved<T>(n: usize) -> Result<Vec<T>> {
    let mut v = Vec::new();
    v.try_reserve_exact(n).map_err(|_| Error::run(format!("no memory for {n} elements")))?;
    Ok(v)
}

/// The tensor whose element `[i, j, …]` is element `[maps[0][i], maps[1][j], …]` of `src`, or `fill` where a map says `None`.
/// The output's dims are the maps' lengths.
///
/// # Errors
/// If it does not fit in memory.
pub fn mapped_copy(src: &Tensor, maps: &[AxisMap], fill: &Tensor) -> Result<Tensor> {
    let dims: Vec<usize> = maps.iter().map(Vec::len).collect();
    let mut out = Writer::new(src.dtype(), &dims)?;
    if src.dtype() != fill.dtype() {
        return Err(Error::input(format!("{} elements cannot fill a {} tensor", fill.dtype(), src.dtype())));
    }
    if dims.contains(&0) {
        return out.finish();
    }
    // Trailing axes that are copied whole are one block.
    let whole = |a: usize| maps[a].len() == src.dims()[a] && maps[a].iter().enumerate().all(|(i, m)| *m == Some(i));
    let mut moved = maps.len();
    while moved > 0 && whole(moved - 1) {
        moved -= 1;
    }
    let block: usize = dims[moved..].iter().product();
    let (src_cells, fill_cells) = (Elements::of(src)?, Elements::of(fill)?);
    let Some(last) = moved.checked_sub(1) else {
        out.run(&src_cells, 0, block);
        return out.finish();
    };
    let segments = segments(&maps[last]);
    let mut row = |base: Option<usize>| match base {
        None => out.fill(&fill_cells, dims[last] * block),
        Some(base) => {
            for s in &segments {
                match s.from {
                    None => out.fill(&fill_cells, s.n * block),
                    Some(from) if s.step == 1 => out.run(&src_cells, (base + from) * block, s.n * block),
                    Some(from) if block == 1 => out.strided(&src_cells, base + from, s.step, s.n),
                    Some(from) => {
                        let mut at = from;
                        for _ in 0..s.n {
                            out.run(&src_cells, (base + at) * block, block);
                            at = at.wrapping_add_signed(s.step);
                        }
                    }
                }
            }
        }
    };
    // Rows in the order of the outer axes; `base` counts rows of the input's last moved axis.
    let mut index = vec![0; last];
    loop {
        let base = (0..last).try_fold(0, |at, a| Some(at * src.dims()[a] + maps[a][index[a]]?));
        row(base.map(|b| b * src.dims()[last]));
        if !super::window::advance(&mut index, &dims[..last]) {
            break;
        }
    }
    out.finish()
}

struct Segment {
    from: Option<usize>,
    step: isize,
    n: usize,
}

fn segments(map: &AxisMap) -> Vec<Segment> {
    let mut out: Vec<Segment> = Vec::new();
    for &m in map {
        if let Some(s) = out.last_mut() {
            match (s.from, m) {
                (None, None) => {
                    s.n += 1;
                    continue;
                }
                (Some(from), Some(at)) => {
                    let step = at as isize - from as isize;
                    if s.n == 1 || step == s.step * s.n as isize {
                        s.step = if s.n == 1 { step } else { s.step };
                        s.n += 1;
                        continue;
                    }
                }
                _ => {}
            }
        }
        out.push(Segment { from: m, step: 1, n: 1 });
    }
    out
}

/// Integers or booleans of any type; exact for all of them.
///
/// # Errors
/// If the tensor holds something else.
pub fn ints(t: &Tensor) -> Result<Vec<i128>> {
    match t.dtype() {
        DType::U64 => Ok(t.view::<u64>()?.iter().map(|&v| v.into()).collect()),
        _ => Ok(t.to_i64s()?.into_iter().map(i128::from).collect()),
    }
}

/// A tensor of an integer or boolean type; values that do not fit wrap (booleans: nonzero is true).
///
/// # Errors
/// If `dtype` is neither, or the number of values is not the product of the dims.
pub fn from_ints(dtype: DType, values: &[i128], dims: &[usize]) -> Result<Tensor> {
    use DType::*;
    macro_rules! store {
        ($t:ty) => {
            Tensor::from_vec(values.iter().map(|&v| v as $t).collect::<Vec<$t>>(), dims)
        };
    }
    match dtype {
        I64 => store!(i64),
        I32 => store!(i32),
        I16 => store!(i16),
        I8 => store!(i8),
        U64 => store!(u64),
        U32 => store!(u32),
        U16 => store!(u16),
        U8 => store!(u8),
        Bool => Tensor::from_bools(values.iter().map(|&v| v != 0), dims),
        U4 | I4 | U2 | I2 => {
            let codes: Vec<u8> = values.iter().map(|&v| v as u8).collect();
            finish(dtype, codes, Vec::new(), dims)
        }
        other => Err(Error::run(format!("integers cannot be stored as {other}"))),
    }
}

/// Smallest and largest value of an integer type.
pub fn int_range(dtype: DType) -> Option<(i128, i128)> {
    let bits = dtype.bits();
    if !dtype.is_int() {
        return None;
    }
    use DType::*;
    Some(match dtype {
        I64 | I32 | I16 | I8 | I4 | I2 => (-(1 << (bits - 1)), (1 << (bits - 1)) - 1),
        _ => (0, (1 << bits) - 1),
    })
}

/// The values of a tensor as something that can be ordered.
#[derive(Debug)]
pub enum Keys<'a> {
    /// Floats.
    Floats(Vec<f64>),
    /// Integers and booleans.
    Ints(Vec<i128>),
    /// Strings.
    Strings(&'a [String]),
}

impl<'a> Keys<'a> {
    /// The keys of a tensor.
    ///
    /// # Errors
    /// If its elements have no order (complex numbers).
    pub fn of(t: &'a Tensor) -> Result<Keys<'a>> {
        Ok(match t.dtype() {
            DType::Str => Keys::Strings(t.strings()?),
            d if d.is_float() => Keys::Floats(t.to_f64s()?),
            _ => Keys::Ints(ints(t)?),
        })
    }
    /// Order of elements `i` and `j`; NaN is larger than every number.
    pub fn cmp(&self, i: usize, j: usize) -> Ordering {
        match self {
            Keys::Floats(v) => v[i].partial_cmp(&v[j]).unwrap_or_else(|| v[i].is_nan().cmp(&v[j].is_nan())),
            Keys::Ints(v) => v[i].cmp(&v[j]),
            Keys::Strings(v) => v[i].cmp(&v[j]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_and_odd_elements_move_exactly() {
        let t = Tensor::from_vec_as(DType::I4, vec![0x9fu8, 0x07], &[3]).unwrap();
        let maps = vec![vec![Some(2), Some(1), Some(0), None]];
        let fill = Tensor::zeros(DType::I4, &[]).unwrap();
        let r = mapped_copy(&t, &maps, &fill).unwrap();
        assert_eq!(r.to_i64s().unwrap(), [7, -7, -1, 0]);
        let c = Tensor::from_vec_as(
            DType::C128,
            (0..8u64).collect::<Vec<_>>().iter().map(|&v| v as f64).collect(),
            &[2, 2],
        );
        let c = c.unwrap();
        let r = strided_copy(&c, &[2, 2], &[1, 2]).unwrap();
        assert_eq!(&bytemuck::pod_collect_to_vec::<u8, f64>(r.bytes().unwrap()), &[0., 1., 4., 5., 2., 3., 6., 7.]);
    }

    #[test]
    fn maps_with_runs_steps_and_fill() {
        let t = Tensor::from_vec((0..12).collect::<Vec<i32>>(), &[3, 4]).unwrap();
        let fill = Tensor::scalar(-1i32);
        let maps = vec![vec![Some(2), None, Some(0)], vec![Some(3), Some(1), None, Some(0), Some(0)]];
        let r = mapped_copy(&t, &maps, &fill).unwrap();
        assert_eq!(&*r.view::<i32>().unwrap(), &[11, 9, -1, 8, 8, -1, -1, -1, -1, -1, 3, 1, -1, 0, 0]);
        let whole = vec![vec![Some(1)], (0..4).map(Some).collect()];
        assert_eq!(&*mapped_copy(&t, &whole, &fill).unwrap().view::<i32>().unwrap(), &[4, 5, 6, 7]);
    }

    #[test]
    fn integers_wrap_to_their_width() {
        let t = from_ints(DType::U8, &[256 + 3, -1], &[2]).unwrap();
        assert_eq!(ints(&t).unwrap(), [3, 255]);
        assert_eq!(ints(&from_ints(DType::I4, &[9, -8, 7], &[3]).unwrap()).unwrap(), [-7, -8, 7]);
        assert_eq!(int_range(DType::U64), Some((0, u64::MAX.into())));
    }
}
