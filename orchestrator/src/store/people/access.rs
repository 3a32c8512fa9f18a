//! Tokens: only their hashes are stored.

use crate::{
    foreign_text::clip,
    model::ids::TokenId,
    store::{
        Store, StoreError,
        engine::tx::{Row, Tx, args, to_json},
    },
};

/// A session ends after seven days in any case.
pub(in crate::store) const ABSOLUTE_MS: i64 = 7 * 24 * 3600 * 1000;

/// A token to be stored.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// What its owner calls it.
    pub name: String,
    /// SHA-256 of the token.
    pub hash: [u8; 32],
    /// Whose it is.
    pub owner: String,
    /// Milliseconds since 1970.
    pub expires_ms: i64,
    /// What it may do: `admin`.
    pub scopes: Vec<String>,
}

/// What a token of one use becomes when it is used.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// SHA-256 of the token that is shown.
    pub shown: [u8; 32],
    /// The one scope that it must have.
    pub scope: String,
    /// Its hash from now on.
    pub hash: [u8; 32],
    /// Its scopes from now on.
    pub scopes: Vec<String>,
}

/// A stored token, without its hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRow {
    /// Its id.
    pub id: TokenId,
    /// What its owner calls it.
    pub name: String,
    /// Whose it is.
    pub owner: String,
    /// Milliseconds since 1970, like the others.
    pub created_ms: i64,
    /// When it ends.
    pub expires_ms: i64,
    /// When it was used last, to the minute.
    pub last_used_ms: Option<i64>,
    /// It was revoked.
    pub revoked: bool,
    /// What it may do.
    pub scopes: Vec<String>,
}

/// Uses are noted this often at most, so that reading needs no write.
pub(in crate::store) const NOTED_EVERY_MS: i64 = 60_000;

/// The columns [`token_row`] reads, from `tokens t`.
pub(in crate::store) const COLUMNS: &str =
    "t.id, t.name, t.owner, t.created_ms, t.expires_ms, t.last_used_ms, t.revoked_ms, t.scopes";

pub(in crate::store) fn token_row(row: &Row) -> Result<TokenRow, StoreError> {
    Ok(TokenRow {
        id: row.parse("id")?,
        name: row.text("name")?,
        owner: row.text("owner")?,
        created_ms: row.int("created_ms")?,
        expires_ms: row.int("expires_ms")?,
        last_used_ms: row.opt_int("last_used_ms")?,
        revoked: row.opt_int("revoked_ms")?.is_some(),
        scopes: row.json("scopes")?,
    })
}

impl Store {
    /// Stores a token.
    pub async fn create_token(&self, token: NewToken) -> Result<TokenId, StoreError> {
        in_tx!(self, "create a token", [token = token], |tx| create(tx, token))
    }

    /// The valid token with this hash: neither expired nor revoked. Its use is noted.
    pub async fn find_token(&self, hash: &[u8; 32]) -> Result<Option<TokenRow>, StoreError> {
        let mut tx = self.read_single("look for a token").await?;
        let row = tx
            .row(
                format!(
                    "SELECT {COLUMNS} FROM tokens t WHERE t.hash = $1 AND t.revoked_ms IS NULL AND t.expires_ms > $2"
                ),
                args![hash, tx.now],
            )
            .await?;
        let Some(row) = row else { return Ok(None) };
        let (token, now) = (token_row(&row)?, tx.now);
        drop(tx);
        if token.last_used_ms.is_none_or(|used| used < now - NOTED_EVERY_MS) {
            let id = token.id;
            in_tx!(self, "note a token's use", [], |tx| note_use(tx, id))?;
        }
        Ok(Some(token))
    }

    /// Uses up a valid token of one use: from now on it has another hash and other scopes, and lives as long as a
    /// session may. Of several who show it at once one gets it. `None`: there is no valid token with this hash and scope.
    pub async fn exchange_token(&self, exchange: Exchange) -> Result<Option<TokenRow>, StoreError> {
        in_tx!(self, "use up a token", [exchange = exchange], |tx| use_up(tx, exchange))
    }

    /// All tokens, the oldest first.
    pub async fn tokens(&self) -> Result<Vec<TokenRow>, StoreError> {
        let mut tx = self.read_single("list tokens").await?;
        let rows = tx
            .rows(
                format!("SELECT {COLUMNS} FROM tokens t ORDER BY t.created_ms, t.id"),
                &[],
            )
            .await?;
        rows.iter().map(token_row).collect()
    }

    /// Revokes a token, and with it the sessions that were opened with it. `false`: no such token, or
    /// it was revoked before.
    pub async fn revoke_token(&self, id: TokenId) -> Result<bool, StoreError> {
        in_tx!(self, "revoke a token", [], |tx| revoke(tx, id))
    }
}

async fn create(tx: &mut Tx, token: &NewToken) -> Result<TokenId, StoreError> {
    let id = TokenId::new();
    tx.execute(
        "INSERT INTO tokens (id, name, owner, hash, scopes, created_ms, expires_ms) VALUES ($1, $2, $3, $4, $5, $6, $7)",
        args![
            id,
            clip(&token.name, 200),
            clip(&token.owner, 200),
            &token.hash,
            to_json(tx.what, &token.scopes)?,
            tx.now,
            token.expires_ms
        ],
    )
    .await?;
    Ok(id)
}

async fn use_up(tx: &mut Tx, exchange: &Exchange) -> Result<Option<TokenRow>, StoreError> {
    let scope = to_json(tx.what, &[&exchange.scope])?;
    let used = tx
        .row(
            "UPDATE tokens SET hash = $3, scopes = $4, expires_ms = $5, last_used_ms = $2
             WHERE hash = $1 AND scopes = $6 AND revoked_ms IS NULL AND expires_ms > $2 RETURNING id",
            args![
                &exchange.shown,
                tx.now,
                &exchange.hash,
                to_json(tx.what, &exchange.scopes)?,
                tx.now + ABSOLUTE_MS,
                scope
            ],
        )
        .await?;
    let Some(used) = used else { return Ok(None) };
    let id: TokenId = used.parse("id")?;
    let row = tx
        .row(format!("SELECT {COLUMNS} FROM tokens t WHERE t.id = $1"), args![id])
        .await?;
    row.as_ref().map(token_row).transpose()
}

async fn note_use(tx: &mut Tx, id: TokenId) -> Result<(), StoreError> {
    tx.execute("UPDATE tokens SET last_used_ms = $2 WHERE id = $1", args![id, tx.now])
        .await
        .map(drop)
}

async fn revoke(tx: &mut Tx, id: TokenId) -> Result<bool, StoreError> {
    let changed = tx
        .execute(
            "UPDATE tokens SET revoked_ms = $2 WHERE id = $1 AND revoked_ms IS NULL",
            args![id, tx.now],
        )
        .await?;
    tx.execute("DELETE FROM sessions WHERE token_id = $1", args![id])
        .await?;
    Ok(changed == 1)
}
