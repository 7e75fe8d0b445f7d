//! The picture of ARCHITECTURE.md written as Rust.
//!
//! | file | holds |
//! |---|---|
//! | `run.rs` | start and stop of the whole program |
//! | `convert.rs` | settings → the plain `Config` of each room |
//! | `receive.rs` | settings → the Datadog receiver and its listeners |
//! | `dogstatsd.rs` | the Agent's own metrics, sent to DogStatsD |
//! | `doors.rs` | settings → the receivers of Zipkin, OTLP and Jaeger |
//! | `routes.rs` | mesh resources → policies and backends |
//! | `chain.rs` | the rooms that decide about spans, as processors |
//! | `containers.rs` | tags of containers from a file |
//! | `foreign.rs` | spans of other protocols on their way to Datadog |
//! | `statistics.rs` | statistics on their way to the intake and to local answers |
//! | `red_log.rs` | requests, errors and latencies, to be there after a restart |
//! | `outgoing.rs` | the outgoing HTTP client |
//! | `ports.rs` | binding addresses, and who is in the way |
//! | `tee.rs` | in front of an existing Agent |
//! | `tail.rs` | the thread that lets quiet traces be judged |
//! | `judge.rs` | tail rules asked about whole traces, and counted |
//! | `ways.rs` | the ways out behind the tail sampling buffer |
//! | `figures.rs` | figures of the store and of queues |
//! | `why.rs` | what was decided about a trace: recording it, telling it |
//! | `admin.rs` | health, metrics, status |

mod admin;
mod chain;
mod containers;
mod convert;
mod dogstatsd;
mod doors;
mod figures;
mod foreign;
mod judge;
mod outgoing;
mod ports;
mod receive;
mod red_log;
mod routes;
mod run;
mod statistics;
mod tail;
mod tee;
mod ways;
mod why;

pub use routes::read as read_resources;
pub use run::{Mode, Surroundings, run};
