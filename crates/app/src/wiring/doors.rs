//! Settings → the receivers of Zipkin, OTLP and Jaeger.

use super::{convert, ports, receive};
use crate::settings::{Listen, Settings};
use http_body_util::{BodyExt, Limited};
use spanloom_api::{Api, Door};
use spanloom_pipeline::Inlet;
use spanloom_receivers::jaeger::{self, UdpConfig, UdpReceiver};
use spanloom_receivers::{Answer, AnswerBody, Cors, Handler, HandlerFuture, Listener, Request, ServerConfig};
use spanloom_receivers::{otlp, zipkin};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// Largest body of a question to Zipkin's query API.
const QUESTION: usize = 1 << 20;

/// Bound, not served yet.
pub struct Doors {
    zipkin: Option<Listener>,
    otlp_grpc: Option<Listener>,
    otlp_http: Option<Listener>,
    jaeger_http: Option<Listener>,
    jaeger_grpc: Option<Listener>,
    sampling: Option<Listener>,
    sampling_grpc: Option<Listener>,
    udp: Vec<(&'static str, UdpReceiver)>,
}

/// A listener, its bounds and who answers.
pub type Served = (Listener, ServerConfig, Arc<dyn Handler>);

/// Where a receiver listens: where the setting says; without one, on all
/// addresses where the Datadog receiver does so.
fn open_to(s: &Settings, agent: bool, key: &str, address: Option<SocketAddr>) -> Option<SocketAddr> {
    let address = address?;
    let everywhere = !s.is_set(key) && receive::host(s, agent) == "0.0.0.0";
    Some(if everywhere { (IpAddr::V4(Ipv4Addr::UNSPECIFIED), address.port()).into() } else { address })
}

/// Where OTLP is received: where our setting says; else where the Agent's says;
/// else at the default, unless the Agent's settings switch it off.
fn otlp_address(
    s: &Settings,
    agent: bool,
    (key, own): (&str, Option<SocketAddr>),
    endpoint: &Listen,
) -> Option<SocketAddr> {
    if s.is_set(key) {
        return own;
    }
    if !s.otlp_traces_enabled {
        return None;
    }
    match &endpoint.0 {
        Some(address) => address.0,
        None => open_to(s, agent, key, own),
    }
}

impl Doors {
    /// Binds every address.
    pub async fn bind(s: &Settings, agent: bool, inlet: &Inlet) -> Result<Self, String> {
        let tcp = async |name: &str, key: &str, address: Option<SocketAddr>| match open_to(
            s, agent, key, address,
        ) {
            Some(address) => ports::bind(name, key, address).await.map(Some),
            None => Ok(None),
        };
        let otlp = async |name: &str, own: (&str, Option<SocketAddr>), endpoint: &Listen| match otlp_address(
            s, agent, own, endpoint,
        ) {
            Some(address) => ports::bind(name, own.0, address).await.map(Some),
            None => Ok(None),
        };
        let mut doors = Self {
            zipkin: tcp("Zipkin", "zipkin.address", s.zipkin_address.0).await?,
            otlp_grpc: otlp("OTLP gRPC", ("otlp_grpc.address", s.otlp_grpc_address.0), &s.otlp_grpc_endpoint)
                .await?,
            otlp_http: otlp("OTLP HTTP", ("otlp_http.address", s.otlp_http_address.0), &s.otlp_http_endpoint)
                .await?,
            jaeger_http: tcp("Jaeger HTTP", "jaeger_http.address", s.jaeger_http_address.0).await?,
            jaeger_grpc: tcp("Jaeger gRPC", "jaeger_grpc.address", s.jaeger_grpc_address.0).await?,
            sampling: tcp("Jaeger sampling", "jaeger_sampling.address", s.jaeger_sampling_address.0).await?,
            sampling_grpc: tcp(
                "Jaeger sampling gRPC",
                "jaeger_sampling_grpc.address",
                s.jaeger_sampling_grpc_address.0,
            )
            .await?,
            udp: Vec::new(),
        };
        for (name, key, address, binary) in [
            ("compact", "jaeger_compact.address", s.jaeger_compact_address.0, false),
            ("binary", "jaeger_binary.address", s.jaeger_binary_address.0, true),
        ] {
            let Some(address) = open_to(s, agent, key, address) else { continue };
            let bind = if binary { UdpReceiver::binary } else { UdpReceiver::compact };
            let receiver = bind(address, UdpConfig::default(), inlet.clone()).map_err(|e| {
                format!("Jaeger {name} (UDP): cannot listen on {address}: {e}; listen elsewhere with {key} (port 0 switches it off)")
            })?;
            doors.udp.push((name, receiver));
        }
        Ok(doors)
    }

    /// Where Zipkin's port is.
    pub fn zipkin_address(&self) -> Option<String> {
        self.zipkin.as_ref().map(Listener::address)
    }

