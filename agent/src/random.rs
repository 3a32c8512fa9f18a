//! Random bytes from the operating system.

use std::io;

use ring::rand::{SecureRandom, SystemRandom};

/// `N` random bytes.
pub fn bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| io::Error::other("the system gives no random bytes"))?;
    Ok(bytes)
}

/// `N` random bytes as hexadecimal digits.
pub fn hex<const N: usize>() -> io::Result<String> {
    Ok(hex::encode(bytes::<N>()?))
}
