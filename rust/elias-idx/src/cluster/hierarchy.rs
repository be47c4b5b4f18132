//! The balanced hierarchy of 2-means.
//!
//! One split alternates, until nothing changes any more, between the two sides' sums and the labels' sides: those
//! whose centroids point most to the left sum's direction, relative to the right one's, go left, as many as fit.
//! Both of a label's products with the sums come from one visit of its centroid, and they also give the
//! sums' lengths, since ‖Σ x‖² = Σ x · (Σ x). The sums are kept: only labels that change sides are added
//! and subtracted.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::centroids::Centroids;
use super::{ClusterOptions, Progress};
use crate::error::Result;
use crate::scramble::scramble;
use crate::threads::{self, Hook, Loops, Pulse};

const MAX_ITERATIONS: usize = 10;

/// Parts that a large node's sums are made of, at most; so many threads can work at one.
const MAX_PARTS: usize = 16;
/// Numbers that a part reads at least, and how many times as many as it has columns: less is not worth it.
const MIN_PART_NUMBERS: usize = 1 << 20;
const MIN_PART_SHARE: usize = 8;

/// Labels, or sums, that a thread takes at a time.
const CHUNK: usize = 4096;

/// Some labels, to be split into some clusters.
struct Node<'a> {
    /// Ascending.
    labels: &'a mut [u32],
    first_cluster: usize,
    num_clusters: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Left,
    Right,
    Neither,
}

impl Side {
    /// How often a label counts in each side's sum.
    fn counts(self) -> [f32; 2] {
        match self {
            Self::Left => [1.0, 0.0],
            Self::Right => [0.0, 1.0],
            Self::Neither => [0.0, 0.0],
        }
    }
}

/// The sums of both sides' centroids.
#[derive(Default)]
struct Sums {
    /// \[F\].
    sparse: Vec<[f32; 2]>,
    /// \[D\].
    dense: Vec<[f32; 2]>,
}

/// The memory of a thread, or of all while they work at one node.
#[derive(Default)]
struct Scratch {
    /// All zeros between two nodes.
    sums: Sums,
    /// The sums' changes within parts of the labels.
    parts: Vec<Sums>,
    sides: Vec<Side>,
    /// The sides that the sums are of.
    summed: Vec<Side>,
    /// Each label's products with both sums.
    products: Vec<[f32; 2]>,
    scores: Vec<f32>,
    order: Vec<u32>,
}

/// Labels of all nodes of the hierarchy that are split.
pub(super) fn total_rows(num_labels: usize, num_clusters: usize) -> usize {
    if num_clusters == 1 {
        return 0;
    }
    let left = num_clusters / 2;
    let num_left = num_labels * left / num_clusters;
    num_labels + total_rows(num_left, left) + total_rows(num_labels - num_left, num_clusters - left)
}

/// The cluster of each label.
pub(super) fn cluster(
    centroids: &Centroids,
    options: ClusterOptions,
    num_threads: usize,
    progress: &Progress,
    hook: Hook<'_>,
) -> Result<Vec<u32>> {
    let mut labels: Vec<u32> = (0..centroids.len() as u32).collect();
    let root = Node { labels: &mut labels, first_cluster: 0, num_clusters: options.num_clusters };
    let splitter = Splitter { centroids, seed: options.seed, progress };
    let small = threads::lead(num_threads, hook, |team| splitter.split_large(root, team))?;
    let found = Mutex::new(vec![0; centroids.len()]);
    splitter.split_small(small, num_threads, hook, &found)?;
    Ok(found.into_inner().expect("no thread panics with it"))
}

struct Splitter<'a> {
    centroids: &'a Centroids,
    seed: u64,
    progress: &'a Progress,
}

