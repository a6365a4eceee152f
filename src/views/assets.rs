//! The static files of the page, and their addresses.

use std::sync::OnceLock;

use rust_embed::RustEmbed;
use sha2::{Digest as _, Sha256};

/// The static files of the page. A release build contains them; a debug build reads them from disk.
#[derive(RustEmbed)]
#[folder = "static/"]
pub struct Static;

impl Static {
    /// The address of a file. It contains the id of the [build](Self::build), so its content never
    /// changes. All files of a build are in one directory, so that scripts can find each other.
    pub fn address(build: &str, path: &str) -> Option<String> {
        Self::get(path)?;
        Some(format!("/static/{build}/{path}"))
    }

    /// The addresses of the scripts that the chat's main script imports, which the page loads early.
    pub fn imported(build: &str) -> Vec<String> {
        let scripts = Self::iter().filter(|path| path.starts_with("js/") && path != "js/chat.js");
        scripts
            .filter_map(|path| Self::address(build, &path))
            .collect()
    }

    /// The id of a build: 16 hexadecimal digits of a SHA-256 over all its files.
    pub fn build() -> String {
        static BUILD: OnceLock<String> = OnceLock::new();
        let hash = || {
            let mut hash = Sha256::new();
            for path in Self::iter() {
                hash.update(path.as_bytes());
                hash.update(Self::get(&path).map_or([0; 32], |file| file.metadata.sha256_hash()));
            }
            hexadecimal(&hash.finalize())
        };
        match cfg!(debug_assertions) {
            true => hash(),
            false => BUILD.get_or_init(hash).clone(),
        }
    }

    /// The id of a file's content: 16 hexadecimal digits of its SHA-256.
    pub fn tag(path: &str) -> Option<String> {
        Some(hexadecimal(&Self::get(path)?.metadata.sha256_hash()))
    }
}

/// The first eight bytes of a hash.
fn hexadecimal(hash: &[u8]) -> String {
    let bytes = hash.iter().take(8);
    bytes.map(|byte| format!("{byte:02x}")).collect()
}
