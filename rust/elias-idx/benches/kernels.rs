//! The steps that multiply, each in a shape where it takes nearly all of the time, on one thread:
//! `cargo bench -p elias-idx --bench kernels`.
//!
//! `clusters` scores the clusters of Amazon-670K and finds the beam. `labels` scores shortlists of
//! 2,000 labels, each query that of a single cluster, where there are few clusters to score. Compare
//! instruction sets with `ELIAS_IDX_ISA`.

mod common;

use divan::counter::ItemsCount;
use divan::{Bencher, Divan, black_box};
use elias_idx::{Defaults, Dtype, Hits, Index, IndexParts, SearchOptions};

use common::random;

const DIM: usize = 768;
const NUM_QUERIES: usize = 1_024;
/// As in Amazon-670K.
const NUM_CLUSTERS: usize = 8_192;
/// Their float32 classifiers are many times as large as a cache.
const NUM_LABELS: usize = 131_072;
/// The shortlist of an index unless told otherwise.
const SHORTLIST_SIZE: usize = 2_000;
/// Clusters to score before labels, so few that they don't count.
const NUM_PICKERS: usize = 256;

/// How label classifiers are stored: the dtype, and whether codes stand beside it. (int8 are codes.)
const STORED: [&str; 7] = [
    "float32",
    "float32 + screen",
    "bfloat16",
    "bfloat16 + screen",
    "float16",
    "float16 + screen",
    "int8",
];

fn main() {
    Divan::from_args().main();
}

/// `count` numbers around 0, of a standard deviation of about `deviation`.
fn normal(seed: u64, count: usize, deviation: f32) -> Vec<f32> {
    let mut next = random(seed);
    let mut uniform = || (next() % (1 << 16)) as f32 / 65_536.0 - 0.5;
    // A sum of four uniform numbers has a variance of 4 / 12.
    let scale = deviation * 3.0_f32.sqrt();
    (0..count).map(|_| scale * (uniform() + uniform() + uniform() + uniform())).collect()
}

/// Clusters that lead nowhere but to a single label.
fn of_clusters(screen: bool) -> Index {
    let offsets: Vec<i64> = (0..=NUM_CLUSTERS as i64).collect();
    Index::build(&IndexParts {
        num_labels: 1,
        num_clusters: NUM_CLUSTERS,
        dim: DIM,
        cluster_weights: &normal(2, NUM_CLUSTERS * DIM, 0.05),
        cluster_bias: &vec![0.0; NUM_CLUSTERS],
        adjacency_offsets: &offsets,
        adjacency_labels: &vec![0; NUM_CLUSTERS],
        adjacency_weights: &vec![1.0; NUM_CLUSTERS],
        label_weights: &vec![0.0; DIM],
        label_bias: &[0.0],
        screen,
        ..IndexParts::default()
    })
    .expect("the parts fit")
}

/// Few clusters that lead to 2,000 of many labels each.
fn of_labels(dtype: Dtype, screen: bool) -> Index {
    let mut next = random(3);
    let step = NUM_LABELS / SHORTLIST_SIZE;
    // One label of every `step`, so that none comes twice.
    let labels: Vec<i64> = (0..NUM_PICKERS * SHORTLIST_SIZE)
        .map(|edge| (edge % SHORTLIST_SIZE * step + next() as usize % step) as i64)
        .collect();
    let weights: Vec<f32> = labels.iter().map(|_| 0.5 + (next() % 1024) as f32 / 2048.0).collect();
    let offsets: Vec<i64> = (0..=NUM_PICKERS).map(|row| (row * SHORTLIST_SIZE) as i64).collect();
    Index::build(&IndexParts {
        num_labels: NUM_LABELS,
        num_clusters: NUM_PICKERS,
        dim: DIM,
        cluster_weights: &normal(4, NUM_PICKERS * DIM, 0.05),
        cluster_bias: &vec![0.0; NUM_PICKERS],
        adjacency_offsets: &offsets,
        adjacency_labels: &labels,
        adjacency_weights: &weights,
        label_weights: &normal(5, NUM_LABELS * DIM, 0.05),
        label_bias: &vec![0.0; NUM_LABELS],
        defaults: Defaults { beam_size: 1, ..Defaults::default() },
        dtype,
        screen,
        ..IndexParts::default()
    })
    .expect("the parts fit")
}

/// How queries come.
#[derive(Debug, Clone, Copy)]
enum Calls {
    /// Each in a call of its own.
    One,
    /// All in one.
    Batch,
}

fn bench(
    bencher: Bencher<'_, '_>,
    calls: Calls,
    step: impl Fn(&[f32], &SearchOptions) -> elias_idx::Result<Hits>,
) {
    let queries = normal(1, NUM_QUERIES * DIM, 1.0);
    let options = SearchOptions { num_threads: Some(1), ..SearchOptions::default() };
    let len = match calls {
        Calls::One => DIM,
        Calls::Batch => queries.len(),
    };
    bencher.counter(ItemsCount::new(NUM_QUERIES)).bench_local(|| {
        for call in queries.chunks(len) {
            black_box(step(call, &options).expect("the search is not stopped"));
        }
    });
}

#[divan::bench(args = [Calls::One, Calls::Batch], consts = [false, true], sample_count = 10, sample_size = 1)]
fn clusters<const SCREEN: bool>(bencher: Bencher<'_, '_>, calls: Calls) {
    let index = of_clusters(SCREEN);
    bench(bencher, calls, |queries, options| index.beam(queries, options, &mut || false));
}

#[divan::bench(args = STORED, sample_count = 10, sample_size = 1)]
fn labels_one_by_one(bencher: Bencher<'_, '_>, stored: &str) {
    bench_labels(bencher, stored, Calls::One);
}

#[divan::bench(args = STORED, sample_count = 10, sample_size = 1)]
fn labels_batch(bencher: Bencher<'_, '_>, stored: &str) {
    bench_labels(bencher, stored, Calls::Batch);
}

fn bench_labels(bencher: Bencher<'_, '_>, stored: &str, calls: Calls) {
    let (dtype, screen) = match stored.strip_suffix(" + screen") {
        Some(dtype) => (dtype, true),
        None => (stored, false),
    };
    let index = of_labels(dtype.parse().expect("it is a dtype"), screen);
    bench(bencher, calls, |queries, options| index.search(queries, 100, options, &mut || false));
}
