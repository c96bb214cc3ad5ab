//! Permutation of axes.
//!
//! Ladder: one element at a time → neighbouring axes that stay together are merged, axes of length 1 dropped → rows
//! that stay contiguous are copied whole, 2, 3, 4 or 8 neighbours as one element; otherwise the two innermost axes that swap are
//! turned in squares of lanes, so that both sides use whole cache lines → rows of the result dealt out to the threads.

use crate::engine::pool::Pool;
use crate::simd::turn::Turn;
use crate::simd::{Isa, dispatch};
use smallvec::SmallVec;

/// Values one task handles, about.
const TASK: usize = 16 << 10;
/// Rows a task takes of axes that swap: whole squares of lanes, whole cache lines on either side.
const TILE: usize = 16;

/// Result axes as (length, source stride).
type Axes = SmallVec<[(usize, usize); 8]>;

/// `dst[i_perm[0]][i_perm[1]]… = src[i_0][i_1]…`: axis `d` of the result is axis `perm[d]` of the source.
///
/// Panics if `perm` is no permutation of the axes of `dims`, or on lengths that do not fit.
pub fn permute(pool: &Pool, isa: Isa, dims: &[usize], perm: &[usize], src: &[f32], dst: &mut [f32]) {
    let mut seen: SmallVec<[bool; 8]> = SmallVec::from_elem(false, dims.len());
    assert_eq!(dims.len(), perm.len(), "permutation {perm:?} of {dims:?}");
    for &p in perm {
        assert!(p < dims.len() && !std::mem::replace(&mut seen[p], true), "permutation {perm:?} of {dims:?}");
    }
    let size = dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    assert!(size == Some(src.len()) && src.len() == dst.len(), "permutation of {dims:?}");
    if dst.is_empty() {
        return;
    }
    // Merged where the source runs on.
    let mut axes = Axes::new();
    for &p in perm.iter().filter(|&&p| dims[p] != 1) {
        let inner: usize = dims[p + 1..].iter().product();
        match axes.last_mut() {
            Some((len, stride)) if *stride == dims[p] * inner => (*len, *stride) = (*len * dims[p], inner),
            _ => axes.push((dims[p], inner)),
        }
    }
    if axes.is_empty() {
        axes.push((1, 1));
    }
    // Few neighbours that stay together are moved as one.
    match axes[..] {
        [.., _, (2, 1)] => whole::<2>(pool, axes, src, dst),
        [.., _, (3, 1)] => whole::<3>(pool, axes, src, dst),
        [.., _, (4, 1)] => whole::<4>(pool, axes, src, dst),
        [.., _, (8, 1)] => whole::<8>(pool, axes, src, dst),
        _ => walk(pool, &axes, src, dst, |from, stride, row, count, to| {
            dispatch(isa, Turn { from, stride, row, count, to, to_stride: row });
        }),
    }
}

/// The innermost axis has `N` neighbours: they are one element.
fn whole<const N: usize>(pool: &Pool, mut axes: Axes, src: &[f32], dst: &mut [f32]) {
    axes.pop();
    axes.iter_mut().for_each(|a| a.1 /= N);
    let (src, dst) = (src.as_chunks::<N>().0, dst.as_chunks_mut::<N>().0);
    walk(pool, &axes, src, dst, |from, stride, row, count, to| {
        for a in 0..count {
            let out = &mut to[a * row..][..row];
            for (b, out) in out.iter_mut().enumerate() {
                *out = from[b * stride + a];
            }
        }
    });
}

/// Where a walk over all axes but the innermost stands.
struct Place<'a> {
    axes: &'a [(usize, usize)],
    index: SmallVec<[usize; 8]>,
    /// Source offset.
    at: usize,
}

