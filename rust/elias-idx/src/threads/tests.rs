//! Tests on pools of their own, with as many CPUs as each test wants.

use std::sync::atomic::AtomicU64;
use std::thread;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

/// Pools are never freed; here a search for leaks finds them.
static POOLS: Mutex<Vec<&Pool>> = Mutex::new(Vec::new());

/// A fresh pool for `number` CPUs.
fn crew(number: usize) -> Crew {
    let pool = Box::leak(Box::new(Pool::new()));
    lock(&POOLS).push(pool);
    Crew { pool, cpus: Cpus { number, ..Cpus::of_this_thread() } }
}

fn run_on(
    crew: Crew,
    num_threads: usize,
    hook: Hook<'_>,
    work: &(impl Fn(usize, &mut Pulse<'_>) + Sync),
) -> Result<()> {
    lead_on(Some(crew), num_threads, hook, |team| team.share(team.size(), work))
}

/// Waits until `count` is at least `number`.
fn wait_for(count: &AtomicUsize, number: usize) {
    while count.load(Ordering::Relaxed) < number {
        thread::yield_now();
    }
}

/// Runs on `num_threads` threads that wait for each other; gives the workers' numbers, in order.
fn workers(crew: Crew, num_threads: usize) -> Vec<usize> {
    let (count, numbers) = (AtomicUsize::new(0), std::sync::Mutex::new(Vec::new()));
    run_on(crew, num_threads, &mut || false, &|worker, _: &mut Pulse<'_>| {
        numbers.lock().unwrap().push(worker);
        count.fetch_add(1, Ordering::Relaxed);
        wait_for(&count, num_threads.min(crew.cpus.number));
    })
    .unwrap();
    let mut numbers = numbers.into_inner().unwrap();
    numbers.sort_unstable();
    numbers
}

#[test]
fn as_many_threads_work_as_asked_for_and_as_there_are_cpus() {
    let crew = crew(4);
    for num_threads in [1, 3, 4, 2, usize::MAX] {
        let expected: Vec<usize> = (0..num_threads.min(4)).collect();
        assert_eq!(workers(crew, num_threads), expected);
    }
    assert_eq!(crew.pool.num_workers(), 3);
}

#[test]
fn fewer_cpus_later_are_respected_though_threads_are_there() {
    let crew = crew(4);
    workers(crew, 4);
    let fewer = Crew { cpus: Cpus { number: 2, ..crew.cpus }, ..crew };
    assert_eq!(workers(fewer, 4), [0, 1]);
    let one = Crew { cpus: Cpus { number: 1, ..crew.cpus }, ..crew };
    assert_eq!(workers(one, 4), [0]);
}

#[test]
fn every_chunk_is_run_once_in_each_loop() {
    let crew = crew(3);
    lead_on(Some(crew), 3, &mut || false, |team| {
        for num_chunks in [0, 1, 2, 3, 100, 0, 1000] {
            let runs: Vec<AtomicUsize> = (0..num_chunks).map(|_| AtomicUsize::new(0)).collect();
            team.for_each_chunk(num_chunks, &|chunk, worker| {
                assert!(worker < 3);
                runs[chunk].fetch_add(1, Ordering::Relaxed);
            })?;
            assert!(!team.pulse.stopped());
            assert!(runs.into_iter().all(|runs| runs.into_inner() == 1));
        }
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_leader_does_not_wait_for_a_helper_that_never_wakes_up() {
    let crew = crew(2);
    crew.pool.add_sleeper();
    for _ in 0..3 {
        let count = AtomicUsize::new(0);
        lead_on(Some(crew), 2, &mut || false, |team| {
            team.for_each_chunk(10, &|_, worker| {
                assert_eq!(worker, 0);
                count.fetch_add(1, Ordering::Relaxed);
            })
        })
        .unwrap();
        assert_eq!(count.into_inner(), 10);
    }
}

#[test]
fn callers_do_their_work_alone_when_the_cpus_are_taken() {
    let crew = crew(2);
    let (begun, end) = (AtomicUsize::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            run_on(crew, 2, &mut || false, &|_, _: &mut Pulse<'_>| {
                begun.fetch_add(1, Ordering::Relaxed);
                while !end.load(Ordering::Relaxed) {
                    thread::yield_now();
                }
            })
            .unwrap();
        });
        wait_for(&begun, 2);
        let count = AtomicUsize::new(0);
        run_on(crew, 2, &mut || false, &|_, _: &mut Pulse<'_>| {
            count.fetch_add(1, Ordering::Relaxed);
            thread::sleep(Duration::from_millis(5));
        })
        .unwrap();
        assert_eq!(count.into_inner(), 1);
        end.store(true, Ordering::Relaxed);
    });
    assert_eq!(workers(crew, 2), [0, 1], "the CPUs are free again");
}

