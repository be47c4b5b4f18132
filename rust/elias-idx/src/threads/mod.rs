//! Sharing the work of a call with other threads.
//!
//! A call runs on its caller's thread, the *leader*, and on idle threads of one pool, its *helpers*.
//! What holds for every call:
//!
//! - **Helpers are for free CPUs only.** Leaders and helpers of all calls together are booked against the
//!   CPUs that the leader may use (affinity and cgroup quota). Where many callers search at once, they do
//!   their work alone. A helper takes over its leader's affinity.
//! - **A leader waits for nobody who isn't at work.** It posts the call to idle threads and begins; when
//!   it runs out of work, it takes the call back from those that haven't woken up. So the work must be
//!   shared out as it is done, and be right with any number of helpers, none included.
//! - **A fork harms nothing.** No lock is ever held. A child sees by its process id that the pool's
//!   threads aren't there, leaves that pool alone and starts one of its own. A call whose own hook forks
//!   is interrupted in the child.
//! - **Nothing is allocated** once the threads are there: a call is described on its leader's stack.
//!
//! A thread that has ended its work looks out for more for a short while before it sleeps, so that
//! several loops in a row, with a little work of the leader's own between them, cost one wake-up.

mod call;
mod cpus;
mod inbox;
mod patience;
mod pool;
mod pulse;

use std::any::Any;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use call::{Call, Work};
use cpus::Cpus;
use pool::Pool;

use crate::error::{Error, Result};
pub(crate) use pulse::{Hook, Pulse};

/// CPUs that the calling thread may use, as counted within the last second: no call uses more threads.
pub(crate) fn available() -> usize {
    Cpus::of_this_thread().number
}

