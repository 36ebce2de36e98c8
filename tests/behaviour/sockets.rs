//! TCP, end to end: what arrives, what ends, what fails and how it is said.

use std::cell::RefCell;
use std::fmt::Debug;
use std::future::Future;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::task::Poll;
use std::thread;
use std::time::Duration;

use quoit::buf::{Interrupted, IoBufMut, SliceExt};
use quoit::op::{self, SharedFd, Stream};
use quoit::sim::{Fault, Faults, for_seeds};
use quoit::sync::Event;
use quoit::time::{Instant, sleep};
use quoit::{Cancelled, Cores, Handle, JoinHandle, Runtime, Scope, group, spawn, yield_now};
use quoit_net::tcp::TcpOptions;
use quoit_net::{ShardedListener, TcpListener, TcpStream};
use rustix::fs::OFlags;
use socket2::{Domain, Type};
use tests::{
    Kernel, allow_descriptors, both_ends, both_ends_with, both_streams, bytes, gauges, on_both,
    on_core, on_ring, poll_once, receive_all, receive_exactly, refusing_address, reset_from_afar,
};

const LOCALHOST: &str = "127.0.0.1:0";

/// How long what is to end by itself is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// More than the sockets of a connection take.
fn big() -> usize {
    match Kernel::here() {
        Kernel::Real => 8 << 20,
        Kernel::Simulated | Kernel::Unruly => 512 << 10,
    }
}

// --- accepting ---

#[test]
fn a_listener_that_pauses_hands_over_what_it_has_taken_and_takes_no_more() {
    on_core(|_| async {
        let address = "127.0.0.1:0".parse().expect("an address");
        let socket = TcpOptions::new().listen(address).expect("a free port");
        let address = socket.local_addr().expect("bound");
        let listener = op::Listener::new(socket);
        let mut clients = Vec::new();
        for _ in 0..5 {
            clients.push(TcpStream::connect(address).await.expect("it listens"));
        }
        let mut accepted = vec![listener.accept().await.expect("five wait")];
        accepted.extend(listener.pause().await);
        clients.push(TcpStream::connect(address).await.expect("it waits"));
        sleep(Duration::from_millis(5))
            .await
            .expect("not cancelled");
        let more = listener.pause().await.len();
        assert_eq!(more, 0, "taken from the kernel though nobody waits");
        while accepted.len() < 6 {
            accepted.push(listener.accept().await.expect("one waits"));
        }
    });
}

#[test]
fn an_accept_of_one_takes_one() {
    on_core(|_| async {
        let address = "127.0.0.1:0".parse().expect("an address");
        let socket = TcpOptions::new().listen(address).expect("a free port");
        let address = socket.local_addr().expect("bound");
        let listener = op::Listener::new(socket);
        let mut clients = Vec::new();
        for _ in 0..5 {
            clients.push(TcpStream::connect(address).await.expect("it listens"));
        }
        for _ in 0..4 {
            drop(listener.accept_one().await.expect("some wait"));
            sleep(Duration::from_millis(5))
                .await
                .expect("not cancelled");
            let more = listener.pause().await.len();
            assert_eq!(more, 0, "taken though nobody waits");
        }
        assert_eq!(listener.finish().await.len(), 1, "the fifth waits");
    });
}

async fn listening_here() -> (Rc<op::Listener>, SocketAddr) {
    let address = "127.0.0.1:0".parse().expect("an address");
    let socket = TcpOptions::new().listen(address).expect("a free port");
    let address = socket.local_addr().expect("bound");
    (Rc::new(op::Listener::new(socket)), address)
}

#[test]
fn a_pause_takes_nothing_from_whoever_waits_for_a_connection() {
    for one in [false, true] {
        on_core(move |_| async move {
            let (listener, address) = listening_here().await;
            let ours = Rc::clone(&listener);
            let waits = spawn(async move {
                match one {
                    true => ours.accept_one().await,
                    false => ours.accept().await,
                }
            });
            op::nop().await.expect("nobody cancels");
            assert!(listener.pause().await.is_empty());
            let _theirs = TcpStream::connect(address).await.expect("it listens");
            waits.await.expect("no panic").expect("one has come");
            assert!(listener.pause().await.is_empty());
        });
    }
}

#[test]
fn who_would_wait_for_a_connection_in_a_pause_is_told_so() {
    on_core(|_| async {
        let (listener, address) = listening_here().await;
        assert!(poll_once(pin!(listener.accept())).await.is_pending());
        op::nop().await.expect("nobody cancels");
        let mut pause = pin!(listener.pause());
        assert!(poll_once(pause.as_mut()).await.is_pending());
        let refused = listener.accept().await.map(drop);
        let kind = refused.map_err(|error| error.kind());
        assert_eq!(kind, Err(io::ErrorKind::ResourceBusy));
        assert!(pause.await.is_empty());
        // One that is given up leaves nobody out.
        assert!(poll_once(pin!(listener.accept())).await.is_pending());
        assert!(poll_once(pin!(listener.pause())).await.is_pending());
        let _theirs = TcpStream::connect(address).await.expect("it listens");
        listener.accept().await.expect("one waits");
    });
}

// --- connecting ---

#[test]
fn both_ends_know_each_other_s_address() {
    on_core(|_| async {
        let (ours, theirs) = both_ends().await;
        let address = |outcome: io::Result<SocketAddr>| outcome.expect("connected");
        assert_eq!(address(ours.local_addr()), address(theirs.peer_addr()));
        assert_eq!(address(ours.peer_addr()), address(theirs.local_addr()));
        ours.set_no_delay(false).expect("an option");
    });
}

/// The kernel counts seconds, and not many of them.
#[test]
fn the_beginning_and_the_end_of_a_connection_are_acknowledged_as_a_byte_each() {
    on_core(|_| async {
        let (dialled, accepted) = both_streams().await;
        for (ours, theirs, begin) in [(&dialled, &accepted, 1), (&accepted, &dialled, 0)] {
            // It may be said a little after the bytes have come.
            let come_to = async |expected| {
                loop {
                    let count = ours.bytes_acknowledged().expect("connected");
                    if count >= expected {
                        return count;
                    }
                    op::nop().await.expect("nobody cancels");
                }
            };
            assert_eq!(come_to(begin).await, begin);
            ours.send_all([7; 10]).await.0.expect("there is room");
            let (read, _) = theirs.read_exact([0; 10]).await;
            read.expect("it was sent");
            assert_eq!(come_to(begin + 10).await, begin + 10);
            ours.shutdown(Shutdown::Write).expect("connected");
            assert!(theirs.receive().await.expect("no error").is_none());
            assert_eq!(come_to(begin + 11).await, begin + 11);
        }
    });
}

#[test]
fn a_keep_alive_of_any_length_is_taken() {
    on_core(|_| async {
        for (after, seconds) in [
            (Duration::ZERO, 1),
            (Duration::from_nanos(1), 1),
            (Duration::from_millis(1_500), 2),
            (Duration::from_secs(60), 60),
            (Duration::from_secs(12 * 3_600), 32_767),
            (Duration::MAX, 32_767),
        ] {
            let options = TcpOptions::new().keep_alive(Some(after));
            let listener = TcpListener::bind_with(LOCALHOST, &options);
            let listener = listener.unwrap_or_else(|error| panic!("{after:?}: {error}"));
            let ours = TcpStream::connect_with(listener.local_addr(), &options).await;
            let theirs = listener.accept().await.expect("somebody connects");
            for stream in [ours.expect("it listens"), theirs] {
                let told = Stream::from(stream).with_socket(|socket| socket.tcp_keepalive_time());
                if !Kernel::here().is_simulated() {
                    let told = told.expect("a socket").expect("an option");
                    assert_eq!(told, Duration::from_secs(seconds), "{after:?}");
                }
            }
        }
    });
}

