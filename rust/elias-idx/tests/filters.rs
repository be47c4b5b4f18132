//! Filters, least scores and explanations, held to a naive search in f64 and to each other.

mod common;

use common::{Model, Numbers, Oracle, Ranking, SCREENED, assert_row, options};
use elias_idx::{
    ArgumentError, Dtype, Error, Explanations, Filter, Index, LabelFilter, SearchOptions,
};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

/// Which labels are allowed when `share` of them are, about.
fn mask(seed: u64, num_labels: usize, share: f32) -> Vec<bool> {
    let mut numbers = Numbers::new(seed);
    (0..num_labels).map(|_| (numbers.next() + 1.0) / 2.0 < share).collect()
}

fn ids(mask: &[bool]) -> Vec<i64> {
    (0..).zip(mask).filter(|pair| *pair.1).map(|pair| pair.0).collect()
}

fn explain(index: &Index, query: &[f32], options: &SearchOptions<'_>) -> Explanations {
    let all: Vec<i64> = (0..index.num_labels() as i64).collect();
    index.explain(query, &all, options, &mut || false).unwrap()
}

/// The labels that have a place, in the order of their places, which are checked to be 1, 2, ...
fn by_place(
    explanations: &Explanations,
    place: fn(&elias_idx::Explanation) -> Option<usize>,
) -> Vec<i64> {
    let mut placed: Vec<(usize, i64)> = explanations
        .labels
        .iter()
        .filter_map(|label| Some((place(label)?, label.label as i64)))
        .collect();
    placed.sort_unstable();
    assert!(placed.iter().map(|pair| pair.0).eq(1..=placed.len()));
    placed.into_iter().map(|pair| pair.1).collect()
}

/// Holds what is said of all labels to what the searches find, and what is said of a label to itself.
fn assert_explained(index: &Index, query: &[f32], options: &SearchOptions<'_>) {
    let explanations = explain(index, query, options);
    let width = index.num_labels();
    let hits = index.search(query, width, options, &mut || false).unwrap();
    let shortlist = index.shortlist(query, options, &mut || false).unwrap();
    let found = |ids: &[i64]| ids.iter().copied().take_while(|&id| id >= 0).collect::<Vec<_>>();
    assert_eq!(by_place(&explanations, |label| label.rank), found(&hits.ids));
    let reached = by_place(&explanations, |label| label.path_rank);
    assert_eq!(reached.len(), explanations.num_reached);
    assert_eq!(reached[..explanations.num_shortlisted], found(&shortlist.ids));
    for label in &explanations.labels {
        if let Some(rank) = label.rank {
            assert_eq!(label.score.to_bits(), hits.scores[rank - 1].to_bits());
            assert_eq!(
                label.path_score.to_bits(),
                shortlist.scores[label.path_rank.unwrap() - 1].to_bits()
            );
        }
        let in_beam = label.paths.iter().any(|path| path.in_beam);
        assert_eq!(label.path_rank.is_some(), in_beam && label.allowed);
        assert!(label.paths.is_sorted_by(|a, b| a.score >= b.score));
        for path in &label.paths {
            assert_eq!(path.in_beam, path.cluster_rank <= explanations.beam_size);
            assert_eq!(path.score, path.cluster_score * path.weight);
        }
        let (clusters, weights) = index.clusters_of(label.label, &mut || false).unwrap();
        let mut edges: Vec<(usize, f32)> =
            label.paths.iter().map(|path| (path.cluster, path.weight)).collect();
        edges.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        assert!(edges.into_iter().eq(clusters.into_iter().map(|id| id as usize).zip(weights)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, rng_seed: RngSeed::Fixed(1), ..ProptestConfig::default() })]
    #[test]
    fn filtered_searches_find_what_a_naive_one_finds(
        seed in 0..u64::MAX,
        dim in prop::sample::select(vec![1_usize, 7, 16]),
        num_clusters in 1..120_usize,
        num_labels in prop_oneof![1..200_usize, 200..600_usize],
        edges in 0..30_usize,
        beam_size in prop_oneof![1..4_usize, 1..50_usize],
        shortlist_size in prop_oneof![1..12_usize, 1..210_usize],
        share in prop::sample::select(vec![0.0_f32, 0.02, 0.05, 0.2, 0.7, 1.1]),
        screen in any::<bool>(),
        alpha in prop::sample::select(vec![10.0, 1e5]),
    ) {
        let mut model = Model::random(seed, dim, num_clusters, num_labels, edges);
        model.alpha = alpha;
        let index = model.build_as(Dtype::Float32, screen, None);
        let error = if screen { SCREENED } else { 0.0 };
        let queries = Numbers::new(seed ^ 1).vec(3 * dim);
        let masks: Vec<Vec<bool>> =
            (0..3).map(|query| mask(seed + query, num_labels, share)).collect();
        let filters: Vec<LabelFilter> =
            masks.iter().map(|mask| index.label_filter(&ids(mask)).unwrap()).collect();

        // One for all, a filter for each query (but one), and rows.
        let each = [Some(&filters[0]), None, Some(&filters[2])];
        let labels: Vec<i64> = masks.iter().flat_map(|mask| ids(mask)).collect();
        let mut offsets = vec![0];
        offsets.extend(masks.iter().scan(0, |end, mask| {
            *end += ids(mask).len() as i64;
            Some(*end)
        }));
        let rows = index.filter_rows(&offsets, &labels, &vec![true; labels.len()]).unwrap();
        for (filter, allowed) in [
            (Filter::All(&filters[1]), [Some(&masks[1]); 3]),
            (Filter::Each(&each), [Some(&masks[0]), None, Some(&masks[2])]),
            (Filter::Rows(&rows), [Some(&masks[0]), Some(&masks[1]), Some(&masks[2])]),
        ] {
            let options = SearchOptions { filter: Some(filter), ..options(beam_size, shortlist_size) };
            let hits = index.search(&queries, num_labels, &options, &mut || false).unwrap();
            let shortlist = index.shortlist(&queries, &options, &mut || false).unwrap();
            for (row, (query, allowed)) in queries.chunks(dim).zip(allowed).enumerate() {
                let allowed = allowed.map(Vec::as_slice);
                let oracle = Oracle { model: &model, beam_size, shortlist_size, allowed };
                for (found, mut expected) in
                    [(&shortlist, oracle.paths(query)), (&hits, oracle.labels(query))]
                {
                    expected.rounding += error;
                    assert_row(found, row, &expected);
                }
            }
        }
    }

    #[test]
    fn explanations_agree_with_the_searches(
        seed in 0..u64::MAX,
        num_clusters in 1..60_usize,
        num_labels in 1..100_usize,
        edges in 0..20_usize,
        (beam_size, shortlist_size) in (1..30_usize, 1..110_usize),
        share in prop::option::of(prop::sample::select(vec![0.0_f32, 0.1, 0.7])),
    ) {
        let model = Model::random(seed, 7, num_clusters, num_labels, edges).with_projection(seed, 3);
        let index = model.build();
        let query = Numbers::new(seed ^ 1).vec(7);
        let filter = share.map(|share| {
            index.label_filter_of_mask(&mask(seed, num_labels, share)).unwrap()
        });
        let filter = filter.as_ref().map(Filter::All);
        assert_explained(&index, &query, &SearchOptions { filter, ..options(beam_size, shortlist_size) });
    }
}

