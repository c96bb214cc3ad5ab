//! Fused operators as what they fuse: a short list of operators, wired by operand, that stands for one node.
//!
//! Exporters and optimizers fuse operators and name the result anew. A recipe keeps such a node's meaning in the operators it was
//! made of, so its shapes, its costs and its results are theirs by construction: a network costs the same, fused or not.

use super::spec::{Attr, NodeSpec};
use super::{Charge, CostCx, EvalCx, Family, Infer, Input, Inputs, NEWEST_OPSET, Op, Role};
use crate::cost::Work;
use crate::error::{Error, Result};
use crate::tensor::{Fact, Tensor};

/// An operand or result.
#[derive(Debug, Clone)]
pub enum Ref {
    /// Input of the fused node.
    Input(usize),
    /// Output of an earlier step: (step, output).
    Made(usize, usize),
    /// A constant.
    Constant(Tensor),
}

#[derive(Debug, Clone)]
struct Step {
    op: Op,
    operands: Vec<Option<Ref>>,
    outputs: usize,
}

/// What a fused operator stands for.
#[derive(Debug, Clone, Default)]
pub struct Recipe {
    steps: Vec<Step>,
    results: Vec<Ref>,
    roles: Vec<(usize, Role)>,
}

/// Values with more elements than this are not computed while shapes are inferred.
const SMALL: usize = 1 << 10;

/// What is known of the values of a recipe: each step's outputs, with their values where they are small and certain.
type Known = Vec<Vec<(Fact, Option<Tensor>)>>;

impl Recipe {
    /// No steps yet.
    pub fn new() -> Recipe {
        Recipe::default()
    }

    /// Adds an operator; gives its first output.
    pub fn op(&mut self, op: Op, operands: Vec<Option<Ref>>, outputs: usize) -> Ref {
        self.steps.push(Step { op, operands, outputs });
        Ref::Made(self.steps.len() - 1, 0)
    }

    /// Adds an operator of `ai.onnx` by name; gives its first output.
    ///
    /// # Errors
    /// If it does not take these attributes or operands.
    pub fn node(&mut self, op_type: &str, attrs: &[(&str, Attr)], operands: &[Option<Ref>]) -> Result<Ref> {
        self.node_of("", op_type, attrs, operands, 1)
    }

    /// Adds an operator of any domain by name; gives its first output.
    ///
    /// # Errors
    /// If it does not take these attributes or operands.
    pub fn node_of(
        &mut self,
        domain: &str,
        op_type: &str,
        attrs: &[(&str, Attr)],
        operands: &[Option<Ref>],
        outputs: usize,
    ) -> Result<Ref> {
        self.versioned((domain, op_type, NEWEST_OPSET), attrs, operands, outputs)
    }

    /// Adds a (domain, operator, opset version); gives its first output. Omitted operands at the end are left out.
    ///
    /// # Errors
    /// If it does not take these attributes or operands.
    pub fn versioned(
        &mut self,
        (domain, op_type, opset): (&str, &str, i64),
        attrs: &[(&str, Attr)],
        operands: &[Option<Ref>],
        outputs: usize,
    ) -> Result<Ref> {
        let given = operands.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
        let operands = &operands[..given];
        let spec = NodeSpec {
            op_type: op_type.into(),
            domain: domain.into(),
            inputs: operands.iter().map(|o| if o.is_some() { "x".into() } else { String::new() }).collect(),
            outputs: (0..outputs).map(|i| format!("y{i}")).collect(),
            attrs: attrs.iter().map(|(k, v)| (k.to_string(), v.clone())).collect(),
            opset,
            ..NodeSpec::default()
        };
        Ok(self.op(Op::parse(&spec)?, operands.to_vec(), outputs))
    }

    /// Another output of the step that made `first`.
    pub fn also(first: &Ref, output: usize) -> Ref {
        match first {
            Ref::Made(step, _) => Ref::Made(*step, output),
            other => other.clone(),
        }
    }

    /// The results of the fused node, in order.
    #[must_use]
    pub fn give(mut self, results: Vec<Ref>) -> Recipe {
        self.results = results;
        self
    }

    /// Says what input `i` is, where the steps that read it do not (a bias that meets an Add).
    #[must_use]
    pub fn with_role(mut self, i: usize, role: Role) -> Recipe {
        self.roles.push((i, role));
        self
    }

    /// Its operators with their operands, in order.
    pub fn steps(&self) -> impl Iterator<Item = (&Op, &[Option<Ref>])> {
        self.steps.iter().map(|s| (&s.op, s.operands.as_slice()))
    }

