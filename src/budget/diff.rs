//! What changed between two models, row by row: matched by name, then by structure, the rest added or removed.

use super::snapshot::{Row, Snapshot};
use std::collections::{HashMap, VecDeque};

/// What became of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only the head has it.
    Added,
    /// Only the base has it.
    Removed,
    /// Both have it, with other figures.
    Changed,
    /// Both have it, unchanged.
    Same,
}

impl Kind {
    /// For tables and machines.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Added => "added",
            Kind::Removed => "removed",
            Kind::Changed => "changed",
            Kind::Same => "same",
        }
    }
}

/// A row of the base, of the head, or both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// What became of it.
    pub kind: Kind,
    /// Index in the base's rows.
    pub base: Option<usize>,
    /// Index in the head's rows.
    pub head: Option<usize>,
}

/// Names that exporters count up (`Conv_12`, `node_conv2d_3`, `/Add_4`) say nothing: one layer more moves them all.
fn is_numbered(row: &Row) -> bool {
    let last = row.name.rsplit(['/', '.']).next().unwrap_or(&row.name);
    let stem = last.trim_end_matches(|c: char| c.is_ascii_digit());
    if row.name.is_empty() {
        return true;
    }
    let Some(stem) = stem.strip_suffix('_').filter(|s| s.len() < last.len()) else { return false };
    let op = row.op.rsplit('.').next().unwrap_or(&row.op);
    stem.eq_ignore_ascii_case(op) || stem.starts_with("node_") || stem == "node" || stem.is_empty()
}

/// What must agree for rows of different names to be the same one.
fn structure(r: &Row) -> (&str, &str, u64, Option<u64>) {
    (&r.op, &r.shape, r.params, r.madds)
}

fn same(a: &Row, b: &Row) -> bool {
    structure(a) == structure(b) && a.other_flops == b.other_flops && a.traffic == b.traffic
}

/// Matches rows. The result is in the head's order, what was removed where it stood in the base.
pub fn diff(base: &Snapshot, head: &Snapshot) -> Vec<Change> {
    let (b, h) = (&base.rows, &head.rows);
    let mut to_base: Vec<Option<usize>> = vec![None; h.len()];
    let mut taken = vec![false; b.len()];
    // By name, where the operator agrees. Numbered names wait for their structure.
    let mut names: HashMap<(&str, &str), VecDeque<usize>> = HashMap::new();
    for (i, r) in b.iter().enumerate().filter(|(_, r)| !is_numbered(r)) {
        names.entry((&r.name, &r.op)).or_default().push_back(i);
    }
    for (j, r) in h.iter().enumerate().filter(|(_, r)| !is_numbered(r)) {
        if let Some(i) = names.get_mut(&(r.name.as_str(), r.op.as_str())).and_then(VecDeque::pop_front) {
            to_base[j] = Some(i);
            taken[i] = true;
        }
    }
    // Between neighbours that are matched: the longest common run of structures, then what has at least the operator in common.
    for by_op_only in [false, true] {
        for (bases, heads) in gaps(&to_base, &taken) {
            let fits = |i: usize, j: usize| {
                if by_op_only { b[i].op == h[j].op } else { structure(&b[i]) == structure(&h[j]) }
            };
            for (i, j) in aligned(&bases, &heads, &fits) {
                to_base[j] = Some(i);
                taken[i] = true;
            }
        }
    }
    // Moved rows: equal structure anywhere.
    let mut left: HashMap<_, VecDeque<usize>> = HashMap::new();
    for (i, r) in b.iter().enumerate().filter(|(i, _)| !taken[*i]) {
        left.entry(structure(r)).or_default().push_back(i);
    }
    for (j, r) in h.iter().enumerate() {
        if to_base[j].is_none()
            && let Some(i) = left.get_mut(&structure(r)).and_then(VecDeque::pop_front)
        {
            to_base[j] = Some(i);
            taken[i] = true;
        }
    }
    let mut out = Vec::new();
    let mut next = 0;
    let removed = |i: usize| Change { kind: Kind::Removed, base: Some(i), head: None };
    // Up to where in the base each row of the head reaches: its match, or that of the next row that has one.
    let mut reach = vec![b.len(); h.len()];
    for j in (0..h.len()).rev() {
        reach[j] = to_base[j].unwrap_or_else(|| reach.get(j + 1).copied().unwrap_or(b.len()));
    }
    for (j, m) in to_base.iter().enumerate() {
        // What went stands before what came in its place.
        out.extend((next..reach[j]).filter(|&k| !taken[k]).map(removed));
        next = next.max(reach[j]);
        let kind = match m {
            None => Kind::Added,
            Some(i) if same(&b[*i], &h[j]) => Kind::Same,
            Some(_) => Kind::Changed,
        };
        out.push(Change { kind, base: *m, head: Some(j) });
    }
    out.extend((next..b.len()).filter(|&k| !taken[k]).map(removed));
    out
}

/// Runs of unmatched rows of both sides that lie between the same matched neighbours.
fn gaps(to_base: &[Option<usize>], taken: &[bool]) -> Vec<(Vec<usize>, Vec<usize>)> {
    let mut out = Vec::new();
    let mut heads = Vec::new();
    let mut from = 0;
    let mut close = |heads: &mut Vec<usize>, until: usize, from: &mut usize| {
        let bases: Vec<usize> = (*from..until).filter(|&i| !taken[i]).collect();
        if !bases.is_empty() && !heads.is_empty() {
            out.push((bases, std::mem::take(heads)));
        }
        heads.clear();
        *from = (*from).max(until);
    };
    for (j, m) in to_base.iter().enumerate() {
        match m {
            // A match that goes back was moved and bounds nothing.
            Some(i) if *i >= from => close(&mut heads, *i, &mut from),
            Some(_) => {}
            None => heads.push(j),
        }
    }
    close(&mut heads, taken.len(), &mut from);
    out
}

