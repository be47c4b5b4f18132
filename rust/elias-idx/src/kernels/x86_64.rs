//! The kernels compiled for AVX2 with FMA and F16C, and for AVX-512 F, BW, VL and VNNI.
//!
//! `#[target_feature]` stands on the entry points; everything below them is inlined into these.

use std::arch::x86_64::{
    __m128i, __m256, __m256i, __m512, _CMP_NLE_UQ, _mm_add_ps, _mm_add_ss, _mm_cvtss_f32,
    _mm_loadl_epi64, _mm_loadu_si128, _mm_movehl_ps, _mm_shuffle_ps, _mm256_add_ps, _mm256_and_ps,
    _mm256_andnot_ps, _mm256_castpd_ps, _mm256_castps_si256, _mm256_castps256_ps128,
    _mm256_castsi256_ps, _mm256_cmp_ps, _mm256_cvtepi8_epi32, _mm256_cvtepi32_ps,
    _mm256_cvtepu16_epi32, _mm256_cvtph_ps, _mm256_extractf128_ps, _mm256_fmadd_ps,
    _mm256_loadu_ps, _mm256_loadu_si256, _mm256_maskload_ps, _mm256_permutevar8x32_ps,
    _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_ps, _mm256_slli_epi32, _mm256_srli_epi32,
    _mm256_storeu_ps, _mm512_add_ps, _mm512_castps_pd, _mm512_castps_si512, _mm512_castps512_ps256,
    _mm512_castsi512_ps, _mm512_cmp_ps_mask, _mm512_cvtepi8_epi32, _mm512_cvtepi32_ps,
    _mm512_cvtepu16_epi32, _mm512_cvtph_ps, _mm512_extractf64x4_pd, _mm512_fmadd_ps,
    _mm512_loadu_ps, _mm512_mask_andnot_epi32, _mm512_maskz_loadu_ps, _mm512_permutexvar_ps,
    _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_slli_epi32, _mm512_srli_epi32,
    _mm512_storeu_ps,
};

use half::{bf16, f16};

use super::generic::Vector;

/// Eight lanes of AVX2.
#[derive(Clone, Copy)]
struct Avx2(__m256);

/// Sixteen lanes of AVX-512.
#[derive(Clone, Copy)]
struct Avx512(__m512);

/// Eight ones, then eight zeros: a mask of `count` lanes starts at `8 - count`.
static LANE_MASK: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

impl Vector for Avx2 {
    const LANES: usize = 8;
    const FUSED: bool = true;
    const TILE_QUERIES: usize = 2;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller promises AVX2.
        Self(unsafe { _mm256_setzero_ps() })
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller promises AVX2 and eight readable values.
        Self(unsafe { _mm256_loadu_ps(from) })
    }

    #[inline(always)]
    unsafe fn load_partial(from: *const f32, count: usize) -> Self {
        // SAFETY: the caller promises AVX2 and `count` < 8 readable values; a masked load touches
        // no others. The mask is eight values from within the table.
        unsafe {
            let mask = _mm256_loadu_si256(LANE_MASK.as_ptr().add(8 - count).cast::<__m256i>());
            Self(_mm256_maskload_ps(from, mask))
        }
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const bf16) -> Self {
        // SAFETY: the caller promises AVX2 and eight readable values.
        unsafe {
            let halves = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast::<__m128i>()));
            Self(_mm256_castsi256_ps(_mm256_slli_epi32::<16>(halves)))
        }
    }

    #[inline(always)]
    unsafe fn load_f16(from: *const f16) -> Self {
        // SAFETY: the caller promises F16C and eight readable values.
        Self(unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast::<__m128i>())) })
    }

    #[inline(always)]
    unsafe fn load_i8(from: *const i8) -> Self {
        // SAFETY: the caller promises AVX2 and eight readable values.
        unsafe {
            let codes = _mm_loadl_epi64(from.cast::<__m128i>());
            Self(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(codes)))
        }
    }

    #[inline(always)]
    unsafe fn mul_add(self, a: Self, b: Self) -> Self {
        // SAFETY: the caller promises FMA.
        Self(unsafe { _mm256_fmadd_ps(a.0, b.0, self.0) })
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        // SAFETY: the caller promises AVX2.
        unsafe {
            let four =
                _mm_add_ps(_mm256_castps256_ps128(self.0), _mm256_extractf128_ps::<1>(self.0));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller promises AVX2, and that the place is writable.
        unsafe { _mm256_storeu_ps(to, self.0) }
    }

    #[inline(always)]
    unsafe fn clear_above(self, bits: u32, values: Self, threshold: f32) -> Self {
        // SAFETY: the caller promises AVX2.
        unsafe {
            let above = _mm256_cmp_ps::<_CMP_NLE_UQ>(values.0, _mm256_set1_ps(threshold));
            let bits = _mm256_castsi256_ps(_mm256_set1_epi32(bits as i32));
            Self(_mm256_andnot_ps(_mm256_and_ps(above, bits), self.0))
        }
    }

    #[inline(always)]
    unsafe fn add_of_highest_bit(self, bits: Self, table: &[f32; 16]) -> Self {
        // SAFETY: the caller promises AVX2. A float's exponent tells its highest bit, beside an offset of 127; of a
        // place the lowest three bits count, and the table's halves are the same.
        unsafe {
            let floats = _mm256_cvtepi32_ps(_mm256_castps_si256(bits.0));
            let places = _mm256_srli_epi32::<23>(_mm256_castps_si256(floats));
            let table = _mm256_loadu_ps(table.as_ptr());
            Self(_mm256_add_ps(self.0, _mm256_permutevar8x32_ps(table, places)))
        }
    }
}

