//! Derives an operation of the OpenAPI document from a handler's arguments and answer.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};
use shared::{ErrorCode, UserId};

use super::body::{Body, Params, Segment};
use super::caller::Caller;
use super::failure::{ErrorAnswer, Failure};

/// An operation in the making.
pub(super) struct Operation {
    /// The names in the path, in order.
    segments: Vec<String>,
    parameters: Vec<Value>,
    body: Option<Value>,
    answers: Map<String, Value>,
    takes_caller: bool,
}

impl Operation {
    pub(super) fn new(path: &str) -> Self {
        let segments = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).map(str::to_owned);
        Self {
            segments: segments.collect(),
            parameters: Vec::new(),
            body: None,
            answers: Map::new(),
            takes_caller: false,
        }
    }

    pub(super) fn parameter(&mut self, place: &str, name: &str, required: bool, schema: Value) {
        self.parameters.push(json!({ "name": name, "in": place, "required": required, "schema": schema }));
    }

    pub(super) fn body(&mut self, required: bool, schema: Value) {
        self.body = Some(json!({ "required": required, "content": { "application/json": { "schema": schema } } }));
    }

    pub(super) fn answers(&mut self, status: u16, description: &str, schema: Option<Value>) {
        let mut answer = json!({ "description": description });
        if let (Some(answer), Some(schema)) = (answer.as_object_mut(), schema) {
            answer.insert("content".into(), json!({ "application/json": { "schema": schema } }));
        }
        self.answers.insert(status.to_string(), answer);
    }

    /// An answer that isn't JSON.
    pub(super) fn answers_in(&mut self, status: u16, description: &str, media: &str) {
        let answer = json!({ "description": description, "content": { media: {} } });
        self.answers.insert(status.to_string(), answer);
    }

    /// An answer that is described already has this form as well.
    pub(super) fn answers_also_in(&mut self, status: u16, media: &str) {
        let content = self.answers.get_mut(&status.to_string()).and_then(|answer| answer.get_mut("content"));
        if let Some(content) = content.and_then(Value::as_object_mut) {
            content.insert(media.to_owned(), json!({ "schema": { "type": "string" } }));
        }
    }

    /// The operation as it stands in the document; `handler` is the path of its function.
    pub(super) fn into_json(self, handler: &str, summary: &str) -> Value {
        let mut operation = Map::new();
        let id = handler.rsplit("::").take(2).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join(".");
        operation.insert("operationId".into(), id.trim_start_matches('/').into());
        operation.insert("summary".into(), summary.into());
        operation.insert("parameters".into(), self.parameters.into());
        if let Some(body) = self.body {
            operation.insert("requestBody".into(), body);
        }
        operation.insert("responses".into(), self.answers.into());
        let security =
            if self.takes_caller { json!([{ "bearer": [] }, { "cookie": [] }, { "apiKey": [] }]) } else { json!([]) };
        operation.insert("security".into(), security);
        operation.into()
    }
}

/// The schemas of all named types, for requests and for answers.
pub(super) struct Schemas {
    inputs: SchemaGenerator,
    answers: SchemaGenerator,
}

impl Schemas {
    pub(super) fn new() -> Self {
        let settings = || {
            SchemaSettings::draft2020_12().with(|settings| {
                settings.definitions_path = "/components/schemas".into();
                settings.meta_schema = None;
            })
        };
        Self {
            inputs: settings().for_deserialize().into_generator(),
            answers: settings().for_serialize().into_generator(),
        }
    }

    pub(super) fn input<T: JsonSchema>(&mut self) -> Value {
        self.input_of(SchemaGenerator::subschema_for::<T>)
    }

    pub(super) fn answer<T: JsonSchema>(&mut self) -> Value {
        self.answer_of(SchemaGenerator::subschema_for::<T>)
    }

    /// The schema of what comes in, as `schema` makes it.
    pub(super) fn input_of(&mut self, schema: fn(&mut SchemaGenerator) -> Schema) -> Value {
        schema(&mut self.inputs).to_value()
    }

    /// The schema of what goes out, as `schema` makes it.
    pub(super) fn answer_of(&mut self, schema: fn(&mut SchemaGenerator) -> Schema) -> Value {
        schema(&mut self.answers).to_value()
    }

    /// Everything that was named, with the node's limit for content.
    pub(super) fn components(&mut self, content_chars_max: usize) -> Value {
        let mut all = self.answers.take_definitions(true);
        for (name, schema) in self.inputs.take_definitions(true) {
            // One name has one schema, so requests and answers under that name must have the same form.
            debug_assert!(all.get(&name).is_none_or(|known| *known == schema), "{name} means two things");
            all.insert(name, schema);
        }
        let content = all.get_mut("Content").and_then(Value::as_object_mut);
        if let Some(content) = content {
            content.insert("maxLength".into(), content_chars_max.into());
        }
        all.into()
    }

    /// The definition behind a reference, or the schema itself.
    fn resolve_input(&self, schema: &Value) -> Value {
        let name = schema.get("$ref").and_then(Value::as_str).and_then(|path| path.rsplit('/').next());
        name.and_then(|name| self.inputs.definitions().get(name)).unwrap_or(schema).clone()
    }
}

/// A handler's argument, described.
pub(super) trait Input {
    fn describe(operation: &mut Operation, schemas: &mut Schemas);
}

impl<S> Input for State<S> {
    fn describe(_: &mut Operation, _: &mut Schemas) {}
}

