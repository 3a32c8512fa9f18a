//! The one writer of a SQLite database. Operations queue up; those that are waiting run in one
//! transaction, each with a savepoint before it, which is committed after 2 ms or 64 of them, and only then are their callers
//! answered. One fsync so serves many, and nobody hears of something that is not on the disk.
//!
//! ```text
//!  callers ─▶ queue ─▶ BEGIN IMMEDIATE
//!                       operation 1                      fails: ROLLBACK, BEGIN IMMEDIATE; its error is its answer
//!                       SAVEPOINT · operation 2 · RELEASE fails: ROLLBACK TO, RELEASE; the others are unharmed
//!                       … at most 64, or 2 ms
//!                      COMMIT ─▶ all are answered         fails: all get that error, nothing has happened
//! ```
//!
//! **Why one writer.** SQLite has one writer at a time in any case. Letting connections compete would turn that into
//! `SQLITE_BUSY` after a time-out, at random; a queue makes it an order. Readers use a pool and, with WAL, wait for nobody.
//!
//! **Why operations are `Fn`.** On Postgres the same operation runs in a transaction of its own that may have to be
//! repeated (40001, 40P01), so an operation must give the same when it is run again.
//!
//! **A lone operation of one statement** is a transaction by itself and is run without BEGIN and COMMIT.
//!
//! **What need not be synced is not** ([`Commit::WithNext`]): a batch of such operations alone is committed to the journal,
//! where a daemon that is killed leaves it, and is on the disk with the next commit that is synced, which syncs the whole
//! journal: the node's next heartbeat at the latest, within 20 s. A power failure in between takes them, all or the
//! newest, and nothing that was committed before: the order of commits is the order in the journal. A synced operation that
//! changes nothing commits nothing, so it syncs nothing either: that it was answered does not say that what it read is on
//! the disk.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::BoxFuture;
use sqlx::{Connection as _, SqliteConnection};
use tokio::sync::{mpsc, oneshot};

use super::tx::{Link, Tx};
use crate::{clock, store::StoreError};

const BATCH: usize = 64;
const BATCH_TIME: Duration = Duration::from_millis(2);
const QUEUE: usize = 1024;
/// After so many transactions the journal goes into the database's file, once nothing has waited for a while: two syncs and
/// some hundred pages that are on nobody's way. In a rush SQLite does it itself, in the middle of a commit, when the
/// journal has [`JOURNAL`] pages.
const TIDY_AFTER: u32 = 100;
const QUIET: Duration = Duration::from_millis(50);
/// As `PRAGMA wal_autocheckpoint` takes it: 16 MiB.
pub(super) const JOURNAL: &str = "4000";

/// When what an operation changed is on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Commit {
    /// Before its caller is answered.
    Synced,
    /// As much; it is one statement, which is a transaction by itself.
    SyncedSingle,
    /// With the next synced operation that changes something. For what a power failure makes untrue or undone anyway: a
    /// lease of this process, or a fact about a machine that runs on this host and loses its power with it. What follows
    /// from it, as a report that is sent under a lease, must bear being done again. A daemon that is killed loses nothing.
    WithNext,
}

impl Commit {
    fn is_synced(self) -> bool {
        self != Self::WithNext
    }
}

type Answer = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// What became of an operation inside its savepoint, and the answer to its caller.
struct Done {
    failed: bool,
    answer: Answer,
}

/// An operation in the queue, together with the caller that waits for it.
trait Queued: Send {
    fn run<'t>(self: Box<Self>, tx: &'t mut Tx) -> BoxFuture<'t, Done>;
    fn refuse(self: Box<Self>, error: StoreError);
}

struct Operation<T, F> {
    run: Arc<F>,
    sender: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F> Queued for Operation<T, F>
where
    T: Send + 'static,
    F: for<'t> Fn(&'t mut Tx) -> BoxFuture<'t, Result<T, StoreError>> + Send + Sync + 'static,
{
    fn run<'t>(self: Box<Self>, tx: &'t mut Tx) -> BoxFuture<'t, Done> {
        Box::pin(async move {
            let result = (self.run)(tx).await;
            let sender = self.sender;
            Done {
                failed: result.is_err(),
                // A caller that has gone away is no reason to undo the work.
                answer: Box::new(move |committed| {
                    let _ = sender.send(committed.and(result));
                }),
            }
        })
    }

    fn refuse(self: Box<Self>, error: StoreError) {
        let _ = self.sender.send(Err(error));
    }
}

