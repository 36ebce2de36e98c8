//! The scope tree on the page.

use std::sync::Arc;

use quoit::sync::shared::Semaphore;
use serde_json::json;
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

/// Puts a dump of a test's making in the place of the server's, and looks at it.
fn look_at(browser: &Browser, nodes: &str) {
    browser.value(&format!(
        "(() => {{
           const node = (parent, kind, more = {{}}) => ({{
             parent, kind, task: null, state: null, refusals: 0, swallowing: false, refused: false,
             cancelled: null, cancelled_ns: null, grace_left_ns: null, deadline_in_ns: null, shield: 'none',
             tasks: 0, starting: 0, dropped: false, ending: false, foreign: false, foreign_wakes: 0,
             unresponsive: false, waits: [], orphans: [], ...more,
           }});
           const task = (parent, number, more = {{}}) =>
             node(parent, 'task', {{ task: number, state: 'waiting', ...more }});
           const core = {{ core: 0, silent: null, tasks: 0, ready: 0, kernel_ops: 0, orphans: 0, timers: 0 }};
           const dump = {{ cores: [
             {{ ...core, nodes: [node(null, 'root'), ...{nodes}] }},
             {{ core: 1, silent: 'does not answer: it has too much to do' }},
           ] }};
           const real = globalThis.fetch;
           globalThis.fetch = (path, how) => path === 'scopes.json'
             ? Promise.resolve(new Response(JSON.stringify(dump))) : real(path, how);
           return null;
         }})()"
    ));
    browser.click("#look");
    browser.until("document.querySelector('#look').textContent === 'Look again'");
}

#[test]
fn a_large_tree_is_shown_bit_by_bit() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let server = site::open();
    browser.open(&site::url(&server));
    let many = "Array.from({ length: 10_000 }, (_, i) => i % 2 ? node(i, 'scope', { tasks: 7 }) : task(0, i))";
    look_at(&browser, many);
    let shown = "document.querySelectorAll('#tree details').length";
    // The root, and a hundred tasks that are closed; their scopes are not made before they are opened.
    assert_eq!(browser.value(shown), json!(101));
    assert_eq!(
        browser.value("document.querySelectorAll('#tree .leaf').length"),
        json!(0)
    );
    assert_eq!(browser.text("#tree .more"), "show 100 more of 4,900");
    browser.click("#tree .more");
    assert_eq!(browser.value(shown), json!(201));
    browser.click("#tree ul ul summary");
    browser.until("document.querySelectorAll('#tree .leaf').length === 1");
    // What was opened stays so when it is looked at again.
    browser.value("globalThis.before = document.querySelector('#tree details'); null");
    browser.click("#look");
    browser.until("!before.isConnected");
    assert_eq!(browser.value(shown), json!(101));
    browser.until("document.querySelectorAll('#tree .leaf').length === 1");
    assert!(
        browser
            .text("#tree")
            .contains("core 1does not answer: it has too much to do")
    );
}

#[test]
fn what_will_not_stop_comes_with_the_worst_first() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let server = site::open();
    browser.open(&site::url(&server));
    look_at(
        &browser,
        "[
           task(0, 1),
           task(0, 2, { refused: true, cancelled: 'cancelled: young', cancelled_ns: 1e6 }),
           task(0, 3, { refused: true, cancelled: 'cancelled: old', cancelled_ns: 5e9 }),
           node(3, 'scope', { shield: 'full', waits: [{ for: '<b>bold</b>', since_ns: 1500, told: false }] }),
           task(0, 4),
           node(5, 'group', { tasks: 1 }),
           task(6, 5, { refused: true, swallowing: true, refusals: 1234, state: 'pausing' }),
           task(0, 6, { orphans: ['a read on descriptor 7'] }),
         ]",
    );
    assert!(
        browser
            .text("#looked")
            .ends_with("4 cancelled and not ended")
    );
    browser.click("#stuck");
    let names = "[...document.querySelectorAll('#tree .name')].map((name) => name.textContent)";
    assert_eq!(
        browser.value(names),
        json!([
            "all of it",
            "task 4",
            "group",
            "task 5",
            "task 3",
            "scope",
            "task 2"
        ]),
    );
    let tree = browser.text("#tree");
    assert!(
        tree.contains("swallows every cancel: refused 1,234 times"),
        "{tree}"
    );
    assert!(tree.contains("cancelled: old, 5.00\u{a0}s ago"), "{tree}");
    // Words of the server are words, whatever they look like.
    assert!(tree.contains("for <b>bold</b>, for 1.50\u{a0}µs"), "{tree}");
    browser.click("#stuck");
    assert!(
        browser
            .text("#tree")
            .contains("given up, and not ended: a read on descriptor 7")
    );
    assert_eq!(browser.complaints(), Vec::<String>::new());
}
