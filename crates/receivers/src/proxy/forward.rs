//! What all forwarding has in common: Go's reverse proxy.

use super::client::{ClientError, HttpClient, Outgoing};
use super::{Product, ReadError};
use crate::answer::{self, Answer, AnswerBody};
use crate::body::BodyError;
use crate::server::Request;
use bytes::Bytes;
use http::header::{CONNECTION, HeaderMap, HeaderName, HeaderValue};
use http::{StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use spanloom_pipeline::Permit;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// Headers that concern one connection only.
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "proxy-connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Headers without those that concern one connection only, in their order.
pub(crate) fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .filter_map(|name| HeaderName::try_from(name.trim()).ok())
        .collect();
    let mut out = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers {
        if !HOP_BY_HOP.contains(&name.as_str()) && !named.contains(name) {
            out.append(name.clone(), value.clone());
        }
    }
    out
}

/// The client's headers as a reverse proxy passes them on.
pub(super) fn headers_of(request: &Request, with_client_address: bool) -> HeaderMap {
    let mut headers = end_to_end(&request.head.headers);
    // The length is that of the body we send; the host that of the target.
    for name in ["host", "content-length", "expect"] {
        headers.remove(name);
    }
    if let (true, Some(peer)) = (with_client_address, request.conn.peer) {
        let before: Vec<&str> =
            headers.get_all("x-forwarded-for").iter().filter_map(|v| v.to_str().ok()).collect();
        let all = if before.is_empty() { peer.to_string() } else { format!("{}, {peer}", before.join(", ")) };
        set(&mut headers, "x-forwarded-for", &all);
    }
    headers
}

/// Sets a header; a value that cannot stand in one is left out.
pub(super) fn set(headers: &mut HeaderMap, name: &'static str, value: &str) {
    match HeaderValue::try_from(value) {
        Ok(value) => drop(headers.insert(name, value)),
        Err(_) => tracing::debug!(header = name, "value does not fit in a header"),
    }
}

/// A request for one target.
pub(super) struct Target {
    pub uri: Uri,
    pub headers: HeaderMap,
}

/// What goes out for one request: the same body to each target.
pub(super) struct Plan {
    pub method: http::Method,
    pub targets: Vec<Target>,
}

/// Sends to all targets and answers what the first one answers. What the
/// others say is only logged; they do not hold up the answer.
pub(super) async fn forward(
    client: &Arc<dyn HttpClient>,
    plan: Plan,
    body: Bytes,
    permit: Permit,
    wait: Duration,
    parallel: bool,
) -> Result<Answer, ClientError> {
    let mut requests = plan.targets.into_iter().map(|target| {
        let mut request = Outgoing::new(Full::new(body.clone()));
        *request.method_mut() = plan.method.clone();
        *request.uri_mut() = target.uri;
        *request.headers_mut() = target.headers;
        request
    });
    let Some(main) = requests.next() else {
        return Err(ClientError::Other("no target".into()));
    };
    let others: Vec<Outgoing> = requests.collect();
    let copies = {
        let client = Arc::clone(client);
        async move {
            // The body is in memory until the last one has it.
            let _permit = permit;
            for other in others {
                send_copy(&*client, other, wait).await;
            }
        }
    };
    let first = timeout(wait, client.send(main));
    let answer = if parallel {
        tokio::spawn(copies);
        first.await
    } else {
        let answer = first.await;
        tokio::spawn(copies);
        answer
    };
    let (mut head, body) = answer.unwrap_or(Err(ClientError::Timeout))?.into_parts();
    head.headers = end_to_end(&head.headers);
    Ok(Answer::from_parts(head, AnswerBody::Stream(body)))
}

/// Sends to a further target; what it says is only logged.
async fn send_copy(client: &dyn HttpClient, request: Outgoing, wait: Duration) {
    let host = request.uri().host().unwrap_or_default().to_owned();
    let all = async {
        let mut body = client.send(request).await?.into_body();
        while let Some(frame) = body.frame().await {
            frame.map_err(|e| ClientError::Other(e.to_string()))?;
        }
        Ok::<_, ClientError>(())
    };
    if let Err(error) = timeout(wait, all).await.unwrap_or(Err(ClientError::Timeout)) {
        tracing::warn!(%host, %error, "cannot forward to a further target");
    }
}

/// The answer when a body could not be read.
pub(super) fn body_error(product: Product, error: ReadError) -> Answer {
    match (product, error) {
        (Product::Profiling, ReadError::Body(BodyError::Timeout)) => {
            answer::bare(StatusCode::REQUEST_TIMEOUT, "i/o timeout")
        }
        (Product::Profiling, ReadError::Body(BodyError::Ended)) => {
            answer::bare(StatusCode::SERVICE_UNAVAILABLE, "unexpected EOF")
        }
        (_, ReadError::Body(BodyError::Busy)) => answer::empty(StatusCode::SERVICE_UNAVAILABLE),
        _ => answer::empty(StatusCode::BAD_GATEWAY),
    }
}

/// The answer when no target answered.
pub(super) fn send_error(product: Product, error: &ClientError) -> Answer {
    if product != Product::Profiling {
        return answer::empty(StatusCode::BAD_GATEWAY);
    }
    let status = match error {
        ClientError::Timeout => StatusCode::REQUEST_TIMEOUT,
        ClientError::Other(_) => StatusCode::BAD_GATEWAY,
    };
    answer::bare(status, error.to_string())
}
