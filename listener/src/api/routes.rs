//! One function for each route, and what all of them have in common: token, body, time.
//!
//! What is asked for by GET needs the scope to read, all else the one to write.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, Request, State};
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use ketch_client::RemotePath;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::problem::Problem;
use super::stream::{Position, stream};
use super::token::{ApiToken, Scope, scope_of};
use super::types::{
    FetchRequest, FileInfo, FilePage, FlowInfo, FlowList, Health, Interval, IntervalChange,
    ReplayRequest, Replayed, Time, Validation,
};
use super::{FlowControl, Flows, PAGE_MAX, Refusal, WAIT, WAIT_MAX, metrics, openapi};
use crate::detect::Pace;
use crate::store;

/// Bytes of a request's body.
pub(super) const BODY_MAX: usize = 64 * 1024;
/// For a request's body to come.
const BODY_TIME_MAX: Duration = Duration::from_secs(10);
/// For an answer that waits for no file.
const TIME_MAX: Duration = Duration::from_secs(30);
/// Who listens to events at a time.
pub(super) const STREAMS_MAX: usize = 32;
/// Requests that wait for files at a time.
pub(super) const WAITING_MAX: usize = 32;
/// Files in a page unless said otherwise.
const PAGE: usize = 100;

#[derive(Debug)]
struct Shared {
    flows: Arc<dyn Flows>,
    tokens: Vec<ApiToken>,
    /// Tells this start of the daemon from others, in ids of events.
    run: u64,
    streams: Arc<Semaphore>,
    waiting: Semaphore,
}

type Context = State<Arc<Shared>>;
type Answered<T> = Result<T, Problem>;

pub(super) fn router(flows: Arc<dyn Flows>, tokens: Vec<ApiToken>) -> Router {
    let shared = Arc::new(Shared {
        flows,
        tokens,
        run: run(),
        streams: Arc::new(Semaphore::new(STREAMS_MAX)),
        waiting: Semaphore::new(WAITING_MAX),
    });
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(numbers))
        .route("/openapi.json", get(document))
        .route("/v1/flows", get(list))
        .route("/v1/flows/{flow}", get(flow))
        .route("/v1/flows/{flow}/apply", post(apply))
        .route("/v1/flows/{flow}/interval", put(interval))
        .route("/v1/flows/{flow}/pause", post(pause))
        .route("/v1/flows/{flow}/resume", post(resume))
        .route("/v1/flows/{flow}/files", get(files))
        .route("/v1/flows/{flow}/dead", get(dead))
        .route("/v1/flows/{flow}/replay", post(replay))
        .route("/v1/flows/{flow}/fetch", post(fetch))
        .route("/v1/sources/{source}/validate", post(validate))
        .route("/v1/events", get(events))
        .fallback(async || Problem::new(StatusCode::NOT_FOUND, "there is no such route"))
        .method_not_allowed_fallback(async || {
            let detail = "this route has another method";
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail)
        })
        .layer(from_fn_with_state(Arc::clone(&shared), guard))
        .with_state(shared)
}

/// What comes before every route: who asks, what with, and for how long.
async fn guard(State(shared): Context, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    if !(reads && matches!(path, "/healthz" | "/readyz")) {
        let needed = if reads { Scope::Read } else { Scope::Write };
        let presented = request
            .headers()
            .get(AUTHORIZATION)
            .map(HeaderValue::as_bytes);
        let presented = presented.and_then(bearer);
        match presented.and_then(|token| scope_of(&shared.tokens, token)) {
            Some(scope) if scope >= needed => {}
            Some(_) => {
                let detail = "this token is good for reading only";
                return Problem::new(StatusCode::FORBIDDEN, detail).into_response();
            }
            None => {
                let detail = "this needs a token: Authorization: Bearer …";
                return Problem::new(StatusCode::UNAUTHORIZED, detail).into_response();
            }
        }
    }
    let waits = path.ends_with("/apply") || path.ends_with("/fetch");
    let time_max = if waits { WAIT_MAX + TIME_MAX } else { TIME_MAX };
    let request = match with_body(request).await {
        Ok(request) => request,
        Err(problem) => return problem.into_response(),
    };
    let mut response = match timeout(time_max, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::new(StatusCode::GATEWAY_TIMEOUT, "that took too long").into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The token of `Authorization: Bearer …` (RFC 6750 §2.1); the scheme's name has no case.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    scheme
        .eq_ignore_ascii_case(b"bearer ")
        .then(|| token.trim_ascii())
}

/// The same request with its body read whole.
async fn with_body(request: Request) -> Answered<Request> {
    let (parts, body) = request.into_parts();
    let length = parts
        .headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok());
    let length = length.and_then(|length| length.parse().ok());
    let too_large = || Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "the body is too long");
    if length.is_some_and(|length: usize| length > BODY_MAX) {
        return Err(too_large());
    }
    match timeout(BODY_TIME_MAX, to_bytes(body, BODY_MAX)).await {
        Ok(Ok(body)) => Ok(Request::from_parts(parts, Body::from(body))),
        Ok(Err(_)) => Err(too_large()),
        Err(_) => Err(Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "the body did not come",
        )),
    }
}

