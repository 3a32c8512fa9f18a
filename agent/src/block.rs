//! Blocks of memory that output is read into and sent from, used again and again.
//!
//! An allocator that gives every large piece back to the system, as musl's does, has the kernel find and clear the pages
//! of each piece of output anew, which costs more than all that is done with it. A block goes from the pipe to the
//! connection without being copied, and comes back when the node has acknowledged what is in it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use helios_proto::MAX_OUTPUT;

/// What a block holds: the most that one message carries. It goes out in pieces when the node takes less.
pub const SIZE: usize = MAX_OUTPUT;

/// Blocks that nobody uses now.
#[derive(Debug)]
pub struct Pool {
    /// A plain mutex: nothing is awaited while it is held.
    free: Mutex<Vec<Vec<u8>>>,
    /// So many are kept; more go back to the allocator.
    kept: usize,
}

impl Pool {
    /// An empty pool that keeps so many blocks.
    pub fn new(kept: usize) -> Arc<Self> {
        Arc::new(Self {
            free: Mutex::default(),
            kept,
        })
    }

    /// An empty block.
    pub fn take(self: &Arc<Self>) -> Block {
        let free = self.lock().pop();
        Block {
            bytes: free.unwrap_or_else(|| Vec::with_capacity(SIZE)),
            pool: Arc::clone(self),
        }
    }

    /// How many blocks nobody uses.
    pub fn free(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One block. Dropped, it goes back to its pool.
#[derive(Debug)]
pub struct Block {
    bytes: Vec<u8>,
    pool: Arc<Pool>,
}

impl Block {
    /// What is in it.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// To add to it, at most [`Block::room`] bytes: it does not grow.
    pub fn bytes_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// How many bytes it has room for.
    pub fn room(&self) -> usize {
        SIZE.saturating_sub(self.bytes.len())
    }

    /// What is in it, to be shared; the last owner gives the block back.
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Block {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        let mut free = self.pool.lock();
        if free.len() < self.pool.kept {
            free.push(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_comes_back_with_its_last_owner_and_is_used_again() {
        let pool = Pool::new(2);
        let mut block = pool.take();
        let memory = block.bytes().as_ptr();
        block.bytes_mut().extend_from_slice(b"one two");
        let whole = block.freeze();
        let part = whole.slice(4..);
        drop(whole);
        assert_eq!((pool.free(), &part[..]), (0, &b"two"[..]));
        drop(part);
        assert_eq!(pool.free(), 1);
        let again = pool.take();
        assert_eq!(again.bytes().as_ptr(), memory);
        assert_eq!((again.bytes().len(), again.room()), (0, SIZE));
    }

    #[test]
    fn no_more_blocks_are_kept_than_the_pool_may() {
        let pool = Pool::new(2);
        let blocks: Vec<Block> = (0..5).map(|_| pool.take()).collect();
        drop(blocks);
        assert_eq!(pool.free(), 2);
    }
}
