//! The sparse ranker: a linear classifier of each label on the texts' sparse features.
//!
//! A label's classifier is learned from its own texts and from those that the search mistakes for its own, whose
//! shortlist holds it ([`examples`]). Labels are independent of one another: each is solved ([`solver`]) by one thread, with a
//! seed of its own, so that the result has the same bits with any number of threads. Of its weights only the largest are
//! kept.
//!
//! N texts, F features, L labels, K shortlist.

mod examples;
mod solver;

use std::cmp::Reverse;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::check;
use crate::error::Result;
use crate::progress::Progress;
use crate::scramble::scramble;
use crate::sparse::SparseRows;
use crate::threads::{self, Hook, Loops};
use examples::{Examples, LabelExamples};
use solver::{Limits, Problem, Solver};

pub use examples::RankerData;

/// How a ranker is trained.
#[derive(Debug, Clone, Copy)]
pub struct RankerOptions {
    /// c of a text that has the label, times its relevance: what a wrong margin costs, beside large weights.
    pub positive_cost: f32,
    /// c of a text that doesn't have it.
    pub negative_cost: f32,
    /// How exactly a label is solved: the range that the dual's gradient may keep.
    pub tolerance: f32,
    /// Passes over a label's examples at most.
    pub max_passes: usize,
    /// Weights that a label keeps at most.
    pub weights_per_label: usize,
    /// Of the order of examples.
    pub seed: u64,
    /// Threads at most; those that are available without it.
    pub num_threads: Option<usize>,
}

/// A classifier of each label: margins are w·x + b.
#[derive(Debug, Clone, PartialEq)]
pub struct Ranker {
    /// Where each label's weights start and end, \[L + 1\].
    pub offsets: Vec<i64>,
    /// The feature of each weight, ascending within a label.
    pub features: Vec<i32>,
    /// The weights.
    pub weights: Vec<f32>,
    /// b, \[L\]. A label without texts has −1 and no weights.
    pub bias: Vec<f32>,
}

/// Entries of a label's examples up to which they are copied: to one place, where passes find them, and with columns
/// numbered anew, so that the weights lie together too. More would touch most of the features anyway.
const MAX_COPIED: usize = 1 << 21;

/// The bias of labels without texts.
const UNSEEN: f32 = -1.0;

/// One label's classifier.
#[derive(Default, Clone)]
struct Classifier {
    /// By feature.
    weights: Vec<(u32, f32)>,
    bias: f32,
}

/// The memory that a thread trains in.
struct Trainer {
    /// [`MAX_COPIED`].
    max_copied: usize,
    /// Where a feature's weight lies, or [`NOWHERE`], which all are between two labels; \[F\].
    place_of: Vec<u32>,
    /// The features of the weights, where they are numbered anew.
    features: Vec<u32>,
    columns: Vec<u32>,
    values: Vec<f32>,
    spans: Vec<[usize; 2]>,
    signs: Vec<f32>,
    costs: Vec<f32>,
    solver: Solver,
    kept: Vec<(u32, f32)>,
}

const NOWHERE: u32 = u32::MAX;

