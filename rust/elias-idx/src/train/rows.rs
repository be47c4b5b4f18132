//! Tables of rows that steps read and update, and the row-wise Adam.

use std::marker::PhantomData;

use half::bf16;

use super::{check, check_len, checked_id};
use crate::error::Result;
use crate::kernels::{AdamScales, ElementRow, Kernels, MomentRow, Rounding, RowValues, prefetch};
use crate::scramble::scramble;
use crate::threads::{self, Hook, SharedStart};

/// The weights \[R, D\] of a table and their momentum.
pub enum Weights<'a> {
    /// 4 bytes a number.
    Float32 {
        /// The weights.
        weight: &'a mut [f32],
        /// Their first moment.
        momentum: &'a mut [f32],
    },
    /// 2 bytes a number, rounded at random so that small steps count on average.
    BFloat16 {
        /// The weights.
        weight: &'a mut [bf16],
        /// Their first moment.
        momentum: &'a mut [bf16],
    },
}

/// The biases \[R\] of a table and their moments.
pub struct Bias<'a> {
    /// The biases.
    pub value: &'a mut [f32],
    /// Their first moment.
    pub momentum: &'a mut [f32],
    /// Their second moment.
    pub second_moment: &'a mut [f32],
}

/// Settings of Adam in one step.
#[derive(Debug, Clone, Copy)]
pub struct Adam {
    /// The learning rate.
    pub learning_rate: f64,
    /// What the first moment keeps in a step.
    pub beta1: f64,
    /// What the second moment keeps in a step.
    pub beta2: f64,
    /// Keeps the step finite.
    pub epsilon: f64,
    /// The step's number, from 1 on where rows are updated.
    pub step: u64,
}

impl Adam {
    fn scales(self) -> AdamScales {
        let steps = self.step.min(i32::MAX as u64) as i32;
        AdamScales {
            momentum_rate: (1.0 - self.beta1) as f32,
            second_moment_rate: (1.0 - self.beta2) as f32,
            learning_rate: (self.learning_rate / (1.0 - self.beta1.powi(steps))) as f32,
            correction: (1.0 / (1.0 - self.beta2.powi(steps))) as f32,
            epsilon: self.epsilon as f32,
        }
    }
}

/// A table of R rows of D weights, each row with a bias perhaps, and its Adam's state.
pub struct Table<'a> {
    /// D.
    pub dim: usize,
    /// The weights and their momentum.
    pub weights: Weights<'a>,
    /// \[R\]: of each row's mean squared gradient; or \[R, D\] for that of each float32 weight.
    pub second_moment: &'a mut [f32],
    /// The biases.
    pub bias: Option<Bias<'a>>,
    /// How rows are updated.
    pub adam: Adam,
}

/// What a step does with the gradients of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Nothing: only the loss is wanted.
    Evaluate,
    /// They are returned.
    Collect,
    /// They update their rows.
    Apply,
}

/// The gradients of some rows, by ascending row.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RowGradients {
    /// The rows, n of them.
    pub rows: Vec<i64>,
    /// \[n, D\].
    pub weight: Vec<f32>,
    /// \[n\]; empty where the table has no bias.
    pub bias: Vec<f32>,
}

impl RowGradients {
    /// Those of several parts, whose rows ascend from part to part.
    pub(super) fn concat(parts: impl Iterator<Item = Self>) -> Self {
        parts
            .reduce(|mut all, part| {
                all.rows.extend(part.rows);
                all.weight.extend(part.weight);
                all.bias.extend(part.bias);
                all
            })
            .unwrap_or_default()
    }
}

/// Updates `rows`, which have the gradients `weight` \[n, D\] and `bias` \[n\] (empty for a table without).
///
/// # Errors
/// Arrays whose lengths don't fit, rows that don't ascend or aren't there, step 0; those of a call on threads.
pub fn apply_gradients(
    table: Table<'_>,
    rows: &[i64],
    weight: &[f32],
    bias: &[f32],
    num_threads: usize,
    hook: Hook<'_>,
) -> Result<()> {
    const ROWS_PER_CHUNK: usize = 64;
    let kernels = Kernels::detect()?;
    let table = TableRows::new(table)?;
    table.check_step()?;
    let dim = table.dim;
    check_len("the gradient's weights", weight.len(), rows.len() * dim)?;
    let num_biases = if table.has_bias() { rows.len() } else { 0 };
    check_len("the gradient's biases", bias.len(), num_biases)?;
    check(rows.is_sorted_by(|a, b| a < b), || "the gradient's rows must ascend".into())?;
    for &row in rows.first().into_iter().chain(rows.last()) {
        checked_id("the gradient's rows", row, table.num_rows)?;
    }
    threads::lead(num_threads, hook, |team| {
        team.for_each_chunk(rows.len().div_ceil(ROWS_PER_CHUNK), &|chunk, _| {
            let first = chunk * ROWS_PER_CHUNK;
            for at in first..rows.len().min(first + ROWS_PER_CHUNK) {
                let bias = bias.get(at).copied().unwrap_or_default();
                let gradient = &weight[at * dim..][..dim];
                // SAFETY: the rows are distinct, and each chunk is done once.
                unsafe { table.update(kernels, rows[at] as usize, gradient, bias) };
            }
        })
    })
}

