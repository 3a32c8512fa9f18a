use std::{fs, os::unix::process::ExitStatusExt, path::Path, process::Command};

use helios_ci::failpoint::Point;

use super::{
    fixture::{self, Tree, label, noise},
    links,
};

const CONFIG: &str = "/tmp/config.yaml";

/// `helios-ci image import`, with the libraries that it was built with.
fn import(file: &Path, digest: &str, point: &str) -> std::process::Output {
    let mut command = Command::new("/inner/lib/ld.so");
    command.args(["--library-path", "/inner/lib", "/inner/helios-ci", "--config", CONFIG]);
    command
        .args(["image", "import"])
        .arg(file)
        .args([label().as_str(), "--sha256", digest]);
    command.env("HELIOS_CI_FAILPOINT", point).output().expect("helios-ci")
}

#[test]
#[ignore = "run inside a guest by the_zone_back_end_on_real_openzfs"]
fn an_import_that_is_killed_anywhere_is_made_good_by_the_next() {
    let tree = Tree::new("killed");
    let config = "node: n1\nbackend: zone\ndata_dir: /tmp/data\nagent: /inner/helios-ci\n\
        zone: {dataset: rpool/killed, path: /zones/rpool-killed}\nimages: {debian: {size: {cpus: 1, memory_mib: 512}}}\n";
    fs::write(CONFIG, config).unwrap();
    tree.import(&noise(40, 50_000));
    let mut before = 1;
    for point in Point::IMPORT {
        let (file, digest) = fixture::disk(&noise(41 + u64::from(before), 60_000));
        let killed = import(&file, &digest, &format!("{point:?}"));
        assert_eq!(killed.status.signal(), Some(9), "{point:?}: {killed:?}");
        links::renew();
        let newest = *tree.versions().last().unwrap();
        assert_eq!(
            newest,
            if *point == Point::ImageNamed {
                before + 1
            } else {
                before
            },
            "{point:?}"
        );
        tree.golden().verify(&label()).unwrap();

        let again = import(&file, &digest, "");
        links::renew();
        assert!(again.status.success(), "{point:?}: {again:?}");
        let said = String::from_utf8_lossy(&again.stdout).into_owned();
        assert!(said.contains(&format!("version {}", before + 1)), "{point:?}: {said}");
        assert_eq!(tree.golden().verify(&label()).unwrap().1, digest, "{point:?}");
        let (old, new) = (before, before + 1);
        let mut wanted = [
            format!("v{old}"),
            format!("v{old}@gold"),
            format!("v{new}"),
            format!("v{new}@gold"),
        ];
        wanted.sort();
        assert_eq!(tree.children(), wanted, "{point:?}");
        for version in [old, new] {
            let gold = tree
                .below(&format!("images/debian/v{version}"))
                .snapshot("gold")
                .unwrap();
            assert!(
                fixture::zfs(&["holds", "-H", &gold.to_string()]).contains("helios-ci"),
                "{point:?}: {gold} is not held"
            );
        }
        before = new;
    }
}
