//! An echo server on several cores: every byte comes back, or a beginning of them and an end.

use std::cell::Cell;
use std::io;
use std::net::Shutdown;
use std::rc::Rc;
use std::time::Duration;

use quoit::sim::{Sim, for_seeds};
use quoit::time::sleep;
use quoit::{CarriesCancelled, CoreId, Cores, Runtime, spawn};
use quoit_net::tcp::TcpOptions;
use quoit_net::{ShardedListener, TcpStream};

use crate::support::{Clients, World, address, below, one_in, pause_up_to, size, text, timed};

async fn serve(port: ShardedListener, core: CoreId) -> io::Result<()> {
    let listener = port.take(core)?;
    drop(port);
    loop {
        match listener.accept().await {
            Ok(stream) => drop(spawn(echo(stream))),
            Err(error) if error.cancelled().is_some() => return Err(error),
            // Out of descriptors, or a peer that was gone before we looked.
            Err(_) => sleep(Duration::from_millis(50)).await?,
        }
    }
}

async fn echo(stream: TcpStream) -> io::Result<()> {
    while let Some(chunk) = stream.recv().await? {
        stream.write_all(chunk).await.0?;
    }
    Ok(())
}

/// How a client behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manners {
    /// Sends everything, closes its side, and reads to the end.
    Proper,
    /// The same, but takes its time to read.
    Slow,
    /// Goes away in the middle.
    Vanishes,
}

/// Sends pieces of the text, one after the other, as long as it is let.
async fn send(stream: &TcpStream, from: usize, sent: &Cell<usize>, total: usize) -> io::Result<()> {
    while sent.get() < total {
        let part = size().clamp(1, total - sent.get());
        let bytes = text(from + sent.get(), part);
        // Counted before: of a piece that failed, some may have gone out.
        sent.set(sent.get() + part);
        if one_in(2) {
            stream.write_all(bytes).await.0?;
        } else {
            let (head, tail) = bytes.split_at(part / 2);
            let halves = vec![head.to_vec(), tail.to_vec()];
            stream.write_all_vectored(halves).await.0?;
        }
        if one_in(4) {
            pause_up_to(20).await;
        }
    }
    Ok(())
}

/// Reads until the end; returns how much came, which is the text's beginning.
async fn receive(
    stream: &TcpStream,
    from: usize,
    manners: Manners,
    most: usize,
) -> (usize, io::Result<()>) {
    let mut came = 0;
    while came < most {
        let chunk = match stream.recv().await {
            Ok(Some(chunk)) => chunk,
            Ok(None) => break,
            Err(error) => return (came, Err(error)),
        };
        assert!(
            *chunk == *text(from + came, chunk.len()),
            "after {came} bytes something else came back"
        );
        came += chunk.len();
        if manners == Manners::Slow && one_in(4) {
            drop(chunk);
            pause_up_to(100).await;
        }
    }
    (came, Ok(()))
}

/// One connection from its beginning to its end.
async fn converse(world: World) {
    let options = if one_in(3) {
        // The least there is: the server waits often.
        TcpOptions::new().receive_buffer(1)
    } else {
        TcpOptions::new()
    };
    let connected = TcpStream::connect_with(address(), &options).await;
    let Some(stream) = world.allows(connected) else {
        return;
    };
    let manners = match below(5) {
        0 => Manners::Vanishes,
        1 => Manners::Slow,
        _ => Manners::Proper,
    };
    // Together less than half of the text.
    let (from, total) = (below(1 << 18), size() + size() / 2);
    let (stream, sent) = (Rc::new(stream), Rc::new(Cell::new(0)));
    let sending = spawn({
        let (stream, sent) = (Rc::clone(&stream), Rc::clone(&sent));
        async move {
            let outcome = send(&stream, from, &sent, total).await;
            // After a failure as well: or both would wait for each other.
            let ended = stream.shutdown(Shutdown::Write);
            outcome.and(ended)
        }
    });
    let most = match manners {
        Manners::Vanishes => below(total + 1),
        Manners::Proper | Manners::Slow => usize::MAX,
    };
    let (came, received) = receive(&stream, from, manners, most).await;
    assert!(came <= sent.get(), "more came back than was sent");
    if manners == Manners::Vanishes {
        // The sender may be in the middle of a piece.
        let _ = stream.shutdown(Shutdown::Both);
        let _ = sending.await.expect("the sender is not dropped");
        return;
    }
    if received.is_err() {
        // Nobody reads any more: the sender would wait for ever.
        let _ = stream.shutdown(Shutdown::Both);
    }
    let sending = sending.await.expect("the sender is not dropped");
    if world.allows(received.and(sending)).is_some() && world == World::Kind {
        assert_eq!(came, total, "what is missing was lost on the way");
    }
}

fn echo_under(world: World, sim: Sim) {
    world.of(sim).run(|| {
        let cores = 2 + below(2);
        let runtime = Runtime::builder().cores(Cores::Count(cores)).build();
        let runtime = runtime.expect("no fault refuses a ring here");
        let handle = runtime.handle();
        let bound = ShardedListener::bind(address(), &handle);
        let Some(port) = world.allows(bound) else {
            return;
        };
        let serving: Vec<_> = handle
            .cores()
            .into_iter()
            .map(|core| {
                let port = port.clone();
                let serving = handle.spawn(core, move || serve(port, core));
                serving.expect("the mailbox has room")
            })
            .collect();
        drop(port);
        let mut clients = Clients::on(1 + below(2));
        for _ in 0..2 + below(5) {
            clients.start(move || async move {
                for _ in 0..1 + below(2) {
                    converse(world).await;
                }
            });
        }
        clients.end();
        let ((), took) = timed(|| runtime.shutdown(Duration::from_secs(1)));
        assert!(took < Duration::from_secs(2), "the end took {took:?}");
        for core in serving {
            let outcome = core.wait().expect("no panic");
            let error = outcome.expect_err("it serves until it is cancelled");
            assert!(error.cancelled().is_some(), "a core gave up: {error}");
        }
    });
}

#[test]
fn every_byte_comes_back() {
    for_seeds(0..40, |sim| echo_under(World::Kind, sim));
}

#[test]
fn what_comes_back_is_a_beginning_of_what_was_sent() {
    for_seeds(0..40, |sim| echo_under(World::Harsh, sim));
}
