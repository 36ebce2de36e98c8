//! What each option of the program does.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::Path;

use tests::http_client::{Client, until};

use crate::program::{Program, folder};

/// Asks on a stream of any kind, and returns all that comes.
fn ask(mut stream: impl Read + Write, path: &str) -> String {
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    )
    .expect("it listens");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("text");
    answer
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).expect("a status")
}

/// The first core alone, so that all connections come there.
fn one_core() -> String {
    quoit::doctor::examine().processors[0].to_string()
}

#[test]
fn it_listens_wherever_it_is_told() {
    let (root, sockets) = (folder(), folder());
    fs::write(root.path().join("file"), "hello").expect("a new file");
    let path = sockets.path().join("socket");
    let name = format!("quoit-{}", std::process::id());
    let (by_path, by_name) = (format!("unix:{}", path.display()), format!("unix:@{name}"));
    let options = ["--listen", &by_path, "--listen", &by_name];
    let more = ["--listen", "[::1]:0", "--unix-mode", "600"];
    let mut program = Program::serving(root.path(), &[&options[..], &more].concat());
    assert_eq!(program.next_line(), format!("listening on {by_path}"));
    assert_eq!(program.next_line(), format!("listening on {by_name}"));
    let line = program.next_line();
    let sixth = line.strip_prefix("listening on http://").expect("a URL");
    let abstract_name = SocketAddr::from_abstract_name(name).expect("a name");
    for answer in [
        ask(TcpStream::connect(program.address()).expect("TCP"), "/file"),
        ask(TcpStream::connect(sixth).expect("TCP"), "/file"),
        ask(UnixStream::connect(&path).expect("a path"), "/file"),
        ask(
            UnixStream::connect_addr(&abstract_name).expect("a name"),
            "/file",
        ),
    ] {
        assert_eq!(status(&answer), "200");
        assert!(answer.ends_with("\r\n\r\nhello"), "{answer}");
    }
    let mode = fs::metadata(&path).expect("it is there").permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
    program.signal("TERM");
    assert_eq!(program.end().status.code(), Some(0));
    assert!(!path.exists(), "the file goes with the server");
}

#[test]
fn the_page_is_there_for_clients_of_this_machine() {
    let root = folder();
    let program = Program::serving(root.path(), &[]);
    let page = program.client().get("/_quoit/");
    assert_eq!(page.status(), 200);
    assert!(
        page.text().starts_with("<!doctype html>"),
        "{}",
        page.text()
    );
    let metrics = program.client().get("/_quoit/metrics");
    assert!(metrics.text().contains("quoit_"), "{}", metrics.text());
}

#[test]
fn the_page_can_be_elsewhere_and_nowhere() {
    let root = folder();
    let program = Program::serving(root.path(), &["--page-path", "/status"]);
    assert_eq!(program.client().get("/status/").status(), 200);
    assert_eq!(program.client().get("/_quoit/").status(), 404);
    let program = Program::serving(root.path(), &["--page", "off"]);
    assert_eq!(program.client().get("/_quoit/").status(), 404);
}

/// An address of this machine under which it is reached as from elsewhere.
fn outer_address() -> Option<IpAddr> {
    // This looks at the routes, and sends nothing.
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_loopback() && !ip.is_unspecified()).then_some(ip)
}

#[test]
fn strangers_see_the_page_if_it_is_for_all() {
    let Some(outer) = outer_address() else {
        println!("left out: this machine has no address but those of loopback");
        return;
    };
    let root = folder();
    for (whom, expected) in [("local", 404), ("all", 200)] {
        let there = format!("{outer}:0");
        let options = ["--page", whom, "--listen", &there];
        let mut program = Program::serving(root.path(), &options);
        let line = program.next_line();
        let address = line.strip_prefix("listening on http://").expect("a URL");
        let mut client = Client::connect(address.parse().expect("an address"));
        assert_eq!(client.get("/_quoit/").status(), expected, "{whom}");
        assert_eq!(program.client().get("/_quoit/").status(), 200, "{whom}");
    }
}

#[test]
fn one_more_connection_than_may_be_waits_for_an_end() {
    let root = folder();
    let options = ["--cores", &one_core(), "--max-connections", "1"];
    let program = Program::serving(root.path(), &options);
    let mut first = program.client();
    until(|| {
        let metrics = first.get("/_quoit/metrics");
        let full = metrics.text().lines().find_map(|line| {
            let rest = line.strip_prefix("quoit_connections_full")?;
            rest.rsplit(' ').next()?.parse::<f64>().ok()
        });
        full.expect("it is counted") >= 1.0
    });
    let mut second = program.client();
    second.ask("GET", "/", "");
    assert_eq!(first.get("/").status(), 200);
    let socket = second.socket();
    socket.set_nonblocking(true).expect("an option");
    socket.peek(&mut [0]).expect_err("nobody has let it in");
    socket.set_nonblocking(false).expect("an option");
    drop(first);
    assert_eq!(second.answer().status(), 200);
}

