//! The access log: what it says, what it does not let clients say, and that nobody waits for it.

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tests::http_client::until;

use crate::program::{Program, folder};

/// A folder with a file, one for logs, and the path of the log in it.
fn places() -> (TempDir, TempDir, PathBuf) {
    let (root, logs) = (folder(), folder());
    fs::write(root.path().join("file"), vec![b'x'; 3_000]).expect("a new file");
    let log = logs.path().join("access.log");
    (root, logs, log)
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).expect("it is there")
}

/// Ends the program in order.
fn end(program: Program) {
    program.signal("TERM");
    let end = program.end();
    assert_eq!(end.status.code(), Some(0), "{}", end.said);
}

/// Takes a combined line apart: what is before the date, what is in quotes and between.
fn parts(line: &str) -> Vec<String> {
    let (before, rest) = line.split_once(" [").expect("a date");
    let (date, rest) = rest.split_once("] ").expect("a date");
    assert_eq!(date.len(), "06/Nov/1994:08:49:37 +0000".len(), "{line}");
    assert!(date.ends_with(" +0000"), "{line}");
    let (rest, took) = rest.rsplit_once(' ').expect("a time");
    let seconds: f64 = took.parse().expect("seconds");
    assert!(seconds >= 0.0, "{line}");
    let mut parts = vec![before.to_owned(), String::new()];
    let (mut escaped, mut quoted) = (false, false);
    for character in rest.chars() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => {
                quoted = !quoted;
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        parts.last_mut().expect("it has some").push(character);
    }
    assert!(!quoted, "a quote is open: {line}");
    parts.retain(|part| !part.trim().is_empty());
    parts
        .into_iter()
        .map(|part| part.trim().to_owned())
        .collect()
}

#[test]
fn the_log_says_what_clients_did() {
    let (root, _logs, log) = places();
    let program = Program::serving(root.path(), &["--access-log", &log.display().to_string()]);
    let mut client = program.client();
    let fields = "referer: http://example.org/from\r\nuser-agent: a browser/1.0\r\n";
    assert_eq!(client.get_with("/file?query", fields).status(), 200);
    assert_eq!(
        client.get_with("/file", "range: bytes=0-9\r\n").status(),
        206
    );
    client.ask("HEAD", "/file", "");
    assert_eq!(client.head().status, 200);
    assert_eq!(client.get("/missing").status(), 404);
    client.ask("POST", "/file", "content-length: 0\r\n");
    assert_eq!(client.answer().status(), 405);
    end(program);
    let log = text(&log);
    let lines: Vec<_> = log.lines().map(parts).collect();
    let line = |request: &str, answer: &str, referer: &str, agent: &str| {
        ["127.0.0.1 - -", request, answer, referer, agent].map(str::to_owned)
    };
    assert_eq!(
        lines,
        [
            line(
                "GET /file?query HTTP/1.1",
                "200 3000",
                "http://example.org/from",
                "a browser/1.0"
            ),
            line("GET /file HTTP/1.1", "206 10", "-", "-"),
            line("HEAD /file HTTP/1.1", "200 -", "-", "-"),
            line("GET /missing HTTP/1.1", "404 47", "-", "-"),
            line("POST /file HTTP/1.1", "405 60", "-", "-"),
        ]
    );
}

#[test]
fn a_client_that_goes_away_is_in_the_log_with_what_it_took() {
    let (root, _logs, log) = places();
    let large = fs::File::create(root.path().join("large")).expect("a new file");
    large.set_len(64 << 20).expect("a hole costs nothing");
    let log_option = log.display().to_string();
    let options = ["--access-log", &log_option, "--access-log-format", "json"];
    let program = Program::serving(root.path(), &options);
    let mut client = tests::http_client::Client::connect_narrow(program.address());
    client.ask("GET", "/large", "");
    assert_eq!(client.head().status, 200);
    let gone = client.into_socket();
    gone.shutdown(Shutdown::Both).expect("it is open");
    drop(gone);
    until(|| !text(&log).is_empty());
    end(program);
    let line: serde_json::Value = serde_json::from_str(&text(&log)).expect("one line of JSON");
    assert_eq!(line["status"], 200);
    assert_eq!(line["whole"], false);
    let bytes = line["bytes"].as_u64().expect("a number");
    assert!((1..64 << 20).contains(&bytes), "{bytes}");
}

