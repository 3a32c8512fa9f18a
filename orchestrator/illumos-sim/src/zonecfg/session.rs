//! One run of zonecfg over one zone: what an error stops, what is left committed.
//!
//! Three flags decide: whether anything changed, whether an error was seen, and whether a resource is open. A file
//! ends at its first error and still commits what changed, if it verifies; an open resource does not. Some refusals
//! are printed and not counted as errors: the file goes on after them.

use std::io;

use super::{
    Config, Resource, brand_exists,
    grammar::{Command, Parser, Step},
    index,
    keywords::{self, Verb},
    load, messages,
};
use crate::{
    host::Host,
    out::{Out, Ran, options},
    state::ZoneState,
};

/// Where the commands come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The command line: neither an error nor `exit` stops the rest.
    Words,
    /// Standard input: an error does not stop the rest.
    Input,
    /// A file: the first error ends it.
    File(String),
}

/// The resource that is open.
#[derive(Debug)]
pub(super) struct Scope {
    pub(super) kind: &'static str,
    pub(super) resource: Resource,
    /// What was selected; none of an addition.
    pub(super) old: Option<Resource>,
}

pub(super) struct Session<'a> {
    pub(super) host: &'a mut Host,
    pub(super) source: &'a Source,
    /// The zone's name; `set zonename` changes it.
    pub(super) name: String,
    /// What it was last committed as.
    pub(super) stored_name: String,
    pub(super) config: Option<Config>,
    /// There was a configuration in this run.
    pub(super) got_config: bool,
    /// The configuration was created in this run and not committed since.
    pub(super) new_zone: bool,
    pub(super) scope: Option<Scope>,
    pub(super) changed: bool,
    pub(super) failed: bool,
    pub(super) time_to_exit: bool,
    /// The program ended in the midst: nothing more is committed.
    aborted: bool,
    /// `set` silences getopt(3C) for good.
    pub(super) getopt_silent: bool,
    /// The line read up to, and the last one that a message named.
    line: usize,
    named_line: usize,
    pub(super) out: Out,
}

pub(super) fn broken(error: &io::Error) -> String {
    format!("I/O error of the simulator: {error}")
}

/// Runs a program over a zone.
///
/// # Errors
/// None that is not in the exit code: the type is that of all programs.
pub fn run(host: &mut Host, name: &str, text: &str, source: &Source) -> Ran {
    let lacks = host.faults.zonecfg_lacks.clone();
    let mut session = Session {
        host,
        source,
        name: name.into(),
        stored_name: name.into(),
        config: None,
        got_config: false,
        new_zone: false,
        scope: None,
        changed: false,
        failed: false,
        time_to_exit: false,
        aborted: false,
        getopt_silent: false,
        line: 1,
        named_line: 0,
        out: Out::silent(),
    };
    if *source == Source::Input {
        session.initialize(false);
    }
    let mut parser = Parser::new(text, lacks.as_deref());
    loop {
        let step = parser.step();
        session.line = parser.line();
        match step {
            Step::End => break,
            Step::Empty => {}
            Step::Run(command) => session.act(command),
            Step::Unexpected(text) => {
                session.unexpected(&text);
                parser.skip();
            }
            Step::Usage(verb) => {
                session.short_usage(verb);
                session.out.stderr += &format!("\n{}", keywords::resources());
                parser.skip();
            }
        }
        session.time_to_exit |= session.failed && matches!(source, Source::File(_));
        if session.aborted || session.time_to_exit && *source != Source::Words {
            break;
        }
    }
    session.finish();
    Ok(session.out)
}

