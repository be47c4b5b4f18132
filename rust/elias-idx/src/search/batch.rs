//! Sharing out the queries of a call, or the parts of a single query, to threads.

use std::sync::{Mutex, MutexGuard};

use super::HitsMut;
use super::label_major::{MAX_PAIRS, MAX_QUERIES};
use super::plan::Plan;
use super::worker::{Block, Worker};
use crate::error::Result;
use crate::fusion::NUM_COLUMNS;
use crate::threads::{self, Hook, Pulse, lock};

/// Which step's results are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goal {
    Beam,
    Shortlist,
    Search,
    /// Candidates and their evidence.
    Evidence,
}

impl Goal {
    /// Whether labels are scored.
    pub(crate) fn is_scored(self) -> bool {
        matches!(self, Self::Search | Self::Evidence)
    }

    /// Numbers for each result, beside its id.
    pub(crate) fn values(self) -> usize {
        if self == Self::Evidence { NUM_COLUMNS } else { 1 }
    }
}

/// The memory of workers at rest, kept for later calls: of no more than there are CPUs.
///
/// Nobody waits for a slot: in a child of a fork, another thread's lock is never released. A thread
/// that finds a slot locked tries the next one.
pub(crate) struct Workers {
    slots: Box<[Mutex<Option<Box<Worker>>>]>,
}

impl Default for Workers {
    fn default() -> Self {
        Self::new(threads::available())
    }
}

impl Workers {
    fn new(num_slots: usize) -> Self {
        Self { slots: (0..num_slots).map(|_| Mutex::default()).collect() }
    }

    fn take(&self) -> Box<Worker> {
        self.free_slots().find_map(|mut slot| slot.take()).unwrap_or_default()
    }

    fn give_back(&self, worker: Box<Worker>) {
        if let Some(mut slot) = self.free_slots().find(|slot| slot.is_none()) {
            *slot = Some(worker);
        }
    }

    fn free_slots(&self) -> impl Iterator<Item = MutexGuard<'_, Option<Box<Worker>>>> {
        self.slots.iter().filter_map(|slot| slot.try_lock().ok())
    }
}

/// Runs the steps up to `goal` for `queries` \[Q, D\]; `out` holds `width` results for each, with
/// [`Goal::values`] numbers a result in place of its score.
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
    let values = width * goal.values();
    if num_queries == 0 {
        return Ok(());
    }
    if num_queries < num_threads && plan.worth_sharing() {
        return threads::lead(num_threads, hook, |team| {
            let mut worker = plan.workers.take();
            let rows = out.ids.chunks_mut(width).zip(out.scores.chunks_mut(values));
            let mut rows = queries.chunks(plan.dim()).zip(rows).enumerate();
            let result = rows.try_for_each(|(first, (queries, row))| {
                let out = HitsMut { ids: row.0, scores: row.1 };
                worker.run(plan, goal, width, Block { first, queries, out }, team)
            });
            plan.workers.give_back(worker);
            result
        });
    }
    let block = block_size(num_queries, num_threads, plan.shortlist_size);
    let blocks = Mutex::new(
        queries
            .chunks(block * plan.dim())
            .zip(out.ids.chunks_mut(block * width))
            .zip(out.scores.chunks_mut(block * values))
            .enumerate()
            .map(|(i, ((queries, ids), scores))| {
                let out = HitsMut { ids, scores };
                Block { first: i * block, queries, out }
            }),
    );
    let work = |_: usize, pulse: &mut Pulse<'_>| {
        let mut worker = plan.workers.take();
        while let Some(block) = { lock(&blocks).next() } {
            if worker.run(plan, goal, width, block, pulse).is_err() {
                break; // stopped, which is known
            }
        }
        plan.workers.give_back(worker);
    };
    threads::run(num_threads.min(num_queries.div_ceil(block)), hook, &work)
}

/// Blocks of about the same size, as many for each thread, and within the memory for pairs.
fn block_size(num_queries: usize, num_threads: usize, shortlist_size: usize) -> usize {
    let limit = (MAX_PAIRS / shortlist_size).clamp(1, MAX_QUERIES);
    let rounds = num_queries.div_ceil(num_threads.saturating_mul(limit));
    num_queries.div_ceil(num_threads.saturating_mul(rounds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_at_rest_are_found_again_and_no_more_than_the_slots() {
        let workers = Workers::new(2);
        let taken: Vec<Box<Worker>> = (0..3).map(|_| workers.take()).collect();
        let mut kept: Vec<*const Worker> = taken.iter().map(|worker| &raw const **worker).collect();
        taken.into_iter().for_each(|worker| workers.give_back(worker));
        kept.pop();
        // A slot that another thread is at hides its own worker only.
        let busy = workers.slots[0].lock().unwrap();
        let second = workers.take();
        assert_eq!(&raw const *second, kept[1]);
        workers.give_back(second);
        drop(busy);
        let again = [workers.take(), workers.take()];
        assert!(again.iter().map(|worker| &raw const **worker).eq(kept));
        assert!(workers.slots.iter().all(|slot| slot.lock().unwrap().is_none()));
    }

    #[test]
    fn blocks_are_shared_out_evenly_and_bounded() {
        assert_eq!(block_size(1, 8, 2000), 1);
        assert_eq!(block_size(64, 2, 2000), 32);
        assert_eq!(block_size(2 * MAX_QUERIES, 2, 2000), MAX_QUERIES);
        assert_eq!(block_size(2 * MAX_QUERIES + 2, 2, 2000), MAX_QUERIES / 2 + 1);
        assert_eq!(block_size(5, usize::MAX, 2000), 1);
        assert_eq!(block_size(10_000, 2, MAX_PAIRS / 10), 10);
        assert_eq!(block_size(10_000, 2, 10 * MAX_PAIRS), 1);
    }
}
