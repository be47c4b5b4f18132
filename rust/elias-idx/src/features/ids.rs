//! Numbers of words, characters and n-grams, found by hashing.

use super::{NONE, Unit};

/// Spreads the bits of a number, so that the high ones depend on all.
pub(crate) fn mix(value: u64) -> u64 {
    fold(value ^ 0x9e37_79b9_7f4a_7c15, 0xd6e8_feb8_6659_fd93)
}

fn fold(one: u64, other: u64) -> u64 {
    let product = u128::from(one) * u128::from(other);
    (product as u64) ^ ((product >> 64) as u64)
}

fn hash_bytes(bytes: &[u8]) -> u64 {
    let (chunks, rest) = bytes.as_chunks();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    let whole = chunks
        .iter()
        .fold(bytes.len() as u64, |hash, &chunk| mix(hash ^ u64::from_le_bytes(chunk)));
    mix(whole ^ u64::from_le_bytes(last))
}

/// Places of a table that is at most half full, a power of two.
fn num_slots(len: usize) -> usize {
    (2 * len).next_power_of_two().max(2)
}

/// Distinct words, numbered in the order in which they came.
#[derive(Clone, Default)]
pub(crate) struct WordIds {
    bytes: String,
    ends: Vec<usize>,
    /// The upper half of a word's hash, and its number; [`NONE`] where there is no word.
    slots: Vec<(u32, u32)>,
}

impl WordIds {
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(crate) fn word(&self, id: u32) -> &str {
        let id = id as usize;
        let start = if id == 0 { 0 } else { self.ends[id - 1] };
        &self.bytes[start..self.ends[id]]
    }

    pub(crate) fn words(&self) -> impl ExactSizeIterator<Item = &str> {
        (0..self.len() as u32).map(|id| self.word(id))
    }

    /// The number of a word; [`NONE`] if there is no such word.
    pub(crate) fn get(&self, word: &str) -> u32 {
        if self.slots.is_empty() {
            return NONE;
        }
        self.slots[self.slot(word, hash_bytes(word.as_bytes()))].1
    }

    /// The number of a word, which is added where it is missing.
    pub(crate) fn add(&mut self, word: &str) -> u32 {
        if 2 * self.len() >= self.slots.len() {
            self.grow();
        }
        let hash = hash_bytes(word.as_bytes());
        let slot = self.slot(word, hash);
        if self.slots[slot].1 == NONE {
            self.slots[slot] = ((hash >> 32) as u32, self.len() as u32);
            self.bytes.push_str(word);
            self.ends.push(self.bytes.len());
        }
        self.slots[slot].1
    }

    /// Adds the symbols of a block if they are words.
    pub(crate) fn add_symbols(&mut self, unit: Unit, symbols: &[String]) {
        if unit == Unit::Word {
            symbols.iter().for_each(|word| _ = self.add(word));
        }
    }

    /// Where a word is, or would be.
    fn slot(&self, word: &str, hash: u64) -> usize {
        let mask = self.slots.len() - 1;
        let mut slot = hash as usize & mask;
        loop {
            let (upper, id) = self.slots[slot];
            if id == NONE || (upper == (hash >> 32) as u32 && self.word(id) == word) {
                return slot;
            }
            slot = (slot + 1) & mask;
        }
    }

    fn grow(&mut self) {
        let num_slots = num_slots(self.len() + 1);
        self.slots = vec![(0, NONE); num_slots];
        for id in 0..self.len() as u32 {
            let hash = hash_bytes(self.word(id).as_bytes());
            let mut slot = hash as usize & (num_slots - 1);
            while self.slots[slot].1 != NONE {
                slot = (slot + 1) & (num_slots - 1);
            }
            self.slots[slot] = ((hash >> 32) as u32, id);
        }
    }
}

/// Ascending keys below 2⁶³, numbered in their order.
pub(crate) struct KeyIds {
    len: usize,
    /// Keys and their numbers; [`NONE`] where there is no key.
    slots: Vec<(u64, u32)>,
}

impl KeyIds {
    pub(crate) fn new(keys: &[u64]) -> Self {
        let mut slots = vec![(u64::MAX, NONE); num_slots(keys.len())];
        let mask = slots.len() - 1;
        for (id, &key) in keys.iter().enumerate() {
            let mut slot = mix(key) as usize & mask;
            while slots[slot].1 != NONE {
                slot = (slot + 1) & mask;
            }
            slots[slot] = (key, id as u32);
        }
        Self { len: keys.len(), slots }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The number of a key; [`NONE`] if there is no such key.
    pub(crate) fn get(&self, key: u64) -> u32 {
        let mask = self.slots.len() - 1;
        let mut slot = mix(key) as usize & mask;
        loop {
            let (found, id) = self.slots[slot];
            if found == key || id == NONE {
                return id;
            }
            slot = (slot + 1) & mask;
        }
    }

    /// All keys, ascending.
    pub(crate) fn keys(&self) -> Vec<u64> {
        let mut keys = vec![0; self.len];
        for &(key, id) in self.slots.iter().filter(|slot| slot.1 != NONE) {
            keys[id as usize] = key;
        }
        keys
    }
}

/// Distinct characters and their numbers.
pub(crate) struct CharIds {
    chars: Vec<char>,
    /// The number of each character up to the last one that has any.
    ids: Vec<u32>,
}

impl CharIds {
    pub(crate) fn new(chars: Vec<char>) -> Self {
        let len = chars.iter().max().map_or(0, |&last| last as usize + 1);
        let mut ids = vec![NONE; len];
        for (id, &character) in chars.iter().enumerate() {
            ids[character as usize] = id as u32;
        }
        Self { chars, ids }
    }

    pub(crate) fn chars(&self) -> &[char] {
        &self.chars
    }

    pub(crate) fn get(&self, character: char) -> u32 {
        self.ids.get(character as usize).copied().unwrap_or(NONE)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn words_are_numbered_as_they_come(words: Vec<String>, other: String) {
            let mut ids = WordIds::default();
            let mut expected: HashMap<&str, u32> = HashMap::new();
            for word in &words {
                let next = expected.len() as u32;
                let id = *expected.entry(word).or_insert(next);
                prop_assert_eq!(ids.add(word), id);
                prop_assert_eq!(ids.word(id), word);
            }
            prop_assert_eq!(ids.len(), expected.len());
            prop_assert_eq!(ids.get(&other), expected.get(other.as_str()).copied().unwrap_or(NONE));
        }

        #[test]
        fn keys_are_numbered_in_order(keys in proptest::collection::btree_set(0..1u64 << 63, 0..40), other: u64) {
            let keys: Vec<u64> = keys.into_iter().collect();
            let ids = KeyIds::new(&keys);
            for (id, &key) in keys.iter().enumerate() {
                prop_assert_eq!(ids.get(key), id as u32);
            }
            prop_assert_eq!(ids.get(other >> 1), keys.binary_search(&(other >> 1)).map_or(NONE, |id| id as u32));
            prop_assert_eq!(ids.keys(), keys);
        }
    }
}
