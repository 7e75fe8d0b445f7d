//! Headers and targets of each product
//! (datadog-agent:pkg/trace/api/{profiles,evp_proxy,debugger,symdb,openlineage,pipeline_stats,tracer_flare}.go).

use super::config::{Endpoint, ProxyConfig, Secret};
use super::forward::{Plan, Target, headers_of, set};
use super::{Origin, Product};
use crate::answer::{self, Answer};
use crate::server::Request;
use http::header::{HeaderMap, HeaderName};
use http::{StatusCode, Uri};

/// Longest `ddtags` of the debugger's intake, in bytes.
const DDTAGS_BYTES: usize = 4001;

/// Why nothing goes out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refusal {
    /// The product has no usable target: 500 and the text.
    Off(&'static str),
    /// The request breaks the product's rules: 502 and nothing more.
    Invalid(&'static str),
}

impl Refusal {
    pub(super) fn answer(self) -> Answer {
        match self {
            Self::Off(text) => answer::error(StatusCode::INTERNAL_SERVER_ERROR, text),
            Self::Invalid(why) => {
                tracing::debug!(why, "proxied request refused");
                answer::empty(StatusCode::BAD_GATEWAY)
            }
        }
    }
}

/// What goes out for a request.
pub(super) fn prepare(
    config: &ProxyConfig,
    product: Product,
    request: &Request,
    origin: &Origin,
) -> Result<Plan, Refusal> {
    let off = Refusal::Off;
    let plan = match product {
        Product::Profiling => {
            let mut urls = Vec::new();
            if config.profiling_send_to_main_endpoint {
                let main = match (&*config.profiling_dd_url, &*config.site) {
                    ("", "") => "https://intake.profile.datadoghq.com/api/v2/profile".to_owned(),
                    ("", site) => format!("https://intake.profile.{site}/api/v2/profile"),
                    (url, _) => url.to_owned(),
                };
                urls.push((main, &config.api_key));
            }
            urls.extend(config.profiling_additional_endpoints.iter().map(|e| (e.url.clone(), &e.key)));
            let mut tags = base_tags(config, true);
            for (key, value) in &config.additional_profile_tags {
                tags += &format!(",{key}:{value}");
            }
            let headers = tagged(config, request, origin, &tags);
            targets(request, urls, &headers, api_key)
                .ok_or_else(|| off("Profile forwarder is OFF: config was not properly validated"))?
        }
        Product::PipelineStats => {
            let main = or(&config.apm_dd_url, || format!("https://trace.agent.{}", config.site));
            let path = |url: &str| format!("{}/api/v0.1/pipeline_stats", url.trim_end_matches('/'));
            let mut urls = vec![(path(&main), &config.api_key)];
            urls.extend(config.additional_endpoints.iter().map(|e| (path(&e.url), &e.key)));
            let headers = tagged(config, request, origin, &base_tags(config, true));
            targets(request, urls, &headers, api_key)
                .ok_or_else(|| off("Pipeline stats forwarder is OFF: config was not properly validated"))?
        }
        Product::OpenLineage => {
            let version = config.openlineage_api_version;
            let url = |base: &str| {
                if base.contains("://") {
                    format!("{}?api-version={version}", base.trim_end_matches('/'))
                } else {
                    format!("https://data-obs-intake.{base}/api/v1/lineage?api-version={version}")
                }
            };
            let main = or(&config.openlineage_dd_url, || config.site.clone());
            let key = first(&config.openlineage_api_key, &config.api_key);
            let mut urls = vec![(url(&main), key)];
            urls.extend(config.openlineage_additional_endpoints.iter().map(|e| (url(&e.url), &e.key)));
            let headers = tagged(config, request, origin, &base_tags(config, false));
            let bearer =
                |h: &mut HeaderMap, key: &Secret| set(h, "authorization", &format!("Bearer {}", key.0));
            targets(request, urls, &headers, bearer)
                .ok_or_else(|| off("OpenLineage forwarder is OFF: config was not properly validated"))?
        }
        Product::Evp => return evp(config, request, origin),
        Product::DebuggerLogs => {
            debugger(config, request, origin, &config.debugger, "http-intake.logs", "logs")?
        }
        Product::DebuggerDiagnostics | Product::DebuggerV2 => {
            debugger(config, request, origin, &config.debugger_diagnostics, "debugger-intake", "debugger")?
        }
        Product::Symdb => symdb(config, request, origin)?,
        Product::Flare => {
            let url = format!(
                "https://{}/api/ui/support/serverless/flare",
                flare_host(&config.site, &config.version)
            );
            let headers = headers_of(request, true);
            targets(request, vec![(url, &config.api_key)], &headers, api_key)
                .ok_or_else(|| off("Tracer flare is OFF: invalid site"))?
        }
        Product::Telemetry | Product::Dogstatsd => return Err(off("not forwarded here")),
    };
    Ok(plan)
}

fn api_key(headers: &mut HeaderMap, key: &Secret) {
    set(headers, "dd-api-key", &key.0);
}

fn or(setting: &str, default: impl FnOnce() -> String) -> String {
    if setting.is_empty() { default() } else { setting.to_owned() }
}

fn first<'a>(own: &'a Secret, common: &'a Secret) -> &'a Secret {
    if own.is_empty() { common } else { own }
}

/// One target for each URL; `None` if there is none or one is no URL.
fn targets(
    request: &Request,
    urls: Vec<(String, &Secret)>,
    headers: &HeaderMap,
    authorise: impl Fn(&mut HeaderMap, &Secret),
) -> Option<Plan> {
    let mut targets = Vec::new();
    for (url, key) in urls {
        let uri: Uri = url.parse().ok()?;
        uri.host()?;
        let mut headers = headers.clone();
        authorise(&mut headers, key);
        targets.push(Target { uri, headers });
    }
    (!targets.is_empty()).then(|| Plan { method: request.head.method.clone(), targets })
}

fn base_tags(config: &ProxyConfig, orchestrator: bool) -> String {
    let mut tags = format!(
        "host:{},default_env:{},agent_version:{}",
        config.hostname, config.default_env, config.version
    );
    if orchestrator && !config.orchestrator.is_empty() {
        tags += &format!(",orchestrator:{}", config.orchestrator);
    }
    tags
}

pub(super) fn via(config: &ProxyConfig) -> String {
    format!("trace-agent {}", config.version)
}

fn tagged(config: &ProxyConfig, request: &Request, origin: &Origin, tags: &str) -> HeaderMap {
    let mut headers = headers_of(request, true);
    set(&mut headers, "via", &via(config));
    if !origin.tags.is_empty() {
        set(&mut headers, "x-datadog-container-tags", &origin.tags);
    }
    set(&mut headers, "x-datadog-additional-tags", tags);
    headers
}

fn evp(config: &ProxyConfig, request: &Request, origin: &Origin) -> Result<Plan, Refusal> {
    let refuse = Refusal::Invalid;
    let subdomain = request.header("x-datadog-evp-subdomain");
    if subdomain.is_empty() || !subdomain.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b)) {
        return Err(refuse("missing or invalid sub-domain"));
    }
    // `/evp_proxy/vN/` has been matched: what follows is the path.
    let path = request.head.uri.path().splitn(4, '/').nth(3).unwrap_or_default();
    if !path.bytes().all(|b| b.is_ascii_alphanumeric() || b"/_+-".contains(&b)) {
        return Err(refuse("invalid path"));
    }
    let query = request.head.uri.query().unwrap_or_default();
    let valid = |b: &u8| b.is_ascii_alphanumeric() || b"/_-+@?&=.:\"[]".contains(b);
    if !unescape(query).is_some_and(|q| q.iter().all(valid)) {
        return Err(refuse("invalid query"));
    }
    let mut headers = HeaderMap::new();
    for name in crate::datadog::EVP_HEADERS {
        let Ok(name) = HeaderName::try_from(name) else { continue };
        for value in request.head.headers.get_all(&name) {
            headers.append(name.clone(), value.clone());
        }
    }
    set(&mut headers, "via", &via(config));
    set(&mut headers, "datadog-container-id", &origin.container);
    if !origin.tags.is_empty() {
        set(&mut headers, "x-datadog-container-tags", &origin.tags);
    }
    set(&mut headers, "x-datadog-hostname", &config.hostname);
    set(&mut headers, "x-datadog-agentdefaultenv", &config.default_env);
    let timeout = super::seconds(config.evp_receiver_timeout, 30).as_secs();
    set(&mut headers, "x-datadog-timeout", &timeout.to_string());
    if config.error_tracking_standalone {
        set(&mut headers, "x-datadog-error-tracking-standalone", "true");
    }
    if request.header("x-datadog-needsappkey").eq_ignore_ascii_case("true") {
        if config.app_key.is_empty() {
            return Err(refuse("an application key is asked for and none is set"));
        }
        set(&mut headers, "dd-application-key", &config.app_key.0);
    }
    let main = Endpoint {
        url: or(&config.evp_dd_url, || config.site.clone()),
        key: first(&config.evp_api_key, &config.api_key).clone(),
    };
    let question = if query.is_empty() { String::new() } else { format!("?{query}") };
    let urls = std::iter::once(&main)
        .chain(&config.evp_additional_endpoints)
        .map(|e| (format!("https://{subdomain}.{}/{path}{question}", e.url), &e.key))
        .collect();
    targets(request, urls, &headers, api_key).ok_or_else(|| refuse("invalid site"))
}

