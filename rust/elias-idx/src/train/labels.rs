//! The one visit of each touched label's row: logits, losses, gradients, update.

use super::inputs::Settings;
use super::pairs::{ByRow, Group, entries_of};
use super::rows::{Mode, RowGradients, SharedRows, TableRows};
use super::shortlist::{Pair, Paths};
use crate::kernels::{Kernels, PairLosses, RowValues};
use crate::matrix::MatrixView;

/// Labels whose rows stay in the cache between the two looks at them.
const BLOCK_ROWS: usize = 32;
/// Pairs that end a block.
const BLOCK_PAIRS: usize = 512;
/// Rows that are fetched ahead of their use.
const ROWS_AHEAD: usize = 6;

/// What the visits need; the same for all parts.
pub(super) struct LabelPass<'a> {
    pub(super) kernels: Kernels,
    pub(super) table: &'a TableRows<'a>,
    /// \[Q, D\].
    pub(super) embeddings: MatrixView<'a>,
    pub(super) pairs: &'a [Pair],
    /// Pairs that a query has room for.
    pub(super) stride: usize,
    pub(super) by_label: &'a ByRow,
    pub(super) paths: &'a Paths<'a>,
    /// By the weights of the reached clusters' edges, by slot, if these are learned.
    pub(super) edge_gradient: Option<SharedRows<'a, f32>>,
    pub(super) settings: &'a Settings,
    pub(super) mode: Mode,
}

/// What a part of the labels comes to, in memory that is reused.
#[derive(Default)]
pub(super) struct LabelPart {
    /// Σ of the pairs' losses, not yet divided.
    pub(super) loss: f64,
    /// \[Q, D\].
    pub(super) query_gradients: Vec<f32>,
    /// By the path score of each pair, in the order of [`ByRow`].
    pub(super) by_path: Vec<f32>,
    pub(super) collected: RowGradients,
    block: Block,
    row: Vec<f32>,
    gradient: Vec<f32>,
}

/// The pairs of some labels.
#[derive(Default)]
struct Block {
    queries: Vec<u32>,
    path_scores: Vec<f32>,
    logits: Vec<f32>,
    losses: Vec<f32>,
    by_logit: Vec<f32>,
    by_path: Vec<f32>,
    /// Queries and derivatives by the logit of the pairs that aren't skipped, label by label.
    kept: Vec<(u32, f32)>,
    /// Labels with such pairs, and where these end.
    kept_rows: Vec<(usize, usize)>,
}

impl LabelPart {
    /// Visits the labels of a part.
    pub(super) fn run(&mut self, pass: &LabelPass<'_>, part: usize) {
        let groups = pass.by_label.part(part);
        self.start(pass);
        let mut first = 0;
        while first + 1 < groups.len() {
            let count = block_len(&groups[first..]);
            let ahead = (first + count).min(groups.len() - 1);
            let next = &groups[ahead..groups.len().min(ahead + ROWS_AHEAD)];
            self.visit(pass, &groups[first..=first + count], next);
            first += count;
        }
    }

    fn start(&mut self, pass: &LabelPass<'_>) {
        self.loss = 0.0;
        self.by_path.clear();
        self.collected = RowGradients::default();
        self.query_gradients.clear();
        if pass.mode != Mode::Evaluate {
            self.query_gradients.resize(pass.embeddings.values().len(), 0.0);
        }
        self.gradient.resize(pass.embeddings.cols(), 0.0);
    }

    fn visit(&mut self, pass: &LabelPass<'_>, groups: &[Group], next: &[Group]) {
        self.compute_logits(pass, groups, next);
        let Block { path_scores, logits, losses, by_logit, by_path, .. } = &mut self.block;
        pass.kernels.irrelevant_pairs(
            logits,
            path_scores,
            PairLosses { losses, by_logit, by_path },
        );
        self.finish_pairs(pass, groups);
        if pass.mode != Mode::Evaluate {
            self.update_rows(pass, groups);
        }
        self.by_path.extend_from_slice(&self.block.by_path);
    }

    fn compute_logits(&mut self, pass: &LabelPass<'_>, groups: &[Group], next: &[Group]) {
        let block = &mut self.block;
        let first = groups[0].start as usize;
        let all = first..groups[groups.len() - 1].start as usize;
        block.resize(all.len());
        for (at, &number) in pass.by_label.order[all].iter().enumerate() {
            block.queries[at] = number / pass.stride as u32;
            block.path_scores[at] = pass.pairs[number as usize].path_score;
        }
        for (at, pair) in groups.windows(2).enumerate() {
            if let Some(ahead) = groups[..groups.len() - 1].iter().chain(next).nth(at + ROWS_AHEAD)
            {
                pass.table.prefetch_values(ahead.row as usize);
            }
            let label = pair[0].row as usize;
            let entries = entries_of(pair);
            let range = entries.start - first..entries.end - first;
            let logits = &mut block.logits[range.clone()];
            // SAFETY: this part alone visits the label, and it isn't being updated now.
            let (row, bias) = unsafe { (pass.table.values(label), pass.table.bias(label)) };
            pass.kernels.row_dots(row, pass.embeddings, &block.queries[range], logits);
            for logit in logits {
                *logit += bias;
            }
        }
    }

