//! The door through which the simulated kernel reads and writes the memory of ops.
//!
//! Only `sim/kernel` comes through here, with regions of requests that are in flight. Whether a slot
//! still keeps the memory that its request named is checked just before (`OpSlab::still_holds`), so a
//! bug that frees it early is reported instead of acted out.

use std::net::{IpAddr, SocketAddr};

use crate::kernel_op::request::{Region, RegionMut};

/// Copies out what a request lets the kernel read.
pub(crate) fn read(region: Region, into: &mut Vec<u8>) {
    // SAFETY: the region comes from a request in flight, whose slot keeps it in place and untouched
    // until its final completion (`kernel_op/state.rs`).
    let bytes =
        unsafe { std::slice::from_raw_parts(region.address as *const u8, region.length as usize) };
    into.extend_from_slice(bytes);
}

/// Copies into what a request lets the kernel write. As many bytes as fit.
pub(crate) fn write(region: RegionMut, bytes: &[u8]) {
    let count = bytes.len().min(region.length as usize);
    // SAFETY: as above; `count` is at most the region's length, and the bytes are the simulation's
    // own, so the two do not overlap.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), region.address as *mut u8, count) };
}

/// Reads a path that ends with NUL.
pub(crate) fn path(address: usize) -> Vec<u8> {
    // SAFETY: the address is that of a `CString` in the slot of a request in flight.
    unsafe { std::ffi::CStr::from_ptr(address as *const libc::c_char) }
        .to_bytes()
        .to_vec()
}

/// The parts of a message that a request sends.
pub(crate) fn parts(header: usize) -> Vec<Region> {
    // SAFETY: the address is that of a message header in the slot of a request in flight.
    let header = unsafe { &*(header as *const libc::msghdr) };
    // SAFETY: the header names so many parts, in the same slot.
    let parts = unsafe { std::slice::from_raw_parts(header.msg_iov, header.msg_iovlen) };
    parts
        .iter()
        .map(|part| Region {
            address: part.iov_base as usize,
            length: part.iov_len as u32,
        })
        .collect()
}

/// Reads an `open_how`: flags, mode, and how the path is resolved. `openat2(2)`.
pub(crate) fn open_how(address: usize) -> [u64; 3] {
    // SAFETY: the address is that of an `open_how` in the slot of a request in flight: three words.
    unsafe { *(address as *const [u64; 3]) }
}

/// Writes a `statx`.
pub(crate) fn status(address: usize, status: &libc::statx) {
    // SAFETY: the address is that of a `statx` in the slot of a request in flight.
    unsafe { *(address as *mut libc::statx) = *status };
}

/// Reads a socket address of the internet: `ip(7)`, `ipv6(7)`.
pub(crate) fn address(region: Region) -> Option<SocketAddr> {
    let mut bytes = Vec::new();
    read(region, &mut bytes);
    let family = i32::from(u16::from_ne_bytes(*bytes.first_chunk()?));
    let port = u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?);
    let ip = match family {
        libc::AF_INET => IpAddr::from(*bytes.get(4..)?.first_chunk::<4>()?),
        libc::AF_INET6 => IpAddr::from(*bytes.get(8..)?.first_chunk::<16>()?),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// A ring of provided buffers, as the kernel sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BufferRing {
    pub(crate) address: usize,
    pub(crate) entries: u16,
}

impl BufferRing {
    /// Returns how many buffers were ever put in, as 16 bits.
    pub(crate) fn tail(self) -> u16 {
        let first = self.address as *const io_uring::types::BufRingEntry;
        // SAFETY: the pool keeps the ring mapped until it has withdrawn it.
        let tail = unsafe { io_uring::types::BufRingEntry::tail(first) };
        // SAFETY: as above; the pool writes it on this same thread.
        unsafe { *tail }
    }

    /// Returns where the entry at `place` is, and what it says: number, address, length.
    pub(crate) fn entry(self, place: u16) -> (u16, usize, u32) {
        let first = self.address as *const io_uring::types::BufRingEntry;
        let place = (place & (self.entries - 1)) as usize;
        // SAFETY: the ring has `entries` entries, a power of two, and `place` is below.
        let entry = unsafe { first.add(place) };
        // SAFETY: as above.
        let entry = unsafe { &*entry };
        (entry.bid(), entry.addr() as usize, entry.len())
    }
}
