//! Sparse matrices as they are stored, and products of their rows with a query's features.

use std::ops::Range;

use crate::error::Result;
use crate::format::read::Files;
use crate::format::schema::SparseNames;
use crate::format::write::Store;
use crate::kernels::prefetch;
use crate::matrix::Tensor;
use crate::sparse::{SparseRows, all_finite};

/// Bytes of a row that are asked for ahead of their use; what follows them the processor foresees.
const MAX_PREFETCHED: usize = 1024;

/// Which columns each row has.
pub(crate) struct Pattern {
    /// \[R + 1\], ascending from 0 to nnz.
    offsets: Tensor<u64>,
    /// \[nnz\], ascending within a row.
    columns: Tensor<u32>,
}

/// A sparse matrix by rows.
pub(crate) struct SparseMatrix {
    pattern: Pattern,
    /// \[nnz\], finite.
    values: Tensor<f32>,
}

impl Pattern {
    /// Opens the tensors of these names, if the index has them, and checks them.
    pub(crate) fn open(
        files: &Files,
        (offsets, columns): (&'static str, &'static str),
        num_rows: usize,
        num_columns: usize,
    ) -> Result<Option<Self>> {
        if files.shape(offsets).is_none() {
            return Ok(None);
        }
        let pattern = Self {
            offsets: files.tensor(offsets, &[num_rows + 1])?,
            columns: files.tensor(columns, &[files.len_of(columns)])?,
        };
        if !pattern.has_sound_offsets() {
            let nnz = pattern.columns().len();
            let message = format!("must ascend from 0 to the number of entries, {nnz}");
            return Err(files.invalid(offsets, message));
        }
        let is_sound = |&row: &usize| {
            let row = &pattern.columns()[pattern.range(row)];
            let ascends = row.is_sorted_by(|one, next| one < next);
            ascends && row.last().is_none_or(|&last| (last as usize) < num_columns)
        };
        match (0..num_rows).find(|row| !is_sound(row)) {
            None => Ok(Some(pattern)),
            Some(row) => {
                let message = format!("row {row} doesn't ascend to a column below {num_columns}");
                Err(files.invalid(columns, message))
            }
        }
    }

    fn has_sound_offsets(&self) -> bool {
        let (offsets, nnz) = (self.offsets(), self.columns().len() as u64);
        offsets.first() == Some(&0) && offsets.last() == Some(&nnz) && offsets.is_sorted()
    }

    pub(crate) fn offsets(&self) -> &[u64] {
        self.offsets.as_slice()
    }

    pub(crate) fn columns(&self) -> &[u32] {
        self.columns.as_slice()
    }

    fn range(&self, row: usize) -> Range<usize> {
        // The offsets index slices that are in memory, so they fit a usize.
        self.offsets()[row] as usize..self.offsets()[row + 1] as usize
    }

    /// Writes which columns checked rows have.
    pub(crate) fn put(
        store: &mut Store,
        (offsets, columns): (&'static str, &'static str),
        rows: &SparseRows<'_>,
    ) -> Result<()> {
        // Checked rows have nothing negative.
        store.put::<u64>(offsets, &[rows.offsets.len()], bytemuck::cast_slice(rows.offsets))?;
        store.put::<u32>(columns, &[rows.columns.len()], bytemuck::cast_slice(rows.columns))
    }
}

impl SparseMatrix {
    /// Opens the tensors of these names, if the index has them, and checks them.
    pub(crate) fn open(
        files: &Files,
        names: SparseNames,
        num_rows: usize,
        num_columns: usize,
    ) -> Result<Option<Self>> {
        let pattern = (names.offsets, names.columns);
        let Some(pattern) = Pattern::open(files, pattern, num_rows, num_columns)? else {
            return Ok(None);
        };
        let values: Tensor<f32> = files.tensor(names.values, &[pattern.columns().len()])?;
        if !all_finite(values.as_slice()) {
            return Err(files.invalid(names.values, "holds a value that isn't finite"));
        }
        Ok(Some(Self { pattern, values }))
    }

    pub(crate) fn pattern(&self) -> &Pattern {
        &self.pattern
    }

    pub(crate) fn values(&self) -> &[f32] {
        self.values.as_slice()
    }

    /// Columns and values of a row.
    pub(crate) fn row(&self, row: usize) -> (&[u32], &[f32]) {
        let range = self.pattern.range(row);
        (&self.pattern.columns()[range.clone()], &self.values()[range])
    }

    /// Asks for the columns and the values of a row.
    pub(crate) fn prefetch(&self, row: usize) {
        let (columns, values) = self.row(row);
        prefetch(columns.as_ptr().cast(), size_of_val(columns).min(MAX_PREFETCHED));
        prefetch(values.as_ptr().cast(), size_of_val(values).min(MAX_PREFETCHED));
    }

    /// Writes checked rows.
    pub(crate) fn put(store: &mut Store, names: SparseNames, rows: &SparseRows<'_>) -> Result<()> {
        Pattern::put(store, (names.offsets, names.columns), rows)?;
        store.put(names.values, &[rows.values.len()], rows.values)
    }
}

/// A row of a sparse matrix in the making.
#[derive(Default)]
pub(crate) struct NewRow {
    /// Ascending.
    pub(crate) columns: Vec<u32>,
    /// As many, or none for a matrix that has no values.
    pub(crate) values: Vec<f32>,
}

impl NewRow {
    fn clear(&mut self) {
        self.columns.clear();
        self.values.clear();
    }
}

/// Writes rows that are made one after the other, each twice: once to count its entries. `names` are those of offsets,
/// columns and, if there are any, values.
pub(crate) fn put_made(
    store: &mut Store,
    names: (&'static str, &'static str, Option<&'static str>),
    num_rows: usize,
    make: impl Fn(usize, &mut NewRow),
) -> Result<()> {
    let mut row = NewRow::default();
    let mut offsets = vec![0_u64];
    for number in 0..num_rows {
        row.clear();
        make(number, &mut row);
        offsets.push(offsets[number] + row.columns.len() as u64);
    }
    let nnz = offsets[num_rows] as usize;
    store.put(names.0, &[offsets.len()], &offsets)?;
    let mut columns = store.tensor::<u32>(names.1, &[nnz])?;
    let mut values = names.2.map(|name| store.tensor::<f32>(name, &[nnz])).transpose()?;
    for number in 0..num_rows {
        row.clear();
        make(number, &mut row);
        columns.push(&row.columns)?;
        if let Some(values) = &mut values {
            values.push(&row.values)?;
        }
    }
    store.add(columns)?;
    values.map_or(Ok(()), |values| store.add(values))
}
