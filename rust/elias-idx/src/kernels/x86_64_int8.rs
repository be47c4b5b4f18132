//! The products of codes in AVX2 and in AVX-512 with VNNI.

use std::arch::x86_64::{
    __m128i, __m256i, __m512i, _mm_add_epi32, _mm_loadu_si128, _mm_storeu_si128, _mm256_add_epi32,
    _mm256_castsi256_si128, _mm256_cvtepi8_epi16, _mm256_extracti128_si256, _mm256_hadd_epi32,
    _mm256_madd_epi16, _mm256_permute4x64_epi64, _mm256_set1_epi64x, _mm256_setzero_si256,
    _mm256_storeu_si256, _mm512_add_epi32, _mm512_castsi512_si256, _mm512_dpbusd_epi32,
    _mm512_extracti64x4_epi64, _mm512_loadu_si512, _mm512_maskz_loadu_epi8, _mm512_set1_epi8,
    _mm512_set1_epi32, _mm512_setzero_si512, _mm512_storeu_si512, _mm512_unpackhi_epi32,
    _mm512_unpackhi_epi64, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64, _mm512_xor_si512,
};

use super::int8::Int8;
use crate::panels::{GROUP, PANEL_ROWS};

/// AVX2: bytes are widened to 16 bits, whose products' sums can't overflow.
pub(super) struct Avx2;

/// AVX-512 VNNI: sums of four products of an unsigned and a signed byte in one instruction.
pub(super) struct Avx512;

impl Int8 for Avx2 {
    const OFFSET: i32 = 0;
    const WIDTH: usize = 16;
    /// Four rows each.
    type Group = [__m256i; 4];
    type PanelSums = [__m256i; 4];
    type Codes = __m256i;
    type Sums = __m256i;

    #[inline(always)]
    unsafe fn group(from: *const i8) -> [__m256i; 4] {
        // SAFETY: the caller promises AVX2 and 64 readable codes.
        unsafe {
            [
                Self::codes(from),
                Self::codes(from.add(16)),
                Self::codes(from.add(32)),
                Self::codes(from.add(48)),
            ]
        }
    }

    #[inline(always)]
    unsafe fn zero_panel() -> [__m256i; 4] {
        // SAFETY: the caller promises AVX2.
        unsafe { [_mm256_setzero_si256(); 4] }
    }

    #[inline(always)]
    unsafe fn add_group(
        mut sums: [__m256i; 4],
        group: [__m256i; 4],
        query: *const i8,
    ) -> [__m256i; 4] {
        // SAFETY: the caller promises AVX2 and four readable codes.
        unsafe {
            let [a, b, c, d] = query
                .cast::<[i8; GROUP]>()
                .read()
                .map(|code| i64::from(i16::from(code).cast_unsigned()));
            let query = _mm256_set1_epi64x(a | b << 16 | c << 32 | d << 48);
            for i in 0..4 {
                sums[i] = _mm256_add_epi32(sums[i], _mm256_madd_epi16(group[i], query));
            }
        }
        sums
    }

    #[inline(always)]
    unsafe fn panel_sums(sums: [__m256i; 4]) -> [i32; PANEL_ROWS] {
        let mut out = [0; PANEL_ROWS];
        // SAFETY: the caller promises AVX2; each store is of eight values within `out`.
        unsafe {
            for (sums, out) in sums.chunks_exact(2).zip(out.chunks_exact_mut(8)) {
                // Each row has two sums; adding neighbours leaves rows 0 1 4 5 2 3 6 7.
                let rows = _mm256_hadd_epi32(sums[0], sums[1]);
                let rows = _mm256_permute4x64_epi64::<0b11_01_10_00>(rows);
                _mm256_storeu_si256(out.as_mut_ptr().cast(), rows);
            }
        }
        out
    }

    #[inline(always)]
    unsafe fn codes(from: *const i8) -> __m256i {
        // SAFETY: the caller promises AVX2 and 16 readable codes.
        unsafe { _mm256_cvtepi8_epi16(_mm_loadu_si128(from.cast::<__m128i>())) }
    }

    #[inline(always)]
    unsafe fn codes_partial(from: *const i8, count: usize) -> __m256i {
        let mut codes = [0_i8; 16];
        // SAFETY: the caller promises `count` < 16 readable codes, and AVX2.
        unsafe {
            std::ptr::copy_nonoverlapping(from, codes.as_mut_ptr(), count);
            Self::codes(codes.as_ptr())
        }
    }

