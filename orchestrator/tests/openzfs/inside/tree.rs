use helios_ci::{
    machine::zone::{
        command::zfs,
        setup::{self, SetupError},
    },
    model::illumos::names::DatasetName,
};

use super::fixture::{self, Tree, done, host, node, ours, property, ran};

#[test]
#[ignore = "run inside a guest by the_zone_back_end_on_real_openzfs"]
fn setup_makes_its_tree_once_and_takes_no_other() {
    let tree = Tree::new("tree");
    let text = |name: &str, of: &str| property(&tree.below(of), name);
    assert_eq!(property(&tree.root, "helios-ci:node"), "n1");
    for (dataset, name, value) in [
        ("images", "mountpoint", "none"),
        ("machines", "mountpoint", "none"),
        ("zones", "mountpoint", "/zones/rpool-tree"),
        ("zones", "mounted", "yes"),
        ("zones", "atime", "off"),
        ("zones", "compression", "lz4"),
        ("state", "reservation", "67108864"),
    ] {
        assert_eq!(text(name, dataset), value, "{name} of {dataset}");
    }
    for dataset in ["images", "machines", "zones", "state"] {
        let dataset = tree.below(dataset);
        let noted = zfs::noted(&ran(zfs::get(&dataset, &[zfs::NODE]))).unwrap();
        assert_eq!(noted.get(zfs::NODE).map(String::as_str), Some("n1"), "{dataset}");
    }
    assert!(
        fixture::zfs_acts(&fixture::zone("rpool/tree")).is_empty(),
        "nothing is left to do"
    );

    fixture::zfs(&["create", "-o", "mountpoint=none", "rpool/foreign"]);
    let error = setup::missing_datasets(&node(), &fixture::zone("rpool/foreign")).unwrap_err();
    assert!(matches!(error, SetupError::Foreign { .. }), "{error}");
    assert!(
        error.to_string().contains("zfs set helios-ci:node=n1 rpool/foreign"),
        "{error}"
    );
}

#[test]
#[ignore = "run inside a guest by the_zone_back_end_on_real_openzfs"]
fn an_inherited_mark_proves_nothing() {
    let tree = Tree::new("marks");
    let (machines, strange) = (tree.below("machines"), tree.below("machines/strange"));
    fixture::zfs(&["create", &strange.to_string()]);
    // It has the value, from above.
    assert_eq!(property(&strange, zfs::NODE), "n1");
    let seen = zfs::dataset(&strange, &ran(zfs::query(&strange))).unwrap().unwrap();
    assert_eq!(
        (seen.node, seen.attempt, seen.origin, seen.volsize),
        (None, None, None, None)
    );
    let owned = || {
        zfs::children_by_owner(&machines, &node(), &ran(zfs::list(&machines)))
            .unwrap()
            .ours
    };
    assert!(owned().is_empty(), "{:?}", owned());
    done(zfs::set(&strange, zfs::NODE, "n1")).unwrap();
    assert_eq!(owned(), ["strange"]);
    // A snapshot has the marks of what it is of, and is none of the children.
    fixture::zfs(&["snapshot", &format!("{strange}@now")]);
    assert_eq!(owned(), ["strange"]);
    assert_eq!(
        zfs::children(&machines, &ran(zfs::list(&machines))).unwrap(),
        ["strange"]
    );
    done(zfs::quarantine(&ours(&strange))).unwrap();
    assert!(owned().is_empty(), "what is quarantined is nobody's");
    done(zfs::set(&strange, zfs::NODE, "n2")).unwrap();
    assert!(owned().is_empty());
}

