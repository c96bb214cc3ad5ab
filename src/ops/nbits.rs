//! Products with weights packed to a few bits: MatMulNBits, MatMulBnb4, GatherBlockQuantized of ONNX Runtime.
//!
//! <https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md>; the 4-bit float tables are those of QLoRA
//! (<https://arxiv.org/abs/2305.14314>).
//!
//! MAdds: `rows · N · K`, as of the product with real weights. Weights are dequantised once, free of charge, as in a file that keeps
//! them apart from the product; a bias is one other FLOP per output. GatherBlockQuantized multiplies each element it looks up by
//! its scale: 1 other FLOP. Params count the weights, not the bytes they are packed in.

use super::dims;
use super::elements::{ints, reserved};
use super::matmul::product_of;
use super::spec::{Attr, NodeSpec};
use super::{Access, Case, Charge, CostCx, Entry, EvalCx, Family, Infer, Input, Inputs, Op, Role, input, opt, sample};
use crate::cost::{Work, product};
use crate::error::{Error, Result};
use crate::tensor::{DType, Dim, Fact, Num, Shape, Tensor, element_count};
use crate::with_num;

const fn contrib(name: &'static str, parse: fn(&NodeSpec) -> Result<Op>) -> Entry {
    Entry { domain: "com.microsoft", name, parse, cases }
}

/// The family's table rows.
pub const ENTRIES: &[Entry] = &[
    contrib("GatherBlockQuantized", parse_gather),
    contrib("MatMulBnb4", parse_product),
    contrib("MatMulNBits", parse_product),
];

/// An operator whose weights are packed.
#[derive(Debug, Clone)]
pub enum NBits {
    /// `A · Wᵀ + bias` with W of `n` rows and `k` columns (`A · W` where `transposed` is false).
    Product {
        /// Rows of W.
        n: usize,
        /// Columns of W.
        k: usize,
        /// Elements per scale.
        block: usize,
        /// How a weight is written.
        code: Code,
        /// W is used transposed.
        transposed: bool,
    },
    /// Look-up along `axis`.
    Gather {
        /// The axis looked up.
        axis: i64,
        /// The axis scales are blocked along.
        quantized: i64,
        /// Elements per scale.
        block: usize,
        /// Bits per element where `uint8` data is packed.
        bits: usize,
    },
}

/// How a weight is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// An unsigned integer of so many bits.
    Bits(usize),
    /// A 4-bit float.
    Fp4,
    /// A 4-bit index into quantiles of the normal distribution.
    Nf4,
}

const FP4: [f32; 8] = [0.0, 0.005_208_333, 0.666_666_7, 1.0, 0.333_333_34, 0.5, 0.166_666_67, 0.25];
const NF4: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

fn size(node: &NodeSpec, name: &str) -> Result<usize> {
    let v = node.opt_size(name)?.filter(|&v| v > 0 && v < 1 << 40);
    v.ok_or_else(|| Error::input("must be positive").at_attribute(name))
}

fn bits(node: &NodeSpec) -> Result<usize> {
    match node.int("bits", 4)? {
        b @ (2 | 4 | 8) => Ok(b as usize),
        other => Err(Error::unsupported(format!("{other} bits per weight; 2, 4 and 8 are implemented")).at_attribute("bits")),
    }
}

fn parse_product(node: &NodeSpec) -> Result<Op> {
    let bnb = node.op_type == "MatMulBnb4";
    node.expect_inputs(3, if bnb { 3 } else { 6 })?;
    if node.int("weight_prepacked", 0)? != 0 {
        return Err(Error::unsupported("weights in the layout of one device").at_attribute("weight_prepacked"));
    }
    let code = match (bnb, node.int("quant_type", 1)?) {
        (false, _) => Code::Bits(bits(node)?),
        (true, 0) => Code::Fp4,
        (true, 1) => Code::Nf4,
        _ => return Err(Error::input("must be 0 (FP4) or 1 (NF4)").at_attribute("quant_type")),
    };
    let (n, k) = (size(node, "N")?, size(node, "K")?);
    element_count(&[n, k])?;
    let transposed = !bnb || node.flag("transB", true)?;
    Ok(Op::NBits(NBits::Product { n, k, block: size(node, "block_size")?, code, transposed }))
}

