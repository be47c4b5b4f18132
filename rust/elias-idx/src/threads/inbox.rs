//! Where a helper gets its calls, and how a leader takes back those that haven't been begun.
//!
//! Each thread of the pool has an *inbox*, one atomic pointer, which is empty (the thread is idle), holds a call
//! (posted by a leader), or says that the thread is at work:
//!
//! ```text
//!            leader posts                helper takes it
//!    empty ──────────────► call posted ──────────────────► at work ──┐
//!      ▲ ▲                     │                                     │
//!      │ └─────────────────────┘ leader takes it back                │
//!      └─────────────────────────────────────────────────────────────┘ helper has ended
//! ```
//!
//! Every arrow but the last one is a compare-and-exchange, so leader and helper never both believe that
//! they won. A helper looks into a call only after it has taken it, and from then on the leader waits for
//! it; of any other inbox the leader has taken the call back. So no helper ever touches a call that is
//! gone, and the leader waits only for helpers at work. (A call may be posted twice at one address, as
//! stacks are reused: whoever takes it gets the one that is posted now.)

use std::ptr;
use std::sync::atomic::Ordering;

use super::call::Call;
use super::cpus::Affinity;
use super::patience::Patience;
use crate::sync::atomic::AtomicPtr;
use crate::sync::thread;

/// Where a thread of the pool gets its calls. On a cache line of its own: its thread looks at it all the
/// time while it waits.
#[repr(align(128))]
pub(super) struct Inbox(AtomicPtr<Call<'static>>);

/// What an inbox holds while its thread is at work: no call's address.
const AT_WORK: *mut Call<'static> = ptr::without_provenance_mut(1);

/// A call as inboxes hold it, without its lifetime.
fn address(call: &Call<'_>) -> *mut Call<'static> {
    ptr::from_ref(call).cast_mut().cast()
}

impl Inbox {
    #[cfg(test)]
    pub(super) fn empty() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    /// Of a thread that begins with `call`.
    pub(super) fn holding(call: &Call<'_>) -> Self {
        Self(AtomicPtr::new(address(call)))
    }

    fn change(&self, from: *mut Call<'static>, to: *mut Call<'static>, success: Ordering) -> bool {
        self.0.compare_exchange(from, to, success, Ordering::Relaxed).is_ok()
    }

    /// Gives `call` to the thread, which may have to be woken up; false when it isn't idle.
    pub(super) fn post(&self, call: &Call<'_>) -> bool {
        self.change(ptr::null_mut(), address(call), Ordering::Release)
    }

    /// Empties the inbox if it holds `call`: then its thread has not begun and never will.
    pub(super) fn take_back(&self, call: &Call<'_>) -> bool {
        self.change(address(call), ptr::null_mut(), Ordering::Relaxed)
    }

    /// The next call that its thread has to help with.
    fn take(&self) -> *const Call<'static> {
        let patience = Patience::new();
        loop {
            let call = self.0.load(Ordering::Relaxed);
            if !call.is_null() && self.change(call, AT_WORK, Ordering::Acquire) {
                return call;
            }
            if !patience.wait() {
                thread::park();
            }
        }
    }

    /// A thread's life.
    pub(super) fn serve(&self) -> ! {
        let mut affinity = Affinity::of_this_thread();
        loop {
            self.serve_once(&mut affinity);
        }
    }

    /// Waits for a call and helps with it. `affinity` is the thread's.
    fn serve_once(&self, affinity: &mut Affinity) {
        let call = self.take();
        let leader = {
            // SAFETY: its leader posted it, and waits for this thread, which has taken it, until
            // this has counted itself among those that have ended. That is below.
            let call = unsafe { &*call };
            if call.affinity != *affinity {
                *affinity = call.affinity;
                affinity.take_over();
            }
            call.help();
            call.leader.clone()
        };
        // Idle first: the leader may post its next call as soon as this one has ended.
        self.0.store(ptr::null_mut(), Ordering::Release);
        // SAFETY: as above. The counter is the last that is touched; the leader may free the call
        // right away.
        unsafe { &(*call).num_ended }.fetch_add(1, Ordering::Release);
        leader.unpark();
    }
}

#[cfg(all(test, loom))]
mod model;