#[test]
fn a_narrow_filter_returns_whatever_some_cluster_leads_to() {
    let model = Model::random(3, 8, 50, 300, 5);
    let index = model.build();
    let filter = index.label_filter(&[299, 0, 17, 17]).unwrap();
    let options = SearchOptions { filter: Some(Filter::All(&filter)), ..options(1, 20) };
    let hits = index.search(&[0.5; 8], 5, &options, &mut || false).unwrap();
    let mut found: Vec<i64> = hits.ids.into_iter().filter(|&id| id >= 0).collect();
    found.sort_unstable();
    let reachable = |label: &i64| model.rows.iter().any(|row| row.contains_key(&(*label as u32)));
    let expected: Vec<i64> = [0, 17, 299].into_iter().filter(reachable).collect();
    assert!(!expected.is_empty());
    assert_eq!(found, expected);
}

#[test]
fn threads_and_splits_change_no_bit_of_filtered_searches() {
    let index = Model::random(5, 67, 300, 500, 40).build();
    let queries = Numbers::new(6).vec(101 * 67);
    let filters: Vec<LabelFilter> =
        (0..101).map(|query| index.label_filter_of_mask(&mask(query, 500, 0.3)).unwrap()).collect();
    let each: Vec<Option<&LabelFilter>> =
        filters.iter().enumerate().map(|(i, filter)| (i % 3 > 0).then_some(filter)).collect();
    let search = |range: std::ops::Range<usize>, num_threads| {
        let options = SearchOptions {
            filter: Some(Filter::Each(&each[range.clone()])),
            num_threads: Some(num_threads),
            ..options(5, 100)
        };
        let queries = &queries[range.start * 67..range.end * 67];
        index.search(queries, 12, &options, &mut || false).unwrap()
    };
    let whole = search(0..101, 1);
    for num_threads in [2, 3] {
        assert_eq!(search(0..101, num_threads), whole);
    }
    let parts: Vec<_> = (0..101).map(|query| search(query..query + 1, 1)).collect();
    assert_eq!(parts.iter().flat_map(|hits| hits.ids.clone()).collect::<Vec<_>>(), whole.ids);
    assert_eq!(parts.iter().flat_map(|hits| hits.scores.clone()).collect::<Vec<_>>(), whole.scores);
}

