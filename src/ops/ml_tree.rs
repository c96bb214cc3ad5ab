//! TreeEnsemble, TreeEnsembleClassifier, TreeEnsembleRegressor.
//!
//! <https://onnx.ai/onnx/operators/onnx_aionnxml_TreeEnsemble.html>, <https://onnx.ai/onnx/operators/onnx_aionnxml_TreeEnsembleClassifier.html>,
//! <https://onnx.ai/onnx/operators/onnx_aionnxml_TreeEnsembleRegressor.html>.
//!
//! Cost: no MAdds. Walking down a tree compares and chooses, which is free here as in every selection; what the leaves say is
//! arithmetic: 1 other FLOP per row and weight of the leaf reached (its sum, minimum or maximum), 1 per result for an average and for base
//! values, then what becomes of scores (see [`Post`]). Where leaves of a tree hold different numbers of weights only bounds are known.
//!
//! Split values (members of sets included), leaf weights and base values are learned; which feature is asked and where a branch leads is
//! structure.

use super::cast::cast;
use super::ml::{DOMAIN, Labels, Lone, Post, features, largest, row_dims, rows, scores_fact, two_scores, two_scores_flops};
use super::spec::{Attr, NodeSpec};
use super::{Case, Charge, CostCx, Entry, EvalCx, Family, Held, Infer, Inputs, Op, input, sample};
use crate::cost::{Span, Work, WorkSpan};
use crate::error::{Error, Result};
use crate::tensor::{DType, Fact, Num, Shape, Tensor, element_count};
use crate::with_num;
use std::collections::HashMap;

/// The family's table rows.
pub const ENTRIES: &[Entry] = &[
    Entry { domain: DOMAIN, name: "TreeEnsemble", parse: MlTree::ensemble, cases },
    Entry { domain: DOMAIN, name: "TreeEnsembleClassifier", parse: MlTree::keyed, cases },
    Entry { domain: DOMAIN, name: "TreeEnsembleRegressor", parse: MlTree::keyed, cases },
];

/// An ensemble of decision trees.
#[derive(Debug, Clone)]
pub struct MlTree {
    branches: Vec<Branch>,
    leaves: Vec<Vec<(usize, f64)>>,
    roots: Vec<Next>,
    /// Number of results, or of classes.
    targets: usize,
    together: Together,
    base: Vec<f64>,
    post: Post,
    /// Class labels; `None` for regressors.
    labels: Option<Labels>,
    /// The only class that has weights, where there are at most two: its score decides.
    only: Option<usize>,
    /// A probability where all weights are positive, decided at one half; else a margin, decided at zero.
    lone: Lone,
    /// The result has the type of the features (TreeEnsemble) instead of `f32`.
    own_type: bool,
    /// Learned numbers and bytes of each.
    held: Held,
}

/// A question about one feature.
#[derive(Debug, Clone)]
struct Branch {
    feature: usize,
    test: Test,
    /// A missing feature (NaN) answers yes.
    missing: bool,
    yes: Next,
    no: Next,
}

/// Where an answer leads.
#[derive(Debug, Clone, Copy)]
enum Next {
    Branch(usize),
    Leaf(usize),
}

#[derive(Debug, Clone)]
enum Test {
    AtMost(f64),
    Below(f64),
    AtLeast(f64),
    Above(f64),
    Equal(f64),
    NotEqual(f64),
    Among(Vec<f64>),
}

impl Test {
    fn holds(&self, x: f64) -> bool {
        match self {
            Test::AtMost(v) => x <= *v,
            Test::Below(v) => x < *v,
            Test::AtLeast(v) => x >= *v,
            Test::Above(v) => x > *v,
            Test::Equal(v) => x == *v,
            Test::NotEqual(v) => x != *v,
            Test::Among(set) => set.contains(&x),
        }
    }
    fn named(name: &str, v: f64) -> Option<Test> {
        Some(match name {
            "BRANCH_LEQ" => Test::AtMost(v),
            "BRANCH_LT" => Test::Below(v),
            "BRANCH_GTE" => Test::AtLeast(v),
            "BRANCH_GT" => Test::Above(v),
            "BRANCH_EQ" => Test::Equal(v),
            "BRANCH_NEQ" => Test::NotEqual(v),
            _ => return None,
        })
    }
}

/// How the trees' results become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Together {
    Sum,
    Average,
    Min,
    Max,
}

fn needed(name: &str) -> Error {
    Error::input("is required").at_attribute(name)
}

