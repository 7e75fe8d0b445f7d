//! Attributes that mean something to the translation: found by one look-up
//! per attribute, kept as facts for the rules.

use spanloom_model::{Batch, Text, Value};

/// Attributes that rules ask for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Fact {
    ServiceName,
    ServiceVersion,
    OperationName,
    ResourceName,
    SpanType,
    EnvName,
    Env,
    Measured,
    HttpRequestMethod,
    HttpMethod,
    HttpRoute,
    HttpStatusCode,
    HttpResponseStatusCode,
    DbSystem,
    DbStatement,
    DbQueryText,
    DbNamespace,
    MessagingSystem,
    MessagingOperation,
    MessagingDestination,
    MessagingDestinationName,
    RpcSystem,
    RpcSystemName,
    RpcService,
    RpcMethod,
    RpcGrpcStatusCode,
    GrpcCode,
    RpcGrpcStatusDotCode,
    GrpcStatusCode,
    RpcResponseStatusCode,
    FaasProvider,
    FaasName,
    FaasTrigger,
    GraphqlType,
    GraphqlName,
    ProtocolName,
}

/// Number of facts; below 64, so that a word tells which are known.
const FACTS: usize = Fact::ProtocolName as usize + 1;

/// What becomes of an attribute.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum To {
    /// A tag of the same name.
    Same,
    /// Nothing: a field of the span says it.
    Consumed,
    /// A tag of this name.
    Renamed(&'static str),
    /// A truth value in text: the rate of analysed events.
    Analytics,
    /// A number: the sampling priority.
    Priority,
}

pub(super) struct Known {
    name: &'static str,
    pub fact: Option<Fact>,
    pub to: To,
}

const fn fact(name: &'static str, fact: Fact) -> Known {
    Known { name, fact: Some(fact), to: To::Same }
}

const fn consumed(name: &'static str, fact: Fact) -> Known {
    Known { name, fact: Some(fact), to: To::Consumed }
}

const fn renamed(name: &'static str, to: &'static str) -> Known {
    Known { name, fact: None, to: To::Renamed(to) }
}

const fn both(name: &'static str, fact: Fact, to: &'static str) -> Known {
    Known { name, fact: Some(fact), to: To::Renamed(to) }
}

/// In order of length, so that few names are compared.
const KNOWN: [Known; 46] = [
    renamed("url.full", "http.url"),
    consumed("span.type", Fact::SpanType),
    fact("db.system", Fact::DbSystem),
    fact("grpc.code", Fact::GrpcCode),
    fact("http.route", Fact::HttpRoute),
    fact("rpc.system", Fact::RpcSystem),
    fact("rpc.method", Fact::RpcMethod),
    fact("http.method", Fact::HttpMethod),
    fact("rpc.service", Fact::RpcService),
    consumed("service.name", Fact::ServiceName),
    fact("db.statement", Fact::DbStatement),
    fact("db.namespace", Fact::DbNamespace),
    fact("faas.trigger", Fact::FaasTrigger),
    fact("_dd.measured", Fact::Measured),
    consumed("resource.name", Fact::ResourceName),
    fact("db.query.text", Fact::DbQueryText),
    consumed("operation.name", Fact::OperationName),
    renamed("client.address", "http.client_ip"),
    renamed("server.address", "http.server_name"),
    fact("service.version", Fact::ServiceVersion),
    fact("rpc.system.name", Fact::RpcSystemName),
    Known { name: "analytics.event", fact: None, to: To::Analytics },
    fact("http.status_code", Fact::HttpStatusCode),
    fact("grpc.status.code", Fact::GrpcStatusCode),
    fact("messaging.system", Fact::MessagingSystem),
    fact("faas.invoked_name", Fact::FaasName),
    Known { name: "sampling.priority", fact: None, to: To::Priority },
    fact("messaging.operation", Fact::MessagingOperation),
    both("http.request.method", Fact::HttpRequestMethod, "http.method"),
    renamed("user_agent.original", "http.useragent"),
    fact("rpc.grpc.status_code", Fact::RpcGrpcStatusCode),
    fact("rpc.grpc.status.code", Fact::RpcGrpcStatusDotCode),
    fact("messaging.destination", Fact::MessagingDestination),
    fact("network.protocol.name", Fact::ProtocolName),
    fact("faas.invoked_provider", Fact::FaasProvider),
    fact("graphql.operation.type", Fact::GraphqlType),
    fact("graphql.operation.name", Fact::GraphqlName),
    fact("deployment.environment", Fact::Env),
    renamed("http.request.body.size", "http.request.content_length"),
    renamed("http.response.body.size", "http.response.content_length"),
    fact("rpc.response.status_code", Fact::RpcResponseStatusCode),
    renamed("network.protocol.version", "http.version"),
    both("http.response.status_code", Fact::HttpResponseStatusCode, "http.status_code"),
    fact("messaging.destination.name", Fact::MessagingDestinationName),
    fact("deployment.environment.name", Fact::EnvName),
    renamed("http.request.header.referrer", "http.referrer"),
];