fn parse_gather(node: &NodeSpec) -> Result<Op> {
    node.expect_inputs(3, 4)?;
    Ok(Op::NBits(NBits::Gather {
        axis: node.int("gather_axis", 0)?,
        quantized: node.int("quantize_axis", 1)?,
        block: node.opt_size("block_size")?.unwrap_or(128),
        bits: bits(node)?,
    }))
}

/// Element `i` of values of `bits` each, low bits first.
fn packed(bytes: &[u8], i: usize, bits: usize) -> u8 {
    let per = 8 / bits;
    bytes.get(i / per).map_or(0, |b| ((u16::from(*b) >> (i % per * bits)) & ((1 << bits) - 1)) as u8)
}

/// What the codes of a product's weights mean, one column (a row of W) after the other.
#[derive(Debug, Clone)]
pub struct Coded {
    /// Bits per code.
    pub bits: usize,
    /// Codes per scale.
    pub block: usize,
    /// Bytes per column.
    pub row_bytes: usize,
    /// Scale of every block.
    pub scales: Vec<f32>,
    /// The code that means zero, of every block.
    pub zeros: Vec<f32>,
}

impl NBits {
    /// How codes are read where they lie; `None` for products that need them rearranged, and for sizes that do not fit.
    pub fn coded(&self, inputs: &Inputs) -> Option<Coded> {
        let NBits::Product { n, k, block, code: Code::Bits(bits @ (4 | 8)), transposed: true } = *self else { return None };
        // Columns of k in another order.
        if opt(inputs, 4).is_some() {
            return None;
        }
        let blocks = k.div_ceil(block);
        let row_bytes = blocks.checked_mul(block * bits / 8)?;
        let scales = opt(inputs, 2)?;
        let scales: Vec<f32> = scales.to_f64s().ok()?.into_iter().map(|v| v as f32).collect();
        let zeros = match opt(inputs, 3) {
            None => vec![(1u32 << (bits - 1)) as f32; n * blocks],
            Some(z) if z.dtype() == DType::U8 => {
                let (z, row) = (z.bytes().ok()?, (blocks * bits).div_ceil(8));
                (z.len() == n * row).then_some(())?;
                (0..n * blocks).map(|i| packed(&z[i / blocks * row..], i % blocks, bits).into()).collect()
            }
            Some(z) => z.to_f64s().ok()?.into_iter().map(|v| v as f32).collect(),
        };
        let fits = opt(inputs, 1)?.bytes().is_ok_and(|b| b.len() == n * row_bytes);
        (fits && block * bits % 8 == 0 && scales.len() == n * blocks && zeros.len() == n * blocks)
            .then_some(Coded { bits, block, row_bytes, scales, zeros })
    }

