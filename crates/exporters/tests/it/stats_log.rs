//! The process is killed at every point: what was counted and acknowledged
//! leaves once, whatever the log and the queue had on disk by then.

use bytes::Bytes;
use spanloom_exporters::{
    CountedRequest, Recovered, Request, Spool, SpoolConfig, StatsLog, StatsLogConfig, StatsPart, Tried,
};
use spanloom_journal::SyncPolicy;
use spanloom_model::stats::{ClientGroupedStats, ClientStatsBucket, ClientStatsPayload, StatsPayload};
use spanloom_model::{Arena, Attr, Batch, Chunk, Intake, Range32, Resource, Span, SpanId, Value};
use spanloom_stats::{ClientAggregator, ClientSettings, Concentrator, Delta, Settings};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, mpsc};

const SECOND: i64 = 1_000_000_000;
const T0: i64 = 1_700_000_000 * SECOND;

/// Hits by service.
type Hits = BTreeMap<String, u64>;

fn add(to: &mut Hits, from: &Hits) {
    from.iter().for_each(|(service, n)| *to.entry(service.clone()).or_default() += n);
}

/// One process: counting, log, queue.
struct Process {
    dir: PathBuf,
    concentrator: Arc<Mutex<Concentrator>>,
    clients: ClientAggregator,
    log: StatsLog,
    spool: Spool,
    found: Recovered,
}

impl Process {
    fn start(dir: &Path, now: i64) -> Self {
        let (spool, _) =
            Spool::open(&dir.join("queue"), SpoolConfig { max_bytes: 1 << 24, policy: SyncPolicy::Always })
                .unwrap();
        let settings = Settings { seed: now as u64, ..Settings::default() };
        let concentrator = Arc::new(Mutex::new(Concentrator::new(settings, now)));
        let mut clients = ClientAggregator::new(ClientSettings::default(), now);
        let config =
            StatsLogConfig { last_number: spool.numbered(), ..StatsLogConfig::new(dir.join("statistics")) };
        let (log, found) = StatsLog::open(config, Arc::clone(&concentrator), &mut clients, now).unwrap();
        assert_eq!(found.damage.iter().filter(|d| !d.contains(".log: ")).count(), 0, "{:?}", found.damage);
        Self { dir: dir.into(), concentrator, clients, log, spool, found }
    }

    /// Counts a span and waits until it is safe.
    fn count(&self, id: u64, service: &str, ended: i64) {
        let b = batch(service, ended);
        let mut delta = Delta::default();
        let mut concentrator = self.concentrator.lock().unwrap();
        let mut tally = concentrator.tally();
        tally.add(&b, &b.chunks[0]);
        concentrator.count_logged(&b, &tally, ended, &mut delta);
        drop(concentrator);
        let (tell, told) = mpsc::channel();
        let request = CountedRequest { fingerprint: id, received_at: ended };
        self.log.commit(&delta, request, Box::new(move || tell.send(()).unwrap()));
        self.log.write();
        told.recv().unwrap();
    }

    /// A tracer's own figures, likewise.
    fn merge(&mut self, id: u64, service: &str, hits: u64, at: i64) {
        let group = ClientGroupedStats { service: service.into(), hits, ..ClientGroupedStats::default() };
        let bucket = ClientStatsBucket {
            start: at as u64,
            duration: 10 * SECOND as u64,
            stats: vec![group],
            ..ClientStatsBucket::default()
        };
        let mut payload = ClientStatsPayload { stats: vec![bucket], ..ClientStatsPayload::default() };
        self.clients.complete::<&str>(&mut payload, &[]);
        let (tell, told) = mpsc::channel();
        let request = CountedRequest { fingerprint: id, received_at: at };
        self.log.client(&mut self.clients, payload, request, Box::new(move || tell.send(()).unwrap()));
        told.recv().unwrap();
    }

