//! The torch program behind a graph: its calls, each with the nodes it became and the module that made it.

use crate::ir::NodeId;

/// A program.
#[derive(Debug, Default)]
pub struct Program {
    /// The calls, in execution order.
    pub calls: Vec<Call>,
    /// What had to be assumed because the graph does not tell.
    pub notes: Vec<String>,
    /// Convolutions whose bias, if they had one beside the BatchNorm folded into them, is not written down.
    pub lost_bias: usize,
    /// Of these, how many are taken to have had none though nothing shows it.
    pub bias_assumed: usize,
    /// How products of activations were written had to be assumed.
    pub spelling_assumed: bool,
    /// The file names the class of every module.
    pub classes_told: bool,
    /// Operators that no torch program exports to, with how many nodes there are.
    pub foreign: Vec<(String, usize)>,
    /// First dim of the first graph input.
    pub batch: usize,
}

impl Program {
    /// The same program with its products of activations written the one way or the other, wherever that is not known.
    pub fn spelt(&self, operator: bool) -> Program {
        let mut other =
            Program { calls: self.calls.clone(), notes: Vec::new(), foreign: self.foreign.clone(), ..*self };
        for call in &mut other.calls {
            match &mut call.what {
                What::Product { spelling: s @ (Spelling::At | Spelling::Matmul), .. } => {
                    *s = if operator { Spelling::At } else { Spelling::Matmul };
                }
                What::Softmax { patched, .. } if call.module == Module::Function => *patched = !operator,
                _ => {}
            }
        }
        other
    }
}

/// What made a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Module {
    /// A leaf module of torch.nn, by class.
    Nn(String),
    /// A leaf module of another class (or an unknown one).
    Custom(String),
    /// A function called in the forward of a larger module.
    Function,
}

/// One call.
#[derive(Debug, Clone)]
pub struct Call {
    /// Its nodes. A BatchNorm that export folded away keeps the convolution it is in.
    pub nodes: Vec<NodeId>,
    /// What is called.
    pub what: What,
    /// What calls it.
    pub module: Module,
    /// Sizes of the main operand.
    pub input: Vec<usize>,
    /// Sizes of the result.
    pub output: Vec<usize>,
    /// Our MAdds of its nodes.
    pub madds: i128,
    /// An activation that the module holds as a function from before counters patch it.
    pub kept_function: bool,
    /// Inside an nn.TransformerEncoderLayer that torch runs as one kernel.
    pub in_fused_layer: bool,
    /// Inside timm's Attention module.
    pub in_timm_attention: bool,
}

impl Call {
    /// Whether a leaf module of this torch.nn class (with any number of spatial dims) made it.
    pub fn is_nn(&self, class: &str) -> bool {
        let digits = |c: char| c.is_ascii_digit();
        let bare = |s: &str| s.strip_suffix('d').map_or(s, |t| t.trim_end_matches(digits)).to_string();
        matches!(&self.module, Module::Nn(c) if bare(c) == class)
    }
    /// Whether any torch.nn leaf module made it.
    pub fn in_nn(&self) -> bool {
        matches!(self.module, Module::Nn(_))
    }
    /// Elements of the operand.
    pub fn read(&self) -> i128 {
        super::volume(&self.input)
    }
    /// Elements of the result.
    pub fn made(&self) -> i128 {
        super::volume(&self.output)
    }
    /// First dim of the result.
    pub fn rows(&self) -> i128 {
        self.output.first().map_or(1, |&d| d as i128)
    }
}

/// How a product of two activations was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spelling {
    /// `torch.matmul(a, b)` or `a.matmul(b)`.
    Matmul,
    /// `a @ b`.
    At,
    /// `torch.bmm(a, b)`.
    Bmm,
    /// `torch.baddbmm(c, a, b)`.
    Baddbmm,
    /// `torch.mm(a, b)`.
    Mm,
    /// `torch.einsum`.
    Einsum,
}

/// A convolution, plain or transposed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conv {
    /// Transposed.
    pub transposed: bool,
    /// With a bias of its own (not one that folding a BatchNorm made).
    pub bias: bool,
    /// A BatchNorm was folded in, and whether there was a bias before is not written down.
    pub folded: bool,
    /// Groups.
    pub groups: i128,
    /// Input channels.
    pub ci: i128,
    /// Output channels.
    pub co: i128,
    /// Kernel sizes.
    pub kernel: Vec<usize>,
    /// Strides.
    pub strides: Vec<usize>,
    /// Pads at the beginning of each axis.
    pub pads: Vec<usize>,
    /// Dilations.
    pub dilations: Vec<usize>,
}

