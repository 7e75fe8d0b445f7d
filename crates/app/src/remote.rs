//! Asking a running Spanloom over its own HTTP API.

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value as Json;
use std::net::SocketAddr;
use std::time::Duration;

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// `GET http://address/path`: status and JSON. Errors are texts for a person,
/// with the next step.
pub fn get(address: Option<SocketAddr>, setting: &str, path: &str) -> Result<(u16, Json), String> {
    call(http::Method::GET, address, setting, path)
}

/// The same with another method.
pub fn call(
    method: http::Method,
    address: Option<SocketAddr>,
    setting: &str,
    path: &str,
) -> Result<(u16, Json), String> {
    let Some(address) = address else {
        return Err(format!(
            "`{setting}` is switched off, so there is nothing to ask; set it to the address of the running Spanloom"
        ));
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| format!("cannot start: {e}"))?;
    runtime.block_on(async {
        let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
        let request = http::Request::builder().method(method).uri(format!("http://{address}{path}"));
        let request = request.body(Empty::new()).map_err(|e| format!("{path}: {e}"))?;
        let answer = tokio::time::timeout(PATIENCE, async {
            let response = client.request(request).await.map_err(|e| {
                format!(
                    "nothing answers on {address} ({}); is Spanloom running? If it listens elsewhere, say so: --set {setting}=HOST:PORT",
                    root_cause(&e)
                )
            })?;
            let status = response.status().as_u16();
            let body = response.into_body().collect().await.map_err(|e| format!("{address}: the answer broke off: {e}"))?;
            Ok::<_, String>((status, body.to_bytes()))
        });
        let (status, body) = answer.await.map_err(|_| format!("{address} did not answer within {} s", PATIENCE.as_secs()))??;
        let json = serde_json::from_slice(&body)
            .unwrap_or_else(|_| Json::String(String::from_utf8_lossy(&body).into_owned()));
        Ok((status, json))
    })
}

fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// Percent-encodes a query value.
pub fn encode(text: &str) -> String {
    text.bytes()
        .map(|b| match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => (b as char).to_string(),
            b => format!("%{b:02X}"),
        })
        .collect()
}
