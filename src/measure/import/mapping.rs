//! Which source nodes a measured row covers.
//!
//! Names come first: runtimes keep the name of a node or of its result, with their own additions around it. Rows without such a name
//! are placed by what they do, in the order of the run, between neighbours that are placed. Then every row takes in what its operator
//! says it holds (a convolution named after the activation behind it), and nodes nobody names go to the row that makes their input,
//! or else to the row that reads their result: that is what fusing does.

use super::words::{holds, is_heavy, is_move, kinds};
use super::{By, Row};
use crate::ir::{Graph, NodeId, Source, ValueId};
use crate::ops::Access;
use std::collections::{HashMap, HashSet, VecDeque};

/// Source nodes by row, and how they were found.
pub(super) fn map(rows: &[Row], graph: &Graph) -> Vec<(Vec<NodeId>, By)> {
    let mut m = Mapper::new(rows, graph);
    m.by_name();
    // What named rows hold is not free for those without a name.
    m.take_in();
    m.by_order();
    m.take_in();
    m.beside();
    m.spread();
    m.finish()
}

struct Mapper<'a> {
    rows: &'a [Row],
    graph: &'a Graph,
    /// Row of each node.
    row_of: Vec<Option<usize>>,
    /// Nodes that gave a row its place.
    anchors: Vec<(Vec<usize>, By)>,
    readers: HashMap<ValueId, Vec<usize>>,
}

/// Characters that end a name inside a longer one.
fn is_boundary(c: char) -> bool {
    !c.is_alphanumeric()
}

/// What TensorRT's Myelin puts behind a name.
const MYELIN: &str = "_myl";
/// Names longer than this are not searched inside.
const LONGEST_NAME: usize = 4096;
/// Most cells of an alignment; longer sequences are placed greedily.
const MOST_CELLS: usize = 1 << 26;
/// When regions get their nodes: after rows that name them, before rows that mention them.
const REGIONS: usize = 4;

