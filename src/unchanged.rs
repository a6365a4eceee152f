//! A cache of what belongs to a room as long as the room does not change: its newest page, and what is rendered of it.

use std::mem::size_of;
use std::sync::Arc;

use minijinja::Value;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::model::{Message, Page, RoomId, Version};
use crate::protocol::Frame;

/// A common size of what is kept, in bytes.
const COMMON: u64 = 16 * 1024;
/// What a message takes in addition to its texts and names, and each of those in addition to its letters, about, in bytes.
const MESSAGE: usize = 512;
const PART: usize = 64;

/// What is kept of each room, for one of its versions.
pub(crate) struct Unchanged<T>(Cache<RoomId, (Version, T), Sizes>);

/// Something of which many want the same.
pub(crate) trait Shared: Clone {
    /// About how much memory it takes, in bytes.
    fn size(&self) -> usize;
}

#[derive(Clone)]
struct Sizes;

impl<T: Shared> Weighter<RoomId, (Version, T)> for Sizes {
    fn weight(&self, _: &RoomId, (_, kept): &(Version, T)) -> u64 {
        (kept.size() + size_of::<(RoomId, Version, T)>()) as u64
    }
}

impl<T: Shared> Unchanged<T> {
    /// Keeps at most so many bytes.
    pub(crate) fn new(bytes: u64) -> Self {
        let rooms = usize::try_from(bytes / COMMON).unwrap_or(usize::MAX);
        Self(Cache::with_weighter(rooms, bytes, Sizes))
    }

    /// What is kept of the room, if this is its version.
    pub(crate) fn get(&self, version: Version) -> Option<T> {
        let (of, kept) = self.0.get(&version.room)?;
        (of == version).then_some(kept)
    }

    /// Keeps it in place of what was kept of the room.
    pub(crate) fn keep(&self, version: Version, new: T) -> T {
        self.0.insert(version.room, (version, new.clone()));
        new
    }
}

impl Shared for Arc<Page> {
    fn size(&self) -> usize {
        let size = |message: &Message| {
            let original = message.reply_to.as_ref();
            let original = original.and_then(|original| original.text.as_ref());
            let texts = message.html.iter().chain(original).chain([&message.text]);
            let names = message.reactions.iter().flat_map(|one| &one.names);
            let files = message.files.iter().map(|file| &file.name);
            let parts = texts.chain(names).chain(files);
            MESSAGE + parts.map(|part| PART + part.len()).sum::<usize>()
        };
        self.messages.iter().map(size).sum()
    }
}

impl Shared for Value {
    fn size(&self) -> usize {
        self.as_str().map_or(0, str::len)
    }
}

impl Shared for Frame {
    /// With its deflated bytes, which may come later.
    fn size(&self) -> usize {
        2 * self.bytes(false).len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::History;

    fn version(room: i64, history: u32, number: u64) -> Version {
        Version {
            room: RoomId(room),
            history: History(history),
            number,
        }
    }

    fn text(text: &str) -> Value {
        Value::from_safe_string(text.to_owned())
    }

    #[test]
    fn only_what_belongs_to_the_version_is_found() {
        let cache = Unchanged::new(1 << 20);
        let first = version(1, 5, 7);
        assert_eq!(cache.get(first), None);
        assert_eq!(cache.keep(first, text("seven")), text("seven"));
        assert_eq!(cache.get(first), Some(text("seven")));
        for other in [
            version(1, 5, 8),
            version(1, 5, 6),
            version(1, 6, 7),
            version(2, 5, 7),
        ] {
            assert_eq!(cache.get(other), None);
        }
        cache.keep(version(1, 5, 8), text("eight"));
        assert_eq!(cache.get(first), None);
        assert_eq!(cache.get(version(1, 5, 8)), Some(text("eight")));
    }

    #[test]
    fn it_takes_limited_memory() {
        let cache = Unchanged::new(100_000);
        for room in 0..1000 {
            cache.keep(version(room, 5, 7), text(&"x".repeat(1000)));
        }
        let kept = (0..1000).filter(|room| cache.get(version(*room, 5, 7)).is_some());
        let kept = kept.count();
        assert!((50..=100).contains(&kept), "{kept}");
    }
}
