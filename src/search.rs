//! Search: the words of a text, what people type to find messages, and which messages match it.
//!
//! A text is split into words here, the same for both databases and for messages that are not in an index
//! yet. A word consists of letters and digits, without regard to case, accents and the form of its
//! letters. Scripts that are written without spaces, and Hangul, whose words have endings, are split into
//! overlapping pairs of letters. Nothing here knows SQL statements, rooms or people.

use std::collections::BTreeSet;

use linkify::{LinkFinder, LinkKind};
use unicode_normalization::UnicodeNormalization as _;
use unicode_normalization::char::is_combining_mark;

use crate::model::{Message, MessageId, Millis, Room};

/// Longer words are cut, in bytes. PostgreSQL stores no word of more than 2,046 bytes.
const LONGEST: usize = 128;
/// How much of a long message a result shows, in characters, and how much of that before the first match.
const EXCERPT: usize = 300;
const EXCERPT_BEFORE: usize = 60;
const DAY: std::time::Duration = std::time::Duration::from_secs(24 * 60 * 60);

/// A word of a text, and where it is there.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Word {
    text: String,
    start: usize,
    end: usize,
    /// Whether it is written without a space behind the word before it, whose second letter is its first.
    continues: bool,
}

/// The words of a text in their composed form (Unicode NFC).
fn words(text: &str) -> Vec<Word> {
    let mut words: Vec<Word> = Vec::new();
    // Whether the next letter belongs to the last word, or directly follows it.
    let mut open = false;
    let mut chars = text.char_indices().peekable();
    while let Some((start, c)) = chars.next() {
        let end = start + c.len_utf8();
        if is_ignored(c) {
            continue;
        }
        if matches!(c, '+' | '#') && open {
            let mut symbols = Word {
                text: c.to_string(),
                start,
                end,
                continues: false,
            };
            while let Some((_, c)) = chars.next_if(|(_, c)| matches!(c, '+' | '#')) {
                symbols.text.push(c);
                symbols.end += 1;
            }
            let goes_on = chars.peek().is_some_and(|(_, c)| c.is_alphanumeric());
            let follows_letter = words
                .last()
                .is_some_and(|word| word.text.ends_with(char::is_alphabetic));
            open = false;
            // C++ and C#, but not a+b.
            if follows_letter && (symbols.text.len() > 1 || !goes_on) {
                words.push(symbols);
            }
            continue;
        }
        let mut is_letter = false;
        for c in folded(c) {
            is_letter = true;
            match words.last_mut().filter(|_| open) {
                Some(last) if is_unspaced(c) && last.text.starts_with(is_unspaced) => {
                    last.text.push(c);
                    last.end = end;
                    words.push(one_letter(c, start, end, true));
                }
                Some(last) if !is_unspaced(c) && !last.text.starts_with(is_unspaced) => {
                    if last.text.len() < LONGEST {
                        last.text.push(c);
                    }
                    last.end = end;
                }
                _ => words.push(one_letter(c, start, end, false)),
            }
            open = true;
        }
        open &= is_letter;
    }
    words
}

fn one_letter(c: char, start: usize, end: usize, continues: bool) -> Word {
    Word {
        text: c.to_string(),
        start,
        end,
        continues,
    }
}

/// Accents and other marks that people leave out when they type, and invisible characters. The marks of
/// scripts that cannot do without them, such as the vowels of Hindi, are letters.
fn is_ignored(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{300}'..='\u{36f}' | '\u{483}'..='\u{489}' | '\u{591}'..='\u{5bd}' | '\u{5bf}'
        | '\u{5c1}'..='\u{5c2}' | '\u{5c4}'..='\u{5c5}' | '\u{5c7}' | '\u{610}'..='\u{61a}'
        | '\u{640}' | '\u{64b}'..='\u{65f}' | '\u{670}' | '\u{1ab0}'..='\u{1aff}'
        | '\u{1dc0}'..='\u{1dff}' | '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{20d0}'..='\u{20ff}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{fe20}'..='\u{fe2f}' | '\u{feff}')
}

