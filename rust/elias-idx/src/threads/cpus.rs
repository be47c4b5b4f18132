//! The CPUs that a thread may use: how many, and which.

use std::cell::Cell;
use std::thread;
use std::time::{Duration, Instant};

/// How long a count is used: counting reads the affinity and, on Linux, files about cgroups, which takes
/// a while next to one query.
const VALID: Duration = Duration::from_secs(1);

thread_local! {
    // Each thread has an affinity of its own.
    static COUNTED: Cell<Option<(Instant, Cpus)>> = const { Cell::new(None) };
}

/// CPUs that a thread may use.
#[derive(Clone, Copy)]
pub(super) struct Cpus {
    /// How many: those of its affinity, or the cgroup's quota where that is less.
    pub(super) number: usize,
    /// Which.
    pub(super) affinity: Affinity,
}

impl Cpus {
    /// Those of the calling thread, as they were a second ago at most.
    pub(super) fn of_this_thread() -> Self {
        if let Some((counted, cpus)) = COUNTED.get()
            && counted.elapsed() < VALID
        {
            return cpus;
        }
        let number = thread::available_parallelism().map_or(1, usize::from);
        let cpus = Self { number, affinity: Affinity::of_this_thread() };
        COUNTED.set(Some((Instant::now(), cpus)));
        cpus
    }
}

/// The CPUs that the system may run a thread on; nothing on systems without such a choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Affinity(#[cfg(target_os = "linux")] Option<rustix::thread::CpuSet>);

#[cfg(target_os = "linux")]
impl Affinity {
    pub(super) fn of_this_thread() -> Self {
        // It fails where there are more CPUs than fit the set; the threads' affinities are left alone then.
        Self(rustix::thread::sched_getaffinity(None).ok())
    }

    /// Makes this the calling thread's affinity. Where the system refuses, it keeps its own: the CPUs
    /// used are a few others then, but no more.
    pub(super) fn take_over(self) {
        if let Some(cpus) = self.0 {
            let _ = rustix::thread::sched_setaffinity(None, &cpus);
        }
    }
}

#[cfg(not(target_os = "linux"))]
impl Affinity {
    pub(super) fn of_this_thread() -> Self {
        Self()
    }

    pub(super) fn take_over(self) {}
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use rustix::thread::{CpuSet, sched_setaffinity};

    use super::*;

    #[test]
    fn a_thread_can_take_over_anothers_affinity() {
        let all = Cpus::of_this_thread();
        let first =
            all.affinity.0.and_then(|cpus| (0..CpuSet::MAX_CPU).find(|&cpu| cpus.is_set(cpu)));
        let mut one = CpuSet::new();
        one.set(first.unwrap());
        thread::spawn(move || {
            sched_setaffinity(None, &one).unwrap();
            let narrow = Cpus::of_this_thread();
            assert_eq!((narrow.number, narrow.affinity), (1, Affinity(Some(one))));
            all.affinity.take_over();
            assert_eq!(Affinity::of_this_thread(), all.affinity);
        })
        .join()
        .unwrap();
    }
}
