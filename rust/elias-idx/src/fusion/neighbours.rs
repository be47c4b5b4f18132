//! The training texts that are nearest to a query, and what they vote for.
//!
//! Texts and queries are sparse vectors of unit length, so that a product of two is their cosine. The texts lie
//! inverted: each feature has the list of the texts that have it. A query adds up the lists of its features, and
//! keeps the texts with the largest sums. Features of very many texts say little and would cost the most: their lists may
//! be left out when the texts are inverted ([`invert`]).
//!
//! N texts, F features, L labels.

use crate::error::{ArgumentError, Result};
use crate::kernels::{Kernels, MAXIMA_CHUNK, prefetch};
use crate::matrix::MAX_IDS;
use crate::search::top_k::{TopK, unkey};
use crate::sparse::SparseRows;
use crate::storage::zeros;

/// Lists whose start is asked for ahead of their use, and at most so many bytes of it: what follows the processor foresees.
const AHEAD: usize = 4;
const MAX_PREFETCHED: usize = 512;
/// The least number above 0.
const LEAST: f32 = f32::from_bits(1);

/// The texts of each feature, by number, and their values.
#[derive(Clone, Copy)]
pub(crate) struct Postings<'a> {
    /// Where each feature's list starts and ends, \[F + 1\].
    pub(crate) offsets: &'a [u64],
    /// \[nnz\], ascending within a list and below `num_texts`.
    pub(crate) texts: &'a [u32],
    /// \[nnz\], finite.
    pub(crate) values: &'a [f32],
    /// N.
    pub(crate) num_texts: usize,
}

/// Own memory of [`Postings`].
pub(crate) struct Inverted {
    pub(crate) offsets: Vec<u64>,
    pub(crate) texts: Vec<u32>,
    pub(crate) values: Vec<f32>,
}

/// The labels of each text.
#[derive(Clone, Copy)]
pub(crate) struct TextLabels<'a> {
    /// \[N + 1\].
    pub(crate) offsets: &'a [u64],
    /// Below L.
    pub(crate) labels: &'a [u32],
}

/// A text near a query.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Neighbour {
    pub(crate) text: u32,
    /// Above 0.
    pub(crate) cosine: f32,
}

/// What the neighbours that have a label say of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Vote {
    pub(crate) label: u32,
    /// Σ cosine³.
    pub(crate) votes: f32,
    /// The largest cosine.
    pub(crate) nearest: f32,
}

/// The memory of searches, kept between them.
#[derive(Default)]
pub(crate) struct NeighbourSearch {
    /// Features and their values.
    query: Vec<(usize, f32)>,
    /// By text, and more up to a power of two; all zeros between two searches.
    cosines: Vec<f32>,
    /// The largest of every [`MAXIMA_CHUNK`] cosines.
    maxima: Vec<f32>,
    top: TopK,
    nearest: Vec<Neighbour>,
    votes: Vec<Vote>,
}

/// Inverts texts \[N, F\], without the features of more than `max_texts` of them.
///
/// # Errors
/// Too many texts; no memory.
pub(crate) fn invert(texts: &SparseRows<'_>, max_texts: usize) -> Result<Inverted> {
    let num_texts = texts.len();
    if num_texts > MAX_IDS {
        return Err(ArgumentError::TooMany { name: "texts", received: num_texts }.into());
    }
    let what = "the texts by feature";
    let mut offsets: Vec<u64> = zeros(what, texts.num_columns + 1)?;
    for &column in texts.columns {
        offsets[column as usize + 1] += 1;
    }
    let mut sum = 0;
    for length in &mut offsets[1..] {
        *length = if *length > max_texts as u64 { 0 } else { *length };
        sum += *length;
        *length = sum;
    }
    let mut ends = offsets.clone();
    let mut inverted =
        Inverted { offsets, texts: zeros(what, sum as usize)?, values: zeros(what, sum as usize)? };
    for text in 0..num_texts {
        for (column, value) in texts.row(text) {
            if inverted.offsets[column] < inverted.offsets[column + 1] {
                let place = ends[column] as usize;
                inverted.texts[place] = text as u32;
                inverted.values[place] = value;
                ends[column] += 1;
            }
        }
    }
    Ok(inverted)
}

impl Postings<'_> {
    /// The texts that have a feature, and their values.
    fn list(&self, feature: usize) -> (&[u32], &[f32]) {
        let range = self.offsets[feature] as usize..self.offsets[feature + 1] as usize;
        (&self.texts[range.clone()], &self.values[range])
    }

    /// Asks for where a feature's list starts.
    fn prefetch(&self, feature: usize) {
        let (texts, values) = self.list(feature);
        prefetch(texts.as_ptr().cast(), size_of_val(texts).min(MAX_PREFETCHED));
        prefetch(values.as_ptr().cast(), size_of_val(values).min(MAX_PREFETCHED));
    }
}

