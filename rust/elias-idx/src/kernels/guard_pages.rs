//! Every kernel on memory right before a page that can't be read: reading past the end of a row, a
//! query or a list ends the process.

use std::marker::PhantomData;
use std::ops::Deref;

use bytemuck::Pod;
use half::{bf16, f16};
use memmap2::MmapMut;

use super::tests::{coded, numbers};
use super::*;
use crate::quantize::RowMeta;

const DIMS: [usize; 9] = [1, 3, 7, 16, 63, 64, 65, 100, 768];

/// Whole pages, whatever their size on this system.
const PAGES: usize = 1 << 16;

/// A copy of values that ends where a page begins that can't be accessed.
struct AtPageEnd<T> {
    map: MmapMut,
    len: usize,
    end: usize,
    element: PhantomData<T>,
}

impl<T: Pod> AtPageEnd<T> {
    fn new(values: &[T]) -> Self {
        let bytes: &[u8] = bytemuck::cast_slice(values);
        let end = bytes.len().next_multiple_of(PAGES);
        let mut map = MmapMut::map_anon(end + PAGES).unwrap();
        map[end - bytes.len()..end].copy_from_slice(bytes);
        // SAFETY: the pages are the map's last ones, and nothing refers to them.
        let result =
            unsafe { libc::mprotect(map.as_mut_ptr().add(end).cast(), PAGES, libc::PROT_NONE) };
        assert_eq!(result, 0);
        Self { map, len: values.len(), end, element: PhantomData }
    }

    /// Memory for `len` values.
    fn zeroed(len: usize) -> Self {
        Self::new(&vec![T::zeroed(); len])
    }

    fn start(&self) -> usize {
        self.end - self.len * size_of::<T>()
    }

    fn get_mut(&mut self) -> &mut [T] {
        let range = self.start()..self.end;
        bytemuck::cast_slice_mut(&mut self.map[range])
    }
}

impl<T: Pod> Deref for AtPageEnd<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        bytemuck::cast_slice(&self.map[self.start()..self.end])
    }
}

/// The same bits, so that NaN equals itself.
fn assert_same(found: &[f32], expected: &[f32], what: &str) {
    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(found), bits(expected), "{what}");
}

#[test]
fn exact_products_read_no_further_than_their_rows() {
    for dim in DIMS {
        for (num_rows, num_queries) in [(1, 1), (4, 4), (7, 6)] {
            let (rows, queries) = (numbers(num_rows * dim, 1), numbers(num_queries * dim, 2));
            let bias = numbers(num_rows, 3);
            let len = num_rows * num_queries;
            let (guarded_rows, guarded_queries) = (AtPageEnd::new(&rows), AtPageEnd::new(&queries));
            let guarded_bias = AtPageEnd::new(&bias);
            let mut out = AtPageEnd::zeroed(len);
            for kernels in Kernels::available() {
                let mut expected = vec![0.0; len];
                let views = (MatrixView::new(&rows, dim), MatrixView::new(&queries, dim));
                kernels.linear(views.0, Some(&bias), views.1, &mut expected);
                let views =
                    (MatrixView::new(&guarded_rows, dim), MatrixView::new(&guarded_queries, dim));
                kernels.linear(views.0, Some(&guarded_bias), views.1, out.get_mut());
                assert_same(&out, &expected, &format!("{kernels:?} {dim}"));
            }
        }
    }
}

#[test]
fn stored_rows_are_read_no_further_than_they_go() {
    for dim in DIMS {
        let (rows, query, bias) = (numbers(7 * dim, 1), numbers(dim, 2), numbers(7, 3));
        let halves: Vec<f16> = rows.iter().map(|&value| f16::from_f32(value)).collect();
        let brains: Vec<bf16> = rows.iter().map(|&value| bf16::from_f32(value)).collect();
        let (coded, _, _) = coded(&rows, &bias, &query, dim);
        let coded = coded.view();
        let floats_at_end = AtPageEnd::new(&rows);
        let halves_at_end = AtPageEnd::new(&halves);
        let brains_at_end = AtPageEnd::new(&brains);
        let codes_at_end = AtPageEnd::new(coded.codes.values());
        let meta_at_end = AtPageEnd::new(coded.meta);
        let coded_at_end =
            CodedRowsView { codes: MatrixView::new(&codes_at_end, dim), meta: &meta_at_end };
        let cases = [
            (
                ExactRows::Float32(MatrixView::new(&rows, dim)),
                ExactRows::Float32(MatrixView::new(&floats_at_end, dim)),
            ),
            (
                ExactRows::Float16(MatrixView::new(&halves, dim)),
                ExactRows::Float16(MatrixView::new(&halves_at_end, dim)),
            ),
            (
                ExactRows::BFloat16(MatrixView::new(&brains, dim)),
                ExactRows::BFloat16(MatrixView::new(&brains_at_end, dim)),
            ),
            (ExactRows::Int8(coded), ExactRows::Int8(coded_at_end)),
        ];
        let (query_at_end, bias_at_end) = (AtPageEnd::new(&query), AtPageEnd::new(&bias));
        // The last row in a tile of four, and in what is left.
        for ids in [&[6][..], &[0, 3, 5, 6], &[2, 6, 0, 1, 5, 6]] {
            let ids_at_end = AtPageEnd::new(ids);
            let mut out = AtPageEnd::zeroed(ids.len());
            for (rows, rows_at_end) in cases {
                for kernels in Kernels::available() {
                    let mut expected = vec![0.0; ids.len()];
                    kernels.linear_rows(rows, &bias, ids, &query, &mut expected);
                    let (query, bias) = (&query_at_end, &bias_at_end);
                    kernels.linear_rows(rows_at_end, bias, &ids_at_end, query, out.get_mut());
                    assert_same(&out, &expected, &format!("{kernels:?} {dim}"));
                }
            }
        }
    }
}

