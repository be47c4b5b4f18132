//! Search, in the five steps of the model, each in a module of its own:
//!
//! 1. cluster scores s_c = min(1, α · softmax(W_C e + b_C)), and 2. the beam, the best B of them: `beam`
//! 3. path scores s_c · a of the labels that the beam reaches, and 4. the best S labels: `shortlist`
//! 5. final scores p = s · sigmoid(w · T e + b): `rerank`, and the best k of them: `top_k`
//!
//! For a query with a filter, `filtered` stands in for steps 2 to 4. `explain` says of any label how
//! each step treated it. `ensemble` searches several indexes and averages what they find.
//!
//! `batch` runs them for many queries on several threads. Results are ordered by descending score,
//! equal ones by the smaller id, and are the same for every thread count and split into batches.

pub(crate) mod batch;
mod beam;
pub(crate) mod best_paths;
mod ensemble;
mod explain;
mod filtered;
mod label_major;
pub(crate) mod plan;
mod rerank;
mod shortlist;
mod survivors;
pub(crate) mod top_k;
mod worker;

use std::sync::atomic::AtomicBool;

use crate::arguments::check_positive;
use crate::by_label::ByLabel;
use crate::error::{ArgumentError, Result};
use crate::filter::Filter;
use crate::fusion::NUM_COLUMNS;
use crate::index::Index;
use crate::matrix::position_of_non_finite;
use crate::sparse::SparseRows;
use crate::storage::zeros;
use crate::threads::{self, Hook, Pulse};
use batch::Goal;
pub(crate) use batch::Workers;
use filtered::labels_come_first;
use plan::Plan;

pub use ensemble::{EnsembleMember, EnsembleOptions, search_ensemble};
pub use explain::{Explanation, Explanations, Path};

/// What a search may be told; None means the index's own sizes, and all CPUs of this process.
#[derive(Debug, Clone, Copy, Default)]
pub struct SearchOptions<'a> {
    /// B: clusters to keep, at least 1; more than there are means all.
    pub beam_size: Option<usize>,
    /// S: labels to keep before the label classifiers, at least 1; more than there are means all.
    pub shortlist_size: Option<usize>,
    /// Threads to use at most, the calling one included, at least 1. Never more are used than there
    /// are CPUs or than there is work for, and fewer while other searches use the CPUs.
    pub num_threads: Option<usize>,
    /// Which labels the queries may have; None means all. Others are dropped before the shortlist
    /// is cut, and the beam widens, beyond B, until it leads to S of those allowed. A beam that is
    /// asked for by itself knows no filter.
    pub filter: Option<Filter<'a>>,
    /// Labels with a final score below this are left out; not NaN.
    pub min_score: Option<f64>,
    /// The queries' sparse features \[Q, F\], columns ascending within a row: scores are those of the index's
    /// fusion then. Beams and shortlists don't look at them.
    pub sparse: Option<SparseRows<'a>>,
    /// R: labels of the dense search that are candidates of fusion, at least 1. Never fewer than results are
    /// wanted.
    pub num_candidates: Option<usize>,
}

/// Results of Q queries, `width` for each, best first; −1 and 0 where there are fewer.
#[derive(Debug, Clone, PartialEq)]
pub struct Hits {
    /// Columns: results for each query.
    pub width: usize,
    /// Label or cluster ids \[Q, width\].
    pub ids: Vec<i64>,
    /// Scores \[Q, width\].
    pub scores: Vec<f32>,
}

/// The candidates of Q queries, n in all, and what is known of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Evidence {
    /// Where those of each query start and end, \[Q + 1\].
    pub offsets: Vec<i64>,
    /// \[n\]: of each query those of the dense search, best first, then those with the most votes of its neighbours.
    pub labels: Vec<i64>,
    /// A row of [`EVIDENCE`](crate::EVIDENCE) for each, \[n, P\].
    pub values: Vec<f32>,
}

/// Where results are to be written: as [`Hits`], in the caller's memory, Q · width elements each.
pub struct HitsMut<'a> {
    /// Label or cluster ids \[Q, width\].
    pub ids: &'a mut [i64],
    /// Scores \[Q, width\].
    pub scores: &'a mut [f32],
}