    /// Adds the losses up, puts those of relevant pairs right, and finds the pairs that aren't skipped.
    fn finish_pairs(&mut self, pass: &LabelPass<'_>, groups: &[Group]) {
        let block = &mut self.block;
        block.kept.clear();
        block.kept_rows.clear();
        let scale = 1.0 / pass.settings.divisor;
        let numbers = &pass.by_label.order[groups[0].start as usize..];
        for (group, pair) in groups.windows(2).enumerate() {
            let kept_before = block.kept.len();
            for entry in entries_of(pair) {
                let at = entry - groups[0].start as usize;
                let pair = &pass.pairs[numbers[at] as usize];
                if pair.relevance > 0.0 {
                    block.make_relevant(at, pair, pass.settings.path_loss_weight);
                }
                self.loss += f64::from(block.losses[at]);
                block.by_path[at] *= scale;
                let by_logit = block.by_logit[at] * scale;
                if by_logit.abs() >= pass.settings.skip_below && by_logit != 0.0 {
                    block.kept.push((block.queries[at], by_logit));
                }
                if let Some(edges) = &pass.edge_gradient {
                    let slot = pair.slot as usize;
                    let number = slot / pass.paths.rows.width;
                    let score = pass.paths.cluster_score(block.queries[at] as usize, number);
                    // SAFETY: a pair's slot holds an edge to its label, which this part alone visits.
                    unsafe { edges.row(slot)[0] += block.by_path[at] * score };
                }
            }
            if block.kept.len() > kept_before {
                block.kept_rows.push((group, block.kept.len()));
            }
        }
    }

    fn update_rows(&mut self, pass: &LabelPass<'_>, groups: &[Group]) {
        let block = &self.block;
        let mut first = 0;
        for (at, &(group, end)) in block.kept_rows.iter().enumerate() {
            if let (Mode::Apply, Some(ahead)) = (pass.mode, block.kept_rows.get(at + 2)) {
                pass.table.prefetch_moments(groups[ahead.0].row as usize);
            }
            let label = groups[group].row as usize;
            let pairs = &block.kept[first..end];
            first = end;
            self.gradient.fill(0.0);
            // SAFETY: this part alone visits the label, and the row is updated only below.
            let row = match unsafe { pass.table.values(label) } {
                RowValues::Float32(row) => row,
                RowValues::BFloat16(row) => {
                    self.row.clear();
                    self.row.extend(row.iter().map(|value| value.to_f32()));
                    &self.row
                }
            };
            let (gradient, sums) = (&mut self.gradient, &mut self.query_gradients);
            pass.kernels.add_pairs(row, pass.embeddings, pairs, gradient, sums);
            let bias_gradient = pairs.iter().map(|&(_, by_logit)| by_logit).sum();
            if pass.mode == Mode::Apply {
                // SAFETY: this part alone visits the label, and nothing refers to its row any more.
                unsafe { pass.table.update(pass.kernels, label, gradient, bias_gradient) };
            } else {
                self.collected.rows.push(label as i64);
                self.collected.weight.extend_from_slice(gradient);
                if pass.table.has_bias() {
                    self.collected.bias.push(bias_gradient);
                }
            }
        }
    }
}

/// How many of the groups form the next block; the last one only tells where the one before ends.
fn block_len(groups: &[Group]) -> usize {
    let most = BLOCK_ROWS.min(groups.len() - 1);
    let full = |count: &usize| (groups[*count].start - groups[0].start) as usize >= BLOCK_PAIRS;
    (1..most).find(full).unwrap_or(most)
}

impl Block {
    fn resize(&mut self, len: usize) {
        self.queries.resize(len, 0);
        for values in [
            &mut self.path_scores,
            &mut self.logits,
            &mut self.losses,
            &mut self.by_logit,
            &mut self.by_path,
        ] {
            values.resize(len, 0.0);
        }
    }

    /// Replaces the loss of an irrelevant pair and its derivatives by those of a label with a relevance.
    fn make_relevant(&mut self, at: usize, pair: &Pair, path_loss_weight: f32) {
        const SMALLEST_SCORE: f32 = 1e-30;
        let (logit, score) = (f64::from(self.logits[at]), pair.path_score);
        let log_score = f64::from(score.max(SMALLEST_SCORE)).ln();
        // min(1, ·) passes no gradient on, nor does what keeps the logarithm finite.
        let by_log = if (SMALLEST_SCORE..1.0).contains(&score) { -1.0 / score } else { 0.0 };
        let (mut loss, mut by_logit, mut by_path) = (0.0, 0.0, 0.0);
        if pair.shortlisted {
            let relevance = pair.relevance;
            let softplus = (-logit).max(0.0) + (-logit.abs()).exp().ln_1p();
            let sigmoid_of_minus = (1.0 / (1.0 + logit.exp())) as f32;
            let (own, rest) = (relevance, 1.0 - relevance);
            loss = own * (softplus - log_score) as f32 + rest * self.losses[at];
            by_logit = rest * self.by_logit[at] - own * sigmoid_of_minus;
            by_path = own * by_log + rest * self.by_path[at];
        }
        self.losses[at] = loss - path_loss_weight * log_score as f32;
        self.by_logit[at] = by_logit;
        self.by_path[at] = by_path + path_loss_weight * by_log;
    }
}
