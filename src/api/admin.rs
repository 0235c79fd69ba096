//! For operators: `/health`, `/ready` and `/metrics`.
//!
//! `/health` says that the process answers. `/ready` says whether it takes records, and how each stream is; a stream
//! whose destination is down still takes them. None of them asks who calls, and none shows a record or a secret; but
//! names of streams and what ails them are not for everybody, so they may have a listener of their own, and the one for
//! clients then answers `/health` only.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Response, StatusCode};
use http_body_util::Full;
use hydrant_core::Timestamp;
use serde::Serialize;

use super::{Api, Audience, Phase};
use crate::streams::{Ailment, LiveStream, State};

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
/// What `prometheus-client` writes.
const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

/// How a stream is, as `/ready` lists it.
#[derive(Serialize)]
struct Entry<'a> {
    stream: &'a str,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

impl Api {
    /// The answer to an operator's request; `None` for requests of clients.
    pub(super) fn admin(&self, audience: Audience, method: &Method, path: &str) -> Option<Response<Full<Bytes>>> {
        if *method != Method::GET && *method != Method::HEAD {
            return None;
        }
        match path {
            "/ready" | "/metrics" if audience == Audience::Clients => None,
            "/health" => Some(answer(StatusCode::OK, TEXT, "ok\n".to_owned())),
            "/ready" => Some(self.ready()),
            "/metrics" => Some(answer(StatusCode::OK, OPEN_METRICS, (self.edges.metrics)())),
            _ => None,
        }
    }

    fn ready(&self) -> Response<Full<Bytes>> {
        let streams: Vec<_> = self.streams.list(None).map(|stream| (stream, stream.health().state())).collect();
        let takes_records = streams.iter().any(|(_, state)| !matches!(state, State::Failed(_)));
        let entries: Vec<_> = streams.into_iter().map(|(stream, state)| entry(stream, state)).collect();
        let status = match self.phase() {
            Phase::Serving if takes_records => StatusCode::OK,
            Phase::Serving | Phase::Starting | Phase::Stopping => StatusCode::SERVICE_UNAVAILABLE,
        };
        answer(status, JSON, serde_json::to_string(&entries).unwrap_or_default())
    }
}

fn entry(stream: &LiveStream, state: State) -> Entry<'_> {
    let (state, ailment) = match state {
        State::Healthy => ("healthy", None),
        State::Degraded(ailment) => ("degraded", Some(ailment)),
        State::Failed(ailment) => ("failed", Some(ailment)),
    };
    let stream = &stream.spec().name;
    match ailment {
        None => Entry { stream, state, since: None, code: None, message: None },
        Some(Ailment { since, code, message, .. }) => {
            Entry { stream, state, since: Some(rfc3339(since)), code: Some(code), message: Some(message) }
        }
    }
}

fn rfc3339(moment: Timestamp) -> String {
    let moment = i64::try_from(moment.as_millis()).map(jiff::Timestamp::from_millisecond);
    moment.ok().and_then(Result::ok).map(|moment| format!("{moment:.3}")).unwrap_or_default()
}

fn answer(status: StatusCode, content_type: HeaderValue, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}
