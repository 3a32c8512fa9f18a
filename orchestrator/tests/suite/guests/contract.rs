//! The contract of every back end, on zones.

use std::{
    fs,
    process::Command,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use helios_ci::{
    machine::{Endpoints, ListenAt, MachineSpec, Machines, machined},
    model::names::MachineName,
};

use super::{
    deadline,
    push::Keeper,
    real_guests::{self, left, spec},
    simulated_host::host,
    support::{
        self,
        contract::{self, AGENT},
    },
};

const CONFIG: &str = "/run/config.yaml";
const TEXT: &str = "node: test-node\nbackend: zone\ndata_dir: /run/data\nagent: /run/agent\nzone: {path: /mnt/hci}\n\
    machined: {socket: /run/machined.sock, user: root}\nimages: {tiny: {size: {cpus: 1, memory_mib: 256}}}\n";

/// Each time a machined that was just started; the one before it was killed.
#[derive(Default)]
struct Zones {
    machined: Mutex<Option<Keeper>>,
}

impl contract::Bench for Zones {
    async fn open(&self) -> Arc<dyn Machines> {
        drop(self.machined.lock().expect("one thread").take());
        fs::write("/run/agent", AGENT).expect("an agent");
        fs::write(CONFIG, TEXT).expect("a configuration");
        let mut command = Command::new(support::helios_ci());
        command.args(["--config", CONFIG, "machined"]);
        *self.machined.lock().expect("one thread") = Some(Keeper::start(command));
        let until = Instant::now() + deadline::GUEST;
        loop {
            match machined::connect("/run/machined.sock".as_ref(), &self.spec().node).await {
                Ok(machines) => return machines,
                Err(error) => assert!(Instant::now() < until, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn spec(&self) -> MachineSpec {
        spec(&"ab".repeat(32))
    }

    fn main_pid(&self, name: &MachineName) -> i32 {
        let file = host().dir().join("guests").join(format!("{name}.pid"));
        // The zone's bhyve starts after the command that boots the zone has ended.
        let until = Instant::now() + deadline::GUEST;
        loop {
            if let Some(pid) = fs::read_to_string(&file).ok().and_then(|text| text.parse().ok()) {
                return pid;
            }
            assert!(Instant::now() < until, "{name} has no process");
            support::pause();
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
    real_guests::begin();
    contract::life(&Zones::default()).await;
    assert_eq!(left(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run inside a simulated host by zones_with_real_guests"]
async fn two_guests_run_and_the_death_of_one_is_noticed() {
    real_guests::begin();
    contract::two_and_a_death(&Zones::default()).await;
    assert_eq!(left(), Vec::<String>::new());
}
