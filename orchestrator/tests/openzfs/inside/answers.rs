use helios_ci::{
    machine::zone::command::{CommandError, Failure, zfs},
    model::illumos::names::VolumeSize,
};

use super::{
    fixture::{self, Tree, done, node, ours},
    links,
};

/// Everything that was said otherwise than expected: all of it at once, as a run takes a while.
#[derive(Default)]
struct Otherwise(Vec<String>);

impl Otherwise {
    fn failure(&mut self, result: Result<(), CommandError>, wanted: Failure, words: &str) {
        match result {
            Err(error) if error.failure == wanted && error.said.contains(words) => {}
            other => self
                .0
                .push(format!("{other:?}\nwhere {wanted:?} {words:?} was expected")),
        }
    }
}

/// Each with what OpenZFS 2.1 says; illumos says the same where no comment says otherwise.
#[test]
#[ignore = "run inside a guest by the_zone_back_end_on_real_openzfs"]
fn what_zfs_says_is_understood() {
    let (tree, mut otherwise) = (Tree::new("words"), Otherwise::default());
    let size = VolumeSize::at_least(1 << 20);
    let (images, machines) = (tree.below("images"), tree.below("machines"));
    let (volume, absent) = (images.child("v").unwrap(), images.child("absent").unwrap());
    let (gold, never) = (volume.snapshot("gold").unwrap(), volume.snapshot("never").unwrap());
    let clone = machines.child("clone").unwrap();
    let attempt = fixture::spec(None).name.attempt();

    otherwise.failure(
        done(zfs::destroy(&ours(&absent))),
        Failure::Absent,
        "cannot open 'rpool/words/images/absent': dataset does not exist",
    );
    otherwise.failure(
        done(zfs::quarantine(&ours(&absent))),
        Failure::Absent,
        "cannot open 'rpool/words/images/absent': dataset does not exist",
    );
    otherwise.failure(
        done(zfs::rename(&ours(&absent), &volume)),
        Failure::Absent,
        "cannot open 'rpool/words/images/absent': dataset does not exist",
    );
    let orphan = absent.child("below").unwrap();
    // illumos: `no such parent '…'`. For neither is there anything to do but to show it.
    otherwise.failure(
        done(zfs::create_volume(&orphan, &node(), size)),
        Failure::Unknown,
        "cannot create 'rpool/words/images/absent/below': parent does not exist",
    );
    let bad = tree.root.snapshot("x").unwrap();
    otherwise.failure(
        done(zfs::clone(&bad, &clone, &node(), attempt)),
        Failure::Absent,
        "dataset does not exist",
    );
    done(zfs::create_volume(&volume, &node(), size)).unwrap();
    links::of(&volume);
    otherwise.failure(
        done(zfs::create_volume(&volume, &node(), size)),
        Failure::Exists,
        "cannot create 'rpool/words/images/v': dataset already exists",
    );

    otherwise.failure(
        done(zfs::destroy_snapshot(&ours(&never))),
        Failure::Absent,
        "could not find any snapshots to destroy; check snapshot names.",
    );
    otherwise.failure(
        done(zfs::release(&ours(&never))),
        Failure::Absent,
        "dataset does not exist",
    );
    otherwise.failure(done(zfs::hold(&never)), Failure::Absent, "dataset does not exist");
    done(zfs::snapshot(&gold)).unwrap();
    otherwise.failure(done(zfs::snapshot(&gold)), Failure::Exists, "dataset already exists");
    otherwise.failure(
        done(zfs::release(&ours(&gold))),
        Failure::Absent,
        "no such tag on this dataset",
    );
    done(zfs::hold(&gold)).unwrap();
    otherwise.failure(
        done(zfs::hold(&gold)),
        Failure::Exists,
        "tag already exists on this dataset",
    );
    // Later releases: `it's being held. Run 'zfs holds -r …' to see holders.`
    otherwise.failure(
        done(zfs::destroy_snapshot(&ours(&gold))),
        Failure::Busy,
        "cannot destroy snapshot rpool/words/images/v@gold: dataset is busy",
    );
    otherwise.failure(done(zfs::destroy(&ours(&volume))), Failure::Busy, "volume has children");
    otherwise.failure(
        done(zfs::destroy_zonepath(&ours(&images))),
        Failure::Busy,
        "dataset is busy",
    );
    done(zfs::clone(&gold, &clone, &node(), attempt)).unwrap();
    links::of(&clone);
    otherwise.failure(
        done(zfs::clone(&gold, &clone, &node(), attempt)),
        Failure::Exists,
        "dataset already exists",
    );
    done(zfs::release(&ours(&gold))).unwrap();
    // illumos: `cannot destroy snapshot …: snapshot is cloned`.
    otherwise.failure(
        done(zfs::destroy_snapshot(&ours(&gold))),
        Failure::Busy,
        "snapshot has dependent clones",
    );
    otherwise.failure(
        done(zfs::destroy_zonepath(&ours(&images))),
        Failure::Busy,
        "has dependent clones",
    );
    otherwise.failure(
        done(zfs::rename(&ours(&volume), &clone)),
        Failure::Exists,
        "dataset already exists",
    );
    otherwise.failure(
        done(zfs::set(&volume, "volsize", "1000")),
        Failure::Unknown,
        "must be a multiple of volume block size",
    );
    otherwise.failure(
        done(zfs::set(&volume, "colour", "red")),
        Failure::Unknown,
        "invalid property 'colour'",
    );
    done(zfs::destroy(&ours(&clone))).unwrap();
    done(zfs::destroy_snapshot(&ours(&gold))).unwrap();
    done(zfs::destroy(&ours(&volume))).unwrap();
    assert!(otherwise.0.is_empty(), "{}", otherwise.0.join("\n"));
}
