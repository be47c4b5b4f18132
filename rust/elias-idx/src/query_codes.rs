//! Queries as 8-bit codes in two parts, to be multiplied with the codes of rows.
//!
//! ê = step · high + fine_step · low, where `high` alone is the query to 8 bits and `low` adds 8 more.
//! Rows whose score doesn't matter are told apart with `high`; where more is needed, `low` is there.

use std::ops::Range;

use crate::quantize::{LANES, MAX_CODE, round, upper_norm};

/// Queries' codes are padded with zeros to a multiple of this, the widest vector's bytes.
pub(crate) const PADDING: usize = 64;
/// `fine_step` is this part of `step`: the rest of a value is at most half a step.
const FINE: f32 = 2.0 * MAX_CODE;

/// What is known of a query besides its codes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct QueryMeta {
    /// ê = step · high + fine_step · low.
    pub(crate) step: f32,
    pub(crate) fine_step: f32,
    /// Σ high and Σ low.
    pub(crate) high_sum: i32,
    pub(crate) low_sum: i32,
    /// At least ‖e‖.
    pub(crate) norm: f32,
    /// At least ‖e − step · high‖.
    pub(crate) coarse_residual: f32,
    /// At least ‖e − ê‖.
    pub(crate) residual: f32,
}

/// A few queries' codes.
#[derive(Default)]
pub(crate) struct QueryCodes {
    stride: usize,
    high: Vec<i8>,
    low: Vec<i8>,
    meta: Vec<QueryMeta>,
}

/// Borrowed [`QueryCodes`], or some of them.
#[derive(Clone, Copy)]
pub(crate) struct QueryCodesSlice<'a> {
    stride: usize,
    high: &'a [i8],
    low: &'a [i8],
    meta: &'a [QueryMeta],
}

/// One query's codes, padded with zeros.
#[derive(Clone, Copy)]
pub(crate) struct QueryCodesView<'a> {
    pub(crate) high: &'a [i8],
    pub(crate) low: &'a [i8],
    pub(crate) meta: &'a QueryMeta,
}

impl QueryCodes {
    /// Starts anew, for queries of `dim` values.
    pub(crate) fn clear(&mut self, dim: usize) {
        self.stride = dim.next_multiple_of(PADDING);
        self.high.clear();
        self.low.clear();
        self.meta.clear();
    }

    /// Adds a query: `dim` values, as told to [`QueryCodes::clear`].
    pub(crate) fn push(&mut self, query: &[f32]) {
        let start = self.high.len();
        self.high.resize(start + self.stride, 0);
        self.low.resize(start + self.stride, 0);
        let (high, low) = (&mut self.high[start..], &mut self.low[start..]);
        self.meta.push(quantize(query, &mut high[..query.len()], &mut low[..query.len()]));
    }

    pub(crate) fn slice(&self) -> QueryCodesSlice<'_> {
        let Self { stride, high, low, meta } = self;
        QueryCodesSlice { stride: *stride, high, low, meta }
    }
}

impl<'a> QueryCodesSlice<'a> {
    pub(crate) fn len(&self) -> usize {
        self.meta.len()
    }

    /// Codes of a query, padding included.
    pub(crate) fn stride(&self) -> usize {
        self.stride
    }

    /// The first parts of all queries' codes, padding included.
    #[cfg(any(all(test, unix), all(target_arch = "x86_64", target_os = "linux")))]
    pub(crate) fn high(&self) -> &'a [i8] {
        self.high
    }

    /// The second parts.
    #[cfg(any(all(test, unix), all(target_arch = "x86_64", target_os = "linux")))]
    pub(crate) fn low(&self) -> &'a [i8] {
        self.low
    }

    /// The same queries with their codes elsewhere.
    #[cfg(all(test, unix))]
    pub(crate) fn with_parts<'b>(&self, high: &'b [i8], low: &'b [i8]) -> QueryCodesSlice<'b>
    where
        'a: 'b,
    {
        QueryCodesSlice { high, low, ..*self }
    }

    /// Some of the queries.
    ///
    /// # Panics
    /// If there are not so many.
    pub(crate) fn range(&self, range: Range<usize>) -> Self {
        let codes = range.start * self.stride..range.end * self.stride;
        Self {
            stride: self.stride,
            high: &self.high[codes.clone()],
            low: &self.low[codes],
            meta: &self.meta[range],
        }
    }

    /// One query.
    ///
    /// # Panics
    /// If there is no such query.
    #[inline(always)]
    pub(crate) fn get(&self, query: usize) -> QueryCodesView<'a> {
        let range = query * self.stride..(query + 1) * self.stride;
        QueryCodesView {
            high: &self.high[range.clone()],
            low: &self.low[range],
            meta: &self.meta[query],
        }
    }
}

fn quantize(query: &[f32], high: &mut [i8], low: &mut [i8]) -> QueryMeta {
    let largest = query.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    let step = largest / MAX_CODE;
    // The fine step must be a normal number too.
    if step < f32::MIN_POSITIVE * 2.0 * FINE {
        let norm = upper_norm(largest * (query.len() as f32).sqrt(), query.len());
        return QueryMeta { norm, coarse_residual: norm, residual: norm, ..QueryMeta::default() };
    }
    // Sums of products are below 2³¹: those of larger numbers could overflow, times the step.
    if step > f32::MAX / (1_u64 << 31) as f32 {
        let (norm, residual) = (f32::INFINITY, f32::INFINITY);
        return QueryMeta { norm, coarse_residual: residual, residual, ..QueryMeta::default() };
    }
    let inverse = step.recip();
    let mut sums = ([0; LANES], [0; LANES]);
    // Squares in units of the step, so that they neither overflow nor underflow.
    let (mut norm, mut coarse, mut fine) = ([0.0_f32; LANES], [0.0_f32; LANES], [0.0_f32; LANES]);
    let codes = high.chunks_mut(LANES).zip(low.chunks_mut(LANES));
    for (values, (high, low)) in query.chunks(LANES).zip(codes) {
        for (i, ((value, high), low)) in values.iter().zip(high).zip(low).enumerate() {
            let value = value * inverse;
            let rounded = round(value).clamp(-MAX_CODE, MAX_CODE);
            let rest = value - rounded;
            let finely = round(rest * FINE).clamp(-MAX_CODE, MAX_CODE);
            let last = rest - finely * (1.0 / FINE);
            *high = rounded as i8;
            *low = finely as i8;
            sums.0[i] += rounded as i32;
            sums.1[i] += finely as i32;
            norm[i] += value * value;
            coarse[i] += rest * rest;
            fine[i] += last * last;
        }
    }
    let length = |squares: [f32; LANES]| squares.iter().sum::<f32>().sqrt();
    let norm = length(norm);
    // The roundings on the way add up to a few epsilons of the values.
    let upper = |length: f32| upper_norm(step * (length + 8.0 * f32::EPSILON * norm), query.len());
    QueryMeta {
        step,
        fine_step: step / FINE,
        high_sum: sums.0.iter().sum(),
        low_sum: sums.1.iter().sum(),
        norm: upper(norm),
        coarse_residual: upper(length(coarse)),
        residual: upper(length(fine)),
    }
}
