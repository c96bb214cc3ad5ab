//! The operands of a step in memory: found apart once, when memory is placed, and borrowed at every run without allocating.

use super::arena::Arena;
use crate::error::{Error, Result};
use std::ops::Range;

/// Operands of one step, kept on the stack unless there are very many.
pub(super) type Few<T> = smallvec::SmallVec<[T; 8]>;

/// The memory a step touches: pieces of the arena, apart from each other and in address order, and where in them its operands lie.
#[derive(Debug, Default)]
pub(super) struct Operands {
    pieces: Vec<Range<usize>>,
    /// For each piece: the result it is, if it is not only read.
    writes: Vec<Option<usize>>,
    /// For each operand: its piece and its part of it, if it is in the arena.
    reads: Vec<Option<(usize, Range<usize>)>>,
}

impl Operands {
    /// Of a step that reads some ranges of the arena (`None`: an operand elsewhere) and writes others.
    ///
    /// # Errors
    /// If a step would overwrite what it reads, or write the same place twice.
    pub(super) fn of(reads: &[Option<Range<usize>>], writes: &[Range<usize>]) -> Result<Operands> {
        // Operands may lie inside each other (a part of a join and the join): those are one piece.
        let mut read: Vec<Range<usize>> = reads.iter().flatten().cloned().collect();
        read.sort_by_key(|r| (r.start, r.end));
        let mut all: Vec<(Range<usize>, Option<usize>)> = Vec::new();
        for r in read {
            match all.last_mut() {
                Some((last, _)) if r.start < last.end => last.end = last.end.max(r.end),
                _ => all.push((r, None)),
            }
        }
        all.extend(writes.iter().cloned().enumerate().map(|(i, r)| (r, Some(i))));
        all.sort_by_key(|(r, _)| (r.start, r.end));
        if all.windows(2).any(|w| w[1].0.start < w[0].0.end) {
            return Err(Error::run("a step would overwrite what it reads (a defect of madd-prof)"));
        }
        let place = |r: &Range<usize>| {
            let inside = |(piece, w): &(Range<usize>, Option<usize>)| {
                w.is_none() && piece.start <= r.start && r.end <= piece.end
            };
            let i = all.iter().position(inside)?;
            Some((i, r.start - all[i].0.start..r.end - all[i].0.start))
        };
        let reads = reads.iter().map(|r| r.as_ref().and_then(place)).collect();
        let (pieces, writes) = all.into_iter().unzip();
        Ok(Operands { pieces, writes, reads })
    }

    /// Calls `run` with the operands, in order, and the results. `elsewhere` gives those that are not in the arena.
    pub(super) fn with<'h>(
        &self,
        arena: &mut Arena,
        elsewhere: impl Fn(usize) -> &'h [f32],
        run: impl FnOnce(&[&[f32]], &mut [&mut [f32]]),
    ) {
        let mut out: Few<(usize, &mut [f32])> = Few::new();
        let mut read: Few<&[f32]> = Few::new();
        let mut writes = self.writes.iter();
        arena.split(&self.pieces, |piece| match writes.next() {
            Some(&Some(i)) => {
                out.push((i, piece));
                read.push(&[]);
            }
            _ => read.push(piece),
        });
        out.sort_by_key(|(i, _)| *i);
        let mut out: Few<&mut [f32]> = out.into_iter().map(|(_, p)| p).collect();
        let srcs: Few<&[f32]> = (self.reads.iter().enumerate())
            .map(|(i, at)| match at {
                Some((piece, part)) => &read[*piece][part.clone()],
                None => elsewhere(i),
            })
            .collect();
        run(&srcs, &mut out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operands_may_share_memory_with_each_other_but_not_with_results() {
        let mut arena = Arena::new(100);
        let reads = [Some(40..60), None, Some(10..20), Some(45..50), Some(40..60)];
        let o = Operands::of(&reads, &[60..70, 0..10]).unwrap();
        o.with(
            &mut arena,
            |_| &[7.0],
            |srcs, dsts| {
                assert_eq!(srcs.iter().map(|s| s.len()).collect::<Vec<_>>(), [20, 1, 10, 5, 20]);
                assert_eq!(srcs[1], [7.0]);
                dsts[0].fill(1.0);
                dsts[1].fill(2.0);
            },
        );
        assert_eq!(arena.slice(59..61), [0.0, 1.0]);
        assert_eq!(arena.slice(9..11), [2.0, 0.0]);
        assert!(Operands::of(&reads, &[0..5, 55..65]).is_err());
        assert!(Operands::of(&[], &[0..5, 4..8]).is_err());
    }
}
