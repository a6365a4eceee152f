//! What people type, as the HTML that is shown: emphasis, code, quotes, lists, links, and the people,
//! groups and messages that it names. Whatever is none of these is shown as it was typed.
//!
//! Nothing here knows the store: a [`Draft`] says what it may refer to, and is rendered with what was
//! found.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::net::Ipv6Addr;
use std::ops::Range;
use std::sync::LazyLock;

use ammonia::{Builder, Url, UrlRelative};
use linkify::{LinkFinder, LinkKind};
use pulldown_cmark::{CodeBlockKind, Event, LinkType, OffsetIter, Options, Parser, Tag, TagEnd};
use unicode_normalization::UnicodeNormalization as _;
use unicode_properties::{GeneralCategory, GeneralCategoryGroup, UnicodeGeneralCategory as _};

use crate::code;
use crate::model::{DisplayName, Found, GroupName, MessageText, Sought, Target, UserId, Wording};
use crate::protocol::{address, read_address, read_at};

/// How many elements may be within one another; each list counts twice. What is deeper is shown as it was
/// typed.
const DEPTH: usize = 16;
/// How many links and names of one text become links.
const LINKS: usize = 50;
/// How many ways there are to read what follows one sign: names may have several words.
const WAYS: usize = 12;
/// How many names and messages are looked up for one text.
const SOUGHT: usize = 200;
/// How many parts of the listings of one text have a colour.
const PARTS: usize = 1000;
/// The longest name of a programming language.
const LANGUAGE: usize = 20;

/// The longest first line of a text that a reply shows, in characters.
const FIRST_LINE: usize = 120;
/// The ends of names that are no addresses, though they look like some.
const FILES: [&str; 8] = [
    ".js", ".html", ".css", ".txt", ".json", ".toml", ".yaml", ".xml",
];

/// How many emojis are shown large, if a text consists of nothing else.
const EMOJIS: usize = 10;
/// The longest emoji, in characters.
const EMOJI: usize = 10;
/// The control that copies a listing. It has no text, which people would select with the code.
pub const COPY: &str =
    "<button class=\"listing__copy\" type=\"button\" aria-label=\"Copy the code\"></button>";

/// The only elements and attributes that a rendered text has.
static ALLOWED: LazyLock<Builder<'static>> = LazyLock::new(|| {
    let set = |names: &[&'static str]| names.iter().copied().collect::<HashSet<_>>();
    let mut spans = set(&["emoji", "mention", "mention--all"]);
    spans.extend(code::CLASSES);
    let mut allowed = Builder::empty();
    allowed
        .tags(set(&[
            "a",
            "blockquote",
            "button",
            "code",
            "del",
            "em",
            "li",
            "ol",
            "pre",
            "span",
            "strong",
            "ul",
        ]))
        .tag_attributes(HashMap::from([
            ("a", set(&["href", "title", "target", "rel", "data-user"])),
            ("button", set(&["type", "aria-label"])),
            ("ol", set(&["start"])),
            ("pre", set(&["data-language"])),
        ]))
        .allowed_classes(HashMap::from([
            ("a", set(&["mention"])),
            ("button", set(&["listing__copy"])),
            ("span", spans),
        ]))
        .url_schemes(set(&["http", "https", "mailto"]))
        .url_relative(UrlRelative::PassThrough)
        .link_rel(None);
    allowed
});

/// A parsed text.
pub struct Draft(Vec<Node>);

enum Node {
    Text(String),
    Code(String),
    Listing {
        language: Option<String>,
        code: String,
    },
    Element(Kind, Vec<Node>),
}

#[derive(Clone)]
enum Kind {
    /// Not an element: its marks are shown.
    Typed,
    Emphasis(&'static str),
    Link {
        href: String,
        title: String,
        source: String,
    },
    Quote,
    List(Option<u64>),
    Item,
}

impl Kind {
    fn is_block(&self) -> bool {
        matches!(self, Self::Quote | Self::List(_) | Self::Item)
    }
}

impl Node {
    fn is_block(&self) -> bool {
        match self {
            Self::Text(_) | Self::Code(_) => false,
            Self::Listing { .. } => true,
            Self::Element(kind, _) => kind.is_block(),
        }
    }

    /// What is shown, without marks. Blocks have lines of their own.
    fn add_text(&self, text: &mut String) {
        if self.is_block() && !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        match self {
            Self::Text(more) | Self::Code(more) | Self::Listing { code: more, .. } => *text += more,
            Self::Element(_, nodes) => nodes.iter().for_each(|node| node.add_text(text)),
        }
        if self.is_block() && !text.ends_with('\n') {
            text.push('\n');
        }
    }
}

/// Renders a text that refers to nothing: what may be a name stays as it is. Listings have no colours, which
/// would take too long each time that the text is shown.
pub fn render(text: &str) -> String {
    let found = Found::default();
    Draft::new(text).written("", Some(&found), 0).finish()
}

/// What a reader sees of a text, without marks.
pub fn plain(text: &str) -> String {
    let mut plain = String::new();
    let nodes = Reader::read(text);
    nodes.iter().for_each(|node| node.add_text(&mut plain));
    plain
}

/// The first line of a text as a reply shows it: without marks, and not long.
pub fn first_line(text: &str) -> String {
    let beginning: String = text.chars().take(4 * FIRST_LINE).collect();
    let shown = plain(&beginning);
    let mut lines = shown.lines().map(str::trim);
    let line = lines.find(|line| !line.is_empty()).unwrap_or_default();
    match line.char_indices().nth(FIRST_LINE) {
        Some((end, _)) => format!("{}…", line[..end].trim_end()),
        None => line.to_owned(),
    }
}

/// Whether a rendered text contains blocks, which a paragraph cannot contain.
pub fn has_blocks(html: &str) -> bool {
    let blocks = ["<pre", "<blockquote", "<ul", "<ol"];
    blocks.iter().any(|block| html.contains(block))
}

impl Draft {
    /// Parses a text.
    pub fn new(text: &str) -> Self {
        Self(Reader::read(text))
    }

    /// What it may refer to. The address of a message begins with the `origin` of the chat.
    pub fn sought(&self, origin: &str) -> Sought {
        self.written(origin, None, 0).sought
    }