    /// The handlers of the listeners, and the datagram sockets; says where to
    /// send traces. `api`: what answers Zipkin's questions.
    pub fn open(
        self,
        s: &Settings,
        inlet: &Inlet,
        api: Option<Api>,
        send: &mut Vec<String>,
    ) -> (Vec<Served>, Vec<UdpReceiver>) {
        let mut served: Vec<Served> = Vec::new();
        let wait = Duration::from_millis(s.decoder_timeout);
        if let Some(listener) = self.zipkin {
            let fallback = api.map(|api| Arc::new(Questions(api)) as Arc<dyn Handler>);
            let cors = Cors { origins: s.zipkin_cors_origins.0.clone(), ..Cors::default() };
            let config = zipkin::Config { wait, cors, ..zipkin::Config::default() };
            let handler = zipkin::Receiver::new(config, inlet.clone(), fallback);
            send.push(format!("Zipkin    http://{}/api/v2/spans", listener.address()));
            served.push((listener, handler.server_config(), Arc::new(handler)));
        }
        let cors = Cors { origins: s.otlp_http_cors_origins.0.clone(), ..Cors::default() };
        let config = otlp::Config { wait, cors, ..otlp::Config::default() };
        if let Some(listener) = self.otlp_http {
            let handler = otlp::HttpReceiver::new(config.clone(), inlet.clone());
            send.push(format!("OTLP      http://{}/v1/traces", listener.address()));
            served.push((listener, handler.server_config(), Arc::new(handler)));
        }
        if let Some(listener) = self.otlp_grpc {
            let mut config = config;
            if s.otlp_grpc_max_mib > 0 {
                config.max_body = s.otlp_grpc_max_mib.saturating_mul(1 << 20);
            }
            let handler = otlp::GrpcReceiver::new(config, inlet.clone());
            send.push(format!("OTLP gRPC http://{}", listener.address()));
            served.push((listener, handler.server_config(), Arc::new(handler)));
        }
        let config = jaeger::Config { wait, ..jaeger::Config::default() };
        let sampling = jaeger::Sampling::new(inlet.rates().clone(), &convert::env(s));
        if let Some(listener) = self.jaeger_http {
            let handler = jaeger::HttpReceiver::new(config.clone(), inlet.clone());
            send.push(format!("Jaeger    http://{}/api/traces", listener.address()));
            served.push((listener, handler.server_config(), Arc::new(handler)));
        }
        if let Some(listener) = self.jaeger_grpc {
            let handler = jaeger::GrpcReceiver::new(config.clone(), inlet.clone(), sampling.clone());
            send.push(format!("Jaeger    grpc {}", listener.address()));
            served.push((listener, handler.server_config(), Arc::new(handler)));
        }
        for (name, receiver) in &self.udp {
            let address = receiver.address().map_or_else(|e| e.to_string(), |a| a.to_string());
            send.push(format!("Jaeger    udp {address} ({name})"));
        }
        if let Some(listener) = self.sampling {
            let handler = jaeger::SamplingHandler::new(sampling.clone());
            served.push((listener, handler.server_config(), Arc::new(handler)));
        }
        if let Some(listener) = self.sampling_grpc {
            let handler = jaeger::SamplingGrpcHandler::new(config, inlet.clone(), sampling);
            served.push((listener, handler.server_config(), Arc::new(handler)));
        }
        (served, self.udp.into_iter().map(|(_, receiver)| receiver).collect())
    }
}

/// Zipkin's query API behind its collector.
struct Questions(Api);

impl Handler for Questions {
    fn handle<'a>(&'a self, request: &'a mut Request) -> HandlerFuture<'a> {
        Box::pin(async move {
            let plain = |status, text: &'static str| {
                let mut answer = Answer::new(AnswerBody::Full(text.into()));
                *answer.status_mut() = status;
                answer
            };
            let body = Limited::new(&mut request.body, QUESTION).collect();
            let body = match tokio::time::timeout_at(request.deadline, body).await {
                Ok(Ok(body)) => body.to_bytes(),
                Ok(Err(_)) => return plain(http::StatusCode::BAD_REQUEST, "the body cannot be read"),
                Err(_) => {
                    return plain(http::StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time");
                }
            };
            let question = http::Request::from_parts(request.head.clone(), body);
            match self.0.handle(Door::Zipkin, question).await {
                Some(response) => response.map(|body| AnswerBody::Full(body.into())),
                None => plain(http::StatusCode::NOT_FOUND, "not found"),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Layers;

    #[test]
    fn otlp_is_received_where_the_agents_settings_say_unless_ours_do() {
        let of = |vars: &[(&str, &str)], agent| {
            let env = vars.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
            let s = Layers { env, ..Layers::default() }.resolve().unwrap().0;
            otlp_address(&s, agent, ("otlp_grpc.address", s.otlp_grpc_address.0), &s.otlp_grpc_endpoint)
                .map(|a| a.to_string())
        };
        let endpoint = ("DD_OTLP_CONFIG_RECEIVER_PROTOCOLS_GRPC_ENDPOINT", "0.0.0.0:5317");
        let own = ("SPANLOOM_OTLP_GRPC_ADDRESS", "127.0.0.1:6317");
        let off = ("DD_OTLP_CONFIG_TRACES_ENABLED", "false");
        for (vars, agent, expected) in [
            (&[][..], false, Some("127.0.0.1:4317")),
            (&[], true, Some("0.0.0.0:4317")),
            (&[endpoint], false, Some("0.0.0.0:5317")),
            (
                &[("DD_OTLP_CONFIG_RECEIVER_PROTOCOLS_GRPC_ENDPOINT", "localhost:5317")],
                true,
                Some("127.0.0.1:5317"),
            ),
            (&[endpoint, own], false, Some("127.0.0.1:6317")),
            (&[endpoint, off], false, None),
            (&[off, own], false, Some("127.0.0.1:6317")),
        ] {
            assert_eq!(of(vars, agent).as_deref(), expected, "{vars:?}");
        }
    }
}
