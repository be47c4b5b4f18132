//! What is made when it is first asked for, once for all threads.

use std::process;
use std::ptr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::sync::atomic::{AtomicPtr, AtomicU32};
use crate::sync::thread;

/// A value that is made when it is first asked for.
///
/// There is no lock, which a child of a fork would find held by a thread that it lacks.
pub(crate) struct Lazy<T> {
    /// From a box; null until it is made, and never changed afterwards.
    made: AtomicPtr<T>,
    /// The process that has a thread which makes it, so that it is made once; or 0.
    maker: AtomicU32,
}

/// Between two looks at what another thread makes.
const WAIT: Duration = Duration::from_millis(5);

impl<T> Default for Lazy<T> {
    fn default() -> Self {
        Self { made: AtomicPtr::new(ptr::null_mut()), maker: AtomicU32::new(0) }
    }
}

impl<T: Send + Sync> Lazy<T> {
    /// What `make` gave to the first that asked. It is given `stopped`.
    ///
    /// # Errors
    /// Those of `make`, and [`Error::Interrupted`] when `stopped` says so; a later call tries again.
    pub(crate) fn get(
        &self,
        make: impl FnOnce(&mut dyn FnMut() -> bool) -> Result<T>,
        stopped: &mut dyn FnMut() -> bool,
    ) -> Result<&T> {
        loop {
            if let Some(made) = self.made() {
                return Ok(made);
            }
            if let Some(_turn) = Turn::take(&self.maker) {
                // Another one's turn may have ended since it was looked for.
                if let Some(made) = self.made() {
                    return Ok(made);
                }
                return Ok(self.keep(make(stopped)?));
            }
            if stopped() {
                return Err(Error::Interrupted);
            }
            thread::sleep(WAIT);
        }
    }

    fn made(&self) -> Option<&T> {
        // SAFETY: it is null or comes from a box, which is freed by nothing but `drop`.
        unsafe { self.made.load(Ordering::Acquire).as_ref() }
    }

    /// Keeps the first one that is given. There is a second one where a child was forked by the
    /// `stopped` of a thread at work.
    fn keep(&self, made: T) -> &T {
        let new = Box::into_raw(Box::new(made));
        let exchanged =
            self.made.compare_exchange(ptr::null_mut(), new, Ordering::AcqRel, Ordering::Acquire);
        match exchanged {
            // SAFETY: as in `made`.
            Ok(_) => unsafe { &*new },
            Err(first) => {
                // SAFETY: it comes from a box, and nobody else has seen it.
                drop(unsafe { Box::from_raw(new) });
                // SAFETY: as in `made`.
                unsafe { &*first }
            }
        }
    }
}

impl<T> Drop for Lazy<T> {
    fn drop(&mut self) {
        let made = self.made.load(Ordering::Relaxed);
        if !made.is_null() {
            // SAFETY: it comes from a box, and nobody else holds `self` any more.
            drop(unsafe { Box::from_raw(made) });
        }
    }
}

/// A thread's right to make what others wait for.
struct Turn<'a> {
    maker: &'a AtomicU32,
    process: u32,
}

impl<'a> Turn<'a> {
    /// None while another thread of this process has it. One of another process isn't there: it was
    /// at work when this process was forked from it.
    fn take(maker: &'a AtomicU32) -> Option<Self> {
        let (process, found) = (process::id(), maker.load(Ordering::Relaxed));
        let is_free = found != process
            && maker.compare_exchange(found, process, Ordering::Acquire, Ordering::Relaxed).is_ok();
        is_free.then(|| Self { maker, process })
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // Unless, in a child that was forked amid the turn, another thread has taken it.
        let (process, order) = (self.process, Ordering::Release);
        let _ = self.maker.compare_exchange(process, 0, order, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::thread;

    use super::*;

    #[test]
    fn a_stop_ends_waiting_for_another_thread() {
        let lazy = Lazy::default();
        let turn = Turn::take(&lazy.maker).unwrap();
        let mut calls = 0;
        let result = lazy.get(|_| Ok(1), &mut || {
            calls += 1;
            calls == 2
        });
        assert!(matches!(result, Err(Error::Interrupted)));
        drop(turn);
        assert_eq!(*lazy.get(|_| Ok(2), &mut || false).unwrap(), 2);
    }

    #[test]
    fn nobody_waits_for_a_thread_of_another_process() {
        let lazy = Lazy::default();
        lazy.maker.store(process::id() + 1, Ordering::Relaxed);
        assert_eq!(*lazy.get(|_| Ok(1), &mut || true).unwrap(), 1);
        assert!(Turn::take(&lazy.maker).is_some(), "the turn is over");
    }

    #[test]
    fn the_first_one_is_kept() {
        let lazy = Lazy::default();
        let first = lazy.keep(1);
        assert!(ptr::eq(lazy.keep(2), first));
        assert!(ptr::eq(lazy.get(|_| Ok(3), &mut || true).unwrap(), first));
    }

    #[test]
    fn threads_make_it_once() {
        let (lazy, count) = (Lazy::default(), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let make =
                        |_: &mut dyn FnMut() -> bool| Ok(count.fetch_add(1, Ordering::Relaxed));
                    assert_eq!(*lazy.get(make, &mut || false).unwrap(), 0);
                });
            }
        });
        assert_eq!(count.into_inner(), 1);
    }
}

/// Every order in which threads may ask for it, by loom.
#[cfg(all(test, loom))]
mod model {
    use super::*;
    use loom::cell::UnsafeCell;
    use loom::sync::Arc;

    /// A value whose reads loom checks to come after its write.
    struct Made(UnsafeCell<usize>);

    // SAFETY: every access is watched by loom, which fails the test at one that isn't ordered.
    unsafe impl Sync for Made {}

    fn made(value: usize) -> Made {
        let made = Made(UnsafeCell::new(0));
        // SAFETY: as above.
        made.0.with_mut(|place| unsafe { *place = value });
        made
    }

    fn read(made: &Made) -> usize {
        // SAFETY: as above.
        made.0.with(|value| unsafe { *value })
    }

    /// Two threads, of which the one fails to make it if `one_fails`.
    fn check(one_fails: bool) {
        loom::model(move || {
            let lazy = Arc::new(Lazy::default());
            let others = Arc::clone(&lazy);
            let other = loom::thread::spawn(move || {
                let make = |_: &mut dyn FnMut() -> bool| {
                    if one_fails { Err(Error::Interrupted) } else { Ok(made(1)) }
                };
                others.get(make, &mut || false).map(read).ok()
            });
            let mine = read(lazy.get(|_| Ok(made(2)), &mut || false).unwrap());
            match other.join().unwrap() {
                Some(theirs) => assert_eq!(mine, theirs),
                None => assert!(one_fails && mine == 2),
            }
        });
    }

    #[test]
    fn two_threads_get_the_same() {
        check(false);
    }

    #[test]
    fn a_failure_leaves_it_to_the_other() {
        check(true);
    }

    #[test]
    fn two_that_make_it_keep_one() {
        loom::model(|| {
            let lazy = Arc::new(Lazy::default());
            let others = Arc::clone(&lazy);
            let other = loom::thread::spawn(move || read(others.keep(made(1))));
            let mine = read(lazy.keep(made(2)));
            assert_eq!(mine, other.join().unwrap());
        });
    }
}