impl<'a> Mapper<'a> {
    fn new(rows: &'a [Row], graph: &'a Graph) -> Mapper<'a> {
        let mut readers: HashMap<ValueId, Vec<usize>> = HashMap::new();
        for (i, node) in graph.nodes().iter().enumerate() {
            for v in node.inputs.iter().flatten() {
                readers.entry(*v).or_default().push(i);
            }
        }
        let anchors = vec![(Vec::new(), By::Nothing); rows.len()];
        Mapper { rows, graph, row_of: vec![None; graph.nodes().len()], anchors, readers }
    }

    fn runs(&self, i: usize) -> bool {
        !self.graph.nodes()[i].is_static
    }

    fn producers(&self, i: usize) -> impl Iterator<Item = usize> + '_ {
        self.graph.nodes()[i].inputs.iter().flatten().filter_map(|v| match self.graph.value(*v).source {
            Source::Node(id, _) if !self.graph.node(id).is_static => Some(id.0 as usize),
            _ => None,
        })
    }

    fn consumers(&self, i: usize) -> impl Iterator<Item = usize> + '_ {
        let outputs = self.graph.nodes()[i].outputs.iter().flatten();
        outputs.flat_map(|v| self.readers.get(v).into_iter().flatten().copied()).filter(|&c| self.runs(c))
    }

    fn give(&mut self, node: usize, row: usize) {
        self.row_of[node].get_or_insert(row);
    }

    /// Rows whose names hold names of nodes or of their results.
    fn by_name(&mut self) {
        let mut names: HashMap<&str, usize> = HashMap::new();
        let graph = self.graph;
        for (i, node) in graph.nodes().iter().enumerate().filter(|(_, n)| !n.is_static) {
            for v in node.outputs.iter().flatten() {
                names.entry(&graph.value(*v).name).or_insert(i);
            }
        }
        // A node's own name beats a value of the same name.
        for (i, node) in graph.nodes().iter().enumerate().filter(|(_, n)| !n.is_static) {
            names.insert(&node.name, i);
        }
        names.remove("");
        // TensorRT's Myelin writes names with `_` for `.` and a number of its own behind.
        let flat: Vec<(String, usize)> = if self.rows.iter().any(|r| r.name.contains(MYELIN)) {
            names.iter().filter(|(n, _)| n.contains('.')).map(|(n, i)| (n.replace('.', "_"), *i)).collect()
        } else {
            Vec::new()
        };
        flat.iter().for_each(|(n, i)| _ = names.entry(n).or_insert(*i));
        // Nodes by row, and whether a row says just that name.
        let mut said: Vec<Vec<(usize, bool)>> = Vec::with_capacity(self.rows.len());
        for (r, row) in self.rows.iter().enumerate() {
            let exact = row.parts.iter().filter_map(|p| names.get(p.as_str()).map(|&i| (i, true)));
            let mut found: Vec<(usize, bool)> = exact.collect();
            if found.is_empty() {
                let name = row.names.as_deref().unwrap_or(&row.name);
                found = found_in(name.split_once(MYELIN).map_or(name, |(n, _)| n), &names);
            }
            // What a layout change serves is not what it is.
            found.retain(|&(i, _)| self.runs(i));
            let mut seen = HashSet::new();
            found.retain(|&(i, _)| seen.insert(i));
            if !found.is_empty() {
                self.anchors[r] = (found.iter().map(|f| f.0).collect(), By::Name);
            }
            said.push(found);
        }
        // A row that says just a node's name, of the fitting operator, owns it before one of an operator nobody knows, those before
        // rows whose names hold it among other words, and these before regions and rows that merely mention it.
        for tier in 0..7 {
            if tier == REGIONS {
                self.regions(&names);
                continue;
            }
            for (r, found) in said.iter().enumerate() {
                for &(node, exact) in found {
                    let op = &self.rows[r].op;
                    let its = match (kinds(op).is_empty(), self.fits(r, node)) {
                        (false, true) => 2 * usize::from(!exact),
                        (true, _) if !is_move(op) => 1 + 2 * usize::from(!exact),
                        _ => 5 + usize::from(!exact),
                    };
                    if its == tier {
                        self.give(node, r);
                    }
                }
            }
        }
    }

    /// `{ForeignNode[first...last]}`: the nodes up the stream from the last to the first that no row names.
    fn regions(&mut self, names: &HashMap<&str, usize>) {
        let mut readers: Option<HashMap<&str, usize>> = None;
        for r in 0..self.rows.len() {
            let Some((first, last)) = region(&self.rows[r].name) else { continue };
            if is_move(&self.rows[r].op) {
                continue;
            }
            let ends: Vec<usize> = found_in(last, names).iter().map(|f| f.0).filter(|&i| self.runs(i)).collect();
            // A region may begin at a weight or a constant: then with the first node that reads it.
            let readers = readers.get_or_insert_with(|| self.first_readers());
            let start = found_in(first, names).iter().map(|f| f.0).filter(|&i| self.runs(i)).min();
            let start = start.or_else(|| found_in(first, readers).iter().map(|f| f.0).min()).unwrap_or(0);
            let mut todo = ends;
            todo.iter().for_each(|&i| self.give(i, r));
            while let Some(at) = todo.pop() {
                let above: Vec<usize> =
                    self.producers(at).filter(|&p| p >= start && self.row_of[p].is_none()).collect();
                for p in above {
                    self.give(p, r);
                    todo.push(p);
                }
            }
        }
    }

    /// By name of a weight, an input, or a constant node or its result: the first running node that reads it, also through other constants.
    fn first_readers(&self) -> HashMap<&'a str, usize> {
        let graph = self.graph;
        let mut of_value: HashMap<ValueId, usize> = HashMap::new();
        let mut out: HashMap<&str, usize> = HashMap::new();
        for (i, node) in graph.nodes().iter().enumerate().rev() {
            let outputs = node.outputs.iter().flatten();
            let read = if node.is_static { outputs.filter_map(|v| of_value.get(v).copied()).min() } else { Some(i) };
            let Some(read) = read else { continue };
            if node.is_static {
                out.insert(&node.name, read);
            }
            for v in node.inputs.iter().flatten() {
                let first = of_value.entry(*v).or_insert(read);
                *first = (*first).min(read);
            }
        }
        for (v, i) in of_value {
            let value = graph.value(v);
            if !matches!(value.source, Source::Node(id, _) if !graph.node(id).is_static) {
                out.insert(&value.name, i);
            }
        }
        out.remove("");
        out
    }

    /// Whether a row's operator can be a node's.
    fn fits(&self, row: usize, node: usize) -> bool {
        let mine = kinds(&self.rows[row].op);
        mine.is_empty() || kinds(&self.graph.nodes()[node].op_type).iter().any(|k| mine.contains(k))
    }

    /// Whether a node is a convolution with a window of one element.
    fn is_pointwise(&self, node: usize) -> bool {
        let n = &self.graph.nodes()[node];
        let window = n.inputs.get(1).copied().flatten().and_then(|v| self.graph.value(v).fact.shape.concrete());
        kinds(&n.op_type).contains(&"conv") && window.is_some_and(|w| w.len() > 2 && w[2..].iter().all(|&d| d == 1))
    }

    /// How well an unnamed row fits a node: 0 not at all.
    fn score(&self, row: usize, node: usize) -> u32 {
        let (r, n) = (&self.rows[row], &self.graph.nodes()[node]);
        let mine = kinds(&r.op);
        let is_product = || mine.contains(&"pointwise") && self.is_pointwise(node);
        if !kinds(&n.op_type).iter().any(|k| mine.contains(k)) && !is_product() {
            return 0;
        }
        let elements = |d: &[usize]| d.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        let of = |v: Option<&Option<ValueId>>| {
            let fact = &self.graph.value((*v?)?).fact;
            fact.shape.concrete().and_then(|d| elements(&d))
        };
        let same = |a: Option<usize>, b: Option<usize>| a.zip(b).map(|(a, b)| a == b);
        let output = same(of(n.outputs.first()), r.output.as_deref().and_then(elements));
        let input = same(of(n.inputs.first()), r.inputs.first().and_then(|d| elements(d)));
        let second = same(of(n.inputs.get(1)), r.inputs.get(1).and_then(|d| elements(d)));
        match (output, input, second) {
            (Some(false), ..) => 0,
            (None, Some(false), Some(false)) => 0,
            (o, i, s) => 2 + [o, i, s].iter().filter(|x| **x == Some(true)).count() as u32,
        }
    }

    /// Rows without a name, placed in the order of the run among the nodes that no row has yet: the alignment that fits best.
    fn by_order(&mut self) {
        let rows: Vec<usize> = (0..self.rows.len())
            .filter(|&r| self.anchors[r].0.is_empty() && !self.rows[r].merged && !kinds(&self.rows[r].op).is_empty())
            .collect();
        let nodes: Vec<usize> = (0..self.row_of.len())
            .filter(|&i| self.runs(i) && self.row_of[i].is_none() && !kinds(&self.graph.nodes()[i].op_type).is_empty())
            .collect();
        if rows.is_empty() || nodes.is_empty() {
            return;
        }
        // Rows that are placed bound where the others can be: a row's nodes lie between those of its placed neighbours, roughly.
        let pairs = if rows.len().saturating_mul(nodes.len()) <= MOST_CELLS {
            self.aligned(&rows, &nodes)
        } else {
            self.greedy(&rows, &nodes)
        };
        for (r, i) in pairs {
            self.anchors[r] = (vec![i], By::Order);
            self.give(i, r);
        }
    }

    /// Rows that are a part of what a neighbour does: a normalization the exporter folded into the convolution before it, or one that the
    /// runtime does in two rows of which the other has the name.
    fn beside(&mut self) {
        for r in 1..self.rows.len() {
            let (before, by) = self.anchors[r - 1].clone();
            let heavy = before.iter().copied().find(|&i| is_heavy(&self.graph.nodes()[i].op_type));
            if self.anchors[r].0.is_empty() && by != By::Nothing && kinds(&self.rows[r].op).contains(&"batchnorm") {
                self.anchors[r] = heavy.map_or((Vec::new(), By::Nothing), |i| (vec![i], By::Order));
            }
        }
        let is_norm = |op: &str| kinds(op).contains(&"layernorm");
        let rows: Vec<usize> =
            (0..self.rows.len()).filter(|&r| self.anchors[r].0.is_empty() && is_norm(&self.rows[r].op)).collect();
        let nodes: Vec<usize> =
            (0..self.row_of.len()).filter(|&i| self.runs(i) && is_norm(&self.graph.nodes()[i].op_type)).collect();
        // Only where there is one for each: otherwise which is which would be a guess.
        if rows.len() == nodes.len() {
            for (r, i) in rows.into_iter().zip(nodes) {
                self.anchors[r] = (vec![i], By::Order);
                self.give(i, r);
            }
        }
    }

    fn aligned(&self, rows: &[usize], nodes: &[usize]) -> Vec<(usize, usize)> {
        let width = nodes.len() + 1;
        let mut best = vec![0u32; (rows.len() + 1) * width];
        for a in (0..rows.len()).rev() {
            for b in (0..nodes.len()).rev() {
                let score = self.score(rows[a], nodes[b]);
                let with = if score > 0 { score + best[(a + 1) * width + b + 1] } else { 0 };
                best[a * width + b] = with.max(best[(a + 1) * width + b]).max(best[a * width + b + 1]);
            }
        }
        let (mut a, mut b, mut pairs) = (0, 0, Vec::new());
        while a < rows.len() && b < nodes.len() {
            let here = best[a * width + b];
            let score = self.score(rows[a], nodes[b]);
            if score > 0 && here == score + best[(a + 1) * width + b + 1] {
                pairs.push((rows[a], nodes[b]));
                (a, b) = (a + 1, b + 1);
            } else if here == best[(a + 1) * width + b] {
                a += 1;
            } else {
                b += 1;
            }
        }
        pairs
    }

    fn greedy(&self, rows: &[usize], nodes: &[usize]) -> Vec<(usize, usize)> {
        const AHEAD: usize = 256;
        let (mut b, mut pairs) = (0, Vec::new());
        for &r in rows {
            let window = b..nodes.len().min(b + AHEAD);
            if let Some(k) = window.into_iter().find(|&k| self.score(r, nodes[k]) > 0) {
                pairs.push((r, nodes[k]));
                b = k + 1;
            }
        }
        pairs
    }

    /// Nodes that a row's operator says it holds, up the stream from its anchor through nodes nobody has.
    fn take_in(&mut self) {
        for r in 0..self.rows.len() {
            let (anchors, by) = self.anchors[r].clone();
            let Some(&anchor) = anchors.first().filter(|_| by != By::Nothing) else { continue };
            if self.row_of[anchor] != Some(r) {
                continue;
            }
            let row = &self.rows[r];
            let mine = kinds(&row.op);
            if mine.contains(&"attention") {
                self.reach(r, anchor, true, &|op| is_heavy(op));
                self.reach(r, anchor, false, &|op| is_heavy(op));
                continue;
            }
            if !mine.is_empty() && !anchors.iter().any(|&i| self.fits(r, i)) {
                self.reach(r, anchor, true, &|op| kinds(op).iter().any(|k| mine.contains(k)));
            }
            for kind in holds(&row.op) {
                let up = *kind == "add";
                self.reach(r, anchor, up, &|op| kinds(op).contains(kind));
            }
        }
    }

    /// Gives a row the nodes on the way from one of its own to the nearest wanted one, through nodes nobody has.
    fn reach(&mut self, row: usize, from: usize, up: bool, wanted: &dyn Fn(&str) -> bool) {
        const FARTHEST: usize = 12;
        let mut came: HashMap<usize, usize> = HashMap::new();
        let mut todo = VecDeque::from([(from, 0)]);
        while let Some((at, far)) = todo.pop_front() {
            let next: Vec<usize> = if up { self.producers(at).collect() } else { self.consumers(at).collect() };
            for n in next {
                if far >= FARTHEST || n == from || self.row_of[n].is_some() || came.contains_key(&n) {
                    continue;
                }
                came.insert(n, at);
                let op = &self.graph.nodes()[n].op_type;
                if wanted(op) {
                    let mut at = n;
                    while at != from {
                        self.give(at, row);
                        at = came[&at];
                    }
                    return;
                }
                // What does work of its own is no part of the way.
                if !is_heavy(op) {
                    todo.push_back((n, far + 1));
                }
            }
        }
    }

    /// Nodes nobody has: to the latest row that makes their input, or else to the earliest that reads their result.
    fn spread(&mut self) {
        let n = self.row_of.len();
        for i in 0..n {
            if self.row_of[i].is_none() && self.runs(i) && !is_heavy(&self.graph.nodes()[i].op_type) {
                self.row_of[i] = self.producers(i).filter_map(|p| self.row_of[p]).max();
            }
        }
        // Work that a row without a place may have done is not its neighbours'.
        let placeless = (0..self.rows.len()).filter(|&r| self.anchors[r].0.is_empty());
        let open: HashSet<&str> = placeless.flat_map(|r| kinds(&self.rows[r].op)).copied().collect();
        let free = |m: &Self, i: usize| {
            let op = &m.graph.nodes()[i].op_type;
            let is_open = kinds(op).iter().any(|k| open.contains(k)) || open.contains("pointwise") && m.is_pointwise(i);
            m.row_of[i].is_none() && m.runs(i) && !(is_heavy(op) && is_open)
        };
        for i in (0..n).rev() {
            if free(self, i) {
                self.row_of[i] = self.consumers(i).filter_map(|c| self.row_of[c]).min();
            }
        }
        for i in 0..n {
            if free(self, i) {
                self.row_of[i] = self.producers(i).filter_map(|p| self.row_of[p]).max();
            }
        }
    }

    fn finish(self) -> Vec<(Vec<NodeId>, By)> {
        let mut covers: Vec<Vec<usize>> = vec![Vec::new(); self.rows.len()];
        for (i, row) in self.row_of.iter().enumerate() {
            if let Some(r) = row {
                covers[*r].push(i);
            }
        }
        // First what carries the work, so that a report shows the time where the arithmetic is.
        for (own, (anchors, _)) in covers.iter_mut().zip(&self.anchors) {
            own.sort_by_key(|&i| {
                (!is_heavy(&self.graph.nodes()[i].op_type), self.is_view(i), !anchors.contains(&i), i)
            });
        }
        let one = |(own, (anchors, by)): (&Vec<usize>, &(Vec<usize>, By))| {
            // A row whose nodes all belong to another one is a part of that one, or a move for it: it shares its first node.
            let shared = || anchors.first().and_then(|&i| covers.get(self.row_of[i]?)?.first().copied());
            let own = if own.is_empty() { shared().into_iter().collect() } else { own.clone() };
            let by = if own.is_empty() { By::Nothing } else { *by };
            (own.into_iter().map(|i: usize| NodeId(i as u32)).collect(), by)
        };
        covers.iter().zip(&self.anchors).map(one).collect()
    }

    fn is_view(&self, i: usize) -> bool {
        self.graph.nodes()[i].op.family().access() == Access::View
    }
}

