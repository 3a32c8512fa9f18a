//! Consoles, which have one reader, and kept machines, whose console a person may read.

use std::sync::PoisonError;

use super::Zones;
use crate::{
    files,
    machine::{
        Console,
        step_error::StepError,
        zone::{
            command::zoneadm::State,
            host::Ownership,
            life::{
                console::{self, Attached},
                record::ZoneRecord,
            },
        },
    },
    model::names::MachineName,
};

impl Zones {
    /// The way to a console that is read here.
    fn input(&self, name: &MachineName) -> Option<console::Input> {
        let consoles = self.consoles.lock().unwrap_or_else(PoisonError::into_inner);
        consoles
            .get(name)
            .filter(|console| console.lives())
            .map(Attached::input)
    }

    /// Reads a console unless somebody here does.
    pub(super) async fn read_console(&self, name: &MachineName) -> Result<console::Input, StepError> {
        let _one = self.attaching.lock(name).await;
        if let Some(input) = self.input(name) {
            return Ok(input);
        }
        let dir = self.console_dir(name);
        files::private_dir(&dir)?;
        let attached = console::record(name, &dir).await?;
        let input = attached.input();
        self.consoles
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name.clone(), attached);
        Ok(input)
    }

    /// Reads on at the console of a running machine that nobody reads since machined was restarted: the guest would
    /// wait for its reader, or its words would be lost.
    pub(super) async fn read_on(&self, name: &MachineName) {
        let ours = matches!(self.records.read(name), Ok(Some(record)) if record.started && !record.released);
        if !ours || self.input(name).is_some() {
            return;
        }
        if let Err(error) = self.read_console(name).await {
            tracing::warn!(machine = %name, reason = error.reason, "its console cannot be read now");
        }
    }

    pub(super) async fn leave_console(&self, name: &MachineName) {
        let _one = self.attaching.lock(name).await;
        let left = self
            .consoles
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(name);
        if let Some(attached) = left {
            attached.close().await;
        }
    }

    /// Reads again from a console that may be ours to read.
    pub(super) async fn recorded_console(&self, name: &MachineName, from: u64) -> Result<Console, StepError> {
        let Some(record) = self.records.read(name)? else {
            return Err(StepError::permanent("it does not exist"));
        };
        // Who follows a console asks often; the host is asked only when nobody here reads it.
        if !record.released && self.input(name).is_none() && self.runs(name).await? {
            self.read_console(name).await?;
        }
        Ok(crate::machine::console::read(&self.console_dir(name), from)?)
    }

    async fn runs(&self, name: &MachineName) -> Result<bool, StepError> {
        let zone = self.host.zone(name).await?;
        Ok(zone.is_some_and(|zone| zone.state == State::Running))
    }

    /// A machine's own record, when it is kept.
    fn kept(&self, name: &MachineName) -> Result<ZoneRecord, StepError> {
        let record = self.records.read(name)?.filter(|record| record.kept);
        record.ok_or_else(|| StepError::permanent("it is not kept"))
    }

    pub(super) async fn do_keep(&self, name: &MachineName) -> Result<(), StepError> {
        let Some(mut record) = self.records.read(name)?.filter(|record| record.started) else {
            return Err(StepError::permanent(
                "it was never started, or the host was rebooted since; nothing of it runs",
            ));
        };
        if !matches!(self.host.zone_ownership(name).await?, Ownership::Ours(_)) {
            return Err(StepError::permanent("its zone does not carry our owner tags"));
        }
        if !record.kept {
            // Said before it is done, so that nobody here connects to the console again.
            (record.kept, record.released) = (true, true);
            self.records.write(name, &record)?;
            self.leave_console(name).await;
        }
        let network = self.network(&record)?;
        let network = network.ok_or_else(|| StepError::permanent("its slot has no network"))?;
        let (disk, zonepath) = (self.below("machines", name)?, self.below("zones", name)?);
        self.removal(name, &disk, &zonepath, Some(&network))
            .cut_off(&network)
            .await
    }

    pub(super) async fn do_write(&self, name: &MachineName, bytes: &[u8]) -> Result<(), StepError> {
        crate::machine::console::check_input(bytes)?;
        let mut record = self.kept(name)?;
        if record.released {
            if !bytes.is_empty() {
                return Err(StepError::permanent("its console was released; take it again first"));
            }
            // zoneadmd may outlive the zone for a while, and would still take us for a reader.
            if !self.runs(name).await? {
                return Err(StepError::permanent(
                    "it does not run any more; nobody listens at its console",
                ));
            }
            record.released = false;
            self.records.write(name, &record)?;
            if let Err(error) = self.read_console(name).await {
                record.released = true;
                self.records.write(name, &record)?;
                return Err(error);
            }
            return Ok(());
        }
        let input = self.read_console(name).await?;
        Ok(console::type_into(&input, bytes).await?)
    }

    pub(super) async fn do_release(&self, name: &MachineName) -> Result<(), StepError> {
        let mut record = self.kept(name)?;
        record.released = true;
        self.records.write(name, &record)?;
        self.leave_console(name).await;
        Ok(())
    }
}
