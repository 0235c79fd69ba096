use super::*;

#[test]
fn an_env_file_is_read_back_as_it_was_written() {
    let addresses: Addresses = minio::MinIo.addresses(9000);
    let folder = Scratch::new("test").expect("make a folder");
    let file = folder.path().join("env");
    fs::write(&file, format!("# servers\n\n{}", env_file(&addresses))).expect("write");
    assert_eq!(read_env_file(&file).expect("read"), addresses);
    fs::write(&file, "HYDRANT_TEST_S3_ENDPOINT\n").expect("write");
    assert!(read_env_file(&file).is_err());
}

#[test]
fn every_service_tests_need_is_known_and_no_two_share_a_name_or_a_variable() {
    assert_eq!(chosen(&[]).expect("known").len(), NEEDED_BY_TESTS.len());
    assert!(chosen(&["mino".to_owned()]).is_err());
    let variables: Vec<String> = ALL.iter().flat_map(|service| service.addresses(1).into_keys()).collect();
    let distinct: std::collections::BTreeSet<&String> = variables.iter().collect();
    assert_eq!(variables.len(), distinct.len());
}
