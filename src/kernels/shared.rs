//! Packed weights that several models use: the widths of one network.
//!
//! A narrower model's weights are the leading channels of a wider one's, and packed they are the leading rows of the leading panels: the
//! same memory serves both. Each width's normalisation is folded in, so the packed values of the wider are those of the narrower
//! times a factor per output channel, which is applied to the products while they are near (`sweep.rs`); where all factors are 1 nothing is.
//!
//! Nothing is taken on trust: a part is used only where its values are those of the whole.

use super::sweep::Pair;
use crate::simd::Isa;
use crate::tensor::{Pages, Tensor};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Factors beyond which a layer is packed by itself: what they undo might have left the range of `f32`.
const LARGEST_FACTOR: f32 = 1e6;

/// What sessions opened with the same set share. The first to pack a weight makes it for all that are narrower; it lives as long
/// as one of them.
#[derive(Debug, Default)]
pub struct WeightSet {
    wholes: Mutex<HashMap<(String, Form), Weak<Whole>>>,
}

/// How weights are packed: what differs in it cannot be shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Form {
    pub isa: Isa,
    /// Side of Winograd's output tiles; 0 for weights as they are.
    pub winograd: usize,
    /// Rows of a panel per channel.
    pub taps: usize,
}

/// A convolution's weights as a member of a set.
#[derive(Debug, Clone)]
pub struct Share {
    /// The set.
    pub set: Arc<WeightSet>,
    /// What the weights are called in it.
    pub name: String,
    /// The weights before anything was folded in, `[oc, ic, ..]`.
    pub stored: Tensor,
    /// What was folded in, a factor per output channel; 1 if nothing was.
    pub scale: Option<Vec<f32>>,
}

/// Weights packed for the widest user so far.
#[derive(Debug)]
pub(super) struct Whole {
    stored: Tensor,
    scale: Option<Vec<f32>>,
    wei: Arc<Pages>,
    pairs: Vec<Pair>,
}

/// A whole and what its products are to be multiplied with, by output channel.
pub(super) struct Lead {
    whole: Arc<Whole>,
    factors: Vec<f32>,
}

impl Share {
    fn key(&self, form: Form) -> (String, Form) {
        (self.name.clone(), form)
    }

    /// What these weights are a part of, if somebody has packed it in this form.
    pub(super) fn lead(&self, form: Form) -> Option<Lead> {
        let wholes = self.set.wholes.lock().unwrap_or_else(PoisonError::into_inner);
        let whole = wholes.get(&self.key(form))?.upgrade()?;
        drop(wholes);
        let (&[oc, ic, ref window @ ..], &[all_oc, all_ic, ref all_window @ ..]) =
            (self.stored.dims(), whole.stored.dims())
        else {
            return None;
        };
        // Rows of a window's taps come by blocks of channels: only whole blocks lead.
        let leads = ic == all_ic || form.taps == 1 || ic.is_multiple_of(form.isa.lanes());
        (window == all_window && oc <= all_oc && ic <= all_ic && leads).then_some(())?;
        let (part, all) = (self.stored.view::<f32>().ok()?, whole.stored.view::<f32>().ok()?);
        let taps: usize = window.iter().product();
        (oc * ic * taps > 0).then_some(())?;
        let mut rows = part.chunks_exact(ic * taps).zip(all.chunks_exact(all_ic * taps));
        rows.all(|(p, a)| p == &a[..ic * taps]).then_some(())?;
        let factor = |c: usize| {
            let of = |scale: &Option<Vec<f32>>| scale.as_ref().map_or(Some(1.0), |s| s.get(c).copied());
            let (mine, folded) = (of(&self.scale)?, of(&whole.scale)?);
            let factor = if mine == folded { 1.0 } else { mine / folded };
            (factor.abs() <= LARGEST_FACTOR).then_some(factor)
        };
        let factors = (0..oc).map(factor).collect::<Option<Vec<f32>>>()?;
        Some(Lead { whole, factors })
    }

