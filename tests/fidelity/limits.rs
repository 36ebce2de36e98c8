//! Facts about limits: descriptors, the queue of a listener, provided buffers, completions.

use std::cell::RefCell;

use quoit::buf::Chunk;
use quoit::fs::{File, metadata};
use quoit::op::{self, Listener, Socket, Stream};
use quoit::sim::{Faults, Sim};
use quoit::{Cores, Runtime, Scope, spawn};
use tests::{Child, bytes};

use crate::compare::{Place, comes_to};
use crate::facts::{Fact, fact};
use crate::outcome::{Outcome, Outcome::*, Record, within};
use crate::streams::connected;

#[test]
fn a_connection_that_finds_no_descriptor_left_waits_for_a_later_accept() {
    let test = "limits::a_connection_that_finds_no_descriptor_left_waits_for_a_later_accept";
    Child::new()
        .under(["sh", "-c", "ulimit -n 64; exec \"$@\"", "sh"])
        .run(test, || {
            let refused = Refused(libc::EMFILE);
            let expected = vec![Done, Done, Done, refused.clone(), refused, Done, Done];
            let fact = Fact {
                what: "accepts without descriptors",
                descriptors: 64,
                body: |place| Box::pin(accepts_without_descriptors(place)),
            };
            comes_to(&fact, &[expected]);
        });
}

async fn accepts_without_descriptors(place: &Place) -> Record {
    let any = "127.0.0.1:0".parse().expect("an address");
    let socket = || Socket::tcp(any);
    let listening = socket().expect("a socket");
    listening.bind(any).expect("a free port");
    listening.listen(8).expect("a bound socket listens");
    let listener = Listener::new(listening);
    let address = listener.local_addr().expect("it is bound");
    let accept = || {
        within(place.patience, async {
            Outcome::done(listener.accept().await)
        })
    };
    let mut open = Vec::new();
    let mut dial = async |socket| {
        let connected = Stream::connect(socket, address.into()).await;
        Outcome::done(connected.map(|stream| open.push(stream)))
    };
    // The first one arms the accept.
    let mut clients: Vec<Socket> = (0..3).map(|_| socket().expect("a socket")).collect();
    let first = dial(clients.remove(0)).await;
    assert_eq!((first, accept().await), (Done, Done));
    let mut filler = Vec::new();
    while let Ok(socket) = socket() {
        filler.push(socket);
    }
    let mut record = vec![Done];
    for client in clients {
        record.push(dial(client).await);
    }
    record.push(accept().await);
    record.push(accept().await);
    drop(filler);
    record.push(accept().await);
    record.push(accept().await);
    record
}

#[test]
fn a_file_is_neither_made_nor_emptied_without_a_descriptor_for_it() {
    let test = "limits::a_file_is_neither_made_nor_emptied_without_a_descriptor_for_it";
    Child::new()
        .under(["sh", "-c", "ulimit -n 64; exec \"$@\"", "sh"])
        .run(test, || {
            let refused = Refused(libc::EMFILE);
            let missing = Refused(libc::ENOENT);
            let expected = vec![refused.clone(), refused, missing, Count(5)];
            let fact = Fact {
                what: "makes and empties without descriptors",
                descriptors: 64,
                body: |place| Box::pin(opens_without_descriptors(place)),
            };
            comes_to(&fact, &[expected]);
        });
}

async fn opens_without_descriptors(place: &Place) -> Record {
    let [old, new] = ["old", "new"].map(|name| place.path(name));
    let file = File::create(&old).await.expect("a file");
    file.write_all_at("bytes", 0)
        .await
        .0
        .expect("there is room");
    let any = "127.0.0.1:0".parse().expect("an address");
    let mut filler = Vec::new();
    while let Ok(socket) = Socket::tcp(any) {
        filler.push(socket);
    }
    let mut record = vec![
        Outcome::done(File::create(&new).await),
        Outcome::done(File::create(&old).await),
    ];
    drop(filler);
    record.push(Outcome::done(metadata(&new).await));
    let length = metadata(&old).await.map(|status| Count(status.len()));
    record.push(length.into());
    record
}