/// The letters and digits that a character stands for: those of `é`, `E`, `ｅ` and `e` are the same.
fn folded(c: char) -> impl Iterator<Item = char> {
    let bare: String = match c.is_ascii() {
        true => c.to_ascii_lowercase().into(),
        false => {
            let bare: String = c.nfkd().filter(|c| !is_ignored(*c)).collect();
            // Back and forth, so that ß is the same as ss.
            let bare = bare.to_lowercase().to_uppercase().to_lowercase();
            let bare = bare.replace('ς', "σ");
            bare.nfkd().filter(|c| !is_ignored(*c)).nfc().collect()
        }
    };
    let letters: Vec<char> = bare
        .chars()
        .filter(|c| c.is_alphanumeric() || is_combining_mark(*c))
        .collect();
    letters.into_iter()
}

/// Whether words of this letter's script are not separated by spaces, or have endings (Hangul).
fn is_unspaced(c: char) -> bool {
    matches!(c,
        '\u{e00}'..='\u{eff}' | '\u{f00}'..='\u{fff}' | '\u{1000}'..='\u{109f}'
        | '\u{1780}'..='\u{17ff}' | '\u{3005}'..='\u{3007}' | '\u{3040}'..='\u{312f}'
        | '\u{31a0}'..='\u{31ff}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}'
        | '\u{ac00}'..='\u{d7a3}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}')
}

/// Longer beginnings of words are those of so few words that the index compares all of these, in letters.
const LONGEST_HEAD: usize = 4;

/// Whether the index contains the beginnings of words of this length, so that short ones are found quickly.
fn is_head(beginning: &str) -> bool {
    let letters = beginning.chars().count();
    match beginning.starts_with(is_unspaced) {
        true => letters == 1,
        false => (2..=LONGEST_HEAD).contains(&letters),
    }
}

/// The mark of the longest beginning of a word that the index contains.
fn longest_head(word: &str) -> Option<String> {
    let ends = word.char_indices().take(LONGEST_HEAD);
    let heads = ends.map(|(at, c)| &word[..at + c.len_utf8()]);
    let longest = heads.filter(|head| is_head(head)).last();
    longest.map(|head| format!("+{head}"))
}

/// What an index contains of a message: its words in their order, and marks. A mark is a word too, with a
/// first character that no word of a text has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Indexed {
    marks: Vec<String>,
    words: Vec<String>,
}

impl Indexed {
    /// The index entry of a text, with further marks of the message.
    pub fn of(text: &str, mut marks: Vec<String>) -> Self {
        let text: String = text.nfc().collect();
        let words = words(&text).into_iter().map(|word| word.text);
        let words: Vec<String> = words.collect();
        let mut heads = BTreeSet::new();
        for word in &words {
            for (at, c) in word.char_indices().take(LONGEST_HEAD) {
                let head = &word[..at + c.len_utf8()];
                if is_head(head) {
                    heads.insert(format!("+{head}"));
                }
            }
        }
        marks.extend(heads);
        if has_link(&text) {
            marks.push(LINK.to_owned());
        }
        Self { marks, words }
    }

    /// As a text of words with spaces between them.
    pub fn spaced(&self) -> String {
        let all: Vec<_> = self
            .marks
            .iter()
            .chain(&self.words)
            .map(|word| &**word)
            .collect();
        all.join(" ")
    }

    /// As a literal of PostgreSQL's `tsvector`. Its index does not know where in a text a word is, so that it
    /// would read all messages with the words of a phrase. Therefore it has each word with the next one, too.
    pub fn tsvector(&self) -> String {
        let pairs = self.words.windows(2).map(|pair| pair.join(" "));
        let all = self.marks.iter().chain(&self.words).cloned().chain(pairs);
        let all = all.map(|word| format!("'{word}'"));
        all.collect::<Vec<_>>().join(" ")
    }
}

