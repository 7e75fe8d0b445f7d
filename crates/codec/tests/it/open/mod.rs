//! OTLP, Zipkin and Jaeger.

mod captured;
mod helpers;
mod jaeger;
mod mutated;
mod otlp;
mod round_trip;
mod to_datadog;
mod zipkin;
