//! Which constants of a file are learned.
//!
//! A file does not say which of its constants were trained. The rule, in order:
//!
//! 1. A constant is looked at where it meets data: at the inputs of nodes that run per inference. Constants behind static nodes
//!    (a transposed or dequantised weight) are traced back to what the file stores.
//! 2. Inputs an operator defines as weights (Conv `W`, `B`; Gemm `B`, `C`; LSTM `W`, `R`, `B`; normalisation scale and bias; PRelu
//!    slope; the table of a Gather) are learned; running statistics have their own column; shapes, axes, indices, quantisation scales and
//!    zero points are not learned.
//! 3. A floating-point constant of at least two elements that is combined with data by an operator without such roles (Add, Mul,
//!    MatMul, Concat, Expand …) is learned, unless its values show otherwise: all equal (a fill), one of two (a mask), or lines that obey
//!    a two-term recurrence (a formula made them: positions, frequencies, sines; see [`Why`]). So is not a constant that is only moved
//!    about and whose name the exporter made up, nor anything that goes through a sine or cosine. Comparisons, selections and limits (Where, Min, Max, Pow, Clip …) take settings, not weights.
//! 4. What operators of `ai.onnx.ml` hold in attributes is learned where training fits it (coefficients, intercepts, support vectors, split
//!    values and leaves of trees) and statistics where it describes the data (means, scales, document frequencies); see [`Held`].
//!    Class labels, vocabularies and the structure of trees are neither.
//! 5. Each stored tensor counts once, however often it is used; packed types count their elements, not their bytes.

use crate::ir::{Graph, Node, NodeId, Source, ValueId};
use crate::ops::{Body, Held, Role};
use crate::tensor::Tensor;
use foldhash::{HashMap, HashMapExt};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Why a constant does not count as learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Why {
    /// Shapes, axes, indices, limits, quantisation parameters: defined as such by the operator.
    Setting,
    /// Not floating point and in no weight slot.
    Integer,
    /// A single number (an epsilon, a scale factor).
    Scalar,
    /// All elements equal: a fill (zero states, uniform scales).
    Fill,
    /// Only two distinct values: a mask.
    Mask,
    /// Made by a formula: positions, frequencies, sines, anchors.
    Computed,
    /// Read by no node that runs per inference.
    Unused,
}

impl Why {
    /// A few words for reports.
    pub fn words(self) -> &'static str {
        match self {
            Why::Setting => "a setting of an operator (shape, axis, index, limit, quantisation scale)",
            Why::Integer => "integers outside a weight slot",
            Why::Scalar => "a single number",
            Why::Fill => "all elements equal",
            Why::Mask => "a mask (two distinct values)",
            Why::Computed => "made by a formula (positions, frequencies, anchors)",
            Why::Unused => "read by no node",
        }
    }
}

/// A constant that does not count, and why.
#[derive(Debug, Clone)]
pub struct Excluded {
    /// Its name.
    pub name: String,
    /// Number of elements.
    pub elements: u64,
    /// The reason.
    pub why: Why,
}

/// What was taken for learned in a graph and its subgraphs.
#[derive(Debug, Clone, Default)]
pub struct ParamCount {
    /// Learned elements, each stored tensor once.
    pub total: u64,
    /// Their bytes as stored.
    pub bytes: u64,
    /// BatchNormalization statistics.
    pub statistics: u64,
    /// Constants with at least two elements that do not count.
    pub excluded: Vec<Excluded>,
    /// The learned tensors that the file holds, by name; those computed at load time from others are not among them.
    pub tensors: Vec<(String, Tensor)>,
    rows: HashMap<NodeId, (u64, u64, u64)>,
}

impl ParamCount {
    /// For a node of the top graph: learned elements first used there, learned elements shared with an earlier node, statistics.
    pub fn of(&self, node: NodeId) -> (u64, u64, u64) {
        self.rows.get(&node).copied().unwrap_or_default()
    }
}

/// The strongest thing known of a constant; a weight somewhere is a weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Not(Why),
    Statistic,
    Learned,
}

