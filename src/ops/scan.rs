//! Scan, SequenceMap: operators that run a subgraph over slices of tensors or elements of sequences.
//!
//! <https://onnx.ai/onnx/operators/onnx__Scan.html>, <https://onnx.ai/onnx/operators/onnx__SequenceMap.html>.
//!
//! Cost: the body times the number of slices (in opset 8 also times the batch); of a SequenceMap only known when the body is free, since
//! no shape says how long a sequence is.

use super::control::{Doubling, captured, charge_of_bodies, stack, with_dim};
use super::dims::{axis, either};
use super::elements::{mapped_copy, whole_maps};
use super::spec::{Attr, NodeSpec};
use super::{Body, Case, Charge, CostCx, Entry, EvalCx, Family, Infer, Inputs, Op, input, opt, sample};
use crate::cost::{Span, product};
use crate::error::{Error, Result};
use crate::tensor::{Container, DType, Dim, Fact, Shape, Tensor};
use std::sync::Arc;

/// The family's table rows.
pub const ENTRIES: &[Entry] = &[
    Entry { domain: "", name: "Scan", parse: Over::scan, cases },
    Entry { domain: "", name: "SequenceMap", parse: Over::sequence_map, cases },
];

/// An operator that runs a body once per slice or element.
#[derive(Debug, Clone)]
pub enum Over {
    /// A body `(state…, slices…) → (state…, scanned…)` along axes of the inputs.
    Scan(Scan),
    /// A body `(element, elements or tensors…) → (element…)` over sequences; the number of inputs.
    Sequence(Arc<dyn Body>, usize),
}

/// A Scan.
#[derive(Debug, Clone)]
pub struct Scan {
    body: Arc<dyn Body>,
    inputs: usize,
    input_axes: Vec<i64>,
    output_axes: Vec<i64>,
    input_backward: Vec<bool>,
    output_backward: Vec<bool>,
    /// Opset 8: everything has a batch axis in front, and input 0 may say how long each entry's sequences are.
    batched: bool,
}

impl Over {
    fn scan(node: &NodeSpec) -> Result<Op> {
        let body = node.body("body")?;
        let batched = node.opset == 8;
        let own = node.inputs.len().saturating_sub(usize::from(batched));
        let inputs = node.opt_size("num_scan_inputs")?.filter(|&n| n > 0 && n <= own);
        let inputs = inputs
            .ok_or_else(|| Error::input("must count at least one of the inputs").at_attribute("num_scan_inputs"))?;
        let states = own - inputs;
        let Some(outputs) = body.output_facts().len().checked_sub(states) else {
            return Err(Error::input(format!("gives fewer outputs than the {states} states")).at_attribute("body"));
        };
        if body.formals() != own {
            return Err(Error::input(format!("takes {} inputs, not {own}", body.formals())).at_attribute("body"));
        }
        let list = |name: &str, n: usize| -> Result<Vec<i64>> {
            let v = node.opt_ints(name)?.unwrap_or_else(|| vec![0; n]);
            if v.len() == n { Ok(v) } else { Err(Error::input(format!("must have {n} values")).at_attribute(name)) }
        };
        let flags = |name: &str, n: usize| -> Result<Vec<bool>> { Ok(list(name, n)?.iter().map(|&v| v != 0).collect()) };
        let directions = if batched { "directions" } else { "scan_input_directions" };
        Ok(Op::Over(Over::Scan(Scan {
            inputs,
            input_axes: list("scan_input_axes", inputs)?,
            output_axes: list("scan_output_axes", outputs)?,
            input_backward: flags(directions, inputs)?,
            output_backward: flags("scan_output_directions", outputs)?,
            batched,
            body,
        })))
    }
    fn sequence_map(node: &NodeSpec) -> Result<Op> {
        node.expect_inputs(1, usize::MAX)?;
        let body = node.body("body")?;
        if body.formals() != node.inputs.len() || body.output_facts().len() < node.outputs.len() {
            let say = format!("takes {} inputs and gives {} outputs", body.formals(), body.output_facts().len());
            return Err(Error::input(say).at_attribute("body"));
        }
        Ok(Op::Over(Over::Sequence(body, node.inputs.len())))
    }
}

