//! Sending the Agent's own metrics to DogStatsD, by datagrams. Never waits: what
//! the system does not take at once is counted and gone.

use super::convert;
use crate::agent_metrics::{AgentMetrics, Reading, Slow, datagrams};
use crate::settings::Settings;
use spanloom_exporters::{DatadogExporter, KindStats};
use spanloom_pipeline::{Inlet, Phase, StopWatch};
use spanloom_receivers::ServerStats;
use spanloom_receivers::datadog::Sources;
use spanloom_sampler::Samplers;
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::{UdpSocket, UnixDatagram};

/// Time between readings, and every how many the slow figures are read.
const PERIOD: Duration = Duration::from_secs(5);
const SLOW_EVERY: u64 = 2;
/// Bytes of a datagram that fits in one packet nearly everywhere, and of one on
/// a Unix socket (datadog-go:statsd/options.go).
const UDP_BYTES: usize = 1432;
const UNIX_BYTES: usize = 8192;

/// Where the metrics go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Host and port.
    Udp(String, u16),
    /// A datagram socket.
    Unix(PathBuf),
}

/// Where the settings send them; `None`: nowhere. The Agent needs an API key to
/// run at all: without one, and without a word about DogStatsD, `run` does not
/// send.
pub fn target(s: &Settings, agent: bool) -> Option<Target> {
    let said = ["dogstatsd_port", "dogstatsd_socket"].iter().any(|key| s.is_set(key));
    if !s.use_dogstatsd || !(agent || s.has_datadog() || said) {
        return None;
    }
    if s.dogstatsd_port > 0 {
        return Some(Target::Udp(convert::statsd_host(s), s.dogstatsd_port));
    }
    (!s.dogstatsd_socket.is_empty()).then(|| Target::Unix(s.dogstatsd_socket.clone().into()))
}

/// Where the figures are read.
pub struct Probe {
    /// Counters are sent also when they are 0.
    pub all: bool,
    /// Batches that may wait for a worker.
    pub places: usize,
    /// Ledger and queue.
    pub inlet: Inlet,
    /// Requests by source.
    pub sources: Arc<Sources>,
    /// What is on its way to Datadog.
    pub exporter: Option<Arc<DatadogExporter>>,
    /// The samplers.
    pub samplers: Option<Arc<Mutex<Samplers>>>,
    /// Listeners for tracers: `tcp` or `uds`.
    pub connections: Vec<(&'static str, Arc<ServerStats>)>,
}

impl Probe {
    fn read(&self, slow: bool, since: Instant) -> Reading {
        let writers = self.exporter.as_ref().map(|exporter| {
            exporter.stats().iter().fold(<[KindStats; 2]>::default(), |sum, destination| {
                let [a, b] = &destination.queue.kinds;
                [add(sum[0], a), add(sum[1], b)]
            })
        });
        Reading {
            ledger: self.inlet.ledger().snapshot(),
            sources: self.sources.take(),
            writers,
            slow: slow.then(|| self.slow(since)),
        }
    }

    fn slow(&self, since: Instant) -> Slow {
        let samplers = self.samplers.as_ref().map(|s| s.lock().unwrap_or_else(PoisonError::into_inner));
        let count = |s: &ServerStats| [&s.accepted, &s.timed_out, &s.errors].map(|n| n.load(Relaxed));
        let (memory, cpu) = process();
        Slow {
            sampler: samplers.as_ref().map(|s| (s.counts().seen, s.counts().kept)),
            rare: samplers.as_ref().map(|s| s.rare_counts()),
            connections: self.connections.iter().map(|(kind, s)| (*kind, count(s))).collect(),
            queued: (self.inlet.queued(), self.places),
            memory,
            cpu,
            uptime: since.elapsed().as_secs_f64(),
        }
    }

