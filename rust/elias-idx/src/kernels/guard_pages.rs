//! Every kernel on memory right before a page that can't be accessed, and right behind one: reading past the
//! end of a row, a query or a list, or before its start, ends the process.

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

/// Where values lie: right before a page that can't be accessed, or right behind one.
#[derive(Debug, Clone, Copy)]
enum Edge {
    End,
    Start,
}

const EDGES: [Edge; 2] = [Edge::End, Edge::Start];

/// A copy of values at the edge of a page that can't be accessed.
struct AtEdge<T> {
    map: MmapMut,
    start: usize,
    len: usize,
    element: PhantomData<T>,
}

impl Edge {
    fn of<T: Pod>(self, values: &[T]) -> AtEdge<T> {
        let bytes: &[u8] = bytemuck::cast_slice(values);
        let whole = bytes.len().next_multiple_of(PAGES);
        let mut map = MmapMut::map_anon(whole + PAGES).unwrap();
        let (start, guard) = match self {
            Self::End => (whole - bytes.len(), whole),
            Self::Start => (PAGES, 0),
        };
        map[start..][..bytes.len()].copy_from_slice(bytes);
        // SAFETY: the pages are the map's own, and nothing refers to them.
        let result =
            unsafe { libc::mprotect(map.as_mut_ptr().add(guard).cast(), PAGES, libc::PROT_NONE) };
        assert_eq!(result, 0);
        AtEdge { map, start, len: bytes.len(), element: PhantomData }
    }

    /// Memory for `len` values.
    fn zeroed<T: Pod>(self, len: usize) -> AtEdge<T> {
        self.of(&vec![T::zeroed(); len])
    }
}

impl<T: Pod> AtEdge<T> {
    fn get_mut(&mut self) -> &mut [T] {
        bytemuck::cast_slice_mut(&mut self.map[self.start..][..self.len])
    }
}

impl<T: Pod> Deref for AtEdge<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        bytemuck::cast_slice(&self.map[self.start..][..self.len])
    }
}

/// The same bits, so that NaN equals itself.
fn assert_same(found: &[f32], expected: &[f32], what: &str) {
    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(found), bits(expected), "{what}");
}

#[test]
fn exact_products_read_no_further_than_their_rows() {
    for edge in EDGES {
        for dim in DIMS {
            for (num_rows, num_queries) in [(1, 1), (4, 4), (7, 6)] {
                let (rows, queries) = (numbers(num_rows * dim, 1), numbers(num_queries * dim, 2));
                let bias = numbers(num_rows, 3);
                let len = num_rows * num_queries;
                let (guarded_rows, guarded_queries) = (edge.of(&rows), edge.of(&queries));
                let guarded_bias = edge.of(&bias);
                let mut out = edge.zeroed(len);
                for kernels in Kernels::available() {
                    let mut expected = vec![0.0; len];
                    let views = (MatrixView::new(&rows, dim), MatrixView::new(&queries, dim));
                    kernels.linear(views.0, Some(&bias), views.1, &mut expected);
                    let views = (
                        MatrixView::new(&guarded_rows, dim),
                        MatrixView::new(&guarded_queries, dim),
                    );
                    kernels.linear(views.0, Some(&guarded_bias), views.1, out.get_mut());
                    assert_same(&out, &expected, &format!("{kernels:?} {dim}"));
                }
            }
        }
    }
}

