use std::collections::BTreeMap;
use std::sync::Mutex;

use async_trait::async_trait;
use hydrant_core::{FaultCode, Timestamp};
use hydrant_kit::conformance::MemoryBlob;

use super::*;
use crate::config::{self, LocalSecrets};
use crate::encode::name::NameParts;

/// An object's bytes and its metadata.
type Kept = (Vec<u8>, Vec<(String, String)>);

/// A store in memory.
#[derive(Default)]
struct Store {
    objects: BTreeMap<String, Kept>,
    /// Most names that were held for one call.
    most: Mutex<usize>,
}

#[async_trait]
impl ObjectSource for Store {
    async fn list(&self, prefix: &str, after: Option<&str>, max: usize) -> Result<Vec<Listed>, Fault> {
        let wanted = self
            .objects
            .iter()
            .filter(|(key, _)| key.starts_with(prefix) && after.is_none_or(|after| key.as_str() > after));
        let listed: Vec<Listed> =
            wanted.take(max).map(|(key, (body, _))| Listed { key: key.clone(), len: body.len() as u64 }).collect();
        let mut most = self.most.lock().unwrap();
        *most = listed.len().max(*most);
        Ok(listed)
    }

    async fn open(&self, key: &str) -> Result<Stored, Fault> {
        let (body, metadata) = self.objects.get(key).ok_or_else(|| Fault::new(FaultCode::NotFound, "no such key"))?;
        Ok(Stored {
            content_type: None,
            content_encoding: None,
            metadata: metadata.clone(),
            body: Arc::new(MemoryBlob(body.clone().into())),
        })
    }
}

fn spec() -> StreamSpec {
    let yaml = "stores:\n  spare:\n    file: { path: ./spare }\n  out:\n    file: { path: ./out }\nstreams:\n  web:\n    sink:\n      \
        file: { store: out }\n    dead_letter: { store: spare, error_prefix: dead/ }\n";
    let loaded = config::parse("test", yaml.as_bytes(), &LocalSecrets).unwrap();
    loaded.spec.streams["web"].clone()
}

fn key(stream: &str, number: u32) -> String {
    let batch = hydrant_core::BatchId::from_bytes(u128::from(number).to_be_bytes());
    let oldest_arrival = Timestamp::from_millis(1_763_720_000_000 + u64::from(number) * 1000);
    spec()
        .dead_letter
        .error_prefix
        .key(ErrorType::DeliveryFailed, &NameParts { stream, version: 1, oldest_arrival, batch, extension: "" })
}

fn line(record: &str) -> String {
    let data = base64_simd::STANDARD.encode_to_string(record);
    format!(
        "{{\"attemptsMade\":1,\"arrivalTimestamp\":1,\"errorCode\":\"invalid\",\"errorMessage\":\"no\",\
         \"attemptEndingTimestamp\":2,\"rawData\":\"{data}\",\"pieceId\":\"7\",\"stage\":\"deliver\",\"outcomeUnknown\":false}}\n"
    )
}

fn store(objects: impl IntoIterator<Item = (String, String)>) -> Arc<Store> {
    let objects = objects.into_iter().map(|(key, body)| (key, (body.into_bytes(), Vec::new()))).collect();
    Arc::new(Store { objects, most: Mutex::default() })
}

async fn keys(shelf: &Shelf) -> Vec<String> {
    let (mut walk, mut keys) = (shelf.walk(), Vec::new());
    while let Some(found) = walk.next().await.unwrap() {
        keys.push(found.key);
    }
    keys
}

/// The records of an object; a line that is none as `?`.
async fn records(body: &str) -> Option<Vec<(u32, String)>> {
    let shelf = Shelf::new(&spec(), store([(key("web", 1), body.to_owned())]));
    let found = shelf.walk().next().await.unwrap().unwrap();
    let Content::Letters(mut letters) = shelf.open(&found).await.unwrap() else { return None };
    let mut records = Vec::new();
    while let Some((number, letter)) = letters.next().await.unwrap() {
        let record = letter.map_or("?".to_owned(), |letter| String::from_utf8(letter.raw_data).unwrap());
        records.push((number, record));
    }
    Some(records)
}

#[tokio::test]
async fn of_a_shared_store_of_thousands_only_the_streams_own_are_found_and_a_page_is_held() {
    let own: Vec<String> = (0..10_000).map(|number| key("web", number)).collect();
    let others = (0..3_000).flat_map(|number| [key("web-1", number), key("we", number)]);
    let strangers = ["dead/delivery-failed/notes.txt", "dead/delivery-failed/web-1-2025.gz", "web"].map(str::to_owned);
    let all = own.iter().cloned().chain(others).chain(strangers);
    let store = store(all.map(|key| (key, String::new())));
    let shelf = Shelf::new(&spec(), Arc::clone(&store) as _);
    let mut expected = own;
    expected.sort();
    assert!(keys(&shelf).await == expected);
    assert_eq!(*store.most.lock().unwrap(), PAGE);
}

#[tokio::test]
async fn an_object_is_read_line_by_line_and_a_broken_line_hides_no_other() {
    let [one, two, large] = [line("one"), line("two"), line(&"x".repeat(3 << 20))];
    let told = |records: &[(u32, &str)]| Some(records.iter().map(|(at, text)| (*at, (*text).to_owned())).collect());
    assert_eq!(records(&[one.as_str(), &two].concat()).await, told(&[(0, "one"), (1, "two")]));
    assert_eq!(
        records(&[one.as_str(), "{\n", two.trim_end()].concat()).await,
        told(&[(0, "one"), (1, "?"), (2, "two")])
    );
    assert_eq!(records("").await, told(&[]));
    let read = records(&[one.as_str(), &large, &two].concat()).await.unwrap();
    assert_eq!(read.iter().map(|(_, record)| record.len()).collect::<Vec<_>>(), [3, 3 << 20, 3]);
}

#[tokio::test]
async fn what_holds_no_letter_and_tells_no_place_is_unknown() {
    for body in ["one, two, three", "{}\n{}\n", &"x".repeat(LINE_BYTES_MAX + 1)] {
        assert_eq!(records(body).await, None);
    }
}

#[tokio::test]
async fn an_object_that_went_there_whole_tells_where_it_was_meant_to_go() {
    let key = key("web", 1);
    let intended = Intended { store: "s3://lake".to_owned(), key: "web/1.gz".to_owned() };
    let kept = ("a".to_owned(), "kept".to_owned());
    let metadata = [vec![kept.clone()], intended.metadata().to_vec()].concat();
    let objects = [(key, (line("one").into_bytes(), metadata))].into();
    let shelf = Shelf::new(&spec(), Arc::new(Store { objects, most: Mutex::default() }));
    let found = shelf.walk().next().await.unwrap().unwrap();
    let Content::Whole(whole) = shelf.open(&found).await.unwrap() else { panic!("it is whole") };
    assert_eq!((whole.intended, whole.stored.metadata), (intended, vec![kept]));
}

#[tokio::test]
async fn more_lines_than_an_object_of_ours_can_have_are_not_read() {
    let body = line("x").repeat(usize::try_from(LETTERS_MAX).unwrap() + 1);
    let shelf = Shelf::new(&spec(), store([(key("web", 1), body)]));
    let found = shelf.walk().next().await.unwrap().unwrap();
    let Content::Letters(mut letters) = shelf.open(&found).await.unwrap() else { panic!("they are letters") };
    for _ in 0..LETTERS_MAX {
        assert!(matches!(letters.next().await, Ok(Some((_, Some(_))))));
    }
    assert!(letters.next().await.unwrap_err().is_of_object());
}
