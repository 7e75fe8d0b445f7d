//! The log's files: `NNNNNNNN.log`, each with a header of its own.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// Bytes before the first frame of a file.
pub const HEADER_LEN: usize = 24;

const MAGIC: &[u8; 8] = b"SPLMLOG\0";
/// Version that this code writes; it reads this and all older ones.
pub(crate) const VERSION: u32 = 1;

/// The header of a file that begins with sequence number `first_seq`.
pub(crate) fn header(first_seq: u64) -> [u8; HEADER_LEN] {
    let mut out = [0; HEADER_LEN];
    out[..8].copy_from_slice(MAGIC);
    out[8..12].copy_from_slice(&VERSION.to_le_bytes());
    out[12..20].copy_from_slice(&first_seq.to_le_bytes());
    let crc = crc32fast::hash(&out[..20]);
    out[20..].copy_from_slice(&crc.to_le_bytes());
    out
}

/// What the beginning of a file says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Header {
    /// A file of a version that this code reads.
    Good { first_seq: u64 },
    /// Written by a newer program: not to be touched.
    Newer(u32),
    /// Cut off or damaged: the frames behind it are looked for all the same.
    Damaged,
}

pub(crate) fn parse_header(data: &[u8]) -> Header {
    let Some(head) = data.get(..HEADER_LEN) else { return Header::Damaged };
    let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    if &head[..8] != MAGIC || word(20) != crc32fast::hash(&head[..20]) {
        return Header::Damaged;
    }
    match word(8) {
        v if v > VERSION => Header::Newer(v),
        _ => Header::Good { first_seq: u64::from(word(12)) | u64::from(word(16)) << 32 },
    }
}

pub(crate) fn path_of(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:08}.log"))
}

/// Numbers and sizes of the log files in a directory, oldest first.
pub(crate) fn list(dir: &Path) -> io::Result<Vec<(u64, u64)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(stem) = name.to_str().and_then(|n| n.strip_suffix(".log")) else { continue };
        if stem.len() >= 8
            && stem.bytes().all(|b| b.is_ascii_digit())
            && let Ok(number) = stem.parse()
        {
            files.push((number, entry.metadata()?.len()));
        }
    }
    files.sort_unstable();
    Ok(files)
}

/// Makes creations, renames and deletions in a directory durable.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_round_trips_and_any_flipped_bit_is_noticed() {
        let good = header(77);
        assert_eq!(parse_header(&good), Header::Good { first_seq: 77 });
        for bit in 0..HEADER_LEN * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(parse_header(&bad), Header::Damaged);
        }
        let mut newer = good;
        newer[8] = 9;
        let crc = crc32fast::hash(&newer[..20]);
        newer[20..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(parse_header(&newer), Header::Newer(9));
    }
}
