//! Where storage makes something durable.

/// One fsync, or one write of what is there already, without which an fsync would do nothing.
pub(super) struct Site {
    /// What it makes durable.
    pub(super) name: &'static str,
    /// What could be lost or wrong without it.
    pub(super) breaks: &'static str,
    /// Where it is.
    pub(super) file: &'static str,
    /// The text around it, there once.
    pub(super) place: &'static str,
    /// The call, once in that text. Gives a `Result` of nothing.
    pub(super) call: &'static str,
}

impl Site {
    /// What the tests of its own part have in their names.
    pub(super) fn part(&self) -> &'static str {
        match self.name.split(':').next() {
            Some("log") => "log::",
            Some("outbox") => "outbox::",
            Some("ledger") => "ledger::",
            Some("catalog" | "data directory") => "catalog::",
            Some("real disk") => "real::",
            _ => "",
        }
    }
}

/// All of them, in the order of a record's road.
pub(super) const SITES: &[Site] = &[
    Site {
        name: "log: append",
        breaks: "acknowledged records are gone after a power cut",
        file: "storage/src/log/commit.rs",
        place: "else { segment.file.sync() };",
        call: "segment.file.sync()",
    },
    Site {
        name: "log: header of a new segment",
        breaks: "the name of a segment stands for a file without a header, or with the header of an earlier life",
        file: "storage/src/log/segment.rs",
        place: "file.sync().map_err(MakeError::Unsure)?;",
        call: "file.sync()",
    },
    Site {
        name: "log: name of a new segment",
        breaks: "acknowledged records lie in a file without a name",
        file: "storage/src/log/segment.rs",
        place: "rack.sync_dir().map_err(MakeError::Unsure)?;",
        call: "rack.sync_dir()",
    },
    Site {
        name: "log: names of forgotten segments",
        breaks: "a spare is written over while its old name may come back, with new bytes under it",
        file: "storage/src/log/rack.rs",
        place: "self.sync_dir().map_err(ForgetError::Unsure)?;",
        call: "self.sync_dir()",
    },
    Site {
        name: "log: folder at an open",
        breaks: "a spare that the last process did not live to put away for good is written over while its old name may come back",
        file: "storage/src/log/recover.rs",
        place: "files.sync_dir(dir).map_err(OpenError::io(\"sync folder\", dir))?;",
        call: "files.sync_dir(dir)",
    },
    Site {
        name: "log: newest segment at an open",
        breaks: "records that only the page cache held are read, acted on, and gone after the next power cut",
        file: "storage/src/log/tail.rs",
        place: "segment.file.sync().map_err(OpenError::io(\"sync segment\", &path))?;",
        call: "segment.file.sync()",
    },
    Site {
        name: "log: last round written again at an open",
        breaks: "after a failed fsync the kernel shows bytes that no later fsync writes",
        file: "storage/src/log/tail.rs",
        place: "file.write_at(at, &[IoSlice::new(part.split_at(count).0)])?;",
        call: "file.write_at(at, &[IoSlice::new(part.split_at(count).0)])",
    },
    Site {
        name: "outbox: batch file",
        breaks: "a batch that the ledger owes, and that the log has forgotten, is torn",
        file: "storage/src/outbox/mod.rs",
        place: "        self.folder.sync_file(file)?;\n        crash",
        call: "self.folder.sync_file(file)",
    },
    Site {
        name: "outbox: name of a batch",
        breaks: "a batch that the ledger owes, and that the log has forgotten, is gone",
        file: "storage/src/outbox/mod.rs",
        place: "crash::reach(named);\n        self.folder.sync()\n",
        call: "self.folder.sync()",
    },
    Site {
        name: "outbox: removals",
        breaks: "a settled batch comes back after the ledger has forgotten it, and is sent again",
        file: "storage/src/outbox/mod.rs",
        place: "        inner.folder.sync().map_err(io::Error::other)?;\n        inner.reserve",
        call: "inner.folder.sync()",
    },
    Site {
        name: "outbox: folder at an open",
        breaks: "a batch is adopted whose name the next power cut takes back",
        file: "storage/src/outbox/mod.rs",
        place: "self.folder.sync().map_err(|source| OpenError::Unsure { path: path(), source })?;",
        call: "self.folder.sync()",
    },
    Site {
        name: "outbox: name of a damaged batch",
        breaks: "a damaged batch comes back after its records were sealed again",
        file: "storage/src/folder.rs",
        place: "crash::reach(Point::AsideNamed);\n                self.sync().map_err(io::Error::other)",
        call: "self.sync()",
    },
    Site {
        name: "ledger: append",
        breaks: "a settled batch is unlinked and still owed, or sent to two stores",
        file: "storage/src/ledger/mod.rs",
        place: "self.folder.sync_file(&*self.current.file).map_err(LedgerError::Poisoned)?;",
        call: "self.folder.sync_file(&*self.current.file)",
    },
    Site {
        name: "ledger: checkpoint file",
        breaks: "the old ledger is unlinked and the new one is torn",
        file: "storage/src/ledger/mod.rs",
        place: "        folder.sync_file(&*file)?;\n        crash",
        call: "folder.sync_file(&*file)",
    },
    Site {
        name: "ledger: name of a checkpoint",
        breaks: "the log forgets what the old ledger, which comes back, does not know as sealed",
        file: "storage/src/ledger/mod.rs",
        place: "crash::reach(Point::CheckpointNamed);\n        folder.sync()\n",
        call: "folder.sync()",
    },
    Site {
        name: "ledger: file at an open",
        breaks: "entries that only the page cache held are acted on, and gone after the next power cut",
        file: "storage/src/ledger/mod.rs",
        place: ".and_then(|()| folder.sync_file(&*file))",
        call: "folder.sync_file(&*file)",
    },
    Site {
        name: "ledger: written again at an open",
        breaks: "after a failed fsync the kernel shows entries that no later fsync writes",
        file: "storage/src/ledger/mod.rs",
        place: "folder.poison.guard(renew(&*file, &bytes, &scanned))",
        call: "renew(&*file, &bytes, &scanned)",
    },
    Site {
        name: "ledger: folder at an open",
        breaks: "a checkpoint is acted on whose name the next power cut takes back",
        file: "storage/src/ledger/mod.rs",
        place: ".and_then(|()| folder.sync())\n            .map_err(|source| OpenError::Unsure { path: path.clone(), source })?;",
        call: "folder.sync()",
    },
    Site {
        name: "catalog: file",
        breaks: "the catalog is torn, and no stream can be opened",
        file: "storage/src/catalog.rs",
        place: "    file.sync()?;\n",
        call: "file.sync()",
    },
    Site {
        name: "catalog: name",
        breaks: "a stream runs that the catalog, which comes back, does not name",
        file: "storage/src/catalog.rs",
        place: "    files.rename(&temporary, &dir.join(name))?;\n    files.sync_dir(dir)\n",
        call: "files.sync_dir(dir)",
    },
    Site {
        name: "catalog: directory at an open",
        breaks: "a stream is acted on that the next power cut takes out of the catalog",
        file: "storage/src/catalog.rs",
        place: "        files.sync_dir(path).map_err(fail)?;\n        Ok(Self",
        call: "files.sync_dir(path)",
    },
    Site {
        name: "data directory: its own name",
        breaks: "a data directory that was just made is gone, streams and all",
        file: "storage/src/catalog/lock.rs",
        place: "Err(_) | Ok(()) => files.sync_dir(parent),",
        call: "files.sync_dir(parent)",
    },
    Site {
        name: "real disk: file",
        breaks: "everything above, on every machine",
        file: "storage/src/files/real.rs",
        place: "Ok(fdatasync(&self.0)?)",
        call: "fdatasync(&self.0)",
    },
    Site {
        name: "real disk: folder",
        breaks: "every rename and removal above, on every machine",
        file: "storage/src/files/real.rs",
        place: "fs::File::open(dir)?.sync_all()",
        call: "fs::File::open(dir)?.sync_all()",
    },
    Site {
        name: "real disk: name of a new folder",
        breaks: "a stream's folders are gone, although the catalog names it",
        file: "storage/src/files/real.rs",
        place: "Some(parent) => self.sync_dir(parent),",
        call: "self.sync_dir(parent)",
    },
];

#[cfg(test)]
mod tests {
    use super::SITES;
    use crate::machine::workspace;

    #[test]
    fn each_site_is_in_its_file_once() {
        for site in SITES {
            let text = std::fs::read_to_string(workspace().join(site.file)).unwrap();
            assert_eq!(
                (text.matches(site.place).count(), site.place.matches(site.call).count()),
                (1, 1),
                "{}",
                site.name
            );
        }
    }
}
