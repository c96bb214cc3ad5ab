//! Eight-bit integers in the form that runtimes recognise: QuantizeLinear and DequantizeLinear around convolutions and products.
//!
//! Weights are signed, symmetric and scaled per output channel; activations unsigned and scaled per tensor over the range they were
//! seen to take; biases 32-bit at the product of both scales. On paper the multiply-adds become ones of int8.

use super::draft::Change;
use super::{Choice, Draft, Editor, Entry, Make, Reason};
use crate::error::Result;
use crate::ops::spec::{Attr, GraphSpec, ModelSpec, NodeSpec, ValueSpec};
use crate::tensor::{DType, Tensor};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

/// The table's row.
pub static ENTRY: Entry = Entry {
    name: "int8",
    about: "weights and activations of products in 8 bits",
    knobs: &[],
    make: Make::Model(quantize),
};

/// Smallest and largest value of an activation.
pub type Range = (f32, f32);
/// Ranges of activations by name.
pub type Ranges = BTreeMap<String, Range>;

fn has_weights(node: &NodeSpec) -> bool {
    node.domain.is_empty() && matches!(node.op_type.as_str(), "Conv" | "Gemm" | "MatMul")
}

/// Activations whose ranges quantisation must know, and the model with these as its outputs, to be run for them.
pub fn watched(spec: &ModelSpec) -> (Vec<String>, ModelSpec) {
    let constants: Vec<&str> = spec.graph.initializers.iter().map(|(n, _)| n.as_str()).collect();
    let mut names: Vec<String> = Vec::new();
    for node in spec.graph.nodes.iter().filter(|n| has_weights(n)) {
        let (Some(x), Some(w)) = (node.inputs.first(), node.inputs.get(1)) else { continue };
        if constants.contains(&w.as_str()) && !names.contains(x) {
            names.push(x.clone());
        }
    }
    let outputs = names.iter().map(|n| ValueSpec { name: n.clone(), dtype: Some(DType::F32), ..ValueSpec::default() });
    let graph = GraphSpec { outputs: outputs.collect(), ..spec.graph.clone() };
    (names, ModelSpec { graph, ..spec.clone() })
}

/// Weights in 8 bits with a scale per output channel.
struct Codes {
    codes: Vec<i8>,
    scales: Vec<f32>,
}

/// `rows` output channels; element `i` of the tensor belongs to channel `i / inner % rows`.
fn encode(weight: &Tensor, rows: usize, inner: usize) -> Codes {
    let w = weight.view::<f32>().map(|v| v.into_owned()).unwrap_or_default();
    let channel = |i: usize| i / inner.max(1) % rows.max(1);
    let mut largest = vec![0f32; rows];
    w.iter().enumerate().for_each(|(i, v)| largest[channel(i)] = largest[channel(i)].max(v.abs()));
    let scales: Vec<f32> = largest.iter().map(|m| if *m > 0.0 { m / 127.0 } else { 1.0 }).collect();
    let code = |(i, v): (usize, &f32)| (v / scales[channel(i)]).round_ties_even().clamp(-127.0, 127.0) as i8;
    Codes { codes: w.iter().enumerate().map(code).collect(), scales }
}

/// Scale and zero point of an unsigned code for a range, zero always among its values.
fn activation_code((low, high): Range) -> (f32, u8) {
    let (low, high) = (low.min(0.0), high.max(0.0));
    let scale = if high > low { (high - low) / 255.0 } else { 1.0 };
    (scale, (-low / scale).round_ties_even().clamp(0.0, 255.0) as u8)
}

