//! Tests of the fork-join pool.

use super::*;
use std::sync::atomic::AtomicUsize;

#[test]
fn every_chunk_runs_once_for_any_thread_count() {
    for threads in 1..=8 {
        let pool = Pool::new(threads);
        for chunks in [0, 1, 2, 7, 64, 1000] {
            let seen: Vec<AtomicUsize> = (0..chunks).map(|_| AtomicUsize::new(0)).collect();
            pool.run(chunks, |c, id| {
                assert!(id < pool.threads());
                seen[c].fetch_add(1, Ordering::Relaxed);
            });
            assert!(seen.iter().all(|n| n.load(Ordering::Relaxed) == 1), "{threads} threads, {chunks} chunks");
        }
    }
}

#[test]
fn many_short_runs_with_and_without_activation() {
    let pool = Pool::new(3);
    let sum = AtomicUsize::new(0);
    for round in 0..200 {
        let _active = (round % 2 == 0).then(|| pool.activate());
        for _ in 0..20 {
            pool.run(5, |c, _| {
                sum.fetch_add(c, Ordering::Relaxed);
            });
        }
        if round % 50 == 0 {
            std::thread::sleep(std::time::Duration::from_millis(2)); // long enough for the workers to park
        }
    }
    assert_eq!(sum.load(Ordering::Relaxed), 200 * 20 * 10);
}

#[test]
fn parts_begin_where_they_should() {
    for threads in [1, 3] {
        let pool = Pool::new(threads);
        for starts in [vec![0, 0], vec![0, 5], vec![0, 1, 1, 7, 20], (0..=40).collect()] {
            let mut dst = vec![usize::MAX; *starts.last().unwrap()];
            pool.for_parts(&mut dst, &starts, |i, part, _| part.fill(i));
            let of = |at: usize| starts.iter().rposition(|s| *s <= at).unwrap();
            assert!(dst.iter().enumerate().all(|(at, &i)| i == of(at)), "{starts:?}: {dst:?}");
        }
        for starts in [vec![], vec![0], vec![0, 2], vec![1, 3], vec![0, 2, 1, 3], vec![0, 4]] {
            let mut dst = [0; 3];
            let cut = std::panic::AssertUnwindSafe(|| pool.for_parts(&mut dst, &starts, |_, part, _| part.fill(1)));
            assert!(catch_unwind(cut).is_err() && dst == [0; 3], "{starts:?}");
        }
    }
}

#[test]
fn even_tiles_cover_and_differ_by_a_unit() {
    for threads in [1, 2, 5] {
        let pool = Pool::new(threads);
        for (outer, a, b, len) in [(1, 1, 1, 1), (2, 3, 14, 5), (1, 5, 4, 16), (3, 2, 29, 3)] {
            for (unit, b_tile) in [(1, 1), (1, 2), (2, 4), (4, 8), (7, 7), (29, 29)] {
                let grid = Grid { outer, a, b, len, a_tile: 2, b_tile, len_tile: len };
                let mut dst = vec![0.0; outer * a * b * len];
                let lens = Mutex::new(Vec::new());
                pool.for_even_tiles(&mut dst, grid, unit, |mut t, _| {
                    assert!(t.b0.is_multiple_of(unit) && t.b_len() <= b_tile, "{grid:?} by {unit}");
                    // The last unit may be cut short.
                    lock(&lens).push(t.b_len().div_ceil(unit));
                    for ia in 0..t.a_len() {
                        for ib in 0..t.b_len() {
                            let at = ((t.outer * a + t.a0 + ia) * b + t.b0 + ib) * len;
                            t.seg(ia, ib).iter_mut().enumerate().for_each(|(i, x)| *x += (at + i) as f32);
                        }
                    }
                });
                assert!(dst.iter().enumerate().all(|(i, &x)| x == i as f32), "{grid:?} by {unit}");
                let lens = lock(&lens);
                let (least, most) = (lens.iter().min().unwrap(), lens.iter().max().unwrap());
                assert!(most - least <= 1, "{grid:?} by {unit}: {lens:?}");
                let parts = lens.len() / (outer * a.div_ceil(2));
                assert!(
                    parts.is_multiple_of(threads) || parts == b.div_ceil(unit),
                    "{grid:?} by {unit}: {parts} parts"
                );
            }
        }
    }
}

