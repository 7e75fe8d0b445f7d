//! Cross-origin requests: pages in a browser that send their own spans.

use crate::answer::{self, Answer};
use crate::server::Request;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, HeaderValue,
    ORIGIN, VARY,
};
use http::{Method, StatusCode};

/// Which pages may send, and for how long browsers remember it.
#[derive(Clone, Debug)]
pub struct Cors {
    /// Origins such as `https://shop.example.com`; `*` stands for any text,
    /// once (`https://*.example.com`), alone for every origin. Empty: none.
    pub origins: Vec<String>,
    /// `Access-Control-Max-Age`, seconds.
    pub max_age: u32,
}

impl Default for Cors {
    /// No page; two hours, the most that Chromium remembers.
    fn default() -> Self {
        Self { origins: Vec::new(), max_age: 7200 }
    }
}

impl Cors {
    /// What `Access-Control-Allow-Origin` answers to an origin.
    fn allowed(&self, origin: &HeaderValue) -> Option<HeaderValue> {
        if self.origins.iter().any(|o| o == "*") {
            return Some(HeaderValue::from_static("*"));
        }
        let text = origin.to_str().ok()?.to_ascii_lowercase();
        let matches = |pattern: &String| {
            let pattern = pattern.to_ascii_lowercase();
            match pattern.split_once('*') {
                None => pattern == text,
                Some((before, after)) => {
                    text.len() >= before.len() + after.len()
                        && text.starts_with(before)
                        && text.ends_with(after)
                }
            }
        };
        self.origins.iter().any(matches).then(|| origin.clone())
    }

    /// The answer to a browser's question before the request; `None` if this
    /// is none, or no page may send anyway.
    pub(crate) fn preflight(&self, request: &Request) -> Option<Answer> {
        let headers = &request.head.headers;
        let asked = headers.get(ACCESS_CONTROL_REQUEST_METHOD)?;
        if self.origins.is_empty() || request.head.method != Method::OPTIONS {
            return None;
        }
        let origin = headers.get(ORIGIN)?;
        let mut answer = answer::empty(StatusCode::NO_CONTENT);
        let out = answer.headers_mut();
        for name in ["Origin", "Access-Control-Request-Method", "Access-Control-Request-Headers"] {
            out.append(VARY, HeaderValue::from_static(name));
        }
        if let Some(allowed) = self.allowed(origin).filter(|_| asked == "POST") {
            out.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
            out.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("POST"));
            if let Some(wanted) = headers.get(ACCESS_CONTROL_REQUEST_HEADERS) {
                // Exporters add headers that the page was configured with.
                out.insert(ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
            }
            out.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from(self.max_age));
        }
        Some(answer)
    }

    /// Lets the page read the answer.
    pub(crate) fn mark(&self, request: &Request, answer: &mut Answer) {
        if self.origins.is_empty() {
            return;
        }
        let out = answer.headers_mut();
        out.append(VARY, HeaderValue::from_static("Origin"));
        if let Some(allowed) = request.head.headers.get(ORIGIN).and_then(|o| self.allowed(o)) {
            out.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_match_whole_with_one_wildcard() {
        let cors =
            Cors { origins: vec!["https://a.example".into(), "http://*.b.example".into()], max_age: 1 };
        for (origin, good) in [
            ("https://a.example", true),
            ("HTTPS://A.example", true),
            ("http://a.example", false),
            ("https://a.example.evil", false),
            ("http://x.b.example", true),
            ("http://b.example", false),
            ("http://.b.example", true),
            ("http://x.b.example:8080", false),
            ("null", false),
        ] {
            let origin = HeaderValue::from_static(origin);
            assert_eq!(cors.allowed(&origin), good.then(|| origin.clone()), "{origin:?}");
        }
        let all = Cors { origins: vec!["*".into()], max_age: 1 };
        assert_eq!(all.allowed(&HeaderValue::from_static("null")).unwrap(), "*");
    }
}
