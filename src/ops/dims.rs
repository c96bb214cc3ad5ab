//! Arithmetic on axes and shapes that many operators share: normalizing axes, broadcasting, unifying partial shapes.

use crate::error::{Error, Result};
use crate::tensor::{Dim, Fact, Shape};

/// A possibly negative axis of a value of the given rank, as an index.
///
/// # Errors
/// If it is out of range.
pub fn axis(axis: i64, rank: usize) -> Result<usize> {
    let from_front = if axis < 0 { axis.checked_add_unsigned(rank as u64) } else { Some(axis) };
    from_front
        .and_then(|a| usize::try_from(a).ok())
        .filter(|&a| a < rank)
        .ok_or_else(|| Error::input(format!("{axis} is out of range for rank {rank}")).at_attribute("axis"))
}

/// Several axes, each named once, in the order given.
///
/// # Errors
/// If one is out of range or repeated.
pub fn axes(list: &[i64], rank: usize) -> Result<Vec<usize>> {
    let mut seen = vec![false; rank];
    list.iter()
        .map(|&a| {
            let i = axis(a, rank).map_err(|e| e.at_attribute("axes"))?;
            if std::mem::replace(&mut seen[i], true) {
                return Err(Error::input(format!("names axis {i} twice")).at_attribute("axes"));
            }
            Ok(i)
        })
        .collect()
}

/// Row-major strides in elements.
pub fn strides(dims: &[usize]) -> Vec<usize> {
    let mut out = vec![1usize; dims.len()];
    for a in (1..dims.len()).rev() {
        out[a - 1] = out[a].saturating_mul(dims[a]);
    }
    out
}

/// Two views of the same dimension.
///
/// # Errors
/// If both are known and differ.
pub fn unify(a: Dim, b: Dim) -> Result<Dim> {
    match (a, b) {
        (Some(a), Some(b)) if a != b => Err(Error::input(format!("dimensions {a} and {b} must be equal"))),
        _ => Ok(a.or(b)),
    }
}

/// What holds of a value that may be either of two (branches of an If, rounds of a Loop): dims that differ become unknown.
pub fn either(a: &Shape, b: &Shape) -> Shape {
    match (a.dims(), b.dims()) {
        (Some(a), Some(b)) if a.len() == b.len() => {
            Shape::partial(a.iter().zip(b).map(|(a, b)| if a == b { *a } else { None }).collect())
        }
        _ => Shape::UNKNOWN,
    }
}

/// [`either`] for facts.
pub fn either_fact(a: &Fact, b: &Fact) -> Fact {
    let dtype = if a.dtype == b.dtype { a.dtype } else { None };
    Fact { dtype, shape: either(&a.shape, &b.shape), container: a.container }
}

/// The product of dims, if all are known and it fits; a known zero is enough.
pub fn product(dims: &[Dim]) -> Dim {
    Shape::partial(dims.to_vec()).elements()
}

fn broadcast_dim(a: Dim, b: Dim) -> Option<Dim> {
    match (a, b) {
        (Some(1), d) | (d, Some(1)) => Some(d),
        (Some(a), Some(b)) => (a == b).then_some(Some(a)),
        (Some(n), None) | (None, Some(n)) => Some(Some(n)),
        (None, None) => Some(None),
    }
}

/// The shape that all of `shapes` broadcast to, by the rules of numpy.
///
/// # Errors
/// If two sizes differ and neither is 1.
pub fn broadcast(shapes: &[&Shape]) -> Result<Shape> {
    let mut all = Vec::with_capacity(shapes.len());
    for s in shapes {
        match s.dims() {
            Some(d) => all.push(d),
            None => return Ok(Shape::UNKNOWN),
        }
    }
    let rank = all.iter().map(|d| d.len()).max().unwrap_or(0);
    let mut out = vec![Some(1); rank];
    for dims in &all {
        for (o, &d) in out[rank - dims.len()..].iter_mut().zip(dims.iter()) {
            *o = broadcast_dim(*o, d).ok_or_else(|| {
                let list: Vec<String> = shapes.iter().map(ToString::to_string).collect();
                Error::input(format!("shapes {} do not broadcast", list.join(" and ")))
            })?;
        }
    }
    Ok(Shape::partial(out))
}

