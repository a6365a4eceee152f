//! The static files of the page, and their addresses.

use std::borrow::Cow;
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

    /// The content of a file as it is sent. The comments and types of scripts, the comments of style sheets,
    /// and the empty lines, indentation and most line breaks of both are for those who read the code, so they are
    /// left out. No string in them may have several lines.
    pub fn sent(path: &str) -> Option<Cow<'static, [u8]>> {
        let data = Self::get(path)?.data;
        let mark = match path.rsplit_once('.') {
            Some((_, "js")) => "/**",
            Some((_, "css")) => "/*",
            _ => return Some(data),
        };
        let text = str::from_utf8(&data).ok()?;
        Some(without_comments(text, mark).into_bytes().into())
    }

    /// The id of a file's content: 16 hexadecimal digits of its SHA-256.
    pub fn tag(path: &str) -> Option<String> {
        Some(hexadecimal(&Self::get(path)?.metadata.sha256_hash()))
    }
}

/// A text without empty lines, indentation, the comments that begin with this mark and have lines of their own,
/// and those that say of which type a value is.
fn without_comments(text: &str, mark: &str) -> String {
    let mut is_within = false;
    let lines = text.lines().map(str::trim_start).filter(|line| {
        let ends = line.contains("*/");
        // In front of code, it may say of which type a value is.
        let begins = line.starts_with(mark) && (!ends || line.ends_with("*/"));
        let is_doc = is_within || begins;
        is_within = is_doc && !ends;
        let is_note = line.starts_with("//");
        !is_doc && !is_note && !line.is_empty()
    });
    let is_script = mark == "/**";
    let lines = lines.map(|line| {
        let line = match is_script {
            true => without_types(line),
            false => without_spaces(line),
        };
        // Behind these, a line break means nothing, unless it ends a note.
        let ends = line.ends_with(['{', ';', ',']) || !is_script && line.ends_with('}');
        let end = if ends && !line.contains("//") {
            ""
        } else {
            "\n"
        };
        line + end
    });
    lines.collect()
}

/// A line of a style sheet without the spaces that mean nothing there.
fn without_spaces(line: &str) -> String {
    let spaces = [": ", " {", "{ ", "; ", " }", ", "].into_iter();
    // In a string they are part of it.
    let spaces = spaces.filter(|_| !line.contains('"'));
    spaces.fold(line.to_owned(), |line, with| {
        line.replace(with, with.trim())
    })
}

/// A line without `/** @type {…} */` in front of values.
fn without_types(line: &str) -> String {
    let mut parts = line.split("/** @type {");
    let code = parts.next().unwrap_or_default().to_owned();
    parts.fold(code, |code, part| match part.split_once("} */ ") {
        Some((_, value)) => code + value,
        None => code + "/** @type {" + part,
    })
}

/// The first eight bytes of a hash.
fn hexadecimal(hash: &[u8]) -> String {
    let bytes = hash.iter().take(8);
    bytes.map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    #[test]
    fn scripts_are_sent_without_comments() {
        #[track_caller]
        fn check(script: &str, expected: &str) {
            assert_eq!(without_comments(script, "/**"), expected);
        }
        check("/** One line. */\nlet a;\n", "let a;");
        check(
            "/**\n * @returns {void}\n */\nfunction b() {\n  // A reason.\n}\n",
            "function b() {}\n",
        );
        check("if (a) {\n  b();\n}\n", "if (a) {b();}\n");
        check("e(\"//\"); // f\n", "e(\"//\"); // f\n");
        check("g(); // h;\n", "g(); // h;\n");
        check(
            "  /** @type {Node} */ (c).click(/** @type {{ a: b }} */ (d));\n",
            "(c).click((d));",
        );
        check("const d = \"/**\";\n", "const d = \"/**\";");
        check("e(\"/** @type {\");\n", "e(\"/** @type {\");");
        let style = "/* A\n   reason. */\n\na { b: c; } /* d */\ne,\nf {\n  g:\n    h;\n}\ni { j: \", \"; }\n";
        assert_eq!(
            without_comments(style, "/*"),
            "a{b:c;} /* d */\ne,f{g:\nh;}i { j: \", \"; }"
        );
    }

    #[test]
    fn the_scripts_of_the_page_are_at_most_20_kib() {
        let mut compressed = GzEncoder::new(Vec::new(), Compression::best());
        for path in Static::iter().filter(|path| path.starts_with("js/")) {
            compressed.write_all(&Static::sent(&path).unwrap()).unwrap();
        }
        let size = compressed.finish().unwrap().len();
        assert!((10_000..=20_480).contains(&size), "{size} bytes");
    }
}