    /// Flushes as the program does, with bodies that say their hits.
    fn flush(&mut self, now: i64, all: bool, queue: &dyn Fn(&Spool, &StatsPart) -> bool) {
        let own = self.concentrator.lock().unwrap().flush(now, all, &mut || 0.5);
        let before: Vec<i64> = self.clients.open_buckets().collect();
        let clients = self.clients.flush(now, all);
        let after: Vec<i64> = self.clients.open_buckets().collect();
        let starts: Vec<i64> = before.into_iter().filter(|s| !after.contains(s)).collect();
        let payloads = std::iter::once(own).chain(clients).filter(|p| !p.stats.is_empty());
        let bodies = payloads.map(|p| (body(&p), 1)).collect();
        self.log.hand_over(&starts, bodies, &|part| queue(&self.spool, part));
    }

    /// Everything that leaves from here on, if nothing more happens.
    fn rest(mut self) -> Hits {
        self.flush(T0 + 10_000 * SECOND, true, &push);
        let mut hits = Hits::new();
        while let Some(claim) = self.spool.claim() {
            add(&mut hits, &parse(&claim.request.body));
            self.spool.finish(claim, Tried::Sent);
        }
        hits
    }

    /// The newest file of the log, and its length.
    fn newest(&self) -> (PathBuf, u64) {
        newest(&self.dir)
    }
}

fn newest(dir: &Path) -> (PathBuf, u64) {
    let files = std::fs::read_dir(dir.join("statistics")).unwrap();
    let mut files: Vec<PathBuf> = files.map(|e| e.unwrap().path()).collect();
    files.sort();
    let file = files.pop().unwrap();
    let length = std::fs::metadata(&file).unwrap().len();
    (file, length)
}

fn push(spool: &Spool, part: &StatsPart) -> bool {
    let request = Request {
        urgent: true,
        path: "/stats".into(),
        headers: vec![],
        items: part.groups,
        body: part.body.clone(),
    };
    spool.push(part.number, request).is_ok()
}

fn body(payload: &StatsPayload) -> Bytes {
    let groups = payload.stats.iter().flat_map(|s| &s.stats).flat_map(|b| &b.stats);
    groups.map(|g| format!("{}={};", g.service, g.hits)).collect::<String>().into()
}

fn parse(body: &[u8]) -> Hits {
    let mut hits = Hits::new();
    for part in std::str::from_utf8(body).unwrap().split_terminator(';') {
        let (service, n) = part.split_once('=').unwrap();
        *hits.entry(service.into()).or_default() += n.parse::<u64>().unwrap();
    }
    hits
}

fn batch(service: &str, ended: i64) -> Batch {
    let mut b = Batch::new(Arena::default(), Intake::default());
    b.resources.push(Resource::default());
    let service = b.arena.push(service);
    let key = b.arena.push("_top_level");
    b.attrs.push(Attr { key, value: Value::Double(1.0) });
    b.spans.push(Span {
        span_id: SpanId(1),
        service,
        start: ended - 1_000,
        duration: 1_000,
        attrs: Range32::new(0, 1),
        ..Span::default()
    });
    b.chunks.push(Chunk { spans: Range32::new(0, 1), ..Chunk::default() });
    b
}

/// A directory in memory where there is one: these tests sync thousands of times.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_tree(&entry.path(), &target)
        } else {
            drop(std::fs::copy(entry.path(), target))
        }
    }
}

/// What leaves after a kill that left this on disk; `twice`: also if the next
/// process is killed right after its start.
fn leaves_after(disk: &Path, now: i64, twice: bool) -> Hits {
    let started = Process::start(disk, now);
    if !twice {
        return started.rest();
    }
    let again = scratch();
    copy_tree(disk, again.path());
    let hits = started.rest();
    assert_eq!(Process::start(again.path(), now).rest(), hits, "killed right after the start");
    hits
}

/// A run of the world, and what a kill would find.
struct World {
    process: Process,
    counted: Hits,
    sent: Hits,
    now: i64,
    next: u64,
    random: u64,
    checked: usize,
}

impl World {
    fn random(&mut self, n: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % n
    }

    fn check(&mut self, disk: &Path, between: u64) {
        let mut total = self.sent.clone();
        add(&mut total, &leaves_after(disk, self.now, self.checked.is_multiple_of(4)));
        if between == 0 {
            assert_eq!(total, self.counted);
        } else {
            // The request that was not answered is there or not.
            let (got, least) = (total.values().sum::<u64>(), self.counted.values().sum::<u64>());
            assert!(got == least || got == least + between, "{got} of {least} + {between}");
        }
        self.checked += 1;
    }

