//! Which cipher the connection has: the one that this processor is quickest with. With instructions for AES that is AES by
//! far; without them, or where an emulator has them only by name, another is several times quicker.

use std::time::{Duration, Instant};

use ring::aead::{
    AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, MAX_TAG_LEN, Nonce, UnboundKey,
};
use rustls::{CipherSuite, SupportedCipherSuite};

/// As much as is sealed at a time, to find out: a quarter of what a record of TLS holds.
const SAMPLE: usize = 4 << 10;
/// The first is slower, as an emulator translates its code, and any may be interrupted.
const SAMPLES: u32 = 4;

/// The suites of TLS 1.3, quickest first. The node takes the first that it has, too.
pub(super) fn quickest_first(suites: Vec<SupportedCipherSuite>) -> Vec<SupportedCipherSuite> {
    let known = suites
        .into_iter()
        .filter_map(|suite| Some((algorithm(suite.suite())?, suite)));
    let mut known: Vec<_> = known.map(|(algorithm, suite)| (time(algorithm), suite)).collect();
    known.sort_by_key(|(time, _)| *time);
    known.into_iter().map(|(_, suite)| suite).collect()
}

fn algorithm(suite: CipherSuite) -> Option<&'static Algorithm> {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => Some(&AES_128_GCM),
        CipherSuite::TLS13_AES_256_GCM_SHA384 => Some(&AES_256_GCM),
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => Some(&CHACHA20_POLY1305),
        _ => None,
    }
}

/// How long it takes to seal a sample. One that cannot be tried is the last.
fn time(algorithm: &'static Algorithm) -> Duration {
    let key = [0; 32];
    let Ok(key) = UnboundKey::new(algorithm, &key[..algorithm.key_len()]).map(LessSafeKey::new) else {
        return Duration::MAX;
    };
    let mut sample = Vec::with_capacity(SAMPLE + MAX_TAG_LEN);
    let seal = |_| {
        sample.clear();
        sample.resize(SAMPLE, 0);
        let begun = Instant::now();
        // The key is only for this.
        let nonce = Nonce::assume_unique_for_key([0; 12]);
        let sealed = key.seal_in_place_append_tag(nonce, Aad::empty(), &mut sample);
        sealed.map_or(Duration::MAX, |()| begun.elapsed())
    };
    (0..SAMPLES).map(seal).min().unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_suite_of_the_newest_version_is_tried_and_offered_once() {
        let suites = rustls::crypto::ring::default_provider().cipher_suites;
        let newest = suites.iter().filter(|suite| suite.tls13().is_some());
        let mut wanted: Vec<_> = newest.map(|suite| suite.suite().as_str()).collect();
        let mut offered: Vec<_> = quickest_first(suites).iter().map(|s| s.suite().as_str()).collect();
        wanted.sort_unstable();
        offered.sort_unstable();
        assert_eq!((offered.len(), &offered), (3, &wanted));
    }
}
