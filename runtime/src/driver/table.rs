//! Tables that grow, and are not copied once they are large.
//!
//! A core has a table of each kind of thing that it has many of. A vector that grows is copied, or may be, into memory
//! that is new to the kernel, which hands it out page by page: that was half of the time of a hundred thousand timers
//! on a new core. A table that is large lies in a mapping of its own. It is moved by its page tables, and asks for
//! large pages; a kernel that has none to give gives others. `mremap(2)`, `madvise(2)`.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error, realloc};
use std::fmt;
use std::marker::PhantomData;
use std::num::NonZeroUsize;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// A large page of x86-64, and of most others. What is smaller is the allocator's; a mapping is a multiple of it, which
/// is what kernels align for large pages.
const LARGE: usize = 2 * 1024 * 1024;

/// The room of a new table, in entries.
const FIRST: usize = 64;

/// Entries of one kind, one behind the other. Its room doubles, and is given back when it is dropped.
pub(crate) struct Table<T> {
    memory: Memory<T>,
    length: usize,
}

/// Room for entries, which are somebody else's to write and to drop.
struct Memory<T> {
    first: NonNull<T>,
    /// How many entries fit.
    room: usize,
    /// How long the mapping is; without one it is the allocator's.
    mapped: Option<NonZeroUsize>,
    owns: PhantomData<T>,
}

impl<T> Table<T> {
    pub(crate) const fn new() -> Self {
        Self {
            memory: Memory::NONE,
            length: 0,
        }
    }

    /// Puts so many entries behind the last.
    #[inline]
    pub(crate) fn extend(&mut self, more: usize, mut entry: impl FnMut() -> T) {
        while self.memory.room - self.length < more {
            self.memory.grow();
        }
        for _ in 0..more {
            // SAFETY: there is room for more than those that are there.
            let place = unsafe { self.memory.first.add(self.length) };
            // SAFETY: the place is aligned, ours, and has no entry.
            unsafe { place.write(entry()) };
            self.length += 1;
        }
    }
}

impl<T> Deref for Table<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        // SAFETY: so many entries were written, and are reached through this owner alone.
        unsafe { NonNull::slice_from_raw_parts(self.memory.first, self.length).as_ref() }
    }
}

impl<T> DerefMut for Table<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and the owner is borrowed for as long.
        unsafe { NonNull::slice_from_raw_parts(self.memory.first, self.length).as_mut() }
    }
}

impl<T> Drop for Table<T> {
    fn drop(&mut self) {
        let entries = &raw mut **self;
        // SAFETY: they are dropped once: the memory, which goes next, knows nothing of them.
        unsafe { entries.drop_in_place() };
    }
}

impl<T: fmt::Debug> fmt::Debug for Table<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T> Memory<T> {
    const NONE: Self = Self {
        first: NonNull::dangling(),
        room: 0,
        mapped: None,
        owns: PhantomData,
    };

    /// What the allocator is asked for, where a table of so many entries is its.
    fn layout(room: usize) -> Layout {
        Layout::array::<T>(room).expect("a table is less than half of what can be addressed")
    }

    #[cold]
    fn grow(&mut self) {
        const { assert!(size_of::<T>() > 0, "what has no size takes no room") };
        let first = self.first.cast::<u8>();
        let (old, new) = (
            Self::layout(self.room),
            Self::layout((self.room * 2).max(FIRST)),
        );
        let length = new.size().next_multiple_of(LARGE);
        let memory = if new.size() >= LARGE {
            let moved = self
                .mapped
                .and_then(|mapped| move_mapping(first, mapped.get(), length));
            moved.or_else(|| {
                map(length).inspect(|memory| {
                    // SAFETY: both have room for what was, and the new one is nobody else's.
                    unsafe { memory.copy_from_nonoverlapping(first, old.size()) };
                    self.give_back();
                })
            })
        } else if self.room == 0 {
            // SAFETY: the size is not zero.
            NonNull::new(unsafe { alloc(new) })
        } else {
            // SAFETY: it is the allocator's, with the layout of its room; the new size is not zero.
            NonNull::new(unsafe { realloc(first.as_ptr(), old, new.size()) })
        };
        self.first = memory.unwrap_or_else(|| handle_alloc_error(new)).cast();
        if new.size() >= LARGE {
            self.mapped = NonZeroUsize::new(length);
            self.room = length / size_of::<T>();
        } else {
            self.room = new.size() / size_of::<T>();
        }
    }

    fn give_back(&self) {
        let first = self.first.cast::<u8>().as_ptr();
        if let Some(mapped) = self.mapped {
            // SAFETY: the mapping is ours, of this length, and nobody reaches into it any more.
            unsafe { libc::munmap(first.cast(), mapped.get()) };
        } else if self.room > 0 {
            // SAFETY: it is the allocator's, with this layout, and nobody reaches into it any more.
            unsafe { dealloc(first, Self::layout(self.room)) };
        }
    }
}

