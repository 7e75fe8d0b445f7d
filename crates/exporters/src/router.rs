//! Hands the chunks that policies select to their backends. Backends come and
//! go with the policies; what waits for one that is gone is still sent.

use crate::ack::AllOf;
use crate::formats::{DatadogV04, OtlpProto, ZipkinJson, ZipkinProto};
use crate::outlet::{DestinationStats, Format, Outlet, OutletConfig};
use crate::routing::RoutingTable;
use crate::sender::Endpoint;
use crate::transport::Transport;
use spanloom_codec::datadog::from_otlp::OtlpOptions;
use spanloom_journal::SyncPolicy;
use spanloom_model::{AckFn, Batch, Fate, ROUTE_DEFAULT, ROUTE_NOWHERE, StoreError};
use spanloom_pipeline::{DeliveryCount, Exporter};
use spanloom_policy::{Backend, Policies, Target, ZipkinVersion};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// Settings of the router.
#[derive(Clone, Debug)]
pub struct RouterConfig {
    /// Directory of the queues.
    pub dir: PathBuf,
    /// Bytes that wait for each backend.
    pub queue_bytes: u64,
    /// When a span counts as safe.
    pub policy: SyncPolicy,
    /// Time between flushes.
    pub flush_period: Duration,
    /// Concurrent requests for each backend.
    pub connections: usize,
    /// `User-Agent`.
    pub user_agent: String,
    /// How long the outlet of a backend that is gone stays open: the longest
    /// that spans take from the choice of their route to its queue.
    pub linger: Duration,
    /// How spans of other protocols become Datadog's, for agents.
    pub translation: OtlpOptions,
    /// Begins the random pauses between retries.
    pub seed: u64,
}

/// Figures of one backend.
#[derive(Clone, Debug)]
pub struct BackendStats {
    /// Its names in the resources, joined by commas; as last known if it is gone.
    pub name: String,
    /// Whether policies name it no more; what waits is still sent.
    pub gone: bool,
    /// Address and queue.
    pub destination: DestinationStats,
    /// Spans that its queue took and did not take.
    pub count: DeliveryCount,
}

/// Most backends that one run of the program can have, one after the other.
const MAX_BACKENDS: usize = 4096;

/// The router.
pub struct Router {
    config: RouterConfig,
    transport: Arc<dyn Transport>,
    table: RwLock<Arc<RoutingTable>>,
    /// Number 1 is the first. Numbers are not used twice: a batch may be on
    /// its way with one.
    slots: RwLock<Vec<Arc<Slot>>>,
    /// One change at a time.
    changing: Mutex<()>,
}

struct Slot {
    key: String,
    outlet: Arc<Outlet>,
    delivered: AtomicU64,
    failed: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    name: String,
    gone: Option<Instant>,
    closed: bool,
}

impl Slot {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Router {
    /// A router without policies.
    pub fn new(config: RouterConfig, transport: Arc<dyn Transport>) -> Arc<Self> {
        Arc::new(Self {
            config,
            transport,
            table: RwLock::default(),
            slots: RwLock::default(),
            changing: Mutex::default(),
        })
    }