#[test]
fn tiles_are_disjoint_and_cover() {
    for threads in [1, 2, 5] {
        let pool = Pool::new(threads);
        for (outer, a, b, len) in [(1, 1, 1, 1), (2, 3, 7, 5), (1, 5, 4, 16), (3, 2, 9, 11)] {
            for (a_tile, b_tile, len_tile) in [(1, 1, 1), (2, 3, 4), (8, 8, 32), (3, 1, 16)] {
                let grid = Grid { outer, a, b, len, a_tile, b_tile, len_tile };
                let mut dst = vec![f32::NAN; outer * a * b * len];
                pool.for_tiles(&mut dst, grid, |mut t, _| {
                    for ia in 0..t.a_len() {
                        for ib in 0..t.b_len() {
                            let at = ((t.outer * a + t.a0 + ia) * b + t.b0 + ib) * len + t.c0;
                            assert_eq!(at, t.origin + ia * t.stride_a() + ib * t.stride_b());
                            for (i, x) in t.seg(ia, ib).iter_mut().enumerate() {
                                assert!(x.is_nan(), "written twice");
                                *x = (at + i) as f32;
                            }
                        }
                    }
                });
                assert!(dst.iter().enumerate().all(|(i, &x)| x == i as f32), "{grid:?}");
            }
        }
    }
}

#[test]
fn chunks_cover_a_slice() {
    let pool = Pool::new(4);
    let mut dst = vec![0.0f32; 1003];
    pool.for_chunks(&mut dst, 100, |i, part, _| {
        assert_eq!(part.len(), if i == 10 { 3 } else { 100 });
        part.iter_mut().for_each(|x| *x += i as f32 + 1.0);
    });
    assert!(dst.iter().enumerate().all(|(i, &x)| x == (i / 100) as f32 + 1.0));
    pool.for_chunks::<u8>(&mut [], 10, |_, _, _| panic!("no chunk of nothing"));
}

#[test]
fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
    for threads in [1, 2, 4] {
        let pool = Pool::new(threads);
        for bad in [0, 3, 49] {
            let caught = catch_unwind(AssertUnwindSafe(|| {
                pool.run(50, |c, _| {
                    if c == bad {
                        panic!("chunk {c}");
                    }
                });
            }));
            let payload = caught.expect_err("the panic is passed on");
            assert_eq!(payload.downcast_ref::<String>().map(String::as_str), Some(format!("chunk {bad}").as_str()));
            let n = AtomicUsize::new(0);
            pool.run(50, |_, _| {
                n.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(n.load(Ordering::Relaxed), 50);
        }
    }
}

#[test]
fn nested_runs_are_done_in_place_with_their_own_scratch() {
    let pool = Pool::new(3);
    let n = AtomicUsize::new(0);
    pool.run(6, |_, outer_id| {
        pool.scratch(outer_id, |s| {
            Scratch::grow(&mut s.a, 8)[0] = 1.0;
            pool.run(4, |_, id| {
                assert_eq!(id, outer_id);
                pool.scratch(id, |inner| assert!(inner.a.is_empty()));
                n.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(s.a[0], 1.0);
        });
    });
    assert_eq!(n.load(Ordering::Relaxed), 24);
}

#[test]
fn concurrent_callers_take_turns() {
    let pool = Pool::new(2);
    let n = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    pool.run(8, |_, _| {
                        n.fetch_add(1, Ordering::Relaxed);
                    });
                }
            });
        }
    });
    assert_eq!(n.load(Ordering::Relaxed), 4 * 50 * 8);
}

#[test]
fn hooks_run_once_per_worker() {
    let n = Arc::new(AtomicUsize::new(0));
    let pool = {
        let n = Arc::clone(&n);
        Pool::with_hook(4, move |id| {
            assert!((1..4).contains(&id));
            n.fetch_add(1, Ordering::Relaxed);
        })
    };
    drop(pool);
    assert_eq!(n.load(Ordering::Relaxed), 3);
}
