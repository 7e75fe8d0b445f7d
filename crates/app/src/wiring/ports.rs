//! Binding addresses, and saying who is in the way.

use spanloom_receivers::{BindError, Listener};
use std::net::SocketAddr;
use std::path::Path;

/// Listens on a TCP address; the error names the holder of the port and the
/// setting that moves ours.
pub async fn bind(name: &str, setting: &str, address: SocketAddr) -> Result<Listener, String> {
    Listener::tcp(&address.ip().to_string(), address.port())
        .await
        .map_err(|e| explain(name, setting, address.port(), &e))
}

/// Why a port could not be had, and what to do.
pub fn explain(name: &str, setting: &str, port: u16, error: &BindError) -> String {
    let in_use =
        matches!(error, BindError::Tcp { source, .. } if source.kind() == std::io::ErrorKind::AddrInUse);
    let denied = matches!(error, BindError::Tcp { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied);
    if in_use {
        let holder = holder_of(port)
            .map_or_else(|| "another process".into(), |(pid, name)| format!("{name} (pid {pid})"));
        format!(
            "{name}: port {port} is in use by {holder}; stop it, or listen elsewhere with {setting} (0 switches it off)"
        )
    } else if denied {
        format!("{name}: port {port} needs privileges; listen elsewhere with {setting} (0 switches it off)")
    } else {
        format!("{name}: {error}; listen elsewhere with {setting}")
    }
}

/// The process that listens on a TCP port, as far as we may see.
fn holder_of(port: u16) -> Option<(u32, String)> {
    let inodes: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|f| std::fs::read_to_string(f).ok())
        .flat_map(|text| listening_inodes(&text, port))
        .collect();
    for entry in std::fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
        let Ok(files) = std::fs::read_dir(entry.path().join("fd")) else { continue };
        let holds = files.flatten().any(|f| {
            let target = std::fs::read_link(f.path()).unwrap_or_default();
            let target = target.to_string_lossy();
            target
                .strip_prefix("socket:[")
                .and_then(|t| t.strip_suffix(']'))
                .is_some_and(|inode| inodes.iter().any(|i| i == inode))
        });
        if holds {
            let name = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            return Some((pid, name.trim().to_owned()));
        }
    }
    None
}

/// Inodes of listening sockets on a port, from `/proc/net/tcp`.
fn listening_inodes(text: &str, port: u16) -> Vec<String> {
    const LISTEN: &str = "0A";
    text.lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let local = fields.get(1)?.rsplit_once(':')?.1;
            let same = u16::from_str_radix(local, 16).ok()? == port && *fields.get(3)? == LISTEN;
            same.then(|| fields.get(9).map(|i| (*i).to_owned())).flatten()
        })
        .collect()
}

/// The Unix socket: an error switches it off and is only a warning, because TCP
/// still works. The text says how to mend it.
pub fn bind_unix(path: &str) -> Result<Listener, String> {
    Listener::unix(Path::new(path)).map_err(|e| match &e {
        BindError::NoDirectory(dir) => format!(
            "the Unix socket is off: {e}; make it with `install -d -m 755 {}`, or choose another path with DD_APM_RECEIVER_SOCKET",
            dir.display()
        ),
        BindError::NotASocket(_) => {
            format!("the Unix socket is off: {e}; move the file away, or choose another path with DD_APM_RECEIVER_SOCKET")
        }
        _ => format!("the Unix socket is off: {e}; choose another path with DD_APM_RECEIVER_SOCKET, or an empty one to switch it off"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_holder_of_a_port_is_named() {
        let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = held.local_addr().unwrap();
        let Err(text) = bind("Zipkin", "zipkin.address", address).await else { panic!("bound twice") };
        let me = format!("(pid {})", std::process::id());
        assert!(
            text.contains("in use by") && text.contains(&me) && text.contains("zipkin.address"),
            "{text}"
        );
    }

    #[test]
    fn a_missing_socket_directory_comes_with_its_cure() {
        let Err(text) = bind_unix("/nowhere/at/all/apm.socket") else { panic!("bound") };
        assert!(text.contains("install -d -m 755 /nowhere/at/all"), "{text}");
    }
}
