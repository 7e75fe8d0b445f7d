//! What the headers of a request mean.

use crate::media::media_type;
use crate::server::Request;
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

/// What the tracer has done itself.
pub(super) fn client_flags(request: &Request) -> ClientFlags {
    ClientFlags {
        computed_top_level: truthy(request.header("datadog-client-computed-top-level")),
        computed_stats: truthy(request.header("datadog-client-computed-stats")),
        dropped_p0_traces: count(request.header("datadog-client-dropped-p0-traces")),
        dropped_p0_spans: count(request.header("datadog-client-dropped-p0-spans")),
    }
}

/// How a v0.1–v0.4 body is written. A missing or malformed content type means
/// JSON.
pub(super) fn encoding(content_type: &str) -> Encoding {
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
}
