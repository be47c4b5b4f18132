//! Grouping by row: what belongs to a row of a table stands together, rows ascend, and groups are shared
//! out in parts of about equal size.

use std::ops::Range;

/// Entries of one row, in the order that [`ByRow::order`] gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) row: u32,
    /// Where its entries begin; they end where the next group's begin.
    pub(super) start: u32,
}

/// The entries of rows, grouped by row.
#[derive(Default)]
pub(super) struct ByRow {
    /// The entries' numbers, by row, then number.
    pub(super) order: Vec<u32>,
    /// By ascending row, and one more at the end.
    groups: Vec<Group>,
    /// Groups that belong to a part, for each part.
    parts: Vec<Range<usize>>,
    /// Row and number of each entry.
    keys: Vec<u64>,
    sorted: Vec<u64>,
}

/// Entries that a part has at least, if there are so many.
const PART_LEN: usize = 1 << 14;
/// Parts at most, each of which needs memory for a gradient of all queries.
const MAX_PARTS: usize = 32;

impl ByRow {
    /// Groups entries, given as (row, number).
    pub(super) fn fill(&mut self, entries: impl Iterator<Item = (u32, u32)>) {
        self.keys.clear();
        self.keys.extend(entries.map(|(row, number)| u64::from(row) << 32 | u64::from(number)));
        sort_by_row(&mut self.keys, &mut self.sorted);
        self.order.clear();
        self.order.extend(self.keys.iter().map(|&key| key as u32));
        self.find_groups();
        self.share_out();
    }

    fn find_groups(&mut self) {
        self.groups.clear();
        let mut last = None;
        for (&key, start) in self.keys.iter().zip(0..) {
            let row = (key >> 32) as u32;
            if last != Some(row) {
                self.groups.push(Group { row, start });
                last = Some(row);
            }
        }
        self.groups.push(Group { row: u32::MAX, start: self.keys.len() as u32 });
    }

    /// Parts depend on the entries alone, not on threads, as sums are added up part by part.
    fn share_out(&mut self) {
        let num_parts = (self.keys.len() / PART_LEN).clamp(1, MAX_PARTS);
        self.parts.clear();
        let mut first = 0;
        for part in 1..=num_parts {
            let end_entry = (self.keys.len() * part / num_parts) as u32;
            let end = self.groups.partition_point(|group| group.start < end_entry);
            let end = end.min(self.groups.len() - 1);
            self.parts.push(first..end);
            first = end;
        }
    }

    pub(super) fn num_parts(&self) -> usize {
        self.parts.len()
    }

    /// A part's groups, and the one after them, which tells where the last one ends.
    pub(super) fn part(&self, part: usize) -> &[Group] {
        let Range { start, end } = self.parts[part].clone();
        &self.groups[start..=end]
    }
}

/// The entries of the first of two groups.
pub(super) fn entries_of(pair: &[Group]) -> Range<usize> {
    pair[0].start as usize..pair[1].start as usize
}

/// Sorts keys by their upper 32 bits, equal ones staying in order: by digits, from the lowest on.
fn sort_by_row(keys: &mut Vec<u64>, buffer: &mut Vec<u64>) {
    const DIGIT_BITS: u32 = 11;
    let largest = keys.iter().copied().max().unwrap_or(0) >> 32;
    buffer.clear();
    buffer.resize(keys.len(), 0);
    let mut shift = 32;
    while shift == 32 || largest >> (shift - 32) > 0 {
        let digit = |key: u64| (key >> shift) as usize & ((1 << DIGIT_BITS) - 1);
        let mut places = [0_u32; 1 << DIGIT_BITS];
        for &key in &*keys {
            places[digit(key)] += 1;
        }
        let mut place = 0;
        for count in &mut places {
            place += std::mem::replace(count, place);
        }
        for &key in &*keys {
            let place = &mut places[digit(key)];
            buffer[*place as usize] = key;
            *place += 1;
        }
        std::mem::swap(keys, buffer);
        shift += DIGIT_BITS;
        if shift >= u64::BITS {
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn rows_ascend_and_keep_their_entries(
            rows in prop::collection::vec(
                prop_oneof![0..4_u32, 0..5000_u32, (0..40_u32).prop_map(|row| row * 100_000_007)],
                0..300,
            ),
            copies in 1..300_usize,
        ) {
            let rows: Vec<u32> = rows.into_iter().cycle().take(copies * 100).collect();
            let mut by_row = ByRow::default();
            // In memory that was used before.
            by_row.fill([(7, 0), (3, 1)].into_iter());
            by_row.fill(rows.iter().copied().zip(0..));
            let mut expected: Vec<(u32, u32)> = rows.iter().copied().zip(0..).collect();
            expected.sort_unstable();
            let mut found = Vec::new();
            for part in 0..by_row.num_parts() {
                for pair in by_row.part(part).windows(2) {
                    let numbers = &by_row.order[entries_of(pair)];
                    prop_assert!(!numbers.is_empty());
                    found.extend(numbers.iter().map(|&number| (pair[0].row, number)));
                }
            }
            prop_assert_eq!(found, expected);
            prop_assert!((1..=MAX_PARTS).contains(&by_row.num_parts()));
        }
    }

    #[test]
    fn parts_are_of_about_equal_size() {
        let mut by_row = ByRow::default();
        by_row.fill((0..100_000).map(|number| (number / 3, number)));
        assert_eq!(by_row.num_parts(), 6);
        for part in 0..6 {
            let groups = by_row.part(part);
            let len = groups[groups.len() - 1].start - groups[0].start;
            assert!((16_600..16_720).contains(&len), "{len}");
        }
    }
}