    /// The text with what it refers to.
    pub fn wording(&self, text: &MessageText, origin: &str, found: &Found) -> Wording {
        let mut written = self.written(origin, Some(found), PARTS);
        Wording {
            text: text.clone(),
            mentions: std::mem::take(&mut written.mentions),
            here: written.here,
            html: Some(written.finish()),
        }
    }

    fn written<'f>(&self, origin: &'f str, found: Option<&'f Found>, parts: usize) -> Writer<'f> {
        let mut writer = Writer {
            origin,
            found,
            sought: Sought::default(),
            mentions: Vec::new(),
            here: false,
            links: 0,
            parts,
            html: String::new(),
        };
        match &self.0[..] {
            [Node::Text(text)] if is_emoji(text) => {
                writer.html = format!("<span class=\"emoji\">{}</span>", escaped(text));
            }
            nodes => writer.write(nodes, false, false),
        }
        writer
    }
}

/// The lines from the first to the last that have something in them.
fn without_blank_ends(text: &str) -> &str {
    let start = text.len() - text.trim_start().len();
    let text = &text[text[..start].rfind('\n').map_or(0, |at| at + 1)..];
    let end = text.trim_end().len();
    &text[..text[end..].find('\n').map_or(text.len(), |at| end + at)]
}

/// The first line after a quote that is not marked as one ends it. In CommonMark, it would belong to the last
/// paragraph of the quote.
fn end_quotes(text: &str) -> Cow<'_, str> {
    if !text.contains('>') {
        return text.into();
    }
    let is_marked = |line: &str| line.trim_start().starts_with('>');
    let (mut quotes, mut ends) = (0_usize, Vec::new());
    for (event, range) in events(text) {
        match event {
            Event::Start(Tag::BlockQuote(_)) => quotes += 1,
            Event::End(TagEnd::BlockQuote(_)) => quotes -= 1,
            Event::SoftBreak | Event::HardBreak if quotes > 0 => {
                let line = text[..range.start].rfind('\n').map_or(0, |at| at + 1);
                if is_marked(&text[line..]) && !is_marked(&text[range.end..]) {
                    ends.push(range.end);
                }
            }
            _ => {}
        }
    }
    let mut ended = text.to_owned();
    for end in ends.into_iter().rev() {
        ended.insert(end, '\n');
    }
    ended.into()
}

fn events(text: &str) -> OffsetIter<'_> {
    Parser::new_ext(text, Options::ENABLE_STRIKETHROUGH).into_offset_iter()
}

/// Builds the tree from the events of the parser. What they do not cover is shown, except for the marks of
/// elements.
struct Reader<'a> {
    text: &'a str,
    /// Up to where the text has been read.
    at: usize,
    /// The elements that have begun; the first is the whole text.
    open: Vec<Open>,
    /// The web addresses in the text, whose characters are not marks.
    addresses: Vec<Range<usize>>,
}

struct Open {
    kind: Kind,
    range: Range<usize>,
    nodes: Vec<Node>,
}

impl<'a> Reader<'a> {
    fn read(text: &str) -> Vec<Node> {
        let text = &*end_quotes(without_blank_ends(text));
        let addresses = addresses(text).into_iter().map(|(range, _)| range);
        let mut reader = Reader {
            text,
            at: 0,
            open: Vec::new(),
            addresses: addresses.collect(),
        };
        reader.push(Kind::Typed, 0..text.len());
        let mut events = events(text);
        while let Some((event, range)) = events.next() {
            match event {
                Event::Start(tag) => reader.begin(&tag, range, &mut events),
                Event::End(_) => reader.end(),
                Event::Code(code) => {
                    reader.say_up_to(range.start);
                    reader.at = range.end;
                    reader.nodes().push(Node::Code(code.into_string()));
                }
                Event::SoftBreak | Event::HardBreak => {
                    reader.say_up_to(range.start);
                    let is_typed = text[range.clone()].starts_with('\\');
                    reader.say(if is_typed { "\\\n" } else { "\n" });
                    reader.at = range.end;
                }
                // As it was typed, also if it is the name of a character.
                _ => reader.say_typed(range),
            }
        }
        reader.say_up_to(text.len());
        std::mem::take(reader.nodes())
    }

    fn begin(&mut self, tag: &Tag<'a>, range: Range<usize>, events: &mut OffsetIter<'a>) {
        self.say_up_to(range.start);
        let source = &self.text[range.clone()];
        let kind = match tag {
            Tag::CodeBlock(CodeBlockKind::Fenced(info)) => {
                return self.listing(info.trim(), range, events);
            }
            Tag::CodeBlock(CodeBlockKind::Indented) | Tag::HtmlBlock => {
                skip(events);
                return self.say_typed(range);
            }
            Tag::Emphasis => Kind::Emphasis("em"),
            Tag::Strong => Kind::Emphasis("strong"),
            Tag::Strikethrough => Kind::Emphasis("del"),
            Tag::Link {
                link_type,
                dest_url,
                title,
                ..
            } => match href(*link_type, dest_url, title, source) {
                Some(href) => Kind::Link {
                    href,
                    title: title.to_string(),
                    source: source.to_owned(),
                },
                None => Kind::Typed,
            },
            Tag::BlockQuote(_) => Kind::Quote,
            Tag::List(first) => Kind::List(*first),
            Tag::Item => Kind::Item,
            _ => Kind::Typed,
        };
        let is_deep = self.open.len() > DEPTH;
        if is_deep && kind.is_block() {
            skip(events);
            return self.say_typed(range);
        }
        let cuts = self.addresses.iter().any(|address| {
            let is_within = |at| address.start < at && at < address.end;
            is_within(range.start) || is_within(range.end)
        });
        let kind = match kind {
            Kind::Emphasis(_) | Kind::Link { .. } if is_deep || cuts => Kind::Typed,
            kind => kind,
        };
        self.at += match &kind {
            Kind::Typed | Kind::List(_) => 0,
            Kind::Emphasis(tag) => mark(tag, source),
            Kind::Link { .. } => 1,
            Kind::Quote => after_mark(source, 1),
            Kind::Item => {
                let digits = source.trim_start().find(|c: char| !c.is_ascii_digit());
                after_mark(source, digits.unwrap_or_default() + 1)
            }
        };
        self.push(kind, range);
    }

