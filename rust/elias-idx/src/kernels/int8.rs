//! Integer dot products of 8-bit codes: exact, so the same at every level and in every order.
//!
//! Codes are signed. Where the hardware multiplies unsigned by signed bytes, 128 is added to the
//! rows' codes on the way, and `OFFSET` times the sum of the query's codes is to be subtracted.
//!
//! All functions here are `inline(always)`: they take on the instruction set of their caller.

use super::{LogitBounds, prefetch};
use crate::panels::{GROUP, PANEL_ROWS, PanelsView};
use crate::quantize::CodedRowsView;
use crate::query_codes::{QueryCodesSlice, QueryCodesView, QueryMeta};
use crate::screen;

/// Multiplying and adding bytes in one instruction set.
///
/// # Safety
/// All methods may only be called where the set is there.
pub(super) trait Int8 {
    /// What results are too large by, times the sum of the query's codes.
    const OFFSET: i32;
    /// Codes of a row that are taken at once; it divides [`PADDING`](crate::query_codes::PADDING).
    const WIDTH: usize;
    /// The 16 × 4 codes of a panel's group.
    type Group: Copy;
    /// Sums for the 16 rows of a panel.
    type PanelSums: Copy;
    /// `WIDTH` codes of a row.
    type Codes: Copy;
    /// Sums for one row.
    type Sums: Copy;

    /// Reads 64 codes.
    unsafe fn group(from: *const i8) -> Self::Group;
    /// Zeros.
    unsafe fn zero_panel() -> Self::PanelSums;
    /// Adds the products with the four codes at `query`.
    unsafe fn add_group(
        sums: Self::PanelSums,
        group: Self::Group,
        query: *const i8,
    ) -> Self::PanelSums;
    /// The sum of each row.
    unsafe fn panel_sums(sums: Self::PanelSums) -> [i32; PANEL_ROWS];

    /// Reads `WIDTH` codes.
    unsafe fn codes(from: *const i8) -> Self::Codes;
    /// Reads `count` < `WIDTH` codes and no further; what follows is any code.
    unsafe fn codes_partial(from: *const i8, count: usize) -> Self::Codes;
    /// Zeros.
    unsafe fn zero() -> Self::Sums;
    /// Adds the products with the `WIDTH` codes at `query`.
    unsafe fn add(sums: Self::Sums, codes: Self::Codes, query: *const i8) -> Self::Sums;
    /// Four totals.
    unsafe fn totals(sums: [Self::Sums; 4]) -> [i32; 4];
}

/// Panels and queries of a tile.
const TILE_PANELS: usize = 2;
const TILE_QUERIES: usize = 4;
/// Panels that a single query's scan takes at once.
const SCAN_PANELS: usize = 4;

/// See [`super::Kernels::scan_panels`], which checks the lengths.
///
/// # Safety
/// `I`'s instruction set must be there.
#[inline(always)]
pub(super) unsafe fn scan_panels<I: Int8>(
    panels: PanelsView<'_>,
    (first, end): (usize, usize),
    queries: QueryCodesSlice<'_>,
    out: &mut [f32],
    stride: usize,
) {
    let num_queries = queries.len();
    let mut panel = first;
    while panel < end {
        let step = match (end - panel, num_queries) {
            (SCAN_PANELS.., 1) => SCAN_PANELS,
            (TILE_PANELS.., _) => TILE_PANELS,
            _ => 1,
        };
        let mut query = 0;
        while query < num_queries {
            let at = (panel, query, panel - first);
            // SAFETY: the caller promises the set; there are `step` panels, and the queries taken.
            query += unsafe {
                match (step, num_queries - query) {
                    (TILE_PANELS, TILE_QUERIES..) => {
                        scan_tile::<I, TILE_PANELS, TILE_QUERIES>(panels, at, queries, out, stride)
                    }
                    (SCAN_PANELS, _) => {
                        scan_tile::<I, SCAN_PANELS, 1>(panels, at, queries, out, stride)
                    }
                    (TILE_PANELS, _) => {
                        scan_tile::<I, TILE_PANELS, 1>(panels, at, queries, out, stride)
                    }
                    (_, TILE_QUERIES..) => {
                        scan_tile::<I, 1, TILE_QUERIES>(panels, at, queries, out, stride)
                    }
                    _ => scan_tile::<I, 1, 1>(panels, at, queries, out, stride),
                }
            };
        }
        panel += step;
    }
}

