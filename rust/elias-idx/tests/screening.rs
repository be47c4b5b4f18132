//! Screened searches on data of all kinds, in indexes large enough that every path runs: the same bits
//! however queries come, and the same results as without codes but for the softmax's denominator.

mod common;

use std::fmt::Debug;
use std::process::{Command, Output};
use std::str::FromStr;

use common::{Model, Numbers};
use elias_idx::{Dtype, Hits, Index, SearchOptions};

/// By how much, relatively, the denominator may be off: three standard deviations where it is worst.
const DENOMINATOR: f64 = 1e-3;
/// Five standard deviations: one query in millions.
const WORST_DENOMINATOR: f64 = 5.0 / 3.0 * DENOMINATOR;

/// What rows are like.
#[derive(Debug, Clone, Copy)]
enum Rows {
    Random,
    /// The first dimensions carry most, as after training.
    Decaying,
    /// One number of a row is far above the others, whose codes are coarse.
    Outliers,
    /// A few rows have outliers, the others are random.
    FewOutliers,
    /// Every third row is zeros.
    Zeros,
    /// All rows are one of three.
    Equal,
    /// Rows are of magnitudes from subnormal to large.
    Scales,
    /// Nothing is negative, and most of it is small beside the largest: codes are mostly 0 and 1.
    Positive,
}

const ALL_ROWS: [Rows; 8] = [
    Rows::Random,
    Rows::Decaying,
    Rows::Outliers,
    Rows::FewOutliers,
    Rows::Zeros,
    Rows::Equal,
    Rows::Scales,
    Rows::Positive,
];

impl Rows {
    /// Rows \[R, D\] whose products with random queries spread by about `spread`.
    fn make(self, numbers: &mut Numbers, num_rows: usize, dim: usize, spread: f32) -> Vec<f32> {
        let unit = spread * 3.0 / (dim as f32).sqrt();
        let mut rows = numbers.vec(num_rows * dim);
        rows.iter_mut().for_each(|value| *value *= unit);
        for (r, row) in rows.chunks_mut(dim).enumerate() {
            let at = (numbers.bits() % dim as u64) as usize;
            match self {
                Self::Random => {}
                Self::Decaying => {
                    let decay = |i: usize| (8.0 / (1.0 + i as f32)).min(1.0);
                    row.iter_mut().enumerate().for_each(|(i, value)| *value *= decay(i));
                }
                Self::Outliers => row[at] = 8.0 * unit * row[at].signum(),
                Self::FewOutliers if r % 97 == 5 => row[at] = 30.0 * unit,
                Self::Zeros if r % 3 == 0 => row.fill(0.0),
                Self::FewOutliers | Self::Zeros => {}
                Self::Equal => {
                    *numbers = Numbers::new(r as u64 % 3);
                    row.iter_mut().for_each(|value| *value = unit * numbers.next());
                }
                Self::Positive => {
                    // Fewer are the larger: the largest of a row are eight times as large as most.
                    row.iter_mut().for_each(|value| *value = unit * (value.abs() / unit).powi(8));
                }
                Self::Scales => {
                    let scale = [1.0, 1e-42, 1e-38, 1e-20, 1e-3, 0.5, 2.0][r % 7];
                    row.iter_mut().for_each(|value| *value *= scale);
                }
            }
        }
        rows
    }
}

/// Sizes of an index.
#[derive(Debug, Clone, Copy)]
struct Shape {
    dim: usize,
    /// D', 0 without a projection.
    label_dim: usize,
    num_clusters: usize,
    num_labels: usize,
    edges: usize,
}

const SHAPE: Shape =
    Shape { dim: 65, label_dim: 0, num_clusters: 200, num_labels: 3000, edges: 150 };

/// A model whose cluster logits spread by about `spread`, and label logits by 2.
fn model(shape: Shape, kind: Rows, spread: f32) -> Model {
    let Shape { dim, label_dim, num_clusters, num_labels, edges } = shape;
    let mut model = Model::random(17, dim, num_clusters, num_labels, edges);
    let mut numbers = Numbers::new(23);
    if label_dim > 0 {
        model = model.with_projection(5, label_dim);
        let unit = 1.0 / (dim as f32).sqrt();
        model
            .label_projection
            .iter_mut()
            .flatten()
            .for_each(|value| *value *= 3.0_f32.sqrt() * unit);
    }
    model.cluster_weights = kind.make(&mut numbers, num_clusters, dim, spread);
    model.label_weights = kind.make(&mut numbers, num_labels, model.label_dim, 2.0);
    model
}

