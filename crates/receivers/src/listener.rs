//! Where connections come from.

use crate::server::ConnInfo;
use spanloom_model::Transport;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

/// Why a listener could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The port is taken, the address is not ours, …
    #[error("cannot listen on {address}: {source}")]
    Tcp {
        /// The address.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// The directory of the socket is missing.
    #[error("socket directory does not exist: {0}")]
    NoDirectory(PathBuf),
    /// A file that is no socket is in the way.
    #[error("cannot reuse {0:?}; not a unix socket")]
    NotASocket(PathBuf),
    /// Anything else.
    #[error("cannot listen on {path}: {source}")]
    Unix {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A listening socket.
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// Unix domain socket. The file stays when the listener is closed, as the
    /// Datadog Agent leaves it.
    Unix(UnixListener, PathBuf),
}

/// An accepted connection.
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A connection that no runtime looks after, on its way from the one that
/// accepted it to the one that serves it.
pub(crate) enum Loose {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
}

impl Stream {
    pub(crate) fn loosen(self) -> io::Result<Loose> {
        Ok(match self {
            Self::Tcp(stream) => Loose::Tcp(stream.into_std()?),
            Self::Unix(stream) => Loose::Unix(stream.into_std()?),
        })
    }
}

impl Loose {
    /// The runtime of the caller looks after it from now on.
    pub(crate) fn adopt(self) -> io::Result<Stream> {
        Ok(match self {
            Self::Tcp(stream) => Stream::Tcp(TcpStream::from_std(stream)?),
            Self::Unix(stream) => Stream::Unix(UnixStream::from_std(stream)?),
        })
    }
}

impl Listener {
    /// Listens on the first address that the host name has, IPv4 before IPv6
    /// (`localhost` is 127.0.0.1). Port 0 takes a free one.
    ///
    /// # Errors
    /// [`BindError::Tcp`].
    pub async fn tcp(host: &str, port: u16) -> Result<Self, BindError> {
        let fail = |source| BindError::Tcp { address: format!("{host}:{port}"), source };
        let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let mut addresses: Vec<SocketAddr> = tokio::task::spawn_blocking(move || {
            (bare.as_str(), port).to_socket_addrs().map(Iterator::collect)
        })
        .await
        .map_err(|e| fail(io::Error::other(e)))?
        .map_err(fail)?;
        addresses.sort_by_key(SocketAddr::is_ipv6);
        let Some(address) = addresses.first() else {
            return Err(fail(io::ErrorKind::AddrNotAvailable.into()));
        };
        TcpListener::bind(address).await.map(Self::Tcp).map_err(fail)
    }

    /// Listens on a Unix socket. A socket that is already there is removed,
    /// even if another process listens on it; anybody may connect (mode 0722).
    ///
    /// # Errors
    /// [`BindError`]: the caller goes on without the socket.
    pub fn unix(path: &Path) -> Result<Self, BindError> {
        let fail = |source| BindError::Unix { path: path.into(), source };
        let directory = path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if !directory.try_exists().map_err(fail)? {
            return Err(BindError::NoDirectory(directory.into()));
        }
        match std::fs::symlink_metadata(path) {
            Ok(there) if there.file_type().is_socket() => std::fs::remove_file(path).map_err(fail)?,
            Ok(_) => return Err(BindError::NotASocket(path.into())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(fail(e)),
        }
        let listener = UnixListener::bind(path).map_err(fail)?;
        // Connecting takes write permission only.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o722)).map_err(fail)?;
        Ok(Self::Unix(listener, path.into()))
    }

    /// Where it listens, for people.
    pub fn address(&self) -> String {
        match self {
            Self::Tcp(l) => l.local_addr().map_or_else(|e| e.to_string(), |a| a.to_string()),
            Self::Unix(_, path) => path.display().to_string(),
        }
    }

    /// The TCP port, if it is TCP.
    pub fn port(&self) -> Option<u16> {
        match self {
            Self::Tcp(l) => l.local_addr().ok().map(|a| a.port()),
            Self::Unix(..) => None,
        }
    }

    pub(crate) async fn accept(&self) -> io::Result<(Stream, ConnInfo)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                // An answer is one small write: it should leave at once. A
                // socket that refuses the option still works.
                let _ = stream.set_nodelay(true);
                let info = ConnInfo { transport: Transport::Tcp, peer: Some(peer.ip()), pid: None };
                Ok((Stream::Tcp(stream), info))
            }
            Self::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                // Read once: the process that connected, for all its requests.
                let pid = stream.peer_cred().ok().and_then(|c| c.pid());
                let info = ConnInfo { transport: Transport::Unix, peer: None, pid };
                Ok((Stream::Unix(stream), info))
            }
        }
    }
}
