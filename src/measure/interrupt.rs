//! Being asked to stop: sampling ends after the run it is in, and what was measured so far is told.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

static SAMPLING: AtomicUsize = AtomicUsize::new(0);
static ASKED: AtomicBool = AtomicBool::new(false);

/// Asks for an early end. Whether there is anything that will come to one: sampling that has not been asked before.
pub fn ask() -> bool {
    SAMPLING.load(Ordering::SeqCst) > 0 && !ASKED.swap(true, Ordering::SeqCst)
}

/// Whether an early end was asked for.
pub fn asked() -> bool {
    ASKED.load(Ordering::SeqCst)
}

/// Says that sampling goes on, until dropped.
pub(super) struct Sampling;

impl Sampling {
    pub(super) fn begin() -> Sampling {
        SAMPLING.fetch_add(1, Ordering::SeqCst);
        Sampling
    }
}

impl Drop for Sampling {
    fn drop(&mut self) {
        SAMPLING.fetch_sub(1, Ordering::SeqCst);
    }
}