impl Vector for Avx512 {
    const LANES: usize = 16;
    const FUSED: bool = true;
    const TILE_QUERIES: usize = 4;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller promises AVX-512F.
        Self(unsafe { _mm512_setzero_ps() })
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller promises AVX-512F and sixteen readable values.
        Self(unsafe { _mm512_loadu_ps(from) })
    }

    #[inline(always)]
    unsafe fn load_partial(from: *const f32, count: usize) -> Self {
        // SAFETY: the caller promises AVX-512F and `count` < 16 readable values; a masked load
        // touches no others.
        Self(unsafe { _mm512_maskz_loadu_ps((1 << count) - 1, from) })
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const bf16) -> Self {
        // SAFETY: the caller promises AVX-512F and sixteen readable values.
        unsafe {
            let halves = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast::<__m256i>()));
            Self(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(halves)))
        }
    }

    #[inline(always)]
    unsafe fn load_f16(from: *const f16) -> Self {
        // SAFETY: the caller promises AVX-512F and sixteen readable values.
        Self(unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast::<__m256i>())) })
    }

    #[inline(always)]
    unsafe fn load_i8(from: *const i8) -> Self {
        // SAFETY: the caller promises AVX-512F and sixteen readable values.
        unsafe {
            let codes = _mm_loadu_si128(from.cast::<__m128i>());
            Self(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(codes)))
        }
    }

    #[inline(always)]
    unsafe fn mul_add(self, a: Self, b: Self) -> Self {
        // SAFETY: the caller promises AVX-512F.
        Self(unsafe { _mm512_fmadd_ps(a.0, b.0, self.0) })
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        // SAFETY: the caller promises AVX-512F, which implies AVX2.
        unsafe {
            let high = _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(self.0)));
            Avx2(_mm256_add_ps(_mm512_castps512_ps256(self.0), high)).sum()
        }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller promises AVX-512F, and that the place is writable.
        unsafe { _mm512_storeu_ps(to, self.0) }
    }

    #[inline(always)]
    unsafe fn clear_above(self, bits: u32, values: Self, threshold: f32) -> Self {
        // SAFETY: the caller promises AVX-512F.
        unsafe {
            let above = _mm512_cmp_ps_mask::<_CMP_NLE_UQ>(values.0, _mm512_set1_ps(threshold));
            let (own, bits) = (_mm512_castps_si512(self.0), _mm512_set1_epi32(bits as i32));
            Self(_mm512_castsi512_ps(_mm512_mask_andnot_epi32(own, above, bits, own)))
        }
    }

    #[inline(always)]
    unsafe fn add_of_highest_bit(self, bits: Self, table: &[f32; 16]) -> Self {
        // SAFETY: the caller promises AVX-512F. A float's exponent tells its highest bit, beside an offset of 127;
        // of a place the lowest four bits count.
        unsafe {
            let floats = _mm512_cvtepi32_ps(_mm512_castps_si512(bits.0));
            let places = _mm512_srli_epi32::<23>(_mm512_castps_si512(floats));
            let table = _mm512_loadu_ps(table.as_ptr());
            Self(_mm512_add_ps(self.0, _mm512_permutexvar_ps(places, table)))
        }
    }
}