#[test]
fn a_buffer_that_is_larger_than_any_is_as_large_as_can_be() {
    on_ring(|_| async {
        let listener = TcpListener::bind(LOCALHOST).expect("a free port");
        let mut sizes = Vec::new();
        for bytes in [1 << 30, 1 << 32] {
            let options = TcpOptions::new().send_buffer(bytes).receive_buffer(bytes);
            let ours = TcpStream::connect_with(listener.local_addr(), &options).await;
            let ours = Stream::from(ours.expect("it listens"));
            let both = |socket: &socket2::Socket| {
                Ok::<_, io::Error>((socket.send_buffer_size()?, socket.recv_buffer_size()?))
            };
            sizes.push(ours.with_socket(both).expect("a socket").expect("options"));
        }
        assert_eq!(sizes[0], sizes[1]);
    });
}

#[test]
fn a_connection_over_ipv6_works() {
    on_core(|_| async {
        let Ok(listener) = TcpListener::bind("[::1]:0") else {
            // This machine has no IPv6.
            return;
        };
        let ours = TcpStream::connect(listener.local_addr()).await;
        let ours = ours.expect("it listens");
        let theirs = listener.accept().await.expect("somebody connects");
        ours.write_all("six").await.0.expect("connected");
        assert_eq!(receive_exactly(&theirs, 3).await, b"six");
    });
}

#[test]
fn a_refused_connect_names_the_address() {
    on_core(|_| async {
        let address = refusing_address().await;
        let error = TcpStream::connect(address).await.expect_err("nobody there");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        let text = error.to_string();
        assert!(text.contains(&address.to_string()), "{text}");
    });
}

#[test]
fn connections_that_wait_are_all_accepted() {
    on_core(|_| async {
        // More than a listener takes out of the kernel ahead of its task.
        const WAITING: usize = 400;
        let listener = TcpListener::bind(LOCALHOST).expect("a free port");
        let mut open = Vec::new();
        for _ in 0..WAITING {
            let theirs = TcpStream::connect(listener.local_addr()).await;
            open.push(theirs.expect("the queue has room"));
        }
        let mut accepted = Vec::new();
        for _ in 0..WAITING {
            let stream = listener.accept().await.expect("one more waits");
            accepted.push(stream.peer_addr().expect("connected"));
        }
        let expected: Vec<_> = open
            .iter()
            .map(|theirs| theirs.local_addr().expect("connected"))
            .collect();
        assert_eq!(accepted, expected, "they come in order");
    });
}

#[test]
fn a_listener_that_is_gone_refuses() {
    on_core(|_| async {
        let outcome = Scope::new()
            .run(async {
                let listener = TcpListener::bind(LOCALHOST)?;
                let mut accept = pin!(listener.accept());
                assert!(poll_once(accept.as_mut()).await.is_pending());
                op::nop().await?;
                Ok::<_, io::Error>(listener.local_addr())
            })
            .await;
        // The scope has ended, and with it the accept that kept the socket open.
        let address = outcome.expect("no error").expect("a value");
        let error = TcpStream::connect(address).await;
        let error = error.expect_err("nobody listens");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    });
}

/// Whoever has the same socket as well, such as a supervisor, goes on with it as it was.
#[test]
fn a_listener_that_is_also_somebody_else_s_stays_as_it_was() {
    on_ring(|_| async {
        for is_nonblocking in [false, true] {
            let theirs = std::net::TcpListener::bind(LOCALHOST).expect("a free port");
            let told = theirs.set_nonblocking(is_nonblocking);
            told.expect("a flag");
            let ours = theirs.try_clone().expect("a descriptor");
            let ours = TcpListener::from_std(ours).expect("it listens");
            let mut accept = Box::pin(ours.accept());
            assert!(poll_once(accept.as_mut()).await.is_pending());
            op::nop().await.expect("the accept is in the kernel");
            let first = TcpStream::connect(ours.local_addr()).await;
            drop(accept.await.expect("it waits, whatever the flag says"));
            let second = TcpStream::connect(ours.local_addr()).await;
            assert_eq!(ours.finish().await.len(), 1);
            let flags = rustix::fs::fcntl_getfl(&theirs).expect("flags");
            assert_eq!(flags.contains(OFlags::NONBLOCK), is_nonblocking);
            first.and(second).expect("it listened");
        }
    });
}

/// A socket of somebody else's making, which may be one that does not wait.
#[test]
fn a_stream_over_a_socket_that_does_not_block_waits() {
    on_ring(|_| async {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        ours.set_nonblocking(true).expect("a flag");
        theirs.set_nonblocking(true).expect("a flag");
        let [ours, theirs] = [ours, theirs].map(|end| Stream::new(OwnedFd::from(end).into()));
        let mut receive = Box::pin(ours.receive());
        assert!(poll_once(receive.as_mut()).await.is_pending());
        op::nop().await.expect("the receive is in the kernel");
        theirs.send_all("word").await.0.expect("connected");
        let chunk = receive.await.expect("it waits").expect("no end");
        assert_eq!(&*chunk, b"word");
        // More than it takes at once, by either way.
        let sent = bytes(big(), 3);
        let expected = sent.clone();
        let sending = spawn(async move {
            theirs.send_all(sent).await.0?;
            theirs.send_all_vectored(vec!["and", "more"]).await.0
        });
        let mut got = Vec::new();
        while let Some(chunk) = ours.receive().await.expect("an orderly end") {
            got.extend_from_slice(&chunk);
        }
        sending.await.expect("no panic").expect("it waits");
        assert!(got == [&*expected, b"andmore"].concat());
    });
}

#[test]
fn connections_that_nobody_took_are_closed_with_the_listener() {
    on_core(|_| async {
        let listener = TcpListener::bind(LOCALHOST).expect("a free port");
        let mut open = Vec::new();
        for _ in 0..3 {
            let theirs = TcpStream::connect(listener.local_addr()).await;
            open.push(theirs.expect("it listens"));
        }
        // All three are taken out of the kernel; one of them by us.
        let first = listener.accept().await.expect("three wait");
        op::nop().await.expect("not cancelled");
        let outcome = Scope::new()
            .run(async move {
                drop(listener);
                op::nop().await
            })
            .await;
        outcome.expect("no error").expect("a value");
        first.write_all("x").await.0.expect("connected");
        assert_eq!(receive_exactly(&open[0], 1).await, b"x");
        for theirs in &open[1..] {
            let ended = theirs.recv().await;
            assert!(
                matches!(&ended, Ok(None))
                    || ended
                        .as_ref()
                        .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset),
                "{ended:?}"
            );
        }
    });
}

