//! The commands about the zone as a whole: `create`, `delete`, `export`, `revert`, `exit`, and what is written.

use std::{fs, io};

use super::{
    Config, file,
    index::{self, Entry},
    keywords::{Verb, ZONE_NAMES},
    load, messages,
    session::{Session, broken},
    xml,
};
use crate::{files, state::ZoneState};

impl Session<'_> {
    pub(super) fn create(&mut self, force: bool, template: &str) {
        if matches!(load(self.host, &self.name), Ok(Some(_))) {
            if self.is_installed() {
                let text = format!("Zone {} already installed; create not allowed.", self.name);
                return self.zerr(&text);
            }
            if !force {
                self.failed = true;
                self.zerr(
                    "Zone exists, input not from terminal and -F not specified:\ncreate command ignored, exiting.",
                );
                return self.abort();
            }
            self.out.stdout += &format!("Zone {} already exists; overwriting.\n", self.name);
        }
        let config = match Config::template(&self.name, template) {
            Some(config) => config,
            None => match load(self.host, template) {
                Ok(Some(other)) => Config {
                    name: self.name.clone(),
                    ..other
                },
                Ok(None) => return self.perror(template, messages::NO_ZONE),
                Err(_) => return self.perror(template, messages::INVALID_DOCUMENT),
            },
        };
        self.config = Some(config);
        (self.got_config, self.new_zone, self.changed) = (true, true, true);
    }

    /// Either half of a zone is enough for its removal, and only a whole one is removed without a complaint.
    pub(super) fn delete(&mut self, force: bool) {
        if !force {
            if self.initialize(true) {
                self.ignored(Verb::Delete);
            }
            return;
        }
        self.initialize(true);
        let path = file(self.host, &self.name);
        match self.state() {
            None if !path.exists() => self.zone_perror(messages::NO_ZONE),
            Some(state) if state > ZoneState::Installed => self.zone_perror(messages::BAD_ZONE_STATE),
            _ => {
                let removed = index::remove(self.host, &self.name).and_then(|()| files::remove(&path));
                if let Err(error) = removed {
                    self.error(&broken(&error));
                }
                self.host.state.debug_ids.remove(&self.name);
            }
        }
        self.changed = false;
        self.config = None;
        self.got_config = path.exists();
    }

    pub(super) fn exit(&mut self, force: bool) {
        if self.scope.is_none() || force {
            self.time_to_exit = true;
            return;
        }
        self.zerr(
            "Resource incomplete, input not from terminal and -F not specified:\n\
             exit command ignored, but exiting anyway.",
        );
        self.abort();
    }

    pub(super) fn export(&mut self, target: Option<&str>) {
        if !self.initialize(true) {
            return;
        }
        // The brand is asked of the stored zone, which a new one is not yet.
        let stored = load(self.host, &self.name).ok().flatten().map(|config| config.brand);
        let text = self.config.as_ref().map(|config| config.export(stored.as_deref()));
        let text = text.unwrap_or_default();
        match target {
            None => self.out.stdout += &text,
            Some(file) => {
                let path = self.host.given(file);
                if let Err(error) = fs::write(path, text) {
                    self.zerr(&format!("opening file {file}: {error}"));
                }
            }
        }
    }

    pub(super) fn revert(&mut self, force: bool) {
        if self.scope.is_some() {
            return self.error(
                "You can only use revert in the global scope.\n\
                 Use 'cancel' to cancel changes to a resource specification.",
            );
        }
        if self.config.is_none() {
            return self.error("No changes to revert.");
        }
        if !force {
            return self.ignored(Verb::Revert);
        }
        let name = self.stored_name.clone();
        self.config = load(self.host, &name).unwrap_or_default();
        self.new_zone = false;
        if self.config.is_none() {
            self.got_config = false;
            self.error(&format!("{name}: no such saved zone to revert to."));
        }
        self.name = name;
    }

    /// Renames the zone: a new one is only called otherwise, a stored one is moved by the commit.
    pub(super) fn rename(&mut self, name: &str) {
        if self.config.as_ref().is_some_and(|config| config.name == name) {
            self.changed = true;
            return;
        }
        let taken = name != self.stored_name && index::find(self.host, name).is_ok_and(|entry| entry.is_some());
        let why = if !super::is_zone_name(name) || name.starts_with("SUNW") {
            messages::BOGUS_ZONE_NAME
        } else if taken {
            messages::NAME_IN_USE
        } else if self.state().is_some_and(|state| state > ZoneState::Installed) {
            messages::BAD_ZONE_STATE
        } else {
            self.edit(|config| name.clone_into(&mut config.name));
            name.clone_into(&mut self.name);
            return;
        };
        self.perror(name, why);
        self.out.stderr += ZONE_NAMES;
    }

    /// Whether `set zonename` only changes which zone is meant: before there is one.
    pub(super) fn is_before_create(&mut self) -> bool {
        !self.got_config && self.state().is_none()
    }

    pub(super) fn save(&mut self, config: &Config) -> io::Result<()> {
        let (old, new) = (self.stored_name.clone(), config.name.clone());
        let renames = !self.new_zone && old != new;
        let known = index::find(self.host, if renames { &old } else { &new })?;
        let mut entry = known.unwrap_or(Entry {
            name: new.clone(),
            state: ZoneState::Configured,
            zonepath: String::new(),
            uuid: String::new(),
        });
        if self.new_zone {
            entry.state = ZoneState::Configured;
        }
        config.zonepath.clone_into(&mut entry.zonepath);
        files::replace(&file(self.host, &new), xml::write(config).as_bytes())?;
        if renames {
            entry.name.clone_from(&new);
            index::remove(self.host, &old)?;
            files::remove(&file(self.host, &old))?;
        }
        if new != "global" {
            index::put(self.host, entry)?;
        }
        self.stored_name = new;
        (self.new_zone, self.changed) = (false, false);
        Ok(())
    }
}
