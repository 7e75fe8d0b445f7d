//! Traces by their number.

use crate::gen_spans::{Rng, batch};
use crate::roundtrip::{ids, write};
use spanloom_model::{Batch, TraceId};

#[test]
fn numbers_are_the_order_of_ids_and_lead_back_to_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut r = Rng(11);
    let batches: Vec<Batch> = (0..80).map(|_| batch(&mut r, 400, 3000)).collect();
    let refs: Vec<&Batch> = batches.iter().collect();
    let segment = write(dir.path(), 1, &refs);
    let ids = ids(&refs);
    assert!(ids.len() > 1024, "more than a block of traces: {}", ids.len());
    for (number, id) in ids.iter().enumerate() {
        let number = number as u32;
        assert_eq!(segment.number_of(*id).unwrap(), Some(number));
        assert_eq!(segment.id_of(number).unwrap(), *id);
        assert_eq!(segment.part_of(number, *id).unwrap(), segment.part(*id).unwrap().unwrap());
    }
    assert_eq!(segment.number_of(TraceId(u128::MAX)).unwrap(), None);
    assert!(segment.id_of(ids.len() as u32).is_err());
    assert!(segment.part_of(u32::MAX, TraceId(1)).is_err());
}
