//! Training steps over NumPy arrays that share their memory with torch tensors.
//!
//! bfloat16 arrays, which NumPy lacks, come as their bits in int16.

use bytemuck::cast_slice_mut;
use elias_idx::train::{
    self, Adam, AdjacencyRows, Bags, Bias, Logits, Loss, Mode, Positives, Queries, Settings, Table,
    Weights,
};
use numpy::{
    PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray1, PyReadonlyArray2, PyReadwriteArray1,
    PyReadwriteArray2, PyReadwriteArrayDyn, PyUntypedArrayMethods,
};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::interpreter::interruptible;

/// A table's arrays, as Python holds them.
#[derive(FromPyObject)]
pub(crate) struct TableArrays<'py> {
    weights: WeightArrays<'py>,
    second_moment: PyReadwriteArrayDyn<'py, f32>,
    bias: Option<BiasArrays<'py>>,
    adam: (f64, f64, f64, f64, u64),
}

#[derive(FromPyObject)]
enum WeightArrays<'py> {
    Float32((PyReadwriteArray2<'py, f32>, PyReadwriteArray2<'py, f32>)),
    BFloat16((PyReadwriteArray2<'py, i16>, PyReadwriteArray2<'py, i16>)),
}

type BiasArrays<'py> =
    (PyReadwriteArray1<'py, f32>, PyReadwriteArray1<'py, f32>, PyReadwriteArray1<'py, f32>);

impl TableArrays<'_> {
    fn table(&mut self) -> PyResult<Table<'_>> {
        let (learning_rate, beta1, beta2, epsilon, step) = self.adam;
        let (dim, weights) = match &mut self.weights {
            WeightArrays::Float32((weight, momentum)) => {
                let dim = weight.shape()[1];
                let (weight, momentum) = (weight.as_slice_mut()?, momentum.as_slice_mut()?);
                (dim, Weights::Float32 { weight, momentum })
            }
            WeightArrays::BFloat16((weight, momentum)) => {
                let dim = weight.shape()[1];
                let weight = cast_slice_mut(weight.as_slice_mut()?);
                let momentum = cast_slice_mut(momentum.as_slice_mut()?);
                (dim, Weights::BFloat16 { weight, momentum })
            }
        };
        let bias = match &mut self.bias {
            None => None,
            Some((value, momentum, second_moment)) => Some(Bias {
                value: value.as_slice_mut()?,
                momentum: momentum.as_slice_mut()?,
                second_moment: second_moment.as_slice_mut()?,
            }),
        };
        let second_moment = self.second_moment.as_slice_mut()?;
        let adam = Adam { learning_rate, beta1, beta2, epsilon, step };
        Ok(Table { dim, weights, second_moment, bias, adam })
    }
}

/// Rows with a gradient: their ids [n], gradients [n, D], and those of their biases [n or 0].
type Gradients<'py> =
    (Bound<'py, PyArray1<i64>>, Bound<'py, PyArray2<f32>>, Bound<'py, PyArray1<f32>>);

fn to_arrays(
    py: Python<'_>,
    gradients: train::RowGradients,
    dim: usize,
) -> PyResult<Gradients<'_>> {
    let num_rows = gradients.rows.len();
    Ok((
        PyArray1::from_vec(py, gradients.rows),
        PyArray1::from_vec(py, gradients.weight).reshape([num_rows, dim])?,
        PyArray1::from_vec(py, gradients.bias),
    ))
}

fn parse_mode(name: &str) -> PyResult<Mode> {
    match name {
        "evaluate" => Ok(Mode::Evaluate),
        "collect" => Ok(Mode::Collect),
        "apply" => Ok(Mode::Apply),
        _ => {
            Err(PyValueError::new_err(format!("mode is evaluate, collect or apply, got '{name}'")))
        }
    }
}

/// Embeddings [Q, D], cluster scores [Q, C], beam [Q, B].
type QueryArrays<'py> =
    (PyReadonlyArray2<'py, f32>, PyReadonlyArray2<'py, f32>, PyReadonlyArray2<'py, i64>);
/// Ragged rows: offsets, ids, values.
type RaggedArrays<'py> =
    (PyReadonlyArray1<'py, i64>, PyReadonlyArray1<'py, i64>, PyReadonlyArray1<'py, f32>);
/// Labels [C, κ], lengths [C], label offsets [L + 1], label slots.
type AdjacencyArrays<'py> = (
    PyReadonlyArray2<'py, i32>,
    PyReadonlyArray1<'py, i64>,
    PyReadonlyArray1<'py, i64>,
    PyReadonlyArray1<'py, i32>,
);
/// Loss, gradients by embeddings and cluster scores, of the label classifiers, of the logits.
type StepArrays<'py> = (
    f64,
    Bound<'py, PyArray1<f32>>,
    Bound<'py, PyArray1<f32>>,
    Gradients<'py>,
    Option<Gradients<'py>>,
);