/// The logits of `P` panels for `Q` queries; returns `Q`.
///
/// # Safety
/// `I`'s instruction set must be there.
#[inline(always)]
unsafe fn scan_tile<I: Int8, const P: usize, const Q: usize>(
    panels: PanelsView<'_>,
    (panel, query, place): (usize, usize, usize),
    queries: QueryCodesSlice<'_>,
    out: &mut [f32],
    stride: usize,
) -> usize {
    let len = panels.panel_len();
    assert!(panels.codes.len() >= (panel + P) * len && queries.stride() >= len / PANEL_ROWS);
    let views: [QueryCodesView<'_>; Q] = std::array::from_fn(|q| queries.get(query + q));
    // SAFETY: the set is promised by the caller. The panels are as long as was checked, and the
    // queries' codes as a panel has columns, padding included.
    unsafe {
        let mut high = [[I::zero_panel(); Q]; P];
        let mut low = [[I::zero_panel(); Q]; P];
        for group in 0..panels.cols.div_ceil(GROUP) {
            for p in 0..P {
                let at = (panel + p) * len + group * PANEL_ROWS * GROUP;
                let codes = I::group(panels.codes.as_ptr().add(at));
                for q in 0..Q {
                    let at = group * GROUP;
                    high[p][q] = I::add_group(high[p][q], codes, views[q].high.as_ptr().add(at));
                    low[p][q] = I::add_group(low[p][q], codes, views[q].low.as_ptr().add(at));
                }
            }
        }
        for p in 0..P {
            let place = (place + p) * PANEL_ROWS;
            for q in 0..Q {
                let meta = views[q].meta;
                let sums = [I::panel_sums(high[p][q]), I::panel_sums(low[p][q])];
                let logits = panel_logits([&sums[0], &sums[1]], I::OFFSET, meta, panels, panel + p);
                out[(query + q) * stride + place..][..PANEL_ROWS].copy_from_slice(&logits);
            }
        }
    }
    Q
}

/// The logits of a panel's rows, from their products with the two parts of a query, which are too large by
/// `offset` times the sums of its codes.
#[inline(always)]
pub(super) fn panel_logits(
    [high, low]: [&[i32; PANEL_ROWS]; 2],
    offset: i32,
    query: &QueryMeta,
    panels: PanelsView<'_>,
    panel: usize,
) -> [f32; PANEL_ROWS] {
    let scales = array(panels.scales, panel * PANEL_ROWS);
    let biases = array(panels.biases, panel * PANEL_ROWS);
    let (high_offset, low_offset) = (offset * query.high_sum, offset * query.low_sum);
    let mut logits = [0.0; PANEL_ROWS];
    for i in 0..PANEL_ROWS {
        let (high, low) = (high[i] - high_offset, low[i] - low_offset);
        logits[i] = logit(high, low, query, scales[i], biases[i]);
    }
    logits
}

/// ŵ · ê + b. Nothing here is fused, so that all levels agree.
#[inline(always)]
pub(super) fn logit(high: i32, low: i32, query: &QueryMeta, scale: f32, bias: f32) -> f32 {
    scale * (query.step * high as f32 + query.fine_step * low as f32) + bias
}

/// The upper and the lower bound of a logit; where numbers overflow, those that bound nothing.
#[inline(always)]
fn bounds_of(logit: f32, error: f32) -> (f32, f32) {
    // Of NaN and a number, `min` and `max` give the number.
    ((logit + error).min(f32::INFINITY), (logit - error).max(f32::NEG_INFINITY))
}

/// 16 values from `start` on.
#[inline(always)]
fn array(values: &[f32], start: usize) -> &[f32; PANEL_ROWS] {
    values[start..start + PANEL_ROWS].try_into().expect("as many as asked for")
}

/// Rows whose codes are fetched ahead of their use.
const PREFETCH_ROWS: usize = 8;

/// See [`super::Kernels::coded_rows`], which checks the lengths.
///
/// # Safety
/// `I`'s instruction set must be there.
#[inline(always)]
pub(super) unsafe fn coded_rows<I: Int8>(
    rows: CodedRowsView<'_>,
    ids: &[u32],
    query: QueryCodesView<'_>,
    bounds: LogitBounds<'_>,
) {
    let codes = rows.codes;
    let row = |id: u32| codes.row(id as usize).as_ptr();
    let rounding = screen::rounding(codes.cols());
    let offsets = (I::OFFSET * query.meta.high_sum, I::OFFSET * query.meta.low_sum);
    let outs = bounds.upper.chunks_mut(4).zip(bounds.lower.chunks_mut(4));
    for (chunk, (four, (upper, lower))) in ids.chunks(4).zip(outs).enumerate() {
        for &id in ids.iter().skip(4 * chunk + PREFETCH_ROWS).take(4) {
            prefetch(row(id), codes.cols());
            prefetch((&raw const rows.meta[id as usize]).cast(), 1);
        }
        let starts: [_; 4] = std::array::from_fn(|i| row(four[i.min(four.len() - 1)]));
        // SAFETY: the set is promised by the caller; each start is that of a row, and the query's
        // codes are padded.
        let (high, low) = unsafe {
            let queries = [query.high.as_ptr(), query.low.as_ptr()];
            dots_of_rows::<I>(starts, queries, codes.cols())
        };
        for (i, &id) in four.iter().enumerate() {
            let (high, low) = (high[i] - offsets.0, low[i] - offsets.1);
            let row = &rows.meta[id as usize];
            let logit = logit(high, low, query.meta, row.scale, row.bias);
            let error = screen::error_bound(row, query.meta, query.meta.residual, rounding);
            (upper[i], lower[i]) = bounds_of(logit, error);
        }
    }
}

/// The products of four rows with the two parts of a query.
///
/// # Safety
/// `I`'s instruction set must be there, `dim` codes must be readable at each row, and as many, rounded
/// up to `WIDTH`, at the queries.
#[inline(always)]
unsafe fn dots_of_rows<I: Int8>(
    rows: [*const i8; 4],
    queries: [*const i8; 2],
    dim: usize,
) -> ([i32; 4], [i32; 4]) {
    // SAFETY: as promised by the caller.
    unsafe {
        let mut high = [I::zero(); 4];
        let mut low = [I::zero(); 4];
        let whole = dim / I::WIDTH * I::WIDTH;
        let mut at = 0;
        while at < whole {
            for r in 0..4 {
                let codes = I::codes(rows[r].add(at));
                high[r] = I::add(high[r], codes, queries[0].add(at));
                low[r] = I::add(low[r], codes, queries[1].add(at));
            }
            at += I::WIDTH;
        }
        if whole < dim {
            for r in 0..4 {
                let codes = I::codes_partial(rows[r].add(whole), dim - whole);
                high[r] = I::add(high[r], codes, queries[0].add(whole));
                low[r] = I::add(low[r], codes, queries[1].add(whole));
            }
        }
        (I::totals(high), I::totals(low))
    }
}

/// Rows of pairs whose codes are fetched ahead of their use.
const PREFETCH_PAIRS: usize = 12;

/// See [`super::Kernels::coded_pairs`], which checks the lengths.
///
/// # Safety
/// `I`'s instruction set must be there.
#[inline(always)]
pub(super) unsafe fn coded_pairs<I: Int8>(
    rows: CodedRowsView<'_>,
    ids: &[u32],
    queries: QueryCodesSlice<'_>,
    of_queries: &[u16],
    bounds: LogitBounds<'_>,
) {
    let codes = rows.codes;
    let rounding = screen::rounding(codes.cols());
    let (mut at, mut ahead) = (0, 1);
    while at < ids.len() {
        let id = ids[at];
        // The pairs of a row come one after the other; its codes stay in the nearest cache.
        let mut count = 1;
        while count < 4 && ids.get(at + count) == Some(&id) {
            count += 1;
        }
        while ahead < ids.len().min(at + PREFETCH_PAIRS) {
            if ids[ahead] != ids[ahead - 1] {
                let id = ids[ahead] as usize;
                prefetch(codes.row(id).as_ptr(), codes.cols());
                prefetch((&raw const rows.meta[id]).cast(), 1);
            }
            ahead += 1;
        }
        let range = at..at + count;
        let of_queries = &of_queries[range.clone()];
        let views: [QueryCodesView<'_>; 4] =
            std::array::from_fn(|i| queries.get(usize::from(of_queries[i.min(count - 1)])));
        // SAFETY: the set is promised by the caller; the queries' codes are padded.
        let dots = unsafe {
            let starts = [
                views[0].high.as_ptr(),
                views[1].high.as_ptr(),
                views[2].high.as_ptr(),
                views[3].high.as_ptr(),
            ];
            match count {
                1 => dots_of_queries::<I, 1>(codes.row(id as usize), starts),
                2 => dots_of_queries::<I, 2>(codes.row(id as usize), starts),
                _ => dots_of_queries::<I, 4>(codes.row(id as usize), starts),
            }
        };
        let row = &rows.meta[id as usize];
        let (upper, lower) = (&mut bounds.upper[range.clone()], &mut bounds.lower[range]);
        for (i, (upper, lower)) in upper.iter_mut().zip(lower).enumerate() {
            let query = views[i].meta;
            let logit = logit(dots[i] - I::OFFSET * query.high_sum, 0, query, row.scale, row.bias);
            let error = screen::error_bound(row, query, query.coarse_residual, rounding);
            (*upper, *lower) = bounds_of(logit, error);
        }
        at += count;
    }
}

/// The products of a row with the first `N` of four queries.
///
/// # Safety
/// `I`'s instruction set must be there, and as many codes as the row has, rounded up to `WIDTH`, must
/// be readable at the queries.
#[inline(always)]
unsafe fn dots_of_queries<I: Int8, const N: usize>(
    row: &[i8],
    queries: [*const i8; 4],
) -> [i32; 4] {
    // SAFETY: as promised by the caller.
    unsafe {
        let mut sums = [I::zero(); 4];
        let whole = row.len() / I::WIDTH * I::WIDTH;
        let mut at = 0;
        while at < whole {
            let codes = I::codes(row.as_ptr().add(at));
            for q in 0..N {
                sums[q] = I::add(sums[q], codes, queries[q].add(at));
            }
            at += I::WIDTH;
        }
        if whole < row.len() {
            let codes = I::codes_partial(row.as_ptr().add(whole), row.len() - whole);
            for q in 0..N {
                sums[q] = I::add(sums[q], codes, queries[q].add(whole));
            }
        }
        I::totals(sums)
    }
}

/// Plain arrays, for any machine.
pub(super) struct Portable;

impl Int8 for Portable {
    const OFFSET: i32 = 0;
    const WIDTH: usize = 16;
    type Group = [i8; 64];
    type PanelSums = [i32; PANEL_ROWS];
    type Codes = [i8; 16];
    type Sums = [i32; 16];

    #[inline(always)]
    unsafe fn group(from: *const i8) -> [i8; 64] {
        // SAFETY: the caller promises 64 readable codes.
        unsafe { from.cast::<[i8; 64]>().read() }
    }

    #[inline(always)]
    unsafe fn zero_panel() -> [i32; PANEL_ROWS] {
        [0; PANEL_ROWS]
    }

    #[inline(always)]
    unsafe fn add_group(
        mut sums: [i32; PANEL_ROWS],
        group: [i8; 64],
        query: *const i8,
    ) -> [i32; PANEL_ROWS] {
        // SAFETY: the caller promises four readable codes.
        let query = unsafe { query.cast::<[i8; 4]>().read() };
        for (sum, codes) in sums.iter_mut().zip(group.chunks_exact(GROUP)) {
            for (&code, query) in codes.iter().zip(query) {
                *sum += i32::from(code) * i32::from(query);
            }
        }
        sums
    }

    #[inline(always)]
    unsafe fn panel_sums(sums: [i32; PANEL_ROWS]) -> [i32; PANEL_ROWS] {
        sums
    }

    #[inline(always)]
    unsafe fn codes(from: *const i8) -> [i8; 16] {
        // SAFETY: the caller promises 16 readable codes.
        unsafe { from.cast::<[i8; 16]>().read() }
    }

    #[inline(always)]
    unsafe fn codes_partial(from: *const i8, count: usize) -> [i8; 16] {
        let mut codes = [0; 16];
        // SAFETY: the caller promises `count` < 16 readable codes.
        unsafe { std::ptr::copy_nonoverlapping(from, codes.as_mut_ptr(), count) };
        codes
    }

    #[inline(always)]
    unsafe fn zero() -> [i32; 16] {
        [0; 16]
    }

    #[inline(always)]
    unsafe fn add(mut sums: [i32; 16], codes: [i8; 16], query: *const i8) -> [i32; 16] {
        // SAFETY: the caller promises 16 readable codes.
        let query = unsafe { query.cast::<[i8; 16]>().read() };
        for ((sum, code), query) in sums.iter_mut().zip(codes).zip(query) {
            *sum += i32::from(code) * i32::from(query);
        }
        sums
    }

    #[inline(always)]
    unsafe fn totals(sums: [[i32; 16]; 4]) -> [i32; 4] {
        sums.map(|sums| sums.iter().sum())
    }
}