impl Conv {
    /// Elements of the weight.
    pub fn weight(&self) -> i128 {
        super::volume(&self.kernel) * self.ci * self.co / self.groups.max(1)
    }
}

/// Attention inside: what an nn.MultiheadAttention computes.
#[derive(Debug, Clone)]
pub struct MultiHead {
    /// Batch.
    pub batch: i128,
    /// Query length.
    pub queries: i128,
    /// Key length.
    pub keys: i128,
    /// Width.
    pub embed: i128,
    /// Heads.
    pub heads: i128,
    /// The input projection has a bias.
    pub bias: bool,
    /// Torch runs it as one kernel in evaluation without gradients.
    pub fused: bool,
    /// What runs where it does not.
    pub inner: Vec<Call>,
}

/// A recurrent layer, all directions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recurrent {
    /// Gates: 4 LSTM, 3 GRU, 1 plain.
    pub gates: i128,
    /// Directions.
    pub directions: i128,
    /// Time steps times batch.
    pub evaluations: i128,
    /// Input width.
    pub input: i128,
    /// Hidden width.
    pub hidden: i128,
    /// With biases (two vectors per gate).
    pub bias: bool,
    /// The operand lies in memory as it is read (not batch first).
    pub contiguous: bool,
}

/// Which normalisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Norm {
    /// BatchNorm; `true` when export folded it into a convolution.
    Batch(bool),
    /// LayerNorm.
    Layer,
    /// GroupNorm.
    Group,
    /// InstanceNorm.
    Instance,
    /// RMSNorm as one call.
    Rms,
}

/// Which activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Act {
    Relu,
    Relu6,
    LeakyRelu,
    PRelu,
    Elu,
    Silu,
    Gelu,
    HardSwish,
    HardSigmoid,
    Sigmoid,
    Tanh,
    Mish,
    Softplus,
}

/// Which pooling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pool {
    /// Largest of a window.
    Max,
    /// Mean of a window; elements the windows cover in all.
    Average(i128),
    /// Mean of windows that follow from the output size.
    AdaptiveAverage,
    /// Largest of windows that follow from the output size.
    AdaptiveMax,
    /// `x.mean(dims)`.
    Mean,
}

/// Which interpolation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upsample {
    /// The nearest neighbour.
    Nearest,
    /// Linear along one axis, two or three.
    Linear,
    /// Cubic.
    Cubic,
}

/// What is called.
#[derive(Debug, Clone)]
pub enum What {
    /// A convolution.
    Conv(Conv),
    /// `linear`: `k` inputs, `n` outputs; whether the operand lies in memory as it is read.
    Linear { k: i128, n: i128, bias: bool, contiguous: bool },
    /// `addmm(bias, x, weight)`, as transformers' Conv1D does.
    Addmm { k: i128, n: i128 },
    /// A product of two tensors: sizes of both.
    Product { spelling: Spelling, lhs: Vec<usize>, rhs: Vec<usize> },
    /// `scaled_dot_product_attention`; whether probabilities are made beside the result does not matter here.
    Attention,
    /// nn.MultiheadAttention.
    MultiHead(MultiHead),
    /// A recurrent layer.
    Recurrent(Recurrent),
    /// A normalisation; with scale (and bias) or without.
    Norm { norm: Norm, affine: bool, params: i128 },
    /// An activation.
    Act(Act),
    /// Softmax over rows of this length; `patched` when called through torch.nn.functional, where counters patch it.
    Softmax { row: i128, log: bool, patched: bool },
    /// A pooling.
    Pool(Pool),
    /// An interpolation, to a given size or by a factor.
    Upsample { mode: Upsample, by_size: bool },
    /// A table look-up: elements of the table.
    Embedding(i128),
    /// `a * b`; `patched` when written `torch.mul(a, b)` or `a.mul(b)`.
    Mul { patched: bool },
    /// `torch.add(a, b)` or `a.add(b)`.
    Add,
    /// Parameters that a leaf module of an unknown class uses: their elements.
    Parameters(i128),
    /// grid_sample: multiply-adds per output element by interpolation mode.
    GridSample(i128),
}

/// Ceiling of windows that [`Pool::AdaptiveAverage`] slices, summed over an axis: outputs overlap where sizes do not divide.
pub fn adaptive_windows(input: &[usize], output: &[usize]) -> i128 {
    input
        .iter()
        .zip(output)
        .map(|(&i, &o)| {
            if i == o || o == 0 {
                return o as i128;
            }
            (0..o).map(|j| (((j + 1) * i).div_ceil(o) - j * i / o) as i128).sum()
        })
        .product()
}
