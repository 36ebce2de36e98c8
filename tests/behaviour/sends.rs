//! Random writers on few connections and pipes, who wait, give up and are cancelled: what arrives is what they sent, one after the
//! other, each from its beginning.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::net::Shutdown;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use quoit::buf::{Interrupted, SliceExt};
use quoit::op::{self, PipeReader, PipeWriter};
use quoit::time::{Instant, sleep};
use quoit::{GroupError, Scope, group, spawn, yield_now};
use quoit_net::TcpStream;
use quoit_net::tcp::TcpOptions;
use tests::{Dice, both_ends_with, both_streams, connected, on_core, on_ring, poll_once};

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    /// So many bytes went out.
    Exactly(usize),
    /// Its sender gave it up.
    AtMost(usize),
}

/// The messages of one connection, in the order of their first polls: the order in which they stand in line.
#[derive(Debug, Default)]
struct Log(RefCell<Vec<Sent>>);

impl Log {
    fn begin(&self, length: usize) -> usize {
        let mut messages = self.0.borrow_mut();
        messages.push(Sent::AtMost(length));
        messages.len() - 1
    }

    fn end(&self, message: usize, outcome: Result<&usize, &io::Error>) {
        let count = outcome.copied().unwrap_or_else(interrupted_after);
        self.0.borrow_mut()[message] = Sent::Exactly(count);
    }
}

fn interrupted_after(error: &io::Error) -> usize {
    let inner = error.get_ref();
    let interrupted = inner.and_then(|inner| inner.downcast_ref::<Interrupted>());
    interrupted.map_or(0, |interrupted| interrupted.transferred)
}

/// The bytes of a message, unlike those of others.
fn content(message: usize, length: usize) -> Vec<u8> {
    let mut dice = Dice::new(message as u64);
    (0..length).map(|_| dice.below(256) as u8).collect()
}

/// Checks that these bytes are the beginnings of the messages, in order.
fn check(bytes: &[u8], messages: &[Sent]) {
    let mut ends = vec![0];
    for (message, sent) in messages.iter().enumerate() {
        let (least, most) = match *sent {
            Sent::Exactly(count) => (count, count),
            Sent::AtMost(most) => (0, most),
        };
        let expected = content(message, most);
        let mut next = Vec::new();
        for end in ends {
            let equal = bytes[end..].iter().zip(&expected);
            let equal = equal.take_while(|(one, other)| one == other).count();
            next.extend((least..=equal).map(|count| end + count));
        }
        next.sort_unstable();
        next.dedup();
        assert!(!next.is_empty(), "message {message} of {messages:?}");
        ends = next;
    }
    assert!(ends.contains(&bytes.len()), "there is more: {messages:?}");
}

async fn pause(dice: &mut Dice) {
    match dice.below(5) {
        0 => op::nop().await.expect("not cancelled"),
        1 => yield_now().await.expect("not cancelled"),
        2 => {
            let time = Duration::from_micros(dice.below(200) as u64);
            sleep(time).await.expect("not cancelled");
        }
        _ => {}
    }
}

/// Where the messages go in.
enum Sink {
    Connection(TcpStream),
    Pipe(PipeWriter),
}

/// Where they come out.
enum Source {
    Connection(TcpStream),
    Pipe(PipeReader),
}

impl Sink {
    /// Sends in this way: all of it, but for 0 and 2.
    async fn send(&self, kind: usize, bytes: Vec<u8>) -> io::Result<usize> {
        let length = bytes.len();
        match (kind, self) {
            (0, Self::Connection(stream)) => stream.write(bytes).await.0,
            (0 | 2, Self::Pipe(writer)) => writer.write(bytes).await.0,
            (1, Self::Connection(stream)) => {
                let middle = length / 2;
                let parts = vec![bytes[..middle].to_vec(), bytes[middle..].to_vec()];
                let sent = stream.write_all_vectored(parts).await.0;
                sent.map(|()| length)
            }
            (2, Self::Connection(stream)) => stream.write_zero_copy(bytes).await.0,
            (3, Self::Connection(stream)) => {
                stream.write_all(bytes.slice(..)).await.0.map(|()| length)
            }
            (3, Self::Pipe(writer)) => writer.write_all(bytes.slice(..)).await.0.map(|()| length),
            (_, Self::Connection(stream)) => stream.write_all(bytes).await.0.map(|()| length),
            (_, Self::Pipe(writer)) => writer.write_all(bytes).await.0.map(|()| length),
        }
    }

