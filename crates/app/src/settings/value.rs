//! Types of settings: how each is read from text (environment, flag) and from
//! a file, how it is shown, and what is accepted.

use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// A type that a setting can have.
pub trait Setting: Sized {
    /// What a user may write, for error messages.
    const ACCEPTS: &'static str;
    /// From an environment variable or a flag.
    fn from_text(text: &str) -> Option<Self>;
    /// From a file. Scalars may be quoted.
    fn from_json(value: &Json) -> Option<Self> {
        match value {
            Json::String(s) => Self::from_text(s),
            Json::Number(n) => Self::from_text(&n.to_string()),
            Json::Bool(b) => Self::from_text(&b.to_string()),
            _ => None,
        }
    }
    /// For `check`; secrets are masked.
    fn show(&self) -> String;
}

impl Setting for bool {
    const ACCEPTS: &'static str = "true or false";
    fn from_text(text: &str) -> Option<Self> {
        // Go's strconv.ParseBool, which reads the Agent's variables.
        match text.trim() {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
            _ => None,
        }
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Setting for u64 {
    const ACCEPTS: &'static str = "a whole number, 0 or greater";
    fn from_text(text: &str) -> Option<Self> {
        let text = text.trim();
        text.parse().ok().or_else(|| {
            // YAML and Helm write large numbers as 5e+08.
            let v: f64 = text.parse().ok()?;
            (v >= 0.0 && v.fract() == 0.0 && v < 1e15).then_some(v as Self)
        })
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Setting for u16 {
    const ACCEPTS: &'static str = "a port number from 0 to 65535";
    fn from_text(text: &str) -> Option<Self> {
        text.trim().parse().ok()
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Setting for f64 {
    const ACCEPTS: &'static str = "a number";
    fn from_text(text: &str) -> Option<Self> {
        text.trim().parse().ok().filter(|v: &Self| v.is_finite())
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Setting for String {
    const ACCEPTS: &'static str = "text";
    fn from_text(text: &str) -> Option<Self> {
        Some(text.to_owned())
    }
    fn show(&self) -> String {
        self.clone()
    }
}

/// Text that never reaches a log or an answer.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.show())
    }
}

impl Setting for Secret {
    const ACCEPTS: &'static str = "text";
    fn from_text(text: &str) -> Option<Self> {
        Some(Self(text.trim().to_owned()))
    }
    fn show(&self) -> String {
        if self.0.is_empty() { String::new() } else { "********".into() }
    }
}

/// Bytes, with an optional unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Bytes(pub u64);

impl Setting for Bytes {
    const ACCEPTS: &'static str = "a number of bytes, such as 512MiB or 10GB";
    fn from_text(text: &str) -> Option<Self> {
        let text = text.trim();
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let factor: f64 = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => 1.0,
            "k" | "kb" => 1e3,
            "m" | "mb" => 1e6,
            "g" | "gb" => 1e9,
            "t" | "tb" => 1e12,
            "ki" | "kib" => 1024.0,
            "mi" | "mib" => 1024f64.powi(2),
            "gi" | "gib" => 1024f64.powi(3),
            "ti" | "tib" => 1024f64.powi(4),
            _ => return None,
        };
        let number: f64 = number.parse().ok()?;
        Some(Self((number * factor) as u64))
    }
    fn show(&self) -> String {
        for (unit, size) in [("GiB", 1u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
            if self.0 >= size && self.0.is_multiple_of(size) {
                return format!("{}{unit}", self.0 / size);
            }
        }
        self.0.to_string()
    }
}

impl Setting for Duration {
    const ACCEPTS: &'static str = "a duration, such as 500ms, 30s, 15m, 72h or 7d";
    fn from_text(text: &str) -> Option<Self> {
        let text = text.trim();
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, unit) = text.split_at(digits);
        let seconds = match unit.trim() {
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86400.0,
            _ => return None,
        };
        Self::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()
    }
    fn show(&self) -> String {
        let ms = self.as_millis();
        for (unit, size) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)] {
            if ms >= size && ms.is_multiple_of(size) {
                return format!("{}{unit}", ms / size);
            }
        }
        format!("{ms}ms")
    }
}

/// Where to listen; `None`: switched off (port 0).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address(pub Option<SocketAddr>);

impl Setting for Address {
    const ACCEPTS: &'static str =
        "host:port, such as 127.0.0.1:9411 or 0.0.0.0:9411 (port 0 switches it off)";
    fn from_text(text: &str) -> Option<Self> {
        let text = text.trim();
        let text = text.strip_prefix(':').map_or(text.to_owned(), |port| format!("0.0.0.0:{port}"));
        let text = text.replacen("localhost:", "127.0.0.1:", 1);
        let addr: SocketAddr = text.parse().ok()?;
        Some(Self((addr.port() != 0).then_some(addr)))
    }
    fn show(&self) -> String {
        self.0.map_or("off".into(), |a| a.to_string())
    }
}

fn strings(value: &Json) -> Option<Vec<String>> {
    let list = value.as_array()?;
    list.iter()
        .map(|v| match v {
            Json::String(s) => Some(s.clone()),
            Json::Number(n) => Some(n.to_string()),
            Json::Bool(b) => Some(b.to_string()),
            _ => None,
        })
        .collect()
}

macro_rules! list_type {
    ($(#[$doc:meta])* $name:ident, $accepts:literal, $parse:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Default)]
        pub struct $name(pub Vec<String>);
        impl Setting for $name {
            const ACCEPTS: &'static str = $accepts;
            fn from_text(text: &str) -> Option<Self> {
                let parse: fn(&str) -> Option<Vec<String>> = $parse;
                parse(text).map(Self)
            }
            fn from_json(value: &Json) -> Option<Self> {
                if value.is_null() {
                    return Some(Self::default());
                }
                strings(value).map(Self).or_else(|| Self::from_text(value.as_str()?))
            }
            fn show(&self) -> String {
                serde_json::to_string(&self.0).unwrap_or_default()
            }
        }
    };
}

list_type!(
    /// Comma-separated; quotes protect commas, leading blanks go (datadog-intake §5.1, **C**).
    /// A JSON array, which many write here, is one, too.
    CsvList,
    "a comma-separated list, or a JSON array of strings",
    |text| {
        let array = serde_json::from_str::<Json>(text).ok().as_ref().and_then(strings);
        Some(array.unwrap_or_else(|| split_csv(text)))
    }
);
list_type!(
    /// A JSON array, or words separated by blanks (**JS**).
    JsonOrWords,
    "a JSON array of strings, or words separated by blanks",
    |text| {
        let text = text.trim();
        if text.starts_with('[') && text.ends_with(']') {
            serde_json::from_str::<Json>(text).ok().as_ref().and_then(strings)
        } else {
            Some(text.split_whitespace().map(str::to_owned).collect())
        }
    }
);
list_type!(
    /// Split at commas if there is one, else at blanks (**CS**).
    CommaOrWords,
    "a list separated by commas or blanks",
    |text| {
        let parts: Vec<String> = if text.contains(',') {
            text.split(',').map(|s| s.trim().to_owned()).collect()
        } else {
            text.split_whitespace().map(str::to_owned).collect()
        };
        Some(parts.into_iter().filter(|s| !s.is_empty()).collect())
    }
);
list_type!(
    /// A JSON array (**J**).
    JsonList,
    "a JSON array of strings",
    |text| {
        let text = text.trim();
        if text.is_empty() { Some(Vec::new()) } else { serde_json::from_str::<Json>(text).ok().as_ref().and_then(strings) }
    }
);

fn split_csv(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut field = String::new();
    let mut quoted = false;
    let mut chars = text.trim().chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => out.push(std::mem::take(&mut field)),
            c if c.is_whitespace() && field.is_empty() && !quoted => {}
            c => field.push(c),
        }
    }
    out.push(field);
    out.retain(|f| !f.is_empty());
    out
}

/// URL (or site) → API keys, as in `DD_APM_ADDITIONAL_ENDPOINTS`.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Endpoints(pub BTreeMap<String, Vec<Secret>>);

impl Setting for Endpoints {
    const ACCEPTS: &'static str = r#"a JSON object of URL to keys, such as {"https://host":["key"]}"#;
    fn from_text(text: &str) -> Option<Self> {
        if text.trim().is_empty() {
            return Some(Self::default());
        }
        Self::from_json(&serde_json::from_str(text).ok()?)
    }
    fn from_json(value: &Json) -> Option<Self> {
        match value {
            Json::Null => Some(Self::default()),
            Json::String(s) => Self::from_text(s),
            Json::Object(map) => map
                .iter()
                .map(|(url, keys)| {
                    let keys = keys.as_str().map_or_else(|| strings(keys), |k| Some(vec![k.to_owned()]))?;
                    Some((url.clone(), keys.into_iter().map(|k| Secret(k.trim().to_owned())).collect()))
                })
                .collect::<Option<_>>()
                .map(Self),
            _ => None,
        }
    }
    fn show(&self) -> String {
        let parts: Vec<String> = self.0.iter().map(|(u, k)| format!("{u} ({} keys)", k.len())).collect();
        parts.join(", ")
    }
}

/// Where to listen, if that is said; no default of its own.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Listen(pub Option<Address>);

impl Setting for Listen {
    const ACCEPTS: &'static str = Address::ACCEPTS;
    fn from_text(text: &str) -> Option<Self> {
        Address::from_text(text).map(|a| Self(Some(a)))
    }
    fn show(&self) -> String {
        self.0.as_ref().map(Setting::show).unwrap_or_default()
    }
}

/// A map of names to texts.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Pairs(pub BTreeMap<String, String>);

impl Setting for Pairs {
    const ACCEPTS: &'static str = r#"a JSON object of texts, such as {"team":"web"}"#;
    fn from_text(text: &str) -> Option<Self> {
        Self::from_json(&serde_json::from_str(text).ok()?)
    }
    fn from_json(value: &Json) -> Option<Self> {
        let text = |v: &Json| {
            v.as_str().map_or_else(
                || (!v.is_object() && !v.is_array()).then(|| v.to_string()),
                |s| Some(s.to_owned()),
            )
        };
        match value {
            Json::Null => Some(Self::default()),
            Json::String(s) => Self::from_text(s),
            Json::Object(map) => {
                map.iter().map(|(k, v)| Some((k.clone(), text(v)?))).collect::<Option<_>>().map(Self)
            }
            _ => None,
        }
    }
    fn show(&self) -> String {
        if self.0.is_empty() { String::new() } else { serde_json::to_string(&self.0).unwrap_or_default() }
    }
}

/// Rates by `service|operation` (**AS**).
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Rates(pub BTreeMap<String, f64>);

impl Setting for Rates {
    const ACCEPTS: &'static str =
        "`service|operation=rate,…`, in files also a map of `service|operation` to rate";
    fn from_text(text: &str) -> Option<Self> {
        let entries = text.split(',').map(str::trim).filter(|e| !e.is_empty());
        let rates = entries.map(|entry| {
            let (name, rate) = entry.split_once('=')?;
            (name.contains('|')).then_some(())?;
            Some((name.to_owned(), f64::from_text(rate)?))
        });
        rates.collect::<Option<_>>().map(Self)
    }
    fn from_json(value: &Json) -> Option<Self> {
        match value {
            Json::Null => Some(Self::default()),
            Json::Object(map) => {
                let rates = map.iter().map(|(name, rate)| Some((name.clone(), f64::from_json(rate)?)));
                rates.collect::<Option<_>>().map(Self)
            }
            other => Self::from_text(other.as_str()?),
        }
    }
    fn show(&self) -> String {
        self.0.iter().map(|(name, rate)| format!("{name}={rate}")).collect::<Vec<_>>().join(",")
    }
}

/// Any JSON, checked by the room that uses it (replace rules, analysed spans).
#[derive(Clone, Debug, PartialEq, Default)]
pub struct JsonValue(pub Json);

impl Setting for JsonValue {
    const ACCEPTS: &'static str = "JSON";
    fn from_text(text: &str) -> Option<Self> {
        if text.trim().is_empty() { Some(Self::default()) } else { serde_json::from_str(text).ok().map(Self) }
    }
    fn from_json(value: &Json) -> Option<Self> {
        value.as_str().map_or_else(|| Some(Self(value.clone())), Self::from_text)
    }
    fn show(&self) -> String {
        if self.0.is_null() { String::new() } else { self.0.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_follow_the_agents_syntaxes() {
        assert_eq!(
            CsvList::from_text(r#"GET /a, "b,c" ,d"#).map(|l| l.0),
            Some(vec!["GET /a".into(), "b,c ".into(), "d".into()])
        );
        let array = CsvList::from_text(r#"["GET /a,b", "c"]"#).map(|l| l.0);
        assert_eq!(array, Some(vec!["GET /a,b".into(), "c".into()]));
        let class = CsvList::from_text("[a-z]+,[0-9]").map(|l| l.0);
        assert_eq!(class, Some(vec!["[a-z]+".into(), "[0-9]".into()]), "no array, but expressions");
        assert_eq!(JsonOrWords::from_text("a:b c").map(|l| l.0), Some(vec!["a:b".into(), "c".into()]));
        assert_eq!(
            JsonOrWords::from_text(r#"["a b","c"]"#).map(|l| l.0),
            Some(vec!["a b".into(), "c".into()])
        );
        assert_eq!(CommaOrWords::from_text("a, b").map(|l| l.0), Some(vec!["a".into(), "b".into()]));
        assert_eq!(JsonList::from_text("a"), None);
    }

    #[test]
    fn sizes_durations_and_addresses_read_as_people_write_them() {
        assert_eq!(Bytes::from_text("1.5 GiB"), Some(Bytes(3 << 29)));
        assert_eq!(Bytes(5 << 20).show(), "5MiB");
        assert_eq!(Duration::from_text("7d").map(|d| d.show()), Some("7d".into()));
        assert_eq!(Address::from_text("localhost:9411").map(|a| a.show()), Some("127.0.0.1:9411".into()));
        assert_eq!(Address::from_text("127.0.0.1:0"), Some(Address(None)));
        assert_eq!(Address::from_text("nowhere"), None);
        assert_eq!(u64::from_text("5e+08"), Some(500_000_000));
    }

    #[test]
    fn maps_read_alike_from_variables_and_files() {
        let file = serde_json::json!({"web|http.request": 0.5, "db|query": "1"});
        let rates = Rates::from_json(&file);
        assert_eq!(rates, Rates::from_text("web|http.request=0.5, db|query=1"));
        assert_eq!(rates.map(|r| r.show()).as_deref(), Some("db|query=1,web|http.request=0.5"));
        assert_eq!(Rates::from_text("web=0.5"), None);
        let pairs = Pairs::from_json(&serde_json::json!({"team": "web", "zone": 1}));
        assert_eq!(pairs, Pairs::from_text(r#"{"team":"web","zone":"1"}"#));
        assert_eq!(Pairs::from_text("team:web"), None);
        assert_eq!(Listen::from_text("localhost:4317").map(|l| l.show()).as_deref(), Some("127.0.0.1:4317"));
        assert_eq!(Listen::default().show(), "");
    }

    #[test]
    fn secrets_are_never_shown() {
        let endpoints = Endpoints::from_text(r#"{"https://x":["k1","k2"]}"#).unwrap();
        assert_eq!(endpoints.show(), "https://x (2 keys)");
        assert_eq!(format!("{:?} {}", Secret("k".into()), Secret("k".into()).show()), "******** ********");
    }
}
