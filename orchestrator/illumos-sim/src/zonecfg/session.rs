//! One run of zonecfg over one zone: what each command does, what an error stops, what is committed.

use std::{fs, io};

use super::{
    Config, Resource, file,
    grammar::{self, Command},
    index::{self, Entry},
    lexer, load, xml,
};
use crate::{
    files,
    host::Host,
    out::{Out, Ran},
    state::ZoneState,
};

/// Where the commands come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The command line, or standard input: an error does not stop the rest.
    Words,
    /// A file: the first error ends it.
    File(String),
}

struct Session<'a> {
    host: &'a mut Host,
    name: String,
    config: Option<Config>,
    /// There is a configuration, and it cannot be read.
    damaged: bool,
    scope: Option<Resource>,
    /// What was selected, to be put back by a cancel.
    selected: Option<Resource>,
    changed: bool,
    failed: bool,
    out: Out,
}

/// What ends a run in every mode.
const EXISTS: &str = "Zone exists, input not from terminal and -F not specified:\ncreate command ignored, exiting.";

/// What a command says when it fails.
type Said = Result<(), String>;

fn broken(error: &io::Error) -> String {
    format!("I/O error of the simulator: {error}")
}

/// Runs a program over a zone.
///
/// # Errors
/// None that is not in the exit code: the type is that of all programs.
pub fn run(host: &mut Host, name: &str, text: &str, source: &Source) -> Ran {
    // Which zone it is decides the file; the index only says where the zone stands.
    let (config, damaged) = match load(host, name) {
        Ok(config) => (config, false),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => (None, true),
        Err(error) => return Err(Out::error(broken(&error))),
    };
    let mut session = Session {
        host,
        name: name.into(),
        config,
        damaged,
        scope: None,
        selected: None,
        changed: false,
        failed: false,
        out: Out::silent(),
    };
    for line in lexer::lines(text) {
        let ends = matches!(line.tokens.first(), Some(lexer::Token::Word(word)) if word == "exit");
        let said = match grammar::command(&line.tokens) {
            Ok(command) => session.act(command),
            Err(token) => Err(format!("syntax error at '{token}'\nusage: see zonecfg(8)")),
        };
        if let Err(text) = said {
            session.failed = true;
            if let Source::File(file) = source {
                session.out.stderr += &format!("On line {} of {file}:\n", line.number);
            }
            session.out.stderr += &format!("{text}\n");
            if *source != Source::Words || text == EXISTS {
                break;
            }
        }
        if ends {
            break;
        }
    }
    session.finish();
    Ok(session.out)
}

