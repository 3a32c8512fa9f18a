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
    /// It is one statement, which is a transaction by itself.
    single: bool,
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
        tokio::spawn(serve(tx, receiver));
        Self(sender)
    }

    /// Runs one operation; `Ok` means that it is on the disk. `single` says that it is one statement.
    pub(in crate::store) async fn run<T, F>(
        &self,
        what: &'static str,
        single: bool,
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
            single,
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

async fn serve(mut tx: Tx, mut queue: mpsc::Receiver<Message>) {
    let mut closing = None;
    while closing.is_none() {
        match queue.recv().await {
            Some(Message::Work(work)) if work.single && queue.is_empty() => {
                (tx.what, tx.now) = (work.what, clock::now_ms());
                let done = work.operation.run(&mut tx).await;
                (done.answer)(Ok(()));
            }
            Some(Message::Work(work)) => closing = batch(&mut tx, &mut queue, work).await,
            Some(Message::Close(sender)) => closing = Some(sender),
            None => break,
        }
    }
    queue.close();
    if let Link::Writer(connection) = tx.link
        && let Err(error) = connection.close().await
    {
        tracing::warn!(%error, "the database was not closed cleanly; its journal is replayed at the next start");
    }
    if let Some(sender) = closing {
        let _ = sender.send(());
    }
}

/// Runs one batch, beginning with `work`. Returns the request to close, when one was met.
async fn batch(tx: &mut Tx, queue: &mut mpsc::Receiver<Message>, work: Work) -> Option<oneshot::Sender<()>> {
    let began = Instant::now();
    let (mut next, mut closing) = (Some(work), None);
    let mut answers: Vec<Answer> = Vec::new();
    let mut broken = begin(tx, next.as_ref().map_or("write", |w| w.what)).await.err();
    while let Some(work) = next.take() {
        match &broken {
            Some(error) => work.operation.refuse(error.clone()),
            None => match step(tx, work, answers.is_empty()).await {
                Ok(answer) => answers.extend(answer),
                Err(error) => broken = Some(error),
            },
        }
        if answers.len() < BATCH && began.elapsed() < BATCH_TIME && broken.is_none() {
            match queue.try_recv() {
                Ok(Message::Work(work)) => next = Some(work),
                Ok(Message::Close(sender)) => closing = Some(sender),
                Err(_) => {}
            }
        }
    }
    let result = match broken {
        Some(error) => Err(error),
        None => tx.execute("COMMIT", &[]).await.map(drop),
    };
    if result.is_err() {
        // SQLite may have rolled back by itself, and then has nothing left to roll back.
        let _ = tx.execute("ROLLBACK", &[]).await;
    }
    for answer in answers {
        answer(result.clone());
    }
    closing
}

async fn begin(tx: &mut Tx, what: &'static str) -> Result<(), StoreError> {
    tx.what = what;
    tx.execute("BEGIN IMMEDIATE", &[]).await.map(drop)
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
