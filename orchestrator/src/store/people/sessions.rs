//! Sessions of browsers: opened with a token, valid as long as it, and no longer than their own limits.

use super::access::{self, NOTED_EVERY_MS, TokenRow};
use crate::{
    model::ids::TokenId,
    store::people::access::ABSOLUTE_MS,
    store::{
        Store, StoreError,
        engine::tx::{Tx, args},
    },
};

/// A valid session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRow {
    /// The token it was opened with.
    pub token: TokenRow,
    /// What its forms must carry.
    pub csrf: String,
}

/// A session ends after twelve hours without a request.
const IDLE_MS: i64 = 12 * 3600 * 1000;

impl Store {
    /// Opens a session; `hash` is the SHA-256 of its cookie.
    pub async fn create_session(&self, hash: &[u8; 32], token: TokenId, csrf: &str) -> Result<(), StoreError> {
        in_tx!(self, "open a session", [hash = *hash, csrf = csrf.to_owned()], |tx| {
            create(tx, hash, token, csrf)
        })
    }

    /// The session with this hash, when it and its token are still valid. Its use is noted.
    pub async fn find_session(&self, hash: &[u8; 32]) -> Result<Option<SessionRow>, StoreError> {
        let mut tx = self.read_single("look for a session").await?;
        let sql = format!(
            "SELECT {}, s.csrf, s.seen_ms FROM sessions s JOIN tokens t ON t.id = s.token_id
             WHERE s.hash = $1 AND t.revoked_ms IS NULL AND t.expires_ms > $2 AND s.seen_ms > $3 AND s.created_ms > $4",
            access::COLUMNS
        );
        let now = tx.now;
        let row = tx.row(sql, args![hash, now, now - IDLE_MS, now - ABSOLUTE_MS]).await?;
        let Some(row) = row else { return Ok(None) };
        drop(tx);
        if row.int("seen_ms")? < now - NOTED_EVERY_MS {
            in_tx!(self, "note a session's use", [hash = *hash], |tx| note_use(tx, hash))?;
        }
        Ok(Some(SessionRow {
            token: access::token_row(&row)?,
            csrf: row.text("csrf")?,
        }))
    }

    /// Ends a session.
    pub async fn end_session(&self, hash: &[u8; 32]) -> Result<(), StoreError> {
        in_tx!(self, "end a session", [hash = *hash], |tx| end(tx, hash))
    }
}

async fn create(tx: &mut Tx, hash: &[u8; 32], token: TokenId, csrf: &str) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO sessions (hash, token_id, csrf, created_ms, seen_ms) VALUES ($1, $2, $3, $4, $4)",
        args![hash, token, csrf, tx.now],
    )
    .await
    .map(drop)
}

async fn note_use(tx: &mut Tx, hash: &[u8; 32]) -> Result<(), StoreError> {
    tx.execute("UPDATE sessions SET seen_ms = $2 WHERE hash = $1", args![hash, tx.now])
        .await
        .map(drop)
}

async fn end(tx: &mut Tx, hash: &[u8; 32]) -> Result<(), StoreError> {
    tx.execute("DELETE FROM sessions WHERE hash = $1", args![hash])
        .await
        .map(drop)
}