fn bad(name: &str) -> Error {
    Error::input("does not fit the other lists").at_attribute(name)
}

/// Numbers in a list of floats or in a tensor, and bytes of each.
fn numbers(node: &NodeSpec, name: &str) -> Result<(Vec<f64>, u64)> {
    if let Some(t) = node.opt_tensor(&format!("{name}_as_tensor"))?.filter(|t| !t.is_empty()) {
        return Ok((t.to_f64s()?, (t.dtype().bits() / 8) as u64));
    }
    Ok((node.opt_floats(name)?.unwrap_or_default().into_iter().map(f64::from).collect(), 4))
}

impl MlTree {
    /// The older form: nodes and leaves are known by the numbers of a tree and a node in it.
    fn keyed(node: &NodeSpec) -> Result<Op> {
        node.expect_inputs(1, 1)?;
        let classifier = node.op_type == "TreeEnsembleClassifier";
        let list = |name: &str| node.opt_ints(name)?.ok_or_else(|| needed(name));
        let (trees, ids) = (list("nodes_treeids")?, list("nodes_nodeids")?);
        let (features, yes, no) = (list("nodes_featureids")?, list("nodes_truenodeids")?, list("nodes_falsenodeids")?);
        let modes = node.opt_strs("nodes_modes")?.ok_or_else(|| needed("nodes_modes"))?;
        let missing = node.opt_ints("nodes_missing_value_tracks_true")?.unwrap_or_default();
        let (values, width) = numbers(node, "nodes_values")?;
        let n = trees.len();
        if [ids.len(), features.len(), yes.len(), no.len(), modes.len(), values.len()].iter().any(|&l| l != n)
            || !(missing.is_empty() || missing.len() == n)
        {
            return Err(bad("nodes_nodeids"));
        }
        let (mut places, mut branches, mut count) = (HashMap::with_capacity(n), 0, 0);
        for (i, mode) in modes.iter().enumerate() {
            let counter = if mode == "LEAF" { &mut count } else { &mut branches };
            let place = if mode == "LEAF" { Next::Leaf(*counter) } else { Next::Branch(*counter) };
            *counter += 1;
            if places.insert((trees[i], ids[i]), place).is_some() {
                return Err(Error::input(format!("names node {} of tree {} twice", ids[i], trees[i])).at_attribute("nodes_nodeids"));
            }
        }
        let place = |tree: i64, id: i64, name: &str| places.get(&(tree, id)).copied().ok_or_else(|| bad(name));
        let mut all = Vec::with_capacity(branches);
        let (mut roots, mut seen) = (Vec::new(), std::collections::HashSet::new());
        for i in 0..n {
            if seen.insert(trees[i]) {
                roots.push(place(trees[i], ids[i], "nodes_treeids")?);
            }
            if modes[i] == "LEAF" {
                continue;
            }
            let test = Test::named(&modes[i], values[i])
                .ok_or_else(|| Error::input(format!("'{}' is not a mode", modes[i])).at_attribute("nodes_modes"))?;
            all.push(Branch {
                feature: usize::try_from(features[i]).map_err(|_| bad("nodes_featureids"))?,
                test,
                missing: missing.get(i).is_some_and(|&m| m != 0),
                yes: place(trees[i], yes[i], "nodes_truenodeids")?,
                no: place(trees[i], no[i], "nodes_falsenodeids")?,
            });
        }
        let kind = if classifier { "class" } else { "target" };
        let [leaf_trees, leaf_ids, targets] =
            ["treeids", "nodeids", "ids"].map(|what| list(&format!("{kind}_{what}")));
        let (leaf_trees, leaf_ids, targets) = (leaf_trees?, leaf_ids?, targets?);
        let (weights, weight_width) = numbers(node, &format!("{kind}_weights"))?;
        if [leaf_ids.len(), targets.len(), weights.len()].iter().any(|&l| l != leaf_trees.len()) {
            return Err(bad(&format!("{kind}_weights")));
        }
        let labels = if classifier { Some(Labels::parse(node, "classlabels_int64s", "classlabels_strings")?) } else { None };
        let results = match &labels {
            Some(labels) => labels.len().max(1),
            None => node.opt_size("n_targets")?.unwrap_or(1),
        };
        let mut leaves = vec![Vec::new(); count];
        for (k, &weight) in weights.iter().enumerate() {
            let target = usize::try_from(targets[k]).ok().filter(|&t| t < results);
            let target = target.ok_or_else(|| bad(&format!("{kind}_ids")))?;
            // A weight of a node that is no leaf is never reached.
            if let Next::Leaf(leaf) = place(leaf_trees[k], leaf_ids[k], &format!("{kind}_nodeids"))? {
                leaves[leaf].push((target, weight));
            }
        }
        let (base, _) = numbers(node, "base_values")?;
        if !(base.is_empty() || base.len() == results || base.len() == 1) {
            return Err(bad("base_values"));
        }
        let together = match node.str("aggregate_function", "SUM")? {
            "SUM" => Together::Sum,
            "AVERAGE" => Together::Average,
            "MIN" => Together::Min,
            "MAX" => Together::Max,
            other => return Err(Error::input(format!("'{other}' is not a function")).at_attribute("aggregate_function")),
        };
        let learned = all.len() + weights.len() + base.len();
        Ok(Op::MlTree(MlTree {
            only: targets.first().map(|&t| t as usize).filter(|_| classifier && results <= 2 && targets.iter().all(|t| *t == targets[0])),
            lone: if weights.iter().all(|&w| w >= 0.0) { Lone::Share } else { Lone::Margin },
            held: Held { width: width.max(weight_width), ..Held::floats(learned, 0) },
            branches: all,
            leaves,
            roots,
            targets: results,
            together,
            base,
            post: Post::parse(node)?,
            labels,
            own_type: false,
        }))
    }