/// Nodes whose names stand in a row's name: the whole of it, a list of parts, or what remains without a runtime's additions. With each,
/// whether it is the whole of a part.
fn found_in(name: &str, names: &HashMap<&str, usize>) -> Vec<(usize, bool)> {
    // A convolution of ONNX Runtime's that was given another layout: `y_nchwc`.
    if let Some(&i) = names.get(name).or_else(|| names.get(name.strip_suffix("_nchwc")?)) {
        return vec![(i, true)];
    }
    if name.len() > LONGEST_NAME {
        return Vec::new();
    }
    let parts: Vec<&str> =
        name.split([',', ';', '[', ']', '{', '}', '(', ')', '+', ' ']).map(str::trim).filter(|p| p.len() > 1).collect();
    let mut out = Vec::new();
    let mut seen = HashSet::new();
    for part in parts {
        for part in part.split("...") {
            let exact = names.get(part).copied();
            if let Some(i) = exact.or_else(|| inside(part, names))
                && seen.insert(i)
            {
                out.push((i, exact.is_some()));
            }
        }
    }
    out
}

/// The longest name that stands at the beginning of a text, or else inside it, between boundaries.
fn inside(text: &str, names: &HashMap<&str, usize>) -> Option<usize> {
    let cuts: Vec<usize> =
        text.char_indices().filter(|(_, c)| is_boundary(*c)).map(|(i, _)| i).chain([text.len()]).collect();
    let telling = |s: &str| s.len() >= 4 && s.contains(['/', '.', '_', ':']) && !s.chars().all(|c| c.is_ascii_digit());
    let starts = std::iter::once(0).chain(cuts.iter().flat_map(|&i| [i, i + 1])).filter(|&i| text.is_char_boundary(i));
    let mut best: Option<(bool, usize, usize)> = None;
    for start in starts {
        for &end in cuts.iter().rev().take_while(|&&e| e > start) {
            let Some(part) = text.get(start..end) else { continue };
            if best.is_some_and(|(at_start, len, _)| (at_start, len) >= (start == 0, part.len())) {
                break;
            }
            if let Some(&i) = names.get(part).filter(|_| telling(part)) {
                best = Some((start == 0, part.len(), i));
            }
        }
    }
    best.map(|b| b.2)
}

/// What stands at both ends of `{ForeignNode[first...last]}`; either may hold brackets of its own.
fn region(name: &str) -> Option<(&str, &str)> {
    let inner = name.split_once("ForeignNode[")?.1;
    inner.rsplit_once(']')?.0.split_once("...")
}