/// Percent-decodes; `+` is a blank.
fn unescape(query: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(query.len());
    let mut bytes = query.bytes();
    while let Some(b) = bytes.next() {
        out.push(match b {
            b'%' => {
                let hex = [bytes.next()?, bytes.next()?];
                u8::from_str_radix(std::str::from_utf8(&hex).ok().filter(|h| !h.starts_with('+'))?, 16)
                    .ok()?
            }
            b => b,
        });
    }
    Some(out)
}

/// Base, container, and the client's own tags.
fn debugger_tags(config: &ProxyConfig, request: &Request, origin: &Origin, ddtags: &str) -> String {
    let mut tags = base_tags(config, true);
    for more in [&*origin.tags, request.header("x-datadog-additional-tags"), ddtags] {
        if !more.is_empty() {
            tags.push(',');
            tags += more;
        }
    }
    tags
}

fn debugger(
    config: &ProxyConfig,
    request: &Request,
    origin: &Origin,
    (url, key, additional): &(String, Secret, Vec<Endpoint>),
    host: &str,
    track: &str,
) -> Result<Plan, Refusal> {
    let query = request.head.uri.query().unwrap_or_default();
    let mut pairs: Vec<(String, String)> = query
        .split('&')
        .filter(|p| !p.is_empty())
        .map(|p| p.split_once('=').unwrap_or((p, "")))
        .map(|(k, v)| (form(k), form(v)))
        .collect();
    let ddtags = pairs.iter().find(|(k, _)| k == "ddtags").map(|(_, v)| v.clone()).unwrap_or_default();
    pairs.retain(|(k, _)| k != "ddtags");
    let mut tags = debugger_tags(config, request, origin, &ddtags);
    tags.truncate(tags.floor_char_boundary(DDTAGS_BYTES));
    pairs.push(("ddtags".into(), tags));
    pairs.sort_by(|a, b| a.0.cmp(&b.0));
    let query: Vec<String> = pairs.iter().map(|(k, v)| format!("{}={}", escape(k), escape(v))).collect();
    let query = query.join("&");
    let mut headers = headers_of(request, true);
    set(&mut headers, "dd-request-id", &uuid4());
    set(&mut headers, "dd-evp-origin", "agent-debugger");
    intake(config, request, &headers, url, key, additional, host, track, &query)
        .ok_or(Refusal::Off("Debugger Proxy is OFF: invalid intake URL"))
}

