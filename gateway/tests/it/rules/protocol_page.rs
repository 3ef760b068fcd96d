//! `shared/PROTOCOL.md` says what the code says: its frames, REST examples, codes, settings and lists, none missing.
//!
//! A block whose info string is `json client` or `json server` is a frame of `chat.v1`; `json listings client` and the
//! like are frames of a flat dialect, and `json flat server` is one of all three. A block `http` is a request; a block
//! `json answer 201` is an answer to the request before it.

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use gateway::config::SettingsArgs;
use serde_json::Value;
use shared::close::CloseCode;
use shared::dialect::Decoder;
use shared::event::ResyncReason;
use shared::{Dialect, ErrorCode, Event};

use crate::support::http::get;
use crate::support::node::Node;

const PAGE: &str = include_str!("../../../../shared/PROTOCOL.md");
const METHODS: [&str; 4] = ["GET", "POST", "PATCH", "DELETE"];

/// A fenced block of the page.
#[derive(Debug)]
struct Block {
    /// The words behind the fence.
    info: Vec<&'static str>,
    text: &'static str,
}

/// The page's blocks in order.
fn blocks() -> Vec<Block> {
    let fenced = PAGE.split("\n```").skip(1).step_by(2);
    let split = fenced.map(|block| block.split_once('\n').expect("a line of its own for the fence"));
    split.map(|(info, text)| Block { info: info.split_whitespace().collect(), text }).collect()
}

/// The text outside of blocks.
fn prose() -> String {
    PAGE.split("\n```").step_by(2).collect()
}

/// The words in backquotes outside of blocks.
fn quoted() -> BTreeSet<String> {
    prose().lines().flat_map(|line| line.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
}

/// The cells of the table rows whose first cell is as `wanted`, without backquotes.
fn rows(wanted: impl Fn(&str) -> bool) -> Vec<Vec<String>> {
    let text = prose();
    let lines = text.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    let cells = lines.map(|line| line.split(" | ").map(|cell| cell.replace('`', "")).collect::<Vec<_>>());
    cells.filter(|cells| cells.first().is_some_and(|first| wanted(first))).collect()
}

/// A JSON schema document, and what a value breaks in it.
struct Contract(Value);

impl Contract {
    async fn of(node: &Node, path: &str) -> Self {
        let (status, document) = get(node.http, path, &[]).await;
        assert_eq!(status, 200);
        Self(document)
    }

    fn resolve<'a>(&'a self, schema: &'a Value) -> &'a Value {
        match schema["$ref"].as_str() {
            Some(path) => self.0.pointer(path.trim_start_matches('#')).expect("a reference leads somewhere"),
            None => schema,
        }
    }

    fn parts<'a>(&self, schema: &'a Value) -> impl Iterator<Item = &'a Value> {
        ["allOf", "anyOf", "oneOf"].into_iter().flat_map(|name| schema[name].as_array().into_iter().flatten())
    }

    /// Whether the schema knows a field of this name.
    fn knows(&self, schema: &Value, name: &str) -> bool {
        let schema = self.resolve(schema);
        // A part that only says what is required opens nothing.
        let names_none = schema["properties"].is_null() && schema["required"].is_null();
        let is_open = names_none && self.parts(schema).next().is_none();
        schema["properties"].get(name).is_some()
            || schema.get("patternProperties").is_some()
            || schema.get("additionalProperties").map_or(is_open, |open| *open != false)
            || self.parts(schema).any(|part| self.knows(part, name))
    }

    /// Asserts that the value is as the schema says, and has no field that the schema doesn't know.
    fn check(&self, schema: &Value, value: &Value) -> Result<(), String> {
        self.check_fields(schema, value)?;
        for name in value.as_object().into_iter().flat_map(|fields| fields.keys()) {
            if !self.knows(schema, name) {
                return Err(format!("the schema has no field {name}"));
            }
        }
        Ok(())
    }

    fn check_fields(&self, schema: &Value, value: &Value) -> Result<(), String> {
        let target = self.resolve(schema);
        if !std::ptr::eq(target, schema) {
            self.check_fields(target, value)?;
        }
        if !is_of_type(&schema["type"], value) {
            return Err(format!("{value} is not of type {}", schema["type"]));
        }
        if schema.get("const").is_some_and(|constant| constant != value) {
            return Err(format!("{value} is not {}", schema["const"]));
        }
        if schema["enum"].as_array().is_some_and(|words| !words.contains(value)) {
            return Err(format!("{value} is none of {}", schema["enum"]));
        }
        let length = value.as_str().map(|text| text.chars().count() as u64);
        if length < schema["minLength"].as_u64().filter(|_| length.is_some())
            || length.is_some_and(|length| schema["maxLength"].as_u64().is_some_and(|most| length > most))
        {
            return Err(format!("{value} has a wrong length"));
        }
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if value.is_object() && value.get(name).is_none() {
                return Err(format!("the field {name} is missing"));
            }
        }
        for (name, field) in value.as_object().into_iter().flatten() {
            // One pattern stands for ids, and every name here is meant to be one.
            let others = schema["patternProperties"].as_object().and_then(|patterns| patterns.values().next());
            let others = others.unwrap_or(&schema["additionalProperties"]);
            let rule = schema["properties"].get(name).or(Some(others).filter(|rule| rule.is_object()));
            rule.map_or(Ok(()), |rule| self.check(rule, field)).map_err(|fault| format!("{name}: {fault}"))?;
        }
        for item in value.as_array().into_iter().flatten().filter(|_| schema["items"].is_object()) {
            self.check(&schema["items"], item)?;
        }
        for part in schema["allOf"].as_array().into_iter().flatten() {
            self.check_fields(part, value)?;
        }
        for name in ["anyOf", "oneOf"] {
            let Some(parts) = schema[name].as_array() else { continue };
            let fitting = parts.iter().filter(|part| self.check_fields(part, value).is_ok()).count();
            if fitting == 0 || (name == "oneOf" && fitting > 1) {
                return Err(format!("{fitting} of {} alternatives fit {value}", parts.len()));
            }
        }
        Ok(())
    }
}

