//! Datadog formats.

mod captured;
mod check;
mod examples;
mod helpers;
mod json;
mod mutated;
mod round_trip;
mod stats;
