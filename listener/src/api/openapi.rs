//! The API's own description: OpenAPI 3.1, made of the types that it speaks.
//!
//! One table has the routes; schemas come from [`types`](super::types). It is checked in as
//! `docs/listen-api.json`, and a test says when that is not what the types say any more. Another one
//! asks a running API for every route.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::problem::Problem;
use super::types::{
    Applied, EventInfo, FetchRequest, Fetched, FilePage, FlowInfo, FlowList, Health,
    IntervalChange, ReplayRequest, Replayed, Validation,
};

/// A schema that a generator makes.
type Of = fn(&mut SchemaGenerator) -> Schema;

/// One route.
pub(super) struct Route {
    pub method: &'static str,
    pub path: &'static str,
    /// Its name for generators of clients.
    id: &'static str,
    summary: &'static str,
    /// Names behind the `?`, their types, and what they are.
    query: &'static [(&'static str, &'static str, &'static str)],
    body: Option<Of>,
    /// Statuses, what they mean, and what comes with them.
    answers: &'static [(u16, &'static str, Answer)],
    /// Whether it needs a token.
    pub token: bool,
}

#[derive(Clone, Copy)]
enum Answer {
    Json(Of),
    Text(&'static str),
    Events,
}

fn of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

const WAIT: [(&str, &str, &str); 2] = [
    (
        "wait",
        "boolean",
        "Whether the answer waits for the files. Default: true.",
    ),
    (
        "wait_seconds",
        "integer",
        "How long it may wait. Default: 60; at most 3600.",
    ),
];
const PAGE: [(&str, &str, &str); 2] = [
    ("cursor", "string", "What the page before gave as `cursor`."),
    (
        "max",
        "integer",
        "Files in a page, 1 to 1000. Default: 100.",
    ),
];

const fn route(
    method: &'static str,
    path: &'static str,
    id: &'static str,
    summary: &'static str,
) -> Route {
    Route {
        method,
        path,
        id,
        summary,
        query: &[],
        body: None,
        answers: &[],
        token: true,
    }
}

/// All routes.
pub(super) const ROUTES: &[Route] = &[
    Route {
        answers: &[(200, "It runs.", Answer::Json(of::<Health>))],
        token: false,
        ..route("get", "/healthz", "health", "Whether the daemon runs.")
    },
    Route {
        answers: &[(200, "It can.", Answer::Json(of::<Health>))],
        token: false,
        ..route(
            "get",
            "/readyz",
            "ready",
            "Whether the daemon can do its work: its ledger can be used.",
        )
    },
    Route {
        answers: &[(200, "The numbers.", Answer::Text("text/plain"))],
        ..route(
            "get",
            "/metrics",
            "metrics",
            "Numbers in Prometheus' text format.",
        )
    },
    Route {
        answers: &[(200, "This document.", Answer::Text("application/json"))],
        ..route("get", "/openapi.json", "document", "This document.")
    },
    Route {
        answers: &[(200, "All flows.", Answer::Json(of::<FlowList>))],
        ..route(
            "get",
            "/v1/flows",
            "listFlows",
            "All flows and how they do.",
        )
    },
    Route {
        answers: &[(200, "The flow.", Answer::Json(of::<FlowInfo>))],
        ..route(
            "get",
            "/v1/flows/{flow}",
            "getFlow",
            "One flow and how it does.",
        )
    },
    Route {
        query: &WAIT,
        answers: &[
            (
                200,
                "The source was looked at, and everything due was delivered or given up.",
                Answer::Json(of::<Applied>),
            ),
            (
                202,
                "It was begun, or is not complete when the wait was over.",
                Answer::Json(of::<Applied>),
            ),
        ],
        ..route(
            "post",
            "/v1/flows/{flow}/apply",
            "applyNow",
            "Looks at the source now and copies what is due.",
        )
    },
    Route {
        body: Some(of::<IntervalChange>),
        answers: &[(200, "The flow as it is now.", Answer::Json(of::<FlowInfo>))],
        ..route(
            "put",
            "/v1/flows/{flow}/interval",
            "setInterval",
            "How often the source is looked at, until the daemon starts anew.",
        )
    },
    Route {
        answers: &[(200, "The flow as it is now.", Answer::Json(of::<FlowInfo>))],
        ..route(
            "post",
            "/v1/flows/{flow}/pause",
            "pauseFlow",
            "Looks at nothing and begins nothing any more, also over a restart.",
        )
    },
    Route {
        answers: &[(200, "The flow as it is now.", Answer::Json(of::<FlowInfo>))],
        ..route(
            "post",
            "/v1/flows/{flow}/resume",
            "resumeFlow",
            "Goes on after a pause.",
        )
    },
    Route {
        query: &[
            (
                "path",
                "string",
                "This file alone, below the source's root.",
            ),
            (
                "path_hex",
                "string",
                "The same in hexadecimal digits, for names that are no UTF-8.",
            ),
            (
                "state",
                "string",
                "Files in this state: known, pending, claimed, committed, done, acted or dead.",
            ),
            ("cursor", "string", "What the page before gave as `cursor`."),
            (
                "max",
                "integer",
                "Files in a page, 1 to 1000. Default: 100.",
            ),
        ],
        answers: &[(
            200,
            "A page of files, or the one that was asked for.",
            Answer::Json(of::<FilePage>),
        )],
        ..route(
            "get",
            "/v1/flows/{flow}/files",
            "listFiles",
            "What the ledger knows of a file, or of all.",
        )
    },
    Route {
        query: &PAGE,
        answers: &[(200, "A page of files.", Answer::Json(of::<FilePage>))],
        ..route(
            "get",
            "/v1/flows/{flow}/dead",
            "listDead",
            "Files that were given up after too many attempts.",
        )
    },
    Route {
        body: Some(of::<ReplayRequest>),
        answers: &[(
            200,
            "How many are tried again.",
            Answer::Json(of::<Replayed>),
        )],
        ..route(
            "post",
            "/v1/flows/{flow}/replay",
            "replay",
            "Tries again what was given up: one file, or all.",
        )
    },
    Route {
        body: Some(of::<FetchRequest>),
        answers: &[
            (
                200,
                "All that matched is copied or given up.",
                Answer::Json(of::<Fetched>),
            ),
            (
                202,
                "Some were not done when the wait was over; they go on.",
                Answer::Json(of::<Fetched>),
            ),
        ],
        ..route(
            "post",
            "/v1/flows/{flow}/fetch",
            "fetch",
            "Copies all files that match, and answers with their names when that is done.",
        )
    },
    Route {
        answers: &[(
            200,
            "Whether it is valid, and if not, why.",
            Answer::Json(of::<Validation>),
        )],
        ..route(
            "post",
            "/v1/sources/{source}/validate",
            "validate",
            "Connects to a source and lists its root.",
        )
    },
    Route {
        query: &[
            ("flow", "string", "Events of this flow alone."),
            (
                "last_event_id",
                "string",
                "The same as the header Last-Event-ID: events behind this one.",
            ),
        ],
        answers: &[(
            200,
            "Server-Sent Events, the newest 1024 first. `missed` tells how many are lost to who was slow.",
            Answer::Events,
        )],
        ..route(
            "get",
            "/v1/events",
            "events",
            "What happens, as it happens.",
        )
    },
];

/// The document.
#[must_use]
pub fn document() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut generator = settings.into_generator();
    let mut paths = Map::new();
    for route in ROUTES {
        let operation = operation(route, &mut generator);
        let methods = paths.entry(route.path).or_insert_with(|| json!({}));
        if let Value::Object(methods) = methods {
            methods.insert(route.method.to_owned(), operation);
        }
    }
    let schemas = generator.take_definitions(true);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "ketch-listener",
            "description": "What the flows of a listener do, and what they are asked to do. GET needs a token that may read, all else one that may write.",
            "version": env!("CARGO_PKG_VERSION"),
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    })
}