/// [`broadcast`] for fully known dims.
///
/// # Errors
/// If two sizes differ and neither is 1.
pub fn broadcast_dims(dims: &[&[usize]]) -> Result<Vec<usize>> {
    let shapes: Vec<Shape> = dims.iter().map(|&d| Shape::known(d)).collect();
    let shape = broadcast(&shapes.iter().collect::<Vec<_>>())?;
    shape.concrete().ok_or_else(|| Error::input("shapes that do not broadcast"))
}

/// Calls `f` with the offset of each operand's element for every element of `out`, in row-major order. Operands must broadcast
/// to `out`.
pub fn walk<const N: usize>(out: &[usize], operands: [&[usize]; N], mut f: impl FnMut([usize; N])) {
    if out.contains(&0) {
        return;
    }
    // Axes as (size, stride per operand), neighbours merged wherever every operand is contiguous across them.
    let mut axes: Vec<(usize, [usize; N])> = Vec::with_capacity(out.len());
    let own: [Vec<usize>; N] = operands.map(strides);
    for (a, &size) in out.iter().enumerate() {
        if size == 1 {
            continue;
        }
        let mut step = [0; N];
        for k in 0..N {
            if let Some(i) = (a + operands[k].len()).checked_sub(out.len())
                && operands[k][i] != 1
            {
                step[k] = own[k][i];
            }
        }
        match axes.last_mut() {
            Some((n, outer)) if (0..N).all(|k| outer[k] == step[k] * size) => {
                *n *= size;
                *outer = step;
            }
            _ => axes.push((size, step)),
        }
    }
    let (inner, step) = axes.pop().unwrap_or((1, [0; N]));
    let mut index = vec![0usize; axes.len()];
    let mut base = [0usize; N];
    loop {
        let mut at = base;
        for _ in 0..inner {
            f(at);
            for k in 0..N {
                at[k] += step[k];
            }
        }
        let mut a = axes.len();
        loop {
            if a == 0 {
                return;
            }
            a -= 1;
            let (size, outer) = &axes[a];
            index[a] += 1;
            for k in 0..N {
                base[k] += outer[k];
            }
            if index[a] < *size {
                break;
            }
            index[a] = 0;
            for k in 0..N {
                base[k] -= outer[k] * size;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_dims_broadcast_without_guessing() {
        let s = |d: &[Option<usize>]| Shape::partial(d.to_vec());
        assert_eq!(broadcast(&[&s(&[None, Some(3)]), &s(&[Some(1)])]).unwrap(), s(&[None, Some(3)]));
        assert_eq!(broadcast(&[&s(&[None]), &s(&[Some(4)])]).unwrap(), s(&[Some(4)]));
        assert_eq!(broadcast(&[&s(&[Some(0)]), &s(&[Some(1)])]).unwrap(), s(&[Some(0)]));
        assert!(broadcast(&[&s(&[Some(2)]), &s(&[Some(3)])]).is_err());
    }

    #[test]
    fn a_walk_visits_offsets_in_row_major_order() {
        let mut seen = Vec::new();
        walk(&[2, 3], [&[2, 3], &[3], &[2, 1]], |at| seen.push(at));
        assert_eq!(seen, [[0, 0, 0], [1, 1, 0], [2, 2, 0], [3, 0, 1], [4, 1, 1], [5, 2, 1]]);
        let mut n = 0;
        walk(&[], [&[]], |at| n += 1 + at[0]);
        assert_eq!(n, 1);
        walk(&[0, 5], [&[0, 5]], |_| n += 1);
        assert_eq!(n, 1);
    }

    #[test]
    fn axes_out_of_range_or_twice_are_errors() {
        assert_eq!(axes(&[-1, 0], 3).unwrap(), [2, 0]);
        assert!(axes(&[1, -2], 3).is_err() && axis(3, 3).is_err() && axis(i64::MIN, 3).is_err());
    }
}