impl Input for HeaderMap {
    fn describe(_: &mut Operation, _: &mut Schemas) {}
}

impl Input for Caller {
    fn describe(operation: &mut Operation, schemas: &mut Schemas) {
        operation.takes_caller = true;
        operation.parameter("header", "X-User-Id", false, schemas.input::<UserId>());
    }
}

impl<T: JsonSchema> Input for Body<T> {
    fn describe(operation: &mut Operation, schemas: &mut Schemas) {
        let schema = schemas.input::<T>();
        // An absent body counts as `{}`.
        let fields = schemas.resolve_input(&schema);
        let required = ["required", "oneOf"].iter().any(|word| fields.get(word).is_some());
        operation.body(required, schema);
    }
}

impl<T: JsonSchema> Input for Params<T> {
    fn describe(operation: &mut Operation, schemas: &mut Schemas) {
        let schema = schemas.input::<T>();
        let schema = schemas.resolve_input(&schema);
        let required = schema.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
        for (name, field) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            let is_required = required.iter().any(|required| required == name);
            operation.parameter("query", name, is_required, without_null(field));
        }
    }
}

impl<T: JsonSchema> Input for Segment<T> {
    fn describe(operation: &mut Operation, schemas: &mut Schemas) {
        let schema = schemas.input::<T>();
        let parts = match schema.get("prefixItems").and_then(Value::as_array) {
            Some(parts) => parts.clone(),
            None => vec![schema],
        };
        for (name, part) in operation.segments.clone().iter().zip(parts) {
            operation.parameter("path", name, true, part);
        }
    }
}

/// A query has no null: a value is there or not.
fn without_null(schema: &Value) -> Value {
    let mut schema = schema.clone();
    let Some(fields) = schema.as_object_mut() else { return schema };
    fields.remove("default");
    if let Some(types) = fields.get_mut("type")
        && let Some(list) = types.as_array_mut()
    {
        list.retain(|name| name != "null");
        if let [one] = list.as_slice() {
            *types = one.clone();
        }
    }
    if let Some(any) = fields.get("anyOf").and_then(Value::as_array) {
        let mut rest = any.iter().filter(|part| part.get("type") != Some(&json!("null")));
        if let (Some(one), None) = (rest.next(), rest.next()) {
            return one.clone();
        }
    }
    schema
}

/// A handler's answer, described.
pub(super) trait Answer {
    fn describe(operation: &mut Operation, schemas: &mut Schemas);
}

impl<T: JsonSchema> Answer for Json<T> {
    fn describe(operation: &mut Operation, schemas: &mut Schemas) {
        operation.answers(200, "Done.", Some(schemas.answer::<T>()));
    }
}

/// 201 with what was made.
pub(super) struct Created<T>(pub(super) T);

impl<T: serde::Serialize> IntoResponse for Created<T> {
    fn into_response(self) -> Response {
        (StatusCode::CREATED, Json(self.0)).into_response()
    }
}

impl<T: JsonSchema> Answer for Created<T> {
    fn describe(operation: &mut Operation, schemas: &mut Schemas) {
        operation.answers(201, "Made.", Some(schemas.answer::<T>()));
    }
}

/// 202: accepted, not carried out yet.
pub(super) struct Accepted;

impl IntoResponse for Accepted {
    fn into_response(self) -> Response {
        StatusCode::ACCEPTED.into_response()
    }
}

impl Answer for Accepted {
    fn describe(operation: &mut Operation, _: &mut Schemas) {
        operation.answers(202, "On its way.", None);
    }
}

/// 204: done, and there is nothing to say about it.
pub(super) struct NoContent;

impl IntoResponse for NoContent {
    fn into_response(self) -> Response {
        StatusCode::NO_CONTENT.into_response()
    }
}

impl Answer for NoContent {
    fn describe(operation: &mut Operation, _: &mut Schemas) {
        operation.answers(204, "Done.", None);
    }
}

impl<T: Answer> Answer for Result<T, Failure> {
    fn describe(operation: &mut Operation, schemas: &mut Schemas) {
        T::describe(operation, schemas);
        let schema = schemas.answer::<ErrorAnswer>();
        for code in ErrorCode::ALL {
            let status = code.http_status();
            if !operation.answers.contains_key(&status.to_string()) {
                let codes = ErrorCode::ALL.iter().filter(|other| other.http_status() == status);
                let codes: Vec<&str> = codes.map(|code| code.as_str()).collect();
                operation.answers(status, &codes.join(", "), Some(schema.clone()));
            }
        }
    }
}

/// A handler whose arguments and answer describe it.
pub(super) trait DescribedHandler<A> {
    fn describe(operation: &mut Operation, schemas: &mut Schemas);
}

macro_rules! documented {
    ($($argument:ident),+) => {
        impl<F, Fut, R, $($argument),+> DescribedHandler<($($argument,)+)> for F
        where
            F: Fn($($argument),+) -> Fut,
            Fut: Future<Output = R>,
            R: Answer,
            $($argument: Input),+
        {
            fn describe(operation: &mut Operation, schemas: &mut Schemas) {
                $($argument::describe(operation, schemas);)+
                R::describe(operation, schemas);
            }
        }
    };
}

documented!(A1);
documented!(A1, A2);
documented!(A1, A2, A3);
documented!(A1, A2, A3, A4);
documented!(A1, A2, A3, A4, A5);
