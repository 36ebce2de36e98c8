//! What was measured on the kernel on its own, of sockets: each fact in a test that bears its name.
//!
//! Here a step may come to what is listed and to nothing else, and the model comes to all of it.

use std::fmt;
use std::future::Future;
use std::net::Shutdown;
use std::pin::Pin;
use std::rc::Rc;

use quoit::Scope;
use quoit::buf::Interrupted;
use quoit::op::{self, SocketOption, Stream};
use tests::{bytes, poll_once};

use crate::compare::{Place, Script, comes_to, comes_to_plainly};
use crate::outcome::{Outcome, Outcome::*, Record, settle, within};
use crate::streams::{Accepted, Connection, Dialled, Step, connected};

/// A script of its own kind.
pub(crate) struct Fact {
    pub(crate) what: &'static str,
    pub(crate) descriptors: usize,
    pub(crate) body: for<'a> fn(&'a Place) -> Pin<Box<dyn Future<Output = Record> + 'a>>,
}

impl fmt::Debug for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)
    }
}

impl Script for Fact {
    fn descriptors(&self) -> usize {
        self.descriptors
    }

    async fn run(&self, place: &Place) -> Record {
        (self.body)(place).await
    }
}

pub(crate) fn fact(
    what: &'static str,
    body: for<'a> fn(&'a Place) -> Pin<Box<dyn Future<Output = Record> + 'a>>,
    allowed: &[Record],
) {
    let descriptors = 1 << 16;
    let fact = Fact {
        what,
        descriptors,
        body,
    };
    comes_to(&fact, allowed);
}

fn none() -> Outcome {
    Outcome::bytes(&[])
}

#[test]
fn a_receive_outlives_the_other_owners_of_its_socket_and_takes_the_next_bytes() {
    fact(
        "dropped under a receive",
        |place| {
            Box::pin(async {
                let [ours, theirs] = connected().await;
                let fd = ours.fd();
                let receive = async move { Outcome::read(op::receive_into(&fd, vec![0; 9]).await) };
                let mut receive = Box::pin(receive);
                assert!(poll_once(receive.as_mut()).await.is_pending());
                let mut record = Vec::new();
                drop(ours);
                settle().await;
                record.push(Outcome::counted(theirs.send(vec![7]).await.0));
                record.push(within(place.patience, receive).await);
                settle().await;
                record.push(within(place.patience, received(&theirs)).await);
                record
            })
        },
        &[vec![Count(1), Outcome::bytes(&[7]), Outcome::said("end")]],
    );
}

#[test]
fn a_shutdown_ends_a_receive_that_waits() {
    fact(
        "shuts down under a receive",
        |place| {
            Box::pin(async {
                let [ours, _theirs] = connected().await;
                let fd = ours.fd();
                let receive = async { Outcome::read(op::receive_into(&fd, vec![0; 9]).await) };
                let mut receive = Box::pin(receive);
                assert!(poll_once(receive.as_mut()).await.is_pending());
                settle().await;
                let shut = Outcome::done(ours.shutdown(Shutdown::Read));
                vec![shut, within(place.patience, receive).await]
            })
        },
        &[vec![Done, none()]],
    );
}

async fn received(stream: &Stream) -> Outcome {
    match stream.receive().await {
        Ok(Some(chunk)) => Outcome::bytes(&chunk),
        Ok(None) => Outcome::said("end"),
        Err(error) => Err(error).into(),
    }
}

#[test]
fn a_reset_ends_a_receive_that_waits_and_breaks_what_is_sent_after() {
    fact(
        "resets under a receive",
        |place| {
            Box::pin(async {
                let [ours, theirs] = connected().await;
                let ours = Rc::new(ours);
                let mut receive = Box::pin(received(&ours));
                assert!(poll_once(receive.as_mut()).await.is_pending());
                settle().await;
                // Closed with something unread: that is what a reset is for (RFC 2525, 2.17).
                let mut record = vec![Outcome::counted(ours.send(vec![7]).await.0)];
                drop(theirs);
                record.push(within(place.patience, receive).await);
                record.push(Outcome::counted(ours.send(vec![7]).await.0));
                record.push(within(place.patience, received(&ours)).await);
                record
            })
        },
        &[vec![
            Count(1),
            Refused(libc::ECONNRESET),
            Refused(libc::EPIPE),
            Outcome::said("end"),
        ]],
    );
}

#[test]
fn what_arrives_where_both_directions_are_shut_down_is_answered_with_a_reset() {
    // Under a fault the end may be on its way for longer than what comes next takes.
    comes_to_plainly(
        &Connection(vec![
            Step::Shutdown(Dialled, Shutdown::Both),
            Step::Send(Accepted, 1),
            Step::ReceiveInto(Accepted, 1),
            Step::Send(Accepted, 1),
            Step::PeerName(Dialled),
        ]),
        &vec![
            Done,
            Count(1),
            none(),
            Refused(libc::EPIPE),
            Refused(libc::ENOTCONN),
        ],
    );
}

#[test]
fn a_receive_of_nothing_waits_and_a_read_of_nothing_does_not() {
    comes_to(
        &Connection(vec![
            Step::ReceiveInto(Dialled, 0),
            Step::Read(Dialled, 0),
            Step::Send(Accepted, 1),
            Step::ReceiveInto(Dialled, 0),
        ]),
        &[vec![Waits, none(), Count(1), none()]],
    );
}

#[test]
fn readiness_for_a_hang_up_tells_of_half_of_one() {
    let poll = Step::Poll(Accepted, libc::POLLHUP);
    comes_to(
        &Connection(vec![poll, Step::Close(Dialled), poll]),
        &[vec![Waits, Done, Count(libc::POLLRDHUP as u64)]],
    );
}

#[test]
fn what_a_cancelled_send_says_went_out_is_what_arrives() {
    fact(
        "cancels a send that waits for room",
        |place| {
            Box::pin(async {
                // More than lies between two ends of which one may hold so little.
                const LARGE: usize = 1 << 20;
                let [ours, theirs] = connected().await;
                ours.set(SocketOption::SendBuffer(1 << 14))
                    .expect("an option of every socket");
                let scope = Scope::new().timeout(place.patience);
                let send =
                    async { Ok::<_, std::io::Error>(ours.send_all(bytes(LARGE, 1)).await.0) };
                let error = match scope.run(send).await {
                    Ok(Some(Err(error))) => error,
                    other => return vec![Outcome::said(format!("{other:?}"))],
                };
                let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
                let sent = inner.map_or(0, |interrupted: &Interrupted| interrupted.transferred);
                drop(ours);
                let mut got = Vec::new();
                while let Some(chunk) = theirs.receive().await.expect("it was sent") {
                    got.extend_from_slice(&chunk);
                }
                let all = got == bytes(LARGE, 1)[..sent] && sent > 0;
                vec![Outcome::said(format!(
                    "all that was said to be sent: {all}"
                ))]
            })
        },
        &[vec![Outcome::said("all that was said to be sent: true")]],
    );
}
