//! What a kernel is asked to do: a step of a plan in terms of shapes, layouts and fused parts, free of graphs and names.

use super::epilogue::Act;
use super::kept::Kept;
use super::product::Packs;
use super::shared::Share;
use crate::engine::pool::Pool;
use crate::error::Result;
use crate::ops::conv::Geometry;
use crate::simd::Isa;
use crate::tensor::Tensor;

/// How a rank-4 activation lies in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layout {
    /// Row-major, as in the file: NCHW.
    Plain,
    /// NCHWc: `[n][ceil(c/L)][h][w][L]` with `L` the lanes of the ISA; lanes beyond `c` hold finite numbers of no meaning.
    Blocked,
}

/// Number of `f32` values a tensor of `dims` takes in a layout.
pub fn buffer_len(dims: &[usize], layout: Layout, isa: Isa) -> usize {
    match (layout, dims) {
        (Layout::Blocked, [n, c, rest @ ..]) => {
            let l = isa.lanes();
            n * c.div_ceil(l) * l * rest.iter().product::<usize>()
        }
        _ => dims.iter().product(),
    }
}

/// A two-operand elementwise operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BinaryOp {
    /// a + b
    Add,
    /// a − b
    Sub,
    /// a · b
    Mul,
    /// a / b
    Div,
    /// max(a, b)
    Max,
    /// min(a, b)
    Min,
    /// a^b
    Pow,
}

/// What many values become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReduceOp {
    /// Σ x
    Sum,
    /// Σ x / n
    Mean,
    /// The largest
    Max,
    /// The smallest
    Min,
    /// Π x
    Prod,
    /// Σ |x|
    L1,
    /// √Σ x²
    L2,
    /// Σ x²
    SumSquare,
    /// ln Σ x
    LogSum,
}

/// A convolution of a chain: `act(conv(x) + bias)`.
#[derive(Debug, Clone)]
pub struct ConvPart {
    /// Geometry (two spatial axes).
    pub geometry: Geometry,
    /// Weights `[oc, ic/g, kh, kw]`, scale of a following BatchNormalization folded in.
    pub weights: Tensor,
    /// Bias `[oc]`.
    pub bias: Option<Vec<f32>>,
    /// Activation.
    pub act: Act,
    /// Where to look for the weights packed already.
    pub share: Option<Share>,
}

/// A pointwise, a depthwise and a pointwise convolution, or the depthwise one with one of its neighbours.
#[derive(Debug, Clone)]
pub struct ConvChain {
    /// Pointwise.
    pub expand: Option<ConvPart>,
    /// Depthwise.
    pub depthwise: ConvPart,
    /// Pointwise.
    pub project: Option<ConvPart>,
    /// Whether a residual of the result's shape is added before the last activation.
    pub residual: bool,
}

/// A map of a convolution's input, channel by channel, done on the way in: `act(x · scale + shift)`, or `x · gate`.
#[derive(Debug, Clone, Default)]
pub struct Pre {
    /// Per-channel factor and offset (a BatchNormalization before the convolution).
    pub affine: Option<(Vec<f32>, Vec<f32>)>,
    /// After it.
    pub act: Act,
    /// Whether an operand `[n, c, 1, 1]` multiplies x (squeeze-excite).
    pub gate: bool,
}

/// A window over the last two axes of NCHW data.
#[derive(Debug, Clone)]
pub struct PoolWindow {
    /// Row and column axes.
    pub axes: [crate::ops::window::Axis; 2],
    /// Average (true) or maximum.
    pub average: bool,
    /// Averages divide by the whole window, padding included.
    pub include_pad: bool,
}

