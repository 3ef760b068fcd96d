//! The slot of a Cluster to which a key, a channel or a command belongs.

use redis::{Arg, Cmd};

/// How many slots a Cluster has.
pub(in crate::backbone::redis) const SLOTS: usize = 16_384;

/// A slot, below [`SLOTS`].
pub(in crate::backbone::redis) type Slot = u16;

/// The slot of a key or of a sharded channel: of what stands between its first `{` and the next `}`, if that is anything.
pub(in crate::backbone::redis) fn slot_of(key: &[u8]) -> Slot {
    let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let rest = key.get(open + 1..)?;
        let close = rest.iter().position(|byte| *byte == b'}')?;
        rest.get(..close).filter(|tag| !tag.is_empty())
    });
    crc16(tag.unwrap_or(key)) & 0x3fff
}

/// The key by which a command is routed; none if any server may carry it out. All keys of a script have one slot.
pub(super) fn key_of(command: &Cmd) -> Option<&[u8]> {
    let mut words = command.args_iter().filter_map(|word| match word {
        Arg::Simple(word) => Some(word),
        _ => None,
    });
    match words.next()? {
        b"TIME" | b"PUBLISH" => None,
        b"EVALSHA" | b"EVAL" => words.nth(2),
        b"XGROUP" => words.nth(1),
        b"XREADGROUP" => words.skip_while(|word| *word != b"STREAMS").nth(1),
        _ => words.next(),
    }
}

/// CRC-16/XMODEM, as the specification of Redis Cluster asks for.
fn crc16(bytes: &[u8]) -> u16 {
    let byte = |crc: u16, byte: &u8| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| (crc << 1) ^ if crc >> 15 == 1 { 0x1021 } else { 0 })
    };
    bytes.iter().fold(0, byte)
}

#[cfg(test)]
mod tests {
    use redis::cmd;
    use shared::UserId;
    use shared::redis_keys::Keys;

    use super::*;

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        // As `CLUSTER KEYSLOT` says.
        for (key, slot) in [("foo", 12182), ("{foo}.x", 12182), ("a{}b{foo}", 976), ("", 0), ("{", 4092)] {
            assert_eq!(slot_of(key.as_bytes()), slot, "{key}");
        }
        let ann = UserId::parse("ann").expect("an id");
        let of = |key: String| slot_of(key.as_bytes());
        for keys in [Keys::default(), Keys::in_namespace("blue").expect("a namespace")] {
            assert_eq!(of(keys.log(&ann)), of(keys.user_channel(&ann)));
        }
    }

    #[test]
    fn a_command_is_routed_by_its_key() {
        assert_eq!(key_of(cmd("GET").arg("k")), Some(&b"k"[..]));
        assert_eq!(key_of(cmd("EVALSHA").arg("hash").arg(2).arg("k").arg("l").arg("m")), Some(&b"k"[..]));
        assert_eq!(key_of(cmd("XGROUP").arg("CREATE").arg("k")), Some(&b"k"[..]));
        assert_eq!(key_of(cmd("XREADGROUP").arg("GROUP").arg("g").arg("STREAMS").arg("k").arg(">")), Some(&b"k"[..]));
        assert_eq!(key_of(&cmd("TIME")), None);
    }
}