    /// The form of version 5: nodes and leaves are known by position.
    fn ensemble(node: &NodeSpec) -> Result<Op> {
        node.expect_inputs(1, 1)?;
        let sizes = |name: &str| node.opt_sizes(name)?.ok_or_else(|| needed(name));
        let tensor = |name: &str| node.opt_tensor(name)?.ok_or_else(|| needed(name));
        let (features, splits) = (sizes("nodes_featureids")?, tensor("nodes_splits")?);
        let modes = tensor("nodes_modes")?.to_i64s()?;
        let (yes, no) = (sizes("nodes_truenodeids")?, sizes("nodes_falsenodeids")?);
        let (yes_leaf, no_leaf) = (sizes("nodes_trueleafs")?, sizes("nodes_falseleafs")?);
        let missing = node.opt_ints("nodes_missing_value_tracks_true")?.unwrap_or_default();
        let n = features.len();
        if [splits.len(), modes.len(), yes.len(), no.len(), yes_leaf.len(), no_leaf.len()].iter().any(|&l| l != n)
            || !(missing.is_empty() || missing.len() == n)
        {
            return Err(bad("nodes_featureids"));
        }
        let targets = node.opt_size("n_targets")?.ok_or_else(|| needed("n_targets"))?;
        let weights = tensor("leaf_weights")?;
        let ids = sizes("leaf_targetids")?;
        if ids.len() != weights.len() || ids.iter().any(|&t| t >= targets) {
            return Err(bad("leaf_targetids"));
        }
        let leaves: Vec<Vec<(usize, f64)>> = ids.into_iter().zip(weights.to_f64s()?).map(|leaf| vec![leaf]).collect();
        let next = |at: usize, is_leaf: usize, name: &str| match is_leaf {
            0 if at < n => Ok(Next::Branch(at)),
            1 if at < leaves.len() => Ok(Next::Leaf(at)),
            _ => Err(bad(name)),
        };
        let members = node.opt_tensor("membership_values")?.map(|t| t.to_f64s()).transpose()?.unwrap_or_default();
        // NaN ends the members of a set.
        let mut sets = members.split(|v| v.is_nan());
        let splits_type = splits.dtype();
        let splits = splits.to_f64s()?;
        let mut branches = Vec::with_capacity(n);
        for i in 0..n {
            let v = splits[i];
            let test = match modes[i] {
                0 => Test::AtMost(v),
                1 => Test::Below(v),
                2 => Test::AtLeast(v),
                3 => Test::Above(v),
                4 => Test::Equal(v),
                5 => Test::NotEqual(v),
                6 => Test::Among(sets.next().ok_or_else(|| bad("membership_values"))?.to_vec()),
                other => return Err(Error::input(format!("{other} is not a mode")).at_attribute("nodes_modes")),
            };
            branches.push(Branch {
                feature: features[i],
                test,
                missing: missing.get(i).is_some_and(|&m| m != 0),
                yes: next(yes[i], yes_leaf[i], "nodes_truenodeids")?,
                no: next(no[i], no_leaf[i], "nodes_falsenodeids")?,
            });
        }
        // A tree that is one leaf is written as a node both of whose answers lead there.
        let root = |&at: &usize| if at < n { Ok(Next::Branch(at)) } else { Err(bad("tree_roots")) };
        let roots = sizes("tree_roots")?.iter().map(root).collect::<Result<Vec<_>>>()?;
        let together = match node.int("aggregate_function", 1)? {
            0 => Together::Average,
            1 => Together::Sum,
            2 => Together::Min,
            3 => Together::Max,
            other => return Err(Error::input(format!("{other} is not a function")).at_attribute("aggregate_function")),
        };
        let post = node.int("post_transform", 0)?;
        let post = Post::from_number(post)
            .ok_or_else(|| Error::input(format!("{post} is not a transform")).at_attribute("post_transform"))?;
        let members = members.iter().filter(|v| !v.is_nan()).count();
        let sets = branches.iter().filter(|b| matches!(b.test, Test::Among(_))).count();
        let learned = branches.len() - sets + members + leaves.len();
        Ok(Op::MlTree(MlTree {
            branches,
            leaves,
            roots,
            targets,
            together,
            base: Vec::new(),
            post,
            labels: None,
            only: None,
            lone: Lone::Margin,
            own_type: true,
            held: Held { width: (splits_type.bits() / 8) as u64, ..Held::floats(learned, 0) },
        }))
    }

