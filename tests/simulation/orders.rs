//! Small programs in every order there is.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use quoit::sim::{Explored, Sim, explore};
use quoit::{Cores, Runtime, op, spawn, yield_now};

/// Runs a program in all orders, and returns every way it came out.
fn all_ways<T: Ord>(program: impl Fn(Sim) -> T) -> BTreeSet<T> {
    let mut ways = BTreeSet::new();
    let explored = explore(200_000, |sim| {
        ways.insert(program(sim));
    });
    assert!(explored.complete, "not all orders in {}", explored.orders);
    assert!(explored.orders > 1, "there is but one order");
    ways
}

#[test]
fn two_tasks_run_in_both_orders() {
    let ways = all_ways(|sim| {
        sim.block_on(async {
            let order = Rc::new(RefCell::new(String::new()));
            let write = |letter| {
                let order = Rc::clone(&order);
                spawn(async move { order.borrow_mut().push(letter) })
            };
            let (a, b) = (write('a'), write('b'));
            a.await.expect("it ends");
            b.await.expect("it ends");
            order.take()
        })
        .value
    });
    assert_eq!(ways, ["ab".to_owned(), "ba".to_owned()].into());
}

/// A read is dropped while its bytes come: nothing of the kernel's is left, in any order.
#[test]
fn a_dropped_read_ends_in_any_order() {
    let explored: Explored = explore(200_000, |sim| {
        sim.block_on(async {
            let (read, write) = op::pipe()?;
            let writer = spawn(async move { op::write(&write, "bytes").await.0 });
            {
                let mut reading = std::pin::pin!(op::read(&read, vec![0; 8]));
                let _ = tests::poll_once(reading.as_mut()).await;
                yield_now().await?;
                let _ = tests::poll_once(reading.as_mut()).await;
            }
            writer.await?.map(drop)
        })
        .value
        .expect("it works");
    });
    assert!(explored.complete, "not all orders in {}", explored.orders);
}

/// Two cores wake each other while they are about to park: nobody sleeps over it.
#[test]
fn cores_wake_each_other_in_any_order() {
    let explored = explore(20_000, |sim| {
        sim.run(|| {
            let runtime = Runtime::builder()
                .cores(Cores::Count(2))
                .build()
                .expect("cores");
            let handle = runtime.handle();
            let cores = handle.cores();
            let there = handle
                .spawn(cores[0], {
                    let (handle, other) = (handle.clone(), cores[1]);
                    move || async move { handle.spawn(other, || async { 7 }).map(drop).is_ok() }
                })
                .expect("there is room");
            assert!(there.wait().expect("it ends"));
        });
    });
    assert!(explored.complete && explored.orders > 1, "{explored:?}");
}