/// Begins HTTP/2, and returns the settings that the server sends first.
fn settings(program: &Program) -> Vec<(u16, u32)> {
    let mut stream = TcpStream::connect(program.address()).expect("it listens");
    stream
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .expect("it listens");
    let mut head = [0; 9];
    stream.read_exact(&mut head).expect("a frame");
    assert_eq!(head[3], 4, "SETTINGS come first");
    let mut settings = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
    stream.read_exact(&mut settings).expect("a frame");
    let setting = |bytes: &[u8]| {
        let value = u32::from_be_bytes(bytes[2..6].try_into().expect("four"));
        (u16::from_be_bytes([bytes[0], bytes[1]]), value)
    };
    settings.chunks_exact(6).map(setting).collect()
}

#[test]
fn as_many_streams_are_promised_as_was_said() {
    const MAX_CONCURRENT_STREAMS: u16 = 3;
    let root = folder();
    for (options, expected) in [(&[][..], 128), (&["--max-concurrent-streams", "7"], 7)] {
        let program = Program::serving(root.path(), options);
        let settings = settings(&program);
        let promised = settings
            .iter()
            .find(|(name, _)| *name == MAX_CONCURRENT_STREAMS);
        assert_eq!(promised, Some(&(MAX_CONCURRENT_STREAMS, expected)));
    }
}

#[test]
fn a_head_may_be_as_large_as_was_said() {
    let root = folder();
    let field = format!("x: {}\r\n", "x".repeat(2_000));
    for (options, expected) in [(&[][..], 200), (&["--max-head", "1024"], 431)] {
        let program = Program::serving(root.path(), options);
        assert_eq!(program.client().get_with("/", &field).status(), expected);
    }
}

#[test]
fn a_head_may_take_as_long_as_was_said() {
    let root = folder();
    let program = Program::serving(root.path(), &["--head-timeout", "1"]);
    let mut client = program.client();
    client.send("GET / HTTP/1.1\r\n");
    client.until_cut();
    let program = Program::serving(root.path(), &["--head-timeout", "3600"]);
    let mut client = program.client();
    client.send("GET / HTTP/1.1\r\n");
    client.send("host: x\r\n\r\n");
    assert_eq!(client.answer().status(), 200);
}

#[test]
fn a_connection_may_be_idle_as_long_as_was_said() {
    let root = folder();
    let options = ["--idle-timeout", "1", "--head-timeout", "3600"];
    let program = Program::serving(root.path(), &options);
    let mut client = program.client();
    assert_eq!(client.get("/").status(), 200);
    client.ends();
}

#[test]
fn a_request_may_take_as_long_as_was_said() {
    let root = folder();
    let large = fs::File::create(root.path().join("large")).expect("a new file");
    large.set_len(64 << 20).expect("a hole costs nothing");
    let options = ["--request-timeout", "1", "--stall-timeout", "3600"];
    let program = Program::serving(root.path(), &options);
    let mut client = Client::connect_narrow(program.address());
    client.ask("GET", "/large", "");
    let head = client.head();
    assert_eq!(head.status, 200);
    let before = program.descriptors();
    // The connection and the file.
    until(|| program.descriptors() <= before - 2);
    let _ = client.body(&head, |_| {}).expect_err("the answer is cut");
}

#[test]
fn a_request_that_does_not_say_for_whom_is_taken_if_that_was_said() {
    let root = folder();
    for (options, expected) in [(&[][..], 400), (&["--lenient"], 200)] {
        let program = Program::serving(root.path(), options);
        let mut client = program.client();
        client.send("GET / HTTP/1.1\r\n\r\n");
        assert_eq!(client.answer().status(), expected);
    }
}

/// Returns what the program wrote there, once it contains `what`.
fn once_it_says(file: &Path, what: &str) -> String {
    let read = || fs::read_to_string(file).expect("it is there");
    until(|| read().contains(what));
    read()
}

#[test]
fn who_waits_for_what_is_written_on_a_signal_and_it_serves_on() {
    let (root, words) = (folder(), folder());
    let said = words.path().join("said");
    let program = Program::complaining_to(&said, root.path(), &["--cores", &one_core()]);
    let mut client = program.client();
    assert_eq!(client.get("/").status(), 200);
    program.signal("QUIT");
    let dump = once_it_says(&said, "for bytes or a connection");
    assert!(dump.starts_with("SIGQUIT:\ncore 0: "), "{dump}");
    assert_eq!(client.get("/").status(), 200);
    program.signal("TERM");
    assert_eq!(program.end().status.code(), Some(0));
}
