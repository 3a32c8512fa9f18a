//! Machines that stay after their job, with a person at the host's own `zlogin -C`.

#![allow(
    clippy::disallowed_methods,
    reason = "a person at the host starts programs, and looks again and again"
)]

use std::{
    io::{Read, Write},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use helios_ci::{machine::Machines, model::names::MachineName};

use super::{
    deadline,
    simulated_host::{self, host, left, machines, spec},
};

fn wait<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + deadline::PROMPT;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "never: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn print(name: &MachineName, text: &str) {
    illumos_sim::console::print(host().dir(), name.as_str(), text.as_bytes()).unwrap();
}

fn heard(name: &MachineName) -> String {
    String::from_utf8_lossy(&illumos_sim::console::typed(host().dir(), name.as_str()).unwrap()).into_owned()
}

async fn recorded(machines: &dyn Machines, name: &MachineName, word: &str) {
    let until = Instant::now() + deadline::PROMPT;
    loop {
        let said = machines.console(name, 0).await.unwrap().bytes;
        if String::from_utf8_lossy(&said).contains(word) {
            return;
        }
        assert!(Instant::now() < until, "never {word} on the console");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// `zlogin -C`, as the person at the host types it: what it answers to a line of the guest's.
fn zlogin(name: &MachineName, line: &str) -> String {
    let (mut person, keyboard) = illumos_sim::tty::open().unwrap();
    let before = heard(name).len();
    let mut zlogin = Command::new("/usr/sbin/zlogin")
        .args(["-C", name.as_str()])
        .stdin(keyboard)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = zlogin.stdout.take().unwrap();
    let (mut said, mut buffer, mut asked) = (Vec::new(), [0; 1024], false);
    while let Ok(count @ 1..) = out.read(&mut buffer) {
        said.extend_from_slice(&buffer[..count]);
        let text = String::from_utf8_lossy(&said);
        // Once: what came after we stop reading would end it before it has passed on what is typed.
        if !asked && text.contains("[Connected to zone") {
            print(name, line);
            asked = true;
        }
        if text.contains(line) {
            break;
        }
    }
    // One that was refused hears nothing any more.
    if asked {
        person.write_all(b"typed by hand\r").unwrap();
        wait("what was typed arrives", || {
            heard(name)[before..].ends_with("typed by hand\r").then_some(())
        });
    }
    drop((out, person));
    let ended = zlogin.wait_with_output().unwrap();
    String::from_utf8_lossy(&said).into_owned() + &String::from_utf8_lossy(&ended.stderr)
}

/// The same of a console that somebody has just left: zoneadmd hears of it a moment later.
fn zlogin_once_free(name: &MachineName, line: &str) -> String {
    wait("the console is free", || {
        let said = zlogin(name, line);
        (!said.contains("already in use")).then_some(said)
    })
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run inside a simulated host by zones_on_a_simulated_host"]
async fn a_kept_machine_is_cut_off_and_its_console_is_free() {
    simulated_host::prepare();
    let (machines, spec) = (machines(), spec());
    let name = &spec.name;
    assert!(machines.keep(name).await.is_err(), "there is none");
    machines.prepare(&spec).await.unwrap();
    assert!(machines.keep(name).await.is_err(), "it was never started");
    machines.start(name).await.unwrap();
    let before = host().state().unwrap();
    assert!(before.links.contains_key("hcih0") && before.interfaces.contains_key("hcih0"));
    print(name, "login: ");
    recorded(&*machines, name, "login: ").await;
    assert!(machines.write_console(name, b"x").await.is_err(), "its job runs");
    assert!(machines.release_console(name).await.is_err(), "its job runs");
    assert!(zlogin(name, "no").contains("already in use"), "we read it");

    machines.keep(name).await.unwrap();
    machines.keep(name).await.unwrap();
    let state = host().state().unwrap();
    for (link, there) in [("hcih0", false), ("hciv0", true), ("hcis0", true)] {
        assert_eq!(state.links.contains_key(link), there, "{link}");
    }
    assert!(!state.interfaces.contains_key("hcih0"), "neither is its address");
    assert!(state.zones.contains_key(name.as_str()), "the guest runs on");

    // The host's own way in; what is on the console now nobody records.
    let said = zlogin_once_free(name, "hello by hand");
    assert!(said.contains("hello by hand"), "{said}");
    wait("typed by hand", || heard(name).contains("typed by hand").then_some(()));

    // A machined that was restarted knows that it is kept, and leaves the console alone until it is taken.
    let again = simulated_host::machines();
    recorded(&*again, name, "login: ").await;
    assert!(again.write_console(name, b"ls\r").await.is_err(), "taken first");
    let taken = Instant::now() + deadline::PROMPT;
    while let Err(error) = again.write_console(name, b"").await {
        // The other one has only just hung up.
        assert!(
            error.reason.contains("another process") && Instant::now() < taken,
            "{error}"
        );
    }
    again.write_console(name, b"uname -a\r").await.unwrap();
    wait("uname", || heard(name).contains("uname -a\r").then_some(()));
    print(name, "SunOS here");
    recorded(&*again, name, "SunOS here").await;
    assert!(zlogin(name, "no").contains("already in use"), "it is taken");
    again.release_console(name).await.unwrap();
    again.release_console(name).await.unwrap();
    assert!(again.write_console(name, b"ls\r").await.is_err(), "it was released");
    assert!(zlogin_once_free(name, "hello again").contains("hello again"));

    again.destroy(name).await.unwrap();
    assert_eq!(left(), Vec::<String>::new());
    // Its slot is free again, both ends of the link included.
    let next = simulated_host::spec();
    again.prepare(&next).await.unwrap();
    assert!(host().state().unwrap().links.contains_key("hcih0"));
    again.destroy(&next.name).await.unwrap();
    assert_eq!(left(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run inside a simulated host by zones_on_a_simulated_host"]
async fn a_kept_machine_that_stops_or_loses_its_host_goes_without_a_trace() {
    simulated_host::prepare();
    let (machines, stopped, rebooted) = (machines(), spec(), spec());
    for spec in [&stopped, &rebooted] {
        machines.prepare(spec).await.unwrap();
        machines.start(&spec.name).await.unwrap();
    }
    // It may have ended before anybody kept it: its disk and its last words stay.
    machines.stop(&stopped.name, Duration::ZERO).await.unwrap();
    machines.keep(&stopped.name).await.unwrap();
    assert!(machines.write_console(&stopped.name, b"").await.is_err());
    machines.keep(&rebooted.name).await.unwrap();
    host().host_reboot().unwrap();
    std::fs::remove_dir_all("/run/helios-ci").unwrap();
    let machines = simulated_host::machines();
    let gone = machines.keep(&rebooted.name).await.unwrap_err();
    assert!(!gone.retryable && gone.reason.contains("rebooted"), "{gone}");
    for machine in machines.list().await.unwrap() {
        machines.destroy(&machine.name).await.unwrap();
    }
    assert_eq!(left(), Vec::<String>::new());
}
