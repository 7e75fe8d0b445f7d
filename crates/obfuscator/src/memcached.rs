//! Memcached commands. The protocol puts values on the lines after the
//! command, so the first line is all that may be kept.

/// The command line: everything before the first CRLF, trimmed.
pub(crate) fn command_line(command: &str) -> &str {
    let end = memchr::memmem::find(command.as_bytes(), b"\r\n").unwrap_or(command.len());
    command[..end].trim()
}