fn symdb(config: &ProxyConfig, request: &Request, origin: &Origin) -> Result<Plan, Refusal> {
    let (url, key, additional) = &config.symdb;
    let mut headers = headers_of(request, true);
    set(&mut headers, "dd-request-id", &uuid4());
    set(&mut headers, "dd-evp-origin", "agent-symdb");
    set(&mut headers, "x-datadog-additional-tags", &debugger_tags(config, request, origin, ""));
    let query = request.head.uri.query().unwrap_or_default();
    intake(config, request, &headers, url, key, additional, "debugger-intake", "debugger", query)
        .ok_or(Refusal::Off("SymDB Proxy is OFF: invalid intake URL"))
}

#[allow(clippy::too_many_arguments)] // the two debugger products differ in all of them
fn intake(
    config: &ProxyConfig,
    request: &Request,
    headers: &HeaderMap,
    url: &str,
    key: &Secret,
    additional: &[Endpoint],
    host: &str,
    track: &str,
    query: &str,
) -> Option<Plan> {
    let question = if query.is_empty() { String::new() } else { format!("?{query}") };
    let main = or(url, || format!("https://{host}.{}/api/v2/{track}", config.site));
    let mut urls = vec![(format!("{main}{question}"), first(key, &config.api_key))];
    urls.extend(additional.iter().map(|e| (format!("{}{question}", e.url), &e.key)));
    targets(request, urls, headers, api_key)
}