/// Operators whose data inputs are settings when constant: they compare, select or limit.
const SETTING_OPS: &[&str] = &[
    "Where",
    "Pow",
    "Min",
    "Max",
    "Mod",
    "Clip",
    "Equal",
    "Greater",
    "Less",
    "GreaterOrEqual",
    "LessOrEqual",
    "And",
    "Or",
    "Xor",
    "Not",
    "Range",
    "ScatterND",
    "ScatterElements",
    "Scatter",
    "OneHot",
    "NonMaxSuppression",
    "RoiAlign",
    "Resize",
    "Upsample",
    "TopK",
    "Shape",
    "Size",
    "ConstantOfShape",
    "Loop",
    "Scan",
    "SequenceMap",
    "SequenceInsert",
    "IsNaN",
    "IsInf",
];

/// Applies the rule to a graph.
pub fn learned(graph: &Graph) -> ParamCount {
    judged(graph).0
}

/// Applies the rule to a graph; captured constants are not counted but listed, by capture number, for the graph they belong to.
fn judged(graph: &Graph) -> (ParamCount, Vec<(usize, Verdict)>) {
    let mut verdicts: BTreeMap<ValueId, (Verdict, Vec<NodeId>)> = BTreeMap::new();
    let mut inner = ParamCount::default();
    let mut tracer = Tracer { graph, known: HashMap::new() };
    // What constants hold that are packed into fewer elements.
    let mut packed: HashMap<ValueId, u64> = HashMap::new();
    for (id, node) in graph.iter().filter(|(_, n)| !n.is_static) {
        let mut rule_inputs = None;
        for (i, v) in node.inputs.iter().enumerate() {
            let Some(v) = *v else { continue };
            let captured = i >= node.inputs.len() - node.captured;
            if captured || !graph.value(v).is_static {
                continue;
            }
            let held = node.op.family().elements_of(i, rule_inputs.get_or_insert_with(|| graph.rule_inputs(node)));
            for &(root, verdict) in tracer.trace(v, Use::of(node, i), 0).iter() {
                let entry = verdicts.entry(root).or_insert((verdict, Vec::new()));
                entry.0 = entry.0.max(verdict);
                entry.1.push(id);
                if let Some(n) = held.filter(|_| verdict == Verdict::Learned) {
                    packed.insert(root, n);
                }
            }
        }
        let held = node.op.family().held();
        if held != Held::default() {
            let row = inner.rows.entry(id).or_default();
            row.0 += held.learned;
            row.2 += held.statistics;
            inner.total += held.learned;
            inner.bytes += held.learned.saturating_mul(held.width);
            inner.statistics += held.statistics;
        }
        for (body, outer) in bodies(node) {
            let Some(body) = body.as_any().downcast_ref::<Graph>() else { continue };
            let outer: Vec<Option<ValueId>> = outer;
            let (in_body, captured) = judged(body);
            for (capture, verdict) in captured {
                let Some(v) = outer.get(capture).copied().flatten() else { continue };
                let role = match verdict {
                    Verdict::Learned => Role::Weight,
                    Verdict::Statistic => Role::Statistic,
                    Verdict::Not(_) => Role::Setting,
                };
                let use_ = Use { role, moved: false, scales: false, quantized: false };
                for &(root, by_role) in tracer.trace(v, use_, 0).iter() {
                    // What the body found out about a constant says more than that it is no weight.
                    let verdict = if matches!(verdict, Verdict::Not(_)) { verdict } else { by_role };
                    let entry = verdicts.entry(root).or_insert((verdict, Vec::new()));
                    entry.0 = entry.0.max(verdict);
                    entry.1.push(id);
                }
            }
            let row = inner.rows.entry(id).or_default();
            row.0 += in_body.total;
            row.2 += in_body.statistics;
            inner.total += in_body.total;
            inner.bytes += in_body.bytes;
            inner.statistics += in_body.statistics;
            inner.excluded.extend(in_body.excluded);
            inner.tensors.extend(in_body.tensors);
            // An outer constant that the body reads is judged where the body reads it.
            for (inner_id, outer) in body.captures().iter().zip(outer).filter_map(|(i, o)| Some((*i, o?))) {
                if !graph.value(outer).is_static || body.value(inner_id).is_static {
                    continue;
                }
                for reader in body.nodes() {
                    for (i, v) in reader.inputs.iter().enumerate() {
                        if *v == Some(inner_id) {
                            for &(root, verdict) in tracer.trace(outer, Use::of(reader, i), 0).iter() {
                                let entry = verdicts.entry(root).or_insert((verdict, Vec::new()));
                                entry.0 = entry.0.max(verdict);
                                entry.1.push(id);
                            }
                        }
                    }
                }
            }
        }
    }
    let mut count = inner;
    let mut captured = Vec::new();
    for (root, (verdict, users)) in &verdicts {
        let value = graph.value(*root);
        if let Source::Capture(number) = value.source {
            captured.push((number, *verdict));
            continue;
        }
        let elements = packed.get(root).copied().unwrap_or_else(|| value.fact.elements().unwrap_or(0) as u64);
        let mut users = users.clone();
        users.dedup();
        match verdict {
            Verdict::Learned => {
                count.total += elements;
                count.bytes += value.fact.bytes().unwrap_or(0);
                if let Some(t) = &value.constant {
                    count.tensors.push((value.name.clone(), t.clone()));
                }
                for (k, id) in users.iter().enumerate() {
                    let row = count.rows.entry(*id).or_default();
                    *if k == 0 { &mut row.0 } else { &mut row.1 } += elements;
                }
            }
            Verdict::Statistic => {
                count.statistics += elements;
                if let Some(id) = users.first() {
                    count.rows.entry(*id).or_default().2 += elements;
                }
            }
            Verdict::Not(why) if elements > 1 => {
                count.excluded.push(Excluded { name: value.name.clone(), elements, why: *why });
            }
            Verdict::Not(_) => {}
        }
    }
    for (i, value) in graph.values().iter().enumerate() {
        let elements = value.fact.elements().unwrap_or(0) as u64;
        if value.source == Source::Constant && elements > 1 && !verdicts.contains_key(&ValueId(i as u32)) {
            count.excluded.push(Excluded { name: value.name.clone(), elements, why: Why::Unused });
        }
    }
    (count, captured)
}

