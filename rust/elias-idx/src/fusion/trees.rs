//! Decision trees over evidence.

use std::fmt::Display;
use std::ops::Range;

use crate::error::{ArgumentError, Result};
use crate::format::read::Files;
use crate::format::schema;
use crate::format::write::Store;

use super::evidence::EVIDENCE;
use crate::kernels::{SmallTree, Split, Tree};
use crate::matrix::Tensor;

/// Trees that are added to the linear part, all nodes in arrays of n elements, tree after tree, the root first.
#[derive(Debug, Clone, Copy)]
pub struct FusionTrees<'a> {
    /// Where each tree starts and ends, \[T + 1\].
    pub offsets: &'a [i64],
    /// The column of evidence that a node looks at; −1 for a leaf.
    pub columns: &'a [i32],
    /// Values up to this go left, larger ones right; of leaves it is ignored. Finite.
    pub thresholds: &'a [f32],
    /// The nodes on the left and right \[n, 2\], in the same tree behind their parent, each the child of one
    /// node; of leaves they are ignored.
    pub children: &'a [i32],
    /// What a leaf adds to the score; of other nodes it is ignored. Finite.
    pub values: &'a [f32],
}

/// Trees as they lie in an index's files.
pub(crate) struct StoredTrees {
    offsets: Tensor<u64>,
    columns: Tensor<i32>,
    thresholds: Tensor<f32>,
    children: Tensor<i32>,
    values: Tensor<f32>,
}

impl StoredTrees {
    /// Opens those of an index, if it has any.
    pub(crate) fn open(files: &Files) -> Result<Option<Self>> {
        if files.shape(schema::FUSION_TREE_OFFSETS).is_none() {
            return Ok(None);
        }
        let n = files.len_of(schema::FUSION_TREE_COLUMNS);
        let offsets = files.len_of(schema::FUSION_TREE_OFFSETS);
        Ok(Some(Self {
            offsets: files.tensor(schema::FUSION_TREE_OFFSETS, &[offsets])?,
            columns: files.tensor(schema::FUSION_TREE_COLUMNS, &[n])?,
            thresholds: files.tensor(schema::FUSION_TREE_THRESHOLDS, &[n])?,
            children: files.tensor(schema::FUSION_TREE_CHILDREN, &[n, 2])?,
            values: files.tensor(schema::FUSION_TREE_VALUES, &[n])?,
        }))
    }

    pub(crate) fn view(&self) -> FusionTrees<'_> {
        FusionTrees {
            // What is beyond an i64 becomes negative, and is refused with the rest.
            offsets: bytemuck::cast_slice(self.offsets.as_slice()),
            columns: self.columns.as_slice(),
            thresholds: self.thresholds.as_slice(),
            children: self.children.as_slice(),
            values: self.values.as_slice(),
        }
    }

    /// Checks them and makes them ready.
    pub(crate) fn ready(&self, files: &Files) -> Result<Trees> {
        Trees::new(&self.view()).map_err(|error| files.invalid(schema::FUSION_TREE_COLUMNS, error))
    }
}

/// Trees ready to be used.
#[derive(Default)]
pub(crate) struct Trees(Vec<ReadyTree>);

/// A tree as its size allows.
pub(crate) enum ReadyTree {
    Small(SmallTree),
    Large(Tree),
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
        let tree = |ends: &[i64]| {
            let tree = tree(trees, ends[0] as usize..ends[1] as usize)?;
            Ok(tree.small().map_or(ReadyTree::Large(tree), ReadyTree::Small))
        };
        trees.offsets.windows(2).map(tree).collect::<Result<_, _>>().map(Self)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &ReadyTree> {
        self.0.iter()
    }
}

/// The tree of these nodes.
fn tree(trees: &FusionTrees<'_>, nodes: Range<usize>) -> Result<Tree, ArgumentError> {
    let mut tree = Tree::default();
    let mut is_child = vec![false; nodes.len()];
    is_child[0] = true;
    for at in nodes.clone() {
        if trees.columns[at] == LEAF {
            tree.leaves.push(((at - nodes.start) as u32, leaf(trees, at)?));
            continue;
        }
        let split = split(trees, at, &nodes)?;
        for child in split.children {
            if std::mem::replace(&mut is_child[child as usize], true) {
                return Err(bad(nodes.start + child as usize, "has several parents"));
            }
        }
        tree.splits.push(split);
    }
    match is_child.iter().position(|is_child| !is_child) {
        Some(orphan) => Err(bad(nodes.start + orphan, "has no parent")),
        None => Ok(tree),
    }
}

/// The value of a leaf.
fn leaf(trees: &FusionTrees<'_>, at: usize) -> Result<f32, ArgumentError> {
    let value = trees.values[at];
    if value.is_finite() {
        return Ok(value);
    }
    Err(bad(at, format_args!("has the value {value}")))
}

/// A node that is no leaf.
fn split(trees: &FusionTrees<'_>, at: usize, nodes: &Range<usize>) -> Result<Split, ArgumentError> {
    let (column, threshold) = (trees.columns[at], trees.thresholds[at]);
    let Some(column) = u32::try_from(column).ok().filter(|&c| (c as usize) < EVIDENCE.len()) else {
        return Err(bad(at, format_args!("looks at column {column} of {}", EVIDENCE.len())));
    };
    if !threshold.is_finite() {
        return Err(bad(at, format_args!("has the threshold {threshold}")));
    }
    let children = [trees.children[2 * at], trees.children[2 * at + 1]];
    let follows = |child: &i32| (at as i64 + 1..nodes.end as i64).contains(&i64::from(*child));
    if !children.iter().all(follows) {
        let message =
            format_args!("has the children {children:?}, which must follow it in its tree");
        return Err(bad(at, message));
    }
    let children = children.map(|child| (child as usize - nodes.start) as u32);
    Ok(Split { node: (at - nodes.start) as u32, column, threshold, children })
}

fn bad(node: usize, message: impl Display) -> ArgumentError {
    ArgumentError::BadTrees(format!("node {node} {message}"))
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