/// What a step computes. Operands come in the order given with each variant; all data is `f32`.
#[derive(Debug, Clone)]
pub enum Kind {
    /// `act(conv(pre(x)) + bias [+ residual])`. Operands: x, then the gate of `pre`, then the residual, where there is one.
    Conv {
        /// Geometry (one or two spatial axes).
        geometry: Geometry,
        /// Weights `[oc, ic/g, kh, kw]`, scale of a following BatchNormalization folded in.
        weights: Tensor,
        /// Bias `[oc]`.
        bias: Option<Vec<f32>>,
        /// Activation.
        act: Act,
        /// Whether a residual of the output's shape is added before the activation.
        residual: bool,
        /// What is done to x first (pointwise convolutions only).
        pre: Option<Pre>,
        /// Where to look for the weights packed already; they are as if there were none.
        share: Option<Share>,
    },
    /// `act(conv(x, w) · scale + bias [+ residual])` with weights that are computed. Operands: x, w, then the residual.
    ConvComputed {
        /// Geometry (one or two spatial axes).
        geometry: Geometry,
        /// Factor per output channel (a BatchNormalization that follows).
        scale: Option<Vec<f32>>,
        /// Bias `[oc]`.
        bias: Option<Vec<f32>>,
        /// Activation.
        act: Act,
        /// Whether a residual of the output's shape is added before the activation.
        residual: bool,
    },
    /// `act(conv(samples of x) + bias)` at deformed windows. Operands: x, the offsets, then the mask.
    ConvDeformed {
        /// Geometry.
        geometry: crate::ops::detect::Deform,
        /// Weights `[oc, ic/g, kh, kw]`, scale of a following BatchNormalization folded in.
        weights: Tensor,
        /// Bias `[oc]`.
        bias: Option<Vec<f32>>,
        /// Activation.
        act: Act,
        /// Whether samples are multiplied by a mask.
        mask: bool,
    },
    /// `act(conv_transpose(x) + bias)`. Operand: x.
    ConvTranspose {
        /// Geometry (one or two spatial axes).
        geometry: crate::ops::conv_transpose::Geometry,
        /// Weights `[ic, oc/g, kh, kw]`.
        weights: Tensor,
        /// Bias `[oc]`.
        bias: Option<Vec<f32>>,
        /// Activation.
        act: Act,
    },
    /// Convolutions one after the other. Operands: x, then the residual if there is one.
    ConvChain(Box<ConvChain>),
    /// `act(alpha · a·b + bias [+ residual])`, batched. Operands: a, b unless constant, then the residual.
    MatMul(MatMul),
    /// As [`Kind::MatMul`], with a constant b in few bits. Operands: a, then the residual.
    FewBits(FewBitsProduct),
    /// Products of one vector with several matrices, each as [`Kind::FewBits`] without a residual: one destination each. Operand: a.
    FewBitsTogether(Vec<FewBitsProduct>),
    /// A recurrent layer. Operands: x, then the first states that [`Recurrent`] says.
    Recurrent(Recurrent),
    /// Elementwise functions one after the other. Operand: x.
    Unary(Vec<Act>),
    /// `act(a ∘ b)` with numpy broadcasting. Operands: a, b.
    Binary(BinaryOp, Act),
    /// `act(x · scale[c] + shift[c])` (BatchNormalization). Operand: x.
    ChannelAffine {
        /// Per-channel factor.
        scale: Vec<f32>,
        /// Per-channel offset.
        shift: Vec<f32>,
        /// Activation.
        act: Act,
    },
    /// Max or average pooling over a window. Operand: x.
    Pool(PoolWindow),
    /// Average (true) or maximum over all spatial positions; the result is `[n, c, 1, 1]` (or `[n, c]`). Operand: x.
    GlobalPool {
        /// Average rather than maximum.
        average: bool,
    },
    /// Softmax over the last axis. Operand: x.
    Softmax,
    /// Softmax over `len` of x, seen as `[outer][len][inner]`. Operand: x.
    SoftmaxOver {
        /// Values of one softmax.
        len: usize,
        /// Distance between them.
        inner: usize,
    },
    /// `softmax(scale · q·kᵀ + mask) · v`. Operands: as [`Attention`] says.
    Attention(Attention),
    /// `x · cos + (−x₂, x₁) · sin`, x₁ and x₂ the halves of each row. Operands: x, cos, sin, the angles spread over rows as numpy does it.
    Rotary,
    /// Layer (or root-mean-square) normalisation over runs of `inner` elements. Operand: x.
    Norm {
        /// Elements normalised together.
        inner: usize,
        /// Consecutive elements with the same factor and offset, a divisor of `inner`.
        plane: usize,
        /// Added to the variance.
        epsilon: f32,
        /// RMS: the mean is not subtracted.
        rms: bool,
        /// Factors, `[inner / plane]` or as many for each of several runs that take turns.
        scale: Option<Vec<f32>>,
        /// Offsets, likewise.
        shift: Option<Vec<f32>>,
    },
    /// Values of x, seen as `[outer][len][inner]`, reduced over `len`. Operand: x.
    Reduce {
        /// How.
        op: ReduceOp,
        /// Values reduced together.
        len: usize,
        /// Distance between them.
        inner: usize,
    },
    /// Axes permuted. Operand: x.
    Transpose(Vec<usize>),
    /// Tokens `[n, h·w, c]` as a map `[n, c, h, w]`, or the other way: a transposition between two forms of the same size, then an
    /// activation. Operand: x.
    Tokens(Act),
    /// Operands joined along an axis.
    Concat(usize),
    /// Parts of x along an axis, one destination each: (first index, length). Operand: x.
    Split {
        /// Axis.
        axis: usize,
        /// (start, length) of each destination.
        parts: Vec<(usize, usize)>,
    },
    /// Strided box of x: per axis (start, step), sizes from the destination. Operand: x.
    Slice(Vec<(usize, isize)>),
    /// Constant padding; per axis (before, after). Operand: x.
    Pad {
        /// (before, after) per axis.
        pads: Vec<(usize, usize)>,
        /// Fill value.
        value: f32,
    },
    /// Each operand copied to the destination of its number, in whatever layout.
    Copy,
    /// Channels of the operands put together anew: for each destination, which operand and channel each of its channels is.
    Channels(Vec<Vec<(usize, usize)>>),
    /// x broadcast to the destination's shape. Operand: x.
    Expand,
    /// Nearest or linear resize of the last two axes, precomputed taps. Operand: x.
    Resize {
        /// For each output row: (input row, weight) pairs.
        rows: Vec<Vec<(usize, f32)>>,
        /// For each output column likewise.
        cols: Vec<Vec<(usize, f32)>>,
    },
    /// A change of layout. Operand: x.
    Reorder {
        /// From.
        from: Layout,
        /// To.
        to: Layout,
    },
}

