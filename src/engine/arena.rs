//! One allocation for all activations: offsets from lifetimes, disjoint borrows at run time.
//!
//! Values that are never alive together share memory. Placement is best fit by decreasing size over the intervals, which comes
//! close to the liveness bound. Borrows are split off the one slice in address order, so disjointness is checked, not assumed.

use crate::tensor::Pages;
use std::ops::Range;

/// A buffer to place: its size and the steps during which it is alive (both ends included).
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// Number of `f32` values.
    pub len: usize,
    /// Step that writes it.
    pub first: usize,
    /// Last step that reads it.
    pub last: usize,
}

/// Values per cache line; buffers start on a line.
const LINE: usize = 16;

/// Steps of a stretch.
const STRETCH: usize = 64;

/// Offsets (in values) for the requests, and the total size.
pub fn place(requests: &[Request]) -> (Vec<usize>, usize) {
    let mut order: Vec<usize> = (0..requests.len()).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(requests[i].len), requests[i].first));
    let mut offsets = vec![0; requests.len()];
    // Placed buffers by the stretches of steps they are alive in, so that a long graph does not look at all of them for each.
    let stretch = |r: &Request| r.first / STRETCH..=r.last.max(r.first) / STRETCH;
    let stretches = requests.iter().map(|r| stretch(r).end() + 1).max().unwrap_or(0);
    let mut placed: Vec<Vec<usize>> = vec![Vec::new(); stretches];
    let mut total = 0;
    for i in order {
        let r = requests[i];
        let len = r.len.next_multiple_of(LINE);
        // What is alive at the same time, by address; the smallest gap that fits wins. One may come up several times.
        let mut taken: Vec<Range<usize>> = placed[stretch(&r)]
            .iter()
            .flatten()
            .filter(|&&j| requests[j].first <= r.last && r.first <= requests[j].last)
            .map(|&j| offsets[j]..offsets[j] + requests[j].len.next_multiple_of(LINE))
            .collect();
        taken.sort_by_key(|t| t.start);
        let mut at = 0;
        let mut best: Option<(usize, usize)> = None;
        for t in &taken {
            if t.start >= at + len && best.is_none_or(|(gap, _)| t.start - at < gap) {
                best = Some((t.start - at, at));
            }
            at = at.max(t.end);
        }
        offsets[i] = best.map_or(at, |(_, at)| at);
        total = total.max(offsets[i] + len);
        placed[stretch(&r)].iter_mut().for_each(|p| p.push(i));
    }
    (offsets, total)
}

/// Bytes alive during each of `steps` steps. What is alive after the last one (results) is alive in it.
pub fn alive(requests: &[Request], steps: usize) -> Vec<u64> {
    let mut change = vec![0i64; steps + 1];
    for r in requests.iter().filter(|_| steps > 0) {
        let bytes = (r.len.next_multiple_of(LINE) * 4) as i64;
        change[r.first.min(steps - 1)] += bytes;
        change[(r.last + 1).clamp(1, steps)] -= bytes;
    }
    let running = change.iter().scan(0i64, |sum, c| {
        *sum += c;
        Some(u64::try_from(*sum).unwrap_or(0))
    });
    running.take(steps).collect()
}

/// The memory.
pub struct Arena {
    memory: Pages,
}

impl Arena {
    /// `len` values, starting on a cache line.
    pub fn new(len: usize) -> Arena {
        Arena { memory: Pages::zeros(len) }
    }
    /// Size in bytes.
    pub fn bytes(&self) -> u64 {
        (self.memory.len() * 4) as u64
    }
    /// Sets every value.
    pub fn fill(&mut self, value: f32) {
        self.memory.fill(value);
    }
    /// One range, to read.
    pub fn slice(&self, range: Range<usize>) -> &[f32] {
        &self.memory[range]
    }
    /// Splits the memory into the given ranges, which must not overlap and must be in address order; `give` gets them in that order.
    ///
    /// # Panics
    /// If ranges overlap: a defect of the plan.
    pub fn split<'a>(&'a mut self, ranges: &[Range<usize>], mut give: impl FnMut(&'a mut [f32])) {
        let mut rest: &'a mut [f32] = &mut self.memory[..];
        let mut at = 0;
        for r in ranges {
            assert!(r.start >= at, "the plan lets two buffers overlap");
            let (_, tail) = rest.split_at_mut(r.start - at);
            let (piece, tail) = tail.split_at_mut(r.end - r.start);
            give(piece);
            rest = tail;
            at = r.end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_alive_together_never_overlap_and_a_chain_needs_two() {
        let chain: Vec<Request> = (0..200).map(|i| Request { len: 100, first: i, last: i + 1 }).collect();
        let (offsets, total) = place(&chain);
        assert_eq!(total, 2 * 112);
        for i in 0..199 {
            assert_ne!(offsets[i], offsets[i + 1]);
        }
        let live = alive(&chain, 200);
        assert!(live[1..].iter().all(|&b| b == 2 * 112 * 4) && live[0] == 112 * 4, "{live:?}");
        assert_eq!(alive(&chain[..1], 0), [0u64; 0]);
        let mixed: Vec<Request> =
            (0..40).map(|i| Request { len: 1 + i * 37 % 200, first: i * 13 % 30, last: i * 13 % 30 + i % 7 }).collect();
        let (offsets, _) = place(&mixed);
        for i in 0..40 {
            for j in 0..i {
                let (a, b) = (mixed[i], mixed[j]);
                let together = a.first <= b.last && b.first <= a.last;
                let apart = offsets[i] + a.len <= offsets[j] || offsets[j] + b.len <= offsets[i];
                assert!(!together || apart);
            }
        }
    }

    #[test]
    fn pieces_are_what_was_asked_for() {
        let mut a = Arena::new(64);
        let mut pieces = Vec::new();
        a.split(&[4..8, 8..12, 40..64], |p| pieces.push(p));
        assert_eq!(pieces.iter().map(|p| p.len()).collect::<Vec<_>>(), [4, 4, 24]);
    }
}
