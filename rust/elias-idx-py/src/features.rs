//! Texts as sparse rows, and sparse rows as embeddings; see `elias_idx.features` and `elias_idx.encoders.bag`.

use elias_idx::features::{self, BagLayer, Block, BlockParts, FeatureRows, Field, Texts, Unit};
use numpy::{
    PyArray1, PyReadonlyArray1, PyReadonlyArray2, PyReadwriteArray2, PyUntypedArrayMethods,
};
use pyo3::exceptions::{PyUnicodeEncodeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PySequence, PyString};

use crate::interpreter::{attach, detached, interruptible};
use crate::sparse::{Csr, rows};

/// Field, unit, shortest and longest n, in how many texts an n-gram must be, weight.
type BlockSettings = (String, String, usize, usize, usize, f64);
/// Symbols, keys for each n from 2 on, idf.
type PartArrays<'py> = (Vec<String>, Vec<PyReadonlyArray1<'py, i64>>, PyReadonlyArray1<'py, f32>);
/// The same, for Python.
type Parts<'py> = (Vec<String>, Vec<Bound<'py, PyArray1<i64>>>, Bound<'py, PyArray1<f32>>);
/// indptr, indices, data.
type Rows<'py> = (Bound<'py, PyArray1<i64>>, Bound<'py, PyArray1<i32>>, Bound<'py, PyArray1<f32>>);

fn parse_block(settings: BlockSettings) -> PyResult<Block> {
    let (field, unit, shortest, longest, min_texts, weight) = settings;
    let field = match field.as_str() {
        "text" => Field::Text,
        "first_line" => Field::FirstLine,
        _ => return Err(PyValueError::new_err(format!("there is no field '{field}'"))),
    };
    let unit = match unit.as_str() {
        "word" => Unit::Word,
        "char" => Unit::Char,
        _ => return Err(PyValueError::new_err(format!("there are no n-grams of '{unit}'"))),
    };
    Ok(Block { field, unit, shortest, longest, min_texts, weight })
}

/// Turns texts into sparse rows.
#[pyclass(frozen, module = "elias_idx._core")]
pub(crate) struct TextFeatures(features::TextFeatures);

#[pymethods]
impl TextFeatures {
    /// Learns the n-grams of blocks, and their weights, from a sequence of `str`.
    #[staticmethod]
    fn fit(
        py: Python<'_>,
        blocks: Vec<BlockSettings>,
        texts: Bound<'_, PySequence>,
        num_threads: Option<usize>,
    ) -> PyResult<Self> {
        let blocks = blocks.into_iter().map(parse_block).collect::<PyResult<Vec<_>>>()?;
        let num_texts = texts.len()?;
        let texts = texts.unbind();
        let mut failure = None;
        let fitted = interruptible(py, |stop| {
            let mut read = |first: usize, piece: &mut Texts| {
                attach(|py| read_piece(texts.bind(py), first, num_texts, piece)).map_err(|error| {
                    failure = Some(error);
                    elias_idx::Error::Interrupted
                })
            };
            features::fit(&blocks, num_texts, &mut read, threads(num_threads), stop)
        });
        match failure {
            Some(failure) => Err(failure),
            None => fitted.map(Self),
        }
    }

