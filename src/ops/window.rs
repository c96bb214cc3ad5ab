//! Geometry of sliding windows, shared by convolution and pooling.
//!
//! Output size per axis: `floor((I + pad_begin + pad_end − d(k−1) − 1)/s) + 1` (ceil on request), as in the ONNX Conv and
//! MaxPool pages; `auto_pad` is resolved here and nowhere else.

use super::spec::NodeSpec;
use crate::error::{Error, Result};

/// `auto_pad` of the standard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AutoPad {
    /// Pads are given (default 0).
    NotSet,
    /// `O = ceil(I/s)`, the odd pad at the end.
    SameUpper,
    /// `O = ceil(I/s)`, the odd pad at the beginning.
    SameLower,
    /// No padding.
    Valid,
}

/// Window attributes as written; axes that were not given take their defaults when resolved.
#[derive(Debug, Clone, PartialEq)]
pub struct Window {
    /// `kernel_shape`, if given.
    pub kernel: Option<Vec<usize>>,
    /// `strides`.
    pub strides: Option<Vec<usize>>,
    /// `dilations`.
    pub dilations: Option<Vec<usize>>,
    /// `pads`: begins then ends. Negative pads crop and are refused, as ONNX Runtime does.
    pub pads: Option<Vec<usize>>,
    /// `auto_pad`.
    pub auto_pad: AutoPad,
    /// `ceil_mode` (pooling only).
    pub ceil: bool,
}

/// One axis, resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Axis {
    /// Kernel size.
    pub k: usize,
    /// Stride.
    pub s: usize,
    /// Dilation.
    pub d: usize,
    /// Pad before.
    pub begin: usize,
    /// Pad after.
    pub end: usize,
    /// Input size.
    pub i: usize,
    /// Output size.
    pub o: usize,
}

/// Largest size, stride, dilation or pad of an axis.
const LARGEST: usize = 1 << 31;

impl Axis {
    /// The input position of output `o` and tap `k`, or `None` in the padding.
    pub fn position(&self, o: usize, k: usize) -> Option<usize> {
        (o * self.s + k * self.d).checked_sub(self.begin).filter(|&p| p < self.i)
    }
    /// The same windows over the map without the zeros it was given before and after, which become padding. `None` if there is no map left.
    pub fn unpadded(&self, before: usize, after: usize) -> Option<Axis> {
        let i = self.i.checked_sub(before)?.checked_sub(after).filter(|&i| i > 0)?;
        let (begin, end) = (self.begin.checked_add(before)?, self.end.checked_add(after)?);
        // As far as sizes go elsewhere.
        (begin.max(end) < LARGEST).then_some(Axis { begin, end, i, ..*self })
    }
    /// The axis without the taps at either end that meet only padding, and which taps are left. All are left where that cannot be said
    /// as a window with padding, and where none meets the input.
    pub fn cropped(&self) -> (Axis, std::ops::Range<usize>) {
        let meets = |k: &usize| (0..self.o).any(|o| self.position(o, *k).is_some());
        let (first, last) = ((0..self.k).find(meets), (0..self.k).rev().find(meets));
        let all = (*self, 0..self.k);
        let (Some(first), Some(last)) = (first, last) else { return all };
        let begin = self.begin.checked_sub(first * self.d);
        let end = self.end.checked_sub((self.k - 1 - last) * self.d);
        let (Some(begin), Some(end)) = (begin, end) else { return all };
        (Axis { k: last + 1 - first, begin, end, ..*self }, first..last + 1)
    }
    /// How many (output, tap) pairs fall on real input rather than padding.
    pub fn useful_taps(&self) -> u64 {
        (0..self.k)
            .map(|k| {
                // o·s + k·d − begin in [0, i)
                let at = k * self.d;
                let low = self.begin.saturating_sub(at).div_ceil(self.s);
                let high = (self.i + self.begin).saturating_sub(at).div_ceil(self.s).min(self.o);
                high.saturating_sub(low) as u64
            })
            .sum()
    }
}

