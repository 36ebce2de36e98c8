//! The matrix as a program: what it refuses, what it says of failures, and what it leaves behind.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::thread;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use tempfile::TempDir;

/// Returns the command that runs the matrix without the others.
fn matrix(program: &Path, arguments: &[&str]) -> Command {
    let mut matrix = Command::new(program);
    if !arguments.contains(&"--comparators") {
        matrix.args(["--comparators", "/nowhere"]);
    }
    matrix.args(arguments);
    matrix
}

fn run(arguments: &[&str]) -> Output {
    let program = Path::new(env!("CARGO_BIN_EXE_matrix"));
    matrix(program, arguments).output().expect("it runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn what_cannot_be_measured_is_refused_at_once_and_says_why() {
    let only = ["--only", "echo-c64-d16"];
    for (arguments, told) in [
        (&["--rounds", "0"][..], "0 is not in 1..=1000"),
        (&["--seconds", "0"], "--seconds is between 0.1 and 3600"),
        (&["--seconds", "nan"], "--seconds is between 0.1 and 3600"),
        (&["--server-core", "1"], "name two"),
        (
            &["--server-core", "4096"],
            "--server-core: processor 4096 is not among",
        ),
        (
            &["--load-core", "4096"],
            "--load-core: processor 4096 is not among",
        ),
        (
            &["--only", "no-such"],
            "no scenario has \"no-such\" in its name",
        ),
        (
            &["--json", "/nowhere/rounds.json"],
            "/nowhere/rounds.json cannot be written",
        ),
        (&["--html", "/"], "/ cannot be written"),
    ] {
        let said = run(&[&only, arguments].concat());
        let complaint = text(&said.stderr);
        assert!(!said.status.success(), "{arguments:?}");
        assert!(complaint.contains(told), "{arguments:?}: {complaint}");
        assert!(
            said.stdout.is_empty(),
            "{arguments:?}: {}",
            text(&said.stdout)
        );
    }
}

#[test]
fn one_report_is_written_whatever_becomes_of_the_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let page = folder.path().join("report.html");
    let arguments = [
        "--only",
        "micro-check",
        "--rounds",
        "1",
        "--json",
        "/dev/full",
        "--html",
    ];
    let said = run(&[&arguments[..], &[page.to_str().expect("text")]].concat());
    let complaint = text(&said.stderr);
    assert_eq!(said.status.code(), Some(1), "{complaint}");
    assert!(
        complaint.contains("/dev/full cannot be written"),
        "{complaint}"
    );
    let page = fs::read_to_string(page).expect("it is written");
    assert!(
        page.contains("Part: check") && page.contains("1 round of"),
        "{page}"
    );
}

#[test]
fn nobody_who_reads_is_an_error_and_no_panic() {
    let full = File::options()
        .write(true)
        .open("/dev/full")
        .expect("Linux");
    let program = Path::new(env!("CARGO_BIN_EXE_matrix"));
    let said = matrix(program, &["--list"]).stdout(full).output();
    let said = said.expect("it runs");
    assert_eq!(said.status.code(), Some(1));
    let complaint = text(&said.stderr);
    assert!(
        complaint.starts_with("matrix: standard output: "),
        "{complaint}"
    );
}

#[test]
fn reports_are_written_though_nobody_reads_what_is_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let rounds = folder.path().join("rounds.json");
    let full = File::options()
        .write(true)
        .open("/dev/full")
        .expect("Linux");
    let program = Path::new(env!("CARGO_BIN_EXE_matrix"));
    let only = ["--only", "micro-check", "--rounds", "1"];
    let mut matrix = matrix(program, &only);
    matrix.arg("--json").arg(&rounds).stdout(full);
    let said = matrix.output().expect("it runs");
    assert_eq!(said.status.code(), Some(1));
    let complaint = text(&said.stderr);
    assert!(
        complaint.contains("matrix: standard output: "),
        "{complaint}"
    );
    let rounds = fs::read_to_string(rounds).expect("it is written");
    assert!(rounds.contains("\"name\": \"micro-check\""), "{rounds}");
}

#[test]
fn reports_are_written_though_nobody_reads_how_far_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let rounds = folder.path().join("rounds.json");
    let full = File::options().write(true).open("/dev/full");
    let program = Path::new(env!("CARGO_BIN_EXE_matrix"));
    let only = ["--only", "micro-check", "--rounds", "1"];
    let mut matrix = matrix(program, &only);
    matrix.arg("--json").arg(&rounds);
    let said = matrix.stderr(full.expect("Linux")).output();
    let said = said.expect("it runs");
    assert_eq!(said.status.code(), Some(0), "{}", text(&said.stdout));
    let rounds = fs::read_to_string(rounds).expect("it is written");
    assert!(rounds.contains("\"name\": \"micro-check\""), "{rounds}");
}

