//! The blocks that rows of a definition name, one function each. To add one: write the function and a line in [`BLOCKS`].

mod basic;
mod branches;
mod convnext;
mod dense;
mod dynamic;
mod fire;
mod ghost;
mod mobile;
mod mobile_attention;
mod residual;
mod shuffle;
mod swin;
mod transformer;

use super::net::{Act, Conv, Net, Value};
use super::row::Row;
use crate::error::{Error, Result};

/// What every block is: a row's worth of network appended to `net` behind `x`.
pub type Block = fn(&mut Net, &Row, &Value) -> Result<Value>;

const BLOCKS: &[(&str, Block)] = &[
    ("auxiliary", basic::auxiliary),
    ("avg_pool", basic::avg_pool),
    ("basic", residual::basic),
    ("bert_embeddings", transformer::bert_embeddings),
    ("bert_layer", transformer::bert_layer),
    ("bert_pooler", transformer::bert_pooler),
    ("bottleneck", residual::bottleneck),
    ("branches", branches::branches),
    ("chain", branches::chain),
    ("classifier", basic::classifier),
    ("conv", basic::conv),
    ("convnext", convnext::block),
    ("convnext_downsample", convnext::downsample),
    ("convnext_head", convnext::head),
    ("dense_layer", dense::layer),
    ("dynamic_classifier", dynamic::classifier),
    ("dynamic_conv", dynamic::conv),
    ("fire", fire::fire),
    ("flatten", basic::flatten),
    ("fused_bottleneck", mobile::fused),
    ("ghost", ghost::bottleneck),
    ("global_pool", basic::global_pool),
    ("gpt_embeddings", transformer::gpt_embeddings),
    ("gpt_head", transformer::gpt_head),
    ("gpt_layer", transformer::gpt_layer),
    ("inverted_residual", mobile::inverted_residual),
    ("linear", basic::linear),
    ("llama_embeddings", transformer::llama_embeddings),
    ("llama_head", transformer::llama_head),
    ("llama_layer", transformer::llama_layer),
    ("local_norm", basic::local_norm),
    ("max_pool", basic::max_pool),
    ("multi_query", mobile_attention::multi_query),
    ("norm", basic::norm),
    ("regnet", residual::regnet),
    ("separable", mobile::separable),
    ("shuffle_grouped", shuffle::grouped),
    ("shuffle_split", shuffle::split),
    ("swin_embeddings", swin::embeddings),
    ("swin_head", swin::head),
    ("swin_layer", swin::layer),
    ("swin_merge", swin::merge),
    ("transition", dense::transition),
    ("universal_bottleneck", mobile::universal),
    ("vit_embeddings", transformer::vit_embeddings),
    ("vit_head", transformer::vit_head),
    ("vit_layer", transformer::vit_layer),
];

/// The block of a name.
///
/// # Errors
/// If there is none.
pub fn find(name: &str) -> Result<Block> {
    let found = BLOCKS.iter().find(|(n, _)| *n == name);
    found.map(|(_, block)| *block).ok_or_else(|| Error::input(format!("the zoo has no block named '{name}'")))
}

/// Squeeze and excitation: each channel scaled by what a small network makes of all channels' means.
pub fn squeeze_excite(
    net: &mut Net,
    x: &Value,
    path: &str,
    layers: [&str; 2],
    squeeze: usize,
    [act, gate]: [Act; 2],
) -> Result<Value> {
    let [reduce, expand] = layers.map(|layer| format!("{path}.{layer}"));
    let s = net.global_pool(x, path)?;
    let s = net.conv(&s, &reduce, squeeze, Conv::of(1).bias(true))?;
    let s = net.act(&s, path, act)?;
    let s = net.conv(&s, &expand, x.c(), Conv::of(1).bias(true).linear())?;
    let s = net.act(&s, path, gate)?;
    Ok(net.mul(x, &s, path))
}