impl Scan {
    fn states(&self) -> usize {
        self.body.formals() - self.inputs
    }
    /// Position of the first state among the node's inputs.
    fn first(&self) -> usize {
        usize::from(self.batched)
    }
    /// Length of the scanned axes, as far as the inputs' shapes tell.
    fn length(&self, shape: &dyn Fn(usize) -> Option<Shape>) -> Dim {
        (0..self.inputs).find_map(|k| {
            let shape = shape(self.first() + self.states() + k)?;
            shape.dim(if self.batched { 1 } else { axis(self.input_axes[k], shape.rank()?).ok()? })
        })
    }
    /// The batch size of opset 8, 1 elsewhere.
    fn batch(&self, shape: &dyn Fn(usize) -> Option<Shape>) -> Dim {
        if self.batched { (1..=self.body.formals()).find_map(|i| shape(i)?.dim(0)) } else { Some(1) }
    }

    fn run(&self, cx: &EvalCx, inputs: &Inputs) -> Result<Vec<Tensor>> {
        let (first, own) = (self.first(), self.first() + self.body.formals());
        let outer = captured(inputs, own, &self.body)?;
        let given: Vec<Tensor> = (first..own).map(|i| input(inputs, i).cloned()).collect::<Result<_>>()?;
        if !self.batched {
            return self.pass(cx, given, &outer, None);
        }
        let batch = given.iter().map(|t| t.dims().first().copied()).reduce(|a, b| if a == b { a } else { None });
        let batch = batch.flatten().ok_or_else(|| Error::input("inputs without a common batch axis"))?;
        let lengths = opt(inputs, 0).map(Tensor::to_i64s).transpose()?;
        if batch == 0 || lengths.as_ref().is_some_and(|l| l.len() != batch) {
            return Err(Error::input("an empty batch, or not one sequence length per entry"));
        }
        let mut entries: Vec<Vec<Tensor>> = Vec::new();
        for b in 0..batch {
            let of_entry = given.iter().map(|t| slice(t, 0, b)).collect::<Result<_>>()?;
            entries.push(self.pass(cx, of_entry, &outer, lengths.as_ref().map(|l| l[b]))?);
        }
        let facts = self.body.output_facts();
        (0..facts.len()).map(|k| stack(&entries.iter().map(|e| e[k].clone()).collect::<Vec<_>>(), 0, &facts[k])).collect()
    }

    /// One pass over the slices (of which `length`, if given, are real and the rest padding).
    fn pass(&self, cx: &EvalCx, given: Vec<Tensor>, outer: &[Tensor], length: Option<i64>) -> Result<Vec<Tensor>> {
        let states = self.states();
        let (state, scanned) = given.split_at(states);
        let mut state = state.to_vec();
        let axes: Vec<usize> =
            scanned.iter().zip(&self.input_axes).map(|(t, &a)| axis(a, t.rank())).collect::<Result<_>>()?;
        let n = scanned.first().zip(axes.first()).map_or(0, |(t, &a)| t.dims()[a]);
        if scanned.iter().zip(&axes).any(|(t, &a)| t.dims()[a] != n) {
            return Err(Error::input("scanned inputs of different lengths"));
        }
        let real = match length {
            Some(l) => usize::try_from(l).ok().filter(|&l| l <= n),
            None => Some(n),
        };
        let real = real.ok_or_else(|| Error::input(format!("a sequence length that is not between 0 and {n}")))?;
        let facts = self.body.output_facts();
        let mut lists: Vec<Vec<Tensor>> = vec![Vec::new(); facts.len().saturating_sub(states)];
        for round in 0..real {
            let mut all = std::mem::take(&mut state);
            for ((t, &a), &backward) in scanned.iter().zip(&axes).zip(&self.input_backward) {
                all.push(slice(t, a, if backward { real - 1 - round } else { round })?);
            }
            all.extend(outer.iter().cloned());
            let mut made = self.body.eval(cx, &all)?.into_iter();
            state = made.by_ref().take(states).collect();
            for list in &mut lists {
                list.push(made.next().ok_or_else(|| Error::run("the body gives too few outputs"))?);
            }
        }
        let mut out = state;
        for (k, list) in lists.iter_mut().enumerate() {
            if self.output_backward[k] {
                list.reverse();
            }
            if let Some(last) = list.last() {
                let padding = Tensor::zeros(last.dtype(), last.dims())?;
                list.resize(n, padding);
            }
            out.push(stack(list, self.output_axes[k], &facts[states + k])?);
        }
        Ok(out)
    }
}