/// The mark of messages with a web address.
const LINK: &str = "=link";

/// Whether a text contains a web address.
fn has_link(text: &str) -> bool {
    let mut finder = LinkFinder::new();
    finder.kinds(&[LinkKind::Url]);
    text.contains("://")
        && finder.links(text).any(|link| {
            let scheme = link
                .as_str()
                .split_once("://")
                .map_or("", |(scheme, _)| scheme);
            ["http", "https"]
                .iter()
                .any(|known| scheme.eq_ignore_ascii_case(known))
        })
}

/// Words that have to follow each other in a message.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Term {
    words: Vec<String>,
    /// Whether the last word is only the beginning of one.
    is_open: bool,
}

impl Term {
    fn of(text: &str, may_be_open: bool) -> Option<Self> {
        let text: String = text.nfc().collect();
        let bare = text.strip_suffix('*').filter(|_| may_be_open);
        let mut words = words(bare.unwrap_or(&text));
        let last = words.last()?;
        let mut is_open = bare.is_some_and(|bare| last.end == bare.len());
        if last.text.starts_with(is_unspaced) {
            // A pair of letters contains the letter that its second one begins.
            match last.continues {
                true => drop(words.pop()),
                false => is_open = true,
            }
        } else {
            is_open &= last.text.chars().count() > 1;
        }
        let words = words.into_iter().map(|word| word.text).collect();
        Some(Self { words, is_open })
    }

    /// Where the words begin in a text with these words.
    fn places<'a>(&'a self, text: &'a [Word]) -> impl Iterator<Item = usize> + 'a {
        let fits = |(n, word): (usize, &Word)| match self.is_open && n + 1 == self.words.len() {
            true => word.text.starts_with(&self.words[n]),
            false => word.text == self.words[n],
        };
        let windows = text.windows(self.words.len()).enumerate();
        windows
            .filter(move |(_, window)| window.iter().enumerate().all(fits))
            .map(|(at, _)| at)
    }

    /// A mark that messages with a word of this beginning have.
    fn head(&self) -> Option<String> {
        let [only] = &self.words[..] else { return None };
        (self.is_open && is_head(only)).then(|| format!("+{only}"))
    }
}

/// Where messages are looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum In {
    /// The group of this name.
    Group(String),
    /// The private room with the person of this name.
    Private(String),
}

/// What somebody types into the search field, as it is understood. Whatever is no operator is words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    terms: Vec<Term>,
    /// Only messages there.
    pub place: Option<In>,
    /// Only messages by the people of this name; `me` is oneself.
    pub from: Option<String>,
    /// Only messages written at that moment or later.
    pub since: Option<Millis>,
    /// Only messages written before that moment.
    pub until: Option<Millis>,
    /// Only messages with a web address.
    pub has_link: bool,
    /// Only messages with a file.
    pub has_file: bool,
}

impl Query {
    /// Reads what somebody has typed.
    pub fn of(typed: &str) -> Self {
        let mut query = Self::default();
        let mut rest = typed.trim_start();
        while !rest.is_empty() {
            rest = query.read_one(rest).trim_start();
        }
        query
    }

