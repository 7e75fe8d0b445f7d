//! OTLP, Zipkin and Jaeger.

mod captured;
mod helpers;
mod otlp;
mod zipkin;