struct Work {
    what: &'static str,
    operation: Box<dyn Queued>,
    commit: Commit,
}

enum Message {
    Work(Work),
    Close(oneshot::Sender<()>),
}

/// The way to the writer task; the task ends when the last of these is gone.
#[derive(Clone)]
pub(in crate::store) struct Writer(mpsc::Sender<Message>);

impl Writer {
    /// Starts the writer on its connection.
    pub(in crate::store) fn start(connection: SqliteConnection) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let tx = Tx {
            link: Link::Writer(connection),
            what: "write",
            now: 0,
        };
        let session = Session {
            tx,
            synced: None,
            since_tidy: 0,
        };
        tokio::spawn(serve(session, receiver));
        Self(sender)
    }

    /// Runs one operation; `Ok` means that it is committed, and on the disk as `commit` says.
    pub(in crate::store) async fn run<T, F>(
        &self,
        what: &'static str,
        commit: Commit,
        operation: Arc<F>,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'t> Fn(&'t mut Tx) -> BoxFuture<'t, Result<T, StoreError>> + Send + Sync + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let operation = Box::new(Operation { run: operation, sender });
        let work = Work {
            what,
            operation,
            commit,
        };
        let closed = || StoreError::Closed { what };
        self.0.send(Message::Work(work)).await.map_err(|_| closed())?;
        receiver.await.map_err(|_| closed())?
    }

    /// Finishes what is queued and closes the connection.
    pub(in crate::store) async fn close(&self) {
        let (sender, receiver) = oneshot::channel();
        if self.0.send(Message::Close(sender)).await.is_ok() {
            let _ = receiver.await;
        }
    }
}

/// The writer's connection.
struct Session {
    tx: Tx,
    /// Whether its commits are synced; none when that is not known.
    synced: Option<bool>,
    /// Transactions since the journal was last moved into the database's file.
    since_tidy: u32,
}

impl Session {
    /// What is asked next; none when nobody can ask any more.
    async fn next(&mut self, queue: &mut mpsc::Receiver<Message>) -> Option<Message> {
        if self.since_tidy >= TIDY_AFTER {
            if let Ok(next) = tokio::time::timeout(QUIET, queue.recv()).await {
                return next;
            }
            self.since_tidy = 0;
            self.tx.what = "move the journal into the database";
            if let Err(error) = self.tx.execute("PRAGMA wal_checkpoint(PASSIVE)", &[]).await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the database's journal stays as long as it is"
                );
            }
        }
        queue.recv().await
    }

    /// Says whether the commits that follow are synced, which cannot be said inside a transaction.
    async fn set_synced(&mut self, synced: bool) -> Result<(), StoreError> {
        if self.synced == Some(synced) {
            return Ok(());
        }
        self.synced = None;
        let pragma = match synced {
            true => "PRAGMA synchronous = FULL",
            false => "PRAGMA synchronous = NORMAL",
        };
        self.tx.execute(pragma, &[]).await?;
        self.synced = Some(synced);
        Ok(())
    }

    /// Runs an operation that is a transaction by itself.
    async fn single(&mut self, work: Work) {
        (self.tx.what, self.tx.now) = (work.what, clock::now_ms());
        self.since_tidy += 1;
        match self.set_synced(true).await {
            Ok(()) => {
                let done = work.operation.run(&mut self.tx).await;
                (done.answer)(Ok(()));
            }
            Err(error) => work.operation.refuse(error),
        }
    }

    async fn begin(&mut self, what: &'static str, synced: bool) -> Result<(), StoreError> {
        self.tx.what = what;
        self.set_synced(synced).await?;
        self.tx.execute("BEGIN IMMEDIATE", &[]).await.map(drop)
    }

    /// Runs one batch, beginning with `work`.
    async fn batch(&mut self, queue: &mut mpsc::Receiver<Message>, work: Work) -> After {
        let began = Instant::now();
        let synced = work.commit.is_synced();
        self.since_tidy += 1;
        let mut after = After::default();
        let mut answers: Vec<Answer> = Vec::new();
        let mut broken = self.begin(work.what, synced).await.err();
        let mut next = Some(work);
        while let Some(work) = next.take() {
            match &broken {
                Some(error) => work.operation.refuse(error.clone()),
                None => match step(&mut self.tx, work, answers.is_empty()).await {
                    Ok(answer) => answers.extend(answer),
                    Err(error) => broken = Some(error),
                },
            }
            if answers.len() < BATCH && began.elapsed() < BATCH_TIME && broken.is_none() {
                match queue.try_recv() {
                    Ok(Message::Work(work)) if work.commit.is_synced() && !synced => after.work = Some(work),
                    Ok(Message::Work(work)) => next = Some(work),
                    Ok(Message::Close(sender)) => after.closing = Some(sender),
                    Err(_) => {}
                }
            }
        }
        let result = match broken {
            Some(error) => Err(error),
            None => self.tx.execute("COMMIT", &[]).await.map(drop),
        };
        if result.is_err() {
            // SQLite may have rolled back by itself, and then has nothing left to roll back.
            let _ = self.tx.execute("ROLLBACK", &[]).await;
        }
        for answer in answers {
            answer(result.clone());
        }
        after
    }
}

