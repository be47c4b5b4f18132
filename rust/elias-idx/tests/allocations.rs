//! A search that has been done before allocates nothing.
//!
//! The one test of this file: what is counted is all that the process allocates.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use common::{Model, Numbers};
use elias_idx::{Dtype, Filter, HitsMut, Index, SearchOptions};

/// The system's memory, with a count of how often some was asked for.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as promised by the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as promised by the caller.
        unsafe { System.realloc(memory, layout, size) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as promised by the caller.
        unsafe { System.dealloc(memory, layout) }
    }
}

/// Results for each query.
const K: usize = 10;

/// How often a search for `queries` allocates.
fn allocations(
    index: &Index,
    queries: &[f32],
    num_threads: usize,
    filter: Option<Filter<'_>>,
    out: &mut Results,
) -> usize {
    let options = SearchOptions {
        shortlist_size: Some(700),
        num_threads: Some(num_threads),
        filter,
        ..SearchOptions::default()
    };
    let len = queries.len() / index.dim() * K;
    let out = HitsMut { ids: &mut out.ids[..len], scores: &mut out.scores[..len] };
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    index.search_into(queries, K, &options, out, &mut || false).unwrap();
    ALLOCATIONS.load(Ordering::Relaxed) - before
}

struct Results {
    ids: Vec<i64>,
    scores: Vec<f32>,
}

#[test]
fn a_search_that_was_done_before_allocates_nothing() {
    let dim = 768;
    let mut out = Results { ids: vec![0; 200 * K], scores: vec![0.0; 200 * K] };
    let queries = Numbers::new(3).vec(200 * dim);
    // Enough clusters and labels for two threads to share a single query.
    let plain = Model::random(5, dim, 1000, 3000, 150);
    let projected = plain.clone().with_projection(6, 600);
    for (model, screen) in [(&plain, true), (&plain, false), (&projected, true)] {
        let index = model.build_as(Dtype::Float32, screen, None);
        // One query, a few query by query, and many label by label.
        for num_queries in [1, 20, 200] {
            let queries = &queries[..num_queries * dim];
            for num_threads in [1, 2] {
                let mut call = || allocations(&index, queries, num_threads, None, &mut out);
                let what = format!("{num_queries} queries, {num_threads} threads, {screen}");
                if num_queries > 1 && num_threads > 1 {
                    // Threads share a batch as it comes: one may join late, or meet its largest
                    // query late.
                    let settled = (0..100).any(|_| (0..4).all(|_| call() == 0));
                    assert!(settled, "{what}");
                    continue;
                }
                call();
                let start = Instant::now();
                let counts: Vec<usize> = (0..6).map(|_| call()).collect();
                // Once a second a call counts the CPUs anew, which reads a file or two.
                let seconds = 1 + start.elapsed().as_secs() as usize;
                let allocating = counts.iter().filter(|&&count| count > 0).count();
                assert!(allocating <= seconds, "{counts:?} for {what}");
                assert!(counts.iter().all(|&count| count < 20), "{counts:?} for {what}");
            }
        }
    }
    // Filters of so few edges that these are looked at, in two blocks of labels and in one.
    let index = Model::random(5, 16, 40, 30_000, 800).build();
    let wide = index.label_filter(&(0..1500).collect::<Vec<i64>>()).unwrap();
    let narrow = index.label_filter(&[3, 5, 7]).unwrap();
    let filters = [Some(&wide), Some(&narrow), Some(&wide)];
    let mut call =
        || allocations(&index, &queries[..3 * 16], 1, Some(Filter::Each(&filters)), &mut out);
    call();
    let counts: Vec<usize> = (0..6).map(|_| call()).collect();
    assert_eq!(counts, [0; 6]);
}
