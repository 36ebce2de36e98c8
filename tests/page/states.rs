//! Whether the page is live: what it says when the server goes, and when it asks at all.

use std::sync::Arc;

use quoit::sync::shared::Semaphore;
use serde_json::json;

use crate::browser::Browser;
use crate::site::{self, GRACE, ask};

fn state_is(state: &str) -> String {
    format!("document.body.dataset.state === '{state}'")
}

#[test]
fn a_server_that_goes_is_missed_and_one_that_comes_back_is_followed() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let server = site::open();
    let address = server.local_addr();
    ask(address, "/missing", 9);
    browser.open(&site::url(&server));
    browser.until(&state_is("live"));
    assert_eq!(
        browser.value("document.querySelector('#trouble').hidden"),
        json!(true)
    );

    server.shutdown(GRACE).expect("it ends");
    browser.until(&state_is("stale"));
    assert_eq!(browser.text("#state"), "stale");
    let trouble = browser.text("#trouble");
    assert!(trouble.starts_with("No readings since "), "{trouble}");
    assert!(
        trouble.contains("the server cannot be reached"),
        "{trouble}"
    );
    assert_eq!(
        browser.value("document.querySelector('#trouble').hidden"),
        json!(false)
    );
    // Since the first failure, not since the last; and what was seen before stays.
    let failures = browser.asked().len();
    while browser.asked().len() < failures + 3 {
        browser.until("true");
    }
    assert_eq!(browser.text("#trouble"), trouble);
    assert_eq!(browser.text("#total-4xx"), "9");
    browser.click("#look");
    browser.until("document.querySelector('#looked').textContent === 'no answer: the server cannot be reached'");

    // Another server in its place has counted nothing: the page starts anew.
    let server = site::serve(address, &Arc::new(Semaphore::new(1)));
    browser.until(&state_is("live"));
    browser.until("document.querySelector('#total-4xx').textContent === '0'");
    assert_eq!(
        browser.value("document.querySelector('#trouble').hidden"),
        json!(true)
    );
    assert_eq!(
        browser.value("document.body.dataset.error ?? null"),
        json!(null)
    );
    drop(server);
}

#[test]
fn a_page_that_is_paused_or_hidden_asks_for_nothing() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let server = site::open();
    browser.open(&site::url(&server));
    browser.until(&state_is("live"));
    let hide = |hidden: bool| {
        browser.value(&format!(
            "Object.defineProperty(document, 'hidden', {{ value: {hidden}, configurable: true }});
             document.dispatchEvent(new Event('visibilitychange')); null"
        ));
    };

    browser.click("#pause");
    browser.until(&state_is("paused"));
    assert_eq!(
        browser.value("document.querySelector('#pause').ariaPressed"),
        json!("true")
    );
    asks_for_nothing(&browser);
    browser.click("#pause");
    browser.until(&state_is("live"));
    goes_on(&browser);

    hide(true);
    asks_for_nothing(&browser);
    hide(false);
    goes_on(&browser);
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

/// Lets three seconds pass in the page, of which each would have had its question.
fn asks_for_nothing(browser: &Browser) {
    // What is on its way may still come in.
    browser.value("new Promise((done) => setTimeout(done, 1000))");
    let before = browser.asked();
    browser.value("new Promise((done) => setTimeout(done, 3000))");
    assert_eq!(browser.asked(), before);
}

fn goes_on(browser: &Browser) {
    let before = browser.asked().len();
    while browser.asked().len() < before + 2 {
        browser.until("true");
    }
}
