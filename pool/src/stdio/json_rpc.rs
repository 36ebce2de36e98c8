//! JSON-RPC 2.0: what the messages say. Pure.
//!
//! Strict about what it reads, as far as it could mean two things: what is no JSON-RPC is an error that shows how it
//! begins. Batches are read, and never written.

use std::error::Error;
use std::fmt;

use serde_json::{Map, Value, json};

use super::framing::beginning;

/// A message from the other side.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// It asks for something, and waits for an answer.
    Request {
        /// What the answer is to carry: a number or a string.
        id: Value,
        /// What it asks for.
        method: String,
        /// With what: an object, an array, or nothing.
        params: Value,
    },
    /// It says something.
    Notification {
        /// What about.
        method: String,
        /// An object, an array, or nothing.
        params: Value,
    },
    /// It answers.
    Answer {
        /// What the request carried; nothing, if the other side could not read which.
        id: Value,
        /// What came of it.
        outcome: Result<Value, RpcError>,
    },
}

impl Message {
    /// Reads a message, or a batch of them.
    ///
    /// # Errors
    ///
    /// [`NotJsonRpc`].
    pub fn read(text: &[u8]) -> Result<Vec<Self>, NotJsonRpc> {
        let not = |why: String| NotJsonRpc {
            why,
            beginning: beginning(text),
        };
        let value = serde_json::from_slice(text).map_err(|error| not(error.to_string()))?;
        match value {
            Value::Array(batch) if batch.is_empty() => Err(not("the batch is empty".to_owned())),
            Value::Array(batch) => {
                let messages = batch.into_iter().map(Self::from_value);
                messages.collect::<Result<_, _>>()
            }
            one => Self::from_value(one).map(|message| vec![message]),
        }
        .map_err(|why| NotJsonRpc {
            beginning: beginning(text),
            ..why
        })
    }

    fn from_value(value: Value) -> Result<Self, NotJsonRpc> {
        let not = |why: &str| NotJsonRpc {
            why: why.to_owned(),
            beginning: String::new(),
        };
        let Value::Object(mut fields) = value else {
            return Err(not("it is no object"));
        };
        if fields.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
            return Err(not("`jsonrpc` is not \"2.0\""));
        }
        let id = fields.remove("id");
        if matches!(
            id,
            Some(Value::Object(_) | Value::Array(_) | Value::Bool(_))
        ) {
            return Err(not("`id` is no number and no string"));
        }
        match fields.remove("method") {
            Some(Value::String(method)) => {
                let params = fields.remove("params").unwrap_or_default();
                if !matches!(params, Value::Object(_) | Value::Array(_) | Value::Null) {
                    return Err(not("`params` is no object and no array"));
                }
                match id {
                    Some(Value::Null) => Err(not("the `id` of a request is null")),
                    Some(id) => Ok(Self::Request { id, method, params }),
                    None => Ok(Self::Notification { method, params }),
                }
            }
            Some(_) => Err(not("`method` is no string")),
            None => {
                let id = id.ok_or_else(|| not("it has neither `method` nor `id`"))?;
                let outcome = outcome_in(fields).map_err(not)?;
                Ok(Self::Answer { id, outcome })
            }
        }
    }
}

/// Returns the whole number that a number is, however it is written: `7.0` and `7e0` are 7.
pub(super) fn whole_number(number: &Value) -> Option<u64> {
    let written = number.as_u64();
    written.or_else(|| whole_float(number).and_then(|float| u64::try_from(float).ok()))
}

/// Returns the whole number that is written as one of floating point.
fn whole_float(number: &Value) -> Option<i64> {
    /// Beyond this not each whole number is one of floating point.
    const MOST: f64 = 9_007_199_254_740_992.0;
    let float = number.as_f64()?;
    (float.fract() == 0.0 && float.abs() <= MOST).then_some(float as i64)
}

/// Some say of what they do not have that it is null.
fn outcome_in(mut fields: Map<String, Value>) -> Result<Result<Value, RpcError>, &'static str> {
    match (fields.remove("result"), fields.remove("error")) {
        (Some(result), None | Some(Value::Null)) => Ok(Ok(result)),
        (None | Some(Value::Null), Some(Value::Object(error))) => error_in(error).map(Err),
        (Some(_), Some(_)) => Err("it has both a `result` and an `error`"),
        (None, Some(_)) => Err("its `error` is no object"),
        (None, None) => Err("it has no `method`, no `result` and no `error`"),
    }
}

