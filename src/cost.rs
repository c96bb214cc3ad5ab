//! What a node costs on paper: exact, checked integers. Unknown is a state of its own, never zero.

use std::iter::Sum;
use std::ops::Add;

/// Arithmetic of one node.
///
/// *MAdds* are multiply-adds (MACs) of the matrix core: convolutions, matrix products, recurrent steps, attention.
/// *Other FLOPs* are all other floating-point operations, at the per-element costs documented with each operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Work {
    /// Multiply-adds; padded windows are counted in full, as papers do.
    pub madds: u64,
    /// Floating-point operations that are not multiply-adds of the matrix core.
    pub other_flops: u64,
    /// MAdds whose operand is not padding; equal to `madds` where nothing is padded.
    pub useful_madds: u64,
}

impl Work {
    /// No arithmetic at all: data movement, integer arithmetic.
    pub const NONE: Work = Work { madds: 0, other_flops: 0, useful_madds: 0 };

    /// `madds` without padding.
    pub fn madds(madds: u64) -> Work {
        Work { madds, other_flops: 0, useful_madds: madds }
    }
    /// `other_flops` alone.
    pub fn other(other_flops: u64) -> Work {
        Work { other_flops, ..Work::NONE }
    }
    /// The same MAdds with further other FLOPs.
    pub fn and_other(self, other_flops: u64) -> Work {
        Work { other_flops: self.other_flops.saturating_add(other_flops), ..self }
    }
    /// FLOPs: `2·madds + other_flops`.
    pub fn flops(&self) -> u64 {
        self.madds.saturating_mul(2).saturating_add(self.other_flops)
    }
    /// Everything `n` times; `None` on overflow.
    pub fn times(self, n: u64) -> Option<Work> {
        Some(Work {
            madds: self.madds.checked_mul(n)?,
            other_flops: self.other_flops.checked_mul(n)?,
            useful_madds: self.useful_madds.checked_mul(n)?,
        })
    }
}

impl Add for Work {
    type Output = Work;
    fn add(self, o: Work) -> Work {
        // Totals beyond u64 do not occur for graphs that fit an address space; saturating keeps the promise of no panic.
        Work {
            madds: self.madds.saturating_add(o.madds),
            other_flops: self.other_flops.saturating_add(o.other_flops),
            useful_madds: self.useful_madds.saturating_add(o.useful_madds),
        }
    }
}

/// What is known of a count: at least `low`, at most `high`. Exact where the two are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The least it can be.
    pub low: u64,
    /// The most it can be; `None` where nothing bounds it.
    pub high: Option<u64>,
}

impl Span {
    /// Nothing at all, exactly.
    pub const ZERO: Span = Span::exact(0);
    /// Anything.
    pub const ANY: Span = Span { low: 0, high: None };

    /// Exactly `n`.
    pub const fn exact(n: u64) -> Span {
        Span { low: n, high: Some(n) }
    }
    /// Whether `n` lies within.
    pub fn holds(self, n: u64) -> bool {
        self.low <= n && self.high.is_none_or(|high| n <= high)
    }
    /// The count, where it is known.
    pub fn known(self) -> Option<u64> {
        self.high.filter(|&h| h == self.low)
    }
    /// What holds of either of two counts.
    pub fn or(self, o: Span) -> Span {
        Span { low: self.low.min(o.low), high: self.high.zip(o.high).map(|(a, b)| a.max(b)) }
    }
    /// The product of two counts.
    pub fn times(self, o: Span) -> Span {
        // Nothing times anything is nothing, also where the other has no bound.
        let high = match (self.high, o.high) {
            (Some(0), _) | (_, Some(0)) => Some(0),
            (a, b) => a.zip(b).and_then(|(a, b)| a.checked_mul(b)),
        };
        Span { low: self.low.saturating_mul(o.low), high }
    }
}

impl Add for Span {
    type Output = Span;
    fn add(self, o: Span) -> Span {
        Span { low: self.low.saturating_add(o.low), high: self.high.zip(o.high).and_then(|(a, b)| a.checked_add(b)) }
    }
}

/// Arithmetic that is known in part: an If before it is taken, a loop of unknown length, an operator without a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkSpan {
    /// Multiply-adds.
    pub madds: Span,
    /// Other floating-point operations.
    pub other_flops: Span,
}