fn element(fact: &Fact) -> Fact {
    Fact { container: Container::Tensor, ..fact.clone() }
}

fn map(cx: &EvalCx, body: &Arc<dyn Body>, own: usize, inputs: &Inputs) -> Result<Vec<Tensor>> {
    let n = input(inputs, 0)?.sequence()?.len();
    let outer = captured(inputs, own, body)?;
    let mut lists: Vec<Vec<Tensor>> = vec![Vec::new(); body.output_facts().len()];
    for k in 0..n {
        let mut all = Vec::with_capacity(own + outer.len());
        for i in 0..own {
            let x = input(inputs, i)?;
            all.push(match x.sequence() {
                Ok(s) if s.len() == n => s[k].clone(),
                Ok(s) => return Err(Error::input(format!("sequences of {n} and {} elements", s.len()))),
                Err(_) => x.clone(),
            });
        }
        all.extend(outer.iter().cloned());
        for (list, t) in lists.iter_mut().zip(body.eval(cx, &all)?) {
            list.push(t);
        }
    }
    let dtype = |list: &[Tensor], fact: &Fact| list.first().map(Tensor::dtype).or(fact.dtype).unwrap_or(DType::F32);
    let facts = body.output_facts();
    Ok(lists.into_iter().zip(&facts).map(|(list, fact)| Tensor::from_sequence(dtype(&list, fact), list)).collect())
}

impl Family for Over {
    fn infer(&self, cx: &Infer) -> Result<Vec<Fact>> {
        let scan = match self {
            Over::Scan(scan) => scan,
            Over::Sequence(body, _) => {
                let sequence = |f: &Fact| Fact { container: Container::Sequence, ..element(f) };
                return Ok(body.output_facts().iter().map(sequence).collect());
            }
        };
        let shape = |i: usize| cx.opt(i).map(|x| x.fact.shape.clone());
        let (n, batch) = (scan.length(&shape), scan.batch(&shape));
        let made = scan.body.output_facts();
        let (states, scanned) = made.split_at(scan.states().min(made.len()));
        let mut out = Vec::with_capacity(made.len());
        for (i, fact) in states.iter().enumerate() {
            let before = &cx.fact(scan.first() + i)?.shape;
            let fact = if scan.batched { with_dim(fact, 0, batch) } else { fact.clone() };
            out.push(Fact { shape: either(before, &fact.shape), ..fact });
        }
        for (fact, &at) in scanned.iter().zip(&scan.output_axes) {
            let whole = with_dim(fact, at, n);
            out.push(if scan.batched { with_dim(&whole, 0, batch) } else { whole });
        }
        Ok(out)
    }
    fn charge(&self, cx: &CostCx) -> Charge {
        charge_of_bodies(self, cx)
    }
    fn rounds(&self, cx: &CostCx) -> Vec<(&'static str, Span)> {
        let Over::Scan(scan) = self else { return vec![("body", Span::ANY)] };
        let at = |i: usize| cx.inputs.get(i).copied().flatten();
        let shape = |i: usize| at(i).map(|x| x.fact.shape.clone());
        let n = scan.length(&shape).zip(scan.batch(&shape)).and_then(|(n, b)| product([n, b]));
        // How long the sequences of a batch are may be said by data.
        let low = if scan.batched && at(0).is_some() { None } else { n };
        vec![("body", Span { low: low.unwrap_or(0), high: n })]
    }
    fn eval(&self, cx: &EvalCx, inputs: &Inputs) -> Result<Vec<Tensor>> {
        match self {
            Over::Scan(scan) => scan.run(cx, inputs),
            Over::Sequence(body, own) => map(cx, body, *own, inputs),
        }
    }
    fn handles_narrow(&self) -> bool {
        true
    }
    fn bodies(&self) -> Vec<Arc<dyn Body>> {
        match self {
            Over::Scan(scan) => vec![scan.body.clone()],
            Over::Sequence(body, _) => vec![body.clone()],
        }
    }
}