fn error_in(mut error: Map<String, Value>) -> Result<RpcError, &'static str> {
    let code = error.get("code");
    let code = code.and_then(|code| code.as_i64().or_else(|| whole_float(code)));
    let code = code.ok_or("the `code` of its `error` is no whole number")?;
    let Some(Value::String(message)) = error.remove("message") else {
        return Err("the `message` of its `error` is no string");
    };
    Ok(RpcError {
        code,
        message,
        data: error.remove("data"),
    })
}

/// An error that one side answers the other with.
#[derive(Debug, Clone, PartialEq)]
pub struct RpcError {
    /// Which: those from -32768 to -32000 belong to JSON-RPC.
    pub code: i64,
    /// What, in a sentence.
    pub message: String,
    /// More, if there is more to say.
    pub data: Option<Value>,
}

impl RpcError {
    /// Makes an error without data.
    pub fn new(code: i64, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            data: None,
        }
    }

    /// The answer to a request for what one does not have: -32601.
    pub fn method_not_found(method: &str) -> Self {
        Self::new(-32_601, format!("there is no method {method:?} here"))
    }

    /// The answer where a handler failed: -32603.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(-32_603, message)
    }
}

impl fmt::Display for RpcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (error {})", self.message, self.code)
    }
}

impl Error for RpcError {}

/// Text that is no JSON-RPC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotJsonRpc {
    why: String,
    beginning: String,
}

impl fmt::Display for NotJsonRpc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { why, beginning } = self;
        write!(f, "this is no JSON-RPC 2.0, {why}: {beginning:?}")
    }
}

impl Error for NotJsonRpc {}

/// Writes a request.
pub(super) fn request(id: u64, method: &str, params: Value) -> Vec<u8> {
    let mut message = json!({"jsonrpc": "2.0", "id": id, "method": method});
    put_params(&mut message, params);
    message.to_string().into_bytes()
}

/// Writes a notification.
pub(super) fn notification(method: &str, params: Value) -> Vec<u8> {
    let mut message = json!({"jsonrpc": "2.0", "method": method});
    put_params(&mut message, params);
    message.to_string().into_bytes()
}

/// Writes an answer.
pub(super) fn answer(id: &Value, outcome: Result<Value, RpcError>) -> Vec<u8> {
    match outcome {
        Ok(result) => json!({"jsonrpc": "2.0", "id": id, "result": result}),
        Err(RpcError {
            code,
            message,
            data,
        }) => {
            let mut error = json!({"code": code, "message": message});
            if let Some(data) = data {
                error["data"] = data;
            }
            json!({"jsonrpc": "2.0", "id": id, "error": error})
        }
    }
    .to_string()
    .into_bytes()
}

