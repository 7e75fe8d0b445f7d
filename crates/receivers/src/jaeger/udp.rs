//! Jaeger's datagrams: one `emitBatch` each, nothing is answered. What cannot
//! be taken is dropped and counted, by reason.

use bytes::{Bytes, BytesMut};
use socket2::{Domain, Protocol as IpProtocol, SockRef, Socket, Type};
use spanloom_codec::jaeger::{decode_udp_binary, decode_udp_compact};
use spanloom_model::{Intake, Protocol, Transport};
use spanloom_pipeline::{Inlet, PayloadOutcome, Permit, Phase, Refused, StopWatch};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;

/// Settings of a UDP receiver.
#[derive(Clone, Debug)]
pub struct UdpConfig {
    /// Datagrams that may wait for a decoder.
    pub queue: usize,
    /// Batches that may wait for their acknowledgement at the same time.
    pub workers: usize,
    /// Bytes that the kernel should hold for us (`SO_RCVBUF`); it may give
    /// less (`net.core.rmem_max`).
    pub receive_buffer: usize,
    /// How often the kernel is asked what it dropped.
    pub check: Duration,
}

impl Default for UdpConfig {
    /// What Jaeger has: 1,000 datagrams, 10 workers. 4 MiB; every 5 s.
    fn default() -> Self {
        Self { queue: 1000, workers: 10, receive_buffer: 4 << 20, check: Duration::from_secs(5) }
    }
}

/// Largest datagram that IP can carry is 65,507 bytes; clients send 65,000.
const LARGEST: usize = 64 << 10;
/// Datagrams taken from the kernel for one wake-up.
const BURST: usize = 64;
/// The same at the end; a client that goes on sending does not hold it up.
const LAST: usize = 100_000;

/// A socket that takes datagrams of one encoding.
pub struct UdpReceiver {
    socket: UdpSocket,
    config: UdpConfig,
    protocol: Protocol,
    inlet: Inlet,
}

impl UdpReceiver {
    /// Binds a socket for the compact encoding (6831). Port 0 takes a free one.
    ///
    /// # Errors
    /// The address cannot be had.
    pub fn compact(address: SocketAddr, config: UdpConfig, inlet: Inlet) -> io::Result<Self> {
        Self::bind(address, config, inlet, Protocol::JaegerCompact)
    }

    /// Binds a socket for the binary encoding (6832).
    ///
    /// # Errors
    /// The address cannot be had.
    pub fn binary(address: SocketAddr, config: UdpConfig, inlet: Inlet) -> io::Result<Self> {
        Self::bind(address, config, inlet, Protocol::JaegerBinary)
    }

