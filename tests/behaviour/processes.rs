//! Child processes. On the real ring alone, with programs that every machine has: there are no simulated
//! ones, and a simulation says so.

use std::cell::Cell;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::future::{Future, poll_fn};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::time::Duration;

use quoit::op::{self, PipeReader};
use quoit::process::{Child, Command, Ending, Group, NotStarted, OutputTooLong, Stdio, Why};
use quoit::signal::Signal;
use quoit::sim::Sim;
use quoit::time::Instant;
use quoit::{CarriesCancelled, Closed, Scope, group, spawn, yield_now};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tests::{bytes, exists, gauges, in_child, mapped_kib, poll_once, quietly, runs, stat};

/// Longer than any test takes: who waits for it waits for ever.
const LONG: Duration = Duration::from_secs(3_600);

/// A shell that runs `script`, with its output piped.
fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]).stdin(Stdio::Piped);
    command.stdout(Stdio::Piped).stderr(Stdio::Piped);
    command
}

async fn started(command: &Command) -> Child {
    command.spawn().await.expect("it is there")
}

/// Waits until the child has written a line, and returns it.
async fn line(child: &Child) -> String {
    let stdout = child.stdout.as_ref().expect("it is piped");
    line_of(stdout).await
}

async fn line_of(stdout: &PipeReader) -> String {
    let mut line = Vec::new();
    loop {
        let (count, byte) = stdout.read([0]).await;
        assert_eq!(count.expect("no error"), 1, "it ended first");
        if byte[0] == b'\n' {
            return String::from_utf8(line).expect("text");
        }
        line.push(byte[0]);
    }
}

/// Waits until a process that is not ours to reap is gone.
async fn until_gone(pid: u32) {
    while runs(pid) {
        quoit::time::sleep(Duration::from_millis(1))
            .await
            .expect("nobody cancels a test");
    }
}

/// Waits until there is such a file.
async fn until_there(path: &Path) {
    while !path.exists() {
        quoit::time::sleep(Duration::from_millis(1))
            .await
            .expect("nobody cancels a test");
    }
}

fn why(error: &io::Error) -> &NotStarted {
    let inner = error.get_ref().expect("it says why");
    inner.downcast_ref().expect("it says why")
}

#[test]
fn output_and_status_are_taken_whole() {
    quietly(|_| async {
        let command = shell("printf out; printf err >&2; exit 3");
        let output = command.output(100).await.expect("it runs");
        assert_eq!(output.status.code(), Some(3));
        assert_eq!(output.stdout, b"out");
        assert_eq!(output.stderr, b"err");
        let mut quiet = Command::new("true");
        assert!(quiet.status().await.expect("it runs").success());
        // It can be started again, and told more.
        quiet.arg("ignored");
        assert!(quiet.status().await.expect("it runs").success());
    });
}

#[test]
fn bytes_go_in_and_come_out() {
    quietly(|_| async {
        let mut cat = Command::new("cat");
        cat.stdin(Stdio::Piped).stdout(Stdio::Piped);
        let mut child = started(&cat).await;
        // More than both pipes hold.
        let much = bytes(4 << 20, 11);
        let (stdin, sent) = (child.stdin.take().expect("it is piped"), much.clone());
        let writing = spawn(async move { stdin.write_all(sent).await.0 });
        let output = child.wait_with_output(much.len()).await.expect("it copies");
        assert!(output.status.success());
        assert!(output.stdout == much, "other bytes came");
        writing.await.expect("no panic").expect("it takes all");
    });
}

#[test]
fn files_and_nothing_can_be_streams() {
    quietly(|_| async {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        fs::write(&path, "from a file").expect("room");
        let copy = folder.path().join("copy");
        let mut cat = Command::new("cat");
        cat.stdin(File::open(&path).expect("it is there"));
        cat.stdout(File::create(&copy).expect("room"));
        assert!(cat.status().await.expect("it runs").success());
        assert_eq!(fs::read(&copy).expect("it is there"), b"from a file");
        cat.stdin(Stdio::Null).stdout(Stdio::Piped);
        let output = started(&cat).await.wait_with_output(10).await;
        assert_eq!(output.expect("it runs").stdout, b"");
    });
}

