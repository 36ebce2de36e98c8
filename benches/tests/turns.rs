//! Turns of the matrix against real servers: quoit's own echo, asked in every way, and one that says something else.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use benches::matrix::Figure;
use benches::matrix::contenders::{Contender, Role, Takes};
use benches::matrix::goals::GOALS;
use benches::matrix::program::Processors;
use benches::matrix::round::Rounds;
use benches::matrix::scenarios::{self, Load, Scale};
use serde_json::Value;

fn rounds() -> Rounds {
    let processors = Processors::here().expect("there are processors");
    let load_core = usize::from(processors.count() > 1);
    Rounds {
        processors,
        server_core: 0,
        load_core,
        seconds: 0.5,
        idle_seconds: 1,
        micro_rounds: 1,
        echo_load: PathBuf::from(env!("CARGO_BIN_EXE_echo_load")),
    }
}

fn quoit(program: &str) -> Contender {
    Contender {
        name: "quoit",
        role: Role::Ours,
        program: PathBuf::from(program),
        arguments: &[],
        takes: Takes::All,
    }
}

#[test]
fn an_echo_is_asked_in_every_way() {
    let (rounds, echo) = (rounds(), quoit(env!("CARGO_BIN_EXE_echo")));
    for load in [
        Load::Closed {
            connections: 3,
            size: 64,
            depth: 1,
        },
        Load::Closed {
            connections: 2,
            size: 100,
            depth: 16,
        },
        Load::Closed {
            connections: 2,
            size: 16 * 1024,
            depth: 2,
        },
        Load::Open { rate: 2_000 },
        Load::Churn { connections: 4 },
    ] {
        let turn = rounds
            .turn(&echo, &load)
            .unwrap_or_else(|error| panic!("{load:?}: {error}"));
        for figure in [
            Figure::Rate,
            Figure::Cpu,
            Figure::P50,
            Figure::P999,
            Figure::Resident,
        ] {
            assert!(turn.figures[&figure] > 0.0, "{load:?}: {turn:?}");
        }
        assert!(
            turn.curve.is_sorted_by(|one, next| one.1 <= next.1),
            "{load:?}: {turn:?}"
        );
    }
}

#[test]
fn idle_connections_are_weighed_while_nobody_says_anything() {
    let load = Load::Idle { connections: 50 };
    let turn = rounds()
        .turn(&quoit(env!("CARGO_BIN_EXE_echo")), &load)
        .expect("it is held");
    assert!(turn.figures[&Figure::PerConnection] > 0.0, "{turn:?}");
    // Of 50 connections that were used, none is used now.
    assert!(turn.figures[&Figure::IdleSwitches] < 50.0, "{turn:?}");
}

/// They would cost it nothing.
#[test]
fn a_server_that_lets_go_of_idle_connections_is_found_out() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("a port").to_string();
    let hold = |stdin: Stdio| {
        let mut load = Command::new(env!("CARGO_BIN_EXE_echo_load"));
        load.args(["--core", "0", "--idle", "--connections", "2"]);
        load.args(["--connect", &address]).stdin(stdin);
        let load = load.stdout(Stdio::piped()).stderr(Stdio::piped());
        load.spawn().expect("it runs")
    };
    let echo = || {
        let (mut stream, _) = listener.accept().expect("it connects");
        let mut bytes = [0; 64];
        stream.read_exact(&mut bytes).expect("a message");
        stream.write_all(&bytes).expect("it is taken");
        stream
    };
    let ended = |load: Child| {
        let said = load.wait_with_output().expect("it ends");
        assert_eq!(said.status.code(), Some(1), "{said:?}");
        String::from_utf8_lossy(&said.stderr).into_owned()
    };
    // It hears of it at the end at the latest, from whoever it asks then.
    let load = hold(Stdio::null());
    drop(echo());
    let second = echo();
    assert!(ended(load).starts_with("echo_load: "));
    drop(second);
    // And at once while they are held: the input does not end.
    let mut load = hold(Stdio::piped());
    let input = load.stdin.take();
    let (first, second) = (echo(), echo());
    drop(first);
    let told = "echo_load: the server closed a connection that it should hold\n";
    assert_eq!(ended(load), told);
    drop((input, second));
}