    /// Killed now.
    fn check_now(&mut self) {
        let disk = scratch();
        copy_tree(&self.process.dir, disk.path());
        self.check(disk.path(), 0);
    }

    fn step(&mut self) {
        self.now += SECOND * self.random(9) as i64;
        self.next += 1;
        let service = format!("s{}", self.random(3));
        let before = self.process.newest();
        match self.random(8) {
            0 => {
                // Something leaves.
                while let Some(claim) = self.process.spool.claim() {
                    add(&mut self.sent, &parse(&claim.request.body));
                    self.process.spool.finish(claim, Tried::Sent);
                    // Waits until the queue has noted it. A kill before that
                    // sends it twice, which no sender can avoid.
                    let nothing = StatsPart { number: 0, groups: 0, body: Bytes::new() };
                    assert!(push(&self.process.spool, &nothing));
                    if self.random(2) == 0 {
                        break;
                    }
                }
                self.check_now();
            }
            1 => {
                let hits = 1 + self.random(9);
                let at = self.now - self.random(30) as i64 * SECOND;
                self.process.merge(self.next, &service, hits, at);
                let unanswered = self.counted.clone();
                *self.counted.entry(service).or_default() += hits;
                self.check_now();
                let counted = std::mem::replace(&mut self.counted, unanswered);
                self.cut(before, hits);
                self.counted = counted;
            }
            2 | 3 => self.flush(before),
            _ => {
                let ended = self.now - self.random(15) as i64 * SECOND + self.random(2) as i64 * 90 * SECOND;
                self.process.count(self.next, &service, ended);
                let unanswered = self.counted.clone();
                *self.counted.entry(service).or_default() += 1;
                self.check_now();
                let counted = std::mem::replace(&mut self.counted, unanswered);
                self.cut(before, 1);
                self.counted = counted;
            }
        }
    }

    /// Killed while the last request was written.
    fn cut(&mut self, before: (PathBuf, u64), between: u64) {
        let (file, to) = self.process.newest();
        if file != before.0 || !self.next.is_multiple_of(3) {
            return;
        }
        for length in (before.1..to).step_by(23) {
            let disk = scratch();
            copy_tree(&self.process.dir, disk.path());
            cut(disk.path(), length);
            self.check(disk.path(), between);
        }
    }

    /// A flush, killed at each of its steps.
    fn flush(&mut self, before: (PathBuf, u64)) {
        let disks: Mutex<Vec<tempfile::TempDir>> = Mutex::default();
        let dir = self.process.dir.clone();
        let keep = || {
            let disk = scratch();
            copy_tree(&dir, disk.path());
            disks.lock().unwrap().push(disk);
        };
        keep();
        self.process.flush(self.now, false, &|spool, part| {
            keep();
            let queued = push(spool, part);
            keep();
            queued
        });
        keep();
        let disks = disks.into_inner().unwrap();
        // While the payloads were written to the log nothing was queued.
        if let Some(second) = disks.get(1).filter(|d| newest(d.path()).0.file_name() == before.0.file_name())
        {
            for length in (before.1..newest(second.path()).1).step_by(29) {
                let disk = scratch();
                copy_tree(second.path(), disk.path());
                cut(disk.path(), length);
                self.check(disk.path(), 0);
            }
        }
        // While it was noted that they are queued.
        if let [.., pushed, last] = &disks[..]
            && newest(pushed.path()).0.file_name() == newest(last.path()).0.file_name()
        {
            for length in newest(pushed.path()).1..newest(last.path()).1 {
                let disk = scratch();
                copy_tree(last.path(), disk.path());
                cut(disk.path(), length);
                self.check(disk.path(), 0);
            }
        }
        disks.iter().for_each(|disk| self.check(disk.path(), 0));
    }
}

fn cut(disk: &Path, length: u64) {
    std::fs::OpenOptions::new().write(true).open(newest(disk).0).unwrap().set_len(length).unwrap();
}