#[test]
fn a_part_that_this_machine_does_not_have_is_no_failure_of_quoit() {
    let program = Path::new(env!("CARGO_BIN_EXE_matrix"));
    let part = ["--only", "read_4k_direct_qd1", "--rounds", "1"];
    let mut matrix = matrix(program, &part);
    // It lies in memory, as the usual folder of temporary files does on many machines.
    let said = matrix.env("TMPDIR", "/dev/shm").output().expect("it runs");
    assert_eq!(said.status.code(), Some(1));
    assert_eq!(
        text(&said.stderr),
        "matrix: micro-read_4k_direct_qd1 cannot be measured here: /dev/shm lies in memory: name another TMPDIR\n"
    );
}

#[test]
fn connections_that_say_nothing_are_not_measured_where_only_a_few_may_be_open() {
    let listed = |limit: &str| {
        let mut shell = Command::new("sh");
        shell.args(["-c", "ulimit -n \"$0\" && exec \"$@\"", limit]);
        let program = env!("CARGO_BIN_EXE_matrix");
        shell.args([program, "--list", "--only", "echo-idle"]);
        shell.output().expect("it runs")
    };
    let some = listed("1024");
    let told = text(&some.stdout);
    assert!(told.ends_with(" 824 idle connections\n"), "{some:?}");
    for limit in ["100", "201", "699"] {
        let few = listed(limit);
        assert_eq!(few.status.code(), Some(1), "{few:?}");
        assert_eq!(
            text(&few.stderr),
            format!(
                "matrix: echo-idle cannot be measured here: it takes 700 descriptors, and {limit} are allowed (`ulimit -Hn`)\n"
            )
        );
    }
}

#[test]
fn a_program_that_cannot_say_its_parts_is_asked_once_and_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let peer = folder.path().join("micro-tokio");
    write(
        &peer,
        r#"printf '#!/bin/sh\necho asked >> "$0.log"; exit 3\n'"#,
    );
    let said = run(&[
        "--only",
        "micro-check",
        "--only",
        "micro-yield_1",
        "--rounds",
        "1",
        "--comparators",
        folder.path().to_str().expect("text"),
    ]);
    assert!(said.status.success(), "{}", text(&said.stderr));
    let told = text(&said.stdout);
    assert!(
        told.contains("left out: tokio in all parts: exit status: 3"),
        "{told}"
    );
    let asked = fs::read_to_string(folder.path().join("micro-tokio.log"));
    assert_eq!(asked.expect("it was asked"), "asked\n");
}

#[test]
fn two_reports_are_two_files() {
    let folder = tempfile::tempdir().expect("a folder");
    let [report, same] = ["report", "same"].map(|name| folder.path().join(name));
    fs::write(&report, "").expect("a file");
    symlink(&report, &same).expect("a link");
    let said = run(&[
        "--only",
        "micro-check",
        "--rounds",
        "1",
        "--json",
        report.to_str().expect("text"),
        "--html",
        same.to_str().expect("text"),
    ]);
    assert_eq!(said.status.code(), Some(1));
    let complaint = text(&said.stderr);
    assert!(
        complaint.contains("cannot be two reports: name two files"),
        "{complaint}"
    );
}

/// Writes a program that a shell prints. Another process does it: one that is open for writing cannot be run, and what
/// this one has open, others inherit for a moment.
fn write(program: &Path, prints: &str) {
    let script = format!("{prints} > \"$0\" && chmod 755 \"$0\"");
    let mut shell = Command::new("sh");
    shell.env("MATRIX", env!("CARGO_BIN_EXE_matrix"));
    let written = shell.arg("-c").arg(script).arg(program).status();
    assert!(written.expect("a shell").success());
}

#[test]
fn the_others_are_built_to_be_measured_and_not_for_a_question() {
    let folder = tempfile::tempdir().expect("a folder");
    let cargo = folder.path().join("cargo");
    write(
        &cargo,
        r#"printf '#!/bin/sh\necho "$PWD: $*" >> "$0.log"\n'"#,
    );
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("run");
    let asked_for = |arguments: &[&str]| {
        let usual = std::env::var("PATH").expect("it is set");
        let mut run = Command::new(&script);
        run.env("PATH", format!("{}:{usual}", folder.path().display()));
        let said = run.args(arguments).output().expect("it runs");
        assert!(said.status.success(), "{said:?}");
        let log = folder.path().join("cargo.log");
        let asked = fs::read_to_string(&log).expect("it was asked");
        fs::remove_file(log).expect("it is there");
        asked
    };
    let others = "/comparators: build ";
    for question in [&["--help"][..], &["-h"], &["--quick", "--list"]] {
        let asked = asked_for(question);
        assert!(!asked.contains(others), "{asked}");
        assert!(
            asked.ends_with(&format!(" {}\n", question.join(" "))),
            "{asked}"
        );
    }
    let asked = asked_for(&["--only", "idle"]);
    assert!(asked.contains(others), "{asked}");
    assert!(asked.ends_with(" --only idle\n"), "{asked}");
}

