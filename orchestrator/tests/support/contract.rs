//! The contract suite of the Machine port: what holds for machines of every back end. Its agents are stand-ins:
//! what is tested is the machine.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use helios_ci::{
    machine::{Endpoints, MachineSpec, Machines, Observed},
    model::names::MachineName,
};

use super::deadline;

/// Says that it is here, and stays until it is ended.
pub const AGENT: &str = "#!/bin/sh\necho \"agent $1 $2 is here\"\ntrap 'exit 0' TERM\nwhile :; do sleep 1; done\n";

/// A place in which a back end is opened, again and again, as by restarted daemons.
#[allow(async_fn_in_trait, reason = "used by tests of one thread each")]
pub trait Bench {
    /// The back end, as a process that was just started has it.
    async fn open(&self) -> Arc<dyn Machines>;

    /// A machine that was never made.
    fn spec(&self) -> MachineSpec;

    /// The process that is the machine.
    fn main_pid(&self, name: &MachineName) -> i32;

    /// Nobody but the machine can speak to its node at these places.
    fn assert_private(&self, endpoints: &Endpoints);

    /// The machine was started just before a crash, and its start never written down. Does nothing where a
    /// start leaves nothing to forget.
    fn forget_start(&self, name: &MachineName);

    /// What is left of a machine.
    fn remains(&self, name: &MachineName) -> Vec<String>;
}

/// Waits for a word on a console.
pub async fn console_says(machines: &Arc<dyn Machines>, name: &MachineName, word: &str) -> String {
    let (mut text, mut from, until) = (Vec::new(), 0, Instant::now() + deadline::GUEST);
    loop {
        let part = machines.console(name, from).await.unwrap();
        from = part.next;
        text.extend(part.bytes);
        let said = String::from_utf8_lossy(&text).into_owned();
        if said.contains(word) {
            return said;
        }
        assert!(Instant::now() < until, "the console never said {word:?} but {said:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until a machine runs no more.
pub async fn stopped(machines: &Arc<dyn Machines>, name: &MachineName) -> Observed {
    tokio::time::timeout(deadline::GUEST, machines.wait_stopped(name))
        .await
        .expect("it stops")
        .unwrap()
}

/// The whole life, each call twice, the adapter renewed before each.
pub async fn life(bench: &impl Bench) {
    let spec = bench.spec();
    let name = &spec.name;
    assert_eq!(bench.open().await.observe(name).await.unwrap(), Observed::Absent);
    assert_eq!(bench.open().await.endpoints(name).await.unwrap(), None);
    bench.open().await.destroy(name).await.unwrap();
    bench.open().await.start(name).await.unwrap_err();
    bench.open().await.stop(name, Duration::ZERO).await.unwrap();
    assert_eq!(stopped(&bench.open().await, name).await, Observed::Absent);

    let endpoints = bench.open().await.prepare(&spec).await.unwrap();
    assert_eq!(bench.open().await.prepare(&spec).await.unwrap(), endpoints);
    assert_eq!(
        bench.open().await.endpoints(name).await.unwrap().as_ref(),
        Some(&endpoints)
    );
    bench.assert_private(&endpoints);
    assert_eq!(bench.open().await.observe(name).await.unwrap(), Observed::Prepared);

    bench.open().await.start(name).await.unwrap();
    let pid = bench.main_pid(name);
    bench.open().await.start(name).await.unwrap();
    assert_eq!(bench.main_pid(name), pid, "a running machine is left alone");
    bench.forget_start(name);
    bench.open().await.start(name).await.unwrap();
    assert_eq!(bench.main_pid(name), pid);
    assert_eq!(bench.open().await.observe(name).await.unwrap(), Observed::Running);
    bench.open().await.prepare(&spec).await.unwrap_err();
    console_says(&bench.open().await, name, "agent --seed").await;

    bench.open().await.stop(name, deadline::GUEST).await.unwrap();
    bench.open().await.stop(name, deadline::GUEST).await.unwrap();
    assert!(matches!(stopped(&bench.open().await, name).await, Observed::Stopped(_)));
    bench.open().await.start(name).await.unwrap_err();
    console_says(&bench.open().await, name, "agent --seed").await;
    bench.open().await.destroy(name).await.unwrap();
    bench.open().await.destroy(name).await.unwrap();
    assert_eq!(bench.open().await.observe(name).await.unwrap(), Observed::Absent);
    assert_eq!(bench.remains(name), Vec::<String>::new());
}

/// Two at once; one is killed and noticed, the other is not touched; both are destroyed as they are.
pub async fn two_and_a_death(bench: &impl Bench) {
    let (machines, one, two) = (bench.open().await, bench.spec(), bench.spec());
    for spec in [&one, &two] {
        machines.prepare(spec).await.unwrap();
        machines.start(&spec.name).await.unwrap();
    }
    let listed = bench.open().await.list().await.unwrap();
    assert_eq!(listed.len(), 2);
    assert!(
        listed.iter().all(|owned| owned.observed == Observed::Running),
        "{listed:?}"
    );
    let waiting = tokio::spawn({
        let (machines, name) = (machines.clone(), one.name.clone());
        async move { machines.wait_stopped(&name).await.unwrap() }
    });
    let pid = nix::unistd::Pid::from_raw(bench.main_pid(&one.name));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    let seen = tokio::time::timeout(deadline::GUEST, waiting)
        .await
        .expect("the death is noticed")
        .unwrap();
    assert!(matches!(seen, Observed::Stopped(_)), "{seen:?}");
    assert_eq!(machines.observe(&two.name).await.unwrap(), Observed::Running);
    let pid = bench.main_pid(&two.name);
    machines.destroy(&one.name).await.unwrap();
    machines.destroy(&two.name).await.unwrap();
    assert!(!Path::new(&format!("/proc/{pid}/exe")).exists());
    assert_eq!(machines.list().await.unwrap(), []);
}
