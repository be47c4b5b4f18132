//! From the embeddings and beams of a batch to its loss, its gradients and updated rows.

use std::mem::take;
use std::sync::{Mutex, PoisonError};

use super::adjacency::{LearnedLogits, Reached};
use super::inputs::{AdjacencyRows, Logits, Positives, Queries, Settings};
use super::labels::{LabelPart, LabelPass};
use super::pairs::ByRow;
use super::rows::{Mode, RowGradients, SharedRows, Table, TableRows};
use super::shortlist::{Pair, Paths, Shortlister};
use super::{check, check_len, check_offsets, entries};
use crate::error::{Error, Result};
use crate::kernels::Kernels;
use crate::matrix::MatrixView;
use crate::threads::{self, Hook, Loops, Team, lock};

/// All that goes into the loss of a batch.
pub struct Loss<'a> {
    /// The batch.
    pub queries: Queries<'a>,
    /// Its labels.
    pub positives: Positives<'a>,
    /// The adjacency's pattern.
    pub adjacency: AdjacencyRows<'a>,
    /// Its weights; without them all are 1.
    pub logits: Option<Logits<'a>>,
    /// The label classifiers \[L, D\].
    pub classifiers: Table<'a>,
    /// Numbers.
    pub settings: Settings,
}

/// What a step comes to.
#[derive(Debug, Default)]
pub struct StepResult {
    /// The loss. NaN where cluster scores or logits of the beams' clusters are; nothing was updated then.
    pub loss: f64,
    /// By the embeddings, \[Q, D\]; empty where only the loss was wanted.
    pub embeddings: Vec<f32>,
    /// By the cluster scores, \[Q, C\]; likewise.
    pub cluster_scores: Vec<f32>,
    /// Of the label classifiers, if these are collected.
    pub classifiers: RowGradients,
    /// By the logits of the adjacency; likewise.
    pub logits: RowGradients,
}

impl StepResult {
    fn not_a_number(queries: &Queries<'_>) -> Self {
        Self {
            loss: f64::NAN,
            embeddings: vec![f32::NAN; queries.embeddings.len()],
            cluster_scores: vec![f32::NAN; queries.cluster_scores.len()],
            ..Self::default()
        }
    }
}

/// Computes steps in memory that is kept between them.
#[derive(Default)]
pub struct LabelStep {
    reached: Reached,
    /// By the weights of the reached clusters' edges, if these are learned.
    edge_gradient: Vec<f32>,
    pairs: Vec<Pair>,
    by_label: ByRow,
    parts: Vec<LabelPart>,
    /// By the path score of each pair.
    by_path: Vec<f32>,
}

/// Values of the embeddings' gradient that are added up together.
const SUM_CHUNK: usize = 1 << 12;