#[test]
fn lines_of_json_say_the_same() {
    let (root, _logs, log) = places();
    let log_option = log.display().to_string();
    let options = ["--access-log", &log_option, "--access-log-format", "json"];
    let program = Program::serving(root.path(), &options);
    let client_fields = "user-agent: \"quoted\" \u{e9}\r\n";
    let mut client = program.client();
    let peer = client.socket().local_addr().expect("connected").to_string();
    assert_eq!(client.get_with("/file?query", client_fields).status(), 200);
    end(program);
    let line: serde_json::Value = serde_json::from_str(&text(&log)).expect("one line of JSON");
    assert_eq!(line["peer"], peer.as_str());
    assert_eq!(line["method"], "GET");
    assert_eq!(line["target"], "/file?query");
    assert_eq!(line["version"], "HTTP/1.1");
    assert_eq!(line["status"], 200);
    assert_eq!(line["bytes"], 3_000);
    assert_eq!(line["whole"], true);
    assert!(
        line["seconds"]
            .as_f64()
            .is_some_and(|seconds| seconds > 0.0)
    );
    assert_eq!(line["referer"], serde_json::Value::Null);
    assert_eq!(line["user_agent"], "\"quoted\" \u{e9}");
    let time = line["time"].as_str().expect("a text");
    assert_eq!(time.len(), "1994-11-06T08:49:37.123456Z".len(), "{time}");
}

#[test]
fn nobody_forges_a_line() {
    for format in ["combined", "json"] {
        let (root, _logs, log) = places();
        let log_option = log.display().to_string();
        let options = ["--access-log", &log_option, "--access-log-format", format];
        let program = Program::serving(root.path(), &options);
        let mut client = program.client();
        let evil: &[&[u8]] = &[
            b"GET /\"\\%0a127.0.0.1 HTTP/1.1\r\nhost: x\r\n\r\n",
            b"GET / HTTP/1.1\r\nhost: x\r\nuser-agent: \" 200 1 \"-\" \"\\\r\n\r\n",
            b"GET / HTTP/1.1\r\nhost: x\r\nreferer: a\tb\x85\x9b2J\xff\xe2\x80\xa8\r\n\r\n",
        ];
        for request in evil {
            client.send(request);
            client.answer();
        }
        end(program);
        let log = fs::read(&log).expect("it is there");
        let log = String::from_utf8(log).expect("lines are text");
        assert_eq!(log.lines().count(), evil.len(), "{log}");
        for line in log.lines() {
            assert!(!line.chars().any(char::is_control), "{line:?}");
            if format == "json" {
                serde_json::from_str::<serde_json::Value>(line).expect("JSON");
            } else {
                assert!(line.is_ascii(), "{line}");
                assert_eq!(parts(line).len(), 5, "{line}");
            }
        }
    }
}

#[test]
fn a_log_that_was_moved_away_is_opened_again_after_a_hangup() {
    let (root, logs, log) = places();
    let mut program = Program::serving(root.path(), &["--access-log", &log.display().to_string()]);
    let mut client = program.client();
    assert_eq!(client.get("/file?first").status(), 200);
    let moved = logs.path().join("access.log.1");
    fs::rename(&log, &moved).expect("it is there");
    // Until it is told, it writes where it did.
    assert_eq!(client.get("/file?second").status(), 200);
    until(|| text(&moved).contains("?second"));
    program.signal("HUP");
    assert_eq!(program.next_line(), "the access log was opened again");
    assert_eq!(client.get("/file?third").status(), 200);
    end(program);
    let (old, new) = (text(&moved), text(&log));
    assert_eq!(old.lines().count(), 2, "{old}");
    assert!(old.contains("?first"), "{old}");
    assert!(new.contains("?third"), "{new}");
    assert_eq!(new.lines().count(), 1, "{new}");
}