#[test]
fn an_open_loop_asks_as_often_as_it_was_told() {
    let load = Load::Open { rate: 1_000 };
    let turn = rounds()
        .turn(&quoit(env!("CARGO_BIN_EXE_echo")), &load)
        .expect("it echoes");
    // A machine that stalls makes it less, never more.
    assert!(turn.figures[&Figure::Rate] <= 1_002.0, "{turn:?}");
}

#[test]
fn a_part_is_measured_by_its_name() {
    let micro = quoit(env!("CARGO_BIN_EXE_micro"));
    let parts = rounds().parts(&micro).expect("they are listed");
    assert!(parts.iter().any(|part| part == "yield_1"), "{parts:?}");
    let turn = rounds()
        .turn(&micro, &Load::Micro("yield_1".to_owned()))
        .expect("it is measured");
    assert!(turn.figures[&Figure::Nanos] > 0.0);
    let unknown = rounds().turn(&micro, &Load::Micro("no such part".to_owned()));
    let told = unknown.expect_err("there is none").to_string();
    assert!(told.contains("no such part"), "{told}");
}

#[test]
fn every_goal_has_a_scenario_with_its_figure() {
    let micro = quoit(env!("CARGO_BIN_EXE_micro"));
    let parts = rounds().parts(&micro).expect("they are listed");
    let mut known = scenarios::all(Scale::Full);
    known.extend(scenarios::micro(&parts, Scale::Full));
    for goal in &GOALS {
        let scenario = known.iter().find(|known| known.name == goal.scenario);
        let scenario = scenario.unwrap_or_else(|| panic!("{goal:?}"));
        assert!(scenario.figures().contains(&goal.figure), "{goal:?}");
    }
}

#[test]
fn connections_that_are_opened_and_closed_come_from_more_ports_than_one_address_has() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("a port");
    let served = std::thread::spawn(move || {
        let mut sources = BTreeSet::new();
        loop {
            let (mut stream, source) = listener.accept().expect("it connects");
            let mut bytes = [0; 64];
            if stream.read_exact(&mut bytes).is_err() {
                // The last one says nothing.
                return sources;
            }
            sources.insert(source.ip());
            stream.write_all(&bytes).expect("it is taken");
            assert_eq!(stream.read(&mut bytes).expect("it ends"), 0);
        }
    });
    let mut load = Command::new(env!("CARGO_BIN_EXE_echo_load"));
    load.args(["--core", "0", "--churn", "--connections", "4"]);
    load.args(["--seconds", "0.2", "--warm-up", "0"]);
    let said = load.args(["--connect", &address.to_string()]).output();
    drop(TcpStream::connect(address).expect("it listens"));
    let sources = served.join().expect("it ends");
    assert!(said.expect("it runs").status.success());
    assert_eq!(sources.len(), 4, "{sources:?}");
}

#[test]
fn a_server_that_says_something_else_is_found_out() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("a port").to_string();
    let served = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("it connects");
        let mut bytes = [0; 64];
        let mut answered = 0;
        // Until the other side is satisfied, or has noticed.
        while stream.read_exact(&mut bytes).is_ok() {
            answered += 1;
            if answered == 3 {
                bytes[40] ^= 1;
            }
            if stream.write_all(&bytes).is_err() {
                break;
            }
        }
        answered
    });
    let mut load = Command::new(env!("CARGO_BIN_EXE_echo_load"));
    load.args([
        "--core",
        "0",
        "--connections",
        "1",
        "--seconds",
        "60",
        "--warm-up",
        "0",
        "--connect",
        &address,
    ]);
    let said = load.output().expect("it runs");
    assert_eq!(served.join().expect("it ends"), 3);
    let line: Value = serde_json::from_slice(&said.stdout).expect("a line of JSON");
    assert_eq!(
        (&line["errors"], &line["requests"]),
        (&Value::from(1), &Value::from(2))
    );
    assert_eq!(said.status.code(), Some(1));
    let complaint = String::from_utf8_lossy(&said.stderr);
    let told = "1 of 1 connections failed, the first of them: what came back at byte 128";
    assert!(complaint.contains(told), "{complaint}");
}
