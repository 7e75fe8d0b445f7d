//! Sockets: how they are made and how many connections they take.

use crate::support::*;
use spanloom_receivers::{BindError, Listener, ServerConfig};
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::Ordering;

#[tokio::test]
async fn the_socket_may_be_written_by_all_and_replaces_a_stale_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("apm.socket");
    let first = Listener::unix(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o722);
    let second = Listener::unix(&path).unwrap();
    tokio::net::UnixStream::connect(&path).await.unwrap();
    drop((first, second));
    assert!(path.exists(), "the file stays");
    Listener::unix(&path).unwrap();
}

#[tokio::test]
async fn what_is_in_the_way_of_a_socket_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let missing = Listener::unix(&dir.path().join("no/apm.socket"));
    assert!(matches!(&missing, Err(BindError::NoDirectory(d)) if d.ends_with("no")));
    let file = dir.path().join("file");
    std::fs::write(&file, "precious").unwrap();
    let error = Listener::unix(&file).err().unwrap();
    assert_eq!(error.to_string(), format!("cannot reuse {file:?}; not a unix socket"));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
    let taken = Listener::tcp("localhost", 0).await.unwrap();
    let error = Listener::tcp("localhost", taken.port().unwrap()).await.err().unwrap();
    assert!(error.to_string().starts_with("cannot listen on localhost:"), "{error}");
}

#[tokio::test]
async fn a_connection_beyond_the_limit_waits_for_a_free_place() {
    let server = ServerConfig { max_connections: 1, ..ServerConfig::default() };
    let r = start_with(Setup { server: Some(server), ..Setup::default() }).await;
    let mut first = r.tcp().await;
    let get = b"GET /info HTTP/1.1\r\nHost: x\r\n\r\n";
    assert_eq!(exchange(&mut first, get).await.unwrap().status, 200);
    let mut second = r.tcp().await;
    let waiting = tokio::spawn(async move { exchange(&mut second, get).await });
    assert_eq!(exchange(&mut first, get).await.unwrap().status, 200);
    assert_eq!(r.connections.accepted.load(Ordering::Relaxed), 1);
    // The limit is per listener: the Unix socket has its own.
    assert_eq!(exchange(&mut r.unix().await, get).await.unwrap().status, 200);
    drop(first);
    assert_eq!(waiting.await.unwrap().unwrap().status, 200);
    r.finish().await;
}

#[tokio::test]
async fn a_lease_lets_so_many_new_connections_in() {
    let server = ServerConfig { connection_lease: 2, ..ServerConfig::default() };
    let r = start_with(Setup { server: Some(server), ..Setup::default() }).await;
    let get = request("GET", "/info", &[], None);
    for _ in 0..2 {
        assert_eq!(r.raw(false, &get).await.unwrap().status, 200);
    }
    let mut third = r.tcp().await;
    let waiting = tokio::spawn(async move { exchange(&mut third, &get).await });
    while r.connections.leases_spent.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(r.connections.accepted.load(Ordering::Relaxed), 2);
    waiting.abort();
    r.finish().await;
}
