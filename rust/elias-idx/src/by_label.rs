//! The adjacency the other way round: from labels to the clusters that lead to them.

use std::ops::Range;
use std::process;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use crate::adjacency::AdjacencyView;
use crate::error::{Error, Result};
use crate::storage::zeros;

/// The edges of each label, ascending by cluster.
pub(crate) struct ByLabel {
    /// L+2, of which the first L+1 delimit rows of `edges`.
    offsets: Vec<usize>,
    edges: Vec<Edge>,
}

/// One edge, seen from its label.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Edge {
    pub(crate) cluster: u32,
    pub(crate) weight: f32,
}

impl ByLabel {
    /// Sorts all edges by label. `stopped` is asked row by row; when it says so, this ends with
    /// [`Error::Interrupted`].
    fn new(
        adjacency: AdjacencyView<'_>,
        num_labels: usize,
        stopped: &mut dyn FnMut() -> bool,
    ) -> Result<Self> {
        let rows = || (0..adjacency.num_rows()).map(|cluster| adjacency.row(cluster));
        // A counting sort. Counts stand two places on, so that, once summed up, the start of a
        // label's edges stands one place on; placing its edges moves it to their end, which is
        // where the next label's begin.
        let mut offsets = zeros("edges by label", num_labels + 2)?;
        for (labels, _) in rows() {
            if stopped() {
                return Err(Error::Interrupted);
            }
            labels.iter().for_each(|&label| offsets[label as usize + 2] += 1);
        }
        let mut total = 0;
        for offset in &mut offsets {
            total += *offset;
            *offset = total;
        }
        let mut edges = zeros("edges by label", total)?;
        for (cluster, (labels, weights)) in (0..).zip(rows()) {
            if stopped() {
                return Err(Error::Interrupted);
            }
            for (&label, &weight) in labels.iter().zip(weights) {
                let place: &mut usize = &mut offsets[label as usize + 1];
                edges[*place] = Edge { cluster, weight };
                *place += 1;
            }
        }
        Ok(Self { offsets, edges })
    }

    /// The edges that lead to a label.
    pub(crate) fn row(&self, label: u32) -> &[Edge] {
        &self.edges[self.range(label)]
    }

    /// Copies the edges of `labels` into `rows`, in place of what was there.
    pub(crate) fn gather(&self, labels: &[u32], rows: &mut GatheredRows) {
        rows.edges.clear();
        rows.ends.clear();
        for labels in labels.chunks(GATHERED_AT_ONCE) {
            // GatheredRows lie anywhere in memory. One look at each of them first, with nothing that waits
            // for what is seen, has the memory deliver them together instead of one by one.
            let seen = labels.iter().fold(0, |seen, &label| {
                seen ^ self.edges.get(self.range(label).start).map_or(0, |edge| edge.cluster)
            });
            std::hint::black_box(seen);
            for &label in labels {
                rows.edges.extend_from_slice(self.row(label));
                rows.ends.push(rows.edges.len());
            }
        }
    }

    #[inline]
    fn range(&self, label: u32) -> Range<usize> {
        self.offsets[label as usize]..self.offsets[label as usize + 1]
    }
}

const GATHERED_AT_ONCE: usize = 64;

/// The edges of some labels, row after row.
#[derive(Default)]
pub(crate) struct GatheredRows {
    edges: Vec<Edge>,
    /// Where each row ends.
    ends: Vec<usize>,
}

impl GatheredRows {
    pub(crate) fn edges(&self) -> &[Edge] {
        &self.edges
    }

    /// The edges of each label.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &[Edge]> {
        self.ends.iter().scan(0, |start, &end| {
            let row = &self.edges[*start..end];
            *start = end;
            Some(row)
        })
    }
}

/// [`ByLabel`], made when it is first asked for.
///
/// There is no lock, which a child of a fork would find held by a thread that it lacks.
#[derive(Default)]
pub(crate) struct LazyByLabel {
    /// From a box; null until it is made, and never changed afterwards.
    made: AtomicPtr<ByLabel>,
    /// The process that has a thread which makes it, so that it is made once; or 0.
    maker: AtomicU32,
}

/// Between two looks at what another thread makes.
const WAIT: Duration = Duration::from_millis(5);

impl LazyByLabel {
    /// Of `adjacency`, always the same one.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], and [`Error::Interrupted`] when `stopped` says so; a later call
    /// tries again.
    pub(crate) fn get(
        &self,
        adjacency: AdjacencyView<'_>,
        num_labels: usize,
        stopped: &mut dyn FnMut() -> bool,
    ) -> Result<&ByLabel> {
        loop {
            if let Some(made) = self.made() {
                return Ok(made);
            }
            if let Some(_turn) = Turn::take(&self.maker) {
                // Another one's turn may have ended since it was looked for.
                if let Some(made) = self.made() {
                    return Ok(made);
                }
                return Ok(self.keep(ByLabel::new(adjacency, num_labels, stopped)?));
            }
            if stopped() {
                return Err(Error::Interrupted);
            }
            thread::sleep(WAIT);
        }
    }

    fn made(&self) -> Option<&ByLabel> {
        // SAFETY: it is null or comes from a box, which is freed by nothing but `drop`.
        unsafe { self.made.load(Ordering::Acquire).as_ref() }
    }

