//! A descriptor that is closed while others use it: who waits on it is told, and the number is theirs until
//! the kernel is done.

use std::collections::BTreeSet;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};

use quoit::fs::OpenOptions;
use quoit::op::{self, Listener, PipeReader, PipeWriter, SharedFd, Socket, SocketOption, Stream};
use quoit::sim::{self, Fault};
use quoit::{Closed, Scope, spawn};
use tests::{
    Kernel, Put, beside_another, both_streams, conform, conform_in, gauges, poll_once, quietly,
};

use crate::support::{all_ways, kernel_is_done, pipe, some_turns, waiting};

fn is_closed(error: &io::Error) -> bool {
    let inner = error.get_ref().is_some_and(|inner| inner.is::<Closed>());
    assert_eq!(error.kind() == io::ErrorKind::NotConnected, inner);
    inner
}

fn assert_closed<T: std::fmt::Debug>(result: io::Result<T>) {
    let error = result.expect_err("it is closed");
    assert!(is_closed(&error), "{error:?}");
}

async fn one_byte(reader: SharedFd) -> io::Result<u8> {
    let (count, byte) = op::read(&reader, [0; 1]).await;
    assert_eq!(count?, 1);
    Ok(byte[0])
}

/// Polls a future that waits until what it waits for has come, and lets it lie.
async fn until_it_has_come<F: Future>(mut future: Pin<&mut F>) {
    struct Told(AtomicBool);
    impl Wake for Told {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let told = Arc::new(Told(AtomicBool::new(false)));
    let waker = Waker::from(Arc::clone(&told));
    let poll = future.as_mut().poll(&mut Context::from_waker(&waker));
    assert!(poll.is_pending());
    while !told.0.load(Ordering::Relaxed) {
        some_turns(1).await;
    }
}

/// Returns whether the other end of a pipe is closed.
async fn is_gone(writer: &SharedFd) -> bool {
    match op::write(writer, "?").await.0 {
        Ok(_) => false,
        Err(error) => error.kind() == io::ErrorKind::BrokenPipe,
    }
}

/// The kernel gives the number to nobody as long as it has the read, and it has no other before.
#[test]
fn c168_reader_of_a_descriptor_that_is_closed_is_told() {
    conform(|handle| async move {
        let (reader, writer) = pipe();
        let number = reader.as_raw_fd();
        let before = gauges(&handle).await;
        let (_, task) = waiting(one_byte(reader.clone())).await;
        let other = reader.clone();
        let mut close = pin!(op::close(reader));
        assert!(poll_once(close.as_mut()).await.is_pending());
        assert!(!task.is_finished(), "the kernel still has the read");
        let others: Vec<_> = (0..20).map(|_| pipe()).collect();
        let taken = |(reader, writer): &(SharedFd, SharedFd)| {
            [reader.as_raw_fd(), writer.as_raw_fd()].contains(&number)
        };
        assert!(!others.iter().any(taken), "{number} was used again");
        assert_eq!(close.await.ok(), Some(()));
        assert_closed(task.await.expect("it ended"));
        assert!(is_gone(&writer).await);
        assert_eq!(other.as_raw_fd(), -1);
        let after = kernel_is_done(&handle).await;
        assert_eq!(after.cancel_requests - before.cancel_requests, 1);
        assert_eq!((after.op_slots, after.aborts), (0, before.aborts));
    });
}

/// The cancel of the read is late in the kernel, or too late: the number stays until then.
#[test]
fn c168_number_is_not_used_again_while_an_op_ends_late() {
    for fault in [Fault::CancelledLate, Fault::CancelNotFound] {
        conform(move |_| async move {
            let (reader, writer) = pipe();
            let (_, task) = waiting(one_byte(reader.clone())).await;
            let number = reader.as_raw_fd();
            if Kernel::here().is_simulated() {
                sim::force(fault);
            }
            let close = spawn(op::close(reader));
            while !close.is_finished() {
                let (other, _writer) = pipe();
                // Once the kernel is done with it, the read is told first.
                assert!(task.is_finished() || other.as_raw_fd() != number);
                // Ends a read that nothing else ends.
                let _ = op::write(&writer, "x").await.0;
            }
            close.await.expect("it ended").expect("no error");
            match task.await.expect("it ended") {
                Ok(byte) => assert_eq!(byte, Some(b'x')),
                Err(error) => assert!(is_closed(&error), "{error:?}"),
            }
        });
    }
}

#[test]
fn c168_every_op_on_a_descriptor_that_is_closed_ends() {
    conform(|_| async {
        // Not begun; in line, or in the kernel; there for a while.
        for turns in [0, 1, 4] {
            let (reader, writer) = pipe();
            let reads: Vec<_> = (0..3).map(|_| spawn(one_byte(reader.clone()))).collect();
            let of = reader.clone();
            let readable = spawn(async move { op::poll(&of, libc::POLLIN as u32).await });
            some_turns(turns).await;
            op::close(reader).await.expect("no error");
            for read in reads {
                assert_closed(read.await.expect("it ended"));
            }
            assert_closed(readable.await.expect("it ended"));
            assert!(is_gone(&writer).await);
        }
        let (reader, writer) = pipe();
        let full = writer.clone();
        let write = spawn(async move {
            loop {
                let written = op::write(&full, vec![0; 64 << 10]).await.0;
                if let Err(error) = written {
                    return error;
                }
            }
        });
        some_turns(5).await;
        op::close(writer).await.expect("no error");
        assert!(is_closed(&write.await.expect("it ended")));
        drop(reader);
    });
}

#[test]
fn c168_op_that_begins_after_the_close_is_refused_and_submits_nothing() {
    conform(|handle| async move {
        let (reader, writer) = pipe();
        let others = [reader.clone(), reader.clone(), reader.clone()];
        op::close(reader).await.expect("no error");
        assert!(is_gone(&writer).await);
        let [first, second, third] = others;
        let before = gauges(&handle).await;
        let (count, buf) = op::read(&first, vec![7; 3]).await;
        assert_closed(count);
        assert_eq!(buf, [7; 3], "the buffer comes back");
        assert_closed(op::poll(&first, libc::POLLIN as u32).await);
        assert_closed(op::close(second).await);
        assert!(OwnedFd::try_from(third).is_err());
        let after = gauges(&handle).await;
        assert_eq!(after.completions, before.completions);
        // Where the scope is cancelled, that comes first.
        let scope = Scope::new();
        scope.handle().cancel();
        let outcome = scope.run(op::poll(&first, 1)).await;
        assert!(matches!(outcome, Ok(None)), "{outcome:?}");
    });
}

#[test]
fn c168_op_that_has_nothing_to_transfer_is_refused_after_the_close_as_well() {
    conform_in(&[Put::File("file", b"")], |_, folder| async move {
        let (ours, _theirs) = both_streams().await;
        let none = || Vec::<u8>::new();
        ours.send_all("").await.0.expect("it is open");
        ours.read(none()).await.0.expect("it is open");
        op::close(ours.fd()).await.expect("no error");
        assert_closed(ours.send_all("").await.0);
        assert_closed(ours.send_all_vectored(vec!["", ""]).await.0);
        assert_closed(ours.read(none()).await.0);
        assert_closed(ours.read_exact(none()).await.0);
        let (reader, writer) = pipe();
        let writer = PipeWriter::new(writer).expect("signals can be blocked");
        let reader = PipeReader::new(reader);
        op::close(writer.fd()).await.expect("no error");
        op::close(reader.fd()).await.expect("no error");
        assert_closed(writer.write_all("").await.0);
        assert_closed(reader.read(none()).await.0);
        let options = OpenOptions::new().write(true);
        let file = options
            .open(folder.join("file"))
            .await
            .expect("it is there");
        let other = file.clone();
        file.close().await.expect("no error");
        assert_closed(other.write_all_at("", 0).await.0);
    });
}

/// A send that has ended keeps its turn until its future is looked at, or dropped.
#[test]
fn c168_who_waits_for_the_turn_to_send_is_told_though_nobody_gives_it_up() {
    conform(|_| async {
        for is_dropped in [false, true] {
            let (ours, _theirs) = both_streams().await;
            let ours = Rc::new(ours);
            beside_another();
            let mut first = ours.start_send(vec![0; 10]);
            until_it_has_come(pin!(&mut first)).await;
            let (all, some) = (Rc::clone(&ours), Rc::clone(&ours));
            let (parts, whole) = (Rc::clone(&ours), Rc::clone(&ours));
            let sends = [
                waiting(async move { all.send_all("word").await.0 }).await.1,
                waiting(async move { some.send("word").await.0.map(drop) })
                    .await
                    .1,
                waiting(async move { parts.send_all_vectored(vec!["w", "d"]).await.0 })
                    .await
                    .1,
                waiting(async move { whole.send_zero_copy("word").await.0.map(drop) })
                    .await
                    .1,
            ];
            assert!(
                sends.iter().all(|send| !send.is_finished()),
                "not their turn"
            );
            let close = op::close(ours.fd());
            if is_dropped {
                drop(close);
            } else {
                close.await.expect("no error");
            }
            for send in sends {
                assert_closed(send.await.expect("it ended"));
            }
            // Nor does who comes later wait, or is told that another sends.
            assert_closed(ours.send_all("word").await.0);
            assert_closed(ours.start_send(vec![0; 10]).await.0);
            assert_eq!(first.await.0.expect("it was sent"), 10);
        }
        let (reader, writer) = pipe();
        let writer = Rc::new(PipeWriter::new(writer).expect("signals can be blocked"));
        let (holds, waits) = (Rc::clone(&writer), Rc::clone(&writer));
        beside_another();
        let mut first = pin!(holds.write("word"));
        until_it_has_come(first.as_mut()).await;
        let (_, write) = waiting(async move { waits.write_all("word").await.0 }).await;
        op::close(writer.fd()).await.expect("no error");
        assert_closed(write.await.expect("it ended"));
        assert_eq!(first.await.0.expect("it was written"), 4);
        drop(reader);
    });
}

#[test]
fn c168_close_in_a_cancelled_scope_ends_the_reads_of_others() {
    conform(|_| async {
        let (reader, writer) = pipe();
        let (_, task) = waiting(one_byte(reader.clone())).await;
        let scope = Scope::new();
        scope.handle().cancel();
        let outcome = scope.run(op::close(reader)).await;
        assert!(matches!(outcome, Ok(Some(()))), "{outcome:?}");
        assert_closed(task.await.expect("it ended"));
        assert!(is_gone(&writer).await);
        // And a close that is cancelled while it waits.
        let (reader, writer) = pipe();
        let (_, task) = waiting(one_byte(reader.clone())).await;
        let scope = Scope::new();
        let cancel = scope.handle();
        let close = spawn(async move { scope.run(op::close(reader)).await });
        cancel.cancel();
        let outcome = close.await.expect("it ended");
        assert!(matches!(outcome, Ok(Some(()))), "{outcome:?}");
        assert_closed(task.await.expect("it ended"));
        assert!(is_gone(&writer).await);
    });
}

/// Dropped before its first poll, or while it waits for the read.
#[test]
fn c168_close_that_is_dropped_ends_the_reads_of_others() {
    conform(|handle| async move {
        for polled in [false, true] {
            let (reader, writer) = pipe();
            let (_, task) = waiting(one_byte(reader.clone())).await;
            let another = reader.clone();
            {
                let mut close = pin!(op::close(reader));
                if polled {
                    assert!(poll_once(close.as_mut()).await.is_pending());
                }
            }
            assert_closed(op::poll(&another, 1).await);
            assert_closed(task.await.expect("it ended"));
            assert!(is_gone(&writer).await);
            assert_eq!(another.as_raw_fd(), -1);
            kernel_is_done(&handle).await;
        }
    });
}

/// The future of an op need not be polled for the descriptor to be closed.
#[test]
fn c168_close_waits_for_the_kernel_and_for_no_task() {
    conform(|_| async {
        let (reader, writer) = pipe();
        let mut read = Box::pin({
            let reader = reader.clone();
            async move { op::read(&reader, [0; 4]).await.0 }
        });
        assert!(poll_once(read.as_mut()).await.is_pending());
        let mut lost = Box::pin(one_byte(reader.clone()));
        assert!(poll_once(lost.as_mut()).await.is_pending());
        op::nop().await.expect("they wait in the kernel");
        drop(lost);
        op::close(reader).await.expect("no error");
        assert!(is_gone(&writer).await);
        assert_closed(read.await);
    });
}

#[test]
fn c168_result_that_was_there_before_the_close_is_returned() {
    conform(|_| async {
        let (reader, writer) = pipe();
        let mut read = pin!(one_byte(reader.clone()));
        let write = spawn(async move { op::write(&writer, "x").await.0 });
        until_it_has_come(read.as_mut()).await;
        write.await.expect("it ended").expect("room");
        op::close(reader).await.expect("no error");
        match read.await {
            Ok(byte) => assert_eq!(byte, b'x'),
            // The read was interrupted before it had the byte, which is the pipe's still.
            Err(error) => {
                assert!(is_closed(&error), "{error:?}");
                assert_eq!(Kernel::here(), Kernel::Unruly, "it had come");
            }
        }
    });
}

/// In whatever order a byte, the close and the kernel's answers come: the reader has the byte, or is told.
#[test]
fn c168_of_a_byte_and_a_close_the_first_counts() {
    let mut ways = BTreeSet::new();
    for (write_after, close_after) in [(0, 1), (0, 0), (1, 0)] {
        ways.extend(all_ways(|| byte_and_close(write_after, close_after)));
    }
    assert_eq!(ways, [false, true].into());
}

/// Returns whether the reader has the byte.
fn byte_and_close(write_after: u32, close_after: u32) -> bool {
    quietly(move |_| async move {
        let (reader, writer) = pipe();
        let mut read = pin!(one_byte(reader.clone()));
        assert!(poll_once(read.as_mut()).await.is_pending());
        let write = spawn(async move {
            some_turns(write_after).await;
            op::write(&writer, "x").await.0
        });
        some_turns(close_after).await;
        op::close(reader).await.expect("no error");
        let outcome = read.await;
        let written = write.await.expect("it ended");
        match outcome {
            Ok(byte) => assert_eq!((byte, written.ok()), (b'x', Some(1))),
            Err(error) => {
                assert!(is_closed(&error), "{error:?}");
                return false;
            }
        }
        true
    })
}

/// Returns whether all that was there was read: an unruly kernel may bring less.
fn is_whole(read: &[u8], all: &[u8]) -> bool {
    let may_be_less = Kernel::here() == Kernel::Unruly;
    read == all || (may_be_less && all.starts_with(read))
}

#[test]
fn c168_receiver_of_a_stream_that_is_closed_is_told_and_loses_nothing() {
    conform(|_| async move {
        let (ours, theirs) = both_streams().await;
        let ours = Rc::new(ours);
        let (_, task) = waiting({
            let ours = Rc::clone(&ours);
            async move { ours.receive().await }
        })
        .await;
        op::close(ours.fd()).await.expect("no error");
        assert_closed(task.await.expect("it ended"));
        assert_closed(ours.receive().await);
        assert_closed(ours.send_all("x").await.0);
        assert_closed(ours.set(SocketOption::NoDelay(true)));
        assert_closed(ours.local_addr());
        assert_closed(ours.with_socket(|_| ()));
        assert!(theirs.receive().await.expect("no error").is_none());
        let ours = Rc::into_inner(ours).expect("ours alone");
        assert_closed(ours.close().await);

        // Bytes that the stream has taken already come first.
        let (ours, theirs) = both_streams().await;
        let sent = spawn(async move { (theirs.send_all("first").await.0, theirs) });
        let mut receive = pin!(ours.receive());
        until_it_has_come(receive.as_mut()).await;
        op::close(ours.fd()).await.expect("no error");
        // An unruly kernel may bring it in pieces, or interrupt the receive before.
        let (mut came, mut end) = (Vec::new(), receive.await);
        while let Ok(piece) = end {
            came.extend_from_slice(&piece.expect("no end"));
            end = ours.receive().await;
        }
        assert_closed(end);
        assert!(is_whole(&came, b"first"), "{came:?}");
        sent.await.expect("it ended").0.expect("room");
    });
}

fn listening() -> io::Result<(Listener, SocketAddr)> {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let socket = Socket::tcp(any)?;
    socket.bind(any)?;
    socket.listen(16)?;
    let listener = Listener::new(socket);
    let address = listener.local_addr()?;
    Ok((listener, address))
}

#[test]
fn c168_acceptor_of_a_listener_that_is_closed_is_told_and_loses_nothing() {
    conform(|_| async {
        let (listener, address) = listening().expect("a free port");
        let listener = Rc::new(listener);
        let (_, task) = waiting({
            let listener = Rc::clone(&listener);
            async move { listener.accept().await }
        })
        .await;
        op::close(listener.fd()).await.expect("no error");
        assert_closed(task.await.expect("it ended"));
        assert_closed(listener.accept().await);
        assert_closed(listener.local_addr());
        let socket = Socket::tcp(address).expect("a socket");
        let refused = Stream::connect(socket, address.into()).await.map(drop);
        let refused = refused.map_err(|error| error.kind());
        assert_eq!(refused, Err(io::ErrorKind::ConnectionRefused));
        let listener = Rc::into_inner(listener).expect("ours alone");
        assert!(listener.finish().await.is_empty());

        // A connection that was accepted already comes first.
        let (listener, address) = listening().expect("a free port");
        let theirs =
            spawn(async move { Stream::connect(Socket::tcp(address)?, address.into()).await });
        let mut accept = pin!(listener.accept());
        until_it_has_come(accept.as_mut()).await;
        op::close(listener.fd()).await.expect("no error");
        match accept.await {
            Ok(accepted) => drop(accepted),
            // The accept was interrupted before it had taken one: the connection is the listener's still.
            Err(error) => {
                assert!(is_closed(&error), "{error:?}");
                assert_eq!(Kernel::here(), Kernel::Unruly, "it had been made");
            }
        }
        assert_closed(listener.accept().await);
        theirs.await.expect("it ended").expect("it was accepted");
    });
}

/// An op on a file cannot be stopped once it runs: the close waits for it.
#[test]
fn c168_read_of_a_file_that_is_closed_returns_its_bytes_or_never_began() {
    conform_in(&[], |_, folder| async move {
        let path = folder.join("file");
        let options = OpenOptions::new().read(true).write(true).create(true);
        let file = options.open(&path).await.expect("a new file");
        file.write_all_at("content", 0).await.0.expect("room");
        let fd = file.fd().clone();
        beside_another();
        let mut read = pin!(op::read_at(&fd, vec![0; 7], 0));
        assert!(poll_once(read.as_mut()).await.is_pending());
        file.close().await.expect("no error");
        let (count, buf) = read.await;
        match count {
            Ok(count) => assert!(is_whole(&buf[..count], b"content"), "{buf:?}"),
            Err(error) => assert!(is_closed(&error), "{error:?}"),
        }
    });
}

/// Code that has been given the socket may close it: not while it has it.
#[test]
fn c168_socket_is_not_closed_under_the_code_that_was_given_it() {
    quietly(|_| async {
        if Kernel::here().is_simulated() {
            return;
        }
        let (ours, theirs) = both_streams().await;
        let closed = ours.with_socket(|socket| {
            drop(op::close(ours.fd()));
            socket.local_addr().is_ok()
        });
        assert!(closed.expect("it was open"));
        assert!(theirs.receive().await.expect("no error").is_none());
        assert_eq!(ours.fd().as_raw_fd(), -1);
    });
}
