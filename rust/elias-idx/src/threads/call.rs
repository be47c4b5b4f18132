//! What is to be done, as its leader describes it to its helpers.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use super::cpus::Affinity;
use super::guard;
use super::pulse::Pulse;
use crate::error::Error;
use crate::sync::atomic::AtomicUsize;
use crate::sync::thread::{self, Thread};

/// A worker's part: its number and its view of whether to go on.
pub(super) type Work<'a> = dyn Fn(usize, &mut Pulse<'_>) + Sync + 'a;

/// One piece of shared work; it lives on its leader's stack.
pub(super) struct Call<'a> {
    work: &'a Work<'a>,
    stop: &'a AtomicBool,
    /// The first panic.
    panic: OnceLock<Error>,
    /// Helpers that have begun.
    num_joined: AtomicUsize,
    /// Helpers that have ended. This is the last that a helper touches: the call may be gone right after.
    pub(super) num_ended: AtomicUsize,
    /// The thread to wake then.
    pub(super) leader: Thread,
    /// The leader's.
    pub(super) affinity: Affinity,
}

impl<'a> Call<'a> {
    pub(super) fn new(work: &'a Work<'a>, stop: &'a AtomicBool, affinity: Affinity) -> Self {
        Self {
            work,
            stop,
            panic: OnceLock::new(),
            num_joined: AtomicUsize::new(0),
            num_ended: AtomicUsize::new(0),
            leader: thread::current(),
            affinity,
        }
    }

    /// Does one worker's part; a panic in it stops the others.
    pub(super) fn take_part(&self, worker: usize, pulse: &mut Pulse<'_>) {
        if let Err(panic) = guard(|| (self.work)(worker, pulse)) {
            self.fail(panic);
        }
    }

    /// Stops all workers because of a panic; the first one is told of.
    pub(super) fn fail(&self, panic: Error) {
        self.stop();
        let _ = self.panic.set(panic);
    }

    /// A helper's part.
    pub(super) fn help(&self) {
        let worker = self.num_joined.fetch_add(1, Ordering::Relaxed) + 1;
        self.take_part(worker, &mut Pulse::follower(self.stop));
    }

    /// Whether `num_helpers` have ended; what they wrote can be read then.
    pub(super) fn has_ended(&self, num_helpers: usize) -> bool {
        self.num_ended.load(Ordering::Acquire) >= num_helpers
    }

    /// Asks all workers to stop.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// The first panic, when all have ended.
    pub(super) fn into_panic(self) -> Option<Error> {
        self.panic.into_inner()
    }
}
