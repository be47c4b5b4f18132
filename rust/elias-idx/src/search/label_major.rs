//! Step 5 for many queries at once, label by label: the pairs of a shortlisted label and its query,
//! from all queries of a block, are brought into the order of the labels, so that a label's row is
//! read once for all of them, and rows come in the order in which they lie in memory.
//!
//! Rows are screened with their codes (see [`crate::screen`]); what may reach a query's best k is kept
//! by [`Survivors`] and scored exactly at the end, query by query.

use super::plan::Plan;
use super::survivors::{Survivors, SurvivorsView};
use crate::error::Result;
use crate::kernels::{Kernels, LogitBounds};
use crate::quantize::CodedRowsView;
use crate::query_codes::QueryCodesSlice;
use crate::screen::{lower_score, upper_score};
use crate::threads::Loops;

/// Pairs of a block, at most, about: they take 16 bytes each.
pub(crate) const MAX_PAIRS: usize = 1 << 22;
/// Queries of a block, at most. More would share a label's row still better, but no longer leave room
/// for their codes in the nearer caches; they are numbered by 16 bits.
pub(crate) const MAX_QUERIES: usize = 2048;

/// Buckets that labels are first spread over, about: each has a place that is being written to.
const BUCKETS: usize = 1024;
/// Bits of a label within its bucket, at most: a pair has room for 16.
const MAX_SHIFT: u32 = 16;

/// The shortlists of a block of queries, and the memory to screen them in.
#[derive(Default)]
pub(crate) struct LabelMajor {
    labels: Vec<u32>,
    scores: Vec<f32>,
    /// Where each query's part of the two begins, and the end.
    starts: Vec<usize>,
    /// Label (within the bucket), query and score of all pairs, bucket after bucket.
    pairs: Vec<u64>,
    buckets: Vec<u32>,
    sorter: Sorter,
    /// The pairs of one bucket in the order of labels.
    ids: Vec<u32>,
    of_queries: Vec<u16>,
    path_scores: Vec<f32>,
    upper: Vec<f32>,
    lower: Vec<f32>,
    survivors: Vec<Survivors>,
    /// Those of the survivors, close together.
    thresholds: Vec<f32>,
}

impl LabelMajor {
    /// Starts a new block.
    pub(crate) fn clear(&mut self) {
        self.labels.clear();
        self.scores.clear();
        self.starts.clear();
        self.starts.push(0);
    }

    /// Adds the next query's shortlist.
    pub(crate) fn push(&mut self, labels: &[u32], scores: &[f32]) {
        self.labels.extend_from_slice(labels);
        self.scores.extend_from_slice(scores);
        self.starts.push(self.labels.len());
    }

    /// Screens all pairs for the best `k` of each query.
    ///
    /// # Errors
    /// [`crate::Error::Interrupted`].
    pub(crate) fn screen(
        &mut self,
        plan: &Plan<'_>,
        rows: CodedRowsView<'_>,
        queries: QueryCodesSlice<'_>,
        k: usize,
        loops: &mut impl Loops,
    ) -> Result<()> {
        let num_queries = self.starts.len() - 1;
        self.survivors.resize_with(num_queries.max(self.survivors.len()), Survivors::default);
        self.survivors[..num_queries].iter_mut().for_each(|survivors| survivors.reset(k));
        self.thresholds.clear();
        self.thresholds.resize(num_queries, f32::NEG_INFINITY);
        let shift = (rows.codes.rows().div_ceil(BUCKETS).next_power_of_two().trailing_zeros())
            .min(MAX_SHIFT);
        self.spread(shift, rows.codes.rows());
        for bucket in 0..self.buckets.len() - 1 {
            let range = self.buckets[bucket] as usize..self.buckets[bucket + 1] as usize;
            if range.is_empty() {
                continue;
            }
            loops.proceed()?;
            self.screen_bucket(plan, rows, queries, (bucket << shift) as u32, shift, range);
        }
        Ok(())
    }

