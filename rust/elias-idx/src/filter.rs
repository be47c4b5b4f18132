//! Which labels a search may return.

use std::fmt;

use crate::build::check_offsets;
use crate::error::{ArgumentError, Result};
use crate::index::Index;

/// Labels that a search may return. Made once by [`Index::label_filter`], it serves any number of
/// searches, on any threads, of the index that made it, or of a copy of that.
pub struct LabelFilter {
    labels: Labels,
    /// The index's checksum.
    index: String,
}

/// What one search allows: [`crate::SearchOptions::filter`].
#[derive(Debug, Clone, Copy)]
pub enum Filter<'a> {
    /// The same labels for each query.
    All(&'a LabelFilter),
    /// A filter for each query; None allows all labels.
    Each(&'a [Option<&'a LabelFilter>]),
    /// A row of labels for each query.
    Rows(&'a FilterRows),
}

/// The labels that each of Q queries may have, row by row; made by [`Index::filter_rows`].
pub struct FilterRows {
    /// Q+1 of them, into `labels`.
    offsets: Vec<usize>,
    /// Ascending and distinct in each row.
    labels: Vec<u32>,
    /// The index's checksum.
    index: String,
}

/// A set of labels in whichever form is smaller: ids of 32 bits, or a bit for every label.
enum Labels {
    /// Ascending and distinct, at most L / 32.
    Few(Vec<u32>),
    Many(Bitmap),
}

/// A bit for each label.
#[derive(Default)]
pub(crate) struct Bitmap {
    /// Label l is bit l % 64 of word l / 64.
    words: Vec<u64>,
    count: usize,
}

/// The labels that one query may have.
#[derive(Clone, Copy)]
pub(crate) enum Allowed<'a> {
    /// Ascending and distinct.
    Few(&'a [u32]),
    Many(BitmapView<'a>),
}

/// A borrowed [`Bitmap`].
#[derive(Clone, Copy)]
pub(crate) struct BitmapView<'a> {
    words: &'a [u64],
    /// The number of labels that are there.
    pub(crate) count: usize,
}

impl Index {
    /// A filter of the labels with these ids, in any order, repeated or not.
    ///
    /// # Errors
    /// [`ArgumentError::NoSuchLabel`].
    pub fn label_filter(&self, labels: &[i64]) -> Result<LabelFilter> {
        check_ids(labels, self.num_labels())?;
        let ids = labels.iter().map(|&label| label as u32);
        let labels = if is_few(labels.len(), self.num_labels()) {
            let mut ids: Vec<u32> = ids.collect();
            ids.sort_unstable();
            ids.dedup();
            Labels::Few(ids)
        } else {
            Labels::of(Bitmap::new(ids, self.num_labels()), self.num_labels())
        };
        Ok(LabelFilter { labels, index: self.sha256().to_owned() })
    }

    /// A filter of the labels whose element of `mask` \[L\] is true.
    ///
    /// # Errors
    /// [`ArgumentError::WrongLength`].
    pub fn label_filter_of_mask(&self, mask: &[bool]) -> Result<LabelFilter> {
        let (expected, received) = (self.num_labels(), mask.len());
        if expected != received {
            return Err(ArgumentError::WrongLength { name: "mask", expected, received }.into());
        }
        let ids = (0..).zip(mask).filter_map(|(label, &allowed)| allowed.then_some(label));
        let labels = Labels::of(Bitmap::new(ids, expected), expected);
        Ok(LabelFilter { labels, index: self.sha256().to_owned() })
    }

