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
        let mut at = at;
        // Most text has no place for long stretches, so that one question for several bytes is the quicker one.
        while let Some(stretch) = text.get(at..).and_then(|rest| rest.first_chunk()) {
            // No short cut: to ask for all is less work than to branch at each.
            let any = words(stretch).map(|word| bit(&self.first, first(word)));
            if any.into_iter().fold(false, |any, one| any | one)
                && let Some(i) = words(stretch).into_iter().position(|word| self.admits(word))
            {
                return Some(at + i);
            }
            at += STRIDE;
        }
        let admits = |four: &[u8]| {
            four.first_chunk()
                .is_some_and(|four| self.admits(u32::from_le_bytes(*four)))
        };
        text.get(at..)?.windows(4).position(admits).map(|i| at + i)
    }

    fn admits(&self, word: u32) -> bool {
        bit(&self.first, first(word)) && bit(&self.second, second(word))
    }
}

/// So many places are asked for at once.
const STRIDE: usize = 8;

/// The four bytes at each of the first [`STRIDE`] places.
fn words(stretch: &[u8; STRIDE + 4]) -> [u32; STRIDE] {
    std::array::from_fn(|i| u32::from_le_bytes([stretch[i], stretch[i + 1], stretch[i + 2], stretch[i + 3]]))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_found_wherever_it_lies_and_no_sooner() {
        let mut filter = Filter::new();
        filter.add(*b"tok-");
        for length in 4..40 {
            for place in 0..=length - 4 {
                let mut text = vec![b'.'; length];
                text[place..place + 4].copy_from_slice(b"tok-");
                for at in 0..=length + 1 {
                    let wanted = (at <= place).then_some(place);
                    assert_eq!(filter.find(&text, at), wanted, "{length} {place} {at}");
                }
            }
        }
    }
}
