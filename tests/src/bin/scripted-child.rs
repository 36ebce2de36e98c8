//! A child process for tests: speaks JSON-RPC over its standard streams, and misbehaves on demand.
//!
//! What it does is the method that it is asked for. `--length` frames by `Content-Length`; `--stays` outlives
//! the end of its input; `--silent` never answers; `--version X` is what it says of itself in the handshake of the
//! Model Context Protocol.

use std::collections::BTreeMap;
use std::env;
use std::io::{self, BufRead, Read, StdinLock, Write};
use std::process;

use serde_json::{Value, json};

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    let mut version = arguments.iter().skip_while(|name| *name != "--version");
    let mut child = Child {
        is_measured: has("--length"),
        is_silent: has("--silent"),
        version: version.nth(1).cloned(),
        held: Vec::new(),
        seen: Vec::new(),
        asked: BTreeMap::new(),
    };
    let mut input = io::stdin().lock();
    while let Some(message) = child.read(&mut input) {
        child.hear(&message);
    }
    if has("--stays") {
        stay();
    }
}

/// Does nothing for ever.
fn stay() -> ! {
    loop {
        std::thread::park();
    }
}

struct Child {
    is_measured: bool,
    is_silent: bool,
    version: Option<String>,
    /// What is yet to be answered, with what.
    held: Vec<(Value, Value)>,
    /// The notifications that came.
    seen: Vec<Value>,
    /// What it has asked back, and for whom.
    asked: BTreeMap<String, Value>,
}

impl Child {
    fn read(&self, input: &mut StdinLock<'_>) -> Option<Value> {
        let mut line = String::new();
        if input.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if self.is_measured {
            let (_, length) = line.split_once(':').expect("a head");
            let mut message = vec![0; length.trim().parse().expect("a length")];
            input.read_line(&mut String::new()).expect("an empty line");
            input.read_exact(&mut message).expect("a message");
            line = String::from_utf8(message).expect("text");
        }
        Some(serde_json::from_str(&line).expect("whole messages of JSON"))
    }

    fn say(&self, message: &Value) {
        let text = message.to_string();
        if self.is_measured {
            raw(&format!("Content-Length: {}\r\n\r\n{text}", text.len()));
        } else {
            raw(&format!("{text}\n"));
        }
    }

    fn answer(&self, id: &Value, result: Value) {
        self.say(&json!({"jsonrpc": "2.0", "id": id, "result": result}));
    }

