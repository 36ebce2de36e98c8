//! Small programs in every order there is.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::io;
use std::rc::Rc;

use quoit::sim::{Explored, Sim, explore};
use quoit::sync::Event;
use quoit::{CarriesCancelled, Cores, Runtime, Scope, op, spawn, yield_now};
use quoit_net::tcp::{TcpListener, TcpStream};

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

/// A byte is sent while the wait for it is cancelled: it is received, or it is still there. Whether the
/// wait was cut off before it came.
fn a_receive_is_cancelled(after_a_while: bool) -> BTreeSet<bool> {
    all_ways(|sim| {
        sim.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:1")?;
            let near = TcpStream::connect(listener.local_addr()).await?;
            let far = listener.accept().await?;
            let scope = Scope::new();
            let handle = scope.handle();
            let sender = spawn(async move {
                far.write_all("x").await.0?;
                Ok::<_, io::Error>(far)
            });
            let canceller = spawn(async move {
                if after_a_while {
                    // As long on its way as the byte is.
                    op::nop().await?;
                }
                handle.cancel();
                // The next op of the core takes the cancel in.
                yield_now().await.map_err(io::Error::from)
            });
            let first = scope.run(near.recv()).await?;
            let far = sender.await??;
            canceller.await??;
            let received = match &first {
                Some(chunk) => chunk.as_deref() == Some(b"x"),
                None => near.recv().await?.as_deref() == Some(b"x"),
            };
            assert!(received, "the byte is lost");
            drop(far);
            Ok::<_, io::Error>(first.is_none())
        })
        .value
        .expect("it works")
    })
}

#[test]
fn a_cancelled_receive_loses_nothing_in_any_order() {
    assert_eq!(a_receive_is_cancelled(false), [true].into());
    assert_eq!(a_receive_is_cancelled(true), [false].into());
}

/// A waiter is told and cancelled at once: it ends, one way or the other.
#[test]
fn an_event_and_a_cancel_end_a_wait_in_any_order() {
    let ways = all_ways(|sim| {
        sim.block_on(async {
            let event = Rc::new(Event::new());
            let scope = Scope::new();
            let handle = scope.handle();
            let teller = {
                let event = Rc::clone(&event);
                spawn(async move { event.set() })
            };
            let canceller = spawn(async move {
                handle.cancel();
                // The next op of the core takes the cancel in.
                yield_now().await
            });
            let told = scope.run(event.wait()).await.expect("no failure").is_some();
            teller.await.expect("it ends");
            canceller
                .await
                .expect("it ends")
                .expect("nobody cancels it");
            told
        })
        .value
    });
    assert_eq!(ways, [false, true].into());
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

/// A deadline that is due and a result that is there: the scope says which came first, and a result
/// that was there is not lost.
#[test]
fn a_result_that_was_there_is_not_lost_to_a_cancel() {
    let ways = all_ways(|sim| {
        let found = Rc::new(Cell::new(false));
        let seen = Rc::clone(&found);
        sim.block_on(async move {
            let scope = Scope::new();
            let handle = scope.handle();
            let child = spawn(async { 7 });
            let canceller = spawn(async move {
                handle.cancel();
                // The next op of the core takes the cancel in.
                yield_now().await
            });
            let joined = scope
                .run(async {
                    match child.await {
                        Ok(value) => Ok(value),
                        Err(error) if error.cancelled().is_some() => Err(io::Error::from(error)),
                        Err(error) => panic!("{error}"),
                    }
                })
                .await
                .expect("no failure");
            seen.set(joined == Some(7));
            canceller
                .await
                .expect("it ends")
                .expect("nobody cancels it");
        });
        found.get()
    });
    assert_eq!(ways, [false, true].into());
}
