//! Bytes that a stranger may send: those that the fuzz targets in `fuzz/` have found to take different
//! paths, and those that once broke something. `scripts/fuzz` looks for more.

#![allow(clippy::unwrap_used)]

use std::path::Path;

#[path = "../../fuzz/checks.rs"]
mod checks;

/// Checks each file of a corpus.
fn check(target: &str, holds: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target);
    let files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    for file in files {
        let data = std::fs::read(&file).unwrap();
        // Names the bytes that fail.
        let failed = std::panic::catch_unwind(|| holds(&data)).is_err();
        assert!(!failed, "{}", file.display());
    }
}

macro_rules! corpora {
    ($($target:ident)*) => {
        $(
            #[test]
            fn $target() {
                check(stringify!($target), checks::$target);
            }
        )*
    };
}

corpora! { action websocket websocket_deflate json_socket query form }
