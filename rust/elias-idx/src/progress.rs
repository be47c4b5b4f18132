//! How far a long piece of work has come.

use std::sync::atomic::{AtomicUsize, Ordering};

/// How far a piece of work has come, to be looked at from its hook.
#[derive(Debug, Default)]
pub struct Progress {
    done: AtomicUsize,
    total: AtomicUsize,
}

impl Progress {
    /// The share of the work that is done, from 0 to 1.
    #[must_use]
    pub fn share(&self) -> f64 {
        let total = self.total.load(Ordering::Relaxed).max(1);
        self.done.load(Ordering::Relaxed) as f64 / total as f64
    }

    /// Says how much there is to do.
    pub(crate) fn start(&self, total: usize) {
        self.total.store(total, Ordering::Relaxed);
    }

    /// Counts what was done.
    pub(crate) fn add(&self, amount: usize) {
        self.done.fetch_add(amount, Ordering::Relaxed);
    }
}
