//! What is forwarded, and how.

use crate::support::*;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use spanloom_receivers::datadog::Config;
use spanloom_receivers::proxy::*;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

#[derive(Clone, Debug)]
struct Sent {
    method: String,
    url: String,
    headers: BTreeMap<String, String>,
    body: Bytes,
}

/// Notes what would go out, and answers as told.
#[derive(Default)]
struct Intake {
    sent: Mutex<Vec<Sent>>,
    status: Mutex<u16>,
    fail: Mutex<Option<ClientError>>,
}

impl HttpClient for Intake {
    fn send(&self, request: Outgoing) -> SendFuture<'_> {
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let headers =
                head.headers.iter().map(|(k, v)| (k.to_string(), v.to_str().unwrap().to_owned())).collect();
            let sent = Sent { method: head.method.to_string(), url: head.uri.to_string(), headers, body };
            self.sent.lock().unwrap().push(sent);
            if let Some(error) = self.fail.lock().unwrap().clone() {
                return Err(error);
            }
            let status = match *self.status.lock().unwrap() {
                0 => 200,
                status => status,
            };
            let answer = http::Response::builder()
                .status(status)
                .header("x-intake", "yes")
                .header("connection", "x-hop");
            let body = Full::new(Bytes::from_static(b"from the intake"))
                .map_err(|never| match never {})
                .boxed_unsync();
            Ok(answer.header("x-hop", "1").body(body).unwrap())
        })
    }
}

impl Intake {
    fn take(&self) -> Vec<Sent> {
        std::mem::take(&mut self.sent.lock().unwrap())
    }
}

const CONTAINER: (&str, &str) = ("Datadog-Container-ID", "abc");

async fn started(change: impl FnOnce(&mut ProxyConfig)) -> (Running, Arc<Intake>) {
    let mut proxy = ProxyConfig {
        api_key: Secret("key1".into()),
        hostname: "h1".into(),
        default_env: "prod".into(),
        ..ProxyConfig::default()
    };
    change(&mut proxy);
    let intake = Arc::new(Intake::default());
    let mut setup = Setup {
        config: Config { proxy, ..Config::default() },
        client: Some(intake.clone()),
        ..Setup::default()
    };
    setup.containers.tags.insert("abc".into(), vec!["pod:x\ny".into(), "zone:z".into()]);
    (start_with(setup).await, intake)
}

fn key(key: &str) -> Secret {
    Secret(key.into())
}

#[tokio::test]
async fn each_product_goes_to_its_own_intake() {
    let (r, intake) = started(|_| ()).await;
    for (path, url) in [
        ("/profiling/v1/input?a=b", "https://intake.profile.datadoghq.com/api/v2/profile"),
        ("/v0.1/pipeline_stats", "https://trace.agent.datadoghq.com/api/v0.1/pipeline_stats"),
        ("/openlineage/api/v1/lineage", "https://data-obs-intake.datadoghq.com/api/v1/lineage?api-version=2"),
        ("/debugger/v1/diagnostics", "https://debugger-intake.datadoghq.com/api/v2/debugger?ddtags="),
        ("/debugger/v2/input", "https://debugger-intake.datadoghq.com/api/v2/debugger?ddtags="),
        ("/debugger/v1/input", "https://http-intake.logs.datadoghq.com/api/v2/logs?ddtags="),
        ("/symdb/v1/input?x=y", "https://debugger-intake.datadoghq.com/api/v2/debugger?x=y"),
        ("/tracer_flare/v1?x=y", "https://7-80-2-flare.datadoghq.com/api/ui/support/serverless/flare"),
    ] {
        let reply = r.send("PUT", path, &[("X-Own", "1")], b"payload").await;
        assert_eq!((reply.status, reply.text().as_str()), (200, "from the intake"), "{path}");
        assert_eq!(reply.header("X-Intake"), Some("yes"));
        assert_eq!(reply.header("X-Hop"), None);
        assert_eq!(reply.header("Datadog-Agent-Version"), Some("7.80.2"));
        let sent = &intake.take()[0];
        assert!(sent.url.starts_with(url), "{} for {path}", sent.url);
        assert_eq!((sent.method.as_str(), &sent.body[..]), ("PUT", &b"payload"[..]));
        let header = |name: &str| sent.headers.get(name).map(String::as_str);
        assert_eq!(header("x-own"), Some("1"));
        // The client named none, and we are not the client.
        assert_eq!(header("user-agent"), None);
        assert_eq!(header("x-forwarded-for"), Some("127.0.0.1"));
        assert_eq!(header("connection"), None);
        let lineage = path.starts_with("/openlineage");
        assert_eq!(header("dd-api-key"), (!lineage).then_some("key1"));
        assert_eq!(header("authorization"), lineage.then_some("Bearer key1"));
    }
    r.finish().await;
}

