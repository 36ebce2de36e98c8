//! Chromium without a window, spoken to by its DevTools protocol: JSON over two pipes, each message
//! ended by a zero byte.
//!
//! It takes messages from descriptor 3 and answers on 4. A shell puts its standard input and output
//! there before it becomes the browser.

use std::cell::{Cell, RefCell};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::http_client::pause;

/// A browser with one page. Dropped, it ends.
#[derive(Debug)]
pub(crate) struct Browser {
    child: Child,
    /// Present until it ends.
    to_it: Option<RefCell<ChildStdin>>,
    messages: Receiver<Value>,
    /// What it said besides answers, in order.
    events: RefCell<Vec<Value>>,
    next: Cell<u64>,
    /// The page that is spoken to.
    session: String,
    /// What it keeps on disk.
    _profile: TempDir,
}

/// Long after anything that works has happened, on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(60);

/// Becomes the browser, with the pipes where it looks for them.
const BECOME: &str = r#"exec "$0" "$@" 3<&0 4>&1 </dev/null >/dev/null 2>/dev/null"#;

impl Browser {
    /// Starts it; `None` where there is none, which it says.
    pub(crate) fn start() -> Option<Self> {
        let name = "chromium";
        let found = Command::new(name)
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if !found.is_ok_and(|status| status.success()) {
            println!("left out: there is no {name} here (.ci/setup installs it)");
            return None;
        }
        let profile = tempfile::tempdir().expect("a folder for the browser");
        let mut child = Command::new("sh")
            .args(["-c", BECOME, name])
            // The tests run as root in containers, where its sandbox cannot be had.
            .args(["--headless=new", "--no-sandbox", "--disable-gpu"])
            // Containers have little shared memory.
            .args(["--disable-dev-shm-usage", "--remote-debugging-pipe"])
            // It is to speak to nobody but whom the test names.
            .args(["--no-first-run", "--disable-background-networking"])
            .args(["--disable-component-update", "--disable-sync"])
            // The page's timers are to run as if somebody looked at it.
            .args(["--disable-background-timer-throttling"])
            .args(["--disable-renderer-backgrounding", "--lang=en-US"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("there is a shell");
        let to_it = child.stdin.take().map(RefCell::new);
        let from_it = child.stdout.take().expect("it is a pipe");
        let (sender, messages) = mpsc::channel();
        thread::spawn(move || read(from_it, &sender));
        let mut browser = Self {
            child,
            to_it,
            messages,
            events: RefCell::default(),
            next: Cell::new(1),
            session: String::new(),
            _profile: profile,
        };
        let page = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
        let page = json!({ "targetId": page["targetId"], "flatten": true });
        let attached = browser.call("Target.attachToTarget", page);
        browser.session = text_of(&attached["sessionId"]);
        for domain in ["Page", "Runtime", "Network", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        Some(browser)
    }

    /// Calls a method of the protocol and returns its result.
    pub(crate) fn call(&self, method: &str, parameters: Value) -> Value {
        let id = self.next.replace(self.next.get() + 1);
        let mut message = json!({ "id": id, "method": method, "params": parameters });
        if !self.session.is_empty() {
            message["sessionId"] = json!(self.session);
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        let to_it = self.to_it.as_ref().expect("it runs");
        let sent = to_it.borrow_mut().write_all(&bytes);
        sent.expect("the browser listens");
        loop {
            let message = self.next_message(method);
            if message["id"] == json!(id) {
                assert!(message["error"].is_null(), "{method}: {message}");
                return message["result"].clone();
            }
            self.events.borrow_mut().push(message);
        }
    }

    /// Waits for what it says next; `what` is what it is waited for.
    fn next_message(&self, what: &str) -> Value {
        let message = self.messages.recv_timeout(PATIENCE);
        message.unwrap_or_else(|error| panic!("{what}: the browser said nothing: {error}"))
    }

    /// Opens a page, and waits until its script has run for the first time.
    pub(crate) fn open(&self, url: &str) {
        let before = self.events.borrow().len();
        let opened = self.call("Page.navigate", json!({ "url": url }));
        assert!(opened["errorText"].is_null(), "{url}: {opened}");
        let is_loaded = |event: &Value| event["method"] == "Page.loadEventFired";
        while !self.events.borrow()[before..].iter().any(is_loaded) {
            let event = self.next_message("Page.loadEventFired");
            self.events.borrow_mut().push(event);
        }
    }

    /// Returns what an expression is in the page, promises awaited.
    pub(crate) fn value(&self, expression: &str) -> Value {
        let what = json!({
            "expression": expression, "returnByValue": true, "awaitPromise": true, "userGesture": true,
        });
        let result = self.call("Runtime.evaluate", what);
        assert!(
            result["exceptionDetails"].is_null(),
            "{expression}: {result}"
        );
        result["result"]["value"].clone()
    }

    /// Returns the text of the first element that a selector finds.
    pub(crate) fn text(&self, selector: &str) -> String {
        text_of(&self.value(&format!("document.querySelector('{selector}').textContent")))
    }

    /// Returns the number that stands in an element, digits grouped by commas.
    pub(crate) fn number(&self, selector: &str) -> f64 {
        let text = self.text(selector);
        let number = text.replace(',', "").parse();
        number.unwrap_or_else(|_| panic!("{selector} is {text:?}"))
    }

    /// Clicks on an element, where it is, as a person would: again, if it moved away meanwhile.
    pub(crate) fn click(&self, selector: &str) {
        let place = format!(
            "(() => {{ const it = document.querySelector('{selector}');
             globalThis.wasClicked = false;
             it.addEventListener('click', () => {{ globalThis.wasClicked = true; }}, {{ once: true }});
             it.scrollIntoView({{ block: 'center' }});
             const box = it.getBoundingClientRect();
             return [box.x + box.width / 2, box.y + box.height / 2]; }})()"
        );
        for _ in 0..ROUNDS {
            let place = self.value(&place);
            for kind in ["mousePressed", "mouseReleased"] {
                let event = json!({
                    "type": kind, "x": place[0], "y": place[1], "button": "left", "clickCount": 1,
                });
                self.call("Input.dispatchMouseEvent", event);
            }
            if self.value("globalThis.wasClicked") == json!(true) {
                return;
            }
            pause(STEP);
        }
        panic!("{selector} cannot be clicked");
    }

    /// Waits until an expression is true in the page.
    pub(crate) fn until(&self, expression: &str) {
        for _ in 0..ROUNDS {
            if self.value(expression) == json!(true) {
                return;
            }
            pause(STEP);
        }
        let page = self.value("document.body.dataset.error + '\\n' + document.body.innerText");
        panic!("{expression} has not come true: {}", text_of(&page));
    }

    /// Sets how large the page is seen.
    pub(crate) fn size(&self, width: u32, height: u32) {
        let size = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600,
        });
        self.call("Emulation.setDeviceMetricsOverride", size);
    }

    /// Sets what somebody prefers, such as `prefers-color-scheme`.
    pub(crate) fn prefer(&self, feature: &str, value: &str) {
        let features = json!({ "features": [{ "name": feature, "value": value }] });
        self.call("Emulation.setEmulatedMedia", features);
    }

    /// Puts a picture of the page, from its top to its end, where the build keeps what tests write.
    pub(crate) fn picture(&self, name: &str) {
        self.value("scrollTo(0, 0)");
        let picture = json!({ "captureBeyondViewport": true });
        let picture = self.call("Page.captureScreenshot", picture);
        let bytes = from_base64(&text_of(&picture["data"]));
        assert!(bytes.starts_with(b"\x89PNG"), "a picture");
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("page");
        fs::create_dir_all(&folder).expect("a folder for pictures");
        fs::write(folder.join(format!("{name}.png")), bytes).expect("room for a picture");
    }

    /// Returns what it asked for so far, by URL.
    pub(crate) fn asked(&self) -> Vec<String> {
        let events = self.events.borrow();
        let requests = events
            .iter()
            .filter(|event| event["method"] == "Network.requestWillBeSent");
        requests
            .map(|event| text_of(&event["params"]["request"]["url"]))
            .collect()
    }

    /// Returns what went wrong in pages so far: exceptions, and errors that were logged.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let events = self.events.borrow();
        let is_one = |event: &&Value| {
            event["method"] == "Runtime.exceptionThrown"
                || event["params"]["entry"]["level"] == "error"
        };
        events
            .iter()
            .filter(is_one)
            .map(ToString::to_string)
            .collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Without its pipes it ends by itself, and takes its own children along.
        drop(self.to_it.take());
        let ended = (0..100).any(|_| {
            pause(STEP);
            matches!(self.child.try_wait(), Ok(Some(_)))
        });
        if !ended {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// How often it is looked whether something has happened.
const STEP: Duration = Duration::from_millis(50);

/// How often it is looked before it is given up: together no less than [`PATIENCE`].
const ROUNDS: u128 = PATIENCE.as_millis() / STEP.as_millis();

/// Passes on what the browser says, until its end.
fn read(from_it: ChildStdout, sender: &Sender<Value>) {
    let mut from_it = BufReader::new(from_it);
    let mut message = Vec::new();
    while from_it.read_until(0, &mut message).is_ok() && message.pop() == Some(0) {
        let value = serde_json::from_slice(&message).expect("the browser speaks JSON");
        if sender.send(value).is_err() {
            return;
        }
        message.clear();
    }
}

/// Returns the text that a value is.
pub(crate) fn text_of(value: &Value) -> String {
    let text = value.as_str();
    text.unwrap_or_else(|| panic!("{value} is no text"))
        .to_owned()
}

fn from_base64(text: &str) -> Vec<u8> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => panic!("{byte} is no digit of base 64"),
    };
    let digits = text.trim_end_matches('=').as_bytes();
    let groups = digits.chunks(4).flat_map(|group| {
        let bits = group
            .iter()
            .fold(0_u32, |bits, &byte| bits << 6 | u32::from(digit(byte)));
        let bits = bits << (6 * (4 - group.len()));
        bits.to_be_bytes()[1..group.len()].to_vec()
    });
    groups.collect()
}
