//! A stand-in for the Datadog intake: takes everything, keeps it decoded.

use crate::decode;
use serde_json::{Value as Json, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

pub struct Intake {
    pub port: u16,
    requests: Arc<Mutex<Vec<Json>>>,
}

impl Intake {
    /// Listens until the test ends.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let to = Arc::clone(&requests);
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let to = Arc::clone(&to);
                std::thread::spawn(move || serve(connection.unwrap(), &to));
            }
        });
        Self { port, requests }
    }

    /// What came since the last call.
    pub fn take(&self) -> Vec<Json> {
        std::mem::take(&mut *self.requests.lock().unwrap())
    }
}

fn serve(connection: TcpStream, to: &Mutex<Vec<Json>>) {
    let mut reader = BufReader::new(connection.try_clone().unwrap());
    let mut writer = connection;
    while let Some(request) = read(&mut reader) {
        to.lock().unwrap().push(request);
        if writer.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").is_err() {
            return;
        }
    }
}

fn read(reader: &mut BufReader<TcpStream>) -> Option<Json> {
    let mut line = String::new();
    let mut next = |reader: &mut BufReader<TcpStream>| {
        line.clear();
        reader.read_line(&mut line).ok().filter(|n| *n > 0).map(|_| line.trim_end().to_owned())
    };
    let first = next(reader)?;
    let mut words = first.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = serde_json::Map::new();
    let mut length = 0;
    loop {
        let line = next(reader)?;
        let Some((name, value)) = line.split_once(':') else { break };
        let (name, value) = (name.to_lowercase(), value.trim());
        match name.as_str() {
            "content-length" => length = value.parse().ok()?,
            // About the connection, not about the payload.
            "host" | "connection" | "accept" | "accept-encoding" => {}
            _ => assert!(headers.insert(name, json!(value)).is_none(), "a header twice: {line}"),
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let mut out = json!({ "method": method, "path": path, "headers": headers });
    if path == "/api/v0.2/traces" {
        out["agent_payload"] = decode::agent_payload(&zstd::stream::decode_all(&body[..]).unwrap());
    } else {
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut plain).unwrap();
        out["stats_payload"] = decode::stats_payload(&plain);
    }
    Some(out)
}
