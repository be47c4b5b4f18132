//! A decision tree over many rows at once.
//!
//! No row walks down the tree, which would be a chain of loads and of branches that nothing predicts: all splits are
//! visited in order, each with the share of every row that reaches it, 1 or 0, and then all leaves.
//!
//! A small tree needs less: each row has a bit for every leaf, the leftmost the highest. A split that sends a row to
//! the right clears the bits of the leaves on its left, and the highest bit left in the end is the leaf that the row
//! reaches: a split further left than the row's path can't clear it, and one on the path clears what is left of it.

pub(super) use super::generic::Portable;
use super::generic::Vector;

/// Rows that are looked at together.
pub(crate) const TREE_LANES: usize = 16;

/// A number for each of some rows.
pub(crate) type Lanes = [f32; TREE_LANES];

/// Leaves of a small tree.
const FEW_LEAVES: usize = 8;

/// A tree of n nodes, of which 0 is the root.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tree {
    /// Parents before their children.
    pub(crate) splits: Vec<Split>,
    /// Nodes, and what rows get that end there.
    pub(crate) leaves: Vec<(u32, f32)>,
}

/// A tree of at most [`FEW_LEAVES`] leaves.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SmallTree {
    splits: Vec<SmallSplit>,
    /// The values of the leaves whose bits are 1, 2, … 7 and 0, twice.
    values: [f32; 2 * FEW_LEAVES],
}

/// Clears bits of rows whose `column` isn't up to `threshold`.
#[derive(Debug, Clone, Copy, PartialEq)]
struct SmallSplit {
    column: u32,
    threshold: f32,
    bits: u32,
}

/// Sends rows whose `column` is up to `threshold` from a node to the first of its children, others to the second.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Split {
    pub(crate) node: u32,
    pub(crate) column: u32,
    pub(crate) threshold: f32,
    pub(crate) children: [u32; 2],
}

impl Tree {
    /// The same tree, if it is small.
    pub(crate) fn small(&self) -> Option<SmallTree> {
        if self.leaves.len() > FEW_LEAVES {
            return None;
        }
        // The bits of the leaves below each node: a leaf's own, a split's those of its children, which come later.
        let mut below = vec![0; self.splits.len() + self.leaves.len()];
        let mut values = [0.0; 2 * FEW_LEAVES];
        // The highest bit is the leftmost leaf's: those that a smaller tree leaves unused are never the highest.
        for (bit, (node, value)) in (0..FEW_LEAVES).rev().zip(self.leaves_from_left()) {
            below[node as usize] = 1 << bit;
            for twice in [bit, bit + FEW_LEAVES] {
                values[(twice + 2 * FEW_LEAVES - 1) % (2 * FEW_LEAVES)] = value;
            }
        }
        for split in self.splits.iter().rev() {
            below[split.node as usize] =
                split.children.iter().map(|&child| below[child as usize]).sum();
        }
        let small = |split: &Split| SmallSplit {
            column: split.column,
            threshold: split.threshold,
            bits: below[split.children[0] as usize],
        };
        Some(SmallTree { splits: self.splits.iter().map(small).collect(), values })
    }

    /// Nodes that are leaves, and their values.
    fn leaves_from_left(&self) -> impl Iterator<Item = (u32, f32)> {
        let mut ahead = vec![0];
        std::iter::from_fn(move || {
            loop {
                let node = ahead.pop()?;
                match self.splits.iter().find(|split| split.node == node) {
                    Some(split) => ahead.extend(split.children.iter().rev()),
                    None => {
                        let (_, value) = self.leaves.iter().find(|leaf| leaf.0 == node)?;
                        return Some((node, *value));
                    }
                }
            }
        })
    }
}

impl SmallTree {
    /// The columns that splits look at.
    pub(super) fn columns(&self) -> impl Iterator<Item = u32> {
        self.splits.iter().map(|split| split.column)
    }
}

/// Vectors of rows that go through a tree side by side.
const VECTORS: usize = 4;

/// See [`super::Kernels::add_small_tree`], which checks the columns.
///
/// # Safety
/// `V`'s instruction set must be there.
#[inline(always)]
pub(super) unsafe fn add_small_tree<V: Vector>(
    tree: &SmallTree,
    table: &[Lanes],
    scores: &mut [Lanes],
) {
    let (table, scores) = (table.as_flattened(), scores.as_flattened_mut());
    let (rows, many) = (scores.len(), VECTORS * V::LANES);
    let first_few = rows - rows % many;
    for first in (0..first_few).step_by(many) {
        // SAFETY: the caller promises the set; these rows are there.
        unsafe { add_to_rows::<V, VECTORS>(tree, table, scores, first) };
    }
    for first in (first_few..rows).step_by(V::LANES) {
        // SAFETY: as above; blocks are whole vectors.
        unsafe { add_to_rows::<V, 1>(tree, table, scores, first) };
    }
}