impl Kind {
    /// Tensors of constants that kernels pack.
    pub fn constants(&self) -> Vec<&Tensor> {
        match self {
            Kind::Conv { weights, .. } | Kind::ConvDeformed { weights, .. } | Kind::ConvTranspose { weights, .. } => {
                vec![weights]
            }
            Kind::ConvChain(chain) => {
                let ConvChain { expand, depthwise, project, .. } = &**chain;
                expand.iter().chain([depthwise]).chain(project).map(|p| &p.weights).collect()
            }
            Kind::MatMul(product) => product.b.iter().collect(),
            Kind::FewBits(product) => vec![&product.weights.data],
            Kind::FewBitsTogether(products) => products.iter().map(|p| &*p.weights.data).collect(),
            Kind::Recurrent(layer) => vec![&layer.w, &layer.r],
            _ => Vec::new(),
        }
    }
}

/// A recurrent layer, time before batch.
#[derive(Debug, Clone)]
pub struct Recurrent {
    /// The recurrence, with its usual activations.
    pub gates: super::recurrent::Gates,
    /// Steps.
    pub steps: usize,
    /// Sequences at a time.
    pub batch: usize,
    /// Values per step.
    pub input: usize,
    /// Values of the state.
    pub hidden: usize,
    /// Which way each direction goes.
    pub reverse: Vec<bool>,
    /// Weights of the input, `[directions][gates · hidden][input]`.
    pub w: Tensor,
    /// Weights of the state, `[directions][gates · hidden][hidden]`.
    pub r: Tensor,
    /// `[directions][2 · gates · hidden]`: with the input's product, with the state's.
    pub bias: Option<Vec<f32>>,
    /// Operand with the first state; zeros if there is none.
    pub first_state: Option<usize>,
    /// Operand with the first cell.
    pub first_cell: Option<usize>,
    /// Destinations of all states, the last state, the last cell.
    pub results: [Option<usize>; 3],
}

/// A product with a constant matrix in few bits.
#[derive(Debug, Clone)]
pub struct FewBitsProduct {
    /// The product; it holds no b of its own.
    pub product: MatMul,
    /// The matrix.
    pub weights: std::sync::Arc<super::few_bits::FewBits>,
    /// a is rounded to bytes first, as DynamicQuantizeLinear does it.
    pub rounded: bool,
}

/// Attention over heads that are read in place.
#[derive(Debug, Clone)]
pub struct Attention {
    /// Geometry.
    pub shape: super::attention::Shape,
    /// Which operand holds the queries, the keys, the values (one may hold several).
    pub operands: [usize; 3],
    /// What is added to the scores.
    pub mask: Mask,
}