    /// A filter for each of Q queries, from the CSR matrix \[Q, L\] with the rows
    /// `offsets` \[Q+1\], the column ids `labels` \[n\], in any order and repeated or not, and
    /// whether each stored element counts, `allowed` \[n\].
    ///
    /// # Errors
    /// [`ArgumentError::BadFilter`] for arrays that don't fit together,
    /// [`ArgumentError::NoSuchLabel`].
    pub fn filter_rows(
        &self,
        offsets: &[i64],
        labels: &[i64],
        allowed: &[bool],
    ) -> Result<FilterRows> {
        let num_queries = offsets.len().saturating_sub(1);
        check_offsets(offsets, labels.len(), num_queries, "num_queries")
            .map_err(ArgumentError::BadFilter)?;
        if labels.len() != allowed.len() {
            let message = "indices and data must have the same length, got";
            let message = format!("{message} {} and {}", labels.len(), allowed.len());
            return Err(ArgumentError::BadFilter(message).into());
        }
        check_ids(labels, self.num_labels())?;
        let mut rows =
            FilterRows { offsets: vec![0], labels: Vec::new(), index: self.sha256().to_owned() };
        let mut row = Vec::new();
        for range in offsets.windows(2).map(|pair| pair[0] as usize..pair[1] as usize) {
            let elements = labels[range.clone()].iter().zip(&allowed[range]);
            row.clear();
            row.extend(elements.filter(|element| *element.1).map(|element| *element.0 as u32));
            row.sort_unstable();
            row.dedup();
            rows.labels.extend_from_slice(&row);
            rows.offsets.push(rows.labels.len());
        }
        Ok(rows)
    }
}

impl LabelFilter {
    /// The number of labels that are allowed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.allowed().len()
    }

    /// Whether no label is allowed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn allowed(&self) -> Allowed<'_> {
        match &self.labels {
            Labels::Few(labels) => Allowed::Few(labels),
            Labels::Many(bitmap) => Allowed::Many(bitmap.view()),
        }
    }
}

impl fmt::Debug for LabelFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LabelFilter({} labels)", self.len())
    }
}

impl fmt::Debug for FilterRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FilterRows({} queries, {} labels)", self.offsets.len() - 1, self.labels.len())
    }
}

impl<'a> Filter<'a> {
    /// Refuses filters of another index, or of another number of queries.
    pub(crate) fn check(self, index: &Index, num_queries: usize) -> Result<(), ArgumentError> {
        let id = index.sha256();
        let (num_filters, foreign) = match self {
            Self::All(filter) => (num_queries, filter.index != id),
            Self::Each(filters) => {
                (filters.len(), filters.iter().flatten().any(|filter| filter.index != id))
            }
            Self::Rows(rows) => (rows.offsets.len() - 1, rows.index != id),
        };
        if foreign {
            return Err(ArgumentError::ForeignFilter);
        }
        if num_filters != num_queries {
            let (expected, received) = (num_queries, num_filters);
            return Err(ArgumentError::WrongLength { name: "filter", expected, received });
        }
        Ok(())
    }

    /// The labels that a query may have; None means all.
    pub(crate) fn of_query(self, query: usize) -> Option<Allowed<'a>> {
        match self {
            Self::All(filter) => Some(filter.allowed()),
            Self::Each(filters) => filters[query].map(LabelFilter::allowed),
            Self::Rows(rows) => Some(rows.row(query)),
        }
    }

    /// The number of labels of the smallest filter, if there is one.
    pub(crate) fn least_count(self) -> Option<usize> {
        match self {
            Self::All(filter) => Some(filter.len()),
            Self::Each(filters) => filters.iter().flatten().map(|filter| filter.len()).min(),
            Self::Rows(rows) => rows.offsets.windows(2).map(|pair| pair[1] - pair[0]).min(),
        }
    }
}

impl FilterRows {
    fn row(&self, query: usize) -> Allowed<'_> {
        Allowed::Few(&self.labels[self.offsets[query]..self.offsets[query + 1]])
    }
}

impl<'a> Allowed<'a> {
    pub(crate) fn len(self) -> usize {
        match self {
            Self::Few(labels) => labels.len(),
            Self::Many(bitmap) => bitmap.count,
        }
    }