#[test]
fn two_accepts_on_one_listener_are_one_too_many() {
    on_core(|_| async {
        let listener = TcpListener::bind(LOCALHOST).expect("a free port");
        let mut first = pin!(listener.accept());
        assert!(poll_once(first.as_mut()).await.is_pending());
        let error = listener.accept().await.expect_err("another waits");
        assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
        let theirs = TcpStream::connect(listener.local_addr()).await;
        let _theirs = theirs.expect("it listens");
        first.await.expect("the first one's");
    });
}

// --- binding ---

#[test]
fn an_address_in_use_is_named_with_what_to_do() {
    on_core(|_| async {
        let listener = TcpListener::bind(LOCALHOST).expect("a free port");
        let address = listener.local_addr();
        let error = TcpListener::bind(address).expect_err("in use");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        let text = error.to_string();
        assert!(
            text.contains(&format!("cannot listen on {address}")),
            "{text}"
        );
        assert!(text.contains("another program listens there"), "{text}");
        drop(listener);
        TcpListener::bind(address).expect("free again at once");
    });
}

#[test]
fn a_port_is_free_again_while_old_connections_linger() {
    on_core(|_| async {
        let outcome = Scope::new()
            .run(async {
                let listener = TcpListener::bind(LOCALHOST)?;
                let address = listener.local_addr();
                let ours = TcpStream::connect(address).await?;
                let theirs = listener.accept().await?;
                // The side that closes first lingers, on the listener's port.
                theirs.close().await?;
                assert!(ours.recv().await?.is_none());
                ours.close().await?;
                Ok::<_, io::Error>(address)
            })
            .await;
        // The scope has ended, and with it the accept that kept the socket open.
        let address = outcome.expect("no error").expect("a value");
        TcpListener::bind(address).expect("free again at once");
    });
}

#[test]
fn an_address_of_no_interface_is_named_with_what_to_do() {
    on_core(|_| async {
        // An address that is kept for documents.
        let error = TcpListener::bind("192.0.2.1:0").expect_err("not ours");
        assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
        let text = error.to_string();
        assert!(text.contains("192.0.2.1:0"), "{text}");
        assert!(text.contains("no interface of this machine"), "{text}");
    });
}

#[test]
fn a_name_for_no_address_is_named_so() {
    on_core(|_| async {
        let none: &[SocketAddr] = &[];
        let error = TcpListener::bind(none).expect_err("no address");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    });
}

#[test]
fn of_several_addresses_the_first_that_works_is_taken() {
    on_core(|_| async {
        let both: [SocketAddr; 2] = [
            "192.0.2.1:0".parse().expect("an address"),
            LOCALHOST.parse().expect("an address"),
        ];
        let listener = TcpListener::bind(&both[..]).expect("the second works");
        assert!(listener.local_addr().ip().is_loopback());
    });
}

#[test]
fn a_port_is_shared_only_if_all_say_so() {
    on_core(|_| async {
        let first = TcpListener::bind_shared(LOCALHOST).expect("a free port");
        let second = TcpListener::bind_shared(first.local_addr()).expect("both share");
        assert_eq!(first.local_addr(), second.local_addr());
        let error = TcpListener::bind(first.local_addr()).expect_err("this one does not");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    });
}

#[test]
fn a_sharded_port_is_served_by_every_core() {
    const CONNECTIONS: usize = 200;
    on_both(|| {
        let runtime = Runtime::builder().cores(Cores::All).build().expect("cores");
        let cores = runtime.handle().cores().len();
        let any: SocketAddr = LOCALHOST.parse().expect("an address");
        let port = ShardedListener::bind(any, &runtime.handle()).expect("a free port");
        let address = port.local_addr();
        let handle = runtime.handle();
        let served: Arc<Vec<AtomicUsize>> =
            Arc::new((0..cores).map(|_| AtomicUsize::new(0)).collect());
        let counters = Arc::clone(&served);
        let elsewhere = Runtime::builder()
            .cores(Cores::Count(1))
            .build()
            .expect("a core");
        let core = elsewhere.handle().cores()[0];
        let peer = elsewhere.handle().spawn(core, move || async move {
            for _ in 0..CONNECTIONS {
                let stream = TcpStream::connect(address).await.expect("it listens");
                assert_eq!(receive_all(&stream).await, b"served");
            }
            handle.shutdown();
        });
        let outcome = runtime.run(move |core| {
            let (port, served) = (port.clone(), Arc::clone(&counters));
            async move {
                let listener = port.take(core)?;
                let again = port.take(core).expect_err("taken already");
                assert_eq!(again.kind(), io::ErrorKind::NotFound);
                loop {
                    let stream = listener.accept().await?;
                    served[core.index()].fetch_add(1, Ordering::Relaxed);
                    stream.write_all("served").await.0?;
                    stream.close().await?;
                }
                #[expect(unreachable_code, reason = "it says what the main would return")]
                Ok::<(), io::Error>(())
            }
        });
        outcome.expect("the shutdown ended it");
        peer.expect("room")
            .wait()
            .expect("every connection was served");
        let served: Vec<usize> = served
            .iter()
            .map(|count| count.load(Ordering::Relaxed))
            .collect();
        assert_eq!(served.iter().sum::<usize>(), CONNECTIONS);
        assert!(served.iter().all(|&count| count > 0), "{served:?}");
    });
}

#[test]
fn a_sharded_port_is_not_shared_with_a_stranger() {
    on_both(|| {
        let runtime = Runtime::builder()
            .cores(Cores::Count(1))
            .build()
            .expect("a");
        let stranger = TcpOptions::new()
            .reuse_port(true)
            .listen(LOCALHOST.parse().expect("an address"))
            .expect("a free port");
        let address = stranger.local_addr().expect("bound");
        let error = ShardedListener::bind(address, &runtime.handle()).expect_err("in use");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    });
}

// --- reading ---

/// Sends "hello", and reads it into `buf`.
async fn hello_into<B: IoBufMut>(buf: B) -> (usize, B) {
    let (ours, theirs) = both_ends().await;
    theirs
        .write_all("hello")
        .await
        .0
        .expect("the socket takes it");
    let (count, buf) = ours.read(buf).await;
    (count.expect("no error"), buf)
}

/// Checks what a read gave, which may be less than there was if the kernel is unruly.
fn holds<B: PartialEq + Debug>(count: usize, buf: B, expected: (usize, B)) {
    if Kernel::here().counts_exactly() {
        assert_eq!((count, buf), expected);
    } else {
        assert!((1..=expected.0).contains(&count), "{count} bytes");
    }
}

/// Checks what a read of "hello" makes of `buf`.
async fn reads_hello<B: IoBufMut + PartialEq + Debug>(buf: B, expected: (usize, B)) {
    let (count, buf) = hello_into(buf).await;
    holds(count, buf, expected);
}

#[test]
fn bytes_are_read_into_every_kind_of_buffer() {
    on_core(|_| async {
        reads_hello(Vec::with_capacity(64), (5, b"hello".to_vec())).await;
        reads_hello(vec![7; 64], (5, b"hello".to_vec())).await;
        reads_hello([0; 7], (5, *b"hello\0\0")).await;
        reads_hello([0; 3], (3, *b"hel")).await;
        let boxed: Box<[u8]> = vec![0; 6].into();
        reads_hello(boxed, (5, b"hello\0".to_vec().into())).await;
        let (count, part) = hello_into(vec![b'>'; 8].slice(2..)).await;
        holds(count, part.into_inner(), (5, b">>hello>".to_vec()));
        let (count, part) = hello_into([b'.'; 8].slice(1..4)).await;
        holds(count, part.into_inner(), (3, *b".hel...."));
        assert_eq!(hello_into([0; 0]).await.0, 0);
        assert_eq!(hello_into(Vec::new()).await, (0, Vec::new()));
    });
}

