//! Walks the operator table: on every case of every operator the shape rule must equal what the reference kernel makes, and the
//! cost rule must equal what the counting number saw. An operator without cases is a failure.

use madd_prof::ops::{Case, Charge, CostCx, EvalCx, Infer, Input, Op, TABLE};
use madd_prof::tensor::{Arith, Fact, Tensor, tallied};

fn check(case: &Case) -> Result<(), String> {
    let say = |e: madd_prof::error::Error| e.to_string();
    let op = Op::parse(&case.node).map_err(say)?;
    let outputs = case.node.outputs.len();
    let facts: Vec<Option<Fact>> = case.inputs.iter().map(|t| t.as_ref().map(Tensor::fact)).collect();
    let seen: Vec<Option<Input>> =
        facts.iter().zip(&case.inputs).map(|(f, t)| f.as_ref().map(|fact| Input { fact, value: t.as_ref() })).collect();
    let inferred = op.family().infer(&Infer { inputs: &seen, outputs }).map_err(say)?;
    let inputs: Vec<Option<&Tensor>> = case.inputs.iter().map(Option::as_ref).collect();
    let cx = EvalCx { arith: Arith::Native, outputs, ..EvalCx::default() };
    let made = op.eval(&cx, &inputs).map_err(say)?;
    let mut out_facts = Vec::new();
    for (i, name) in case.node.outputs.iter().enumerate() {
        if name.is_empty() {
            out_facts.push(None);
            continue;
        }
        let (fact, t) = (
            inferred.get(i).ok_or("the shape rule gives too few outputs")?,
            made.get(i).ok_or("eval gives too few outputs")?,
        );
        let t = t.fact();
        if fact.dtype != t.dtype || fact.container != t.container {
            return Err(format!("output {i}: inferred {fact}, made {t}"));
        }
        if let (Some(want), Some(got)) = (fact.shape.dims(), t.shape.dims())
            && (want.len() != got.len() || want.iter().zip(got).any(|(w, g)| w.is_some() && w != g))
        {
            return Err(format!("output {i}: inferred {fact}, made {t}"));
        }
        out_facts.push(Some(t));
    }
    // Cost: with the shapes that were really made, counted must equal formula.
    let out_refs: Vec<Option<&Fact>> = out_facts.iter().map(Option::as_ref).collect();
    let charge = op.family().charge(&CostCx { inputs: &seen, outputs: &out_refs });
    let counting = EvalCx { arith: Arith::Counting, ..cx };
    let (counted, tally) = tallied(|| op.eval(&counting, &inputs));
    counted.map_err(say)?;
    match charge {
        Charge::Unknown => {}
        Charge::Between(span) if span.madds.holds(tally.madds) && span.other_flops.holds(tally.other) => {}
        Charge::Between(span) => return Err(format!("the rule says {span:?}, counted {tally:?}")),
        Charge::Known(work) if (work.madds, work.other_flops) == (tally.madds, tally.other) => {}
        Charge::Known(work) => return Err(format!("the rule says {work:?}, counted {tally:?}")),
    }
    Ok(())
}

#[test]
fn every_operator_proves_its_shape_and_cost_rules() {
    let mut wrong = Vec::new();
    for entry in TABLE.iter() {
        let cases = (entry.cases)();
        let mut own = 0;
        for (i, case) in cases.iter().enumerate() {
            if case.node.op_type != entry.name || case.node.domain != entry.domain {
                continue;
            }
            own += 1;
            if let Err(why) = check(case) {
                wrong.push(format!("{} case {i} {:?}: {why}", entry.name, case.node.attrs));
            }
        }
        if own == 0 {
            wrong.push(format!("{} has no case", entry.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_table_has_each_operator_once() {
    let mut names: Vec<_> = TABLE.iter().map(|e| (e.domain, e.name)).collect();
    let n = names.len();
    names.dedup();
    assert_eq!(n, names.len());
}
