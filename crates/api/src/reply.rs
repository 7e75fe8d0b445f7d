//! Answers and their headers.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION};
use http::{Response, StatusCode};

/// An answer under construction.
#[derive(Debug)]
pub struct Reply(Response<Bytes>);

impl Reply {
    fn new(kind: &'static str, body: impl Into<Bytes>) -> Self {
        let mut response = Response::new(body.into());
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        // Tags hold what users sent; a browser must not guess a type for it.
        headers
            .insert(HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff"));
        Self(response)
    }

    /// A JSON document.
    pub fn json(body: impl Into<Bytes>) -> Self {
        Self::new("application/json", body)
    }

    /// A protobuf message.
    pub fn protobuf(body: impl Into<Bytes>) -> Self {
        Self::new("application/protobuf", body)
    }

    /// Plain text.
    pub fn text(body: impl Into<Bytes>) -> Self {
        Self::new("text/plain; charset=utf-8", body)
    }

    /// Elsewhere.
    pub fn redirect(to: &'static str) -> Self {
        let mut reply = Self::text("").status(StatusCode::FOUND);
        reply.0.headers_mut().insert(LOCATION, HeaderValue::from_static(to));
        reply
    }

    /// Sets the status.
    pub fn status(mut self, status: StatusCode) -> Self {
        *self.0.status_mut() = status;
        self
    }

    /// Sets a header.
    pub fn header(mut self, name: &'static str, value: &'static str) -> Self {
        self.0.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        self
    }

    /// Lets clients keep it for some seconds.
    pub fn cached(mut self, seconds: u32) -> Self {
        if let Ok(value) = HeaderValue::from_str(&format!("max-age={seconds}, must-revalidate")) {
            self.0.headers_mut().insert(CACHE_CONTROL, value);
        }
        self
    }

    /// The response.
    pub fn into_response(self) -> Response<Bytes> {
        self.0
    }

    /// Indents a JSON body by four spaces a level.
    pub fn pretty(mut self) -> Self {
        let body = indent(self.0.body());
        *self.0.body_mut() = body.into();
        self
    }
}

/// Indents compact, valid JSON by four spaces a level, as Go's
/// `json.MarshalIndent`.
fn indent(compact: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(compact.len() * 2);
    let (mut depth, mut quoted, mut escaped) = (0usize, false, false);
    let line = |out: &mut Vec<u8>, depth: usize| {
        out.push(b'\n');
        out.resize(out.len() + 4 * depth, b' ');
    };
    let mut bytes = compact.iter().copied().peekable();
    while let Some(b) = bytes.next() {
        if quoted {
            out.push(b);
            quoted = escaped || b != b'"';
            escaped = !escaped && b == b'\\';
            continue;
        }
        match b {
            b'{' | b'[' => {
                out.push(b);
                if let Some(close) = bytes.next_if(|n| matches!(n, b'}' | b']')) {
                    out.push(close);
                } else {
                    depth += 1;
                    line(&mut out, depth);
                }
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                line(&mut out, depth);
                out.push(b);
            }
            b',' => {
                out.push(b);
                line(&mut out, depth);
            }
            b':' => out.extend_from_slice(b": "),
            _ => {
                quoted = b == b'"';
                out.push(b);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_indented_by_four_spaces() {
        let compact = br#"{"a":[],"b":[1,{"c:,{":"x\"}"}],"d":{}}"#;
        let pretty = "{\n    \"a\": [],\n    \"b\": [\n        1,\n        {\n            \"c:,{\": \"x\\\"}\"\n        }\n    ],\n    \"d\": {}\n}";
        assert_eq!(String::from_utf8(indent(compact)).unwrap(), pretty);
    }
}
