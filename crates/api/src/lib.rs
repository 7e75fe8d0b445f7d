//! The HTTP query APIs over any [`spanloom_model::SpanReader`].
//!
//! | file | holds |
//! |---|---|
//! | `state.rs` | [`Api`]: store, settings, the gate to the store's blocking calls |
//! | `route.rs` | which path is whose |
//! | `reply.rs` | answers and their headers |
//! | `error.rs` | [`Problem`]: one table of statuses, and each API's way to say it |
//! | `jaeger.rs`, `jaeger_v3.rs` | Jaeger's first and third HTTP API |
//! | `jaeger_metrics.rs` | the figures of Jaeger's Monitor page |
//! | `zipkin.rs` | Zipkin's API, health and UI settings |
//! | `tempo/` | Tempo's API |
//! | `own/` | `/api/spanloom/v1` |
//! | `serve.rs` | [`serve`]: a listener of its own for a door |
#![forbid(unsafe_code)]

mod error;
mod jaeger;
mod jaeger_metrics;
mod jaeger_v3;
mod own;
mod reply;
mod route;
mod serve;
mod state;
mod tempo;
mod zipkin;

pub use error::Problem;
pub use own::RedQuestion;
pub use route::Door;
pub use serve::{ServeConfig, serve};
pub use state::{Api, Config, Report};