/// The subgraphs of a node, each with the outer values it captures.
fn bodies(node: &Node) -> Vec<(Arc<dyn Body>, Vec<Option<ValueId>>)> {
    let mut captured = node.inputs[node.inputs.len() - node.captured..].iter().copied();
    let all = node.op.family().bodies().into_iter();
    all.map(|body| {
        let outer = captured.by_ref().take(body.captures()).collect();
        (body, outer)
    })
    .collect()
}

fn role_of(node: &Node, i: usize) -> Role {
    match node.op.family().role(i) {
        Role::Data if SETTING_OPS.contains(&node.op_type.as_str()) => Role::Setting,
        role => role,
    }
}

/// How a constant is used where it meets data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Use {
    role: Role,
    /// It is only moved about, not combined with data.
    moved: bool,
    /// It multiplies data or is added to it, one number per channel.
    scales: bool,
    /// Integers stand for real numbers there.
    quantized: bool,
}

impl Use {
    fn of(node: &Node, i: usize) -> Use {
        let role = role_of(node, i);
        let scales = role == Role::Data && matches!(node.op_type.as_str(), "Add" | "Mul");
        Use { role, moved: is_move(node), scales, quantized: node.op_type.starts_with("QLinear") }
    }
}

fn is_move(node: &Node) -> bool {
    matches!(
        node.op_type.as_str(),
        "Expand" | "Tile" | "Concat" | "Reshape" | "Slice" | "Unsqueeze" | "Squeeze" | "Transpose"
    )
}

/// Constants behind a static value, each with what its use says of it.
type Judged = Arc<[(ValueId, Verdict)]>;

