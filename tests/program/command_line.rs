//! What the program is told, and what it says of what it cannot do.

use std::fs;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::process::{Command, Output};

use crate::program::{Program, folder, run};

/// Checks that the program gave up, and said why in words that contain `named`.
#[track_caller]
fn gave_up(output: &Output, named: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "it did not mind: {said}");
    assert!(output.status.code().is_some(), "a signal ended it: {said}");
    assert!(!said.contains("panicked"), "{said}");
    for part in named {
        assert!(said.contains(part), "{part:?} is not in: {said}");
    }
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(!said.contains("listening"), "{said}");
}

#[test]
fn the_port_that_the_kernel_chose_is_said() {
    let root = folder();
    let first = Program::serving(root.path(), &[]);
    let second = Program::serving(root.path(), &[]);
    assert_ne!(first.address().port(), 0);
    assert_ne!(first.address(), second.address());
    for program in [&first, &second] {
        assert_eq!(program.client().get("/").status(), 200);
    }
}

#[test]
fn it_takes_all_descriptors_that_it_may_give_itself() {
    let root = folder();
    let serve = Program::command(root.path(), &[]);
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -S -n 100 && exec \"$0\" \"$@\""]);
    limited.arg(serve.get_program()).args(serve.get_args());
    let program = Program::started(&mut limited);
    let (taken, may_have) = program.allowed_descriptors();
    assert_ne!(may_have, "100");
    assert_eq!(taken, may_have);
}

#[test]
fn the_version_is_that_of_the_program() {
    let said = run(&["--version"]).stdout;
    let version = concat!("quoit ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!(String::from_utf8_lossy(&said), version);
}

#[test]
fn serving_a_folder_is_what_serve_does() {
    let output = run(&["serve", "--help"]);
    assert!(output.status.success());
    let said = String::from_utf8_lossy(&output.stdout);
    for option in ["--listen", "--root", "--cores", "--grace"] {
        assert!(said.contains(option), "{option} is not in: {said}");
    }
    // What each does by default; in the short form each is a line.
    let output = run(&["serve", "-h"]);
    let said = String::from_utf8_lossy(&output.stdout);
    let flags = said.lines().filter(|line| line.trim().starts_with("--"));
    let mut flags: Vec<_> = flags.collect();
    flags.retain(|line| !line.contains("[default: "));
    let alone = |line: &&str| line.split_whitespace().next().map(str::to_owned);
    let alone: Vec<_> = flags.iter().filter_map(alone).collect();
    assert_eq!(alone, ["--tls-cert", "--tls-key", "--lenient"], "{said}");
    assert!(said.contains("QUIT"), "{said}");
}

#[test]
fn one_core_is_one_thread() {
    let root = folder();
    let first = quoit::doctor::examine().processors[0].to_string();
    let program = Program::serving(root.path(), &["--cores", &first]);
    assert_eq!(program.client().get("/").status(), 200);
    assert_eq!(cores(&program), ["quoit-0"]);
}

#[test]
fn every_processor_has_a_thread_by_default() {
    let root = folder();
    let program = Program::serving(root.path(), &[]);
    let processors = quoit::doctor::examine().processors.len();
    assert_eq!(cores(&program).len(), processors, "{:?}", program.threads());
}

/// The threads that are cores.
fn cores(program: &Program) -> Vec<String> {
    let mut names = program.threads();
    names.retain(|name| name.starts_with("quoit-"));
    names
}

#[test]
fn doctor_says_whether_quoit_can_run_here() {
    let output = run(&["doctor"]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("verdict: "), "{said}");
    assert!(said.contains("io_uring      yes"), "{said}");
}

#[test]
fn a_root_that_is_missing_is_named() {
    let root = folder();
    let missing = root.path().join("missing").display().to_string();
    let output = run(&["serve", "--listen", "127.0.0.1:0", "--root", &missing]);
    gave_up(&output, &[&missing, "No such file"]);
}

#[test]
fn a_root_that_is_a_file_is_named() {
    let root = folder();
    let file = root.path().join("file");
    fs::write(&file, "text").expect("a new file");
    let file = file.display().to_string();
    let output = run(&["serve", "--listen", "127.0.0.1:0", "--root", &file]);
    gave_up(&output, &[&file, "not a directory"]);
}

/// Two programs that start at once on the socket of one that was killed: the other holds the lock.
#[test]
fn a_socket_that_another_is_about_to_take_is_named_with_what_to_do() {
    let root = folder();
    let socket = root.path().join("socket").display().to_string();
    drop(UnixListener::bind(&socket).expect("a free path"));
    let lock = fs::File::create(format!("{socket}.quoit-lock")).expect("a new file");
    lock.try_lock().expect("nobody else has it");
    let address = format!("unix:{socket}");
    let output = run(&["serve", "--listen", &address]);
    gave_up(&output, &[&socket, "about to listen there", "or try again"]);
    assert!(
        fs::exists(&socket).expect("our folder"),
        "it is the other's"
    );
}

#[test]
fn an_address_in_use_is_named_with_what_to_do() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    let output = run(&["serve", "--listen", &address]);
    gave_up(&output, &[&address, "choose another port"]);
}

