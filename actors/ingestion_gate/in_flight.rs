//! What an admission shard has admitted that the index does not know of yet.
//!
//! Rows are noted under the place of their claim, which the index shard gave and keeps for as long as the claim is held:
//! a row is found without looking for its key.

use super::index_shard::ClaimPlace;
use wellspring_domain::admission::decision::IndexEntry;
use wellspring_domain::ids::Hash32;

/// An event that was admitted under a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// Its key.
    pub key: Hash32,
    /// What the index will know of it.
    pub entry: IndexEntry,
    /// The claim.
    pub claim: ClaimPlace,
}

/// Rows by claim.
#[derive(Debug, Default)]
pub struct InFlight {
    /// By index shard, then by place.
    rows: Vec<Vec<Option<IndexEntry>>>,
    count: usize,
}

impl InFlight {
    /// The row noted under a claim this shard holds.
    pub fn at(&self, claim: ClaimPlace) -> Option<IndexEntry> {
        let rows = self.rows.get(usize::from(claim.index_shard))?;
        *rows.get(claim.place.number())?
    }

    /// Notes the row of a claim that has none yet. What was there is not read: that would be a wait for memory.
    pub fn note(&mut self, claim: ClaimPlace, entry: IndexEntry) {
        let (shard, place) = (usize::from(claim.index_shard), claim.place.number());
        if self.rows.len() <= shard {
            self.rows.resize_with(shard + 1, Vec::new);
        }
        let rows = &mut self.rows[shard];
        if rows.len() <= place {
            rows.resize(place + 1, None);
        }
        debug_assert_eq!(rows[place], None, "a claim has one row");
        rows[place] = Some(entry);
        self.count += 1;
    }

    /// Forgets rows that were noted, because their claims end now.
    pub fn forget(&mut self, ended: &[Admitted]) {
        for Admitted { claim, .. } in ended {
            self.rows[usize::from(claim.index_shard)][claim.place.number()] = None;
        }
        self.count -= ended.len();
    }

    /// True when the index knows of everything.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use wellspring_domain::admission::claims::{Claim, ClaimTable};
    use wellspring_domain::admission::decision::RowRef;

    fn admitted(number: u8, claim: ClaimPlace) -> Admitted {
        let row = u32::from(number);
        Admitted {
            key: Hash32::of(&[number]),
            entry: IndexEntry {
                payload_hash: Hash32::of(&row.to_be_bytes()),
                row: RowRef {
                    shard: 0,
                    segment: 0,
                    row,
                },
            },
            claim,
        }
    }

    proptest! {
        /// Against a map, with the claims of two index shards: a held key has its own row, a key claimed anew has none.
        #[test]
        fn a_claim_has_the_row_of_its_key(steps in prop::collection::vec((0u8..24, any::<bool>()), 0..200)) {
            let mut tables = [ClaimTable::default(), ClaimTable::default()];
            let mut in_flight = InFlight::default();
            let mut model: BTreeMap<u8, Admitted> = BTreeMap::new();
            for (number, end) in steps {
                let index_shard = u16::from(number % 2);
                let table = &mut tables[usize::from(index_shard)];
                let key = Hash32::of(&[number]);
                if end {
                    let Some(ended) = model.remove(&number) else {
                        continue;
                    };
                    in_flight.forget(&[ended]);
                    prop_assert_eq!(in_flight.at(ended.claim), None);
                    table.end(&key);
                    continue;
                }
                match table.claim(key, 0) {
                    Claim::Won(place) => {
                        let claim = ClaimPlace { index_shard, place };
                        prop_assert_eq!(in_flight.at(claim), None);
                        let new = admitted(number, claim);
                        in_flight.note(claim, new.entry);
                        model.insert(number, new);
                    }
                    Claim::Yours(place) => {
                        let claim = ClaimPlace { index_shard, place };
                        prop_assert_eq!(in_flight.at(claim), Some(model[&number].entry));
                    }
                    Claim::Parked => panic!("nobody else claims"),
                }
                prop_assert_eq!(in_flight.is_empty(), model.is_empty());
            }
        }
    }
}
