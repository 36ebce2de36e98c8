//! A folder of a test's own, with files in it, on whichever machine the test runs.

use std::fs;
use std::future::Future;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use quoit::fs::File;
use quoit::sim::Sim;
use quoit::{Handle, Runtime};

use crate::Kernel;
use crate::core::{SEEDS, on_both_with, on_ring_of};
use crate::quiet::quietly;

/// Where the folder lies on a simulated machine.
const SIMULATED: &str = "/tests/of/their/own";

/// What lies in the folder at first; folders come before what lies in them.
#[derive(Debug, Clone, Copy)]
pub enum Put<'a> {
    /// A folder.
    Folder(&'a str),
    /// A file, and what it holds.
    File(&'a str, &'a [u8]),
    /// A symbolic link, and where it leads.
    Link(&'a str, &'a str),
    /// A symbolic link that leads to a place in this folder by an absolute path.
    LinkHere(&'a str, &'a str),
}

/// Runs `body` as [`on_core`](crate::on_core) does, with the path of a folder that holds `entries`.
pub fn on_core_in<M>(
    entries: &[Put<'_>],
    body: impl FnOnce(Handle, PathBuf) -> M + Clone + Send + 'static,
) -> M::Output
where
    M: Future<Output: Send + 'static> + 'static,
{
    on_both_in(entries, |path| {
        let body = body.clone();
        on_ring_of(Runtime::builder(), move |handle| body(handle, path))
    })
}

/// Runs `body` as [`conform`](crate::conform) does, with the path of a folder that holds `entries`.
pub fn conform_in<M>(
    entries: &[Put<'_>],
    body: impl FnOnce(Handle, PathBuf) -> M + Clone + Send + 'static,
) -> M::Output
where
    M: Future<Output: Send + 'static> + 'static,
{
    on_both_in(entries, |path| {
        let body = body.clone();
        quietly(move |handle| body(handle, path))
    })
}

fn on_both_in<T>(entries: &[Put<'_>], program: impl Fn(PathBuf) -> T) -> T {
    let program = || {
        let real = match Kernel::here() {
            Kernel::Real => Some(on_this_machine(entries)),
            Kernel::Simulated | Kernel::Unruly => None,
        };
        let path = real.as_ref().map(tempfile::TempDir::path);
        program(path.unwrap_or(Path::new(SIMULATED)).to_owned())
    };
    on_both_with(SEEDS, |sim| simulated(sim, entries), program)
}

fn on_this_machine(entries: &[Put<'_>]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder for this test");
    let root = folder.path();
    for entry in entries {
        let made = match *entry {
            Put::Folder(path) => fs::create_dir(root.join(path)),
            Put::File(path, content) => fs::write(root.join(path), content),
            Put::Link(path, target) => symlink(target, root.join(path)),
            Put::LinkHere(path, target) => symlink(root.join(target), root.join(path)),
        };
        made.unwrap_or_else(|error| panic!("{entry:?}: {error}"));
    }
    folder
}

fn simulated(sim: Sim, entries: &[Put<'_>]) -> Sim {
    let here = |path| format!("{SIMULATED}/{path}");
    entries
        .iter()
        .fold(sim.folder(SIMULATED), |sim, entry| match *entry {
            Put::Folder(path) => sim.folder(here(path)),
            Put::File(path, content) => sim.file(here(path), content),
            Put::Link(path, target) => sim.link(here(path), target),
            Put::LinkHere(path, target) => sim.link(here(path), here(target)),
        })
}

/// Returns what a file holds, by requests to the kernel.
pub async fn content_of(path: impl AsRef<Path>) -> Vec<u8> {
    read_all(&File::open(path).await.expect("a file"), 0).await
}

/// Reads a file from an offset to its end.
pub async fn read_all(file: &File, from: u64) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        let (count, piece) = file
            .read_at(vec![0; 100_000], from + all.len() as u64)
            .await;
        match count.expect("no error") {
            0 => return all,
            count => all.extend_from_slice(&piece[..count]),
        }
    }
}
