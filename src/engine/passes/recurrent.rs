//! Recurrent layers with constant weights and the usual activations.

use super::{Item, Walk, Work};
use crate::ir::{Node, NodeId, ValueId};
use crate::kernels::recurrent::Gates;
use crate::kernels::{Kind, Recurrent};
use crate::ops::rnn::{Activation, Cell, Direction, Rnn};

impl Walk<'_> {
    pub(super) fn recurrent(&self, id: NodeId, node: &Node, op: &Rnn) -> Option<Item> {
        let input = |i: usize| node.inputs.get(i).copied().flatten();
        let x = input(0).filter(|x| !self.is_static(*x))?;
        let &[steps, batch, size] = &self.dims(x)?[..] else { return None };
        let (gates, usual): (Gates, &[Activation]) = match op.cell {
            Cell::Lstm { input_forget: false } => {
                (Gates::Lstm, &[Activation::Sigmoid, Activation::Tanh, Activation::Tanh])
            }
            Cell::Gru { linear_before_reset } => {
                (Gates::Gru { late: linear_before_reset }, &[Activation::Sigmoid, Activation::Tanh])
            }
            Cell::Rnn => (Gates::Plain, &[Activation::Tanh]),
            Cell::Lstm { .. } => return None,
        };
        let plain = op.clip.is_none() && !op.batch_first && op.activations.iter().all(|a| a == usual);
        if !plain || input(7).is_some() {
            return None;
        }
        // Lengths that cut nothing off may be given.
        if let Some(lengths) = input(4) {
            self.value(lengths)?.to_i64s().ok()?.iter().all(|&l| l == steps as i64).then_some(())?;
        }
        let constant = |i: usize| self.value(input(i)?).filter(|_| input(i).is_some_and(|v| self.is_static(v)));
        let (w, r) = (constant(1)?.clone(), constant(2)?.clone());
        let bias = match input(3) {
            None => None,
            Some(b) => Some(self.floats(b).filter(|_| self.is_static(b))?),
        };
        let &[all, _, hidden] = r.dims() else { return None };
        let reverse = match op.direction {
            Direction::Forward => vec![false],
            Direction::Reverse => vec![true],
            Direction::Bidirectional => vec![false, true],
        };
        let fits = all == reverse.len() && w.dims() == [all, gates.count() * hidden, size];
        fits.then_some(())?;
        let mut srcs = vec![x];
        let mut first = |i: usize| -> Option<Option<usize>> {
            let Some(v) = input(i) else { return Some(None) };
            (self.dims(v)? == [all, batch, hidden]).then(|| {
                srcs.push(v);
                Some(srcs.len() - 1)
            })
        };
        let (first_state, first_cell) = (first(5)?, first(6)?);
        let mut dsts: Vec<ValueId> = Vec::new();
        let mut results = [None; 3];
        for (to, out) in results.iter_mut().zip(&node.outputs) {
            if let Some(v) = out {
                self.dims(*v)?;
                *to = Some(dsts.len());
                dsts.push(*v);
            }
        }
        if dsts.is_empty() {
            return None;
        }
        let task = Recurrent {
            gates,
            steps,
            batch,
            input: size,
            hidden,
            reverse,
            w,
            r,
            bias,
            first_state,
            first_cell,
            results,
        };
        Some(Item { work: Work::Kernel(Box::new(Kind::Recurrent(task))), covers: vec![id], srcs, dsts })
    }
}
