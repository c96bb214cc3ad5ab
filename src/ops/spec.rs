//! What a model *says*, before any of it is checked: names, attributes, constants. Made by the ONNX reader and the zoo,
//! consumed by the graph builder. Format-neutral and cheap: constants are reference-counted.

use super::Body;
use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor};
use std::sync::Arc;

/// An attribute's value.
#[derive(Debug, Clone)]
pub enum Attr {
    /// An integer.
    Int(i64),
    /// A float.
    Float(f32),
    /// A string (UTF-8, lossily decoded).
    Str(String),
    /// A tensor.
    Tensor(Tensor),
    /// A subgraph as written; the builder turns it into [`Attr::Body`] before the operator is parsed.
    Graph(Arc<GraphSpec>),
    /// A subgraph as built.
    Body(Arc<dyn Body>),
    /// Integers.
    Ints(Vec<i64>),
    /// Floats.
    Floats(Vec<f32>),
    /// Strings.
    Strs(Vec<String>),
    /// Tensors.
    Tensors(Vec<Tensor>),
    /// A reference to an attribute of the enclosing function, resolved when the function is inlined.
    Ref(String),
    /// A kind the reader keeps only by name (sparse tensors, type protos).
    Other(&'static str),
}

/// A node's attributes, in the order of their names.
///
/// Nodes have few: a sorted vector of just their number takes a tenth of the memory of a `BTreeMap`, whose smallest node has room for
/// eleven, and models have thousands of nodes.
#[derive(Debug, Clone, Default)]
pub struct Attrs(Vec<(String, Attr)>);

impl Attrs {
    fn find(&self, name: &str) -> std::result::Result<usize, usize> {
        self.0.binary_search_by(|(n, _)| n.as_str().cmp(name))
    }
    /// The attribute of a name.
    pub fn get(&self, name: &str) -> Option<&Attr> {
        self.find(name).ok().map(|i| &self.0[i].1)
    }
    /// Whether there is an attribute of a name.
    pub fn contains_key(&self, name: &str) -> bool {
        self.find(name).is_ok()
    }
    /// Sets an attribute; what had the name before is returned.
    pub fn insert(&mut self, name: String, attr: Attr) -> Option<Attr> {
        match self.find(&name) {
            Ok(i) => Some(std::mem::replace(&mut self.0[i].1, attr)),
            Err(i) => {
                self.0.insert(i, (name, attr));
                None
            }
        }
    }
    /// Takes an attribute out.
    pub fn remove(&mut self, name: &str) -> Option<Attr> {
        self.find(name).ok().map(|i| self.0.remove(i).1)
    }
    /// Takes all out.
    pub fn clear(&mut self) {
        self.0.clear();
    }
    /// Names with values.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &Attr)> {
        self.0.iter().map(|(name, attr)| (name, attr))
    }
    /// Names with values to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&String, &mut Attr)> {
        self.0.iter_mut().map(|(name, attr)| (&*name, attr))
    }
    /// Names.
    pub fn keys(&self) -> impl Iterator<Item = &String> {
        self.0.iter().map(|(name, _)| name)
    }
    /// Values.
    pub fn values(&self) -> impl Iterator<Item = &Attr> {
        self.0.iter().map(|(_, attr)| attr)
    }
    /// Values to be changed.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut Attr> {
        self.0.iter_mut().map(|(_, attr)| attr)
    }
}

impl FromIterator<(String, Attr)> for Attrs {
    fn from_iter<I: IntoIterator<Item = (String, Attr)>>(all: I) -> Attrs {
        let mut all: Vec<(String, Attr)> = all.into_iter().collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        // Of several of one name the last one holds.
        all.dedup_by(|later, earlier| {
            let same = later.0 == earlier.0;
            if same {
                std::mem::swap(later, earlier);
            }
            same
        });
        Attrs(all)
    }
}

impl<const N: usize> From<[(String, Attr); N]> for Attrs {
    fn from(all: [(String, Attr); N]) -> Attrs {
        all.into_iter().collect()
    }
}

/// A node as written.
#[derive(Debug, Clone, Default)]
pub struct NodeSpec {
    /// The node's name; may be empty or repeated in files, made unique by the builder.
    pub name: String,
    /// Operator type, e.g. `Conv`.
    pub op_type: String,
    /// Operator domain; `""` is `ai.onnx`.
    pub domain: String,
    /// Input value names; `""` is an omitted optional input.
    pub inputs: Vec<String>,
    /// Output value names; `""` is an omitted optional output.
    pub outputs: Vec<String>,
    /// Attributes by name.
    pub attrs: Attrs,
    /// The opset version of `domain` in force for this node (0 when the model does not import the domain).
    pub opset: i64,
    /// Exporter metadata (`metadata_props`), in file order.
    pub metadata: Vec<(String, String)>,
    /// The path of an overload, for model-local functions.
    pub overload: String,
    /// What the file says of it in words.
    pub doc: String,
}