#[test]
fn codes_are_read_no_further_than_they_go() {
    for dim in DIMS {
        for (num_rows, num_queries) in [(1, 1), (16, 4), (35, 7), (70, 1)] {
            let (rows, queries) = (numbers(num_rows * dim, 1), numbers(num_queries * dim, 2));
            let bias = numbers(num_rows, 3);
            let (rows, panels, codes) = coded(&rows, &bias, &queries, dim);
            let (rows, panels, codes) = (rows.view(), panels.view(), codes.slice());
            let row_codes = AtPageEnd::new(rows.codes.values());
            let meta: AtPageEnd<RowMeta> = AtPageEnd::new(rows.meta);
            let rows_at_end =
                CodedRowsView { codes: MatrixView::new(&row_codes, dim), meta: &meta };
            let (high, low) = (codes.high(), codes.low());
            let (high, low) = (AtPageEnd::new(high), AtPageEnd::new(low));
            let codes_at_end = codes.with_parts(&high, &low);
            let panel_codes = AtPageEnd::new(panels.codes);
            let (scales, biases) = (AtPageEnd::new(panels.scales), AtPageEnd::new(panels.biases));
            let panels_at_end =
                PanelsView { codes: &panel_codes, scales: &scales, biases: &biases, ..panels };

            let ids: Vec<u32> = (0..num_rows as u32).collect();
            let ids_at_end = AtPageEnd::new(&ids);
            let pairs: Vec<(u32, u16)> = (0..num_rows as u32)
                .flat_map(|row| (0..num_queries as u16).map(move |query| (row, query)))
                .collect();
            let (pair_ids, of): (Vec<u32>, Vec<u16>) = pairs.into_iter().unzip();
            let (pair_ids_at_end, of_at_end) = (AtPageEnd::new(&pair_ids), AtPageEnd::new(&of));
            let stride = panels.len() * PANEL_ROWS;
            let mut logits = AtPageEnd::zeroed(num_queries * stride);
            for kernels in Kernels::available() {
                let what = format!("{kernels:?} {dim} {num_rows}");
                let mut expected = vec![0.0; num_queries * stride];
                let all = (0, panels.len());
                kernels.scan_panels(panels, all, codes, &mut expected, stride);
                kernels.scan_panels(panels_at_end, all, codes_at_end, logits.get_mut(), stride);
                assert_same(&logits, &expected, &what);

                let bounds_of = |rows,
                                 ids: &[u32],
                                 queries: QueryCodesSlice<'_>,
                                 of: Option<&[u16]>| {
                    let mut upper = AtPageEnd::zeroed(ids.len());
                    let mut lower = AtPageEnd::zeroed(ids.len());
                    let bounds = LogitBounds { upper: upper.get_mut(), lower: lower.get_mut() };
                    match of {
                        Some(of) => kernels.coded_pairs(rows, ids, queries, of, bounds),
                        None => kernels.coded_rows(rows, ids, queries.get(num_queries - 1), bounds),
                    }
                    [upper.to_vec(), lower.to_vec()].concat()
                };
                let expected = bounds_of(rows, &ids, codes, None);
                assert_same(
                    &bounds_of(rows_at_end, &ids_at_end, codes_at_end, None),
                    &expected,
                    &what,
                );
                let expected = bounds_of(rows, &pair_ids, codes, Some(&of));
                let found =
                    bounds_of(rows_at_end, &pair_ids_at_end, codes_at_end, Some(&of_at_end));
                assert_same(&found, &expected, &what);
            }
        }
    }
}

