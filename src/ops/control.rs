//! If, Loop: operators that run subgraphs.
//!
//! <https://onnx.ai/onnx/operators/onnx__If.html>, <https://onnx.ai/onnx/operators/onnx__Loop.html>.
//!
//! Cost: what the subgraphs cost. If: the branch taken when the condition is a constant, else between the cheaper and the dearer
//! branch. Loop: the body times the trip count, when that is a constant and the body never stops early; else between none and as
//! many rounds as the trip count allows. A node's inputs are followed by the values its bodies capture, body by body.
//!
//! A loop may be endless. One without a trip count (or with one above [`MOST_ROUNDS`], as exporters write for "as long as it
//! takes") ends in an error after that many rounds, those of loops within it included, or when what it collects exceeds
//! [`MOST_BYTES`].

use super::concat::concat;
use super::dims::{axis, either, either_fact};
use super::spec::{Attr, NodeSpec};
use super::{Body, Case, Charge, CostCx, Entry, EvalCx, Family, Infer, Input, Inputs, Op, Role, input, opt, sample};
use crate::cost::{Span, Work, WorkSpan};
use crate::error::{Error, Result};
use crate::tensor::{Container, DType, Dim, Fact, Shape, Tensor};
use std::any::Any;
use std::cell::Cell;
use std::sync::Arc;

/// The family's table rows.
pub const ENTRIES: &[Entry] = &[
    Entry { domain: "", name: "If", parse: Control::branch, cases },
    Entry { domain: "", name: "Loop", parse: Control::repeat, cases },
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
}

/// A branch that contradicts the shapes at hand: it can only be the one not taken. Some models hold a branch per sampling rate or
/// image size.
#[derive(Debug)]
pub struct Refused {
    /// Why.
    pub error: Error,
    /// The branch, built without knowing shapes: it holds weights all the same.
    pub body: Arc<dyn Body>,
}

impl Body for Refused {
    fn formals(&self) -> usize {
        self.body.formals()
    }
    fn captures(&self) -> usize {
        self.body.captures()
    }
    fn output_facts(&self) -> Vec<Fact> {
        self.body.output_facts()
    }
    fn charge(&self) -> Charge {
        Charge::FREE
    }
    fn eval(&self, _cx: &EvalCx, _inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        Err(self
            .error
            .clone()
            .hint("the input that decides between the branches took this one: fix it with --value NAME=V or --input"))
    }
    fn refusal(&self) -> Option<&Error> {
        Some(&self.error)
    }
    fn as_any(&self) -> &dyn Any {
        self.body.as_any()
    }
}

/// Which way an If goes, if that is certain: its condition is known, or one branch cannot run.
fn way(condition: Option<Input>, then_branch: &Arc<dyn Body>, else_branch: &Arc<dyn Body>) -> Option<bool> {
    let refused = |b: &Arc<dyn Body>| b.refusal().is_some();
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

pub(super) fn with_dim(fact: &Fact, at: i64, n: Dim) -> Fact {
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
        }
    }
    fn charge(&self, cx: &CostCx) -> Charge {
        let parts = parts(self, cx);
        // One branch of an If runs, so equal branches are certain and different ones bound each other.
        if let (Control::If { .. }, [(a, n), (b, _)]) = (self, &parts[..])
            && n.known().is_none()
        {
            return if a == b && a.known().is_some() { *a } else { Charge::Between(a.span().or(b.span())) };
        }
        together(&parts)
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
        }
    }
}

/// What each body of a node costs and how often it runs.
fn parts(op: &dyn Family, cx: &CostCx) -> Vec<(Charge, Span)> {
    op.bodies().iter().zip(op.rounds(cx)).map(|(body, (_, n))| (body.charge(), n)).collect()
}

/// The cost of bodies that each run so many times.
fn together(parts: &[(Charge, Span)]) -> Charge {
    let exact = parts.iter().map(|(charge, n)| match (charge, n.known()) {
        (_, Some(0)) => Some(Work::NONE),
        (Charge::Known(Work::NONE), _) => Some(Work::NONE),
        (Charge::Known(work), Some(n)) => work.times(n),
        _ => None,
    });
    if let Some(work) = exact.sum::<Option<Work>>() {
        return Charge::Known(work);
    }
    Charge::Between(parts.iter().map(|(charge, n)| charge.span().times(*n)).fold(WorkSpan::NONE, |a, b| a + b))
}

/// The cost of a node whose bodies all run, as often as it says.
pub(super) fn charge_of_bodies(op: &dyn Family, cx: &CostCx) -> Charge {
    together(&parts(op, cx))
}

fn truth_of(t: &Tensor) -> Result<bool> {
    match t.to_i64s()?.first() {
        Some(&v) => Ok(v != 0),
        None => Err(Error::input("an empty condition")),
    }
}

/// The captured values of a body, which begin at `from` among a node's inputs.
pub(super) fn captured(inputs: &Inputs, from: usize, body: &Arc<dyn Body>) -> Result<Vec<Tensor>> {
    (from..from + body.captures()).map(|i| input(inputs, i).cloned()).collect()
}