#[tokio::test]
async fn profiles_carry_tags_and_a_202_becomes_200() {
    let (r, intake) = started(|c| {
        c.orchestrator = "fargate_ecs".into();
        c.additional_profile_tags = vec![("team".into(), "a".into())];
        c.profiling_additional_endpoints =
            vec![Endpoint { url: "https://other.test/p".into(), key: key("key2") }];
    })
    .await;
    *intake.status.lock().unwrap() = 202;
    let reply = r.post("/profiling/v1/input", &[CONTAINER], b"p").await;
    assert_eq!(reply.status, 200);
    while intake.sent.lock().unwrap().len() < 2 {
        tokio::task::yield_now().await;
    }
    let sent = intake.take();
    let header = |i: usize, name: &str| sent[i].headers.get(name).cloned().unwrap_or_default();
    assert_eq!(header(0, "via"), "trace-agent 7.80.2");
    assert_eq!(header(0, "x-datadog-container-tags"), "pod:x_y,zone:z");
    let tags = "host:h1,default_env:prod,agent_version:7.80.2,orchestrator:fargate_ecs,team:a";
    assert_eq!(header(0, "x-datadog-additional-tags"), tags);
    assert_eq!((header(0, "dd-api-key").as_str(), header(1, "dd-api-key").as_str()), ("key1", "key2"));
    assert_eq!(sent[1].url, "https://other.test/p");
    for (error, status) in [(ClientError::Timeout, 408), (ClientError::Other("refused".into()), 502)] {
        *intake.fail.lock().unwrap() = Some(error.clone());
        let reply = r.post("/profiling/v1/input", &[], b"p").await;
        assert_eq!((reply.status, reply.text()), (status, error.to_string()));
        let reply = r.post("/debugger/v1/input", &[], b"p").await;
        assert_eq!((reply.status, reply.text().as_str()), (502, ""));
    }
    r.finish().await;
}

#[tokio::test]
async fn without_the_main_target_and_others_profiles_are_off() {
    let (r, _) = started(|c| c.profiling_send_to_main_endpoint = false).await;
    let reply = r.post("/profiling/v1/input", &[], b"p").await;
    assert_eq!(reply.status, 500);
    assert!(reply.text().starts_with("Profile forwarder is OFF: "));
    r.finish().await;
}