impl LabelStep {
    /// The loss Σ BCE(s σ(z), relevance) over the shortlists + λ Σ −log s over the queries' labels that
    /// their beams reach, divided by the divisor; its gradients; and, if `mode` says so, updated rows.
    ///
    /// # Errors
    /// Arrays that don't fit together, ids of nothing, and updates in step 0; nothing was updated then. An interruption, or a
    /// thread's panic, after which some rows may have been updated and others not.
    pub fn run(&mut self, loss: Loss<'_>, mode: Mode, hook: Hook<'_>) -> Result<StepResult> {
        let kernels = Kernels::detect()?;
        let Loss { queries, positives, adjacency, logits, classifiers, settings } = loss;
        let table = TableRows::new(classifiers)?;
        check_inputs(&queries, &positives, &adjacency, &settings, &table)?;
        let logits = logits.map(|logits| LearnedLogits::new(logits, &adjacency)).transpose()?;
        if mode == Mode::Apply {
            table.check_step()?;
            logits.as_ref().map_or(Ok(()), |logits| logits.table.check_step())?;
        }
        if queries.cluster_scores.iter().any(|score| score.is_nan()) {
            return Ok(StepResult::not_a_number(&queries));
        }
        threads::lead(settings.num_threads, hook, |team| {
            self.reached.fill(queries.beam, adjacency.lengths.len())?;
            self.edge_gradient.clear();
            if let Some(logits) = &logits {
                if !self.reached.compute_weights(logits, &adjacency, kernels, team)? {
                    return Ok(StepResult::not_a_number(&queries));
                }
                self.edge_gradient.resize(self.reached.clusters.len() * adjacency.width, 0.0);
            }
            let paths = Paths {
                kernels,
                reached: &self.reached,
                rows: &adjacency,
                num_labels: table.num_rows,
                cluster_scores: queries.cluster_scores,
                positives: &positives,
                size: settings.shortlist_size,
            };
            let stride = find_pairs(&mut self.pairs, &paths, team)?;
            let used = self.pairs.iter().zip(0..).filter(|(pair, _)| pair.is_used());
            self.by_label.fill(used.map(|(pair, number)| (pair.label, number)));
            let learned = logits.is_some();
            let pass = LabelPass {
                kernels,
                table: &table,
                embeddings: MatrixView::new(queries.embeddings, queries.dim),
                pairs: &self.pairs,
                stride,
                by_label: &self.by_label,
                paths: &paths,
                edge_gradient: learned.then(|| SharedRows::new(&mut self.edge_gradient, 1)),
                settings: &settings,
                mode,
            };
            self.parts.resize_with(self.by_label.num_parts(), LabelPart::default);
            team.for_each_part(&mut self.parts, 1, &|part, state| state[0].run(&pass, part))?;

            let total: f64 = self.parts.iter().map(|part| part.loss).sum();
            let mut result =
                StepResult { loss: total / f64::from(settings.divisor), ..StepResult::default() };
            if mode == Mode::Evaluate {
                return Ok(result);
            }
            self.by_path.resize(self.pairs.len(), 0.0);
            let by_path = self.parts.iter().flat_map(|part| &part.by_path);
            for (&number, &by_path) in self.by_label.order.iter().zip(by_path) {
                self.by_path[number as usize] = by_path;
            }
            result.embeddings = sum_of_parts(&self.parts, queries.embeddings.len(), team)?;
            result.cluster_scores =
                cluster_gradient(&self.pairs, &self.by_path, stride, &paths, team)?;
            result.classifiers =
                RowGradients::concat(self.parts.iter_mut().map(|part| take(&mut part.collected)));
            if let Some(logits) = &logits {
                let gradient = &mut self.edge_gradient;
                result.logits =
                    self.reached.finish(logits, &adjacency, gradient, mode, kernels, team)?;
            }
            Ok(result)
        })
    }
}

fn check_inputs(
    queries: &Queries<'_>,
    positives: &Positives<'_>,
    adjacency: &AdjacencyRows<'_>,
    settings: &Settings,
    table: &TableRows<'_>,
) -> Result<()> {
    check(queries.dim == table.dim, || {
        format!("embeddings must have dim {}, got {}", table.dim, queries.dim)
    })?;
    let num_queries = queries.embeddings.len() / queries.dim;
    check_len("embeddings", queries.embeddings.len(), num_queries * queries.dim)?;
    let (num_clusters, width) = (adjacency.lengths.len(), adjacency.width);
    check_len("cluster_scores", queries.cluster_scores.len(), num_queries * num_clusters)?;
    let beam_fits = queries.beam.len().is_multiple_of(num_queries.max(1));
    check(beam_fits, || "the beam must have as many rows as the embeddings".into())?;
    let in_range = |score: &f32| !(*score < 0.0 || *score > 1.0);
    check(queries.cluster_scores.iter().all(in_range), || {
        "cluster scores must lie between 0 and 1".into()
    })?;

    let num_labels = positives.labels.len();
    check_offsets("the labels' offsets", positives.offsets, num_queries, num_labels)?;
    check_len("relevance", positives.relevance.len(), num_labels)?;
    check(positives.relevance.iter().all(|&r| r > 0.0 && r <= 1.0), || {
        "relevances must be above 0 and at most 1".into()
    })?;

    check_len("the adjacency's labels", adjacency.labels.len(), num_clusters * width)?;
    let longest =
        adjacency.lengths.iter().all(|&len| usize::try_from(len).is_ok_and(|l| l <= width));
    check(longest, || format!("the adjacency's lengths must lie between 0 and {width}"))?;
    check(
        adjacency.labels.len() < u32::MAX as usize && table.num_rows < u32::MAX as usize,
        || "there are too many labels or edges for 32 bits".into(),
    )?;
    // Not all offsets: there are as many as labels.
    check_len("label_offsets", adjacency.label_offsets.len(), table.num_rows + 1)?;
    check(settings.shortlist_size > 0, || "the shortlist size must be at least 1".into())?;
    check(settings.divisor > 0.0, || "the divisor must be positive".into())
}

