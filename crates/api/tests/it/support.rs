//! A server on a free port, and a client.

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value as Json;
use spanloom_api::{Api, Config, Door, ServeConfig, serve};
use spanloom_model::draft::{Draft, batch};
use spanloom_model::memory::MemoryStore;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;

/// 2026-01-15T10:00:00Z.
pub const NOW: i64 = 1_768_471_200_000_000_000;

pub struct Server {
    pub store: Arc<MemoryStore>,
    pub query: SocketAddr,
    pub zipkin: SocketAddr,
    pub tempo: SocketAddr,
    client: Client<HttpConnector, Full<Bytes>>,
}

pub struct Answer {
    pub status: u16,
    pub response: Response<()>,
    pub body: Bytes,
}

impl Answer {
    pub fn json(&self) -> Json {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&self.body)))
    }
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
    pub fn header(&self, name: &str) -> &str {
        self.response.headers().get(name).map_or("", |v| v.to_str().unwrap())
    }
}

pub fn config() -> Config {
    Config { now: || NOW, ..Config::default() }
}

impl Server {
    pub async fn new(spans: &[Draft]) -> Self {
        let store = Arc::new(MemoryStore::new());
        store.insert(&batch(spans));
        let api = Api::new(store.clone(), config());
        Self::over(store, api).await
    }

    pub async fn over(store: Arc<MemoryStore>, api: Api) -> Self {
        let mut at = Vec::new();
        for door in [Door::Query, Door::Zipkin, Door::Tempo] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            at.push(listener.local_addr().unwrap());
            tokio::spawn(serve(listener, api.clone(), door, ServeConfig::default(), std::future::pending()));
        }
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { store, query: at[0], zipkin: at[1], tempo: at[2], client }
    }

    pub async fn call(&self, door: Door, method: Method, path: &str, body: &str) -> Answer {
        self.call_for("", door, method, path, body).await
    }

    /// With the media types that are wanted.
    pub async fn call_for(&self, accept: &str, door: Door, method: Method, path: &str, body: &str) -> Answer {
        let at = match door {
            Door::Query => self.query,
            Door::Zipkin => self.zipkin,
            Door::Tempo => self.tempo,
        };
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{at}{path}"))
            .header("accept", accept)
            .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))
            .unwrap();
        let (head, body) = self.client.request(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer { status: head.status.as_u16(), response: Response::from_parts(head, ()), body }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call(Door::Query, Method::GET, path, "").await
    }

    pub async fn zipkin(&self, path: &str) -> Answer {
        self.call(Door::Zipkin, Method::GET, path, "").await
    }

    pub async fn tempo(&self, path: &str) -> Answer {
        self.call(Door::Tempo, Method::GET, path, "").await
    }
}
