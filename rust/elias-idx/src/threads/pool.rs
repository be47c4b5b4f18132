//! The threads that help: how a leader gets them, and how it waits for them.

use std::process;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, Builder, Thread};
use std::time::Duration;

use super::call::Call;
use super::guard;
use super::inbox::Inbox;
use super::patience::Patience;
use super::pulse::Pulse;

/// How often a leader that waits for helpers looks at whether to stop.
const LOOK: Duration = Duration::from_millis(20);

/// The threads of one process. It is never freed, for its threads never end.
pub(super) struct Pool {
    /// The process whose threads they are: after a fork the child has the pool but not the threads.
    process: u32,
    /// The first worker; each knows the next.
    first: OnceLock<Box<Worker>>,
    /// Workers started.
    num_workers: AtomicUsize,
    /// Threads that all calls together may keep at work now: leaders and booked helpers.
    num_booked: AtomicUsize,
}

/// The pool of the process that asked last.
static CURRENT: AtomicPtr<Pool> = AtomicPtr::new(ptr::null_mut());

impl Pool {
    /// The calling process's pool.
    pub(super) fn of_this_process() -> &'static Self {
        let current = CURRENT.load(Ordering::Acquire);
        // SAFETY: null, or a pool, which is never freed once it is in CURRENT.
        if let Some(pool) = unsafe { current.as_ref() }
            && !pool.is_foreign()
        {
            return pool;
        }
        let new = Box::leak(Box::new(Self::new()));
        match CURRENT.compare_exchange(current, new, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => new,
            // Another thread was faster, which leaks a few bytes.
            // SAFETY: as above.
            Err(faster) => unsafe { &*faster },
        }
    }

    /// Whether this is the pool of a process that forked the calling one.
    pub(super) fn is_foreign(&self) -> bool {
        self.process != process::id()
    }

    pub(super) fn new() -> Self {
        Self {
            process: process::id(),
            first: OnceLock::new(),
            num_workers: AtomicUsize::new(0),
            num_booked: AtomicUsize::new(0),
        }
    }

    #[cfg(test)]
    pub(super) fn num_workers(&self) -> usize {
        self.num_workers.load(Ordering::Relaxed)
    }

    #[cfg(test)]
    pub(super) fn num_booked(&self) -> usize {
        self.num_booked.load(Ordering::Relaxed)
    }

    /// Adds a worker whose thread never looks into its inbox.
    #[cfg(test)]
    pub(super) fn add_sleeper(&self) {
        let inbox = Arc::new(Inbox::empty());
        self.num_workers.fetch_add(1, Ordering::Relaxed);
        self.add(Worker { inbox, thread: thread::current(), next: OnceLock::new() });
    }

    /// Posts `call` to up to `limit` idle threads, as far as `cpus` are free for them.
    pub(super) fn recruit<'a, 'p>(
        &'static self,
        limit: usize,
        cpus: usize,
        call: &'a Call<'a>,
        pulse: &'a mut Pulse<'p>,
    ) -> Helpers<'a, 'p> {
        let num_booked = self.book(limit, cpus);
        let mut helpers = Helpers { pool: self, call, pulse, num_booked, num_posted: 0 };
        for worker in self.workers() {
            if helpers.num_posted == num_booked {
                return helpers;
            }
            helpers.num_posted += usize::from(worker.post(call));
        }
        while helpers.num_posted < num_booked && self.start(call, cpus) {
            helpers.num_posted += 1;
        }
        helpers
    }

    /// Books a leader and up to `limit` helpers, so that all together stay within `cpus`, and gives the
    /// number of helpers. (The leader is booked in any case: it is there, whether it has a CPU or not. A
    /// helper that leads a call of its own is booked twice, so that nested calls get fewer helpers.)
    fn book(&self, limit: usize, cpus: usize) -> usize {
        let helpers = |booked: usize| limit.min(cpus.saturating_sub(booked + 1));
        let mut booked = self.num_booked.load(Ordering::Relaxed);
        while let Err(now) = self.num_booked.compare_exchange_weak(
            booked,
            booked + 1 + helpers(booked),
            Ordering::Relaxed,
            Ordering::Relaxed,
        ) {
            booked = now;
        }
        helpers(booked)
    }

    fn workers(&self) -> impl Iterator<Item = &Worker> {
        std::iter::successors(self.first.get(), |worker| worker.next.get()).map(|worker| &**worker)
    }

    /// Starts a thread that begins with `call`; false when there are enough for `cpus`, or the system
    /// gives no more.
    fn start(&self, call: &Call<'_>, cpus: usize) -> bool {
        let one_more = |workers: usize| (workers + 1 < cpus).then_some(workers + 1);
        let counted = self.num_workers.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        if counted.is_err() {
            return false;
        }
        let inbox = Arc::new(Inbox::holding(call));
        let its_inbox = Arc::clone(&inbox);
        let builder = Builder::new().name("elias-search".into());
        match with_signals_blocked(|| builder.spawn(move || its_inbox.serve())) {
            Ok(handle) => {
                self.add(Worker { inbox, thread: handle.thread().clone(), next: OnceLock::new() });
                true
            }
            Err(_) => {
                self.num_workers.fetch_sub(1, Ordering::Relaxed);
                false
            }
        }
    }

    /// Appends a worker to the list.
    fn add(&self, worker: Worker) {
        let mut worker = Box::new(worker);
        let mut place = &self.first;
        while let Err(refused) = place.set(worker) {
            worker = refused;
            // Another thread has set it, so there is a next one.
            place = &place.wait().next;
        }
    }
}