impl Session<'_> {
    fn state(&self) -> Result<Option<ZoneState>, String> {
        if let Some(zone) = self.host.state.zones.get(&self.name) {
            return Ok(Some(zone.state));
        }
        Ok(index::find(self.host, &self.name)
            .map_err(|error| broken(&error))?
            .map(|entry| entry.state))
    }

    fn config(&mut self) -> Result<&mut Config, String> {
        let why = if self.damaged {
            "Bad document property"
        } else {
            "No such zone configured"
        };
        let missing = format!("{}: {why}", self.name);
        self.config.as_mut().ok_or(missing)
    }

    fn act(&mut self, command: Command) -> Said {
        if let Some(resource) = &mut self.scope {
            match command {
                Command::Set(name, value) => return resource.set(&name, value, false),
                Command::AddValue(name, value) => return resource.set(&name, value, true),
                Command::Clear(name) => {
                    resource.values.retain(|(n, _)| *n != name);
                    return Ok(());
                }
                Command::End => {
                    let resource = resource.clone();
                    self.config()?.add(resource)?;
                    self.scope = None;
                    self.selected = None;
                    self.changed = true;
                    return Ok(());
                }
                Command::Cancel => {
                    self.scope = None;
                    if let (Some(resource), Some(config)) = (self.selected.take(), &mut self.config) {
                        config.resources.push(resource);
                    }
                    return Ok(());
                }
                Command::Info | Command::Exit => {}
                other => {
                    let verb = format!("{other:?}")
                        .split([' ', '(', '{'])
                        .next()
                        .unwrap_or_default()
                        .to_lowercase();
                    return Err(format!("{verb} command not allowed in resource scope"));
                }
            }
        }
        match command {
            Command::Create { force, template } => self.create(force, &template),
            Command::Delete(force) => self.delete(force),
            Command::Set(name, _) if self.host.faults.zonecfg_lacks.as_deref() == Some(&name) => {
                Err(format!("unknown property {name}"))
            }
            Command::Set(name, value) => {
                let installed = self.state()?.is_some_and(|state| state >= ZoneState::Incomplete);
                self.config()?.set(&name, value, installed)?;
                self.changed = true;
                Ok(())
            }
            Command::Clear(name) => {
                self.config()?.clear(&name)?;
                self.changed = true;
                Ok(())
            }
            Command::Add(kind) => {
                self.config()?;
                self.scope = Some(Resource::new(&kind));
                Ok(())
            }
            Command::AddValue(name, _) => Err(format!("add {name} command only valid in resource scope")),
            Command::Select(kind, filter) => {
                let config = self.config()?;
                let found: Vec<usize> = (0..config.resources.len())
                    .filter(|at| config.resources[*at].kind == kind && config.resources[*at].fits(&filter))
                    .collect();
                let [at] = found.as_slice() else {
                    return Err(format!("No such {kind} resource."));
                };
                let resource = config.resources.remove(*at);
                self.scope = Some(resource.clone());
                self.selected = Some(resource);
                Ok(())
            }
            Command::Remove { force, kind, filter } => self.remove(force, &kind, &filter),
            Command::End | Command::Cancel => Err("end and cancel commands only valid in resource scope".into()),
            Command::Verify => self.config()?.verify(),
            Command::Commit => self.commit(),
            Command::Revert => {
                self.config = load(self.host, &self.name).map_err(|error| broken(&error))?;
                self.changed = false;
                Ok(())
            }
            Command::Exit => Ok(()),
            Command::Info => {
                let config = self.config()?;
                let text = format!(
                    "zonename: {}\nzonepath: {}\nbrand: {}\nautoboot: {}\nip-type: {}\n",
                    config.name, config.zonepath, config.brand, config.autoboot, config.ip_type
                );
                self.out.stdout += &text;
                Ok(())
            }
            Command::Export(target) => {
                let text = self.config()?.export();
                match target {
                    None => self.out.stdout += &text,
                    Some(file) => fs::write(self.host.given(&file), text).map_err(|error| broken(&error))?,
                }
                Ok(())
            }
        }
    }

    fn create(&mut self, force: bool, template: &str) -> Said {
        match self.state()? {
            Some(state) if state > ZoneState::Configured => {
                return Err(format!("Zone {} already installed; create not allowed.", self.name));
            }
            Some(_) if !force => {
                return Err(EXISTS.into());
            }
            _ => {}
        }
        let config = match Config::template(&self.name, template) {
            Some(config) => config,
            None => {
                let other = load(self.host, template).map_err(|error| broken(&error))?;
                let other = other.ok_or_else(|| format!("{template}: No such zone configured"))?;
                Config {
                    name: self.name.clone(),
                    zonepath: String::new(),
                    ..other
                }
            }
        };
        self.config = Some(config);
        self.changed = true;
        Ok(())
    }

    fn delete(&mut self, force: bool) -> Said {
        let name = &self.name;
        match self.state()? {
            // Either half of a zone is enough for its removal.
            None if !file(self.host, name).exists() => return Err(format!("{name}: No such zone configured")),
            None => {}
            Some(state) if state > ZoneState::Installed => {
                return Err(format!("{name}: Zone state is invalid for the requested operation"));
            }
            Some(state) if state > ZoneState::Configured && !force => {
                return Err(format!(
                    "Zone {name} not in configured state; delete not allowed.  Use -F to force delete."
                ));
            }
            Some(_) if !force => {
                return Err("Input not from terminal and -F not specified: delete not done.".into());
            }
            Some(_) => {}
        }
        index::remove(self.host, name).map_err(|error| broken(&error))?;
        files::remove(&file(self.host, name)).map_err(|error| broken(&error))?;
        self.host.state.debug_ids.remove(name);
        self.config = None;
        self.changed = false;
        Ok(())
    }

    fn remove(&mut self, force: bool, kind: &str, filter: &[(String, super::Value)]) -> Said {
        let config = self.config()?;
        let doomed = |resource: &Resource| resource.kind == kind && resource.fits(filter);
        match config.resources.iter().filter(|resource| doomed(resource)).count() {
            0 if force && filter.is_empty() => return Ok(()),
            0 => return Err(format!("No such {kind} resource.")),
            1 => {}
            _ if force => {}
            _ => {
                return Err(format!(
                    "Input not from terminal and -F not specified: {kind} resources not removed."
                ));
            }
        }
        config.resources.retain(|resource| !doomed(resource));
        self.changed = true;
        Ok(())
    }

    fn commit(&mut self) -> Said {
        let config = self.config()?.clone();
        config.verify()?;
        let known = index::find(self.host, &self.name).map_err(|error| broken(&error))?;
        let entry = match known {
            Some(entry) => Entry {
                zonepath: config.zonepath.clone(),
                ..entry
            },
            None => Entry {
                name: self.name.clone(),
                state: ZoneState::Configured,
                zonepath: config.zonepath.clone(),
                uuid: String::new(),
            },
        };
        files::replace(&file(self.host, &self.name), xml::write(&config).as_bytes()).map_err(|error| broken(&error))?;
        index::put(self.host, entry).map_err(|error| broken(&error))?;
        self.changed = false;
        Ok(())
    }

    /// The end of the input: a resource without its end is dropped, what was changed is committed.
    fn finish(&mut self) {
        if self.scope.take().is_some() {
            if let (Some(resource), Some(config)) = (self.selected.take(), &mut self.config) {
                config.resources.push(resource);
            }
            self.out.stderr += "resource specification incomplete\nResource incomplete.\n";
            self.failed = true;
        }
        let keeps = !(self.failed && self.host.faults.zonecfg_commits_nothing_on_error);
        if self.changed
            && keeps
            && let Err(text) = self.commit()
        {
            self.out.stderr += &format!("{text}\n");
            self.failed = true;
        }
        self.out.code = i32::from(self.failed);
    }
}
