//! What the tiles, the charts and the table say.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::Response;
use quoit::Cores;
use quoit::sync::shared::Semaphore;
use quoit_net::http::{Page, Server};
use serde_json::json;
use tests::http_client::{Client, until};

use crate::browser::{Browser, text_of};
use crate::site::{self, CORES, ask, total};

/// The page has had two readings, and all went well.
const LIVE: &str = "document.body.dataset.state === 'live'";

#[test]
fn tiles_say_what_was_sent() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let server = site::open();
    let address = server.local_addr();
    ask(address, "/", 40);
    ask(address, "/missing", 7);
    ask(address, "/broken", 5);
    browser.open(&site::url(&server));
    browser.until(LIVE);

    // The page asks for 200s alone.
    assert_eq!(browser.text("#total-4xx"), "7");
    assert_eq!(browser.text("#total-5xx"), "5");
    assert_eq!(
        browser.text("#total-failed"),
        "0",
        "answered by the handler"
    );
    assert_eq!(browser.text("#cores"), CORES.to_string());

    // What the page does itself is counted as well: so its sums lie between two of ours.
    let before = total(&server, "requests", None);
    assert!(before >= 52.0, "{before}");
    browser.until(&format!(
        "Number(document.querySelector('#requests-total').textContent.replace(',', '')) >= {before}"
    ));
    let shown = browser.number("#requests-total");
    let after = total(&server, "requests", None);
    assert!(
        (before..=after).contains(&shown),
        "{before} ≤ {shown} ≤ {after}"
    );

    // Three are held open, besides the browser's own.
    let clients = [0; 3].map(|_| Client::connect(address));
    browser.until("Number(document.querySelector('#connections').textContent) >= 4");
    drop(clients);

    // What comes while it looks has a rate and latencies.
    ask(address, "/missing", 300);
    browser.until("document.querySelector('#total-4xx').textContent === '307'");
    browser.until(
        "/^[0-9.]+\\u00a0(ns|µs|ms|s)$/.test(document.querySelector('#latency-p99').textContent)",
    );
    let of = browser.text("#latency-count");
    assert!(of.starts_with("of ") && of.ends_with(" requests"), "{of}");

    assert_eq!(
        browser.value("document.body.dataset.error ?? null"),
        json!(null)
    );
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

/// The browser is a client as well: it has come before the server is full.
#[test]
fn a_core_that_is_at_its_limit_is_named() {
    const MOST: usize = 8;
    let Some(browser) = Browser::start() else {
        return;
    };
    let server = Server::bind("127.0.0.1:0")
        .cores(Cores::Count(1))
        .max_connections(MOST)
        .page(Page::at("/_quoit/"))
        .serve(|_| async { Ok::<_, Infallible>(Response::new(String::new())) });
    let server = server.expect("a server");
    browser.open(&site::url(&server));
    browser.until(LIVE);
    let hidden = "document.querySelector('#full').hidden";
    assert_eq!(browser.value(hidden), json!(true));

    let mut clients = Vec::new();
    while total(&server, "connections_full", None) == 0.0 {
        // Some more may wait in the kernel by then.
        clients.push(Client::connect(server.local_addr()));
    }
    browser.until("document.querySelector('#full').classList.contains('now')");
    let said = browser.text("#full");
    assert_eq!(said, "at the limit of 8: core 0; others wait in the kernel");
    assert_eq!(browser.value(hidden), json!(false));

    drop(clients);
    browser.until("!document.querySelector('#full').classList.contains('now')");
    let said = browser.text("#full");
    assert!(said.starts_with("a core was at its limit "), "{said}");
    assert!(said.ends_with(" since start"), "{said}");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn rates_are_what_came_between_two_readings() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let server = site::open();
    ask(server.local_addr(), "/missing", 1000);
    browser.open(&site::url(&server));
    browser.until(LIVE);

    // What came before it looked is in no rate; what comes now is, for a reading.
    assert_eq!(browser.text("#rate-4xx"), "0");
    browser.value(
        "globalThis.rates = []; new MutationObserver(() => rates.push(document.querySelector('#rate-4xx').textContent))
           .observe(document.querySelector('#answers'), { childList: true }); null",
    );
    ask(server.local_addr(), "/missing", 50);
    browser.until("rates.some((rate) => Number(rate) > 0) && rates.at(-1) === '0'");
    let most = browser.value("Math.max(...rates.map(Number))");
    let most = most.as_f64().expect("a rate");
    // Two readings are a second apart, or on a busy machine less: no rate is made of a fifth of one.
    assert!((1.0..=250.0).contains(&most), "{most} per second");
}

