//! The tasks of a session, and how they end.
//!
//! ```text
//!                     the child exits, or makes no sense
//!   (it runs) ──────────────────────────────────────────────► what it still says is read
//!       │                                                                 │
//!       │ close, drop                                                     ▼
//!       └──────────► what waits is written ──► input closed ──► the child's Ending ──► reaped ──► callers told
//! ```
//!
//! One task keeps the child, at its core's root and deaf to what goes on outside; three more, its children, have
//! a pipe each. Requests of the child's are children as well.
//!
//! Invariants:
//! - The writer is cancelled only when nothing it writes is of use any more: no frame is cut in the middle of a
//!   session.
//! - Standard error is read for as long as the child lives, whatever happens, and standard output as well.
//! - However it ends, callers are told, and last of all that nothing is left.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::process::ExitStatus;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use quoit::op::{PipeReader, PipeWriter};
use quoit::process::Child;
use quoit::sync::channel::Receiver;
use quoit::time::sleep;
use quoit::{Cancelled, CarriesCancelled, Group, Scope, group};
use serde_json::Value;

use super::error::Why;
use super::framing::Decoder;
use super::json_rpc::{self, Message, RpcError};
use super::outbox::Next;
use super::shared::{Either, Shared, either};
use super::tell::Peer;

/// How long a child that has closed its output may take to exit, and pipes to end behind one that has; after
/// that, callers are told what is known. More than a loaded machine takes for it.
const PATIENCE: Duration = Duration::from_secs(1);

/// Keeps a session until it has ended.
pub(super) async fn keep<P: Peer>(shared: Rc<Shared>, child: Child, peer: P, rung: Receiver<()>) {
    let _last_word = LastWord(Rc::clone(&shared));
    let scope = Scope::new().shielded();
    let tasks = group(async |tasks| {
        live_and_end(&shared, child, peer, rung, tasks).await?;
        tasks.cancel();
        Ok(())
    });
    // It fails only with its core.
    let _ = scope.run(tasks).await;
}

/// Tells callers the end, also if the core drops its tasks or a handler panics.
struct LastWord(Rc<Shared>);

impl Drop for LastWord {
    fn drop(&mut self) {
        // Of no effect where it was told before.
        self.0.break_off(Why::Abandoned);
        self.0.tell(None);
        self.0.reaped.set();
        self.0.gone.set();
    }
}

async fn live_and_end<P: Peer>(
    shared: &Rc<Shared>,
    mut child: Child,
    peer: P,
    rung: Receiver<()>,
    tasks: Group<Cancelled>,
) -> Result<(), Cancelled> {
    let input = child.stdin.take().expect("it is piped");
    let output = child.stdout.take().expect("it is piped");
    let complaints = child.stderr.take().expect("it is piped");
    let mut writer = tasks.spawn(write(Rc::clone(shared), input, rung));
    let reader = tasks.spawn(read(Rc::clone(shared), output, Rc::new(peer), tasks));
    let listener = tasks.spawn(listen(Rc::clone(shared), complaints));

    let told_to = either(shared.broken.wait(), shared.stop.wait());
    match either(child.wait(), told_to).await {
        Either::Left(Ok(_)) => {
            shared.exited();
            // It may have answered just before.
            let _ = either(reader, patience(shared, PATIENCE)).await;
        }
        Either::Left(Err(error)) => {
            if let Some(cancelled) = error.cancelled() {
                return Err(cancelled);
            }
            shared.break_off(Why::Lost(error));
        }
        Either::Right(Either::Left(broken)) => {
            broken?;
            if shared.may_be_exiting() {
                // Its own status says more than a signal of ours.
                let exit = either(child.wait(), patience(shared, PATIENCE)).await;
                if let Either::Left(Ok(_)) = exit {
                    shared.exited();
                }
            }
        }
        Either::Right(Either::Right(stop)) => {
            stop?;
            shared.break_off(Why::Closed);
            shared.outbox.borrow_mut().finish();
            shared.ring();
            let _ = either(&mut writer, patience(shared, shared.config.flush)).await;
        }
    }
    writer.cancel();

    let status = {
        let mut end = pin!(end(shared, &mut child));
        match either(end.as_mut(), sleep(PATIENCE)).await {
            Either::Left(status) => status,
            Either::Right(_) if shared.stop.is_set() => end.await,
            Either::Right(_) => {
                shared.tell(None);
                end.await
            }
        }
    };
    shared.status.set(status);
    shared.reaped.set();
    if !shared.stop.is_set() {
        // Something else may have the pipe, and keep it.
        let _ = either(listener, patience(shared, PATIENCE)).await;
    }
    shared.tell(status);
    Ok(())
}

/// Waits so long, unless all is to end at once.
async fn patience(shared: &Shared, time: Duration) {
    // It is over when it is cancelled, too.
    let _ = either(shared.kill.wait(), sleep(time)).await;
}