    /// Weights packed here, for narrower users to come.
    fn keep(&self, form: Form, wei: Arc<Pages>, pairs: Vec<Pair>) -> Arc<Whole> {
        let whole = Arc::new(Whole { stored: self.stored.clone(), scale: self.scale.clone(), wei, pairs });
        let mut wholes = self.set.wholes.lock().unwrap_or_else(PoisonError::into_inner);
        let place = wholes.entry(self.key(form)).or_default();
        // A narrower one that could not use a wider one's does not take its place.
        if place.upgrade().is_none_or(|old| old.stored.len() < whole.stored.len()) {
            *place = Arc::downgrade(&whole);
        }
        whole
    }
}

impl Lead {
    /// Where each of a narrower user's pairs of output blocks lies in the whole. The last may be one half of a pair there: it is then the
    /// user's own. Gives the values of those, of which `len` tells each one's.
    pub fn place(&self, pairs: &mut [Pair], len: impl Fn(&Pair) -> usize) -> usize {
        let mut own = 0;
        for p in pairs {
            match self.whole.pairs.iter().find(|w| (w.block, w.nb) == (p.block, p.nb)) {
                Some(w) => p.wei = w.wei,
                None => {
                    (p.own, p.wei) = (true, own);
                    own += len(p);
                }
            }
        }
        own
    }

    /// The factors in whole blocks, 1 where a pair is the user's own; `None` where there is nothing to multiply.
    fn factors(&self, pairs: &[Pair], lanes: usize) -> Option<Pages> {
        let (channels, blocks) = (self.factors.len(), self.factors.len().div_ceil(lanes));
        let mut padded = Pages::part(blocks * lanes);
        padded[..channels].copy_from_slice(&self.factors);
        for p in pairs.iter().filter(|p| p.own) {
            padded[p.block * lanes..][..p.nb * lanes].fill(1.0);
        }
        padded[..channels].iter().any(|&f| f != 1.0).then_some(padded)
    }
}

/// Packed weights of one kernel: its own, or the leading part of a wider one's.
#[derive(Debug, Clone)]
pub(super) struct Packed {
    wei: Arc<Pages>,
    /// What it is in its set, for others to find as long as it is used.
    _whole: Option<Arc<Whole>>,
    lent: bool,
    own: Pages,
    factors: Option<Pages>,
}

impl Packed {
    /// All its own; a share lets others find it.
    pub fn whole(wei: Pages, pairs: &[Pair], share: Option<(&Share, Form)>) -> Packed {
        let wei = Arc::new(wei);
        let _whole = share.map(|(share, form)| share.keep(form, wei.clone(), pairs.to_vec()));
        Packed { wei, _whole, lent: false, own: Pages::default(), factors: None }
    }

    /// A wider one's, but for the pairs in `own`.
    pub fn lent(lead: Lead, own: Pages, pairs: &[Pair], lanes: usize) -> Packed {
        let factors = lead.factors(pairs, lanes);
        Packed { wei: lead.whole.wei.clone(), _whole: Some(lead.whole), lent: true, own, factors }
    }

    /// Weights of all pairs that are not its own.
    pub fn wei(&self) -> &[f32] {
        &self.wei
    }

    /// The same, where nobody else uses them.
    pub fn wei_mut(&mut self) -> Option<&mut [f32]> {
        Arc::get_mut(&mut self.wei).map(|wei| &mut wei[..])
    }

    /// Weights of the pairs that are.
    pub fn own(&self) -> &[f32] {
        &self.own
    }

    /// What products are multiplied with, by output channel in whole blocks.
    pub fn factors(&self) -> Option<&[f32]> {
        self.factors.as_deref()
    }

    /// Whether a wider one has packed them.
    pub fn is_lent(&self) -> bool {
        self.lent
    }

