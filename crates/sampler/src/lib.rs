//! Sampling: which traces leave, at what rate, and why.
//!
//! Head samplers decide per chunk as the Datadog Agent does, tail rules per
//! whole trace. No clock and no random numbers: time is an argument, chance
//! comes from trace ids.
//!
//! Code map
//!
//! | file | contents |
//! |---|---|
//! | `decide.rs` | [`Samplers`]: all head samplers in the Agent's precedence, editing the chunk |
//! | `core.rs` | [`CoreSampler`]: rates per signature that hit a target per second |
//! | `priority.rs` | [`PrioritySampler`], [`Catalog`], [`Rates`]: feedback to tracers |
//! | `score.rs` | [`ScoreSampler`]: traces without priority, and errors |
//! | `rare.rs` | [`RareSampler`]: something of everything that is seldom seen |
//! | `probabilistic.rs` | [`Probabilistic`]: by hash of the trace id |
//! | `events.rs` | [`Events`]: analysed spans |
//! | `signature.rs` | [`signature`]: hashes of services, spans and traces; rates of roots |
//! | `tail.rs` | [`tail`]: rules over whole traces |
#![forbid(unsafe_code)]

mod core;
mod decide;
mod events;
mod priority;
mod probabilistic;
mod rare;
mod score;
pub mod signature;
pub mod tail;

pub use core::{BUCKETS, CoreSampler, compute_tps_per_signature, next_rate, zero_and_get_max};
pub use decide::{Counts, Decision, Samplers, Settings, by};
pub use events::{EventSettings, Events};
pub use priority::{Catalog, PrioritySampler, Rates, rates_by_service};
pub use probabilistic::{Probabilistic, Verdict};
pub use rare::{RareLimits, RareSampler};
pub use score::ScoreSampler;

/// Nanoseconds in a second.
pub(crate) const SECOND: i64 = 1_000_000_000;
