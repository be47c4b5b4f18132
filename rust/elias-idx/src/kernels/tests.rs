//! Every level is held to the same naive sums in f64.

use half::{bf16, f16};
use proptest::prelude::*;

use super::generic::{Portable, exp};
use super::*;
use crate::matrix::{Matrix, Tensor};
use crate::panels::{self, Panels};
use crate::quantize::{CodedRows, RowMeta, quantize_row};
use crate::query_codes::QueryCodes;
use crate::screen;

/// Numbers that look random, the same in every run.
pub(super) fn numbers(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

const DIMS: [usize; 11] = [1, 2, 7, 16, 31, 63, 64, 65, 100, 768, 1024];

#[test]
fn levels_are_found() {
    let levels = Kernels::available();
    assert_eq!(levels[0].level, Level::Portable);
    assert_eq!(levels.last().unwrap().level, Kernels::named(None).unwrap().level);
    assert_eq!(levels.last().unwrap().level, Kernels::named(Some("".as_ref())).unwrap().level);
    for kernels in levels {
        assert_eq!(Kernels::named(Some(kernels.name().as_ref())).unwrap().level, kernels.level);
    }
    let error = Kernels::named(Some("avx1024".as_ref())).unwrap_err().to_string();
    assert!(error.contains("ELIAS_IDX_ISA is 'avx1024': this machine has portable"), "{error}");
}

#[test]
fn linear_is_a_matrix_product() {
    for dim in DIMS {
        for (num_rows, num_queries) in [(1, 1), (4, 4), (9, 7), (3, 5), (8, 3), (6, 2)] {
            let (rows, queries) = (numbers(num_rows * dim, 1), numbers(num_queries * dim, 2));
            let bias = numbers(num_rows, 3);
            let views = (MatrixView::new(&rows, dim), MatrixView::new(&queries, dim));
            for kernels in Kernels::available() {
                let mut out = vec![f32::NAN; num_rows * num_queries];
                kernels.linear(views.0, Some(&bias), views.1, &mut out);
                for (i, &value) in out.iter().enumerate() {
                    let (q, r) = (i / num_rows, i % num_rows);
                    let exact = dot(&rows[r * dim..][..dim], &queries[q * dim..][..dim])
                        + f64::from(bias[r]);
                    let tolerance = 1e-6 * (1.0 + (dim as f64).sqrt());
                    assert!((f64::from(value) - exact).abs() < tolerance, "{kernels:?} {dim}");
                }
            }
        }
    }
}

#[test]
fn a_dot_product_is_the_same_in_any_company() {
    for dim in DIMS {
        let (rows, queries) = (numbers(11 * dim, 1), numbers(9 * dim, 2));
        let bias = vec![0.25; 11];
        let rows = MatrixView::new(&rows, dim);
        for kernels in Kernels::available() {
            let mut together = vec![0.0; 99];
            kernels.linear(rows, Some(&bias), MatrixView::new(&queries, dim), &mut together);
            let ids: Vec<u32> = (0..11).rev().collect();
            for (query, together) in queries.chunks(dim).zip(together.chunks(11)) {
                let mut alone = vec![0.0; 11];
                kernels.linear(rows, Some(&bias), MatrixView::new(query, dim), &mut alone);
                assert_eq!(alone, together);
                kernels.linear_rows(ExactRows::Float32(rows), &bias, &ids, query, &mut alone);
                alone.reverse();
                assert_eq!(alone, together);
            }
        }
    }
}

#[test]
#[should_panic]
fn an_id_that_is_no_row_panics() {
    let rows = [0.0; 4];
    Kernels::named(None).unwrap().linear_rows(
        ExactRows::Float32(MatrixView::new(&rows, 2)),
        &[0.0; 2],
        &[2],
        &[0.0; 2],
        &mut [0.0],
    );
}

#[test]
fn stored_dtypes_give_the_product_of_what_they_hold() {
    for dim in DIMS {
        let (rows, query, bias) = (numbers(9 * dim, 1), numbers(dim, 2), numbers(9, 3));
        let halves: Vec<f16> = rows.iter().map(|&value| f16::from_f32(value)).collect();
        let brains: Vec<bf16> = rows.iter().map(|&value| bf16::from_f32(value)).collect();
        let coded = coded_rows(&rows, &bias, dim);
        let code = |i: usize| f32::from(coded.view().codes.values()[i]);
        let scale = |i: usize| coded.view().meta[i / dim].scale;
        let indices = || 0..9 * dim;
        let cases = [
            (
                ExactRows::Float16(MatrixView::new(&halves, dim)),
                indices().map(|i| halves[i].to_f32()).collect::<Vec<f32>>(),
            ),
            (
                ExactRows::BFloat16(MatrixView::new(&brains, dim)),
                indices().map(|i| brains[i].to_f32()).collect(),
            ),
            (ExactRows::Int8(coded.view()), indices().map(|i| code(i) * scale(i)).collect()),
        ];
        let ids = [8, 0, 3, 3, 7, 1];
        for (stored, values) in cases {
            for kernels in Kernels::available() {
                let mut out = [0.0; 6];
                kernels.linear_rows(stored, &bias, &ids, &query, &mut out);
                for (&id, value) in ids.iter().zip(out) {
                    let id = id as usize;
                    let exact = dot(&values[id * dim..][..dim], &query) + f64::from(bias[id]);
                    let tolerance = 1e-6 * (1.0 + (dim as f64).sqrt());
                    assert!((f64::from(value) - exact).abs() < tolerance, "{kernels:?} {dim}");
                }
            }
        }
    }
}

/// Rows of codes.
fn coded_rows(rows: &[f32], bias: &[f32], dim: usize) -> CodedRows {
    let mut codes = vec![0; rows.len()];
    let rows = rows.chunks(dim).zip(codes.chunks_mut(dim)).zip(bias);
    let meta: Vec<RowMeta> =
        rows.map(|((row, codes), &bias)| RowMeta { bias, ..quantize_row(row, codes) }).collect();
    let codes = Matrix::new(Tensor::copy_of(&codes).unwrap(), dim);
    CodedRows { codes, meta: Tensor::copy_of(&meta).unwrap() }
}

/// Coded rows, as rows and as panels, and coded queries.
pub(super) fn coded(
    rows: &[f32],
    bias: &[f32],
    queries: &[f32],
    dim: usize,
) -> (CodedRows, Panels, QueryCodes) {
    let rows = coded_rows(rows, bias, dim);
    let len = panels::panel_len(dim);
    let mut packed = vec![0; rows.view().codes.rows().div_ceil(PANEL_ROWS) * len];
    let sixteen = rows.view().codes.values().chunks(PANEL_ROWS * dim);
    packed.chunks_mut(len).zip(sixteen).for_each(|(panel, codes)| {
        panels::pack_panel(codes, dim, panel);
    });
    let panels = Panels::new(Tensor::copy_of(&packed).unwrap(), rows.meta.clone(), dim);
    let mut codes = QueryCodes::default();
    codes.clear(dim);
    queries.chunks(dim).for_each(|query| codes.push(query));
    (rows, panels, codes)
}

#[test]
fn products_of_codes_are_exact_at_every_level_and_in_any_company() {
    for dim in DIMS {
        for (num_rows, num_queries) in
            [(1, 1), (16, 4), (35, 7), (70, 1), (33, 6), (52, 16), (33, 37)]
        {
            let (rows, queries) = (numbers(num_rows * dim, 1), numbers(num_queries * dim, 2));
            let bias = numbers(num_rows, 3);
            let (rows, panels, codes) = coded(&rows, &bias, &queries, dim);
            let (rows, panels, codes) = (rows.view(), panels.view(), codes.slice());
            let sum = |row: usize, query: &[i8]| -> i32 {
                let pairs = rows.codes.row(row).iter().zip(query);
                pairs.map(|(&a, &b)| i32::from(a) * i32::from(b)).sum()
            };
            let logit = |row: usize, query: usize, fine: bool| {
                let query = codes.get(query);
                let low = if fine { sum(row, query.low) } else { 0 };
                let meta = &rows.meta[row];
                let high = sum(row, query.high);
                int8::logit(high, low, query.meta, meta.scale, meta.bias)
            };
            for kernels in Kernels::available() {
                let stride = panels.len() * PANEL_ROWS;
                let mut logits = vec![f32::NAN; num_queries * stride];
                kernels.scan_panels(panels, (0, panels.len()), codes, &mut logits, stride);
                for (at, &found) in logits.iter().enumerate() {
                    let (query, row) = (at / stride, at % stride);
                    if row < num_rows {
                        assert_eq!(found, logit(row, query, true), "{kernels:?} {dim}");
                    }
                }
                let ids: Vec<u32> = (0..num_rows as u32).rev().collect();
                let (mut upper, mut lower) = (vec![0.0; num_rows], vec![0.0; num_rows]);
                for query in 0..num_queries {
                    let bounds = LogitBounds { upper: &mut upper, lower: &mut lower };
                    kernels.coded_rows(rows, &ids, codes.get(query), bounds);
                    for (i, &id) in ids.iter().enumerate() {
                        let (meta, query_meta) = (&rows.meta[id as usize], codes.get(query).meta);
                        let rounding = screen::rounding(dim);
                        let error =
                            screen::error_bound(meta, query_meta, query_meta.residual, rounding);
                        let expected = logit(id as usize, query, true);
                        assert_eq!((upper[i], lower[i]), (expected + error, expected - error));
                    }
                }
                // Rows with 1, 2, ... queries each, more than are taken at once.
                let pairs: Vec<(u32, u16)> = (0..num_rows as u32)
                    .flat_map(|row| (0..num_queries as u16).map(move |query| (row, query)))
                    .filter(|&(row, query)| u32::from(query) <= row)
                    .collect();
                let (ids, of): (Vec<u32>, Vec<u16>) = pairs.iter().copied().unzip();
                let (mut upper, mut lower) = (vec![0.0; ids.len()], vec![0.0; ids.len()]);
                let bounds = LogitBounds { upper: &mut upper, lower: &mut lower };
                kernels.coded_pairs(rows, &ids, codes, &of, bounds);
                for (i, &(row, query)) in pairs.iter().enumerate() {
                    let (row, query) = (row as usize, usize::from(query));
                    let (meta, query_meta) = (&rows.meta[row], codes.get(query).meta);
                    let residual = query_meta.coarse_residual;
                    let error =
                        screen::error_bound(meta, query_meta, residual, screen::rounding(dim));
                    let expected = logit(row, query, false);
                    assert_eq!((upper[i], lower[i]), (expected + error, expected - error));
                }
            }
        }
    }
}

#[test]
fn some_panels_are_scanned_like_all() {
    for dim in [1, 64, 65, 130] {
        for num_queries in [1, 5, 16, 37] {
            let (rows, queries) = (numbers(100 * dim, 1), numbers(num_queries * dim, 2));
            let (_, panels, codes) = coded(&rows, &numbers(100, 3), &queries, dim);
            let (panels, codes) = (panels.view(), codes.slice());
            for kernels in Kernels::available() {
                let stride = panels.len() * PANEL_ROWS;
                let mut all = vec![0.0; num_queries * stride];
                kernels.scan_panels(panels, (0, panels.len()), codes, &mut all, stride);
                for (first, end) in [(0, 1), (1, 6), (2, 4), (3, 3), (4, 7), (6, 7)] {
                    let mut some = vec![f32::NAN; num_queries * stride];
                    kernels.scan_panels(panels, (first, end), codes, &mut some, stride);
                    for (some, all) in some.chunks(stride).zip(all.chunks(stride)) {
                        let (used, unused) = some.split_at((end - first) * PANEL_ROWS);
                        assert_eq!(used, &all[first * PANEL_ROWS..end * PANEL_ROWS]);
                        assert!(unused.iter().all(|logit| logit.is_nan()), "{kernels:?} {dim}");
                    }
                }
            }
        }
    }
}

/// Numbers of all sizes, many of them at the ends of the range.
fn any_size() -> impl Strategy<Value = f32> {
    prop_oneof![
        4 => -1.0..1.0_f32,
        1 => Just(0.0),
        1 => prop::num::f32::SUBNORMAL,
        1 => -1e-30..1e-30_f32,
        1 => -1e30..1e30_f32,
        1 => -2e38..2e38_f32,
        1 => -1e-36..1e-36_f32,
        1 => prop_oneof![Just(f32::MAX), Just(f32::MIN), Just(f32::MIN_POSITIVE)],
    ]
}

/// Rows, biases and a query of one dim, of numbers of one kind each.
fn problem() -> impl Strategy<Value = (usize, Vec<f32>, Vec<f32>, Vec<f32>)> {
    (prop::sample::select(vec![1_usize, 3, 16, 63, 64, 65, 130]), 0..3_u8).prop_flat_map(
        |(dim, kind)| {
            let values = move |len: usize| match kind {
                0 => prop::collection::vec((-1.0..1.0_f32).boxed(), len),
                1 => prop::collection::vec((-1e-3..1e-3_f32).boxed(), len),
                _ => prop::collection::vec(any_size().boxed(), len),
            };
            (Just(dim), values(5 * dim), values(5), values(dim))
        },
    )
}

proptest! {
    #[test]
    fn exact_logits_lie_between_the_bounds((dim, rows, bias, query) in problem()) {
        let (coded, _, codes) = coded(&rows, &bias, &query, dim);
        let ids = [0, 1, 2, 3, 4];
        for kernels in Kernels::available() {
            let (mut exact, mut upper, mut lower) = ([0.0; 5], [0.0; 5], [0.0; 5]);
            let stored = ExactRows::Float32(MatrixView::new(&rows, dim));
            kernels.linear_rows(stored, &bias, &ids, &query, &mut exact);
            let bounds = LogitBounds { upper: &mut upper, lower: &mut lower };
            kernels.coded_rows(coded.view(), &ids, codes.slice().get(0), bounds);
            for i in 0..5 {
                // Sums that overflow leave nothing to compare; then nothing may be left out either.
                if exact[i].is_finite() {
                    prop_assert!((lower[i]..=upper[i]).contains(&exact[i]), "{}", exact[i]);
                } else {
                    prop_assert!(upper[i] == f32::INFINITY || lower[i] == f32::NEG_INFINITY);
                }
            }
            let bounds = LogitBounds { upper: &mut upper, lower: &mut lower };
            kernels.coded_pairs(coded.view(), &ids, codes.slice(), &[0; 5], bounds);
            for i in 0..5 {
                prop_assert!(!exact[i].is_finite() || (lower[i]..=upper[i]).contains(&exact[i]));
            }
            // Codes are their own exact rows where there are no others: then rows have no residual.
            let mut own = coded.view().meta.to_vec();
            own.iter_mut().for_each(|meta| meta.residual = 0.0);
            let own = CodedRows { codes: coded.codes.clone(), meta: Tensor::copy_of(&own).unwrap() };
            kernels.linear_rows(ExactRows::Int8(own.view()), &bias, &ids, &query, &mut exact);
            let bounds = LogitBounds { upper: &mut upper, lower: &mut lower };
            kernels.coded_rows(own.view(), &ids, codes.slice().get(0), bounds);
            for i in 0..5 {
                prop_assert!(!exact[i].is_finite() || (lower[i]..=upper[i]).contains(&exact[i]));
            }
        }
    }
}

#[test]
fn exp_is_within_two_ulp() {
    fn worst<V: generic::Vector>() -> f64 {
        let mut worst = 0.0_f64;
        let mut x = 0.0_f32;
        while x > -87.3 {
            let exact = f64::from(x).exp();
            let below = exact as f32;
            let ulp = f64::from(f32::from_bits(below.to_bits() + 1)) - f64::from(below);
            worst = worst.max((f64::from(exp::<V>(x)) - exact).abs() / ulp);
            x -= 0.000_37;
        }
        worst
    }
    #[derive(Clone, Copy)]
    struct Fused(Portable);
    // SAFETY contract of the trait: everything is forwarded to the portable vector.
    impl generic::Vector for Fused {
        const LANES: usize = Portable::LANES;
        const FUSED: bool = true;
        const TILE_QUERIES: usize = 1;
        unsafe fn zero() -> Self {
            // SAFETY: the portable vector needs no instruction set.
            Self(unsafe { Portable::zero() })
        }
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: as promised by the caller.
            Self(unsafe { Portable::load(from) })
        }
        unsafe fn load_partial(from: *const f32, count: usize) -> Self {
            // SAFETY: as promised by the caller.
            Self(unsafe { Portable::load_partial(from, count) })
        }
        unsafe fn load_bf16(from: *const bf16) -> Self {
            // SAFETY: as promised by the caller.
            Self(unsafe { Portable::load_bf16(from) })
        }
        unsafe fn load_f16(from: *const f16) -> Self {
            // SAFETY: as promised by the caller.
            Self(unsafe { Portable::load_f16(from) })
        }
        unsafe fn load_i8(from: *const i8) -> Self {
            // SAFETY: as promised by the caller.
            Self(unsafe { Portable::load_i8(from) })
        }
        unsafe fn mul_add(self, a: Self, b: Self) -> Self {
            // SAFETY: the portable vector needs no instruction set.
            Self(unsafe { self.0.mul_add(a.0, b.0) })
        }
        unsafe fn sum(self) -> f32 {
            // SAFETY: the portable vector needs no instruction set.
            unsafe { self.0.sum() }
        }
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: as promised by the caller.
            unsafe { self.0.store(to) }
        }
        unsafe fn clear_above(self, bits: u32, values: Self, threshold: f32) -> Self {
            // SAFETY: the portable vector needs no instruction set.
            Self(unsafe { self.0.clear_above(bits, values.0, threshold) })
        }
        unsafe fn add_of_highest_bit(self, bits: Self, table: &[f32; 16]) -> Self {
            // SAFETY: the portable vector needs no instruction set.
            Self(unsafe { self.0.add_of_highest_bit(bits.0, table) })
        }
    }
    assert!(worst::<Portable>() <= 2.0, "{}", worst::<Portable>());
    assert!(worst::<Fused>() <= 2.0, "{}", worst::<Fused>());
}

