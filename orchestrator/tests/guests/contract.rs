//! The contract of every back end, on zones.

use std::{fs, sync::Arc};

use helios_ci::{
    machine::{Endpoints, ListenAt, MachineSpec, Machines},
    model::names::MachineName,
};

use super::{
    bed::host,
    real::{self, left, machines, spec},
    support::contract::{self, AGENT},
};

struct Zones;

impl contract::Bench for Zones {
    async fn open(&self) -> Arc<dyn Machines> {
        machines(AGENT.as_bytes())
    }

    fn spec(&self) -> MachineSpec {
        spec(&"ab".repeat(32))
    }

    fn main_pid(&self, name: &MachineName) -> i32 {
        let file = host().dir().join("guests").join(format!("{name}.pid"));
        // The zone's bhyve starts after the command that boots the zone has ended.
        let until = std::time::Instant::now() + contract::PATIENCE;
        loop {
            if let Some(pid) = fs::read_to_string(&file).ok().and_then(|text| text.parse().ok()) {
                return pid;
            }
            assert!(std::time::Instant::now() < until, "{name} has no process");
            super::support::pause();
        }
    }

    /// Who listens there says whose guest may call.
    fn assert_private(&self, endpoints: &Endpoints) {
        assert!(
            matches!(
                (&endpoints.agent, &endpoints.git),
                (ListenAt::Slot { .. }, ListenAt::Slot { .. })
            ),
            "{endpoints:?}"
        );
    }

    /// It is written down before the boot.
    fn forget_start(&self, _name: &MachineName) {}

    fn remains(&self, name: &MachineName) -> Vec<String> {
        left().into_iter().filter(|what| what.contains(name.as_str())).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run inside a simulated host by zones_with_real_guests"]
async fn a_guest_lives_as_the_contract_says() {
    real::begin();
    contract::life(&Zones).await;
    assert_eq!(left(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run inside a simulated host by zones_with_real_guests"]
async fn two_guests_run_and_the_death_of_one_is_noticed() {
    real::begin();
    contract::two_and_a_death(&Zones).await;
    assert_eq!(left(), Vec::<String>::new());
}