/// A body as JSON; none is an empty object.
fn json<T: DeserializeOwned>(body: &Bytes) -> Answered<T> {
    let body = body.trim_ascii();
    let body = if body.is_empty() { b"{}" } else { body };
    // A list of values in the order of the fields would be taken, too.
    if !body.starts_with(b"{") {
        return Err(Problem::bad("the body is a JSON object"));
    }
    serde_json::from_slice(body).map_err(|error| Problem::bad(format!("the body: {error}")))
}

/// What stands behind the `?`.
fn query<T>(query: Result<Query<T>, QueryRejection>) -> Answered<T> {
    match query {
        Ok(Query(query)) => Ok(query),
        Err(rejection) => Err(Problem::bad(rejection.body_text())),
    }
}

fn name(path: Result<Path<String>, PathRejection>) -> Answered<String> {
    match path {
        Ok(Path(name)) => Ok(name),
        Err(rejection) => Err(Problem::bad(rejection.body_text())),
    }
}

impl Shared {
    fn flow(&self, path: Result<Path<String>, PathRejection>) -> Answered<Arc<dyn FlowControl>> {
        let name = name(path)?;
        let missing = || Refusal::NotFound {
            what: format!("flow {name:?}"),
        };
        Ok(self.flows.flow(&name).ok_or_else(missing)?)
    }
}

/// How a flow does; a ledger that cannot be asked is no reason not to tell the rest.
async fn info(flow: &dyn FlowControl) -> FlowInfo {
    FlowInfo {
        name: flow.name().to_owned(),
        source: flow.source().to_owned(),
        sinks: flow.sinks(),
        interval: Interval(flow.pace()),
        schedule: flow.schedule(),
        next_look: flow.next_look().and_then(|at| {
            let at = jiff::Timestamp::from_second(i64::try_from(at).ok()?);
            at.ok().map(Time)
        }),
        paused: flow.is_paused(),
        raised: flow.raised(),
        down: flow.down(),
        settling: flow.settling(),
        restarts: flow.restarts(),
        oldest_pending_s: flow
            .oldest_pending()
            .await
            .ok()
            .flatten()
            .map(|oldest| oldest.as_secs()),
        files: flow.counts().await.ok().map(Into::into),
    }
}

async fn healthz() -> Json<Health> {
    let status = "ok".to_owned();
    Json(Health { status })
}

async fn readyz(State(shared): Context) -> Answered<Json<Health>> {
    shared.flows.ready().await?;
    Ok(healthz().await)
}

async fn numbers(State(shared): Context) -> Response {
    let text = metrics::render(&*shared.flows).await;
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(CONTENT_TYPE, kind)], text).into_response()
}

async fn document() -> Json<serde_json::Value> {
    Json(openapi::document())
}

async fn list(State(shared): Context) -> Json<FlowList> {
    let mut flows = Vec::new();
    for flow in shared.flows.list() {
        flows.push(info(&*flow).await);
    }
    Json(FlowList { flows })
}

async fn flow(
    State(shared): Context,
    path: Result<Path<String>, PathRejection>,
) -> Answered<Json<FlowInfo>> {
    Ok(Json(info(&*shared.flow(path)?).await))
}

/// How long to wait, if at all.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wait {
    wait: Option<bool>,
    wait_seconds: Option<u64>,
}

