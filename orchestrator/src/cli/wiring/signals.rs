//! What the service manager says to a program that serves: end, or read your configuration again.

use std::{io, sync::Arc};

use miette::miette;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::Notify,
};
use tokio_util::sync::CancellationToken;

/// From now on SIGTERM and SIGINT cancel `end`, and SIGHUP wakes whoever waits for the returned; one that comes
/// while nobody waits is kept.
pub(in crate::cli) fn watch(end: &CancellationToken) -> miette::Result<Arc<Notify>> {
    let failed = |e: io::Error| miette!("cannot wait for signals: {e}");
    let (mut terminate, mut interrupt, mut hangup) = (
        signal(SignalKind::terminate()).map_err(failed)?,
        signal(SignalKind::interrupt()).map_err(failed)?,
        signal(SignalKind::hangup()).map_err(failed)?,
    );
    let (end, reload) = (end.clone(), Arc::new(Notify::new()));
    let notifier = Arc::clone(&reload);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => end.cancel(),
                _ = interrupt.recv() => end.cancel(),
                _ = hangup.recv() => notifier.notify_one(),
            }
        }
    });
    Ok(reload)
}
