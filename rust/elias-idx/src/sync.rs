//! What threads meet at: the standard library's, or stand-ins of which loom tries the orders of
//! events (`RUSTFLAGS="--cfg loom"`, in `make sanitize`).

#[cfg(loom)]
pub(crate) use loom::sync::atomic;
#[cfg(not(loom))]
pub(crate) use std::{sync::atomic, thread};

/// Threads of a model. It has no time: who would sleep lets others go on.
#[cfg(loom)]
pub(crate) mod thread {
    use std::cell::RefCell;
    use std::time::Duration;

    use loom::sync::{Arc, Notify};
    #[cfg(test)]
    use loom::thread::JoinHandle;
    use loom::thread::yield_now;

    loom::thread_local! {
        static CURRENT: RefCell<Thread> = RefCell::default();
    }

    /// Unlike with loom's own, waking a thread up orders memory only once that thread parks, so that an
    /// order that is missing elsewhere is found.
    #[derive(Clone)]
    pub(crate) struct Thread {
        woken: Arc<Notify>,
    }

    impl Default for Thread {
        fn default() -> Self {
            Self { woken: Arc::new(Notify::new()) }
        }
    }

    impl Thread {
        pub(crate) fn unpark(&self) {
            self.woken.notify();
        }
    }

    pub(crate) fn current() -> Thread {
        CURRENT.with(|current| current.borrow().clone())
    }

    pub(crate) fn park() {
        current().woken.wait();
    }

    pub(crate) fn sleep(_: Duration) {
        yield_now();
    }

    /// Runs `life` on a thread of its own.
    #[cfg(test)]
    pub(crate) fn spawn(life: impl FnOnce() + 'static) -> (Thread, JoinHandle<()>) {
        let thread = Thread::default();
        let own = thread.clone();
        let handle = loom::thread::spawn(move || {
            CURRENT.with(|current| current.replace(own));
            life();
        });
        (thread, handle)
    }
}