#[test]
fn what_a_small_buffer_left_is_read_next() {
    on_core(|_| async {
        let (ours, theirs) = both_ends().await;
        theirs
            .write_all("abcdefg")
            .await
            .0
            .expect("the socket takes it");
        theirs.shutdown(Shutdown::Write).expect("connected");
        let mut all = Vec::new();
        loop {
            let (count, buf) = ours.read([0; 2]).await;
            match count.expect("no error") {
                0 => break,
                count => all.extend_from_slice(&buf[..count]),
            }
        }
        assert_eq!(all, b"abcdefg");
    });
}

#[test]
fn the_end_of_a_stream_stays_its_end() {
    on_core(|_| async {
        let (ours, theirs) = both_ends().await;
        drop(theirs);
        for _ in 0..3 {
            assert!(ours.recv().await.expect("an orderly end").is_none());
            let (count, buf) = ours.read([7; 4]).await;
            assert_eq!((count.expect("no error"), buf), (0, [7; 4]));
        }
    });
}

#[test]
fn one_direction_ends_and_the_other_goes_on() {
    on_core(|_| async {
        let (ours, theirs) = both_ends().await;
        ours.write_all("question").await.0.expect("connected");
        ours.shutdown(Shutdown::Write).expect("connected");
        assert_eq!(receive_all(&theirs).await, b"question");
        theirs.write_all("answer").await.0.expect("connected");
        theirs.shutdown(Shutdown::Write).expect("connected");
        assert_eq!(receive_all(&ours).await, b"answer");
        let (outcome, _) = ours.write_all("more").await;
        let error = outcome.expect_err("this direction has ended");
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    });
}

#[test]
fn a_shutdown_for_reading_ends_a_receive() {
    on_core(|_| async {
        let (ours, _theirs) = both_ends().await;
        let mut receive = pin!(ours.recv());
        assert!(poll_once(receive.as_mut()).await.is_pending());
        ours.shutdown(Shutdown::Read).expect("connected");
        assert!(receive.await.expect("no error").is_none());
    });
}

#[test]
fn a_peer_that_resets_ends_a_receive_with_an_error() {
    on_core(|_| async {
        for armed_first in [true, false] {
            let (ours, theirs) = both_ends().await;
            let mut receive = pin!(ours.recv());
            if armed_first {
                assert!(poll_once(receive.as_mut()).await.is_pending());
                op::nop().await.expect("it is in the kernel");
            }
            reset_from_afar(&ours, theirs).await;
            let error = receive.await.expect_err("the peer reset");
            assert_eq!(error.raw_os_error(), Some(libc::ECONNRESET));
            let (outcome, buf) = ours.write_all(vec![1, 2, 3]).await;
            let error = outcome.expect_err("nobody there");
            assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
            assert_eq!(buf, [1, 2, 3]);
        }
    });
}

#[test]
fn two_receivers_on_one_stream_are_one_too_many() {
    on_core(|_| async {
        let (ours, theirs) = both_ends().await;
        let mut first = pin!(ours.recv());
        assert!(poll_once(first.as_mut()).await.is_pending());
        let error = ours.recv().await.expect_err("another waits");
        assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
        let (outcome, buf) = ours.read([3; 4]).await;
        let error = outcome.expect_err("another waits");
        assert_eq!((error.kind(), buf), (io::ErrorKind::ResourceBusy, [3; 4]));
        theirs.write_all("!").await.0.expect("room");
        let chunk = first.await.expect("no error").expect("no end");
        assert_eq!(&*chunk, b"!");
    });
}

// --- writing ---

#[test]
fn every_kind_of_buffer_is_written() {
    on_core(|_| async {
        let (ours, theirs) = both_ends().await;
        ours.write_all("static ").await.0.expect("connected");
        ours.write_all(b"bytes ".as_slice())
            .await
            .0
            .expect("connected");
        ours.write_all(String::from("string "))
            .await
            .0
            .expect("connected");
        ours.write_all(b"vector ".to_vec())
            .await
            .0
            .expect("connected");
        ours.write_all(*b"array ").await.0.expect("connected");
        let boxed: Box<[u8]> = b"box ".to_vec().into();
        ours.write_all(boxed).await.0.expect("connected");
        let part = b"<<slice >>".to_vec().slice(2..8);
        ours.write_all(part).await.0.expect("connected");
        ours.write_all(Vec::new()).await.0.expect("nothing to do");
        ours.write_all("").await.0.expect("nothing to do");
        ours.shutdown(Shutdown::Write).expect("connected");
        let all = receive_all(&theirs).await;
        assert_eq!(
            String::from_utf8(all).expect("text"),
            "static bytes string vector array box slice "
        );
    });
}

#[test]
fn a_chunk_is_written_as_it_is() {
    on_core(|_| async {
        let (ours, theirs) = both_ends().await;
        ours.write_all("twice").await.0.expect("connected");
        let mut chunk = theirs.recv().await.expect("no error").expect("no end");
        if chunk.len() < 5 {
            // An unruly kernel gave less of it.
            return;
        }
        chunk.advance(2);
        let (outcome, chunk) = theirs.write_all(chunk).await;
        outcome.expect("connected");
        assert_eq!(&*chunk, b"ice");
        assert_eq!(receive_exactly(&ours, 3).await, b"ice");
    });
}

/// Reads to the end in small pieces, in a task of its own.
fn slow_reader(stream: TcpStream) -> JoinHandle<Vec<u8>> {
    spawn(async move {
        let mut all = Vec::new();
        loop {
            let (count, piece) = stream.read(vec![0; 1500]).await;
            match count.expect("an orderly end") {
                0 => return all,
                _ => all.extend_from_slice(&piece),
            }
            yield_now().await.expect("nobody cancels");
        }
    })
}

#[test]
fn a_large_buffer_is_written_whole_to_a_slow_reader() {
    on_core(|_| async {
        let sent = bytes(big(), 3);
        let (ours, theirs) = both_ends().await;
        let reader = slow_reader(theirs);
        let (outcome, sent) = ours.write_all(sent).await;
        outcome.expect("somebody reads");
        ours.shutdown(Shutdown::Write).expect("connected");
        assert!(
            reader.await.expect("no panic") == sent,
            "bytes were changed"
        );
    });
}

#[test]
fn a_small_send_buffer_changes_nothing_but_the_speed() {
    on_core(|_| async {
        let options = TcpOptions::new().send_buffer(4096).receive_buffer(4096);
        let (ours, theirs) = both_ends_with(&options).await;
        let reader = slow_reader(theirs);
        let (outcome, sent) = ours.write_all(bytes(big() / 8, 4)).await;
        outcome.expect("somebody reads");
        ours.shutdown(Shutdown::Write).expect("connected");
        assert!(
            reader.await.expect("no panic") == sent,
            "bytes were changed"
        );
    });
}