#[test]
fn results_under_the_least_score_are_padding() {
    let index = Model::random(5, 4, 6, 20, 5).build();
    let search = |min_score| {
        let options = SearchOptions { min_score, ..SearchOptions::default() };
        index.search(&[0.5; 8], 20, &options, &mut || false).unwrap()
    };
    let all = search(None);
    assert_eq!(search(Some(-1.0)), all);
    for least in
        [0.0, f64::from(all.scores[3]), f64::from(all.scores[3]) + 1e-12, 2.0, f64::INFINITY]
    {
        let hits = search(Some(least));
        for (at, (&id, &score)) in all.ids.iter().zip(&all.scores).enumerate() {
            let kept = id >= 0 && f64::from(score) >= least;
            assert_eq!(hits.ids[at], if kept { id } else { -1 });
            assert_eq!(hits.scores[at], if kept { score } else { 0.0 });
        }
    }
}

#[test]
fn bad_arguments_are_refused() {
    let (index, other) =
        (Model::random(5, 4, 6, 20, 5).build(), Model::random(6, 4, 6, 20, 5).build());
    let filter = other.label_filter(&[1]).unwrap();
    let foreign = SearchOptions { filter: Some(Filter::All(&filter)), ..options(1, 1) };
    let error = index.search(&[0.5; 4], 1, &foreign, &mut || false).unwrap_err();
    assert!(matches!(error, Error::Argument(ArgumentError::ForeignFilter)));
    assert!(index.explain(&[0.5; 4], &[1], &foreign, &mut || false).is_err());
    let nan = SearchOptions { min_score: Some(f64::NAN), ..options(1, 1) };
    let error = index.search(&[0.5; 4], 1, &nan, &mut || false).unwrap_err();
    assert!(matches!(error, Error::Argument(ArgumentError::BadMinScore)));
    for (query, labels) in
        [(&[0.5; 4][..3], &[1][..]), (&[0.5; 8], &[1]), (&[0.5; 4], &[1, 20]), (&[0.5; 4], &[-1])]
    {
        let result = index.explain(query, labels, &options(1, 1), &mut || false);
        assert!(matches!(result, Err(Error::Argument(_))), "{query:?} {labels:?}");
    }
    assert!(index.clusters_of(20, &mut || false).is_err());
}

#[test]
fn a_stop_ends_a_long_filtered_search() {
    let index = Model::random(5, 4, 200, 3000, 100).build();
    let queries = Numbers::new(6).vec(2_000_000);
    for share in [0.01, 0.7] {
        let filter = index.label_filter_of_mask(&mask(1, 3000, share)).unwrap();
        let options = SearchOptions { filter: Some(Filter::All(&filter)), ..options(20, 2000) };
        let mut calls = 0;
        let result = index.search(&queries, 10, &options, &mut || {
            calls += 1;
            calls == 2
        });
        assert!(matches!(result, Err(Error::Interrupted)));
        assert_eq!(calls, 2);
    }
}

/// The oracle widens the beam as it should: two clusters of one label each, a shortlist of two.
#[test]
fn the_oracle_on_an_example_by_hand() {
    let mut model = Model::random(1, 1, 3, 4, 0);
    model.cluster_weights = vec![3.0, 2.0, 1.0];
    model.cluster_bias = vec![0.0; 3];
    model.rows = vec![[(0, 1.0), (1, 1.0)].into(), [(1, 0.5), (2, 1.0)].into(), [(3, 1.0)].into()];
    let labels = |allowed: &[bool], shortlist_size| {
        let oracle = Oracle { model: &model, beam_size: 1, shortlist_size, allowed: Some(allowed) };
        let Ranking { all, .. } = oracle.paths(&[1.0]);
        all.into_iter().map(|pair| pair.0).collect::<Vec<u32>>()
    };
    assert_eq!(labels(&[true; 4], 2), [0, 1]);
    assert_eq!(labels(&[true, false, true, true], 2), [0, 2]);
    assert_eq!(labels(&[true; 4], 3), [0, 1, 2]);
    assert_eq!(labels(&[false, true, false, true], 2), [1, 3]);
    assert_eq!(labels(&[false; 4], 2), [] as [u32; 0]);
}