impl Splitter<'_> {
    /// Splits the nodes that many threads can work at; those that are left, in descending size.
    fn split_large<'a>(&self, root: Node<'a>, loops: &mut impl Loops) -> Result<Vec<Node<'a>>> {
        let (mut large, mut small) = (vec![root], Vec::new());
        let mut scratch = Scratch::default();
        while let Some(node) = large.pop() {
            if node.num_clusters == 1 || self.num_parts(self.num_numbers(node.labels)) == 1 {
                small.push(node);
            } else {
                large.extend(self.split(node, &mut scratch, loops)?);
            }
        }
        small.sort_by_key(|node| std::cmp::Reverse(node.labels.len()));
        Ok(small)
    }

    /// Splits the nodes to the end, each by one thread.
    fn split_small(
        &self,
        nodes: Vec<Node<'_>>,
        num_threads: usize,
        hook: Hook<'_>,
        found: &Mutex<Vec<u32>>,
    ) -> Result<()> {
        let nodes: Vec<_> = nodes.into_iter().map(|node| Mutex::new(Some(node))).collect();
        let next = AtomicUsize::new(0);
        threads::run(num_threads, hook, &|_, pulse: &mut Pulse<'_>| {
            let mut scratch = Scratch::default();
            while let Some(node) = nodes.get(next.fetch_add(1, Ordering::Relaxed)) {
                let node = node.lock().expect("only one thread takes it").take();
                // Only an interrupt stops it, of which all threads know.
                if self.split_fully(node, &mut scratch, pulse, found).is_err() {
                    return;
                }
            }
        })
    }

    fn split_fully(
        &self,
        node: Option<Node<'_>>,
        scratch: &mut Scratch,
        pulse: &mut Pulse<'_>,
        found: &Mutex<Vec<u32>>,
    ) -> Result<()> {
        let mut pending: Vec<_> = node.into_iter().collect();
        while let Some(node) = pending.pop() {
            if node.num_clusters > 1 {
                pending.extend(self.split(node, scratch, pulse)?);
                continue;
            }
            let mut found = found.lock().expect("no thread panics with it");
            for &label in &*node.labels {
                found[label as usize] = node.first_cluster as u32;
            }
        }
        Ok(())
    }

    /// In how many parts labels are added up whose centroids hold so many numbers.
    fn num_parts(&self, num_numbers: usize) -> usize {
        let columns = self.centroids.num_columns + self.centroids.dim;
        (num_numbers / MIN_PART_NUMBERS.max(MIN_PART_SHARE * columns)).clamp(1, MAX_PARTS)
    }

    /// Numbers that the labels' centroids hold.
    fn num_numbers(&self, labels: &[u32]) -> usize {
        labels.iter().map(|&label| self.centroids.sparse(label).len() + self.centroids.dim).sum()
    }

    /// Splits a node in two.
    fn split<'a>(
        &self,
        node: Node<'a>,
        scratch: &mut Scratch,
        loops: &mut impl Loops,
    ) -> Result<[Node<'a>; 2]> {
        let Node { labels, first_cluster, num_clusters } = node;
        let left_clusters = num_clusters / 2;
        let num_left = labels.len() * left_clusters / num_clusters;
        let start = start(self.seed, first_cluster, num_clusters, labels.len());
        self.find_sides(labels, num_left, start, scratch, loops)?;
        self.progress.add(labels.len());

        scratch.order.clear();
        for side in [Side::Left, Side::Right] {
            let of_side = labels.iter().zip(&scratch.sides).filter(|(_, of)| **of == side);
            scratch.order.extend(of_side.map(|(&label, _)| label));
        }
        labels.copy_from_slice(&scratch.order);
        let (left, right) = labels.split_at_mut(num_left);
        Ok([
            Node {
                labels: right,
                first_cluster: first_cluster + left_clusters,
                num_clusters: num_clusters - left_clusters,
            },
            Node { labels: left, first_cluster, num_clusters: left_clusters },
        ])
    }

    /// 2-means from two of the labels on, given by their places; leaves the sides in `scratch.sides`.
    fn find_sides(
        &self,
        labels: &[u32],
        num_left: usize,
        start: [usize; 2],
        scratch: &mut Scratch,
        loops: &mut impl Loops,
    ) -> Result<()> {
        scratch.begin(labels.len(), start);
        let num_numbers = self.num_numbers(labels);
        let num_parts = self.num_parts(num_numbers);
        for _ in 0..MAX_ITERATIONS {
            self.add_up(labels, num_parts, scratch, loops)?;
            self.multiply(labels, scratch, loops)?;
            if !scratch.choose_sides(num_left) {
                break;
            }
        }
        if num_numbers < self.centroids.num_columns {
            scratch.sums.clear_rows(self.centroids, labels);
        } else {
            scratch.sums.clear();
        }
        Ok(())
    }

    /// Brings the sums of both sides up to date with the sides.
    fn add_up(
        &self,
        labels: &[u32],
        num_parts: usize,
        scratch: &mut Scratch,
        loops: &mut impl Loops,
    ) -> Result<()> {
        let Scratch { sums, parts, sides, summed, .. } = scratch;
        let part_len = labels.len().div_ceil(num_parts);
        let change = |number: usize, sums: &mut Sums| {
            // Full parts may take all labels before the last part.
            let end = labels.len().min((number + 1) * part_len);
            let range = end.min(number * part_len)..end;
            let sides = summed[range.clone()].iter().zip(&sides[range.clone()]);
            for (&label, (&from, &to)) in labels[range].iter().zip(sides) {
                sums.change_side(self.centroids, label, from, to);
            }
        };
        sums.resize(self.centroids);
        if num_parts == 1 {
            change(0, sums);
        } else {
            parts.resize_with(MAX_PARTS, Sums::default);
            loops.for_each_part(&mut parts[..num_parts], 1, &|number, part| {
                part[0].resize(self.centroids);
                part[0].clear();
                change(number, &mut part[0]);
            })?;
            sums.add_all(&parts[..num_parts], loops)?;
        }
        summed.copy_from_slice(sides);
        Ok(())
    }

    /// Each label's products with both sums.
    fn multiply(
        &self,
        labels: &[u32],
        scratch: &mut Scratch,
        loops: &mut impl Loops,
    ) -> Result<()> {
        let Scratch { sums, products, .. } = scratch;
        products.resize(labels.len(), [0.0; 2]);
        loops.for_each_part(products, CHUNK, &|chunk, products| {
            let labels = &labels[chunk * CHUNK..];
            for (product, &label) in products.iter_mut().zip(labels) {
                *product = sums.products(self.centroids, label);
            }
        })
    }
}

