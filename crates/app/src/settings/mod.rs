//! Settings: built-in defaults, `datadog.yaml`, `spanloom.yaml`, environment,
//! flags, from lowest to highest. The only place that reads the environment.
//!
//! | file | holds |
//! |---|---|
//! | `table.rs` | every setting: key, variables, default, meaning |
//! | `value.rs` | the types of settings |
//! | `tail.rs` | the rules of tail sampling |
//! | `load.rs` | reading the layers, errors that name cause and cure |

mod load;
mod table;
mod tail;
mod value;

pub use load::{Layers, SettingsError, read_file};
pub use table::Settings;
pub use value::{Endpoints, Secret};

use spanloom_outbound::Address;
use std::net::IpAddr;
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
        format!("DD_{}", self.key.to_ascii_uppercase().replace('.', "_"))
    }
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

    /// The rules of tail sampling, or everything that is wrong with them.
    pub fn tail_rules(&self) -> Result<Option<spanloom_sampler::tail::TailRules>, Vec<String>> {
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

    /// Whether anything leaves for Datadog.
    pub fn has_datadog(&self) -> bool {
        !self.api_key.0.is_empty()
    }
}