#[test]
fn trained_rows_are_touched_no_further_than_they_go() {
    for dim in DIMS {
        let (values, others) = (numbers(7 * dim, 1), numbers(7 * dim, 2));
        let halves: Vec<bf16> = values.iter().map(|&value| bf16::from_f32(value)).collect();
        let (row, gradient) = (&values[..dim], &others[..dim]);
        let queries_at_end = AtPageEnd::new(&values);
        let queries = MatrixView::new(&queries_at_end, dim);
        let (row_at_end, gradient_at_end) = (AtPageEnd::new(row), AtPageEnd::new(gradient));
        let half_at_end = AtPageEnd::new(&halves[..dim]);
        for kernels in Kernels::available() {
            let what = format!("{kernels:?} {dim}");
            for (row, row_at_end) in [
                (RowValues::Float32(row), RowValues::Float32(&row_at_end)),
                (RowValues::BFloat16(&halves[..dim]), RowValues::BFloat16(&half_at_end)),
            ] {
                let ids = [0, 1, 2, 3, 6];
                let (mut expected, mut found) = ([0.0; 5], AtPageEnd::zeroed(5));
                kernels.row_dots(row, MatrixView::new(&values, dim), &ids, &mut expected);
                kernels.row_dots(row_at_end, queries, &AtPageEnd::new(&ids), found.get_mut());
                assert_same(&found, &expected, &what);
            }
            let mut sums = AtPageEnd::zeroed(7 * dim);
            let mut sum = AtPageEnd::zeroed(dim);
            let pairs = [(6, 0.5), (0, 2.0)];
            kernels.add_pairs(&row_at_end, queries, &pairs, sum.get_mut(), sums.get_mut());
            kernels.add_scaled(0.5, &row_at_end, sum.get_mut());
            kernels.softmax_gradient(&row_at_end, 2.0, sum.get_mut());
            assert!(kernels.mean_square(&row_at_end) > 0.0);
            let (mut weight, mut momentum) = (AtPageEnd::new(row), AtPageEnd::new(row));
            let (mut second_moment, mut losses) = (AtPageEnd::zeroed(dim), AtPageEnd::zeroed(dim));
            let [weight, momentum] = [&mut weight, &mut momentum].map(AtPageEnd::get_mut);
            let scales = AdamScales {
                momentum_rate: 0.1,
                second_moment_rate: 0.1,
                learning_rate: 0.1,
                correction: 1.0,
                epsilon: 1e-8,
            };
            let row = ElementRow { weight, momentum, second_moment: second_moment.get_mut() };
            kernels.update_elements(row, &gradient_at_end, scales);
            kernels.update_row(MomentRow::Float32 { weight, momentum }, &gradient_at_end, 0.1, 0.1);
            let out = PairLosses { losses: losses.get_mut(), by_logit: weight, by_path: momentum };
            kernels.irrelevant_pairs(&gradient_at_end, &AtPageEnd::zeroed(dim), out);
            let (mut weight, mut momentum) =
                (AtPageEnd::new(&halves[..dim]), AtPageEnd::new(&halves[..dim]));
            let row = MomentRow::BFloat16 {
                weight: weight.get_mut(),
                momentum: momentum.get_mut(),
                rounding: Rounding(1),
            };
            kernels.update_row(row, &gradient_at_end, 0.1, 0.1);
            assert_ne!(*weight, halves[..dim]);
        }
    }
}

#[test]
fn lists_are_read_no_further_than_they_go() {
    for len in [1, 3, 7, 16, 31, 63, 64, 65, 100, 1023, 1025, 2048] {
        let values: Vec<f32> = numbers(len, 1).iter().map(|value| 5.0 * value).collect();
        let others: Vec<f32> = numbers(len, 2).iter().map(|value| value.abs()).collect();
        let (guarded, guarded_others) = (AtPageEnd::new(&values), AtPageEnd::new(&others));
        for kernels in Kernels::available() {
            let what = format!("{kernels:?} {len}");
            let sums = |ExpSums { max, sum, squares, curvature }| (max, sum, squares, curvature);
            assert_eq!(
                sums(kernels.exp_sums(&guarded, &guarded_others)),
                sums(kernels.exp_sums(&values, &others)),
                "{what}"
            );
            let k = len.div_ceil(3);
            assert_eq!(kernels.kth_largest(&guarded, k), kernels.kth_largest(&values, k), "{what}");
            assert_eq!(
                kernels.count_from(&guarded, 0.5),
                kernels.count_from(&values, 0.5),
                "{what}"
            );

            let mut expected = vec![0.0; len.div_ceil(MAXIMA_CHUNK)];
            kernels.chunk_maxima(&values, &mut expected);
            let mut maxima = AtPageEnd::zeroed(expected.len());
            kernels.chunk_maxima(&guarded, maxima.get_mut());
            assert_same(&maxima, &expected, &what);

            type InPlace<'a> = &'a dyn Fn(&mut [f32], &[f32]);
            let in_place: [InPlace<'_>; 3] = [
                &|values, _| kernels.exp_scores(values, 5.0, 2.0),
                &|values, _| kernels.cluster_scores(values, 10.0),
                &|values, others| kernels.final_scores(values, others),
            ];
            for kernel in in_place {
                let mut expected = values.clone();
                kernel(&mut expected, &others);
                let mut found = AtPageEnd::new(&values);
                kernel(found.get_mut(), &guarded_others);
                assert_same(&found, &expected, &what);
            }
        }
    }
}
