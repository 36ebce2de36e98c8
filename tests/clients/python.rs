//! Python's own clients.

use crate::partner::{self, script};
use crate::site::Site;

fn run(file: &str) {
    if !partner::has("python3", &["--version"]) {
        return;
    }
    let site = Site::in_the_clear();
    assert_eq!(script("python3", file, [site.url("")]), "well\n");
    site.is_left();
    let site = Site::with_tls();
    let certificate = site.certificate().display().to_string();
    let said = script("python3", file, [site.url(""), certificate]);
    assert_eq!(said, "well\n");
    site.is_left();
}

#[test]
fn urllib_is_served() {
    run("with_urllib.py");
}

#[test]
fn http_client_is_served() {
    run("with_http_client.py");
}

#[test]
fn asyncio_is_served() {
    run("with_asyncio.py");
}