/// Trains a classifier for each label.
///
/// `hook` is called now and then, by the calling thread; true stops the training.
///
/// # Errors
/// [`Error::Argument`](crate::Error::Argument) for arrays that don't fit one another and settings that are out of range;
/// [`Error::Interrupted`](crate::Error::Interrupted) when the hook asked to stop.
pub fn train_ranker(
    data: &RankerData<'_>,
    options: RankerOptions,
    progress: &Progress,
    hook: Hook<'_>,
) -> Result<Ranker> {
    data.check()?;
    options.check()?;
    let examples = Examples::new(data)?;
    let num_threads = threads::available().min(options.num_threads.unwrap_or(usize::MAX));
    // Those with the most examples first, so that no thread is left with one of them in the end.
    let mut order: Vec<usize> = (0..examples.num_labels()).collect();
    order.sort_by_key(|&label| Reverse(examples.of(label).texts.len()));
    progress.start(order.iter().map(|&label| examples.of(label).texts.len()).sum());

    let mut classifiers = vec![Classifier::default(); order.len()];
    let idle: Mutex<Vec<Trainer>> = Mutex::default();
    threads::lead(num_threads, hook, |team| {
        team.for_each_part(&mut classifiers, 1, &|number, classifier| {
            let (label, examples) = (order[number], examples.of(order[number]));
            let taken = lock(&idle).pop();
            let mut trainer = taken.unwrap_or_else(|| Trainer::new(data.features.num_columns));
            classifier[0] = trainer.train(&data.features, examples, options, label as u64);
            lock(&idle).push(trainer);
            progress.add(examples.texts.len());
        })
    })?;
    Ok(Ranker::new(&classifiers, &order))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl RankerOptions {
    fn check(&self) -> Result<()> {
        for (name, value) in [
            ("positive_cost", self.positive_cost),
            ("negative_cost", self.negative_cost),
            ("tolerance", self.tolerance),
        ] {
            let good = value.is_finite() && value > 0.0;
            check(good, || format!("{name} must be finite and positive, got {value}"))?;
        }
        check(self.max_passes > 0, || "max_passes must be at least 1".into())?;
        check(self.weights_per_label > 0, || "weights_per_label must be at least 1".into())
    }
}

impl Ranker {
    /// Gathers classifiers, which come in the order of `labels`.
    fn new(classifiers: &[Classifier], labels: &[usize]) -> Self {
        let mut number_of = vec![0; labels.len()];
        labels.iter().enumerate().for_each(|(number, &label)| number_of[label] = number);
        let num_weights = classifiers.iter().map(|classifier| classifier.weights.len()).sum();
        let mut ranker = Self {
            offsets: Vec::with_capacity(labels.len() + 1),
            features: Vec::with_capacity(num_weights),
            weights: Vec::with_capacity(num_weights),
            bias: Vec::with_capacity(labels.len()),
        };
        ranker.offsets.push(0);
        for &number in &number_of {
            let Classifier { weights, bias } = &classifiers[number];
            ranker.features.extend(weights.iter().map(|weight| weight.0 as i32));
            ranker.weights.extend(weights.iter().map(|weight| weight.1));
            ranker.offsets.push(ranker.weights.len() as i64);
            ranker.bias.push(*bias);
        }
        ranker
    }
}

impl Trainer {
    fn new(num_features: usize) -> Self {
        Self {
            max_copied: MAX_COPIED,
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

    fn train(
        &mut self,
        rows: &SparseRows<'_>,
        examples: LabelExamples<'_>,
        options: RankerOptions,
        label: u64,
    ) -> Classifier {
        if examples.relevances.iter().all(|&relevance| relevance == 0.0) {
            return Classifier { weights: Vec::new(), bias: UNSEEN };
        }
        self.weigh(examples.relevances, options);
        let num_entries: usize = examples
            .texts
            .iter()
            .map(|&text| span(rows, text))
            .map(|[start, end]| end - start)
            .sum();
        let copied = num_entries <= self.max_copied;
        if copied {
            self.copy(rows, examples.texts);
        } else {
            self.spans.clear();
            self.spans.extend(examples.texts.iter().map(|&text| span(rows, text)));
        }
        let (columns, values, num_columns) = if copied {
            (&*self.columns, &*self.values, self.features.len())
        } else {
            (bytemuck::cast_slice(rows.columns), rows.values, rows.num_columns)
        };
        let (spans, signs, costs) = (&self.spans, &self.signs, &self.costs);
        let problem = Problem { spans, columns, values, num_columns, signs, costs };
        let limits = Limits { tolerance: options.tolerance, max_passes: options.max_passes };
        self.solver.solve(&problem, limits, scramble(options.seed ^ scramble(label)));
        let weights = self.solver.weights.iter().enumerate().map(|(place, &weight)| {
            (if copied { self.features[place] } else { place as u32 }, weight)
        });
        keep_largest(weights, options.weights_per_label, &mut self.kept);
        Classifier { weights: self.kept.clone(), bias: self.solver.bias }
    }

    /// Sets the sign and cost of each example.
    fn weigh(&mut self, relevances: &[f32], options: RankerOptions) {
        self.signs.clear();
        self.costs.clear();
        for &relevance in relevances {
            let own = relevance > 0.0;
            self.signs.push(if own { 1.0 } else { -1.0 });
            let cost = options.positive_cost * relevance;
            self.costs.push(if own { cost } else { options.negative_cost });
        }
    }

    /// Copies the texts' entries to one place, with columns numbered in the order in which they come.
    fn copy(&mut self, rows: &SparseRows<'_>, texts: &[u32]) {
        self.features.clear();
        self.columns.clear();
        self.values.clear();
        self.spans.clear();
        for &text in texts {
            let start = self.columns.len();
            for (feature, value) in rows.row(text as usize) {
                let place = &mut self.place_of[feature];
                if *place == NOWHERE {
                    *place = self.features.len() as u32;
                    self.features.push(feature as u32);
                }
                self.columns.push(*place);
                self.values.push(value);
            }
            self.spans.push([start, self.columns.len()]);
        }
        self.features.iter().for_each(|&feature| self.place_of[feature as usize] = NOWHERE);
    }
}

/// Where a text's entries start and end.
fn span(rows: &SparseRows<'_>, text: u32) -> [usize; 2] {
    [rows.offsets[text as usize] as usize, rows.offsets[text as usize + 1] as usize]
}

/// The `limit` largest weights that aren't 0, by feature.
fn keep_largest(
    weights: impl Iterator<Item = (u32, f32)>,
    limit: usize,
    kept: &mut Vec<(u32, f32)>,
) {
    kept.clear();
    kept.extend(weights.filter(|weight| weight.1 != 0.0));
    if kept.len() > limit {
        kept.select_nth_unstable_by(limit, |a, b| {
            b.1.abs().total_cmp(&a.1.abs()).then(a.0.cmp(&b.0))
        });
        kept.truncate(limit);
    }
    kept.sort_unstable_by_key(|weight| weight.0);
}

#[cfg(test)]
mod tests;
