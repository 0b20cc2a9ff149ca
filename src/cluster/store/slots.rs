//! Which slot of a Cluster a name has (Redis Cluster specification, "Key distribution model").

/// Slots of a Cluster.
pub(super) const COUNT: u16 = 16_384;

/// Returns the slot of a key or channel: of what stands in its first braces, or of all of it.
pub(super) fn of(name: &str) -> u16 {
    let tag = name.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag);
    let hashed = tag.filter(|tag| !tag.is_empty()).unwrap_or(name);
    crc16::State::<crc16::XMODEM>::calculate(hashed.as_bytes()) % COUNT
}

/// Finds a hash tag that has a slot; there is one among the first some hundred thousand numbers.
pub(super) fn tag_for(slot: u16) -> String {
    (0_u32..).map(|number| number.to_string()).find(|tag| of(tag) == slot).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis() {
        // As `CLUSTER KEYSLOT` answers.
        assert_eq!(of("123456789"), 12_739);
        assert_eq!(of("foo"), 12_182);
        assert_eq!(of("gatecast:{foo}:meta"), 12_182);
        assert_eq!(of("{}foo"), of("{}foo"));
        assert_ne!(of("{}foo"), of("foo"));
    }

    #[test]
    fn every_slot_has_a_tag() {
        for slot in [0, 1, 5_461, COUNT - 1] {
            assert_eq!(of(&format!("gatecast:{{{}}}:beat", tag_for(slot))), slot);
        }
    }
}