#[test]
fn output_that_goes_to_a_file_goes_there_also_where_the_other_is_taken() {
    quietly(|_| async {
        let folder = tempfile::tempdir().expect("a folder");
        let log = folder.path().join("log");
        let mut command = shell("echo out; echo err >&2");
        command.stderr(File::create(&log).expect("room"));
        let output = command.output(100).await.expect("it runs");
        assert_eq!(
            (&output.stdout[..], &output.stderr[..]),
            (&b"out\n"[..], &b""[..])
        );
        assert_eq!(fs::read(&log).expect("it is there"), b"err\n");
        command.stdout(Stdio::Null).stderr(Stdio::Inherit);
        let output = command.output(100).await.expect("it runs");
        assert_eq!(
            (&output.stdout[..], &output.stderr[..]),
            (&b""[..], &b"err\n"[..])
        );
    });
}

#[test]
fn child_whose_output_is_piped_to_nobody_ends() {
    quietly(|_| async {
        // More than its pipes hold.
        let script = "head -c 300000 /dev/zero; head -c 300000 /dev/zero >&2; exit 7";
        let status = shell(script).status().await.expect("it runs");
        assert_eq!(status.code(), Some(7));
    });
}

#[test]
fn child_has_the_environment_and_folder_that_were_said() {
    quietly(|_| async {
        let folder = tempfile::tempdir().expect("a folder");
        let script = "pwd; echo $A-$B-${HOME-none}-${C-none}; echo ${QUOIT_GUARDIAN:+marked}";
        let mut command = shell(script);
        command.current_dir(folder.path());
        command.env("C", "1").env_clear();
        command
            .envs([("A", "a"), ("B", "b")])
            .env("C", "c")
            .env_remove("C");
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        let text = |output: Vec<u8>| String::from_utf8(output).expect("text");
        let place = fs::canonicalize(folder.path()).expect("it is there");
        let output = command.output(1_000).await.expect("it runs");
        let expected = format!("{}\na-b-none-none\nmarked\n", place.display());
        assert_eq!(text(output.stdout), expected);
        let output = command.unguarded().output(1_000).await.expect("it runs");
        let expected = format!("{}\na-b-none-none\n\n", place.display());
        assert_eq!(text(output.stdout), expected);
    });
}

#[test]
fn refusal_says_what_was_in_the_way() {
    quietly(|_| async {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        let put = |name: &str, text: &str, mode| {
            fs::write(path(name), text).expect("room");
            let mode = fs::Permissions::from_mode(mode);
            fs::set_permissions(path(name), mode).expect("it is ours");
        };
        put("text", "no program", 0o644);
        put("lost", "#!/no/such/interpreter\n", 0o755);
        let name = |name: &str| PathBuf::from(name);
        let (not_found, denied) = (io::ErrorKind::NotFound, io::ErrorKind::PermissionDenied);
        let no_folder = io::ErrorKind::NotADirectory;
        let (absent, text) = (path("absent"), path("text"));
        let nowhere = Why::Folder(absent.clone());
        let unnamed = Why::Folder(PathBuf::new());
        let no_place = Why::Folder(text.clone());
        let table = [
            (
                name("no-such-program"),
                None,
                Why::NotFound,
                not_found,
                "PATH",
            ),
            (absent.clone(), None, Why::NotFound, not_found, "path"),
            (
                name("absent/"),
                None,
                Why::NotFound,
                not_found,
                "check its path",
            ),
            (path("text/more"), None, Why::NotFound, no_folder, "path"),
            (text.clone(), None, Why::NotExecutable, denied, "mode"),
            (path(""), None, Why::NotExecutable, denied, "mode"),
            (
                path("lost"),
                None,
                Why::NoInterpreter,
                not_found,
                "interpreter",
            ),
            (name("true"), Some(absent), nowhere, not_found, "absent"),
            (
                name("true"),
                Some(name("")),
                unnamed,
                not_found,
                "no folder",
            ),
            (name("true"), Some(text), no_place, no_folder, "text"),
        ];
        for (program, folder, expected, kind, word) in table {
            let mut command = Command::new(&program);
            if let Some(folder) = folder {
                command.current_dir(folder);
            }
            let error = command.spawn().await.expect_err("it is in the way");
            assert_eq!(error.kind(), kind, "{error}");
            let refusal = why(&error);
            assert_eq!(refusal.why(), &expected, "{error}");
            assert_eq!(refusal.program(), program);
            let text = error.to_string();
            assert!(text.contains(word), "{text}");
            assert!(text.contains(&*program.to_string_lossy()), "{text}");
        }
        let error = Command::new("true").arg("a\0b").spawn().await;
        let error = error.expect_err("no argument has a NUL in it");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert_eq!(why(&error).why(), &Why::Other);
    });
}