    fn bind(address: SocketAddr, config: UdpConfig, inlet: Inlet, protocol: Protocol) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(IpProtocol::UDP))?;
        // Less room is no reason not to start.
        if let Err(error) = socket.set_recv_buffer_size(config.receive_buffer) {
            tracing::debug!(%error, "the receive buffer stays as it is");
        }
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        Ok(Self { socket: UdpSocket::from_std(socket.into())?, config, protocol, inlet })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Bytes that the kernel holds for us at most.
    ///
    /// # Errors
    /// The system does not say.
    pub fn receive_buffer(&self) -> io::Result<usize> {
        SockRef::from(&self.socket).recv_buffer_size()
    }

    /// Takes datagrams until the shutdown begins, then what is there already.
    pub async fn run(self, mut stop: StopWatch) {
        let Self { socket, config, protocol, inlet } = self;
        let (give, take) = mpsc::channel::<(Bytes, Permit)>(config.queue.max(1));
        let take = Arc::new(Mutex::new(take));
        let mut workers = JoinSet::new();
        for _ in 0..config.workers.max(1) {
            workers.spawn(work(Arc::clone(&take), protocol, inlet.clone()));
        }
        let mut losses = KernelLosses::new(&socket);
        let mut buffer = BytesMut::zeroed(LARGEST);
        let mut check = tokio::time::interval(config.check.max(Duration::from_millis(1)));
        loop {
            tokio::select! {
                () = stop.reached(Phase::Draining) => break,
                _ = check.tick() => losses.count(&inlet, protocol),
                ready = socket.readable() => if let Err(error) = ready {
                    tracing::warn!(%error, "cannot receive datagrams");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
            receive(|b| socket.try_recv(b), &mut buffer, BURST, &inlet, protocol, &give);
        }
        // What clients sent before the stop is in the kernel's buffer, whether
        // the runtime has heard of it or not.
        if let Ok(socket) = socket.into_std() {
            receive(|b| socket.recv(b), &mut buffer, LAST, &inlet, protocol, &give);
            losses.count(&inlet, protocol);
        }
        drop(give);
        let all = async { while workers.join_next().await.is_some() {} };
        tokio::select! { () = all => {}, () = stop.reached(Phase::Now) => {} }
    }
}

/// Takes up to `most` datagrams that have arrived.
fn receive(
    recv: impl Fn(&mut [u8]) -> io::Result<usize>,
    buffer: &mut BytesMut,
    most: usize,
    inlet: &Inlet,
    protocol: Protocol,
    give: &mpsc::Sender<(Bytes, Permit)>,
) {
    for _ in 0..most {
        let n = match recv(buffer) {
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
            // An ICMP answer to something; the next datagram is unharmed.
            Err(_) => continue,
        };
        let datagram = buffer.get(..n).unwrap_or_default();
        let refused = |reason| {
            inlet.ledger().payload(protocol, PayloadOutcome::Refused, reason, 0, n as u64);
        };
        let Ok(slot) = give.try_reserve() else {
            refused("queue_full");
            continue;
        };
        match inlet.reserve(n as u64) {
            Ok(permit) => slot.send((Bytes::copy_from_slice(datagram), permit)),
            Err(_) => refused("memory"),
        }
    }
}

async fn work(take: Arc<Mutex<mpsc::Receiver<(Bytes, Permit)>>>, protocol: Protocol, inlet: Inlet) {
    loop {
        let next = take.lock().await.recv().await;
        let Some((datagram, permit)) = next else { return };
        let bytes = datagram.len() as u64;
        let (outcome, reason) = deliver(datagram, permit, protocol, &inlet).await;
        inlet.ledger().payload(protocol, outcome, reason, 0, bytes);
    }
}

async fn deliver(
    datagram: Bytes,
    permit: Permit,
    protocol: Protocol,
    inlet: &Inlet,
) -> (PayloadOutcome, &'static str) {
    let intake =
        Intake { protocol, transport: Transport::Udp, received_at: inlet.now(), ..Intake::default() };
    let decode = if protocol == Protocol::JaegerBinary { decode_udp_binary } else { decode_udp_compact };
    let decoded = match decode(datagram, intake) {
        Ok(decoded) => decoded,
        Err(error) => {
            tracing::debug!(%error, protocol = protocol.name(), "datagram cannot be decoded");
            return (PayloadOutcome::Rejected, error.drop_reason());
        }
    };
    if decoded.rejected > 0 {
        inlet.ledger().rejected(protocol, "invalid_id", decoded.rejected);
    }
    if decoded.batch.spans.is_empty() {
        return (PayloadOutcome::Accepted, "");
    }
    match inlet.submit(decoded.batch, permit).await {
        Ok(_) => (PayloadOutcome::Accepted, ""),
        Err(Refused::Busy) => (PayloadOutcome::Refused, "queue_full"),
        Err(Refused::NotTaken { reason }) => (PayloadOutcome::Refused, reason),
        Err(Refused::Closing) => (PayloadOutcome::Refused, "closing"),
        Err(Refused::Timeout) => (PayloadOutcome::Refused, "payload_timeout"),
        Err(Refused::Failed) => (PayloadOutcome::Rejected, "panic"),
    }
}

/// Datagrams that the kernel dropped because its buffer was full, as it counts
/// them in `/proc/net/udp`.
struct KernelLosses {
    inode: Option<u64>,
    seen: u64,
}

impl KernelLosses {
    fn new(socket: &UdpSocket) -> Self {
        use std::os::fd::AsRawFd;
        let link = std::fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd())).ok();
        let inode = link.and_then(|l| l.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
        Self { inode, seen: 0 }
    }

    fn count(&mut self, inlet: &Inlet, protocol: Protocol) {
        let Some(inode) = self.inode else { return };
        let tables = ["/proc/self/net/udp", "/proc/self/net/udp6"];
        let now = tables.iter().find_map(|t| drops(&std::fs::read_to_string(t).ok()?, inode));
        let Some(now) = now else { return };
        if now > self.seen {
            inlet.ledger().unseen(protocol, "kernel_buffer", now - self.seen);
            self.seen = now;
        }
    }
}

/// The last column of the line of a socket.
fn drops(table: &str, inode: u64) -> Option<u64> {
    let inode = inode.to_string();
    let line = table.lines().skip(1).find(|l| l.split_whitespace().nth(9) == Some(&inode))?;
    line.split_whitespace().nth(12)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_count_is_read_from_the_line_of_the_socket() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n \
            1042: 0100007F:1AAF 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4711 2 0000000000000000 17\n";
        assert_eq!(drops(table, 4711), Some(17));
        assert_eq!(drops(table, 17), None);
    }
}
