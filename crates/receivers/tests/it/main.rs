//! Integration tests of the receivers, over real sockets.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests say what they expect

mod captured;
mod doors;
mod golden;
mod grpc;
mod hostile;
mod jaeger;
mod listeners;
mod otlp;
mod overload;
mod proxies;
mod replies;
mod support;
mod tee;
mod zipkin;
