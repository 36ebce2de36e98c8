//! curl: versions of HTTP, uploads, and being killed.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use tests::bytes;

use crate::partner::{self, said};
use crate::site::Site;

fn is_here() -> bool {
    partner::has("curl", &["--version"])
}

/// A curl that talks to the site, whatever proxies the environment names.
fn curl(site: &Site, options: &[&str]) -> Command {
    let mut command = partner::command("curl");
    command.args(configured(site)).args(options);
    command
}

fn configured(site: &Site) -> Vec<String> {
    let mut options = ["--silent", "--show-error", "--no-buffer", "--noproxy", "*"]
        .map(str::to_owned)
        .to_vec();
    if site.url("").starts_with("https") {
        let port = site.address().port();
        options.push("--cacert".to_owned());
        options.push(site.certificate().display().to_string());
        options.push("--resolve".to_owned());
        options.push(format!("localhost:{port}:127.0.0.1"));
    }
    options
}

/// Each way to ask, on the site that is for it, with the version that comes of it.
const WAYS: [(&str, bool, &str); 5] = [
    ("--http1.1", false, "1.1"),
    ("--http2-prior-knowledge", false, "2"),
    // An upgrade is not offered: the answer is one of HTTP/1.1.
    ("--http2", false, "1.1"),
    ("--http1.1", true, "1.1"),
    ("--http2", true, "2"),
];

fn each_way(mut check: impl FnMut(&Site, &str, &str)) {
    if !is_here() {
        return;
    }
    let (clear, tls) = (Site::in_the_clear(), Site::with_tls());
    for (option, encrypted, version) in WAYS {
        check(if encrypted { &tls } else { &clear }, option, version);
    }
}

#[test]
fn each_version_is_spoken_that_curl_asks_for() {
    each_way(|site, option, version| {
        let mut command = curl(
            site,
            &[option, "--write-out", "%{http_code} %{http_version}"],
        );
        let said = said(command.arg(site.url("/hello")));
        assert_eq!(said, format!("hello\n200 {version}"), "{option}");
    });
}

#[test]
fn a_head_is_that_of_the_answer() {
    each_way(|site, option, _| {
        let heads = |more| {
            let said = said(curl(site, &[option, more]).arg(site.url("/hello")));
            let (head, _) = said.split_once("\r\n\r\n").expect("a head");
            let mut lines: Vec<_> = head.lines().map(str::to_lowercase).collect();
            // The second may pass meanwhile.
            lines.retain(|line| !line.starts_with("date: "));
            lines
        };
        let (alone, with_body) = (heads("--head"), heads("--include"));
        assert!(alone.contains(&"content-length: 6".to_owned()), "{alone:?}");
        assert_eq!(alone, with_body, "{option}");
    });
}

#[test]
fn an_upload_comes_back_as_it_was() {
    let sent = bytes(1 << 20, 7);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file");
    fs::write(&file, &sent).expect("a new file");
    let upload = format!("@{}", file.display());
    each_way(|site, option, version| {
        let came = folder.path().join("came");
        for path in ["/echo", "/mirror"] {
            let _ = fs::remove_file(&came);
            let mut command = curl(site, &[option, "--data-binary", &upload, "--output"]);
            command.arg(&came).args(["--write-out", "%{http_code}"]);
            if path == "/echo" {
                // The other answers before it reads, and is not sent what nobody asked for.
                command.args(["--header", "expect: 100-continue"]);
                // In HTTP/2 nobody asks for it: hyper does so in HTTP/1 alone, and curl sends after a second.
                let patience = if version == "2" { "1" } else { "100" };
                command.args(["--expect100-timeout", patience]);
            } else {
                command.args(["--header", "expect:"]);
            }
            assert_eq!(said(command.arg(site.url(path))), "200", "{option}");
            assert!(fs::read(&came).expect("it came") == sent, "{option}{path}");
        }
    });
}

#[test]
fn a_body_is_asked_for_before_it_is_sent() {
    if !is_here() {
        return;
    }
    let site = Site::in_the_clear();
    let mut command = curl(&site, &["--http1.1", "--include", "--data-binary", "x"]);
    command.args([
        "--header",
        "expect: 100-continue",
        "--expect100-timeout",
        "100",
    ]);
    let said = said(command.arg(site.url("/echo")));
    assert!(
        said.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n"),
        "{said}"
    );
}

#[test]
fn events_are_read_as_they_come() {
    each_way(|site, option, _| {
        let said = said(curl(site, &[option]).arg(site.url("/events")));
        let event = |count: u8| format!("event:count\nid:{count}\ndata:{count}\ndata:of three\n\n");
        let expected: String = (1..=3).map(event).collect();
        assert_eq!(said, expected, "{option}");
    });
}

/// Starts a curl that will be killed: nothing stands between it and us.
fn start(site: &Site, option: &str, path: &str) -> Child {
    let mut command = Command::new("curl");
    command
        .args(configured(site))
        .args([option, "--max-time", "300"]);
    command.arg(site.url(path)).stdin(Stdio::null());
    command.stdout(Stdio::piped());
    command.spawn().expect("it can be started")
}

fn kill(mut child: Child) {
    child.kill().expect("it runs");
    child.wait().expect("it is our child");
}

#[test]
fn a_handler_whose_curl_is_killed_is_cancelled_on_both_cores() {
    each_way(|site, option, _| {
        let child = start(site, option, "/wait");
        assert_eq!(site.hear(1), ["begun"], "{option}");
        kill(child);
        let ended = ["elsewhere: Disconnected", "here: Disconnected"];
        assert_eq!(site.hear(2), ended, "{option}");
        site.is_left();
    });
}

#[test]
fn events_end_with_the_curl_that_reads_them() {
    each_way(|site, option, _| {
        let mut child = start(site, option, "/news");
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().expect("it is a pipe"));
        output.read_line(&mut line).expect("text");
        assert_eq!(line, "data:first\n", "{option}");
        kill(child);
        assert_eq!(site.hear(1), ["news: Disconnected"], "{option}");
        site.is_left();
    });
}

#[test]
fn many_requests_of_one_curl_take_one_connection() {
    each_way(|site, option, version| {
        if option == "--http2-prior-knowledge" {
            // curl before version 8 begins such a connection anew when it takes it up again.
            return;
        }
        let mut command = curl(site, &[option, "--write-out", "%{num_connects} "]);
        command.args(["--output", "/dev/null"]);
        command.arg(format!("{}?[1-20]", site.url("/hello")));
        let said = said(&mut command);
        let connects: usize = said
            .split_whitespace()
            .map(|count| count == "1")
            .map(usize::from)
            .sum();
        assert_eq!(said.split_whitespace().count(), 20, "{said}");
        assert_eq!(connects, 1, "{option} {version}: {said}");
    });
}