impl Window {
    /// Reads the window attributes of a node.
    ///
    /// # Errors
    /// If one is of the wrong kind, or a stride, dilation or kernel size is zero.
    pub fn parse(node: &NodeSpec) -> Result<Window> {
        let auto_pad = match node.str("auto_pad", "NOTSET")? {
            "NOTSET" | "" => AutoPad::NotSet,
            "SAME_UPPER" => AutoPad::SameUpper,
            "SAME_LOWER" => AutoPad::SameLower,
            "VALID" => AutoPad::Valid,
            other => return Err(Error::input(format!("'{other}' is not a padding mode")).at_attribute("auto_pad")),
        };
        let positive = |name: &str| -> Result<Option<Vec<usize>>> {
            let v = node.opt_sizes(name)?;
            if v.as_ref().is_some_and(|v| v.contains(&0)) {
                return Err(Error::input("must be positive").at_attribute(name));
            }
            Ok(v)
        };
        Ok(Window {
            kernel: positive("kernel_shape")?,
            strides: positive("strides")?,
            dilations: positive("dilations")?,
            pads: node.opt_sizes("pads")?,
            auto_pad,
            ceil: node.flag("ceil_mode", false)?,
        })
    }

    fn per_axis(name: &str, v: &Option<Vec<usize>>, rank: usize, default: usize) -> Result<Vec<usize>> {
        match v {
            None => Ok(vec![default; rank]),
            Some(v) if v.len() == rank => Ok(v.clone()),
            Some(v) => Err(Error::input(format!("has {} values where {rank} are needed", v.len())).at_attribute(name)),
        }
    }

    /// The attributes per axis for a kernel of the given sizes: (kernel, stride, dilation, pad begin, pad end).
    pub fn axes(&self, kernel: &[usize]) -> Result<Vec<(usize, usize, usize, usize, usize)>> {
        let n = kernel.len();
        let s = Self::per_axis("strides", &self.strides, n, 1)?;
        let d = Self::per_axis("dilations", &self.dilations, n, 1)?;
        let p = Self::per_axis("pads", &self.pads, 2 * n, 0)?;
        Ok((0..n).map(|a| (kernel[a], s[a], d[a], p[a], p[n + a])).collect())
    }

    /// Resolves every axis for spatial input sizes and a kernel.
    ///
    /// # Errors
    /// If the number of axes does not fit, or the dilated kernel is larger than the padded input.
    pub fn resolve(&self, input: &[usize], kernel: &[usize]) -> Result<Vec<Axis>> {
        if input.len() != kernel.len() {
            return Err(Error::input(format!("a {}-axis window over {} spatial axes", kernel.len(), input.len()))
                .at_attribute("kernel_shape"));
        }
        let mut out = Vec::with_capacity(input.len());
        for (&i, (k, s, d, begin, end)) in input.iter().zip(self.axes(kernel)?) {
            // No map is that large; the arithmetic below then cannot overflow.
            if [i, k, s, d, begin, end].iter().any(|&v| v > LARGEST) {
                return Err(Error::input(format!("sizes above {LARGEST}")).at_attribute("pads"));
            }
            let too_large = || Error::input("window sizes that overflow");
            let span = (k - 1).checked_mul(d).and_then(|v| v.checked_add(1)).ok_or_else(too_large)?;
            let axis = match self.auto_pad {
                AutoPad::NotSet | AutoPad::Valid => {
                    let (begin, end) = if self.auto_pad == AutoPad::Valid { (0, 0) } else { (begin, end) };
                    let padded = i.checked_add(begin).and_then(|v| v.checked_add(end)).ok_or_else(too_large)?;
                    if i == 0 || padded < span {
                        return Err(Error::input(format!(
                            "the window spans {span} positions but the padded input has only {padded}"
                        ))
                        .hint("the model's input is too small for its strides; bind a larger --input-shape"));
                    }
                    let free = padded - span;
                    let mut o = if self.ceil { free.div_ceil(s) + 1 } else { free / s + 1 };
                    // A window that would start in the end padding is dropped (ONNX MaxPool, since opset 19 everywhere).
                    if self.ceil && (o - 1) * s >= i + begin {
                        o -= 1;
                    }
                    Axis { k, s, d, begin, end, i, o }
                }
                AutoPad::SameUpper | AutoPad::SameLower => {
                    let o = i.div_ceil(s);
                    let total = (o.saturating_sub(1) * s + span).saturating_sub(i);
                    let small = total / 2;
                    let begin = if self.auto_pad == AutoPad::SameUpper { small } else { total - small };
                    Axis { k, s, d, begin, end: total - begin, i, o }
                }
            };
            out.push(axis);
        }
        Ok(out)
    }