impl<T> Drop for Memory<T> {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// Maps memory that would have large pages; `None` if there is none.
fn map(length: usize) -> Option<NonNull<u8>> {
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: asks for new memory anywhere; nothing that exists is touched.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), length, access, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        return None;
    }
    // A kernel that knows of no large pages refuses, and nothing is lost.
    // SAFETY: the mapping is ours, and what lies in it stays as it is.
    unsafe { libc::madvise(start, length, libc::MADV_HUGEPAGE) };
    NonNull::new(start.cast())
}

/// Lets a mapping have another length, in another place if it must. `None`, and nothing has changed, if there is no
/// memory for it, or a filter of system calls refuses.
fn move_mapping(start: NonNull<u8>, old: usize, new: usize) -> Option<NonNull<u8>> {
    // SAFETY: the mapping is ours, of this length, and its owner borrows it for this.
    let moved = unsafe { libc::mremap(start.as_ptr().cast(), old, new, libc::MREMAP_MAYMOVE) };
    (moved != libc::MAP_FAILED)
        .then(|| NonNull::new(moved.cast()))
        .flatten()
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// From nothing to where it has been moved as a mapping, more than once.
    const MANY: usize = 8 * LARGE / size_of::<[usize; 3]>();

    #[test]
    fn entries_stay_as_they_are_while_the_table_grows() {
        let mut table = Table::new();
        assert_eq!(table.len(), 0);
        let (mut room, mut moved) = (0, 0);
        for n in 0..MANY {
            let was_mapped = table.memory.mapped.is_some();
            table.extend(1, || [n, n + 1, n + 2]);
            if table.memory.room != room {
                room = table.memory.room;
                moved += u32::from(was_mapped);
                assert!((0..=n).all(|n| table[n] == [n, n + 1, n + 2]), "{n}");
            }
        }
        assert_eq!(moved, 2);
        table[MANY - 1] = [0; 3];
        assert_eq!(table.last(), Some(&[0; 3]));
        assert_eq!(table.len(), MANY);
    }

    #[test]
    fn each_entry_is_dropped_once() {
        struct Counted<'a>(&'a Cell<usize>, [u64; 7]);
        impl Drop for Counted<'_> {
            fn drop(&mut self) {
                assert_eq!(self.1, [9; 7]);
                self.0.set(self.0.get() + 1);
            }
        }
        let dropped = Cell::new(0);
        for many in [0, 1, 64, 65, 40_000, 100_000] {
            let mut table = Table::new();
            table.extend(many, || Counted(&dropped, [9; 7]));
            assert_eq!(dropped.get(), 0);
            drop(table);
            assert_eq!(dropped.replace(0), many);
        }
    }

    #[test]
    fn a_mapping_is_used_to_its_end() {
        let mut table = Table::new();
        while table.memory.mapped.is_none() {
            table.extend(1, || [7_u8; 72]);
        }
        let length = table.memory.mapped.map_or(0, NonZeroUsize::get);
        while table.len() < length / 72 {
            table.extend(1, || [8; 72]);
        }
        assert_eq!(table.memory.mapped.map_or(0, NonZeroUsize::get), length);
        table.extend(1, || [9; 72]);
        assert_eq!(table.memory.mapped.map_or(0, NonZeroUsize::get), 2 * length);
        assert_eq!((table[0], table[length / 72]), ([7; 72], [9; 72]));
    }

    /// What the kernel has noted of the mapping that an address lies in: `VmFlags` of `proc_pid_smaps(5)`.
    fn flags_of(address: usize) -> String {
        let maps = std::fs::read_to_string("/proc/self/smaps").expect("a process sees its own");
        let mut lines = maps.lines().skip_while(|line| {
            let range = line
                .split(' ')
                .next()
                .and_then(|range| range.split_once('-'));
            let parsed = range.map(|(from, to)| {
                (
                    usize::from_str_radix(from, 16),
                    usize::from_str_radix(to, 16),
                )
            });
            !matches!(parsed, Some((Ok(from), Ok(to))) if (from..to).contains(&address))
        });
        let flags = lines.find_map(|line| line.strip_prefix("VmFlags:"));
        flags.expect("each mapping has flags").to_owned()
    }

    #[test]
    fn a_large_table_asks_for_large_pages_wherever_it_is_moved() {
        if !std::path::Path::new("/sys/kernel/mm/transparent_hugepage").exists() {
            eprintln!("left out: this kernel has no large pages to give");
            return;
        }
        let mut table = Table::new();
        let mut seen = Vec::new();
        while seen.len() < 3 {
            table.extend(64, || [0_u8; 48]);
            if let Some(mapped) = table.memory.mapped
                && seen.last() != Some(&mapped)
            {
                seen.push(mapped);
                let flags = flags_of(table.memory.first.addr().get());
                assert!(
                    flags.split(' ').any(|flag| flag == "hg"),
                    "{mapped}: {flags}"
                );
            }
        }
    }
}