#[test]
fn each_core_has_its_curves_and_its_row() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let server = site::open();
    // Each core is asked something: new connections, until all have been accepted from.
    while server
        .snapshot()
        .cores
        .iter()
        .any(|core| core.count("requests", Some("http1")) == Some(0))
    {
        ask(server.local_addr(), "/", 10);
    }
    browser.open(&site::url(&server));
    browser.until(LIVE);
    browser.click("input[value=start]");
    let lines = "[...document.querySelectorAll('#curve path')].filter((path) => path.getAttribute('d')).map((path) => path.dataset.line)";
    assert_eq!(browser.value(lines), json!(["all", "core 0", "core 1"]));
    let loads = "[...document.querySelectorAll('#loads svg')].filter((area) => area.children[1].getAttribute('d').length > 0).length";
    assert_eq!(browser.value(loads), json!(CORES));
    let names = "[...document.querySelectorAll('#numbers th')].map((name) => name.textContent)";
    assert_eq!(browser.value(names), json!(["all", "core 0", "core 1"]));
    // Counts add up, and percentiles rise.
    let counts = "[...document.querySelectorAll('#numbers tr')].map((row) => Number(row.cells[1].textContent.replace(',', '')))";
    let counts = browser.value(counts);
    let counts: Vec<u64> = serde_json::from_value(counts).expect("numbers");
    assert_eq!(counts[0], counts[1] + counts[2]);
    assert!(counts[1] >= 10 && counts[2] >= 10, "{counts:?}");
    for chart in ["over-time", "delay"] {
        let drawn = format!(
            "[...document.querySelectorAll('#{chart} path')].map((path) => path.dataset.line)"
        );
        browser.until(&format!("{drawn}.join() === 'max,p99,p50'"));
    }
    for chart in ["alive", "cancelled"] {
        browser.until(&format!(
            "document.querySelectorAll('#{chart} .curve').length > 0"
        ));
    }
}

