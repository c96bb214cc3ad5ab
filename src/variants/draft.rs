//! A model being rewritten: as written, with the facts of its built graph beside it.

use super::edit::Editor;
use super::{Block, Choice, Policy, Reason, Site, layer, opset};
use crate::analysis::{Totals, analyze};
use crate::error::{Error, Result};
use crate::ir::{self, Bindings, Graph, Model, ValueId};
use crate::ops::spec::{Attr, DimSpec, GraphSpec, ModelSpec, NodeSpec};
use crate::tensor::Tensor;
use std::collections::{HashMap, HashSet};

/// A layer that was rewritten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The layer.
    pub node: String,
    /// What it was.
    pub what: String,
    /// Learned elements before and after, where the layer was rewritten by itself.
    pub params: Option<(u64, u64)>,
    /// Multiply-adds before and after, where the layer was rewritten by itself.
    pub madds: Option<(u64, u64)>,
}

impl Change {
    /// A change of a layer that is counted with the model.
    pub fn of(node: &str, what: impl Into<String>) -> Change {
        Change { node: node.to_string(), what: what.into(), params: None, madds: None }
    }
}

/// A layer that was left alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// The layer.
    pub node: String,
    /// What it is.
    pub what: String,
    /// Why.
    pub reason: Reason,
}

/// A model being rewritten.
#[derive(Debug)]
pub struct Draft {
    /// As written so far.
    pub spec: ModelSpec,
    /// As built before the variant at hand began.
    pub model: Model,
    /// How far a rewrite may go.
    pub policy: Policy,
    bindings: Bindings,
    changes: Vec<Change>,
    left: Vec<Left>,
    /// Values that were read when the variant at hand began.
    was_read: HashSet<String>,
}

impl Draft {
    pub(super) fn new(spec: ModelSpec, bindings: Bindings, policy: Policy) -> Result<Draft> {
        let model = ir::build(&spec, &bindings)?;
        Ok(Draft { spec, model, policy, bindings, changes: Vec::new(), left: Vec::new(), was_read: HashSet::new() })
    }

    pub(super) fn begin(&mut self) {
        self.was_read = readers(&self.spec.graph).into_keys().collect();
    }

    /// Takes out what nobody reads any more, and builds the result.
    ///
    /// # Errors
    /// If the result does not build or its inputs or outputs have changed.
    pub(super) fn settle(&mut self) -> Result<()> {
        self.drop_unread();
        if (1..4).contains(&self.spec.ir_version) {
            // Earlier files must list every constant as an input.
            self.spec.ir_version = 4;
        }
        let built = ir::build(&self.spec, &self.bindings)?;
        let facts = |g: &Graph, ids: &[ValueId]| -> Vec<_> {
            ids.iter().map(|&v| (g.value(v).name.clone(), g.value(v).fact.clone())).collect()
        };
        let (old, new) = (&self.model.graph, &built.graph);
        if facts(old, old.inputs()) != facts(new, new.inputs())
            || facts(old, old.outputs()) != facts(new, new.outputs())
        {
            return Err(Error::run("a rewrite changed the model's inputs or outputs"));
        }
        self.model = built;
        Ok(())
    }

    pub(super) fn end(&mut self) -> (Vec<Change>, Vec<Left>) {
        (std::mem::take(&mut self.changes), std::mem::take(&mut self.left))
    }

    pub(super) fn finish(mut self) -> (ModelSpec, Model) {
        // Declared facts of inner values hold only where the value is still what it was.
        let graph = &self.model.graph;
        let facts: HashMap<&str, _> = graph.values().iter().map(|v| (v.name.as_str(), &v.fact)).collect();
        self.spec.graph.value_info.retain(|v| {
            facts.get(v.name.as_str()).is_some_and(|f| {
                let same = |(d, s): (&Option<usize>, &DimSpec)| match (d, s) {
                    (Some(d), DimSpec::Size(s)) => d == s,
                    _ => true,
                };
                let dims = f.shape.dims().zip(v.shape.as_ref());
                f.dtype == v.dtype && dims.is_none_or(|(d, s)| d.len() == s.len() && d.iter().zip(s).all(same))
            })
        });
        (self.spec, self.model)
    }

    /// Notes a layer that was rewritten.
    pub fn changed(&mut self, change: Change) {
        self.changes.push(change);
    }

    /// Notes a layer that was left alone.
    pub fn leave(&mut self, node: &str, what: impl Into<String>, reason: Reason) {
        self.left.push(Left { node: node.to_string(), what: what.into(), reason });
    }

    /// Values of the built graph by name.
    pub fn values(&self) -> HashMap<&str, ValueId> {
        let values = self.model.graph.values().iter().enumerate();
        values.map(|(i, v)| (v.name.as_str(), ValueId(i as u32))).collect()
    }

    /// Every name in the model.
    pub fn names(&self) -> HashSet<String> {
        fn collect(g: &GraphSpec, into: &mut HashSet<String>) {
            into.extend(g.initializers.iter().map(|(n, _)| n.clone()));
            into.extend(g.inputs.iter().chain(&g.outputs).map(|v| v.name.clone()));
            for node in &g.nodes {
                into.insert(node.name.clone());
                into.extend(node.inputs.iter().chain(&node.outputs).cloned());
                for attr in node.attrs.values() {
                    if let Attr::Graph(g) = attr {
                        collect(g, into);
                    }
                }
            }
        }
        let mut names = HashSet::new();
        collect(&self.spec.graph, &mut names);
        names
    }

    /// How often each value is read, by nodes, subgraphs and as an output.
    pub fn readers(&self) -> HashMap<String, usize> {
        readers(&self.spec.graph)
    }

    /// A stored constant.
    pub fn constant(&self, name: &str) -> Option<&Tensor> {
        self.spec.graph.initializers.iter().find(|(n, _)| n == name).map(|(_, t)| t)
    }

