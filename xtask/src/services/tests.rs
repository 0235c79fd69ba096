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

/// As much of a Compose file as is compared.
#[derive(serde::Deserialize)]
struct Compose {
    services: BTreeMap<String, ComposeService>,
}

#[derive(serde::Deserialize)]
struct ComposeService {
    #[serde(default)]
    image: String,
    #[serde(default)]
    environment: BTreeMap<String, String>,
    #[serde(default)]
    ports: Vec<String>,
}

fn compose_file() -> Compose {
    let text = fs::read_to_string(crate::machine::workspace().join("docker-compose.yml")).expect("read");
    serde_saphyr::from_str(&text).expect("parse")
}

/// Goal: a test that runs against native servers runs unchanged against those of Compose.
#[test]
fn compose_publishes_the_variables_credentials_and_buckets_of_the_native_servers() {
    let published = read_env_file(&crate::machine::workspace().join(".ci/compose.env")).expect("read");
    let native = minio::MinIo.addresses(9000).into_iter();
    let native = native.chain(postgres::Postgres.addresses(5432)).chain(opensearch::OpenSearch.addresses(9200));
    assert_eq!(published, native.collect::<Addresses>());

    let compose = compose_file();
    let check = |service: &str, ports: &[&str], environment: &[(&str, String)]| {
        let service = &compose.services[service];
        assert_eq!(service.ports, ports);
        for (name, value) in environment {
            assert_eq!(service.environment.get(*name), Some(value), "{name}");
        }
    };
    let kms = format!("{}:{}", names::S3_KMS_KEY, names::S3_KMS_SECRET);
    check(
        "minio",
        &["127.0.0.1:9000:9000"],
        &[
            ("MINIO_ROOT_USER", names::S3_ACCESS_KEY.to_owned()),
            ("MINIO_ROOT_PASSWORD", names::S3_SECRET_KEY.to_owned()),
            ("MINIO_KMS_SECRET_KEY", kms),
        ],
    );
    check(
        "postgres",
        &["127.0.0.1:5432:5432"],
        &[
            ("POSTGRES_USER", names::POSTGRES_USER.to_owned()),
            ("POSTGRES_PASSWORD", names::POSTGRES_PASSWORD.to_owned()),
            ("POSTGRES_DB", names::POSTGRES_DATABASE.to_owned()),
        ],
    );
    check("opensearch", &["127.0.0.1:9200:9200"], &[]);
    check(
        "hydrant",
        &["127.0.0.1:4573:4573"],
        &[
            ("AWS_ACCESS_KEY_ID", names::S3_ACCESS_KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", names::S3_SECRET_KEY.to_owned()),
        ],
    );
}

#[test]
fn every_image_of_compose_is_pinned_by_a_tag() {
    for (name, service) in compose_file().services {
        let tag = service.image.rsplit_once(':').map(|(_, tag)| tag);
        assert!(tag.is_some_and(|tag| !tag.is_empty() && tag != "latest"), "{name}: {}", service.image);
    }
}
