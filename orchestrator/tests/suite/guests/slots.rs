//! Where a guest finds its seed: in the slot and function that the brand gives the disk, if a kernel looks there.

use helios_ci::machine::Observed;

use super::real_guests::{self, console_says, left, machines, run, spec, stopped};

/// Says that it was found, and stays.
const AGENT: &str = "#!/bin/sh\necho found by my guest\nsleep 100000\n";
/// What that is on a console: the script itself is never shown there.
const FOUND: &str = "found by my guest";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run inside a simulated host by zones_with_real_guests"]
async fn a_seed_behind_a_missing_first_function_is_never_found() {
    real_guests::begin();
    let machines = machines(AGENT.as_bytes());
    let (usual, moved) = (spec(&"ab".repeat(32)), spec(&"ab".repeat(32)));
    machines.prepare(&usual).await.unwrap();
    machines.prepare(&moved).await.unwrap();
    // The same disk with the same seed, as function 1 of a slot that has nothing else.
    run(&format!(
        "zonecfg -z {} select attr name=disk0 ; set name=disk1 ; end",
        moved.name
    ));
    let slots = |name| run(&format!("/usr/lib/brand/bhyve/boot -t {name}"));
    assert!(slots(&usual.name).contains(" -s 5:0,virtio-blk,/seed.img,ro"));
    assert!(slots(&moved.name).contains(" -s 5:1,virtio-blk,/seed.img,ro"));
    machines.start(&usual.name).await.unwrap();
    machines.start(&moved.name).await.unwrap();
    console_says(&machines, &usual.name, FOUND).await;
    let said = console_says(&machines, &moved.name, "helios-ci: no seed disk with helios.json").await;
    assert!(!said.contains(FOUND), "{said}");
    // A guest without its seed is of no use, and ends by itself.
    let Observed::Stopped(words) = stopped(&machines, &moved.name).await else {
        panic!("{said}")
    };
    assert!(words.contains("the guest powered itself off"), "{words}");
    for spec in [usual, moved] {
        machines.destroy(&spec.name).await.unwrap();
    }
    assert_eq!(left(), Vec::<String>::new());
}
