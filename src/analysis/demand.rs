//! What a step must do at least, when it does the work of some nodes at once: the multiplications of the best algorithm known for it,
//! and the bytes that come from outside and go outside. The input of a roofline.

use super::Analysis;
use crate::ir::{Graph, Node, NodeId, Source, ValueId};
use crate::ops::Op;
use crate::ops::conv::Geometry;
use std::collections::{HashMap, HashSet};

/// The least work of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Demand {
    /// Multiply-adds as counted.
    pub madds: u64,
    /// Multiply-adds of the algorithm that needs fewest; its transformations are in it, an addition as one.
    pub best_madds: u64,
    /// Other floating-point operations.
    pub other_flops: u64,
    /// Activations read from outside.
    pub read_bytes: u64,
    /// Results written that somebody outside reads.
    pub write_bytes: u64,
    /// Weights read.
    pub weight_bytes: u64,
    /// The algorithm that needs fewest multiplications for the largest part: `direct`, `direct, cropped` (without taps
    /// that meet only padding), `winograd 4x4`, `winograd 2x2`, `strassen`.
    pub algorithm: &'static str,
}

impl Demand {
    /// All bytes.
    pub fn bytes(&self) -> u64 {
        self.read_bytes.saturating_add(self.write_bytes).saturating_add(self.weight_bytes)
    }
}

/// Answers what sets of nodes of one graph must do.
pub struct Demands<'a> {
    graph: &'a Graph,
    analysis: &'a Analysis,
    /// Who reads each value; graph outputs are read by nobody listed.
    readers: HashMap<ValueId, Vec<NodeId>>,
}

impl<'a> Demands<'a> {
    /// Of a graph with its counts.
    pub fn new(graph: &'a Graph, analysis: &'a Analysis) -> Demands<'a> {
        let mut readers: HashMap<ValueId, Vec<NodeId>> = HashMap::new();
        for (id, node) in graph.iter() {
            for v in node.inputs.iter().flatten() {
                readers.entry(*v).or_default().push(id);
            }
        }
        Demands { graph, analysis, readers }
    }

    /// Bytes between two uses of a weight: all weights, and activations at their peak.
    pub fn resident_bytes(&self) -> u64 {
        let t = &self.analysis.totals;
        t.traffic.weight_bytes.saturating_add(t.peak_activation_bytes.unwrap_or(0))
    }

    /// What the given nodes must do in one step; `None` where the cost of one is not known.
    pub fn of(&self, covers: &[NodeId]) -> Option<Demand> {
        let mut d = Demand { algorithm: "direct", ..Demand::default() };
        let mut largest = 0;
        for id in covers {
            let row = self.analysis.rows.get(id.0 as usize)?;
            let (work, traffic) = (row.work()?, row.traffic?);
            let (best, algorithm) = best_madds(self.graph, self.graph.node(*id), work.madds);
            if work.madds > largest {
                (largest, d.algorithm) = (work.madds, algorithm);
            }
            d.madds = d.madds.saturating_add(work.madds);
            d.best_madds = d.best_madds.saturating_add(best);
            d.other_flops = d.other_flops.saturating_add(work.other_flops);
            d.read_bytes = d.read_bytes.saturating_add(traffic.read_bytes);
            d.write_bytes = d.write_bytes.saturating_add(traffic.write_bytes);
            d.weight_bytes = d.weight_bytes.saturating_add(traffic.weight_bytes);
        }
        if covers.len() > 1 {
            self.take_out_inner(covers, &mut d);
        }
        Some(d)
    }

    /// Takes out what flows between nodes of the step: it need never leave the registers.
    fn take_out_inner(&self, covers: &[NodeId], d: &mut Demand) {
        let graph = self.graph;
        let inside: HashSet<NodeId> = covers.iter().copied().collect();
        let bytes = |v: ValueId| graph.value(v).fact.bytes().unwrap_or(0);
        let mut read_once = HashSet::new();
        for id in covers {
            for v in graph.node(*id).inputs.iter().flatten().copied().collect::<HashSet<_>>() {
                let is_inner = matches!(graph.value(v).source, Source::Node(from, _) if inside.contains(&from));
                // What several nodes of the step read comes in once.
                if !graph.value(v).is_static && (is_inner || !read_once.insert(v)) {
                    d.read_bytes = d.read_bytes.saturating_sub(bytes(v));
                }
            }
            for v in graph.node(*id).outputs.iter().flatten() {
                let read_outside = self.readers.get(v).is_some_and(|r| r.iter().any(|n| !inside.contains(n)));
                if !read_outside && !graph.outputs().contains(v) {
                    d.write_bytes = d.write_bytes.saturating_sub(bytes(*v));
                }
            }
        }
    }
}

