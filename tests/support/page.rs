//! A page as a small tree: enough to put fragments in place and look at the result.

use scraper::{Html, Node as Parsed};

/// An element of the page.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Element {
    pub(crate) name: String,
    attributes: Vec<(String, String)>,
    children: Vec<Node>,
}

#[derive(Clone, Debug, PartialEq)]
enum Node {
    Element(Element),
    Text(String),
}

/// A message as the page shows it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Shown {
    pub(crate) id: i64,
    pub(crate) author: String,
    pub(crate) text: String,
    pub(crate) key: Option<String>,
    pub(crate) time: String,
}

/// The whole page.
#[derive(Clone, Debug)]
pub(crate) struct Page(Element);

impl Page {
    pub(crate) fn parse(html: &str) -> Self {
        Self(convert(Html::parse_document(html).root_element()))
    }

    /// The page of the original design: the four places and nothing else.
    pub(crate) fn bare() -> Self {
        Self::parse(
            "<p id=logged-user></p><h1 id=group-name></h1><div id=messages-list></div>\
             <div id=notice></div>",
        )
    }

    pub(crate) fn root(&self) -> &Element {
        &self.0
    }

    /// The element of that id.
    pub(crate) fn get(&self, id: &str) -> Option<&Element> {
        self.0.all().find(|element| element.id() == Some(id))
    }

    /// The element of that id, which the page has to have.
    #[track_caller]
    pub(crate) fn the(&self, id: &str) -> &Element {
        self.get(id)
            .unwrap_or_else(|| panic!("the page has no #{id}"))
    }

    /// The messages on show, from the top.
    pub(crate) fn messages(&self) -> Vec<Shown> {
        let list = self.get("messages-list");
        list.into_iter()
            .flat_map(Element::elements)
            .filter(|element| element.has_class("message") || element.has_class("message__item"))
            .map(Shown::read)
            .collect()
    }

    /// Ids that are in the page more than once.
    pub(crate) fn doubled_ids(&self) -> Vec<String> {
        let mut ids: Vec<_> = self.0.all().filter_map(Element::id).collect();
        ids.sort_unstable();
        ids.windows(2)
            .filter(|pair| pair[0] == pair[1])
            .map(|pair| pair[0].to_owned())
            .collect()
    }

    /// Puts a fragment in place as `swap` says. Returns whether there was such a place.
    pub(crate) fn put(&mut self, id: &str, swap: Option<&str>, html: &str) -> bool {
        let fragment = convert(Html::parse_fragment(html).root_element()).children;
        match swap {
            Some("outer") => self.0.replace(id, fragment),
            Some("before") => self.0.add_before(id, fragment),
            Some("remove") => self.0.replace(id, Vec::new()),
            _ => {
                let Some(place) = self.0.get_mut(id) else {
                    return false;
                };
                match swap {
                    Some("append") => place.add(fragment, place.children.len()),
                    Some("prepend") => place.add(fragment, 0),
                    None => place.children = fragment,
                    Some(other) => panic!("there is no swap “{other}”"),
                }
                true
            }
        }
    }

    /// Puts a fragment into every element whose attribute has this value. Returns whether there are any.
    pub(crate) fn put_into_all(&mut self, attribute: &str, value: &str, html: &str) -> bool {
        let fragment = convert(Html::parse_fragment(html).root_element()).children;
        self.0.fill(attribute, value, &fragment)
    }

    pub(crate) fn set(&mut self, id: &str, attribute: &str, value: &str) {
        let element = self.0.get_mut(id).unwrap();
        element.attributes.retain(|(name, _)| name != attribute);
        element
            .attributes
            .push((attribute.to_owned(), value.to_owned()));
    }
}

impl Element {
    pub(crate) fn attribute(&self, name: &str) -> Option<&str> {
        let mut attributes = self.attributes.iter();
        attributes
            .find(|(other, _)| other == name)
            .map(|(_, value)| value.as_str())
    }

    pub(crate) fn id(&self) -> Option<&str> {
        self.attribute("id")
    }

    pub(crate) fn attributes(&self) -> impl Iterator<Item = (&str, &str)> {
        self.attributes
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    pub(crate) fn has_class(&self, class: &str) -> bool {
        self.attribute("class")
            .is_some_and(|classes| classes.split(' ').any(|other| other == class))
    }

    /// The child elements.
    pub(crate) fn elements(&self) -> impl Iterator<Item = &Self> {
        self.children.iter().filter_map(|child| match child {
            Node::Element(element) => Some(element),
            Node::Text(_) => None,
        })
    }

    /// This element and all elements in it, in document order.
    pub(crate) fn all(&self) -> Box<dyn Iterator<Item = &Self> + '_> {
        Box::new(std::iter::once(self).chain(self.elements().flat_map(Self::all)))
    }