/// Follows static values back to the file's constants and judges each. Chains are shared between many uses (masks, position
/// tables), so what is found is kept.
struct Tracer<'g> {
    graph: &'g Graph,
    known: HashMap<(ValueId, Use), Judged>,
}

impl Tracer<'_> {
    fn trace(&mut self, v: ValueId, used: Use, depth: usize) -> Judged {
        if let Some(known) = self.known.get(&(v, used)) {
            return known.clone();
        }
        let found = self.find(v, used, depth);
        self.known.insert((v, used), found.clone());
        found
    }

    fn find(&mut self, v: ValueId, used: Use, depth: usize) -> Judged {
        // Static chains in files are short; the limit only bounds hostile ones.
        if depth > 64 {
            return Arc::new([]);
        }
        let value = self.graph.value(v);
        let Source::Node(id, _) = value.source else {
            return Arc::new([(v, judge(&value.name, value.constant.as_ref(), value.fact.dtype, used))]);
        };
        let node = self.graph.node(id);
        // A shape is no part of what it is the shape of.
        if matches!(node.op_type.as_str(), "Shape" | "Size") {
            return Arc::new([]);
        }
        // Some files write a weight as a size and a fill: an untrained weight is a weight.
        let float = value.fact.dtype.is_some_and(|d| d.is_float());
        if node.op_type == "ConstantOfShape" && float && (used.role == Role::Weight || used.scales) {
            return Arc::new([(v, Verdict::Learned)]);
        }
        let mut all: BTreeMap<ValueId, Verdict> = BTreeMap::new();
        for (i, input) in node.inputs.iter().enumerate() {
            let Some(input) = *input else { continue };
            // Through a static node, its own settings stay settings, and what it does not single out keeps the consumer's role.
            // Angles are not learned.
            let role = match (used.role, role_of(node, i)) {
                (Role::Setting, _) | (_, Role::Setting) => Role::Setting,
                _ if matches!(node.op_type.as_str(), "Sin" | "Cos" | "Range") => Role::Setting,
                // A look-up at load time only moves: what is looked up is judged by what becomes of it.
                (role, Role::Weight) if node.op_type == "Gather" => role,
                (_, Role::Weight) => Role::Weight,
                (_, Role::Statistic) => Role::Statistic,
                (role, Role::Data) => role,
            };
            // A scale or shift is at most given other dims on its way; what is computed from fills is a mask.
            let scales =
                used.scales && matches!(node.op_type.as_str(), "Unsqueeze" | "Squeeze" | "Reshape" | "Identity");
            let moved = used.moved || matches!(node.op_type.as_str(), "Expand" | "Tile" | "Concat" | "Slice");
            for (root, verdict) in self.trace(input, Use { role, scales, moved, ..used }, depth + 1).iter() {
                let entry = all.entry(*root).or_insert(*verdict);
                *entry = (*entry).max(*verdict);
            }
        }
        all.into_iter().collect()
    }
}

/// Names exporters make up for constants they computed.
fn is_made_up(name: &str) -> bool {
    name.starts_with("onnx::")
        || name.contains("Constant_")
        || name.strip_prefix("val_").is_some_and(|d| d.parse::<u64>().is_ok())
}

fn judge(name: &str, constant: Option<&Tensor>, dtype: Option<crate::tensor::DType>, used: Use) -> Verdict {
    let float = dtype.is_some_and(|d| d.is_float());
    match used.role {
        Role::Setting => Verdict::Not(Why::Setting),
        Role::Statistic => Verdict::Statistic,
        Role::Weight => Verdict::Learned,
        Role::Data if !float && !used.quantized => Verdict::Not(Why::Integer),
        Role::Data => match constant {
            Some(t) if t.len() <= 1 => Verdict::Not(Why::Scalar),
            Some(_) if used.moved && is_made_up(name) => Verdict::Not(Why::Computed),
            Some(t) => formula(t).map_or(Verdict::Learned, Verdict::Not),
            None => Verdict::Learned,
        },
    }
}