    /// The leaf that a row reaches in a tree.
    fn leaf(&self, root: Next, x: &dyn Fn(usize) -> Option<f64>) -> Result<usize> {
        let mut at = root;
        // A walk longer than there are branches goes in circles.
        for _ in 0..=self.branches.len() {
            let branch = match at {
                Next::Leaf(leaf) => return Ok(leaf),
                Next::Branch(b) => &self.branches[b],
            };
            let v = x(branch.feature).ok_or_else(|| Error::input(format!("there is no feature {}", branch.feature)))?;
            at = if branch.test.holds(v) || (branch.missing && v.is_nan()) { branch.yes } else { branch.no };
        }
        Err(Error::input("a tree whose branches go in circles").at_attribute("nodes_truenodeids"))
    }

    /// Whether one score decides between two classes.
    fn decides(&self) -> bool {
        self.only.is_some() && self.targets == 2
    }
    fn columns(&self) -> usize {
        if self.decides() { 2 } else { self.targets }
    }

    fn row<T: Num>(&self, x: &dyn Fn(usize) -> Option<f64>) -> Result<(Vec<T>, usize)> {
        let begin = match self.together {
            Together::Sum | Together::Average => 0.0,
            Together::Min => f64::INFINITY,
            Together::Max => f64::NEG_INFINITY,
        };
        let mut y = vec![T::of(begin); self.targets];
        for &root in &self.roots {
            for &(target, weight) in &self.leaves[self.leaf(root, x)?] {
                let (sum, w) = (y[target], T::of(weight));
                y[target] = match self.together {
                    Together::Sum | Together::Average => sum + w,
                    Together::Min => sum.min_nan(w),
                    Together::Max => sum.max_nan(w),
                };
            }
        }
        // What no leaf spoke of is zero.
        y.iter_mut().filter(|v| v.get().is_infinite()).for_each(|v| *v = T::zero());
        if self.together == Together::Average {
            let n = T::of(self.roots.len() as f64);
            y.iter_mut().for_each(|v| *v = *v / n);
        }
        if let Some(only) = self.only.filter(|_| self.decides()) {
            let score = self.base.last().map_or(y[only], |&b| y[only] + T::of(b));
            let class = usize::from(score.get() > if self.lone == Lone::Share { 0.5 } else { 0.0 });
            if only == 0 {
                return Ok((two_scores(score, self.lone, self.post).to_vec(), class));
            }
            // A score of the second class stands beside a zero for the first.
            y[1] = score;
            self.post.apply(&mut y);
            return Ok((y, class));
        }
        if !self.base.is_empty() {
            y.iter_mut().enumerate().for_each(|(i, v)| *v = *v + T::of(self.base[i % self.base.len()]));
        }
        let class = largest(&y);
        self.post.apply(&mut y);
        Ok((y, class))
    }

    fn run<T: Num>(&self, x: &Tensor) -> Result<Vec<Tensor>> {
        let (n, width) = rows(x.dims())?;
        let (values, columns) = (x.to_f64s()?, self.columns());
        let mut y = super::elements::reserved(element_count(&[n, columns])?)?;
        let mut classes = Vec::with_capacity(n);
        for row in 0..n {
            let x = &values[row * width..][..width];
            let (scores, class) = self.row::<T>(&|i| x.get(i).copied())?;
            y.extend(scores);
            classes.push(class);
        }
        let scores = T::store(y, &[n, columns])?;
        let scores = if self.own_type { scores } else { cast(&scores, DType::F32, true)? };
        Ok(match &self.labels {
            Some(labels) => vec![labels.of(&classes)?, scores],
            None => vec![scores],
        })
    }