#[test]
fn stored_rows_are_read_no_further_than_they_go() {
    for edge in EDGES {
        for dim in DIMS {
            let (rows, query, bias) = (numbers(7 * dim, 1), numbers(dim, 2), numbers(7, 3));
            let halves: Vec<f16> = rows.iter().map(|&value| f16::from_f32(value)).collect();
            let brains: Vec<bf16> = rows.iter().map(|&value| bf16::from_f32(value)).collect();
            let (coded, _, _) = coded(&rows, &bias, &query, dim);
            let coded = coded.view();
            let floats_at_edge = edge.of(&rows);
            let halves_at_edge = edge.of(&halves);
            let brains_at_edge = edge.of(&brains);
            let codes_at_edge = edge.of(coded.codes.values());
            let meta_at_edge = edge.of(coded.meta);
            let coded_at_edge =
                CodedRowsView { codes: MatrixView::new(&codes_at_edge, dim), meta: &meta_at_edge };
            let cases = [
                (
                    ExactRows::Float32(MatrixView::new(&rows, dim)),
                    ExactRows::Float32(MatrixView::new(&floats_at_edge, dim)),
                ),
                (
                    ExactRows::Float16(MatrixView::new(&halves, dim)),
                    ExactRows::Float16(MatrixView::new(&halves_at_edge, dim)),
                ),
                (
                    ExactRows::BFloat16(MatrixView::new(&brains, dim)),
                    ExactRows::BFloat16(MatrixView::new(&brains_at_edge, dim)),
                ),
                (ExactRows::Int8(coded), ExactRows::Int8(coded_at_edge)),
            ];
            let (query_at_edge, bias_at_edge) = (edge.of(&query), edge.of(&bias));
            // The last row in a tile of four, and in what is left.
            for ids in [&[6][..], &[0, 3, 5, 6], &[2, 6, 0, 1, 5, 6]] {
                let ids_at_edge = edge.of(ids);
                let mut out = edge.zeroed(ids.len());
                for (rows, rows_at_edge) in cases {
                    for kernels in Kernels::available() {
                        let mut expected = vec![0.0; ids.len()];
                        kernels.linear_rows(rows, &bias, ids, &query, &mut expected);
                        let (query, bias) = (&query_at_edge, &bias_at_edge);
                        kernels.linear_rows(rows_at_edge, bias, &ids_at_edge, query, out.get_mut());
                        assert_same(&out, &expected, &format!("{kernels:?} {dim}"));
                    }
                }
            }
        }
    }
}

#[test]
fn codes_are_read_no_further_than_they_go() {
    for edge in EDGES {
        for dim in DIMS {
            for (num_rows, num_queries) in [(1, 1), (16, 4), (35, 7), (70, 1)] {
                let (rows, queries) = (numbers(num_rows * dim, 1), numbers(num_queries * dim, 2));
                let bias = numbers(num_rows, 3);
                let (rows, panels, codes) = coded(&rows, &bias, &queries, dim);
                let (rows, panels, codes) = (rows.view(), panels.view(), codes.slice());
                let row_codes = edge.of(rows.codes.values());
                let meta: AtEdge<RowMeta> = edge.of(rows.meta);
                let rows_at_edge =
                    CodedRowsView { codes: MatrixView::new(&row_codes, dim), meta: &meta };
                let (high, low) = (codes.high(), codes.low());
                let (high, low) = (edge.of(high), edge.of(low));
                let codes_at_edge = codes.with_parts(&high, &low);
                let panel_codes = edge.of(panels.codes);
                let (scales, biases) = (edge.of(panels.scales), edge.of(panels.biases));
                let panels_at_edge =
                    PanelsView { codes: &panel_codes, scales: &scales, biases: &biases, ..panels };

                let ids: Vec<u32> = (0..num_rows as u32).collect();
                let ids_at_edge = edge.of(&ids);
                let pairs: Vec<(u32, u16)> = (0..num_rows as u32)
                    .flat_map(|row| (0..num_queries as u16).map(move |query| (row, query)))
                    .collect();
                let (pair_ids, of): (Vec<u32>, Vec<u16>) = pairs.into_iter().unzip();
                let (pair_ids_at_edge, of_at_edge) = (edge.of(&pair_ids), edge.of(&of));
                let stride = panels.len() * PANEL_ROWS;
                let mut logits = edge.zeroed(num_queries * stride);
                for kernels in Kernels::available() {
                    let what = format!("{kernels:?} {dim} {num_rows}");
                    let mut expected = vec![0.0; num_queries * stride];
                    let all = (0, panels.len());
                    kernels.scan_panels(panels, all, codes, &mut expected, stride);
                    kernels.scan_panels(
                        panels_at_edge,
                        all,
                        codes_at_edge,
                        logits.get_mut(),
                        stride,
                    );
                    assert_same(&logits, &expected, &what);

                    let bounds_of = |rows,
                                     ids: &[u32],
                                     queries: QueryCodesSlice<'_>,
                                     of: Option<&[u16]>| {
                        let mut upper = edge.zeroed(ids.len());
                        let mut lower = edge.zeroed(ids.len());
                        let bounds = LogitBounds { upper: upper.get_mut(), lower: lower.get_mut() };
                        match of {
                            Some(of) => kernels.coded_pairs(rows, ids, queries, of, bounds),
                            None => {
                                kernels.coded_rows(rows, ids, queries.get(num_queries - 1), bounds);
                            }
                        }
                        [upper.to_vec(), lower.to_vec()].concat()
                    };
                    let expected = bounds_of(rows, &ids, codes, None);
                    assert_same(
                        &bounds_of(rows_at_edge, &ids_at_edge, codes_at_edge, None),
                        &expected,
                        &what,
                    );
                    let expected = bounds_of(rows, &pair_ids, codes, Some(&of));
                    let found = bounds_of(
                        rows_at_edge,
                        &pair_ids_at_edge,
                        codes_at_edge,
                        Some(&of_at_edge),
                    );
                    assert_same(&found, &expected, &what);
                }
            }
        }
    }
}

