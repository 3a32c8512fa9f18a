use super::bed::{self, golden, host, import};

#[test]
#[ignore = "run inside a simulated host by zones_on_a_simulated_host"]
fn a_golden_disk_is_imported_verified_and_rolled_back() {
    bed::prepare();
    let label = "debian".parse().unwrap();
    let numbers = || {
        golden()
            .versions(&label)
            .unwrap()
            .iter()
            .map(|v| v.number)
            .collect::<Vec<_>>()
    };
    assert_eq!(numbers(), [1]);
    golden().verify(&label).unwrap();
    assert_eq!((import(b"two"), import(&[7; 3_000_000])), (2, 3));
    assert_eq!(numbers(), [2, 3], "one to go back to is kept");
    golden().verify(&label).unwrap();
    assert_eq!(golden().rollback(&label).unwrap().number, 2);
    assert_eq!(numbers(), [2]);
    assert!(golden().rollback(&label).is_err());
    let file = std::path::Path::new("/run/disk.raw");
    let before = host().state().unwrap();
    let error = golden().import(file, &label, &"0".repeat(64)).unwrap_err();
    assert!(error.to_string().contains("nothing was changed"), "{error}");
    assert_eq!(host().state().unwrap(), before);
    let volume = host().root().join("dev/zvol/rdsk/rpool/hci/images/debian/v2");
    std::fs::write(volume, b"xwo").unwrap();
    assert!(golden().verify(&label).unwrap_err().to_string().contains("read back"));
    // All that setup does is there: the second time there is nothing to do.
    let missing = helios_ci::machine::zone::setup::missing(&"n1".parse().unwrap(), &bed::zone()).unwrap();
    assert!(missing.is_empty(), "{missing:?}");
}
