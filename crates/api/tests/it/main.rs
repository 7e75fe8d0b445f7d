//! The APIs over real HTTP, before the reference store.
#![allow(clippy::unwrap_used, clippy::panic)] // a test says what it expects by unwrapping

mod agreement;
mod clients;
mod paths;
mod red;
mod routes;
mod support;
mod tempo;
mod vectors;