    /// Bytes that nobody wider holds already.
    pub fn bytes(&self) -> usize {
        let wei = if self.lent { 0 } else { self.wei.len() };
        4 * (wei + self.own.len() + self.factors().map_or(0, <[f32]>::len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::pool::Pool;
    use crate::kernels::Act;
    use crate::kernels::conv_blocked::{Conv, ConvShape, SrcLayout};
    use crate::kernels::testing::{blocked, close, guarded, in_file, isas, plain, values};
    use crate::kernels::winograd::Winograd;

    /// A width of a 3-D set of weights: its share, and what it would pack by itself.
    fn width(
        set: &Arc<WeightSet>,
        all: &[f32],
        (ic, wide_ic): (usize, usize),
        oc: usize,
        taps: usize,
        seed: u64,
    ) -> (Share, Vec<f32>) {
        let rows = all.chunks_exact(wide_ic * taps).take(oc);
        let stored: Vec<f32> = rows.flat_map(|row| row[..ic * taps].to_vec()).collect();
        let scale: Vec<f32> = values(oc, seed).iter().map(|v| v + 1.5).collect();
        let folded =
            stored.chunks_exact(ic * taps).zip(&scale).flat_map(|(r, s)| r.iter().map(move |w| w * s)).collect();
        let stored = Tensor::from_vec(stored, &[oc, ic, taps]).unwrap();
        (Share { set: set.clone(), name: "w".into(), stored, scale: Some(scale) }, folded)
    }

    /// A kernel of either algorithm; its result in plain layout, and its bytes.
    fn run(
        isa: Isa,
        s: &ConvShape,
        winograd: usize,
        w: &[f32],
        share: Option<&Share>,
        act: Act,
        sum: bool,
    ) -> (Vec<f32>, usize) {
        let (l, px) = (isa.lanes(), s.oh() * s.ow());
        let (x, bias, r) = (values(s.ic * s.ih * s.iw, 5), values(s.oc, 6), values(s.oc * px, 7));
        let src = blocked(&x, 1, s.ic, s.ih * s.iw, l, f32::NAN);
        let r = blocked(&r, 1, s.oc, px, l, 0.0);
        let r = sum.then_some(&r[..]);
        let pool = Pool::new(2);
        let (got, bytes) = if winograd > 0 {
            let conv = Winograd::sharing(isa, *s, winograd, in_file(w)[..].into(), Some(&bias), share);
            (guarded(s.dst_len(l), |d| conv.run(&pool, &src, r, act, d)), conv.packed_bytes())
        } else {
            let conv = Conv::sharing(isa, *s, SrcLayout::Blocked, in_file(w)[..].into(), Some(&bias), share);
            (guarded(s.dst_len(l), |d| conv.run(&pool, &src, r, act, d)), conv.packed_bytes())
        };
        assert!(got.iter().all(|v| v.is_finite()), "lanes beyond the last channel too");
        (plain(&got, 1, s.oc, px, l), bytes)
    }

    #[test]
    fn a_narrower_convolution_on_the_widers_weights_gives_its_own_result_and_packs_half_a_pair_at_most() {
        for (k, stride, winograd) in [(1, 1, 0), (1, 2, 0), (3, 1, 0), (3, 2, 0), (3, 1, 2), (3, 1, 4)] {
            for isa in isas() {
                let l = isa.lanes();
                let (wide_ic, wide_oc) = (6 * l, 8 * l);
                let all: Vec<f32> = values(wide_oc * wide_ic * k * k, 1).iter().map(|v| v * 0.1).collect();
                let set = Arc::new(WeightSet::default());
                let shape = |ic, oc| ConvShape::square(ic, 9, oc, k, stride, k / 2);
                let (wide, folded) = width(&set, &all, (wide_ic, wide_ic), wide_oc, k * k, 2);
                let s = shape(wide_ic, wide_oc);
                let keep_alive =
                    Conv::sharing(isa, s, SrcLayout::Blocked, in_file(&folded)[..].into(), None, Some(&wide));
                let wino = (winograd > 0)
                    .then(|| Winograd::sharing(isa, s, winograd, in_file(&folded)[..].into(), None, Some(&wide)));
                // Whole pairs; half a pair at the end; a number of channels that is no whole block.
                for (i, (ic, oc)) in
                    [(4 * l, 6 * l), (2 * l, 3 * l), (wide_ic, 5 * l), (2 * l, 4 * l - 2)].into_iter().enumerate()
                {
                    let (share, folded) = width(&set, &all, (ic, wide_ic), oc, k * k, 3 + i as u64);
                    let s = shape(ic, oc);
                    for (act, sum) in
                        [(Act::None, false), (Act::Clip { lo: 0.0, hi: 0.6 }, true), (Act::HardSwish, true)]
                    {
                        let what = format!("{isa} {s:?} winograd {winograd} {act:?}");
                        let (want, alone) = run(isa, &s, winograd, &folded, None, act, sum);
                        let (got, shared) = run(isa, &s, winograd, &folded, Some(&share), act, sum);
                        // Both round, each in its own way, and F(4×4) the most.
                        close(&got, &want, if winograd == 4 { 1e-4 } else { 2e-5 }, &what);
                        let last = if (oc.div_ceil(l)) % 2 == 1 { l * ic } else { 0 };
                        let points = if winograd > 0 { (winograd + 2).pow(2) } else { k * k };
                        let vectors = 2 * oc.next_multiple_of(2 * l);
                        assert!(
                            shared <= 4 * (last * points + vectors) && shared < alone,
                            "{what}: {shared} of {alone}"
                        );
                    }
                }
                drop((keep_alive, wino));
                let (share, _) = width(&set, &all, (2 * l, wide_ic), 2 * l, k * k, 9);
                let form = Form { isa, winograd, taps: if winograd > 0 { 1 } else { k * k } };
                assert!(share.lead(form).is_none(), "nobody holds them any more");
            }
        }
    }

    #[test]
    fn what_is_no_leading_part_is_packed_by_itself() {
        let isa = Isa::best();
        let l = isa.lanes();
        let set = Arc::new(WeightSet::default());
        let all = values(4 * l * 4 * l * 9, 1);
        let (wide, folded) = width(&set, &all, (4 * l, 4 * l), 4 * l, 9, 2);
        let s = ConvShape::square(4 * l, 8, 4 * l, 3, 1, 1);
        let _wide = Conv::sharing(isa, s, SrcLayout::Blocked, in_file(&folded)[..].into(), None, Some(&wide));
        let form = Form { isa, winograd: 0, taps: 9 };
        let part = |ic: usize| width(&set, &all, (ic, 4 * l), 2 * l, 9, 3).0;
        let lead = |share: Share| share.lead(form).is_some();
        assert!(lead(part(2 * l)));
        assert!(!lead(part(2 * l - 1)), "rows of a window's taps lie by blocks");
        assert!(!lead(Share { name: "v".into(), ..part(2 * l) }));
        let mut other = part(2 * l).stored.view::<f32>().unwrap().into_owned();
        other[5] += 1.0;
        assert!(!lead(Share { stored: Tensor::from_vec(other, &[2 * l, 2 * l, 9]).unwrap(), ..part(2 * l) }));
        let mut scale = vec![1.0; 2 * l];
        scale[3] = 1e30;
        assert!(!lead(Share { scale: Some(scale), ..part(2 * l) }), "a factor out of range");
        assert!(!lead(Share { scale: Some(vec![1.0]), ..part(2 * l) }), "a factor for every channel");
        assert!(part(2 * l).lead(Form { taps: 1, ..form }).is_none(), "another form");
        // A narrower one does not take the wider one's place; a wider one does.
        let narrow = part(l);
        let kept = narrow.keep(form, Arc::default(), Vec::new());
        assert!(lead(part(2 * l)));
        drop(kept);
        // Equal factors: the same weights, nothing to multiply.
        let same = Share { scale: wide.scale.as_ref().map(|s| s[..2 * l].to_vec()), ..part(2 * l) };
        let mut pairs = [Pair { block: 0, nb: 2, icb: (0, 2), c_last: l, wei: 7, own: false }];
        let found = same.lead(form).unwrap();
        assert_eq!((found.place(&mut pairs, |_| 1), pairs[0].wei, pairs[0].own), (0, 0, false));
        assert!(Packed::lent(found, Pages::default(), &pairs, l).factors().is_none());
    }
}
