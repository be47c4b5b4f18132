//! The arithmetic of training at every level, against naive loops in f64.

use half::bf16;
use proptest::prelude::*;

use super::tests::numbers;
use super::*;

const DIMS: [usize; 8] = [1, 7, 16, 31, 64, 65, 100, 768];

/// Within float rounding of sums of `len` products.
fn close(found: f32, expected: f64, len: usize) -> bool {
    (f64::from(found) - expected).abs()
        < 1e-6 * (1.0 + expected.abs()) * (1.0 + (len as f64).sqrt())
}

#[test]
fn a_row_s_dots_are_those_with_each_query() {
    for dim in DIMS {
        let (row, queries) = (numbers(dim, 1), numbers(9 * dim, 2));
        let half_row: Vec<bf16> = row.iter().map(|&value| bf16::from_f32(value)).collect();
        let widened: Vec<f32> = half_row.iter().map(|value| value.to_f32()).collect();
        let queries = MatrixView::new(&queries, dim);
        let ids = [8, 0, 3, 3, 7, 1, 2];
        for kernels in Kernels::available() {
            for (values, exact) in
                [(RowValues::Float32(&row), &row), (RowValues::BFloat16(&half_row), &widened)]
            {
                let mut out = [f32::NAN; 7];
                kernels.row_dots(values, queries, &ids, &mut out);
                for (found, &id) in out.iter().zip(&ids) {
                    let products = exact.iter().zip(queries.row(id as usize));
                    let expected = products.map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
                    assert!(close(*found, expected, dim), "{kernels:?} {dim}");
                }
            }
        }
    }
}

fn irrelevant(kernels: Kernels, logits: &[f32], paths: &[f32]) -> [Vec<f32>; 3] {
    let mut out = [(); 3].map(|()| vec![0.0; logits.len()]);
    let [losses, by_logit, by_path] = &mut out;
    kernels.irrelevant_pairs(logits, paths, PairLosses { losses, by_logit, by_path });
    out
}

proptest! {
    #[test]
    fn losses_and_their_derivatives_are_exact(
        pairs in prop::collection::vec(
            (-60.0..60.0_f32, prop_oneof![0.0..=1.0_f32, Just(0.0), Just(1.0), Just(1e-30), 0.9999..=1.0_f32]),
            1..70,
        ),
    ) {
        let (logits, paths): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
        for kernels in Kernels::available() {
            let [losses, by_logit, by_path] = irrelevant(kernels, &logits, &paths);
            for (at, (&z, &s)) in logits.iter().zip(&paths).enumerate() {
                let (z, s) = (f64::from(z), f64::from(s));
                // 1 − p = (1 − s + e^−z) / (1 + e^−z), and both factors are sums of positive numbers.
                let rest = (1.0 - s) + (-z).exp();
                let expected = [
                    (s / rest).ln_1p(),
                    s / rest / (1.0 + z.exp()),
                    if s < 1.0 { 1.0 / rest } else { 0.0 },
                ];
                for (found, expected) in [losses[at], by_logit[at], by_path[at]].into_iter().zip(expected) {
                    let error = (f64::from(found) - expected).abs();
                    prop_assert!(error <= 4e-6 * expected.abs() + 1e-37, "{:?} {} {}: {} {}", kernels, z, s, found, expected);
                }
            }
        }
    }
}

#[test]
fn losses_of_huge_logits_go_on_growing_and_others_show() {
    for kernels in Kernels::available() {
        let logits = [200.0, 1e6, 200.0, -1e6, f32::NAN, f32::INFINITY];
        let [losses, by_logit, by_path] =
            irrelevant(kernels, &logits, &[1.0, 1.0, 0.5, 1.0, 0.5, 1.0]);
        assert_eq!(losses[..2], [200.0, 1e6]);
        assert!((losses[2] - 2.0_f32.ln()).abs() < 1e-6);
        assert!(losses[3] < 1e-30);
        assert!(losses[4..].iter().all(|loss| !loss.is_finite()));
        assert!((by_logit[0] - 1.0).abs() < 1e-6);
        assert!(by_logit.iter().chain(&by_path).all(|value| value.is_finite()));
    }
}