impl<'a> Place<'a> {
    fn new(axes: &'a [(usize, usize)], mut row: usize) -> Place<'a> {
        let mut p = Place { axes, index: SmallVec::from_elem(0, axes.len()), at: 0 };
        for (i, &(len, stride)) in p.index.iter_mut().zip(axes).rev() {
            *i = row % len;
            row /= len;
            p.at += *i * stride;
        }
        p
    }

    /// Rows left along the last of the axes, and how far apart their sources are.
    fn run(&self) -> (usize, usize) {
        match (self.axes.last(), self.index.last()) {
            (Some(&(len, stride)), Some(i)) => (len - i, stride),
            _ => (1, 0),
        }
    }

    /// On by at most a run.
    fn advance(&mut self, count: usize) {
        let mut by = count;
        for (i, &(len, stride)) in self.index.iter_mut().zip(self.axes).rev() {
            *i += by;
            self.at += by * stride;
            if *i < len {
                return;
            }
            self.at -= *i * stride;
            *i = 0;
            by = 1;
        }
    }
}

/// Rows of the result one after another: copied where the innermost axis stays, turned by `tile` where it swaps with its neighbour.
fn walk<T: Copy + Send + Sync>(
    pool: &Pool,
    axes: &[(usize, usize)],
    src: &[T],
    dst: &mut [T],
    tile: impl Fn(&[T], usize, usize, usize, &mut [T]) + Sync,
) {
    let Some((&(row, stride), outer)) = axes.split_last() else { return };
    let swaps = stride != 1 && matches!(outer.last(), Some(&(_, 1)));
    let rows = if swaps { (TASK / row).next_multiple_of(TILE).max(TILE) } else { (TASK / row).max(1) };
    pool.for_chunks(dst, rows * row, |part, mut to, _| {
        let mut place = Place::new(outer, part * rows);
        while !to.is_empty() {
            let (left, apart) = place.run();
            let count = left.min(to.len() / row);
            let (here, rest) = to.split_at_mut(count * row);
            let from = &src[place.at..];
            if stride == 1 && row < 32 {
                for (a, out) in here.chunks_exact_mut(row).enumerate() {
                    let from = &from[a * apart..][..row];
                    for (d, s) in out.iter_mut().zip(from) {
                        *d = *s;
                    }
                }
            } else if stride == 1 {
                for (a, out) in here.chunks_exact_mut(row).enumerate() {
                    out.copy_from_slice(&from[a * apart..][..row]);
                }
            } else if swaps {
                tile(from, stride, row, count, here);
            } else {
                for (a, out) in here.chunks_exact_mut(row).enumerate() {
                    let from = &from[a * apart..];
                    for (b, d) in out.iter_mut().enumerate() {
                        *d = from[b * stride];
                    }
                }
            }
            place.advance(count);
            to = rest;
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::testing::{guarded, isas};

    fn naive(dims: &[usize], perm: &[usize], src: &[f32]) -> Vec<f32> {
        let out: Vec<usize> = perm.iter().map(|&p| dims[p]).collect();
        (0..src.len())
            .map(|mut i| {
                let mut at = vec![0; dims.len()];
                for d in (0..out.len()).rev() {
                    at[perm[d]] = i % out[d];
                    i /= out[d];
                }
                src[at.iter().zip(dims).fold(0, |n, (a, d)| n * d + a)]
            })
            .collect()
    }

    fn permutations(n: usize) -> Vec<Vec<usize>> {
        if n == 0 {
            return vec![Vec::new()];
        }
        let mut all = Vec::new();
        for p in permutations(n - 1) {
            for at in 0..n {
                let mut q = p.clone();
                q.insert(at, n - 1);
                all.push(q);
            }
        }
        all
    }

    fn check(pool: &Pool, isa: Isa, dims: &[usize], perm: &[usize]) {
        let src: Vec<f32> = (0..dims.iter().product::<usize>()).map(|i| i as f32).collect();
        let got = guarded(src.len(), |d| permute(pool, isa, dims, perm, &src, d));
        assert_eq!(got, naive(dims, perm, &src), "{isa} {dims:?} {perm:?}");
    }

    #[test]
    fn every_permutation() {
        for (isa, threads) in isas().into_iter().flat_map(|i| [(i, 1), (i, 3)]) {
            let pool = Pool::new(threads);
            let shapes: [&[usize]; 9] = [
                &[],
                &[5],
                &[17, 33],
                &[1, 40, 3],
                &[2, 3, 4, 5],
                &[3, 1, 18, 20],
                &[2, 3, 1, 4, 5],
                &[0, 4],
                &[3, 2, 9, 2],
            ];
            for dims in shapes {
                for perm in permutations(dims.len()) {
                    check(&pool, isa, dims, &perm);
                }
            }
            for last in [2, 3, 4, 8, 31, 40] {
                check(&pool, isa, &[2, 5, 7, last], &[0, 2, 1, 3]);
                check(&pool, isa, &[7, 2, 5, last], &[2, 1, 0, 3]);
            }
            for (dims, perm) in [
                (vec![300, 200], vec![1, 0]),
                (vec![2, 128, 12, 64], vec![0, 2, 1, 3]),
                (vec![2, 128, 12, 64], vec![0, 2, 3, 1]),
                (vec![6, 130, 70], vec![2, 0, 1]),
            ] {
                check(&pool, isa, &dims, &perm);
            }
        }
    }

    #[test]
    #[should_panic(expected = "permutation")]
    fn repeated_axes_are_refused() {
        permute(&Pool::new(1), Isa::Portable, &[2, 2], &[0, 0], &[0.0; 4], &mut [0.0; 4]);
    }
}
