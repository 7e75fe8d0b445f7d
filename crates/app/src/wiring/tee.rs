//! In front of an existing Agent (`forward_agent`).

use crate::settings::Settings;
use http::Request;
use http_body_util::BodyExt;
use spanloom_outbound::{Error, Upstream};
use spanloom_receivers::datadog::{
    AgentBody, AgentClient, AgentError, AgentFuture, Receiver, Tee, TeeConfig,
};
use spanloom_receivers::{Handler, ServerConfig, StreamError};
use std::sync::Arc;

/// What answers Datadog tracers.
pub struct Tracers {
    receiver: Arc<Receiver>,
    tee: Option<Arc<Tee>>,
}

impl Tracers {
    /// The receiver, behind which the Agent is if there is one.
    pub fn new(s: &Settings, receiver: Arc<Receiver>) -> Self {
        let tee = s.agent_behind().map(|address| {
            let config =
                TeeConfig { agent: address.to_string(), memory: s.intake_memory.0, ..TeeConfig::default() };
            let client = Arc::new(Behind(Upstream::new(&address)));
            Arc::new(Tee::new(Arc::clone(&receiver), client, config))
        });
        Self { receiver, tee }
    }

    /// Who answers, and the bounds of a listener.
    pub fn serve(&self, tcp: bool) -> (ServerConfig, Arc<dyn Handler>) {
        match &self.tee {
            Some(tee) => (tee.server_config(tcp), Arc::clone(tee) as _),
            None => (self.receiver.server_config(tcp), Arc::clone(&self.receiver) as _),
        }
    }

    /// Waits for what goes on after its answer, within bounds. After the
    /// listeners have stopped.
    pub async fn finish(&self) {
        if let Some(tee) = &self.tee {
            tee.finish(TeeConfig::default().patience).await;
        }
        self.receiver.finish().await;
    }
}

struct Behind(Upstream<AgentBody>);

impl AgentClient for Behind {
    fn send(&self, request: Request<AgentBody>) -> AgentFuture<'_> {
        Box::pin(async move {
            match self.0.send(request).await {
                Ok(response) => {
                    Ok(response.map(|body| body.map_err(|e| StreamError(e.to_string())).boxed_unsync()))
                }
                Err(Error::Unreachable(cause)) => Err(AgentError::Unreachable(cause)),
                Err(e) => Err(AgentError::Broken(e.to_string())),
            }
        })
    }
}
