//! Rows under the modules they come from: the tree that exporters' scopes and name paths draw, with sums.

use super::model::{Kind, Layer};
use super::view::merge;
use crate::engine::Path;
use std::collections::HashMap;

/// Levels below which modules are not taken apart further: no model nests deeper, and a file may claim anything.
const DEEPEST: usize = 24;

/// A line of the tree, a module before what is in it.
#[derive(Debug, Clone)]
pub enum Line {
    /// A module with the sums of all rows below it.
    Module(Box<Layer>),
    /// A row, by its position among those given.
    Row {
        /// Which.
        at: usize,
        /// Modules above it.
        level: usize,
        /// Parts of its path that the modules above it say already.
        said: usize,
    },
}

impl Line {
    /// Modules above it.
    pub fn level(&self) -> usize {
        match self {
            Line::Module(l) => l.nesting.map_or(0, |n| n.0),
            Line::Row { level, .. } => *level,
        }
    }
}

enum Child {
    Module(String, Module),
    Row(usize),
}

#[derive(Default)]
struct Module {
    children: Vec<Child>,
    by_name: HashMap<String, usize>,
    rows: Vec<usize>,
}

/// The tree of some rows, in order of first appearance. A module of one row is that row; a module in which there is only another
/// module shares its line.
pub fn tree(rows: &[Layer], main: Option<Path>) -> Vec<Line> {
    let mut root = Module::default();
    for (at, row) in rows.iter().enumerate() {
        let parents = &row.path[..row.path.len().saturating_sub(1).min(DEEPEST)];
        let mut module = &mut root;
        module.rows.push(at);
        for name in parents {
            let next = module.children.len();
            let i = *module.by_name.entry(name.clone()).or_insert(next);
            if i == next {
                module.children.push(Child::Module(name.clone(), Module::default()));
            }
            let Child::Module(_, inner) = &mut module.children[i] else { unreachable!("names lead to modules") };
            module = inner;
            module.rows.push(at);
        }
        module.children.push(Child::Row(at));
    }
    let mut out = Vec::with_capacity(rows.len());
    write(&root, &mut Vec::new(), 0, 0, rows, main, &mut out);
    out
}

fn write(
    module: &Module,
    path: &mut Vec<String>,
    level: usize,
    said: usize,
    rows: &[Layer],
    main: Option<Path>,
    out: &mut Vec<Line>,
) {
    for child in &module.children {
        match child {
            Child::Row(at) => out.push(Line::Row { at: *at, level, said }),
            Child::Module(_, inner) if inner.rows.len() == 1 => {
                out.push(Line::Row { at: inner.rows[0], level, said });
            }
            Child::Module(name, inner) => {
                let depth = path.len();
                path.push(name.clone());
                let mut inner = inner;
                while let [Child::Module(name, only)] = &inner.children[..] {
                    path.push(name.clone());
                    inner = only;
                }
                let covered: Vec<&Layer> = inner.rows.iter().map(|&at| &rows[at]).collect();
                let mut sum = merge(Kind::Module, path.join("."), &covered, main);
                sum.op = crate::units::plural(sum.nodes, "node");
                sum.path.clone_from(path);
                sum.nesting = Some((level, said));
                out.push(Line::Module(Box::new(sum)));
                write(inner, path, level + 1, path.len(), rows, main, out);
                path.truncate(depth);
            }
        }
    }
}

/// Rows with their modules above them; what lies deeper than `depth` levels is only in the sums.
pub fn nested(rows: Vec<Layer>, depth: Option<usize>, main: Option<Path>) -> Vec<Layer> {
    let lines = tree(&rows, main);
    let mut rows: Vec<Option<Layer>> = rows.into_iter().map(Some).collect();
    let kept = lines.into_iter().filter(|l| depth.is_none_or(|d| l.level() < d));
    kept.filter_map(|line| match line {
        Line::Module(sum) => Some(*sum),
        Line::Row { at, level, said } => {
            let row = rows[at].take()?;
            Some(Layer { nesting: Some((level, said)), ..row })
        }
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(names: &[&str]) -> Vec<Layer> {
        let row = |n: &&str| Layer {
            path: n.split('.').map(str::to_string).collect(),
            params: 1,
            nodes: 1,
            ..Layer::empty(Kind::Layer, n)
        };
        names.iter().map(row).collect()
    }

    fn drawn(names: &[&str], depth: Option<usize>) -> Vec<String> {
        let line = |l: &Layer| format!("{}{}:{}", " ".repeat(l.nesting.unwrap().0), l.name, l.params);
        nested(rows(names), depth, None).iter().map(line).collect()
    }

    #[test]
    fn modules_stand_above_their_rows_and_hold_their_sums() {
        let names = ["stem.Conv", "a.b.0.Conv", "a.b.0.Relu", "head", "a.b.1.Conv", "a.b.1.Relu"];
        let want = [
            "stem.Conv:1",
            "a.b:4",
            " a.b.0:2",
            "  a.b.0.Conv:1",
            "  a.b.0.Relu:1",
            " a.b.1:2",
            "  a.b.1.Conv:1",
            "  a.b.1.Relu:1",
            "head:1",
        ];
        assert_eq!(drawn(&names, None), want);
        assert_eq!(drawn(&names, Some(1)), ["stem.Conv:1", "a.b:4", "head:1"]);
        assert_eq!(drawn(&names, Some(2)), ["stem.Conv:1", "a.b:4", " a.b.0:2", " a.b.1:2", "head:1"]);
        assert!(drawn(&[], None).is_empty());
    }

    #[test]
    fn a_name_without_end_is_cut_off() {
        let long = vec!["x"; 100_000].join(".");
        assert_eq!(nested(rows(&[&long, &format!("{long}.y")]), None, None).len(), 3);
    }
}
