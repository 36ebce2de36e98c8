//! openssl: handshakes of each version, what they agree on, and sessions that are taken up again.

use std::io::{Read, Write};
use std::process::Stdio;

use crate::partner::{self, said};
use crate::site::Site;

fn is_here() -> bool {
    partner::has("openssl", &["version"])
}

/// Opens a connection with more options and sends a request; returns what openssl and the server said.
fn ask(site: &Site, options: &[&str]) -> String {
    let mut command = partner::command("openssl");
    command
        .args(["s_client", "-connect", &site.address().to_string()])
        .args([
            "-servername",
            "localhost",
            "-verify_return_error",
            "-CAfile",
        ])
        .arg(site.certificate())
        .args(options)
        .arg("-ign_eof");
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("it can be started");
    let mut input = child.stdin.take().expect("it is a pipe");
    input
        .write_all(b"GET /hello HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        .expect("it takes it");
    let mut said = String::new();
    let mut output = child.stdout.take().expect("it is a pipe");
    output.read_to_string(&mut said).expect("text");
    let status = child.wait().expect("it is our child");
    assert!(status.success(), "{options:?}: {said}");
    said
}

#[test]
fn both_versions_of_tls_carry_a_request() {
    if !is_here() {
        return;
    }
    let site = Site::with_tls();
    for (option, name) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let said = ask(&site, &[option]);
        assert!(said.contains(name), "{said}");
        assert!(said.contains("Verify return code: 0 (ok)"), "{said}");
        assert!(said.contains("HTTP/1.1 200 OK\r\n"), "{said}");
        assert!(said.contains("\r\n\r\nhello\n"), "{said}");
    }
}

#[test]
fn the_protocol_is_the_best_that_both_speak() {
    if !is_here() {
        return;
    }
    let site = Site::with_tls();
    for (offered, agreed) in [
        ("http/1.1", "ALPN protocol: http/1.1"),
        ("spdy/1,http/1.1", "ALPN protocol: http/1.1"),
    ] {
        let said = ask(&site, &["-alpn", offered]);
        assert!(said.contains(agreed), "{said}");
        assert!(said.contains("\r\n\r\nhello\n"), "{said}");
    }
    let mut command = partner::command("openssl");
    command.args(["s_client", "-connect", &site.address().to_string()]);
    let said = said(command.args(["-alpn", "http/1.1,h2"]));
    assert!(said.contains("ALPN protocol: h2"), "{said}");
}

#[test]
fn a_session_is_taken_up_again() {
    if !is_here() {
        return;
    }
    let site = Site::with_tls();
    let folder = tempfile::tempdir().expect("a folder");
    let session = folder.path().join("session").display().to_string();
    for version in ["-tls1_2", "-tls1_3"] {
        let said = ask(&site, &[version, "-sess_out", &session]);
        assert!(said.contains("\nNew, TLSv1."), "{version}: {said}");
        let said = ask(&site, &[version, "-sess_in", &session]);
        assert!(said.contains("\nReused, TLSv1."), "{version}: {said}");
        assert!(said.contains("\r\n\r\nhello\n"), "{said}");
    }
}
