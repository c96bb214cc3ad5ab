//! What each operator means: one file per family with parse, shape rule, cost rule, reference kernel and test cases.
//!
//! To add an operator: write (or extend) a family file that defines a type implementing [`Family`] and its `ENTRIES`, and add
//! one line to `families!` below. Nothing else in the program lists operators.

pub mod custom;
pub mod dims;
pub mod elements;
pub mod ml;
pub mod recipe;
pub mod spec;
pub mod window;

use crate::cost::{Span, Work, WorkSpan};
use crate::error::{Error, Result};
use crate::tensor::{Arith, DType, Fact, Shape, Tensor};
use spec::NodeSpec;
use std::any::Any;
use std::fmt::Debug;
use std::sync::{Arc, LazyLock};

/// An input of a node as the shape and cost rules see it.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// What is known of it.
    pub fact: &'a Fact,
    /// Its value, when it is a constant of the graph.
    pub value: Option<&'a Tensor>,
}

/// What a shape rule sees.
#[derive(Debug)]
pub struct Infer<'a> {
    /// Inputs in operator order; `None` for omitted optional ones.
    pub inputs: &'a [Option<Input<'a>>],
    /// Number of outputs the node names (trailing optional outputs may be missing).
    pub outputs: usize,
}

impl<'a> Infer<'a> {
    /// Input `i`, if given.
    pub fn opt(&self, i: usize) -> Option<Input<'a>> {
        self.inputs.get(i).copied().flatten()
    }
    /// Input `i`.
    ///
    /// # Errors
    /// If it is omitted.
    pub fn input(&self, i: usize) -> Result<Input<'a>> {
        self.opt(i).ok_or_else(|| Error::input(format!("input {i} is missing")))
    }
    /// Fact of input `i`.
    pub fn fact(&self, i: usize) -> Result<&'a Fact> {
        Ok(self.input(i)?.fact)
    }
    /// Shape of input `i`.
    pub fn shape(&self, i: usize) -> Result<&'a Shape> {
        Ok(&self.input(i)?.fact.shape)
    }
    /// The integers of input `i` when it is a known constant.
    pub fn ints(&self, i: usize) -> Result<Option<Vec<i64>>> {
        self.opt(i).and_then(|x| x.value).map(Tensor::to_i64s).transpose()
    }
}

/// What a cost rule sees: facts after shape inference.
#[derive(Debug)]
pub struct CostCx<'a> {
    /// Inputs; `None` for omitted ones.
    pub inputs: &'a [Option<Input<'a>>],
    /// Facts of all named outputs.
    pub outputs: &'a [Option<&'a Fact>],
}

impl<'a> CostCx<'a> {
    /// Known sizes of input `i`.
    pub fn dims(&self, i: usize) -> Option<Vec<usize>> {
        self.inputs.get(i).copied().flatten()?.fact.shape.concrete()
    }
    /// Known sizes of output `i`.
    pub fn out_dims(&self, i: usize) -> Option<Vec<usize>> {
        self.outputs.get(i).copied().flatten()?.shape.concrete()
    }
    /// Known element count of input `i`.
    pub fn elements(&self, i: usize) -> Option<u64> {
        Some(self.inputs.get(i).copied().flatten()?.fact.elements()? as u64)
    }
    /// Known element count of output `i`.
    pub fn out_elements(&self, i: usize) -> Option<u64> {
        Some(self.outputs.get(i).copied().flatten()?.elements()? as u64)
    }
    /// Whether input `i` is given.
    pub fn has(&self, i: usize) -> bool {
        self.inputs.get(i).copied().flatten().is_some()
    }
    /// Element type of input `i`.
    pub fn dtype(&self, i: usize) -> Option<DType> {
        self.inputs.get(i).copied().flatten()?.fact.dtype
    }
}

/// What a node costs as far as its operator's rule can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Charge {
    /// Exactly this.
    Known(Work),
    /// Something between bounds: an If before a branch is taken, a loop whose length only a run tells.
    Between(WorkSpan),
    /// The rule needs a size or trip count that only a run gives, or there is no rule.
    Unknown,
}

