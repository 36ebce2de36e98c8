//! TCP echo on epoll, by hand: the limit that a runtime on readiness is measured against.
//!
//! One level-triggered set for each pinned thread, one read and one write for each event, one buffer for all
//! connections. What a peer does not take at once is kept, and nothing more is read from it until it has.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use clap::Parser;
use common::echo::Arguments;

fn main() -> io::Result<()> {
    let arguments = Arguments::parse();
    let buffer = arguments.buffer;
    arguments
        .place
        .serve(move |listener| serve(&listener, buffer))
}

/// One connection, and what its peer has not taken yet.
struct Connection {
    stream: TcpStream,
    unsent: Vec<u8>,
}

fn serve(listener: &TcpListener, buffer: usize) -> io::Result<()> {
    const READABLE: u32 = libc::EPOLLIN as u32;
    const WRITABLE: u32 = libc::EPOLLOUT as u32;

    listener.set_nonblocking(true)?;
    let set = Set::new()?;
    set.change(libc::EPOLL_CTL_ADD, listener.as_raw_fd(), READABLE)?;
    let mut connections: HashMap<RawFd, Connection> = HashMap::new();
    let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; 1024];
    let mut buffer = vec![0; buffer];
    loop {
        let count = set.wait(&mut events)?;
        for event in &events[..count] {
            let descriptor = event.u64 as RawFd;
            if descriptor == listener.as_raw_fd() {
                while let Some(stream) =
                    unless_blocked(listener.accept())?.map(|(stream, _)| stream)
                {
                    stream.set_nonblocking(true)?;
                    stream.set_nodelay(true)?;
                    let descriptor = stream.as_raw_fd();
                    set.change(libc::EPOLL_CTL_ADD, descriptor, READABLE)?;
                    let unsent = Vec::new();
                    connections.insert(descriptor, Connection { stream, unsent });
                }
                continue;
            }
            let connection = connections.get_mut(&descriptor).expect("it is in the set");
            let was_blocked = !connection.unsent.is_empty();
            match connection.on_event(&mut buffer) {
                // Closing the descriptor takes it out of the set.
                Ok(false) | Err(_) => drop(connections.remove(&descriptor)),
                Ok(true) => {
                    let is_blocked = !connection.unsent.is_empty();
                    if is_blocked != was_blocked {
                        let wanted = if is_blocked { WRITABLE } else { READABLE };
                        set.change(libc::EPOLL_CTL_MOD, descriptor, wanted)?;
                    }
                }
            }
        }
    }
}

impl Connection {
    /// Reads and sends once; returns whether the peer may still send something.
    fn on_event(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        if !self.unsent.is_empty() {
            let sent = unless_blocked(self.stream.write(&self.unsent))?.unwrap_or(0);
            self.unsent.drain(..sent);
            return Ok(true);
        }
        match unless_blocked(self.stream.read(buffer))? {
            Some(0) => Ok(false),
            Some(read) => {
                let sent = unless_blocked(self.stream.write(&buffer[..read]))?.unwrap_or(0);
                self.unsent.extend_from_slice(&buffer[sent..read]);
                Ok(true)
            }
            None => Ok(true),
        }
    }
}

/// Turns "it would block" into `None`.
fn unless_blocked<T>(outcome: io::Result<T>) -> io::Result<Option<T>> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

/// What is waited for.
struct Set(OwnedFd);

impl Set {
    fn new() -> io::Result<Self> {
        // SAFETY: no pointers.
        let descriptor = checked(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: it was just made, and nobody else has it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(descriptor) }))
    }

    fn change(&self, what: libc::c_int, descriptor: RawFd, events: u32) -> io::Result<()> {
        let mut event = libc::epoll_event {
            events,
            u64: descriptor as u64,
        };
        // SAFETY: the pointer is to a local.
        checked(unsafe { libc::epoll_ctl(self.0.as_raw_fd(), what, descriptor, &raw mut event) })
            .map(drop)
    }

    fn wait(&self, events: &mut [libc::epoll_event]) -> io::Result<usize> {
        let (start, room) = (events.as_mut_ptr(), events.len() as libc::c_int);
        // SAFETY: there is room for as many events as told.
        let waited = unsafe { libc::epoll_wait(self.0.as_raw_fd(), start, room, -1) };
        match checked(waited) {
            Ok(count) => Ok(count as usize),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
            Err(error) => Err(error),
        }
    }
}

fn checked(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}