/// Where the mask of an attention comes from.
#[derive(Debug, Clone)]
pub enum Mask {
    /// There is none.
    None,
    /// An operand.
    Operand(usize),
    /// Known beforehand.
    Constant(Vec<f32>),
}

/// A batched matrix product.
#[derive(Debug, Clone)]
pub struct MatMul {
    /// Batch dims of the result.
    pub batch: Vec<usize>,
    /// Batch dims of a, right-aligned with ones (same length as `batch`).
    pub batch_a: Vec<usize>,
    /// Batch dims of b, likewise.
    pub batch_b: Vec<usize>,
    /// Rows of the result.
    pub m: usize,
    /// Columns of the result.
    pub n: usize,
    /// Inner size.
    pub k: usize,
    /// a is stored `[.., k, m]`.
    pub trans_a: bool,
    /// b is stored `[.., n, k]`.
    pub trans_b: bool,
    /// Factor of the product.
    pub alpha: f32,
    /// b when it is a constant (packed once).
    pub b: Option<Tensor>,
    /// Row vector `[n]` added to every row.
    pub bias: Option<Vec<f32>>,
    /// Activation.
    pub act: Act,
    /// Whether a residual of the result's shape is added before the activation.
    pub residual: bool,
}

/// A step as kernels see it when they decide and prepare.
#[derive(Debug)]
pub struct Task<'a> {
    /// What to compute.
    pub kind: &'a Kind,
    /// Dims of the operands.
    pub srcs: &'a [Vec<usize>],
    /// Layouts the operands have now.
    pub layouts: &'a [Layout],
    /// Dims of the destinations.
    pub dsts: &'a [Vec<usize>],
    /// Instruction set.
    pub isa: Isa,
    /// Threads the plan will use.
    pub threads: usize,
    /// Winograd convolutions may be used.
    pub winograd: bool,
    /// Strassen's algorithm may be used for matrix products.
    pub strassen: bool,
    /// Matrices that steps of the same plan have packed already, while a plan is made ready.
    pub packs: Option<&'a Packs>,
}

impl<'a> Task<'a> {
    /// Where packed weights may be kept between runs.
    pub(super) fn kept(&self) -> Option<&'a Kept> {
        self.packs?.kept.as_deref()
    }
}

/// The layouts a kernel wants its operands in and gives its results in.
#[derive(Debug, Clone, PartialEq)]
pub struct Accept {
    /// Per operand.
    pub srcs: Vec<Layout>,
    /// Of all destinations.
    pub dst: Layout,
    /// Estimate for choosing among kernels that take the same step, in multiply-adds of a well-filled register tile; 0 where there is
    /// nothing to choose.
    pub cost: f64,
}

impl Accept {
    /// Everything row-major.
    pub fn plain(task: &Task) -> Accept {
        Accept::of(vec![Layout::Plain; task.srcs.len()], Layout::Plain)
    }
    /// These layouts, and no cost.
    pub fn of(srcs: Vec<Layout>, dst: Layout) -> Accept {
        Accept { srcs, dst, cost: 0.0 }
    }
}

/// A kernel's answer: what it wants, or why it declines.
pub type Verdict = std::result::Result<Accept, String>;

/// A kernel made ready for one task: weights packed, sizes resolved.
pub trait Prepared: Send + Sync {
    /// Computes. `srcs` and `dsts` have the layouts agreed on; destinations hold garbage beforehand and are written whole.
    fn run(&self, pool: &Pool, srcs: &[&[f32]], dsts: &mut [&mut [f32]]);
    /// How it computes, for reports: algorithm, tile. Empty where there is nothing to tell.
    fn detail(&self) -> String {
        String::new()
    }
    /// Bytes of packed weights it keeps.
    fn packed_bytes(&self) -> usize {
        0
    }
}

/// One row of the kernel table.
pub struct Entry {
    /// Name, as reports show it.
    pub name: &'static str,
    /// Takes the task or says why not.
    pub accepts: fn(&Task) -> Verdict,
    /// Makes it ready. Called only for accepted tasks.
    pub prepare: fn(&Task) -> Result<Box<dyn Prepared>>,
    /// Largest error against the reference, relative to the largest magnitude of the result.
    pub tolerance: f32,
}