/// It is looked for where the child's `PATH` says, which need not be ours.
#[test]
fn a_program_of_path_that_nothing_runs_is_said_to_be_there() {
    quietly(|_| async {
        let folder = tempfile::tempdir().expect("a folder");
        let lost = folder.path().join("lost");
        fs::write(&lost, "#!/no/such/interpreter\n").expect("room");
        fs::set_permissions(&lost, fs::Permissions::from_mode(0o755)).expect("it is ours");
        let here = format!("/no/such/folder:{}:/bin", folder.path().display());
        let mut there = Command::new("lost");
        there.env("PATH", &here);
        // What is no absolute path is looked up in the child's folder.
        let mut nearby = Command::new("lost");
        nearby.env("PATH", "/bin:.").current_dir(folder.path());
        for command in [there, nearby] {
            let error = command.spawn().await.expect_err("nothing runs it");
            assert_eq!(error.kind(), io::ErrorKind::NotFound, "{error}");
            assert_eq!(why(&error).why(), &Why::NoInterpreter, "{error}");
        }
        let mut cleared = Command::new("lost");
        cleared.env("PATH", here).env_clear();
        let mut removed = Command::new("lost");
        removed.env_remove("PATH");
        for command in [Command::new("lost"), cleared, removed] {
            let error = command.spawn().await.expect_err("it is nowhere there");
            assert_eq!(why(&error).why(), &Why::NotFound, "{error}");
        }
    });
}

/// Whoever is forked in the moment in which it is written has it open for writing too, until it runs its own program.
#[test]
fn a_program_that_was_just_written_is_started_beside_others() {
    quietly(|_| async {
        let folder = tempfile::tempdir().expect("a folder");
        let is_over = Rc::new(Cell::new(false));
        let others: Vec<_> = (0..4)
            .map(|_| {
                let is_over = Rc::clone(&is_over);
                spawn(async move {
                    while !is_over.get() {
                        let status = Command::new("true").status().await;
                        assert!(status.expect("it is there").success());
                    }
                })
            })
            .collect();
        for number in 0..400 {
            let program = folder.path().join(number.to_string());
            fs::write(&program, "#!/bin/sh\nexit 5\n").expect("room");
            let mode = fs::Permissions::from_mode(0o755);
            fs::set_permissions(&program, mode).expect("it is ours");
            let status = Command::new(&program).status().await;
            assert_eq!(status.expect("it is there").code(), Some(5), "{number}");
        }
        is_over.set(true);
        for other in others {
            other.await.expect("no panic");
        }
    });
}