    /// Keeps the first one that is given. There is a second one where a child was forked by the
    /// `stopped` of a thread at work.
    fn keep(&self, made: ByLabel) -> &ByLabel {
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

impl Drop for LazyByLabel {
    fn drop(&mut self) {
        let made = *self.made.get_mut();
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

    use proptest::prelude::*;

    use super::*;
    use crate::adjacency::Adjacency;
    use crate::matrix::Tensor;

    fn adjacency(rows: &[Vec<bool>], num_labels: usize) -> Adjacency {
        let (mut offsets, mut labels) = (vec![0_u64], Vec::new());
        for row in rows {
            labels.extend((0..).zip(row).filter(|pair| *pair.1).map(|pair| pair.0));
            offsets.push(labels.len() as u64);
        }
        let weights: Vec<f32> = (1..=labels.len()).map(|i| 1.0 / i as f32).collect();
        let (offsets, labels) = (Tensor::copy_of(&offsets), Tensor::copy_of(&labels));
        let weights = Tensor::copy_of(&weights).unwrap();
        Adjacency::from_stored(offsets.unwrap(), labels.unwrap(), weights, num_labels)
            .unwrap()
            .unwrap()
    }

    proptest! {
        #[test]
        fn it_holds_the_same_edges(
            rows in prop::collection::vec(prop::collection::vec(any::<bool>(), 20), 1..9),
        ) {
            let adjacency = adjacency(&rows, 20);
            let view = adjacency.view();
            let by_label = ByLabel::new(view, 20, &mut || false).unwrap();
            for label in 0..20 {
                let expected: Vec<Edge> = (0..rows.len())
                    .filter_map(|cluster| {
                        let (labels, weights) = view.row(cluster);
                        let at = labels.iter().position(|&other| other == label)?;
                        Some(Edge { cluster: cluster as u32, weight: weights[at] })
                    })
                    .collect();
                prop_assert_eq!(by_label.row(label), expected);
            }
            let mut gathered = GatheredRows::default();
            for labels in [&[3, 19, 0, 3][..], &[7; 100], &[]] {
                by_label.gather(labels, &mut gathered);
                let expected: Vec<&[Edge]> =
                    labels.iter().map(|&label| by_label.row(label)).collect();
                prop_assert_eq!(gathered.iter().collect::<Vec<_>>(), expected);
            }
        }
    }

    #[test]
    fn a_stop_leaves_it_to_the_next_call() {
        let adjacency = adjacency(&[vec![true; 3], vec![true; 3]], 3);
        let lazy = LazyByLabel::default();
        for calls_before_stop in 0..4 {
            let mut calls = 0;
            let result = lazy.get(adjacency.view(), 3, &mut || {
                calls += 1;
                calls > calls_before_stop
            });
            assert!(matches!(result, Err(Error::Interrupted)));
        }
        let made = lazy.get(adjacency.view(), 3, &mut || false).unwrap();
        assert_eq!(made.row(2).len(), 2);
    }

    #[test]
    fn a_stop_ends_waiting_for_another_thread() {
        let adjacency = adjacency(&[vec![true; 3]], 3);
        let lazy = LazyByLabel::default();
        let turn = Turn::take(&lazy.maker).unwrap();
        let mut calls = 0;
        let result = lazy.get(adjacency.view(), 3, &mut || {
            calls += 1;
            calls == 2
        });
        assert!(matches!(result, Err(Error::Interrupted)));
        drop(turn);
        assert_eq!(lazy.get(adjacency.view(), 3, &mut || false).unwrap().row(0).len(), 1);
    }

    #[test]
    fn nobody_waits_for_a_thread_of_another_process() {
        let adjacency = adjacency(&[vec![true; 3]], 3);
        let lazy = LazyByLabel::default();
        lazy.maker.store(process::id() + 1, Ordering::Relaxed);
        let mut calls = 0;
        let result = lazy.get(adjacency.view(), 3, &mut || {
            calls += 1;
            calls > 2
        });
        assert_eq!(result.unwrap().row(2).len(), 1);
        assert!(Turn::take(&lazy.maker).is_some(), "the turn is over");
    }

    #[test]
    fn the_first_one_is_kept() {
        let adjacency = adjacency(&[vec![true; 3]], 3);
        let lazy = LazyByLabel::default();
        let made = || ByLabel::new(adjacency.view(), 3, &mut || false).unwrap();
        let first = lazy.keep(made());
        assert!(ptr::eq(lazy.keep(made()), first));
        assert!(ptr::eq(lazy.get(adjacency.view(), 3, &mut || true).unwrap(), first));
    }

    #[test]
    fn threads_make_it_once() {
        let adjacency = adjacency(&[vec![true; 3]], 3);
        let (lazy, count) = (LazyByLabel::default(), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let mut ask = || {
                        count.fetch_add(1, Ordering::Relaxed);
                        false
                    };
                    assert_eq!(lazy.get(adjacency.view(), 3, &mut ask).unwrap().row(0).len(), 1);
                });
            }
        });
        assert_eq!(count.into_inner(), 2, "one row, passed twice");
    }
}