/// Where flares go: `7-80-2-flare.datadoghq.com`.
fn flare_host(site: &str, version: &str) -> String {
    let app = if site.matches('.').count() == 1 { format!("app.{site}") } else { site.to_owned() };
    let known = ["datadoghq.com", "datadoghq.eu", "ddog-gov.com"];
    if !known.iter().any(|k| app.ends_with(k)) {
        return app;
    }
    let mut numbers = version.split(['.', '-', '+']).take(3);
    let parts: Vec<&str> = numbers.by_ref().filter(|n| n.bytes().all(|b| b.is_ascii_digit())).collect();
    match (parts.as_slice(), app.split_once('.')) {
        ([major, minor, patch], Some((_, rest))) => format!("{major}-{minor}-{patch}-flare.{rest}"),
        _ => app,
    }
}

/// Decodes a form value.
fn form(text: &str) -> String {
    let plain = text.replace('+', " ");
    unescape(&plain).map_or(plain.clone(), |b| String::from_utf8_lossy(&b).into_owned())
}

/// Encodes a form value, as Go's `url.QueryEscape` does.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for b in text.bytes() {
        match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(b)),
            b' ' => out.push('+'),
            b => out.push_str(&format!("%{b:02X}")),
        }
    }
    out
}

/// A random version 4 UUID. Hash keys of the standard library are random
/// enough for an id that only has to differ.
fn uuid4() -> String {
    use std::hash::{BuildHasher, Hasher};
    let random = || std::collections::hash_map::RandomState::new().build_hasher().finish();
    let (a, b) = (random(), random());
    format!(
        "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
        a >> 32,
        a >> 16 & 0xffff,
        a & 0xfff,
        b >> 48 & 0x3fff | 0x8000,
        b & 0xffff_ffff_ffff
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flares_go_to_the_host_of_the_version() {
        for (site, version, host) in [
            ("datadoghq.com", "7.80.2", "7-80-2-flare.datadoghq.com"),
            ("datadoghq.eu", "7.80.2-rc.1", "7-80-2-flare.datadoghq.eu"),
            ("us3.datadoghq.com", "7.80.2", "7-80-2-flare.datadoghq.com"),
            ("datadoghq.com", "dev", "app.datadoghq.com"),
            ("example.test", "7.80.2", "app.example.test"),
        ] {
            assert_eq!(flare_host(site, version), host);
        }
    }

    #[test]
    fn request_ids_are_version_4_uuids() {
        let id = uuid4();
        assert_eq!(id.len(), 36);
        assert_eq!(id.split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
        assert_eq!(&id[14..15], "4");
        assert!("89ab".contains(&id[19..20]));
        assert_ne!(id, uuid4());
    }

    #[test]
    fn forms_are_decoded_and_encoded_as_go_does() {
        assert_eq!(form("a%3Ab+c"), "a:b c");
        assert_eq!(escape("a:b c~"), "a%3Ab+c~");
        assert_eq!(unescape("%zz"), None);
        assert_eq!(unescape("%4"), None);
    }
}
