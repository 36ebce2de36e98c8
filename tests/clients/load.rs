//! h2load and wrk: many requests at once, of which each succeeds.

use crate::partner::{self, said};
use crate::site::Site;

/// Has h2load send a fixed number of requests, and checks that each was answered with 200.
fn h2load(site: &Site, path: &str, options: &[&str]) {
    if !partner::has("h2load", &["--version"]) {
        return;
    }
    const REQUESTS: &str = "600";
    let mut command = partner::command("h2load");
    command.args(["--requests", REQUESTS, "--clients", "6", "--threads", "1"]);
    let said = said(command.args(options).arg(site.url(path)));
    let all = format!(
        "requests: {REQUESTS} total, {REQUESTS} started, {REQUESTS} done, {REQUESTS} succeeded, \
         0 failed, 0 errored, 0 timeout"
    );
    assert!(said.contains(&all), "{options:?}: {said}");
    let codes = format!("status codes: {REQUESTS} 2xx, 0 3xx, 0 4xx, 0 5xx");
    assert!(said.contains(&codes), "{options:?}: {said}");
    site.is_left();
}

#[test]
fn h2load_gets_all_its_answers() {
    for site in [Site::in_the_clear(), Site::with_tls()] {
        h2load(&site, "/hello", &["--max-concurrent-streams", "20"]);
        h2load(&site, "/hello", &["--h1"]);
    }
}

#[test]
fn h2load_gets_what_it_sends() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file");
    std::fs::write(&file, tests::bytes(20_000, 3)).expect("a new file");
    let data = format!("--data={}", file.display());
    let site = Site::in_the_clear();
    for path in ["/echo", "/mirror"] {
        h2load(&site, path, &[&data, "--max-concurrent-streams", "10"]);
        h2load(&site, path, &[&data, "--h1"]);
    }
}

#[test]
fn wrk_gets_answers_and_nothing_else() {
    if !partner::has("sh", &["-c", "command -v wrk"]) {
        return;
    }
    for site in [Site::in_the_clear(), Site::with_tls()] {
        // It counts seconds, not requests.
        let options = ["--threads", "1", "--connections", "8", "--duration", "1s"];
        let said = said(
            partner::command("wrk")
                .args(options)
                .arg(site.url("/hello")),
        );
        let count = said.lines().find_map(|line| {
            let (count, _) = line.split_once(" requests in ")?;
            count.trim().parse::<u64>().ok()
        });
        assert!(count.is_some_and(|count| count > 0), "{said}");
        assert!(!said.contains("Socket errors"), "{said}");
        assert!(!said.contains("Non-2xx"), "{said}");
        site.is_left();
    }
}
