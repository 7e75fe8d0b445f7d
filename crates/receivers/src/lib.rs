//! Doors in: request → admission → codec → pipeline → answer.
//!
//! | file | holds |
//! |---|---|
//! | `server.rs` | [`serve`], [`Handler`]: HTTP over any listener; connection limits, time-outs, shutdown |
//! | `threads.rs` | [`NetThreads`], [`Net`]: where connections are served |
//! | `h2c.rs` | HTTP/2 without TLS |
//! | `listener.rs` | [`Listener`]: TCP and Unix sockets, stale sockets, modes |
//! | `conn.rs` | deadlines on a connection: head, body, idle |
//! | `body.rs` | [`receive`]: a request body, paid for as it arrives; [`expand`]: decompression |
//! | `replay.rs` | [`RequestBody`]: a body on its way, or in memory already |
//! | `answer.rs` | [`Answer`]: replies the way Go's `net/http` writes them |
//! | `resend.rs` | recognising requests that a client sends again |
//! | `mux.rs`, `media.rs` | paths the way Go's `ServeMux` reads them; content types |
//! | `cors.rs` | [`Cors`]: pages in a browser that send spans |
//! | `intake.rs` | from a request to an acknowledged batch, for the receivers below |
//! | `grpc.rs` | unary gRPC |
//! | `zipkin/` | Zipkin's collector, with the query API behind it |
//! | `otlp/` | OTLP over HTTP and gRPC |
//! | `jaeger/` | Jaeger: Thrift over HTTP and UDP, gRPC, remote sampling |
//! | `datadog/` | the Datadog trace API |
//! | `proxy/` | what tracers send besides: profiles, telemetry, events |
//!
//! A new HTTP receiver is a [`Handler`] given to [`serve`]; it reads bodies
//! with [`receive`] and hands batches to `spanloom_pipeline::Inlet`.
#![forbid(unsafe_code)]

mod answer;
mod body;
mod conn;
mod cors;
pub mod datadog;
mod grpc;
mod h2c;
mod intake;
pub mod jaeger;
mod listener;
mod media;
mod mux;
pub mod otlp;
pub mod proxy;
mod replay;
mod resend;
mod server;
mod threads;
pub mod zipkin;

pub use answer::{Answer, AnswerBody, StreamError};
pub use body::{BodyError, BodyLimits, Compression, ExpandError, Received, expand, receive};
pub use cors::Cors;
pub use listener::{BindError, Listener};
pub use replay::{Replay, RequestBody};
pub use server::{ConnInfo, Handler, HandlerFuture, Request, ServerConfig, ServerStats, serve, serve_on};
pub use threads::{Net, NetThreads};