impl Charge {
    /// No arithmetic: data movement, integers, booleans, strings.
    pub const FREE: Charge = Charge::Known(Work::NONE);
    /// `Known` from a rule that gives `None` where a size is unknown (or overflows).
    pub fn of(work: Option<Work>) -> Charge {
        work.map_or(Charge::Unknown, Charge::Known)
    }
    /// The arithmetic, where it is known.
    pub fn known(&self) -> Option<Work> {
        if let Charge::Known(work) = self { Some(*work) } else { None }
    }
    /// What is known of it.
    pub fn span(&self) -> WorkSpan {
        match self {
            Charge::Known(work) => WorkSpan::exact(*work),
            Charge::Between(span) => *span,
            Charge::Unknown => WorkSpan::ANY,
        }
    }
}

/// How a node touches memory, for the bytes columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Each operand read once, each result written once.
    Compulsory,
    /// A view: nothing needs to move (Reshape, Squeeze, Identity …).
    View,
    /// Only as many elements of input 0 are read as are written (Gather, Slice, embedding look-up).
    Selected,
}

/// What an input is to the operator, for the Params column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Data, or a learned tensor if it is a constant the data is combined with elementwise: see `analysis::params` for the rule.
    Data,
    /// A learned tensor when constant: weights, biases, scales, embedding tables.
    Weight,
    /// Running statistics of BatchNormalization: their own column.
    Statistic,
    /// Never learned: shapes, axes, indices, thresholds, quantisation scales and zero points.
    Setting,
}

/// Numbers an operator holds in its attributes rather than in inputs (linear models, trees): counted like stored tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Held {
    /// Learned numbers.
    pub learned: u64,
    /// Statistics of the data it was fitted to: means, scales, document frequencies.
    pub statistics: u64,
    /// Bytes per number.
    pub width: u64,
}

impl Held {
    /// Numbers in attributes of floats.
    pub fn floats(learned: usize, statistics: usize) -> Held {
        Held { learned: learned as u64, statistics: statistics as u64, width: 4 }
    }
}

/// What evaluation needs besides inputs.
#[derive(Debug, Clone, Copy, Default)]
pub struct EvalCx<'a> {
    /// Number type for float data.
    pub arith: Arith,
    /// Number of outputs the node names.
    pub outputs: usize,
    /// Depth of nested subgraph evaluation, to refuse endless recursion.
    pub depth: usize,
    /// Told of every node that runs, those of subgraphs included.
    pub observer: Option<&'a dyn Observer>,
}

/// Somebody who wants to know what really ran: sizes and branches that only a run tells.
pub trait Observer: Debug {
    /// Node number `node` of a graph (the [`Body`]) made `outputs` from `inputs`.
    fn ran(&self, graph: &dyn Body, node: usize, inputs: &Inputs, outputs: &[Tensor]);
}

/// The inputs of an evaluation.
pub type Inputs<'a> = [Option<&'a Tensor>];

/// Input `i` of an evaluation.
///
/// # Errors
/// If it is omitted.
pub fn input<'a>(inputs: &Inputs<'a>, i: usize) -> Result<&'a Tensor> {
    inputs.get(i).copied().flatten().ok_or_else(|| Error::input(format!("input {i} is missing")))
}

/// Input `i` of an evaluation, if given.
pub fn opt<'a>(inputs: &Inputs<'a>, i: usize) -> Option<&'a Tensor> {
    inputs.get(i).copied().flatten()
}

/// A subgraph as operators see it (If, Loop, Scan). Implemented by `ir::Graph`.
///
/// Its inputs are the formal inputs followed by the captured outer values, in the order of [`Body::captures`].
pub trait Body: Debug + Send + Sync {
    /// Number of formal inputs.
    fn formals(&self) -> usize;
    /// Number of outer values it captures; the node passes them after its own inputs.
    fn captures(&self) -> usize;
    /// Facts of its outputs.
    fn output_facts(&self) -> Vec<Fact>;
    /// The cost of one execution.
    fn charge(&self) -> Charge;
    /// Executes it: formal inputs, then captures.
    fn eval(&self, cx: &EvalCx, inputs: &[Tensor]) -> Result<Vec<Tensor>>;
    /// The value of output `i` when it is a constant of the subgraph.
    fn constant_output(&self, _i: usize) -> Option<Tensor> {
        None
    }
    /// Why it cannot run with the shapes at hand; it is then never taken.
    fn refusal(&self) -> Option<&Error> {
        None
    }
    /// The formal input that output `i` is, when the subgraph passes it on unchanged.
    fn passes_input(&self, _i: usize) -> Option<usize> {
        None
    }
    /// The graph behind it.
    fn as_any(&self) -> &dyn Any;
}