#[test]
fn the_choice_leads_to_every_latency() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let server = site::open();
    ask(server.local_addr(), "/", 50);
    browser.open(&site::url(&server));
    browser.until(LIVE);
    browser.click("input[value=start]");
    let offered =
        browser.value("[...document.querySelector('#what').options].map((one) => one.value)");
    let offered: Vec<String> = serde_json::from_value(offered).expect("texts");
    for wanted in [
        "request",
        "first_byte",
        "poll",
        "run_delay",
        "wake",
        "cancel",
        "op|send",
    ] {
        assert!(
            offered.iter().any(|key| key == wanted),
            "{wanted}: {offered:?}"
        );
    }
    let mut seen = 0;
    for key in &offered {
        choose(&browser, key);
        let all =
            text_of(&browser.value("document.querySelector('#numbers tr').cells[1].textContent"));
        let curves = browser.value("document.querySelectorAll('#curve .curve').length > 0");
        let empty = browser.value("document.querySelector('#curve .none')?.textContent.length > 0");
        // Either there is something to see, or it is said that there is nothing.
        assert_eq!(curves, json!(all != "0"), "{key}: {all}");
        assert_eq!(empty, json!(all == "0"), "{key}: {all}");
        seen += u32::from(all != "0");
    }
    assert!(
        seen >= 4,
        "requests, first bytes, polls and delays: {seen} of {offered:?}"
    );
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn the_table_says_what_the_server_measured() {
    let Some(browser) = Browser::start() else {
        return;
    };
    // Cancels are what the page itself does not make more of.
    let gate = Arc::new(Semaphore::new(1));
    let shut = gate.acquire_blocking();
    let server = site::serve("127.0.0.1:0", &gate);
    for _ in 0..30 {
        let client = Client::connect(server.local_addr());
        client.ask("GET", "/wait", "");
        until(|| gate.waiting() == 1);
        drop(client);
        until(|| gate.waiting() == 0);
    }
    until(|| server.snapshot().merged("cancel").count() >= 30);
    browser.open(&site::url(&server));
    browser.until(LIVE);
    browser.click("input[value=start]");
    choose(&browser, "cancel");

    let measured = server.snapshot();
    let all = measured.merged("cancel");
    let cores = measured
        .cores
        .iter()
        .map(|core| core.latency("cancel", None).cloned());
    let expected: Vec<_> = std::iter::once(Some(all.clone()))
        .chain(cores)
        .flatten()
        .collect();
    assert_eq!(expected.len(), CORES + 1);
    browser.until(&format!(
        "document.querySelector('#numbers td').textContent === '{}'",
        all.count()
    ));
    for (row, of) in (1..).zip(&expected) {
        let cells = format!(
            "[...document.querySelectorAll('#numbers tr:nth-child({row}) td')].map((cell) => cell.textContent)"
        );
        let cells: Vec<String> = serde_json::from_value(browser.value(&cells)).expect("texts");
        assert_eq!(cells[0], of.count().to_string());
        let shares = [50.0, 90.0, 99.0, 99.9].map(|percent| of.percentile(percent));
        let nanos = |time: Duration| time.as_nanos() as f64;
        let mean = nanos(of.sum()) / of.count() as f64;
        let rest = shares.into_iter().chain([of.max()]).map(nanos);
        for (cell, value) in cells[1..].iter().zip(std::iter::once(mean).chain(rest)) {
            match of.is_empty() {
                true => assert_eq!(cell, "–", "nothing to say of nothing"),
                false => assert_is(cell, value),
            }
        }
    }
    drop(shut);
}

#[test]
fn a_time_is_written_with_three_digits_also_where_it_is_rounded_up() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let server = site::serve("127.0.0.1:0", &Arc::new(Semaphore::new(1)));
    browser.open(&site::url(&server));
    browser.until(LIVE);
    // The page's own functions, which its script keeps to itself.
    let page = include_str!("../../net/src/http/page/page.html");
    let begin = page.find("const whole =").expect("the first of them");
    let end = page.find("function count(").expect("what follows");
    let functions = &page[begin..end];
    for (nanos, text) in [
        (99_940.0, "99.9\u{a0}µs"),
        (99_960.0, "100\u{a0}µs"),
        (9_994.0, "9.99\u{a0}µs"),
        (9_996.0, "10.0\u{a0}µs"),
        (999_600.0, "1.00\u{a0}ms"),
    ] {
        let written = format!("(() => {{ {functions} return time({nanos}); }})()");
        assert_eq!(browser.value(&written), json!(text));
        assert_is(text, nanos);
    }
}

/// Checks that a text says so many nanoseconds, as close as its digits can.
fn assert_is(text: &str, nanos: f64) {
    let (digits, unit) = text.split_once('\u{a0}').expect("a number and its unit");
    let size = match unit {
        "ns" => 1.0,
        "µs" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        _ => panic!("{text} has no unit"),
    };
    let places = digits.split_once('.').map_or(0, |(_, places)| places.len());
    let half = 0.5001 * size / 10_f64.powi(places as i32);
    let said = digits.parse::<f64>().expect("a number") * size;
    assert!((said - nanos).abs() <= half, "{text} is not {nanos} ns");
    assert!(unit == "ns" || digits.replace('.', "").len() == 3, "{text}");
}

/// Chooses of which latency the charts and the table are.
fn choose(browser: &Browser, key: &str) {
    browser.value(&format!(
        "(() => {{ const what = document.querySelector('#what'); what.value = '{key}';
         what.dispatchEvent(new Event('change')); return null; }})()"
    ));
}
