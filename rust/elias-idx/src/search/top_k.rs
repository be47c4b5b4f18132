//! The k best of many scores, equal ones by the smaller id.
//!
//! A score and its id are packed into one integer that sorts the way results do: scores aren't
//! negative, so their bits ascend as they do; inverted, the best comes first, and the id breaks ties.

/// Score and id as a key: the smaller, the better. `score` is ≥ 0 and not −0.
#[inline]
pub(crate) fn key(score: f32, id: u32) -> u64 {
    (u64::from(!score.to_bits()) << 32) | u64::from(id)
}

/// The id and score of a key.
#[inline]
pub(crate) fn unkey(key: u64) -> (u32, f32) {
    (key as u32, f32::from_bits(!((key >> 32) as u32)))
}

/// Collects the best `limit` keys, in memory for at most twice as many, or for those offered if
/// these are fewer.
#[derive(Default)]
pub(crate) struct TopK {
    limit: usize,
    keys: Vec<u64>,
    /// Keys from here on can't be among the best.
    bound: u64,
}

/// Keys that are collected, at least, before the worst are dropped.
const MIN_CAPACITY: usize = 256;
/// Scores that are compared to the bound in one go.
const CHUNK: usize = 64;

impl TopK {
    /// Starts anew, for the best `limit` ≥ 1.
    pub(crate) fn reset(&mut self, limit: usize) {
        self.limit = limit;
        self.keys.clear();
        self.bound = u64::MAX;
    }

    #[inline]
    pub(crate) fn push(&mut self, score: f32, id: u32) {
        let key = key(score, id);
        if key < self.bound {
            self.keys.push(key);
            if self.keys.len() >= self.limit.saturating_mul(2).max(MIN_CAPACITY) {
                self.prune();
            }
        }
    }

    /// Offers `scores`, whose ids count from 0.
    pub(crate) fn push_all(&mut self, scores: &[f32]) {
        for (chunk, scores) in scores.chunks(CHUNK).enumerate() {
            // Most chunks hold nothing that is good enough; finding that out vectorises.
            let least = unkey(self.bound).1;
            if self.bound != u64::MAX && scores.iter().all_below(least) {
                continue;
            }
            for (i, &score) in scores.iter().enumerate() {
                self.push(score, (chunk * CHUNK + i) as u32);
            }
        }
    }

    /// The worst score among the best `limit`, once there are so many.
    pub(crate) fn kth_score(&mut self) -> Option<f32> {
        if self.keys.len() < self.limit {
            return None;
        }
        self.prune();
        self.keys.iter().max().map(|&key| unkey(key).1)
    }

    /// The best keys, best first.
    pub(crate) fn finish(&mut self) -> &[u64] {
        if self.keys.len() > self.limit {
            self.prune();
        }
        self.keys.sort_unstable();
        &self.keys
    }

    fn prune(&mut self) {
        if self.keys.len() > self.limit {
            let (_, &mut worst, _) = self.keys.select_nth_unstable(self.limit - 1);
            self.keys.truncate(self.limit);
            self.bound = worst;
        }
    }
}

/// A comparison of all values, without a branch for each.
trait AllBelow {
    fn all_below(self, bound: f32) -> bool;
}

impl<'a, I: Iterator<Item = &'a f32>> AllBelow for I {
    #[inline]
    fn all_below(self, bound: f32) -> bool {
        self.fold(true, |below, &value| below & (value < bound))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn by_sorting(scores: &[f32], k: usize) -> Vec<(u32, f32)> {
        let mut pairs: Vec<(u32, f32)> = (0..).zip(scores.iter().copied()).collect();
        pairs.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        pairs.truncate(k);
        pairs
    }

    fn collected(scores: &[f32], k: usize) -> Vec<(u32, f32)> {
        let mut top = TopK::default();
        top.reset(k);
        top.push_all(scores);
        top.finish().iter().copied().map(unkey).collect()
    }

    #[test]
    fn keys_sort_by_score_then_id() {
        let subnormal = f32::from_bits(1);
        let pairs = [(1.0, 0), (1.0, 7), (0.5, 1), (subnormal, 0), (0.0, 0), (0.0, u32::MAX - 2)];
        let keys: Vec<u64> = pairs.iter().map(|&(score, id)| key(score, id)).collect();
        assert!(keys.is_sorted());
        for (&(score, id), &key) in pairs.iter().zip(&keys) {
            assert_eq!(unkey(key), (id, score));
        }
    }

    #[test]
    fn memory_is_bounded() {
        let mut top = TopK::default();
        top.reset(10);
        (0..100_000).for_each(|id| top.push(id as f32, id));
        assert!(top.keys.capacity() <= 2 * MIN_CAPACITY);
        top.reset(usize::MAX);
        (0..10).for_each(|id| top.push(1.0, id));
        assert_eq!(top.finish().len(), 10);
        assert!(top.keys.capacity() <= 2 * MIN_CAPACITY);
    }

    #[test]
    fn a_reset_forgets() {
        let mut top = TopK::default();
        top.reset(1);
        top.push_all(&[1.0; 1000]);
        top.reset(2);
        top.push_all(&[0.25, 0.5]);
        assert_eq!(top.finish().iter().map(|&key| unkey(key).0).collect::<Vec<_>>(), [1, 0]);
    }

    proptest! {
        #[test]
        fn it_is_sorting_and_cutting(
            levels in prop::collection::vec(0..20_u32, 0..2000),
            k in 1..600_usize,
        ) {
            // Few distinct values, so that there are many ties.
            let scores: Vec<f32> = levels.iter().map(|&level| level as f32 / 20.0).collect();
            prop_assert_eq!(collected(&scores, k), by_sorting(&scores, k));
        }

        #[test]
        fn it_takes_all_kinds_of_scores(
            scores in prop::collection::vec(0.0..=1.0_f32, 0..2000),
            k in 1..600_usize,
        ) {
            prop_assert_eq!(collected(&scores, k), by_sorting(&scores, k));
        }
    }
}