/// Random queries, the fifth of each ten zeros, the eighth tiny, and the even ones led by the first
/// dimensions.
fn queries(num: usize, dim: usize) -> Vec<f32> {
    let mut queries = Numbers::new(31).vec(num * dim);
    for query in queries.chunks_mut(2 * dim) {
        let first = query[..dim].iter_mut().enumerate();
        first.for_each(|(i, value)| *value *= 2.0 * (8.0 / (1.0 + i as f32)).min(1.0));
    }
    for (i, query) in queries.chunks_mut(dim).enumerate() {
        match i % 10 {
            4 => query.fill(0.0),
            7 => query.iter_mut().for_each(|value| *value *= 1e-40),
            _ => {}
        }
    }
    queries
}

fn options(shortlist_size: usize, num_threads: usize) -> SearchOptions<'static> {
    SearchOptions {
        beam_size: Some(20),
        shortlist_size: Some(shortlist_size),
        num_threads: Some(num_threads),
        ..SearchOptions::default()
    }
}

fn search(index: &Index, queries: &[f32], k: usize, options: &SearchOptions<'_>) -> Hits {
    index.search(queries, k, options, &mut || false).unwrap()
}

/// Searches for `queries` in batches of `size`.
fn search_split(
    index: &Index,
    queries: &[f32],
    k: usize,
    options: &SearchOptions<'_>,
    size: usize,
) -> Hits {
    let parts = queries.chunks(size * index.dim()).map(|part| search(index, part, k, options));
    let mut whole = Hits { width: k, ids: Vec::new(), scores: Vec::new() };
    for part in parts {
        whole.ids.extend(part.ids);
        whole.scores.extend(part.scores);
    }
    whole
}

/// Results as bits, so that they can be compared whatever they are.
fn bits(hits: &Hits) -> Vec<(i64, u32)> {
    hits.ids.iter().copied().zip(hits.scores.iter().map(|score| score.to_bits())).collect()
}

fn assert_one_result(index: &Index, queries: &[f32], k: usize, shortlist_size: usize, what: &str) {
    let whole = search(index, queries, k, &options(shortlist_size, 1));
    let threaded = search(index, queries, k, &options(shortlist_size, 4));
    assert!(bits(&threaded) == bits(&whole), "{what}: threads");
    let few = &queries[..queries.len().min(260 * index.dim())];
    for size in [1, 2, 47, 48, 49, 130] {
        for num_threads in [1, 4] {
            let options = options(shortlist_size, num_threads);
            let split = search_split(index, few, k, &options, size);
            assert!(
                bits(&split)[..] == bits(&whole)[..split.ids.len()],
                "{what}: batches of {size}"
            );
        }
    }
}

#[test]
fn batches_splits_and_threads_change_no_bit_of_any_data() {
    for kind in ALL_ROWS {
        for label_dim in [0, 33] {
            let index = model(Shape { label_dim, ..SHAPE }, kind, 3.0).build();
            let queries = queries(2100, SHAPE.dim);
            assert_one_result(&index, &queries, 10, 400, &format!("{kind:?} {label_dim}"));
        }
    }
}

#[test]
fn batches_splits_and_threads_change_no_bit_in_any_dtype() {
    let model = model(SHAPE, Rows::Random, 3.0);
    for dtype in Dtype::ALL {
        for screen in [true, false] {
            let index = model.build_as(dtype, screen, None);
            let queries = queries(260, SHAPE.dim);
            assert_one_result(&index, &queries, 10, 400, &format!("{dtype} {screen}"));
        }
    }
}

#[test]
fn batches_splits_and_threads_change_no_bit_at_any_k() {
    let index = model(SHAPE, Rows::Random, 3.0).build();
    let queries = queries(130, SHAPE.dim);
    for k in [1, 10, 132, 133, 134, 400, SHAPE.num_labels] {
        assert_one_result(&index, &queries, k, 400, &format!("k = {k}"));
    }
}

#[test]
fn batches_splits_and_threads_change_no_bit_at_any_dim() {
    for dim in [1, 7, 63, 64, 100, 768, 1024] {
        // Enough for the threads to share a single query where there are many dimensions.
        let num_clusters = if dim > 700 { 1000 } else { 17 };
        let shape = Shape { dim, num_clusters, ..SHAPE };
        let index = model(shape, Rows::Random, 3.0).build();
        assert_one_result(&index, &queries(130, dim), 10, 700, &format!("dim {dim}"));
    }
}

