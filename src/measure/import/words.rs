//! Operators in the words of runtimes and of ONNX.

/// What operators do, in the words in which runtimes and ONNX meet. A row or node may be several.
pub(super) fn kinds(op: &str) -> &'static [&'static str] {
    let op = op.trim_start_matches("aten::").trim_end_matches('_').to_ascii_lowercase().replace(['_', '-', ' '], "");
    match op.as_str() {
        "conv"
        | "fusedconv"
        | "convolution"
        | "groupconvolution"
        | "conv2d"
        | "conv1d"
        | "conv3d"
        | "depthwiseconv2d"
        | "qlinearconv"
        | "convinteger"
        | "nhwcconv"
        | "nhwcfusedconv"
        | "mkldnnconvolution"
        | "convolution2d"
        | "depthwiseconvolution" => &["conv"],
        "convtranspose" | "deconvolution" | "convtranspose2d" | "transposeconv" | "convolutiontransposed" => {
            &["deconv"]
        }
        "matmul"
        | "gemm"
        | "fusedmatmul"
        | "fusedgemm"
        | "linear"
        | "addmm"
        | "mm"
        | "bmm"
        | "baddbmm"
        | "batchmatmul"
        | "batchmatrixmultiply"
        | "matmulinteger"
        | "dynamicquantizematmul"
        | "qlinearmatmul"
        | "matmulnbits"
        | "qgemm"
        | "inner"
        | "innerproduct"
        | "matmulintegertofloat" => &["matmul"],
        // XNNPACK does convolutions of one element as products.
        "fullyconnected" | "dynamicfullyconnected" => &["matmul", "pointwise"],
        "scaleddotproductattention" | "attention" | "multiheadattention" | "groupqueryattention" => {
            &["softmax", "attention"]
        }
        "softmax" | "biassoftmax" | "logsoftmax" => &["softmax"],
        "batchnormalization" | "batchnorm" | "nativebatchnorm" => &["batchnorm"],
        "layernormalization"
        | "layernorm"
        | "nativelayernorm"
        | "skiplayernormalization"
        | "embedlayernormalization"
        | "mvn"
        | "simplifiedlayernormalization"
        | "skipsimplifiedlayernormalization" => &["layernorm"],
        "sqrt" => &["sqrt", "layernorm"],
        "erf" => &["gelu", "erf"],
        "gelu" | "biasgelu" | "fastgelu" | "quickgelu" => &["gelu"],
        "relu" => &["relu"],
        "clip" | "clamp" | "hardtanh" | "relu6" | "relun1to1" => &["clip"],
        "hardswish" | "hswish" => &["hardswish"],
        "sigmoid" | "logistic" => &["sigmoid"],
        "silu" | "swish" => &["sigmoid", "silu"],
        "tanh" => &["tanh"],
        "add" | "eltwiseadd" | "sum" => &["add"],
        "sub" | "subtract" | "rsub" => &["sub"],
        "mul" | "multiply" => &["mul"],
        "div" | "divide" => &["div"],
        "maxpool" | "maxpool2d" | "maxpool2dwithindices" | "maxpooling" => &["maxpool"],
        "averagepool" | "avgpool" | "avgpool2d" | "averagepool2d" | "averagepooling" => &["avgpool", "mean"],
        "globalaveragepool" | "globalaveragepooling" | "reducemean" | "mean" | "adaptiveavgpool2d" => &["mean"],
        "gather" | "embedding" | "indexselect" => &["gather"],
        "transpose" | "permute" => &["transpose"],
        "concat" | "cat" | "concatenation" | "concatenate2" | "concatenate3" | "concatenate4" | "concatenate5" => {
            &["concat"]
        }
        "slice" | "stridedslice" => &["slice"],
        "split" | "chunk" | "variadicsplit" | "splitv" | "evensplit2" | "evensplit3" | "evensplit4" => &["split"],
        "reshape" | "view" | "flatten" | "squeeze" | "unsqueeze" | "unsafeview" | "staticreshape" | "expanddims" => {
            &["view"]
        }
        "resize"
        | "interpolate"
        | "upsample"
        | "upsamplenearest2d"
        | "upsamplebilinear2d"
        | "resizebilinear"
        | "resizenearestneighbor" => &["resize"],
        "leakyrelu" => &["leakyrelu"],
        "prelu" => &["prelu"],
        "elu" => &["elu"],
        "exp" => &["exp"],
        "pow" => &["pow"],
        "max" | "maximum" => &["max"],
        "min" | "minimum" => &["min"],
        "argmax" => &["argmax"],
        "depthtospace" | "pixelshuffle" => &["depthtospace"],
        "lstm" | "dynamicquantizelstm" | "lstmsequence" => &["lstm"],
        "gru" | "grusequence" => &["gru"],
        "pad" | "constantpadnd" | "constantpad" | "padv2" | "mirrorpad" => &["pad"],
        "where" | "select" | "selectv2" => &["where"],
        "cast" | "convert" | "to" => &["cast"],
        "quantizelinear" | "fakequantize" => &["quantize"],
        _ => &[],
    }
}

/// What a runtime's operator holds besides what it is placed by.
pub(super) fn holds(op: &str) -> &'static [&'static str] {
    let op = op.to_ascii_lowercase();
    match op.trim_start_matches("aten::") {
        "skiplayernormalization" | "biasgelu" | "biassoftmax" => &["add"],
        "silu" | "silu_" | "swish" => &["mul"],
        _ => &[],
    }
}

/// Operators that do most of the work and are never a mere part of a neighbour's.
pub(super) fn is_heavy(op_type: &str) -> bool {
    kinds(op_type).iter().any(|k| matches!(*k, "conv" | "deconv" | "matmul" | "lstm" | "gru"))
}

/// Operators that runtimes put in to change a layout or a type.
pub(super) fn is_move(op: &str) -> bool {
    let op = op.to_ascii_lowercase();
    ["reorder", "reformat", "convert", "cast", "copy", "memcpy"].iter().any(|m| op.contains(m))
}
