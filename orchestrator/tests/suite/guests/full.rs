//! A pool that has no room left while guests run on it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use illumos_sim::{faults::Action, volume};

use super::{
    push::{STEADY, nothing_left, ticks, world_with},
    real_guests::{boots, run},
    simulated_host::{self, host},
};

/// Guests at a time.
const GUESTS: u64 = 2;
/// What all of them may write beyond what their disks begin with, once the room is taken.
const ROOM: u64 = 64 << 20;
/// What somebody else takes while guests run: as much as the node wants to see free before it makes a machine.
const TAKEN: u64 = 1 << 30;

/// Writes more than there is room for, and less than its file system has free.
const FILLS: &str = "name: fills\non: push\njobs:\n  fills:\n    steps:\n      \
    - run: dd if=/dev/zero of=/fill bs=1M count=700 oflag=direct\n      - run: echo unreached\n";
/// Writes less than there is room for.
const FITS: &str = "name: fits\non: push\njobs:\n  fits:\n    steps:\n      \
    - run: dd if=/dev/urandom of=/fill bs=1M count=16 conv=fsync\n";

/// From here on the disks of machines lie on a file system that ends where the model's pool does.
fn bound_the_pool() -> PathBuf {
    let volumes = host().root().join("dev/zvol/rdsk/rpool/hci");
    let machines = volumes.join("machines");
    fs::create_dir_all(&machines).unwrap();
    let size = GUESTS * volume::allocated(&volumes.join("images/tiny/v1")) + TAKEN + ROOM;
    run(&format!("mount -t tmpfs -o size={size} tmpfs {}", machines.display()));
    let used: u64 = run("zfs list -Hp -o used rpool").trim().parse().unwrap();
    host()
        // Whose clones share what they begin with.
        .mutate(|host| host.state.pools.get_mut("rpool").unwrap().size = used + TAKEN + ROOM)
        .unwrap();
    machines
}

/// Another dataset of the pool takes room; `give_back` ends that.
fn take(machines: &Path) {
    run("zfs create -o mountpoint=none -o reservation=1G rpool/others");
    run(&format!("fallocate -l {TAKEN} {}", machines.join(".others").display()));
}

fn give_back(machines: &Path) {
    fs::remove_file(machines.join(".others")).unwrap();
    run("zfs destroy rpool/others");
}

/// Bytes that the guests' disks may still take.
fn room(machines: &Path) -> u64 {
    let room = nix::sys::statvfs::statvfs(machines).unwrap();
    room.blocks_available() * room.fragment_size()
}

fn disks(machines: &Path) -> usize {
    let names = fs::read_dir(machines).unwrap().flatten().map(|entry| entry.file_name());
    names.filter(|name| name.to_string_lossy().starts_with("hci-")).count()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run inside a simulated host by zones_with_real_guests"]
async fn a_guest_hears_that_the_pool_is_full_and_its_neighbours_and_the_node_go_on() {
    let machines = bound_the_pool();
    let (world, keeper) = world_with("", |text| {
        text.replace("memory_mib: 512", "memory_mib: 512, disk_gib: 1")
    })
    .await;
    let steady = world.push(STEADY).await;
    let steady = world.wait_job(&steady, "steady", "active");
    let steady = steady["id"].as_str().unwrap();
    world.until("the neighbour works", || (ticks(&world, steady) > 0).then_some(()));
    assert!(room(&machines) > TAKEN + ROOM);

    // Its job may fail at once, and then its disk would go, which gives the room back.
    let disk = ["destroy", "rpool/hci/machines/*"];
    simulated_host::faults(vec![simulated_host::fault("zfs", &disk, 1, Action::Held)]);
    let fills = world.push(FILLS).await;
    world.until("its machine", || (boots() == 2).then_some(()));
    take(&machines);
    world.until("its disk is to go", || {
        (host().held().unwrap().len() == 1).then_some(())
    });
    assert!(room(&machines) < 1 << 20, "the pool is full");
    let available: u64 = run("zfs list -Hp -o available rpool").trim().parse().unwrap();
    assert!(available < 8 << 20, "the model sees it too: {available}");
    host().release().unwrap();
    // The guest heard of it, and the job says so; nobody waits for room.
    let job = world.wait_job(&fills, "fills", "failure");
    let id = job["id"].as_str().unwrap();
    let log = world.log(id);
    // Its file system may have been the first to hear of it.
    let told = ["Input/output error", "Read-only file system"].map(|words| log.contains(&format!("'/fill': {words}")));
    assert!(told.contains(&true), "{log}");
    assert!(!log.contains("unreached"), "{log}");
    let detail = world.detail(id);
    assert_eq!(detail["attempts"].as_array().unwrap().len(), 1, "{detail:#}");
    assert_eq!(detail["steps"][0]["state"], "failure", "{detail:#}");
    world.wait(&fills, "failure").await;
    // Its disk goes, which gives the room back.
    world.until("one machine", || (disks(&machines) == 1).then_some(()));
    // The kernel frees the blocks when the emulator has gone altogether.
    world.until("room", || (room(&machines) > ROOM).then_some(()));
    give_back(&machines);

    let fits = world.push(FITS).await;
    world.wait(&fits, "success").await;
    let so_far = ticks(&world, steady);
    world.until("the neighbour goes on", || {
        (ticks(&world, steady) > so_far).then_some(())
    });
    let detail = world.detail(steady);
    assert_eq!(detail["attempts"].as_array().unwrap().len(), 1, "{detail:#}");
    assert!(world.cli(&["cancel", steady]).status.success());
    nothing_left(&world, keeper);
    assert_eq!(disks(&machines), 0);
}