fn wait(seconds: Option<u64>) -> Answered<Duration> {
    let wait = seconds.map_or(WAIT, Duration::from_secs);
    if wait > WAIT_MAX {
        return Err(Problem::bad(format!(
            "it can be waited for {} s at most",
            WAIT_MAX.as_secs()
        )));
    }
    Ok(wait)
}

/// What has to wait for files until it can be answered: a few at a time.
async fn waiting<T>(
    shared: &Shared,
    work: impl Future<Output = Result<T, Refusal>>,
) -> Answered<T> {
    let Ok(_place) = shared.waiting.try_acquire() else {
        let detail = "too many requests wait for files";
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail));
    };
    Ok(work.await?)
}

async fn apply(
    State(shared): Context,
    path: Result<Path<String>, PathRejection>,
    asked: Result<Query<Wait>, QueryRejection>,
) -> Answered<Response> {
    let flow = shared.flow(path)?;
    let Wait {
        wait: waits,
        wait_seconds,
    } = query(asked)?;
    let time = waits
        .unwrap_or(true)
        .then(|| wait(wait_seconds))
        .transpose()?;
    let applied = waiting(&shared, flow.apply(time)).await?;
    let status = if applied.complete {
        StatusCode::OK
    } else {
        StatusCode::ACCEPTED
    };
    Ok((status, Json(applied)).into_response())
}

async fn interval(
    State(shared): Context,
    path: Result<Path<String>, PathRejection>,
    body: Bytes,
) -> Answered<Json<FlowInfo>> {
    let flow = shared.flow(path)?;
    let IntervalChange {
        interval: Interval(pace),
    } = json(&body)?;
    if pace == Pace::Scheduled && flow.schedule().is_none() {
        let why = "the flow has no schedule; its configuration may give it one";
        return Err(Refusal::Bad(why.to_owned()).into());
    }
    flow.set_pace(pace);
    Ok(Json(info(&*flow).await))
}

async fn pause(
    State(shared): Context,
    path: Result<Path<String>, PathRejection>,
) -> Answered<Json<FlowInfo>> {
    set_paused(&*shared.flow(path)?, true).await
}

async fn resume(
    State(shared): Context,
    path: Result<Path<String>, PathRejection>,
) -> Answered<Json<FlowInfo>> {
    set_paused(&*shared.flow(path)?, false).await
}

async fn set_paused(flow: &dyn FlowControl, paused: bool) -> Answered<Json<FlowInfo>> {
    flow.set_paused(paused).await?;
    Ok(Json(info(flow).await))
}

/// Which files.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Files {
    path: Option<String>,
    path_hex: Option<String>,
    state: Option<String>,
    cursor: Option<String>,
    max: Option<usize>,
}

async fn files(
    State(shared): Context,
    path: Result<Path<String>, PathRejection>,
    asked: Result<Query<Files>, QueryRejection>,
) -> Answered<Json<FilePage>> {
    let flow = shared.flow(path)?;
    let asked = query(asked)?;
    if let Some(path) = one_path(asked.path.as_deref(), asked.path_hex.as_deref())? {
        let missing = || Refusal::NotFound {
            what: format!("file {path} in flow {}", flow.name()),
        };
        let row = flow.file(&path).await?.ok_or_else(missing)?;
        return Ok(Json(FilePage {
            files: vec![FileInfo::from(&row)],
            cursor: None,
        }));
    }
    let state = match &asked.state {
        Some(word) => Some(state(word)?),
        None => None,
    };
    page(&*flow, state, &asked).await
}

async fn dead(
    State(shared): Context,
    path: Result<Path<String>, PathRejection>,
    asked: Result<Query<Files>, QueryRejection>,
) -> Answered<Json<FilePage>> {
    let flow = shared.flow(path)?;
    page(&*flow, Some(store::State::Dead), &query(asked)?).await
}

fn state(word: &str) -> Answered<store::State> {
    let known = store::State::ALL
        .into_iter()
        .find(|state| state.word() == word);
    known.ok_or_else(|| Problem::bad(format!("there is no state {word:?}")))
}