fn put_params(message: &mut Value, params: Value) {
    if !params.is_null() {
        message["params"] = params;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Message>, NotJsonRpc> {
        Message::read(text.as_bytes())
    }

    #[test]
    fn each_kind_of_message_is_read() {
        let request = |id: Value, params| Message::Request {
            id,
            method: "m".to_owned(),
            params,
        };
        let answer = |id: Value, outcome| Message::Answer { id, outcome };
        let table = [
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"a":1}}"#,
                vec![request(json!(1), json!({"a": 1}))],
            ),
            (
                r#"{"jsonrpc":"2.0","id":"x","method":"m"}"#,
                vec![request(json!("x"), Value::Null)],
            ),
            (
                r#"{"jsonrpc":"2.0","method":"m","params":[]}"#,
                vec![Message::Notification {
                    method: "m".to_owned(),
                    params: json!([]),
                }],
            ),
            (
                r#"{"jsonrpc":"2.0","id":7,"result":null}"#,
                vec![answer(json!(7), Ok(Value::Null))],
            ),
            (
                r#"{"jsonrpc":"2.0","id":null,"error":{"code":-1,"message":"no","data":[1]}}"#,
                vec![answer(
                    Value::Null,
                    Err(RpcError {
                        data: Some(json!([1])),
                        ..RpcError::new(-1, "no")
                    }),
                )],
            ),
            (
                r#"{"jsonrpc":"2.0","id":7,"result":1,"error":null}"#,
                vec![answer(json!(7), Ok(json!(1)))],
            ),
            (
                r#"{"jsonrpc":"2.0","id":7,"result":null,"error":null}"#,
                vec![answer(json!(7), Ok(Value::Null))],
            ),
            (
                r#"{"jsonrpc":"2.0","id":7,"result":null,"error":{"code":-3.0,"message":"no"}}"#,
                vec![answer(json!(7), Err(RpcError::new(-3, "no")))],
            ),
            (
                r#"[{"jsonrpc":"2.0","id":7,"result":0},{"jsonrpc":"2.0","id":1,"method":"m"}]"#,
                vec![
                    answer(json!(7), Ok(json!(0))),
                    request(json!(1), Value::Null),
                ],
            ),
        ];
        for (text, messages) in table {
            assert_eq!(read(text), Ok(messages), "{text}");
        }
    }

    #[test]
    fn what_is_no_json_rpc_is_said_with_its_beginning() {
        let table = [
            ("listening on port 80", "expected"),
            ("7", "no object"),
            ("[]", "empty"),
            ("[7]", "no object"),
            (r#"{"id":1,"method":"m"}"#, "jsonrpc"),
            (r#"{"jsonrpc":"1.0","id":1,"method":"m"}"#, "jsonrpc"),
            (r#"{"jsonrpc":"2.0"}"#, "neither"),
            (r#"{"jsonrpc":"2.0","id":1}"#, "no `method`, no `result`"),
            (r#"{"jsonrpc":"2.0","id":null,"method":"m"}"#, "null"),
            (r#"{"jsonrpc":"2.0","id":[],"method":"m"}"#, "`id`"),
            (r#"{"jsonrpc":"2.0","id":1,"method":7}"#, "`method`"),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"m","params":7}"#,
                "`params`",
            ),
            (r#"{"jsonrpc":"2.0","id":1,"result":1,"error":{}}"#, "both"),
            (r#"{"jsonrpc":"2.0","id":1,"error":7}"#, "`error`"),
            (r#"{"jsonrpc":"2.0","id":1,"error":null}"#, "`error`"),
            (
                r#"{"jsonrpc":"2.0","id":1,"error":{"code":1.5,"message":""}}"#,
                "`code`",
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"error":{"code":1}}"#,
                "`message`",
            ),
        ];
        for (text, why) in table {
            let said = read(text).expect_err(text).to_string();
            assert!(said.contains(why), "{text}: {said}");
            assert!(said.ends_with(&format!("{text:?}")), "{text}: {said}");
        }
        let deep = "[".repeat(100_000);
        let said = read(&deep).expect_err("too deep").to_string();
        assert!(said.len() < 400, "{said}");
    }

    #[test]
    fn a_number_is_whole_however_it_is_written() {
        let table = [
            ("7", Some(7)),
            ("7.0", Some(7)),
            ("70e-1", Some(7)),
            ("0.0", Some(0)),
            ("7.5", None),
            ("-1", None),
            ("-1.0", None),
            ("1e300", None),
            ("\"7\"", None),
            ("18446744073709551615", Some(u64::MAX)),
        ];
        for (text, whole) in table {
            let value = serde_json::from_str(text).expect("JSON");
            assert_eq!(whole_number(&value), whole, "{text}");
        }
    }

    #[test]
    fn what_was_written_is_read() {
        let written = [
            request(1, "m", json!({"a": 1})),
            request(2, "m", Value::Null),
            notification("m", json!([1])),
            answer(&json!("x"), Ok(json!(1))),
            answer(&json!(3), Err(RpcError::method_not_found("m"))),
        ];
        for text in written {
            let shown = String::from_utf8_lossy(&text).into_owned();
            assert!(!shown.contains("null"), "{shown}");
            let messages = Message::read(&text).expect("ours");
            let [message] = &messages[..] else {
                panic!("{messages:?}");
            };
            let again = match message.clone() {
                Message::Request { id, method, params } => {
                    request(id.as_u64().expect("ours"), &method, params)
                }
                Message::Notification { method, params } => notification(&method, params),
                Message::Answer { id, outcome } => answer(&id, outcome),
            };
            assert_eq!(String::from_utf8_lossy(&again), shown);
        }
    }
}