    /// The weights of a product as real numbers `[n, k]`.
    ///
    /// # Errors
    /// If the packed tensors do not have the sizes they need.
    pub fn weights(&self, inputs: &Inputs) -> Result<Vec<f32>> {
        let NBits::Product { n, k, block, code, .. } = *self else {
            return Err(Error::run("a look-up has no weight matrix"));
        };
        let data = input(inputs, 1)?;
        let bytes = data.bytes()?;
        let scales: Vec<f64> = input(inputs, 2)?.to_f64s()?;
        let unfit = |what: &str| Error::run(format!("{what} do not fit {n} x {k} weights in blocks of {block}"));
        let mut w: Vec<f32> = reserved(n * k)?;
        let Code::Bits(bits) = code else {
            if bytes.len() < (n * k).div_ceil(2) || scales.len() < (n * k).div_ceil(block) {
                return Err(unfit("bytes or scales"));
            }
            w.extend((0..n * k).map(|i| {
                // The first of a pair is in the high half.
                let v = if i % 2 == 0 { bytes[i / 2] >> 4 } else { bytes[i / 2] & 15 };
                let value = match code {
                    Code::Nf4 => NF4[usize::from(v)],
                    _ if v & 8 != 0 => -FP4[usize::from(v & 7)],
                    _ => FP4[usize::from(v)],
                };
                (f64::from(value) * scales[i / block]) as f32
            }));
            return Ok(w);
        };
        let blocks = k.div_ceil(block);
        let row_bytes = blocks.checked_mul(block * bits / 8).filter(|&r| r > 0).ok_or_else(|| unfit("sizes"))?;
        if bytes.len() != n * row_bytes || scales.len() != n * blocks {
            return Err(unfit("bytes or scales"));
        }
        let zeros: Vec<f64> = match opt(inputs, 3) {
            None => vec![(1u32 << (bits - 1)).into(); n * blocks],
            Some(z) if z.dtype() == DType::U8 => {
                let z = z.bytes()?;
                let row = (blocks * bits).div_ceil(8);
                if z.len() != n * row {
                    return Err(unfit("zero points"));
                }
                (0..n * blocks).map(|i| packed(&z[i / blocks * row..], i % blocks, bits).into()).collect()
            }
            Some(z) => z.to_f64s()?,
        };
        if zeros.len() != n * blocks {
            return Err(unfit("zero points"));
        }
        let groups = match opt(inputs, 4) {
            Some(g) => g.to_i64s()?,
            None => (0..k).map(|i| (i / block) as i64).collect(),
        };
        if groups.len() < k || groups.iter().any(|&g| g < 0 || g as usize >= blocks) {
            return Err(unfit("group indices"));
        }
        for row in 0..n {
            let codes = &bytes[row * row_bytes..][..row_bytes];
            w.extend(groups[..k].iter().enumerate().map(|(i, &g)| {
                let at = row * blocks + g as usize;
                ((f64::from(packed(codes, i, bits)) - zeros[at]) * scales[at]) as f32
            }));
        }
        Ok(w)
    }

    /// (inner, outer) sizes of a product.
    fn sides(&self) -> (usize, usize) {
        match *self {
            NBits::Product { n, k, transposed: true, .. } => (k, n),
            NBits::Product { n, k, .. } => (n, k),
            NBits::Gather { .. } => (0, 0),
        }
    }

    fn multiply<T: Num>(&self, inputs: &Inputs) -> Result<Vec<Tensor>> {
        let a = input(inputs, 0)?;
        let (inner, outer) = self.sides();
        if a.dims().last() != Some(&inner) {
            return Err(Error::run(format!("A of shape {} where rows of {inner} are needed", Shape::known(a.dims()))));
        }
        let w = self.weights(inputs)?;
        let columns: Vec<T> = match self {
            NBits::Product { transposed: true, .. } => {
                (0..inner).flat_map(|i| w.iter().skip(i).step_by(inner)).map(|&v| T::of(v.into())).collect()
            }
            _ => w.iter().map(|&v| T::of(v.into())).collect(),
        };
        let rows = a.len().checked_div(inner).unwrap_or(0);
        let mut out = a.dims().to_vec();
        if let Some(last) = out.last_mut() {
            *last = outer;
        }
        element_count(&out)?;
        let mut y = product_of(rows, outer, inner, &T::load(a)?, &columns);
        if let Some(bias) = opt(inputs, 5) {
            let b = T::load(bias)?;
            if b.len() != outer {
                return Err(Error::run(format!("a bias of {} elements for {outer} columns", b.len())));
            }
            y.chunks_exact_mut(outer).for_each(|row| row.iter_mut().zip(&b).for_each(|(y, &b)| *y = *y + b));
        }
        Ok(vec![T::store(y, &out)?])
    }

    /// How many elements a byte of look-up data holds.
    fn per_byte(&self, data: Option<DType>) -> usize {
        match self {
            NBits::Gather { bits, .. } if data == Some(DType::U8) => 8 / bits,
            _ => 1,
        }
    }