    /// Puts together what `parts` gave.
    #[staticmethod]
    fn from_parts(py: Python<'_>, blocks: Vec<(BlockSettings, PartArrays<'_>)>) -> PyResult<Self> {
        let read = |(settings, (symbols, keys, idf)): (BlockSettings, PartArrays<'_>)| {
            let keys =
                keys.iter().map(|keys| Ok(keys.as_slice()?.to_vec())).collect::<PyResult<_>>()?;
            Ok((
                parse_block(settings)?,
                BlockParts { symbols, keys, idf: idf.as_slice()?.to_vec() },
            ))
        };
        let blocks = blocks.into_iter().map(read).collect::<PyResult<Vec<_>>>()?;
        detached(py, || features::TextFeatures::from_parts(&blocks)).map(Self)
    }

    /// What is known of each block.
    fn parts<'py>(&self, py: Python<'py>) -> PyResult<Vec<Parts<'py>>> {
        let to_arrays = |parts: BlockParts| {
            let keys = parts.keys.into_iter().map(|keys| PyArray1::from_vec(py, keys)).collect();
            (parts.symbols, keys, PyArray1::from_vec(py, parts.idf))
        };
        let parts = detached(py, || Ok(self.0.parts()))?;
        Ok(parts.into_iter().map(to_arrays).collect())
    }

    #[getter]
    fn num_features(&self) -> usize {
        self.0.num_features()
    }

    /// The rows of a sequence of `str`, [N, F].
    fn transform<'py>(
        &self,
        py: Python<'py>,
        texts: Bound<'py, PySequence>,
        num_threads: Option<usize>,
    ) -> PyResult<Rows<'py>> {
        let num_texts = texts.len()?;
        let (mut piece, mut rows) = (Texts::default(), FeatureRows::default());
        let mut first = 0;
        while first < num_texts {
            piece.clear();
            read_piece(&texts, first, num_texts, &mut piece)?;
            first += piece.len();
            interruptible(py, |stop| {
                self.0.transform(&piece, &mut rows, threads(num_threads), stop)
            })?;
        }
        Ok((
            PyArray1::from_vec(py, rows.offsets),
            PyArray1::from_vec(py, rows.columns),
            PyArray1::from_vec(py, rows.values),
        ))
    }
}

/// As many threads as there may be, if nothing else is said.
fn threads(num_threads: Option<usize>) -> usize {
    num_threads.unwrap_or(usize::MAX)
}

/// Adds texts from the given number on to a piece, until it is full.
fn read_piece(
    texts: &Bound<'_, PySequence>,
    first: usize,
    num_texts: usize,
    piece: &mut Texts,
) -> PyResult<()> {
    for number in first..num_texts {
        push(piece, texts.get_item(number)?.cast::<PyString>()?)?;
        if piece.is_full() {
            break;
        }
    }
    Ok(())
}

/// Adds a text, with a question mark for each lone surrogate: neither is part of a word.
fn push(piece: &mut Texts, text: &Bound<'_, PyString>) -> PyResult<()> {
    // Not `to_str`, after which Python keeps a text that isn't ASCII in UTF-8 too.
    let bytes = match text.encode_utf8() {
        Err(error) if error.is_instance_of::<PyUnicodeEncodeError>(text.py()) => {
            text.call_method1("encode", ("utf-8", "replace"))?.cast_into()?
        }
        encoded => encoded?,
    };
    piece.push(std::str::from_utf8(bytes.as_bytes()).expect("Python encodes to UTF-8"));
    Ok(())
}

/// The words of a text, in lower case.
#[pyfunction]
pub(crate) fn split_words(text: &Bound<'_, PyString>) -> PyResult<Vec<String>> {
    let mut piece = Texts::default();
    push(&mut piece, text)?;
    Ok(features::split_words(piece.get(0)))
}

/// Gain [D] and bias [D] of a layer norm, what it adds to variances, the embeddings' length.
type NormArrays<'py> = (PyReadonlyArray1<'py, f32>, PyReadonlyArray1<'py, f32>, f64, f64);

/// The embeddings `out` [N, D] of rows [N, F], from those of the features [F, D].
#[pyfunction]
#[pyo3(signature = (features, embeddings, norm, out, num_threads))]
pub(crate) fn embed_bags(
    py: Python<'_>,
    features: Csr<'_>,
    embeddings: PyReadonlyArray2<'_, f32>,
    norm: NormArrays<'_>,
    mut out: PyReadwriteArray2<'_, f32>,
    num_threads: Option<usize>,
) -> PyResult<()> {
    let (gain, bias, epsilon, length) = &norm;
    if embeddings.shape()[0] != features.3 {
        let message = format!(
            "there are embeddings of {} features, not {}",
            embeddings.shape()[0],
            features.3
        );
        return Err(PyValueError::new_err(message));
    }
    let layer = BagLayer {
        embeddings: embeddings.as_slice()?,
        gain: gain.as_slice()?,
        bias: bias.as_slice()?,
        epsilon: *epsilon,
        length: *length,
    };
    let (sparse, out) = (rows(&features)?, out.as_slice_mut()?);
    interruptible(py, |stop| features::embed_bags(sparse, layer, out, threads(num_threads), stop))
}