#[test]
fn a_large_stream_is_received_whole() {
    on_core(|handle| async move {
        let sent = bytes(big(), 5);
        let expected = sent.clone();
        let (ours, theirs) = both_ends().await;
        let writer = spawn(async move { theirs.write_all(sent).await.0.expect("somebody reads") });
        assert!(receive_all(&ours).await == expected, "bytes were changed");
        writer.await.expect("no panic");
        drop(ours);
        assert_eq!(gauges(&handle).await.op_slots, 0);
    });
}

#[test]
fn both_directions_go_at_once() {
    on_core(|_| async {
        let (ours, theirs) = both_ends().await;
        let (ours, theirs) = (Rc::new(ours), Rc::new(theirs));
        let send = |stream: &Rc<TcpStream>, seed| -> JoinHandle<()> {
            let stream = Rc::clone(stream);
            spawn(async move {
                let (outcome, _) = stream.write_all(bytes(big() / 2, seed)).await;
                outcome.expect("the other side reads");
                stream.shutdown(Shutdown::Write).expect("connected");
            })
        };
        let receive = |stream: &Rc<TcpStream>| {
            let stream = Rc::clone(stream);
            spawn(async move { receive_all(&stream).await })
        };
        let senders = [send(&ours, 6), send(&theirs, 7)];
        let (forth, back) = (receive(&theirs), receive(&ours));
        assert!(forth.await.expect("no panic") == bytes(big() / 2, 6));
        assert!(back.await.expect("no panic") == bytes(big() / 2, 7));
        for sender in senders {
            sender.await.expect("no panic");
        }
    });
}

#[test]
fn sends_of_several_tasks_go_one_after_the_other() {
    on_core(|_| async {
        let (ours, theirs) = both_ends().await;
        let parts = [bytes(big() / 2, 8), b"short".to_vec(), bytes(big() / 4, 9)];
        let mut first = pin!(ours.write_all(parts[0].clone()));
        let mut second = pin!(ours.write_all_vectored(vec![parts[1].clone()]));
        let mut third = pin!(ours.write_all(parts[2].clone()));
        assert!(poll_once(first.as_mut()).await.is_pending());
        assert!(poll_once(second.as_mut()).await.is_pending());
        assert!(poll_once(third.as_mut()).await.is_pending());
        // One that gives up while it waits leaves the line, and sends nothing.
        let given_up = Scope::new()
            .timeout(Duration::from_millis(1))
            .run(async { ours.write_all("never").await.0 })
            .await;
        assert!(matches!(given_up, Ok(None)));
        let reader = slow_reader(theirs);
        first.await.0.expect("somebody reads");
        second.await.0.expect("somebody reads");
        third.await.0.expect("somebody reads");
        ours.shutdown(Shutdown::Write).expect("connected");
        let received = reader.await.expect("no panic");
        assert!(received == parts.concat(), "bytes were mixed");
    });
}

#[test]
fn a_send_that_is_dropped_lets_the_next_one_go() {
    on_core(|_| async {
        let (ours, theirs) = both_ends().await;
        let long = bytes(big(), 8);
        let mut first = Box::pin(ours.write_all(long.clone()));
        assert!(poll_once(first.as_mut()).await.is_pending());
        op::nop().await.expect("it is in the kernel");
        let mut second = pin!(ours.write_all("second"));
        assert!(poll_once(second.as_mut()).await.is_pending());
        drop(first);
        let reader = slow_reader(theirs);
        second.await.0.expect("somebody reads");
        ours.shutdown(Shutdown::Write).expect("connected");
        let received = reader.await.expect("no panic");
        // Some of the first, from its start, and then the second.
        let of_the_first = received.len() - "second".len();
        assert!(received[..of_the_first] == long[..of_the_first]);
        assert_eq!(&received[of_the_first..], b"second");
    });
}

#[test]
fn many_buffers_are_written_in_order_the_empty_ones_too() {
    on_core(|_| async {
        let (ours, theirs) = both_ends().await;
        let parts = |list: &[&str]| list.iter().map(|part| part.as_bytes().to_vec()).collect();
        for (list, expected) in [
            (&["", "a", "", "bc", ""][..], "abc"),
            (&["", "", ""][..], ""),
            (&[][..], ""),
            (&["x"][..], "x"),
        ] {
            let given: Vec<Vec<u8>> = parts(list);
            let (outcome, back) = ours.write_all_vectored(given.clone()).await;
            outcome.expect("connected");
            assert_eq!(back, given);
            let mut got = Vec::new();
            while got.len() < expected.len() {
                got.extend_from_slice(&theirs.recv().await.expect("no error").expect("no end"));
            }
            assert_eq!(got, expected.as_bytes());
        }
    });
}

#[test]
fn more_buffers_than_one_call_takes_are_written_whole() {
    on_core(|_| async {
        // 1024 are the most that one call of the kernel takes; some are empty, some are large.
        let parts: Vec<Vec<u8>> = (0..3_000)
            .map(|number| match number % 7 {
                0 => Vec::new(),
                1 => bytes(big() / 400, number),
                _ => bytes(number as usize % 100, number),
            })
            .collect();
        let expected = parts.concat();
        let (ours, theirs) = both_ends().await;
        let reader = slow_reader(theirs);
        let (outcome, back) = ours.write_all_vectored(parts).await;
        outcome.expect("somebody reads");
        assert_eq!(back.len(), 3_000);
        ours.shutdown(Shutdown::Write).expect("connected");
        assert!(reader.await.expect("no panic") == expected);
    });
}

#[test]
fn a_write_takes_what_the_socket_takes() {
    on_core(|_| async {
        let (ours, theirs) = both_ends().await;
        let (count, buf) = ours.write(bytes(big() * 8, 9)).await;
        let count = count.expect("connected");
        assert!(count > 0 && count < buf.len(), "{count}");
        drop(ours);
        let received = slow_reader(theirs).await.expect("no panic");
        assert!(received == buf[..count]);
    });
}

// --- closing ---

#[test]
fn a_stream_that_is_dropped_is_closed() {
    on_core(|_| async {
        let (ours, theirs) = both_ends().await;
        drop(ours);
        assert!(theirs.recv().await.expect("an orderly end").is_none());
    });
}

/// The peer sees the end; without waiting for it, on a kernel where nothing is late.
async fn has_ended(theirs: &TcpStream) -> bool {
    let mut end = pin!(theirs.recv());
    if Kernel::here().counts_exactly() {
        assert!(poll_once(end.as_mut()).await.is_pending());
        // The receive goes to the kernel and comes back.
        op::nop().await.expect("not cancelled");
        let seen = poll_once(end.as_mut()).await;
        return matches!(seen, Poll::Ready(Ok(None)));
    }
    matches!(end.await, Ok(None))
}

#[test]
fn a_close_is_done_when_it_returns() {
    on_core(|_| async {
        let (ours, theirs) = both_ends().await;
        ours.close().await.expect("no error");
        assert!(has_ended(&theirs).await);
    });
}

#[test]
fn a_close_is_done_when_it_returns_also_after_a_receive() {
    on_core(|_| async {
        let (ours, theirs) = both_ends().await;
        theirs.write_all("x").await.0.expect("the socket takes it");
        let chunk = ours.recv().await.expect("no error").expect("no end");
        assert_eq!(&*chunk, b"x");
        ours.close().await.expect("no error");
        assert!(has_ended(&theirs).await);
    });
}

