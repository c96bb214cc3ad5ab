//! A single convolution as a model: `conv 3x3 64->128 @56x56`.

use super::Site;
use crate::analysis::{Totals, analyze};
use crate::error::{Error, Result};
use crate::ir::{self, Bindings};
use crate::ops::spec::{DimSpec, GraphSpec, Header, ModelSpec, NodeSpec, ValueSpec};
use crate::ops::window::Axis;
use crate::tensor::{Container, DType, Tensor};
use crate::zoo::seed::{self, Fill};
use std::fmt;

/// The operator set single layers are written in: the oldest that has everything variants are made of.
pub const OPSET: i64 = 21;

/// What a layer can look like, for messages.
pub const EXAMPLES: &str = "conv 3x3 64->128 @56x56, conv 7x7 3->64 @224x224 s2, conv 3x3 64->64 @56x56 d2 g4, dw 3x3 64 @56x56, pw 64->128 @28x28";

/// A convolution asked for in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerSpec {
    /// Kernel height and width.
    pub k: [usize; 2],
    /// Input channels.
    pub ic: usize,
    /// Output channels.
    pub oc: usize,
    /// Height and width of the input map.
    pub size: [usize; 2],
    /// Stride.
    pub stride: usize,
    /// Dilation.
    pub dilation: usize,
    /// Groups.
    pub groups: usize,
    /// Padding on all sides; what keeps the size at stride 1 unless given.
    pub pad: Option<usize>,
    /// Batch.
    pub batch: usize,
    /// Whether it has a bias.
    pub bias: bool,
}

impl fmt::Display for LayerSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [kh, kw] = self.k;
        write!(f, "conv {kh}x{kw} {}->{} @{}x{}", self.ic, self.oc, self.size[0], self.size[1])?;
        for (mark, value, usual) in
            [("s", self.stride, 1), ("d", self.dilation, 1), ("g", self.groups, 1), ("n", self.batch, 1)]
        {
            if value != usual {
                write!(f, " {mark}{value}")?;
            }
        }
        if let Some(p) = self.pad {
            write!(f, " p{p}")?;
        }
        if self.bias { f.write_str(" bias") } else { Ok(()) }
    }
}

/// Largest size a layer may be asked for in.
const LARGEST: usize = 1 << 16;

/// The words of a layer in small letters, one blank apart however they were written: `Conv3x3, 64 → 128@56` too.
fn spaced(text: &str) -> String {
    let text = text.to_lowercase().replace('→', "->").replace([',', ';'], " ").replace('@', " @ ");
    let words: Vec<&str> = text.split_whitespace().collect();
    let text = words
        .join(" ")
        .replace(" -> ", "->")
        .replace("-> ", "->")
        .replace(" ->", "->")
        .replace("@ ", "@")
        .replace(" x ", "x")
        .replace(" × ", "×");
    // A kernel right behind the name, but for `conv2d`.
    let names = ["depthwise", "pointwise", "conv2d", "conv", "dw", "pw"];
    let rest = names.iter().find_map(|n| Some((n, text.strip_prefix(n)?)));
    match rest {
        Some((name, rest)) if rest.starts_with(|c: char| c.is_ascii_digit()) => format!("{name} {rest}"),
        _ => text,
    }
}