#[test]
fn batches_splits_and_threads_change_no_bit_with_few_or_many_of_anything() {
    for num_clusters in [1, 15, 16, 17] {
        let shape = Shape { num_clusters, ..SHAPE };
        let index = model(shape, Rows::Random, 3.0).build();
        assert_one_result(&index, &queries(130, shape.dim), 10, 400, &format!("{shape:?}"));
    }
    // So many labels that few of a batch are near one another.
    let shape = Shape { dim: 7, num_clusters: 300, num_labels: 300_000, edges: 100, ..SHAPE };
    let index = model(shape, Rows::Random, 3.0).build();
    assert_one_result(&index, &queries(130, shape.dim), 5, 60, &format!("{shape:?}"));
}

/// The scores of a query's beam that weren't cut to 1 divided by those without codes: one number.
fn denominator_ratio(screened: &[f32], exact: &[f32]) -> Option<f64> {
    let pairs = || screened.iter().zip(exact).filter(|pair| (1e-30..1.0).contains(pair.1));
    let ratio = |pair: (&f32, &f32)| f64::from(*pair.0) / f64::from(*pair.1);
    let first = pairs().map(ratio).next()?;
    for pair in pairs().filter(|pair| *pair.0 < 1.0) {
        assert!((ratio(pair) / first - 1.0).abs() <= 1e-5, "{pair:?} is not {first} to one");
    }
    Some(first)
}

/// Whether scores are those of `exact` times `ratio`, and ids the same, where scores aren't within `tie`
/// of each other, relatively, so that rounding orders them.
fn same_order(screened: &Hits, exact: &Hits, ratio: f64, tie: f64) -> bool {
    let close = |a: f32, b: f32| (f64::from(a) - f64::from(b)).abs() <= tie * f64::from(b);
    let k = exact.width;
    (0..k).all(|at| {
        let expected = exact.scores[at];
        let tied = (0..k).filter(|&other| close(exact.scores[other], expected));
        let score = f64::from(screened.scores[at]);
        let as_expected = (score - ratio * f64::from(expected)).abs()
            <= 1e-5 * score + f64::from(f32::MIN_POSITIVE);
        let last = close(exact.scores[k - 1], expected) || expected < f32::MIN_POSITIVE;
        as_expected && (last || tied.clone().any(|other| exact.ids[other] == screened.ids[at]))
    })
}

/// Compares a screened index to the same one without codes, query by query; the denominator's worst
/// relative error.
fn compare(model: &Model, dtype: Dtype, queries: &[f32], k: usize, what: &str) -> f64 {
    let screened = model.build_as(dtype, true, None);
    let exact = model.build_as(dtype, false, None);
    let options = options(400, 2);
    let never = &mut || false;
    let mut worst = 0.0_f64;
    let mut compared = 0;
    // Together, so that labels are screened label by label where there are many queries.
    let all = search(&screened, queries, k, &options);
    for (i, query) in queries.chunks(model.dim).enumerate() {
        let beams = [&screened, &exact].map(|index| index.beam(query, &options, never).unwrap());
        let shortlists =
            [&screened, &exact].map(|index| index.shortlist(query, &options, never).unwrap());
        let ratio = denominator_ratio(&beams[0].scores, &beams[1].scores).unwrap_or(1.0);
        worst = worst.max((ratio - 1.0).abs());
        let rank_by_rank = |screened: &[f32], exact: &[f32]| {
            screened.iter().zip(exact).all(|(&a, &b)| {
                let error = (f64::from(a) - f64::from(b)).abs();
                error <= 2.0 * DENOMINATOR * f64::from(b) + f64::from(f32::MIN_POSITIVE)
            })
        };
        assert!(rank_by_rank(&beams[0].scores, &beams[1].scores), "{what}: beam of query {i}");
        let row = i * k..(i + 1) * k;
        let found =
            Hits { width: k, ids: all.ids[row.clone()].to_vec(), scores: all.scores[row].to_vec() };
        let expected = search(&exact, query, k, &options);
        if beams.iter().all(|beam| beam.scores[0] < 1.0) {
            compared += 1;
            assert!(same_order(&beams[0], &beams[1], ratio, 1e-6), "{what}: beam of query {i}");
            assert!(
                same_order(&shortlists[0], &shortlists[1], ratio, 1e-6),
                "{what}: shortlist of {i}"
            );
            assert!(same_order(&found, &expected, ratio, 1e-6), "{what}: results of query {i}");
        } else if beams[0].ids == beams[1].ids && shortlists[0].ids == shortlists[1].ids {
            // Which clusters and labels tie at 1 may hang on the denominator.
            compared += 1;
            assert!(rank_by_rank(&found.scores, &expected.scores), "{what}: results of query {i}");
        }
    }
    assert!(2 * compared > queries.len() / model.dim, "{what}: {compared} were compared");
    worst
}

