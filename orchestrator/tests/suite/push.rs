//! The main job, end to end: a push becomes a machine, a live log and a status.

use crate::support::{self, Machines, World, spine::a_push_is_tested};

#[tokio::test(flavor = "multi_thread")]
async fn a_push_is_tested_in_a_process() {
    a_push_is_tested(World::start(Machines::Process).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_is_tested_in_a_guest() {
    if support::needs_guest().is_none() {
        return;
    }
    a_push_is_tested(World::start(Machines::Qemu).await).await;
}
