//! Searches of an index, damaged or not.

use elias_idx::{Filter, Hits, Index, SearchOptions, SparseRows};

use super::input::Input;
use crate::common::{SPARSE, options};

/// Queries of an index and all that a search may be told, in the caller's arrays.
struct Wanted {
    queries: Vec<f32>,
    k: usize,
    offsets: Vec<i64>,
    columns: Vec<i32>,
    values: Vec<f32>,
    num_columns: usize,
    allowed: Vec<i64>,
    mask: Vec<bool>,
}

impl Wanted {
    fn read(index: &Index, input: &mut Input<'_>) -> Self {
        let num_queries = usize::from(input.u8() % 3);
        Self {
            queries: (0..num_queries * index.dim().min(64)).map(|_| number(input)).collect(),
            k: usize::from(input.u8() % 10),
            offsets: input.list(Input::id),
            columns: input.list(|input| input.id() as i32),
            values: input.list(number),
            num_columns: input.option().unwrap_or(SPARSE.num_columns),
            allowed: input.list(Input::id),
            mask: input.list(Input::bool),
        }
    }

    fn sparse(&self) -> SparseRows<'_> {
        let Self { offsets, columns, values, num_columns, .. } = self;
        SparseRows { offsets, columns, values, num_columns: *num_columns }
    }
}

/// A small number more often than not.
fn number(input: &mut Input<'_>) -> f32 {
    match input.u8() {
        255 => input.f32(),
        small => (f32::from(small) - 127.0) / 32.0,
    }
}

/// One search as the input wants it, and its results if the arguments were let in.
pub(crate) fn search(index: &Index, input: &mut Input<'_>) -> Option<Hits> {
    let kind = input.u8();
    let mut options = SearchOptions {
        beam_size: input.option(),
        shortlist_size: input.option(),
        num_threads: Some(1),
        min_score: input.bool().then(|| input.f64()),
        num_candidates: input.option(),
        ..SearchOptions::default()
    };
    let wanted = Wanted::read(index, input);
    let (filter, rows);
    match kind % 4 {
        1 => {
            filter = index.label_filter(&wanted.allowed).ok()?;
            options.filter = Some(Filter::All(&filter));
        }
        2 => {
            filter = index.label_filter_of_mask(&wanted.mask).ok()?;
            options.filter = Some(Filter::All(&filter));
        }
        3 => {
            rows = index.filter_rows(&wanted.offsets, &wanted.allowed, &wanted.mask).ok()?;
            options.filter = Some(Filter::Rows(&rows));
        }
        _ => (),
    }
    let sparse = SearchOptions { sparse: Some(wanted.sparse()), ..options };
    let stop = &mut || false;
    let (queries, k) = (&wanted.queries, wanted.k);
    let hits = match kind / 4 % 6 {
        0 => index.search(queries, k, &options, stop),
        1 => index.search(queries, k, &sparse, stop),
        2 => index.shortlist(queries, &options, stop),
        3 => index.beam(queries, &options, stop),
        4 => {
            if let Ok(evidence) = index.evidence(queries, &sparse, stop) {
                assert!(evidence.values.iter().all(|value| value.is_finite()));
            }
            return None;
        }
        _ => {
            let _ = index.explain(queries, &wanted.allowed, &options, stop);
            return None;
        }
    };
    hits.inspect(|hits| assert_ids(hits, index)).ok()
}

/// Ids are those of labels or clusters, each once; where there is none, the rest is padding.
fn assert_ids(hits: &Hits, index: &Index) {
    let end = index.num_labels().max(index.num_clusters()) as i64;
    for row in hits.ids.chunks(hits.width) {
        let found = row.iter().take_while(|&&id| id >= 0).count();
        assert!(row[found..].iter().all(|&id| id == -1), "{row:?}");
        let mut ids = row[..found].to_vec();
        ids.sort_unstable();
        assert!(ids.windows(2).all(|pair| pair[0] < pair[1]), "{row:?}");
        assert!(ids.last().is_none_or(|&id| id < end), "{row:?}");
    }
}

/// Scores are finite, not negative, and descend.
pub(crate) fn assert_scored(hits: &Hits) {
    for row in hits.scores.chunks(hits.width) {
        assert!(row.iter().all(|score| score.is_finite() && *score >= 0.0), "{row:?}");
        assert!(row.is_sorted_by(|one, next| one >= next), "{row:?}");
    }
}

/// Uses all of an index that was let in.
pub(crate) fn exercise(index: &Index) {
    let (queries, stop) = (vec![0.5; 2 * index.dim()], &mut || false);
    let plain = options(2, 4);
    let hits = index.search(&queries, 3, &plain, stop).unwrap();
    assert_ids(&hits, index);
    let labels: Vec<i64> = (0..index.num_labels() as i64).collect();
    let filter = index.label_filter(&labels[labels.len() / 2..]).unwrap();
    let filtered = SearchOptions { filter: Some(Filter::All(&filter)), ..plain };
    assert_ids(&index.search(&queries, 3, &filtered, stop).unwrap(), index);
    index.explain(&queries[..index.dim()], &labels, &filtered, stop).unwrap();
    if index.num_features() == Some(SPARSE.num_columns) {
        let fused = SearchOptions { sparse: Some(SPARSE), ..options(9, 9) };
        let evidence = index.evidence(&queries, &fused, stop).unwrap();
        assert!(evidence.values.iter().all(|value| value.is_finite()));
        // An index may have evidence without scores.
        if index.has_fusion() {
            assert_ids(&index.search(&queries, 3, &fused, stop).unwrap(), index);
        }
    }
    let mut row = vec![0.0; index.label_dim()];
    for label in 0..index.num_labels() {
        index.label_row(label, &mut row).unwrap();
        let _ = index.label_names().map(|names| names.get(label));
    }
    let _ = index.nbytes();
}