/// The ring would wait where it is submitted, until the peer has all. On the real ring, whose sockets linger.
#[test]
fn a_close_of_a_socket_that_lingers_keeps_nobody_waiting() {
    on_ring(|_| async {
        let listener = std::net::TcpListener::bind(LOCALHOST).expect("a port");
        let address = listener.local_addr().expect("bound");
        let mut theirs = std::net::TcpStream::connect(address).expect("it listens");
        let (ours, _) = listener.accept().expect("one has come");
        let ours = Stream::new(SharedFd::from(OwnedFd::from(ours)));
        let lingers = ours.with_socket(|socket| socket.set_linger(Some(6 * PATIENCE)));
        lingers.expect("a real socket").expect("a known option");
        // More than both sides take.
        let scope = Scope::new().timeout(Duration::from_millis(20));
        let sent = scope.run(async { Ok::<_, Cancelled>(ours.send_all(vec![7; big()]).await.0) });
        let error = sent
            .await
            .expect("kept")
            .expect("kept")
            .expect_err("too much");
        let interrupted = error.get_ref().and_then(|inner| inner.downcast_ref());
        let Some(Interrupted { transferred, .. }) = interrupted else {
            panic!("they take some: {error:?}");
        };
        let (tell, told) = mpsc::channel();
        let reading = thread::spawn(move || {
            // Read in the end all the same: a core that waits for it goes on then.
            let core_goes_on = told.recv_timeout(PATIENCE).is_ok();
            let mut all = Vec::new();
            theirs.read_to_end(&mut all).map(|_| (core_goes_on, all))
        });
        ours.close().await.expect("no error");
        tell.send(()).expect("it listens");
        let (core_goes_on, all) = reading.join().expect("no panic").expect("an orderly end");
        assert!(core_goes_on);
        assert!(all == vec![7; *transferred]);
    });
}

// --- other families, through the leaf ops: on the real ring, which has them ---

#[test]
fn a_stream_of_another_family_works_the_same() {
    on_ring(|_| async {
        let (ours, mut theirs) = UnixStream::pair().expect("a pair");
        let ours = Stream::new(SharedFd::from(OwnedFd::from(ours)));
        ours.send_all("to you").await.0.expect("connected");
        let mut buf = [0; 6];
        theirs.read_exact(&mut buf).expect("it was sent");
        assert_eq!(&buf, b"to you");
        theirs.write_all(b"to me").expect("connected");
        let mut chunk = ours.receive().await.expect("no error").expect("no end");
        chunk.advance(3);
        ours.put_back(chunk);
        let (count, buf) = ours.read(Vec::with_capacity(9)).await;
        assert_eq!((count.expect("no error"), buf), (2, b"me".to_vec()));
        drop(theirs);
        assert!(ours.receive().await.expect("an orderly end").is_none());
    });
}

// --- many, and many at once ---

#[test]
fn a_thousand_connections_echo_at_once() {
    on_core(|handle| async move {
        let connections: u64 = match Kernel::here() {
            // Both ends of each, and what other tests have.
            Kernel::Real => 1_000.min((allow_descriptors() - 500) / 2) as u64,
            Kernel::Simulated | Kernel::Unruly => 100,
        };
        let listener = TcpListener::bind(LOCALHOST).expect("a free port");
        let address = listener.local_addr();
        let server = spawn(async move {
            for _ in 0..connections {
                let stream = listener.accept().await.expect("somebody connects");
                drop(spawn(async move {
                    while let Some(chunk) = stream.recv().await.expect("no error") {
                        stream.write_all(chunk).await.0.expect("connected");
                    }
                }));
            }
        });
        let clients: Vec<_> = (0..connections)
            .map(|number| {
                spawn(async move {
                    let stream = TcpStream::connect(address).await.expect("it listens");
                    for round in 0..3_u64 {
                        let word = (number << 8 | round).to_ne_bytes();
                        stream.write_all(word).await.0.expect("connected");
                        let mut got = Vec::new();
                        while got.len() < 8 {
                            let chunk = stream.recv().await.expect("no error");
                            got.extend_from_slice(&chunk.expect("no end"));
                        }
                        assert_eq!(got, word);
                        yield_now().await.expect("not cancelled");
                    }
                })
            })
            .collect();
        for client in clients {
            client.await.expect("no panic");
        }
        server.await.expect("no panic");
        // The servers' tasks end with their streams; the kernel ends what it was asked to end when it likes.
        let mut counters = gauges(&handle).await;
        let begun = Instant::now();
        while (counters.tasks > 1 || counters.op_slots > 0) && begun.elapsed() < PATIENCE {
            sleep(Duration::from_micros(50))
                .await
                .expect("not cancelled");
            counters = gauges(&handle).await;
        }
        assert_eq!((counters.panics, counters.op_slots), (0, 0));
        assert!(counters.tasks <= 1, "{counters:?}");
    });
}

/// A future that is never polled does nothing at all.
#[test]
fn ops_that_are_never_polled_do_nothing() {
    on_core(|_| async {
        let (ours, theirs) = both_ends().await;
        fn unpolled(future: impl Future) {
            drop(future);
        }
        unpolled(ours.write_all("never"));
        unpolled(ours.recv());
        ours.write_all("only this").await.0.expect("connected");
        ours.shutdown(Shutdown::Write).expect("connected");
        assert_eq!(slow_reader(theirs).await.expect("no panic"), b"only this");
    });
}

#[test]
fn one_who_writes_without_end_does_not_keep_the_others_waiting() {
    on_core(|_| async {
        let (ours, theirs) = both_ends().await;
        let drain =
            spawn(async move { while theirs.recv().await.is_ok_and(|chunk| chunk.is_some()) {} });
        let ours = Rc::new(ours);
        let bulk = Rc::clone(&ours);
        let writes = Rc::new(std::cell::Cell::new(0_u32));
        let begun = Rc::new(Event::new());
        let (counted, begins) = (Rc::clone(&writes), Rc::clone(&begun));
        let endless = spawn(async move {
            // A bound for the case that nobody else ever gets the turn.
            while counted.get() < 10_000 && bulk.write_all(vec![0; 1 << 16]).await.0.is_ok() {
                counted.set(counted.get() + 1);
                begins.set();
            }
        });
        begun.wait().await.expect("nobody cancels");
        let before = writes.get();
        ours.write_all("ping").await.0.expect("connected");
        // The one that was on its way, and at most one that had stood in line before us.
        assert!(
            writes.get() - before <= 2,
            "{} writes went first",
            writes.get() - before
        );
        ours.shutdown(Shutdown::Both).expect("connected");
        endless.await.expect("it ends");
        drain.await.expect("no panic");
    });
}

