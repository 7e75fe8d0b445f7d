//! Who sent what is counted: the texts that tell one payload of the output
//! from another, each combination kept once.

use crate::rules::process_tags_hash;
use foldhash::fast::FixedState;
use hashbrown::HashTable;
use spanloom_model::stats::ClientStatsPayload;
use std::hash::{BuildHasher, Hash, Hasher};

/// Sources (environment, host, container …) held at once.
const MAX_SOURCES: usize = 10_000;

/// What distinguishes one payload of the output from another.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Source {
    pub(super) hash: u64,
    pub(super) texts: [Box<str>; 8],
    pub(super) process_hash: u64,
    pub(super) container_tags: Box<str>,
    pub(super) process_tags: Box<str>,
}

/// Borrowed form of a source's texts: env, hostname, version, container,
/// git commit, image tag, language, base service.
pub(super) struct SourceRef<'a> {
    pub(super) texts: [&'a str; 8],
    pub(super) container_tags: &'a str,
    pub(super) process_tags: &'a str,
}

/// Number of a source; that of the first one if there are too many.
pub(super) fn intern(
    sources: &mut Vec<Source>,
    table: &mut HashTable<u32>,
    hasher: &FixedState,
    key: &SourceRef<'_>,
) -> u32 {
    let hash = key.hash(hasher);
    if let Some(at) = table.find(hash, |i| key.is(&sources[*i as usize])) {
        return *at;
    }
    if sources.len() >= MAX_SOURCES {
        return 0;
    }
    let at = sources.len() as u32;
    sources.push(Source {
        hash,
        texts: key.texts.map(Into::into),
        process_hash: process_tags_hash(key.process_tags),
        container_tags: key.container_tags.into(),
        process_tags: key.process_tags.into(),
    });
    table.insert_unique(hash, at, |i| sources[*i as usize].hash);
    at
}

impl SourceRef<'_> {
    fn hash(&self, hasher: &FixedState) -> u64 {
        let mut h = hasher.build_hasher();
        for text in self.texts {
            text.hash(&mut h);
        }
        self.process_tags.hash(&mut h);
        h.finish()
    }

    fn is(&self, source: &Source) -> bool {
        self.texts.iter().zip(&source.texts).all(|(a, b)| **a == **b)
            && *self.process_tags == *source.process_tags
    }
}

impl Source {
    pub(super) fn to_payload(&self) -> ClientStatsPayload {
        let [env, hostname, version, container_id, git_commit_sha, image_tag, lang, service] =
            self.texts.clone().map(String::from);
        let tags = self.container_tags.split(',').filter(|t| !t.is_empty()).map(str::to_owned).collect();
        ClientStatsPayload {
            hostname,
            env,
            version,
            lang,
            service,
            container_id,
            tags,
            git_commit_sha,
            image_tag,
            process_tags_hash: self.process_hash,
            process_tags: self.process_tags.clone().into(),
            ..ClientStatsPayload::default()
        }
    }
}
