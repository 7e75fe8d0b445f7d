//! Starting everything, and stopping it in the order that loses nothing:
//! receivers, pipeline, statistics, exporters, store.

use super::admin::Admin;
use super::chain::{Feedback, Install, Shared, factory};
use super::dogstatsd::{self, Probe};
use super::doors::Doors;
use super::figures::{exporter_figures, store_figures};
use super::foreign::Foreign;
use super::judge::{Judge, p99_of};
use super::red_log::RedLog;
use super::routes::Routes;
use super::statistics::{Leave, Statistics};
use super::tail::{Tail, Wake};
use super::tee::Tracers;
use super::ways::{Out, Tells};
use super::why::{Settling, Why};
use super::{convert, outgoing, ports, receive};
use crate::report::Report;
use crate::settings::{self, Head, Notice, Settings};
use serde_json::Value as Json;
use spanloom_api::{Api, Config as ApiConfig, Door, ServeConfig};
use spanloom_decisions::{Config as DecisionsConfig, Decisions};
use spanloom_exporters::{DatadogConfig, DatadogExporter, Endpoint, StatsLog, StatsLogConfig};
use spanloom_journal::SyncPolicy;
use spanloom_model::{Protocol, SpanReader, SpanWriter, TraceId};
use spanloom_obfuscator::Obfuscator;
use spanloom_pipeline::{Clock, Destination, Ledger, Phase, Pipeline, Rates, Stop, SystemClock};
use spanloom_receivers::datadog::{ContainerResolver, Receiver};
use spanloom_receivers::{Listener, Net, NetThreads, ServerConfig, ServerStats, serve_on};
use spanloom_sampler::Samplers;
use spanloom_stats::{ClientAggregator, Concentrator, RedFilter, RedSeries, RedSettings};
use spanloom_store::{Config as StoreConfig, Store};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Time that a stop may take before what is left is given up: below the 30 s
/// after which Kubernetes kills.
const GRACE: Duration = Duration::from_secs(20);
/// Time for sending at the end; what is left waits on disk.
const SEND_GRACE: Duration = Duration::from_secs(5);

/// Which parts run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Everything on one machine.
    Run,
    /// A node's agent: no store, no query APIs.
    Agent,
}

/// What the environment says besides the settings.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// `HOME`.
    pub home: Option<String>,
    /// `XDG_DATA_HOME`.
    pub xdg_data_home: Option<String>,
    /// Whether we are root.
    pub root: bool,
    /// The machine's name.
    pub hostname: String,
    /// Whether there are containers to resolve.
    pub containers: bool,
}

impl Surroundings {
    /// Looks around. Besides the settings, the only reading of the environment.
    pub fn find() -> Self {
        let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let root =
            std::fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0);
        let containers =
            ["/.dockerenv", "/run/containerd", "/var/run/docker.sock", "/run/crio", "/host/proc"]
                .iter()
                .any(|p| Path::new(p).exists())
                || std::env::var_os("KUBERNETES_SERVICE_HOST").is_some()
                || std::env::var_os("ECS_CONTAINER_METADATA_URI_V4").is_some();
        Self {
            home: std::env::var("HOME").ok(),
            xdg_data_home: std::env::var("XDG_DATA_HOME").ok(),
            root,
            hostname: hostname.trim().to_owned(),
            containers,
        }
    }
}