#[test]
fn a_log_that_cannot_be_opened_again_stays_where_it_was() {
    let (root, logs, log) = places();
    let inner = logs.path().join("inner");
    fs::create_dir(&inner).expect("a new folder");
    let log = inner.join(log.file_name().expect("a name"));
    let complaints = logs.path().join("complaints");
    let option = log.display().to_string();
    let program = Program::complaining_to(&complaints, root.path(), &["--access-log", &option]);
    let moved = logs.path().join("moved");
    fs::rename(&inner, &moved).expect("it is there");
    program.signal("HUP");
    until(|| text(&complaints).contains("the access log stays where it was"));
    assert!(text(&complaints).contains(&option));
    assert_eq!(program.client().get("/file").status(), 200);
    end(program);
    let lines = text(&moved.join("access.log"));
    assert_eq!(lines.lines().count(), 1, "{lines}");
}

#[test]
fn complaints_that_nobody_reads_stop_nothing() {
    let (root, logs, _log) = places();
    let inner = logs.path().join("inner");
    fs::create_dir(&inner).expect("a new folder");
    let log = inner.join("access.log").display().to_string();
    let program = Program::unheard(root.path(), &["--access-log", &log]);
    let moved = logs.path().join("moved");
    fs::rename(&inner, &moved).expect("it is there");
    // It has nowhere to open the log again, and nobody to tell.
    program.signal("HUP");
    program.signal("QUIT");
    assert_eq!(program.client().get("/file").status(), 200);
    until(|| text(&moved.join("access.log")).contains("GET /file"));
    end(program);
}

/// The program says where it listens, complains, is asked for its scope tree, says what it does at its end:
/// to pipes that are full, and stay so.
#[test]
fn pipes_that_nobody_reads_hold_up_nothing() {
    let (root, logs, _log) = places();
    let inner = logs.path().join("inner");
    fs::create_dir(&inner).expect("a new folder");
    let log = inner.join("access.log").display().to_string();
    let (_output, _errors, program) = Program::unread(root.path(), &["--access-log", &log]);
    assert_eq!(program.client().get("/file").status(), 200);
    let moved = logs.path().join("moved");
    fs::rename(&inner, &moved).expect("it is there");
    for _ in 0..3 {
        program.signal("HUP");
        program.signal("QUIT");
    }
    // The thread that heeds signals heeds the last as well.
    fs::rename(&moved, &inner).expect("it is there");
    let log = inner.join("access.log");
    let old = logs.path().join("old");
    fs::rename(&log, &old).expect("it is there");
    program.signal("HUP");
    until(|| log.exists());
    until(|| {
        assert_eq!(program.client().get("/file").status(), 200);
        text(&log).contains("GET /file")
    });
    end(program);
}

#[test]
fn a_named_pipe_waits_for_its_reader_and_the_program_does_not() {
    let (root, _logs, log) = places();
    let made = std::process::Command::new("mkfifo").arg(&log).status();
    assert!(made.expect("there is a mkfifo").success());
    let program = Program::serving(root.path(), &["--access-log", &log.display().to_string()]);
    assert_eq!(program.client().get("/file").status(), 200);
    let mut line = String::new();
    let mut reader = BufReader::new(fs::File::open(&log).expect("a pipe"));
    reader.read_line(&mut line).expect("text");
    assert_eq!(parts(line.trim_end())[1], "GET /file HTTP/1.1");
    end(program);
}

#[test]
fn what_is_there_already_stays_there() {
    let (root, _logs, log) = places();
    fs::write(&log, "from before\n").expect("a new file");
    let program = Program::serving(root.path(), &["--access-log", &log.display().to_string()]);
    assert_eq!(program.client().get("/file").status(), 200);
    end(program);
    let log = text(&log);
    assert!(log.starts_with("from before\n127.0.0.1 "), "{log}");
}

/// A machine that lost its power in the middle of a line, and a log that others write to.
#[test]
fn a_line_that_another_left_without_an_end_is_set_apart() {
    let (root, _logs, log) = places();
    fs::write(&log, "whole\ntorn").expect("a new file");
    let mut program = Program::serving(root.path(), &["--access-log", &log.display().to_string()]);
    let mut client = program.client();
    assert_eq!(client.get("/file?first").status(), 200);
    until(|| text(&log).contains("?first"));
    let mut other = fs::File::options().append(true).open(&log).expect("a log");
    other.write_all(b"torn again").expect("it is taken");
    program.signal("HUP");
    assert_eq!(program.next_line(), "the access log was opened again");
    assert_eq!(client.get("/file?second").status(), 200);
    end(program);
    let log = text(&log);
    let lines: Vec<_> = log.lines().collect();
    assert_eq!(lines.len(), 5, "{log}");
    assert_eq!(
        [lines[0], lines[1], lines[3]],
        ["whole", "torn", "torn again"]
    );
    assert_eq!(parts(lines[2])[1], "GET /file?first HTTP/1.1");
    assert_eq!(parts(lines[4])[1], "GET /file?second HTTP/1.1");
}