/// What every operator family implements.
pub trait Family: Debug + Send + Sync {
    /// Shape rule: facts of the outputs. Unknown dims stay unknown; contradictions are errors.
    fn infer(&self, cx: &Infer) -> Result<Vec<Fact>>;
    /// Cost rule. The counting-number run of [`Family::eval`] must find exactly this.
    fn charge(&self, cx: &CostCx) -> Charge;
    /// Reference kernel: readable loops. Narrow floats arrive widened to `f32` (see [`Op::eval`]) unless
    /// [`Family::handles_narrow`].
    fn eval(&self, cx: &EvalCx, inputs: &Inputs) -> Result<Vec<Tensor>>;
    /// What input `i` is.
    fn role(&self, _i: usize) -> Role {
        Role::Data
    }
    /// How many elements input `i` holds, where its tensor packs them into fewer (weights of a few bits kept as bytes).
    fn elements_of(&self, _i: usize, _inputs: &[Option<Input>]) -> Option<u64> {
        None
    }
    /// How memory is touched.
    fn access(&self) -> Access {
        Access::Compulsory
    }
    /// Whether `eval` takes and gives f16, bf16 and 8-bit floats itself (data movement, casts, quantisation).
    fn handles_narrow(&self) -> bool {
        false
    }
    /// Whether equal inputs may give different outputs (random operators): never folded.
    fn is_random(&self) -> bool {
        false
    }
    /// The value when the operator is a constant written as a node.
    fn constant(&self) -> Option<&Tensor> {
        None
    }
    /// The result when it follows from the inputs' facts alone (Shape, Size), whatever the data.
    fn fold(&self, _inputs: &[Option<Input>]) -> Option<Tensor> {
        None
    }
    /// What its attributes hold of a trained model.
    fn held(&self) -> Held {
        Held::default()
    }
    /// Subgraphs, in the order their captures follow the node's inputs.
    fn bodies(&self) -> Vec<Arc<dyn Body>> {
        Vec::new()
    }
    /// For each of [`Family::bodies`]: what it is (`then`, `else`, `body`) and how often it runs.
    fn rounds(&self, _cx: &CostCx) -> Vec<(&'static str, Span)> {
        Vec::new()
    }
}

/// One row of the operator table.
pub struct Entry {
    /// Operator domain; `""` is `ai.onnx`.
    pub domain: &'static str,
    /// Operator name.
    pub name: &'static str,
    /// Checks the attributes and makes the typed operator.
    pub parse: fn(&NodeSpec) -> Result<Op>,
    /// Test cases: nodes with inputs, from which shape, cost and kernel are proved. At least one.
    pub cases: fn() -> Vec<Case>,
}

/// A node with inputs on which its operator is tested: shape rule against the reference kernel's result, cost rule against the
/// counting number, and every fast kernel against the reference.
#[derive(Debug, Clone)]
pub struct Case {
    /// The node; input and output names only mark which are given.
    pub node: NodeSpec,
    /// Values of the inputs.
    pub inputs: Vec<Option<Tensor>>,
}

impl Case {
    /// A case of operator `op_type` (`ai.onnx`, newest opset) with all `inputs` given and one output.
    pub fn new(op_type: &str, attrs: &[(&str, spec::Attr)], inputs: Vec<Tensor>) -> Case {
        Case::with_optional(op_type, attrs, inputs.into_iter().map(Some).collect(), 1)
    }
    /// A case with omitted inputs and several outputs.
    pub fn with_optional(
        op_type: &str,
        attrs: &[(&str, spec::Attr)],
        inputs: Vec<Option<Tensor>>,
        outputs: usize,
    ) -> Case {
        let name = |i: usize, given: bool| if given { format!("x{i}") } else { String::new() };
        Case {
            node: NodeSpec {
                name: op_type.to_lowercase(),
                op_type: op_type.into(),
                inputs: inputs.iter().enumerate().map(|(i, x)| name(i, x.is_some())).collect(),
                outputs: (0..outputs).map(|i| format!("y{i}")).collect(),
                attrs: attrs.iter().map(|(k, v)| (k.to_string(), v.clone())).collect(),
                opset: NEWEST_OPSET,
                ..NodeSpec::default()
            },
            inputs,
        }
    }
    /// The same case under another opset.
    #[must_use]
    pub fn opset(mut self, version: i64) -> Case {
        self.node.opset = version;
        self
    }
    /// The same case in another domain.
    #[must_use]
    pub fn domain(mut self, domain: &str) -> Case {
        self.node.domain = domain.into();
        self
    }
}

