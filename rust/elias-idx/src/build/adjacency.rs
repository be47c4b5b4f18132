//! The adjacency on its way into a new index: rows in any order come in, checked and sorted ones go out.

use crate::adjacency::is_weight;
use crate::error::{ArgumentError, Result};
use crate::format::schema;
use crate::format::write::{Store, TensorWriter};

/// Edges that are written at once, about.
const BATCH: usize = 1 << 18;

/// Writes the three tensors of the adjacency, row after row.
pub(crate) struct AdjacencyWriter {
    num_labels: usize,
    offsets: Vec<u64>,
    /// The row that comes next.
    row: usize,
    labels: TensorWriter,
    weights: TensorWriter,
}

impl AdjacencyWriter {
    /// Checks CSR `offsets` \[C+1\] for `num_edges` edges to come, and writes them.
    pub(crate) fn new(
        store: &mut Store,
        offsets: &[i64],
        num_edges: usize,
        num_clusters: usize,
        num_labels: usize,
    ) -> Result<Self> {
        check_offsets(offsets, num_edges, num_clusters, "num_clusters").map_err(bad)?;
        let offsets: Vec<u64> = offsets.iter().map(|&offset| offset.unsigned_abs()).collect();
        store.put(schema::ADJACENCY_OFFSETS, &[offsets.len()], &offsets)?;
        Ok(Self {
            num_labels,
            offsets,
            row: 0,
            labels: store.tensor::<u32>(schema::ADJACENCY_LABELS, &[num_edges])?,
            weights: store.tensor::<f32>(schema::ADJACENCY_WEIGHTS, &[num_edges])?,
        })
    }

    /// Takes the edges of the next rows: whole rows, as many as these edges fill.
    pub(crate) fn push(&mut self, labels: &[i64], weights: &[f32]) -> Result<()> {
        if labels.len() != weights.len() {
            return Err(bad(format!(
                "indices and data must have the same length, got {} and {}",
                labels.len(),
                weights.len()
            ))
            .into());
        }
        let first = self.offset(self.row);
        let mut batch = Batch::default();
        while self.row < self.num_rows() && self.offset(self.row + 1) - first <= labels.len() {
            let (start, end) = (self.offset(self.row), self.offset(self.row + 1));
            let edges = (&labels[start - first..end - first], &weights[start - first..end - first]);
            batch.add_row(self.row, start, edges, self.num_labels).map_err(bad)?;
            self.row += 1;
            if batch.labels.len() >= BATCH {
                batch.write(self)?;
            }
        }
        batch.write(self)?;
        let left_over = labels.len() - (self.offset(self.row) - first);
        if left_over == 0 {
            return Ok(());
        }
        let row = self.row;
        Err(bad(format!("{left_over} entries are no whole row {row}: push whole rows")).into())
    }

    /// Adds the tensors to the store.
    pub(crate) fn finish(self, store: &mut Store) -> Result<()> {
        let (expected, received) = (self.offset(self.num_rows()), self.offset(self.row));
        if received != expected {
            let name = "adjacency_labels";
            return Err(ArgumentError::WrongLength { name, expected, received }.into());
        }
        store.add(self.labels)?;
        store.add(self.weights)
    }

    fn num_rows(&self) -> usize {
        self.offsets.len() - 1
    }

    fn offset(&self, row: usize) -> usize {
        // At most the number of edges, which is a usize.
        self.offsets[row] as usize
    }
}

/// Sorted rows that are yet to be written, and the memory to sort one in.
#[derive(Default)]
struct Batch {
    labels: Vec<u32>,
    weights: Vec<f32>,
    edges: Vec<(u32, u32)>,
}

impl Batch {
    /// Sorts a row by descending weight, then label, once each edge is known to be good. `position`
    /// is that of its first edge.
    fn add_row(
        &mut self,
        row: usize,
        position: usize,
        (labels, weights): (&[i64], &[f32]),
        num_labels: usize,
    ) -> Result<(), String> {
        self.edges.clear();
        for (at, (&label, &weight)) in labels.iter().zip(weights).enumerate() {
            self.edges.push(checked_edge(row, position + at, label, weight, num_labels)?);
        }
        sort_row(row, &mut self.edges)?;
        self.labels.extend(self.edges.iter().map(|edge| edge.1));
        self.weights.extend(self.edges.iter().map(|edge| f32::from_bits(!edge.0)));
        Ok(())
    }