    /// Leaves that walks from `root` may reach.
    fn reached(&self, root: Next) -> Vec<usize> {
        let (mut seen, mut todo, mut leaves) = (vec![false; self.branches.len()], vec![root], Vec::new());
        while let Some(at) = todo.pop() {
            match at {
                Next::Leaf(leaf) => leaves.push(leaf),
                Next::Branch(b) if !std::mem::replace(&mut seen[b], true) => {
                    todo.extend([self.branches[b].yes, self.branches[b].no]);
                }
                Next::Branch(_) => {}
            }
        }
        leaves
    }
}

impl Family for MlTree {
    fn infer(&self, cx: &Infer) -> Result<Vec<Fact>> {
        let (n, _) = row_dims(cx.input(0)?)?;
        let mut scores = scores_fact(n, Some(self.columns()));
        if self.own_type {
            scores.dtype = cx.fact(0)?.dtype;
        }
        Ok(match &self.labels {
            Some(labels) => vec![Fact::new(labels.dtype(), Shape::partial(vec![n])), scores],
            None => vec![scores],
        })
    }
    fn charge(&self, cx: &CostCx) -> Charge {
        let Some((n, _)) = cx.dims(0).and_then(|d| rows(&d).ok()) else { return Charge::Unknown };
        let (mut low, mut high) = (0u64, 0u64);
        for &root in &self.roots {
            let weights = self.reached(root).into_iter().map(|l| self.leaves[l].len() as u64);
            let (least, most) = weights.fold((u64::MAX, 0), |(a, b), w| (a.min(w), b.max(w)));
            (low, high) = (low.saturating_add(least.min(most)), high.saturating_add(most));
        }
        let mut rest = 0u64;
        if self.together == Together::Average {
            rest += self.targets as u64;
        }
        if !self.base.is_empty() {
            rest += if self.decides() { 1 } else { self.targets as u64 };
        }
        let Some(post) = (match self.only {
            Some(0) if self.decides() => Some(two_scores_flops(self.post)),
            _ => self.post.flops(self.targets),
        }) else {
            return Charge::Unknown;
        };
        rest = rest.saturating_add(post);
        let work = |walk: u64| Work::other(walk.saturating_add(rest)).times(n as u64);
        match (work(low), work(high)) {
            (Some(a), Some(b)) if a == b => Charge::Known(a),
            (Some(a), b) => {
                let other_flops = Span { low: a.other_flops, high: b.map(|b| b.other_flops) };
                Charge::Between(WorkSpan { other_flops, ..WorkSpan::NONE })
            }
            (None, _) => Charge::Unknown,
        }
    }
    fn eval(&self, cx: &EvalCx, inputs: &Inputs) -> Result<Vec<Tensor>> {
        let x = features(input(inputs, 0)?)?;
        with_num!(cx.arith, x.dtype(), T => self.run::<T>(&x))
    }
    fn held(&self) -> Held {
        self.held
    }
}