impl NeighbourSearch {
    /// The `count` texts with the largest cosines above 0, the largest first, of equal ones the smaller text first.
    /// A query is its features, below F, and their values.
    pub(crate) fn nearest(
        &mut self,
        kernels: Kernels,
        postings: Postings<'_>,
        query: impl Iterator<Item = (usize, f32)>,
        count: usize,
    ) -> &[Neighbour] {
        self.query.clear();
        self.query.extend(query);
        self.add_up(postings);
        self.take_largest(kernels, postings.num_texts, count);
        let found = self.top.finish().iter().map(|&key| unkey(key));
        self.nearest.clear();
        self.nearest.extend(found.map(|(text, cosine)| Neighbour { text, cosine }));
        &self.nearest
    }

    /// Adds up the cosines of all texts.
    fn add_up(&mut self, postings: Postings<'_>) {
        self.cosines.resize(postings.num_texts.next_power_of_two(), 0.0);
        let cosines = &mut self.cosines[..];
        for (at, &(feature, value)) in self.query.iter().enumerate() {
            if let Some(&(later, _)) = self.query.get(at + AHEAD) {
                postings.prefetch(later);
            }
            let (texts, values) = postings.list(feature);
            for (&text, of_text) in texts.iter().zip(values) {
                // The mask changes nothing of a number below N, but with it the compiler needs no check of the bounds.
                cosines[text as usize & (cosines.len() - 1)] += value * of_text;
            }
        }
    }

    /// Takes the `count` largest cosines above 0 to the top, and leaves zeros.
    fn take_largest(&mut self, kernels: Kernels, num_texts: usize, count: usize) {
        let cosines = &mut self.cosines[..num_texts];
        self.maxima.resize(num_texts.div_ceil(MAXIMA_CHUNK), 0.0);
        kernels.chunk_maxima(cosines, &mut self.maxima);
        // At least `count` cosines reach the maximum that as many chunks reach.
        let reached = match count <= self.maxima.len() {
            true => kernels.kth_largest(&self.maxima, count),
            false => 0.0,
        };
        let least = reached.max(LEAST);
        self.top.reset(count);
        for (chunk, &max) in self.maxima.iter().enumerate() {
            if max < least {
                continue;
            }
            let first = chunk * MAXIMA_CHUNK;
            // Without a branch for each cosine: nothing foresees which ones are large.
            let (mut large, mut num_large) = ([0_u8; MAXIMA_CHUNK], 0);
            for (at, &cosine) in cosines[first..].iter().take(MAXIMA_CHUNK).enumerate() {
                large[num_large % MAXIMA_CHUNK] = at as u8;
                num_large += usize::from(cosine >= least);
            }
            for &at in &large[..num_large] {
                let text = first + usize::from(at);
                self.top.push(cosines[text], text as u32);
            }
        }
        self.cosines.fill(0.0);
    }

    /// What the texts that [`nearest`](Self::nearest) found last vote for, by label.
    pub(crate) fn votes(&mut self, labels: TextLabels<'_>) -> &[Vote] {
        self.votes.clear();
        for &Neighbour { text, cosine } in &self.nearest {
            let own =
                labels.offsets[text as usize] as usize..labels.offsets[text as usize + 1] as usize;
            let vote = |&label| Vote { label, votes: cosine.powi(3), nearest: cosine };
            self.votes.extend(labels.labels[own].iter().map(vote));
        }
        // Stable: a label's nearest text stays the first, and its votes are added from the largest on.
        self.votes.sort_by_key(|vote| vote.label);
        self.votes.dedup_by(|next, vote| {
            let same = next.label == vote.label;
            vote.votes += if same { next.votes } else { 0.0 };
            same
        });
        &self.votes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// CSR arrays of a small matrix; zeros aren't stored.
    struct Rows(Vec<i64>, Vec<i32>, Vec<f32>, usize);

    impl Rows {
        fn new(rows: &[Vec<f32>], num_columns: usize) -> Self {
            let mut own = Self(vec![0], vec![], vec![], num_columns);
            for row in rows {
                for (column, &value) in (0..).zip(row).filter(|(_, value)| **value != 0.0) {
                    own.1.push(column);
                    own.2.push(value);
                }
                own.0.push(own.1.len() as i64);
            }
            own
        }

        fn invert(&self, max_texts: usize) -> Inverted {
            let (offsets, columns, values) = (&self.0[..], &self.1[..], &self.2[..]);
            invert(&SparseRows { offsets, columns, values, num_columns: self.3 }, max_texts)
                .unwrap()
        }
    }

    fn view(inverted: &Inverted, num_texts: usize) -> Postings<'_> {
        let Inverted { offsets, texts, values } = inverted;
        Postings { offsets, texts, values, num_texts }
    }

    const FEATURES: usize = 6;

    /// Values whose products are exact, so that equal sums are equal in any order.
    fn matrix(max_rows: usize) -> impl Strategy<Value = Vec<Vec<f32>>> {
        let value = (-2..5_i32).prop_map(|value| value.max(-1) as f32 / 4.0);
        prop::collection::vec(prop::collection::vec(value, FEATURES), 0..max_rows)
    }

