//! What the headers of a request mean.

use crate::media::media_type;
use http::HeaderMap;
use spanloom_codec::datadog::Encoding;
use spanloom_model::ClientFlags;

/// A yes in a header: anything but nothing, `0`, `f` and `false`
/// (datadog-agent:pkg/trace/api/api.go, Go's `strconv.ParseBool`).
pub(super) fn truthy(value: &str) -> bool {
    !matches!(value, "" | "0" | "f" | "F" | "FALSE" | "False" | "false")
}

/// A count in a header; 0 when it is missing or no number.
pub(super) fn count(value: &str) -> u64 {
    value.parse().unwrap_or(0)
}

/// What the headers of a request with traces say, found in one walk over them.
/// Missing, or not UTF-8: empty.
#[derive(Default)]
pub(super) struct Said<'a> {
    pub content_type: &'a str,
    pub fetch_site: &'a str,
    pub trace_count: &'a str,
    pub lang: &'a str,
    pub lang_version: &'a str,
    pub lang_vendor: &'a str,
    pub interpreter: &'a str,
    pub tracer_version: &'a str,
    pub process_tags: &'a str,
    computed_top_level: &'a str,
    computed_stats: &'a str,
    dropped_p0_traces: &'a str,
    dropped_p0_spans: &'a str,
}

impl<'a> Said<'a> {
    pub fn of(headers: &'a HeaderMap) -> Self {
        let mut said = Self::default();
        let mut last = None;
        for (name, value) in headers {
            // Values of one name follow each other; the first one counts.
            if last.replace(name).is_some_and(|last| std::ptr::eq(last, name)) {
                continue;
            }
            let to = match name.as_str() {
                "content-type" => &mut said.content_type,
                "sec-fetch-site" => &mut said.fetch_site,
                "x-datadog-trace-count" => &mut said.trace_count,
                "datadog-meta-lang" => &mut said.lang,
                "datadog-meta-lang-version" => &mut said.lang_version,
                "datadog-meta-lang-interpreter-vendor" => &mut said.lang_vendor,
                "datadog-meta-lang-interpreter" => &mut said.interpreter,
                "datadog-meta-tracer-version" => &mut said.tracer_version,
                "x-datadog-process-tags" => &mut said.process_tags,
                "datadog-client-computed-top-level" => &mut said.computed_top_level,
                "datadog-client-computed-stats" => &mut said.computed_stats,
                "datadog-client-dropped-p0-traces" => &mut said.dropped_p0_traces,
                "datadog-client-dropped-p0-spans" => &mut said.dropped_p0_spans,
                _ => continue,
            };
            *to = std::str::from_utf8(value.as_bytes()).unwrap_or_default();
        }
        said
    }

    /// What the tracer has done itself.
    pub fn client_flags(&self) -> ClientFlags {
        ClientFlags {
            computed_top_level: truthy(self.computed_top_level),
            computed_stats: truthy(self.computed_stats),
            dropped_p0_traces: count(self.dropped_p0_traces),
            dropped_p0_spans: count(self.dropped_p0_spans),
        }
    }
}

/// How a v0.1–v0.4 body is written. A missing or malformed content type means
/// JSON.
pub(super) fn encoding(content_type: &str) -> Encoding {
    if content_type == "application/msgpack" {
        return Encoding::Msgpack;
    }
    match media_type(content_type).as_deref() {
        Some("application/msgpack") => Encoding::Msgpack,
        Some("application/json" | "text/json") | None => Encoding::Json,
        Some(_) => Encoding::JsonThenMsgpack,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_content_type_chooses_the_decoder() {
        for (header, expected) in [
            ("application/msgpack", Encoding::Msgpack),
            ("Application/MsgPack; charset=x", Encoding::Msgpack),
            ("application/json", Encoding::Json),
            ("text/json", Encoding::Json),
            ("", Encoding::Json),
            ("a/b/c", Encoding::Json),
            ("application/msgpack; nonsense", Encoding::Json),
            ("text/plain", Encoding::JsonThenMsgpack),
        ] {
            assert_eq!(encoding(header), expected, "{header}");
        }
    }

    #[test]
    fn any_text_but_a_no_is_a_yes() {
        for no in ["", "0", "f", "F", "false", "False", "FALSE"] {
            assert!(!truthy(no));
        }
        for yes in ["1", "t", "yes", "no", "off", "fAlse"] {
            assert!(truthy(yes));
        }
    }

    #[test]
    fn what_headers_say_is_the_same_in_one_walk() {
        let head = http::Request::post("/v0.4/traces")
            .header("Datadog-Meta-Lang", "")
            .header("x-datadog-trace-count", "7")
            .header("Datadog-Meta-Lang", "ruby")
            .header("datadog-client-dropped-p0-spans", "9")
            .header("datadog-meta-tracer-version", http::HeaderValue::from_bytes(b"\xff").unwrap())
            .header("datadog-client-computed-stats", "yes");
        let (head, ()) = head.body(()).unwrap().into_parts();
        let said = Said::of(&head.headers);
        assert_eq!((said.lang, said.trace_count, said.tracer_version), ("", "7", ""));
        let flags = said.client_flags();
        assert!(flags.computed_stats && !flags.computed_top_level);
        assert_eq!((flags.dropped_p0_spans, flags.dropped_p0_traces), (9, 0));
    }
}