fn cases() -> Vec<Case> {
    let ints = |name: &'static str, v: &[i64]| (name, Attr::Ints(v.to_vec()));
    let floats = |name: &'static str, v: &[f32]| (name, Attr::Floats(v.to_vec()));
    let str = |name: &'static str, v: &str| (name, Attr::Str(v.into()));
    let modes = |v: &[&str]| ("nodes_modes", Attr::Strs(v.iter().map(ToString::to_string).collect()));
    // Two trees: a question and two answers, and two questions.
    let trees = || {
        vec![
            ints("nodes_treeids", &[0, 0, 0, 1, 1, 1, 1, 1]),
            ints("nodes_nodeids", &[0, 1, 2, 0, 1, 2, 3, 4]),
            ints("nodes_featureids", &[0, 0, 0, 2, 0, 1, 0, 0]),
            modes(&["BRANCH_LEQ", "LEAF", "LEAF", "BRANCH_GT", "LEAF", "BRANCH_LT", "LEAF", "LEAF"]),
            floats("nodes_values", &[0.1, 0., 0., -0.2, 0., 0.3, 0., 0.]),
            ints("nodes_truenodeids", &[1, 0, 0, 1, 0, 3, 0, 0]),
            ints("nodes_falsenodeids", &[2, 0, 0, 2, 0, 4, 0, 0]),
            ints("nodes_missing_value_tracks_true", &[1, 0, 0, 0, 0, 0, 0, 0]),
        ]
    };
    let leaves = |kind: [&'static str; 4], ids: &[i64; 5], weights: &[f32; 5]| {
        vec![
            ints(kind[0], &[0, 0, 1, 1, 1]),
            ints(kind[1], &[1, 2, 1, 3, 4]),
            ints(kind[2], ids),
            floats(kind[3], weights),
        ]
    };
    let class = ["class_treeids", "class_nodeids", "class_ids", "class_weights"];
    let target = ["target_treeids", "target_nodeids", "target_ids", "target_weights"];
    let x = || sample::floats(&[5, 3], 1);
    let make = |op: &str, parts: [Vec<(&'static str, Attr)>; 3], x: Tensor| {
        let outputs = if op.ends_with("Classifier") { 2 } else { 1 };
        Case::with_optional(op, &parts.concat(), vec![Some(x)], outputs).domain(DOMAIN)
    };
    let mixed = [0.5f32, -1.0, 0.25, 2.0, -0.75];
    let shares = [0.1f32, 0.4, 0.3, 0.2, 0.6];
    let mut all = Vec::new();
    for post in ["NONE", "LOGISTIC", "SOFTMAX"] {
        let three = vec![ints("classlabels_int64s", &[7, 8, 9]), str("post_transform", post)];
        all.push(make("TreeEnsembleClassifier", [trees(), leaves(class, &[0, 1, 2, 1, 0], &mixed), three], x()));
        for weights in [&mixed, &shares] {
            let names = ("classlabels_strings", Attr::Strs(vec!["a".into(), "b".into()]));
            let two = vec![names, str("post_transform", post), floats("base_values", &[0.25])];
            all.push(make("TreeEnsembleClassifier", [trees(), leaves(class, &[0; 5], weights), two.clone()], x()));
            all.push(make("TreeEnsembleClassifier", [trees(), leaves(class, &[1; 5], weights), two], x()));
        }
    }
    for together in ["SUM", "AVERAGE", "MIN", "MAX"] {
        let two = vec![("n_targets", Attr::Int(2)), str("aggregate_function", together), floats("base_values", &[1., 2.])];
        let parts = [trees(), leaves(target, &[0, 1, 1, 0, 1], &mixed), two];
        all.push(make("TreeEnsembleRegressor", parts, x()));
    }
    let f = |v: &[f32]| Attr::Tensor(Tensor::from_vec(v.to_vec(), &[v.len()]).unwrap_or_else(|_| sample::ints(&[])));
    let codes = |v: &[u8]| Attr::Tensor(Tensor::from_vec(v.to_vec(), &[v.len()]).unwrap_or_else(|_| sample::ints(&[])));
    let newer = |modes: &[u8]| {
        vec![
            ("n_targets", Attr::Int(2)),
            ints("tree_roots", &[0]),
            ints("nodes_featureids", &[0, 1, 2]),
            ("nodes_splits", f(&[0.1, 0.2, -0.5])),
            ("nodes_modes", codes(modes)),
            ints("nodes_truenodeids", &[1, 0, 2]),
            ints("nodes_trueleafs", &[0, 1, 1]),
            ints("nodes_falsenodeids", &[2, 1, 3]),
            ints("nodes_falseleafs", &[0, 1, 1]),
            ints("leaf_targetids", &[0, 1, 0, 1]),
            ("leaf_weights", f(&[5.2, 12.1, -12.2, 7.2])),
            ("membership_values", f(&[1.2, 3.7, f32::NAN])),
        ]
    };
    all.push(Case::new("TreeEnsemble", &newer(&[0, 2, 3]), vec![x()]).domain(DOMAIN));
    all.push(Case::new("TreeEnsemble", &newer(&[0, 6, 1]), vec![x()]).domain(DOMAIN));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_that_goes_in_circles_is_an_error() {
        let mut case = cases().remove(0);
        case.node.attrs.insert("nodes_truenodeids".into(), Attr::Ints(vec![0, 0, 0, 0, 0, 3, 0, 0]));
        let x = Tensor::from_vec(vec![-1f32; 3], &[1, 3]).unwrap();
        let why = Op::parse(&case.node).unwrap().eval(&EvalCx { outputs: 2, ..EvalCx::default() }, &[Some(&x)]).unwrap_err();
        assert!(why.to_string().contains("circles"), "{why}");
    }
}