/// Computes the loss and the gradients of batches, in memory that is kept between them.
#[pyclass(module = "elias_idx._core")]
#[derive(Default)]
pub(crate) struct LabelStep(train::LabelStep);

#[pymethods]
impl LabelStep {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    /// The loss of a batch; see `elias_idx.train.fused`.
    #[expect(clippy::too_many_arguments, reason = "a loss depends on much")]
    fn run<'py>(
        &mut self,
        py: Python<'py>,
        queries: QueryArrays<'py>,
        positives: RaggedArrays<'py>,
        adjacency: AdjacencyArrays<'py>,
        logits: Option<(TableArrays<'py>, f64)>,
        classifiers: TableArrays<'py>,
        settings: (usize, f32, f32, f32),
        mode: &str,
        num_threads: usize,
    ) -> PyResult<StepArrays<'py>> {
        let mode = parse_mode(mode)?;
        let (mut classifiers, mut logits) = (classifiers, logits);
        let dim = queries.0.shape()[1];
        let width = adjacency.0.shape()[1];
        let (shortlist_size, path_loss_weight, divisor, skip_below) = settings;
        let loss = Loss {
            queries: Queries {
                dim,
                embeddings: queries.0.as_slice()?,
                cluster_scores: queries.1.as_slice()?,
                beam: queries.2.as_slice()?,
            },
            positives: Positives {
                offsets: positives.0.as_slice()?,
                labels: positives.1.as_slice()?,
                relevance: positives.2.as_slice()?,
            },
            adjacency: AdjacencyRows {
                width,
                labels: adjacency.0.as_slice()?,
                lengths: adjacency.1.as_slice()?,
                label_offsets: adjacency.2.as_slice()?,
                label_slots: adjacency.3.as_slice()?,
            },
            logits: match &mut logits {
                None => None,
                Some((table, beta)) => Some(Logits { table: table.table()?, beta: *beta }),
            },
            classifiers: classifiers.table()?,
            settings: Settings {
                shortlist_size,
                path_loss_weight,
                divisor,
                skip_below,
                num_threads,
            },
        };
        let learned = loss.logits.is_some();
        let result = interruptible(py, |stop| self.0.run(loss, mode, stop))?;
        Ok((
            result.loss,
            PyArray1::from_vec(py, result.embeddings),
            PyArray1::from_vec(py, result.cluster_scores),
            to_arrays(py, result.classifiers, dim)?,
            learned.then(|| to_arrays(py, result.logits, width)).transpose()?,
        ))
    }
}

/// The sums `out` [Q, D] of bags of the rows of `weight` [R, D].
#[pyfunction]
pub(crate) fn bag_product<'py>(
    py: Python<'py>,
    bags: RaggedArrays<'py>,
    weight: PyReadonlyArray2<'py, f32>,
    mut out: PyReadwriteArray2<'py, f32>,
    num_threads: usize,
) -> PyResult<()> {
    let bags = as_bags(&bags)?;
    let (dim, weight, out) = (weight.shape()[1], weight.as_slice()?, out.as_slice_mut()?);
    interruptible(py, |stop| train::bag_product(bags, weight, dim, out, num_threads, stop))
}

/// From the gradient [Q, D] by bags to that by a table's rows, which it updates or gives.
#[pyfunction]
pub(crate) fn bag_gradient<'py>(
    py: Python<'py>,
    bags: RaggedArrays<'py>,
    gradient: PyReadonlyArray2<'py, f32>,
    mut table: TableArrays<'py>,
    apply: bool,
    num_threads: usize,
) -> PyResult<Gradients<'py>> {
    let dim = gradient.shape()[1];
    let (bags, gradient) = (as_bags(&bags)?, gradient.as_slice()?);
    let table = table.table()?;
    let gradients = interruptible(py, |stop| {
        train::bag_gradient(bags, gradient, table, apply, num_threads, stop)
    })?;
    to_arrays(py, gradients, dim)
}

/// Rows [n], gradients [n, D], and those of their biases [n].
type GradientArrays<'py> =
    (PyReadonlyArray1<'py, i64>, PyReadonlyArray2<'py, f32>, Option<PyReadonlyArray1<'py, f32>>);

/// Updates the rows of a table that have a gradient.
#[pyfunction]
pub(crate) fn apply_gradients<'py>(
    py: Python<'py>,
    mut table: TableArrays<'py>,
    gradients: GradientArrays<'py>,
    num_threads: usize,
) -> PyResult<()> {
    let (rows, weight, bias) = &gradients;
    let bias = bias.as_ref().map(|bias| bias.as_slice()).transpose()?.unwrap_or(&[]);
    let (rows, weight, table) = (rows.as_slice()?, weight.as_slice()?, table.table()?);
    interruptible(py, |stop| train::apply_gradients(table, rows, weight, bias, num_threads, stop))
}

fn as_bags<'a>(bags: &'a RaggedArrays<'_>) -> PyResult<Bags<'a>> {
    Ok(Bags { offsets: bags.0.as_slice()?, rows: bags.1.as_slice()?, factors: bags.2.as_slice()? })
}
