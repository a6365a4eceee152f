//! The static files of the page, and their addresses.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::sync::OnceLock;

use bytes::Bytes;
use rust_embed::RustEmbed;
use sha2::{Digest as _, Sha256};

/// The script of the chat. The scripts that it imports are sent with it, except this one, which other pages use too.
const CHAT: &str = "chat.js";
const RUNTIME: &str = "runtime.js";

/// The static files of the page. A release build contains them; a debug build reads them from disk.
#[derive(RustEmbed)]
#[folder = "static/"]
pub struct Static;

/// A file as it is sent.
#[derive(Clone)]
pub struct Sent {
    /// What is sent.
    pub content: Bytes,
    /// The id of the content: 16 hexadecimal digits of its SHA-256.
    pub tag: String,
}

impl Static {
    /// The address of a file. It contains the id of the [build](Self::build), so its content never
    /// changes. All files of a build are in one directory, so that scripts can find each other.
    pub fn address(build: &str, path: &str) -> Option<String> {
        let is_sent = !is_part(path) && Self::get(path).is_some();
        is_sent.then(|| format!("/static/{build}/{path}"))
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

    /// A file as it is sent. The comments and types of scripts, the comments of style sheets, and the empty lines,
    /// indentation and most line breaks of both are for those who read the code, so they are left out. No string in
    /// them may have several lines.
    ///
    /// The scripts of the chat are sent as one: compressed together, they take a quarter less, and a browser requests
    /// two files instead of many.
    pub fn sent(path: &str) -> Option<Sent> {
        static SENT: OnceLock<HashMap<String, Sent>> = OnceLock::new();
        let all = || {
            let all =
                Self::iter().filter_map(|path| Some((path.to_string(), Self::prepared(&path)?)));
            all.collect()
        };
        match cfg!(debug_assertions) {
            true => Self::prepared(path),
            false => SENT.get_or_init(all).get(path).cloned(),
        }
    }

    fn prepared(path: &str) -> Option<Sent> {
        if is_part(path) {
            return None;
        }
        let data = Self::get(path)?.data;
        let content = match path.rsplit_once('.') {
            Some(_) if path.strip_prefix("js/") == Some(CHAT) => chat_script()?.into(),
            Some((_, "js")) => without_comments(str::from_utf8(&data).ok()?, "/**").into(),
            Some((_, "css")) => without_comments(str::from_utf8(&data).ok()?, "/*").into(),
            _ => match data {
                Cow::Borrowed(data) => Bytes::from_static(data),
                Cow::Owned(data) => data.into(),
            },
        };
        let tag = hexadecimal(&Sha256::digest(&content));
        Some(Sent { content, tag })
    }
}

/// Whether a file is sent as a part of the chat's script.
fn is_part(path: &str) -> bool {
    let script = path.strip_prefix("js/");
    script.is_some_and(|script| script != CHAT && script != RUNTIME)
}

/// The script of the chat and those that it imports as one, in the order in which a browser would run them.
/// What they declare at the top has the same scope then, so no name may be declared twice.
fn chat_script() -> Option<String> {
    let mut parts = Parts::default();
    parts.add(CHAT)?;
    let shared: Vec<_> = parts.shared.into_iter().collect();
    let shared = shared.join(", ");
    let body = without_comments(&parts.body, "/**");
    Some(format!(
        "import {{ {shared} }} from \"./{RUNTIME}\";\n{body}"
    ))
}

/// Scripts without their imports and exports.
#[derive(Default)]
struct Parts {
    added: BTreeSet<String>,
    /// What they import of the runtime.
    shared: BTreeSet<String>,
    body: String,
}

impl Parts {
    /// Adds a script after those that it imports. `None` if one of them does not exist.
    fn add(&mut self, script: &str) -> Option<()> {
        if !self.added.insert(script.to_owned()) {
            return Some(());
        }
        let file = Static::get(&format!("js/{script}"))?;
        let text = str::from_utf8(&file.data).ok()?;
        let (mut imports, mut body) = (String::new(), String::new());
        for line in text.lines() {
            let is_within = !imports.is_empty() && !imports.ends_with(';');
            if is_within || line.starts_with("import ") {
                imports += line;
            } else {
                body += line.strip_prefix("export ").unwrap_or(line);
                body.push('\n');
            }
        }
        for import in imports.split_terminator(';') {
            let (names, script) = import.split_once("\"./")?;
            let script = script.trim_end_matches('"');
            if script == RUNTIME {
                let names = names.split(['{', '}']).nth(1)?;
                let names = names.split(',').map(str::trim);
                let names = names.filter(|name| !name.is_empty());
                self.shared.extend(names.map(str::to_owned));
            } else {
                self.add(script)?;
            }
        }
        self.body += &body;
        Some(())
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
        for path in ["js/chat.js", "js/runtime.js"] {
            let sent = Static::sent(path).unwrap();
            compressed.write_all(&sent.content).unwrap();
        }
        let size = compressed.finish().unwrap().len();
        assert!((10_000..=20_480).contains(&size), "{size} bytes");
    }

    /// They are sent as one script, in which the second declaration would be an error.
    #[test]
    fn no_name_is_declared_by_two_scripts_of_the_chat() {
        let declared = regex::Regex::new(
            r"(?m)^(?:export )?(?:async )?(?:const|let|class|function) (?:\{ (.+) \}|(\w+))",
        );
        let declared = declared.unwrap();
        let mut known = HashMap::from(
            ["hooks", "on", "root", "send"].map(|name| (name.to_owned(), RUNTIME.to_owned())),
        );
        for path in
            Static::iter().filter(|path| path.starts_with("js/") && !path.ends_with(RUNTIME))
        {
            let file = Static::get(&path).unwrap();
            for found in declared.captures_iter(str::from_utf8(&file.data).unwrap()) {
                let names = found.get(1).or(found.get(2)).unwrap().as_str();
                for name in names.split(", ") {
                    let other = known.insert(name.to_owned(), path.to_string());
                    assert_eq!(other, None, "{path} declares {name} too");
                }
            }
        }
        assert!(known.len() > 100, "{known:?}");
    }

    #[test]
    fn the_scripts_of_the_chat_are_sent_as_one() {
        let sent = Static::sent("js/chat.js").unwrap();
        let script = str::from_utf8(&sent.content).unwrap();
        let imports = "import { hooks, on, root, send } from \"./runtime.js\";\n";
        assert_eq!(script.matches("import ").count(), 1);
        assert!(script.starts_with(imports), "{script}");
        assert!(!script.contains("export "));
        // What others import comes before them.
        let at = |text: &str| script.find(text).expect(text);
        assert!(at("function find(") < at("let me = "));
        assert!(at("let me = ") < at("hooks.opening"));
        for path in Static::iter().filter(|path| is_part(path)) {
            assert!(Static::sent(&path).is_none(), "{path}");
            assert_eq!(Static::address("0", &path), None);
        }
    }
}