/// Whether a value has the type, or one of the types, of a schema.
fn is_of_type(types: &Value, value: &Value) -> bool {
    let is = |name: &Value| match name.as_str() {
        Some("null") => value.is_null(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_u64() || value.is_i64(),
        Some("number") => value.is_number(),
        Some("string") => value.is_string(),
        Some("array") => value.is_array(),
        Some("object") => value.is_object(),
        _ => false,
    };
    match types {
        Value::Null => true,
        Value::Array(list) => list.iter().any(is),
        one => is(one),
    }
}

fn dialects(word: Option<&str>) -> Vec<Dialect> {
    match word {
        None => vec![Dialect::Chat],
        Some("flat") => vec![Dialect::Listings, Dialect::Social, Dialect::Channels],
        Some(name) => {
            let of_name = |dialect: &Dialect| dialect.subprotocol().strip_suffix(".v1") == Some(name);
            vec![Dialect::ALL.into_iter().find(of_name).unwrap_or_else(|| panic!("there is no dialect {name}"))]
        }
    }
}

/// The codec reads the event, and writes the same again.
fn assert_round_trip(frame: &Value) {
    // Events are read with their type in front.
    let text = format!(r#"{{"type":{},"payload":{}}}"#, frame["type"], frame["payload"]);
    let event: Event = serde_json::from_str(&text).unwrap_or_else(|fault| panic!("{frame}: {fault}"));
    let written: Value = serde_json::from_str(&event.to_json()).expect("JSON");
    assert_eq!(written["payload"], frame["payload"], "{}", frame["type"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_frame_is_the_codecs_and_none_is_missing() {
    let node = Node::embedded(&[]).await;
    let contract = Contract::of(&node, "/asyncapi.json").await;
    let messages = contract.0["components"]["messages"].as_object().expect("messages");
    let mut shown = BTreeSet::new();
    for Block { info, text } in blocks() {
        let (dialect, side) = match &*info {
            ["json", side @ ("client" | "server")] => (None, *side),
            ["json", dialect, side @ ("client" | "server")] => (Some(*dialect), *side),
            ["json", "answer", _] | ["http" | "mermaid" | "text"] => continue,
            _ => panic!("a block of an unknown kind: {info:?}"),
        };
        let frame: Value = serde_json::from_str(text).unwrap_or_else(|fault| panic!("{text}: {fault}"));
        let kind = frame["type"].as_str().expect("a type");
        for dialect in dialects(dialect) {
            let key = match dialect {
                Dialect::Chat => format!("{side}.{kind}"),
                flat => format!("{}.{side}.{kind}", flat.subprotocol()),
            };
            let message = messages.get(&key).unwrap_or_else(|| panic!("there is no frame {key}"));
            contract.check(&message["payload"], &frame).unwrap_or_else(|fault| panic!("{text}: {fault}"));
            if side == "client" {
                let read = Decoder::new(4000).decode_as(dialect, &mut text.as_bytes().to_vec()).command;
                read.unwrap_or_else(|fault| panic!("{text}: {fault}"));
            } else if dialect == Dialect::Chat {
                assert_round_trip(&frame);
            }
            shown.insert(key);
        }
    }
    let missing: Vec<_> = messages.keys().filter(|key| !shown.contains(*key)).collect();
    assert!(missing.is_empty(), "the page doesn't show {missing:#?}");
}

/// The operation that a request of the page calls, with its path as the document has it.
fn operation<'a>(document: &'a Value, method: &str, target: &str) -> &'a Value {
    let path = target.split('?').next().unwrap_or_default();
    let fits = |pattern: &str| {
        let (mut asked, mut known) = (path.split('/'), pattern.split('/'));
        let same = asked.by_ref().zip(known.by_ref()).all(|(asked, known)| known.starts_with('{') || asked == known);
        same && path.split('/').count() == pattern.split('/').count()
    };
    let paths = document["paths"].as_object().expect("paths");
    let mut found = paths.iter().filter(|(pattern, _)| fits(pattern)).map(|(_, item)| item);
    let operation = found.find_map(|item| item.get(method.to_lowercase()));
    let operation = operation.unwrap_or_else(|| panic!("there is no {method} {target}"));
    for (name, _) in form_urlencoded::parse(target.split('?').nth(1).unwrap_or_default().as_bytes()) {
        let mut parameters = operation["parameters"].as_array().into_iter().flatten();
        assert!(parameters.any(|one| one["name"] == *name && one["in"] == "query"), "{target}: {name}");
    }
    operation
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_rest_example_is_in_the_document_and_no_endpoint_is_missing() {
    let node = Node::embedded(&[]).await;
    let contract = Contract::of(&node, "/openapi.json").await;
    let json = |place: &Value| place["content"]["application/json"]["schema"].clone();
    let (mut asked, mut answers) = (&Value::Null, 0);
    for Block { info, text } in blocks() {
        match &*info {
            ["http"] => {
                let (head, body) = text.split_once("\n\n").unwrap_or((text, ""));
                let mut words = head.split_whitespace();
                let (method, target) = (words.next().expect("a method"), words.next().expect("a target"));
                asked = operation(&contract.0, method, target);
                if !body.is_empty() {
                    let body = serde_json::from_str(body).unwrap_or_else(|fault| panic!("{text}: {fault}"));
                    let checked = contract.check(&json(&asked["requestBody"]), &body);
                    checked.unwrap_or_else(|fault| panic!("{text}: {fault}"));
                }
            }
            ["json", "answer", status] => {
                let answer = serde_json::from_str(text).unwrap_or_else(|fault| panic!("{text}: {fault}"));
                let schema = asked["responses"].get(*status).unwrap_or_else(|| panic!("no answer {status}: {text}"));
                contract
                    .check(&json(contract.resolve(schema)), &answer)
                    .unwrap_or_else(|fault| panic!("{text}: {fault}"));
                answers += 1;
            }
            _ => {}
        }
    }
    assert!(answers >= 5, "the page shows {answers} answers");
    let operations = contract.0["paths"].as_object().expect("paths").iter().flat_map(|(path, item)| {
        item.as_object()
            .into_iter()
            .flat_map(|all| all.keys())
            .map(move |method| format!("{} {path}", method.to_uppercase()))
    });
    let is_endpoint = |text: &String| text.split_once(" /").is_some_and(|(method, _)| METHODS.contains(&method));
    assert_eq!(quoted().into_iter().filter(is_endpoint).collect::<BTreeSet<_>>(), operations.collect());
}

#[test]
fn every_code_is_on_the_page_with_its_meaning() {
    let is_number = |text: &str| text.len() == 4 && text.bytes().all(|byte| byte.is_ascii_digit());
    let shown: BTreeMap<String, String> =
        rows(is_number).into_iter().map(|row| (row[0].clone(), row[1].clone())).collect();
    let known = CloseCode::ALL.iter().map(|code| (code.code().to_string(), code.reason().to_owned()));
    assert_eq!(shown, known.collect());

    let is_code = |text: &str| ErrorCode::ALL.iter().any(|code| code.as_str() == text);
    let shown: BTreeSet<Vec<String>> = rows(is_code).into_iter().map(|row| row[..3].to_vec()).collect();
    let again = |code: &ErrorCode| if code.is_retryable() { "yes" } else { "no" };
    let known = ErrorCode::ALL
        .iter()
        .map(|code| vec![code.as_str().into(), code.http_status().to_string(), again(code).into()]);
    assert_eq!(shown, known.collect());

    let quoted = quoted();
    for word in ResyncReason::ALL.iter().map(|reason| reason.as_str()) {
        assert!(quoted.contains(word), "the page doesn't name the reason {word}");
    }
    for dialect in Dialect::ALL {
        let row = rows(|first| first == dialect.subprotocol());
        assert_eq!(row.first().and_then(|row| row.get(1)).map(String::as_str), Some(dialect.path()));
    }
}

#[test]
fn every_setting_on_the_page_exists_and_has_this_default() {
    let settings = SettingsArgs::augment_args(clap::Command::new("settings"));
    let help = |name: &str| {
        let found = settings.get_arguments().find(|one| one.get_env().is_some_and(|env| env == name));
        found.and_then(|one| one.get_help()).map(ToString::to_string)
    };
    let is_upper = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    let is_name =
        |text: &str| text.len() > 2 && text.bytes().all(is_upper) && text.starts_with(|c: char| c.is_ascii_uppercase());
    let is_code = |text: &str| ErrorCode::ALL.iter().any(|code| code.as_str() == text);
    let quoted = quoted();
    let words = quoted.iter().map(|text| text.split('=').next().unwrap_or_default());
    for name in words.filter(|name| is_name(name) && !is_code(name) && !METHODS.contains(name)) {
        assert!(help(name).is_some(), "there is neither a setting nor a code {name}");
    }
    let table = rows(|first| help(first).is_some());
    assert!(table.len() >= 15, "the page has {} settings in its table", table.len());
    for row in table {
        let help = help(&row[0]).expect("a setting");
        let default = help.rsplit_once(" [").and_then(|(_, end)| end.strip_suffix(']')).unwrap_or("none");
        assert_eq!(default, row[1], "{}", row[0]);
    }
}

#[test]
fn a_value_beside_its_schema_is_noticed() {
    let contract = Contract(serde_json::json!({
        "id": { "type": "string", "minLength": 1 },
        "frame": {
            "type": "object", "required": ["type"],
            "properties": { "type": { "const": "x" }, "id": { "$ref": "#/id" }, "list": { "items": { "$ref": "#/id" } } },
            "oneOf": [{ "required": ["id"] }, { "required": ["list"] }],
        },
    }));
    let holds = |text: &str| {
        let value = serde_json::from_str(text).expect("JSON");
        contract.check(&serde_json::json!({ "$ref": "#/frame" }), &value).is_ok()
    };
    assert!(holds(r#"{"type":"x","id":"a"}"#) && holds(r#"{"type":"x","list":["a"]}"#));
    for wrong in [
        r#"{"id":"a"}"#,
        r#"{"type":"y","id":"a"}"#,
        r#"{"type":"x","id":7}"#,
        r#"{"type":"x","id":""}"#,
        r#"{"type":"x","id":"a","more":1}"#,
        r#"{"type":"x"}"#,
        r#"{"type":"x","id":"a","list":[]}"#,
        r#"{"type":"x","list":[7]}"#,
        r#"["x"]"#,
    ] {
        assert!(!holds(wrong), "{wrong}");
    }
}
