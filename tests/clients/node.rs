//! Node's own clients.

use crate::partner::{self, script};
use crate::site::{LARGE, Site};

fn is_here() -> bool {
    partner::has("node", &["--version"])
}

/// Runs a script against a site in the clear, and one with TLS.
fn run(file: &str) {
    if !is_here() {
        return;
    }
    let size = LARGE.to_string();
    let site = Site::in_the_clear();
    assert_eq!(script("node", file, [&site.url(""), &size]), "well\n");
    site.is_left();
    let site = Site::with_tls();
    let certificate = site.certificate().display().to_string();
    let said = script("node", file, [&site.url(""), &size, &certificate]);
    assert_eq!(said, "well\n");
    site.is_left();
}

#[test]
fn http_is_served_over_kept_connections() {
    run("with_http.mjs");
}

#[test]
fn http2_is_served_in_many_streams() {
    run("with_http2.mjs");
}

#[test]
fn events_are_read() {
    run("with_events.mjs");
}

#[test]
fn a_handler_whose_stream_node_resets_is_cancelled_and_the_session_goes_on() {
    if !is_here() {
        return;
    }
    let site = Site::in_the_clear();
    assert_eq!(script("node", "with_resets.mjs", [site.url("")]), "well\n");
    let ended = ["begun", "elsewhere: Disconnected", "here: Disconnected"];
    assert_eq!(site.hear(3), ended);
    site.is_left();
}