#[test]
fn a_panic_is_an_error_wherever_it_happens() {
    let crew = crew(2);
    for at in 0..2 {
        let begun = AtomicUsize::new(0);
        let ended = AtomicUsize::new(0);
        let result = run_on(crew, 2, &mut || false, &|worker, pulse: &mut Pulse<'_>| {
            begun.fetch_add(1, Ordering::Relaxed);
            wait_for(&begun, 2);
            assert!(worker != at, "worker {at}");
            while !pulse.stopped() {
                thread::yield_now();
            }
            // The other worker is waited for, though this one takes a while to end.
            thread::sleep(Duration::from_millis(30));
            ended.fetch_add(1, Ordering::Relaxed);
        });
        let Err(Error::Panicked(message)) = result else { panic!("{result:?}") };
        assert_eq!(message, format!("worker {at}"));
        assert_eq!(ended.into_inner(), 1);
    }
    assert_eq!(workers(crew, 2), [0, 1], "the helper lives on");
}

#[test]
fn a_panic_between_or_within_loops_is_an_error_on_one_thread_too() {
    for crew in [None, Some(crew(2))] {
        let result: Result<()> = lead_on(crew, 2, &mut || false, |_| panic!("between"));
        assert!(matches!(result, Err(Error::Panicked(message)) if message == "between"));
        let result = lead_on(crew, 2, &mut || false, |team| {
            team.for_each_chunk(10, &|chunk, _| assert!(chunk != 7, "within {chunk}"))
        });
        assert!(matches!(result, Err(Error::Panicked(message)) if message == "within 7"));
    }
}

#[test]
fn a_hook_that_panics_while_helpers_are_waited_for_is_an_error() {
    let crew = crew(2);
    let begun = AtomicUsize::new(0);
    let result = run_on(crew, 2, &mut || panic!("hook"), &|worker, pulse: &mut Pulse<'_>| {
        begun.fetch_add(1, Ordering::Relaxed);
        wait_for(&begun, 2);
        while worker == 1 && !pulse.stopped() {
            thread::yield_now();
        }
    });
    assert!(matches!(result, Err(Error::Panicked(message)) if message == "hook"));
}

#[test]
fn a_payload_that_panics_when_dropped_does_no_harm() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            // Of nothing, for what a payload's drop panics with is never freed.
            std::panic::panic_any(());
        }
    }
    let crew = crew(2);
    let begun = AtomicUsize::new(0);
    let result = run_on(crew, 2, &mut || false, &|_, _: &mut Pulse<'_>| {
        begun.fetch_add(1, Ordering::Relaxed);
        wait_for(&begun, 2);
        std::panic::panic_any(Bomb);
    });
    assert!(matches!(result, Err(Error::Panicked(message)) if message.is_empty()));
}

#[test]
fn a_stop_reaches_helpers_while_the_leader_waits_for_them() {
    let begun = AtomicUsize::new(0);
    let mut calls = 0;
    let mut hook = || {
        calls += 1;
        calls == 1
    };
    let result = run_on(crew(2), 2, &mut hook, &|worker, pulse: &mut Pulse<'_>| {
        begun.fetch_add(1, Ordering::Relaxed);
        wait_for(&begun, 2);
        // The leader has nothing to do; the helper works until it is stopped,
        while worker == 1 && !pulse.stopped() {
            thread::yield_now();
        }
        // and is in the midst of a long step then.
        if worker == 1 {
            thread::sleep(Duration::from_millis(200));
        }
    });
    assert!(matches!(result, Err(Error::Interrupted)));
    assert_eq!(calls, 1, "the hook isn't asked again after a stop");
}

