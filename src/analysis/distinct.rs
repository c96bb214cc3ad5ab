//! Learned tensors that a file holds more than once: tied weights written twice, once perhaps transposed.
//!
//! Copies are found by content, never by name: the same element type and sizes (or the two sizes of a matrix exchanged) and the same
//! bytes at the same places. A tensor whose elements are all equal is no copy of another: networks before training are full of them.

use super::ParamCount;
use crate::error::Result;
use crate::tensor::Tensor;
use std::collections::HashMap;

/// A learned tensor that repeats an earlier one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// Its name.
    pub name: String,
    /// The tensor it repeats.
    pub of: String,
    /// Elements.
    pub elements: u64,
    /// Whether rows and columns are exchanged.
    pub is_transposed: bool,
}

/// Learned elements without copies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Distinct {
    /// Elements.
    pub params: u64,
    /// The copies left out.
    pub copies: Vec<Copied>,
}

/// Rows and columns of what is a matrix once dims of 1 are left out.
fn matrix(t: &Tensor) -> Option<(usize, usize)> {
    let dims: Vec<usize> = t.dims().iter().copied().filter(|&d| d != 1).collect();
    if let [rows, columns] = dims[..] { Some((rows, columns)) } else { None }
}

/// Finds the copies among the learned tensors. Weights are read, but only of tensors that could be copies.
///
/// # Errors
/// If a weight cannot be read.
pub fn distinct(params: &ParamCount) -> Result<Distinct> {
    let mut found = Distinct { params: params.total, copies: Vec::new() };
    let mut groups: HashMap<(crate::tensor::DType, usize), Vec<usize>> = HashMap::new();
    for (i, (_, t)) in params.tensors.iter().enumerate() {
        // Weights made up from a seed differ by their names.
        if t.len() > 1 && !t.is_lazy() {
            groups.entry((t.dtype(), t.len())).or_default().push(i);
        }
    }
    let mut groups: Vec<Vec<usize>> = groups.into_values().filter(|g| g.len() > 1).collect();
    groups.sort();
    for group in groups {
        let mut originals: Vec<usize> = Vec::new();
        for &i in &group {
            let (name, t) = &params.tensors[i];
            let twin = originals.iter().find_map(|&o| {
                let other = &params.tensors[o].1;
                same(t, other).map(|s| s.map(|is_transposed| (o, is_transposed))).transpose()
            });
            match twin.transpose()? {
                Some((o, is_transposed)) if !is_fill(t)? => {
                    let elements = t.len() as u64;
                    found.params -= elements;
                    let of = params.tensors[o].0.clone();
                    found.copies.push(Copied { name: name.clone(), of, elements, is_transposed });
                }
                Some(_) => {}
                None => originals.push(i),
            }
        }
    }
    Ok(found)
}

fn is_fill(t: &Tensor) -> Result<bool> {
    let bytes = t.bytes()?;
    let width = (bytes.len() / t.len().max(1)).max(1);
    Ok(bytes.chunks(width).all(|c| c == &bytes[..c.len()]))
}

/// Whether two tensors of one type and length hold the same numbers: `Some(false)` in the same order, `Some(true)` transposed.
fn same(a: &Tensor, b: &Tensor) -> Result<Option<bool>> {
    let (x, y) = (a.bytes()?, b.bytes()?);
    if x.len() != y.len() {
        return Ok(None);
    }
    if (a.dims() == b.dims() || matrix(a) == matrix(b)) && x == y {
        return Ok(Some(false));
    }
    let (Some((rows, columns)), Some(other)) = (matrix(a), matrix(b)) else { return Ok(None) };
    let width = x.len() / a.len();
    if other != (columns, rows) || width * a.len() != x.len() {
        return Ok(None);
    }
    let at = |bytes: &[u8], i: usize| bytes[i * width..(i + 1) * width].to_vec();
    // Corners keep their places, which settles nearly every pair without reading more.
    let last = a.len() - 1;
    if at(x, 0) != at(y, 0) || at(x, last) != at(y, last) {
        return Ok(None);
    }
    // In square tiles, so that neither side is read across the grain.
    const TILE: usize = 64;
    for r0 in (0..rows).step_by(TILE) {
        for c0 in (0..columns).step_by(TILE) {
            for r in r0..(r0 + TILE).min(rows) {
                for c in c0..(c0 + TILE).min(columns) {
                    let (i, j) = ((r * columns + c) * width, (c * rows + r) * width);
                    if x[i..i + width] != y[j..j + width] {
                        return Ok(None);
                    }
                }
            }
        }
    }
    Ok(Some(true))
}

#[cfg(test)]
#[allow(clippy::field_reassign_with_default)]
mod tests {
    use super::*;
    use crate::ops::sample::floats;

    #[test]
    fn copies_are_found_straight_and_transposed_and_fills_are_none() {
        let a = floats(&[3, 5], 1);
        let v = a.view::<f32>().unwrap();
        let turned: Vec<f32> = (0..5).flat_map(|c| (0..3).map(move |r| (r, c))).map(|(r, c)| v[r * 5 + c]).collect();
        let t = Tensor::from_vec(turned, &[5, 3]).unwrap();
        let zeros = Tensor::from_vec(vec![0f32; 15], &[3, 5]).unwrap();
        let named = |n: &str, t: &Tensor| (n.to_string(), t.clone());
        let tensors = vec![
            named("a", &a),
            named("b", &floats(&[3, 5], 2)),
            named("at", &t),
            named("a again", &a.reshaped(&[1, 3, 5]).unwrap()),
            named("z", &zeros),
            named("z again", &zeros),
        ];
        let mut params = ParamCount::default();
        params.total = 90;
        params.tensors = tensors;
        let found = distinct(&params).unwrap();
        assert_eq!(found.params, 60);
        let names: Vec<(&str, bool)> = found.copies.iter().map(|c| (c.name.as_str(), c.is_transposed)).collect();
        assert_eq!(names, [("at", true), ("a again", false)]);
        assert!(found.copies.iter().all(|c| c.of == "a"));
    }
}
