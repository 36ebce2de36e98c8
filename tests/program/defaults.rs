//! The defaults that documents name are those that the program and the builders have.
//!
//! What a builder has is read from how it shows itself for debugging, what the program has from its help, and
//! what is fixed from the constant in the source.

use std::collections::BTreeMap;
use std::time::Duration;

use quoit::Runtime;
use quoit_net::http::Server;
use quoit_net::tcp::TcpOptions;
use quoit_net::unix::UnixOptions;

use crate::documents::document;
use crate::program::run;

/// Reads an amount as people write it, or a value that they have a word for: `75 s`, `64 KiB`, `16 384`,
/// `none`. Returns it as it is shown for debugging.
fn value(text: &str) -> Option<String> {
    let text = text.trim();
    let word = match text {
        "none" | "as long as it takes" | "the kernel's own rule" => Some("None"),
        "refused" | "[`Strictness::Strict`]" => Some("Strict"),
        "on" => Some("true"),
        "off" => Some("false"),
        _ => None,
    };
    if let Some(word) = word {
        return Some(word.to_owned());
    }
    let end = text.rfind(|c: char| c.is_ascii_digit())? + 1;
    let (number, unit) = text.split_at(end);
    let number: u64 = number.replace(' ', "").parse().ok()?;
    match unit.trim() {
        "" => Some(number.to_string()),
        "s" => Some(format!("{:?}", Duration::from_secs(number))),
        "ms" => Some(format!("{:?}", Duration::from_millis(number))),
        "KiB" => Some((number << 10).to_string()),
        "MiB" => Some((number << 20).to_string()),
        _ => None,
    }
}

/// Returns the value of a field of something that is shown for debugging.
fn field(shown: &str, name: &str) -> Option<String> {
    let begin = format!(" {name}: ");
    let at = shown.find(&begin)? + begin.len();
    let rest = &shown[at..];
    let end = rest.find([',', ' ', '}'])?;
    Some(rest[..end].to_owned())
}

fn server() -> String {
    format!("{:?}", Server::bind("127.0.0.1:0"))
}

