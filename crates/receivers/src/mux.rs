//! Paths the way Go's `ServeMux` reads them (Go 1.26): exact patterns, prefix
//! patterns (with a trailing slash), redirects to the clean form.

use crate::answer::{self, Answer};
use http::header::{CONTENT_TYPE, HeaderValue, LOCATION};
use http::{Method, StatusCode};
use std::borrow::Cow;

/// What a path leads to: the index of a pattern, or somewhere else.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Match {
    /// Position in the table of patterns.
    Found(usize),
    /// Not the clean form, or a prefix pattern without its slash: this is it.
    Redirect(String),
    NotFound,
}

/// Finds the pattern of an (escaped) path.
pub(crate) fn find<'a>(patterns: impl Iterator<Item = &'a str> + Clone, path: &str) -> Match {
    let clean = clean(path);
    let decoded = decode(&clean);
    let mut slash = false;
    for (i, pattern) in patterns.enumerate() {
        if pattern == decoded || (pattern.ends_with('/') && decoded.starts_with(pattern)) {
            // An unclean path is sent elsewhere even where it leads somewhere.
            return if clean == path { Match::Found(i) } else { Match::Redirect(clean.into_owned()) };
        }
        slash |= pattern.strip_suffix('/') == Some(&*decoded);
    }
    if slash {
        return Match::Redirect(format!("{clean}/"));
    }
    if clean == path { Match::NotFound } else { Match::Redirect(clean.into_owned()) }
}

/// Go's `http.Redirect` with status 307.
pub(crate) fn redirect(method: &Method, to: &str, query: Option<&str>) -> Answer {
    let to = match query {
        Some(query) => format!("{to}?{query}"),
        None => to.to_owned(),
    };
    let mut answer = if method == Method::GET {
        let link = to.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&#34;");
        let link = link.replace('\'', "&#39;");
        answer::bare(
            StatusCode::TEMPORARY_REDIRECT,
            format!("<a href=\"{link}\">Temporary Redirect</a>.\n\n"),
        )
    } else {
        answer::empty(StatusCode::TEMPORARY_REDIRECT)
    };
    if method == Method::GET || method == Method::HEAD {
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    }
    if let Ok(to) = HeaderValue::try_from(to) {
        answer.headers_mut().insert(LOCATION, to);
    }
    answer
}

/// Go's `cleanPath`: one slash at the start, no empty, `.` or `..` segments, a
/// trailing slash stays.
fn clean(path: &str) -> Cow<'_, str> {
    let tidy = path.starts_with('/')
        && !path.contains("//")
        && !path.contains("/./")
        && !path.contains("/../")
        && !path.ends_with("/.")
        && !path.ends_with("/..");
    if tidy {
        return Cow::Borrowed(path);
    }
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            s => segments.push(s),
        }
    }
    let mut out = String::with_capacity(path.len() + 1);
    for segment in &segments {
        out.push('/');
        out.push_str(segment);
    }
    if out.is_empty() || path.ends_with('/') {
        out.push('/');
    }
    Cow::Owned(out)
}

/// Percent-decodes each segment; an escaped slash stays escaped, so that it
/// does not separate.
fn decode(path: &str) -> Cow<'_, str> {
    if !path.contains('%') {
        return Cow::Borrowed(path);
    }
    let bytes = path.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while let Some(&b) = bytes.get(i) {
        let hex = bytes.get(i + 1..i + 3).and_then(|h| std::str::from_utf8(h).ok());
        match hex.and_then(|h| u8::from_str_radix(h, 16).ok()) {
            Some(decoded) if b == b'%' && decoded != b'/' => {
                out.push(decoded);
                i += 3;
            }
            _ => {
                out.push(b);
                i += 1;
            }
        }
    }
    Cow::Owned(String::from_utf8_lossy(&out).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_where_gos_mux_leads_them() {
        let table = ["/v0.4/traces", "/evp_proxy/v2/"];
        let to = |s: &str| Match::Redirect(s.into());
        for (path, expected) in [
            ("/v0.4/traces", Match::Found(0)),
            ("/v0.4/%74races", Match::Found(0)),
            ("/v0.4%2Ftraces", Match::NotFound),
            ("/v0.4/traces/", Match::NotFound),
            ("//v0.4/traces", to("/v0.4/traces")),
            ("/v0.4/./traces", to("/v0.4/traces")),
            ("/x/../v0.4/traces", to("/v0.4/traces")),
            ("/../../v0.4/traces", to("/v0.4/traces")),
            ("/evp_proxy/v2", to("/evp_proxy/v2/")),
            ("/evp_proxy/v2/", Match::Found(1)),
            ("/evp_proxy/v2/a/b", Match::Found(1)),
            ("/evp_proxy/v2/a//b/", to("/evp_proxy/v2/a/b/")),
            ("/evp_proxy//v2", to("/evp_proxy/v2/")),
            ("//nowhere", to("/nowhere")),
            ("/", Match::NotFound),
            ("/nowhere/..", to("/")),
            ("", to("/")),
            ("*", to("/*")),
        ] {
            assert_eq!(find(table.into_iter(), path), expected, "{path}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_redirect_leads_to_a_path_that_is_not_redirected(path in "[/.%a-e0-9]{0,12}") {
            let table = ["/a", "/b/", "/c/d/"];
            for path in [path.clone(), format!("/b/{path}"), format!("{path}/c/d")] {
                if let Match::Redirect(to) = find(table.into_iter(), &path) {
                    let again = find(table.into_iter(), &to);
                    proptest::prop_assert!(!matches!(again, Match::Redirect(_)), "{} → {} → {:?}", path, to, again);
                }
            }
        }
    }
}
