//! Decision trees over evidence.

use crate::error::{ArgumentError, Result};
use crate::format::read::Files;
use crate::format::schema;
use crate::format::write::Store;

use super::evidence::{EVIDENCE, EvidenceTable};

/// Trees that are added to the linear part, all nodes in arrays of n elements, tree after tree, the root first.
#[derive(Debug, Clone, Copy)]
pub struct FusionTrees<'a> {
    /// Where each tree starts and ends, \[T + 1\].
    pub offsets: &'a [i64],
    /// The column of evidence that a node looks at; −1 for a leaf.
    pub columns: &'a [i32],
    /// Values up to this go left, larger ones right; of leaves it is ignored. Finite.
    pub thresholds: &'a [f32],
    /// The nodes on the left and right \[n, 2\], in the same tree behind their parent; of leaves they are ignored.
    pub children: &'a [i32],
    /// What a leaf adds to the score; of other nodes it is ignored. Finite.
    pub values: &'a [f32],
}

/// Trees ready to be used.
#[derive(Default)]
pub(crate) struct Trees {
    roots: Vec<u32>,
    nodes: Vec<Node>,
}

/// A node, or a leaf, whose children are itself.
#[derive(Clone, Copy)]
struct Node {
    column: u32,
    threshold: f32,
    children: [u32; 2],
    value: f32,
}

impl Trees {
    /// # Errors
    /// [`ArgumentError::BadTrees`]
    pub(crate) fn new(trees: &FusionTrees<'_>) -> Result<Self, ArgumentError> {
        let bad = |message: &str| ArgumentError::BadTrees(message.to_owned());
        let n = trees.columns.len();
        if n > i32::MAX as usize {
            return Err(bad("there are too many nodes"));
        }
        let lens = [trees.thresholds.len(), trees.children.len() / 2, trees.values.len()];
        if lens != [n; 3] || !trees.children.len().is_multiple_of(2) {
            return Err(bad("columns, thresholds, children and values differ in length"));
        }
        let (first, last) = (trees.offsets.first(), trees.offsets.last());
        let ascends = trees.offsets.is_sorted_by(|one, next| one < next);
        if first != Some(&0) || last != Some(&(n as i64)) || !ascends {
            return Err(bad("offsets must ascend from 0 to the number of nodes, no tree empty"));
        }
        let mut nodes = Vec::with_capacity(n);
        for tree in trees.offsets.windows(2) {
            for at in tree[0] as usize..tree[1] as usize {
                nodes.push(Node::new(trees, at, tree[1] as usize)?);
            }
        }
        let roots = trees.offsets[..trees.offsets.len() - 1].iter();
        Ok(Self { roots: roots.map(|&root| root as u32).collect(), nodes })
    }

    /// Opens the trees of an index, if it has any.
    pub(crate) fn open(files: &Files) -> Result<Self> {
        if files.shape(schema::FUSION_TREE_OFFSETS).is_none() {
            return Ok(Self::default());
        }
        let n = files.len_of(schema::FUSION_TREE_COLUMNS);
        let offsets = files.len_of(schema::FUSION_TREE_OFFSETS);
        let offsets = files.tensor::<u64>(schema::FUSION_TREE_OFFSETS, &[offsets])?;
        let columns = files.tensor::<i32>(schema::FUSION_TREE_COLUMNS, &[n])?;
        let thresholds = files.tensor(schema::FUSION_TREE_THRESHOLDS, &[n])?;
        let children = files.tensor::<i32>(schema::FUSION_TREE_CHILDREN, &[n, 2])?;
        let values = files.tensor(schema::FUSION_TREE_VALUES, &[n])?;
        let trees = FusionTrees {
            // What is beyond an i64 becomes negative, and is refused with the rest.
            offsets: bytemuck::cast_slice(offsets.as_slice()),
            columns: columns.as_slice(),
            thresholds: thresholds.as_slice(),
            children: children.as_slice(),
            values: values.as_slice(),
        };
        Self::new(&trees).map_err(|error| files.invalid(schema::FUSION_TREE_COLUMNS, error))
    }

    /// Adds what all trees say of each row of a table to `scores`.
    pub(crate) fn add(&self, table: &EvidenceTable, scores: &mut [f32]) {
        for &root in &self.roots {
            for (row, score) in scores.iter_mut().enumerate() {
                *score += self.leaf(root, |column| table.value(column, row)).value;
            }
        }
    }

    fn leaf(&self, root: u32, value: impl Fn(usize) -> f32) -> &Node {
        let mut at = root;
        loop {
            let node = &self.nodes[at as usize];
            let next = node.children[usize::from(value(node.column as usize) > node.threshold)];
            if next == at {
                return node;
            }
            at = next;
        }
    }
}

impl Node {
    /// The node at a place of a tree that ends before `end`.
    fn new(trees: &FusionTrees<'_>, at: usize, end: usize) -> Result<Self, ArgumentError> {
        let bad = |message: String| ArgumentError::BadTrees(format!("node {at} {message}"));
        let (column, threshold, value) =
            (trees.columns[at], trees.thresholds[at], trees.values[at]);
        if column == LEAF {
            if !value.is_finite() {
                return Err(bad(format!("has the value {value}")));
            }
            return Ok(Self { column: 0, threshold: 0.0, children: [at as u32; 2], value });
        }
        if usize::try_from(column).map_or(true, |column| column >= EVIDENCE.len()) {
            return Err(bad(format!("looks at column {column} of {}", EVIDENCE.len())));
        }
        if !threshold.is_finite() {
            return Err(bad(format!("has the threshold {threshold}")));
        }
        let children = [trees.children[2 * at], trees.children[2 * at + 1]];
        let follows = |child: &i32| (at as i64 + 1..end as i64).contains(&i64::from(*child));
        if !children.iter().all(follows) {
            return Err(bad(format!(
                "has the children {children:?}, which must follow it in its tree"
            )));
        }
        let children = children.map(|child| child as u32);
        Ok(Self { column: column as u32, threshold, children, value: 0.0 })
    }
}

/// The column of a leaf.
const LEAF: i32 = -1;

/// Writes trees that were found to be proper.
pub(crate) fn put(store: &mut Store, trees: &FusionTrees<'_>) -> Result<()> {
    let (n, offsets) = (trees.columns.len(), bytemuck::cast_slice(trees.offsets));
    store.put::<u64>(schema::FUSION_TREE_OFFSETS, &[trees.offsets.len()], offsets)?;
    store.put(schema::FUSION_TREE_COLUMNS, &[n], trees.columns)?;
    store.put(schema::FUSION_TREE_THRESHOLDS, &[n], trees.thresholds)?;
    store.put(schema::FUSION_TREE_CHILDREN, &[n, 2], trees.children)?;
    store.put(schema::FUSION_TREE_VALUES, &[n], trees.values)
}