#[test]
fn whatever_moment_it_is_killed_at_what_was_counted_leaves_once() {
    let dir = scratch();
    let mut world = World {
        process: Process::start(dir.path(), T0),
        counted: Hits::new(),
        sent: Hits::new(),
        now: T0,
        next: 0,
        random: 0x9e37_79b9_7f4a_7c15,
        checked: 0,
    };
    for _ in 0..40 {
        world.step();
    }
    assert!(world.checked > 60, "{}", world.checked);
    assert!(world.sent.values().sum::<u64>() > 0, "{:?}", world.sent);
    let mut total = world.sent;
    add(&mut total, &world.process.rest());
    assert_eq!(total, world.counted);
}

#[test]
fn a_payload_is_queued_once_by_each_queue_even_if_one_refuses_it_at_first() {
    let dir = scratch();
    let mut process = Process::start(dir.path(), T0);
    process.count(1, "web", T0);
    process.flush(T0 + 60 * SECOND, false, &|_, _| false);
    assert_eq!(process.log.stats().waiting, 1);
    // A second one waits behind it: numbers must grow.
    process.count(2, "web", T0 + 60 * SECOND);
    process.flush(T0 + 120 * SECOND, false, &|_, _| false);
    drop(process);
    let process = Process::start(dir.path(), T0 + 120 * SECOND);
    assert_eq!(process.found.parts, 2);
    assert_eq!(process.rest(), Hits::from([("web".into(), 2)]));
    assert_eq!(Process::start(dir.path(), T0 + 120 * SECOND).found.parts, 0);
}

#[test]
fn a_queue_knows_its_numbers_after_everything_was_sent_and_its_files_are_gone() {
    let dir = scratch();
    let part = |number| StatsPart { number, groups: 1, body: Bytes::from(vec![b'x'; 30_000]) };
    for round in 0..4 {
        let config = SpoolConfig { max_bytes: 1 << 20, policy: SyncPolicy::Always };
        let (spool, _) = Spool::open(dir.path(), config).unwrap();
        assert_eq!(spool.numbered(), round * 10);
        for n in 1..=10 {
            assert!(push(&spool, &part(round * 10 + n)));
            assert!(push(&spool, &part(round * 10 + n)), "again: taken for the same");
            let claim = spool.claim().unwrap();
            spool.finish(claim, Tried::Sent);
            assert!(spool.claim().is_none());
        }
        spool.close();
    }
    let files = std::fs::read_dir(dir.path().join("ready")).unwrap().count();
    assert!(files <= 4, "{files} files");
}

#[test]
fn requests_counted_before_a_restart_are_recognised_for_a_minute() {
    let dir = scratch();
    let mut process = Process::start(dir.path(), T0);
    process.count(41, "web", T0);
    process.merge(42, "web", 3, T0);
    assert!(!process.log.counted_before(41, T0), "by this process");
    drop(process);
    let process = Process::start(dir.path(), T0 + SECOND);
    assert!(process.log.counted_before(41, T0 + 2 * SECOND));
    assert!(process.log.counted_before(42, T0 + 2 * SECOND));
    assert!(!process.log.counted_before(43, T0 + 2 * SECOND));
    assert!(!process.log.counted_before(41, T0 + 70 * SECOND));
    assert_eq!((process.found.spans, process.found.payloads), (1, 1));
}

#[test]
fn the_log_does_not_grow_while_buckets_come_and_go() {
    let dir = scratch();
    let mut process = Process::start(dir.path(), T0);
    // A clock that is an hour ahead keeps its bucket open for an hour.
    process.count(1, "ahead", T0 + 3600 * SECOND);
    let mut most = 0;
    for second in 0..200 {
        let now = T0 + second * SECOND;
        for i in 0..20 {
            process.count(i, &format!("service-{i}-{}", "x".repeat(1000)), now);
        }
        process.flush(now, false, &push);
        most = most.max(process.log.stats().bytes);
    }
    assert!(most < 24 << 20, "{most}");
    assert!(process.log.stats().bytes < 13 << 20, "{}", process.log.stats().bytes);
}
