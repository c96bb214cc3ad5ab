//! Permutation of axes.
//!
//! Ladder: one element at a time → neighbouring axes that stay together are merged, axes of length 1 dropped → rows
//! that stay contiguous are copied whole; otherwise the two innermost axes that swap are walked in square tiles, so
//! that both sides use whole cache lines → rows of the result dealt out to the threads.

use crate::engine::pool::Pool;

/// Side of a tile, in elements: 16 lines of 64 bytes on either side.
const TILE: usize = 16;
/// Values one task handles, about.
const TASK: usize = 16 << 10;

/// `dst[i_perm[0]][i_perm[1]]… = src[i_0][i_1]…`: axis `d` of the result is axis `perm[d]` of the source.
///
/// Panics if `perm` is no permutation of the axes of `dims`, or on lengths that do not fit.
pub fn permute<T: Copy + Send + Sync>(pool: &Pool, dims: &[usize], perm: &[usize], src: &[T], dst: &mut [T]) {
    let mut seen = vec![false; dims.len()];
    assert_eq!(dims.len(), perm.len(), "permutation {perm:?} of {dims:?}");
    for &p in perm {
        assert!(p < dims.len() && !std::mem::replace(&mut seen[p], true), "permutation {perm:?} of {dims:?}");
    }
    let size = dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    assert!(size == Some(src.len()) && src.len() == dst.len(), "permutation of {dims:?}");
    if dst.is_empty() {
        return;
    }
    // Result axes as (length, source stride), merged where the source runs on.
    let strides: Vec<usize> = (0..dims.len()).map(|i| dims[i + 1..].iter().product()).collect();
    let mut axes: Vec<(usize, usize)> = Vec::new();
    for &p in perm.iter().filter(|&&p| dims[p] != 1) {
        match axes.last_mut() {
            Some((len, stride)) if *stride == dims[p] * strides[p] => (*len, *stride) = (*len * dims[p], strides[p]),
            _ => axes.push((dims[p], strides[p])),
        }
    }
    let (row, stride) = axes.pop().unwrap_or((1, 1));
    // Result row to source offset.
    let offset = |mut i: usize| {
        axes.iter().rev().fold(0, |at, &(len, stride)| {
            let here = i % len;
            i /= len;
            at + here * stride
        })
    };
    // Consecutive result rows whose sources are neighbours: the two innermost axes swap.
    let together = match axes.last() {
        Some(&(len, 1)) => len,
        _ => 1,
    };
    let rows = if together > 1 { (TASK / row).next_multiple_of(TILE).max(TILE) } else { (TASK / row).max(1) };
    pool.for_chunks(dst, rows * row, |part, to, _| {
        let (mut at, mut to) = (part * rows, to);
        while !to.is_empty() {
            let count = (together - at % together).min(to.len() / row);
            let (here, rest) = to.split_at_mut(count * row);
            let from = &src[offset(at)..];
            if stride == 1 {
                here.copy_from_slice(&from[..row]);
            } else {
                tiles(from, stride, row, count, here);
            }
            at += count;
            to = rest;
        }
    });
}

/// `to[a][b] = from[b · stride + a]`, `b < row`, `a < count`, in square tiles.
fn tiles<T: Copy>(from: &[T], stride: usize, row: usize, count: usize, to: &mut [T]) {
    for a0 in (0..count).step_by(TILE) {
        let an = TILE.min(count - a0);
        for b0 in (0..row).step_by(TILE) {
            let bn = TILE.min(row - b0);
            for a in a0..a0 + an {
                let out = &mut to[a * row + b0..][..bn];
                let from = from[b0 * stride + a..].iter().step_by(stride);
                out.iter_mut().zip(from).for_each(|(d, s)| *d = *s);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn naive(dims: &[usize], perm: &[usize], src: &[u32]) -> Vec<u32> {
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

    #[test]
    fn every_permutation() {
        for threads in [1, 3] {
            let pool = Pool::new(threads);
            let shapes: [&[usize]; 8] =
                [&[], &[5], &[17, 33], &[1, 40, 3], &[2, 3, 4, 5], &[3, 1, 18, 20], &[2, 3, 1, 4, 5], &[0, 4]];
            for dims in shapes {
                let src: Vec<u32> = (0..dims.iter().product::<usize>() as u32).collect();
                for perm in permutations(dims.len()) {
                    let mut got = vec![u32::MAX; src.len()];
                    permute(&pool, dims, &perm, &src, &mut got);
                    assert_eq!(got, naive(dims, &perm, &src), "{dims:?} {perm:?}");
                }
            }
            for (dims, perm) in [
                (vec![300, 200], vec![1, 0]),
                (vec![2, 128, 12, 64], vec![0, 2, 1, 3]),
                (vec![2, 128, 12, 64], vec![0, 2, 3, 1]),
            ] {
                let src: Vec<u32> = (0..dims.iter().product::<usize>() as u32).collect();
                let mut got = vec![u32::MAX; src.len()];
                permute(&pool, &dims, &perm, &src, &mut got);
                assert_eq!(got, naive(&dims, &perm, &src), "{dims:?} {perm:?}");
            }
        }
    }

    #[test]
    #[should_panic(expected = "permutation")]
    fn repeated_axes_are_refused() {
        permute(&Pool::new(1), &[2, 2], &[0, 0], &[0u8; 4], &mut [0u8; 4]);
    }
}