/// Fewest channels in and out at which the transformations of Winograd's algorithm pay in principle.
const WINOGRAD_CHANNELS: usize = 16;

/// Fewest rows, values of k and columns at which a product of halves less pays in principle.
const STRASSEN_SIZES: [u64; 3] = [32, 256, 96];

/// Multiply-adds of the best algorithm for a node, and its name. Winograd's F(m×m, 3×3) for dense 3×3 convolutions of stride 1:
/// `(m+2)²` products per tile and channel pair instead of `9·m²`, plus the transformation of each tile (operations of Lavin and
/// Gray, 2015: 32 in and 24 out for m = 2, 156 and 100 for m = 4; that of the weights is done once). Strassen's, one level deep, for products
/// with constants and pointwise convolutions.
fn best_madds(graph: &Graph, node: &Node, direct: u64) -> (u64, &'static str) {
    if let Op::MatMul(_) = node.op {
        let fewer = constant_product(graph, node, direct).and_then(|[m, k, n]| strassen(m, k, n));
        return fewer.map_or((direct, "direct"), |fewer| (fewer, "strassen"));
    }
    let Some(g) = geometry(graph, node) else { return (direct, "direct") };
    if g.g == 1 && g.axes.iter().all(|a| (a.k, a.s, a.begin, a.end) == (1, 1, 0, 0)) {
        let pixels: u64 = g.axes.iter().map(|a| a.o as u64).product();
        let fewer = strassen(pixels, g.ic as u64, g.oc as u64).map(|f| f.saturating_mul(g.n as u64));
        return fewer.map_or((direct, "direct"), |fewer| (fewer, "strassen"));
    }
    // Taps that meet only padding need no product.
    if let Some(fewer) = g.cropped().and_then(|(g, _)| g.work()).filter(|w| w.madds < direct) {
        return (fewer.madds, "direct, cropped");
    }
    let plain = g.axes.len() == 2 && g.axes.iter().all(|a| (a.k, a.s, a.d) == (3, 1, 1));
    if !plain || g.g != 1 || g.ic.min(g.oc) < WINOGRAD_CHANNELS {
        return (direct, "direct");
    }
    let with = |m: usize, into: u64, out: u64| {
        let tiles = g.n as u64 * g.axes.iter().map(|a| a.o.div_ceil(m) as u64).product::<u64>();
        let points = ((m + 2) * (m + 2)) as u64;
        let (ic, oc) = (g.ic as u64, g.oc as u64);
        let per_tile = points.saturating_mul(ic.saturating_mul(oc)).saturating_add(into * ic + out * oc);
        tiles.saturating_mul(per_tile)
    };
    [(direct, "direct"), (with(4, 156, 100), "winograd 4x4"), (with(2, 32, 24), "winograd 2x2")]
        .into_iter()
        .min_by_key(|(n, _)| *n)
        .unwrap_or((direct, "direct"))
}

/// Seven products of halves and 15 sums of quarters, of which the 4 of the constant matrix can be made once (Strassen, 1969, in Winograd's form).
fn strassen(m: u64, k: u64, n: u64) -> Option<u64> {
    let enough = [m, k, n].iter().zip(STRASSEN_SIZES).all(|(&size, fewest)| size >= fewest);
    let halves = m.div_ceil(2).saturating_mul(k.div_ceil(2)).saturating_mul(n.div_ceil(2));
    let sums = (m * k).saturating_add((m * n).saturating_mul(7).div_ceil(4));
    let fewer = halves.saturating_mul(7).saturating_add(sums);
    (enough && fewer < m.saturating_mul(k).saturating_mul(n)).then_some(fewer)
}

/// Rows, values of k and columns of a product whose right-hand side is one constant matrix.
fn constant_product(graph: &Graph, node: &Node, direct: u64) -> Option<[u64; 3]> {
    let right = graph.value(node.inputs.get(1).copied().flatten()?);
    let dims = right.fact.shape.concrete()?;
    let size: usize = dims.iter().product();
    let out = graph.value(node.outputs.first().copied().flatten()?).fact.shape.concrete()?;
    let n = *out.last()?;
    (right.is_static && dims.iter().filter(|&&d| d != 1).count() == 2 && n > 0).then_some(())?;
    let k = (size / n) as u64;
    (k > 0 && k * n as u64 == size as u64).then(|| [direct / (k * n as u64), k, n as u64])
}