    /// Reads the first word, phrase or operator. Returns what follows it.
    fn read_one<'a>(&mut self, text: &'a str) -> &'a str {
        if let Some((phrase, rest)) = quoted(text) {
            self.terms.extend(Term::of(phrase, false));
            return rest;
        }
        let end = text.find(char::is_whitespace).unwrap_or(text.len());
        let piece = &text[..end];
        if let Some((operator, value)) = text.split_once(':')
            && operator.len() < end
        {
            let (value, rest) =
                quoted(value).unwrap_or((&piece[operator.len() + 1..], &text[end..]));
            if self.operate(&operator.to_lowercase(), value.trim()) {
                return rest;
            }
        }
        self.terms.extend(Term::of(piece, true));
        &text[end..]
    }

    /// Applies an operator. Returns whether it is one.
    fn operate(&mut self, operator: &str, value: &str) -> bool {
        let name = || value.trim_start_matches(['@', '#']).to_owned();
        match operator {
            _ if name().is_empty() => return false,
            "in" if value.starts_with('@') => self.place = Some(In::Private(name())),
            "in" => self.place = Some(In::Group(name())),
            "with" => self.place = Some(In::Private(name())),
            "from" => self.from = Some(name()),
            "has" => match &value.to_lowercase()[..] {
                "link" | "links" => self.has_link = true,
                "file" | "files" => self.has_file = true,
                _ => return false,
            },
            _ => match (operator, Millis::of_day(value)) {
                ("before", Some(day)) => self.until = Some(day),
                ("after", Some(day)) => self.since = Some(day.after(DAY)),
                ("on", Some(day)) => (self.since, self.until) = (Some(day), Some(day.after(DAY))),
                _ => return false,
            },
        }
        true
    }

    /// Whether it asks for nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a message matches, whoever wrote it and wherever it is.
    pub fn matches(&self, message: &Message) -> bool {
        let text: String = message.text.nfc().collect();
        let (words, written) = (words(&text), message.created_at);
        self.since.is_none_or(|since| written >= since)
            && self.until.is_none_or(|until| written < until)
            && (!self.has_link || has_link(&text))
            && (!self.has_file || !message.files.is_empty())
            && self
                .terms
                .iter()
                .all(|term| term.places(&words).next().is_some())
    }

    /// What an index is asked for: messages with all the words and marks.
    pub fn sought(&self) -> Sought {
        let asked = [(self.has_link, LINK), (self.has_file, marks::FILE)].into_iter();
        let asked = asked.filter(|(is_asked, _)| *is_asked);
        let mut marks: Vec<_> = asked.map(|(_, mark)| vec![mark.to_owned()]).collect();
        let mut terms = Vec::new();
        for term in &self.terms {
            match term.head() {
                Some(head) => marks.push(vec![head]),
                None => terms.push(term.clone()),
            }
        }
        Sought { terms, marks }
    }

    /// The part of a text around its first match, in parts that match or do not.
    pub fn excerpt(&self, text: &str) -> Vec<(String, bool)> {
        let text: String = text.nfc().collect();
        let words = words(&text);
        let mut matches: Vec<(usize, usize)> = Vec::new();
        for term in &self.terms {
            for at in term.places(&words) {
                let last = &words[at + term.words.len() - 1];
                // One letter may be the first of a pair.
                let letter = text[last.start..].chars().next().map_or(0, char::len_utf8);
                let is_letter = term.is_open && last.text.starts_with(is_unspaced);
                let end = if is_letter {
                    last.start + letter
                } else {
                    last.end
                };
                matches.push((words[at].start, end));
            }
        }
        matches.sort_unstable();
        let first = matches.first().map_or(0, |(start, _)| *start);
        let before = text[..first].char_indices().rev().nth(EXCERPT_BEFORE - 1);
        let is_long = text.chars().nth(EXCERPT).is_some();
        let from = before.filter(|_| is_long).map_or(0, |(at, _)| at);
        // It begins with a whole word, where words have spaces between them.
        let words = text[from..first].split_once(char::is_whitespace);
        let words = words.filter(|_| from > 0);
        let from = words.map_or(from, |(_, words)| first - words.len());
        let until = text[from..].char_indices().nth(EXCERPT);
        let until = until.map_or(text.len(), |(at, _)| from + at);
        let mut parts = Vec::new();
        let mut part = |words: &str, is_match| {
            if !words.is_empty() {
                parts.push((words.to_owned(), is_match));
            }
        };
        part(if from > 0 { "…" } else { "" }, false);
        let mut done = from;
        for (start, end) in matches {
            let (start, end) = (start.clamp(done, until), end.clamp(done, until));
            part(&text[done..start], false);
            part(&text[start..end], true);
            done = end;
        }
        part(&text[done..until], false);
        part(if until < text.len() { "…" } else { "" }, false);
        parts
    }
}