/// A round of one scenario, of so many seconds.
fn one_round(seconds: &str) -> [&str; 6] {
    [
        "--only",
        "echo-c64-d16",
        "--rounds",
        "1",
        "--seconds",
        seconds,
    ]
}

#[test]
fn a_failure_of_quoit_is_told_and_the_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let [program, server] = ["matrix", "echo"].map(|name| folder.path().join(name));
    write(&program, "cat \"$MATRIX\"");
    let arguments = one_round("0.1");
    let missing = matrix(&program, &arguments).output().expect("it runs");
    let complaint = text(&missing.stderr);
    assert!(
        complaint.contains("echo is not built: `cargo build"),
        "{complaint}"
    );

    write(&server, "printf '#!/bin/sh\\necho no ring >&2; exit 3\\n'");
    let load = folder.path().join("echo_load");
    symlink(env!("CARGO_BIN_EXE_echo_load"), load).expect("a link");
    let said = matrix(&program, &arguments).output().expect("it runs");
    assert_eq!(said.status.code(), Some(1));
    let (told, complaint) = (text(&said.stdout), text(&said.stderr));
    let why = "failed: the server does not listen: exit status: 3: no ring";
    assert!(told.contains(why), "{told}");
    assert!(
        complaint.contains("quoit failed in echo-c64-d16"),
        "{complaint}"
    );
}

/// Returns the children of a process, with their names.
fn children(process: u32) -> Vec<(i32, String)> {
    let listed = fs::read_to_string(format!("/proc/{process}/task/{process}/children"));
    let listed = listed.expect("the kernel lists them");
    let numbers = listed
        .split_whitespace()
        .map(|number| number.parse().expect("a number"));
    numbers
        .map(|number: i32| {
            let name = fs::read_to_string(format!("/proc/{number}/comm")).unwrap_or_default();
            (number, name.trim().to_owned())
        })
        .collect()
}

#[test]
fn a_matrix_that_is_killed_leaves_nothing_behind() {
    let program = Path::new(env!("CARGO_BIN_EXE_matrix"));
    let arguments = one_round("600");
    let mut running = matrix(program, &arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it runs");
    let all = loop {
        let all = children(running.id());
        if all.iter().any(|(_, name)| name == "echo_load") {
            break all;
        }
        assert!(
            running.try_wait().expect("it is ours").is_none(),
            "it has ended"
        );
        thread::yield_now();
    };
    let names: Vec<_> = all.iter().map(|(_, name)| name.as_str()).collect();
    assert_eq!(names, ["sh", "echo", "echo_load"]);
    let handles: Vec<_> = all
        .iter()
        .map(|(number, _)| {
            let number = Pid::from_raw(*number).expect("a number");
            pidfd_open(number, PidfdFlags::empty()).expect("it runs")
        })
        .collect();
    running.kill().expect("it runs");
    running.wait().expect("it is ours");
    let patience = Timespec {
        tv_sec: 60,
        tv_nsec: 0,
    };
    for (handle, name) in handles.iter().zip(names) {
        let mut polled = [PollFd::new(handle, PollFlags::IN)];
        assert_eq!(poll(&mut polled, Some(&patience)), Ok(1), "{name} goes on");
    }
}

/// What stands for our micro program: it stops at the second part in the second round, and says who it is.
const MICRO: &str = r#"#!/bin/sh
case "$1" in
    --list)
        printf "check\nyield_1\nyield_100\n" ;;
    yield_1)
        echo turn >> "$0.turns"
        [ "$(wc -l < "$0.turns")" -lt 2 ] || { echo $$ > "$0.held"; exec sleep 1000; }
        echo "{\"name\": \"yield_1\", \"ns\": 7.0}" ;;
    *)
        echo "{\"name\": \"check\", \"ns\": 7.0}" ;;
esac
"#;

/// A matrix in the middle of its second part.
struct Held {
    folder: TempDir,
    running: Child,
    complains: BufReader<ChildStderr>,
    /// The program in whose turn it is.
    micro: OwnedFd,
}

