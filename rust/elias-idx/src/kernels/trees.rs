//! A decision tree over many rows at once.
//!
//! No row walks down the tree, which would be a chain of loads and of branches that nothing predicts: all splits are
//! visited in order, each with the share of every row that reaches it, 1 or 0, and then all leaves.

pub(super) use super::generic::Portable;
use super::generic::Vector;

/// Rows that are looked at together.
pub(crate) const TREE_LANES: usize = 16;

/// A number for each of some rows.
pub(crate) type Lanes = [f32; TREE_LANES];

/// A tree of n nodes, of which 0 is the root.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tree {
    /// Parents before their children.
    pub(crate) splits: Vec<Split>,
    /// Nodes, and what rows get that end there.
    pub(crate) leaves: Vec<(u32, f32)>,
}

/// Sends rows whose `column` is up to `threshold` from a node to the first of its children, others to the second.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Split {
    pub(crate) node: u32,
    pub(crate) column: u32,
    pub(crate) threshold: f32,
    pub(crate) children: [u32; 2],
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