    fn hear(&mut self, message: &Value) {
        if self.is_silent {
            return;
        }
        let (id, params) = (&message["id"], &message["params"]);
        let Some(method) = message["method"].as_str() else {
            // What it had asked for comes back to who made it ask.
            let asked = self.asked.remove(id.as_str().expect("its own"));
            return self.answer(&asked.expect("asked once"), message.clone());
        };
        if id.is_null() {
            return self.seen.push(message.clone());
        }
        let text = |name: &str| params[name].as_str().expect("a text").to_owned();
        let count = |name: &str| params[name].as_u64().expect("a number");
        match method {
            "echo" => self.answer(id, params.clone()),
            "seen" => self.answer(id, Value::Array(self.seen.clone())),
            // Answered by the next release, which says how many they were.
            "hold" => self.held.push((id.clone(), params.clone())),
            "release" => {
                let held = std::mem::take(&mut self.held);
                for (id, result) in held.iter().rev() {
                    self.answer(id, result.clone());
                }
                self.answer(id, json!(held.len()));
            }
            "ask" => {
                let own = format!("own {id}");
                self.say(&json!({
                    "jsonrpc": "2.0", "id": own, "method": text("method"), "params": {"n": 1},
                }));
                self.asked.insert(own, id.clone());
            }
            "ask without end" => loop {
                self.say(&json!({"jsonrpc": "2.0", "id": "x", "method": "x"}));
            },
            "ask and take back" => {
                let own = format!("own {id}");
                self.say(&json!({"jsonrpc": "2.0", "id": own, "method": text("method")}));
                self.say(&json!({
                    "jsonrpc": "2.0", "method": "notifications/cancelled",
                    "params": {"requestId": own},
                }));
                self.asked.insert(own, id.clone());
            }
            "tell" => {
                for n in 0..count("times") {
                    self.say(&json!({"jsonrpc": "2.0", "method": "told", "params": {"n": n}}));
                }
                self.answer(id, Value::Null);
            }
            "batch" => self.say(&json!([
                {"jsonrpc": "2.0", "method": "told", "params": {"n": 0}},
                {"jsonrpc": "2.0", "id": id, "result": "in a batch"},
            ])),
            "refuse" => self.say(&json!({
                "jsonrpc": "2.0", "id": id,
                "error": {"code": -32000, "message": "not today", "data": [1]},
            })),
            "stray" => self.answer(&json!(999_999), Value::Null),
            "misread" => self.say(&json!({
                "jsonrpc": "2.0", "id": null, "error": {"code": -32700, "message": "what?"},
            })),
            "half" => {
                eprintln!("giving up");
                raw(r#"{"jsonrpc":"2.0","id":0,"res"#);
                process::exit(3);
            }
            "endless" => loop {
                raw(&"x".repeat(1 << 16));
            },
            "garbage" => raw("Listening on port 80\n"),
            "complain" => {
                let line = format!("{}\n", "y".repeat(99));
                for _ in 0..count("lines") {
                    io::stderr().write_all(line.as_bytes()).expect("it is read");
                }
                eprintln!("the last complaint");
                self.answer(id, Value::Null);
            }
            "answer and exit" => {
                self.answer(id, json!("a last word"));
                process::exit(0);
            }
            "exit" => {
                eprintln!("out of order");
                process::exit(i32::try_from(count("status")).expect("a status"));
            }
            // Whatever is written from here on stays in the pipe.
            "read no more" => stay(),
            "never" => {}
            _ => self.hear_mcp(id, method, params),
        }
    }

    fn hear_mcp(&self, id: &Value, method: &str, params: &Value) {
        let asked = params["protocolVersion"].as_str().unwrap_or_default();
        match method {
            "initialize" => self.answer(
                id,
                json!({
                    "protocolVersion": self.version.as_deref().unwrap_or(asked),
                    "capabilities": {"tools": {}},
                    "serverInfo": {"name": "scripted", "version": "1"},
                    "instructions": "ask",
                }),
            ),
            "ping" => self.answer(id, json!({})),
            "tools/list" => match params["cursor"].as_str() {
                None => self.answer(id, json!({"tools": [tool("count")], "nextCursor": "2"})),
                Some("2") => self.answer(id, json!({"tools": [tool("fail")]})),
                Some(other) => panic!("no such page: {other}"),
            },
            "tools/call" => self.call_tool(id, params),
            _ => self.say(&json!({
                "jsonrpc": "2.0", "id": id,
                "error": {"code": -32601, "message": format!("no {method}")},
            })),
        }
    }

    fn call_tool(&self, id: &Value, params: &Value) {
        let text = |text: &str| json!([{"type": "text", "text": text}]);
        match params["name"].as_str().expect("a name") {
            "count" => {
                let to = params["arguments"]["to"].as_u64().expect("a number");
                for n in 1..=to {
                    self.say(&json!({
                        "jsonrpc": "2.0", "method": "notifications/progress",
                        "params": {
                            "progressToken": params["_meta"]["progressToken"],
                            "progress": n, "total": to, "message": format!("{n}"),
                        },
                    }));
                }
                let content = text("counted");
                self.answer(
                    id,
                    json!({"content": content, "structuredContent": {"n": to}}),
                );
            }
            "fail" => self.answer(id, json!({"content": text("no"), "isError": true})),
            "odd" => self.answer(id, json!({"contents": []})),
            _ => {}
        }
    }
}

fn tool(name: &str) -> Value {
    json!({"name": name, "description": "does it", "inputSchema": {"type": "object"}})
}

fn raw(text: &str) {
    let mut output = io::stdout().lock();
    let written = output.write_all(text.as_bytes());
    // Whoever reads may have gone.
    if written.and_then(|()| output.flush()).is_err() {
        process::exit(1);
    }
}