impl Session<'_> {
    /// One message; the first of a line of a file names the line.
    pub(super) fn zerr(&mut self, text: &str) {
        if let Source::File(file) = self.source
            && self.line > self.named_line
        {
            self.out.stderr += &format!("On line {} of {file}:\n", self.line - 1);
            self.named_line = self.line;
        }
        self.out.stderr += &format!("{text}\n");
    }

    /// One message that counts as an error.
    pub(super) fn error(&mut self, text: &str) {
        self.zerr(text);
        self.failed = true;
    }

    /// An error of the library, about something.
    pub(super) fn perror(&mut self, about: &str, text: &str) {
        self.error(&format!("{about}: {text}"));
    }

    /// An error of the library about the zone itself.
    pub(super) fn zone_perror(&mut self, text: &str) {
        let name = self.name.clone();
        self.perror(&name, text);
    }

    fn unexpected(&mut self, text: &str) {
        self.failed = true;
        let place = match self.source {
            Source::File(_) => format!(" on line {}", self.line),
            _ => String::new(),
        };
        self.out.stderr += &format!("syntax error{place} at '{text}'\n{}", keywords::commands());
    }

    /// For a verb with words that it does not take.
    pub(super) fn short_usage(&mut self, verb: Verb) {
        self.failed = true;
        if let Source::File(file) = self.source {
            self.out.stderr += &format!("syntax error on line {} of {file}\n", self.line - 1);
        }
        self.long_usage(verb);
    }

    /// For a verb whose meaning does not fit.
    pub(super) fn long_usage(&mut self, verb: Verb) {
        self.failed = true;
        self.out.stderr += &format!("usage:\n{}\n", verb.usage());
    }

    /// The end of the program in the midst of it.
    pub(super) fn abort(&mut self) {
        self.failed = true;
        self.aborted = true;
    }

    /// What would be asked at a terminal, where there is none.
    pub(super) fn ignored(&mut self, verb: Verb) {
        self.zerr(&format!(
            "Input not from terminal and -F not specified:\n{} command ignored, exiting.",
            verb.word()
        ));
        self.abort();
    }

    pub(super) fn is_global_zone(&self) -> bool {
        self.name == "global"
    }

    pub(super) fn state(&mut self) -> Option<ZoneState> {
        if let Some(zone) = self.host.state.zones.get(&self.name) {
            return Some(zone.state);
        }
        match index::find(self.host, &self.name) {
            Ok(entry) => entry.map(|entry| entry.state),
            Err(error) => {
                self.error(&broken(&error));
                None
            }
        }
    }

    pub(super) fn is_installed(&mut self) -> bool {
        self.state().is_some_and(|state| state >= ZoneState::Installed)
    }

    /// Has the stored configuration read, if none is open; whether there is one.
    pub(super) fn initialize(&mut self, expected: bool) -> bool {
        if self.config.is_some() {
            return true;
        }
        let why = match load(self.host, &self.name) {
            Ok(Some(config)) if brand_exists(self.host, &config.brand) => {
                self.config = Some(config);
                self.got_config = true;
                return true;
            }
            Ok(Some(config)) => {
                let (name, brand) = (&config.name, &config.brand);
                self.zerr(&format!(
                    "Zone {name} uses non-existent brand \"{brand}\".  Unable to continue"
                ));
                self.abort();
                return false;
            }
            Ok(None) if self.is_global_zone() && !self.got_config => {
                self.config = Config::template(&self.name, "SUNWblank");
                (self.got_config, self.new_zone, self.changed) = (true, true, true);
                return true;
            }
            Ok(None) => messages::NO_ZONE.to_owned(),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => messages::INVALID_DOCUMENT.to_owned(),
            Err(error) => broken(&error),
        };
        let text = format!("{}: {why}", self.name);
        self.zerr(&text);
        self.failed |= expected || self.got_config;
        false
    }

    /// The open configuration, for a change: what calls it has initialized it.
    pub(super) fn edit(&mut self, change: impl FnOnce(&mut Config)) {
        if let Some(config) = &mut self.config {
            change(config);
            self.changed = true;
        }
    }

    /// Runs a verb with its words: those it does not know are printed and forgiven, operands are not.
    fn plain(&mut self, verb: Verb, args: &[String]) {
        let spec = match verb {
            Verb::Create => "a:bFt:",
            Verb::Delete | Verb::Exit | Verb::Revert => "F",
            Verb::Export => "f:",
            _ => "",
        };
        if verb == Verb::Help {
            match keywords::help(args.first().map(String::as_str)) {
                Ok(text) => self.out.stdout += &text,
                Err(text) => self.out.stderr += &text,
            }
            return;
        }
        let given = match options(args, spec) {
            Ok(given) => given,
            Err(why) => {
                let letter = why.split('\'').nth(1).unwrap_or_default();
                let problem = match why.starts_with("missing") {
                    true => "option requires an argument",
                    false => "illegal option",
                };
                if !self.getopt_silent && letter != "?" {
                    self.out.stderr += &format!("zonecfg: {problem} -- {letter}\n");
                }
                match verb {
                    Verb::Create | Verb::Export if letter != "?" => self.short_usage(verb),
                    _ => self.out.stdout += &format!("usage:\n{}\n", verb.usage()),
                }
                return;
            }
        };
        if !given.rest.is_empty() && verb != Verb::Verify {
            return self.short_usage(verb);
        }
        let force = given.has('F');
        match verb {
            Verb::Create => {
                let last = |wanted: &dyn Fn(&str) -> bool| args.iter().rposition(|word| wanted(word));
                let is_blank = |word: &str| word.starts_with('-') && !word.starts_with("-t") && word.contains('b');
                let template = match given.value('t') {
                    _ if last(&is_blank) > last(&|word| word.starts_with("-t")) => "SUNWblank".to_owned(),
                    Some(name) if name.starts_with(|c: char| c.is_ascii_uppercase()) => name.to_owned(),
                    Some(name) => format!("OMNI{name}"),
                    None => "SUNWdefault".to_owned(),
                };
                if given.has('a') {
                    // No zone that could be attached is simulated.
                    self.out.stderr += "invalid path to detached zone\n";
                } else {
                    self.create(force, &template);
                }
            }
            Verb::Delete => self.delete(force),
            Verb::Exit => self.exit(force),
            Verb::Export => self.export(given.value('f')),
            Verb::Revert => self.revert(force),
            Verb::Verify => self.verify(given.rest == ["save"]),
            Verb::Commit => self.verify(true),
            Verb::End => self.end(),
            Verb::Cancel => self.cancel(),
            _ => {}
        }
    }

    fn act(&mut self, command: Command) {
        let changes_nothing = match &command {
            Command::Info(..) => true,
            Command::Plain(verb, _) => {
                matches!(verb, Verb::End | Verb::Cancel | Verb::Exit | Verb::Export | Verb::Help)
            }
            _ => false,
        };
        if self.name.starts_with("SUNW") && !changes_nothing {
            let text = format!("{}: zones beginning with SUNW are read-only.", self.name);
            return self.error(&text);
        }
        match command {
            Command::Plain(verb, words) => self.plain(verb, &words),
            Command::Add(kind) => self.add(kind),
            Command::AddValue(name, value) => self.add_value(name, value),
            Command::Set(word, name, value) => self.set(word.as_deref(), name, value),
            Command::Clear(name) => self.clear(name),
            Command::Select(kind, pairs) => self.select(kind, &pairs),
            Command::Remove(word, kind, pairs) => self.remove(word.as_deref(), kind, &pairs),
            Command::RemoveValue(name, value) => self.remove_value(name, value),
            Command::Info(what, pairs) => self.info(what, &pairs),
        }
    }

    /// The end of the input: what was changed is committed, unless a resource is left open.
    fn finish(&mut self) {
        self.out.code = 1;
        if self.aborted {
            return;
        }
        if self.scope.is_some() {
            self.failed = true;
            if !self.time_to_exit {
                return self.zerr("Resource incomplete.");
            }
        }
        let keeps = !(self.failed && self.host.faults.zonecfg_commits_nothing_on_error);
        if self.changed && keeps && self.config.is_some() {
            self.verify(true);
            if self.changed {
                return self.zerr("Configuration not saved.");
            }
        }
        self.out.code = i32::from(self.failed || self.changed);
    }
}