#[test]
fn a_full_disk_costs_lines_and_nothing_else() {
    let (root, logs, _log) = places();
    let complaints = logs.path().join("complaints");
    let options = ["--access-log", "/dev/full"];
    let program = Program::complaining_to(&complaints, root.path(), &options);
    let mut client = program.client();
    const REQUESTS: u64 = 50;
    for _ in 0..REQUESTS {
        assert_eq!(client.get("/file").status(), 200);
    }
    end(program);
    let complaints = text(&complaints);
    assert!(
        complaints.contains("/dev/full cannot be written"),
        "{complaints}"
    );
    assert!(complaints.contains("No space left"), "{complaints}");
    assert_eq!(lost(&complaints), REQUESTS, "{complaints}");
    assert!(complaints.lines().count() <= 2, "it is not said each time");
}

/// How many lines it said it had lost.
fn lost(complaints: &str) -> u64 {
    let said = complaints
        .lines()
        .filter_map(|line| line.strip_prefix("quoit: the access log lost "));
    said.filter_map(|line| line.split(' ').next()?.parse::<u64>().ok())
        .sum()
}

#[test]
fn a_pipe_that_nobody_holds_any_more_costs_lines_and_nothing_else() {
    let (root, _logs, _log) = places();
    let options = ["--access-log", "-"];
    let (mut program, output) = Program::saying_on_standard_error(root.path(), &options);
    let mut client = program.client();
    assert_eq!(client.get("/file").status(), 200);
    let mut output = BufReader::new(output);
    let mut line = String::new();
    output.read_line(&mut line).expect("text");
    assert_eq!(parts(line.trim_end())[1], "GET /file HTTP/1.1");
    drop(output);
    assert_eq!(client.get("/file").status(), 200);
    let complaint = program.next_line();
    assert_eq!(lost(&complaint), 1, "{complaint}");
    assert!(complaint.contains("Broken pipe"), "{complaint}");
    assert_eq!(client.get("/file").status(), 200);
    end(program);
}

/// Asks so often, and for so much, that the lines fit into nothing: of each character of a target two
/// are logged.
fn ask_for_more_than_fits(program: &Program) {
    let mut client = program.client();
    for number in 0..ASKED {
        let target = format!("/{number}{}", "\"".repeat(60_000));
        assert_eq!(client.get(&target).status(), 404);
    }
}

const ASKED: u64 = 100;

#[test]
fn a_reader_that_is_too_slow_costs_lines_that_are_counted() {
    let (root, _logs, _log) = places();
    let options = ["--access-log", "-"];
    let (program, mut output) = Program::saying_on_standard_error(root.path(), &options);
    ask_for_more_than_fits(&program);
    let reader = std::thread::spawn(move || {
        let mut log = String::new();
        output.read_to_string(&mut log).expect("text");
        log
    });
    program.signal("TERM");
    let said = program.end().said;
    let log = reader.join().expect("no panic");
    let lines: HashSet<_> = log.lines().map(|line| parts(line)[1].clone()).collect();
    assert_eq!(lines.len(), log.lines().count(), "no line comes twice");
    assert!(lost(&said) > 0, "{said}");
    assert_eq!(lost(&said) + lines.len() as u64, ASKED, "{said}");
}

#[test]
fn a_reader_that_takes_nothing_does_not_keep_the_program() {
    let (root, _logs, _log) = places();
    let options = ["--access-log", "-"];
    let (program, output) = Program::saying_on_standard_error(root.path(), &options);
    ask_for_more_than_fits(&program);
    program.signal("TERM");
    let end = program.end();
    assert_eq!(end.status.code(), Some(0), "{}", end.said);
    assert!(end.said.contains("lost its last lines"), "{}", end.said);
    assert!(end.said.contains(" 0 cut"), "{}", end.said);
    drop(output);
}