/// The same for the `N` vectors of rows from `first` on.
///
/// # Safety
/// `V`'s instruction set must be there, and the rows.
#[inline(always)]
unsafe fn add_to_rows<V: Vector, const N: usize>(
    tree: &SmallTree,
    table: &[f32],
    scores: &mut [f32],
    first: usize,
) {
    let all = [f32::from_bits((1 << FEW_LEAVES) - 1); TREE_LANES];
    let num_rows = scores.len();
    // SAFETY: the caller promises the set. Vectors have at most `TREE_LANES` lanes. The rows are there, in all columns that splits
    // name.
    unsafe {
        let mut bits = [V::load(all.as_ptr()); N];
        for split in &tree.splits {
            let values = table.as_ptr().add(split.column as usize * num_rows + first);
            for (at, bits) in bits.iter_mut().enumerate() {
                let values = V::load(values.add(at * V::LANES));
                *bits = bits.clear_above(split.bits, values, split.threshold);
            }
        }
        let scores = scores.as_mut_ptr().add(first);
        for (at, bits) in bits.into_iter().enumerate() {
            let place = scores.add(at * V::LANES);
            V::load(place).add_of_highest_bit(bits, &tree.values).store(place);
        }
    }
}

/// See [`super::Kernels::add_tree`].
///
/// # Safety
/// `V`'s instruction set must be there.
#[inline(always)]
pub(super) unsafe fn add_tree<V: Vector>(
    tree: &Tree,
    table: &[Lanes],
    reach: &mut [Lanes],
    scores: &mut [Lanes],
) {
    let blocks = scores.len();
    for (block, scores) in scores.iter_mut().enumerate() {
        reach[0] = [1.0; TREE_LANES];
        for split in &tree.splits {
            let here = reach[split.node as usize];
            let values = &table[split.column as usize * blocks + block];
            let (mut left, mut right) = ([0.0; TREE_LANES], [0.0; TREE_LANES]);
            for lane in 0..TREE_LANES {
                left[lane] = if values[lane] <= split.threshold { here[lane] } else { 0.0 };
                right[lane] = here[lane] - left[lane];
            }
            reach[split.children[0] as usize] = left;
            reach[split.children[1] as usize] = right;
        }
        let mut sums = *scores;
        for &(node, value) in &tree.leaves {
            for (sum, here) in sums.iter_mut().zip(&reach[node as usize]) {
                *sum += here * value;
            }
        }
        *scores = sums;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kernels::Kernels;

    const COLUMNS: usize = 3;

    /// What makes a tree of one leaf larger: which leaf becomes a split, its column and its threshold.
    type Growth = Vec<(prop::sample::Index, u32, i8)>;

    fn grown(growth: &Growth) -> Tree {
        let mut tree = Tree { splits: vec![], leaves: vec![(0, 0.0)] };
        for (leaf, column, threshold) in growth {
            let (node, _) = tree.leaves.swap_remove(leaf.index(tree.leaves.len()));
            let next = tree.splits.len() as u32 * 2 + 1;
            let (column, threshold) = (*column, f32::from(*threshold));
            tree.splits.push(Split { node, column, threshold, children: [next, next + 1] });
            tree.leaves.extend([(next, 0.0), (next + 1, 0.0)]);
        }
        for (at, leaf) in tree.leaves.iter_mut().enumerate() {
            leaf.1 = 1.0 + at as f32;
        }
        tree
    }

    /// The value of the leaf that a walk down the tree ends at.
    fn walk(tree: &Tree, row: &[f32; COLUMNS]) -> f32 {
        let mut node = 0;
        while let Some(split) = tree.splits.iter().find(|split| split.node == node) {
            node = split.children[usize::from(row[split.column as usize] > split.threshold)];
        }
        tree.leaves.iter().find(|leaf| leaf.0 == node).unwrap().1
    }

    proptest! {
        #[test]
        fn both_ways_through_a_tree_end_where_a_walk_ends(
            growth in prop::collection::vec((any::<prop::sample::Index>(), 0..COLUMNS as u32, -3..4_i8), 0..12),
            rows in prop::collection::vec(prop::array::uniform3(-4..5_i8), 1..200),
        ) {
            let (tree, blocks) = (grown(&growth), rows.len().div_ceil(TREE_LANES));
            let mut table = vec![[0.0; TREE_LANES]; COLUMNS * blocks];
            for (at, row) in rows.iter().enumerate() {
                for (column, &value) in row.iter().enumerate() {
                    table[column * blocks..].as_flattened_mut()[at] = f32::from(value);
                }
            }
            let expected: Vec<f32> =
                rows.iter().map(|row| 0.5 + walk(&tree, &row.map(f32::from))).collect();
            prop_assert_eq!(tree.small().is_some(), growth.len() < FEW_LEAVES);
            for kernels in Kernels::available() {
                let mut scores = vec![[0.5; TREE_LANES]; blocks];
                let mut reach = vec![[0.0; TREE_LANES]; 2 * growth.len() + 1];
                kernels.add_tree(&tree, &table, &mut reach, &mut scores);
                prop_assert_eq!(&scores.as_flattened()[..rows.len()], &expected[..]);
                if let Some(small) = tree.small() {
                    scores.fill([0.5; TREE_LANES]);
                    kernels.add_small_tree(&small, &table, &mut scores);
                    prop_assert_eq!(&scores.as_flattened()[..rows.len()], &expected[..]);
                }
            }
        }
    }
}