/// Tables larger than this are not looked into: reading them would page weights in.
const LARGEST_TABLE: usize = 1 << 20;

/// Whether a constant's values show that nothing learned them.
fn formula(t: &Tensor) -> Option<Why> {
    // The zoo's seeded weights are weights, and looking at them would make them.
    if t.len() > LARGEST_TABLE || t.is_lazy() {
        return None;
    }
    // Read where they lie, and no further than it takes: of a weight that is one page, not its whole.
    if let Ok(raw) = t.f32_bytes() {
        return pattern(t.dims(), raw.len(), |i| f32::from_ne_bytes(raw[i]).into());
    }
    let values = t.to_f64s().ok()?;
    pattern(t.dims(), values.len(), |i| values[i])
}

/// What a table of values follows, if anything.
fn pattern(dims: &[usize], len: usize, at: impl Fn(usize) -> f64) -> Option<Why> {
    let first = at(0);
    let mut second = None;
    // Learned values differ within the first few, so this rarely looks further.
    if (0..len).map(&at).all(|v| v == first || *second.get_or_insert(v) == v) {
        return match second {
            None => Some(Why::Fill),
            Some(_) if dims.iter().filter(|&&d| d > 1).count() >= 2 => Some(Why::Mask),
            Some(_) => None,
        };
    }
    let mut inner = len;
    for &d in dims {
        inner /= d.max(1);
        if d >= SHORTEST_LINE && obeys_recurrence(&at, len, d, inner) {
            return Some(Why::Computed);
        }
    }
    None
}

/// Lines shorter than this prove nothing.
const SHORTEST_LINE: usize = 8;

/// Whether every line along an axis of `d` steps, `inner` values apart, satisfies `x[i+1] + x[i−1] = c·x[i]` with one `c` per line:
/// arithmetic (c = 2) and geometric sequences, sines and cosines do; learned values do not.
fn obeys_recurrence(at: impl Fn(usize) -> f64, len: usize, d: usize, inner: usize) -> bool {
    let block = d * inner;
    (0..len.checked_div(block).unwrap_or(0)).all(|b| {
        (0..inner).all(|k| {
            let x = |i: usize| at(b * block + i * inner + k);
            let (mut xy, mut xx, mut yy) = (0.0, 0.0, 0.0);
            for i in 1..d - 1 {
                let y = x(i + 1) + x(i - 1);
                xy += x(i) * y;
                xx += x(i) * x(i);
                yy += y * y;
            }
            // The residual of the best c, relative to the values.
            let residual = if xx > 0.0 { yy - xy * xy / xx } else { yy };
            residual <= 1e-6 * (xx + yy) || xx + yy == 0.0
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(f: impl Fn(usize, usize) -> f64) -> Tensor {
        Tensor::from_vec(
            (0..64).flat_map(|i| (0..16).map(move |j| (i, j))).map(|(i, j)| f(i, j) as f32).collect(),
            &[1, 64, 16],
        )
        .unwrap()
    }

    #[test]
    fn formulas_are_recognised_and_weights_are_not() {
        let frequency = |j: usize| 10000f64.powf(-(j as f64) / 16.0);
        assert_eq!(formula(&table(|i, j| (i as f64 * frequency(j)).cos())), Some(Why::Computed));
        assert_eq!(formula(&table(|i, j| (i as f64 * frequency(j)).sin())), Some(Why::Computed));
        assert_eq!(formula(&table(|i, _| i as f64)), Some(Why::Computed));
        assert_eq!(formula(&table(|_, j| frequency(j))), Some(Why::Computed));
        assert_eq!(formula(&table(|i, j| if j > i { -1e9 } else { 0.0 })), Some(Why::Mask));
        assert_eq!(formula(&table(|_, _| 0.5)), Some(Why::Fill));
        assert_eq!(formula(&crate::ops::sample::floats(&[8, 64], 3)), None);
        assert_eq!(formula(&crate::ops::sample::floats(&[768], 4)), None);
    }
}