#[test]
fn a_listener_can_be_told_anew_how_many_may_wait() {
    fact(
        "listens again",
        |place| {
            Box::pin(async {
                let any = "127.0.0.1:0".parse().expect("an address");
                let mut record = Record::new();
                for told in [[-1, -1], [0, 2], [2, 0]] {
                    let socket = Socket::tcp(any).expect("a socket");
                    socket.bind(any).expect("a free port");
                    for most in told {
                        socket.listen(most).expect("a bound socket listens");
                    }
                    let address = socket.local_addr().expect("it is bound");
                    let mut open = Vec::new();
                    let dial = async || {
                        let socket = Socket::tcp(any).expect("a socket");
                        Stream::connect(socket, address.into()).await.ok()
                    };
                    let mut patient = Scope::new().timeout(place.patience);
                    while open.len() < 5
                        && let Ok(Some(Some(stream))) = patient
                            .run(async { Ok::<_, std::io::Error>(dial().await) })
                            .await
                    {
                        open.push(stream);
                        patient = Scope::new().timeout(place.patience);
                    }
                    record.push(Count(open.len() as u64));
                }
                record
            })
        },
        // Less than nothing is as many as the machine lets wait.
        &[vec![Count(5), Count(3), Count(1)]],
    );
}

#[test]
fn a_connect_that_finds_the_queue_full_waits() {
    fact(
        "connects to a full queue",
        |place| {
            Box::pin(async {
                let any = "127.0.0.1:0".parse().expect("an address");
                let socket = Socket::tcp(any).expect("a socket");
                socket.bind(any).expect("a free port");
                socket.listen(1).expect("a bound socket listens");
                let address = socket.local_addr().expect("it is bound");
                let mut record = Record::new();
                let open = RefCell::new(Vec::new());
                for _ in 0..4 {
                    let dial = async {
                        let socket = Socket::tcp(any).expect("a socket");
                        let connected = Stream::connect(socket, address.into()).await;
                        Outcome::done(connected.map(|stream| open.borrow_mut().push(stream)))
                    };
                    record.push(within(place.patience, dial).await);
                }
                record
            })
        },
        // One more than it says; listen(2).
        &[vec![Done, Done, Waits, Waits]],
    );
}

#[test]
fn a_stream_whose_buffers_are_used_up_gets_its_bytes_when_some_are_back() {
    const SENT: usize = 200_000;
    let serve = || {
        let runtime = Runtime::builder()
            .cores(Cores::Count(1))
            .receive_buffers(4, 512)
            .build()
            .expect("tests need io_uring");
        runtime.run(|_| async {
            let [ours, theirs] = connected().await;
            let sender = spawn(async move { theirs.send_all(bytes(SENT, 1)).await.0 });
            let (mut got, mut held) = (Vec::new(), Vec::<Chunk>::new());
            while let Some(chunk) = ours.receive().await? {
                got.extend_from_slice(&chunk);
                // More than there are: what is lent out is none to receive into.
                held.push(chunk);
                if held.len() > 16 {
                    held.clear();
                }
                if got.len() == SENT {
                    break;
                }
            }
            sender.await.expect("it does not panic")?;
            assert_eq!(got, bytes(SENT, 1));
            Ok::<_, std::io::Error>(())
        })
    };
    serve().expect("the kernel has it so");
    for seed in 0..40 {
        let modelled = Sim::with_seed(seed).faults(Faults::benign()).run(serve);
        modelled.value.expect("the model has it so");
    }
}

#[test]
fn more_completions_than_the_queue_holds_all_come() {
    const OPS: usize = 500;
    let work = || {
        let runtime = Runtime::builder()
            .cores(Cores::Count(1))
            .submission_entries(8)
            .completion_entries(8)
            .build()
            .expect("tests need io_uring");
        runtime.run(|_| async {
            let tasks: Vec<_> = (0..OPS).map(|_| spawn(op::nop())).collect();
            for task in tasks {
                task.await.expect("it does not panic")?;
            }
            Ok::<_, std::io::Error>(())
        })
    };
    work().expect("the kernel has it so");
    for seed in 0..40 {
        let modelled = Sim::with_seed(seed).faults(Faults::benign()).run(work);
        modelled.value.expect("the model has it so");
        // The watch of the wake-up channel completes once more for each wake: here the stop is one.
        let more = modelled.counts.completed - modelled.counts.submitted;
        assert!(more <= 1, "{:?}", modelled.counts);
    }
}
