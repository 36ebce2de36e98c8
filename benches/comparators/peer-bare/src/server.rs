//! The loop of a server on one hand-written ring, for whatever its connections do with what they receive.
//!
//! No futures, no tasks, no wakers: a loop over completions. The ring belongs to one thread and lets the kernel
//! do its share when that waits; its descriptor is registered; sockets are direct descriptors. One multishot accept,
//! one multishot receive for each connection from a ring of provided buffers, and at most one send of a connection in
//! flight. TCP_NODELAY is inherited from the listener.

use std::collections::VecDeque;
use std::io;
use std::net::TcpListener;
use std::os::fd::AsRawFd;

use clap::Parser;
use common::echo;
use io_uring::{IoUring, cqueue, opcode, squeue, types};

use crate::buffers::{self, Buffers, Piece};

/// A server on one ring, by hand.
///
/// `--buffer` counts for nothing here: a buffer takes 4 KiB.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    shared: echo::Arguments,
    /// Buffers of 128 KiB that the kernel fills piece by piece, instead of one of 4 KiB for each receive.
    #[arg(long)]
    incremental: bool,
}

/// Serves as the arguments of the process say, until it is killed.
pub(crate) fn run<C: Connection>() -> io::Result<()> {
    let Arguments {
        shared,
        incremental,
    } = Arguments::parse();
    let connections = descriptors()?;
    shared.place.serve(move |listener| {
        let buffers = match incremental {
            true => Buffers::incremental(32, 128 << 10),
            false => Buffers::whole(1024, 4 << 10),
        };
        serve::<C>(&listener, buffers, connections)
    })
}

/// What one connection does with what it receives.
pub(crate) trait Connection: Default {
    /// Takes what was received; returns it if it is not needed any more.
    fn take(&mut self, piece: Piece, buffers: &Buffers) -> Option<Piece>;
    /// Returns what is to be sent now. It stays where it is until that was done.
    fn next<'a>(&'a mut self, buffers: &'a Buffers) -> Option<&'a [u8]>;
    /// Hears that what was to be sent is sent, or never will be; returns what is not needed any more.
    fn on_sent(&mut self) -> Option<Piece>;
}

fn serve<C: Connection>(
    listener: &TcpListener,
    buffers: Buffers,
    connections: u32,
) -> io::Result<()> {
    no_delay(listener)?;
    let mut ring: IoUring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_no_sqarray()
        .setup_cqsize(8192)
        .build(1024)?;
    ring.submitter().register_files_sparse(connections)?;
    buffers.register(&ring.submitter())?;
    let (mut submitter, submissions, mut completions) = ring.split();
    submitter.register_ring_fd()?;
    let mut server = Server {
        submissions,
        listener: types::Fd(listener.as_raw_fd()),
        buffers,
        connections: (0..connections).map(|_| Slot::<C>::default()).collect(),
        starved: Vec::new(),
        overflow: VecDeque::new(),
    };
    server.accept();
    loop {
        server.fill();
        match submitter.submit_and_wait(1) {
            // More completions wait than the queue holds: what is there is taken first.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINTR | libc::EBUSY)) => {}
            other => drop(other?),
        }
        completions.sync();
        for completion in &mut completions {
            server.on_completion(&completion);
        }
        completions.sync();
    }
}

/// What a completion is for, in the upper half of its user data. The lower half is the connection's slot.
const ACCEPT: u32 = 0;
const RECEIVE: u32 = 1;
const SEND: u32 = 2;
const CLOSE: u32 = 3;

/// One connection, by the slot of its descriptor.
#[derive(Default)]
struct Slot<C> {
    connection: C,
    /// How much of it is in flight.
    sending: Option<u32>,
    /// Nothing more will be received.
    has_ended: bool,
    /// The peer takes nothing more.
    has_failed: bool,
}

struct Server<'a, C> {
    submissions: squeue::SubmissionQueue<'a>,
    listener: types::Fd,
    buffers: Buffers,
    connections: Vec<Slot<C>>,
    /// Those that found no buffer, and wait for one.
    starved: Vec<u32>,
    /// What found no room in the submission queue.
    overflow: VecDeque<squeue::Entry>,
}