impl Scratch {
    /// Readies it for a node with so many labels, the first of each side given by its place.
    fn begin(&mut self, num_labels: usize, start: [usize; 2]) {
        for sides in [&mut self.sides, &mut self.summed] {
            sides.clear();
            sides.resize(num_labels, Side::Neither);
        }
        self.sides[start[0]] = Side::Left;
        self.sides[start[1]] = Side::Right;
    }

    /// Chooses the sides by the products with the sums; whether any changed.
    fn choose_sides(&mut self, num_left: usize) -> bool {
        let Self { sides, products, scores, order, .. } = self;
        let mut squares = [0.0f64; 2];
        for (side, product) in sides.iter().zip(&*products) {
            match side {
                Side::Left => squares[0] += f64::from(product[0]),
                Side::Right => squares[1] += f64::from(product[1]),
                Side::Neither => {}
            }
        }
        let [left, right] = squares.map(|square| 1.0 / square.max(1e-24).sqrt() as f32);
        scores.clear();
        scores.extend(products.iter().map(|product| product[0] * left - product[1] * right));
        // The higher score first, of equal ones the smaller label.
        let before =
            |a: u32, b: u32| scores[b as usize].total_cmp(&scores[a as usize]).then(a.cmp(&b));
        order.clear();
        order.extend(0..sides.len() as u32);
        let (_, &mut first_right, _) =
            order.select_nth_unstable_by(num_left, |&a, &b| before(a, b));
        let mut changed = false;
        for (place, side) in (0u32..).zip(sides) {
            let chosen = if before(place, first_right).is_lt() { Side::Left } else { Side::Right };
            changed |= *side != chosen;
            *side = chosen;
        }
        changed
    }
}