impl LayerSpec {
    /// Reads the words.
    ///
    /// # Errors
    /// If one is not understood or something is missing; the message says which.
    pub fn parse(text: &str) -> Result<LayerSpec> {
        let wrong =
            |what: String| Error::usage(format!("--layer \"{text}\": {what}")).hint(format!("for example: {EXAMPLES}"));
        let number = |t: &str, what: &str| match t.parse::<usize>() {
            Ok(n) if (1..=LARGEST).contains(&n) => Ok(n),
            _ => Err(wrong(format!("'{t}' is not a {what} (a whole number from 1 to {LARGEST})"))),
        };
        let pair = |t: &str, what: &str| match t.split_once(['x', '×']) {
            Some((a, b)) => Ok([number(a, what)?, number(b, what)?]),
            None => number(t, what).map(|n| [n, n]),
        };
        let spaced = spaced(text);
        let (mut kind, mut k, mut channels, mut size) = ("conv", None, None, None);
        let mut spec = LayerSpec {
            k: [1, 1],
            ic: 0,
            oc: 0,
            size: [0, 0],
            stride: 1,
            dilation: 1,
            groups: 1,
            pad: None,
            batch: 1,
            bias: false,
        };
        // Numbers alone: the kernel's side before the channels, or what of the two nothing else gives.
        let mut plain: Vec<&str> = Vec::new();
        for (i, word) in spaced.split_whitespace().enumerate() {
            let set = |marks: [&str; 2]| {
                let rest = marks.iter().find_map(|mark| word.strip_prefix(mark))?;
                let rest = rest.strip_prefix('=').unwrap_or(rest);
                rest.starts_with(|c: char| c.is_ascii_digit()).then_some(rest)
            };
            match word {
                "conv" | "conv2d" if i == 0 => {}
                "dw" | "depthwise" if i == 0 => kind = "dw",
                "pw" | "pointwise" if i == 0 => kind = "pw",
                "bias" => spec.bias = true,
                _ if word.starts_with('@') => size = Some(pair(&word[1..], "map size")?),
                _ if word.contains("->") => {
                    let (a, b) = word.split_once("->").unwrap_or_default();
                    channels = Some((number(a, "number of channels")?, number(b, "number of channels")?));
                }
                _ => {
                    if let Some(v) = set(["stride", "s"]) {
                        spec.stride = number(v, "stride")?;
                    } else if let Some(v) = set(["dilation", "d"]) {
                        spec.dilation = number(v, "dilation")?;
                    } else if let Some(v) = set(["groups", "g"]) {
                        spec.groups = number(v, "number of groups")?;
                    } else if let Some(v) = set(["batch", "n"]) {
                        spec.batch = number(v, "batch")?;
                    } else if let Some(v) = set(["pad", "p"]) {
                        let p = v.parse().ok().filter(|&p: &usize| p <= LARGEST);
                        spec.pad = Some(p.ok_or_else(|| wrong(format!("'{v}' is not a padding")))?);
                    } else if let Some(v) = set(["kernel", "k"]) {
                        k = Some(pair(v, "kernel size")?);
                    } else if word.contains(['x', '×']) && k.is_none() {
                        k = Some(pair(word, "kernel size")?);
                    } else if word.bytes().all(|b| b.is_ascii_digit()) && plain.len() < 2 {
                        plain.push(word);
                    } else {
                        return Err(wrong(format!("'{word}' is not understood")));
                    }
                }
            }
        }
        if let (None, Some(c)) = (channels, plain.pop_if(|_| channels.is_none())) {
            let c = number(c, "number of channels")?;
            channels = Some((c, c));
        }
        if let Some(side) = plain.pop_if(|_| k.is_none()) {
            k = Some(pair(side, "kernel size")?);
        }
        if let Some(word) = plain.pop() {
            return Err(wrong(format!("'{word}' is not understood")));
        }
        let (ic, oc) = channels.ok_or_else(|| wrong("lacks its channels, like 64->128".into()))?;
        (spec.ic, spec.oc) = (ic, oc);
        spec.size = size.ok_or_else(|| wrong("lacks the size of its input map, like @56x56".into()))?;
        spec.k = match (kind, k) {
            ("pw", None) => [1, 1],
            ("pw", Some(k)) if k != [1, 1] => return Err(wrong("a pointwise convolution is 1x1".into())),
            (_, Some(k)) => k,
            (_, None) => return Err(wrong("lacks its kernel, like 3x3".into())),
        };
        if kind == "dw" {
            if spec.groups != 1 {
                return Err(wrong("a depthwise convolution has as many groups as channels".into()));
            }
            spec.groups = ic;
        }
        if !ic.is_multiple_of(spec.groups) || !oc.is_multiple_of(spec.groups) {
            return Err(wrong(format!("{ic} channels to {oc} do not split into {} groups", spec.groups)));
        }
        let fits = |a: usize| spec.size[a] + 2 * spec.padding()[a] > (spec.k[a] - 1) * spec.dilation;
        if !(0..2).all(fits) {
            return Err(wrong("the window is larger than the padded map".into()));
        }
        Ok(spec)
    }

    fn padding(&self) -> [usize; 2] {
        self.pad.map_or(self.k.map(|k| (k - 1) * self.dilation / 2), |p| [p, p])
    }

