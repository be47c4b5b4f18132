//! A set of label ids that is emptied at once, for one query after the other.

/// Open addressing with linear probing. A slot counts as empty unless it bears the current epoch,
/// so that [`LabelSet::clear`] needs only to begin a new one.
#[derive(Default)]
pub(crate) struct LabelSet {
    slots: Vec<Slot>,
    epoch: u32,
    len: usize,
}

#[derive(Clone, Copy, Default)]
struct Slot {
    epoch: u32,
    label: u32,
}

const MIN_SLOTS: usize = 64;

impl LabelSet {
    pub(crate) fn clear(&mut self) {
        self.len = 0;
        self.epoch = self.epoch.wrapping_add(1);
        if self.epoch == 0 {
            self.slots.fill(Slot::default());
            self.epoch = 1;
        }
    }

    /// Adds a label; false when it is there already.
    #[inline]
    pub(crate) fn insert(&mut self, label: u32) -> bool {
        if self.len * 2 >= self.slots.len() {
            self.grow();
        }
        let at = self.find(label);
        let slot = &mut self.slots[at];
        if slot.epoch == self.epoch {
            return false;
        }
        *slot = Slot { epoch: self.epoch, label };
        self.len += 1;
        true
    }

    /// The slot of a label, or the empty one where it belongs.
    #[inline]
    fn find(&self, label: u32) -> usize {
        let mask = self.slots.len() - 1;
        // Multiplying by 2^64 / φ spreads ids over the high bits.
        let hash = u64::from(label).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let mut at = hash as usize & mask;
        while self.slots[at].epoch == self.epoch && self.slots[at].label != label {
            at = (at + 1) & mask;
        }
        at
    }

    #[cold]
    fn grow(&mut self) {
        let slots = vec![Slot::default(); (self.slots.len() * 2).max(MIN_SLOTS)];
        // Empty slots bear epoch 0, which is never current.
        self.epoch = self.epoch.max(1);
        let old = std::mem::replace(&mut self.slots, slots);
        for slot in old.into_iter().filter(|slot| slot.epoch == self.epoch) {
            let at = self.find(slot.label);
            self.slots[at] = slot;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn clearing_forgets_even_when_epochs_wrap() {
        let mut set = LabelSet::default();
        assert!(set.insert(5));
        set.clear();
        assert!(set.insert(5));
        set.epoch = u32::MAX;
        set.clear();
        assert!(set.insert(5) && !set.insert(5));
        assert_eq!(set.epoch, 1);
    }

    proptest! {
        #[test]
        fn it_is_a_set(rounds in prop::collection::vec(prop::collection::vec(0..300_u32, 0..400), 1..4)) {
            let mut set = LabelSet::default();
            for labels in rounds {
                let mut expected = HashSet::new();
                set.clear();
                for label in labels {
                    // Spread out, to reach large ids.
                    let label = label.wrapping_mul(40_503_001);
                    prop_assert_eq!(set.insert(label), expected.insert(label));
                }
            }
        }
    }
}