    /// Says that no more follows.
    fn end(&self) {
        if let Self::Connection(stream) = self {
            stream.shutdown(Shutdown::Write).expect("connected");
        }
    }
}

async fn send(sink: &Sink, log: &Log, kind: usize, length: usize) -> io::Result<usize> {
    let message = log.begin(length);
    let outcome = sink.send(kind, content(message, length)).await;
    log.end(message, outcome.as_ref());
    outcome
}

async fn write(sink: Rc<Sink>, log: Rc<Log>, mut dice: Dice) {
    for _ in 0..20 {
        let most = dice.one_of(&[8, 200, 5_000, 60_000]);
        let length = 1 + dice.below(most);
        let kind = dice.below(10);
        let mut sent = pin!(send(&sink, &log, kind, length));
        match dice.below(6) {
            0 if kind != 2 => {
                // Given up after a few looks.
                for _ in 0..dice.below(3) {
                    if poll_once(sent.as_mut()).await.is_ready() {
                        break;
                    }
                    pause(&mut dice).await;
                }
            }
            1 => {
                let time = Duration::from_micros(dice.below(300) as u64);
                let scope = Scope::new().timeout(time);
                drop(scope.run(sent).await);
            }
            _ => drop(sent.await.expect("somebody reads")),
        }
        pause(&mut dice).await;
    }
}

async fn read(source: Source, mut dice: Dice) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        let chunk = match &source {
            Source::Connection(stream) => stream.recv().await,
            Source::Pipe(reader) => reader.receive().await,
        };
        let Some(chunk) = chunk.expect("no error") else {
            return all;
        };
        all.extend_from_slice(&chunk);
        drop(chunk);
        pause(&mut dice).await;
    }
}

/// Lets random writers have few of these, each with a reader.
async fn everything_arrives<M: Future<Output = (Sink, Source)>>(seed: u64, new: impl Fn() -> M) {
    let mut dice = Dice::new(seed);
    let mut ways = Vec::new();
    for _ in 0..1 + seed % 2 {
        let (sink, source) = new().await;
        let (sink, log) = (Rc::new(sink), Rc::new(Log::default()));
        let reader = spawn(read(source, Dice::new(dice.seed())));
        let writers: Vec<_> = (0..1 + dice.below(3))
            .map(|_| {
                let (sink, log) = (Rc::clone(&sink), Rc::clone(&log));
                spawn(write(sink, log, Dice::new(dice.seed())))
            })
            .collect();
        ways.push((sink, log, reader, writers));
    }
    for (sink, log, reader, writers) in ways {
        for writer in writers {
            writer.await.expect("no panic");
        }
        sink.end();
        drop(sink);
        let bytes = reader.await.expect("no panic");
        check(&bytes, &log.0.borrow());
    }
}

#[test]
fn what_arrives_is_what_was_sent_one_after_the_other() {
    for seed in 0..12 {
        on_core(move |_| {
            everything_arrives(seed, async || {
                let options = TcpOptions::new().send_buffer(8_000).receive_buffer(4_000);
                let (ours, theirs) = both_ends_with(&options).await;
                (Sink::Connection(ours), Source::Connection(theirs))
            })
        });
    }
}

#[test]
fn what_comes_out_of_a_pipe_is_what_was_written_one_after_the_other() {
    for seed in 0..12 {
        on_core(move |_| {
            everything_arrives(seed, async || {
                let (reader, writer) = op::pipe().expect("a pipe");
                let writer = PipeWriter::new(writer).expect("signals can be blocked");
                (Sink::Pipe(writer), Source::Pipe(PipeReader::new(reader)))
            })
        });
    }
}

// --- past the ring, with a real peer ---