    fn push(&mut self, kind: Kind, range: Range<usize>) {
        let nodes = Vec::new();
        self.open.push(Open { kind, range, nodes });
    }

    fn end(&mut self) {
        let Some(Open { kind, range, .. }) = self.open.last() else {
            return;
        };
        let (end, source) = (range.end, &self.text[range.clone()]);
        match kind {
            Kind::Emphasis(tag) => self.say_up_to(end - mark(tag, source)),
            Kind::Link { .. } if source.starts_with('<') => self.say_up_to(end - 1),
            Kind::Link { .. } => {}
            _ => self.say_up_to(end),
        }
        self.at = self.at.max(end);
        let Some(Open { kind, nodes, .. }) = self.open.pop() else {
            return;
        };
        let mut shown = String::new();
        nodes.iter().for_each(|node| node.add_text(&mut shown));
        let is_shown = match &kind {
            Kind::Link { href, .. } => !shown.trim().is_empty() && !is_disguise(&shown, href),
            Kind::Quote | Kind::List(_) => !shown.trim().is_empty(),
            Kind::Typed | Kind::Emphasis(_) | Kind::Item => true,
        };
        match kind {
            Kind::Typed => {
                for node in nodes {
                    match node {
                        Node::Text(text) => self.say(&text),
                        node => self.nodes().push(node),
                    }
                }
            }
            _ if !is_shown => self.say(source),
            kind => self.nodes().push(Node::Element(kind, nodes)),
        }
    }

    /// Code between two lines of backticks or tildes. What follows the first of them is a language, or else
    /// belongs to the code.
    fn listing(&mut self, info: &str, range: Range<usize>, events: &mut OffsetIter<'a>) {
        let mut code = String::new();
        for (event, _) in events.by_ref() {
            match event {
                Event::Text(text) => code += &text,
                Event::End(_) => break,
                _ => {}
            }
        }
        if code.trim().is_empty() {
            return self.say_typed(range);
        }
        let is_part = |c: char| c.is_alphanumeric() || matches!(c, '+' | '#' | '-' | '.' | '_');
        let is_language = info.len() <= LANGUAGE && info.chars().all(is_part);
        if !is_language {
            code.insert_str(0, &format!("{info}\n"));
        }
        let language = (is_language && !info.is_empty()).then(|| info.to_owned());
        code.truncate(code.trim_end_matches('\n').len());
        self.nodes().push(Node::Listing { language, code });
        self.at = range.end;
    }

    fn nodes(&mut self) -> &mut Vec<Node> {
        let last = self.open.len() - 1;
        &mut self.open[last].nodes
    }

    fn say(&mut self, text: &str) {
        match self.nodes().last_mut() {
            Some(Node::Text(before)) => *before += text,
            _ => self.nodes().push(Node::Text(text.to_owned())),
        }
    }

    fn say_typed(&mut self, range: Range<usize>) {
        self.say_up_to(range.start);
        let text = self.text;
        self.say(&text[range.start.max(self.at)..range.end.max(self.at)]);
        self.at = self.at.max(range.end);
    }

    /// Shows what no event covers: line breaks, the marks of what is not an element here, definitions. In
    /// quotes and lists, lines begin with the marks of these. A backslash is not shown if a mark follows.
    fn say_up_to(&mut self, to: usize) {
        let text = self.text;
        let Some(mut gap) = text.get(self.at..to).filter(|gap| !gap.is_empty()) else {
            return;
        };
        if text[to..].starts_with(['*', '_', '~', '`', '>']) {
            gap = gap.strip_suffix('\\').unwrap_or(gap);
        }
        if !self.open.iter().any(|open| open.kind.is_block()) {
            self.at = to;
            return self.say(gap);
        }
        let mut is_beginning = text[..self.at].ends_with('\n');
        self.at = to;
        for line in gap.split_inclusive('\n') {
            self.say(match is_beginning {
                true => line.trim_start_matches([' ', '\t', '>']),
                false => line,
            });
            is_beginning = true;
        }
    }
}

/// Skips the events up to the end of an element that has begun.
fn skip(events: &mut OffsetIter<'_>) {
    let mut depth = 1;
    for (event, _) in events.by_ref() {
        match event {
            Event::Start(_) => depth += 1,
            Event::End(_) => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return;
        }
    }
}

/// The length of the mark at either end of an emphasis.
fn mark(tag: &str, source: &str) -> usize {
    match tag {
        "em" => 1,
        "del" if !source.starts_with("~~") => 1,
        _ => 2,
    }
}

/// Where the content of a quote or an item begins, after a mark of that length.
fn after_mark(source: &str, mark: usize) -> usize {
    let space = [' ', '\t'];
    let content = source.trim_start_matches(space).get(mark..);
    source.len() - content.map_or(0, |content| content.trim_start_matches(space).len())
}

/// What may be an address, and whether it is that of a mailbox. The finder does not know all hosts, so it is
/// shown a simple one of the same length after each scheme.
fn addresses(text: &str) -> Vec<(Range<usize>, bool)> {
    let mut simple = text.to_owned();
    for (at, scheme_end) in text.match_indices("://") {
        let host = at + scheme_end.len();
        let length = host_length(&text[host..]);
        simple.replace_range(host..host + length, &"a".repeat(length));
    }
    let mut finder = LinkFinder::new();
    finder.url_must_have_scheme(false);
    let links = finder.links(&simple);
    links
        .map(|link| (link.start()..link.end(), *link.kind() == LinkKind::Email))
        .collect()
}

/// The length of the host that a text begins with.
fn host_length(text: &str) -> usize {
    let bracketed = text.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    if let Some((address, _)) = bracketed
        && address.parse::<Ipv6Addr>().is_ok()
    {
        return address.len() + 2;
    }
    let is_part = |c: char| {
        c.is_alphanumeric()
            || matches!(c, '-' | '.' | '_')
            || c.general_category_group() == GeneralCategoryGroup::Mark
    };
    let end = text.find(|c| !is_part(c)).unwrap_or(text.len());
    text[..end].trim_end_matches(['-', '.', '_']).len()
}

