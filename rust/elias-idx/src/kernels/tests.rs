//! Every level is held to the same naive sums in f64.

use super::generic::exp;
use super::*;

/// Numbers that look random, the same in every run.
fn numbers(len: usize, seed: u64) -> Vec<f32> {
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

const DIMS: [usize; 10] = [1, 2, 7, 16, 31, 63, 64, 65, 100, 768];

#[test]
fn levels_are_found() {
    let levels = Kernels::available();
    assert_eq!(levels[0].level, Level::Portable);
    assert_eq!(levels.last().unwrap().level, Kernels::detect().level);
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
                kernels.linear_rows(rows, &bias, &ids, query, &mut alone);
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
    Kernels::detect().linear_rows(
        MatrixView::new(&rows, 2),
        &[0.0; 2],
        &[2],
        &[0.0; 2],
        &mut [0.0],
    );
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
        unsafe fn mul_add(self, a: Self, b: Self) -> Self {
            // SAFETY: the portable vector needs no instruction set.
            Self(unsafe { self.0.mul_add(a.0, b.0) })
        }
        unsafe fn sum(self) -> f32 {
            // SAFETY: the portable vector needs no instruction set.
            unsafe { self.0.sum() }
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
            kernels.linear_rows(views.0, &bias, &ids, &queries[..dim], &mut out[..num_rows]);
        });
        best(&format!("{level:?} cluster score"), (num_rows * num_queries) as f64, &mut |out| {
            kernels.cluster_scores(out, 10.0);
        });
    }
}
