//! Without an API key: read, count, say yes.

use super::Product;
use crate::answer::{self, Answer};
use crate::body;
use crate::server::Request;
use http::StatusCode;
use spanloom_pipeline::Ledger;

/// Reads the body away (at most `max` bytes of it) and answers what the
/// product's clients take for success.
pub(super) async fn accept(request: &mut Request, product: Product, max: u64, ledger: &Ledger) -> Answer {
    match body::discard(request, max).await {
        Ok(bytes) => {
            ledger.note("proxy_accepted", product.name(), 1);
            ledger.note("proxy_accepted_bytes", product.name(), bytes);
        }
        Err(_) => {
            ledger.note("proxy_error", product.name(), 1);
            return answer::empty(StatusCode::REQUEST_TIMEOUT);
        }
    }
    match product {
        Product::Telemetry | Product::PipelineStats | Product::OpenLineage => {
            answer::typed(StatusCode::OK, answer::TEXT, "{}")
        }
        Product::Evp => answer::typed(StatusCode::ACCEPTED, answer::JSON, "{}"),
        Product::DebuggerLogs | Product::DebuggerDiagnostics | Product::DebuggerV2 | Product::Symdb => {
            answer::empty(StatusCode::ACCEPTED)
        }
        Product::Profiling | Product::Flare | Product::Dogstatsd => answer::empty(StatusCode::OK),
    }
}