/// Rows of `width` values that go to several threads, each row to one at a time.
pub(super) struct SharedRows<'a, T> {
    start: SharedStart<T>,
    num_rows: usize,
    width: usize,
    borrowed: PhantomData<&'a mut [T]>,
}

impl<'a, T: Send> SharedRows<'a, T> {
    pub(super) fn new(values: &'a mut [T], width: usize) -> Self {
        let num_rows = values.len() / width.max(1);
        Self { start: SharedStart(values.as_mut_ptr()), num_rows, width, borrowed: PhantomData }
    }

    /// A row, to be read.
    ///
    /// # Safety
    /// Nobody may change the row as long as the reference is used.
    ///
    /// # Panics
    /// If there is no such row.
    #[inline]
    pub(super) unsafe fn get(&self, row: usize) -> &[T] {
        assert!(row < self.num_rows);
        // SAFETY: the row lies within the slice, which is borrowed for 'a; the caller promises that
        // nobody changes it.
        unsafe { std::slice::from_raw_parts(self.start.get().add(row * self.width), self.width) }
    }

    /// A row, to be changed.
    ///
    /// # Safety
    /// There must be no other reference to the row, on any thread, as long as this one is used.
    ///
    /// # Panics
    /// If there is no such row.
    #[expect(clippy::mut_from_ref, reason = "the caller promises that there is one reference")]
    #[inline]
    pub(super) unsafe fn row(&self, row: usize) -> &mut [T] {
        assert!(row < self.num_rows);
        // SAFETY: the row lies within the slice, which is borrowed for 'a; the caller promises that
        // nobody else uses it.
        unsafe {
            std::slice::from_raw_parts_mut(self.start.get().add(row * self.width), self.width)
        }
    }

    /// Asks for a row's cache lines, if there is such a row.
    #[inline]
    fn prefetch(&self, row: usize) {
        let start = self.start.get().wrapping_add(row * self.width);
        prefetch(start.cast_const().cast(), self.width * size_of::<T>());
    }
}

/// A checked [`Table`] whose rows go to several threads.
pub(super) struct TableRows<'a> {
    pub(super) dim: usize,
    pub(super) num_rows: usize,
    weights: SharedWeights<'a>,
    /// One a row, or D of them.
    second_moment: SharedRows<'a, f32>,
    bias: Option<[SharedRows<'a, f32>; 3]>,
    scales: AdamScales,
    step: u64,
}

enum SharedWeights<'a> {
    Float32 { weight: SharedRows<'a, f32>, momentum: SharedRows<'a, f32> },
    BFloat16 { weight: SharedRows<'a, bf16>, momentum: SharedRows<'a, bf16> },
}

impl<'a> TableRows<'a> {
    /// # Errors
    /// Arrays whose lengths don't fit.
    pub(super) fn new(table: Table<'a>) -> Result<Self> {
        let (dim, adam) = (table.dim, table.adam);
        check(dim > 0, || "a table's dim must be at least 1".into())?;
        let (len, momentum_len) = match &table.weights {
            Weights::Float32 { weight, momentum } => (weight.len(), momentum.len()),
            Weights::BFloat16 { weight, momentum } => (weight.len(), momentum.len()),
        };
        let num_rows = len / dim;
        check_len("weight", len, num_rows * dim)?;
        check_len("momentum", momentum_len, len)?;
        let elementwise = dim > 1 && table.second_moment.len() == len && len > 0;
        let second_width = if elementwise { dim } else { 1 };
        check_len("second_moment", table.second_moment.len(), num_rows * second_width)?;
        let is_bf16 = matches!(table.weights, Weights::BFloat16 { .. });
        check(!(elementwise && is_bf16), || {
            "second moments of each weight are for float32 tables".into()
        })?;
        let bias = match table.bias {
            None => None,
            Some(Bias { value, momentum, second_moment }) => {
                check_len("bias", value.len(), num_rows)?;
                check_len("bias_momentum", momentum.len(), num_rows)?;
                check_len("bias_second_moment", second_moment.len(), num_rows)?;
                Some([value, momentum, second_moment].map(|values| SharedRows::new(values, 1)))
            }
        };
        let weights = match table.weights {
            Weights::Float32 { weight, momentum } => SharedWeights::Float32 {
                weight: SharedRows::new(weight, dim),
                momentum: SharedRows::new(momentum, dim),
            },
            Weights::BFloat16 { weight, momentum } => SharedWeights::BFloat16 {
                weight: SharedRows::new(weight, dim),
                momentum: SharedRows::new(momentum, dim),
            },
        };
        let second_moment = SharedRows::new(table.second_moment, second_width);
        let (scales, step) = (adam.scales(), adam.step);
        Ok(Self { dim, num_rows, weights, second_moment, bias, scales, step })
    }