#[tokio::test]
#[ignore = "run inside a guest by the_zone_back_end_on_real_openzfs"]
async fn a_zonepath_is_mounted_and_goes_with_all_below_it() {
    let tree = Tree::new("paths");
    let spec = fixture::spec(None);
    let path = tree.below(&format!("zones/{}", spec.name));
    host()
        .make_zonepath(&spec, &path)
        .await
        .unwrap_or_else(|trouble| panic!("{}", trouble.reason));
    assert_eq!(property(&path, "quota"), "268435456");
    assert_eq!(
        (property(&path, "sharenfs"), property(&path, "sharesmb")),
        ("off".into(), "off".into())
    );
    std::fs::write(format!("/zones/rpool-paths/{}/file", spec.name), b"x").unwrap();
    // It exists now; that it is ours makes a second try succeed.
    host()
        .make_zonepath(&spec, &path)
        .await
        .unwrap_or_else(|trouble| panic!("{}", trouble.reason));
    let another = fixture::spec(None);
    let trouble = host().make_zonepath(&another, &path).await.unwrap_err();
    assert!(
        trouble.reason.contains("does not carry the owner tags"),
        "{}",
        trouble.reason
    );
    fixture::zfs(&["create", &format!("{path}/below")]);
    assert!(done(zfs::destroy(&ours(&path))).unwrap_err().is_busy());
    done(zfs::destroy_zonepath(&ours(&path))).unwrap();
    assert!(zfs::dataset(&path, &ran(zfs::query(&path))).unwrap().is_none());
    // Where its parent is not mounted it would be a plain folder's neighbour: that is refused.
    fixture::zfs(&["set", "canmount=off", &tree.below("zones").to_string()]);
    fixture::zfs(&["create", "-o", "canmount=noauto", &path.to_string()]);
    let trouble = host().make_zonepath(&spec, &path).await.unwrap_err();
    assert!(trouble.reason.contains("owner tags"), "{}", trouble.reason);
    done(zfs::set(&path, zfs::NODE, "n1")).unwrap();
    done(zfs::set(&path, zfs::ATTEMPT, &spec.name.attempt().to_string())).unwrap();
    let trouble = host().make_zonepath(&spec, &path).await.unwrap_err();
    assert!(trouble.reason.contains("is not mounted"), "{}", trouble.reason);
}

#[test]
#[ignore = "run inside a guest by the_zone_back_end_on_real_openzfs"]
fn many_datasets_and_odd_names_are_listed_whole() {
    let tree = Tree::new("many");
    let machines = tree.below("machines");
    let mut wanted: Vec<String> = (0..25).map(|number| format!("m{number}")).collect();
    let long = "x".repeat(200 - machines.to_string().len() - 1);
    wanted.extend(["a_b.c-d:e", "0", "9-.", ".hidden", "CamelCase", "-dash", &long].map(str::to_owned));
    for name in &wanted {
        let dataset = machines.child(name).unwrap();
        done(zfs::create_filesystem(&dataset, &node(), &[("canmount", "off")]))
            .unwrap_or_else(|error| panic!("{error}"));
    }
    fixture::zfs(&["create", "-o", "canmount=off", &format!("{machines}/with blank")]);
    wanted.sort();
    let mut owned = zfs::children_by_owner(&machines, &node(), &ran(zfs::list(&machines)))
        .unwrap()
        .ours;
    owned.sort();
    assert_eq!(owned, wanted);
    let children = zfs::children(&machines, &ran(zfs::list(&machines))).unwrap();
    assert_eq!(children.len(), wanted.len() + 1);
    assert!(children.contains(&"with blank".to_owned()));
    // What we would take as a name ZFS takes too, and the other way round what it refuses we refuse; except that a
    // blank is legal there, and `.` and `..` are legal on illumos's and not OpenZFS's side: we take none of them.
    for bad in ["a b", "a/../b", "a/./b", "a//b", "a/", "a%b", "a@b"] {
        assert!(format!("{machines}/{bad}").parse::<DatasetName>().is_err(), "{bad}");
    }
    let long = "x".repeat(256 - machines.to_string().len() - 1);
    let (made, said) = fixture::tool("/sbin/zfs", &["create", &format!("{machines}/{long}")]);
    assert!(!made && said.contains("name is too long"), "{said}");
}

#[test]
#[ignore = "run inside a guest by the_zone_back_end_on_real_openzfs"]
fn space_is_read_as_it_is_listed() {
    let tree = Tree::new("space");
    let (images, absent) = (tree.below("images"), tree.below("absent"));
    let listed = || fixture::zfs(&["list", "-Hp", "-o", "available", &images.to_string()]);
    let read = zfs::available(&ran(zfs::space(&images))).unwrap().unwrap();
    let listed: u64 = listed().parse().unwrap();
    // Other datasets of the pool are still being written out.
    assert!(read > 1 << 30 && read.abs_diff(listed) < 1 << 26, "{read} {listed}");
    fixture::zfs(&["set", "quota=1m", &images.to_string()]);
    let read = zfs::available(&ran(zfs::space(&images))).unwrap().unwrap();
    assert!(read <= 1 << 20, "{read}");
    assert!(zfs::available(&ran(zfs::space(&absent))).unwrap_err().is_absent());
}
