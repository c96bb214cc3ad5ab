//! Matrix products with what follows them: a row of biases, a factor, a residual sum, an activation.

use super::super::meaning as read;
use super::convolutions::derived;
use super::{Item, Walk, Work};
use crate::ir::{Node, NodeId, ValueId};
use crate::kernels::few_bits::FewBits;
use crate::kernels::{Act, BinaryOp, FewBitsProduct, Kind};
use crate::ops::Op;
use crate::ops::cast::Cast;
use crate::ops::matmul::MatMul;
use crate::ops::nbits::NBits;
use crate::ops::qlinear::QLinear;
use crate::ops::quant::Quant;
use crate::tensor::{DType, Pages, Tensor};
use std::sync::Arc;

impl Walk<'_> {
    /// A product with packed weights: they are unpacked once, here.
    pub(super) fn nbits(&self, id: NodeId, node: &Node, out: ValueId) -> Option<Item> {
        let Op::NBits(op @ NBits::Product { n, k, transposed, .. }) = &node.op else { return None };
        let a = node.inputs[0].filter(|a| !self.is_static(*a))?;
        let (ad, _) = (self.dims(a)?, self.dims(out)?);
        let mut packed = Vec::with_capacity(node.inputs.len());
        for (i, v) in node.inputs.iter().enumerate() {
            packed.push(match v {
                Some(v) if i > 0 => Some(self.value(*v)?),
                _ => None,
            });
        }
        let product = Op::MatMul(MatMul::Broadcast { trans_a: false, trans_b: *transposed, alpha: 1.0 });
        let mut task = read::matmul(&product, &ad, &[*n, *k])?;
        if let Some(bias) = node.inputs.get(5).copied().flatten() {
            task.bias = Some(self.row_vector(bias, task.n)?);
        }
        if let (Some(c), Some(Some(data))) = (op.coded(&packed), packed.get(1)) {
            let weights = FewBits {
                k: *k,
                n: *n,
                bits: c.bits,
                signed: false,
                by_column: true,
                row_bytes: c.row_bytes,
                block: c.block,
                scales: Pages::holding(&c.scales),
                zeros: Pages::holding(&one_if_equal(c.zeros)),
                data: Arc::new((*data).clone()),
            };
            return self.few_bits(self.product(id, task, vec![a], out, Act::None)?, weights, false);
        }
        task.b = Some(Tensor::from_vec(op.weights(&packed).ok()?, &[*n, *k]).ok()?);
        self.product(id, task, vec![a], out, Act::None)
    }

    /// A product made one with weights in few bits.
    fn few_bits(&self, mut item: Item, weights: FewBits, rounded: bool) -> Option<Item> {
        let Work::Kernel(kind) = item.work else { return None };
        let Kind::MatMul(product) = *kind else { return None };
        weights.fits().then_some(())?;
        let few = FewBitsProduct { product, weights: Arc::new(weights), rounded };
        item.work = Work::Kernel(Box::new(Kind::FewBits(few)));
        Some(item)
    }

    /// Products of bytes whose data is quantised on the way: DynamicQuantizeLinear, MatMulInteger, Cast, and the product with both scales,
    /// as ONNX Runtime's quantiser writes them. Each step rounds the data for itself; the first covers the node that does it.
    pub(super) fn dynamic_products(&mut self) -> Vec<Item> {
        let mut items = Vec::new();
        for (id, node) in self.graph.iter() {
            if node.is_static || !matches!(node.op, Op::Quant(Quant::Dynamic)) {
                continue;
            }
            // All readers or none: somebody else would need the bytes.
            let Some(found) = self.products_of_bytes(id, node) else { continue };
            for item in &found {
                item.covers.iter().for_each(|c| self.covered[c.0 as usize] = true);
            }
            items.extend(found);
        }
        items
    }

    fn products_of_bytes(&self, id: NodeId, node: &Node) -> Option<Vec<Item>> {
        let x = node.inputs[0].filter(|x| !self.is_static(*x))?;
        let (codes, scale) = (node.outputs[0]?, node.outputs.get(1).copied().flatten()?);
        let outputs = || node.outputs.iter().flatten();
        if outputs().any(|v| self.is_output[v.0 as usize]) {
            return None;
        }
        let mut items: Vec<Item> = Vec::new();
        for &reader in &self.readers[codes.0 as usize] {
            items.push(self.product_of_bytes(reader, x, codes, scale, node.outputs.get(2).copied().flatten())?);
        }
        let first = items.first_mut()?;
        first.covers.push(id);
        let all: Vec<NodeId> = items.iter().flat_map(|i| i.covers.iter().copied()).collect();
        outputs().all(|v| self.readers[v.0 as usize].iter().all(|r| all.contains(r))).then_some(items)
    }

    fn product_of_bytes(
        &self,
        id: NodeId,
        x: ValueId,
        codes: ValueId,
        scale: ValueId,
        zero: Option<ValueId>,
    ) -> Option<Item> {
        let node = self.graph.node(id);
        let input = |i: usize| node.inputs.get(i).copied().flatten();
        let plain = matches!(node.op, Op::QLinear(QLinear::MatMul { requantize: false })) && input(0) == Some(codes);
        (plain && (input(2) == zero) && !self.covered[id.0 as usize]).then_some(())?;
        let data = self.value(input(1)?).filter(|_| input(1).is_some_and(|w| self.is_static(w)))?;
        let &[k, n] = data.dims() else { return None };
        let signed = match data.dtype() {
            DType::U8 => false,
            DType::I8 => true,
            _ => return None,
        };
        let zeros: Vec<f32> = match input(3) {
            None => vec![0.0],
            Some(z) => {
                let z: Vec<f32> = self.value(z)?.to_f64s().ok()?.into_iter().map(|v| v as f32).collect();
                match z.len() {
                    len if len == 1 || len == n => one_if_equal(z),
                    _ => return None,
                }
            }
        };
        // i32 → f32, times (scale of the data · scale of the weights).
        let sum = self.output(id)?;
        let cast = self.sole_reader(sum)?;
        let cast_node = self.graph.node(cast);
        matches!(cast_node.op, Op::Cast(Cast::Cast { .. })).then_some(())?;
        let real = self.output(cast)?;
        self.dims(real)?;
        let mul = self.sole_reader(real)?;
        let mul_node = self.graph.node(mul);
        (read::binary(mul_node)? == BinaryOp::Mul).then_some(())?;
        let both = self.other(mul_node, real)?;
        let (scales_id, scales_node) = self.producer(both)?;
        (read::binary(scales_node)? == BinaryOp::Mul && self.sole_reader(both)? == mul).then_some(())?;
        let own = self.other(scales_node, scale)?;
        let scales = self.row_vector(own, n).filter(|_| self.is_static(own))?;
        let out = self.output(mul)?;
        (self.dims(out)? == self.dims(real)?).then_some(())?;
        let product = Op::MatMul(MatMul::Broadcast { trans_a: false, trans_b: false, alpha: 1.0 });
        let task = read::matmul(&product, &self.dims(x)?, &[k, n])?;
        let weights = FewBits {
            k,
            n,
            bits: 8,
            signed,
            by_column: false,
            row_bytes: n,
            block: k.max(1),
            scales: Pages::holding(&scales),
            zeros: Pages::holding(&zeros),
            data: Arc::new(data.clone()),
        };
        let mut item = self.few_bits(self.product(mul, task, vec![x], out, Act::None)?, weights, true)?;
        item.covers.splice(0..0, [id, cast, scales_id]);
        Some(item)
    }

    pub(super) fn matmul(&self, id: NodeId, node: &Node, op: &Op, out: ValueId, act: Act) -> Option<Item> {
        let (a, b) = (node.inputs[0]?, node.inputs[1]?);
        let (ad, bd) = (self.dims(a)?, self.dims(b)?);
        if self.is_static(a) {
            return None;
        }
        let mut task = read::matmul(op, &ad, &bd)?;
        let mut srcs = vec![a];
        if self.is_static(b) && task.batch_b.iter().all(|&d| d == 1) {
            task.b = Some(self.value(b)?.clone());
        } else {
            srcs.push(b);
        }
        if let Some((c, beta)) = read::gemm_bias(node, op) {
            let v = self.row_vector(c, task.n)?;
            task.bias = Some(v.into_iter().map(|x| x * beta).collect());
        }
        self.product(id, task, srcs, out, act)
    }

    /// A product with what follows it; nothing does if it has an activation already.
    pub(super) fn product(
        &self,
        id: NodeId,
        mut task: crate::kernels::MatMul,
        mut srcs: Vec<ValueId>,
        out: ValueId,
        act: Act,
    ) -> Option<Item> {
        let (mut covers, mut out) = (vec![id], out);
        self.dims(out)?;
        if act != Act::None {
            task.act = act;
            return Some(self.finish(Kind::MatMul(task), covers, srcs, out));
        }
        // Row-vector bias, then a scalar factor when nothing was added yet; changes of dims between do not matter.
        loop {
            let (seen, views) = self.past_views(out);
            let Some(next) = self.sole_reader(seen) else { break };
            let follower = self.graph.node(next);
            if let Some(after) = self.columns_scaled(&mut task, (next, follower), seen) {
                covers.extend(views);
                covers.push(next);
                out = after;
                continue;
            }
            let Some(op) = read::binary(follower) else { break };
            let Some(c) = self.other(follower, seen).filter(|c| self.is_static(*c)) else { break };
            let Some(after) = self.output(next).filter(|v| self.dims(*v) == self.dims(seen)) else { break };
            match op {
                BinaryOp::Add if task.bias.is_none() => {
                    let rows = self.dims(seen)?.last() == Some(&task.n);
                    let Some(v) = self.row_vector(c, task.n).filter(|_| rows || self.scalar(c).is_some()) else {
                        break;
                    };
                    task.bias = Some(v);
                }
                BinaryOp::Mul if task.bias.is_none() && self.scalar(c).is_some() => task.alpha *= self.scalar(c)?,
                BinaryOp::Div
                    if task.bias.is_none()
                        && follower.inputs[0] == Some(seen)
                        && self.scalar(c).is_some_and(|s| s != 0.0) =>
                {
                    task.alpha /= self.scalar(c)?;
                }
                _ => break,
            }
            covers.extend(views);
            covers.push(next);
            out = after;
        }
        let (seen, views) = self.past_views(out);
        if let Some((other, after, next)) = self.residual(seen, id) {
            srcs.push(other);
            covers.extend(views);
            covers.push(next);
            out = after;
            task.residual = true;
        }
        let (seen, views) = self.past_views(out);
        let (act, after, more) = self.activation(seen);
        if act != Act::None {
            covers.extend(views);
            covers.extend(more);
            out = after;
        }
        task.act = act;
        Some(self.finish(Kind::MatMul(task), covers, srcs, out))
    }

    /// What scales (and shifts) the columns of a product `seen` with constant weights goes into them and the bias: BatchNormalization, or a
    /// factor for each column, as the layer scale of CaiT (Touvron et al. 2021, equation 4). Gives the result of that node.
    fn columns_scaled(
        &self,
        task: &mut crate::kernels::MatMul,
        (next, follower): (NodeId, &Node),
        seen: ValueId,
    ) -> Option<ValueId> {
        let (dims, n) = (self.dims(seen)?, task.n);
        (dims.last() == Some(&n) && n > 0).then_some(())?;
        let after = self.output(next).filter(|v| self.dims(*v).as_ref() == Some(&dims))?;
        let (scale, shift) = if follower.op_type == "BatchNormalization" {
            (follower.inputs.first() == Some(&Some(seen)) && dims.len() == 2).then_some(())?;
            self.batch_norm(follower)?
        } else {
            let factors = self.other(follower, seen).filter(|c| self.is_static(*c))?;
            (read::binary(follower)? == BinaryOp::Mul && self.scalar(factors).is_none()).then_some(())?;
            (self.row_vector(factors, n)?, vec![0.0; n])
        };
        (scale.len() == n && shift.len() == n).then_some(())?;
        let (weights, by_row) = (task.b.as_ref()?, task.trans_b);
        let (k, bits) = (task.k.max(1), scale.iter().map(|s| s.to_bits()).collect::<Vec<u32>>());
        let factors = scale.clone();
        task.b = Some(derived(weights, weights.dims(), ("columns scaled", by_row, bits), move |mut values| {
            if by_row {
                values.chunks_mut(k).zip(&factors).for_each(|(row, s)| row.iter_mut().for_each(|w| *w *= s));
            } else {
                values.chunks_mut(n).for_each(|row| row.iter_mut().zip(&factors).for_each(|(w, s)| *w *= s));
            }
            values
        })?);
        if task.bias.is_some() || shift.iter().any(|s| *s != 0.0) {
            let mut bias = task.bias.take().unwrap_or_else(|| vec![0.0; n]);
            bias.iter_mut().zip(scale.iter().zip(&shift)).for_each(|(b, (s, t))| *b = *b * s + t);
            task.bias = Some(bias);
        }
        Some(after)
    }

    /// A constant that is one number per column (`[n]`, `[1, n]` …), or one for all.
    pub(super) fn row_vector(&self, v: ValueId, n: usize) -> Option<Vec<f32>> {
        let t = self.value(v)?;
        let values = t.view::<f32>().ok()?;
        if values.len() == 1 {
            return Some(vec![values[0]; n]);
        }
        (values.len() == n && t.dims().last() == Some(&n)).then(|| values.to_vec())
    }
}

/// One value where all are the same: it need not be read per block.
fn one_if_equal(mut zeros: Vec<f32>) -> Vec<f32> {
    if zeros.iter().all(|&z| Some(&z) == zeros.first()) {
        zeros.truncate(1);
    }
    zeros
}
