//! TCP echo on one hand-written ring: the limit that a runtime on io_uring is measured against.
//!
//! No futures, no tasks, no wakers: a loop over completions. The ring belongs to one thread and lets the kernel
//! do its share when that waits; its descriptor is registered; sockets are direct descriptors. One multishot accept,
//! one multishot receive for each connection from a ring of provided buffers, and one send for each receive, straight
//! out of the buffer that the kernel chose. TCP_NODELAY is inherited from the listener.

mod buffers;

use std::collections::VecDeque;
use std::io;
use std::net::TcpListener;
use std::os::fd::AsRawFd;

use buffers::{Buffers, Piece};
use clap::Parser;
use common::echo::Arguments;
use io_uring::{IoUring, cqueue, opcode, squeue, types};

/// Sends back whatever it receives.
///
/// `--buffer` counts for nothing here: a buffer takes 4 KiB.
#[derive(Parser)]
struct All {
    #[command(flatten)]
    shared: Arguments,
    /// Buffers of 128 KiB that the kernel fills piece by piece, instead of one of 4 KiB for each receive.
    #[arg(long)]
    incremental: bool,
}

fn main() -> io::Result<()> {
    let All {
        shared,
        incremental,
    } = All::parse();
    let connections = descriptors()?;
    shared.serve(move |listener| serve(&listener, incremental, connections))
}

fn serve(listener: &TcpListener, incremental: bool, connections: u32) -> io::Result<()> {
    no_delay(listener)?;
    let mut ring: IoUring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_no_sqarray()
        .setup_cqsize(8192)
        .build(1024)?;
    ring.submitter().register_files_sparse(connections)?;
    let buffers = match incremental {
        true => Buffers::incremental(32, 128 << 10),
        false => Buffers::whole(1024, 4 << 10),
    };
    buffers.register(&ring.submitter())?;
    let (mut submitter, submissions, mut completions) = ring.split();
    submitter.register_ring_fd()?;
    let mut server = Server {
        submissions,
        listener: types::Fd(listener.as_raw_fd()),
        buffers,
        connections: (0..connections).map(|_| Connection::default()).collect(),
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
struct Connection {
    /// Received, and not sent yet; the first one is in flight.
    pieces: VecDeque<Piece>,
    /// Nothing more will be received.
    has_ended: bool,
    /// The peer takes nothing more.
    has_failed: bool,
}

struct Server<'a> {
    submissions: squeue::SubmissionQueue<'a>,
    listener: types::Fd,
    buffers: Buffers,
    connections: Vec<Connection>,
    /// Those that found no buffer, and wait for one.
    starved: Vec<u32>,
    /// What found no room in the submission queue.
    overflow: VecDeque<squeue::Entry>,
}

impl Server<'_> {
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
            self.connections[slot as usize] = Connection::default();
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
                if connection.has_failed {
                    self.give_back(&piece);
                } else {
                    connection.pieces.push_back(piece);
                    if connection.pieces.len() == 1 {
                        self.send(slot);
                    }
                }
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
        let sent = connection.pieces.pop_front().expect("a send is in flight");
        if result == sent.len as i32 {
            self.give_back(&sent);
            if !self.connections[slot as usize].pieces.is_empty() {
                self.send(slot);
            }
        } else {
            // The receive ends by itself: the connection is broken.
            connection.has_failed = true;
            let unsent = std::mem::take(&mut connection.pieces);
            self.give_back(&sent);
            unsent.iter().for_each(|piece| self.give_back(piece));
        }
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
        if connection.has_ended && connection.pieces.is_empty() {
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

    /// Sends the first piece of a connection, whole.
    fn send(&mut self, slot: u32) {
        let piece = &self.connections[slot as usize].pieces[0];
        let send = opcode::Send::new(types::Fixed(slot), self.buffers.start(piece), piece.len);
        let send = send.flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL).build();
        self.push(send, SEND, slot);
    }

    fn push(&mut self, entry: squeue::Entry, kind: u32, slot: u32) {
        let entry = entry.user_data((u64::from(kind) << 32) | u64::from(slot));
        // SAFETY: what an entry points to, a buffer that is out, stays where it is until `give_back`, which comes after
        // the completion.
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
