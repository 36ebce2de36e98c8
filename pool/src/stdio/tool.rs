//! What a tool server says of its tools, and what they come to. Pure.

use serde_json::Value;

use super::error::SessionError;

/// A tool of a server's.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Tool {
    /// What it is called by.
    pub name: String,
    /// What people call it.
    pub title: Option<String>,
    /// What it does, in words for a model.
    pub description: Option<String>,
    /// What its arguments are: a JSON schema.
    pub input_schema: Value,
    /// What its structured results are: a JSON schema, if the server says so.
    pub output_schema: Option<Value>,
    /// Hints, such as that it changes nothing. Nobody vouches for them.
    pub annotations: Option<Value>,
    /// Whatever else the server says of it: `_meta`.
    pub meta: Option<Value>,
}

/// What a call of a tool came to.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ToolResult {
    /// Text, pictures, sound, links and resources, each an object with a `type`.
    pub content: Vec<Value>,
    /// The result as data, if the tool has an output schema.
    pub structured: Option<Value>,
    /// The tool has failed: the content says how, in words for a model.
    pub is_error: bool,
    /// Whatever else the server says of it: `_meta`.
    pub meta: Option<Value>,
}

impl ToolResult {
    /// Returns the texts of the content, one after the other, each with a line end behind it but the last.
    pub fn text(&self) -> String {
        let texts = self.content.iter().filter(|part| part["type"] == "text");
        let texts: Vec<_> = texts.filter_map(|part| part["text"].as_str()).collect();
        texts.join("\n")
    }
}

/// How far a call has come.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Progress {
    /// More each time.
    pub progress: f64,
    /// What it will be in the end, if that is known.
    pub total: Option<f64>,
    /// In words.
    pub message: Option<String>,
}

/// Takes an optional field out of an object.
fn take(value: &mut Value, name: &str) -> Option<Value> {
    value.as_object_mut()?.remove(name)
}

fn take_text(value: &mut Value, name: &str) -> Option<String> {
    match take(value, name) {
        Some(Value::String(text)) => Some(text),
        _ => None,
    }
}

impl Tool {
    pub(super) fn from_value(mut value: Value) -> Result<Self, SessionError> {
        let Some(name) = take_text(&mut value, "name") else {
            return unexpected("a tool has no `name`");
        };
        let Some(input_schema) = take(&mut value, "inputSchema").filter(Value::is_object) else {
            return unexpected(format!("the tool {name:?} has no `inputSchema`"));
        };
        Ok(Self {
            title: take_text(&mut value, "title"),
            description: take_text(&mut value, "description"),
            output_schema: take(&mut value, "outputSchema"),
            annotations: take(&mut value, "annotations"),
            meta: take(&mut value, "_meta"),
            name,
            input_schema,
        })
    }
}

impl ToolResult {
    pub(super) fn from_value(mut value: Value) -> Result<Self, SessionError> {
        let Some(Value::Array(content)) = take(&mut value, "content") else {
            return unexpected("the result of a tool has no `content`");
        };
        Ok(Self {
            content,
            structured: take(&mut value, "structuredContent"),
            is_error: value["isError"] == true,
            meta: take(&mut value, "_meta"),
        })
    }
}

impl Progress {
    pub(super) fn from_value(value: &Value) -> Option<Self> {
        Some(Self {
            progress: value["progress"].as_f64()?,
            total: value["total"].as_f64(),
            message: value["message"].as_str().map(str::to_owned),
        })
    }
}

/// What the protocol does not say.
pub(super) fn unexpected<T>(what: impl Into<String>) -> Result<T, SessionError> {
    Err(SessionError::Unexpected(what.into()))
}
