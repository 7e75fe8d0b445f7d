//! Which path is whose.

use crate::reply::Reply;
use crate::{Api, Problem, jaeger, jaeger_v3, own, tempo, zipkin};
use bytes::Bytes;
use http::{Method, Request, Response};
use spanloom_query::Params;

/// A port. The same process may serve other things on it: what is not an
/// API's path is left to the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// 16686: Jaeger's APIs and ours.
    Query,
    /// 9411: Zipkin's API, next to its collector.
    Zipkin,
    /// 3200: Tempo's API.
    Tempo,
}

/// A request taken apart.
pub(crate) struct Call<'a> {
    pub method: &'a Method,
    pub path: &'a str,
    pub params: Params,
    pub accept: &'a str,
    pub body: Bytes,
}

impl Call<'_> {
    /// Only `GET` (and `HEAD`).
    pub(crate) fn get(&self) -> Result<(), Problem> {
        match *self.method {
            Method::GET | Method::HEAD => Ok(()),
            _ => Err(Problem::Method("GET")),
        }
    }

    /// Whether the client names this media type in `Accept`.
    pub(crate) fn accepts(&self, kind: &str) -> bool {
        self.accept.split(',').any(|part| part.split(';').next().is_some_and(|k| k.trim() == kind))
    }

    /// Only `POST`.
    pub(crate) fn post(&self) -> Result<(), Problem> {
        if self.method == Method::POST { Ok(()) } else { Err(Problem::Method("POST")) }
    }
}

impl Api {
    /// Whether [`Api::handle`] answers such a request. `POST /api/v2/spans` and
    /// `/api/v1/spans`, for example, are the Zipkin collector's.
    pub fn owns(door: Door, method: &Method, path: &str) -> bool {
        match door {
            Door::Query => path == "/api" || path.starts_with("/api/"),
            Door::Zipkin => zipkin::owns(method, path),
            Door::Tempo => true,
        }
    }

    /// Answers a request, or gives `None` for a path of somebody else. The
    /// body has been read in full, within [`crate::Config::max_body`].
    pub async fn handle(&self, door: Door, request: Request<Bytes>) -> Option<Response<Bytes>> {
        let (head, body) = request.into_parts();
        let path = head.uri.path();
        if !Self::owns(door, &head.method, path) {
            return None;
        }
        let params = Params::parse(head.uri.query().unwrap_or_default());
        let accept = head.headers.get(http::header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let call = Call { method: &head.method, path, params, accept, body };
        let reply = match door {
            Door::Zipkin => zipkin::answer(self, &call).await,
            Door::Tempo => tempo::answer(self, &call).await,
            Door::Query => self.query(call).await,
        };
        let mut response = reply.into_response();
        if head.method == Method::HEAD {
            // The server leaves out the body; its length stays true.
            let length = response.body().len();
            if let Ok(value) = http::HeaderValue::from_str(&length.to_string()) {
                response.headers_mut().insert(http::header::CONTENT_LENGTH, value);
            }
            *response.body_mut() = Bytes::new();
        }
        Some(response)
    }

    async fn query(&self, call: Call<'_>) -> Reply {
        if call.path.starts_with("/api/spanloom/") {
            return own::answer(self, &call).await;
        }
        if call.path.starts_with("/api/v3/") {
            return jaeger_v3::answer(self, &call).await;
        }
        let reply = jaeger::answer(self, &call).await;
        match call.params.get("prettyPrint") {
            None | Some("false") => reply,
            Some(_) => reply.pretty(),
        }
    }
}
