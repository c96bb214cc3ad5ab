//! Swin: attention within windows of a map, shifted by half a window in every second layer. Maps are `[N, H, W, C]`.

use super::super::net::{Act, Conv, Net, Value};
use super::super::row::Row;
use super::super::seed::Fill;
use super::transformer::{dense, layer_norm};
use crate::error::{Error, Result};
use crate::ops::spec::Attr;
use crate::tensor::Tensor;

/// Side of a window.
const WINDOW: usize = 7;

fn map(x: &Value, path: &str) -> Result<[usize; 4]> {
    x.dims.as_slice().try_into().map_err(|_| Error::input(format!("{path}: not a map")))
}

/// Patches by convolution, normalised.
pub fn embeddings(net: &mut Net, row: &Row, x: &Value) -> Result<Value> {
    let patch = row.size("patch")?;
    let y = net.conv(x, &row.at("0"), row.size("c")?, Conv::of(patch).stride(patch).pad(0).bias(true).linear())?;
    let y = net.transpose(&y, &[0, 2, 3, 1], &row.at("1"));
    layer_norm(net, &y, &row.at("2"), 1e-5)
}

/// Four neighbours side by side, normalised and halved.
pub fn merge(net: &mut Net, row: &Row, x: &Value) -> Result<Value> {
    let [_, h, w, c] = map(x, &row.path)?;
    let x = pad(net, x, [h % 2, w % 2], &row.path)?;
    let [n, h, w, _] = map(&x, &row.path)?;
    let mut parts = Vec::new();
    for (i, j) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
        let (from, to) = (net.ints(&[i, j])?, net.ints(&[h as i64, w as i64])?);
        let (axes, steps) = (net.ints(&[1, 2])?, net.ints(&[2, 2])?);
        let dims = [n, h / 2, w / 2, c];
        parts.push(net.node(&row.path, "Slice", &[&x.name, &from, &to, &axes, &steps], &[], &dims));
    }
    let y = net.concat(&parts.iter().collect::<Vec<_>>(), 3, &row.path)?;
    let y = layer_norm(net, &y, &row.at("norm"), 1e-5)?;
    dense(net, &y, &row.at("reduction"), 2 * c, false)
}

/// Zeros below and to the right.
fn pad(net: &mut Net, x: &Value, [below, right]: [usize; 2], path: &str) -> Result<Value> {
    if below + right == 0 {
        return Ok(x.clone());
    }
    let [n, h, w, c] = map(x, path)?;
    let pads = net.ints(&[0, 0, 0, 0, 0, below as i64, right as i64, 0])?;
    Ok(net.node(path, "Pad", &[&x.name, &pads], &[], &[n, h + below, w + right, c]))
}

/// The map turned by so many rows and columns: what leaves above comes back below.
fn roll(net: &mut Net, x: &Value, by: [usize; 2], path: &str) -> Result<Value> {
    let mut y = x.clone();
    for (axis, by) in [(1, by[0]), (2, by[1])] {
        if by > 0 {
            let size = y.dims[axis];
            let tail = net.slice(&y, by, size, axis, path)?;
            let head = net.slice(&y, 0, by, axis, path)?;
            y = net.concat(&[&tail, &head], axis, path)?;
        }
    }
    Ok(y)
}

/// A pre-norm layer: attention within windows, then two dense layers. Every second instance of a row shifts its windows.
pub fn layer(net: &mut Net, row: &Row, x: &Value) -> Result<Value> {
    let y = layer_norm(net, x, &row.at("norm1"), 1e-5)?;
    let y = windows(net, row, &y)?;
    let x = net.add(x, &y, &row.path)?;
    let y = layer_norm(net, &x, &row.at("norm2"), 1e-5)?;
    let width = y.features();
    let y = dense(net, &y, &row.at("mlp.0"), 4 * width, true)?;
    let y = net.act(&y, &row.at("mlp.1"), Act::Gelu)?;
    let y = dense(net, &y, &row.at("mlp.3"), width, true)?;
    net.add(&x, &y, &row.path)
}

