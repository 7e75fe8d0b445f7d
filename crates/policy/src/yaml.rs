//! YAML (and JSON, which is YAML) to values that remember where they stood.

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value as Json};
use serde_saphyr::Spanned;
use std::collections::HashMap;

/// Line and column, both from 1; 0 when unknown.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Place {
    /// Line.
    pub line: u32,
    /// Column.
    pub column: u32,
}

/// One document of a file.
#[derive(Clone, Debug, Default)]
pub struct Document {
    /// Its content.
    pub value: Json,
    /// Where it begins.
    pub start: Place,
    /// Where each field stands, by path: `spec.tracing.backends[0].name`.
    places: HashMap<String, Place>,
}

/// What is not YAML.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NotYaml {
    /// Where the reader gave up.
    pub at: Place,
    /// Why.
    pub why: String,
}

impl Document {
    /// All documents of a text; empty ones are skipped. Aliases, nesting and
    /// size are bounded by the reader.
    pub fn read_all(text: &str) -> Result<Vec<Self>, NotYaml> {
        let nodes = serde_saphyr::from_multiple::<Spanned<Node>>(text).map_err(|e| NotYaml {
            at: e.location().map_or(Place::default(), place),
            why: first_line(&e.without_snippet().to_string()),
        })?;
        Ok(nodes.into_iter().map(Self::new).collect())
    }

    fn new(node: Spanned<Node>) -> Self {
        let start = place(node.referenced);
        let mut places = HashMap::new();
        let value = node.value.flatten(&mut String::new(), &mut places);
        Self { value, start, places }
    }

    /// Where a field stands. A field that is not there stands where the
    /// nearest one around it does.
    pub fn place(&self, path: &str) -> Place {
        let mut path = path;
        while !path.is_empty() {
            if let Some(found) = self.places.get(path) {
                return *found;
            }
            path = path.rfind(['.', '[']).map_or("", |cut| &path[..cut]);
        }
        self.start
    }
}

fn place(at: serde_saphyr::Location) -> Place {
    let small = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    Place { line: small(at.line()), column: small(at.column()) }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().trim().to_owned()
}

/// A value with the places of its parts.
enum Node {
    Plain(Json),
    List(Vec<Spanned<Node>>),
    Map(Vec<(Spanned<String>, Spanned<Node>)>),
}

impl Node {
    /// Splits into the value and the places; `path` is that of the value.
    fn flatten(self, path: &mut String, places: &mut HashMap<String, Place>) -> Json {
        let len = path.len();
        match self {
            Self::Plain(value) => value,
            Self::List(items) => {
                let mut list = Vec::with_capacity(items.len());
                for (i, item) in items.into_iter().enumerate() {
                    path.push_str(&format!("[{i}]"));
                    places.insert(path.clone(), place(item.referenced));
                    list.push(item.value.flatten(path, places));
                    path.truncate(len);
                }
                Json::Array(list)
            }
            Self::Map(entries) => {
                let mut map = Map::new();
                for (key, value) in entries {
                    if len > 0 {
                        path.push('.');
                    }
                    path.push_str(&key.value);
                    places.insert(path.clone(), place(key.referenced));
                    let value = value.value.flatten(path, places);
                    map.insert(key.value, value);
                    path.truncate(len);
                }
                Json::Object(map)
            }
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a value")
    }
    fn visit_bool<E: Error>(self, v: bool) -> Result<Node, E> {
        Ok(Node::Plain(Json::Bool(v)))
    }
    fn visit_i64<E: Error>(self, v: i64) -> Result<Node, E> {
        Ok(Node::Plain(v.into()))
    }
    fn visit_u64<E: Error>(self, v: u64) -> Result<Node, E> {
        Ok(Node::Plain(v.into()))
    }
    fn visit_f64<E: Error>(self, v: f64) -> Result<Node, E> {
        // JSON has no infinities; as text they are refused where a number is wanted.
        Ok(Node::Plain(Number::from_f64(v).map_or_else(|| Json::String(v.to_string()), Json::Number)))
    }
    fn visit_str<E: Error>(self, v: &str) -> Result<Node, E> {
        Ok(Node::Plain(Json::String(v.to_owned())))
    }
    fn visit_string<E: Error>(self, v: String) -> Result<Node, E> {
        Ok(Node::Plain(Json::String(v)))
    }
    fn visit_unit<E: Error>(self) -> Result<Node, E> {
        Ok(Node::Plain(Json::Null))
    }
    fn visit_none<E: Error>(self) -> Result<Node, E> {
        Ok(Node::Plain(Json::Null))
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Node::List(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Node::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_where_they_stand_and_missing_ones_nearby() {
        let text = "# head\ntype: Mesh\nlist:\n- a: 1\n  b: {c: x}\n- &it\n  a: 2\n- *it\n---\ntype: Other\n";
        let docs = Document::read_all(text).unwrap();
        assert_eq!(docs.len(), 2);
        let at = |path: &str| (docs[0].place(path).line, docs[0].place(path).column);
        assert_eq!(at("type"), (2, 1));
        assert_eq!(at("list"), (3, 1));
        assert_eq!(at("list[0].b.c"), (5, 7));
        assert_eq!(at("list[0].nothing.here"), (4, 3));
        assert_eq!(at("nothing"), (2, 1));
        assert_eq!(docs[1].start.line, 10);
        assert_eq!(docs[0].value["list"][2]["a"], 2);
    }

    #[test]
    fn what_is_not_yaml_says_where() {
        let wrong = Document::read_all("a: 1\nb: [1,\nc: 2\n").unwrap_err();
        assert!(wrong.at.line >= 2, "{wrong:?}");
        assert!(!wrong.why.is_empty() && !wrong.why.contains('\n'));
    }

    #[test]
    fn json_is_read_too_and_a_bomb_is_refused() {
        let docs = Document::read_all("{\"type\": \"Mesh\",\n \"n\": [1, 2.5, null, true]}").unwrap();
        assert_eq!(docs[0].value, serde_json::json!({"type": "Mesh", "n": [1, 2.5, null, true]}));
        let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for i in 1..12 {
            let of = format!("*a{}", i - 1);
            bomb += &format!("a{i}: &a{i} [{}]\n", vec![of; 10].join(","));
        }
        assert!(Document::read_all(&bomb).is_err());
        assert!(Document::read_all(&"[".repeat(100_000)).is_err());
    }
}
