//! All steps for many queries, on several threads.
//!
//! Threads are started for each call and end with it: there is no pool that a fork could break or
//! that could use more threads than asked. They take blocks of queries until none are left. A block
//! shares one pass over the cluster classifiers; everything after that is query by query.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, Builder};
use std::time::Duration;

use super::HitsMut;
use super::beam::{self, BeamCluster};
use super::plan::Plan;
use super::pulse::{Hook, Pulse};
use super::rerank::Rerank;
use super::shortlist::Shortlist;
use super::top_k::{TopK, unkey};
use crate::error::{Error, Result};
use crate::matrix::MatrixView;

/// Which step's results are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goal {
    Beam,
    Shortlist,
    Search,
}

/// Queries that share a pass over the cluster classifiers, at most.
const MAX_BLOCK: usize = 64;
/// Logits that a thread holds at once, about (more for a single query of more clusters).
const MAX_LOGITS: usize = 1 << 20;
/// How often a thread that waits for others looks at whether to stop.
const WAIT: Duration = Duration::from_millis(20);

/// Runs the steps up to `goal` for `queries` \[Q, D\]; `out` holds `width` results for each.
pub(crate) fn run(
    plan: &Plan<'_>,
    goal: Goal,
    width: usize,
    queries: &[f32],
    out: HitsMut<'_>,
    num_threads: usize,
    hook: Hook<'_>,
) -> Result<()> {
    let num_queries = queries.len() / plan.dim();
    if num_queries == 0 {
        return Ok(());
    }
    let block = block_size(num_queries, num_threads, plan.num_clusters());
    let num_threads = num_threads.min(num_queries.div_ceil(block));
    let blocks = Mutex::new(
        queries
            .chunks(block * plan.dim())
            .zip(out.ids.chunks_mut(block * width))
            .zip(out.scores.chunks_mut(block * width))
            .map(|((queries, ids), scores)| Block { queries, ids, scores }),
    );
    let work = |pulse: &mut Pulse<'_>| {
        let mut worker = Worker::new(plan, goal, width);
        while let Some(block) = { blocks.lock().unwrap_or_else(PoisonError::into_inner).next() } {
            if !worker.run(block, pulse) {
                return;
            }
        }
    };
    on_threads(num_threads, hook, &work)
}

/// Runs `work` on this thread and on `num_threads - 1` others.
fn on_threads(
    num_threads: usize,
    hook: Hook<'_>,
    work: &(impl Fn(&mut Pulse<'_>) + Sync),
) -> Result<()> {
    let stop = AtomicBool::new(false);
    let running = AtomicUsize::new(0);
    let panic = Mutex::new(None);
    let guarded = |pulse: &mut Pulse<'_>| {
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| work(pulse))) {
            stop.store(true, Ordering::Relaxed);
            *panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(message(&*payload));
        }
    };
    let caller = thread::current();
    thread::scope(|scope| {
        for _ in 1..num_threads {
            running.fetch_add(1, Ordering::AcqRel);
            let started = Builder::new().name("elias-search".into()).spawn_scoped(scope, || {
                guarded(&mut Pulse::follower(&stop));
                running.fetch_sub(1, Ordering::AcqRel);
                caller.unpark();
            });
            if started.is_err() {
                // The system gives no more threads; those that there are do the work.
                running.fetch_sub(1, Ordering::AcqRel);
                break;
            }
        }
        let mut pulse = Pulse::leader(&stop, hook);
        guarded(&mut pulse);
        // The caller is asked on, so that a stop reaches threads that are still at work.
        while running.load(Ordering::Acquire) > 0 {
            pulse.stopped();
            thread::park_timeout(WAIT);
        }
    });
    match panic.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(message) => Err(Error::Panicked(message)),
        None if stop.load(Ordering::Relaxed) => Err(Error::Interrupted),
        None => Ok(()),
    }
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default()
}

/// Small enough that every thread gets several blocks, where there are enough queries.
fn block_size(num_queries: usize, num_threads: usize, num_clusters: usize) -> usize {
    let fair = num_queries.div_ceil(num_threads.saturating_mul(4));
    fair.min(MAX_LOGITS / num_clusters).clamp(1, MAX_BLOCK)
}

/// Some queries and the memory for their results.
struct Block<'a> {
    queries: &'a [f32],
    ids: &'a mut [i64],
    scores: &'a mut [f32],
}

/// One thread's memory, reused from query to query.
struct Worker<'a> {
    plan: &'a Plan<'a>,
    goal: Goal,
    width: usize,
    logits: Vec<f32>,
    top: TopK,
    beam: Vec<BeamCluster>,
    shortlist: Shortlist,
    rerank: Rerank,
}

impl<'a> Worker<'a> {
    fn new(plan: &'a Plan<'a>, goal: Goal, width: usize) -> Self {
        Self {
            plan,
            goal,
            width,
            logits: Vec::new(),
            top: TopK::default(),
            beam: Vec::new(),
            shortlist: Shortlist::default(),
            rerank: Rerank::default(),
        }
    }