#[tokio::test]
async fn events_go_where_they_ask_with_five_headers_of_their_own() {
    let (r, intake) = started(|c| {
        c.app_key = key("app");
        c.error_tracking_standalone = true;
        c.evp_additional_endpoints = vec![Endpoint { url: "eu.test".into(), key: key("key2") }];
    })
    .await;
    let headers = [
        CONTAINER,
        ("X-Datadog-EVP-Subdomain", "citestcycle-intake"),
        ("X-Datadog-NeedsAppKey", "TRUE"),
        ("Content-Type", "application/msgpack"),
        ("DD-CI-PROVIDER-NAME", "github"),
        ("X-Secret", "no"),
        ("Cookie", "no"),
    ];
    let path = "/evp_proxy/v2/api/v2/citestcycle?a=b%20".replace("%20", "%22x%22");
    assert_eq!(r.post(&path, &headers, b"events").await.status, 200);
    while intake.sent.lock().unwrap().len() < 2 {
        tokio::task::yield_now().await;
    }
    let sent = intake.take();
    assert_eq!(sent[0].url, "https://citestcycle-intake.datadoghq.com/api/v2/citestcycle?a=b%22x%22");
    assert_eq!(sent[1].url, "https://citestcycle-intake.eu.test/api/v2/citestcycle?a=b%22x%22");
    let expected = [
        ("content-type", "application/msgpack"),
        ("datadog-container-id", "abc"),
        ("dd-api-key", "key1"),
        ("dd-application-key", "app"),
        ("dd-ci-provider-name", "github"),
        ("via", "trace-agent 7.80.2"),
        ("x-datadog-agentdefaultenv", "prod"),
        ("x-datadog-container-tags", "pod:x_y,zone:z"),
        ("x-datadog-error-tracking-standalone", "true"),
        ("x-datadog-hostname", "h1"),
        ("x-datadog-timeout", "30"),
    ];
    let expected: BTreeMap<String, String> = expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    assert_eq!(sent[0].headers, expected);
    r.finish().await;
}

#[tokio::test]
async fn events_that_break_the_rules_go_nowhere() {
    let (r, intake) = started(|c| c.evp_max_payload_size = 10).await;
    let sub = ("X-Datadog-EVP-Subdomain", "x");
    for (path, headers, body) in [
        ("/evp_proxy/v1/a", vec![], &b"ok"[..]),
        ("/evp_proxy/v1/a", vec![("X-Datadog-EVP-Subdomain", "x/y")], b"ok"),
        ("/evp_proxy/v1/a%20b", vec![sub], b"ok"),
        ("/evp_proxy/v1/a?q=%00", vec![sub], b"ok"),
        ("/evp_proxy/v1/a?q=%zz", vec![sub], b"ok"),
        ("/evp_proxy/v1/a", vec![sub, ("X-Datadog-NeedsAppKey", "true")], b"ok"),
        ("/evp_proxy/v1/a", vec![sub], b"more than ten bytes"),
    ] {
        let reply = r.post(path, &headers, body).await;
        assert_eq!((reply.status, reply.text().as_str()), (502, ""), "{path} {headers:?}");
    }
    assert!(intake.take().is_empty());
    r.finish().await;
    let (r, _) = started(|c| c.evp_enabled = false).await;
    let reply = r.post("/evp_proxy/v1/a", &[sub], b"").await;
    assert_eq!(
        (reply.status, reply.text().as_str()),
        (405, "EVPProxy is disabled: Has been disabled in config\n")
    );
    assert!(!r.post("/info", &[], b"").await.text().contains("evp_proxy/v"));
    r.finish().await;
}

#[tokio::test]
async fn debugger_tags_are_joined_and_cut() {
    let (r, intake) = started(|_| ()).await;
    let path = "/debugger/v1/input?z=1&ddtags=own%3Atag&a=2";
    r.post(path, &[CONTAINER, ("X-Datadog-Additional-Tags", "more:tags")], b"d").await;
    let sent = intake.take();
    let base = "host%3Ah1%2Cdefault_env%3Aprod%2Cagent_version%3A7.80.2";
    let tags = format!("{base}%2Cpod%3Ax_y%2Czone%3Az%2Cmore%3Atags%2Cown%3Atag");
    assert_eq!(
        sent[0].url,
        format!("https://http-intake.logs.datadoghq.com/api/v2/logs?a=2&ddtags={tags}&z=1")
    );
    assert_eq!(sent[0].headers["dd-evp-origin"], "agent-debugger");
    assert_eq!(sent[0].headers["dd-request-id"].len(), 36);
    let long = format!("/debugger/v1/diagnostics?ddtags={}", "x".repeat(5000));
    r.post(&long, &[], b"d").await;
    let url = intake.take().remove(0).url;
    let tags = url.split_once("ddtags=").unwrap().1.replace("%3A", ":").replace("%2C", ",");
    assert_eq!(tags.len(), 4001);
    r.post("/symdb/v1/input", &[CONTAINER], b"d").await;
    let sent = intake.take();
    assert_eq!(sent[0].headers["dd-evp-origin"], "agent-symdb");
    assert!(sent[0].headers["x-datadog-additional-tags"].ends_with(",pod:x_y,zone:z"));
    r.finish().await;
    let (r, intake) = started(|c| c.logs_muted = true).await;
    for path in ["/debugger/v1/input", "/debugger/v2/input", "/debugger/v1/diagnostics"] {
        assert_eq!(r.post(path, &[], b"d").await.status, 200);
    }
    assert_eq!(intake.take().len(), 1, "diagnostics are not muted");
    r.finish().await;
}