fn operation(route: &Route, generator: &mut SchemaGenerator) -> Value {
    let mut parameters = Vec::new();
    let names = route
        .path
        .split('{')
        .skip(1)
        .filter_map(|rest| rest.split('}').next());
    parameters.extend(names.map(|name| {
        json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"},
               "description": format!("Name of the {name}.")})
    }));
    parameters.extend(route.query.iter().map(|(name, kind, what)| {
        json!({"name": name, "in": "query", "schema": {"type": kind}, "description": what})
    }));
    let mut responses = Map::new();
    for (status, what, answer) in route.answers {
        let (media, schema) = match answer {
            Answer::Json(of) => ("application/json", of(generator).to_value()),
            Answer::Text(media) => (*media, json!({})),
            // OpenAPI 3.1 has no word for a stream of them: the schema is that of each one's data.
            Answer::Events => ("text/event-stream", of::<EventInfo>(generator).to_value()),
        };
        let answer = json!({"description": what, "content": {media: {"schema": schema}}});
        responses.insert(status.to_string(), answer);
    }
    let problem = of::<Problem>(generator).to_value();
    let problem = json!({"description": "Why not.",
                         "content": {"application/problem+json": {"schema": problem}}});
    responses.insert("default".to_owned(), problem);
    let mut operation = json!({
        "operationId": route.id,
        "summary": route.summary,
        "parameters": parameters,
        "responses": responses,
        "security": if route.token { json!([{"token": []}]) } else { json!([]) },
    });
    if let (Some(body), Value::Object(operation)) = (route.body, &mut operation) {
        let schema = body(generator).to_value();
        let body = json!({"content": {"application/json": {"schema": schema}}});
        operation.insert("requestBody".to_owned(), body);
    }
    operation
}
