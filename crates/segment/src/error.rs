//! What can go wrong with a segment.

use std::path::{Path, PathBuf};

/// Why a segment could not be written or read. Every message names the file.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried (`open`, `read`, `write`, `sync` …).
        action: &'static str,
        /// File or directory.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The file does not hold what its checksums and its format promise.
    #[error("{} is damaged: {cause}", path.display())]
    Damaged {
        /// File.
        path: PathBuf,
        /// What does not fit.
        cause: String,
    },
    /// Written by a newer program.
    #[error("{} has format version {found}, this program reads up to {known}", path.display())]
    Version {
        /// File.
        path: PathBuf,
        /// Version in the file.
        found: u32,
        /// Highest version this program knows.
        known: u32,
    },
    /// There is no span to write.
    #[error("a segment needs at least one span")]
    Empty,
    /// The inputs of a merge have too few attributes in common: leave them as
    /// they are.
    #[error("the merged segment would have {0} columns")]
    TooManyColumns(usize),
    /// The Parquet writer refused (a bound of the file format).
    #[error("cannot write Parquet: {0}")]
    Parquet(#[from] parquet::errors::ParquetError),
}

impl SegmentError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }

    pub(crate) fn damaged(path: &Path, cause: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_owned(), cause: cause.into() }
    }
}

/// A decoder's complaint; the caller adds the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed(pub &'static str);

pub(crate) type Decoded<T> = Result<T, Malformed>;