#[test]
fn a_stop_ends_a_loop_between_chunks() {
    let count = AtomicUsize::new(0);
    let result = lead_on(Some(crew(2)), 2, &mut || true, |team| {
        team.for_each_chunk(1_000_000, &|_, _| {
            count.fetch_add(1, Ordering::Relaxed);
            thread::sleep(Duration::from_millis(1));
        })
    });
    assert!(matches!(result, Err(Error::Interrupted)));
    assert!(count.into_inner() < 1_000_000);
}

/// Sums 0..n over a team, and in the midst of that again, `depth` times.
fn nested_sum(crew: Crew, n: u64, depth: usize) -> u64 {
    let sum = AtomicU64::new(0);
    lead_on(Some(crew), 4, &mut || false, |team| {
        team.for_each_chunk(n as usize, &|chunk, _| {
            let inner = if depth > 0 { nested_sum(crew, n, depth - 1) } else { 0 };
            sum.fetch_add(chunk as u64 + inner, Ordering::Relaxed);
        })
    })
    .unwrap();
    sum.into_inner()
}

#[test]
fn calls_within_calls_come_to_an_end() {
    // Σ over 0..8 is 28; eight times that for each level below.
    assert_eq!(nested_sum(crew(4), 8, 2), 28 + 8 * (28 + 8 * 28));
}

/// One caller's loops: the numbers of chunks and the threads asked for.
fn loops() -> impl Strategy<Value = (Vec<usize>, usize)> {
    (prop::collection::vec(0..40_usize, 1..6), 1..6_usize)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn many_callers_at_once_get_their_work_done(
        cpus in 2..6_usize,
        callers in prop::collection::vec(loops(), 1..6),
    ) {
        let crew = crew(cpus);
        let call = |sizes: &[usize], num_threads| {
            lead_on(Some(crew), num_threads, &mut || false, |team| {
                for &size in sizes {
                    let runs: Vec<_> = (0..size).map(|_| AtomicUsize::new(0)).collect();
                    let busy: Vec<_> = (0..team.size()).map(|_| AtomicBool::new(false)).collect();
                    team.for_each_chunk(size, &|chunk, worker| {
                        assert!(!busy[worker].swap(true, Ordering::AcqRel), "a number used twice");
                        for _ in 0..(chunk % 7) * 200 {
                            std::hint::spin_loop();
                        }
                        runs[chunk].fetch_add(1, Ordering::Relaxed);
                        assert!(busy[worker].swap(false, Ordering::AcqRel));
                    })?;
                    assert!(runs.into_iter().all(|runs| runs.into_inner() == 1));
                }
                Ok(())
            })
        };
        thread::scope(|scope| {
            let threads: Vec<_> = callers
                .iter()
                .map(|(sizes, num_threads)| scope.spawn(|| call(sizes, *num_threads)))
                .collect();
            for thread in threads {
                thread.join().unwrap().unwrap();
            }
        });
        prop_assert!(crew.pool.num_workers() < cpus);
        prop_assert_eq!(crew.pool.num_booked(), 0);
    }
}

#[test]
fn short_loops_one_after_another_lose_nothing() {
    let crew = crew(3);
    // The pauses differ from round to round: helpers are found looking out, falling asleep, sleeping.
    for round in 0..500 {
        let sum = AtomicUsize::new(0);
        lead_on(Some(crew), 3, &mut || false, |team| {
            for _ in 0..3 {
                team.for_each_chunk(5, &|chunk, _| {
                    sum.fetch_add(chunk, Ordering::Relaxed);
                })?;
                for _ in 0..(round % 11) * 1000 {
                    std::hint::spin_loop();
                }
            }
            Ok(())
        })
        .unwrap();
        assert_eq!(sum.into_inner(), 30);
    }
}
