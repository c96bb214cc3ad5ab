//! Rotary position embedding of two halves (Su et al. 2021, "RoFormer", equation 34, in the form of GPT-NeoX and Llama): `x · cos +
//! (−x₂, x₁) · sin` for the halves x₁ and x₂ of each row.
//!
//! Ladder: seven steps that each read and write everything → one pass, in which both halves meet in registers.

use super::task::{Accept, Entry, Kind, Prepared, Task, Verdict};
use crate::engine::pool::Pool;
use crate::error::{Error, Result};
use crate::simd::{Isa, Simd, SimdOp, dispatch};
use smallvec::SmallVec;

pub(super) const ENTRY: Entry = Entry { name: "rotary", accepts, prepare, tolerance: 1e-6 };

/// Values one task handles, about.
const TASK: usize = 16 << 10;

/// An axis before the last.
#[derive(Debug, Clone, Copy)]
struct Axis {
    len: usize,
    /// From one index to the next, in values of the cosines and of the sines.
    steps: [usize; 2],
}

struct Rotary {
    isa: Isa,
    /// Values of a row: two halves.
    width: usize,
    axes: Vec<Axis>,
}

/// The axes before the last, if angles of these dims are spread over rows of x.
fn axes(x: &[usize], angles: [&[usize]; 2]) -> Option<Vec<Axis>> {
    let (width, rows) = x.split_last()?;
    let fits = |d: &[usize]| {
        let first = x.len().checked_sub(d.len())?;
        (d.last() == Some(width) && d.iter().zip(&x[first..]).all(|(d, x)| d == x || *d == 1)).then_some(())
    };
    angles.into_iter().try_for_each(fits)?;
    let step = |d: &[usize], axis: usize| match (axis + d.len()).checked_sub(x.len()) {
        Some(own) if d[own] > 1 => d[own + 1..].iter().product(),
        _ => 0,
    };
    let axis = |(i, &len): (usize, &usize)| Axis { len, steps: angles.map(|d| step(d, i)) };
    Some(rows.iter().enumerate().filter(|(_, len)| **len > 1).map(axis).collect())
}

fn found(task: &Task) -> Option<Rotary> {
    let (Kind::Rotary, [x, cos, sin], [y]) = (task.kind, task.srcs, task.dsts) else { return None };
    let (width, axes) = (*x.last()?, axes(x, [cos, sin])?);
    (x == y && width > 0 && width.is_multiple_of(2)).then_some(Rotary { isa: task.isa, width, axes })
}

fn accepts(task: &Task) -> Verdict {
    found(task).map(|_| Accept::plain(task)).ok_or_else(String::new)
}

fn prepare(task: &Task) -> Result<Box<dyn Prepared>> {
    Ok(Box::new(found(task).ok_or_else(|| Error::run("not a rotary embedding"))?))
}

impl Prepared for Rotary {
    fn run(&self, pool: &Pool, srcs: &[&[f32]], dsts: &mut [&mut [f32]]) {
        let &[x, cos, sin] = srcs else { return };
        let (isa, part) = (self.isa, (TASK / self.width).max(1) * self.width);
        pool.for_chunks(dsts[0], part, |i, y, _| {
            let (first, x) = (i * part / self.width, &x[i * part..][..y.len()]);
            dispatch(isa, Turn { rotary: self, first, x, angles: [cos, sin], y });
        });
    }
}

/// Rows from `first` on.
struct Turn<'a> {
    rotary: &'a Rotary,
    first: usize,
    x: &'a [f32],
    angles: [&'a [f32]; 2],
    y: &'a mut [f32],
}

