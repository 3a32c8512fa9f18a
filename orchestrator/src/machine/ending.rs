//! Why a machine ended, chosen by what is known and not by what was said last: a program's last words
//! are as often its first, and name paths of the host. From the surest on:
//!
//! 1. the guest's kernel panicked, or killed for want of memory
//! 2. the guest's agent ended, and said why
//! 3. the program that runs the machine complained
//!
//! What a guest says is its own word: bounded, and freed of control sequences. No host path is left in
//! anything, for public pages show it.

use std::{
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

use anstyle_parse::{DefaultCharAccumulator, Parser, Perform};

use super::console;

use crate::foreign_text::one_line;

/// The longest line of a guest or a program that is shown, in characters.
pub const LINE: usize = 300;
/// The longest cause of an end, in characters.
pub const CAUSE: usize = 1000;
/// How much of the end of a console or a program's output is read, in bytes.
pub(crate) const END: u64 = 64 * 1024;

/// How a guest's kernel begins to say that it gives up.
const PANICS: [&str; 3] = ["Kernel panic - not syncing", "panic[cpu", "kernel BUG at "];
/// What it says when it kills for want of memory.
const NO_MEMORY: [&str; 4] = [
    "Out of memory: ",
    "Out of memory and no killable processes",
    "Memory cgroup out of memory: ",
    "no swap space to grow stack",
];
/// What the guest's start script says last.
const AGENT_ENDED: &str = "the agent ended with status ";
const AGENT: &str = "helios-agent: ";
/// What the agent says before it ends; its other lines are about what it overcame.
const AGENT_ENDS: [&str; 7] = [
    "the node refuses this agent",
    "output that the node has not acknowledged is lost",
    "this agent cannot connect to any node",
    "cannot start",
    "cannot make ",
    "cannot read ",
    "it must not be process 1",
];
/// Words of a complaint; what a program says of its start has none of them.
const COMPLAINTS: [&str; 20] = [
    "error",
    "fail",
    "cannot",
    "can't",
    "could not",
    "couldn't",
    "unable",
    "invalid",
    "unknown",
    "no such",
    "not found",
    "not supported",
    "denied",
    "abort",
    "assert",
    "panic",
    "fatal",
    "terminating on signal",
    "out of memory",
    "no space",
];

/// What a machine's end is known by, in words for everybody.
pub(crate) struct Ending<'a> {
    /// How it was seen to end.
    pub(crate) how: &'a str,
    /// That is a reason by itself: an exit status, or somebody's wish.
    pub(crate) is_reason: bool,
    /// The end of what the guest said on its console.
    pub(crate) console: &'a [u8],
    /// The end of what the program said that runs the machine.
    pub(crate) program: &'a [u8],
}

impl Ending<'_> {
    /// One line: how it ended, and the surest known reason.
    pub(crate) fn explain(&self) -> String {
        let how = public(self.how, CAUSE);
        match said_by_guest(self.console).or_else(|| said_by_program(self.program)) {
            Some(reason) => format!("{how}; {reason}"),
            None if self.is_reason => how,
            None => format!("{how}; no reason is known"),
        }
    }
}

/// What a guest's console tells of its end: its kernel's own word, or its agent's.
#[must_use]
pub fn said_by_guest(console: &[u8]) -> Option<String> {
    let lines = lines(console);
    let last = |signs: &[&str]| {
        lines.iter().rev().find_map(|line| {
            let at = signs.iter().filter_map(|sign| line.find(sign)).min()?;
            // What stands before is the time.
            Some(line[at..].to_owned())
        })
    };
    if let Some(line) = last(&PANICS).or_else(|| last(&NO_MEMORY)) {
        return Some(format!("its kernel said: {}", public(&line, LINE)));
    }
    let status = lines.iter().rposition(|line| line.contains(AGENT_ENDED));
    let agent = |line: &String| {
        let word = line.split_once(AGENT)?.1;
        AGENT_ENDS
            .iter()
            .any(|end| word.starts_with(end))
            .then(|| word.to_owned())
    };
    if let Some(word) = lines[..status.unwrap_or(lines.len())].iter().rev().find_map(agent) {
        return Some(format!("its agent said: {}", public(&word, LINE)));
    }
    let status = lines[status?].split_once(AGENT_ENDED)?.1;
    // systemd says in which way it ended, too: `exited/4`, `dumped/SEGV`.
    let status = status.split_whitespace().next()?;
    let status = status.strip_prefix("exited/").unwrap_or(status);
    // 0 is how it ends when everything is in order.
    (status != "0").then(|| format!("its agent ended with status {}", public(status, LINE)))
}

