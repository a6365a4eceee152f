//! Listings in colour: which parts of some code are comments, strings, numbers, keywords and names.
//!
//! A listing is split by regular expressions, so the time that it takes is bounded by its length. The
//! expressions of a language are compiled when it is first used.

use synoptic::{TokOpt, from_extension};

/// A longer listing is shown without colours, in bytes.
const LONGEST: usize = 8 * 1024;

/// The languages, by the names that people use, with those that the crate knows.
const LANGUAGES: [(&str, &[&str]); 26] = [
    ("c", &["c", "h"]),
    ("cpp", &["c++", "cc", "cpp", "cxx", "hpp"]),
    ("cs", &["c#", "cs", "csharp"]),
    ("css", &["css"]),
    ("dart", &["dart"]),
    ("diff", &["diff", "patch"]),
    ("go", &["go", "golang"]),
    ("hs", &["haskell", "hs"]),
    ("html", &["htm", "html"]),
    ("java", &["java"]),
    ("js", &["javascript", "js", "jsx"]),
    ("json", &["json"]),
    ("kt", &["kotlin", "kt"]),
    ("lua", &["lua"]),
    ("md", &["markdown", "md"]),
    ("php", &["php"]),
    ("py", &["py", "python"]),
    ("rb", &["rb", "ruby"]),
    ("rs", &["rs", "rust"]),
    ("scala", &["scala"]),
    ("sh", &["bash", "sh", "shell", "zsh"]),
    ("sql", &["sql"]),
    ("swift", &["swift"]),
    ("toml", &["toml"]),
    ("ts", &["ts", "tsx", "typescript"]),
    ("yaml", &["yaml", "yml"]),
];

/// The classes of the parts that have a colour.
pub const CLASSES: [&str; 7] = [
    "code-comment",
    "code-string",
    "code-number",
    "code-keyword",
    "code-name",
    "code-added",
    "code-removed",
];

/// The parts of a listing and the classes of those that have one, if the language is known.
pub fn parts<'a>(language: &str, code: &'a str) -> Option<Vec<(&'a str, Option<&'static str>)>> {
    let language = language.to_lowercase();
    let is_it = |(_, names): &&(&str, &[&str])| names.contains(&&*language);
    let (known, _) = LANGUAGES.iter().find(is_it)?;
    if code.len() > LONGEST {
        return None;
    }
    // A tab is as wide as any other character, so that the widths of parts are numbers of characters.
    let mut highlighter = from_extension(known, 1)?;
    let lines: Vec<String> = code.split('\n').map(str::to_owned).collect();
    highlighter.run(&lines);
    let mut parts: Vec<(&str, Option<&str>)> = Vec::new();
    let (mut begin, mut at, mut last) = (0, 0, None);
    for (y, line) in lines.iter().enumerate() {
        for token in highlighter.line(y, line) {
            let (text, class) = match token {
                TokOpt::Some(text, name) => (text, class(&name)),
                TokOpt::None(text) => (text, None),
            };
            if class != last {
                parts.push((&code[begin..at], last));
                (begin, last) = (at, class);
            }
            let length = text.chars().count();
            let next = code[at..].char_indices().nth(length);
            at = next.map_or(code.len(), |(bytes, _)| at + bytes);
        }
        at = (at + 1).min(code.len());
    }
    parts.push((&code[begin..], last));
    parts.retain(|(text, _)| !text.is_empty());
    Some(parts)
}