    /// The same layer with channels or map scaled; at least one channel and one position each.
    #[must_use]
    pub fn scaled(&self, channels: f64, map: f64) -> LayerSpec {
        let by = |n: usize, f: f64| ((n as f64 * f).round() as usize).clamp(1, LARGEST);
        let groups = if self.groups == self.ic { by(self.ic, channels) } else { self.groups };
        LayerSpec {
            ic: by(self.ic, channels),
            oc: by(self.oc, channels),
            size: self.size.map(|s| by(s, map).max(self.k[0].max(self.k[1]))),
            groups,
            ..*self
        }
    }

    /// As a model with one node and seeded weights.
    ///
    /// # Errors
    /// If the weights do not fit in memory.
    pub fn model(&self) -> Result<ModelSpec> {
        let [ph, pw] = self.padding();
        let dims = [self.oc, self.ic / self.groups, self.k[0], self.k[1]];
        let fan_in = dims[1..].iter().product();
        let window = super::edit::Window {
            k: self.k,
            s: [self.stride; 2],
            d: [self.dilation; 2],
            pads: [ph, pw, ph, pw],
            group: self.groups,
        };
        let mut initializers =
            vec![("conv.weight".to_string(), seed::tensor("conv.weight", &dims, Fill::scaled(1.0, fan_in))?)];
        let mut inputs = vec!["x".to_string(), "conv.weight".to_string()];
        if self.bias {
            initializers.push(("conv.bias".into(), seed::tensor("conv.bias", &[self.oc], Fill::Within(0.1))?));
            inputs.push("conv.bias".into());
        }
        let node = NodeSpec {
            name: "conv".into(),
            op_type: "Conv".into(),
            inputs,
            outputs: vec!["y".into()],
            attrs: window.attrs().into_iter().map(|(k, v)| (k.to_string(), v)).collect(),
            opset: OPSET,
            ..NodeSpec::default()
        };
        let out = |a: usize, p: usize| (self.size[a] + 2 * p - (self.k[a] - 1) * self.dilation - 1) / self.stride + 1;
        let y = [self.batch, self.oc, out(0, ph), out(1, pw)];
        Ok(wrap(
            &self.to_string(),
            [self.batch, self.ic, self.size[0], self.size[1]],
            y,
            ["x", "y"],
            vec![node],
            initializers,
            OPSET,
        ))
    }
}

fn wrap(
    name: &str,
    x: [usize; 4],
    y: [usize; 4],
    [x_name, y_name]: [&str; 2],
    nodes: Vec<NodeSpec>,
    initializers: Vec<(String, Tensor)>,
    opset: i64,
) -> ModelSpec {
    let value = |name: &str, dims: [usize; 4]| ValueSpec {
        name: name.to_string(),
        dtype: Some(DType::F32),
        shape: Some(dims.iter().map(|&d| DimSpec::Size(d)).collect()),
        container: Container::Tensor,
    };
    ModelSpec {
        graph: GraphSpec {
            name: name.to_string(),
            nodes,
            inputs: vec![value(x_name, x)],
            outputs: vec![value(y_name, y)],
            initializers,
            value_info: Vec::new(),
        },
        opsets: vec![(String::new(), opset)],
        ir_version: 10,
        producer: ("madd-prof".into(), env!("CARGO_PKG_VERSION").into()),
        metadata: Vec::new(),
        notes: Vec::new(),
        has_external_data: false,
        data_files: Vec::new(),
        header: Header::default(),
    }
}

/// What nodes cost that stand between a site's input and output, by the operators' own rules.
///
/// # Errors
/// If they do not make the site's output from its input.
pub(super) fn counts(site: &Site, opset: i64, nodes: &[NodeSpec], new: &[(String, Tensor)]) -> Result<Totals> {
    let mut initializers = new.to_vec();
    initializers.push((site.weight_name.clone(), site.weight.clone()));
    initializers.extend(site.bias.clone());
    let [a, b]: [Axis; 2] = site.axes;
    let y = [site.n, site.oc, a.o, b.o];
    let spec =
        wrap(&site.name, [site.n, site.ic, a.i, b.i], y, [&site.x, &site.y], nodes.to_vec(), initializers, opset);
    let model = ir::build(&spec, &Bindings::default())?;
    let out = &model.graph.value(model.graph.outputs()[0]).fact;
    if out.shape.concrete().as_deref() != Some(&y[..]) || out.dtype != Some(DType::F32) {
        return Err(
            Error::run(format!("the block makes {out} where the layer makes {y:?}")).at_node(&site.name, "Conv")
        );
    }
    Ok(analyze(&model.graph).totals)
}
