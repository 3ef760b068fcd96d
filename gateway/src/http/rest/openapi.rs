//! The OpenAPI document of the public routes.

use serde_json::{Map, Value, json};

/// The document of these paths and schemas.
pub(super) fn document(paths: &Map<String, Value>, schemas: Value) -> Value {
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Parley",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "A chat gateway of many identical nodes. What is sent here takes the same path as over a socket; \
                the sockets are described in /asyncapi.json.",
            "license": { "name": "Apache 2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT" },
                "cookie": { "type": "apiKey", "in": "cookie", "name": "token" },
                "apiKey": {
                    "type": "apiKey", "in": "header", "name": "X-API-Key",
                    "description": "A backend. With X-User-Id it acts for that user.",
                },
            },
        },
    })
}
