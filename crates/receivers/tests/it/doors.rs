//! All receivers but Datadog's in this process.

use crate::support::*;
use http_body_util::{BodyExt, Full};
use spanloom_model::Batch;
use spanloom_pipeline::{Config, Destination, DiscardStats, Pipeline, Rates, Snapshot, Stop};
use spanloom_receivers::{Handler, Listener, ServerConfig, jaeger, otlp, serve, zipkin};
use std::sync::Arc;
use std::time::Duration;

pub struct Doors {
    pub pipeline: Arc<Pipeline>,
    pub store: Arc<Recorder>,
    pub rates: Rates,
    pub stop: Stop,
    pub zipkin: u16,
    pub otlp_http: u16,
    pub otlp_grpc: u16,
    pub jaeger_http: u16,
    pub jaeger_grpc: u16,
    pub sampling: u16,
    pub sampling_grpc: u16,
    pub compact: std::net::SocketAddr,
    pub binary: std::net::SocketAddr,
    servers: Vec<tokio::task::JoinHandle<()>>,
}

pub struct Plan {
    pub pipeline: Config,
    pub zipkin: zipkin::Config,
    pub fallback: Option<Arc<dyn Handler>>,
    pub otlp: otlp::Config,
    pub jaeger: jaeger::Config,
    pub udp: jaeger::UdpConfig,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            pipeline: Config { workers: 1, ..Config::default() },
            zipkin: zipkin::Config::default(),
            fallback: None,
            otlp: otlp::Config::default(),
            jaeger: jaeger::Config::default(),
            udp: jaeger::UdpConfig::default(),
        }
    }
}

pub async fn open() -> Doors {
    open_with(Plan::default()).await
}

pub async fn open_with(plan: Plan) -> Doors {
    let (store, rates) = (Arc::new(Recorder::default()), Rates::default());
    let pipeline = Pipeline::start(
        plan.pipeline,
        Arc::new(FixedClock),
        Arc::new(|_| Vec::new()),
        vec![Destination::store("store", store.clone())],
        Arc::new(DiscardStats),
        rates.clone(),
        Arc::default(),
    );
    let pipeline = Arc::new(pipeline.unwrap());
    let (stop, mut servers) = (Stop::default(), Vec::new());
    let zipkin = Arc::new(zipkin::Receiver::new(plan.zipkin, pipeline.inlet(), plan.fallback));
    let otlp_http = Arc::new(otlp::HttpReceiver::new(plan.otlp.clone(), pipeline.inlet()));
    let otlp_grpc = Arc::new(otlp::GrpcReceiver::new(plan.otlp, pipeline.inlet()));
    let jaeger_http = Arc::new(jaeger::HttpReceiver::new(plan.jaeger.clone(), pipeline.inlet()));
    let told = jaeger::Sampling::new(rates.clone(), "none");
    let jaeger_grpc =
        Arc::new(jaeger::GrpcReceiver::new(plan.jaeger.clone(), pipeline.inlet(), told.clone()));
    let sampling_grpc =
        Arc::new(jaeger::SamplingGrpcHandler::new(plan.jaeger, pipeline.inlet(), told.clone()));
    let sampling = Arc::new(jaeger::SamplingHandler::new(told));
    let all: [(ServerConfig, Arc<dyn Handler>); 7] = [
        (zipkin.server_config(), zipkin),
        (otlp_http.server_config(), otlp_http),
        (otlp_grpc.server_config(), otlp_grpc),
        (jaeger_http.server_config(), jaeger_http),
        (jaeger_grpc.server_config(), jaeger_grpc),
        (sampling.server_config(), sampling),
        (sampling_grpc.server_config(), sampling_grpc),
    ];
    let mut ports = [0; 7];
    for (port, (config, handler)) in ports.iter_mut().zip(all) {
        let listener = Listener::tcp("127.0.0.1", 0).await.unwrap();
        *port = listener.port().unwrap();
        servers.push(tokio::spawn(serve(listener, config, handler, Arc::default(), stop.watch())));
    }
    let any = "127.0.0.1:0".parse().unwrap();
    let compact = jaeger::UdpReceiver::compact(any, plan.udp.clone(), pipeline.inlet()).unwrap();
    let binary = jaeger::UdpReceiver::binary(any, plan.udp, pipeline.inlet()).unwrap();
    let (at_compact, at_binary) = (compact.address().unwrap(), binary.address().unwrap());
    servers.push(tokio::spawn(compact.run(stop.watch())));
    servers.push(tokio::spawn(binary.run(stop.watch())));
    let [zipkin, otlp_http, otlp_grpc, jaeger_http, jaeger_grpc, sampling, sampling_grpc] = ports;
    Doors {
        pipeline,
        store,
        rates,
        stop,
        zipkin,
        otlp_http,
        otlp_grpc,
        jaeger_http,
        jaeger_grpc,
        sampling,
        sampling_grpc,
        compact: at_compact,
        binary: at_binary,
        servers,
    }
}

