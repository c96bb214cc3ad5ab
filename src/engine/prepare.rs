//! Makes the kernels of a plan ready, side by side: packing and transforming weights is most of what loading a model costs.

use super::Options;
use crate::error::{Error, Result};
use crate::kernels::{Entry, Kind, Layout, Packs, Prepared, Task};
use crate::machine::host;
use crate::tensor::Tensor;
use std::borrow::Borrow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// A step whose kernel is chosen but not made ready.
pub(super) struct Waiting {
    pub(super) entry: &'static Entry,
    pub(super) kind: Kind,
    pub(super) srcs: Vec<Vec<usize>>,
    pub(super) layouts: Vec<Layout>,
    pub(super) dsts: Vec<Vec<usize>>,
}

impl Waiting {
    fn prepare(&self, options: &Options, packs: &Packs) -> Result<Box<dyn Prepared>> {
        let Waiting { entry, kind, srcs, layouts, dsts } = self;
        (entry.prepare)(&Task {
            kind,
            srcs,
            layouts,
            dsts,
            isa: options.isa,
            threads: options.threads.max(1),
            winograd: options.winograd,
            strassen: options.strassen,
            packs: Some(packs),
        })
    }

    /// Bytes of its constant operands, as they are in the model, that are not kept packed: what making it ready takes time for.
    pub(super) fn unpacked(&self, options: &Options) -> usize {
        let kept = |t: &&Tensor| options.kept.as_ref().is_some_and(|k| k.knows(t));
        self.kind.constants().iter().filter(|t| !kept(t)).filter_map(|t| t.dtype().bytes_of(t.len())).sum()
    }
}

/// All of them, in order. Those that are given away go with their unpacked weights as they are done.
pub(super) fn all<W: Borrow<Waiting> + Send>(waiting: Vec<W>, options: &Options) -> Vec<Result<Box<dyn Prepared>>> {
    let slots: Vec<Mutex<Option<W>>> = waiting.into_iter().map(|w| Mutex::new(Some(w))).collect();
    let packs = Packs::new(options.kept.clone());
    let next = AtomicUsize::new(0);
    let work = || {
        let mut made = Vec::new();
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            let Some(slot) = slots.get(i) else { return made };
            if let Some(w) = slot.lock().unwrap_or_else(PoisonError::into_inner).take() {
                made.push((i, w.borrow().prepare(options, &packs)));
            }
        }
    };
    // Loading is not what `--threads` is about: whatever cores there are.
    let helpers = host::cores().min(slots.len()).saturating_sub(1);
    let made = std::thread::scope(|scope| {
        let handles: Vec<_> =
            (0..helpers).map_while(|_| std::thread::Builder::new().spawn_scoped(scope, work).ok()).collect();
        let mut made = work();
        for handle in handles {
            match handle.join() {
                Ok(more) => made.extend(more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        made
    });
    let mut all: Vec<Result<Box<dyn Prepared>>> =
        slots.iter().map(|_| Err(Error::run("a kernel that was not made ready"))).collect();
    for (i, result) in made {
        all[i] = result;
    }
    all
}