    pub(crate) fn contains(self, label: u32) -> bool {
        match self {
            Self::Few(labels) => labels.binary_search(&label).is_ok(),
            Self::Many(bitmap) => bitmap.contains(label),
        }
    }

    /// The labels, ascending.
    pub(crate) fn iter(self) -> impl Iterator<Item = u32> + use<'a> {
        let (labels, words): (&[u32], &[u64]) = match self {
            Self::Few(labels) => (labels, &[]),
            Self::Many(bitmap) => (&[], bitmap.words),
        };
        labels.iter().copied().chain((0..).zip(words).flat_map(|(at, &word)| {
            let mut rest = word;
            std::iter::from_fn(move || {
                let label = (rest != 0).then(|| at * 64 + rest.trailing_zeros());
                rest &= rest.wrapping_sub(1);
                label
            })
        }))
    }
}

impl BitmapView<'_> {
    #[inline]
    pub(crate) fn contains(self, label: u32) -> bool {
        (self.words[label as usize / 64] >> (label % 64)) & 1 == 1
    }
}

impl Labels {
    fn of(bitmap: Bitmap, num_labels: usize) -> Self {
        if is_few(bitmap.count, num_labels) {
            return Self::Few(Allowed::Many(bitmap.view()).iter().collect());
        }
        Self::Many(bitmap)
    }
}

impl Bitmap {
    pub(crate) fn new(labels: impl Iterator<Item = u32>, num_labels: usize) -> Self {
        let mut words = vec![0_u64; num_labels.div_ceil(64)];
        labels.for_each(|label| words[label as usize / 64] |= 1 << (label % 64));
        let count = words.iter().map(|word| word.count_ones() as usize).sum();
        Self { words, count }
    }

    pub(crate) fn view(&self) -> BitmapView<'_> {
        BitmapView { words: &self.words, count: self.count }
    }

    /// Calls `use_it` with the bitmap of some labels, distinct ones, in memory that is kept in `self`
    /// for the next call. It has no labels before and after.
    pub(crate) fn with<R>(
        &mut self,
        labels: &[u32],
        num_labels: usize,
        use_it: impl FnOnce(BitmapView<'_>) -> R,
    ) -> R {
        self.words.resize(num_labels.div_ceil(64), 0);
        labels.iter().for_each(|label| self.words[*label as usize / 64] |= 1 << (label % 64));
        let result = use_it(BitmapView { words: &self.words, count: labels.len() });
        labels.iter().for_each(|label| self.words[*label as usize / 64] = 0);
        result
    }
}

/// Whether ids of 32 bits take no more memory than a bit for every label.
fn is_few(count: usize, num_labels: usize) -> bool {
    count <= num_labels / 32
}