/// The kernel cuts a name off after 15 bytes, in the midst of a letter.
#[test]
fn a_program_may_have_any_name() {
    quietly(|_| async {
        let folder = tempfile::tempdir().expect("a folder");
        let long = "\u{e4}".repeat(8);
        let names: [&[u8]; 4] = [long.as_bytes(), b"a) R 1 (b", b"two\nlines", b"\xff"];
        for name in names {
            let program = folder.path().join(OsStr::from_bytes(name));
            fs::write(&program, "#!/bin/sh\nread -r line; exit 5\n").expect("room");
            let mode = fs::Permissions::from_mode(0o755);
            fs::set_permissions(&program, mode).expect("it is ours");
            let mut command = Command::new(&program);
            let mut child = started(command.stdin(Stdio::Piped)).await;
            assert_eq!(child.wait().await.expect("ours").code(), Some(5));
        }
    });
}

#[test]
fn child_that_no_thread_could_start_says_so() {
    in_child(
        "processes::child_that_no_thread_could_start_says_so",
        || {
            quietly(|_| async {
                // No room for the stack of one.
                let before = getrlimit(Resource::As);
                let room = Rlimit {
                    current: Some(mapped_kib() * 1024 + (1 << 20)),
                    ..before
                };
                setrlimit(Resource::As, room).expect("it is less");
                let error = Command::new("true").status().await;
                setrlimit(Resource::As, before).expect("it was so before");
                let error = error.expect_err("there is no thread");
                assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                assert_eq!(why(&error).why(), &Why::Other);
                let text = error.to_string();
                assert!(text.contains("true") && text.contains("thread"), "{text}");
                assert!(
                    Command::new("true")
                        .status()
                        .await
                        .expect("it runs")
                        .success()
                );
            });
        },
    );
}

#[test]
fn simulation_says_that_it_has_no_processes() {
    Sim::with_seed(0).run(|| {
        quietly(|_| async {
            let error = Command::new("true").status().await.expect_err("simulated");
            assert_eq!(error.kind(), io::ErrorKind::Unsupported);
            assert_eq!(why(&error).why(), &Why::Simulation);
        });
    });
}

#[test]
fn parked_wait_costs_no_polls() {
    quietly(|handle| async move {
        let mut child = started(&shell("read -r line")).await;
        let stdin = child.stdin.take().expect("it is piped");
        let polls = Rc::new(Cell::new(0));
        let counted = Rc::clone(&polls);
        let waiting = spawn(async move {
            let mut wait = pin!(child.wait());
            std::future::poll_fn(|cx| {
                counted.set(counted.get() + 1);
                wait.as_mut().poll(cx)
            })
            .await
        });
        while polls.get() == 0 {
            yield_now().await.expect("nobody cancels a test");
        }
        let before = gauges(&handle).await;
        assert_eq!(before.in_flight, 1, "the wait, and nothing else");
        stdin.write_all("now\n").await.0.expect("it reads");
        let status = waiting.await.expect("no panic").expect("it ends");
        assert!(status.success());
        assert_eq!(polls.get(), 2, "once to begin, once at its end");
    });
}

#[test]
fn status_is_asked_without_waiting() {
    quietly(|_| async {
        let mut child = started(&shell("read -r line; exit 4")).await;
        let id = child.id();
        assert_eq!(child.try_wait().expect("ours"), None);
        child.stdin = None;
        let status = loop {
            if let Some(status) = child.try_wait().expect("ours") {
                break status;
            }
            yield_now().await.expect("nobody cancels a test");
        };
        assert_eq!(status.code(), Some(4));
        assert!(!exists(id), "it was reaped");
        assert_eq!(child.try_wait().expect("ours"), Some(status));
        assert_eq!(child.wait().await.expect("ours"), status);
        assert_eq!(child.end().await.expect("ours"), status);
        let error = child.signal(Signal::Terminate).expect_err("it is gone");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        child.kill();
    });
}

