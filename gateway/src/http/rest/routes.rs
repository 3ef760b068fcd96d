//! The route table, and with it the OpenAPI document. Arguments and answers are taken from the handlers' signatures, so
//! the document can't differ from the code.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::handler::Handler;
use axum::http::header::CONTENT_TYPE;
use axum::routing::{MethodFilter, MethodRouter, on};
use serde_json::{Map, Value, json};

use super::Api;
use super::describe::{DescribedHandler, Operation, Schemas};
use crate::metrics::Metrics;

/// Where the documents are.
const OPENAPI_PATH: &str = "/openapi.json";
const ASYNCAPI_PATH: &str = "/asyncapi.json";

/// Routes, each with its place in the document.
pub(super) struct Routes {
    router: Router<Arc<Api>>,
    schemas: Schemas,
    paths: Map<String, Value>,
}

impl Routes {
    pub(super) fn new() -> Self {
        Self { router: Router::new(), schemas: Schemas::new(), paths: Map::new() }
    }

    pub(super) fn get<H, T, A>(self, path: &str, handler: H, summary: &str) -> Self
    where
        H: Handler<T, Arc<Api>> + DescribedHandler<A>,
        T: 'static,
    {
        self.add("get", MethodFilter::GET, path, handler, summary)
    }

    pub(super) fn post<H, T, A>(self, path: &str, handler: H, summary: &str) -> Self
    where
        H: Handler<T, Arc<Api>> + DescribedHandler<A>,
        T: 'static,
    {
        self.add("post", MethodFilter::POST, path, handler, summary)
    }

    pub(super) fn patch<H, T, A>(self, path: &str, handler: H, summary: &str) -> Self
    where
        H: Handler<T, Arc<Api>> + DescribedHandler<A>,
        T: 'static,
    {
        self.add("patch", MethodFilter::PATCH, path, handler, summary)
    }

    pub(super) fn delete<H, T, A>(self, path: &str, handler: H, summary: &str) -> Self
    where
        H: Handler<T, Arc<Api>> + DescribedHandler<A>,
        T: 'static,
    {
        self.add("delete", MethodFilter::DELETE, path, handler, summary)
    }

    /// The router, with the document of all its routes, and the one of the sockets. Each route's series begin in `metrics`.
    pub(super) fn finish(mut self, content_chars_max: usize, metrics: &Metrics) -> Router<Arc<Api>> {
        self.describe_document(OPENAPI_PATH, "This document");
        self.describe_document(ASYNCAPI_PATH, "The document of the sockets");
        self.count_from_zero(metrics);
        let openapi = super::openapi::document(&self.paths, self.schemas.components(content_chars_max));
        let asyncapi = super::asyncapi::document(content_chars_max);
        self.serve(OPENAPI_PATH, openapi.to_string()).serve(ASYNCAPI_PATH, asyncapi.to_string()).router
    }

    fn count_from_zero(&self, metrics: &Metrics) {
        for (path, methods) in &self.paths {
            for (method, operation) in methods.as_object().into_iter().flatten() {
                let answers = operation.get("responses").and_then(Value::as_object).into_iter().flatten();
                let good = answers.map(|(status, _)| status.as_str()).find(|status| status.starts_with('2'));
                metrics.route(path, method, good.unwrap_or("200"));
            }
        }
    }

    fn describe_document(&mut self, path: &str, summary: &str) {
        let mut operation = Operation::new(path);
        operation.answers(200, "The document.", Some(json!({ "type": "object" })));
        self.describe(path, "get", operation.into_json(path, summary));
    }

    /// Serves a text that was made once, for everybody.
    fn serve(self, path: &str, text: String) -> Self {
        let text = Bytes::from(text);
        self.route(path, on(MethodFilter::GET, async move || ([(CONTENT_TYPE, "application/json")], text.clone())))
    }

    fn add<H, T, A>(mut self, method: &str, filter: MethodFilter, path: &str, handler: H, summary: &str) -> Self
    where
        H: Handler<T, Arc<Api>> + DescribedHandler<A>,
        T: 'static,
    {
        let mut operation = Operation::new(path);
        H::describe(&mut operation, &mut self.schemas);
        self.describe(path, method, operation.into_json(std::any::type_name::<H>(), summary));
        self.route(path, on(filter, handler))
    }

    fn describe(&mut self, path: &str, method: &str, operation: Value) {
        let item = self.paths.entry(path.to_owned()).or_insert_with(|| json!({}));
        if let Some(item) = item.as_object_mut() {
            item.insert(method.to_owned(), operation);
        }
    }

    fn route(self, path: &str, methods: MethodRouter<Arc<Api>, Infallible>) -> Self {
        Self { router: self.router.route(path, methods), ..self }
    }
}
