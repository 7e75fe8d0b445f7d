//! A stand-in for the Datadog intake that can be down, slow, refuse, and cut
//! connections half way. It keeps which spans and statistics it holds, and how
//! often.

use crate::decode;
use serde_json::Value as Json;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};

/// What happens to a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Refused with a status; not kept.
    Status(u16),
    /// The connection is closed in the middle of the body.
    CutRequest,
    /// It is kept, and the connection is closed in the middle of the answer.
    CutReply,
    /// Kept, and answered when [`Intake::go_on`] is called.
    Slow,
}

/// What it holds.
#[derive(Default)]
pub struct Held {
    /// How often each span, by id.
    pub spans: HashMap<u64, u32>,
    /// Hits by service and resource.
    pub hits: BTreeMap<(String, String), u64>,
    /// Hits in statistics that came a second time, to the byte, because the
    /// answer to the first was cut: no sender can tell.
    pub hits_again: u64,
    /// Requests kept.
    pub requests: u64,
    seen: HashSet<(String, Vec<u8>)>,
}

#[derive(Default)]
struct State {
    held: Mutex<Held>,
    script: Mutex<VecDeque<Answer>>,
    slow: (Mutex<bool>, Condvar),
    /// Connections of an earlier life are closed.
    life: AtomicU64,
    open: Mutex<Vec<TcpStream>>,
}

pub struct Intake {
    pub port: u16,
    state: Arc<State>,
}

impl Intake {
    /// Listens on a free port.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let intake = Self { port, state: Arc::default() };
        intake.listen(listener);
        intake
    }

    fn listen(&self, listener: TcpListener) {
        let state = Arc::clone(&self.state);
        let life = state.life.load(Ordering::SeqCst);
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                if state.life.load(Ordering::SeqCst) != life {
                    return;
                }
                let (connection, state) = (connection.unwrap(), Arc::clone(&state));
                state.open.lock().unwrap().push(connection.try_clone().unwrap());
                std::thread::spawn(move || serve(connection, &state));
            }
        });
    }

    /// Nobody listens, and open connections end.
    pub fn down(&self) {
        self.state.life.fetch_add(1, Ordering::SeqCst);
        // Wakes the listener, so that it sees that it is over.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
        for connection in self.state.open.lock().unwrap().drain(..) {
            let _ = connection.shutdown(std::net::Shutdown::Both);
        }
    }

    pub fn up(&self) {
        let listen = || TcpListener::bind(("127.0.0.1", self.port)).ok();
        self.listen(crate::until("the intake's port", listen));
    }

    /// The next requests are answered like this, later ones with 202.
    pub fn script(&self, answers: impl IntoIterator<Item = Answer>) {
        self.state.script.lock().unwrap().extend(answers);
    }

    /// Whether the script is over.
    pub fn script_is_over(&self) -> bool {
        self.state.script.lock().unwrap().is_empty()
    }

    /// Slow answers are given.
    pub fn go_on(&self) {
        *self.state.slow.0.lock().unwrap() = true;
        self.state.slow.1.notify_all();
    }

    pub fn held<T>(&self, look: impl FnOnce(&Held) -> T) -> T {
        look(&self.state.held.lock().unwrap())
    }
}

fn serve(connection: TcpStream, state: &State) {
    let mut reader = BufReader::new(connection.try_clone().unwrap());
    let mut writer = connection;
    loop {
        let Some((path, length)) = head(&mut reader) else { return };
        let answer = state.script.lock().unwrap().pop_front();
        if answer == Some(Answer::CutRequest) {
            let mut half = vec![0; length / 2];
            let _ = reader.read_exact(&mut half);
            let _ = writer.shutdown(std::net::Shutdown::Both);
            return;
        }
        let mut body = vec![0; length];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        if let Some(Answer::Status(status)) = answer {
            let text = format!("HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n");
            if writer.write_all(text.as_bytes()).is_err() {
                return;
            }
            continue;
        }
        keep(state, path, body);
        match answer {
            Some(Answer::CutReply) => {
                let _ = writer.write_all(b"HTTP/1.1 20");
                let _ = writer.shutdown(std::net::Shutdown::Both);
                return;
            }
            Some(Answer::Slow) => {
                let go = state.slow.0.lock().unwrap();
                drop(state.slow.1.wait_while(go, |go| !*go).unwrap());
            }
            _ => {}
        }
        if writer.write_all(b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\n{}").is_err() {
            return;
        }
    }
}

fn head(reader: &mut BufReader<TcpStream>) -> Option<(String, usize)> {
    let mut line = String::new();
    let mut next = |reader: &mut BufReader<TcpStream>| {
        line.clear();
        reader.read_line(&mut line).ok().filter(|n| *n > 0).map(|_| line.trim_end().to_owned())
    };
    let path = next(reader)?.split(' ').nth(1)?.to_owned();
    let mut length = 0;
    loop {
        let line = next(reader)?;
        let Some((name, value)) = line.split_once(':') else { return Some((path, length)) };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().ok()?;
        }
    }
}

fn keep(state: &State, path: String, body: Vec<u8>) {
    if path == "/api/v0.2/traces" {
        let payload = decode::agent_payload(&zstd::stream::decode_all(&body[..]).unwrap());
        let mut held = state.held.lock().unwrap();
        held.requests += 1;
        let chunks = list(&payload["tracerPayloads"]).flat_map(|p| list(&p["chunks"]));
        for span in chunks.flat_map(|c| list(&c["spans"])) {
            let id = span["spanID"].as_str().unwrap().parse().unwrap();
            *held.spans.entry(id).or_default() += 1;
        }
        return;
    }
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut plain).unwrap();
    let payload = decode::stats_payload(&plain);
    let mut held = state.held.lock().unwrap();
    held.requests += 1;
    let again = !held.seen.insert((path, body));
    let buckets = list(&payload["Stats"]).flat_map(|s| list(&s["Stats"]));
    for group in buckets.flat_map(|b| list(&b["Stats"])) {
        let hits = group["Hits"].as_u64().unwrap();
        if again {
            held.hits_again += hits;
            continue;
        }
        let text = |key: &str| group[key].as_str().unwrap().to_owned();
        *held.hits.entry((text("Service"), text("Resource"))).or_default() += hits;
    }
}

fn list(value: &Json) -> impl Iterator<Item = &Json> {
    value.as_array().into_iter().flatten()
}