/// The class of what the crate calls a part.
fn class(name: &str) -> Option<&'static str> {
    let class = match name {
        "comment" | "quote" => "code-comment",
        "string" | "character" | "link" => "code-string",
        "digit" | "boolean" | "math" => "code-number",
        "keyword" | "tag" | "header" | "heading" => "code-keyword",
        "attribute" | "function" | "key" | "macro" | "namespace" | "struct" => "code-name",
        "insertion" => "code-added",
        "deletion" => "code-removed",
        _ => return None,
    };
    Some(class)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The part that is exactly this text has this class.
    #[track_caller]
    fn check(language: &str, code: &str, expected: &[(&str, &str)]) {
        let parts = parts(language, code).unwrap();
        let all: String = parts.iter().map(|(text, _)| *text).collect();
        assert_eq!(all, code);
        for (text, class) in expected {
            let found = parts.iter().find(|(part, _)| part.trim() == *text);
            let found = found.and_then(|(_, class)| *class);
            let class = format!("code-{class}");
            assert_eq!(found, Some(&*class), "{text} of {parts:?}");
        }
    }

    #[test]
    fn the_parts_of_code_are_told_apart() {
        check(
            "Rust",
            "fn main() {\n\tlet é = \"東京\"; // 5\n\tf(5)\n}",
            &[
                ("fn", "keyword"),
                ("\"東京\"", "string"),
                ("// 5", "comment"),
                ("5", "number"),
            ],
        );
        check(
            "python",
            "def f():\n    \"\"\"a\n    b\"\"\"\n    return 5 # c",
            &[("def", "keyword"), ("5", "number"), ("# c", "comment")],
        );
        check(
            "js",
            "const a = 'b'; /* c\nd */ let e = 5;",
            &[("const", "keyword"), ("'b'", "string"), ("5", "number")],
        );
        check("json", "{\"a\": 5, \"b\": true}", &[("5", "number")]);
        check("sql", "select a from b where c = 'd'", &[("'d'", "string")]);
        check(
            "sh",
            "if true; then echo \"a\"; fi # b",
            &[("if", "keyword"), ("\"a\"", "string"), ("# b", "comment")],
        );
        check("html", "<!-- a -->\n<p>b</p>", &[("<!-- a -->", "comment")]);
        check("css", "/* a */\nb { c: 5px }", &[("/* a */", "comment")]);
        check(
            "go",
            "func f() string { return \"a\" } // b",
            &[
                ("func", "keyword"),
                ("\"a\"", "string"),
                ("// b", "comment"),
            ],
        );
        check(
            "java",
            "public class A { String b = \"c\"; }",
            &[("public", "keyword"), ("\"c\"", "string")],
        );
        check(
            "c",
            "int a = 5; /* b */",
            &[("5", "number"), ("/* b */", "comment")],
        );
        check("yaml", "a: \"b\" # c", &[("# c", "comment")]);
        check(
            "toml",
            "a = \"b\" # c",
            &[("\"b\"", "string"), ("# c", "comment")],
        );
        check(
            "diff",
            "+ a\n- b\n c",
            &[("+ a", "added"), ("- b", "removed")],
        );
    }

    #[test]
    fn what_is_unknown_or_long_has_no_parts() {
        assert_eq!(parts("cobol", "a"), None);
        assert_eq!(parts("", "a"), None);
        assert_eq!(parts("rust", &"\"".repeat(LONGEST + 1)), None);
        assert!(parts("rust", &"\"".repeat(LONGEST)).is_some());
    }

    #[test]
    fn every_language_is_known_and_each_name_belongs_to_one() {
        let names: Vec<_> = LANGUAGES.iter().flat_map(|(_, names)| *names).collect();
        for name in &names {
            assert_eq!(names.iter().filter(|other| *other == name).count(), 1);
            assert!(parts(name, "a").is_some(), "{name}");
        }
    }

    proptest::proptest! {
        #[test]
        fn code_is_only_split(
            language in 0..LANGUAGES.len(),
            code in "([ -~\n\t]|\"|'|`|/\\*|\\*/|<!--|-->|[{}$#\\\\]|é|東|e\u{301}|👍🏽){0,80}"
        ) {
            let parts = parts(LANGUAGES[language].1[0], &code).unwrap();
            let all: String = parts.iter().map(|(text, _)| *text).collect();
            assert_eq!(all, code);
        }
    }
}
