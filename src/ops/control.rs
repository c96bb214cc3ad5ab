//! If, Loop, Scan: operators that run subgraphs.
//!
//! <https://onnx.ai/onnx/operators/onnx__If.html>, <https://onnx.ai/onnx/operators/onnx__Loop.html>,
//! <https://onnx.ai/onnx/operators/onnx__Scan.html>.
//!
//! Cost: what the subgraphs cost. If: the branch taken when the condition is a constant, else between the cheaper and the dearer
//! branch. Loop: the body times the trip count, when that is a constant and the body never stops early; else between none and as
//! many rounds as the trip count allows. Scan: the body times the length of the scanned axis. A node's inputs are followed by the values its bodies capture, body by body.

use super::concat::concat;
use super::dims::{axis, either, either_fact};
use super::elements::{mapped_copy, whole_maps};
use super::spec::{Attr, NodeSpec};
use super::{Body, Case, Charge, CostCx, Entry, EvalCx, Family, Infer, Input, Inputs, Op, Role, input, opt, sample};
use crate::cost::{Span, Work, WorkSpan};
use crate::error::{Error, Result};
use crate::tensor::{Container, DType, Dim, Fact, Shape, Tensor};
use std::any::Any;
use std::sync::Arc;

/// The family's table rows.
pub const ENTRIES: &[Entry] = &[
    Entry { domain: "", name: "If", parse: Control::branch, cases },
    Entry { domain: "", name: "Loop", parse: Control::repeat, cases },
    Entry { domain: "", name: "Scan", parse: Control::scan, cases },
];

/// A node that runs subgraphs.
#[derive(Debug, Clone)]
pub enum Control {
    /// One of two branches.
    If {
        /// When the condition holds.
        then_branch: Arc<dyn Body>,
        /// When it does not.
        else_branch: Arc<dyn Body>,
    },
    /// Rounds of a body `(round, go on, state…) → (go on, state…, scanned…)`.
    Loop(Arc<dyn Body>),
    /// A body `(state…, slices…) → (state…, scanned…)` along axes of the inputs.
    Scan(Scan),
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
}

impl Control {
    fn branch(node: &NodeSpec) -> Result<Op> {
        node.expect_inputs(1, 1)?;
        let (then_branch, else_branch) = (node.body("then_branch")?, node.body("else_branch")?);
        for body in [&then_branch, &else_branch] {
            if body.formals() != 0 || body.output_facts().len() < node.outputs.len() {
                return Err(Error::input("the branches must take no inputs and give what the node gives"));
            }
        }
        Ok(Op::Control(Control::If { then_branch, else_branch }))
    }
    fn repeat(node: &NodeSpec) -> Result<Op> {
        node.expect_inputs(0, usize::MAX)?;
        let body = node.body("body")?;
        let states = node.inputs.len().saturating_sub(2);
        if body.formals() != states + 2 || body.output_facts().len() < states + 1 {
            return Err(Error::input(format!(
                "takes {} inputs and gives {} outputs for {states} states",
                body.formals(),
                body.output_facts().len()
            ))
            .at_attribute("body"));
        }
        Ok(Op::Control(Control::Loop(body)))
    }
    fn scan(node: &NodeSpec) -> Result<Op> {
        let body = node.body("body")?;
        if node.opset == 8 {
            return Err(Error::unsupported("Scan with a batch axis (opset 8)").hint("convert the model to opset 9 or newer"));
        }
        let inputs = node.opt_size("num_scan_inputs")?.filter(|&n| n > 0 && n <= node.inputs.len());
        let inputs = inputs
            .ok_or_else(|| Error::input("must count at least one of the inputs").at_attribute("num_scan_inputs"))?;
        let states = node.inputs.len() - inputs;
        let Some(outputs) = body.output_facts().len().checked_sub(states) else {
            return Err(Error::input(format!("gives fewer outputs than the {states} states")).at_attribute("body"));
        };
        if body.formals() != node.inputs.len() {
            return Err(Error::input(format!("takes {} inputs, not {}", body.formals(), node.inputs.len()))
                .at_attribute("body"));
        }
        let list = |name: &str, n: usize| -> Result<Vec<i64>> {
            let v = node.opt_ints(name)?.unwrap_or_else(|| vec![0; n]);
            if v.len() == n { Ok(v) } else { Err(Error::input(format!("must have {n} values")).at_attribute(name)) }
        };
        let flags = |name: &str, n: usize| -> Result<Vec<bool>> { Ok(list(name, n)?.iter().map(|&v| v != 0).collect()) };
        Ok(Op::Control(Control::Scan(Scan {
            inputs,
            input_axes: list("scan_input_axes", inputs)?,
            output_axes: list("scan_output_axes", outputs)?,
            input_backward: flags("scan_input_directions", inputs)?,
            output_backward: flags("scan_output_directions", outputs)?,
            body,
        })))
    }
}