#[tokio::test]
async fn telemetry_is_answered_first_and_forwarded_with_identity() {
    let (r, intake) = started(|c| c.install = Some(("i".into(), "t".into(), "9".into()))).await;
    *intake.fail.lock().unwrap() = Some(ClientError::Timeout);
    let reply = r.post("/telemetry/proxy/api/v2/apmtelemetry?q=1", &[CONTAINER], b"t").await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "{}"));
    r.receiver.finish().await;
    let sent = intake.take();
    assert_eq!(sent[0].url, "https://instrumentation-telemetry-intake.datadoghq.com/api/v2/apmtelemetry?q=1");
    for (name, value) in [
        ("dd-api-key", "key1"),
        ("dd-agent-hostname", "h1"),
        ("dd-agent-env", "prod"),
        ("datadog-container-id", "abc"),
        ("dd-agent-install-id", "i"),
        ("dd-agent-install-type", "t"),
        ("dd-agent-install-time", "9"),
        ("via", "trace-agent 7.80.2"),
    ] {
        assert_eq!(sent[0].headers[name], value);
    }
    r.finish().await;
    let (r, _) = started(|c| c.telemetry_enabled = false).await;
    assert_eq!(r.post("/telemetry/proxy/api/v2/apmtelemetry", &[], b"").await.status, 404);
    r.finish().await;
}

/// Never answers.
struct Stuck;
impl HttpClient for Stuck {
    fn send(&self, _: Outgoing) -> SendFuture<'_> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test]
async fn telemetry_beyond_the_bounds_is_refused() {
    let proxy = ProxyConfig { api_key: key("k"), ..ProxyConfig::default() };
    let config = Config { proxy, receiver_timeout: 1, ..Config::default() };
    let r = start_with(Setup { config, client: Some(Arc::new(Stuck)), ..Setup::default() }).await;
    let mut refused = 0;
    for _ in 0..101 {
        refused += u32::from(r.post("/telemetry/proxy/x", &[], b"t").await.status == 429);
    }
    assert_eq!(refused, 1);
    // Other products wait for their answer until the time-out.
    assert_eq!(r.post("/symdb/v1/input", &[], b"d").await.status, 502);
    drop(r);
}

#[tokio::test]
async fn metric_lines_become_datagrams() {
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = socket.local_addr().unwrap().port();
    let (r, _) = started(|c| c.statsd_port = port).await;
    assert_eq!(r.post("/dogstatsd/v2/proxy", &[], b"a:1|c\n\nb:2|g").await.status, 200);
    let mut lines = Vec::new();
    for _ in 0..3 {
        let mut line = [0; 100];
        let n = socket.recv(&mut line).await.unwrap();
        lines.push(String::from_utf8(line[..n].to_vec()).unwrap());
    }
    assert_eq!(lines, ["a:1|c", "", "b:2|g"]);
    r.finish().await;
    for (change, text) in [
        ((|c| c.use_dogstatsd = false) as fn(&mut ProxyConfig), "503 Status Unavailable\n"),
        (
            |c| c.statsd_port = 0,
            "Agent dogstatsd UDP port not configured, but required for dogstatsd proxy.\n",
        ),
    ] {
        let (r, _) = started(change).await;
        let reply = r.post("/dogstatsd/v1/proxy", &[], b"a").await;
        assert_eq!((reply.status, reply.text().as_str()), (503, text));
        r.finish().await;
    }
}