    fn write(&mut self, writer: &mut AdjacencyWriter) -> Result<()> {
        writer.labels.push(&self.labels)?;
        writer.weights.push(&self.weights)?;
        self.labels.clear();
        self.weights.clear();
        Ok(())
    }
}

fn bad(message: String) -> ArgumentError {
    ArgumentError::BadAdjacency(message)
}

/// Checks the offsets of a caller's CSR before anything walks it. `rows_name` is what the caller calls
/// the number of rows.
pub(crate) fn check_offsets(
    offsets: &[i64],
    num_entries: usize,
    num_rows: usize,
    rows_name: &str,
) -> Result<(), String> {
    if offsets.len() != num_rows + 1 {
        return Err(format!(
            "indptr must have {rows_name} + 1 = {} entries, got {}",
            num_rows + 1,
            offsets.len()
        ));
    }
    if offsets[0] != 0 {
        return Err(format!("indptr must start at 0, got {}", offsets[0]));
    }
    if let Some(row) = offsets.windows(2).position(|pair| pair[1] < pair[0]) {
        return Err(format!(
            "indptr decreases at row {row}, from {} to {}",
            offsets[row],
            offsets[row + 1]
        ));
    }
    if offsets[num_rows] != num_entries as i64 {
        return Err(format!(
            "indptr must end at the number of entries, {num_entries}, got {}",
            offsets[num_rows]
        ));
    }
    Ok(())
}

/// An edge as a pair that sorts by descending weight, then label.
fn checked_edge(
    row: usize,
    position: usize,
    label: i64,
    weight: f32,
    num_labels: usize,
) -> Result<(u32, u32), String> {
    if label < 0 || label >= num_labels as i64 {
        return Err(format!(
            "indices[{position}] (row {row}) is {label}, must be from 0 to {}",
            num_labels - 1
        ));
    }
    if !is_weight(weight) {
        let hint =
            if weight == 0.0 { "; drop explicit zeros, eliminate_zeros() in SciPy" } else { "" };
        return Err(format!(
            "data[{position}] (row {row}) is {weight}, must be in (0, 1] as float32{hint}"
        ));
    }
    Ok((!weight.to_bits(), label as u32))
}