#[test]
fn results_are_those_without_codes_but_for_the_denominator() {
    for kind in ALL_ROWS {
        for spread in [0.01, 0.3, 3.0, 20.0] {
            for alpha in [1e-20, 0.9, 10.0, 1e6] {
                let mut model = model(SHAPE, kind, spread);
                model.alpha = alpha;
                let what = format!("{kind:?}, spread {spread}, alpha {alpha}");
                let worst = compare(&model, Dtype::Float32, &queries(60, SHAPE.dim), 10, &what);
                assert!(worst <= WORST_DENOMINATOR, "{what}: {worst}");
            }
        }
    }
}

#[test]
fn results_are_those_without_codes_in_any_dtype_and_dim() {
    for (dim, label_dim) in [(1, 0), (7, 33), (63, 0), (65, 9), (100, 0), (768, 100), (1024, 0)] {
        for num_clusters in [1, 15, 16, 17, 1000] {
            let shape = Shape { dim, label_dim, num_clusters, num_labels: 1000, ..SHAPE };
            let mut model = model(shape, Rows::Random, 3.0);
            model.alpha = 0.9;
            for dtype in Dtype::ALL {
                let what = format!("{dtype} {shape:?}");
                let worst = compare(&model, dtype, &queries(8, dim), 10, &what);
                assert!(worst <= WORST_DENOMINATOR, "{what}: {worst}");
            }
        }
    }
}

/// The relative errors of the denominator for queries none of whose clusters is cut to 1.
fn denominator_errors(model: &Model, queries: &[f32]) -> Vec<f64> {
    let [screened, exact] = [true, false].map(|screen| {
        let index = model.build_as(Dtype::Float32, screen, None);
        index.beam(queries, &options(1, 2), &mut || false).unwrap()
    });
    let beams = screened.scores.chunks(screened.width).zip(exact.scores.chunks(exact.width));
    let ratios = beams.filter_map(|(a, b)| denominator_ratio(a, b));
    ratios.map(|ratio| (ratio - 1.0).abs()).collect()
}

#[test]
fn the_denominator_is_right_where_nothing_is_negative() {
    for dim in [64, 256, 768] {
        let shape = Shape { dim, num_clusters: 1000, ..SHAPE };
        for spread in [1.0, 5.0] {
            let model = model(shape, Rows::Positive, spread);
            let mut queries = Numbers::new(37).vec(50 * dim);
            queries.iter_mut().for_each(|value| *value = value.abs());
            for error in denominator_errors(&model, &queries) {
                assert!(error <= WORST_DENOMINATOR, "{error} at {dim}, {spread}");
            }
        }
    }
}

#[test]
fn beams_of_tiny_and_huge_logits_are_those_without_codes() {
    let (num_clusters, dim) = (300, 16);
    let mut model = Model::random(41, dim, num_clusters, 50, 10);
    for alpha in [10.0, 0.5, 1e-38, 1e-43] {
        model.alpha = alpha;
        let screened = model.build_as(Dtype::Float32, true, None);
        let exact = model.build_as(Dtype::Float32, false, None);
        for magnitude in [1e-8, 1e-5, 1.0, 1e2, 1e3, 1e4, 1e5] {
            let mut queries = Numbers::new(43).vec(200 * dim);
            queries.iter_mut().for_each(|value| *value *= magnitude);
            for size in [1, 2, 5, 20] {
                let options = SearchOptions { beam_size: Some(size), ..options(10, 1) };
                let found = screened.beam(&queries, &options, &mut || false).unwrap();
                let expected = exact.beam(&queries, &options, &mut || false).unwrap();
                assert_eq!(found.ids, expected.ids, "α {alpha}, × {magnitude}, B {size}");
                for (found, expected) in found.scores.iter().zip(&expected.scores) {
                    let error = (f64::from(*found) - f64::from(*expected)).abs();
                    assert!(error <= 2e-3 * f64::from(*expected) + 3e-45, "{found} {expected}");
                }
            }
        }
    }
}