    /// What decides, for the length of one batch.
    pub fn table(&self) -> Arc<RoutingTable> {
        Arc::clone(&self.table.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the policies: opens the queues of new backends (on the current
    /// tokio runtime; blocks on files) and lets go of those that are not named
    /// any more. Returns what was damaged on disk.
    ///
    /// # Errors
    /// A queue cannot be opened; the policies stay as they were.
    pub fn load(&self, policies: Policies) -> Result<Vec<String>, String> {
        let _guard = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut slots = self.slots();
        let mut damage = Vec::new();
        let mut numbers = vec![0; policies.backends().len()];
        let mut names: BTreeMap<usize, Vec<&str>> = BTreeMap::new();
        for position in policies.used_backends() {
            let Some(backend) = policies.backends().get(position) else { continue };
            let key = key(&backend.target);
            let open = slots.iter().position(|s| s.key == key && !s.state().closed);
            let at = match open {
                Some(at) => at,
                None if slots.len() >= MAX_BACKENDS => {
                    return Err(format!("more than {MAX_BACKENDS} backends since the start; restart"));
                }
                None => {
                    let (slot, damaged) = self.open(backend, key)?;
                    damage.extend(damaged);
                    slots.push(Arc::new(slot));
                    slots.len() - 1
                }
            };
            numbers[position] = at as u16 + 1;
            names.entry(at).or_default().push(&backend.name);
        }
        for (at, slot) in slots.iter().enumerate() {
            let mut state = slot.state();
            match names.get(&at) {
                Some(names) => {
                    state.name = names.join(",");
                    state.gone = None;
                }
                None => {
                    state.gone.get_or_insert_with(Instant::now);
                }
            }
        }
        *self.slots.write().unwrap_or_else(PoisonError::into_inner) = slots;
        let table = Arc::new(RoutingTable::new(policies, numbers));
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = table;
        Ok(damage)
    }

    fn open(&self, backend: &Backend, key: String) -> Result<(Slot, Vec<String>), String> {
        let (url, format): (String, Arc<dyn Format>) = match &backend.target {
            Target::Zipkin(z) => {
                let url = if z.url.contains("://") { z.url.clone() } else { format!("http://{}", z.url) };
                match z.version {
                    ZipkinVersion::Proto => (url, Arc::new(ZipkinProto)),
                    ZipkinVersion::Json | ZipkinVersion::JsonV1 => (url, Arc::new(ZipkinJson)),
                }
            }
            Target::Datadog(d) => (
                format!("http://{}:{}", d.address, d.port),
                Arc::new(DatadogV04 { translation: self.config.translation.clone() }),
            ),
            Target::OpenTelemetry(o) if o.endpoint.contains("://") => {
                (o.endpoint.clone(), Arc::new(OtlpProto { grpc: false }))
            }
            Target::OpenTelemetry(o) => {
                (format!("http://{}", o.endpoint), Arc::new(OtlpProto { grpc: true }))
            }
        };
        let config = OutletConfig {
            dir: self.config.dir.join(directory(&key)),
            endpoints: vec![Endpoint { url, key: String::new(), user_agent: self.config.user_agent.clone() }],
            queue_bytes: self.config.queue_bytes,
            policy: self.config.policy,
            flush_period: self.config.flush_period,
            connections: self.config.connections,
            seed: self.config.seed,
        };
        let (outlet, damage) = Outlet::start(config, format, Arc::clone(&self.transport))
            .map_err(|e| format!("the queue for backend {}: {e}", backend.name))?;
        let slot = Slot {
            key,
            outlet,
            delivered: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            state: Mutex::default(),
        };
        Ok((slot, damage))
    }

    /// Closes queues of backends that are gone and have got everything. To be
    /// called now and then.
    pub async fn tidy(&self) {
        for slot in self.slots() {
            let over = {
                let mut state = slot.state();
                let long = state.gone.is_some_and(|at| at.elapsed() > self.config.linger);
                let over = long && !state.closed && slot.outlet.is_empty();
                state.closed |= over;
                over
            };
            if over {
                slot.outlet.stop(Duration::ZERO).await;
            }
        }
    }

    /// Figures of every backend that is open.
    pub fn stats(&self) -> Vec<BackendStats> {
        let mut out = Vec::new();
        for slot in self.slots() {
            let (name, gone, closed) = {
                let state = slot.state();
                (state.name.clone(), state.gone.is_some(), state.closed)
            };
            let count = DeliveryCount {
                destination: format!("backend {name}"),
                delivered: slot.delivered.load(Relaxed),
                failed: slot.failed.load(Relaxed),
            };
            if closed {
                continue;
            }
            out.extend(slot.outlet.stats().into_iter().map(|destination| BackendStats {
                name: name.clone(),
                gone,
                destination,
                count: count.clone(),
            }));
        }
        out
    }

    /// What a route means, in words that mean the same after a restart.
    pub fn destination(&self, route: u16) -> Option<String> {
        Some(self.slot(route)?.key.clone())
    }

    /// The route to such a destination, while policies name it.
    pub fn route_to(&self, destination: &str) -> Option<u16> {
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        let at = slots.iter().position(|s| s.key == destination && !s.state().closed)?;
        u16::try_from(at + 1).ok()
    }

    /// Packs what waits, then sends for up to `grace`; what is left waits on
    /// disk for the next start.
    pub async fn stop(&self, grace: Duration) {
        let open = self.slots().into_iter().filter(|s| !s.state().closed);
        let tasks: Vec<_> =
            open.map(|slot| tokio::spawn(async move { slot.outlet.stop(grace).await })).collect();
        for task in tasks {
            drop(task.await);
        }
    }

    fn slots(&self) -> Vec<Arc<Slot>> {
        self.slots.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn slot(&self, number: u16) -> Option<Arc<Slot>> {
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        slots.get(usize::from(number).checked_sub(1)?).cloned()
    }
}

impl Exporter for Router {
    fn export(&self, batch: Arc<Batch>, done: AckFn) {
        let mine = |route: u16| route != ROUTE_DEFAULT && route != ROUTE_NOWHERE;
        let kept = batch.chunks.iter().filter(|c| c.fate == Fate::Kept);
        let mut spans: BTreeMap<u16, u64> = BTreeMap::new();
        kept.filter(|c| mine(c.route))
            .for_each(|c| *spans.entry(c.route).or_default() += c.spans.len() as u64);
        if spans.is_empty() {
            done(Ok(()));
            return;
        }
        let done = AllOf::new(spans.len(), done);
        for (route, n) in spans {
            let done = Arc::clone(&done);
            let Some(slot) = self.slot(route) else {
                done.one(Err(StoreError::Closed));
                continue;
            };
            let whole = batch.chunks.iter().all(|c| c.route == route && c.fate == Fate::Kept);
            let part = if whole {
                Arc::clone(&batch)
            } else {
                Arc::new(batch.part(|c| c.route == route && c.fate == Fate::Kept))
            };
            let outlet = Arc::clone(&slot.outlet);
            let answer: AckFn = Box::new(move |result| {
                let count = if result.is_ok() { &slot.delivered } else { &slot.failed };
                count.fetch_add(n, Relaxed);
                done.one(result);
            });
            outlet.export(part, answer);
        }
    }
}

/// What makes two backends the same destination.
fn key(target: &Target) -> String {
    match target {
        Target::Zipkin(z) if z.version == ZipkinVersion::Proto => format!("zipkin-proto {}", z.url),
        Target::Zipkin(z) => format!("zipkin-json {}", z.url),
        Target::Datadog(d) => format!("datadog {}:{}", d.address, d.port),
        Target::OpenTelemetry(o) => format!("otlp {}", o.endpoint),
    }
}

/// A directory name for a destination: readable, and different for different
/// ones.
fn directory(key: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-') { c } else { '_' };
    let readable: String =
        key.replace("http://", "").replace("https://", "").chars().map(safe).take(80).collect();
    // FNV-1a: stable over versions, unlike the standard library's hash.
    let hash =
        key.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    format!("{readable}-{hash:016x}")
}
