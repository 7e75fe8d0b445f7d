//! JSON laid out as Go's `json.MarshalIndent(v, "", "\t")` does: `/info` is
//! compared by the hash of its bytes.

use std::fmt::Write;

/// A JSON value whose keys stay in order.
pub(super) enum Json {
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    pub(super) fn texts<S: AsRef<str>>(items: &[S]) -> Self {
        Self::List(items.iter().map(|s| Self::Text(s.as_ref().to_owned())).collect())
    }

    pub(super) fn object<const N: usize>(fields: [(&str, Self); N]) -> Self {
        Self::Object(fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())
    }

    pub(super) fn print(&self) -> String {
        let mut out = String::new();
        self.write(&mut out, 0);
        out
    }

    fn write(&self, out: &mut String, depth: usize) {
        match self {
            Self::Null => out.push_str("null"),
            Self::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
            Self::Number(n) => number(out, *n),
            Self::Text(t) => text(out, t),
            Self::List(items) => block(out, depth, ['[', ']'], items, |out, item| item.write(out, depth + 1)),
            Self::Object(fields) => block(out, depth, ['{', '}'], fields, |out, (key, value)| {
                text(out, key);
                out.push_str(": ");
                value.write(out, depth + 1);
            }),
        }
    }
}

fn block<T>(out: &mut String, depth: usize, ends: [char; 2], items: &[T], each: impl Fn(&mut String, &T)) {
    out.push(ends[0]);
    for (i, item) in items.iter().enumerate() {
        out.push_str(if i == 0 { "\n" } else { ",\n" });
        out.extend(std::iter::repeat_n('\t', depth + 1));
        each(out, item);
    }
    if !items.is_empty() {
        out.push('\n');
        out.extend(std::iter::repeat_n('\t', depth));
    }
    out.push(ends[1]);
}

/// Shortest notation; exponents only far out, as Go writes them.
fn number(out: &mut String, n: f64) {
    let size = n.abs();
    // Writing to a string does not fail.
    let _ = if !n.is_finite() {
        write!(out, "0")
    } else if size != 0.0 && !(1e-6..1e21).contains(&size) {
        let text = format!("{n:e}");
        write!(out, "{}", if size >= 1e21 { text.replace('e', "e+") } else { text })
    } else {
        write!(out, "{n}")
    };
}

fn text(out: &mut String, t: &str) {
    out.push('"');
    for c in t.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\0'..='\u{1f}' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                // As above.
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_laid_out_as_go_does() {
        let value = Json::object([
            (
                "a",
                Json::List(vec![
                    Json::Number(5e8),
                    Json::Number(0.5),
                    Json::Number(1e-7),
                    Json::Number(1e21),
                ]),
            ),
            ("b", Json::object([])),
            ("c", Json::List(Vec::new())),
            ("d<", Json::Text("x\"\u{1}>é".into())),
            ("e", Json::Null),
            ("f", Json::Bool(true)),
        ]);
        let expected = "{\n\t\"a\": [\n\t\t500000000,\n\t\t0.5,\n\t\t1e-7,\n\t\t1e+21\n\t],\n\t\"b\": {},\n\t\"c\": [],\n\t\"d\\u003c\": \"x\\\"\\u0001\\u003eé\",\n\t\"e\": null,\n\t\"f\": true\n}";
        assert_eq!(value.print(), expected);
    }
}