async fn page(
    flow: &dyn FlowControl,
    state: Option<store::State>,
    asked: &Files,
) -> Answered<Json<FilePage>> {
    let max = asked.max.unwrap_or(PAGE);
    if !(1..=PAGE_MAX).contains(&max) {
        return Err(Problem::bad(format!("a page has 1 to {PAGE_MAX} files")));
    }
    let after = asked.cursor.as_deref().map(path_of_hex).transpose()?;
    let rows = flow.files(state, after.as_ref(), max).await?;
    let last = rows.last().filter(|_| rows.len() >= max);
    let cursor = last.map(|row| crate::sink::event::hex(row.item.path.as_bytes()));
    let files = rows.iter().map(FileInfo::from).collect();
    Ok(Json(FilePage { files, cursor }))
}

fn one_path(text: Option<&str>, hex: Option<&str>) -> Answered<Option<RemotePath>> {
    match (text, hex) {
        (Some(text), None) => Ok(Some(RemotePath::from(text))),
        (None, Some(hex)) => path_of_hex(hex).map(Some),
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(Problem::bad("either a path or a path_hex, not both")),
    }
}

fn path_of_hex(hex: &str) -> Answered<RemotePath> {
    let bytes: Option<Vec<u8>> = hex
        .as_bytes()
        .chunks(2)
        .map(|pair| {
            let digit = |place| {
                pair.get(place)
                    .and_then(|&digit| char::from(digit).to_digit(16))
            };
            u8::try_from(digit(0)? * 16 + digit(1)?).ok()
        })
        .collect();
    let bytes = bytes.ok_or_else(|| Problem::bad("a path in hexadecimal digits has two a byte"))?;
    Ok(RemotePath::from(bytes))
}

async fn replay(
    State(shared): Context,
    path: Result<Path<String>, PathRejection>,
    body: Bytes,
) -> Answered<Json<Replayed>> {
    let flow = shared.flow(path)?;
    let asked: ReplayRequest = json(&body)?;
    let path = one_path(asked.path.as_deref(), asked.path_hex.as_deref())?;
    let replayed = flow.replay(path.as_ref()).await?;
    Ok(Json(Replayed { replayed }))
}

async fn fetch(
    State(shared): Context,
    path: Result<Path<String>, PathRejection>,
    body: Bytes,
) -> Answered<Response> {
    let flow = shared.flow(path)?;
    let asked: FetchRequest = json(&body)?;
    let time = wait(asked.wait_seconds)?;
    let fetched = waiting(&shared, flow.fetch(&asked, time)).await?;
    let over = fetched.waiting.is_empty();
    let status = if over {
        StatusCode::OK
    } else {
        StatusCode::ACCEPTED
    };
    Ok((status, Json(fetched)).into_response())
}

async fn validate(
    State(shared): Context,
    path: Result<Path<String>, PathRejection>,
) -> Answered<Json<Validation>> {
    let (status, valid) = match shared.flows.validate(&name(path)?).await {
        Ok(()) => ("Connection Valid".to_owned(), true),
        Err(refusal @ Refusal::NotFound { .. }) => return Err(refusal.into()),
        Err(refusal) => (refusal.to_string(), false),
    };
    Ok(Json(Validation { status, valid }))
}

/// From where on, and of whom.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Listen {
    flow: Option<String>,
    last_event_id: Option<String>,
}

async fn events(
    State(shared): Context,
    headers: HeaderMap,
    asked: Result<Query<Listen>, QueryRejection>,
) -> Answered<Response> {
    let Listen {
        flow,
        last_event_id,
    } = query(asked)?;
    if let Some(name) = &flow {
        let missing = || Refusal::NotFound {
            what: format!("flow {name:?}"),
        };
        shared.flows.flow(name).ok_or_else(missing)?;
    }
    let Ok(place) = Arc::clone(&shared.streams).try_acquire_owned() else {
        let detail = "too many listen to events";
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail));
    };
    let last = headers
        .get("last-event-id")
        .and_then(|value| value.to_str().ok());
    let position = Position::after(shared.run, last.or(last_event_id.as_deref()));
    Ok(stream(shared.flows.events(), flow, position, place).into_response())
}

#[expect(
    clippy::disallowed_methods,
    reason = "numbers of events begin anew with every start, and this tells the starts apart"
)]
fn run() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    u64::try_from(now.unwrap_or_default().as_millis()).unwrap_or(0)
}