/// Rounds after which a loop without a trip count is taken for endless.
pub const MOST_ROUNDS: i64 = 1 << 22;
/// Bytes that such a loop may collect.
pub const MOST_BYTES: u64 = 1 << 32;

thread_local! {
    /// Loops under way, one within the other, and rounds without a trip count since the outermost of them began.
    static NESTED: Cell<(usize, i64)> = const { Cell::new((0, 0)) };
}

/// Ends a loop that would not end.
struct Guard {
    on: bool,
    bytes: u64,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let (loops, rounds) = NESTED.get();
        NESTED.set((loops.saturating_sub(1), rounds));
    }
}

impl Guard {
    fn new(on: bool) -> Guard {
        let (loops, rounds) = NESTED.get();
        NESTED.set((loops + 1, if loops == 0 { 0 } else { rounds }));
        Guard { on, bytes: 0 }
    }
    fn round(&self) -> Result<()> {
        if self.on {
            let (loops, rounds) = NESTED.get();
            NESTED.set((loops, rounds + 1));
            if rounds >= MOST_ROUNDS {
                return Err(Error::run(format!("a loop without a trip count did not end within {MOST_ROUNDS} rounds"))
                    .hint("give it a trip count, or a condition that becomes false"));
            }
        }
        Ok(())
    }
    fn collect(&mut self, t: &Tensor) -> Result<()> {
        // A string or sequence counts as a word per element; every tensor has a header.
        let bytes = t.dtype().bytes_of(t.len()).unwrap_or(t.len().saturating_mul(8)) as u64;
        self.bytes = self.bytes.saturating_add(bytes).saturating_add(64);
        if self.on && self.bytes > MOST_BYTES {
            return Err(Error::run(format!("a loop without a trip count collected more than {MOST_BYTES} bytes")));
        }
        Ok(())
    }
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
    let mut guard = Guard::new(limit.is_none_or(|n| n > MOST_ROUNDS));
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
            let t = made.next().ok_or_else(short)?;
            guard.collect(&t)?;
            list.push(t);
        }
        guard.round()?;
        round += 1;
    }
    let stacked = scanned.iter().zip(&facts[1 + states..]).map(|(list, fact)| stack(list, 0, fact));
    state.into_iter().map(Ok).chain(stacked).collect()
}

/// Joins one result per round along a new axis; without rounds the fact says what little is known.
pub(super) fn stack(list: &[Tensor], at: i64, fact: &Fact) -> Result<Tensor> {
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

/// A body for cases: inputs are passed on, floats doubled by adding them to themselves.
#[derive(Debug)]
pub(super) struct Doubling {
    /// Facts of the formal inputs.
    pub(super) formals: Vec<Fact>,
    /// For each output the formal input it comes from, and whether it is doubled.
    pub(super) outputs: Vec<(usize, bool)>,
    /// Captured values, added after the formal inputs.
    pub(super) captures: Vec<Fact>,
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
    vec![
        own(Case::with_optional("If", &branches(true), vec![bit(true), Some(f(&[4], 1)), Some(f(&[2, 3], 2))], 1), 1),
        own(Case::with_optional("If", &branches(true), vec![bit(false), Some(f(&[4], 1)), Some(f(&[2, 3], 2))], 1), 1),
        Case::with_optional("Loop", &loops(), vec![trip(4), bit(true), Some(f(&[2, 3], 1))], 2),
        Case::with_optional("Loop", &loops(), vec![trip(4), None, Some(f(&[2, 3], 1))], 2),
        Case::with_optional("Loop", &loops(), vec![trip(4), bit(false), Some(f(&[2, 3], 1))], 2),
        Case::with_optional("Loop", &loops(), vec![trip(0), None, Some(f(&[2, 3], 1))], 2),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_condition_or_trip_count_leaves_the_cost_unknown() {
        let of = |case: &Case| Op::parse(&case.node).unwrap();
        let unknown = [None, None, None];
        for case in &cases() {
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
        let refused = Arc::new(Refused { error: Error::input("does not fit"), body: doubled(9) });
        let decided = Control::If { then_branch: doubled(3), else_branch: refused };
        assert_eq!(decided.charge(&cx), Charge::Known(Work::other(3)));
        assert_eq!(decided.rounds(&cx), [("else", Span::exact(0)), ("then", Span::exact(1))]);
    }

    #[test]
    fn an_endless_loop_ends_in_an_error() {
        let state = Fact::of(DType::F32, &[]);
        let formals = vec![Fact::of(DType::I64, &[]), Fact::of(DType::Bool, &[]), state];
        let body: Arc<dyn Body> = Arc::new(Doubling { formals, outputs: vec![(1, false), (2, false)], captures: vec![] });
        let x = Tensor::scalar(1f32);
        for limit in [None, Some(Tensor::scalar(i64::MAX))] {
            let why = Control::Loop(body.clone()).eval(&EvalCx::default(), &[limit.as_ref(), None, Some(&x)]).unwrap_err();
            assert!(why.to_string().contains("did not end"), "{why}");
        }
    }
}
