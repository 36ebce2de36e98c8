//! How the page looks: on a phone, in the dark, and to whom it speaks.

use serde_json::json;
use tests::http_client::Client;

use crate::browser::Browser;
use crate::site::{self, ask};

/// Texts that are hard to read: their contrast with what is behind them is below 4.5, which the
/// accessibility guidelines of the web ask for (WCAG 2.2, 1.4.3).
const HARD_TO_READ: &str = "
(() => {
  const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const rgba = (color) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = (color) => {
    const [r, g, b] = rgba(color).map((part) => part / 255)
      .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    const color = getComputedStyle(element).backgroundColor;
    return rgba(color)[3] === 255 || !element.parentElement ? color : behind(element.parentElement);
  };
  const found = [];
  for (const element of document.querySelectorAll('body *')) {
    const text = [...element.childNodes].filter((node) => node.nodeType === 3).map((node) => node.data).join('').trim();
    if (!text || element.closest('script, style, [hidden]')) continue;
    const style = getComputedStyle(element);
    const drawn = element.namespaceURI.endsWith('svg') ? style.fill : style.color;
    const [a, b] = [light(drawn), light(behind(element))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5) found.push(`${text}: ${contrast.toFixed(2)}`);
  }
  return found;
})()";

#[test]
fn the_page_fits_and_can_be_read_wherever_it_is_seen() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let server = site::open();
    let waiting = Client::connect(server.local_addr());
    browser.size(1360, 900);
    browser.prefer("prefers-color-scheme", "light");
    browser.open(&site::url(&server));
    browser.until("document.body.dataset.state === 'live'");
    ask(server.local_addr(), "/", 300);
    ask(server.local_addr(), "/missing", 30);
    browser.click("#look");
    browser.until("document.querySelectorAll('#tree summary').length > 0");
    // A few readings more, so that there are lines to look at.
    browser
        .until("Number(document.querySelector('#total-2xx').textContent.replace(',', '')) >= 310");

    let ground = "getComputedStyle(document.documentElement).backgroundColor";
    let in_light = browser.value(ground);
    assert_eq!(browser.value(HARD_TO_READ), json!([]), "in the light");
    fits(&browser);
    browser.picture("light");

    browser.prefer("prefers-color-scheme", "dark");
    assert_ne!(browser.value(ground), in_light);
    assert_eq!(browser.value(HARD_TO_READ), json!([]), "in the dark");
    browser.picture("dark");

    browser.size(390, 844);
    assert_eq!(browser.value("innerWidth"), json!(390));
    fits(&browser);
    browser.picture("phone");
    browser.prefer("prefers-reduced-motion", "reduce");
    let moves = "document.getAnimations().length";
    assert_eq!(browser.value(moves), json!(0));
    drop(waiting);

    let asked = browser.asked();
    let elsewhere: Vec<_> = asked
        .iter()
        .filter(|url| !url.starts_with(&site::url(&server)) && !url.starts_with("data:"))
        .collect();
    assert_eq!(elsewhere, Vec::<&String>::new());
    assert!(asked.len() > 3, "{asked:?}");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

/// Nothing can be scrolled sideways but what is meant to.
fn fits(browser: &Browser) {
    let width = browser.value("document.documentElement.scrollWidth - innerWidth");
    assert!(width.as_i64().expect("a width") <= 0, "{width} too wide");
}

#[test]
fn everything_can_be_reached_and_has_a_name() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let server = site::open();
    browser.open(&site::url(&server));
    browser.until("document.body.dataset.state === 'live'");
    // Names as a screen reader is told them.
    let tree = browser.call("Accessibility.getFullAXTree", json!({}));
    let nodes = tree["nodes"].as_array().expect("a list");
    let nameless: Vec<_> = nodes
        .iter()
        .filter(|node| node["ignored"] == json!(false))
        .filter(|node| {
            let roles = [
                "button", "combobox", "radio", "image", "link", "region", "img",
            ];
            roles
                .iter()
                .any(|role| node["role"]["value"] == json!(role))
        })
        .filter(|node| node["name"]["value"].as_str().is_none_or(str::is_empty))
        .collect();
    assert!(nameless.is_empty(), "{nameless:#?}");

    // The keyboard comes everywhere; in a chart it moves the cursor.
    browser.value("document.querySelector('#curve .chart').focus()");
    for kind in ["keyDown", "keyUp"] {
        let key = json!({ "type": kind, "key": "ArrowLeft", "code": "ArrowLeft" });
        browser.call("Input.dispatchKeyEvent", key);
    }
    browser
        .until("document.querySelector('#curve .cursor').getAttribute('visibility') === 'visible'");
    let label = browser.value("document.querySelector('#curve .chart').getAttribute('aria-label')");
    assert!(
        label.as_str().is_some_and(|label| label.contains("core 0")),
        "{label}"
    );
}