    fn known(&self, given: &[Option<Input>]) -> Result<Known> {
        let mut made: Known = Vec::with_capacity(self.steps.len());
        for step in &self.steps {
            let facts: Vec<Option<(Fact, Option<Tensor>)>> =
                step.operands.iter().map(|o| o.as_ref().and_then(|o| look(o, given, &made))).collect();
            let inputs = seen(&facts);
            let family = step.op.family();
            let mut values = family.fold(&inputs).map(|t| vec![t]);
            let out = family.infer(&Infer { inputs: &inputs, outputs: step.outputs })?;
            let small = |f: &Fact| f.elements().is_some_and(|n| n <= SMALL);
            let certain = inputs.iter().flatten().all(|i| i.value.is_some_and(|t| t.len() <= SMALL));
            if values.is_none() && certain && out.iter().all(small) && !family.is_random() {
                let inputs: Vec<Option<&Tensor>> = inputs.iter().map(|i| i.and_then(|i| i.value)).collect();
                values = Some(step.op.eval(&EvalCx { outputs: step.outputs, ..EvalCx::default() }, &inputs)?);
            }
            let mut values = values.unwrap_or_default().into_iter();
            made.push(out.into_iter().map(|f| (f, values.next())).collect());
        }
        Ok(made)
    }
}

fn look(r: &Ref, given: &[Option<Input>], made: &Known) -> Option<(Fact, Option<Tensor>)> {
    match r {
        Ref::Input(i) => given.get(*i).copied().flatten().map(|x| (x.fact.clone(), x.value.cloned())),
        Ref::Made(step, output) => made.get(*step)?.get(*output).cloned(),
        Ref::Constant(t) => Some((t.fact(), Some(t.clone()))),
    }
}

fn seen(facts: &[Option<(Fact, Option<Tensor>)>]) -> Vec<Option<Input<'_>>> {
    facts.iter().map(|f| f.as_ref().map(|(fact, value)| Input { fact, value: value.as_ref() })).collect()
}

impl Family for Recipe {
    fn infer(&self, cx: &Infer) -> Result<Vec<Fact>> {
        let made = self.known(cx.inputs)?;
        let results = self.results.iter().take(cx.outputs.max(1));
        results
            .map(|r| look(r, cx.inputs, &made).map(|f| f.0).ok_or_else(|| Error::input("an input is missing")))
            .collect()
    }

    fn charge(&self, cx: &CostCx) -> Charge {
        let Ok(made) = self.known(cx.inputs) else { return Charge::Unknown };
        let mut total = Work::NONE;
        for (i, step) in self.steps.iter().enumerate() {
            let facts: Vec<Option<(Fact, Option<Tensor>)>> =
                step.operands.iter().map(|o| o.as_ref().and_then(|o| look(o, cx.inputs, &made))).collect();
            let outputs: Vec<Option<&Fact>> = made[i].iter().map(|f| Some(&f.0)).collect();
            let work = step.op.family().charge(&CostCx { inputs: &seen(&facts), outputs: &outputs }).known();
            match work {
                Some(work) => total = total + work,
                None => return Charge::Unknown,
            }
        }
        Charge::Known(total)
    }

    fn eval(&self, cx: &EvalCx, inputs: &Inputs) -> Result<Vec<Tensor>> {
        let mut made: Vec<Vec<Tensor>> = Vec::with_capacity(self.steps.len());
        for step in &self.steps {
            let get = |r: &Ref| -> Result<Tensor> {
                match r {
                    Ref::Input(i) => super::input(inputs, *i).cloned(),
                    Ref::Made(s, o) => made.get(*s).and_then(|m| m.get(*o)).cloned().ok_or_else(missing),
                    Ref::Constant(t) => Ok(t.clone()),
                }
            };
            let operands: Vec<Option<Tensor>> =
                step.operands.iter().map(|o| o.as_ref().map(get).transpose()).collect::<Result<_>>()?;
            let operands: Vec<Option<&Tensor>> = operands.iter().map(Option::as_ref).collect();
            made.push(step.op.eval(&EvalCx { outputs: step.outputs, ..*cx }, &operands)?);
        }
        let results = self.results.iter().take(cx.outputs.max(1));
        results
            .map(|r| match r {
                Ref::Input(i) => super::input(inputs, *i).cloned(),
                Ref::Made(s, o) => made.get(*s).and_then(|m| m.get(*o)).cloned().ok_or_else(missing),
                Ref::Constant(t) => Ok(t.clone()),
            })
            .collect()
    }

    fn role(&self, i: usize) -> Role {
        if let Some((_, role)) = self.roles.iter().find(|r| r.0 == i) {
            return *role;
        }
        let uses = self.steps.iter().flat_map(|s| s.operands.iter().enumerate().map(move |(k, o)| (s, k, o)));
        let mut roles =
            uses.filter(|(_, _, o)| matches!(o, Some(Ref::Input(n)) if *n == i)).map(|(s, k, _)| s.op.family().role(k));
        roles.next().unwrap_or(Role::Data)
    }
}

fn missing() -> Error {
    Error::run("a step of a fused operator lacks an operand")
}
