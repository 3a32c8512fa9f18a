//! One guest from its boot to its end.

use helios_ci::{
    agent_api::{AgentApi, identity::Identity},
    machine::Observed,
    store::Store,
};

use super::{
    real::{self, console_says, left, machines, spec, stopped},
    support,
};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run inside a simulated host by zones_with_real_guests"]
async fn a_guest_boots_its_agent_says_hello_and_nothing_of_it_stays() {
    real::begin();
    let agent = std::fs::read(support::agent()).unwrap();
    let machines = machines(&agent);
    let dir = tempfile::tempdir().unwrap();
    let api = AgentApi::new(
        Identity::open(dir.path()).unwrap(),
        Store::open_temporary().await.unwrap(),
    );
    let spec = spec(api.fingerprint());
    let name = &spec.name;
    let endpoints = machines.prepare(&spec).await.unwrap();
    // The address is there, as the daemon needs it before the boot.
    let _link = api.listen(name.attempt(), &endpoints.agent).await.unwrap();
    machines.start(name).await.unwrap();
    assert_eq!(machines.observe(name).await.unwrap(), Observed::Running);
    console_says(&machines, name, "helios-ci: starting the agent").await;
    // The node knows of no such attempt: the real agent said hello and was refused, which is its end.
    let said = console_says(&machines, name, "the agent ended with status").await;
    assert!(said.contains("not valid"), "{said}");
    let Observed::Stopped(words) = stopped(&machines, name).await else {
        panic!("{said}")
    };
    assert!(words.contains("the guest powered itself off"), "{words}");
    console_says(&machines, name, "[NOTICE: Zone halted]").await;
    machines.destroy(name).await.unwrap();
    assert_eq!(left(), Vec::<String>::new());
}
