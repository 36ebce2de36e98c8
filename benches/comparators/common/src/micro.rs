//! The frame of a program that measures parts of a runtime: arguments, rounds, and one JSON object a line,
//! `{"name": …, "ns": …}`, with the median of the rounds.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Parser;

/// Measures parts of a runtime.
#[derive(Parser)]
struct Arguments {
    /// Which figures to take, by name; all, if none is named.
    names: Vec<String>,
    /// How often each is taken; the median counts.
    #[arg(long, default_value_t = 7)]
    rounds: u32,
    /// Lists the names.
    #[arg(long)]
    list: bool,
}

/// A figure that is one number a round.
pub type Figure = (&'static str, fn() -> f64);
/// A figure that not every machine has.
pub type Refusable = (&'static str, fn() -> io::Result<f64>);
/// A figure of many values, of which two quantiles are told.
pub type Spread = ([(&'static str, f64); 2], fn() -> Vec<f64>);

/// How long the timeouts and sleeps last that never end by themselves.
pub const LONG: Duration = Duration::from_secs(100);

/// How large the file is that is read: it lies in the page cache.
pub const FILE: u64 = 64 << 20;
/// How much of it is read at once.
pub const PIECE: u64 = 4096;

/// Takes the figures that the arguments of the process ask for, and prints them.
pub fn run(figures: &[Figure], spreads: &[Spread]) {
    run_all(figures, &[], spreads);
}

/// Does what [`run`] does, with figures that this machine may not have: then the process fails at the end.
pub fn run_all(figures: &[Figure], refusable: &[Refusable], spreads: &[Spread]) {
    let arguments = Arguments::parse();
    let spread_names = spreads.iter().flat_map(|(names, _)| names);
    let known: Vec<_> = figures
        .iter()
        .map(|(name, _)| *name)
        .chain(refusable.iter().map(|(name, _)| *name))
        .chain(spread_names.map(|(name, _)| *name))
        .collect();
    if arguments.list {
        known.iter().for_each(|name| println!("{name}"));
        return;
    }
    let is_unknown = |name: &&String| !known.contains(&name.as_str());
    if let Some(unknown) = arguments.names.iter().find(is_unknown) {
        eprintln!("there is no figure {unknown:?} here: `--list` lists them");
        std::process::exit(2);
    }
    let is_wanted = |name: &str| {
        arguments.names.is_empty() || arguments.names.iter().any(|wanted| wanted == name)
    };
    let rounds = 0..arguments.rounds.max(1);
    for (name, figure) in figures {
        if is_wanted(name) {
            say(name, rounds.clone().map(|_| figure()).collect());
        }
    }
    let mut was_refused = false;
    for (name, figure) in refusable {
        if !is_wanted(name) {
            continue;
        }
        match rounds.clone().map(|_| figure()).collect() {
            Ok(values) => say(name, values),
            Err(error) => {
                let error: io::Error = error;
                eprintln!("{name}: {error}");
                was_refused = true;
            }
        }
    }
    for (quantiles, spread) in spreads {
        if !quantiles.iter().any(|(name, _)| is_wanted(name)) {
            continue;
        }
        let mut taken: Vec<_> = rounds.clone().map(|_| spread()).collect();
        for (name, share) in quantiles {
            if is_wanted(name) {
                let rounds = taken.iter_mut().map(|values| quantile(values, *share));
                say(name, rounds.collect());
            }
        }
    }
    if was_refused {
        std::process::exit(1);
    }
}

fn say(name: &str, mut values: Vec<f64>) {
    let median = median(&mut values);
    println!(r#"{{"name": "{name}", "ns": {median:.1}}}"#);
}

/// Returns the value in the middle; of an even number, the mean of the two, as quoit's own program does.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        values[middle]
    } else {
        f64::midpoint(values[middle - 1], values[middle])
    }
}

fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len() - 1;
    values[(last as f64 * share).round() as usize]
}

/// Nanoseconds since `begin`, for each of so many.
pub fn each(begin: Instant, count: u32) -> f64 {
    begin.elapsed().as_nanos() as f64 / f64::from(count)
}

/// A file in the page cache, full of sevens.
///
/// # Panics
///
/// If there is no room for it.
pub fn cached() -> File {
    let mut file = tempfile::tempfile().expect("a folder to write to");
    file.write_all(&vec![7; FILE as usize]).expect("room");
    file
}

/// A file whose reads pass by the page cache, full of sevens.
///
/// # Errors
///
/// If the folder of temporary files takes no direct reads. One in memory takes them, and has nothing but the page cache:
/// quoit's own program refuses that.
pub fn direct() -> io::Result<File> {
    let mut file = tempfile::NamedTempFile::new()?;
    file.write_all(&vec![7; FILE as usize])?;
    file.as_file().sync_all()?;
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECT)
        .open(file.path())
}

/// The path by which the file that is open here can be opened again.
pub fn path_of(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// A stream of numbers that a seed decides (xorshift64*).
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// Begins the stream of `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// Returns the next number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_of_rounds_lies_between_two() {
        assert_eq!(median(&mut [9.0, 1.0]), 5.0);
        assert_eq!(median(&mut [9.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&mut [4.0]), 4.0);
    }
}
