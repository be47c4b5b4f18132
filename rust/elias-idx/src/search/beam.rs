//! Steps 1 and 2: the scores of all clusters, s = min(1, α · softmax(W e + b)), and the best of them.
//!
//! Where the index has codes of the cluster classifiers, all clusters are *screened*: their logits are
//! computed from the codes, with a known error (see [`crate::screen`]). What follows is exact but for
//! one number: those clusters that may belong to the beam are scored from their exact rows, and only
//! the softmax's denominator is summed from screened logits. Of that sum,
//!
//! - clusters that make up more than 1/256 of it are replaced by exact ones, and
//! - the errors of the others, each that of a sum of D rounding errors of either sign, largely cancel.
//!   Where three standard deviations of their sum (see [`crate::panels`]), and the most that the curve
//!   of exp adds in the mean, exceed [`MAX_ERROR`], all clusters of this query are scored exactly.
//!
//! So the denominator, and all scores with it, is right to [`MAX_ERROR`], in practice to a tenth of it.
//! That is an estimate, not a bound: it takes the rounding errors of a row for independent of the query.
//! Rows are rounded so that their errors add up to nothing ([`crate::quantize::quantize_evenly`]), for
//! else those of numbers of one sign, times a query of one sign, would not cancel.

use super::plan::Plan;
use super::top_k::{TopK, unkey};
use crate::error::Result;
use crate::kernels::{ExpSums, MAXIMA_CHUNK};
use crate::label_rows::ExactRows;
use crate::matrix::MatrixView;
use crate::panels::{PANEL_ROWS, PanelsView};
use crate::query_codes::{QueryCodesSlice, QueryMeta};
use crate::screen::{self, SCORE_ERROR};
use crate::threads::Loops;

/// A cluster of the beam with its score s_c.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct BeamCluster {
    pub(crate) cluster: u32,
    pub(crate) score: f32,
}

/// The relative error of the softmax's denominator, at three standard deviations.
const MAX_ERROR: f64 = 1e-3;
/// Clusters that make up this part of the denominator are scored exactly.
const LEADING: f64 = 1.0 / 256.0;
/// Clusters whose logit is this far below the largest have scores near the end of the range of
/// floats, where rounding makes them equal.
const RANGE: f32 = 80.0;

/// Where logits may be further off, exponentials of screened and of exact ones have too little to do
/// with each other.
const MAX_LOGIT_ERROR: f32 = 8.0;

/// Selects beams, in memory that is reused from query to query.
#[derive(Default)]
pub(crate) struct BeamSearch {
    maxima: Vec<f32>,
    scratch: Vec<f32>,
    candidates: Vec<u32>,
    logits: Vec<f32>,
    top: TopK,
    beam: Vec<BeamCluster>,
    /// What turns exact logits into scores, where clusters were screened; None where the logits that
    /// were passed have become the scores of all clusters.
    scaling: Option<Scaling>,
}

/// Scores are min(1, scale · exp(logit − max)).
#[derive(Clone, Copy)]
struct Scaling {
    max: f32,
    scale: f32,
}

/// The numbers of a query that its beam is selected with.
#[derive(Clone, Copy)]
pub(crate) struct BeamQuery<'a> {
    /// The embedding.
    pub(crate) values: &'a [f32],
    /// What is known of its codes, if clusters were screened.
    pub(crate) meta: Option<&'a QueryMeta>,
}

/// Logits of a query from one to the next in what [`cluster_logits`] fills.
pub(crate) fn logits_stride(plan: &Plan<'_>) -> usize {
    plan.cluster_panels.map_or(plan.num_clusters(), |panels| panels.scales.len())
}

/// Rows here and there are read this many times as slowly as all of them, about.
const FEW_ROWS: usize = 4;
/// Clusters that a thread scores at once, for a single query: whole panels.
const PART: usize = 16 * PANEL_ROWS;

/// The logits of all clusters, screened ones where the index has codes: `queries` \[Q, D\] and their
/// `codes`, `logits` \[Q, [`logits_stride`]\].
///
/// # Errors
/// Those of the loops, which share the work for a single query.
pub(crate) fn cluster_logits(
    plan: &Plan<'_>,
    queries: MatrixView<'_>,
    codes: QueryCodesSlice<'_>,
    logits: &mut [f32],
    loops: &mut impl Loops,
) -> Result<()> {
    let stride = logits_stride(plan);
    let body = |first: usize, end: usize, logits: &mut [f32], stride| match plan.cluster_panels {
        Some(panels) => {
            let range = (first / PANEL_ROWS, end / PANEL_ROWS);
            plan.kernels.scan_panels(panels, range, codes, logits, stride);
        }
        None => {
            let (rows, bias) =
                (plan.cluster_weights.range(first..end), &plan.cluster_bias[first..end]);
            plan.kernels.linear(rows, Some(bias), queries, logits);
        }
    };
    if queries.rows() > 1 {
        body(0, stride, logits, stride);
        return Ok(());
    }
    loops.for_each_part(logits, PART, &|part, logits| {
        let first = part * PART;
        body(first, first + logits.len(), logits, logits.len());
    })
}