/// A leader's hold on its helpers. When it is dropped, the call is taken back from those that haven't
/// begun, and the others are waited for; meanwhile the leader's hook is asked on, so that a stop reaches
/// them.
pub(super) struct Helpers<'a, 'p> {
    pool: &'static Pool,
    call: &'a Call<'a>,
    /// The leader's.
    pub(super) pulse: &'a mut Pulse<'p>,
    num_booked: usize,
    num_posted: usize,
}

impl Drop for Helpers<'_, '_> {
    fn drop(&mut self) {
        let taken_back =
            self.pool.workers().filter(|worker| worker.inbox.take_back(self.call)).count();
        self.wait_for(self.num_posted - taken_back);
        self.pool.num_booked.fetch_sub(1 + self.num_booked, Ordering::Relaxed);
    }
}

impl Helpers<'_, '_> {
    fn wait_for(&mut self, num_helpers: usize) {
        let patience = Patience::new();
        while !self.call.has_ended(num_helpers) {
            if patience.wait() {
                continue;
            }
            if self.pool.is_foreign() {
                // The helpers will never end: they aren't here.
                self.call.stop();
                return;
            }
            if let Err(panic) = guard(|| self.pulse.stopped()) {
                self.call.fail(panic);
            }
            thread::park_timeout(LOOK);
        }
    }
}

/// One thread of the pool.
struct Worker {
    inbox: Arc<Inbox>,
    thread: Thread,
    next: OnceLock<Box<Worker>>,
}

impl Worker {
    /// Gives `call` to the thread; false when it isn't idle.
    fn post(&self, call: &Call<'_>) -> bool {
        let posted = self.inbox.post(call);
        if posted {
            self.thread.unpark();
        }
        posted
    }
}

/// Runs `start` so that threads started in it begin with all signals blocked, but for those that tell of
/// a fault of the thread's own: signals for the process are its other threads' business.
#[cfg(unix)]
fn with_signals_blocked<R>(start: impl FnOnce() -> R) -> R {
    use std::mem::MaybeUninit;

    let faults =
        [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, libc::SIGSYS];
    let (mut blocked, mut before) = (MaybeUninit::uninit(), MaybeUninit::uninit());
    // SAFETY: sigfillset makes the set, the others get sets that are there and change this thread's
    // mask only.
    unsafe {
        libc::sigfillset(blocked.as_mut_ptr());
        for signal in faults {
            libc::sigdelset(blocked.as_mut_ptr(), signal);
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, blocked.as_ptr(), before.as_mut_ptr());
    }
    let result = start();
    // SAFETY: the mask that pthread_sigmask gave.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), ptr::null_mut()) };
    result
}

#[cfg(not(unix))]
fn with_signals_blocked<R>(start: impl FnOnce() -> R) -> R {
    start()
}