#[test]
fn exp_ends_well() {
    assert_eq!(exp::<Portable>(0.0), 1.0);
    assert_eq!(exp::<Portable>(-0.0), 1.0);
    assert_eq!(exp::<Portable>(-200.0), 0.0);
    assert_eq!(exp::<Portable>(f32::MIN), 0.0);
    let subnormal = exp::<Portable>(-100.0);
    assert!((f64::from(subnormal) - (-100.0_f64).exp()).abs() < 1.5e-45);
}

#[test]
fn cluster_scores_are_a_clamped_softmax() {
    for (len, spread, alpha) in [
        (1, 1.0, 10.0),
        (5, 30.0, 10.0),
        (33, 200.0, 0.5),
        (8_192, 3.0, 10.0),
        (131_072, 4.0, 10.0),
    ] {
        let logits: Vec<f32> = numbers(len, 9).iter().map(|z| z * spread + 500.0).collect();
        let max = logits.iter().copied().fold(f32::MIN, f32::max);
        let exact: Vec<f64> =
            logits.iter().map(|&z| (f64::from(z) - f64::from(max)).exp()).collect();
        let total: f64 = exact.iter().sum();
        for kernels in Kernels::available() {
            let mut scores = logits.clone();
            kernels.cluster_scores(&mut scores, alpha);
            for (&score, exact) in scores.iter().zip(&exact) {
                let exact = (alpha * exact / total).min(1.0);
                let error = (f64::from(score) - exact).abs();
                assert!(error <= 1e-6 * exact + 1e-44, "{kernels:?} {len}: {score} {exact}");
            }
        }
    }
}

