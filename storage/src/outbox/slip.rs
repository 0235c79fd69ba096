//! The slip *send before seal*, see [`crash`](crate::crash): a seal says that it is done while its file still has the
//! temporary name, which the next open removes; reads find it there; and it gets its name a little later.

use std::sync::Arc;

use hydrant_core::BatchId;

use super::{TEMPORARY, file_name};
use crate::crash;
use crate::folder::Folder;

/// Names the file of a batch when there was time to send it.
pub(super) fn name_later(folder: &Folder, batch: BatchId) {
    let files = Arc::clone(&folder.files);
    let (from, to) = (folder.path(&format!("{batch}{TEMPORARY}")), folder.path(&file_name(batch)));
    std::thread::spawn(move || {
        crash::linger();
        drop(files.rename(&from, &to));
    });
}

/// The name that the file of a batch has now.
pub(super) fn name_now(folder: &Folder, batch: BatchId) -> String {
    let name = file_name(batch);
    if folder.files.open_read_only(&folder.path(&name)).is_ok() { name } else { format!("{batch}{TEMPORARY}") }
}