/// Sorts a row's edges and refuses a label that occurs twice.
fn sort_row(row: usize, edges: &mut [(u32, u32)]) -> Result<(), String> {
    edges.sort_unstable_by_key(|edge| edge.1);
    if let Some(pair) = edges.windows(2).find(|pair| pair[0].1 == pair[1].1) {
        return Err(format!(
            "label {} occurs twice in row {row}; sum_duplicates() in SciPy merges them",
            pair[0].1
        ));
    }
    edges.sort_unstable();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::{IndexParts, IndexWriter};
    use crate::error::Error;
    use crate::format::write::Destination;
    use crate::index::Index;

    /// What comes of pushing edges of two clusters and four labels in these parts.
    fn write(offsets: &[i64], parts: &[(&[i64], &[f32])]) -> Result<Index> {
        let num_edges = parts.iter().map(|part| part.0.len()).sum();
        let shell = IndexParts {
            num_labels: 4,
            num_clusters: 2,
            dim: 1,
            cluster_weights: &[0.0; 2],
            cluster_bias: &[0.0; 2],
            adjacency_offsets: offsets,
            ..IndexParts::default()
        };
        let mut writer = IndexWriter::new(&shell, num_edges, Destination::Memory)?;
        for (labels, weights) in parts {
            writer.push_edges(labels, weights)?;
        }
        writer.push_labels(&[0.0; 4], &[0.0; 4])?;
        writer.finish()
    }

    fn build(offsets: &[i64], labels: &[i64], weights: &[f32]) -> Result<Index> {
        write(offsets, &[(labels, weights)])
    }

    #[test]
    fn rows_are_sorted_by_weight_then_label() {
        let index = build(&[0, 4, 4], &[3, 2, 1, 0], &[0.5, 1.0, 0.5, 0.25]).unwrap();
        let expected = (&[0, 4, 4][..], &[2, 1, 3, 0][..], &[1.0, 0.5, 0.5, 0.25][..]);
        assert_eq!(index.adjacency(), expected);
    }

    #[test]
    fn broken_csr_arrays_are_refused() {
        type Case = (&'static [i64], &'static [i64], &'static [f32], &'static str);
        let cases: [Case; 14] = [
            (&[0, 1], &[0], &[1.0], "entries, got 2"),
            (&[1, 1, 1], &[0], &[1.0], "start at 0"),
            (&[0, 2, 1], &[0], &[1.0], "decreases at row 1"),
            (&[0, -1, 1], &[0], &[1.0], "decreases at row 0"),
            (&[0, 1, 2], &[0], &[1.0], "must end at"),
            (&[0, 1, i64::MAX], &[0], &[1.0], "must end at"),
            (&[0, 1, 1], &[0], &[1.0, 1.0], "same length, got 1 and 2"),
            (&[0, 1, 2], &[0, 4], &[1.0, 1.0], "indices[1] (row 1) is 4"),
            (&[0, 1, 2], &[0, -1], &[1.0, 1.0], "indices[1] (row 1) is -1"),
            (&[0, 1, 2], &[0, 1], &[1.0, 0.0], "data[1] (row 1) is 0"),
            (&[0, 1, 2], &[0, 1], &[-0.5, 1.0], "data[0] (row 0) is -0.5"),
            (&[0, 1, 2], &[0, 1], &[1.5, 1.0], "data[0] (row 0) is 1.5"),
            (&[0, 1, 2], &[0, 1], &[f32::NAN, 1.0], "data[0] (row 0) is NaN"),
            (&[0, 3, 3], &[1, 2, 1], &[1.0, 0.5, 0.5], "label 1 occurs twice in row 0"),
        ];
        for (offsets, labels, weights, message) in cases {
            let error = build(offsets, labels, weights).err().unwrap();
            assert!(matches!(error, Error::Argument(ArgumentError::BadAdjacency(_))));
            assert!(error.to_string().contains(message), "{error} lacks {message}");
        }
    }

    #[test]
    fn rows_may_come_in_parts() {
        let (labels, weights) = ([1, 0, 3, 2, 1], [0.5, 0.5, 1.0, 0.5, 0.25]);
        let whole = build(&[0, 2, 5], &labels, &weights).unwrap();
        let parts = [(&labels[..2], &weights[..2]), (&[], &[]), (&labels[2..], &weights[2..])];
        assert_eq!(write(&[0, 2, 5], &parts).unwrap().adjacency(), whole.adjacency());
        // Every row may be empty.
        assert_eq!(write(&[0, 0, 0], &[]).unwrap().adjacency(), (&[0; 3][..], &[][..], &[][..]));
    }

    #[test]
    fn half_rows_and_missing_ones_are_refused() {
        let (labels, weights) = ([1, 0, 3], [0.5; 3]);
        let message = |offsets: &[i64], parts: &[(&[i64], &[f32])]| {
            write(offsets, parts).err().unwrap().to_string()
        };
        let split = [(&labels[..1], &weights[..1]), (&labels[1..], &weights[1..])];
        assert!(message(&[0, 2, 3], &split).contains("1 entries are no whole row 0"));
        let shell = IndexParts {
            num_labels: 4,
            num_clusters: 2,
            dim: 1,
            cluster_weights: &[0.0; 2],
            cluster_bias: &[0.0; 2],
            adjacency_offsets: &[0, 2, 3],
            ..IndexParts::default()
        };
        let begin = || IndexWriter::new(&shell, 3, Destination::Memory).unwrap();
        let mut writer = begin();
        writer.push_edges(&labels[..2], &weights[..2]).unwrap();
        writer.push_labels(&[0.0; 4], &[0.0; 4]).unwrap();
        let error = writer.finish().err().unwrap().to_string();
        assert_eq!(error, "adjacency_labels must have 3 values, got 2");
        let mut writer = begin();
        writer.push_edges(&labels, &weights).unwrap();
        let error = writer.push_edges(&labels, &weights).err().unwrap().to_string();
        assert!(error.contains("3 entries are no whole row 2"), "{error}");
    }
}