#[test]
fn signals_go_to_the_child_and_what_it_started() {
    quietly(|_| async {
        let script = "sleep 3600 & echo $!; trap 'echo told; wait; exit 7' USR1; wait";
        let mut child = started(&shell(script)).await;
        let sleeper = line(&child).await.parse().expect("a number");
        // The shell has set its trap, or the signal ends it: then there is no line.
        child.signal(Signal::Terminate).expect("it lives");
        until_gone(sleeper).await;
        let status = child.wait().await.expect("ours");
        assert_eq!(status.signal(), Some(libc::SIGTERM));

        let mut child = started(&shell(
            "trap 'exit 7' USR1; echo; while :; do sleep 1; done",
        ))
        .await;
        line(&child).await;
        child.signal(Signal::User1).expect("it lives");
        assert_eq!(child.wait().await.expect("ours").code(), Some(7));

        let mut child = started(&shell("trap '' TERM; echo; read -r line")).await;
        line(&child).await;
        child.kill();
        let status = child.wait().await.expect("ours");
        assert_eq!(status.signal(), Some(libc::SIGKILL));
    });
}

#[test]
fn what_a_child_leaves_in_its_group_ends_with_it() {
    quietly(|_| async {
        // The output would go on for an hour.
        let output = shell("sleep 3600 & echo $!").output(100).await;
        let output = output.expect("it runs");
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).expect("text");
        until_gone(text.trim().parse().expect("a number")).await;
    });
}

#[test]
fn child_in_the_host_s_group_is_signalled_alone() {
    quietly(|_| async {
        let mut command = shell("sleep 3600 & echo $!; wait");
        command.group(Group::Host);
        let mut child = started(&command).await;
        let sleeper: u32 = line(&child).await.parse().expect("a number");
        let ours = stat(std::process::id()).expect("we live");
        let its = stat(child.id()).expect("it lives");
        assert_eq!(its[2], ours[2], "the group");
        child.signal(Signal::Terminate).expect("it lives");
        let status = child.wait().await.expect("ours");
        assert_eq!(status.signal(), Some(libc::SIGTERM));
        assert!(runs(sleeper), "only the child was told");
        let mut kill = Command::new("kill");
        assert!(
            kill.arg(sleeper.to_string())
                .status()
                .await
                .expect("it runs")
                .success()
        );
        until_gone(sleeper).await;
    });
}

#[test]
fn cancelled_wait_leaves_the_child() {
    quietly(|_| async {
        let mut child = started(&shell("read -r line; exit 5")).await;
        let stdin = child.stdin.take().expect("it is piped");
        let scope = Scope::new();
        let stop = scope.handle();
        let outcome = scope
            .run(async {
                let mut wait = Box::pin(child.wait());
                assert!(poll_once(wait.as_mut()).await.is_pending());
                stop.cancel();
                let error = wait.await.expect_err("it still runs");
                assert!(error.cancelled().is_some());
                // In a cancelled scope nothing begins.
                Err::<(), _>(child.wait().await.expect_err("cancelled"))
            })
            .await;
        assert!(outcome.expect("its own cancel").is_none());
        assert!(runs(child.id()));
        stdin.write_all("go\n").await.0.expect("it reads");
        assert_eq!(child.wait().await.expect("ours").code(), Some(5));
    });
}

