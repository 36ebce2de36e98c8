//! The program with a certificate: what clients of others think of it.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use tempfile::TempDir;

use crate::program::{Program, folder, run};

/// Puts a certificate for this machine and its key into a folder.
fn certify(folder: &Path) {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    fs::write(folder.join("cert.pem"), cert.pem()).expect("a new file");
    fs::write(folder.join("key.pem"), signing_key.serialize_pem()).expect("a new file");
}

/// A folder with a file, one with a certificate, and the program that serves the first with it.
fn encrypted() -> (TempDir, TempDir, Program) {
    let (root, secrets) = (folder(), folder());
    fs::write(root.path().join("file"), vec![b'x'; 300_000]).expect("a new file");
    certify(secrets.path());
    let path = |name| secrets.path().join(name).display().to_string();
    let (cert, key) = (path("cert.pem"), path("key.pem"));
    let program = Program::serving(root.path(), &["--tls-cert", &cert, "--tls-key", &key]);
    (root, secrets, program)
}

/// Whether a partner is there; if not, it says that this was left out.
fn has(partner: &str) -> bool {
    let found = Command::new(partner)
        .arg(if partner == "openssl" {
            "version"
        } else {
            "--version"
        })
        .stdout(Stdio::null())
        .status();
    let there = found.is_ok_and(|status| status.success());
    if !there {
        println!("left out: there is no {partner} here (.ci/setup installs it)");
    }
    there
}

fn curl(program: &Program, cert: &Path, options: &[&str]) -> String {
    let port = program.address().port();
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--max-time", "20", "--cacert"])
        .arg(cert)
        .args(["--resolve", &format!("localhost:{port}:127.0.0.1")])
        .args(["--output", "/dev/null", "--write-out"])
        .arg("%{http_code} %{http_version} %{size_download}")
        .args(options)
        .arg(format!("https://localhost:{port}/file"))
        .output()
        .expect("curl can be started");
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaints}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn curl_gets_its_file_by_both_protocols_and_both_versions() {
    if !has("curl") {
        return;
    }
    let (_root, secrets, program) = encrypted();
    let cert = secrets.path().join("cert.pem");
    assert_eq!(curl(&program, &cert, &["--http1.1"]), "200 1.1 300000");
    assert_eq!(curl(&program, &cert, &["--http2"]), "200 2 300000");
    assert_eq!(curl(&program, &cert, &["--tls-max", "1.2"]), "200 2 300000");
    assert_eq!(curl(&program, &cert, &["--tlsv1.3"]), "200 2 300000");
}

#[test]
fn openssl_agrees_on_a_protocol_and_hears_the_goodbye() {
    if !has("openssl") {
        return;
    }
    let (_root, secrets, program) = encrypted();
    let output = Command::new("openssl")
        .args(["s_client", "-connect", &program.address().to_string()])
        .args([
            "-servername",
            "localhost",
            "-alpn",
            "h2,http/1.1",
            "-CAfile",
        ])
        .arg(secrets.path().join("cert.pem"))
        .stdin(Stdio::null())
        .output()
        .expect("openssl can be started");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("ALPN protocol: h2"), "{said}");
    assert!(said.contains("Verify return code: 0 (ok)"), "{said}");
    assert!(said.contains("TLSv1.3"), "{said}");
}

#[test]
fn a_renewed_certificate_is_shown_after_a_hangup() {
    if !has("curl") {
        return;
    }
    let (_root, secrets, mut program) = encrypted();
    let cert = secrets.path().join("cert.pem");
    assert_eq!(curl(&program, &cert, &[]), "200 2 300000");
    certify(secrets.path());
    program.signal("HUP");
    assert_eq!(program.next_line(), "the certificate was read again");
    assert_eq!(curl(&program, &cert, &[]), "200 2 300000");
    // One that cannot be read leaves the old one where it is.
    let renewed = fs::read(&cert).expect("it is there");
    fs::write(secrets.path().join("key.pem"), "no key").expect("a file");
    program.signal("HUP");
    let kept = secrets.path().join("kept.pem");
    fs::write(&kept, renewed).expect("a new file");
    assert_eq!(curl(&program, &kept, &[]), "200 2 300000");
}

#[test]
fn a_broken_handshake_of_which_nobody_hears_stops_nothing() {
    let (root, secrets) = (folder(), folder());
    certify(secrets.path());
    let path = |name| secrets.path().join(name).display().to_string();
    let (cert, key) = (path("cert.pem"), path("key.pem"));
    let options = ["--tls-cert", &cert, "--tls-key", &key];
    let program = Program::unheard(root.path(), &options);
    for _ in 0..10 {
        let mut client = program.client();
        client.send("GET / HTTP/1.1\r\nhost: x\r\n\r\n");
        client.until_cut();
    }
    program.signal("TERM");
    let end = program.end();
    assert_eq!(end.status.code(), Some(0), "{}", end.said);
}

#[test]
fn a_certificate_that_is_none_is_named() {
    let root = folder();
    let broken = root.path().join("cert.pem");
    fs::write(&broken, "no certificate").expect("a new file");
    let broken = broken.display().to_string();
    let output = run(&["serve", "--tls-cert", &broken, "--tls-key", &broken]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(
        said.contains(&broken) && said.contains("there is no certificate"),
        "{said}"
    );
    let output = run(&["serve", "--tls-cert", &broken]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("--tls-key"), "{said}");
    let mut nothing = String::new();
    output
        .stdout
        .as_slice()
        .read_to_string(&mut nothing)
        .expect("text");
    assert_eq!(nothing, "");
}
