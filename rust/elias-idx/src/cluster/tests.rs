use proptest::prelude::*;

use super::*;
use crate::error::Error;

/// A CSR matrix that owns its arrays.
#[derive(Default)]
struct Rows {
    offsets: Vec<i64>,
    columns: Vec<i32>,
    values: Vec<f32>,
    num_columns: usize,
}

impl Rows {
    fn new(rows: &[Vec<(i32, f32)>], num_columns: usize) -> Self {
        let mut made = Self { offsets: vec![0], num_columns, ..Self::default() };
        for row in rows {
            made.columns.extend(row.iter().map(|entry| entry.0));
            made.values.extend(row.iter().map(|entry| entry.1));
            made.offsets.push(made.columns.len() as i64);
        }
        made
    }

    /// Each label has one text of its own.
    fn one_text_a_label(num_labels: usize) -> Self {
        let rows: Vec<_> = (0..num_labels).map(|label| vec![(label as i32, 1.0)]).collect();
        Self::new(&rows, num_labels)
    }

    fn view(&self) -> SparseRows<'_> {
        let Self { offsets, columns, values, num_columns } = self;
        SparseRows { offsets, columns, values, num_columns: *num_columns }
    }
}

/// Numbers from −1 to 1 that follow from the seed.
fn noise(seed: u64) -> impl FnMut() -> f32 {
    let mut state = seed;
    move || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

fn options(num_clusters: usize) -> ClusterOptions {
    ClusterOptions { num_clusters, max_entries: 32, seed: 7, num_threads: Some(2) }
}

fn cluster(features: &LabelFeatures<'_>, options: ClusterOptions) -> Result<Vec<u32>> {
    cluster_labels(features, options, &Progress::default(), &mut || false)
}

fn sizes(clusters: &[u32], num_clusters: usize) -> Vec<usize> {
    let mut sizes = vec![0; num_clusters];
    for &cluster in clusters {
        sizes[cluster as usize] += 1;
    }
    sizes
}

/// The same clustering with every centroid laid out densely, in float64, and all sums made anew.
fn oracle(centroids: &[Vec<f64>], num_clusters: usize, seed: u64) -> Vec<u32> {
    let mut found = vec![0; centroids.len()];
    let mut pending = vec![((0..centroids.len()).collect::<Vec<_>>(), 0, num_clusters)];
    while let Some((labels, first, parts)) = pending.pop() {
        if parts == 1 {
            labels.iter().for_each(|&label| found[label] = first as u32);
            continue;
        }
        let num_left = labels.len() * (parts / 2) / parts;
        let [a, b] = hierarchy::start(seed, first, parts, labels.len());
        let (mut left, mut right) = (vec![labels[a]], vec![labels[b]]);
        for _ in 0..10 {
            let (to_left, to_right) = (direction(centroids, &left), direction(centroids, &right));
            let score =
                |label: usize| dot(&centroids[label], &to_left) - dot(&centroids[label], &to_right);
            let mut order = labels.clone();
            order.sort_by(|&a, &b| score(b).total_cmp(&score(a)));
            right = order.split_off(num_left);
            left = order;
        }
        left.sort_unstable();
        right.sort_unstable();
        pending.push((left, first, parts / 2));
        pending.push((right, first + parts / 2, parts - parts / 2));
    }
    found
}

fn direction(centroids: &[Vec<f64>], labels: &[usize]) -> Vec<f64> {
    let mut sum = vec![0.0; centroids[0].len()];
    for &label in labels {
        sum.iter_mut().zip(&centroids[label]).for_each(|(sum, value)| *sum += value);
    }
    normalized(sum)
}

fn normalized(mut values: Vec<f64>) -> Vec<f64> {
    let length = dot(&values, &values).sqrt().max(1e-12);
    values.iter_mut().for_each(|value| *value /= length);
    values
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Labels of some texts each, sparse and dense features; all random.
struct Random {
    texts: Rows,
    sparse: Rows,
    dense: Vec<f32>,
}

const DIM: usize = 5;

impl Random {
    fn new(num_labels: usize, seed: u64) -> Self {
        let mut next = noise(seed);
        let num_texts = 2 * num_labels;
        let texts: Vec<Vec<_>> = (0..num_labels as i32)
            .map(|label| vec![(label, 1.0), ((label * 7 + 3) % num_texts as i32, 0.5)])
            .collect();
        let sparse: Vec<Vec<_>> = (0..num_texts as i32)
            .map(|text| (0..4).map(|at| ((text * 5 + at * 11) % 30, next().abs())).collect())
            .collect();
        Self {
            texts: Rows::new(&texts, num_texts),
            sparse: Rows::new(&sparse, 30),
            // Exact in bfloat16 only before they are added up and normalised.
            dense: (0..num_texts * DIM).map(|_| next()).collect(),
        }
    }

    fn features(&self, sparse: bool, dense: bool) -> LabelFeatures<'_> {
        LabelFeatures {
            texts: self.texts.view(),
            sparse: sparse.then(|| self.sparse.view()),
            dense: dense.then_some(&self.dense[..]),
        }
    }

    fn centroids(&self, sparse: bool, dense: bool) -> Vec<Vec<f64>> {
        let texts = self.texts.view();
        (0..texts.len())
            .map(|label| {
                let (mut by_sparse, mut by_dense) = (vec![0.0; 30], vec![0.0; DIM]);
                for (text, weight) in texts.row(label) {
                    for (column, value) in self.sparse.view().row(text) {
                        by_sparse[column] += f64::from(weight * value);
                    }
                    for (at, sum) in by_dense.iter_mut().enumerate() {
                        *sum += f64::from(weight * self.dense[text * DIM + at]);
                    }
                }
                let mut centroid = if sparse { normalized(by_sparse) } else { vec![] };
                let rounded = |value: f64| f64::from(half::bf16::from_f64(value));
                centroid
                    .extend(dense.then(|| normalized(by_dense)).into_iter().flatten().map(rounded));
                centroid
            })
            .collect()
    }
}

#[test]
fn clusters_are_those_of_a_plain_implementation() {
    for (number, (num_labels, num_clusters)) in
        [(40, 2), (64, 8), (97, 5), (12, 12)].into_iter().enumerate()
    {
        let data = Random::new(num_labels, number as u64);
        for (sparse, dense) in [(true, false), (false, true), (true, true)] {
            let found = cluster(&data.features(sparse, dense), options(num_clusters)).unwrap();
            let expected = oracle(&data.centroids(sparse, dense), num_clusters, 7);
            assert_eq!(found, expected, "{num_labels} labels, {sparse}, {dense}");
        }
    }
}

#[test]
fn of_a_long_centroid_the_largest_entries_stay_in_unit_length() {
    let row = (0..200).map(|column| (column, if column % 2 == 0 { 1.0 } else { -2.0 })).collect();
    let (texts, sparse) = (Rows::one_text_a_label(1), Rows::new(&[row], 200));
    let features = LabelFeatures { texts: texts.view(), sparse: Some(sparse.view()), dense: None };
    let centroids = Centroids::new(&features, 32, 1, &Progress::default(), &mut || false).unwrap();
    let kept = centroids.sparse(0);
    assert!(kept.iter().all(|entry| entry.column % 2 == 1 && entry.value < 0.0));
    // Of equal ones those of the smallest columns.
    assert!(kept.iter().enumerate().all(|(at, entry)| entry.column as usize == 2 * at + 1));
    let length: f32 = kept.iter().map(|entry| entry.value * entry.value).sum();
    assert!(kept.len() == 32 && (length - 1.0).abs() < 1e-5);
}

#[test]
fn threads_change_nothing_also_where_they_share_a_split() {
    let (num_labels, dim) = (40_000, 64);
    let mut next = noise(1);
    let dense: Vec<f32> = (0..num_labels * dim).map(|_| next()).collect();
    let texts = Rows::one_text_a_label(num_labels);
    let features = LabelFeatures { texts: texts.view(), sparse: None, dense: Some(&dense) };
    let [one, two] = [1, 2].map(|num_threads| {
        cluster(&features, ClusterOptions { num_threads: Some(num_threads), ..options(4) }).unwrap()
    });
    assert_eq!(one, two);
    assert_eq!(sizes(&one, 4), [num_labels / 4; 4]);
}

#[test]
fn long_dense_rows_whose_labels_fill_fewer_parts_than_there_are() {
    // Sums in 11 parts of 9 labels at most: ten of them hold all 89.
    let (num_labels, dim) = (89, 130_000);
    let mut next = noise(2);
    let dense: Vec<f32> = (0..2 * dim).map(|_| next()).collect();
    let rows: Vec<_> = (0..num_labels).map(|label| vec![(label % 2, 1.0)]).collect();
    let texts = Rows::new(&rows, 2);
    let features = LabelFeatures { texts: texts.view(), sparse: None, dense: Some(&dense) };
    let clusters = cluster(&features, options(2)).unwrap();
    assert_eq!(sizes(&clusters, 2), [44, 45]);
}

#[test]
fn the_hook_stops_it_and_sees_progress() {
    // Enough work that the hook, which is asked now and then, is asked on any machine. Random rows, since the
    // splits of equal ones end at once.
    let (num_labels, dim) = (400_000, 32);
    let texts = Rows::one_text_a_label(num_labels);
    let mut next = noise(3);
    let dense: Vec<f32> = (0..num_labels * dim).map(|_| next()).collect();
    let features = LabelFeatures { texts: texts.view(), sparse: None, dense: Some(&dense) };
    let progress = Progress::default();
    let stopped = cluster_labels(&features, options(1024), &progress, &mut || true);
    assert!(matches!(stopped, Err(Error::Interrupted)), "{stopped:?}");
    assert!(progress.share() < 1.0);

    let finished = Progress::default();
    cluster_labels(&features, options(2), &finished, &mut || false).unwrap();
    assert_eq!(finished.share(), 1.0);
}

#[test]
fn broken_arrays_are_refused() {
    let good = Rows::one_text_a_label(3);
    let broken = [
        Rows { offsets: vec![0, 1, 2], ..Rows::one_text_a_label(3) },
        Rows { offsets: vec![0, 2, 1, 3], ..Rows::one_text_a_label(3) },
        Rows { columns: vec![0, 1, 3], ..Rows::one_text_a_label(3) },
        Rows { columns: vec![0, 1, -1], ..Rows::one_text_a_label(3) },
        Rows { values: vec![0.0, 1.0], ..Rows::one_text_a_label(3) },
        Rows { values: vec![0.0, 1.0, f32::NAN], ..Rows::one_text_a_label(3) },
        Rows::default(),
    ];
    for rows in &broken {
        for (texts, sparse) in [(rows.view(), good.view()), (good.view(), rows.view())] {
            let features = LabelFeatures { texts, sparse: Some(sparse), dense: None };
            assert!(matches!(cluster(&features, options(1)), Err(Error::Argument(_))));
        }
    }
    for dense in [vec![0.0; 4], vec![f32::INFINITY; 3]] {
        let features = LabelFeatures { texts: good.view(), sparse: None, dense: Some(&dense) };
        assert!(matches!(cluster(&features, options(1)), Err(Error::Argument(_))));
    }
    let features = LabelFeatures { texts: good.view(), sparse: Some(good.view()), dense: None };
    for num_clusters in [0, 4] {
        assert!(matches!(cluster(&features, options(num_clusters)), Err(Error::Argument(_))));
    }
}

proptest! {
    #[test]
    fn clusters_are_balanced(num_labels in 1usize..200, share in 0.0..1.0, seed: u64) {
        let num_clusters = 1 + (share * (num_labels - 1) as f64) as usize;
        let data = Random::new(num_labels, seed);
        let chosen = ClusterOptions { seed, ..options(num_clusters) };
        let sizes = sizes(&cluster(&data.features(true, false), chosen).unwrap(), num_clusters);
        let (least, most) = (sizes.iter().min().unwrap(), sizes.iter().max().unwrap());
        prop_assert!(*least >= 1);
        if num_clusters.is_power_of_two() {
            prop_assert!(most - least <= 1);
        }
    }
}
