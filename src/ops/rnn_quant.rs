//! DynamicQuantizeLSTM of ONNX Runtime: an LSTM with integer weights whose data is quantised on the way.
//!
//! <https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md>. W and R are `[d, x, 4h]` and `[d, h, 4h]`, integers
//! with scales per direction or per column. The input sequence is quantised to `uint8` as a whole, the hidden state before every
//! step. Cost: an LSTM's (see [`super::rnn`]); quantising the data and scaling the products are not counted.

use super::elements::ints;
use super::rnn::Rnn;
use super::spec::{Attr, NodeSpec};
use super::{Case, Charge, CostCx, Entry, EvalCx, Family, Infer, Input, Inputs, Op, Role, input, opt, sample};
use crate::error::{Error, Result};
use crate::tensor::{Fact, Shape, Tensor};

/// The family's table rows.
pub const ENTRIES: &[Entry] =
    &[Entry { domain: "com.microsoft", name: "DynamicQuantizeLSTM", parse: RnnQuant::parse, cases }];

/// An LSTM with integer weights.
#[derive(Debug, Clone)]
pub struct RnnQuant {
    /// The LSTM of real numbers.
    pub lstm: Rnn,
}

impl RnnQuant {
    fn parse(node: &NodeSpec) -> Result<Op> {
        node.expect_inputs(3, 12)?;
        for i in [8, 10] {
            if !node.has_input(i) {
                return Err(Error::input(format!("the scale at input {i} is missing")));
            }
        }
        let spec = NodeSpec {
            op_type: "LSTM".into(),
            domain: String::new(),
            inputs: node.inputs[..node.inputs.len().min(8)].to_vec(),
            ..node.clone()
        };
        match Op::parse(&spec)? {
            Op::Rnn(lstm) => Ok(Op::RnnQuant(RnnQuant { lstm })),
            _ => Err(Error::input("is not an LSTM")),
        }
    }
}

/// The fact of `[d, rows, columns]` weights as an LSTM wants them.
fn swapped(fact: &Fact) -> Fact {
    match fact.shape.dims() {
        Some(&[d, rows, columns]) => fact.with_shape(Shape::partial(vec![d, columns, rows])),
        _ => fact.with_shape(Shape::of_rank(3)),
    }
}

/// Integer weights `[d, rows, columns]` as real ones `[d, columns, rows]`.
fn real(w: &Tensor, scale: &Tensor, zero: Option<&Tensor>) -> Result<Tensor> {
    let &[d, rows, columns] = w.dims() else {
        return Err(Error::run(format!("weights of shape {}", Shape::known(w.dims()))));
    };
    let (values, scales) = (ints(w)?, scale.to_f64s()?);
    let zeros = zero.map(ints).transpose()?.unwrap_or_else(|| vec![0; scales.len()]);
    if zeros.len() != scales.len() || (scales.len() != d && scales.len() != d * columns) {
        return Err(Error::run("scales or zero points do not fit the weights"));
    }
    let mut out = Vec::with_capacity(values.len());
    for n in 0..d {
        for c in 0..columns {
            let s = if scales.len() == d { n } else { n * columns + c };
            out.extend((0..rows).map(|r| ((values[(n * rows + r) * columns + c] - zeros[s]) as f64 * scales[s]) as f32));
        }
    }
    Tensor::from_vec(out, &[d, columns, rows])
}

impl Family for RnnQuant {
    fn infer(&self, cx: &Infer) -> Result<Vec<Fact>> {
        let (w, r) = (swapped(cx.fact(1)?), swapped(cx.fact(2)?));
        let mut inputs: Vec<Option<Input>> = (0..8).map(|i| cx.opt(i)).collect();
        inputs[1] = Some(Input { fact: &w, value: None });
        inputs[2] = Some(Input { fact: &r, value: None });
        self.lstm.infer(&Infer { inputs: &inputs, outputs: cx.outputs })
    }

    fn charge(&self, cx: &CostCx) -> Charge {
        let at = |i: usize| cx.inputs.get(i).copied().flatten();
        let (Some(w), Some(r)) = (at(1), at(2)) else { return Charge::Unknown };
        let (w, r) = (swapped(w.fact), swapped(r.fact));
        let mut inputs: Vec<Option<Input>> = (0..8).map(at).collect();
        inputs[1] = Some(Input { fact: &w, value: None });
        inputs[2] = Some(Input { fact: &r, value: None });
        self.lstm.charge(&CostCx { inputs: &inputs, outputs: cx.outputs })
    }

    fn eval(&self, cx: &EvalCx, inputs: &Inputs) -> Result<Vec<Tensor>> {
        let w = real(input(inputs, 1)?, input(inputs, 8)?, opt(inputs, 9))?;
        let r = real(input(inputs, 2)?, input(inputs, 10)?, opt(inputs, 11))?;
        let mut operands: Vec<Option<&Tensor>> = (0..8).map(|i| opt(inputs, i)).collect();
        (operands[1], operands[2]) = (Some(&w), Some(&r));
        self.lstm.eval_quantized(cx, &operands)
    }

    fn role(&self, i: usize) -> Role {
        if i < 8 { self.lstm.role(i) } else { Role::Setting }
    }
}

fn cases() -> Vec<Case> {
    let f = |dims: &[usize], seed| Some(sample::floats(dims, seed));
    let q = |d: crate::tensor::DType, dims: &[usize], seed| Some(super::fused_quant::quantized_sample(d, dims, seed));
    let i8s = |dims: &[usize], seed| q(crate::tensor::DType::I8, dims, seed);
    let u8s = |dims: &[usize], seed| q(crate::tensor::DType::U8, dims, seed);
    let scales = |n: usize| Tensor::from_vec(vec![0.01f32; n], &[n]).ok();
    let case = |attrs: &[(&str, Attr)], inputs: Vec<Option<Tensor>>, outputs| {
        Case::with_optional("DynamicQuantizeLSTM", &[&[("hidden_size", Attr::Int(5))], attrs].concat(), inputs, outputs)
            .domain("com.microsoft")
            .opset(1)
    };
    let both = [("direction", Attr::Str("bidirectional".into()))];
    let columns = Tensor::from_vec(vec![0.01f32; 40], &[2, 20]).ok();
    let zeros = || super::elements::from_ints(crate::tensor::DType::I8, &[0; 40], &[2, 20]).ok();
    let mut plain = vec![f(&[4, 3, 2], 1), u8s(&[1, 2, 20], 2), u8s(&[1, 5, 20], 3), None, None, None, None, None];
    plain.extend([scales(1), u8s(&[1], 4), scales(1), u8s(&[1], 4)]);
    let mut two = vec![f(&[4, 3, 2], 1), i8s(&[2, 2, 20], 2), i8s(&[2, 5, 20], 3), f(&[2, 40], 4), None];
    two.extend([f(&[2, 3, 5], 5), f(&[2, 3, 5], 6), None, columns.clone(), zeros(), columns, zeros()]);
    vec![case(&[], plain, 1), case(&both, two, 3)]
}