fn quantize(draft: &mut Draft, _: &Choice) -> Result<()> {
    if let Err(why) = draft.raise_opset(13) {
        draft.leave("model", "", Reason::Illegal(why));
        return Ok(());
    }
    let names = draft.names();
    let readers = draft.readers();
    let opset = draft.spec.opset("");
    let mut ed = Editor::new("int8", opset, &names);
    let nodes = std::mem::take(&mut draft.spec.graph.nodes);
    let mut out = Vec::with_capacity(nodes.len());
    let mut coded: HashMap<String, (String, f32)> = HashMap::new();
    for mut node in nodes {
        if !has_weights(&node) {
            out.push(node);
            continue;
        }
        let (x, w) = (node.inputs[0].clone(), node.inputs.get(1).cloned().unwrap_or_default());
        let weight = draft.constant(&w).cloned();
        let turned = node.flag("transB", false)?;
        // Axis of the output channels, their number, and how many numbers lie between one and the next.
        let place = weight.as_ref().and_then(|t| match (node.op_type.as_str(), t.dims()) {
            ("Conv", [oc, rest @ ..]) => Some((0, *oc, rest.iter().product::<usize>())),
            ("Gemm", [n, k]) if turned => Some((0, *n, *k)),
            ("Gemm" | "MatMul", [_, n]) => Some((1, *n, 1)),
            _ => None,
        });
        let reason = match (&weight, place, draft.policy.ranges.get(&x)) {
            (None, ..) => Some("its weights are not stored as an initializer".to_string()),
            (Some(t), ..) if t.dtype() != DType::F32 => Some(format!("its weights are {}", t.dtype())),
            (_, None, _) => Some("its weights have more dims than channels and inputs".to_string()),
            (.., None) => Some("the range of its input was not seen".to_string()),
            (.., Some((low, high))) if !(low.is_finite() && high.is_finite()) => {
                Some("its input takes values that are not finite".to_string())
            }
            _ if readers.get(&w).copied().unwrap_or(0) > 1 => Some("shares its weights with another layer".to_string()),
            _ => None,
        };
        let (Some(weight), Some((axis, rows, inner)), None) = (weight, place, &reason) else {
            draft.leave(&node.name, node.op_type.clone(), Reason::Illegal(reason.unwrap_or_default()));
            out.push(node);
            continue;
        };
        let range = draft.policy.ranges[&x];
        if !coded.contains_key(&x) {
            let (scale, zero) = activation_code(range);
            let s = ed.constant(&format!("{x}_scale"), Tensor::scalar(scale));
            let z = ed.constant(&format!("{x}_zero"), Tensor::scalar(zero));
            let q = ed.node(&format!("{x}_quantize"), "QuantizeLinear", &[&x, &s, &z], &[]);
            let back = ed.node(&format!("{x}_dequantize"), "DequantizeLinear", &[&q, &s, &z], &[]);
            coded.insert(x.clone(), (back, scale));
        }
        let (back, x_scale) = coded[&x].clone();
        node.inputs[0] = back;
        let dims = weight.dims().to_vec();
        let shared: Arc<OnceLock<Codes>> = Arc::default();
        let codes = {
            let shared = shared.clone();
            move || -> Arc<OnceLock<Codes>> {
                shared.get_or_init(|| encode(&weight, rows, inner));
                shared.clone()
            }
        };
        let taken = |c: &Arc<OnceLock<Codes>>, f: &dyn Fn(&Codes) -> Vec<f32>| c.get().map(f).unwrap_or_default();
        let (c1, c2, c3) = (codes.clone(), codes.clone(), codes);
        let w8 = Tensor::lazy(&dims, move || c1().get().map(|c| c.codes.clone()).unwrap_or_default())?;
        let w_scale = Tensor::lazy(&[rows], move || taken(&c2(), &|c| c.scales.clone()))?;
        let q = ed.constant(&format!("{w}_int8"), w8);
        let s = ed.constant(&format!("{w}_scale"), w_scale);
        let z = ed.constant(&format!("{w}_zero"), Tensor::from_vec(vec![0i8; rows], &[rows])?);
        let attrs = [("axis", Attr::Int(axis))];
        node.inputs[1] = ed.node(&format!("{w}_dequantize"), "DequantizeLinear", &[&q, &s, &z], &attrs);
        // A bias that is stored and has a value per channel joins in; scaled products (Gemm's alpha and beta) keep theirs as it is.
        let plain = node.opt_float("alpha")?.unwrap_or(1.0) == 1.0 && node.opt_float("beta")?.unwrap_or(1.0) == 1.0;
        let b = node.inputs.get(2).cloned().unwrap_or_default();
        if let Some(bias) =
            draft.constant(&b).filter(|t| t.dims() == [rows] && t.dtype() == DType::F32 && plain).cloned()
        {
            let (c4, c5) = (c3.clone(), c3);
            let b32 = Tensor::lazy(&[rows], move || {
                let scales = c4().get().map(|c| c.scales.clone()).unwrap_or_default();
                let values = bias.view::<f32>().map(|v| v.into_owned()).unwrap_or_default();
                let code = |(v, s): (&f32, &f32)| (v / (s * x_scale)).round_ties_even() as i32;
                values.iter().zip(&scales).map(code).collect::<Vec<i32>>()
            })?;
            let scale = Tensor::lazy(&[rows], move || {
                c5().get().map(|c| c.scales.iter().map(|s| s * x_scale).collect()).unwrap_or_default()
            })?;
            let q = ed.constant(&format!("{b}_int32"), b32);
            let s = ed.constant(&format!("{b}_scale"), scale);
            let attrs = [("axis", Attr::Int(0))];
            node.inputs[2] = ed.node(&format!("{b}_dequantize"), "DequantizeLinear", &[&q, &s], &attrs);
        }
        out.append(&mut ed.nodes);
        draft.changed(Change::of(&node.name, node.op_type.clone()));
        out.push(node);
    }
    draft.spec.graph.nodes = out;
    draft.spec.graph.initializers.append(&mut ed.initializers);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_reach_the_ends_and_zero_is_exact() {
        let t = Tensor::from_vec(vec![1.0f32, -0.496, 0.25, 0.0, -2.54, 1.28], &[2, 3]).unwrap();
        let c = encode(&t, 2, 3);
        assert_eq!(c.codes, [127, -63, 32, 0, -127, 64]);
        assert!((c.scales[0] - 1.0 / 127.0).abs() < 1e-9 && (c.scales[1] - 0.02).abs() < 1e-7);
        // The same numbers with channels along the last axis.
        assert_eq!(encode(&t, 3, 1).scales.len(), 3);
        assert_eq!(activation_code((0.0, 2.55)).1, 0);
        // 127.5, rounded either way.
        assert!([127, 128].contains(&activation_code((-1.0, 1.0)).1));
        // A range on one side still holds zero.
        let (scale, zero) = activation_code((1.0, 5.1));
        assert!((scale - 0.02).abs() < 1e-6 && zero == 0);
        assert_eq!(activation_code((0.0, 0.0)), (1.0, 0));
    }
}
