//! Zipkin: v1 and v2, JSON, Thrift and protobuf
//! (zipkin-api:zipkin2-api.yaml, zipkin-api:zipkin.proto,
//! zipkin:zipkin/src/main/java/zipkin2/Span.java).
//!
//! | file | holds |
//! |---|---|
//! | `draft.rs` | a span while it is read, and what its tags say about it |
//! | `endpoint.rs` | endpoints ⇄ attributes |
//! | `ids.rs` | Zipkin's rules for ids and its error texts |
//! | `json_v2.rs`, `proto.rs` | [`decode_json_v2`], [`decode_proto`] |
//! | `json_v1.rs`, `thrift.rs`, `v1.rs` | [`decode_json_v1`], [`decode_thrift`], their conversion to v2 |
//! | `view.rs` | any span as Zipkin sees it |
//! | `encode.rs` | [`encode_json_v2`], [`encode_proto`] |

mod draft;
mod encode;
mod endpoint;
mod ids;
mod json_v1;
mod json_v2;
mod proto;
mod thrift;
mod v1;
mod view;

pub use encode::{encode_json_v2, encode_proto};
pub use json_v1::decode_json_v1;
pub use json_v2::decode_json_v2;
pub use proto::decode_proto;
pub use thrift::decode_thrift;
pub use view::{EndpointView, endpoints};
