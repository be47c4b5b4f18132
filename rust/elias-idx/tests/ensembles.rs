//! Searching several indexes at once, held to averaging what each of them finds.

mod common;

use std::collections::BTreeMap;

use common::{Model, Numbers};
use elias_idx::{
    EnsembleMember, EnsembleOptions, HitsMut, Index, Result, SearchOptions, search_ensemble,
};
use proptest::prelude::*;

fn member<'a>(
    index: &'a Index,
    queries: &'a [f32],
    labels: Option<&'a [u32]>,
) -> EnsembleMember<'a> {
    EnsembleMember { index, queries, labels, options: SearchOptions::default() }
}

fn search(
    members: &[EnsembleMember<'_>],
    num_queries: usize,
    k: usize,
    options: &EnsembleOptions,
) -> Result<(Vec<i64>, Vec<f32>)> {
    let (mut ids, mut scores) = (vec![7; num_queries * k], vec![7.0; num_queries * k]);
    let out = HitsMut { ids: &mut ids, scores: &mut scores };
    search_ensemble(members, k, options, out, &mut || false)?;
    Ok((ids, scores))
}

/// The best `k` means of each query, from searches of the members for `depth` labels each.
fn averaged(members: &[EnsembleMember<'_>], k: usize, depth: usize) -> Vec<Vec<(u32, f32)>> {
    let num_queries = members[0].queries.len() / members[0].index.dim();
    let mut sums: Vec<BTreeMap<u32, f32>> = vec![BTreeMap::new(); num_queries];
    for member in members {
        let hits =
            member.index.search(member.queries, depth, &member.options, &mut || false).unwrap();
        for (at, (&label, score)) in hits.ids.iter().zip(&hits.scores).enumerate() {
            if let Ok(label) = usize::try_from(label) {
                let label = member.labels.map_or(label as u32, |labels| labels[label]);
                *sums[at / depth].entry(label).or_default() += score;
            }
        }
    }
    let best = |sums: BTreeMap<u32, f32>| {
        let means = sums.into_iter().map(|(label, sum)| (label, sum / members.len() as f32));
        let mut means: Vec<(u32, f32)> = means.collect();
        means.sort_by(|one, other| other.1.total_cmp(&one.1)); // stable: smaller labels first
        means.truncate(k);
        means
    };
    sums.into_iter().map(best).collect()
}

proptest! {
    #[test]
    fn results_are_the_best_means(
        seed in 0..1000_u64,
        num_members in 1..4_usize,
        num_queries in 0..100_usize,
        k in 1..20_usize,
        depth in 0..40_usize,
        num_threads in 1..4_usize,
    ) {
        let seeds = seed..seed + num_members as u64;
        let indexes: Vec<Index> =
            seeds.map(|seed| Model::random(seed, 4, 6, 50, 12).build()).collect();
        let queries = Numbers::new(seed).vec(num_queries * 4);
        // The second member numbers its labels the other way round, and further.
        let reversed: Vec<u32> = (5..55).rev().collect();
        let members: Vec<EnsembleMember<'_>> = (0..num_members)
            .map(|at| member(&indexes[at], &queries, (at == 1).then_some(&reversed[..])))
            .collect();
        let options = EnsembleOptions { depth, num_threads: Some(num_threads), min_score: None };
        let (ids, scores) = search(&members, num_queries, k, &options).unwrap();
        let expected = averaged(&members, k, depth.max(k).min(50));
        for (query, expected) in expected.into_iter().enumerate() {
            let row = query * k..(query + 1) * k;
            let found = ids[row.clone()].iter().zip(&scores[row]);
            let found = found.take_while(|found| *found.0 >= 0);
            let found: Vec<(u32, f32)> = found.map(|(id, score)| (*id as u32, *score)).collect();
            prop_assert_eq!(found, expected);
        }
    }
}

#[test]
fn what_does_not_fit_together_is_refused() {
    let index = Model::random(1, 4, 3, 9, 5).build();
    let queries = [0.5; 8];
    let options = EnsembleOptions::default();
    let message = |members: &[EnsembleMember<'_>], options| {
        search(members, 2, 3, options).unwrap_err().to_string()
    };
    assert_eq!(message(&[], &options), "members must be at least 1, got 0");
    let fewer = member(&index, &queries[..4], None);
    let whole = member(&index, &queries, None);
    assert_eq!(message(&[whole, fewer], &options), "queries must have 8 values, got 4");
    let short = member(&index, &queries, Some(&[0; 8]));
    assert_eq!(message(&[whole, short], &options), "labels must have 9 values, got 8");
    let large = member(&index, &queries, Some(&[u32::MAX; 9]));
    assert!(message(&[large], &options).starts_with("label ids must be at most"));
    let nan = EnsembleOptions { min_score: Some(f64::NAN), ..options };
    assert_eq!(message(&[whole], &nan), "min_score must not be NaN");
    let out = HitsMut { ids: &mut [0; 5], scores: &mut [0.0; 6] };
    let error = search_ensemble(&[whole], 3, &options, out, &mut || false).unwrap_err();
    assert_eq!(error.to_string(), "ids must have 6 values, got 5");
}

#[test]
fn a_hook_ends_the_search() {
    let index = Model::random(1, 16, 300, 3000, 900).build();
    let queries = Numbers::new(3).vec(20_000 * 16);
    let members = [member(&index, &queries, None); 3];
    let (mut ids, mut scores) = (vec![0; 20_000], vec![0.0; 20_000]);
    let out = HitsMut { ids: &mut ids, scores: &mut scores };
    let error = search_ensemble(&members, 1, &EnsembleOptions::default(), out, &mut || true);
    assert!(matches!(error, Err(elias_idx::Error::Interrupted)));
}