impl BeamSearch {
    /// Finds the best `size` clusters of a query, given its `logits` \[C\], which are used up.
    pub(crate) fn select(
        &mut self,
        plan: &Plan<'_>,
        query: BeamQuery<'_>,
        logits: &mut [f32],
        size: usize,
    ) {
        self.top.reset(size);
        let screen = plan.cluster_panels.zip(query.meta);
        self.scaling = screen
            .and_then(|(panels, meta)| self.screened(plan, panels, query, meta, logits, size));
        if self.scaling.is_none() {
            if screen.is_some() {
                let queries = MatrixView::new(query.values, query.values.len());
                plan.kernels.linear(plan.cluster_weights, Some(plan.cluster_bias), queries, logits);
            }
            plan.kernels.cluster_scores(logits, plan.alpha);
            self.top.push_all(logits);
        }
        self.take_beam();
    }

    /// The scores \[C\] of the query that the last beam was selected for: at least those of `wanted`,
    /// in place of its `logits`.
    ///
    /// # Errors
    /// Those of the loops.
    pub(crate) fn score<'a>(
        &mut self,
        plan: &Plan<'_>,
        query: BeamQuery<'_>,
        logits: &'a mut [f32],
        wanted: &[u32],
        loops: &mut impl Loops,
    ) -> Result<&'a [f32]> {
        let Some(Scaling { max, scale }) = self.scaling else { return Ok(logits) };
        if wanted.len() * FEW_ROWS < logits.len() {
            self.candidates.clear();
            self.candidates.extend_from_slice(wanted);
            self.score_exactly(plan, query.values, 0);
            plan.kernels.exp_scores(&mut self.logits, max, scale);
            for (&cluster, &score) in wanted.iter().zip(&self.logits) {
                logits[cluster as usize] = score;
            }
            return Ok(logits);
        }
        let queries = MatrixView::new(query.values, query.values.len());
        loops.for_each_part(logits, PART, &|part, logits| {
            let range = part * PART..part * PART + logits.len();
            let (rows, bias) =
                (plan.cluster_weights.range(range.clone()), &plan.cluster_bias[range]);
            plan.kernels.linear(rows, Some(bias), queries, logits);
            plan.kernels.exp_scores(logits, max, scale);
        })?;
        self.scaling = None;
        Ok(logits)
    }

    /// Selects the best `size` clusters of the query that the last beam was selected for.
    pub(crate) fn widen(
        &mut self,
        plan: &Plan<'_>,
        query: BeamQuery<'_>,
        logits: &mut [f32],
        size: usize,
    ) {
        if self.scaling.is_some() {
            return self.select(plan, query, logits, size);
        }
        self.top.reset(size);
        self.top.push_all(logits);
        self.take_beam();
    }

    fn take_beam(&mut self) {
        self.beam.clear();
        self.beam.extend(self.top.finish().iter().map(|&key| {
            let (cluster, score) = unkey(key);
            BeamCluster { cluster, score }
        }));
    }

    /// The beam selected last, best first.
    pub(crate) fn beam(&self) -> &[BeamCluster] {
        &self.beam
    }

    /// Collects the beam from screened logits; None where they aren't good enough.
    fn screened(
        &mut self,
        plan: &Plan<'_>,
        panels: PanelsView<'_>,
        query: BeamQuery<'_>,
        meta: &QueryMeta,
        logits: &[f32],
        size: usize,
    ) -> Option<Scaling> {
        let dim = query.values.len();
        let error = max_error(panels, meta, dim);
        let deviations = panels.deviations;
        let ExpSums { max, mut sum, mut squares, mut curvature } =
            plan.kernels.exp_sums(logits, deviations);
        if !(error <= MAX_LOGIT_ERROR && max.is_finite() && sum.is_finite()) {
            return None;
        }
        let leading = max + (sum * LEADING).ln() as f32;
        // The likeliest first: how good these are tells which others may be as good.
        let likely = self.kth_largest(plan, logits, size).min(leading);
        self.candidates.clear();
        self.collect(logits, likely, f32::INFINITY, |_| true);
        self.score_exactly(plan, query.values, 0);
        let least = plan.kernels.kth_largest(&self.logits, size.min(self.logits.len()));
        // What scores 1 has this logit.
        let one = max + (sum / plan.alpha).ln() as f32;
        if least < max.max(one) - RANGE {
            return None;
        }
        // Scores that are rounded to the same come from logits this close. All clusters whose score is
        // cut to 1 tie too. Among equal scores the smaller ids win.
        let reach = least.min(one - error) - SCORE_ERROR;
        let rounding = screen::rounding(dim);
        let num_likely = self.candidates.len();
        self.collect(logits, reach - error, likely, |cluster| {
            let error = screen::error_bound(&panels.meta[cluster], meta, meta.residual, rounding);
            logits[cluster] + error >= reach
        });
        self.score_exactly(plan, query.values, num_likely);
        for (&exact, &cluster) in self.logits.iter().zip(&self.candidates) {
            let screened = logits[cluster as usize];
            if screened >= leading {
                let part = f64::from(screened - max).exp();
                let deviation = f64::from(deviations[cluster as usize]);
                sum += f64::from(exact - max).exp() - part;
                squares -= (part * deviation).powi(2);
                curvature -= part * deviation.powi(2);
            }
        }
        let unit = f64::from(panels.max_residual) * f64::from(meta.norm);
        let deviation = unit * squares.max(0.0).sqrt();
        if 3.0 * deviation + 0.5 * unit.powi(2) * curvature.max(0.0) > MAX_ERROR * sum {
            return None;
        }
        let scale = (plan.alpha / sum).min(f64::from(f32::MAX)) as f32;
        plan.kernels.exp_scores(&mut self.logits, max, scale);
        for (&score, &cluster) in self.logits.iter().zip(&self.candidates) {
            self.top.push(score, cluster);
        }
        Some(Scaling { max, scale })
    }

    /// The `k`-th largest value, of which there may be fewer: then the smallest.
    fn kth_largest(&mut self, plan: &Plan<'_>, values: &[f32], k: usize) -> f32 {
        self.maxima.resize(values.len().div_ceil(MAXIMA_CHUNK), 0.0);
        plan.kernels.chunk_maxima(values, &mut self.maxima);
        // The k-th largest of the chunks' maxima can't exceed it.
        let bound = match k <= self.maxima.len() {
            true => plan.kernels.kth_largest(&self.maxima, k),
            false => f32::NEG_INFINITY,
        };
        self.scratch.clear();
        for (chunk, &max) in values.chunks(MAXIMA_CHUNK).zip(&self.maxima) {
            if max >= bound {
                self.scratch.extend(chunk.iter().filter(|&&value| value >= bound));
            }
        }
        plan.kernels.kth_largest(&self.scratch, k.min(self.scratch.len()))
    }

    /// Adds the places of those values from `from` to `to`, exclusive, that `may` be candidates, given
    /// the maxima that [`Self::kth_largest`] left behind.
    fn collect(&mut self, values: &[f32], from: f32, to: f32, may: impl Fn(usize) -> bool) {
        for (i, (chunk, &max)) in values.chunks(MAXIMA_CHUNK).zip(&self.maxima).enumerate() {
            if max >= from {
                for (value, place) in chunk.iter().zip(i * MAXIMA_CHUNK..) {
                    if (from..to).contains(value) && may(place) {
                        self.candidates.push(place as u32);
                    }
                }
            }
        }
    }

    /// The exact logits of the candidates from place `first` on.
    fn score_exactly(&mut self, plan: &Plan<'_>, query: &[f32], first: usize) {
        self.logits.resize(self.candidates.len(), 0.0);
        let (rows, bias) = (ExactRows::Float32(plan.cluster_weights), plan.cluster_bias);
        let (candidates, logits) = (&self.candidates[first..], &mut self.logits[first..]);
        plan.kernels.linear_rows(rows, bias, candidates, query, logits);
    }
}

