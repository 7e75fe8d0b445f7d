//! Flushing, compaction, retention.
use crate::error::OpenError;
use crate::store::Core;
use spanloom_model::StoreError;
use std::sync::Arc;
use std::thread::JoinHandle;

pub(crate) fn start(_core: &Arc<Core>) -> Result<Vec<JoinHandle<()>>, OpenError> {
    Ok(Vec::new())
}
pub(crate) fn flush_frozen(_core: &Core) -> Result<(), StoreError> {
    Ok(())
}
pub(crate) fn compact(_core: &Core, _all: bool) -> Result<(), StoreError> {
    Ok(())
}
pub(crate) fn retain(_core: &Core) -> Result<(), StoreError> {
    Ok(())
}