#[test]
fn dropped_child_is_ended_before_its_scope() {
    quietly(|_| async {
        // Ends at the end of its input, for SIGTERM, and for nothing but SIGKILL.
        let table = [
            (
                "cat >/dev/null",
                Ending::default().terminate_after(LONG).grace(LONG),
            ),
            (
                "trap '' PIPE; echo; while :; do sleep 3600; done",
                Ending::default().grace(LONG),
            ),
            (
                "trap '' TERM; echo; while :; do sleep 3600; done",
                Ending::default().grace(Duration::from_millis(50)),
            ),
            (
                "trap '' TERM; echo; while :; do sleep 3600; done",
                Ending::kill(),
            ),
        ];
        for (script, ending) in table {
            for cancelled in [false, true] {
                let mut command = shell(&format!("echo $$; {script}"));
                command.ending(ending);
                let scope = Scope::new();
                let stop = scope.handle();
                let id = Cell::new(0);
                let ended = scope.run(async {
                    let child = started(&command).await;
                    id.set(line(&child).await.parse().expect("a number"));
                    if script.contains("echo") {
                        line(&child).await;
                    }
                    assert_eq!(child.id(), id.get());
                    if cancelled {
                        stop.cancel();
                    }
                    drop(child);
                    Ok::<_, io::Error>(())
                });
                ended.await.expect("no error");
                assert!(!exists(id.get()), "{script}, cancelled: {cancelled}");
            }
        }
    });
}

#[test]
fn end_takes_the_first_step_that_does() {
    quietly(|_| async {
        let patient = Ending::default().terminate_after(LONG).grace(LONG);
        let mut command = shell("echo; cat >/dev/null; exit 6");
        let mut child = started(command.ending(patient)).await;
        line(&child).await;
        assert_eq!(child.end().await.expect("ours").code(), Some(6));

        let mut command = shell("trap 'exit 8' TERM; echo; while :; do sleep 1; done");
        let mut child = started(command.ending(Ending::default().grace(LONG))).await;
        line(&child).await;
        assert_eq!(child.end().await.expect("ours").code(), Some(8));

        let grace = Duration::from_millis(200);
        let mut command = shell("trap '' TERM; echo; while :; do sleep 3600; done");
        let mut child = started(command.ending(Ending::default().grace(grace))).await;
        line(&child).await;
        let began = Instant::now();
        let status = child.end().await.expect("ours");
        assert_eq!(status.signal(), Some(libc::SIGKILL));
        assert!(began.elapsed() >= grace, "it had less than its grace");
    });
}

/// A child in a group of its own that reads from the terminal is.
#[test]
fn child_that_was_stopped_hears_that_it_shall_end() {
    quietly(|_| async {
        let script = "trap 'exit 8' TERM; kill -STOP $$; while :; do sleep 0.01; done";
        let mut command = shell(script);
        let mut child = started(command.ending(Ending::default().grace(LONG))).await;
        while stat(child.id()).is_none_or(|fields| fields[0] != "T") {
            quoit::time::sleep(Duration::from_millis(1))
                .await
                .expect("nobody cancels a test");
        }
        assert_eq!(child.end().await.expect("ours").code(), Some(8));
    });
}

#[test]
fn end_happens_in_a_cancelled_scope_and_goes_on_when_it_is_dropped() {
    quietly(|_| async {
        let ending = Ending::default()
            .terminate_after(LONG)
            .grace(Duration::from_millis(100));
        let mut command = shell("trap '' TERM; echo; while :; do sleep 3600; done");
        command.ending(ending);
        let scope = Scope::new();
        let outcome = scope.run(async {
            let mut child = started(&command).await;
            line(&child).await;
            scope.cancel();
            let status = child.end().await.expect("a release");
            assert_eq!(status.signal(), Some(libc::SIGKILL));
            Ok::<_, io::Error>(())
        });
        assert!(outcome.await.expect("no error").is_some());

        let id = Cell::new(0);
        let scope = Scope::new();
        let outcome = scope.run(async {
            let mut child = started(&command).await;
            line(&child).await;
            id.set(child.id());
            assert!(poll_once(pin!(child.end())).await.is_pending());
            Ok::<_, io::Error>(())
        });
        assert!(outcome.await.expect("no error").is_some());
        assert!(!exists(id.get()));
    });
}