impl Default for WorkSpan {
    fn default() -> WorkSpan {
        WorkSpan::NONE
    }
}

impl WorkSpan {
    /// No arithmetic.
    pub const NONE: WorkSpan = WorkSpan { madds: Span::ZERO, other_flops: Span::ZERO };
    /// Any amount of both.
    pub const ANY: WorkSpan = WorkSpan { madds: Span::ANY, other_flops: Span::ANY };

    /// Known arithmetic.
    pub fn exact(work: Work) -> WorkSpan {
        WorkSpan { madds: Span::exact(work.madds), other_flops: Span::exact(work.other_flops) }
    }
    /// FLOPs: `2·madds + other_flops`.
    pub fn flops(&self) -> Span {
        self.madds.times(Span::exact(2)) + self.other_flops
    }
    /// Whether both are known.
    pub fn is_exact(&self) -> bool {
        self.madds.known().is_some() && self.other_flops.known().is_some()
    }
    /// What holds of either of two.
    #[must_use]
    pub fn or(self, o: WorkSpan) -> WorkSpan {
        WorkSpan { madds: self.madds.or(o.madds), other_flops: self.other_flops.or(o.other_flops) }
    }
    /// Everything `n` times.
    #[must_use]
    pub fn times(self, n: Span) -> WorkSpan {
        WorkSpan { madds: self.madds.times(n), other_flops: self.other_flops.times(n) }
    }
}

impl Add for WorkSpan {
    type Output = WorkSpan;
    fn add(self, o: WorkSpan) -> WorkSpan {
        WorkSpan { madds: self.madds + o.madds, other_flops: self.other_flops + o.other_flops }
    }
}

impl Sum for Work {
    fn sum<I: Iterator<Item = Work>>(iter: I) -> Work {
        iter.fold(Work::NONE, Add::add)
    }
}

/// Compulsory memory traffic of one node in bytes: each operand read once, each result written once, at its dtype's width.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Learned elements and other constants read.
    pub weight_bytes: u64,
    /// Activations read.
    pub read_bytes: u64,
    /// Results written.
    pub write_bytes: u64,
}

impl Traffic {
    /// All bytes moved.
    pub fn total(&self) -> u64 {
        self.weight_bytes.saturating_add(self.read_bytes).saturating_add(self.write_bytes)
    }
}

impl Add for Traffic {
    type Output = Traffic;
    fn add(self, o: Traffic) -> Traffic {
        Traffic {
            weight_bytes: self.weight_bytes.saturating_add(o.weight_bytes),
            read_bytes: self.read_bytes.saturating_add(o.read_bytes),
            write_bytes: self.write_bytes.saturating_add(o.write_bytes),
        }
    }
}

/// The product of factors as an exact integer; `None` on overflow.
pub fn product<I: IntoIterator<Item = usize>>(factors: I) -> Option<u64> {
    let mut any_zero = false;
    let mut n: Option<u64> = Some(1);
    for f in factors {
        any_zero |= f == 0;
        n = n.and_then(|n| n.checked_mul(f as u64));
    }
    if any_zero { Some(0) } else { n }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flops_are_twice_the_madds_plus_the_rest() {
        let w = Work::madds(10).and_other(3);
        assert_eq!(w.flops(), 23);
        assert_eq!((w + w).flops(), 46);
        assert_eq!(w.times(u64::MAX), None);
        assert_eq!(product([usize::MAX, usize::MAX, 0]), Some(0));
        assert_eq!(product([usize::MAX, usize::MAX]), None);
    }

    #[test]
    fn spans_hold_whatever_is_inside() {
        let (a, b) = (Span { low: 2, high: Some(5) }, Span { low: 1, high: None });
        assert_eq!(a + b, Span { low: 3, high: None });
        assert_eq!(a.or(Span::exact(7)), Span { low: 2, high: Some(7) });
        assert_eq!(Span::exact(3).times(Span { low: 0, high: Some(2) }), Span { low: 0, high: Some(6) });
        assert_eq!(Span::ZERO.times(Span::ANY), Span::ZERO);
        assert_eq!(Span::exact(u64::MAX).times(Span::exact(2)).high, None);
        assert_eq!((a.known(), Span::exact(4).known()), (None, Some(4)));
    }
}