/// The most by which the exact logit of any cluster and its screened one differ.
fn max_error(panels: PanelsView<'_>, meta: &QueryMeta, dim: usize) -> f32 {
    let worst = crate::quantize::RowMeta {
        scale: 0.0,
        bias: panels.max_bias,
        residual: panels.max_residual,
        norm: panels.max_norm,
    };
    screen::error_bound(&worst, meta, meta.residual, screen::rounding(dim))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::SearchOptions;
    use crate::search::plan::tests::tiny_index;

    fn beam(logits: &[f32], beam_size: usize) -> Vec<(u32, f32)> {
        let index = tiny_index(logits.len(), 1);
        let options = SearchOptions { beam_size: Some(beam_size), ..SearchOptions::default() };
        let plan = Plan::new(&index, &options).unwrap();
        let mut search = BeamSearch::default();
        search.select(
            &plan,
            BeamQuery { values: &[0.0], meta: None },
            &mut logits.to_vec(),
            plan.beam_size,
        );
        search.beam().iter().map(|entry| (entry.cluster, entry.score)).collect()
    }

    #[test]
    fn clusters_come_by_score_after_the_clamp() {
        // With α = 10 all of the first three exceed 1 and tie, so the smaller ids win.
        let clamped = beam(&[1.0, 1.5, 2.0, -9.0], 2);
        assert_eq!(clamped, [(0, 1.0), (1, 1.0)]);
        let all = beam(&[-9.0, 0.0, -8.0], 3);
        assert_eq!(all.iter().map(|entry| entry.0).collect::<Vec<_>>(), [1, 2, 0]);
        let exact = 10.0 * (-8.0_f64).exp() / (1.0 + (-8.0_f64).exp() + (-9.0_f64).exp());
        assert!((f64::from(all[1].1) - exact).abs() < 1e-8);
    }

    #[test]
    fn a_beam_beyond_the_clusters_is_clamped() {
        assert_eq!(beam(&[0.0, 0.0, 0.0], 50), [(0, 1.0), (1, 1.0), (2, 1.0)]);
    }

    #[test]
    fn clusters_whose_score_underflows_are_kept() {
        assert_eq!(beam(&[-500.0, 0.0, -400.0], 3), [(1, 1.0), (0, 0.0), (2, 0.0)]);
    }
}