/// What a batch took from the queue and did not run: one or the other.
#[derive(Default)]
struct After {
    /// An operation that is to be synced, as the batch was not.
    work: Option<Work>,
    /// The request to close.
    closing: Option<oneshot::Sender<()>>,
}

async fn serve(mut session: Session, mut queue: mpsc::Receiver<Message>) {
    let mut after = After::default();
    while after.closing.is_none() {
        let message = match after.work.take() {
            Some(work) => Some(Message::Work(work)),
            None => session.next(&mut queue).await,
        };
        match message {
            Some(Message::Work(work)) if work.commit == Commit::SyncedSingle && queue.is_empty() => {
                session.single(work).await;
            }
            Some(Message::Work(work)) => after = session.batch(&mut queue, work).await,
            Some(Message::Close(sender)) => after.closing = Some(sender),
            None => break,
        }
    }
    queue.close();
    if let Link::Writer(connection) = session.tx.link
        && let Err(error) = connection.close().await
    {
        tracing::warn!(%error, "the database was not closed cleanly; its journal is replayed at the next start");
    }
    if let Some(sender) = after.closing {
        let _ = sender.send(());
    }
}

/// Runs one operation so that its failure undoes it and nothing else. The `first` of a transaction needs
/// no savepoint for that, which spares most operations two of five statements. An error means that the
/// whole transaction is lost.
async fn step(tx: &mut Tx, work: Work, first: bool) -> Result<Option<Answer>, StoreError> {
    tx.what = work.what;
    tx.now = clock::now_ms();
    if !first && let Err(error) = tx.execute("SAVEPOINT operation", &[]).await {
        work.operation.refuse(error.clone());
        return Err(error);
    }
    let done = work.operation.run(tx).await;
    if done.failed {
        // Its error is the answer, whatever becomes of the others.
        let (undo, go_on) = match first {
            true => ("ROLLBACK", "BEGIN IMMEDIATE"),
            false => ("ROLLBACK TO operation", "RELEASE operation"),
        };
        let undone = match tx.execute(undo, &[]).await {
            Ok(_) => tx.execute(go_on, &[]).await,
            Err(error) => Err(error),
        };
        (done.answer)(Ok(()));
        return undone.map(|_| None);
    }
    if first {
        return Ok(Some(done.answer));
    }
    match tx.execute("RELEASE operation", &[]).await {
        Ok(_) => Ok(Some(done.answer)),
        Err(error) => {
            (done.answer)(Err(error.clone()));
            Err(error)
        }
    }
}
