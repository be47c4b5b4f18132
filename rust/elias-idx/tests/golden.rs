//! Indexes of every version of the format, kept as they were written once, are opened and searched with the results of
//! then. `tests/test_golden.py` reads the same ones from Python. Version 1 has one for each dtype, and one with all that
//! takes sparse features.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::options;
use elias_idx::{Hits, Index, Loading, SearchOptions, SparseRows};
use serde::Deserialize;

/// What `format-1.json` says: searches, and their results on each index.
#[derive(Deserialize)]
struct Golden {
    queries: Vec<Vec<f32>>,
    sparse: Sparse,
    k: usize,
    beam_size: usize,
    shortlist_size: usize,
    expected: std::collections::BTreeMap<String, Expected>,
}

#[derive(Deserialize)]
struct Sparse {
    offsets: Vec<i64>,
    columns: Vec<i32>,
    values: Vec<f32>,
}

#[derive(Deserialize)]
struct Expected {
    search: Results,
    fused: Option<Results>,
}

#[derive(Deserialize)]
struct Results {
    labels: Vec<Vec<i64>>,
    scores: Vec<Vec<f32>>,
}

/// Relatively: instruction sets add in different orders, and a screen's softmax is summed from codes.
const TOLERANCE: f32 = common::SCREENED as f32;

fn assert_results(hits: &Hits, expected: &Results) {
    assert_eq!(hits.ids, expected.labels.concat());
    for (score, expected) in hits.scores.iter().zip(expected.scores.concat()) {
        assert!((score - expected).abs() <= TOLERANCE * expected, "{score} instead of {expected}");
    }
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

#[test]
fn indexes_of_version_1_give_the_results_of_then() {
    let golden = fs::read(fixtures().join("format-1.json")).unwrap();
    let golden: Golden = serde_json::from_slice(&golden).unwrap();
    let queries = golden.queries.concat();
    let Sparse { offsets, columns, values } = &golden.sparse;
    let plain = options(golden.beam_size, golden.shortlist_size);
    for (name, expected) in &golden.expected {
        let index = Index::load(fixtures().join(name), Loading::Map).unwrap();
        index.verify().unwrap();
        assert_eq!(index.label_names().unwrap().get(1).unwrap(), "näme 1");
        let search = |options| index.search(&queries, golden.k, options, &mut || false).unwrap();
        assert_results(&search(&plain), &expected.search);
        if let Some(fused) = &expected.fused {
            let num_columns = index.num_features().unwrap();
            let sparse = SparseRows { offsets, columns, values, num_columns };
            assert_results(&search(&SearchOptions { sparse: Some(sparse), ..plain }), fused);
        }
    }
}