impl Held {
    fn begin(folder: TempDir, report: &str) -> Self {
        let [program, micro] = ["matrix", "micro"].map(|name| folder.path().join(name));
        write(&program, "cat \"$MATRIX\"");
        write(&micro, &format!("printf %s '{MICRO}'"));
        let mut matrix = matrix(&program, &["--only", "micro-", "--rounds", "2", "--json"]);
        let matrix = matrix.arg(folder.path().join(report));
        let matrix = matrix.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut running = matrix.spawn().expect("it runs");
        let complains = BufReader::new(running.stderr.take().expect("it is piped"));
        let held = folder.path().join("micro.held");
        let number = loop {
            match fs::read_to_string(&held) {
                Ok(said) if said.ends_with('\n') => break said.trim().parse().expect("a number"),
                _ => thread::yield_now(),
            }
        };
        let number = Pid::from_raw(number).expect("a number");
        Self {
            micro: pidfd_open(number, PidfdFlags::empty()).expect("it runs"),
            folder,
            running,
            complains,
        }
    }

    /// Sends SIGINT, and waits until it is heard.
    fn interrupt(&mut self) {
        self.signal();
        let mut line = String::new();
        while !line.starts_with("interrupted: ") {
            line.clear();
            let read = self.complains.read_line(&mut line).expect("text");
            assert_ne!(read, 0, "it has ended without a word of that");
        }
    }

    fn signal(&self) {
        kill_process(Pid::from_child(&self.running), Signal::INT).expect("it runs");
    }

    /// Waits for the end of it and of the program; returns its status, and what it has said and complained.
    fn ended(mut self) -> (Option<i32>, String, String, TempDir) {
        let mut complaint = String::new();
        self.complains
            .read_to_string(&mut complaint)
            .expect("it ends");
        let said = self.running.wait_with_output().expect("it is ours");
        let patience = Timespec {
            tv_sec: 60,
            tv_nsec: 0,
        };
        let mut polled = [PollFd::new(&self.micro, PollFlags::IN)];
        assert_eq!(
            poll(&mut polled, Some(&patience)),
            Ok(1),
            "its program goes on"
        );
        (
            said.status.code(),
            text(&said.stdout),
            complaint,
            self.folder,
        )
    }
}

#[test]
fn an_interrupted_matrix_reports_what_was_measured_until_then() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut held = Held::begin(folder, "rounds.json");
    held.interrupt();
    let (status, told, complaint, folder) = held.ended();
    assert_eq!(status, Some(1), "{complaint}");
    assert!(
        complaint.ends_with("matrix: interrupted: 2 of 3 scenarios were measured\n"),
        "{complaint}"
    );
    let why = "interrupted before it was measured";
    assert!(told.contains(why) && !told.contains("failed"), "{told}");
    let rounds = fs::read_to_string(folder.path().join("rounds.json")).expect("it is written");
    let rounds: serde_json::Value = serde_json::from_str(&rounds).expect("JSON");
    let measured = rounds["scenarios"].as_array().expect("a list").iter();
    let measured: Vec<_> = measured
        .map(|row| {
            let rounds = &row["contenders"][0]["figures"]["ns"]["rounds"];
            (row["name"].as_str(), rounds.as_array().map(Vec::len))
        })
        .collect();
    // Of the part in whose turn it came, the round that was whole.
    let (check, one) = (Some("micro-check"), Some("micro-yield_1"));
    assert_eq!(measured, [(check, Some(2)), (one, Some(1))]);
}

#[test]
fn a_matrix_of_which_nobody_reads_a_word_is_interrupted_as_well() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut held = Held::begin(folder, "rounds.json");
    // What it says of itself from now on reaches nobody.
    let (unread, _) = std::os::unix::net::UnixStream::pair().expect("sockets");
    drop(std::mem::replace(
        &mut held.complains,
        BufReader::new(ChildStderr::from(OwnedFd::from(unread))),
    ));
    held.signal();
    let (status, told, _, folder) = held.ended();
    assert_eq!(status, Some(1), "{told}");
    assert!(
        told.contains("interrupted before it was measured"),
        "{told}"
    );
    let rounds = fs::read_to_string(folder.path().join("rounds.json")).expect("it is written");
    assert!(rounds.contains("\"name\": \"micro-check\""), "{rounds}");
}

#[test]
fn interrupted_twice_a_matrix_ends_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    // A report that nobody reads, where nothing fits in any more: it would wait there for ever.
    let report = folder.path().join("rounds.json");
    let made = Command::new("mkfifo").arg(&report).status();
    assert!(made.expect("it runs").success());
    let mut full = File::options()
        .read(true)
        .write(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(&report)
        .expect("a pipe");
    while full.write(&[b' '; 4096]).is_ok() {}
    let mut held = Held::begin(folder, "rounds.json");
    held.interrupt();
    held.signal();
    let (status, _, complaint, _) = held.ended();
    assert_eq!(status, Some(130), "{complaint}");
}
