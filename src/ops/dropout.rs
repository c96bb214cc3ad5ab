//! Dropout.
//!
//! <https://onnx.ai/onnx/operators/onnx__Dropout.html>.
//!
//! Cost: nothing at inference, where it is a view. In training mode 1 other FLOP per element for the scale; whether it trains may only
//! be known at run time, and then the cost is unknown. Training draws even numbers from the Mersenne Twister, as ONNX's own cases do,
//! from seed 0 if there is none.

use super::cast::cast;
use super::random::Twister;
use super::spec::{Attr, NodeSpec};
use super::{Access, Case, Charge, CostCx, Entry, EvalCx, Family, Infer, Inputs, Op, Role, input, opt, sample};
use crate::cost::Work;
use crate::error::{Error, Result};
use crate::tensor::{DType, Fact, Num, Tensor};
use crate::with_num;

/// The family's table rows.
pub const ENTRIES: &[Entry] = &[Entry { domain: "", name: "Dropout", parse: Dropout::parse, cases }];

/// Dropout: the input, some of it set to zero when training, and a mask of what stays.
#[derive(Debug, Clone)]
pub struct Dropout {
    /// Whether the mask is boolean (opset 10) rather than of the input's type.
    bool_mask: bool,
    /// It has an input that tells whether it trains (opset 12).
    may_train: bool,
    seed: Option<u32>,
}

impl Dropout {
    fn parse(node: &NodeSpec) -> Result<Op> {
        node.expect_inputs(1, 3)?;
        Ok(Op::Dropout(Dropout {
            bool_mask: node.opset >= 10 || node.opset == 0,
            may_train: node.has_input(2),
            seed: node.opt_int("seed")?.map(|s| s as u32),
        }))
    }
}

/// The share that is dropped, given the inputs' values: nothing unless training.
fn dropped(ratio: Option<&Tensor>, training: Option<&Tensor>) -> Result<f64> {
    let trains = training.map(Tensor::to_i64s).transpose()?.is_some_and(|t| t.first().is_some_and(|&t| t != 0));
    let ratio = ratio.map(Tensor::to_f64s).transpose()?.and_then(|r| r.first().copied()).unwrap_or(0.5);
    match ratio {
        _ if !trains => Ok(0.0),
        0.0..1.0 => Ok(ratio),
        _ => Err(Error::input(format!("a dropout ratio of {ratio}"))),
    }
}

impl Family for Dropout {
    fn infer(&self, cx: &Infer) -> Result<Vec<Fact>> {
        let x = cx.fact(0)?;
        Ok(vec![x.clone(), if self.bool_mask { x.with_dtype(DType::Bool) } else { x.clone() }])
    }
    fn charge(&self, cx: &CostCx) -> Charge {
        if !self.may_train {
            return Charge::FREE;
        }
        let at = |i: usize| cx.inputs.get(i).copied().flatten();
        let value = |i: usize| at(i).and_then(|x| x.value);
        let (ratio, training) = (value(1), value(2));
        if training.is_none() || (at(1).is_some() && ratio.is_none()) {
            return Charge::Unknown;
        }
        match dropped(ratio, training) {
            Ok(0.0) => Charge::FREE,
            Ok(_) => Charge::of(cx.elements(0).map(Work::other)),
            Err(_) => Charge::Unknown,
        }
    }
    fn eval(&self, cx: &EvalCx, inputs: &Inputs) -> Result<Vec<Tensor>> {
        let x = input(inputs, 0)?;
        let share = dropped(opt(inputs, 1), opt(inputs, 2))?;
        let mut stays = vec![true; x.len()];
        let mut y = x.clone();
        if share > 0.0 {
            let mut draw = Twister::new(self.seed.unwrap_or(0));
            stays.iter_mut().for_each(|s| *s = draw.even() >= share);
            let wide = x.widened()?;
            y = with_num!(cx.arith, wide.dtype(), T => {
                let scale = T::of(1.0 / (1.0 - share));
                let values = T::load(&wide)?.into_iter().zip(&stays);
                T::store(values.map(|(v, s)| (if *s { v } else { T::zero() }) * scale).collect(), x.dims())
            })?;
            y = y.narrowed(x.dtype(), true)?;
        }
        let mut out = vec![y];
        if cx.outputs > 1 {
            let mask = Tensor::from_bools(stays, x.dims())?;
            out.push(if self.bool_mask { mask } else { cast(&mask, x.dtype(), true)? });
        }
        Ok(out)
    }
    fn role(&self, i: usize) -> Role {
        if i == 0 { Role::Data } else { Role::Setting }
    }
    fn access(&self) -> Access {
        if self.may_train { Access::Compulsory } else { Access::View }
    }
    fn handles_narrow(&self) -> bool {
        true
    }
    fn is_random(&self) -> bool {
        self.may_train && self.seed.is_none()
    }
}

fn cases() -> Vec<Case> {
    let f = sample::floats;
    let some = |t: Tensor| Some(t);
    let bit = |v: bool| Tensor::from_bools([v], &[]).ok();
    let ratio = |r: f32| some(Tensor::scalar(r));
    let train = |x: Tensor, r: f32, on: bool| {
        Case::with_optional("Dropout", &[("seed", Attr::Int(0))], vec![Some(x), ratio(r), bit(on)], 2)
    };
    let mut all = vec![
        Case::with_optional("Dropout", &[], vec![some(f(&[2, 3], 1))], 2),
        Case::with_optional("Dropout", &[], vec![some(f(&[2, 3], 1)), ratio(0.5)], 1),
        Case::with_optional("Dropout", &[("ratio", Attr::Float(0.3))], vec![some(f(&[2, 3], 1))], 2).opset(7),
        train(f(&[3, 4], 1), 0.75, true),
        train(f(&[3, 4], 1), 0.0, true),
        train(f(&[3, 4], 1), 0.5, false),
        Case::with_optional("Dropout", &[], vec![some(f(&[8], 1)), None, bit(true)], 1),
    ];
    all.extend(f(&[2, 3], 1).narrowed(DType::BF16, true).map(|x| train(x, 0.5, true)));
    all
}