/// Runs `work(worker, pulse)` on this thread, which is worker 0, and on up to `num_threads - 1` idle
/// threads, numbered from 1 as they join; returns when all have ended. The closures share out the work
/// among themselves.
///
/// # Errors
/// [`Error::Interrupted`] when `hook` asked to stop, [`Error::Panicked`] when `work` panicked anywhere.
pub(crate) fn run(
    num_threads: usize,
    hook: Hook<'_>,
    work: &(impl Fn(usize, &mut Pulse<'_>) + Sync),
) -> Result<()> {
    lead(num_threads, hook, |team| team.share(team.size(), work))
}

/// Runs `work` on this thread, with a team for the loops in it that can be shared.
///
/// # Errors
/// Those of `work`; [`Error::Panicked`] when it panicked.
pub(crate) fn lead<R>(
    num_threads: usize,
    hook: Hook<'_>,
    work: impl FnOnce(&mut Team<'_>) -> Result<R>,
) -> Result<R> {
    lead_on((num_threads > 1).then(Crew::of_this_thread), num_threads, hook, work)
}

fn lead_on<R>(
    crew: Option<Crew>,
    num_threads: usize,
    hook: Hook<'_>,
    work: impl FnOnce(&mut Team<'_>) -> Result<R>,
) -> Result<R> {
    let stop = AtomicBool::new(false);
    // A child of a fork in the hook goes on without the helpers, and without what they were at.
    let mut hook = || hook() || crew.is_some_and(|crew| crew.pool.is_foreign());
    let mut team = Team { crew, num_threads, stop: &stop, pulse: Pulse::leader(&stop, &mut hook) };
    guard(|| work(&mut team)).flatten()
}

/// A leader and those who may help it.
pub(crate) struct Team<'a> {
    crew: Option<Crew>,
    num_threads: usize,
    stop: &'a AtomicBool,
    pulse: Pulse<'a>,
}

/// Where helpers come from, and the CPUs for them.
#[derive(Clone, Copy)]
struct Crew {
    pool: &'static Pool,
    cpus: Cpus,
}

impl Crew {
    fn of_this_thread() -> Self {
        Self { pool: Pool::of_this_process(), cpus: Cpus::of_this_thread() }
    }
}

impl<'a> Team<'a> {
    /// Workers at most, the leader included: their numbers are below this.
    pub(crate) fn size(&self) -> usize {
        self.crew.map_or(1, |crew| self.num_threads.min(crew.cpus.number))
    }

    /// Runs `body(chunk, worker)` for each chunk in 0..`num_chunks`, once, in no order; returns when all
    /// are done. No two bodies with the same worker's number run at once.
    ///
    /// # Errors
    /// [`Error::Interrupted`] when the hook asked to stop, [`Error::Panicked`] when a body panicked; some
    /// chunks may not have been run then.
    pub(crate) fn for_each_chunk(
        &mut self,
        num_chunks: usize,
        body: &(impl Fn(usize, usize) + Sync),
    ) -> Result<()> {
        let next = AtomicUsize::new(0);
        self.share(self.size().min(num_chunks), &|worker: usize, pulse: &mut Pulse<'_>| {
            while !pulse.stopped() {
                let chunk = next.fetch_add(1, Ordering::Relaxed);
                if chunk >= num_chunks {
                    return;
                }
                body(chunk, worker);
            }
        })
    }

    /// Runs `work` on the leader and on up to `size - 1` helpers.
    fn share(&mut self, size: usize, work: &Work<'_>) -> Result<()> {
        let crew = self.crew.filter(|_| size > 1);
        if let Some(Crew { pool, cpus }) = crew {
            let call = Call::new(work, self.stop, cpus.affinity);
            let helpers = pool.recruit(size - 1, cpus.number, &call, &mut self.pulse);
            call.take_part(0, helpers.pulse);
            drop(helpers);
            call.into_panic().map_or(Ok(()), Err)?;
        } else {
            work(0, &mut self.pulse);
        }
        if self.stop.load(Ordering::Relaxed) { Err(Error::Interrupted) } else { Ok(()) }
    }
}

/// Loops over parts of some memory, and whether to go on: alone or in a team.
pub(crate) trait Loops {
    /// Runs `body(chunk, part)` for each part of `chunk_len` ≥ 1 values, the last one shorter perhaps.
    ///
    /// # Errors
    /// As [`Team::for_each_chunk`].
    fn for_each_part<T: Send>(
        &mut self,
        values: &mut [T],
        chunk_len: usize,
        body: &(impl Fn(usize, &mut [T]) + Sync),
    ) -> Result<()>;

    /// Whether to go on, for the leader's own work.
    fn proceed(&mut self) -> Result<()>;
}

impl Loops for Pulse<'_> {
    fn for_each_part<T: Send>(
        &mut self,
        values: &mut [T],
        chunk_len: usize,
        body: &(impl Fn(usize, &mut [T]) + Sync),
    ) -> Result<()> {
        for (chunk, part) in values.chunks_mut(chunk_len).enumerate() {
            self.proceed()?;
            body(chunk, part);
        }
        Ok(())
    }

    fn proceed(&mut self) -> Result<()> {
        if self.stopped() { Err(Error::Interrupted) } else { Ok(()) }
    }
}

impl Loops for Team<'_> {
    fn for_each_part<T: Send>(
        &mut self,
        values: &mut [T],
        chunk_len: usize,
        body: &(impl Fn(usize, &mut [T]) + Sync),
    ) -> Result<()> {
        let len = values.len();
        let start = SharedStart(values.as_mut_ptr());
        self.for_each_chunk(len.div_ceil(chunk_len), &|chunk, _| {
            let from = chunk * chunk_len;
            let part_len = chunk_len.min(len - from);
            // SAFETY: the part lies within `values`, which are borrowed until all chunks are done, and
            // overlaps no other chunk's; each chunk is run once.
            let part = unsafe { std::slice::from_raw_parts_mut(start.get().add(from), part_len) };
            body(chunk, part);
        })
    }

    fn proceed(&mut self) -> Result<()> {
        self.pulse.proceed()
    }
}

/// Where memory begins whose parts go to several threads.
#[derive(Clone, Copy)]
pub(crate) struct SharedStart<T>(pub(crate) *mut T);

// SAFETY: it is only used to hand each part of the memory to one thread, which `T: Send` allows.
unsafe impl<T: Send> Sync for SharedStart<T> {}

impl<T> SharedStart<T> {
    pub(crate) fn get(&self) -> *mut T {
        self.0
    }
}

/// Runs `work`, and makes a panic an error. What `work` had borrowed may be half changed then.
///
/// # Errors
/// [`Error::Panicked`] with what the panic said.
pub fn guard<R>(work: impl FnOnce() -> R) -> Result<R> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|payload| {
        let message = message(&*payload);
        // Dropping it runs foreign code, which might panic in its turn; of that nothing is dropped any more.
        if let Err(another) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
            mem::forget(another);
        }
        Error::Panicked(message)
    })
}

/// Locks what a panic leaves in order too.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