/// Returns the default of each option that has one, as the help says it.
fn help() -> BTreeMap<String, String> {
    let output = run(&["serve", "--help"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut option = String::new();
    let mut found = BTreeMap::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with('-') {
            let words = line.split([' ', ',']);
            option = words
                .filter(|word| word.starts_with("--"))
                .collect::<String>();
        }
        if let Some((_, rest)) = line.split_once("[default: ")
            && let Some((default, _)) = rest.split_once(']')
        {
            found.insert(option.clone(), default.to_owned());
        }
    }
    found
}

/// Returns the default that the documentation of each method names, if it is one that can be compared.
fn documented(source: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut docs = String::new();
    for line in source.lines().map(str::trim) {
        if let Some(text) = line.strip_prefix("///") {
            docs.push_str(text);
        } else if let Some(rest) = line.strip_prefix("pub fn ") {
            let name = rest.split(['(', '<']).next().expect("a name");
            if let Some((_, said)) = docs.split_once("Default") {
                let said = said.trim_start_matches(':');
                let end = said.find([':', ';', ',', '.']).unwrap_or(said.len());
                // A path has colons of its own.
                let said = if said.trim_start().starts_with("[`") {
                    said.split_inclusive("`]").next().expect("its end")
                } else {
                    &said[..end]
                };
                found.extend(value(said).map(|value| (name.to_owned(), value)));
            }
            docs.clear();
        } else if !line.starts_with("#[") {
            docs.clear();
        }
    }
    found
}

#[test]
fn builders_have_the_defaults_that_their_documentation_names() {
    for (source, shown, least) in [
        ("net/src/http/server.rs", server(), 11),
        (
            "net/src/tcp/options.rs",
            format!("{:?}", TcpOptions::new()),
            5,
        ),
        (
            "net/src/unix/options.rs",
            format!("{:?}", UnixOptions::new()),
            1,
        ),
        (
            "runtime/src/config.rs",
            format!("{:?}", Runtime::builder()),
            4,
        ),
    ] {
        let named = documented(&document(source));
        assert!(named.len() >= least, "{source}: only {named:?}");
        for (method, expected) in named {
            // What is off is not there.
            let has = field(&shown, &method).map(|has| match &*has {
                "None" if expected == "false" => expected.clone(),
                _ => has,
            });
            assert_eq!(has, Some(expected), "{source}: {method} in {shown}");
        }
    }
}

#[test]
fn the_table_of_limits_has_the_defaults_of_the_builder() {
    let (shown, guide) = (server(), document("net/src/embedding.md"));
    let mut compared = 0;
    for line in guide.lines() {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let [_, _, default, _, method, _, _] = cells[..] else {
            continue;
        };
        for method in method.split(", ") {
            let method = method.trim_matches('`');
            let field_of = match method {
                "options" | "unix_options" => "backlog",
                _ => method,
            };
            if let Some(has) = field(&shown, field_of) {
                assert_eq!(value(default), Some(has), "{line}");
                compared += 1;
            }
        }
    }
    assert_eq!(compared, 13, "the table has another form, or other rows");
}

#[test]
fn the_program_has_the_defaults_of_the_builder() {
    let (shown, help) = (server(), help());
    let mut compared = 0;
    for (option, default) in &help {
        let name = option.trim_start_matches('-').replace('-', "_");
        if let Some(has) = field(&shown, &name) {
            let is_seconds = name.ends_with("_timeout") && default.parse::<u64>().is_ok();
            let unit = if is_seconds { " s" } else { "" };
            let said = value(&format!("{default}{unit}"));
            match &*name {
                "listen" | "cores" | "page" => {}
                _ => {
                    assert_eq!(said, Some(has), "{option}");
                    compared += 1;
                }
            }
        }
    }
    assert_eq!(compared, 8, "{help:?}");
}

/// Returns what a constant of a source is, as it is shown for debugging.
fn constant(source: &str, name: &str) -> String {
    let text = document(source);
    let begin = format!("const {name}: ");
    let at = text.find(&begin);
    let at = at.unwrap_or_else(|| panic!("{source} has no {name}"));
    let (_, rest) = text[at..].split_once("= ").expect("a value");
    let (said, _) = rest.split_once(';').expect("its end");
    let amount = |unit: &str| -> Option<u64> {
        let begin = format!("Duration::from_{unit}(");
        said.strip_prefix(&*begin)?.strip_suffix(')')?.parse().ok()
    };
    if let Some(seconds) = amount("secs") {
        return format!("{:?}", Duration::from_secs(seconds));
    }
    if let Some(millis) = amount("millis") {
        return format!("{:?}", Duration::from_millis(millis));
    }
    let factors = said.split('*').map(|factor| factor.trim().parse::<u64>());
    let product: Result<u64, _> = factors.product();
    product.unwrap_or_else(|_| panic!("{said}")).to_string()
}

/// Each sentence with a number that is a default or fixed: where it stands, the number, and what is the case.
#[test]
fn what_documents_say_beside_tables_is_so() {
    const README: &str = "README.md";
    const OPERATIONS: &str = "docs/operations.md";
    const EMBEDDING: &str = "net/src/embedding.md";
    const SERVER: &str = "net/src/http/server.rs";
    let idle = field(&server(), "idle_timeout").expect("it is shown");
    let of_http2 = |name| constant("net/src/http/http2.rs", name);
    let window: u64 = of_http2("CONNECTION_WINDOW").parse().expect("a number");
    assert!(
        document("net/src/http/http2.rs").contains("STREAM_WINDOW: u32 = CONNECTION_WINDOW / 2")
    );
    let config = document("runtime/src/config.rs");
    for (count, size) in [(16, 128), (256, 8)] {
        assert!(config.contains(&format!("({count}, {size} * 1024)")));
        assert!(config.contains(&format!("{count} of {size} KiB")));
        assert_eq!(count * size, 2 * 1024, "2 MiB, as said below");
    }
    let buffers = (2 << 20).to_string();
    let drop_grace = constant(SERVER, "DROP_GRACE");
    let last_call = constant("net/src/http/connection.rs", "LAST_CALL");
    let pause = constant("net/src/http/core.rs", "LONGEST_PAUSE");
    for (source, sentence, said, is) in [
        (README, "in 2 MiB of buffers per core", "2 MiB", &buffers),
        (
            README,
            "takes wait there, 256 KiB per stream",
            "256 KiB",
            &constant("runtime/src/kernel_op/ops.rs", "MAX_RECEIVED"),
        ),
        (OPERATIONS, "our idle timeout of 75 s", "75 s", &idle),
        (OPERATIONS, "after the idle timeout (75 s)", "75 s", &idle),
        (
            OPERATIONS,
            "has begun ends after half a second",
            "500 ms",
            &last_call,
        ),
        (
            OPERATIONS,
            "after a pause of at most a second",
            "1 s",
            &pause,
        ),
        (
            OPERATIONS,
            "is left out past 1 MiB",
            "1 MiB",
            &constant("net/src/stdio.rs", "MOST_BYTES"),
        ),
        (
            OPERATIONS,
            "waits 2 s for each of the two",
            "2 s",
            &constant("net/src/bin/quoit/main.rs", "LAST_WORDS"),
        ),
        (
            OPERATIONS,
            "2 MiB of receive buffers per core",
            "2 MiB",
            &buffers,
        ),
        (EMBEDDING, "grace period of 5 s", "5 s", &drop_grace),
        (SERVER, "with a grace period of 5 s", "5 s", &drop_grace),
        (
            SERVER,
            "64 KiB of an answer",
            "64 KiB",
            &of_http2("SEND_BUFFER"),
        ),
        (
            SERVER,
            "is fixed: 512 KiB of a body",
            "512 KiB",
            &(window / 2).to_string(),
        ),
        (
            SERVER,
            "and 1 MiB of all bodies",
            "1 MiB",
            &window.to_string(),
        ),
        (
            SERVER,
            "a thousand at once, 64 per second",
            "64",
            &constant("net/src/http/frames.rs", "FRAMES_PER_SECOND"),
        ),
    ] {
        // A sentence may go on in the next line, of a comment as well.
        let text = document(source).replace("///", " ");
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(
            text.contains(sentence),
            "{source} does not say {sentence:?}"
        );
        assert_eq!(value(said).as_ref(), Some(is), "{source}: {sentence}");
    }
}

#[test]
fn places_that_documents_name_are_those_of_the_program() {
    let help = help();
    let address = &help["--listen"];
    let page = &help["--page-path"];
    for (source, named) in [
        ("README.md", format!("on http://{address},")),
        ("README.md", format!("what it does at `{page}`")),
        ("README.md", format!("http://{address}{page}")),
        ("docs/operations.md", format!("for people at `{page}`")),
        ("docs/operations.md", format!("`http://{address}{page}`")),
    ] {
        let text = document(source).replace("///", " ");
        assert!(text.contains(&named), "{source} does not say {named:?}");
    }
}
