//! The sparse ranker: a linear classifier of each label on the texts' sparse features.
//!
//! A label's classifier is learned from its own texts and from those that the search mistakes for its own, whose
//! shortlist holds it ([`examples`]). It knows the features of its own texts alone: what else the others have would take
//! most of the weights and of the time, and adds next to nothing. Labels are independent of one another: each is
//! solved ([`solver`]) by one thread ([`trainer`]), with a seed of its own, so that the result has the same bits with any number
//! of threads. Of all labels' weights together the largest are kept.
//!
//! N texts, F features, L labels, K shortlist.

mod examples;
mod solver;
mod trainer;

use std::cmp::Reverse;
use std::sync::Mutex;

use super::check;
use crate::error::Result;
use crate::progress::Progress;
use crate::threads::{self, Hook, Loops, lock};
use examples::Examples;
use trainer::{Classifier, Trainer};

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
    /// Weights that labels keep on average at most, the largest ones of all; a single label keeps up to
    /// 32 times as many.
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

/// How many times the average number of weights a single label may keep.
const PEAK: usize = 32;

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

    let limit = options.weights_per_label.saturating_mul(PEAK);
    let mut classifiers = vec![Classifier::default(); order.len()];
    let idle: Mutex<Vec<Trainer>> = Mutex::default();
    threads::lead(num_threads, hook, |team| {
        team.for_each_part(&mut classifiers, 1, &|number, classifier| {
            let (label, examples) = (order[number], examples.of(order[number]));
            let taken = lock(&idle).pop();
            let mut trainer = taken.unwrap_or_else(|| Trainer::new(data.features.num_columns));
            classifier[0] = trainer.train(&data.features, examples, &options, limit, label as u64);
            lock(&idle).push(trainer);
            progress.add(examples.texts.len());
        })
    })?;
    keep_largest(&mut classifiers, options.weights_per_label.saturating_mul(order.len()));
    Ok(Ranker::new(&classifiers, &order))
}

/// Drops all but the `limit` largest weights of all classifiers; of equal ones those of later classifiers go first.
fn keep_largest(classifiers: &mut [Classifier], limit: usize) {
    let weights = classifiers.iter().flat_map(|classifier| &classifier.weights);
    let mut sizes: Vec<f32> = weights.map(|weight| weight.1.abs()).collect();
    if sizes.len() <= limit {
        return;
    }
    let (larger, &mut bound, _) = sizes.select_nth_unstable_by(limit, |a, b| b.total_cmp(a));
    let mut room = limit - larger.iter().filter(|size| **size > bound).count();
    for classifier in classifiers {
        classifier.weights.retain(|&(_, weight)| {
            let fits = weight.abs() == bound && room > 0;
            room -= usize::from(fits);
            fits || weight.abs() > bound
        });
        classifier.weights.shrink_to_fit();
    }
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

#[cfg(test)]
mod tests;