impl Sums {
    fn resize(&mut self, centroids: &Centroids) {
        self.sparse.resize(centroids.num_columns, [0.0; 2]);
        self.dense.resize(centroids.dim, [0.0; 2]);
    }

    fn clear(&mut self) {
        self.sparse.fill([0.0; 2]);
        self.dense.fill([0.0; 2]);
    }

    /// Clears what the labels' centroids touched.
    fn clear_rows(&mut self, centroids: &Centroids, labels: &[u32]) {
        for &label in labels {
            for entry in centroids.sparse(label) {
                self.sparse[entry.column as usize] = [0.0; 2];
            }
        }
        self.dense.fill([0.0; 2]);
    }

    /// Takes a label from one side to another.
    fn change_side(&mut self, centroids: &Centroids, label: u32, from: Side, to: Side) {
        if from == to {
            return;
        }
        let (minus, plus) = (from.counts(), to.counts());
        let change = [plus[0] - minus[0], plus[1] - minus[1]];
        for entry in centroids.sparse(label) {
            add_product(&mut self.sparse[entry.column as usize], entry.value, change);
        }
        for (sum, value) in self.dense.iter_mut().zip(centroids.dense(label)) {
            add_product(sum, f32::from(*value), change);
        }
    }

    /// Adds all of `parts`, in their order.
    fn add_all(&mut self, parts: &[Self], loops: &mut impl Loops) -> Result<()> {
        loops.for_each_part(&mut self.sparse, CHUNK, &|chunk, values| {
            for part in parts {
                add(values, &part.sparse[chunk * CHUNK..]);
            }
        })?;
        for part in parts {
            add(&mut self.dense, &part.dense);
        }
        Ok(())
    }

    /// A centroid's products with both sums.
    fn products(&self, centroids: &Centroids, label: u32) -> [f32; 2] {
        let sparse = centroids.sparse(label);
        let (fours, rest) = sparse.as_chunks::<4>();
        let mut lanes = [[0.0; 2]; 4];
        for four in fours {
            for (lane, entry) in lanes.iter_mut().zip(four) {
                add_product(lane, entry.value, self.sparse[entry.column as usize]);
            }
        }
        for entry in rest {
            add_product(&mut lanes[0], entry.value, self.sparse[entry.column as usize]);
        }
        let dense = centroids.dense(label);
        let (rows, rest) = dense.as_chunks::<4>();
        let (sums, rest_sums) = self.dense.as_chunks::<4>();
        for (values, sums) in rows.iter().zip(sums) {
            for ((lane, value), sum) in lanes.iter_mut().zip(values).zip(sums) {
                add_product(lane, f32::from(*value), *sum);
            }
        }
        for (value, sum) in rest.iter().zip(rest_sums) {
            add_product(&mut lanes[0], f32::from(*value), *sum);
        }
        lanes.iter().fold([0.0; 2], |sum, lane| [sum[0] + lane[0], sum[1] + lane[1]])
    }
}

fn add(values: &mut [[f32; 2]], others: &[[f32; 2]]) {
    for (value, other) in values.iter_mut().zip(others) {
        add_product(value, 1.0, *other);
    }
}

#[inline(always)]
fn add_product(lane: &mut [f32; 2], value: f32, sum: [f32; 2]) {
    *lane = [lane[0] + value * sum[0], lane[1] + value * sum[1]];
}

/// Two different places among `len`, drawn from a seed of the node's own.
pub(super) fn start(
    seed: u64,
    first_cluster: usize,
    num_clusters: usize,
    len: usize,
) -> [usize; 2] {
    let mut state = seed;
    for part in [first_cluster, num_clusters] {
        state = scramble(state ^ part as u64);
    }
    let first = (state % len as u64) as usize;
    let second = (scramble(state) % (len as u64 - 1)) as usize;
    [first, second + usize::from(second >= first)]
}
