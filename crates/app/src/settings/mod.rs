//! Settings: built-in defaults, `datadog.yaml`, `spanloom.yaml`, environment,
//! flags, from lowest to highest. The only place that reads the environment.
//!
//! | file | holds |
//! |---|---|
//! | `table.rs` | every setting: key, variables, default, meaning |
//! | `value.rs` | the types of settings |
//! | `tail.rs` | the rules of tail sampling |
//! | `features.rs` | feature flags |
//! | `unhonoured.rs` | settings of the Agent without effect, and why |
//! | `load.rs` | reading the layers, errors that name cause and cure |
//! | `page.rs` | docs/settings.md |

mod features;
mod load;
mod page;
mod table;
mod tail;
mod unhonoured;
mod value;

pub use load::{Layers, Notice, SettingsError, read_file};
pub use page::page;
pub use table::Settings;
pub use tail::{Head, Tail};
pub use value::{Endpoints, Listen, Secret};

use spanloom_outbound::Address;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

/// Port of an Agent, where a URL names none.
const AGENT_PORT: u16 = 8126;

/// One row of the table.
#[derive(Debug)]
pub struct Field {
    /// Key in files, dotted.
    pub key: &'static str,
    /// Environment variables; the first that is set wins.
    pub env: &'static [&'static str],
    /// Meaning.
    pub doc: &'static str,
    /// What may be written.
    pub accepts: &'static str,
}

impl Field {
    /// Variable derived from the key, which the Agent binds for every key
    /// without one of its own.
    pub fn derived_env(&self) -> String {
        derived_env(self.key)
    }
}

/// The variable that the Agent binds for a key without one of its own.
fn derived_env(key: &str) -> String {
    format!("DD_{}", key.to_ascii_uppercase().replace('.', "_"))
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Built in.
    Default,
    /// A file, by its path.
    File(String),
    /// An environment variable.
    Env(String),
    /// A flag.
    Flag(String),
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => f.write_str(path),
            Self::Env(name) => write!(f, "environment {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// A setting as `check` prints it.
#[derive(Debug)]
pub struct Entry {
    /// Its row.
    pub field: &'static Field,
    /// Its value; secrets masked.
    pub value: String,
    /// Where it came from.
    pub origin: Origin,
}

impl Settings {
    /// Whether a key was set by anything but its default.
    pub fn is_set(&self, key: &str) -> bool {
        Self::FIELDS.iter().zip(&self.origins).any(|(f, o)| f.key == key && *o != Origin::Default)
    }

    /// The default environment (datadog-intake §5.5), before tag normalisation.
    pub fn default_env(&self) -> String {
        if !self.apm_env.is_empty() {
            return self.apm_env.clone();
        }
        if !self.env.is_empty() {
            return self.env.clone();
        }
        let tag = self.tags.0.iter().chain(&self.extra_tags.0).find_map(|t| t.strip_prefix("env:"));
        tag.filter(|t| !t.is_empty()).unwrap_or("none").to_owned()
    }

    /// Tail sampling, or everything that is wrong with it.
    pub fn tail(&self) -> Result<Option<Tail>, Vec<String>> {
        tail::read(&self.tail_sampling.0)
    }

    /// The Agent that requests are passed on to.
    pub fn agent_behind(&self) -> Option<Address> {
        Address::parse(&self.forward_agent, AGENT_PORT)
    }

    /// Whether an address is one that we listen on for Datadog tracers.
    fn is_own(&self, address: &Address) -> bool {
        match address {
            Address::Tcp(authority) => {
                let host = authority.host().trim_matches(['[', ']']);
                let here = host == "localhost"
                    || host == self.bind_host
                    || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback() || ip.is_unspecified());
                here && authority.port_u16() == Some(self.receiver_port)
            }
            Address::Unix(path) => *path == Path::new(&self.receiver_socket),
        }
    }

    /// The API key that is in effect.
    pub fn key(&self) -> &Secret {
        if self.apm_api_key.0.is_empty() { &self.api_key } else { &self.apm_api_key }
    }

    /// Whether anything leaves for Datadog.
    pub fn has_datadog(&self) -> bool {
        !self.key().0.is_empty()
    }

    /// Where health, metrics and status are: the Agent's setting moves only the
    /// port.
    pub fn admin(&self) -> Option<SocketAddr> {
        if self.is_set("admin.address") || !self.is_set("apm_config.debug.port") {
            return self.admin_address.0;
        }
        (self.debug_port > 0).then(|| SocketAddr::from(([127, 0, 0, 1], self.debug_port)))
    }

    /// Where traces go instead of Datadog, if they do.
    pub fn worker_url(&self) -> Option<&str> {
        let workers = [
            (self.opw_traces_enabled, &self.opw_traces_url),
            (self.vector_traces_enabled, &self.vector_traces_url),
        ];
        workers.into_iter().find(|(enabled, _)| *enabled).map(|(_, url)| url.trim_end_matches('/'))
    }
}