/// The newest opset of `ai.onnx` this build knows.
pub const NEWEST_OPSET: i64 = 28;

/// The typed operators and the operator table. **One line per family file.**
macro_rules! families {
    ($($(#[$doc:meta])* $variant:ident: $module:ident;)*) => {
        $(pub mod $module;)*

        /// A typed operator: a closed set, attributes validated when it was parsed.
        #[derive(Debug, Clone)]
        pub enum Op {
            $($(#[$doc])* $variant($module::$variant),)*
            /// An operator this build does not know; kept by name, its cost is unknown.
            Opaque(Opaque),
        }

        impl Op {
            /// The family behind it.
            pub fn family(&self) -> &dyn Family {
                match self {
                    $(Op::$variant(op) => op,)*
                    Op::Opaque(op) => op,
                }
            }
        }

        fn entry_lists() -> Vec<&'static [Entry]> {
            vec![$($module::ENTRIES),*]
        }
    };
}

families! {
    /// Conv.
    Conv: conv;
    /// ConvTranspose.
    ConvTranspose: conv_transpose;
    /// Attention, RotaryEmbedding.
    Attention: attention;
    /// Attention as ONNX Runtime fuses it.
    Heads: heads;
    /// Regions and boxes, DeformConv, Col2Im.
    Detect: detect;
    /// GridSample, AffineGrid.
    Grid: grid;
    /// Einsum.
    Einsum: einsum;
    /// MatMul, Gemm.
    MatMul: matmul;
    /// Normalisations.
    Norm: norm;
    /// Pooling.
    Pool: pool;
    /// Resize, Upsample.
    Resize: resize;
    /// LinearAttention, CausalConvWithState, SwiGLU.
    LinearAttention: linear_attention;
    /// Det.
    Det: det;
    /// LSTM, GRU, RNN.
    Rnn: rnn;
    /// Softmax, LogSoftmax, Hardmax.
    Softmax: softmax;
    /// Classification losses.
    Loss: loss;
    /// Fourier transforms, windows.
    Signal: signal;
    /// Reshape, Flatten, Squeeze, Unsqueeze.
    Reshape: reshape;
    /// Transpose, DepthToSpace, SpaceToDepth.
    Transpose: transpose;
    /// Concat, Split.
    Concat: concat;
    /// Slice, Pad, CenterCropPad.
    Slice: slice;
    /// Expand, Tile.
    Expand: expand;
    /// Gather, GatherElements, GatherND.
    Gather: gather;
    /// Scatter, ScatterElements, ScatterND, TensorScatter.
    Scatter: scatter;
    /// Trilu, ReverseSequence.
    Arrange: arrange;
    /// Compress, NonZero, Unique, TopK.
    Select: select;
    /// Cast, CastLike, BitCast, Identity.
    Cast: cast;
    /// Dropout.
    Dropout: dropout;
    /// Elementwise functions of one tensor.
    Unary: unary;
    /// Elementwise functions of several tensors.
    Binary: binary;
    /// Constant, ConstantOfShape, EyeLike, Range, OneHot, Shape, Size.
    Constant: constant;
    /// Random numbers.
    Random: random;
    /// Reductions, ArgMax, ArgMin, CumSum, CumProd.
    Reduce: reduce;
    /// If, Loop.
    Control: control;
    /// Scan, SequenceMap.
    Over: scan;
    /// QuantizeLinear, DequantizeLinear, DynamicQuantizeLinear.
    Quant: quant;
    /// Products and elementwise functions of quantised tensors.
    QLinear: qlinear;
    /// What optimizers fuse: FusedConv, FusedGemm, EmbedLayerNormalization and others.
    Fused: fused;
    /// What optimizers fuse on quantised data: QGemm, QAttention and others.
    FusedQuant: fused_quant;
    /// Products with weights packed to a few bits.
    NBits: nbits;
    /// An LSTM with integer weights.
    RnnQuant: rnn_quant;
    /// Mixtures of experts.
    Moe: moe;
    /// Operators on blocked data.
    Nchwc: nchwc;
    /// ONNX Runtime's operators of no other family.
    Contrib: contrib;
    /// Sequences and optionals.
    Sequence: sequence;
    /// Operators on text.
    Strings: strings;
    /// TfIdfVectorizer.
    TfIdf: tfidf;
    /// Linear models and support vector machines.
    MlLinear: ml_linear;
    /// Ensembles of trees.
    MlTree: ml_tree;
    /// Features made ready.
    MlFeatures: ml_features;
    /// Labels and maps.
    MlLabels: ml_labels;
}

/// The operator table, sorted by (domain, name).
pub static TABLE: LazyLock<Vec<&'static Entry>> = LazyLock::new(|| {
    let mut all: Vec<&Entry> = entry_lists().into_iter().flatten().collect();
    all.sort_by_key(|e| (e.domain, e.name));
    all
});

/// [`TABLE`] by (domain, name): every node of every model is looked up.
static INDEX: LazyLock<foldhash::HashMap<(&str, &str), &'static Entry>> =
    LazyLock::new(|| TABLE.iter().map(|e| ((e.domain, e.name), *e)).collect());

/// The table's row for an operator.
pub fn lookup(domain: &str, name: &str) -> Option<&'static Entry> {
    let domain = if domain == "ai.onnx" { "" } else { domain };
    INDEX.get(&(domain, name)).copied()
}