#[test]
fn the_denominator_is_right_to_a_thousandth() {
    let mut errors = Vec::new();
    for kind in ALL_ROWS {
        for (dim, num_clusters) in [(16, 10_000), (64, 3000), (768, 1000)] {
            for spread in [0.05, 0.3, 1.0, 3.0, 10.0] {
                let shape = Shape { dim, num_clusters, num_labels: 1, edges: 1, ..SHAPE };
                let mut model = model(shape, kind, spread);
                model.alpha = 0.9;
                let worst = errors.len();
                errors.extend(denominator_errors(&model, &queries(40, dim)));
                let worst = errors[worst..].iter().copied().fold(0.0, f64::max);
                println!("{kind:?}, D = {dim}, C = {num_clusters}, spread {spread}: {worst:.1e}");
                assert!(worst <= WORST_DENOMINATOR, "{worst:.1e} for {kind:?} {shape:?} {spread}");
            }
        }
    }
    assert!(errors.iter().any(|&error| error > 1e-6), "nothing was screened");
    let beyond = errors.iter().filter(|&&error| error > DENOMINATOR).count();
    assert!(beyond as f64 <= 0.003 * errors.len() as f64, "{beyond} of {}", errors.len());
}

/// What the child of [`levels_agree`] is told by.
const CHILD: &str = "ELIAS_IDX_TEST_CHILD";

/// Runs the test of this name in a process of its own, at a level; what it prints.
fn at_level(test: &str, level: &str) -> Output {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env("ELIAS_IDX_ISA", level)
        .env(CHILD, "1")
        .output()
        .unwrap()
}

/// Results of a few searches at this process's level, one after the other.
fn hits_at_this_level() -> Vec<Hits> {
    let mut hits = Vec::new();
    for kind in [Rows::Random, Rows::Decaying, Rows::Outliers, Rows::Scales] {
        for (label_dim, k) in [(0, 10), (33, 200)] {
            let mut model = model(Shape { label_dim, ..SHAPE }, kind, 3.0);
            model.alpha = 0.9;
            for dtype in Dtype::ALL {
                let index = model.build_as(dtype, true, None);
                hits.push(search(&index, &queries(60, SHAPE.dim), k, &options(400, 1)));
            }
        }
    }
    hits
}

#[test]
fn levels_agree() {
    if std::env::var_os(CHILD).is_some() {
        for hits in hits_at_this_level() {
            for (ids, scores) in hits.ids.chunks(hits.width).zip(hits.scores.chunks(hits.width)) {
                println!("\nhits {ids:?};{scores:?}");
            }
        }
        return;
    }
    let rows_at = |level| {
        let output = at_level("levels_agree", level);
        let text = String::from_utf8(output.stdout).unwrap();
        let rows = text.lines().filter_map(|line| line.strip_prefix("hits ")?.split_once(';'));
        output.status.success().then(|| rows.map(parse_row).collect::<Vec<Hits>>())
    };
    let expected = rows_at("portable").expect("all machines have the portable level");
    assert_eq!(expected.len(), 4 * 2 * 4 * 60);
    for level in ["avx2", "avx512"] {
        let Some(found) = rows_at(level) else {
            println!("this machine has no {level}");
            continue;
        };
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(&expected) {
            assert!(same_order(found, expected, 1.0, 1e-5), "{level}: {found:?} {expected:?}");
        }
    }
}

/// One row of results, from what the child printed.
fn parse_row((ids, scores): (&str, &str)) -> Hits {
    fn numbers<T: FromStr<Err: Debug>>(text: &str) -> Vec<T> {
        text.trim_matches(['[', ']']).split(", ").map(|word| word.parse().unwrap()).collect()
    }
    let ids: Vec<i64> = numbers(ids);
    Hits { width: ids.len(), ids, scores: numbers(scores) }
}

#[test]
fn a_level_that_is_not_there_is_refused() {
    if std::env::var_os(CHILD).is_some() {
        let error = elias_idx::instruction_set().unwrap_err().to_string();
        println!("\nerror {error}");
        return;
    }
    for bad in ["avx1024", "AVX2", " portable"] {
        let output = at_level("a_level_that_is_not_there_is_refused", bad);
        let text = String::from_utf8(output.stdout).unwrap();
        let error = text.lines().find_map(|line| line.strip_prefix("error ")).unwrap();
        let expected = format!("ELIAS_IDX_ISA is '{bad}': this machine has portable");
        assert!(error.contains(&expected), "{error}");
    }
}
