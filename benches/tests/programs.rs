//! Programs that measure, told what cannot be measured: each says so in a line, and ends with a code that is not 0.

use std::fs::File;
use std::process::{Command, Output};

fn run(program: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.args(arguments).output().expect("it runs")
}

fn complaint(said: &Output) -> String {
    String::from_utf8_lossy(&said.stderr).into_owned()
}

const ECHO: &str = env!("CARGO_BIN_EXE_echo");
const ECHO_LOAD: &str = env!("CARGO_BIN_EXE_echo_load");
const HTTP: &str = env!("CARGO_BIN_EXE_http");
const HTTP_CLIENT: &str = env!("CARGO_BIN_EXE_http_client");
const HTTP_CLIENT_PAIRS: &str = env!("CARGO_BIN_EXE_http_client_pairs");
const HYPER: &str = env!("CARGO_BIN_EXE_hyper");
const LEASE: &str = env!("CARGO_BIN_EXE_lease");
const MICRO: &str = env!("CARGO_BIN_EXE_micro");
const CANCEL: &str = env!("CARGO_BIN_EXE_cancel");
const GATE: &str = env!("CARGO_BIN_EXE_gate");

#[test]
fn nonsense_is_refused_with_what_is_wrong() {
    let free = ["--listen", "127.0.0.1:0"];
    let foreign = [free[0], free[1], "--cores", "4000"];
    let pairs = ["--client", "quoit=/nowhere/client", "--server", HTTP];
    let closed = "127.0.0.1:1";
    for (program, arguments, told) in [
        (ECHO, &foreign[..], "echo: core 4000 is not among"),
        (HTTP, &foreign, "http: core 4000 is not among"),
        (HYPER, &foreign, "hyper: core 4000 is not among"),
        (
            HTTP,
            &[free[0], free[1], "--tls-cert", "/nowhere", "--tls-key", "/"],
            "http: cannot read /nowhere",
        ),
        (
            ECHO_LOAD,
            &["--rate", "1e-300"],
            "echo_load: --rate is messages a second",
        ),
        (
            ECHO_LOAD,
            &["--core", "0", "--connect", closed],
            "connection 1 of 64: cannot connect to",
        ),
        (MICRO, &["--rounds", "0"], "0 is not in 1.."),
        (MICRO, &["none"], "there is no figure \"none\""),
        (LEASE, &["--rounds", "0"], "0 is not in 1.."),
        (LEASE, &["--leases", "0"], "0 is not in 1.."),
        (CANCEL, &["--rounds", "0"], "0 is not in 1.."),
        (CANCEL, &["--count", "0"], "0 is not in 1.."),
        (
            CANCEL,
            &["tasks", "--count", "16777216"],
            "16777216 is not in 1..=16000000",
        ),
        (
            HTTP_CLIENT,
            &["--seconds=-1"],
            "write seconds, 0.001 to 86400",
        ),
        (
            HTTP_CLIENT,
            &["--warm-up", "nan"],
            "write seconds, 0 to 86400",
        ),
        (HTTP_CLIENT, &["--concurrency", "0"], "1 to 65536 requests"),
        (
            HTTP_CLIENT,
            &["--core", "0", "--url", "nonsense"],
            "nonsense is no whole URL",
        ),
        (
            HTTP_CLIENT_PAIRS,
            &["--client", "quoit"],
            "\"quoit\" is no client: write name=program",
        ),
        (
            HTTP_CLIENT_PAIRS,
            &["--client", "a=b", "--rounds", "0"],
            "0 is not in 1..",
        ),
        (HTTP_CLIENT_PAIRS, &pairs, "/nowhere/client cannot be run"),
        (
            HTTP_CLIENT_PAIRS,
            &["--client", "a=b", "--server", "/nowhere/server"],
            "/nowhere/server cannot be run",
        ),
        (
            HTTP_CLIENT_PAIRS,
            &["--client", "a=b", "--seconds", "nan"],
            "--seconds is between",
        ),
    ] {
        let said = run(program, arguments);
        let complaint = complaint(&said);
        assert!(!said.status.success(), "{program} {arguments:?}");
        assert!(
            complaint.contains(told),
            "{program} {arguments:?}: {complaint}"
        );
        assert!(!complaint.contains("panicked"), "{complaint}");
    }
}

