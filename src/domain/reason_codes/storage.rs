//! Codes of stores: objects, bus files, journals, indexes.

use super::{Chapter, CodeClass::*, Speaker::*, row};

/// Stores.
pub const CHAPTER: Chapter = Chapter {
    title: "Bus, journal, index, objects",
    codes: &[
        row(
            "EB_RECORD_INVALID",
            &[Bus],
            FixTheCause,
            "a record on the bus is not JSON",
            "the file was changed from outside; restore the run from a copy",
        ),
        row(
            "FORMAT_VERSION_UNKNOWN",
            &[Store],
            FixTheCause,
            "a file is of a newer format than this program knows",
            "use the program that wrote it, or a newer one",
        ),
        row(
            "GOVERNANCE_EVENT_INVALID",
            &[Store],
            FixTheCause,
            "a governance fact breaks its schema and was not stored",
            "report it: it is a fault of the program",
        ),
        row(
            "RECEIPT_ORIGINAL_DIFFERS",
            &[Store],
            FixTheCause,
            "a duplicate points to a row that is not its admission",
            "the journal was changed from outside; restore the run from a copy",
        ),
        row(
            "RECEIPT_ORIGINAL_MISSING",
            &[Store],
            FixTheCause,
            "a duplicate points to a row that is not there",
            "the journal was changed from outside; restore the run from a copy",
        ),
        row(
            "SQLITE_EXPORT_FAILED",
            &[Store],
            WaitAndRetry,
            "the SQLite file could not be written; it is as it was",
            "check path, permissions and disk",
        ),
        row(
            "STORE_DAMAGED",
            &[Store],
            FixTheCause,
            "a file is damaged; the sentence names file and byte",
            "restore the run from a copy; nothing is guessed",
        ),
        row(
            "STORE_KEY_INVALID",
            &[Store],
            FixTheCause,
            "a name leaves its folder or holds characters that are not allowed",
            "fix the id that is named",
        ),
        row(
            "STORE_LOCKED",
            &[Store],
            WaitAndRetry,
            "another process has this run open",
            "end the other process; its number stands in `ig/gate.lock`",
        ),
        row(
            "STORE_ROOT_NOT_FOUND",
            &[Store],
            FixTheCause,
            "the root is not a folder",
            "create it, or fix the path",
        ),
        row(
            "STORE_UNAVAILABLE",
            &[Store],
            WaitAndRetry,
            "the store did not do what it was asked: full, read-only, pruned, or another partition count than the settings",
            "the sentence names operation, path and cause",
        ),
    ],
};