    /// Checks that rows can be updated.
    ///
    /// # Errors
    /// No step was begun.
    pub(super) fn check_step(&self) -> Result<()> {
        check(self.step > 0, || "a table is updated in steps from 1 on: begin one".into())
    }

    pub(super) fn has_bias(&self) -> bool {
        self.bias.is_some()
    }

    /// A row's weights.
    ///
    /// # Safety
    /// No thread may update the row as long as they are used.
    pub(super) unsafe fn values(&self, row: usize) -> RowValues<'_> {
        // SAFETY: as promised by the caller.
        unsafe {
            match &self.weights {
                SharedWeights::Float32 { weight, .. } => RowValues::Float32(weight.get(row)),
                SharedWeights::BFloat16 { weight, .. } => RowValues::BFloat16(weight.get(row)),
            }
        }
    }

    /// A row's bias, 0 without one.
    ///
    /// # Safety
    /// No thread may update the row meanwhile.
    pub(super) unsafe fn bias(&self, row: usize) -> f32 {
        // SAFETY: as promised by the caller.
        self.bias.as_ref().map_or(0.0, |[value, ..]| unsafe { value.get(row)[0] })
    }

    /// Asks for a row's weights.
    pub(super) fn prefetch_values(&self, row: usize) {
        match &self.weights {
            SharedWeights::Float32 { weight, .. } => weight.prefetch(row),
            SharedWeights::BFloat16 { weight, .. } => weight.prefetch(row),
        }
        if let Some([value, ..]) = &self.bias {
            value.prefetch(row);
        }
    }

    /// Asks for a row's moments.
    pub(super) fn prefetch_moments(&self, row: usize) {
        match &self.weights {
            SharedWeights::Float32 { momentum, .. } => momentum.prefetch(row),
            SharedWeights::BFloat16 { momentum, .. } => momentum.prefetch(row),
        }
        self.second_moment.prefetch(row);
        if let Some([_, momentum, second_moment]) = &self.bias {
            momentum.prefetch(row);
            second_moment.prefetch(row);
        }
    }

    /// A step of Adam for one row.
    ///
    /// # Safety
    /// There must be no reference to the row, and no other thread may use it meanwhile.
    ///
    /// # Panics
    /// If there is no such row, or the gradient is of another length.
    pub(super) unsafe fn update(
        &self,
        kernels: Kernels,
        row: usize,
        gradient: &[f32],
        bias_gradient: f32,
    ) {
        // SAFETY: as promised by the caller, for all of these.
        unsafe {
            if self.second_moment.width > 1 {
                self.update_elements(kernels, row, gradient);
            } else {
                let second_moment = &mut self.second_moment.row(row)[0];
                let scale = self.moved(second_moment, kernels.mean_square(gradient));
                let row = self.moments(row);
                kernels.update_row(row, gradient, self.scales.momentum_rate, scale);
            }
            if let Some([value, momentum, second_moment]) = &self.bias {
                let square = bias_gradient * bias_gradient;
                let scale = self.moved(&mut second_moment.row(row)[0], square);
                let momentum = &mut momentum.row(row)[0];
                *momentum += self.scales.momentum_rate * (bias_gradient - *momentum);
                value.row(row)[0] -= scale * *momentum;
            }
        }
    }

    /// Moves a second moment towards a squared gradient, and gives the step's scale.
    fn moved(&self, second_moment: &mut f32, square: f32) -> f32 {
        *second_moment += self.scales.second_moment_rate * (square - *second_moment);
        self.scales.scale(*second_moment)
    }

    /// # Safety
    /// As for [`Self::update`].
    unsafe fn moments(&self, row: usize) -> MomentRow<'_> {
        // SAFETY: as promised by the caller.
        unsafe {
            match &self.weights {
                SharedWeights::Float32 { weight, momentum } => {
                    MomentRow::Float32 { weight: weight.row(row), momentum: momentum.row(row) }
                }
                SharedWeights::BFloat16 { weight, momentum } => MomentRow::BFloat16 {
                    weight: weight.row(row),
                    momentum: momentum.row(row),
                    rounding: self.rounding(row),
                },
            }
        }
    }

    /// # Safety
    /// As for [`Self::update`].
    unsafe fn update_elements(&self, kernels: Kernels, row: usize, gradient: &[f32]) {
        // SAFETY: as promised by the caller. Tables of such moments hold float32.
        unsafe {
            if let MomentRow::Float32 { weight, momentum } = self.moments(row) {
                let second_moment = self.second_moment.row(row);
                let row = ElementRow { weight, momentum, second_moment };
                kernels.update_elements(row, gradient, self.scales);
            }
        }
    }

    /// Other bits for each row and step.
    fn rounding(&self, row: usize) -> Rounding {
        Rounding((scramble(scramble(self.step) ^ row as u64) >> 32) as u32)
    }
}
