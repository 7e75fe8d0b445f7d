//! Paths and checks of the query vectors; their README defines them.

use serde_json::{Value as Json, json};

enum Step {
    Key(String),
    Index(usize),
    All,
    Where(String, String),
}

fn steps(path: &str) -> Vec<Step> {
    let mut out = Vec::new();
    let mut rest = path.strip_prefix('$').unwrap_or(path);
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('[') {
            let (inside, next) = after.split_once(']').unwrap();
            out.push(match inside.strip_prefix('?').map(|t| t.split_once('=').unwrap()) {
                Some((key, value)) => Step::Where(key.into(), value.into()),
                None if inside == "*" => Step::All,
                None => Step::Index(inside.parse().unwrap()),
            });
            rest = next;
        } else {
            rest = rest.strip_prefix('.').unwrap_or(rest);
            let end = rest.find(['.', '[']).unwrap_or(rest.len());
            out.push(Step::Key(rest[..end].into()));
            rest = &rest[end..];
        }
    }
    out
}

/// All values that the path yields.
pub fn find<'a>(document: &'a Json, path: &str) -> Vec<&'a Json> {
    let mut at = vec![document];
    for step in steps(path) {
        at = at
            .into_iter()
            .flat_map(|v| -> Vec<&Json> {
                match &step {
                    Step::Key(key) => v.get(key).into_iter().collect(),
                    Step::Index(i) => v.get(*i).into_iter().collect(),
                    Step::All => v.as_array().into_iter().flatten().collect(),
                    Step::Where(key, value) => {
                        let equal = |e: &&Json| e.get(key).and_then(Json::as_str) == Some(value);
                        v.as_array().into_iter().flatten().filter(equal).collect()
                    }
                }
            })
            .collect();
    }
    at
}

/// The one value of a path, or the list if it ends in a filter or yields not
/// exactly one.
fn at(document: &Json, path: &str) -> Json {
    let found = find(document, path);
    if path.ends_with(']') && steps(path).last().is_some_and(|s| matches!(s, Step::Where(..))) {
        return json!(found);
    }
    match found.as_slice() {
        [one] => (*one).clone(),
        many => json!(many),
    }
}

fn sorted(values: &Json) -> Vec<String> {
    let mut all: Vec<String> = values.as_array().into_iter().flatten().map(ToString::to_string).collect();
    all.sort();
    all
}

/// Sorts the arrays that `unordered` names, whose paths may hold `[*]`.
fn settle(document: &mut Json, unordered: &[&str]) {
    for path in unordered {
        walk(document, &steps(path), &mut |v| {
            if let Json::Array(list) = v {
                list.sort_by_key(ToString::to_string);
            }
        });
    }
}

fn walk(v: &mut Json, steps: &[Step], f: &mut dyn FnMut(&mut Json)) {
    let Some((first, rest)) = steps.split_first() else { return f(v) };
    match first {
        Step::Key(key) => v.get_mut(key).into_iter().for_each(|v| walk(v, rest, f)),
        Step::Index(i) => v.get_mut(*i).into_iter().for_each(|v| walk(v, rest, f)),
        Step::All | Step::Where(..) => {
            v.as_array_mut().into_iter().flatten().for_each(|v| walk(v, rest, f));
        }
    }
}

/// Equal after leaving out what the README says does not count.
fn normal(api: &str, document: &Json) -> Json {
    let mut out = document.clone();
    strip(api, &mut out);
    out
}

fn strip(api: &str, v: &mut Json) {
    match v {
        Json::Array(list) => list.iter_mut().for_each(|v| strip(api, v)),
        Json::Object(map) => {
            map.values_mut().for_each(|v| strip(api, v));
            match api {
                "jaeger-v1" => drop(map.remove("flags")),
                "zipkin" => map.retain(|k, v| match k.as_str() {
                    "tags" | "annotations" => *v != json!({}) && *v != json!([]),
                    "errorCount" => *v != 0,
                    _ => true,
                }),
                "jaeger-v3" => map.retain(|_, v| *v != json!([])),
                _ => {}
            }
        }
        _ => {}
    }
}