    /// Output sizes with unknown inputs staying unknown.
    pub fn output_dims(&self, input: &[Option<usize>], kernel: &[usize]) -> Result<Vec<Option<usize>>> {
        if input.len() != kernel.len() {
            return Err(Error::input(format!("a {}-axis window over {} spatial axes", kernel.len(), input.len()))
                .at_attribute("kernel_shape"));
        }
        // Axes do not influence each other, so unknown ones are replaced by a size that always fits, then masked.
        let stand_in: Vec<usize> = input.iter().map(|d| d.unwrap_or(1 << 20)).collect();
        let axes = self.resolve(&stand_in, kernel)?;
        Ok(input.iter().zip(axes).map(|(d, a)| d.map(|_| a.o)).collect())
    }
}

/// Steps through a multi-index in row-major order; `false` after the last.
pub fn advance(index: &mut [usize], dims: &[usize]) -> bool {
    for a in (0..dims.len()).rev() {
        index[a] += 1;
        if index[a] < dims[a] {
            return true;
        }
        index[a] = 0;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(pads: &[usize], strides: &[usize], dilations: &[usize], auto_pad: AutoPad, ceil: bool) -> Window {
        Window {
            kernel: None,
            strides: Some(strides.to_vec()),
            dilations: Some(dilations.to_vec()),
            pads: Some(pads.to_vec()),
            auto_pad,
            ceil,
        }
    }

    #[test]
    fn sizes_of_well_known_layers() {
        let o = |w: Window, i: usize, k: usize| w.resolve(&[i], &[k]).unwrap()[0].o;
        assert_eq!(o(window(&[3, 3], &[2], &[1], AutoPad::NotSet, false), 224, 7), 112); // ResNet stem
        assert_eq!(o(window(&[0, 0], &[2], &[1], AutoPad::NotSet, true), 111, 3), 55); // SqueezeNet pool
        assert_eq!(o(window(&[0, 0], &[2], &[1], AutoPad::SameUpper, false), 299, 3), 150);
        assert_eq!(o(window(&[1, 1], &[2], &[1], AutoPad::NotSet, true), 4, 3), 3);
    }

    #[test]
    fn zeros_around_the_map_are_padding() {
        let padded = window(&[1, 0], &[2], &[1], AutoPad::NotSet, false).resolve(&[9], &[3]).unwrap()[0];
        let axis = padded.unpadded(2, 1).unwrap();
        assert_eq!((axis.begin, axis.end, axis.i, axis.o), (3, 1, 6, padded.o));
        for (o, t) in (0..padded.o).flat_map(|o| (0..3).map(move |t| (o, t))) {
            let inside = padded.position(o, t).and_then(|p| p.checked_sub(2)).filter(|&p| p < 6);
            assert_eq!(axis.position(o, t), inside);
        }
        assert_eq!(padded.unpadded(4, 5), None);
        assert_eq!(padded.unpadded(usize::MAX, usize::MAX), None);
    }

    #[test]
    fn useful_taps_are_what_positions_say() {
        for i in 1..9 {
            for k in 1..4 {
                for s in 1..4 {
                    for d in 1..3 {
                        for p in 0..3 {
                            let w = window(&[p, p], &[s], &[d], AutoPad::NotSet, false);
                            let Ok(axes) = w.resolve(&[i], &[k]) else { continue };
                            let a = axes[0];
                            let n = (0..a.o)
                                .flat_map(|o| (0..k).map(move |t| (o, t)))
                                .filter(|&(o, t)| a.position(o, t).is_some());
                            assert_eq!(a.useful_taps(), n.count() as u64, "{a:?}");
                        }
                    }
                }
            }
        }
    }
}