/// A declared value: a graph input or output.
#[derive(Debug, Clone, Default)]
pub struct ValueSpec {
    /// Name.
    pub name: String,
    /// Element type, if declared.
    pub dtype: Option<DType>,
    /// Declared dims, if any are.
    pub shape: Option<Vec<DimSpec>>,
    /// Whether the value is a sequence or optional rather than a tensor.
    pub container: crate::tensor::Container,
}

/// A declared dimension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DimSpec {
    /// A size.
    Size(usize),
    /// A name (`batch`), to be bound.
    Named(String),
    /// Nothing, `?`, `-1` or 0 on a graph input: free and nameless.
    Free,
}

/// A graph as written.
#[derive(Debug, Clone, Default)]
pub struct GraphSpec {
    /// Graph name.
    pub name: String,
    /// Nodes in file order, not necessarily topological.
    pub nodes: Vec<NodeSpec>,
    /// Declared inputs (initializers that are also listed as inputs included).
    pub inputs: Vec<ValueSpec>,
    /// Declared outputs.
    pub outputs: Vec<ValueSpec>,
    /// Constants by name, in file order.
    pub initializers: Vec<(String, Tensor)>,
    /// Declared facts of intermediate values; only trusted for values of unknown operators.
    pub value_info: Vec<ValueSpec>,
}

/// A model as written: the top graph and what surrounds it. Model-local functions are already inlined.
#[derive(Debug, Clone, Default)]
pub struct ModelSpec {
    /// The top graph.
    pub graph: GraphSpec,
    /// Imported operator sets: (domain, version), `""` for `ai.onnx`.
    pub opsets: Vec<(String, i64)>,
    /// The file's IR version.
    pub ir_version: i64,
    /// Producer name and version.
    pub producer: (String, String),
    /// The model's `metadata_props`, in file order.
    pub metadata: Vec<(String, String)>,
    /// Things the user should know about how the file was read (functions inlined, data types replaced).
    pub notes: Vec<String>,
    /// Whether tensors of the file lie in files beside it.
    pub has_external_data: bool,
    /// Those files that were read: location and bytes.
    pub data_files: Vec<(String, u64)>,
    /// What the file says that means nothing to the program, kept for writing it again.
    pub header: Header,
}

/// What a file says of a model that changes nothing about it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Header {
    /// The model's own namespace.
    pub domain: String,
    /// The model's own version.
    pub version: i64,
    /// The model in words.
    pub doc: String,
    /// Its graph in words.
    pub graph_doc: String,
    /// The graph's `metadata_props`, in file order.
    pub graph_metadata: Vec<(String, String)>,
}

impl ModelSpec {
    /// The version of a domain's operator set, 0 if not imported.
    pub fn opset(&self, domain: &str) -> i64 {
        self.opsets.iter().find(|(d, _)| d == domain).map_or(0, |o| o.1)
    }
}

