//! What kind of work a node is, by its geometry rather than its name: the grouping in which paper and silicon disagree most.

use crate::ir::{Graph, Node};
use crate::ops::Op;

/// A kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// The convolution that reads the image: few input channels.
    StemConv,
    /// 1×1 convolution over all channels.
    PointwiseConv,
    /// As many groups as input channels.
    DepthwiseConv,
    /// More than one group, less than one per channel.
    GroupedConv,
    /// Any other convolution.
    DenseConv,
    /// ConvTranspose.
    TransposedConv,
    /// Matrix product with a constant: fully connected layers.
    Linear,
    /// Matrix product of two activations: attention scores and their application.
    MatMul,
    /// Attention as one operator.
    Attention,
    /// LSTM, GRU, RNN.
    Recurrent,
    /// Batch, layer, group, instance, RMS normalisation.
    Normalization,
    /// Elementwise functions of one tensor.
    Activation,
    /// Softmax and its kin.
    Softmax,
    /// Pooling and other reductions.
    Reduction,
    /// Elementwise combinations of tensors.
    Elementwise,
    /// Moves and selects data: no arithmetic.
    Movement,
    /// If, Loop, Scan.
    Control,
    /// Everything else.
    Other,
    /// An operator this build does not know.
    Unknown,
}

impl Class {
    /// As in machine-readable reports.
    pub fn name(self) -> &'static str {
        match self {
            Class::StemConv => "stem_conv",
            Class::PointwiseConv => "pointwise_conv",
            Class::DepthwiseConv => "depthwise_conv",
            Class::GroupedConv => "grouped_conv",
            Class::DenseConv => "dense_conv",
            Class::TransposedConv => "transposed_conv",
            Class::Linear => "linear",
            Class::MatMul => "matmul",
            Class::Attention => "attention",
            Class::Recurrent => "recurrent",
            Class::Normalization => "normalization",
            Class::Activation => "activation",
            Class::Softmax => "softmax",
            Class::Reduction => "reduction",
            Class::Elementwise => "elementwise",
            Class::Movement => "movement",
            Class::Control => "control",
            Class::Other => "other",
            Class::Unknown => "unknown",
        }
    }
    /// As the subject of a sentence, in the plural.
    pub fn words(self) -> &'static str {
        match self {
            Class::StemConv => "stem convolutions",
            Class::PointwiseConv => "pointwise convolutions",
            Class::DepthwiseConv => "depthwise convolutions",
            Class::GroupedConv => "grouped convolutions",
            Class::DenseConv => "dense convolutions",
            Class::TransposedConv => "transposed convolutions",
            Class::Linear => "linear layers",
            Class::MatMul => "matrix products of activations",
            Class::Attention => "attention operators",
            Class::Recurrent => "recurrent layers",
            Class::Normalization => "normalisations",
            Class::Activation => "activation functions",
            Class::Softmax => "softmaxes",
            Class::Reduction => "poolings and reductions",
            Class::Elementwise => "elementwise combinations",
            Class::Movement => "data movements",
            Class::Control => "control-flow bodies",
            Class::Other => "other operators",
            Class::Unknown => "unknown operators",
        }
    }
}