/// Ends the child as it is to be ended; at once, when that is asked for meanwhile.
async fn end(shared: &Shared, child: &mut Child) -> Option<ExitStatus> {
    let ended = match either(child.end(), shared.kill.wait()).await {
        Either::Left(ended) => ended,
        Either::Right(_) => {
            child.kill();
            child.end().await
        }
    };
    match ended {
        Ok(status) => Some(status),
        Err(error) => {
            shared.break_off(Why::Lost(error));
            None
        }
    }
}

/// Writes what is to be written, a frame at a time.
async fn write(shared: Rc<Shared>, input: PipeWriter, rung: Receiver<()>) -> Result<(), Cancelled> {
    loop {
        let next = shared.outbox.borrow_mut().next();
        match next {
            Next::Write(frame, room) => {
                let (written, _) = input.write_all(frame).await;
                drop(room);
                if let Err(error) = written {
                    if error.cancelled().is_none() {
                        shared.break_off(Why::Write(error));
                    }
                    return Ok(());
                }
            }
            Next::Wait => {
                if rung.recv().await.is_err() {
                    return Ok(());
                }
            }
            Next::End => return Ok(()),
        }
    }
}

/// Reads what the child says to its end, and hands it to whom it is for.
async fn read<P: Peer>(
    shared: Rc<Shared>,
    output: PipeReader,
    peer: Rc<P>,
    tasks: Group<Cancelled>,
) -> Result<(), Cancelled> {
    let mut decoder = Decoder::new(shared.config.framing, shared.config.frame_limit);
    loop {
        let chunk = match output.receive().await {
            Ok(Some(chunk)) => chunk,
            Ok(None) => {
                let end = decoder.finish();
                shared.break_off(end.map_or_else(Why::Frame, |()| Why::Exited));
                return Ok(());
            }
            Err(error) => {
                if error.cancelled().is_none() {
                    shared.break_off(Why::Read(error));
                }
                return Ok(());
            }
        };
        let mut bytes = &chunk[..];
        // What follows nonsense is read, and lost: the child is not to wait for us.
        while shared.is_understood() {
            let heard = match decoder.next(&mut bytes) {
                Ok(None) => break,
                Ok(Some(text)) => hear(&shared, &text, &peer, tasks),
                Err(error) => Err(Why::Frame(error)),
            };
            if let Err(why) = heard {
                shared.break_off(why);
            }
        }
        drop(chunk);
        // A child that never stops is not to keep the core to itself.
        if quoit::yield_now().await.is_err() {
            return Ok(());
        }
    }
}

fn hear<P: Peer>(
    shared: &Rc<Shared>,
    text: &[u8],
    peer: &Rc<P>,
    tasks: Group<Cancelled>,
) -> Result<(), Why> {
    for message in Message::read(text).map_err(Why::NotJsonRpc)? {
        match message {
            Message::Answer { id, outcome } => shared.answered(&id, outcome)?,
            Message::Notification { method, params } => {
                let word = shared.config.cancel_word;
                if let Some(id) = word.cancelled_by(&method, &params) {
                    shared.cancel_ask(id);
                }
                let heard = AssertUnwindSafe(|| peer.notification(&method, params));
                catch_unwind(heard).map_err(|_| Why::Abandoned)?;
            }
            Message::Request { id, method, params } => {
                let most = shared.config.asks;
                if shared.asks() >= most {
                    return Err(Why::AsksTooMuch(most));
                }
                let number = shared.next_ask();
                let ask = Ask {
                    number,
                    id: id.clone(),
                    method,
                    params,
                };
                let task = tasks.spawn(answer(Rc::clone(shared), Rc::clone(peer), ask));
                if let Some(handle) = task.cancel_handle() {
                    shared.begin_ask(number, id, handle);
                }
            }
        }
    }
    Ok(())
}

/// What the child asks for.
struct Ask {
    number: u64,
    id: Value,
    method: String,
    params: Value,
}

/// Answers a request of the child's.
async fn answer<P: Peer>(shared: Rc<Shared>, peer: Rc<P>, ask: Ask) -> Result<(), Cancelled> {
    let Ask {
        number,
        id,
        method,
        params,
    } = ask;
    let mut handler = pin!(async { peer.request(&method, params).await });
    let outcome =
        poll_fn(
            |cx| match catch_unwind(AssertUnwindSafe(|| handler.as_mut().poll(cx))) {
                Ok(polled) => polled,
                Err(_) => {
                    let text = format!("the handler of {method:?} panicked");
                    Poll::Ready(Err(RpcError::internal(text)))
                }
            },
        )
        .await;
    shared.end_ask(number);
    shared.post_answer(json_rpc::answer(&id, outcome));
    Ok(())
}

/// Keeps the last lines that the child complains.
async fn listen(shared: Rc<Shared>, complaints: PipeReader) -> Result<(), Cancelled> {
    // Cancelled, or broken: there is nothing more to be kept.
    while let Ok(Some(chunk)) = complaints.receive().await {
        shared.tail.borrow_mut().push(&chunk);
    }
    Ok(())
}