    /// What is left of a query's shortlist.
    pub(crate) fn survivors(&mut self, kernels: Kernels, query: usize) -> SurvivorsView<'_> {
        self.survivors[query].finish(kernels)
    }

    /// Sorts the pairs by bucket: `buckets` is where each one starts in `pairs`, and the end.
    fn spread(&mut self, shift: u32, num_labels: usize) {
        let num_buckets = ((num_labels - 1) >> shift) + 1;
        self.buckets.clear();
        self.buckets.resize(num_buckets + 1, 0);
        for &label in &self.labels {
            self.buckets[(label >> shift) as usize + 1] += 1;
        }
        // First each bucket's start, moved to its end as pairs are placed: that is the next one's start.
        let mut total = 0;
        for count in &mut self.buckets[1..] {
            total += std::mem::replace(count, total);
        }
        self.pairs.resize(self.labels.len(), 0);
        let within = (1_u64 << shift) - 1;
        for (query, range) in self.starts.windows(2).enumerate() {
            let labels = &self.labels[range[0]..range[1]];
            for (&label, score) in labels.iter().zip(&self.scores[range[0]..range[1]]) {
                let place = &mut self.buckets[(label >> shift) as usize + 1];
                self.pairs[*place as usize] = (u64::from(label) & within) << 48
                    | (query as u64) << 32
                    | u64::from(score.to_bits());
                *place += 1;
            }
        }
    }

    fn screen_bucket(
        &mut self,
        plan: &Plan<'_>,
        rows: CodedRowsView<'_>,
        queries: QueryCodesSlice<'_>,
        first: u32,
        shift: u32,
        range: std::ops::Range<usize>,
    ) {
        let pairs = self.sorter.sort(&mut self.pairs[range], shift);
        self.ids.clear();
        self.of_queries.clear();
        self.path_scores.clear();
        self.ids.extend(pairs.iter().map(|pair| first + (pair >> 48) as u32));
        self.of_queries.extend(pairs.iter().map(|pair| (pair >> 32) as u16));
        self.path_scores.extend(pairs.iter().map(|&pair| f32::from_bits(pair as u32)));
        self.upper.resize(pairs.len(), 0.0);
        self.lower.resize(pairs.len(), 0.0);
        let bounds = LogitBounds { upper: &mut self.upper, lower: &mut self.lower };
        plan.kernels.coded_pairs(rows, &self.ids, queries, &self.of_queries, bounds);
        plan.kernels.final_scores(&mut self.upper, &self.path_scores);
        plan.kernels.final_scores(&mut self.lower, &self.path_scores);
        for (i, &query) in self.of_queries.iter().enumerate() {
            let query = usize::from(query);
            let upper = upper_score(self.upper[i]);
            if upper < self.thresholds[query] {
                continue;
            }
            let survivors = &mut self.survivors[query];
            let lower = lower_score(self.lower[i]);
            survivors.push(plan.kernels, self.ids[i], self.path_scores[i], upper, lower);
            self.thresholds[query] = survivors.threshold();
        }
    }
}

/// Sorts the pairs of a bucket by label.
#[derive(Default)]
struct Sorter {
    places: Vec<u32>,
    sorted: Vec<u64>,
}

impl Sorter {
    fn sort<'a>(&'a mut self, pairs: &'a mut [u64], shift: u32) -> &'a [u64] {
        let num_labels = 1 << shift;
        if pairs.len() * 8 < num_labels {
            // Counting all labels of the bucket would take longer.
            pairs.sort_unstable();
            return pairs;
        }
        self.places.clear();
        self.places.resize(num_labels, 0);
        for pair in pairs.iter() {
            self.places[(pair >> 48) as usize] += 1;
        }
        let mut total = 0;
        for count in &mut self.places {
            total += std::mem::replace(count, total);
        }
        self.sorted.resize(pairs.len().max(self.sorted.len()), 0);
        for &pair in pairs.iter() {
            let place = &mut self.places[(pair >> 48) as usize];
            self.sorted[*place as usize] = pair;
            *place += 1;
        }
        &self.sorted[..pairs.len()]
    }
}