    /// Whether a free size other than the batch makes fixed sizes inside the graph wrong for other inputs.
    pub fn has_free_sizes(&self) -> bool {
        let inputs = self.spec.graph.inputs.iter().filter(|v| self.constant(&v.name).is_none());
        let free = |d: &DimSpec| !matches!(d, DimSpec::Size(_));
        inputs.into_iter().any(|v| v.shape.as_ref().is_none_or(|dims| dims.iter().skip(1).any(free)))
    }

    /// Raises the operator set to at least `version`.
    ///
    /// # Errors
    /// If the meaning of an operator may change; the text says which.
    pub fn raise_opset(&mut self, version: i64) -> std::result::Result<(), String> {
        opset::raise(&mut self.spec, version)
    }

    /// Puts a block in the place of every dense convolution it fits.
    pub(super) fn replace_all(&mut self, block: &Block, choice: &Choice) -> Result<()> {
        let raised = self.raise_opset(block.opset);
        let readers = self.readers();
        let names = self.names();
        let free = self.has_free_sizes();
        let nodes = std::mem::take(&mut self.spec.graph.nodes);
        let mut out = Vec::with_capacity(nodes.len());
        for node in nodes {
            if node.op_type != "Conv" || !node.domain.is_empty() {
                out.push(node);
                continue;
            }
            let site = Site::at(&node, &self.model.graph, &self.values(), &readers);
            let made = match &site {
                Ok(_) if raised.is_err() => Err(Reason::Illegal(raised.clone().err().unwrap_or_default())),
                Ok(site) => self.try_block(block, choice, site, &node, &names, free)?,
                Err(reason) => Err(reason.clone()),
            };
            match made {
                Ok((nodes, initializers, change)) => {
                    out.extend(nodes);
                    self.spec.graph.initializers.extend(initializers);
                    self.changed(change);
                }
                Err(reason) => {
                    let what = site.as_ref().map(Site::words).unwrap_or_default();
                    self.leave(&node.name, what, reason);
                    out.push(node);
                }
            }
        }
        self.spec.graph.nodes = out;
        Ok(())
    }

    #[allow(clippy::type_complexity)]
    fn try_block(
        &self,
        block: &Block,
        choice: &Choice,
        site: &Site,
        node: &NodeSpec,
        names: &HashSet<String>,
        free_sizes: bool,
    ) -> Result<std::result::Result<(Vec<NodeSpec>, Vec<(String, Tensor)>, Change), Reason>> {
        match (block.fits)(site, choice) {
            Err(Reason::Unwise(_)) if self.policy.force => {}
            Err(reason) => return Ok(Err(reason)),
            Ok(()) => {}
        }
        let version = self.spec.opset("");
        let mut editor = Editor::new(&node.name, version, names);
        (block.build)(&mut editor, site, choice)?;
        if free_sizes && editor.nodes.iter().any(|n| n.op_type == "Reshape") {
            return Ok(Err(Reason::Illegal("needs sizes that the file leaves free".into())));
        }
        let Editor { mut nodes, initializers, .. } = editor;
        for n in &mut nodes {
            n.metadata = node.metadata.clone();
        }
        let before = layer::counts(site, version, std::slice::from_ref(node), &[])?;
        let after = layer::counts(site, version, &nodes, &initializers)?;
        let madds = (before.work.madds, after.work.madds);
        if madds.1 >= madds.0 && !block.adds && !self.policy.force {
            let (old, new) = (crate::units::si(madds.0), crate::units::si(madds.1));
            return Ok(Err(Reason::Unwise(format!("saves nothing: {new} MAdds for {old}"))));
        }
        let change = Change {
            node: site.name.clone(),
            what: site.words(),
            params: Some((before.params, after.params)),
            madds: Some(madds),
        };
        Ok(Ok((nodes, initializers, change)))
    }

    /// Takes out constants that lost their last reader, and nodes that compute for nobody.
    pub fn drop_unread(&mut self) {
        let graph = &mut self.spec.graph;
        loop {
            let readers = readers(graph);
            let before = graph.nodes.len();
            // What nobody read before is not ours to take out.
            let was_read = &self.was_read;
            let idle = |n: &NodeSpec| !n.outputs.iter().any(|o| readers.contains_key(o));
            graph.nodes.retain(|n| !(idle(n) && n.outputs.iter().any(|o| was_read.contains(o))));
            if graph.nodes.len() == before {
                break;
            }
        }
        let readers = readers(graph);
        let was_read = &self.was_read;
        let gone: HashSet<String> = graph
            .initializers
            .iter()
            .map(|(n, _)| n.clone())
            .filter(|n| was_read.contains(n) && !readers.contains_key(n))
            .collect();
        graph.initializers.retain(|(n, _)| !gone.contains(n));
        graph.inputs.retain(|v| !gone.contains(&v.name));
    }

    /// The counts of the model as built last.
    pub fn totals(&self) -> Totals {
        analyze(&self.model.graph).totals
    }
}

/// How often each value is read, by nodes, subgraphs and as an output.
fn readers(graph: &GraphSpec) -> HashMap<String, usize> {
    fn walk(g: &GraphSpec, count: &mut HashMap<String, usize>) {
        for name in g.outputs.iter().map(|v| &v.name).chain(g.nodes.iter().flat_map(|n| &n.inputs)) {
            if !name.is_empty() {
                *count.entry(name.clone()).or_default() += 1;
            }
        }
        for attr in g.nodes.iter().flat_map(|n| n.attrs.values()) {
            if let Attr::Graph(g) = attr {
                walk(g, count);
            }
        }
    }
    let mut count = HashMap::new();
    walk(graph, &mut count);
    count
}