impl<C: Connection> Server<'_, C> {
    fn on_completion(&mut self, completion: &cqueue::Entry) {
        let data = completion.user_data();
        let (kind, slot) = ((data >> 32) as u32, data as u32);
        let (result, flags) = (completion.result(), completion.flags());
        match kind {
            ACCEPT => self.on_accept(result, flags),
            RECEIVE => self.on_receive(slot, result, flags),
            SEND => self.on_send(slot, result),
            _ => {}
        }
    }

    fn on_accept(&mut self, result: i32, flags: u32) {
        if let Ok(slot) = u32::try_from(result) {
            self.connections[slot as usize] = Slot::default();
            self.receive(slot);
        }
        if !cqueue::more(flags) {
            self.accept();
        }
    }

    fn on_receive(&mut self, slot: u32, result: i32, flags: u32) {
        let goes_on = cqueue::more(flags);
        match result {
            1.. => {
                let piece = self.buffers.take(result as u32, flags);
                let connection = &mut self.connections[slot as usize];
                let spent = if connection.has_failed {
                    Some(piece)
                } else {
                    connection.connection.take(piece, &self.buffers)
                };
                if let Some(spent) = spent {
                    self.give_back(&spent);
                }
                self.send(slot);
                if !goes_on {
                    self.receive(slot);
                }
            }
            // One may have been given back since the kernel looked.
            _ if result == -libc::ENOBUFS && self.buffers.has_free() => self.receive(slot),
            _ if result == -libc::ENOBUFS => self.starved.push(slot),
            _ => {
                self.connections[slot as usize].has_ended = true;
                self.close_if_done(slot);
            }
        }
    }

    fn on_send(&mut self, slot: u32, result: i32) {
        let connection = &mut self.connections[slot as usize];
        let whole = connection.sending.take().expect("a send is in flight");
        if result != whole as i32 {
            // The receive ends by itself: the connection is broken.
            connection.has_failed = true;
        }
        if let Some(spent) = connection.connection.on_sent() {
            self.give_back(&spent);
        }
        self.send(slot);
        self.close_if_done(slot);
    }

    fn give_back(&mut self, piece: &Piece) {
        if self.buffers.give_back(piece) {
            // One buffer, one receive: the others wait for the next.
            if let Some(slot) = self.starved.pop() {
                self.receive(slot);
            }
        }
    }

    fn close_if_done(&mut self, slot: u32) {
        let connection = &self.connections[slot as usize];
        if connection.has_ended && connection.sending.is_none() {
            let close = opcode::Close::new(types::Fixed(slot)).build();
            self.push(close, CLOSE, slot);
        }
    }

    fn accept(&mut self) {
        let accept = opcode::AcceptMulti::new(self.listener).allocate_file_index(true);
        self.push(accept.build(), ACCEPT, 0);
    }

    fn receive(&mut self, slot: u32) {
        let receive = opcode::RecvMulti::new(types::Fixed(slot), buffers::GROUP);
        self.push(receive.build(), RECEIVE, slot);
    }

    /// Sends what a connection has to send, whole, if nothing of it is in flight.
    fn send(&mut self, slot: u32) {
        let Self {
            connections,
            buffers,
            ..
        } = self;
        let connection = &mut connections[slot as usize];
        if connection.sending.is_some() {
            return;
        }
        if connection.has_failed {
            // Nobody takes what is left.
            while let Some(spent) = self.connections[slot as usize].connection.on_sent() {
                self.give_back(&spent);
            }
            return;
        }
        let Some(bytes) = connection.connection.next(buffers) else {
            return;
        };
        let (start, len) = (bytes.as_ptr(), bytes.len() as u32);
        connection.sending = Some(len);
        let send = opcode::Send::new(types::Fixed(slot), start, len);
        let send = send.flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL).build();
        self.push(send, SEND, slot);
    }

    fn push(&mut self, entry: squeue::Entry, kind: u32, slot: u32) {
        let entry = entry.user_data((u64::from(kind) << 32) | u64::from(slot));
        // SAFETY: what an entry points to stays where it is until the completion, as `Connection` promises.
        let pushed = unsafe { self.submissions.push(&entry) };
        if pushed.is_err() {
            self.overflow.push_back(entry);
        }
    }

    /// Moves what found no room to the queue, as far as there is some, and publishes it.
    fn fill(&mut self) {
        self.submissions.sync();
        while let Some(entry) = self.overflow.pop_front() {
            // SAFETY: as in `push`.
            if unsafe { self.submissions.push(&entry) }.is_err() {
                self.overflow.push_front(entry);
                break;
            }
        }
        self.submissions.sync();
    }
}

fn no_delay(listener: &TcpListener) -> io::Result<()> {
    let on: libc::c_int = 1;
    let size = size_of::<libc::c_int>() as libc::socklen_t;
    let (level, option) = (libc::IPPROTO_TCP, libc::TCP_NODELAY);
    // SAFETY: the pointer is to a local of the size that is told.
    match unsafe {
        libc::setsockopt(
            listener.as_raw_fd(),
            level,
            option,
            (&raw const on).cast(),
            size,
        )
    } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// How many descriptors the process may have, and so the table of direct ones; 32 768 at most.
fn descriptors() -> io::Result<u32> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the pointer is to a local of the right type.
    match unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } {
        0 => Ok(limit.rlim_cur.min(32_768) as u32),
        _ => Err(io::Error::last_os_error()),
    }
}