#[test]
fn an_address_of_another_program_of_the_same_user_is_in_use() {
    let root = folder();
    let first = Program::serving(root.path(), &[]);
    let address = first.address().to_string();
    let output = run(&["serve", "--listen", &address]);
    gave_up(&output, &[&address, "choose another port"]);
    assert_eq!(first.client().get("/").status(), 200);
}

#[test]
fn what_is_no_address_is_named_with_an_example() {
    for nonsense in ["nonsense", "127.0.0.1", "127.0.0.1:port", "8080", ""] {
        let output = run(&["serve", "--listen", nonsense]);
        gave_up(&output, &[&format!("{nonsense:?}"), "127.0.0.1:8080"]);
    }
}

#[test]
fn cores_that_are_no_list_are_named() {
    for nonsense in ["0,x", "some", "3-1", "1..2", ""] {
        let output = run(&["serve", "--listen", "127.0.0.1:0", "--cores", nonsense]);
        gave_up(&output, &[nonsense, "--cores"]);
    }
}

#[test]
fn cores_that_are_not_there_are_named() {
    let output = run(&["serve", "--listen", "127.0.0.1:0", "--cores", "9999"]);
    gave_up(&output, &["core 9999"]);
    let output = run(&["serve", "--listen", "127.0.0.1:0", "--cores", "0,0"]);
    gave_up(&output, &["core 0"]);
}

#[test]
fn an_option_or_a_command_that_is_unknown_is_named() {
    gave_up(&run(&["serve", "--lisen", "127.0.0.1:0"]), &["--lisen"]);
    gave_up(&run(&["sevre"]), &["sevre"]);
}

#[test]
fn a_number_that_is_none_is_named() {
    for option in ["--grace", "--head-timeout", "--stall-timeout"] {
        let output = run(&["serve", "--listen", "127.0.0.1:0", option, "soon"]);
        gave_up(&output, &[option, "soon"]);
    }
    for option in NUMBERS {
        for nonsense in ["0", "some", "99999999999999999999"] {
            let output = run(&["serve", "--listen", "127.0.0.1:0", option, nonsense]);
            gave_up(&output, &[option, nonsense]);
        }
    }
}

/// Options that take a number of one and more.
const NUMBERS: [&str; 8] = [
    "--idle-timeout",
    "--request-timeout",
    "--head-timeout",
    "--stall-timeout",
    "--handler-timeout",
    "--max-connections",
    "--max-concurrent-streams",
    "--max-head",
];

#[test]
fn what_is_no_name_of_a_socket_or_a_page_is_named() {
    for nonsense in ["unix:", "unix:@", "/run/site.sock"] {
        let output = run(&["serve", "--listen", nonsense]);
        gave_up(&output, &[&format!("{nonsense:?}"), "unix:PATH"]);
    }
    let twice = "127.0.0.1:1";
    let output = run(&["serve", "--listen", twice, "--listen", twice]);
    gave_up(&output, &["--listen 127.0.0.1:1 stands there twice"]);
    let long = format!("unix:/{}", "x".repeat(200));
    gave_up(&run(&["serve", "--listen", &long]), &["xxx", "longer"]);
    let nowhere = "unix:/no/such/folder/socket";
    gave_up(&run(&["serve", "--listen", nowhere]), &[&nowhere[5..]]);
    for nonsense in ["status", "/a b", "/a?b", "/%41", ""] {
        let output = run(&["serve", "--page-path", nonsense]);
        gave_up(&output, &["--page-path", nonsense, "begins with a slash"]);
    }
    let output = run(&["serve", "--page", "friends"]);
    gave_up(&output, &["--page", "friends", "local", "all", "off"]);
    for nonsense in ["rw", "999", "1000", ""] {
        let output = run(&["serve", "--unix-mode", nonsense]);
        gave_up(&output, &["--unix-mode", nonsense, "octal"]);
    }
}

#[test]
fn a_log_that_cannot_be_opened_is_named() {
    let root = folder();
    let folder = root.path().display().to_string();
    let listen = ["serve", "--listen", "127.0.0.1:0", "--access-log"];
    let output = run(&[&listen[..], &[&folder]].concat());
    gave_up(&output, &[&folder, "access log", "directory"]);
    let missing = format!("{folder}/missing/log");
    let output = run(&[&listen[..], &[&missing]].concat());
    gave_up(&output, &[&missing, "access log", "No such file"]);
    let output = run(&["serve", "--access-log-format", "json"]);
    gave_up(&output, &["--access-log"]);
    let output = run(&[&listen[..], &["-", "--access-log-format", "xml"]].concat());
    gave_up(&output, &["xml", "combined", "json"]);
}
