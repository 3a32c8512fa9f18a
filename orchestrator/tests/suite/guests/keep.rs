//! A real guest that is kept: cut off from its node, and answering on its console.

use std::net::TcpListener;

use helios_ci::machine::Observed;

use super::{
    real_guests::{self, console_says, left, machines, slot, spec},
    simulated_host::host,
};

/// Stays. A guest that was built without a shell on its console gets one from here.
const STAYS: &str = "#!/bin/sh
echo here to stay
grep -q ttyS0 /etc/inittab && exec sleep 100000
exec sh </dev/console >/dev/console 2>&1
";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run inside a simulated host by zones_with_real_guests"]
async fn a_kept_guest_is_cut_off_and_answers_on_its_console() {
    real_guests::begin();
    let machines = machines(STAYS.as_bytes());
    let spec = spec(&"ab".repeat(32));
    let name = &spec.name;
    let (address, _) = slot(&machines.prepare(&spec).await.unwrap());
    machines.start(name).await.unwrap();
    console_says(&machines, name, "here to stay").await;
    TcpListener::bind(address).unwrap();
    machines.write_console(name, b"").await.unwrap_err();

    machines.keep(name).await.unwrap();
    TcpListener::bind(address).expect_err("the host's end of its link is gone");
    assert_eq!(machines.observe(name).await.unwrap(), Observed::Running);
    machines.write_console(name, b"").await.unwrap();
    machines
        .write_console(name, b"\recho $((6 * 7))-typed\r")
        .await
        .unwrap();
    console_says(&machines, name, "42-typed").await;
    // The machine's link stays and is held as it was, so nothing takes its power.
    assert_eq!(machines.list().await.unwrap().len(), 1);
    assert!(host().state().unwrap().links.contains_key("hciv0"));
    assert_eq!(machines.observe(name).await.unwrap(), Observed::Running);
    machines.destroy(name).await.unwrap();
    assert_eq!(left(), Vec::<String>::new());
}
