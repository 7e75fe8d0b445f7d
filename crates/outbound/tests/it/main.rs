//! The client against a server and a proxy that answer by hand.
#![allow(clippy::unwrap_used, clippy::panic)] // a test says what it expects

use http::Request;
use http_body_util::{BodyExt, Full};
use spanloom_outbound::{Body, Client, Config, Error};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Answers one request and gives back its head as text.
async fn answer_one(listener: TcpListener) -> String {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    stream.write_all(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    String::from_utf8(head).unwrap()
}

fn get(url: &str) -> Request<Body> {
    let body: Body = Full::default().map_err(|never: std::convert::Infallible| match never {}).boxed();
    Request::get(url).header("dd-api-key", "k").body(body).unwrap()
}

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    (listener, url)
}

const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_destination_is_reached_directly_or_through_the_proxy_as_the_settings_say() {
    let (server, url) = listen().await;
    let client = Client::new(&Config::default()).unwrap();
    let (head, answer) = tokio::join!(answer_one(server), client.send(get(&format!("{url}/x")), PATIENCE));
    assert_eq!(answer.unwrap().status(), 202);
    assert!(head.starts_with("GET /x HTTP/1.1") && head.contains("Dd-Api-Key: k"), "{head}");

    let (proxy, proxy_url) = listen().await;
    let proxy_http = Some(proxy_url.replace("http://", "http://user:pass@"));
    let client = Client::new(&Config { proxy_http: proxy_http.clone(), ..Config::default() }).unwrap();
    let (head, answer) =
        tokio::join!(answer_one(proxy), client.send(get("http://intake.invalid/y?z=1"), PATIENCE));
    assert_eq!(answer.unwrap().status(), 202);
    assert!(head.starts_with("GET http://intake.invalid/y?z=1 HTTP/1.1"), "{head}");
    assert!(head.contains("Proxy-Authorization: Basic dXNlcjpwYXNz"), "{head}");

    let (server, url) = listen().await;
    let no_proxy = vec!["127.0.0.1".into()];
    let client = Client::new(&Config { proxy_http, no_proxy, ..Config::default() }).unwrap();
    let (head, answer) = tokio::join!(answer_one(server), client.send(get(&url), PATIENCE));
    assert_eq!(answer.unwrap().status(), 202);
    assert!(head.starts_with("GET / HTTP/1.1"), "{head}");
}

#[tokio::test]
async fn https_goes_through_a_tunnel() {
    let (proxy, proxy_url) = listen().await;
    let client = Client::new(&Config { proxy_https: Some(proxy_url), ..Config::default() }).unwrap();
    let (head, answer) =
        tokio::join!(answer_one(proxy), client.send(get("https://intake.invalid/"), PATIENCE));
    assert!(head.starts_with("CONNECT intake.invalid:443 HTTP/1.1"), "{head}");
    // What follows the tunnel is no TLS here.
    assert!(matches!(answer, Err(Error::Connection(_))), "{answer:?}");
}

#[tokio::test]
async fn nobody_there_and_no_answer_are_told_apart() {
    let (server, url) = listen().await;
    let client = Client::new(&Config::default()).unwrap();
    let late = client.send(get(&url), Duration::from_millis(1)).await;
    assert!(matches!(late, Err(Error::Timeout(_))), "{late:?}");
    drop(server);
    let nobody = client.send(get(&url), PATIENCE).await;
    assert!(matches!(nobody, Err(Error::Connection(_))), "{nobody:?}");
}