/// Finds the pairs of all queries. Returns how many each has room for.
fn find_pairs(pairs: &mut Vec<Pair>, paths: &Paths<'_>, team: &mut Team<'_>) -> Result<usize> {
    let offsets = paths.positives.offsets;
    let num_queries = offsets.len() - 1;
    let most = (0..num_queries).map(|query| entries(offsets, query).len()).max().unwrap_or(0);
    let stride = paths.size.min(paths.num_labels) + most;
    check(num_queries * stride < u32::MAX as usize, || "the batch is too large".into())?;
    pairs.clear();
    pairs.resize(num_queries * stride, Pair::UNUSED);
    // What the first query takes is about what the others do. (Not learned from query to query: that would
    // depend on which thread does which.)
    let count = match pairs.get_mut(..stride) {
        Some(out) => Shortlister::default().fill(paths, 0, paths.size, out)?,
        None => paths.size,
    };
    let idle: Mutex<Vec<Shortlister>> = Mutex::default();
    let failure: Mutex<Option<Error>> = Mutex::default();
    team.for_each_part(pairs, stride, &|query, out| {
        let mut shortlister = lock(&idle).pop().unwrap_or_default();
        if let Err(error) = shortlister.fill(paths, query, count, out) {
            *lock(&failure) = Some(error);
        }
        lock(&idle).push(shortlister);
    })?;
    let failure = failure.into_inner().unwrap_or_else(PoisonError::into_inner);
    failure.map_or(Ok(stride), Err)
}

/// The sum of the parts' gradients by the embeddings, in the parts' order.
fn sum_of_parts(parts: &[LabelPart], len: usize, team: &mut Team<'_>) -> Result<Vec<f32>> {
    let mut sum = vec![0.0; len];
    team.for_each_part(&mut sum, SUM_CHUNK, &|chunk, sum| {
        for part in parts {
            let values = &part.query_gradients[chunk * SUM_CHUNK..];
            for (sum, value) in sum.iter_mut().zip(values) {
                *sum += value;
            }
        }
    })?;
    Ok(sum)
}

/// From gradients by the pairs' path scores s_c · a to those by the cluster scores s_c.
fn cluster_gradient(
    pairs: &[Pair],
    by_path: &[f32],
    stride: usize,
    paths: &Paths<'_>,
    team: &mut Team<'_>,
) -> Result<Vec<f32>> {
    let mut gradient = vec![0.0; paths.cluster_scores.len()];
    team.for_each_part(&mut gradient, paths.rows.lengths.len(), &|query, gradient| {
        let own = query * stride..(query + 1) * stride;
        let used =
            pairs[own.clone()].iter().zip(&by_path[own]).take_while(|(pair, _)| pair.is_used());
        for (pair, by_path) in used {
            let slot = pair.slot as usize;
            let cluster = paths.reached.clusters[slot / paths.rows.width] as usize;
            gradient[cluster] += by_path * paths.reached.weight(slot);
        }
    })?;
    Ok(gradient)
}
