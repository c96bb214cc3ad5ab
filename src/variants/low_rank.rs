//! Low rank: the layer's weights as a product of two smaller matrices, the nearest there is (singular value decomposition).
//!
//! A `k×k` convolution to `r` channels, then a pointwise one to all: `r·(k²·Ci + Co)` multiply-adds per position. `W ≈ U·Uᵀ·W` with
//! `U` the leading left singular vectors; they are the eigenvectors of `W·Wᵀ` (or the right ones of `Wᵀ·W`, whichever is smaller).

use super::edit::Window;
use super::eigen::leading;
use super::{Block, Choice, Editor, Entry, Fit, Knob, Make, Site, unwise};
use crate::error::Result;
use crate::tensor::Tensor;
use std::sync::{Arc, OnceLock};

/// The table's row.
pub static ENTRY: Entry = Entry {
    name: "low-rank",
    about: "the learned weights as a product of two, by SVD",
    knobs: &[Knob {
        name: "share",
        default: 0.5,
        range: (0.01, 1.0),
        whole: false,
        about: "of the multiply-adds at most",
    }],
    make: Make::Block(Block { fits, build, adds: false, opset: 7 }),
};

/// Lowest rank worth having.
const LOW: usize = 4;

fn rank(site: &Site, choice: &Choice) -> usize {
    let (rows, columns) = (site.oc, site.ic * site.taps());
    let most = choice.float("share") * (rows as f64 * columns as f64) / (rows + columns) as f64;
    (most as usize).clamp(1, rows.min(columns))
}

fn fits(site: &Site, choice: &Choice) -> Fit {
    match rank(site, choice) {
        r if r < LOW => unwise(format!("would be left with rank {r}")),
        _ => Ok(()),
    }
}

fn build(ed: &mut Editor, site: &Site, choice: &Choice) -> Result<()> {
    let r = rank(site, choice);
    let [a, b] = site.axes;
    let (rows, columns) = (site.oc, site.ic * site.taps());
    let shared: Arc<OnceLock<(Vec<f32>, Vec<f32>)>> = Arc::default();
    let part = |dims: &[usize], pick: fn(&(Vec<f32>, Vec<f32>)) -> &Vec<f32>| {
        let (weight, shared) = (site.weight.clone(), shared.clone());
        Tensor::lazy(dims, move || {
            pick(shared.get_or_init(|| {
                let w = weight.view::<f32>().map(|v| v.into_owned()).unwrap_or_default();
                factors(&w, rows, columns, r)
            }))
            .clone()
        })
    };
    let down = ed.constant("reduce.weight", part(&[r, site.ic, a.k, b.k], |f| &f.0)?);
    let up = ed.constant("expand.weight", part(&[rows, r, 1, 1], |f| &f.1)?);
    let y = ed.conv("reduce", &site.x, &down, None, &Window::of(&site.axes));
    let y = ed.conv("expand", &y, &up, site.bias.as_ref().map(|b| b.0.as_str()), &Window::POINT);
    ed.finish(&y, &site.y)
}

/// `(down, up)` of sizes `r × columns` and `rows × r`, with `up · down` the nearest matrix of rank `r` to `w`.
fn factors(w: &[f32], rows: usize, columns: usize, r: usize) -> (Vec<f32>, Vec<f32>) {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
    if rows <= columns {
        // Left vectors: down = Uᵀ·W, up = U.
        let row = |i: usize| &w[i * columns..][..columns];
        let u = leading(rows, r, |i, j| dot(row(i), row(j)));
        let mut down = vec![0f32; r * columns];
        for (k, out) in down.chunks_exact_mut(columns).enumerate() {
            let mut sum = vec![0f64; columns];
            for (i, &c) in u[k].iter().enumerate() {
                sum.iter_mut().zip(row(i)).for_each(|(s, x)| *s += c * f64::from(*x));
            }
            out.iter_mut().zip(sum).for_each(|(o, s)| *o = s as f32);
        }
        let up = (0..rows).flat_map(|i| (0..r).map(move |k| (i, k))).map(|(i, k)| u[k][i] as f32).collect();
        return (down, up);
    }
    // Right vectors: down = Vᵀ, up = W·V.
    let turned: Vec<f32> = (0..columns).flat_map(|j| (0..rows).map(move |i| w[i * columns + j])).collect();
    let column = |j: usize| &turned[j * rows..][..rows];
    let v = leading(columns, r, |i, j| dot(column(i), column(j)));
    let down: Vec<f32> = v.iter().flat_map(|v| v.iter().map(|x| *x as f32)).collect();
    let product =
        |i: usize, k: usize| w[i * columns..][..columns].iter().zip(&v[k]).map(|(x, c)| f64::from(*x) * c).sum::<f64>();
    let up = (0..rows).flat_map(|i| (0..r).map(move |k| (i, k))).map(|(i, k)| product(i, k) as f32).collect();
    (down, up)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zoo::seed::{Fill, values};

    fn product(down: &[f32], up: &[f32], rows: usize, columns: usize, r: usize) -> Vec<f32> {
        let at = |i: usize, j: usize| (0..r).map(|k| up[i * r + k] * down[k * columns + j]).sum::<f32>();
        (0..rows).flat_map(|i| (0..columns).map(move |j| (i, j))).map(|(i, j)| at(i, j)).collect()
    }

    #[test]
    fn a_matrix_of_low_rank_is_found_again_from_either_side() {
        for (rows, columns) in [(6, 20), (20, 6)] {
            let (a, b) = (values("a", rows * 3, Fill::Within(1.0)), values("b", 3 * columns, Fill::Within(1.0)));
            let w = product(&b, &a, rows, columns, 3);
            let (down, up) = factors(&w, rows, columns, 3);
            let again = product(&down, &up, rows, columns, 3);
            assert!(w.iter().zip(&again).all(|(x, y)| (x - y).abs() < 1e-5), "{rows}x{columns}");
            // One rank less leaves something out, and exactly the smallest singular value's share.
            let (down, up) = factors(&w, rows, columns, 2);
            let less = product(&down, &up, rows, columns, 2);
            let error: f32 = w.iter().zip(&less).map(|(x, y)| (x - y).powi(2)).sum();
            assert!(error > 1e-3, "{error}");
        }
    }

    #[test]
    fn the_best_rank_one_matrix_of_a_known_one() {
        // diag(3, 1): keeping the first singular value leaves an error of 1.
        let (down, up) = factors(&[3.0, 0.0, 0.0, 1.0], 2, 2, 1);
        let near = product(&down, &up, 2, 2, 1);
        assert!((near[0] - 3.0).abs() < 1e-6 && near[1].abs() < 1e-6 && near[2].abs() < 1e-6 && near[3].abs() < 1e-6);
    }
}
