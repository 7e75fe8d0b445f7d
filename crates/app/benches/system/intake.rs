//! A stand-in for the Datadog intake: takes everything, counts bytes, keeps
//! nothing.

use crate::program::length;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Starts it on a port of its own; gives its URL and the bytes received.
pub fn start() -> (String, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let bytes = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&bytes);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let counter = Arc::clone(&counter);
            std::thread::spawn(move || serve(stream.unwrap(), &counter));
        }
    });
    (url, bytes)
}

fn serve(mut stream: TcpStream, bytes: &AtomicU64) {
    let mut buffer = vec![0; 256 << 10];
    let mut head = Vec::new();
    loop {
        let Ok(n) = stream.read(&mut buffer) else { return };
        if n == 0 {
            return;
        }
        bytes.fetch_add(n as u64, Relaxed);
        head.extend_from_slice(&buffer[..n]);
        let Some(total) = length(&head) else { continue };
        let mut left = total.saturating_sub(head.len());
        while left > 0 {
            let n = stream.read(&mut buffer).unwrap_or(0);
            if n == 0 {
                return;
            }
            bytes.fetch_add(n as u64, Relaxed);
            left = left.saturating_sub(n);
        }
        head.clear();
        if stream.write_all(b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\n{}").is_err() {
            return;
        }
    }
}
