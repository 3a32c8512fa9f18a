//! A back end whose machines are removed only when they had time to turn themselves off, and that remembers whether
//! they did.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;

use crate::{
    machine::{Console, Endpoints, MachineError, MachineSpec, Machines, Observed, OwnedMachine},
    model::names::MachineName,
};

/// How long a guest may take; an emulated one with systemd takes half a minute.
const STOP_WITHIN: Duration = Duration::from_secs(90);

/// How a guest went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Gone {
    /// By itself, after so long.
    ByItself(Duration),
    /// It did not, in this time.
    NotWithin(Duration),
}

/// The back end.
#[derive(Debug)]
pub(super) struct Patient {
    inner: Arc<dyn Machines>,
    gone: Mutex<Option<Gone>>,
    /// The node's other machines are jobs': whoever sweeps by this back end's list must not find them.
    made: Mutex<HashSet<MachineName>>,
}

impl Patient {
    pub(super) fn new(inner: Arc<dyn Machines>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            gone: Mutex::default(),
            made: Mutex::default(),
        })
    }

    /// How the first machine went that was removed while it ran.
    pub(super) fn gone(&self) -> Option<Gone> {
        self.gone.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[async_trait]
impl Machines for Patient {
    fn backend(&self) -> &'static str {
        self.inner.backend()
    }

    async fn prepare(&self, spec: &MachineSpec) -> Result<Endpoints, MachineError> {
        self.made
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(spec.name.clone());
        self.inner.prepare(spec).await
    }

    async fn endpoints(&self, name: &MachineName) -> Result<Option<Endpoints>, MachineError> {
        self.inner.endpoints(name).await
    }

    async fn start(&self, name: &MachineName) -> Result<(), MachineError> {
        self.inner.start(name).await
    }

    async fn console(&self, name: &MachineName, from: u64) -> Result<Console, MachineError> {
        self.inner.console(name, from).await
    }

    async fn write_console(&self, name: &MachineName, bytes: &[u8]) -> Result<(), MachineError> {
        self.inner.write_console(name, bytes).await
    }

    async fn release_console(&self, name: &MachineName) -> Result<(), MachineError> {
        self.inner.release_console(name).await
    }

    async fn keep(&self, name: &MachineName) -> Result<(), MachineError> {
        self.inner.keep(name).await
    }

    async fn stop(&self, name: &MachineName, grace: Duration) -> Result<(), MachineError> {
        self.inner.stop(name, grace).await
    }

    async fn destroy(&self, name: &MachineName) -> Result<(), MachineError> {
        if self.gone().is_none()
            && matches!(
                self.inner.observe(name).await,
                Ok(Observed::Running | Observed::Stopped(_))
            )
        {
            let began = Instant::now();
            let stopped = tokio::time::timeout(STOP_WITHIN, self.inner.wait_stopped(name)).await;
            let gone = match stopped {
                Ok(Ok(_)) => Gone::ByItself(began.elapsed()),
                Ok(Err(error)) => return Err(error),
                Err(_) => Gone::NotWithin(STOP_WITHIN),
            };
            *self.gone.lock().unwrap_or_else(PoisonError::into_inner) = Some(gone);
        }
        self.inner.destroy(name).await
    }

    async fn observe(&self, name: &MachineName) -> Result<Observed, MachineError> {
        self.inner.observe(name).await
    }

    async fn list(&self) -> Result<Vec<OwnedMachine>, MachineError> {
        let mut found = self.inner.list().await?;
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        found.retain(|machine| made.contains(&machine.name));
        Ok(found)
    }

    async fn findings(&self) -> Result<Vec<String>, MachineError> {
        self.inner.findings().await
    }

    async fn wait_stopped(&self, name: &MachineName) -> Result<Observed, MachineError> {
        self.inner.wait_stopped(name).await
    }
}
