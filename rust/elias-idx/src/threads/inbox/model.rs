//! What leaders and helpers do with inboxes, in the orders of events that loom tries. The inboxes stand
//! for the pool's list; a leader that waits is woken up by its helpers alone, not by the clock too.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use loom::cell::UnsafeCell;
use loom::model::Builder;
use loom::thread::ThreadId;

use super::*;
use crate::threads::{lock, pulse::Pulse};

/// Memory of a leader's that its helpers read: loom finds what isn't ordered.
struct Data(UnsafeCell<usize>);

// SAFETY: every access is watched by loom, which fails the test at one that isn't ordered.
unsafe impl Sync for Data {}

impl Data {
    fn read(&self) -> usize {
        // SAFETY: as above.
        self.0.with(|value| unsafe { *value })
    }

    fn write(&self, new: usize) {
        // SAFETY: as above.
        self.0.with_mut(|value| unsafe { *value = new });
    }
}

/// The helpers that may go home.
type Home = Mutex<Vec<ThreadId>>;

/// A helper, until a call has sent it home.
fn helper(inbox: &Inbox, home: &Home) {
    let (mut affinity, id) = (Affinity::of_this_thread(), loom::thread::current().id());
    while !lock(home).contains(&id) {
        inbox.serve_once(&mut affinity);
    }
}

/// One call by a leader, which takes it back from those that haven't begun if `takes_back`. Gives the
/// number of helpers.
fn lead(helpers: &[(Arc<Inbox>, thread::Thread)], takes_back: bool, home: &Home) -> usize {
    let stop = AtomicBool::new(false);
    let data = &Data(UnsafeCell::new(0));
    let work = |_: usize, _: &mut Pulse<'_>| {
        assert_eq!(data.read(), 1);
        if !takes_back {
            let id = loom::thread::current().id();
            lock(home).push(id);
        }
    };
    data.write(1);
    let mut call = Call::new(&work, &stop, Affinity::of_this_thread());
    let mut posted = 0;
    for (inbox, thread) in helpers {
        if inbox.post(&call) {
            thread.unpark();
            posted += 1;
        }
    }
    let back = helpers.iter().filter(|(inbox, _)| takes_back && inbox.take_back(&call)).count();
    while !call.has_ended(posted - back) {
        thread::park();
    }
    // The call and its data are the leader's alone again: loom fails at whatever comes later or at once.
    call.num_ended.with_mut(|ended| assert_eq!(*ended, posted - back));
    data.write(2);
    assert!(call.into_panic().is_none());
    posted - back
}

/// Calls that the leader takes back where it can, and a last one that every helper takes.
fn check(num_helpers: usize, num_calls: usize) {
    let mut model = Builder::new();
    // Of threads that could have gone on: without a bound there are too many orders.
    model.preemption_bound = Some(2);
    model.check(move || {
        let home: Arc<Home> = Arc::default();
        let (ends, handles): (Vec<_>, Vec<_>) = (0..num_helpers)
            .map(|_| {
                let (inbox, home) = (Arc::new(Inbox::empty()), Arc::clone(&home));
                let its_inbox = Arc::clone(&inbox);
                let (thread, handle) = thread::spawn(move || helper(&its_inbox, &home));
                ((inbox, thread), handle)
            })
            .unzip();
        for _ in 0..num_calls {
            assert!(lead(&ends, true, &home) <= num_helpers);
        }
        assert_eq!(lead(&ends, false, &home), num_helpers, "all are idle again");
        handles.into_iter().for_each(|handle| handle.join().unwrap());
    });
}

#[test]
fn one_helper_and_two_calls() {
    check(1, 1);
}

#[test]
fn two_helpers_and_one_call() {
    check(2, 0);
}