#[test]
fn pairs_add_to_both_gradients() {
    for dim in DIMS {
        let (row, values) = (numbers(dim, 1), numbers(5 * dim, 2));
        let queries = MatrixView::new(&values, dim);
        let pairs = [(4, 0.5), (0, -2.0), (4, 0.25)];
        for kernels in Kernels::available() {
            let (mut gradient, mut sums) = (numbers(dim, 3), numbers(5 * dim, 4));
            let (gradient_before, sums_before) = (gradient.clone(), sums.clone());
            kernels.add_pairs(&row, queries, &pairs, &mut gradient, &mut sums);
            for d in 0..dim {
                let value = |q: usize| f64::from(queries.row(q)[d]);
                let expected = f64::from(gradient_before[d]) + 0.75 * value(4) - 2.0 * value(0);
                assert!(close(gradient[d], expected, 4), "{kernels:?} {dim}");
                for (q, factor) in [(0, -2.0), (1, 0.0), (4, 0.75)] {
                    let expected = f64::from(sums_before[q * dim + d]) + factor * f64::from(row[d]);
                    assert!(close(sums[q * dim + d], expected, 4), "{kernels:?} {dim}");
                }
            }
            let mut sum = gradient_before.clone();
            kernels.add_scaled(-1.5, &row, &mut sum);
            let square = gradient_before.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>();
            assert!(close(kernels.mean_square(&gradient_before), square / dim as f64, dim));
            for ((sum, before), row) in sum.iter().zip(gradient_before).zip(&row) {
                assert!(close(*sum, f64::from(before) - 1.5 * f64::from(*row), 2));
            }
        }
    }
}

#[test]
fn bfloat16_rows_move_to_a_neighbour_of_the_exact_result() {
    for dim in DIMS {
        let (start, first, gradient) = (numbers(dim, 1), numbers(dim, 2), numbers(dim, 3));
        let halves = |values: &[f32]| values.iter().map(|&v| bf16::from_f32(v)).collect::<Vec<_>>();
        for kernels in Kernels::available() {
            let (mut weight, mut momentum) = (halves(&start), halves(&first));
            let (old_weight, old_momentum) = (weight.clone(), momentum.clone());
            let rounding = Rounding(dim as u32);
            let row =
                MomentRow::BFloat16 { weight: &mut weight, momentum: &mut momentum, rounding };
            kernels.update_row(row, &gradient, 0.1, 0.25);
            for d in 0..dim {
                let old = f64::from(old_momentum[d].to_f32());
                let new = old + 0.1 * (f64::from(gradient[d]) - old);
                let moved = f64::from(old_weight[d].to_f32()) - 0.25 * new;
                for (found, exact) in [(momentum[d], new), (weight[d], moved)] {
                    let error = (f64::from(found.to_f32()) - exact).abs();
                    assert!(error <= exact.abs() / 128.0 + 1e-6, "{kernels:?} {dim}");
                }
            }
        }
    }
}

#[test]
fn the_softmax_s_gradient_is_its_derivative() {
    for len in [1, 2, 31, 32, 33, 500] {
        let logits: Vec<f32> = numbers(len, 1).iter().map(|value| 3.0 * value).collect();
        let weights = numbers(len, 2);
        let scale = 0.4 * len as f64;
        // min(1, scale · softmax) · weights, and its numeric derivative.
        let capped = |logits: &[f64]| -> f64 {
            let sum: f64 = logits.iter().map(|logit| logit.exp()).sum();
            let scaled = logits.iter().map(|logit| (scale * logit.exp() / sum).min(1.0));
            scaled.zip(&weights).map(|(a, &w)| a * f64::from(w)).sum()
        };
        let exact: Vec<f64> = logits.iter().map(|&logit| f64::from(logit)).collect();
        for kernels in Kernels::available() {
            let (mut scaled, mut gradient) = (logits.clone(), weights.clone());
            kernels.scaled_softmax(&mut scaled, scale);
            kernels.softmax_gradient(&scaled, scale as f32, &mut gradient);
            for d in 0..len {
                let (mut up, mut down) = (exact.clone(), exact.clone());
                up[d] += 1e-6;
                down[d] -= 1e-6;
                let expected = (capped(&up) - capped(&down)) / 2e-6;
                assert!((f64::from(gradient[d]) - expected).abs() < 1e-5, "{kernels:?} {len}");
            }
        }
    }
}