/// A branch that contradicts the shapes at hand: it can only be the one not taken. Some models hold a branch per sampling rate or
/// image size.
#[derive(Debug)]
pub struct Refused {
    /// Why.
    pub error: Error,
    /// How many results it would give.
    pub outputs: usize,
}

impl Body for Refused {
    fn formals(&self) -> usize {
        0
    }
    fn captures(&self) -> usize {
        0
    }
    fn output_facts(&self) -> Vec<Fact> {
        vec![Fact::unknown(); self.outputs]
    }
    fn charge(&self) -> Charge {
        Charge::FREE
    }
    fn eval(&self, _cx: &EvalCx, _inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        Err(self.error.clone().hint("the input that decides between the branches took this one: fix it with --value NAME=V or --input"))
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Which way an If goes, if that is certain: its condition is known, or one branch cannot run.
fn way(condition: Option<Input>, then_branch: &Arc<dyn Body>, else_branch: &Arc<dyn Body>) -> Option<bool> {
    let refused = |b: &Arc<dyn Body>| b.as_any().is::<Refused>();
    truth(condition).or(match (refused(then_branch), refused(else_branch)) {
        (false, true) => Some(true),
        (true, false) => Some(false),
        _ => None,
    })
}

/// The first element of a constant condition.
fn truth(x: Option<Input>) -> Option<bool> {
    x?.value?.to_i64s().ok()?.first().map(|&v| v != 0)
}

/// How many rounds a Loop makes, if that is certain before a run.
fn trips(body: &Arc<dyn Body>, limit: Option<Input>, start: Option<Input>) -> Option<u64> {
    if start.is_some() && !truth(start)? {
        return Some(0);
    }
    let limit = limit?.value?.to_i64s().ok()?.first().copied()?;
    let limit = u64::try_from(limit).unwrap_or(0);
    // The first round always happens; later ones only if the body says so.
    if limit <= 1 || goes_on(body) { Some(limit) } else { None }
}

/// Whether the body's condition is certain to hold in every round.
fn goes_on(body: &Arc<dyn Body>) -> bool {
    if let Some(t) = body.constant_output(0) {
        return t.to_i64s().is_ok_and(|v| v.first().is_some_and(|&v| v != 0));
    }
    body.passes_input(0) == Some(1)
}

fn with_dim(fact: &Fact, at: i64, n: Dim) -> Fact {
    let shape = match fact.shape.dims() {
        Some(d) => match axis(at, d.len() + 1) {
            Ok(a) => {
                let mut d = d.to_vec();
                d.insert(a, n);
                Shape::partial(d)
            }
            Err(_) => Shape::UNKNOWN,
        },
        None => Shape::UNKNOWN,
    };
    Fact { shape, ..fact.clone() }
}

impl Scan {
    fn states(&self) -> usize {
        self.body.formals() - self.inputs
    }
    /// Length of the scanned axes, as far as the inputs' shapes tell.
    fn length(&self, shape: &dyn Fn(usize) -> Option<Shape>) -> Dim {
        (0..self.inputs).find_map(|k| {
            let shape = shape(self.states() + k)?;
            shape.dim(axis(self.input_axes[k], shape.rank()?).ok()?)
        })
    }
}

impl Family for Control {
    fn infer(&self, cx: &Infer) -> Result<Vec<Fact>> {
        match self {
            Control::If { then_branch, else_branch } => {
                let (a, b) = (then_branch.output_facts(), else_branch.output_facts());
                for (branch, made) in [("then_branch", a.len()), ("else_branch", b.len())] {
                    if made != cx.outputs {
                        let say = format!("gives {made} results where the node has {}", cx.outputs);
                        return Err(Error::input(say).at_attribute(branch));
                    }
                }
                Ok(match way(cx.opt(0), then_branch, else_branch) {
                    Some(true) => a,
                    Some(false) => b,
                    None => a.iter().zip(&b).map(|(a, b)| either_fact(a, b)).collect(),
                })
            }
            Control::Loop(body) => {
                let n = trips(body, cx.opt(0), cx.opt(1));
                let states = body.formals().saturating_sub(2);
                let made = body.output_facts();
                let mut out = Vec::with_capacity(made.len());
                for (i, fact) in made.iter().skip(1).enumerate() {
                    if i >= states {
                        out.push(with_dim(fact, 0, n.and_then(|n| usize::try_from(n).ok())));
                        continue;
                    }
                    // After no round a state is what it was; after some, what the body makes of it.
                    let before = cx.fact(i + 2)?;
                    let mut fact = fact.clone();
                    if fact.container == Container::Tensor {
                        fact.shape = match n {
                            Some(0) => before.shape.clone(),
                            Some(_) => fact.shape,
                            None => either(&before.shape, &fact.shape),
                        };
                    }
                    fact.dtype = fact.dtype.or(before.dtype);
                    out.push(fact);
                }
                Ok(out)
            }
            Control::Scan(scan) => {
                let n = scan.length(&|i| cx.opt(i).map(|x| x.fact.shape.clone()));
                let made = scan.body.output_facts();
                let (states, scanned) = made.split_at(scan.states().min(made.len()));
                let mut out = Vec::with_capacity(made.len());
                for (i, fact) in states.iter().enumerate() {
                    out.push(Fact { shape: either(&cx.fact(i)?.shape, &fact.shape), ..fact.clone() });
                }
                out.extend(scanned.iter().zip(&scan.output_axes).map(|(f, &a)| with_dim(f, a, n)));
                Ok(out)
            }
        }
    }
    fn charge(&self, cx: &CostCx) -> Charge {
        let parts: Vec<(Charge, Span)> =
            self.bodies().iter().zip(self.rounds(cx)).map(|(body, (_, n))| (body.charge(), n)).collect();
        let exact = parts.iter().map(|(charge, n)| match (charge, n.known()) {
            (_, Some(0)) => Some(Work::NONE),
            (Charge::Known(Work::NONE), _) => Some(Work::NONE),
            (Charge::Known(work), Some(n)) => work.times(n),
            _ => None,
        });
        if let Some(work) = exact.sum::<Option<Work>>() {
            return Charge::Known(work);
        }
        // One branch of an If runs, so equal branches are certain and different ones bound each other.
        if let (Control::If { .. }, [(a, n), (b, _)]) = (self, &parts[..])
            && n.known().is_none()
        {
            return if a == b && a.known().is_some() { *a } else { Charge::Between(a.span().or(b.span())) };
        }
        let span = parts.iter().map(|(charge, n)| charge.span().times(*n)).fold(WorkSpan::NONE, |a, b| a + b);
        Charge::Between(span)
    }
    fn rounds(&self, cx: &CostCx) -> Vec<(&'static str, Span)> {
        let at = |i: usize| cx.inputs.get(i).copied().flatten();
        match self {
            Control::If { then_branch, else_branch } => {
                let taken = |want: bool| match way(at(0), then_branch, else_branch) {
                    Some(condition) => Span::exact(u64::from(condition == want)),
                    None => Span { low: 0, high: Some(1) },
                };
                vec![("else", taken(false)), ("then", taken(true))]
            }
            Control::Loop(body) => {
                let limit = || {
                    let limit = at(0)?.value?.to_i64s().ok()?.first().copied()?;
                    Some(u64::try_from(limit).unwrap_or(0))
                };
                let rounds = match trips(body, at(0), at(1)) {
                    Some(n) => Span::exact(n),
                    None => Span { low: 0, high: limit() },
                };
                vec![("body", rounds)]
            }
            Control::Scan(scan) => {
                let n = scan.length(&|i| at(i).map(|x| x.fact.shape.clone()));
                vec![("body", n.map_or(Span::ANY, |n| Span::exact(n as u64)))]
            }
        }
    }
    fn eval(&self, cx: &EvalCx, inputs: &Inputs) -> Result<Vec<Tensor>> {
        match self {
            Control::If { then_branch, else_branch } => {
                let condition = truth_of(input(inputs, 0)?)?;
                // Captures follow in the order of `bodies`.
                let split = 1 + else_branch.captures();
                let (body, from) = if condition { (then_branch, split) } else { (else_branch, 1) };
                body.eval(cx, &captured(inputs, from, body)?)
            }
            Control::Loop(body) => repeat(cx, body, inputs),
            Control::Scan(scan) => scan.run(cx, inputs),
        }
    }
    fn role(&self, _i: usize) -> Role {
        Role::Data
    }
    fn handles_narrow(&self) -> bool {
        true
    }
    fn bodies(&self) -> Vec<Arc<dyn Body>> {
        match self {
            Control::If { then_branch, else_branch } => vec![else_branch.clone(), then_branch.clone()],
            Control::Loop(body) => vec![body.clone()],
            Control::Scan(scan) => vec![scan.body.clone()],
        }
    }
}

fn truth_of(t: &Tensor) -> Result<bool> {
    match t.to_i64s()?.first() {
        Some(&v) => Ok(v != 0),
        None => Err(Error::input("an empty condition")),
    }
}

/// The captured values of a body, which begin at `from` among a node's inputs.
fn captured(inputs: &Inputs, from: usize, body: &Arc<dyn Body>) -> Result<Vec<Tensor>> {
    (from..from + body.captures()).map(|i| input(inputs, i).cloned()).collect()
}

fn repeat(cx: &EvalCx, body: &Arc<dyn Body>, inputs: &Inputs) -> Result<Vec<Tensor>> {
    let own = body.formals();
    let states = own.saturating_sub(2);
    let limit = opt(inputs, 0).map(Tensor::to_i64s).transpose()?.and_then(|v| v.first().copied());
    let mut go_on = opt(inputs, 1).map(truth_of).transpose()?.unwrap_or(true);
    let mut state: Vec<Tensor> = (2..own).map(|i| input(inputs, i).cloned()).collect::<Result<_>>()?;
    let outer = captured(inputs, own, body)?;
    let facts = body.output_facts();
    let mut scanned: Vec<Vec<Tensor>> = vec![Vec::new(); facts.len().saturating_sub(1 + states)];
    let mut round = 0i64;
    while go_on && limit.is_none_or(|n| round < n) {
        let mut all = vec![Tensor::scalar(round), Tensor::from_bools([true], &[])?];
        all.append(&mut state);
        all.extend(outer.iter().cloned());
        let mut made = body.eval(cx, &all)?.into_iter();
        let short = || Error::run("the body gives too few outputs");
        go_on = truth_of(&made.next().ok_or_else(short)?)?;
        state = made.by_ref().take(states).collect();
        if state.len() != states {
            return Err(short());
        }
        for list in &mut scanned {
            list.push(made.next().ok_or_else(short)?);
        }
        round = round.checked_add(1).ok_or_else(|| Error::run("a loop without end"))?;
    }
    let stacked = scanned.iter().zip(&facts[1 + states..]).map(|(list, fact)| stack(list, 0, fact));
    state.into_iter().map(Ok).chain(stacked).collect()
}

/// Joins one result per round along a new axis; without rounds the fact says what little is known.
fn stack(list: &[Tensor], at: i64, fact: &Fact) -> Result<Tensor> {
    let Some(first) = list.first() else {
        let dims: Vec<usize> = fact.shape.dims().unwrap_or_default().iter().map(|d| d.unwrap_or(0)).collect();
        let mut all = dims;
        let a = axis(at, all.len() + 1)?;
        all.insert(a, 0);
        return Tensor::zeros(fact.dtype.unwrap_or(DType::F32), &all);
    };
    let a = axis(at, first.rank() + 1)?;
    let rows: Vec<Tensor> = list
        .iter()
        .map(|t| {
            let mut dims = t.dims().to_vec();
            if a > dims.len() {
                return Err(Error::run("scanned values of different ranks"));
            }
            dims.insert(a, 1);
            t.reshaped(&dims)
        })
        .collect::<Result<_>>()?;
    concat(&rows.iter().collect::<Vec<_>>(), a)
}

impl Scan {
    fn run(&self, cx: &EvalCx, inputs: &Inputs) -> Result<Vec<Tensor>> {
        let states = self.states();
        let mut state: Vec<Tensor> = (0..states).map(|i| input(inputs, i).cloned()).collect::<Result<_>>()?;
        let scanned: Vec<&Tensor> = (0..self.inputs).map(|k| input(inputs, states + k)).collect::<Result<_>>()?;
        let axes: Vec<usize> =
            scanned.iter().zip(&self.input_axes).map(|(t, &a)| axis(a, t.rank())).collect::<Result<_>>()?;
        let n = scanned.first().zip(axes.first()).map_or(0, |(t, &a)| t.dims()[a]);
        if scanned.iter().zip(&axes).any(|(t, &a)| t.dims()[a] != n) {
            return Err(Error::input("scanned inputs of different lengths"));
        }
        let outer = captured(inputs, states + self.inputs, &self.body)?;
        let facts = self.body.output_facts();
        let mut lists: Vec<Vec<Tensor>> = vec![Vec::new(); facts.len().saturating_sub(states)];
        for round in 0..n {
            let mut all = std::mem::take(&mut state);
            for ((t, &a), &backward) in scanned.iter().zip(&axes).zip(&self.input_backward) {
                all.push(slice(t, a, if backward { n - 1 - round } else { round })?);
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
            out.push(stack(list, self.output_axes[k], &facts[states + k])?);
        }
        Ok(out)
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

/// A body for cases: inputs are passed on, floats doubled by adding them to themselves.
#[derive(Debug)]
struct Doubling {
    /// Facts of the formal inputs.
    formals: Vec<Fact>,
    /// For each output the formal input it comes from, and whether it is doubled.
    outputs: Vec<(usize, bool)>,
    /// Captured values, added after the formal inputs.
    captures: Vec<Fact>,
}

impl Body for Doubling {
    fn formals(&self) -> usize {
        self.formals.len()
    }
    fn captures(&self) -> usize {
        self.captures.len()
    }
    fn output_facts(&self) -> Vec<Fact> {
        let all: Vec<&Fact> = self.formals.iter().chain(&self.captures).collect();
        self.outputs.iter().map(|&(i, _)| all[i].clone()).collect()
    }
    fn charge(&self) -> Charge {
        let facts = self.output_facts();
        let doubled = self.outputs.iter().zip(&facts).filter(|((_, doubled), _)| *doubled);
        let n: Option<u64> = doubled.map(|(_, f)| f.elements().map(|n| n as u64)).sum();
        Charge::of(n.map(crate::cost::Work::other))
    }
    fn eval(&self, cx: &EvalCx, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let add = Op::Binary(super::binary::Binary::Add);
        let one = |&(i, doubled): &(usize, bool)| {
            let x = &inputs[i];
            if doubled { Ok(add.eval(cx, &[Some(x), Some(x)])?.remove(0)) } else { Ok(x.clone()) }
        };
        self.outputs.iter().map(one).collect()
    }
    fn passes_input(&self, i: usize) -> Option<usize> {
        self.outputs.get(i).filter(|o| !o.1).map(|o| o.0)
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

fn cases() -> Vec<Case> {
    let f = sample::floats;
    let fact = |dims: &[usize]| Fact::of(DType::F32, dims);
    let body = |formals: Vec<Fact>, outputs: &[(usize, bool)], captures: Vec<Fact>| {
        Attr::Body(Arc::new(Doubling { formals, outputs: outputs.to_vec(), captures }))
    };
    let bit = |v: bool| Tensor::from_bools([v], &[]).map(Some).unwrap_or_default();
    let round = || vec![Fact::of(DType::I64, &[]), Fact::of(DType::Bool, &[]), fact(&[2, 3])];
    let trip = |n: i64| Some(Tensor::scalar(n));
    let branches = |doubled: bool| {
        [
            ("then_branch", body(vec![], &[(0, doubled)], vec![fact(&[2, 3])])),
            ("else_branch", body(vec![], &[(0, false)], vec![fact(&[4])])),
        ]
    };
    // A node's own inputs only; captured values follow them at run time.
    let own = |mut case: Case, n: usize| {
        case.node.inputs.truncate(n);
        case
    };
    let loops = || [("body", body(round(), &[(1, false), (2, true), (2, false)], vec![]))];
    let scan = |more: &[(&'static str, Attr)]| {
        let formals = vec![fact(&[3]), fact(&[3])];
        let mut attrs = vec![
            ("body", body(formals, &[(0, true), (1, true)], vec![])),
            ("num_scan_inputs", Attr::Int(1)),
        ];
        attrs.extend_from_slice(more);
        attrs
    };
    let one = |v: i64| Attr::Ints(vec![v]);
    let inputs = |d: &[usize]| vec![Some(f(&[3], 1)), Some(f(d, 2))];
    vec![
        own(Case::with_optional("If", &branches(true), vec![bit(true), Some(f(&[4], 1)), Some(f(&[2, 3], 2))], 1), 1),
        own(Case::with_optional("If", &branches(true), vec![bit(false), Some(f(&[4], 1)), Some(f(&[2, 3], 2))], 1), 1),
        Case::with_optional("Loop", &loops(), vec![trip(4), bit(true), Some(f(&[2, 3], 1))], 2),
        Case::with_optional("Loop", &loops(), vec![trip(4), None, Some(f(&[2, 3], 1))], 2),
        Case::with_optional("Loop", &loops(), vec![trip(4), bit(false), Some(f(&[2, 3], 1))], 2),
        Case::with_optional("Loop", &loops(), vec![trip(0), None, Some(f(&[2, 3], 1))], 2),
        Case::with_optional("Scan", &scan(&[]), inputs(&[5, 3]), 2),
        Case::with_optional(
            "Scan",
            &scan(&[("scan_input_axes", one(-1)), ("scan_output_axes", one(1)), ("scan_input_directions", one(1))]),
            inputs(&[3, 4]),
            2,
        ),
        Case::with_optional("Scan", &scan(&[("scan_output_directions", one(1))]), inputs(&[5, 3]), 2),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_condition_or_trip_count_leaves_the_cost_unknown() {
        let of = |case: &Case| Op::parse(&case.node).unwrap();
        let unknown = [None, None, None];
        for case in cases().iter().filter(|c| c.node.op_type != "Scan") {
            let charge = of(case).family().charge(&CostCx { inputs: &unknown, outputs: &[] });
            assert!(matches!(charge, Charge::Between(_)), "{}: {charge:?}", case.node.op_type);
            let bounded = charge.span().other_flops.high.is_some();
            assert_eq!(bounded, case.node.op_type == "If", "one of two branches has a bound, a loop of unknown length none");
        }
    }

    #[test]
    fn an_undecided_if_costs_between_its_branches_and_a_refused_branch_decides_it() {
        let doubled = |n: usize| -> Arc<dyn Body> {
            let outputs = vec![(0, true)];
            Arc::new(Doubling { formals: vec![], outputs, captures: vec![Fact::of(DType::F32, &[n])] })
        };
        let cx = CostCx { inputs: &[None], outputs: &[] };
        let undecided = Control::If { then_branch: doubled(3), else_branch: doubled(5) };
        assert_eq!(undecided.charge(&cx).span().other_flops, Span { low: 3, high: Some(5) });
        let refused = Arc::new(Refused { error: Error::input("does not fit"), outputs: 1 });
        let decided = Control::If { then_branch: doubled(3), else_branch: refused };
        assert_eq!(decided.charge(&cx), Charge::Known(Work::other(3)));
        assert_eq!(decided.rounds(&cx), [("else", Span::exact(0)), ("then", Span::exact(1))]);
    }

    #[test]
    fn a_scan_backward_gives_its_outputs_in_reverse() {
        let case = &cases()[8];
        let inputs: Vec<Option<&Tensor>> = case.inputs.iter().map(Option::as_ref).collect();
        let y = Op::parse(&case.node).unwrap().eval(&EvalCx { outputs: 2, ..EvalCx::default() }, &inputs).unwrap();
        let (x, y) = (case.inputs[1].as_ref().unwrap().to_f64s().unwrap(), y[1].to_f64s().unwrap());
        assert_eq!(y[..3], [2.0 * x[12], 2.0 * x[13], 2.0 * x[14]]);
    }
}
