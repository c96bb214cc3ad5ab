//! Dense convolutions: what blocks take the place of.

use super::{Reason, illegal};
use crate::ir::{Graph, Source, Value, ValueId};
use crate::ops::conv::Conv;
use crate::ops::spec::NodeSpec;
use crate::ops::{Op, window::Axis};
use crate::tensor::{DType, Tensor};
use std::collections::HashMap;

/// A dense two-dimensional convolution with learned float weights.
#[derive(Debug, Clone)]
pub struct Site {
    /// Its node's name.
    pub name: String,
    /// Name of its input.
    pub x: String,
    /// Name of its output.
    pub y: String,
    /// Name of its weights.
    pub weight_name: String,
    /// Its weights, `[oc, ic, kh, kw]`.
    pub weight: Tensor,
    /// Name and values of its bias.
    pub bias: Option<(String, Tensor)>,
    /// Batch.
    pub n: usize,
    /// Input channels.
    pub ic: usize,
    /// Output channels.
    pub oc: usize,
    /// Height and width, each with kernel, stride, dilation, pads and sizes.
    pub axes: [Axis; 2],
}

impl Site {
    /// The kernel, if it is square.
    pub fn square(&self) -> Option<usize> {
        (self.axes[0].k == self.axes[1].k).then_some(self.axes[0].k)
    }
    /// Taps of the kernel.
    pub fn taps(&self) -> usize {
        self.axes[0].k * self.axes[1].k
    }
    /// Whether it mixes channels of one position only.
    pub fn is_pointwise(&self) -> bool {
        self.taps() == 1
    }
    /// Whether every axis has stride and dilation 1 and keeps its size.
    pub fn keeps_size(&self) -> bool {
        self.axes.iter().all(|a| a.s == 1 && a.o == a.i)
    }
    /// `conv 3x3 64->128 @56x56` as [`super::layer::LayerSpec`] reads it, with what differs from the usual.
    pub fn words(&self) -> String {
        let [a, b] = self.axes;
        let mut out = format!("conv {}x{} {}->{} @{}x{}", a.k, b.k, self.ic, self.oc, a.i, b.i);
        for (mark, value) in [("s", a.s), ("d", a.d), ("n", self.n)] {
            if value != 1 {
                out.push_str(&format!(" {mark}{value}"));
            }
        }
        if [a, b].iter().any(|x| x.begin != (x.k - 1) * x.d / 2) {
            out.push_str(&format!(" p{}", a.begin));
        }
        out
    }

    /// The site at a convolution node of the model as written, with its built graph; or why it is none.
    pub fn at(
        node: &NodeSpec,
        graph: &Graph,
        values: &HashMap<&str, ValueId>,
        readers: &HashMap<String, usize>,
    ) -> Result<Site, Reason> {
        let value = |i: usize| node.inputs.get(i).and_then(|n| values.get(n.as_str())).map(|&id| graph.value(id));
        let Some(out) = node.outputs.first().and_then(|n| values.get(n.as_str())).map(|&id| graph.value(id)) else {
            return illegal("belongs to a branch that is not taken");
        };
        let Source::Node(id, 0) = out.source else { return illegal("is computed before the model runs") };
        let built = graph.node(id);
        let Op::Conv(conv) = &built.op else { return illegal("is not a convolution") };
        let (Some(x), Some(w)) = (value(0), value(1)) else { return illegal("has no weights") };
        if conv.group != 1 {
            let wc = w.fact.shape.dim(1);
            return illegal(match wc {
                Some(1) => "is depthwise already".to_string(),
                _ => format!("has {} groups already", conv.group),
            });
        }
        let (Some(xd), Some(wd)) = (x.fact.shape.concrete(), w.fact.shape.concrete()) else {
            return illegal("its sizes are not known before a run");
        };
        let Some(weight) = w.constant.clone().filter(|_| w.source == Source::Constant) else {
            return illegal("its weights are computed (quantised or mixed), not stored");
        };
        if weight.dtype() != DType::F32 || x.fact.dtype != Some(DType::F32) {
            return illegal(format!("computes in {}", weight.dtype()));
        }
        if readers.get(&node.inputs[1]).copied().unwrap_or(0) > 1 {
            return illegal("shares its weights with another layer");
        }
        let bias = match (node.has_input(2), value(2)) {
            (false, _) => None,
            (true, Some(v)) => match stored(graph, v) {
                Some(t) => Some((node.inputs[2].clone(), t)),
                None => return illegal("its bias is computed, not stored"),
            },
            (true, None) => return illegal("its bias is computed, not stored"),
        };
        let Some((geometry, axes)) = resolved(conv, &xd, &wd) else {
            return illegal(format!("has {} spatial axes", xd.len().saturating_sub(2)));
        };
        Ok(Site {
            name: built.name.clone(),
            x: node.inputs[0].clone(),
            y: node.outputs[0].clone(),
            weight_name: node.inputs[1].clone(),
            weight,
            bias,
            n: geometry.n,
            ic: geometry.ic,
            oc: geometry.oc,
            axes,
        })
    }
}

/// A stored tensor, also under another name: exporters keep equal tensors once and write Identity for the others.
fn stored(graph: &Graph, v: &Value) -> Option<Tensor> {
    match v.source {
        Source::Constant => v.constant.clone(),
        Source::Node(id, 0) if graph.node(id).op_type == "Identity" => {
            stored(graph, graph.value(graph.node(id).inputs.first().copied().flatten()?))
        }
        _ => None,
    }
}

fn resolved(conv: &Conv, x: &[usize], w: &[usize]) -> Option<(crate::ops::conv::Geometry, [Axis; 2])> {
    let geometry = conv.geometry(x, w).ok()?;
    let axes: [Axis; 2] = geometry.axes.clone().try_into().ok()?;
    Some((geometry, axes))
}