#[test]
fn cluster_scores_survive_any_logits_and_alphas() {
    for alpha in [1e-300, 1e-40, 1.0, 1e30, 1e300] {
        for logits in [
            vec![f32::INFINITY, 0.0, f32::NEG_INFINITY, f32::NAN],
            vec![f32::NAN; 40],
            vec![f32::NEG_INFINITY; 3],
            vec![f32::MAX, f32::MIN],
        ] {
            for kernels in Kernels::available() {
                let mut scores = logits.clone();
                kernels.cluster_scores(&mut scores, alpha);
                assert!(scores.iter().all(|score| (0.0..=1.0).contains(score)), "{scores:?}");
            }
        }
    }
}

#[test]
fn final_scores_are_path_score_times_sigmoid() {
    let logits: Vec<f32> = (-1100..=1100).map(|z| z as f32 / 10.0).collect();
    let path_scores: Vec<f32> = numbers(logits.len(), 4).iter().map(|s| s.abs()).collect();
    for kernels in Kernels::available() {
        let mut scores = logits.clone();
        kernels.final_scores(&mut scores, &path_scores);
        for ((&score, &z), &s) in scores.iter().zip(&logits).zip(&path_scores) {
            let exact = f64::from(s) / (1.0 + (-f64::from(z)).exp());
            assert!((f64::from(score) - exact).abs() <= 1e-6 * exact + 3e-45, "{kernels:?} {z}");
        }
        let mut extreme = vec![f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::MAX, f32::MIN];
        kernels.final_scores(&mut extreme, &[0.5; 5]);
        assert_eq!(extreme, [0.5, 0.0, 0.0, 0.5, 0.0]);
    }
}

