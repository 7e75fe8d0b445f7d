//! OTLP, Zipkin and Jaeger.

mod captured;
mod helpers;
mod jaeger;
mod otlp;
mod zipkin;