/// The address of a link, if it leads to a page or a mailbox, and everything that was typed stays.
fn href(kind: LinkType, to: &str, title: &str, source: &str) -> Option<String> {
    let is_whole = source.contains(to) && source.contains(title);
    match kind {
        LinkType::Inline | LinkType::Autolink => web_address(to).filter(|_| is_whole),
        LinkType::Email => Some(format!("mailto:{to}")),
        _ => None,
    }
}

fn web_address(typed: &str) -> Option<String> {
    let begins = |with: &str| {
        let beginning = typed.get(..with.len());
        beginning.is_some_and(|beginning| beginning.eq_ignore_ascii_case(with))
    };
    let address = match () {
        () if ["http://", "https://", "mailto:"].into_iter().any(begins) => typed.to_owned(),
        () if begins("www.") => format!("https://{typed}"),
        () => return None,
    };
    // What no browser can open stays text.
    Url::parse(&address).is_ok().then_some(address)
}

/// Whether a link shows a mention, or another address than it leads to.
fn is_disguise(shown: &str, href: &str) -> bool {
    let href = bare(href);
    if bare(shown) == href {
        return false;
    }
    let leads_there = |shown: &str| {
        let rest = href.strip_prefix(&bare(shown));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?', '#']))
    };
    let is_file =
        |shown: &str| !shown.contains('/') && FILES.iter().any(|ending| shown.ends_with(ending));
    let seen = as_seen(shown);
    let parts = seen.split('@');
    let mut before_mentions = parts.rev().skip(1);
    before_mentions.any(|before| !before.ends_with(char::is_alphanumeric))
        || addresses(&seen).into_iter().any(|(range, _)| {
            let shown = &seen[range];
            !leads_there(shown) && !is_file(shown)
        })
}

/// A text as a reader sees it: compatible forms are the usual ones, and invisible characters are missing.
fn as_seen(text: &str) -> String {
    let visible = text
        .nfkc()
        .filter(|c| c.general_category() != GeneralCategory::Format);
    visible.map(|c| if c == '。' { '.' } else { c }).collect()
}

/// An address without its scheme, `www.` and the last slash, to be compared.
fn bare(address: &str) -> String {
    let address = address.to_lowercase();
    let schemes = ["http://", "https://", "mailto:"];
    let rest = schemes
        .iter()
        .find_map(|scheme| address.strip_prefix(scheme));
    let rest = rest.unwrap_or(&address);
    let rest = rest.strip_prefix("www.").unwrap_or(rest);
    rest.strip_suffix('/').unwrap_or(rest).to_owned()
}

struct Writer<'f> {
    origin: &'f str,
    /// Without it, what may be referred to is noted.
    found: Option<&'f Found>,
    sought: Sought,
    mentions: Vec<UserId>,
    here: bool,
    links: usize,
    /// How many more parts of listings may have a colour.
    parts: usize,
    html: String,
}

