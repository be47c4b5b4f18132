//! The kernels compiled for AVX2 with FMA and for AVX-512F.
//!
//! `#[target_feature]` stands on the entry points; everything below them is inlined into these.

use std::arch::x86_64::{
    __m256, __m256i, __m512, _mm_add_ps, _mm_add_ss, _mm_cvtss_f32, _mm_movehl_ps, _mm_shuffle_ps,
    _mm256_add_ps, _mm256_castpd_ps, _mm256_castps256_ps128, _mm256_extractf128_ps,
    _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_loadu_si256, _mm256_maskload_ps, _mm256_setzero_ps,
    _mm512_castps_pd, _mm512_castps512_ps256, _mm512_extractf64x4_pd, _mm512_fmadd_ps,
    _mm512_loadu_ps, _mm512_maskz_loadu_ps, _mm512_setzero_ps,
};

use super::generic::{self, Vector};
use crate::matrix::MatrixView;

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
}

/// The kernels of one instruction set.
macro_rules! entry_points {
    ($module:ident, $vector:ident, $features:literal) => {
        pub(super) mod $module {
            use super::{MatrixView, generic, $vector};

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
                rows: MatrixView<'_>,
                bias: &[f32],
                ids: &[u32],
                query: &[f32],
                out: &mut [f32],
            ) {
                // SAFETY: as above.
                unsafe { generic::linear_rows::<$vector>(rows, bias, ids, query, out) }
            }

            #[target_feature(enable = $features)]
            pub(in super::super) fn cluster_scores(logits: &mut [f32], alpha: f64) {
                // SAFETY: as above.
                unsafe { generic::cluster_scores::<$vector>(logits, alpha) }
            }

            #[target_feature(enable = $features)]
            pub(in super::super) fn final_scores(logits: &mut [f32], path_scores: &[f32]) {
                // SAFETY: as above.
                unsafe { generic::final_scores::<$vector>(logits, path_scores) }
            }
        }
    };
}

entry_points!(avx2, Avx2, "avx2,fma");
entry_points!(avx512, Avx512, "avx512f,avx2,fma");
