//! A `Request` becomes a submission queue entry.

use io_uring::{opcode, squeue, types};

use crate::kernel_op::request::{CURRENT_POSITION, Region, RegionMut, Request};

/// Makes the entry for `request`. Inlined where the request is made, whose kind is known there.
#[inline]
pub(super) fn entry(request: &Request, user_data: u64) -> squeue::Entry {
    let entry = match *request {
        Request::Nop => opcode::Nop::new().build(),
        Request::Accept { fd } => {
            let (address, length) = (std::ptr::null_mut(), std::ptr::null_mut());
            opcode::Accept::new(types::Fd(fd), address, length)
                .flags(libc::SOCK_CLOEXEC)
                .build()
        }
        Request::AcceptMulti { fd } => opcode::AcceptMulti::new(types::Fd(fd))
            .flags(libc::SOCK_CLOEXEC)
            .build(),
        Request::Connect { fd, address } => {
            opcode::Connect::new(types::Fd(fd), address.address as *const _, address.length).build()
        }
        Request::Receive { fd, into } => {
            opcode::Recv::new(types::Fd(fd), writable(into), into.length).build()
        }
        Request::ReceiveMulti { fd, group, once } => {
            let fd = types::Fd(fd);
            if once {
                // As much as the buffer holds.
                opcode::Recv::new(fd, std::ptr::null_mut(), 0)
                    .buf_group(group)
                    .build()
                    .flags(squeue::Flags::BUFFER_SELECT)
            } else {
                opcode::RecvMulti::new(fd, group).build()
            }
        }
        Request::Send { fd, from, all } => {
            opcode::Send::new(types::Fd(fd), readable(from), from.length)
                .flags(send_flags(all))
                .build()
        }
        Request::SendZeroCopy { fd, from } => {
            opcode::SendZc::new(types::Fd(fd), readable(from), from.length)
                .flags(send_flags(false))
                .build()
        }
        Request::SendMessage { fd, header, all } => {
            opcode::SendMsg::new(types::Fd(fd), header as *const _)
                .flags(send_flags(all) as u32)
                .build()
        }
        Request::Read { fd, into, offset } => {
            opcode::Read::new(types::Fd(fd), writable(into), into.length)
                .offset(offset)
                .build()
        }
        Request::ReadProvided { fd, group } => {
            // As much as the buffer holds.
            opcode::Read::new(types::Fd(fd), std::ptr::null_mut(), 0)
                .offset(CURRENT_POSITION)
                .buf_group(group)
                .build()
                .flags(squeue::Flags::BUFFER_SELECT)
        }
        Request::Write {
            fd,
            from,
            offset,
            apart,
        } => opcode::Write::new(types::Fd(fd), readable(from), from.length)
            .offset(offset)
            .build()
            .flags(where_it_runs(apart)),
        Request::Sync { fd, data_only } => {
            let flags = if data_only {
                types::FsyncFlags::DATASYNC
            } else {
                types::FsyncFlags::empty()
            };
            opcode::Fsync::new(types::Fd(fd)).flags(flags).build()
        }
        Request::Open {
            directory,
            path,
            how,
        } => opcode::OpenAt2::new(
            types::Fd(directory),
            path as *const libc::c_char,
            how as *const types::OpenHow,
        )
        .build(),
        Request::Status {
            directory,
            path,
            flags,
            mask,
            into,
        } => opcode::Statx::new(
            types::Fd(directory),
            path as *const libc::c_char,
            into as *mut types::statx,
        )
        .flags(flags)
        .mask(mask)
        .build(),
        Request::Close { fd, apart } => opcode::Close::new(types::Fd(fd))
            .build()
            .flags(where_it_runs(apart)),
        Request::Poll { fd, events } => opcode::PollAdd::new(types::Fd(fd), events).build(),
        Request::PollMulti { fd, events } => opcode::PollAdd::new(types::Fd(fd), events)
            .multi(true)
            .build(),
        Request::Cancel { target } => opcode::AsyncCancel::new(target).build(),
    };
    entry.user_data(user_data)
}

/// What is done apart waits on a thread of the kernel's own, and not where it is submitted.
fn where_it_runs(apart: bool) -> squeue::Flags {
    if apart {
        squeue::Flags::ASYNC
    } else {
        squeue::Flags::empty()
    }
}

/// Never SIGPIPE: a peer that went away is an error of the op, not the end of the process.
fn send_flags(all: bool) -> i32 {
    libc::MSG_NOSIGNAL | if all { libc::MSG_WAITALL } else { 0 }
}

fn readable(region: Region) -> *const u8 {
    region.address as *const u8
}

fn writable(region: RegionMut) -> *mut u8 {
    region.address as *mut u8
}