/// Cells of the table of the longest common subsequence; above it rows are paired greedily.
const MOST_CELLS: usize = 4_000_000;

/// Pairs in order, as many as fit.
fn aligned(bases: &[usize], heads: &[usize], fits: &dyn Fn(usize, usize) -> bool) -> Vec<(usize, usize)> {
    let (n, m) = (bases.len(), heads.len());
    let mut out = Vec::new();
    if n.saturating_mul(m) > MOST_CELLS {
        let mut i = 0;
        for &j in heads {
            if let Some(step) = bases[i..].iter().take(64).position(|&k| fits(k, j)) {
                out.push((bases[i + step], j));
                i += step + 1;
            }
        }
        return out;
    }
    let at = |i: usize, j: usize| i * (m + 1) + j;
    let mut best = vec![0u32; (n + 1) * (m + 1)];
    for i in (0..n).rev() {
        for j in (0..m).rev() {
            let skip = best[at(i + 1, j)].max(best[at(i, j + 1)]);
            best[at(i, j)] = if fits(bases[i], heads[j]) { skip.max(best[at(i + 1, j + 1)] + 1) } else { skip };
        }
    }
    let (mut i, mut j) = (0, 0);
    while i < n && j < m {
        if fits(bases[i], heads[j]) && best[at(i, j)] == best[at(i + 1, j + 1)] + 1 {
            out.push((bases[i], heads[j]));
            (i, j) = (i + 1, j + 1);
        } else if best[at(i + 1, j)] >= best[at(i, j + 1)] {
            i += 1;
        } else {
            j += 1;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(rows: &[(&str, &str, u64)]) -> Snapshot {
        let row = |&(name, op, madds): &(&str, &str, u64)| Row {
            name: name.into(),
            op: op.into(),
            shape: "1x8".into(),
            params: madds / 8,
            madds: Some(madds),
            other_flops: Some(0),
            traffic: Some([1, 2, 3]),
            ms: None,
        };
        Snapshot { rows: rows.iter().map(row).collect(), ..Snapshot::default() }
    }
    fn told(base: &[(&str, &str, u64)], head: &[(&str, &str, u64)]) -> Vec<String> {
        let (b, h) = (model(base), model(head));
        diff(&b, &h)
            .iter()
            .filter(|c| c.kind != Kind::Same)
            .map(|c| {
                let name = c.head.map_or_else(|| &b.rows[c.base.unwrap()].name, |j| &h.rows[j].name);
                format!("{} {name}", c.kind.name())
            })
            .collect()
    }

    #[test]
    fn names_decide_where_they_mean_something() {
        let base = [("a", "Conv", 8), ("b", "Conv", 16), ("c", "Gemm", 80)];
        assert!(told(&base, &base).is_empty());
        assert_eq!(told(&base, &[("a", "Conv", 8), ("b", "Conv", 24), ("c", "Gemm", 80)]), ["changed b"]);
        assert_eq!(told(&base, &[("a", "Conv", 8), ("c", "Gemm", 80)]), ["removed b"]);
        assert_eq!(
            told(&base, &[("a", "Conv", 8), ("new", "Conv", 8), ("b", "Conv", 16), ("c", "Gemm", 80)]),
            ["added new"]
        );
        // A renamed layer is the same one; another operator under an old name is not.
        assert!(told(&base, &[("a", "Conv", 8), ("other", "Conv", 16), ("c", "Gemm", 80)]).is_empty());
        assert_eq!(told(&base, &[("a", "Conv", 8), ("b", "Relu", 0), ("c", "Gemm", 80)]), ["removed b", "added b"]);
    }

    #[test]
    fn numbers_that_exporters_count_up_do_not_move_every_layer() {
        let base = [("Conv_0", "Conv", 8), ("Relu_1", "Relu", 0), ("Conv_2", "Conv", 16), ("Gemm_3", "Gemm", 80)];
        let head = [
            ("Conv_0", "Conv", 8),
            ("Relu_1", "Relu", 0),
            ("Conv_2", "Conv", 800),
            ("Conv_3", "Conv", 16),
            ("Gemm_4", "Gemm", 80),
        ];
        assert_eq!(told(&base, &head), ["added Conv_2"]);
        assert_eq!(told(&head, &base), ["removed Conv_2"]);
    }

    #[test]
    fn every_row_is_told_once_whatever_moved() {
        let base = [("a", "Conv", 8), ("b", "Conv", 16), ("c", "Gemm", 80), ("d", "Relu", 0)];
        let head = [("d", "Relu", 0), ("c", "Gemm", 80), ("x", "Conv", 8), ("b", "Conv", 16), ("y", "Tanh", 0)];
        let (b, h) = (model(&base), model(&head));
        let changes = diff(&b, &h);
        for (n, side) in [(base.len(), 0), (head.len(), 1)] {
            let mut seen: Vec<usize> = changes.iter().filter_map(|c| if side == 0 { c.base } else { c.head }).collect();
            seen.sort_unstable();
            assert_eq!(seen, (0..n).collect::<Vec<_>>());
        }
        assert_eq!(told(&base, &head), ["added y"]);
    }
}
