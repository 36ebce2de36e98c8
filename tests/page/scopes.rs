//! The scope tree on the page.

use std::sync::Arc;

use quoit::sync::shared::Semaphore;
use tests::http_client::{Client, until};

use crate::browser::Browser;
use crate::site::{self, GRACE};

#[test]
fn the_tree_shows_who_waits_and_what_will_not_stop() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let gate = Arc::new(Semaphore::new(1));
    let shut = gate.acquire_blocking();
    let server = site::serve("127.0.0.1:0", &gate);
    let patient = Client::connect(server.local_addr());
    patient.ask("GET", "/wait", "");
    let hasty = Client::connect(server.local_addr());
    hasty.ask("GET", "/stubborn", "");
    until(|| gate.waiting() == 2);

    browser.open(&site::url(&server));
    assert_eq!(browser.text("#tree"), "", "nobody has asked yet");
    browser.click("#look");
    let says = |what: &str| format!("document.querySelector('#tree').innerText.includes('{what}')");
    browser.until(&says("core 1: "));
    browser.until(&says("all of it"));
    browser.until(&says("shielded"));
    browser.until("document.querySelector('#looked').textContent.includes('nothing is cancelled')");
    // A tree as small as this is open as a whole: what is waited for is seen at once, by both.
    browser.until(WAITS);
    // A scope is closed and opened by hand.
    browser.click("#tree summary");
    browser.until("!document.querySelector('#tree details').open");
    browser.click("#tree summary");
    browser.until("document.querySelector('#tree details').open");

    // Its client goes away: the handler is cancelled, and its shield holds.
    drop(hasty);
    until(|| server.metrics().iter().any(|core| core.deliveries > 0));
    browser.click("#look");
    browser
        .until("document.querySelector('#looked').textContent.includes('cancelled and not ended')");
    browser.click("#stuck");
    browser.until(&says(" ago"));
    browser.until(&says("shielded"));
    // With all that it holds up, and nothing of those who may go on.
    let cause = "whoever had asked for it has gone";
    browser.until(&says(&format!("cancelled: {cause}")));
    assert!(
        !browser
            .text("#tree")
            .contains("for bytes or a connection, for")
    );

    drop(shut);
    until(|| gate.waiting() == 0);
    browser.click("#look");
    browser.until("document.querySelector('#looked').textContent.includes('nothing is cancelled')");
    browser.until(&says("Nothing here was cancelled and goes on."));
    drop(patient);
    drop(server.shutdown(GRACE));
}

/// The two handlers wait for the gate, which belongs to all cores.
const WAITS: &str = "[...document.querySelectorAll('#tree .wait')]
    .filter((wait) => /^for another core, for [0-9]/.test(wait.textContent)).length === 2";