#[test]
fn a_turn_that_was_handed_on_and_is_not_wanted_goes_to_the_next() {
    for handed in [false, true] {
        on_core(move |_| async move {
            let (ours, theirs) = both_ends().await;
            // More than the kernels take: the first write stays on its way.
            let mut first = Box::pin(ours.write_all(vec![0; big() * 8]));
            assert!(poll_once(first.as_mut()).await.is_pending());
            let mut second = Box::pin(ours.write_all("second"));
            assert!(poll_once(second.as_mut()).await.is_pending());
            let mut third = Box::pin(ours.write("third"));
            assert!(poll_once(third.as_mut()).await.is_pending());
            drop(first);
            if handed {
                // What was dropped ends in the kernel, and its turn goes to the second.
                for _ in 0..10 {
                    op::nop().await.expect("not cancelled");
                }
            }
            drop(second);
            let drain = spawn(async move { receive_all(&theirs).await });
            let patient = Scope::new().timeout(Duration::from_secs(20));
            let sent = patient.run(async { third.await.0 }).await;
            let sent = sent.expect("connected").expect("it had the turn");
            if Kernel::here().counts_exactly() {
                assert_eq!(sent, 5, "handed: {handed}");
            }
            ours.shutdown(Shutdown::Write).expect("connected");
            let all = drain.await.expect("no panic");
            let third = &b"third"[..sent];
            assert!(all.ends_with(third) && !all.ends_with(&[b"second", third].concat()));
        });
    }
}

// --- zero copy ---

#[test]
fn a_zero_copy_send_gives_its_buffer_back_and_its_bytes_arrive() {
    on_core(|_| async {
        let (ours, theirs) = both_ends().await;
        let mut rest = bytes(big() / 4, 7);
        let all = rest.clone();
        let reader = spawn(async move { receive_all(&theirs).await });
        while !rest.is_empty() {
            let expected = rest.clone();
            let (sent, back) = ours.write_zero_copy(rest).await;
            assert_eq!(back, expected, "it comes back as it was");
            rest = back[sent.expect("connected")..].to_vec();
        }
        ours.shutdown(Shutdown::Write).expect("connected");
        assert!(reader.await.expect("no panic") == all);
    });
}

/// The memory of a send that is given up is the kernel's for longer than the bytes take to go out: others send meanwhile.
#[test]
fn a_zero_copy_send_that_is_given_up_keeps_its_turn_until_its_bytes_are_taken() {
    for seen in [false, true] {
        let late = Faults::none().rate(Fault::LateNotification, 1.0);
        for_seeds(0..20, |sim| {
            sim.faults(late.clone()).run(|| given_up_zero_copy(seen));
        });
    }
}

/// It is given up before the kernel gets it; or once the bytes are taken, and before its task looks.
fn given_up_zero_copy(seen: bool) {
    on_ring(move |_| async move {
        let (ours, theirs) = both_ends().await;
        let ours = Rc::new(ours);
        let order = Rc::new(RefCell::new(Vec::new()));
        let given_up = Rc::new(Event::new());
        let (sends, gone, tells) = (Rc::clone(&ours), Rc::clone(&order), Rc::clone(&given_up));
        let gives_up = spawn(async move {
            let mut send = Box::pin(sends.write_zero_copy(vec![b'a'; 100]));
            let outcome = Scope::new()
                .run(async {
                    assert!(poll_once(send.as_mut()).await.is_pending());
                    if seen {
                        op::nop().await?;
                    }
                    drop(send);
                    tells.set();
                    Ok::<_, io::Error>(())
                })
                .await;
            gone.borrow_mut().push("the kernel is done");
            outcome.expect("not cancelled");
        });
        given_up.wait().await.expect("not cancelled");
        ours.write_all(vec![b'b'; 100]).await.0.expect("connected");
        order.borrow_mut().push("another was sent");
        gives_up.await.expect("no panic");
        assert_eq!(*order.borrow(), ["another was sent", "the kernel is done"]);
        ours.shutdown(Shutdown::Write).expect("connected");
        // The cancel may have come before the bytes were taken.
        let came = receive_all(&theirs).await;
        let both = [[b'a'; 100], [b'b'; 100]].concat();
        assert!(came == both || !seen && came == both[100..], "{came:?}");
    });
}

#[test]
fn a_zero_copy_send_to_nobody_gives_its_buffer_back_with_the_error() {
    on_core(|_| async {
        let (ours, theirs) = both_ends().await;
        drop(theirs);
        let failed = loop {
            let (sent, back) = ours.write_zero_copy(vec![3; 1_000]).await;
            assert_eq!(back, [3; 1_000]);
            match sent {
                Ok(_) => sleep(Duration::from_millis(1))
                    .await
                    .expect("not cancelled"),
                Err(error) => break error,
            }
        };
        let gone = [io::ErrorKind::BrokenPipe, io::ErrorKind::ConnectionReset];
        assert!(gone.contains(&failed.kind()), "{failed}");
        // Its turn is free again.
        let again = ours.write("more").await.0.expect_err("nobody is there");
        assert!(gone.contains(&again.kind()), "{again}");
    });
}

/// How many sends went past the ring, and how many requests went into it.
fn sends_and_requests(handle: &Handle) -> (u64, u64) {
    let now = handle.metrics()[0];
    (now.direct_sends, now.submitted)
}

#[test]
fn a_send_that_would_be_submitted_alone_goes_past_the_ring() {
    on_ring(|handle| async move {
        let (ours, theirs) = both_ends().await;
        // What connecting has asked for is in the kernel.
        op::nop().await.expect("nobody cancels");
        let latencies = |handle: &Handle| {
            let snapshot = handle.snapshot();
            let sends = snapshot.cores[0].latency("op", Some("send"));
            sends.map_or(0, |sends| sends.count())
        };
        let (before, measured) = (sends_and_requests(&handle), latencies(&handle));
        let mut sent = pin!(ours.write_all("hello"));
        assert!(matches!(
            poll_once(sent.as_mut()).await,
            Poll::Ready((Ok(()), "hello"))
        ));
        assert_eq!(sends_and_requests(&handle), (before.0 + 1, before.1));
        assert_eq!(latencies(&handle), measured + 1);
        assert_eq!(receive_exactly(&theirs, 5).await, b"hello");
    });
}

/// Whichever way it is asked for.
#[test]
fn a_send_of_some_and_one_that_is_looked_at_later_go_past_the_ring() {
    on_ring(|handle| async move {
        let (ours, theirs) = both_streams().await;
        op::nop().await.expect("nobody cancels");
        let before = sends_and_requests(&handle);
        let mut sent = pin!(ours.send("some"));
        assert!(matches!(
            poll_once(sent.as_mut()).await,
            Poll::Ready((Ok(4), "some"))
        ));
        assert_eq!(sends_and_requests(&handle), (before.0 + 1, before.1));
        // In a poll of its own.
        op::nop().await.expect("nobody cancels");
        let before = sends_and_requests(&handle);
        let mut sent = pin!(ours.start_send(b"more".to_vec()));
        assert!(matches!(
            poll_once(sent.as_mut()).await,
            Poll::Ready((Ok(4), _))
        ));
        assert_eq!(sends_and_requests(&handle), (before.0 + 1, before.1));
        let mut came = Vec::new();
        while came.len() < 8 {
            let chunk = theirs.receive().await.expect("no error");
            came.extend_from_slice(&chunk.expect("eight bytes were sent"));
        }
        assert_eq!(came, b"somemore");
    });
}

#[test]
fn the_second_send_of_a_poll_goes_by_the_ring() {
    on_ring(|handle| async move {
        let (ours, theirs) = both_ends().await;
        op::nop().await.expect("nobody cancels");
        let before = sends_and_requests(&handle);
        ours.write_all("one").await.0.expect("somebody reads");
        let mut second = pin!(ours.write_all("two"));
        assert!(poll_once(second.as_mut()).await.is_pending());
        second.await.0.expect("somebody reads");
        assert_eq!(sends_and_requests(&handle).0, before.0 + 1);
        assert!(sends_and_requests(&handle).1 > before.1);
        assert_eq!(receive_exactly(&theirs, 6).await, b"onetwo");
    });
}