    /// All cosines above 0, best first.
    fn by_sorting(texts: &[Vec<f32>], query: &[f32], features: &[bool]) -> Vec<(u32, f32)> {
        let product = |text: &Vec<f32>| -> f32 {
            (0..FEATURES).filter(|&f| features[f]).map(|f| text[f] * query[f]).sum()
        };
        let mut all: Vec<(u32, f32)> = (0..).zip(texts.iter().map(product)).collect();
        all.retain(|pair| pair.1 > 0.0);
        all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        all
    }

    proptest! {
        #[test]
        fn neighbours_are_those_of_sorting_all_cosines(
            texts in matrix(600), queries in matrix(20), count in 1..50_usize, max_texts in 0..600_usize,
        ) {
            let few = |f: usize| texts.iter().filter(|text| text[f] != 0.0).count() <= max_texts;
            let features: Vec<bool> = (0..FEATURES).map(few).collect();
            let inverted = Rows::new(&texts, FEATURES).invert(max_texts);
            let mut search = NeighbourSearch::default();
            for (query, &kernels) in queries.iter().zip(Kernels::available().iter().cycle()) {
                let features_of_query = query.iter().copied().enumerate();
                let postings = view(&inverted, texts.len());
                let found = search.nearest(kernels, postings, features_of_query, count);
                let found: Vec<(u32, f32)> =
                    found.iter().map(|near| (near.text, near.cosine)).collect();
                let mut expected = by_sorting(&texts, query, &features);
                expected.truncate(count);
                prop_assert_eq!(found, expected);
            }
        }

        #[test]
        fn votes_add_up_cubes(
            texts in matrix(30), query in prop::collection::vec(0.0..1.0_f32, FEATURES),
            labels in prop::collection::vec(prop::collection::btree_set(0..8_u32, 0..4), 30),
        ) {
            let inverted = Rows::new(&texts, FEATURES).invert(usize::MAX);
            let (mut search, kernels) = (NeighbourSearch::default(), Kernels::detect().unwrap());
            let near = search.nearest(kernels, view(&inverted, texts.len()), (0..).zip(query), 10).to_vec();
            let mut offsets = vec![0_u64];
            labels.iter().for_each(|own| offsets.push(offsets[offsets.len() - 1] + own.len() as u64));
            let flat: Vec<u32> = labels.iter().flatten().copied().collect();
            let votes = search.votes(TextLabels { offsets: &offsets, labels: &flat });
            for label in 0..8 {
                let cosines: Vec<f32> = near.iter()
                    .filter(|near| labels[near.text as usize].contains(&label))
                    .map(|near| near.cosine).collect();
                let found: Vec<&Vote> = votes.iter().filter(|vote| vote.label == label).collect();
                prop_assert_eq!(found.len(), usize::from(!cosines.is_empty()));
                for vote in found {
                    let sum: f32 = cosines.iter().map(|cosine| cosine.powi(3)).sum();
                    prop_assert!((vote.votes - sum).abs() <= 1e-5 * sum);
                    prop_assert_eq!(vote.nearest, cosines.iter().copied().fold(0.0, f32::max));
                }
            }
            prop_assert!(votes.is_sorted_by_key(|vote| vote.label));
        }
    }

    #[test]
    fn sums_beyond_numbers_are_no_neighbours_but_the_infinite() {
        let huge = [f32::MAX, -f32::MAX, 1.0, 0.0];
        let rows: Vec<Vec<f32>> = huge.iter().map(|&value| vec![value, value, 0.0]).collect();
        let inverted = Rows::new(&rows, 3).invert(usize::MAX);
        let (mut search, kernels) = (NeighbourSearch::default(), Kernels::detect().unwrap());
        let texts = |found: &[Neighbour]| found.iter().map(|near| near.text).collect::<Vec<_>>();
        for count in [1, 9] {
            // The first text's sum is ∞, the second's −∞, or both are ∞ − ∞.
            let found = search.nearest(
                kernels,
                view(&inverted, 4),
                [(0, 9.0), (1, 1.0)].into_iter(),
                count,
            );
            assert_eq!(texts(found), [0, 2][..count.min(2)]);
            let found = search.nearest(
                kernels,
                view(&inverted, 4),
                [(0, 9.0), (1, -9.0)].into_iter(),
                count,
            );
            assert!(found.is_empty());
        }
        let none = Rows::new(&[], 3).invert(usize::MAX);
        assert!(search.nearest(kernels, view(&none, 0), [(0, 1.0)].into_iter(), 3).is_empty());
    }

    #[test]
    fn searches_leave_nothing_behind() {
        let many = Rows::new(&vec![vec![1.0; 2]; 300], 2).invert(usize::MAX);
        let few = Rows::new(&[vec![0.0, 1.0]], 2).invert(usize::MAX);
        let (mut search, kernels) = (NeighbourSearch::default(), Kernels::detect().unwrap());
        assert_eq!(search.nearest(kernels, view(&many, 300), [(0, 1.0)].into_iter(), 7).len(), 7);
        let expected = [Neighbour { text: 0, cosine: 0.5 }];
        assert_eq!(search.nearest(kernels, view(&few, 1), [(1, 0.5)].into_iter(), 7), expected);
        assert!(search.nearest(kernels, view(&few, 1), [(0, 1.0)].into_iter(), 7).is_empty());
    }
}
