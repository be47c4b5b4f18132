//! n-grams of symbols.

use super::ids::KeyIds;
use super::{NONE, bad};
use crate::error::Result;

/// Known n-grams, the shortest ones first.
///
/// With an n-gram its first n − 1 symbols are known too: an n-gram's key is their number among the (n−1)-grams times the
/// number of symbols, plus the number of its last symbol.
pub(crate) struct Ngrams {
    num_symbols: usize,
    /// n of the shortest n-grams that count; those below only lead to longer ones.
    shortest: usize,
    /// For n = 2, 3, ...
    levels: Vec<KeyIds>,
}

/// Where known n-grams of one n start, and their numbers.
pub(crate) type Occurrences = Vec<(usize, u32)>;

impl Ngrams {
    /// The 1-grams.
    pub(crate) fn new(num_symbols: usize, shortest: usize) -> Self {
        Self { num_symbols, shortest, levels: Vec::new() }
    }

    /// Adds the n-grams that are one symbol longer than those so far, by their keys, which ascend.
    pub(crate) fn push(&mut self, keys: &[u64]) {
        self.levels.push(KeyIds::new(keys));
    }

    /// Adds the n-grams up to `longest` by keys from outside.
    pub(crate) fn push_all(
        &mut self,
        place: usize,
        longest: usize,
        levels: &[Vec<i64>],
    ) -> Result<()> {
        if levels.len() + 1 != longest {
            return Err(bad(format!(
                "block {place} must have keys for each n from 2 to {longest}"
            )));
        }
        let mut num_prefixes = self.num_symbols;
        for (keys, n) in levels.iter().zip(2..) {
            let limit = num_prefixes as u64 * self.num_symbols as u64;
            let proper: Vec<u64> = keys
                .iter()
                .filter_map(|&key| u64::try_from(key).ok())
                .filter(|&key| key < limit)
                .collect();
            if proper.len() != keys.len() || !proper.is_sorted_by(|one, next| one < next) {
                return Err(bad(format!("{place}.{n} must be ascending keys of n-grams")));
            }
            self.push(&proper);
            num_prefixes = proper.len();
        }
        Ok(())
    }

    /// How many n-grams are features.
    pub(crate) fn num_features(&self) -> usize {
        let counts = [self.num_symbols].into_iter().chain(self.levels.iter().map(KeyIds::len));
        counts.skip(self.shortest - 1).sum()
    }

    /// For n = 2, 3, ..., ascending.
    pub(crate) fn keys(&self) -> Vec<Vec<i64>> {
        let signed = |level: &KeyIds| level.keys().into_iter().map(|key| key as i64).collect();
        self.levels.iter().map(signed).collect()
    }

    /// The features in a text's symbols, each as often as it is there.
    pub(crate) fn find(&self, symbols: &[u32], at: &mut Occurrences, features: &mut Vec<u32>) {
        features.clear();
        let (mut first, mut num_ids) = (0, self.num_symbols);
        self.walk(symbols, at, |n, at| {
            if n > 1 {
                num_ids = self.levels[n - 2].len();
            }
            if n >= self.shortest {
                features.extend(at.iter().map(|&(_, id)| first as u32 + id));
                first += num_ids;
            }
        });
    }

    /// The keys of what would be the n-grams of the next level, each as often as it is there.
    pub(crate) fn candidates(&self, symbols: &[u32], at: &mut Occurrences, keys: &mut Vec<u64>) {
        keys.clear();
        self.walk(symbols, at, |_, _| {});
        let n = self.levels.len() + 1;
        let key = |&(start, id): &(usize, u32)| self.key(id, symbols[start + n]);
        keys.extend(at.iter().filter_map(key));
    }

    /// Calls `visit` with each n and the n-grams that are known, which are left in `at` for the longest n.
    fn walk(
        &self,
        symbols: &[u32],
        at: &mut Occurrences,
        mut visit: impl FnMut(usize, &Occurrences),
    ) {
        at.clear();
        at.extend(symbols.iter().copied().enumerate().filter(|symbol| symbol.1 != NONE));
        visit(1, at);
        for (level, n) in self.levels.iter().zip(1..) {
            at.retain_mut(|(start, id)| {
                *id = self.key(*id, symbols[*start + n]).map_or(NONE, |key| level.get(key));
                *id != NONE
            });
            visit(n + 1, at);
        }
    }

    fn key(&self, prefix: u32, last: u32) -> Option<u64> {
        (last != NONE).then(|| u64::from(prefix) * self.num_symbols as u64 + u64::from(last))
    }
}