impl NodeSpec {
    fn get(&self, name: &str) -> Option<&Attr> {
        self.attrs.get(name)
    }
    fn wrong(&self, name: &str, want: &str) -> Error {
        Error::input(format!("must be {want}")).at_attribute(name)
    }
    /// An integer attribute, if present.
    pub fn opt_int(&self, name: &str) -> Result<Option<i64>> {
        match self.get(name) {
            None => Ok(None),
            Some(Attr::Int(v)) => Ok(Some(*v)),
            Some(_) => Err(self.wrong(name, "an integer")),
        }
    }
    /// An integer attribute with a default.
    pub fn int(&self, name: &str, default: i64) -> Result<i64> {
        Ok(self.opt_int(name)?.unwrap_or(default))
    }
    /// A boolean written as an integer, with a default.
    pub fn flag(&self, name: &str, default: bool) -> Result<bool> {
        Ok(self.opt_int(name)?.map_or(default, |v| v != 0))
    }
    /// A non-negative size, if present.
    pub fn opt_size(&self, name: &str) -> Result<Option<usize>> {
        self.opt_int(name)?.map(|v| usize::try_from(v).map_err(|_| self.wrong(name, "non-negative"))).transpose()
    }
    /// A float attribute, if present.
    pub fn opt_float(&self, name: &str) -> Result<Option<f32>> {
        match self.get(name) {
            None => Ok(None),
            Some(Attr::Float(v)) => Ok(Some(*v)),
            Some(Attr::Int(v)) => Ok(Some(*v as f32)),
            Some(_) => Err(self.wrong(name, "a float")),
        }
    }
    /// A float attribute with a default.
    pub fn float(&self, name: &str, default: f32) -> Result<f32> {
        Ok(self.opt_float(name)?.unwrap_or(default))
    }
    /// A string attribute, if present.
    pub fn opt_str(&self, name: &str) -> Result<Option<&str>> {
        match self.get(name) {
            None => Ok(None),
            Some(Attr::Str(v)) => Ok(Some(v)),
            Some(_) => Err(self.wrong(name, "a string")),
        }
    }
    /// A string attribute with a default.
    pub fn str<'a>(&'a self, name: &str, default: &'a str) -> Result<&'a str> {
        Ok(self.opt_str(name)?.unwrap_or(default))
    }
    /// A list of integers, if present.
    pub fn opt_ints(&self, name: &str) -> Result<Option<Vec<i64>>> {
        match self.get(name) {
            None => Ok(None),
            Some(Attr::Ints(v)) => Ok(Some(v.clone())),
            Some(_) => Err(self.wrong(name, "a list of integers")),
        }
    }
    /// A list of non-negative sizes, if present.
    pub fn opt_sizes(&self, name: &str) -> Result<Option<Vec<usize>>> {
        let Some(v) = self.opt_ints(name)? else { return Ok(None) };
        v.into_iter()
            .map(|v| usize::try_from(v).map_err(|_| self.wrong(name, "a list of non-negative integers")))
            .collect::<Result<_>>()
            .map(Some)
    }
    /// A list of floats, if present.
    pub fn opt_floats(&self, name: &str) -> Result<Option<Vec<f32>>> {
        match self.get(name) {
            None => Ok(None),
            Some(Attr::Floats(v)) => Ok(Some(v.clone())),
            Some(_) => Err(self.wrong(name, "a list of floats")),
        }
    }
    /// A list of strings, if present.
    pub fn opt_strs(&self, name: &str) -> Result<Option<Vec<String>>> {
        match self.get(name) {
            None => Ok(None),
            Some(Attr::Strs(v)) => Ok(Some(v.clone())),
            Some(_) => Err(self.wrong(name, "a list of strings")),
        }
    }
    /// A tensor attribute, if present.
    pub fn opt_tensor(&self, name: &str) -> Result<Option<Tensor>> {
        match self.get(name) {
            None => Ok(None),
            Some(Attr::Tensor(v)) => Ok(Some(v.clone())),
            Some(_) => Err(self.wrong(name, "a tensor")),
        }
    }
    /// A subgraph attribute that must be there.
    pub fn body(&self, name: &str) -> Result<Arc<dyn Body>> {
        match self.get(name) {
            Some(Attr::Body(b)) => Ok(b.clone()),
            _ => Err(self.wrong(name, "a subgraph")),
        }
    }
    /// A dtype code attribute, if present.
    pub fn opt_dtype(&self, name: &str) -> Result<Option<DType>> {
        self.opt_int(name)?
            .map(|v| {
                i32::try_from(v)
                    .ok()
                    .and_then(DType::from_onnx)
                    .ok_or_else(|| Error::input(format!("{v} is not an element type")).at_attribute(name))
            })
            .transpose()
    }
    /// Whether optional input `i` is given.
    pub fn has_input(&self, i: usize) -> bool {
        self.inputs.get(i).is_some_and(|n| !n.is_empty())
    }
    /// Checks the number of inputs.
    ///
    /// # Errors
    /// If there are fewer than `min` or more than `max`, or one of the first `min` is omitted.
    pub fn expect_inputs(&self, min: usize, max: usize) -> Result<()> {
        let n = self.inputs.len();
        if n < min || n > max || (0..min).any(|i| !self.has_input(i)) {
            let want = if min == max { format!("{min}") } else { format!("{min} to {max}") };
            return Err(Error::input(format!("has {n} inputs where {} takes {want}", self.op_type)));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_in_order_and_the_last_of_a_name_holds() {
        let all = [("b", 1), ("a", 2), ("b", 3), ("c", 4), ("a", 5)];
        let mut attrs: Attrs = all.iter().map(|(name, v)| (name.to_string(), Attr::Int(*v))).collect();
        let held = |attrs: &Attrs| -> Vec<(String, i64)> {
            let int = |a: &Attr| if let Attr::Int(v) = a { *v } else { -1 };
            attrs.iter().map(|(name, a)| (name.clone(), int(a))).collect()
        };
        assert_eq!(held(&attrs), [("a".into(), 5), ("b".into(), 3), ("c".into(), 4)]);
        assert!(matches!(attrs.insert("b".into(), Attr::Int(6)), Some(Attr::Int(3))));
        assert!(attrs.insert("aa".into(), Attr::Int(7)).is_none());
        assert!(attrs.remove("c").is_some() && attrs.remove("c").is_none() && !attrs.contains_key("c"));
        assert_eq!(held(&attrs), [("a".into(), 5), ("aa".into(), 7), ("b".into(), 6)]);
    }
}