impl Writer<'_> {
    fn finish(self) -> String {
        match self.html.contains('<') {
            true => ALLOWED.clean(&self.html).to_string(),
            // There is nothing to remove.
            false => self.html,
        }
    }

    fn write(&mut self, nodes: &[Node], in_block: bool, in_link: bool) {
        let is_block = |at: Option<usize>| match at.and_then(|at| nodes.get(at)) {
            Some(node) => node.is_block(),
            None => in_block,
        };
        for (n, node) in nodes.iter().enumerate() {
            match node {
                Node::Text(text) => {
                    // Blocks have lines of their own.
                    let (after, before) = (is_block(n.checked_sub(1)), is_block(Some(n + 1)));
                    let text = if after {
                        text.trim_start_matches('\n')
                    } else {
                        text
                    };
                    let text = if before {
                        text.trim_end_matches('\n')
                    } else {
                        text
                    };
                    match in_link {
                        true => self.html += &escaped(text),
                        false => self.text(text),
                    }
                }
                Node::Code(code) => self.html += &format!("<code>{}</code>", escaped(code)),
                Node::Listing { language, code } => {
                    let code = self.coloured(language.as_deref().unwrap_or_default(), code);
                    let language = language
                        .as_ref()
                        .map(|language| format!(" data-language=\"{}\"", escaped(language)));
                    let language = language.unwrap_or_default();
                    self.html += &format!("<pre{language}>{COPY}<code>{code}</code></pre>");
                }
                Node::Element(kind, nodes) => self.element(kind, nodes, in_link),
            }
        }
    }

    fn element(&mut self, kind: &Kind, nodes: &[Node], in_link: bool) {
        let (begin, tag) = match kind {
            Kind::Typed => return self.write(nodes, false, in_link),
            Kind::Emphasis(tag) => (format!("<{tag}>"), *tag),
            Kind::Link {
                href,
                title,
                source,
            } => match self.may_link() {
                true => (opening_link(href, title), "a"),
                false => return self.html += &escaped(source),
            },
            Kind::Quote => ("<blockquote>".to_owned(), "blockquote"),
            Kind::List(None) => ("<ul>".to_owned(), "ul"),
            Kind::List(Some(1)) => ("<ol>".to_owned(), "ol"),
            Kind::List(Some(first)) => (format!("<ol start=\"{first}\">"), "ol"),
            Kind::Item => ("<li>".to_owned(), "li"),
        };
        self.html += &begin;
        self.write(nodes, kind.is_block(), in_link || tag == "a");
        self.html += &format!("</{tag}>");
    }

    /// The code of a listing, with colours if the language is known and there are not too many parts.
    fn coloured(&mut self, language: &str, code: &str) -> String {
        let parts = match self.parts {
            0 => None,
            most => code::parts(language, code).filter(|parts| parts.len() <= most),
        };
        let Some(parts) = parts else {
            return escaped(code);
        };
        self.parts -= parts.len();
        let parts = parts.into_iter().map(|(text, class)| match class {
            Some(class) => format!("<span class=\"{class}\">{}</span>", escaped(text)),
            None => escaped(text),
        });
        parts.collect()
    }

    fn may_link(&mut self) -> bool {
        self.links += 1;
        self.links <= LINKS
    }

    /// A text with the addresses and names in it.
    fn text(&mut self, text: &str) {
        let mut from = 0;
        for (range, is_mailbox) in addresses(text) {
            let typed = &text[range.clone()];
            let href = match is_mailbox {
                true => Some(format!("mailto:{typed}")),
                false => web_address(typed),
            };
            let Some(href) = href else { continue };
            self.names(&text[from..range.start]);
            from = range.end;
            let message = self.message(typed);
            match self.may_link() {
                true => {
                    let other = || format!("{}{}</a>", opening_link(&href, ""), escaped(typed));
                    self.html += &message.unwrap_or_else(other);
                }
                false => self.html += &escaped(typed),
            }
        }
        self.names(&text[from..]);
    }

    fn names(&mut self, text: &str) {
        let mut from = 0;
        for (at, sign) in text.match_indices(['@', '#']) {
            let is_within = |before: char| {
                before.is_alphanumeric()
                    || matches!(before, '_' | '-' | '.' | '/' | '&' | '@' | '#')
            };
            if at < from || text[..at].ends_with(is_within) || self.links >= LINKS {
                continue;
            }
            let rest = &text[at + sign.len()..];
            let named = match sign {
                "@" => self.person(rest),
                _ => self.group(rest),
            };
            if let Some((length, begin, end)) = named
                && self.may_link()
            {
                let name = escaped(&rest[..length]);
                self.html += &escaped(&text[from..at]);
                self.html += &format!("{begin}{sign}{name}{end}");
                from = at + sign.len() + length;
            }
        }
        self.html += &escaped(&text[from..]);
    }

    /// The person named at the beginning of a text, or everybody: the length of the name, and what is
    /// around it.
    fn person(&mut self, text: &str) -> Option<(usize, String, &'static str)> {
        let ways = ways(text, DisplayName::CHARACTERS);
        let Some(found) = self.found else {
            let keys = ways.iter().map(|end| DisplayName::key_of(&text[..*end]));
            note(&mut self.sought.people, keys);
            return None;
        };
        if found.is_group && text.starts_with("here") && ways.contains(&"here".len()) {
            self.here = true;
            let begin = "<span class=\"mention mention--all\">";
            return Some(("here".len(), begin.to_owned(), "</span>"));
        }
        let find = |end: &&usize| found.people.get(&DisplayName::key_of(&text[..**end]));
        let end = ways.iter().rev().find(|end| find(end).is_some())?;
        let (user, may_read) = find(&end)?;
        if *may_read && !self.mentions.contains(&user.id) {
            self.mentions.push(user.id);
        }
        let name = quoted(&user.name);
        let href = address(&Target::Private(user.name.clone()))?;
        let begin = format!("<a class=\"mention\" href=\"{href}\" data-user=\"{name}\">");
        Some((*end, begin, "</a>"))
    }

    fn group(&mut self, text: &str) -> Option<(usize, String, &'static str)> {
        let ways = ways(text, GroupName::CHARACTERS);
        let Some(found) = self.found else {
            let keys = ways.iter().map(|end| GroupName::key_of(&text[..*end]));
            note(&mut self.sought.groups, keys);
            return None;
        };
        let find = |end: &&usize| found.groups.get(&GroupName::key_of(&text[..**end]));
        let end = ways.iter().rev().find(|end| find(end).is_some())?;
        let href = address(&Target::Group(find(&end)?.clone()))?;
        Some((*end, format!("<a href=\"{href}\">"), "</a>"))
    }

    /// The link to a message of this chat that has this address.
    fn message(&mut self, typed: &str) -> Option<String> {
        let typed = typed
            .strip_prefix(self.origin)
            .filter(|_| !self.origin.is_empty())?;
        let (path, query) = typed.split_once('?')?;
        let (target, id) = (read_address(path)?, read_at(Some(query))?);
        let Some(found) = self.found else {
            note(&mut self.sought.messages, [id]);
            return None;
        };
        let (group, author) = found.messages.get(&id)?;
        let author = escaped(author);
        Some(match (group, target) {
            (Some(group), Target::Group(name))
                if GroupName::key_of(group) == GroupName::key_of(&name) =>
            {
                let href = address(&Target::Group(group.clone()))?;
                format!(
                    "<a href=\"{href}?at={id}\">#{} · {author}</a>",
                    escaped(group)
                )
            }
            // The two people of a private room have different addresses for it.
            (None, Target::Private(_)) => format!("<a href=\"?at={id}\">{author}</a>"),
            _ => return None,
        })
    }
}

fn note<T>(sought: &mut Vec<T>, more: impl IntoIterator<Item = T>) {
    sought.extend(more);
    sought.truncate(SOUGHT);
}

/// Where a name at the beginning of a text may end.
fn ways(text: &str, most: usize) -> Vec<usize> {
    let line = text.lines().next().unwrap_or_default();
    let mut ways = Vec::new();
    let mut before = ' ';
    let ends = line.char_indices().chain([(line.len(), ' ')]);
    for (at, c) in ends.take(most + 1) {
        if !before.is_whitespace() && !c.is_alphanumeric() {
            ways.push(at);
        }
        if ways.len() == WAYS || at == 0 && c.is_whitespace() {
            break;
        }
        before = c;
    }
    ways
}

/// Whether a text consists of a few emojis.
fn is_emoji(text: &str) -> bool {
    let mut rest = text.trim();
    for _ in 0..EMOJIS {
        let ends = rest.char_indices().map(|(at, c)| at + c.len_utf8());
        let ends = ends
            .take(EMOJI)
            .filter(|end| emojis::get(&rest[..*end]).is_some());
        match ends.last() {
            Some(end) => rest = rest[end..].trim_start(),
            None => return false,
        }
        if rest.is_empty() {
            return true;
        }
    }
    false
}

fn opening_link(href: &str, title: &str) -> String {
    let title = match title {
        "" => String::new(),
        title => format!(" title=\"{}\"", quoted(title)),
    };
    let href = quoted(href);
    format!("<a href=\"{href}\"{title} target=\"_blank\" rel=\"noreferrer nofollow\">")
}

fn escaped(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => html += "&amp;",
            '<' => html += "&lt;",
            '>' => html += "&gt;",
            c => html.push(c),
        }
    }
    html
}