#[test]
fn child_that_says_much_while_it_is_ended_does_not_hang() {
    quietly(|_| async {
        // More than its pipes hold, to both, and then a code that says that all of it went.
        let script = "trap 'head -c 300000 /dev/zero; head -c 300000 /dev/zero >&2; exit 9' TERM
            echo; while :; do sleep 1; done";
        let mut command = shell(script);
        let mut child = started(command.ending(Ending::default().grace(LONG))).await;
        line(&child).await;
        assert_eq!(child.end().await.expect("ours").code(), Some(9));
    });
}

/// A shell that says goodbye when it is ended, and then that it has: who cannot be heard any more dies of that before.
fn polite(folder: &Path) -> Command {
    let script = "trap 'echo goodbye; : >\"$0/said\"; exit' TERM
        echo; : >\"$0/ready\"; while :; do sleep 0.01; done";
    let mut command = shell(script);
    command.arg(folder).ending(Ending::default().grace(LONG));
    command
}

#[test]
fn end_that_is_dropped_goes_on_with_what_the_child_says() {
    quietly(|_| async {
        let folder = tempfile::tempdir().expect("a folder");
        let mut child = started(&polite(folder.path())).await;
        until_there(&folder.path().join("ready")).await;
        let scope = Scope::new();
        let ended = scope.run(async {
            assert!(poll_once(pin!(child.end())).await.is_pending());
            drop(child);
            Ok::<_, io::Error>(())
        });
        ended.await.expect("no error");
        assert!(folder.path().join("said").exists(), "nobody heard it");
    });
}

#[test]
fn child_whose_output_is_wanted_no_more_is_heard_to_its_end() {
    quietly(|_| async {
        for way in 0..3 {
            let folder = tempfile::tempdir().expect("a folder");
            let command = polite(folder.path());
            let scope = Scope::new();
            let stop = scope.handle();
            let ended = scope.run(async {
                let mut taking = match way {
                    0 => Box::pin(command.output(100)) as Pin<Box<dyn Future<Output = _>>>,
                    _ => Box::pin(started(&command).await.wait_with_output(100)),
                };
                assert!(poll_once(taking.as_mut()).await.is_pending());
                let ready = folder.path().join("ready");
                let mut ready = pin!(until_there(&ready));
                poll_fn(|cx| {
                    assert!(taking.as_mut().poll(cx).is_pending());
                    ready.as_mut().poll(cx)
                })
                .await;
                if way < 2 {
                    stop.cancel();
                    taking.await?;
                }
                Ok::<_, io::Error>(())
            });
            assert_eq!(ended.await.expect("no error").is_some(), way == 2);
            assert!(
                folder.path().join("said").exists(),
                "nobody heard it: {way}"
            );
        }
    });
}

#[test]
fn child_that_has_said_too_much_may_say_more_while_it_is_ended() {
    quietly(|_| async {
        let script =
            "trap 'head -c 300000 /dev/zero; head -c 300000 /dev/zero >&2; : >\"$0\"; exit' TERM
            echo long; while :; do sleep 0.01; done";
        let folder = tempfile::tempdir().expect("a folder");
        let said = folder.path().join("said");
        let mut command = shell(script);
        command.arg(&said).ending(Ending::default().grace(LONG));
        let error = command.output(3).await.expect_err("it is longer");
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        assert!(said.exists(), "nobody heard it");
    });
}

/// It is what a child is known by.
#[test]
fn child_whose_descriptor_was_closed_says_so_and_is_ended_all_the_same() {
    quietly(|_| async {
        for is_killed in [false, true] {
            let mut child = started(&shell("read -r line")).await;
            let id = child.id();
            op::close(child.fd()).await.expect("no error");
            let closed = |error: io::Error| {
                let inner = error.get_ref().expect("it says why");
                assert!(inner.is::<Closed>(), "{error}");
            };
            closed(child.signal(Signal::User1).expect_err("it is closed"));
            closed(child.try_wait().expect_err("it is closed"));
            closed(child.wait().await.expect_err("it is closed"));
            closed(child.end().await.expect_err("it is closed"));
            if is_killed {
                child.kill();
                until_gone(id).await;
            }
            let scope = Scope::new();
            let ended = scope.run(async {
                drop(child);
                Ok::<_, io::Error>(())
            });
            ended.await.expect("no error");
            assert!(!exists(id));
        }
    });
}