/// Searching. In all of these, `queries` is \[Q, D\], row after row, of finite numbers, and `stop` is
/// called on this thread about every 50 ms: when it returns true, the call ends with
/// [`Error::Interrupted`](crate::Error::Interrupted) soon.
///
/// All of them fail with [`Error::Argument`](crate::Error::Argument) for lengths that don't fit, numbers that aren't finite,
/// and sizes of 0.
impl Index {
    /// The `k` best labels of each query.
    ///
    /// # Errors
    /// See above.
    pub fn search(
        &self,
        queries: &[f32],
        k: usize,
        options: &SearchOptions<'_>,
        stop: &mut dyn FnMut() -> bool,
    ) -> Result<Hits> {
        self.collect(Goal::Search, queries, k, options, stop)
    }

    /// [`Index::search`] into memory for `k` results a query.
    ///
    /// # Errors
    /// See above.
    pub fn search_into(
        &self,
        queries: &[f32],
        k: usize,
        options: &SearchOptions<'_>,
        out: HitsMut<'_>,
        stop: &mut dyn FnMut() -> bool,
    ) -> Result<()> {
        self.run(Goal::Search, queries, k, options, out, stop)
    }

    /// The candidates of each query with the sparse features `options.sparse`, and their evidence.
    ///
    /// # Errors
    /// See above; [`ArgumentError::NoFusion`] where the index has nothing to compute evidence from.
    pub fn evidence(
        &self,
        queries: &[f32],
        options: &SearchOptions<'_>,
        stop: &mut dyn FnMut() -> bool,
    ) -> Result<Evidence> {
        let plan = Plan::new(self, options)?;
        let Some(fused) = plan.fused else {
            return Err(ArgumentError::NoFusion("evidence takes sparse features").into());
        };
        let hits = self.collect(Goal::Evidence, queries, fused.max_candidates(), options, stop)?;
        Ok(Evidence::of(hits))
    }

    /// The beam of each query, min(B, C) clusters wide, with the cluster scores.
    ///
    /// # Errors
    /// See above.
    pub fn beam(
        &self,
        queries: &[f32],
        options: &SearchOptions<'_>,
        stop: &mut dyn FnMut() -> bool,
    ) -> Result<Hits> {
        let width = self.beam_width(options)?;
        self.collect(Goal::Beam, queries, width, options, stop)
    }

    /// [`Index::beam`] into memory for [`Index::beam_width`] results a query.
    ///
    /// # Errors
    /// See above.
    pub fn beam_into(
        &self,
        queries: &[f32],
        options: &SearchOptions<'_>,
        out: HitsMut<'_>,
        stop: &mut dyn FnMut() -> bool,
    ) -> Result<()> {
        self.run(Goal::Beam, queries, self.beam_width(options)?, options, out, stop)
    }

    /// The shortlist of each query, min(S, L) labels wide, with the path scores.
    ///
    /// # Errors
    /// See above.
    pub fn shortlist(
        &self,
        queries: &[f32],
        options: &SearchOptions<'_>,
        stop: &mut dyn FnMut() -> bool,
    ) -> Result<Hits> {
        let width = self.shortlist_width(options)?;
        self.collect(Goal::Shortlist, queries, width, options, stop)
    }

    /// [`Index::shortlist`] into memory for [`Index::shortlist_width`] results a query.
    ///
    /// # Errors
    /// See above.
    pub fn shortlist_into(
        &self,
        queries: &[f32],
        options: &SearchOptions<'_>,
        out: HitsMut<'_>,
        stop: &mut dyn FnMut() -> bool,
    ) -> Result<()> {
        self.run(Goal::Shortlist, queries, self.shortlist_width(options)?, options, out, stop)
    }

    /// Results a query that [`Index::beam`] gives.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for sizes of 0.
    pub fn beam_width(&self, options: &SearchOptions<'_>) -> Result<usize> {
        Ok(Plan::new(self, options)?.beam_size)
    }

