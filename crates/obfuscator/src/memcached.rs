//! Memcached commands. The protocol puts values on the lines after the
//! command, so the first line is all that may be kept.

/// The command line: everything before the first CRLF, trimmed.
pub(crate) fn command_line(command: &str) -> &str {
    let bytes = command.as_bytes();
    let mut returns = memchr::memchr_iter(b'\r', bytes);
    let end = returns.find(|at| bytes.get(at + 1) == Some(&b'\n')).unwrap_or(command.len());
    command[..end].trim()
}