fn geometry(graph: &Graph, node: &Node) -> Option<Geometry> {
    let Op::Conv(conv) = &node.op else { return None };
    let dims = |i: usize| graph.value(node.inputs.get(i).copied().flatten()?).fact.shape.concrete();
    conv.geometry(&dims(0)?, &dims(1)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::analyze;
    use crate::ir::{Bindings, build};
    use crate::ops::sample;
    use crate::ops::spec::{Attr, DimSpec, GraphSpec, ModelSpec, NodeSpec, ValueSpec};
    use crate::tensor::{Container, DType};

    fn model(channels: usize) -> crate::ir::Model {
        let value = |name: &str, dims: &[usize]| ValueSpec {
            name: name.into(),
            dtype: Some(DType::F32),
            shape: Some(dims.iter().map(|&d| DimSpec::Size(d)).collect()),
            container: Container::Tensor,
        };
        let node = |op: &str, inputs: &[&str], output: &str, attrs: &[(&str, Attr)]| NodeSpec {
            name: output.into(),
            op_type: op.into(),
            inputs: inputs.iter().map(ToString::to_string).collect(),
            outputs: vec![output.into()],
            attrs: attrs.iter().map(|(k, v)| (k.to_string(), v.clone())).collect(),
            opset: 17,
            ..NodeSpec::default()
        };
        let nodes = vec![
            node("Conv", &["x", "w"], "c", &[("pads", Attr::Ints(vec![1; 4]))]),
            node("Relu", &["c"], "r", &[]),
            node("Add", &["r", "x"], "y", &[]),
        ];
        let dims = [1, channels, 8, 8];
        let spec = ModelSpec {
            graph: GraphSpec {
                name: "m".into(),
                nodes,
                inputs: vec![value("x", &dims)],
                outputs: vec![value("y", &dims)],
                initializers: vec![("w".into(), sample::floats(&[channels, channels, 3, 3], 1))],
                value_info: vec![],
            },
            opsets: vec![(String::new(), 17)],
            ..ModelSpec::default()
        };
        build(&spec, &Bindings::default()).unwrap()
    }

    #[test]
    fn fused_nodes_move_only_what_crosses_the_border() {
        let m = model(16);
        let a = analyze(&m.graph);
        let map = 16 * 64 * 4;
        let all: Vec<NodeId> = (0..3).map(NodeId).collect();
        let d = Demands::new(&m.graph, &a).of(&all).unwrap();
        // x once, though the convolution and the addition both read it; y; the weights.
        assert_eq!((d.read_bytes, d.write_bytes, d.weight_bytes), (map, map, 16 * 16 * 9 * 4));
        let two = Demands::new(&m.graph, &a).of(&all[..2]).unwrap();
        assert_eq!((two.read_bytes, two.write_bytes), (map, map));
        let last = Demands::new(&m.graph, &a).of(&all[2..]).unwrap();
        assert_eq!((last.read_bytes, last.write_bytes), (2 * map, map));
    }

    #[test]
    fn winograd_counts_where_it_needs_fewer_multiplications() {
        let m = model(16);
        let d = Demands::new(&m.graph, &analyze(&m.graph)).of(&[NodeId(0)]).unwrap();
        assert_eq!(d.madds, 16 * 16 * 9 * 64);
        // Four tiles of 4x4: 36 products for each pair of channels, 156 + 100 operations per channel.
        assert_eq!((d.best_madds, d.algorithm), (4 * (36 * 256 + 256 * 16), "winograd 4x4"));
        let m = model(8);
        let d = Demands::new(&m.graph, &analyze(&m.graph)).of(&[NodeId(0)]).unwrap();
        assert_eq!((d.best_madds, d.algorithm), (d.madds, "direct"));
    }

    #[test]
    fn strassen_counts_where_it_needs_fewer_multiplications() {
        // 128 x 768 x 3072: seven eighths, four sums of quarters of A, seven of C.
        let sums = 128 * 768 + 7 * 128 * 3072 / 4;
        assert_eq!(strassen(128, 768, 3072), Some(7 * 64 * 384 * 1536 + sums));
        assert_eq!(strassen(1, 768, 3072), None);
        assert_eq!(strassen(3136, 64, 256), None);
    }
}