    /// Results a query that [`Index::shortlist`] gives.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for sizes of 0.
    pub fn shortlist_width(&self, options: &SearchOptions<'_>) -> Result<usize> {
        Ok(Plan::new(self, options)?.shortlist_size)
    }

    fn collect(
        &self,
        goal: Goal,
        queries: &[f32],
        width: usize,
        options: &SearchOptions<'_>,
        stop: Hook<'_>,
    ) -> Result<Hits> {
        let len = (queries.len() / self.dim()).saturating_mul(width);
        let values = zeros("results", len.saturating_mul(goal.values()))?;
        let mut hits = Hits { width, ids: zeros("results", len)?, scores: values };
        let out = HitsMut { ids: &mut hits.ids, scores: &mut hits.scores };
        self.run(goal, queries, width, options, out, stop)?;
        Ok(hits)
    }

    fn run(
        &self,
        goal: Goal,
        queries: &[f32],
        width: usize,
        options: &SearchOptions<'_>,
        out: HitsMut<'_>,
        stop: Hook<'_>,
    ) -> Result<()> {
        let mut plan = Plan::new(self, options)?;
        check_positive("k", width)?;
        check_queries(queries, self.dim())?;
        let num_queries = queries.len() / self.dim();
        let num_threads = num_threads(options)?;
        let expected = num_queries.saturating_mul(width);
        let values = out.scores.len() / goal.values();
        for (name, received) in [("ids", out.ids.len()), ("scores", values)] {
            if received != expected {
                return Err(ArgumentError::WrongLength { name, expected, received }.into());
            }
        }
        if let Some(fused) = &mut plan.fused {
            fused.prepare(self, goal, num_queries, width)?;
        }
        if let Some(filter) = options.filter {
            filter.check(self, num_queries)?;
            if filter.least_count().is_some_and(|count| labels_come_first(count, &plan)) {
                plan.by_label = Some(self.by_label(stop)?);
            }
        }
        batch::run(&plan, goal, width, queries, out, num_threads, stop)
    }

    /// The edges by label, made on the first call.
    pub(crate) fn by_label(&self, stop: Hook<'_>) -> Result<&ByLabel> {
        let flag = AtomicBool::new(false);
        let mut pulse = Pulse::leader(&flag, stop);
        let (adjacency, num_labels) = (self.adjacency.view(), self.num_labels());
        let make = |stopped: &mut dyn FnMut() -> bool| ByLabel::new(adjacency, num_labels, stopped);
        self.by_label.get(make, &mut || pulse.stopped())
    }
}

impl Evidence {
    /// Takes out the padding.
    fn of(Hits { width, mut ids, mut scores }: Hits) -> Self {
        let mut offsets = vec![0];
        let mut end = 0;
        for start in (0..ids.len()).step_by(width) {
            let count = ids[start..start + width].iter().take_while(|&&id| id >= 0).count();
            ids.copy_within(start..start + count, end);
            scores
                .copy_within(NUM_COLUMNS * start..NUM_COLUMNS * (start + count), NUM_COLUMNS * end);
            end += count;
            offsets.push(end as i64);
        }
        ids.truncate(end);
        scores.truncate(NUM_COLUMNS * end);
        Self { offsets, labels: ids, values: scores }
    }
}

fn num_threads(options: &SearchOptions<'_>) -> Result<usize, ArgumentError> {
    if let Some(asked) = options.num_threads {
        check_positive("num_threads", asked)?;
    }
    Ok(threads::available().min(options.num_threads.unwrap_or(usize::MAX)))
}

fn check_queries(queries: &[f32], dim: usize) -> Result<(), ArgumentError> {
    if !queries.len().is_multiple_of(dim) {
        let expected = queries.len().next_multiple_of(dim);
        let received = queries.len();
        return Err(ArgumentError::WrongLength { name: "queries", expected, received });
    }
    match position_of_non_finite(queries) {
        Some(at) => Err(ArgumentError::NonFiniteQuery { row: at / dim }),
        None => Ok(()),
    }
}
