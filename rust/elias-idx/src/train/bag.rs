//! Bags: weighted sums of a table's rows, such as the embeddings of a text's n-grams.

use super::pairs::{ByRow, entries_of};
use super::rows::{RowGradients, Table, TableRows};
use super::{check, check_len, check_offsets, checked_id, entries};
use crate::error::Result;
use crate::kernels::{Kernels, prefetch};
use crate::matrix::MatrixView;
use crate::threads::{self, Hook, Loops};

/// Q bags as ragged rows: which rows of a table, and their factors.
#[derive(Clone, Copy)]
pub struct Bags<'a> {
    /// \[Q + 1\].
    pub offsets: &'a [i64],
    /// Rows of the table.
    pub rows: &'a [i64],
    /// One for each of them.
    pub factors: &'a [f32],
}

/// Rows that are fetched ahead of their use.
const ROWS_AHEAD: usize = 6;

impl Bags<'_> {
    fn check(&self, num_rows: usize) -> Result<()> {
        let num_bags = self.offsets.len().saturating_sub(1);
        check_offsets("the bags' offsets", self.offsets, num_bags, self.rows.len())?;
        check_len("the bags' factors", self.factors.len(), self.rows.len())?;
        self.rows.iter().try_for_each(|&row| checked_id("a bag", row, num_rows).map(|_| ()))
    }
}

/// The sum of each bag's rows times their factors, of a table `weight` \[R, D\]; `out` is \[Q, D\].
///
/// # Errors
/// Arrays that don't fit together, and rows that aren't there; those of a call on threads.
pub fn bag_product(
    bags: Bags<'_>,
    weight: &[f32],
    dim: usize,
    out: &mut [f32],
    num_threads: usize,
    hook: Hook<'_>,
) -> Result<()> {
    let kernels = Kernels::detect()?;
    let whole = dim > 0 && weight.len().is_multiple_of(dim);
    check(whole, || format!("{} weights are no rows of {dim}", weight.len()))?;
    let table = MatrixView::new(weight, dim);
    bags.check(table.rows())?;
    check_len("the product", out.len(), (bags.offsets.len() - 1) * dim)?;
    threads::lead(num_threads, hook, |team| {
        team.for_each_part(out, dim, &|bag, sum| {
            sum.fill(0.0);
            let own = entries(bags.offsets, bag);
            let rows = &bags.rows[own.clone()];
            for (at, (&row, &factor)) in rows.iter().zip(&bags.factors[own]).enumerate() {
                if let Some(&ahead) = rows.get(at + ROWS_AHEAD) {
                    prefetch(table.row(ahead as usize).as_ptr().cast(), size_of_val(sum));
                }
                kernels.add_scaled(factor, table.row(row as usize), sum);
            }
        })
    })
}

/// From the gradient \[Q, D\] by the bags to that by the rows, which updates them if `apply`, else is returned.
///
/// # Errors
/// As for [`bag_product`], and updates in step 0; after an interruption some rows may have been updated and others not.
pub fn bag_gradient(
    bags: Bags<'_>,
    gradient: &[f32],
    table: Table<'_>,
    apply: bool,
    num_threads: usize,
    hook: Hook<'_>,
) -> Result<RowGradients> {
    let kernels = Kernels::detect()?;
    let table = TableRows::new(table)?;
    if apply {
        table.check_step()?;
    }
    let dim = table.dim;
    bags.check(table.num_rows)?;
    let largest = bags.offsets.len().max(bags.rows.len()).max(table.num_rows);
    check(largest < u32::MAX as usize, || "there are too many rows or bags for 32 bits".into())?;
    check_len("the gradient", gradient.len(), (bags.offsets.len() - 1) * dim)?;
    let owners: Vec<u32> = (0..bags.offsets.len() - 1)
        .flat_map(|bag| entries(bags.offsets, bag).map(move |_| bag as u32))
        .collect();
    let mut by_row = ByRow::default();
    by_row.fill(bags.rows.iter().map(|&row| row as u32).zip(0..));
    let mut parts = vec![RowGradients::default(); by_row.num_parts()];
    threads::lead(num_threads, hook, |team| {
        team.for_each_part(&mut parts, 1, &|part, collected| {
            let groups = by_row.part(part);
            let mut sum = vec![0.0; dim];
            for (at, pair) in groups.windows(2).enumerate() {
                if let Some(ahead) = groups[..groups.len() - 1].get(at + 2) {
                    table.prefetch_values(ahead.row as usize);
                    table.prefetch_moments(ahead.row as usize);
                }
                sum.fill(0.0);
                for &entry in &by_row.order[entries_of(pair)] {
                    let bag = owners[entry as usize] as usize;
                    let by_bag = &gradient[bag * dim..][..dim];
                    kernels.add_scaled(bags.factors[entry as usize], by_bag, &mut sum);
                }
                if apply {
                    // SAFETY: rows are grouped, and each part is done once.
                    unsafe { table.update(kernels, pair[0].row as usize, &sum, 0.0) };
                } else {
                    collected[0].rows.push(i64::from(pair[0].row));
                    collected[0].weight.extend_from_slice(&sum);
                }
            }
        })
    })?;
    Ok(RowGradients::concat(parts.into_iter()))
}
