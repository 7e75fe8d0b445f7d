//! Jaeger: Thrift over HTTP and UDP, protobuf over gRPC
//! (jaeger-idl:thrift/jaeger.thrift, jaeger-idl:proto/api_v2/model.proto).
//! What Jaeger's query API prints is in `jaeger_ui/`.
//!
//! | file | holds |
//! |---|---|
//! | `draft.rs` | a span while it is read: references, what its tags say |
//! | `thrift.rs` | [`decode_thrift_http`], [`decode_udp_compact`], [`decode_udp_binary`] |
//! | `proto.rs` | [`decode_grpc`] |
//! | `sampling.rs` | remote sampling: questions and answers |
//! | `view.rs` | any span as Jaeger sees it |
//! | `encode.rs` | [`encode_thrift`], [`encode_proto`] |

mod draft;
mod encode;
mod proto;
mod sampling;
mod thrift;
mod view;

pub use crate::build::Decoded;
pub use encode::{encode_emit_batch, encode_proto, encode_thrift};
pub use proto::decode_grpc;
pub use sampling::{decode_sampling_question, encode_sampling_json, encode_sampling_proto};
pub use thrift::{decode_thrift_http, decode_udp_binary, decode_udp_compact};

/// Service name that the OpenTelemetry translation writes for a resource
/// without one; such spans have an empty service inside.
pub const NO_SERVICE: &str = "OTLPResourceNoServiceName";