/// The last complaint of the program that runs a machine; what it said of its start is none.
pub(crate) fn said_by_program(output: &[u8]) -> Option<String> {
    let lines = lines(output);
    let complaint = lines.iter().rev().find(|line| {
        let line = line.to_lowercase();
        !line.contains("info: ") && !line.contains("warning: ") && COMPLAINTS.iter().any(|word| line.contains(word))
    })?;
    Some(format!("it said: {}", public(complaint, LINE)))
}

/// Text as everybody may see it: one line of at most `most` characters, without control characters, and of
/// each path its last part alone.
#[must_use]
pub fn public(text: &str, most: usize) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(is_of_path) {
        let (before, word) = rest.split_at(at);
        let (word, behind) = word.split_at(word.find(|c| !is_of_path(c)).unwrap_or(word.len()));
        out.push_str(before);
        let name = word.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        // One slash alone may be an "or", or part of a kernel's address.
        let begins = word.starts_with('/') && !before.ends_with(']');
        let is_path = word.matches('/').count() > 1 || (begins && word.len() > 1);
        out.push_str(if is_path { name } else { word });
        rest = behind;
    }
    out.push_str(rest);
    // The mark of a cut comes on top.
    one_line(&out, most + 1)
}

fn is_of_path(c: char) -> bool {
    c.is_alphanumeric() || "/._-+@~%".contains(c)
}

/// The lines of an output as a terminal would leave them, those that are empty left out.
#[must_use]
pub fn lines(output: &[u8]) -> Vec<String> {
    let lines = output.split(|byte| *byte == b'\n').map(|line| {
        let mut text = Printed::default();
        let mut parser = Parser::<DefaultCharAccumulator>::new();
        for byte in String::from_utf8_lossy(line).bytes() {
            parser.advance(&mut text, byte);
        }
        text.text.trim().to_owned()
    });
    lines.filter(|line| !line.is_empty()).collect()
}

/// What is printed of a line: control sequences are dropped, and what a carriage return puts something over.
#[derive(Default)]
struct Printed {
    text: String,
    returned: bool,
}

impl Perform for Printed {
    fn print(&mut self, c: char) {
        if std::mem::take(&mut self.returned) {
            self.text.clear();
        }
        if !c.is_control() {
            self.text.push(c);
        }
    }

    fn execute(&mut self, byte: u8) {
        match byte {
            b'\r' => self.returned = true,
            b'\t' => self.print(' '),
            _ => {}
        }
    }
}

/// The end of a file; empty when there is none.
pub(crate) fn end_of(file: &Path) -> Vec<u8> {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = std::fs::File::open(file)?;
        let skip = file.metadata()?.len().saturating_sub(END);
        file.seek(SeekFrom::Start(skip))?;
        let mut bytes = Vec::new();
        file.take(END).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().unwrap_or_default()
}

