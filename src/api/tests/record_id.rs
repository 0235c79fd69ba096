//! Record ids: short, and only ours are read back.

use hydrant_core::Position;
use proptest::prelude::*;

use crate::api::RecordId;

proptest! {
    #[test]
    fn an_id_is_read_back_as_it_was_written(incarnation: u64, position: u64) {
        let id = RecordId { incarnation, position: Position::new(position) };
        let text = id.to_string();
        prop_assert_eq!(text.len(), RecordId::LEN);
        prop_assert_eq!(RecordId::parse(&text), Some(id));
    }

    #[test]
    fn an_id_with_one_character_changed_is_not_one_of_ours(
        incarnation: u64, position: u64, at in 0..RecordId::LEN, to in "[A-Za-z0-9+/=]",
    ) {
        let text = RecordId { incarnation, position: Position::new(position) }.to_string();
        let mut changed = text.clone();
        changed.replace_range(at..=at, &to);
        prop_assume!(changed != text);
        prop_assert_eq!(RecordId::parse(&changed), None);
    }
}
