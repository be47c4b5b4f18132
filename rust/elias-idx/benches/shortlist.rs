//! The shortlist at the size of Amazon-670K, and loading its adjacency:
//! `cargo bench -p elias-idx --bench shortlist`.
//!
//! `shortlist` does all that `beam` does, so the difference is the time of steps 3 and 4, and of sorting
//! 2,000 labels, which takes about as long and which a search for the best k does without. The rest is
//! as small as can be: embeddings and classifiers have one dimension. With `shared`, clusters next
//! to each other have many labels in common, else few.

mod common;

use divan::counter::ItemsCount;
use divan::{Bencher, Divan};
use elias_idx::{Hits, Index, IndexParts, Loading, SearchOptions};

use common::random;

const NUM_LABELS: usize = 670_091;
const NUM_CLUSTERS: usize = 8_192;
const LABELS_PER_CLUSTER: usize = 1_000;
const NUM_QUERIES: usize = 256;

fn main() {
    Divan::from_args().main();
}

/// An index whose weights fall as 1 / rank.
fn index(shared: bool) -> Index {
    let mut next = random(1);
    let mut labels = Vec::with_capacity(NUM_CLUSTERS * LABELS_PER_CLUSTER);
    let mut weights = Vec::with_capacity(NUM_CLUSTERS * LABELS_PER_CLUSTER);
    for cluster in 0..NUM_CLUSTERS {
        let step = if shared { 4 } else { NUM_LABELS / LABELS_PER_CLUSTER };
        let start = if shared { cluster / 32 * 2_600 } else { 0 };
        // One label of every `step`, so that none comes twice, in a random order.
        let mut row: Vec<(u64, usize)> = (0..LABELS_PER_CLUSTER)
            .map(|i| (next(), start + i * step + next() as usize % step))
            .collect();
        row.sort_unstable();
        labels.extend(row.iter().map(|&(_, label)| label as i64));
        let jitter = (0..LABELS_PER_CLUSTER).map(|_| 0.5 + (next() % 1024) as f32 / 2048.0);
        weights.extend(jitter.enumerate().map(|(rank, jitter)| jitter / (rank + 1) as f32));
    }
    let offsets: Vec<i64> =
        (0..=NUM_CLUSTERS).map(|row| (row * LABELS_PER_CLUSTER) as i64).collect();
    // The logits are −(e − c / 8)² / 2 but for what all have in common: they fall with the distance
    // from a query's best cluster.
    let cluster_weights: Vec<f32> = (0..NUM_CLUSTERS).map(|c| c as f32 / 8.0).collect();
    let cluster_bias: Vec<f32> = cluster_weights.iter().map(|w| -w * w / 2.0).collect();
    Index::build(&IndexParts {
        num_labels: NUM_LABELS,
        num_clusters: NUM_CLUSTERS,
        dim: 1,
        cluster_weights: &cluster_weights,
        cluster_bias: &cluster_bias,
        adjacency_offsets: &offsets,
        adjacency_labels: &labels,
        adjacency_weights: &weights,
        label_weights: &vec![0.0; NUM_LABELS],
        label_bias: &vec![0.0; NUM_LABELS],
        ..IndexParts::default()
    })
    .expect("the parts fit")
}

fn queries() -> Vec<f32> {
    let mut next = random(2);
    (0..NUM_QUERIES).map(|_| (next() % NUM_CLUSTERS as u64) as f32 / 8.0).collect()
}

fn bench(
    bencher: Bencher<'_, '_>,
    shared: bool,
    step: impl Fn(&Index, &[f32], &SearchOptions) -> elias_idx::Result<Hits>,
) {
    let (index, queries) = (index(shared), queries());
    let options = SearchOptions { num_threads: Some(1), ..SearchOptions::default() };
    bencher
        .counter(ItemsCount::new(NUM_QUERIES))
        .bench_local(|| step(&index, &queries, &options).expect("the search is not stopped"));
}

#[divan::bench(args = [false, true])]
fn beam(bencher: Bencher<'_, '_>, shared: bool) {
    bench(bencher, shared, |index, queries, options| index.beam(queries, options, &mut || false));
}

#[divan::bench(args = [false, true])]
fn shortlist(bencher: Bencher<'_, '_>, shared: bool) {
    bench(bencher, shared, |index, queries, options| {
        index.shortlist(queries, options, &mut || false)
    });
}

#[divan::bench]
fn load(bencher: Bencher<'_, '_>) {
    let folder = tempfile::tempdir().expect("there is room for an index");
    let path = folder.path().join("index");
    index(false).save(&path, false).expect("there is room for an index");
    bencher.bench_local(|| Index::load(&path, Loading::Map).expect("the index is whole"));
}
