//! A quick "surely not" for the places where a form may begin: two bitmaps over the first four bytes.

const BITS: u32 = 16;

/// See the module.
pub(super) struct Filter {
    first: Box<[u64; 1 << (BITS - 6)]>,
    /// Asked where the first says yes, so that many forms do not make many false alarms.
    second: Box<[u64; 1 << (BITS - 6)]>,
}

impl Filter {
    pub(super) fn new() -> Self {
        Self {
            first: Box::new([0; 1 << (BITS - 6)]),
            second: Box::new([0; 1 << (BITS - 6)]),
        }
    }

    /// From now on four such bytes are a place.
    pub(super) fn add(&mut self, four: [u8; 4]) {
        let word = u32::from_le_bytes(four);
        for (map, slot) in [(&mut self.first, first(word)), (&mut self.second, second(word))] {
            map[slot / 64] |= 1 << (slot % 64);
        }
    }

    /// The first place from `at` on.
    pub(super) fn find(&self, text: &[u8], at: usize) -> Option<usize> {
        let rest = text.get(at..)?;
        let admits = |four: &[u8]| {
            let word = u32::from_le_bytes([four[0], four[1], four[2], four[3]]);
            bit(&self.first, first(word)) && bit(&self.second, second(word))
        };
        rest.windows(4).position(admits).map(|i| at + i)
    }
}

fn bit(map: &[u64; 1 << (BITS - 6)], slot: usize) -> bool {
    map[slot / 64] >> (slot % 64) & 1 != 0
}

fn first(word: u32) -> usize {
    (word.wrapping_mul(0x9E37_79B1) >> (32 - BITS)) as usize
}

fn second(word: u32) -> usize {
    (word.wrapping_mul(0x85EB_CA6B).rotate_left(13).wrapping_mul(0xC2B2_AE35) >> (32 - BITS)) as usize
}