    /// This element and all elements in it, if they have an attribute.
    pub(crate) fn with<'a>(&'a self, attribute: &'a str) -> impl Iterator<Item = &'a Self> {
        self.all()
            .filter(move |element| element.attribute(attribute).is_some())
    }

    /// All text in it.
    pub(crate) fn text(&self) -> String {
        self.children
            .iter()
            .map(|child| match child {
                Node::Element(element) => element.text(),
                Node::Text(text) => text.clone(),
            })
            .collect()
    }

    /// The text in a message. It has no class if it is a paragraph, except in a plain tab.
    pub(crate) fn said(&self) -> Option<&Self> {
        let is_text = |part: &&Self| match part.attribute("class") {
            Some(class) => class == "message__text",
            None => part.name == "p",
        };
        self.elements().find(is_text)
    }

    fn get_mut(&mut self, id: &str) -> Option<&mut Self> {
        if self.id() == Some(id) {
            return Some(self);
        }
        self.children.iter_mut().find_map(|child| match child {
            Node::Element(element) => element.get_mut(id),
            Node::Text(_) => None,
        })
    }

    fn fill(&mut self, attribute: &str, value: &str, fragment: &[Node]) -> bool {
        if self.attribute(attribute) == Some(value) {
            self.children = fragment.to_vec();
            return true;
        }
        let mut filled = false;
        for child in &mut self.children {
            if let Node::Element(element) = child {
                filled |= element.fill(attribute, value, fragment);
            }
        }
        filled
    }

    fn replace(&mut self, id: &str, fragment: Vec<Node>) -> bool {
        if let Some(at) = self.child(id) {
            self.children.splice(at..=at, fragment);
            return true;
        }
        let elements = self.children.iter_mut().filter_map(|child| match child {
            Node::Element(element) => Some(element),
            Node::Text(_) => None,
        });
        for element in elements {
            if element.all().any(|inner| inner.id() == Some(id)) {
                return element.replace(id, fragment);
            }
        }
        false
    }

    fn child(&self, id: &str) -> Option<usize> {
        self.children
            .iter()
            .position(|child| matches!(child, Node::Element(element) if element.id() == Some(id)))
    }

    /// Adds siblings before the element of that id. Returns whether there is one.
    fn add_before(&mut self, id: &str, fragment: Vec<Node>) -> bool {
        if let Some(at) = self.child(id) {
            self.add(fragment, at);
            return true;
        }
        let mut elements = self.children.iter_mut().filter_map(|child| match child {
            Node::Element(element) => Some(element),
            Node::Text(_) => None,
        });
        let holds = |element: &&mut Self| element.all().any(|inner| inner.id() == Some(id));
        let inner = elements.find(holds);
        inner.is_some_and(|inner| inner.add_before(id, fragment))
    }

    /// Adds children at a place; an equal id is replaced in place.
    fn add(&mut self, fragment: Vec<Node>, at: usize) {
        let mut fresh = Vec::new();
        for node in fragment {
            let id = match &node {
                Node::Element(element) => element.id().map(str::to_owned),
                Node::Text(_) => None,
            };
            match id.and_then(|id| self.child(&id)) {
                Some(at) => self.children[at] = node,
                None => fresh.push(node),
            }
        }
        self.children.splice(at..at, fresh);
    }
}

impl Shown {
    fn read(message: &Element) -> Self {
        let id = message.id().and_then(|id| id.strip_prefix("message-"));
        let part = |class: &str| {
            let mut parts = message.all().filter(|part| part.has_class(class));
            parts.next().map(Element::text).unwrap_or_default()
        };
        let name = message.elements().find(|part| part.name == "b");
        let time = message.with("datetime").next();
        Self {
            id: id.and_then(|id| id.parse().ok()).expect("#message-<id>"),
            // A plain tab's is in a heading.
            author: name.map_or_else(|| part("message__title"), Element::text),
            text: message.said().map(Element::text).unwrap_or_default(),
            key: message.attribute("data-key").map(str::to_owned),
            time: time
                .and_then(|time| time.attribute("datetime"))
                .unwrap_or_default()
                .to_owned(),
        }
    }
}

fn convert(element: scraper::ElementRef<'_>) -> Element {
    let children = element.children().filter_map(|child| match child.value() {
        Parsed::Element(_) => scraper::ElementRef::wrap(child).map(|e| Node::Element(convert(e))),
        Parsed::Text(text) => Some(Node::Text(text.to_string())),
        _ => None,
    });
    Element {
        name: element.value().name().to_owned(),
        children: children.collect(),
        attributes: element
            .value()
            .attrs()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
    }
}