impl Doors {
    /// Stops everything and gives the final counts.
    pub async fn finish(self) -> Snapshot {
        self.stop.request();
        for server in self.servers {
            server.await.unwrap();
        }
        assert!(self.pipeline.drain(Duration::from_secs(30)).await.complete);
        let snapshot = self.pipeline.ledger().snapshot();
        assert!(snapshot.adds_up(), "{snapshot:?}");
        assert_eq!(self.pipeline.inlet().budget().used(), 0);
        snapshot
    }

    /// Everything that was stored, and nothing of it twice.
    pub fn take(&self) -> Vec<Arc<Batch>> {
        std::mem::take(&mut *self.store.batches.lock().unwrap())
    }

    /// Spans stored since the last look.
    pub fn spans(&self) -> usize {
        self.take().iter().map(|b| b.spans.len()).sum()
    }
}

/// One request on its own connection; `None`: closed without an answer.
pub async fn raw(port: u16, bytes: &[u8]) -> Option<Reply> {
    exchange(&mut tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap(), bytes).await
}

pub async fn post(port: u16, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
    raw(port, &request("POST", path, headers, Some(body))).await.expect("an answer")
}

/// The same over HTTP/2 with prior knowledge. Trailers are among the headers.
pub async fn post_h2(port: u16, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Reply {
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (mut send, connection) = hyper::client::conn::http2::handshake(
        hyper_util::rt::TokioExecutor::new(),
        hyper_util::rt::TokioIo::new(stream),
    )
    .await
    .unwrap();
    let driver = tokio::spawn(connection);
    let mut request = http::Request::post(format!("http://127.0.0.1:{port}{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response =
        send.send_request(request.body(Full::new(bytes::Bytes::from(body))).unwrap()).await.unwrap();
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap();
    let trailers = body.trailers().cloned().unwrap_or_default();
    let text =
        |(k, v): (&http::HeaderName, &http::HeaderValue)| (k.to_string(), v.to_str().unwrap().to_owned());
    let headers = head.headers.iter().chain(trailers.iter()).map(text).collect();
    drop(send);
    driver.await.unwrap().unwrap();
    Reply {
        status: head.status.as_u16(),
        version: format!("{:?}", head.version),
        headers,
        body: body.to_bytes().to_vec(),
    }
}

pub fn any<'a>(reply: &'a Reply, name: &str) -> Option<&'a str> {
    reply.headers.iter().find(|(k, _)| k.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
}

pub fn gzip(data: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut w = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    w.write_all(data).unwrap();
    w.finish().unwrap()
}

/// A few kilobytes that become 200 MiB.
pub fn bomb() -> Vec<u8> {
    use std::io::Write;
    let mut w = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    for _ in 0..200 {
        w.write_all(&[b' '; 1 << 20]).unwrap();
    }
    w.finish().unwrap()
}

pub fn fixture(path: &str) -> Vec<u8> {
    std::fs::read(fixtures().join(path)).unwrap()
}
