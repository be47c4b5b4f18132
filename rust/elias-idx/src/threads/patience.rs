//! Waiting for another thread without sleeping, for a while.

use std::hint;
use std::thread;
use std::time::{Duration, Instant};

/// The time of waiting in which nobody else gets the CPU: less than going to sleep and waking up take.
const SPIN: Duration = Duration::from_micros(20);
/// The time of waiting after which it is better to sleep: a leader's own step between two shared loops
/// takes less.
const LIMIT: Duration = Duration::from_micros(200);
/// Turns of the loop between two looks at the clock.
const TURNS: usize = 8;

/// How long a thread has been waiting.
pub(super) struct Patience {
    start: Instant,
}

impl Patience {
    pub(super) fn new() -> Self {
        Self { start: Instant::now() }
    }

    /// Waits a moment; false when it is time to sleep instead.
    pub(super) fn wait(&self) -> bool {
        // A model has no time.
        if cfg!(loom) {
            return false;
        }
        for _ in 0..TURNS {
            hint::spin_loop();
        }
        let waited = self.start.elapsed();
        if waited > SPIN {
            thread::yield_now();
        }
        waited < LIMIT
    }
}