/// The class of a node.
pub fn class_of(graph: &Graph, node: &Node) -> Class {
    if matches!(node.op, Op::Opaque(_)) {
        return Class::Unknown;
    }
    let is_static = |i: usize| node.inputs.get(i).copied().flatten().is_some_and(|v| graph.value(v).is_static);
    // Quantised forms do the same work.
    let name = node.op_type.strip_prefix("QLinear").unwrap_or(&node.op_type);
    match name {
        _ if name.ends_with("ConvTranspose") => Class::TransposedConv,
        _ if name.contains("Conv") => convolution(graph, node),
        _ if name.contains("Attention") => Class::Attention,
        _ if name.contains("MatMul") || name.contains("Gemm") => {
            // Two operands; quantised forms put scales and zero points between them.
            let packed = matches!(node.op, Op::NBits(_));
            if packed || (0..node.inputs.len()).any(|i| is_static(i) && is_matrix(graph, node, i)) {
                Class::Linear
            } else {
                Class::MatMul
            }
        }
        "MoE" | "QMoE" => Class::Linear,
        "Einsum" if (0..node.inputs.len()).any(is_static) => Class::Linear,
        "Einsum" => Class::MatMul,
        "LSTM" | "GRU" | "RNN" | "DynamicQuantizeLSTM" => Class::Recurrent,
        _ if name.ends_with("Normalization") || name.ends_with("GroupNorm") || name == "LRN" => Class::Normalization,
        "Softmax" | "BiasSoftmax" | "LogSoftmax" | "Hardmax" => Class::Softmax,
        _ if name.ends_with("Pool") || name.starts_with("Reduce") || matches!(name, "ArgMax" | "ArgMin" | "CumSum") => {
            Class::Reduction
        }
        "Add" | "BiasAdd" | "Sub" | "Mul" | "Div" | "Pow" | "Mod" | "Min" | "Max" | "Sum" | "Mean" | "Where"
        | "Equal" | "Greater" | "Less" | "GreaterOrEqual" | "LessOrEqual" | "And" | "Or" | "Xor" | "BitShift"
        | "BitwiseAnd" | "BitwiseOr" | "BitwiseXor" => Class::Elementwise,
        "Relu" | "LeakyRelu" | "PRelu" | "Elu" | "Selu" | "Celu" | "ThresholdedRelu" | "Clip" | "Sigmoid"
        | "HardSigmoid" | "HardSwish" | "Swish" | "Mish" | "Tanh" | "Gelu" | "FastGelu" | "QuickGelu" | "BiasGelu"
        | "BiasSplitGelu" | "Softplus" | "Softsign" | "Erf" | "Exp" | "Log" | "Sqrt" | "Reciprocal" | "Neg" | "Abs"
        | "Floor" | "Ceil" | "Round" | "Sign" | "Sin" | "Cos" | "Tan" | "Asin" | "Acos" | "Atan" | "Sinh" | "Cosh"
        | "Asinh" | "Acosh" | "Atanh" | "Shrink" | "Not" | "IsNaN" | "IsInf" | "BitwiseNot" => Class::Activation,
        "Reshape"
        | "Transpose"
        | "Squeeze"
        | "Unsqueeze"
        | "Flatten"
        | "Identity"
        | "Concat"
        | "Split"
        | "Slice"
        | "Gather"
        | "GatherBlockQuantized"
        | "ExpandDims"
        | "GatherElements"
        | "GatherND"
        | "Scatter"
        | "ScatterElements"
        | "ScatterND"
        | "Expand"
        | "Tile"
        | "Pad"
        | "DepthToSpace"
        | "SpaceToDepth"
        | "Cast"
        | "CastLike"
        | "Dropout"
        | "Shape"
        | "Size"
        | "ConstantOfShape"
        | "Constant"
        | "Range"
        | "OneHot"
        | "Compress"
        | "Trilu"
        | "EyeLike"
        | "ReverseSequence"
        | "NonZero"
        | "Unique"
        | "Upsample"
        | "CenterCropPad" => Class::Movement,
        "If" | "Loop" | "Scan" | "SequenceMap" => Class::Control,
        _ => Class::Other,
    }
}

fn is_matrix(graph: &Graph, node: &Node, i: usize) -> bool {
    node.inputs[i].is_some_and(|v| graph.value(v).fact.shape.rank().is_some_and(|r| r >= 2))
}

fn convolution(graph: &Graph, node: &Node) -> Class {
    let dims = |i: usize| node.inputs.get(i).copied().flatten().map(|v| &graph.value(v).fact.shape);
    // Quantised convolutions put scale and zero point after each operand.
    let weights = if node.op_type == "QLinearConv" { 3 } else { 1 };
    let (x, w) = (dims(0), dims(weights));
    let last = node.op_type.starts_with("Nhwc");
    let channels = x.and_then(|s| s.dim(if last { s.rank()?.checked_sub(1)? } else { 1 }));
    let per_group = w.and_then(|s| s.dim(1));
    let (Some(channels), Some(per_group), Some(kernel)) =
        (channels, per_group, w.and_then(|s| Some(s.concrete()?.get(2..)?.to_vec())))
    else {
        return Class::DenseConv;
    };
    let groups = channels.checked_div(per_group).unwrap_or(1);
    if groups > 1 && per_group == 1 {
        Class::DepthwiseConv
    } else if groups > 1 {
        Class::GroupedConv
    } else if channels <= 4 && kernel.iter().any(|&k| k > 1) {
        Class::StemConv
    } else if kernel.iter().all(|&k| k == 1) {
        Class::PointwiseConv
    } else {
        Class::DenseConv
    }
}