/// Prints how fast each level is: `cargo test --release -p elias-idx -- --ignored --nocapture speed`.
#[test]
#[ignore = "a timing"]
fn speed() {
    let (dim, num_rows, num_queries) = (768, 2048, 16);
    let (rows, queries) = (numbers(num_rows * dim, 1), numbers(num_queries * dim, 2));
    let views = (MatrixView::new(&rows, dim), MatrixView::new(&queries, dim));
    let mut out = vec![0.0; num_rows * num_queries];
    let mut best = |what: &str, unit: f64, run: &mut dyn FnMut(&mut [f32])| {
        let seconds = (0..20).map(|_| {
            let start = std::time::Instant::now();
            run(&mut out);
            start.elapsed().as_secs_f64()
        });
        println!("{what}: {:.2} ns", seconds.fold(f64::MAX, f64::min) / unit * 1e9);
    };
    let ids: Vec<u32> = (0..num_rows as u32).collect();
    let bias = vec![0.0; num_rows];
    for kernels in Kernels::available() {
        let level = kernels.level;
        best(
            &format!("{level:?} batched dot product"),
            (num_rows * num_queries) as f64,
            &mut |out| {
                kernels.linear(views.0, None, views.1, out);
            },
        );
        best(&format!("{level:?} dot product"), num_rows as f64, &mut |out| {
            kernels.linear_rows(
                ExactRows::Float32(views.0),
                &bias,
                &ids,
                &queries[..dim],
                &mut out[..num_rows],
            );
        });
        best(&format!("{level:?} cluster score"), (num_rows * num_queries) as f64, &mut |out| {
            kernels.cluster_scores(out, 10.0);
        });
    }
}
