use proptest::prelude::*;

use super::examples::LabelExamples;
use super::*;
use crate::sparse::SparseRows;

/// CSR arrays.
#[derive(Debug, Clone)]
struct Rows {
    offsets: Vec<i64>,
    columns: Vec<i32>,
    values: Vec<f32>,
    num_columns: usize,
}

impl Rows {
    /// Zeros aren't stored.
    fn new(rows: &[Vec<f32>], num_columns: usize) -> Self {
        let mut own = Self { offsets: vec![0], columns: vec![], values: vec![], num_columns };
        for row in rows {
            for (column, &value) in (0..).zip(row).filter(|(_, value)| **value != 0.0) {
                own.columns.push(column);
                own.values.push(value);
            }
            own.offsets.push(own.columns.len() as i64);
        }
        own
    }

    fn view(&self) -> SparseRows<'_> {
        let Self { offsets, columns, values, num_columns } = self;
        SparseRows { offsets, columns, values, num_columns: *num_columns }
    }
}

const OPTIONS: RankerOptions = RankerOptions {
    positive_cost: 1.0,
    negative_cost: 0.5,
    tolerance: 1e-4,
    max_passes: 2000,
    weights_per_label: usize::MAX,
    seed: 0,
    num_threads: Some(1),
};

#[derive(Debug, Clone)]
struct Case {
    features: Vec<Vec<f32>>,
    labels: Vec<Vec<f32>>,
    shortlists: Vec<i64>,
}

const TEXTS: usize = 12;
const FEATURES: usize = 5;
const LABELS: usize = 4;

fn cases() -> impl Strategy<Value = Case> {
    let feature = (0..4_i32).prop_map(|value| value as f32 / 3.0 - 0.3).boxed();
    let features = prop::collection::vec(prop::collection::vec(feature, FEATURES), TEXTS);
    let relevance = prop_oneof![3 => Just(0.0_f32), 1 => Just(1.0), 1 => Just(0.5)];
    let labels = prop::collection::vec(prop::collection::vec(relevance, LABELS), TEXTS);
    let shortlists = prop::collection::vec(-1..LABELS as i64, TEXTS * 2);
    (features, labels, shortlists).prop_map(|(features, labels, shortlists)| Case {
        features,
        labels,
        shortlists,
    })
}

fn train(case: &Case, options: RankerOptions) -> Ranker {
    let (features, labels) = (Rows::new(&case.features, FEATURES), Rows::new(&case.labels, LABELS));
    let data = RankerData {
        features: features.view(),
        labels: labels.view(),
        shortlists: &case.shortlists,
    };
    train_ranker(&data, options, &Progress::default(), &mut || false).unwrap()
}

impl Ranker {
    fn dense(&self, label: usize) -> Vec<f64> {
        let mut weights = vec![0.0; FEATURES];
        for at in self.offsets[label] as usize..self.offsets[label + 1] as usize {
            weights[self.features[at] as usize] = f64::from(self.weights[at]);
        }
        weights.push(f64::from(self.bias[label]));
        weights
    }
}

/// The objective's gradient by the weights and the bias, from its definition; None for a label without texts.
fn gradient(case: &Case, ranker: &Ranker, label: usize) -> Option<Vec<f64>> {
    let weights = ranker.dense(label);
    let mut gradient = weights.clone();
    case.labels.iter().find(|own| own[label] > 0.0)?;
    for (text, features) in case.features.iter().enumerate() {
        let relevance = case.labels[text][label];
        let listed = case.shortlists[2 * text..2 * text + 2].contains(&(label as i64));
        let (sign, cost) = match (relevance > 0.0, listed) {
            (true, _) => (1.0, OPTIONS.positive_cost * relevance),
            (false, true) => (-1.0, OPTIONS.negative_cost),
            (false, false) => continue,
        };
        let inputs: Vec<f64> = features.iter().copied().chain([1.0]).map(f64::from).collect();
        let margin: f64 = inputs.iter().zip(&weights).map(|(x, w)| x * w).sum();
        let slack = (1.0 - sign * margin).max(0.0);
        for (gradient, x) in gradient.iter_mut().zip(&inputs) {
            *gradient -= 2.0 * f64::from(cost) * slack * sign * x;
        }
    }
    // Of other features than its own texts' a label knows nothing.
    for (feature, gradient) in gradient[..FEATURES].iter_mut().enumerate() {
        let is_own =
            |text: usize| case.labels[text][label] > 0.0 && case.features[text][feature] != 0.0;
        if !(0..TEXTS).any(is_own) {
            assert_eq!(weights[feature], 0.0);
            *gradient = 0.0;
        }
    }
    Some(gradient)
}