#[test]
fn trained_rows_are_touched_no_further_than_they_go() {
    for edge in EDGES {
        for dim in DIMS {
            let (values, others) = (numbers(7 * dim, 1), numbers(7 * dim, 2));
            let halves: Vec<bf16> = values.iter().map(|&value| bf16::from_f32(value)).collect();
            let (row, gradient) = (&values[..dim], &others[..dim]);
            let queries_at_edge = edge.of(&values);
            let queries = MatrixView::new(&queries_at_edge, dim);
            let (row_at_edge, gradient_at_edge) = (edge.of(row), edge.of(gradient));
            let half_at_edge = edge.of(&halves[..dim]);
            for kernels in Kernels::available() {
                let what = format!("{kernels:?} {dim}");
                for (row, row_at_edge) in [
                    (RowValues::Float32(row), RowValues::Float32(&row_at_edge)),
                    (RowValues::BFloat16(&halves[..dim]), RowValues::BFloat16(&half_at_edge)),
                ] {
                    let ids = [0, 1, 2, 3, 6];
                    let (mut expected, mut found) = ([0.0; 5], edge.zeroed(5));
                    kernels.row_dots(row, MatrixView::new(&values, dim), &ids, &mut expected);
                    kernels.row_dots(row_at_edge, queries, &edge.of(&ids), found.get_mut());
                    assert_same(&found, &expected, &what);
                }
                let mut sums = edge.zeroed(7 * dim);
                let mut sum = edge.zeroed(dim);
                let pairs = [(6, 0.5), (0, 2.0)];
                kernels.add_pairs(&row_at_edge, queries, &pairs, sum.get_mut(), sums.get_mut());
                kernels.add_scaled(0.5, &row_at_edge, sum.get_mut());
                kernels.softmax_gradient(&row_at_edge, 2.0, sum.get_mut());
                assert!(kernels.mean_square(&row_at_edge) > 0.0);
                let (mut weight, mut momentum) = (edge.of(row), edge.of(row));
                let (mut second_moment, mut losses) = (edge.zeroed(dim), edge.zeroed(dim));
                let [weight, momentum] = [&mut weight, &mut momentum].map(AtEdge::get_mut);
                let scales = AdamScales {
                    momentum_rate: 0.1,
                    second_moment_rate: 0.1,
                    learning_rate: 0.1,
                    correction: 1.0,
                    epsilon: 1e-8,
                };
                let row = ElementRow { weight, momentum, second_moment: second_moment.get_mut() };
                kernels.update_elements(row, &gradient_at_edge, scales);
                kernels.update_row(
                    MomentRow::Float32 { weight, momentum },
                    &gradient_at_edge,
                    0.1,
                    0.1,
                );
                let out =
                    PairLosses { losses: losses.get_mut(), by_logit: weight, by_path: momentum };
                kernels.irrelevant_pairs(&gradient_at_edge, &edge.zeroed(dim), out);
                let (mut weight, mut momentum) = (edge.of(&halves[..dim]), edge.of(&halves[..dim]));
                let row = MomentRow::BFloat16 {
                    weight: weight.get_mut(),
                    momentum: momentum.get_mut(),
                    rounding: Rounding(1),
                };
                kernels.update_row(row, &gradient_at_edge, 0.1, 0.1);
                assert_ne!(*weight, halves[..dim]);
            }
        }
    }
}

