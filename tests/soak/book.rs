//! What became of each request, seen from the server: a page for each number, all made beforehand, so that
//! the book itself does not grow.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU16, Ordering};

/// The book of a server's process, which all of its cores write.
#[derive(Debug)]
pub(crate) struct Book {
    pages: Vec<Page>,
}

#[derive(Debug)]
struct Page {
    /// How many handlers began with it, and ended.
    begun: AtomicU8,
    ended: AtomicU8,
    /// How often it was told of, and with what.
    told: AtomicU8,
    whole: AtomicU8,
    status: AtomicU16,
}

/// A page as it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) number: u64,
    pub(crate) begun: u8,
    pub(crate) ended: u8,
    pub(crate) told: u8,
    pub(crate) whole: bool,
    /// 0 if it was given up before there was an answer.
    pub(crate) status: u16,
}

/// A handler at work, until this is dropped.
#[derive(Debug)]
pub(crate) struct Handling {
    book: Arc<Book>,
    number: u64,
}

impl Book {
    /// Makes one with pages for so many numbers.
    pub(crate) fn of(numbers: u64) -> Self {
        let page = |_| Page {
            begun: AtomicU8::new(0),
            ended: AtomicU8::new(0),
            told: AtomicU8::new(0),
            whole: AtomicU8::new(0),
            status: AtomicU16::new(UNKNOWN),
        };
        Self {
            pages: (0..numbers).map(page).collect(),
        }
    }

    fn page(&self, number: u64) -> &Page {
        let place = usize::try_from(number).expect("a number");
        self.pages.get(place).expect("the book has enough pages")
    }

    /// Notes that a handler begins.
    pub(crate) fn begin(self: &Arc<Self>, number: u64) -> Handling {
        self.page(number).begun.fetch_add(1, Ordering::Relaxed);
        let book = Arc::clone(self);
        Handling { book, number }
    }

    /// Notes what the server tells of a request.
    pub(crate) fn tell(&self, number: u64, status: u16, whole: bool) {
        let page = self.page(number);
        page.status.store(status, Ordering::Relaxed);
        page.whole.store(u8::from(whole), Ordering::Relaxed);
        page.told.fetch_add(1, Ordering::Relaxed);
    }

    /// Reads every page that has something written on it.
    pub(crate) fn entries(&self) -> impl Iterator<Item = Entry> {
        let read = |(number, page): (u64, &Page)| Entry {
            number,
            begun: page.begun.load(Ordering::Relaxed),
            ended: page.ended.load(Ordering::Relaxed),
            told: page.told.load(Ordering::Relaxed),
            whole: page.whole.load(Ordering::Relaxed) > 0,
            status: page.status.load(Ordering::Relaxed) % UNKNOWN,
        };
        let written = |entry: &Entry| entry.begun > 0 || entry.told > 0;
        (0..).zip(&self.pages).map(read).filter(written)
    }
}

/// No status; and no zero, so that all pages are in memory from the beginning.
const UNKNOWN: u16 = 1000;

impl Drop for Handling {
    fn drop(&mut self) {
        let page = self.book.page(self.number);
        page.ended.fetch_add(1, Ordering::Relaxed);
    }
}

impl Entry {
    /// Writes it as a line.
    pub(crate) fn line(self) -> String {
        let Self {
            number,
            begun,
            ended,
            told,
            whole,
            status,
        } = self;
        format!(
            "{number} {begun} {ended} {told} {} {status}",
            u8::from(whole)
        )
    }

    /// Reads such a line.
    pub(crate) fn of_line(line: &str) -> Self {
        let parts: Vec<u64> = line
            .split_whitespace()
            .map(|part| part.parse().expect("a number"))
            .collect();
        let [number, begun, ended, told, whole, status] = parts[..] else {
            panic!("no page: {line}");
        };
        let times = |times| u8::try_from(times).expect("a page has room for it");
        Self {
            number,
            begun: times(begun),
            ended: times(ended),
            told: times(told),
            whole: whole > 0,
            status: u16::try_from(status).expect("a status"),
        }
    }
}