    /// The dims of look-up data, unpacked.
    fn unpacked(&self, data: &Fact) -> Option<Vec<Dim>> {
        let mut d = data.shape.dims()?.to_vec();
        let per = self.per_byte(data.dtype);
        if let Some(last) = d.last_mut() {
            *last = last.and_then(|n| n.checked_mul(per));
        }
        Some(d)
    }

    fn look_up<T: Num>(&self, inputs: &Inputs) -> Result<Vec<Tensor>> {
        let NBits::Gather { axis, quantized, block, bits } = *self else {
            return Err(Error::run("a product looks nothing up"));
        };
        let (data, indices, scales) = (input(inputs, 0)?, input(inputs, 1)?, input(inputs, 2)?);
        let per = self.per_byte(Some(data.dtype()));
        let mut d = data.dims().to_vec();
        if let Some(last) = d.last_mut() {
            *last *= per;
        }
        let (axis, quantized) = (dims::axis(axis, d.len())?, dims::axis(quantized, d.len())?);
        let block = if block == 0 { d[quantized].max(1) } else { block };
        let fits = scales.rank() == d.len()
            && scales.dims().iter().enumerate().all(|(i, &s)| s == if i == quantized { d[i].div_ceil(block) } else { d[i] });
        if !fits {
            return Err(Error::run(format!("scales {} do not fit data {}", scales.fact(), Shape::known(&d))));
        }
        let blocks = scales.dims()[quantized];
        let inner: usize = d[quantized + 1..].iter().product();
        let scale_at = |i: usize| {
            let (outer, along) = (i / inner / d[quantized], i / inner % d[quantized]);
            (outer * blocks + along / block) * inner + i % inner
        };
        let codes: Vec<f64> = if data.dtype().is_float() {
            data.to_f64s()?
        } else if per > 1 {
            let bytes = data.bytes()?;
            (0..d.iter().product()).map(|i| packed(bytes, i, bits).into()).collect()
        } else {
            ints(data)?.into_iter().map(|v| v as f64).collect()
        };
        let middle = if data.dtype() == DType::U8 { f64::from(1u32 << (bits - 1)) } else { 0.0 };
        let zeros: Option<Vec<f64>> = match opt(inputs, 3) {
            None => None,
            Some(z) if per > 1 => {
                // Packed along the last axis, row by row.
                let row = scales.dims().last().copied().unwrap_or(1).max(1);
                let (bytes, row_bytes) = (z.bytes()?, row.div_ceil(per));
                if bytes.len() * row != scales.len() * row_bytes {
                    return Err(Error::run("zero points do not fit the scales"));
                }
                Some((0..scales.len()).map(|i| packed(&bytes[i / row * row_bytes..], i % row, bits).into()).collect())
            }
            Some(z) => Some(ints(z)?.into_iter().map(|v| v as f64).collect()),
        };
        if zeros.as_ref().is_some_and(|z| z.len() != scales.len()) {
            return Err(Error::run("zero points do not fit the scales"));
        }
        let factors = T::load(scales)?;
        let (before, after): (usize, usize) = (d[..axis].iter().product(), d[axis + 1..].iter().product());
        let wanted = indices.to_i64s()?;
        let out: Vec<usize> = d[..axis].iter().chain(indices.dims()).chain(&d[axis + 1..]).copied().collect();
        let mut y = reserved(element_count(&out)?)?;
        for outer in 0..before {
            for &index in &wanted {
                let index = if index < 0 { index + d[axis] as i64 } else { index };
                let Some(index) = usize::try_from(index).ok().filter(|&i| i < d[axis]) else {
                    y.extend((0..after).map(|_| T::zero() * T::zero()));
                    continue;
                };
                y.extend(((outer * d[axis] + index) * after..).take(after).map(|i| {
                    let at = scale_at(i);
                    T::of(codes[i] - zeros.as_ref().map_or(middle, |z| z[at])) * factors[at]
                }));
            }
        }
        Ok(vec![T::store(y, &out)?])
    }
}