/// The value of an attribute.
fn quoted(text: &str) -> String {
    escaped(text).replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{MessageId, User};

    #[track_caller]
    fn check(text: &str, html: &str) {
        assert_eq!(render(text), html, "{text}");
    }

    #[test]
    fn a_reply_shows_the_first_line_without_marks() {
        #[track_caller]
        fn check(text: &str, line: &str) {
            assert_eq!(first_line(text), line, "{text}");
        }
        check("hello", "hello");
        check("*a* **b** `c` [d](https://e.f)\ng", "a b c d");
        check("```rust\nlet a = 1;\nlet b = 2;\n```", "let a = 1;");
        check("- one\n- two", "one");
        check("> quoted\n\nanswer", "quoted");
        check("<b> & @anna", "<b> & @anna");
        check(&"é".repeat(120), &"é".repeat(120));
        check(&"é".repeat(121), &format!("{}…", "é".repeat(120)));
        check(
            &format!("**{}**", "a ".repeat(2000)),
            &format!("**{}…", "a ".repeat(59).trim_end()),
        );
    }

    #[test]
    fn marks_become_elements() {
        check(
            "*a* **b** ~~c~~ ~d~ `e`",
            "<em>a</em> <strong>b</strong> <del>c</del> <del>d</del> <code>e</code>",
        );
        check("***a***", "<em><strong>a</strong></em>");
        check("a\nb  c\n\n\nd", "a\nb  c\n\n\nd");
        check("\n a\n\nb \n \n\n", " a\n\nb ");
        check("\n", "");
        check(
            "```rust\nlet *a* = 1;\n\n```\nb",
            &format!("<pre data-language=\"rust\">{COPY}<code>let *a* = 1;</code></pre>b"),
        );
        check("> a\n> b\n\nc", "<blockquote>a\nb</blockquote>c");
        check("> a\nb\nc", "<blockquote>a</blockquote>b\nc");
        check(
            "> a\nb\n> c\nd",
            "<blockquote>a</blockquote>b<blockquote>c</blockquote>d",
        );
        check("> - a\nb", "<blockquote><ul><li>a</li></ul></blockquote>b");
        check(
            "```\n> a\nb\n```",
            &format!("<pre>{COPY}<code>&gt; a\nb</code></pre>"),
        );
        check(
            "- a\n- b\n  - c\n",
            "<ul><li>a</li><li>b<ul><li>c</li></ul></li></ul>",
        );
        check("3. a\n4. b", "<ol start=\"3\"><li>a</li><li>b</li></ol>");
        check("a\n- b\n\nc", "a<ul><li>b</li></ul>c");
        check(
            "> > a\n\n> - b\n>\n>   c",
            "<blockquote><blockquote>a</blockquote></blockquote><blockquote><ul><li>b\n\nc</li></ul></blockquote>",
        );
    }

    #[test]
    fn a_few_emojis_alone_are_large() {
        for text in ["🎉", " 👍🏽 ❤️ ", "👩‍👩‍👧‍👦🇩🇪", "🎉🎉🎉🎉🎉🎉🎉🎉🎉🎉"]
        {
            check(text, &format!("<span class=\"emoji\">{text}</span>"));
        }
        for text in [
            "",
            " ",
            "a🎉",
            "🎉!",
            "🎉🎉🎉🎉🎉🎉🎉🎉🎉🎉🎉",
            "1",
            "#",
            "🎉 👋 a",
        ] {
            check(text, text);
        }
    }

    #[test]
    fn everything_else_is_shown_as_it_was_typed() {
        for text in [
            "# a",
            "a\n===",
            "a\n---\nb",
            "---",
            "***",
            "    a\n  b",
            "| a |\n|---|\n| b |",
            "[a]: b",
            "[a]",
            "![a](b.png)",
            "-",
            ">",
            "1.",
            "```",
            "``````",
            "C:\\!a \\\\b\\c",
            "a_b_c",
            "2 * 3 * 4",
            "[a](b)",
            "[a](javascript:b)",
            "\ta",
            "a\\\nb",
            "* ",
            "+1",
            "a * b",
            "``",
            "~~",
            "**",
            "*",
            "[](/b)",
            "[a]: /b \"c\"\n\nd [a]",
        ] {
            check(text, &escaped(text));
        }
        check(
            "<b>a</b> &amp; <!-- c -->",
            "&lt;b&gt;a&lt;/b&gt; &amp;amp; &lt;!-- c --&gt;",
        );
        check(
            "<div>\n*a*\n</div>\n\n*b*",
            "&lt;div&gt;\n*a*\n&lt;/div&gt;\n\n<em>b</em>",
        );
        check("\\*a\\* \\_ \\. \\`", "*a* _ \\. `");
        check("> # a\n> b\n> ===", "<blockquote># a\nb\n===</blockquote>");
        check("## *a* ##", "## <em>a</em> ##");
        check(
            "```two words\nb\n```",
            &format!("<pre>{COPY}<code>two words\nb</code></pre>"),
        );
    }

    #[test]
    fn addresses_are_links() {
        let link = |href: &str, shown: &str| {
            format!("<a href=\"{href}\" target=\"_blank\" rel=\"noreferrer nofollow\">{shown}</a>")
        };
        let to = |href: &str| link(href, href);
        check(
            "(https://a.example/b_c_d).",
            &format!("({}).", to("https://a.example/b_c_d")),
        );
        check(
            "https://a.example/_b_/*c*d",
            &to("https://a.example/_b_/*c*d"),
        );
        check(
            "**https://a.example**",
            &format!("<strong>{}</strong>", to("https://a.example")),
        );
        check(
            "*https://a.example/b*",
            &format!("<em>{}</em>", to("https://a.example/b")),
        );
        check("HTTP://a.example", &to("HTTP://a.example"));
        for address in [
            "https://пример.рф",
            "https://उदाहरण.परीक्षा/b",
            "http://[::1]/",
            "http://[::1]:8080/b?c",
            "http://a.b/?c=d",
            "http://a_b.example/",
            "http://localhost:8080",
            "https://a.example:65535/",
        ] {
            check(&format!("({address})."), &format!("({}).", to(address)));
        }
        check(
            "www.a.example/b, c",
            &format!("{}, c", link("https://www.a.example/b", "www.a.example/b")),
        );
        check(
            "anna@a.example",
            &link("mailto:anna@a.example", "anna@a.example"),
        );
        check("<https://a.example/*b*>", &to("https://a.example/*b*"));
        check(
            "<anna@a.example>",
            &link("mailto:anna@a.example", "anna@a.example"),
        );
        check(
            "[*b*](https://a.example)",
            &link("https://a.example", "<em>b</em>"),
        );
        check(
            "[www.a.example](https://www.a.example/b)",
            &link("https://www.a.example/b", "www.a.example"),
        );
        check(
            "[https://b.example](https://a.example)",
            &format!("[{}]({})", to("https://b.example"), to("https://a.example")),
        );
        check(
            "https://a.example/?b=\"c\"&d",
            &format!("{}\"c\"&amp;d", to("https://a.example/?b=")),
        );
        for text in [
            "node.js",
            "a.example",
            "ftp://a.example",
            "a@b",
            "javascript:a",
            "`https://a.example`",
            "https://a.example:99999/_b_",
            "[a](https://a.example:99999/)",
            "<https://a.example:99999/>",
            "www.a.example:99999",
            "http://[::z]/",
            "https://...",
        ] {
            assert!(!render(text).contains("<a"), "{text}");
        }
        check("https://a.example:99999/_b_", "https://a.example:99999/_b_");
    }

    fn found() -> Found {
        let user = |id, name: &str| User {
            id: UserId(id),
            name: name.to_owned(),
            display_name: None,
        };
        Found {
            is_group: true,
            people: HashMap::from([
                ("anna".to_owned(), (user(1, "anna"), true)),
                ("bob lee".to_owned(), (user(2, "bob7"), true)),
                ("carl".to_owned(), (user(3, "carl"), false)),
            ]),
            groups: HashMap::from([("off topic".to_owned(), "Off topic".to_owned())]),
            messages: HashMap::from([
                (
                    MessageId(7),
                    (Some("python".to_owned()), "Ann <3".to_owned()),
                ),
                (MessageId(8), (None, "anna".to_owned())),
            ]),
        }
    }

    fn worded(text: &str) -> (String, Vec<i64>, bool) {
        let draft = Draft::new(text);
        let checked = MessageText::new(text, 4000).unwrap();
        let wording = draft.wording(&checked, "https://chat.example", &found());
        let mentions = wording.mentions.iter().map(|user| user.0).collect();
        (wording.html.unwrap(), mentions, wording.here)
    }

    #[test]
    fn names_are_links() {
        let anna = |shown: &str| {
            format!("<a class=\"mention\" href=\"/chat/@anna/\" data-user=\"anna\">{shown}</a>")
        };
        let bob = "<a class=\"mention\" href=\"/chat/@bob7/\" data-user=\"bob7\">@Bob Lee</a>";
        let (html, mentions, here) = worded("@anna, (@Anna) and **@Bob Lee**! @dora");
        let (first, second) = (anna("@anna"), anna("@Anna"));
        let expected = format!("{first}, ({second}) and <strong>{bob}</strong>! @dora");
        assert_eq!((html, mentions, here), (expected, vec![1, 2], false));
        let (html, mentions, here) = worded("@here: see #off topic. @carl");
        let expected = "<span class=\"mention mention--all\">@here</span>: see \
            <a href=\"/chat/Off%20topic/\">#off topic</a>. \
            <a class=\"mention\" href=\"/chat/@carl/\" data-user=\"carl\">@carl</a>";
        assert_eq!((&*html, mentions, here), (expected, vec![], true));
        for text in [
            "`@anna @here #off topic`",
            "```\n@anna\n```",
            "anna@anna",
            "@annabel @hereby",
            "@ anna",
            "@@anna",
            "/@anna",
            "https://a.example/@anna",
            "&#off topic",
        ] {
            let (html, mentions, here) = worded(text);
            assert!(
                mentions.is_empty() && !here && !html.contains("/chat/"),
                "{html}"
            );
        }
    }

    #[test]
    fn listings_have_colours_if_they_are_not_too_long() {
        let (html, ..) = worded("```rust\nlet a = \"<b>\"; // 5\n```");
        let expected = "<code><span class=\"code-keyword\">let</span> a = \
            <span class=\"code-string\">\"&lt;b&gt;\"</span>; \
            <span class=\"code-comment\">// 5</span></code>";
        assert!(html.contains(expected), "{html}");
        let long = format!("```rust\n{}\n```", "\"a\" ".repeat(600));
        let short = "```rust\n5\n```";
        assert!(!worded(&long).0.contains("<span"));
        assert_eq!(worded(short).0.matches("<span").count(), 1);
        let two = format!("```rust\n{}\n```\n\n", "\"a\" ".repeat(300)).repeat(2);
        assert_eq!(worded(&two).0.matches("<span").count(), 300);
        assert!(!worded("```cobol\n5\n```").0.contains("<span"));
        assert!(!render(short).contains("<span"));
    }

    #[test]
    fn a_label_that_looks_like_something_else_is_not_shown_as_one() {
        for text in [
            "[good.example](http://evil.example)",
            "[good.example/login](https://evil.example/login)",
            "[see good.example](https://evil.example)",
            "[https://good.example](https://good.example.evil.example)",
            "[https://пример.рф](https://evil.example)",
            "[http://[::1]/](https://evil.example)",
            "[good.example](https://good.example@evil.example)",
            "[good.example](https://good.example:1@evil.example)",
            "[anna@good.example](https://evil.example)",
            "[anna@good.example](mailto:bob@evil.example)",
            "[@anna](https://evil.example)",
            "[\u{200b}@anna](https://evil.example)",
            "[“@anna”](https://evil.example)",
            "[hi,＠here](https://evil.example)",
            "[https://good.example/reset.html](https://evil.example)",
            "[good．example](https://evil.example)",
            "[good。example](https://evil.example)",
            "[good.ex\u{200b}ample](https://evil.example)",
            "[to (@anna)](https://evil.example)",
            "[**@anna**](https://evil.example)",
            "[＠anna](https://evil.example)",
        ] {
            assert!(
                render(text).contains(">https://evil.example") || plain(text) == text,
                "{text}"
            );
        }
        for text in [
            "[good.example](https://www.GOOD.example/a?b#c)",
            "[www.good.example](http://good.example)",
            "[HTTPS://good.example/](https://good.example)",
            "[anna@good.example](mailto:anna@good.example)",
            "[node.js](https://good.example)",
            "[page 1.5](https://good.example)",
            "[a, b](https://good.example/@anna)",
        ] {
            assert!(render(text).starts_with("<a "), "{text}");
            assert!(!plain(text).contains(']'), "{text}");
        }
    }

    #[test]
    fn a_plain_text_has_no_marks() {
        for (text, expected) in [
            ("**a** `b` ~~c~~ [d](https://e.example)", "a b c d"),
            ("> a\n\nb", "a\nb"),
            ("- a\n- b\n\nc", "a\nb\nc"),
            ("```rust\nlet a;\n```", "let a;\n"),
            ("2 * 3 * 4 # a_b_c", "2 * 3 * 4 # a_b_c"),
        ] {
            let lines = plain(text);
            let lines: Vec<_> = lines.lines().filter(|line| !line.is_empty()).collect();
            let expected: Vec<_> = expected.lines().collect();
            assert_eq!(lines, expected, "{text}");
        }
    }

    #[test]
    fn the_address_of_a_message_is_shown_as_the_group_and_the_author() {
        let (html, ..) = worded("see https://chat.example/chat/python/?at=7.");
        assert_eq!(
            html,
            "see <a href=\"/chat/python/?at=7\">#python · Ann &lt;3</a>."
        );
        let (html, ..) = worded("https://chat.example/chat/@bob/?at=8");
        assert_eq!(html, "<a href=\"?at=8\">anna</a>");
        for text in [
            "https://chat.example/chat/python/?at=9",
            "https://chat.example/chat/hi/?at=7",
            "https://chat.example/chat/python/?at=8",
            "https://other.example/chat/python/?at=7",
            "`https://chat.example/chat/python/?at=7`",
        ] {
            assert!(!worded(text).0.contains(" · "), "{text}");
        }
    }

    #[test]
    fn what_may_be_a_name_is_looked_up() {
        let draft = Draft::new("@Anna Lee: #a `@no` https://chat.example/chat/hi/?at=3");
        let sought = draft.sought("https://chat.example");
        assert_eq!(
            sought.people,
            ["anna", "anna lee", "anna lee:", "anna lee: #a"]
        );
        assert!(sought.groups.contains(&"a".to_owned()));
        assert_eq!(sought.messages, [MessageId(3)]);
        assert_eq!(Draft::new("a `@b` c@d.e").sought(""), Sought::default());
        let many = "@a ".repeat(1000);
        assert_eq!(Draft::new(&many).sought("").people.len(), SOUGHT);
    }

    /// The letters in what a reader sees or is sent to.
    fn letters(html: &str) -> HashMap<char, usize> {
        let page = scraper::Html::parse_fragment(html);
        let mut all = String::new();
        for node in page.tree.values() {
            match node {
                scraper::Node::Text(text) => all += text,
                scraper::Node::Element(element) => {
                    for (name, value) in element.attrs() {
                        if ["href", "title", "data-language"].contains(&name) {
                            all += value;
                        }
                    }
                }
                _ => {}
            }
        }
        counted(&all)
    }

    fn counted(text: &str) -> HashMap<char, usize> {
        let mut count = HashMap::new();
        for c in text.chars().filter(|c| c.is_alphabetic()) {
            *count.entry(c).or_default() += 1;
        }
        count
    }

    fn holds(text: &str) {
        let html = render(text);
        let page = scraper::Html::parse_fragment(&html);
        for element in page.tree.values().filter_map(scraper::Node::as_element) {
            let name = element.name();
            let known = ALLOWED.clone_tags().contains(name) || ["html", "body"].contains(&name);
            assert!(known, "{name} of {text:?} {html}");
            let leads = name != "a" || element.attr("href").is_some();
            assert!(leads, "{text:?} {html}");
            for (attribute, value) in element.attrs() {
                let known = match (name, attribute) {
                    ("a", "href") => ["http://", "https://", "mailto:"]
                        .iter()
                        .any(|scheme| value.to_ascii_lowercase().starts_with(scheme)),
                    ("button", "class" | "type" | "aria-label") | ("span", "class") => true,
                    ("a", "title" | "target" | "rel")
                    | ("ol", "start")
                    | ("pre", "data-language") => true,
                    _ => false,
                };
                assert!(known, "{attribute} of {text:?} {html}");
            }
        }
        let shown = letters(&html);
        for (letter, count) in counted(text) {
            let seen = shown.get(&letter).copied().unwrap_or_default();
            assert!(seen >= count, "{letter} of {text:?} {html}");
        }
    }

    #[test]
    fn hostile_texts_become_nothing_else() {
        for text in [
            "<script>alert(1)</script>",
            "<img src=x onerror=alert(1)>",
            "[a](javascript:alert(1))",
            "[a](JaVaScRiPt:alert(1))",
            "[a](data:text/html,b)",
            "[a](vbscript:b)",
            "[a](<javascript:b>)",
            "[a](https://a.example/\" onload=\"b)",
            "<https://a.example/\"onload=b>",
            "[a]: javascript:b\n\n[a]",
            "![a](javascript:b)",
            "```\" onload=\"a\nb\n```",
            "`</code><script>`",
            "> <script>\n> a",
            "- <img src=x onerror=a>",
            "<svg/onload=alert(1)>",
            "&lt;script&gt;",
            "<!--><script>a</script>-->",
            "<a href=\"javascript:a\">b</a>",
            "[a](&#106;avascript:b)",
            "[a](java\tscript:b)",
            "[a](\u{1}javascript:b)",
            "<style>@import 'a'</style>",
            "<math><mtext><table><mglyph><style><!--</style><img title=\"--&gt;&lt;img src=1 onerror=alert(1)&gt;\">",
            "[a](https://a.example 'b\" onload=\"c')",
            "\u{202e}[a](https://a.example)\u{202c}",
            "**a\u{200d}\u{fe0f}**",
            "]]>",
            "<![CDATA[a]]>",
            "<?php a ?>",
            "[![a](b)](https://c.example)",
            "a\u{301}\u{301}\u{301}*b*",
            "\u{feff}# a",
            "\u{a0}*a*\u{a0}",
        ] {
            holds(text);
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_typed_is_lost_and_nothing_else_appears(text in
            "([ -~\n]|[*_~`>#\\[\\]()!<&+.\\-\\\\\n ]|    |```|https://|www\\.|[a-c1-3]|é|😀|\u{202e}){0,60}"
        ) {
            holds(&text);
        }
    }
}