impl Op {
    /// Whether the operator may hold multiply-adds of the matrix core. Those that certainly do not are listed, so that a size that
    /// only a run tells leaves the MAdds of a model exact.
    pub fn multiplies(&self) -> bool {
        !matches!(
            self,
            Op::Norm(_)
                | Op::Pool(_)
                | Op::Softmax(_)
                | Op::Reshape(_)
                | Op::Transpose(_)
                | Op::Concat(_)
                | Op::Slice(_)
                | Op::Expand(_)
                | Op::Gather(_)
                | Op::Scatter(_)
                | Op::Arrange(_)
                | Op::Select(_)
                | Op::Cast(_)
                | Op::Unary(_)
                | Op::Binary(_)
                | Op::Constant(_)
                | Op::Random(_)
                | Op::Reduce(_)
                | Op::Resize(_)
                | Op::Quant(_)
                | Op::Sequence(_)
                | Op::Detect(
                    detect::Detect::Suppression { .. } | detect::Detect::Align { .. } | detect::Detect::RoiPool { .. }
                )
                | Op::Loss(_)
                | Op::Dropout(_)
                | Op::Strings(_)
                | Op::TfIdf(_)
                | Op::MlTree(_)
                | Op::MlFeatures(_)
                | Op::MlLabels(_)
        )
    }

    /// The typed operator of a node; [`Op::Opaque`] when the table has no row for it.
    ///
    /// # Errors
    /// If an attribute is missing, of the wrong kind or out of range.
    pub fn parse(node: &NodeSpec) -> Result<Op> {
        match lookup(&node.domain, &node.op_type) {
            Some(entry) => (entry.parse)(node),
            None => Ok(Op::Opaque(Opaque::of(node))),
        }
    }

    /// Whether its floating-point inputs may be of different types that are computed as one.
    fn mixes_widths(&self) -> bool {
        matches!(self, Op::Attention(_) | Op::Norm(_))
    }

    /// Runs the reference kernel. Narrow floats are computed in `f32`, or in `f64` beside such, and rounded at the outputs, whose
    /// types come from the shape rule.
    ///
    /// # Errors
    /// If the inputs contradict the operator, or the data does (an index out of range).
    pub fn eval(&self, cx: &EvalCx, inputs: &Inputs) -> Result<Vec<Tensor>> {
        let family = self.family();
        let some = |is: fn(DType) -> bool| inputs.iter().flatten().any(|t| is(t.dtype()));
        let double = self.mixes_widths() && some(|d| d == DType::F64) && some(|d| d.is_float() && d != DType::F64);
        if !(double || some(DType::is_narrow_float)) || family.handles_narrow() {
            return family.eval(cx, inputs);
        }
        let facts: Vec<Option<Fact>> = inputs.iter().map(|t| t.map(Tensor::fact)).collect();
        let seen: Vec<Option<Input>> =
            facts.iter().zip(inputs).map(|(f, t)| f.as_ref().map(|fact| Input { fact, value: *t })).collect();
        let outputs = family.infer(&Infer { inputs: &seen, outputs: cx.outputs })?;
        let widened =
            |t: &Tensor| if double && t.dtype().is_float() { cast::cast(t, DType::F64, true) } else { t.widened() };
        let wide: Vec<Option<Tensor>> = inputs.iter().map(|t| t.map(widened).transpose()).collect::<Result<_>>()?;
        let wide: Vec<Option<&Tensor>> = wide.iter().map(Option::as_ref).collect();
        let results = family.eval(cx, &wide)?;
        results
            .into_iter()
            .enumerate()
            .map(|(i, t)| match outputs.get(i).and_then(|f| f.dtype) {
                Some(d) if d.is_narrow_float() && t.dtype() == DType::F32 => t.narrowed(d, true),
                Some(d) if double && d.is_float() => cast::cast(&t, d, true),
                _ => Ok(t),
            })
            .collect()
    }
}

