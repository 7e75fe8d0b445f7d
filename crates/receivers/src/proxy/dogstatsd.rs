//! Metric lines that tracers send over HTTP, passed on to DogStatsD over UDP
//! (datadog-agent:pkg/trace/api/dogstatsd.go).

use super::{Product, Proxy, ProxyConfig, ReadError};
use crate::answer::{self, Answer};
use crate::server::Request;
use http::StatusCode;
use tokio::net::UdpSocket;

pub(super) struct Dogstatsd {
    enabled: bool,
    host: String,
    port: u16,
}

impl Dogstatsd {
    pub(super) fn new(config: &ProxyConfig) -> Self {
        Self { enabled: config.use_dogstatsd, host: config.statsd_host.clone(), port: config.statsd_port }
    }

    async fn send(&self, body: &[u8]) -> std::io::Result<u64> {
        let target = tokio::net::lookup_host((self.host.as_str(), self.port)).await?;
        let mut targets: Vec<_> = target.collect();
        targets.sort_by_key(std::net::SocketAddr::is_ipv6);
        let Some(target) = targets.first() else {
            return Err(std::io::ErrorKind::AddrNotAvailable.into());
        };
        let own = if target.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
        let socket = UdpSocket::bind(own).await?;
        socket.connect(target).await?;
        let mut sent = 0;
        for line in body.split(|b| *b == b'\n') {
            match socket.send(line).await {
                Ok(_) => sent += 1,
                // Nobody listens: UDP says so now and then. Not the client's
                // concern, as it would not be with UDP of its own.
                Err(e) if e.kind() == std::io::ErrorKind::ConnectionRefused => {}
                Err(e) => return Err(e),
            }
        }
        Ok(sent)
    }
}

impl Proxy {
    pub(super) async fn dogstatsd(&self, request: &mut Request) -> Answer {
        if !self.dogstatsd.enabled {
            return answer::error(StatusCode::SERVICE_UNAVAILABLE, "503 Status Unavailable");
        }
        if self.dogstatsd.port == 0 {
            let text = "Agent dogstatsd UDP port not configured, but required for dogstatsd proxy.";
            return answer::error(StatusCode::SERVICE_UNAVAILABLE, text);
        }
        let failed = |text: &str| answer::error(StatusCode::INTERNAL_SERVER_ERROR, text);
        let (body, _permit) = match self.read(request, self.max_payload).await {
            Ok(read) => read,
            Err(ReadError::TooLarge) => return failed("read limit reached"),
            Err(ReadError::Body(e)) => return failed(&e.to_string()),
        };
        self.count("proxy_bytes", Product::Dogstatsd, body.len() as u64);
        match self.dogstatsd.send(&body).await {
            Ok(lines) => {
                self.count("proxy_requests", Product::Dogstatsd, 1);
                self.count("proxy_datagrams", Product::Dogstatsd, lines);
                answer::empty(StatusCode::OK)
            }
            Err(error) => {
                self.count("proxy_error", Product::Dogstatsd, 1);
                failed(&error.to_string())
            }
        }
    }
}
