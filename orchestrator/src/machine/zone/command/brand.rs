//! The boot hook of the bhyve brand, which makes bhyve's command line of a zone's attributes. What it does not know
//! it ignores without a word; only its own dry run tells.

use std::{collections::BTreeSet, time::Duration};

use super::{CommandError, judge};
use crate::{
    exec::{Cmd, Output},
    model::names::MachineName,
};

const DEADLINE: Duration = Duration::from_secs(30);

/// `/usr/lib/brand/bhyve/boot -t NAME`: prints what it would run, and runs nothing.
#[must_use]
pub fn dry_run(name: &MachineName) -> Cmd {
    Cmd::new("/usr/lib/brand/bhyve/boot")
        .arg("-t")
        .arg(name.as_str())
        .deadline(DEADLINE)
}

/// bhyve's options for devices, processors and memory (`-s 1,lpc`, `-c 2`), and `-w`, in what [`dry_run`] printed. How
/// it is laid out is no promise of the brand: a line of words and a list of quoted strings are both read. Empty when
/// there is no command line in it.
///
/// # Errors
/// When it failed.
pub fn options(output: &Output) -> Result<BTreeSet<String>, CommandError> {
    let mut text = judge(output, &[])?;
    // Its log, which goes there, may be where it prints to.
    text += &String::from_utf8_lossy(&output.stderr);
    let mut words = text
        .split_whitespace()
        .map(|word| word.trim_matches(['[', ']', '\'', '"', ',']));
    let mut options = BTreeSet::new();
    while let Some(word) = words.next() {
        match word {
            "-s" | "-l" | "-c" | "-m" => options.extend(words.next().map(|value| format!("{word} {value}"))),
            "-w" => _ = options.insert(word.to_owned()),
            _ => {}
        }
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn printed(stdout: &str, stderr: &str) -> Output {
        Output {
            command: "boot".to_owned(),
            code: Some(0),
            stdout: stdout.as_bytes().to_vec(),
            stderr: stderr.as_bytes().to_vec(),
            elapsed: Duration::ZERO,
        }
    }

    #[test]
    fn options_are_found_in_a_line_a_list_and_a_log() {
        let line =
            "/usr/sbin/bhyve -U 1b5d -H -B 1,product=OmniOS HVM -c 2 -m 2048M -l com1,/dev/zconsole -s 1,lpc z\n";
        let list = "['/usr/sbin/bhyve',\n '-w', '-U',\n '1b5d',\n '-c',\n '2', '-m', '2048M',\n '-l', 'com1,/dev/zconsole',\n '-s',\n '1,lpc',\n 'z']\n";
        let wanted: BTreeSet<String> = ["-c 2", "-m 2048M", "-l com1,/dev/zconsole", "-s 1,lpc"]
            .map(str::to_owned)
            .into();
        assert_eq!(options(&printed(line, "")).unwrap(), wanted);
        let with_switch: BTreeSet<String> = wanted.iter().cloned().chain(["-w".to_owned()]).collect();
        assert_eq!(options(&printed(list, "")).unwrap(), with_switch);
        assert_eq!(options(&printed("", line)).unwrap(), wanted);
        assert!(options(&printed("nothing of the kind", "")).unwrap().is_empty());
    }

    #[test]
    fn its_failure_is_shown() {
        let failed = crate::machine::zone::command::failed("bootrom NONE not found.");
        assert!(options(&failed).unwrap_err().to_string().contains("bootrom NONE"));
    }

    proptest! {
        #[test]
        fn whatever_it_prints_is_read(text in "\\PC{0,200}|([-a-z'\\[\\], ]{0,12}\n){0,20}") {
            for option in options(&printed(&text, "")).unwrap() {
                prop_assert!(option == "-w" || option.split(' ').count() == 2, "{option}");
            }
        }
    }
}
