//! The tree is as its documents say.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("the workspace").to_owned()
}

/// Returns every source file, relative to the root, with its text.
fn sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of ours") {
            let path = entry.expect("a folder of ours").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if path.is_dir() {
                // What is built or hidden is not ours.
                if name != "target" && !name.starts_with('.') {
                    folders.push(path);
                }
            } else if name.ends_with(".rs") {
                let text = fs::read_to_string(&path).expect("sources are text");
                let short = path.strip_prefix(root()).expect("below the root");
                found.push((short.display().to_string(), text));
            }
        }
    }
    found.sort();
    assert!(found.len() > 50, "the workspace was not found");
    found
}

/// Returns the lines of `text` that are no comments, with their numbers.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    (1..)
        .zip(text.lines())
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
}

/// Returns whether `word` stands in `line` as a word of its own.
fn has_word(line: &str, word: &str) -> bool {
    let part_of_a_word = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !before.is_some_and(part_of_a_word) && !after.is_some_and(part_of_a_word)
    })
}

#[test]
fn every_file_opens_with_what_it_is() {
    let silent: Vec<_> = sources()
        .into_iter()
        .filter(|(_, text)| !text.starts_with("//!"))
        .map(|(path, _)| path)
        .collect();
    assert!(silent.is_empty(), "no module docs: {silent:#?}");
}

#[test]
fn unsafe_code_stays_in_its_four_folders() {
    const ALLOWED: [&str; 5] = [
        // What quoit is compared with, on the bare kernel.
        "benches/comparators/",
        "runtime/src/driver/",
        "runtime/src/kernel_op/",
        "runtime/src/buf/",
        "runtime/src/task/",
    ];
    let word = concat!("un", "safe");
    let mut elsewhere = Vec::new();
    for (path, text) in sources() {
        if ALLOWED.iter().any(|folder| path.starts_with(folder)) {
            continue;
        }
        elsewhere.extend(
            code(&text)
                .filter(|(_, line)| has_word(line, word))
                .map(|(number, line)| format!("{path}:{number}: {}", line.trim())),
        );
    }
    assert!(elsewhere.is_empty(), "{elsewhere:#?}");
}

#[test]
fn nothing_is_left_undone() {
    let signs = [
        concat!("#[", "ignore"),
        concat!("todo", "!"),
        concat!("unimplemented", "!"),
        concat!("dbg", "!("),
    ];
    let mut undone = Vec::new();
    for (path, text) in sources() {
        undone.extend(
            code(&text)
                .filter(|(_, line)| signs.iter().any(|sign| line.contains(sign)))
                .map(|(number, line)| format!("{path}:{number}: {}", line.trim())),
        );
    }
    assert!(undone.is_empty(), "{undone:#?}");
}

#[test]
fn the_architecture_names_every_folder() {
    let document = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("it is there");
    let headings: Vec<&str> = document
        .lines()
        .filter(|line| line.starts_with('#'))
        .collect();
    let mut missing: Vec<String> = sources()
        .into_iter()
        .filter_map(|(path, _)| {
            let folder = path
                .strip_suffix("/mod.rs")
                .or_else(|| path.strip_suffix("/lib.rs"))?;
            Some(format!("`{folder}`"))
        })
        .filter(|folder| !headings.iter().any(|line| line.contains(folder.as_str())))
        .collect();
    missing.sort();
    assert!(missing.is_empty(), "no heading for {missing:#?}");
}

#[test]
fn the_architecture_names_no_folder_that_is_gone() {
    let document = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("it is there");
    let gone: Vec<&str> = document
        .lines()
        .filter(|line| line.starts_with('#'))
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .filter(|path| path.contains('/') && !root().join(path).exists())
        .collect();
    assert!(gone.is_empty(), "{gone:#?}");
}
