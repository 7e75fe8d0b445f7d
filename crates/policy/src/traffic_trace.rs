//! Rules for TrafficTrace, and for tags wherever they are written
//! (`kuma:pkg/core/resources/apis/mesh/{traffic_trace_validator,validators}.go`).

use crate::Violation;
use serde_json::{Map, Value as Json};

pub(crate) fn validate(body: &Json, out: &mut Vec<Violation>) {
    let empty = Vec::new();
    let selectors = body["selectors"].as_array().unwrap_or(&empty);
    if selectors.is_empty() {
        out.push(Violation::new("selectors", "must have at least one element"));
    }
    for (i, selector) in selectors.iter().enumerate() {
        let at = format!("selectors[{i}].match");
        let none = Map::new();
        let tags = selector["match"].as_object().unwrap_or(&none);
        if tags.is_empty() {
            out.push(Violation::new(&at, "must have at least one tag"));
        }
        self::tags(tags, &at, Values::Selector, out);
    }
}

/// Which characters a value may have.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Values {
    /// Of a selector: also `/`, or just `*`.
    Selector,
    /// Of a proxy's tag.
    Tag,
}

/// Checks tags, in the order of their names.
pub(crate) fn tags(tags: &Map<String, Json>, at: &str, values: Values, out: &mut Vec<Violation>) {
    let mut keys: Vec<&String> = tags.keys().collect();
    keys.sort();
    for key in keys {
        if key.is_empty() {
            out.push(Violation::new(at, "tag name must be non-empty"));
        }
        let field = || format!("{at}[\"{key}\"]");
        if !key.bytes().all(|b| plain(b) || b == b'/') {
            out.push(Violation::new(
                field(),
                "tag name must consist of alphanumeric characters, dots, dashes, slashes and underscores",
            ));
        }
        // A null counts as empty.
        let value = tags[key].as_str().unwrap_or_default();
        if value.is_empty() {
            out.push(Violation::new(field(), "tag value must be non-empty"));
        }
        let (fits, message) = match values {
            Values::Selector => (
                value == "*" || value.bytes().all(|b| plain(b) || b == b'/'),
                "tag value must consist of alphanumeric characters, dots, dashes, slashes and underscores or be \"*\"",
            ),
            Values::Tag => (
                value.bytes().all(plain),
                "tag value must consist of alphanumeric characters, dots, dashes and underscores",
            ),
        };
        if !fits {
            out.push(Violation::new(field(), message));
        }
    }
}

const fn plain(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':')
}