/// The end of a recorded console; empty when there is none.
pub(crate) fn end_of_console(dir: &Path) -> Vec<u8> {
    let (mut end, mut from) = (Vec::new(), 0);
    while let Ok(part) = console::read(dir, from) {
        if part.bytes.is_empty() {
            break;
        }
        from = part.next;
        end.extend(part.bytes);
        end.drain(..end.len().saturating_sub(usize::try_from(END).unwrap_or(usize::MAX)));
    }
    end
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// How QEMU begins, as it does on every start.
    const START: &str = "qemu-system-x86_64: -chardev socket,id=console,path=/srv/ci/machines/hci-1/console.sock,server=on,wait=on: info: QEMU waiting for connection on: disconnected:unix:/srv/ci/machines/hci-1/console.sock,server=on\n";
    const BOOT: &str = "[    0.000000] Linux version 6.1.0\r\n\x1b[0;32m  OK  \x1b[0m Started the network\r\nhelios-ci: starting the agent\r\n";

    fn explained(how: &str, is_reason: bool, console: &str, program: &str) -> String {
        let ending = Ending {
            how,
            is_reason,
            console: console.as_bytes(),
            program: program.as_bytes(),
        };
        ending.explain()
    }

    #[test]
    fn the_surest_reason_is_told() {
        let panic = "[   12.345678] Kernel panic - not syncing: Attempted to kill init! exitcode=0x0000000b\r\n[   12.4] CPU: 0 PID: 1\r\n";
        let memory = "[    9.1] Out of memory: Killed process 77 (helios-agent) total-vm:12kB\r\n";
        let agent = "helios-agent: no connection to the node: refused; trying again\r\nhelios-agent: the node refuses this agent: unknown\r\n";
        let ended = "helios-ci: the agent ended with status 3\r\n";
        let complaint = "qemu-system-x86_64: terminating on signal 15 from pid 1 (/sbin/init)\n";
        let program = format!("{START}{complaint}");
        for (console, reason) in [
            (
                format!("{BOOT}{memory}{agent}{ended}{panic}"),
                "its kernel said: Kernel panic - not syncing: Attempted to kill init! exitcode=0x0000000b",
            ),
            (
                format!("{BOOT}{memory}{agent}{ended}"),
                "its kernel said: Out of memory: Killed process 77 (helios-agent) total-vm:12kB",
            ),
            (
                format!("{BOOT}{agent}{ended}"),
                "its agent said: the node refuses this agent: unknown",
            ),
            (format!("{BOOT}{ended}"), "its agent ended with status 3"),
            (
                BOOT.to_owned(),
                "it said: qemu-system-x86_64: terminating on signal 15 from pid 1 (init)",
            ),
            (
                format!("{BOOT}helios-ci: the agent ended with status 0\n"),
                "it said: qemu-system-x86_64: terminating on signal 15 from pid 1 (init)",
            ),
            (
                "\r\npanic[cpu1]/thread=fffffe000f: BAD TRAP: type=e\r\n\r\nfffffe000f unix:die+105 ()\r\n".to_owned(),
                "its kernel said: panic[cpu1]/thread=fffffe000f: BAD TRAP: type=e",
            ),
        ] {
            assert_eq!(
                explained("it ended", false, &console, &program),
                format!("it ended; {reason}")
            );
        }
    }

    #[test]
    fn a_start_is_no_reason() {
        assert_eq!(
            explained("it ended", false, BOOT, START),
            "it ended; no reason is known"
        );
        assert_eq!(
            explained("it was told to stop", true, BOOT, START),
            "it was told to stop"
        );
        assert_eq!(
            explained(
                "it ended",
                false,
                "",
                &format!(
                    "{START}qemu-system-x86_64: -m 9T: cannot set up guest memory 'pc.ram': Cannot allocate memory\n{START}"
                )
            ),
            "it ended; it said: qemu-system-x86_64: -m 9T: cannot set up guest memory 'pc.ram': Cannot allocate memory"
        );
    }

    #[test]
    fn of_paths_only_names_are_left() {
        for (text, told) in [
            (
                "cannot open /var/lib/hci/machines/x/overlay.qcow2: No space",
                "cannot open overlay.qcow2: No space",
            ),
            (
                "file='/a/b c',path=/a/b,unix:/c/d.sock",
                "file='b c',path=b,unix:d.sock",
            ),
            ("I/O error and/or 1/2", "I/O error and/or 1/2"),
            ("exit (/usr/bin/kill).", "exit (kill)."),
            ("in /a/b/: no", "in b: no"),
            ("/", "/"),
            ("disk=x/a/b/c", "disk=c"),
        ] {
            assert_eq!(public(text, LINE), told);
            assert_eq!(public(told, LINE), told);
        }
        assert_eq!(public(&"é".repeat(400), LINE), "é".repeat(LINE) + "…");
    }

    #[test]
    fn the_end_of_a_console_that_is_still_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = console::Writer::open(dir.path(), 1 << 20).unwrap();
        writer.write(&vec![b'x'; 300_000]).unwrap();
        writer.write(b"\nthe end").unwrap();
        let end = end_of_console(dir.path());
        assert_eq!(end.len() as u64, END);
        assert!(end.ends_with(b"x\nthe end"));
        assert!(end_of_console(&dir.path().join("none")).is_empty());
    }

    proptest! {
        /// Whatever guest and program say: one line, bounded, no control character, no path of the host.
        #[test]
        fn nothing_is_told_that_must_not_be(
            parts in proptest::collection::vec(prop_oneof![
                Just("Kernel panic - not syncing: ".to_owned()), Just("helios-agent: cannot start: ".to_owned()), Just("\n".to_owned()), Just("error ".to_owned()),
                Just("/srv/ci/data/machines".to_owned()), Just("/srv/ci/data/x.img ".to_owned()), Just("\x1b[31m".to_owned()), Just("\r".to_owned()),
                Just("Out of memory: ".to_owned()), Just(START.to_owned()), "\\PC{0,200}", proptest::collection::vec(any::<char>(), 0..30).prop_map(|c| c.into_iter().collect()),
            ], 0..20),
            at in any::<prop::sample::Index>(), is_reason in any::<bool>(),
        ) {
            let (console, program) = parts.split_at(at.index(parts.len() + 1));
            let told = explained("it ended in /srv/ci/data", is_reason, &console.concat(), &program.concat());
            prop_assert!(told.starts_with("it ended in data"), "{}", told);
            prop_assert!(told.chars().count() < 2 * LINE + 60, "{}", told);
            prop_assert!(!told.chars().any(char::is_control));
            prop_assert!(!told.contains("/srv/ci") && !told.contains("[31m"), "{:?}", told);
        }
    }
}