    /// Reads and sends until the stop, once more then.
    pub async fn run(self, target: Target, mut stop: StopWatch) {
        let since = Instant::now();
        let mut metrics = AgentMetrics::new(convert::AGENT_VERSION, self.all);
        let mut out = Out { target, socket: None };
        out.send(&self.inlet, &metrics.started()).await;
        let mut tick = tokio::time::interval(PERIOD);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for n in 0.. {
            let stopping = tokio::select! {
                _ = tick.tick() => false,
                () = stop.reached(Phase::Draining) => true,
            };
            let lines = metrics.lines(&self.read(n % SLOW_EVERY == 0 || stopping, since));
            out.send(&self.inlet, &lines).await;
            if stopping {
                return;
            }
        }
    }
}

fn add(sum: KindStats, k: &KindStats) -> KindStats {
    KindStats {
        sent: sum.sent + k.sent,
        sent_bytes: sum.sent_bytes + k.sent_bytes,
        sent_items: sum.sent_items + k.sent_items,
        retries: sum.retries + k.retries,
        rejected: sum.rejected + k.rejected,
        dropped: sum.dropped + k.dropped,
        dropped_bytes: sum.dropped_bytes + k.dropped_bytes,
    }
}

/// Resident bytes and CPU seconds of this process; 0 where the system does not
/// say.
fn process() -> (u64, f64) {
    // The kernel's unit for user space, whatever its own is.
    const TICKS_PER_SECOND: f64 = 100.0;
    const KIB: u64 = 1024;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident =
        status.lines().find_map(|l| l.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok());
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Behind the name, which may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
    (resident.unwrap_or(0u64) * KIB, (ticks(11) + ticks(12)) / TICKS_PER_SECOND)
}

enum Socket {
    Udp(UdpSocket),
    Unix(UnixDatagram),
}

struct Out {
    target: Target,
    socket: Option<Socket>,
}

impl Out {
    /// Sends lines. Whatever does not leave is counted.
    async fn send(&mut self, inlet: &Inlet, lines: &[String]) {
        let max = if matches!(self.target, Target::Udp(..)) { UDP_BYTES } else { UNIX_BYTES };
        let (packets, mut lost) = datagrams(lines, max);
        if self.socket.is_none() {
            match self.connect().await {
                Ok(socket) => self.socket = Some(socket),
                Err(error) => tracing::debug!(target = ?self.target, %error, "DogStatsD cannot be reached"),
            }
        }
        for packet in &packets {
            let sent = match &self.socket {
                Some(Socket::Udp(socket)) => socket.try_send(packet.as_bytes()),
                Some(Socket::Unix(socket)) => socket.try_send(packet.as_bytes()),
                None => Err(std::io::ErrorKind::NotConnected.into()),
            };
            match sent {
                Ok(_) => {}
                // Nobody listens on the port; UDP says so with the next datagram.
                Err(e) if e.kind() == std::io::ErrorKind::ConnectionRefused => {
                    lost += 1;
                    // A Unix socket that was made anew is another one.
                    self.socket = self.socket.take().filter(|s| matches!(s, Socket::Udp(_)));
                }
                Err(error) => {
                    lost += 1;
                    tracing::debug!(%error, "a datagram for DogStatsD was not sent");
                    if error.kind() != std::io::ErrorKind::WouldBlock {
                        self.socket = None;
                    }
                }
            }
        }
        if lost > 0 {
            inlet.ledger().note("dogstatsd", "not_sent", lost);
        }
    }

    async fn connect(&self) -> std::io::Result<Socket> {
        match &self.target {
            Target::Udp(host, port) => {
                let mut addresses: Vec<_> = tokio::net::lookup_host((host.as_str(), *port)).await?.collect();
                addresses.sort_by_key(std::net::SocketAddr::is_ipv6);
                let address = addresses.first().ok_or(std::io::ErrorKind::AddrNotAvailable)?;
                let own = if address.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
                let socket = UdpSocket::bind(own).await?;
                socket.connect(address).await?;
                // So that the first datagram need not wait for the reactor.
                socket.writable().await?;
                Ok(Socket::Udp(socket))
            }
            Target::Unix(path) => {
                let socket = UnixDatagram::unbound()?;
                socket.connect(path)?;
                socket.writable().await?;
                Ok(Socket::Unix(socket))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Layers;

    fn of(vars: &[(&str, &str)], agent: bool) -> Option<Target> {
        let env = vars.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        target(&Layers { env, ..Layers::default() }.resolve().unwrap().0, agent)
    }

    #[test]
    fn metrics_go_where_the_agents_go_and_nowhere_where_nobody_asked() {
        let udp = |host: &str, port| Some(Target::Udp(host.into(), port));
        assert_eq!(of(&[], false), None);
        assert_eq!(of(&[], true), udp("localhost", 8125));
        assert_eq!(of(&[("DD_API_KEY", "k")], false), udp("localhost", 8125));
        assert_eq!(of(&[("DD_DOGSTATSD_PORT", "9")], false), udp("localhost", 9));
        assert_eq!(of(&[("DD_BIND_HOST", "10.0.0.1")], true), udp("10.0.0.1", 8125));
        assert_eq!(of(&[("DD_USE_DOGSTATSD", "false")], true), None);
        let socket = Some(Target::Unix("/var/run/datadog/dsd.socket".into()));
        assert_eq!(of(&[("DD_DOGSTATSD_PORT", "0")], true), socket);
        let vars = [("DD_DOGSTATSD_PORT", "0"), ("DD_DOGSTATSD_SOCKET", "/x")];
        assert_eq!(of(&vars, false), Some(Target::Unix("/x".into())));
        let vars = [("DD_DOGSTATSD_PORT", "0"), ("DD_DOGSTATSD_SOCKET", "")];
        assert_eq!(of(&vars, true), None);
    }

    #[test]
    fn the_system_tells_about_this_process() {
        let (memory, cpu) = process();
        assert!(memory > 1 << 20 && cpu >= 0.0, "{memory} {cpu}");
    }
}