/// The kernels of one instruction set.
macro_rules! entry_points {
    ($module:ident, $vector:ident, $features:literal) => {
        pub(super) mod $module {
            use super::super::{
                AdamScales, ElementRow, ExpSums, Lanes, LogitBounds, MomentRow, PairLosses,
                RowValues, SmallTree, Tree, generic, int8, select, train, trees,
            };
            use super::$vector;
            use crate::kernels::x86_64_int8::$vector as Int8;
            use crate::label_rows::ExactRows;
            use crate::matrix::MatrixView;
            use crate::panels::PanelsView;
            use crate::quantize::CodedRowsView;
            use crate::query_codes::{QueryCodesSlice, QueryCodesView};

            #[target_feature(enable = $features)]
            pub(in super::super) fn linear(
                rows: MatrixView<'_>,
                bias: Option<&[f32]>,
                queries: MatrixView<'_>,
                out: &mut [f32],
            ) {
                // SAFETY: this function has the set that the vector needs.
                unsafe { generic::linear::<$vector>(rows, bias, queries, out) }
            }

            #[target_feature(enable = $features)]
            pub(in super::super) fn linear_rows(
                rows: ExactRows<'_>,
                bias: &[f32],
                ids: &[u32],
                query: &[f32],
                out: &mut [f32],
            ) {
                // SAFETY: as above.
                unsafe { generic::linear_rows::<$vector>(rows, bias, ids, query, out) }
            }

            #[target_feature(enable = $features)]
            pub(in super::super) fn scan_panels(
                panels: PanelsView<'_>,
                range: (usize, usize),
                queries: QueryCodesSlice<'_>,
                out: &mut [f32],
                stride: usize,
            ) {
                // SAFETY: as above.
                unsafe { int8::scan_panels::<Int8>(panels, range, queries, out, stride) }
            }

            #[target_feature(enable = $features)]
            pub(in super::super) fn coded_rows(
                rows: CodedRowsView<'_>,
                ids: &[u32],
                query: QueryCodesView<'_>,
                bounds: LogitBounds<'_>,
            ) {
                // SAFETY: as above.
                unsafe { int8::coded_rows::<Int8>(rows, ids, query, bounds) }
            }

            #[target_feature(enable = $features)]
            pub(in super::super) fn coded_pairs(
                rows: CodedRowsView<'_>,
                ids: &[u32],
                queries: QueryCodesSlice<'_>,
                of_queries: &[u16],
                bounds: LogitBounds<'_>,
            ) {
                // SAFETY: as above.
                unsafe { int8::coded_pairs::<Int8>(rows, ids, queries, of_queries, bounds) }
            }

            #[target_feature(enable = $features)]
            pub(in super::super) fn exp_sums(logits: &[f32], deviations: &[f32]) -> ExpSums {
                // SAFETY: as above.
                unsafe { generic::exp_sums::<$vector>(logits, deviations) }
            }

            #[target_feature(enable = $features)]
            pub(in super::super) fn exp_scores(logits: &mut [f32], max: f32, scale: f32) {
                // SAFETY: as above.
                unsafe { generic::exp_scores::<$vector>(logits, max, scale) }
            }

            #[target_feature(enable = $features)]
            pub(in super::super) fn chunk_maxima(values: &[f32], out: &mut [f32]) {
                // SAFETY: as above.
                unsafe { generic::chunk_maxima::<$vector>(values, out) }
            }

            #[target_feature(enable = $features)]
            pub(in super::super) fn cluster_scores(logits: &mut [f32], alpha: f64) {
                // SAFETY: as above.
                unsafe { generic::cluster_scores::<$vector>(logits, alpha) }
            }

            #[target_feature(enable = $features)]
            pub(in super::super) fn scaled_softmax(logits: &mut [f32], scale: f64) {
                // SAFETY: as above.
                unsafe { generic::scaled_softmax::<$vector>(logits, scale) }
            }

            #[target_feature(enable = $features)]
            pub(in super::super) fn row_dots(
                row: RowValues<'_>,
                queries: MatrixView<'_>,
                ids: &[u32],
                out: &mut [f32],
            ) {
                // SAFETY: as above.
                unsafe { train::row_dots::<$vector>(row, queries, ids, out) }
            }

            #[target_feature(enable = $features)]
            pub(in super::super) fn irrelevant_pairs(
                logits: &[f32],
                path_scores: &[f32],
                out: PairLosses<'_>,
            ) {
                // SAFETY: as above.
                unsafe { train::irrelevant_pairs::<$vector>(logits, path_scores, out) }
            }

            #[target_feature(enable = $features)]
            pub(in super::super) fn add_pairs(
                row: &[f32],
                queries: MatrixView<'_>,
                pairs: &[(u32, f32)],
                gradient: &mut [f32],
                query_gradients: &mut [f32],
            ) {
                // SAFETY: as above.
                unsafe {
                    train::add_pairs::<$vector>(row, queries, pairs, gradient, query_gradients)
                }
            }

            #[target_feature(enable = $features)]
            pub(in super::super) fn add_scaled(factor: f32, values: &[f32], sum: &mut [f32]) {
                // SAFETY: as above.
                unsafe { train::add_scaled::<$vector>(factor, values, sum) }
            }

            #[target_feature(enable = $features)]
            pub(in super::super) fn mean_square(values: &[f32]) -> f32 {
                // SAFETY: as above.
                unsafe { train::mean_square::<$vector>(values) }
            }

            #[target_feature(enable = $features)]
            pub(in super::super) fn update_row(
                row: MomentRow<'_>,
                gradient: &[f32],
                rate: f32,
                scale: f32,
            ) {
                // SAFETY: as above.
                unsafe { train::update_row::<$vector>(row, gradient, rate, scale) }
            }

            #[target_feature(enable = $features)]
            pub(in super::super) fn update_elements(
                row: ElementRow<'_>,
                gradient: &[f32],
                scales: AdamScales,
            ) {
                // SAFETY: as above.
                unsafe { train::update_elements::<$vector>(row, gradient, scales) }
            }

            #[target_feature(enable = $features)]
            pub(in super::super) fn softmax_gradient(
                scaled: &[f32],
                scale: f32,
                gradient: &mut [f32],
            ) {
                // SAFETY: as above.
                unsafe { train::softmax_gradient::<$vector>(scaled, scale, gradient) }
            }

            #[target_feature(enable = $features)]
            pub(in super::super) fn final_scores(logits: &mut [f32], path_scores: &[f32]) {
                // SAFETY: as above.
                unsafe { generic::final_scores::<$vector>(logits, path_scores) }
            }

            #[target_feature(enable = $features)]
            pub(in super::super) fn add_tree(
                tree: &Tree,
                table: &[Lanes],
                reach: &mut [Lanes],
                scores: &mut [Lanes],
            ) {
                // SAFETY: as above.
                unsafe { trees::add_tree::<$vector>(tree, table, reach, scores) }
            }

            #[target_feature(enable = $features)]
            pub(in super::super) fn add_small_tree(
                tree: &SmallTree,
                table: &[Lanes],
                scores: &mut [Lanes],
            ) {
                // SAFETY: as above.
                unsafe { trees::add_small_tree::<$vector>(tree, table, scores) }
            }

            #[target_feature(enable = $features)]
            pub(in super::super) fn kth_largest(values: &[f32], k: usize) -> f32 {
                // SAFETY: as above.
                unsafe { select::kth_largest::<$vector>(values, k) }
            }

            #[target_feature(enable = $features)]
            pub(in super::super) fn count_from(values: &[f32], least: f32) -> usize {
                // SAFETY: as above.
                unsafe { select::count_from::<$vector>(values, least) }
            }
        }
    };
}

entry_points!(avx2, Avx2, "avx2,fma,f16c");
entry_points!(avx512, Avx512, "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c");