/// One more than the longest name.
const LENGTHS: usize = 30;

/// Where the names of each length begin in [`KNOWN`].
const STARTS: [u8; LENGTHS] = {
    let mut starts = [0; LENGTHS];
    let (mut length, mut i) = (0, 0);
    while length < LENGTHS {
        while i < KNOWN.len() && KNOWN[i].name.len() < length {
            i += 1;
        }
        starts[length] = i as u8;
        length += 1;
    }
    assert!(i == KNOWN.len(), "the last name is longer than the index");
    starts
};

/// What is known of a key.
pub(super) fn known(key: &[u8]) -> Option<&'static Known> {
    let [start, end] = [key.len(), key.len() + 1].map(|n| STARTS.get(n).copied().map(usize::from));
    KNOWN.get(start?..end?)?.iter().find(|k| k.name.as_bytes() == key)
}

/// The facts among the attributes of one owner; of equal keys the first counts.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    seen: u64,
    values: [Value; FACTS],
}

impl Default for Facts {
    fn default() -> Self {
        Self { seen: 0, values: [Value::Empty; FACTS] }
    }
}

impl Facts {
    pub(super) fn clear(&mut self) {
        self.seen = 0;
    }

    pub(super) fn note(&mut self, fact: Fact, value: Value) {
        let bit = 1 << fact as u8;
        if self.seen & bit == 0 {
            self.seen |= bit;
            self.values[fact as usize] = value;
        }
    }

    pub(super) fn get(&self, fact: Fact) -> Option<Value> {
        (self.seen & (1 << fact as u8) != 0).then(|| self.values[fact as usize])
    }

    /// A text that is not empty.
    pub(super) fn text(&self, fact: Fact) -> Option<Text> {
        self.get(fact)?.as_text().filter(|t| !t.is_empty())
    }

    fn int(&self, fact: Fact) -> Option<i64> {
        match self.get(fact)? {
            Value::Int(n) => Some(n),
            _ => None,
        }
    }
}

/// The facts of a span and of its resource, in the order in which they count.
#[derive(Clone, Copy)]
pub(super) struct Look<'a> {
    pub batch: &'a Batch,
    pub first: &'a Facts,
    pub second: &'a Facts,
}

impl<'a> Look<'a> {
    /// A text that is not empty.
    pub(super) fn text(&self, fact: Fact) -> Option<Text> {
        self.first.text(fact).or_else(|| self.second.text(fact))
    }

    /// As [`Look::text`], of the first fact that there is.
    pub(super) fn any(&self, facts: [Fact; 2]) -> Option<Text> {
        facts.into_iter().find_map(|f| self.text(f))
    }

    /// The text, empty if there is none.
    pub(super) fn str(&self, fact: Fact) -> &'a str {
        self.text(fact).map_or("", |t| self.batch.str(t))
    }

    /// An integer.
    pub(super) fn int(&self, fact: Fact) -> Option<i64> {
        self.first.int(fact).or_else(|| self.second.int(fact))
    }

    /// Whether one of the two has it, whatever it is.
    pub(super) fn has(&self, fact: Fact) -> bool {
        self.first.get(fact).is_some() || self.second.get(fact).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_name_is_found_and_no_other() {
        for k in &KNOWN {
            assert!(known(k.name.as_bytes()).is_some_and(|found| found.name == k.name), "{}", k.name);
        }
        assert!(KNOWN.windows(2).all(|w| w[0].name.len() <= w[1].name.len()));
        for other in ["", "x", "url.fulk", "http.request.header.x", &"long".repeat(20)] {
            assert!(known(other.as_bytes()).is_none(), "{other}");
        }
    }
}
