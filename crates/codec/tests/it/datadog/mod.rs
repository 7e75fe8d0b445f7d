//! Datadog formats.

mod captured;
mod examples;
mod helpers;
mod json;
mod stats;