proptest! {
    #[test]
    fn the_objective_is_at_its_minimum(case in cases()) {
        let ranker = train(&case, OPTIONS);
        for label in 0..LABELS {
            match gradient(&case, &ranker, label) {
                Some(gradient) => prop_assert!(gradient.iter().all(|by| by.abs() < 5e-3), "{:?}", gradient),
                None => prop_assert_eq!(ranker.dense(label), [vec![0.0; FEATURES], vec![-1.0]].concat()),
            }
        }
    }

    #[test]
    fn threads_change_no_bit_and_pruning_keeps_the_largest(case in cases(), limit in 1..5_usize) {
        let whole = train(&case, OPTIONS);
        let options = RankerOptions { weights_per_label: limit, num_threads: Some(3), ..OPTIONS };
        let pruned = train(&case, options);
        prop_assert_eq!(&whole.bias, &pruned.bias);
        let weights = |ranker: &Ranker| -> Vec<f64> {
            (0..LABELS).flat_map(|label| ranker.dense(label)[..FEATURES].to_vec()).collect()
        };
        let (all, kept) = (weights(&whole), weights(&pruned));
        prop_assert_eq!(pruned.weights.len(), whole.weights.len().min(limit * LABELS));
        let (mut least, mut largest) = (f64::MAX, 0.0_f64);
        for (all, kept) in all.iter().zip(&kept).filter(|(all, _)| **all != 0.0) {
            prop_assert!(all == kept || *kept == 0.0);
            if *kept == 0.0 { largest = largest.max(all.abs()) } else { least = least.min(kept.abs()) }
        }
        prop_assert!(largest <= least);
    }

    #[test]
    fn of_too_many_texts_evenly_spread_ones_stand_for_all(case in cases()) {
        let (features, labels) = (Rows::new(&case.features, FEATURES), Rows::new(&case.labels, LABELS));
        let (features, labels) = (features.view(), labels.view());
        let data = RankerData { features, labels, shortlists: &case.shortlists };
        let examples = Examples::new(&data).unwrap();
        let doubled = RankerOptions {
            positive_cost: 2.0 * OPTIONS.positive_cost, negative_cost: 2.0 * OPTIONS.negative_cost, ..OPTIONS
        };
        for label in 0..LABELS {
            let own = examples.of(label);
            let repeat = |values: &[f32]| values.iter().flat_map(|&value| [value; 2]).collect::<Vec<_>>();
            let (texts, relevances) =
                (own.texts.iter().flat_map(|&text| [text; 2]).collect::<Vec<_>>(), repeat(own.relevances));
            let twice = LabelExamples { texts: &texts, relevances: &relevances };
            let mut trainer = Trainer::new(FEATURES);
            let expected = trainer.train(&features, own, &doubled, usize::MAX, 0);
            // Half of each class' entries: every second example. (Without entries there is nothing to halve.)
            let entries = |own_class: bool| -> usize {
                let texts = twice.texts.iter().zip(twice.relevances);
                texts.filter(|(_, relevance)| (**relevance > 0.0) == own_class)
                    .map(|(&text, _)| features.row(text as usize).len()).sum()
            };
            if entries(true) == entries(false) && entries(true) > 0 {
                trainer.max_entries = entries(true) / 2;
                prop_assert_eq!(trainer.train(&features, twice, &OPTIONS, usize::MAX, 0), expected);
            }
        }
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let good = Case {
        features: vec![vec![1.0; FEATURES]; 2],
        labels: vec![vec![1.0; LABELS]; 2],
        shortlists: vec![-1, 0, 1, 3],
    };
    let error_of = |case: &Case, features: &Rows, options: RankerOptions| {
        let labels = Rows::new(&case.labels, LABELS);
        let (features, labels, shortlists) = (features.view(), labels.view(), &*case.shortlists);
        let data = RankerData { features, labels, shortlists };
        let result = train_ranker(&data, options, &Progress::default(), &mut || false);
        result.map_or_else(|error| error.to_string(), |_| "none".into())
    };
    let error = |case: &Case, options: RankerOptions| {
        error_of(case, &Rows::new(&case.features, FEATURES), options)
    };
    assert_eq!(error(&good, OPTIONS), "none");
    let case = Case { shortlists: vec![0, 1, 2, 4], ..good.clone() };
    assert_eq!(error(&case, OPTIONS), "shortlists must hold labels below 4, and -1 for none");
    let case = Case { shortlists: vec![0, 1, 2], ..good.clone() };
    assert_eq!(error(&case, OPTIONS), "shortlists must have as many rows as features");
    let case = Case { labels: vec![vec![1.0; LABELS]], ..good.clone() };
    assert_eq!(error(&case, OPTIONS), "labels' rows must have 2 values, got 1");
    let case = Case { labels: vec![vec![-1.0; LABELS]; 2], ..good.clone() };
    assert_eq!(error(&case, OPTIONS), "relevances must not be negative");
    let case = Case { features: vec![vec![f32::NAN; FEATURES]; 2], ..good.clone() };
    assert_eq!(error(&case, OPTIONS), "features: a value is NaN or infinite");
    let mut repeated = Rows::new(&good.features, FEATURES);
    repeated.columns[1] = 0;
    assert!(
        error_of(&good, &repeated, OPTIONS).starts_with("features: a row's columns don't ascend")
    );
    let wide = Rows { num_columns: 1 << 32, ..Rows::new(&good.features, FEATURES) };
    assert_eq!(
        error_of(&good, &wide, OPTIONS),
        "features must be at most 4294967294, got 4294967296"
    );
    for cost in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        let options = RankerOptions { positive_cost: cost, ..OPTIONS };
        let expected = format!("positive_cost must be finite and positive, got {cost}");
        assert_eq!(error(&good, options), expected);
    }
    let options = RankerOptions { weights_per_label: 0, ..OPTIONS };
    assert_eq!(error(&good, options), "weights_per_label must be at least 1");
    let options = RankerOptions { max_passes: 0, ..OPTIONS };
    assert_eq!(error(&good, options), "max_passes must be at least 1");
}

#[test]
fn nothing_at_all_is_fine() {
    let (features, labels) = (Rows::new(&[], FEATURES), Rows::new(&[], LABELS));
    let data = RankerData { features: features.view(), labels: labels.view(), shortlists: &[] };
    let ranker = train_ranker(&data, OPTIONS, &Progress::default(), &mut || false).unwrap();
    assert_eq!((ranker.offsets, ranker.bias), (vec![0; LABELS + 1], vec![-1.0; LABELS]));
}