#[test]
fn a_part_that_nobody_reads_is_an_error_and_no_panic() {
    let full = File::options()
        .write(true)
        .open("/dev/full")
        .expect("Linux");
    let mut micro = Command::new(MICRO);
    let said = micro.args(["check", "--rounds", "1"]).stdout(full).output();
    let said = said.expect("it runs");
    assert_eq!(said.status.code(), Some(1));
    assert!(
        complaint(&said).starts_with("micro: No space left"),
        "{said:?}"
    );
}

#[test]
fn nobody_who_reads_is_an_error_and_no_panic() {
    let (listen, core) = (["--listen", "127.0.0.1:0"], ["--cores", "0"]);
    let serves = [&listen[..], &core].concat();
    let quoit = format!("quoit={HTTP_CLIENT}");
    let pairs = [
        &["--client", &quoit, "--server", HTTP, "--client-core", "0"][..],
        &["--protocols", "h1", "--concurrency", "1"],
        &["--rounds", "1", "--seconds", "0.001"],
    ];
    for (program, arguments) in [
        (ECHO, &serves[..]),
        (HTTP, &serves),
        (HYPER, &serves),
        (CANCEL, &["scopes", "--rounds", "1"]),
        (LEASE, &["--rounds", "1", "--leases", "1"]),
        (HTTP_CLIENT_PAIRS, &pairs.concat()),
        (GATE, &["ask", "echo_1", "1"]),
        (GATE, &["serve"]),
    ] {
        let full = File::options().write(true).open("/dev/full");
        let mut command = Command::new(program);
        let said = command.args(arguments).stdout(full.expect("Linux"));
        let said = said.output().expect("it runs");
        let complaint = complaint(&said);
        assert!(matches!(said.status.code(), Some(1 | 2)), "{said:?}");
        assert!(
            complaint.contains(": standard output: No space left"),
            "{program}: {complaint}"
        );
        assert!(!complaint.contains("panicked"), "{program}: {complaint}");
    }
}

#[test]
fn more_requests_at_once_than_descriptors_are_usual_is_no_error() {
    const FEW: &str = "ulimit -Sn 64 && exec \"$0\" \"$@\"";
    let folder = tempfile::tempdir().expect("a folder");
    let client = folder.path().join("client");
    let script = "printf '#!/bin/sh\\nulimit -Sn 64 && exec %s \"$@\"\\n' \"$1\" > \"$0\" && chmod 755 \"$0\"";
    let mut shell = Command::new("sh");
    let written = shell.args(["-c", script]).arg(&client).arg(HTTP_CLIENT);
    assert!(written.status().expect("a shell").success());
    let client = format!("quoit={}", client.display());
    let mut pairs = Command::new("sh");
    pairs.args(["-c", FEW, HTTP_CLIENT_PAIRS]);
    pairs.args(["--client", &client, "--server", HTTP]);
    pairs.args(["--client-core", "0", "--protocols", "h1"]);
    pairs.args(["--concurrency", "100", "--rounds", "1", "--seconds", "0.01"]);
    let said = pairs.output().expect("it runs");
    assert!(said.status.success(), "{}", complaint(&said));
    assert_eq!(
        complaint(&said),
        "http_client_pairs: the server and the clients share processor 0, and measure each other\n"
    );
}

#[test]
fn a_part_between_cores_needs_two() {
    let mut micro = Command::new("taskset");
    let said = micro
        .args([
            "-c",
            "0",
            MICRO,
            "--rounds",
            "1",
            "cross_rt_parked",
            "check",
        ])
        .output();
    let said = said.expect("util-linux is there");
    assert_eq!(said.status.code(), Some(1));
    let told = "cross_rt_parked: it takes two processors";
    assert!(complaint(&said).contains(told), "{said:?}");
    // The others are taken nevertheless.
    assert!(
        String::from_utf8_lossy(&said.stdout).starts_with("{\"name\": \"check\""),
        "{said:?}"
    );
}