/// Who starts one child after the other that has sent at once would go on and on, and no timer be looked at.
#[test]
fn children_that_are_polled_at_once_have_one_send_past_the_ring_between_them() {
    on_ring(|handle| async move {
        let (ours, theirs) = both_ends().await;
        let ours = Rc::new(ours);
        op::nop().await.expect("nobody cancels");
        let before = sends_and_requests(&handle).0;
        let sent = group(async |g| {
            let mut writes = ["one", "two"].map(|word| {
                let ours = Rc::clone(&ours);
                g.spawn_eager(async move { ours.write_all(word).await.0 })
            });
            let [first, second] = &mut writes;
            let first = poll_once(Pin::new(first)).await;
            assert!(matches!(first, Poll::Ready(Ok(()))));
            assert!(poll_once(Pin::new(second)).await.is_pending());
            let [_, second] = writes;
            second.await.expect("somebody reads");
            Ok::<_, io::Error>(())
        });
        sent.await.expect("nothing failed");
        assert_eq!(sends_and_requests(&handle).0, before + 1);
        assert_eq!(receive_exactly(&theirs, 6).await, b"onetwo");
    });
}

#[test]
fn a_send_beside_another_ready_task_goes_by_the_ring() {
    on_ring(|handle| async move {
        let (ours, theirs) = both_ends().await;
        op::nop().await.expect("nobody cancels");
        let before = sends_and_requests(&handle);
        let other = spawn(async {});
        let mut sent = pin!(ours.write_all("hello"));
        assert!(poll_once(sent.as_mut()).await.is_pending());
        sent.await.0.expect("somebody reads");
        other.await.expect("no panic");
        assert_eq!(sends_and_requests(&handle).0, before.0);
        assert_eq!(receive_exactly(&theirs, 5).await, b"hello");
    });
}

#[test]
fn a_send_behind_what_is_not_submitted_goes_by_the_ring() {
    on_ring(|handle| async move {
        let (ours, theirs) = both_ends().await;
        op::nop().await.expect("nobody cancels");
        let before = sends_and_requests(&handle);
        let mut queued = pin!(op::nop());
        assert!(poll_once(queued.as_mut()).await.is_pending());
        let mut sent = pin!(ours.write_all("hello"));
        assert!(poll_once(sent.as_mut()).await.is_pending());
        queued.await.expect("nobody cancels");
        sent.await.0.expect("somebody reads");
        assert_eq!(sends_and_requests(&handle).0, before.0);
        assert_eq!(receive_exactly(&theirs, 5).await, b"hello");
    });
}

#[test]
fn what_a_full_socket_does_not_take_at_once_goes_by_the_ring() {
    on_ring(|handle| async move {
        let (ours, theirs) = both_ends().await;
        op::nop().await.expect("nobody cancels");
        let before = sends_and_requests(&handle);
        let long = bytes(big(), 11);
        let mut first = pin!(ours.write_all(long.clone()));
        // The socket takes the beginning.
        assert!(poll_once(first.as_mut()).await.is_pending());
        assert_eq!(sends_and_requests(&handle).0, before.0 + 1);
        let reader = slow_reader(theirs);
        first.await.0.expect("somebody reads");
        ours.shutdown(Shutdown::Write).expect("connected");
        assert!(
            reader.await.expect("no panic") == long,
            "bytes were changed"
        );
    });
}

#[test]
fn a_cancelled_scope_sends_nothing_past_the_ring() {
    on_ring(|handle| async move {
        let (ours, theirs) = both_ends().await;
        op::nop().await.expect("nobody cancels");
        let before = sends_and_requests(&handle);
        let scope = Scope::new();
        scope.cancel();
        let ended = scope.run(async { ours.write_all("never").await.0 }).await;
        assert!(matches!(ended, Ok(None)));
        assert_eq!(sends_and_requests(&handle).0, before.0);
        ours.shutdown(Shutdown::Write).expect("connected");
        assert!(receive_all(&theirs).await.is_empty());
    });
}

#[test]
fn a_send_past_the_ring_to_nobody_says_so() {
    on_ring(|handle| async move {
        let (ours, theirs) = both_ends().await;
        ours.shutdown(Shutdown::Write).expect("connected");
        op::nop().await.expect("nobody cancels");
        let before = sends_and_requests(&handle);
        let (outcome, buf) = ours.write_all("late").await;
        let error = outcome.expect_err("the direction has ended");
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe, "{error}");
        assert_eq!(buf, "late");
        assert_eq!(sends_and_requests(&handle).0, before.0 + 1);
        drop(theirs);
    });
}

/// Sends past the ring, or behind a request that is not submitted; says how that failed. Twice, since the kernel tells
/// some errors once.
async fn failures(stream: &Stream, by_ring: bool, length: usize) -> [Option<i32>; 2] {
    let mut told = [None; 2];
    for told in &mut told {
        op::nop().await.expect("nobody cancels");
        let mut queued = pin!(op::nop());
        if by_ring {
            assert!(poll_once(queued.as_mut()).await.is_pending());
        }
        let mut sent = pin!(stream.send_all(vec![1; length]));
        let first = poll_once(sent.as_mut()).await;
        assert_eq!(first.is_pending(), by_ring);
        let (outcome, buf) = match first {
            Poll::Ready(ended) => ended,
            Poll::Pending => sent.await,
        };
        assert_eq!(buf.len(), length);
        *told = outcome.err().map(|error| {
            let number = error.raw_os_error();
            number.expect("the kernel's own, of a send that has sent nothing")
        });
        if by_ring {
            queued.await.expect("nobody cancels");
        }
    }
    told
}

#[test]
fn a_send_past_the_ring_fails_as_one_by_the_ring() {
    on_ring(|_| async {
        let mut told = Vec::new();
        for by_ring in [false, true] {
            let (ours, theirs) = both_ends().await;
            reset_from_afar(&ours, theirs).await;
            let reset = failures(&ours.into(), by_ring, 1).await;

            let (ours, theirs) = both_ends().await;
            drop(theirs);
            let left = failures(&ours.into(), by_ring, 1).await;

            let new = socket2::Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
            let new = Stream::new(OwnedFd::from(new).into());
            let unconnected = failures(&new, by_ring, 1).await;

            let (ours, theirs) = UnixDatagram::pair().expect("two sockets");
            let ours = Stream::new(OwnedFd::from(ours).into());
            let too_long = failures(&ours, by_ring, 10 << 20).await;
            drop(theirs);
            let refused = failures(&ours, by_ring, 1).await;

            let (_reader, writer) = io::pipe().expect("a pipe");
            let pipe = Stream::new(OwnedFd::from(writer).into());
            let no_socket = failures(&pipe, by_ring, 1).await;

            let (ours, theirs) = UnixStream::pair().expect("two sockets");
            drop(theirs);
            let gone = failures(&Stream::new(OwnedFd::from(ours).into()), by_ring, 1).await;
            told.push([reset, left, unconnected, too_long, refused, no_socket, gone]);
        }
        assert_eq!(told[0], told[1]);
    });
}