    /// Searches for a block of queries; false when stopped meanwhile.
    fn run(&mut self, block: Block<'_>, pulse: &mut Pulse<'_>) -> bool {
        let (dim, num_clusters) = (self.plan.dim(), self.plan.num_clusters());
        let mut logits = std::mem::take(&mut self.logits);
        logits.resize(block.queries.len() / dim * num_clusters, 0.0);
        if pulse.stopped() {
            return false;
        }
        beam::cluster_logits(self.plan, MatrixView::new(block.queries, dim), &mut logits);
        let mut rows = block
            .queries
            .chunks(dim)
            .zip(logits.chunks_mut(num_clusters))
            .zip(block.ids.chunks_mut(self.width).zip(block.scores.chunks_mut(self.width)));
        let finished = rows.all(|((query, logits), (ids, scores))| {
            !pulse.stopped() && self.run_query(query, logits, ids, scores, pulse)
        });
        self.logits = logits;
        finished
    }

    fn run_query(
        &mut self,
        query: &[f32],
        logits: &mut [f32],
        ids: &mut [i64],
        scores: &mut [f32],
        pulse: &mut Pulse<'_>,
    ) -> bool {
        beam::select(self.plan, logits, &mut self.top, &mut self.beam);
        if self.goal == Goal::Beam {
            write(self.beam.iter().map(|entry| (entry.cluster, entry.score)), ids, scores);
            return true;
        }
        if !self.shortlist.fill(self.plan, &self.beam, pulse) {
            return false;
        }
        if self.goal == Goal::Shortlist {
            let labels = self.shortlist.sorted().iter();
            write(labels.map(|candidate| (candidate.label, candidate.score)), ids, scores);
            return true;
        }
        let candidates = self.shortlist.candidates();
        let top = (&mut self.top, self.width);
        if !self.rerank.run(self.plan, query, candidates, top, pulse) {
            return false;
        }
        write(self.top.finish().iter().map(|&key| unkey(key)), ids, scores);
        true
    }
}

/// Writes one query's results and fills the rest of its row with −1 and 0.
fn write(results: impl Iterator<Item = (u32, f32)>, ids: &mut [i64], scores: &mut [f32]) {
    let mut found = 0;
    for ((result, id), score) in results.zip(ids.iter_mut()).zip(scores.iter_mut()) {
        (*id, *score) = (i64::from(result.0), result.1);
        found += 1;
    }
    ids[found..].fill(-1);
    scores[found..].fill(0.0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_shared_out_and_bounded() {
        assert_eq!(block_size(1, 8, 1000), 1);
        assert_eq!(block_size(64, 2, 1000), 8);
        assert_eq!(block_size(1_000_000, 2, 1000), MAX_BLOCK);
        assert_eq!(block_size(1_000_000, 2, 131_072), 8);
        assert_eq!(block_size(300, 2, 8192), 38);
        assert_eq!(block_size(1_000_000, 2, usize::MAX), 1);
        assert_eq!(block_size(5, usize::MAX, 10), 1);
    }

    #[test]
    fn rows_are_padded() {
        let (mut ids, mut scores) = ([7; 3], [7.0; 3]);
        write([(5, 0.0)].into_iter(), &mut ids, &mut scores);
        assert_eq!((ids, scores), ([5, -1, -1], [0.0; 3]));
    }

    #[test]
    fn as_many_threads_work_as_asked_for() {
        let count = AtomicUsize::new(0);
        on_threads(3, &mut || false, &|_: &mut Pulse<'_>| {
            count.fetch_add(1, Ordering::Relaxed);
        })
        .unwrap();
        assert_eq!(count.into_inner(), 3);
    }

    #[test]
    fn a_panic_is_an_error_wherever_it_happens() {
        for at in 0..2 {
            let count = AtomicUsize::new(0);
            let result = on_threads(2, &mut || false, &|_: &mut Pulse<'_>| {
                assert!(count.fetch_add(1, Ordering::Relaxed) != at, "thread {at}");
            });
            let Err(Error::Panicked(message)) = result else { panic!("{result:?}") };
            assert_eq!(message, format!("thread {at}"));
        }
    }

    #[test]
    fn a_stop_reaches_threads_while_the_caller_waits_for_them() {
        let caller = thread::current().id();
        let result = on_threads(2, &mut || true, &|pulse: &mut Pulse<'_>| {
            // The caller has nothing to do; the other thread works until it is stopped.
            while thread::current().id() != caller && !pulse.stopped() {
                thread::yield_now();
            }
        });
        assert!(matches!(result, Err(Error::Interrupted)));
    }

    #[test]
    fn the_caller_is_not_asked_again_while_threads_end_after_a_stop() {
        let caller = thread::current().id();
        let mut calls = 0;
        let mut hook = || {
            calls += 1;
            calls == 1
        };
        let result = on_threads(2, &mut hook, &|pulse: &mut Pulse<'_>| {
            if thread::current().id() != caller {
                while !pulse.stopped() {
                    thread::yield_now();
                }
                // As a thread does that is in the midst of a long step.
                thread::sleep(10 * WAIT);
            }
        });
        assert!(matches!(result, Err(Error::Interrupted)));
        assert_eq!(calls, 1);
    }
}