impl SimdOp for Turn<'_> {
    type Out = ();
    #[inline(always)]
    fn call<S: Simd>(self, s: S) {
        let Turn { rotary: Rotary { width, axes, .. }, first, x, angles: [cos, sin], y } = self;
        let (width, half) = (*width, width / 2);
        let mut index: SmallVec<[usize; 8]> = SmallVec::from_elem(0, axes.len());
        let (mut c, mut t, mut rest) = (0, 0, first);
        for (i, axis) in index.iter_mut().zip(axes).rev() {
            *i = rest % axis.len;
            rest /= axis.len;
            (c, t) = (c + *i * axis.steps[0], t + *i * axis.steps[1]);
        }
        for (x, y) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)) {
            let (x1, x2) = x.split_at(half);
            let (y1, y2) = y.split_at_mut(half);
            let (c1, c2) = cos[c..][..width].split_at(half);
            let (s1, s2) = sin[t..][..width].split_at(half);
            let whole = half / S::LANES * S::LANES;
            for j in (0..whole).step_by(S::LANES) {
                let (a, b) = (s.load(&x1[j..]), s.load(&x2[j..]));
                s.store(&mut y1[j..], s.fma(s.neg(b), s.load(&s1[j..]), s.mul(a, s.load(&c1[j..]))));
                s.store(&mut y2[j..], s.fma(a, s.load(&s2[j..]), s.mul(b, s.load(&c2[j..]))));
            }
            if whole < half {
                let (a, b) = (s.load_tail(&x1[whole..]), s.load_tail(&x2[whole..]));
                let (first, second) = (s.load_tail(&s1[whole..]), s.load_tail(&s2[whole..]));
                let turned = s.fma(s.neg(b), first, s.mul(a, s.load_tail(&c1[whole..])));
                s.store_tail(&mut y1[whole..], turned);
                s.store_tail(&mut y2[whole..], s.fma(a, second, s.mul(b, s.load_tail(&c2[whole..]))));
            }
            for (i, axis) in index.iter_mut().zip(axes).rev() {
                *i += 1;
                (c, t) = (c + axis.steps[0], t + axis.steps[1]);
                if *i < axis.len {
                    break;
                }
                (c, t) = (c - axis.len * axis.steps[0], t - axis.len * axis.steps[1]);
                *i = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::Layout;
    use crate::kernels::testing::{close, guarded, isas, values};

    /// Dims of x, of the cosines and of the sines: a token, a prompt, positions before heads, one angle for all, odd halves, many rows, many axes.
    const SHAPES: [[&[usize]; 3]; 7] = [
        [&[1, 4, 1, 64], &[1, 1, 1, 64], &[1, 64]],
        [&[2, 3, 5, 32], &[5, 32], &[2, 1, 5, 32]],
        [&[1, 7, 3, 40], &[7, 1, 40], &[1, 7, 1, 40]],
        [&[3, 2, 6], &[6], &[1, 2, 6]],
        [&[5, 66], &[1, 66], &[5, 66]],
        [&[2, 9, 61, 34], &[61, 34], &[61, 34]],
        [&[2, 2, 2, 2, 2, 2, 2, 2, 2, 4], &[2, 1, 2, 4], &[2, 1, 1, 2, 2, 2, 2, 2, 2, 4]],
    ];

    #[test]
    fn as_the_formula_says() {
        for dims in SHAPES {
            let srcs = dims.map(<[usize]>::to_vec);
            let data: [Vec<f32>; 3] = std::array::from_fn(|i| values(dims[i].iter().product(), i as u64 + 1));
            let (width, rank) = (dims[0][dims[0].len() - 1], dims[0].len());
            let want: Vec<f32> = (0..data[0].len())
                .map(|at| {
                    // The value of the angles that numpy's broadcasting gives this place.
                    let angle = |of: usize| {
                        let (mut rest, mut step, mut place) = (at, 1, 0);
                        for (i, &len) in dims[0].iter().enumerate().rev() {
                            let index = rest % len;
                            rest /= len;
                            if let Some(&own) = (i + dims[of].len()).checked_sub(rank).map(|i| &dims[of][i]) {
                                place += if own > 1 { index * step } else { 0 };
                                step *= own;
                            }
                        }
                        data[of][place]
                    };
                    let (row, i) = (at / width * width, at % width);
                    let x = |i: usize| data[0][row + i];
                    let turned = if i < width / 2 { -x(i + width / 2) } else { x(i - width / 2) };
                    x(i) * angle(1) + turned * angle(2)
                })
                .collect();
            for isa in isas() {
                for threads in [1, 2] {
                    let task = Task {
                        kind: &Kind::Rotary,
                        srcs: &srcs,
                        layouts: &[Layout::Plain; 3],
                        dsts: &srcs[..1],
                        isa,
                        threads,
                        winograd: true,
                        strassen: true,
                        packs: None,
                    };
                    let ready = prepare(&task).unwrap();
                    let operands: Vec<&[f32]> = data.iter().map(|d| &d[..]).collect();
                    let got = guarded(want.len(), |y| ready.run(&Pool::new(threads), &operands, &mut [y]));
                    close(&got, &want, 1e-6, &format!("{isa} {dims:?}"));
                }
            }
        }
    }

    #[test]
    fn angles_that_do_not_fit_are_declined() {
        for (x, cos) in
            [(vec![2, 3, 8], vec![4, 8]), (vec![2, 8], vec![2, 4]), (vec![8], vec![1, 8]), (vec![3, 7], vec![7])]
        {
            let srcs = [x.clone(), cos.clone(), cos];
            let task = Task {
                kind: &Kind::Rotary,
                srcs: &srcs,
                layouts: &[Layout::Plain; 3],
                dsts: &srcs[..1],
                isa: Isa::best(),
                threads: 1,
                winograd: true,
                strassen: true,
                packs: None,
            };
            assert!(accepts(&task).is_err(), "{x:?}");
        }
    }
}