impl Family for NBits {
    fn infer(&self, cx: &Infer) -> Result<Vec<Fact>> {
        let x = cx.fact(0)?;
        match self {
            NBits::Product { .. } => {
                let (inner, outer) = self.sides();
                let Some(d) = x.shape.dims() else { return Ok(vec![x.clone()]) };
                let mut d = d.to_vec();
                match d.last_mut() {
                    Some(last) if last.is_none_or(|l| l == inner) => *last = Some(outer),
                    _ => return Err(Error::input(format!("A of shape {} where rows of {inner} are needed", x.shape))),
                }
                Ok(vec![x.with_shape(Shape::partial(d))])
            }
            NBits::Gather { axis, .. } => {
                let dtype = cx.fact(2)?.dtype;
                let shape = match (self.unpacked(x), cx.shape(1)?.dims()) {
                    (Some(d), Some(i)) => {
                        let axis = dims::axis(*axis, d.len())?;
                        Shape::partial(d[..axis].iter().chain(i).chain(&d[axis + 1..]).copied().collect())
                    }
                    _ => Shape::UNKNOWN,
                };
                Ok(vec![Fact { dtype, shape, container: x.container }])
            }
        }
    }

    fn charge(&self, cx: &CostCx) -> Charge {
        Charge::of((|| match self {
            NBits::Product { n, k, .. } => {
                let (inner, outer) = self.sides();
                let rows = cx.elements(0)?.checked_div(inner as u64)?;
                let bias = if cx.has(5) { rows.checked_mul(outer as u64)? } else { 0 };
                Some(Work::madds(rows.checked_mul(product([*n, *k])?)?).and_other(bias))
            }
            NBits::Gather { .. } => Some(Work::other(cx.out_elements(0)?)),
        })())
    }

    fn eval(&self, cx: &EvalCx, inputs: &Inputs) -> Result<Vec<Tensor>> {
        match self {
            NBits::Product { .. } => {
                with_num!(cx.arith, input(inputs, 0)?.dtype(), T => self.multiply::<T>(inputs))
            }
            NBits::Gather { .. } => {
                with_num!(cx.arith, input(inputs, 2)?.dtype(), T => self.look_up::<T>(inputs))
            }
        }
    }

    fn role(&self, i: usize) -> Role {
        match (self, i) {
            (NBits::Product { .. }, 0) => Role::Data,
            (NBits::Product { .. }, 1 | 5) | (NBits::Gather { .. }, 0) => Role::Weight,
            _ => Role::Setting,
        }
    }

    fn access(&self) -> Access {
        match self {
            NBits::Product { .. } => Access::Compulsory,
            NBits::Gather { .. } => Access::Selected,
        }
    }

    fn elements_of(&self, i: usize, inputs: &[Option<Input>]) -> Option<u64> {
        match self {
            NBits::Product { n, k, .. } if i == 1 => product([*n, *k]),
            NBits::Gather { .. } if i == 0 => {
                let data = inputs.first().copied().flatten()?.fact;
                (data.elements()? as u64).checked_mul(self.per_byte(data.dtype) as u64)
            }
            _ => None,
        }
    }
}

