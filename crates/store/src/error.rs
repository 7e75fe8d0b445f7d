//! Why a store does not open or does not do maintenance.

use std::path::PathBuf;

/// Errors of opening and of explicit maintenance. What goes wrong with single
/// writes and questions is a [`spanloom_model::StoreError`].
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process uses the directory.
    #[error("{0} is used by another process; stop that one or choose another data directory")]
    InUse(PathBuf),
    /// The directory or a file in it cannot be used.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The log does not open.
    #[error(transparent)]
    Log(#[from] spanloom_journal::JournalError),
    /// A file was written by a newer program.
    #[error(
        "{path} has format version {version}; this program reads up to {known}: use the newer program, or another directory"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
        /// The newest version this program reads.
        known: u32,
    },
}

impl OpenError {
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}