/// It waits in line behind what fills the submission queue, and wants to hear of all but its success.
#[test]
fn a_muted_send_that_is_cancelled_in_line_tells_of_that() {
    on_ring(|_| async {
        let (ours, theirs) = both_streams().await;
        let fill = spawn(async {
            let mut nops: Vec<_> = (0..600).map(|_| Box::pin(op::nop())).collect();
            for nop in &mut nops {
                assert!(poll_once(nop.as_mut()).await.is_pending());
            }
            for nop in nops {
                nop.await.expect("not cancelled");
            }
        });
        let mut send = spawn(async move {
            let scope = Scope::new();
            let mut sent = ours.start_send(vec![0; 100]);
            let mut muted = false;
            let sent = poll_fn(|cx| {
                let polled = Pin::new(&mut sent).poll(cx);
                if !std::mem::replace(&mut muted, true) {
                    assert!(polled.is_pending());
                    sent.mute(100);
                    scope.cancel();
                }
                polled
            });
            let sent = scope.run(async { sent.await.0 }).await;
            assert!(matches!(sent, Ok(None)), "{sent:?}");
            drop(theirs);
        });
        fill.await.expect("no panic");
        op::nop().await.expect("not cancelled");
        send.try_join().expect("it was told").expect("no panic");
    });
}

/// Ways to do something again and again.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Way {
    Bare,
    Yielding,
    Children,
    EagerChildren,
    Scopes,
}

impl Way {
    pub(crate) const ALL: [Self; 5] = [
        Self::Bare,
        Self::Yielding,
        Self::Children,
        Self::EagerChildren,
        Self::Scopes,
    ];
}

/// Does this again and again, until somebody ends it.
pub(crate) async fn on_and_on<M>(way: Way, what: impl Fn() -> M) -> io::Result<()>
where
    M: Future<Output = io::Result<()>> + 'static,
{
    // A bound, in case that nobody ends it.
    for _ in 0..3_000_000 {
        match way {
            Way::Bare => what().await?,
            Way::Yielding => {
                what().await?;
                yield_now().await?;
            }
            Way::Children | Way::EagerChildren => {
                let done = group(async |g| {
                    let child = match way {
                        Way::EagerChildren => g.spawn_eager(what()),
                        _ => g.spawn(what()),
                    };
                    child.await.map_err(|_| io::ErrorKind::Other.into())
                });
                let _: Result<Option<()>, GroupError<io::Error>> = done.await;
                quoit::check()?;
            }
            Way::Scopes => {
                let scope = Scope::new().timeout(Duration::from_secs(100));
                scope.run(what()).await?;
            }
        }
    }
    panic!("nobody has ended it");
}

#[test]
fn a_deadline_reaches_whoever_sends_on_and_on() {
    for way in Way::ALL {
        on_ring(move |_| async move {
            let (ours, mut theirs) = connected().await;
            let drain = thread::spawn(move || io::copy(&mut theirs, &mut io::sink()));
            let ours = Rc::new(ours);
            let scope = Scope::new().timeout(Duration::from_millis(3));
            let send = || {
                let ours = Rc::clone(&ours);
                async move { ours.write_all("x").await.0 }
            };
            let ended = scope.run(on_and_on(way, send)).await;
            assert!(matches!(ended, Ok(None)), "{way:?}: {ended:?}");
            ours.shutdown(Shutdown::Both).expect("connected");
            let drained = drain.join().expect("no panic");
            drained.expect("an orderly end");
        });
    }
}

/// A send may take long, and who yields goes on in the same turn: timers would wait for many of them.
#[test]
fn a_turn_that_has_lasted_long_ends_with_a_send_past_the_ring() {
    on_ring(|handle| async move {
        let (ours, _theirs) = connected().await;
        op::nop().await.expect("not cancelled");
        let before = handle.metrics()[0];
        let begun = Instant::now();
        while Instant::now() - begun < Duration::from_millis(1) {}
        ours.write_all("late").await.0.expect("connected");
        yield_now().await.expect("not cancelled");
        let after = handle.metrics()[0];
        assert_eq!(after.direct_sends, before.direct_sends + 1);
        assert!(after.turns > before.turns);
    });
}