/// Checks a body; what is wrong.
pub fn check(api: &str, expect: &Json, body: &str) -> Result<(), String> {
    if let Some(text) = expect["text"].as_str() {
        let trim = |t: &str| t.strip_suffix('\n').unwrap_or(t).to_owned();
        if trim(text) != trim(body) {
            return Err(format!("text {body:?}, expected {text:?}"));
        }
    }
    if let Some(part) = expect["text_contains"].as_str()
        && !body.contains(part)
    {
        return Err(format!("{body:?} does not contain {part:?}"));
    }
    let parsed = || serde_json::from_str::<Json>(body).map_err(|e| format!("{e}: {body}"));
    if let Some(expected) = expect.get("json") {
        let unordered: Vec<&str> =
            expect["unordered"].as_array().into_iter().flatten().map(|p| p.as_str().unwrap()).collect();
        let (mut got, mut expected) = (normal(api, &parsed()?), normal(api, expected));
        // Inner lists first, so that outer ones are sorted by settled content.
        let mut deep_first = unordered;
        deep_first.sort_by_key(|p| std::cmp::Reverse(p.len()));
        settle(&mut got, &deep_first);
        settle(&mut expected, &deep_first);
        if got != expected {
            return Err(format!("got {got:#}\nexpected {expected:#}"));
        }
    }
    if expect.get("extract").is_some() {
        one(expect, &parsed()?)?;
    }
    for c in expect["checks"].as_array().into_iter().flatten() {
        one(c, &parsed()?).map_err(|e| format!("{e}\nin check {c}\nof {}", parsed().unwrap_or_default()))?;
    }
    Ok(())
}

fn one(c: &Json, body: &Json) -> Result<(), String> {
    let fail = |got: &Json| Err(format!("got {got}"));
    if let Some(path) = c["extract"].as_str() {
        let got = json!(find(body, path));
        if let Some(list) = c.get("list") {
            return if got == *list { Ok(()) } else { fail(&got) };
        }
        if let Some(set) = c.get("set") {
            return if sorted(&got) == sorted(set) { Ok(()) } else { fail(&got) };
        }
        return if got == json!([c["value"]]) { Ok(()) } else { fail(&got) };
    }
    for (key, distinct) in [("count", false), ("count_distinct", true)] {
        if let Some(path) = c[key].as_str() {
            let mut found = sorted(&json!(find(body, path)));
            if distinct {
                found.dedup();
            }
            return if json!(found.len()) == c["equals"] { Ok(()) } else { fail(&json!(found)) };
        }
    }
    if let Some(path) = c["json_at"].as_str() {
        return compare(c, &at(body, path));
    }
    if c.get("where").is_some() {
        let got = field_of(c, body)?;
        if let Some(other) = c.get("equals_field_of") {
            let other = field_of(other, body)?;
            return if got == other { Ok(()) } else { fail(&got) };
        }
        return compare(c, &got);
    }
    if let Some(key) = c["no_key"].as_str() {
        let tags = at(body, c["in"].as_str().unwrap());
        let has = tags.as_array().into_iter().flatten().any(|t| t["key"] == key);
        return if has { fail(&tags) } else { Ok(()) };
    }
    Err("unknown check".into())
}

fn field_of(c: &Json, body: &Json) -> Result<Json, String> {
    let wanted = &c["where"];
    let found: Vec<&Json> = find(body, "data[*].spans[*]")
        .into_iter()
        .filter(|s| s["operationName"] == wanted["operationName"])
        .filter(|s| {
            wanted["tag"].as_object().into_iter().flatten().all(|(k, v)| {
                s["tags"].as_array().into_iter().flatten().any(|t| t["key"] == **k && t["value"] == *v)
            })
        })
        .collect();
    match found.as_slice() {
        [span] => Ok(at(span, c["field"].as_str().unwrap())),
        many => Err(format!("{} spans meet {wanted}", many.len())),
    }
}

fn compare(c: &Json, got: &Json) -> Result<(), String> {
    let list = |v: &Json| v.as_array().cloned().unwrap_or_default();
    let holds = if let Some(expected) = c.get("equals") {
        // A filter yields a list; one element stands for itself.
        got == expected || *got == json!([expected])
    } else if let Some(parts) = c.get("contains") {
        match got {
            Json::String(s) => s.contains(parts.as_str().unwrap_or("\u{0}")),
            _ => list(parts).iter().all(|p| list(got).contains(p)),
        }
    } else if let Some(set) = c.get("set") {
        sorted(got) == sorted(set)
    } else if let Some(set) = c.get("set_contains") {
        list(set).iter().all(|p| list(got).contains(p))
    } else if let Some(keys) = c.get("contains_keys") {
        keys.as_object().unwrap().iter().all(|(k, v)| got.get(k) == Some(v))
    } else {
        return Err("unknown comparison".into());
    };
    if holds { Ok(()) } else { Err(format!("got {got}")) }
}