/// The slice of a tensor at one position of an axis, without that axis.
fn slice(t: &Tensor, at: usize, position: usize) -> Result<Tensor> {
    let mut dims = t.dims().to_vec();
    dims.remove(at);
    if t.is_empty() {
        return Tensor::zeros(t.dtype(), &dims);
    }
    let mut maps = whole_maps(t.dims())?;
    maps[at] = vec![Some(position)];
    mapped_copy(t, &maps, &Tensor::zeros(t.dtype(), &[])?)?.reshaped(&dims)
}

fn cases() -> Vec<Case> {
    let f = sample::floats;
    let fact = |dims: &[usize]| Fact::of(DType::F32, dims);
    let body = |formals: Vec<Fact>, outputs: &[(usize, bool)]| {
        ("body", Attr::Body(Arc::new(Doubling { formals, outputs: outputs.to_vec(), captures: vec![] })))
    };
    let scan = |more: &[(&'static str, Attr)]| {
        let formals = vec![fact(&[3]), fact(&[3])];
        let mut attrs = vec![body(formals, &[(0, true), (1, true)]), ("num_scan_inputs", Attr::Int(1))];
        attrs.extend_from_slice(more);
        attrs
    };
    let one = |v: i64| Attr::Ints(vec![v]);
    let inputs = |d: &[usize]| vec![Some(f(&[3], 1)), Some(f(d, 2))];
    let batch = |lengths: Option<&[i64]>| vec![lengths.map(sample::ints), Some(f(&[2, 3], 1)), Some(f(&[2, 4, 3], 2))];
    let two = || Tensor::from_sequence(DType::F32, vec![f(&[2, 3], 1), f(&[2, 3], 2)]);
    let map = |second: Tensor| {
        let attrs = [body(vec![fact(&[2, 3]), fact(&[2, 3])], &[(0, true), (1, false)])];
        Case::with_optional("SequenceMap", &attrs, vec![Some(two()), Some(second)], 2)
    };
    vec![
        Case::with_optional("Scan", &scan(&[]), inputs(&[5, 3]), 2),
        Case::with_optional(
            "Scan",
            &scan(&[("scan_input_axes", one(-1)), ("scan_output_axes", one(1)), ("scan_input_directions", one(1))]),
            inputs(&[3, 4]),
            2,
        ),
        Case::with_optional("Scan", &scan(&[("scan_output_directions", one(1))]), inputs(&[5, 3]), 2),
        Case::with_optional("Scan", &scan(&[]), batch(None), 2).opset(8),
        Case::with_optional("Scan", &scan(&[("directions", one(1))]), batch(Some(&[4, 2])), 2).opset(8),
        map(two()),
        map(f(&[2, 3], 3)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(case: &Case) -> Vec<Tensor> {
        let inputs: Vec<Option<&Tensor>> = case.inputs.iter().map(Option::as_ref).collect();
        Op::parse(&case.node).unwrap().eval(&EvalCx { outputs: 2, ..EvalCx::default() }, &inputs).unwrap()
    }

    #[test]
    fn a_scan_backward_gives_its_outputs_in_reverse() {
        let case = &cases()[2];
        let (x, y) = (case.inputs[1].as_ref().unwrap().to_f64s().unwrap(), run(case)[1].to_f64s().unwrap());
        assert_eq!(y[..3], [2.0 * x[12], 2.0 * x[13], 2.0 * x[14]]);
    }

    #[test]
    fn a_short_sequence_of_a_batch_is_read_backward_from_its_end_and_padded() {
        let case = &cases()[4];
        let (x, y) = (case.inputs[2].as_ref().unwrap().to_f64s().unwrap(), run(case)[1].to_f64s().unwrap());
        assert_eq!(y[12..15], [2.0 * x[15], 2.0 * x[16], 2.0 * x[17]]);
        assert_eq!(y[18..], [0.0; 6]);
    }
}
