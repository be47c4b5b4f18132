//! One label after the other: its examples, its classifier.

use super::RankerOptions;
use super::examples::LabelExamples;
use super::solver::{Limits, Problem, Solver};
use crate::scramble::scramble;
use crate::sparse::SparseRows;

/// One label's classifier.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct Classifier {
    /// By feature; none is 0.
    pub(super) weights: Vec<(u32, f32)>,
    pub(super) bias: f32,
}

/// The bias of labels without texts.
const UNSEEN: f32 = -1.0;

/// The memory that a thread trains in.
pub(super) struct Trainer {
    /// [`MAX_ENTRIES`].
    pub(super) max_entries: usize,
    /// Where a feature's weight lies, or [`NOWHERE`], which all are between two labels; \[F\].
    place_of: Vec<u32>,
    /// The features that have a weight.
    features: Vec<u32>,
    /// The examples' entries: places and values.
    columns: Vec<u32>,
    values: Vec<f32>,
    spans: Vec<[usize; 2]>,
    signs: Vec<f32>,
    costs: Vec<f32>,
    solver: Solver,
    kept: Vec<(u32, f32)>,
}

const NOWHERE: u32 = u32::MAX;

/// Entries of the examples of each class that a label is trained on, about: with more, evenly spread examples stand for
/// all, at a cost that makes up for it. So a thread's memory stays within some hundred megabytes.
const MAX_ENTRIES: usize = 1 << 23;

impl Trainer {
    pub(super) fn new(num_features: usize) -> Self {
        Self {
            max_entries: MAX_ENTRIES,
            place_of: vec![NOWHERE; num_features],
            features: Vec::new(),
            columns: Vec::new(),
            values: Vec::new(),
            spans: Vec::new(),
            signs: Vec::new(),
            costs: Vec::new(),
            solver: Solver::default(),
            kept: Vec::new(),
        }
    }

    /// The classifier of a label, with at most `limit` weights.
    pub(super) fn train(
        &mut self,
        rows: &SparseRows<'_>,
        examples: LabelExamples<'_>,
        options: &RankerOptions,
        limit: usize,
        label: u64,
    ) -> Classifier {
        let [own, other] = examples.by_class();
        if own.is_empty() {
            return Classifier { weights: Vec::new(), bias: UNSEEN };
        }
        self.clear();
        self.number_features(rows, &own);
        self.copy(rows, &own, 1.0, options.positive_cost);
        self.copy(rows, &other, -1.0, options.negative_cost);
        self.features.iter().for_each(|&feature| self.place_of[feature as usize] = NOWHERE);
        let problem = Problem {
            spans: &self.spans,
            columns: &self.columns,
            values: &self.values,
            num_columns: self.features.len(),
            signs: &self.signs,
            costs: &self.costs,
        };
        let limits = Limits { tolerance: options.tolerance, max_passes: options.max_passes };
        self.solver.solve(&problem, limits, scramble(options.seed ^ scramble(label)));
        self.keep_largest(limit);
        Classifier { weights: self.kept.clone(), bias: self.solver.bias }
    }

    fn clear(&mut self) {
        self.features.clear();
        self.columns.clear();
        self.values.clear();
        self.spans.clear();
        self.signs.clear();
        self.costs.clear();
    }

    /// Gives the features of the label's own texts places.
    fn number_features(&mut self, rows: &SparseRows<'_>, own: &[(u32, f32)]) {
        for &(text, _) in own {
            for (feature, _) in rows.row(text as usize) {
                let place = &mut self.place_of[feature];
                if *place == NOWHERE {
                    *place = self.features.len() as u32;
                    self.features.push(feature as u32);
                }
            }
        }
    }

    /// Copies the entries that have a place, so that they lie together, as the weights do.
    fn copy(&mut self, rows: &SparseRows<'_>, examples: &[(u32, f32)], sign: f32, cost: f32) {
        let lengths = examples.iter().map(|&(text, _)| rows.row(text as usize).len());
        let step = lengths.sum::<usize>().div_ceil(self.max_entries).max(1);
        for &(text, weight) in examples.iter().step_by(step) {
            let start = self.columns.len();
            for (feature, value) in rows.row(text as usize) {
                let place = self.place_of[feature];
                if place != NOWHERE {
                    self.columns.push(place);
                    self.values.push(value);
                }
            }
            self.spans.push([start, self.columns.len()]);
            self.signs.push(sign);
            self.costs.push(cost * weight * step as f32);
        }
    }

    /// Keeps the `limit` largest weights that aren't 0.
    fn keep_largest(&mut self, limit: usize) {
        let weights = self.features.iter().copied().zip(self.solver.weights.iter().copied());
        self.kept.clear();
        self.kept.extend(weights.filter(|weight| weight.1 != 0.0));
        if self.kept.len() > limit {
            self.kept.select_nth_unstable_by(limit, |a, b| {
                b.1.abs().total_cmp(&a.1.abs()).then(a.0.cmp(&b.0))
            });
            self.kept.truncate(limit);
        }
        self.kept.sort_unstable_by_key(|weight| weight.0);
    }
}