fn cases() -> Vec<Case> {
    let f = |dims: &[usize], seed| Some(sample::floats(dims, seed));
    let int = Attr::Int;
    let bytes = |dims: &[usize], seed: u64| {
        let n = dims.iter().product::<usize>();
        let v = (0..n).map(|i| (i as u64).wrapping_mul(2_654_435_761 + seed) as u8 ^ (seed as u8)).collect();
        Tensor::from_vec_as::<u8>(DType::U8, v, dims).ok()
    };
    let half = |dims: &[usize], seed| sample::floats(dims, seed).narrowed(DType::F16, true).ok();
    let ms = |name: &str, attrs: &[(&str, Attr)], inputs: Vec<Option<Tensor>>| {
        Case::with_optional(name, attrs, inputs, 1).domain("com.microsoft").opset(1)
    };
    // Five rows of 40 weights in blocks of 16: three blocks a row.
    let shape = |bits: i64| [("N", int(5)), ("K", int(40)), ("block_size", int(16)), ("bits", int(bits))];
    let ids = |v: &[i64], dims: &[usize]| sample::ints(v).reshaped(dims).ok();
    let i32s = |v: Vec<i32>| Tensor::from_vec(v.clone(), &[v.len()]).ok();
    let table = |bits: i64| [("block_size", int(16)), ("bits", int(bits))];
    let mut all = vec![
        ms("MatMulNBits", &shape(4), vec![f(&[2, 3, 40], 1), bytes(&[5, 3, 8], 2), f(&[15], 3)]),
        ms("MatMulNBits", &shape(4), vec![f(&[3, 40], 1), bytes(&[5, 3, 8], 2), f(&[5, 3], 3), bytes(&[10], 4), None, f(&[5], 5)]),
        ms("MatMulNBits", &shape(2), vec![f(&[3, 40], 1), bytes(&[5, 3, 4], 2), f(&[5, 3], 3), f(&[5, 3], 4)]),
        ms("MatMulNBits", &shape(8), vec![half(&[3, 40], 1), bytes(&[5, 3, 16], 2), half(&[5, 3], 3), bytes(&[5, 3], 4)]),
        ms(
            "MatMulNBits",
            &shape(4),
            vec![f(&[3, 40], 1), bytes(&[5, 3, 8], 2), f(&[15], 3), None, i32s((0..40).map(|i| i % 3).collect())],
        ),
        ms("GatherBlockQuantized", &table(4), vec![bytes(&[6, 16], 1), ids(&[0, 5, -1, 2], &[2, 2]), f(&[6, 2], 2)]),
        ms("GatherBlockQuantized", &table(2), vec![bytes(&[6, 8], 1), ids(&[3], &[1]), f(&[6, 2], 2), bytes(&[6, 1], 3)]),
        ms("GatherBlockQuantized", &table(8), vec![bytes(&[6, 32], 1), ids(&[4, 1], &[2]), f(&[6, 2], 2), bytes(&[6, 2], 3)]),
    ];
    let nibbles = Tensor::from_vec_as::<u8>(DType::I4, vec![0x7f, 0x18, 0x2a, 0xc4, 0x05, 0x93, 0x11, 0xfe], &[1, 16]).ok();
    all.push(ms("GatherBlockQuantized", &table(4), vec![nibbles, ids(&[0, 0], &[2]), f(&[1, 1], 2)]));
    for (kind, trans) in [(0, 1), (1, 1), (1, 0)] {
        let attrs = [("quant_type", int(kind)), ("transB", int(trans))];
        let a = if trans == 1 { f(&[2, 40], 1) } else { f(&[2, 5], 1) };
        all.push(ms("MatMulBnb4", &[&shape(4)[..3], &attrs].concat(), vec![a, bytes(&[100], 2), f(&[13], 3)]));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_weights_unpack_low_bits_first_with_their_zero_points() {
        let op = NBits::Product { n: 1, k: 16, block: 16, code: Code::Bits(4), transposed: true };
        let mut codes = vec![0u8; 8];
        (codes[0], codes[1]) = (0x2f, 0x08);
        let b = Tensor::from_vec_as(DType::U8, codes, &[1, 1, 8]).unwrap();
        let scale = Tensor::scalar(0.5f32).reshaped(&[1, 1]).unwrap();
        let w = op.weights(&[None, Some(&b), Some(&scale)]).unwrap();
        assert_eq!(w[..4], [3.5, -3.0, 0.0, -4.0]);
        let zero = Tensor::from_vec_as(DType::U8, vec![2u8], &[1, 1]).unwrap();
        let w = op.weights(&[None, Some(&b), Some(&scale), Some(&zero)]).unwrap();
        assert_eq!(w[..4], [6.5, 0.0, 3.0, -1.0]);
    }
}