fn windows(net: &mut Net, row: &Row, x: &Value) -> Result<Value> {
    let path = row.at("attn");
    let [n, h, w, c] = map(x, &path)?;
    let heads = row.size("heads")?.max(1);
    let up = |s: usize| s.next_multiple_of(WINDOW);
    let (ph, pw) = (up(h), up(w));
    // Where one window holds all there is nothing to shift.
    let shift = [ph, pw].map(|side| if row.index % 2 == 1 && side > WINDOW { WINDOW / 2 } else { 0 });
    let y = pad(net, x, [ph - h, pw - w], &path)?;
    let y = roll(net, &y, shift, &path)?;
    let (rows, columns, inside) = (ph / WINDOW, pw / WINDOW, WINDOW * WINDOW);
    let count = rows * columns;
    let y = net.reshape(&y, &[n, rows, WINDOW, columns, WINDOW, c], &path)?;
    let y = net.transpose(&y, &[0, 1, 3, 2, 4, 5], &path);
    let y = net.reshape_all(&y, &[n * count, inside, c], &path)?;
    let y = dense(net, &y, &format!("{path}.qkv"), 3 * c, true)?;
    let y = net.reshape_all(&y, &[n * count, inside, 3, heads, c / heads], &path)?;
    let y = net.transpose(&y, &[2, 0, 3, 1, 4], &path);
    let parts = net.split(&y, &[1, 1, 1], 0, &path)?;
    let one = [n * count, heads, inside, c / heads];
    let [q, k, v] = [0, 1, 2].map(|i| net.reshape_all(&parts[i], &one, &path));
    let (q, k, v) = (q?, k?, v?);
    let k = net.transpose(&k, &[0, 1, 3, 2], &path);
    let scale = net.scalar(((c / heads) as f32).sqrt().recip())?;
    let q = net.node(&path, "Mul", &[&q.name, &scale], &[], &q.dims);
    let scores = [n * count, heads, inside, inside];
    let mut y = net.node(&path, "MatMul", &[&q.name, &k.name], &[], &scores);
    let bias = relative_bias(net, &path, heads)?;
    y = net.node(&path, "Add", &[&y.name, &bias.name], &[], &scores);
    if shift != [0, 0] {
        let mask = mask(net, &row.path, [ph, pw], shift)?;
        let all = [n, count, heads, inside, inside];
        y = net.reshape_all(&y, &all, &path)?;
        y = net.node(&path, "Add", &[&y.name, &mask], &[], &all);
        y = net.reshape_all(&y, &scores, &path)?;
    }
    let y = net.node(&path, "Softmax", &[&y.name], &[("axis", Attr::Int(-1))], &scores);
    let y = net.node(&path, "MatMul", &[&y.name, &v.name], &[], &one);
    let y = net.transpose(&y, &[0, 2, 1, 3], &path);
    let y = net.reshape_all(&y, &[n * count, inside, c], &path)?;
    let y = dense(net, &y, &format!("{path}.proj"), c, true)?;
    let y = net.reshape_all(&y, &[n, rows, columns, WINDOW, WINDOW, c], &path)?;
    let y = net.transpose(&y, &[0, 1, 3, 2, 4, 5], &path);
    let y = net.reshape_all(&y, &[n, ph, pw, c], &path)?;
    let back = [(ph, shift[0]), (pw, shift[1])].map(|(side, by)| if by > 0 { side - by } else { 0 });
    let mut y = roll(net, &y, back, &path)?;
    for (axis, size) in [(1, h), (2, w)] {
        if y.dims[axis] > size {
            y = net.slice(&y, 0, size, axis, &path)?;
        }
    }
    Ok(y)
}

/// A learned number per head for every way two places of a window can lie to each other, spread to all pairs.
fn relative_bias(net: &mut Net, path: &str, heads: usize) -> Result<Value> {
    let (ways, inside) = (2 * WINDOW - 1, WINDOW * WINDOW);
    let table =
        net.weight(&format!("{path}.relative_position_bias_table"), &[ways * ways, heads], Fill::Within(0.1))?;
    let index = net.constant("relative_position_index", || {
        let place = |i: usize| (i / WINDOW, i % WINDOW);
        let way =
            |a: (usize, usize), b: (usize, usize)| ((a.0 + WINDOW - 1 - b.0) * ways + (a.1 + WINDOW - 1 - b.1)) as i64;
        let all = (0..inside).flat_map(|a| (0..inside).map(move |b| way(place(a), place(b))));
        Tensor::from_vec(all.collect(), &[inside * inside])
    })?;
    let axis = [("axis", Attr::Int(0))];
    let y = net.node(path, "Gather", &[&table, &index], &axis, &[inside * inside, heads]);
    let y = net.reshape_all(&y, &[inside, inside, heads], path)?;
    let y = net.transpose(&y, &[2, 0, 1], path);
    net.reshape_all(&y, &[1, heads, inside, inside], path)
}

/// Keeps apart what the turn brought together: −100 between places of different regions, `[count, 1, inside, inside]`.
fn mask(net: &mut Net, path: &str, [h, w]: [usize; 2], shift: [usize; 2]) -> Result<String> {
    let name = format!("{path}.attn_mask");
    net.constant(&name, || {
        let region = |at: usize, size: usize, by: usize| match at {
            _ if by == 0 => 0,
            _ if at < size - WINDOW => 0,
            _ if at < size - by => 1,
            _ => 2,
        };
        let (rows, columns, inside) = (h / WINDOW, w / WINDOW, WINDOW * WINDOW);
        let of = |window: usize, i: usize| {
            let (y, x) = (window / columns * WINDOW + i / WINDOW, window % columns * WINDOW + i % WINDOW);
            (region(y, h, shift[0]), region(x, w, shift[1]))
        };
        let mut all = Vec::with_capacity(rows * columns * inside * inside);
        for window in 0..rows * columns {
            for a in 0..inside {
                all.extend((0..inside).map(|b| if of(window, a) == of(window, b) { 0.0f32 } else { -100.0 }));
            }
        }
        Tensor::from_vec(all, &[rows * columns, 1, inside, inside])
    })
}

/// Normalisation, the mean over all places, fully connected.
pub fn head(net: &mut Net, row: &Row, x: &Value) -> Result<Value> {
    let y = layer_norm(net, x, "norm", 1e-5)?;
    let y = net.transpose(&y, &[0, 3, 1, 2], "permute");
    let y = net.global_pool(&y, "avgpool")?;
    let y = net.flatten(&y, "flatten");
    net.linear(&y, &row.path, row.size("classes")?)
}