/// Refuses ids that no label has.
fn check_ids(labels: &[i64], num_labels: usize) -> Result<(), ArgumentError> {
    match labels.iter().find(|&&label| label < 0 || label >= num_labels as i64) {
        Some(&label) => Err(ArgumentError::NoSuchLabel { label, num_labels }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::search::plan::tests::tiny_index;

    fn labels(filter: &LabelFilter) -> Vec<u32> {
        filter.allowed().iter().collect()
    }

    #[test]
    fn the_smaller_form_is_kept() {
        let index = tiny_index(1, 640);
        let kinds = |filter: &LabelFilter| matches!(filter.labels, Labels::Few(_));
        let ids: Vec<i64> = (0..21).collect();
        assert!(kinds(&index.label_filter(&ids[..20]).unwrap()));
        assert!(!kinds(&index.label_filter(&ids).unwrap()));
        // Many ids that are few labels, and a mask of few.
        assert!(kinds(&index.label_filter(&[7; 400]).unwrap()));
        let mut mask = [false; 640];
        mask[639] = true;
        let filter = index.label_filter_of_mask(&mask).unwrap();
        assert!(kinds(&filter));
        assert_eq!(labels(&filter), [639]);
    }

    #[test]
    fn ids_that_are_no_labels_are_refused() {
        let index = tiny_index(1, 100);
        for bad in [-1, 100, i64::MAX, i64::MIN] {
            let message = format!("label {bad} is out of range: the index has 100 labels");
            let error = index.label_filter(&[0, bad]).unwrap_err();
            assert_eq!(error.to_string(), message);
            // Also where the element doesn't count.
            let error = index.filter_rows(&[0, 2], &[0, bad], &[true, false]).unwrap_err();
            assert_eq!(error.to_string(), message);
        }
        assert!(index.label_filter_of_mask(&[true; 99]).is_err());
    }

    #[test]
    fn broken_rows_are_refused() {
        let index = tiny_index(1, 9);
        type Case = (&'static [i64], &'static [i64], &'static [bool], &'static str);
        let cases: [Case; 5] = [
            (&[], &[], &[], "entries, got 0"),
            (&[1, 1], &[0], &[true], "start at 0"),
            (&[0, 1, 0], &[0], &[true], "decreases at row 1"),
            (&[0, 1], &[0, 1], &[true, true], "end at the number of entries, 2, got 1"),
            (&[0, 1], &[0], &[], "same length, got 1 and 0"),
        ];
        for (offsets, labels, allowed, message) in cases {
            let error = index.filter_rows(offsets, labels, allowed).unwrap_err().to_string();
            assert!(error.starts_with("filter: ") && error.contains(message), "{error}");
        }
    }

    #[test]
    fn filters_belong_to_their_index() {
        let (one, other) = (tiny_index(1, 9), tiny_index(2, 9));
        let filter = one.label_filter(&[1]).unwrap();
        let rows = one.filter_rows(&[0, 1], &[3], &[true]).unwrap();
        for filter in [Filter::All(&filter), Filter::Each(&[Some(&filter)]), Filter::Rows(&rows)] {
            filter.check(&one, 1).unwrap();
            assert_eq!(filter.check(&other, 1), Err(ArgumentError::ForeignFilter));
        }
        assert!(Filter::Each(&[None]).check(&other, 2).is_err(), "one query too many");
        assert!(Filter::Rows(&rows).check(&one, 2).is_err(), "one query too many");
    }

    #[test]
    fn copies_of_an_index_share_filters() {
        let built = tiny_index(1, 9);
        let filter = built.label_filter(&[1]).unwrap();
        let copy = Index::from_files(&built.to_files()).unwrap();
        Filter::All(&filter).check(&copy, 1).unwrap();
    }

    proptest! {
        #[test]
        fn all_ways_to_make_a_filter_agree(
            num_labels in 1..300_usize,
            picks in prop::collection::vec(0..300_i64, 0..300),
        ) {
            let index = tiny_index(1, num_labels);
            let ids: Vec<i64> = picks.iter().map(|pick| pick % num_labels as i64).collect();
            let expected: BTreeSet<u32> = ids.iter().map(|&id| id as u32).collect();
            let mut mask = vec![false; num_labels];
            expected.iter().for_each(|&id| mask[id as usize] = true);
            let rows = index.filter_rows(&[0, 0, ids.len() as i64], &ids, &vec![true; ids.len()]);
            let rows = rows.unwrap();
            let row = Filter::Rows(&rows).of_query(1).unwrap();
            let by_ids = index.label_filter(&ids).unwrap();
            let by_mask = index.label_filter_of_mask(&mask).unwrap();
            for allowed in [by_ids.allowed(), by_mask.allowed(), row] {
                prop_assert_eq!(allowed.len(), expected.len());
                prop_assert_eq!(allowed.iter().collect::<BTreeSet<u32>>(), expected.clone());
                for label in 0..num_labels as u32 {
                    prop_assert_eq!(allowed.contains(label), expected.contains(&label));
                }
            }
        }
    }
}
