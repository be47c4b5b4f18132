//! Whether to go on: the calling thread asks its caller now and then, and tells the others.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A caller's hook: true asks the search to stop. Only the calling thread calls it.
pub(crate) type Hook<'a> = &'a mut dyn FnMut() -> bool;

/// The time between two calls of the hook.
const INTERVAL: Duration = Duration::from_millis(50);

/// One thread's view of whether the search goes on.
pub(crate) struct Pulse<'a> {
    stop: &'a AtomicBool,
    hook: Option<(Hook<'a>, Instant)>,
}

impl<'a> Pulse<'a> {
    /// The calling thread's, which asks `hook` and sets `stop`.
    pub(crate) fn leader(stop: &'a AtomicBool, hook: Hook<'a>) -> Self {
        Self { stop, hook: Some((hook, Instant::now())) }
    }

    /// Another thread's, which only looks at `stop`.
    pub(crate) fn follower(stop: &'a AtomicBool) -> Self {
        Self { stop, hook: None }
    }

    /// Whether the search is to stop. Once it is, the hook isn't asked again.
    #[inline]
    pub(crate) fn stopped(&mut self) -> bool {
        if self.stop.load(Ordering::Relaxed) {
            return true;
        }
        let Some((hook, last)) = &mut self.hook else { return false };
        if last.elapsed() < INTERVAL {
            return false;
        }
        *last = Instant::now();
        let stop = hook();
        if stop {
            self.stop.store(true, Ordering::Relaxed);
        }
        stop
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn the_hook_is_asked_now_and_then_and_others_hear_of_it() {
        let stop = AtomicBool::new(false);
        let mut calls = 0;
        let mut hook = || {
            calls += 1;
            calls == 2
        };
        let start = Instant::now();
        let mut leader = Pulse::leader(&stop, &mut hook);
        let mut follower = Pulse::follower(&stop);
        while !leader.stopped() {
            assert!(!follower.stopped());
        }
        assert!(start.elapsed() >= 2 * INTERVAL);
        assert!(follower.stopped());
        assert_eq!(calls, 2);
    }

    #[test]
    fn the_hook_is_not_asked_again_once_it_said_stop() {
        let stop = AtomicBool::new(false);
        let mut calls = 0;
        let mut hook = || {
            calls += 1;
            calls == 1
        };
        let mut leader = Pulse::leader(&stop, &mut hook);
        for _ in 0..3 {
            thread::sleep(INTERVAL);
            assert!(leader.stopped());
        }
        assert_eq!(calls, 1);
    }
}