/// The result of a search.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The newest messages found and their rooms, newest first.
    pub messages: Vec<(Message, Room)>,
    /// Before this message, there may be more.
    pub before: Option<MessageId>,
    /// Why nothing can be found.
    pub unknown: Option<Unknown>,
    /// Whether older messages are still being indexed, so that they are not found yet.
    pub incomplete: bool,
}

/// What a query names and is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// Nobody has this name.
    Person(String),
    /// The searcher has no such group or conversation.
    Room(String),
}

/// The text in quotes at the beginning of this one, and what follows. Quotes that are not closed are
/// none.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let quotes = ['"', '“', '”', '„'];
    text.strip_prefix(quotes)?.split_once(quotes)
}

/// What an index is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sought {
    terms: Vec<Term>,
    /// Of each of these lists, a message has one mark.
    marks: Vec<Vec<String>>,
}

impl Sought {
    /// The same, and messages must have one of these marks.
    #[must_use]
    pub fn with(mut self, one_of: Vec<String>) -> Self {
        self.marks.push(one_of);
        self
    }

    /// As a query of SQLite's FTS5.
    pub fn fts5(&self) -> String {
        let term = |term: &Term| {
            let star = if term.is_open { " *" } else { "" };
            format!("\"{}\"{star}", term.words.join(" "))
        };
        let mark = |mark: &String| format!("\"{mark}\"");
        self.joined(term, mark, " AND ", " OR ")
    }

    /// As a literal of PostgreSQL's `tsquery`.
    pub fn tsquery(&self) -> String {
        let term = |term: &Term| {
            let pairs: Vec<_> = match &term.words[..] {
                [word] => vec![word.clone()],
                words => words.windows(2).map(|pair| pair.join(" ")).collect(),
            };
            let pairs: Vec<_> = pairs.iter().map(|words| format!("'{words}'")).collect();
            let star = if term.is_open { ":*" } else { "" };
            format!("({}{star})", pairs.join(" & "))
        };
        let mark = |mark: &String| format!("'{mark}'");
        self.joined(term, mark, " & ", " | ")
    }

    /// One `tsquery` for each mark of the longest of the lists. Some messages that one of them finds may not match: a
    /// beginning of a word is cut to what the index contains, so that it does not collect all words that begin like
    /// this each time.
    pub fn tsqueries(&self) -> Vec<String> {
        let mut bounded = Self {
            terms: Vec::new(),
            marks: self.marks.clone(),
        };
        let longest = (0..bounded.marks.len()).max_by_key(|n| bounded.marks[*n].len());
        let each = longest.map(|n| bounded.marks.swap_remove(n));
        for term in &self.terms {
            let mut term = term.clone();
            if std::mem::take(&mut term.is_open) {
                let last = term.words.pop();
                let head = last.and_then(|last| longest_head(&last));
                bounded.marks.extend(head.map(|head| vec![head]));
            }
            bounded
                .terms
                .extend((!term.words.is_empty()).then_some(term));
        }
        let each = each.into_iter().flatten();
        let each = each.map(|mark| bounded.clone().with(vec![mark]).tsquery());
        each.collect()
    }

    /// How many marks the longest of the lists has.
    pub fn breadth(&self) -> usize {
        self.marks.iter().map(Vec::len).max().unwrap_or(0)
    }