#[test]
fn cancelled_run_returns_when_the_child_is_gone() {
    quietly(|_| async {
        let folder = tempfile::tempdir().expect("a folder");
        for piped in [false, true] {
            let place = folder.path().join(format!("{piped}"));
            let mut command = Command::new("sh");
            let script =
                "trap '' TERM; echo $$ >$0.part; mv $0.part $0; while :; do sleep 3600; done";
            command.args(["-c", script]).arg(&place).stderr(Stdio::Null);
            command.ending(Ending::default().grace(Duration::from_millis(50)));
            let scope = Scope::new();
            let stop = scope.handle();
            let known = place.clone();
            let watching = spawn(async move {
                while !known.exists() {
                    quoit::time::sleep(Duration::from_millis(1)).await?;
                }
                stop.cancel();
                Ok::<_, io::Error>(())
            });
            let outcome = scope.run(async {
                let result = if piped {
                    command.output(100).await.map(drop)
                } else {
                    command.status().await.map(drop)
                };
                let text = fs::read_to_string(&place).expect("it has begun");
                assert!(!exists(text.trim().parse().expect("a number")));
                result
            });
            assert!(outcome.await.expect("its own cancel").is_none());
            watching
                .await
                .expect("no panic")
                .expect("nobody cancels it");
        }
    });
}

#[test]
fn write_to_a_child_that_reads_no_more_says_so() {
    quietly(|_| async {
        let mut child = started(&shell("exec <&-; echo; sleep 3600")).await;
        line(&child).await;
        let stdin = child.stdin.take().expect("it is piped");
        // A child that another test starts just now has the other end as well, until it runs its program.
        let error = loop {
            if let Err(error) = stdin.write_all("lost").await.0 {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        child.kill();
        child.wait().await.expect("ours");
    });
}

#[test]
fn output_past_the_limit_ends_the_child() {
    quietly(|_| async {
        let mut command = shell("echo $$; cat /dev/zero");
        command.ending(Ending::kill());
        let error = command
            .output(100_000)
            .await
            .expect_err("it goes on for ever");
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        let inner = error.get_ref().expect("it says how much");
        let found: &OutputTooLong = inner.downcast_ref().expect("it says how much");
        assert_eq!((found.limit, found.stdout.len()), (100_000, 100_000));
        let text = String::from_utf8_lossy(&found.stdout).into_owned();
        let id = text
            .lines()
            .next()
            .expect("a line")
            .parse()
            .expect("a number");
        assert!(!exists(id));
        // Exactly so much is not too much.
        let output = shell("head -c 1000 /dev/zero").output(1_000).await;
        assert_eq!(output.expect("it fits").stdout.len(), 1_000);
    });
}

#[test]
fn group_of_tasks_ends_after_its_children() {
    quietly(|_| async {
        let ids = Rc::new(Cell::new([0; 3]));
        let told = Rc::clone(&ids);
        let result = group(async |tasks| {
            for place in 0..3 {
                let told = Rc::clone(&told);
                tasks.spawn(async move {
                    let mut command = shell("echo; sleep 3600");
                    let mut child = started(command.ending(Ending::kill())).await;
                    line(&child).await;
                    let mut all = told.get();
                    all[place] = child.id();
                    told.set(all);
                    child.wait().await.map(drop)
                });
            }
            while told.get().contains(&0) {
                quoit::time::sleep(Duration::from_millis(1)).await?;
            }
            tasks.cancel();
            Ok::<_, io::Error>(())
        });
        drop(result.await);
        for id in ids.get() {
            assert!(id > 0 && !exists(id));
        }
    });
}