/// Runs until a signal. The error is for a person: cause and cure.
pub fn run(settings: Settings, notices: &[Notice], mode: Mode, around: &Surroundings) -> Result<(), String> {
    if !settings.apm_enabled {
        println!("Trace intake is switched off (apm_config.enabled is false): nothing to do.");
        return Ok(());
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(4);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .map_err(|e| format!("the runtime cannot start: {e}"))?;
    let net = NetThreads::start(threads).map_err(|e| format!("the network threads cannot start: {e}"))?;
    let result = runtime.block_on(Program::start(settings, notices, mode, around, net.net()));
    let result = match result {
        Ok(program) => runtime.block_on(program.until_stopped()),
        Err(e) => Err(e),
    };
    // What answers and forwards after the listeners' end is over, too.
    net.stop();
    // Blocking queries of clients that are gone do not hold up the exit.
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

struct Program {
    stop: Stop,
    ready: Arc<AtomicBool>,
    servers: JoinSet<()>,
    net: Net,
    pipeline: Arc<Pipeline>,
    statistics: Arc<Statistics>,
    containers: Arc<dyn ContainerResolver>,
    exporter: Option<Arc<DatadogExporter>>,
    samplers: Option<Arc<Mutex<Samplers>>>,
    routes: Option<(Arc<Routes>, tokio::task::JoinHandle<()>)>,
    store: Option<Arc<Store>>,
    why: Arc<Why>,
    tail: Option<Arc<Tail>>,
    tracers: Option<Tracers>,
    flusher: tokio::task::JoinHandle<()>,
    _lock: std::fs::File,
}

impl Program {
    async fn start(
        settings: Settings,
        notices: &[Notice],
        mode: Mode,
        around: &Surroundings,
        net: Net,
    ) -> Result<Self, String> {
        let s = &settings;
        for notice in notices {
            if notice.warning {
                tracing::warn!("{}", notice.text);
            } else {
                tracing::info!("{}", notice.text);
            }
        }
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let seed = (clock.now() as u64) ^ (u64::from(std::process::id()) << 32);
        let hostname = if s.hostname.is_empty() { around.hostname.clone() } else { s.hostname.clone() };
        if hostname.is_empty() && s.has_datadog() {
            return Err("no host name was found, and Datadog needs one; set DD_HOSTNAME".into());
        }
        let (agent, warnings) = convert::agent(s)?;
        for warning in warnings {
            tracing::warn!("{warning}");
        }

        let containers = receive::containers(s, receive::with_containers(s, around.containers))?;

        // What is on disk, first: a damaged or locked directory is known before
        // any client is.
        let dir = convert::data_dir(s, around.home.clone(), around.xdg_data_home.clone(), around.root);
        let guard = lock_directory(&dir)?;
        let policy = if s.ack == "always" { SyncPolicy::Always } else { SyncPolicy::Interval };
        let ledger = Arc::new(Ledger::default());
        let store = match mode {
            Mode::Run => Some(open_store(s, &dir, policy, &ledger)?),
            Mode::Agent => None,
        };
        let exporter =
            if s.has_datadog() { Some(open_exporter(s, &dir, policy, &hostname, seed)?) } else { None };
        let routes = Routes::start(s, &dir, policy, seed)?;
        if store.is_none() && exporter.is_none() && routes.is_none() {
            return Err("an agent needs somewhere to send to: set DD_API_KEY or --resources, or use `spanloom run` to keep traces on this machine".into());
        }

        let rules = tail_settings(s)?;
        let wake = Arc::new(Wake::default());
        let out = Out { exporter: exporter.clone(), router: routes.as_ref().map(|r| Arc::clone(&r.router)) };
        let tells = Tells { wake: Arc::clone(&wake), on_dropped: on_dropped(&ledger, store.is_some()) };
        let buffer = out.buffer(&dir, policy, rules.as_ref(), tells, clock.now())?;

        // What decides about spans.
        let obfuscator = Arc::new(Obfuscator::new(convert::obfuscator(s)));
        let concentrator =
            Arc::new(Mutex::new(Concentrator::new(convert::stats(s, &hostname, seed), clock.now())));
        let mut heads = convert::samplers(s, seed);
        // Rules over whole traces decide instead; tracers send everything.
        heads.tail_rules = rules.as_ref().is_some_and(|r| r.head == Head::Replaced)
            && buffer.is_some()
            && !heads.error_tracking_standalone;
        let rated = exporter.is_some() && !heads.tail_rules;
        let samplers = exporter.as_ref().map(|_| Arc::new(Mutex::new(Samplers::new(&heads))));
        // Statistics of spans that go elsewhere by a policy stay here.
        let routed = Arc::new(Mutex::new(Concentrator::new(convert::stats(s, &hostname, seed), clock.now())));
        let rates = if rated { Rates::default() } else { Rates::keep_everything(clock.now()) };
        let mut clients = ClientAggregator::new(convert::client_stats(s, &hostname, seed), clock.now());
        let leave = match &exporter {
            None => None,
            Some(exporter) => Some(Leave {
                log: open_stats_log(&dir, policy, exporter, &concentrator, &mut clients, clock.now())?,
                exporter: Arc::clone(exporter),
            }),
        };
        let log = leave.as_ref().map(|l| Arc::clone(&l.log));
        let red = RedSettings { seed, ..RedSettings::default() };
        let (red_log, red) = RedLog::open(&dir, red, clock.now())?;
        let statistics = Arc::new(Statistics {
            concentrator: Arc::clone(&concentrator),
            routed: Arc::clone(&routed),
            clients: Mutex::new(clients),
            red: Mutex::new(red),
            red_log,
            leave,
            agent: agent.clone(),
            obfuscator: Arc::clone(&obfuscator),
            env: convert::env(s),
            without_container: convert::feature(s, "disable_cid_stats"),
            seed,
            random: Mutex::new(seed | 1),
            clock: Arc::clone(&clock),
            containers: Arc::clone(&containers),
        });
        let chain = factory(Shared {
            agent,
            obfuscator,
            statement_tags: s.obfuscate_statement_tags,
            concentrator,
            log,
            routed,
            samplers: samplers.clone(),
            feedback: Arc::new(Feedback::new(rates.clone())),
            install: (!s.install_id.is_empty())
                .then(|| Arc::new(Install::new(&s.install_id, &s.install_type, &s.install_time))),
            foreign: Foreign::new(convert::otlp(s), &hostname, Arc::clone(&containers)),
            router: routes.as_ref().map(|r| Arc::clone(&r.router)),
        });

        // Where spans go.
        let mut destinations = Vec::new();
        if let Some(store) = &store {
            destinations.push(Destination::store("store", Arc::clone(store) as Arc<dyn SpanWriter>));
        }
        destinations.extend(out.destinations(buffer.as_ref()));
        let why =
            Arc::new(Why::new(open_decisions(s, &dir)?, store.clone(), buffer.clone(), Arc::clone(&clock)));
        let waits = buffer.is_some();
        let tail = rules.map(|r| {
            let p99 = p99_of(Arc::clone(&statistics));
            let judge = Judge::new(r.rules, Arc::clone(&why.decisions), p99, Arc::clone(&clock));
            Tail::start(Tail::new(judge, store.clone(), buffer, wake))
        });
        ledger.record_to(Arc::new(Settling {
            decisions: Arc::clone(&why.decisions),
            clock: Arc::clone(&clock),
            store: store.is_some(),
            datadog: exporter.is_some(),
            waits,
        }));
        let config = convert::pipeline(s);
        let pipeline =
            Pipeline::start(config, clock, chain, destinations, Arc::clone(&statistics) as _, rates, ledger)
                .map_err(|e| format!("the pipeline cannot start: {e}"))?;
        let pipeline = Arc::new(pipeline);

        let mut program = Self {
            stop: Stop::default(),
            ready: Arc::new(AtomicBool::new(false)),
            servers: JoinSet::new(),
            net,
            flusher: flush_regularly(&statistics),
            pipeline,
            statistics,
            containers,
            exporter,
            samplers,
            routes: routes.map(|r| (Arc::clone(&r), tokio::spawn(r.watch()))),
            store,
            why,
            tail,
            tracers: None,
            _lock: guard,
        };
        program.listen(s, mode, around, &hostname).await?;
        program.ready.store(true, Ordering::Release);
        Ok(program)
    }

    /// Binds every address, then serves. All addresses are bound before the
    /// first request is answered, so that a port in use is an error at the start.
    async fn listen(
        &mut self,
        s: &Settings,
        mode: Mode,
        around: &Surroundings,
        hostname: &str,
    ) -> Result<(), String> {
        let mut send = Vec::new();
        let mut look = Vec::new();

        let tracers = receive::bind_datadog(s, mode == Mode::Agent).await?;
        let query = match (mode, s.query_address.0) {
            (Mode::Run, Some(a)) => Some(ports::bind("query API", "query.address", a).await?),
            _ => None,
        };
        let tempo = match (mode, s.tempo_address.0) {
            (Mode::Run, Some(a)) => Some(ports::bind("Tempo API", "tempo.address", a).await?),
            _ => None,
        };
        let inlet = self.pipeline.inlet();
        let doors = Doors::bind(s, mode == Mode::Agent, &inlet).await?;
        let admin = match s.admin() {
            Some(a) => Some(ports::bind("admin", "admin.address", a).await?),
            None => None,
        };

        let statsd = dogstatsd::target(s, mode == Mode::Agent);
        let sources = statsd.as_ref().map(|_| Arc::default());
        let containers = receive::with_containers(s, around.containers);
        let config = receive::datadog(s, containers, hostname, sources.clone());
        let mut connections = Vec::new();
        let containers = Arc::clone(&self.containers);
        let client = outgoing::proxy_client(s)?;
        let receiver = Arc::new(Receiver::new(config, self.pipeline.inlet(), containers, client));
        let answering = Tracers::new(s, receiver);
        for listener in tracers {
            let tcp = listener.port().is_some();
            send.push(if tcp {
                format!("Datadog   http://{}", listener.address())
            } else {
                format!("Datadog   unix://{}", listener.address())
            });
            let (config, handler) = answering.serve(tcp);
            let counted = self.serve(listener, config, handler);
            connections.push((if tcp { "tcp" } else { "uds" }, counted));
        }
        self.tracers = Some(answering);
        if let (Some(target), Some(sources)) = (statsd, sources) {
            let probe = Probe {
                all: s.send_all_internal_stats,
                places: convert::pipeline(s).queue,
                inlet: inlet.clone(),
                sources,
                exporter: self.exporter.clone(),
                samplers: self.samplers.clone(),
                connections,
            };
            self.servers.spawn(probe.run(target, self.stop.watch()));
        }

        let report = self.reporter();
        let api = self.store.as_ref().map(|store| {
            let reader = Arc::clone(store) as Arc<dyn SpanReader>;
            let config = ApiConfig {
                version: env!("CARGO_PKG_VERSION").into(),
                zipkin_autocomplete: s.zipkin_autocomplete_keys.0.clone(),
                ..ApiConfig::default()
            };
            Api::with_report(
                reader,
                Arc::new(Telling {
                    report: Arc::clone(&report),
                    why: Arc::clone(&self.why),
                    statistics: Arc::clone(&self.statistics),
                }),
                config,
            )
        });
        for (door, listener, name) in
            [(Door::Query, query, "Jaeger API, search     "), (Door::Tempo, tempo, "Tempo API              ")]
        {
            let (Some(api), Some(Listener::Tcp(listener))) = (api.clone(), listener) else { continue };
            let address = listener.local_addr().map_or_else(|e| e.to_string(), |a| a.to_string());
            look.push(format!("{name}http://{address}"));
            let mut stop = self.stop.watch();
            let stopped = async move { stop.reached(Phase::Draining).await };
            self.servers.spawn(spanloom_api::serve(listener, api, door, ServeConfig::default(), stopped));
        }
        let zipkin = doors.zipkin_address().filter(|_| api.is_some());
        look.extend(zipkin.map(|address| format!("Zipkin API             http://{address}")));
        let (served, datagrams) = doors.open(s, &inlet, api, &mut send);
        for (listener, config, handler) in served {
            self.serve(listener, config, handler);
        }
        for receiver in datagrams {
            self.servers.spawn(receiver.run(self.stop.watch()));
        }
        if let Some(listener) = admin {
            look.push(format!("metrics, status        http://{}/metrics", listener.address()));
            let report = Arc::clone(&report);
            let handler = Admin {
                ready: Arc::clone(&self.ready),
                report: Box::new(move || report()),
                why: Arc::clone(&self.why),
                statistics: Arc::clone(&self.statistics),
            };
            let config = ServerConfig { max_connections: 64, ..ServerConfig::default() };
            self.serve(listener, config, Arc::new(handler));
        }

        println!("Spanloom {} is ready.", env!("CARGO_PKG_VERSION"));
        println!("Send traces to");
        send.iter().for_each(|line| println!("  {line}"));
        println!("Look at them");
        look.iter().for_each(|line| println!("  {line}"));
        if mode == Mode::Run {
            println!(
                "  terminal               spanloom search, spanloom trace ID, spanloom services, spanloom status"
            );
        }
        if self.exporter.is_some() {
            let chosen = if self.tail.is_some() { "Traces that tail rules keep" } else { "Sampled traces" };
            println!("{chosen} and statistics also go to {}", convert::intake_url(s));
        }
        if let Some(agent) = s.agent_behind() {
            println!("Requests of Datadog tracers are passed on to the Agent at {agent}");
        }
        if self.routes.is_some() {
            println!("What policies of {} select goes to their backends", s.resources);
        }
        Ok(())
    }

    fn serve(
        &mut self,
        listener: Listener,
        config: ServerConfig,
        handler: Arc<dyn spanloom_receivers::Handler>,
    ) -> Arc<ServerStats> {
        let stats = Arc::new(ServerStats::default());
        let (net, counted) = (self.net.clone(), Arc::clone(&stats));
        self.servers.spawn(serve_on(net, listener, config, handler, counted, self.stop.watch()));
        stats
    }

    /// Reads every counter, whenever it is asked.
    fn reporter(&self) -> Arc<dyn Fn() -> Report + Send + Sync> {
        let started = Instant::now();
        let inlet = self.pipeline.inlet();
        let pipeline = Arc::downgrade(&self.pipeline);
        let (store, exporter) = (self.store.clone(), self.exporter.clone());
        let routes = self.routes.as_ref().map(|(r, _)| Arc::clone(r));
        let statistics = Arc::clone(&self.statistics);
        let decisions = Arc::clone(&self.why.decisions);
        let tail = self.tail.clone();
        Arc::new(move || {
            let mut gauges = Vec::new();
            let mut notices = Vec::new();
            if let Some(store) = &store {
                store_figures(store, &mut gauges, &mut notices);
            }
            if let Some(exporter) = &exporter {
                exporter_figures(exporter, &mut gauges);
            }
            statistics.figures(&mut gauges);
            if let Some(tail) = &tail {
                tail.figures(&mut gauges);
            }
            let mut deliveries = pipeline.upgrade().map(|p| p.deliveries()).unwrap_or_default();
            if let Some(routes) = &routes {
                routes.figures(&mut gauges, &mut deliveries, &mut notices);
            }
            super::why::figures(&decisions, &mut gauges, &mut notices);
            let rates = inlet.rates().snapshot();
            Report {
                version: env!("CARGO_PKG_VERSION"),
                uptime: started.elapsed().as_secs_f64(),
                ledger: inlet.ledger().snapshot(),
                deliveries,
                memory: (inlet.budget().used(), inlet.budget().limit()),
                queued: inlet.queued(),
                gauges,
                rates: serde_json::from_slice(&rates.body).unwrap_or(Json::Null),
                notices,
            }
        })
    }

    /// Waits for a signal, then stops in order.
    async fn until_stopped(mut self) -> Result<(), String> {
        wait_for_signal().await?;
        let stop = self.stop.clone();
        println!("Stopping: finishing what was taken in. A second signal stops at once.");
        stop.request();
        self.ready.store(false, Ordering::Release);
        let orderly = async {
            let drain = async { while self.servers.join_next().await.is_some() {} };
            if tokio::time::timeout(GRACE / 2, drain).await.is_err() {
                tracing::warn!("some connections did not end in time; they are cut");
                self.servers.abort_all();
            }
            if let Some(tracers) = &self.tracers {
                tracers.finish().await;
            }
            let drained = self.pipeline.drain(GRACE).await;
            if !drained.complete {
                tracing::error!(
                    spans = drained.lost_spans,
                    "given up at the stop, counted as lost (shutdown)"
                );
            }
            self.flusher.abort();
            let statistics = Arc::clone(&self.statistics);
            drop(tokio::task::spawn_blocking(move || statistics.flush(true)).await);
            // While exporters still take what is being judged; the rest waits
            // on disk for the next start.
            if let Some(tail) = self.tail.take() {
                drop(tokio::task::spawn_blocking(move || tail.stop()).await);
            }
            let routes = async {
                if let Some((routes, watcher)) = &self.routes {
                    watcher.abort();
                    routes.router.stop(SEND_GRACE).await;
                }
            };
            let intake = async {
                if let Some(exporter) = &self.exporter {
                    exporter.stop(SEND_GRACE).await;
                }
            };
            tokio::join!(routes, intake);
            if let Some(leave) = &self.statistics.leave {
                leave.log.close();
            }
            let why = Arc::clone(&self.why);
            drop(tokio::task::spawn_blocking(move || why.decisions.close()).await);
            if let Some(store) = self.store.take() {
                drop(tokio::task::spawn_blocking(move || store.close()).await);
            }
        };
        tokio::select! {
            () = orderly => {
                println!("Stopped.");
                Ok(())
            }
            _ = wait_for_signal() => Err("stopped at once by a second signal; what was acknowledged is in the log".into()),
        }
    }
}

/// Tells the query API about the program.
struct Telling {
    report: Arc<dyn Fn() -> Report + Send + Sync>,
    why: Arc<Why>,
    statistics: Arc<Statistics>,
}

impl spanloom_api::Report for Telling {
    fn status(&self) -> Option<Json> {
        Some((self.report)().json())
    }
    fn ledger(&self) -> Option<Json> {
        Some((self.report)().json()["ledger"].take())
    }
    fn why(&self, id: TraceId) -> Option<Json> {
        Some(self.why.tell(id))
    }
    fn red(&self, filter: &RedFilter<'_>) -> Option<Vec<RedSeries>> {
        Some(self.statistics.red(filter))
    }
    fn keep(&self, id: TraceId) -> Option<Result<Json, spanloom_api::Problem>> {
        self.why.keep(id)
    }
}

/// Flushes statistics once a second.
fn flush_regularly(statistics: &Arc<Statistics>) -> tokio::task::JoinHandle<()> {
    let statistics = Arc::clone(statistics);
    tokio::spawn(async move {
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let statistics = Arc::clone(&statistics);
            // Encoding and waiting for the exporter's queue may block.
            drop(tokio::task::spawn_blocking(move || statistics.flush(false)).await);
        }
    })
}

async fn wait_for_signal() -> Result<(), String> {
    use tokio::signal::unix::{SignalKind, signal};
    let fail = |e: std::io::Error| format!("signals cannot be received: {e}");
    let mut term = signal(SignalKind::terminate()).map_err(fail)?;
    let mut int = signal(SignalKind::interrupt()).map_err(fail)?;
    tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
    Ok(())
}

/// One process at a time in a data directory.
fn lock_directory(dir: &Path) -> Result<std::fs::File, String> {
    let shown = dir.display();
    std::fs::create_dir_all(dir).map_err(|e| {
        format!("the data directory {shown} cannot be made: {e}; choose another with --data-dir or SPANLOOM_DATA_DIR")
    })?;
    let path = dir.join("lock");
    let file = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(|e| {
        format!("the data directory {shown} cannot be written: {e}; choose another with --data-dir or SPANLOOM_DATA_DIR")
    })?;
    file.try_lock().map_err(|_| {
        format!("the data directory {shown} is in use by another Spanloom; stop it, or choose another directory with --data-dir")
    })?;
    Ok(file)
}

fn open_store(s: &Settings, dir: &Path, ack: SyncPolicy, ledger: &Arc<Ledger>) -> Result<Arc<Store>, String> {
    let ledger = Arc::clone(ledger);
    let rules = tail_settings(s)?.map(|t| t.rules);
    let config = StoreConfig {
        ack,
        decide: rules.is_some(),
        undrop_for: Duration::from_nanos(rules.map_or(0, |r| r.undrop()).max(0) as u64),
        on_duplicates: Some(Arc::new(move |protocol, spans| ledger.duplicates(protocol, spans, 0))),
        keep_for: s.retention_age,
        keep_bytes: s.retention_size.0,
        disk_floor: s.disk_floor.0,
        flush_bytes: (s.store_memory.0 / 2).max(1 << 20),
        live_bytes: s.store_memory.0.max(2 << 20).saturating_mul(2),
        ..StoreConfig::default()
    };
    let (store, report) = Store::open(&dir.join("store"), config)
        .map_err(|e| format!("the store in {} cannot be opened: {e}", dir.display()))?;
    if report.replayed_spans > 0 || report.segments > 0 {
        tracing::info!(
            spans = report.replayed_spans,
            log_bytes = report.log_bytes,
            segments = report.segments,
            "the store is open"
        );
    }
    for damage in &report.damage {
        tracing::error!(file = %damage.file.display(), "damaged: {}", damage.what);
    }
    Ok(Arc::new(store))
}

/// Tail sampling, unless its rules keep everything anyway.
fn tail_settings(s: &Settings) -> Result<Option<settings::Tail>, String> {
    let tail = s.tail().map_err(|causes| format!("tail_sampling: {}", causes.join("; ")))?;
    Ok(tail.filter(|t| !t.rules.keeps_all()))
}

/// Tells the ledger what tail rules drop, unless a store has it all the same.
fn on_dropped(ledger: &Arc<Ledger>, store: bool) -> Arc<dyn Fn(Protocol, u64, u64) + Send + Sync> {
    let ledger = Arc::clone(ledger);
    Arc::new(move |protocol, spans, chunks| {
        if !store {
            ledger.dropped_later(protocol, spans, chunks);
        }
    })
}

fn open_decisions(s: &Settings, dir: &Path) -> Result<Decisions, String> {
    let config = DecisionsConfig {
        max_bytes: s.decisions_size.0,
        keep_for: s.retention_age,
        ..DecisionsConfig::new(dir.join("decisions"))
    };
    let (decisions, damage) = Decisions::open(config).map_err(|e| e.to_string())?;
    for text in damage {
        tracing::error!("damaged: {text}");
    }
    Ok(decisions)
}

fn open_exporter(
    s: &Settings,
    dir: &Path,
    policy: SyncPolicy,
    hostname: &str,
    seed: u64,
) -> Result<Arc<DatadogExporter>, String> {
    let user_agent = format!("Datadog Trace Agent/{}/{}", convert::AGENT_VERSION, convert::AGENT_COMMIT);
    let endpoint =
        |url: String, key: &str| Endpoint { url, key: key.to_owned(), user_agent: user_agent.clone() };
    let mut endpoints = Vec::new();
    if s.send_to_main_endpoint {
        endpoints.push(endpoint(convert::intake_url(s), &s.key().0));
    }
    for (url, keys) in &s.additional_endpoints.0 {
        endpoints.extend(keys.iter().map(|key| endpoint(url.trim_end_matches('/').to_owned(), &key.0)));
    }
    if let Some(bad) =
        endpoints.iter().find(|e| e.url.parse::<http::Uri>().map_or(true, |u| u.scheme().is_none()))
    {
        return Err(format!(
            "`{}` is not a URL such as https://trace.agent.datadoghq.com; correct DD_APM_DD_URL or DD_APM_ADDITIONAL_ENDPOINTS",
            bad.url
        ));
    }
    if endpoints.is_empty() {
        return Err("apm_config.send_to_main_endpoint is false and there are no additional endpoints: nothing to send to".into());
    }
    let period = if s.trace_writer_flush_period > 0.0 { s.trace_writer_flush_period } else { 5.0 };
    let config = DatadogConfig {
        dir: PathBuf::from(dir).join("queues/datadog"),
        endpoints,
        queue_bytes: s.queue_size.0,
        policy,
        flush_period: Duration::from_secs_f64(period.clamp(0.01, 3600.0)),
        connections: usize::try_from(s.trace_writer_connections).ok().filter(|n| *n > 0).unwrap_or(5),
        agent: convert::agent_info(s, hostname),
        seed,
    };
    let (exporter, damage) = DatadogExporter::start(config, outgoing::transport(s)?)
        .map_err(|e| format!("the queue for Datadog: {e}"))?;
    for text in damage {
        tracing::error!("damaged: {text}");
    }
    Ok(exporter)
}

/// The log of statistics; what it holds is counted.
fn open_stats_log(
    dir: &Path,
    policy: SyncPolicy,
    exporter: &DatadogExporter,
    concentrator: &Arc<Mutex<Concentrator>>,
    clients: &mut ClientAggregator,
    now: i64,
) -> Result<Arc<StatsLog>, String> {
    let config = StatsLogConfig {
        policy,
        last_number: exporter.last_stats(),
        ..StatsLogConfig::new(dir.join("statistics"))
    };
    let (log, found) = StatsLog::open(config, Arc::clone(concentrator), clients, now)
        .map_err(|e| format!("the log of statistics in {}: {e}", dir.display()))?;
    if found.spans + found.payloads + found.parts > 0 {
        tracing::info!(
            spans = found.spans,
            payloads = found.payloads,
            parts = found.parts,
            "statistics go on where they were"
        );
    }
    for text in found.damage {
        tracing::error!("damaged: {text}");
    }
    Ok(Arc::new(log))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_directory_has_one_user_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let first = lock_directory(dir.path()).unwrap();
        assert!(lock_directory(dir.path()).unwrap_err().contains("in use by another Spanloom"));
        drop(first);
        assert!(lock_directory(dir.path()).is_ok());
    }
}
