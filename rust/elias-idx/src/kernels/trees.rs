//! Decision trees over many rows at once.
//!
//! No row walks down a tree, which would be a chain of loads and of branches that nothing predicts: all nodes are
//! visited in order, each with the share of every row that reaches it, 1 or 0.

pub(super) use super::generic::Portable;
use super::generic::Vector;

/// Rows that are looked at together.
pub(crate) const TREE_LANES: usize = 16;

/// A number for each of some rows.
pub(crate) type Lanes = [f32; TREE_LANES];

/// A node of a tree whose parents come before their children, the root first.
#[derive(Debug, Clone, Copy)]
pub(crate) enum TreeNode {
    /// Rows whose `column` is up to `threshold` go to the first of the children, others to the second.
    Split { column: u32, threshold: f32, children: [u32; 2] },
    /// What rows that come here get.
    Leaf(f32),
}

/// See [`super::Kernels::add_tree`], which checks the lengths.
///
/// # Safety
/// `V`'s instruction set must be there.
#[inline(always)]
pub(super) unsafe fn add_tree<V: Vector>(
    nodes: &[TreeNode],
    table: &[Lanes],
    reach: &mut [Lanes],
    scores: &mut [Lanes],
) {
    let blocks = scores.len();
    for (block, scores) in scores.iter_mut().enumerate() {
        reach[0] = [1.0; TREE_LANES];
        for (at, node) in nodes.iter().enumerate() {
            let here = reach[at];
            match *node {
                TreeNode::Leaf(value) => {
                    for (score, here) in scores.iter_mut().zip(here) {
                        *score += here * value;
                    }
                }
                TreeNode::Split { column, threshold, children } => {
                    let values = &table[column as usize * blocks + block];
                    let (mut left, mut right) = ([0.0; TREE_LANES], [0.0; TREE_LANES]);
                    for lane in 0..TREE_LANES {
                        left[lane] = if values[lane] <= threshold { here[lane] } else { 0.0 };
                        right[lane] = here[lane] - left[lane];
                    }
                    reach[children[0] as usize] = left;
                    reach[children[1] as usize] = right;
                }
            }
        }
    }
}