/// An operator this build does not know.
#[derive(Debug, Clone)]
pub struct Opaque {
    /// Its domain.
    pub domain: String,
    /// Its name.
    pub name: String,
    /// What the user says it costs.
    pub rule: Option<Arc<custom::Rule>>,
    outputs: usize,
    attributes: std::collections::BTreeMap<String, i64>,
}

impl Opaque {
    /// Keeps a node's operator by name.
    pub fn of(node: &NodeSpec) -> Opaque {
        let int =
            |(k, v): (&String, &spec::Attr)| if let spec::Attr::Int(n) = v { Some((k.clone(), *n)) } else { None };
        Opaque {
            domain: node.domain.clone(),
            name: node.op_type.clone(),
            rule: None,
            outputs: node.outputs.len(),
            attributes: node.attrs.iter().filter_map(int).collect(),
        }
    }
    /// Whether the user's rule makes sense for a node with these operands.
    ///
    /// # Errors
    /// If it names sizes that are not there, or gives no count.
    pub fn check(&self, inputs: &[Option<Fact>], outputs: &[Option<Fact>]) -> Result<()> {
        let Some(rule) = &self.rule else { return Ok(()) };
        let inputs: Vec<Option<&Fact>> = inputs.iter().map(Option::as_ref).collect();
        let outputs: Vec<Option<&Fact>> = outputs.iter().map(Option::as_ref).collect();
        rule.work(&inputs, &outputs, &self.attributes).map(drop)
    }
}

impl Family for Opaque {
    fn infer(&self, cx: &Infer) -> Result<Vec<Fact>> {
        let mut facts = vec![Fact::unknown(); self.outputs];
        if let Some(rule) = &self.rule {
            let inputs: Vec<Option<&Fact>> = cx.inputs.iter().map(|i| i.map(|i| i.fact)).collect();
            let dtype = inputs.first().copied().flatten().and_then(|f| f.dtype);
            for (fact, shape) in facts.iter_mut().zip(rule.output_shapes(&inputs, &self.attributes)?) {
                *fact = Fact { dtype, shape, ..fact.clone() };
            }
        }
        Ok(facts)
    }
    fn charge(&self, cx: &CostCx) -> Charge {
        let inputs: Vec<Option<&Fact>> = cx.inputs.iter().map(|i| i.map(|i| i.fact)).collect();
        // A rule that makes no sense for this node was refused when the graph was built.
        let work = self.rule.as_ref().and_then(|r| r.work(&inputs, cx.outputs, &self.attributes).ok().flatten());
        Charge::of(work)
    }
    fn eval(&self, _cx: &EvalCx, _inputs: &Inputs) -> Result<Vec<Tensor>> {
        let domain = if self.domain.is_empty() { "ai.onnx" } else { &self.domain };
        Err(Error::unsupported(format!("operator {domain}::{} is not known to this build and cannot run", self.name))
            .hint("`madd-prof count` still counts the rest of the model and marks this node as unknown"))
    }
}

/// Helpers for cases and tests: tensors of reproducible, unremarkable numbers.
pub mod sample {
    use super::*;

    /// `f32` values in (-1, 1), different for each `seed`.
    pub fn floats(dims: &[usize], seed: u64) -> Tensor {
        let n: usize = dims.iter().product();
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0xd1b5_4a32_d192_ed03;
        let values: Vec<f32> = (0..n)
            .map(|_| {
                // SplitMix64 (Steele, Lea, Flood 2014).
                state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mut z = state;
                z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                z ^= z >> 31;
                (z >> 40) as f32 / (1u64 << 23) as f32 - 1.0
            })
            .collect();
        Tensor::from_vec(values, dims).expect("dims and values agree by construction")
    }
    /// `i64` values.
    pub fn ints(values: &[i64]) -> Tensor {
        Tensor::from_vec(values.to_vec(), &[values.len()]).expect("one dim, its length")
    }
}
