//! Doors in: request → admission → codec → pipeline → answer.
//!
//! | file | holds |
//! |---|---|
//! | `server.rs` | [`serve`], [`Handler`]: HTTP/1 over any listener; connection limits, time-outs, shutdown |
//! | `listener.rs` | [`Listener`]: TCP and Unix sockets, stale sockets, modes |
//! | `conn.rs` | deadlines on a connection: head, body, idle |
//! | `body.rs` | [`receive`]: a request body, paid for as it arrives; [`expand`]: decompression |
//! | `answer.rs` | [`Answer`]: replies the way Go's `net/http` writes them |
//! | `resend.rs` | recognising requests that a client sends again |
//! | `mux.rs` | paths the way Go's `ServeMux` reads them |
//! | `datadog/` | the Datadog trace API |
//! | `proxy/` | what tracers send besides: profiles, telemetry, events |
//!
//! A new HTTP receiver is a [`Handler`] given to [`serve`]; it reads bodies
//! with [`receive`] and hands batches to `spanloom_pipeline::Inlet`.
#![forbid(unsafe_code)]

mod answer;
mod body;
mod conn;
pub mod datadog;
mod listener;
mod mux;
pub mod proxy;
mod resend;
mod server;

pub use answer::{Answer, AnswerBody, StreamError};
pub use body::{BodyError, BodyLimits, Compression, ExpandError, Received, expand, receive};
pub use listener::{BindError, Listener};
pub use server::{ConnInfo, Handler, HandlerFuture, Request, ServerConfig, ServerStats, serve};
