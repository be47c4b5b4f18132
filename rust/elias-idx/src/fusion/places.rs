//! Where keys stand in a short list.

/// A hash table of keys' places in a list without repeats: open addressing with linear probing.
#[derive(Default)]
pub(crate) struct Places {
    /// A power of two of them; [`EMPTY`] or a place.
    slots: Vec<u32>,
}

const EMPTY: u32 = u32::MAX;
/// There are at least this many slots for a key: most of those that are looked up aren't there.
const SLOTS_A_KEY: usize = 4;

impl Places {
    /// Takes the next list.
    pub(crate) fn set(&mut self, keys: &[u32]) {
        self.slots.clear();
        self.slots.resize((SLOTS_A_KEY * keys.len()).next_power_of_two().max(2), EMPTY);
        for (place, &key) in (0..).zip(keys) {
            let mut at = self.home(key);
            while self.slots[at] != EMPTY {
                at = (at + 1) & (self.slots.len() - 1);
            }
            self.slots[at] = place;
        }
    }

    /// The place of a key in the list that was taken, which is given again.
    #[inline]
    pub(crate) fn find(&self, keys: &[u32], key: u32) -> Option<usize> {
        let mut at = self.home(key);
        while self.slots[at] != EMPTY {
            let place = self.slots[at] as usize;
            if keys[place] == key {
                return Some(place);
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
        None
    }

    #[inline]
    fn home(&self, key: u32) -> usize {
        let bits = self.slots.len().trailing_zeros();
        (key.wrapping_mul(0x9e37_79b1) >> (32 - bits)) as usize
    }
}