#[test]
fn lists_are_read_no_further_than_they_go() {
    for edge in EDGES {
        for len in [1, 3, 7, 16, 31, 63, 64, 65, 100, 1023, 1025, 2048] {
            let values: Vec<f32> = numbers(len, 1).iter().map(|value| 5.0 * value).collect();
            let others: Vec<f32> = numbers(len, 2).iter().map(|value| value.abs()).collect();
            let (guarded, guarded_others) = (edge.of(&values), edge.of(&others));
            for kernels in Kernels::available() {
                let what = format!("{kernels:?} {len}");
                let sums =
                    |ExpSums { max, sum, squares, curvature }| (max, sum, squares, curvature);
                assert_eq!(
                    sums(kernels.exp_sums(&guarded, &guarded_others)),
                    sums(kernels.exp_sums(&values, &others)),
                    "{what}"
                );
                let k = len.div_ceil(3);
                assert_eq!(
                    kernels.kth_largest(&guarded, k),
                    kernels.kth_largest(&values, k),
                    "{what}"
                );
                assert_eq!(
                    kernels.count_from(&guarded, 0.5),
                    kernels.count_from(&values, 0.5),
                    "{what}"
                );

                let mut expected = vec![0.0; len.div_ceil(MAXIMA_CHUNK)];
                kernels.chunk_maxima(&values, &mut expected);
                let mut maxima = edge.zeroed(expected.len());
                kernels.chunk_maxima(&guarded, maxima.get_mut());
                assert_same(&maxima, &expected, &what);

                type InPlace<'a> = &'a dyn Fn(&mut [f32], &[f32]);
                let in_place: [InPlace<'_>; 4] = [
                    &|values, _| kernels.exp_scores(values, 5.0, 2.0),
                    &|values, _| kernels.cluster_scores(values, 10.0),
                    &|values, _| kernels.scaled_softmax(values, 10.0),
                    &|values, others| kernels.final_scores(values, others),
                ];
                for kernel in in_place {
                    let mut expected = values.clone();
                    kernel(&mut expected, &others);
                    let mut found = edge.of(&values);
                    kernel(found.get_mut(), &guarded_others);
                    assert_same(&found, &expected, &what);
                }
            }
        }
    }
}

#[test]
fn trees_touch_no_more_than_their_tables() {
    const COLUMNS: usize = 3;
    let split = |node, column, threshold, children| Split { node, column, threshold, children };
    let tree = Tree {
        splits: vec![split(0, 2, 0.0, [1, 2]), split(1, 0, 0.1, [3, 4])],
        leaves: vec![(2, 1.0), (3, 2.0), (4, 3.0)],
    };
    let small = tree.small().unwrap();
    for edge in EDGES {
        for blocks in [1, 2, 3, 4, 5, 9] {
            let values = numbers(COLUMNS * blocks * TREE_LANES, 1);
            let table: &[Lanes] = bytemuck::cast_slice(&values);
            let table_at_edge = edge.of(table);
            for kernels in Kernels::available() {
                let (mut expected, mut reach) =
                    (vec![[0.5; TREE_LANES]; blocks], [[0.0; TREE_LANES]; 5]);
                kernels.add_tree(&tree, table, &mut reach, &mut expected);
                let (mut found, mut reach) =
                    (edge.of(&vec![[0.5; TREE_LANES]; blocks]), edge.zeroed(5));
                kernels.add_tree(&tree, &table_at_edge, reach.get_mut(), found.get_mut());
                assert_eq!(*found, expected, "{kernels:?} {blocks}");
                found.get_mut().fill([0.5; TREE_LANES]);
                kernels.add_small_tree(&small, &table_at_edge, found.get_mut());
                assert_eq!(*found, expected, "{kernels:?} {blocks}");
            }
        }
    }
}