    /// Whether it is any message.
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty() && self.marks.is_empty()
    }

    fn joined(
        &self,
        term: impl Fn(&Term) -> String,
        mark: impl Fn(&String) -> String,
        and: &str,
        or: &str,
    ) -> String {
        let one_of = |marks: &Vec<String>| {
            let marks: Vec<_> = marks.iter().map(&mark).collect();
            format!("({})", marks.join(or))
        };
        let terms = self.terms.iter().map(term);
        let all = terms.chain(self.marks.iter().map(one_of));
        all.collect::<Vec<_>>().join(and)
    }
}

/// The marks of a message that restrict a search.
pub mod marks {
    use crate::model::{MessageId, RoomId, UserId};

    /// Of the messages with a file.
    pub const FILE: &str = "=file";

    /// Of the messages in a room.
    pub fn room(room: RoomId) -> String {
        format!("=r{}", room.0)
    }

    /// Of the messages in the private rooms of a person.
    pub fn private(user: UserId) -> String {
        format!("=p{}", user.0)
    }

    /// Of the messages by a person.
    pub fn author(user: UserId) -> String {
        format!("=u{}", user.0)
    }

    /// Of the messages around this one: 2 to the power of `size` of them.
    pub fn window(message: MessageId, size: u32) -> String {
        format!("=w{size}x{}", message.0 >> size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_split_into_words() {
        #[track_caller]
        fn check(text: &str, expected: &[&str]) {
            let words = words(text);
            let texts: Vec<_> = words.iter().map(|word| &*word.text).collect();
            assert_eq!(texts, expected);
            for word in words {
                assert!(text.is_char_boundary(word.start) && text.is_char_boundary(word.end));
            }
        }
        check("", &[]);
        check("Hello, World!", &["hello", "world"]);
        check("don't", &["don", "t"]);
        check("éÉ e\u{301} ﬁ Ⅷ ½", &["ee", "e", "fi", "viii", "12"]);
        check("Σίσυφος ΣΊΣΥΦΟΣ", &["σισυφοσ", "σισυφοσ"]);
        check(
            "C++, C#; a+b a++b #x",
            &["c", "++", "c", "#", "a", "b", "a", "++", "b", "x"],
        );
        check("東京都", &["東京", "京都", "都"]);
        check("東京 tower", &["東京", "京", "tower"]);
        check("v2東", &["v2", "東"]);
        check("👍🏽 ok", &["ok"]);
        check("soft\u{ad}hyphen", &["softhyphen"]);
        check(&"x".repeat(500), &[&"x".repeat(LONGEST)]);
    }

    #[test]
    fn whatever_is_typed_is_understood() {
        #[track_caller]
        fn check(typed: &str, terms: &str, expected: &Query) {
            let query = Query::of(typed);
            let sought = Sought {
                terms: query.terms.clone(),
                marks: Vec::new(),
            };
            assert_eq!(sought.fts5(), terms, "{typed}");
            assert_eq!(
                &Query {
                    terms: Vec::new(),
                    ..query
                },
                expected,
                "{typed}"
            );
        }
        let nothing = Query::default;
        let day = Millis::of_day("2026-11-29").unwrap();
        check("", "", &nothing());
        check(" \" ", "", &nothing());
        check("one TWO", r#""one" AND "two""#, &nothing());
        check(r#""one two" three"#, r#""one two" AND "three""#, &nothing());
        check(r#""one two"#, r#""one" AND "two""#, &nothing());
        check("C++", r#""c ++""#, &nothing());
        check("node.j*", r#""node j""#, &nothing());
        check("node.js*", r#""node js" *"#, &nothing());
        check("東", r#""東" *"#, &nothing());
        check("NEAR(a b)", r#""near a" AND "b""#, &nothing());
        check("to: you", r#""to" AND "you""#, &nothing());
        check("at 10:30", r#""at" AND "10 30""#, &nothing());
        check("http://a.b", r#""http a b""#, &nothing());
        check("before:2026-13-01", r#""before 2026 13 01""#, &nothing());
        check("in:", r#""in""#, &nothing());
        check("in: #hi", r#""in" AND "hi""#, &nothing());
        check(
            "x in:#hi",
            r#""x""#,
            &Query {
                place: Some(In::Group("hi".into())),
                ..nothing()
            },
        );
        check(
            "in:@anna",
            "",
            &Query {
                place: Some(In::Private("anna".into())),
                ..nothing()
            },
        );
        check(
            "With:anna From:\"Bob B\" y",
            r#""y""#,
            &Query {
                place: Some(In::Private("anna".into())),
                from: Some("Bob B".into()),
                ..nothing()
            },
        );
        check(
            "before:2026-11-29 after:2026-11-29 has:link has:Files",
            "",
            &Query {
                until: Some(day),
                since: Some(day.after(DAY)),
                has_link: true,
                has_file: true,
                ..nothing()
            },
        );
    }

    #[test]
    fn a_day_begins_and_ends_in_utc() {
        let day = Millis::of_day("2026-11-29").unwrap();
        let query = Query::of("on:2026-11-29");
        assert_eq!(
            (query.since, query.until),
            (Some(day), Some(day.after(DAY)))
        );
    }

    #[test]
    fn indexes_get_the_same_words() {
        let indexed = Indexed::of("Hi 東京 http://a.com", vec!["=r7".into()]);
        let spaced = "=r7 +co +com +hi +ht +htt +http +京 +東 =link hi 東京 京 http a com";
        assert_eq!(indexed.spaced(), spaced);
        let words = "'=link' 'hi' '東京' '京' 'http' 'a' 'com'";
        let pairs = "'hi 東京' '東京 京' '京 http' 'http a' 'a com'";
        assert!(indexed.tsvector().ends_with(&format!("{words} {pairs}")));
        let query = Query::of("ht* \"a b c\" d.xyz* uvxyz* has:link");
        let sought = query.sought().with(vec!["=r1".into(), "=r2".into()]);
        assert_eq!(
            sought.fts5(),
            r#""a b c" AND "d xyz" * AND "uvxyz" * AND ("=link") AND ("+ht") AND ("=r1" OR "=r2")"#
        );
        assert_eq!(
            sought.tsquery(),
            "('a b' & 'b c') & ('d xyz':*) & ('uvxyz':*) & ('=link') & ('+ht') & ('=r1' | '=r2')"
        );
        let of = |mark: &str| {
            format!(
                "('a b' & 'b c') & ('d') & ('=link') & ('+ht') & ('+xyz') & ('+uvxy') & ('{mark}')"
            )
        };
        assert_eq!(sought.tsqueries(), ["=r1", "=r2"].map(of));
    }

    #[test]
    fn matches_are_marked() {
        #[track_caller]
        fn check(typed: &str, text: &str, expected: &str) {
            let parts = Query::of(typed).excerpt(text).into_iter();
            let parts =
                parts.map(|(text, is_match)| if is_match { format!("[{text}]") } else { text });
            assert_eq!(parts.collect::<String>(), expected);
        }
        check("fox", "The Fox, a fox!", "The [Fox], a [fox]!");
        check("cafe", "un Cafe\u{301}", "un [Café]");
        check("\"a b\" b", "a b, b", "[a b], [b]");
        check("wor*", "a word", "a [word]");
        check("東京", "大東京都", "大[東京]都");
        check("京", "大東京都", "大東[京]都");
        check("has:link", "no words", "no words");
        check("c++", "c++!", "[c++]!");
        let long = format!("{} needle {}", "before ".repeat(100), "after ".repeat(100));
        let parts = Query::of("needle").excerpt(&long);
        assert!(parts[0].0 == "…" && parts[2] == ("needle".to_owned(), true));
        assert!(parts[1].0.starts_with("before "));
        assert_eq!(parts.last().unwrap().0, "…");
        let shown: usize = parts.iter().map(|(text, _)| text.chars().count()).sum();
        assert!(shown <= EXCERPT + 2);
    }
}