    #[inline(always)]
    unsafe fn zero() -> __m256i {
        // SAFETY: the caller promises AVX2.
        unsafe { _mm256_setzero_si256() }
    }

    #[inline(always)]
    unsafe fn add(sums: __m256i, codes: __m256i, query: *const i8) -> __m256i {
        // SAFETY: the caller promises AVX2 and 16 readable codes.
        unsafe { _mm256_add_epi32(sums, _mm256_madd_epi16(codes, Self::codes(query))) }
    }

    #[inline(always)]
    unsafe fn totals(sums: [__m256i; 4]) -> [i32; 4] {
        let mut totals = [0; 4];
        // SAFETY: the caller promises AVX2; the store is of four values.
        unsafe {
            let pairs = [_mm256_hadd_epi32(sums[0], sums[1]), _mm256_hadd_epi32(sums[2], sums[3])];
            let halves = _mm256_hadd_epi32(pairs[0], pairs[1]);
            let high = _mm256_extracti128_si256::<1>(halves);
            let sum = _mm_add_epi32(_mm256_castsi256_si128(halves), high);
            _mm_storeu_si128(totals.as_mut_ptr().cast(), sum);
        }
        totals
    }
}

impl Int8 for Avx512 {
    const OFFSET: i32 = 128;
    const WIDTH: usize = 64;
    type Group = __m512i;
    type PanelSums = __m512i;
    type Codes = __m512i;
    type Sums = __m512i;

    #[inline(always)]
    unsafe fn group(from: *const i8) -> __m512i {
        // SAFETY: the caller promises AVX-512 and 64 readable codes.
        unsafe { Self::codes(from) }
    }

    #[inline(always)]
    unsafe fn zero_panel() -> __m512i {
        // SAFETY: the caller promises AVX-512.
        unsafe { _mm512_setzero_si512() }
    }

    #[inline(always)]
    unsafe fn add_group(sums: __m512i, group: __m512i, query: *const i8) -> __m512i {
        // SAFETY: the caller promises VNNI and four readable codes.
        unsafe {
            let query = query.cast::<i32>().read_unaligned();
            _mm512_dpbusd_epi32(sums, group, _mm512_set1_epi32(query))
        }
    }

    #[inline(always)]
    unsafe fn panel_sums(sums: __m512i) -> [i32; PANEL_ROWS] {
        let mut out = [0; PANEL_ROWS];
        // SAFETY: the caller promises AVX-512; the store is of 16 values.
        unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), sums) };
        out
    }

    /// The codes with 128 added, as unsigned bytes.
    #[inline(always)]
    unsafe fn codes(from: *const i8) -> __m512i {
        // SAFETY: the caller promises AVX-512 and 64 readable codes.
        unsafe { _mm512_xor_si512(_mm512_loadu_si512(from.cast()), _mm512_set1_epi8(-128)) }
    }

    #[inline(always)]
    unsafe fn codes_partial(from: *const i8, count: usize) -> __m512i {
        // SAFETY: the caller promises AVX-512BW and `count` < 64 readable codes; a masked load touches
        // no others.
        unsafe {
            let codes = _mm512_maskz_loadu_epi8((1 << count) - 1, from);
            _mm512_xor_si512(codes, _mm512_set1_epi8(-128))
        }
    }

    #[inline(always)]
    unsafe fn zero() -> __m512i {
        // SAFETY: the caller promises AVX-512.
        unsafe { _mm512_setzero_si512() }
    }

    #[inline(always)]
    unsafe fn add(sums: __m512i, codes: __m512i, query: *const i8) -> __m512i {
        // SAFETY: the caller promises VNNI and 64 readable codes.
        unsafe { _mm512_dpbusd_epi32(sums, codes, _mm512_loadu_si512(query.cast())) }
    }

    #[inline(always)]
    unsafe fn totals(sums: [__m512i; 4]) -> [i32; 4] {
        let mut totals = [0; 4];
        // SAFETY: the caller promises AVX-512; the store is of four values.
        unsafe {
            // Transposing while adding: after the two steps, each lane of four has one of each sum.
            let [a, b, c, d] = sums;
            let ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
            let cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
            let abcd =
                _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
            let eight = _mm256_add_epi32(
                _mm512_castsi512_si256(abcd),
                _mm512_extracti64x4_epi64::<1>(abcd),
            );
            let high = _mm256_extracti128_si256::<1>(eight);
            let four = _mm_add_epi32(_mm256_castsi256_si128(eight), high);
            _mm_storeu_si128(totals.as_mut_ptr().cast(), four);
        }
        totals
    }
}
